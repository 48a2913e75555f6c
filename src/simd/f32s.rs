//! Vectors of f32: one lane (plain Rust, the readable reference), eight (AVX2) or sixteen (AVX-512).
//!
//! The kernels of `ops::expression` are written once over [`Lanes`] and compiled three times. All methods are inlined
//! into a function with the target features enabled; calling them anywhere else would be undefined behaviour, which is
//! why the trait is unsafe to implement and private to the crate.

use super::functions;

macro_rules! declare {
    ($($function:ident($($b:ident),*) = $scalar:ident;)*) => {
        $(fn $function(self $(, $b: Self)*) -> Self;)*
    };
}

macro_rules! scalar {
    ($($function:ident($($b:ident),*) = $scalar:ident;)*) => {$(
        fn $function(self $(, $b: Self)*) -> Self {
            f64::from(self).$scalar($(f64::from($b)),*) as f32
        }
    )*};
}

/// A vector of f32.
///
/// # Safety
/// Methods may use the vector instructions of the implementing level: every caller runs under
/// `#[target_feature]` of that level.
pub(crate) unsafe trait Lanes: Copy {
    /// Values in one vector.
    const N: usize;
    /// The same value in all lanes.
    fn splat(value: f32) -> Self;
    /// # Safety
    /// `N` values can be read at `from`.
    unsafe fn load(from: *const f32) -> Self;
    /// # Safety
    /// `N` values can be written at `to`.
    unsafe fn store(self, to: *mut f32);
    fn add(self, b: Self) -> Self;
    fn sub(self, b: Self) -> Self;
    fn mul(self, b: Self) -> Self;
    fn div(self, b: Self) -> Self;
    /// self · b + c, rounded once (twice in the scalar reference).
    fn fma(self, b: Self, c: Self) -> Self;
    /// The smaller value; `b` if they are equal, as 0 and −0 are, or if one is NaN.
    fn min(self, b: Self) -> Self;
    /// The larger value; `b` as in `min`.
    fn max(self, b: Self) -> Self;
    fn abs(self) -> Self;
    fn sqrt(self) -> Self;
    /// `a` where self > limit, `b` elsewhere.
    fn where_greater(self, limit: Self, a: Self, b: Self) -> Self;
    /// Sum of the lanes, always in the same order.
    fn sum(self) -> f32;
    /// `function` of each lane, computed in f64: for operators without a function in `functions.rs`.
    fn lane_by_lane(self, function: impl Fn(f64) -> f64) -> Self;
    functions::functions!(declare);
}

/// What the functions of `functions.rs` need beyond arithmetic.
///
/// # Safety
/// As for [`Lanes`].
pub(crate) unsafe trait Vector: Lanes {
    /// Rounds to the nearest integer.
    fn round(self) -> Self;
    /// self · 2^n for integers n; overflow gives infinity, underflow zero or subnormal numbers.
    fn scale(self, n: Self) -> Self;
    /// (m, e) with |self| = m · 2^e and m in [√½, √2], for |self| > 0.
    fn split(self) -> (Self, Self);
}

