//! Adam on the processor: chunks in parallel, a loop that the compiler vectorises for each level.

use rayon::prelude::*;

use super::Rates;
use crate::device::{Cpu, Simd};

/// Elements of a chunk: 32 KiB of each of the four arrays.
const CHUNK: usize = 8192;

pub(super) fn step(
    cpu: &Cpu,
    rates: &Rates,
    parameters: &mut [f32],
    m: &mut [f32],
    v: &mut [f32],
    gradients: &[f32],
) {
    parameters
        .par_chunks_mut(CHUNK)
        .zip(m.par_chunks_mut(CHUNK))
        .zip(v.par_chunks_mut(CHUNK))
        .zip(gradients.par_chunks(CHUNK))
        .for_each(|(((w, m), v), g)| match cpu.simd {
            // SAFETY: a level is only made where `Simd::detect` found its instructions.
            #[cfg(target_arch = "x86_64")]
            Simd::Avx512 | Simd::Avx512Bf16 => unsafe { chunk_avx512(rates, w, m, v, g) },
            #[cfg(target_arch = "x86_64")]
            Simd::Avx2 => unsafe { chunk_avx2(rates, w, m, v, g) },
            _ => chunk(rates, w, m, v, g),
        });
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn chunk_avx512(rates: &Rates, w: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32]) {
    chunk(rates, w, m, v, g);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn chunk_avx2(rates: &Rates, w: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32]) {
    chunk(rates, w, m, v, g);
}

#[inline(always)]
fn chunk(rates: &Rates, w: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32]) {
    for (((w, m), v), &g) in w.iter_mut().zip(m).zip(v).zip(g) {
        *m += rates.fresh1 * (g - *m);
        *v += rates.fresh2 * (g * g - *v);
        *w -= rates.rate * *m / (v.sqrt() * rates.root + rates.epsilon);
    }
}
