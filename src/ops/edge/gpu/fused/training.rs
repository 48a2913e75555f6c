//! A training step with φe fused, `kernels/edge_fused_backward.cu`: for each edge the forward pass stores one bit for
//! each unit of the last hidden layer and two for each message, which a penalty needs, or, for sampled messages, φe's
//! outputs; activations are recomputed on the way back.

use half::bf16;

use super::super::hopper::{backward as hopper, second};
use super::*;
use crate::device::args::{EdgeFusedBackwardArgs, EdgeFusedCollectArgs};

const FIRST: Kernel = Kernel { module: "edge_fused_backward", name: "edge_fused_first" };
const SECOND: Kernel = Kernel { module: "edge_fused_backward", name: "edge_fused_second" };
const FIRST_SAMPLED: Kernel =
    Kernel { module: "edge_fused_backward", name: "edge_fused_first_sampled" };
const SECOND_SAMPLED: Kernel =
    Kernel { module: "edge_fused_backward", name: "edge_fused_second_sampled" };
const COLLECT: Kernel = Kernel { module: "edge_fused_backward", name: "edge_fused_collect" };

/// The most messages whose signs and weights fit into shared memory with the rest.
const MOST_MESSAGES: usize = 128;
/// Most warps of a block in the forward pass.
const MOST_WARPS: usize = WIDEST / UNITS;
/// A block's slice of the second layer's gradient, and its threads.
pub(in super::super) const SLICE_OUT: usize = 128;
pub(in super::super) const SLICE_IN: usize = 256;
const SLICE_THREADS: u32 = 256;

/// Sizes of the kernels of a training step for a batch.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct TrainingPlan {
    pub forward: Plan,
    /// True if messages are sampled: φe's outputs and their gradients are then stored for each edge instead of signs.
    pub sampled: bool,
    /// Number of messages, or of φe's outputs, rounded up to a multiple of 16, and of words of 32 of them; 0 without a
    /// penalty.
    sign_columns: usize,
    words: usize,
    /// Shared memory of the kernels of the two layers.
    first: usize,
    second: usize,
    first_blocks: usize,
    /// Slices of the second layer's gradient along inputs and outputs, and the number of sums that each is split into.
    slices: [usize; 2],
    splits: usize,
    /// The warpgroup kernels for the two layers, instead of its own.
    pub hopper: Option<hopper::Plan>,
    pub hopper_second: Option<second::Plan>,
}

impl TrainingPlan {
    /// None if the chunks of [`Step`](super::super::step::Step) must be used: if there are none for predictions, with
    /// other than two hidden layers, with signs of more than [`MOST_MESSAGES`], and if a block of the device has too
    /// little shared memory.
    pub fn new(gpu: Gpu, batch: &Batch) -> Result<Option<TrainingPlan>> {
        let shape = &batch.shape;
        let Some(mut forward) = Plan::sizes(batch) else { return Ok(None) };
        let sampled = shape.sampled;
        if sampled {
            forward = forward.forming(shape.edge_outputs());
        }
        let signs = forward.passes > 0 && !sampled;
        if shape.layers != 2 || (signs && forward.outputs > MOST_MESSAGES) {
            return Ok(None);
        }
        let only = |condition: bool, count: usize| if condition { count } else { 0 };
        let (outputs, hidden) = (forward.outputs, forward.hidden);
        let (sign_columns, words) = (outputs.next_multiple_of(16), outputs.div_ceil(32));
        let (number, wide) = (size_of::<bf16>(), size_of::<f32>());
        forward.shared = forward.tile_bytes()
            + only(!sampled, hidden * wide)
            + only(signs, forward.passes * hidden / 4 * wide)
            + only(signs, TILE * (sign_columns + BEYOND) * number);
        let first = TILE * (hidden.max(DEPTH * words) + BEYOND) * number
            + forward.stages()
            + TILE * (forward.first_chunks * DEPTH + BEYOND) * number
            + TILE * size_of::<u32>()
            + TILE / 16 * forward.threads() as usize * size_of::<u32>();
        let (weight_row, input_row) = (2 * forward.inputs + BEYOND, 3 * forward.inputs + BEYOND);
        let sign_row = if sampled { sign_columns } else { DEPTH * words } + BEYOND;
        let second = (SLICE_IN * weight_row
            + TILE * input_row
            + (SLICE_OUT + TILE) * sign_row
            + TILE * (SLICE_IN + SLICE_OUT + 2 * BEYOND))
            * number
            + (SLICE_IN + 4 * SLICE_THREADS as usize) * wide
            + only(!sampled, TILE * size_of::<u32>());
        let device = gpu.properties()?;
        let slices = [hidden.div_ceil(SLICE_IN), hidden.div_ceil(SLICE_OUT)];
        let splits = (device.multiprocessors / (slices[0] * slices[1])).max(1);
        let first_blocks = forward.blocks_of(first, &device);
        let Some(forward) = forward.fit(&device) else { return Ok(None) };
        let plan = TrainingPlan {
            forward,
            sampled,
            sign_columns,
            words,
            first,
            second,
            first_blocks,
            slices,
            splits,
            hopper: None,
            hopper_second: None,
        };
        Ok((first_blocks > 0 && second <= device.shared).then_some(plan))
    }

