//! The numbers of a formula whose form is given, fitted from many starting points: a single fit ends in the valley
//! where it began.

use super::enumerate::StopCheck;
use super::island::Member;
use super::rules::size;
use super::search::Problem;
use super::state::State;
use super::template::Template;
use crate::error::Result;
use crate::formula::expression::Expression;
use crate::ops::expression::Evaluator;
use crate::random::Random;

/// Rounds; later ones also start near the best results of earlier ones.
const ROUNDS: usize = 6;
/// Starting points of a round, at most and at least, and what one step for all of them may cost: nodes × rows ×
/// numbers.
const MOST: usize = 256;
const FEWEST: usize = 16;
const COST: usize = 200_000_000;
/// Steps and tolerance from each starting point, then for the best ones, and the number of these.
const FIRST_STEPS: (u32, f64) = (8, 1e-3);
const GOOD_STEPS: (u32, f64) = (60, 1e-7);
const GOOD: usize = 16;
/// Spread, in decades, of the starting points around their scale and around a good one.
const WIDE: f64 = 1.2;
const NEAR: f64 = 0.3;

impl State<'_> {
    /// Puts the formula of a template that has only numbers to fit into the hall of fame.
    pub(super) fn fit_numbers(
        &mut self,
        template: &Template,
        evaluator: &Evaluator,
        late: &StopCheck,
    ) -> Result<()> {
        let drawn = self.some_rows();
        let scales = Scales::new(self.problem);
        let best = self.memory.hall.values().flatten().map(|f| f.member.clone());
        let mut good: Vec<Member> = best.collect();
        let numbers = template.parts.len();
        let nodes = template.formula(&ones(numbers)).nodes().len();
        let rows = drawn.as_ref().unwrap_or(&self.rows);
        let starts = (COST / (nodes * rows.rows() * numbers)).clamp(FEWEST, MOST);
        let resolution = self.resolution;
        for round in 0..ROUNDS {
            let random = &mut self.memory.random;
            let start = |k: usize| match good.get(k / 2 % good.len().max(1)) {
                Some(member) if k % 2 == 1 => near(&member.f, random),
                _ if (round, k) == (0, 0) => ones(numbers),
                _ => Template::join((0..numbers).map(|_| scales.draw(random)).collect()),
            };
            let begun: Vec<Expression> = (0..starts).map(start).collect();
            self.memory.planted += starts as u64;
            let mut fit = |begun: Vec<Expression>, (steps, tolerance)| -> Result<Vec<Member>> {
                let fitted = self.rules.fit(evaluator, rows, &begun, (steps, false, tolerance))?;
                let mut members = Vec::new();
                for (f, fitted) in begun.into_iter().zip(fitted) {
                    self.memory.node_evaluations +=
                        u64::from(fitted.evaluations) * (nodes * rows.rows()) as u64;
                    members.push(Member::fitted(f, &fitted, 0));
                }
                members.retain(|m| m.loss.is_finite());
                members.sort_by(|a, b| a.loss.total_cmp(&b.loss));
                Ok(members)
            };
            let mut first = fit(begun, FIRST_STEPS)?;
            first.truncate(GOOD);
            good.extend(fit(first.into_iter().map(|m| m.f).collect(), GOOD_STEPS)?);
            good.sort_by(|a, b| a.loss.total_cmp(&b.loss));
            good.truncate(GOOD);
            let exact = good.first().is_some_and(|m| m.loss <= resolution);
            if exact || late() {
                break;
            }
        }
        self.enter(evaluator, good, late)?;
        self.memory.done = true;
        Ok(())
    }
}

/// All numbers 1.
fn ones(numbers: usize) -> Expression {
    Template::join(vec![Expression::constant(1.0); numbers])
}

/// Numbers close to given ones.
fn near(numbers: &Expression, random: &mut Random) -> Expression {
    let mut moved = numbers.clone();
    let values: Vec<f64> =
        numbers.constants().iter().map(|v| v * 10f64.powf(NEAR * random.normal())).collect();
    moved.set_constants(&values);
    moved
}

/// Likely magnitudes of the numbers in a formula: those of the columns, their inverses, the target.
struct Scales {
    columns: Vec<f64>,
    target: f64,
}

impl Scales {
    fn new(problem: &Problem) -> Self {
        Scales {
            columns: problem.columns.iter().map(|column| size(column)).collect(),
            target: size(&problem.target),
        }
    }

    fn draw(&self, random: &mut Random) -> Expression {
        if random.uniform() < 0.3 {
            return Expression::constant(random.normal());
        }
        let column = self.columns[random.below(self.columns.len())];
        let scale = [1.0, 1.0, column, 1.0 / column][random.below(4)];
        let scale = scale * [1.0, 1.0, self.target][random.below(3)];
        let sign = if random.uniform() < 0.5 { -1.0 } else { 1.0 };
        Expression::constant(sign * scale * 10f64.powf(WIDE * random.normal()))
    }
}
