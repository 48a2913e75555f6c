//! A pair force fitted to accelerations directly, for data whose messages have no law.
//!
//! A network can predict well with messages that are not forces. In one run of planets the masses tell the bodies
//! apart and the velocities tell the forces; in close encounters messages saturate. Where the composed formula is no
//! law, the accelerations are fitted by
//!
//!   a = Σ over senders of w f(r) d/r + what a node feels by itself,
//!
//! with a factor w of masses and charges, f a cubic spline in ln r (linear least squares), and constants, drag and
//! place. Symbolic regression then finds f, and all constants are refitted on accelerations through the sums.

use super::edges::Inputs;
use super::formula::Formula;
use super::laws::{NODE, Search, search};
use super::nodes::Graphs;
use super::run::Compute;
use crate::error::{Error, Kind, Result};
use crate::formula::expression::{Expression, Node, Op};
use crate::linear::Normal;
use crate::model::layout::BodyLayout;
use crate::nbody::spline::{INTERVALS, SPLINE, range, splines};
use crate::symbolic::search::Problem;

/// Ridge of the least squares, relative to the diagonal.
const RIDGE: f64 = 1e-9;
/// Own terms stay if the error without them is this many times larger.
const WORTH: f64 = 1.05;
/// A spline with a larger error, relative to the accelerations, is no pair force.
const NO_FORCE: f64 = 0.5;
/// Two kinds of bodies with strengths of their own must lower the error to this fraction.
const OF_KINDS: f64 = 0.8;
/// Steps of the power method that finds them.
const POWER_STEPS: usize = 50;
/// Points of the profile in the search for its law.
const POINTS: usize = 500;
/// Error of the spline itself, relative to the largest force …
const SPLINE_ERROR: f64 = 2e-3;
/// … within so many points.
const NEARBY: usize = 3 * POINTS / (2 * INTERVALS);
/// The simplest law whose error is at most this many times the smallest is taken, …
const AS_GOOD: f64 = 1.5;
/// … or smaller than this fraction of the accelerations, where only rounding is left.
const ROUNDING: f64 = 1e-5;

/// Exponents this near to whole numbers are tried as these.
const NEAR_WHOLE: f64 = 0.35;

const STOPPED: &str = "stopped while fitting a pair force; the laws are kept: distill --resume continues from there, \
                       compose starts again";

/// What a force between two bodies may be proportional to, divided by the mass that is accelerated.
const FACTORS: [&str; 12] = [
    "1",
    "m2",
    "1/m1",
    "m2/m1",
    "q2",
    "q1*q2",
    "q2/m1",
    "q1*q2/m1",
    "q2*m2",
    "q1*q2*m2",
    "q2*m2/m1",
    "q1*q2*m2/m1",
];

/// Own terms of a node along the axis `K`; each has a coefficient for every axis.
const OWN: [&str; 5] = ["1", "vK", "vK / m", "K", "K / m"];

/// The data and the variables that the formula may have.
pub struct Accelerations<'a> {
    /// Variables of pairs, with the periodic box.
    pub inputs: &'a Inputs,
    /// A formula without expressions: variables and units, and names of the messages, one for each axis.
    pub formula: Formula,
    /// True for variables that laws may have, by their names in formulas of nodes.
    pub allowed: &'a dyn Fn(&str) -> bool,
    /// States to fit to.
    pub fitting: &'a Graphs,
    /// Others on which errors are measured.
    pub judging: &'a Graphs,
}

/// A term of the fit as a function of the pair or of the node.
#[derive(Clone)]
struct Term {
    text: String,
    expression: Expression,
}

/// A least-squares fit of the spline.
struct Profile {
    factor: Term,
    own: Vec<usize>,
    /// The spline's coefficients, then those of the own terms.
    coefficients: Vec<f64>,
    /// Of the coefficients, `[coefficients, coefficients]`.
    covariance: Vec<f64>,
    /// Weighted error on the states for judging, relative to the accelerations.
    error: f64,
}

/// One equation: the acceleration of a node along an axis.
struct Row {
    values: Vec<f64>,
    target: f64,
    weight: f64,
}

