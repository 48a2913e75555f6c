//! The composed formula: expressions in the place of φe and φv, and the joint refit of all their
//! constants on the original data, with the gradient through the sum over the senders (DESIGN §4.4).

use rayon::prelude::*;

use super::edges::{Inputs, body, node_names};
use super::linear::solve_spd;
use crate::error::{Error, Result};
use crate::symbolic::expression::{Expression, Node, Weights};

/// A law of motion in closed form: acceleration_d = nodes[d](features, Σ over senders of messages).
#[derive(Clone, Debug)]
pub struct Formula {
    /// Variables of the message expressions.
    pub inputs: Inputs,
    /// The numbers of the kept message components, for the names of the node variables.
    pub components: Vec<usize>,
    /// One expression a kept message, in `inputs`.
    pub messages: Vec<Expression>,
    /// One expression a dimension, in the node's features and the summed messages.
    pub nodes: Vec<Expression>,
}

impl Formula {
    /// Names of the variables of the node expressions.
    pub fn node_names(&self) -> Vec<String> {
        node_names(self.inputs.dim, &self.components)
    }

    /// Accelerations `[graphs, bodies, dim]` for features `[graphs, bodies, n_features]`.
    pub fn accelerations(&self, features: &[f32], bodies: usize) -> Vec<f32> {
        let width = bodies * self.n_features();
        features.par_chunks(width).flat_map_iter(|graph| self.graph(graph, bodies)).collect()
    }

    fn n_features(&self) -> usize {
        2 * self.inputs.dim + 2
    }

    fn graph(&self, features: &[f32], bodies: usize) -> Vec<f32> {
        let n_features = self.n_features();
        let all: Vec<_> = features.chunks(n_features).map(|f| body(f, self.inputs.dim)).collect();
        let mut out = Vec::with_capacity(bodies * self.nodes.len());
        let mut values = Vec::new();
        for (receiver, own) in all.iter().zip(features.chunks(n_features)) {
            let mut node: Vec<f64> = own.iter().map(|&v| f64::from(v)).collect();
            node.resize(n_features + self.messages.len(), 0.0);
            for sender in all.iter().filter(|other| !std::ptr::eq(*other, receiver)) {
                values.clear();
                self.inputs.values(receiver, sender, &mut values);
                for (sum, message) in node[n_features..].iter_mut().zip(&self.messages) {
                    *sum += message.eval(&values);
                }
            }
            out.extend(self.nodes.iter().map(|expression| expression.eval(&node) as f32));
        }
        out
    }

    /// Mean over nodes of the L1 norm of (target − formula), the loss of training. Infinite where the
    /// formula is undefined somewhere.
    pub fn loss(&self, features: &[f32], targets: &[f32], bodies: usize) -> f64 {
        let found = self.accelerations(features, bodies);
        let sum: f64 = found.iter().zip(targets).map(|(a, b)| f64::from((a - b).abs())).sum();
        let loss = sum * self.nodes.len() as f64 / targets.len() as f64;
        if loss.is_finite() { loss } else { f64::INFINITY }
    }

    /// Refits all constants to `targets [graphs, bodies, dim]` by Levenberg–Marquardt on the L1 loss
    /// (weights 1/|residual|, renewed every round), and drops what they have made idle. The result is
    /// never worse on these data but for the rounding of its constants to the precision of the data;
    /// returns its loss.
    ///
    /// # Errors
    /// `interrupted` after Ctrl-C; the constants are those of the last round then.
    pub fn refit(&mut self, features: &[f32], targets: &[f32], bodies: usize) -> Result<f64> {
        let mut loss = self.loss(features, targets, bodies);
        let mut damping = 1e-3;
        for _ in 0..REFIT_ROUNDS {
            if crate::interrupt::requested() {
                return Err(Error::interrupted(
                    "stopped while refitting the constants; the laws are kept: distill --resume \
                     goes on from there, compose begins anew",
                ));
            }
            let system = Linearised::new(self).normal_equations(features, targets, bodies);
            let (next, next_loss, next_damping) =
                self.damped_step(&system, loss, damping, |f| f.loss(features, targets, bodies));
            damping = next_damping;
            let Some(next) = next else { break };
            let gain = 1.0 - next_loss / loss;
            (*self, loss) = (next, next_loss);
            if gain < REFIT_GAIN {
                break;
            }
        }
        for expression in self.messages.iter_mut().chain(&mut self.nodes) {
            *expression = settled(expression);
        }
        Ok(self.loss(features, targets, bodies))
    }

