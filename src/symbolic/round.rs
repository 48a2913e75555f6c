//! Simple numbers: constants of a formula replaced by integers, simple fractions and simple multiples of π where the
//! data allow it.

use super::rules::Rules;
use super::threshold;
use crate::formula::expression::Expression;
use crate::formula::pi::PiMultiple;
use crate::ops::expression::exact::Exact;

/// A constant may move by this fraction of itself.
const NEAR: f64 = 0.02;
/// Only a constant that the data determine to this fraction can be taken for a third, or a multiple of π.
const NARROW: f64 = 1e-4;
/// What dropping digits may cost, as a share of what a parameter has to gain.
const DIGITS: f64 = 0.1;
/// Digits of a double after the first.
const DOUBLE_DIGITS: usize = 16;
/// Steps and tolerance of refitting the remaining constants.
const STEPS: (u32, f64) = (20, 1e-6);

/// Seven significant digits, as many as an f32 has.
pub(super) fn digits(value: f64) -> f64 {
    format!("{value:.6e}").parse().unwrap_or(value)
}

/// A number that a person would write.
#[derive(Clone, Copy, Debug)]
struct Simple {
    value: f64,
    /// True for thirds, sixths and multiples of π: one of them lies near many a number; they must match in more digits.
    of_many: bool,
}

/// Simpler numbers near `value`, the nearest first; of two equally near, the simpler.
fn simple(value: f64) -> Vec<Simple> {
    if value == 0.0 {
        return Vec::new();
    }
    let mut found = vec![Simple { value: 0.0, of_many: false }];
    // Few of each kind: among many, one would lie near any value blurred by noise.
    for (denominators, numerators) in [(1, 100.0), (6, 12.0)] {
        for denominator in 1..=denominators {
            let numerator = (value * f64::from(denominator)).round();
            if numerator != 0.0 && numerator.abs() <= numerators {
                let of_many = denominator % 3 == 0;
                found.push(Simple { value: numerator / f64::from(denominator), of_many });
            }
        }
    }
    let inverse = (1.0 / value).round();
    if inverse != 0.0 && inverse.abs() <= 10.0 {
        let of_many = [3.0, 6.0, 7.0, 9.0].contains(&inverse.abs());
        found.push(Simple { value: 1.0 / inverse, of_many });
    }
    found.extend(
        PiMultiple::all()
            .map(|multiple| Simple { value: multiple.value().copysign(value), of_many: true }),
    );
    found.retain(|f| f.value == 0.0 || (f.value - value).abs() <= NEAR * value.abs());
    // Stable: integers come before fractions, and those before multiples of π.
    let far = |f: &Simple| ((f.value - value).abs() / value.abs() / 1e-5).floor();
    found.sort_by(|a, b| far(a).total_cmp(&far(b)));
    found
}

/// The largest loss that counts as the same as `loss`, from the gain that the Bayesian information criterion demands of
/// a parameter: ln n in n ln(loss) for n rows. A loss of `resolution` counts as 0.
pub(super) fn limit(loss: f64, rows: usize, resolution: f64) -> f64 {
    let rows = rows as f64;
    (loss * (rows.ln() / rows).exp()).max(resolution)
}

/// The expression with as many simple constants as its loss on `rows` allows; the others are refitted and keep as many
/// digits as matter.
pub(super) fn rounded(
    rules: &Rules,
    rows: &Exact,
    expression: &Expression,
    floor: f64,
) -> Expression {
    let limit = limit(rules.exact_loss(rows, expression), rows.rows(), floor);
    let mut best = expression.clone();
    let mut fixed = threshold::numbers(expression);
    for k in 0..expression.constants().len() as u16 {
        let value = best.constants()[usize::from(k)];
        if fixed.contains(&k) {
            continue;
        }
        let held: Vec<u16> = fixed.iter().copied().chain([k]).collect();
        let bears = |value: f64| {
            let (loss, trial) = with(rules, rows, &best, &held, (k, value));
            (loss <= limit).then_some(trial)
        };
        let narrow = || [-NARROW, NARROW].iter().all(|off| bears(value * (1.0 + off)).is_none());
        let mut is_narrow = None;
        let tried = simple(value).into_iter().find_map(|Simple { value, of_many }| {
            if of_many && !*is_narrow.get_or_insert_with(narrow) { None } else { bears(value) }
        });
        if let Some(trial) = tried {
            best = trial;
            fixed = held;
        }
    }
    shortened(rules, rows, &best, fixed, floor)
}

/// The expression with each constant that is not `fixed` in as few digits as the loss on `rows` allows; the constants
/// after it are refitted.
pub(super) fn shortened(
    rules: &Rules,
    rows: &Exact,
    expression: &Expression,
    mut fixed: Vec<u16>,
    floor: f64,
) -> Expression {
    let n = rows.rows() as f64;
    let loss = rules.exact_loss(rows, expression);
    let limit = (loss * (1.0 + DIGITS * n.ln() / n)).max(floor);
    fixed.extend(threshold::numbers(expression));
    let mut best = expression.clone();
    for k in 0..expression.constants().len() as u16 {
        if fixed.contains(&k) {
            continue;
        }
        fixed.push(k);
        let value = best.constants()[usize::from(k)];
        let short = (0..DOUBLE_DIGITS).find_map(|digits| {
            let short = format!("{value:.digits$e}").parse().unwrap_or(value);
            let (loss, trial) = with(rules, rows, &best, &fixed, (k, short));
            (loss <= limit).then_some(trial)
        });
        best = short.unwrap_or(best);
    }
    best
}

/// The expression with another value of constant k, and the constants that are not `fixed` refitted.
fn with(
    rules: &Rules,
    rows: &Exact,
    expression: &Expression,
    fixed: &[u16],
    (k, value): (u16, f64),
) -> (f64, Expression) {
    let mut trial = expression.clone();
    let mut constants = expression.constants();
    constants[usize::from(k)] = value;
    trial.set_constants(&constants);
    let (loss, constants) = rules.exact_fit(rows, &trial, fixed, STEPS);
    trial.set_constants(&constants);
    (loss, trial)
}

#[cfg(test)]
mod tests {
    use std::f64::consts::PI;

    use super::*;

    /// A true 1 that noise shows as 1 ± 2.5 standard deviations is taken for 1; at 4 it is not.
    #[test]
    fn noise_does_not_hide_a_simple_number() {
        let n = 2000.0f64;
        let rise = |deviations: f64| 1.0 + deviations * deviations / n;
        assert!(rise(2.5) < limit(1.0, 2000, 0.0) && rise(4.0) > limit(1.0, 2000, 0.0));
        assert_eq!(limit(1e-20, 2000, 1e-10), 1e-10);
    }

    #[test]
    fn simple_numbers_are_near_and_few() {
        let values = |value: f64| simple(value).into_iter().map(|s| s.value).collect::<Vec<f64>>();
        assert_eq!(values(2.0001)[0], 2.0);
        assert_eq!(values(0.3333)[0], 1.0 / 3.0);
        assert!((values(12.56637)[0] - 4.0 * PI).abs() < 1e-12 && simple(12.56637)[0].of_many);
        assert!((values(0.0795775)[0] - 0.25 / PI).abs() < 1e-12);
        assert!(values(-1.5000001)[0] == -1.5);
        assert!(values(1e9).iter().all(|v| *v == 0.0));
        assert!(values(0.7234).iter().all(|v| *v == 0.0 || (v - 0.7234).abs() < 0.015));
    }
}
