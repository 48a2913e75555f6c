//! The kernels on AVX-512: blocks of 12 rows × 2 vectors of 16, in f32 and in bf16 dot products. Those on AMX (`amx.rs`)
//! share all but the products.

use std::arch::x86_64::*;

use super::kernel::{COLUMNS, Inner, Kernel, LANES, Task};
use super::product::{self, Outer, Product};

/// f32 operands.
pub(crate) struct F32;

/// bf16 operands, two to a word.
pub(crate) struct Bf16;

/// The block's loop; `$step` is the multiply-add of a broadcast word and a vector of words.
macro_rules! block {
    ($inner:ident, $c:ident, $m:ident, $n:ident, $step:expr) => {{
        let mut sums = [[_mm512_setzero_ps(); $n]; $m];
        if $inner.accumulate {
            for (m, sums) in sums.iter_mut().enumerate() {
                for (n, sum) in sums.iter_mut().enumerate() {
                    *sum = _mm512_load_ps($c.add(m * COLUMNS + n * LANES));
                }
            }
        }
        let (mut a, mut b) = ($inner.a, $inner.b);
        for _ in 0..$inner.words {
            let mut vectors = [_mm512_setzero_ps(); $n];
            for (n, vector) in vectors.iter_mut().enumerate() {
                *vector = _mm512_loadu_ps(b.add(n * LANES));
            }
            for (m, sums) in sums.iter_mut().enumerate() {
                let word = _mm512_set1_ps(*a.add(m * $inner.a_row));
                for (sum, &vector) in sums.iter_mut().zip(&vectors) {
                    *sum = $step(*sum, word, vector);
                }
            }
            a = a.add($inner.a_step);
            b = b.add($inner.b_step);
        }
        for (m, sums) in sums.iter().enumerate() {
            for (n, &sum) in sums.iter().enumerate() {
                _mm512_store_ps($c.add(m * COLUMNS + n * LANES), sum);
            }
        }
    }};
}

pub(super) use block;

/// The operations that both precisions share.
macro_rules! vector_operations {
    ($features:literal) => {
        type V = __m512;
        type Wide = F32;

        #[inline(always)]
        unsafe fn load(from: *const f32) -> __m512 {
            // SAFETY: as the caller promises.
            unsafe { _mm512_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn store(to: *mut f32, v: __m512) {
            // SAFETY: as the caller promises.
            unsafe { _mm512_storeu_ps(to, v) }
        }
        #[inline(always)]
        unsafe fn zero() -> __m512 {
            // SAFETY: as the caller promises.
            unsafe { _mm512_setzero_ps() }
        }
        #[inline(always)]
        unsafe fn add(a: __m512, b: __m512) -> __m512 {
            // SAFETY: as the caller promises.
            unsafe { _mm512_add_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn relu(v: __m512) -> __m512 {
            // SAFETY: as the caller promises.
            unsafe { _mm512_max_ps(_mm512_setzero_ps(), v) }
        }
        #[inline(always)]
        unsafe fn keep(v: __m512, mask: __m512) -> __m512 {
            // SAFETY: as the caller promises.
            unsafe {
                let positive = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(mask, _mm512_setzero_ps());
                _mm512_maskz_mov_ps(positive, v)
            }
        }
        #[inline(always)]
        unsafe fn transpose(from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
            // SAFETY: as the caller promises.
            unsafe { $crate::ops::mlp::avx512::transpose(from, from_row, to, to_row) }
        }
        #[target_feature(enable = $features)]
        unsafe fn run<T: Task>(task: T) -> T::Output {
            // SAFETY: as the caller promises.
            unsafe { task.run::<Self>() }
        }
    };
}
pub(super) use vector_operations;

/// The products of a kernel, as functions of their own.
macro_rules! products {
    ($features:literal, $module:ident $(, $unit:ty)?) => {
        #[target_feature(enable = $features)]
        unsafe fn product(product: &Product) {
            // SAFETY: as the caller promises.
            unsafe { $module::product::<Self $(, $unit)?>(product) }
        }
        #[target_feature(enable = $features)]
        unsafe fn outer(outer: &Outer) {
            // SAFETY: as the caller promises.
            unsafe { $module::outer::<Self $(, $unit)?>(outer) }
        }
    };
}
pub(super) use products;

impl Kernel for F32 {
    vector_operations!("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma");
    products!("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma", product);
    const PER_WORD: usize = 1;
    const ONES: f32 = 1.0;

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    unsafe fn block<const M: usize, const N: usize>(inner: &Inner, c: *mut f32) {
        // SAFETY: as the caller promises.
        unsafe { block!(inner, c, M, N, |sum, a, b| _mm512_fmadd_ps(a, b, sum)) }
    }
    #[inline(always)]
    unsafe fn get(row: *const f32, column: usize) -> __m512 {
        // SAFETY: as the caller promises.
        unsafe { _mm512_loadu_ps(row.add(column)) }
    }
    #[inline(always)]
    unsafe fn put(row: *mut f32, column: usize, v: __m512) {
        // SAFETY: as the caller promises.
        unsafe { _mm512_storeu_ps(row.add(column), v) }
    }
    #[inline(always)]
    unsafe fn pair_rows(_: *mut f32, _: usize, _: usize) {}
}

/// Operands of two bf16 per word.
macro_rules! bf16_operands {
    () => {
        const PER_WORD: usize = 2;
        const ONES: f32 = f32::from_bits(0x3f80_3f80);

        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
        unsafe fn block<const M: usize, const N: usize>(inner: &Inner, c: *mut f32) {
            // SAFETY: as the caller promises; a vector of words is a vector of pairs of bf16.
            unsafe {
                $crate::ops::mlp::avx512::block!(inner, c, M, N, |sum, a, b| _mm512_dpbf16_ps(
                    sum,
                    std::mem::transmute::<__m512, __m512bh>(a),
                    std::mem::transmute::<__m512, __m512bh>(b)
                ))
            }
        }
        #[inline(always)]
        unsafe fn get(row: *const f32, column: usize) -> __m512 {
            // SAFETY: as the caller promises.
            unsafe {
                let half = _mm256_loadu_si256(row.add(column / 2).cast());
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half)))
            }
        }
        #[inline(always)]
        unsafe fn put(row: *mut f32, column: usize, v: __m512) {
            // SAFETY: as the caller promises.
            unsafe {
                let half = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(v));
                _mm256_storeu_si256(row.add(column / 2).cast(), half);
            }
        }
        #[inline(always)]
        unsafe fn pair_rows(first: *mut f32, rows: usize, row: usize) {
            // SAFETY: as the caller promises.
            unsafe { $crate::ops::mlp::avx512::pair_rows(first, rows, row) }
        }
    };
}
pub(super) use bf16_operands;

