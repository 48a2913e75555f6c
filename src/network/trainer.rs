//! A stack of trainings that advance together: one step, one row of metrics, one pruning decision,
//! one checkpoint.
//!
//! The stack is the run dimension of `ops::tiny`: networks of one shape that differ by their seed.
//! Networks that are pruned change shape, so they train in a stack of one.
//!
//! Beside parameters and moments a checkpoint holds what metrics and pruning have accumulated;
//! everything random comes from (seed, step). So a resumed training is bit-identical to an
//! uninterrupted one.
//!
//! On a GPU networks, moments and data stay on the device, and steps run without the host until
//! something is due.

use std::path::PathBuf;

use super::batches::{self, Graphs, Part, Sampler};
use super::forward::{self, Evaluation};
use super::metrics::Metrics;
use super::model::{About, Model};
use super::pruning;
use super::settings::Settings;
use super::state::{State, Sums, Training, next_due};
use crate::device::{Device, Gpu};
use crate::error::Result;
use crate::model::Shape;
use crate::nbody::dataset::Dataset;
use crate::ops::{adam, tiny};
use crate::random::Random;
use crate::store::run::RunFolder;

/// The training of one run's data: what it draws from.
struct Data {
    part: Part,
    validation: Graphs,
}

/// A stack of trainings.
pub(super) struct Trainer<'a> {
    device: &'a Device,
    dataset: &'a Dataset,
    sampler: Sampler<'a>,
    /// Of each run of the stack.
    settings: Vec<Settings>,
    models: Vec<PathBuf>,
    data: Vec<Data>,
    noise_seeds: Vec<u64>,
    sums: Vec<Sums>,
    metrics: Vec<Metrics>,
    losses: Vec<tiny::Loss>,
    /// Steps done.
    step: u64,
    state: State,
    /// `[runs, arena.len]`.
    gradients: Vec<f32>,
    batch: Graphs,
    workspace: tiny::Workspace,
    /// Where the training goes on on a GPU; parameters and moments above are then copies, as old as the
    /// last look at them.
    on_gpu: Option<tiny::gpu::Training>,
}

/// Steps that the checkpoint of `folder` has done; 0 where there is none.
pub(super) fn steps_done(folder: &RunFolder) -> Result<u64> {
    let path = folder.file("model.safetensors");
    if path.exists() { Ok(Model::load(&path)?.about.step) } else { Ok(0) }
}

impl<'a> Trainer<'a> {
    /// Starts trainings with these settings (equal but for the seed), or goes on where their
    /// checkpoints stopped, all at the same step.
    pub fn new(
        device: &'a Device,
        dataset: &'a Dataset,
        settings: &[Settings],
        folders: &[RunFolder],
    ) -> Result<Self> {
        let models = folders.iter().map(|folder| folder.file("model.safetensors")).collect();
        let mut trainer = Self::with_models(device, dataset, settings, models)?;
        // The columns are those of the network before pruning.
        let messages = settings[0].shape(dataset.about.dim).message_dim;
        for folder in folders {
            let path = folder.file("metrics.csv");
            trainer.metrics.push(Metrics::open(&path, messages, trainer.step)?);
        }
        Ok(trainer)
    }

    /// An error if the device has too little memory for a new training. Nothing is written.
    pub fn check_room(device: &Device, dataset: &Dataset, settings: &[Settings]) -> Result<()> {
        let Device::Gpu(_) = device else { return Ok(()) };
        let nowhere = vec![PathBuf::new(); settings.len()];
        Trainer::with_models(device, dataset, settings, nowhere).map(drop)
    }

    /// Without a place for metrics yet.
    fn with_models(
        device: &'a Device,
        dataset: &'a Dataset,
        settings: &[Settings],
        models: Vec<PathBuf>,
    ) -> Result<Self> {
        let sampler = Sampler::new(dataset, &settings[0]);
        let mut data = Vec::new();
        for run in settings {
            let (part, held_out) = batches::split(dataset, run.seed)?;
            let validation = sampler.validation(&held_out, run.seed);
            data.push(Data { part, validation });
        }
        let shape = settings[0].shape(dataset.about.dim);
        let mut trainer = Trainer {
            device,
            dataset,
            sampler,
            settings: settings.to_vec(),
            models,
            data,
            noise_seeds: settings.iter().map(|run| batches::noise_seed(run.seed)).collect(),
            sums: vec![Sums::default(); settings.len()],
            metrics: Vec::new(),
            losses: vec![tiny::Loss::default(); settings.len()],
            step: 0,
            state: State::new(shape, Vec::new()),
            gradients: Vec::new(),
            batch: Graphs::default(),
            workspace: tiny::Workspace::default(),
            on_gpu: None,
        };
        if trainer.models[0].exists() {
            trainer.load()?;
        } else {
            let parameters = settings.iter().flat_map(|run| initial(&shape, run.seed)).collect();
            trainer.state = State::new(shape, parameters);
        }
        trainer.gradients = vec![0.0; trainer.state.parameters.len()];
        if let Device::Gpu(gpu) = device {
            trainer.on_gpu = Some(trainer.move_to(*gpu)?);
        }
        Ok(trainer)
    }

