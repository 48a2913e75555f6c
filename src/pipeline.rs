//! One pipeline for every system: simulate, train, measure the messages, search for their laws, compose.
//!
//! Every stage reads and writes files of the run folder, so each is also a command of its own, and
//! `--resume` continues at the first stage whose file is missing.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::cosmology::graph::Graph;
use crate::cosmology::halos::Halos;
use crate::cosmology::run::HalosRun;
use crate::device::Device;
use crate::distill::bodies::Bodies;
use crate::distill::compose::compose_run;
use crate::distill::laws::{LawOptions, Search, regress};
use crate::distill::messages::{Wanted, measure};
use crate::distill::run::{Compute, Physics, Run};
use crate::distill::summary::Summary;
use crate::distill::verdict::Conclusion;
use crate::error::{Error, Result};
use crate::model::ModelKind;
use crate::nbody::dataset::{Dataset, Units};
use crate::nbody::simulate::{self, simulate_to};
use crate::network::model::{Model, TrainedOn};
use crate::network::settings::{Changes, Preset, Settings as TrainSettings, Work};
use crate::network::system::System;
use crate::network::train;
use crate::ops::{check_precision, precision};
use crate::store::run::RunFolder;
use crate::store::table::Kind;
use crate::store::tensors::TensorFile;
use crate::symbolic::job::{HALL_OF_FAME, LAWS, MEMORY, NODE_MEMORY};

/// Settings of `distill`; `[distill]` in `config.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Which network, and how much work; here the kind of model is always set.
    #[serde(flatten)]
    pub work: Work,
    /// Changes to the training settings of the preset.
    #[serde(flatten)]
    pub training: Changes,
    /// Which messages get laws.
    #[serde(flatten)]
    pub wanted: Wanted,
    /// How their laws are found.
    #[serde(flatten)]
    pub laws: LawOptions,
    /// Seed of all random numbers.
    pub seed: u64,
    /// An existing data set or graph; otherwise a data set is simulated.
    pub dataset: Option<PathBuf>,
    /// The system to simulate.
    pub simulate: Option<simulate::Settings>,
}

impl Settings {
    /// The settings of the training.
    fn training(&self, system: &dyn System) -> TrainSettings {
        let mut training = system.settings(self.work.preset, self.work.model);
        self.training.apply(&mut training);
        training.seed = self.seed;
        training
    }
}

/// Number of runs simulated for training.
pub fn runs(preset: Preset) -> usize {
    match preset {
        Preset::Quick => 2000,
        Preset::Standard | Preset::Paper => 10_000,
    }
}

fn is_graph(path: &Path) -> bool {
    TensorFile::kind_of(path).as_deref() == Some("graph")
}

/// The default kind of model for the file at `path`, or for a simulated system.
pub fn default_model(path: Option<&Path>) -> ModelKind {
    if path.is_some_and(is_graph) { ModelKind::L1 } else { ModelKind::Bottleneck }
}

/// Opens a file as a system: a data set of small systems, or a graph of halos, whose nodes above the
/// overdensity `hide_above` may be hidden.
///
/// # Errors
/// A file that is neither; `hide_above` with a data set; changes that do not apply to a graph.
pub fn open(path: &Path, hide_above: Option<f64>, changes: &Changes) -> Result<Box<dyn System>> {
    changes.check()?;
    if is_graph(path) {
        for (field, given) in [
            ("external", changes.external),
            ("inputs", !changes.inputs.is_empty()),
            ("raw-units", changes.raw_units),
            ("frame-stride", changes.frame_stride.is_some()),
        ] {
            if given {
                let message = "applies only to systems of bodies, not to a graph of halos";
                return Err(Error::usage(message).file(path).field(field));
            }
        }
        return Ok(Box::new(Halos { graph: Graph::open(path)?, hide_above }));
    }
    if hide_above.is_some() {
        let message = "applies only to a graph of halos";
        return Err(Error::usage(message).file(path).field("hide-above"));
    }
    // Not a damaged data set: another kind of file.
    if !matches!(Kind::of(path)?, Kind::Safetensors | Kind::Binary) {
        let message = "is not a data set; `lawsmith import` makes one from a table of trajectories";
        return Err(Error::input(message).file(path));
    }
    let units = if changes.raw_units { Units::Users } else { Units::Natural };
    Ok(Box::new(Dataset::open_in(path, units)?))
}

/// Opens a trained run.
///
/// # Errors
/// A folder without a network.
pub fn open_run(folder: &RunFolder) -> Result<Run> {
    let path = folder.file("model.safetensors");
    if !path.exists() {
        let message = "is missing: the folder has no trained network; train or distill makes one";
        return Err(Error::input(message).file(path));
    }
    let model = Model::load(&path)?;
    let physics: Box<dyn Physics> = match model.about.on.clone() {
        TrainedOn::Bodies(data, law) => Box::new(Bodies::new(folder.clone(), model, data, law)),
        TrainedOn::Halos(_) => Box::new(HalosRun::new(folder.clone(), model)),
    };
    Ok(Run { folder: folder.clone(), physics })
}

