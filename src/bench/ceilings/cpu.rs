//! The limits of the CPU, on all threads: the widest vectors, and copies.

use std::hint::black_box;
use std::time::Instant;

use rayon::prelude::*;

use super::{Ceiling, Ceilings, LEAST, ROUNDS};
use crate::device::{Cpu, Simd};
use crate::error::Result;

pub(super) fn measure(cpu: &Cpu) -> Result<Ceilings> {
    let simd = cpu.simd();
    let bf16 = match simd {
        Simd::Amx => Some(flops("tile product", tile_round)),
        Simd::Avx512Bf16 => Some(flops("dot product", bf16_round)),
        _ => None,
    };
    Ok(Ceilings {
        f32_flops: flops("multiply-add", |rounds| f32_round(simd, rounds))?,
        bf16_flops: bf16.transpose()?,
        wgmma_flops: None,
        f64_flops: flops("multiply-add", |rounds| f64_round(simd, rounds))?,
        cache_bandwidth: bandwidth(2 << 20),
        bulk_bandwidth: None,
        memory_bandwidth: bandwidth(256 << 20),
        cached: 8e6,
    })
}

/// Times `round(steps)` on every thread at once; `round` returns its number of operations.
fn flops(what: &str, round: impl Fn(u64) -> f64 + Sync) -> Result<Ceiling> {
    let timed = |steps: u64| {
        let begun = Instant::now();
        let count = rayon::broadcast(|_| round(black_box(steps))).iter().sum::<f64>();
        Ok((count, begun.elapsed().as_secs_f64()))
    };
    Ceiling::measure(what.into(), LEAST, ROUNDS, timed)
}

/// Times copies, counting bytes read and written; `bytes` is the size of source and destination together.
fn bandwidth(bytes: usize) -> Ceiling {
    let source = vec![1u64; bytes / 16];
    let mut destination = vec![0u64; bytes / 16];
    let chunk = source.len().div_ceil(rayon::current_num_threads());
    let copies = ((512 << 20) / bytes).max(1);
    let mut copy = || {
        let begun = Instant::now();
        let pairs = destination.par_chunks_mut(chunk).zip(source.par_chunks(chunk));
        pairs.for_each(|(to, from)| {
            for _ in 0..copies {
                to.copy_from_slice(black_box(from));
                black_box(&mut *to);
            }
        });
        begun.elapsed().as_secs_f64()
    };
    copy();
    let times = (0..ROUNDS).map(|_| copy()).collect();
    Ceiling { what: super::copy_of(bytes), count: (copies * bytes) as f64, times }
}

/// Independent chains of dependent multiply-adds: enough to hide their latency.
const CHAINS: usize = 16;

fn f32_round(simd: Simd, rounds: u64) -> f64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: `simd` is what the processor was found to have.
    unsafe {
        match simd.vectors() {
            Simd::Avx512 => return x86::f32_avx512(rounds),
            Simd::Avx2 => return x86::f32_avx2(rounds),
            _ => {}
        }
    }
    let mut sums = [1.0f32; 4 * CHAINS];
    let (a, b) = (black_box(0.999f32), black_box(0.001f32));
    for _ in 0..rounds {
        sums.iter_mut().for_each(|sum| *sum = *sum * a + b);
    }
    black_box(sums);
    (rounds * 2 * sums.len() as u64) as f64
}

fn f64_round(simd: Simd, rounds: u64) -> f64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as in `f32_round`.
    unsafe {
        match simd.vectors() {
            Simd::Avx512 => return x86::f64_avx512(rounds),
            Simd::Avx2 => return x86::f64_avx2(rounds),
            _ => {}
        }
    }
    let mut sums = [1.0f64; 2 * CHAINS];
    let (a, b) = (black_box(0.999f64), black_box(0.001f64));
    for _ in 0..rounds {
        sums.iter_mut().for_each(|sum| *sum = *sum * a + b);
    }
    black_box(sums);
    (rounds * 2 * sums.len() as u64) as f64
}

fn bf16_round(rounds: u64) -> f64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: called only where `Simd::Avx512Bf16` was found.
    unsafe {
        x86::bf16_avx512(rounds)
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        black_box(rounds);
        0.0
    }
}

fn tile_round(rounds: u64) -> f64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: called only where `Simd::Amx` was found.
    unsafe {
        crate::ops::mlp::amx::from_registers(rounds)
    }
    #[cfg(not(target_arch = "x86_64"))]
    bf16_round(rounds)
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    use super::CHAINS;

    /// Chains on AVX2, which has 16 registers, two of them for the factors.
    const OF_AVX2: usize = 12;

    /// A function that runs chains of one instruction and returns the operations done.
    macro_rules! chains {
        ($name:ident, $features:literal, $chains:expr, $lanes:literal, $zero:expr, $step:expr) => {
            /// # Safety
            /// The processor has the features.
            #[target_feature(enable = $features)]
            pub unsafe fn $name(rounds: u64) -> f64 {
                let mut sums = [black_box($zero); $chains];
                let (a, b) = (black_box($zero), black_box($zero));
                for _ in 0..rounds {
                    for sum in &mut sums {
                        *sum = $step(*sum, a, b);
                    }
                }
                black_box(sums);
                (rounds * (2 * $chains * $lanes) as u64) as f64
            }
        };
    }

    chains!(f32_avx512, "avx512f", CHAINS, 16, _mm512_setzero_ps(), |s, a, b| _mm512_fmadd_ps(
        a, b, s
    ));
    chains!(f32_avx2, "avx2,fma", OF_AVX2, 8, _mm256_setzero_ps(), |s, a, b| _mm256_fmadd_ps(
        a, b, s
    ));
    chains!(f64_avx512, "avx512f", CHAINS, 8, _mm512_setzero_pd(), |s, a, b| _mm512_fmadd_pd(
        a, b, s
    ));
    chains!(f64_avx2, "avx2,fma", OF_AVX2, 4, _mm256_setzero_pd(), |s, a, b| _mm256_fmadd_pd(
        a, b, s
    ));

    /// # Safety
    /// The processor has AVX-512 with bf16.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub unsafe fn bf16_avx512(rounds: u64) -> f64 {
        let mut sums = [black_box(_mm512_setzero_ps()); CHAINS];
        let zero = _mm512_setzero_ps();
        let (a, b) = (black_box(_mm512_cvtne2ps_pbh(zero, zero)), _mm512_cvtne2ps_pbh(zero, zero));
        let b = black_box(b);
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, a, b);
            }
        }
        black_box(sums);
        (rounds * (2 * CHAINS * 32) as u64) as f64
    }
}
