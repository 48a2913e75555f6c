//! Expressions on a CPU: an interpreter in which every instruction works on a block of rows.
//!
//! A block's results stay in the first-level cache; decoding an instruction costs once per block. Infinities propagate
//! by themselves through + − · and most functions and show in the sum of the loss; only the operators that could hide
//! one (a denominator, a comparison, …) test their operands, by adding operand · 0 to a flag that turns NaN.

use rayon::prelude::*;

use super::normal::{self, Normal};
use super::{Fit, Fitted, LINE, Line, Loss, Operand, Program, Rows};
use crate::device::{Cpu, Simd};
use crate::formula::operator::{Op, operators};
use crate::simd::f32s::Lanes;

/// Lines of a block when scoring: 512 rows of 8 columns are 16 KiB.
const SCORE_LINES: usize = 32;

/// Programs scored on one block before the next: the block stays in the cache meanwhile.
const TOGETHER: usize = 32;

/// Where the values of an operand are: `step` is 0 for a constant.
#[derive(Clone, Copy)]
pub(super) struct Source {
    at: *const f32,
    step: usize,
}

impl Source {
    /// # Safety
    /// Vector `i` lies within the operand.
    #[inline(always)]
    pub(super) unsafe fn load<L: Lanes>(self, i: usize) -> L {
        // SAFETY: the caller's promise.
        unsafe { L::load(self.at.add(i * self.step)) }
    }
}

/// A block of rows and memory for results.
#[derive(Clone, Copy)]
pub(super) struct Block {
    /// The first line of the block in column 0.
    pub columns: *const Line,
    /// Lines from one column to the next.
    pub stride: usize,
    /// Lines in this block.
    pub lines: usize,
    /// Constants, one per line.
    pub constants: *const Line,
    /// Memory for the results, `room` lines each.
    pub results: *mut Line,
    /// Lines from one result to the next.
    pub room: usize,
    /// True if every instruction keeps its result: the tape of the reverse sweep.
    pub tape: bool,
}

impl Block {
    /// Index of the place for instruction `i`'s result.
    #[inline(always)]
    fn place(&self, program: &Program, i: u16) -> usize {
        usize::from(if self.tape { i } else { program.instructions[usize::from(i)].slot })
    }

    /// # Safety
    /// The operand belongs to `program`, and the block has its columns, constants and results.
    #[inline(always)]
    pub(super) unsafe fn source<L: Lanes>(&self, program: &Program, operand: Operand) -> Source {
        // SAFETY: the caller's promise.
        unsafe {
            match operand {
                Operand::Result(i) => {
                    let at = self.results.add(self.place(program, i) * self.room);
                    Source { at: at.cast(), step: L::N }
                }
                Operand::Variable(v) => {
                    let at = self.columns.add(usize::from(v) * self.stride);
                    Source { at: at.cast(), step: L::N }
                }
                Operand::Constant(c) => {
                    Source { at: self.constants.add(usize::from(c)).cast(), step: 0 }
                }
            }
        }
    }
}

