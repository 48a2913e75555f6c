//! The cases with large graphs.

use super::{arithmetic, random, weights};
use crate::bench::{Arithmetic, Harness, Measurement, Work};
use crate::device::Device;
use crate::error::Result;
use crate::formula::expression::Expression;
use crate::model::{Precision, Shape};
use crate::ops::expression::Program;
use crate::ops::{Call, edge, formula, neighbours, scatter};
use crate::random::Random;

/// Number of halos in a (1000 Mpc/h)³ box, and of neighbours of each within 50 Mpc/h.
const HALOS: usize = 215_854;
const NEIGHBOURS: usize = 141;

/// Numbers of receivers on which a step of `edge` is measured: on a GPU a batch, and all.
pub fn receivers(harness: &Harness) -> Vec<usize> {
    match harness.device {
        Device::Cpu(_) => vec![256],
        Device::Gpu(_) if harness.is_emulated() => vec![4],
        Device::Gpu(_) => vec![2048, HALOS],
    }
}

/// Loss and gradient on some receivers of a graph of halos, with seven features of which three are
/// coordinates, and the networks of the paper's section 4.3.
pub fn edge_step(
    harness: &Harness,
    count: usize,
    penalty: edge::Penalty,
    precision: Precision,
    report: &mut impl FnMut(Measurement) -> Result<()>,
) -> Result<()> {
    let (nodes, degree) = match harness.is_emulated() {
        true => (count, 3),
        false => (count.max(20_000), NEIGHBOURS),
    };
    let shape = Shape {
        n_features: 7,
        message_dim: 100,
        outputs: 1,
        hidden: 500,
        layers: 2,
        sampled: false,
    };
    let arena = shape.arena();
    let features = random(nodes * shape.n_features, 1, 1.0);
    let targets = random(nodes, 2, 1.0);
    let parameters = random(arena.len, 3, 0.05);
    let row_start: Vec<u64> = (0..=nodes).map(|node| (node * degree) as u64).collect();
    let mut senders = Random::new(1, 4);
    let sender: Vec<u32> = (0..nodes * degree).map(|_| senders.word() % nodes as u32).collect();
    let receivers: Vec<u32> = (0..count).map(|k| (k * (nodes / count)) as u32).collect();
    let batch = edge::Batch {
        shape,
        penalty,
        weight_decay: 1e-8,
        precision,
        row_start: &row_start,
        sender: &sender,
        receivers: &receivers,
        features: &features,
        coordinates: edge::Coordinates { dim: 3, period: 3.46, shift: [0.0; 3] },
        noise_seed: 0,
        step: 1,
    };
    let edges = count * degree;
    // Forward, gradient of the weights, gradient of the inputs, which the first layer does not need.
    // Without a penalty the last layer of φe works on the sums over edges.
    let (first, last) = (arena.edge[0].weight.len(), arena.edge[2].weight.len());
    let summed = if penalty == edge::Penalty::None { last } else { 0 };
    let each_edge = 3 * (weights(&arena.edge) - summed) - first;
    let each_node = 3 * (weights(&arena.node) + summed);
    let penalty = if summed == 0 { "L1" } else { "no penalty" };
    let work = Work {
        op: "edge",
        size: format!("{edges} edges, 14 -> 500 -> 500 -> 100, {penalty}"),
        precision: arithmetic(precision),
        count: edges as f64,
        unit: "edges/s",
        flops: Some(2.0 * (edges * each_edge + count * each_node) as f64),
        bytes: (2 * 4 * arena.len + edges * 4 * (1 + shape.n_features)) as f64,
    };
    report(edge::repeat(harness.device, &batch, &targets, &parameters, |gradient| {
        harness.measure(work, gradient)
    })?)
}

