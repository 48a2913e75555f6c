//! How exact the numbers of a table are: a loss explained by their rounding counts as zero.

use super::rules::Rules;
use crate::formula::expression::Expression;
use crate::ops::expression::Loss;
use crate::ops::expression::exact::Exact;
use crate::random::Random;

/// Values examined.
const LOOKED_AT: usize = 2_000;
/// Numbers with fewer digits, such as 0.5, may be exact. For a target, and for inputs, of which there are many.
const FEWEST_DIGITS: usize = 6;
const FEWEST_OF_INPUTS: usize = 4;
/// More digits than survive a calculation in double precision.
const MOST_DIGITS: usize = 16;
/// The loss from rounding is seldom more than this many times its expected value.
const AROUND: f64 = 1.25;
/// Rounding error of a calculation in double precision, relative to its result.
const DOUBLE: f64 = 16.0 * f64::EPSILON;

/// How the numbers of a column were rounded.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rounding {
    /// Not rounded, as far as can be seen.
    None,
    /// To single precision.
    Single,
    /// To this many digits, none of them beyond this power of ten; perhaps to single precision before.
    Decimal { digits: i32, last: i32, single: bool },
}

impl Rounding {
    fn of(values: &[f64], fewest: usize) -> Self {
        let every = values.len().div_ceil(LOOKED_AT).max(1);
        let some = || values.iter().copied().step_by(every);
        let (mut digits, mut last) = (0, i32::MAX);
        for value in some().filter(|v| *v != 0.0 && v.is_finite()) {
            let text = format!("{:e}", value.abs());
            let (mantissa, power) = text.split_once('e').expect("written so");
            let own = mantissa.len() - usize::from(mantissa.contains('.'));
            digits = digits.max(own);
            last = last.min(power.parse::<i32>().expect("a number") - (own as i32 - 1));
        }
        match digits {
            MOST_DIGITS.. if some().all(|v| f64::from(v as f32) == v) => Rounding::Single,
            _ if digits >= fewest && digits < MOST_DIGITS && !counted(values, last) => {
                // Written in the digits of the column, or in as few as distinguish it from its neighbours.
                let single = some().all(|v| {
                    let of = v as f32;
                    let places = digits - 1;
                    [format!("{of:.places$e}"), of.to_string()].iter().any(|t| t.parse() == Ok(v))
                });
                Rounding::Decimal { digits: digits as i32, last, single }
            }
            _ => Rounding::None,
        }
    }

    /// The distance to the next number that could have been written.
    fn step(self, value: f64) -> f64 {
        match self {
            Rounding::None => 0.0,
            Rounding::Single => value.abs() * f64::from(f32::EPSILON) / 2.0,
            Rounding::Decimal { digits, last, single } => {
                let first = value.abs().max(f64::MIN_POSITIVE).log10().floor() as i32;
                let step = 10f64.powi(last.max(first - digits + 1));
                if single { step.max(Rounding::Single.step(value)) } else { step }
            }
        }
    }
}

/// True for whole numbers and equidistant ones: times of a clock are exact in few digits.
fn counted(values: &[f64], last: i32) -> bool {
    let steps = |k: usize| values[k] - values[k - 1];
    let even = |k: usize| (steps(k) - steps(1)).abs() <= 1e-3 * steps(1).abs();
    last >= 0 || (values.len() > 2 && (2..values.len()).all(even))
}

/// The loss of the true law on a target that was rounded, and computed in double precision.
pub(super) fn floor(target: &[f64], weights: Option<&[f32]>, loss: Loss) -> f64 {
    let rounding = Rounding::of(target, FEWEST_DIGITS);
    let (mut sum, mut whole) = (0.0, 0.0);
    for (row, &y) in target.iter().enumerate() {
        let weight = weights.map_or(1.0, |weights| f64::from(weights[row]));
        let (step, calculated) = (rounding.step(y), DOUBLE * y.abs());
        // For an error distributed uniformly within half a step.
        let size = match loss {
            Loss::Mae => step / 4.0 + calculated,
            Loss::Mse => step * step / 12.0 + calculated * calculated,
        };
        (sum, whole) = (sum + weight * size, whole + weight);
    }
    AROUND * sum / whole
}

