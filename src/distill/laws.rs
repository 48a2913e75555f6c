//! The regression stages: an expression for each kept message, then for each output of φv.

use std::slice;

use super::formula::Terms;
use super::messages::Table;
use super::run::{Compute, Run};
use super::summary::{LawSummary, Summary};
use crate::error::{Error, Result};
use crate::formula::expression::{Expression, Weights};
use crate::network::settings::Preset;
use crate::ops::expression::Evaluator;
use crate::options;
use crate::store::run::RunFolder;
use crate::symbolic::front::{Entry, Front, Select};
use crate::symbolic::job::{self, Earlier, Labels, MEMORY, NODE_MEMORY};
use crate::symbolic::joint::{self, Joint};
use crate::symbolic::search::{Outcome, Problem, Settings};

/// Stages in `laws.json`: the laws of the kept messages, …
pub(crate) const MESSAGE: &str = "message";
/// … and of the outputs of φv in a node's own variables and the summed messages.
pub(crate) const NODE: &str = "node";

options! {
    /// How laws are searched for and chosen.
    pub struct LawOptions {
        /// Rule that chooses a law from the Pareto front
        select: Select = Select::Best;
        /// Formulas to consider for each law [default: depends on the preset]
        evaluations: Option<u64> = None => [.value("N")];
    }
}

/// How to search for the laws of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Search<'a> {
    /// Candidates considered for each target.
    pub evaluations: u64,
    /// The rule that chooses from a Pareto front.
    pub select: Select,
    /// True to continue from the saved state of an interrupted search of the same messages.
    pub resume: bool,
    /// If not empty, names a vector among the inputs; then all messages have one factor in common, see
    /// [`Joint`].
    pub joint: &'a [String],
}

impl Default for Search<'_> {
    /// As many candidates as the preset `quick`, with the rule `best`.
    fn default() -> Self {
        Search::new(Preset::Quick, LawOptions::default())
    }
}

impl Search<'_> {
    /// As many candidates as given in the options, otherwise by `preset`.
    pub fn new(preset: Preset, LawOptions { select, evaluations }: LawOptions) -> Self {
        let of_preset = match preset {
            Preset::Quick => 400_000,
            Preset::Standard => 1_500_000,
            Preset::Paper => 5_000_000,
        };
        Search { evaluations: evaluations.unwrap_or(of_preset), select, resume: false, joint: &[] }
    }
}

/// What a search found for one target.
#[derive(Clone, Debug)]
pub struct Found {
    /// The chosen law.
    pub chosen: Entry,
    /// The Pareto front.
    pub front: Front,
}

impl Found {
    /// A given law, as the only choice.
    pub fn only(law: Expression) -> Self {
        let complexity = law.complexity(&Weights::default());
        let chosen = Entry { complexity, loss: f64::NAN, score: 0.0, expression: law };
        let front = Front { entries: vec![chosen.clone()], ..Front::default() };
        Found { chosen, front }
    }

    /// A front, from which the rule `select` chooses; `None` if it is empty.
    pub fn of(front: Front, select: Select) -> Option<Self> {
        let chosen = front.entries[front.select(select)?].clone();
        Some(Found { chosen, front })
    }
}

/// [`search_varying`] for problems whose target varies; the law of the others is a constant.
#[expect(clippy::too_many_arguments, reason = "what is searched, how, and where it is kept")]
pub(super) fn search(
    at: Compute,
    folder: Option<&RunFolder>,
    terms: &Terms,
    how: Search,
    stage: &'static str,
    targets: Vec<String>,
    problems: Vec<Problem>,
    joined: Option<(Joint, Problem)>,
) -> Result<Vec<Found>> {
    let varies = |problem: &Problem| problem.target.iter().any(|y| *y != problem.target[0]);
    let all = || targets.iter().cloned().zip(problems.iter().cloned());
    if problems.iter().all(varies) {
        return search_varying(at, folder, terms, how, stage, targets, problems, joined);
    }
    let (labels, searched) = all().filter(|(_, problem)| varies(problem)).unzip();
    let searched: Vec<Problem> = searched;
    let mut found = match searched.is_empty() {
        true => Vec::new(),
        false => search_varying(at, folder, terms, how, stage, labels, searched, None)?,
    }
    .into_iter();
    let mut laws = folder.map(job::read_laws).transpose()?.unwrap_or_default();
    let mut every = Vec::new();
    for (target, problem) in all() {
        if varies(&problem) {
            every.extend(found.next());
            continue;
        }
        let expression = Expression::constant(f64::from(problem.target[0]));
        let chosen = Entry { complexity: 1, loss: 0.0, score: 0.0, expression };
        let units = terms.units(&problem.names);
        laws.retain(|law| law["target"] != target.as_str());
        let (names, rule) = (&problem.names, how.select.name());
        laws.push(job::law_in(units.as_ref(), &target, stage, &chosen, names, rule));
        every.push(Found { front: Front::new(vec![(1, 0.0, chosen.expression.clone())]), chosen });
    }
    if let Some(folder) = folder {
        job::keep_laws(&folder.observer(&()), &laws)?;
    }
    Ok(every)
}

