//! Adam on a CUDA device: `kernels/adam.cu`.

use super::{Arenas, Rates};
use crate::device::Gpu;
use crate::device::args::AdamArgs;
use crate::device::cuda::{Buffer, Grid, Kernel, Pointer};
use crate::error::Result;

const NORM: Kernel = Kernel { module: "adam", name: "adam_norm" };
const STEP: Kernel = Kernel { module: "adam", name: "adam_step" };
/// Threads of a block of `adam_norm` and of `adam_step`, powers of two. Each block has an f64 sum for each thread.
const NORM_THREADS: u32 = 1024;
const THREADS: u32 = 256;
/// Fewest elements of a part of the gradient whose squares one block adds up, and most parts of one run: one sum for
/// each thread of `adam_step`.
const PART: usize = 8192;
const MOST_PARTS: usize = THREADS as usize;

/// Number of parts of a gradient with `len` elements; each has a sum in [`AdamArgs::squares`]. It depends on nothing
/// else, so a step gives the same bits on every device.
pub(crate) fn parts(len: usize) -> usize {
    len.div_ceil(PART).clamp(1, MOST_PARTS)
}

/// Room for [`AdamArgs::squares`] of `runs` gradients with `total` elements together.
///
/// # Errors
/// Too little memory.
pub(crate) fn squares(gpu: Gpu, runs: usize, total: usize) -> Result<Buffer<f64>> {
    gpu.buffer(runs * parts(total / runs))
}

/// Enqueues a step on arenas `[runs, len]` on the device.
///
/// # Safety
/// The pointers of `args` belong to living buffers of at least `runs · len` elements, for `squares` of `runs · parts`,
/// and `parts` is the number for `len`.
pub(crate) unsafe fn enqueue(gpu: Gpu, runs: usize, args: &AdamArgs) -> Result<()> {
    let sums = |threads: u32| threads as usize * size_of::<f64>();
    let mut norm = Grid::new(args.parts as usize, NORM_THREADS);
    let mut step = Grid::cover(args.len.div_ceil(4) as usize, THREADS);
    (norm.blocks[1], step.blocks[1]) = (runs as u32, runs as u32);
    // The scale is stored after the sums.
    (norm.shared, step.shared) = (sums(NORM_THREADS), sums(THREADS) + size_of::<f32>());
    // SAFETY: the caller's promise; blocks stride over `len` and `runs`.
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
    /// `[runs, parts]`
    squares: Buffer<f64>,
    runs: usize,
}

impl Stack {
    /// A copy of the parameters and moments of `runs` models; gradients are 0.
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
            squares: squares(gpu, runs, parameters.len())?,
            runs,
        })
    }

    /// Continues with a copy of other arenas.
    ///
    /// # Errors
    /// Those of [`Stack::new`].
    pub(crate) fn replace(&mut self, [parameters, m, v]: [&[f32]; 3]) -> Result<()> {
        self.parameters = self.gpu.upload(parameters)?;
        self.m = self.gpu.upload(m)?;
        self.v = self.gpu.upload(v)?;
        self.gradients = self.gpu.zeros(parameters.len())?;
        self.squares = squares(self.gpu, self.runs, parameters.len())?;
        Ok(())
    }

    /// Enqueues a step with entry `step` of the rates.
    ///
    /// # Panics
    /// If there is no such entry: a programming error.
    pub(crate) fn step(&mut self, step: usize) -> Result<()> {
        let (total, runs) = (self.parameters.len(), self.runs);
        let (len, parts) = (total / runs, parts(total / runs));
        let args = AdamArgs {
            parameters: self.parameters.write(total),
            m: self.m.write(total),
            v: self.v.write(total),
            gradients: self.gradients.read(total),
            operands: Pointer::NULL,
            squares: self.squares.write(runs * parts),
            // SAFETY: the entry exists, or `read` would have panicked.
            rates: unsafe { self.rates.read(step + 1).add(step) },
            step: Pointer::NULL,
            len: len as u64,
            parts: parts as u64,
        };
        // SAFETY: the buffers belong to this stack.
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
