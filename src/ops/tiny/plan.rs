//! The layout of everything in a step: tiles of graphs, packed weights, activations, scratch.
//!
//! The plan depends on the problem and on the instructions, never on the number of threads; so do the order of all sums
//! and hence the results.

use super::{Batch, Penalty};
use crate::device::Cpu;
use crate::model::{Arena, Layer, Precision, Shape};
use crate::ops::mlp::kernel::{COLUMNS, ROWS, by_tiles, per_word};
use crate::ops::mlp::product::{panel_words, stride, wide_stride};
use crate::ops::mlp::tiles::SIDE;

/// Edges of a tile: enough to amortise reading the weights, and few enough for 8 tiles of a usual
/// batch, whose activations stay in a core's L2 cache.
const EDGES_PER_TILE: usize = 96;
/// Outputs of one piece of work on a weight gradient: blocks of several share each read of the inputs.
const OUTPUTS_PER_UNIT: usize = 4 * ROWS;
const OUTPUTS_PER_UNIT_OF_TILES: usize = 2 * SIDE;
/// Panels of one piece of work on the feature weights.
const PANELS_PER_UNIT: usize = 4;

/// What a plan is made for.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Key {
    pub shape: Shape,
    pub penalized: bool,
    pub precision: Precision,
    /// True if products go by tiles.
    pub tiles: bool,
    pub graphs: usize,
    pub bodies: usize,
}

impl Key {
    pub fn new(cpu: &Cpu, batch: &Batch) -> Self {
        Key {
            shape: batch.shape,
            penalized: batch.penalty != Penalty::None,
            precision: batch.precision,
            tiles: by_tiles(cpu, batch.precision),
            graphs: batch.graphs,
            bodies: batch.bodies,
        }
    }
}

/// A matrix of operands `[rows, row]`, starting at `at` in the region of a run.
#[derive(Clone, Copy)]
pub(super) struct Operand {
    pub at: usize,
    /// Words of a row.
    pub row: usize,
    pub rows: usize,
}

/// A weight matrix multiplied in the chosen precision: every one except those of the features.
#[derive(Clone)]
pub(super) struct Matrix {
    /// First weight in the arena, and the distance of its rows there.
    pub weight: usize,
    pub weight_row: usize,
    pub outputs: usize,
    pub inputs: usize,
    /// Bias in the arena; none for the messages' part of φv's first layer, whose bias goes with the features' part.
    pub bias: Option<usize>,
    /// Panels for both directions and the padded bias, in the region.
    pub forward: usize,
    pub backward: usize,
    pub padded_bias: usize,
    /// The activations whose product, summed over rows, is the gradient: of the output, and the input.
    pub d_output: Operand,
    pub input: Operand,
    /// Number of edges that a row stands for: `bodies − 1` if the row is the sum over a receiver's edges.
    pub edges_per_row: usize,
}

/// The part of a first layer that acts on features: A v_r + b and B v_s of φe, N v_i + c of φv.
#[derive(Clone, Copy)]
pub(super) struct Segment {
    /// First weight in the arena, and the distance of its rows there.
    pub weight: usize,
    pub weight_row: usize,
    pub bias: Option<usize>,
}

/// One piece of the packing.
#[derive(Clone, Copy)]
pub(super) enum Pack {
    Features { panel: usize },
    Forward { matrix: usize, panel: usize },
    Backward { matrix: usize, panel: usize },
    Bias { matrix: usize },
}

/// One piece of the weight gradients.
#[derive(Clone, Copy)]
pub(super) enum Unit {
    Features { first_panel: usize, panels: usize },
    Matrix { matrix: usize, first_output: usize },
}

pub(super) struct Plan {
    pub key: Key,
    pub arena: Arena,
    pub nodes: usize,
    pub graphs_per_tile: usize,
    pub tiles: usize,
    pub segments: [Segment; 3],
    /// φe's matrices after the features, then φv's.
    pub matrices: Vec<Matrix>,
    pub packs: Vec<Pack>,
    pub units: Vec<Unit>,
    /// Outputs of one `Unit::Matrix`.
    pub outputs_per_unit: usize,
    /// Ranges of the arena between tensors.
    pub gaps: Vec<std::ops::Range<usize>>,
    /// Row length of one segment in f32; a row of `feature_values` has three.
    pub hidden_row: usize,
    /// Row length of messages, in f32.
    pub message_row: usize,
    /// Row length of φe's outputs, in f32.
    pub edge_row: usize,
    /// Row length of φv's outputs, in f32.
    pub output_row: usize,
    pub feature_panels: usize,
    pub feature_bias: usize,
    /// f32 `[nodes, 3 · hidden_row]`: the segments' values, later their gradients.
    pub feature_values: usize,
    /// Operands: hidden layers of φe `[edges, hidden]`, and the gradients before the ReLU of all but
    /// the first.
    pub edge_hidden: Vec<Operand>,
    pub edge_gradients: Vec<Operand>,
    /// Without a penalty: the last hidden layer summed at the receiver `[nodes, hidden]`.
    pub hidden_sums: Operand,
    /// Gradient of φe's outputs: `[edges, …]`, or `[nodes, …]` without a penalty.
    pub message_gradients: Operand,
    /// Operands: summed messages, hidden layers of φv with their gradients, gradient of the output.
    pub messages: Operand,
    pub node_hidden: Vec<Operand>,
    pub node_gradients: Vec<Operand>,
    pub output_gradients: Operand,
    /// Words of a run's region, and of a thread's scratch.
    pub region: usize,
    pub scratch: Scratch,
}

