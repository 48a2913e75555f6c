//! The limits of a CUDA device: `kernels/ceilings.cu`, and the driver's copy. Tensor cores are measured
//! with the instructions that this project's kernels use: m16n8k16 everywhere, wgmma on compute capability 9.0.

use half::bf16;

use super::{Ceiling, Ceilings, LEAST, ROUNDS};
use crate::bench::seconds;
use crate::device::Gpu;
use crate::device::args::{BulkArgs, CopyArgs, FlopArgs, WgmmaArgs};
use crate::device::cuda::{Args, Grid, Kernel};
use crate::error::Result;
use crate::random::Random;

const F32: Kernel = Kernel { module: "ceilings", name: "ceilings_f32" };
const F64: Kernel = Kernel { module: "ceilings", name: "ceilings_f64" };
const BF16: Kernel = Kernel { module: "ceilings", name: "ceilings_bf16" };
const COPY: Kernel = Kernel { module: "ceilings", name: "ceilings_copy" };
const WGMMA: Kernel = Kernel { module: "ceilings", name: "ceilings_wgmma" };
const BULK: Kernel = Kernel { module: "ceilings", name: "ceilings_bulk" };

/// Operations per thread and round: chains × links × two for a multiply-add.
const FMA_OPERATIONS: usize = 16 * 8 * 2;
/// The same on tensor cores: the operations of a warp divided by its threads.
const MMA_OPERATIONS: usize = 8 * (16 * 8 * 16 * 2) / 32;
const THREADS: u32 = 256;

/// The compute capability that has `ceilings_wgmma` and `ceilings_bulk`.
const HOPPER: (i32, i32) = (9, 0);
/// Shapes of the operands of `ceilings_wgmma`: two warpgroups with `ROWS` rows each, multiplied by a shared operand
/// of `COLUMNS` columns; `DEPTH` is the inner dimension.
const GROUPS: usize = 2;
const ROWS: usize = 64;
const COLUMNS: usize = 256;
const DEPTH: usize = 32;
const OPERANDS: usize = (GROUPS * ROWS + COLUMNS) * DEPTH;
/// Products per warpgroup and round, and operations per product.
const PRODUCTS: usize = 16;
const WGMMA_OPERATIONS: usize = ROWS * COLUMNS * 16 * 2;
/// Stages of the ring buffer of `ceilings_bulk`, and f32 numbers in each.
const STAGES: usize = 8;
const PIECE: usize = 4096;

/// Blocks per multiprocessor: 32 warps, which fit on every architecture.
const BLOCKS: usize = 4;

