//! The launches of a step: forward through φe and φv, back, weight gradients, totals.

use super::kernels::{EDGES, LOSS, MESSAGE_GRADIENTS, MESSAGES, NODES, TOTALS, WEIGHTS};
use super::step::Step;
use super::{Problem, all, all_mut};
use crate::device::args::{
    EdgeArgs, InputGradientArgs, LayerArgs, LossArgs, MessageGradientArgs, MessagesArgs, NodeArgs,
    SumArgs, TotalsArgs, WeightsArgs,
};
use crate::device::cuda::{Grid, Pointer, Recording};
use crate::error::Result;
use crate::model::Layer;
use crate::ops::mlp::gpu::{Operands, SHARED, THREADS, input_gradient, layer, sum, tiles};
use crate::ops::tiny::Penalty;

impl Step {
    /// Enqueues the loss and the gradient of the batch.
    pub fn enqueue(&mut self) -> Result<()> {
        self.edges_forward()?;
        self.nodes_forward()?;
        self.nodes_backward()?;
        self.edges_backward()?;
        self.weights()
    }

    /// Records loss, gradient and totals of the batch; runs them once before, which loads the kernels: a driver may
    /// refuse to do that while recording.
    pub(crate) fn record(&mut self) -> Result<Recording> {
        let gpu = self.gpu;
        let mut all = || {
            self.enqueue()?;
            self.enqueue_totals()
        };
        all()?;
        gpu.record(all)
    }

    /// A plain layer with a ReLU, from `inputs` to `outputs`.
    fn hidden_layer(&self, at: &Layer, rows: usize, inputs: Pointer<u8>) -> LayerArgs {
        LayerArgs {
            inputs,
            parameters: all(&self.parameters),
            outputs: Pointer::NULL,
            rounded: Pointer::NULL,
            arena: self.arena.len as u64,
            weight: at.weight.start as u64,
            bias: at.bias.start as u64,
            rows: rows as u32,
            group: 1,
            in_width: at.inputs as u32,
            out_width: at.outputs as u32,
            relu: 1,
        }
    }

    /// φe.
    fn edges_forward(&mut self) -> Result<()> {
        let Problem { shape, precision, runs, bodies, .. } = self.problem;
        let (nodes, edges) = (self.problem.nodes(), self.problem.edges());
        let (first, last) = (&self.arena.edge[0], &self.arena.edge[shape.layers]);
        let (outputs, rounded) = self.edge.values[0].write();
        let args = EdgeArgs {
            features: all(&self.features),
            parameters: all(&self.parameters),
            outputs,
            rounded,
            arena: self.arena.len as u64,
            weight: first.weight.start as u64,
            bias: first.bias.start as u64,
            nodes: nodes as u32,
            bodies: bodies as u32,
            n_features: shape.n_features as u32,
            hidden: shape.hidden as u32,
        };
        // SAFETY: here and below, the buffers belong to the step, made for its problem, and the grids cover what the
        // kernels require.
        unsafe { self.gpu.launch(EDGES, tiles(edges, shape.hidden, runs), &args)? };
        for index in 1..shape.layers {
            let inputs = self.edge.values[index - 1].read();
            let args = self.hidden_layer(&self.arena.edge[index], edges, inputs);
            let (outputs, rounded) = self.edge.values[index].write();
            // SAFETY: as above.
            unsafe { layer(self.gpu, precision, runs, &LayerArgs { outputs, rounded, ..args })? };
        }
        let hidden = self.edge.values[shape.layers - 1].read();
        if self.problem.penalty == Penalty::None {
            let args = LayerArgs {
                group: self.problem.degree() as u32,
                relu: 0,
                ..self.hidden_layer(last, nodes, hidden)
            };
            let outputs = all_mut(&mut self.messages);
            // SAFETY: as above.
            return unsafe { layer(self.gpu, precision, runs, &LayerArgs { outputs, ..args }) };
        }
        let args = MessagesArgs {
            hidden,
            parameters: all(&self.parameters),
            messages: all_mut(&mut self.messages),
            deviations: self.deviations.as_mut().map_or(Pointer::NULL, all_mut),
            penalties: all_mut(&mut self.penalties),
            seeds: all(&self.noise_seeds),
            step: all(&self.counter),
            arena: self.arena.len as u64,
            weight: last.weight.start as u64,
            bias: last.bias.start as u64,
            edges: edges as u32,
            width: shape.hidden as u32,
            message_dim: shape.message_dim as u32,
            sampled: u32::from(shape.sampled),
        };
        let grid = tiles(edges, shape.edge_outputs(), runs);
        // SAFETY: as above.
        unsafe { self.gpu.launch(MESSAGES.at(precision), grid, &args) }
    }

