//! Loss and gradient of one training step on some receivers of a large graph.
//!
//! For each receiver r: messages e = φe(v_r, v_s) on every edge from a sender s, summed; prediction
//! φv(v_r, Σe); loss = mean over receivers of the L1 norm of (target − prediction) + penalty on
//! messages + weight_decay · Σw², as in [`tiny`](super::tiny), whose graphs are small and complete.
//!
//! There is one step of message passing, so the star of each receiver is independent of all others: it goes forward and
//! backward while it is in cache, and memory is that of the graph and a few stars for each thread, never edges × hidden
//! units.
//!
//! Positions enter relative to the receiver. With the weights A_x of the receiver's coordinates and
//! B_x of the sender's, A_x x_r + B_x x_s = (A_x + B_x) x_r + B_x (x_s − x_r): the difference, wrapped
//! in a periodic box, keeps all its digits, and the parameters are those of the plain network.

mod cpu;
pub(crate) mod gpu;
mod plan;
pub mod reference;
pub mod selftest;
mod session;
mod stars;
pub mod symmetry;
#[cfg(test)]
mod tests;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::model::{Precision, Shape};
pub use crate::ops::tiny::{Loss, Penalty};
use crate::ops::{Call, check_len, tiny::WIDEST_BF16};
pub use session::Session;

/// The first features of a node, which are its coordinates.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Coordinates {
    /// How many: 0 to 3.
    pub dim: usize,
    /// Edge of the periodic box, in the units of the features; 0 for open space.
    pub period: f32,
    /// Added to the coordinates of every node: a random translation of the graph.
    pub shift: [f32; 3],
}

/// The data of one step.
pub struct Batch<'a> {
    /// Shape of the model.
    pub shape: Shape,
    /// Penalty on messages.
    pub penalty: Penalty,
    /// Weight of Σw² (weights and biases) in the loss.
    pub weight_decay: f32,
    /// Arithmetic of φe's products on single edges, except for the first layer; that one, φv, and a last layer that
    /// acts on sums over edges (no penalty) work in f32.
    pub precision: Precision,
    /// Edges are sorted by receiver: those of node i are `row_start[i]..row_start[i + 1]`, `[node + 1]`.
    pub row_start: &'a [u64],
    /// `[edge]`.
    pub sender: &'a [u32],
    /// The nodes whose targets this step uses.
    pub receivers: &'a [u32],
    /// `[node, n_features]`.
    pub features: &'a [f32],
    /// Which of the features are coordinates.
    pub coordinates: Coordinates,
    /// Key of the noise of sampled messages, whose counter is the step and the edge.
    pub noise_seed: u64,
    /// Step number.
    pub step: u64,
}

/// What steps reuse: buffers on the CPU, and on a GPU what [`Workspace::keep`] uploaded.
#[derive(Default)]
pub struct Workspace {
    cpu: cpu::Buffers,
    kept: Option<gpu::Kept>,
}

impl Workspace {
    /// Uploads features `[node, n_features]` and targets `[node, outputs]` of all nodes once, for steps on a GPU, and
    /// the senders `[edge]` of the graph, if they take at most a quarter of the memory then free: steps with this
    /// workspace read them instead of those of their batch, which must be the same. Does nothing on the CPU.
    ///
    /// # Errors
    /// Too little memory.
    pub fn keep(
        &mut self,
        device: &Device,
        features: &[f32],
        targets: &[f32],
        senders: &[u32],
    ) -> Result<()> {
        if let Device::Gpu(gpu) = device {
            self.kept = Some(gpu::Kept::new(*gpu, features, targets, senders)?);
        }
        Ok(())
    }

    /// What was kept, if its length matches the batch.
    fn kept(&self, batch: &Batch, targets: Option<usize>) -> Result<Option<&gpu::Kept>> {
        if let Some(kept) = &self.kept {
            check_len("kept features", kept.features(), batch.features.len())?;
            check_len("kept targets", kept.targets(), targets.unwrap_or(kept.targets()))?;
            if let Some((senders, largest)) = kept.senders() {
                check_len("kept senders", senders, batch.sender.len())?;
                if largest as usize >= batch.nodes() {
                    let message = format!("name node {largest}, but there are {}", batch.nodes());
                    return Err(Error::input(message).field("kept senders"));
                }
            }
        }
        Ok(self.kept.as_ref())
    }
}

/// Loss and gradient on the receivers of the batch, for `targets` `[node, outputs]` of all nodes.
///
/// `parameters` and `gradients` are `[arena.len]`; the gradient is overwritten, gaps of the arena
/// included, which become zero. A buffer of the wrong length, an inconsistent graph, a batch without receivers or
/// edges, and bf16 on a CPU without it are errors; nothing is written then.
///
/// Threads are those of the caller's rayon pool; the result does not depend on their number.
pub fn gradient(
    device: &Device,
    batch: &Batch,
    targets: &[f32],
    parameters: &[f32],
    gradients: &mut [f32],
    workspace: &mut Workspace,
) -> Result<Loss> {
    let edges = batch.check_step(parameters.len(), targets)?;
    check_len("gradients", gradients.len(), parameters.len())?;
    match device {
        Device::Cpu(cpu) => {
            cpu::gradient(cpu, batch, edges, targets, parameters, gradients, workspace)
        }
        Device::Gpu(gpu) => {
            let kept = workspace.kept(batch, Some(targets.len()))?;
            gpu::gradient((*gpu, kept), batch, edges, targets, parameters, gradients)
        }
    }
}

