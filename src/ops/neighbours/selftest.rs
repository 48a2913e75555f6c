//! Boxes of few and many cells against every pair in turn: the edges must be identical.

use super::gpu::ROOM;
use super::{Reach, count, reference};
use crate::device::Device;
use crate::error::Result;
use crate::ops::Check;
use crate::random::Random;

/// Nodes, the edge of the box, the radius: no nodes and more than a GPU scans at a time, one cell and many, rows of
/// every length.
const BOXES: [(usize, f64, f64); 11] = [
    (0, 1.0, 0.5),
    (1, 1.0, 0.5),
    (2, 1.0, 0.5),
    (65, 1.0, 0.4),
    (333, 10.0, 5.0),
    (300, 10.0, 2.6),
    (257, 1e3, 330.0),
    (700, 1e3, 240.0),
    (1000, 1e3, 105.0),
    (1500, 7e-3, 3e-4),
    (9000, 1.0, 0.02),
];

/// Number of wrong elements in rows and senders; none is allowed.
pub fn checks(device: &Device) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    for (nodes, edge, radius) in BOXES {
        let case = format!("{nodes} nodes, radius {radius} in {edge}");
        checks.push(check(device, case, &uniform(nodes, edge), Reach { edge, radius })?);
    }
    let lattice = Reach { edge: 8.0, radius: 2.0 };
    checks.push(check(device, "pairs exactly at the radius".into(), &points(8), lattice)?);
    let crowd = Reach { edge: 1e3, radius: 50.0 };
    checks.push(check(device, "clusters across the faces".into(), &clusters(600, 1e3), crowd)?);
    // Every node near every other: a row as long as a warp of a GPU sorts in shared memory, and a longer one.
    for nodes in [ROOM + 1, ROOM + 2] {
        let case = format!("rows of {}", nodes - 1);
        let reach = Reach { edge: 1.0, radius: 0.2 };
        checks.push(check(device, case, &uniform(nodes, 0.1), reach)?);
    }
    checks.push(last_bits(device)?);
    Ok(checks)
}

/// Pairs around the faces of the box, each with the smallest radius that joins it and the next smaller one: an
/// implementation with other rounding decides differently.
fn last_bits(device: &Device) -> Result<Check> {
    let (edge, pairs) = (0.8, 24);
    let mut random = Random::new(9, 0);
    let mut error = 0.0;
    for _ in 0..pairs {
        let a = [(); 3].map(|()| (edge * random.uniform()) as f32);
        let b = a.map(|x| (f64::from(x) + 0.23 * random.uniform()).rem_euclid(edge) as f32);
        let [a, b] = [a, b].map(|row| row.map(|x| x.min(below(edge))));
        let reach = |radius| Reach { edge, radius };
        let square = reach(0.0).square_distance(a.map(f64::from), b.map(f64::from));
        let mut radius = square.sqrt().next_down();
        while radius * radius < square {
            radius = radius.next_up();
        }
        for radius in [radius, radius.next_down()] {
            error += check(device, String::new(), &[a, b].concat(), reach(radius))?.error;
        }
    }
    let case = format!("{pairs} pairs, the last bit of the radius");
    Ok(Check { operation: "neighbours", case, error, limit: 0.0 })
}

fn check(device: &Device, case: String, positions: &[f32], reach: Reach) -> Result<Check> {
    let (rows, expected) = reference(positions, reach);
    let graph = count(device, positions, reach)?;
    let mut senders = vec![u32::MAX; graph.edges()];
    graph.write_senders(&mut senders)?;
    let wrong = |same: usize, len: usize, other: usize| len.max(other) - same;
    let same_rows = rows.iter().zip(graph.row_start()).filter(|(a, b)| a == b).count();
    let same = expected.iter().zip(&senders).filter(|(a, b)| a == b).count();
    let error = wrong(same_rows, rows.len(), graph.row_start().len())
        + wrong(same, expected.len(), senders.len());
    Ok(Check { operation: "neighbours", case, error: error as f64, limit: 0.0 })
}

/// Random positions in the box; the first at its corner, the second just below the opposite one.
pub(super) fn uniform(nodes: usize, edge: f64) -> Vec<f32> {
    let last = below(edge);
    let mut random = Random::new(7, nodes as u64);
    let anywhere = (0..3 * nodes).map(|_| ((edge * random.uniform()) as f32).min(last));
    let mut positions: Vec<f32> = anywhere.collect();
    for (x, corner) in positions.iter_mut().zip([0.0, 0.0, 0.0, last, last, last]) {
        *x = corner;
    }
    positions
}

/// The largest f32 below `edge`.
pub(super) fn below(edge: f64) -> f32 {
    let x = edge as f32;
    if f64::from(x) < edge { x } else { x.next_down() }
}

/// The points of a lattice, `side` along each axis, a unit apart.
pub(super) fn points(side: usize) -> Vec<f32> {
    let axis = |k: usize| (k % side) as f32;
    (0..side.pow(3)).flat_map(|k| [axis(k / side / side), axis(k / side), axis(k)]).collect()
}

/// Three dense clusters, each on a face, an edge or a corner of the box, with some nodes twice.
fn clusters(nodes: usize, edge: f64) -> Vec<f32> {
    let mut random = Random::new(8, 0);
    let mut positions = Vec::with_capacity(3 * nodes);
    for node in 0..nodes {
        if node % 7 == 6 {
            positions.extend_from_within(3 * (node - 6)..3 * (node - 5));
            continue;
        }
        for axis in 0..3 {
            let centre = if axis <= node % 3 { 0.0 } else { 0.37 * edge };
            let x = (centre + 0.03 * edge * random.normal()).rem_euclid(edge);
            positions.push((x as f32).min(below(edge)));
        }
    }
    positions
}
