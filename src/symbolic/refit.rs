//! A formula with its constants as variables, in f64: its derivatives with respect to them, and the constants that fit
//! some rows best.
//!
//! The evidence for a law is computed from the user's own columns, not from those of the search, so that it checks the
//! law as printed.

use super::settings::Settings;
use crate::formula::expression::{Expression, Node, Op};
use crate::ops::expression::Loss;

/// Steps of a fit, and shorter steps tried until one helps.
const STEPS: usize = 40;
const TRIES: usize = 10;
/// A fit ends when a step gains less than this fraction of the loss.
const GAIN: f64 = 1e-6;
/// Residuals count as at least this fraction of their mean size, since reweighting divides by them.
const SMALL: f64 = 1e-4;
/// Quantiles of a target that are tried as the best constant.
const CANDIDATES: usize = 200;
/// A column counts as a combination of others if less than this fraction of its square is left.
const DEPENDENT: f64 = 1e-11;

/// The user's columns, as they are in the table.
#[derive(Clone, Debug, Default)]
pub struct Data {
    /// `[input][row]`
    pub columns: Vec<Vec<f64>>,
    /// `[target][row]`
    pub targets: Vec<Vec<f64>>,
    /// `[row]`
    pub weights: Option<Vec<f64>>,
    /// `[row]`, true for rows that `--validation` keeps from the search.
    pub held: Option<Vec<bool>>,
}

impl Data {
    /// The weight of a row.
    pub fn weight(&self, row: usize) -> f64 {
        self.weights.as_ref().map_or(1.0, |weights| weights[row])
    }
}

/// The measure by which predictions are judged: the loss of the search.
pub enum Measure {
    /// Mean of absolute residuals.
    Absolute,
    /// Mean of squared residuals; its square root is in the units of the target.
    Square,
    /// A user-defined loss.
    Own(Box<Own>),
}

/// A user-defined loss of prediction, target and weight, with its derivatives with respect to the prediction.
pub struct Own {
    loss: Expression,
    slope: Expression,
    curvature: Expression,
    /// True if it uses the weights itself.
    weighs: bool,
}

impl Own {
    fn factor(&self, weight: f64) -> f64 {
        if self.weighs { 1.0 } else { weight }
    }

    /// The second derivative of a row's loss with respect to the prediction.
    pub fn curvature(&self, predicted: f64, target: f64, weight: f64) -> f64 {
        self.factor(weight) * self.curvature.eval(&[predicted, target, weight])
    }
}

impl Measure {
    /// The loss used by a search.
    pub fn new(settings: &Settings) -> Self {
        match (&settings.row_loss, settings.loss) {
            (Some(loss), _) => {
                let slope = loss.derivative(0);
                let (curvature, weighs) = (slope.derivative(0), loss.depends_on(2));
                Measure::Own(Box::new(Own { loss: loss.clone(), slope, curvature, weighs }))
            }
            (None, Loss::Mae) => Measure::Absolute,
            (None, Loss::Mse) => Measure::Square,
        }
    }

