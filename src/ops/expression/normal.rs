//! Fitting constants: the normal equations of one program by a reverse sweep over blocks of rows,
//! and Levenberg–Marquardt on them.
//!
//! The program is a tree, so each result has one consumer and its adjoint is written once. The adjoint of a constant is
//! its column of the Jacobian, summed over its occurrences if constants are tied ([`Program::tied`]).

use super::cpu::{self, Block};
use super::{Fit, Fitted, LINE, Line, Loss, Operand, Program, Rows};
use crate::formula::operator::{Op, operators};
use crate::simd::f32s::Lanes;

/// Lines of a block: 256 rows, so that tape, adjoints and Jacobian stay in the first-level cache.
pub(super) const BLOCK: usize = 16;

/// Reweighting for MAE: residuals below this fraction of the loss count as that large.
const SMALL: f64 = 0.01;
/// The smallest number that residuals in single precision can be divided by.
const SMALLEST: f64 = 1e-30;

/// Parameters, the normal equations at them, and work space to compute them.
#[derive(Default)]
pub(super) struct Normal {
    /// θ, then (with `Fit::scaled`) scale and offset.
    pub(super) parameters: Vec<f64>,
    /// Loss at the parameters; infinite if the program is invalid.
    pub(super) loss: f64,
    /// Jᵀ Ω r, `[parameters]`.
    pub(super) gradient: Vec<f64>,
    /// Jᵀ Ω J, `[parameters, parameters]`, the lower triangle.
    pub(super) matrix: Vec<f64>,
    /// For MAE: residuals below this count as this, …
    pub(super) smallest: f64,
    /// … which is never smaller than this.
    floor: f64,
    tape: Vec<Line>,
    adjoints: Vec<Line>,
    /// Columns of the Jacobian, `[parameters, BLOCK]`; then those times ω, one at a time; then ω · r.
    jacobian: Vec<Line>,
}

fn resize(room: &mut Vec<Line>, lines: usize) {
    if room.len() < lines {
        room.resize(lines, Line([0.0; LINE]));
    }
}

/// Fills `normal.loss`, `gradient` and `matrix` at `normal.parameters`.
///
/// # Safety
/// The features of `L` are enabled; the program's columns exist in `rows`.
#[inline(always)]
pub(super) unsafe fn equations<L: Lanes>(
    program: &Program,
    rows: &Rows,
    fit: Fit,
    normal: &mut Normal,
) {
    let p = normal.parameters.len();
    let thetas = program.constants.len();
    let instructions = program.instructions.len();
    let (scale, offset) = if fit.scaled {
        (normal.parameters[thetas] as f32, normal.parameters[thetas + 1] as f32)
    } else {
        (1.0, 0.0)
    };
    let constants = cpu::splats(normal.parameters[..thetas].iter().map(|&c| c as f32));
    resize(&mut normal.tape, instructions * BLOCK);
    resize(&mut normal.adjoints, instructions * BLOCK);
    resize(&mut normal.jacobian, (p + 2) * BLOCK);
    normal.gradient.clear();
    normal.gradient.resize(p, 0.0);
    normal.matrix.clear();
    normal.matrix.resize(p * p, 0.0);
    normal.loss = 0.0;
    for start in (0..rows.lines).step_by(BLOCK) {
        let lines = BLOCK.min(rows.lines - start);
        let vectors = lines * (LINE / L::N);
        // SAFETY: the block lies within the table, the caller checked that the columns exist, and the buffers were made
        // above: one place for each instruction, one column for each parameter.
        unsafe {
            let block = Block {
                columns: rows.columns.as_ptr().wrapping_add(start),
                stride: rows.lines,
                lines,
                constants: constants.as_ptr(),
                results: normal.tape.as_mut_ptr(),
                room: BLOCK,
                tape: true,
            };
            let jacobian: *mut f32 = normal.jacobian.as_mut_ptr().cast();
            let column = |k: usize| jacobian.add(k * BLOCK * LINE);
            let flag = cpu::forward::<L>(program, &block);
            let values = block.source::<L>(program, program.root);
            let target: *const f32 = rows.target.as_ptr().add(start).cast();
            let weights: *const f32 = rows.weights.as_ptr().add(start).cast();
            let (omega, omega_r) = (column(p), column(p + 1));
            let (beta, alpha) = (L::splat(scale), L::splat(offset));
            let smallest = L::splat(normal.smallest as f32);
            let mut total = flag;
            for i in 0..vectors {
                let at = i * L::N;
                let value: L = values.load(i);
                let residual = L::load(target.add(at)).sub(value.fma(beta, alpha));
                let weight = L::load(weights.add(at));
                let (size, w) = match fit.loss {
                    Loss::Mae => {
                        let size = residual.abs();
                        (size, weight.div(size.max(smallest)))
                    }
                    Loss::Mse => (residual.mul(residual), weight),
                };
                total = size.fma(weight, total);
                w.store(omega.add(at));
                w.mul(residual).store(omega_r.add(at));
                if fit.scaled {
                    value.store(column(thetas).add(at));
                    L::splat(1.0).store(column(thetas + 1).add(at));
                }
            }
            normal.loss += f64::from(total.sum());
            if !normal.loss.is_finite() {
                normal.loss = f64::INFINITY;
                return;
            }
            reverse::<L>(program, &block, normal.adjoints.as_mut_ptr(), jacobian, scale);
            for j in 0..p {
                let mut gradient = L::splat(0.0);
                for i in 0..vectors {
                    let at = i * L::N;
                    let entry = L::load(column(j).add(at));
                    gradient = entry.fma(L::load(omega_r.add(at)), gradient);
                }
                normal.gradient[j] += f64::from(gradient.sum());
                for k in 0..=j {
                    let mut sum = L::splat(0.0);
                    for i in 0..vectors {
                        let at = i * L::N;
                        let weighted = L::load(column(j).add(at)).mul(L::load(omega.add(at)));
                        sum = weighted.fma(L::load(column(k).add(at)), sum);
                    }
                    normal.matrix[j * p + k] += f64::from(sum.sum());
                }
            }
        }
    }
    hold(program, normal);
}

