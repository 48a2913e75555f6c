//! φe from features to sums at the receivers in one kernel, `kernels/edge_fused.cu`: for predictions in
//! bf16, which need no activations afterwards.

use half::bf16;

use super::args::{EdgeFusedArgs, EdgeFusedWeightsArgs};
use crate::device::Gpu;
use crate::device::cuda::{Buffer, Grid, Kernel, Pointer};
use crate::error::Result;
use crate::network::spec::Precision;
use crate::ops::edge::{Batch, Penalty};

const WEIGHTS: Kernel = Kernel { module: "edge_fused", name: "edge_fused_weights" };
const FUSED: Kernel = Kernel { module: "edge_fused", name: "edge_fused" };

/// Edges of a tile, and the depth of a chunk of weights.
const TILE: usize = 64;
const DEPTH: usize = 32;
/// Units of a warp in a hidden layer.
const UNITS: usize = 64;
/// The widest hidden layer: eight warps, whose registers fill a multiprocessor.
const WIDEST: usize = 512;
/// Edges of a block, unless there are fewer.
const FEWEST: usize = 4 * TILE;

/// Sizes of the kernel for a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// Units of a hidden layer, padded.
    hidden: usize,
    layers: usize,
    /// Chunks of the first layer's weights, along its inputs.
    first_chunks: usize,
    /// Passes over the units of φe's last layer; 0 where it acts on sums over edges.
    passes: usize,
    /// Numbers in a row of activations in shared memory.
    row: usize,
    /// Bytes of shared memory of a block.
    shared: usize,
    /// Blocks that the device runs at a time.
    blocks: usize,
}

impl Plan {
    /// None where the chunks of [`Step`](super::step::Step) have to do: in f32, for very wide layers, and
    /// where a block of the device has too little shared memory.
    pub fn new(gpu: Gpu, batch: &Batch) -> Result<Option<Plan>> {
        let shape = &batch.shape;
        if batch.precision != Precision::Bf16 || shape.hidden > WIDEST {
            return Ok(None);
        }
        let hidden = shape.hidden.next_multiple_of(UNITS);
        let inputs = (3 * 2 * shape.n_features).next_multiple_of(DEPTH);
        let passes = match batch.penalty {
            Penalty::None => 0,
            _ => shape.message_dim.div_ceil(hidden / 4),
        };
        // Rows are an odd number of 16 bytes apart.
        let row = hidden.max(inputs) + 8;
        let shared = TILE * row * size_of::<bf16>()
            + 2 * hidden * (DEPTH + 8) * size_of::<bf16>()
            + hidden.max(passes * hidden / 4) * size_of::<f32>()
            + 2 * TILE * size_of::<u32>();
        let device = gpu.properties()?;
        let at_a_time = (device.shared / shared).min(WIDEST / hidden);
        let (layers, first_chunks) = (shape.layers, inputs / DEPTH);
        let blocks = device.multiprocessors * at_a_time;
        let plan = Plan { hidden, layers, first_chunks, passes, row, shared, blocks };
        Ok((at_a_time > 0).then_some(plan))
    }
}

/// φe's weights as the kernel takes them, and the receivers of each block.
pub(super) struct Fused {
    plan: Plan,
    weights: Buffer<bf16>,
    biases: Buffer<f32>,
    ranges: Buffer<u32>,
    /// Blocks of the chunk at work.
    blocks: usize,
}

/// Where a chunk of the graph is on the device.
pub(super) struct Graph {
    pub features: Pointer<f32>,
    pub receivers: Pointer<u32>,
    pub starts: Pointer<u32>,
    pub senders: Pointer<u32>,
}

