//! From a graph to a formula: the stages of `distill` on a graph of halos.
//!
//! The network's surviving messages are searched for laws in the variables of an edge, φv for one in mass,
//! speed and the summed messages; [`compose`] makes one formula of them.

use std::path::PathBuf;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::compose::compose;
use super::graph::Graph;
use super::messages::{self, Measured, Table, Wanted, positions};
use super::split::Split;
use super::table6::Measure;
use super::train::losses;
use crate::distill::laws::Search;
use crate::distill::pipeline::Setting;
use crate::error::{Error, Result};
use crate::formula::expression::{Expression, Node};
use crate::network::model::Model;
use crate::network::settings::Settings as TrainSettings;
use crate::ops::expression::Evaluator;
use crate::ops::formula;
use crate::store::run::RunFolder;
use crate::symbolic::front::{Entry, Front, Select};
use crate::symbolic::job::{self, Labels};
use crate::symbolic::search::Problem;
use crate::symbolic::settings::Settings as SearchSettings;

/// Rows of each regression.
pub(super) const ROWS: usize = 5000;
/// Candidates of each front that are composed.
const CANDIDATES: usize = 6;
/// Candidates have at most this many times the smallest loss of their front.
const LOSS: f64 = 1.5;

/// The summary of a run, written when its messages are measured and by each later stage.
const SUMMARY: &str = "messages.json";

/// What a run on a graph has found so far: `messages.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Summary {
    /// Which messages survive, and the variables of their laws.
    pub messages: Measured,
    /// Messages with more than 1 % of the largest significance.
    pub survivors: usize,
    /// The network's error on the held-out slab, and on hidden overdensities.
    pub network: (Measure, Option<Measure>),
    /// The chosen laws of the messages, as in `laws.json`.
    pub laws: Vec<String>,
    /// The composed formula, its equations, …
    pub formula: Option<Vec<String>>,
    /// … its error on the training nodes, …
    pub formula_train: Option<Measure>,
    /// … and on the held-out slab, and on hidden overdensities.
    pub formula_test: Option<(Measure, Option<Measure>)>,
    /// Seconds of the stages that this folder saw.
    pub seconds: Vec<(String, f64)>,
}

impl Summary {
    /// Reads `messages.json`.
    ///
    /// # Errors
    /// A file that is missing or of something else.
    pub fn read(folder: &RunFolder) -> Result<Self> {
        let path = folder.file(SUMMARY);
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))?;
        let bad = |message: String| Error::input(message).file(&path);
        let summary: Summary =
            serde_json::from_str(&text).map_err(|e| bad(format!("cannot be read: {e}")))?;
        let Measured { kept, inputs, .. } = &summary.messages;
        if kept.is_empty() || positions(inputs, &formula::VARIABLES).len() != inputs.len() {
            return Err(bad("names no kept message, or no variables of an edge".into()));
        }
        Ok(summary)
    }

    pub(super) fn write(&self, folder: &RunFolder) -> Result<()> {
        let text = serde_json::to_string_pretty(self).expect("plain data");
        folder.write(SUMMARY, text.as_bytes())
    }

    /// For a person.
    pub fn text(&self) -> String {
        let one = |m: &Measure| format!("{:.4} ± {:.4}", m.error, m.jackknife);
        let both = |(test, hidden): &(Measure, Option<Measure>)| match hidden {
            Some(hidden) => format!("{}, hidden overdensities {}", one(test), one(hidden)),
            None => one(test),
        };
        let mut lines = vec![format!("messages that survive: {}", self.survivors)];
        for component in &self.messages.kept {
            lines.push(format!(
                "  e{}: significance {:.3e}",
                component.index, component.significance
            ));
        }
        lines.extend(self.laws.iter().map(|law| format!("law of {law}")));
        lines.extend(self.formula.iter().flatten().cloned());
        lines.push("mean absolute error on the held-out slab".to_string());
        lines.push(format!("  network {}", both(&self.network)));
        if let Some(test) = &self.formula_test {
            lines.push(format!("  formula {}", both(test)));
        }
        if let Some(train) = &self.formula_train {
            lines.push(format!("  formula, where it was fitted: {}", one(train)));
        }
        lines.join("\n")
    }
}

