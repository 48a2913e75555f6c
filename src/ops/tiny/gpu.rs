//! The step on a CUDA device: `kernels/tiny.cu`, and the plain layers of `kernels/mlp.cu`.
//!
//! A step of two hidden layers is thirteen launches; with the draw of the batch, Adam and the totals, a
//! training step is seventeen, recorded once and replayed without a word from the host. Weight gradients
//! of all layers are one launch: nothing waits for them, and together they fill the device.

use bytemuck::{Pod, Zeroable};
use half::bf16;

use super::{Batch, Loss, Penalty};
use crate::device::Gpu;
use crate::device::cuda::{Buffer, Grid, Kernel, Pointer, Recording};
use crate::error::Result;
use crate::kernel_args;
use crate::network::spec::{Arena, Layer, Precision, Shape};
use crate::ops::adam;
use crate::ops::mlp::gpu::{
    InputGradientArgs, LayerArgs, Operands, Pair, SHARED, SumArgs, THREADS, TILE, input_gradient,
    layer, splits, sum, tiles,
};

/// The most steps that [`Training::advance`] takes at once: the losses of so many are kept.
pub(crate) const MOST_STEPS: usize = 512;

const GATHER: Kernel = Kernel { module: "tiny", name: "tiny_gather" };
const EDGES: Kernel = Kernel { module: "tiny", name: "tiny_edges" };
const MESSAGES: Pair = Pair("tiny", ["tiny_messages_f32", "tiny_messages_bf16"]);
const NODES: Pair = Pair("tiny", ["tiny_nodes_f32", "tiny_nodes_bf16"]);
const LOSS: Pair = Pair("tiny", ["tiny_loss_f32", "tiny_loss_bf16"]);
const MESSAGE_GRADIENTS: Pair =
    Pair("tiny", ["tiny_message_gradients_f32", "tiny_message_gradients_bf16"]);
const WEIGHTS: Pair = Pair("tiny", ["tiny_weights_f32", "tiny_weights_bf16"]);
const TOTALS: Kernel = Kernel { module: "tiny", name: "tiny_totals" };

kernel_args! {
    /// What `tiny_gather` takes.
    struct GatherArgs {
        positions: Pointer<f32>,
        velocities: Pointer<f32>,
        accelerations: Pointer<f32>,
        masses: Pointer<f32>,
        charges: Pointer<f32>,
        parts: Pointer<u32>,
        seeds: Pointer<u64>,
        step: Pointer<u64>,
        features: Pointer<f32>,
        targets: Pointer<f32>,
        translation: f64,
        part_runs: u32,
        frames: u32,
        first_frame: u32,
        drawn_frames: u32,
        stride: u32,
        graphs: u32,
        bodies: u32,
        dim: u32,
    }
}

kernel_args! {
    /// What `tiny_edges` takes.
    struct EdgeArgs {
        features: Pointer<f32>,
        parameters: Pointer<f32>,
        outputs: Pointer<f32>,
        rounded: Pointer<bf16>,
        arena: u64,
        weight: u64,
        bias: u64,
        nodes: u32,
        bodies: u32,
        n_features: u32,
        hidden: u32,
    }
}

kernel_args! {
    /// What `tiny_messages_*` takes.
    struct MessagesArgs {
        hidden: Pointer<u8>,
        parameters: Pointer<f32>,
        messages: Pointer<f32>,
        deviations: Pointer<f32>,
        penalties: Pointer<f64>,
        seeds: Pointer<u64>,
        step: Pointer<u64>,
        arena: u64,
        weight: u64,
        bias: u64,
        edges: u32,
        width: u32,
        message_dim: u32,
        sampled: u32,
    }
}

kernel_args! {
    /// What `tiny_nodes_*` takes.
    struct NodeArgs {
        messages: Pointer<f32>,
        deviations: Pointer<f32>,
        features: Pointer<f32>,
        parameters: Pointer<f32>,
        outputs: Pointer<f32>,
        rounded: Pointer<bf16>,
        arena: u64,
        weight: u64,
        bias: u64,
        nodes: u32,
        terms: u32,
        row: u32,
        message_dim: u32,
        n_features: u32,
        hidden: u32,
    }
}

