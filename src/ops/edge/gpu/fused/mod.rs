//! φe from features to sums at the receivers in one kernel, `kernels/edge_fused.cu`, in bf16: for predictions, which
//! need no activations afterwards, and for training steps, which recompute them on the way back: [`training`].

pub(super) mod training;

use half::bf16;

use crate::device::Gpu;
use crate::device::args::{EdgeFusedArgs, EdgeFusedWeightsArgs};
use crate::device::cuda::{Buffer, Grid, Kernel, Pointer, Properties};
use crate::error::Result;
use crate::model::{Layer, Precision};
use crate::ops::edge::{Batch, Penalty};
use training::Training;

const WEIGHTS: Kernel = Kernel { module: "edge_fused", name: "edge_fused_weights" };
const FUSED: Kernel = Kernel { module: "edge_fused", name: "edge_fused" };
const TRAINING: Kernel = Kernel { module: "edge_fused", name: "edge_fused_training" };
const SAMPLED: Kernel = Kernel { module: "edge_fused", name: "edge_fused_sampled" };
const LAST: Kernel = Kernel { module: "edge_fused", name: "edge_fused_last" };

/// Edges of a tile, and the depth of a chunk of weights.
const TILE: usize = 64;
const DEPTH: usize = 32;
/// Units of a warp in a hidden layer.
const UNITS: usize = 64;
/// The widest hidden layer: eight warps, whose registers fill a multiprocessor.
const WIDEST: usize = 512;
/// Fewest edges of a block, unless there are fewer in all.
const FEWEST: usize = 4 * TILE;
/// Padding of the rows of activations and weights in shared memory, in numbers: it makes their distance an odd multiple
/// of 16 bytes.
const BEYOND: usize = 8;

/// Sizes of the kernel for a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// Units of a hidden layer, padded.
    hidden: usize,
    layers: usize,
    /// Width of each of the three parts of φe's inputs.
    inputs: usize,
    /// Chunks of the first layer's weights, along its inputs.
    first_chunks: usize,
    /// Units computed of φe's last layer: in predictions with sampled messages only the means, which come first.
    outputs: usize,
    /// Passes over them; 0 if the layer acts on sums over edges.
    passes: usize,
    /// Length of a row of activations in shared memory, in numbers.
    row: usize,
    /// Bytes of shared memory of a block.
    shared: usize,
    /// Blocks that the device runs at a time.
    pub blocks: usize,
}

impl Plan {
    /// None if the chunks of [`Step`](super::step::Step) must be used: in f32, for very wide layers, and if a block of
    /// the device has too little shared memory.
    pub fn new(gpu: Gpu, batch: &Batch) -> Result<Option<Plan>> {
        let Some(mut plan) = Plan::sizes(batch) else { return Ok(None) };
        let sums = plan.hidden.max(plan.passes * plan.hidden / 4);
        plan.shared = plan.tile_bytes() + sums * size_of::<f32>();
        Ok(plan.fit(&gpu.properties()?))
    }

    /// Everything except shared memory and blocks.
    fn sizes(batch: &Batch) -> Option<Plan> {
        let shape = &batch.shape;
        if batch.precision != Precision::Bf16 || shape.hidden > WIDEST {
            return None;
        }
        let hidden = shape.hidden.next_multiple_of(UNITS);
        // With one more column, for the gradient of the bias.
        let inputs = (shape.edge_inputs() + 1).next_multiple_of(16);
        let columns = (3 * inputs).next_multiple_of(DEPTH);
        let plan = Plan {
            hidden,
            layers: shape.layers,
            inputs,
            first_chunks: columns / DEPTH,
            outputs: 0,
            passes: 0,
            row: hidden.max(columns) + BEYOND,
            shared: 0,
            blocks: 0,
        };
        Some(match batch.penalty {
            Penalty::None => plan,
            _ => plan.forming(shape.message_dim),
        })
    }

    /// With this many units of φe's last layer.
    fn forming(self, outputs: usize) -> Self {
        Plan { outputs, passes: outputs.div_ceil(self.hidden / 4), ..self }
    }

    /// Shared memory for activations, two stages of weights, and a receiver and a sender for each edge.
    fn tile_bytes(&self) -> usize {
        TILE * self.row * size_of::<bf16>() + self.stages() + 2 * TILE * size_of::<u32>()
    }