/// The loss caused by rounded inputs: how far predictions move if the inputs move within their rounding. 0 if the
/// target has all digits: then it was computed from the inputs as they are.
pub(super) fn sensitivity(rules: &Rules, rows: &Exact, candidate: &Expression) -> f64 {
    if Rounding::of(rows.target(), FEWEST_DIGITS) == Rounding::None {
        return 0.0;
    }
    let mut random = Random::new(0, 9 << 40);
    let moved = |column: &Vec<f64>| -> Vec<f64> {
        let rounding = Rounding::of(column, FEWEST_OF_INPUTS);
        let moved = |&v: &f64| v + (random.uniform() - 0.5) * rounding.step(v);
        column.iter().map(moved).collect()
    };
    let columns: Vec<Vec<f64>> = rows.columns().iter().map(moved).collect();
    let predictions = rules.exact_values(rows, candidate);
    let shaken = Exact::new(columns, predictions, Some(rows.weights()));
    AROUND * rules.exact_loss(&shaken, candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_counted() {
        let of = |values: &[f64]| Rounding::of(values, FEWEST_DIGITS);
        assert_eq!(of(&[1.0, 2.5, 1980.0]), Rounding::None);
        assert_eq!(of(&[1.0 / 3.0, 0.5]), Rounding::None);
        assert_eq!(of(&[f64::from(1.0f32 / 3.0), 0.5]), Rounding::Single);
        let fixed = of(&[1234.5678, 0.0012, 3.0]);
        assert_eq!(fixed, Rounding::Decimal { digits: 8, last: -4, single: false });
        assert!((fixed.step(0.0012) - 1e-4).abs() < 1e-18);
        let relative = of(&[1.23456e-9, 7.89012e5]);
        assert!((relative.step(7e5) - 1.0).abs() < 1e-9, "{}", relative.step(7e5));
    }

    /// Numbers of single precision as text: with nine digits each, and with as few as each needs.
    #[test]
    fn single_precision_is_known_in_decimals() {
        let singles: Vec<f32> = (1..200).map(|k| 1.0 / (k as f32 + 0.37)).collect();
        let nine: Vec<f64> = singles.iter().map(|s| format!("{s:.8e}").parse().unwrap()).collect();
        let few: Vec<f64> = singles.iter().map(|s| s.to_string().parse().unwrap()).collect();
        let exact: Vec<f64> = (1..200)
            .map(|k| format!("{:.8e}", 1.0 / (f64::from(k) + 0.37)).parse().unwrap())
            .collect();
        for (values, expected) in [(nine, true), (few, true), (exact, false)] {
            let rounding = Rounding::of(&values, FEWEST_DIGITS);
            assert!(
                matches!(rounding, Rounding::Decimal { single, .. } if single == expected),
                "{rounding:?}"
            );
        }
    }

    #[test]
    fn clocks_and_counts_are_exact() {
        let of = |values: &[f64]| Rounding::of(values, FEWEST_OF_INPUTS);
        assert_eq!(of(&[0.0125, 0.025, 0.0375, 0.05]), Rounding::None);
        assert_eq!(of(&[1234.0, 1980.0, 17.0]), Rounding::None);
        assert_ne!(of(&[0.0125, 0.0255, 0.0371, 1.0512]), Rounding::None);
    }

    #[test]
    fn a_law_on_a_rounded_target_is_at_the_floor() {
        let mut random = Random::new(4, 0);
        let x: Vec<f64> = (0..4000).map(|_| 1.0 + random.uniform()).collect();
        let y: Vec<f64> = x.iter().map(|x| (x * x * 1e6).round() / 1e6).collect();
        let error = x.iter().zip(&y).map(|(x, y)| (y - x * x).abs()).sum::<f64>() / 4000.0;
        let floor = floor(&y, None, Loss::Mae) / AROUND;
        assert!((error / floor - 1.0).abs() < 0.05, "{error} {floor}");
    }
}