    /// The same with warpgroup kernels on the way back for this many features, where they fit. The caller checks that
    /// the device has the instructions.
    pub fn by_warpgroups(self, device: &Properties, n_features: usize) -> Self {
        let Plan { inputs, first_chunks, .. } = self.forward;
        let hopper = hopper::Plan::new(device, self.hidden(), (inputs, first_chunks), self.words);
        let hopper_second = second::Plan::new(device, n_features, self.slices, self.words);
        TrainingPlan { hopper, hopper_second, ..self }
    }

    /// The same with one block, which then gets every tile.
    #[cfg(test)]
    pub fn alone(self) -> Self {
        let forward = Plan { blocks: 1, ..self.forward };
        let hopper = self.hopper.map(|mut plan| {
            plan.blocks = 1;
            plan
        });
        TrainingPlan { forward, first_blocks: 1, splits: 1, hopper, ..self }
    }

    /// The shared memory of a block, for the kernel that needs most.
    #[cfg(test)]
    pub fn most_shared(&self) -> usize {
        self.forward.shared.max(self.first).max(self.second)
    }

    /// The same with its own kernel for the first layer.
    #[cfg(test)]
    pub fn own_first(self) -> Self {
        TrainingPlan { hopper: None, ..self }
    }

    /// Units of a hidden layer, padded.
    pub fn hidden(&self) -> usize {
        self.forward.hidden
    }

    /// Length of a row of φe's outputs, if messages are sampled.
    pub fn outputs(&self) -> usize {
        self.sign_columns
    }

    /// Memory for an edge: its sender and receiver, the bits, and for sampled messages its number, φe's outputs, their
    /// gradients and the deviations; inputs for warpgroups.
    pub fn edge_bytes(&self) -> usize {
        let (number, wide) = (size_of::<bf16>(), size_of::<f32>());
        let message = match self.sampled {
            true => {
                size_of::<u32>()
                    + self.outputs() * (wide + number)
                    + self.forward.outputs / 2 * wide
            }
            false => 2 * self.words * size_of::<u32>(),
        };
        let inputs = self.hopper_second.map_or(0, |plan| plan.edge_bytes());
        2 * size_of::<u32>() + self.masks() * size_of::<u16>() + message + inputs
    }

    /// Words of signs for an edge.
    fn sign_words(&self) -> usize {
        if self.sampled { 0 } else { 2 * self.words }
    }

    /// Masks of an edge, in 16-bit parts.
    fn masks(&self) -> usize {
        self.hidden() / 16
    }

    /// Numbers in a sum of the second layer's gradient.
    fn second_len(&self) -> usize {
        self.slices[0] * SLICE_IN * self.slices[1] * SLICE_OUT
    }

    fn first_len(&self) -> usize {
        self.hidden() * self.forward.inputs
    }

    /// Number of sums of the first layer's gradient.
    fn first_sums(&self) -> usize {
        self.hopper.map_or(self.first_blocks, |plan| plan.sums())
    }

    fn share_len(&self) -> usize {
        self.hidden() * self.sign_columns
    }

    /// The factor of the penalty's contribution, if the gradients of φe's outputs contain it.
    fn scale(&self, per_edge: f32) -> f32 {
        if self.sampled { 1.0 } else { per_edge }
    }
}

