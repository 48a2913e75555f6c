//! One island: a small population that evolves on its own between two synchronisations.
//!
//! Regularised evolution: each batch of children comes from tournaments on one snapshot, all are
//! fitted at once (one call of the operation, so that a GPU could take it), and those that are
//! accepted replace the oldest members in order. A member is a shape f whose scale and offset are
//! fitted with its constants, so that a right shape ranks high at once; its complexity is that of the
//! whole formula offset + scale · f.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::expression::{Expression, Node, Op};
use super::rules::Rules;
use crate::device::Device;
use crate::error::Result;
use crate::ops::expression::{Fitted, Rows};
use crate::random::Random;

/// Members of an island.
pub(super) const POPULATION: usize = 64;
/// Children from one snapshot.
pub(super) const BATCH: usize = 16;
/// Members that compete to be a parent, and the chance of the best, of the next, ….
const TOURNAMENT: usize = 8;
const WINNER: f64 = 0.8;
const CROSSOVER: f64 = 0.15;
/// Steps of fitting a child.
const STEPS: u32 = 8;
/// How much an overcrowded complexity loses in tournaments.
const CROWDING: f64 = 20.0;

/// A shape with its fitted scale and offset.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Member {
    /// f, constants fitted.
    pub f: Expression,
    pub scale: f64,
    pub offset: f64,
    /// On the rows of the moment.
    pub loss: f64,
    /// Of `candidate`.
    pub complexity: u32,
}

impl Member {
    /// offset + scale · f.
    pub fn candidate(&self, rules: &Rules) -> Expression {
        rules.with_scale(&self.f, self.scale, self.offset)
    }

    /// f with constants as fitted.
    pub fn fitted(mut f: Expression, fitted: &Fitted, complexity: u32) -> Self {
        f.set_constants(&fitted.constants);
        let Fitted { loss, scale, offset, .. } = *fitted;
        Member { f, scale, offset, loss, complexity }
    }
}

/// The same for expressions that differ in constants only (thresholds of comparisons count, because
/// fitting does not move them, and all constants where it is to be `exact`).
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
    pub device: &'a Device,
    pub rows: &'a Rows,
    pub rules: &'a Rules<'a>,
    /// No formula is longer for now.
    pub limit: u32,
    /// Share of each complexity among all members of the problem.
    pub frequency: &'a [f64],
    /// Expressions that some islands begin with.
    pub guesses: &'a [Expression],
    /// Members that an island begins with.
    pub population: usize,
    pub batches: usize,
    pub deadline: Option<Instant>,
}

impl Task<'_> {
    fn crowding(&self, complexity: u32) -> f64 {
        let share = self.frequency.get(complexity as usize).copied().unwrap_or(0.0);
        CROWDING * share
    }

    /// The form under which an expression is a member, and the complexity of its formula.
    pub fn admit(&self, e: &Expression) -> Option<(Expression, u32)> {
        let f = self.rules.with_exponents(self.rules.canonical(e)?);
        let small = f.nodes().iter().all(|n| !matches!(n, Node::Constant(c) if !c.is_finite()));
        let complexity = self.rules.complexity(&self.rules.with_scale(&f, 2.0, 1.0));
        // Without its offset the formula may be two shorter.
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
    /// True where half of the first members are guesses.
    guided: bool,
    random: Random,
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

    /// Evolves until the next synchronisation.
    pub fn evolve(&mut self, task: &Task) -> Result<()> {
        self.best = vec![None; task.rules.settings.max_complexity as usize + 3];
        self.judge_again(task)?;
        let mut seen = HashMap::new();
        if self.members.is_empty() {
            let mut children = Vec::with_capacity(POPULATION);
            for k in 0..task.population {
                let guided = self.guided && k % 2 == 0;
                let guess = guided.then(|| pick(task.guesses, &mut self.random)).flatten();
                let child = guess.unwrap_or_else(|| task.rules.beginning(&mut self.random));
                children.extend(task.admit(&child));
            }
            let members = self.fit(children, task, &mut seen)?;
            self.members.extend(members.into_iter().filter(|m| m.loss.is_finite()));
        }
        for batch in 0..task.batches {
            let late = task.deadline.is_some_and(|d| Instant::now() >= d);
            if late || crate::interrupt::requested() {
                break;
            }
            let temperature = 1.0 - batch as f64 / task.batches as f64;
            self.generation(task, temperature, &mut seen)?;
        }
        Ok(())
    }

    /// Losses of the members on new rows; those that are invalid there go.
    fn judge_again(&mut self, task: &Task) -> Result<()> {
        let candidates: Vec<Expression> =
            self.members.iter().map(|m| m.candidate(task.rules)).collect();
        let losses = task.rules.score(task.device, task.rows, &candidates)?;
        for (member, (loss, e)) in self.members.iter_mut().zip(losses.iter().zip(&candidates)) {
            member.loss = *loss;
            self.node_evaluations += (e.nodes().len() * task.rows.rows()) as u64;
        }
        self.members.retain(|m| m.loss.is_finite());
        let members: Vec<Member> = self.members.iter().cloned().collect();
        members.iter().for_each(|m| self.record(m));
        Ok(())
    }

    fn record(&mut self, member: &Member) {
        if let Some(best) = self.best.get_mut(member.complexity as usize)
            && best.as_ref().is_none_or(|b| member.loss < b.loss)
        {
            *best = Some(member.clone());
        }
    }

    /// One batch of children.
    fn generation(
        &mut self,
        task: &Task,
        temperature: f64,
        seen: &mut HashMap<u64, Fitted>,
    ) -> Result<()> {
        let mut parents = Vec::with_capacity(BATCH);
        let mut children = Vec::with_capacity(BATCH);
        for _ in 0..BATCH {
            let (parent, child) = self.breed(task);
            if let Some(child) = child.and_then(|c| task.admit(&c)) {
                parents.push(parent);
                children.push(child);
            }
        }
        // Attempts count, or a language of few expressions would never reach its limit.
        self.evaluations += (BATCH - children.len()) as u64;
        let fitted = self.fit(children, task, seen)?;
        for (child, parent) in fitted.into_iter().zip(parents) {
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
        Ok(())
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
        // Now and then two steps at once.
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

    /// Fits `children`; a structure that was fitted on these rows before is taken from `seen`.
    fn fit(
        &mut self,
        children: Vec<(Expression, u32)>,
        task: &Task,
        seen: &mut HashMap<u64, Fitted>,
    ) -> Result<Vec<Member>> {
        self.evaluations += children.len() as u64;
        let keys: Vec<u64> = children.iter().map(|(f, _)| task.rules.structure(f)).collect();
        let mut fresh: Vec<usize> = Vec::new();
        for (i, key) in keys.iter().enumerate() {
            let known = seen.contains_key(key) || fresh.iter().any(|&j| keys[j] == *key);
            // Another start may find better constants.
            if !known || self.random.uniform() < 0.1 {
                fresh.push(i);
            }
        }
        let some: Vec<Expression> = fresh.iter().map(|&i| children[i].0.clone()).collect();
        let how = (STEPS, task.rules.scaled(), 1e-3);
        let fitted = task.rules.fit(task.device, task.rows, &some, how)?;
        for ((i, fitted), e) in fresh.into_iter().zip(fitted).zip(some) {
            let times = u64::from(fitted.evaluations);
            self.node_evaluations += times * (e.nodes().len() * task.rows.rows()) as u64;
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
        Ok(members)
    }
}
