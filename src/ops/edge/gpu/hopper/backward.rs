//! The way back through φe's first layer in a kernel for sm_90a, `kernels/edge_hopper_backward.cu`: does the same as
//! `edge_fused_first`, with warpgroup products.

use super::*;

/// Edges of a tile.
pub const TILE: usize = WARPS * STRIP;
/// Warpgroups of a block that multiply, each with its own sums, and buffers of inputs.
const GROUPS: usize = 2;
const BUFFERS: usize = 2;
/// Barriers in shared memory: two for each stage, two for each buffer.
const BARRIERS: usize = (2 * STAGES + 2 * BUFFERS) * size_of::<u64>();

/// Sizes of the kernel for a batch.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Parts of a hidden layer, and units of each.
    parts: usize,
    units: usize,
    /// Width of a part of φe's inputs, with a column for the bias, and blocks of all of them.
    inputs: usize,
    first_blocks: usize,
    /// Blocks of the signs of messages; 0 without a penalty.
    words: usize,
    /// Bytes of shared memory of a block.
    shared: usize,
    /// Blocks that the device runs at a time.
    pub blocks: usize,
}

impl Plan {
    /// For hidden layers of this many units. None if a tile does not fit into shared memory.
    pub fn new(
        device: &Properties,
        hidden: usize,
        (inputs, first_blocks): (usize, usize),
        words: usize,
    ) -> Option<Plan> {
        let (parts, units) = parts(hidden)?;
        let room = (parts * units / DEPTH).max(words);
        let numbers = TILE * (room + BUFFERS * first_blocks) * DEPTH + STAGES * STAGE * DEPTH;
        let shared = numbers * size_of::<bf16>() + BARRIERS;
        let blocks = device.multiprocessors;
        let plan = Plan { parts, units, inputs, first_blocks, words, shared, blocks };
        (shared <= device.shared).then_some(plan)
    }

    /// Number of sums of the gradient.
    pub fn sums(&self) -> usize {
        GROUPS * self.blocks
    }

    pub fn kernel(&self) -> Kernel {
        let name = match self.units {
            64 => "edge_hopper_first_64",
            192 => "edge_hopper_first_192",
            _ => "edge_hopper_first_256",
        };
        Kernel { module: "edge_hopper_backward", name }
    }

    /// A grid of this many blocks.
    pub fn grid(&self, blocks: usize) -> Grid {
        Grid { shared: self.shared, ..Grid::new(blocks, THREADS) }
    }
}

/// Weights in the kernel's layout: of the first layer, of the last one times the weight of the penalty and of the
/// second one, the latter two transposed; the first layer's bias.
pub struct Weights {
    pub weights: Buffer<bf16>,
    pub bias: Buffer<f32>,
}

impl Weights {
    /// Makes them from `parameters` `[arena.len]`; the penalty per edge is `per_edge`.
    pub fn new(
        gpu: Gpu,
        batch: &Batch,
        plan: Plan,
        parameters: &Buffer<f32>,
        per_edge: f32,
    ) -> Result<Self> {
        let arena = batch.shape.arena();
        let [first, second, last] = [0, 1, 2].map(|index| &arena.edge[index]);
        let Plan { parts, units, inputs, first_blocks, words, .. } = plan;
        let transposed = |layer: &Layer, blocks: usize, scale: f32| Operand {
            rows: layer.inputs,
            columns: layer.outputs,
            steps: [1, layer.inputs],
            parts,
            blocks,
            units,
            split: 0,
            mixed: false,
            scale,
        };
        let layers = [
            (
                first,
                Operand {
                    rows: first.outputs,
                    columns: first.inputs,
                    steps: [first.inputs, 1],
                    split: inputs,
                    mixed: true,
                    ..transposed(first, first_blocks, 1.0)
                },
            ),
            (last, transposed(last, words, per_edge)),
            (second, transposed(second, parts * units / DEPTH, 1.0)),
        ];
        let len = layers.iter().map(|(_, operand)| operand.len()).sum();
        let mut all = Weights { weights: gpu.buffer(len)?, bias: gpu.buffer(parts * units)? };
        let from = parameters.read(arena.len);
        let (mut to, bias) = (all.weights.write(len), all.bias.write(parts * units));
        for (index, (layer, operand)) in layers.iter().enumerate().filter(|(_, l)| l.1.blocks > 0) {
            let bias = if index == 0 { bias } else { Pointer::NULL };
            // SAFETY: the buffers have room for all layers one after the other.
            unsafe {
                operand.make(gpu, batch, (from, layer), to, bias)?;
                to = to.add(operand.len());
            }
        }
        Ok(all)
    }
}
