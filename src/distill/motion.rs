//! The composed formula of small systems as a law of motion, and the joint refit of all its constants on
//! accelerations.

use rayon::prelude::*;

use super::edges::{Inputs, body};
use super::formula::Formula;
use super::refit::Linearised;
use crate::error::Result;
use crate::formula::expression::{Expression, Node, Op};
use crate::linear::Normal;
use crate::model::layout::{BodyLayout, by_graph};
use crate::network::forward::l1;
use crate::observer::Observer;

impl Formula {
    /// Accelerations `[node, dim]` for features `[node, n_features]` of graphs with these numbers of bodies.
    pub fn accelerations(&self, features: &[f32], bodies: &[u32]) -> Vec<f32> {
        let inputs = Inputs::of(&self.terms.edge).within(self.terms.period);
        let graphs: Vec<&[f32]> = by_graph(features, self.terms.node.len(), bodies).collect();
        graphs.par_iter().flat_map_iter(|graph| self.graph(&inputs, graph)).collect()
    }

    /// The messages alone, summed over the senders, `[node, components]`.
    pub fn sums(&self, features: &[f32], bodies: &[u32]) -> Vec<f32> {
        let first = self.terms.node.len();
        let sum = |k: usize| Expression::variable((first + k) as u16);
        let nodes = (0..self.messages.len()).map(sum).collect();
        Formula { nodes, ..self.clone() }.accelerations(features, bodies)
    }

