//! The regression stages of a run: an expression for each kept message, then for each output of φv.

use super::messages::Table;
use super::run::{Compute, Run};
use super::summary::{LawSummary, Summary};
use crate::error::{Error, Result};
use crate::formula::expression::Expression;
use crate::network::settings::Preset;
use crate::ops::expression::Evaluator;
use crate::store::run::RunFolder;
use crate::symbolic::front::{Entry, Front, Select};
use crate::symbolic::job::{self, Labels, MEMORY};
use crate::symbolic::joint::{self, Joint};
use crate::symbolic::search::{Outcome, Problem, Settings};

/// Stages in `laws.json`: the laws of the kept messages, …
pub(crate) const MESSAGE: &str = "message";
/// … and of the outputs of φv in a node's own variables and the summed messages.
pub(crate) const NODE: &str = "node";

/// How to search for the laws of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Search<'a> {
    /// Candidates that are considered for each target.
    pub evaluations: u64,
    /// The rule that chooses from a Pareto front.
    pub select: Select,
    /// True to keep what an interrupted search of the same messages left in the folder.
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

/// What a search found for one target.
pub struct Found {
    /// The chosen law.
    pub chosen: Entry,
    /// All that are worth having.
    pub front: Front,
}

/// Searches a law for each problem, or for all that are `joined`, with `hall_of_fame.csv` live, into
/// `laws.json`.
pub(super) fn search(
    at: Compute,
    folder: &RunFolder,
    how: Search,
    labels: Labels,
    mut problems: Vec<Problem>,
    joined: Option<(Joint, Problem)>,
) -> Result<Vec<Found>> {
    let Search { evaluations, select, resume, .. } = how;
    // What a joint search remembers knows of which search it is, laws and formulas do not.
    if resume && joined.is_none() {
        if let Some(found) = finished(folder, &labels, &problems)? {
            return Ok(found);
        }
        job::resume(&mut problems, &labels.targets, folder)?;
    }
    let settings =
        Settings { evaluations: Some(evaluations), seed: at.seed, ..Settings::default() };
    let evaluator = &Evaluator::new(&at.device);
    let progress = at.progress;
    let outcomes = match &joined {
        None => job::run(evaluator, &problems, &labels, &settings, select, folder, progress)?,
        Some(joined) => {
            let settings = &settings;
            joint::run(evaluator, &problems, joined, &labels, settings, select, folder, progress)?
        }
    };
    if outcomes.iter().any(|outcome| outcome.interrupted) {
        // In laws.json they would pass for those of a search that had ended.
        let mut laws = job::read_laws(folder)?;
        laws.retain(|law| law["stage"] != labels.stage);
        job::write_laws(folder, &laws)?;
        let path = folder.path().display();
        return Err(Error::interrupted(format!(
            "stopped while searching for laws; what was found is in {path}, --resume goes on from there"
        )));
    }
    let found = |outcome: Outcome| {
        let front = outcome.front;
        let mut chosen = front.entries[front.select(select)?].clone();
        // As the file has it, which a resumed run goes on from.
        chosen.expression = chosen.expression.readable();
        Some(Found { chosen, front })
    };
    let none = || {
        Error::input("the search found no expression that is valid on all rows")
            .file(folder.file(job::HALL_OF_FAME))
    };
    outcomes.into_iter().map(|outcome| found(outcome).ok_or_else(none)).collect()
}

/// What a search found that had ended; `None` where it had not.
fn finished(
    folder: &RunFolder,
    labels: &Labels,
    problems: &[Problem],
) -> Result<Option<Vec<Found>>> {
    let laws = job::read_laws(folder)?;
    let mut all = Vec::new();
    for (target, problem) in labels.targets.iter().zip(problems) {
        let names: Vec<&str> = problem.names.iter().map(String::as_str).collect();
        let is = |law: &&serde_json::Value| {
            law["stage"] == labels.stage && law["target"] == target.as_str()
        };
        let entry = |law: &serde_json::Value| {
            let expression = Expression::parse(law["equation"].as_str()?, &names).ok()?;
            let complexity = law["complexity"].as_u64()? as u32;
            Some(Entry { complexity, loss: law["loss"].as_f64()?, score: 0.0, expression })
        };
        let Some(chosen) = laws.iter().find(is).and_then(entry) else { return Ok(None) };
        all.push(Found { chosen, front: read_front(folder, target, &problem.names)? });
    }
    Ok(Some(all))
}

/// The front of a target in `hall_of_fame.csv`, in the variables `names`.
///
/// # Errors
/// A file without it.
pub fn read_front(folder: &RunFolder, target: &str, names: &[String]) -> Result<Front> {
    let path = folder.file(job::HALL_OF_FAME);
    let bad = |e: csv::Error| Error::input(format!("is no hall of fame: {e}")).file(&path);
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
        let message = format!("has no law of {target}: run `lawsmith regress` on the folder first");
        return Err(Error::input(message).file(&path));
    }
    let front = Front::new(entries);
    if front.entries.is_empty() {
        return Err(Error::input("holds no losses that are numbers").file(&path).field("loss"));
    }
    Ok(front)
}

/// `regress`: searches a law for each kept message of a run.
///
/// # Errors
/// Files of the run that cannot be read; `interrupted`.
pub fn regress(at: Compute, run: &Run, how: Search) -> Result<Summary> {
    let Run { folder, physics } = run;
    let table = Table::read(folder)?;
    let problems = table.problems(&**physics, at.seed)?;
    if !how.joint.is_empty() && problems.iter().any(|problem| problem.weights.is_some()) {
        let message = "does not apply to messages on a graph, each of which has inputs of its own";
        return Err(Error::usage(message).field("--joint"));
    }
    let joint = (!how.joint.is_empty()).then(|| Joint::new(&problems, how.joint)).transpose()?;
    // Only a joint search leaves a memory: without one where it should be, the other kind was interrupted.
    let resume = how.resume && folder.file(MEMORY).exists() == joint.is_some();
    // Laws of earlier messages, of φv and of the composed formula do not outlive new messages.
    for name in [job::LAWS, job::HALL_OF_FAME, MEMORY] {
        let path = folder.file(name);
        if path.exists() && !resume {
            std::fs::remove_file(&path).map_err(|e| Error::io("remove", &path, e))?;
        }
    }
    let targets = table.kept.iter().map(|c| physics.label(c.index)).collect();
    // Formulas do not say all about a joint search, what it remembers does.
    let memory = joint.is_some().then_some(MEMORY);
    let labels = Labels { targets, stage: MESSAGE, memory };
    let found = search(at, folder, Search { resume, ..how }, labels, problems.clone(), joint)?;
    let mut summary = Summary::read(folder)?;
    for ((component, found), problem) in summary.components.iter_mut().zip(found).zip(&problems) {
        let law = found.chosen;
        component.law = Some(LawSummary::of(&law, &problem.names));
        component.verdict = physics.verdict(&law.expression, problem, at.seed);
        component.recovered = component.verdict.as_ref().map(|verdict| verdict.recovered);
    }
    summary.write(folder)?;
    Ok(summary)
}