    /// The first of a series of ever more damped steps that lowers the loss.
    fn damped_step(
        &self,
        system: &Normal,
        loss: f64,
        mut damping: f64,
        judge: impl Fn(&Formula) -> f64,
    ) -> (Option<Formula>, f64, f64) {
        let count = system.gradient.len();
        for _ in 0..DAMPINGS {
            let mut matrix = system.matrix.clone();
            let largest = (0..count).map(|k| matrix[k * count + k]).fold(0.0, f64::max);
            for k in 0..count {
                // The messages' scale and the nodes' cancel: a floor keeps such directions still.
                matrix[k * count + k] += damping * matrix[k * count + k] + 1e-12 * largest + 1e-300;
            }
            if let Some(step) = solve_spd(&matrix, &system.gradient) {
                let next = self.moved(&step);
                let next_loss = judge(&next);
                if next_loss < loss {
                    return (Some(next), next_loss, damping * 0.2);
                }
            }
            damping *= 5.0;
        }
        (None, loss, damping)
    }

    /// The formula with `step` added to its constants, messages first.
    fn moved(&self, step: &[f64]) -> Formula {
        let mut next = self.clone();
        let mut steps = step.iter();
        for expression in next.messages.iter_mut().chain(&mut next.nodes) {
            let constants: Vec<f64> =
                expression.constants().iter().zip(&mut steps).map(|(c, s)| c + s).collect();
            expression.set_constants(&constants);
        }
        next
    }
}

/// The expression with constants as precise as the data, which are f32, and as short as that makes it:
/// where a refit has made the branches of an IF equal, one of them is left.
fn settled(expression: &Expression) -> Expression {
    let length = |e: &Expression| e.complexity(&Weights::default());
    let mut settled = rounded(expression);
    loop {
        // Constants that are merged have more digits again.
        let shorter = rounded(&settled.simplified());
        if length(&shorter) >= length(&settled) {
            return settled;
        }
        settled = shorter;
    }
}

/// The expression with constants of seven digits: no more than a person wants to read.
fn rounded(expression: &Expression) -> Expression {
    let seven_digits = |value: &f64| format!("{value:.6e}").parse().unwrap_or(*value);
    let constants: Vec<f64> = expression.constants().iter().map(seven_digits).collect();
    let mut rounded = expression.clone();
    rounded.set_constants(&constants);
    rounded
}

const REFIT_ROUNDS: usize = 60;
/// Relative gain of a round below which refitting ends.
const REFIT_GAIN: f64 = 1e-6;
const DAMPINGS: usize = 12;

/// The weighted normal equations of one round.
struct Normal {
    /// Jᵀ W J, `[constants, constants]`.
    matrix: Vec<f64>,
    /// Jᵀ W residual.
    gradient: Vec<f64>,
}

/// An expression, its constants made variables behind the others, with its derivatives.
struct Parametric {
    constants: Vec<f64>,
    value: Expression,
    by_constant: Vec<Expression>,
}

impl Parametric {
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

/// A formula and all the derivatives that its refit needs.
struct Linearised<'a> {
    formula: &'a Formula,
    messages: Vec<Parametric>,
    nodes: Vec<Parametric>,
    /// `[node][message]`: derivative of a node expression with respect to a summed message.
    by_sum: Vec<Vec<Expression>>,
    count: usize,
}

/// Smallest |residual| in the weights, relative to the mean.
const RESIDUAL_FLOOR: f64 = 1e-3;
/// Graphs that one task accumulates: fixed, so that sums do not depend on the number of threads.
const GRAPHS_PER_TASK: usize = 64;

impl<'a> Linearised<'a> {
    fn new(formula: &'a Formula) -> Self {
        let inputs = formula.inputs.names().len();
        let features = formula.n_features();
        let k = formula.messages.len();
        let messages: Vec<_> =
            formula.messages.iter().map(|e| Parametric::new(e, inputs)).collect();
        let nodes: Vec<_> =
            formula.nodes.iter().map(|e| Parametric::new(e, features + k)).collect();
        let by_sum = nodes
            .iter()
            .map(|node| (0..k).map(|j| node.value.derivative((features + j) as u16)).collect())
            .collect();
        let count = messages.iter().chain(&nodes).map(|p| p.constants.len()).sum();
        Linearised { formula, messages, nodes, by_sum, count }
    }

