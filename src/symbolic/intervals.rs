//! 95 % intervals for the constants of a law.
//!
//! With the derivatives J of the formula with respect to its constants in each row, the covariance of the constants is
//! A⁻¹ B A⁻¹, where A = Σ a J Jᵀ is the second derivative of the loss and B = Σ b J Jᵀ the scatter of the first. For
//! squared residuals it is σ² (Σ w J Jᵀ)⁻¹ as for every least-squares fit; for absolute ones σ is 1 / 2f(0), with the
//! density f(0) of the weighted residuals at their median, since the scatter of a median depends on that. For a
//! user-defined loss a and b come from its derivatives.
//!
//! A law may be written with more constants than it has degrees of freedom, as in 2.1 (1 − 1.3 / r). Simple numbers
//! then count as exact, and constants that are still not determined have no interval.

use super::refit::{Cholesky, Data, Formula, Measure, add_square};

/// What is known about a constant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Known {
    /// It lies in this interval, at 95 %.
    Within([f64; 2]),
    /// It counts as exact: a simple number where the constants are not all determined, or where the formula has no
    /// value next to it, such as a whole exponent of a negative number.
    Exact,
    /// Others can compensate for any change of it, there are too few rows, or the loss does not tell.
    Undetermined,
    /// The formula does not change with it.
    Flat,
}

impl Known {
    /// Why there is no interval.
    pub fn why(self) -> &'static str {
        match self {
            Known::Within(_) => "",
            Known::Exact => "taken as exact",
            Known::Undetermined => "not determined",
            Known::Flat => "a threshold, or without effect",
        }
    }
}

/// Intervals of the constants, and which of them a fit can vary.
pub struct Intervals {
    /// For each constant, in the order of the formula.
    pub known: Vec<Known>,
    /// The constants that are independent of each other, without simple exponents.
    pub free: Vec<usize>,
}

/// True for numbers that a person would write: whole ones, and fractions of small numbers.
fn simple(value: f64) -> bool {
    let whole = |value: f64| (value - value.round()).abs() < 1e-9 && value.abs() <= 100.0;
    (1..=6).any(|denominator| whole(value * f64::from(denominator)))
}

/// The 0.975 quantile of Student's t distribution.
fn student(freedom: f64) -> f64 {
    const Z: f64 = 1.959_963_985;
    match freedom {
        // The series below is for three and more.
        f if f < 1.5 => 12.706,
        f if f < 2.5 => 4.303,
        f => {
            let (z3, z5, z7) = (Z.powi(3), Z.powi(5), Z.powi(7));
            Z + (z3 + Z) / (4.0 * f)
                + (5.0 * z5 + 16.0 * z3 + 3.0 * Z) / (96.0 * f * f)
                + (3.0 * z7 + 19.0 * z5 + 17.0 * z3 - 15.0 * Z) / (384.0 * f.powi(3))
        }
    }
}

/// Half the distance between two quantiles around the median, divided by their difference in probability: 1 / 2f(0).
/// They move closer as the number of rows grows (Hall and Sheather 1988).
fn scale_at_median(mut residuals: Vec<f64>) -> f64 {
    residuals.sort_by(f64::total_cmp);
    let last = (residuals.len() - 1) as f64;
    let apart = (0.97 * (last + 1.0).powf(-1.0 / 3.0)).min(0.4);
    let quantile = |share: f64| {
        let (place, part) = ((share * last).floor(), (share * last).fract());
        let above = residuals[(place as usize + 1).min(residuals.len() - 1)];
        residuals[place as usize] * (1.0 - part) + above * part
    };
    (quantile(0.5 + apart) - quantile(0.5 - apart)) / (4.0 * apart)
}

/// Sums over rows.
struct Sums {
    /// Σ w J Jᵀ
    squares: Vec<Vec<f64>>,
    /// The second derivative of the loss, A, …
    curvature: Vec<Vec<f64>>,
    /// … and the scatter of its first, B, up to a factor.
    scatter: Vec<Vec<f64>>,
    /// Residuals, scaled to a common size.
    residuals: Vec<f64>,
    /// True for constants with respect to which the formula has a derivative in every row.
    smooth: Vec<bool>,
}