/// Searches for a law for each problem, or for all `joined` ones together. In a run's folder it continues from what is
/// there, updates `hall_of_fame.csv` as it goes, and writes `laws.json`.
#[expect(clippy::too_many_arguments, reason = "what is searched, how, and where it is kept")]
fn search_varying(
    at: Compute,
    folder: Option<&RunFolder>,
    terms: &Terms,
    how: Search,
    stage: &'static str,
    targets: Vec<String>,
    problems: Vec<Problem>,
    joined: Option<(Joint, Problem)>,
) -> Result<Vec<Found>> {
    let Search { evaluations, select, .. } = how;
    let settings =
        Settings { evaluations: Some(evaluations), seed: at.seed, ..Settings::default() };
    let searched = joined.as_ref().map_or(&problems[..], |(_, one)| slice::from_ref(one));
    let memory = if stage == MESSAGE { MEMORY } else { NODE_MEMORY };
    let mut labels = Labels { targets, stage, memory, resume: false, units: Vec::new() };
    let mut earlier = Earlier::default();
    if let Some(folder) = folder {
        let remembers = || job::remembers(&folder.file(memory), searched, &settings);
        labels.resume = how.resume && remembers()?;
        if stage == MESSAGE && !labels.resume {
            // New messages make the laws of earlier ones, of φv and of the composed formula invalid.
            for name in [job::LAWS, job::HALL_OF_FAME, MEMORY, NODE_MEMORY] {
                folder.remove(name)?;
            }
        }
        let written = joined.as_ref().map(|_| joint::together(&labels));
        earlier = Earlier::read(folder, searched, written.as_ref().unwrap_or(&labels), &settings)?;
    }
    let units = problems.iter().filter_map(|problem| terms.units(&problem.names)).collect();
    let labels = Labels { units, ..labels };
    let rest = job::other_laws(earlier.laws_but(stage), &labels.targets);
    let (evaluator, settings) = (&Evaluator::new(&at.device), &settings);
    let writer = folder.map(|folder| folder.observer(at.observer));
    let observer = writer.as_ref().map_or(at.observer, |writer| writer);
    let outcomes = match &joined {
        None => job::run(evaluator, &problems, &labels, settings, select, earlier, observer)?,
        Some(joined) => {
            joint::run(evaluator, &problems, joined, &labels, settings, select, earlier, observer)?
        }
    };
    if outcomes.iter().any(|outcome| outcome.interrupted) {
        // In laws.json they would look like those of a finished search.
        job::keep_laws(observer, &rest)?;
        let place = folder.map_or(String::new(), |folder| {
            let path = folder.path().display();
            format!("; what was found is in {path}, --resume continues from there")
        });
        return Err(Error::interrupted(format!("stopped while searching for laws{place}")));
    }
    let found = |outcome: Outcome| {
        let front = outcome.front;
        let mut chosen = front.entries[front.select(select)?].clone();
        // As in the file, from which a resumed run continues.
        chosen.expression = chosen.expression.readable();
        Some(Found { chosen, front })
    };
    let none = || {
        let error = Error::input("the search found no expression that is valid on all rows");
        match folder {
            Some(folder) => error.file(folder.file(job::HALL_OF_FAME)),
            None => error,
        }
    };
    outcomes.into_iter().map(|outcome| found(outcome).ok_or_else(none)).collect()
}

/// The front of a target in `hall_of_fame.csv`, in the variables `names`.
///
/// # Errors
/// A file without this target.
pub fn read_front(folder: &RunFolder, target: &str, names: &[String]) -> Result<Front> {
    let path = folder.file(job::HALL_OF_FAME);
    let bad = |e: csv::Error| Error::input(format!("is not a hall of fame: {e}")).file(&path);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut entries = Vec::new();
    let reader = path.exists().then(|| csv::Reader::from_path(&path)).transpose().map_err(bad)?;
    for record in reader.into_iter().flat_map(csv::Reader::into_records) {
        let record = record.map_err(bad)?;
        if record.get(0) == Some(target) {
            let number = |k: usize| record.get(k).and_then(|v| v.parse::<f64>().ok());
            let expression = Expression::parse(record.get(4).unwrap_or_default(), &names)
                .map_err(|e| Error::input(e.message).file(&path).field("equation"))?;
            let (complexity, loss) = (number(1).unwrap_or(0.0), number(2).unwrap_or(f64::NAN));
            entries.push((complexity as u32, loss, expression));
        }
    }
    if entries.is_empty() {
        let message =
            format!("has no law for {target}: run `lawsmith regress` on the folder first");
        return Err(Error::input(message).file(&path));
    }
    let front = Front::new(entries);
    if front.entries.is_empty() {
        return Err(Error::input("contains no loss that is a number").file(&path).field("loss"));
    }
    Ok(front)
}

/// `regress`: searches for a law for each kept message of a run.
///
/// # Errors
/// Files of the run that cannot be read; `interrupted`.
pub fn regress(at: Compute, run: &Run, how: Search) -> Result<Summary> {
    let Run { folder, physics } = run;
    let table = Table::read(folder)?;
    let problems = table.problems(&**physics, at.seed)?;
    let apart = |pair: &[Problem]| pair[0].columns != pair[1].columns;
    if !how.joint.is_empty() && problems.windows(2).any(apart) {
        let message = "does not apply to messages on a graph, where each has its own inputs";
        return Err(Error::usage(message).field("--joint"));
    }
    let joint = (!how.joint.is_empty()).then(|| Joint::new(&problems, how.joint)).transpose()?;
    let targets = table.kept.iter().map(|c| physics.label(c.index)).collect();
    let terms = physics.terms();
    let found = search(at, Some(folder), &terms, how, MESSAGE, targets, problems.clone(), joint)?;
    let mut summary = Summary::read(folder)?;
    for ((component, found), problem) in summary.components.iter_mut().zip(found).zip(&problems) {
        let law = found.chosen;
        let units = physics.terms().units(&problem.names);
        component.law = Some(LawSummary::of(&law, &problem.names, units.as_ref()));
        component.verdict = physics.verdict(&law.expression, problem, at.seed);
        component.recovered = component.verdict.as_ref().map(|verdict| verdict.recovered);
    }
    summary.write(folder)?;
    Ok(summary)
}
