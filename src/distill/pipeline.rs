//! The stages: simulate, train, measure the messages, search their laws, compose, roll out.
//!
//! Every stage reads and writes files of the run folder, so each is also a command of its own, and
//! `--resume` goes on at the first stage whose file is missing.

use std::path::PathBuf;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::compose::Formula;
use super::forces;
use super::laws::{self, Search};
use super::messages::{self, MessageTable};
use super::nodes::{Graphs, NodeTable};
use super::rollout::{self, unseen};
use super::summary::{LawSummary, Summary};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::model::ModelKind;
use crate::nbody::dataset::Dataset;
use crate::nbody::simulate;
use crate::network::batches::split;
use crate::network::model::Model;
use crate::network::settings::{Changes, Preset, Settings as TrainSettings};
use crate::network::train::train;
use crate::progress::Progress;
use crate::store::run::RunFolder;
use crate::symbolic::front::Select;
use crate::symbolic::job::LAWS;

/// Where and how a stage runs.
#[derive(Clone, Copy)]
pub struct Setting {
    /// Where to compute.
    pub device: Device,
    /// Seed of everything random.
    pub seed: u64,
    /// Where progress goes.
    pub progress: Progress,
}

/// What `distill` was asked for; `[distill]` in `config.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// How the messages are kept compact.
    pub model: ModelKind,
    /// How much work.
    pub preset: Preset,
    /// What the training changes about the preset.
    #[serde(flatten)]
    pub training: Changes,
    /// How many message components to keep; by default D for known laws, else those above 1 %.
    pub components: Option<usize>,
    /// The rule that chooses from a Pareto front.
    pub select: Select,
    /// Candidates of each search; by default what the preset says.
    pub evaluations: Option<u64>,
    /// Seed of everything random.
    pub seed: u64,
    /// An existing dataset; otherwise one is simulated.
    pub dataset: Option<PathBuf>,
    /// The system to simulate.
    pub simulate: Option<simulate::Settings>,
}

impl Settings {
    /// The training on systems of `bodies` bodies in `dim` dimensions.
    fn training(&self, dim: usize, bodies: usize) -> TrainSettings {
        let mut training = TrainSettings::preset(self.preset, self.model, dim, bodies);
        self.training.apply(&mut training);
        training.seed = self.seed;
        training
    }
}

/// Runs that are simulated for training.
pub fn runs(preset: Preset) -> usize {
    match preset {
        Preset::Quick => 2000,
        Preset::Standard | Preset::Paper => 10_000,
    }
}

/// Graphs on which losses are measured.
const LOSS_GRAPHS: usize = 4000;
/// Graphs of the training data on which the composed formula is refitted.
const REFIT_GRAPHS: usize = 4000;
/// Rows of each regression (docs/design.md §4).
pub const ROWS: usize = 5000;
/// How much wider than the initial states of the training the states outside its range are.
const OUTSIDE_WIDTH: f64 = 2.0;

/// Everything, from a system to its law. Returns what was found and what a person reads.
pub fn distill(at: Setting, folder: &RunFolder, settings: &Settings) -> Result<(Summary, String)> {
    let begun = Instant::now();
    // Only `--resume` gets here with files of the same settings.
    let already = folder.file("messages.safetensors").exists();
    folder.write_config("distill", settings)?;
    let dataset_path = match (&settings.dataset, &settings.simulate) {
        (Some(path), _) => path.clone(),
        (None, Some(system)) => {
            let path = folder.file("dataset.safetensors");
            if !path.exists() {
                simulate::simulate(&at.device, system, &path, at.progress)?;
            }
            path
        }
        (None, None) => return Err(Error::usage("neither a dataset nor a system to simulate")),
    };
    let dataset = Dataset::open(&dataset_path)?;
    let simulated = begun.elapsed().as_secs_f64();

    let stage = Instant::now();
    let about = &dataset.about;
    let training = settings.training(about.dim, about.bodies);
    let resume = folder.file("model.safetensors").exists();
    train(&at.device, &dataset, &training, folder, resume, at.progress)?;
    let trained = stage.elapsed().as_secs_f64();

    let mut summary = messages(at, folder, settings.components)?;
    summary.seconds.simulate = simulated;
    summary.seconds.train = trained;
    summary.write(folder)?;

    let stage = Instant::now();
    let search = Search::new(settings.preset, settings.evaluations, settings.select);
    let search = Search { resume: already, ..search };
    regress(at, folder, search)?;
    let (_, formula) = compose(at, folder, search)?;
    let regressed = stage.elapsed().as_secs_f64();
    rollout::write(&at.device, folder)?;
    summary = Summary::read(folder)?;
    summary.seconds.regress = regressed;
    summary.seconds.total = begun.elapsed().as_secs_f64();
    summary.write(folder)?;
    let (table, losses) = (summary.text(), summary.losses());
    Ok((summary, format!("{table}\n\n{formula}\n{losses}")))
}

