//! A library of features: small expressions of the operators, distinct up to a factor.

use std::collections::HashSet;

use super::search::Problem;
use super::settings::Settings;
use super::terms::terms;
use crate::formula::expression::{Expression, Op, Weights};
use crate::formula::operator::Rule;
use crate::random::Random;

/// Number of levels of a variable at which comparisons are tried.
const LEVELS: usize = 9;
/// Numbers combined with simple features: as terms in units of their root mean square, as factors in units of its
/// inverse.
const NUMBERS: [f64; 5] = [0.25, 0.5, 1.0, 2.0, 4.0];
/// Largest complexity of a feature that is combined with numbers; and the share of the library (one in so many) for
/// such features.
const SIMPLE: usize = 2;
const NUMBERED: usize = 8;
/// The same share for the terms of physics.
const TERMS: usize = 8;

/// Features, the simplest first.
pub(super) struct Library {
    /// Expressions whose only constants are the number 1, levels of comparisons, and the numbers combined with simple
    /// features.
    pub features: Vec<Expression>,
    pub complexities: Vec<u32>,
    /// `[feature][row]`, with root mean square 1 …
    pub values: Vec<Vec<f32>>,
    /// … and the divisor that made it so.
    scales: Vec<f32>,
}

impl Library {
    /// All expressions of the operators on variables and the number 1 by increasing complexity, up to `most` distinct
    /// ones; of the last complexity a random selection.
    pub fn new(
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
        let ones = vec![1.0; chosen.len()];
        building.add(Feature::new(one, weights, ones, false), true);
        let mut levels = Vec::new();
        for (v, column) in problem.columns.iter().enumerate() {
            let values: Vec<f64> = chosen.iter().map(|&row| f64::from(column[row])).collect();
            let e = Expression::variable(v as u16);
            if settings.operators.contains(&Op::Greater) {
                levels.extend(above_levels(&e, &values, weights));
            }
            building.add(Feature::new(e, weights, values, false), true);
        }
        let term = |(e, values)| Feature::new(e, weights, values, true);
        let mut terms: Vec<Feature> =
            terms(problem, chosen, settings).into_iter().map(term).collect();
        terms.sort_by_key(|feature| feature.complexity);
        terms.truncate(most / TERMS);
        let mut numbered: Option<Vec<Feature>> = None;
        for complexity in 2..=settings.max_complexity as usize {
            if complexity > SIMPLE && numbered.is_none() {
                let mut all = building.numbered(settings);
                all.truncate(most / NUMBERED);
                all.sort_by_key(|feature| feature.complexity);
                numbered = Some(all);
            }
            let waiting = terms.len() + numbered.as_ref().map_or(0, Vec::len);
            let left = most.saturating_sub(building.library.features.len() + waiting);
            if left == 0 {
                break;
            }
            let now = |feature: &Feature| feature.complexity as usize <= complexity;
            // Comparisons are parts of further features; features with numbers and the terms of physics are not.
            for feature in levels.extract_if(.., |f| now(f)) {
                building.add(feature, true);
            }
            for feature in numbered.iter_mut().flat_map(|n| n.extract_if(.., |f| now(f))) {
                building.add(feature, false);
            }
            building.level(complexity, left, settings, random);
            // Behind the level, which has some of the terms as parts.
            for feature in terms.extract_if(.., |f| now(f)) {
                building.add(feature, false);
            }
        }
        terms.extend(numbered.into_iter().flatten());
        terms.sort_by_key(|feature| feature.complexity);
        for feature in terms {
            building.add(feature, false);
        }
        building.library
    }

    /// The values of a feature, unscaled.
    pub fn raw(&self, feature: usize) -> Vec<f32> {
        self.values[feature].iter().map(|v| v * self.scales[feature]).collect()
    }
}

/// A feature to be added to a library.
struct Feature {
    expression: Expression,
    complexity: u32,
    raw: Vec<f64>,
    curved: bool,
}

impl Feature {
    fn new(expression: Expression, weights: &Weights, raw: Vec<f64>, curved: bool) -> Self {
        Feature { complexity: expression.complexity(weights), expression, raw, curved }
    }
}

