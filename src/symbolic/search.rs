//! The search: islands of many problems at once, evolving on their own between synchronisations.
//!
//! Until the next synchronisation every island of a problem works on the same few rows (new ones each
//! time, so that nothing fits their noise for long). At a synchronisation the best of each complexity
//! are fitted on all rows and enter the hall of fame, and members migrate: from the hall of fame and
//! between islands. Random numbers belong to islands and epochs, so the result depends on the seed
//! and on how many epochs were run, never on threads.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use rayon::prelude::*;

use super::expression::{Expression, Op, Weights};
use super::front::Front;
use super::island::{BATCH, Island, Member, Task, structure};
use super::mutate::Grammar;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::ops::expression::{self as op, Fit, Loss, Program, Rows};
use crate::random::Random;

/// Rows that a problem's islands see between two synchronisations.
const ROWS: usize = 512;
/// Batches of an island between two synchronisations.
const BATCHES: usize = 32;
/// Members of an island that the hall of fame replaces at a synchronisation.
const REINJECTED: usize = 3;
/// Epochs after which a structure may be fitted on all rows again: another start may do better.
const FORGET_EVERY: u64 = 12;
/// Values of each variable from which thresholds are drawn.
const SAMPLES: usize = 64;

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
    /// Expressions to begin with, from an earlier search or a guess.
    pub seeds: Vec<Expression>,
}

/// How to search.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// What expressions are made of.
    pub operators: Vec<Op>,
    /// Complexity of each kind of node.
    pub weights: Weights,
    /// What is minimised.
    pub loss: Loss,
    /// No formula is longer.
    pub max_complexity: u32,
    /// Stop after so many candidates of each problem.
    pub evaluations: Option<u64>,
    /// Stop after so many seconds in all.
    pub seconds: Option<f64>,
    /// A problem is finished where its smallest loss is at most this.
    pub target_loss: Option<f64>,
    /// Islands of each problem.
    pub islands: usize,
    /// Seed of everything random.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        let operators = [Op::Add, Op::Sub, Op::Mul, Op::Div, Op::Pow, Op::Exp, Op::Log];
        Settings {
            operators: [&operators[..], &[Op::Greater, Op::Less, Op::If]].concat(),
            weights: Weights::default(),
            loss: Loss::Mae,
            max_complexity: 30,
            evaluations: None,
            seconds: None,
            target_loss: None,
            islands: 8,
            seed: 0,
        }
    }
}

impl Settings {
    /// True where + and · are there to write a scale and an offset.
    pub(super) fn scaled(&self) -> bool {
        self.operators.contains(&Op::Add) && self.operators.contains(&Op::Mul)
    }
}

/// What came out for one problem.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Best expression of each complexity.
    pub front: Front,
    /// Candidates considered.
    pub evaluations: u64,
    /// Nodes × rows executed, each pass over a table counted once (gradients not extra).
    pub node_evaluations: u64,
    /// From the start of the whole job.
    pub seconds: f64,
}

struct Famous {
    loss: f64,
    expression: Expression,
    member: Member,
}

/// One problem in work.
struct State<'a> {
    problem: &'a Problem,
    rows: Rows,
    grammar: Grammar,
    islands: Vec<Island>,
    hall: BTreeMap<u32, Famous>,
    /// Structures that were fitted on all rows of late.
    tried: HashSet<u64>,
    epochs: u64,
    /// Members of each complexity, fading.
    counts: Vec<f64>,
    node_evaluations: u64,
    random: Random,
    done: bool,
}

