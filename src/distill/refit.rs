//! Refitting the constants of composed formulas, for every system: Levenberg–Marquardt on the L1 loss, with
//! weights 1/|residual| updated every round and the gradient through the sum over the senders.

use super::formula::Formula;
use crate::error::{Error, Result};
use crate::formula::expression::{Expression, Node, Weights};
use crate::linear::{Normal, solve_spd};
use crate::observer::Observer;

/// Rounds of a refit.
const ROUNDS: usize = 60;
/// Refitting ends when the relative gain of a round is below this.
const GAIN: f64 = 1e-6;
/// Damping of the first step.
const DAMPING: f64 = 1e-3;
/// Smallest |residual| in the weights, relative to the mean.
const RESIDUAL_FLOOR: f64 = 1e-3;
/// Number of steps tried, each five times as damped as the one before.
const DAMPINGS: usize = 12;

impl Normal {
    /// The equations of `copies` messages with `each` constants, of which each depends on an equation of its own,
    /// such that all copies take the same step: the sum of theirs, once for every copy.
    pub(crate) fn alike(&self, copies: usize, each: usize) -> Self {
        let count = self.right.len();
        let shared = copies * each;
        let part = |k: usize| if k < shared { k % each } else { k };
        let mut sum = Normal::new(count);
        for i in 0..count {
            sum.right[part(i)] += self.right[i];
            for j in 0..count {
                sum.matrix[part(i) * count + part(j)] += self.matrix[i * count + j];
            }
        }
        let mut out = Normal::new(count);
        for i in 0..count {
            // The other constants meet every copy.
            let times = if i < shared { 1.0 } else { copies as f64 };
            out.right[i] = times * sum.right[part(i)];
            for j in 0..count {
                let copy = |k: usize| (k < shared).then_some(k / each);
                let apart = copy(i).zip(copy(j)).is_some_and(|(a, b)| a != b);
                let times = if i < shared || j < shared { 1.0 } else { copies as f64 };
                let value = times * sum.matrix[part(i) * count + part(j)];
                out.matrix[i * count + j] = if apart { 0.0 } else { value };
            }
        }
        out
    }

    /// The sum of the parts, in their order.
    pub(crate) fn sum(count: usize, parts: &[Normal]) -> Self {
        let mut total = Normal::new(count);
        for part in parts {
            total.matrix.iter_mut().zip(&part.matrix).for_each(|(a, b)| *a += b);
            total.right.iter_mut().zip(&part.right).for_each(|(a, b)| *a += b);
        }
        total
    }
}

impl Formula {
    /// All expressions, in the order of their constants in the normal equations.
    fn expressions(&mut self) -> Vec<&mut Expression> {
        self.messages.iter_mut().chain(&mut self.nodes).collect()
    }

    /// Refits all constants in rounds until one gains too little, then drops terms that have become superfluous.
    /// `loss` is the mean absolute error, infinite if a formula is undefined; `equations` are the normal equations
    /// of a formula with that loss, `None` if it is undefined. Returns the loss, which is never larger than before
    /// except for the rounding of constants to the precision of the data.
    ///
    /// # Errors
    /// `interrupted` if the observer stops it, leaving the constants of the last round; those of the closures.
    pub(crate) fn refit_by(
        &mut self,
        observer: &dyn Observer,
        loss: impl Fn(&Self) -> Result<f64>,
        equations: impl Fn(&Self, f64) -> Result<Option<Normal>>,
    ) -> Result<f64> {
        let mut present = loss(self)?;
        let mut damping = DAMPING;
        for _ in 0..ROUNDS {
            if observer.stop() {
                return Err(Error::interrupted(
                    "stopped while refitting the constants; the laws are kept: distill --resume \
                     continues from there, compose starts again",
                ));
            }
            let Some(system) = equations(self, present)? else { break };
            let Some((next, lower)) = self.step(&system, present, &mut damping, &loss)? else {
                break;
            };
            let gain = 1.0 - lower / present;
            (*self, present) = (next, lower);
            if gain < GAIN {
                break;
            }
        }
        for expression in self.expressions() {
            *expression = settled(expression);
        }
        loss(self)
    }

