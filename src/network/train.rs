//! Training from a system to a model: run folders, stacks of replicas, the test loss.

use std::path::PathBuf;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::model::{Model, TrainedOn};
pub use super::settings::{Preset, Settings};
pub use super::state::Checkpoint;
pub use super::system::{Measure, System, Tested};
use super::trainer::Trainer;
use crate::device::Device;
use crate::error::{Error, Kind, Result};
use crate::model::{Precision, PrecisionChoice};
use crate::observer::Observer;
use crate::ops::{check_precision, fits_bf16, precision};
use crate::store::run::RunFolder;

/// The result of a training.
#[derive(Clone, Debug, Serialize)]
pub struct Trained {
    /// Steps of the whole training.
    pub steps: u64,
    /// Wall-clock time of this call.
    pub seconds: f64,
    /// Per step of this call and per training of the stack; 0 if there was nothing left to do.
    pub seconds_per_step: f64,
    /// Edges per second through the forward and backward passes, in this call.
    pub edges_per_second: f64,
    /// Prediction loss on training batches, mean over the last row of `metrics.csv`.
    pub train_loss: f64,
    /// Prediction loss on the validation data, by which pruning is judged.
    pub validation_loss: f64,
    /// Prediction loss on data the training has not seen.
    pub test_loss: f64,
    /// What those data are.
    pub test_data: String,
    /// The test loss with its jackknife error, on one large graph.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<Measure>,
    /// The loss on nodes deliberately hidden from the training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden: Option<Measure>,
    /// Original index of each remaining message.
    pub components: Vec<u32>,
    /// Seed of the training.
    pub seed: u64,
    /// The run folder, if there is one.
    pub folder: PathBuf,
    /// The network.
    #[serde(skip)]
    pub model: Model,
}

/// The `[train]` table of `config.toml`.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Config {
    dataset: Option<PathBuf>,
    graph: Option<PathBuf>,
    hide_above: Option<f64>,
    #[serde(flatten)]
    settings: Settings,
}

impl Config {
    /// The table, and its key that holds the path of the system.
    fn new(system: &dyn System, settings: &Settings) -> (Self, &'static str) {
        let (path, settings) = (Some(system.path()), settings.clone());
        match system.trained_on() {
            TrainedOn::Halos(graph) => {
                let hide_above = graph.hide_above;
                (Config { dataset: None, graph: path, hide_above, settings }, "graph")
            }
            TrainedOn::Bodies(..) => {
                (Config { dataset: path, graph: None, hide_above: None, settings }, "dataset")
            }
        }
    }
}

/// Trains a network on `system`, from scratch or from the checkpoint `start` of a training with the same settings.
/// The observer is offered `model.safetensors` (a [`Checkpoint`]) at least 25 times, `metrics.csv` row by row, and
/// `test.safetensors`, the fresh runs for the test loss. The network is [`Trained::model`].
///
/// # Errors
/// Invalid settings, or settings other than those of `start`; too little data; a training that diverges;
/// `interrupted` if the observer stops it, after a last checkpoint.
///
/// ```
/// use lawsmith::device::Device;
/// use lawsmith::model::ModelKind;
/// use lawsmith::nbody::simulate::{Settings, simulate};
/// use lawsmith::network::settings::{self, Preset};
/// use lawsmith::network::train::train;
///
/// let device = Device::cpu();
/// let springs = Settings { runs: 8, frames: 20, ..Settings::default() };
/// let data = simulate(&device, &springs, &())?;
/// let mut settings = settings::Settings::preset(Preset::Quick, ModelKind::Bottleneck, 2, 4);
/// settings.hidden = 16;
/// settings.set_steps(20);
/// let trained = train(&device, &data, &settings, None, &())?;
/// assert_eq!(trained.model.shape.message_dim, 2);
/// # Ok::<(), lawsmith::error::Error>(())
/// ```
pub fn train(
    device: &Device,
    system: &dyn System,
    settings: &Settings,
    start: Option<Checkpoint>,
    observer: &dyn Observer,
) -> Result<Trained> {
    settings.check()?;
    system.notes().iter().for_each(|note| observer.note(note));
    let begun = start.as_ref().map(|start| start.model.about.settings.precision);
    let settings = decided(device, system, settings, begun, observer)?;
    if let Some(start) = &start {
        start.check(&settings, &system.trained_on())?;
    }
    let starts = start.into_iter().collect();
    Ok(train_stack(device, system, &[settings], starts, &[observer])?.remove(0))
}

