//! Sums, products and quotients of all pairs of features, fitted to a target with free scale and offset.
//!
//! Handles sixteen or more second features at a time, one per lane: every sum over rows is taken in the order of the
//! rows, so that all levels of vector instructions give the same bits.

use rayon::prelude::*;

use super::enumerate::StopCheck;
use super::library::Library;
use super::settings::Settings;
use crate::device::Simd;
use crate::formula::expression::Op;

/// Second features at a time.
const LANES: usize = 32;
/// First features per task; the results depend on it, so it is fixed.
const TASK: usize = 32;
/// Pairs kept for each complexity.
const KEPT: usize = 24;

/// How two features are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pairing {
    /// The first alone.
    Single,
    /// a + b f + c g
    Sum,
    /// a + b f g
    Product,
    /// a + b f / g
    Quotient,
}

/// Two features, by number, and how much they explain.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pair {
    pub pairing: Pairing,
    pub first: usize,
    pub second: usize,
    /// Share of the target's variance.
    pub explained: f32,
    /// Of both features and the operator.
    pub complexity: u32,
}

/// The best pairs of each complexity.
struct Best {
    kept: Vec<Vec<Pair>>,
}

impl Best {
    fn new(most: u32) -> Self {
        Best { kept: vec![Vec::new(); most as usize + 1] }
    }

    /// The value that a pair of this complexity must exceed.
    fn least(&self, complexity: u32) -> f32 {
        match self.kept.get(complexity as usize) {
            None => f32::INFINITY,
            Some(kept) if kept.len() < KEPT => 0.0,
            Some(kept) => kept[KEPT - 1].explained,
        }
    }

    fn put(&mut self, pair: Pair) {
        if pair.explained > self.least(pair.complexity) {
            let kept = &mut self.kept[pair.complexity as usize];
            let at = kept.partition_point(|k| k.explained >= pair.explained);
            kept.insert(at, pair);
            kept.truncate(KEPT);
        }
    }
}

/// The input of the kernel.
struct Table {
    /// `[row][feature]`, padded to whole blocks of lanes with zeros.
    values: Vec<f32>,
    /// Their inverses; NaN for the inverse of 0.
    inverses: Vec<f32>,
    width: usize,
    /// Centred, with norm 1.
    target: Vec<f32>,
    /// For each feature: mean, norm after centring, correlation with the target.
    means: Vec<f32>,
    lengths: Vec<f32>,
    correlations: Vec<f32>,
}

impl Table {
    fn new(library: &Library, target: &[f32]) -> Option<Self> {
        let n = target.len();
        let mean = target.iter().map(|&y| f64::from(y)).sum::<f64>() / n as f64;
        let length = target.iter().map(|&y| (f64::from(y) - mean).powi(2)).sum::<f64>().sqrt();
        if !(length.is_finite() && length > 0.0) {
            return None;
        }
        let target: Vec<f32> =
            target.iter().map(|&y| ((f64::from(y) - mean) / length) as f32).collect();
        let width = library.values.len().next_multiple_of(LANES);
        let mut table = Table {
            values: vec![0.0; n * width],
            inverses: vec![f32::NAN; n * width],
            width,
            target,
            means: vec![0.0; width],
            lengths: vec![0.0; width],
            correlations: vec![0.0; width],
        };
        for (j, feature) in library.values.iter().enumerate() {
            let mean = feature.iter().map(|&v| f64::from(v)).sum::<f64>() / n as f64;
            let square: f64 = feature.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum();
            let along: f64 = feature.iter().zip(&table.target).map(|(v, y)| f64::from(v * y)).sum();
            table.means[j] = mean as f32;
            table.lengths[j] = square.sqrt() as f32;
            // A feature that hardly varies is not used in sums.
            let varies = square > 1e-6 * n as f64;
            table.correlations[j] = if varies { (along / square.sqrt()) as f32 } else { f32::NAN };
            for (row, &value) in feature.iter().enumerate() {
                table.values[row * width + j] = value;
                table.inverses[row * width + j] = if value == 0.0 { f32::NAN } else { 1.0 / value };
            }
        }
        Some(table)
    }
}

/// Shares explained by the combinations of one feature with `LANES` others.
struct Shares {
    sum: [f32; LANES],
    product: [f32; LANES],
    quotient: [f32; LANES],
}

