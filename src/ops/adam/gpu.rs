//! Adam on a CUDA device: `kernels/adam.cu`.

use super::Rates;
use crate::device::Gpu;
use crate::device::cuda::{Buffer, Grid, Kernel, Pointer};
use crate::error::Result;
use crate::kernel_args;

const STEP: Kernel = Kernel { module: "adam", name: "adam_step" };
const THREADS: u32 = 256;

kernel_args! {
    /// What `adam_step` takes.
    struct AdamArgs {
        parameters: Pointer<f32>,
        m: Pointer<f32>,
        v: Pointer<f32>,
        gradients: Pointer<f32>,
        /// The parameters rounded to bf16; may be null.
        operands: Pointer<half::bf16>,
        /// A table, of which the step uses entry `*step`.
        rates: Pointer<Rates>,
        /// May be null, for entry 0.
        step: Pointer<u64>,
        len: u64,
    }
}

/// Enqueues a step on arenas that are on the device.
///
/// # Safety
/// The pointers of `args` are those of living buffers of at least `len` elements.
pub(crate) unsafe fn enqueue(gpu: Gpu, args: &AdamArgs) -> Result<()> {
    // SAFETY: the caller's promise; threads stride over `len`.
    unsafe { gpu.launch(STEP, Grid::cover(args.len as usize, THREADS), args) }
}

pub(super) fn step(
    gpu: Gpu,
    rates: &Rates,
    parameters: &mut [f32],
    m: &mut [f32],
    v: &mut [f32],
    gradients: &[f32],
) -> Result<()> {
    let len = parameters.len();
    if len == 0 {
        return Ok(());
    }
    let upload = |values: &[f32]| -> Result<Buffer<f32>> { gpu.upload(values) };
    let mut arenas = [upload(parameters)?, upload(m)?, upload(v)?];
    let gradients = upload(gradients)?;
    let rates = gpu.upload(&[*rates])?;
    let [w, first, second] = &mut arenas;
    let args = AdamArgs {
        parameters: w.write(len),
        m: first.write(len),
        v: second.write(len),
        gradients: gradients.read(len),
        operands: Pointer::NULL,
        rates: rates.read(1),
        step: Pointer::NULL,
        len: len as u64,
    };
    // SAFETY: the buffers live until the downloads below are done.
    unsafe { enqueue(gpu, &args)? };
    w.download(parameters)?;
    first.download(m)?;
    second.download(v)
}
