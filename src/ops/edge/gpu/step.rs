//! The launches of a step, chunk by chunk, and the buffers between them.

use std::ops::Range;

use super::args::*;
use crate::device::Gpu;
use crate::device::cuda::{Buffer, Grid, Kernel, Pointer};
use crate::error::Result;
use crate::network::spec::{Arena, Layer, Precision};
use crate::ops::edge::{Batch, Penalty};
use crate::ops::mlp::gpu::{
    InputGradientArgs, LayerArgs, Operands, Pair, THREADS, TILE, WeightGradientArgs,
    input_gradient, layer, splits, weight_gradient,
};

const RELATIVE: Kernel = Kernel { module: "edge", name: "edge_relative" };
const GATHER: Kernel = Kernel { module: "edge", name: "edge_gather" };
const SUM_HIDDEN: Pair = Pair("edge", ["edge_sum_hidden_f32", "edge_sum_hidden_bf16"]);
const SUM_MESSAGES: Kernel = Kernel { module: "edge", name: "edge_sum_messages" };
const NODE_INPUTS: Kernel = Kernel { module: "edge", name: "edge_node_inputs" };
const LOSS: Kernel = Kernel { module: "edge", name: "edge_loss" };
const MESSAGE_GRADIENTS: Kernel = Kernel { module: "edge", name: "edge_message_gradients" };
const LAST: Kernel = Kernel { module: "edge", name: "edge_last" };
const SPREAD: Pair = Pair("edge", ["edge_spread_f32", "edge_spread_bf16"]);
const FINISH: Kernel = Kernel { module: "edge", name: "edge_finish" };

/// Shared memory of a kernel that adds up in a block: a f64 for each warp.
const BLOCK_SUM: usize = THREADS as usize / 32 * size_of::<f64>();

/// Buffers of a step on the device; those of edges and receivers are as long as the largest chunk.
pub(super) struct Step<'a> {
    gpu: Gpu,
    batch: &'a Batch<'a>,
    arena: Arena,
    /// Messages are formed edge by edge.
    penalized: bool,
    /// Weight of the penalty of an edge; 0 before `prepare_gradient`.
    pub per_edge: f32,
    /// The chunk at work.
    receivers: usize,
    edges: usize,
    parameters: Buffer<f32>,
    /// The parameters for coordinates relative to the receiver.
    relative: Buffer<f32>,
    features: Buffer<f32>,
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
    backward: Option<Backward>,
}

/// The graph of a chunk.
struct Chunk {
    receivers: Buffer<u32>,
    starts: Buffer<u32>,
    senders: Buffer<u32>,
    /// Numbers of the edges in the graph, where messages are sampled.
    edges: Buffer<u32>,
}

/// What only a gradient needs.
struct Backward {
    targets: Buffer<f32>,
    scale: f32,
    /// Sums of gradients `[splits, stride]`; behind the arena is room for a sum that nobody needs.
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
    /// Uploads the parameters and the features; there is room for each of the chunks.
    pub fn new(
        gpu: Gpu,
        batch: &'a Batch<'a>,
        parameters: &[f32],
        chunks: &[Range<usize>],
    ) -> Result<Self> {
        let shape = &batch.shape;
        let receivers = chunks.iter().map(|chunk| chunk.len()).max().unwrap_or(0);
        let count = |chunk: &Range<usize>| -> usize {
            batch.receivers[chunk.clone()].iter().map(|&r| batch.edges_of(r).len()).sum()
        };
        let edges = chunks.iter().map(count).max().unwrap_or(0);
        let penalized = batch.penalty != Penalty::None;
        let only = |condition: bool, len: usize| if condition { len } else { 0 };
        let arena = shape.arena();
        let hidden = |_| Operands::new(gpu, batch.precision, edges * shape.hidden);
        let mut step = Step {
            gpu,
            batch,
            penalized,
            per_edge: 0.0,
            receivers: 0,
            edges: 0,
            parameters: gpu.upload(parameters)?,
            relative: gpu.buffer(parameters.len())?,
            features: gpu.upload(batch.features)?,
            chunk: Chunk {
                receivers: gpu.buffer(receivers)?,
                starts: gpu.buffer(receivers + 1)?,
                senders: gpu.buffer(edges)?,
                edges: gpu.buffer(only(shape.sampled, edges))?,
            },
            inputs: gpu.buffer(edges * 2 * shape.n_features)?,
            hidden: (0..shape.layers).map(hidden).collect::<Result<_>>()?,
            outputs: gpu.buffer(only(penalized, edges * shape.edge_outputs()))?,
            deviations: gpu.buffer(only(shape.sampled, edges * shape.message_dim))?,
            penalties: gpu.zeros(receivers)?,
            hidden_sums: gpu.buffer(only(!penalized, receivers * shape.hidden))?,
            sums: gpu.buffer(receivers * shape.message_dim)?,
            node_inputs: gpu.buffer(receivers * arena.node[0].inputs)?,
            node_hidden: (0..shape.layers)
                .map(|_| gpu.buffer(receivers * shape.hidden))
                .collect::<Result<_>>()?,
            predictions: gpu.buffer(receivers * shape.outputs)?,
            backward: None,
            arena,
        };
        let len = parameters.len();
        let args = EdgeRelativeArgs {
            parameters: step.parameters.read(len),
            relative: step.relative.write(len),
            len: len as u64,
            weight: step.arena.edge[0].weight.start as u64,
            hidden: shape.hidden as u32,
            n_features: shape.n_features as u32,
            dim: batch.coordinates.dim as u32,
            unused: 0,
        };
        // SAFETY: both buffers have `len` elements, and a coordinate of the receiver is followed by
        // one of the sender in the same row.
        unsafe { gpu.launch(RELATIVE, Grid::cover(len, 256), &args)? };
        Ok(step)
    }