impl Accelerations<'_> {
    /// The formula with constants refitted on `last`, and its loss there; `None` if no such force explains much.
    ///
    /// # Errors
    /// `interrupted` if the observer stops it.
    pub fn law(&self, at: Compute, how: Search, last: &Graphs) -> Result<Option<(Formula, f64)>> {
        let Some(range) = self.range() else { return Ok(None) };
        let Some(profile) = self.profile(range) else { return Ok(None) };
        at.observer.note("fitting a pair force to the accelerations directly");
        let problem = self.problem(&profile, range);
        let targets = vec!["force".to_string()];
        let found = search(at, None, &self.formula.terms, how, NODE, targets, vec![problem], None);
        let found = found.map_err(|e| match e.kind {
            Kind::Interrupted => Error::interrupted(STOPPED),
            _ => e,
        })?;
        let mut fitted = Vec::new();
        let laws = found[0].front.entries.iter().flat_map(|entry| {
            let whole = with_whole_exponents(&entry.expression);
            whole.into_iter().chain([entry.expression.clone()])
        });
        for law in laws {
            let mut formula = self.compose(&profile, &law);
            let Graphs { features, targets, bodies, .. } = self.fitting;
            formula.refit_alike(features, targets, bodies, at.observer)?;
            let error = self.error(&formula);
            if error.is_finite() {
                fitted.push((error, formula));
            }
        }
        let Some(least) = fitted.iter().map(|(error, _)| *error).reduce(f64::min) else {
            return Ok(None);
        };
        // Fronts begin with the simplest, and whole exponents are simpler than others.
        let good = fitted.into_iter().find(|(error, _)| *error <= (AS_GOOD * least).max(ROUNDING));
        let (_, mut formula) = good.expect("the best is as good as the best");
        let loss = formula.refit_alike(&last.features, &last.targets, &last.bodies, at.observer)?;
        Ok(loss.is_finite().then_some((formula, loss)))
    }

    /// Logarithms of the smallest and the largest distance of the spline.
    fn range(&self) -> Option<[f64; 2]> {
        let mut places = Vec::new();
        self.pairs(self.fitting, |_, values| places.push(values[self.distance()].ln()));
        range(places)
    }

    /// Where the distance is among the variables of a pair.
    fn distance(&self) -> usize {
        4 + self.inputs.dim
    }

    /// Calls `each` for every pair of `graphs`, with the number of the receiver among all nodes and the variables.
    fn pairs(&self, graphs: &Graphs, mut each: impl FnMut(usize, &[f64])) {
        let mut values = Vec::new();
        let mut first = 0;
        for all in graphs.systems() {
            for receiver in 0..all.len() {
                for sender in (0..all.len()).filter(|sender| *sender != receiver) {
                    values.clear();
                    self.inputs.values(&all[receiver], &all[sender], &mut values);
                    each(first + receiver, &values);
                }
            }
            first += all.len();
        }
    }

    /// The equations of `graphs` with this factor and all own terms.
    fn rows(
        &self,
        graphs: &Graphs,
        factor: &Term,
        own: &[Term],
        [low, high]: [f64; 2],
    ) -> Vec<Row> {
        let dim = graphs.dim;
        let width = SPLINE + own.len();
        let mut sums = vec![0.0; graphs.targets.len() * SPLINE];
        let mut inside = vec![true; graphs.nodes()];
        self.pairs(graphs, |node, values| {
            let r = values[self.distance()];
            let place = (r.ln() - low) / (high - low);
            if !(0.0..=1.0).contains(&place) {
                inside[node] = false;
                return;
            }
            let (first, basis) = splines(place);
            let strength = factor.expression.eval(values) / r;
            for axis in 0..dim {
                let row = &mut sums[(node * dim + axis) * SPLINE..][..SPLINE];
                for (sum, value) in row[first..].iter_mut().zip(basis) {
                    *sum += strength * values[4 + axis] * value;
                }
            }
        });
        let sizes: Vec<f64> = graphs.targets.chunks(dim).map(length).collect();
        let scale = usual(&sizes);
        let mut rows = Vec::new();
        let n_features = BodyLayout { dim }.width();
        for (node, features) in graphs.features.chunks(n_features).enumerate() {
            let features: Vec<f64> = features.iter().map(|&v| f64::from(v)).collect();
            for axis in (0..dim).filter(|_| inside[node]) {
                let row = node * dim + axis;
                let mut values = Vec::with_capacity(width);
                values.extend(&sums[row * SPLINE..][..SPLINE]);
                // Own terms are written for each axis in turn.
                let terms = own.iter().enumerate();
                values.extend(terms.map(|(k, term)| {
                    if k % dim == axis { term.expression.eval(&features) } else { 0.0 }
                }));
                let target = f64::from(graphs.targets[row]);
                rows.push(Row { values, target, weight: weight(sizes[node], scale) });
            }
        }
        rows
    }

    /// The best factor, with the own terms that are worth it; `None` if no fit explains much.
    fn profile(&self, range: [f64; 2]) -> Option<Profile> {
        let own = self.own();
        let mut best: Option<Profile> = None;
        for factor in self.factors() {
            let Some(found) = self.fitted(&factor, &own, range) else { continue };
            if best.as_ref().is_none_or(|best| found.error < best.error) {
                best = Some(found);
            }
        }
        for over in ["1", "m1"].into_iter().filter(|over| *over == "1" || (self.allowed)("m")) {
            let Some(factor) = self.kinds(over, &own, range) else { continue };
            let Some(found) = self.fitted(&factor, &own, range) else { continue };
            if best.as_ref().is_none_or(|best| found.error < OF_KINDS * best.error) {
                best = Some(found);
            }
        }
        let best = best.filter(|profile| profile.error < NO_FORCE)?;
        // Where own terms explain as much there is no pair force.
        let without_pairs = |graphs: &Graphs| {
            let mut rows = self.rows(graphs, &best.factor, &own, range);
            rows.iter_mut().for_each(|row| row.values[..SPLINE].fill(0.0));
            rows
        };
        let all: Vec<usize> = (0..own.len()).collect();
        let [fitting, judging] = [self.fitting, self.judging].map(without_pairs);
        let alone = fitted(&best.factor, &fitting, &judging, &all)?;
        (alone.error > WORTH * best.error).then_some(best)
    }

    /// The fit with this factor and the own terms that are worth it; `None` if there are too few equations.
    fn fitted(&self, factor: &Term, own: &[Term], range: [f64; 2]) -> Option<Profile> {
        let fitting = self.rows(self.fitting, factor, own, range);
        let judging = self.rows(self.judging, factor, own, range);
        if fitting.len() < 4 * SPLINE || judging.is_empty() {
            return None;
        }
        let fit = |kept: &[usize]| fitted(factor, &fitting, &judging, kept);
        let mut kept: Vec<usize> = (0..own.len()).collect();
        let mut profile = fit(&kept)?;
        // Terms of all axes go together.
        for group in (0..own.len() / self.inputs.dim).rev() {
            let less: Vec<usize> =
                kept.iter().copied().filter(|k| k / self.inputs.dim != group).collect();
            if let Some(without) = fit(&less)
                && without.error <= WORTH * profile.error
            {
                (kept, profile) = (less, without);
            }
        }
        Some(profile)
    }

    /// The factor of bodies of two kinds, told apart by their charge, over `over`: any three strengths, for equal kinds
    /// of either sort and for different ones, are a + b (q1 + q2) + c q1 q2. From a fit with a spline for each of
    /// these, of which the one product of numbers and a single spline that is nearest to them is taken.
    fn kinds(&self, over: &str, own: &[Term], range: [f64; 2]) -> Option<Term> {
        let layout = BodyLayout { dim: self.inputs.dim };
        let features = self.fitting.features.chunks(layout.width());
        let mut charges: Vec<f32> = features.map(|body| body[layout.charge()]).collect();
        charges.sort_by(f32::total_cmp);
        charges.dedup();
        if charges.len() != 2 || !(self.allowed)("q") {
            return None;
        }
        let names: Vec<&str> = self.formula.terms.edge.iter().map(String::as_str).collect();
        let parts = ["1", "(q1 + q2)", "q1 * q2"];
        let rows = parts.map(|part| {
            let factor = term(format!("{part} / {over}"), &names);
            self.rows(self.fitting, &factor, own, range)
        });
        let mut normal = Normal::new(parts.len() * SPLINE + own.len());
        for (row, first) in rows[0].iter().enumerate() {
            let splines = rows.iter().flat_map(|rows| &rows[row].values[..SPLINE]);
            let values: Vec<f64> = splines.chain(&first.values[SPLINE..]).copied().collect();
            normal.add(&values, first.target, first.weight);
        }
        let n = normal.right.len();
        // How much each coefficient of a spline matters.
        let matters: Vec<f64> = (0..SPLINE).map(|k| normal.matrix[k * (n + 1)]).collect();
        let coefficients = normal.ridged(RIDGE).solve()?;
        let overlap = |i: usize, j: usize| -> f64 {
            let at = |part: usize, k: usize| coefficients[part * SPLINE + k];
            (0..SPLINE).map(|k| matters[k] * at(i, k) * at(j, k)).sum()
        };
        let mut strengths = [1.0, 1.0, 1.0];
        for _ in 0..POWER_STEPS {
            let next = [0, 1, 2].map(|i| (0..3).map(|j| overlap(i, j) * strengths[j]).sum::<f64>());
            let largest = next.iter().fold(0.0f64, |most, v| most.max(v.abs()));
            strengths = next.map(|v| v / largest);
        }
        let [a, b, c] = strengths;
        let sound = strengths.iter().all(|v| v.is_finite());
        sound.then(|| {
            term(format!("(({a}) + ({b}) * (q1 + q2) + ({c}) * q1 * q2) / {over}"), &names)
        })
    }

    /// The factors whose variables are allowed.
    fn factors(&self) -> Vec<Term> {
        let names: Vec<&str> = self.formula.terms.edge.iter().map(String::as_str).collect();
        let allowed = |text: &&&str| {
            ["m", "q"].iter().all(|name| !text.contains(name) || (self.allowed)(name))
        };
        FACTORS.iter().filter(allowed).map(|text| term((*text).into(), &names)).collect()
    }

    /// The own terms whose variables are allowed, `[term][axis]`.
    fn own(&self) -> Vec<Term> {
        let names: Vec<&str> = self.formula.terms.node.iter().map(String::as_str).collect();
        let axes = &["x", "y", "z"][..self.inputs.dim];
        let allowed = |text: &String| {
            text.split([' ', '/']).filter(|word| names.contains(word)).all(self.allowed)
        };
        let all = OWN.iter().flat_map(|own| axes.iter().map(|axis| own.replace('K', axis)));
        all.filter(allowed).map(|text| term(text, &names)).collect()
    }

    /// The search for the law of the spline.
    fn problem(&self, profile: &Profile, [low, high]: [f64; 2]) -> Problem {
        let n = profile.coefficients.len();
        let point = |k: usize| {
            let place = (k as f64 + 0.5) / POINTS as f64;
            let (first, basis) = splines(place);
            let force: f64 = (0..4).map(|k| basis[k] * profile.coefficients[first + k]).sum();
            let mut variance = 0.0;
            for i in 0..4 {
                for j in 0..4 {
                    let at = (first + i) * n + first + j;
                    variance += basis[i] * basis[j] * profile.covariance[at];
                }
            }
            ((low + place * (high - low)).exp(), force, variance.max(0.0))
        };
        let points: Vec<(f64, f64, f64)> = (0..POINTS).map(point).collect();
        let errors: Vec<f64> = (0..POINTS)
            .map(|k| {
                // Of the size nearby, since a force may cross zero.
                let nearby = &points[k.saturating_sub(NEARBY)..(k + NEARBY + 1).min(POINTS)];
                let size = nearby.iter().map(|(_, force, _)| force.abs()).fold(0.0, f64::max);
                (points[k].2 + (SPLINE_ERROR * size).powi(2)).sqrt()
            })
            .collect();
        let least = errors.iter().copied().fold(f64::INFINITY, f64::min);
        Problem {
            names: vec!["r".into()],
            columns: vec![points.iter().map(|point| point.0 as f32).collect()],
            target: points.iter().map(|point| point.1 as f32).collect(),
            weights: Some(errors.iter().map(|error| (least / error) as f32).collect()),
            ..Problem::default()
        }
    }

    /// The formula with this law of the force in the distance.
    fn compose(&self, profile: &Profile, law: &Expression) -> Formula {
        let terms = &self.formula.terms;
        let edge: Vec<&str> = terms.edge.iter().map(String::as_str).collect();
        let names = terms.node_names(&self.formula.components);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let factor = &profile.factor.text;
        let (force, own) = (law.text(&["r"]), self.own());
        let (mut messages, mut nodes) = (Vec::new(), Vec::new());
        for (axis, name) in ["x", "y", "z"][..self.inputs.dim].iter().enumerate() {
            let text = format!("({force}) * ({factor}) * d{name} / r");
            messages.push(term(text, &edge).expression.simplified());
            let mut text = format!("e{}", self.formula.components[axis]);
            for (k, coefficient) in profile.own.iter().zip(&profile.coefficients[SPLINE..]) {
                if k % self.inputs.dim == axis {
                    text += &format!(" + ({coefficient}) * ({})", own[*k].text);
                }
            }
            nodes.push(term(text, &names).expression.simplified());
        }
        Formula { messages, nodes, ..self.formula.clone() }
    }

    /// Weighted error of a formula on the states for judging, relative to the accelerations.
    fn error(&self, formula: &Formula) -> f64 {
        let Graphs { features, targets, bodies, dim, .. } = self.judging;
        let found = formula.accelerations(features, bodies);
        let sizes: Vec<f64> = targets.chunks(*dim).map(length).collect();
        let scale = usual(&sizes);
        let rows = targets.iter().zip(&found).enumerate().map(|(row, (target, found))| {
            let size = sizes[row / dim];
            (f64::from(*target), f64::from(*found), weight(size, scale))
        });
        relative(rows)
    }
}

