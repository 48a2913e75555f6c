//! From a graph to a formula: the stages of `distill` on a graph of halos.
//!
//! The network's surviving messages are searched for laws in the variables of an edge, φv for one in mass,
//! speed and the summed messages. Pairs of candidates from the two fronts are compared where they have to
//! work: constants refitted through the sums on one part of the training space, errors on another. The
//! composed formula is the simplest whose error is not larger than the smallest by more than the
//! jackknife error of the difference (the one-standard-error rule, in space).

use std::path::PathBuf;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::formula::{Formula, Nodes, node_names};
use super::graph::Graph;
use super::messages::{self, Measured, Table, Wanted, positions};
use super::slab;
use super::split::{Split, mean_and_jackknife};
use super::table6::{Measure, measure};
use super::train::losses;
use super::trainer::predict;
use crate::distill::laws::Search;
use crate::distill::pipeline::Setting;
use crate::error::{Error, Result};
use crate::network::model::{Model, OnGraph};
use crate::network::settings::Settings as TrainSettings;
use crate::ops::{edge, formula};
use crate::random::Random;
use crate::store::run::RunFolder;
use crate::symbolic::expression::{Expression, Node, Weights};
use crate::symbolic::front::{Entry, Front, Select};
use crate::symbolic::job::{self, Labels};
use crate::symbolic::search::Problem;
use crate::symbolic::settings::Settings as SearchSettings;

