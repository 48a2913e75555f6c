//! Vectors of f64, one system per lane: the arithmetic for laws and integrators.
//!
//! `f64` itself is the scalar level. The vector types may only be used inside functions compiled for their instructions
//! (`ops/rk4/cpu.rs` has them); every method is `inline(always)` to ensure this.

use std::ops::{Add, Mul, Sub};

/// A vector of [`Lanes::WIDTH`] numbers.
pub trait Lanes:
    Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Send + Sync
{
    /// Number of lanes.
    const WIDTH: usize;
    /// The same number in every lane.
    fn splat(value: f64) -> Self;
    /// Loads the first [`Lanes::WIDTH`] of `values`.
    fn load(values: &[f64]) -> Self;
    /// Stores into the first [`Lanes::WIDTH`] of `values`.
    fn store(self, values: &mut [f64]);
    /// self · a + b, rounded once if the CPU can.
    fn mul_add(self, a: Self, b: Self) -> Self;
    /// b − self · a, rounded once if the CPU can.
    fn neg_mul_add(self, a: Self, b: Self) -> Self;
    /// The larger one; `other` if either is NaN.
    fn max(self, other: Self) -> Self;
    /// |self|
    fn abs(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// 1 / self, to an ulp or two.
    fn inverse(self) -> Self;
    /// 1 / √self, to an ulp or two.
    fn inverse_sqrt(self) -> Self;
    /// `then` in the lanes where self < bound, `otherwise` elsewhere (and where either is NaN).
    fn if_less(self, bound: Self, then: Self, otherwise: Self) -> Self;
}

/// The width of the widest vector.
pub const MAX_WIDTH: usize = 8;

impl Lanes for f64 {
    const WIDTH: usize = 1;
    #[inline(always)]
    fn splat(value: f64) -> f64 {
        value
    }
    #[inline(always)]
    fn load(values: &[f64]) -> f64 {
        values[0]
    }
    #[inline(always)]
    fn store(self, values: &mut [f64]) {
        values[0] = self;
    }
    /// Rounded twice: without the instruction, a fused operation would be a slow call.
    #[inline(always)]
    fn mul_add(self, a: f64, b: f64) -> f64 {
        self * a + b
    }
    #[inline(always)]
    fn neg_mul_add(self, a: f64, b: f64) -> f64 {
        b - self * a
    }
    #[inline(always)]
    fn max(self, other: f64) -> f64 {
        if self > other { self } else { other }
    }
    #[inline(always)]
    fn abs(self) -> f64 {
        f64::abs(self)
    }
    #[inline(always)]
    fn sqrt(self) -> f64 {
        f64::sqrt(self)
    }
    #[inline(always)]
    fn inverse(self) -> f64 {
        1.0 / self
    }
    #[inline(always)]
    fn inverse_sqrt(self) -> f64 {
        1.0 / f64::sqrt(self)
    }
    #[inline(always)]
    fn if_less(self, bound: f64, then: f64, otherwise: f64) -> f64 {
        if self < bound { then } else { otherwise }
    }
}

#[cfg(target_arch = "x86_64")]
pub use x86::{F64x4, F64x8};

/// SAFETY, for every block below: the intrinsics need AVX2 and FMA, or AVX-512 F. These types are
/// only used in functions that `cpu.rs` compiles for them and calls after detection; loads and
/// stores index a slice of WIDTH elements first, which checks its length.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Add, Lanes, Mul, Sub};
    use std::arch::x86_64::*;

    macro_rules! operator {
        ($type:ident, $trait:ident, $method:ident, $intrinsic:ident) => {
            impl $trait for $type {
                type Output = $type;
                #[inline(always)]
                fn $method(self, other: $type) -> $type {
                    // SAFETY: callers run with the instructions of the type.
                    $type(unsafe { $intrinsic(self.0, other.0) })
                }
            }
        };
    }

    /// Four lanes: AVX2 and FMA.
    #[derive(Clone, Copy)]
    #[repr(transparent)]
    pub struct F64x4(__m256d);
    operator!(F64x4, Add, add, _mm256_add_pd);
    operator!(F64x4, Sub, sub, _mm256_sub_pd);
    operator!(F64x4, Mul, mul, _mm256_mul_pd);

    impl Lanes for F64x4 {
        const WIDTH: usize = 4;
        #[inline(always)]
        fn splat(value: f64) -> Self {
            // SAFETY: callers run with AVX2 and FMA.
            F64x4(unsafe { _mm256_set1_pd(value) })
        }
        #[inline(always)]
        fn load(values: &[f64]) -> Self {
            // SAFETY: four values are there, and callers run with AVX2 and FMA.
            F64x4(unsafe { _mm256_loadu_pd(values[..4].as_ptr()) })
        }
        #[inline(always)]
        fn store(self, values: &mut [f64]) {
            // SAFETY: four values are there, and callers run with AVX2 and FMA.
            unsafe { _mm256_storeu_pd(values[..4].as_mut_ptr(), self.0) }
        }
        #[inline(always)]
        fn mul_add(self, a: Self, b: Self) -> Self {
            // SAFETY: callers run with AVX2 and FMA.
            F64x4(unsafe { _mm256_fmadd_pd(self.0, a.0, b.0) })
        }
        #[inline(always)]
        fn neg_mul_add(self, a: Self, b: Self) -> Self {
            // SAFETY: callers run with AVX2 and FMA.
            F64x4(unsafe { _mm256_fnmadd_pd(self.0, a.0, b.0) })
        }
        #[inline(always)]
        fn max(self, other: Self) -> Self {
            // SAFETY: callers run with AVX2 and FMA.
            F64x4(unsafe { _mm256_max_pd(self.0, other.0) })
        }
        #[inline(always)]
        fn abs(self) -> Self {
            // SAFETY: callers run with AVX2 and FMA.
            F64x4(unsafe { _mm256_andnot_pd(_mm256_set1_pd(-0.0), self.0) })
        }
        #[inline(always)]
        fn sqrt(self) -> Self {
            // SAFETY: callers run with AVX2 and FMA.
            F64x4(unsafe { _mm256_sqrt_pd(self.0) })
        }
        #[inline(always)]
        fn inverse(self) -> Self {
            // SAFETY: callers run with AVX2 and FMA.
            F64x4(unsafe { _mm256_div_pd(_mm256_set1_pd(1.0), self.0) })
        }
        #[inline(always)]
        fn inverse_sqrt(self) -> Self {
            self.sqrt().inverse()
        }
        #[inline(always)]
        fn if_less(self, bound: Self, then: Self, otherwise: Self) -> Self {
            // SAFETY: callers run with AVX2 and FMA.
            F64x4(unsafe {
                let less = _mm256_cmp_pd::<_CMP_LT_OQ>(self.0, bound.0);
                _mm256_blendv_pd(otherwise.0, then.0, less)
            })
        }
    }

    /// Eight lanes: AVX-512 F.
    #[derive(Clone, Copy)]
    #[repr(transparent)]
    pub struct F64x8(__m512d);
    operator!(F64x8, Add, add, _mm512_add_pd);
    operator!(F64x8, Sub, sub, _mm512_sub_pd);
    operator!(F64x8, Mul, mul, _mm512_mul_pd);

    impl Lanes for F64x8 {
        const WIDTH: usize = 8;
        #[inline(always)]
        fn splat(value: f64) -> Self {
            // SAFETY: callers run with AVX-512.
            F64x8(unsafe { _mm512_set1_pd(value) })
        }
        #[inline(always)]
        fn load(values: &[f64]) -> Self {
            // SAFETY: eight values are there, and callers run with AVX-512.
            F64x8(unsafe { _mm512_loadu_pd(values[..8].as_ptr()) })
        }
        #[inline(always)]
        fn store(self, values: &mut [f64]) {
            // SAFETY: eight values are there, and callers run with AVX-512.
            unsafe { _mm512_storeu_pd(values[..8].as_mut_ptr(), self.0) }
        }
        #[inline(always)]
        fn mul_add(self, a: Self, b: Self) -> Self {
            // SAFETY: callers run with AVX-512.
            F64x8(unsafe { _mm512_fmadd_pd(self.0, a.0, b.0) })
        }
        #[inline(always)]
        fn neg_mul_add(self, a: Self, b: Self) -> Self {
            // SAFETY: callers run with AVX-512.
            F64x8(unsafe { _mm512_fnmadd_pd(self.0, a.0, b.0) })
        }
        #[inline(always)]
        fn max(self, other: Self) -> Self {
            // SAFETY: callers run with AVX-512.
            F64x8(unsafe { _mm512_max_pd(self.0, other.0) })
        }
        #[inline(always)]
        fn abs(self) -> Self {
            // SAFETY: callers run with AVX-512.
            F64x8(unsafe { _mm512_abs_pd(self.0) })
        }
        #[inline(always)]
        fn sqrt(self) -> Self {
            // SAFETY: callers run with AVX-512.
            F64x8(unsafe { _mm512_sqrt_pd(self.0) })
        }
        /// 14 bits from the instruction, then y (1 + e)(1 + e²) with e = 1 − xy: 56 bits. The plain division is three
        /// times slower.
        #[inline(always)]
        fn inverse(self) -> Self {
            // SAFETY: callers run with AVX-512.
            let y = F64x8(unsafe { _mm512_rcp14_pd(self.0) });
            let e = self.neg_mul_add(y, Self::splat(1.0));
            let y = y.mul_add(e, y);
            y.mul_add(e * e, y)
        }
        /// 14 bits from the instruction, then y (1 + e/2 + 3e²/8 + 5e³/16) with e = 1 − xy²: 54 bits.
        #[inline(always)]
        fn inverse_sqrt(self) -> Self {
            // SAFETY: callers run with AVX-512.
            let y = F64x8(unsafe { _mm512_rsqrt14_pd(self.0) });
            let xy = self * y;
            let e = xy.neg_mul_add(y, Self::splat(1.0));
            let series = e.mul_add(Self::splat(0.3125), Self::splat(0.375));
            let series = series.mul_add(e, Self::splat(0.5));
            series.mul_add(y * e, y)
        }
        #[inline(always)]
        fn if_less(self, bound: Self, then: Self, otherwise: Self) -> Self {
            // SAFETY: callers run with AVX-512.
            F64x8(unsafe {
                let less = _mm512_cmp_pd_mask::<_CMP_LT_OQ>(self.0, bound.0);
                _mm512_mask_blend_pd(less, otherwise.0, then.0)
            })
        }
    }
}