/// What the way back needs from the forward pass, and sums of gradients, one for each block or split.
pub(in super::super) struct Training {
    plan: TrainingPlan,
    /// Weights of the first layer, of the last one times the weight of the penalty and of the second one, the latter
    /// two transposed; the first layer's bias.
    weights: Buffer<bf16>,
    bias: Buffer<f32>,
    hopper: Option<hopper::Weights>,
    hopper_second: Option<second::Second>,
    per_edge: f32,
    owners: Buffer<u32>,
    masks: Buffer<u16>,
    signs: Buffer<u32>,
    /// The penalty's share in the last layer: weights, bias; and the penalty itself, for each warp of each block.
    shares: Buffer<f32>,
    counts: Buffer<f32>,
    penalties: Buffer<f64>,
    first: Buffer<f32>,
    second: Buffer<f32>,
    second_bias: Buffer<f32>,
}

/// Where the forward pass stores what the way back needs.
pub(in super::super) struct Kept {
    pub owners: Pointer<u32>,
    pub masks: Pointer<u16>,
    pub signs: Pointer<u32>,
    pub shares: Pointer<f32>,
    pub counts: Pointer<f32>,
    pub penalties: Pointer<f64>,
    pub sign_columns: u32,
    pub mask_row: u32,
}

/// Null pointers.
impl Default for Kept {
    fn default() -> Self {
        Kept {
            owners: Pointer::NULL,
            masks: Pointer::NULL,
            signs: Pointer::NULL,
            shares: Pointer::NULL,
            counts: Pointer::NULL,
            penalties: Pointer::NULL,
            sign_columns: 0,
            mask_row: 0,
        }
    }
}

impl Training {
    /// Room for chunks of up to `edges` edges and up to `blocks` blocks in the forward pass, and the weights of
    /// `parameters` `[arena.len]`; the penalty per edge is `per_edge`.
    pub fn new(
        gpu: Gpu,
        batch: &Batch,
        plan: TrainingPlan,
        parameters: &Buffer<f32>,
        (edges, blocks, per_edge): (usize, usize, f32),
    ) -> Result<Self> {
        let TrainingPlan { forward, sign_columns, words, splits, .. } = plan;
        let (hidden, arena) = (plan.hidden(), batch.shape.arena());
        let [first, second, last] = [0, 1, 2].map(|index| &arena.edge[index]);
        let chunks = |layer: &Layer, transposed: bool, chunks: usize| {
            let (rows, columns, steps) = match transposed {
                true => (layer.inputs, layer.outputs, [1, layer.inputs]),
                false => (layer.outputs, layer.inputs, [layer.inputs, 1]),
            };
            Chunks { rows, columns, steps, passes: 1, chunks, units: hidden, split: 0, scale: 1.0 }
        };
        let layers = [
            (first, Chunks { split: forward.inputs, ..chunks(first, false, forward.first_chunks) }),
            (last, Chunks { scale: plan.scale(per_edge), ..chunks(last, true, words) }),
            (second, chunks(second, true, hidden / DEPTH)),
        ];
        let weights = layers.iter().map(|(_, chunks)| chunks.len()).sum();
        let penalized = if words > 0 { blocks } else { 0 };
        let hopper = |plan| hopper::Weights::new(gpu, batch, plan, parameters, per_edge);
        let second_of = |plan| second::Second::new(gpu, batch, plan, parameters, (edges, per_edge));
        let mut training = Training {
            plan,
            weights: gpu.buffer(weights)?,
            bias: gpu.buffer(hidden)?,
            hopper: plan.hopper.map(hopper).transpose()?,
            hopper_second: plan.hopper_second.map(second_of).transpose()?,
            per_edge,
            owners: gpu.buffer(edges)?,
            masks: gpu.buffer(edges * plan.masks())?,
            signs: gpu.buffer(edges * plan.sign_words())?,
            shares: gpu.buffer(penalized * plan.share_len())?,
            counts: gpu.buffer(penalized * sign_columns)?,
            penalties: gpu.buffer(penalized * MOST_WARPS)?,
            first: gpu.buffer(plan.first_sums() * plan.first_len())?,
            second: gpu.buffer(splits * plan.second_len())?,
            second_bias: gpu.buffer(splits * hidden)?,
        };
        let from = parameters.read(arena.len);
        let (mut to, bias) = (training.weights.write(weights), training.bias.write(hidden));
        for (index, (layer, chunks)) in layers.iter().enumerate().filter(|(_, l)| l.1.chunks > 0) {
            let bias = if index == 0 { bias } else { Pointer::NULL };
            // SAFETY: the buffers have room for all layers one after the other.
            unsafe {
                chunks.make(gpu, batch, (from, layer), to, bias)?;
                to = to.add(chunks.len());
            }
        }
        Ok(training)
    }

