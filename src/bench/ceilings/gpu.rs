//! The limits of a CUDA device: `kernels/ceilings.cu`, and the driver's copy. Tensor cores are measured
//! with the instruction that this project's kernels use, m16n8k16; Hopper has faster ones.

use bytemuck::{Pod, Zeroable};

use super::{Ceiling, Ceilings, LEAST, ROUNDS};
use crate::bench::seconds;
use crate::device::Gpu;
use crate::device::cuda::{Args, Grid, Kernel, Pointer};
use crate::error::Result;
use crate::kernel_args;

const F32: Kernel = Kernel { module: "ceilings", name: "ceilings_f32" };
const F64: Kernel = Kernel { module: "ceilings", name: "ceilings_f64" };
const BF16: Kernel = Kernel { module: "ceilings", name: "ceilings_bf16" };
const COPY: Kernel = Kernel { module: "ceilings", name: "ceilings_copy" };

/// Operations of a thread in a round: chains, links and the two of a multiply-add.
const FMA_OPERATIONS: usize = 16 * 8 * 2;
/// The same of a warp on tensor cores, shared by its threads.
const MMA_OPERATIONS: usize = 8 * (16 * 8 * 16 * 2) / 32;
const THREADS: u32 = 256;
/// Blocks for each multiprocessor: 32 warps, which every architecture holds.
const BLOCKS: usize = 4;

kernel_args! {
    /// What `ceilings_f32`, `ceilings_f64` and `ceilings_bf16` take.
    struct FlopArgs {
        sums: Pointer<f32>,
        rounds: u64,
        factor: f32,
        addend: f32,
    }
}

kernel_args! {
    /// What `ceilings_copy` takes.
    struct CopyArgs {
        from: Pointer<Quad>,
        to: Pointer<Quad>,
        len: u64,
        rounds: u64,
    }
}

/// `float4`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(16))]
pub(crate) struct Quad([f32; 4]);

/// How much is done, and for how long.
struct Effort {
    blocks: usize,
    rounds: usize,
    least: f64,
    /// Bytes of the two copies, source and destination together.
    cache: usize,
    memory: usize,
}

impl Effort {
    fn of(gpu: Gpu) -> Result<Self> {
        if gpu.is_emulated() {
            return Ok(Effort {
                blocks: 1,
                rounds: 1,
                least: 0.0,
                cache: 1 << 20,
                memory: 2 << 20,
            });
        }
        let properties = gpu.properties()?;
        Ok(Effort {
            blocks: BLOCKS * properties.multiprocessors,
            rounds: ROUNDS,
            least: LEAST,
            // A quarter of the cache: some have two halves that both keep a copy.
            cache: (properties.cache / 4).clamp(1 << 20, 64 << 20),
            memory: 512 << 20,
        })
    }
}

pub(super) fn measure(gpu: Gpu) -> Result<Ceilings> {
    let effort = Effort::of(gpu)?;
    let flops = |what: &str, kernel, operations| flops(gpu, &effort, what, kernel, operations);
    Ok(Ceilings {
        f32_flops: flops("multiply-add", F32, FMA_OPERATIONS)?,
        bf16_flops: Some(flops("mma m16n8k16", BF16, MMA_OPERATIONS)?),
        f64_flops: flops("multiply-add", F64, FMA_OPERATIONS)?,
        cache_bandwidth: cache_bandwidth(gpu, &effort)?,
        memory_bandwidth: memory_bandwidth(gpu, &effort)?,
        cached: gpu.properties()?.cache as f64,
    })
}

fn flops(
    gpu: Gpu,
    effort: &Effort,
    what: &str,
    kernel: Kernel,
    operations: usize,
) -> Result<Ceiling> {
    Ceiling::measure(what.into(), effort.least, effort.rounds, |rounds| {
        let threads = effort.blocks * THREADS as usize;
        let mut sums = gpu.buffer(threads)?;
        let args = FlopArgs { sums: sums.write(threads), rounds, factor: 1.0, addend: 1.0 };
        // SAFETY: there is a sum for each thread, and the buffer outlives the wait.
        let seconds = seconds(gpu, || unsafe { launch(gpu, effort, kernel, &args) })?;
        Ok(((threads * operations) as f64 * rounds as f64, seconds))
    })
}

