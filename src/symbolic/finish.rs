//! The end of a search: its hall of fame in the units of the table and in double precision.
//!
//! Constants are fitted once more; parts and constants that the data do not need are dropped; simple numbers replace
//! fitted ones where the loss allows, and no number keeps more digits than the loss needs. The results are compared
//! afresh: a formula that only fits the rounding of the data does not stay on the front.

use std::collections::{BTreeMap, HashSet};

use rayon::prelude::*;

use super::front::{DescriptionLength, Front};
use super::mutate::replace;
use super::precision::sensitivity;
use super::round;
use super::rules::Rules;
use super::state::State;
use super::threshold;
use crate::formula::expression::{Expression, Node, Op};
use crate::formula::print::number;
use crate::ops::expression::Loss;
use crate::ops::expression::exact::Exact;

/// Rows of a long table to which constants are fitted, …
const SOME: usize = 20_000;
/// … and those on which parts are dropped and constants rounded.
const FEW: usize = 1_000;
/// In a table with more rows than this all of them judge a formula, and only some fit it: that determines constants
/// well enough.
const LONG: usize = 200_000;
/// Steps and tolerance of the fit on all rows, after that on some.
const LAST: (u32, f64) = (3, 1e-9);
/// Steps and tolerance for the formulas of the search, and for what is left when a part of one is dropped.
const FAMOUS: (u32, f64) = (40, 1e-10);
const DROPPED: (u32, f64) = (12, 1e-4);
/// Rounds of dropping: a formula that became shorter may allow another drop.
const ROUNDS: usize = 2;
/// A loss of up to this many times that of rounding counts as rounding.
const EXACT: f64 = 1.6;

/// A loss of up to this fraction of the target is that of a law whose constants are fitted in double precision.
const NEAR_ZERO: f64 = 1e-9;

/// The result.
pub(super) struct Finished {
    pub front: Front,
    /// The best of each complexity, on the front or not.
    pub kept: Vec<(u32, f64, Expression)>,
    /// With a template, the parts of each entry of the front.
    pub parts: Vec<Vec<Expression>>,
}

/// A candidate with its loss on all rows.
#[derive(Clone)]
struct Found {
    complexity: u32,
    loss: f64,
    candidate: Expression,
}

/// What formulas are judged by.
struct Judge<'a> {
    rules: &'a Rules<'a>,
    all: Exact,
    some: Option<Exact>,
    few: Option<Exact>,
    /// The largest loss that the rounding of the target can cause.
    floor: f64,
}

impl State<'_> {
    /// The final hall of fame; if time is short, without the steps that shorten formulas.
    pub(super) fn finished_hall(&self, hurried: bool) -> Finished {
        let judge = Judge::new(&self.rules);
        let famous: Vec<Expression> =
            self.memory.hall.values().flatten().map(|f| self.outward(&f.expression)).collect();
        let steps = if hurried { LAST } else { FAMOUS };
        let fitted = famous.par_iter().filter_map(|e| judge.fitted(e, steps));
        let mut hall = Hall { keep: self.rules.settings.keep.max(1), best: BTreeMap::new() };
        fitted.collect::<Vec<Found>>().into_iter().for_each(|found| hall.enter(found));
        // If only numbers were to be fitted, they stay as they are.
        if !hurried && self.rules.searches() {
            judge.drop_parts(&mut hall);
            judge.round(&mut hall);
        }
        let mut front = hall.front(&self.rules);
        if let Some(exact) = judge.first_exact(&hall, &front) {
            front.entries.truncate(exact + 1);
        }
        let settings = self.rules.settings;
        front.description = (!self.rules.has_own_loss()).then(|| DescriptionLength {
            rows: self.rules.row_count(),
            power: if settings.loss == Loss::Mse { 2.0 } else { 1.0 },
            floor: judge.floor,
            symbols: settings.operators.len() + self.problem.columns.len() + 1,
        });
        let template = self.problem.template.iter();
        let parts = template.flat_map(|template| {
            let of = |complexity| template.split(&hall.best[&complexity][0].candidate);
            front.entries.iter().map(move |entry| of(entry.complexity)).collect::<Vec<_>>()
        });
        let parts = parts.collect();
        let formula =
            |found: &Found| (found.complexity, found.loss, self.rules.formula(&found.candidate));
        let kept = hall.best.values().flatten().map(formula).collect();
        Finished { front, kept, parts }
    }
}

