//! The buffers of a step, and the list of weight gradients that it computes.

use std::ops::Range;

use super::Problem;
use super::kernels::{EDGE_FEATURES, NO_BIAS, NODE_FEATURES, RECEIVED, ROWS};
use crate::device::Gpu;
use crate::device::args::{WeightTask, WeightTile};
use crate::device::cuda::{Buffer, Grid, Pointer};
use crate::error::Result;
use crate::model::{Arena, Layer, Precision};
use crate::ops::mlp::gpu::{Operands, TILE, splits, tiles};
use crate::ops::tiny::{Loss, Penalty};

/// Hidden layers of one of the two networks, `[runs, rows, hidden]` each, and their gradients before the ReLU.
pub(super) struct Hidden {
    pub values: Vec<Operands>,
    pub gradients: Vec<Operands>,
}

/// The buffers of a step, and its launches.
pub(crate) struct Step {
    pub(super) gpu: Gpu,
    pub(super) problem: Problem,
    pub(super) arena: Arena,
    /// `[runs, arena.len]`.
    pub(super) parameters: Buffer<f32>,
    pub(super) gradients: Buffer<f32>,
    /// The batch, `[runs, graphs, bodies, …]`.
    pub(super) features: Buffer<f32>,
    pub(super) targets: Buffer<f32>,
    /// `[runs]`.
    pub(super) noise_seeds: Buffer<u64>,
    /// The number of the step.
    pub(super) counter: Buffer<u64>,
    pub(super) edge: Hidden,
    pub(super) node: Hidden,
    /// φe's outputs, and the random part of sampled messages.
    pub(super) messages: Buffer<f32>,
    pub(super) deviations: Option<Buffer<f32>>,
    pub(super) message_gradients: Operands,
    pub(super) output_gradients: Operands,
    pub(super) tasks: Buffer<WeightTask>,
    pub(super) weight_tiles: Buffer<WeightTile>,
    /// `[runs, splits, arena.len]`; gaps of the arena are zero.
    pub(super) partials: Buffer<f32>,
    pub(super) splits: usize,
    /// Sums of each block, `[runs, …]`.
    pub(super) losses: Buffer<f64>,
    pub(super) penalties: Buffer<f64>,
    pub(super) squares: Buffer<f64>,
    /// `[ring, runs, 3]`.
    pub(super) totals: Buffer<f32>,
    pub(super) ring: usize,
}

impl Step {
    /// Room for a step, and for the losses of `ring` steps.
    pub fn new(gpu: Gpu, problem: Problem, ring: usize) -> Result<Self> {
        let Problem { shape, precision, runs, .. } = problem;
        let (nodes, edges) = (problem.nodes(), problem.edges());
        let sent = problem.messages();
        let arena = shape.arena();
        let operands =
            |rows: usize, width: usize| Operands::new(gpu, precision, runs * rows * width);
        let layers = |rows| (0..shape.layers).map(move |_| operands(rows, shape.hidden));
        let mut edge = Hidden {
            values: layers(edges).collect::<Result<_>>()?,
            gradients: layers(edges).skip(1).collect::<Result<_>>()?,
        };
        // The first layer's gradient is multiplied with features, in f32.
        let first = Operands::new(gpu, Precision::F32, runs * edges * shape.hidden)?;
        edge.gradients.insert(0, first);
        let node = Hidden {
            values: layers(nodes).collect::<Result<_>>()?,
            gradients: layers(nodes).collect::<Result<_>>()?,
        };
        let message_gradients = operands(sent.rows, shape.edge_outputs())?;
        let output_gradients = operands(nodes, shape.outputs)?;
        let gradients = [&message_gradients, &output_gradients].map(Operands::read);
        let tasks = tasks(&problem, &arena, [&edge, &node], gradients);
        let weight_tiles = weight_tiles(&tasks);
        let splits = splits(edges);
        let blocks = |grid: Grid| (grid.blocks[0] * grid.blocks[1]) as usize;
        let sampled = runs * edges * shape.message_dim;
        Ok(Step {
            gpu,
            problem,
            parameters: gpu.buffer(runs * arena.len)?,
            gradients: gpu.buffer(runs * arena.len)?,
            features: gpu.buffer(runs * nodes * shape.n_features)?,
            targets: gpu.buffer(runs * nodes * shape.outputs)?,
            noise_seeds: gpu.buffer(runs)?,
            counter: gpu.buffer(1)?,
            edge,
            node,
            messages: gpu.buffer(runs * sent.rows * shape.edge_outputs())?,
            deviations: shape.sampled.then(|| gpu.buffer(sampled)).transpose()?,
            message_gradients,
            output_gradients,
            tasks: gpu.upload(&tasks)?,
            squares: gpu.buffer(runs * weight_tiles.len())?,
            weight_tiles: gpu.upload(&weight_tiles)?,
            partials: gpu.zeros(runs * splits * arena.len)?,
            splits,
            losses: gpu.buffer(runs * blocks(tiles(nodes, shape.outputs, 1)))?,
            penalties: gpu.buffer(match problem.penalty {
                Penalty::None => 0,
                _ => runs * blocks(tiles(edges, shape.edge_outputs(), 1)),
            })?,
            totals: gpu.buffer(ring * runs * 3)?,
            ring,
            arena,
        })
    }

