//! Adam on the CPU: chunks in parallel, a loop that the compiler vectorises for each level.

use super::{Arenas, Rates};
use crate::crew::share_each;
use crate::device::{Cpu, Simd};

/// Elements of a chunk: 32 KiB of each of the four arrays.
const CHUNK: usize = 8192;

pub(super) fn step(cpu: &Cpu, rates: &Rates, runs: usize, arenas: Arenas) {
    let len = arenas.parameters.len() / runs;
    if len == 0 {
        return;
    }
    let stack = arenas.parameters.chunks_exact_mut(len).zip(arenas.m.chunks_exact_mut(len));
    let stack = stack.zip(arenas.v.chunks_exact_mut(len)).zip(arenas.gradients.chunks_exact(len));
    for (((parameters, m), v), gradients) in stack {
        one(cpu, rates, Arenas { parameters, m, v, gradients });
    }
}

/// The step of one model.
fn one(cpu: &Cpu, rates: &Rates, arenas: Arenas) {
    let scale = scale(arenas.gradients);
    let chunks = (arenas.parameters.chunks_mut(CHUNK))
        .zip(arenas.m.chunks_mut(CHUNK))
        .zip(arenas.v.chunks_mut(CHUNK))
        .zip(arenas.gradients.chunks(CHUNK));
    share_each(chunks.collect(), |(((w, m), v), g), _| match cpu.simd().vectors() {
        // SAFETY: a level exists only if `Simd::detect` found its instructions.
        #[cfg(target_arch = "x86_64")]
        Simd::Avx512 => unsafe { chunk_avx512(rates, scale, w, m, v, g) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Simd::Avx2 => unsafe { chunk_avx2(rates, scale, w, m, v, g) },
        _ => chunk(rates, scale, w, m, v, g),
    });
}

/// 1 / |g|, or 0: the chunks are summed in order, for any number of threads.
fn scale(gradients: &[f32]) -> f32 {
    let squares = |chunk: &[f32], _| {
        let mut sums = [0.0; 16];
        for part in chunk.chunks(sums.len()) {
            for (sum, &g) in sums.iter_mut().zip(part) {
                *sum += f64::from(g) * f64::from(g);
            }
        }
        sums.iter().sum::<f64>()
    };
    let chunks = share_each(gradients.chunks(CHUNK).collect(), squares);
    let norm = chunks.iter().sum::<f64>().sqrt();
    if norm > 0.0 { (1.0 / norm) as f32 } else { 0.0 }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn chunk_avx512(rates: &Rates, scale: f32, w: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32]) {
    chunk(rates, scale, w, m, v, g);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn chunk_avx2(rates: &Rates, scale: f32, w: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32]) {
    chunk(rates, scale, w, m, v, g);
}

#[inline(always)]
fn chunk(rates: &Rates, scale: f32, w: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32]) {
    for (((w, m), v), &g) in w.iter_mut().zip(m).zip(v).zip(g) {
        let g = scale * g;
        *m += rates.fresh1 * (g - *m);
        *v += rates.fresh2 * (g * g - *v);
        *w -= rates.rate * *m / (v.sqrt() * rates.root + rates.epsilon);
    }
}
