//! The search: islands of many problems at once, evolving on their own between synchronisations.
//!
//! Until the next synchronisation every island of a problem works on the same few rows (new ones each
//! time, so that nothing fits their noise for long). At a synchronisation the best of each complexity
//! are fitted on all rows and enter the hall of fame, and members migrate: from the hall of fame and
//! between islands. Random numbers belong to islands and epochs, so the result depends on the seed
//! and on how many epochs were run, never on threads.

use std::collections::{BTreeMap, HashSet};
use std::slice;
use std::time::{Duration, Instant};

use rayon::prelude::*;

use serde::{Deserialize, Serialize};

use super::enumerate;
use super::expression::Expression;
use super::front::{Entry, Front};
use super::island::{BATCH, Island, Member, POPULATION, Task};
use super::round;
use super::rules::{Rules, losses_on_rest};
pub use super::rules::{check, losses};
pub use super::settings::Settings;
use super::template::Template;
use super::threshold;
use super::units::Units;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::ops::expression::{Fitted, Loss, Rows};
use crate::random::Random;

/// Batches of an island between two synchronisations.
const BATCHES: usize = 32;
/// Members of an island that the hall of fame replaces at a synchronisation.
const REINJECTED: usize = 3;
/// Enumerated expressions of each complexity that islands begin with.
const GUESSES: usize = 8;
/// A search goes on for half as many epochs, and so many, once a formula is exact to rounding: a
/// shorter one may turn up.
const AFTER_EXACT: u64 = 6;
/// Of a table with more rows than this, constants are fitted on some first, then with a few steps on
/// all.
const LONG: usize = 50_000;
const LAST_STEPS: u32 = 3;
/// Rows of a long table on which constants are fitted first, and rounded ones tried.
const SOME_ROWS: usize = 20_000;
/// Members that are fitted on all rows together; after that the search looks at the clock.
const TOGETHER: usize = 16;
/// Epochs after which a structure may be fitted on all rows again: another start may do better.
const FORGET_EVERY: u64 = 12;
/// Steps and tolerance of fitting on all rows: a member, and what enters the hall of fame.
const MEMBER_STEPS: (u32, f64) = (12, 1e-4);
const FAMOUS_STEPS: (u32, f64) = (30, 1e-5);

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
    /// Expressions to begin with, from an earlier search or a guess; under a template, its parts as
    /// one tree.
    pub seeds: Vec<Expression>,
    /// Formulas have this form; their parts are searched.
    pub template: Option<Template>,
    /// Formulas make sense in these units.
    pub units: Option<Units>,
    /// Rows that the search does not see: their losses choose the law.
    pub rest: Option<Rest>,
}

/// Rows that are kept from a search.
#[derive(Clone, Debug, Default)]
pub struct Rest {
    /// `[column][row]`
    pub columns: Vec<Vec<f32>>,
    /// `[row]`
    pub target: Vec<f32>,
    /// `[row]`
    pub weights: Option<Vec<f32>>,
}

/// What came out for one problem.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Best expression of each complexity.
    pub front: Front,
    /// The best `keep` of each complexity, on the front or not: complexity, loss, formula.
    pub kept: Vec<(u32, f64, Expression)>,
    /// Under a template, the parts of each entry of the front, in the order of [`Template::parts`].
    pub parts: Vec<Vec<Expression>>,
    /// Candidates considered.
    pub evaluations: u64,
    /// Nodes × rows executed, each pass over a table counted once (gradients not extra).
    pub node_evaluations: u64,
    /// From the start of the whole job.
    pub seconds: f64,
    /// True where Ctrl-C came before the search had ended.
    pub interrupted: bool,
}

#[derive(Clone, Serialize, Deserialize)]
struct Famous {
    loss: f64,
    /// The candidate with its scale and offset.
    expression: Expression,
    member: Member,
}