    /// φv and the loss.
    fn nodes_forward(&mut self) -> Result<()> {
        let Problem { shape, precision, runs, .. } = self.problem;
        let nodes = self.problem.nodes();
        let (first, last) = (&self.arena.node[0], &self.arena.node[shape.layers]);
        let (outputs, rounded) = self.node.values[0].write();
        let args = NodeArgs {
            messages: all(&self.messages),
            deviations: self.deviations.as_ref().map_or(Pointer::NULL, all),
            features: all(&self.features),
            parameters: all(&self.parameters),
            outputs,
            rounded,
            arena: self.arena.len as u64,
            weight: first.weight.start as u64,
            bias: first.bias.start as u64,
            nodes: nodes as u32,
            terms: self.problem.messages().terms as u32,
            row: shape.edge_outputs() as u32,
            message_dim: shape.message_dim as u32,
            n_features: shape.n_features as u32,
            hidden: shape.hidden as u32,
        };
        let grid = tiles(nodes, shape.hidden, runs);
        // SAFETY: as in `edges_forward`.
        unsafe { self.gpu.launch(NODES.at(precision), grid, &args)? };
        for index in 1..shape.layers {
            let inputs = self.node.values[index - 1].read();
            let args = self.hidden_layer(&self.arena.node[index], nodes, inputs);
            let (outputs, rounded) = self.node.values[index].write();
            // SAFETY: as in `edges_forward`.
            unsafe { layer(self.gpu, precision, runs, &LayerArgs { outputs, rounded, ..args })? };
        }
        let (d_outputs, rounded) = self.output_gradients.write();
        let args = LossArgs {
            hidden: self.node.values[shape.layers - 1].read(),
            parameters: all(&self.parameters),
            targets: all(&self.targets),
            d_outputs,
            rounded,
            losses: all_mut(&mut self.losses),
            arena: self.arena.len as u64,
            weight: last.weight.start as u64,
            bias: last.bias.start as u64,
            nodes: nodes as u32,
            width: shape.hidden as u32,
            outputs: shape.outputs as u32,
            scale: 1.0 / nodes as f32,
        };
        let grid = tiles(nodes, shape.outputs, runs);
        // SAFETY: as in `edges_forward`.
        unsafe { self.gpu.launch(LOSS.at(precision), grid, &args) }
    }

    /// The gradient of the hidden layer that enters `at`, where its units are on.
    fn back(
        &self,
        at: &Layer,
        rows: usize,
        d_outputs: Pointer<u8>,
        hidden: &Operands,
    ) -> InputGradientArgs {
        InputGradientArgs {
            d_outputs,
            parameters: all(&self.parameters),
            inputs: hidden.read(),
            d_inputs: Pointer::NULL,
            rounded: Pointer::NULL,
            arena: self.arena.len as u64,
            weight: at.weight.start as u64,
            rows: rows as u32,
            group: 1,
            in_width: at.inputs as u32,
            out_width: at.outputs as u32,
        }
    }