    /// Makes room for the gradient on a batch of so many edges.
    pub fn prepare_gradient(&mut self, targets: &[f32], edges: usize) -> Result<()> {
        let Step { gpu, batch, penalized, .. } = self;
        let (gpu, shape) = (*gpu, &batch.shape);
        let (rows, receivers) = (self.inputs.len() / (2 * shape.n_features), self.penalties.len());
        let only = |condition: bool, len: usize| if condition { len } else { 0 };
        let splits = splits(rows);
        let stride = (self.arena.len + shape.message_dim).next_multiple_of(4);
        let precision = |layer: usize| if layer == 0 { Precision::F32 } else { batch.precision };
        let d_hidden = |layer| Operands::new(gpu, precision(layer), rows * shape.hidden);
        let widths = self.arena.node.iter().map(|layer| layer.inputs);
        self.backward = Some(Backward {
            targets: gpu.upload(targets)?,
            scale: 1.0 / batch.receivers.len() as f32,
            partials: gpu.zeros(splits * stride)?,
            splits,
            stride,
            losses: gpu.buffer(receivers)?,
            d_predictions: gpu.buffer(receivers * shape.outputs)?,
            d_node: widths.map(|width| gpu.buffer(receivers * width)).collect::<Result<_>>()?,
            d_sums: gpu.buffer(only(!*penalized, receivers * shape.message_dim))?,
            passed: gpu.buffer(only(!*penalized, receivers * shape.hidden))?,
            d_outputs: Operands::new(
                gpu,
                batch.precision,
                only(*penalized, rows * shape.edge_outputs()),
            )?,
            d_hidden: (0..shape.layers).map(d_hidden).collect::<Result<_>>()?,
        });
        self.per_edge = match batch.penalty {
            Penalty::None => 0.0,
            Penalty::L1(weight) | Penalty::Kl(weight) => weight / edges as f32,
        };
        Ok(())
    }

    /// A block for each receiver.
    fn stars(&self) -> Grid {
        Grid { shared: BLOCK_SUM, ..Grid::new(self.receivers, THREADS) }
    }

