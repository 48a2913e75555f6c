//! A training that stays on the device.

use super::kernels::GATHER;
use super::step::Step;
use super::{Problem, all, all_mut};
use crate::device::Gpu;
use crate::device::args::{AdamArgs, GatherArgs};
use crate::device::cuda::{Buffer, Grid, Pointer, Recording};
use crate::error::Result;
use crate::model::Shape;
use crate::ops::adam;
use crate::ops::mlp::gpu::THREADS;
use crate::ops::tiny::Loss;
use crate::ops::tiny::source::{Draw, Source};

/// The most steps that [`Training::advance`] takes at once: this many losses are kept.
pub(crate) const MOST_STEPS: usize = 512;

/// A [`Source`] on the device.
struct Data {
    positions: Buffer<f32>,
    velocities: Buffer<f32>,
    accelerations: Buffer<f32>,
    masses: Buffer<f32>,
    charges: Buffer<f32>,
    parts: Buffer<u32>,
    seeds: Buffer<u64>,
    noise_seeds: Vec<u64>,
    frames: u32,
    draw: Draw,
}

/// A training that stays on the device: data, networks, moments, learning rates, and the number of the step, which its
/// last kernel advances.
pub(crate) struct Training {
    // First, so that it is dropped before the buffers it was recorded with.
    recording: Option<Recording>,
    gpu: Gpu,
    data: Data,
    /// One entry for each step of the whole training.
    rates: Buffer<adam::Rates>,
    step: Step,
    /// Moments, `[runs, arena.len]`.
    m: Buffer<f32>,
    v: Buffer<f32>,
    /// From these Adam gets the norm of each run's gradient.
    squares: Buffer<f64>,
    done: u64,
}

impl Training {
    /// Moves a training to the device after `done` steps. `rates` are those of all steps, `arenas` the parameters and
    /// both moments, `[runs, arena.len]` each.
    ///
    /// # Errors
    /// Too little memory.
    pub fn new(
        gpu: Gpu,
        problem: Problem,
        source: &Source,
        rates: &[adam::Args],
        arenas: [&[f32]; 3],
        done: u64,
    ) -> Result<Self> {
        let Source { draw, parts, seeds, noise_seeds, .. } = source;
        let states = source.states();
        let data = Data {
            positions: gpu.upload(states.positions)?,
            velocities: gpu.upload(states.velocities)?,
            accelerations: gpu.upload(states.accelerations)?,
            masses: gpu.upload(states.masses)?,
            charges: gpu.upload(states.charges)?,
            parts: gpu.upload(parts)?,
            seeds: gpu.upload(seeds)?,
            noise_seeds: noise_seeds.clone(),
            frames: states.frames as u32,
            draw: *draw,
        };
        let rates: Vec<adam::Rates> = rates.iter().map(adam::Rates::new).collect();
        let len = arenas[0].len();
        let mut training = Training {
            recording: None,
            gpu,
            data,
            rates: gpu.upload(&rates)?,
            step: Step::new(gpu, problem, MOST_STEPS)?,
            m: gpu.buffer(len)?,
            v: gpu.buffer(len)?,
            squares: adam::gpu::squares(gpu, problem.runs, len)?,
            done,
        };
        training.upload(arenas)?;
        Ok(training)
    }

    /// Continues with networks of another shape.
    ///
    /// # Errors
    /// Those of [`Training::new`].
    pub fn reshape(&mut self, shape: Shape, arenas: [&[f32]; 3]) -> Result<()> {
        self.recording = None;
        let len = arenas[0].len();
        self.step = Step::new(self.gpu, Problem { shape, ..self.step.problem }, MOST_STEPS)?;
        (self.m, self.v) = (self.gpu.buffer(len)?, self.gpu.buffer(len)?);
        self.squares = adam::gpu::squares(self.gpu, self.step.problem.runs, len)?;
        self.upload(arenas)
    }

