//! The search: islands for many problems at once, evolving on their own between synchronisations.
//!
//! Until the next synchronisation every island of a problem works on the same few rows (new ones each time, so that
//! nothing fits their noise for long). At a synchronisation the best of each complexity are fitted on all rows and
//! enter the hall of fame, and members migrate: from the hall of fame and between islands. Random numbers belong to
//! islands and epochs, so the result depends on the seed and the number of epochs, never on threads.

use std::time::{Duration, Instant};

use rayon::prelude::*;

use super::finish::Finished;
use super::front::Front;
use super::given::OriginalData;
use super::island::{BATCH, POPULATION};
pub use super::rules::{check, losses};
pub use super::settings::Settings;
use super::state::{Memory, State};
use super::template::Template;
use crate::error::{Error, Result};
use crate::formula::expression::Expression;
use crate::formula::units::Units;
use crate::observer::Observer;
use crate::ops::expression::{Evaluator, side_by_side};

/// Batches per island between two synchronisations.
const BATCHES: usize = 32;
/// Share of the time that the enumeration may take before the search starts.
const PLANTING: f64 = 0.4;

/// One table and its target.
#[derive(Clone, Debug, Default)]
pub struct Problem {
    /// Names of the columns.
    pub names: Vec<String>,
    /// `[column][row]`
    pub columns: Vec<Vec<f32>>,
    /// `[row]`
    pub target: Vec<f32>,
    /// `[row]`, 0 or more.
    pub weights: Option<Vec<f32>>,
    /// Expressions to start from, from an earlier search or a guess; with a template, its parts as one tree.
    pub seeds: Vec<Expression>,
    /// The form of the formulas; its parts are searched for.
    pub template: Option<Template>,
    /// The units in which formulas must make sense.
    pub units: Option<Units>,
    /// The same rows as the user gave them, if they hold more than columns and target do.
    pub given: Option<OriginalData>,
    /// Rows that the search does not see: their losses choose the law.
    pub rest: Option<Box<Problem>>,
}

/// The result for one problem.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Best expression of each complexity.
    pub front: Front,
    /// The best `keep` of each complexity, on the front or not: complexity, loss, formula.
    pub kept: Vec<(u32, f64, Expression)>,
    /// With a template, the parts of each entry of the front, in the order of [`Template::parts`].
    pub parts: Vec<Vec<Expression>>,
    /// Candidates considered.
    pub evaluations: u64,
    /// Nodes × rows executed, with each pass over a table counted once (gradients not extra).
    pub node_evaluations: u64,
    /// Since the start of the whole job.
    pub seconds: f64,
    /// True if the observer stopped the search.
    pub interrupted: bool,
}

/// The memories of the searches of several problems, read from what [`Moment::memory`] wrote.
pub struct Memories(Vec<Memory>);

impl Memories {
    /// Reads them.
    ///
    /// # Errors
    /// Bytes that are not such memories.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let damaged = |_| Error::input("is damaged: --overwrite starts again");
        serde_json::from_slice(bytes).map(Memories).map_err(damaged)
    }

    /// Candidates considered, for all problems.
    pub fn evaluations(&self) -> u64 {
        self.0.iter().map(Memory::evaluations).sum()
    }
}

/// The state shown at a synchronisation.
pub struct Moment<'a> {
    /// The front of each problem.
    pub fronts: &'a [Front],
    /// Candidates considered so far, for all problems.
    pub evaluations: u64,
    /// True if every island completed its epoch: a search can continue from here.
    pub whole: bool,
    states: &'a [State<'a>],
}

impl Moment<'_> {
    /// The bytes from which [`search`] can continue.
    pub fn memory(&self) -> Vec<u8> {
        let memories: Vec<&Memory> = self.states.iter().map(|s| &s.memory).collect();
        serde_json::to_vec(&memories).expect("plain data")
    }
}

