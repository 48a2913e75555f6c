//! The radius graph on the CPU: nodes sorted by cell, blocks of candidates that the compiler vectorises for each level,
//! rows in parallel.

use std::ops::Range;

use rayon::prelude::*;

use super::{Grid, Reach};
use crate::device::{Cpu, Simd};

/// Candidates of a block.
const LANES: usize = 16;
/// Rows of a task.
const ROWS: usize = 128;

/// The nodes, cell by cell.
pub(super) struct Cells<'a> {
    simd: Simd,
    reach: Reach,
    grid: Grid,
    /// `[node, 3]`, in the order of the caller.
    positions: &'a [f32],
    /// `[cell + 1]`
    start: Vec<u32>,
    /// x, y and z, `[node]` each, with NaN to fill the last block.
    sorted: [Vec<f32>; 3],
    /// `[node]`: the number of the node.
    node: Vec<u32>,
}

impl<'a> Cells<'a> {
    /// Makes the cells by a counting sort.
    pub(super) fn new(cpu: Cpu, positions: &'a [f32], reach: Reach, grid: Grid) -> Self {
        let nodes = positions.len() / 3;
        let mut start = vec![0u32; grid.cells() + 1];
        for row in positions.chunks_exact(3) {
            start[grid.cell(row) + 1] += 1;
        }
        for cell in 0..grid.cells() {
            start[cell + 1] += start[cell];
        }
        let mut next = start.clone();
        let mut sorted = [(); 3].map(|()| vec![f32::NAN; nodes + LANES]);
        let mut node = vec![0; nodes];
        for (i, row) in positions.chunks_exact(3).enumerate() {
            let next = &mut next[grid.cell(row)];
            let place = *next as usize;
            *next += 1;
            for (sorted, &x) in sorted.iter_mut().zip(row) {
                sorted[place] = x;
            }
            node[place] = i as u32;
        }
        Cells { simd: cpu.simd(), reach, grid, positions, start, sorted, node }
    }

