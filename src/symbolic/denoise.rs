//! Smoothing a target with a Gaussian process, before a search in very noisy data.
//!
//! Kernel: variance · exp(−d² / 2ℓ²) of standardised inputs, plus independent noise. Length and noise are those on a
//! grid with the largest marginal likelihood on at most 400 rows; these rows also predict all others (Rasmussen and
//! Williams 2006, algorithm 2.1).

use rayon::prelude::*;

use crate::random::Random;

/// Rows to which the process is fitted: the work grows with their cube.
const ROWS: usize = 400;
/// Lengths, in standard deviations of an input times the square root of the number of inputs.
const LENGTHS: [f64; 7] = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4];
/// Noise, as a share of the variance of the target.
const NOISES: [f64; 7] = [1e-5, 1e-4, 1e-3, 1e-2, 0.05, 0.2, 0.5];

/// The mean of the process in each row, to replace the target. Rows of weight zero are ignored (there must be others);
/// the weights do not matter otherwise.
pub fn denoised(
    columns: &[Vec<f32>],
    target: &[f32],
    weights: Option<&[f32]>,
    seed: u64,
) -> Vec<f32> {
    let mut order: Vec<usize> = (0..target.len()).collect();
    order.retain(|&row| weights.is_none_or(|weights| weights[row] > 0.0));
    let rows = order.len();
    let values = || order.iter().map(|&row| f64::from(target[row]));
    let mean = values().sum::<f64>() / rows as f64;
    let variance = values().map(|y| (y - mean).powi(2)).sum::<f64>() / rows as f64;
    let scaled: Vec<Vec<f64>> = columns.iter().map(|column| standardised(column)).collect();
    let point = |row: usize| -> Vec<f64> { scaled.iter().map(|column| column[row]).collect() };
    let mut random = Random::new(seed, 8 << 40);
    for at in 0..ROWS.min(rows) {
        order.swap(at, at + random.below(rows - at));
    }
    order.truncate(ROWS);
    let points: Vec<Vec<f64>> = order.iter().map(|&row| point(row)).collect();
    let deviation = variance.sqrt().max(f64::MIN_POSITIVE);
    let y: Vec<f64> =
        order.iter().map(|&row| (f64::from(target[row]) - mean) / deviation).collect();
    let width = (columns.len() as f64).sqrt();
    let grid: Vec<(f64, f64)> =
        LENGTHS.iter().flat_map(|l| NOISES.map(|noise| (l * width, noise))).collect();
    let fits = grid.par_iter().map(|&(length, noise)| (fit(&points, &y, length, noise), length));
    let best = fits
        .collect::<Vec<_>>()
        .into_iter()
        .filter_map(|(fit, length)| fit.map(|(likelihood, alpha)| (likelihood, alpha, length)))
        .reduce(|a, b| if b.0 > a.0 { b } else { a });
    let Some((_, alpha, length)) = best else { return target.to_vec() };
    let predict = |row: usize| {
        let here = point(row);
        let sum: f64 = points.iter().zip(&alpha).map(|(p, a)| a * kernel(p, &here, length)).sum();
        (mean + deviation * sum) as f32
    };
    (0..target.len()).into_par_iter().map(predict).collect()
}

fn standardised(column: &[f32]) -> Vec<f64> {
    let n = column.len() as f64;
    let mean = column.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let variance = column.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
    let scale = if variance > 0.0 { 1.0 / variance.sqrt() } else { 0.0 };
    column.iter().map(|&x| (f64::from(x) - mean) * scale).collect()
}

fn kernel(a: &[f64], b: &[f64], length: f64) -> f64 {
    let distance: f64 = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum();
    (-distance / (2.0 * length * length)).exp()
}

/// The logarithm of the marginal likelihood and the weights of the rows; None if the matrix is not positive definite to
/// rounding.
fn fit(points: &[Vec<f64>], y: &[f64], length: f64, noise: f64) -> Option<(f64, Vec<f64>)> {
    let n = points.len();
    // The lower triangle, then its Cholesky factor in place.
    let mut l = vec![0.0; n * n];
    for i in 0..n {
        for j in 0..=i {
            let same = if i == j { noise } else { 0.0 };
            l[i * n + j] = (1.0 - noise) * kernel(&points[i], &points[j], length) + same;
        }
    }
    for j in 0..n {
        for k in 0..=j {
            let (above, below) = l.split_at_mut(j * n);
            let row_k = if k < j { &above[k * n..k * n + k] } else { &[][..] };
            let row_j = &mut below[..n];
            let dot: f64 = if k < j {
                row_j[..k].iter().zip(row_k).map(|(a, b)| a * b).sum()
            } else {
                row_j[..j].iter().map(|a| a * a).sum()
            };
            if k < j {
                row_j[k] = (row_j[k] - dot) / above[k * n + k];
            } else {
                let rest = row_j[j] - dot;
                if rest <= 1e-12 {
                    return None;
                }
                row_j[j] = rest.sqrt();
            }
        }
    }
    let mut alpha = y.to_vec();
    for i in 0..n {
        let dot: f64 = (0..i).map(|k| l[i * n + k] * alpha[k]).sum();
        alpha[i] = (alpha[i] - dot) / l[i * n + i];
    }
    let squares: f64 = alpha.iter().map(|a| a * a).sum();
    for i in (0..n).rev() {
        let dot: f64 = (i + 1..n).map(|k| l[k * n + i] * alpha[k]).sum();
        alpha[i] = (alpha[i] - dot) / l[i * n + i];
    }
    let determinant: f64 = (0..n).map(|i| l[i * n + i].ln()).sum();
    alpha.iter_mut().for_each(|a| *a *= 1.0 - noise);
    Some((-0.5 * squares - determinant, alpha))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_shrinks() {
        let mut random = Random::new(3, 0);
        let column: Vec<f32> = (0..900).map(|_| (3.0 * random.normal()) as f32).collect();
        let truth: Vec<f32> = column.iter().map(|x| x.sin() * 2.0 + 5.0).collect();
        let noisy: Vec<f32> = truth.iter().map(|y| y + 0.3 * random.normal() as f32).collect();
        let error = |y: &[f32]| -> f32 {
            let squares: f32 = y.iter().zip(&truth).map(|(a, b)| (a - b) * (a - b)).sum();
            (squares / 900.0).sqrt()
        };
        let columns = [column];
        let smooth = denoised(&columns, &noisy, None, 0);
        assert!(error(&smooth) < 0.4 * error(&noisy), "{} {}", error(&smooth), error(&noisy));
        // Rows of weight zero are ignored.
        let spoiled = |row: usize| row.is_multiple_of(3);
        let spoil = |(row, &y): (usize, &f32)| if spoiled(row) { 300.0 } else { y };
        let spoilt: Vec<f32> = noisy.iter().enumerate().map(spoil).collect();
        let weights: Vec<f32> = (0..900).map(|row| f32::from(u8::from(!spoiled(row)))).collect();
        let again = denoised(&columns, &spoilt, Some(&weights), 0);
        assert!(error(&again) < 0.5 * error(&noisy), "{} {}", error(&again), error(&noisy));
    }
}