    /// Waits for the work; returns the losses of these steps, which must be among the last `ring`: `[steps, runs]`.
    pub fn losses(&self, steps: Range<u64>) -> Result<Vec<Loss>> {
        let totals = self.totals.to_vec()?;
        let entries = totals.chunks_exact(3 * self.problem.runs);
        let entries: Vec<&[f32]> = entries.collect();
        let of_step = |step: u64| entries[(step % self.ring as u64) as usize].chunks_exact(3);
        let loss = |part: &[f32]| Loss { prediction: part[0], penalty: part[1], decay: part[2] };
        Ok(steps.flat_map(of_step).map(loss).collect())
    }
}

/// The weight matrices, those of φe first. `gradients` are those of messages and of outputs.
fn tasks(
    problem: &Problem,
    arena: &Arena,
    [edge, node]: [&Hidden; 2],
    [d_messages, d_outputs]: [Pointer<u8>; 2],
) -> Vec<WeightTask> {
    let Problem { shape, .. } = *problem;
    let (nodes, edges, sent) = (problem.nodes(), problem.edges(), problem.messages());
    let task = |at: &Layer, d_outputs: Pointer<u8>, rows: usize| WeightTask {
        d_outputs,
        inputs: Pointer::NULL,
        weight: at.weight.start as u64,
        bias: at.bias.start as u64,
        source: ROWS,
        rows: rows as u32,
        group: 1,
        inputs_width: at.inputs as u32,
        outputs_width: at.outputs as u32,
        weight_row: at.inputs as u32,
    };
    let d = |hidden: &Hidden, index: usize, last: Pointer<u8>| {
        hidden.gradients.get(index).map_or(last, Operands::read)
    };
    let mut tasks = Vec::new();
    for (index, at) in arena.edge.iter().enumerate() {
        let d = d(edge, index, d_messages);
        tasks.push(match index {
            0 => WeightTask { source: EDGE_FEATURES, ..task(at, d, edges) },
            _ => {
                let last = index == shape.layers;
                let (rows, group) = if last { (sent.rows, sent.group) } else { (edges, 1) };
                let inputs = edge.values[index - 1].read();
                WeightTask { inputs, group: group as u32, ..task(at, d, rows) }
            }
        });
    }
    for (index, at) in arena.node.iter().enumerate() {
        let d = d(node, index, d_outputs);
        let task = task(at, d, nodes);
        if index > 0 {
            tasks.push(WeightTask { inputs: node.values[index - 1].read(), ..task });
            continue;
        }
        let n_features = shape.n_features;
        tasks.push(WeightTask { source: NODE_FEATURES, inputs_width: n_features as u32, ..task });
        tasks.push(WeightTask {
            source: RECEIVED,
            weight: task.weight + n_features as u64,
            bias: NO_BIAS,
            inputs_width: shape.message_dim as u32,
            ..task
        });
    }
    tasks
}

fn weight_tiles(tasks: &[WeightTask]) -> Vec<WeightTile> {
    let mut tiles = Vec::new();
    for (index, task) in tasks.iter().enumerate() {
        for row in 0..task.outputs_width.div_ceil(TILE[0] as u32) {
            for column in 0..task.inputs_width.div_ceil(TILE[1] as u32) {
                tiles.push(WeightTile { task: index as u32, row, column });
            }
        }
    }
    tiles
}
