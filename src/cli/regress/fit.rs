//! One fit: a table and options become problems, the problems a run folder.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::options::Options;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::ops::expression::{self as op, Program, Rows};
use crate::progress::Progress;
use crate::random::Random;
use crate::store::run::RunFolder;
use crate::store::table::Table;
use crate::symbolic::denoise::denoised;
use crate::symbolic::export::{self, Law};
use crate::symbolic::expression::{Expression, Node};
use crate::symbolic::front::{Front, Select};
use crate::symbolic::job::{self, Labels};
use crate::symbolic::joint::Joint;
use crate::symbolic::relevance::relevance;
use crate::symbolic::search::{Outcome, Problem, Rest, Settings};
use crate::symbolic::template::{Part, Template};
use crate::symbolic::units::Units;

/// The file of what a search remembers, for `--resume`.
const MEMORY: &str = "memory.json";
/// What the search for all targets at once is called in the run folder.
const JOINT: &str = "joint";
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
}

/// A fit that is ready to run: everything about it has been checked.
pub struct Fit {
    config: Config,
    problems: Vec<Problem>,
    settings: Settings,
    /// Under `--joint`: how the targets become one problem, and that.
    joint: Option<(Joint, Problem)>,
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
}

impl Fit {
    /// Reads the table and checks every option.
    ///
    /// # Errors
    /// Naming file, field and row, or the option.
    pub fn new(config: Config) -> Result<Self> {
        let options = &config.options;
        if options.target.is_empty() {
            let message = "--target must name the column to explain";
            return Err(Error::usage(message).field("target"));
        }
        // Before a long table is read.
        options.settings(&[], config.seed).or_else(|e| match e.field.as_deref() {
            Some("complexity") => Ok(Settings::default()),
            _ => Err(e),
        })?;
        let table = Table::read(&config.table)?;
        let mut inputs = options.inputs.clone();
        if inputs.is_empty() {
            let taken = |name: &&String| {
                options.target.contains(name) || Some(*name) == options.weights.as_ref()
            };
            inputs = table.names.iter().filter(|n| !taken(n)).cloned().collect();
        }
        let weights = options.weights.as_deref();
        let problem = |target: &String| job::problem_of_table(&table, target, &inputs, weights);
        let mut problems: Vec<Problem> =
            options.target.iter().map(problem).collect::<Result<_>>()?;
        drop(table);
        select_features(&mut problems, options, config.seed)?;
        let settings = options.settings(&problems[0].names, config.seed)?;
        for (problem, target) in problems.iter_mut().zip(&options.target) {
            if options.denoise {
                problem.target = denoised(&problem.columns, &problem.target, config.seed);
            }
            complete(problem, target, options)?;
            if let Some(share) = options.validation.filter(|share| *share > 0.0) {
                hold_out(problem, share, config.seed)?;
            }
        }
        let joint = joined(&problems, options)?;
        Ok(Fit { config, problems, settings, joint })
    }

    /// Searches, and writes everything into the folder; `resume` goes on from what is there.
    ///
    /// # Errors
    /// [`crate::error::Kind::Interrupted`] after Ctrl-C, once everything is written.
    pub fn run(
        mut self,
        device: &Device,
        folder: &RunFolder,
        resume: bool,
        progress: Progress,
    ) -> Result<Fitted> {
        let options = &self.config.options;
        let labels =
            Labels { targets: options.target.clone(), stage: "table", memory: Some(MEMORY) };
        if resume && options.template.is_none() && self.joint.is_none() {
            job::resume(&mut self.problems, &labels.targets, folder)?;
        }
        folder.write_config("regress", &self.config)?;
        let select = options.select;
        let outcomes = match &self.joint {
            None => {
                job::run(device, &self.problems, &labels, &self.settings, select, folder, progress)?
            }
            Some((joint, problem)) => {
                let together = Labels { targets: vec![JOINT.to_string()], ..labels.clone() };
                let problem = std::slice::from_ref(problem);
                let found =
                    job::run(device, problem, &together, &self.settings, select, folder, progress)?;
                let outcomes = self.apart(joint, &found[0])?;
                self.write_apart(&outcomes, folder)?;
                outcomes
            }
        };
        let fitted = Fitted {
            outcomes,
            names: self.problems[0].names.clone(),
            targets: labels.targets,
            select,
            inputs: options.select_features.map(|_| self.problems[0].names.clone()),
            template: self.problems[0].template.clone(),
        };
        for (name, text) in export::files(&fitted.laws()) {
            folder.write(name, text.as_bytes())?;
        }
        if crate::interrupt::requested() {
            return Err(Error::interrupted(format!(
                "stopped; what was found is in {}, --resume goes on from there",
                folder.path().display()
            )));
        }
        let document = serde_json::to_string_pretty(&fitted.document()).expect("plain data");
        folder.write(RESULT, format!("{document}\n").as_bytes())?;
        Ok(fitted)
    }
}

