//! A population of expressions on a table: their losses, and their constants fitted.
//!
//! For expression f with constants θ on rows (x, y, w):
//!
//!   prediction  ŷ = offset + scale · f(x; θ)                (plain scoring: ŷ = f)
//!   MAE         L = Σ w |y − ŷ| / Σ w
//!   MSE         L = Σ w (y − ŷ)² / Σ w
//!
//! An infinity or NaN in any intermediate value of any row makes L infinite. Fitting is Levenberg–Marquardt on (θ,
//! scale, offset) with the gradients of a reverse sweep; for MAE the squares are reweighted by 1 / max(|y − ŷ|, ε),
//! with ε a small fraction of L, and a step is judged by the true L. Arithmetic is f32 with sums over blocks of rows in
//! f64.

pub(crate) mod block;
mod cpu;
pub mod exact;
pub(crate) mod gpu;
mod normal;
mod program;
mod rounds;
pub mod selftest;
#[cfg(test)]
mod tests;

use bytemuck::{Pod, Zeroable};

use crate::device::Device;
use crate::error::{Error, Result};
use crate::ops::Call;
pub use program::{Instruction, Operand, Program};
pub(crate) use rounds::side_by_side;
pub use rounds::{Evaluator, Launches};

/// The loss by which a prediction is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Loss {
    /// Mean of absolute residuals.
    Mae,
    /// Mean of squared residuals.
    Mse,
}

/// Sixteen f32 in a cache line, so that vector loads never straddle two.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

/// Values in a [`Line`]: no vector is wider.
const LINE: usize = 16;

/// The rows on which expressions are judged, in the order in which the kernels read them.
#[derive(Clone, Debug)]
pub struct Rows {
    /// `[variables, lines]`; padded with copies of the last row.
    columns: Vec<Line>,
    /// `[lines]`
    target: Vec<Line>,
    /// `[lines]`, divided by their sum; 0 in the padding.
    weights: Vec<Line>,
    /// Lines of one column.
    lines: usize,
    variables: usize,
    rows: usize,
    median: f64,
    deviation: f64,
    sizes: [f64; 2],
    resident: gpu::Resident,
}

impl Rows {
    /// Takes `columns[variable][row]`, `target[row]` and perhaps `weights[row]`.
    ///
    /// # Errors
    /// Lengths that differ, no rows, values that are not finite, weights that are negative or all 0.
    pub fn new(columns: &[Vec<f32>], target: &[f32], weights: Option<&[f32]>) -> Result<Self> {
        let every: Vec<u32> = (0..target.len() as u32).collect();
        if target.is_empty() {
            return Err(Error::input("there are no rows"));
        }
        let all = columns.iter().map(Vec::as_slice).chain([target]).chain(weights);
        for column in all {
            if column.len() != target.len() {
                let message = format!("columns of {} and {} rows", column.len(), target.len());
                return Err(Error::input(message));
            }
            if let Some(row) = column.iter().position(|v| !v.is_finite()) {
                let message = format!("{} where a number is needed", column[row]);
                return Err(Error::input(message).row(row as u64 + 2));
            }
        }
        if let Some(weights) = weights
            && (weights.iter().any(|&w| w < 0.0) || weights.iter().all(|&w| w == 0.0))
        {
            return Err(Error::input("weights must be 0 or more, and not all 0"));
        }
        Ok(Self::gather(columns, target, weights, &every))
    }

    /// Some of the rows of a table that [`Rows::new`] accepts.
    pub(crate) fn gather(
        columns: &[Vec<f32>],
        target: &[f32],
        weights: Option<&[f32]>,
        chosen: &[u32],
    ) -> Self {
        let lines = chosen.len().div_ceil(LINE);
        let pick = |column: &[f32], padding: Option<f32>| -> Vec<Line> {
            let last = chosen[chosen.len() - 1];
            let value = |i: usize| match (chosen.get(i), padding) {
                (Some(&row), _) => column[row as usize],
                (None, Some(padding)) => padding,
                (None, None) => column[last as usize],
            };
            (0..lines).map(|l| Line(std::array::from_fn(|k| value(l * LINE + k)))).collect()
        };
        let ones = weights.is_none().then(|| vec![1.0; target.len()]);
        let original = weights.or(ones.as_deref()).unwrap_or(&[]);
        let sum: f64 = chosen.iter().map(|&row| f64::from(original[row as usize])).sum();
        let mut weights = pick(original, Some(0.0));
        for line in &mut weights {
            line.0 = line.0.map(|w| (f64::from(w) / sum.max(f64::MIN_POSITIVE)) as f32);
        }
        let mut sorted: Vec<f32> = chosen.iter().map(|&row| target[row as usize]).collect();
        let half = sorted.len() / 2;
        let median = f64::from(*sorted.select_nth_unstable_by(half, f32::total_cmp).1);
        let deviation = |&row: &u32| {
            let (y, w) = (target[row as usize], original[row as usize]);
            (f64::from(y) - median).abs() * f64::from(w) / sum.max(f64::MIN_POSITIVE)
        };
        let size = |power: i32| -> f64 {
            let share = |&row: &u32| f64::from(original[row as usize]) / sum.max(f64::MIN_POSITIVE);
            chosen.iter().map(|r| f64::from(target[*r as usize]).abs().powi(power) * share(r)).sum()
        };
        Rows {
            deviation: chosen.iter().map(deviation).sum(),
            sizes: [size(1), size(2)],
            columns: columns.iter().flat_map(|c| pick(c, None)).collect(),
            target: pick(target, None),
            weights,
            lines,
            variables: columns.len(),
            rows: chosen.len(),
            median,
            resident: gpu::Resident::default(),
        }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn variables(&self) -> usize {
        self.variables
    }

    /// The value of a variable in a row.
    pub fn value(&self, variable: usize, row: usize) -> f32 {
        self.columns[variable * self.lines + row / LINE].0[row % LINE]
    }

    /// The values of all variables in a row.
    pub(crate) fn row(&self, row: usize) -> Vec<f64> {
        (0..self.variables).map(|v| f64::from(self.value(v, row))).collect()
    }

    /// Median of the target.
    pub fn median(&self) -> f64 {
        self.median
    }

    /// Mean absolute and mean squared target.
    pub fn sizes(&self) -> [f64; 2] {
        self.sizes
    }

    /// Mean absolute deviation of the target from its median.
    pub fn deviation(&self) -> f64 {
        self.deviation
    }
}

/// How constants are fitted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fit {
    /// The loss to minimise.
    pub loss: Loss,
    /// Most steps.
    pub steps: u32,
    /// True to fit ŷ = offset + scale · f with both free, instead of ŷ = f.
    pub scaled: bool,
    /// Stop when a step improves the loss by less than this fraction.
    pub tolerance: f64,
}

