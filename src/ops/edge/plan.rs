//! The layout: the packed weights, a part's sums of gradients, and a thread's scratch.

use super::{Batch, Penalty};
use crate::model::{Layer, Precision, Shape};
use crate::ops::mlp::kernel::{COLUMNS, per_word};
use crate::ops::mlp::product::{panel_words, stride, wide_stride};

/// Edges that go through φe together: their rows of a layer fit the L2 cache, and there are enough of them for each
/// read of the weights and each update of the gradient. Even, for pairs of rows.
pub(super) const TILE: usize = 192;
/// Edges of a group of stars, unless one star has more: φv, run once per group, should get several rows, and the hidden
/// layers of the edges are kept until their backward pass.
const GROUP_EDGES: usize = 1536;
/// Receivers of a group.
pub(super) const GROUP_RECEIVERS: usize = 96;

/// A layer whose outputs are rounded, or not (`wide`: f32).
#[derive(Clone, Debug)]
pub(super) struct Matrix {
    pub outputs: usize,
    pub inputs: usize,
    /// In the arena.
    pub weight: usize,
    pub bias: usize,
    /// f32 at every precision.
    pub wide: bool,
    /// Places among the packed weights: panels of the forward and of the backward product, and the bias.
    pub forward: usize,
    pub backward: usize,
    pub padded_bias: usize,
    /// Places among a part's sums: the gradients of the weights, `[inputs / 32][outputs][32]`, and of the bias.
    pub weight_sums: usize,
    pub bias_sums: usize,
}

impl Matrix {
    /// Panels of 32 inputs.
    pub fn panels(&self) -> usize {
        self.inputs.div_ceil(COLUMNS)
    }
}

/// Sizes and offsets, in words.
pub(super) struct Plan {
    pub shape: Shape,
    pub precision: Precision,
    /// True if messages are formed edge by edge; else φe's last layer acts on sums over edges.
    pub penalized: bool,
    /// φe's layers, then φv's.
    pub matrices: Vec<Matrix>,
    pub packed: usize,
    pub sums: usize,
    /// Row lengths of an edge's inputs, of a hidden layer as operand and as f32, of φe's outputs, of messages as
    /// operand and as f32, of φv's inputs and outputs.
    pub input_row: usize,
    pub hidden_row: usize,
    pub wide_row: usize,
    pub edge_row: usize,
    pub operand_row: usize,
    pub message_row: usize,
    pub node_row: usize,
    pub output_row: usize,
    pub scratch: Scratch,
}

/// The scratch of a thread.
#[derive(Default)]
pub(super) struct Scratch {
    /// `[edge of the group, input_row]`, `[layer][edge, hidden_row]`, `[edge, edge_row]`,
    /// `[edge, message_row]`.
    pub inputs: usize,
    pub hidden: Vec<usize>,
    pub outputs: usize,
    pub deviations: usize,
    /// `[edge of the tile, …]`: gradients of two hidden layers, of the messages, and a layer in f32.
    pub d_hidden: [usize; 2],
    pub d_outputs: usize,
    pub wide: usize,
    /// `[receiver of the group, …]`: sums of the last hidden layer, what they pass back, φv's inputs,
    /// hidden layers, outputs, and gradients of two layers.
    pub hidden_sums: usize,
    pub passed: usize,
    pub node_inputs: usize,
    pub node_hidden: Vec<usize>,
    pub node_outputs: usize,
    pub d_node: [usize; 2],
    /// Noise of one edge; zeros.
    pub noise: usize,
    pub zeros: usize,
    pub zeros_len: usize,
    pub len: usize,
}

/// Hands out places at 64-byte boundaries.
#[derive(Default)]
struct Places(usize);

impl Places {
    fn take(&mut self, words: usize) -> usize {
        let at = self.0;
        self.0 += words.next_multiple_of(16);
        at
    }
}

