//! Small expressions, all of them: a library of features, and every sum, product and quotient of two.
//!
//! With scale and offset free, what a pair of features explains of the target follows from a few sums
//! over rows, so that a hundred million pairs cost about a second and no program is interpreted:
//!
//!   a + b f + c g          from Σ f g                                  (both coefficients fitted)
//!   a + b f g,  a + b f/g  from Σ p, Σ p², Σ p y of p = f g or f / g
//!
//! The same against targets under the inverse of an outer function (y² for √u, log y for e^u, …). The
//! best pairs then take up further features one at a time, as least squares over the library ask for.
//! All of this is a guess on some rows: the search fits and judges what comes out.

use std::collections::HashSet;
use std::time::Instant;

use rayon::prelude::*;

use super::expression::{Expression, Op};
use super::pairs::{self, Pair, Pairing};
use super::search::Problem;
use super::settings::Settings;
use crate::random::Random;

/// Rows on which features are compared.
const ROWS: usize = 64;
/// Features at most.
const MOST: usize = 12_000;
/// Pairs, under all outer functions, for each candidate that the search may consider: about a tenth of
/// its time.
const PAIRS_EACH: u64 = 200;
/// Levels of a variable that comparisons are tried with.
const LEVELS: usize = 9;
/// Best pairs (of one complexity, and in all) that take up further features, features that each takes
/// up, and best continuations of each.
const ALIKE: usize = 4;
const BEAM: usize = 48;
const TERMS: usize = 3;
const CONTINUED: usize = 2;

/// Features, the simplest first.
pub(super) struct Library {
    /// Expressions without fitted constants.
    pub features: Vec<Expression>,
    pub complexities: Vec<u32>,
    /// `[feature][row]`, of root mean square 1 …
    pub values: Vec<Vec<f32>>,
    /// … and what was divided by for that.
    scales: Vec<f32>,
}

/// An inverse of an outer function, and that function.
struct Outer {
    target: Vec<f32>,
    wrap: fn(Expression) -> Expression,
}

/// How many features an effort of so many candidates pays for, under so many outer functions.
fn affordable(settings: &Settings, outers: usize) -> usize {
    /// Candidates in a second, roughly: where only the time is limited.
    const RATE: f64 = 40_000.0;
    let by_time = settings.seconds.map(|s| (s * RATE).min(1e12) as u64);
    let effort = settings.evaluations.into_iter().chain(by_time).min().unwrap_or(u64::MAX);
    let pairs = effort.saturating_mul(PAIRS_EACH) / outers as u64;
    ((pairs as f64).sqrt() as usize).min(MOST)
}

/// Expressions that explain much of the target for their length, on some rows; fewer where the
/// deadline comes first.
pub(super) fn seeds(
    problem: &Problem,
    settings: &Settings,
    random: &mut Random,
    deadline: Option<Instant>,
) -> Vec<Expression> {
    if !settings.scaled() || problem.template.is_some() || problem.target.len() < 8 {
        return Vec::new();
    }
    let chosen = typical_rows(&problem.target, random);
    let outers = outers(&problem.target, &chosen, settings);
    let most = affordable(settings, outers.len());
    let library = Library::new(problem, &chosen, settings, most, random);
    let mut found = Vec::new();
    for outer in outers {
        if deadline.is_some_and(|d| Instant::now() >= d) {
            break;
        }
        let pairs = pairs::best(&library, &outer.target, settings);
        let mut begun: Vec<&Pair> = Vec::new();
        for pair in &pairs {
            let alike = begun.iter().filter(|b| b.complexity == pair.complexity).count();
            if alike < ALIKE && begun.len() < BEAM {
                begun.push(pair);
            }
        }
        let sums: Vec<Expression> = begun
            .par_iter()
            .flat_map_iter(|pair| library.extended(pair, &outer.target, settings))
            .collect();
        let pairs = pairs.iter().filter_map(|pair| library.pair(pair, &outer.target));
        found.extend(pairs.chain(sums).map(outer.wrap));
    }
    found
}

/// Rows without the largest tenth of deviations: a law holds on all rows, but sums of squares of a
/// target with long tails hang on few.
fn typical_rows(target: &[f32], random: &mut Random) -> Vec<usize> {
    let mut order: Vec<usize> = (0..target.len()).collect();
    order.sort_by(|&a, &b| target[a].total_cmp(&target[b]).then(a.cmp(&b)));
    let median = target[order[order.len() / 2]];
    let deviation = |&row: &usize| (target[row] - median).abs();
    order.sort_by(|a, b| deviation(a).total_cmp(&deviation(b)).then(a.cmp(b)));
    order.truncate((order.len() * 9).div_ceil(10));
    shuffle(&mut order, random);
    order.truncate(ROWS);
    order
}

