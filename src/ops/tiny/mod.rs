//! Loss and gradient of one training step for a stack of independent models on small, fully
//! connected graphs.
//!
//! For each run of the stack: messages e = φe(v_r, v_s) on every directed edge, summed at the
//! receiver; prediction φv(v_i, Σe); loss = mean over nodes of the L1 norm of (target − prediction)
//! + penalty on messages + weight_decay · Σw².

mod cpu;
pub(crate) mod gpu;
pub mod noise;
mod plan;
pub mod reference;
pub mod selftest;
mod session;
pub mod source;
#[cfg(test)]
mod tests;
mod tile;
mod weights;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::model::{Precision, Shape};
use crate::ops::{Call, check_len};
pub use session::Session;

/// The penalty on messages (docs/design.md §3), already weighted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Penalty {
    /// No penalty.
    None,
    /// weight · (1/N_e) Σ over edges of the L1 norm of e_k.
    L1(f32),
    /// weight · (1/N_e) Σ over edges Σ ½(μ² + σ² − log σ² − 1).
    Kl(f32),
}

/// What the steps of a stack of trainings have in common.
#[derive(Clone, Copy)]
pub struct Problem {
    /// Shape of every model of the stack.
    pub shape: Shape,
    /// Penalty on messages.
    pub penalty: Penalty,
    /// Weight of Σw² (weights and biases) in the loss.
    pub weight_decay: f32,
    /// Arithmetic of the matrix products.
    pub precision: Precision,
    /// Models in the stack.
    pub runs: usize,
    /// Graphs of each model's batch.
    pub graphs: usize,
    /// Bodies of each graph; every ordered pair of them is an edge.
    pub bodies: usize,
}

/// The data of one step.
pub struct Batch<'a> {
    /// Shape of every model of the stack.
    pub shape: Shape,
    /// Penalty on messages.
    pub penalty: Penalty,
    /// Weight of Σw² (weights and biases) in the loss.
    pub weight_decay: f32,
    /// Arithmetic of the matrix products.
    pub precision: Precision,
    /// Models in the stack.
    pub runs: usize,
    /// Graphs of each model's batch.
    pub graphs: usize,
    /// Bodies of each graph; every ordered pair of them is an edge.
    pub bodies: usize,
    /// `[runs, graphs, bodies, n_features]`.
    pub features: &'a [f32],
    /// `[runs, graphs, bodies, outputs]`.
    pub targets: &'a [f32],
    /// Key of the noise of sampled messages: seed of each run, `[runs]`.
    pub noise_seeds: &'a [u64],
    /// Step number: the counter of that noise.
    pub step: u64,
}

/// The parts of the loss of one run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Loss {
    /// Mean over nodes of the L1 norm of (target − prediction).
    pub prediction: f32,
    /// The weighted penalty on messages.
    pub penalty: f32,
    /// weight_decay · Σw².
    pub decay: f32,
}

/// Most units of a layer in bf16: two rows of them go through a buffer of fixed size.
pub(crate) const WIDEST_BF16: usize = 4000;

/// Buffers that steps on the CPU reuse: nothing is allocated after the first step of a size.
#[derive(Default)]
pub struct Workspace {
    cpu: cpu::Buffers,
}

/// Loss and gradient of every run of the stack.
///
/// `parameters` and `gradients` are `[runs, arena.len]` (the gradient is overwritten, gaps of the arena included, which
/// become zero), `losses` is `[runs]`. A buffer of the wrong length, a batch without edges, a penalty that does not fit
/// the shape, and bf16 on a CPU without it are errors; nothing is written then.
///
/// Threads are this one and those of its rayon pool.
pub fn gradient(
    device: &Device,
    batch: &Batch,
    parameters: &[f32],
    gradients: &mut [f32],
    losses: &mut [Loss],
    workspace: &mut Workspace,
) -> Result<()> {
    let len = batch.runs * batch.check()?;
    check_len("parameters", parameters.len(), len)?;
    check_len("gradients", gradients.len(), len)?;
    check_len("losses", losses.len(), batch.runs)?;
    match device {
        Device::Cpu(cpu) => cpu::gradient(cpu, batch, parameters, gradients, losses, workspace),
        Device::Gpu(gpu) => gpu::gradient(*gpu, batch, parameters, gradients, losses),
    }
}

impl Batch<'_> {
    /// The length of the arena, if every buffer of the batch has its length and the settings agree.
    fn check(&self) -> Result<usize> {
        let shape = &self.shape;
        let widths = [shape.n_features, shape.message_dim, shape.outputs, shape.hidden];
        if widths.contains(&0) || shape.layers == 0 {
            return Err(Error::usage("a network needs at least one unit in each of its layers"));
        }
        if self.bodies < 2 || self.graphs == 0 {
            return Err(Error::input("a batch needs at least one graph of at least two bodies")
                .field("bodies"));
        }
        if shape.sampled != matches!(self.penalty, Penalty::Kl(_)) {
            return Err(Error::usage(
                "sampled messages and the Kullback–Leibler penalty go together",
            )
            .field("penalty"));
        }
        let widest = widths.into_iter().chain([shape.edge_outputs()]).max().unwrap_or(0);
        if self.precision == Precision::Bf16 && widest > WIDEST_BF16 {
            return Err(Error::usage(format!(
                "bf16 takes layers of up to {WIDEST_BF16} units, not {widest}; use --precision f32"
            ))
            .field("precision"));
        }
        // Kernels index a run's numbers in a hidden layer of φv with 32 bits.
        let nodes = self.graphs * self.bodies;
        if nodes.saturating_mul(shape.hidden) > u32::MAX as usize {
            return Err(Error::input(format!(
                "a batch of {nodes} nodes is too large for layers of {} units",
                shape.hidden
            ))
            .field("graphs"));
        }
        let nodes = self.runs * nodes;
        check_len("features", self.features.len(), nodes * shape.n_features)?;
        check_len("targets", self.targets.len(), nodes * shape.outputs)?;
        if shape.sampled {
            check_len("noise_seeds", self.noise_seeds.len(), self.runs)?;
        }
        Ok(shape.arena().len)
    }
}

/// The gradient of a batch for `measure`, which repeats it: the data are already on the device.
pub(crate) fn repeat<T>(
    device: &Device,
    batch: &Batch,
    parameters: &[f32],
    measure: impl FnOnce(Call) -> Result<T>,
) -> Result<T> {
    match device {
        Device::Cpu(_) => {
            let mut gradients = vec![0.0; parameters.len()];
            let mut losses = vec![Loss::default(); batch.runs];
            let mut workspace = Workspace::default();
            measure(&mut || {
                let (gradients, losses) = (&mut gradients, &mut losses);
                gradient(device, batch, parameters, gradients, losses, &mut workspace)
            })
        }
        Device::Gpu(gpu) => {
            let mut step = gpu::load(*gpu, batch, parameters)?;
            let recording = step.record()?;
            // SAFETY: the step lives longer, and nothing else uses it.
            measure(&mut || unsafe { recording.replay() })
        }
    }
}
