//! All small expressions: a library of features, and every sum, product and quotient of two.
//!
//! With scale and offset free, what a pair of features explains of the target follows from a few sums over rows, so
//! that a hundred million pairs take about a second and no program is interpreted:
//!
//!   a + b f + c g          from Σ f g                                  (both coefficients fitted)
//!   a + b f g,  a + b f/g  from Σ p, Σ p², Σ p y of p = f g or f / g
//!
//! The same is done for targets under the inverse of an outer function (y² for √u, log y for e^u, …). The best pairs
//! then take up further features one at a time, chosen by least squares over the library. All of this is repeated in
//! the smaller problems that `powers.rs` finds in the table. The results are guesses from a few rows: the search fits
//! and judges them.

use std::borrow::Cow;

use rayon::prelude::*;

use super::library::{Library, shuffle};
use super::linear::{Model, least_squares};
use super::pairs::{self, Pair, Pairing};
use super::powers;
use super::search::Problem;
use super::settings::Settings;
use crate::formula::expression::{Expression, Op};
use crate::random::Random;

/// Rows on which features are compared.
const ROWS: usize = 64;
/// Most rows taken from a table with weights: no part looks at more.
const WEIGHED: usize = 2000;
/// Most features.
const MOST: usize = 12_000;
/// Pairs, over all outer functions, for each candidate that the search may consider: about a tenth of its time.
const PAIRS_EACH: u64 = 200;
/// Most features if there is one variable: more only repeat the same functions.
const MOST_OF_ONE: usize = 2_000;
/// Number of best pairs (of one complexity, and in all) that take up further features, and how many features each takes
/// up.
const ALIKE: usize = 4;
const BEAM: usize = 48;
const TERMS: usize = 3;

/// The target under the inverse of an outer function, and that function.
struct Outer {
    target: Vec<f32>,
    wrap: Wrap,
}

/// True when the search is to end.
pub(super) type StopCheck<'a> = dyn Fn() -> bool + Sync + 'a;

type Wrap = Box<dyn Fn(Expression) -> Expression>;

/// How many features the effort for the search pays for, given how often they are paired.
fn affordable(settings: &Settings, times: usize) -> usize {
    /// Rough number of candidates per second, used if only the time is limited.
    const RATE: f64 = 40_000.0;
    let by_time = settings.seconds.map(|s| (s * RATE).min(1e12) as u64);
    let effort = settings.evaluations.into_iter().chain(by_time).min().unwrap_or(u64::MAX);
    let pairs = effort.saturating_mul(PAIRS_EACH) / times as u64;
    ((pairs as f64).sqrt() as usize).min(MOST)
}

/// Expressions that explain much of the target for their length, on some rows; fewer if time runs out.
pub(super) fn seeds(
    problem: &Problem,
    settings: &Settings,
    random: &mut Random,
    late: &StopCheck,
) -> Vec<Expression> {
    if !settings.scaled() || problem.template.is_some() {
        return Vec::new();
    }
    let problem = &*weighed(problem, random);
    if problem.target.len() < 8 {
        return Vec::new();
    }
    let views = powers::views(problem, &settings.operators, random);
    let parts = 1 + views.len();
    let mut found: Vec<Vec<Expression>> = Vec::new();
    // The smaller problems first: where there is one, it is the shorter way.
    for view in &views {
        found.push(vec![view.factor.clone()]);
        if view.problem.target.len() >= 8 && !view.leaves.is_empty() {
            let inside = seeds_of(&view.problem, settings, parts, random, late);
            let whole = |list: Vec<Expression>| list.iter().map(|e| view.whole(e)).collect();
            found.extend(inside.into_iter().map(whole));
        }
    }
    found.extend(seeds_of(problem, settings, parts, random, late));
    in_turn(found)
}

/// From a problem with weights, as many rows as those are worth, (Σ w)² / Σ w², drawn by weight: what follows counts
/// all rows alike.
fn weighed<'a>(problem: &'a Problem, random: &mut Random) -> Cow<'a, Problem> {
    let Some(weights) = &problem.weights else { return Cow::Borrowed(problem) };
    let sum = |power: i32| weights.iter().map(|&w| f64::from(w).powi(power)).sum::<f64>();
    let worth = (sum(1).powi(2) / sum(2)).round() as usize;
    // Taking the smallest of exponential times with these rates is a draw without replacement.
    let mut times: Vec<(f64, usize)> = Vec::new();
    for (row, &weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
        times.push((-(1.0 - random.uniform()).ln() / f64::from(weight), row));
    }
    times.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let mut rows: Vec<usize> = times.iter().map(|time| time.1).collect();
    rows.truncate(worth.clamp(ROWS, WEIGHED));
    rows.sort_unstable();
    let pick = |column: &Vec<f32>| rows.iter().map(|&row| column[row]).collect();
    Cow::Owned(Problem {
        columns: problem.columns.iter().map(pick).collect(),
        target: pick(&problem.target),
        ..Problem::default()
    })
}

