//! Natural units of a data set. Data that lawsmith did not simulate come in any units: metres or astronomical
//! units, far from the origin, masses of 1e30 or charges of 1e-19. Networks and searches work best on numbers
//! of order one, so such data are used in natural units: the unit of length is the typical distance of a pair,
//! the unit of time makes the typical acceleration one, the units of mass and charge are their median sizes.
//! Units are powers of ten (times 1, 2 or 5 for time), so numbers already of order one stay as they are.

use serde::{Deserialize, Serialize};

use crate::formula::print::number;

/// Pairs, accelerations or positions used for the median that defines a unit.
const LOOKED_AT: usize = 20_000;
/// The origin is moved if the bodies are this many times farther from it than from each other.
const FAR: f64 = 100.0;
/// Networks see masses, or charges of one sign, as logarithms if they span more than this factor.
const WIDE: f64 = 100.0;

/// The user's value = origin + unit · stored value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scale {
    /// The point at which stored positions are zero.
    pub origin: [f64; 3],
    /// Unit of positions.
    pub length: f64,
    /// Unit of times.
    pub time: f64,
    /// Unit of masses.
    pub mass: f64,
    /// Unit of charges.
    pub charge: f64,
}

/// The data from which natural units are derived, in the user's units.
#[derive(Clone, Copy)]
pub struct Sample<'a> {
    /// `[frame, body, dim]`, the frames of all runs one after another.
    pub positions: &'a [f64],
    /// The same.
    pub accelerations: &'a [f64],
    /// Any number.
    pub masses: &'a [f64],
    /// Any number.
    pub charges: &'a [f64],
    /// Bodies of each frame.
    pub bodies: usize,
    /// Dimensions of space.
    pub dim: usize,
    /// Edges of a periodic box; 0 for open space.
    pub period: [f64; 3],
}

impl Scale {
    /// The user's own units.
    pub const NONE: Scale =
        Scale { origin: [0.0; 3], length: 1.0, time: 1.0, mass: 1.0, charge: 1.0 };

    /// Natural units. Values that are not finite (missing ones) are ignored.
    pub fn natural(sample: &Sample) -> Scale {
        let Sample { positions, accelerations, masses, charges, dim, .. } = *sample;
        let length = power_of_ten(median(distances(sample)));
        let origin = std::array::from_fn(|axis| {
            if axis >= dim || sample.period[axis] > 0.0 {
                return 0.0;
            }
            let middle = middle(every(positions.iter().skip(axis).step_by(dim)));
            if middle.abs() > FAR * length { (middle / length).round() * length } else { 0.0 }
        });
        let sizes = accelerations.chunks_exact(dim.max(1)).map(norm);
        let acceleration = median(every(&sizes.collect::<Vec<_>>()));
        let time =
            if acceleration > 0.0 { one_two_five((length / acceleration).sqrt()) } else { 1.0 };
        let size = |values: &[f64]| power_of_ten(median(every(values).map(f64::abs)));
        Scale { origin, length, time, mass: size(masses), charge: size(charges) }
    }

    /// Unit of velocities.
    pub fn velocity(&self) -> f64 {
        self.length / self.time
    }

    /// Unit of accelerations.
    pub fn acceleration(&self) -> f64 {
        self.length / self.time / self.time
    }

    /// True if stored values are in the user's units.
    pub fn is_none(&self) -> bool {
        *self == Scale::NONE
    }

    /// As text: `lengths in 1e-6, times in 0.0005`, leaving out units of 1.
    pub fn text(&self) -> String {
        let units = [
            ("lengths", self.length),
            ("times", self.time),
            ("masses", self.mass),
            ("charges", self.charge),
        ];
        let mut parts: Vec<String> = units
            .iter()
            .filter(|(_, unit)| *unit != 1.0)
            .map(|(what, unit)| format!("{what} in {}", number(*unit)))
            .collect();
        if self.origin != [0.0; 3] {
            let origin: Vec<String> = self.origin.iter().map(|&x| number(x)).collect();
            parts.push(format!("positions from ({})", origin.join(", ")));
        }
        parts.join(", ")
    }
}

