//! One fit: a table and options become problems, the problems a run folder.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::columns::Columns;
use super::options::Options;
use super::prepare;
use crate::error::{Error, Result};
use crate::formula::export::{self, Law};
use crate::formula::expression::{Expression, Node};
use crate::ops::expression::Evaluator;
use crate::progress::Progress;
use crate::store::run::RunFolder;
use crate::store::table::Table;
use crate::symbolic::denoise::denoised;
use crate::symbolic::front::Select;
use crate::symbolic::job::{self, Labels, MEMORY};
use crate::symbolic::joint::{self, Joint};
use crate::symbolic::search::{self, Outcome, Problem, Settings};
use crate::symbolic::template::{Part, Template};

/// The document of a fit that has ended.
pub const RESULT: &str = "fit.json";

/// The `[regress]` table of config.toml.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// As it was named.
    pub table: PathBuf,
    /// The options.
    #[serde(flatten)]
    pub options: Options,
    /// Seed of everything random.
    pub seed: u64,
    /// Of what the table held when it was fitted, see [`fingerprint`].
    #[serde(default)]
    pub data: String,
}

impl Config {
    /// A fit that is yet to be made.
    pub fn new(table: PathBuf, options: Options, seed: u64) -> Self {
        Config { table, options, seed, data: String::new() }
    }
}

/// A text that differs where the bytes of two tables do.
pub fn fingerprint(table: &Path) -> Result<String> {
    let bytes = std::fs::read(table).map_err(|e| Error::io("read", table, e))?;
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    Ok(format!("{:016x}", hasher.finish()))
}

/// A fit that is ready to run: everything about it has been checked.
pub struct Fit {
    config: Config,
    problems: Vec<Problem>,
    settings: Settings,
    /// Formulas of an earlier run that break the rules of this one.
    refused: usize,
    /// Under `--joint`: how the targets become one problem, and that.
    joint: Option<(Joint, Problem)>,
    /// What the columns are called, and what the user is told of them.
    columns: Columns,
}

/// What came out.
pub struct Fitted {
    /// One for each target.
    pub outcomes: Vec<Outcome>,
    names: Vec<String>,
    targets: Vec<String>,
    select: Select,
    /// The inputs that were left after `--select-features`, where it was given.
    inputs: Option<Vec<String>>,
    template: Option<Template>,
    /// True where formulas had to fit units.
    units: bool,
    refused: usize,
    /// The file's names of columns that have others in the formulas.
    originals: Map<String, Value>,
    /// What the user is told of the table.
    notes: Vec<String>,
}

impl Fit {
    /// Reads the table and checks every option.
    ///
    /// # Errors
    /// Naming file, field and row, or the option.
    pub fn new(mut config: Config) -> Result<Self> {
        let options = &config.options;
        if options.target.is_empty() {
            let message = "--target must name the column to explain";
            return Err(Error::usage(message).field("target"));
        }
        let mut targets = HashSet::new();
        if let Some(twice) = options.target.iter().find(|target| !targets.insert(*target)) {
            return Err(Error::usage(format!("names '{twice}' twice")).field("target"));
        }
        // Before a long table is read.
        options.settings(&[], &[], config.seed).or_else(|e| match e.field.as_deref() {
            Some("complexity") => Ok(Settings::default()),
            _ => Err(e),
        })?;
        let table = Table::read(&config.table)?;
        config.data = fingerprint(&config.table)?;
        let mut ready = Columns::new(table, &config.options)?;
        let Columns { table, options, inputs, .. } = &ready;
        let weights = options.weights.as_deref();
        let problem = |target: &String| job::problem_of_table(table, target, inputs, weights);
        let problems: Result<Vec<Problem>> = options.target.iter().map(problem).collect();
        let mut problems = problems.map_err(|e| ready.in_the_files_words(e))?;
        if let Some(template) = prepare::template(&problems[0], &ready)? {
            problems.iter_mut().for_each(|problem| problem.template = Some(template.clone()));
        }
        let names = std::mem::take(&mut ready.table).names;
        let options = &ready.options;
        // From here on nothing sees the rows that are held out.
        if let Some(share) = options.validation.filter(|share| *share > 0.0) {
            problems
                .iter_mut()
                .try_for_each(|problem| prepare::hold_out(problem, share, config.seed))?;
        }
        prepare::select_features(&mut problems, options, config.seed)?;
        let settings = options.settings(&problems[0].names, &names, config.seed)?;
        let labels = options.target.iter().zip(&config.options.target);
        for (problem, (target, label)) in problems.iter_mut().zip(labels) {
            if options.denoise {
                let Problem { columns, target, weights, .. } = &*problem;
                problem.target = denoised(columns, target, weights.as_deref(), config.seed);
            }
            prepare::groups_are_seen(problem)?;
            prepare::complete(problem, target, label, &names, options)?;
        }
        let joint = prepare::joined(&problems, options)?;
        let mut refused = 0;
        match &joint {
            Some((_, problem)) => drop(search::check(problem, &settings)?),
            None => {
                for problem in &mut problems {
                    refused += prepare::admitted(problem, &settings, options)?;
                }
            }
        }
        Ok(Fit { problems, settings, refused, joint, columns: ready, config })
    }