/// Searches all `problems` as one job; `seen` is shown every synchronisation. With the `memory` of an earlier search of
/// the same problems with the same settings it continues from there, to the same end.
///
/// Ends at the first limit reached (without one, only when `observer` stops it), and in any case with the fronts found
/// so far.
///
/// # Errors
/// A problem without rows or columns, with lengths that disagree or values that are not finite, or with a constant
/// target; settings without operators; a memory of other problems.
pub fn search(
    evaluator: &Evaluator,
    problems: &[Problem],
    settings: &Settings,
    memory: Option<Memories>,
    observer: &dyn Observer,
    seen: &mut dyn FnMut(&Moment),
) -> Result<Vec<Outcome>> {
    let begun = Instant::now();
    if settings.islands == 0 {
        return Err(Error::usage("at least one island is needed"));
    }
    let deadline = settings.seconds.map(|s| begun + Duration::from_secs_f64(s.clamp(0.0, 1e9)));
    let stopped = || observer.stop() || deadline.is_some_and(|d| Instant::now() >= d);
    let mut states: Vec<State> = problems
        .iter()
        .enumerate()
        .map(|(index, problem)| State::new(index as u64, problem, settings))
        .collect::<Result<_>>()?;
    match memory {
        Some(memory) => {
            if memory.0.len() != states.len() {
                return Err(Error::input("the memory belongs to another search"));
            }
            for (state, memory) in states.iter_mut().zip(memory.0) {
                state.memory = memory;
                // The limits may have changed.
                state.memory.done = state.finished();
            }
        }
        None => {
            for state in &mut states {
                state.begin(evaluator, &stopped)?;
            }
            tell(&states, false, seen);
            let planting = settings.seconds.map(|s| (PLANTING * s).clamp(0.0, 1e9));
            for (index, state) in states.iter_mut().enumerate() {
                let share = (index + 1) as f64 / problems.len() as f64;
                let until = planting.map(|s| begun + Duration::from_secs_f64(share * s));
                let late = || observer.stop() || until.is_some_and(|until| Instant::now() >= until);
                state.plant(evaluator, &late)?;
            }
            tell(&states, !stopped(), seen);
        }
    }
    loop {
        let used = states.iter().filter(|s| !s.memory.done).map(State::evaluations).max();
        let (population, batches) = match settings.evaluations {
            None => (POPULATION, BATCHES),
            Some(limit) => {
                let left = limit.saturating_sub(used.unwrap_or(limit));
                let islands = settings.islands as u64;
                let population = left.div_ceil(islands).min(POPULATION as u64);
                let fresh = states.iter().any(|s| s.memory.epochs == 0);
                let first = if fresh { population * islands } else { 0 };
                let each = left.saturating_sub(first).div_ceil(islands * BATCH as u64);
                (population as usize, each.min(BATCHES as u64) as usize)
            }
        };
        if population == 0 || stopped() || states.iter().all(|s| s.memory.done) {
            break;
        }
        let share = match (settings.evaluations, settings.seconds) {
            (Some(limit), _) => used.unwrap_or(limit) as f64 / limit.max(1) as f64,
            (None, Some(seconds)) => begun.elapsed().as_secs_f64() / seconds,
            (None, None) => 1.0,
        };
        let work: Vec<&mut State> = states.iter_mut().filter(|s| !s.memory.done).collect();
        let limit = settings.limit(share);
        let size = (population, batches);
        let epoch = |(state, evaluator): (&mut State, Evaluator)| {
            state.epoch(&evaluator, limit, size, deadline, observer)
        };
        // All get a seat before the first starts.
        let seated = |state: &State| state.rules.evaluator(evaluator).seated();
        let seats: Vec<Evaluator> = work.iter().map(|state| seated(state)).collect();
        let work: Vec<(&mut State, Evaluator)> = work.into_iter().zip(seats).collect();
        if evaluator.is_gpu() {
            side_by_side(work, epoch).into_iter().collect::<Result<()>>()?;
        } else {
            work.into_par_iter().try_for_each(epoch)?;
        }
        tell(&states, !stopped(), seen);
    }
    let interrupted = observer.stop();
    let halls: Vec<Finished> =
        states.par_iter().map(|state| state.finished_hall(interrupted)).collect();
    let seconds = begun.elapsed().as_secs_f64();
    let outcome = |(state, hall): (&State, Finished)| Outcome {
        front: hall.front,
        kept: hall.kept,
        parts: hall.parts,
        evaluations: state.evaluations(),
        node_evaluations: state.memory.node_evaluations
            + state.memory.islands.iter().map(|i| i.node_evaluations).sum::<u64>(),
        seconds,
        interrupted,
    };
    let mut outcomes: Vec<Outcome> = states.iter().zip(halls).map(outcome).collect();
    for (outcome, problem) in outcomes.iter_mut().zip(problems) {
        if let Some(rest) = &problem.rest {
            let entries = outcome.front.entries.iter();
            let formulas: Vec<Expression> = entries.map(|e| e.expression.clone()).collect();
            outcome.front.validation = losses(rest, settings, &formulas)?;
        }
    }
    Ok(outcomes)
}

/// Shows the state of all searches to `seen`.
fn tell(states: &[State], whole: bool, seen: &mut dyn FnMut(&Moment)) {
    let fronts: Vec<Front> = states.iter().map(State::front).collect();
    let evaluations = states.iter().map(State::evaluations).sum();
    seen(&Moment { fronts: &fronts, evaluations, whole, states });
}

#[cfg(test)]
#[path = "search_tests.rs"]
mod tests;