    /// Reads the checkpoints.
    fn load(&mut self) -> Result<()> {
        for run in 0..self.models.len() {
            let expected = self.about(run);
            let same = |found: &About| {
                found.settings == expected.settings
                    && (found.dim, found.bodies, &found.law)
                        == (expected.dim, expected.bodies, &expected.law)
                    && (found.runs, found.frames, found.dataset_seed)
                        == (expected.runs, expected.frames, expected.dataset_seed)
            };
            (self.step, self.sums[run]) = self.state.load(&self.models[run], same, "data set")?;
        }
        Ok(())
    }

    /// The training on the device, as it is here.
    fn move_to(&self, gpu: Gpu) -> Result<tiny::gpu::Training> {
        let settings = &self.settings[0];
        let parts: Vec<&Part> = self.data.iter().map(|data| &data.part).collect();
        let seeds = self.settings.iter().map(|run| run.seed).collect();
        let rates: Vec<adam::Args> = (0..settings.steps).map(|step| rate(settings, step)).collect();
        let problem = tiny::gpu::Problem {
            shape: self.state.shape,
            penalty: settings.penalty(),
            weight_decay: settings.weight_decay as f32,
            precision: settings.precision,
            runs: self.settings.len(),
            graphs: settings.graphs,
            bodies: self.dataset.about.bodies,
        };
        let source = self.sampler.source(&parts, seeds);
        let arenas = [&self.state.parameters[..], &self.state.m, &self.state.v];
        tiny::gpu::Training::new(gpu, problem, &source, &rates, arenas, self.step)
    }

    /// One step of the optimizer.
    fn take_step(&mut self) -> Result<()> {
        let settings = &self.settings[0];
        self.batch.features.clear();
        self.batch.targets.clear();
        for (run, data) in self.settings.iter().zip(&self.data) {
            let mut random = Random::new(run.seed, self.step);
            self.sampler.draw(&data.part, run.graphs, &mut random, &mut self.batch);
        }
        let batch = tiny::Batch {
            shape: self.state.shape,
            penalty: settings.penalty(),
            weight_decay: settings.weight_decay as f32,
            precision: settings.precision,
            runs: self.settings.len(),
            graphs: settings.graphs,
            bodies: self.dataset.about.bodies,
            features: &self.batch.features,
            targets: &self.batch.targets,
            noise_seeds: &self.noise_seeds,
            step: self.step,
        };
        let (gradients, losses) = (&mut self.gradients, &mut self.losses);
        tiny::gradient(
            self.device,
            &batch,
            &self.state.parameters,
            gradients,
            losses,
            &mut self.workspace,
        )?;
        let args = rate(settings, self.step);
        self.note_losses()?;
        let State { parameters, m, v, .. } = &mut self.state;
        let gradients = &self.gradients;
        let arenas = adam::Arenas { parameters, m, v, gradients };
        adam::step(self.device, &args, self.settings.len(), arenas)
    }

    /// Steps on the GPU, at least one.
    fn take_steps(&mut self, until: u64) -> Result<()> {
        let most = self.step + tiny::gpu::MOST_STEPS as u64;
        let next = until.min(next_due(self.step, &self.settings[0])).min(most);
        let training = self.on_gpu.as_mut().expect("a training that is on a GPU");
        let losses = training.advance((next - self.step) as usize)?;
        for losses in losses.chunks_exact(self.settings.len()) {
            self.losses.copy_from_slice(losses);
            self.note_losses()?;
        }
        Ok(())
    }

    /// Adds the losses of a step to the sums; with that it is done.
    fn note_losses(&mut self) -> Result<()> {
        for (sums, loss) in self.sums.iter_mut().zip(&self.losses) {
            sums.add(self.step, loss.prediction, loss.penalty)?;
        }
        self.step += 1;
        Ok(())
    }

    /// Copies the parameters back from the GPU.
    fn fetch_parameters(&mut self) -> Result<()> {
        match &self.on_gpu {
            None => Ok(()),
            Some(training) => training.parameters(&mut self.state.parameters),
        }
    }

    /// Copies the moments back from the GPU.
    fn fetch_moments(&mut self) -> Result<()> {
        match &self.on_gpu {
            None => Ok(()),
            Some(training) => training.moments(&mut self.state.m, &mut self.state.v),
        }
    }

