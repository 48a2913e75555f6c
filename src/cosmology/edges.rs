//! Random edges of a graph of halos, and the variables of their laws.

use super::formula::positions;
use super::graph::{Graph, N_FEATURES};
use crate::ops::formula::{VARIABLES, variables};
use crate::random::Random;

const SAMPLE_STREAM: u64 = 0x5A3;
const ROWS_STREAM: u64 = 0x5A4;

/// `count` random edges into `receivers`, drawn uniformly: receiver and sender as φe sees them, with the
/// receiver at the origin.
pub fn sample(
    graph: &Graph,
    features: &[f32],
    receivers: &[u32],
    count: usize,
    seed: u64,
) -> Vec<f32> {
    let mut random = Random::new(seed, SAMPLE_STREAM);
    let ends: Vec<usize> = receivers
        .iter()
        .scan(0, |end, &receiver| {
            *end += graph.edges_of(receiver).len();
            Some(*end)
        })
        .collect();
    let edges = ends.last().copied().unwrap_or(0);
    let count = if edges == 0 { 0 } else { count };
    let period = graph.period();
    let mut inputs = Vec::with_capacity(2 * N_FEATURES * count);
    for _ in 0..count {
        // There may be too many edges for `below` to be unbiased.
        let at = ((random.uniform() * edges as f64) as usize).min(edges - 1);
        let row = ends.partition_point(|&end| end <= at);
        let receiver = receivers[row];
        let span = graph.edges_of(receiver);
        let sender = graph.senders()[span.start + (at - (ends[row] - span.len()))];
        let node = |node: u32| -> &[f32; N_FEATURES] {
            features[node as usize * N_FEATURES..][..N_FEATURES].try_into().expect("a row")
        };
        let (mut own, mut other) = (*node(receiver), *node(sender));
        let values = variables(&own, &other, period);
        own[..3].fill(0.0);
        other[..3].copy_from_slice(&values[2..5]);
        inputs.extend(own);
        inputs.extend(other);
    }
    inputs
}

/// The variables of an edge, from its inputs of φe.
pub fn edge_variables(inputs: &[f32]) -> [f32; VARIABLES.len()] {
    let (own, other) = inputs.split_at(N_FEATURES);
    let row = |row: &[f32]| -> [f32; N_FEATURES] { row.try_into().expect("a row") };
    variables(&row(own), &row(other), f32::INFINITY)
}

/// The values `[edge, variables]` of the named variables for `edges` `[edge, 2·N_FEATURES]`.
pub(super) fn values(edges: &[f32], names: &[String]) -> Vec<f32> {
    let columns = positions(names, &VARIABLES);
    let rows = edges.chunks_exact(2 * N_FEATURES).map(edge_variables);
    rows.flat_map(|all| columns.iter().map(move |&k| all[k]).collect::<Vec<_>>()).collect()
}

/// Turns the displacement of an edge into the direction of another edge's, keeping its length.
pub(super) fn align_displacement(row: &mut [f32], other: &[f32]) {
    let length = |d: &[f32]| d.iter().map(|x| x * x).sum::<f32>().sqrt();
    let (from, to) = (&other[N_FEATURES..N_FEATURES + 3], length(&row[N_FEATURES..N_FEATURES + 3]));
    let scale = to / length(from).max(f32::MIN_POSITIVE);
    for k in 0..3 {
        row[N_FEATURES + k] = scale * from[k];
    }
}

/// Replaces the velocities of an edge by those of another.
pub(super) fn other_velocities(row: &mut [f32], other: &[f32]) {
    for first in [3, N_FEATURES + 3] {
        row[first..first + 3].copy_from_slice(&other[first..first + 3]);
    }
}

/// `rows` rows drawn by importance, and their weights.
///
/// Most neighbours send next to nothing; the others reveal the law. So half of the probability of
/// drawing an edge is uniform, and half is proportional to the distance of its message from the median.
/// The weight is the inverse of the probability: the weighted loss estimates that of all edges, with a
/// fraction of the noise.
pub(super) fn important(values: &[f32], rows: usize, seed: u64) -> (Vec<usize>, Vec<f32>) {
    let mut sorted = values.to_vec();
    let half = sorted.len() / 2;
    let median = *sorted.select_nth_unstable_by(half, f32::total_cmp).1;
    let far: Vec<f64> = values.iter().map(|v| f64::from((v - median).abs())).collect();
    let total: f64 = far.iter().sum::<f64>().max(f64::MIN_POSITIVE);
    let probability = |far: f64| 0.5 / values.len() as f64 + 0.5 * far / total;
    let mut sum = 0.0;
    let ends: Vec<f64> = far
        .iter()
        .map(|&far| {
            sum += probability(far);
            sum
        })
        .collect();
    let mut random = Random::new(seed, ROWS_STREAM);
    let draw = |_| {
        let at = random.uniform() * sum;
        ends.partition_point(|&end| end <= at).min(values.len() - 1)
    };
    let chosen: Vec<usize> = (0..rows).map(draw).collect();
    let weight = |&row: &usize| (1.0 / (probability(far[row]) * values.len() as f64)) as f32;
    let weights = chosen.iter().map(weight).collect();
    (chosen, weights)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn important_rows_weigh_what_all_rows_do() {
        let mut random = Random::new(2, 0);
        // One value in fifty is far from the median.
        let value =
            |k: usize| if k.is_multiple_of(50) { 5.0 + random.normal() as f32 } else { 0.0 };
        let values: Vec<f32> = (0..50_000).map(value).collect();
        let (chosen, weights) = important(&values, 5000, 1);
        let large = chosen.iter().filter(|&&row| values[row] > 1.0).count();
        assert!((2300..2800).contains(&large), "{large} of 5000 rows are of the rare kind");
        let sum: f32 = weights.iter().sum();
        let mean: f32 = chosen.iter().zip(&weights).map(|(&r, w)| w * values[r]).sum::<f32>() / sum;
        let truth = values.iter().sum::<f32>() / 50_000.0;
        assert!((mean / truth - 1.0).abs() < 0.1, "{mean} instead of {truth}");
    }
}