/// The outputs of φv `[receivers, outputs]`; sampled messages are replaced by their means.
///
/// Errors are those of [`gradient`], but receivers without edges are allowed: nothing is summed.
pub fn predict(
    device: &Device,
    batch: &Batch,
    parameters: &[f32],
    predictions: &mut [f32],
    workspace: &mut Workspace,
) -> Result<()> {
    batch.check(parameters.len())?;
    check_len("predictions", predictions.len(), batch.receivers.len() * batch.shape.outputs)?;
    match device {
        Device::Cpu(cpu) => cpu::predict(cpu, batch, parameters, predictions, workspace),
        Device::Gpu(gpu) => {
            let kept = workspace.kept(batch, None)?;
            gpu::predict((*gpu, kept), batch, parameters, predictions)
        }
    }
}

impl Batch<'_> {
    /// Nodes of the graph.
    fn nodes(&self) -> usize {
        self.row_start.len().saturating_sub(1)
    }

    /// The edges of a node.
    fn edges_of(&self, node: u32) -> std::ops::Range<usize> {
        let node = node as usize;
        self.row_start[node] as usize..self.row_start[node + 1] as usize
    }

    /// The number of edges of a step, if there are any and everything meets the conditions of [`gradient`].
    fn check_step(&self, parameters: usize, targets: &[f32]) -> Result<usize> {
        let edges = self.check(parameters)?;
        if edges == 0 {
            return Err(Error::input("none of the receivers has an edge").field("receivers"));
        }
        check_len("targets", targets.len(), self.nodes() * self.shape.outputs)?;
        Ok(edges)
    }

    /// The number of edges of the receivers, if every buffer has its length and the settings agree.
    ///
    /// Only the part of the graph that the receivers touch is checked: a step must not read 30 million edges.
    fn check(&self, parameters: usize) -> Result<usize> {
        let shape = &self.shape;
        let widths = [shape.n_features, shape.message_dim, shape.outputs, shape.hidden];
        if widths.contains(&0) || shape.layers == 0 {
            return Err(Error::usage("a network needs at least one unit in each of its layers"));
        }
        let widest = widths.into_iter().chain([shape.edge_outputs()]).max().unwrap_or(0);
        if self.precision == Precision::Bf16 && widest > WIDEST_BF16 {
            return Err(Error::usage(format!(
                "bf16 takes layers of up to {WIDEST_BF16} units, not {widest}; use --precision f32"
            ))
            .field("precision"));
        }
        if shape.sampled != matches!(self.penalty, Penalty::Kl(_)) {
            return Err(Error::usage(
                "sampled messages and the Kullback–Leibler penalty go together",
            )
            .field("penalty"));
        }
        let Coordinates { dim, period, .. } = self.coordinates;
        if dim > 3.min(shape.n_features) || !(period >= 0.0 && period.is_finite()) {
            return Err(Error::usage(format!(
                "{dim} coordinates in a box of {period} do not fit {} features",
                shape.n_features
            ))
            .field("coordinates"));
        }
        check_len("parameters", parameters, shape.arena().len)?;
        check_len("features", self.features.len(), self.nodes() * shape.n_features)?;
        let mut edges = 0;
        for (row, &receiver) in self.receivers.iter().enumerate() {
            let bad =
                |message: String| Err(Error::input(message).field("receivers").row(row as u64 + 1));
            if receiver as usize >= self.nodes() {
                return bad(format!("names node {receiver}, but there are {}", self.nodes()));
            }
            let own = self.edges_of(receiver);
            if own.start > own.end || own.end > self.sender.len() {
                return bad(format!("has edges {own:?}, but there are {}", self.sender.len()));
            }
            if own.end > u32::MAX as usize {
                return bad(format!("has edges beyond number {}", u32::MAX));
            }
            if let Some(&sender) =
                self.sender[own.clone()].iter().find(|&&s| s as usize >= self.nodes())
            {
                return bad(format!("has sender {sender}, but there are {} nodes", self.nodes()));
            }
            edges += own.len();
        }
        if self.receivers.is_empty() {
            return Err(Error::input("has no elements").field("receivers"));
        }
        Ok(edges)
    }
}

/// The gradient of a batch for `measure`, which repeats it: the data are already on the device.
pub(crate) fn repeat<T>(
    device: &Device,
    batch: &Batch,
    targets: &[f32],
    parameters: &[f32],
    measure: impl FnOnce(Call) -> Result<T>,
) -> Result<T> {
    let edges = batch.check_step(parameters.len(), targets)?;
    match device {
        Device::Cpu(_) => {
            let mut gradients = vec![0.0; parameters.len()];
            let mut workspace = Workspace::default();
            measure(&mut || {
                let gradients = &mut gradients;
                gradient(device, batch, targets, parameters, gradients, &mut workspace).map(drop)
            })
        }
        Device::Gpu(gpu) => {
            let mut step = gpu::Loaded::new(*gpu, batch, edges, targets, parameters)?;
            step.step()?;
            let first = step.gradients()?;
            let measured = measure(&mut || step.step().map(drop))?;
            same_bits(&first, &step.gradients()?)?;
            Ok(measured)
        }
    }
}

/// An error if a repeated step gives another gradient at its end: the same sums in the same order have the same bits.
fn same_bits(first: &[f32], last: &[f32]) -> Result<()> {
    let pairs = first.iter().zip(last);
    let differing = pairs.filter(|(first, last)| first.to_bits() != last.to_bits()).count();
    if differing == 0 {
        return Ok(());
    }
    let all = first.len();
    Err(Error::device(format!(
        "{differing} of {all} numbers of the gradient differ between the first step and the last, which are the \
         same: its kernels race"
    )))
}
