//! Forward and backward through groups of whole stars, while their activations are in cache.

use std::ops::Range;

use super::plan::{GROUP_RECEIVERS, Matrix, Plan, TILE, group};
use super::{Batch, Penalty};
use crate::ops::mlp::buffer::Shared;
use crate::ops::mlp::kernel::{Block, COLUMNS, Inner, Kernel, LANES, ROWS, block};
use crate::ops::mlp::product::{Out, Product};
use crate::ops::tiny::noise;

/// Edges whose sum is formed before it is added to that of the rest: the rounding of a sum of
/// hundreds of terms of one sign would show.
const SUMMED: usize = 32;

/// Some of the receivers, in their order: what one task works on.
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

/// What is wanted of a part.
pub(super) enum Purpose<'a> {
    /// The gradient, added up in `sums` `[plan.sums]`, for targets of all nodes; edges of the batch.
    Gradient { targets: &'a [f32], sums: Shared<f32>, edges: usize },
    /// The predictions of all receivers of the batch, `[receivers, outputs]`.
    Predictions(Shared<f32>),
}

/// Works through a part; returns the sums (|target − prediction|, penalty), weighted.
///
/// # Safety
/// As [`Kernel`] says; the buffers are as long as the plan says.
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
    /// First edge of each receiver, counted in the group; then their number.
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

    /// `width` values of such a row. The scratch outlives the group, which alone uses it.
    #[inline(always)]
    unsafe fn row<'s>(
        &self,
        matrix: usize,
        row: usize,
        stride: usize,
        width: usize,
    ) -> &'s mut [f32] {
        // SAFETY: as the caller promises; slices that are used at a time do not overlap.
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

    /// Each receiver with its edges inside `range`.
    #[inline(always)]
    fn stars(&self, range: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
        (0..self.count).filter_map(move |row| {
            let own = self.starts[row].max(range.start)..self.starts[row + 1].min(range.end);
            (!own.is_empty()).then_some((row, own))
        })
    }

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
                words: matrix.inputs.div_ceil(K::PER_WORD),
                a,
                a_row,
                b: self.part.packed.at(matrix.forward),
                addend: self.part.packed.at(matrix.padded_bias),
                addend_row: 0,
                out,
            });
        }
    }

    /// Gradient of the output → gradient of the input.
    #[inline(always)]
    unsafe fn backward<K: Kernel>(
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
                columns: matrix.inputs,
                words: matrix.outputs.div_ceil(K::PER_WORD),
                a,
                a_row,
                b: self.part.packed.at(matrix.backward),
                addend: self.part.scratch.at(self.plan.scratch.zeros),
                addend_row: 0,
                out,
            });
        }
    }

    /// φe on some edges, up to the last hidden layer, and to the messages where each is needed.
    #[inline(always)]
    unsafe fn edges_forward<K: Kernel>(&self, range: Range<usize>) {
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

    /// The messages of each receiver summed, in φv's inputs; returns the penalty.
    #[inline(always)]
    unsafe fn sum_messages<K: Kernel>(&self) -> f64 {
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
                        // The product above has added one bias; a sum over edges has as many.
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

    /// Samples and sums the messages of some edges, of which `first` is the first one in the graph;
    /// returns the sum of their penalties. Predictions take the means.
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

    /// φv, then predictions into their place, or the loss with its gradient by the outputs.
    #[inline(always)]
    unsafe fn nodes_forward<W: Kernel>(&self) -> f64 {
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

    /// Back through φv; its inputs' gradients end in `d_node[0]`. Without a penalty also back through
    /// φe's last layer, which is the same for all edges of a receiver.
    #[inline(always)]
    unsafe fn nodes_backward<W: Kernel>(&self) {
        let (plan, scratch) = (self.plan, &self.plan.scratch);
        let (edge_matrices, matrices) = plan.networks();
        let layers = plan.shape.layers;
        // SAFETY: as the caller promises.
        unsafe {
            let mut d = (self.at(scratch.node_outputs, 0, 0).cast_const(), plan.output_row);
            for (layer, matrix) in matrices.iter().enumerate().rev() {
                // Alternating, so that the last one is 0.
                let to = self.at(scratch.d_node[layer % 2], 0, 0);
                let (input, row, out) = match layer {
                    0 => {
                        let out = Out::Linear { to, row: plan.node_row };
                        (scratch.node_inputs, plan.node_row, out)
                    }
                    _ => {
                        let input = scratch.node_hidden[layer - 1];
                        let mask = self.at(input, 0, 0).cast_const();
                        let row = plan.wide_row;
                        (input, row, Out::MaskedLinear { mask, mask_row: row, to, row })
                    }
                };
                self.backward::<W>(matrix, self.count, d, out);
                self.accumulate::<W>(matrix, self.count, d, (self.at(input, 0, 0), row));
                self.accumulate_bias::<W>(matrix, self.count, d);
                d = (to.cast_const(), row);
            }
            if plan.penalized {
                return;
            }
            let last = &edge_matrices[layers];
            let d = (d.0.add(plan.shape.n_features), plan.node_row);
            let to = self.at(scratch.passed, 0, 0);
            self.backward::<W>(last, self.count, d, Out::Linear { to, row: plan.wide_row });
            let sums = self.at(scratch.hidden_sums, 0, 0).cast_const();
            self.accumulate::<W>(last, self.count, d, (sums, plan.wide_row));
            let Purpose::Gradient { sums, .. } = self.part.purpose else { return };
            let bias = std::slice::from_raw_parts_mut(sums.at(last.bias_sums), last.outputs);
            for row in 0..self.count {
                let degree = (self.starts[row + 1] - self.starts[row]) as f32;
                let d = std::slice::from_raw_parts(d.0.add(row * d.1), last.outputs);
                bias.iter_mut().zip(d).for_each(|(bias, d)| *bias += degree * d);
            }
        }
    }

    /// Back through φe on some edges.
    #[inline(always)]
    unsafe fn edges_backward<K: Kernel>(&self, range: Range<usize>) {
        let (plan, scratch) = (self.plan, &self.plan.scratch);
        let (first, rows) = (range.start, range.len());
        let (matrices, _) = plan.networks();
        let layers = plan.shape.layers;
        // SAFETY: as the caller promises.
        unsafe {
            let hidden = |layer: usize| self.at(scratch.hidden[layer], first, plan.hidden_row);
            // Where the gradient before the ReLU of a hidden layer goes: the first one stays in f32,
            // as the inputs are.
            let out = |layer: usize| {
                let (mask, mask_row) = (hidden(layer).cast_const(), plan.hidden_row);
                if layer == 0 {
                    let to = self.at(scratch.wide, 0, 0);
                    Out::MaskedLinear { mask, mask_row, to, row: plan.wide_row }
                } else {
                    let to = self.at(scratch.d_hidden[layer % 2], 0, 0);
                    Out::Masked { mask, mask_row, to, row: plan.hidden_row }
                }
            };
            let step = |layer: usize, d: *mut f32, d_row: usize| {
                let matrix = &matrices[layer];
                self.backward::<K>(matrix, rows, (d.cast_const(), d_row), out(layer - 1));
                let x = hidden(layer - 1);
                K::pair_rows(d, rows, d_row);
                K::pair_rows(x, rows, plan.hidden_row);
                let pairs = rows.div_ceil(K::PER_WORD);
                let (d, d_row) = (d.cast_const(), K::PER_WORD * d_row);
                let x = (x.cast_const(), K::PER_WORD * plan.hidden_row);
                self.accumulate::<K>(matrix, pairs, (d, d_row), x);
                self.accumulate_bias::<K>(matrix, pairs, (d, d_row));
            };
            if plan.penalized {
                self.message_gradients::<K>(range);
                step(layers, self.at(scratch.d_outputs, 0, 0), plan.operand_row);
            } else {
                self.spread::<K>(range, out(layers - 1));
            }
            for layer in (1..layers).rev() {
                step(layer, self.at(scratch.d_hidden[layer % 2], 0, 0), plan.hidden_row);
            }
            let d = (self.at(scratch.wide, 0, 0).cast_const(), plan.wide_row);
            let x = self.at(scratch.inputs, first, plan.input_row).cast_const();
            self.accumulate::<K::Wide>(&matrices[0], rows, d, (x, plan.input_row));
            self.accumulate_bias::<K::Wide>(&matrices[0], rows, d);
        }
    }

    /// Gradients of the last hidden layer where the messages have no penalty.
    #[inline(always)]
    unsafe fn spread<K: Kernel>(&self, range: Range<usize>, out: Out) {
        let (plan, begin) = (self.plan, range.start);
        for (row, own) in self.stars(range) {
            // SAFETY: as the caller promises.
            unsafe {
                let from = self.at(plan.scratch.passed, row, plan.wide_row);
                for edge in own.map(|edge| edge - begin) {
                    for column in (0..plan.shape.hidden).step_by(LANES) {
                        let value = K::load(from.add(column));
                        match out {
                            Out::Masked { mask, mask_row, to, row } => {
                                let mask = K::get(mask.add(edge * mask_row), column);
                                K::put(to.add(edge * row), column, K::keep(value, mask));
                            }
                            Out::MaskedLinear { mask, mask_row, to, row } => {
                                let mask = K::get(mask.add(edge * mask_row), column);
                                K::store(to.add(edge * row + column), K::keep(value, mask));
                            }
                            _ => unreachable!("gradients before a ReLU are masked"),
                        }
                    }
                }
            }
        }
    }

    /// Gradients of φe's outputs where the messages have a penalty, as operand.
    #[inline(always)]
    unsafe fn message_gradients<K: Kernel>(&self, range: Range<usize>) {
        let (plan, scratch, begin) = (self.plan, &self.plan.scratch, range.start);
        let (features, width) = (plan.shape.n_features, plan.shape.message_dim);
        let outputs = plan.shape.edge_outputs();
        for (row, own) in self.stars(range) {
            for edge in own {
                // SAFETY: as the caller promises.
                unsafe {
                    let d = self.row(scratch.d_node[0], row, plan.node_row, features + width);
                    let d = &d[features..];
                    let e = self.row(scratch.outputs, edge, plan.edge_row, outputs);
                    match self.part.batch.penalty {
                        Penalty::None => {}
                        Penalty::L1(weight) => {
                            let weight = self.per_edge(weight);
                            e.iter_mut().zip(d).for_each(|(e, d)| *e = d + weight * sign(*e));
                        }
                        Penalty::Kl(weight) => {
                            let weight = self.per_edge(weight);
                            let deviations =
                                self.row(scratch.deviations, edge, plan.message_row, width);
                            let (means, logs) = e.split_at_mut(width);
                            let z = means.iter_mut().zip(logs);
                            for ((&d, &deviation), (mean, log)) in d.iter().zip(&*deviations).zip(z)
                            {
                                *mean = d + weight * *mean;
                                *log = 0.5 * (d * deviation + weight * (noise::exp(*log) - 1.0));
                            }
                        }
                    }
                    let to = self.at(scratch.d_outputs, edge - begin, plan.operand_row);
                    // Whole vectors of the row, of which `e` is the beginning.
                    narrow::<K>(self.at(scratch.outputs, edge, plan.edge_row), to, outputs);
                }
            }
        }
    }

    /// dW[o, i] += Σ over rows (K: pairs of rows) of d[·, o] · x[·, i].
    #[inline(always)]
    unsafe fn accumulate<K: Kernel>(
        &self,
        matrix: &Matrix,
        words: usize,
        (d, d_row): (*const f32, usize),
        (x, x_row): (*const f32, usize),
    ) {
        let Purpose::Gradient { sums, .. } = self.part.purpose else { return };
        let vectors = matrix.inputs.div_ceil(LANES);
        let panels = matrix.panels();
        // The sum over the tile is added as a whole: rounding grows with the length of a chain of sums.
        let mut c = Block([[0.0; COLUMNS]; ROWS]);
        // SAFETY: as the caller promises.
        unsafe {
            let blocks = sums.at(matrix.blocks).cast::<Block>();
            for panel in 0..panels {
                for output in (0..matrix.outputs).step_by(ROWS) {
                    let inner = Inner {
                        a: d.add(output),
                        a_row: 1,
                        a_step: d_row,
                        b: x.add(panel * COLUMNS),
                        b_step: x_row,
                        words,
                        accumulate: false,
                    };
                    let rows = (matrix.outputs - output).min(ROWS);
                    let columns = (vectors - 2 * panel).min(2);
                    block::<K>(rows, columns, &inner, &mut c);
                    let sums = &mut (*blocks.add(output / ROWS * panels + panel)).0;
                    add::<K>(&mut sums[..rows], &c.0[..rows], columns);
                }
            }
        }
    }

    /// db[o] += Σ over rows of d[·, o].
    #[inline(always)]
    unsafe fn accumulate_bias<K: Kernel>(
        &self,
        matrix: &Matrix,
        words: usize,
        (d, d_row): (*const f32, usize),
    ) {
        let Purpose::Gradient { sums, .. } = self.part.purpose else { return };
        let ones = K::ONES;
        let mut c = Block([[0.0; COLUMNS]; ROWS]);
        // SAFETY: as the caller promises; sums of the bias are padded to whole blocks.
        unsafe {
            for output in (0..matrix.outputs).step_by(COLUMNS) {
                let b = d.add(output);
                let (a, accumulate) = (&raw const ones, false);
                let inner = Inner { a, a_row: 0, a_step: 0, b, b_step: d_row, words, accumulate };
                let columns = (matrix.outputs - output).div_ceil(LANES).min(2);
                block::<K>(1, columns, &inner, &mut c);
                let sums = sums.at(matrix.bias_sums + output).cast::<[f32; COLUMNS]>();
                add::<K>(std::slice::from_mut(&mut *sums), &c.0[..1], columns);
            }
        }
    }
}

/// Adds the first vectors of some rows of a block.
#[inline(always)]
unsafe fn add<K: Kernel>(to: &mut [[f32; COLUMNS]], from: &[[f32; COLUMNS]], vectors: usize) {
    for (to, from) in to.iter_mut().zip(from) {
        for vector in 0..vectors {
            // SAFETY: as the caller promises; a row is two vectors.
            unsafe {
                let to = to.as_mut_ptr().add(vector * LANES);
                K::store(to, K::add(K::load(to), K::load(from.as_ptr().add(vector * LANES))));
            }
        }
    }
}

/// Rounds a row of f32, padded to whole vectors, into a row of operands.
#[inline(always)]
unsafe fn narrow<K: Kernel>(from: *const f32, to: *mut f32, width: usize) {
    for column in (0..width).step_by(LANES) {
        // SAFETY: as the caller promises.
        unsafe { K::put(to, column, K::load(from.add(column))) }
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