/// `messages`: ranks the messages of a run's network and fits them to the true forces.
pub fn messages(at: Setting, folder: &RunFolder, components: Option<usize>) -> Result<Summary> {
    let model = Model::load(&folder.file("model.safetensors"))?;
    let (test, runs) = unseen(folder, &model)?;
    let measured = messages::measure(&at.device, &model, &test, &runs, components, at.seed)?;
    messages::write(folder, &model, &measured)?;
    let mut summary = Summary::of(&measured);
    let graphs = Graphs::sample(&test, &runs, LOSS_GRAPHS, at.seed);
    summary.test_loss.network = Some(graphs.network_loss(&at.device, &model)?);
    if let Some(outside) = outside(&test, at.seed) {
        summary.outside_loss.network = Some(outside.network_loss(&at.device, &model)?);
    }
    summary.write(folder)?;
    Ok(summary)
}

/// States outside the range of the training, where the law is known.
fn outside(test: &Dataset, seed: u64) -> Option<Graphs> {
    let about = &test.about;
    let law = about.law.as_ref()?;
    Some(Graphs::outside(law, about.dim, about.bodies, LOSS_GRAPHS, OUTSIDE_WIDTH, seed))
}

/// The search for the laws of a run's messages; also `regress RUNFOLDER`.
pub fn regress(at: Setting, folder: &RunFolder, search: Search) -> Result<Summary> {
    let table = MessageTable::read(folder, ROWS)?;
    let model = Model::load(&folder.file("model.safetensors"))?;
    let found = laws::messages(at, folder, &table, search)?;
    let mut summary = Summary::read(folder)?;
    let names = table.inputs.names();
    for (component, law) in summary.components.iter_mut().zip(found) {
        component.law = Some(LawSummary::of(&law, &names));
        if let Some(truth) = &model.about.law {
            let r_max = 2.0 * table.distance(0.99);
            let verdict =
                forces::judge(truth, &law.expression, &table.inputs, table.bodies, r_max, at.seed)?;
            component.recovered = Some(verdict.recovered);
            component.verdict = Some(verdict);
        }
    }
    summary.write(folder)?;
    Ok(summary)
}

/// Puts the laws of a run in the place of its network and refits all constants; also `compose RUNFOLDER`.
/// Returns what was found and the formula for a person.
pub fn compose(at: Setting, folder: &RunFolder, search: Search) -> Result<(Summary, String)> {
    let model = Model::load(&folder.file("model.safetensors"))?;
    let (test, runs) = unseen(folder, &model)?;
    let data = Dataset::open(&model.about.dataset)?;
    let (trained, _) = split(&data, model.about.settings.seed)?;
    let table = MessageTable::read(folder, ROWS)?;
    let kept = table.kept();
    let messages = laws::read_messages(folder, &table.inputs, &kept)?;
    let components: Vec<usize> = kept.iter().map(|c| c.index).collect();
    let graphs = Graphs::sample(&test, &runs, ROWS, at.seed.wrapping_add(1));
    let nodes = NodeTable::new(&at.device, &model, &graphs, &kept, at.seed)?;
    let nodes = laws::nodes(at, folder, &nodes, &components, search)?;
    let mut formula = Formula { inputs: table.inputs, components, messages, nodes };
    let train = Graphs::sample(&data, &trained.runs, REFIT_GRAPHS, at.seed.wrapping_add(2));
    let loss = formula
        .refit(&train.features, &train.targets, train.bodies)
        .map_err(|e| e.file(folder.path()))?;
    laws::write_composed(folder, &formula, loss)?;
    let mut summary = Summary::read(folder)?;
    let graphs = Graphs::sample(&test, &runs, LOSS_GRAPHS, at.seed);
    summary.test_loss.formula = graphs.formula_loss(&formula);
    summary.outside_loss.formula = outside(&test, at.seed).and_then(|g| g.formula_loss(&formula));
    summary.write(folder)?;
    let lines: Vec<String> =
        formula.equations().into_iter().map(|(left, right)| format!("{left} {right}")).collect();
    Ok((summary, lines.join("\n")))
}

/// The composed formula of a run; `None` where it was not composed yet.
pub fn composed(folder: &RunFolder) -> Result<Option<Formula>> {
    if !folder.file(LAWS).exists() || !folder.file("messages.safetensors").exists() {
        return Ok(None);
    }
    let table = MessageTable::read(folder, 1)?;
    let components = table.kept().iter().map(|c| c.index).collect();
    laws::read_composed(folder, table.inputs, components)
}

/// An error where the settings make no sense or the dataset cannot be used, before anything is written.
pub fn check(settings: &Settings) -> Result<()> {
    if settings.evaluations == Some(0) {
        return Err(Error::usage("is 0; at least 1 is needed").field("evaluations"));
    }
    let (dim, bodies) = match (&settings.dataset, &settings.simulate) {
        (Some(path), _) => {
            let about = Dataset::open(path)?.about;
            (about.dim, about.bodies)
        }
        (None, Some(system)) => {
            system.check()?;
            (system.dim, system.bodies)
        }
        (None, None) => return Err(Error::usage("neither a dataset nor a system to simulate")),
    };
    settings.training(dim, bodies).check()
}