/// Searches all `problems` as one job; `observer` sees the fronts and the number of candidates
/// considered so far at every synchronisation.
///
/// Ends at the first limit that is met (with none, only at Ctrl-C), and in any case with the fronts
/// found so far.
///
/// # Errors
/// A problem without rows or columns, with lengths that disagree or values that are not finite, or
/// with a constant target; settings without operators.
pub fn search(
    device: &Device,
    problems: &[Problem],
    settings: &Settings,
    observer: &mut dyn FnMut(&[Front], u64),
) -> Result<Vec<Outcome>> {
    let begun = Instant::now();
    if settings.operators.is_empty() || settings.islands == 0 {
        return Err(Error::usage("at least one operator and one island are needed"));
    }
    let deadline = settings.seconds.map(|s| begun + Duration::from_secs_f64(s.clamp(0.0, 1e9)));
    let mut states: Vec<State> = problems
        .iter()
        .enumerate()
        .map(|(index, problem)| State::new(index as u64, problem, settings))
        .collect::<Result<_>>()?;
    for state in &mut states {
        state.plant(device, settings)?;
    }
    loop {
        let batches = match settings.evaluations {
            None => BATCHES,
            Some(limit) => {
                let used = states.iter().filter(|s| !s.done).map(State::evaluations).max();
                let left = limit.saturating_sub(used.unwrap_or(limit));
                let each = left.div_ceil((settings.islands * BATCH) as u64);
                BATCHES.min(each as usize)
            }
        };
        let late = deadline.is_some_and(|d| Instant::now() >= d);
        if batches == 0 || late || crate::interrupt::requested() || states.iter().all(|s| s.done) {
            break;
        }
        let work = states.par_iter_mut().filter(|s| !s.done);
        work.try_for_each(|state| state.epoch(device, settings, batches, deadline))?;
        let fronts: Vec<Front> = states.iter().map(State::front).collect();
        observer(&fronts, states.iter().map(State::evaluations).sum());
    }
    let seconds = begun.elapsed().as_secs_f64();
    let outcome = |state: &State| Outcome {
        front: state.front(),
        evaluations: state.evaluations(),
        node_evaluations: state.node_evaluations
            + state.islands.iter().map(|i| i.node_evaluations).sum::<u64>(),
        seconds,
    };
    Ok(states.iter().map(outcome).collect())
}

impl<'a> State<'a> {
    fn new(index: u64, problem: &'a Problem, settings: &Settings) -> Result<Self> {
        if problem.columns.is_empty() {
            return Err(Error::input("there are no input columns"));
        }
        let rows = Rows::new(&problem.columns, &problem.target, problem.weights.as_deref())?;
        if problem.target.iter().all(|y| *y == problem.target[0]) {
            let message = format!("is {} in every row: there is no law to find", problem.target[0]);
            return Err(Error::input(message));
        }
        let mut random = Random::new(settings.seed, index << 32);
        let samples = problem
            .columns
            .iter()
            .map(|column| (0..SAMPLES).map(|_| column[random.below(column.len())]).collect());
        let grammar = Grammar::new(&settings.operators, &settings.weights, samples.collect());
        let stream = |island: usize| (index << 32) + 1 + island as u64;
        Ok(State {
            problem,
            rows,
            grammar,
            islands: (0..settings.islands).map(|i| Island::new(settings.seed, stream(i))).collect(),
            hall: BTreeMap::new(),
            tried: HashSet::new(),
            epochs: 0,
            counts: vec![1.0; settings.max_complexity as usize + 3],
            node_evaluations: 0,
            random,
            done: false,
        })
    }

    fn evaluations(&self) -> u64 {
        self.islands.iter().map(|i| i.evaluations).sum()
    }

    fn front(&self) -> Front {
        let entry = |(&complexity, famous): (&u32, &Famous)| {
            (complexity, famous.loss, famous.expression.clone())
        };
        Front::new(self.hall.iter().map(entry).collect())
    }

