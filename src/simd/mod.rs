//! The CPU: which vector instructions it has, and vector types for kernels.

#[cfg(target_arch = "x86_64")]
mod amx;
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
    /// The same with tiles of bf16 (AMX).
    Amx,
}

/// Every level, in order.
const ALL: [Simd; 5] = [Simd::Scalar, Simd::Avx2, Simd::Avx512, Simd::Avx512Bf16, Simd::Amx];

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
                return if amx::usable() { Simd::Amx } else { Simd::Avx512Bf16 };
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
            Simd::Amx => "amx",
        }
    }

    /// The level of its vectors of f32 and f64.
    pub fn vectors(self) -> Self {
        self.min(Simd::Avx512)
    }

    /// True if there are kernels for products of bf16: fast ones, or the plain reference.
    pub(crate) fn has_bf16(self) -> bool {
        self >= Simd::Avx512Bf16 || self == Simd::Scalar
    }

    /// The level with this [`Simd::name`].
    ///
    /// # Errors
    /// There is none.
    pub fn named(name: &str) -> Result<Self> {
        ALL.into_iter().find(|level| level.name() == name).ok_or_else(|| {
            let names = ALL.map(Simd::name).join(", ");
            Error::usage(format!("'{name}' is none of {names}")).field("simd")
        })
    }

    /// Every level that this CPU can run, the scalar reference first.
    pub fn available() -> Vec<Self> {
        let best = Self::detect();
        ALL.into_iter().filter(|&level| level <= best).collect()
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

    /// True if products of bf16 are faster than those of f32: on tiles; as dot products on AMD's CPUs, at the rate of
    /// multiply-adds of f32 with twice the values (on Intel's at half that rate).
    pub fn has_fast_bf16(self) -> bool {
        match self.simd {
            Simd::Amx => true,
            Simd::Avx512Bf16 => is_amd(),
            _ => false,
        }
    }

    /// The vector instructions that kernels may use.
    pub fn simd(self) -> Simd {
        self.simd
    }
}

/// Whether the CPU says that AMD made it.
fn is_amd() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        let leaf = std::arch::x86_64::__cpuid(0);
        [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes).as_flattened() == b"AuthenticAMD"
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_has_only_the_instructions_that_it_has() {
        for simd in ALL {
            assert_eq!(Cpu::with(simd).is_ok(), simd <= Simd::detect(), "{simd:?}");
        }
    }
}
