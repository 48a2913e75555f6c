//! φe from features to sums at the receivers in one kernel of sm_90a, `kernels/edge_hopper.cu`: what
//! [`fused`](super::fused) does, with products of warpgroups.

use half::bf16;

use super::args::{EdgeHopperArgs, EdgeHopperWeightsArgs};
use super::fused::training::Training;
use super::fused::{Graph, deal};
use crate::device::Gpu;
use crate::device::cuda::{Buffer, Grid, Kernel, Pointer, Properties};
use crate::error::Result;
use crate::network::spec::Precision;
use crate::ops::edge::{Batch, Penalty};

const WEIGHTS: Kernel = Kernel { module: "edge_hopper", name: "edge_hopper_weights" };

/// The compute capability whose instructions these are.
pub(super) const CAPABILITY: (i32, i32) = (9, 0);
/// Warps of a block that multiply, edges of each in a tile, and all threads of a block.
const WARPS: usize = 8;
const STRIP: usize = 16;
const THREADS: u32 = 384;
/// Columns of a block of operands in shared memory.
const DEPTH: usize = 32;
/// Stages of the ring of weights, and units of a stage.
const STAGES: usize = 4;
const STAGE: usize = 256;
/// Units of a pass of the last layer.
const PASS: usize = 128;
/// Barriers in shared memory: two for each stage, two for the inputs.
const BARRIERS: usize = (2 * STAGES + 2) * size_of::<u64>();
/// Edges of a warp, unless there are fewer.
const FEWEST: usize = 2 * STRIP;

/// Sizes of the kernel for a batch.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Plan {
    /// Parts of a hidden layer, and units of each.
    parts: usize,
    units: usize,
    layers: usize,
    /// Blocks of the first layer's inputs.
    first_blocks: usize,
    /// Passes over the units of φe's last layer; 0 where it acts on sums over edges.
    passes: usize,
    /// Bytes of shared memory of a block.
    shared: usize,
    /// Blocks that the device runs at a time.
    pub blocks: usize,
}

impl Plan {
    /// None where [`Plan::new`] has none, and on devices without such instructions.
    pub fn of(gpu: Gpu, batch: &Batch) -> Result<Option<Plan>> {
        let device = gpu.properties()?;
        Ok(Plan::new(&device, batch).filter(|_| device.capability == CAPABILITY))
    }

    /// None in f32, for very wide layers and for so many features that shared memory does not hold their inputs.
    /// Whether the device has such instructions is up to the caller.
    pub fn new(device: &Properties, batch: &Batch) -> Option<Plan> {
        let shape = &batch.shape;
        let (parts, units) = match shape.hidden {
            0..=64 => (1, 64),
            65..=128 => (2, 64),
            129..=192 => (1, 192),
            193..=256 => (1, 256),
            257..=384 => (2, 192),
            385..=512 => (2, 256),
            _ => return None,
        };
        let first_blocks = (3 * 2 * shape.n_features).div_ceil(DEPTH);
        let plan = Plan { parts, units, layers: shape.layers, first_blocks, ..Plan::default() };
        let passes = match batch.penalty {
            Penalty::None => 0,
            _ => shape.message_dim.div_ceil(PASS),
        };
        let columns = plan.hidden() + first_blocks * DEPTH;
        let numbers = WARPS * STRIP * columns + STAGES * STAGE * DEPTH;
        let shared = numbers * size_of::<bf16>() + BARRIERS;
        let fits = batch.precision == Precision::Bf16 && shared <= device.shared;
        fits.then_some(Plan { passes, shared, blocks: device.multiprocessors, ..plan })
    }

    /// Units of a hidden layer, padded.
    fn hidden(&self) -> usize {
        self.parts * self.units
    }

    fn kernel(&self) -> Kernel {
        let name = match self.units {
            64 => "edge_hopper_64",
            192 => "edge_hopper_192",
            _ => "edge_hopper_256",
        };
        Kernel { module: "edge_hopper", name }
    }

    /// Parts, blocks of each, and units, of φe's layer `index`.
    fn layer(&self, index: usize) -> (usize, usize, usize) {
        match index {
            0 => (self.parts, self.first_blocks, self.units),
            _ if index < self.layers => (self.parts, self.hidden() / DEPTH, self.units),
            _ => (self.passes, self.hidden() / DEPTH, PASS),
        }
    }
}