    /// Puts the problem's seeds into the hall of fame: as they are, and fitted anew.
    fn plant(&mut self, device: &Device, settings: &Settings) -> Result<()> {
        let scaled = settings.scaled();
        let shape = |e: &Expression| if scaled { e.shape() } else { Some(e.simplified()) };
        let seeds = self.problem.seeds.iter().filter_map(|e| Some((e.clone(), shape(e)?)));
        let (formulas, shapes): (Vec<Expression>, Vec<Expression>) = seeds.unzip();
        let programs: Vec<Program> = formulas.iter().map(Program::new).collect();
        let losses = op::score(device, &self.rows, &programs, settings.loss)?;
        let programs: Vec<Program> = shapes.iter().map(Program::new).collect();
        let fit = Fit { loss: settings.loss, steps: 12, scaled, tolerance: 1e-4 };
        let fitted = op::fit(device, &self.rows, &programs, fit)?;
        let mut members = Vec::new();
        for (((formula, loss), f), fitted) in
            formulas.into_iter().zip(losses).zip(shapes).zip(fitted)
        {
            let complexity = formula.complexity(&settings.weights);
            let member = Member::fitted(f, &fitted, complexity);
            self.honour(Famous { loss, expression: formula, member: member.clone() });
            members.push(member);
        }
        self.enter(device, settings, members)
    }

    /// Puts a formula into the hall of fame, if it is the best of its complexity.
    fn honour(&mut self, famous: Famous) {
        let known = self.hall.get(&famous.member.complexity).map_or(f64::INFINITY, |f| f.loss);
        if famous.loss < known {
            self.hall.insert(famous.member.complexity, famous);
        }
    }

    /// Until the next synchronisation, and that.
    fn epoch(
        &mut self,
        device: &Device,
        settings: &Settings,
        batches: usize,
        deadline: Option<Instant>,
    ) -> Result<()> {
        self.epochs += 1;
        if self.epochs.is_multiple_of(FORGET_EVERY) {
            self.tried.clear();
        }
        let rows = self.some_rows();
        let total: f64 = self.counts.iter().sum();
        let frequency: Vec<f64> = self.counts.iter().map(|c| c / total).collect();
        let task = Task {
            device,
            rows: rows.as_ref().unwrap_or(&self.rows),
            grammar: &self.grammar,
            settings,
            frequency: &frequency,
            batches,
            deadline,
        };
        self.islands.par_iter_mut().try_for_each(|island| island.evolve(&task))?;
        let found = self.promising();
        self.enter(device, settings, found)?;
        self.migrate();
        for count in &mut self.counts {
            *count = 1.0 + 0.8 * (*count - 1.0);
        }
        for member in self.islands.iter().flat_map(|i| &i.members) {
            if let Some(count) = self.counts.get_mut(member.complexity as usize) {
                *count += 1.0;
            }
        }
        if let (Some(limit), Some(best)) = (settings.target_loss, self.front().entries.last()) {
            self.done = best.loss <= limit;
        }
        Ok(())
    }

    /// Rows for the next epoch; None where the table is so short that all are used.
    fn some_rows(&mut self) -> Option<Rows> {
        let n = self.problem.target.len();
        if n <= 2 * ROWS {
            return None;
        }
        let mut chosen: HashSet<u32> = HashSet::with_capacity(ROWS);
        let mut order = Vec::with_capacity(ROWS);
        while order.len() < ROWS {
            let row = self.random.below(n) as u32;
            if chosen.insert(row) {
                order.push(row);
            }
        }
        let weights = self.problem.weights.as_deref();
        Some(Rows::gather(&self.problem.columns, &self.problem.target, weights, &order))
    }

    /// The islands' best of each complexity, where no simpler one is clearly better, and not
    /// entered before.
    fn promising(&mut self) -> Vec<Member> {
        let mut all: Vec<Member> =
            self.islands.iter().flat_map(|i| i.best.iter().flatten().cloned()).collect();
        all.sort_by(|a, b| a.complexity.cmp(&b.complexity).then(a.loss.total_cmp(&b.loss)));
        let mut least = f64::INFINITY;
        let mut found = Vec::new();
        for member in all {
            if member.loss <= 1.1 * least && self.tried.insert(structure(&member.f)) {
                found.push(member.clone());
            }
            least = least.min(member.loss);
        }
        found
    }