/// Checks settings, device and data before anything is written.
///
/// # Errors
/// Invalid settings; settings that the device does not support; data that cannot be used.
pub fn check(device: &Device, settings: &Settings) -> Result<()> {
    for (field, value) in
        [("steps", settings.training.steps), ("evaluations", settings.laws.evaluations)]
    {
        if value == Some(0) {
            return Err(Error::usage("is 0; at least 1 is needed").field(field));
        }
    }
    if let Some(choice) = settings.training.precision {
        check_precision(device, precision(device, choice).0)?;
    }
    if let Some(path) = &settings.dataset {
        let system = open(path, settings.work.hide_above, &settings.training)?;
        settings.wanted.check(&system.trained_on())?;
        return train::check(device, &*system, &settings.training(&*system), 1);
    }
    for (field, given) in [
        ("hide-above", settings.work.hide_above.is_some()),
        ("without-mass", settings.wanted.without_mass),
    ] {
        if given {
            let message = "applies only to a graph of halos";
            return Err(Error::usage(message).field(field));
        }
    }
    settings.simulate.as_ref().map_or(Ok(()), |system| system.check())
}

/// The whole pipeline, from a system to its law.
///
/// # Errors
/// Errors of the stages.
pub fn distill(at: Compute, folder: &RunFolder, settings: &Settings) -> Result<Summary> {
    let begun = Instant::now();
    // If there are files already, then from `--resume` with the same settings.
    let resume = folder.file("messages.safetensors").exists();
    folder.write_config("distill", settings)?;
    let path = match (&settings.dataset, &settings.simulate) {
        (Some(path), _) => path.clone(),
        (None, Some(system)) => {
            let path = folder.file("dataset.safetensors");
            if !path.exists() {
                simulate_to(&path, &at.device, system, at.observer)?;
            }
            path
        }
        (None, None) => return Err(Error::usage("needs a dataset or a system to simulate")),
    };
    let system = open(&path, settings.work.hide_above, &settings.training)?;
    let simulated = begun.elapsed().as_secs_f64();

    if let Some((sentence, baseline)) = system.nothing_to_learn() {
        let verdict = Some(Conclusion::nothing(sentence, baseline));
        let summary = Summary { verdict, ..Summary::default() };
        summary.write(folder)?;
        return Ok(summary);
    }

    let stage = Instant::now();
    let training = settings.training(&*system);
    let goes_on = folder.file("model.safetensors").exists();
    train::train_into(folder, &at.device, &*system, &training, goes_on, at.observer)?;
    drop(system);
    let trained = stage.elapsed().as_secs_f64();

    let run = open_run(folder)?;
    let search = Search::new(settings.work.preset, settings.laws.clone());
    let search = Search { resume, ..search };
    let stage = Instant::now();
    measure(at, &run, settings.wanted, false)?;
    let mut summary = laws(at, &run, search)?;
    if run.physics.may_retry_with_velocities() && lacks_law(&summary) {
        // Velocities are tried only if there is no law without them.
        let kept = keep(folder)?;
        let mut with = measure(at, &run, settings.wanted, true)?;
        if with.inputs != summary.inputs {
            with = laws(at, &run, search)?;
        }
        if better(&with, &summary) {
            summary = with;
        } else {
            restore(folder, kept)?;
        }
    }
    summary.seconds.simulate = simulated;
    summary.seconds.train = trained;
    let regressed = stage.elapsed().as_secs_f64();
    let observer = folder.observer(at.observer);
    run.physics.roll_out(Compute { observer: &observer, ..at }, run.formula()?.as_ref())?;
    summary.seconds.regress = regressed;
    summary.seconds.total = begun.elapsed().as_secs_f64();
    summary.write(folder)?;
    Ok(summary)
}

/// Searches for the laws of the messages of a trained network, and composes them.
fn laws(at: Compute, run: &Run, search: Search) -> Result<Summary> {
    regress(at, run, search)?;
    compose_run(at, run, search)
}

/// True if there is no law and the network is better than the formula.
fn lacks_law(summary: &Summary) -> bool {
    let better = match (summary.test_loss.network, summary.test_loss.formula) {
        (Some(network), Some(formula)) => network < WORTH_VELOCITIES * formula,
        (network, _) => network.is_some(),
    };
    better && summary.verdict.as_ref().is_some_and(|verdict| !verdict.found)
}

/// True if the error with velocities is less than [`WORTH_VELOCITIES`] times the error without.
fn better(with: &Summary, without: &Summary) -> bool {
    let error = |summary: &Summary| summary.test_loss.formula.unwrap_or(f64::INFINITY);
    error(with) < WORTH_VELOCITIES * error(without)
}

/// Velocities stay only if the error falls below this fraction of the error without them.
const WORTH_VELOCITIES: f64 = 0.9;

/// The files that measuring the messages and [`laws`] write.
const WRITTEN: [&str; 6] =
    ["messages.safetensors", "messages.json", LAWS, HALL_OF_FAME, MEMORY, NODE_MEMORY];

/// The contents of the files of the laws.
fn keep(folder: &RunFolder) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let read = |name: &'static str| {
        let path = folder.file(name);
        std::fs::read(&path).map(|bytes| (name, bytes)).map_err(|e| Error::io("read", &path, e))
    };
    WRITTEN.into_iter().filter(|name| folder.file(name).exists()).map(read).collect()
}

/// Writes them back.
fn restore(folder: &RunFolder, kept: Vec<(&'static str, Vec<u8>)>) -> Result<()> {
    kept.into_iter().try_for_each(|(name, bytes)| folder.write(name, &bytes))
}