/// The first of each list, then the second of each, and so on.
fn in_turn<T>(lists: Vec<Vec<T>>) -> Vec<T> {
    let mut lists: Vec<_> = lists.into_iter().map(Vec::into_iter).collect();
    let mut all = Vec::new();
    while !lists.is_empty() {
        lists.retain_mut(|list| list.next().map(|item| all.push(item)).is_some());
    }
    all
}

/// The same for one of several problems that share the time; one list for each outer function.
fn seeds_of(
    problem: &Problem,
    settings: &Settings,
    parts: usize,
    random: &mut Random,
    late: &StopCheck,
) -> Vec<Vec<Expression>> {
    let chosen = typical_rows(&problem.target, random);
    let outers = outers(&problem.target, &chosen, settings);
    let most = affordable(settings, outers.len() * parts);
    let most = if problem.columns.len() == 1 { most.min(MOST_OF_ONE) } else { most };
    let library = Library::new(problem, &chosen, settings, most, random);
    let mut found = Vec::new();
    for outer in outers {
        if late() {
            break;
        }
        let pairs = pairs::best(&library, &outer.target, settings, late);
        let mut begun: Vec<&Pair> = Vec::new();
        for pair in &pairs {
            let alike = begun.iter().filter(|b| b.complexity == pair.complexity).count();
            if alike < ALIKE && begun.len() < BEAM {
                begun.push(pair);
            }
        }
        let sums: Vec<Expression> = begun
            .par_iter()
            .filter(|_| !late())
            .flat_map_iter(|pair| library.extended(pair, &outer.target, settings))
            .collect();
        let pairs = pairs.iter().filter_map(|pair| library.pair(pair, &outer.target));
        found.push(pairs.chain(sums).map(outer.wrap).collect());
    }
    found
}

/// Rows without the largest tenth of deviations: a law holds on all rows, but sums of squares of a target with long
/// tails are dominated by a few.
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

fn outers(target: &[f32], chosen: &[usize], settings: &Settings) -> Vec<Outer> {
    let y: Vec<f64> = chosen.iter().map(|&row| f64::from(target[row])).collect();
    let mut outers =
        vec![Outer { target: y.iter().map(|&y| y as f32).collect(), wrap: Box::new(|u| u) }];
    let has = |op: Op| settings.operators.contains(&op);
    let size = y.iter().fold(0.0f64, |most, y| most.max(y.abs()));
    let least = y.iter().fold(f64::INFINITY, |least, y| least.min(*y));
    let most = y.iter().fold(f64::NEG_INFINITY, |most, y| most.max(*y));
    let positive = least > 0.0;
    let clear = y.iter().all(|y| y.abs() > 1e-4 * size);
    let mut add = |allowed: bool, inverse: fn(f64) -> f64, wrap: Wrap| {
        if allowed {
            outers.push(Outer { target: y.iter().map(|&y| inverse(y) as f32).collect(), wrap });
        }
    };
    add(has(Op::Div) && clear, |y| 1.0 / y, Box::new(inverse));
    for op in Op::ALL {
        if let Some(inverse) = &op.row().inverse {
            // Within the range of the outer function, which need not be covered.
            let within = inverse.within[0] <= least && most <= inverse.within[1];
            add(has(op) && within, inverse.value, Box::new(move |u| Expression::apply(op, &[u])));
        }
    }
    if has(Op::Sqrt) {
        let root = |u| Expression::apply(Op::Sqrt, &[u]);
        add(positive, |y| y * y, Box::new(root));
        let below = positive && clear && has(Op::Div);
        add(below, |y| 1.0 / (y * y), Box::new(move |u| inverse(root(u))));
    } else if has(Op::Pow) {
        let root = |u| Expression::apply(Op::Pow, &[u, Expression::constant(0.5)]);
        add(positive, |y| y * y, Box::new(root));
    }
    outers
}

fn inverse(u: Expression) -> Expression {
    Expression::apply(Op::Div, &[Expression::constant(1.0), u])
}

