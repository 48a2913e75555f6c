//! Training on a data set of small systems: the run dimension of [`tiny`] is the stack of trainings.

use std::ops::Range;
use std::path::PathBuf;

use super::batches::{self, Graphs, Sampler};
use super::displaced::Displaced;
use super::forward::{self, Evaluation};
use super::model::{DataSet, Model, TrainedOn};

use super::settings::{Preset, Settings};
use super::system::{Session, System, Tested};
use super::tails::Tails;
use super::view::View;
use crate::device::Device;
use crate::error::Result;
use crate::model::{ModelKind, Shape};
use crate::nbody::dataset::{About, Dataset};
use crate::nbody::derive::MEAN_OF_NORMAL;
use crate::nbody::simulate::{self, simulate};
use crate::observer::{Observer, Quiet};
use crate::ops::{Training, precision, tiny};

/// Runs of the test set.
const TEST_RUNS: usize = 100;
/// Difference between the seed of a data set and that of its test set.
const TEST_SEED: u64 = 1 << 32;

/// Accelerations up to this many times those expected from noise alone count as noise.
const NOISE: f64 = 1.1;
/// Noise of the positions up to this fraction of them is rounding, …
const ROUNDING: f64 = 1e-6;
/// … whose mean size is at most this fraction of its 95 % bound (0.41 for normal noise).
const MEAN_OF_ROUNDING: f64 = 0.5;

/// With more frames than this, not all of them are used.
const PLENTY: usize = 1_000_000;

/// Trainings on a data set.
struct OnBodies<'a> {
    device: Device,
    /// For each run of the stack.
    validation: Vec<Graphs>,
    view: View,
    session: BodySession<'a>,
    /// Edges of a step.
    edges_of_step: u64,
    edges: u64,
}