/// Trains one network on `system` into `folder`. With `resume` it continues where an interrupted
/// training with the same settings stopped.
///
/// # Errors
/// As for [`train`], and those of reading and writing.
pub fn train_into(
    folder: &RunFolder,
    device: &Device,
    system: &dyn System,
    settings: &Settings,
    resume: bool,
    observer: &dyn Observer,
) -> Result<Trained> {
    let folders = std::slice::from_ref(folder);
    let mut summaries = train_replicas(folders, device, system, settings, resume, observer)?;
    Ok(summaries.remove(0))
}

/// Trains a network for each of `folders`, with the seeds `settings.seed`, `settings.seed + 1`, …, as
/// one job: networks of fixed shape are stacked in one call of the operation, networks that are
/// pruned train one after another.
///
/// # Errors
/// As for [`train_into`].
pub fn train_replicas(
    folders: &[RunFolder],
    device: &Device,
    system: &dyn System,
    settings: &Settings,
    resume: bool,
    observer: &dyn Observer,
) -> Result<Vec<Trained>> {
    settings.check()?;
    system.notes().iter().for_each(|note| observer.note(note));
    let begun = match folders.first().filter(|_| resume) {
        Some(folder) => {
            folder.read_config::<Config>("train")?.map(|begun| begun.settings.precision)
        }
        None => None,
    };
    let settings = decided(device, system, settings, begun, observer)?;
    let replicas: Vec<(Settings, &RunFolder)> = folders
        .iter()
        .enumerate()
        .map(|(k, folder)| {
            (Settings { seed: settings.seed.wrapping_add(k as u64), ..settings.clone() }, folder)
        })
        .collect();
    for (settings, folder) in &replicas {
        let (config, path) = Config::new(system, settings);
        folder.begin("train", &config, path, resume)?;
    }
    // A kill while the checkpoints of a stack are written leaves them at different steps. Those at the
    // same step continue as a stack; stacked or alone, the numbers are the same.
    let mut stacks: Vec<(u64, Vec<usize>)> = Vec::new();
    let on = system.trained_on();
    let mut starts = Vec::new();
    for (index, (settings, folder)) in replicas.iter().enumerate() {
        let path = folder.file("model.safetensors");
        let start = path.exists().then(|| Checkpoint::load(&path)).transpose()?;
        if let Some(start) = &start {
            start.check(settings, &on).map_err(|e| e.file(&path))?;
        }
        let step = start.as_ref().map_or(0, |start| start.model.about.step);
        starts.push(start);
        match stacks.iter_mut().find(|(at, _)| *at == step && !settings.prune) {
            Some((_, stack)) => stack.push(index),
            None => stacks.push((step, vec![index])),
        }
    }
    let mut summaries: Vec<Option<Trained>> = vec![None; replicas.len()];
    for (_, stack) in stacks {
        let settings: Vec<Settings> = stack.iter().map(|&k| replicas[k].0.clone()).collect();
        let begun = stack.iter().filter_map(|&k| starts[k].take()).collect();
        let writers: Vec<_> = stack.iter().map(|&k| replicas[k].1.observer(observer)).collect();
        let observers: Vec<&dyn Observer> = writers.iter().map(|k| k as &dyn Observer).collect();
        let trained = train_stack(device, system, &settings, begun, &observers);
        let first = replicas[stack[0]].1.path();
        let place = |e: Error| if e.kind == Kind::Interrupted { e.file(first) } else { e };
        for (index, summary) in stack.into_iter().zip(trained.map_err(place)?) {
            let folder = replicas[index].1.path().to_path_buf();
            summaries[index] = Some(Trained { folder, ..summary });
        }
    }
    Ok(summaries.into_iter().flatten().collect())
}

