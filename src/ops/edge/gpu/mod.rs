//! The step on a CUDA device: `kernels/edge.cu`, with the layers of `kernels/mlp.cu` between its kernels, on chunks of
//! whole stars, so that memory does not grow with the batch. In bf16 φe is one kernel forward, `kernels/edge_fused.cu`,
//! and two on the way back, `kernels/edge_fused_backward.cu`, where the device and the shape allow it; with sampled
//! messages its outputs go to memory, and the last layer's gradient needs a third kernel.
//!
//! As on the CPU, φe's first layer and φv work in f32 at every precision.

mod fused;
mod hopper;
#[cfg(test)]
mod large_tests;
mod resident;
#[cfg(test)]
mod resident_tests;
#[cfg(test)]
mod sampled_tests;
mod step;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod training_tests;

use std::ops::Range;
use std::sync::Arc;

use half::bf16;

use super::{Batch, Loss, Penalty};
use crate::device::Gpu;
use crate::device::cuda::{Buffer, Pointer};
use crate::error::Result;
use crate::model::Shape;
use fused::training::{Training, TrainingPlan};
use fused::{Fused, Graph};
use hopper::Hopper;
pub(crate) use resident::{MOST_STEPS, Resident};
use step::Step;

/// Edges of a chunk, unless one star has more or memory is short.
const CHUNK_EDGES: usize = 1 << 15;
/// The same if φe is fused, and if it is and its outputs are kept.
const FUSED_EDGES: usize = 1 << 22;
const SAMPLED_EDGES: usize = 1 << 20;

/// How φe processes the edges.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one a step")]
enum EdgePath {
    /// Layer by layer through memory.
    Layers,
    /// In one kernel, without a gradient.
    Predictions(Plan),
    /// In kernels that recompute activations on the way back, and forward in this one.
    Training(TrainingPlan, Plan),
}

impl EdgePath {
    /// For a training step on a device.
    fn of(gpu: Gpu, batch: &Batch) -> Result<EdgePath> {
        let Some(plan) = TrainingPlan::new(gpu, batch)? else { return Ok(EdgePath::Layers) };
        // There are no warpgroup kernels for sampled messages.
        let hopper = if plan.sampled { None } else { hopper::Plan::of(gpu, batch)? };
        Ok(match hopper {
            Some(hopper) => {
                let plan = plan.by_warpgroups(&gpu.properties()?, batch.shape.n_features);
                EdgePath::Training(plan, Plan::Hopper(hopper))
            }
            None => EdgePath::Training(plan, Plan::Fused(plan.forward)),
        })
    }

    /// Edges of a chunk.
    fn edges(&self) -> usize {
        match self {
            EdgePath::Layers => CHUNK_EDGES,
            EdgePath::Training(plan, _) if plan.sampled => SAMPLED_EDGES,
            EdgePath::Predictions(_) | EdgePath::Training(..) => FUSED_EDGES,
        }
    }

    /// True if messages are formed edge by edge, from φe's outputs in memory.
    fn keeps_outputs(&self, batch: &Batch) -> bool {
        match self {
            EdgePath::Layers => batch.penalty != Penalty::None,
            EdgePath::Predictions(_) => false,
            EdgePath::Training(plan, _) => plan.sampled,
        }
    }

    /// Most memory for one edge.
    fn edge_bytes(&self, shape: &Shape) -> usize {
        match self {
            EdgePath::Layers => {
                let hidden = 2 * shape.layers * shape.hidden;
                (shape.edge_inputs() + hidden + 3 * shape.edge_outputs()) * size_of::<f32>()
            }
            // Its sender and its number.
            EdgePath::Predictions(_) => 2 * size_of::<u32>(),
            EdgePath::Training(plan, _) => plan.edge_bytes(),
        }
    }
}

/// Features and targets of all nodes, which stay on the device from step to step, and the senders of all edges if they
/// fit.
pub(super) struct Kept {
    features: Arc<Buffer<f32>>,
    targets: Arc<Buffer<f32>>,
    /// The senders, and the largest of them.
    senders: Option<(Arc<Buffer<u32>>, u32)>,
}

impl Kept {
    pub fn new(gpu: Gpu, features: &[f32], targets: &[f32], senders: &[u32]) -> Result<Self> {
        let upload = |values: &[f32]| gpu.upload(values).map(Arc::new);
        let (features, targets) = (upload(features)?, upload(targets)?);
        // Freed memory is available once the device is done.
        gpu.synchronize()?;
        let fits = size_of_val(senders) <= gpu.free_memory()? / 4;
        let senders = fits.then(|| -> Result<_> {
            let largest = senders.iter().max().copied().unwrap_or(0);
            Ok((Arc::new(gpu.upload(senders)?), largest))
        });
        Ok(Kept { features, targets, senders: senders.transpose()? })
    }

    pub fn features(&self) -> usize {
        self.features.len()
    }

    pub fn targets(&self) -> usize {
        self.targets.len()
    }