    /// The row of metrics and the pruning decision that are due at this step.
    fn after_step(&mut self) -> Result<()> {
        let Settings { steps, metrics_every, prune, .. } = self.settings[0];
        let row = self.step.is_multiple_of(metrics_every) || self.step == steps;
        let decision = prune && pruning::is_decision(self.step, steps);
        if !row && !decision {
            return Ok(());
        }
        self.fetch_parameters()?;
        for run in 0..self.settings.len() {
            let evaluation = self.evaluate(run)?;
            if prune {
                self.state.note(evaluation.loss);
            }
            if row {
                let (metrics, settings) = (&mut self.metrics[run], &self.settings[run]);
                self.sums[run].write(metrics, self.step, settings, &evaluation)?;
            }
            if decision {
                self.decide(evaluation)?;
            }
        }
        Ok(())
    }

    fn evaluate(&self, run: usize) -> Result<Evaluation> {
        let len = self.state.parameters.len() / self.settings.len();
        let parameters = &self.state.parameters[run * len..][..len];
        let Graphs { features, targets } = &self.data[run].validation;
        let bodies = self.dataset.about.bodies;
        forward::evaluate(self.device, &self.state.shape, parameters, features, targets, bodies)
    }

    /// Judges the last cut, and makes the next one. The stack is a stack of one.
    fn decide(&mut self, mut evaluation: Evaluation) -> Result<()> {
        self.fetch_moments()?;
        let taken_back = self.state.take_back();
        if taken_back {
            evaluation = self.evaluate(0)?;
        }
        let received = (self.dataset.about.bodies - 1) as f64;
        let cut = self.state.cut(&evaluation, received, self.step, self.settings[0].steps);
        self.gradients.resize(self.state.parameters.len(), 0.0);
        match &mut self.on_gpu {
            Some(training) if taken_back || cut => training
                .reshape(self.state.shape, [&self.state.parameters, &self.state.m, &self.state.v]),
            _ => Ok(()),
        }
    }

    fn about(&self, run: usize) -> About {
        let data = &self.dataset.about;
        About {
            settings: self.settings[run].clone(),
            dim: data.dim,
            bodies: data.bodies,
            runs: data.runs,
            frames: data.frames,
            dataset_seed: data.seed,
            dataset: self.dataset.absolute_path(),
            law: data.law.clone(),
            step: self.step,
            train_loss: self.sums[run].train_loss,
            validation_loss: self.sums[run].validation_loss,
            graph: None,
        }
    }

    /// The network of one run of the stack, as it is now.
    pub fn model(&self, run: usize) -> Model {
        let len = self.state.parameters.len() / self.settings.len();
        Model {
            shape: self.state.shape,
            kind: self.settings[run].model,
            components: self.state.components.clone(),
            parameters: self.state.parameters[run * len..][..len].to_vec(),
            about: self.about(run),
        }
    }
}

impl Training for Trainer<'_> {
    fn step(&self) -> u64 {
        self.step
    }

    /// The loss on training batches lately, mean over the stack.
    fn recent_loss(&self) -> f64 {
        let sum: f64 = self.losses.iter().map(|loss| f64::from(loss.prediction)).sum();
        sum / self.losses.len() as f64
    }

    /// Goes on by a step, on a GPU by as many as there are before `until` or before something else is
    /// due, with what is due then.
    fn advance(&mut self, until: u64) -> Result<()> {
        match self.on_gpu {
            None => self.take_step()?,
            Some(_) => self.take_steps(until)?,
        }
        self.after_step()
    }

    /// Writes the checkpoint of every run of the stack.
    fn save(&mut self) -> Result<()> {
        self.fetch_parameters()?;
        self.fetch_moments()?;
        for (run, path) in self.models.iter().enumerate() {
            self.state.save(path, &self.model(run), run, &self.sums[run])?;
        }
        Ok(())
    }
}

/// The optimizer's settings for step `step` (from 0).
pub(crate) fn rate(settings: &Settings, step: u64) -> adam::Args {
    adam::Args::new(settings.rate(step) as f32, step + 1)
}

/// Parameters at the start: uniform in ±1/√(width of the layer's input), as PyTorch does.
pub(crate) fn initial(shape: &Shape, seed: u64) -> Vec<f32> {
    let arena = shape.arena();
    let mut parameters = vec![0.0; arena.len];
    let mut random = Random::new(seed, batches::INITIAL);
    for layer in arena.edge.iter().chain(&arena.node) {
        let bound = 1.0 / (layer.inputs as f64).sqrt();
        for range in [&layer.weight, &layer.bias] {
            for value in &mut parameters[range.clone()] {
                *value = (bound * (2.0 * random.uniform() - 1.0)) as f32;
            }
        }
    }
    parameters
}
