//! The step on the CPU: packs the weights, works through parts of the receivers, each with its own gradients, and adds
//! these up.
//!
//! The division of the receivers depends on the batch only, and every sum has a fixed order, so the result does not
//! depend on the number of threads.

use std::ops::Range;

use super::plan::{Matrix, Plan};
use super::stars::{self, Part, Purpose};
use super::{Batch, Loss, Workspace};
use crate::crew::share_each;
use crate::device::Cpu;
use crate::error::Result;
use crate::model::Precision;
use crate::ops::mlp::buffer::{Buffer, Shared};
use crate::ops::mlp::kernel::{COLUMNS, Kernel, Task, check_precision, run};
use crate::ops::mlp::product::{Weights, depth, pack_backward, pack_forward};

/// Edges of a part: its gradient, a few MB, is cleared and added up once.
const PART_EDGES: usize = 4096;
/// Most parts of a batch: bounds the memory for their gradients.
const MOST_PARTS: usize = 32;
/// Outputs whose gradients are added up by one task.
const OUTPUTS_PER_PIECE: usize = 12;

/// Buffers that steps reuse.
#[derive(Default)]
pub(super) struct Buffers {
    packed: Buffer,
    scratch: Buffer,
    sums: Buffer,
    /// φe's first layer for coordinates relative to the receiver.
    first: Vec<f32>,
}

/// A step in progress.
struct Job<'a> {
    cpu: &'a Cpu,
    batch: &'a Batch<'a>,
    plan: Plan,
    packed: Shared<f32>,
    /// `[threads, plan.scratch.len]`.
    scratch: Shared<f32>,
}

pub(super) fn gradient(
    cpu: &Cpu,
    batch: &Batch,
    edges: usize,
    targets: &[f32],
    parameters: &[f32],
    gradients: &mut [f32],
    workspace: &mut Workspace,
) -> Result<Loss> {
    let Buffers { packed, scratch, sums, first } = &mut workspace.cpu;
    let job = Job::new(cpu, batch, parameters, (packed, scratch, first))?;
    let parts = divide(batch, edges);
    let words = job.plan.sums;
    let count = parts.len();
    let sums = sums.words(count * words);
    let each = parts.into_iter().enumerate().collect();
    let losses = share_each(each, |(index, receivers): (usize, Range<usize>), member| {
        // SAFETY: there is room for the sums of every part.
        let sums = Shared(unsafe { sums.at(index * words) });
        job.work(receivers, member, Purpose::Gradient { targets, sums, edges })
    });
    // SAFETY: every part has written its sums.
    let sums = unsafe { std::slice::from_raw_parts(sums.at(0), count * words) };
    let squares = add_up(batch, &job.plan, sums, parameters, gradients);
    let total = |index: usize| losses.iter().map(|loss| loss[index]).sum::<f64>() as f32;
    let decay = (squares * f64::from(batch.weight_decay)) as f32;
    Ok(Loss { prediction: total(0), penalty: total(1), decay })
}

pub(super) fn predict(
    cpu: &Cpu,
    batch: &Batch,
    parameters: &[f32],
    predictions: &mut [f32],
    workspace: &mut Workspace,
) -> Result<()> {
    let Buffers { packed, scratch, first, .. } = &mut workspace.cpu;
    let job = Job::new(cpu, batch, parameters, (packed, scratch, first))?;
    let edges = batch.receivers.iter().map(|&r| batch.edges_of(r).len()).sum();
    let predictions = Shared(predictions.as_mut_ptr());
    share_each(divide(batch, edges), |receivers, member| {
        job.work(receivers, member, Purpose::Predictions(predictions));
    });
    Ok(())
}

/// The receivers in order, in parts of about equal work.
fn divide(batch: &Batch, edges: usize) -> Vec<Range<usize>> {
    let receivers = batch.receivers;
    // A receiver is some work, too.
    let total = edges + receivers.len();
    let count = (total / PART_EDGES).clamp(1, MOST_PARTS);
    let (mut parts, mut first, mut done) = (Vec::with_capacity(count), 0, 0);
    for (index, &receiver) in receivers.iter().enumerate() {
        done += batch.edges_of(receiver).len() + 1;
        if done * count >= total * (parts.len() + 1) {
            parts.push(first..index + 1);
            first = index + 1;
        }
    }
    parts
}

impl<'a> Job<'a> {
    fn new(
        cpu: &'a Cpu,
        batch: &'a Batch<'a>,
        parameters: &[f32],
        (packed, scratch, first): (&mut Buffer, &mut Buffer, &mut Vec<f32>),
    ) -> Result<Self> {
        check_precision(cpu, batch.precision)?;
        let largest = batch.receivers.iter().map(|&r| batch.edges_of(r).len()).max().unwrap_or(0);
        let plan = Plan::new(batch, largest);
        let packed = packed.words(plan.packed);
        let scratch = scratch.words(rayon::current_num_threads() * plan.scratch.len);
        relative(batch, &plan.matrices[0], parameters, first);
        let panels = |m: &Matrix| (m.outputs.div_ceil(COLUMNS), m.inputs.div_ceil(COLUMNS));
        let each = plan.matrices.iter().enumerate();
        let pieces: Vec<Pack> = each
            .flat_map(|(index, matrix)| {
                let (forward, backward) = panels(matrix);
                let weights: &[f32] = if index == 0 { first } else { &parameters[matrix.weight..] };
                let pack = move |panel| Pack { matrix, weights, panel, packed };
                // No gradient goes back through φe's first layer.
                let backward = if index == 0 { 0 } else { backward };
                (0..forward)
                    .map(move |panel| pack(Panel::Forward(panel)))
                    .chain((0..backward).map(move |panel| pack(Panel::Backward(panel))))
            })
            .collect();
        share_each(pieces, |piece, _| {
            let precision = if piece.matrix.wide { Precision::F32 } else { plan.precision };
            // SAFETY: the packed weights have the planned length, and panels do not overlap.
            unsafe { run(cpu, precision, piece) }
        });
        for matrix in &plan.matrices {
            let padded = matrix.outputs.next_multiple_of(COLUMNS);
            // SAFETY: as above.
            let bias =
                unsafe { std::slice::from_raw_parts_mut(packed.at(matrix.padded_bias), padded) };
            bias[..matrix.outputs].copy_from_slice(&parameters[matrix.bias..][..matrix.outputs]);
            bias[matrix.outputs..].fill(0.0);
        }
        Ok(Job { cpu, batch, plan, packed, scratch })
    }

