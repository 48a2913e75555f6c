//! A training on its device: each step draws a batch, takes the gradient and updates the networks.
//!
//! On a GPU networks, moments and data stay there, and steps run without the host until their losses are asked for.

use super::source::{Graphs, Source};
use super::{Batch, Loss, Problem, Workspace, gpu, gradient};
use crate::device::Device;
use crate::error::Result;
use crate::model::Shape;
use crate::ops::Training;
use crate::ops::adam::{self, Networks};
use crate::random::Random;

/// A stack of trainings on a device.
pub struct Session<'a>(Backend<'a>);

enum Backend<'a> {
    Processor(Box<Host<'a>>),
    Gpu(Box<gpu::Training>),
}

/// A training on the CPU.
struct Host<'a> {
    device: Device,
    problem: Problem,
    source: Source<'a>,
    networks: Networks,
    batch: Graphs,
    workspace: Workspace,
    done: u64,
}

impl<'a> Session<'a> {
    /// Moves a training to the device after `done` steps. `rates` are the learning rates of all steps, `arenas` the
    /// parameters and both moments, `[runs, arena.len]` each.
    ///
    /// # Errors
    /// Too little memory.
    pub fn new(
        device: &Device,
        problem: Problem,
        source: Source<'a>,
        rates: Vec<f32>,
        arenas: [&[f32]; 3],
        done: u64,
    ) -> Result<Self> {
        let device = *device;
        Ok(Session(match device {
            Device::Cpu(_) => {
                let networks = Networks::new(rates, arenas);
                let (batch, workspace) = (Graphs::default(), Workspace::default());
                let host = Host { device, problem, source, networks, batch, workspace, done };
                Backend::Processor(Box::new(host))
            }
            Device::Gpu(gpu) => {
                let rates = adam::schedule(&rates);
                let training = gpu::Training::new(gpu, problem, &source, &rates, arenas, done)?;
                Backend::Gpu(Box::new(training))
            }
        }))
    }

    /// Trains for `steps` steps, at most [`Training::most_steps`]; returns their losses, `[steps, runs]`.
    ///
    /// # Errors
    /// Those of [`gradient`].
    pub fn advance(&mut self, steps: usize) -> Result<Vec<Loss>> {
        match &mut self.0 {
            Backend::Processor(host) => {
                let mut losses = vec![Loss::default(); steps * host.problem.runs];
                losses.chunks_exact_mut(host.problem.runs).try_for_each(|out| host.step(out))?;
                Ok(losses)
            }
            Backend::Gpu(training) => training.advance(steps),
        }
    }

    /// Continues from the first step's number, with the networks as they are.
    ///
    /// # Errors
    /// Those of the device.
    pub(crate) fn rewind(&mut self) -> Result<()> {
        match &mut self.0 {
            Backend::Processor(host) => host.done = 0,
            Backend::Gpu(training) => training.rewind()?,
        }
        Ok(())
    }
}

impl Training for Session<'_> {
    fn most_steps(&self) -> u64 {
        match self.0 {
            Backend::Processor(_) => 1,
            Backend::Gpu(_) => gpu::MOST_STEPS as u64,
        }
    }

    fn parameters(&self, parameters: &mut [f32]) -> Result<()> {
        match &self.0 {
            Backend::Processor(host) => host.networks.parameters(parameters),
            Backend::Gpu(training) => training.parameters(parameters),
        }
    }

    fn moments(&self, m: &mut [f32], v: &mut [f32]) -> Result<()> {
        match &self.0 {
            Backend::Processor(host) => host.networks.moments(m, v),
            Backend::Gpu(training) => training.moments(m, v),
        }
    }

    fn replace(&mut self, shape: Shape, arenas: [&[f32]; 3]) -> Result<()> {
        match &mut self.0 {
            Backend::Processor(host) => {
                host.problem.shape = shape;
                host.networks.replace(arenas);
                Ok(())
            }
            Backend::Gpu(training) => training.reshape(shape, arenas),
        }
    }
}

impl Host<'_> {
    fn step(&mut self, losses: &mut [Loss]) -> Result<()> {
        let Host { device, problem, source, networks, batch, workspace, done } = self;
        let Problem { shape, penalty, weight_decay, precision, runs, graphs, bodies } = *problem;
        batch.clear();
        let parts = source.parts.chunks_exact(source.parts.len() / runs);
        for (part, &seed) in parts.zip(&source.seeds) {
            let mut random = Random::new(seed, *done);
            source.states().draw(part, source.draw, graphs, &mut random, batch);
        }
        let batch = Batch {
            shape,
            penalty,
            weight_decay,
            precision,
            runs,
            graphs,
            bodies,
            features: &batch.features,
            targets: &batch.targets,
            noise_seeds: &source.noise_seeds,
            step: *done,
        };
        let Networks { parameters, gradients, .. } = networks;
        gradient(device, &batch, parameters, gradients, losses, workspace)?;
        networks.step(device, *done, runs)?;
        *done += 1;
        Ok(())
    }
}
