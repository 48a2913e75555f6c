//! A user-defined law: a potential in r (meaning r'), m1, m2, q1, q2.

use serde::{Deserialize, Serialize};

use super::Pair;
use crate::error::{Error, Result};
use crate::formula::expression::{Expression, Node, Op};
use crate::simd::f64s::{Lanes, MAX_WIDTH};

/// The variables, in the order of their indices in expressions.
const VARIABLES: [&str; 5] = ["r", "m1", "m2", "q1", "q2"];

/// Deepest stack of the expression and its derivative.
const MAX_STACK: usize = 64;

/// A potential given as text, with its derivative.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Potential {
    text: String,
    energy: Expression,
    slope: Expression,
    symmetric: bool,
}

impl TryFrom<String> for Potential {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        Potential::parse(&text)
    }
}

impl From<Potential> for String {
    fn from(potential: Potential) -> String {
        potential.text
    }
}

impl Potential {
    /// Reads the expression and differentiates it with respect to r.
    pub fn parse(text: &str) -> Result<Self> {
        let error = |message: String| Error::usage(message).field("potential");
        let energy = Expression::parse(text, &VARIABLES).map_err(|e| error(e.message))?;
        let slope = energy.derivative(0);
        if slope.as_constant() == Some(0.0) {
            return Err(error(format!("'{text}' does not depend on r, so there is no force")));
        }
        if stack_needed(&slope) > MAX_STACK {
            return Err(error(format!("'{text}' is nested too deeply")));
        }
        let symmetric = canonical(&energy, [0, 1, 2, 3, 4]) == canonical(&energy, [0, 2, 1, 4, 3]);
        Ok(Potential { text: text.to_string(), energy, slope, symmetric })
    }

    /// The text it was made from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// True if U12 = U21 is evident from the expression: then action equals reaction, and energy is conserved.
    pub fn is_symmetric(&self) -> bool {
        self.symmetric
    }

    /// U12 at the softened distance r.
    pub fn energy(&self, r: f64, m1: f64, m2: f64, q1: f64, q2: f64) -> f64 {
        self.energy.eval(&[r, m1, m2, q1, q2])
    }

    /// dU12/dr in the variables r, m1, m2, q1, q2.
    pub(crate) fn derivative(&self) -> &Expression {
        &self.slope
    }

    /// dU12/dr at the softened distance `r`.
    #[inline(always)]
    pub(crate) fn slope<V: Lanes>(&self, r: V, pair: &Pair<V>) -> V {
        let variables = [r, pair.m1, pair.m2, pair.q1, pair.q2];
        let nodes = self.slope.nodes();
        let mut stack = [V::splat(0.0); MAX_STACK];
        let mut top = 0;
        for (at, &node) in nodes.iter().enumerate() {
            let value = match node {
                Node::Constant(value) => V::splat(value),
                Node::Variable(index) => variables[usize::from(index)],
                Node::Op(op) => {
                    top -= op.arity();
                    let [a, b] = [stack[top], stack[top + 1]];
                    match (op, nodes[at - 1]) {
                        (Op::Add, _) => a + b,
                        (Op::Sub, _) => a - b,
                        (Op::Mul, _) => a * b,
                        (Op::Div, _) => a * b.inverse(),
                        (Op::Square, _) => a * a,
                        (Op::Cube, _) => a * a * a,
                        (Op::Sqrt, _) => a.sqrt(),
                        (Op::Neg, _) => V::splat(0.0) - a,
                        (Op::Pow, Node::Constant(power)) if small_integer(power) => {
                            integer_power(a, power)
                        }
                        _ => lane_by_lane(op, &stack[top..top + 3]),
                    }
                }
            };
            stack[top] = value;
            top += 1;
        }
        stack[0]
    }
}

/// True for exponents that are evaluated by repeated multiplication.
pub(crate) fn small_integer(power: f64) -> bool {
    power.fract() == 0.0 && power.abs() <= 16.0
}

#[inline(always)]
fn integer_power<V: Lanes>(base: V, power: f64) -> V {
    let mut product = V::splat(1.0);
    for _ in 0..power.abs() as u32 {
        product = product * base;
    }
    if power < 0.0 { product.inverse() } else { product }
}

/// Functions without a vector form.
#[inline(always)]
fn lane_by_lane<V: Lanes>(op: Op, operands: &[V]) -> V {
    let mut values = [[0.0; MAX_WIDTH]; 3];
    for (values, operand) in values.iter_mut().zip(operands) {
        operand.store(values);
    }
    let mut results = [0.0; MAX_WIDTH];
    for lane in 0..V::WIDTH {
        let operands = [values[0][lane], values[1][lane], values[2][lane]];
        results[lane] = op.apply(&operands[..op.arity()]);
    }
    V::load(&results)
}

/// Stack slots needed for evaluation, which reads up to two slots beyond the operands of a unary operator.
fn stack_needed(expression: &Expression) -> usize {
    let (mut top, mut most) = (0, 0);
    for node in expression.nodes() {
        top = top + 1 - node.arity();
        most = most.max(top);
    }
    most + 3
}

/// The expression as text, with variable k named `names[k]` and the operands of commutative
/// operators in order.
fn canonical(expression: &Expression, names: [usize; 5]) -> String {
    expression.fold(|node, operands: &[String]| {
        let mut operands = operands.to_vec();
        match node {
            Node::Constant(value) => value.to_string(),
            Node::Variable(index) => format!("v{}", names[usize::from(index)]),
            Node::Op(op) => {
                if op.row().commutative {
                    operands.sort();
                }
                format!("{}({})", op.name(), operands.join(","))
            }
        }
    })
}
