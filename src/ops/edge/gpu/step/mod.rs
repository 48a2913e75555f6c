//! A step chunk by chunk: its buffers and padded layers, and the launches forward and backward.

mod backward;
mod forward;
pub(super) mod receivers;

use std::ops::Range;
use std::sync::Arc;

use half::bf16;

use super::fused::Graph;
use super::fused::training::Training;
use super::{EdgeKernel, EdgePath, Kept};
use crate::device::Gpu;
use crate::device::args::*;
use crate::device::cuda::{Buffer, Grid, Kernel, Pointer};
use crate::error::Result;
use crate::model::{ALIGN, Arena, Layer, Precision, Shape};
use crate::ops::edge::{Batch, Penalty};
use crate::ops::mlp::gpu::{Operands, THREADS, input_gradient, layer, splits, weight_gradient};

const OPERANDS: Kernel = Kernel { module: "edge", name: "edge_operands" };
const TOTALS: Kernel = Kernel { module: "edge_training", name: "edge_totals" };

/// Results of a block of `edge_layer` and of the two gradients in bf16, its threads, and their shared memory:
/// `kernels/common/large.cuh`.
const LARGE: usize = 128;
const LARGE_THREADS: u32 = 256;
const LARGE_SHARED: usize = 61_440;
/// Widths of activations in bf16 are multiples of this: whole rounds of such a product.
const LARGE_DEPTH: usize = 32;

/// Shared memory of a kernel that sums over a block: one f64 for each warp.
const BLOCK_SUM: usize = THREADS as usize / 32 * size_of::<f64>();

/// Buffers of a step on the device; those of edges and receivers are as long as the largest chunk.
pub(super) struct Step<'a> {
    gpu: Gpu,
    batch: &'a Batch<'a>,
    way: EdgePath,
    arena: Arena,
    /// True if messages are formed edge by edge and then summed; else φe's last layer acts on sums over edges.
    by_message: bool,
    /// Weight of the penalty of an edge; 0 before `prepare_gradient`.
    pub per_edge: f32,
    /// The current chunk: its first receiver in the batch, its receivers and edges.
    first: usize,
    receivers: usize,
    edges: usize,
    parameters: Buffer<f32>,
    /// The layers with padded widths, φe's first one for relative coordinates, and the place of each.
    padded: Padded,
    wide: Buffer<f32>,
    rounded: Buffer<bf16>,
    features: Arc<Buffer<f32>>,
    chunk: Chunk,
    inputs: Buffer<f32>,
    hidden: Vec<Operands>,
    outputs: Buffer<f32>,
    deviations: Buffer<f32>,
    penalties: Buffer<f64>,
    hidden_sums: Buffer<f32>,
    sums: Buffer<f32>,
    node_inputs: Buffer<f32>,
    node_hidden: Vec<Buffer<f32>>,
    predictions: Buffer<f32>,
    /// Replaces φe's separate layers, whose activation buffers are then empty.
    fused: Option<EdgeKernel>,
    backward: Option<Backward>,
}

/// An arena of layers whose widths suit the kernels.
struct Padded {
    edge: Vec<Layer>,
    node: Vec<Layer>,
    len: usize,
}

impl Padded {
    fn new(arena: &Arena, batch: &Batch, way: &EdgePath, by_message: bool) -> Self {
        let Shape { layers, message_dim, .. } = batch.shape;
        let width = |width: usize| match batch.precision {
            Precision::Bf16 => width.next_multiple_of(LARGE_DEPTH),
            _ => width,
        };
        let hidden = match way {
            EdgePath::Training(plan, _) => plan.hidden(),
            _ => width(batch.shape.hidden),
        };
        let mut len = 0;
        let mut take = |count: usize| {
            let range = len..len + count;
            len = range.end.next_multiple_of(ALIGN);
            range
        };
        let mut place = |inputs: usize, outputs: usize| Layer {
            inputs,
            outputs,
            weight: take(inputs * outputs),
            bias: take(outputs),
        };
        let edge = arena.edge.iter().enumerate().map(|(index, layer)| {
            let inputs = if index == 0 { layer.inputs } else { hidden };
            let outputs = match (index == layers, by_message) {
                (false, _) => hidden,
                (true, false) => message_dim,
                (true, true) => match way {
                    EdgePath::Training(plan, _) => plan.outputs(),
                    _ => width(layer.outputs),
                },
            };
            place(inputs, outputs)
        });
        let edge = edge.collect();
        let node = arena.node.iter().map(|layer| place(layer.inputs, layer.outputs)).collect();
        Padded { edge, node, len }
    }