/// A run on a graph, opened.
pub(super) struct Run {
    pub(super) model: Model,
    pub(super) graph: Graph,
    pub(super) split: Split,
}

impl Run {
    pub(super) fn open(folder: &RunFolder) -> Result<Self> {
        let model = Model::load(&folder.file("model.safetensors"))?;
        let graph = Graph::open(&model.about.dataset)?;
        check_graph(&model, &graph)?;
        let hide_above = model.about.graph.as_ref().and_then(|g| g.hide_above);
        let split = Split::new(&graph, hide_above)?;
        Ok(Run { model, graph, split })
    }
}

/// An error where a network was trained on another graph than this one.
///
/// # Errors
/// Other nodes, edges, radius or scales.
pub fn check_graph(model: &Model, graph: &Graph) -> Result<()> {
    let on = model.about.graph.as_ref();
    if on != Some(&graph.about.on_graph(on.and_then(|on| on.hide_above))) {
        let message = "is not the graph that the run's network was trained on";
        return Err(Error::input(message).file(graph.path()));
    }
    Ok(())
}

/// What `distill` was asked for on a graph: `[distill]` in `config.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The graph.
    pub graph: PathBuf,
    /// Nodes of a larger target are hidden.
    pub hide_above: Option<f64>,
    /// Message components to keep; by default those with more than 1 % of the largest significance.
    pub components: Option<usize>,
    /// Laws have no masses in them.
    #[serde(default)]
    pub without_mass: bool,
    /// The rule that chooses from a Pareto front.
    pub select: Select,
    /// Candidates of each search; by default what the preset says.
    pub evaluations: Option<u64>,
    /// The training.
    pub training: TrainSettings,
}

/// Whether a run folder's network was trained on a graph; false where there is no network.
pub fn is_on_graph(folder: &RunFolder) -> bool {
    let model = Model::load(&folder.file("model.safetensors"));
    model.is_ok_and(|model| model.about.graph.is_some())
}

/// `messages`: ranks the messages of a run's network on edges of the nodes that it was trained on, and
/// settles which variables the laws may have.
///
/// # Errors
/// Files of the run that cannot be read; messages that are not finite.
pub fn messages(at: Setting, folder: &RunFolder, wanted: Wanted) -> Result<Summary> {
    let Run { model, graph, split } = Run::open(folder)?;
    let measured =
        messages::measure(&at.device, &graph, &model, &split.train, wanted, at.seed, folder)?;
    let survivors = measured.survivors();
    let summary = Summary {
        messages: measured,
        survivors,
        network: losses(&at.device, &graph, &model)?,
        laws: vec![],
        formula: None,
        formula_train: None,
        formula_test: None,
        seconds: vec![],
    };
    summary.write(folder)?;
    Ok(summary)
}

/// Searches one list of problems and leaves what was found in the folder.
pub(super) fn search(
    at: Setting,
    folder: &RunFolder,
    search: Search,
    problems: &[Problem],
    labels: &Labels,
) -> Result<Vec<Front>> {
    let settings = SearchSettings {
        evaluations: Some(search.evaluations),
        seed: at.seed,
        ..SearchSettings::default()
    };
    let outcomes = job::run(
        &Evaluator::new(&at.device),
        problems,
        labels,
        &settings,
        search.select,
        folder,
        at.progress,
    )?;
    if outcomes.iter().any(|outcome| outcome.interrupted) {
        // In laws.json they would pass for those of a search that had ended.
        let mut laws = job::read_laws(folder)?;
        laws.retain(|law| law["stage"] != labels.stage);
        job::write_laws(folder, &laws)?;
        let message =
            "stopped while searching for laws; what was found is kept, --resume continues";
        return Err(Error::interrupted(message).file(folder.path()));
    }
    Ok(outcomes.into_iter().map(|outcome| outcome.front).collect())
}

