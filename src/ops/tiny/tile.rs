//! Forward and backward through one tile of whole graphs, while its activations are in cache.
//!
//! What the weight gradients need stays in the run's region: the input of every layer and the
//! gradient of its output. Edges are sorted by receiver, each receiver's by sender.

use super::cpu::Run;
use super::plan::{Matrix, Operand, Plan};
use super::{Penalty, noise};
use crate::ops::mlp::buffer::Shared;
use crate::ops::mlp::kernel::{Kernel, LANES};
use crate::ops::mlp::product::{Out, Product};

/// The part of the batch that a tile is.
struct Tile<'a> {
    job: &'a Run<'a>,
    scratch: Shared<f32>,
    /// First node and edge, and how many.
    first_node: usize,
    nodes: usize,
    first_edge: usize,
    edges: usize,
}

/// One step on tile number `index`; returns the sums (|target − prediction|, penalty), weighted.
///
/// # Safety
/// As [`Kernel`] says; the buffers of the run are as long as its plan says.
#[inline(always)]
pub(super) unsafe fn step<K: Kernel>(job: &Run, index: usize) -> [f64; 2] {
    let plan = job.plan;
    let bodies = plan.key.bodies;
    let graphs = plan.graphs_per_tile.min(plan.key.graphs - index * plan.graphs_per_tile);
    let first_node = index * plan.graphs_per_tile * bodies;
    let tile = Tile {
        job,
        scratch: job.scratch(),
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

    /// `width` values of such a row. The scratch outlives the tile, which alone uses it.
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

    /// What the features alone give to the three first layers, per node; then φe's first hidden
    /// layer per edge: relu(A v_r + b + B v_s).
    #[inline(always)]
    unsafe fn first_layers<K: Kernel>(&self) {
        let (plan, shape) = (self.plan(), &self.plan().key.shape);
        let vectors = shape.hidden.div_ceil(LANES);
        // SAFETY: as the caller promises.
        unsafe {
            let first = self.job.run * plan.nodes + self.first_node;
            K::Wide::product(&Product {
                rows: self.nodes,
                columns: 3 * plan.hidden_row,
                words: shape.n_features,
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
                words: matrix.inputs.div_ceil(K::PER_WORD),
                a: input.0,
                a_row: input.1,
                b: self.job.region.at(matrix.forward),
                addend,
                addend_row,
                out,
            });
        }
    }

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
                words: matrix.outputs.div_ceil(K::PER_WORD),
                a: d_output.0,
                a_row: d_output.1,
                b: self.job.region.at(matrix.backward),
                addend: self.local(self.plan().scratch.zeros, 0, 0),
                addend_row: 0,
                out,
            });
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

    /// The rest of φe, and the messages summed at each receiver, as operand; returns the penalty.
    #[inline(always)]
    unsafe fn messages<K: Kernel>(&self) -> f64 {
        let (plan, shape) = (self.plan(), &self.plan().key.shape);
        let scratch = &plan.scratch;
        let (edge_matrices, _) = plan.networks();
        let (last, hidden) = edge_matrices.split_last().expect("φe has a last layer");
        let width = shape.message_dim;
        // SAFETY: as the caller promises.
        unsafe {
            for (index, matrix) in hidden.iter().enumerate() {
                let (x, h) = (&plan.edge_hidden[index], &plan.edge_hidden[index + 1]);
                let input = (self.edge_row(x, 0).cast_const(), x.row);
                let out = Out::Relu { to: self.edge_row(h, 0), row: h.row };
                self.forward::<K>(matrix, self.edges, input, None, out);
            }
            let h = &plan.edge_hidden[shape.layers - 1];
            let sums = self.local(scratch.nodes, 0, 0);
            if !plan.key.penalized {
                self.sum_hidden::<K>(h);
                let x = &plan.hidden_sums;
                let input = (self.node_row(x, 0).cast_const(), x.row);
                let out = Out::Linear { to: sums, row: plan.message_row };
                self.forward::<K>(last, self.nodes, input, None, out);
            } else {
                let outputs = self.local(scratch.edge_outputs, 0, 0);
                let input = (self.edge_row(h, 0).cast_const(), h.row);
                let out = Out::Linear { to: outputs, row: plan.edge_row };
                self.forward::<K>(last, self.edges, input, None, out);
            }
            let penalty = match self.job.batch.penalty {
                Penalty::None => 0.0,
                Penalty::L1(weight) => self.sum_l1(weight),
                Penalty::Kl(weight) => self.sum_kl(weight),
            };
            for node in 0..self.nodes {
                let from = self.local(scratch.nodes, node, plan.message_row);
                Self::narrow::<K>(from, self.node_row(&plan.messages, node), width);
            }
            penalty
        }
    }

    /// The last hidden layer of φe summed at each receiver: its last layer is linear, so it can act
    /// on the sum.
    #[inline(always)]
    unsafe fn sum_hidden<K: Kernel>(&self, hidden: &Operand) {
        let degree = self.plan().key.bodies - 1;
        for node in 0..self.nodes {
            for column in (0..self.plan().key.shape.hidden).step_by(LANES) {
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

    /// Factor of the penalty of one edge.
    fn per_edge(&self, weight: f32) -> f32 {
        weight / (self.plan().nodes * (self.plan().key.bodies - 1)) as f32
    }

    /// Sums the messages; returns the L1 penalty.
    #[inline(always)]
    unsafe fn sum_l1(&self, weight: f32) -> f64 {
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
    unsafe fn sum_kl(&self, weight: f32) -> f64 {
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

    /// φv and the loss, with its gradient by the output as operand; returns the loss.
    #[inline(always)]
    unsafe fn nodes_forward<K: Kernel>(&self) -> f64 {
        let (plan, shape, batch) = (self.plan(), &self.plan().key.shape, self.job.batch);
        let (_, matrices) = plan.networks();
        let mut total = 0.0;
        // SAFETY: as the caller promises.
        unsafe {
            let mut x = &plan.messages;
            for (index, matrix) in matrices[..shape.layers].iter().enumerate() {
                let h = &plan.node_hidden[index];
                let features = (self.segment(2, 0).cast_const(), 3 * plan.hidden_row);
                let input = (self.node_row(x, 0).cast_const(), x.row);
                let out = Out::Relu { to: self.node_row(h, 0), row: h.row };
                let addend = (index == 0).then_some(features);
                self.forward::<K>(matrix, self.nodes, input, addend, out);
                x = h;
            }
            let outputs = self.local(plan.scratch.outputs, 0, 0);
            let input = (self.node_row(x, 0).cast_const(), x.row);
            let out = Out::Linear { to: outputs, row: plan.output_row };
            self.forward::<K>(&matrices[shape.layers], self.nodes, input, None, out);

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
                Self::narrow::<K>(row.as_ptr(), to, shape.outputs);
            }
        }
        total / plan.nodes as f64
    }

    /// Back through φv, to the gradients of the summed messages.
    #[inline(always)]
    unsafe fn nodes_backward<K: Kernel>(&self) {
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
                let d_output = (self.node_row(d, 0).cast_const(), d.row);
                self.backward::<K>(&matrices[index + 1], self.nodes, d_output, out);
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
            let d_output = (self.node_row(d, 0).cast_const(), d.row);
            self.backward::<K>(&matrices[0], self.nodes, d_output, out);
        }
    }

    /// Back through φe, to the gradients of the features' segments.
    #[inline(always)]
    unsafe fn edges_backward<K: Kernel>(&self) {
        let (plan, shape) = (self.plan(), &self.plan().key.shape);
        let (matrices, _) = plan.networks();
        // SAFETY: as the caller promises.
        unsafe {
            let first =
                Out::Linear { to: self.local(plan.scratch.edge_first, 0, 0), row: plan.hidden_row };
            // Where the gradient before the ReLU of hidden layer `index` goes.
            let out = |index: usize| {
                let h = &plan.edge_hidden[index];
                let (mask, mask_row) = (self.edge_row(h, 0).cast_const(), h.row);
                match (index, first) {
                    (0, Out::Linear { to, row }) => Out::MaskedLinear { mask, mask_row, to, row },
                    _ => {
                        let to = &plan.edge_gradients[index - 1];
                        Out::Masked { mask, mask_row, to: self.edge_row(to, 0), row: to.row }
                    }
                }
            };
            let last = &matrices[shape.layers - 1];
            let d = &plan.message_gradients;
            match self.job.batch.penalty {
                Penalty::None => self.spread::<K>(last, out(shape.layers - 1)),
                Penalty::L1(weight) => self.l1_gradients::<K>(weight),
                Penalty::Kl(weight) => self.kl_gradients::<K>(weight),
            }
            if plan.key.penalized {
                let d_output = (self.edge_row(d, 0).cast_const(), d.row);
                self.backward::<K>(last, self.edges, d_output, out(shape.layers - 1));
            }
            for index in (0..shape.layers - 1).rev() {
                let d = &plan.edge_gradients[index];
                let d_output = (self.edge_row(d, 0).cast_const(), d.row);
                self.backward::<K>(&matrices[index], self.edges, d_output, out(index));
            }
            self.sum_first::<K>();
        }
    }

    /// Without a penalty: what the last layer passes back is the same for all edges of a receiver.
    #[inline(always)]
    unsafe fn spread<K: Kernel>(&self, last: &Matrix, out: Out) {
        let (plan, shape) = (self.plan(), &self.plan().key.shape);
        let degree = plan.key.bodies - 1;
        // SAFETY: as the caller promises.
        unsafe {
            let d = &plan.message_gradients;
            for node in 0..self.nodes {
                let from = self.local(plan.scratch.d_messages, node, plan.message_row);
                Self::narrow::<K>(from, self.node_row(d, node), shape.message_dim);
            }
            let shared = self.local(plan.scratch.nodes, 0, 0);
            let linear = Out::Linear { to: shared, row: plan.hidden_row };
            let d_output = (self.node_row(d, 0).cast_const(), d.row);
            self.backward::<K>(last, self.nodes, d_output, linear);
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
            }
        }
    }

    /// Gradients of the messages with the L1 penalty, as operand.
    #[inline(always)]
    unsafe fn l1_gradients<K: Kernel>(&self, weight: f32) {
        let plan = self.plan();
        let (scratch, weight) = (&plan.scratch, self.per_edge(weight));
        let width = plan.key.shape.message_dim;
        let degree = plan.key.bodies - 1;
        for edge in 0..self.edges {
            // SAFETY: as the caller promises.
            unsafe {
                let padded = width.next_multiple_of(LANES);
                let row = self.local_row(scratch.edge_outputs, edge, plan.edge_row, padded);
                let node = edge / degree;
                let d = self.local_row(scratch.d_messages, node, plan.message_row, padded);
                for (e, &d) in row.iter_mut().zip(&*d) {
                    *e = d + weight * sign(*e);
                }
                let to = self.edge_row(&plan.message_gradients, edge);
                Self::narrow::<K>(row.as_ptr(), to, width);
            }
        }
    }

    /// Gradients of means and log-variances, as operand.
    #[inline(always)]
    unsafe fn kl_gradients<K: Kernel>(&self, weight: f32) {
        let plan = self.plan();
        let (scratch, weight) = (&plan.scratch, self.per_edge(weight));
        let width = plan.key.shape.message_dim;
        let degree = plan.key.bodies - 1;
        for edge in 0..self.edges {
            // SAFETY: as the caller promises.
            unsafe {
                let row = self.local_row(scratch.edge_outputs, edge, plan.edge_row, 2 * width);
                let (means, logs) = row.split_at_mut(width);
                let node = edge / degree;
                let d = self.local_row(scratch.d_messages, node, plan.message_row, width);
                let deviations = self.local_row(scratch.deviations, edge, plan.message_row, width);
                let z = means.iter_mut().zip(&mut *logs);
                for ((&d, &deviation), (mean, log)) in d.iter().zip(&*deviations).zip(z) {
                    *mean = d + weight * *mean;
                    *log = 0.5 * (d * deviation + weight * (noise::exp(*log) - 1.0));
                }
                let to = self.edge_row(&plan.message_gradients, edge);
                Self::narrow::<K>(row.as_ptr(), to, 2 * width);
            }
        }
    }

    /// Sums the gradients before φe's first ReLU over the edges of each receiver, and each sender.
    #[inline(always)]
    unsafe fn sum_first<K: Kernel>(&self) {
        let plan = self.plan();
        let bodies = plan.key.bodies;
        let degree = bodies - 1;
        let row = |edge| self.scratch_row(plan.scratch.edge_first, edge, plan.hidden_row);
        for node in 0..self.nodes {
            let (first, body) = (node / bodies * bodies, node % bodies);
            for column in (0..plan.key.shape.hidden).step_by(LANES) {
                // SAFETY: as the caller promises.
                unsafe {
                    let (mut received, mut sent) = (K::zero(), K::zero());
                    for slot in 0..degree {
                        let edge = node * degree + slot;
                        received = K::add(received, K::load(row(edge).add(column)));
                        // Receiver number `slot` among the others; this node is its sender number
                        // `body`, or `body − 1` if the receiver comes before it.
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

    #[inline(always)]
    fn scratch_row(&self, at: usize, row: usize, stride: usize) -> *const f32 {
        // SAFETY: rows of the tile are inside the scratch.
        unsafe { self.local(at, row, stride) }
    }

    /// Makes the operands ready for sums over rows.
    #[inline(always)]
    unsafe fn pair_rows<K: Kernel>(&self) {
        let plan = self.plan();
        // SAFETY: as the caller promises; a tile that is not the last one has an even number of rows.
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