    /// The first of a series of ever more damped steps that lowers the loss, and the new loss; sets the
    /// damping for the next round.
    ///
    /// # Errors
    /// Those of `judge`.
    fn step(
        &self,
        system: &Normal,
        loss: f64,
        damping: &mut f64,
        judge: impl Fn(&Self) -> Result<f64>,
    ) -> Result<Option<(Self, f64)>> {
        let count = system.right.len();
        for _ in 0..DAMPINGS {
            let mut matrix = system.matrix.clone();
            let largest = (0..count).map(|k| matrix[k * count + k]).fold(0.0, f64::max);
            for k in 0..count {
                // Scales of messages and nodes can cancel: a floor keeps the fit from moving along such directions.
                matrix[k * count + k] +=
                    *damping * matrix[k * count + k] + 1e-12 * largest + 1e-300;
            }
            if let Some(step) = solve_spd(&matrix, &system.right) {
                let mut next = self.clone();
                move_constants(next.expressions(), &step);
                let lower = judge(&next)?;
                if lower < loss {
                    *damping *= 0.2;
                    return Ok(Some((next, lower)));
                }
            }
            *damping *= 5.0;
        }
        Ok(None)
    }
}

/// Adds `step` to the constants of the expressions, in order.
fn move_constants(expressions: Vec<&mut Expression>, step: &[f64]) {
    let mut steps = step.iter();
    for expression in expressions {
        let constants: Vec<f64> =
            expression.constants().iter().zip(&mut steps).map(|(c, s)| c + s).collect();
        expression.set_constants(&constants);
    }
}

/// The expression with constants as precise as the data, which are f32, and simplified accordingly: if a
/// refit has made the branches of an IF equal, only one is left.
fn settled(expression: &Expression) -> Expression {
    let length = |e: &Expression| e.complexity(&Weights::default());
    let mut settled = rounded(expression);
    loop {
        // Merged constants have more digits again.
        let shorter = rounded(&settled.simplified());
        if length(&shorter) >= length(&settled) {
            return settled;
        }
        settled = shorter;
    }
}

/// The expression with constants rounded to seven digits, enough for a reader.
fn rounded(expression: &Expression) -> Expression {
    let seven_digits = |value: &f64| format!("{value:.6e}").parse().unwrap_or(*value);
    let constants: Vec<f64> = expression.constants().iter().map(seven_digits).collect();
    let mut rounded = expression.clone();
    rounded.set_constants(&constants);
    rounded
}

/// A formula with all the derivatives its refit needs.
pub(crate) struct Linearised {
    /// For each message.
    pub(crate) messages: Vec<Parametric>,
    nodes: Vec<Parametric>,
    /// `[node][message]`: derivative of a node expression with respect to a summed message.
    by_sum: Vec<Vec<Expression>>,
    /// Number of all constants.
    pub(crate) count: usize,
    /// The smallest |residual| in the weights.
    floor: f64,
}

impl Linearised {
    /// Linearises a formula with this loss.
    pub(crate) fn new(formula: &Formula, loss: f64) -> Self {
        let Formula { terms, messages, nodes, .. } = formula;
        let (edge, own, k) = (terms.edge.len(), terms.node.len(), messages.len());
        let messages: Vec<_> = messages.iter().map(|e| Parametric::new(e, edge)).collect();
        let nodes: Vec<_> = nodes.iter().map(|e| Parametric::new(e, own + k)).collect();
        let by_sum = nodes
            .iter()
            .map(|node| (0..k).map(|j| node.value.derivative((own + j) as u16)).collect())
            .collect();
        let count = messages.iter().chain(&nodes).map(|p| p.constants.len()).sum();
        let floor = (RESIDUAL_FLOOR * loss / nodes.len() as f64).max(1e-12);
        Linearised { messages, nodes, by_sum, count, floor }
    }

