//! Regression of a table: its columns and the options become problems, and the problems become fronts of formulas.

use std::collections::HashSet;
use std::slice;

use super::columns::Columns;
use super::denoise::denoised;
use super::errors::StandardErrors;
use super::evidence::Evidence;
use super::front::{Entry, Front, Select};
use super::given::OriginalData;
use super::job::{self, Earlier, Labels, MEMORY};
use super::joint::{self, Joint};
use super::null::RepeatableSearch;
use super::options::Options;
use super::prepare;
use super::refit::Data;
use super::search::{self, Outcome, Problem, Settings};
use super::template::Template;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::formula::export::Law;
use crate::formula::expression::Expression;
use crate::observer::Observer;
use crate::ops::expression::{Evaluator, Loss};
use crate::store::run::RunFolder;
use crate::store::table::Table;

/// The name of a table without a file, in errors.
const IN_MEMORY: &str = "(table in memory)";

/// Finds the formulas that fit columns of a table. The observer is offered `hall_of_fame.csv` and `memory.json` while
/// the search runs and `laws.json` at its end. The same seed gives the same formulas, on any number of threads.
///
/// If the observer stops the search, what was found so far is returned; [`Outcome::interrupted`] says so.
///
/// # Errors
/// An option or a column that makes no sense, by name.
///
/// ```
/// use lawsmith::device::Device;
/// use lawsmith::store::table::Table;
/// use lawsmith::symbolic::fit::regress;
/// use lawsmith::symbolic::options::Options;
///
/// let x: Vec<f64> = (1..=40).map(|k| 0.1 * f64::from(k)).collect();
/// let y = x.iter().map(|x| 3.0 * x * x + 1.0).collect();
/// let names = ["x", "y"].map(String::from).to_vec();
/// let table = Table::new(names, vec![x, y]);
/// let options = Options { target: vec!["y".into()], evaluations: Some(2000), ..Options::default() };
/// let found = regress(&Device::cpu(), table, options, 0, &())?;
/// assert!(found.law(0).unwrap().loss < 1e-4);
/// println!("y = {}", found.text(0).unwrap()); // y = 3 * x * x + 1, in some form
/// # Ok::<(), lawsmith::error::Error>(())
/// ```
pub fn regress(
    device: &Device,
    table: Table,
    options: Options,
    seed: u64,
    observer: &dyn Observer,
) -> Result<Fitted> {
    Fit::new(table, options, seed)?.run(&Evaluator::new(device), None, observer)
}

/// A fit that is ready to run: everything has been checked.
pub struct Fit {
    /// The columns' names, the notes for the user, and the options.
    columns: Columns,
    problems: Vec<Problem>,
    /// The table's own numbers.
    data: Data,
    /// Standard errors of target and inputs.
    errors: Option<StandardErrors>,
    settings: Settings,
    /// Number of formulas of an earlier run that break the rules of this one.
    refused: usize,
    /// With `joint`: how the targets become one problem, and that problem.
    joint: Option<(Joint, Problem)>,
}

/// The result of a fit.
#[derive(Clone, Debug)]
pub struct Fitted {
    /// One for each target.
    pub outcomes: Vec<Outcome>,
    /// The evidence for the law of each target; None if there is no law, or if the search was stopped.
    pub evidence: Vec<Option<Evidence>>,
    /// The inputs: the variables of the formulas.
    pub names: Vec<String>,
    /// The targets.
    pub targets: Vec<String>,
    /// The rule that chooses the law.
    pub select: Select,
    /// The form that formulas had to have.
    pub template: Option<Template>,
    /// Number of formulas of the run to start from that break the rules of this one.
    pub refused: usize,
    /// The columns of the table, without the table itself.
    pub columns: Columns,
}

impl Fitted {
    /// The Pareto front of target `k`.
    pub fn front(&self, k: usize) -> &Front {
        &self.outcomes[k].front
    }

    /// The entry of that front chosen by the rule `select`; `None` if no formula is valid on all rows.
    pub fn law(&self, k: usize) -> Option<&Entry> {
        let front = self.front(k);
        Some(&front.entries[front.select(self.select)?])
    }

    /// The chosen law as infix.
    pub fn text(&self, k: usize) -> Option<String> {
        Some(self.law(k)?.expression.text(&self.names))
    }

    /// The chosen laws of all targets that have one, for export.
    pub fn laws(&self) -> Vec<Law> {
        let names: Vec<String> =
            self.names.iter().map(|name| self.columns.original(name)).collect();
        let law = |(k, target): (usize, &String)| {
            let expression: Expression = self.law(k)?.expression.clone();
            Some(Law { target: target.clone(), expression, names: names.clone() })
        };
        self.targets.iter().enumerate().filter_map(law).collect()
    }
}

