//! Symbolic derivatives, simplified as they are built: no terms times zero, no factors of one.

use std::borrow::Borrow;

use super::expression::{Expression, Node, Op};
use super::operator::operators;

type E = Expression;

/// What the rows of operators use to write their derivatives.
#[derive(Clone)]
struct Term(E);

impl Term {
    fn is(&self, value: f64) -> bool {
        is(&self.0, value)
    }
}

macro_rules! arithmetic {
    ($($trait:ident $method:ident)*) => {$(
        impl<B: Borrow<Term>> std::ops::$trait<B> for &Term {
            type Output = Term;
            fn $method(self, b: B) -> Term {
                Term($method(&self.0, &b.borrow().0))
            }
        }
        impl<B: Borrow<Term>> std::ops::$trait<B> for Term {
            type Output = Term;
            fn $method(self, b: B) -> Term {
                Term($method(&self.0, &b.borrow().0))
            }
        }
    )*};
}
arithmetic!(Add add Sub sub Mul mul Div div);

impl std::ops::Neg for &Term {
    type Output = Term;
    fn neg(self) -> Term {
        Term(neg(&self.0))
    }
}

impl std::ops::Neg for Term {
    type Output = Term;
    fn neg(self) -> Term {
        -&self
    }
}

fn number(value: f64) -> Term {
    Term(constant(value))
}

/// `op` on one operand.
fn of(op: Op, a: impl Borrow<Term>) -> Term {
    Term(E::apply(op, std::slice::from_ref(&a.borrow().0)))
}

/// The same for two operands, folded if both are numbers.
fn of_two(op: Op, a: impl Borrow<Term>, b: impl Borrow<Term>) -> Term {
    Term(binary(op, &a.borrow().0, &b.borrow().0))
}

fn pow(a: impl Borrow<Term>, b: impl Borrow<Term>) -> Term {
    let (a, b) = (a.borrow(), b.borrow());
    match () {
        () if b.is(0.0) => number(1.0),
        () if b.is(1.0) => a.clone(),
        () => of_two(Op::Pow, a, b),
    }
}

/// `IF(c, a, b)`, or `a` if both branches are the same.
fn choose(c: impl Borrow<Term>, a: &Term, b: &Term) -> Term {
    if a.0 == b.0 {
        return a.clone();
    }
    Term(E::apply(Op::If, &[c.borrow().0.clone(), a.0.clone(), b.0.clone()]))
}

fn constant(value: f64) -> E {
    E::constant(value)
}

fn is(e: &E, value: f64) -> bool {
    e.as_constant() == Some(value)
}

/// `op` on two operands, folded if both are numbers.
fn binary(op: Op, a: &E, b: &E) -> E {
    if let (Some(x), Some(y)) = (a.as_constant(), b.as_constant()) {
        let value = op.apply(&[x, y]);
        if value.is_finite() {
            return constant(value);
        }
    }
    E::apply(op, &[a.clone(), b.clone()])
}

fn add(a: &E, b: &E) -> E {
    match (is(a, 0.0), is(b, 0.0)) {
        (true, _) => b.clone(),
        (_, true) => a.clone(),
        _ => binary(Op::Add, a, b),
    }
}

fn sub(a: &E, b: &E) -> E {
    match (is(a, 0.0), is(b, 0.0)) {
        (_, true) => a.clone(),
        (true, _) => neg(b),
        _ => binary(Op::Sub, a, b),
    }
}

fn neg(a: &E) -> E {
    match a.as_constant() {
        Some(value) => constant(-value),
        None => E::apply(Op::Neg, std::slice::from_ref(a)),
    }
}

fn mul(a: &E, b: &E) -> E {
    match () {
        () if is(a, 0.0) || is(b, 0.0) => constant(0.0),
        () if is(a, 1.0) => b.clone(),
        () if is(b, 1.0) => a.clone(),
        () => binary(Op::Mul, a, b),
    }
}

fn div(a: &E, b: &E) -> E {
    match () {
        () if is(a, 0.0) => constant(0.0),
        () if is(b, 1.0) => a.clone(),
        () => binary(Op::Div, a, b),
    }
}