#[inline(always)]
fn shares(table: &Table, i: usize, j: usize) -> Shares {
    let zero = [0.0f32; LANES];
    let (mut p1, mut p2, mut py) = (zero, zero, zero);
    let (mut q1, mut q2, mut qy) = (zero, zero, zero);
    let n = table.target.len();
    for row in 0..n {
        let at = row * table.width;
        let f = table.values[at + i];
        let y = table.target[row];
        let g = &table.values[at + j..at + j + LANES];
        let h = &table.inverses[at + j..at + j + LANES];
        for k in 0..LANES {
            let p = f * g[k];
            p1[k] += p;
            p2[k] += p * p;
            py[k] += p * y;
            let q = f * h[k];
            q1[k] += q;
            q2[k] += q * q;
            qy[k] += q * y;
        }
    }
    let n = n as f32;
    let share = |s1: f32, s2: f32, sy: f32| {
        let variance = s2 - s1 * s1 / n;
        // Also false for NaN.
        if variance > 1e-4 * s2 && s2 < 1e30 { sy * sy / variance } else { 0.0 }
    };
    let mut out = Shares { sum: zero, product: zero, quotient: zero };
    let (mean, length, r) = (table.means[i], table.lengths[i], table.correlations[i]);
    for k in 0..LANES {
        out.product[k] = share(p1[k], p2[k], py[k]);
        out.quotient[k] = share(q1[k], q2[k], qy[k]);
        let s = table.correlations[j + k];
        let rho = (p1[k] - n * mean * table.means[j + k]) / (length * table.lengths[j + k]);
        let free = 1.0 - rho * rho;
        let both = r * r + s * s - 2.0 * r * s * rho;
        out.sum[k] = if free > 1e-3 { both / free } else { 0.0 };
    }
    out
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn shares_avx2(table: &Table, i: usize, j: usize) -> Shares {
    shares(table, i, j)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn shares_avx512(table: &Table, i: usize, j: usize) -> Shares {
    shares(table, i, j)
}

fn on(simd: Simd, table: &Table, i: usize, j: usize) -> Shares {
    match simd.vectors() {
        // SAFETY: the level is always one that this CPU has.
        #[cfg(target_arch = "x86_64")]
        Simd::Avx2 => unsafe { shares_avx2(table, i, j) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Simd::Avx512 => unsafe { shares_avx512(table, i, j) },
        _ => shares(table, i, j),
    }
}

/// The best single features and pairs of each complexity, those that explain most first; only some of them if time runs
/// out (`late`).
pub(super) fn best(
    library: &Library,
    target: &[f32],
    settings: &Settings,
    late: &StopCheck,
) -> Vec<Pair> {
    let Some(table) = Table::new(library, target) else { return Vec::new() };
    let simd = Simd::detect();
    let m = library.features.len();
    let weight = |op: Op| u32::from(settings.weights.op[op as usize]);
    let divides = settings.operators.contains(&Op::Div);
    let most = settings.max_complexity;
    let firsts: Vec<usize> = (0..m).step_by(TASK).collect();
    let task = |&begin: &usize| -> Best {
        let mut best = Best::new(most);
        for i in begin..(begin + TASK).min(m) {
            if late() {
                break;
            }
            let own = library.complexities[i];
            let explained = table.correlations[i] * table.correlations[i];
            best.put(Pair {
                pairing: Pairing::Single,
                first: i,
                second: i,
                explained,
                complexity: own,
            });
            for j in (0..m).step_by(LANES) {
                // Quotients have an order; sums and products need each pair once.
                if !divides && j + LANES <= i {
                    continue;
                }
                let shares = on(simd, &table, i, j);
                let lanes = LANES.min(m - j);
                let others = [library.complexities[j], library.complexities[j + lanes - 1]];
                let kinds = [
                    (Pairing::Sum, &shares.sum, weight(Op::Add) + weight(Op::Mul) + 1),
                    (Pairing::Product, &shares.product, weight(Op::Mul)),
                    (Pairing::Quotient, &shares.quotient, weight(Op::Div)),
                ];
                for (pairing, explained, more) in kinds {
                    let ordered = pairing == Pairing::Quotient;
                    if (ordered && !divides) || (!ordered && j + LANES <= i) {
                        continue;
                    }
                    let largest = explained.iter().fold(0.0f32, |most, e| most.max(*e));
                    let least = (others[0]..=others[1]).map(|c| best.least(own + c + more));
                    if largest <= least.fold(f32::INFINITY, f32::min) {
                        continue;
                    }
                    for k in 0..lanes {
                        let (second, explained) = (j + k, explained[k]);
                        let complexity = own + library.complexities[second] + more;
                        let once = if ordered { second != i } else { second >= i };
                        if once && explained > best.least(complexity) && explained < 1.01 {
                            best.put(Pair { pairing, first: i, second, explained, complexity });
                        }
                    }
                }
            }
        }
        best
    };
    let parts: Vec<Best> = firsts.par_iter().map(task).collect();
    let mut all = Best::new(most);
    parts.into_iter().flat_map(|b| b.kept).flatten().for_each(|pair| all.put(pair));
    let mut found: Vec<Pair> = all.kept.into_iter().flatten().collect();
    // A pair no better than a simpler one is left out; differences within rounding count as a tie.
    let mut least_missed = f32::INFINITY;
    found.retain(|pair| {
        let missed = (1.0 - pair.explained).max(1e-5);
        let keep = missed <= 1.5 * least_missed;
        least_missed = least_missed.min(missed);
        keep
    });
    found.sort_by(|a, b| b.explained.total_cmp(&a.explained).then(a.complexity.cmp(&b.complexity)));
    found
}