    /// The name of [`Measure::size`] of a mean.
    pub fn name(&self) -> &'static str {
        match self {
            Measure::Absolute => "mean absolute error",
            Measure::Square => "rms error",
            Measure::Own(_) => "mean loss",
        }
    }

    /// The name of the constant that fits best.
    pub fn constant_name(&self) -> &'static str {
        match self {
            Measure::Absolute => "median",
            Measure::Square => "mean",
            Measure::Own(_) => "best constant",
        }
    }

    /// The loss of a row, weight included.
    pub fn row(&self, predicted: f64, target: f64, weight: f64) -> f64 {
        match self {
            Measure::Absolute => weight * (predicted - target).abs(),
            Measure::Square => weight * (predicted - target).powi(2),
            Measure::Own(own) => own.factor(weight) * own.loss.eval(&[predicted, target, weight]),
        }
    }

    /// The derivative of [`Measure::row`] with respect to the prediction.
    pub fn slope(&self, predicted: f64, target: f64, weight: f64) -> f64 {
        match self {
            Measure::Absolute => weight * (predicted - target).signum(),
            Measure::Square => 2.0 * weight * (predicted - target),
            Measure::Own(own) => own.factor(weight) * own.slope.eval(&[predicted, target, weight]),
        }
    }

    /// The weight with which the squared residual stands for the loss: slope / residual. Residuals smaller than `least`
    /// count as `least`.
    fn reweighted(&self, predicted: f64, target: f64, weight: f64, least: f64) -> f64 {
        let residual = predicted - target;
        let residual = if residual.abs() < least { least.copysign(residual) } else { residual };
        let weight = self.slope(target + residual, target, weight) / residual;
        if weight.is_finite() { weight.max(0.0) } else { 0.0 }
    }

    /// Mean over rows given as (prediction, target, weight): the loss of a search.
    pub fn mean(&self, rows: impl Iterator<Item = (f64, f64, f64)>) -> f64 {
        let (mut sum, mut weights) = (0.0, 0.0);
        for (predicted, target, weight) in rows {
            sum += self.row(predicted, target, weight);
            weights += match self {
                Measure::Own(own) => own.factor(weight),
                _ => weight,
            };
        }
        sum / weights
    }

    /// A mean in the units of the target: the square root for squares.
    pub fn size(&self, mean: f64) -> f64 {
        if let Measure::Square = self { mean.sqrt() } else { mean }
    }

    /// The constant that fits best.
    pub fn constant(&self, target: &[f64], weight: impl Fn(usize) -> f64, rows: &[usize]) -> f64 {
        let mean = |of: &dyn Fn(usize) -> f64| -> f64 {
            let weights: f64 = rows.iter().map(|&row| weight(row)).sum();
            rows.iter().map(|&row| weight(row) * of(row)).sum::<f64>() / weights
        };
        if let Measure::Square = self {
            return mean(&|row| target[row]);
        }
        if rows.is_empty() {
            return f64::NAN;
        }
        let mut sorted = rows.to_vec();
        sorted.sort_by(|&a, &b| target[a].total_cmp(&target[b]));
        if let Measure::Absolute = self {
            let half = 0.5 * rows.iter().map(|&row| weight(row)).sum::<f64>();
            let mut below = 0.0;
            let reaches = |row: &&usize| {
                below += weight(**row);
                below >= half
            };
            return sorted.iter().find(reaches).map_or(f64::NAN, |&row| target[row]);
        }
        // For any other loss the best of some quantiles is close enough.
        let candidate = |k: usize| target[sorted[k * (sorted.len() - 1) / CANDIDATES]];
        let loss =
            |value: f64| self.mean(rows.iter().map(|&row| (value, target[row], weight(row))));
        let losses = (0..=CANDIDATES).map(|k| (loss(candidate(k)), candidate(k)));
        losses.min_by(|a, b| a.0.total_cmp(&b.0)).map_or(f64::NAN, |best| best.1)
    }
}

/// A formula with its constants as variables after the inputs.
pub struct Formula {
    body: Expression,
    slopes: Vec<Expression>,
    inputs: usize,
    /// Their values as printed.
    pub constants: Vec<f64>,
    /// True for constants that are themselves an exponent.
    pub exponents: Vec<bool>,
}

impl Formula {
    /// Takes the constants of `expression`, which has `inputs` variables, in the order of its nodes.
    pub fn new(expression: &Expression, inputs: usize) -> Self {
        let constants = expression.constants();
        let mut nodes = expression.nodes().to_vec();
        let (mut exponents, mut next) = (Vec::new(), inputs as u16);
        for at in 0..nodes.len() {
            if let Node::Constant(_) = nodes[at] {
                exponents.push(nodes.get(at + 1) == Some(&Node::Op(Op::Pow)));
                nodes[at] = Node::Variable(next);
                next += 1;
            }
        }
        let body = Expression::from_nodes(nodes);
        let slopes = (inputs as u16..next).map(|variable| body.derivative(variable)).collect();
        Formula { body, slopes, inputs, constants, exponents }
    }

    /// Nodes evaluated for one row and all slopes.
    pub fn nodes(&self) -> usize {
        let slopes: usize = self.slopes.iter().map(|slope| slope.nodes().len()).sum();
        self.body.nodes().len() + slopes
    }

    /// The variables of a row, followed by these constants.
    pub fn at(&self, data: &Data, row: usize, constants: &[f64]) -> Vec<f64> {
        let inputs = data.columns[..self.inputs].iter().map(|column| column[row]);
        inputs.chain(constants.iter().copied()).collect()
    }

    /// Its value at the variables of [`Formula::at`].
    pub fn value(&self, at: &[f64]) -> f64 {
        self.body.eval(at)
    }

