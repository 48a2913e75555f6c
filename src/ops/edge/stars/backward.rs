//! From the gradients of predictions to those of the parameters.

use std::ops::Range;

use super::{Group, Purpose, sign};
use crate::ops::edge::Penalty;
use crate::ops::edge::plan::Matrix;
use crate::ops::mlp::kernel::{Block, COLUMNS, Inner, Kernel, LANES, block};
use crate::ops::mlp::product::{Out, Outer, Product, narrow, pad};
use crate::ops::tiny::noise;

impl Group<'_> {
    /// Back through φv; the gradients of its inputs end up in `d_node[0]`. Without a penalty also back through φe's
    /// last layer, which is the same for all edges of a receiver.
    #[inline(always)]
    pub(super) unsafe fn nodes_backward<W: Kernel>(&self) {
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
    pub(super) unsafe fn edges_backward<K: Kernel>(&self, range: Range<usize>) {
        let (plan, scratch) = (self.plan, &self.plan.scratch);
        let (first, rows) = (range.start, range.len());
        let (matrices, _) = plan.networks();
        let layers = plan.shape.layers;
        // SAFETY: as the caller promises.
        unsafe {
            let hidden = |layer: usize| self.at(scratch.hidden[layer], first, plan.hidden_row);
            // Where the gradient before the ReLU of a hidden layer goes: the first one stays in f32, like the inputs.
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

    /// Gradients of the last hidden layer if the messages have no penalty.
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
                    if let Out::Masked { to, row, .. } = out {
                        pad::<K>(to.add(edge * row), plan.shape.hidden);
                    }
                }
            }
        }
    }

    /// Gradients of φe's outputs if the messages have a penalty, as operand.
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
                    // Whole vectors of the row that starts with `e`.
                    narrow::<K>(self.at(scratch.outputs, edge, plan.edge_row), to, outputs);
                }
            }
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
                terms: matrix.outputs,
                a,
                a_row,
                b: self.part.packed.at(matrix.backward),
                addend: self.part.scratch.at(self.plan.scratch.zeros),
                addend_row: 0,
                out,
            });
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
        // SAFETY: as the caller promises.
        unsafe {
            K::outer(&Outer {
                outputs: matrix.outputs,
                inputs: matrix.inputs,
                words,
                a: d,
                a_row: d_row,
                b: x,
                b_row: x_row,
                c: sums.at(matrix.weight_sums),
                add: true,
            });
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
        let mut c = Block::new();
        // SAFETY: as the caller promises; sums of the bias are padded to whole blocks.
        unsafe {
            for output in (0..matrix.outputs).step_by(COLUMNS) {
                let b = d.add(output);
                let (a, accumulate) = (&raw const ones, false);
                let inner = Inner { a, a_row: 0, a_step: 0, b, b_step: d_row, words, accumulate };
                let columns = (matrix.outputs - output).div_ceil(LANES).min(2);
                block::<K>(1, columns, &inner, c.at());
                let sums = sums.at(matrix.bias_sums + output);
                for column in (0..columns * LANES).step_by(LANES) {
                    let sum = K::add(K::load(sums.add(column)), K::load(c.at().add(column)));
                    K::store(sums.add(column), sum);
                }
            }
        }
    }
}