/// Everything that the search of one problem remembers from one synchronisation to the next: with it
/// a search goes on as if it had not been interrupted.
#[derive(Serialize, Deserialize)]
struct Memory {
    islands: Vec<Island>,
    /// The best of each complexity, the best first.
    hall: BTreeMap<u32, Vec<Famous>>,
    /// Structures that were fitted on all rows of late.
    tried: HashSet<u64>,
    epochs: u64,
    /// Members of each complexity, fading.
    counts: Vec<f64>,
    /// Small expressions that explain much, for the islands to begin with.
    guesses: Vec<Expression>,
    /// Candidates considered beside those of the islands.
    planted: u64,
    node_evaluations: u64,
    random: Random,
    /// Epochs until a formula that is exact to rounding was found.
    exact: Option<u64>,
    done: bool,
}

/// What the searches of several problems remember, read from what [`Moment::memory`] wrote.
pub struct Memories(Vec<Memory>);

impl Memories {
    /// Reads them.
    ///
    /// # Errors
    /// Bytes that are nothing of the kind.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let damaged = |_| Error::input("is no memory of a search: --overwrite starts again");
        serde_json::from_slice(bytes).map(Memories).map_err(damaged)
    }
}

/// One problem in work.
struct State<'a> {
    problem: &'a Problem,
    rules: Rules<'a>,
    rows: Rows,
    memory: Memory,
}

/// What an observer sees at a synchronisation.
pub struct Moment<'a> {
    /// The front of each problem.
    pub fronts: &'a [Front],
    /// Candidates considered so far, of all problems.
    pub evaluations: u64,
    /// True where every island worked to the end: from here a search can go on.
    pub whole: bool,
    states: &'a [State<'a>],
}

impl Moment<'_> {
    /// What [`search`] takes to go on from here.
    pub fn memory(&self) -> Vec<u8> {
        let memories: Vec<&Memory> = self.states.iter().map(|s| &s.memory).collect();
        serde_json::to_vec(&memories).expect("plain data")
    }
}

