//! The way back through φe's second layer in a kernel for sm_90a, `kernels/edge_hopper_second.cu`: does the same as
//! `edge_fused_second`, with warpgroup products, from inputs of φe that are made once.

use super::super::fused::training::{SLICE_IN, SLICE_OUT};
use super::*;
use crate::device::args::{EdgeFusedBackwardArgs, EdgeHopperInputsArgs, EdgeHopperSecondArgs};

const INPUTS: Kernel = Kernel { module: "edge_hopper_second", name: "edge_hopper_inputs" };
const SECOND: Kernel = Kernel { module: "edge_hopper_second", name: "edge_hopper_second" };

/// Edges of a tile; warpgroups that compute a tile's hidden layers, and as many that sum over them.
const TILE: usize = 64;
const GROUPS: usize = 2;
const THREADS: u32 = 512;
/// Bytes of shared memory for barriers before the operands, whose patterns start at multiples of this.
const BARRIERS: usize = 512;

/// Sizes of the kernels for a batch.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Width of a part of φe's inputs, and blocks of all three.
    width: usize,
    first_blocks: usize,
    /// Blocks of the signs of messages; 0 without a penalty.
    words: usize,
    /// Slices of the gradient along inputs and outputs.
    slices: [usize; 2],
    /// Bytes of shared memory of a block.
    shared: usize,
}

impl Plan {
    /// For this many features and slices. None if a slice's weights and tiles do not fit into shared memory.
    pub fn new(
        device: &Properties,
        n_features: usize,
        slices: [usize; 2],
        words: usize,
    ) -> Option<Plan> {
        let width = (2 * n_features).next_multiple_of(8);
        let first_blocks = (3 * width).div_ceil(DEPTH);
        let weights = SLICE_IN * first_blocks * DEPTH + SLICE_OUT * words * DEPTH;
        let tiles = GROUPS * TILE * ((first_blocks + words) * DEPTH + SLICE_IN + SLICE_OUT);
        let shared = (weights + tiles) * size_of::<bf16>() + BARRIERS;
        let plan = Plan { width, first_blocks, words, slices, shared };
        (shared <= device.shared).then_some(plan)
    }

    /// Memory for an edge's inputs.
    pub fn edge_bytes(&self) -> usize {
        self.first_blocks * DEPTH * size_of::<bf16>()
    }

    /// Numbers in the inputs of this many edges.
    fn inputs(&self, edges: usize) -> usize {
        edges.next_multiple_of(TILE) * self.first_blocks * DEPTH
    }
}

/// Weights in the kernel's layout, of the first layer and of the last one times the weight of the penalty, transposed;
/// the first layer's bias; and room for φe's inputs.
pub struct Second {
    plan: Plan,
    first: Buffer<bf16>,
    last: Buffer<bf16>,
    bias: Buffer<f32>,
    inputs: Buffer<bf16>,
}

impl Second {
    /// Makes the weights from `parameters` `[arena.len]`, with this penalty per edge; room for chunks of this many
    /// edges.
    pub fn new(
        gpu: Gpu,
        batch: &Batch,
        plan: Plan,
        parameters: &Buffer<f32>,
        (edges, per_edge): (usize, f32),
    ) -> Result<Self> {
        let arena = batch.shape.arena();
        let [first, last] = [0, 2].map(|index| &arena.edge[index]);
        let of_first = Operand {
            rows: first.outputs,
            columns: first.inputs,
            steps: [first.inputs, 1],
            parts: plan.slices[0],
            blocks: plan.first_blocks,
            units: SLICE_IN,
            split: plan.width,
            mixed: false,
            scale: 1.0,
        };
        let of_last = Operand {
            rows: last.inputs,
            columns: last.outputs,
            steps: [1, last.inputs],
            parts: plan.slices[1],
            blocks: plan.words,
            units: SLICE_OUT,
            split: 0,
            mixed: false,
            scale: per_edge,
        };
        let mut second = Second {
            plan,
            first: gpu.buffer(of_first.len())?,
            last: gpu.buffer(of_last.len())?,
            bias: gpu.buffer(of_first.biases())?,
            inputs: gpu.buffer(plan.inputs(edges))?,
        };
        let from = parameters.read(arena.len);
        let bias = second.bias.write(of_first.biases());
        // SAFETY: the buffers have the sizes of their layers.
        unsafe {
            of_first.make(gpu, batch, (from, first), second.first.write(of_first.len()), bias)?;
            if plan.words > 0 {
                let to = second.last.write(of_last.len());
                of_last.make(gpu, batch, (from, last), to, Pointer::NULL)?;
            }
        }
        Ok(second)
    }

    /// Does what `edge_fused_second` does with these arguments, in this many splits.
    ///
    /// # Safety
    /// As for that kernel; there is room for all edges.
    pub unsafe fn launch(
        &mut self,
        gpu: Gpu,
        args: &EdgeFusedBackwardArgs,
        splits: usize,
    ) -> Result<()> {
        let Plan { width, first_blocks, words, slices, shared } = self.plan;
        let count = self.plan.inputs(args.edges as usize);
        let inputs = EdgeHopperInputsArgs {
            features: args.features,
            receivers: args.receivers,
            senders: args.senders,
            owners: args.owners,
            inputs: self.inputs.write(count),
            shift: args.shift,
            period: args.period,
            n_features: args.n_features,
            dim: args.dim,
            edges: args.edges,
            width: width as u32,
            blocks: first_blocks as u32,
            unused: 0,
        };
        let second = EdgeHopperSecondArgs {
            inputs: self.inputs.read(count),
            owners: args.owners,
            masks: args.masks,
            signs: args.signs,
            passed: args.passed,
            first_weights: self.first.read(self.first.len()),
            last_weights: self.last.read(self.last.len()),
            bias: self.bias.read(self.bias.len()),
            sums: args.sums,
            biases: args.biases,
            edges: args.edges,
            hidden: args.hidden,
            first_blocks: first_blocks as u32,
            first_steps: (3 * width).div_ceil(16) as u32,
            words: words as u32,
            tiles: args.tiles,
        };
        let blocks = [slices[0], slices[1], splits].map(|n| n as u32);
        // SAFETY: as the caller promises; the plan has the sizes of the kernel's shared memory.
        unsafe {
            gpu.launch(INPUTS, Grid::cover(count / 8, 256), &inputs)?;
            gpu.launch(SECOND, Grid { blocks, threads: THREADS, shared }, &second)
        }
    }
}
