//! φe from features to sums at the receivers in one kernel for sm_90a, `kernels/edge_hopper.cu`: does the same as
//! [`fused`](super::fused), with warpgroup products; [`backward`] and [`second`] are the way back.

pub(super) mod backward;
pub(super) mod second;

use half::bf16;

use super::fused::training::Training;
use super::fused::{Graph, deal};
use crate::device::Gpu;
use crate::device::args::{EdgeHopperArgs, EdgeHopperWeightsArgs};
use crate::device::cuda::{Buffer, Grid, Kernel, Pointer, Properties};
use crate::error::Result;
use crate::model::{Layer, Precision};
use crate::ops::edge::{Batch, Penalty};

const WEIGHTS: Kernel = Kernel { module: "edge_hopper", name: "edge_hopper_weights" };

/// The compute capability with these instructions.
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
/// Fewest edges of a warp, unless there are fewer in all.
const FEWEST: usize = 2 * STRIP;

/// Parts of a hidden layer, and units of each; None for very wide layers.
fn parts(hidden: usize) -> Option<(usize, usize)> {
    match hidden {
        0..=64 => Some((1, 64)),
        65..=128 => Some((2, 64)),
        129..=192 => Some((1, 192)),
        193..=256 => Some((1, 256)),
        257..=384 => Some((2, 192)),
        385..=512 => Some((2, 256)),
        _ => None,
    }
}

/// Sizes of the kernel for a batch.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Plan {
    /// Parts of a hidden layer, and units of each.
    parts: usize,
    units: usize,
    layers: usize,
    /// Blocks of the first layer's inputs.
    first_blocks: usize,
    /// Passes over the units of φe's last layer; 0 if it acts on sums over edges.
    passes: usize,
    /// Bytes of shared memory of a block.
    shared: usize,
    /// Blocks that the device runs at a time.
    pub blocks: usize,
}

impl Plan {
    /// None if [`Plan::new`] gives None, and on devices without these instructions.
    pub fn of(gpu: Gpu, batch: &Batch) -> Result<Option<Plan>> {
        let device = gpu.properties()?;
        Ok(Plan::new(&device, batch).filter(|_| device.capability == CAPABILITY))
    }

    /// None in f32, for very wide layers, and for so many features that their inputs do not fit into shared memory. The
    /// caller checks that the device has the instructions.
    pub fn new(device: &Properties, batch: &Batch) -> Option<Plan> {
        let shape = &batch.shape;
        let (parts, units) = parts(shape.hidden)?;
        let first_blocks = (3 * shape.edge_inputs()).div_ceil(DEPTH);
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

    /// φe's layer `index`.
    fn layer(&self, index: usize, layer: &Layer, batch: &Batch) -> Operand {
        let blocks = if index == 0 { self.first_blocks } else { self.hidden() / DEPTH };
        let last = index == self.layers;
        Operand {
            // For sampled messages only the means, which come first.
            rows: if last { batch.shape.message_dim } else { layer.outputs },
            columns: layer.inputs,
            steps: [layer.inputs, 1],
            parts: if last { self.passes } else { self.parts },
            blocks,
            units: if last { PASS } else { self.units },
            split: if index == 0 { layer.inputs } else { 0 },
            mixed: false,
            scale: 1.0,
        }
    }
}

/// A layer's weights in the kernels' layout, units × summed indices.
struct Operand {
    rows: usize,
    columns: usize,
    /// Strides between them in the layer.
    steps: [usize; 2],
    parts: usize,
    blocks: usize,
    units: usize,
    /// For the first layer: width of a part of its inputs, and whether high and low parts alternate.
    split: usize,
    mixed: bool,
    scale: f32,
}

impl Operand {
    fn len(&self) -> usize {
        self.parts * self.blocks * self.units * DEPTH
    }

    /// Number of biases: all units.
    fn biases(&self) -> usize {
        self.parts * self.units
    }

    /// Enqueues the making of the operand.
    ///
    /// # Safety
    /// The layer is inside the arena that begins at `parameters`; there is room for `len` at `weights`, and at
    /// `padded_bias`, if not null, for `biases`.
    unsafe fn make(
        &self,
        gpu: Gpu,
        batch: &Batch,
        (parameters, layer): (Pointer<f32>, &Layer),
        weights: Pointer<bf16>,
        padded_bias: Pointer<f32>,
    ) -> Result<()> {
        // SAFETY: the caller's promise; in the rows of the first layer a coordinate of the receiver is
        // followed by one of the sender.
        unsafe {
            let args = EdgeHopperWeightsArgs {
                parameters: parameters.add(layer.weight.start),
                bias: parameters.add(layer.bias.start),
                weights,
                padded_bias,
                rows: self.rows as u32,
                columns: self.columns as u32,
                row_step: self.steps[0] as u32,
                column_step: self.steps[1] as u32,
                parts: self.parts as u32,
                blocks: self.blocks as u32,
                units: self.units as u32,
                n_features: batch.shape.n_features as u32,
                dim: if self.split > 0 { batch.coordinates.dim as u32 } else { 0 },
                split: self.split as u32,
                mixed: u32::from(self.mixed),
                scale: self.scale,
            };
            gpu.launch(WEIGHTS, Grid::cover(self.len(), 256), &args)
        }
    }
}

/// φe's weights in the kernel's layout, and the receivers of each warp.
pub(super) struct Hopper {
    plan: Plan,
    weights: Buffer<bf16>,
    biases: Buffer<f32>,
    ranges: Buffer<u32>,
    /// Blocks of the current chunk.
    blocks: usize,
    /// What a training step keeps.
    pub training: Option<Box<Training>>,
}

impl Hopper {
    /// Makes the weights of `parameters` `[arena.len]`.
    pub fn new(gpu: Gpu, batch: &Batch, plan: Plan, parameters: &Buffer<f32>) -> Result<Self> {
        let arena = batch.shape.arena();
        let layer = |(index, layer)| plan.layer(index, layer, batch);
        let operands: Vec<Operand> = arena.edge.iter().enumerate().map(layer).collect();
        let weights = operands.iter().map(Operand::len).sum();
        let biases = operands.iter().map(Operand::biases).sum();
        let mut hopper = Hopper {
            plan,
            weights: gpu.buffer(weights)?,
            biases: gpu.buffer(biases)?,
            ranges: gpu.buffer(WARPS * plan.blocks + 1)?,
            blocks: 0,
            training: None,
        };
        let from = parameters.read(arena.len);
        let (mut to, mut bias) = (hopper.weights.write(weights), hopper.biases.write(biases));
        for (operand, layer) in operands.iter().zip(&arena.edge).filter(|(it, _)| it.parts > 0) {
            // SAFETY: the buffers have room for all layers one after the other.
            unsafe {
                operand.make(gpu, batch, (from, layer), to, bias)?;
                (to, bias) = (to.add(operand.len()), bias.add(operand.biases()));
            }
        }
        Ok(hopper)
    }

    /// Deals the receivers of a chunk to warps: about as many edges to each.
    pub fn deal(&mut self, starts: &[u32]) -> Result<()> {
        let ranges = deal(starts, self.plan.blocks, WARPS, FEWEST);
        self.blocks = ranges.len() / WARPS;
        self.ranges.upload(&ranges)
    }

    /// Like [`Fused::sums`](super::fused::Fused::sums).
    ///
    /// # Safety
    /// The graph is the one dealt, with receivers and senders among the features' nodes.
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
