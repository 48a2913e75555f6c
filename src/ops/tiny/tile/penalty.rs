//! Messages with a penalty: their sums with the penalty itself, and their gradients.

use super::{Tile, sign};
use crate::ops::mlp::kernel::{Kernel, LANES};
use crate::ops::mlp::product::narrow;
use crate::ops::tiny::noise;

impl Tile<'_> {
    /// Factor of the penalty of one edge.
    fn per_edge(&self, weight: f32) -> f32 {
        weight / (self.plan().nodes * (self.plan().key.bodies - 1)) as f32
    }

    /// Sums the messages; returns the L1 penalty.
    #[inline(always)]
    pub(super) unsafe fn sum_l1(&self, weight: f32) -> f64 {
        let (plan, scratch) = (self.plan(), &self.plan().scratch);
        let width = plan.key.shape.message_dim.next_multiple_of(LANES);
        let degree = plan.key.bodies - 1;
        let mut total = 0.0;
        for node in 0..self.nodes {
            // SAFETY: as the caller promises; padding columns of the messages are zero.
            unsafe {
                let sums = self.local_row(scratch.nodes, node, plan.message_row, width);
                sums.fill(0.0);
                let mut lanes = [0.0f32; LANES];
                for edge in node * degree..(node + 1) * degree {
                    let row = self.local_row(scratch.edge_outputs, edge, plan.edge_row, width);
                    for (sums, row) in sums.chunks_exact_mut(LANES).zip(row.chunks_exact(LANES)) {
                        for ((sum, lane), &e) in sums.iter_mut().zip(&mut lanes).zip(row) {
                            *sum += e;
                            *lane += e.abs();
                        }
                    }
                }
                total += f64::from(lanes.iter().sum::<f32>());
            }
        }
        total * f64::from(self.per_edge(weight))
    }

    /// Samples and sums the messages; returns the Kullback–Leibler penalty.
    #[inline(always)]
    pub(super) unsafe fn sum_kl(&self, weight: f32) -> f64 {
        let (plan, scratch) = (self.plan(), &self.plan().scratch);
        let batch = self.job.batch;
        let width = plan.key.shape.message_dim;
        let degree = plan.key.bodies - 1;
        let seed = batch.noise_seeds[self.job.run];
        let mut total = 0.0;
        for node in 0..self.nodes {
            // SAFETY: as the caller promises.
            unsafe {
                let padded = width.next_multiple_of(LANES);
                let sums = self.local_row(scratch.nodes, node, plan.message_row, padded);
                sums.fill(0.0);
                let mut lanes = [0.0f32; LANES];
                for edge in node * degree..(node + 1) * degree {
                    let row = self.local_row(scratch.edge_outputs, edge, plan.edge_row, 2 * width);
                    let (means, logs) = row.split_at(width);
                    let deviations =
                        self.local_row(scratch.deviations, edge, plan.message_row, width);
                    let noise = self.local_row(scratch.row, 0, 0, width.next_multiple_of(64));
                    noise::fill(seed, batch.step, (self.first_edge + edge) as u32, noise);
                    let z = means.iter().zip(logs.iter());
                    let each = deviations.iter_mut().zip(&mut *sums).zip(&mut *noise);
                    for (((deviation, sum), term), (&mean, &log)) in each.zip(z) {
                        let sigma = noise::exp(0.5 * log);
                        *deviation = sigma * *term;
                        *sum += mean + *deviation;
                        *term = 0.5 * (mean * mean + sigma * sigma - log - 1.0);
                    }
                    noise[width..].fill(0.0);
                    for terms in noise.chunks_exact(LANES) {
                        lanes.iter_mut().zip(terms).for_each(|(lane, term)| *lane += term);
                    }
                }
                total += f64::from(lanes.iter().sum::<f32>());
            }
        }
        total * f64::from(self.per_edge(weight))
    }

    /// φe's outputs for an edge, padded to whole vectors, and the gradient with respect to the receiver's sum.
    #[inline(always)]
    unsafe fn output_and_gradient<'s>(&self, edge: usize) -> (&'s mut [f32], &'s [f32]) {
        let (plan, shape) = (self.plan(), &self.plan().key.shape);
        let widths = [shape.edge_outputs(), shape.message_dim];
        let [outputs, messages] = widths.map(|width| width.next_multiple_of(LANES));
        let node = edge / (plan.key.bodies - 1);
        // SAFETY: as the caller promises.
        unsafe {
            (
                self.local_row(plan.scratch.edge_outputs, edge, plan.edge_row, outputs),
                self.local_row(plan.scratch.d_messages, node, plan.message_row, messages),
            )
        }
    }

    /// Gradients of the messages with the L1 penalty, as operand.
    #[inline(always)]
    pub(super) unsafe fn l1_gradients<K: Kernel>(&self, weight: f32) {
        let (plan, weight) = (self.plan(), self.per_edge(weight));
        for edge in 0..self.edges {
            // SAFETY: as the caller promises.
            unsafe {
                let (row, d) = self.output_and_gradient(edge);
                for (e, &d) in row.iter_mut().zip(d) {
                    *e = d + weight * sign(*e);
                }
                let to = self.edge_row(&plan.message_gradients, edge);
                narrow::<K>(row.as_ptr(), to, plan.key.shape.message_dim);
            }
        }
    }

    /// Gradients of means and log-variances, as operand.
    #[inline(always)]
    pub(super) unsafe fn kl_gradients<K: Kernel>(&self, weight: f32) {
        let (plan, weight) = (self.plan(), self.per_edge(weight));
        let width = plan.key.shape.message_dim;
        for edge in 0..self.edges {
            // SAFETY: as the caller promises.
            unsafe {
                let (row, d) = self.output_and_gradient(edge);
                let (means, logs) = row[..2 * width].split_at_mut(width);
                let deviations =
                    self.local_row(plan.scratch.deviations, edge, plan.message_row, width);
                let z = means.iter_mut().zip(&mut *logs);
                for ((&d, &deviation), (mean, log)) in d.iter().zip(&*deviations).zip(z) {
                    *mean = d + weight * *mean;
                    *log = 0.5 * (d * deviation + weight * (noise::exp(*log) - 1.0));
                }
                let to = self.edge_row(&plan.message_gradients, edge);
                narrow::<K>(row.as_ptr(), to, 2 * width);
            }
        }
    }
}