/// How networks see a column of masses or charges: as values, or as logarithms if the values have one sign and
/// span more than two decades.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ColumnEncoding {
    /// True for the decimal logarithm of the absolute value.
    pub logarithm: bool,
}

impl ColumnEncoding {
    /// The better way to show a column to a network.
    pub fn of(values: &[f32]) -> ColumnEncoding {
        let range = values.iter().fold((f32::INFINITY, 0f32), |(least, most), v| {
            (least.min(v.abs()), most.max(v.abs()))
        });
        let one_sign = values.iter().all(|&v| v > 0.0) || values.iter().all(|&v| v < 0.0);
        ColumnEncoding { logarithm: one_sign && f64::from(range.1) > WIDE * f64::from(range.0) }
    }

    /// The network's input for a value.
    pub fn apply(self, value: f32) -> f32 {
        if self.logarithm { value.abs().log10() } else { value }
    }
}

/// At most [`LOOKED_AT`] of the finite values, evenly spread.
fn every<'a>(values: impl IntoIterator<Item = &'a f64>) -> impl Iterator<Item = f64> {
    let values: Vec<f64> = values.into_iter().copied().filter(|v| v.is_finite()).collect();
    let stride = values.len().div_ceil(LOOKED_AT).max(1);
    values.into_iter().step_by(stride)
}

/// Distances of all pairs in evenly spread frames.
fn distances<'a>(sample: &'a Sample) -> impl Iterator<Item = f64> + 'a {
    let Sample { positions, bodies, dim, period, .. } = *sample;
    let width = (bodies * dim).max(1);
    let pairs = (bodies * bodies.saturating_sub(1) / 2).max(1);
    let stride = (positions.len() / width * pairs).div_ceil(LOOKED_AT).max(1);
    positions.chunks_exact(width).step_by(stride).flat_map(move |frame| {
        let of = move |body: usize| &frame[body * dim..(body + 1) * dim];
        let pairs = (0..bodies).flat_map(|i| (0..i).map(move |j| (i, j)));
        let distance = move |(i, j): (usize, usize)| {
            let delta = |k: usize| nearest(of(j)[k] - of(i)[k], period[k]);
            norm(&(0..dim).map(delta).collect::<Vec<_>>())
        };
        pairs.map(distance).filter(|d| d.is_finite()).collect::<Vec<_>>()
    })
}

/// A coordinate difference to the nearest image in a box with edge `period` (0 for open space).
pub fn nearest(difference: f64, period: f64) -> f64 {
    if period > 0.0 { difference - period * (difference / period).round() } else { difference }
}

fn norm(vector: &[f64]) -> f64 {
    // The square of 1e-170 would underflow.
    let largest = vector.iter().fold(0f64, |most, x| most.max(x.abs()));
    if largest == 0.0 || !largest.is_finite() {
        return if vector.iter().any(|x| x.is_nan()) { f64::NAN } else { largest };
    }
    largest * vector.iter().map(|x| (x / largest).powi(2)).sum::<f64>().sqrt()
}

/// The median of the positive values; 0 if there are none.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    middle(values.filter(|&v| v > 0.0))
}

/// The median of all values; 0 if there are none.
fn middle(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// The nearest power of ten; 1 for 0.
fn power_of_ten(value: f64) -> f64 {
    if value > 0.0 { decimal(1, value.log10().round() as i32) } else { 1.0 }
}

/// The nearest of 1, 2 and 5 times a power of ten; 1 for 0.
fn one_two_five(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 1.0;
    }
    let floor = value.log10().floor() as i32;
    let candidates = [(1, floor), (2, floor), (5, floor), (1, floor + 1)];
    let far = |&(digit, power): &(u32, i32)| (decimal(digit, power) / value).ln().abs();
    let best = candidates.iter().min_by(|a, b| far(a).total_cmp(&far(b)));
    best.map_or(1.0, |&(digit, power)| decimal(digit, power))
}

