//! Adam on a CUDA device: `kernels/adam.cu`.

use super::{Arenas, Rates};
use crate::device::Gpu;
use crate::device::cuda::{Buffer, Grid, Kernel, Pointer};
use crate::error::Result;
use crate::kernel_args;

const NORM: Kernel = Kernel { module: "adam", name: "adam_norm" };
const STEP: Kernel = Kernel { module: "adam", name: "adam_step" };
/// Threads of a block of `adam_norm`, which also has a sum in f64 for each.
const NORM_THREADS: u32 = 1024;
const THREADS: u32 = 256;

kernel_args! {
    /// What `adam_norm` and `adam_step` take.
    struct AdamArgs {
        parameters: Pointer<f32>,
        m: Pointer<f32>,
        v: Pointer<f32>,
        gradients: Pointer<f32>,
        /// The parameters rounded to bf16; may be null.
        operands: Pointer<half::bf16>,
        /// `[runs]`, from `adam_norm` to `adam_step`.
        scales: Pointer<f32>,
        /// A table, of which the step uses entry `*step`.
        rates: Pointer<Rates>,
        /// May be null, for entry 0.
        step: Pointer<u64>,
        /// Of one run.
        len: u64,
    }
}

/// Enqueues a step on arenas `[runs, len]` that are on the device.
///
/// # Safety
/// The pointers of `args` are those of living buffers of at least `runs · len` elements.
pub(crate) unsafe fn enqueue(gpu: Gpu, runs: usize, args: &AdamArgs) -> Result<()> {
    let shared = NORM_THREADS as usize * size_of::<f64>();
    let norm = Grid { shared, ..Grid::new(runs, NORM_THREADS) };
    let mut step = Grid::cover(args.len as usize, THREADS);
    step.blocks[1] = runs as u32;
    // SAFETY: the caller's promise; threads stride over `len`, blocks over `runs`.
    unsafe {
        gpu.launch(NORM, norm, args)?;
        gpu.launch(STEP, step, args)
    }
}

/// Arenas on the device, `[runs, len]` each.
pub(crate) struct Stack {
    gpu: Gpu,
    pub(crate) parameters: Buffer<f32>,
    pub(crate) m: Buffer<f32>,
    pub(crate) v: Buffer<f32>,
    pub(crate) gradients: Buffer<f32>,
    /// One entry for each step.
    rates: Buffer<Rates>,
    /// `[runs]`
    scales: Buffer<f32>,
}

impl Stack {
    /// A copy of parameters and moments of `runs` models; gradients of 0.
    ///
    /// # Errors
    /// Too little memory.
    pub(crate) fn new(
        gpu: Gpu,
        rates: &[Rates],
        runs: usize,
        [parameters, m, v]: [&[f32]; 3],
    ) -> Result<Self> {
        Ok(Stack {
            gpu,
            parameters: gpu.upload(parameters)?,
            m: gpu.upload(m)?,
            v: gpu.upload(v)?,
            gradients: gpu.zeros(parameters.len())?,
            rates: gpu.upload(rates)?,
            scales: gpu.buffer(runs)?,
        })
    }

    /// Goes on with a copy of other arenas.
    ///
    /// # Errors
    /// As [`Stack::new`].
    pub(crate) fn replace(&mut self, [parameters, m, v]: [&[f32]; 3]) -> Result<()> {
        self.parameters = self.gpu.upload(parameters)?;
        self.m = self.gpu.upload(m)?;
        self.v = self.gpu.upload(v)?;
        self.gradients = self.gpu.zeros(parameters.len())?;
        Ok(())
    }

    /// Enqueues a step at entry `step` of the rates.
    ///
    /// # Panics
    /// If there is no such entry: a programming error.
    pub(crate) fn step(&mut self, step: usize) -> Result<()> {
        let (total, runs) = (self.parameters.len(), self.scales.len());
        let args = AdamArgs {
            parameters: self.parameters.write(total),
            m: self.m.write(total),
            v: self.v.write(total),
            gradients: self.gradients.read(total),
            operands: Pointer::NULL,
            scales: self.scales.write(runs),
            // SAFETY: there is such an entry, or else `read` had panicked.
            rates: unsafe { self.rates.read(step + 1).add(step) },
            step: Pointer::NULL,
            len: (total / runs) as u64,
        };
        // SAFETY: the buffers are those of this stack.
        unsafe { enqueue(self.gpu, runs, &args) }
    }
}

pub(super) fn step(gpu: Gpu, rates: &Rates, runs: usize, arenas: Arenas) -> Result<()> {
    if arenas.parameters.is_empty() {
        return Ok(());
    }
    let Arenas { parameters, m, v, gradients } = arenas;
    let mut stack = Stack::new(gpu, &[*rates], runs, [parameters, m, v])?;
    stack.gradients.upload(gradients)?;
    stack.step(0)?;
    stack.parameters.download(parameters)?;
    stack.m.download(m)?;
    stack.v.download(v)
}
