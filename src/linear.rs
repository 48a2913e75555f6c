//! Linear least squares with a handful of unknowns.

/// Solves the symmetric positive definite system `a x = b` by Cholesky; `None` if `a` is singular to
/// working precision. `a` is `[n, n]`, row-major.
pub fn solve_spd(a: &[f64], b: &[f64]) -> Option<Vec<f64>> {
    Some(substituted(&factor(a, b.len())?, b))
}

/// The lower triangle l with l lᵀ = a.
fn factor(a: &[f64], n: usize) -> Option<Vec<f64>> {
    let mut l = a.to_vec();
    for j in 0..n {
        for k in 0..j {
            for i in j..n {
                l[i * n + j] -= l[i * n + k] * l[j * n + k];
            }
        }
        let pivot = l[j * n + j];
        if pivot.is_nan() || pivot <= 1e-13 * a[j * n + j].abs() {
            return None;
        }
        let root = pivot.sqrt();
        for i in j..n {
            l[i * n + j] /= root;
        }
    }
    Some(l)
}

/// The solution of l lᵀ x = b.
fn substituted(l: &[f64], b: &[f64]) -> Vec<f64> {
    let n = b.len();
    let mut x = b.to_vec();
    for i in 0..n {
        for k in 0..i {
            x[i] -= l[i * n + k] * x[k];
        }
        x[i] /= l[i * n + i];
    }
    for i in (0..n).rev() {
        for k in i + 1..n {
            x[i] -= l[k * n + i] * x[k];
        }
        x[i] /= l[i * n + i];
    }
    x
}

/// Weighted normal equations of linear least squares, and of one step of nonlinear ones.
pub(crate) struct Normal {
    /// Jᵀ W J, `[unknowns, unknowns]`.
    pub matrix: Vec<f64>,
    /// Jᵀ W target, or residual.
    pub right: Vec<f64>,
}

impl Normal {
    /// Equations of `count` unknowns, without rows yet.
    pub fn new(count: usize) -> Self {
        Normal { matrix: vec![0.0; count * count], right: vec![0.0; count] }
    }

    /// Adds a row of the Jacobian.
    pub fn add(&mut self, row: &[f64], target: f64, weight: f64) {
        let count = row.len();
        for i in 0..count {
            if row[i] == 0.0 {
                continue;
            }
            self.right[i] += weight * row[i] * target;
            for j in 0..count {
                self.matrix[i * count + j] += weight * row[i] * row[j];
            }
        }
    }

    /// Leaves the unknowns that are `held` out: a step does not move them.
    pub fn hold(&mut self, held: &[bool]) {
        let n = self.right.len();
        for k in (0..n).filter(|&k| held[k]) {
            self.right[k] = 0.0;
            for other in 0..n {
                (self.matrix[k * n + other], self.matrix[other * n + k]) = (0.0, 0.0);
            }
            self.matrix[k * n + k] = 1.0;
        }
    }

    /// Adds a ridge, relative to the diagonal; unknowns without an equation become zero.
    pub fn ridged(mut self, ridge: f64) -> Self {
        let n = self.right.len();
        let largest = (0..n).map(|k| self.matrix[k * n + k]).fold(0.0, f64::max);
        for k in 0..n {
            let diagonal = &mut self.matrix[k * n + k];
            let floor = if *diagonal > 0.0 { ridge * ridge * largest } else { 1.0 };
            *diagonal += ridge * *diagonal + floor;
        }
        self
    }

    /// The unknowns; `None` if the equations are singular.
    pub fn solve(&self) -> Option<Vec<f64>> {
        solve_spd(&self.matrix, &self.right)
    }

    /// The covariance of the unknowns for residuals of this variance, `[unknowns, unknowns]`.
    pub fn covariance(&self, variance: f64) -> Option<Vec<f64>> {
        let n = self.right.len();
        let l = factor(&self.matrix, n)?;
        let of = |k: usize| {
            let mut unit = vec![0.0; n];
            unit[k] = variance;
            substituted(&l, &unit)
        };
        Some((0..n).flat_map(of).collect())
    }
}

/// A linear fit with offset: y ≈ Σ coefficients[k] · columns[k] + offset.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearFit {
    /// One coefficient per column.
    pub coefficients: Vec<f64>,
    /// The offset.
    pub offset: f64,
    /// 1 − Σ residual² / Σ (y − mean y)² over the rows of the fit.
    pub r2: f64,
}

impl LinearFit {
    /// The fitted value of one row.
    pub fn value(&self, columns: &[Vec<f64>], row: usize) -> f64 {
        self.offset + self.coefficients.iter().zip(columns).map(|(c, x)| c * x[row]).sum::<f64>()
    }
}

/// Relative increase of the diagonal of a singular system.
const SHARED: f64 = 1e-9;