/// `regress`: the laws of the surviving messages.
///
/// # Errors
/// Files of the run that cannot be read; `interrupted`.
pub fn regress(at: Setting, folder: &RunFolder, how: Search) -> Result<Summary> {
    let tables = Table::read(folder, ROWS, at.seed)?;
    if !how.resume {
        // Laws of other messages would pass for laws of these.
        for name in [job::LAWS, job::HALL_OF_FAME, job::MEMORY, job::NODE_MEMORY] {
            folder.remove(name)?;
        }
    }
    let problem = |table: &Table| Problem {
        names: table.inputs.clone(),
        columns: table.columns.clone(),
        target: table.target.clone(),
        weights: Some(table.weights.clone()),
        ..Problem::default()
    };
    let problems: Vec<Problem> = tables.iter().map(problem).collect();
    let targets = tables.iter().map(|table| format!("e{}", table.component.index)).collect();
    let labels = Labels { targets, stage: "message", memory: job::MEMORY, resume: how.resume };
    let fronts = search(at, folder, how, &problems, &labels)?;
    let mut summary = Summary::read(folder)?;
    let chosen = labels.targets.iter().zip(&fronts).zip(&problems).filter_map(
        |((target, front), problem)| {
            let entry = &front.entries[front.select(how.select)?];
            Some(format!("{target}: {}", entry.expression.readable().text(&problem.names)))
        },
    );
    summary.laws = chosen.collect();
    summary.write(folder)?;
    Ok(summary)
}

/// The entries of a front that are worth composing, the simplest first.
pub(super) fn candidates(front: &Front) -> Vec<Entry> {
    let limit = front.entries.last().map_or(0.0, |entry| LOSS * entry.loss);
    let good = front.entries.iter().filter(|entry| entry.loss <= limit);
    good.take(CANDIDATES).cloned().collect()
}

/// The front of a component in `hall_of_fame.csv`, in the variables `names`.
pub(super) fn read_front(folder: &RunFolder, target: &str, names: &[String]) -> Result<Front> {
    let problem = Problem { names: names.to_vec(), ..Problem::default() };
    let mut problems = [problem];
    job::resume(&mut problems, &[target.to_string()], folder)?;
    let path = folder.file(job::HALL_OF_FAME);
    let bad = |e: csv::Error| Error::input(format!("is not a hall of fame: {e}")).file(&path);
    let mut reader = csv::Reader::from_path(&path).map_err(bad)?;
    let mut losses = Vec::new();
    for record in reader.records() {
        let record = record.map_err(bad)?;
        if record.get(0) == Some(target) {
            let number = |k: usize| record.get(k).and_then(|v| v.parse::<f64>().ok());
            losses.push((number(1).unwrap_or(0.0) as u32, number(2).unwrap_or(f64::NAN)));
        }
    }
    let [problem] = problems;
    if problem.seeds.is_empty() {
        let message = format!("has no law of {target}: run regress first");
        return Err(Error::input(message).file(&path));
    }
    let entries = losses.into_iter().zip(problem.seeds);
    let front = Front::new(entries.map(|((c, loss), expression)| (c, loss, expression)).collect());
    if front.entries.is_empty() {
        return Err(Error::input("contains no loss that is a number").file(&path).field("loss"));
    }
    Ok(front)
}

/// The expression with its variables, named `names`, numbered as in `all`.
pub(super) fn in_all_variables<S: AsRef<str>>(
    expression: &Expression,
    names: &[String],
    all: &[S],
) -> Expression {
    let at = positions(names, all);
    let nodes = expression.nodes().iter().map(|node| match *node {
        Node::Variable(k) => Node::Variable(at[usize::from(k)] as u16),
        other => other,
    });
    Expression::new(nodes.collect()).expect("leaves for leaves: still well-formed")
}

/// All stages behind the training, which took `trained` seconds.
///
/// # Errors
/// Those of the stages.
pub fn distill(
    at: Setting,
    folder: &RunFolder,
    wanted: Wanted,
    how: Search,
    trained: f64,
) -> Result<Summary> {
    let begun = Instant::now();
    // Only `--resume` gets here with messages of the same settings. The summary is written behind them.
    let how = Search { resume: folder.file(SUMMARY).exists(), ..how };
    if !how.resume {
        messages(at, folder, wanted)?;
    }
    regress(at, folder, how)?;
    let mut summary = compose(at, folder, how)?;
    summary.seconds =
        vec![("train".into(), trained), ("laws".into(), begun.elapsed().as_secs_f64())];
    summary.write(folder)?;
    Ok(summary)
}