/// The law with whole numbers for exponents that are near them, if there are any.
fn with_whole_exponents(law: &Expression) -> Option<Expression> {
    let mut constants = law.constants();
    let mut changed = false;
    let nodes = law.nodes();
    let at = (0..nodes.len()).filter(|&at| matches!(nodes[at], Node::Constant(_)));
    for (constant, at) in constants.iter_mut().zip(at) {
        let whole = constant.round();
        let near = whole != 0.0 && (*constant - whole).abs() <= NEAR_WHOLE;
        if near && whole != *constant && nodes.get(at + 1) == Some(&Node::Op(Op::Pow)) {
            (*constant, changed) = (whole, true);
        }
    }
    let mut other = law.clone();
    other.set_constants(&constants);
    changed.then_some(other)
}

fn term(text: String, names: &[&str]) -> Term {
    let expression = Expression::parse(&text, names).expect("written here of these names");
    Term { text, expression }
}

fn length(vector: &[f32]) -> f64 {
    vector.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt()
}

/// What one size in twenty exceeds.
fn usual(sizes: &[f64]) -> f64 {
    let mut sorted = sizes.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(0.95 * (sorted.len() - 1) as f64) as usize].max(f64::MIN_POSITIVE)
}

/// The weight of an acceleration of this size: large ones count by their relative error.
fn weight(size: f64, usual: f64) -> f64 {
    (1.0 + size / usual).powi(-2)
}

