//! The regression stages of a run: an expression for each kept message, then for each output of φv.

use super::compose::Formula;
use super::edges::{Inputs, node_names};
use super::messages::{Component, MessageTable};
use super::nodes::NodeTable;
use super::pipeline::Setting;
use crate::error::{Error, Result};
use crate::network::settings::Preset;
use crate::store::run::RunFolder;
use crate::symbolic::expression::{Expression, Weights};
use crate::symbolic::front::{Entry, Select};
use crate::symbolic::job::{self, LAWS, Labels};
use crate::symbolic::search::{Outcome, Problem, Settings};

/// Stages in `laws.json`: the laws of the kept messages, …
const MESSAGE: &str = "message";
/// … of the outputs of φv in the node's features and the summed messages, …
const NODE: &str = "node";
/// … and both again with the constants of the composed formula.
const COMPOSED: &str = "composed";

/// The names of the outputs of φv.
const OUTPUTS: [&str; 3] = ["ax", "ay", "az"];

/// How many candidates a preset considers for each target.
fn evaluations(preset: Preset) -> u64 {
    match preset {
        Preset::Quick => 400_000,
        Preset::Standard => 1_500_000,
        Preset::Paper => 5_000_000,
    }
}

/// How many rows and how hard, and where the results go.
struct Job<'a> {
    at: Setting,
    folder: &'a RunFolder,
    preset: Preset,
    select: Select,
}

impl Job<'_> {
    /// Searches every target; the chosen entries.
    fn run(
        &self,
        stage: &'static str,
        labels: Vec<String>,
        names: &[String],
        columns: &[Vec<f32>],
        targets: &[Vec<f32>],
    ) -> Result<Vec<Entry>> {
        let Job { at, folder, preset, select } = *self;
        let problem = |target: &Vec<f32>| Problem {
            names: names.to_vec(),
            columns: columns.to_vec(),
            target: target.clone(),
            ..Problem::default()
        };
        let problems: Vec<Problem> = targets.iter().map(problem).collect();
        let settings = Settings {
            evaluations: Some(evaluations(preset)),
            seed: at.seed,
            ..Settings::default()
        };
        let labels = Labels { targets: labels, stage };
        let outcomes =
            job::run(&at.device, &problems, &labels, &settings, select, folder, at.progress)?;
        if crate::interrupt::requested() {
            let path = folder.path().display();
            return Err(Error::interrupted(format!(
                "stopped while searching for laws; what was found is in {path}, --resume searches again"
            )));
        }
        let chosen = |outcome: &Outcome| {
            let front = &outcome.front;
            front.select(select).map(|index| front.entries[index].clone()).ok_or_else(|| {
                Error::input("the search found no expression that is valid on all rows")
                    .file(folder.file(job::HALL_OF_FAME))
            })
        };
        outcomes.iter().map(chosen).collect()
    }
}

/// Searches a law for each kept message of a run, with `hall_of_fame.csv` live, into `laws.json`.
pub fn messages(
    at: Setting,
    folder: &RunFolder,
    table: &MessageTable,
    preset: Preset,
    select: Select,
) -> Result<Vec<Entry>> {
    // Laws of earlier messages, of φv and of the composed formula do not outlive new messages.
    for name in [LAWS, job::HALL_OF_FAME] {
        let path = folder.file(name);
        if path.exists() {
            std::fs::remove_file(&path).map_err(|e| Error::io("remove", &path, e))?;
        }
    }
    let labels = table.targets.iter().map(|(c, _)| c.index.to_string()).collect();
    let targets: Vec<Vec<f32>> = table.targets.iter().map(|(_, target)| target.clone()).collect();
    let job = Job { at, folder, preset, select };
    job.run(MESSAGE, labels, &table.inputs.names(), &table.columns, &targets)
}

/// Searches an expression for each output of φv and adds them to `hall_of_fame.csv` and `laws.json`.
pub fn nodes(
    at: Setting,
    folder: &RunFolder,
    table: &NodeTable,
    components: &[usize],
    preset: Preset,
    select: Select,
) -> Result<Vec<Expression>> {
    let dim = table.targets.len();
    let labels = OUTPUTS[..dim].iter().map(|name| name.to_string()).collect();
    let job = Job { at, folder, preset, select };
    let names = node_names(dim, components);
    let chosen = job.run(NODE, labels, &names, &table.columns, &table.targets)?;
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