    /// Units of a hidden layer of φe.
    fn hidden(&self) -> usize {
        self.edge[0].outputs
    }

    /// Numbers in a row of φe's outputs.
    fn outputs(&self) -> usize {
        self.edge[self.edge.len() - 1].outputs
    }
}

/// The graph of a chunk.
struct Chunk {
    receivers: Buffer<u32>,
    starts: Buffer<u32>,
    senders: Buffer<u32>,
    /// Numbers of the edges in the graph, if messages are sampled.
    edges: Buffer<u32>,
    /// The senders of the whole graph, if they are kept, and the first of each receiver.
    all: Option<Arc<Buffer<u32>>>,
    firsts: Buffer<u32>,
}

/// What only a gradient needs.
struct Backward {
    targets: Arc<Buffer<f32>>,
    scale: f32,
    /// Sums of gradients `[splits, stride]`; after the arena there is room for a sum that is not used.
    partials: Buffer<f32>,
    splits: usize,
    stride: usize,
    losses: Buffer<f64>,
    d_predictions: Buffer<f32>,
    d_node: Vec<Buffer<f32>>,
    d_sums: Buffer<f32>,
    passed: Buffer<f32>,
    d_outputs: Operands,
    d_hidden: Vec<Operands>,
}

impl<'a> Step<'a> {
    /// For these parameters `[arena.len]`; uploads the features unless they are kept. There is room for each of the
    /// chunks.
    pub fn new(
        (gpu, all): (Gpu, Option<&Kept>),
        batch: &'a Batch<'a>,
        parameters: Buffer<f32>,
        chunks: &[Range<usize>],
        way: EdgePath,
    ) -> Result<Self> {
        let shape = &batch.shape;
        let receivers = chunks.iter().map(|chunk| chunk.len()).max().unwrap_or(0);
        let count = |chunk: &Range<usize>| -> usize {
            batch.receivers[chunk.clone()].iter().map(|&r| batch.edges_of(r).len()).sum()
        };
        let edges = chunks.iter().map(count).max().unwrap_or(0);
        let plan = match way {
            EdgePath::Layers => None,
            EdgePath::Predictions(plan) | EdgePath::Training(_, plan) => Some(plan),
        };
        let keeps_outputs = way.keeps_outputs(batch);
        let by_message = match way {
            EdgePath::Predictions(_) => batch.penalty != Penalty::None,
            EdgePath::Layers | EdgePath::Training(..) => keeps_outputs,
        };
        let only = |condition: bool, len: usize| if condition { len } else { 0 };
        let arena = shape.arena();
        let padded = Padded::new(&arena, batch, &way, by_message);
        // Edges whose activations are kept, and edges whose outputs are.
        let (kept, formed) = (only(plan.is_none(), edges), only(keeps_outputs, edges));
        let hidden = |_| Operands::new(gpu, batch.precision, kept * padded.hidden());
        let senders = all.and_then(|all| all.senders.as_ref());
        let senders = senders.map(|(senders, _)| senders.clone());
        let features = match all {
            Some(all) => all.features.clone(),
            None => Arc::new(gpu.upload(batch.features)?),
        };
        let fused = plan.map(|plan| EdgeKernel::new(gpu, batch, plan, &parameters)).transpose()?;
        let mut step = Step {
            gpu,
            batch,
            way,
            by_message,
            per_edge: 0.0,
            first: 0,
            receivers: 0,
            edges: 0,
            parameters,
            wide: gpu.buffer(padded.len)?,
            rounded: gpu
                .buffer(only(batch.precision == Precision::Bf16 && plan.is_none(), padded.len))?,
            features,
            chunk: Chunk {
                receivers: gpu.buffer(receivers)?,
                starts: gpu.buffer(receivers + 1)?,
                senders: gpu.buffer(edges)?,
                edges: gpu.buffer(only(shape.sampled, edges))?,
                firsts: gpu.buffer(only(senders.is_some(), receivers))?,
                all: senders,
            },
            inputs: gpu.buffer(kept * shape.edge_inputs())?,
            hidden: (0..shape.layers).map(hidden).collect::<Result<_>>()?,
            outputs: gpu.buffer(formed * padded.outputs())?,
            deviations: gpu.buffer(only(shape.sampled, formed * shape.message_dim))?,
            penalties: gpu.zeros(batch.receivers.len())?,
            hidden_sums: gpu.buffer(only(!by_message, receivers * padded.hidden()))?,
            sums: gpu.buffer(receivers * shape.message_dim)?,
            node_inputs: gpu.buffer(receivers * arena.node[0].inputs)?,
            node_hidden: (0..shape.layers)
                .map(|_| gpu.buffer(receivers * shape.hidden))
                .collect::<Result<_>>()?,
            predictions: gpu.buffer(receivers * shape.outputs)?,
            fused,
            backward: None,
            padded,
            arena,
        };
        step.operands()?;
        Ok(step)
    }

