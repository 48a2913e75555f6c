//! Packing of the weights before the tiles, and their gradients after them.

use super::cpu::Run;
use super::plan::{Matrix, Operand, Pack, Unit};
use crate::ops::mlp::kernel::{Block, COLUMNS, Inner, Kernel, LANES, ROWS, block};
use crate::ops::mlp::product::{Outer, Weights, depth, pack_backward, pack_forward};

/// Packs one piece.
///
/// # Safety
/// As for [`Kernel`]; the buffers of the run have the planned lengths.
#[inline(always)]
pub(super) unsafe fn pack<K: Kernel>(job: &Run, piece: Pack) {
    let plan = job.plan;
    // SAFETY: as the caller promises.
    unsafe {
        match piece {
            Pack::Features { panel } => pack_features(job, panel),
            Pack::Forward { matrix, panel } => {
                let matrix = &plan.matrices[matrix];
                let words = COLUMNS * depth(matrix.inputs, K::PER_WORD);
                let to = job.region.at(matrix.forward + panel * words);
                pack_forward::<K>(&weights(job, matrix), panel, to);
            }
            Pack::Backward { matrix, panel } => {
                let matrix = &plan.matrices[matrix];
                let words = COLUMNS * depth(matrix.outputs, K::PER_WORD);
                let to = job.region.at(matrix.backward + panel * words);
                pack_backward::<K>(&weights(job, matrix), panel, to);
            }
            Pack::Bias { matrix } => {
                let matrix = &plan.matrices[matrix];
                let padded = matrix.outputs.next_multiple_of(COLUMNS);
                let to = job.region.at(matrix.padded_bias);
                let to = std::slice::from_raw_parts_mut(to, padded);
                to.fill(0.0);
                if let Some(bias) = matrix.bias {
                    let from = &job.parameters[bias..bias + matrix.outputs];
                    // A row that is a sum over edges contains one bias for each.
                    for (to, from) in to.iter_mut().zip(from) {
                        *to = from * matrix.edges_per_row as f32;
                    }
                }
            }
        }
    }
}

fn weights(job: &Run, matrix: &Matrix) -> Weights {
    Weights {
        at: job.parameters[matrix.weight..].as_ptr(),
        row: matrix.weight_row,
        outputs: matrix.outputs,
        inputs: matrix.inputs,
    }
}

/// One panel of the features' weights, in f32, and its part of the bias.
unsafe fn pack_features(job: &Run, panel: usize) {
    let (plan, shape) = (job.plan, &job.plan.key.shape);
    for (index, column) in (panel * COLUMNS..(panel + 1) * COLUMNS).enumerate() {
        let (segment, unit) = (column / plan.hidden_row, column % plan.hidden_row);
        let source = plan.segments.get(segment).filter(|_| unit < shape.hidden);
        // SAFETY: as promised by the caller of `pack`.
        unsafe {
            for feature in 0..shape.n_features {
                let place = (panel * shape.n_features + feature) * COLUMNS + index;
                *job.region.at(plan.feature_panels + place) = source
                    .map_or(0.0, |s| job.parameters[s.weight + unit * s.weight_row + feature]);
            }
            *job.region.at(plan.feature_bias + column) =
                source.and_then(|s| s.bias).map_or(0.0, |bias| job.parameters[bias + unit]);
        }
    }
}

/// Computes one piece of the gradient; returns Σw² of its parameters.
///
/// # Safety
/// As for [`Kernel`]; the buffers of the run have the planned lengths.
#[inline(always)]
pub(super) unsafe fn gradient<K: Kernel>(job: &Run, unit: Unit) -> f64 {
    // SAFETY: as the caller promises.
    unsafe {
        match unit {
            Unit::Features { first_panel, panels } => {
                (first_panel..first_panel + panels).map(|p| features::<K::Wide>(job, p)).sum()
            }
            Unit::Matrix { matrix, first_output } => {
                outputs::<K>(job, &job.plan.matrices[matrix], first_output)
            }
        }
    }
}