/// Removes the held constants from the normal equations.
pub(super) fn hold(program: &Program, normal: &mut Normal) {
    let p = normal.parameters.len();
    for &k in &program.held {
        let k = usize::from(k);
        normal.gradient[k] = 0.0;
        for other in 0..p {
            normal.matrix[k.max(other) * p + k.min(other)] = 0.0;
        }
    }
}

/// Columns of the Jacobian of scale · f with respect to the constants.
///
/// # Safety
/// As for [`cpu::forward`]; `adjoints` has a place for each instruction, `jacobian` a column for each constant.
#[inline(always)]
pub(super) unsafe fn reverse<L: Lanes>(
    program: &Program,
    block: &Block,
    adjoints: *mut Line,
    jacobian: *mut f32,
    scale: f32,
) {
    let vectors = block.lines * (LINE / L::N);
    // SAFETY: the caller's promise.
    unsafe {
        if program.tied {
            let constants = program.constants.len() * BLOCK * LINE;
            std::slice::from_raw_parts_mut(jacobian, constants).fill(0.0);
        }
        // Where an adjoint goes, and whether it is added to what is there.
        let place = |operand: Operand| -> Option<(*mut f32, bool)> {
            match operand {
                Operand::Constant(c) => {
                    Some((jacobian.add(usize::from(c) * BLOCK * LINE), program.tied))
                }
                Operand::Result(i) if program.instructions[usize::from(i)].has_constant => {
                    Some((adjoints.add(usize::from(i) * BLOCK).cast(), false))
                }
                _ => None,
            }
        };
        if let Some((root, _)) = place(program.root) {
            for i in 0..vectors {
                L::splat(scale).store(root.add(i * L::N));
            }
        }
        for (index, instruction) in program.instructions.iter().enumerate().rev() {
            if !instruction.has_constant {
                continue;
            }
            let adjoint: *const f32 = adjoints.add(index * BLOCK).cast();
            let result = block.source::<L>(program, Operand::Result(index as u16));
            let sources = instruction.operands.map(|o| block.source::<L>(program, o));
            for operand in 0..instruction.op.arity() {
                let Some((out, added)) = place(instruction.operands[operand]) else { continue };
                // Adjoint times the partial derivative; x, y are the operands, v the result.
                macro_rules! each {
                    (|$d:ident, $x:ident, $y:ident, $v:ident| $value:expr) => {
                        for i in 0..vectors {
                            let $d = L::load(adjoint.add(i * L::N));
                            let ($x, $y): (L, L) = (sources[0].load(i), sources[1].load(i));
                            let $v: L = result.load(i);
                            let _ = ($d, $x, $y, $v);
                            let value: L = $value;
                            let value =
                                if added { value.add(L::load(out.add(i * L::N))) } else { value };
                            value.store(out.add(i * L::N));
                        }
                    };
                }
                macro_rules! arms {
                    ($(
                        $(#[$doc:meta])* $op:ident $row:tt
                        value $values:tt $value:tt
                        derivative $operands:tt $derivative:tt
                        vector $vectors:tt tests $tests:tt $vector:tt
                        partial($d:ident, $x:ident, $y:ident, $v:ident) {
                            $($number:pat => $partial:expr),*
                        }
                    )*) => {
                        match instruction.op {
                            $(Op::$op => match operand {
                                $($number => each!(|$d, $x, $y, $v| $partial),)*
                            })*
                        }
                    };
                }
                operators!(arms);
            }
        }
    }
}

#[cfg(test)]
impl Normal {
    /// The loss and its gradient: for squares −2 Jᵀ Ω r.
    pub(super) fn loss_and_gradient(&self) -> (f64, Vec<f64>) {
        (self.loss, self.gradient.iter().map(|g| -2.0 * g).collect())
    }
}

impl Normal {
    /// Starts at these parameters.
    pub(super) fn from(parameters: &[f64], floor: f64) -> Self {
        Normal { parameters: parameters.to_vec(), floor, ..Normal::default() }
    }

    /// Levenberg–Marquardt from the program's constants; with a free scale, from scale 0 and the median of the target,
    /// so that the first step is a linear fit.
    pub(super) fn minimise(
        &mut self,
        program: &Program,
        rows: &Rows,
        fit: Fit,
        equations: &impl Fn(&Program, &mut Normal),
    ) -> Fitted {
        self.parameters.clear();
        self.parameters.extend(program.constants.iter().map(|&c| f64::from(c)));
        if fit.scaled {
            self.parameters.extend([0.0, rows.median()]);
        }
        self.floor = SMALLEST;
        let at = |normal: &mut Normal| equations(program, normal);
        let (loss, evaluations) = self.descend(rows.deviation(), fit, &at);
        let thetas = program.constants.len();
        let mut constants = std::mem::take(&mut self.parameters);
        let (scale, offset) =
            if fit.scaled { (constants[thetas], constants[thetas + 1]) } else { (1.0, 0.0) };
        constants.truncate(thetas);
        Fitted { loss, constants, scale, offset, evaluations }
    }

    /// Levenberg–Marquardt from the parameters, which end at the best values: returns the loss there, and the number of
    /// evaluations of the `equations`. `deviation` is that of the target.
    pub(super) fn descend(
        &mut self,
        deviation: f64,
        fit: Fit,
        equations: &impl Fn(&mut Normal),
    ) -> (f64, u32) {
        self.smallest = SMALL * deviation.max(self.floor);
        equations(self);
        let mut evaluations = 1;
        // A constant target says nothing about the size of residuals; the first loss does.
        if deviation == 0.0 && self.loss.is_finite() && self.loss > 0.0 {
            self.smallest = SMALL * self.loss;
            equations(self);
            evaluations += 1;
        }
        let mut best = self.parameters.clone();
        let mut best_loss = self.loss;
        let (mut gradient, mut matrix) = (self.gradient.clone(), self.matrix.clone());
        let mut damping = 1e-3;
        while evaluations <= fit.steps && best_loss.is_finite() && best_loss > 0.0 {
            let Some(step) = solve(&matrix, &gradient, damping) else { break };
            for ((parameter, best), step) in self.parameters.iter_mut().zip(&best).zip(&step) {
                *parameter = best + step;
            }
            equations(self);
            evaluations += 1;
            if self.loss < best_loss {
                let gain = 1.0 - self.loss / best_loss;
                best_loss = self.loss;
                best.copy_from_slice(&self.parameters);
                std::mem::swap(&mut gradient, &mut self.gradient);
                std::mem::swap(&mut matrix, &mut self.matrix);
                self.smallest = (SMALL * best_loss).max(self.floor);
                damping = (damping * 0.1).max(1e-9);
                if gain < fit.tolerance {
                    break;
                }
            } else if damping > 1e3 {
                break;
            } else {
                damping *= 30.0;
            }
        }
        self.parameters = best;
        (best_loss, evaluations)
    }
}

/// The step s of (A + damping · diag A) s = g by Cholesky, with A given by its lower triangle. A parameter without any
/// effect keeps its value. None if A is not finite.
fn solve(matrix: &[f64], gradient: &[f64], damping: f64) -> Option<Vec<f64>> {
    let n = gradient.len();
    let mut l = matrix.to_vec();
    let mut s = gradient.to_vec();
    for j in 0..n {
        let diagonal = matrix[j * n + j] * (1.0 + damping);
        let mut rest = diagonal;
        for k in 0..j {
            rest -= l[j * n + k] * l[j * n + k];
        }
        if !rest.is_finite() {
            return None;
        }
        // Dependent on earlier parameters, to rounding: held at its value.
        let held = rest <= 1e-10 * diagonal;
        let root = if held { 0.0 } else { rest.sqrt() };
        l[j * n + j] = root;
        for i in j + 1..n {
            let mut rest = l[i * n + j];
            for k in 0..j {
                rest -= l[i * n + k] * l[j * n + k];
            }
            l[i * n + j] = if held { 0.0 } else { rest / root };
        }
        for k in 0..j {
            s[j] -= l[j * n + k] * s[k];
        }
        s[j] = if held { 0.0 } else { s[j] / root };
    }
    for j in (0..n).rev() {
        for k in j + 1..n {
            s[j] -= l[k * n + j] * s[k];
        }
        let root = l[j * n + j];
        s[j] = if root > 0.0 { s[j] / root } else { 0.0 };
    }
    s.iter().all(|s| s.is_finite()).then_some(s)
}