    /// Uploads a chunk and enqueues it up to the outputs of φv.
    pub fn forward(&mut self, chunk: Range<usize>) -> Result<()> {
        self.upload(&chunk)?;
        let (gpu, batch, receivers, edges) = (self.gpu, self.batch, self.receivers, self.edges);
        let (shape, coordinates) = (batch.shape, batch.coordinates);
        let (stars, layers) = (self.stars(), shape.layers);
        let [len, nodes] = [self.relative.len(), self.features.len()];
        let args = EdgeGatherArgs {
            features: self.features.read(nodes),
            receivers: self.chunk.receivers.read(receivers),
            starts: self.chunk.starts.read(receivers + 1),
            senders: self.chunk.senders.read(edges),
            inputs: self.inputs.write(edges * 2 * shape.n_features),
            shift: coordinates.shift,
            period: coordinates.period,
            n_features: shape.n_features as u32,
            dim: coordinates.dim as u32,
        };
        // SAFETY: here and below, the buffers are as long as the chunk and the shape ask for, senders
        // and receivers were checked by the entry, and blocks are receivers or stride over what there is.
        unsafe { gpu.launch(GATHER, stars, &args)? };
        let weights = self.relative.read(len);
        let mut input = self.inputs.read(edges * 2 * shape.n_features).cast();
        for (index, (at, hidden)) in self.arena.edge.iter().zip(&mut self.hidden).enumerate() {
            let precision = if index == 0 { Precision::F32 } else { batch.precision };
            let (outputs, rounded) = hidden.write();
            let args =
                LayerArgs { outputs, rounded, ..plain(at, weights, len, input, edges, true) };
            if edges > 0 {
                unsafe { layer(gpu, precision, 1, &args)? };
            }
            input = hidden.read();
        }
        let last = &self.arena.edge[layers];
        let bias = if self.penalized {
            let outputs = self.outputs.write(edges * last.outputs);
            let args = LayerArgs { outputs, ..plain(last, weights, len, input, edges, false) };
            if edges > 0 {
                unsafe { layer(gpu, batch.precision, 1, &args)? };
            }
            self.sum_messages()?;
            Pointer::NULL
        } else {
            let args = EdgeSumHiddenArgs {
                hidden: input,
                starts: self.chunk.starts.read(receivers + 1),
                sums: self.hidden_sums.write(receivers * shape.hidden),
                width: shape.hidden as u64,
            };
            unsafe { gpu.launch(SUM_HIDDEN.at(batch.precision), stars, &args)? };
            let input = self.hidden_sums.read(receivers * shape.hidden).cast();
            let outputs = self.sums.write(receivers * shape.message_dim);
            let args = LayerArgs { outputs, ..plain(last, weights, len, input, receivers, false) };
            unsafe { layer(gpu, Precision::F32, 1, &args)? };
            // SAFETY: the bias is inside the arena.
            unsafe { weights.add(last.bias.start) }
        };
        let width = self.arena.node[0].inputs;
        let args = EdgeNodeInputsArgs {
            features: self.features.read(nodes),
            receivers: self.chunk.receivers.read(receivers),
            starts: self.chunk.starts.read(receivers + 1),
            sums: self.sums.read(receivers * shape.message_dim),
            bias,
            inputs: self.node_inputs.write(receivers * width),
            shift: coordinates.shift,
            count: receivers as u32,
            n_features: shape.n_features as u32,
            message_dim: shape.message_dim as u32,
            dim: coordinates.dim as u32,
            unused: 0,
        };
        unsafe { gpu.launch(NODE_INPUTS, Grid::cover(receivers * width, 256), &args)? };
        let mut input = self.node_inputs.read(receivers * width).cast();
        for (index, at) in self.arena.node.iter().enumerate() {
            let to = self.node_hidden.get_mut(index).unwrap_or(&mut self.predictions);
            let outputs = to.write(receivers * at.outputs);
            let relu = index < layers;
            let args = LayerArgs { outputs, ..plain(at, weights, len, input, receivers, relu) };
            unsafe { layer(gpu, Precision::F32, 1, &args)? };
            input = to.read(receivers * at.outputs).cast();
        }
        Ok(())
    }

    /// The graph of a chunk.
    fn upload(&mut self, chunk: &Range<usize>) -> Result<()> {
        let (batch, buffers) = (self.batch, &mut self.chunk);
        let receivers = &batch.receivers[chunk.clone()];
        let (mut starts, mut senders, mut edges) = (vec![0], Vec::new(), Vec::new());
        for &receiver in receivers {
            let own = batch.edges_of(receiver);
            senders.extend(&batch.sender[own.clone()]);
            if batch.shape.sampled {
                edges.extend(own.map(|edge| edge as u32));
            }
            starts.push(senders.len() as u32);
        }
        (self.receivers, self.edges) = (receivers.len(), senders.len());
        buffers.receivers.upload(receivers)?;
        buffers.starts.upload(&starts)?;
        buffers.senders.upload(&senders)?;
        buffers.edges.upload(&edges)
    }

    /// Messages that were formed edge by edge: their sums, and the penalty.
    fn sum_messages(&mut self) -> Result<()> {
        let (shape, receivers, edges) = (&self.batch.shape, self.receivers, self.edges);
        // Predictions take the means of sampled messages.
        let sampled = shape.sampled && self.backward.is_some();
        let args = EdgeSumMessagesArgs {
            outputs: self.outputs.read(edges * shape.edge_outputs()),
            starts: self.chunk.starts.read(receivers + 1),
            edges: if sampled { self.chunk.edges.read(edges) } else { Pointer::NULL },
            sums: self.sums.write(receivers * shape.message_dim),
            deviations: match sampled {
                true => self.deviations.write(edges * shape.message_dim),
                false => Pointer::NULL,
            },
            penalties: self.penalties.write(receivers),
            seed: self.batch.noise_seed,
            step: self.batch.step,
            message_dim: shape.message_dim as u32,
            sampled: u32::from(shape.sampled),
        };
        // SAFETY: as in `forward`.
        unsafe { self.gpu.launch(SUM_MESSAGES, self.stars(), &args) }
    }

