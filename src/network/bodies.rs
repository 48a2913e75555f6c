//! A data set of small systems, to train on: the run dimension of [`tiny`] is the stack of trainings.

use std::ops::Range;
use std::path::PathBuf;

use super::batches::{self, Graphs, Sampler};
use super::forward::{self, Evaluation};
use super::model::{DataSet, Model, TrainedOn};
use super::settings::{Preset, Settings};
use super::system::{Session, System, Tested};
use crate::device::Device;
use crate::error::Result;
use crate::model::{ModelKind, Shape};
use crate::nbody::dataset::{About, Dataset};
use crate::nbody::simulate::{self, simulate};
use crate::observer::{Observer, Quiet};
use crate::ops::{Training, tiny};

/// Runs of the test set.
const TEST_RUNS: usize = 100;
/// Between the seed of a data set and that of its test set.
const TEST_SEED: u64 = 1 << 32;

/// Trainings on a data set.
struct OnBodies<'a> {
    device: Device,
    dataset: &'a Dataset,
    /// Of each run of the stack.
    validation: Vec<Graphs>,
    session: tiny::Session<'a>,
    /// Edges of a step.
    edges_of_step: u64,
    edges: u64,
}

impl System for Dataset {
    fn trained_on(&self) -> TrainedOn {
        let data = &self.about;
        let About { dim, bodies, runs, frames, seed: dataset_seed, .. } = *data;
        TrainedOn::Bodies(DataSet { dim, bodies, runs, frames, dataset_seed }, data.law.clone())
    }

    fn path(&self) -> PathBuf {
        self.absolute_path()
    }

    fn settings(&self, preset: Preset, model: Option<ModelKind>) -> Settings {
        let model = model.unwrap_or(ModelKind::Bottleneck);
        Settings::preset(preset, model, self.about.dim, self.about.bodies)
    }

    fn shape(&self, settings: &Settings) -> Shape {
        settings.shape(self.about.dim)
    }

    fn received(&self) -> f64 {
        (self.about.bodies - 1) as f64
    }

    fn begin<'a>(
        &'a self,
        device: Device,
        settings: &[Settings],
        shape: Shape,
        arenas: [&[f32]; 3],
        done: u64,
    ) -> Result<Box<dyn Session + 'a>> {
        let sampler = Sampler::new(self, &settings[0]);
        let (mut parts, mut validation) = (Vec::new(), Vec::new());
        for run in settings {
            let (part, held_out) = batches::split(self, run.seed)?;
            validation.push(sampler.validation(&held_out, run.seed));
            parts.push(part);
        }
        let source = sampler.source(&parts, settings.iter().map(|run| run.seed).collect());
        let (settings, runs, bodies) = (&settings[0], settings.len(), self.about.bodies);
        let problem = tiny::Problem {
            shape,
            penalty: settings.penalty(),
            weight_decay: settings.weight_decay as f32,
            precision: settings.precision,
            runs,
            graphs: settings.batch,
            bodies,
        };
        let rates = settings.rates();
        let session = tiny::Session::new(&device, problem, source, rates, arenas, done)?;
        let edges_of_step = (runs * settings.batch * bodies * (bodies - 1)) as u64;
        Ok(Box::new(OnBodies {
            device,
            dataset: self,
            validation,
            session,
            edges_of_step,
            edges: 0,
        }))
    }

    /// On fresh runs, `test.safetensors`; on the validation graphs where the data set was not simulated.
    fn test(&self, device: Device, model: &Model, observer: &dyn Observer) -> Result<Tested> {
        let tested = |loss, data| Tested { loss, data, test: None, hidden: None };
        let Some(fresh) = self.fresh(&device, observer)? else {
            let loss = model.about.validation_loss.unwrap_or(f64::NAN);
            return Ok(tested(loss, "validation runs".to_string()));
        };
        observer.keep("test.safetensors", &mut |path| fresh.save(path))?;
        let graphs = Sampler::new(&fresh, &model.about.settings).all();
        let Model { shape, parameters, .. } = model;
        let found = forward::evaluate(&device, shape, parameters, &graphs, self.about.bodies)?;
        Ok(tested(found.loss, format!("{TEST_RUNS} fresh runs, seed {}", fresh.about.seed)))
    }
}

impl Dataset {
    /// Fresh runs, simulated as this data set was but with another seed; `None` where it was not simulated.
    pub(crate) fn fresh(&self, device: &Device, observer: &dyn Observer) -> Result<Option<Self>> {
        let data = &self.about;
        let integrator = serde_json::from_value(data.origin["integrator"].clone());
        let (Some(law), Ok(integrator)) = (data.law.clone(), integrator) else { return Ok(None) };
        let settings = simulate::Settings {
            law,
            dim: data.dim,
            bodies: data.bodies,
            runs: TEST_RUNS,
            frames: data.frames,
            dt: data.origin["dt"].as_f64(),
            integrator,
            substeps: data.origin["substeps"].as_u64().unwrap_or(1) as usize,
            seed: data.seed.wrapping_add(TEST_SEED),
        };
        simulate(device, &settings, &Quiet(observer)).map(Some)
    }
}

impl Session for OnBodies<'_> {
    fn training(&mut self) -> &mut dyn Training {
        &mut self.session
    }

    fn advance(&mut self, _: Shape, steps: Range<u64>) -> Result<Vec<tiny::Loss>> {
        let count = steps.end - steps.start;
        self.edges += count * self.edges_of_step;
        self.session.advance(count as usize)
    }

    fn evaluate(&mut self, run: usize, shape: &Shape, parameters: &[f32]) -> Result<Evaluation> {
        let bodies = self.dataset.about.bodies;
        forward::evaluate(&self.device, shape, parameters, &self.validation[run], bodies)
    }

    fn edges(&self) -> u64 {
        self.edges
    }
}
