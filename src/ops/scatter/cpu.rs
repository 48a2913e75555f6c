//! Sums over edges on the processor: edges sorted by counting, then nodes in parallel. Memory sets the
//! pace, so that the vectors every processor has will do.

use rayon::prelude::*;

use super::Edges;

/// Nodes of a task.
const NODES: usize = 64;

pub(super) fn add(edges: Edges, width: usize, values: &[f32], out: &mut [f32]) {
    match edges {
        Edges::Rows(rows) => {
            let of = |node: usize| rows[node] as usize..rows[node + 1] as usize;
            add_to_each(width, values, out, of);
        }
        Edges::Receivers(receivers) => {
            let (start, order) = sorted(receivers, out.len() / width);
            let of = |node: usize| {
                let own = &order[start[node] as usize..start[node + 1] as usize];
                own.iter().map(|&edge| edge as usize)
            };
            add_to_each(width, values, out, of);
        }
    }
}

/// Where the edges of each node begin, `[node + 1]`, and the edges by receiver, in their own order.
fn sorted(receivers: &[u32], nodes: usize) -> (Vec<u32>, Vec<u32>) {
    let mut start = vec![0u32; nodes + 1];
    for &receiver in receivers {
        start[receiver as usize + 1] += 1;
    }
    for node in 0..nodes {
        start[node + 1] += start[node];
    }
    let mut next = start.clone();
    let mut order = vec![0; receivers.len()];
    for (edge, &receiver) in receivers.iter().enumerate() {
        let place = &mut next[receiver as usize];
        order[*place as usize] = edge as u32;
        *place += 1;
    }
    (start, order)
}

/// Adds to each node the values of the edges that `of` gives for it, in that order.
fn add_to_each<I: Iterator<Item = usize>>(
    width: usize,
    values: &[f32],
    out: &mut [f32],
    of: impl Fn(usize) -> I + Sync,
) {
    out.par_chunks_mut(NODES * width).enumerate().for_each(|(task, sums)| {
        for (node, sums) in sums.chunks_exact_mut(width).enumerate() {
            for edge in of(task * NODES + node) {
                for (sum, value) in sums.iter_mut().zip(&values[edge * width..][..width]) {
                    *sum += value;
                }
            }
        }
    });
}