/// How a network is kept from learning positions: graphs are translated at random, or it sees only displacements.
enum BodySession<'a> {
    Moved(tiny::Session<'a>),
    Displacements(Box<Displaced<'a>>),
}

impl System for Dataset {
    fn trained_on(&self) -> TrainedOn {
        TrainedOn::Bodies(DataSet::of(self), self.about.law.clone())
    }

    fn path(&self) -> PathBuf {
        self.absolute_path()
    }

    fn settings(&self, preset: Preset, model: Option<ModelKind>) -> Settings {
        let model = model.unwrap_or(ModelKind::Bottleneck);
        let About { dim, bodies, runs, frames, .. } = self.about;
        let mut settings = Settings::preset(preset, model, dim, bodies);
        if self.about.law.is_none() {
            settings.frame_stride = (runs * frames).div_ceil(PLENTY).min(settings.frame_stride);
        }
        settings
    }

    fn shape(&self, settings: &Settings) -> Shape {
        settings.shape(self.about.dim)
    }

    fn mean_degree(&self) -> f64 {
        let counts = (0..self.about.runs).map(|run| self.bodies(run) as f64);
        let (nodes, edges) =
            counts.fold((0.0, 0.0), |(nodes, edges), n| (nodes + n, edges + n * (n - 1.0)));
        edges / nodes
    }

    fn unit(&self) -> f64 {
        self.about.units().acceleration()
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let scale = self.about.units();
        if self.about.law.is_none() && !scale.is_none() {
            notes.push(format!(
                "the network sees natural units: {}; the typical acceleration is about 1",
                scale.text()
            ));
        }
        let data = DataSet::of(self);
        for (what, seen) in [("masses", data.mass), ("charges", data.charge)] {
            if seen.logarithm {
                notes.push(format!(
                    "{what} span more than two decades: the network sees their logarithms"
                ));
            }
        }
        notes.extend(Tails::of(self).map(|tails| tails.note(scale.acceleration())));
        if self.in_blocks() {
            notes.push(format!(
                "a single run: split into {} blocks of {} frames that count as runs; a quarter is held out",
                self.about.runs, self.about.frames
            ));
        }
        notes
    }

    /// The reason, if no body accelerates or accelerations are within the noise.
    fn nothing_to_learn(&self) -> Option<(String, f64)> {
        let (values, scale) = (self.accelerations(), self.about.units());
        let (sum, count) = self
            .frames(values)
            .flatten()
            .fold((0.0, 0u64), |(sum, count), a| (sum + f64::from(a.abs()), count + 1));
        let size = sum / count as f64;
        let size = size * self.unit();
        let error = size * self.about.dim as f64;
        if size == 0.0 {
            return Some(("No law found: no body ever accelerates.".to_string(), error));
        }
        let bar = |name: &str| self.about.origin["acceleration_error"][name].as_f64();
        let mut noise = bar("median")? * MEAN_OF_NORMAL;
        // Rounding differs between bodies: it is larger far from the origin.
        let most = |sizes: &mut dyn Iterator<Item = f64>| sizes.fold(0.0, f64::max);
        let far = scale.length * most(&mut self.positions().iter().map(|x| f64::from(x.abs())))
            + most(&mut scale.origin.iter().map(|x| x.abs()));
        let rounding = ROUNDING * far;
        if self.about.origin["position_noise"].as_f64().is_some_and(|noise| noise <= rounding) {
            noise = noise.max(bar("within_95")? * MEAN_OF_ROUNDING);
        }
        (size <= NOISE * noise).then(|| {
            let sentence = format!(
                "No law found: no force within the error bar; components of the accelerations are \
                 {size:.2e} on average, and noise alone would make them {noise:.2e}."
            );
            (sentence, error)
        })
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
            precision: precision(&device, settings.precision).0,
            runs,
            graphs: settings.batch,
            bodies,
        };
        let rates = settings.rates();
        let view = View::of(self, settings);
        let (period, place) = (view.period(), settings.external());
        let session = if period > 0.0 || place || self.is_ragged() {
            BodySession::Displacements(Box::new(Displaced::new(
                device, problem, source, period, place, rates, arenas,
            )))
        } else {
            BodySession::Moved(tiny::Session::new(&device, problem, source, rates, arenas, done)?)
        };
        let pairs = |run: usize| self.bodies(run) * (self.bodies(run) - 1);
        let pairs = (0..self.about.runs).map(pairs).sum::<usize>() as f64 / self.about.runs as f64;
        let edges_of_step = (pairs * (runs * settings.batch) as f64) as u64;
        Ok(Box::new(OnBodies { device, validation, view, session, edges_of_step, edges: 0 }))
    }

    /// The loss on fresh runs, `test.safetensors`, or on the validation graphs if the data were not simulated.
    fn test(&self, device: Device, model: &Model, observer: &dyn Observer) -> Result<Tested> {
        let tested = |loss, data| Tested { loss, data, test: None, hidden: None };
        let Some(fresh) = self.fresh(&device, observer)? else {
            let loss = model.about.validation_loss.unwrap_or(f64::NAN);
            return Ok(tested(loss, "validation runs".to_string()));
        };
        observer.keep("test.safetensors", &mut |path| fresh.save(path))?;
        let graphs = Sampler::new(&fresh, &model.about.settings).all();
        let Model { shape, parameters, .. } = model;
        let found = forward::evaluate(&device, shape, parameters, &graphs, None)?;
        Ok(tested(found.loss, format!("{TEST_RUNS} fresh runs, seed {}", fresh.about.seed)))
    }
}

impl Dataset {
    /// Fresh runs, simulated like this data set but with another seed; `None` if it was not simulated.
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
        match &mut self.session {
            BodySession::Moved(session) => session,
            BodySession::Displacements(session) => &mut **session,
        }
    }

    fn advance(&mut self, shape: Shape, steps: Range<u64>) -> Result<Vec<tiny::Loss>> {
        let count = steps.end - steps.start;
        self.edges += count * self.edges_of_step;
        match &mut self.session {
            BodySession::Moved(session) => session.advance(count as usize),
            BodySession::Displacements(session) => session.advance(shape, steps),
        }
    }

    fn evaluate(&mut self, run: usize, shape: &Shape, parameters: &[f32]) -> Result<Evaluation> {
        let graphs = &self.validation[run];
        forward::evaluate(&self.device, shape, parameters, graphs, Some(&self.view))
    }

    fn edges(&self) -> u64 {
        self.edges
    }
}