    /// `[node + 1]`, by counting the neighbours.
    pub(super) fn row_start(&self) -> Vec<u64> {
        let nodes = self.positions.len() / 3;
        let mut row_start = vec![0; nodes + 1];
        let tasks = row_start[1..].par_chunks_mut(ROWS).enumerate();
        tasks.for_each(|(task, counts)| match self.simd.vectors() {
            // SAFETY: a level exists only if `Simd::detect` found its instructions.
            #[cfg(target_arch = "x86_64")]
            Simd::Avx512 => unsafe { count_avx512(self, task * ROWS, counts) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Simd::Avx2 => unsafe { count_avx2(self, task * ROWS, counts) },
            _ => count(self, task * ROWS, counts),
        });
        for i in 0..nodes {
            row_start[i + 1] += row_start[i];
        }
        row_start
    }

    /// Writes the senders of each row; `row_start` is that of this graph.
    pub(super) fn write(&self, row_start: &[u64], mut senders: &mut [u32]) {
        let nodes = self.positions.len() / 3;
        let mut tasks = Vec::with_capacity(nodes.div_ceil(ROWS));
        for first in (0..nodes).step_by(ROWS) {
            let rows = &row_start[first..=(first + ROWS).min(nodes)];
            let len = (rows[rows.len() - 1] - rows[0]) as usize;
            let (own, rest) = std::mem::take(&mut senders).split_at_mut(len);
            senders = rest;
            tasks.push((first, rows, own));
        }
        tasks.into_par_iter().for_each_init(Vec::new, |found, (first, rows, own)| {
            match self.simd.vectors() {
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Simd::Avx512 => unsafe { write_avx512(self, first, rows, own, found) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Simd::Avx2 => unsafe { write_avx2(self, first, rows, own, found) },
                _ => write(self, first, rows, own, found),
            }
        });
    }

    /// Calls `each(first, len, squares)` for each block of candidates of node `i`: places first..first + len of the
    /// sorted nodes, and their squared distances.
    #[inline(always)]
    fn candidates(&self, i: usize, each: impl FnMut(usize, usize, &[f64; LANES])) {
        self.candidates_of(self.positions[3 * i..][..3].try_into().expect("three of three"), each);
    }

    /// Calls `each` with every node at most the radius away from a point.
    #[inline]
    pub(super) fn within(&self, point: [f32; 3], mut each: impl FnMut(u32)) {
        let limit = self.reach.radius * self.reach.radius;
        self.candidates_of(&point, |first, len, squares| {
            for k in (0..len).filter(|&k| squares[k] <= limit) {
                each(self.node[first + k]);
            }
        });
    }

    #[inline(always)]
    fn candidates_of(&self, row: &[f32; 3], mut each: impl FnMut(usize, usize, &[f64; LANES])) {
        let centre = row.map(f64::from);
        let [x, y, z] = row.map(|x| self.grid.around(self.grid.along(x)));
        let side = self.grid.side as usize;
        for x in x.into_iter().flatten() {
            for y in y.clone().into_iter().flatten() {
                let column = (x as usize * side + y as usize) * side;
                for z in &z {
                    let Range { start, end } = *z;
                    let mut first = self.start[column + start as usize] as usize;
                    let end = self.start[column + end as usize] as usize;
                    while first < end {
                        each(first, (end - first).min(LANES), &self.squares(first, centre));
                        first += LANES;
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn squares(&self, first: usize, centre: [f64; 3]) -> [f64; LANES] {
        let block = |axis: usize| -> &[f32; LANES] {
            self.sorted[axis][first..][..LANES].try_into().expect("a block of a block")
        };
        let (x, y, z) = (block(0), block(1), block(2));
        std::array::from_fn(|k| {
            self.reach.square_distance(centre, [x[k].into(), y[k].into(), z[k].into()])
        })
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn count_avx512(cells: &Cells, first: usize, counts: &mut [u64]) {
    count(cells, first, counts);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn count_avx2(cells: &Cells, first: usize, counts: &mut [u64]) {
    count(cells, first, counts);
}

/// Counts the neighbours of nodes first, first + 1, …
#[inline(always)]
fn count(cells: &Cells, first: usize, counts: &mut [u64]) {
    let limit = cells.reach.radius * cells.reach.radius;
    for (i, count) in counts.iter_mut().enumerate() {
        let mut within = 0;
        cells.candidates(first + i, |_, len, squares| {
            let hits: u32 = (0..LANES).map(|k| u32::from((squares[k] <= limit) & (k < len))).sum();
            within += u64::from(hits);
        });
        // The node itself is at distance zero.
        *count = within - 1;
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn write_avx512(c: &Cells, first: usize, rows: &[u64], senders: &mut [u32], found: &mut Vec<u32>) {
    write(c, first, rows, senders, found);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn write_avx2(c: &Cells, first: usize, rows: &[u64], senders: &mut [u32], found: &mut Vec<u32>) {
    write(c, first, rows, senders, found);
}

/// Writes the senders of nodes first, first + 1, …, whose rows begin at `rows[0]`; `found` is scratch.
#[inline(always)]
fn write(cells: &Cells, first: usize, rows: &[u64], mut senders: &mut [u32], found: &mut Vec<u32>) {
    let limit = cells.reach.radius * cells.reach.radius;
    for (i, ends) in rows.windows(2).enumerate() {
        let (row, rest) = senders.split_at_mut((ends[1] - ends[0]) as usize);
        senders = rest;
        // Each candidate is written and then kept or overwritten: no branch to predict.
        found.resize(row.len() + 1, 0);
        let mut len = 0;
        cells.candidates(first + i, |at, count, squares| {
            for (&node, &square) in cells.node[at..][..count].iter().zip(squares) {
                found[len] = node;
                len += usize::from((square <= limit) & (node as usize != first + i));
            }
        });
        row.copy_from_slice(&found[..len]);
        row.sort_unstable();
    }
}