    /// Processes some receivers as one of the threads.
    fn work(&self, receivers: Range<usize>, member: usize, purpose: Purpose) -> [f64; 2] {
        let Job { cpu, batch, plan, packed, .. } = self;
        // SAFETY: there is scratch for each thread of the pool.
        let scratch = Shared(unsafe { self.scratch.at(member * plan.scratch.len) });
        let part = Part { batch, plan, packed: *packed, scratch, receivers, purpose };
        // SAFETY: all buffers have the planned lengths, and only this thread uses those of a part.
        unsafe { run(cpu, batch.precision, Work(part)) }
    }
}

struct Work<'a>(Part<'a>);

impl Task for Work<'_> {
    type Output = [f64; 2];
    #[inline(always)]
    unsafe fn run<K: Kernel>(self) -> [f64; 2] {
        // SAFETY: as the caller promises.
        unsafe { stars::work::<K>(&self.0) }
    }
}

/// One panel of one matrix.
struct Pack<'a> {
    matrix: &'a Matrix,
    weights: &'a [f32],
    panel: Panel,
    packed: Shared<f32>,
}

enum Panel {
    Forward(usize),
    Backward(usize),
}

impl Task for Pack<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<K: Kernel>(self) {
        let Matrix { outputs, inputs, forward, backward, .. } = *self.matrix;
        let weights = Weights { at: self.weights.as_ptr(), row: inputs, outputs, inputs };
        // SAFETY: as the caller promises.
        unsafe {
            match self.panel {
                Panel::Forward(panel) => {
                    let words = COLUMNS * depth(inputs, K::PER_WORD);
                    pack_forward::<K>(&weights, panel, self.packed.at(forward + panel * words));
                }
                Panel::Backward(panel) => {
                    let words = COLUMNS * depth(outputs, K::PER_WORD);
                    pack_backward::<K>(&weights, panel, self.packed.at(backward + panel * words));
                }
            }
        }
    }
}

/// φe's first layer with A_x + B_x in place of A_x.
fn relative(batch: &Batch, matrix: &Matrix, parameters: &[f32], to: &mut Vec<f32>) {
    let (width, features) = (matrix.inputs, batch.shape.n_features);
    to.clear();
    to.extend(&parameters[matrix.weight..][..matrix.outputs * width]);
    for row in to.chunks_exact_mut(width) {
        let (own, other) = row.split_at_mut(features);
        for k in 0..batch.coordinates.dim {
            own[k] += other[k];
        }
    }
}

/// Adds up the gradients of the parts and the weight decay; returns Σw².
fn add_up(
    batch: &Batch,
    plan: &Plan,
    sums: &[f32],
    parameters: &[f32],
    gradients: &mut [f32],
) -> f64 {
    gradients.fill(0.0);
    let to = Shared(gradients.as_mut_ptr());
    let pieces: Vec<(usize, usize)> = (plan.matrices.iter().enumerate())
        .flat_map(|(index, m)| {
            (0..m.outputs).step_by(OUTPUTS_PER_PIECE).map(move |output| (index, output))
        })
        .collect();
    let squares = share_each(pieces, |(index, first), _| {
        let matrix = &plan.matrices[index];
        let mut squares = 0.0;
        let mut put = |at: usize, sums: &[f32]| {
            let weights = &parameters[at..at + sums.len()];
            // SAFETY: each parameter belongs to one output, and each output to one task.
            let to = unsafe { std::slice::from_raw_parts_mut(to.at(at), sums.len()) };
            for ((to, &sum), &w) in to.iter_mut().zip(sums).zip(weights) {
                *to = sum + 2.0 * batch.weight_decay * w;
                squares += f64::from(w) * f64::from(w);
            }
        };
        let mut row = vec![0.0; matrix.panels() * COLUMNS];
        let parts = || sums.chunks_exact(plan.sums);
        for output in first..matrix.outputs.min(first + OUTPUTS_PER_PIECE) {
            row.fill(0.0);
            for (panel, row) in row.chunks_exact_mut(COLUMNS).enumerate() {
                let at = matrix.weight_sums + (panel * matrix.outputs + output) * COLUMNS;
                for part in parts() {
                    row.iter_mut().zip(&part[at..]).for_each(|(sum, x)| *sum += x);
                }
            }
            if index == 0 {
                // The gradient for the receiver's coordinates belongs to A_x + B_x.
                for k in 0..batch.coordinates.dim {
                    row[batch.shape.n_features + k] += row[k];
                }
            }
            put(matrix.weight + output * matrix.inputs, &row[..matrix.inputs]);
            let bias = parts().map(|part| part[matrix.bias_sums + output]).sum();
            put(matrix.bias + output, &[bias]);
        }
        squares
    });
    squares.iter().sum()
}