/// digit · 10^power, correctly rounded.
fn decimal(digit: u32, power: i32) -> f64 {
    format!("{digit}e{power}").parse().unwrap_or(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// 40 frames of four bodies.
    fn data(seed: u64) -> [Vec<f64>; 4] {
        let mut random = Random::new(seed, 0);
        let mut some = |count: usize, size: f64| -> Vec<f64> {
            (0..count).map(|_| size * random.normal()).collect()
        };
        let (x, a, m, q) = (some(40 * 8, 1.0), some(40 * 8, 4.0), some(4, 0.3), some(4, 0.8));
        [x, a, m.iter().map(|m| m.exp()).collect(), q]
    }

    fn natural(x: &[f64], a: &[f64], m: &[f64], q: &[f64]) -> Scale {
        let (positions, accelerations, masses, charges) = (x, a, m, q);
        Scale::natural(&Sample {
            positions,
            accelerations,
            masses,
            charges,
            bodies: 4,
            dim: 2,
            period: [0.0; 3],
        })
    }

    #[test]
    fn data_of_order_one_keep_their_units() {
        let [x, a, m, q] = data(1);
        let scale = natural(&x, &a, &m, &q);
        assert_eq!((scale.length, scale.mass, scale.charge), (1.0, 1.0, 1.0));
        assert_eq!((scale.time, scale.origin), (0.5, [0.0; 3]));
        assert_eq!(scale.text(), "times in 0.5");
    }

    /// Multiplying the data by a power of ten multiplies the units by it, so the stored values are the same.
    #[test]
    fn natural_numbers_do_not_depend_on_units() {
        for seed in 0..20 {
            let [x, a, m, q] = data(seed);
            let plain = natural(&x, &a, &m, &q);
            for power in -12..=12 {
                let factor = 10f64.powi(power);
                let times = |v: &[f64], by: f64| v.iter().map(|v| v * by).collect::<Vec<_>>();
                let near = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 1e-12, "{a} {b}");
                let length = natural(&times(&x, factor), &times(&a, factor), &m, &q);
                near(length.length, plain.length * factor);
                near(length.time, plain.time);
                let time = natural(&x, &times(&a, factor.powi(-2)), &m, &q);
                near(time.time, plain.time * factor);
                near(time.acceleration(), plain.acceleration() * factor.powi(-2));
                let matter = natural(&x, &a, &times(&m, factor), &times(&q, factor));
                near(matter.mass, plain.mass * factor);
                near(matter.charge, plain.charge * factor);
            }
        }
    }

    #[test]
    fn what_is_far_away_gets_an_origin_and_what_is_missing_is_passed_over() {
        let [mut x, a, m, _] = data(3);
        for x in x.iter_mut().step_by(2) {
            *x = 1e7 + 1e-3 * *x;
        }
        for y in x.iter_mut().skip(1).step_by(2) {
            *y *= 1e-3;
        }
        x[6] = f64::NAN;
        let scale = natural(&x, &a, &m, &[0.0; 4]);
        assert_eq!((scale.length, scale.charge), (1e-3, 1.0));
        assert!((scale.origin[0] - 1e7).abs() < 0.01 && scale.origin[1] == 0.0, "{scale:?}");
    }

    #[test]
    fn in_a_box_distances_are_to_the_nearest_image() {
        let positions = [0.5, 5.0, 99.5, 5.0];
        let sample = Sample {
            positions: &positions,
            accelerations: &[0.0; 4],
            masses: &[],
            charges: &[],
            bodies: 2,
            dim: 2,
            period: [100.0, 0.0, 0.0],
        };
        assert_eq!(Scale::natural(&sample).length, 1.0);
        assert_eq!(Scale::natural(&Sample { period: [0.0; 3], ..sample }).length, 100.0);
    }

    #[test]
    fn logarithms_are_for_wide_positive_numbers() {
        assert!(ColumnEncoding::of(&[1.0, 3e-6, 9.5e-4]).logarithm);
        assert!(
            !ColumnEncoding::of(&[0.1, 9.0]).logarithm
                && !ColumnEncoding::of(&[0.0, 1e-6, 1.0]).logarithm
        );
        assert!(!ColumnEncoding::of(&[-1.0, 1000.0]).logarithm);
        assert_eq!(ColumnEncoding { logarithm: true }.apply(100.0), 2.0);
    }
}
