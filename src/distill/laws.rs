//! The regression stages of a run: an expression for each kept message, then for each output of φv.

use std::slice;

use super::compose::Formula;
use super::edges::{Inputs, node_names};
use super::messages::{Component, MessageTable};
use super::nodes::NodeTable;
use super::pipeline::Setting;
use crate::error::{Error, Result};
use crate::formula::expression::{Expression, Weights};
use crate::network::settings::Preset;
use crate::ops::expression::Evaluator;
use crate::store::run::RunFolder;
use crate::symbolic::front::{Entry, Select};
use crate::symbolic::job::{self, LAWS, Labels, MEMORY, NODE_MEMORY};
use crate::symbolic::joint::{self, Joint};
use crate::symbolic::search::{Outcome, Problem, Settings};

/// Stages in `laws.json`: the laws of the kept messages, …
const MESSAGE: &str = "message";
/// … of the outputs of φv in the node's features and the summed messages, …
const NODE: &str = "node";
/// … and both again with the constants of the composed formula.
const COMPOSED: &str = "composed";

/// The names of the outputs of φv.
const OUTPUTS: [&str; 3] = ["ax", "ay", "az"];

/// How to search for the laws of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Search<'a> {
    /// Candidates that are considered for each target.
    pub evaluations: u64,
    /// The rule that chooses from a Pareto front.
    pub select: Select,
    /// True to go on from what an interrupted search of the same messages remembers.
    pub resume: bool,
    /// Where it names a vector among the inputs, all messages have one factor in common, as a
    /// [`Joint`] says.
    pub joint: &'a [String],
}

impl Search<'_> {
    /// As hard as `preset` says, unless `evaluations` does.
    pub fn new(preset: Preset, evaluations: Option<u64>, select: Select) -> Self {
        let of_preset = match preset {
            Preset::Quick => 400_000,
            Preset::Standard => 1_500_000,
            Preset::Paper => 5_000_000,
        };
        Search { evaluations: evaluations.unwrap_or(of_preset), select, resume: false, joint: &[] }
    }
}

/// A search and where its results go.
struct Job<'a> {
    at: Setting,
    folder: &'a RunFolder,
    search: Search<'a>,
}

/// A problem for each target.
fn problems(names: &[String], columns: &[Vec<f32>], targets: &[Vec<f32>]) -> Vec<Problem> {
    let problem = |target: &Vec<f32>| Problem {
        names: names.to_vec(),
        columns: columns.to_vec(),
        target: target.clone(),
        ..Problem::default()
    };
    targets.iter().map(problem).collect()
}

impl Job<'_> {
    /// Searches every target, or all that are `joined`; the chosen entries.
    fn run(
        &self,
        stage: &'static str,
        targets: Vec<String>,
        problems: Vec<Problem>,
        joined: Option<(Joint, Problem)>,
    ) -> Result<Vec<Entry>> {
        let Job { at, folder, search: Search { evaluations, select, resume, .. } } = *self;
        let settings =
            Settings { evaluations: Some(evaluations), seed: at.seed, ..Settings::default() };
        let searched = joined.as_ref().map_or(&problems[..], |(_, one)| slice::from_ref(one));
        let memory = if stage == MESSAGE { MEMORY } else { NODE_MEMORY };
        let resume = resume && job::remembers(&folder.file(memory), searched, &settings)?;
        if stage == MESSAGE && !resume {
            // Laws of earlier messages, of φv and of the composed formula do not outlive new messages.
            for name in [LAWS, job::HALL_OF_FAME, MEMORY, NODE_MEMORY] {
                folder.remove(name)?;
            }
        }
        let evaluator = &Evaluator::new(&at.device);
        let progress = at.progress;
        let labels = Labels { targets, stage, memory, resume };
        let outcomes = match &joined {
            None => job::run(evaluator, &problems, &labels, &settings, select, folder, progress)?,
            Some(joined) => {
                let settings = &settings;
                joint::run(
                    evaluator, &problems, joined, &labels, settings, select, folder, progress,
                )?
            }
        };
        if outcomes.iter().any(|outcome| outcome.interrupted) {
            // In laws.json they would pass for those of a search that had ended.
            let mut laws = job::read_laws(folder)?;
            laws.retain(|law| law["stage"] != stage);
            job::write_laws(folder, &laws)?;
            let path = folder.path().display();
            return Err(Error::interrupted(format!(
                "stopped while searching for laws; what was found is in {path}, --resume continues from there"
            )));
        }
        let chosen = |outcome: &Outcome| {
            let front = &outcome.front;
            let mut entry = front.entries[front.select(select)?].clone();
            // As the file has it, which a resumed run goes on from.
            entry.expression = entry.expression.readable();
            Some(entry)
        };
        let none = || {
            Error::input("the search found no expression that is valid on all rows")
                .file(folder.file(job::HALL_OF_FAME))
        };
        outcomes.iter().map(|outcome| chosen(outcome).ok_or_else(none)).collect()
    }
}

