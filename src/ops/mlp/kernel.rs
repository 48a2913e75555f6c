//! The inner loops of matrix products, one implementation for each level of vector instructions and each precision,
//! behind one trait; everything above is written once on top of it.
//!
//! Operands are arrays of 32-bit *words*: one f32, or two bf16 that are neighbours along the summed
//! index. In words, all products look alike: c[m, n] = Σ_k a[m, k] · b[k, n], with `a` read by
//! broadcast and `b` by vectors, or both by tiles of 16 × 16 words.
//!
//! bf16 is laid out for tiles on every CPU: what is summed is padded with zeros to whole tiles.

use super::product::{Outer, Product};
use crate::device::{Cpu, Simd};
use crate::error::{Error, Result};
use crate::model::Precision;

/// Lanes of a vector: widths of activations are padded to multiples of it.
pub(crate) const LANES: usize = 16;
/// Columns of a block of results: two vectors. Weights are packed in panels of this width.
pub(crate) const COLUMNS: usize = 2 * LANES;
/// Most rows of a block of results on vectors: 12 rows of two vectors leave eight of 32 registers for the operands,
/// and the 12 edges of a graph of four bodies fill it exactly.
pub(crate) const ROWS: usize = 12;

/// One block of results on its way through memory.
#[repr(align(64))]
pub(crate) struct Block(pub [[f32; COLUMNS]; ROWS]);

impl Block {
    pub fn new() -> Self {
        Block([[0.0; COLUMNS]; ROWS])
    }

    pub fn at(&mut self) -> *mut f32 {
        self.0.as_flattened_mut().as_mut_ptr()
    }
}

/// One block of a product: c[m, ..] (+)= Σ_k a[m·a_row + k·a_step] · b[k·b_step, ..], in words; rows of `c`, at 64-byte
/// boundaries, are [`COLUMNS`] apart.
pub(crate) struct Inner {
    pub a: *const f32,
    pub a_row: usize,
    pub a_step: usize,
    pub b: *const f32,
    pub b_step: usize,
    pub words: usize,
    /// Add to the contents of `c`.
    pub accumulate: bool,
}

/// One level of vector instructions at one precision.
///
/// Every function may be called only where [`Kernel::run`] may: the CPU has the instructions. Pointers must be valid
/// for the elements that the descriptions name.
pub(crate) trait Kernel: 'static {
    /// Sixteen f32.
    type V: Copy;
    /// The f32 kernel of the same level.
    type Wide: Kernel;
    /// Values of an operand in a word.
    const PER_WORD: usize;
    /// A word of ones.
    const ONES: f32;

    /// Computes M rows and N vectors of a block.
    unsafe fn block<const M: usize, const N: usize>(inner: &Inner, c: *mut f32);
    unsafe fn load(from: *const f32) -> Self::V;
    unsafe fn store(to: *mut f32, v: Self::V);
    unsafe fn zero() -> Self::V;
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    /// NaN stays NaN: a diverged training must show.
    unsafe fn relu(v: Self::V) -> Self::V;
    /// `v` where `mask` is positive, else zero.
    unsafe fn keep(v: Self::V, mask: Self::V) -> Self::V;
    /// Sixteen values of a row of operands, starting at `column`, widened.
    unsafe fn get(row: *const f32, column: usize) -> Self::V;
    /// Rounds sixteen values into a row of operands, starting at `column`.
    unsafe fn put(row: *mut f32, column: usize, v: Self::V);
    /// Turns rows of operands `[rows, row]` into pairs along the rows, in place, for sums over rows: `[rows/2, 2·row]`
    /// words. An odd last row gets a partner of zeros, for which there must be room. With one value per word there is
    /// nothing to do.
    unsafe fn pair_rows(first: *mut f32, rows: usize, row: usize);
    /// Transposes 16×16 words.
    unsafe fn transpose(from: *const f32, from_row: usize, to: *mut f32, to_row: usize);
    /// Runs a task compiled for these instructions.
    unsafe fn run<T: Task>(task: T) -> T::Output;
    /// Computes the product; results are written in whole vectors, operands in whole tiles (see [`padded`]).
    unsafe fn product(product: &Product);
    /// Computes the outer product.
    unsafe fn outer(outer: &Outer);
}

/// Columns that a row of operands of this width has: at bf16, what is summed in tiles is padded with zeros.
pub(crate) fn padded<K: Kernel>(width: usize) -> usize {
    width.next_multiple_of(LANES * K::PER_WORD)
}

/// Work that is compiled once for each kernel; `run` must be `#[inline(always)]`.
pub(crate) trait Task {
    type Output;
    /// # Safety
    /// The CPU has the instructions of `K`, and the task's pointers are valid.
    unsafe fn run<K: Kernel>(self) -> Self::Output;
}