    /// The outputs of φv of the chunk.
    pub fn predictions(&self, to: &mut [f32]) -> Result<()> {
        self.predictions.download(to)
    }

    /// Sums of |target − prediction| and of the penalty, of each receiver of the chunk.
    pub fn losses(&self) -> Result<[Vec<f64>; 2]> {
        let [mut losses, mut penalties] = [0, 1].map(|_| vec![0.0; self.receivers]);
        if let Some(backward) = &self.backward {
            backward.losses.download(&mut losses)?;
        }
        self.penalties.download(&mut penalties)?;
        Ok([losses, penalties])
    }

    /// Enqueues the chunk's part of the gradient.
    pub fn backward(&mut self) -> Result<()> {
        let stars = self.stars();
        let Step { gpu, batch, receivers, edges, arena, relative, chunk, .. } = self;
        let Some(to) = &mut self.backward else { return Ok(()) };
        let (gpu, shape, receivers, edges) = (*gpu, &batch.shape, *receivers, *edges);
        let (layers, len) = (shape.layers, arena.len);
        let weights = relative.read(len);
        let partials = to.partials.write(to.splits * to.stride);
        let gradient = |at: &Layer, precision, rows: usize, d: Pointer<u8>, x: Pointer<u8>| {
            let args = WeightGradientArgs {
                d_outputs: d,
                inputs: x,
                partials,
                arena: to.stride as u64,
                weight: at.weight.start as u64,
                bias: at.bias.start as u64,
                rows: rows as u32,
                group: 1,
                in_width: at.inputs as u32,
                out_width: at.outputs as u32,
                rows_per_split: rows.div_ceil(to.splits).max(1) as u32,
                column_tiles: at.inputs.div_ceil(TILE[1]) as u32,
            };
            // SAFETY: as in `forward`; the partial sums have room for every split.
            unsafe { weight_gradient(gpu, precision, to.splits, &args) }
        };
        let passing = |at: &Layer, rows: usize, d: Pointer<u8>| InputGradientArgs {
            d_outputs: d,
            parameters: weights,
            inputs: Pointer::NULL,
            d_inputs: Pointer::NULL,
            rounded: Pointer::NULL,
            arena: len as u64,
            weight: at.weight.start as u64,
            rows: rows as u32,
            group: 1,
            in_width: at.inputs as u32,
            out_width: at.outputs as u32,
        };
        let args = EdgeLossArgs {
            outputs: self.predictions.read(receivers * shape.outputs),
            targets: to.targets.read(to.targets.len()),
            receivers: chunk.receivers.read(receivers),
            d_outputs: to.d_predictions.write(receivers * shape.outputs),
            losses: to.losses.write(receivers),
            count: receivers as u32,
            width: shape.outputs as u32,
            scale: to.scale,
            unused: 0,
        };
        // SAFETY: here and below, as in `forward`.
        unsafe { gpu.launch(LOSS, Grid::cover(receivers, 64), &args)? };
        let mut d = to.d_predictions.read(receivers * shape.outputs).cast();
        for (index, at) in arena.node.iter().enumerate().rev() {
            let inputs = match index {
                0 => &self.node_inputs,
                _ => &self.node_hidden[index - 1],
            };
            let inputs = inputs.read(receivers * at.inputs).cast();
            gradient(at, Precision::F32, receivers, d, inputs)?;
            let args = InputGradientArgs {
                inputs: if index == 0 { Pointer::NULL } else { inputs },
                d_inputs: to.d_node[index].write(receivers * at.inputs),
                ..passing(at, receivers, d)
            };
            unsafe { input_gradient(gpu, Precision::F32, 1, &args)? };
            d = to.d_node[index].read(receivers * at.inputs).cast();
        }

        let starts = chunk.starts.read(receivers + 1);
        let d_inputs = to.d_node[0].read(receivers * arena.node[0].inputs);
        let last = &arena.edge[layers];
        let hidden = self.hidden[layers - 1].read();
        let (n_features, message_dim) = (shape.n_features as u32, shape.message_dim as u32);
        if self.penalized {
            let (d_outputs, rounded) = to.d_outputs.write();
            let args = EdgeMessageGradientsArgs {
                d_inputs,
                starts,
                outputs: self.outputs.read(edges * last.outputs),
                deviations: self.deviations.read(self.deviations.len()),
                d_outputs,
                rounded,
                n_features,
                message_dim,
                weight: self.per_edge,
                sampled: u32::from(shape.sampled),
            };
            unsafe { gpu.launch(MESSAGE_GRADIENTS, stars, &args)? };
            d = to.d_outputs.read();
        } else {
            let d_sums = to.d_sums.write(receivers * last.outputs);
            // SAFETY: the first of the partial sums has the whole arena.
            let bias = unsafe { partials.add(last.bias.start) };
            let args = EdgeLastArgs {
                d_inputs,
                starts,
                d_sums,
                bias,
                count: receivers as u32,
                n_features,
                message_dim,
                unused: 0,
            };
            unsafe { gpu.launch(LAST, Grid::cover(last.outputs, 64), &args)? };
            let d_sums = to.d_sums.read(receivers * last.outputs).cast();
            let sums = self.hidden_sums.read(receivers * shape.hidden).cast();
            // What it gives as gradient of the bias is no use: each sum has several.
            let beside = Layer { bias: len..len + last.outputs, ..last.clone() };
            gradient(&beside, Precision::F32, receivers, d_sums, sums)?;
            let args = InputGradientArgs {
                d_inputs: to.passed.write(receivers * shape.hidden),
                ..passing(last, receivers, d_sums)
            };
            unsafe { input_gradient(gpu, Precision::F32, 1, &args)? };
            let (d_hidden, rounded) = to.d_hidden[layers - 1].write();
            let args = EdgeSpreadArgs {
                passed: to.passed.read(receivers * shape.hidden),
                starts,
                hidden,
                d_hidden,
                rounded,
                width: shape.hidden as u64,
            };
            unsafe { gpu.launch(SPREAD.at(batch.precision), stars, &args)? };
            d = to.d_hidden[layers - 1].read();
        }
        if edges == 0 {
            return Ok(());
        }
        let top = if self.penalized { layers } else { layers - 1 };
        for index in (1..=top).rev() {
            let at = &arena.edge[index];
            let x = self.hidden[index - 1].read();
            gradient(at, batch.precision, edges, d, x)?;
            let (d_inputs, rounded) = to.d_hidden[index - 1].write();
            let args = InputGradientArgs { inputs: x, d_inputs, rounded, ..passing(at, edges, d) };
            unsafe { input_gradient(gpu, batch.precision, 1, &args)? };
            d = to.d_hidden[index - 1].read();
        }
        let x = self.inputs.read(edges * 2 * shape.n_features).cast();
        gradient(&arena.edge[0], Precision::F32, edges, d, x)
    }

