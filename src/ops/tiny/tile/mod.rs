//! Forward and backward through one tile of whole graphs, while its activations are in cache.
//!
//! The run's region keeps what the weight gradients need: the input of every layer and the gradient of its output.
//! Edges are sorted by receiver, those of a receiver by sender.

mod backward;
mod forward;
mod penalty;

use super::cpu::Run;
use super::plan::{Operand, Plan};
use crate::ops::mlp::buffer::Shared;
use crate::ops::mlp::kernel::Kernel;

/// The part of the batch in a tile.
struct Tile<'a> {
    job: &'a Run<'a>,
    scratch: Shared<f32>,
    /// First node and edge, and their numbers.
    first_node: usize,
    nodes: usize,
    first_edge: usize,
    edges: usize,
}

/// One step on tile number `index`; returns the sums (|target − prediction|, penalty), weighted.
///
/// # Safety
/// As for [`Kernel`]; the buffers of the run have the planned lengths.
#[inline(always)]
pub(super) unsafe fn step<K: Kernel>(job: &Run, index: usize) -> [f64; 2] {
    let plan = job.plan;
    let bodies = plan.key.bodies;
    let graphs = plan.graphs_per_tile.min(plan.key.graphs - index * plan.graphs_per_tile);
    let first_node = index * plan.graphs_per_tile * bodies;
    let tile = Tile {
        job,
        scratch: job.scratch,
        first_node,
        nodes: graphs * bodies,
        first_edge: first_node * (bodies - 1),
        edges: graphs * bodies * (bodies - 1),
    };
    // SAFETY: as the caller promises.
    unsafe {
        tile.local(plan.scratch.zeros, 0, 0).write_bytes(0, plan.scratch.zeros_len);
        tile.first_layers::<K>();
        let penalty = tile.messages::<K>();
        let prediction = tile.nodes_forward::<K>();
        tile.nodes_backward::<K>();
        tile.edges_backward::<K>();
        tile.pair_rows::<K>();
        [prediction, penalty]
    }
}

impl Tile<'_> {
    fn plan(&self) -> &Plan {
        self.job.plan
    }

    /// Row `row` (of the tile) of a matrix in scratch.
    #[inline(always)]
    unsafe fn local(&self, at: usize, row: usize, width: usize) -> *mut f32 {
        // SAFETY: as the caller promises.
        unsafe { self.scratch.at(at + row * width) }
    }

    /// `width` values of such a row. The scratch outlives the tile, which is its only user.
    #[inline(always)]
    unsafe fn local_row<'s>(
        &self,
        at: usize,
        row: usize,
        stride: usize,
        width: usize,
    ) -> &'s mut [f32] {
        // SAFETY: as the caller promises; no two of a tile's slices overlap.
        unsafe { std::slice::from_raw_parts_mut(self.local(at, row, stride), width) }
    }

    /// Row `row` (of the tile) of an operand with a row for each node, or each edge.
    #[inline(always)]
    unsafe fn node_row(&self, operand: &Operand, row: usize) -> *mut f32 {
        // SAFETY: as the caller promises.
        unsafe { self.job.region.at(operand.at + (self.first_node + row) * operand.row) }
    }
    #[inline(always)]
    unsafe fn edge_row(&self, operand: &Operand, row: usize) -> *mut f32 {
        // SAFETY: as the caller promises.
        unsafe { self.job.region.at(operand.at + (self.first_edge + row) * operand.row) }
    }

    /// Such rows as a product reads them: the first one, and the distance to the next.
    #[inline(always)]
    unsafe fn node_rows(&self, operand: &Operand) -> (*const f32, usize) {
        // SAFETY: as the caller promises.
        (unsafe { self.node_row(operand, 0) }.cast_const(), operand.row)
    }
    #[inline(always)]
    unsafe fn edge_rows(&self, operand: &Operand) -> (*const f32, usize) {
        // SAFETY: as the caller promises.
        (unsafe { self.edge_row(operand, 0) }.cast_const(), operand.row)
    }

    /// Values or gradients of node `row` in one of the three feature segments.
    #[inline(always)]
    unsafe fn segment(&self, segment: usize, row: usize) -> *mut f32 {
        let stride = self.plan().hidden_row;
        let place = ((self.first_node + row) * 3 + segment) * stride;
        // SAFETY: as the caller promises.
        unsafe { self.job.region.at(self.plan().feature_values + place) }
    }

    /// For each edge of the tile: (edge, receiver, sender), as rows of the tile.
    #[inline(always)]
    fn each_edge(&self, mut work: impl FnMut(usize, usize, usize)) {
        let bodies = self.plan().key.bodies;
        let mut edge = 0;
        for receiver in 0..self.nodes {
            let first = receiver / bodies * bodies;
            for sender in (first..first + bodies).filter(|&s| s != receiver) {
                work(edge, receiver, sender);
                edge += 1;
            }
        }
    }

    /// Prepares the operands for sums over rows.
    #[inline(always)]
    unsafe fn pair_rows<K: Kernel>(&self) {
        let plan = self.plan();
        // SAFETY: as the caller promises; every tile except the last has an even number of rows.
        unsafe {
            for operand in plan.edge_hidden.iter().chain(&plan.edge_gradients) {
                K::pair_rows(self.edge_row(operand, 0), self.edges, operand.row);
            }
            if plan.key.penalized {
                let operand = &plan.message_gradients;
                K::pair_rows(self.edge_row(operand, 0), self.edges, operand.row);
            } else {
                for operand in [&plan.message_gradients, &plan.hidden_sums] {
                    K::pair_rows(self.node_row(operand, 0), self.nodes, operand.row);
                }
            }
            let rest = [&plan.messages, &plan.output_gradients];
            for operand in plan.node_hidden.iter().chain(&plan.node_gradients).chain(rest) {
                K::pair_rows(self.node_row(operand, 0), self.nodes, operand.row);
            }
        }
    }
}

/// −1, 0 or 1.
#[inline(always)]
fn sign(x: f32) -> f32 {
    f32::from(u8::from(x > 0.0)) - f32::from(u8::from(x < 0.0))
}
