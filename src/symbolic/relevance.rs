//! Which columns say something about the target: the share of its variance removed by splits on each column in a forest
//! of random trees (Geurts et al. 2006, "Extremely randomized trees"). A column that acts only in a product with
//! another hardly shows there; therefore the target is also regressed on products of pairs.

use rayon::prelude::*;

use crate::random::Random;

/// Trees in the forest.
const TREES: u64 = 64;
/// Most rows for one tree.
const ROWS: usize = 2000;
/// Fewest rows that are split further.
const SMALLEST: usize = 10;
/// Most columns whose pairs are all tried.
const MOST_PAIRED: usize = 400;
/// The largest of N squared correlations of noise on n rows is about 2 ln(N) / n; below this many ln(N) / n counts as
/// none.
const SURE: f64 = 3.0;
/// Most splits from the root to a leaf.
const DEPTH: u32 = 10;

/// The share of each column in what a forest explains of the target; the shares add up to 1, or are all 0. Trees draw
/// rows by their weights, which must not all be 0.
pub fn relevance(
    columns: &[Vec<f32>],
    target: &[f32],
    weights: Option<&[f32]>,
    seed: u64,
) -> Vec<f64> {
    let sampler = RowSampler::new(target.len(), weights);
    let tree = |index: u64| -> Vec<f64> {
        let mut random = Random::new(seed, (7 << 40) + index);
        let count = ROWS.min(target.len());
        let mut rows: Vec<usize> = (0..count).map(|_| sampler.draw(&mut random)).collect();
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

/// Rows to be drawn by their weights.
struct RowSampler {
    rows: usize,
    /// Cumulative sums of the weights.
    sums: Option<Vec<f64>>,
}

impl RowSampler {
    fn new(rows: usize, weights: Option<&[f32]>) -> Self {
        let mut sum = 0.0;
        let upto = |w: &f32| {
            sum += f64::from(*w);
            sum
        };
        RowSampler { rows, sums: weights.map(|weights| weights.iter().map(upto).collect()) }
    }

    fn draw(&self, random: &mut Random) -> usize {
        let Some(sums) = &self.sums else { return random.below(self.rows) };
        let at = random.uniform() * sums[sums.len() - 1];
        // Rounding could reach the end, where the weight may be zero.
        sums.partition_point(|s| *s <= at).min(sums.partition_point(|s| *s < sums[sums.len() - 1]))
    }
}

/// The share of the target's variance that each column explains in a linear regression on at most `terms` columns and
/// products of two, chosen greedily; a product's share counts for both. Terms that noise could produce among so many
/// are left out. Products are those of the columns that say most `alone`.
pub fn relevance_of_pairs(
    columns: &[Vec<f32>],
    target: &[f32],
    weights: Option<&[f32]>,
    alone: &[f64],
    terms: usize,
    seed: u64,
) -> Vec<f64> {
    let mut shares = vec![0.0; columns.len()];
    let mut random = Random::new(seed, 8 << 40);
    let rows: Vec<usize> = if weights.is_none() && target.len() <= ROWS {
        (0..target.len()).collect()
    } else {
        let sampler = RowSampler::new(target.len(), weights);
        (0..ROWS).map(|_| sampler.draw(&mut random)).collect()
    };
    let centred = |column: &[f32]| -> Vec<f64> {
        let values = rows.iter().map(|&row| f64::from(column[row]));
        let mean = values.clone().sum::<f64>() / rows.len() as f64;
        values.map(|value| value - mean).collect()
    };
    let mut order: Vec<usize> = (0..columns.len()).collect();
    order.sort_by(|&a, &b| alone[b].total_cmp(&alone[a]));
    order.truncate(MOST_PAIRED);
    let inputs: Vec<Vec<f64>> = order.iter().map(|&column| centred(&columns[column])).collect();
    let mut residual = centred(target);
    let whole = dot(&residual, &residual);
    let count = inputs.len();
    let candidates = (count * (count + 3) / 2) as f64;
    let limit = (SURE * candidates.max(2.0).ln() / rows.len() as f64).min(1.0);
    let mut taken: Vec<Vec<f64>> = Vec::new();
    for _ in 0..terms.min(rows.len() / 4) {
        let left = dot(&residual, &residual);
        if left <= 1e-12 * whole {
            break;
        }
        // Squared correlation of the residual with the best term whose first column is `a`.
        let best_of = |a: usize| {
            let mut best = (squared_correlation(&inputs[a], &residual, left), a, None);
            for b in a..count {
                let product = inputs[a].iter().zip(&inputs[b]).map(|(x, y)| x * y);
                let product: Vec<f64> = product.collect();
                let found = squared_correlation(&product, &residual, left);
                if found > best.0 {
                    best = (found, a, Some(b));
                }
            }
            best
        };
        let found: Vec<(f64, usize, Option<usize>)> =
            (0..count).into_par_iter().map(best_of).collect();
        let best = found.into_iter().max_by(|x, y| x.0.total_cmp(&y.0));
        let Some((correlation, a, b)) = best.filter(|best| best.0 > limit) else { break };
        let mut term = inputs[a].clone();
        if let Some(b) = b {
            term.iter_mut().zip(&inputs[b]).for_each(|(x, y)| *x *= y);
            let mean = term.iter().sum::<f64>() / term.len() as f64;
            term.iter_mut().for_each(|x| *x -= mean);
        }
        let size = dot(&term, &term);
        for earlier in &taken {
            let along = dot(&term, earlier);
            term.iter_mut().zip(earlier).for_each(|(x, e)| *x -= along * e);
        }
        let rest = dot(&term, &term);
        if rest <= 1e-9 * size || correlation.is_nan() {
            break;
        }
        term.iter_mut().for_each(|x| *x /= rest.sqrt());
        let along = dot(&residual, &term);
        residual.iter_mut().zip(&term).for_each(|(r, t)| *r -= along * t);
        taken.push(term);
        for column in [Some(a), b.filter(|b| *b != a)].into_iter().flatten() {
            shares[order[column]] += along * along / whole;
        }
    }
    shares
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// For a term, which need not be centred, and a centred residual with this sum of squares.
fn squared_correlation(term: &[f64], residual: &[f64], left: f64) -> f64 {
    let mean = term.iter().sum::<f64>() / term.len() as f64;
    let spread = dot(term, term) - term.len() as f64 * mean * mean;
    let found = dot(term, residual).powi(2) / (spread * left);
    if found.is_finite() { found } else { 0.0 }
}

/// Sum of squared deviations from the mean.
fn spread(target: &[f32], rows: &[usize]) -> f64 {
    let mean = rows.iter().map(|&row| f64::from(target[row])).sum::<f64>() / rows.len() as f64;
    rows.iter().map(|&row| (f64::from(target[row]) - mean).powi(2)).sum()
}

/// Splits rows by the best of one random threshold in each column, and recurses.
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

    /// A forest on 120 columns and 300 rows does not see a product.
    #[test]
    fn columns_that_act_only_in_a_product_are_found() {
        let mut random = Random::new(5, 0);
        let columns: Vec<Vec<f32>> =
            (0..120).map(|_| (0..300).map(|_| random.normal() as f32).collect()).collect();
        let law = |row: usize| columns[17][row] * columns[42][row] + 3.0 * columns[99][row];
        let target: Vec<f32> = (0..300).map(law).collect();
        let alone = relevance(&columns, &target, None, 0);
        let found = relevance_of_pairs(&columns, &target, None, &alone, 5, 0);
        let explained: Vec<usize> = (0..120).filter(|&k| found[k] > 0.0).collect();
        assert_eq!(explained, [17, 42, 99], "{found:?}");
        let least = [(17, 0.05), (42, 0.05), (99, 0.8)];
        assert!(least.iter().all(|&(k, least)| found[k] > least), "{found:?}");
        let noise: Vec<f32> = (0..300).map(|_| random.normal() as f32).collect();
        let found = relevance_of_pairs(&columns, &noise, None, &alone, 5, 0);
        assert_eq!(found, [0.0; 120]);
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