/// offset + Σ factor · part, by least squares.
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
    // A part that explains no more than rounding only makes the formula longer.
    let square: f64 = target.iter().map(|&y| f64::from(y).powi(2)).sum();
    if offset * offset * target.len() as f64 <= 1e-10 * square {
        return sum;
    }
    Some(Expression::apply(Op::Add, &[sum?, Expression::constant(offset)]))
}

impl Library {
    /// The feature itself, or the pair as a linear model.
    fn pair(&self, pair: &Pair, target: &[f32]) -> Option<Expression> {
        let parts = self.parts(pair);
        linear(&parts, target)
    }

    /// The parts of the pair as columns of a linear model.
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

    /// Linear models that start with the pair's parts and take up the features (alone, or times the first part or its
    /// square) that explain most of the rest.
    fn extended(&self, pair: &Pair, target: &[f32], settings: &Settings) -> Vec<Expression> {
        let mut beam = vec![self.parts(pair)];
        let mut found = Vec::new();
        for _ in 0..TERMS {
            let mut next = Vec::new();
            for parts in &beam {
                let Some(model) = Model::new(parts.iter().map(|p| &p.1[..]), target) else {
                    continue;
                };
                for (power, feature) in model.continuations(self, &parts[0].1) {
                    let mut parts = parts.clone();
                    let (mut e, mut values) = (self.features[feature].clone(), self.raw(feature));
                    for _ in 0..power {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss of the best seed, relative to the magnitude of the target.
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
        let late = seeds(&problem, &settings, &mut Random::new(1, 1), &|| true);
        assert!(late.len() <= 2, "the deadline holds");
        let seeds = seeds(&problem, &settings, &mut Random::new(1, 1), &|| false);
        let errors = seeds.iter().map(error).filter(|e| e.is_finite());
        errors.fold(f64::INFINITY, f64::min)
    }

    /// Too long for the library of small expressions.
    #[test]
    fn sums_of_two_terms_of_physics() {
        let operators = [Op::Add, Op::Sub, Op::Mul, Op::Div, Op::Pow, Op::Exp];
        assert!(best_error(&operators, |x, y| 5.0 * (-2.0 * x).exp() - 0.3 * y / x.powi(6)) < 0.05);
        assert!(best_error(&operators, |x, y| x * (y / x).exp() - y / x.powi(4)) < 1e-4);
    }

    /// Without the weights it would find the law of the other rows.
    #[test]
    fn rows_count_by_their_weights() {
        let mut random = Random::new(8, 0);
        let mut problem = Problem {
            columns: vec![Vec::new(); 2],
            weights: Some(Vec::new()),
            ..Problem::default()
        };
        for row in 0..600 {
            let (x, y) = (0.2 + 2.0 * random.uniform(), 0.2 + random.uniform());
            let light = row % 3 > 0;
            problem.columns[0].push(x as f32);
            problem.columns[1].push(y as f32);
            problem.target.push(if light { x + y * y } else { 3.0 * x / y } as f32);
            problem.weights.as_mut().unwrap().push(if light { 1e-3 } else { 2.0 });
        }
        let settings = Settings {
            operators: vec![Op::Add, Op::Mul, Op::Div],
            evaluations: Some(5_000),
            ..Settings::default()
        };
        let found = seeds(&problem, &settings, &mut Random::new(1, 1), &|| false);
        let law = |e: &Expression| {
            let error = |x: f64, y: f64| (e.eval(&[x, y]) / (3.0 * x / y) - 1.0).abs();
            error(0.7, 0.4) + error(2.0, 1.1) < 1e-4
        };
        assert!(found.iter().any(law));
        assert_eq!(weighed(&problem, &mut Random::new(1, 1)).target.len(), 200);
        problem.weights = Some(vec![1.0; 600]);
        assert_eq!(weighed(&problem, &mut Random::new(1, 1)).target, problem.target);
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
        let inverse = [&arithmetic[..], &[Op::Asin, Op::Tanh]].concat();
        assert!(best_error(&inverse, |x, y| (0.3 * x * y).asin()) < 1e-4);
        assert!(best_error(&inverse, |x, y| (0.3 * x / y).tanh()) < 1e-4);
        // Powers outside any library, times a function of one group.
        assert!(
            best_error(&all, |x, y| x.powi(5) / y.powi(3) * (1.0 + 0.2 * (x * y).sqrt())) < 1e-4
        );
        // A number inside a function, one of those that are tried.
        let numbers = best_error(&arithmetic, |x, y| x * y / (0.8 + y * y));
        assert!(numbers < 2e-2, "{numbers}");
        assert!(best_error(&arithmetic, |x, y| (x + y).sinh()) > 1e-4, "the test can fail");
    }
}