    /// Starts a new gradient.
    pub fn begin(&mut self) -> Result<()> {
        self.penalties.clear()?;
        let sums = [&mut self.shares, &mut self.counts, &mut self.first];
        for buffer in sums.into_iter().chain([&mut self.second, &mut self.second_bias]) {
            buffer.clear()?;
        }
        Ok(())
    }

    /// Where a chunk of this many edges stores what the way back needs.
    pub fn kept(&mut self, edges: usize) -> Kept {
        let TrainingPlan { sign_columns, .. } = self.plan;
        Kept {
            owners: self.owners.write(edges),
            masks: self.masks.write(edges * self.plan.masks()),
            signs: self.signs.write(edges * self.plan.sign_words()),
            shares: self.shares.write(self.shares.len()),
            counts: self.counts.write(self.counts.len()),
            penalties: self.penalties.write(self.penalties.len()),
            sign_columns: sign_columns as u32,
            mask_row: self.plan.masks() as u32,
        }
    }

    /// Back to the hidden layers, from what φe's last layer passes back to each receiver, `[receivers, hidden]`, or,
    /// for sampled messages, from the gradients of its outputs, `[edges, outputs]`; the other pointer is null.
    ///
    /// # Safety
    /// The graph is the one of the last forward pass.
    pub unsafe fn backward(
        &mut self,
        gpu: Gpu,
        batch: &Batch,
        graph: Graph,
        (passed, d_outputs): (Pointer<f32>, Pointer<bf16>),
    ) -> Result<()> {
        let TrainingPlan { forward, sampled, words, first_blocks, slices, splits, .. } = self.plan;
        let (edges, hidden) = (graph.edges, self.plan.hidden());
        let first = EdgeFusedBackwardArgs {
            features: graph.features,
            receivers: graph.receivers,
            senders: graph.senders,
            owners: self.owners.read(edges),
            masks: self.masks.read(edges * self.plan.masks()),
            signs: self.signs.read(edges * self.plan.sign_words()),
            d_outputs,
            passed,
            weights: self.weights.read(self.weights.len()),
            bias: self.bias.read(hidden),
            sums: self.first.write(self.first.len()),
            biases: Pointer::NULL,
            shift: batch.coordinates.shift,
            period: batch.coordinates.period,
            n_features: batch.shape.n_features as u32,
            dim: batch.coordinates.dim as u32,
            edges: edges as u32,
            hidden: hidden as u32,
            inputs: forward.inputs as u32,
            first_chunks: forward.first_chunks as u32,
            words: words as u32,
            tiles: 0,
            outputs: if sampled { self.plan.outputs() as u32 } else { 0 },
            unused: 0,
        };
        // Tiles of a block or of a split.
        let dealt = |tiles: usize, parts: usize| tiles.div_ceil(parts) as u32;
        let tiles = edges.div_ceil(TILE);
        let second = EdgeFusedBackwardArgs {
            sums: self.second.write(self.second.len()),
            biases: self.second_bias.write(self.second_bias.len()),
            tiles: dealt(tiles, splits.min(tiles)),
            ..first
        };
        // SAFETY: as the caller promises; the plans have the sizes of the kernels' shared memory, and blocks, or their
        // warpgroups, have their own sums.
        if let (Some(plan), Some(hopper)) = (self.plan.hopper, &self.hopper) {
            let tiles = edges.div_ceil(hopper::TILE);
            let blocks = plan.blocks.min(tiles);
            let args = EdgeFusedBackwardArgs {
                weights: hopper.weights.read(hopper.weights.len()),
                bias: hopper.bias.read(hopper.bias.len()),
                tiles: dealt(tiles, blocks),
                ..first
            };
            // SAFETY: as the caller promises; the weights belong to the plan.
            unsafe { gpu.launch(plan.kernel(), plan.grid(blocks), &args)? };
        } else {
            let blocks = first_blocks.min(tiles);
            let args = EdgeFusedBackwardArgs { tiles: dealt(tiles, blocks), ..first };
            let grid = Grid { shared: self.plan.first, ..Grid::new(blocks, forward.threads()) };
            // SAFETY: as the caller promises.
            unsafe { gpu.launch(if sampled { FIRST_SAMPLED } else { FIRST }, grid, &args)? };
        }
        let splits = splits.min(tiles);
        if let Some(hopper) = &mut self.hopper_second {
            // SAFETY: as the caller promises.
            return unsafe { hopper.launch(gpu, &second, splits) };
        }
        let grid = Grid {
            blocks: [slices[0] as u32, slices[1] as u32, splits as u32],
            threads: SLICE_THREADS,
            shared: self.plan.second,
        };
        // SAFETY: as the caller promises.
        unsafe { gpu.launch(if sampled { SECOND_SAMPLED } else { SECOND }, grid, &second) }
    }