    fn stages(&self) -> usize {
        2 * self.hidden * (DEPTH + BEYOND) * size_of::<bf16>()
    }

    /// With the number of blocks for a device.
    fn fit(self, device: &Properties) -> Option<Plan> {
        let blocks = self.blocks_of(self.shared, device);
        (blocks > 0).then_some(Plan { blocks, ..self })
    }

    /// Blocks that a device runs at a time with this much shared memory each.
    fn blocks_of(&self, shared: usize, device: &Properties) -> usize {
        device.multiprocessors * (device.shared / shared).min(WIDEST / self.hidden)
    }

    /// Threads of a block.
    fn threads(&self) -> u32 {
        (self.hidden / UNITS * 32) as u32
    }
}

/// φe's weights in the kernel's layout, and the receivers of each block.
pub(super) struct Fused {
    plan: Plan,
    weights: Buffer<bf16>,
    biases: Buffer<f32>,
    ranges: Buffer<u32>,
    /// Blocks of the current chunk.
    blocks: usize,
    /// What a training step keeps.
    pub training: Option<Box<Training>>,
}

/// Deals the receivers of a chunk to up to `blocks` blocks of `parties` parties each: about as many edges to each
/// party, and no fewer than `fewest` while they last. Returns where the receivers of each begin, and where all end.
pub(super) fn deal(starts: &[u32], blocks: usize, parties: usize, fewest: usize) -> Vec<u32> {
    let receivers = starts.len() - 1;
    let edges = starts[receivers] as usize;
    let share = edges.div_ceil(blocks * parties).max(fewest);
    let count = edges.div_ceil(share).max(1).next_multiple_of(parties);
    let cut = |party| starts[..receivers].partition_point(|&s| (s as usize) < party * share);
    (0..count).map(cut).chain([receivers]).map(|receiver| receiver as u32).collect()
}

/// The place of a chunk of the graph on the device, and its number of edges.
#[derive(Clone, Copy)]
pub(super) struct Graph {
    pub features: Pointer<f32>,
    pub receivers: Pointer<u32>,
    pub starts: Pointer<u32>,
    pub senders: Pointer<u32>,
    pub edges: usize,
}

/// A layer's weights in chunks: units × summed indices.
struct Chunks {
    rows: usize,
    columns: usize,
    /// Strides between them in the layer.
    steps: [usize; 2],
    passes: usize,
    chunks: usize,
    units: usize,
    /// For the first layer: width of a part of its inputs.
    split: usize,
    scale: f32,
}

impl Chunks {
    fn len(&self) -> usize {
        self.passes * self.chunks * self.units * DEPTH
    }

    /// Enqueues the making of the chunks.
    ///
    /// # Safety
    /// The layer is inside the arena that begins at `parameters`; there is room for `len` at `weights`, and at
    /// `biases`, if not null, for a number for each unit of each pass.
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
            let args = EdgeFusedWeightsArgs {
                parameters: parameters.add(layer.weight.start),
                bias: parameters.add(layer.bias.start),
                weights,
                padded_bias,
                rows: self.rows as u32,
                columns: self.columns as u32,
                row_step: self.steps[0] as u32,
                column_step: self.steps[1] as u32,
                passes: self.passes as u32,
                chunks: self.chunks as u32,
                units: self.units as u32,
                n_features: batch.shape.n_features as u32,
                dim: if self.split > 0 { batch.coordinates.dim as u32 } else { 0 },
                split: self.split as u32,
                scale: self.scale,
                unused: 0,
            };
            gpu.launch(WEIGHTS, Grid::cover(self.len(), 256), &args)
        }
    }
}