/// A message of the form in the paper, summed over the edges of 2¹⁵ halos, with or without derivatives.
pub fn formula(
    harness: &Harness,
    gradient: bool,
    report: &mut impl FnMut(Measurement) -> Result<()>,
) -> Result<()> {
    let nodes = harness.size(1 << 15);
    let edges = nodes * NEIGHBOURS;
    let features = random(nodes * formula::N_FEATURES, 1, 1.0);
    let row_start: Vec<u64> = (0..=nodes).map(|node| (node * NEIGHBOURS) as u64).collect();
    let mut numbers = Random::new(1, 4);
    let sender: Vec<u32> = (0..edges).map(|_| numbers.word() % nodes as u32).collect();
    let receivers: Vec<u32> = (0..nodes as u32).collect();
    let (row_start, sender, receivers, features) = (&row_start, &sender, &receivers, &features);
    let graph = formula::Edges { row_start, sender, receivers, features, period: 3.46 };
    let message = "(0.44 + m2) / (7.0 + (1.5 * r) ^ 3.3)";
    let programs = [Program::new(&Expression::parse(message, &formula::VARIABLES)?)];
    // Nearest image and its distance 18, message 5, sum 1; its four derivatives 11, their sums 4.
    // A root, a division or a power counts as one.
    let each = if gradient { 39 } else { 24 };
    let width = if gradient { 5 } else { 1 };
    let what = if gradient { "sums and 4 derivatives" } else { "sums" };
    let work = Work {
        op: "formula",
        size: format!("{edges} edges, {message}, {what}"),
        precision: Arithmetic::F32,
        count: edges as f64,
        unit: "edges/s",
        flops: Some((edges * each) as f64),
        bytes: (4 * (edges + features.len()) + 8 * (nodes + 1 + nodes * width)) as f64,
    };
    report(formula::repeat(harness.device, graph, &programs, gradient, |sums| {
        harness.measure(work, sums)
    })?)
}

/// The radius graph of as many points as there are halos.
pub fn neighbours(
    harness: &Harness,
    report: &mut impl FnMut(Measurement) -> Result<()>,
) -> Result<()> {
    let nodes = harness.size(HALOS);
    let reach = neighbours::Reach { edge: 1000.0, radius: 50.0 };
    let mut random = Random::new(1, 1);
    let last = (reach.edge as f32).next_down();
    let anywhere = (0..3 * nodes).map(|_| ((reach.edge * random.uniform()) as f32).min(last));
    let positions: Vec<f32> = anywhere.collect();
    let edges = neighbours::count(harness.device, &positions, reach)?.edges();
    let work = Work {
        op: "neighbours",
        size: format!("{nodes} points, radius 50 in 1000"),
        precision: Arithmetic::F64,
        count: edges as f64,
        unit: "edges/s",
        // A distance, with a comparison, for each edge, twice: for the count and for the list.
        flops: Some(2.0 * 12.0 * edges as f64),
        bytes: (4 * (positions.len() + edges) + 8 * (nodes + 1)) as f64,
    };
    report(neighbours::repeat(harness.device, &positions, reach, edges, |list| {
        harness.measure(work, list)
    })?)
}

/// Values of 2²⁰ edges summed at their receivers, with edges in any order and sorted.
pub fn sums(
    harness: &Harness,
    width: usize,
    report: &mut impl FnMut(Measurement) -> Result<()>,
) -> Result<()> {
    let (edges, nodes) = (harness.size(1 << 20), harness.size(1 << 13));
    let mut numbers = Random::new(1, 1);
    let receivers: Vec<u32> = (0..edges).map(|_| numbers.below(nodes) as u32).collect();
    let row_start: Vec<u64> = (0..=nodes).map(|node| (node * (edges / nodes)) as u64).collect();
    let values = random(edges * width, 2, 1.0);
    let mut out = vec![0.0; nodes * width];
    let forms = [
        ("any order", scatter::Edges::Receivers(&receivers), 4 * edges),
        ("rows", scatter::Edges::Rows(&row_start), 8 * (nodes + 1)),
    ];
    for (form, of, bytes) in forms {
        let work = Work {
            op: "scatter",
            size: format!("{edges} edges x {width}, {nodes} nodes, {form}"),
            precision: Arithmetic::F32,
            count: edges as f64,
            unit: "edges/s",
            flops: Some(values.len() as f64),
            bytes: (bytes + 4 * (values.len() + 2 * out.len())) as f64,
        };
        let add = |add: Call| harness.measure(work, add);
        report(scatter::repeat(harness.device, of, width, &values, &mut out, add)?)?;
    }
    Ok(())
}