fn cache_bandwidth(gpu: Gpu, effort: &Effort) -> Result<Ceiling> {
    let len = effort.cache / (2 * size_of::<Quad>());
    let (from, mut to) = (gpu.zeros::<Quad>(len)?, gpu.buffer::<Quad>(len)?);
    let (from, to) = (from.read(len), to.write(len));
    Ceiling::measure(super::copy_of(effort.cache), effort.least, effort.rounds, |rounds| {
        let args = CopyArgs { from, to, len: len as u64, rounds };
        // SAFETY: both buffers have `len` elements, and they outlive the wait.
        let seconds = seconds(gpu, || unsafe { launch(gpu, effort, COPY, &args) })?;
        Ok((effort.cache as f64 * rounds as f64, seconds))
    })
}

/// # Safety
/// As [`Gpu::launch`], for [`Effort::blocks`] blocks of [`THREADS`] threads.
unsafe fn launch<A: Args>(gpu: Gpu, effort: &Effort, kernel: Kernel, args: &A) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe { gpu.launch(kernel, Grid::new(effort.blocks, THREADS), args) }
}

fn memory_bandwidth(gpu: Gpu, effort: &Effort) -> Result<Ceiling> {
    let from = gpu.zeros::<u8>(effort.memory / 2)?;
    let mut to = gpu.buffer::<u8>(effort.memory / 2)?;
    let mut copy = || seconds(gpu, || to.copy_from(&from));
    copy()?;
    let times = (0..effort.rounds).map(|_| copy()).collect::<Result<_>>()?;
    Ok(Ceiling { what: super::copy_of(effort.memory), count: effort.memory as f64, times })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpu_rounds_do_what_is_counted() {
        let Some(crate::device::Device::Gpu(gpu)) = crate::device::test_gpu() else { return };
        // With factor 1, each operation adds the addend; chains and tiles begin with their number.
        let chains = |rounds: f32| 120.0 + 16.0 * 8.0 * rounds * 0.5;
        let tiles = |rounds: f32| 4.0 * (28.0 + 8.0 * 16.0 * rounds * 0.5);
        let expected: [(Kernel, &dyn Fn(f32) -> f32); 3] =
            [(F32, &chains), (F64, &chains), (BF16, &tiles)];
        for (kernel, expected) in expected {
            for rounds in [0, 1, 3] {
                let mut sums = gpu.buffer(2 * THREADS as usize).unwrap();
                let sums_at = sums.write(2 * THREADS as usize);
                let args = FlopArgs { sums: sums_at, rounds, factor: 1.0, addend: 0.5 };
                // SAFETY: there is a sum for each thread.
                unsafe { gpu.launch(kernel, Grid::new(2, THREADS), &args).unwrap() };
                let expected = vec![expected(rounds as f32); 2 * THREADS as usize];
                assert_eq!(sums.to_vec().unwrap(), expected, "{kernel:?}");
            }
        }
    }

    #[test]
    fn gpu_copies_copy() {
        let Some(crate::device::Device::Gpu(gpu)) = crate::device::test_gpu() else { return };
        let values: Vec<Quad> = (0..1000).map(|k| Quad([k as f32; 4])).collect();
        let (from, mut to) = (gpu.upload(&values).unwrap(), gpu.zeros::<Quad>(1000).unwrap());
        let args = CopyArgs { from: from.read(1000), to: to.write(1000), len: 999, rounds: 2 };
        // SAFETY: both buffers are longer.
        unsafe { gpu.launch(COPY, Grid::new(2, 64), &args).unwrap() };
        let found = to.to_vec().unwrap();
        assert!(found[..999].iter().zip(&values).all(|(found, value)| found.0 == value.0));
        assert_eq!(found[999].0, [0.0; 4]);
        let mut copy = gpu.zeros::<Quad>(1000).unwrap();
        copy.copy_from(&from).unwrap();
        assert_eq!(copy.to_vec().unwrap()[999].0, [999.0; 4]);
    }
}