    /// Back through φv, to the messages.
    fn nodes_backward(&mut self) -> Result<()> {
        let Problem { shape, precision, runs, .. } = self.problem;
        let nodes = self.problem.nodes();
        let mut d = self.output_gradients.read();
        for index in (0..shape.layers).rev() {
            let values = &self.node.values[index];
            let args = self.back(&self.arena.node[index + 1], nodes, d, values);
            let (d_inputs, rounded) = self.node.gradients[index].write();
            let args = InputGradientArgs { d_inputs, rounded, ..args };
            // SAFETY: as in `edges_forward`.
            unsafe { input_gradient(self.gpu, precision, runs, &args)? };
            d = self.node.gradients[index].read();
        }
        let (d_messages, rounded) = self.message_gradients.write();
        let args = MessageGradientArgs {
            d_hidden: d,
            parameters: all(&self.parameters),
            messages: all(&self.messages),
            deviations: self.deviations.as_ref().map_or(Pointer::NULL, all),
            d_messages,
            rounded,
            arena: self.arena.len as u64,
            weight: self.arena.node[0].weight.start as u64,
            penalty: self.problem.penalty_per_edge().into(),
            nodes: nodes as u32,
            terms: self.problem.messages().terms as u32,
            row: shape.edge_outputs() as u32,
            message_dim: shape.message_dim as u32,
            n_features: shape.n_features as u32,
            hidden: shape.hidden as u32,
        };
        let grid = tiles(nodes, shape.message_dim, runs);
        // SAFETY: as in `edges_forward`.
        unsafe { self.gpu.launch(MESSAGE_GRADIENTS.at(precision), grid, &args) }
    }

    /// Back through φe.
    fn edges_backward(&mut self) -> Result<()> {
        let Problem { shape, precision, runs, .. } = self.problem;
        let sent = self.problem.messages();
        let mut d = self.message_gradients.read();
        for index in (0..shape.layers).rev() {
            let (rows, group) = match index + 1 == shape.layers {
                true => (sent.rows, sent.group),
                false => (self.problem.edges(), 1),
            };
            let values = &self.edge.values[index];
            let args = self.back(&self.arena.edge[index + 1], rows, d, values);
            let (d_inputs, rounded) = self.edge.gradients[index].write();
            let args = InputGradientArgs { d_inputs, rounded, group: group as u32, ..args };
            // SAFETY: as in `edges_forward`.
            unsafe { input_gradient(self.gpu, precision, runs, &args)? };
            d = self.edge.gradients[index].read();
        }
        Ok(())
    }

    /// The gradients of all parameters.
    fn weights(&mut self) -> Result<()> {
        let Problem { shape, precision, runs, bodies, weight_decay, .. } = self.problem;
        let args = WeightsArgs {
            tasks: all(&self.tasks),
            tiles: all(&self.weight_tiles),
            features: all(&self.features),
            messages: all(&self.messages),
            deviations: self.deviations.as_ref().map_or(Pointer::NULL, all),
            parameters: all(&self.parameters),
            partials: all_mut(&mut self.partials),
            squares: all_mut(&mut self.squares),
            arena: self.arena.len as u64,
            weight_decay: weight_decay.into(),
            nodes: self.problem.nodes() as u32,
            bodies: bodies as u32,
            n_features: shape.n_features as u32,
            terms: self.problem.messages().terms as u32,
            row: shape.edge_outputs() as u32,
            message_dim: shape.message_dim as u32,
        };
        let blocks = [self.weight_tiles.len() as u32, self.splits as u32, runs as u32];
        let grid = Grid { blocks, threads: THREADS, shared: SHARED };
        // SAFETY: as in `edges_forward`.
        unsafe { self.gpu.launch(WEIGHTS.at(precision), grid, &args)? };
        let args = SumArgs {
            partials: all(&self.partials),
            sums: all_mut(&mut self.gradients),
            len: self.arena.len as u64,
            count: self.splits as u64,
        };
        // SAFETY: as in `edges_forward`.
        unsafe { sum(self.gpu, runs, &args) }
    }

    /// Enqueues the sums of the losses, which complete the step.
    pub fn enqueue_totals(&mut self) -> Result<()> {
        let Problem { runs, weight_decay, .. } = self.problem;
        let args = TotalsArgs {
            losses: all(&self.losses),
            penalties: all(&self.penalties),
            squares: all(&self.squares),
            totals: all_mut(&mut self.totals),
            step: all_mut(&mut self.counter),
            loss_scale: 1.0 / self.problem.nodes() as f64,
            penalty_scale: self.problem.penalty_per_edge().into(),
            decay_scale: weight_decay.into(),
            runs: runs as u64,
            ring: self.ring as u64,
            n_losses: (self.losses.len() / runs) as u64,
            n_penalties: (self.penalties.len() / runs) as u64,
            n_squares: (self.squares.len() / runs) as u64,
        };
        // SAFETY: as in `edges_forward`; one block strides over the runs.
        unsafe { self.gpu.launch(TOTALS, Grid::new(1, 1024), &args) }
    }
}
