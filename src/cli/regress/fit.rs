//! One fit: from a table in a file to a run folder.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::formula::export;
use crate::formula::expression::Expression;
use crate::formula::print::number;
use crate::observer::Observer;
use crate::ops::expression::Evaluator;
use crate::report;
use crate::report::table::POINTS;
use crate::store::run::RunFolder;
use crate::store::table::Table;
use crate::symbolic::columns::Columns;
use crate::symbolic::evidence::Evidence;
use crate::symbolic::fit::{Fit, Fitted};
use crate::symbolic::job;
use crate::symbolic::options::Options;
use crate::symbolic::search::Outcome;
use crate::symbolic::template::{Numbers, Template};

/// The `[regress]` table of config.toml.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// The path as given.
    pub table: PathBuf,
    /// The options.
    #[serde(flatten)]
    pub options: Options,
    /// Seed of all random numbers.
    pub seed: u64,
    /// The [`fingerprint`] of the table when it was fitted.
    #[serde(default)]
    pub data: String,
}

impl Config {
    /// The settings of a fit that has not run.
    pub fn new(table: PathBuf, options: Options, seed: u64) -> Self {
        Config { table, options, seed, data: String::new() }
    }
}

/// A hash of the bytes of a table, in hexadecimal.
pub fn fingerprint(table: &Path) -> Result<String> {
    let bytes = std::fs::read(table).map_err(|e| Error::io("read", table, e))?;
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    Ok(format!("{:016x}", hasher.finish()))
}

/// A fit that is ready to run.
pub struct PreparedFit {
    config: Config,
    fit: Fit,
}

/// The result of a fit.
pub struct FitResult {
    fitted: Fitted,
    /// The inputs kept by `--select-features`, if it was given.
    inputs: Option<Vec<String>>,
    /// True if formulas had to be consistent in units.
    units: bool,
    /// True if formulas had to have a known shape.
    shape: bool,
}

impl PreparedFit {
    /// Reads the table and checks every option.
    ///
    /// # Errors
    /// Naming file, field and row, or the option.
    pub fn new(mut config: Config) -> Result<Self> {
        // Checked before a long table is read.
        config.options.check(config.seed)?;
        let table = Table::read(&config.table)?;
        config.data = fingerprint(&config.table)?;
        let fit = Fit::new(table, config.options.clone(), config.seed)?;
        Ok(PreparedFit { config, fit })
    }

    /// Searches, and writes everything into the folder; `resume` continues from what is there.
    ///
    /// # Errors
    /// [`crate::error::Kind::Interrupted`] after Ctrl-C, once everything is written.
    pub fn run(
        self,
        evaluator: &Evaluator,
        folder: &RunFolder,
        resume: bool,
        observer: &dyn Observer,
    ) -> Result<FitResult> {
        folder.write_config("regress", &self.config)?;
        let fitted = self.fit.run(evaluator, Some((folder, resume)), observer)?;
        complete_laws(folder, &fitted)?;
        let options = &self.config.options;
        let inputs = options.select_features.map(|_| fitted.names.clone());
        let done = FitResult {
            fitted,
            inputs,
            units: options.units.is_some(),
            shape: !options.shape.is_empty(),
        };
        for (name, text) in export::files(&done.fitted.laws()) {
            folder.write(name, text.as_bytes())?;
        }
        if done.fitted.outcomes.iter().any(|outcome| outcome.interrupted) {
            return Err(Error::interrupted(format!(
                "stopped; what was found is in {}; --resume continues from there",
                folder.path().display()
            )));
        }
        if done.fitted.outcomes.iter().all(|outcome| outcome.front.entries.is_empty()) {
            return Err(Error::input(done.empty()).file(&self.config.table));
        }
        let document = serde_json::to_string_pretty(&done.document()).expect("plain data");
        folder.write(job::RESULT, format!("{document}\n").as_bytes())?;
        folder.write(POINTS, done.points().to_string().as_bytes())?;
        report::write(folder)?;
        Ok(done)
    }
}

/// Adds to `laws.json` the evidence, the column names of the variables, and the words that stand for groups.
fn complete_laws(folder: &RunFolder, fitted: &Fitted) -> Result<()> {
    let Fitted { columns, evidence, targets, .. } = fitted;
    let originals = columns.originals();
    let mut laws = job::read_laws(folder)?;
    for law in &mut laws {
        let is_of = |target: &String| law["stage"] == "table" && law["target"] == **target;
        let of_law = targets.iter().zip(evidence).find(|(target, _)| is_of(target));
        if let Some((_, Some(evidence))) = of_law {
            law["evidence"] = evidence.document();
        }
        let variables = law["variables"].as_array().cloned().unwrap_or_default();
        let used = |name: &str| variables.iter().any(|v| v == name);
        let of_law: Map<String, Value> = originals
            .iter()
            .filter(|(safe, _)| used(safe))
            .map(|(s, o)| (s.clone(), o.clone()))
            .collect();
        if !of_law.is_empty() {
            law["columns"] = Value::Object(of_law);
        }
        let words: Map<String, Value> = columns
            .words
            .iter()
            .filter(|(name, _)| used(name))
            .map(|(n, w)| (n.clone(), json!(w)))
            .collect();
        if !words.is_empty() {
            law["words"] = Value::Object(words);
        }
    }
    job::keep_laws(&folder.observer(&()), &laws)
}