/// Where a thread keeps data needed by one tile only, in f32.
#[derive(Clone, Copy, Default)]
pub(super) struct Scratch {
    /// `[edges of a tile, edge_row]`: φe's outputs.
    pub edge_outputs: usize,
    /// `[edges of a tile, message_row]`: the random part of sampled messages.
    pub deviations: usize,
    /// `[edges of a tile, hidden_row]`: gradients before the first ReLU of φe.
    pub edge_first: usize,
    /// `[nodes of a tile, max(hidden_row, message_row)]`.
    pub nodes: usize,
    /// `[nodes of a tile, message_row]`: gradients of the summed messages.
    pub d_messages: usize,
    /// `[nodes of a tile, output_row]`.
    pub outputs: usize,
    /// One row of φe's outputs, padded to 64 for the noise.
    pub row: usize,
    /// One unit's weight gradient, `[inputs / 32][outputs][32]`.
    pub sums: usize,
    /// Zeros, for products without a bias.
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
        self.0 = (at + words).next_multiple_of(16);
        at
    }

    /// Rows are rounded up to pairs.
    fn operand(&mut self, rows: usize, width: usize, precision: Precision) -> Operand {
        let row = stride(width, per_word(precision));
        Operand { at: self.take(rows.next_multiple_of(2) * row), row, rows }
    }
}

impl Plan {
    pub fn new(key: Key) -> Self {
        let Key { shape, penalized, precision, tiles, graphs, bodies } = key;
        let arena = shape.arena();
        let edges_per_graph = bodies * (bodies - 1);
        let mut graphs_per_tile = ((EDGES_PER_TILE + edges_per_graph / 2) / edges_per_graph).max(1);
        // Pairs of rows must not cross tiles.
        graphs_per_tile = graphs_per_tile.next_multiple_of(1 + bodies % 2);
        let nodes = graphs * bodies;
        let edges = graphs * edges_per_graph;
        let hidden_row = wide_stride(shape.hidden);
        let message_row = wide_stride(shape.message_dim);
        let edge_row = wide_stride(shape.edge_outputs());
        let output_row = wide_stride(shape.outputs);

        let mut places = Places::default();
        let feature_columns = 3 * hidden_row;
        let feature_panels = places.take(panel_words(feature_columns, shape.n_features, 1));
        let feature_bias = places.take(feature_columns.next_multiple_of(COLUMNS));
        let feature_values = places.take(nodes * feature_columns + COLUMNS);
        let mut operands = |count: usize, rows: usize, width: usize| -> Vec<Operand> {
            (0..count).map(|_| places.operand(rows, width, precision)).collect()
        };
        let edge_hidden = operands(shape.layers, edges, shape.hidden);
        let edge_gradients = operands(shape.layers - 1, edges, shape.hidden);
        let node_hidden = operands(shape.layers, nodes, shape.hidden);
        let node_gradients = operands(shape.layers, nodes, shape.hidden);
        let message_rows = if penalized { edges } else { nodes };
        let message_gradients = operands(1, message_rows, shape.edge_outputs())[0];
        let hidden_sums = operands(1, if penalized { 0 } else { nodes }, shape.hidden)[0];
        let messages = operands(1, nodes, shape.message_dim)[0];
        let output_gradients = operands(1, nodes, shape.outputs)[0];

        let mut matrices = Vec::new();
        let mut matrix = |layer: &Layer, skip: usize, d_output: Operand, input: Operand| {
            let (outputs, inputs) = (layer.outputs, layer.inputs - skip);
            matrices.push(Matrix {
                weight: layer.weight.start + skip,
                weight_row: layer.inputs,
                outputs,
                inputs,
                bias: (skip == 0).then_some(layer.bias.start),
                forward: places.take(panel_words(outputs, inputs, per_word(precision))),
                backward: places.take(panel_words(inputs, outputs, per_word(precision))),
                padded_bias: places.take(outputs.next_multiple_of(COLUMNS)),
                d_output,
                input,
                edges_per_row: 1,
            });
        };
        for (index, layer) in arena.edge.iter().enumerate().skip(1) {
            match edge_gradients.get(index - 1) {
                Some(&gradients) => matrix(layer, 0, gradients, edge_hidden[index - 1]),
                None if penalized => matrix(layer, 0, message_gradients, edge_hidden[index - 1]),
                None => matrix(layer, 0, message_gradients, hidden_sums),
            }
        }
        for (index, layer) in arena.node.iter().enumerate() {
            let d_output = node_gradients.get(index).copied().unwrap_or(output_gradients);
            match index {
                0 => matrix(layer, shape.n_features, d_output, messages),
                _ => matrix(layer, 0, d_output, node_hidden[index - 1]),
            }
        }
        if !penalized {
            matrices[shape.layers - 1].edges_per_row = bodies - 1;
        }

        let segment = |layer: &Layer, skip: usize, bias: bool| Segment {
            weight: layer.weight.start + skip,
            weight_row: layer.inputs,
            bias: bias.then_some(layer.bias.start),
        };
        let segments = [
            segment(&arena.edge[0], 0, true),
            segment(&arena.edge[0], shape.n_features, false),
            segment(&arena.node[0], 0, true),
        ];

        let outputs_per_unit = if tiles { OUTPUTS_PER_UNIT_OF_TILES } else { OUTPUTS_PER_UNIT };
        let (packs, units) = work(&matrices, feature_columns.div_ceil(COLUMNS), outputs_per_unit);
        let tile_nodes = graphs_per_tile.min(graphs) * bodies;
        let tile_edges = graphs_per_tile.min(graphs) * edges_per_graph;
        let mut local = Places::default();
        let widest = matrices.iter().map(|m| m.inputs.max(m.outputs)).max().unwrap_or(0);
        let scratch = Scratch {
            edge_outputs: local.take(tile_edges * edge_row),
            deviations: local.take(if shape.sampled { tile_edges * message_row } else { 0 }),
            edge_first: local.take(tile_edges * hidden_row),
            nodes: local.take(tile_nodes * hidden_row.max(message_row)),
            d_messages: local.take(tile_nodes * message_row),
            outputs: local.take(tile_nodes * output_row),
            row: local.take((shape.edge_outputs() + COLUMNS).next_multiple_of(64)),
            sums: local.take(outputs_per_unit * widest.next_multiple_of(COLUMNS)),
            zeros: local.take(widest.next_multiple_of(COLUMNS)),
            zeros_len: widest.next_multiple_of(COLUMNS),
            len: 0,
        };
        Plan {
            key,
            nodes,
            graphs_per_tile,
            tiles: graphs.div_ceil(graphs_per_tile),
            segments,
            packs,
            units,
            outputs_per_unit,
            gaps: gaps(&arena),
            arena,
            matrices,
            hidden_row,
            message_row,
            edge_row,
            output_row,
            feature_panels,
            feature_bias,
            feature_values,
            edge_hidden,
            edge_gradients,
            hidden_sums,
            message_gradients,
            messages,
            node_hidden,
            node_gradients,
            output_gradients,
            region: places.0,
            scratch: Scratch { len: local.0, ..scratch },
        }
    }

