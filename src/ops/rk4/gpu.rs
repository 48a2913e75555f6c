//! Integration on a CUDA device: `kernels/rk4.cu`.
//!
//! All runs of a batch are integrated together, some frames at a time, and the frames of one launch
//! stream back while the next goes on.

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use super::{Batch, Frames, Integrator};
use crate::device::Gpu;
use crate::device::cuda::{Buffer, Grid, Kernel, Pointer};
use crate::device::ring;
use crate::error::{Error, Result};
use crate::interrupt;
use crate::kernel_args;
use crate::nbody::law::Law;
use crate::nbody::potential::{Potential, small_integer};
use crate::ops::expression::{Operand, Program, gpu as program};
use crate::symbolic::expression::Op;

/// Threads of a block, a body each: bodies of a system are in one block.
const THREADS: usize = 64;
/// Of the embedded pair.
const STAGES: usize = 16;
/// Bytes of frames of one launch, about.
const CHUNK: usize = 16 << 20;
/// Steps of one launch, about: Ctrl-C waits for it.
const STEPS: usize = 20_000;

kernel_args! {
    /// What the kernels take.
    struct Rk4Args {
        states: Pointer<f64>,
        masses: Pointer<f64>,
        charges: Pointer<f64>,
        /// `[instructions]` dU12/dr of a user's law.
        potential: Pointer<[u32; 4]>,
        /// `[n_constants]` its numbers.
        constants: Pointer<f64>,
        /// `[3, run, count, body, dim]`
        stored: Pointer<f32>,
        /// `[run]`, of the adaptive integrator.
        progress: Pointer<Progress>,
        /// `[run]` bits of the time beyond which a motion cannot be followed.
        failures: Pointer<u64>,
        runs: u32,
        bodies: u32,
        law: u32,
        substeps: u32,
        first: u32,
        count: u32,
        frames: u32,
        instructions: u32,
        n_constants: u32,
        root: u32,
        slots: u32,
        symmetric: u32,
        dt: f64,
        end: f64,
        tolerance: f64,
        drag: f64,
    }
}

/// Where an adaptive integration stands.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Progress {
    time: f64,
    step: f64,
    frame: u32,
    rejected: u32,
}

/// A motion without failure.
const FOLLOWED: u64 = u64::MAX;

/// A user's law as the kernels read it.
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
        // Its constants are f32; the expression has them in the same order.
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

/// Frames of one launch: as many as fit a chunk, fewer where the device has no room for those.
pub(super) fn frames_at_once(batch: &Batch, free: usize) -> usize {
    let bytes = 3 * size_of::<f32>() * batch.runs() * batch.bodies * batch.dim;
    let steps = match batch.integrator {
        Integrator::Rk4 { substeps } => substeps,
        Integrator::Adaptive { .. } => 1,
    };
    let room = free / 10 * 9 / ring::CHUNKS;
    (CHUNK.min(room) / bytes).min(STEPS / steps).clamp(1, batch.frames)
}

/// As [`super::integrate`].
pub(super) fn integrate(gpu: Gpu, batch: &Batch, states: &mut [f64], frames: Frames) -> Result<()> {
    if batch.runs() == 0 || batch.frames == 0 {
        return Ok(());
    }
    let at_once = frames_at_once(batch, gpu.free_memory()?);
    integrate_in_parts(gpu, batch, states, frames, at_once)
}

/// The same, `at_once` frames a launch.
pub(super) fn integrate_in_parts(
    gpu: Gpu,
    batch: &Batch,
    states: &mut [f64],
    frames: Frames,
    at_once: usize,
) -> Result<()> {
    let Batch { law, integrator, dim, bodies, dt, .. } = *batch;
    let runs = batch.runs();
    if bodies > THREADS {
        let message = format!("{bodies} bodies; {gpu:?} integrates at most {THREADS} together");
        return Err(Error::usage(message).field("bodies"));
    }
    let (substeps, tolerance) = match integrator {
        Integrator::Rk4 { substeps } => (substeps, 0.0),
        Integrator::Adaptive { tolerance } => (0, tolerance),
    };
    let code = match law {
        Law::Potential(potential) => Code::new(potential),
        _ => Code::default(),
    };
    let mut on_device = gpu.upload(states)?;
    let (masses, charges) = (gpu.upload(batch.masses)?, gpu.upload(batch.charges)?);
    let (instructions, constants) = (gpu.upload(&code.instructions)?, gpu.upload(&code.constants)?);
    let begin = Progress { time: 0.0, step: dt, frame: 0, rejected: 0 };
    let mut progress = gpu.upload(&vec![begin; runs])?;
    let mut failures = gpu.upload(&vec![FOLLOWED; runs])?;

    let size = bodies * dim;
    let kernel = kernel(integrator, dim, matches!(law, Law::Potential(_)));
    let grid = Grid {
        shared: shared(batch, &code),
        ..Grid::new(runs.div_ceil(THREADS / bodies), THREADS as u32)
    };
    let jobs = (0..batch.frames).step_by(at_once);
    let launch = |first: &usize, chunk: &mut Buffer<f32>| {
        if interrupt::requested() {
            return Err(Error::interrupted("interrupted: nothing was written"));
        }
        let count = at_once.min(batch.frames - first);
        let args = Rk4Args {
            states: on_device.write(2 * runs * size),
            masses: masses.read(runs * bodies),
            charges: charges.read(runs * bodies),
            potential: instructions.read(code.instructions.len()),
            constants: constants.read(code.constants.len()),
            stored: chunk.write(3 * runs * count * size),
            progress: progress.write(runs),
            failures: failures.write(runs),
            runs: runs as u32,
            bodies: bodies as u32,
            law: Law::ALL.iter().position(|l| l == law).unwrap_or(Law::ALL.len()) as u32,
            substeps: substeps as u32,
            first: *first as u32,
            count: count as u32,
            frames: batch.frames as u32,
            instructions: code.instructions.len() as u32,
            n_constants: code.constants.len() as u32,
            root: code.root,
            slots: code.slots as u32,
            symmetric: code.symmetric.into(),
            dt,
            end: (batch.frames - 1) as f64 * dt,
            tolerance,
            drag: (bodies - 1) as f64 * law.drag(bodies),
        };
        // SAFETY: the lengths above are those that the kernel documents; the buffers outlive the
        // downloads below, and `stream` keeps the chunk.
        unsafe { gpu.launch(kernel, grid, &args)? };
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

    let failures = failures.to_vec()?;
    if let Some(run) = failures.iter().position(|time| *time != FOLLOWED) {
        return Err(batch.lost(run, f64::from_bits(failures[run])));
    }
    on_device.download(states)
}

/// Bytes of shared memory of a block, as `enter` in the kernel takes them.
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