impl Expression {
    /// The derivative with respect to a variable. Comparisons and the jumps of `IF` count as flat, and kinks of `abs`,
    /// `min`, `max` take one of their two sides (`abs` the mean, 0).
    pub fn derivative(&self, variable: u16) -> Expression {
        let (_, derivative) = self.fold(|node, operands: &[(Term, Term)]| match node {
            Node::Constant(value) => (number(value), number(0.0)),
            Node::Variable(index) => {
                (Term(E::variable(index)), number(f64::from(u8::from(index == variable))))
            }
            Node::Op(op) => {
                let values: Vec<E> = operands.iter().map(|o| o.0.0.clone()).collect();
                (Term(E::apply(op, &values)), chain(op, operands))
            }
        });
        derivative.0
    }
}

macro_rules! define {
    ($(
        $(#[$doc:meta])* $op:ident $row:tt
        value $values:tt $value:tt
        derivative($($a:tt $da:tt),*) $derivative:block
        vector $vectors:tt tests $tests:tt $vector:tt
        partial $names:tt $partial:tt
    )*) => {
        /// The derivative of `op`, given its operands and their derivatives.
        fn chain(op: Op, operands: &[(Term, Term)]) -> Term {
            if operands.iter().all(|o| o.1.is(0.0)) {
                return number(0.0);
            }
            match op {
                $(Op::$op => {
                    let [$(($a, $da)),*] = operands else { unreachable!("operands of {op:?}") };
                    $derivative
                })*
            }
        }
    };
}
operators!(define);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formula::expression::tests::{any_expression, cases};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(cases(20_000))]
        #[test]
        fn agrees_with_differences(
            e in any_expression(), x in 0.3..3.0f64, y in 0.3..3.0f64, z in -2.0..2.0f64,
        ) {
            let at = |x: f64| e.eval(&[x, y, z]);
            let found = e.derivative(0).eval(&[x, y, z]);
            let slope = |h: f64| (at(x + h) - at(x - h)) / (2.0 * h);
            let (coarse, fine) = (slope(2e-5), slope(1e-5));
            // Only where the finite differences have converged: no jump, no kink, no overflow, no intermediate value
            // next to which the step vanishes.
            let size = at(x).abs().max(1.0);
            let value = |root: usize| e.subtree(root).eval(&[x, y, z]);
            let moderate = (0..e.nodes().len()).all(|root| value(root).abs() < 1e4);
            // Nor many teeth of a remainder, over which the differences are a mean.
            let teeth = |x: f64| -> Vec<f64> {
                let remainder = |&root: &usize| e.nodes()[root] == Node::Op(Op::Mod);
                let operands = (0..e.nodes().len()).filter(remainder).map(|root| e.subtree(root).operands());
                operands.map(|ab| (ab[0].eval(&[x, y, z]) / ab[1].eval(&[x, y, z])).floor()).collect()
            };
            let moderate = moderate && teeth(x - 2e-5) == teeth(x + 2e-5);
            let smooth = moderate && (coarse - fine).abs() < 1e-6 * (fine.abs() + size) && fine.abs() < 1e6;
            if smooth && size < 1e6 && found.is_finite() {
                prop_assert!((found - fine).abs() < 1e-4 * (fine.abs() + size), "{found} {fine}");
            }
        }
    }

    #[test]
    fn derivatives_are_short() {
        let names = ["r", "m1", "m2"];
        let of = |text: &str| Expression::parse(text, &names).unwrap().derivative(0).text(&names);
        assert_eq!(of("m1 * m2 * log(r)"), "m1 * m2 * (1 / r)");
        assert_eq!(of("(r - 1)^2"), "2 * (r - 1)");
        assert_eq!(of("-m1 * m2 / r"), "-(-m1 * m2 / (r * r))");
        assert_eq!(of("IF(r > 2, (r - 1)^2, 0)"), "IF((r > 2), 2 * (r - 1), 0)");
        assert_eq!(of("exp(-r)"), "exp(-r) * -1");
        assert_eq!(of("m1 + 3"), "0");
    }
}