    /// Number of senders, and the largest.
    pub fn senders(&self) -> Option<(usize, u32)> {
        self.senders.as_ref().map(|(senders, largest)| (senders.len(), *largest))
    }
}

pub(super) fn gradient(
    (gpu, kept): (Gpu, Option<&Kept>),
    batch: &Batch,
    edges: usize,
    targets: &[f32],
    parameters: &[f32],
    gradients: &mut [f32],
) -> Result<Loss> {
    let way = EdgePath::of(gpu, batch)?;
    let how = (gpu, way, way.edges());
    gradient_by(how, kept, batch, edges, targets, parameters, gradients)
}

/// The gradient, computed in a given way, in chunks of up to `most` edges.
fn gradient_by(
    how: (Gpu, EdgePath, usize),
    kept: Option<&Kept>,
    batch: &Batch,
    edges: usize,
    targets: &[f32],
    parameters: &[f32],
    gradients: &mut [f32],
) -> Result<Loss> {
    let mut loaded = Loaded::by(how, kept, batch, edges, targets, parameters)?;
    let [losses, penalties] = loaded.step()?;
    loaded.gradients.download(gradients)?;
    let squares: f64 = parameters.iter().map(|&w| f64::from(w).powi(2)).sum();
    Ok(Loss {
        prediction: (losses / batch.receivers.len() as f64) as f32,
        penalty: (penalties * f64::from(loaded.step.per_edge)) as f32,
        decay: (f64::from(batch.weight_decay) * squares) as f32,
    })
}

/// A step whose graph, targets and parameters are on the device.
pub(crate) struct Loaded<'a> {
    step: Step<'a>,
    chunks: Vec<Range<usize>>,
    /// `[arena.len]`
    gradients: Buffer<f32>,
    /// Sums of the loss and of the penalty.
    totals: Buffer<f64>,
}

impl<'a> Loaded<'a> {
    /// For a batch with this many edges.
    ///
    /// # Errors
    /// Too little memory.
    pub(crate) fn new(
        gpu: Gpu,
        batch: &'a Batch<'a>,
        edges: usize,
        targets: &[f32],
        parameters: &[f32],
    ) -> Result<Self> {
        let way = EdgePath::of(gpu, batch)?;
        let kept = Kept::new(gpu, batch.features, targets, batch.sender)?;
        Loaded::by((gpu, way, way.edges()), Some(&kept), batch, edges, targets, parameters)
    }

    /// The same in a given way, in chunks of up to `most` edges.
    fn by(
        (gpu, way, most): (Gpu, EdgePath, usize),
        kept: Option<&Kept>,
        batch: &'a Batch<'a>,
        edges: usize,
        targets: &[f32],
        parameters: &[f32],
    ) -> Result<Self> {
        let chunks = chunks(room(gpu)?, batch, most, way.edge_bytes(&batch.shape));
        let mut step = Step::new((gpu, kept), batch, gpu.upload(parameters)?, &chunks, way)?;
        step.prepare_gradient(kept, targets, edges)?;
        let (gradients, totals) = (gpu.zeros(parameters.len())?, gpu.buffer(2)?);
        Ok(Loaded { step, chunks, gradients, totals })
    }

    /// Computes the gradient, which stays on the device; returns the sums of |target − prediction| and of the penalty.
    pub(crate) fn step(&mut self) -> Result<[f64; 2]> {
        self.step.gradient(&self.chunks, &mut self.gradients, self.totals.write(2))?;
        let mut totals = [0.0; 2];
        self.totals.download(&mut totals)?;
        Ok(totals)
    }

    /// The gradient of the last step.
    pub(crate) fn gradients(&self) -> Result<Vec<f32>> {
        let mut gradients = vec![0.0; self.gradients.len()];
        self.gradients.download(&mut gradients)?;
        Ok(gradients)
    }
}

pub(super) fn predict(
    (gpu, kept): (Gpu, Option<&Kept>),
    batch: &Batch,
    parameters: &[f32],
    predictions: &mut [f32],
) -> Result<()> {
    let way = Plan::new(gpu, batch)?.map_or(EdgePath::Layers, EdgePath::Predictions);
    predict_by((gpu, way), kept, batch, parameters, predictions)
}

fn predict_by(
    (gpu, way): (Gpu, EdgePath),
    kept: Option<&Kept>,
    batch: &Batch,
    parameters: &[f32],
    predictions: &mut [f32],
) -> Result<()> {
    let chunks = chunks(room(gpu)?, batch, way.edges(), way.edge_bytes(&batch.shape));
    let mut step = Step::new((gpu, kept), batch, gpu.upload(parameters)?, &chunks, way)?;
    for chunk in chunks {
        let width = batch.shape.outputs;
        let to = &mut predictions[chunk.start * width..chunk.end * width];
        step.forward(chunk)?;
        step.predictions(to)?;
    }
    Ok(())
}

/// The kernel that does all of φe.
#[derive(Clone, Copy, Debug)]
enum Plan {
    Fused(fused::Plan),
    Hopper(hopper::Plan),
}

