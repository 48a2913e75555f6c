//! From features to predictions.

use std::ops::Range;

use super::{Group, Purpose, nearest, sign};
use crate::ops::edge::Penalty;
use crate::ops::edge::plan::Matrix;
use crate::ops::mlp::kernel::{Kernel, LANES};
use crate::ops::mlp::product::{Out, Product, narrow};
use crate::ops::tiny::noise;

/// Edges that are summed before the sum is added to the rest: the rounding of a sum of hundreds of terms of one sign
/// would show.
const SUMMED: usize = 32;

impl Group<'_> {
    /// [receiver's features, sender's features with coordinates relative to the receiver's].
    #[inline(always)]
    unsafe fn gather(&self, range: Range<usize>) {
        let (batch, plan) = (self.part.batch, self.plan);
        let (width, coordinates) = (plan.shape.n_features, &batch.coordinates);
        for (row, own) in self.stars(range) {
            let receiver = batch.receivers[self.first + row];
            let senders = &batch.sender[batch.edges_of(receiver)];
            let here = &batch.features[receiver as usize * width..][..width];
            for edge in own {
                let there = senders[edge - self.starts[row]] as usize;
                let there = &batch.features[there * width..][..width];
                // SAFETY: as the caller promises.
                let to = unsafe { self.row(plan.scratch.inputs, edge, plan.input_row, 2 * width) };
                let (own, other) = to.split_at_mut(width);
                own.copy_from_slice(here);
                other.copy_from_slice(there);
                for k in 0..coordinates.dim {
                    own[k] += coordinates.shift[k];
                    other[k] = nearest(there[k] - here[k], coordinates.period);
                }
            }
        }
    }

    /// rows × matrix.
    #[inline(always)]
    unsafe fn forward<K: Kernel>(
        &self,
        matrix: &Matrix,
        rows: usize,
        (a, a_row): (*const f32, usize),
        out: Out,
    ) {
        // SAFETY: as the caller promises.
        unsafe {
            K::product(&Product {
                rows,
                columns: matrix.outputs,
                terms: matrix.inputs,
                a,
                a_row,
                b: self.part.packed.at(matrix.forward),
                addend: self.part.packed.at(matrix.padded_bias),
                addend_row: 0,
                out,
            });
        }
    }

    /// φe on some edges, up to the last hidden layer, or to the messages if each is needed.
    #[inline(always)]
    pub(super) unsafe fn edges_forward<K: Kernel>(&self, range: Range<usize>) {
        let (plan, scratch) = (self.plan, &self.plan.scratch);
        let (first, rows) = (range.start, range.len());
        let (matrices, _) = plan.networks();
        // SAFETY: as the caller promises.
        unsafe {
            self.gather(range);
            let hidden = |layer: usize| self.at(scratch.hidden[layer], first, plan.hidden_row);
            let input = self.at(scratch.inputs, first, plan.input_row).cast_const();
            let input = (input, plan.input_row);
            if K::PER_WORD == 1 {
                let out = Out::Relu { to: hidden(0), row: plan.hidden_row };
                self.forward::<K>(&matrices[0], rows, input, out);
            } else {
                let wide = self.at(scratch.wide, 0, 0);
                let out = Out::Relu { to: wide, row: plan.wide_row };
                self.forward::<K::Wide>(&matrices[0], rows, input, out);
                for row in 0..rows {
                    let from = wide.add(row * plan.wide_row);
                    narrow::<K>(from, hidden(0).add(row * plan.hidden_row), plan.shape.hidden);
                }
            }
            for (layer, matrix) in matrices[..plan.shape.layers].iter().enumerate().skip(1) {
                let input = (hidden(layer - 1).cast_const(), plan.hidden_row);
                let out = Out::Relu { to: hidden(layer), row: plan.hidden_row };
                self.forward::<K>(matrix, rows, input, out);
            }
            if plan.penalized {
                let input = (hidden(plan.shape.layers - 1).cast_const(), plan.hidden_row);
                let to = self.at(scratch.outputs, first, plan.edge_row);
                let out = Out::Linear { to, row: plan.edge_row };
                self.forward::<K>(&matrices[plan.shape.layers], rows, input, out);
            }
        }
    }

    /// Sums the messages of each receiver into φv's inputs; returns the penalty.
    #[inline(always)]
    pub(super) unsafe fn sum_messages<K: Kernel>(&self) -> f64 {
        let (plan, scratch, batch) = (self.plan, &self.plan.scratch, self.part.batch);
        let (features, width) = (plan.shape.n_features, plan.shape.message_dim);
        let mut penalty = 0.0;
        // SAFETY: as the caller promises.
        unsafe {
            if !plan.penalized {
                self.sum_hidden::<K>();
            }
            for row in 0..self.count {
                let receiver = batch.receivers[self.first + row];
                let input = self.row(scratch.node_inputs, row, plan.node_row, features + width);
                let (own, sums) = input.split_at_mut(features);
                own.copy_from_slice(&batch.features[receiver as usize * features..][..features]);
                let coordinates = own[..batch.coordinates.dim].iter_mut();
                coordinates.zip(batch.coordinates.shift).for_each(|(x, shift)| *x += shift);
                let edges = self.starts[row]..self.starts[row + 1];
                match batch.penalty {
                    Penalty::None => {
                        let bias = &plan.networks().0[plan.shape.layers].padded_bias;
                        let bias = std::slice::from_raw_parts(self.part.packed.at(*bias), width);
                        // The product above has added one bias; a sum over edges needs one for each.
                        let missing = edges.len() as f32 - 1.0;
                        sums.iter_mut().zip(bias).for_each(|(sum, b)| *sum += missing * b);
                    }
                    Penalty::L1(_) => penalty += self.sum_l1(edges, sums),
                    Penalty::Kl(_) => {
                        let receiver = batch.edges_of(receiver).start;
                        penalty += self.sum_kl(edges, receiver, sums);
                    }
                }
            }
        }
        match batch.penalty {
            Penalty::None => 0.0,
            Penalty::L1(weight) | Penalty::Kl(weight) => penalty * f64::from(self.per_edge(weight)),
        }
    }

    /// Without a penalty the last layer acts on the sums of the last hidden layer over edges.
    #[inline(always)]
    unsafe fn sum_hidden<K: Kernel>(&self) {
        let (plan, scratch) = (self.plan, &self.plan.scratch);
        let layers = plan.shape.layers;
        // SAFETY: as the caller promises.
        unsafe {
            for row in 0..self.count {
                let to = self.at(scratch.hidden_sums, row, plan.wide_row);
                for column in (0..plan.shape.hidden).step_by(LANES) {
                    let mut sum = K::zero();
                    let edges = self.starts[row]..self.starts[row + 1];
                    for first in edges.clone().step_by(SUMMED) {
                        let mut part = K::zero();
                        for edge in first..edges.end.min(first + SUMMED) {
                            let from = self.at(scratch.hidden[layers - 1], edge, plan.hidden_row);
                            part = K::add(part, K::get(from, column));
                        }
                        sum = K::add(sum, part);
                    }
                    K::store(to.add(column), sum);
                }
            }
            let input = (self.at(scratch.hidden_sums, 0, 0).cast_const(), plan.wide_row);
            let to = self.at(scratch.node_inputs, 0, 0).add(plan.shape.n_features);
            let out = Out::Linear { to, row: plan.node_row };
            self.forward::<K::Wide>(&plan.networks().0[layers], self.count, input, out);
        }
    }

    /// Sums the messages of some edges, and their absolute values.
    #[inline(always)]
    unsafe fn sum_l1(&self, edges: Range<usize>, sums: &mut [f32]) -> f64 {
        let (scratch, stride) = (&self.plan.scratch, self.plan.edge_row);
        let mut total = 0.0;
        sums.fill(0.0);
        for first in edges.clone().step_by(SUMMED) {
            let mut lanes = [0.0f32; LANES];
            for edge in first..edges.end.min(first + SUMMED) {
                // SAFETY: as the caller promises.
                let row = unsafe { self.row(scratch.outputs, edge, stride, sums.len()) };
                sums.iter_mut().zip(&*row).for_each(|(sum, e)| *sum += e);
                for part in row.chunks(LANES) {
                    lanes.iter_mut().zip(part).for_each(|(lane, e)| *lane += e.abs());
                }
            }
            total += lanes.iter().map(|&lane| f64::from(lane)).sum::<f64>();
        }
        total
    }

    /// Samples and sums the messages of some edges; `first` is the number of the first one in the graph. Returns the
    /// sum of their penalties. Predictions use the means.
    #[inline(always)]
    unsafe fn sum_kl(&self, edges: Range<usize>, first: usize, sums: &mut [f32]) -> f64 {
        let (plan, scratch, batch) = (self.plan, &self.plan.scratch, self.part.batch);
        let width = sums.len();
        let sampled = matches!(self.part.purpose, Purpose::Gradient { .. });
        let mut total = 0.0;
        sums.fill(0.0);
        for (index, edge) in edges.enumerate() {
            // SAFETY: as the caller promises.
            unsafe {
                let (means, logs) =
                    self.row(scratch.outputs, edge, plan.edge_row, 2 * width).split_at(width);
                if !sampled {
                    sums.iter_mut().zip(means).for_each(|(sum, mean)| *sum += mean);
                    continue;
                }
                let deviations = self.row(scratch.deviations, edge, plan.message_row, width);
                let noise = self.row(scratch.noise, 0, 0, width.next_multiple_of(64));
                noise::fill(batch.noise_seed, batch.step, (first + index) as u32, noise);
                let z = means.iter().zip(logs);
                let each = deviations.iter_mut().zip(&mut *sums).zip(&mut *noise);
                for (((deviation, sum), term), (&mean, &log)) in each.zip(z) {
                    let sigma = noise::exp(0.5 * log);
                    *deviation = sigma * *term;
                    *sum += mean + *deviation;
                    *term = 0.5 * (mean * mean + sigma * sigma - log - 1.0);
                }
                let mut lanes = [0.0f32; LANES];
                for terms in noise[..width].chunks(LANES) {
                    lanes.iter_mut().zip(terms).for_each(|(lane, term)| *lane += term);
                }
                total += lanes.iter().map(|&lane| f64::from(lane)).sum::<f64>();
            }
        }
        total
    }

    /// φv, then either stores the predictions, or computes the loss and its gradient with respect to the outputs.
    #[inline(always)]
    pub(super) unsafe fn nodes_forward<W: Kernel>(&self) -> f64 {
        let (plan, scratch, batch) = (self.plan, &self.plan.scratch, self.part.batch);
        let (_, matrices) = plan.networks();
        let (layers, width) = (plan.shape.layers, plan.shape.outputs);
        let mut total = 0.0;
        // SAFETY: as the caller promises.
        unsafe {
            let mut input = (self.at(scratch.node_inputs, 0, 0).cast_const(), plan.node_row);
            for (layer, matrix) in matrices[..layers].iter().enumerate() {
                let to = self.at(scratch.node_hidden[layer], 0, 0);
                self.forward::<W>(matrix, self.count, input, Out::Relu { to, row: plan.wide_row });
                input = (to.cast_const(), plan.wide_row);
            }
            let to = self.at(scratch.node_outputs, 0, 0);
            let out = Out::Linear { to, row: plan.output_row };
            self.forward::<W>(&matrices[layers], self.count, input, out);
            for row in 0..self.count {
                let outputs = self.row(scratch.node_outputs, row, plan.output_row, width);
                match self.part.purpose {
                    Purpose::Predictions(to) => {
                        let to = to.at((self.first + row) * width);
                        std::slice::from_raw_parts_mut(to, width).copy_from_slice(outputs);
                    }
                    Purpose::Gradient { targets, .. } => {
                        let node = batch.receivers[self.first + row] as usize;
                        let weight = 1.0 / batch.receivers.len() as f32;
                        for (y, &target) in outputs.iter_mut().zip(&targets[node * width..]) {
                            let difference = *y - target;
                            total += f64::from(difference.abs());
                            *y = weight * sign(difference);
                        }
                    }
                }
            }
        }
        total / batch.receivers.len() as f64
    }
}