    /// Every layer of the arena with the padded layer made from it.
    fn layers(&self) -> impl Iterator<Item = (&Layer, &Layer)> {
        let edge = self.arena.edge.iter().zip(&self.padded.edge);
        edge.chain(self.arena.node.iter().zip(&self.padded.node))
    }

    /// Dimension of the receiver's coordinates in a layer's first columns.
    fn dim(&self, layer: &Layer) -> u32 {
        let first = layer.weight.start == self.arena.edge[0].weight.start;
        if first { self.batch.coordinates.dim as u32 } else { 0 }
    }

    /// Makes the padded layers.
    fn operands(&mut self) -> Result<()> {
        let (gpu, layers) = (self.gpu, self.batch.shape.layers);
        let (wide, rounded) =
            (self.wide.write(self.wide.len()), self.rounded.write(self.rounded.len()));
        let parameters = self.parameters.read(self.arena.len);
        for (index, (layer, padded)) in self.layers().enumerate() {
            let count = padded.weight.len();
            // φe's layers after the first that work edge by edge.
            let top = if self.by_message { layers } else { layers - 1 };
            let rounds = !self.rounded.is_empty() && (1..=top).contains(&index);
            // SAFETY: the places are inside the arena and its padded twin, and in the rows of φe's
            // first layer a coordinate of the receiver is followed by one of the sender.
            unsafe {
                let args = EdgeOperandsArgs {
                    parameters: parameters.add(layer.weight.start),
                    bias: parameters.add(layer.bias.start),
                    wide: wide.add(padded.weight.start),
                    rounded: match rounds {
                        true => rounded.add(padded.weight.start),
                        false => Pointer::NULL,
                    },
                    padded_bias: wide.add(padded.bias.start),
                    out_width: layer.outputs as u32,
                    in_width: layer.inputs as u32,
                    padded_out: padded.outputs as u32,
                    padded_in: padded.inputs as u32,
                    n_features: self.batch.shape.n_features as u32,
                    dim: self.dim(layer),
                };
                gpu.launch(OPERANDS, Grid::cover(count, 256), &args)?;
            }
        }
        Ok(())
    }