/// Σ weight |target − found| / Σ weight |target|.
fn relative(rows: impl Iterator<Item = (f64, f64, f64)>) -> f64 {
    let (error, size) = rows.fold((0.0, 0.0), |(error, size), (target, found, weight)| {
        (error + weight * (target - found).abs(), size + weight * target.abs())
    });
    error / size
}

/// Weighted least squares of the spline and these own terms.
fn fitted(factor: &Term, fitting: &[Row], judging: &[Row], own: &[usize]) -> Option<Profile> {
    let n = SPLINE + own.len();
    let at = |row: &Row| -> Vec<f64> {
        let own = own.iter().map(|&k| row.values[SPLINE + k]);
        row.values[..SPLINE].iter().copied().chain(own).collect()
    };
    let mut normal = Normal::new(n);
    for row in fitting {
        normal.add(&at(row), row.target, row.weight);
    }
    // Where there are no distances the spline is zero.
    let normal = normal.ridged(RIDGE);
    let coefficients = normal.solve()?;
    let predict =
        |row: &Row| -> f64 { at(row).iter().zip(&coefficients).map(|(v, c)| v * c).sum() };
    let squares = fitting.iter().map(|row| row.weight * (row.target - predict(row)).powi(2));
    let variance = squares.sum::<f64>() / fitting.len() as f64;
    let covariance = normal.covariance(variance)?;
    let error = relative(judging.iter().map(|row| (row.target, predict(row), row.weight)));
    let (factor, own) = (factor.clone(), own.to_vec());
    error.is_finite().then_some(Profile { factor, own, coefficients, covariance, error })
}

