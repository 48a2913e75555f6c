//! Integration on a CUDA device: `kernels/rk4.cu`.
//!
//! All runs of a batch are integrated together, some frames at a time, and the frames of one launch stream back while
//! the next runs.

use rayon::prelude::*;

use super::{Batch, Frames, Integrator};
use crate::device::Gpu;
use crate::device::args::{Progress, Rk4Args};
use crate::device::cuda::{Buffer, Grid, Kernel};
use crate::device::ring;
use crate::error::{Error, Result};
use crate::formula::expression::Op;
use crate::law::Law;
use crate::law::potential::{Potential, small_integer};
use crate::ops::expression::{Operand, Program, gpu as program};

/// Threads of a block, one for each body; the bodies of a system are in one block.
const THREADS: usize = 64;
/// Stages of the embedded pair.
const STAGES: usize = 16;
/// Approximate size of the frames of one launch, in bytes.
const CHUNK: usize = 16 << 20;
/// Approximate number of steps of one launch: Ctrl-C waits for it.
const STEPS: usize = 20_000;

/// The value for a motion without failure.
const FOLLOWED: u64 = u64::MAX;

/// A user-defined law as the kernels read it.
#[derive(Default)]
struct Code {
    instructions: Vec<[u32; 4]>,
    constants: Vec<f64>,
    root: u32,
    slots: usize,
    symmetric: bool,
}

impl Code {
    fn new(potential: &Potential) -> Self {
        const WHOLE_POWER: u32 = Op::ALL.len() as u32;
        let derivative = potential.derivative();
        // Its constants are f32; those of the expression are in the same order.
        let f = Program::new(derivative);
        let constants = derivative.constants();
        let mut instructions: Vec<[u32; 4]> = program::code(&f, false).collect();
        for (words, instruction) in instructions.iter_mut().zip(&f.instructions) {
            if let (Op::Pow, Operand::Constant(c)) = (instruction.op, instruction.operands[1])
                && small_integer(constants[usize::from(c)])
            {
                words[0] += WHOLE_POWER - Op::Pow as u32;
            }
        }
        let root = program::operand(&f, f.root, false);
        let symmetric = potential.is_symmetric();
        Code { instructions, constants, root, slots: program::slots(&f), symmetric }
    }
}

fn kernel(integrator: Integrator, dim: usize, potential: bool) -> Kernel {
    let name = match (integrator, dim, potential) {
        (Integrator::Rk4 { .. }, 2, false) => "rk4_fixed_2d",
        (Integrator::Rk4 { .. }, _, false) => "rk4_fixed_3d",
        (Integrator::Rk4 { .. }, 2, true) => "rk4_fixed_2d_potential",
        (Integrator::Rk4 { .. }, _, true) => "rk4_fixed_3d_potential",
        (Integrator::Adaptive { .. }, 2, false) => "rk4_adaptive_2d",
        (Integrator::Adaptive { .. }, _, false) => "rk4_adaptive_3d",
        (Integrator::Adaptive { .. }, 2, true) => "rk4_adaptive_2d_potential",
        (Integrator::Adaptive { .. }, _, true) => "rk4_adaptive_3d_potential",
    };
    Kernel { module: "rk4", name }
}

/// Frames of one launch: as many as fit a chunk, fewer if the device has no room for that many.
pub(super) fn frames_at_once(batch: &Batch, free: usize) -> usize {
    let bytes = 3 * size_of::<f32>() * batch.runs() * batch.bodies * batch.dim;
    let steps = match batch.integrator {
        Integrator::Rk4 { substeps } => substeps,
        Integrator::Adaptive { .. } => 1,
    };
    let room = free / 10 * 9 / ring::CHUNKS;
    (CHUNK.min(room) / bytes).min(STEPS / steps).clamp(1, batch.frames)
}

/// See [`super::integrate`].
pub(super) fn integrate(gpu: Gpu, batch: &Batch, states: &mut [f64], frames: Frames) -> Result<()> {
    if batch.runs() == 0 || batch.frames == 0 {
        return Ok(());
    }
    let at_once = frames_at_once(batch, gpu.free_memory()?);
    integrate_in_parts(gpu, batch, states, frames, at_once)
}