    /// Adds the gradients of all chunks to those of φe's layers, which start at `gradients`.
    ///
    /// # Safety
    /// The layers are inside the arena there.
    pub unsafe fn collect(
        &self,
        gpu: Gpu,
        batch: &Batch,
        layers: &[Layer],
        gradients: Pointer<f32>,
    ) -> Result<()> {
        let TrainingPlan { forward, sign_columns, slices, splits, .. } = self.plan;
        let (shape, hidden) = (&batch.shape, self.plan.hidden());
        let nothing = |layer: &Layer| EdgeFusedCollectArgs {
            sums: Pointer::NULL,
            biases: Pointer::NULL,
            // SAFETY: the caller's promise.
            gradients: unsafe { gradients.add(layer.weight.start) },
            // SAFETY: the caller's promise.
            d_bias: unsafe { gradients.add(layer.bias.start) },
            size: 0,
            count: 0,
            bias_stride: 0,
            fragments: 8,
            across: 1,
            rows: shape.hidden as u32,
            columns: layer.inputs as u32,
            row_step: layer.inputs as u32,
            column_step: 1,
            bias_count: 0,
            scale: 1.0,
        };
        let first = EdgeFusedCollectArgs {
            sums: self.first.read(self.first.len()),
            size: self.plan.first_len() as u64,
            count: self.plan.first_sums() as u32,
            fragments: (forward.inputs / 8) as u32,
            ..nothing(&layers[0])
        };
        let second = EdgeFusedCollectArgs {
            sums: self.second.read(self.second.len()),
            biases: self.second_bias.read(self.second_bias.len()),
            size: self.plan.second_len() as u64,
            count: splits as u32,
            bias_stride: hidden as u32,
            across: (slices[0] * SLICE_IN / 64) as u32,
            columns: shape.hidden as u32,
            bias_count: shape.hidden as u32,
            ..nothing(&layers[1])
        };
        let last = EdgeFusedCollectArgs {
            sums: self.shares.read(self.shares.len()),
            biases: self.counts.read(self.counts.len()),
            size: self.plan.share_len() as u64,
            count: (self.shares.len() / self.plan.share_len().max(1)) as u32,
            bias_stride: sign_columns as u32,
            fragments: (sign_columns / 8) as u32,
            columns: forward.outputs as u32,
            row_step: 1,
            column_step: layers[2].inputs as u32,
            bias_count: forward.outputs as u32,
            scale: self.plan.scale(self.per_edge),
            ..nothing(&layers[2])
        };
        for args in [first, second, last].into_iter().filter(|args| args.size > 0) {
            // SAFETY: the sizes are those of the sums, and rows and columns lie inside the layers.
            unsafe { gpu.launch(COLLECT, Grid::cover(args.size as usize, 256), &args)? };
        }
        Ok(())
    }

    pub fn sampled(&self) -> bool {
        self.plan.sampled
    }

    /// Parts of the penalty of all edges, unweighted; sampled messages have theirs elsewhere.
    pub fn penalties(&self) -> &Buffer<f64> {
        &self.penalties
    }
}