/// Evaluates every instruction on a block. The flag is NaN in lanes where a non-finite value was hidden, 0 elsewhere.
///
/// # Safety
/// As for [`Block::source`], for every operand; the features of `L` are enabled.
#[inline(always)]
pub(super) unsafe fn forward<L: Lanes>(program: &Program, block: &Block) -> L {
    let vectors = block.lines * (LINE / L::N);
    let zero = L::splat(0.0);
    let mut flag = zero;
    for (i, instruction) in program.instructions.iter().enumerate() {
        // SAFETY: the caller's promise; `vectors` vectors fill the block and no more.
        unsafe {
            let out: *mut f32 =
                block.results.add(block.place(program, i as u16) * block.room).cast();
            let [a, b, c] = instruction.operands.map(|o| block.source::<L>(program, o));
            macro_rules! arms {
                ($(
                    $(#[$doc:meta])* $op:ident $row:tt
                    value $values:tt $value:tt
                    derivative $operands:tt $derivative:tt
                    vector($($x:ident),*) tests($($tested:ident),*) $vector:block
                    partial $names:tt $partial:tt
                )*) => {
                    match instruction.op {
                        $(Op::$op => for i in 0..vectors {
                            let [$($x,)* ..] = [a, b, c];
                            $(let $x: L = $x.load(i);)*
                            $(flag = L::fma($tested, zero, flag);)*
                            L::store($vector, out.add(i * L::N));
                        })*
                    }
                };
            }
            operators!(arms);
        }
    }
    flag
}

/// The constants of a program, one per line.
pub(super) fn splats(constants: impl Iterator<Item = f32>) -> Vec<Line> {
    constants.map(|c| Line([c; LINE])).collect()
}

/// Losses of `programs`, infinite for invalid ones; with `exit` these are not evaluated further.
#[inline(always)]
unsafe fn score_chunk<L: Lanes>(
    rows: &Rows,
    programs: &[Program],
    loss: Loss,
    exit: bool,
) -> Vec<f64> {
    let slots = |p: &Program| p.instructions.iter().map(|i| usize::from(i.slot) + 1).max();
    let slots = programs.iter().filter_map(slots).max().unwrap_or(0);
    let mut results = vec![Line([0.0; LINE]); slots * SCORE_LINES];
    let constants: Vec<Vec<Line>> =
        programs.iter().map(|p| splats(p.constants.iter().copied())).collect();
    let mut sums = vec![0.0f64; programs.len()];
    for start in (0..rows.lines).step_by(SCORE_LINES) {
        let lines = SCORE_LINES.min(rows.lines - start);
        for ((program, constants), sum) in programs.iter().zip(&constants).zip(&mut sums) {
            if exit && !sum.is_finite() {
                continue;
            }
            // SAFETY: the block lies within the table, `check` verified that the program's columns exist, and there is
            // room for as many results as any program has slots.
            *sum += unsafe {
                let block = Block {
                    columns: rows.columns.as_ptr().wrapping_add(start),
                    stride: rows.lines,
                    lines,
                    constants: constants.as_ptr(),
                    results: results.as_mut_ptr(),
                    room: SCORE_LINES,
                    tape: false,
                };
                let flag = forward::<L>(program, &block);
                let values = block.source::<L>(program, program.root);
                let target: *const f32 = rows.target.as_ptr().add(start).cast();
                let weights: *const f32 = rows.weights.as_ptr().add(start).cast();
                let mut total = flag;
                for i in 0..lines * (LINE / L::N) {
                    let residual = L::load(target.add(i * L::N)).sub(values.load(i));
                    let size = match loss {
                        Loss::Mae => residual.abs(),
                        Loss::Mse => residual.mul(residual),
                    };
                    total = size.fma(L::load(weights.add(i * L::N)), total);
                }
                f64::from(total.sum())
            };
        }
    }
    sums.into_iter().map(|s| if s.is_finite() { s } else { f64::INFINITY }).collect()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn score_avx2(rows: &Rows, programs: &[Program], loss: Loss, exit: bool) -> Vec<f64> {
    // SAFETY: the features are enabled here.
    unsafe { score_chunk::<crate::simd::f32s::F32x8>(rows, programs, loss, exit) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn score_avx512(rows: &Rows, programs: &[Program], loss: Loss, exit: bool) -> Vec<f64> {
    // SAFETY: the features are enabled here.
    unsafe { score_chunk::<crate::simd::f32s::F32x16>(rows, programs, loss, exit) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn normal_avx2(program: &Program, rows: &Rows, fit: Fit, normal: &mut Normal) {
    // SAFETY: the features are enabled here.
    unsafe { normal::equations::<crate::simd::f32s::F32x8>(program, rows, fit, normal) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn normal_avx512(program: &Program, rows: &Rows, fit: Fit, normal: &mut Normal) {
    // SAFETY: the features are enabled here.
    unsafe { normal::equations::<crate::simd::f32s::F32x16>(program, rows, fit, normal) }
}

/// Chunks of `programs`, small enough for all threads to get some.
fn chunk(programs: &[Program]) -> usize {
    programs.len().div_ceil(4 * rayon::current_num_threads()).clamp(1, TOGETHER)
}

pub(super) fn score(
    cpu: Cpu,
    rows: &Rows,
    programs: &[Program],
    loss: Loss,
    exit: bool,
) -> Vec<f64> {
    let some = |programs: &[Program]| match cpu.simd().vectors() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the CPU has AVX2.
        Simd::Avx2 => unsafe { score_avx2(rows, programs, loss, exit) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the CPU has AVX-512.
        Simd::Avx512 => unsafe { score_avx512(rows, programs, loss, exit) },
        // SAFETY: f32 needs no level.
        _ => unsafe { score_chunk::<f32>(rows, programs, loss, exit) },
    };
    programs.par_chunks(chunk(programs)).flat_map_iter(some).collect()
}

/// The normal equations at the instruction level of `cpu`.
fn equations(cpu: Cpu, rows: &Rows, fit: Fit) -> impl Fn(&Program, &mut Normal) + Sync {
    move |program: &Program, normal: &mut Normal| match cpu.simd().vectors() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the CPU has AVX2.
        Simd::Avx2 => unsafe { normal_avx2(program, rows, fit, normal) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the CPU has AVX-512.
        Simd::Avx512 => unsafe { normal_avx512(program, rows, fit, normal) },
        // SAFETY: f32 needs no level.
        _ => unsafe { normal::equations::<f32>(program, rows, fit, normal) },
    }
}

pub(super) fn fit(cpu: Cpu, rows: &Rows, programs: &[Program], fit: Fit) -> Vec<Fitted> {
    let equations = equations(cpu, rows, fit);
    programs
        .par_chunks(chunk(programs))
        .flat_map_iter(|programs| {
            let mut normal = Normal::default();
            let fitted: Vec<Fitted> = programs
                .iter()
                .map(|program| normal.minimise(program, rows, fit, &equations))
                .collect();
            fitted
        })
        .collect()
}

/// Loss, and its gradient with respect to the constants (MSE).
#[cfg(test)]
pub(super) fn gradient(cpu: Cpu, rows: &Rows, program: &Program) -> (f64, Vec<f64>) {
    let fit = Fit { loss: Loss::Mse, steps: 0, scaled: false, tolerance: 0.0 };
    let constants: Vec<f64> = program.constants.iter().map(|&c| f64::from(c)).collect();
    let mut normal = Normal::from(&constants, 0.0);
    equations(cpu, rows, fit)(program, &mut normal);
    normal.loss_and_gradient()
}
