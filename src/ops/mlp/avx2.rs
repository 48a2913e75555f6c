//! The f32 kernel on AVX2 and FMA: blocks of 6 rows × 2 vectors of 8, which fill 15 of 16 registers.

use std::arch::x86_64::*;

use super::kernel::{COLUMNS, Inner, Kernel, LANES, Task, array_operations, f32_operands};
use super::product::{self, Outer, Product};

/// f32 operands.
pub(crate) struct F32;

/// Rows `first..first + M` of one vector of sixteen, `n`.
#[target_feature(enable = "avx2,fma")]
unsafe fn half<const M: usize>(inner: &Inner, first: usize, n: usize, c: *mut f32) {
    // SAFETY: as promised by the caller of `Kernel::block`.
    unsafe {
        let mut sums = [[_mm256_setzero_ps(); 2]; M];
        if inner.accumulate {
            for (m, sums) in sums.iter_mut().enumerate() {
                let c = c.add((first + m) * COLUMNS + n * LANES);
                *sums = [_mm256_loadu_ps(c), _mm256_loadu_ps(c.add(8))];
            }
        }
        let a = inner.a.add(first * inner.a_row);
        let b = inner.b.add(n * LANES);
        for k in 0..inner.words {
            let b = b.add(k * inner.b_step);
            let b = [_mm256_loadu_ps(b), _mm256_loadu_ps(b.add(8))];
            for (m, sums) in sums.iter_mut().enumerate() {
                let a = _mm256_set1_ps(*a.add(m * inner.a_row + k * inner.a_step));
                *sums = [_mm256_fmadd_ps(a, b[0], sums[0]), _mm256_fmadd_ps(a, b[1], sums[1])];
            }
        }
        for (m, sums) in sums.iter().enumerate() {
            let c = c.add((first + m) * COLUMNS + n * LANES);
            _mm256_storeu_ps(c, sums[0]);
            _mm256_storeu_ps(c.add(8), sums[1]);
        }
    }
}

impl Kernel for F32 {
    array_operations!();
    f32_operands!();

    #[inline(always)]
    unsafe fn block<const M: usize, const N: usize>(inner: &Inner, c: *mut f32) {
        for n in 0..N {
            for first in (0..M).step_by(6) {
                // SAFETY: as the caller promises.
                unsafe {
                    match M - first {
                        1 => half::<1>(inner, first, n, c),
                        2 => half::<2>(inner, first, n, c),
                        3 => half::<3>(inner, first, n, c),
                        4 => half::<4>(inner, first, n, c),
                        5 => half::<5>(inner, first, n, c),
                        _ => half::<6>(inner, first, n, c),
                    }
                }
            }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn run<T: Task>(task: T) -> T::Output {
        // SAFETY: as the caller promises.
        unsafe { task.run::<Self>() }
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn product(product: &Product) {
        // SAFETY: as the caller promises.
        unsafe { product::product::<Self>(product) }
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn outer(outer: &Outer) {
        // SAFETY: as the caller promises.
        unsafe { product::outer::<Self>(outer) }
    }
}
