//! One island: a small population that evolves on its own between two synchronisations.
//!
//! Regularised evolution: each batch of children comes from tournaments on one snapshot; all are fitted at once, and
//! those accepted replace the oldest members in order. On a CPU each island goes at its own pace; on a GPU all go in
//! step, and one call of the operation takes the children of all. A member is a shape f whose scale and offset are
//! fitted with its constants, so that a right shape ranks high at once; its complexity is that of the whole formula
//! offset + scale · f.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::rules::Rules;
use crate::error::Result;
use crate::formula::expression::{Expression, Node, Op};
use crate::observer::Observer;
use crate::ops::expression::{Evaluator, Fitted, Rows};
use crate::random::Random;

/// Members of an island.
pub(super) const POPULATION: usize = 64;
/// Children from one snapshot.
pub(super) const BATCH: usize = 16;
/// Members that compete to become a parent, and the chance of the best, of the next, ….
const TOURNAMENT: usize = 8;
const WINNER: f64 = 0.8;
const CROSSOVER: f64 = 0.15;
/// Steps of fitting a child.
const STEPS: u32 = 8;
/// The penalty of an overcrowded complexity in tournaments.
const CROWDING: f64 = 20.0;

/// A shape with its fitted scale and offset.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Member {
    /// f, with fitted constants.
    pub f: Expression,
    pub scale: f64,
    pub offset: f64,
    /// On the current rows.
    pub loss: f64,
    /// Complexity of `candidate`.
    pub complexity: u32,
}

impl Member {
    /// offset + scale · f.
    pub fn candidate(&self, rules: &Rules) -> Expression {
        rules.with_scale(&self.f, self.scale, self.offset)
    }

    /// f with its constants as fitted.
    pub fn fitted(mut f: Expression, fitted: &Fitted, complexity: u32) -> Self {
        f.set_constants(&fitted.constants);
        let Fitted { loss, scale, offset, .. } = *fitted;
        Member { f, scale, offset, loss, complexity }
    }
}

/// A hash that is the same for expressions that differ in constants only (thresholds of comparisons count, because
/// fitting does not move them, and with `exact` all constants).
pub(super) fn structure(e: &Expression, exact: bool) -> u64 {
    let compares = |node: &Node| matches!(node, Node::Op(Op::Greater | Op::Less));
    let exact = exact || e.nodes().iter().any(compares);
    let mut hasher = DefaultHasher::new();
    for node in e.nodes() {
        match *node {
            Node::Constant(value) if exact => (1u8, value.to_bits()).hash(&mut hasher),
            Node::Constant(_) => 2u8.hash(&mut hasher),
            Node::Variable(v) => (3u8, v).hash(&mut hasher),
            Node::Op(op) => (4u8, op).hash(&mut hasher),
        }
    }
    hasher.finish()
}

/// What an island works on until the next synchronisation.
pub(super) struct Task<'a> {
    pub evaluator: &'a Evaluator,
    pub rows: &'a Rows,
    pub rules: &'a Rules<'a>,
    /// The current limit on complexity.
    pub limit: u32,
    /// Share of each complexity among all members of the problem.
    pub frequency: &'a [f64],
    /// Expressions that some islands start with.
    pub guesses: &'a [Expression],
    /// Number of members that an island starts with.
    pub population: usize,
    pub batches: usize,
    pub deadline: Option<Instant>,
    pub observer: &'a dyn Observer,
}