#[cfg(test)]
mod tests {
    use super::super::edges::body;
    use super::*;
    use crate::law::Body;
    use crate::random::Random;

    /// Random states of systems of four bodies in the plane, with these accelerations by pair and by node.
    fn states(
        seed: u64,
        charges: &[f32],
        pair: impl Fn(&Body, &Body, f64) -> f64,
        own: impl Fn(&Body, usize) -> f64,
    ) -> Graphs {
        let (count, bodies, dim) = (300, 4, 2);
        let mut random = Random::new(seed, 0);
        let value = |k: usize| match k % 6 {
            4 => charges[random.below(charges.len())],
            5 => (0.7 * random.normal()).exp() as f32,
            _ => random.normal() as f32,
        };
        let features: Vec<f32> = (0..count * bodies * 6).map(value).collect();
        let mut targets = Vec::new();
        for graph in features.chunks(bodies * 6) {
            let all: Vec<Body> = graph.chunks(6).map(|f| body(f, BodyLayout { dim })).collect();
            for receiver in 0..bodies {
                for axis in 0..dim {
                    let mut sum = own(&all[receiver], axis);
                    for sender in (0..bodies).filter(|other| *other != receiver) {
                        let [a, b] = [&all[receiver], &all[sender]];
                        let d = [0, 1].map(|k| b.position[k] - a.position[k]);
                        let r = d[0].hypot(d[1]);
                        sum += pair(a, b, r) * d[axis] / r;
                    }
                    targets.push(sum as f32);
                }
            }
        }
        Graphs { features, targets, bodies: vec![bodies as u32; count], dim }
    }