/// Comparisons of a variable with some of its values.
fn above_levels(variable: &Expression, values: &[f64], weights: &Weights) -> Vec<Feature> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let above = |level: usize| {
        let threshold = sorted[level * (sorted.len() - 1) / (LEVELS + 1)];
        let raw = values.iter().map(|v| f64::from(u8::from(*v > threshold))).collect();
        let e =
            Expression::apply(Op::Greater, &[variable.clone(), Expression::constant(threshold)]);
        Feature::new(e, weights, raw, false)
    };
    (1..=LEVELS).map(above).collect()
}

/// True for functions of pure numbers such as exp, log and sin: these are not nested in a library.
fn needs_pure_number(op: Op) -> bool {
    op.row().units == Rule::Number
}

/// A library under construction.
struct Building {
    library: Library,
    seen: HashSet<[i64; 2]>,
    /// Features of each complexity.
    levels: Vec<Vec<usize>>,
    /// `[feature][row]`, unscaled.
    raw: Vec<Vec<f64>>,
    /// True if a function that `needs_pure_number` occurs.
    curved: Vec<bool>,
}

impl Building {
    /// Adds a feature unless it equals another up to a factor; false if it does not count. If it is a `part`, further
    /// features are made from it.
    fn add(&mut self, feature: Feature, part: bool) -> bool {
        let Feature { expression: e, complexity, raw, curved } = feature;
        let n = raw.len() as f64;
        let square = raw.iter().map(|v| v * v).sum::<f64>() / n;
        let usable = square.is_finite() && square > 1e-16 && square < 1e16;
        let Some(first) = raw.iter().find(|v| **v != 0.0).filter(|_| usable) else { return false };
        let unit = first.signum() / square.sqrt();
        // Two projections: equal for equal features, and for hardly any others.
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
        if part && let Some(level) = self.levels.get_mut(complexity as usize) {
            level.push(index);
        }
        self.raw.push(raw);
        self.curved.push(curved);
        true
    }

    /// All features of one complexity, at most `most`.
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
                    for a in 1..left {
                        for &f in &self.levels[a] {
                            let others = self.levels[left - a].iter();
                            let others = others.filter(|g| !op.row().commutative || **g >= f);
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
            if needs_pure_number(op) && self.curved[f] {
                continue;
            }
            let values: Vec<f64> = self.raw[f]
                .iter()
                .zip(&self.raw[g])
                .map(|(a, b)| op.apply(&[*a, *b][..op.arity()]))
                .collect();
            let operands = [f, g].map(|i| self.library.features[i].clone());
            let e = Expression::apply(op, &operands[..op.arity()]);
            let curved = needs_pure_number(op) || self.curved[f] || self.curved[g];
            let feature = Feature::new(e, &settings.weights, values, curved);
            left -= usize::from(self.add(feature, true));
        }
    }

    /// Simple features combined with numbers: g + c, and functions of c · g. The search fits the numbers, but only from
    /// these starting values.
    fn numbered(&self, settings: &Settings) -> Vec<Feature> {
        let weights = &settings.weights;
        let functions =
            settings.operators.iter().filter(|op| needs_pure_number(**op) && **op != Op::Log);
        let functions: Vec<Op> = functions.copied().collect();
        let simple = self.levels.iter().take(SIMPLE + 1).flatten().skip(1);
        let mut found = Vec::new();
        for &g in simple.filter(|&&g| !self.curved[g]) {
            let (e, raw) = (&self.library.features[g], &self.raw[g]);
            let size = f64::from(self.library.scales[g]);
            for number in NUMBERS.into_iter().flat_map(|k| [k, -k]) {
                let with =
                    |op: Op, c: f64| Expression::apply(op, &[Expression::constant(c), e.clone()]);
                let c = number * size;
                let shifted = raw.iter().map(|v| v + c).collect();
                found.push(Feature::new(with(Op::Add, c), weights, shifted, false));
                let c = number / size;
                // An odd or even function of −c · g is the same up to a factor.
                for &op in functions.iter().filter(|op| c > 0.0 || **op == Op::Exp) {
                    let values = raw.iter().map(|v| op.apply(&[c * v])).collect();
                    let e = Expression::apply(op, &[with(Op::Mul, c)]);
                    found.push(Feature::new(e, weights, values, true));
                }
            }
        }
        found
    }
}

/// A random order.
pub(super) fn shuffle<T>(list: &mut [T], random: &mut Random) {
    for last in (1..list.len()).rev() {
        list.swap(last, random.below(last + 1));
    }
}