/// φe's weights as the kernel takes them, and the receivers of each warp.
pub(super) struct Hopper {
    plan: Plan,
    weights: Buffer<bf16>,
    biases: Buffer<f32>,
    ranges: Buffer<u32>,
    /// Blocks of the chunk at work.
    blocks: usize,
    /// What a training step keeps.
    pub training: Option<Box<Training>>,
}

impl Hopper {
    /// Makes the weights of `parameters` `[arena.len]`.
    pub fn new(gpu: Gpu, batch: &Batch, plan: Plan, parameters: &Buffer<f32>) -> Result<Self> {
        let (shape, arena) = (&batch.shape, batch.shape.arena());
        let sizes = |index: usize| {
            let (parts, blocks, units) = plan.layer(index);
            (parts * blocks * units * DEPTH, parts * units)
        };
        let all = (0..=plan.layers).map(sizes);
        let (weights, biases) = all.fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
        let mut hopper = Hopper {
            plan,
            weights: gpu.buffer(weights)?,
            biases: gpu.buffer(biases)?,
            ranges: gpu.buffer(WARPS * plan.blocks + 1)?,
            blocks: 0,
            training: None,
        };
        let from = parameters.read(arena.len);
        let (to, padded_bias) = (hopper.weights.write(weights), hopper.biases.write(biases));
        let mut at = (0, 0);
        for (index, layer) in arena.edge.iter().enumerate() {
            let ((parts, blocks, units), size) = (plan.layer(index), sizes(index));
            if parts == 0 {
                continue;
            }
            // Of sampled messages only the means, which come first.
            let out_width = if index < plan.layers { layer.outputs } else { shape.message_dim };
            // SAFETY: a layer is inside the arena, what is made of it inside the buffers; in the rows of
            // the first layer a coordinate of the receiver is followed by one of the sender.
            unsafe {
                let args = EdgeHopperWeightsArgs {
                    parameters: from.add(layer.weight.start),
                    bias: from.add(layer.bias.start),
                    weights: to.add(at.0),
                    padded_bias: padded_bias.add(at.1),
                    out_width: out_width as u32,
                    in_width: layer.inputs as u32,
                    parts: parts as u32,
                    blocks: blocks as u32,
                    units: units as u32,
                    n_features: shape.n_features as u32,
                    dim: if index == 0 { batch.coordinates.dim as u32 } else { 0 },
                    split: u32::from(index == 0),
                };
                gpu.launch(WEIGHTS, Grid::cover(size.0, 256), &args)?;
            }
            at = (at.0 + size.0, at.1 + size.1);
        }
        Ok(hopper)
    }

    /// Deals the receivers of a chunk to warps: about as many edges to each.
    pub fn deal(&mut self, starts: &[u32]) -> Result<()> {
        let ranges = deal(starts, self.plan.blocks, WARPS, FEWEST);
        self.blocks = ranges.len() / WARPS;
        self.ranges.upload(&ranges)
    }

    /// As [`Fused::sums`](super::fused::Fused::sums).
    ///
    /// # Safety
    /// The graph is the one that was dealt, with receivers and senders among the features' nodes.
    pub unsafe fn sums(
        &mut self,
        gpu: Gpu,
        batch: &Batch,
        graph: Graph,
        (sums, width): (Pointer<f32>, usize),
    ) -> Result<()> {
        let Graph { features, receivers, starts, senders, edges } = graph;
        let kept = self.training.as_mut().map(|training| training.kept(edges)).unwrap_or_default();
        let Plan { parts, layers, first_blocks, passes, shared, .. } = self.plan;
        let args = EdgeHopperArgs {
            features,
            receivers,
            starts,
            senders,
            ranges: self.ranges.read(WARPS * self.blocks + 1),
            weights: self.weights.read(self.weights.len()),
            biases: self.biases.read(self.biases.len()),
            sums,
            owners: kept.owners,
            masks: kept.masks,
            signs: kept.signs,
            shares: kept.shares,
            counts: kept.counts,
            penalties: kept.penalties,
            shift: batch.coordinates.shift,
            period: batch.coordinates.period,
            n_features: batch.shape.n_features as u32,
            dim: batch.coordinates.dim as u32,
            parts: parts as u32,
            layers: layers as u32,
            first_blocks: first_blocks as u32,
            passes: passes as u32,
            width: width as u32,
            mask_row: kept.mask_row,
            sign_columns: kept.sign_columns,
            unused: 0,
        };
        let grid = Grid { shared, ..Grid::new(self.blocks, THREADS) };
        // SAFETY: as the caller promises; the plan has the sizes of the kernel's shared memory.
        unsafe { gpu.launch(self.plan.kernel(), grid, &args) }
    }
}