kernel_args! {
    /// What `tiny_loss_*` takes.
    struct LossArgs {
        hidden: Pointer<u8>,
        parameters: Pointer<f32>,
        targets: Pointer<f32>,
        d_outputs: Pointer<f32>,
        rounded: Pointer<bf16>,
        losses: Pointer<f64>,
        arena: u64,
        weight: u64,
        bias: u64,
        nodes: u32,
        width: u32,
        outputs: u32,
        scale: f32,
    }
}

kernel_args! {
    /// What `tiny_message_gradients_*` takes.
    struct MessageGradientArgs {
        d_hidden: Pointer<u8>,
        parameters: Pointer<f32>,
        messages: Pointer<f32>,
        deviations: Pointer<f32>,
        d_messages: Pointer<f32>,
        rounded: Pointer<bf16>,
        arena: u64,
        weight: u64,
        penalty: f64,
        nodes: u32,
        terms: u32,
        row: u32,
        message_dim: u32,
        n_features: u32,
        hidden: u32,
    }
}

kernel_args! {
    /// One matrix of weights whose gradient `tiny_weights_*` computes.
    struct WeightTask {
        d_outputs: Pointer<u8>,
        inputs: Pointer<u8>,
        weight: u64,
        bias: u64,
        source: u32,
        rows: u32,
        group: u32,
        inputs_width: u32,
        outputs_width: u32,
        weight_row: u32,
    }
}

// SAFETY: addresses and integers without padding, for which any bits are a value.
unsafe impl Zeroable for WeightTask {}
// SAFETY: as above.
unsafe impl Pod for WeightTask {}

/// What the input of a [`WeightTask`] is: `Source` of the kernel.
const ROWS: u32 = 0;
const RECEIVED: u32 = 1;
const EDGE_FEATURES: u32 = 2;
const NODE_FEATURES: u32 = 3;
/// The bias of a task that has none.
const NO_BIAS: u64 = u64::MAX;

kernel_args! {
    /// One tile of a task.
    #[derive(Pod, Zeroable)]
    struct WeightTile {
        task: u32,
        row: u32,
        column: u32,
    }
}

kernel_args! {
    /// What `tiny_weights_*` takes.
    struct WeightsArgs {
        tasks: Pointer<WeightTask>,
        tiles: Pointer<WeightTile>,
        features: Pointer<f32>,
        messages: Pointer<f32>,
        deviations: Pointer<f32>,
        parameters: Pointer<f32>,
        partials: Pointer<f32>,
        squares: Pointer<f64>,
        arena: u64,
        weight_decay: f64,
        nodes: u32,
        bodies: u32,
        n_features: u32,
        terms: u32,
        row: u32,
        message_dim: u32,
    }
}

kernel_args! {
    /// What `tiny_totals` takes.
    struct TotalsArgs {
        losses: Pointer<f64>,
        penalties: Pointer<f64>,
        squares: Pointer<f64>,
        totals: Pointer<f32>,
        step: Pointer<u64>,
        loss_scale: f64,
        penalty_scale: f64,
        decay_scale: f64,
        runs: u64,
        ring: u64,
        n_losses: u64,
        n_penalties: u64,
        n_squares: u64,
    }
}

/// What the launches of a step depend on, beside addresses.
#[derive(Clone, Copy)]
pub(crate) struct Problem {
    pub shape: Shape,
    pub penalty: Penalty,
    pub weight_decay: f32,
    pub precision: Precision,
    pub runs: usize,
    pub graphs: usize,
    pub bodies: usize,
}

impl Problem {
    fn nodes(&self) -> usize {
        self.graphs * self.bodies
    }

    /// Edges that a node receives.
    fn degree(&self) -> usize {
        self.bodies - 1
    }

    fn edges(&self) -> usize {
        self.nodes() * self.degree()
    }

    /// Nodes or edges for which there are messages, rows of these that a node receives, and sums over
    /// edges that φe's last layer takes: without a penalty it acts on the sum.
    fn messages(&self) -> Messages {
        match self.penalty {
            Penalty::None => Messages { rows: self.nodes(), terms: 1, group: self.degree() },
            _ => Messages { rows: self.edges(), terms: self.degree(), group: 1 },
        }
    }