fn shuffle<T>(list: &mut [T], random: &mut Random) {
    for last in (1..list.len()).rev() {
        list.swap(last, random.below(last + 1));
    }
}

fn outers(target: &[f32], chosen: &[usize], settings: &Settings) -> Vec<Outer> {
    let y: Vec<f64> = chosen.iter().map(|&row| f64::from(target[row])).collect();
    let mut outers = vec![Outer { target: y.iter().map(|&y| y as f32).collect(), wrap: |u| u }];
    let has = |op: Op| settings.operators.contains(&op);
    let positive = y.iter().all(|y| *y > 0.0);
    let size = y.iter().fold(0.0f64, |most, y| most.max(y.abs()));
    let clear = y.iter().all(|y| y.abs() > 1e-4 * size);
    let mut add = |allowed: bool, inverse: fn(f64) -> f64, wrap: fn(Expression) -> Expression| {
        if allowed {
            outers.push(Outer { target: y.iter().map(|&y| inverse(y) as f32).collect(), wrap });
        }
    };
    add(has(Op::Div) && clear, |y| 1.0 / y, inverse);
    add(has(Op::Exp) && positive, f64::ln, |u| Expression::apply(Op::Exp, &[u]));
    add(has(Op::Log) && size < 20.0, f64::exp, |u| Expression::apply(Op::Log, &[u]));
    add(has(Op::Square) && positive, f64::sqrt, |u| Expression::apply(Op::Square, &[u]));
    if has(Op::Sqrt) {
        let root = |u| Expression::apply(Op::Sqrt, &[u]);
        add(positive, |y| y * y, root);
        add(
            positive && clear && has(Op::Div),
            |y| 1.0 / (y * y),
            |u| inverse(Expression::apply(Op::Sqrt, &[u])),
        );
    } else if has(Op::Pow) {
        add(positive, |y| y * y, |u| Expression::apply(Op::Pow, &[u, Expression::constant(0.5)]));
    }
    outers
}

fn inverse(u: Expression) -> Expression {
    Expression::apply(Op::Div, &[Expression::constant(1.0), u])
}

/// offset + Σ factor · part, as least squares have it.
fn linear(parts: &[(Expression, Vec<f32>)], target: &[f32]) -> Option<Expression> {
    let columns: Vec<&[f32]> = parts.iter().map(|p| &p.1[..]).collect();
    let (offset, factors) = least_squares(&columns, target)?;
    let mut sum: Option<Expression> = None;
    for (factor, (part, _)) in factors.into_iter().zip(parts) {
        let product = Expression::apply(Op::Mul, &[Expression::constant(factor), part.clone()]);
        sum = Some(match sum {
            None => product,
            Some(sum) => Expression::apply(Op::Add, &[sum, product]),
        });
    }
    Some(Expression::apply(Op::Add, &[sum?, Expression::constant(offset)]))
}

impl Library {
    /// All expressions of the operators on variables and the number 1 by rising complexity, as far as
    /// `most` distinct ones; the last complexity in a random selection.
    fn new(
        problem: &Problem,
        chosen: &[usize],
        settings: &Settings,
        most: usize,
        random: &mut Random,
    ) -> Self {
        let weights = &settings.weights;
        let mut building = Building {
            library: Library {
                features: Vec::new(),
                complexities: Vec::new(),
                values: Vec::new(),
                scales: Vec::new(),
            },
            seen: HashSet::new(),
            levels: vec![Vec::new(); settings.max_complexity as usize + 1],
            raw: Vec::new(),
            curved: Vec::new(),
        };
        let one = Expression::constant(1.0);
        building.add(one.clone(), one.complexity(weights), vec![1.0; chosen.len()], false);
        for (v, column) in problem.columns.iter().enumerate() {
            let values: Vec<f64> = chosen.iter().map(|&row| f64::from(column[row])).collect();
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            let e = Expression::variable(v as u16);
            building.add(e.clone(), e.complexity(weights), values.clone(), false);
            if settings.operators.contains(&Op::Greater) {
                for level in 1..=LEVELS {
                    let threshold = sorted[level * (sorted.len() - 1) / (LEVELS + 1)];
                    let above = values.iter().map(|v| f64::from(u8::from(*v > threshold)));
                    let e = Expression::apply(
                        Op::Greater,
                        &[e.clone(), Expression::constant(threshold)],
                    );
                    let complexity = e.complexity(weights);
                    building.add(e, complexity, above.collect(), false);
                }
            }
        }
        for complexity in 2..=settings.max_complexity as usize {
            let left = most.saturating_sub(building.library.features.len());
            if left == 0 {
                break;
            }
            building.level(complexity, left, settings, random);
        }
        building.library
    }