/// Searches all `problems` as one job; `observer` sees every synchronisation. With the `memory` of
/// an earlier search of the same problems with the same settings it goes on from there, to the same
/// end.
///
/// Ends at the first limit that is met (with none, only at Ctrl-C), and in any case with the fronts
/// found so far.
///
/// # Errors
/// A problem without rows or columns, with lengths that disagree or values that are not finite, or
/// with a constant target; settings without operators; a memory that is none of these problems.
pub fn search(
    device: &Device,
    problems: &[Problem],
    settings: &Settings,
    memory: Option<Memories>,
    observer: &mut dyn FnMut(&Moment),
) -> Result<Vec<Outcome>> {
    let begun = Instant::now();
    if settings.islands == 0 {
        return Err(Error::usage("at least one island is needed"));
    }
    let deadline = settings.seconds.map(|s| begun + Duration::from_secs_f64(s.clamp(0.0, 1e9)));
    let late = || deadline.is_some_and(|d| Instant::now() >= d);
    let stopped = || late() || crate::interrupt::requested();
    let mut states: Vec<State> = problems
        .iter()
        .enumerate()
        .map(|(index, problem)| State::new(index as u64, problem, settings))
        .collect::<Result<_>>()?;
    match memory {
        Some(memory) => {
            if memory.0.len() != states.len() {
                return Err(Error::input("the memory is that of another search"));
            }
            for (state, memory) in states.iter_mut().zip(memory.0) {
                state.memory = memory;
                // The limits may have changed.
                state.memory.done = state.finished();
            }
        }
        None => {
            for state in &mut states {
                state.plant(device, deadline)?;
            }
            tell(&states, !stopped(), observer);
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
        let work = states.par_iter_mut().filter(|s| !s.memory.done);
        let limit = settings.limit(share);
        let size = (population, batches);
        work.try_for_each(|state| state.epoch(device, limit, size, deadline))?;
        tell(&states, !stopped(), observer);
    }
    states.par_iter_mut().try_for_each(State::round)?;
    let seconds = begun.elapsed().as_secs_f64();
    let interrupted = crate::interrupt::requested();
    let outcome = |state: &State| Outcome {
        front: state.front(),
        kept: state.kept(),
        parts: state.parts(),
        evaluations: state.evaluations(),
        node_evaluations: state.memory.node_evaluations
            + state.memory.islands.iter().map(|i| i.node_evaluations).sum::<u64>(),
        seconds,
        interrupted,
    };
    let mut outcomes: Vec<Outcome> = states.iter().map(outcome).collect();
    for (outcome, problem) in outcomes.iter_mut().zip(problems) {
        if problem.rest.is_some() {
            let entries = outcome.front.entries.iter();
            let formulas: Vec<Expression> = entries.map(|e| e.expression.clone()).collect();
            outcome.front.validation = losses_on_rest(device, problem, settings, &formulas)?;
        }
    }
    Ok(outcomes)
}

/// Shows the observer where all searches are.
fn tell(states: &[State], whole: bool, observer: &mut dyn FnMut(&Moment)) {
    let fronts: Vec<Front> = states.iter().map(State::front).collect();
    let evaluations = states.iter().map(State::evaluations).sum();
    observer(&Moment { fronts: &fronts, evaluations, whole, states });
}

impl<'a> State<'a> {
    fn new(index: u64, problem: &'a Problem, settings: &'a Settings) -> Result<Self> {
        let mut random = Random::new(settings.seed, index << 32);
        let rules = Rules::new(problem, settings, &mut random)?;
        let stream = |island: usize| (index << 32) + 1 + island as u64;
        Ok(State {
            problem,
            rows: rules.rows()?,
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

    fn evaluations(&self) -> u64 {
        self.memory.planted + self.memory.islands.iter().map(|i| i.evaluations).sum::<u64>()
    }

    /// A loss that rounding to single precision explains: nothing smaller is worth a node more.
    fn resolution(&self) -> f64 {
        let settings = self.rules.settings;
        let part = 2.0 * f64::from(f32::EPSILON);
        match settings.loss {
            Loss::Mae => part * self.rows.sizes()[0],
            Loss::Mse => part * part * self.rows.sizes()[1],
        }
    }

    fn front(&self) -> Front {
        let best = self.memory.hall.iter().filter_map(|(&c, famous)| Some((c, famous.first()?)));
        let entry =
            |(c, famous): (u32, &Famous)| (c, famous.loss, self.rules.formula(&famous.expression));
        let mut front = Front::new(best.map(entry).collect());
        let resolution = self.resolution();
        if let Some(exact) = front.entries.iter().position(|e| e.loss <= resolution) {
            front.entries.truncate(exact + 1);
        }
        front
    }

    fn kept(&self) -> Vec<(u32, f64, Expression)> {
        let all =
            self.memory.hall.iter().flat_map(|(&c, famous)| famous.iter().map(move |f| (c, f)));
        all.map(|(c, f)| (c, f.loss, self.rules.formula(&f.expression))).collect()
    }

    /// Of each entry of the front, under a template.
    fn parts(&self) -> Vec<Vec<Expression>> {
        let Some(template) = &self.problem.template else { return Vec::new() };
        let parts =
            |entry: &Entry| template.split(&self.memory.hall[&entry.complexity][0].expression);
        self.front().entries.iter().map(parts).collect()
    }

    /// Puts the problem's seeds into the hall of fame: as they are, and fitted anew.
    fn plant(&mut self, device: &Device, deadline: Option<Instant>) -> Result<()> {
        let seeds = self.problem.seeds.iter().filter(|seed| self.rules.admits(seed));
        let seeds = seeds.filter_map(|e| Some((e.clone(), self.rules.canonical(e)?)));
        let (candidates, shapes): (Vec<Expression>, Vec<Expression>) = seeds.unzip();
        let losses = self.rules.score(device, &self.rows, &candidates)?;
        let (steps, tolerance) = MEMBER_STEPS;
        let how = (steps, self.rules.scaled(), tolerance);
        let fitted = self.rules.fit(device, &self.rows, &shapes, how)?;
        let mut members = Vec::new();
        for (((expression, loss), f), fitted) in
            candidates.into_iter().zip(losses).zip(shapes).zip(fitted)
        {
            let member = Member::fitted(f, &fitted, self.rules.complexity(&expression));
            self.honour(Famous { loss, expression, member: member.clone() });
            members.push(member);
        }
        self.enter(device, members, deadline)?;
        self.enumerate(device, deadline)
    }

    /// Puts what small expressions and pairs of them explain into the hall of fame, and keeps the
    /// best of each complexity for the islands to begin with.
    fn enumerate(&mut self, device: &Device, deadline: Option<Instant>) -> Result<()> {
        let settings = self.rules.settings;
        let found = enumerate::seeds(self.problem, settings, &mut self.memory.random, deadline);
        let rows = self.some_rows();
        let task = Task {
            device,
            rows: rows.as_ref().unwrap_or(&self.rows),
            rules: &self.rules,
            limit: settings.max_complexity,
            frequency: &[],
            guesses: &[],
            population: 0,
            batches: 0,
            deadline: None,
        };
        let mut known = HashSet::new();
        let admitted = found.iter().filter_map(|e| task.admit(e));
        let most = settings.evaluations.map_or(usize::MAX, |limit| limit as usize / 4);
        let (shapes, complexities): (Vec<Expression>, Vec<u32>) =
            admitted.filter(|(f, _)| known.insert(self.rules.structure(f))).take(most).unzip();
        let (steps, tolerance) = MEMBER_STEPS;
        let how = (steps, self.rules.scaled(), tolerance);
        let fitted = self.rules.fit(device, task.rows, &shapes, how)?;
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
        self.enter(device, best, deadline)
    }

    /// Puts a candidate into the hall of fame, if it is among the best of its complexity.
    fn honour(&mut self, famous: Famous) {
        if !(famous.loss.is_finite() && famous.member.loss.is_finite()) {
            return;
        }
        let keep = self.rules.settings.keep.max(1);
        let all = self.memory.hall.entry(famous.member.complexity).or_default();
        // Of each structure only the best; a loss that agrees is the same in other words.
        let key = self.rules.structure(&famous.expression);
        let same = |f: &Famous| {
            let agrees = (f.loss - famous.loss).abs() <= 1e-6 * famous.loss;
            agrees || self.rules.structure(&f.expression) == key
        };
        if let Some(same) = all.iter().position(same) {
            if famous.loss >= all[same].loss {
                return;
            }
            all.remove(same);
        }
        let at = all.partition_point(|f| f.loss <= famous.loss);
        all.insert(at, famous);
        all.truncate(keep);
    }

    /// Until the next synchronisation, and that.
    fn epoch(
        &mut self,
        device: &Device,
        limit: u32,
        (population, batches): (usize, usize),
        deadline: Option<Instant>,
    ) -> Result<()> {
        self.memory.epochs += 1;
        if self.memory.epochs.is_multiple_of(FORGET_EVERY) {
            self.memory.tried.clear();
        }
        let rows = self.some_rows();
        let total: f64 = self.memory.counts.iter().sum();
        let frequency: Vec<f64> = self.memory.counts.iter().map(|c| c / total).collect();
        let task = Task {
            device,
            rows: rows.as_ref().unwrap_or(&self.rows),
            rules: &self.rules,
            limit,
            frequency: &frequency,
            guesses: &self.memory.guesses,
            population,
            batches,
            deadline,
        };
        self.memory.islands.par_iter_mut().try_for_each(|island| island.evolve(&task))?;
        let found = self.promising();
        self.enter(device, found, deadline)?;
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
        if self.least() <= self.resolution() {
            self.memory.exact.get_or_insert(self.memory.epochs);
        }
        self.memory.done = self.finished();
        Ok(())
    }

    /// The smallest loss so far.
    fn least(&self) -> f64 {
        let best = self.memory.hall.values().filter_map(|f| f.first());
        best.map(|f| f.loss).fold(f64::INFINITY, f64::min)
    }

    /// True where there is nothing more to look for.
    fn finished(&self) -> bool {
        let Memory { exact, epochs, .. } = self.memory;
        let limit = self.rules.settings.target_loss;
        exact.is_some_and(|found| epochs >= found + found / 2 + AFTER_EXACT)
            || limit.is_some_and(|limit| self.least() <= limit)
    }

    /// Puts rounded constants in place of those that the search fitted, where the loss bears it; what
    /// becomes shorter by that is one more point of the front.
    fn round(&mut self) -> Result<()> {
        let resolution = self.resolution();
        let drawn = (self.rules.row_count() > SOME_ROWS).then(|| self.draw(SOME_ROWS));
        // The longest first: what becomes shorter may beat a formula that is rounded already, by what is
        // left to round in itself.
        let mut next = self.memory.hall.keys().next_back().copied();
        while let Some(complexity) = next {
            next = self.memory.hall.range(..complexity).next_back().map(|(&shorter, _)| shorter);
            let Some(famous) = self.memory.hall[&complexity].first() else { continue };
            let rows = drawn.as_ref().unwrap_or(&self.rows);
            let rounded = round::rounded(&self.rules, rows, &famous.expression, resolution)?;
            let Some(expression) = rounded.map(|e| self.rules.simplified(&e)) else { continue };
            if !self.rules.allow(&expression) {
                continue;
            }
            let found = slice::from_ref(&expression);
            let loss = self.rules.score(&Device::cpu(), &self.rows, found)?[0];
            if loss > round::limit(famous.loss, self.rows.rows(), resolution) {
                continue;
            }
            let new = self.rules.complexity(&expression);
            let member = Member { complexity: new, ..famous.member.clone() };
            let rounded = Famous { loss, expression, member };
            if new == complexity {
                let all = self.memory.hall.get_mut(&complexity).expect("it has a formula");
                all[0] = rounded;
            } else {
                self.honour(rounded);
                next = self.memory.hall.range(..complexity).next_back().map(|(&k, _)| k);
            }
        }
        Ok(())
    }

    /// Rows for the next epoch; None where the table is so short that all are used.
    fn some_rows(&mut self) -> Option<Rows> {
        let (n, some) = (self.rules.row_count(), self.rules.settings.batch_rows);
        if n <= some.saturating_mul(2) {
            return None;
        }
        Some(self.draw(some))
    }

    /// So many different rows that have a weight, or all of those.
    fn draw(&mut self, some: usize) -> Rows {
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

    /// The islands' best of each complexity, where no simpler one is clearly better, and not
    /// entered before.
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
            // Where several of each complexity are kept, the next best are entered as well.
            let same = found.iter().rev().take_while(|f| f.complexity == member.complexity);
            let hopeful = member.loss <= 1.1 * least || (keep > 1 && same.count() < keep);
            if hopeful && tried.insert(rules.structure(&member.f)) {
                found.push(member.clone());
            }
            least = least.min(member.loss);
        }
        found
    }

    /// Fits members on all rows, with and without offset; the best of each complexity stay. The most
    /// promising come first: a long table may have time for few.
    fn enter(
        &mut self,
        device: &Device,
        mut found: Vec<Member>,
        deadline: Option<Instant>,
    ) -> Result<()> {
        found.sort_by(|a, b| a.loss.total_cmp(&b.loss).then(a.complexity.cmp(&b.complexity)));
        for some in found.chunks(TOGETHER) {
            self.enter_some(device, some)?;
            if deadline.is_some_and(|d| Instant::now() >= d) {
                break;
            }
        }
        Ok(())
    }

    /// The same for a few.
    fn enter_some(&mut self, device: &Device, found: &[Member]) -> Result<()> {
        let scaled = self.rules.scaled();
        let settings = self.rules.settings;
        let (steps, tolerance) = MEMBER_STEPS;
        let shapes: Vec<Expression> = found.iter().map(|m| m.f.clone()).collect();
        let first = self.fit(device, &shapes, (steps, scaled, tolerance))?;
        let mut entering: Vec<(Expression, Member)> = Vec::new();
        for (member, fitted) in found.iter().zip(&first) {
            if !fitted.loss.is_finite() {
                continue;
            }
            let with = Member::fitted(member.f.clone(), fitted, 0);
            let without = Member { offset: 0.0, ..with.clone() };
            for member in if scaled { vec![with, without] } else { vec![with] } {
                let candidate = self.rules.simplified(&member.candidate(&self.rules));
                let complexity = self.rules.complexity(&candidate);
                let known = self.memory.hall.range(..=complexity).filter_map(|(_, f)| f.first());
                let known = known.map(|f| f.loss).fold(f64::INFINITY, f64::min);
                // Without its offset a formula has yet to be fitted.
                let hopeful = member.offset == 0.0 || fitted.loss < 1.2 * known;
                if complexity <= settings.max_complexity && hopeful && self.rules.allow(&candidate)
                {
                    entering.push((candidate, Member { complexity, ..member }));
                }
            }
        }
        let mut candidates: Vec<Expression> = entering.iter().map(|e| e.0.clone()).collect();
        let (steps, tolerance) = FAMOUS_STEPS;
        let fitted = self.fit(device, &candidates, (steps, false, tolerance))?;
        for (candidate, fitted) in candidates.iter_mut().zip(&fitted) {
            let rounded: Vec<f64> = fitted.constants.iter().map(|&c| round::digits(c)).collect();
            candidate.set_constants(&rounded);
            threshold::settle(&self.rules, device, &self.rows, candidate)?;
            // A factor of 1 or an offset of 0 may have appeared.
            *candidate = self.rules.simplified(candidate);
        }
        let losses = self.rules.score(device, &self.rows, &candidates)?;
        for ((expression, (_, member)), loss) in candidates.into_iter().zip(entering).zip(losses) {
            let member = Member { complexity: self.rules.complexity(&expression), ..member };
            self.honour(Famous { loss, expression, member });
        }
        Ok(())
    }

    /// Fits candidates on all rows; of a long table on some of them first, so that few passes over
    /// all are left.
    fn fit(
        &mut self,
        device: &Device,
        candidates: &[Expression],
        (steps, scaled, tolerance): (u32, bool, f64),
    ) -> Result<Vec<Fitted>> {
        let long = self.rows.rows() > LONG;
        let mut begun = candidates.to_vec();
        if long {
            let some = self.draw(SOME_ROWS);
            let how = (steps, scaled, tolerance);
            for (e, fitted) in begun.iter_mut().zip(self.rules.fit(device, &some, candidates, how)?)
            {
                e.set_constants(&fitted.constants);
                self.memory.node_evaluations += cost(e, fitted.evaluations, &some);
            }
        }
        let how = (if long { LAST_STEPS } else { steps }, scaled, tolerance);
        let fitted = self.rules.fit(device, &self.rows, &begun, how)?;
        for (e, fitted) in begun.iter().zip(&fitted) {
            self.memory.node_evaluations += cost(e, fitted.evaluations, &self.rows);
        }
        Ok(fitted)
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

/// Nodes × rows of so many passes over rows.
fn cost(e: &Expression, passes: u32, rows: &Rows) -> u64 {
    u64::from(passes) * (e.nodes().len() * rows.rows()) as u64
}

#[cfg(test)]
#[path = "search_tests.rs"]
mod tests;