// SAFETY: plain Rust, which runs on any CPU.
unsafe impl Lanes for f32 {
    const N: usize = 1;
    #[inline(always)]
    fn splat(value: f32) -> Self {
        value
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { *from }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { *to = self }
    }
    #[inline(always)]
    fn add(self, b: Self) -> Self {
        self + b
    }
    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        self - b
    }
    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        self * b
    }
    #[inline(always)]
    fn div(self, b: Self) -> Self {
        self / b
    }
    #[inline(always)]
    fn fma(self, b: Self, c: Self) -> Self {
        self * b + c
    }
    #[inline(always)]
    fn min(self, b: Self) -> Self {
        if self < b { self } else { b }
    }
    #[inline(always)]
    fn max(self, b: Self) -> Self {
        if self > b { self } else { b }
    }
    #[inline(always)]
    fn abs(self) -> Self {
        f32::abs(self)
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        f32::sqrt(self)
    }
    #[inline(always)]
    fn where_greater(self, limit: Self, a: Self, b: Self) -> Self {
        if self > limit { a } else { b }
    }
    #[inline(always)]
    fn sum(self) -> f32 {
        self
    }
    fn lane_by_lane(self, function: impl Fn(f64) -> f64) -> Self {
        function(f64::from(self)) as f32
    }
    functions::functions!(scalar);
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{F32x8, F32x16};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Lanes, Vector, functions};
    use std::arch::x86_64::*;

    /// Eight lanes: AVX2 and FMA.
    #[derive(Clone, Copy)]
    pub(crate) struct F32x8(__m256);

    /// Sixteen lanes: AVX-512 F, BW, DQ and VL.
    #[derive(Clone, Copy)]
    pub(crate) struct F32x16(__m512);

    macro_rules! vector {
        ($($function:ident($($b:ident),*) = $scalar:ident;)*) => {$(
            #[inline(always)]
            fn $function(self $(, $b: Self)*) -> Self {
                functions::$function(self $(, $b)*)
            }
        )*};
    }

    /// Methods that are one intrinsic each, and the functions of `functions.rs`.
    macro_rules! intrinsics {
        ($($method:ident($($b:ident),*) = $intrinsic:ident;)*) => {
            $(
                #[inline(always)]
                fn $method(self $(, $b: Self)*) -> Self {
                    // SAFETY: the trait's contract: the caller has the target features.
                    unsafe { Self($intrinsic(self.0 $(, $b.0)*)) }
                }
            )*
            functions::functions!(vector);
        };
    }

    // SAFETY: the methods need AVX2 and FMA, as the trait says.
    unsafe impl Lanes for F32x8 {
        const N: usize = 8;
        intrinsics! {
            add(b) = _mm256_add_ps;
            sub(b) = _mm256_sub_ps;
            mul(b) = _mm256_mul_ps;
            div(b) = _mm256_div_ps;
            fma(b, c) = _mm256_fmadd_ps;
            min(b) = _mm256_min_ps;
            max(b) = _mm256_max_ps;
            sqrt() = _mm256_sqrt_ps;
        }
        #[inline(always)]
        fn splat(value: f32) -> Self {
            // SAFETY: callers run with the instructions of the level.
            unsafe { F32x8(_mm256_set1_ps(value)) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: the caller's promise, and the instructions of the level.
            unsafe { F32x8(_mm256_loadu_ps(from)) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: the caller's promise, and the instructions of the level.
            unsafe { _mm256_storeu_ps(to, self.0) }
        }
        #[inline(always)]
        fn abs(self) -> Self {
            // SAFETY: callers run with the instructions of the level.
            unsafe { F32x8(_mm256_andnot_ps(_mm256_set1_ps(-0.0), self.0)) }
        }
        #[inline(always)]
        fn where_greater(self, limit: Self, a: Self, b: Self) -> Self {
            // SAFETY: callers run with the instructions of the level.
            unsafe {
                F32x8(_mm256_blendv_ps(b.0, a.0, _mm256_cmp_ps::<_CMP_GT_OQ>(self.0, limit.0)))
            }
        }
        #[inline(always)]
        fn lane_by_lane(self, function: impl Fn(f64) -> f64) -> Self {
            let mut values = [0.0f32; 8];
            // SAFETY: eight values.
            unsafe { self.store(values.as_mut_ptr()) };
            values = values.map(|x| function(f64::from(x)) as f32);
            // SAFETY: eight values.
            unsafe { F32x8::load(values.as_ptr()) }
        }
        #[inline(always)]
        fn sum(self) -> f32 {
            // SAFETY: callers run with the instructions of the level.
            unsafe {
                let halves =
                    _mm_add_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
                let pairs = _mm_add_ps(halves, _mm_movehl_ps(halves, halves));
                _mm_cvtss_f32(_mm_add_ss(pairs, _mm_shuffle_ps::<1>(pairs, pairs)))
            }
        }
    }

    // SAFETY: the methods need AVX2 and FMA, as the trait says.
    unsafe impl Vector for F32x8 {
        #[inline(always)]
        fn round(self) -> Self {
            // SAFETY: callers run with the instructions of the level.
            unsafe {
                F32x8(_mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0))
            }
        }
        #[inline(always)]
        fn scale(self, n: Self) -> Self {
            // SAFETY: callers run with the instructions of the level.
            unsafe {
                // In two steps, so that neither power leaves the range of normal numbers.
                let n = n.max(F32x8::splat(-252.0)).min(F32x8::splat(252.0));
                let n = _mm256_cvtps_epi32(n.0);
                let half = _mm256_srai_epi32::<1>(n);
                let power = |k: __m256i| {
                    let biased = _mm256_add_epi32(k, _mm256_set1_epi32(127));
                    F32x8(_mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased)))
                };
                self.mul(power(half)).mul(power(_mm256_sub_epi32(n, half)))
            }
        }
        #[inline(always)]
        fn split(self) -> (Self, Self) {
            // SAFETY: callers run with the instructions of the level.
            unsafe {
                // Subnormal numbers are made normal first.
                let tiny = F32x8::splat(f32::MIN_POSITIVE).where_greater(
                    self.abs(),
                    F32x8::splat(16_777_216.0),
                    F32x8::splat(1.0),
                );
                let shift =
                    tiny.where_greater(F32x8::splat(1.0), F32x8::splat(24.0), F32x8::splat(0.0));
                let bits = _mm256_castps_si256(self.abs().mul(tiny).0);
                let exponent =
                    _mm256_sub_epi32(_mm256_srli_epi32::<23>(bits), _mm256_set1_epi32(127));
                let e = F32x8(_mm256_cvtepi32_ps(exponent)).sub(shift);
                let mantissa = _mm256_or_si256(
                    _mm256_and_si256(bits, _mm256_set1_epi32(0x007f_ffff)),
                    _mm256_set1_epi32(0x3f80_0000),
                );
                functions::centre(F32x8(_mm256_castsi256_ps(mantissa)), e)
            }
        }
    }

    // SAFETY: the methods need AVX-512, as the trait says.
    unsafe impl Lanes for F32x16 {
        const N: usize = 16;
        intrinsics! {
            add(b) = _mm512_add_ps;
            sub(b) = _mm512_sub_ps;
            mul(b) = _mm512_mul_ps;
            div(b) = _mm512_div_ps;
            fma(b, c) = _mm512_fmadd_ps;
            min(b) = _mm512_min_ps;
            max(b) = _mm512_max_ps;
            sqrt() = _mm512_sqrt_ps;
            abs() = _mm512_abs_ps;
        }
        #[inline(always)]
        fn splat(value: f32) -> Self {
            // SAFETY: callers run with the instructions of the level.
            unsafe { F32x16(_mm512_set1_ps(value)) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: the caller's promise, and the instructions of the level.
            unsafe { F32x16(_mm512_loadu_ps(from)) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: the caller's promise, and the instructions of the level.
            unsafe { _mm512_storeu_ps(to, self.0) }
        }
        #[inline(always)]
        fn where_greater(self, limit: Self, a: Self, b: Self) -> Self {
            // SAFETY: callers run with the instructions of the level.
            unsafe {
                let mask = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(self.0, limit.0);
                F32x16(_mm512_mask_blend_ps(mask, b.0, a.0))
            }
        }
        #[inline(always)]
        fn lane_by_lane(self, function: impl Fn(f64) -> f64) -> Self {
            let mut values = [0.0f32; 16];
            // SAFETY: sixteen values.
            unsafe { self.store(values.as_mut_ptr()) };
            values = values.map(|x| function(f64::from(x)) as f32);
            // SAFETY: sixteen values.
            unsafe { F32x16::load(values.as_ptr()) }
        }
        #[inline(always)]
        fn sum(self) -> f32 {
            // SAFETY: callers run with the instructions of the level.
            unsafe {
                let low = _mm512_castps512_ps256(self.0);
                F32x8(_mm256_add_ps(low, _mm512_extractf32x8_ps::<1>(self.0))).sum()
            }
        }
    }

    // SAFETY: the methods need AVX-512, as the trait says.
    unsafe impl Vector for F32x16 {
        #[inline(always)]
        fn round(self) -> Self {
            // SAFETY: callers run with the instructions of the level.
            unsafe {
                F32x16(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(
                    self.0,
                ))
            }
        }
        #[inline(always)]
        fn scale(self, n: Self) -> Self {
            // SAFETY: callers run with the instructions of the level.
            unsafe { F32x16(_mm512_scalef_ps(self.0, n.0)) }
        }
        #[inline(always)]
        fn split(self) -> (Self, Self) {
            // SAFETY: callers run with the instructions of the level.
            unsafe {
                let m = F32x16(_mm512_getmant_ps::<_MM_MANT_NORM_1_2, _MM_MANT_SIGN_ZERO>(self.0));
                functions::centre(m, F32x16(_mm512_getexp_ps(self.0)))
            }
        }
    }
}