    /// Searches, and writes everything into the folder; `resume` goes on from what is there.
    ///
    /// # Errors
    /// [`crate::error::Kind::Interrupted`] after Ctrl-C, once everything is written.
    pub fn run(
        mut self,
        evaluator: &Evaluator,
        folder: &RunFolder,
        resume: bool,
        progress: Progress,
    ) -> Result<Fitted> {
        let options = &self.config.options;
        let targets = options.target.clone();
        let labels = Labels { targets, stage: "table", memory: MEMORY, resume };
        // Without a memory the search had not come to its first: from nothing it ends where it would have.
        let begun = resume && folder.file(MEMORY).exists();
        if begun && options.template.is_none() && self.joint.is_none() {
            job::resume(&mut self.problems, &labels.targets, folder)?;
        }
        folder.write_config("regress", &self.config)?;
        let select = options.select;
        if self.refused > 0 {
            let message = "formulas of the earlier run break a limit of this one and are left out";
            progress.note(&format!("{} {message}", self.refused));
        }
        let composed = options.template.is_some() || self.joint.is_some() || options.pure_constants;
        if evaluator.is_gpu() && (composed || self.settings.row_loss.is_some()) {
            let message = "losses other than mae and mse, templates, --joint and --pure-constants are \
                           computed on the CPU";
            progress.note(message);
        }
        let outcomes = match &self.joint {
            None => job::run(
                evaluator,
                &self.problems,
                &labels,
                &self.settings,
                select,
                folder,
                progress,
            )?,
            Some(joined) => {
                let (problems, settings) = (&self.problems, &self.settings);
                joint::run(
                    evaluator, problems, joined, &labels, settings, select, folder, progress,
                )?
            }
        };
        self.name_columns(folder)?;
        let fitted = Fitted {
            originals: self.columns.originals(),
            notes: self.columns.notes.clone(),
            outcomes,
            names: self.problems[0].names.clone(),
            targets: labels.targets,
            select,
            inputs: options.select_features.map(|_| self.problems[0].names.clone()),
            template: self.problems[0].template.clone(),
            units: options.units.is_some(),
            refused: self.refused,
        };
        for (name, text) in export::files(&fitted.laws()) {
            folder.write(name, text.as_bytes())?;
        }
        if fitted.outcomes.iter().any(|outcome| outcome.interrupted) {
            return Err(Error::interrupted(format!(
                "stopped; what was found is in {}, --resume continues from there",
                folder.path().display()
            )));
        }
        let document = serde_json::to_string_pretty(&fitted.document()).expect("plain data");
        folder.write(RESULT, format!("{document}\n").as_bytes())?;
        Ok(fitted)
    }
}