    /// The derivative with respect to constant k there; NaN if there is no value on one side.
    pub fn slope(&self, at: &mut [f64], k: usize) -> f64 {
        let slope = self.slopes[k].eval(at);
        if slope.is_finite() {
            return slope;
        }
        // x^c has no logarithm at x = 0 and is flat there.
        let (place, value) = (self.inputs + k, at[self.inputs + k]);
        let step = 1e-6 * if value == 0.0 { 1.0 } else { value.abs() };
        let mut side = |value: f64| {
            at[place] = value;
            self.body.eval(at)
        };
        let difference = side(value + step) - side(value - step);
        at[place] = value;
        difference / (2.0 * step)
    }

    /// Fits the constants numbered `free` to `rows` of a target, starting from the printed values.
    pub fn refitted(
        &self,
        data: &Data,
        target: &[f64],
        rows: &[usize],
        free: &[usize],
        measure: &Measure,
    ) -> Vec<f64> {
        let mut constants = self.constants.clone();
        let loss = |constants: &[f64]| {
            let row = |&row: &usize| {
                (self.value(&self.at(data, row, constants)), target[row], data.weight(row))
            };
            measure.mean(rows.iter().map(row))
        };
        let mut best = loss(&constants);
        let mut damping = 1e-6;
        for _ in 0..STEPS {
            let (matrix, gradient) = self.normal(data, target, rows, free, &constants, measure);
            let before = best;
            for _ in 0..TRIES {
                let mut damped = matrix.clone();
                (0..free.len()).for_each(|k| damped[k][k] *= 1.0 + damping);
                let step = Cholesky::new(&damped).solve(&gradient);
                let mut trial = constants.clone();
                free.iter().zip(step).for_each(|(&k, step)| trial[k] += step);
                let reached = loss(&trial);
                if reached < best {
                    (constants, best) = (trial, reached);
                    damping *= 0.1;
                    break;
                }
                damping *= 10.0;
            }
            // NaN if the formula has no value in some row.
            let gain = (before - best) / before;
            if gain.is_nan() || gain <= GAIN {
                break;
            }
        }
        constants
    }

    /// The normal equations of one step, with weighted squares in place of the loss.
    fn normal(
        &self,
        data: &Data,
        target: &[f64],
        rows: &[usize],
        free: &[usize],
        constants: &[f64],
        measure: &Measure,
    ) -> (Vec<Vec<f64>>, Vec<f64>) {
        let n = rows.len() as f64;
        let residual = |&row: &usize| self.value(&self.at(data, row, constants)) - target[row];
        let least = SMALL * rows.iter().map(|row| residual(row).abs()).sum::<f64>() / n;
        let mut matrix = vec![vec![0.0; free.len()]; free.len()];
        let mut gradient = vec![0.0; free.len()];
        for &row in rows {
            let mut at = self.at(data, row, constants);
            let predicted = self.value(&at);
            let slopes: Vec<f64> = free.iter().map(|&k| self.slope(&mut at, k)).collect();
            let least = least.max(f64::MIN_POSITIVE);
            let weight = measure.reweighted(predicted, target[row], data.weight(row), least);
            if !(predicted.is_finite() && slopes.iter().all(|slope| slope.is_finite())) {
                continue;
            }
            add_square(&mut matrix, &slopes, weight);
            let along = weight * (target[row] - predicted);
            gradient.iter_mut().zip(&slopes).for_each(|(sum, slope)| *sum += along * slope);
        }
        (matrix, gradient)
    }
}

/// Adds `weight · v vᵀ`.
pub fn add_square(matrix: &mut [Vec<f64>], v: &[f64], weight: f64) {
    for (line, a) in matrix.iter_mut().zip(v) {
        line.iter_mut().zip(v).for_each(|(sum, b)| *sum += weight * a * b);
    }
}

/// The lower factor of a symmetric matrix, without the rows that depend on earlier ones.
pub struct Cholesky {
    scales: Vec<f64>,
    factor: Vec<Vec<f64>>,
    /// True for rows that do not depend on earlier ones.
    pub kept: Vec<bool>,
}

