//! From the loss of a chunk back to the gradients of all parameters.

use half::bf16;

use super::*;

const LOSS: Kernel = Kernel { module: "edge", name: "edge_loss" };
const MESSAGE_GRADIENTS: Kernel = Kernel { module: "edge", name: "edge_message_gradients" };
const LAST: Kernel = Kernel { module: "edge", name: "edge_last" };
const SPREAD: [&str; 2] = ["edge_spread_f32", "edge_spread_bf16"];
const FINISH: Kernel = Kernel { module: "edge", name: "edge_finish" };
const INPUT_GRADIENT: Kernel = Kernel { module: "edge", name: "edge_input_gradient" };
const WEIGHT_GRADIENT: Kernel = Kernel { module: "edge", name: "edge_weight_gradient" };

impl Step<'_> {
    /// Starts a new gradient.
    pub(super) fn begin(&mut self) -> Result<()> {
        if let Some(training) = self.fused.as_mut().and_then(EdgeKernel::training) {
            training.begin()?;
        }
        self.backward.as_mut().map_or(Ok(()), |to| to.partials.clear())
    }

    /// Enqueues the chunk's part of the gradient.
    pub(super) fn backward(&mut self) -> Result<()> {
        let Some(mut to) = self.backward.take() else { return Ok(()) };
        let done = self.nodes_backward(&mut to).and_then(|()| self.edges_backward(&mut to));
        let done = done.and_then(|()| self.fused_backward(&to));
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
            // SAFETY: there is one for each receiver of the batch.
            losses: unsafe { to.losses.write(self.first + receivers).add(self.first) },
            count: receivers as u32,
            width: width as u32,
            scale: to.scale,
            unused: 0,
        };
        // SAFETY: here and below, as in `forward`.
        unsafe { gpu.launch(LOSS, Grid::cover(receivers, 64), &args)? };
        let mut d = to.d_predictions.read(receivers * width);
        for (index, at) in self.padded.node.iter().enumerate().rev() {
            let inputs = match index {
                0 => &self.node_inputs,
                _ => &self.node_hidden[index - 1],
            };
            let inputs = inputs.read(receivers * at.inputs);
            // SAFETY: as in `forward`.
            unsafe { self.receivers_weights(to, at, d, inputs)? };
            let relu = if index == 0 { Pointer::NULL } else { inputs };
            let d_inputs = to.d_node[index].write(receivers * at.inputs);
            // SAFETY: as in `forward`.
            unsafe { self.receivers_input_gradient(at, d, relu, d_inputs)? };
            d = to.d_node[index].read(receivers * at.inputs);
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
        let (top, mut d) = if self.by_message {
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
            // SAFETY: as in `forward`.
            unsafe { gpu.launch(MESSAGE_GRADIENTS, stars, &args)? };
            if self.fused.is_some() {
                return Ok(());
            }
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
            let units = Grid { shared: BLOCK_SUM, ..Grid::new(last.outputs, THREADS) };
            // SAFETY: as in `forward`.
            unsafe { gpu.launch(LAST, units, &args)? };
            let d_sums = to.d_sums.read(receivers * last.outputs);
            let sums = self.hidden_sums.read(receivers * last.inputs);
            // Its gradient of the bias is not used: each sum contains several biases.
            let end = self.padded.len;
            let beside = Layer { bias: end..end + last.outputs, ..last.clone() };
            // SAFETY: as in `forward`.
            unsafe { self.receivers_weights(to, &beside, d_sums, sums)? };
            let passed = to.passed.write(receivers * last.inputs);
            // SAFETY: as in `forward`.
            unsafe { self.receivers_input_gradient(last, d_sums, Pointer::NULL, passed)? };
            if self.fused.is_some() {
                return Ok(());
            }
            let (d_hidden, rounded) = to.d_hidden[layers - 1].write();
            let args = EdgeSpreadArgs {
                passed: to.passed.read(receivers * last.inputs),
                starts,
                hidden: self.hidden[layers - 1].read(),
                d_hidden,
                rounded,
                width: last.inputs as u64,
            };
            // SAFETY: as in `forward`.
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
                // SAFETY: as in `forward`.
                unsafe { input_gradient(gpu, batch.precision, 1, &args)? };
            }
            d = to.d_hidden[index - 1].read();
        }
        let inputs = self.inputs.read(edges * shape.edge_inputs()).cast();
        self.weights(Precision::F32, to, &self.padded.edge[0], edges, d, inputs)
    }

    /// From what φe's last layer passes back through its hidden layers, if they are fused.
    fn fused_backward(&mut self, to: &Backward) -> Result<()> {
        let graph = self.graph();
        let Some(fused) = self.fused.as_mut().filter(|_| graph.edges > 0) else { return Ok(()) };
        let from = match self.by_message {
            true => (Pointer::NULL, to.d_outputs.read().cast()),
            false => (to.passed.read(self.receivers * self.padded.hidden()), Pointer::NULL),
        };
        // SAFETY: the chunk has just gone forward.
        unsafe { fused.backward(self.gpu, self.batch, graph, from) }
    }

    /// Adds the gradient of a layer's parameters.
    pub(super) fn weights(
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
            in_width: at.inputs as u32,
            out_width: at.outputs as u32,
            rows_per_split: rows.div_ceil(to.splits) as u32,
        };
        // SAFETY: as in `forward`; the partial sums have room for every split.
        unsafe { weight_gradient(self.gpu, precision, to.splits, &args) }
    }

    /// The gradient of a layer's inputs, with no output pointer set.
    pub(super) fn passing(
        &self,
        at: &Layer,
        rows: usize,
        d_outputs: Pointer<u8>,
    ) -> InputGradientArgs {
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

    /// Enqueues the sum of all chunks, `[arena.len]`. Gaps between the tensors are left as they are.
    pub(super) fn finish(&mut self, gradients: &mut Buffer<f32>) -> Result<()> {
        let Some(mut from) = self.backward.take() else { return Ok(()) };
        let finished = self.finish_into(&mut from, gradients);
        self.backward = Some(from);
        finished
    }

    fn finish_into(&mut self, from: &mut Backward, gradients: &mut Buffer<f32>) -> Result<()> {
        if let Some(training) = self.fused.as_mut().and_then(EdgeKernel::training) {
            let first = from.partials.write(from.stride);
            // SAFETY: the first of the partial sums has the whole arena.
            unsafe { training.collect(self.gpu, self.batch, &self.padded.edge, first)? };
        }
        let to: Pointer<f32> = gradients.write(self.arena.len);
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
        Ok(())
    }
}