/// How much work is done, and for how long.
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
    let properties = gpu.properties()?;
    let hopper = properties.capability == HOPPER;
    let flops = |what: &str, kernel, operations| flops(gpu, &effort, what, kernel, operations);
    Ok(Ceilings {
        f32_flops: flops("multiply-add", F32, FMA_OPERATIONS)?,
        bf16_flops: Some(flops("mma m16n8k16", BF16, MMA_OPERATIONS)?),
        wgmma_flops: hopper.then(|| wgmma_flops(gpu, &effort)).transpose()?,
        f64_flops: flops("multiply-add", F64, FMA_OPERATIONS)?,
        cache_bandwidth: cache_bandwidth(gpu, &effort)?,
        bulk_bandwidth: hopper.then(|| bulk_bandwidth(gpu, &effort)).transpose()?,
        memory_bandwidth: memory_bandwidth(gpu, &effort)?,
        cached: properties.cache as f64,
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

/// Products of random operands: with equal ones tensor cores draw less power and clock higher.
fn wgmma_flops(gpu: Gpu, effort: &Effort) -> Result<Ceiling> {
    let mut random = Random::new(1, 1);
    let operands: Vec<_> = (0..OPERANDS).map(|_| bf16::from_f64(random.normal())).collect();
    let operands = gpu.upload(&operands)?;
    let what = "wgmma m64n256k16, from shared memory".into();
    Ceiling::measure(what, effort.least, effort.rounds, |rounds| {
        let threads = effort.blocks * THREADS as usize;
        let mut sums = gpu.buffer(threads)?;
        let args =
            WgmmaArgs { operands: operands.read(OPERANDS), sums: sums.write(threads), rounds };
        // SAFETY: there is a sum for each thread, and the buffers outlive the wait.
        let seconds = seconds(gpu, || unsafe { wgmma(gpu, effort.blocks, &args) })?;
        let products = (effort.blocks * GROUPS * PRODUCTS) as f64 * rounds as f64;
        Ok((products * WGMMA_OPERATIONS as f64, seconds))
    })
}

/// # Safety
/// As [`Gpu::launch`], for `blocks` blocks of [`THREADS`] threads.
unsafe fn wgmma(gpu: Gpu, blocks: usize, args: &WgmmaArgs) -> Result<()> {
    let shared = OPERANDS * size_of::<bf16>() + size_of::<u64>();
    // SAFETY: the caller's promise.
    unsafe { gpu.launch(WGMMA, Grid { shared, ..Grid::new(blocks, THREADS) }, args) }
}

/// Bulk copies to shared memory of as many bytes as the copy in cache reads.
fn bulk_bandwidth(gpu: Gpu, effort: &Effort) -> Result<Ceiling> {
    let pieces = effort.cache / 2 / (PIECE * size_of::<f32>());
    let from = gpu.zeros::<f32>(pieces * PIECE)?;
    let what = format!("bulk copies to shared memory, of {} MiB", effort.cache >> 21);
    Ceiling::measure(what, effort.least, effort.rounds, |rounds| {
        let threads = effort.blocks * THREADS as usize;
        let mut sums = gpu.buffer(threads)?;
        let (from, sums) = (from.read(pieces * PIECE), sums.write(threads));
        let args = BulkArgs { from, sums, pieces: pieces as u64, rounds };
        // SAFETY: as in `wgmma_flops`.
        let seconds = seconds(gpu, || unsafe { bulk(gpu, effort.blocks, &args) })?;
        let copies = (effort.blocks * STAGES) as f64 * rounds as f64;
        Ok((copies * (PIECE * size_of::<f32>()) as f64, seconds))
    })
}

/// # Safety
/// As [`wgmma`].
unsafe fn bulk(gpu: Gpu, blocks: usize, args: &BulkArgs) -> Result<()> {
    let shared = STAGES * (PIECE * size_of::<f32>() + size_of::<u64>());
    // SAFETY: the caller's promise.
    unsafe { gpu.launch(BULK, Grid { shared, ..Grid::new(blocks, THREADS) }, args) }
}

fn cache_bandwidth(gpu: Gpu, effort: &Effort) -> Result<Ceiling> {
    let len = effort.cache / (2 * size_of::<[f32; 4]>());
    let (from, mut to) = (gpu.zeros::<[f32; 4]>(len)?, gpu.buffer::<[f32; 4]>(len)?);
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

    /// A device that can run the kernels for sm_90a; the stand-in driver runs them, too.
    fn hopper() -> Option<Gpu> {
        let Some(crate::device::Device::Gpu(gpu)) = crate::device::test_gpu() else { return None };
        let there = gpu.properties().unwrap().capability == HOPPER || gpu.is_emulated();
        there.then_some(gpu)
    }

    #[test]
    fn gpu_rounds_of_wgmma_multiply_as_often_as_is_counted() {
        let Some(gpu) = hopper() else { return };
        // Small integers, so that all sums are exact.
        let value = |place: usize| (place * place + place / 7) % 5;
        let operands: Vec<_> = (0..OPERANDS).map(|k| bf16::from_f32(value(k) as f32)).collect();
        let uploaded = gpu.upload(&operands).unwrap();
        let swizzled = |row: usize, k: usize| row * DEPTH + ((k / 8) ^ (row / 2 % 4)) * 8 + k % 8;
        // Σ over rows and columns of the product is Σ over k of the two sums over rows.
        let sums = |first: usize, rows: usize| -> Vec<f64> {
            let column = |k| (first..first + rows).map(|row| value(swizzled(row, k)) as f64).sum();
            (0..DEPTH).map(column).collect()
        };
        let right = sums(GROUPS * ROWS, COLUMNS);
        for rounds in [0, 1, 3] {
            let threads = 2 * THREADS as usize;
            let mut found = gpu.buffer(threads).unwrap();
            let found_at = found.write(threads);
            let args = WgmmaArgs { operands: uploaded.read(OPERANDS), sums: found_at, rounds };
            // SAFETY: there is a sum for each thread.
            unsafe { wgmma(gpu, 2, &args).unwrap() };
            for (k, found) in found.to_vec().unwrap().chunks(threads / 4).enumerate() {
                let left = sums(k % GROUPS * ROWS, ROWS);
                let once: f64 = left.iter().zip(&right).map(|(a, b)| a * b).sum();
                // A product has 16 of the 32 columns.
                let expected = once * (PRODUCTS / 2) as f64 * rounds as f64;
                let found: f64 = found.iter().map(|&sum| f64::from(sum)).sum();
                assert_eq!(found, expected, "warpgroup {k}, {rounds} rounds");
            }
        }
    }

    #[test]
    fn gpu_bulk_copies_bring_what_is_counted() {
        let Some(gpu) = hopper() else { return };
        // Not a multiple of the stages, so that each stage gets different pieces in each round.
        let pieces = 5;
        let values: Vec<f32> = (0..pieces * PIECE).map(|k| (k / 3 % 101) as f32).collect();
        let from = gpu.upload(&values).unwrap();
        for rounds in [1, 3] {
            let (blocks, threads) = (7, THREADS as usize);
            let mut sums = gpu.buffer(blocks * threads).unwrap();
            let (from, at) = (from.read(values.len()), sums.write(blocks * threads));
            let args = BulkArgs { from, sums: at, pieces: pieces as u64, rounds };
            // SAFETY: there is a sum for each thread.
            unsafe { bulk(gpu, blocks, &args).unwrap() };
            for (k, found) in sums.to_vec().unwrap().into_iter().enumerate() {
                let (block, thread) = (k / threads, k % threads);
                let last = (0..STAGES).map(|stage| (rounds as usize - 1) * STAGES + stage);
                let last = last.map(|copy| &values[(block + copy) % pieces * PIECE..][..PIECE]);
                let own = last.flat_map(|piece| piece[thread..].iter().step_by(threads));
                assert_eq!(found, own.sum::<f32>(), "block {block}, thread {thread}");
            }
        }
    }

    #[test]
    fn gpu_copies_copy() {
        let Some(crate::device::Device::Gpu(gpu)) = crate::device::test_gpu() else { return };
        let values: Vec<[f32; 4]> = (0..1000).map(|k| [k as f32; 4]).collect();
        let (from, mut to) = (gpu.upload(&values).unwrap(), gpu.zeros::<[f32; 4]>(1000).unwrap());
        let args = CopyArgs { from: from.read(1000), to: to.write(1000), len: 999, rounds: 2 };
        // SAFETY: both buffers are longer.
        unsafe { gpu.launch(COPY, Grid::new(2, 64), &args).unwrap() };
        let found = to.to_vec().unwrap();
        assert!(found[..999].iter().zip(&values).all(|(found, value)| found == value));
        assert_eq!(found[999], [0.0; 4]);
        let mut copy = gpu.zeros::<[f32; 4]>(1000).unwrap();
        copy.copy_from(&from).unwrap();
        assert_eq!(copy.to_vec().unwrap()[999], [999.0; 4]);
    }
}