    /// The feature itself, or the pair as a linear model.
    fn pair(&self, pair: &Pair, target: &[f32]) -> Option<Expression> {
        let parts = self.parts(pair);
        linear(&parts, target)
    }

    fn raw(&self, feature: usize) -> Vec<f32> {
        self.values[feature].iter().map(|v| v * self.scales[feature]).collect()
    }

    /// The pair's parts as columns of a linear model.
    fn parts(&self, pair: &Pair) -> Vec<(Expression, Vec<f32>)> {
        let part = |i: usize| (self.features[i].clone(), self.raw(i));
        let both = |op: Op, value: fn(f32, f32) -> f32| {
            let (f, g) = (part(pair.first), part(pair.second));
            let values = f.1.iter().zip(&g.1).map(|(a, b)| value(*a, *b)).collect();
            vec![(Expression::apply(op, &[f.0, g.0]), values)]
        };
        match pair.pairing {
            Pairing::Single => vec![part(pair.first)],
            Pairing::Sum => vec![part(pair.first), part(pair.second)],
            Pairing::Product => both(Op::Mul, |a, b| a * b),
            Pairing::Quotient => both(Op::Div, |a, b| a / b),
        }
    }

    /// Linear models that begin with the pair's parts and take up the features (alone, or times the
    /// first part) that explain most of what is left.
    fn extended(&self, pair: &Pair, target: &[f32], settings: &Settings) -> Vec<Expression> {
        let mut beam = vec![self.parts(pair)];
        let mut found = Vec::new();
        for _ in 0..TERMS {
            let mut next = Vec::new();
            for parts in &beam {
                let Some(model) = Model::new(parts.iter().map(|p| &p.1[..]), target) else {
                    continue;
                };
                for (times_first, feature) in model.continuations(self, &parts[0].1) {
                    let mut parts = parts.clone();
                    let (mut e, mut values) = (self.features[feature].clone(), self.raw(feature));
                    if times_first {
                        values.iter_mut().zip(&parts[0].1).for_each(|(v, f)| *v *= f);
                        e = Expression::apply(Op::Mul, &[parts[0].0.clone(), e]);
                    }
                    parts.push((e, values));
                    found.extend(linear(&parts, target));
                    next.push(parts);
                }
            }
            beam = next;
        }
        let fits = |e: &Expression| e.complexity(&settings.weights) <= 2 * settings.max_complexity;
        found.retain(fits);
        found
    }
}

/// A library in the making.
struct Building {
    library: Library,
    seen: HashSet<[i64; 2]>,
    /// Features of each complexity.
    levels: Vec<Vec<usize>>,
    /// `[feature][row]`, as they are.
    raw: Vec<Vec<f64>>,
    /// True where exp, log or a periodic function occurs: not nested in a library.
    curved: Vec<bool>,
}

