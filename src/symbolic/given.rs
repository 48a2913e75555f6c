//! A table as it was given, in double precision, and the units in which a search sees it.
//!
//! A search computes in single precision. It sees (value − zero) / unit of each column: a unit if the order of
//! magnitude of the column is not 1, a zero if the spread would be lost in the offset. Its formulas are converted back
//! to the original values ([`Expression::rescaled`]).

use crate::formula::expression::Expression;
use crate::formula::rescale::Rescaling;
use crate::ops::expression::Loss;

/// A spread below this fraction of the offset is lost in it.
const LOST: f64 = 1e-3;
/// Columns whose typical sizes are within this many decades share a unit: their differences stay short.
const ALIKE: f64 = 1.0;
/// A column within this many decades of 1 keeps its unit: cubes stay well within the range of single precision.
const NEAR: f64 = 4.0;

/// Columns and target in double precision.
#[derive(Clone, Debug)]
pub struct OriginalData {
    /// `[column][row]`
    pub columns: Vec<Vec<f64>>,
    /// `[row]`
    pub target: Vec<f64>,
    /// Zero and unit of each column and of the target, as the search sees them.
    pub units: Rescaling,
}

impl OriginalData {
    /// With units chosen from the data if `own_units`, else unchanged.
    pub fn new(columns: Vec<Vec<f64>>, target: Vec<f64>, own_units: bool) -> Self {
        let mut units = Rescaling { inputs: vec![(0.0, 1.0); columns.len()], output: (0.0, 1.0) };
        if own_units {
            let mut found = natural(&columns, &target);
            units.output = found.pop().expect("one for the target");
            units.inputs = found;
        }
        OriginalData { columns, target, units }
    }

    /// A column as the search sees it; the error is the row of a value that single precision cannot hold.
    pub fn column(&self, index: usize) -> Result<Vec<f32>, usize> {
        let zero = self.units.inputs[index].0;
        // A value that becomes 0 has another logarithm.
        let held = |value: f64, seen: f32| seen.is_normal() || value == zero;
        seen(&self.columns[index], self.units.inputs[index], held)
    }

    /// The same for the target, where values that underflow count as 0: no loss can tell.
    pub fn seen_target(&self) -> Result<Vec<f32>, usize> {
        seen(&self.target, self.units.output, |_, seen| seen.is_finite())
    }

    /// A formula of the search in the original values.
    pub fn outward(&self, e: &Expression) -> Expression {
        if self.plain() { e.clone() } else { e.rescaled(&self.units).simplified() }
    }

    /// A formula of the original values, in those of the search.
    pub fn inward(&self, e: &Expression) -> Expression {
        if self.plain() { e.clone() } else { e.rescaled(&self.units.inverse()).simplified() }
    }

    /// A loss of the search in the units of the target.
    pub fn loss(&self, kind: Loss, loss: f64) -> f64 {
        let unit = self.units.output.1;
        match kind {
            Loss::Mae => loss * unit,
            Loss::Mse => loss * unit * unit,
        }
    }

    /// True if the search sees the original values.
    fn plain(&self) -> bool {
        self.units.inputs.iter().chain([&self.units.output]).all(|unit| *unit == (0.0, 1.0))
    }
}

/// Values in a unit relative to a zero; the error is the first row whose value cannot be held.
fn seen(
    values: &[f64],
    (zero, unit): (f64, f64),
    held: impl Fn(f64, f32) -> bool,
) -> Result<Vec<f32>, usize> {
    let one = |(row, &value): (usize, &f64)| {
        let seen = ((value - zero) / unit) as f32;
        if held(value, seen) { Ok(seen) } else { Err(row) }
    };
    values.iter().enumerate().map(one).collect()
}

/// Zero and unit of each column, those of the target last.
fn natural(columns: &[Vec<f64>], target: &[f64]) -> Vec<(f64, f64)> {
    let all = || columns.iter().map(Vec::as_slice).chain([target]);
    let zeros: Vec<f64> = all().map(zero).collect();
    let decades = all().zip(&zeros).map(|(values, zero)| decade(values, *zero));
    let mut order: Vec<(f64, usize)> =
        decades.enumerate().filter_map(|(k, decade)| Some((decade?, k))).collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let mut units: Vec<(f64, f64)> = zeros.into_iter().map(|zero| (zero, 1.0)).collect();
    for group in order.chunk_by(|a, b| b.0 - a.0 < ALIKE) {
        let middle = group[group.len() / 2].0;
        if group.iter().all(|(decade, _)| decade.abs() > NEAR) {
            let unit = 10f64.powi(middle.round() as i32);
            group.iter().for_each(|&(_, k)| units[k].1 = unit);
        }
    }
    units
}

