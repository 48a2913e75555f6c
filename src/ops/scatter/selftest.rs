//! Both forms of edges, with sizes around those of vectors and warps, against sums in f64.

use super::{Edges, add};
use crate::device::Device;
use crate::error::Result;
use crate::ops::{Check, relative_error};
use crate::random::Random;

/// Numbers of edges, and of elements of each.
pub(super) const SIZES: [usize; 8] = [1, 7, 8, 63, 64, 65, 128, 389];

/// Every width, with few edges for the wide ones and many for the narrow ones.
pub fn checks(device: &Device) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    for (width, edges) in SIZES.into_iter().zip(SIZES.into_iter().rev()) {
        checks.extend(check(device, edges, width)?);
    }
    Ok(checks)
}

/// Rows, and the same edges in any order.
pub(super) fn check(device: &Device, edges: usize, width: usize) -> Result<[Check; 2]> {
    let problem = Problem::new(edges, width);
    let Problem { receivers, values, .. } = &problem;
    let mut sums = problem.out.clone();
    add(device, Edges::Receivers(receivers), width, values, &mut sums)?;
    let (row_start, sorted) = problem.rows();
    let mut of_rows = problem.out.clone();
    add(device, Edges::Rows(&row_start), width, &sorted, &mut of_rows)?;

    let (mut exact, mut naive) =
        (problem.out.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>(), problem.out.clone());
    for (value, &receiver) in values.chunks_exact(width).zip(receivers) {
        for (column, &value) in value.iter().enumerate() {
            exact[receiver as usize * width + column] += f64::from(value);
            naive[receiver as usize * width + column] += value;
        }
    }
    let limit = 2.0 * relative_error(&naive, &exact) + 1e-6;
    let case = |form: &str| format!("{edges} edges × {width} {form}");
    let check = |form, found: &[f32]| {
        let error = relative_error(found, &exact);
        Check { operation: "scatter", case: case(form), error, limit }
    };
    Ok([check("in any order", &sums), check("in rows", &of_rows)])
}

/// Edges whose receivers are 0, 2, 4, … of `nodes`, so that every other node has none, and the first has a third of
/// all.
pub(super) struct Problem {
    pub(super) nodes: usize,
    pub(super) width: usize,
    pub(super) receivers: Vec<u32>,
    pub(super) values: Vec<f32>,
    pub(super) out: Vec<f32>,
}

impl Problem {
    pub(super) fn new(edges: usize, width: usize) -> Self {
        let mut random = Random::new(9, (edges * 1000 + width) as u64);
        let nodes = edges / 3 + 2;
        let mut receiver = || match random.uniform() {
            u if u < 1.0 / 3.0 => 0,
            _ => (random.uniform() * nodes as f64) as u32 / 2 * 2,
        };
        let receivers = (0..edges).map(|_| receiver()).collect();
        let mut normals = |count| (0..count).map(|_| random.normal() as f32).collect();
        Problem {
            nodes,
            width,
            receivers,
            values: normals(edges * width),
            out: normals(nodes * width),
        }
    }

    /// The same edges by receiver: where those of each node begin, and their values.
    pub(super) fn rows(&self) -> (Vec<u64>, Vec<f32>) {
        let (mut row_start, mut sorted) = (vec![0], Vec::new());
        for node in 0..self.nodes {
            let edges = self.values.chunks_exact(self.width).zip(&self.receivers);
            let own = edges.filter(|(_, receiver)| **receiver as usize == node);
            own.for_each(|(values, _)| sorted.extend_from_slice(values));
            row_start.push((sorted.len() / self.width) as u64);
        }
        (row_start, sorted)
    }
}