    /// The gradient of all chunks.
    pub fn finish(&mut self, gradients: &mut [f32]) -> Result<()> {
        let Some(from) = &self.backward else { return Ok(()) };
        let (shape, len) = (&self.batch.shape, self.arena.len);
        let mut found = self.gpu.buffer(len)?;
        let args = EdgeFinishArgs {
            partials: from.partials.read(from.splits * from.stride),
            parameters: self.parameters.read(len),
            gradients: found.write(len),
            len: len as u64,
            stride: from.stride as u64,
            count: from.splits as u64,
            weight: self.arena.edge[0].weight.start as u64,
            hidden: shape.hidden as u32,
            n_features: shape.n_features as u32,
            dim: self.batch.coordinates.dim as u32,
            decay: 2.0 * self.batch.weight_decay,
        };
        // SAFETY: as in `forward`.
        unsafe { self.gpu.launch(FINISH, Grid::cover(len, 256), &args)? };
        found.download(gradients)
    }
}

/// A layer of the arena `parameters` on some rows, without a place for its outputs.
fn plain(
    at: &Layer,
    parameters: Pointer<f32>,
    arena: usize,
    inputs: Pointer<u8>,
    rows: usize,
    relu: bool,
) -> LayerArgs {
    LayerArgs {
        inputs,
        parameters,
        outputs: Pointer::NULL,
        rounded: Pointer::NULL,
        arena: arena as u64,
        weight: at.weight.start as u64,
        bias: at.bias.start as u64,
        rows: rows as u32,
        group: 1,
        in_width: at.inputs as u32,
        out_width: at.outputs as u32,
        relu: u64::from(relu),
    }
}