/// The same, with `at_once` frames per launch.
pub(super) fn integrate_in_parts(
    gpu: Gpu,
    batch: &Batch,
    states: &mut [f64],
    frames: Frames,
    at_once: usize,
) -> Result<()> {
    let (runs, size) = (batch.runs(), batch.bodies * batch.dim);
    let mut motion = Motion::new(gpu, batch, states)?;
    let jobs = (0..batch.frames).step_by(at_once);
    let launch = |first: &usize, chunk: &mut Buffer<f32>| {
        if batch.observer.stop() {
            return Err(Error::interrupted("interrupted: nothing was written"));
        }
        let count = at_once.min(batch.frames - first);
        motion.launch(*first, count, chunk)?;
        Ok(3 * runs * count * size)
    };
    let Frames { positions, velocities, accelerations } = frames;
    let mut outputs = [positions, velocities, accelerations];
    let take = |first: &usize, chunk: &[f32]| {
        let part = chunk.len() / 3;
        for (out, chunk) in outputs.iter_mut().zip(chunk.chunks_exact(part)) {
            out.par_chunks_mut(batch.frames * size)
                .zip(chunk.par_chunks(part / runs))
                .for_each(|(out, chunk)| out[first * size..][..chunk.len()].copy_from_slice(chunk));
        }
    };
    ring::stream(gpu, 3 * runs * at_once * size, jobs, launch, take)?;
    motion.download(states)
}

/// The systems of a batch on the device, at some point of their motion.
pub(crate) struct Motion<'a> {
    gpu: Gpu,
    batch: &'a Batch<'a>,
    /// The index of a built-in law in `Law::ALL`.
    law: u32,
    code: Code,
    states: Buffer<f64>,
    masses: Buffer<f64>,
    charges: Buffer<f64>,
    instructions: Buffer<[u32; 4]>,
    constants: Buffer<f64>,
    progress: Buffer<Progress>,
    failures: Buffer<u64>,
}

impl<'a> Motion<'a> {
    /// At the start.
    ///
    /// # Errors
    /// More bodies than a block has threads; too little memory.
    pub(crate) fn new(gpu: Gpu, batch: &'a Batch, states: &[f64]) -> Result<Self> {
        let (runs, bodies) = (batch.runs(), batch.bodies);
        if bodies > THREADS {
            let message = format!("{bodies} bodies; {gpu:?} integrates at most {THREADS} together");
            return Err(Error::usage(message).field("bodies"));
        }
        let code = match batch.law {
            Law::Potential(potential) => Code::new(potential),
            _ => Code::default(),
        };
        let law = Law::ALL.iter().position(|law| law == batch.law).unwrap_or(Law::ALL.len()) as u32;
        let begin = Progress { time: 0.0, step: batch.dt, frame: 0, rejected: 0 };
        Ok(Motion {
            gpu,
            batch,
            law,
            states: gpu.upload(states)?,
            masses: gpu.upload(batch.masses)?,
            charges: gpu.upload(batch.charges)?,
            instructions: gpu.upload(&code.instructions)?,
            constants: gpu.upload(&code.constants)?,
            progress: gpu.upload(&vec![begin; runs])?,
            failures: gpu.upload(&vec![FOLLOWED; runs])?,
            code,
        })
    }

    /// Enqueues resetting to the state of `other`, of the same batch.
    pub(crate) fn return_to(&mut self, other: &Motion) -> Result<()> {
        self.states.copy_from(&other.states)?;
        self.progress.copy_from(&other.progress)?;
        self.failures.copy_from(&other.failures)
    }