impl State<'_> {
    /// True if the best formula, whose loss single precision cannot tell from zero, is as good in double precision: else
    /// a series may have come that close.
    pub(super) fn is_exact(&self) -> bool {
        if self.rules.row_count() > SOME || self.rules.has_own_loss() {
            return true;
        }
        let best = self.memory.hall.values().filter_map(|all| all.first());
        let Some(best) = best.min_by(|a, b| a.loss.total_cmp(&b.loss)) else { return false };
        let judge = Judge::new(&self.rules);
        let best = self.outward(&best.expression);
        let Some(found) = judge.fitted(&best, FAMOUS) else { return false };
        let inputs = sensitivity(&self.rules, judge.few(), &found.candidate);
        let sizes = judge.all.target().iter().map(|y| y.abs());
        let size = NEAR_ZERO * sizes.sum::<f64>() / judge.all.rows() as f64;
        let near = if self.rules.loss() == Loss::Mse { size * size } else { size };
        found.loss <= near.max(EXACT * (judge.floor + inputs))
    }

    /// A candidate in the units of the table.
    fn outward(&self, candidate: &Expression) -> Expression {
        match &self.problem.given {
            Some(given) => given.outward(candidate),
            None => candidate.clone(),
        }
    }
}

/// The best of each complexity, the best first.
struct Hall {
    keep: usize,
    best: BTreeMap<u32, Vec<Found>>,
}

impl Hall {
    fn enter(&mut self, found: Found) {
        let all = self.best.entry(found.complexity).or_default();
        // The same loss means the same formula in another form.
        if all.iter().any(|other| (other.loss - found.loss).abs() <= 1e-6 * found.loss) {
            return;
        }
        let at = all.partition_point(|other| other.loss <= found.loss);
        all.insert(at, found);
        all.truncate(self.keep);
    }

    fn front(&self, rules: &Rules) -> Front {
        let best = self.best.values().filter_map(|all| all.first());
        let entry = |f: &Found| (f.complexity, f.loss, rules.formula(&f.candidate));
        Front::new(best.map(entry).collect())
    }

    /// Those with no shorter formula as good.
    fn pareto(&self) -> Vec<Found> {
        let mut least = f64::INFINITY;
        let mut found = Vec::new();
        for best in self.best.values().filter_map(|all| all.first()) {
            if best.loss < least {
                least = best.loss;
                found.push(best.clone());
            }
        }
        found
    }
}

/// This many rows of a longer table, spread evenly.
fn thinned(all: &Exact, most: usize) -> Option<Exact> {
    let rows_with_weight: Vec<u32> =
        (0..all.rows() as u32).filter(|&row| all.weights()[row as usize] > 0.0).collect();
    let every = rows_with_weight.len().div_ceil(most);
    let rows: Vec<u32> = rows_with_weight.iter().copied().step_by(every.max(1)).collect();
    (rows.len() < all.rows()).then(|| all.gather(&rows))
}

impl<'a> Judge<'a> {
    fn new(rules: &'a Rules) -> Self {
        let all = rules.exact();
        let floor = rules.floor();
        let [some, few] = [SOME, FEW].map(|most| thinned(&all, most));
        Judge { rules, all, some, few, floor }
    }

    fn few(&self) -> &Exact {
        self.few.as_ref().unwrap_or(&self.all)
    }

    /// A candidate with its constants fitted; None if it is not valid on all rows, or too long.
    fn fitted(&self, candidate: &Expression, steps: (u32, f64)) -> Option<Found> {
        let mut candidate = candidate.clone();
        let mut fit = |rows: &Exact, steps| {
            let (loss, constants) = self.rules.exact_fit(rows, &candidate, &[], steps);
            candidate.set_constants(&constants);
            loss
        };
        let loss = match &self.some {
            None => fit(&self.all, steps),
            Some(some) if !fit(some, steps).is_finite() => return None,
            Some(_) if self.all.rows() > LONG => self.rules.exact_loss(&self.all, &candidate),
            Some(_) => fit(&self.all, LAST),
        };
        self.found(candidate, loss)
    }

    /// A candidate with its loss, if it is allowed on the front.
    fn found(&self, candidate: Expression, loss: f64) -> Option<Found> {
        let complexity = self.rules.complexity(&candidate);
        let admitted =
            loss.is_finite() && self.rules.admits(&candidate) && self.rules.has_shape(&candidate);
        admitted.then_some(Found { complexity, loss, candidate })
    }

