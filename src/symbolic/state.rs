//! The search of one problem: its memory, its start, and one epoch of its islands.

use std::collections::{BTreeMap, HashSet};
use std::slice;
use std::time::Instant;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::dimensional;
use super::enumerate::{self, StopCheck};
use super::families;
use super::hall::{HallEntry, MEMBER_STEPS};
use super::island::{self, Island, Member, Task};
use super::monomials;
use super::rules::Rules;
use super::search::Problem;
use super::settings::Settings;
use crate::error::Result;
use crate::formula::expression::Expression;
use crate::observer::Observer;
use crate::ops::expression::{Evaluator, Loss, Rows};
use crate::random::Random;

/// Members of an island replaced from the hall of fame at a synchronisation.
const REINJECTED: usize = 3;
/// Enumerated expressions of each complexity that islands start with.
const GUESSES: usize = 8;
/// Once a formula is exact to rounding, a search continues for half as many epochs again, plus this many: a shorter one
/// may turn up.
const AFTER_EXACT: u64 = 2;
/// Most columns that the hall of fame starts with.
const COLUMNS: usize = 64;
/// Enumerated expressions fitted together; then the search looks at the clock.
const TOGETHER: usize = 512;
/// Epochs after which a structure may be fitted on all rows again: another start may do better.
const FORGET_EVERY: u64 = 12;

/// The complete state of the search of one problem between two synchronisations: with it a search continues as if it
/// had not been interrupted.
#[derive(Serialize, Deserialize)]
pub(super) struct Memory {
    pub(super) islands: Vec<Island>,
    /// The best of each complexity, the best first.
    pub(super) hall: BTreeMap<u32, Vec<HallEntry>>,
    /// Structures recently fitted on all rows.
    pub(super) tried: HashSet<u64>,
    pub(super) epochs: u64,
    /// Members of each complexity, decaying with time.
    pub(super) counts: Vec<f64>,
    /// Small expressions that explain much, for the islands to start with.
    pub(super) guesses: Vec<Expression>,
    /// Candidates considered in addition to those of the islands.
    pub(super) planted: u64,
    pub(super) node_evaluations: u64,
    pub(super) random: Random,
    /// Number of epochs when a formula that is exact to rounding was found.
    pub(super) exact: Option<u64>,
    pub(super) done: bool,
}

impl Memory {
    /// Candidates considered.
    pub(super) fn evaluations(&self) -> u64 {
        self.planted + self.islands.iter().map(|i| i.evaluations).sum::<u64>()
    }
}

/// The search of one problem.
pub(super) struct State<'a> {
    pub(super) problem: &'a Problem,
    pub(super) rules: Rules<'a>,
    pub(super) rows: Rows,
    /// The loss that rounding of the data or of single precision explains: no smaller loss is worth an extra node.
    pub(super) resolution: f64,
    pub(super) memory: Memory,
}

/// See [`State::resolution`].
fn resolution(problem: &Problem, rules: &Rules, rows: &Rows) -> f64 {
    let part = 2.0 * f64::from(f32::EPSILON);
    let single = match rules.loss() {
        Loss::Mae => part * rows.sizes()[0],
        Loss::Mse => part * part * rows.sizes()[1],
    };
    let unit = problem.given.as_ref().map_or(1.0, |given| given.loss(rules.loss(), 1.0));
    single.max(rules.floor() / unit)
}

impl<'a> State<'a> {
    pub(super) fn new(index: u64, problem: &'a Problem, settings: &'a Settings) -> Result<Self> {
        let mut random = Random::new(settings.seed, index << 32);
        let rules = Rules::new(problem, settings, &mut random)?;
        let stream = |island: usize| (index << 32) + 1 + island as u64;
        let rows = rules.rows()?;
        Ok(State {
            problem,
            resolution: resolution(problem, &rules, &rows),
            rows,
            rules,
            memory: Memory {
                islands: (0..settings.islands)
                    .map(|i| Island::new(settings.seed, stream(i), i % 2 == 0))
                    .collect(),
                hall: BTreeMap::new(),
                tried: HashSet::new(),
                epochs: 0,
                counts: vec![1.0; settings.max_complexity as usize + 3],
                guesses: Vec::new(),
                planted: 0,
                node_evaluations: 0,
                random,
                exact: None,
                done: false,
            },
        })
    }

