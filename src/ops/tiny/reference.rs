//! The same step in f64, one number at a time: what every implementation is compared with.
//!
//! Rounding after each operation turns it into the naive implementation in a lower precision, whose
//! error says how much error an implementation may have.

use super::{Batch, Penalty, noise};
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
    /// What the gradient is of.
    pub fn total(&self) -> f64 {
        self.prediction + self.penalty + self.decay
    }
}

/// The step of run number `run` of the batch at `parameters` `[arena.len]`.
pub fn gradient(batch: &Batch, run: usize, parameters: &[f64], rounding: Rounding) -> Reference {
    let shape = &batch.shape;
    let arena = shape.arena();
    let (bodies, n_features) = (batch.bodies, shape.n_features);
    let nodes = batch.graphs * bodies;
    let edges = (nodes * (bodies - 1)) as f64;
    let feature = |node: usize| {
        let row = &batch.features[(run * nodes + node) * n_features..][..n_features];
        row.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>()
    };
    let mut gradients = vec![0.0; arena.len];
    let mut prediction = 0.0;
    let mut penalty = 0.0;
    for receiver in 0..nodes {
        let first = receiver / bodies * bodies;
        let senders: Vec<usize> = (first..first + bodies).filter(|&s| s != receiver).collect();
        let mut stars = Vec::new();
        let mut sum = vec![0.0; shape.message_dim];
        for (slot, &sender) in senders.iter().enumerate() {
            let edge = (receiver * (bodies - 1) + slot) as u32;
            let values = forward(
                &arena.edge,
                parameters,
                [feature(receiver), feature(sender)].concat(),
                rounding,
            );
            let z = values.last().expect("a network has layers").clone();
            let noise: Vec<f64> = (0..shape.message_dim)
                .map(|unit| match shape.sampled {
                    true => noise::normal(batch.noise_seeds[run], batch.step, edge, unit),
                    false => 0.0,
                })
                .collect();
            for unit in 0..shape.message_dim {
                sum[unit] += z[unit];
                if shape.sampled {
                    sum[unit] += (0.5 * z[shape.message_dim + unit]).exp() * noise[unit];
                }
            }
            stars.push((values, z, noise));
        }
        let values = forward(&arena.node, parameters, [feature(receiver), sum].concat(), rounding);
        let output = values.last().expect("a network has layers");
        let targets = &batch.targets[(run * nodes + receiver) * shape.outputs..][..shape.outputs];
        let mut d_output = Vec::new();
        for (y, &t) in output.iter().zip(targets) {
            let difference = y - f64::from(t);
            prediction += difference.abs() / nodes as f64;
            let sign = if difference == 0.0 { 0.0 } else { difference.signum() };
            d_output.push(sign / nodes as f64);
        }
        let d_input =
            backward(&arena.node, parameters, &values, d_output, &mut gradients, rounding);
        for (values, z, noise) in stars {
            let mut d = vec![0.0; z.len()];
            for unit in 0..shape.message_dim {
                d[unit] = d_input[n_features + unit];
                if shape.sampled {
                    let deviation = (0.5 * z[shape.message_dim + unit]).exp();
                    d[shape.message_dim + unit] = d[unit] * 0.5 * deviation * noise[unit];
                }
                match batch.penalty {
                    Penalty::None => {}
                    Penalty::L1(weight) => {
                        let weight = f64::from(weight) / edges;
                        penalty += weight * z[unit].abs();
                        d[unit] += weight * if z[unit] == 0.0 { 0.0 } else { z[unit].signum() };
                    }
                    Penalty::Kl(weight) => {
                        let weight = f64::from(weight) / edges;
                        let (mean, log) = (z[unit], z[shape.message_dim + unit]);
                        penalty += weight * 0.5 * (mean * mean + log.exp() - log - 1.0);
                        d[unit] += weight * mean;
                        d[shape.message_dim + unit] += weight * 0.5 * (log.exp() - 1.0);
                    }
                }
            }
            backward(&arena.edge, parameters, &values, d, &mut gradients, rounding);
        }
    }
    let weight_decay = f64::from(batch.weight_decay);
    let mut decay = 0.0;
    for (_, _, range) in arena.tensors() {
        for index in range {
            decay += weight_decay * parameters[index] * parameters[index];
            gradients[index] += 2.0 * weight_decay * parameters[index];
        }
    }
    Reference { prediction, penalty, decay, gradients }
}
