//! The composed formula: expressions in the place of φe and φv, and the joint refit of all their
//! constants on the original data, with the gradient through the sum over the senders (docs/design.md §4.4).

use rayon::prelude::*;

use super::edges::{Inputs, body, node_names};
use super::refit::{Normal, Parametric, RESIDUAL_FLOOR, Refit};
use crate::error::Result;
use crate::formula::expression::Expression;
use crate::model::layout::BodyLayout;

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

    fn layout(&self) -> BodyLayout {
        BodyLayout { dim: self.inputs.dim }
    }

    fn n_features(&self) -> usize {
        self.layout().width()
    }

    fn graph(&self, features: &[f32], bodies: usize) -> Vec<f32> {
        let n_features = self.n_features();
        let all: Vec<_> = features.chunks(n_features).map(|f| body(f, self.layout())).collect();
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
        self.refit_by(
            |formula| Ok(formula.loss(features, targets, bodies)),
            |formula, loss| {
                let linearised = Linearised::new(formula);
                Ok(Some(linearised.normal_equations(features, targets, bodies, loss)))
            },
        )
    }
}

impl Refit for Formula {
    fn expressions(&mut self) -> Vec<&mut Expression> {
        self.messages.iter_mut().chain(&mut self.nodes).collect()
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

    fn normal_equations(
        &self,
        features: &[f32],
        targets: &[f32],
        bodies: usize,
        loss: f64,
    ) -> Normal {
        let n_features = self.formula.n_features();
        let dim = self.nodes.len();
        let floor = (RESIDUAL_FLOOR * loss / dim as f64).max(1e-12);
        let tasks = features.par_chunks(GRAPHS_PER_TASK * bodies * n_features);
        let goals = targets.par_chunks(GRAPHS_PER_TASK * bodies * dim);
        let parts: Vec<Normal> = tasks
            .zip(goals)
            .map(|(features, targets)| {
                let mut normal = Normal::new(self.count);
                let graphs = features.chunks(bodies * n_features).zip(targets.chunks(bodies * dim));
                for (graph, goal) in graphs {
                    self.add_graph(graph, goal, floor, &mut normal);
                }
                normal
            })
            .collect();
        Normal::sum(self.count, &parts)
    }

    fn add_graph(&self, features: &[f32], targets: &[f32], floor: f64, normal: &mut Normal) {
        let n_features = self.formula.n_features();
        let layout = self.formula.layout();
        let all: Vec<_> = features.chunks(n_features).map(|f| body(f, layout)).collect();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formula::expression::Node;
    use crate::random::Random;

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
}