/// What is subtracted from a column: a number of few digits within its range if its spread would be lost, else 0.
fn zero(values: &[f64]) -> f64 {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let (middle, spread) = (0.5 * least + 0.5 * most, most - least);
    if !(spread > 0.0 && spread < LOST * middle.abs()) {
        return 0.0;
    }
    let step = 10f64.powi(spread.log10().floor() as i32);
    let zero = (middle / step).round() * step;
    format!("{zero:.12e}").parse().unwrap_or(zero)
}

/// The order of magnitude of a column's median relative to its zero; None if all are 0.
fn decade(values: &[f64], zero: f64) -> Option<f64> {
    let mut sizes: Vec<f64> =
        values.iter().map(|v| (v - zero).abs()).filter(|size| *size > 0.0).collect();
    let half = sizes.len().checked_sub(1)? / 2;
    Some(sizes.select_nth_unstable_by(half, f64::total_cmp).1.log10())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(columns: &[&[f64]], target: &[f64]) -> Vec<(f64, f64)> {
        natural(&columns.iter().map(|c| c.to_vec()).collect::<Vec<_>>(), target)
    }

    #[test]
    fn ordinary_columns_are_seen_as_they_are() {
        let found = units(&[&[1.0, 250.0, -3.0], &[0.0, 0.0, 0.0]], &[1e-3, 2e-3, 5e3]);
        assert_eq!(found, [(0.0, 1.0); 3]);
    }

    #[test]
    fn sizes_far_from_one_get_a_unit_and_those_alike_the_same() {
        let found = units(&[&[4e-47, 3e-47, 2e-47], &[2e-46, 1e-46, 3e-46]], &[3e30, 1e30, 2e30]);
        assert_eq!(found, [(0.0, 1e-46), (0.0, 1e-46), (0.0, 1e30)]);
    }

    #[test]
    fn a_spread_that_would_be_lost_gets_a_zero() {
        let found = units(&[&[1.7e9, 1.700001e9, 1.700002e9]], &[1e7 + 0.25, 1e7 + 1.0, 1e7]);
        assert_eq!(found, [(1.700001e9, 1.0), (1e7 + 1.0, 1.0)]);
        assert_eq!(units(&[&[1980.0, 2020.0, 2000.0]], &[1.0, 2.0, 3.0])[0], (0.0, 1.0));
    }

    #[test]
    fn formulas_go_in_and_out() {
        let given = OriginalData {
            columns: vec![vec![1e9 + 5.0, 1e9 - 3.0, 1e9 + 4.0]],
            target: vec![2e-50, 3e-50, 7e-50],
            units: Rescaling { inputs: vec![(1e9, 10.0)], output: (1e-49, 1e-50) },
        };
        let e = Expression::parse("3e-51 * x + 2e-50", &["x"]).unwrap();
        let inside = given.inward(&e);
        for x in [1e9, 1e9 + 7.0] {
            let (seen, value) = (inside.eval(&[(x - 1e9) / 10.0]), e.eval(&[x]));
            assert!((seen * 1e-50 + 1e-49 - value).abs() < 1e-9 * value.abs(), "{seen} {value}");
            let back = given.outward(&inside).eval(&[x]);
            assert!((back - value).abs() < 1e-9 * value.abs(), "{back} {value}");
        }
        assert_eq!(given.column(0).unwrap(), [0.5, -0.3, 0.4]);
        let wide = OriginalData::new(vec![vec![1.0, 1e-60, 1e60]], vec![1.0, 2.0, 3.0], true);
        assert_eq!(wide.column(0), Err(1));
        let tail = OriginalData::new(vec![vec![1.0, 2.0, 3.0]], vec![1.0, 0.1, 1e-87], true);
        assert_eq!(tail.seen_target().unwrap()[2], 0.0);
    }
}