impl Cholesky {
    /// Factorises the matrix with its diagonal scaled to 1.
    pub fn new(matrix: &[Vec<f64>]) -> Self {
        let n = matrix.len();
        let scales: Vec<f64> = (0..n).map(|j| matrix[j][j].max(0.0).sqrt()).collect();
        let (mut factor, mut kept) = (vec![vec![0.0; n]; n], vec![false; n]);
        for j in 0..n {
            if scales[j] == 0.0 || !scales[j].is_finite() {
                continue;
            }
            let before: Vec<usize> = (0..j).filter(|&k| kept[k]).collect();
            for &k in &before {
                let inside: f64 = before
                    .iter()
                    .take_while(|&&i| i < k)
                    .map(|&i| factor[j][i] * factor[k][i])
                    .sum();
                let entry = matrix[j][k] / scales[j] / scales[k];
                factor[j][k] = (entry - inside) / factor[k][k];
            }
            let left = 1.0 - before.iter().map(|&k| factor[j][k].powi(2)).sum::<f64>();
            if left > DEPENDENT {
                factor[j][j] = left.sqrt();
                kept[j] = true;
            }
        }
        Cholesky { scales, factor, kept }
    }

    /// Solves for `right`; 0 for the rows that are left out.
    pub fn solve(&self, right: &[f64]) -> Vec<f64> {
        let kept: Vec<usize> = (0..right.len()).filter(|&k| self.kept[k]).collect();
        let mut x = vec![0.0; right.len()];
        for &j in &kept {
            let inside: f64 =
                kept.iter().take_while(|&&k| k < j).map(|&k| self.factor[j][k] * x[k]).sum();
            x[j] = (right[j] / self.scales[j] - inside) / self.factor[j][j];
        }
        self.back(&mut x, &kept);
        kept.iter().for_each(|&k| x[k] /= self.scales[k]);
        x
    }

    /// The rows of which row j, which is left out, is a combination.
    pub fn dependencies(&self, j: usize) -> Vec<usize> {
        let kept: Vec<usize> = (0..j).filter(|&k| self.kept[k]).collect();
        let mut x = self.factor[j].clone();
        self.back(&mut x, &kept);
        kept.into_iter().filter(|&k| x[k].abs() > DEPENDENT.sqrt()).collect()
    }

    /// Solves with the upper factor, on the rows `kept`.
    fn back(&self, x: &mut [f64], kept: &[usize]) {
        for (place, &j) in kept.iter().enumerate().rev() {
            let inside: f64 = kept[place + 1..].iter().map(|&k| self.factor[k][j] * x[k]).sum();
            x[j] = (x[j] - inside) / self.factor[j][j];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependent_lines_are_left_out_and_named() {
        // Columns a, b, 2a − b, c.
        let columns = [[1.0, 2.0, 0.5], [0.0, 1.0, -1.0], [2.0, 3.0, 2.0], [3.0, -1.0, 1.0]];
        let mut matrix = vec![vec![0.0; 4]; 4];
        for row in 0..3 {
            add_square(&mut matrix, &columns.map(|column| column[row]), 1.0);
        }
        let cholesky = Cholesky::new(&matrix);
        assert_eq!(cholesky.kept, [true, true, false, true]);
        assert_eq!(cholesky.dependencies(2), [0, 1]);
        let right: Vec<f64> =
            matrix.iter().map(|line| line[0] - 2.0 * line[1] + 3.0 * line[3]).collect();
        let x = cholesky.solve(&right);
        for (found, wanted) in x.iter().zip([1.0, -2.0, 0.0, 3.0]) {
            assert!((found - wanted).abs() < 1e-9, "{x:?}");
        }
    }

    #[test]
    fn constants_are_found_again() {
        let names = ["x"];
        let x: Vec<f64> = (0..60).map(|k| f64::from(k) / 20.0).collect();
        let law = |x: &f64| 2.5 * (-0.7 * x).exp() + 1.3 * x.powf(1.6);
        let data = Data {
            targets: vec![x.iter().map(law).collect()],
            columns: vec![x],
            ..Data::default()
        };
        let begun = Expression::parse("2 * exp(-0.5 * x) + 1.5 * x^1.4", &names).unwrap();
        let formula = Formula::new(&begun, 1);
        let rows: Vec<usize> = (0..60).collect();
        for loss in [Loss::Mae, Loss::Mse] {
            let measure = Measure::new(&Settings { loss, ..Settings::default() });
            let all: Vec<usize> = (0..formula.constants.len()).collect();
            let found = formula.refitted(&data, &data.targets[0], &rows, &all, &measure);
            for (found, wanted) in found.iter().zip([2.5, -0.7, 1.3, 1.6]) {
                assert!((found.abs() - f64::abs(wanted)).abs() < 1e-3, "{loss:?} {found}");
            }
        }
        assert_eq!(formula.exponents, [false, false, false, true]);
    }
}
