//! The step on a CUDA device: `kernels/edge.cu`, and between its kernels the layers of
//! `kernels/mlp.cu`, on chunks of whole stars, so that memory does not grow with the batch.
//!
//! As on the processor, φe's first layer and φv work in f32 at every precision.

pub(crate) mod args;
mod step;

use std::ops::Range;

use super::{Batch, Loss};
use crate::device::Gpu;
use crate::error::Result;
use step::Step;

/// Edges of a chunk, unless one star has more or memory is short.
pub(super) const CHUNK_EDGES: usize = 1 << 15;

/// The step in chunks of up to `most` edges.
pub(super) fn gradient(
    (gpu, most): (Gpu, usize),
    batch: &Batch,
    edges: usize,
    targets: &[f32],
    parameters: &[f32],
    gradients: &mut [f32],
) -> Result<Loss> {
    let chunks = chunks(gpu, batch, most)?;
    let mut step = Step::new(gpu, batch, parameters, &chunks)?;
    step.prepare_gradient(targets, edges)?;
    let mut sums = [0.0; 2];
    for chunk in chunks {
        step.forward(chunk)?;
        step.backward()?;
        let [losses, penalties] = step.losses()?;
        sums[0] += losses.iter().sum::<f64>();
        sums[1] += penalties.iter().sum::<f64>();
    }
    step.finish(gradients)?;
    let squares: f64 = parameters.iter().map(|&w| f64::from(w).powi(2)).sum();
    Ok(Loss {
        prediction: (sums[0] / batch.receivers.len() as f64) as f32,
        penalty: (sums[1] * f64::from(step.per_edge)) as f32,
        decay: (f64::from(batch.weight_decay) * squares) as f32,
    })
}

pub(super) fn predict(
    gpu: Gpu,
    batch: &Batch,
    parameters: &[f32],
    predictions: &mut [f32],
) -> Result<()> {
    let chunks = chunks(gpu, batch, CHUNK_EDGES)?;
    let mut step = Step::new(gpu, batch, parameters, &chunks)?;
    for chunk in chunks {
        let width = batch.shape.outputs;
        let to = &mut predictions[chunk.start * width..chunk.end * width];
        step.forward(chunk)?;
        step.predictions(to)?;
    }
    Ok(())
}

/// The receivers in chunks of up to `most` edges, or of as many as take half of the free memory.
fn chunks(gpu: Gpu, batch: &Batch, most: usize) -> Result<Vec<Range<usize>>> {
    let shape = &batch.shape;
    let units = 2 * shape.n_features + 2 * shape.layers * shape.hidden + 3 * shape.edge_outputs();
    let fit = gpu.free_memory()? / 2 / (units * size_of::<f32>());
    let most = most.min(fit);
    let (mut chunks, mut first, mut edges) = (Vec::new(), 0, 0);
    for (index, &receiver) in batch.receivers.iter().enumerate() {
        let degree = batch.edges_of(receiver).len();
        // Receivers without edges are some work too.
        if index > first && (edges + degree > most || index - first >= CHUNK_EDGES) {
            chunks.push(first..index);
            (first, edges) = (index, 0);
        }
        edges += degree;
    }
    chunks.push(first..batch.receivers.len());
    Ok(chunks)
}
