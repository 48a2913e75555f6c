//! Which columns say something about the target: the part of its variance that splits by each take
//! away in a forest of random trees (Geurts et al. 2006, "Extremely randomized trees").

use rayon::prelude::*;

use crate::random::Random;

/// Trees of the forest.
const TREES: u64 = 64;
/// Rows that a tree sees at most.
const ROWS: usize = 2000;
/// Fewest rows that are split further.
const SMALLEST: usize = 10;
/// Splits from the root to a leaf at most.
const DEPTH: u32 = 10;

/// The share of each column in what a forest explains of the target; they add up to 1, or are all 0.
/// Trees draw rows by their weights, which are not all 0.
pub fn relevance(
    columns: &[Vec<f32>],
    target: &[f32],
    weights: Option<&[f32]>,
    seed: u64,
) -> Vec<f64> {
    let mut sum = 0.0;
    let mut upto = |w: &f32| {
        sum += f64::from(*w);
        sum
    };
    let sums: Option<Vec<f64>> = weights.map(|weights| weights.iter().map(&mut upto).collect());
    let draw = |random: &mut Random| match &sums {
        None => random.below(target.len()),
        Some(sums) => {
            let at = random.uniform() * sums[sums.len() - 1];
            // Rounding could reach the end, which may have no weight.
            sums.partition_point(|s| *s <= at)
                .min(sums.partition_point(|s| *s < sums[sums.len() - 1]))
        }
    };
    let tree = |index: u64| -> Vec<f64> {
        let mut random = Random::new(seed, (7 << 40) + index);
        let count = ROWS.min(target.len());
        let mut rows: Vec<usize> = (0..count).map(|_| draw(&mut random)).collect();
        let mut gains = vec![0.0; columns.len()];
        split(columns, target, &mut rows, DEPTH, &mut gains, &mut random);
        gains
    };
    let trees: Vec<Vec<f64>> = (0..TREES).into_par_iter().map(tree).collect();
    let mut sums = vec![0.0; columns.len()];
    for gains in &trees {
        sums.iter_mut().zip(gains).for_each(|(sum, gain)| *sum += gain);
    }
    let total: f64 = sums.iter().sum();
    sums.iter().map(|sum| if total > 0.0 { sum / total } else { 0.0 }).collect()
}

/// Sum of squared deviations from the mean.
fn spread(target: &[f32], rows: &[usize]) -> f64 {
    let mean = rows.iter().map(|&row| f64::from(target[row])).sum::<f64>() / rows.len() as f64;
    rows.iter().map(|&row| (f64::from(target[row]) - mean).powi(2)).sum()
}

/// Splits rows by the best of one random threshold in each column, and so on below.
fn split(
    columns: &[Vec<f32>],
    target: &[f32],
    rows: &mut [usize],
    depth: u32,
    gains: &mut [f64],
    random: &mut Random,
) {
    if depth == 0 || rows.len() < SMALLEST {
        return;
    }
    let whole = spread(target, rows);
    let mut best = (0.0, 0, 0.0);
    for (index, column) in columns.iter().enumerate() {
        let threshold = column[rows[random.below(rows.len())]];
        let (low, high): (Vec<usize>, Vec<usize>) =
            rows.iter().partition(|&&row| column[row] < threshold);
        if low.is_empty() || high.is_empty() {
            continue;
        }
        let gain = whole - spread(target, &low) - spread(target, &high);
        if gain > best.0 {
            best = (gain, index, threshold);
        }
    }
    let (gain, index, threshold) = best;
    if gain <= 0.0 {
        return;
    }
    gains[index] += gain;
    rows.sort_by_key(|&row| columns[index][row] >= threshold);
    let middle = rows.partition_point(|&row| columns[index][row] < threshold);
    let (low, high) = rows.split_at_mut(middle);
    split(columns, target, low, depth - 1, gains, random);
    split(columns, target, high, depth - 1, gains, random);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_the_law_come_first() {
        let mut random = Random::new(2, 0);
        let columns: Vec<Vec<f32>> =
            (0..20).map(|_| (0..800).map(|_| random.normal() as f32).collect()).collect();
        let law = |row: usize| columns[3][row] * columns[11][row].exp() + columns[17][row];
        let target: Vec<f32> = (0..800).map(law).collect();
        let found = relevance(&columns, &target, None, 0);
        let mut order: Vec<usize> = (0..20).collect();
        order.sort_by(|&a, &b| found[b].total_cmp(&found[a]));
        let mut first = order[..3].to_vec();
        first.sort_unstable();
        assert_eq!(first, [3, 11, 17], "{found:?}");
        assert!((found.iter().sum::<f64>() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn rows_without_weight_are_not_seen() {
        let mut random = Random::new(3, 0);
        let columns: Vec<Vec<f32>> =
            (0..5).map(|_| (0..900).map(|_| random.normal() as f32).collect()).collect();
        let spoiled = |row: usize| !row.is_multiple_of(3);
        let law = |row: usize| if spoiled(row) { 50.0 * columns[4][row] } else { columns[1][row] };
        let target: Vec<f32> = (0..900).map(law).collect();
        let weights: Vec<f32> = (0..900).map(|row| f32::from(u8::from(!spoiled(row)))).collect();
        let found = relevance(&columns, &target, Some(&weights), 0);
        assert!(found[1] > 0.9, "{found:?}");
    }
}
