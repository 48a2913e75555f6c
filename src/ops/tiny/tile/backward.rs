//! Back through a tile: from the loss to the gradients of the features' segments.

use super::Tile;
use crate::ops::mlp::kernel::{Kernel, LANES};
use crate::ops::mlp::product::{Out, Product, narrow, pad};
use crate::ops::tiny::Penalty;
use crate::ops::tiny::plan::Matrix;

impl Tile<'_> {
    /// rows × matrix, backward: gradient of the output → gradient of the input.
    #[inline(always)]
    unsafe fn backward<K: Kernel>(
        &self,
        matrix: &Matrix,
        rows: usize,
        d_output: (*const f32, usize),
        out: Out,
    ) {
        // SAFETY: as the caller promises.
        unsafe {
            K::product(&Product {
                rows,
                columns: matrix.inputs,
                terms: matrix.outputs,
                a: d_output.0,
                a_row: d_output.1,
                b: self.job.region.at(matrix.backward),
                addend: self.local(self.plan().scratch.zeros, 0, 0),
                addend_row: 0,
                out,
            });
        }
    }

    /// Back through φv, to the gradients of the summed messages.
    #[inline(always)]
    pub(super) unsafe fn nodes_backward<K: Kernel>(&self) {
        let (plan, shape) = (self.plan(), &self.plan().key.shape);
        let (_, matrices) = plan.networks();
        // SAFETY: as the caller promises.
        unsafe {
            let mut d = &plan.output_gradients;
            for index in (0..shape.layers).rev() {
                let (h, to) = (&plan.node_hidden[index], &plan.node_gradients[index]);
                let out = Out::Masked {
                    mask: self.node_row(h, 0),
                    mask_row: h.row,
                    to: self.node_row(to, 0),
                    row: to.row,
                };
                self.backward::<K>(&matrices[index + 1], self.nodes, self.node_rows(d), out);
                d = to;
            }
            for node in 0..self.nodes {
                let (from, to) = (self.node_row(d, node), self.segment(2, node));
                for column in (0..shape.hidden).step_by(LANES) {
                    K::store(to.add(column), K::get(from, column));
                }
            }
            let to = self.local(plan.scratch.d_messages, 0, 0);
            let out = Out::Linear { to, row: plan.message_row };
            self.backward::<K>(&matrices[0], self.nodes, self.node_rows(d), out);
        }
    }

    /// Back through φe, to the gradients of the features' segments.
    #[inline(always)]
    pub(super) unsafe fn edges_backward<K: Kernel>(&self) {
        let (plan, shape) = (self.plan(), &self.plan().key.shape);
        let (matrices, _) = plan.networks();
        // SAFETY: as the caller promises.
        unsafe {
            // Where the gradient before the ReLU of hidden layer `index` goes.
            let out = |index: usize| {
                let h = &plan.edge_hidden[index];
                let (mask, mask_row) = self.edge_rows(h);
                if index == 0 {
                    let (to, row) = (self.local(plan.scratch.edge_first, 0, 0), plan.hidden_row);
                    return Out::MaskedLinear { mask, mask_row, to, row };
                }
                let to = &plan.edge_gradients[index - 1];
                Out::Masked { mask, mask_row, to: self.edge_row(to, 0), row: to.row }
            };
            let last = &matrices[shape.layers - 1];
            match self.job.batch.penalty {
                Penalty::None => self.spread::<K>(last, out(shape.layers - 1)),
                Penalty::L1(weight) => self.l1_gradients::<K>(weight),
                Penalty::Kl(weight) => self.kl_gradients::<K>(weight),
            }
            if plan.key.penalized {
                let d_output = self.edge_rows(&plan.message_gradients);
                self.backward::<K>(last, self.edges, d_output, out(shape.layers - 1));
            }
            for index in (0..shape.layers - 1).rev() {
                let d_output = self.edge_rows(&plan.edge_gradients[index]);
                self.backward::<K>(&matrices[index], self.edges, d_output, out(index));
            }
            self.sum_first::<K>();
        }
    }

    /// Without a penalty: the gradient from the last layer is the same for all edges of a receiver.
    #[inline(always)]
    unsafe fn spread<K: Kernel>(&self, last: &Matrix, out: Out) {
        let (plan, shape) = (self.plan(), &self.plan().key.shape);
        let degree = plan.key.bodies - 1;
        // SAFETY: as the caller promises.
        unsafe {
            let d = &plan.message_gradients;
            for node in 0..self.nodes {
                let from = self.local(plan.scratch.d_messages, node, plan.message_row);
                narrow::<K>(from, self.node_row(d, node), shape.message_dim);
            }
            let shared = self.local(plan.scratch.nodes, 0, 0);
            let linear = Out::Linear { to: shared, row: plan.hidden_row };
            self.backward::<K>(last, self.nodes, self.node_rows(d), linear);
            for edge in 0..self.edges {
                let from = self.local(plan.scratch.nodes, edge / degree, plan.hidden_row);
                for column in (0..shape.hidden).step_by(LANES) {
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
                    pad::<K>(to.add(edge * row), shape.hidden);
                }
            }
        }
    }

    /// Sums the gradients before φe's first ReLU over the edges of each receiver, and each sender.
    #[inline(always)]
    unsafe fn sum_first<K: Kernel>(&self) {
        let plan = self.plan();
        let bodies = plan.key.bodies;
        let degree = bodies - 1;
        // SAFETY: edges of the tile, whose rows are inside the scratch.
        let row = |edge| unsafe { self.local(plan.scratch.edge_first, edge, plan.hidden_row) };
        for node in 0..self.nodes {
            let (first, body) = (node / bodies * bodies, node % bodies);
            for column in (0..plan.key.shape.hidden).step_by(LANES) {
                // SAFETY: as the caller promises.
                unsafe {
                    let (mut received, mut sent) = (K::zero(), K::zero());
                    for slot in 0..degree {
                        let edge = node * degree + slot;
                        received = K::add(received, K::load(row(edge).add(column)));
                        // Receiver number `slot` among the others; this node is its sender number `body`, or `body − 1`
                        // if the receiver comes before it.
                        let other = slot + usize::from(slot >= body);
                        let place = body - usize::from(other < body);
                        let edge = (first + other) * degree + place;
                        sent = K::add(sent, K::load(row(edge).add(column)));
                    }
                    K::store(self.segment(0, node).add(column), received);
                    K::store(self.segment(1, node).add(column), sent);
                }
            }
        }
    }
}