impl Building {
    /// Adds a feature unless another is the same but for a factor; false where it does not count.
    fn add(&mut self, e: Expression, complexity: u32, raw: Vec<f64>, curved: bool) -> bool {
        let n = raw.len() as f64;
        let square = raw.iter().map(|v| v * v).sum::<f64>() / n;
        let usable = square.is_finite() && square > 1e-16 && square < 1e16;
        let Some(first) = raw.iter().find(|v| **v != 0.0).filter(|_| usable) else { return false };
        let unit = first.signum() / square.sqrt();
        // Two projections: the same for equal features, and for hardly any others.
        let project = |k: u64| -> i64 {
            let weight = |i: usize| {
                let mixed = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ (k << 17));
                (mixed >> 40) as f64 / (1u64 << 24) as f64
            };
            let sum: f64 = raw.iter().enumerate().map(|(i, v)| v * unit * weight(i)).sum();
            (sum / n * 1e7).round() as i64
        };
        if !self.seen.insert([project(1), project(2)]) {
            return false;
        }
        let index = self.library.features.len();
        self.library.values.push(raw.iter().map(|v| (v * unit.abs()) as f32).collect());
        self.library.scales.push(square.sqrt() as f32);
        self.library.features.push(e);
        self.library.complexities.push(complexity);
        if let Some(level) = self.levels.get_mut(complexity as usize) {
            level.push(index);
        }
        self.raw.push(raw);
        self.curved.push(curved);
        true
    }

    /// All features of one complexity, `most` at most.
    fn level(&mut self, complexity: usize, most: usize, settings: &Settings, random: &mut Random) {
        let mut made: Vec<(Op, usize, usize)> = Vec::new();
        for &op in &settings.operators {
            let Some(left) = complexity.checked_sub(usize::from(settings.weights.op[op as usize]))
            else {
                continue;
            };
            match op {
                Op::Greater | Op::Less | Op::If | Op::Pow | Op::Neg => {}
                _ if op.arity() == 1 => made.extend(self.levels[left].iter().map(|&f| (op, f, f))),
                _ => {
                    let commutes = matches!(op, Op::Add | Op::Mul | Op::Min | Op::Max);
                    for a in 1..left {
                        for &f in &self.levels[a] {
                            let others = self.levels[left - a].iter();
                            let others = others.filter(|g| !commutes || **g >= f);
                            made.extend(others.map(|&g| (op, f, g)));
                        }
                    }
                }
            }
        }
        if made.len() > most {
            shuffle(&mut made, random);
        }
        let mut left = most;
        for (op, f, g) in made {
            if left == 0 {
                break;
            }
            let bends = matches!(
                op,
                Op::Exp | Op::Log | Op::Sin | Op::Cos | Op::Tanh | Op::Asin | Op::Acos | Op::Atan
            );
            if bends && self.curved[f] {
                continue;
            }
            let values: Vec<f64> = self.raw[f]
                .iter()
                .zip(&self.raw[g])
                .map(|(a, b)| op.apply(&[*a, *b][..op.arity()]))
                .collect();
            let operands = [f, g].map(|i| self.library.features[i].clone());
            let e = Expression::apply(op, &operands[..op.arity()]);
            let curved = bends || self.curved[f] || self.curved[g];
            left -= usize::from(self.add(e, complexity as u32, values, curved));
        }
    }
}

/// A linear model with an offset, as an orthonormal basis and what it leaves of the target.
struct Model {
    basis: Vec<Vec<f32>>,
    residual: Vec<f32>,
}