    fn normal_equations(&self, features: &[f32], targets: &[f32], bodies: usize) -> Normal {
        let n_features = self.formula.n_features();
        let dim = self.nodes.len();
        let mean = self.formula.loss(features, targets, bodies) / dim as f64;
        let floor = (RESIDUAL_FLOOR * mean).max(1e-12);
        let tasks = features.par_chunks(GRAPHS_PER_TASK * bodies * n_features);
        let goals = targets.par_chunks(GRAPHS_PER_TASK * bodies * dim);
        let parts: Vec<Normal> = tasks
            .zip(goals)
            .map(|(features, targets)| {
                let mut normal = Normal {
                    matrix: vec![0.0; self.count * self.count],
                    gradient: vec![0.0; self.count],
                };
                let graphs = features.chunks(bodies * n_features).zip(targets.chunks(bodies * dim));
                for (graph, goal) in graphs {
                    self.add_graph(graph, goal, floor, &mut normal);
                }
                normal
            })
            .collect();
        let mut total =
            Normal { matrix: vec![0.0; self.count * self.count], gradient: vec![0.0; self.count] };
        for part in &parts {
            total.matrix.iter_mut().zip(&part.matrix).for_each(|(a, b)| *a += b);
            total.gradient.iter_mut().zip(&part.gradient).for_each(|(a, b)| *a += b);
        }
        total
    }

    fn add_graph(&self, features: &[f32], targets: &[f32], floor: f64, normal: &mut Normal) {
        let n_features = self.formula.n_features();
        let dim = self.formula.inputs.dim;
        let all: Vec<_> = features.chunks(n_features).map(|f| body(f, dim)).collect();
        let own_constants: usize = self.messages.iter().map(|p| p.constants.len()).sum();
        let mut values = Vec::new();
        for (index, receiver) in all.iter().enumerate() {
            let own = &features[index * n_features..(index + 1) * n_features];
            let mut node: Vec<f64> = own.iter().map(|&v| f64::from(v)).collect();
            node.resize(n_features + self.messages.len(), 0.0);
            // Derivatives of each summed message with respect to its own constants, in order.
            let mut sums = vec![0.0; own_constants];
            for (other, sender) in all.iter().enumerate() {
                if other == index {
                    continue;
                }
                let mut at = 0;
                for (k, message) in self.messages.iter().enumerate() {
                    values.clear();
                    self.formula.inputs.values(receiver, sender, &mut values);
                    values.extend(&message.constants);
                    node[n_features + k] += message.value.eval(&values);
                    for derivative in &message.by_constant {
                        sums[at] += derivative.eval(&values);
                        at += 1;
                    }
                }
            }
            let mut first = own_constants;
            for (d, expression) in self.nodes.iter().enumerate() {
                let mut row = vec![0.0; self.count];
                let mut values = node.clone();
                values.extend(&expression.constants);
                let mut at = 0;
                for (message, by_sum) in self.messages.iter().zip(&self.by_sum[d]) {
                    let slope = by_sum.eval(&values);
                    for _ in &message.constants {
                        row[at] = slope * sums[at];
                        at += 1;
                    }
                }
                for (k, derivative) in expression.by_constant.iter().enumerate() {
                    row[first + k] = derivative.eval(&values);
                }
                first += expression.constants.len();
                let residual = f64::from(targets[index * self.nodes.len() + d])
                    - expression.value.eval(&values);
                if residual.is_finite() && row.iter().all(|v| v.is_finite()) {
                    normal.add(&row, residual, 1.0 / residual.abs().max(floor));
                }
            }
        }
    }
}

