//! The same step in f64, one number at a time: the reference for every implementation.
//!
//! With rounding after each operation it becomes the naive implementation in a lower precision, whose error says how
//! much error an implementation may have.

use super::{Batch, Penalty, noise};
use crate::model::Shape;
use crate::ops::mlp::{Rounding, reference as forward, reference_gradient as backward};

/// Loss and gradient of one run in f64.
pub struct Reference {
    /// Mean over nodes of the L1 norm of (target − prediction).
    pub prediction: f64,
    /// The weighted penalty on messages.
    pub penalty: f64,
    /// weight_decay · Σw².
    pub decay: f64,
    /// `[arena.len]`.
    pub gradients: Vec<f64>,
}

impl Reference {
    /// The state before the first receiver.
    pub(crate) fn zero(shape: &Shape) -> Self {
        let gradients = vec![0.0; shape.arena().len];
        Reference { prediction: 0.0, penalty: 0.0, decay: 0.0, gradients }
    }

    /// The total loss, whose gradient this is.
    pub fn total(&self) -> f64 {
        self.prediction + self.penalty + self.decay
    }
}

/// The step of run number `run` of the batch at `parameters` `[arena.len]`.
pub fn gradient(batch: &Batch, run: usize, parameters: &[f64], rounding: Rounding) -> Reference {
    let shape = &batch.shape;
    let (bodies, n_features) = (batch.bodies, shape.n_features);
    let nodes = batch.graphs * bodies;
    let feature = |node: usize| {
        let row = &batch.features[(run * nodes + node) * n_features..][..n_features];
        row.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>()
    };
    let mut step = Step {
        shape: *shape,
        penalty: batch.penalty,
        nodes: nodes as f64,
        edges: (nodes * (bodies - 1)) as f64,
        parameters,
        rounding: [rounding; 2],
        found: Reference::zero(shape),
    };
    for receiver in 0..nodes {
        let first = receiver / bodies * bodies;
        let senders = (first..first + bodies).filter(|&s| s != receiver).enumerate();
        let inputs = senders.map(|(slot, sender)| {
            let edge = (receiver * (bodies - 1) + slot) as u32;
            let noise = (0..shape.message_dim).map(|unit| match shape.sampled {
                true => noise::normal(batch.noise_seeds[run], batch.step, edge, unit),
                false => 0.0,
            });
            ([feature(receiver), feature(sender)].concat(), noise.collect())
        });
        let targets = &batch.targets[(run * nodes + receiver) * shape.outputs..][..shape.outputs];
        step.star(feature(receiver), inputs.collect(), targets);
    }
    step.finish(batch.weight_decay)
}

/// A step that proceeds receiver by receiver.
pub(crate) struct Step<'a> {
    pub shape: Shape,
    pub penalty: Penalty,
    /// Receivers and edges of the batch.
    pub nodes: f64,
    pub edges: f64,
    /// `[arena.len]`
    pub parameters: &'a [f64],
    /// Roundings of φe and φv.
    pub rounding: [Rounding; 2],
    pub found: Reference,
}

impl Step<'_> {
    /// Adds one receiver with its features, and for each of its edges the inputs of φe and the noise of the messages
    /// (zeros if these are not sampled).
    pub fn star(&mut self, own: Vec<f64>, edges: Vec<(Vec<f64>, Vec<f64>)>, targets: &[f32]) {
        let Step { shape, parameters, rounding, found, .. } = self;
        let Reference { prediction, penalty, gradients, .. } = found;
        let arena = shape.arena();
        let width = shape.message_dim;
        let n_features = own.len();
        let rounding = *rounding;
        let round = |x: f64| rounding[1].sum(x);
        let exp = |x: f64| round(x.exp());
        let mut stars = Vec::new();
        let mut sum = vec![0.0; width];
        for (inputs, noise) in edges {
            let values = forward(&arena.edge, parameters, inputs, rounding[0]);
            let z = values.last().expect("a network has layers").clone();
            for unit in 0..width {
                let mut message = z[unit];
                if shape.sampled {
                    message = round(message + round(exp(0.5 * z[width + unit]) * noise[unit]));
                }
                sum[unit] = round(sum[unit] + message);
            }
            stars.push((values, z, noise));
        }
        let values = forward(&arena.node, parameters, [own, sum].concat(), rounding[1]);
        let output = values.last().expect("a network has layers");
        let mut d_output = Vec::new();
        for (y, &t) in output.iter().zip(targets) {
            let difference = y - f64::from(t);
            *prediction += difference.abs() / self.nodes;
            let sign = if difference == 0.0 { 0.0 } else { difference.signum() };
            d_output.push(sign / self.nodes);
        }
        let d_input = backward(&arena.node, parameters, &values, d_output, gradients, rounding[1]);
        for (values, z, noise) in stars {
            let mut d = vec![0.0; z.len()];
            for unit in 0..width {
                d[unit] = d_input[n_features + unit];
                if shape.sampled {
                    let deviation = exp(0.5 * z[width + unit]);
                    d[width + unit] = d[unit] * 0.5 * deviation * noise[unit];
                }
                match self.penalty {
                    Penalty::None => {}
                    Penalty::L1(weight) => {
                        let weight = f64::from(weight) / self.edges;
                        *penalty += weight * z[unit].abs();
                        d[unit] += weight * if z[unit] == 0.0 { 0.0 } else { z[unit].signum() };
                    }
                    Penalty::Kl(weight) => {
                        let weight = f64::from(weight) / self.edges;
                        let (mean, log) = (z[unit], z[width + unit]);
                        *penalty += weight * 0.5 * (mean * mean + exp(log) - log - 1.0);
                        d[unit] += weight * mean;
                        d[width + unit] += weight * 0.5 * (exp(log) - 1.0);
                    }
                }
            }
            backward(&arena.edge, parameters, &values, d, gradients, rounding[0]);
        }
    }

    /// Adds the weight decay.
    pub fn finish(mut self, weight_decay: f32) -> Reference {
        let weight_decay = f64::from(weight_decay);
        for (_, _, range) in self.shape.arena().tensors() {
            for index in range {
                let w = self.parameters[index];
                self.found.decay += weight_decay * w * w;
                self.found.gradients[index] += 2.0 * weight_decay * w;
            }
        }
        self.found
    }
}