    fn law(
        pair: impl Fn(&Body, &Body, f64) -> f64 + Copy,
        own: impl Fn(&Body, usize) -> f64 + Copy,
    ) -> Option<(Formula, f64)> {
        let states = |seed| states(seed, &[0.0], pair, own);
        law_of(states, &|name| !matches!(name, "q" | "x" | "y"))
    }

    fn law_of(
        states: impl Fn(u64) -> Graphs,
        allowed: &dyn Fn(&str) -> bool,
    ) -> Option<(Formula, f64)> {
        let inputs = Inputs::all(2);
        let formula = Formula {
            terms: inputs.terms(),
            components: vec![7, 8],
            messages: vec![],
            nodes: vec![],
        };
        let [fitting, judging, last] = [1, 2, 3].map(states);
        let (fitting, judging) = (&fitting, &judging);
        let accelerations = Accelerations { inputs: &inputs, formula, allowed, fitting, judging };
        let how = Search { evaluations: 20_000, ..Search::default() };
        accelerations.law(Compute::default(), how, &last).unwrap()
    }

    /// The force of a message on bodies of masses 2 and 3 at distance r along x.
    fn force(formula: &Formula, r: f64) -> f64 {
        let mut values = vec![0.0; formula.terms.edge.len()];
        values[..2].copy_from_slice(&[2.0, 3.0]);
        (values[4], values[6]) = (r, r);
        formula.messages[0].eval(&values)
    }