impl Plan {
    /// The best one for the device and the batch, if there is one.
    fn new(gpu: Gpu, batch: &Batch) -> Result<Option<Plan>> {
        match hopper::Plan::of(gpu, batch)? {
            Some(plan) => Ok(Some(Plan::Hopper(plan))),
            None => Ok(fused::Plan::new(gpu, batch)?.map(Plan::Fused)),
        }
    }

    /// Blocks that the device runs at a time.
    fn blocks(&self) -> usize {
        match self {
            Plan::Fused(plan) => plan.blocks,
            Plan::Hopper(plan) => plan.blocks,
        }
    }
}

/// All of φe in one kernel.
enum EdgeKernel {
    Fused(Fused),
    Hopper(Hopper),
}

impl EdgeKernel {
    /// Makes the weights from `parameters` `[arena.len]`.
    fn new(gpu: Gpu, batch: &Batch, plan: Plan, parameters: &Buffer<f32>) -> Result<Self> {
        Ok(match plan {
            Plan::Fused(plan) => EdgeKernel::Fused(Fused::new(gpu, batch, plan, parameters)?),
            Plan::Hopper(plan) => EdgeKernel::Hopper(Hopper::new(gpu, batch, plan, parameters)?),
        })
    }

    /// Deals the receivers of a chunk.
    fn deal(&mut self, starts: &[u32]) -> Result<()> {
        match self {
            EdgeKernel::Fused(fused) => fused.deal(starts),
            EdgeKernel::Hopper(hopper) => hopper.deal(starts),
        }
    }

    /// Like [`Fused::sums`].
    ///
    /// # Safety
    /// The graph is the one dealt, with receivers and senders among the features' nodes.
    unsafe fn sums(
        &mut self,
        gpu: Gpu,
        batch: &Batch,
        graph: Graph,
        to: (Pointer<f32>, usize),
    ) -> Result<()> {
        // SAFETY: as the caller promises.
        match self {
            // SAFETY: as the caller promises.
            EdgeKernel::Fused(fused) => unsafe { fused.sums(gpu, batch, graph, to) },
            // SAFETY: as the caller promises.
            EdgeKernel::Hopper(hopper) => unsafe { hopper.sums(gpu, batch, graph, to) },
        }
    }

    /// From what φe's last layer passes back (see [`Training::backward`]) to the gradients of its layers.
    ///
    /// # Safety
    /// The graph is the one of the last forward pass.
    unsafe fn backward(
        &mut self,
        gpu: Gpu,
        batch: &Batch,
        graph: Graph,
        from: (Pointer<f32>, Pointer<bf16>),
    ) -> Result<()> {
        let Some(training) = self.training() else { return Ok(()) };
        // SAFETY: as the caller promises.
        unsafe { training.backward(gpu, batch, graph, from)? };
        match self {
            // SAFETY: as the caller promises.
            EdgeKernel::Fused(fused) => unsafe { fused.last(gpu, batch, graph, from.1) },
            EdgeKernel::Hopper(_) => Ok(()),
        }
    }

    /// What a training step keeps.
    fn training(&mut self) -> Option<&mut Training> {
        match self {
            EdgeKernel::Fused(fused) => fused.training.as_deref_mut(),
            EdgeKernel::Hopper(hopper) => hopper.training.as_deref_mut(),
        }
    }

    /// Makes it keep what a training step needs.
    fn prepare(&mut self, training: Training) {
        match self {
            EdgeKernel::Fused(fused) => fused.training = Some(Box::new(training)),
            EdgeKernel::Hopper(hopper) => hopper.training = Some(Box::new(training)),
        }
    }
}

/// Most memory for a receiver: sums over its edges, φv's layers, and the gradients of all.
fn receiver_bytes(shape: &Shape) -> usize {
    let inputs = shape.node_inputs();
    let hidden = (2 * shape.layers + 2) * shape.hidden;
    (2 * (inputs + shape.message_dim + shape.outputs) + hidden) * size_of::<f32>()
}

/// Memory for the edges and receivers of a chunk: half of what is free.
fn room(gpu: Gpu) -> Result<usize> {
    Ok(gpu.free_memory()? / 2)
}

/// The receivers in chunks of up to `most` edges, or as many as fit with `bytes` for each edge. The order of sums, and
/// hence the last bits, depends on the chunks: on the memory only if it is short.
fn chunks(room: usize, batch: &Batch, most: usize, bytes: usize) -> Vec<Range<usize>> {
    let per_receiver = receiver_bytes(&batch.shape);
    let (mut chunks, mut first, mut edges) = (Vec::new(), 0, 0);
    for (index, &receiver) in batch.receivers.iter().enumerate() {
        let degree = batch.edges_of(receiver).len();
        let needed = (edges + degree) * bytes + (index - first + 1) * per_receiver;
        // Receivers without edges are some work, too.
        let full = edges + degree > most || needed > room || index - first >= CHUNK_EDGES;
        if index > first && full {
            chunks.push(first..index);
            (first, edges) = (index, 0);
        }
        edges += degree;
    }
    chunks.push(first..batch.receivers.len());
    chunks
}