/// The error for a precision that the CPU lacks.
pub(crate) fn check_precision(cpu: &Cpu, precision: Precision) -> Result<()> {
    if matches!(precision, Precision::Tf32 | Precision::Bf16x3) {
        let message = "tf32 and bf16x3 need a GPU; use --precision f32 or bf16";
        return Err(Error::usage(message).field("precision"));
    }
    if precision == Precision::Bf16 && !cpu.simd().has_bf16() {
        return Err(Error::device(format!(
            "bf16 needs a CPU with AVX512-BF16, and this one has {}; use --precision f32",
            cpu.simd().name()
        ))
        .field("precision"));
    }
    Ok(())
}

/// Runs the task with the kernel for `cpu` and `precision`, which [`check_precision`] has accepted.
///
/// # Safety
/// The task's pointers are valid, as its own description says.
pub(crate) unsafe fn run<T: Task>(cpu: &Cpu, precision: Precision, task: T) -> T::Output {
    // SAFETY: `Simd::detect` found the instructions of this level.
    unsafe {
        match (cpu.simd(), precision) {
            #[cfg(target_arch = "x86_64")]
            (Simd::Amx, Precision::Bf16) => super::amx::Bf16::run(task),
            #[cfg(target_arch = "x86_64")]
            (Simd::Avx512Bf16, Precision::Bf16) => super::avx512::Bf16::run(task),
            #[cfg(target_arch = "x86_64")]
            (Simd::Avx512 | Simd::Avx512Bf16 | Simd::Amx, _) => super::avx512::F32::run(task),
            #[cfg(target_arch = "x86_64")]
            (Simd::Avx2, _) => super::avx2::F32::run(task),
            (_, Precision::Bf16) => super::scalar::Bf16::run(task),
            _ => super::scalar::F32::run(task),
        }
    }
}

/// True if [`run`] multiplies by tiles.
pub(crate) fn by_tiles(cpu: &Cpu, precision: Precision) -> bool {
    precision == Precision::Bf16 && cpu.simd() != Simd::Avx512Bf16
}

/// Values of an operand in a word at `precision`.
pub(crate) fn per_word(precision: Precision) -> usize {
    match precision {
        Precision::Bf16 => 2,
        _ => 1,
    }
}

/// Computes `rows` × `vectors` of a block.
#[inline(always)]
pub(crate) unsafe fn block<K: Kernel>(rows: usize, vectors: usize, inner: &Inner, c: *mut f32) {
    macro_rules! pick {
        ($($m:literal)*) => {
            // SAFETY: as the caller promises.
            unsafe {
                match (rows, vectors) {
                    $(($m, 1) => K::block::<$m, 1>(inner, c), ($m, _) => K::block::<$m, 2>(inner, c),)*
                    (_, 1) => K::block::<ROWS, 1>(inner, c),
                    _ => K::block::<ROWS, 2>(inner, c),
                }
            }
        };
    }
    pick!(1 2 3 4 5 6 7 8 9 10 11);
}

/// The vector operations of kernels without vectors of sixteen: arrays, which the compiler vectorises for the
/// instruction level.
macro_rules! array_operations {
    () => {
        type V = [f32; LANES];

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self::V {
            // SAFETY: as the caller promises.
            unsafe { from.cast::<[f32; LANES]>().read_unaligned() }
        }
        #[inline(always)]
        unsafe fn store(to: *mut f32, v: Self::V) {
            // SAFETY: as the caller promises.
            unsafe { to.cast::<[f32; LANES]>().write_unaligned(v) }
        }
        #[inline(always)]
        unsafe fn zero() -> Self::V {
            [0.0; LANES]
        }
        #[inline(always)]
        unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
            std::array::from_fn(|i| a[i] + b[i])
        }
        #[inline(always)]
        unsafe fn relu(v: Self::V) -> Self::V {
            std::array::from_fn(|i| if v[i] < 0.0 { 0.0 } else { v[i] })
        }
        #[inline(always)]
        unsafe fn keep(v: Self::V, mask: Self::V) -> Self::V {
            std::array::from_fn(|i| if mask[i] > 0.0 { v[i] } else { 0.0 })
        }
        #[inline(always)]
        unsafe fn transpose(from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
            for i in 0..LANES {
                for j in 0..LANES {
                    // SAFETY: as the caller promises.
                    unsafe { *to.add(j * to_row + i) = *from.add(i * from_row + j) }
                }
            }
        }
    };
}
pub(super) use array_operations;

/// Operands of one f32 per word, for kernels of arrays.
macro_rules! f32_operands {
    () => {
        type Wide = Self;
        const PER_WORD: usize = 1;
        const ONES: f32 = 1.0;

        #[inline(always)]
        unsafe fn get(row: *const f32, column: usize) -> Self::V {
            // SAFETY: as the caller promises.
            unsafe { Self::load(row.add(column)) }
        }
        #[inline(always)]
        unsafe fn put(row: *mut f32, column: usize, v: Self::V) {
            // SAFETY: as the caller promises.
            unsafe { Self::store(row.add(column), v) }
        }
        #[inline(always)]
        unsafe fn pair_rows(_: *mut f32, _: usize, _: usize) {}
    };
}
pub(super) use f32_operands;
