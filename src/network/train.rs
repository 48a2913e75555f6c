//! Training from a data set to a model: the loop around [`Trainer`], run folders, the test loss.

use std::path::PathBuf;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::batches::{Graphs, Sampler};
use super::forward;
use super::model::Model;
pub use super::settings::{Preset, Settings};
use super::state::{self, Training};
use super::trainer::{Trainer, steps_done};
use crate::device::Device;
use crate::error::Result;
use crate::nbody::dataset::Dataset;
use crate::nbody::simulate::{self, simulate};
use crate::progress::Progress;
use crate::store::run::RunFolder;

/// Runs of the test set.
const TEST_RUNS: usize = 100;
/// Between the seed of a data set and that of its test set.
const TEST_SEED: u64 = 1 << 32;

/// What a training ended with.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Steps of the whole training.
    pub steps: u64,
    /// Wall-clock time of this call.
    pub seconds: f64,
    /// Per step of this call and per training of the stack; 0 where there was nothing left to do.
    pub seconds_per_step: f64,
    /// Prediction loss on training batches, mean over the last row of `metrics.csv`.
    pub train_loss: f64,
    /// Prediction loss on the validation graphs.
    pub validation_loss: f64,
    /// Prediction loss on data that the training has not seen.
    pub test_loss: f64,
    /// What that data is.
    pub test_data: String,
    /// Original index of each message that is left.
    pub components: Vec<u32>,
    /// Seed of the training.
    pub seed: u64,
    /// The run folder.
    pub folder: PathBuf,
}

/// The `[train]` table of `config.toml`.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Config {
    dataset: PathBuf,
    #[serde(flatten)]
    settings: Settings,
}

/// Trains one network on `dataset` into `folder`. With `resume` it goes on where an interrupted
/// training with the same settings stopped.
///
/// # Errors
/// Settings that make no sense or differ from those of the run to resume; a data set that is too
/// small; a training that diverges; `interrupted` after Ctrl-C, when the checkpoint is written.
pub fn train(
    device: &Device,
    dataset: &Dataset,
    settings: &Settings,
    folder: &RunFolder,
    resume: bool,
    progress: Progress,
) -> Result<Summary> {
    let folders = std::slice::from_ref(folder);
    let mut summaries = train_replicas(device, dataset, settings, folders, resume, progress)?;
    Ok(summaries.remove(0))
}

/// Trains a network for each of `folders`, with the seeds `settings.seed`, `settings.seed + 1`, …, as
/// one job: networks that keep their shape are stacked in one call of the operation, networks that
/// are pruned train one after another.
///
/// # Errors
/// As [`train`].
pub fn train_replicas(
    device: &Device,
    dataset: &Dataset,
    settings: &Settings,
    folders: &[RunFolder],
    resume: bool,
    progress: Progress,
) -> Result<Vec<Summary>> {
    settings.check()?;
    let replicas: Vec<(Settings, &RunFolder)> = folders
        .iter()
        .enumerate()
        .map(|(k, folder)| {
            (Settings { seed: settings.seed.wrapping_add(k as u64), ..settings.clone() }, folder)
        })
        .collect();
    for (settings, folder) in &replicas {
        let config = Config { dataset: dataset.absolute_path(), settings: settings.clone() };
        folder.begin("train", &config, "dataset", resume)?;
    }
    // A kill between two checkpoints of a stack leaves them at different steps: those that are
    // behind go on alone. Stacked or alone, the numbers are the same.
    let mut stacks: Vec<(u64, Vec<usize>)> = Vec::new();
    for (index, (_, folder)) in replicas.iter().enumerate() {
        let step = steps_done(folder)?;
        match stacks.iter_mut().find(|(at, _)| *at == step && !settings.prune) {
            Some((_, stack)) => stack.push(index),
            None => stacks.push((step, vec![index])),
        }
    }
    let mut summaries: Vec<Option<Summary>> = vec![None; replicas.len()];
    for (_, stack) in stacks {
        let settings: Vec<Settings> = stack.iter().map(|&k| replicas[k].0.clone()).collect();
        let folders: Vec<RunFolder> = stack.iter().map(|&k| replicas[k].1.clone()).collect();
        let trained = train_stack(device, dataset, &settings, &folders, progress)?;
        for (index, summary) in stack.into_iter().zip(trained) {
            summaries[index] = Some(summary);
        }
    }
    Ok(summaries.into_iter().flatten().collect())
}

/// An error if `device` has too little memory for so many new trainings. Nothing is written: what
/// `--overwrite` would remove is still there.
pub fn check_room(
    device: &Device,
    dataset: &Dataset,
    settings: &Settings,
    replicas: usize,
) -> Result<()> {
    // Networks that are pruned train one after another.
    let count = if settings.prune { 1 } else { replicas };
    Trainer::check_room(device, dataset, &vec![settings.clone(); count])
}

fn train_stack(
    device: &Device,
    dataset: &Dataset,
    settings: &[Settings],
    folders: &[RunFolder],
    progress: Progress,
) -> Result<Vec<Summary>> {
    let begun = Instant::now();
    let steps = settings[0].steps;
    let mut trainer = Trainer::new(device, dataset, settings, folders)?;
    let first = trainer.step();
    state::train(&mut trainer, &settings[0], &folders[0], progress)?;
    let seconds = begun.elapsed().as_secs_f64();
    let trained = (steps - first) * settings.len() as u64;
    let mut summaries = Vec::new();
    for (run, folder) in folders.iter().enumerate() {
        let model = trainer.model(run);
        let test = test_loss(device, dataset, &model, folder)?;
        let Model { components, about, .. } = model;
        let validation_loss = about.validation_loss.unwrap_or(f64::NAN);
        let (test_loss, test_data) =
            test.unwrap_or_else(|| (validation_loss, "validation runs".to_string()));
        summaries.push(Summary {
            steps,
            seconds,
            seconds_per_step: if trained == 0 { 0.0 } else { seconds / trained as f64 },
            train_loss: about.train_loss.unwrap_or(f64::NAN),
            validation_loss,
            test_loss,
            test_data,
            components,
            seed: settings[run].seed,
            folder: folder.path().to_path_buf(),
        });
    }
    Ok(summaries)
}

/// The prediction loss on fresh runs, simulated as the data set was but with another seed into
/// `test.safetensors` of the run folder; `None` where the data set was not simulated.
fn test_loss(
    device: &Device,
    dataset: &Dataset,
    model: &Model,
    folder: &RunFolder,
) -> Result<Option<(f64, String)>> {
    let data = &dataset.about;
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
    let path = folder.file("test.safetensors");
    simulate(device, &settings, &path, Progress::Quiet)?;
    let fresh = Dataset::open(&path)?;
    let Graphs { features, targets } = Sampler::new(&fresh, &model.about.settings).all();
    let Model { shape, parameters, .. } = model;
    let found = forward::evaluate(device, shape, parameters, &features, &targets, data.bodies)?;
    Ok(Some((found.loss, format!("{TEST_RUNS} fresh runs, seed {}", settings.seed))))
}
