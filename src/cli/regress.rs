//! `lawsmith regress`: a table in, the formulas that fit it out.

use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Context;
use crate::distill::laws::Search;
use crate::distill::pipeline;
use crate::error::{Error, Result};
use crate::network::settings::Preset;
use crate::ops::expression::Loss;
use crate::store::run::{Existing, RunFolder};
use crate::store::table::Table;
use crate::symbolic::expression::Op;
use crate::symbolic::front::{Front, Select};
use crate::symbolic::job::{self, Labels};
use crate::symbolic::search::{Outcome, Settings};

/// Formulas to consider where neither --evaluations nor --seconds says.
const EVALUATIONS: u64 = 500_000;

/// Finds the formula behind a column of a table.
#[derive(Args)]
pub struct Regress {
    /// The table (.csv, .npz, .npy or .parquet), or the folder of a run with messages
    table: PathBuf,
    /// The column to explain; needed for a table
    #[arg(long, value_name = "COLUMN")]
    target: Option<String>,
    /// The columns to explain it by; all others, if none are named
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    inputs: Vec<String>,
    /// What formulas are made of: + - * / ^ > < exp log sqrt abs square cube neg sin cos tanh min max IF
    #[arg(long, default_value = "+,-,*,/,^,exp,log,>,<,IF", allow_hyphen_values = true)]
    operators: String,
    /// What is minimised
    #[arg(long, value_enum, default_value_t = LossName::Mae)]
    loss: LossName,
    /// The column of the rows' weights
    #[arg(long, value_name = "COLUMN")]
    weights: Option<String>,
    /// No formula is longer: 1 a node, 3 for ^ exp log IF
    #[arg(long, default_value_t = 30, value_name = "N")]
    max_complexity: u32,
    /// Stop after so many formulas; 500000, if --seconds is not given either
    #[arg(long, value_name = "N")]
    evaluations: Option<u64>,
    /// Stop after so many seconds
    #[arg(long, value_name = "S")]
    seconds: Option<f64>,
    /// Stop at this loss
    #[arg(long, value_name = "LOSS")]
    target_loss: Option<f64>,
    /// The rule that chooses the law
    #[arg(long, value_enum, default_value_t = Select::Best)]
    select: Select,
    /// How hard to search for the laws of a run's messages
    #[arg(long, value_enum, default_value_t = Preset::Quick)]
    preset: Preset,
    /// The run folder; runs/<table>, if none is named
    #[arg(short, long)]
    output: Option<PathBuf>,
    #[command(flatten)]
    existing: Existing,
}

/// The losses by name.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum LossName {
    /// Mean of absolute residuals
    Mae,
    /// Mean of squared residuals
    Mse,
}

/// The `[regress]` table of config.toml.
#[derive(Debug, Serialize, Deserialize)]
struct Config {
    table: PathBuf,
    target: String,
    inputs: Vec<String>,
    operators: Vec<String>,
    loss: Loss,
    #[serde(skip_serializing_if = "Option::is_none")]
    weights: Option<String>,
    max_complexity: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    evaluations: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_loss: Option<f64>,
    select: Select,
    seed: u64,
}

impl Regress {
    /// Searches, and prints the front with the three choices.
    pub fn run(self, context: &Context) -> Result<()> {
        if self.table.is_dir() {
            return self.run_folder(context);
        }
        let target = self.target.clone().ok_or_else(|| {
            Error::usage("--target must name the column to explain").field("target")
        })?;
        let operators = operators(&self.operators)?;
        let seconds = self.seconds.filter(|s| !(s.is_finite() && *s > 0.0));
        if seconds.is_some() || self.evaluations == Some(0) || self.max_complexity == 0 {
            return Err(Error::usage("limits must be larger than 0"));
        }
        let table = Table::read(&self.table)?;
        let mut inputs = self.inputs.clone();
        if inputs.is_empty() {
            let taken = |name: &&String| **name == target || Some(*name) == self.weights.as_ref();
            inputs = table.names.iter().filter(|n| !taken(n)).cloned().collect();
        }
        let weights = self.weights.as_deref();
        let mut problems = [job::problem_of_table(&table, &target, &inputs, weights)?];
        let evaluations = match (self.evaluations, self.seconds) {
            (None, None) => Some(EVALUATIONS),
            (evaluations, _) => evaluations,
        };
        let settings = Settings {
            operators,
            loss: match self.loss {
                LossName::Mae => Loss::Mae,
                LossName::Mse => Loss::Mse,
            },
            max_complexity: self.max_complexity,
            evaluations,
            seconds: self.seconds,
            target_loss: self.target_loss,
            seed: context.seed,
            ..Settings::default()
        };
        let stem = self.table.file_stem().unwrap_or_default();
        let output = self.output.clone().unwrap_or_else(|| PathBuf::from("runs").join(stem));
        let folder = RunFolder::create(&output, self.existing)?;
        let labels = Labels { targets: vec![target.clone()], stage: "table" };
        if self.existing.resume {
            job::resume(&mut problems, &labels.targets, &folder)?;
        }
        folder.write_config("regress", &self.config(&settings, target, inputs))?;
        let select = self.select;
        let progress = context.progress;
        let outcomes =
            job::run(&context.device, &problems, &labels, &settings, select, &folder, progress)?;
        if crate::interrupt::requested() {
            return Err(Error::interrupted(format!(
                "stopped; what was found is in {}, --resume goes on from there",
                output.display()
            )));
        }
        let outcome = &outcomes[0];
        let names = &problems[0].names;
        context.print(&document(outcome, names), table_of(&outcome.front, names, select));
        Ok(())
    }

