//! The null hypothesis: the same search on targets that are shuffled relative to their inputs. How often does it find a
//! formula, no more complex than the law, that fits as well?

use serde::{Deserialize, Serialize};

use super::front::{Front, Select};
use super::job::{self, Earlier, Labels};
use super::joint;
use super::options::Options;
use super::prepare;
use super::refit::Measure;
use super::search::{Outcome, Problem, Settings};
use crate::error::Result;
use crate::observer::{Observer, Quiet};
use crate::ops::expression::Evaluator;
use crate::random::Random;

/// Results for shuffled targets.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Null {
    /// Number of shuffled targets.
    pub shuffled: u64,
    /// Number of those fitted as well as the law fits its target, relative to the loss of the best constant, by a
    /// formula no more complex than the law.
    pub as_well: u64,
}

impl Null {
    /// The result as a sentence.
    pub fn text(&self) -> String {
        let Null { shuffled, as_well } = self;
        let are = if *as_well == 1 { "is" } else { "are" };
        format!("{as_well} of {shuffled} shuffled targets {are} fitted as well")
    }
}

/// A search that can be repeated.
pub(super) struct RepeatableSearch<'a> {
    pub evaluator: &'a Evaluator,
    /// As the search received them.
    pub problems: Vec<Problem>,
    pub options: &'a Options,
    pub settings: &'a Settings,
    pub labels: &'a Labels,
}

impl RepeatableSearch<'_> {
    /// Shuffles and searches `count` times, and compares with the laws of `outcomes`; one result for each outcome with
    /// a law. Fewer times if the observer stops it.
    ///
    /// # Errors
    /// Those of the search.
    pub fn null(
        &self,
        count: u64,
        select: Select,
        outcomes: &[Outcome],
        observer: &dyn Observer,
    ) -> Result<Vec<Option<Null>>> {
        let measure = Measure::new(self.settings);
        let law = |(outcome, problem): (&Outcome, &Problem)| {
            let entry = &outcome.front.entries[outcome.front.select(select)?];
            Some((entry.complexity, entry.loss / spread(problem, &measure)))
        };
        let laws: Vec<Option<(u32, f64)>> = outcomes.iter().zip(&self.problems).map(law).collect();
        let mut found = laws
            .iter()
            .map(|law| law.map(|_| Null { shuffled: 0, as_well: 0 }))
            .collect::<Vec<_>>();
        let bar = observer.bar("null", count, "shuffled targets", 0);
        for index in 0..count {
            let problems = self.shuffled(index);
            let outcomes = self.search(&problems, select, &Quiet(observer))?;
            if observer.stop() {
                break;
            }
            for (((null, law), outcome), problem) in
                found.iter_mut().zip(&laws).zip(&outcomes).zip(&problems)
            {
                if let (Some(null), Some((complexity, loss))) = (null, law) {
                    null.shuffled += 1;
                    let reached = best(&outcome.front, *complexity) / spread(problem, &measure);
                    null.as_well += u64::from(reached <= *loss);
                }
            }
            bar.add(1);
        }
        Ok(found)
    }

    /// The problems with their targets in another order, the same for all of them; rows of weight zero stay.
    fn shuffled(&self, index: u64) -> Vec<Problem> {
        let mut problems = self.problems.clone();
        let Problem { weights, target, .. } = &self.problems[0];
        let has_weight = |row: &usize| weights.as_ref().is_none_or(|weights| weights[*row] > 0.0);
        let rows: Vec<usize> = (0..target.len()).filter(has_weight).collect();
        let mut order = rows.clone();
        let mut random = Random::new(self.settings.seed, (10 << 40) + index);
        for at in 1..order.len() {
            order.swap(at, random.below(at + 1));
        }
        for (problem, before) in problems.iter_mut().zip(&self.problems) {
            for (&to, &from) in rows.iter().zip(&order) {
                problem.target[to] = before.target[from];
                if let (Some(given), Some(before)) = (&mut problem.given, &before.given) {
                    given.target[to] = before.target[from];
                }
            }
        }
        problems
    }

    fn search(
        &self,
        problems: &[Problem],
        select: Select,
        observer: &dyn Observer,
    ) -> Result<Vec<Outcome>> {
        let RepeatableSearch { evaluator, options, settings, labels, .. } = self;
        let labels = Labels { resume: false, ..(*labels).clone() };
        let earlier = Earlier::default();
        match prepare::joined(problems, options)? {
            None => job::run(evaluator, problems, &labels, settings, select, earlier, observer),
            Some(joined) => joint::run(
                evaluator, problems, &joined, &labels, settings, select, earlier, observer,
            ),
        }
    }
}

/// The smallest loss of formulas up to this complexity.
fn best(front: &Front, complexity: u32) -> f64 {
    let entries = front.entries.iter().filter(|entry| entry.complexity <= complexity);
    entries.map(|entry| entry.loss).fold(f64::INFINITY, f64::min)
}

/// The loss of the best constant.
fn spread(problem: &Problem, measure: &Measure) -> f64 {
    let target: Vec<f64> = problem.target.iter().map(|&y| f64::from(y)).collect();
    let weight = |row: usize| problem.weights.as_ref().map_or(1.0, |w| f64::from(w[row]));
    let rows: Vec<usize> = (0..target.len()).filter(|&row| weight(row) > 0.0).collect();
    let constant = measure.constant(&target, weight, &rows);
    measure.mean(rows.iter().map(|&row| (constant, target[row], weight(row))))
}