    pub(super) fn evaluations(&self) -> u64 {
        self.memory.evaluations()
    }

    /// Puts the simplest formulas into the hall of fame, in no time: a constant, and each column.
    pub(super) fn begin(&mut self, evaluator: &Evaluator, late: &StopCheck) -> Result<()> {
        if self.rules.is_template() {
            return Ok(());
        }
        let seated = &self.rules.evaluator(evaluator).seated();
        let constant = Expression::constant(self.rows.median());
        if self.rules.admits(&constant) {
            let (steps, tolerance) = MEMBER_STEPS;
            let how = (steps, false, tolerance);
            let fitted =
                self.rules.fit(seated, &self.rows, slice::from_ref(&constant), how)?.remove(0);
            let complexity = self.rules.complexity(&constant);
            let member = Member::fitted(constant, &fitted, complexity);
            let expression = member.f.clone();
            self.insert_into_hall(HallEntry { loss: member.loss, expression, member });
        }
        let columns = (0..self.problem.columns.len().min(COLUMNS)).map(|v| v as u16);
        let column = |f: Expression| {
            let complexity = self.rules.complexity(&self.rules.with_scale(&f, 2.0, 1.0));
            Member { f, scale: 1.0, offset: 0.0, loss: 0.0, complexity }
        };
        let columns: Vec<Member> = columns.map(Expression::variable).map(column).collect();
        self.enter(seated, columns, late)
    }

    /// Puts the problem's seeds into the hall of fame, as they are and refitted, and the results of the enumeration, as
    /// far as it gets before it is `late`.
    pub(super) fn plant(&mut self, evaluator: &Evaluator, late: &StopCheck) -> Result<()> {
        let seeds = self.problem.seeds.iter().filter(|seed| self.rules.admits(seed));
        let given = self.problem.given.as_ref();
        let seeds = seeds.map(|e| given.map_or_else(|| e.clone(), |given| given.inward(e)));
        let seeds = seeds.filter_map(|e| {
            let shape = self.rules.canonical(&e)?;
            Some((e, shape))
        });
        let (candidates, shapes): (Vec<Expression>, Vec<Expression>) = seeds.unzip();
        let seated = self.rules.evaluator(evaluator).seated();
        let losses = self.rules.score(&seated, &self.rows, &candidates)?;
        let (steps, tolerance) = MEMBER_STEPS;
        let how = (steps, self.rules.scaled(), tolerance);
        let fitted = self.rules.fit(&seated, &self.rows, &shapes, how)?;
        let mut members = Vec::new();
        for (((expression, loss), f), fitted) in
            candidates.into_iter().zip(losses).zip(shapes).zip(fitted)
        {
            let member = Member::fitted(f, &fitted, self.rules.complexity(&expression));
            self.insert_into_hall(HallEntry { loss, expression, member: member.clone() });
            members.push(member);
        }
        self.enter(&seated, members, late)?;
        if let Some(template) = self.problem.template.as_ref().filter(|t| !t.searches()) {
            return self.fit_numbers(template, &seated, late);
        }
        // The rest takes long, and others should not wait for it.
        drop(seated);
        self.enumerate(evaluator, late)
    }

