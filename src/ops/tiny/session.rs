//! A training on its device: each step draws a batch, takes the gradient and moves the networks.
//!
//! On a GPU networks, moments and data stay there, and steps run without the host until their losses are
//! asked for.

use super::source::{Graphs, Source};
use super::{Batch, Loss, Problem, Workspace, gpu, gradient};
use crate::device::Device;
use crate::error::Result;
use crate::model::Shape;
use crate::ops::adam;
use crate::random::Random;

/// A stack of trainings on a device.
pub struct Session<'a>(On<'a>);

enum On<'a> {
    Processor(Box<Host<'a>>),
    Gpu(Box<gpu::Training>),
}

/// A training on the processor.
struct Host<'a> {
    device: Device,
    problem: Problem,
    source: Source<'a>,
    rates: Vec<f32>,
    parameters: Vec<f32>,
    m: Vec<f32>,
    v: Vec<f32>,
    gradients: Vec<f32>,
    batch: Graphs,
    workspace: Workspace,
    done: u64,
}

impl<'a> Session<'a> {
    /// Takes a training to the device when `done` steps are done. `rates` are the learning rates of all its
    /// steps, `arenas` parameters and both moments, `[runs, arena.len]` each.
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
        let on = match device {
            Device::Cpu(_) => {
                let [parameters, m, v] = arenas.map(<[f32]>::to_vec);
                On::Processor(Box::new(Host {
                    device: *device,
                    problem,
                    source,
                    rates,
                    gradients: vec![0.0; parameters.len()],
                    parameters,
                    m,
                    v,
                    batch: Graphs::default(),
                    workspace: Workspace::default(),
                    done,
                }))
            }
            Device::Gpu(gpu) => {
                let rates = adam::schedule(&rates);
                let training = gpu::Training::new(*gpu, problem, &source, &rates, arenas, done)?;
                On::Gpu(Box::new(training))
            }
        };
        Ok(Session(on))
    }

    /// The most steps that [`Session::advance`] takes at once. On the processor one: nothing waits for it.
    pub fn most_steps(&self) -> u64 {
        match self.0 {
            On::Processor(_) => 1,
            On::Gpu(_) => gpu::MOST_STEPS as u64,
        }
    }

    /// Trains for `steps` steps, at most [`Session::most_steps`]; their losses, `[steps, runs]`.
    ///
    /// # Errors
    /// Those of [`gradient`].
    pub fn advance(&mut self, steps: usize) -> Result<Vec<Loss>> {
        match &mut self.0 {
            On::Processor(host) => {
                let mut losses = vec![Loss::default(); steps * host.problem.runs];
                losses.chunks_exact_mut(host.problem.runs).try_for_each(|out| host.step(out))?;
                Ok(losses)
            }
            On::Gpu(training) => training.advance(steps),
        }
    }

    /// Goes on with networks of another shape.
    ///
    /// # Errors
    /// As [`Session::new`].
    pub fn replace(&mut self, shape: Shape, arenas: [&[f32]; 3]) -> Result<()> {
        match &mut self.0 {
            On::Processor(host) => {
                host.problem.shape = shape;
                [host.parameters, host.m, host.v] = arenas.map(<[f32]>::to_vec);
                host.gradients.resize(host.parameters.len(), 0.0);
                Ok(())
            }
            On::Gpu(training) => training.reshape(shape, arenas),
        }
    }

    /// Copies the parameters out.
    ///
    /// # Errors
    /// Those of the device.
    pub fn parameters(&self, parameters: &mut [f32]) -> Result<()> {
        match &self.0 {
            On::Processor(host) => parameters.copy_from_slice(&host.parameters),
            On::Gpu(training) => training.parameters(parameters)?,
        }
        Ok(())
    }

    /// Copies the moments out.
    ///
    /// # Errors
    /// Those of the device.
    pub fn moments(&self, m: &mut [f32], v: &mut [f32]) -> Result<()> {
        match &self.0 {
            On::Processor(host) => {
                m.copy_from_slice(&host.m);
                v.copy_from_slice(&host.v);
            }
            On::Gpu(training) => training.moments(m, v)?,
        }
        Ok(())
    }
}

impl Host<'_> {
    fn step(&mut self, losses: &mut [Loss]) -> Result<()> {
        let Problem { runs, graphs, .. } = self.problem;
        let Source { states, draw, parts, seeds, noise_seeds } = &self.source;
        self.batch.features.clear();
        self.batch.targets.clear();
        for (part, &seed) in parts.chunks_exact(parts.len() / runs).zip(seeds) {
            let mut random = Random::new(seed, self.done);
            states.draw(part, *draw, graphs, &mut random, &mut self.batch);
        }
        let Problem { shape, penalty, weight_decay, precision, bodies, .. } = self.problem;
        let batch = Batch {
            shape,
            penalty,
            weight_decay,
            precision,
            runs,
            graphs,
            bodies,
            features: &self.batch.features,
            targets: &self.batch.targets,
            noise_seeds,
            step: self.done,
        };
        let Host { device, parameters, m, v, gradients, workspace, .. } = self;
        gradient(device, &batch, parameters, gradients, losses, workspace)?;
        let args = adam::Args::new(self.rates[self.done as usize], self.done + 1);
        adam::step(device, &args, runs, adam::Arenas { parameters, m, v, gradients })?;
        self.done += 1;
        Ok(())
    }
}