impl Fit {
    /// The outcome of the joint search for each target.
    fn apart(&self, joint: &Joint, found: &Outcome) -> Result<Vec<Outcome>> {
        let formulas: Vec<Vec<Expression>> =
            found.parts.iter().map(|parts| joint.formulas(parts)).collect();
        let outcome = |(k, problem): (usize, &Problem)| {
            let own: Vec<Expression> = formulas.iter().map(|f| f[k].clone()).collect();
            let programs: Vec<Program> = own.iter().map(Program::new).collect();
            let rows = Rows::new(&problem.columns, &problem.target, problem.weights.as_deref())?;
            let losses = op::score(&Device::cpu(), &rows, &programs, self.settings.loss)?;
            let complexity = |e: &Expression| e.complexity(&self.settings.weights);
            let entries = own.into_iter().zip(losses).map(|(e, loss)| (complexity(&e), loss, e));
            let front = Front::new(entries.collect());
            Ok(Outcome { front, kept: Vec::new(), parts: Vec::new(), ..found.clone() })
        };
        self.problems.iter().enumerate().map(outcome).collect()
    }

    /// Puts the laws of the targets in the place of the joint one.
    fn write_apart(&self, outcomes: &[Outcome], folder: &RunFolder) -> Result<()> {
        let options = &self.config.options;
        let mut laws = job::read_laws(folder)?;
        laws.retain(|law| {
            let target = law["target"].as_str().unwrap_or_default();
            target != JOINT && !options.target.iter().any(|t| t == target)
        });
        for ((outcome, target), problem) in outcomes.iter().zip(&options.target).zip(&self.problems)
        {
            if let Some(chosen) = outcome.front.select(options.select) {
                let entry = &outcome.front.entries[chosen];
                let rule = options.select.name();
                laws.push(job::law(target, "table", entry, &problem.names, rule));
            }
        }
        job::write_laws(folder, &laws)
    }
}

/// The targets as one problem, under `--joint`.
fn joined(problems: &[Problem], options: &Options) -> Result<Option<(Joint, Problem)>> {
    if options.joint.is_empty() {
        return Ok(None);
    }
    let alone = options.template.is_none()
        && options.units.is_none()
        && options.validation.is_none()
        && options.guess.is_empty()
        && options.warm_start.is_none();
    if !alone {
        let message = "does not go with --template, --units, --validation, --guess or --warm-start";
        return Err(Error::usage(message).field("joint"));
    }
    Joint::new(problems, &options.joint).map(Some)
}