impl Task<'_> {
    fn crowding(&self, complexity: u32) -> f64 {
        let share = self.frequency.get(complexity as usize).copied().unwrap_or(0.0);
        CROWDING * share
    }

    /// The form in which an expression is a member, and the complexity of its formula.
    pub fn admit(&self, e: &Expression) -> Option<(Expression, u32)> {
        let f = self.rules.with_exponents(self.rules.canonical(e)?);
        let small = f.nodes().iter().all(|n| !matches!(n, Node::Constant(c) if !c.is_finite()));
        let complexity = self.rules.complexity(&self.rules.with_scale(&f, 2.0, 1.0));
        // Without its offset the formula may be shorter by two.
        let least = complexity.saturating_sub(if self.rules.scaled() { 2 } else { 0 });
        (small && least <= self.limit && self.rules.allow(&f)).then_some((f, complexity))
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Island {
    /// The oldest first.
    pub members: VecDeque<Member>,
    /// The best of each complexity since the last synchronisation.
    pub best: Vec<Option<Member>>,
    pub evaluations: u64,
    pub node_evaluations: u64,
    /// True if half of the first members are guesses.
    guided: bool,
    random: Random,
}

/// Children to be fitted.
#[derive(Default)]
struct Brood {
    /// Each with the complexity of its formula.
    children: Vec<(Expression, u32)>,
    /// Loss and complexity of the parent, for children that have one.
    parents: Vec<Option<(f64, u32)>>,
    /// Structures of the children.
    keys: Vec<u64>,
    /// Numbers of the children to fit; earlier fits are reused for the others.
    fresh: Vec<usize>,
}

/// Fits of this epoch by structure.
type Seen = HashMap<u64, Fitted>;

/// Evolves islands in step until the next synchronisation.
pub(super) fn evolve(islands: &mut [Island], task: &Task) -> Result<()> {
    judge_again(islands, task)?;
    let mut seen = vec![Seen::new(); islands.len()];
    let first = |island: &mut Island| island.first(task);
    fit(islands, &mut seen, task, first, |island, members, _| {
        island.members.extend(members.into_iter().filter(|m| m.loss.is_finite()));
    })?;
    for batch in 0..task.batches {
        let late = task.deadline.is_some_and(|d| Instant::now() >= d);
        if late || task.observer.stop() {
            break;
        }
        let temperature = 1.0 - batch as f64 / task.batches as f64;
        let breed = |island: &mut Island| island.generation(task);
        fit(islands, &mut seen, task, breed, |island, members, parents| {
            island.select(members, parents, temperature, task);
        })?;
    }
    Ok(())
}

/// Losses of the members on new rows; members that are invalid there are removed.
fn judge_again(islands: &mut [Island], task: &Task) -> Result<()> {
    let candidates: Vec<Vec<Expression>> =
        islands.par_iter().map(|island| island.candidates(task)).collect();
    let losses = task.rules.score(task.evaluator, task.rows, &candidates.concat())?;
    let mut losses = losses.into_iter();
    for (island, candidates) in islands.iter_mut().zip(&candidates) {
        island.judged(candidates, losses.by_ref().take(candidates.len()), task);
    }
    Ok(())
}

/// Fits the children that `make` makes for each island, and returns its own to each.
fn fit(
    islands: &mut [Island],
    seen: &mut [Seen],
    task: &Task,
    make: impl Fn(&mut Island) -> Brood + Sync,
    take: impl Fn(&mut Island, Vec<Member>, Vec<Option<(f64, u32)>>) + Sync,
) -> Result<()> {
    let each = islands.par_iter_mut().zip(&*seen);
    let broods: Vec<Brood> = each
        .map(|(island, seen)| {
            let mut brood = make(island);
            island.choose(&mut brood, task, seen);
            brood
        })
        .collect();
    let fresh = |brood: &Brood| -> Vec<Expression> {
        brood.fresh.iter().map(|&i| brood.children[i].0.clone()).collect()
    };
    let fresh: Vec<Vec<Expression>> = broods.iter().map(fresh).collect();
    let how = (STEPS, task.rules.scaled(), 1e-3);
    let fitted = task.rules.fit(task.evaluator, task.rows, &fresh.concat(), how)?;
    let mut fitted = fitted.into_iter();
    let fitted: Vec<Vec<Fitted>> =
        fresh.iter().map(|own| fitted.by_ref().take(own.len()).collect()).collect();
    let each = islands.par_iter_mut().zip(seen).zip(broods).zip(fitted);
    each.for_each(|(((island, seen), mut brood), fitted)| {
        let parents = std::mem::take(&mut brood.parents);
        let members = island.fitted(brood, fitted, task, seen);
        take(island, members, parents);
    });
    Ok(())
}

fn pick(list: &[Expression], random: &mut Random) -> Option<Expression> {
    (!list.is_empty()).then(|| list[random.below(list.len())].clone())
}

impl Island {
    /// `guided`: half of its first members are guesses.
    pub fn new(seed: u64, stream: u64, guided: bool) -> Self {
        Island {
            members: VecDeque::new(),
            best: Vec::new(),
            evaluations: 0,
            node_evaluations: 0,
            guided,
            random: Random::new(seed, stream),
        }
    }

    /// Puts a newcomer in the place of a random member.
    pub fn receive(&mut self, member: Member) {
        if !self.members.is_empty() {
            let at = self.random.below(self.members.len());
            self.members[at] = member;
        }
    }

    /// The formulas of the members, at the start of an epoch.
    fn candidates(&self, task: &Task) -> Vec<Expression> {
        self.members.iter().map(|m| m.candidate(task.rules)).collect()
    }

    /// Stores the losses of its members on the rows of the epoch.
    fn judged(
        &mut self,
        candidates: &[Expression],
        losses: impl Iterator<Item = f64>,
        task: &Task,
    ) {
        self.best = vec![None; task.rules.settings.max_complexity as usize + 3];
        for (member, (loss, e)) in self.members.iter_mut().zip(losses.zip(candidates)) {
            member.loss = loss;
            self.node_evaluations += (e.nodes().len() * task.rows.rows()) as u64;
        }
        self.members.retain(|m| m.loss.is_finite());
        let members: Vec<Member> = self.members.iter().cloned().collect();
        members.iter().for_each(|m| self.record(m));
    }

    fn record(&mut self, member: &Member) {
        if let Some(best) = self.best.get_mut(member.complexity as usize)
            && best.as_ref().is_none_or(|b| member.loss < b.loss)
        {
            *best = Some(member.clone());
        }
    }

    /// The members that an island starts with; none if it has some already.
    fn first(&mut self, task: &Task) -> Brood {
        let mut brood = Brood::default();
        if !self.members.is_empty() {
            return brood;
        }
        for k in 0..task.population {
            let guided = self.guided && k % 2 == 0;
            let guess = guided.then(|| pick(task.guesses, &mut self.random)).flatten();
            let child = guess.unwrap_or_else(|| task.rules.beginning(&mut self.random));
            brood.children.extend(task.admit(&child));
        }
        brood
    }

    /// One batch of children.
    fn generation(&mut self, task: &Task) -> Brood {
        let mut brood = Brood::default();
        for _ in 0..BATCH {
            let (parent, child) = self.breed(task);
            if let Some(child) = child.and_then(|c| task.admit(&c)) {
                brood.parents.push(parent);
                brood.children.push(child);
            }
        }
        // Attempts count, or a language of few expressions would never reach its limit.
        self.evaluations += (BATCH - brood.children.len()) as u64;
        brood
    }

    /// Accepts some of a batch in place of the oldest members.
    fn select(
        &mut self,
        children: Vec<Member>,
        parents: Vec<Option<(f64, u32)>>,
        temperature: f64,
        task: &Task,
    ) {
        for (child, parent) in children.into_iter().zip(parents) {
            if !child.loss.is_finite() {
                continue;
            }
            let chance = parent.map_or(1.0, |(loss, complexity): (f64, u32)| {
                let worse = (child.loss.max(1e-30) / loss.max(1e-30)).ln().max(0.0);
                let crowd = task.crowding(complexity) - task.crowding(child.complexity);
                (-worse / temperature.max(1e-9) + crowd).exp()
            });
            if self.random.uniform() < chance {
                if self.members.len() >= POPULATION {
                    self.members.pop_front();
                }
                self.members.push_back(child);
            }
        }
    }

    /// A child, with its parent's loss and complexity where it has one parent.
    fn breed(&mut self, task: &Task) -> (Option<(f64, u32)>, Option<Expression>) {
        if self.members.is_empty() {
            return (None, Some(task.rules.beginning(&mut self.random)));
        }
        let parent = self.tournament(task);
        if self.random.uniform() < CROSSOVER {
            let other = self.tournament(task);
            let (a, b) = (&self.members[parent].f, &self.members[other].f);
            return (None, Some(task.rules.crossover(a, b, &mut self.random)));
        }
        let member = &self.members[parent];
        let mut child = task.rules.mutate(&member.f, &mut self.random);
        // Now and then two mutations at once.
        if self.random.uniform() < 0.25 {
            child = child.and_then(|c| task.rules.mutate(&c, &mut self.random));
        }
        (Some((member.loss, member.complexity)), child)
    }

    fn tournament(&mut self, task: &Task) -> usize {
        let mut rivals: Vec<(f64, usize)> = (0..TOURNAMENT)
            .map(|_| {
                let at = self.random.below(self.members.len());
                let member = &self.members[at];
                (member.loss.max(1e-30).ln() + task.crowding(member.complexity), at)
            })
            .collect();
        rivals.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let mut rank = 0;
        while rank + 1 < rivals.len() && self.random.uniform() > WINNER {
            rank += 1;
        }
        rivals[rank].1
    }

    /// Chooses which of the children to fit: structures already fitted on these rows are in `seen`.
    fn choose(&mut self, brood: &mut Brood, task: &Task, seen: &Seen) {
        self.evaluations += brood.children.len() as u64;
        brood.keys = brood.children.iter().map(|(f, _)| task.rules.structure(f)).collect();
        for (i, key) in brood.keys.iter().enumerate() {
            let known =
                seen.contains_key(key) || brood.fresh.iter().any(|&j| brood.keys[j] == *key);
            // Another start may find better constants.
            if !known || self.random.uniform() < 0.1 {
                brood.fresh.push(i);
            }
        }
    }

    /// The children as members, with the fits of those that were chosen.
    fn fitted(
        &mut self,
        brood: Brood,
        fitted: Vec<Fitted>,
        task: &Task,
        seen: &mut Seen,
    ) -> Vec<Member> {
        let Brood { children, keys, fresh, .. } = brood;
        for (i, fitted) in fresh.into_iter().zip(fitted) {
            let times = u64::from(fitted.evaluations);
            let nodes = children[i].0.nodes().len();
            self.node_evaluations += times * (nodes * task.rows.rows()) as u64;
            let known = seen.get(&keys[i]).map_or(f64::INFINITY, |k| k.loss);
            if fitted.loss < known || !known.is_finite() {
                seen.insert(keys[i], fitted);
            }
        }
        let members: Vec<Member> = children
            .into_iter()
            .zip(keys)
            .map(|((f, complexity), key)| Member::fitted(f, &seen[&key], complexity))
            .collect();
        members.iter().filter(|m| m.loss.is_finite()).for_each(|m| self.record(m));
        members
    }
}