    /// Makes room for the gradient on a batch of this many edges.
    pub fn prepare_gradient(
        &mut self,
        all: Option<&Kept>,
        targets: &[f32],
        edges: usize,
    ) -> Result<()> {
        let (gpu, batch, by_message) = (self.gpu, self.batch, self.by_message);
        let shape = &batch.shape;
        // For the largest chunk; edges whose activations are kept.
        let (rows, receivers) =
            (self.inputs.len() / shape.edge_inputs(), self.chunk.receivers.len());
        let only = |condition: bool, len: usize| if condition { len } else { 0 };
        let splits = splits(rows.max(receivers));
        let stride = (self.padded.len + shape.message_dim).next_multiple_of(4);
        let hidden = self.padded.hidden();
        let d_hidden = |layer| Operands::new(gpu, self.precision(layer), rows * hidden);
        let widths = self.arena.node.iter().map(|layer| layer.inputs);
        self.backward = Some(Backward {
            targets: match all {
                Some(all) => all.targets.clone(),
                None => Arc::new(gpu.upload(targets)?),
            },
            scale: 1.0 / batch.receivers.len() as f32,
            partials: gpu.buffer(splits * stride)?,
            splits,
            stride,
            losses: gpu.buffer(batch.receivers.len())?,
            d_predictions: gpu.buffer(receivers * shape.outputs)?,
            d_node: widths.map(|width| gpu.buffer(receivers * width)).collect::<Result<_>>()?,
            d_sums: gpu.buffer(only(!by_message, receivers * shape.message_dim))?,
            passed: gpu.buffer(only(!by_message, receivers * hidden))?,
            d_outputs: Operands::new(gpu, batch.precision, self.outputs.len())?,
            d_hidden: (0..shape.layers).map(d_hidden).collect::<Result<_>>()?,
        });
        self.per_edge = match batch.penalty {
            Penalty::None => 0.0,
            Penalty::L1(weight) | Penalty::Kl(weight) => weight / edges as f32,
        };
        if let (Some(fused), EdgePath::Training(plan, forward)) = (&mut self.fused, self.way) {
            let most = (self.chunk.senders.len(), forward.blocks(), self.per_edge);
            fused.prepare(Training::new(gpu, batch, plan, &self.parameters, most)?);
        }
        Ok(())
    }

    /// The one of two kernels that fits the activations, f32 or bf16.
    fn stored(&self, [f32, bf16]: [&'static str; 2]) -> Kernel {
        let name = if self.batch.precision == Precision::Bf16 { bf16 } else { f32 };
        Kernel { module: "edge", name }
    }

    /// The precision of φe's layer `index`: features may be absolute coordinates, of which bf16 would keep two digits.
    fn precision(&self, index: usize) -> Precision {
        if index == 0 { Precision::F32 } else { self.batch.precision }
    }

    /// A block for each receiver.
    fn stars(&self) -> Grid {
        Grid { shared: BLOCK_SUM, ..Grid::new(self.receivers, THREADS) }
    }

    /// The outputs of φv of the chunk.
    pub fn predictions(&self, to: &mut [f32]) -> Result<()> {
        self.predictions.download(to)
    }

    /// Enqueues the gradient of the batch in these chunks, and its `totals`: the sums of
    /// |target − prediction| and of the penalty.
    pub fn gradient(
        &mut self,
        chunks: &[Range<usize>],
        gradients: &mut Buffer<f32>,
        totals: Pointer<f64>,
    ) -> Result<()> {
        self.begin()?;
        for chunk in chunks {
            self.forward(chunk.clone())?;
            self.backward()?;
        }
        self.finish(gradients)?;
        self.totals(totals)
    }

    fn totals(&mut self, totals: Pointer<f64>) -> Result<()> {
        let Some(backward) = &self.backward else { return Ok(()) };
        let penalties = match self.fused.as_mut().and_then(EdgeKernel::training) {
            Some(training) if !training.sampled() => training.penalties(),
            _ => &self.penalties,
        };
        let (n_losses, n_penalties) = (backward.losses.len(), penalties.len());
        let args = EdgeTotalsArgs {
            losses: backward.losses.read(n_losses),
            penalties: penalties.read(n_penalties),
            totals,
            n_losses: n_losses as u32,
            n_penalties: n_penalties as u32,
        };
        let grid = Grid { shared: BLOCK_SUM, ..Grid::new(1, THREADS) };
        // SAFETY: the caller has two places for the totals.
        unsafe { self.gpu.launch(TOTALS, grid, &args) }
    }
}

/// A block for each tile of `rows` × `columns` results of each of `count` products.
fn large(rows: usize, columns: usize, count: usize) -> Grid {
    let blocks = [rows.div_ceil(LARGE), columns.div_ceil(LARGE), count];
    Grid { blocks: blocks.map(|n| n as u32), threads: LARGE_THREADS, shared: LARGE_SHARED }
}
