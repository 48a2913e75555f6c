//! Where operations run: `cpu`, or `cuda:N`.
//!
//! `Device` is the seam: each operation in `ops/` matches on it and calls its `cpu.rs` or its `gpu.rs`. Asking for a
//! GPU when there is none gives one clear error in [`Device::pick`].

pub(crate) mod args;
pub mod cuda;
pub mod driver;
mod memory;
pub mod meter;
pub mod ring;

pub use cuda::Gpu;

use crate::error::{Error, Result};
pub use crate::simd::{Cpu, Simd};

/// Where an operation runs.
#[derive(Clone, Copy, Debug)]
pub enum Device {
    /// The CPU, with rayon and SIMD.
    Cpu(Cpu),
    /// A CUDA device.
    Gpu(Gpu),
}

impl Device {
    /// The CPU with its best vector instructions.
    pub fn cpu() -> Self {
        Device::Cpu(Cpu::detect())
    }

    /// The device that `--device` names: `auto`, `cpu` or `cuda:N`.
    pub fn pick(name: &str) -> Result<Self> {
        let ordinal = name.strip_prefix("cuda:").and_then(|n| n.parse::<usize>().ok());
        match (name, ordinal) {
            ("cpu", _) => Ok(Self::cpu()),
            ("auto", _) => Ok(Self::auto().0),
            (_, Some(ordinal)) => Ok(Device::Gpu(Gpu::open(ordinal)?)),
            _ => Err(Error::usage(format!("'{name}' is not a device; use auto, cpu or cuda:N"))
                .field("device")),
        }
    }

    /// The device that `auto` chooses, and why: the first GPU for which this build has kernels, else the CPU.
    pub fn auto() -> (Self, String) {
        let why = match Gpu::try_open(0) {
            _ if !cuda::compiled() => "this build has no CUDA kernels".to_string(),
            Ok(gpu) if gpu.is_emulated() => {
                "the stand-in driver runs kernels on the CPU".to_string()
            }
            Ok(gpu) => return (Device::Gpu(gpu), "the first GPU".to_string()),
            Err(why) => why,
        };
        (Self::cpu(), format!("no GPU: {why}"))
    }

    /// The name in tables: `cpu (avx512+bf16, 2 threads)`.
    pub fn describe(&self) -> String {
        match self {
            Device::Cpu(cpu) => {
                format!("cpu ({}, {} threads)", cpu.simd().name(), rayon::current_num_threads())
            }
            Device::Gpu(gpu) => match gpu.properties() {
                Ok(properties) => format!("{gpu:?} ({})", properties.name),
                Err(_) => format!("{gpu:?}"),
            },
        }
    }
}

/// The GPU for tests; `None`, with a message, if there is none.
///
/// # Panics
/// If there is none and `LAWSMITH_REQUIRE_GPU` is set, so that a test run cannot pass by skipping.
#[cfg(test)]
pub(crate) fn test_gpu() -> Option<Device> {
    match Device::pick("cuda:0") {
        Ok(device) => Some(device),
        Err(error) => {
            assert!(std::env::var_os("LAWSMITH_REQUIRE_GPU").is_none(), "{error}");
            eprintln!("skipped: {error}");
            None
        }
    }
}

/// For the test called `test`, whose kernel traps. It runs in a process of its own, since a process cannot use a device
/// after that.
#[cfg(test)]
pub(crate) fn assert_traps(test: &str, launch: impl FnOnce() -> Result<()>) {
    const ALONE: &str = "LAWSMITH_TEST_ALONE";
    let Some(Device::Gpu(gpu)) = test_gpu() else { return };
    if std::env::var_os(ALONE).is_some() {
        let error = launch().expect_err("a trap");
        assert_eq!(error.kind, crate::error::Kind::Device, "{error}");
        assert!(!gpu.is_emulated() || error.to_string().contains("__trap"), "{error}");
        return;
    }
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--exact", test, "--nocapture"]).env(ALONE, "1").output().unwrap();
    let said =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).to_string());
    assert!(output.status.success() && said[0].contains("1 passed"), "{said:?}");
}

#[cfg(test)]
mod tests;