impl Sums {
    fn new(
        formula: &Formula,
        data: &Data,
        target: &[f64],
        rows: &[usize],
        measure: &Measure,
    ) -> Self {
        let p = formula.constants.len();
        let [squares, curvature, scatter] = [(); 3].map(|()| vec![vec![0.0; p]; p]);
        let (residuals, smooth) = (Vec::with_capacity(rows.len()), vec![true; p]);
        let mut sums = Sums { squares, curvature, scatter, residuals, smooth };
        for &row in rows {
            let mut at = formula.at(data, row, &formula.constants);
            let (predicted, y, weight) = (formula.value(&at), target[row], data.weight(row));
            if !predicted.is_finite() {
                continue;
            }
            let mut slopes: Vec<f64> = (0..p).map(|k| formula.slope(&mut at, k)).collect();
            for (slope, smooth) in slopes.iter_mut().zip(&mut sums.smooth) {
                *smooth &= slope.is_finite();
                *slope = if slope.is_finite() { *slope } else { 0.0 };
            }
            add_square(&mut sums.squares, &slopes, weight);
            let unit = match measure {
                // Weighted absolute residuals assume noise of size ∝ 1 / weight, …
                Measure::Absolute => {
                    add_square(&mut sums.curvature, &slopes, weight * weight);
                    weight
                }
                // … weighted squares noise of variance ∝ 1 / weight.
                Measure::Square => weight.sqrt(),
                Measure::Own(own) => {
                    add_square(&mut sums.curvature, &slopes, own.curvature(predicted, y, weight));
                    let slope = measure.slope(predicted, y, weight);
                    add_square(&mut sums.scatter, &slopes, slope * slope);
                    1.0
                }
            };
            sums.residuals.push(unit * (y - predicted));
        }
        match measure {
            Measure::Absolute => sums.scatter.clone_from(&sums.curvature),
            Measure::Square => {
                sums.curvature.clone_from(&sums.squares);
                sums.scatter.clone_from(&sums.squares);
            }
            Measure::Own(_) => {}
        }
        sums
    }

    /// The factor missing in [`Sums::scatter`], where `free` constants were fitted; None if there are too few rows.
    fn factor(&self, measure: &Measure, free: usize) -> Option<f64> {
        let n = self.residuals.len() as f64;
        let freedom = n - free as f64;
        if freedom < 1.0 {
            return None;
        }
        let variance = match measure {
            Measure::Square => self.residuals.iter().map(|r| r * r).sum::<f64>() / n,
            Measure::Absolute => scale_at_median(self.residuals.clone()).powi(2),
            Measure::Own(_) => 1.0,
        };
        Some(student(freedom).powi(2) * variance * n / freedom)
    }

    /// The square of half the interval of constant `free[place]`, up to [`Sums::factor`]; None if it is not determined.
    fn width(&self, free: &[usize], place: usize) -> Option<f64> {
        let cholesky = Cholesky::new(&part(&self.curvature, free));
        if !cholesky.kept.iter().all(|&kept| kept) {
            return None;
        }
        let mut unit = vec![0.0; free.len()];
        unit[place] = 1.0;
        let x = cholesky.solve(&unit);
        let along = |line: &Vec<f64>| line.iter().zip(&x).map(|(b, x)| b * x).sum::<f64>();
        Some(part(&self.scatter, free).iter().zip(&x).map(|(line, x)| x * along(line)).sum())
    }
}

/// Selected rows and columns of a matrix.
fn part(matrix: &[Vec<f64>], of: &[usize]) -> Vec<Vec<f64>> {
    of.iter().map(|&j| of.iter().map(|&k| matrix[j][k]).collect()).collect()
}

/// What is known about the constants of a formula for `target` from `all` rows, of which `rows` represent the others.
pub fn intervals(
    formula: &Formula,
    data: &Data,
    target: &[f64],
    rows: &[usize],
    all: usize,
    measure: &Measure,
) -> Intervals {
    let sums = Sums::new(formula, data, target, rows, measure);
    let exact = |k: usize| simple(formula.constants[k]);
    let start = |k: usize| match (sums.smooth[k], exact(k)) {
        (true, _) => Known::Flat,
        (false, true) => Known::Exact,
        (false, false) => Known::Undetermined,
    };
    let mut known: Vec<Known> = (0..formula.constants.len()).map(start).collect();
    let smooth = (0..known.len()).filter(|&k| sums.smooth[k] && sums.squares[k][k] > 0.0);
    // A simple exponent is part of the form: it gets an interval, and widens no other.
    let (form, mut order): (Vec<usize>, Vec<usize>) =
        smooth.partition(|&k| formula.exponents[k] && exact(k));
    // Of redundant constants, those that are not simple numbers are fitted.
    order.sort_by_key(|&k| exact(k));
    let cholesky = Cholesky::new(&part(&sums.squares, &order));
    let (mut free, mut shared) = (Vec::new(), Vec::new());
    for (place, &k) in order.iter().enumerate() {
        match (cholesky.kept[place], exact(k)) {
            (true, _) => free.push(k),
            (false, true) => known[k] = Known::Exact,
            (false, false) => {
                known[k] = Known::Undetermined;
                shared.extend(cholesky.dependencies(place).into_iter().map(|other| order[other]));
            }
        }
    }
    let factor = sums.factor(measure, free.len());
    let around = |k: usize, among: &[usize], place: usize| {
        let share = rows.len() as f64 / all as f64;
        let half = (share * factor? * sums.width(among, place)?).sqrt();
        let value = formula.constants[k];
        half.is_finite().then_some(Known::Within([value - half, value + half]))
    };
    for (place, &k) in free.iter().enumerate() {
        let alone = !shared.contains(&k);
        let interval = alone.then(|| around(k, &free, place)).flatten();
        known[k] = interval.unwrap_or(Known::Undetermined);
    }
    for k in form {
        let among: Vec<usize> = free.iter().copied().chain([k]).collect();
        known[k] = around(k, &among, free.len()).unwrap_or(Known::Exact);
    }
    Intervals { known, free }
}