/// dW[o, i] = Σ over rows of d_output[·, o] · input[·, i] for the outputs of a unit.
#[inline(always)]
unsafe fn outputs<K: Kernel>(job: &Run, matrix: &Matrix, first: usize) -> f64 {
    let count = (matrix.outputs - first).min(job.plan.outputs_per_unit);
    let panels = matrix.inputs.div_ceil(COLUMNS);
    let (a, a_row, words) = pairs::<K>(job, &matrix.d_output);
    let (b, b_row, _) = pairs::<K>(job, &matrix.input);
    let decay = 2.0 * job.batch.weight_decay;
    let mut squares = [0.0f32; COLUMNS];
    // SAFETY: as the caller promises.
    unsafe {
        let sums = job.scratch.at(job.plan.scratch.sums);
        K::outer(&Outer {
            outputs: count,
            inputs: matrix.inputs,
            words,
            a: a.add(first),
            a_row,
            b,
            b_row,
            c: sums,
            add: false,
        });
        for output in 0..count {
            for panel in 0..panels {
                let c = sums.add((panel * count + output) * COLUMNS);
                let width = (matrix.inputs - panel * COLUMNS).min(COLUMNS);
                let at = matrix.weight + (first + output) * matrix.weight_row + panel * COLUMNS;
                write(job, at, std::slice::from_raw_parts(c, width), decay, &mut squares);
            }
        }
        if let Some(bias) = matrix.bias {
            let mut c = Block::new();
            for output in (0..count).step_by(COLUMNS) {
                let width = (count - output).min(COLUMNS);
                row_sums::<K>(a.add(first + output), a_row, words, width, &mut c);
                c.0[0].iter_mut().for_each(|c| *c *= matrix.edges_per_row as f32);
                write(job, bias + first + output, &c.0[0][..width], decay, &mut squares);
            }
        }
    }
    squares.iter().map(|&s| f64::from(s)).sum()
}

/// An operand as pairs of rows: first word, distance of the pairs, number of pairs.
#[inline(always)]
fn pairs<K: Kernel>(job: &Run, operand: &Operand) -> (*const f32, usize, usize) {
    // SAFETY: the plan's offsets are inside the region.
    let at = unsafe { job.region.at(operand.at) };
    (at, K::PER_WORD * operand.row, operand.rows.div_ceil(K::PER_WORD))
}

/// Sums over rows of up to 32 columns.
#[inline(always)]
unsafe fn row_sums<K: Kernel>(
    b: *const f32,
    row: usize,
    words: usize,
    width: usize,
    c: &mut Block,
) {
    let ones = K::ONES;
    let inner = Inner { a: &ones, a_row: 0, a_step: 0, b, b_step: row, words, accumulate: false };
    // SAFETY: as the caller promises.
    unsafe { block::<K>(1, width.div_ceil(LANES), &inner, c.at()) }
}

/// Writes gradients to the arena from `at` on, weight decay included, and adds up the squares of the parameters.
#[inline(always)]
unsafe fn write(job: &Run, at: usize, sums: &[f32], decay: f32, squares: &mut [f32; COLUMNS]) {
    let weights = &job.parameters[at..at + sums.len()];
    // SAFETY: the arena has as many gradients as parameters, and these have one owner.
    let to = unsafe { std::slice::from_raw_parts_mut(job.gradients.at(at), sums.len()) };
    for (((to, &sum), &w), square) in to.iter_mut().zip(sums).zip(weights).zip(squares) {
        *to = sum + decay * w;
        *square += w * w;
    }
}

/// One panel of the features' weights: the sum over nodes of v[·, f] · d[·, column], and of d for
/// the bias.
#[inline(always)]
unsafe fn features<W: Kernel>(job: &Run, panel: usize) -> f64 {
    let (plan, shape) = (job.plan, &job.plan.key.shape);
    let decay = 2.0 * job.batch.weight_decay;
    let columns = 3 * plan.hidden_row;
    let row = columns;
    let first = panel * COLUMNS;
    let width = (columns - first).min(COLUMNS);
    let mut squares = [0.0f32; COLUMNS];
    let mut c = Block::new();
    // SAFETY: as the caller promises.
    unsafe {
        let values = job.batch.features.as_ptr().add(job.run * plan.nodes * shape.n_features);
        let b = job.region.at(plan.feature_values + first).cast_const();
        let target = |column: usize| {
            let (segment, unit) =
                ((first + column) / plan.hidden_row, (first + column) % plan.hidden_row);
            (plan.segments[segment], unit)
        };
        for feature in (0..shape.n_features).step_by(ROWS) {
            let m = (shape.n_features - feature).min(ROWS);
            let inner = Inner {
                a: values.add(feature),
                a_row: 1,
                a_step: shape.n_features,
                b,
                b_step: row,
                words: plan.nodes,
                accumulate: false,
            };
            block::<W>(m, width.div_ceil(LANES), &inner, c.at());
            for (column, square) in squares.iter_mut().enumerate().take(width) {
                let (segment, unit) = target(column);
                if unit >= shape.hidden {
                    continue;
                }
                for m in 0..m {
                    let at = segment.weight + unit * segment.weight_row + feature + m;
                    let w = job.parameters[at];
                    *job.gradients.at(at) = c.0[m][column] + decay * w;
                    *square += w * w;
                }
            }
        }
        row_sums::<W>(b, row, plan.nodes, width, &mut c);
        for (column, square) in squares.iter_mut().enumerate().take(width) {
            let (segment, unit) = target(column);
            if let Some(bias) = segment.bias.filter(|_| unit < shape.hidden) {
                let w = job.parameters[bias + unit];
                *job.gradients.at(bias + unit) = c.0[0][column] + decay * w;
                *square += w * w;
            }
        }
    }
    squares.iter().map(|&s| f64::from(s)).sum()
}