    /// Adds the rows of a node: `own` are its own variables and its summed messages, `derivatives` those of
    /// each sum with respect to its own constants, in order.
    pub(crate) fn add(
        &self,
        own: &[f64],
        derivatives: &[f64],
        targets: &[f32],
        normal: &mut Normal,
    ) {
        let mut first = derivatives.len();
        for ((expression, by_sum), &target) in self.nodes.iter().zip(&self.by_sum).zip(targets) {
            let mut row = vec![0.0; self.count];
            let mut values = own.to_vec();
            values.extend(&expression.constants);
            let mut at = 0;
            for (message, by_sum) in self.messages.iter().zip(by_sum) {
                let slope = by_sum.eval(&values);
                for _ in &message.constants {
                    row[at] = slope * derivatives[at];
                    at += 1;
                }
            }
            for (k, derivative) in expression.by_constant.iter().enumerate() {
                row[first + k] = derivative.eval(&values);
            }
            first += expression.constants.len();
            let residual = f64::from(target) - expression.value.eval(&values);
            if residual.is_finite() && row.iter().all(|v| v.is_finite()) {
                normal.add(&row, residual, 1.0 / residual.abs().max(self.floor));
            }
        }
    }
}

/// An expression whose constants have become variables, after the others, with its derivatives.
pub(crate) struct Parametric {
    /// Values of the constants.
    pub(crate) constants: Vec<f64>,
    /// The expression with the constants as variables.
    pub(crate) value: Expression,
    /// Its derivatives, one per constant.
    pub(crate) by_constant: Vec<Expression>,
}

impl Parametric {
    /// From an expression in this many variables.
    fn new(expression: &Expression, variables: usize) -> Self {
        let mut constants = Vec::new();
        let nodes = expression.nodes().iter().map(|node| match *node {
            Node::Constant(c) => {
                constants.push(c);
                Node::Variable((variables + constants.len() - 1) as u16)
            }
            other => other,
        });
        let value = Expression::new(nodes.collect()).expect("leaves for leaves: still well-formed");
        let by = |k: usize| value.derivative((variables + k) as u16);
        let by_constant = (0..constants.len()).map(by).collect();
        Parametric { constants, value, by_constant }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formula::expression::tests::{any_expression, cases};
    use crate::random::Random;
    use proptest::prelude::*;

    /// Two messages of two constants each and a constant of both nodes: the step of the copies is that of shared ones.
    #[test]
    fn copies_take_the_step_of_shared_constants() {
        let mut random = Random::new(4, 0);
        let (mut apart, mut shared) = (Normal::new(5), Normal::new(3));
        for row in 0..40 {
            let [a, b, c, residual] = [0; 4].map(|_| random.normal());
            let weight = random.uniform();
            let rows = [[a, b, 0.0, 0.0, c], [0.0, 0.0, a, b, c]];
            apart.add(&rows[row % 2], residual, weight);
            shared.add(&[a, b, c], residual, weight);
        }
        let alike = apart.alike(2, 2);
        let step = solve_spd(&alike.matrix, &alike.right).unwrap();
        let expected = solve_spd(&shared.matrix, &shared.right).unwrap();
        for (k, of) in [0, 1, 0, 1, 2].into_iter().enumerate() {
            assert!((step[k] - expected[of]).abs() < 1e-12, "{step:?} {expected:?}");
        }
    }

    proptest! {
        #![proptest_config(cases(5000))]
        #[test]
        fn settling_keeps_values(e in any_expression(), x in -3.0..3.0f64, y in 0.1..3.0f64, z in -2.0..2.0f64) {
            let settled = settled(&e);
            prop_assert!(settled.complexity(&Weights::default()) <= e.complexity(&Weights::default()));
            prop_assert_eq!(&rounded(&settled), &settled);
            let before = e.eval(&[x, y, z]);
            // Only if the value does not depend on the eighth digit of a constant.
            let mut spread = (0..24).map(|shaking| {
                let h = [1e-6, -1e-6][shaking % 2];
                let mut random = Random::new(1, shaking as u64);
                let mut shaken = |c: &f64| c * (1.0 + h * (0.5 + random.uniform()));
                let mut other = e.clone();
                other.set_constants(&e.constants().iter().map(&mut shaken).collect::<Vec<_>>());
                (other.eval(&[x, y, z].map(|v| shaken(&v))) - before).abs()
            });
            let steady = spread.all(|s| s <= 1e-4 * before.abs());
            if steady && before.abs() > 1e-6 && before.abs() < 1e6 {
                let after = settled.eval(&[x, y, z]);
                prop_assert!((before - after).abs() <= 1e-3 * before.abs(), "{before} {after}");
            }
        }
    }
}