    /// Fits members on all rows, with and without offset; the best of each complexity stay.
    fn enter(&mut self, device: &Device, settings: &Settings, found: Vec<Member>) -> Result<()> {
        let scaled = settings.scaled();
        let fit = Fit { loss: settings.loss, steps: 12, scaled, tolerance: 1e-4 };
        let programs: Vec<Program> = found.iter().map(|m| Program::new(&m.f)).collect();
        let first = op::fit(device, &self.rows, &programs, fit)?;
        let mut candidates: Vec<(Expression, Member)> = Vec::new();
        for ((member, fitted), program) in found.into_iter().zip(&first).zip(&programs) {
            self.node_evaluations +=
                u64::from(fitted.evaluations) * (program.nodes * self.rows.rows()) as u64;
            if !fitted.loss.is_finite() {
                continue;
            }
            let with = Member::fitted(member.f, fitted, 0);
            let without = Member { offset: 0.0, ..with.clone() };
            for member in if scaled { vec![with, without] } else { vec![with] } {
                let formula = member.formula(settings).simplified();
                let complexity = formula.complexity(&settings.weights);
                let known = self.hall.range(..=complexity).map(|(_, f)| f.loss);
                let known = known.fold(f64::INFINITY, f64::min);
                // Without its offset a formula has yet to be fitted.
                let hopeful = member.offset == 0.0 || fitted.loss < 1.2 * known;
                if complexity <= settings.max_complexity && hopeful {
                    candidates.push((formula, Member { complexity, ..member }));
                }
            }
        }
        let programs: Vec<Program> = candidates.iter().map(|(e, _)| Program::new(e)).collect();
        let last = Fit { loss: settings.loss, steps: 30, scaled: false, tolerance: 1e-5 };
        let fitted = op::fit(device, &self.rows, &programs, last)?;
        for (((formula, member), fitted), program) in
            candidates.iter_mut().zip(&fitted).zip(&programs)
        {
            self.node_evaluations +=
                u64::from(fitted.evaluations) * (program.nodes * self.rows.rows()) as u64;
            let rounded: Vec<f64> = fitted.constants.iter().map(|&c| rounded(c)).collect();
            formula.set_constants(&rounded);
            // A factor of 1 or an offset of 0 may have appeared.
            *formula = formula.simplified();
            member.complexity = formula.complexity(&settings.weights);
        }
        let programs: Vec<Program> = candidates.iter().map(|(e, _)| Program::new(e)).collect();
        let losses = op::score(device, &self.rows, &programs, settings.loss)?;
        for ((expression, member), loss) in candidates.into_iter().zip(losses) {
            self.honour(Famous { loss, expression, member });
        }
        Ok(())
    }

    /// The hall of fame returns to the islands, and each island's best visits the next.
    fn migrate(&mut self) {
        let mut least = f64::INFINITY;
        let mut famous: Vec<Member> = Vec::new();
        for entry in self.hall.values() {
            if entry.loss < least {
                least = entry.loss;
                famous.push(entry.member.clone());
            }
        }
        let islands = self.islands.len();
        let visitors: Vec<Option<Member>> = self
            .islands
            .iter()
            .map(|island| {
                let members = island.members.iter();
                members.min_by(|a, b| a.loss.total_cmp(&b.loss)).cloned()
            })
            .collect();
        for (i, island) in self.islands.iter_mut().enumerate() {
            for _ in 0..REINJECTED.min(famous.len()) {
                let chosen = self.random.below(famous.len());
                island.receive(famous[chosen].clone());
            }
            if let Some(visitor) = &visitors[(i + 1) % islands] {
                island.receive(visitor.clone());
            }
        }
    }
}

/// Seven significant digits: as many as an f32 has, and no more than a reader wants.
fn rounded(value: f64) -> f64 {
    format!("{value:.6e}").parse().unwrap_or(value)
}

#[cfg(test)]
#[path = "search_tests.rs"]
mod tests;