    /// A law for each kept message of a run.
    fn run_folder(&self, context: &Context) -> Result<()> {
        let folder = RunFolder::open(&self.table)?;
        let search = Search::new(self.preset, self.evaluations, self.select);
        let search = Search { resume: self.existing.resume, ..search };
        let summary = pipeline::regress(context.setting(), &folder, search)?;
        context.print(&serde_json::to_value(&summary).expect("plain data"), summary.text());
        Ok(())
    }

    fn config(&self, settings: &Settings, target: String, inputs: Vec<String>) -> Config {
        Config {
            table: self.table.clone(),
            target,
            inputs,
            operators: settings.operators.iter().map(|op| op.name().to_string()).collect(),
            loss: settings.loss,
            weights: self.weights.clone(),
            max_complexity: settings.max_complexity,
            evaluations: settings.evaluations,
            seconds: settings.seconds,
            target_loss: settings.target_loss,
            select: self.select,
            seed: settings.seed,
        }
    }
}

/// The operators of a list with commas between.
pub fn operators(text: &str) -> Result<Vec<Op>> {
    let mut operators = Vec::new();
    for name in text.split(',').map(str::trim) {
        let Some(op) = Op::from_name(name) else {
            let known: Vec<&str> = Op::ALL.iter().map(|op| op.name()).collect();
            let message = format!("'{name}' is no operator; they are {}", known.join(" "));
            return Err(Error::usage(message).field("operators"));
        };
        if !operators.contains(&op) {
            operators.push(op);
        }
    }
    Ok(operators)
}

/// The document of `--json`.
pub fn document(outcome: &Outcome, names: &[String]) -> serde_json::Value {
    let front: Vec<serde_json::Value> = outcome
        .front
        .entries
        .iter()
        .map(|e| {
            json!({
                "complexity": e.complexity,
                "loss": e.loss,
                "score": e.score,
                "equation": e.expression.text(names),
            })
        })
        .collect();
    let selected: serde_json::Map<String, serde_json::Value> = Select::ALL
        .into_iter()
        .map(|rule| (rule.name().to_string(), json!(outcome.front.select(rule))))
        .collect();
    json!({
        "front": front,
        "selected": selected,
        "evaluations": outcome.evaluations,
        "node_evaluations": outcome.node_evaluations,
        "seconds": outcome.seconds,
    })
}

/// The front as a table, the rules' choices marked.
pub fn table_of(front: &Front, names: &[String], select: Select) -> String {
    let mut text = String::from("complexity       loss   score  equation\n");
    for (index, entry) in front.entries.iter().enumerate() {
        let chosen = Select::ALL.into_iter().filter(|&rule| front.select(rule) == Some(index));
        let rules: Vec<&str> = chosen.map(Select::name).collect();
        let mark =
            if rules.is_empty() { String::new() } else { format!("  <- {}", rules.join(", ")) };
        let equation = entry.expression.text(names);
        let _ = writeln!(
            text,
            "{:>10}  {:>9.3e}  {:>6.3}  {equation}{mark}",
            entry.complexity, entry.loss, entry.score
        );
    }
    match front.select(select) {
        Some(index) => {
            let equation = front.entries[index].expression.text(names);
            let _ = write!(text, "\n{}: {equation}", select.name());
        }
        None => text.push_str("\nno formula was valid on all rows"),
    }
    text
}
