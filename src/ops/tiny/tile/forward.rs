//! Forward through a tile: φe, the summed messages, φv and the loss.

use super::{Tile, sign};
use crate::ops::mlp::kernel::{Kernel, LANES, padded};
use crate::ops::mlp::product::{Out, Product, narrow, pad};
use crate::ops::tiny::Penalty;
use crate::ops::tiny::plan::{Matrix, Operand};

impl Tile<'_> {
    /// The features' contribution to the three first layers, per node; then φe's first hidden layer per edge: relu(A
    /// v_r + b + B v_s).
    #[inline(always)]
    pub(super) unsafe fn first_layers<K: Kernel>(&self) {
        let (plan, shape) = (self.plan(), &self.plan().key.shape);
        let vectors = shape.hidden.div_ceil(LANES);
        // SAFETY: as the caller promises.
        unsafe {
            let first = self.job.run * plan.nodes + self.first_node;
            K::Wide::product(&Product {
                rows: self.nodes,
                columns: 3 * plan.hidden_row,
                terms: shape.n_features,
                a: self.job.batch.features.as_ptr().add(first * shape.n_features),
                a_row: shape.n_features,
                b: self.job.region.at(plan.feature_panels),
                addend: self.job.region.at(plan.feature_bias),
                addend_row: 0,
                out: Out::Linear { to: self.segment(0, 0), row: 3 * plan.hidden_row },
            });
            let hidden = &plan.edge_hidden[0];
            self.each_edge(|edge, receiver, sender| {
                let (p, q) = (self.segment(0, receiver), self.segment(1, sender));
                let to = self.edge_row(hidden, edge);
                for column in (0..vectors).map(|v| v * LANES) {
                    let sum = K::add(K::load(p.add(column)), K::load(q.add(column)));
                    K::put(to, column, K::relu(sum));
                }
                pad::<K>(to, shape.hidden);
            });
        }
    }

    /// rows × matrix, forward: `input` → `out`.
    #[inline(always)]
    unsafe fn forward<K: Kernel>(
        &self,
        matrix: &Matrix,
        rows: usize,
        input: (*const f32, usize),
        addend: Option<(*const f32, usize)>,
        out: Out,
    ) {
        // SAFETY: as the caller promises.
        unsafe {
            let bias = (self.job.region.at(matrix.padded_bias).cast_const(), 0);
            let (addend, addend_row) = addend.unwrap_or(bias);
            K::product(&Product {
                rows,
                columns: matrix.outputs,
                terms: matrix.inputs,
                a: input.0,
                a_row: input.1,
                b: self.job.region.at(matrix.forward),
                addend,
                addend_row,
                out,
            });
        }
    }

    /// The rest of φe, and the messages summed at each receiver, as operand; returns the penalty.
    #[inline(always)]
    pub(super) unsafe fn messages<K: Kernel>(&self) -> f64 {
        let (plan, shape) = (self.plan(), &self.plan().key.shape);
        let scratch = &plan.scratch;
        let (edge_matrices, _) = plan.networks();
        let (last, hidden) = edge_matrices.split_last().expect("φe has a last layer");
        let width = shape.message_dim;
        // SAFETY: as the caller promises.
        unsafe {
            for (index, matrix) in hidden.iter().enumerate() {
                let (x, h) = (&plan.edge_hidden[index], &plan.edge_hidden[index + 1]);
                let out = Out::Relu { to: self.edge_row(h, 0), row: h.row };
                self.forward::<K>(matrix, self.edges, self.edge_rows(x), None, out);
            }
            let h = &plan.edge_hidden[shape.layers - 1];
            let sums = self.local(scratch.nodes, 0, 0);
            if !plan.key.penalized {
                self.sum_hidden::<K>(h);
                let input = self.node_rows(&plan.hidden_sums);
                let out = Out::Linear { to: sums, row: plan.message_row };
                self.forward::<K>(last, self.nodes, input, None, out);
            } else {
                let outputs = self.local(scratch.edge_outputs, 0, 0);
                let out = Out::Linear { to: outputs, row: plan.edge_row };
                self.forward::<K>(last, self.edges, self.edge_rows(h), None, out);
            }
            let penalty = match self.job.batch.penalty {
                Penalty::None => 0.0,
                Penalty::L1(weight) => self.sum_l1(weight),
                Penalty::Kl(weight) => self.sum_kl(weight),
            };
            for node in 0..self.nodes {
                let from = self.local(scratch.nodes, node, plan.message_row);
                narrow::<K>(from, self.node_row(&plan.messages, node), width);
            }
            penalty
        }
    }

    /// The last hidden layer of φe summed at each receiver: its last layer is linear, so it can act
    /// on the sum.
    #[inline(always)]
    unsafe fn sum_hidden<K: Kernel>(&self, hidden: &Operand) {
        let degree = self.plan().key.bodies - 1;
        let width = padded::<K>(self.plan().key.shape.hidden);
        for node in 0..self.nodes {
            for column in (0..width).step_by(LANES) {
                // SAFETY: as the caller promises.
                unsafe {
                    let mut sum = K::zero();
                    for edge in node * degree..(node + 1) * degree {
                        sum = K::add(sum, K::get(self.edge_row(hidden, edge), column));
                    }
                    K::put(self.node_row(&self.plan().hidden_sums, node), column, sum);
                }
            }
        }
    }

    /// φv and the loss, with its gradient with respect to the output, as operand; returns the loss.
    #[inline(always)]
    pub(super) unsafe fn nodes_forward<K: Kernel>(&self) -> f64 {
        let (plan, shape, batch) = (self.plan(), &self.plan().key.shape, self.job.batch);
        let (_, matrices) = plan.networks();
        let mut total = 0.0;
        // SAFETY: as the caller promises.
        unsafe {
            let mut x = &plan.messages;
            for (index, matrix) in matrices[..shape.layers].iter().enumerate() {
                let h = &plan.node_hidden[index];
                let features = (self.segment(2, 0).cast_const(), 3 * plan.hidden_row);
                let out = Out::Relu { to: self.node_row(h, 0), row: h.row };
                let addend = (index == 0).then_some(features);
                self.forward::<K>(matrix, self.nodes, self.node_rows(x), addend, out);
                x = h;
            }
            let outputs = self.local(plan.scratch.outputs, 0, 0);
            let out = Out::Linear { to: outputs, row: plan.output_row };
            self.forward::<K>(&matrices[shape.layers], self.nodes, self.node_rows(x), None, out);

            let first = (self.job.run * plan.nodes + self.first_node) * shape.outputs;
            let targets = &batch.targets[first..first + self.nodes * shape.outputs];
            let weight = 1.0 / plan.nodes as f32;
            let padded = shape.outputs.next_multiple_of(LANES);
            for (node, targets) in targets.chunks_exact(shape.outputs).enumerate() {
                let row = self.local_row(plan.scratch.outputs, node, plan.output_row, padded);
                for (y, &target) in row.iter_mut().zip(targets) {
                    let difference = *y - target;
                    total += f64::from(difference.abs());
                    *y = weight * sign(difference);
                }
                let to = self.node_row(&plan.output_gradients, node);
                narrow::<K>(row.as_ptr(), to, shape.outputs);
            }
        }
        total / plan.nodes as f64
    }
}