    #[test]
    fn gravity_is_found_in_close_encounters_with_its_mass() {
        let (formula, loss) = law(|_, b, r| 2.5 * b.mass / (r * r), |_, _| 0.0).unwrap();
        assert!(loss < 1e-3, "{loss} {:?}", formula.equations());
        for r in [0.01, 0.3, 2.0, 20.0] {
            let ratio = force(&formula, r) / (7.5 / (r * r));
            assert!((ratio - 1.0).abs() < 1e-3, "{r} {ratio} {:?}", formula.equations());
        }
        assert_eq!(formula.messages[0].constants(), formula.messages[1].constants());
        let nodes = formula.equations().split_off(2);
        assert_eq!(nodes, ["ax = e7", "ay = e8"]);
    }

    #[test]
    fn springs_with_drag_and_a_constant_field_are_found() {
        let field = [0.3, -0.8];
        let own = |a: &Body, axis: usize| field[axis] - 0.4 * a.velocity[axis];
        let (formula, loss) = law(|a, _, r| 2.0 * (r - 1.0) / a.mass, own).unwrap();
        assert!(loss < 1e-4, "{loss} {:?}", formula.equations());
        for r in [0.2, 1.5, 3.0] {
            assert!((force(&formula, r) - (r - 1.0)).abs() < 1e-3, "{:?}", formula.equations());
        }
        for (axis, node) in formula.nodes.iter().enumerate() {
            let mut values = vec![0.0; formula.terms.node.len() + 2];
            values[2 + axis] = 1.5;
            assert!((node.eval(&values) - (field[axis] - 0.6)).abs() < 1e-3, "{node:?}");
        }
    }

    #[test]
    fn exponents_that_are_nearly_whole_become_so() {
        let parse = |text: &str| Expression::parse(text, &["r"]).unwrap();
        let whole = with_whole_exponents(&parse("49.5 / r^12.8 - 25.7 / r^7.1 + 2.1 * r^0.5"));
        assert_eq!(whole, Some(parse("49.5 / r^13 - 25.7 / r^7 + 2.1 * r^0.5")));
        assert_eq!(with_whole_exponents(&parse("1.9 / r^2 + 0.9 * r")), None);
        // They are no longer fitted, the other constants are.
        let (formula, loss) = law(|_, b, r| 2.5 * b.mass / r.powi(5), |_, _| 0.0).unwrap();
        let ratio = force(&formula, 0.2) / force(&formula, 2.0);
        assert!((ratio / 1e5 - 1.0).abs() < 1e-4, "{ratio} {loss} {:?}", formula.equations());
    }

    /// Bodies of charge 1 and 2: equal ones repel each other, different ones attract half as strongly.
    #[test]
    fn two_kinds_of_bodies_have_strengths_of_their_own() {
        let strength = |a: f64, b: f64| if a == b { -1.0 } else { 0.5 };
        let law = law_of(
            |seed| {
                let pair = |a: &Body, b: &Body, r: f64| strength(a.charge, b.charge) / (r + 0.3);
                states(seed, &[1.0, 2.0], pair, |a, axis| -0.4 * a.velocity[axis])
            },
            &|name| !matches!(name, "x" | "y"),
        );
        let (formula, loss) = law.unwrap();
        assert!(loss < 1e-3, "{loss} {:?}", formula.equations());
        for (q1, q2) in [(1.0, 1.0), (2.0, 2.0), (1.0, 2.0), (2.0, 1.0)] {
            for r in [0.3, 1.0, 3.0] {
                let mut values = vec![0.0; formula.terms.edge.len()];
                values[..4].copy_from_slice(&[1.0, 1.0, q1, q2]);
                (values[4], values[6]) = (r, r);
                let expected = strength(q1, q2) / (r + 0.3);
                let found = formula.messages[0].eval(&values);
                assert!((found / expected - 1.0).abs() < 0.01, "{q1} {q2} {r}: {found} {expected}");
            }
        }
    }

    #[test]
    fn what_is_no_pair_force_has_no_law() {
        let none = law(|_, _, _| 0.0, |a, axis| (9.0 * a.position[axis]).sin());
        assert!(none.is_none());
        let alone = law(|_, _, _| 0.0, |a, axis| 0.3 - 0.4 * a.velocity[axis]);
        assert!(alone.is_none(), "{:?}", alone.map(|(formula, _)| formula.equations()));
    }
}
