//! The hall of fame of a problem: what enters it is fitted on all rows.

use serde::{Deserialize, Serialize};

use super::enumerate::StopCheck;
use super::front::Front;
use super::island::Member;
use super::round;
use super::state::State;
use super::threshold;
use crate::error::Result;
use crate::formula::expression::Expression;
use crate::ops::expression::{Evaluator, Fitted, Rows};

/// In a table with more rows than this, constants are fitted on some rows first, then with a few steps on all.
const LONG: usize = 50_000;
const LAST_STEPS: u32 = 3;
/// Rows of a long table on which constants are fitted first, and rounded ones tried.
const SOME_ROWS: usize = 20_000;
/// Members fitted together on all rows, for a normal table and for a long one; the search looks at the clock in
/// between.
const TOGETHER: usize = 16;
const FEW_TOGETHER: usize = 2;
/// Steps and tolerance of the fit on all rows: for a member, and for what enters the hall of fame.
pub(super) const MEMBER_STEPS: (u32, f64) = (12, 1e-4);
const HALL_STEPS: (u32, f64) = (30, 1e-5);

/// A formula of the hall of fame.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct HallEntry {
    pub(super) loss: f64,
    /// The candidate with its scale and offset.
    pub(super) expression: Expression,
    pub(super) member: Member,
}

impl State<'_> {
    /// The smallest loss so far.
    pub(super) fn least(&self) -> f64 {
        let best = self.memory.hall.values().filter_map(|f| f.first());
        best.map(|f| f.loss).fold(f64::INFINITY, f64::min)
    }

    /// The front so far, in the units of the table.
    pub(super) fn front(&self) -> Front {
        let given = self.problem.given.as_ref();
        let best = self.memory.hall.iter().filter_map(|(&c, famous)| Some((c, famous.first()?)));
        let entry = |(c, famous): (u32, &HallEntry)| {
            let formula = self.rules.formula(&famous.expression);
            match given {
                Some(given) => {
                    (c, given.loss(self.rules.loss(), famous.loss), given.outward(&formula))
                }
                None => (c, famous.loss, formula),
            }
        };
        Front::new(best.map(entry).collect())
    }

    /// Puts a candidate into the hall of fame if it is among the best of its complexity.
    pub(super) fn insert_into_hall(&mut self, famous: HallEntry) {
        if !(famous.loss.is_finite() && famous.member.loss.is_finite()) {
            return;
        }
        let keep = self.rules.settings.keep.max(1);
        let all = self.memory.hall.entry(famous.member.complexity).or_default();
        // Only the best of each structure; the same loss means the same formula in another form.
        let key = self.rules.structure(&famous.expression);
        let same = |f: &HallEntry| {
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

    /// Fits members on all rows, with and without offset, and keeps the best of each complexity. The most promising
    /// come first: for a long table there may be time for only a few.
    pub(super) fn enter(
        &mut self,
        evaluator: &Evaluator,
        mut found: Vec<Member>,
        late: &StopCheck,
    ) -> Result<()> {
        found.sort_by(|a, b| a.loss.total_cmp(&b.loss).then(a.complexity.cmp(&b.complexity)));
        let together = if self.rows.rows() > LONG { FEW_TOGETHER } else { TOGETHER };
        for some in found.chunks(together) {
            self.enter_some(evaluator, some)?;
            if late() {
                break;
            }
        }
        Ok(())
    }

    /// The same for a few of them.
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
        let (steps, tolerance) = HALL_STEPS;
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
            self.insert_into_hall(HallEntry { loss, expression, member });
        }
        Ok(())
    }

    /// Fits candidates on all rows; for a long table on some of them first, so that only a few passes over all rows are
    /// left.
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
}

/// Nodes × rows of this many passes over rows.
fn cost(e: &Expression, passes: u32, rows: &Rows) -> u64 {
    u64::from(passes) * (e.nodes().len() * rows.rows()) as u64
}
