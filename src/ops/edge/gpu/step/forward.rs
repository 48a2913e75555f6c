//! From the features of a chunk to the outputs of φv.

use std::ops::Range;

use half::bf16;

use super::*;

const GATHER: Kernel = Kernel { module: "edge", name: "edge_gather" };
const SUM_HIDDEN: [&str; 2] = ["edge_sum_hidden_f32", "edge_sum_hidden_bf16"];
const SUM_MESSAGES: Kernel = Kernel { module: "edge", name: "edge_sum_messages" };
const NODE_INPUTS: Kernel = Kernel { module: "edge", name: "edge_node_inputs" };
const LAYER: Kernel = Kernel { module: "edge", name: "edge_layer" };
const SENDERS: Kernel = Kernel { module: "edge_training", name: "edge_senders" };
/// Threads for the senders of a receiver.
const SENDERS_THREADS: u32 = 64;

impl Step<'_> {
    /// Uploads a chunk and enqueues its forward pass up to the outputs of φv.
    pub fn forward(&mut self, chunk: Range<usize>) -> Result<()> {
        self.upload(&chunk)?;
        let (gpu, batch, receivers) = (self.gpu, self.batch, self.receivers);
        let (shape, coordinates) = (batch.shape, batch.coordinates);
        let (layers, nodes) = (shape.layers, self.features.len());
        match self.fused {
            Some(_) => self.fused_sums()?,
            None => self.sums()?,
        }
        let bias = if self.by_message {
            Pointer::NULL
        } else {
            let last = &self.padded.edge[layers];
            let input = self.hidden_sums.read(receivers * last.inputs);
            let outputs = self.sums.write(receivers * shape.message_dim);
            // SAFETY: here and below, the buffers have the lengths of the chunk and the shape, senders and receivers
            // were checked on entry, and blocks are receivers or stride over the data.
            // SAFETY: as above.
            unsafe { self.receivers_layer(last, input, outputs, false)? };
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
        // SAFETY: as above.
        unsafe { gpu.launch(NODE_INPUTS, Grid::cover(receivers * width, 256), &args)? };
        let mut input = self.node_inputs.read(receivers * width);
        for index in 0..=layers {
            let at = &self.padded.node[index];
            let to = self.node_hidden.get_mut(index).unwrap_or(&mut self.predictions);
            let outputs = to.write(receivers * at.outputs);
            let next = to.read(receivers * at.outputs);
            // SAFETY: as above.
            unsafe { self.receivers_layer(at, input, outputs, index < layers)? };
            input = next;
        }
        Ok(())
    }

    /// φe on the edges of the chunk, layer by layer, and the sums of its last hidden layer or of the messages.
    fn sums(&mut self) -> Result<()> {
        let (gpu, batch, receivers, edges) = (self.gpu, self.batch, self.receivers, self.edges);
        let (shape, coordinates) = (batch.shape, batch.coordinates);
        let args = EdgeGatherArgs {
            features: self.features.read(self.features.len()),
            receivers: self.chunk.receivers.read(receivers),
            starts: self.chunk.starts.read(receivers + 1),
            senders: self.chunk.senders.read(edges),
            inputs: self.inputs.write(edges * shape.edge_inputs()),
            shift: coordinates.shift,
            period: coordinates.period,
            n_features: shape.n_features as u32,
            dim: coordinates.dim as u32,
        };
        // SAFETY: as in `forward`.
        unsafe { gpu.launch(GATHER, self.stars(), &args)? };
        let mut input = self.inputs.read(edges * shape.edge_inputs()).cast();
        for index in 0..shape.layers {
            let to = self.hidden[index].write();
            self.edge_layer(index, input, to)?;
            input = self.hidden[index].read();
        }
        let last = &self.padded.edge[shape.layers];
        if self.by_message {
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

    /// The same in one kernel, except for the sums of sampled messages.
    fn fused_sums(&mut self) -> Result<()> {
        let graph = self.graph();
        let keeps_outputs = self.way.keeps_outputs(self.batch);
        let (to, rows, width) = match (keeps_outputs, self.by_message) {
            (true, _) => (&mut self.outputs, self.edges, self.padded.outputs()),
            (_, true) => (&mut self.sums, self.receivers, self.batch.shape.message_dim),
            (_, false) => (&mut self.hidden_sums, self.receivers, self.padded.hidden()),
        };
        let to = (to.write(rows * width), width);
        let Some(fused) = &mut self.fused else { return Ok(()) };
        // SAFETY: as in `forward`; the chunk was dealt when it was uploaded.
        unsafe { fused.sums(self.gpu, self.batch, graph, to)? };
        if keeps_outputs { self.sum_messages() } else { Ok(()) }
    }

    /// The current chunk.
    pub(super) fn graph(&self) -> Graph {
        Graph {
            features: self.features.read(self.features.len()),
            receivers: self.chunk.receivers.read(self.receivers),
            starts: self.chunk.starts.read(self.receivers + 1),
            senders: self.chunk.senders.read(self.edges),
            edges: self.edges,
        }
    }

    /// A layer in f32 on some rows, with no output pointer set.
    pub(super) fn plain(
        &self,
        at: &Layer,
        inputs: Pointer<u8>,
        rows: usize,
        relu: bool,
    ) -> LayerArgs {
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

    /// Uploads the graph of a chunk: if the senders are kept, only where its edges begin.
    fn upload(&mut self, chunk: &Range<usize>) -> Result<()> {
        let (batch, buffers) = (self.batch, &mut self.chunk);
        let receivers = &batch.receivers[chunk.clone()];
        let own = || receivers.iter().map(|&receiver| batch.edges_of(receiver));
        let (mut starts, mut edges) = (vec![0], 0);
        for own in own() {
            edges += own.len();
            starts.push(edges as u32);
        }
        (self.first, self.receivers, self.edges) = (chunk.start, receivers.len(), edges);
        if let Some(fused) = &mut self.fused {
            fused.deal(&starts)?;
        }
        buffers.receivers.upload(receivers)?;
        buffers.starts.upload(&starts)?;
        let sampled = batch.shape.sampled;
        let Some(all) = &buffers.all else {
            let senders: Vec<u32> = own().flat_map(|own| &batch.sender[own]).copied().collect();
            buffers.senders.upload(&senders)?;
            let numbers = own().flatten().filter(|_| sampled).map(|edge| edge as u32);
            return buffers.edges.upload(&numbers.collect::<Vec<u32>>());
        };
        let firsts: Vec<u32> = own().map(|own| own.start as u32).collect();
        buffers.firsts.upload(&firsts)?;
        let args = EdgeSendersArgs {
            all: all.read(all.len()),
            firsts: buffers.firsts.read(firsts.len()),
            starts: buffers.starts.read(starts.len()),
            senders: buffers.senders.write(edges),
            edges: if sampled { buffers.edges.write(edges) } else { Pointer::NULL },
        };
        // SAFETY: as in `forward`; edges of the batch are inside the graph.
        unsafe { self.gpu.launch(SENDERS, Grid::new(receivers.len(), SENDERS_THREADS), &args) }
    }

    /// Messages formed edge by edge: their sums, and the penalty.
    fn sum_messages(&mut self) -> Result<()> {
        let (shape, receivers, edges) = (&self.batch.shape, self.receivers, self.edges);
        // Predictions use the means of sampled messages.
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
            // SAFETY: there is one for each receiver of the batch.
            penalties: unsafe { self.penalties.write(self.first + receivers).add(self.first) },
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
}