/// Least squares over the given rows; constant columns get the coefficient 0.
pub fn fit(columns: &[Vec<f64>], y: &[f64], rows: &[usize]) -> LinearFit {
    let count = rows.len().max(1) as f64;
    let mean = |x: &[f64]| rows.iter().map(|&row| x[row]).sum::<f64>() / count;
    let means: Vec<f64> = columns.iter().map(|x| mean(x)).collect();
    let y_mean = mean(y);
    let n = columns.len();
    let (mut a, mut b, mut total) = (vec![0.0; n * n], vec![0.0; n], 0.0);
    for &row in rows {
        let dy = y[row] - y_mean;
        total += dy * dy;
        for i in 0..n {
            let dx = columns[i][row] - means[i];
            b[i] += dx * dy;
            for j in 0..=i {
                a[i * n + j] += dx * (columns[j][row] - means[j]);
            }
        }
    }
    for i in 0..n {
        for j in 0..i {
            a[j * n + i] = a[i * n + j];
        }
        if a[i * n + i] == 0.0 {
            a[i * n + i] = 1.0;
        }
    }
    let coefficients = solve_spd(&a, &b).or_else(|| {
        // Collinear columns share what they explain.
        (0..n).for_each(|i| a[i * n + i] *= 1.0 + SHARED);
        solve_spd(&a, &b)
    });
    let coefficients = coefficients.unwrap_or_else(|| vec![0.0; n]);
    let offset = y_mean - coefficients.iter().zip(&means).map(|(c, m)| c * m).sum::<f64>();
    let mut fit = LinearFit { coefficients, offset, r2: 0.0 };
    let residual: f64 = rows.iter().map(|&row| (y[row] - fit.value(columns, row)).powi(2)).sum();
    fit.r2 = if total > 0.0 { 1.0 - residual / total } else { 0.0 };
    fit
}

/// Rounds of trimming; the set of kept rows settles in two or three.
const TRIM_ROUNDS: usize = 6;

/// The fit without the tenth of the rows with the largest residuals (least trimmed squares by concentration
/// steps, starting from the plain fit), as in the paper's analysis, because of close encounters.
pub fn fit_trimmed(columns: &[Vec<f64>], y: &[f64]) -> LinearFit {
    let mut rows: Vec<usize> = (0..y.len()).collect();
    let mut current = fit(columns, y, &rows);
    for _ in 0..TRIM_ROUNDS {
        let residual = |row: usize| (y[row] - current.value(columns, row)).abs();
        rows = (0..y.len()).collect();
        rows.sort_by(|&a, &b| residual(a).total_cmp(&residual(b)));
        rows.truncate(y.len() - y.len() / 10);
        current = fit(columns, y, &rows);
    }
    current
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn recovers_known_coefficients_and_ignores_outliers_when_trimmed() {
        let mut random = Random::new(3, 0);
        let mut columns = vec![vec![], vec![]];
        let mut y = vec![];
        for row in 0..2000 {
            let (a, b) = (random.normal(), random.normal());
            columns[0].push(a);
            columns[1].push(b);
            let outlier = if row % 20 == 0 { 50.0 * random.normal() } else { 0.0 };
            y.push(2.0 * a - 0.5 * b + 0.25 + outlier);
        }
        let rows: Vec<usize> = (0..y.len()).collect();
        assert!(fit(&columns, &y, &rows).r2 < 0.9);
        let trimmed = fit_trimmed(&columns, &y);
        assert!((trimmed.coefficients[0] - 2.0).abs() < 1e-12);
        assert!((trimmed.coefficients[1] + 0.5).abs() < 1e-12);
        assert!((trimmed.offset - 0.25).abs() < 1e-12);
        assert!(trimmed.r2 > 0.999_999);
    }

    #[test]
    fn a_constant_column_gets_no_weight() {
        let columns = vec![vec![1.0; 4], vec![0.0, 1.0, 2.0, 3.0]];
        let result = fit(&columns, &[1.0, 3.0, 5.0, 7.0], &[0, 1, 2, 3]);
        assert_eq!(result.coefficients[0], 0.0);
        assert!(
            (result.coefficients[1] - 2.0).abs() < 1e-12 && (result.offset - 1.0).abs() < 1e-12
        );
    }

    #[test]
    fn columns_that_say_the_same_share_what_they_explain() {
        let x: Vec<f64> = (0..50).map(|k| (0.7 * f64::from(k)).sin()).collect();
        let z: Vec<f64> = (0..50).map(|k| (1.3 * f64::from(k)).cos()).collect();
        let y: Vec<f64> = x.iter().zip(&z).map(|(x, z)| 3.0 * x - z + 2.0).collect();
        let twice: Vec<f64> = x.iter().map(|x| 2.0 * x).collect();
        let rows: Vec<usize> = (0..50).collect();
        let found = fit(&[x.clone(), twice, z, vec![4.0; 50]], &y, &rows);
        assert!(found.r2 > 1.0 - 1e-9, "{found:?}");
    }
}