    /// Puts small expressions and pairs of them that explain much into the hall of fame, and keeps the best of each
    /// complexity for the islands to start with.
    fn enumerate(&mut self, evaluator: &Evaluator, late: &StopCheck) -> Result<()> {
        let settings = self.rules.settings;
        let mut found = dimensional::seeds(self.problem, settings);
        found.extend(families::seeds(self.problem, settings));
        found.extend(monomials::seeds(self.problem, settings, late));
        found.extend(enumerate::seeds(self.problem, settings, &mut self.memory.random, late));
        let rows = self.some_rows();
        let task = Task {
            evaluator,
            rows: rows.as_ref().unwrap_or(&self.rows),
            rules: &self.rules,
            limit: settings.max_complexity,
            frequency: &[],
            guesses: &[],
            population: 0,
            batches: 0,
            deadline: None,
            observer: &(),
        };
        let mut known = HashSet::new();
        let admitted = found.iter().filter_map(|e| task.admit(e));
        let most = settings.evaluations.map_or(usize::MAX, |limit| limit as usize / 4);
        let (mut shapes, complexities): (Vec<Expression>, Vec<u32>) =
            admitted.filter(|(f, _)| known.insert(self.rules.structure(f))).take(most).unzip();
        // Only now: others would have to wait for all of the above.
        let evaluator = &self.rules.evaluator(evaluator).seated();
        let (steps, tolerance) = MEMBER_STEPS;
        let how = (steps, self.rules.scaled(), tolerance);
        let mut fitted = Vec::with_capacity(shapes.len());
        for some in shapes.chunks(TOGETHER) {
            fitted.extend(self.rules.fit(evaluator, task.rows, some, how)?);
            if late() {
                break;
            }
        }
        shapes.truncate(fitted.len());
        let rows = task.rows.rows() as u64;
        self.memory.planted += shapes.len() as u64;
        let mut members: Vec<Member> = Vec::new();
        for ((f, complexity), fitted) in shapes.into_iter().zip(complexities).zip(&fitted) {
            self.memory.node_evaluations +=
                u64::from(fitted.evaluations) * f.nodes().len() as u64 * rows;
            members.push(Member::fitted(f, fitted, complexity));
        }
        members.retain(|m| m.loss.is_finite());
        members.sort_by(|a, b| a.complexity.cmp(&b.complexity).then(a.loss.total_cmp(&b.loss)));
        let groups = members.chunk_by(|a, b| a.complexity == b.complexity);
        let best: Vec<Member> = groups.flat_map(|g| g.iter().take(GUESSES).cloned()).collect();
        self.memory.guesses = best.iter().map(|m| m.f.clone()).collect();
        self.enter(evaluator, best, late)
    }

    /// Evolves the islands until the next synchronisation, and synchronises.
    pub(super) fn epoch(
        &mut self,
        evaluator: &Evaluator,
        limit: u32,
        (population, batches): (usize, usize),
        deadline: Option<Instant>,
        observer: &dyn Observer,
    ) -> Result<()> {
        self.memory.epochs += 1;
        if self.memory.epochs.is_multiple_of(FORGET_EVERY) {
            self.memory.tried.clear();
        }
        let rows = self.some_rows();
        let total: f64 = self.memory.counts.iter().sum();
        let frequency: Vec<f64> = self.memory.counts.iter().map(|c| c / total).collect();
        let task = Task {
            evaluator,
            rows: rows.as_ref().unwrap_or(&self.rows),
            rules: &self.rules,
            limit,
            frequency: &frequency,
            guesses: &self.memory.guesses,
            population,
            batches,
            deadline,
            observer,
        };
        let islands = &mut self.memory.islands;
        if evaluator.is_gpu() {
            island::evolve(islands, &task)?;
        } else {
            islands.par_chunks_mut(1).try_for_each(|one| island::evolve(one, &task))?;
        }
        let found = self.promising();
        let late = || observer.stop() || deadline.is_some_and(|d| Instant::now() >= d);
        self.enter(evaluator, found, &late)?;
        self.migrate();
        let Memory { counts, islands, .. } = &mut self.memory;
        for count in counts.iter_mut() {
            *count = 1.0 + 0.8 * (*count - 1.0);
        }
        for member in islands.iter().flat_map(|i| &i.members) {
            if let Some(count) = counts.get_mut(member.complexity as usize) {
                *count += 1.0;
            }
        }
        if self.memory.exact.is_none() && self.least() <= self.resolution && self.is_exact() {
            self.memory.exact = Some(self.memory.epochs);
        }
        self.memory.done = self.finished();
        Ok(())
    }