/// A program with its constants fitted.
#[derive(Clone, Debug, PartialEq)]
pub struct Fitted {
    /// Infinite if the program is invalid on some row.
    pub loss: f64,
    /// The constants, in the order of the program.
    pub constants: Vec<f64>,
    /// ŷ = offset + scale · f; 1 without `Fit::scaled`.
    pub scale: f64,
    /// 0 without `Fit::scaled`.
    pub offset: f64,
    /// Evaluations of the program on all rows during the fit, gradients included.
    pub evaluations: u32,
}

/// Losses of `programs` with their current constants.
pub fn score(device: &Device, rows: &Rows, programs: &[Program], loss: Loss) -> Result<Vec<f64>> {
    check(rows, programs)?;
    match device {
        Device::Cpu(cpu) => Ok(cpu::score(*cpu, rows, programs, loss, true)),
        Device::Gpu(gpu) => gpu::score(*gpu, rows, programs, loss, alone),
    }
}

/// [`score`] on a CPU, without leaving an invalid program early: for measurements.
pub(crate) fn score_all_rows(
    cpu: crate::device::Cpu,
    rows: &Rows,
    programs: &[Program],
    loss: Loss,
) -> Vec<f64> {
    cpu::score(cpu, rows, programs, loss, false)
}

/// Fits the constants of each of `programs`, starting from their current values.
pub fn fit(device: &Device, rows: &Rows, programs: &[Program], fit: Fit) -> Result<Vec<Fitted>> {
    check(rows, programs)?;
    match device {
        Device::Cpu(cpu) => Ok(cpu::fit(*cpu, rows, programs, fit)),
        Device::Gpu(gpu) => gpu::fit(*gpu, rows, programs, fit, alone),
    }
}

/// A launch of one request.
fn alone(request: gpu::Request) -> Result<Vec<f64>> {
    gpu::launch(&[request]).map(|mut results| results.remove(0))
}

fn check(rows: &Rows, programs: &[Program]) -> Result<()> {
    let used = |p: &Program| p.variables().max().map_or(0, |v| usize::from(v) + 1);
    match programs.iter().map(used).max() {
        Some(used) if used > rows.variables => Err(Error::input(format!(
            "an expression of {used} variables on a table of {}",
            rows.variables
        ))),
        _ => Ok(()),
    }
}

/// The plain reference in f64: loss of ŷ = offset + scale · f.
pub fn reference(
    rows: &Rows,
    f: &crate::formula::expression::Expression,
    scale: f64,
    offset: f64,
    loss: Loss,
) -> f64 {
    let mut sum = 0.0;
    for row in 0..rows.rows {
        let (line, lane) = (row / LINE, row % LINE);
        let prediction = offset + scale * f.eval(&rows.row(row));
        let residual = f64::from(rows.target[line].0[lane]) - prediction;
        let weight = f64::from(rows.weights[line].0[lane]);
        sum += weight
            * match loss {
                Loss::Mae => residual.abs(),
                Loss::Mse => residual * residual,
            };
    }
    if sum.is_finite() { sum } else { f64::INFINITY }
}

/// [`score`] for `measure`, which repeats it: the data are already on the device.
pub(crate) fn repeat_score<T>(
    device: &Device,
    rows: &Rows,
    programs: &[Program],
    loss: Loss,
    measure: impl FnOnce(Call) -> Result<T>,
) -> Result<T> {
    match device {
        Device::Cpu(_) => measure(&mut || score(device, rows, programs, loss).map(drop)),
        Device::Gpu(gpu) => {
            let request = gpu::Request::to_score(*gpu, rows, programs, loss)?;
            let mut all = gpu::Population::new(&[request])?;
            measure(&mut || all.launch())
        }
    }
}

/// The same for [`fit`].
pub(crate) fn repeat_fit<T>(
    device: &Device,
    rows: &Rows,
    programs: &[Program],
    how: Fit,
    measure: impl FnOnce(Call) -> Result<T>,
) -> Result<T> {
    match device {
        Device::Cpu(_) => measure(&mut || fit(device, rows, programs, how).map(drop)),
        Device::Gpu(gpu) => {
            let request = gpu::Request::to_fit(*gpu, rows, programs, how)?;
            let mut all = gpu::Population::new(&[request])?;
            measure(&mut || all.launch())
        }
    }
}
