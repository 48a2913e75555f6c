//! Numbers that a reader would write: constants of a formula replaced by integers, simple fractions
//! and simple multiples of π where the data do not object.

use std::f64::consts::PI;

use super::rules::Rules;
use crate::error::Result;
use crate::formula::expression::Expression;
use crate::ops::expression::Rows;

/// A constant may move by this part of itself.
const NEAR: f64 = 0.02;
/// Steps and tolerance of refitting the constants that are left.
const STEPS: (u32, f64) = (20, 1e-6);

/// Seven significant digits: as many as an f32 has, and no more than a reader wants.
pub(super) fn digits(value: f64) -> f64 {
    format!("{value:.6e}").parse().unwrap_or(value)
}

/// Numbers near `value` that are simpler, the nearest first; of two as near, the simpler.
fn simple(value: f64) -> Vec<f64> {
    if value == 0.0 {
        return Vec::new();
    }
    let mut found = vec![0.0];
    // Few of each kind: among many, one would lie near any value that noise blurs.
    for (unit, denominators, numerators) in [(1.0, 1, 100.0), (1.0, 6, 12.0), (PI, 4, 8.0)] {
        for denominator in 1..=denominators {
            let numerator = (value / unit * f64::from(denominator)).round();
            if numerator != 0.0 && numerator.abs() <= numerators {
                found.push(numerator * unit / f64::from(denominator));
            }
        }
        let inverse = (1.0 / (value * unit)).round();
        if inverse != 0.0 && inverse.abs() <= 10.0 {
            found.push(1.0 / (inverse * unit));
        }
    }
    found.retain(|f| *f == 0.0 || (f - value).abs() <= NEAR * value.abs());
    // Stable: integers come before fractions, and those before multiples of π.
    let far = |f: f64| ((f - value).abs() / value.abs() / 1e-5).floor();
    found.sort_by(|a, b| far(*a).total_cmp(&far(*b)));
    found
}

/// The largest loss that passes for the same as `loss`, by what the Bayesian information criterion asks of a
/// parameter: n rows have to gain ln n in n ln(loss). One of `resolution` is as good as 0.
pub(super) fn limit(loss: f64, rows: usize, resolution: f64) -> f64 {
    let rows = rows as f64;
    (loss * (rows.ln() / rows).exp()).max(resolution)
}

/// The expression with as many rounded constants as its loss on `rows` bears, the others refitted;
/// None where no constant can be rounded.
pub(super) fn rounded(
    rules: &Rules,
    rows: &Rows,
    expression: &Expression,
    resolution: f64,
) -> Result<Option<Expression>> {
    let loss = rules.refit(rows, expression, Vec::new(), (0, 0.0))?.loss;
    let limit = limit(loss, rows.rows(), resolution);
    let mut best = None;
    let mut fixed: Vec<u16> = Vec::new();
    let mut values = expression.constants();
    for k in 0..values.len() {
        for value in simple(values[k]) {
            if value == values[k] {
                fixed.push(k as u16);
                break;
            }
            let mut trial = expression.clone();
            let mut constants = values.clone();
            constants[k] = value;
            trial.set_constants(&constants);
            let held: Vec<u16> = fixed.iter().copied().chain([k as u16]).collect();
            let fitted = rules.refit(rows, &trial, held, STEPS)?;
            if fitted.loss <= limit {
                values = fitted.constants.iter().map(|&c| digits(c)).collect();
                for &k in &fixed {
                    values[usize::from(k)] = constants[usize::from(k)];
                }
                values[k] = value;
                fixed.push(k as u16);
                trial.set_constants(&values);
                best = Some(trial);
                break;
            }
        }
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A true 1 that noise shows as 1 ± 2.5 standard deviations passes for 1; at 4 it does not.
    #[test]
    fn noise_does_not_hide_a_simple_number() {
        let n = 2000.0f64;
        let rise = |deviations: f64| 1.0 + deviations * deviations / n;
        assert!(rise(2.5) < limit(1.0, 2000, 0.0) && rise(4.0) > limit(1.0, 2000, 0.0));
        assert_eq!(limit(1e-20, 2000, 1e-10), 1e-10);
    }

    #[test]
    fn simple_numbers_are_near_and_few() {
        assert_eq!(simple(2.0001)[0], 2.0);
        assert_eq!(simple(0.3333)[0], 1.0 / 3.0);
        assert!((simple(12.56637)[0] - 4.0 * PI).abs() < 1e-12);
        assert!(
            (simple(0.0795775)[0] - 0.25 / PI).abs() < 1e-12 || simple(0.0795775).contains(&0.0)
        );
        assert!(simple(-1.5000001)[0] == -1.5);
        assert!(simple(1e9).iter().all(|v| *v == 0.0));
        assert!(simple(0.7234).iter().all(|v| *v == 0.0 || (v - 0.7234).abs() < 0.015));
    }
}