impl FitResult {
    /// Why a front is empty.
    fn empty(&self) -> &'static str {
        match self.units {
            _ if self.shape => {
                "no formula found by the search has the shape of --shape on all rows"
            }
            true => "no formula fits the units and is valid on all rows",
            false => "no formula found by the search is valid on all rows",
        }
    }

    /// The document of `--json`: the front of the target, or `targets` with one for each if there are several.
    pub fn document(&self) -> Value {
        let Fitted { outcomes, evidence, names, targets, refused, .. } = &self.fitted;
        let mut documents: Vec<Value> = outcomes
            .iter()
            .zip(evidence)
            .zip(targets)
            .map(|((outcome, evidence), target)| {
                let mut document = super::document(outcome, names);
                for (entry, parts) in outcome.parts.iter().enumerate() {
                    self.describe(parts, &mut document["front"][entry]);
                }
                document["target"] = json!(target);
                if let Some(evidence) = evidence {
                    document["evidence"] = evidence.document();
                    for (entry, judged) in evidence.front.iter().enumerate() {
                        document["front"][entry]["evidence"] = judged.document();
                    }
                }
                if let Some(inputs) = &self.inputs {
                    document["inputs"] = json!(inputs);
                }
                let Columns { renamed, notes, .. } = &self.fitted.columns;
                if !renamed.is_empty() {
                    document["columns"] = json!(self.fitted.columns.originals());
                }
                if !notes.is_empty() {
                    document["notes"] = json!(notes);
                }
                if *refused > 0 {
                    document["refused"] = json!(refused);
                }
                document
            })
            .collect();
        match documents.len() {
            1 => documents.remove(0),
            _ => json!({ "targets": documents }),
        }
    }

    /// Rows to plot for each target that has a law, with the column names of the file.
    fn points(&self) -> Value {
        let Fitted { evidence, targets, columns, .. } = &self.fitted;
        let points = |(evidence, target): (&Option<Evidence>, &String)| {
            let mut points = evidence.as_ref()?.points.clone();
            points.inputs.iter_mut().for_each(|(name, _)| *name = columns.original(name));
            let mut document = json!(points);
            document["target"] = json!(columns.original(target));
            Some(document)
        };
        Value::Array(evidence.iter().zip(targets).filter_map(points).collect())
    }

    /// Adds the contents of a template: the functions found, the numbers fitted, and both as a guess.
    fn describe(&self, found: &[Expression], entry: &mut Value) {
        let Fitted { names, template: Some(template), .. } = &self.fitted else { return };
        let mut parts = Map::new();
        for (k, part) in template.parts.iter().enumerate().filter(|(_, p)| p.operands.is_some()) {
            parts.insert(part.name.clone(), json!(template.part_text(k, found, names)));
        }
        let mut numbers = Map::new();
        for Numbers { name, first, groups } in &template.numbers {
            let value = |k: usize| json!(found[first + k].as_constant());
            let fitted = match groups {
                None => value(0),
                Some(groups) => {
                    let labels = groups.labels.iter().enumerate();
                    Value::Object(labels.map(|(k, label)| (label.clone(), value(k))).collect())
                }
            };
            numbers.insert(name.clone(), fitted);
        }
        if !parts.is_empty() {
            entry["parts"] = Value::Object(parts);
        }
        if !numbers.is_empty() {
            entry["form"] = json!(template.text(found, names));
            entry["numbers"] = Value::Object(numbers);
        }
        entry["guess"] = json!(template.as_guess(found));
    }

    /// The fronts as tables.
    pub fn text(&self) -> String {
        let Fitted { outcomes, evidence, names, targets, select, template, .. } = &self.fitted;
        let several = targets.len() > 1;
        let front = |((outcome, evidence), target): ((&Outcome, &Option<Evidence>), &String)| {
            let evidence = evidence.as_ref().map(|evidence| format!("\n\n{}", evidence.text()));
            let title = if several { format!("{target}\n") } else { String::new() };
            let equations: Vec<String> = match template {
                Some(template) if !outcome.parts.is_empty() => {
                    outcome.parts.iter().map(|parts| template.text(parts, names)).collect()
                }
                _ => outcome.front.entries.iter().map(|e| e.expression.text(names)).collect(),
            };
            let chosen = outcome.front.select(*select).and_then(|k| outcome.parts.get(k));
            let fitted = template.as_ref().zip(chosen).map(|(t, parts)| numbers_of(t, parts));
            let table = super::table_of(&outcome.front, &equations, *select, self.empty());
            title + &table + &fitted.unwrap_or_default() + &evidence.unwrap_or_default()
        };
        let inputs = self.inputs.iter().map(|i| format!("inputs: {}", i.join(", ")));
        let notes = &self.fitted.columns.notes;
        let notes = (!notes.is_empty()).then(|| notes.join("\n"));
        let fronts = outcomes.iter().zip(evidence).zip(targets).map(front);
        notes.into_iter().chain(inputs).chain(fronts).collect::<Vec<_>>().join("\n\n")
    }
}

/// The fitted numbers of a template; numbers per group as tables with a line for each group.
fn numbers_of(template: &Template, parts: &[Expression]) -> String {
    let value = |part: usize| number(parts[part].as_constant().unwrap_or(f64::NAN));
    let mut text = String::new();
    let single = template.numbers.iter().filter(|numbers| numbers.groups.is_none());
    let single: Vec<String> = single.map(|n| format!("{} = {}", n.name, value(n.first))).collect();
    if !single.is_empty() {
        text += &format!("\nfitted: {}", single.join(", "));
    }
    for Numbers { name, first, groups } in &template.numbers {
        let Some(groups) = groups else { continue };
        let width = groups.labels.iter().map(|label| label.chars().count()).max().unwrap_or(0);
        text += &format!("\n{name}");
        for (k, label) in groups.labels.iter().enumerate() {
            text += &format!("\n  {label:>width$}  {}", value(first + k));
        }
    }
    text
}