/// Leaves only the inputs that say most about any of the targets.
fn select_features(problems: &mut [Problem], options: &Options, seed: u64) -> Result<()> {
    let Some(count) = options.select_features else { return Ok(()) };
    let error = |message: &str| Err(Error::usage(message).field("select-features"));
    if count == 0 {
        return error("at least one input must stay");
    }
    if options.template.is_some() {
        return error("a template names its inputs itself");
    }
    let mut most = vec![0.0f64; problems[0].columns.len()];
    for problem in problems.iter() {
        let found = relevance(&problem.columns, &problem.target, seed);
        most.iter_mut().zip(found).for_each(|(most, share)| *most = most.max(share));
    }
    let mut order: Vec<usize> = (0..most.len()).collect();
    order.sort_by(|&a, &b| most[b].total_cmp(&most[a]));
    order.truncate(count);
    order.sort_unstable();
    for problem in problems {
        problem.names = order.iter().map(|&index| problem.names[index].clone()).collect();
        let columns = std::mem::take(&mut problem.columns);
        let kept = columns.into_iter().enumerate().filter(|(index, _)| order.contains(index));
        problem.columns = kept.map(|(_, column)| column).collect();
    }
    Ok(())
}

/// Template, units, guesses and the formulas of an earlier run.
fn complete(problem: &mut Problem, target: &str, options: &Options) -> Result<()> {
    if let Some(text) = &options.template {
        problem.template = Some(Template::of_table(text, &problem.names, &problem.columns)?);
        if !options.guess.is_empty() || options.warm_start.is_some() {
            let message = "a search under a template begins from nothing";
            return Err(Error::usage(message).field("template"));
        }
    }
    if let Some(text) = &options.units {
        problem.units = Some(Units::parse(text, &problem.names, target, options.pure_constants)?);
    }
    let names: Vec<&str> = problem.names.iter().map(String::as_str).collect();
    for text in &options.guess {
        let guess =
            Expression::parse(text, &names).map_err(|e| Error::usage(e.message).field("guess"))?;
        problem.seeds.push(guess);
    }
    if let Some(path) = &options.warm_start {
        let earlier = RunFolder::open(path)?;
        let before = problem.seeds.len();
        job::resume(std::slice::from_mut(problem), &[target.to_string()], &earlier)?;
        if problem.seeds.len() == before {
            let message = format!("has no formulas for '{target}' to begin with");
            return Err(Error::input(message).file(earlier.file(job::HALL_OF_FAME)));
        }
    }
    Ok(())
}

/// Takes a share of the rows, drawn at random, from the search.
fn hold_out(problem: &mut Problem, share: f64, seed: u64) -> Result<()> {
    let rows = problem.target.len();
    let mut order: Vec<usize> = (0..rows).collect();
    let mut random = Random::new(seed, 6 << 40);
    let held = (share * rows as f64).round() as usize;
    if held < 2 || rows - held < job::FEWEST_ROWS {
        let message = format!("leaves {held} of {rows} rows to choose by; both parts need more");
        return Err(Error::usage(message).field("validation"));
    }
    for at in 0..held {
        order.swap(at, at + random.below(rows - at));
    }
    let mut out = vec![false; rows];
    order[..held].iter().for_each(|&row| out[row] = true);
    let divide = |column: &mut Vec<f32>| -> Vec<f32> {
        let whole = std::mem::take(column);
        let part = |wanted: bool| {
            whole
                .iter()
                .zip(&out)
                .filter(move |(_, out)| **out == wanted)
                .map(|(v, _)| *v)
                .collect()
        };
        *column = part(false);
        part(true)
    };
    problem.rest = Some(Rest {
        columns: problem.columns.iter_mut().map(divide).collect(),
        target: divide(&mut problem.target),
        weights: problem.weights.as_mut().map(divide),
    });
    Ok(())
}

impl Fitted {
    /// The chosen laws.
    fn laws(&self) -> Vec<Law> {
        let chosen = |(outcome, target): (&Outcome, &String)| {
            let entry = &outcome.front.entries[outcome.front.select(self.select)?];
            Some(Law {
                target: target.clone(),
                expression: entry.expression.clone(),
                names: self.names.clone(),
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
            title + &super::table_of(&outcome.front, &self.names, self.select)
        };
        let inputs = self.inputs.iter().map(|i| format!("inputs: {}", i.join(", ")));
        let fronts = self.outcomes.iter().zip(&self.targets).map(front);
        inputs.chain(fronts).collect::<Vec<_>>().join("\n\n")
    }
}