/// Rows of each regression.
const ROWS: usize = 5000;
/// Training nodes on which pairs of candidates are fitted, and as many on which they are judged.
const COMPARED: usize = 3000;
/// Share of the box along x whose training nodes fit; the others judge.
const FITTED: f64 = 0.6;
/// Candidates of each front that are composed.
const CANDIDATES: usize = 6;
/// Candidates have at most this many times the smallest loss of their front.
const LOSS: f64 = 1.5;
const COMPARED_STREAM: u64 = 0xC0;

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

    fn write(&self, folder: &RunFolder) -> Result<()> {
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
struct Run {
    model: Model,
    graph: Graph,
    split: Split,
}

impl Run {
    fn open(folder: &RunFolder) -> Result<Self> {
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
    if on != Some(&OnGraph::new(graph, on.and_then(|on| on.hide_above))) {
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
fn search(
    at: Setting,
    folder: &RunFolder,
    search: Search,
    problems: &[Problem],
    labels: &Labels,
) -> Result<Vec<Front>> {
    let mut problems = problems.to_vec();
    if search.resume {
        let laws = job::read_laws(folder)?;
        let done = |target: &String| {
            laws.iter().any(|law| law["stage"] == labels.stage && law["target"] == target.as_str())
        };
        if labels.targets.iter().all(done) {
            let fronts = labels.targets.iter().zip(&problems);
            return fronts.map(|(target, p)| read_front(folder, target, &p.names)).collect();
        }
        job::resume(&mut problems, &labels.targets, folder)?;
    }
    let settings = SearchSettings {
        evaluations: Some(search.evaluations),
        seed: at.seed,
        ..SearchSettings::default()
    };
    let outcomes =
        job::run(&at.device, &problems, labels, &settings, search.select, folder, at.progress)?;
    if outcomes.iter().any(|outcome| outcome.interrupted) {
        // In laws.json they would pass for those of a search that had ended.
        let mut laws = job::read_laws(folder)?;
        laws.retain(|law| law["stage"] != labels.stage);
        job::write_laws(folder, &laws)?;
        let message = "stopped while searching for laws; what was found is kept: --resume goes on";
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
        for name in [job::LAWS, job::HALL_OF_FAME] {
            let path = folder.file(name);
            if path.exists() {
                std::fs::remove_file(&path).map_err(|e| Error::io("remove", &path, e))?;
            }
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
    let labels = Labels { targets, stage: "message", memory: None };
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
fn candidates(front: &Front) -> Vec<Entry> {
    let limit = front.entries.last().map_or(0.0, |entry| LOSS * entry.loss);
    let good = front.entries.iter().filter(|entry| entry.loss <= limit);
    good.take(CANDIDATES).cloned().collect()
}

/// The front of a component in `hall_of_fame.csv`, in the variables `names`.
fn read_front(folder: &RunFolder, target: &str, names: &[String]) -> Result<Front> {
    let problem = Problem { names: names.to_vec(), ..Problem::default() };
    let mut problems = [problem];
    job::resume(&mut problems, &[target.to_string()], folder)?;
    let path = folder.file(job::HALL_OF_FAME);
    let bad = |e: csv::Error| Error::input(format!("is no hall of fame: {e}")).file(&path);
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
        return Err(Error::input("holds no losses that are numbers").file(&path).field("loss"));
    }
    Ok(front)
}

/// The expression with its variables, named `names`, numbered as in `all`.
fn in_all_variables<S: AsRef<str>>(
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

/// `compose`: a law for φv, the best pair of laws, its constants refitted on all training nodes.
///
/// # Errors
/// Files of the run that cannot be read; no pair of laws that is defined on all edges; `interrupted`.
pub fn compose(at: Setting, folder: &RunFolder, how: Search) -> Result<Summary> {
    let run = Run::open(folder)?;
    let Run { graph, split, .. } = &run;
    let mut summary = Summary::read(folder)?;
    let with_masses = summary.messages.with_masses();
    let Measured { kept, inputs, .. } = summary.messages.clone();
    let components: Vec<usize> = kept.iter().map(|c| c.index).collect();
    let features = graph.scaled_features();
    // Expressions of each kept message; their sums stand in for the network's, which differ by what the
    // laws leave out.
    let fronts = components
        .iter()
        .map(|k| read_front(folder, &format!("e{k}"), &inputs))
        .collect::<Result<Vec<_>>>()?;
    let mut messages: Vec<Vec<Expression>> = fronts
        .iter()
        .map(|front| {
            let entries = candidates(front);
            let law = |e: &Entry| in_all_variables(&e.expression, &inputs, &formula::VARIABLES);
            entries.iter().map(law).collect()
        })
        .collect();
    let chosen: Vec<Expression> = fronts
        .iter()
        .zip(&mut messages)
        .map(|(front, candidates)| {
            let entry = &front.entries[front.select(how.select).unwrap_or(0)];
            let law = in_all_variables(&entry.expression, &inputs, &formula::VARIABLES);
            if !candidates.contains(&law) {
                candidates.push(law.clone());
            }
            law
        })
        .collect();
    let sampled = draw(&split.train, ROWS, at.seed);
    let nodes = Nodes::new(&at.device, graph, &features, &sampled)?;
    let names = node_names(&components);
    let mut problem = node_problem(at, &run, &features, &nodes, &sampled, &chosen)?;
    problem.names = names.clone();
    if !with_masses {
        problem.names.remove(0);
        problem.columns.remove(0);
    }
    let labels = Labels { targets: vec!["delta".to_string()], stage: "node", memory: None };
    let node_front = search(at, folder, how, std::slice::from_ref(&problem), &labels)?.remove(0);
    let node_laws: Vec<Expression> = candidates(&node_front)
        .iter()
        .map(|entry| in_all_variables(&entry.expression, &problem.names, &names))
        .collect();

    let left =
        |&node: &u32| f64::from(graph.positions()[3 * node as usize]) < FITTED * graph.about.edge;
    let (fitting, judging): (Vec<u32>, Vec<u32>) = split.train.iter().partition(|node| left(node));
    if fitting.is_empty() || judging.is_empty() {
        let message =
            "all halos to train on are in one part of the box: there is no space to judge in";
        return Err(Error::input(message).file(graph.path()));
    }
    // Of those that judge, only such as no fitted one has for a neighbour, if there are any.
    let apart = |&node: &u32| {
        let x = f64::from(graph.positions()[3 * node as usize]);
        let (edge, radius) = (graph.about.edge, graph.about.radius);
        x > FITTED * edge + radius && x < edge - radius
    };
    let far: Vec<u32> = judging.iter().copied().filter(apart).collect();
    let judging = if far.is_empty() { judging } else { far };
    let [fitting, judging] = [fitting, judging].map(|part| draw(&part, COMPARED, at.seed));
    let fit = Nodes::new(&at.device, graph, &features, &fitting)?;
    let judge = Nodes::new(&at.device, graph, &features, &judging)?;
    let bar = at.progress.bar("compose", (messages[0].len() * node_laws.len()) as u64, "pairs");
    let mut pairs: Vec<Pair> = Vec::new();
    for first in &messages[0] {
        for node in &node_laws {
            bar.add(1);
            let mut messages = chosen.clone();
            messages[0] = first.clone();
            let mut formula =
                Formula { messages, components: components.clone(), node: node.clone() };
            formula.refit(&fit).map_err(|e| e.file(folder.path()))?;
            let Some(found) = formula.predictions(&judge)? else { continue };
            let errors: Vec<f64> =
                found.iter().zip(judge.targets()).map(|(p, &t)| (f64::from(t) - p).abs()).collect();
            if errors.iter().all(|e| e.is_finite()) {
                let all = formula.messages.iter().chain([&formula.node]);
                let complexity = all.map(|e| e.complexity(&Weights::default())).sum();
                pairs.push(Pair { complexity, errors, formula });
            }
        }
    }
    drop(bar);
    let train = Nodes::new(&at.device, graph, &features, &split.train)?;
    let (formula, error) = loop {
        let Some(best) = choose(&pairs, graph, &judging) else {
            let message = "no pair of laws is defined on all edges of the training nodes";
            return Err(Error::input(message).file(folder.file(job::HALL_OF_FAME)));
        };
        let mut formula = pairs.remove(best).formula;
        // What was defined on the nodes that judged may not be on all.
        let error = formula.refit(&train).map_err(|e| e.file(folder.path()))?;
        if error.is_finite() {
            break (formula, error);
        }
    };
    write_laws(folder, &formula, error)?;
    let on = |nodes: &[u32]| measure(&at.device, graph, &features, nodes, &formula);
    summary.formula =
        Some(formula.equations().iter().map(|(left, right)| format!("{left} {right}")).collect());
    summary.formula_train = Some(on(&split.train)?);
    let hidden = match split.hidden.is_empty() {
        true => None,
        false => Some(on(&split.hidden)?),
    };
    summary.formula_test = Some((on(&split.test)?, hidden));
    let found = (&run.model, &formula);
    slab::write(&at.device, graph, &features, &split.test, found, folder)?;
    summary.write(folder)?;
    Ok(summary)
}

/// Some of the nodes, each at most once.
fn draw(nodes: &[u32], count: usize, seed: u64) -> Vec<u32> {
    let mut random = Random::new(seed, COMPARED_STREAM);
    let mut nodes = nodes.to_vec();
    let count = count.min(nodes.len());
    for k in 0..count {
        let other = k + random.below(nodes.len() - k);
        nodes.swap(k, other);
    }
    nodes.truncate(count);
    nodes
}

/// The network's output on some nodes in their mass, their speed and the sums of the messages' laws, which
/// have no names yet.
fn node_problem(
    at: Setting,
    run: &Run,
    features: &[f32],
    nodes: &Nodes,
    receivers: &[u32],
    messages: &[Expression],
) -> Result<Problem> {
    let Run { model, graph, .. } = run;
    let sums = nodes.sums(messages, false)?.ok_or_else(|| {
        Error::input("the law of a message is undefined on some edge").file(graph.path())
    })?;
    let mut workspace = edge::Workspace::default();
    let target = predict(&at.device, graph, features, model, receivers, &mut workspace)?;
    let mut columns = vec![Vec::with_capacity(receivers.len()); 2 + messages.len()];
    for row in 0..receivers.len() {
        let own = nodes.own(row);
        let sums = &sums.values[row * sums.width..][..sums.width];
        for (column, value) in columns.iter_mut().zip(own.iter().chain(sums)) {
            column.push(*value as f32);
        }
    }
    Ok(Problem { columns, target, ..Problem::default() })
}

/// A pair of laws with its constants fitted.
struct Pair {
    complexity: u32,
    /// Of each judging node.
    errors: Vec<f64>,
    formula: Formula,
}

/// The simplest pair that is as good as the best one, but for the jackknife error of the difference.
fn choose(pairs: &[Pair], graph: &Graph, nodes: &[u32]) -> Option<usize> {
    let mean = |&k: &usize| pairs[k].errors.iter().sum::<f64>() / pairs[k].errors.len() as f64;
    let all = 0..pairs.len();
    let best = all.clone().min_by(|a, b| mean(a).total_cmp(&mean(b)))?;
    let as_good = |&k: &usize| {
        let both = pairs[k].errors.iter().zip(&pairs[best].errors);
        let worse: Vec<f64> = both.map(|(a, b)| a - b).collect();
        let (mean, jackknife) = mean_and_jackknife(graph, nodes, &worse);
        mean <= jackknife
    };
    let order = |&k: &usize| pairs[k].complexity;
    let simplest = all
        .filter(as_good)
        .min_by(|a, b| order(a).cmp(&order(b)).then(mean(a).total_cmp(&mean(b))));
    simplest.or(Some(best))
}

/// The composed formula in `laws.json`.
fn write_laws(folder: &RunFolder, formula: &Formula, error: f64) -> Result<()> {
    let mut laws = job::read_laws(folder)?;
    laws.retain(|law| law["stage"] != "composed");
    let names = formula::VARIABLES.map(String::from);
    let node = node_names(&formula.components);
    let entry = |target: String, expression: &Expression, names: &[String]| {
        let complexity = expression.complexity(&Weights::default());
        let expression = expression.clone();
        let entry = Entry { complexity, loss: error, score: 0.0, expression };
        job::law(&target, "composed", &entry, names, "refit")
    };
    for (message, k) in formula.messages.iter().zip(&formula.components) {
        laws.push(entry(format!("e{k}"), message, &names));
    }
    laws.push(entry("delta".to_string(), &formula.node, &node));
    job::write_laws(folder, &laws)
}

/// The composed formula of a run.
///
/// # Errors
/// A run that has none, or one that cannot be parsed.
pub fn composed(folder: &RunFolder) -> Result<Formula> {
    let path = folder.file(job::LAWS);
    let laws = job::read_laws(folder)?;
    let text = |law: &serde_json::Value, key: &str| law[key].as_str().unwrap_or("").to_string();
    let composed: Vec<(String, String)> = laws
        .iter()
        .filter(|law| law["stage"] == "composed")
        .map(|law| (text(law, "target"), text(law, "equation")))
        .collect();
    let Some((_, node)) = composed.iter().find(|(target, _)| target == "delta") else {
        let message = "has no composed formula of an overdensity: run compose on it first";
        return Err(Error::input(message).file(path));
    };
    let bad = |e: Error| Error::input(e.message).file(&path).field("equation");
    let mut components = Vec::new();
    let mut messages = Vec::new();
    for (target, equation) in &composed {
        if let Some(index) = target.strip_prefix('e').and_then(|k| k.parse().ok()) {
            components.push(index);
            messages.push(Expression::parse(equation, &formula::VARIABLES).map_err(bad)?);
        }
    }
    let names = node_names(&components);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let node = Expression::parse(node, &names).map_err(bad)?;
    Ok(Formula { messages, components, node })
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
