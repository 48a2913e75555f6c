//! The hall of fame of a problem: what enters it is fitted on all rows; at the end its constants are rounded, and
//! its best make the front.

use std::slice;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::front::{Entry, Front};
use super::island::Member;
use super::round;
use super::state::State;
use super::threshold;
use crate::error::Result;
use crate::formula::expression::Expression;
use crate::ops::expression::{Evaluator, Fitted, Loss, Rows};

/// Of a table with more rows than this, constants are fitted on some first, then with a few steps on
/// all.
const LONG: usize = 50_000;
const LAST_STEPS: u32 = 3;
/// Rows of a long table on which constants are fitted first, and rounded ones tried.
const SOME_ROWS: usize = 20_000;
/// Members that are fitted on all rows together; after that the search looks at the clock.
const TOGETHER: usize = 16;
/// Steps and tolerance of fitting on all rows: a member, and what enters the hall of fame.
pub(super) const MEMBER_STEPS: (u32, f64) = (12, 1e-4);
const FAMOUS_STEPS: (u32, f64) = (30, 1e-5);

/// A formula of the hall of fame.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Famous {
    pub(super) loss: f64,
    /// The candidate with its scale and offset.
    pub(super) expression: Expression,
    pub(super) member: Member,
}

impl State<'_> {
    /// A loss that rounding to single precision explains: nothing smaller is worth a node more.
    pub(super) fn resolution(&self) -> f64 {
        let settings = self.rules.settings;
        let part = 2.0 * f64::from(f32::EPSILON);
        match settings.loss {
            Loss::Mae => part * self.rows.sizes()[0],
            Loss::Mse => part * part * self.rows.sizes()[1],
        }
    }

    /// The smallest loss so far.
    pub(super) fn least(&self) -> f64 {
        let best = self.memory.hall.values().filter_map(|f| f.first());
        best.map(|f| f.loss).fold(f64::INFINITY, f64::min)
    }

    pub(super) fn front(&self) -> Front {
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

    pub(super) fn kept(&self) -> Vec<(u32, f64, Expression)> {
        let all =
            self.memory.hall.iter().flat_map(|(&c, famous)| famous.iter().map(move |f| (c, f)));
        all.map(|(c, f)| (c, f.loss, self.rules.formula(&f.expression))).collect()
    }

    /// Of each entry of the front, under a template.
    pub(super) fn parts(&self) -> Vec<Vec<Expression>> {
        let Some(template) = &self.problem.template else { return Vec::new() };
        let parts =
            |entry: &Entry| template.split(&self.memory.hall[&entry.complexity][0].expression);
        self.front().entries.iter().map(parts).collect()
    }

    /// Puts a candidate into the hall of fame, if it is among the best of its complexity.
    pub(super) fn honour(&mut self, famous: Famous) {
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

    /// Fits members on all rows, with and without offset; the best of each complexity stay. The most
    /// promising come first: a long table may have time for few.
    pub(super) fn enter(
        &mut self,
        evaluator: &Evaluator,
        mut found: Vec<Member>,
        deadline: Option<Instant>,
    ) -> Result<()> {
        found.sort_by(|a, b| a.loss.total_cmp(&b.loss).then(a.complexity.cmp(&b.complexity)));
        for some in found.chunks(TOGETHER) {
            self.enter_some(evaluator, some)?;
            if deadline.is_some_and(|d| Instant::now() >= d) {
                break;
            }
        }
        Ok(())
    }

    /// The same for a few.
    fn enter_some(&mut self, evaluator: &Evaluator, found: &[Member]) -> Result<()> {
        let scaled = self.rules.scaled();
        let settings = self.rules.settings;
        let (steps, tolerance) = MEMBER_STEPS;
        let shapes: Vec<Expression> = found.iter().map(|m| m.f.clone()).collect();
        let first = self.fit(evaluator, &shapes, (steps, scaled, tolerance))?;
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
        let fitted = self.fit(evaluator, &candidates, (steps, false, tolerance))?;
        for (candidate, fitted) in candidates.iter_mut().zip(&fitted) {
            let rounded: Vec<f64> = fitted.constants.iter().map(|&c| round::digits(c)).collect();
            candidate.set_constants(&rounded);
            threshold::settle(&self.rules, evaluator, &self.rows, candidate)?;
            // A factor of 1 or an offset of 0 may have appeared.
            *candidate = self.rules.simplified(candidate);
        }
        let losses = self.rules.score(evaluator, &self.rows, &candidates)?;
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
        evaluator: &Evaluator,
        candidates: &[Expression],
        (steps, scaled, tolerance): (u32, bool, f64),
    ) -> Result<Vec<Fitted>> {
        let long = self.rows.rows() > LONG;
        let mut begun = candidates.to_vec();
        if long {
            let some = self.draw(SOME_ROWS);
            let how = (steps, scaled, tolerance);
            for (e, fitted) in
                begun.iter_mut().zip(self.rules.fit(evaluator, &some, candidates, how)?)
            {
                e.set_constants(&fitted.constants);
                self.memory.node_evaluations += cost(e, fitted.evaluations, &some);
            }
        }
        let how = (if long { LAST_STEPS } else { steps }, scaled, tolerance);
        let fitted = self.rules.fit(evaluator, &self.rows, &begun, how)?;
        for (e, fitted) in begun.iter().zip(&fitted) {
            self.memory.node_evaluations += cost(e, fitted.evaluations, &self.rows);
        }
        Ok(fitted)
    }

    /// Puts rounded constants in place of those that the search fitted, where the loss bears it; what
    /// becomes shorter by that is one more point of the front.
    pub(super) fn round(&mut self) -> Result<()> {
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
            let loss = self.rules.score(&Evaluator::cpu(), &self.rows, found)?[0];
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
}

/// Nodes × rows of so many passes over rows.
fn cost(e: &Expression, passes: u32, rows: &Rows) -> u64 {
    u64::from(passes) * (e.nodes().len() * rows.rows()) as u64
}
