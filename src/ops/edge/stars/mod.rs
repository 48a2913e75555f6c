//! Forward and backward through groups of whole stars, while their activations are in cache.

mod backward;
mod forward;

use std::ops::Range;

use super::Batch;
use super::plan::{GROUP_RECEIVERS, Plan, TILE, group};
use crate::ops::mlp::buffer::Shared;
use crate::ops::mlp::kernel::Kernel;

/// Some of the receivers, in order: the work of one task.
pub(super) struct Part<'a> {
    pub batch: &'a Batch<'a>,
    pub plan: &'a Plan,
    /// Weights, `[plan.packed]`.
    pub packed: Shared<f32>,
    /// `[plan.scratch.len]`, of this thread.
    pub scratch: Shared<f32>,
    /// Indices of the batch's receivers.
    pub receivers: Range<usize>,
    pub purpose: Purpose<'a>,
}

/// What to compute for a part.
pub(super) enum Purpose<'a> {
    /// The gradient, added up in `sums` `[plan.sums]`, for targets of all nodes; `edges` of the batch.
    Gradient { targets: &'a [f32], sums: Shared<f32>, edges: usize },
    /// The predictions of all receivers of the batch, `[receivers, outputs]`.
    Predictions(Shared<f32>),
}

/// Processes a part; returns the sums (|target − prediction|, penalty), weighted.
///
/// # Safety
/// As for [`Kernel`]; the buffers have the planned lengths.
#[inline(always)]
pub(super) unsafe fn work<K: Kernel>(part: &Part) -> [f64; 2] {
    let (batch, scratch) = (part.batch, &part.plan.scratch);
    let mut total = [0.0; 2];
    // SAFETY: as the caller promises.
    unsafe {
        part.scratch.at(scratch.zeros).write_bytes(0, scratch.zeros_len);
        if let Purpose::Gradient { sums, .. } = part.purpose {
            sums.at(0).write_bytes(0, part.plan.sums);
        }
        let mut first = part.receivers.start;
        while first < part.receivers.end {
            let rest = &batch.receivers[first..part.receivers.end];
            let count = group(rest.iter().map(|&receiver| batch.edges_of(receiver).len()));
            let mut starts = [0; GROUP_RECEIVERS + 1];
            for (row, &receiver) in rest[..count].iter().enumerate() {
                starts[row + 1] = starts[row] + batch.edges_of(receiver).len();
            }
            let group = Group { part, plan: part.plan, first, count, starts };
            let sums = group.step::<K>();
            total = [total[0] + sums[0], total[1] + sums[1]];
            first += count;
        }
    }
    total
}

/// A few whole stars.
struct Group<'a> {
    part: &'a Part<'a>,
    plan: &'a Plan,
    /// Index of the first receiver.
    first: usize,
    count: usize,
    /// First edge of each receiver, counted within the group; then the total.
    starts: [usize; GROUP_RECEIVERS + 1],
}

impl Group<'_> {
    #[inline(always)]
    unsafe fn step<K: Kernel>(&self) -> [f64; 2] {
        let edges = self.starts[self.count];
        // SAFETY: as the caller promises.
        unsafe {
            for start in (0..edges).step_by(TILE) {
                self.edges_forward::<K>(start..edges.min(start + TILE));
            }
            let penalty = self.sum_messages::<K>();
            let prediction = self.nodes_forward::<K::Wide>();
            if matches!(self.part.purpose, Purpose::Gradient { .. }) {
                self.nodes_backward::<K::Wide>();
                for start in (0..edges).step_by(TILE) {
                    self.edges_backward::<K>(start..edges.min(start + TILE));
                }
            }
            [prediction, penalty]
        }
    }

    /// Row `row` of a matrix of scratch.
    #[inline(always)]
    unsafe fn at(&self, matrix: usize, row: usize, stride: usize) -> *mut f32 {
        // SAFETY: as the caller promises.
        unsafe { self.part.scratch.at(matrix + row * stride) }
    }

    /// `width` values of such a row. The scratch outlives the group, which is its only user.
    #[inline(always)]
    unsafe fn row<'s>(
        &self,
        matrix: usize,
        row: usize,
        stride: usize,
        width: usize,
    ) -> &'s mut [f32] {
        // SAFETY: as the caller promises; slices in use at the same time do not overlap.
        unsafe { std::slice::from_raw_parts_mut(self.at(matrix, row, stride), width) }
    }

    /// Weight of the penalty of one edge.
    #[inline(always)]
    fn per_edge(&self, weight: f32) -> f32 {
        match self.part.purpose {
            Purpose::Gradient { edges, .. } => weight / edges as f32,
            Purpose::Predictions(_) => 0.0,
        }
    }

    /// Each receiver with its edges within `range`.
    #[inline(always)]
    fn stars(&self, range: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
        (0..self.count).filter_map(move |row| {
            let own = self.starts[row].max(range.start)..self.starts[row + 1].min(range.end);
            (!own.is_empty()).then_some((row, own))
        })
    }
}

/// The difference of two coordinates to the nearest image.
#[inline(always)]
pub(super) fn nearest(difference: f32, period: f32) -> f32 {
    if period > 0.0 { difference - period * (difference / period).round() } else { difference }
}

/// −1, 0 or 1.
#[inline(always)]
fn sign(x: f32) -> f32 {
    f32::from(u8::from(x > 0.0)) - f32::from(u8::from(x < 0.0))
}
