//! The same step in f64, one number at a time: the reference for every implementation.
//!
//! With rounding after each operation it becomes the naive implementation in a lower precision, whose error says how
//! much error an implementation may have.

use super::{Batch, Coordinates};
use crate::ops::mlp::{Rounding, reference as forward};
use crate::ops::tiny::noise;
pub use crate::ops::tiny::reference::Reference;
use crate::ops::tiny::reference::Step;

/// The inputs of φe on an edge: the features of receiver and sender, with the sender's coordinates at the image nearest
/// to the receiver.
pub fn inputs(batch: &Batch, receiver: u32, sender: u32, rounding: Rounding) -> Vec<f64> {
    let [own, other] = [receiver, sender].map(|index| node(batch, index, rounding));
    let mut inputs = [&own[..], &other[..]].concat();
    let period = f64::from(batch.coordinates.period);
    for (k, sender) in inputs[own.len()..].iter_mut().enumerate().take(batch.coordinates.dim) {
        if period > 0.0 {
            let images = ((other[k] - own[k]) / period).round();
            *sender = rounding.sum(*sender - period * images);
        }
    }
    inputs
}

/// The features of a node, shifted.
fn node(batch: &Batch, node: u32, rounding: Rounding) -> Vec<f64> {
    let width = batch.shape.n_features;
    let row = &batch.features[node as usize * width..][..width];
    let mut row: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
    let Coordinates { dim, shift, .. } = batch.coordinates;
    for (x, &shift) in row.iter_mut().zip(&shift[..dim]) {
        *x = rounding.sum(*x + f64::from(shift));
    }
    row
}

/// The predictions `[receivers, outputs]` at `parameters` `[arena.len]`.
pub fn predict(batch: &Batch, parameters: &[f64], rounding: Rounding) -> Vec<f64> {
    let arena = batch.shape.arena();
    let mut predictions = Vec::new();
    for &receiver in batch.receivers {
        let mut sum = vec![0.0; batch.shape.message_dim];
        for &sender in &batch.sender[batch.edges_of(receiver)] {
            let inputs = inputs(batch, receiver, sender, rounding);
            let values = forward(&arena.edge, parameters, inputs, rounding);
            // For sampled messages the means, which come first.
            let message = values.last().expect("a network has layers");
            sum.iter_mut().zip(message).for_each(|(sum, e)| *sum = rounding.sum(*sum + e));
        }
        let inputs = [node(batch, receiver, rounding), sum].concat();
        let values = forward(&arena.node, parameters, inputs, roundings(rounding)[1]);
        predictions.extend(values.last().expect("a network has layers"));
    }
    predictions
}

/// The step at `parameters` `[arena.len]`.
pub fn gradient(
    batch: &Batch,
    targets: &[f32],
    parameters: &[f64],
    rounding: Rounding,
) -> Reference {
    let shape = &batch.shape;
    let degree = |&receiver: &u32| batch.edges_of(receiver).len();
    let mut step = Step {
        shape: *shape,
        penalty: batch.penalty,
        nodes: batch.receivers.len() as f64,
        edges: batch.receivers.iter().map(degree).sum::<usize>() as f64,
        parameters,
        rounding: roundings(rounding),
        found: Reference::zero(shape),
    };
    for &receiver in batch.receivers {
        let edges = batch.edges_of(receiver).map(|edge| {
            let noise = (0..shape.message_dim).map(|unit| match shape.sampled {
                true => noise::normal(batch.noise_seed, batch.step, edge as u32, unit),
                false => 0.0,
            });
            (inputs(batch, receiver, batch.sender[edge], rounding), noise.collect())
        });
        let targets = &targets[receiver as usize * shape.outputs..][..shape.outputs];
        step.star(node(batch, receiver, rounding), edges.collect(), targets);
    }
    step.finish(batch.weight_decay)
}

/// The roundings of φe and φv; φv works in f32 at every precision.
fn roundings(rounding: Rounding) -> [Rounding; 2] {
    [rounding, rounding.wide()]
}