/// The settings with what is left to the device decided; a training that has begun goes on as it began.
fn decided(
    device: &Device,
    system: &dyn System,
    settings: &Settings,
    begun: Option<PrecisionChoice>,
    observer: &dyn Observer,
) -> Result<Settings> {
    let decided = |choice: PrecisionChoice| Settings { precision: choice, ..settings.clone() };
    if settings.precision != PrecisionChoice::Auto {
        return Ok(settings.clone());
    }
    if let Some(begun) = begun {
        if check_precision(device, precision(device, begun).0).is_err() {
            return Err(Error::device(format!(
                "the training began in {begun}, which this CPU lacks: go on where it began, or --overwrite it"
            )));
        }
        return Ok(decided(begun));
    }
    let (precision, reason) = match fits_bf16(&system.shape(settings)) {
        true => precision(device, PrecisionChoice::Auto),
        false => (Precision::F32, Some("precision: f32, since layers are too wide for bf16")),
    };
    if let Some(reason) = reason {
        observer.note(reason);
    }
    Ok(decided(precision.into()))
}

/// Checks for everything that can make `replicas` new trainings fail, except divergence. Nothing is
/// written or removed, even with `--overwrite`.
///
/// # Errors
/// Invalid settings, or settings the device does not support; too little data; too little memory.
pub fn check(
    device: &Device,
    system: &dyn System,
    settings: &Settings,
    replicas: usize,
) -> Result<()> {
    settings.check()?;
    let settings = decided(device, system, settings, None, &())?;
    check_precision(device, precision(device, settings.precision).0)?;
    // Networks that are pruned train one after another.
    let count = if settings.prune { 1 } else { replicas };
    system.check(*device, &vec![settings.clone(); count])
}

fn train_stack(
    device: &Device,
    system: &dyn System,
    settings: &[Settings],
    starts: Vec<Checkpoint>,
    observers: &[&dyn Observer],
) -> Result<Vec<Trained>> {
    let begun = Instant::now();
    let steps = settings[0].steps;
    let mut trainer = Trainer::new(device, system, settings, starts, observers)?;
    let first = trainer.step();
    trainer.run()?;
    let seconds = begun.elapsed().as_secs_f64();
    let (edges, unit) = (trainer.edges() as f64, system.unit());
    let models: Vec<Model> = (0..settings.len()).map(|run| trainer.model(run)).collect();
    // Frees device memory for the test.
    drop(trainer);
    let taken = (steps - first) * settings.len() as u64;
    let mut trained = Vec::new();
    for (model, observer) in models.into_iter().zip(observers) {
        let Tested { loss, data, test, hidden } = system.test(*device, &model, *observer)?;
        let (about, components) = (&model.about, model.components.clone());
        trained.push(Trained {
            steps,
            seconds,
            seconds_per_step: if taken == 0 { 0.0 } else { seconds / taken as f64 },
            edges_per_second: edges / seconds,
            train_loss: unit * about.train_loss.unwrap_or(f64::NAN),
            validation_loss: unit * about.validation_loss.unwrap_or(f64::NAN),
            test_loss: unit * loss,
            test_data: data,
            test,
            hidden,
            components,
            seed: about.settings.seed,
            folder: PathBuf::new(),
            model,
        });
    }
    Ok(trained)
}

impl Trained {
    /// The result as text.
    pub fn text(&self) -> String {
        let Trained { steps, seconds, train_loss, test_loss, test_data, .. } = self;
        let scatter = self.test.map_or(String::new(), |test| format!(" ± {:.4}", test.jackknife));
        let hidden = self.hidden.map_or(String::new(), |hidden| {
            format!(", hidden overdensities {:.4} ± {:.4}", hidden.error, hidden.jackknife)
        });
        format!(
            "{}: {steps} steps in {seconds:.1} s ({:.3} ms per step, {:.0} thousand edges/s)\n\
             loss: training {train_loss:.4}, test {test_loss:.4}{scatter} ({test_data}){hidden}\n\
             messages: {}",
            self.folder.display(),
            1e3 * self.seconds_per_step,
            self.edges_per_second / 1e3,
            self.components.len()
        )
    }
}