impl Plan {
    /// For a batch whose largest star has `largest` edges.
    pub fn new(batch: &Batch, largest: usize) -> Plan {
        let shape = batch.shape;
        let (arena, layers) = (shape.arena(), shape.layers);
        let penalized = batch.penalty != Penalty::None;
        let (mut packed, mut sums) = (Places::default(), Places::default());
        let mut matrix = |layer: &Layer, wide: bool| {
            let Layer { inputs, outputs, weight, bias } = layer;
            // No gradient goes back through φe's first layer.
            let first = weight.start == arena.edge[0].weight.start;
            let passed = if first { 0 } else { *inputs };
            let per_word = if wide { 1 } else { per_word(batch.precision) };
            Matrix {
                outputs: *outputs,
                inputs: *inputs,
                weight: weight.start,
                bias: bias.start,
                wide,
                forward: packed.take(panel_words(*outputs, *inputs, per_word)),
                backward: packed.take(panel_words(passed, *outputs, per_word)),
                padded_bias: packed.take(outputs.next_multiple_of(COLUMNS)),
                weight_sums: sums.take(outputs * inputs.next_multiple_of(COLUMNS)),
                bias_sums: sums.take(outputs.next_multiple_of(COLUMNS)),
            }
        };
        let edge = arena.edge.iter().enumerate();
        let wide = |index: usize| index == 0 || index == layers && !penalized;
        let mut matrices: Vec<Matrix> = edge.map(|(i, layer)| matrix(layer, wide(i))).collect();
        matrices.extend(arena.node.iter().map(|layer| matrix(layer, true)));

        let words = per_word(batch.precision);
        let (features, messages) = (shape.n_features, shape.message_dim);
        let mut plan = Plan {
            penalized,
            precision: batch.precision,
            packed: packed.0,
            sums: sums.0,
            input_row: wide_stride(2 * features),
            hidden_row: stride(shape.hidden, words),
            wide_row: wide_stride(shape.hidden),
            edge_row: wide_stride(shape.edge_outputs()),
            operand_row: stride(shape.edge_outputs(), words),
            message_row: wide_stride(messages),
            // Whole vectors of messages are written after the features.
            node_row: wide_stride(features + messages.next_multiple_of(16)),
            output_row: wide_stride(shape.outputs),
            scratch: Scratch::default(),
            matrices,
            shape,
        };
        plan.scratch = plan.scratch(largest.max(GROUP_EDGES));
        plan
    }

    fn scratch(&self, edges: usize) -> Scratch {
        let Plan { shape, penalized, .. } = self;
        let mut places = Places::default();
        // Pairs of rows need room for a partner of the last one.
        let (rows, tile, nodes) = (edges.next_multiple_of(2), TILE, GROUP_RECEIVERS);
        let only = |condition: bool, words: usize| if condition { words } else { 0 };
        let widest = self.matrices.iter().map(|m| m.inputs.max(m.outputs)).max().unwrap_or(0);
        let zeros_len = widest.next_multiple_of(COLUMNS);
        let widest_node = self.wide_row.max(self.node_row).max(self.output_row);
        let mut take = |words: usize| places.take(words);
        let scratch = Scratch {
            inputs: take(rows * self.input_row),
            hidden: (0..shape.layers).map(|_| take(rows * self.hidden_row)).collect(),
            outputs: take(only(*penalized, rows * self.edge_row)),
            deviations: take(only(shape.sampled, rows * self.message_row)),
            d_hidden: [0, 1].map(|_| take(tile * self.hidden_row)),
            d_outputs: take(only(*penalized, tile * self.operand_row)),
            wide: take(tile * self.wide_row),
            hidden_sums: take(only(!penalized, nodes * self.wide_row)),
            passed: take(only(!penalized, nodes * self.wide_row)),
            node_inputs: take(nodes * self.node_row),
            node_hidden: (0..shape.layers).map(|_| take(nodes * self.wide_row)).collect(),
            node_outputs: take(nodes * self.output_row),
            d_node: [0, 1].map(|_| take(nodes * widest_node)),
            noise: take(shape.message_dim.next_multiple_of(64)),
            zeros: take(zeros_len),
            zeros_len,
            len: 0,
        };
        Scratch { len: places.0, ..scratch }
    }

    /// φe's layers, and φv's.
    pub fn networks(&self) -> (&[Matrix], &[Matrix]) {
        self.matrices.split_at(self.shape.layers + 1)
    }
}

/// The number of stars that make the next group, and their edges.
pub(super) fn group(degrees: impl Iterator<Item = usize>) -> usize {
    let mut edges = 0;
    let fits = |&(index, degree): &(usize, usize)| {
        edges += degree;
        index == 0 || (index < GROUP_RECEIVERS && edges <= GROUP_EDGES)
    };
    degrees.enumerate().take_while(fits).count()
}