    /// Enqueues `count` frames, starting with `first`, into `[3, run, count, body, dim]`.
    pub(crate) fn launch(
        &mut self,
        first: usize,
        count: usize,
        frames: &mut Buffer<f32>,
    ) -> Result<()> {
        let Batch { law, integrator, dim, bodies, dt, .. } = *self.batch;
        let (runs, size, code) = (self.batch.runs(), bodies * dim, &self.code);
        let (substeps, tolerance) = match integrator {
            Integrator::Rk4 { substeps } => (substeps, 0.0),
            Integrator::Adaptive { tolerance } => (0, tolerance),
        };
        let args = Rk4Args {
            states: self.states.write(2 * runs * size),
            masses: self.masses.read(runs * bodies),
            charges: self.charges.read(runs * bodies),
            potential: self.instructions.read(code.instructions.len()),
            constants: self.constants.read(code.constants.len()),
            stored: frames.write(3 * runs * count * size),
            progress: self.progress.write(runs),
            failures: self.failures.write(runs),
            runs: runs as u32,
            bodies: bodies as u32,
            law: self.law,
            substeps: substeps as u32,
            first: first as u32,
            count: count as u32,
            frames: self.batch.frames as u32,
            instructions: code.instructions.len() as u32,
            n_constants: code.constants.len() as u32,
            root: code.root,
            slots: code.slots as u32,
            symmetric: code.symmetric.into(),
            dt,
            end: (self.batch.frames - 1) as f64 * dt,
            tolerance,
            drag: (bodies - 1) as f64 * law.drag(bodies),
        };
        let grid = Grid {
            shared: shared(self.batch, code),
            ..Grid::new(runs.div_ceil(THREADS / bodies), THREADS as u32)
        };
        let kernel = kernel(integrator, dim, matches!(law, Law::Potential(_)));
        // SAFETY: the lengths above are those documented in the kernel, and the caller keeps the frames alive, like
        // anyone who enqueues work on his own buffer.
        unsafe { self.gpu.launch(kernel, grid, &args) }
    }

    /// Waits for the work; returns the final states.
    ///
    /// # Errors
    /// A motion that cannot be followed.
    pub(crate) fn download(&self, states: &mut [f64]) -> Result<()> {
        let failures = self.failures.to_vec()?;
        if let Some(run) = failures.iter().position(|time| *time != FOLLOWED) {
            return Err(self.batch.lost(run, f64::from_bits(failures[run])));
        }
        self.states.download(states)
    }
}

/// Bytes of shared memory of a block, as `enter` in the kernel uses them.
fn shared(batch: &Batch, code: &Code) -> usize {
    let Batch { integrator, dim, .. } = *batch;
    let column = THREADS * size_of::<f64>();
    let pair = match integrator {
        Integrator::Adaptive { .. } => (4 + 2 * STAGES) * dim,
        Integrator::Rk4 { .. } => 0,
    };
    let constants = (code.constants.len() * size_of::<f64>()).next_multiple_of(16);
    let columns = 2 + 2 * dim + pair + code.slots;
    columns * column + code.instructions.len() * size_of::<[u32; 4]>() + constants
}

#[cfg(test)]
mod tests {
    use super::super::selftest::Case;
    use super::*;
    use crate::device::{Device, assert_traps, test_gpu};

    /// The result of launching the first frames after `change`.
    fn launched(law: Law, change: impl FnOnce(&mut Motion)) -> Result<()> {
        let Some(Device::Gpu(gpu)) = test_gpu() else { unreachable!("asked for before") };
        let case = Case::new(law, 2, 3, 4, 1.0);
        let batch = case.batch(Integrator::Rk4 { substeps: 1 });
        let mut motion = Motion::new(gpu, &batch, &case.states)?;
        change(&mut motion);
        let mut frames = gpu.buffer(3 * 4 * case.frames * 3 * 2)?;
        motion.launch(0, case.frames, &mut frames)?;
        motion.download(&mut case.states.clone())
    }

    #[test]
    fn gpu_laws_without_an_arm_trap() {
        assert_traps("ops::rk4::gpu::tests::gpu_laws_without_an_arm_trap", || {
            launched(Law::Spring, |motion| motion.law = 77)
        });
    }

    #[test]
    fn gpu_operators_without_an_arm_trap() {
        assert_traps("ops::rk4::gpu::tests::gpu_operators_without_an_arm_trap", || {
            let law = Law::from_potential("exp(-r)")?;
            launched(law, |motion| {
                motion.code.instructions[0][0] |= 0xff;
                motion.instructions = motion.gpu.upload(&motion.code.instructions).unwrap();
            })
        });
    }
}