impl Fused {
    /// Makes the weights of `parameters` `[arena.len]`.
    pub fn new(gpu: Gpu, batch: &Batch, plan: Plan, parameters: &Buffer<f32>) -> Result<Self> {
        let Plan { hidden, layers, first_chunks, passes, blocks, .. } = plan;
        let (shape, arena) = (&batch.shape, batch.shape.arena());
        let depth = hidden / DEPTH;
        let units = |layer: usize| if layer < layers { hidden } else { hidden / 4 };
        let counts = |layer: usize| match layer {
            0 => (1, first_chunks),
            _ if layer < layers => (1, depth),
            _ => (passes, depth),
        };
        let sizes = |layer: usize| {
            let (passes, chunks) = counts(layer);
            (passes * chunks * units(layer) * DEPTH, passes * units(layer))
        };
        let (weights, biases) = (0..=layers).map(sizes).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
        let mut fused = Fused {
            plan,
            weights: gpu.buffer(weights)?,
            biases: gpu.buffer(biases)?,
            ranges: gpu.buffer(blocks + 1)?,
            blocks: 0,
        };
        let from = parameters.read(arena.len);
        let (to, padded_bias) = (fused.weights.write(weights), fused.biases.write(biases));
        let mut at = (0, 0);
        for (index, layer) in arena.edge.iter().enumerate() {
            let ((passes, chunks), size) = (counts(index), sizes(index));
            if passes == 0 {
                continue;
            }
            // Of sampled messages only the means, which come first.
            let out_width = if index < layers { layer.outputs } else { shape.message_dim };
            // SAFETY: a layer is inside the arena, what is made of it inside the buffers; in the rows of
            // the first layer a coordinate of the receiver is followed by one of the sender.
            unsafe {
                let args = EdgeFusedWeightsArgs {
                    parameters: from.add(layer.weight.start),
                    bias: from.add(layer.bias.start),
                    weights: to.add(at.0),
                    padded_bias: padded_bias.add(at.1),
                    out_width: out_width as u32,
                    in_width: layer.inputs as u32,
                    passes: passes as u32,
                    chunks: chunks as u32,
                    units: units(index) as u32,
                    n_features: shape.n_features as u32,
                    dim: if index == 0 { batch.coordinates.dim as u32 } else { 0 },
                    split: u32::from(index == 0),
                };
                gpu.launch(WEIGHTS, Grid::cover(size.0, 256), &args)?;
            }
            at = (at.0 + size.0, at.1 + size.1);
        }
        Ok(fused)
    }

    /// Deals the receivers of a chunk to blocks: about as many edges to each.
    pub fn deal(&mut self, starts: &[u32]) -> Result<()> {
        let receivers = starts.len() - 1;
        let edges = starts[receivers] as usize;
        let share = edges.div_ceil(self.plan.blocks).max(FEWEST);
        self.blocks = edges.div_ceil(share).max(1);
        let cut = |block| starts[..receivers].partition_point(|&s| (s as usize) < block * share);
        let mut ranges: Vec<u32> = (0..self.blocks).map(|block| cut(block) as u32).collect();
        ranges.push(receivers as u32);
        self.ranges.upload(&ranges)
    }

    /// Sums at the receivers of the chunk, `[receivers, width]`: of the last hidden layer, of which
    /// `width` units are wanted, or of the messages.
    ///
    /// # Safety
    /// The graph is the one that was dealt, with receivers and senders among the features' nodes.
    pub unsafe fn sums(
        &self,
        gpu: Gpu,
        batch: &Batch,
        graph: Graph,
        (sums, width): (Pointer<f32>, usize),
    ) -> Result<()> {
        let Graph { features, receivers, starts, senders } = graph;
        let Plan { hidden, layers, first_chunks, passes, row, shared, .. } = self.plan;
        let args = EdgeFusedArgs {
            features,
            receivers,
            starts,
            senders,
            ranges: self.ranges.read(self.blocks + 1),
            weights: self.weights.read(self.weights.len()),
            biases: self.biases.read(self.biases.len()),
            sums,
            shift: batch.coordinates.shift,
            period: batch.coordinates.period,
            n_features: batch.shape.n_features as u32,
            dim: batch.coordinates.dim as u32,
            hidden: hidden as u32,
            layers: layers as u32,
            first_chunks: first_chunks as u32,
            passes: passes as u32,
            width: width as u32,
            row: row as u32,
        };
        let threads = (hidden / UNITS * 32) as u32;
        // SAFETY: as the caller promises; the plan has the sizes of the kernel's shared memory.
        unsafe { gpu.launch(FUSED, Grid { shared, ..Grid::new(self.blocks, threads) }, &args) }
    }
}