    /// The weight of the penalty on one edge.
    fn penalty_per_edge(&self) -> f32 {
        match self.penalty {
            Penalty::None => 0.0,
            Penalty::L1(weight) | Penalty::Kl(weight) => weight / self.edges() as f32,
        }
    }
}

struct Messages {
    rows: usize,
    terms: usize,
    group: usize,
}

/// Hidden layers of one of the two networks, `[runs, rows, hidden]` each, and their gradients before the
/// ReLU.
struct Hidden {
    values: Vec<Operands>,
    gradients: Vec<Operands>,
}

/// The buffers of a step, and its launches.
pub(super) struct Step {
    gpu: Gpu,
    problem: Problem,
    arena: Arena,
    /// `[runs, arena.len]`.
    pub parameters: Buffer<f32>,
    pub gradients: Buffer<f32>,
    /// The batch, `[runs, graphs, bodies, …]`.
    pub features: Buffer<f32>,
    pub targets: Buffer<f32>,
    /// `[runs]`.
    pub noise_seeds: Buffer<u64>,
    /// The number of the step.
    pub counter: Buffer<u64>,
    edge: Hidden,
    node: Hidden,
    /// What φe gives, and the random part of sampled messages.
    messages: Buffer<f32>,
    deviations: Option<Buffer<f32>>,
    message_gradients: Operands,
    output_gradients: Operands,
    tasks: Buffer<WeightTask>,
    weight_tiles: Buffer<WeightTile>,
    /// `[runs, splits, arena.len]`; gaps of the arena are zero.
    partials: Buffer<f32>,
    splits: usize,
    /// Sums of each block, `[runs, …]`.
    losses: Buffer<f64>,
    penalties: Buffer<f64>,
    squares: Buffer<f64>,
    /// `[ring, runs, 3]`.
    totals: Buffer<f32>,
    ring: usize,
}

/// The address of a whole buffer.
fn all<T: Pod>(buffer: &Buffer<T>) -> Pointer<T> {
    buffer.read(buffer.len())
}

fn all_mut<T: Pod>(buffer: &mut Buffer<T>) -> Pointer<T> {
    buffer.write(buffer.len())
}

impl Step {
    /// Room for a step, and for the losses of `ring` of them.
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
        // The first layer's is multiplied with features, in f32.
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

    /// Enqueues the loss and the gradient of the batch.
    pub fn enqueue(&mut self) -> Result<()> {
        self.edges_forward()?;
        self.nodes_forward()?;
        self.nodes_backward()?;
        self.edges_backward()?;
        self.weights()
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
        // SAFETY (of every launch of a step): the buffers are those of the step, made for its problem,
        // and the grids cover what the kernels say.
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

    /// Enqueues the sums of the losses, after which the step is over.
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

    /// Waits for the work; the losses `[runs]` of step number `step`, one of the last `ring`.
    pub fn losses(&self, steps: std::ops::Range<u64>) -> Result<Vec<Loss>> {
        let totals = self.totals.to_vec()?;
        let entries = totals.chunks_exact(3 * self.problem.runs);
        let entries: Vec<&[f32]> = entries.collect();
        let of_step = |step: u64| entries[(step % self.ring as u64) as usize].chunks_exact(3);
        let loss = |part: &[f32]| Loss { prediction: part[0], penalty: part[1], decay: part[2] };
        Ok(steps.flat_map(of_step).map(loss).collect())
    }
}

/// The matrices of weights, those of φe first. `gradients` are those of messages and of outputs.
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

pub(super) fn gradient(
    gpu: &Gpu,
    batch: &Batch,
    parameters: &[f32],
    gradients: &mut [f32],
    losses: &mut [Loss],
) -> Result<()> {
    let Batch { shape, penalty, weight_decay, precision, runs, graphs, bodies, .. } = *batch;
    let problem = Problem { shape, penalty, weight_decay, precision, runs, graphs, bodies };
    let mut step = Step::new(*gpu, problem, 1)?;
    step.parameters.upload(parameters)?;
    step.features.upload(batch.features)?;
    step.targets.upload(batch.targets)?;
    if shape.sampled {
        step.noise_seeds.upload(batch.noise_seeds)?;
    }
    step.counter.upload(&[batch.step])?;
    step.enqueue()?;
    step.enqueue_totals()?;
    losses.copy_from_slice(&step.losses(batch.step..batch.step + 1)?);
    step.gradients.download(gradients)
}

/// What a training draws its graphs from, as `network::batches` does on the processor.
pub(crate) struct Source<'a> {
    /// `[data runs, frames, bodies, dim]`.
    pub positions: &'a [f32],
    pub velocities: &'a [f32],
    pub accelerations: &'a [f32],
    /// `[data runs, bodies]`.
    pub masses: &'a [f32],
    pub charges: &'a [f32],
    /// Frames of a data run.
    pub frames: usize,
    /// The data runs that each run of the stack draws from, `[runs, …]`.
    pub parts: Vec<u32>,
    /// The frames: `drawn_frames` from `first_frame` on, `stride` apart.
    pub first_frame: usize,
    pub drawn_frames: usize,
    pub stride: usize,
    /// Standard deviation of the random translation of a graph.
    pub translation: f64,
    /// Of each run: seed of the batches, key of the noise.
    pub seeds: Vec<u64>,
    pub noise_seeds: Vec<u64>,
}

