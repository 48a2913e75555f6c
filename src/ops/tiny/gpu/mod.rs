//! The step on a CUDA device: `kernels/tiny.cu`, and the plain layers of `kernels/mlp.cu`.
//!
//! A step with two hidden layers is thirteen launches; with the draw of the batch, Adam and the totals, a training step
//! is seventeen, recorded once and replayed without the host. Weight gradients of all layers are one launch: nothing
//! waits for them, and together they fill the device.

mod kernels;
mod launches;
mod step;
mod training;

use bytemuck::Pod;

use super::{Batch, Loss, Penalty, Problem};
use crate::device::Gpu;
use crate::device::cuda::{Buffer, Pointer};
use crate::error::Result;
pub(crate) use step::Step;
pub(crate) use training::{MOST_STEPS, Training};

impl Problem {
    fn nodes(&self) -> usize {
        self.graphs * self.bodies
    }

    /// Edges that a node receives.
    fn degree(&self) -> usize {
        self.bodies - 1
    }

    fn edges(&self) -> usize {
        self.nodes() * self.degree()
    }

    /// Number of nodes or edges with messages, number of rows of these for each node, and number of edges summed before
    /// φe's last layer, which without a penalty acts on the sum.
    fn messages(&self) -> Messages {
        match self.penalty {
            Penalty::None => Messages { rows: self.nodes(), terms: 1, group: self.degree() },
            _ => Messages { rows: self.edges(), terms: self.degree(), group: 1 },
        }
    }

    /// The weight of the penalty on one edge.
    fn penalty_per_edge(&self) -> f32 {
        match self.penalty {
            Penalty::None => 0.0,
            Penalty::L1(weight) | Penalty::Kl(weight) => weight / self.edges() as f32,
        }
    }
}

struct Messages {
    rows: usize,
    terms: usize,
    group: usize,
}

/// The address of a whole buffer.
fn all<T: Pod>(buffer: &Buffer<T>) -> Pointer<T> {
    buffer.read(buffer.len())
}

fn all_mut<T: Pod>(buffer: &mut Buffer<T>) -> Pointer<T> {
    buffer.write(buffer.len())
}

/// The step for a batch, on the device.
pub(crate) fn load(gpu: Gpu, batch: &Batch, parameters: &[f32]) -> Result<Step> {
    let Batch { shape, penalty, weight_decay, precision, runs, graphs, bodies, .. } = *batch;
    let problem = Problem { shape, penalty, weight_decay, precision, runs, graphs, bodies };
    let mut step = Step::new(gpu, problem, 1)?;
    step.parameters.upload(parameters)?;
    step.features.upload(batch.features)?;
    step.targets.upload(batch.targets)?;
    if shape.sampled {
        step.noise_seeds.upload(batch.noise_seeds)?;
    }
    step.counter.upload(&[batch.step])?;
    Ok(step)
}

pub(super) fn gradient(
    gpu: Gpu,
    batch: &Batch,
    parameters: &[f32],
    gradients: &mut [f32],
    losses: &mut [Loss],
) -> Result<()> {
    let mut step = load(gpu, batch, parameters)?;
    step.enqueue()?;
    step.enqueue_totals()?;
    losses.copy_from_slice(&step.losses(batch.step..batch.step + 1)?);
    step.gradients.download(gradients)
}