impl Kernel for Bf16 {
    vector_operations!("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma");
    products!("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma", product);
    bf16_operands!();
}

/// Where the values of 16 pairs come from: first 16 columns and last 16 columns of two rows of 32.
const PAIRS: [[u16; COLUMNS]; 2] = {
    let mut pairs = [[0; COLUMNS]; 2];
    let mut i = 0;
    while i < COLUMNS {
        pairs[0][i] = (i / 2 + i % 2 * COLUMNS) as u16;
        pairs[1][i] = pairs[0][i] + LANES as u16;
        i += 1;
    }
    pairs
};

/// Columns are handled in blocks of 32 from both rows at once. A block of the upper row ends up where
/// the lower row's later columns were, so the pair goes through a copy.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) unsafe fn pair_rows(first: *mut f32, rows: usize, row: usize) {
    /// Words of a row that fit the copy; wider rows do not occur (see `stride`).
    const WIDEST: usize = 2048;
    assert!(row <= WIDEST && row.is_multiple_of(LANES), "rows of {row} words");
    // SAFETY: as the caller promises; `copy` holds both rows.
    unsafe {
        let lower = _mm512_loadu_si512(PAIRS[0].as_ptr().cast());
        let upper = _mm512_loadu_si512(PAIRS[1].as_ptr().cast());
        let mut copy = [const { std::mem::MaybeUninit::<f32>::uninit() }; 2 * WIDEST];
        let copy = copy.as_mut_ptr().cast::<f32>();
        for pair in 0..rows.div_ceil(2) {
            let to = first.add(2 * pair * row);
            let odd = 2 * pair + 1 < rows;
            for word in (0..row).step_by(LANES) {
                _mm512_storeu_ps(copy.add(word), _mm512_loadu_ps(to.add(word)));
                let lower = match odd {
                    true => _mm512_loadu_ps(to.add(row + word)),
                    false => _mm512_setzero_ps(),
                };
                _mm512_storeu_ps(copy.add(row + word), lower);
            }
            for word in (0..row).step_by(LANES) {
                let even = _mm512_loadu_si512(copy.add(word).cast());
                let odd = _mm512_loadu_si512(copy.add(row + word).cast());
                let low = _mm512_permutex2var_epi16(even, lower, odd);
                let high = _mm512_permutex2var_epi16(even, upper, odd);
                _mm512_storeu_si512(to.add(2 * word).cast(), low);
                _mm512_storeu_si512(to.add(2 * word + LANES).cast(), high);
            }
        }
    }
}

/// Transposes 16×16 words: pairs of rows, then pairs of pairs, then quarters of vectors.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) unsafe fn transpose(from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
    // SAFETY: as the caller promises.
    unsafe {
        let mut a = [_mm512_setzero_ps(); LANES];
        for (i, a) in a.iter_mut().enumerate() {
            *a = _mm512_loadu_ps(from.add(i * from_row));
        }
        let mut b = a;
        for i in 0..8 {
            b[2 * i] = _mm512_unpacklo_ps(a[2 * i], a[2 * i + 1]);
            b[2 * i + 1] = _mm512_unpackhi_ps(a[2 * i], a[2 * i + 1]);
        }
        // Now quarter q of a[4g + j] holds column 4q + j of rows 4g..4g + 4.
        for g in 0..4 {
            for j in 0..2 {
                let low = _mm512_castps_pd(b[4 * g + j]);
                let high = _mm512_castps_pd(b[4 * g + 2 + j]);
                a[4 * g + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
                a[4 * g + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
            }
        }
        for j in 0..4 {
            let even = [
                _mm512_shuffle_f32x4::<0x88>(a[j], a[4 + j]),
                _mm512_shuffle_f32x4::<0x88>(a[8 + j], a[12 + j]),
            ];
            let odd = [
                _mm512_shuffle_f32x4::<0xdd>(a[j], a[4 + j]),
                _mm512_shuffle_f32x4::<0xdd>(a[8 + j], a[12 + j]),
            ];
            let columns = [
                _mm512_shuffle_f32x4::<0x88>(even[0], even[1]),
                _mm512_shuffle_f32x4::<0x88>(odd[0], odd[1]),
                _mm512_shuffle_f32x4::<0xdd>(even[0], even[1]),
                _mm512_shuffle_f32x4::<0xdd>(odd[0], odd[1]),
            ];
            for (q, column) in columns.into_iter().enumerate() {
                _mm512_storeu_ps(to.add((4 * q + j) * to_row), column);
            }
        }
    }
}