/// A [`Source`] on the device.
struct Data {
    positions: Buffer<f32>,
    velocities: Buffer<f32>,
    accelerations: Buffer<f32>,
    masses: Buffer<f32>,
    charges: Buffer<f32>,
    parts: Buffer<u32>,
    seeds: Buffer<u64>,
    noise_seeds: Vec<u64>,
    frames: u32,
    first_frame: u32,
    drawn_frames: u32,
    stride: u32,
    translation: f64,
}

/// A training that stays on the device: data, networks, moments, learning rates, and the number of the
/// step, which its last kernel advances.
pub(crate) struct Training {
    // First, so that it goes before the buffers that it was recorded with.
    recording: Option<Recording>,
    gpu: Gpu,
    data: Data,
    /// One entry for each step of the whole training.
    rates: Buffer<adam::Rates>,
    step: Step,
    /// Moments, `[runs, arena.len]`.
    m: Buffer<f32>,
    v: Buffer<f32>,
    /// What Adam scales each run's gradient by.
    scales: Buffer<f32>,
    done: u64,
}

impl Training {
    /// Moves a training to the device when `done` steps are done. `rates` are those of all its steps,
    /// `arenas` parameters and both moments, `[runs, arena.len]` each.
    ///
    /// # Errors
    /// Too little memory.
    pub fn new(
        gpu: Gpu,
        problem: Problem,
        source: &Source,
        rates: &[adam::Args],
        arenas: [&[f32]; 3],
        done: u64,
    ) -> Result<Self> {
        let data = Data {
            positions: gpu.upload(source.positions)?,
            velocities: gpu.upload(source.velocities)?,
            accelerations: gpu.upload(source.accelerations)?,
            masses: gpu.upload(source.masses)?,
            charges: gpu.upload(source.charges)?,
            parts: gpu.upload(&source.parts)?,
            seeds: gpu.upload(&source.seeds)?,
            noise_seeds: source.noise_seeds.clone(),
            frames: source.frames as u32,
            first_frame: source.first_frame as u32,
            drawn_frames: source.drawn_frames as u32,
            stride: source.stride as u32,
            translation: source.translation,
        };
        let rates: Vec<adam::Rates> = rates.iter().map(adam::Rates::new).collect();
        let len = arenas[0].len();
        let mut training = Training {
            recording: None,
            gpu,
            data,
            rates: gpu.upload(&rates)?,
            step: Step::new(gpu, problem, MOST_STEPS)?,
            m: gpu.buffer(len)?,
            v: gpu.buffer(len)?,
            scales: gpu.buffer(problem.runs)?,
            done,
        };
        training.upload(arenas)?;
        Ok(training)
    }