    /// True if there is nothing more to look for.
    pub(super) fn finished(&self) -> bool {
        let Memory { exact, epochs, .. } = self.memory;
        let limit = self.rules.settings.target_loss;
        let least = match &self.problem.given {
            Some(given) => given.loss(self.rules.loss(), self.least()),
            None => self.least(),
        };
        !self.rules.searches()
            || exact.is_some_and(|found| epochs >= found + found / 2 + AFTER_EXACT)
            || limit.is_some_and(|limit| least <= limit)
    }

    /// Rows for the next epoch; None if the table is so short that all are used.
    pub(super) fn some_rows(&mut self) -> Option<Rows> {
        let (n, some) = (self.rules.row_count(), self.rules.settings.batch_rows);
        if n <= some.saturating_mul(2) {
            return None;
        }
        Some(self.draw(some))
    }

    /// This many different rows with a weight, or all of those.
    pub(super) fn draw(&mut self, some: usize) -> Rows {
        let some = some.min(self.rules.row_count());
        let mut chosen: HashSet<u32> = HashSet::with_capacity(some);
        let mut order = Vec::with_capacity(some);
        while order.len() < some {
            let row = self.rules.draw_row(&mut self.memory.random);
            if chosen.insert(row) {
                order.push(row);
            }
        }
        self.rules.gather(&order)
    }

    /// The islands' best of each complexity that are clearly better than every simpler one and have not been entered
    /// before.
    fn promising(&mut self) -> Vec<Member> {
        let (rules, Memory { islands, tried, .. }) = (&self.rules, &mut self.memory);
        let mut all: Vec<Member> =
            islands.iter().flat_map(|i| i.best.iter().flatten().cloned()).collect();
        let keep = self.rules.settings.keep;
        if keep > 1 {
            all.extend(islands.iter().flat_map(|i| i.members.iter().cloned()));
        }
        all.sort_by(|a, b| a.complexity.cmp(&b.complexity).then(a.loss.total_cmp(&b.loss)));
        let mut least = f64::INFINITY;
        let mut found: Vec<Member> = Vec::new();
        for member in all {
            // If several of each complexity are kept, the next best are entered as well.
            let same = found.iter().rev().take_while(|f| f.complexity == member.complexity);
            let hopeful = member.loss <= 1.1 * least || (keep > 1 && same.count() < keep);
            if hopeful && tried.insert(rules.structure(&member.f)) {
                found.push(member.clone());
            }
            least = least.min(member.loss);
        }
        found
    }

    /// The hall of fame returns to the islands, and each island's best visits the next.
    fn migrate(&mut self) {
        let Memory { hall, islands, random, .. } = &mut self.memory;
        let mut least = f64::INFINITY;
        let mut famous: Vec<Member> = Vec::new();
        for entry in hall.values().filter_map(|f| f.first()) {
            if entry.loss < least {
                least = entry.loss;
                famous.push(entry.member.clone());
            }
        }
        let count = islands.len();
        let visitors: Vec<Option<Member>> = islands
            .iter()
            .map(|island| {
                let members = island.members.iter();
                members.min_by(|a, b| a.loss.total_cmp(&b.loss)).cloned()
            })
            .collect();
        for (i, island) in islands.iter_mut().enumerate() {
            for _ in 0..REINJECTED.min(famous.len()) {
                let chosen = random.below(famous.len());
                island.receive(famous[chosen].clone());
            }
            if let Some(visitor) = &visitors[(i + 1) % count] {
                island.receive(visitor.clone());
            }
        }
    }
}
