//! `lawsmith regress`: from a table to the formulas that fit it.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::Context;
use super::flags::{Flags, choice};
use crate::distill::laws::{LawOptions, Search, regress};
use crate::error::{Error, Result};
use crate::network::settings::Preset;
use crate::ops::expression::Evaluator;
use crate::pipeline::open_run;
use crate::store::run::{IfExists, RunFolder};
use crate::symbolic::front::{Front, Select};
use crate::symbolic::options::Options;
use crate::symbolic::search::Outcome;

mod batch;
mod fit;

use fit::{Config, PreparedFit};

/// Finds the formula behind a column of a table.
#[derive(Args)]
pub struct Regress {
    /// The table (text with any separator, also .gz; .npz, .npy, HDF5, .safetensors, .parquet), or the folder of a run
    /// with messages
    #[arg(required_unless_present = "batch")]
    table: Option<PathBuf>,
    /// Many fits as one job: a file with a [[job]] for each (table, target and any of the options
    /// below; [defaults] for all), or a folder of tables, all fitted with the options given here
    #[arg(long, value_name = "JOBS", conflicts_with = "table")]
    batch: Option<PathBuf>,
    #[command(flatten)]
    options: Flags<Options>,
    /// How hard to search for the laws of a run's messages [default: quick]
    #[arg(long, value_parser = choice::<Preset>())]
    preset: Option<Preset>,
    /// The run folder [default: runs/TABLE]
    #[arg(short, long)]
    output: Option<PathBuf>,
    #[command(flatten)]
    existing: Flags<IfExists>,
}

impl Regress {
    /// Searches, and prints the front with the choices marked.
    pub fn run(self, context: &Context) -> Result<()> {
        let default =
            |path: &Path| PathBuf::from("runs").join(path.file_stem().unwrap_or_default());
        let of_run = self.table.as_ref().is_some_and(|table| table.is_dir());
        if !of_run && self.preset.is_some() {
            let message =
                "applies only to the messages of a run; for a table use --evaluations or --seconds";
            return Err(Error::usage(message).field("--preset"));
        }
        if let Some(jobs) = &self.batch {
            let output = self.output.clone().unwrap_or_else(|| default(jobs));
            return batch::run(jobs, &self.options.0, &output, self.existing.0, context);
        }
        let table = self.table.clone().expect("required without --batch");
        if of_run {
            return self.run_folder(&table, context);
        }
        let output = self.output.clone().unwrap_or_else(|| default(&table));
        let config = Config::new(table, self.options.0, context.seed);
        let fit = PreparedFit::new(config)?;
        let folder = RunFolder::create(&output, self.existing.0)?;
        let evaluator = Evaluator::new(&context.device);
        let fitted = fit.run(&evaluator, &folder, self.existing.0.resume, &context.terminal)?;
        context.print(&fitted.document(), fitted.text());
        Ok(())
    }

    /// A law for each kept message of a run.
    fn run_folder(&self, path: &Path, context: &Context) -> Result<()> {
        let message =
            "does not apply to the messages of a run; their laws are written to its folder";
        self.options.0.only(&["evaluations", "select", "joint"], message)?;
        for (field, given) in
            [("--output", self.output.is_some()), ("--overwrite", self.existing.0.overwrite)]
        {
            if given {
                return Err(Error::usage(message).field(field));
            }
        }
        let folder = RunFolder::open(path)?;
        let preset = self.preset.unwrap_or(Preset::Quick);
        // The errors of messages are those of a network, not independent noise in each row.
        let select = match self.options.0.select {
            Select::Shortest => Select::Best,
            other => other,
        };
        let evaluations = self.options.0.evaluations;
        let search = Search::new(preset, LawOptions { select, evaluations });
        let joint = &self.options.0.joint;
        let search = Search { resume: self.existing.0.resume, joint, ..search };
        let summary = regress(context.compute(), &open_run(&folder)?, search)?;
        context.print(&serde_json::to_value(&summary).expect("plain data"), summary.text());
        Ok(())
    }
}

/// The document of `--json`.
fn document(outcome: &Outcome, names: &[String]) -> serde_json::Value {
    let entries = outcome.front.entries.iter().enumerate();
    let front: Vec<serde_json::Value> = entries
        .map(|(index, e)| {
            let mut entry = json!({
                "complexity": e.complexity,
                "loss": e.loss,
                "score": e.score,
                "equation": e.expression.text(names),
            });
            if let Some(loss) = outcome.front.validation.get(index) {
                entry["validation"] = json!(loss);
            }
            entry
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

/// The front as a table with these equations and the choices of the rules marked; `empty` explains an empty front.
fn table_of(front: &Front, equations: &[String], select: Select, empty: &str) -> String {
    let unseen = !front.validation.is_empty();
    let title = if unseen { "  validation" } else { "" };
    let mut text = format!("complexity       loss{title}   score  equation\n");
    for (index, entry) in front.entries.iter().enumerate() {
        let chosen = Select::ALL.into_iter().filter(|&rule| front.select(rule) == Some(index));
        let rules: Vec<&str> = chosen.map(Select::name).collect();
        let mark =
            if rules.is_empty() { String::new() } else { format!("  <- {}", rules.join(", ")) };
        let equation = &equations[index];
        let validation = front.validation.get(index);
        let validation = validation.map_or(String::new(), |loss| format!("   {loss:>9.3e}"));
        let _ = writeln!(
            text,
            "{:>10}  {:>9.3e}{validation}  {:>6.3}  {equation}{mark}",
            entry.complexity, entry.loss, entry.score
        );
    }
    match front.select(select) {
        Some(index) => {
            let _ = write!(text, "\n{}: {}", select.name(), equations[index]);
        }
        None => {
            let _ = write!(text, "\n{empty}");
        }
    }
    text
}