    /// Drops each part of the formulas of the front in turn, and puts the results into the hall where they are better
    /// than what is there.
    fn drop_parts(&self, hall: &mut Hall) {
        if self.rules.is_template() {
            return;
        }
        let mut tried: HashSet<(u32, u64)> = HashSet::new();
        for _ in 0..ROUNDS {
            let whole = hall.pareto();
            let shorter = whole.iter().flat_map(|found| {
                let parts = without_parts(&found.candidate, self.few()).into_iter();
                parts.map(|e| self.rules.simplified(&e)).map(move |e| (found.complexity, e))
            });
            let shorter = shorter.filter(|(longer, e)| {
                let complexity = self.rules.complexity(e);
                complexity < *longer && tried.insert((complexity, self.rules.structure(e)))
            });
            let shorter: Vec<Expression> = shorter.map(|(_, e)| e).collect();
            let fit = |mut e: Expression| {
                let (loss, constants) = self.rules.exact_fit(self.few(), &e, &[], DROPPED);
                e.set_constants(&constants);
                (self.rules.complexity(&e), loss, e)
            };
            let mut shorter: Vec<(u32, f64, Expression)> =
                shorter.into_par_iter().map(fit).collect();
            shorter.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
            shorter.dedup_by_key(|found| found.0);
            // On the same rows.
            let known: Vec<(u32, f64)> = whole
                .par_iter()
                .map(|w| (w.complexity, self.rules.exact_loss(self.few(), &w.candidate)))
                .collect();
            let better = |(complexity, loss, _): &(u32, f64, Expression)| {
                known.iter().all(|(other, known)| other > complexity || loss < known)
            };
            shorter.retain(better);
            if shorter.is_empty() {
                break;
            }
            let found: Vec<Found> =
                shorter.par_iter().filter_map(|found| self.fitted(&found.2, FAMOUS)).collect();
            found.into_iter().for_each(|found| hall.enter(found));
        }
    }

    /// Replaces fitted constants by rounded ones where the loss allows; what becomes shorter is a new point of the
    /// front.
    fn round(&self, hall: &mut Hall) {
        let mut done: HashSet<(u32, u64)> = HashSet::new();
        let key = |found: &Found| (found.complexity, self.rules.structure(&found.candidate));
        loop {
            // A rounded formula may be worse than before, and let a longer one onto the front.
            let mut front = hall.pareto();
            front.retain(|found| done.insert(key(found)));
            if front.is_empty() {
                return;
            }
            let rounded: Vec<Option<Found>> =
                front.par_iter().map(|found| self.rounded(found)).collect();
            for (before, rounded) in front.into_iter().zip(rounded) {
                let Some(rounded) = rounded else { continue };
                let new = done.insert(key(&rounded));
                let all = hall.best.get_mut(&before.complexity).expect("it is there");
                if rounded.complexity == before.complexity {
                    all[0] = rounded;
                } else {
                    // As good, and shorter; unless this formula has been rounded already, with simpler numbers.
                    all.remove(0);
                    let limit = self.tolerated(&rounded);
                    let same = |other: &Found| key(other) == key(&rounded) && other.loss <= limit;
                    let known = hall.best.get(&rounded.complexity);
                    if new || !known.is_some_and(|all| all.iter().any(same)) {
                        hall.enter(rounded);
                    }
                }
            }
        }
    }

    /// The largest loss that counts as that of `found`.
    fn tolerated(&self, found: &Found) -> f64 {
        let floor = self.floor + sensitivity(self.rules, self.few(), &found.candidate);
        round::limit(found.loss, self.all.rows(), floor)
    }

    fn rounded(&self, found: &Found) -> Option<Found> {
        let mut candidate = found.candidate.clone();
        threshold::shorten(self.rules, &self.all, &mut candidate);
        let floor = self.floor + sensitivity(self.rules, self.few(), &candidate);
        let limit = round::limit(found.loss, self.all.rows(), floor);
        let simple = |candidate: &Expression| {
            let rounded = round::rounded(self.rules, self.few(), candidate, floor);
            let simple = self.rules.simplified(&rounded);
            let loss = self.rules.exact_loss(&self.all, &simple);
            let simple = self.found(simple, loss)?;
            (simple.loss <= limit && simple.complexity <= found.complexity).then_some(simple)
        };
        let apart = (!self.rules.is_template()).then(|| distributed(&candidate)).flatten();
        let shortest = [Some(&candidate), apart.as_ref()].into_iter().flatten().filter_map(simple);
        if let Some(shortest) = shortest.min_by_key(written) {
            return Some(shortest);
        }
        // On a few rows too much was rounded: shorten digits only.
        let rows = self.some.as_ref().unwrap_or(&self.all);
        let short = round::shortened(self.rules, rows, &candidate, Vec::new(), floor);
        let loss = self.rules.exact_loss(&self.all, &short);
        self.found(short, loss)
    }

