//! Sums over edges on the CPU. Memory bandwidth sets the pace: values are read in their own order, each by the one
//! thread that owns its receiver, and baseline vector instructions are enough.

use rayon::prelude::*;

use super::Edges;

/// Nodes of a task for edges in rows.
const NODES: usize = 64;
/// For edges in any order, how many a task looks at before it adds.
const BLOCK: usize = 256;

pub(super) fn add(edges: Edges, width: usize, values: &[f32], out: &mut [f32]) {
    let nodes = out.len() / width;
    match edges {
        Edges::Rows(row_start) => {
            out.par_chunks_mut(NODES * width).enumerate().for_each(|(task, sums)| {
                let ends = row_start[task * NODES..].windows(2);
                for (sums, ends) in sums.chunks_exact_mut(width).zip(ends) {
                    let own = ends[0] as usize * width..ends[1] as usize * width;
                    values[own].chunks_exact(width).for_each(|values| add_row(sums, values));
                }
            });
        }
        // Each thread gets a part of the nodes and skips the edges of the others: after a sort by receiver values would
        // be read out of order, which takes twice as long.
        Edges::Receivers(receivers) => {
            let part = nodes.div_ceil(rayon::current_num_threads()).max(1);
            out.par_chunks_mut(part * width).enumerate().for_each(|(task, sums)| {
                let own = task * part..task * part + sums.len() / width;
                let mut found = [0; BLOCK];
                for (block, receivers) in receivers.chunks(BLOCK).enumerate() {
                    // Each edge is written and then kept or overwritten: no branch to predict.
                    let mut len = 0;
                    for (k, &receiver) in receivers.iter().enumerate() {
                        found[len] = k;
                        len += usize::from(own.contains(&(receiver as usize)));
                    }
                    for &k in &found[..len] {
                        let (edge, node) = (block * BLOCK + k, receivers[k] as usize - own.start);
                        let values = &values[edge * width..][..width];
                        add_row(&mut sums[node * width..][..width], values);
                    }
                }
            });
        }
    }
}

fn add_row(sums: &mut [f32], values: &[f32]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += value;
    }
}