    /// φe's matrices after the features, and φv's.
    pub fn networks(&self) -> (&[Matrix], &[Matrix]) {
        self.matrices.split_at(self.key.shape.layers)
    }
}

/// The pieces of packing and of weight gradients, large ones first.
fn work(
    matrices: &[Matrix],
    feature_panels: usize,
    outputs_per_unit: usize,
) -> (Vec<Pack>, Vec<Unit>) {
    let (mut packs, mut units) = (Vec::new(), Vec::new());
    let mut order: Vec<usize> = (0..matrices.len()).collect();
    let cost = |&index: &usize| {
        let Matrix { inputs, d_output, .. } = &matrices[index];
        std::cmp::Reverse(inputs * d_output.rows)
    };
    order.sort_by_key(cost);
    for matrix in order {
        let Matrix { outputs, inputs, .. } = matrices[matrix];
        packs.extend((0..outputs.div_ceil(COLUMNS)).map(|panel| Pack::Forward { matrix, panel }));
        packs.extend((0..inputs.div_ceil(COLUMNS)).map(|panel| Pack::Backward { matrix, panel }));
        packs.push(Pack::Bias { matrix });
        let firsts = (0..outputs).step_by(outputs_per_unit);
        units.extend(firsts.map(|first_output| Unit::Matrix { matrix, first_output }));
    }
    packs.extend((0..feature_panels).map(|panel| Pack::Features { panel }));
    units.extend((0..feature_panels).step_by(PANELS_PER_UNIT).map(|first_panel| {
        let panels = PANELS_PER_UNIT.min(feature_panels - first_panel);
        Unit::Features { first_panel, panels }
    }));
    (packs, units)
}

/// The gaps between the tensors of the arena, and after the last one.
fn gaps(arena: &Arena) -> Vec<std::ops::Range<usize>> {
    let mut end = 0;
    let mut gaps = Vec::new();
    for (_, _, range) in arena.tensors() {
        gaps.push(end..range.start);
        end = range.end;
    }
    gaps.push(end..arena.len);
    gaps.retain(|gap| !gap.is_empty());
    gaps
}