impl Fused {
    /// Makes the weights of `parameters` `[arena.len]`.
    pub fn new(gpu: Gpu, batch: &Batch, plan: Plan, parameters: &Buffer<f32>) -> Result<Self> {
        let Plan { hidden, layers, passes, blocks, .. } = plan;
        let arena = batch.shape.arena();
        let of = |(index, layer): (usize, &Layer)| {
            let last = index == layers;
            Chunks {
                rows: if last { plan.outputs } else { layer.outputs },
                columns: layer.inputs,
                steps: [layer.inputs, 1],
                passes: if last { passes } else { 1 },
                chunks: if index == 0 { plan.first_chunks } else { hidden / DEPTH },
                units: if last { hidden / 4 } else { hidden },
                split: if index == 0 { plan.inputs } else { 0 },
                scale: 1.0,
            }
        };
        let chunks: Vec<Chunks> = arena.edge.iter().enumerate().map(of).collect();
        let weights = chunks.iter().map(Chunks::len).sum();
        let biases = chunks.iter().map(|layer| layer.passes * layer.units).sum();
        let mut fused = Fused {
            plan,
            weights: gpu.buffer(weights)?,
            biases: gpu.buffer(biases)?,
            ranges: gpu.buffer(blocks + 1)?,
            blocks: 0,
            training: None,
        };
        let from = parameters.read(arena.len);
        let (mut to, mut bias) = (fused.weights.write(weights), fused.biases.write(biases));
        for (chunks, layer) in chunks.iter().zip(&arena.edge).filter(|(c, _)| c.passes > 0) {
            // SAFETY: the buffers have room for all layers one after the other.
            unsafe {
                chunks.make(gpu, batch, (from, layer), to, bias)?;
                (to, bias) = (to.add(chunks.len()), bias.add(chunks.passes * chunks.units));
            }
        }
        Ok(fused)
    }

    /// Deals the receivers of a chunk to blocks: about as many edges to each.
    pub fn deal(&mut self, starts: &[u32]) -> Result<()> {
        let ranges = deal(starts, self.plan.blocks, 1, FEWEST);
        self.blocks = ranges.len() - 1;
        self.ranges.upload(&ranges)
    }

    /// Sums at the receivers of the chunk, `[receivers, width]`: of the last hidden layer, of which `width` units are
    /// needed, or, in predictions with a penalty, of the messages. In training steps with sampled messages φe's outputs
    /// instead, `[edges, width]`.
    ///
    /// # Safety
    /// The graph is the one dealt, with receivers and senders among the features' nodes.
    pub unsafe fn sums(
        &mut self,
        gpu: Gpu,
        batch: &Batch,
        graph: Graph,
        to: (Pointer<f32>, usize),
    ) -> Result<()> {
        let kernel = match &self.training {
            None => FUSED,
            Some(training) if training.sampled() => SAMPLED,
            Some(_) => TRAINING,
        };
        // SAFETY: as the caller promises.
        unsafe { self.launch(gpu, batch, kernel, graph, to, Pointer::NULL) }
    }

    /// For sampled messages, adds the gradient of φe's last layer, given the gradients of its outputs, `[edges,
    /// outputs]`.
    ///
    /// # Safety
    /// The graph is the one of the last forward pass.
    pub unsafe fn last(
        &mut self,
        gpu: Gpu,
        batch: &Batch,
        graph: Graph,
        d_outputs: Pointer<bf16>,
    ) -> Result<()> {
        if !self.training.as_ref().is_some_and(|training| training.sampled()) {
            return Ok(());
        }
        // SAFETY: as the caller promises.
        unsafe { self.launch(gpu, batch, LAST, graph, (Pointer::NULL, 0), d_outputs) }
    }

    /// # Safety
    /// As the kernel's caller promises.
    unsafe fn launch(
        &mut self,
        gpu: Gpu,
        batch: &Batch,
        kernel: Kernel,
        graph: Graph,
        (sums, width): (Pointer<f32>, usize),
        d_outputs: Pointer<bf16>,
    ) -> Result<()> {
        let Plan { hidden, layers, inputs, first_chunks, passes, row, shared, .. } = self.plan;
        let kept = self.training.as_mut().map(|training| training.kept(graph.edges));
        let kept = kept.unwrap_or_default();
        let args = EdgeFusedArgs {
            features: graph.features,
            receivers: graph.receivers,
            starts: graph.starts,
            senders: graph.senders,
            ranges: self.ranges.read(self.blocks + 1),
            weights: self.weights.read(self.weights.len()),
            biases: self.biases.read(self.biases.len()),
            sums,
            d_outputs,
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
            hidden: hidden as u32,
            layers: layers as u32,
            inputs: inputs as u32,
            first_chunks: first_chunks as u32,
            passes: passes as u32,
            width: width as u32,
            row: row as u32,
            sign_columns: kept.sign_columns,
        };
        let grid = Grid { shared, ..Grid::new(self.blocks, self.plan.threads()) };
        // SAFETY: as the caller promises; the plan has the sizes of the kernel's shared memory.
        unsafe { gpu.launch(kernel, grid, &args) }
    }
}