    fn graph(&self, inputs: &Inputs, features: &[f32]) -> Vec<f32> {
        let n_features = self.terms.node.len();
        let layout = BodyLayout { dim: inputs.dim };
        let all: Vec<_> = features.chunks(n_features).map(|f| body(f, layout)).collect();
        let mut out = Vec::with_capacity(all.len() * self.nodes.len());
        let mut values = Vec::new();
        for (receiver, own) in all.iter().zip(features.chunks(n_features)) {
            let mut node: Vec<f64> = own.iter().map(|&v| f64::from(v)).collect();
            node.resize(n_features + self.messages.len(), 0.0);
            for sender in all.iter().filter(|other| !std::ptr::eq(*other, receiver)) {
                values.clear();
                inputs.values(receiver, sender, &mut values);
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
    pub fn loss(&self, features: &[f32], targets: &[f32], bodies: &[u32]) -> f64 {
        let found = self.accelerations(features, bodies);
        let loss = l1(targets, &found) * self.nodes.len() as f64 / targets.len() as f64;
        if loss.is_finite() { loss } else { f64::INFINITY }
    }

    /// Refits all constants to `targets [node, dim]` by Levenberg–Marquardt on the L1 loss
    /// (weights 1/|residual|, renewed every round), and drops what they have made idle. The result is
    /// never worse on these data but for the rounding of its constants to the precision of the data;
    /// returns its loss.
    ///
    /// # Errors
    /// `interrupted` where the observer stops it; the constants are those of the last round then.
    pub fn refit(
        &mut self,
        features: &[f32],
        targets: &[f32],
        bodies: &[u32],
        observer: &dyn Observer,
    ) -> Result<f64> {
        self.refit_as(features, targets, bodies, observer, |_, equations| equations)
    }

    /// The same for messages that are the components of one central force along the axes: their constants stay
    /// equal, and exponents that are whole numbers stay as they are.
    ///
    /// # Errors
    /// As for [`Formula::refit`].
    pub fn refit_alike(
        &mut self,
        features: &[f32],
        targets: &[f32],
        bodies: &[u32],
        observer: &dyn Observer,
    ) -> Result<f64> {
        self.refit_as(features, targets, bodies, observer, |formula, equations| {
            let alike = formula.messages[0].constants().len();
            let mut equations = equations.alike(formula.messages.len(), alike);
            let all = formula.messages.iter().chain(&formula.nodes);
            equations.hold(&all.flat_map(whole_exponents).collect::<Vec<bool>>());
            equations
        })?;
        // Equal up to the order of the sums.
        let constants = self.messages[0].constants();
        for message in &mut self.messages[1..] {
            message.set_constants(&constants);
        }
        Ok(self.loss(features, targets, bodies))
    }

    /// Refits with `adapted` equations.
    fn refit_as(
        &mut self,
        features: &[f32],
        targets: &[f32],
        bodies: &[u32],
        observer: &dyn Observer,
        adapted: impl Fn(&Self, Normal) -> Normal,
    ) -> Result<f64> {
        self.refit_by(
            observer,
            |formula| Ok(formula.loss(features, targets, bodies)),
            |formula, loss| {
                let equations = formula.normal_equations(features, targets, bodies, loss);
                Ok(Some(adapted(formula, equations)))
            },
        )
    }

    fn normal_equations(
        &self,
        features: &[f32],
        targets: &[f32],
        bodies: &[u32],
        loss: f64,
    ) -> Normal {
        let inputs = Inputs::of(&self.terms.edge).within(self.terms.period);
        let linearised = Linearised::new(self, loss);
        let (n_features, dim) = (self.terms.node.len(), self.nodes.len());
        let goals = by_graph(targets, dim, bodies);
        let graphs: Vec<_> = by_graph(features, n_features, bodies).zip(goals).collect();
        let parts: Vec<Normal> = graphs
            .par_chunks(GRAPHS_PER_TASK)
            .map(|graphs| {
                let mut normal = Normal::new(linearised.count);
                for (graph, goal) in graphs {
                    add_graph(&linearised, &inputs, graph, goal, &mut normal);
                }
                normal
            })
            .collect();
        Normal::sum(linearised.count, &parts)
    }
}

/// Which constants of an expression are exponents and whole numbers.
fn whole_exponents(e: &Expression) -> Vec<bool> {
    let nodes = e.nodes();
    let of = |at: usize| match nodes[at] {
        Node::Constant(c) => Some(nodes.get(at + 1) == Some(&Node::Op(Op::Pow)) && c == c.round()),
        _ => None,
    };
    (0..nodes.len()).filter_map(of).collect()
}

/// Graphs that one task accumulates: fixed, so that sums do not depend on the number of threads.
const GRAPHS_PER_TASK: usize = 64;

fn add_graph(
    linearised: &Linearised,
    inputs: &Inputs,
    features: &[f32],
    targets: &[f32],
    normal: &mut Normal,
) {
    let layout = BodyLayout { dim: inputs.dim };
    let (n_features, messages) = (layout.width(), &linearised.messages);
    let all: Vec<_> = features.chunks(n_features).map(|f| body(f, layout)).collect();
    let constants: usize = messages.iter().map(|p| p.constants.len()).sum();
    let mut values = Vec::new();
    let nodes = features.chunks(n_features).zip(targets.chunks(inputs.dim));
    for (index, (own, goal)) in nodes.enumerate() {
        let mut node: Vec<f64> = own.iter().map(|&v| f64::from(v)).collect();
        node.resize(n_features + messages.len(), 0.0);
        // Derivatives of each summed message with respect to its own constants, in order.
        let mut derivatives = vec![0.0; constants];
        for (_, sender) in all.iter().enumerate().filter(|(other, _)| *other != index) {
            let mut at = 0;
            for (k, message) in messages.iter().enumerate() {
                values.clear();
                inputs.values(&all[index], sender, &mut values);
                values.extend(&message.constants);
                node[n_features + k] += message.value.eval(&values);
                for derivative in &message.by_constant {
                    derivatives[at] += derivative.eval(&values);
                    at += 1;
                }
            }
        }
        linearised.add(&node, &derivatives, goal, normal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        let terms = Inputs { velocities: vec![], ..Inputs::all(2) }.terms();
        let parse = |texts: [&str; 2], names: &[String]| {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            texts.map(|text| Expression::parse(text, &names).unwrap()).to_vec()
        };
        Formula {
            messages: parse(messages, &terms.edge),
            nodes: parse(nodes, &terms.node_names(&[3, 7])),
            terms,
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
        let targets = truth.accelerations(&features, &[4; 100]);
        let before = start.loss(&features, &targets, &[4; 100]);
        let after = start.refit(&features, &targets, &[4; 100], &()).unwrap();
        assert!(before > 0.1, "{before}");
        // f32 accelerations of order 1: the floor is about 1e-7.
        assert!(after < 1e-5, "{after}");
        let Node::Constant(length) = start.messages[0].nodes()[1] else { panic!("r - constant") };
        assert!((length - 1.0).abs() < 1e-4, "{length}");
    }

    #[test]
    fn systems_of_different_sizes_do_not_mix() {
        let law = formula(["(r - 1.0) * dx / r", "dy / r^3"], ["e3 / m", "e3 + 0.5 * e7"]);
        let (features, bodies) = (states(5), [3, 2, 6, 4, 5]);
        let together = law.accelerations(&features, &bodies);
        let alone = by_graph(&features, 6, &bodies).zip(bodies);
        let alone: Vec<f32> = alone.flat_map(|(f, n)| law.accelerations(f, &[n])).collect();
        assert_eq!(together, alone);
        let mut start =
            formula(["(r - 1.2) * dx / r", "0.9 * dy / r^3"], ["e3 / m", "e3 + 0.6 * e7"]);
        let loss = start.refit(&features, &together, &bodies, &()).unwrap();
        assert!(loss < 1e-5, "{loss}");
    }

    /// The force falls off as r^2.1, and the exponent of the formula is wrong: it stays, and a fractional one would not.
    #[test]
    fn whole_exponents_of_a_central_force_stay() {
        let truth = formula(["1.5 * dx / r / r^2.1", "1.5 * dy / r / r^2.1"], ["e3", "e7"]);
        let (features, bodies) = (states(100), [4; 100]);
        let targets = truth.accelerations(&features, &bodies);
        let refitted = |exponent: &str| {
            let messages = ["dx", "dy"].map(|d| format!("1.2 * {d} / r / r^{exponent}"));
            let mut start = formula([&messages[0], &messages[1]], ["e3", "e7"]);
            start.refit_alike(&features, &targets, &bodies, &()).unwrap();
            assert_eq!(start.messages[0].constants(), start.messages[1].constants());
            start.messages[0].constants()
        };
        let whole = refitted("2");
        assert!(whole[1] == 2.0 && (whole[0] - 1.2).abs() > 0.01, "{whole:?}");
        let free = refitted("2.05");
        assert!((free[1] - 2.1).abs() < 1e-3 && (free[0] - 1.5).abs() < 1e-2, "{free:?}");
    }

    #[test]
    fn an_undefined_formula_has_infinite_loss() {
        let bad = formula(["log(0 - r)", "r"], ["e3", "e7"]);
        let features = [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0];
        assert_eq!(bad.loss(&features, &[0.0; 4], &[2]), f64::INFINITY);
    }
    #[test]
    fn refit_drops_branches_that_it_made_equal() {
        let truth = formula(["1.25 * dx / r - dx", "dy"], ["e3 / m", "e3 + 0.5 * e7"]);
        let mut start = formula(
            ["IF(dy > 0, 1.1, 1.4) * dx / r - dx * 0.9", "IF(r > 2, dy, dy) * 1.0"],
            ["1.0 * e3 / m^1.01", "1.0 * e3 + 0.4 * e7"],
        );
        let features = states(400);
        let targets = truth.accelerations(&features, &[4; 400]);
        let loss = start.refit(&features, &targets, &[4; 400], &()).unwrap();
        assert_eq!(loss, start.loss(&features, &targets, &[4; 400]));
        assert!(loss < 1e-6, "{loss}");
        let equations = start.equations();
        assert!(equations.iter().all(|e| !e.contains("IF") && !e.contains('^')), "{equations:?}");
        // The scale of a message and that of its use are one constant too many; their product counts.
        let [m, n] = [&start.messages, &start.nodes].map(|e| e[0].constants());
        assert!((m[0] * n[0] - 1.25).abs() < 1e-5, "{equations:?}");
    }
}
