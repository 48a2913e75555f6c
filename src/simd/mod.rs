//! The CPU: which vector instructions it has, and vector types for kernels.

pub(crate) mod f32s;
pub(crate) mod f64s;
mod functions;

use crate::error::{Error, Result};

/// Vector instructions, in order of preference. Chosen once, at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Simd {
    /// Plain Rust: the readable reference.
    Scalar,
    /// AVX2 and FMA: 8 lanes of f32.
    Avx2,
    /// AVX-512 F, BW, DQ and VL: 16 lanes of f32.
    Avx512,
    /// AVX-512 with bf16 dot products.
    Avx512Bf16,
}

impl Simd {
    /// The best that this CPU has.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx512 = avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            if avx512 && is_x86_feature_detected!("avx512bf16") {
                return Simd::Avx512Bf16;
            }
            if avx512 {
                return Simd::Avx512;
            }
            if avx2 {
                return Simd::Avx2;
            }
        }
        Simd::Scalar
    }

    /// The name in `devices` and in bench tables.
    pub fn name(self) -> &'static str {
        match self {
            Simd::Scalar => "scalar",
            Simd::Avx2 => "avx2",
            Simd::Avx512 => "avx512",
            Simd::Avx512Bf16 => "avx512+bf16",
        }
    }

    /// Every level that this CPU can run, the scalar reference first.
    pub fn available() -> Vec<Self> {
        let best = Self::detect();
        [Simd::Scalar, Simd::Avx2, Simd::Avx512, Simd::Avx512Bf16]
            .into_iter()
            .filter(|&level| level <= best)
            .collect()
    }
}

/// The CPU, with the vector instructions to use. Threads are rayon's global pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// Checked on creation: kernels use these instructions without checking again.
    simd: Simd,
}

impl Cpu {
    /// The CPU with its best vector instructions.
    pub fn detect() -> Self {
        Cpu { simd: Simd::detect() }
    }

    /// The CPU with a lower level of instructions.
    ///
    /// # Errors
    /// The CPU does not have them.
    pub fn with(simd: Simd) -> Result<Self> {
        if Simd::available().contains(&simd) {
            return Ok(Cpu { simd });
        }
        let best = Simd::detect().name();
        Err(Error::device(format!("this CPU does not support {}; its best is {best}", simd.name())))
    }

    /// The vector instructions that kernels may use.
    pub fn simd(self) -> Simd {
        self.simd
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_has_only_the_instructions_that_it_has() {
        for simd in [Simd::Scalar, Simd::Avx2, Simd::Avx512, Simd::Avx512Bf16] {
            assert_eq!(Cpu::with(simd).is_ok(), simd <= Simd::detect(), "{simd:?}");
        }
    }
}