impl Options {
    /// An error if the options make no sense for any table.
    ///
    /// # Errors
    /// No target, a target named twice, and the errors of [`Options::settings`].
    pub fn check(&self, seed: u64) -> Result<()> {
        if self.target.is_empty() {
            let message = "--target must name the column to explain";
            return Err(Error::usage(message).field("target"));
        }
        // Smoothed noise is easier to fit than a target that was smoothed before shuffling.
        if self.denoise && self.null.is_some_and(|count| count > 0) {
            return Err(Error::usage("cannot be combined with --denoise").field("null"));
        }
        let mut targets = HashSet::new();
        if let Some(twice) = self.target.iter().find(|target| !targets.insert(*target)) {
            return Err(Error::usage(format!("names '{twice}' twice")).field("target"));
        }
        match self.settings(&[], &[], seed) {
            // These may name columns.
            Err(e) if !matches!(e.field.as_deref(), Some("complexity" | "shape")) => Err(e),
            _ => Ok(()),
        }
    }
}

impl Fit {
    /// Checks every option and every column.
    ///
    /// # Errors
    /// Name file, field and row, or the option.
    pub fn new(mut table: Table, asked: Options, seed: u64) -> Result<Self> {
        asked.check(seed)?;
        if table.path.as_os_str().is_empty() {
            table.path = IN_MEMORY.into();
        }
        let rows = table.rows();
        let uneven = table.columns.iter().position(|column| column.len() != rows);
        if table.names.len() != table.columns.len() || uneven.is_some() {
            let message = "a table has a name for each column, and columns of equal length";
            return Err(Error::input(message).file(&table.path));
        }
        let mut ready = Columns::new(table, &asked)?;
        let Columns { table, options, inputs, .. } = &ready;
        let weights = options.weights.as_deref();
        let own_units = options.own_units()?;
        let problem =
            |target: &String| job::problem_of_table(table, target, inputs, weights, own_units);
        let problems: Result<Vec<Problem>> = options.target.iter().map(problem).collect();
        let mut problems = problems.map_err(|e| ready.with_original_name(e))?;
        let loss = if options.loss.trim() == "mse" { Loss::Mse } else { Loss::Mae };
        let errors =
            StandardErrors::new(&ready, inputs).map_err(|e| ready.with_original_name(e))?;
        let weights = errors.as_ref().map(|errors| errors.weights(&ready, loss)).transpose();
        let weights = weights.map_err(|e| ready.with_original_name(e))?;
        if weights.is_some() {
            problems.iter_mut().for_each(|problem| problem.weights.clone_from(&weights));
        }
        if let Some(template) = prepare::template(&problems[0], &ready)? {
            problems.iter_mut().for_each(|problem| problem.template = Some(template.clone()));
        }
        let table = std::mem::take(&mut ready.table);
        let names = &table.names;
        let options = &ready.options;
        // From here on nothing sees the held-out rows.
        if let Some(share) = options.validation.filter(|share| *share > 0.0) {
            problems.iter_mut().try_for_each(|problem| prepare::hold_out(problem, share, seed))?;
        }
        prepare::select_features(&mut problems, options, seed)?;
        let mut data = data(&table, &problems[0].names, options, seed)?;
        if let Some(weights) = weights {
            data.weights = Some(weights.into_iter().map(f64::from).collect());
        }
        let settings = options.settings(&problems[0].names, names, seed)?;
        let labels = options.target.iter().zip(&asked.target);
        for (problem, (target, label)) in problems.iter_mut().zip(labels) {
            if options.denoise {
                let Problem { columns, target, weights, .. } = &*problem;
                problem.target = denoised(columns, target, weights.as_deref(), seed);
                if let Some(OriginalData { target, units, .. }) = &mut problem.given {
                    let (zero, unit) = units.output;
                    *target = problem.target.iter().map(|&y| zero + unit * f64::from(y)).collect();
                }
            }
            prepare::groups_are_seen(problem)?;
            prepare::complete(problem, target, label, names, options)?;
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
        Ok(Fit { columns: ready, problems, data, errors, settings, refused, joint })
    }

    /// Searches. In a run folder the laws of other targets are kept, and with `true` the search continues from what is
    /// there.
    ///
    /// # Errors
    /// Those of the search; files that cannot be read or written.
    pub fn run(
        mut self,
        evaluator: &Evaluator,
        folder: Option<(&RunFolder, bool)>,
        observer: &dyn Observer,
    ) -> Result<Fitted> {
        let options = &self.columns.options;
        let (targets, select) = (options.target.clone(), options.select);
        let resume = folder.is_some_and(|(_, resume)| resume);
        let labels = Labels { targets, stage: "table", memory: MEMORY, resume, units: Vec::new() };
        let null = options.null.filter(|count| *count > 0);
        if let Some(errors) = &self.errors {
            let problem = &mut self.problems[0];
            errors.reweigh(evaluator, problem, &mut self.data, &self.settings, select, observer)?;
        }
        // Without what an earlier run found for the actual target.
        let begun = null.map(|count| (count, self.problems.clone()));
        if let Some((folder, true)) = folder
            // Without a memory the search had not reached its first save: from scratch it ends where it would have.
            && folder.file(MEMORY).exists()
            && options.template.is_none()
            && self.joint.is_none()
        {
            job::resume(&mut self.problems, &labels.targets, folder)?;
        }
        if self.refused > 0 {
            let message = "formulas of the earlier run break a limit of this one and are left out";
            observer.note(&format!("{} {message}", self.refused));
        }
        let composed = options.template.is_some() || self.joint.is_some() || options.pure_constants;
        if evaluator.is_gpu() && (composed || self.settings.row_loss.is_some()) {
            let message = "losses other than mae and mse, templates, --joint and --pure-constants are \
                           computed on the CPU";
            observer.note(message);
        }
        let (problems, settings) = (&self.problems, &self.settings);
        let earlier = |problems: &[Problem], labels: &Labels| match folder {
            Some((folder, _)) => Earlier::read(folder, problems, labels, settings),
            None => Ok(Earlier::default()),
        };
        let writer = folder.map(|(folder, _)| folder.observer(observer));
        let observer = writer.as_ref().map_or(observer, |writer| writer);
        let mut outcomes = match &self.joint {
            None => {
                let earlier = earlier(problems, &labels)?;
                job::run(evaluator, problems, &labels, settings, select, earlier, observer)?
            }
            Some(joined) => {
                let earlier = earlier(slice::from_ref(&joined.1), &joint::together(&labels))?;
                joint::run(
                    evaluator, problems, joined, &labels, settings, select, earlier, observer,
                )?
            }
        };
        let interrupted = outcomes.iter().any(|outcome| outcome.interrupted);
        let mut evidence = match interrupted {
            true => vec![None; outcomes.len()],
            false => self.evidence(&outcomes, select),
        };
        if let Some((count, problems)) = begun.filter(|_| !interrupted) {
            let again =
                RepeatableSearch { evaluator, problems, options, settings, labels: &labels };
            let nulls = again.null(count, select, &outcomes, observer)?;
            let whole = nulls.iter().flatten().all(|null| null.shuffled == count);
            outcomes.iter_mut().for_each(|outcome| outcome.interrupted |= !whole);
            for (evidence, null) in evidence.iter_mut().zip(nulls) {
                if let Some(evidence) = evidence {
                    evidence.null = null.filter(|null| null.shuffled > 0);
                }
            }
        }
        Ok(Fitted {
            outcomes,
            evidence,
            names: self.problems[0].names.clone(),
            targets: labels.targets,
            select,
            template: self.problems[0].template.clone(),
            refused: self.refused,
            columns: self.columns,
        })
    }

    /// The evidence for the law of each target that has one.
    fn evidence(&self, outcomes: &[Outcome], select: Select) -> Vec<Option<Evidence>> {
        let Fit { data, problems, settings, .. } = self;
        let evidence = |(outcome, target): (&Outcome, &Vec<f64>)| {
            let (front, names) = (&outcome.front, &problems[0].names);
            Some(Evidence::new(data, target, names, front, front.select(select)?, settings))
        };
        outcomes.iter().zip(&data.targets).map(evidence).collect()
    }
}

/// The numbers of a table by which formulas of `inputs` are judged.
fn data(table: &Table, inputs: &[String], options: &Options, seed: u64) -> Result<Data> {
    let column = |name: &String| table.column(name).map(<[f64]>::to_vec);
    let share = options.validation.filter(|share| *share > 0.0);
    Ok(Data {
        columns: inputs.iter().map(column).collect::<Result<_>>()?,
        targets: options.target.iter().map(column).collect::<Result<_>>()?,
        weights: options.weights.as_ref().map(column).transpose()?,
        held: share.map(|share| prepare::held_out(table.rows(), share, seed)).transpose()?,
    })
}