/// Searches a law for each kept message of a run, with `hall_of_fame.csv` live, into `laws.json`.
pub fn messages(
    at: Setting,
    folder: &RunFolder,
    table: &MessageTable,
    search: Search,
) -> Result<Vec<Entry>> {
    let targets: Vec<Vec<f32>> = table.targets.iter().map(|(_, target)| target.clone()).collect();
    let problems = problems(&table.inputs.names(), &table.columns, &targets);
    let joint = (!search.joint.is_empty()).then(|| Joint::new(&problems, search.joint));
    let joint = joint.transpose()?;
    let targets = table.targets.iter().map(|(c, _)| c.index.to_string()).collect();
    let job = Job { at, folder, search };
    job.run(MESSAGE, targets, problems, joint)
}

/// Searches an expression for each output of φv and adds them to `hall_of_fame.csv` and `laws.json`.
pub fn nodes(
    at: Setting,
    folder: &RunFolder,
    table: &NodeTable,
    components: &[usize],
    search: Search,
) -> Result<Vec<Expression>> {
    let dim = table.targets.len();
    let targets = OUTPUTS[..dim].iter().map(|name| name.to_string()).collect();
    let job = Job { at, folder, search };
    let problems = problems(&node_names(dim, components), &table.columns, &table.targets);
    let chosen = job.run(NODE, targets, problems, None)?;
    Ok(chosen.into_iter().map(|entry| entry.expression).collect())
}

/// The laws of the kept messages, from `laws.json`.
pub fn read_messages(
    folder: &RunFolder,
    inputs: &Inputs,
    kept: &[Component],
) -> Result<Vec<Expression>> {
    let laws = job::read_laws(folder)?;
    let path = folder.file(LAWS);
    let names = inputs.names();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    kept.iter()
        .map(|component| {
            let target = component.index.to_string();
            let law = laws.iter().find(|l| l["stage"] == MESSAGE && l["target"] == target.as_str());
            let equation = law.and_then(|law| law["equation"].as_str()).ok_or_else(|| {
                Error::input(
                    "has no law for this message: run `lawsmith regress` on the folder first",
                )
                .file(&path)
                .field(&target)
            })?;
            Expression::parse(equation, &names)
                .map_err(|e| Error::input(e.message).file(&path).field(&target))
        })
        .collect()
}

/// The equation of motion in words and the entries of `laws.json`.
impl Formula {
    /// The names that a person reads on the left of each equation, with the equation.
    pub fn equations(&self) -> Vec<(String, String)> {
        let (inputs, nodes) = (self.inputs.names(), self.node_names());
        let messages = self.components.iter().zip(&self.messages);
        let outputs = OUTPUTS.iter().zip(&self.nodes);
        messages
            .map(|(index, e)| (format!("e{index} = sum over senders of"), e.text(&inputs)))
            .chain(outputs.map(|(name, e)| (format!("{name} ="), e.text(&nodes))))
            .collect()
    }
}

/// Adds the composed formula, with its loss on the data of the refit, to `laws.json`.
pub fn write_composed(folder: &RunFolder, formula: &Formula, loss: f64) -> Result<()> {
    let mut laws = job::read_laws(folder)?;
    laws.retain(|law| law["stage"] != COMPOSED);
    let (inputs, nodes) = (formula.inputs.names(), formula.node_names());
    let mut add = |target: String, expression: &Expression, names: &[String]| {
        let complexity = expression.complexity(&Weights::default());
        let entry = Entry { complexity, loss, score: 0.0, expression: expression.clone() };
        laws.push(job::law(&target, COMPOSED, &entry, names, "refit"));
    };
    for (index, expression) in formula.components.iter().zip(&formula.messages) {
        add(format!("e{index}"), expression, &inputs);
    }
    for (name, expression) in OUTPUTS.iter().zip(&formula.nodes) {
        add(name.to_string(), expression, &nodes);
    }
    job::write_laws(folder, &laws)
}

/// Reads the composed formula from `laws.json`; `None` where the run has none.
pub fn read_composed(
    folder: &RunFolder,
    inputs: Inputs,
    components: Vec<usize>,
) -> Result<Option<Formula>> {
    let laws = job::read_laws(folder)?;
    let path = folder.file(LAWS);
    let (input_names, nodes) = (inputs.names(), node_names(inputs.dim, &components));
    let read = |target: String, names: &[String]| -> Result<Option<Expression>> {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let law = laws.iter().find(|l| l["stage"] == COMPOSED && l["target"] == target.as_str());
        let equation = law.and_then(|law| law["equation"].as_str());
        let parse = |text| {
            Expression::parse(text, &names)
                .map_err(|e| Error::input(e.message).file(&path).field(&target))
        };
        equation.map(parse).transpose()
    };
    let messages: Result<Option<Vec<_>>> =
        components.iter().map(|index| read(format!("e{index}"), &input_names)).collect();
    let outputs: Result<Option<Vec<_>>> =
        OUTPUTS[..inputs.dim].iter().map(|name| read(name.to_string(), &nodes)).collect();
    Ok(match (messages?, outputs?) {
        (Some(messages), Some(nodes)) => Some(Formula { inputs, components, messages, nodes }),
        _ => None,
    })
}