    /// The first entry whose loss is explained by rounding of the data: nothing longer can be better.
    fn first_exact(&self, hall: &Hall, front: &Front) -> Option<usize> {
        front.entries.iter().position(|entry| {
            let candidate = &hall.best[&entry.complexity][0].candidate;
            let inputs = sensitivity(self.rules, self.few(), candidate);
            entry.loss <= EXACT * (self.floor + inputs)
        })
    }
}

/// Length: in nodes and constants, and as text.
fn written(found: &Found) -> (u32, usize) {
    let digits = |c: f64| number(c).len();
    (found.complexity, found.candidate.constants().into_iter().map(digits).sum())
}

/// c · (a + b) as c · a + c · b, in which numbers may be simple that are not so in the first form.
fn distributed(e: &Expression) -> Option<Expression> {
    let factors = e.operands();
    match e.root() {
        Node::Op(Op::Mul) => {}
        // Of each term of a sum that has such factors.
        Node::Op(op @ (Op::Add | Op::Sub)) => {
            let apart: Vec<Option<Expression>> = factors.iter().map(distributed).collect();
            let terms = apart.iter().zip(&factors).map(|(apart, e)| apart.as_ref().unwrap_or(e));
            let terms: Vec<Expression> = terms.cloned().collect();
            return apart.iter().any(Option::is_some).then(|| Expression::apply(op, &terms));
        }
        _ => return None,
    }
    let at = factors.iter().position(|factor| factor.as_constant().is_some())?;
    let (factor, sum) = (factors[at].as_constant()?, &factors[1 - at]);
    let is_sum = matches!(sum.root(), Node::Op(Op::Add | Op::Sub));
    is_sum.then(|| times(factor, sum))
}

/// A sum with each term multiplied by a factor; any other expression is multiplied as a whole.
fn times(factor: f64, e: &Expression) -> Expression {
    match e.root() {
        Node::Op(op @ (Op::Add | Op::Sub)) => {
            let terms: Vec<Expression> =
                e.operands().iter().map(|term| times(factor, term)).collect();
            Expression::apply(op, &terms)
        }
        _ => e.absorb(factor).unwrap_or_else(|| {
            Expression::apply(Op::Mul, &[Expression::constant(factor), e.clone()])
        }),
    }
}

/// The expression without each of its parts in turn: an operator is replaced by one of its operands, or by a constant.
fn without_parts(e: &Expression, rows: &Exact) -> Vec<Expression> {
    let row: Vec<f64> = rows.columns().iter().map(|column| column[0]).collect();
    let mut found = Vec::new();
    for (at, node) in e.nodes().iter().enumerate() {
        let Node::Op(_) = node else { continue };
        let part = e.subtree(at);
        let value = part.eval(&row);
        let constant = value.is_finite().then(|| Expression::constant(value));
        let mut operands = part.operands();
        if let (Node::Op(Op::Sub), [_, b]) = (part.root(), &mut operands[..]) {
            *b = times(-1.0, b);
        }
        for instead in operands.into_iter().chain(constant) {
            found.push(replace(e, at, &instead));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_are_distributed() {
        let apart = |text: &str| {
            let e = Expression::parse(text, &["x", "y"]).unwrap();
            distributed(&e).map(|e| e.simplified().text(&["x", "y"]))
        };
        assert_eq!(apart("3 * (x * x - 0.5 * y)").as_deref(), Some("3 * x * x - 1.5 * y"));
        assert_eq!(apart("(x + y - 2) * 4").as_deref(), Some("4 * x + 4 * y - 8"));
        assert_eq!(apart("2 * (x - 0.1 * y) + 4").as_deref(), Some("2 * x - 0.2 * y + 4"));
        assert_eq!(apart("3 * (x * y) + y"), None);
    }

    #[test]
    fn parts_go_one_at_a_time() {
        let rows = Exact::new(vec![vec![2.0; 3], vec![5.0; 3]], vec![1.0; 3], None);
        let e = Expression::parse("x + 0.001 * exp(y)", &["x", "y"]).unwrap();
        let found: Vec<String> =
            without_parts(&e, &rows).iter().map(|e| e.text(&["x", "y"])).collect();
        for expected in ["x", "0.001 * exp(y)", "x + 0.001", "x + exp(y)", "x + 0.001 * y"] {
            assert!(found.iter().any(|text| text == expected), "{expected}: {found:?}");
        }
    }
}
