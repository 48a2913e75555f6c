//! Linear models of features: which further feature explains most, and the factors of all.

use super::library::Library;

/// Number of best continuations of a model.
const CONTINUED: usize = 2;

/// A linear model with an offset, as an orthonormal basis and the residual of the target.
pub(super) struct Model {
    basis: Vec<Vec<f32>>,
    residual: Vec<f32>,
}

/// With sixteen partial sums, which the compiler may vectorise.
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

/// Subtracts the component along a unit vector.
fn reject(from: &mut [f32], unit: &[f32]) {
    let along = dot(from, unit);
    from.iter_mut().zip(unit).for_each(|(v, u)| *v -= along * u);
}

impl Model {
    /// None if the columns are linearly dependent.
    pub fn new<'a>(columns: impl Iterator<Item = &'a [f32]>, target: &[f32]) -> Option<Self> {
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

    /// The features that explain most of the residual, each with the power of `first` by which it is multiplied: 0, 1
    /// or 2.
    pub fn continuations(&self, library: &Library, first: &[f32]) -> Vec<(u32, usize)> {
        let mut best: Vec<(f32, u32, usize)> = Vec::new();
        let mut column = vec![0.0f32; first.len()];
        for power in 0..=2 {
            for (feature, values) in library.values.iter().enumerate() {
                column.copy_from_slice(values);
                for _ in 0..power {
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
                    best.insert(at, (gain, power, feature));
                    best.truncate(CONTINUED);
                }
            }
        }
        best.into_iter().map(|(_, power, feature)| (power, feature)).collect()
    }
}

/// Offset and factors of the columns that fit the target best; None if they are not determined.
pub(super) fn least_squares(columns: &[&[f32]], target: &[f32]) -> Option<(f64, Vec<f64>)> {
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