    /// Goes on with networks of another shape.
    ///
    /// # Errors
    /// As [`Training::new`].
    pub fn reshape(&mut self, shape: Shape, arenas: [&[f32]; 3]) -> Result<()> {
        self.recording = None;
        let len = arenas[0].len();
        self.step = Step::new(self.gpu, Problem { shape, ..self.step.problem }, MOST_STEPS)?;
        (self.m, self.v) = (self.gpu.buffer(len)?, self.gpu.buffer(len)?);
        self.upload(arenas)
    }

    fn upload(&mut self, [parameters, m, v]: [&[f32]; 3]) -> Result<()> {
        self.step.parameters.upload(parameters)?;
        self.m.upload(m)?;
        self.v.upload(v)?;
        self.step.noise_seeds.upload(&self.data.noise_seeds)?;
        self.step.counter.upload(&[self.done])
    }

    /// Trains for `steps` steps, at most [`MOST_STEPS`]; returns their losses, `[steps, runs]`.
    pub fn advance(&mut self, steps: usize) -> Result<Vec<Loss>> {
        assert!(steps <= MOST_STEPS, "the losses of {steps} steps are asked for");
        for _ in 0..steps {
            match &self.recording {
                // SAFETY: the recording goes when the buffers change, and is called on `&mut self`.
                Some(recording) => unsafe { recording.replay()? },
                None => {
                    // The first step runs as it is, which loads the kernels: a driver may refuse to do
                    // that while it records.
                    self.enqueue()?;
                    let gpu = self.gpu;
                    self.recording = Some(gpu.record(|| self.enqueue())?);
                }
            }
        }
        let first = self.done;
        self.done += steps as u64;
        self.step.losses(first..self.done)
    }

    /// Copies the parameters back.
    pub fn parameters(&self, parameters: &mut [f32]) -> Result<()> {
        self.step.parameters.download(parameters)
    }

    /// Copies the moments back.
    pub fn moments(&self, m: &mut [f32], v: &mut [f32]) -> Result<()> {
        self.m.download(m)?;
        self.v.download(v)
    }

    /// Enqueues a training step.
    pub(super) fn enqueue(&mut self) -> Result<()> {
        self.gather()?;
        self.step.enqueue()?;
        let args = adam::gpu::AdamArgs {
            parameters: all_mut(&mut self.step.parameters),
            m: all_mut(&mut self.m),
            v: all_mut(&mut self.v),
            gradients: all(&self.step.gradients),
            operands: Pointer::NULL,
            scales: all_mut(&mut self.scales),
            rates: all(&self.rates),
            step: all(&self.step.counter),
            len: self.step.arena.len as u64,
        };
        // SAFETY: the buffers are those of this training, and there is a rate for every step.
        unsafe { adam::gpu::enqueue(self.gpu, self.step.problem.runs, &args)? };
        self.step.enqueue_totals()
    }

    /// Enqueues the draw of a batch.
    fn gather(&mut self) -> Result<()> {
        let (data, step) = (&self.data, &mut self.step);
        let Problem { shape, runs, graphs, bodies, .. } = step.problem;
        let args = GatherArgs {
            positions: all(&data.positions),
            velocities: all(&data.velocities),
            accelerations: all(&data.accelerations),
            masses: all(&data.masses),
            charges: all(&data.charges),
            parts: all(&data.parts),
            seeds: all(&data.seeds),
            step: all(&step.counter),
            features: all_mut(&mut step.features),
            targets: all_mut(&mut step.targets),
            translation: data.translation,
            part_runs: (data.parts.len() / runs) as u32,
            frames: data.frames,
            first_frame: data.first_frame,
            drawn_frames: data.drawn_frames,
            stride: data.stride,
            graphs: graphs as u32,
            bodies: bodies as u32,
            dim: shape.outputs as u32,
        };
        let mut grid = Grid::cover(step.problem.nodes(), THREADS);
        grid.blocks[2] = runs as u32;
        // SAFETY: parts and frames are those of the data, and the grid covers the nodes.
        unsafe { self.gpu.launch(GATHER, grid, &args) }
    }
}