    fn upload(&mut self, [parameters, m, v]: [&[f32]; 3]) -> Result<()> {
        self.step.parameters.upload(parameters)?;
        self.m.upload(m)?;
        self.v.upload(v)?;
        self.step.noise_seeds.upload(&self.data.noise_seeds)?;
        self.step.counter.upload(&[self.done])
    }

    /// Trains for `steps` steps, at most [`MOST_STEPS`]; returns their losses, `[steps, runs]`.
    pub fn advance(&mut self, steps: usize) -> Result<Vec<Loss>> {
        assert!(steps <= MOST_STEPS, "the losses of {steps} steps are asked for");
        for _ in 0..steps {
            match &self.recording {
                // SAFETY: the recording is dropped when the buffers change, and is replayed on `&mut self`.
                Some(recording) => unsafe { recording.replay()? },
                None => {
                    // The first step is not recorded; it loads the kernels, which a driver may refuse to do while
                    // recording.
                    self.enqueue()?;
                    let gpu = self.gpu;
                    self.recording = Some(gpu.record(|| self.enqueue())?);
                }
            }
        }
        let first = self.done;
        self.done += steps as u64;
        self.step.losses(first..self.done)
    }

    /// Continues from the first step's number, with the networks as they are.
    pub fn rewind(&mut self) -> Result<()> {
        self.done = 0;
        self.step.counter.upload(&[0])
    }

    /// Copies the parameters to the host.
    pub fn parameters(&self, parameters: &mut [f32]) -> Result<()> {
        self.step.parameters.download(parameters)
    }

    /// Copies the moments to the host.
    pub fn moments(&self, m: &mut [f32], v: &mut [f32]) -> Result<()> {
        self.m.download(m)?;
        self.v.download(v)
    }

    /// Enqueues a training step.
    pub(in crate::ops::tiny) fn enqueue(&mut self) -> Result<()> {
        self.gather()?;
        self.step.enqueue()?;
        let args = AdamArgs {
            parameters: all_mut(&mut self.step.parameters),
            m: all_mut(&mut self.m),
            v: all_mut(&mut self.v),
            gradients: all(&self.step.gradients),
            operands: Pointer::NULL,
            squares: all_mut(&mut self.squares),
            rates: all(&self.rates),
            step: all(&self.step.counter),
            len: self.step.arena.len as u64,
            parts: adam::gpu::parts(self.step.arena.len) as u64,
        };
        // SAFETY: the buffers belong to this training, and there is a rate for every step.
        unsafe { adam::gpu::enqueue(self.gpu, self.step.problem.runs, &args)? };
        self.step.enqueue_totals()
    }

    /// Enqueues the draw of a batch.
    fn gather(&mut self) -> Result<()> {
        let (data, step) = (&self.data, &mut self.step);
        let Problem { shape, runs, graphs, bodies, .. } = step.problem;
        let args = GatherArgs {
            positions: all(&data.positions),
            velocities: all(&data.velocities),
            accelerations: all(&data.accelerations),
            masses: all(&data.masses),
            charges: all(&data.charges),
            parts: all(&data.parts),
            seeds: all(&data.seeds),
            step: all(&step.counter),
            features: all_mut(&mut step.features),
            targets: all_mut(&mut step.targets),
            translation: data.draw.translation,
            part_runs: (data.parts.len() / runs) as u32,
            frames: data.frames,
            first_frame: data.draw.first_frame as u32,
            drawn_frames: data.draw.frames as u32,
            stride: data.draw.stride as u32,
            graphs: graphs as u32,
            bodies: bodies as u32,
            dim: shape.outputs as u32,
        };
        let mut grid = Grid::cover(step.problem.nodes(), THREADS);
        grid.blocks[2] = runs as u32;
        // SAFETY: parts and frames lie within the data, and the grid covers the nodes.
        unsafe { self.gpu.launch(GATHER, grid, &args) }
    }
}
