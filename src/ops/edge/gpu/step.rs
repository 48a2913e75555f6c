//! The launches of a step, chunk by chunk, and the buffers between them.

use std::ops::Range;

use half::bf16;

use super::args::*;
use super::fused::{Fused, Graph, Plan};
use crate::device::Gpu;
use crate::device::cuda::{Buffer, Grid, Kernel, Pointer};
use crate::error::Result;
use crate::network::spec::{ALIGN, Arena, Layer, Precision, Shape};
use crate::ops::edge::{Batch, Penalty};
use crate::ops::mlp::gpu::{
    InputGradientArgs, LayerArgs, Operands, THREADS, TILE, WeightGradientArgs, input_gradient,
    layer, splits, weight_gradient,
};

const OPERANDS: Kernel = Kernel { module: "edge", name: "edge_operands" };
const GATHER: Kernel = Kernel { module: "edge", name: "edge_gather" };
const SUM_HIDDEN: [&str; 2] = ["edge_sum_hidden_f32", "edge_sum_hidden_bf16"];
const SUM_MESSAGES: Kernel = Kernel { module: "edge", name: "edge_sum_messages" };
const NODE_INPUTS: Kernel = Kernel { module: "edge", name: "edge_node_inputs" };
const LOSS: Kernel = Kernel { module: "edge", name: "edge_loss" };
const MESSAGE_GRADIENTS: Kernel = Kernel { module: "edge", name: "edge_message_gradients" };
const LAST: Kernel = Kernel { module: "edge", name: "edge_last" };
const SPREAD: [&str; 2] = ["edge_spread_f32", "edge_spread_bf16"];
const FINISH: Kernel = Kernel { module: "edge", name: "edge_finish" };
const LAYER: Kernel = Kernel { module: "edge", name: "edge_layer" };
const INPUT_GRADIENT: Kernel = Kernel { module: "edge", name: "edge_input_gradient" };
const WEIGHT_GRADIENT: Kernel = Kernel { module: "edge", name: "edge_weight_gradient" };

/// Results of a block of the three above, its threads, and their shared memory:
/// `kernels/common/large.cuh`.
const LARGE: usize = 128;
const LARGE_THREADS: u32 = 256;
const LARGE_SHARED: usize = 61_440;
/// Widths of activations in bf16 are multiples of this: whole rounds of such a product.
const LARGE_DEPTH: usize = 32;

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
    /// The layers with padded widths, φe's first one for relative coordinates, and where each is.
    padded: Padded,
    wide: Buffer<f32>,
    rounded: Buffer<bf16>,
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
    /// In place of φe's layers one by one; then the buffers of their activations are empty.
    fused: Option<Fused>,
    backward: Option<Backward>,
}

/// An arena of layers whose widths suit the kernels.
struct Padded {
    edge: Vec<Layer>,
    node: Vec<Layer>,
    len: usize,
}