impl Fit {
    /// Adds to `laws.json` what the file calls the variables, and the words that groups stand for.
    fn name_columns(&self, folder: &RunFolder) -> Result<()> {
        let Columns { words, .. } = &self.columns;
        let originals = self.columns.originals();
        if originals.is_empty() && words.is_empty() {
            return Ok(());
        }
        let mut laws = job::read_laws(folder)?;
        for law in &mut laws {
            let variables = law["variables"].as_array().cloned().unwrap_or_default();
            let used = |name: &str| variables.iter().any(|v| v == name);
            let columns: Map<String, Value> = originals
                .iter()
                .filter(|(safe, _)| used(safe))
                .map(|(s, o)| (s.clone(), o.clone()))
                .collect();
            if !columns.is_empty() {
                law["columns"] = Value::Object(columns);
            }
            let words: Map<String, Value> = words
                .iter()
                .filter(|(name, _)| used(name))
                .map(|(n, w)| (n.clone(), json!(w)))
                .collect();
            if !words.is_empty() {
                law["words"] = Value::Object(words);
            }
        }
        job::write_laws(folder, &laws)
    }
}

impl Fitted {
    /// The chosen laws.
    fn laws(&self) -> Vec<Law> {
        let original = |name: &String| {
            let known = self.originals.get(name).and_then(Value::as_str);
            known.unwrap_or(name).to_string()
        };
        let chosen = |(outcome, target): (&Outcome, &String)| {
            let entry = &outcome.front.entries[outcome.front.select(self.select)?];
            Some(Law {
                target: target.clone(),
                expression: entry.expression.clone(),
                names: self.names.iter().map(original).collect(),
            })
        };
        self.outcomes.iter().zip(&self.targets).filter_map(chosen).collect()
    }

    /// The document of `--json`: that of the target, or a list where there are several.
    pub fn document(&self) -> Value {
        let mut documents: Vec<Value> = self
            .outcomes
            .iter()
            .zip(&self.targets)
            .map(|(outcome, target)| {
                let mut document = super::document(outcome, &self.names);
                for (entry, parts) in outcome.parts.iter().enumerate() {
                    document["front"][entry]["parts"] = self.parts(parts);
                }
                document["target"] = json!(target);
                if let Some(inputs) = &self.inputs {
                    document["inputs"] = json!(inputs);
                }
                if !self.originals.is_empty() {
                    document["columns"] = json!(self.originals);
                }
                if !self.notes.is_empty() {
                    document["notes"] = json!(self.notes);
                }
                if self.refused > 0 {
                    document["refused"] = json!(self.refused);
                }
                document
            })
            .collect();
        match documents.len() {
            1 => documents.remove(0),
            _ => json!({ "targets": documents }),
        }
    }

    /// The parts of a template by their names, each in the names of its first call's operands.
    fn parts(&self, found: &[Expression]) -> Value {
        let template = self.template.iter().flat_map(|template| &template.parts);
        let text = |(part, e): (&Part, &Expression)| {
            let operands = part.operands.iter().flatten();
            let names: Vec<String> = operands
                .map(|operand| match operand.root() {
                    Node::Variable(_) => operand.text(&self.names),
                    _ => format!("({})", operand.text(&self.names)),
                })
                .collect();
            (part.name.clone(), json!(e.text(&names)))
        };
        Value::Object(template.zip(found).map(text).collect())
    }

    /// The fronts as tables.
    pub fn text(&self) -> String {
        let several = self.targets.len() > 1;
        let front = |(outcome, target): (&Outcome, &String)| {
            let title = if several { format!("{target}\n") } else { String::new() };
            let empty = if self.units {
                "no formula fits the units and is valid on all rows"
            } else {
                "no formula was valid on all rows"
            };
            title + &super::table_of(&outcome.front, &self.names, self.select, empty)
        };
        let inputs = self.inputs.iter().map(|i| format!("inputs: {}", i.join(", ")));
        let notes = (!self.notes.is_empty()).then(|| self.notes.join("\n"));
        let fronts = self.outcomes.iter().zip(&self.targets).map(front);
        notes.into_iter().chain(inputs).chain(fronts).collect::<Vec<_>>().join("\n\n")
    }
}