impl Normal {
    fn add(&mut self, row: &[f64], residual: f64, weight: f64) {
        let count = row.len();
        for i in 0..count {
            if row[i] == 0.0 {
                continue;
            }
            self.gradient[i] += weight * row[i] * residual;
            for j in 0..count {
                self.matrix[i * count + j] += weight * row[i] * row[j];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use crate::symbolic::expression::tests::{any_expression, cases};
    use proptest::prelude::*;

    /// States of `graphs` systems of four bodies, with masses of 0.5 to 1.5.
    fn states(graphs: usize) -> Vec<f32> {
        let mut random = Random::new(5, 0);
        let value = |k: usize| match k % 6 {
            5 => 0.5 + random.uniform() as f32,
            _ => random.normal() as f32,
        };
        (0..graphs * 4 * 6).map(value).collect()
    }

    fn formula(messages: [&str; 2], nodes: [&str; 2]) -> Formula {
        let inputs = Inputs { dim: 2, velocities: vec![] };
        let parse = |texts: [&str; 2], names: Vec<String>| {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            texts.map(|text| Expression::parse(text, &names).unwrap()).to_vec()
        };
        Formula {
            messages: parse(messages, inputs.names()),
            nodes: parse(nodes, node_names(2, &[3, 7])),
            inputs,
            components: vec![3, 7],
        }
    }

    #[test]
    fn refit_finds_the_constants_that_made_the_data() {
        let truth = formula(
            ["(r - 1.0) * (0.5 * dx + 1.5 * dy) / r", "(r - 1.0) * (dx - 0.7 * dy) / r"],
            ["(0.3 * e3 + 0.8 * e7 + 0.1) / m", "(0.9 * e3 - 0.2 * e7) / m"],
        );
        let mut start = formula(
            ["(r - 1.1) * (0.4 * dx + 1.4 * dy) / r", "(r - 0.9) * (1.1 * dx - 0.6 * dy) / r"],
            ["(0.35 * e3 + 0.7 * e7 + 0.2) / m", "(1.0 * e3 - 0.3 * e7) / m"],
        );
        let features = states(100);
        let targets = truth.accelerations(&features, 4);
        let before = start.loss(&features, &targets, 4);
        let after = start.refit(&features, &targets, 4).unwrap();
        assert!(before > 0.1, "{before}");
        // f32 accelerations of order 1: the floor is about 1e-7.
        assert!(after < 1e-5, "{after}");
        let Node::Constant(length) = start.messages[0].nodes()[1] else { panic!("r - constant") };
        assert!((length - 1.0).abs() < 1e-4, "{length}");
    }

    #[test]
    fn an_undefined_formula_has_infinite_loss() {
        let bad = formula(["log(0 - r)", "r"], ["e3", "e7"]);
        let features = [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0];
        assert_eq!(bad.loss(&features, &[0.0; 4], 2), f64::INFINITY);
    }
    #[test]
    fn refit_drops_branches_that_it_made_equal() {
        let truth = formula(["1.25 * dx / r - dx", "dy"], ["e3 / m", "e3 + 0.5 * e7"]);
        let mut start = formula(
            ["IF(dy > 0, 1.1, 1.4) * dx / r - dx * 0.9", "IF(r > 2, dy, dy) * 1.0"],
            ["1.0 * e3 / m^1.01", "1.0 * e3 + 0.4 * e7"],
        );
        let features = states(400);
        let targets = truth.accelerations(&features, 4);
        let loss = start.refit(&features, &targets, 4).unwrap();
        assert_eq!(loss, start.loss(&features, &targets, 4));
        assert!(loss < 1e-6, "{loss}");
        let equations: Vec<String> = start.equations().into_iter().map(|(_, e)| e).collect();
        assert!(equations.iter().all(|e| !e.contains("IF") && !e.contains('^')), "{equations:?}");
        // The scale of a message and that of its use are one constant too many; their product counts.
        let [m, n] = [&start.messages, &start.nodes].map(|e| e[0].constants());
        assert!((m[0] * n[0] - 1.25).abs() < 1e-5, "{equations:?}");
    }

    proptest! {
        #![proptest_config(cases(5000))]
        #[test]
        fn settling_keeps_values(e in any_expression(), x in -3.0..3.0f64, y in 0.1..3.0f64, z in -2.0..2.0f64) {
            let settled = settled(&e);
            prop_assert!(settled.complexity(&Weights::default()) <= e.complexity(&Weights::default()));
            prop_assert_eq!(&rounded(&settled), &settled);
            let before = e.eval(&[x, y, z]);
            // Only where the value does not hang on the eighth digit of a constant.
            let spread = [1e-6, -1e-6].map(|h| {
                let mut random = Random::new(1, 0);
                let mut shaken = |c: &f64| c * (1.0 + h * (0.5 + random.uniform()));
                let mut other = e.clone();
                other.set_constants(&e.constants().iter().map(&mut shaken).collect::<Vec<_>>());
                (other.eval(&[x, y, z].map(|v| shaken(&v))) - before).abs()
            });
            let steady = spread.iter().all(|s| *s <= 1e-4 * before.abs());
            if steady && before.abs() > 1e-6 && before.abs() < 1e6 {
                let after = settled.eval(&[x, y, z]);
                prop_assert!((before - after).abs() <= 1e-3 * before.abs(), "{before} {after}");
            }
        }
    }
}