impl Padded {
    fn new(arena: &Arena, batch: &Batch) -> Self {
        let Shape { hidden, layers, message_dim, .. } = batch.shape;
        let width = |width: usize| match batch.precision {
            Precision::Bf16 => width.next_multiple_of(LARGE_DEPTH),
            _ => width,
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
            let inputs = if index == 0 { layer.inputs } else { width(hidden) };
            let outputs = match (index == layers, batch.penalty) {
                (false, _) => width(hidden),
                (true, Penalty::None) => message_dim,
                (true, _) => width(layer.outputs),
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
    /// Uploads the parameters and the features; there is room for each of the chunks. With a plan φe is
    /// fused, and there is no gradient.
    pub fn new(
        gpu: Gpu,
        batch: &'a Batch<'a>,
        parameters: &[f32],
        chunks: &[Range<usize>],
        plan: Option<Plan>,
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
        let padded = Padded::new(&arena, batch);
        // Edges whose activations are kept.
        let kept = only(plan.is_none(), edges);
        let hidden = |_| Operands::new(gpu, batch.precision, kept * padded.hidden());
        let parameters = gpu.upload(parameters)?;
        let fused = plan.map(|plan| Fused::new(gpu, batch, plan, &parameters)).transpose()?;
        let mut step = Step {
            gpu,
            batch,
            penalized,
            per_edge: 0.0,
            receivers: 0,
            edges: 0,
            parameters,
            wide: gpu.buffer(padded.len)?,
            rounded: gpu.buffer(only(batch.precision == Precision::Bf16, padded.len))?,
            features: gpu.upload(batch.features)?,
            chunk: Chunk {
                receivers: gpu.buffer(receivers)?,
                starts: gpu.buffer(receivers + 1)?,
                senders: gpu.buffer(edges)?,
                edges: gpu.buffer(only(shape.sampled, edges))?,
            },
            inputs: gpu.buffer(kept * 2 * shape.n_features)?,
            hidden: (0..shape.layers).map(hidden).collect::<Result<_>>()?,
            outputs: gpu.buffer(only(penalized, kept * padded.outputs()))?,
            deviations: gpu.buffer(only(shape.sampled, kept * shape.message_dim))?,
            penalties: gpu.zeros(receivers)?,
            hidden_sums: gpu.buffer(only(!penalized, receivers * padded.hidden()))?,
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

    /// Every layer of the arena with the layer that is made of it.
    fn layers(&self) -> impl Iterator<Item = (&Layer, &Layer)> {
        let edge = self.arena.edge.iter().zip(&self.padded.edge);
        edge.chain(self.arena.node.iter().zip(&self.padded.node))
    }

    /// Which layer's first columns are coordinates of the receiver.
    fn dim(&self, layer: &Layer) -> u32 {
        let first = layer.weight.start == self.arena.edge[0].weight.start;
        if first { self.batch.coordinates.dim as u32 } else { 0 }
    }

    /// Makes the padded layers.
    fn operands(&mut self) -> Result<()> {
        let gpu = self.gpu;
        let (wide, rounded) =
            (self.wide.write(self.wide.len()), self.rounded.write(self.rounded.len()));
        let parameters = self.parameters.read(self.arena.len);
        for (layer, padded) in self.layers() {
            let count = padded.weight.len();
            // SAFETY: the places are inside the arena and its padded twin, and in the rows of φe's
            // first layer a coordinate of the receiver is followed by one of the sender.
            unsafe {
                let args = EdgeOperandsArgs {
                    parameters: parameters.add(layer.weight.start),
                    bias: parameters.add(layer.bias.start),
                    wide: wide.add(padded.weight.start),
                    rounded: match self.rounded.is_empty() {
                        true => Pointer::NULL,
                        false => rounded.add(padded.weight.start),
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

    /// Makes room for the gradient on a batch of so many edges.
    pub fn prepare_gradient(&mut self, targets: &[f32], edges: usize) -> Result<()> {
        let (gpu, batch, penalized) = (self.gpu, self.batch, self.penalized);
        let shape = &batch.shape;
        let (rows, receivers) = (self.inputs.len() / (2 * shape.n_features), self.penalties.len());
        let only = |condition: bool, len: usize| if condition { len } else { 0 };
        let splits = splits(rows);
        let stride = (self.padded.len + shape.message_dim).next_multiple_of(4);
        let hidden = self.padded.hidden();
        let d_hidden = |layer| Operands::new(gpu, self.precision(layer), rows * hidden);
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
            d_sums: gpu.buffer(only(!penalized, receivers * shape.message_dim))?,
            passed: gpu.buffer(only(!penalized, receivers * hidden))?,
            d_outputs: Operands::new(
                gpu,
                batch.precision,
                only(penalized, rows * self.padded.outputs()),
            )?,
            d_hidden: (0..shape.layers).map(d_hidden).collect::<Result<_>>()?,
        });
        self.per_edge = match batch.penalty {
            Penalty::None => 0.0,
            Penalty::L1(weight) | Penalty::Kl(weight) => weight / edges as f32,
        };
        Ok(())
    }

    /// Of two kernels the one for activations in f32 or in bf16.
    fn stored(&self, [f32, bf16]: [&'static str; 2]) -> Kernel {
        let name = if self.batch.precision == Precision::Bf16 { bf16 } else { f32 };
        Kernel { module: "edge", name }
    }

    /// Of φe's layer `index`: features may be absolute coordinates, of which bf16 would keep two digits.
    fn precision(&self, index: usize) -> Precision {
        if index == 0 { Precision::F32 } else { self.batch.precision }
    }

    /// A block for each receiver.
    fn stars(&self) -> Grid {
        Grid { shared: BLOCK_SUM, ..Grid::new(self.receivers, THREADS) }
    }

    /// Uploads a chunk and enqueues it up to the outputs of φv.
    pub fn forward(&mut self, chunk: Range<usize>) -> Result<()> {
        self.upload(&chunk)?;
        let (gpu, batch, receivers) = (self.gpu, self.batch, self.receivers);
        let (shape, coordinates) = (batch.shape, batch.coordinates);
        let (layers, nodes) = (shape.layers, self.features.len());
        match self.fused {
            Some(_) => self.fused_sums()?,
            None => self.sums()?,
        }
        let bias = if self.penalized {
            Pointer::NULL
        } else {
            let last = &self.padded.edge[layers];
            let input = self.hidden_sums.read(receivers * last.inputs).cast();
            let outputs = self.sums.write(receivers * shape.message_dim);
            let args = LayerArgs { outputs, ..self.plain(last, input, receivers, false) };
            // SAFETY: here and below, the buffers are as long as the chunk and the shape ask for, senders
            // and receivers were checked by the entry, and blocks are receivers or stride over what there is.
            unsafe { layer(gpu, Precision::F32, 1, &args)? };
            let weights = self.wide.read(self.wide.len());
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
        for index in 0..=layers {
            let at = &self.padded.node[index];
            let to = self.node_hidden.get_mut(index).unwrap_or(&mut self.predictions);
            let outputs = to.write(receivers * at.outputs);
            let next = to.read(receivers * at.outputs).cast();
            let args = LayerArgs { outputs, ..self.plain(at, input, receivers, index < layers) };
            unsafe { layer(gpu, Precision::F32, 1, &args)? };
            input = next;
        }
        Ok(())
    }

    /// φe on the edges of the chunk, layer by layer, and the sums of its last hidden layer or of the
    /// messages.
    fn sums(&mut self) -> Result<()> {
        let (gpu, batch, receivers, edges) = (self.gpu, self.batch, self.receivers, self.edges);
        let (shape, coordinates) = (batch.shape, batch.coordinates);
        let args = EdgeGatherArgs {
            features: self.features.read(self.features.len()),
            receivers: self.chunk.receivers.read(receivers),
            starts: self.chunk.starts.read(receivers + 1),
            senders: self.chunk.senders.read(edges),
            inputs: self.inputs.write(edges * 2 * shape.n_features),
            shift: coordinates.shift,
            period: coordinates.period,
            n_features: shape.n_features as u32,
            dim: coordinates.dim as u32,
        };
        // SAFETY: as in `forward`.
        unsafe { gpu.launch(GATHER, self.stars(), &args)? };
        let mut input = self.inputs.read(edges * 2 * shape.n_features).cast();
        for index in 0..shape.layers {
            let to = self.hidden[index].write();
            self.edge_layer(index, input, to)?;
            input = self.hidden[index].read();
        }
        let last = &self.padded.edge[shape.layers];
        if self.penalized {
            let to = (self.outputs.write(edges * last.outputs), Pointer::NULL);
            self.edge_layer(shape.layers, input, to)?;
            return self.sum_messages();
        }
        let args = EdgeSumHiddenArgs {
            hidden: input,
            starts: self.chunk.starts.read(receivers + 1),
            sums: self.hidden_sums.write(receivers * last.inputs),
            width: last.inputs as u64,
        };
        // SAFETY: as in `forward`.
        unsafe { gpu.launch(self.stored(SUM_HIDDEN), self.stars(), &args) }
    }

    /// The same in one kernel.
    fn fused_sums(&mut self) -> Result<()> {
        let Some(fused) = &self.fused else { return Ok(()) };
        let graph = Graph {
            features: self.features.read(self.features.len()),
            receivers: self.chunk.receivers.read(self.receivers),
            starts: self.chunk.starts.read(self.receivers + 1),
            senders: self.chunk.senders.read(self.edges),
        };
        let (to, width) = match self.penalized {
            true => (&mut self.sums, self.batch.shape.message_dim),
            false => (&mut self.hidden_sums, self.padded.hidden()),
        };
        let sums = (to.write(self.receivers * width), width);
        // SAFETY: as in `forward`; the chunk was dealt when it was uploaded.
        unsafe { fused.sums(self.gpu, self.batch, graph, sums) }
    }

    /// A layer in f32 on some rows, without a place for its outputs.
    fn plain(&self, at: &Layer, inputs: Pointer<u8>, rows: usize, relu: bool) -> LayerArgs {
        LayerArgs {
            inputs,
            parameters: self.wide.read(self.wide.len()),
            outputs: Pointer::NULL,
            rounded: Pointer::NULL,
            arena: self.wide.len() as u64,
            weight: at.weight.start as u64,
            bias: at.bias.start as u64,
            rows: rows as u32,
            group: 1,
            in_width: at.inputs as u32,
            out_width: at.outputs as u32,
            relu: u64::from(relu),
        }
    }

    /// Layer `index` of φe on the edges of the chunk.
    fn edge_layer(
        &self,
        index: usize,
        inputs: Pointer<u8>,
        (outputs, rounded): (Pointer<f32>, Pointer<bf16>),
    ) -> Result<()> {
        let (at, edges) = (&self.padded.edge[index], self.edges);
        if edges == 0 {
            return Ok(());
        }
        if self.precision(index) != Precision::Bf16 {
            let relu = index < self.batch.shape.layers;
            let args = LayerArgs { outputs, rounded, ..self.plain(at, inputs, edges, relu) };
            // SAFETY: as in `forward`.
            return unsafe { layer(self.gpu, self.precision(index), 1, &args) };
        }
        // SAFETY: as in `forward`; a layer is inside its arena.
        unsafe {
            let args = EdgeLayerArgs {
                inputs: inputs.cast(),
                weights: self.rounded.read(self.rounded.len()).add(at.weight.start),
                bias: self.wide.read(self.wide.len()).add(at.bias.start),
                outputs,
                rounded,
                rows: edges as u32,
                in_width: at.inputs as u32,
                out_width: at.outputs as u32,
                unused: 0,
            };
            self.gpu.launch(LAYER, large(edges, at.outputs, 1), &args)
        }
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
        if let Some(fused) = &mut self.fused {
            fused.deal(&starts)?;
        }
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
            outputs: self.outputs.read(edges * self.padded.outputs()),
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
            row: self.padded.outputs() as u32,
            message_dim: shape.message_dim as u32,
            sampled: u32::from(shape.sampled),
            unused: 0,
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
        let Some(mut to) = self.backward.take() else { return Ok(()) };
        let done = self.nodes_backward(&mut to).and_then(|()| self.edges_backward(&mut to));
        self.backward = Some(to);
        done
    }

    /// The loss, and back through φv to the gradients of its inputs.
    fn nodes_backward(&self, to: &mut Backward) -> Result<()> {
        let (gpu, receivers, width) = (self.gpu, self.receivers, self.batch.shape.outputs);
        let args = EdgeLossArgs {
            outputs: self.predictions.read(receivers * width),
            targets: to.targets.read(to.targets.len()),
            receivers: self.chunk.receivers.read(receivers),
            d_outputs: to.d_predictions.write(receivers * width),
            losses: to.losses.write(receivers),
            count: receivers as u32,
            width: width as u32,
            scale: to.scale,
            unused: 0,
        };
        // SAFETY: here and below, as in `forward`.
        unsafe { gpu.launch(LOSS, Grid::cover(receivers, 64), &args)? };
        let mut d = to.d_predictions.read(receivers * width).cast();
        for (index, at) in self.padded.node.iter().enumerate().rev() {
            let inputs = match index {
                0 => &self.node_inputs,
                _ => &self.node_hidden[index - 1],
            };
            let inputs = inputs.read(receivers * at.inputs).cast();
            self.weights(Precision::F32, to, at, receivers, d, inputs)?;
            let args = InputGradientArgs {
                inputs: if index == 0 { Pointer::NULL } else { inputs },
                d_inputs: to.d_node[index].write(receivers * at.inputs),
                ..self.passing(at, receivers, d)
            };
            unsafe { input_gradient(gpu, Precision::F32, 1, &args)? };
            d = to.d_node[index].read(receivers * at.inputs).cast();
        }
        Ok(())
    }

    /// From the gradients of φv's inputs back through φe.
    fn edges_backward(&self, to: &mut Backward) -> Result<()> {
        let (gpu, batch, receivers, edges) = (self.gpu, self.batch, self.receivers, self.edges);
        let (shape, layers, stars) = (&batch.shape, batch.shape.layers, self.stars());
        let starts = self.chunk.starts.read(receivers + 1);
        let d_inputs = to.d_node[0].read(receivers * self.padded.node[0].inputs);
        let last = &self.padded.edge[layers];
        let (n_features, message_dim) = (shape.n_features as u32, shape.message_dim as u32);
        let (top, mut d) = if self.penalized {
            let (d_outputs, rounded) = to.d_outputs.write();
            let args = EdgeMessageGradientsArgs {
                d_inputs,
                starts,
                outputs: self.outputs.read(edges * last.outputs),
                deviations: self.deviations.read(self.deviations.len()),
                d_outputs,
                rounded,
                n_features,
                row: last.outputs as u32,
                message_dim,
                weight: self.per_edge,
                sampled: u32::from(shape.sampled),
                unused: 0,
            };
            unsafe { gpu.launch(MESSAGE_GRADIENTS, stars, &args)? };
            (layers, to.d_outputs.read())
        } else {
            let partials = to.partials.write(to.splits * to.stride);
            let args = EdgeLastArgs {
                d_inputs,
                starts,
                d_sums: to.d_sums.write(receivers * last.outputs),
                // SAFETY: the first of the partial sums has the whole arena.
                bias: unsafe { partials.add(last.bias.start) },
                count: receivers as u32,
                n_features,
                message_dim,
                unused: 0,
            };
            unsafe { gpu.launch(LAST, Grid::cover(last.outputs, 64), &args)? };
            let d_sums = to.d_sums.read(receivers * last.outputs).cast();
            let sums = self.hidden_sums.read(receivers * last.inputs).cast();
            // What it gives as gradient of the bias is no use: each sum has several.
            let end = self.padded.len;
            let beside = Layer { bias: end..end + last.outputs, ..last.clone() };
            self.weights(Precision::F32, to, &beside, receivers, d_sums, sums)?;
            let args = InputGradientArgs {
                d_inputs: to.passed.write(receivers * last.inputs),
                ..self.passing(last, receivers, d_sums)
            };
            unsafe { input_gradient(gpu, Precision::F32, 1, &args)? };
            let (d_hidden, rounded) = to.d_hidden[layers - 1].write();
            let args = EdgeSpreadArgs {
                passed: to.passed.read(receivers * last.inputs),
                starts,
                hidden: self.hidden[layers - 1].read(),
                d_hidden,
                rounded,
                width: last.inputs as u64,
            };
            unsafe { gpu.launch(self.stored(SPREAD), stars, &args)? };
            (layers - 1, to.d_hidden[layers - 1].read())
        };
        if edges == 0 {
            return Ok(());
        }
        for index in (1..=top).rev() {
            let at = &self.padded.edge[index];
            let inputs = self.hidden[index - 1].read();
            let (d_inputs, rounded) = to.d_hidden[index - 1].write();
            if batch.precision == Precision::Bf16 {
                self.rounded_backward(to, at, [d.cast(), inputs.cast()], (d_inputs, rounded))?;
            } else {
                self.weights(batch.precision, to, at, edges, d, inputs)?;
                let args = InputGradientArgs { inputs, d_inputs, ..self.passing(at, edges, d) };
                unsafe { input_gradient(gpu, batch.precision, 1, &args)? };
            }
            d = to.d_hidden[index - 1].read();
        }
        let inputs = self.inputs.read(edges * 2 * shape.n_features).cast();
        self.weights(Precision::F32, to, &self.padded.edge[0], edges, d, inputs)
    }

    /// Adds the gradient of a layer's parameters.
    fn weights(
        &self,
        precision: Precision,
        to: &mut Backward,
        at: &Layer,
        rows: usize,
        d_outputs: Pointer<u8>,
        inputs: Pointer<u8>,
    ) -> Result<()> {
        let args = WeightGradientArgs {
            d_outputs,
            inputs,
            partials: to.partials.write(to.splits * to.stride),
            arena: to.stride as u64,
            weight: at.weight.start as u64,
            bias: at.bias.start as u64,
            rows: rows as u32,
            group: 1,
            in_width: at.inputs as u32,
            out_width: at.outputs as u32,
            rows_per_split: rows.div_ceil(to.splits) as u32,
            column_tiles: at.inputs.div_ceil(TILE[1]) as u32,
        };
        // SAFETY: as in `forward`; the partial sums have room for every split.
        unsafe { weight_gradient(self.gpu, precision, to.splits, &args) }
    }

    /// The gradient of a layer's inputs, without a place for it.
    fn passing(&self, at: &Layer, rows: usize, d_outputs: Pointer<u8>) -> InputGradientArgs {
        InputGradientArgs {
            d_outputs,
            parameters: self.wide.read(self.wide.len()),
            inputs: Pointer::NULL,
            d_inputs: Pointer::NULL,
            rounded: Pointer::NULL,
            arena: self.wide.len() as u64,
            weight: at.weight.start as u64,
            rows: rows as u32,
            group: 1,
            in_width: at.inputs as u32,
            out_width: at.outputs as u32,
        }
    }

    /// Both gradients of a layer of φe in bf16.
    fn rounded_backward(
        &self,
        to: &mut Backward,
        at: &Layer,
        [d_outputs, inputs]: [Pointer<bf16>; 2],
        (d_inputs, rounded): (Pointer<f32>, Pointer<bf16>),
    ) -> Result<()> {
        let (gpu, rows) = (self.gpu, self.edges);
        let (in_width, out_width) = (at.inputs as u32, at.outputs as u32);
        let partials = to.partials.write(to.splits * to.stride);
        // Whole rounds, except for the last split.
        let rows_per_split = rows.div_ceil(to.splits).next_multiple_of(LARGE_DEPTH);
        // SAFETY: as in `forward`; the partial sums have room for every split, a layer is inside its
        // arena.
        unsafe {
            let args = EdgeWeightGradientArgs {
                d_outputs,
                inputs,
                partials: partials.add(at.weight.start),
                biases: partials.add(at.bias.start),
                stride: to.stride as u64,
                rows: rows as u32,
                in_width,
                out_width,
                rows_per_split: rows_per_split as u32,
            };
            gpu.launch(WEIGHT_GRADIENT, large(at.outputs, at.inputs, to.splits), &args)?;
            let args = EdgeInputGradientArgs {
                d_outputs,
                weights: self.rounded.read(self.rounded.len()).add(at.weight.start),
                inputs,
                d_inputs,
                rounded,
                rows: rows as u32,
                in_width,
                out_width,
                unused: 0,
            };
            gpu.launch(INPUT_GRADIENT, large(rows, at.inputs, 1), &args)
        }
    }

    /// The gradient of all chunks.
    pub fn finish(&mut self, gradients: &mut [f32]) -> Result<()> {
        let Some(from) = &self.backward else { return Ok(()) };
        // What lies between the tensors is zero.
        let mut found = self.gpu.zeros(self.arena.len)?;
        let to: Pointer<f32> = found.write(self.arena.len);
        let parameters = self.parameters.read(self.arena.len);
        let partials = from.partials.read(from.splits * from.stride);
        for (layer, padded) in self.layers() {
            // SAFETY: as in `operands`.
            unsafe {
                let args = EdgeFinishArgs {
                    partials: partials.add(padded.weight.start),
                    biases: partials.add(padded.bias.start),
                    parameters: parameters.add(layer.weight.start),
                    bias: parameters.add(layer.bias.start),
                    gradients: to.add(layer.weight.start),
                    d_bias: to.add(layer.bias.start),
                    stride: from.stride as u64,
                    count: from.splits as u64,
                    out_width: layer.outputs as u32,
                    in_width: layer.inputs as u32,
                    padded_in: padded.inputs as u32,
                    n_features: self.batch.shape.n_features as u32,
                    dim: self.dim(layer),
                    decay: 2.0 * self.batch.weight_decay,
                };
                self.gpu.launch(FINISH, Grid::cover(layer.weight.len(), 256), &args)?;
            }
        }
        found.download(gradients)
    }
}

/// A block for each tile of `rows` × `columns` results of each of `count` products.
fn large(rows: usize, columns: usize, count: usize) -> Grid {
    let blocks = [rows.div_ceil(LARGE), columns.div_ceil(LARGE), count];
    Grid { blocks: blocks.map(|n| n as u32), threads: LARGE_THREADS, shared: LARGE_SHARED }
}