/// In sixteen partial sums, which the compiler may take at once.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; 16];
    let (left, right) = (a.chunks_exact(16), b.chunks_exact(16));
    let rest: f32 = left.remainder().iter().zip(right.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in left.zip(right) {
        for k in 0..16 {
            sums[k] += a[k] * b[k];
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// Takes the part along a unit vector away.
fn reject(from: &mut [f32], unit: &[f32]) {
    let along = dot(from, unit);
    from.iter_mut().zip(unit).for_each(|(v, u)| *v -= along * u);
}

impl Model {
    /// None where the columns depend on each other.
    fn new<'a>(columns: impl Iterator<Item = &'a [f32]>, target: &[f32]) -> Option<Self> {
        let n = target.len();
        let mut basis = vec![vec![1.0 / (n as f32).sqrt(); n]];
        for column in columns {
            let mut rest = column.to_vec();
            let before = dot(&rest, &rest);
            basis.iter().for_each(|unit| reject(&mut rest, unit));
            let left = dot(&rest, &rest);
            if left.is_nan() || left <= 1e-5 * before {
                return None;
            }
            rest.iter_mut().for_each(|v| *v /= left.sqrt());
            basis.push(rest);
        }
        let mut residual = target.to_vec();
        basis.iter().for_each(|unit| reject(&mut residual, unit));
        Some(Model { basis, residual })
    }

    /// The features (alone, or times `first`) that explain most of the residual.
    fn continuations(&self, library: &Library, first: &[f32]) -> Vec<(bool, usize)> {
        let mut best: Vec<(f32, bool, usize)> = Vec::new();
        let mut column = vec![0.0f32; first.len()];
        for times_first in [false, true] {
            for (feature, values) in library.values.iter().enumerate() {
                column.copy_from_slice(values);
                if times_first {
                    column.iter_mut().zip(first).for_each(|(v, f)| *v *= f);
                }
                let before = dot(&column, &column);
                let along = dot(&column, &self.residual);
                let inside: f32 = self.basis.iter().map(|unit| dot(&column, unit).powi(2)).sum();
                let left = before - inside;
                if left.is_nan() || left <= 1e-3 * before {
                    continue;
                }
                let gain = along * along / left;
                if best.len() < CONTINUED || gain > best[best.len() - 1].0 {
                    let at = best.partition_point(|b| b.0 >= gain);
                    best.insert(at, (gain, times_first, feature));
                    best.truncate(CONTINUED);
                }
            }
        }
        best.into_iter().map(|(_, times_first, feature)| (times_first, feature)).collect()
    }
}

/// Offset and factors of the columns that fit the target best; None where they are not determined.
fn least_squares(columns: &[&[f32]], target: &[f32]) -> Option<(f64, Vec<f64>)> {
    let p = columns.len() + 1;
    let entry = |k: usize, row: usize| {
        if k == 0 { 1.0 } else { f64::from(columns[k - 1][row]) }
    };
    let mut system = vec![vec![0.0; p + 1]; p];
    for (row, &y) in target.iter().enumerate() {
        for (j, equation) in system.iter_mut().enumerate() {
            for (k, sum) in equation[..p].iter_mut().enumerate() {
                *sum += entry(j, row) * entry(k, row);
            }
            equation[p] += entry(j, row) * f64::from(y);
        }
    }
    for j in 0..p {
        let pivot = (j..p).max_by(|&a, &b| system[a][j].abs().total_cmp(&system[b][j].abs()))?;
        system.swap(j, pivot);
        let scale = system[j][j];
        if !scale.is_finite() || scale.abs() < 1e-12 {
            return None;
        }
        let equation: Vec<f64> = system[j].iter().map(|v| v / scale).collect();
        for (k, other) in system.iter_mut().enumerate() {
            let factor = if k == j { 0.0 } else { other[j] };
            other.iter_mut().zip(&equation).for_each(|(v, e)| *v -= factor * e);
        }
        system[j] = equation;
    }
    let solution: Vec<f64> = system.iter().map(|equation| equation[p]).collect();
    solution.iter().all(|s| s.is_finite()).then(|| (solution[0], solution[1..].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss of the best seed, relative to the target's size.
    fn best_error(operators: &[Op], law: impl Fn(f64, f64) -> f64) -> f64 {
        let mut random = Random::new(5, 0);
        let mut problem = Problem {
            names: vec!["x".to_string(), "y".to_string()],
            columns: vec![Vec::new(); 2],
            ..Problem::default()
        };
        for _ in 0..200 {
            let (x, y) = (0.2 + 2.0 * random.uniform(), 0.2 + random.uniform());
            problem.columns[0].push(x as f32);
            problem.columns[1].push(y as f32);
            problem.target.push(law(x, y) as f32);
        }
        let settings = Settings {
            operators: operators.to_vec(),
            evaluations: Some(20_000),
            ..Settings::default()
        };
        let error = |e: &Expression| -> f64 {
            let row = |row: usize| {
                let values = [0, 1].map(|c: usize| f64::from(problem.columns[c][row]));
                (e.eval(&values) / f64::from(problem.target[row]) - 1.0).abs()
            };
            (0..200).map(row).sum::<f64>() / 200.0
        };
        let seeds = seeds(&problem, &settings, &mut Random::new(1, 1), None);
        let errors = seeds.iter().map(error).filter(|e| e.is_finite());
        errors.fold(f64::INFINITY, f64::min)
    }

    #[test]
    fn seeds_contain_laws_of_few_features() {
        let arithmetic = [Op::Add, Op::Sub, Op::Mul, Op::Div];
        let all = [&arithmetic[..], &[Op::Sin, Op::Cos, Op::Sqrt, Op::Exp, Op::Square]].concat();
        // A product, a sum with two factors, and four terms.
        assert!(best_error(&all, |x, y| 7.0 + 3.0 * (x * x).sin() * y.cos()) < 1e-4);
        assert!(best_error(&all, |x, y| 9.0 + 1.7 * (x + y).sin() - 0.3 * x * y) < 1e-4);
        assert!(best_error(&arithmetic, |x, y| 5.0 + 1.3 * x - 0.4 * y + 0.7 * x / y) < 1e-4);
        // Under an outer function: of a product, and of a sum.
        assert!(best_error(&all, |x, y| (0.3 * x * y - 1.0).exp()) < 1e-4);
        assert!(best_error(&all, |x, y| 2.0 / (x * x + 3.0 * y).sqrt()) < 1e-4);
        assert!(best_error(&arithmetic, |x, y| (x + y).sinh()) > 1e-4, "the test can fail");
    }
}
