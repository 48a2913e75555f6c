//! The same in double precision: losses of the few formulas that a search ends with, and their constants fitted by the
//! descent of `normal.rs`. It needs no kernel and no vectors: a front has thirty formulas, not ten thousand.
//!
//! The operators' values and slopes are those in their rows (`formula/operator.rs`), one number at a time.

use rayon::prelude::*;

use super::normal::{Normal, hold};
use super::{Fit, Loss, Operand, Program};
use crate::formula::operator::{Op, operators};

/// Rows of a block: tape and adjoints stay in the first-level cache.
const BLOCK: usize = 128;
/// The smallest number that residuals can be divided by.
const SMALLEST: f64 = f64::MIN_POSITIVE / f64::EPSILON;
/// Rows of a task.
const TASK: usize = 8192;

/// The rows on which formulas are finally judged, in the units in which they were given.
#[derive(Clone, Debug, Default)]
pub struct Exact {
    columns: Vec<Vec<f64>>,
    target: Vec<f64>,
    /// Normalised to sum 1.
    weights: Vec<f64>,
    deviation: f64,
}

impl Exact {
    /// Takes `columns[variable][row]`, `target[row]` and perhaps `weights[row]`, all finite; weights are 0 or more, not
    /// all 0.
    pub fn new(columns: Vec<Vec<f64>>, target: Vec<f64>, weights: Option<&[f64]>) -> Self {
        let rows = target.len();
        let sum: f64 = weights.map_or(rows as f64, |weights| weights.iter().sum());
        let weights = weights.map_or_else(
            || vec![1.0 / rows as f64; rows],
            |weights| weights.iter().map(|w| w / sum).collect(),
        );
        let mut exact = Exact { columns, target, weights, deviation: 0.0 };
        let mut sorted = exact.target.clone();
        if let Some(half) = rows.checked_sub(1) {
            let median = *sorted.select_nth_unstable_by(half / 2, f64::total_cmp).1;
            let deviations = exact.target.iter().zip(&exact.weights);
            exact.deviation = deviations.map(|(y, w)| w * (y - median).abs()).sum();
        }
        exact
    }

    /// Some of the rows.
    pub fn gather(&self, rows: &[u32]) -> Self {
        let pick = |column: &Vec<f64>| rows.iter().map(|&row| column[row as usize]).collect();
        let weights: Vec<f64> = pick(&self.weights);
        Exact::new(self.columns.iter().map(pick).collect(), pick(&self.target), Some(&weights))
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.target.len()
    }

    /// `[variable][row]`
    pub fn columns(&self) -> &[Vec<f64>] {
        &self.columns
    }

    /// `[row]`
    pub fn target(&self) -> &[f64] {
        &self.target
    }

    /// `[row]`, with sum 1.
    pub fn weights(&self) -> &[f64] {
        &self.weights
    }

    /// The loss of a program with these values for its constants; infinite if it is invalid on some row.
    pub fn score(&self, program: &Program, constants: &[f64], loss: Loss) -> f64 {
        let some = |start: usize| {
            let mut work = Work::new(program, constants);
            let mut sum = 0.0;
            for start in self.blocks(start) {
                let rows = BLOCK.min(self.rows() - start);
                sum += work.forward(program, self, start, rows);
                let values = work.values(program.root, self, start, rows);
                for (value, row) in values.iter().zip(start..) {
                    sum += self.weights[row] * size(loss, self.target[row] - value);
                }
            }
            sum
        };
        let sums: Vec<f64> = self.tasks().map(some).collect();
        let sum: f64 = sums.into_iter().sum();
        if sum.is_finite() { sum } else { f64::INFINITY }
    }

    /// The values of a program in all rows.
    pub fn values(&self, program: &Program, constants: &[f64]) -> Vec<f64> {
        let some = |start: usize| {
            let mut work = Work::new(program, constants);
            let mut values = Vec::with_capacity(TASK);
            for start in self.blocks(start) {
                let rows = BLOCK.min(self.rows() - start);
                work.forward(program, self, start, rows);
                values.extend_from_slice(work.values(program.root, self, start, rows));
            }
            values
        };
        self.tasks().flat_map_iter(some).collect()
    }

    /// Fits the constants that a program does not hold, starting from `constants`: loss and constants. Scale and offset
    /// are ordinary constants here.
    pub fn fit(&self, program: &Program, constants: &[f64], fit: Fit) -> (f64, Vec<f64>) {
        let mut normal = Normal::from(constants, SMALLEST);
        let at = |normal: &mut Normal| self.equations(program, fit.loss, normal);
        let (loss, _) = normal.descend(self.deviation, fit, &at);
        (loss, normal.parameters)
    }

    /// Loss, gradient and matrix of the normal equations at the parameters.
    fn equations(&self, program: &Program, loss: Loss, normal: &mut Normal) {
        let p = normal.parameters.len();
        let (parameters, smallest) = (&normal.parameters, normal.smallest);
        let some = |start: usize| {
            let mut work = Work::new(program, parameters);
            let mut own = Part { loss: 0.0, gradient: vec![0.0; p], matrix: vec![0.0; p * p] };
            for start in self.blocks(start) {
                own.add(&mut work, program, self, start, loss, smallest);
            }
            own
        };
        let parts: Vec<Part> = self.tasks().map(some).collect();
        normal.loss = parts.iter().map(|part| part.loss).sum();
        if !normal.loss.is_finite() {
            normal.loss = f64::INFINITY;
        }
        let sums = |length: usize, of: fn(&Part) -> &[f64]| -> Vec<f64> {
            (0..length).map(|k| parts.iter().map(|part| of(part)[k]).sum()).collect()
        };
        normal.gradient = sums(p, |part| &part.gradient);
        normal.matrix = sums(p * p, |part| &part.matrix);
        hold(program, normal);
    }

    /// The first rows of all tasks.
    fn tasks(&self) -> rayon::iter::StepBy<rayon::range::Iter<usize>> {
        (0..self.rows()).into_par_iter().step_by(TASK)
    }

    /// The first rows of the blocks of a task.
    fn blocks(&self, start: usize) -> impl Iterator<Item = usize> {
        (start..self.rows().min(start + TASK)).step_by(BLOCK)
    }
}

fn size(loss: Loss, residual: f64) -> f64 {
    match loss {
        Loss::Mae => residual.abs(),
        Loss::Mse => residual * residual,
    }
}

/// The contribution of some rows to the normal equations.
struct Part {
    loss: f64,
    gradient: Vec<f64>,
    /// The lower triangle, `[parameters, parameters]`.
    matrix: Vec<f64>,
}

impl Part {
    fn add(
        &mut self,
        work: &mut Work,
        program: &Program,
        exact: &Exact,
        start: usize,
        loss: Loss,
        smallest: f64,
    ) {
        let rows = BLOCK.min(exact.rows() - start);
        self.loss += work.forward(program, exact, start, rows);
        let (mut omega, mut omega_r) = ([0.0; BLOCK], [0.0; BLOCK]);
        for (k, value) in work.values(program.root, exact, start, rows).iter().enumerate() {
            let (residual, weight) = (exact.target[start + k] - value, exact.weights[start + k]);
            self.loss += weight * size(loss, residual);
            omega[k] = match loss {
                Loss::Mae => weight / residual.abs().max(smallest),
                Loss::Mse => weight,
            };
            omega_r[k] = omega[k] * residual;
        }
        if !self.loss.is_finite() {
            return;
        }
        work.reverse(program, exact, start, rows);
        let p = self.gradient.len();
        let column = |k: usize| &work.jacobian[k * BLOCK..k * BLOCK + rows];
        for j in 0..p {
            let pairs = column(j).iter().zip(&omega_r);
            self.gradient[j] += pairs.map(|(slope, r)| slope * r).sum::<f64>();
            for k in 0..=j {
                let both = column(j).iter().zip(column(k)).zip(&omega);
                self.matrix[j * p + k] += both.map(|((a, b), w)| a * b * w).sum::<f64>();
            }
        }
    }
}

/// Work space for a block, each array `[…, BLOCK]`.
struct Work {
    constants: Vec<f64>,
    /// The results of each instruction, …
    tape: Vec<f64>,
    /// … and their adjoints.
    adjoints: Vec<f64>,
    /// Derivatives of the formula with respect to its constants.
    jacobian: Vec<f64>,
}

/// Where the values of an operand are.
fn source<'a>(
    operand: Operand,
    (tape, constants): (&'a [f64], &'a [f64]),
    exact: &'a Exact,
    start: usize,
    rows: usize,
) -> &'a [f64] {
    match operand {
        Operand::Result(i) => &tape[usize::from(i) * BLOCK..][..rows],
        Operand::Constant(c) => &constants[usize::from(c) * BLOCK..][..rows],
        Operand::Variable(v) => &exact.columns[usize::from(v)][start..start + rows],
    }
}

impl Work {
    fn new(program: &Program, constants: &[f64]) -> Self {
        let instructions = program.instructions.len();
        Work {
            constants: constants.iter().flat_map(|&c| [c; BLOCK]).collect(),
            tape: vec![0.0; instructions * BLOCK],
            adjoints: vec![0.0; instructions * BLOCK],
            jacobian: vec![0.0; constants.len() * BLOCK],
        }
    }

    fn values<'a>(
        &'a self,
        operand: Operand,
        exact: &'a Exact,
        start: usize,
        rows: usize,
    ) -> &'a [f64] {
        source(operand, (&self.tape, &self.constants), exact, start, rows)
    }

    /// Computes the results of all instructions; returns 0, or NaN if one of them is not finite.
    fn forward(&mut self, program: &Program, exact: &Exact, start: usize, rows: usize) -> f64 {
        let mut flag = 0.0;
        for (index, instruction) in program.instructions.iter().enumerate() {
            let (before, here) = self.tape.split_at_mut(index * BLOCK);
            let from = instruction
                .operands
                .map(|operand| source(operand, (before, &self.constants), exact, start, rows));
            let out = &mut here[..rows];
            macro_rules! arms {
                ($(
                    $(#[$doc:meta])* $op:ident $row:tt
                    value($($a:ident),*) $value:block
                    derivative $operands:tt $derivative:tt
                    vector $vectors:tt tests $tests:tt $vector:tt
                    partial $names:tt $partial:tt
                )*) => {
                    match instruction.op {
                        $(Op::$op => for k in 0..rows {
                            let [$($a,)* ..] = from.map(|values| values[k]);
                            out[k] = $value;
                        })*
                    }
                };
            }
            operators!(arms);
            flag += out.iter().map(|value| value * 0.0).sum::<f64>();
        }
        flag
    }

    /// Columns of the Jacobian, from the tape.
    fn reverse(&mut self, program: &Program, exact: &Exact, start: usize, rows: usize) {
        self.jacobian.fill(0.0);
        let (tape, constants) = (&self.tape[..], &self.constants[..]);
        // Where an adjoint goes: that of a constant is added to those of its other occurrences.
        let (adjoints, jacobian) = (&mut self.adjoints, &mut self.jacobian);
        let mut put = |operand: Operand, adjoints: &mut [f64], values: &[f64]| match operand {
            Operand::Constant(c) => {
                let column = &mut jacobian[usize::from(c) * BLOCK..];
                column.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
            }
            Operand::Result(i) => {
                adjoints[usize::from(i) * BLOCK..][..values.len()].copy_from_slice(values);
            }
            Operand::Variable(_) => {}
        };
        put(program.root, adjoints, &[1.0; BLOCK][..rows]);
        for (index, instruction) in program.instructions.iter().enumerate().rev() {
            if !instruction.has_constant {
                continue;
            }
            let from = instruction
                .operands
                .map(|operand| source(operand, (tape, constants), exact, start, rows));
            let result = &tape[index * BLOCK..][..rows];
            for number in 0..instruction.op.arity() {
                let mut slopes = [0.0; BLOCK];
                // Adjoint times the partial derivative; x, y are the operands, v the result.
                macro_rules! each {
                    (|$d:ident, $x:ident, $y:ident, $v:ident| $value:expr) => {
                        for k in 0..rows {
                            let $d = L(adjoints[index * BLOCK + k]);
                            let ($x, $y, $v) = (L(from[0][k]), L(from[1][k]), L(result[k]));
                            let _ = ($d, $x, $y, $v);
                            slopes[k] = $value.0;
                        }
                    };
                }
                macro_rules! arms {
                    ($(
                        $(#[$doc:meta])* $op:ident $row:tt
                        value $values:tt $value:tt
                        derivative $operands:tt $derivative:tt
                        vector $vectors:tt tests $tests:tt $vector:tt
                        partial($d:ident, $x:ident, $y:ident, $v:ident) {
                            $($number:pat => $partial:expr),*
                        }
                    )*) => {
                        match instruction.op {
                            $(Op::$op => match number {
                                $($number => each!(|$d, $x, $y, $v| $partial),)*
                            })*
                        }
                    };
                }
                operators!(arms);
                put(instruction.operands[number], adjoints, &slopes[..rows]);
            }
        }
    }
}

/// A vector of one number, for which the operators' rows define slopes.
#[derive(Clone, Copy)]
struct L(f64);

macro_rules! numbers {
    ($($name:ident($($b:ident),*) = $value:expr;)*) => {
        impl L {
            fn splat(value: f64) -> L {
                L(value)
            }

            fn where_greater(self, limit: L, a: L, b: L) -> L {
                if self.0 > limit.0 { a } else { b }
            }

            $(fn $name(self, $($b: L),*) -> L {
                let value: fn(f64, $(numbers!(@ $b)),*) -> f64 = $value;
                L(value(self.0, $($b.0),*))
            })*
        }
    };
    (@ $b:ident) => { f64 };
}
numbers! {
    add(b) = |a, b| a + b;
    sub(b) = |a, b| a - b;
    mul(b) = |a, b| a * b;
    div(b) = |a, b| a / b;
    fma(b, c) = |a, b, c| a * b + c;
    abs() = f64::abs;
    sqrt() = f64::sqrt;
    log() = f64::ln;
    sin() = f64::sin;
    cos() = f64::cos;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formula::expression::Expression;
    use crate::random::Random;

    fn rows(n: usize, law: impl Fn(f64, f64) -> f64) -> Exact {
        let mut random = Random::new(3, 0);
        let column = |random: &mut Random| (0..n).map(|_| 0.2 + 2.0 * random.uniform()).collect();
        let columns: Vec<Vec<f64>> = vec![column(&mut random), column(&mut random)];
        let target = (0..n).map(|row| law(columns[0][row], columns[1][row])).collect();
        let weights: Vec<f64> = (0..n).map(|_| random.uniform()).collect();
        Exact::new(columns, target, Some(&weights))
    }

    fn parse(text: &str) -> Expression {
        Expression::parse(text, &["x", "y"]).unwrap()
    }

    /// Every operator, against differences; partly filled blocks and tasks.
    #[test]
    fn slopes_are_those_of_differences() {
        let formulas = [
            "0.3 * x + 1.2 / (y + 0.7) - 0.5",
            "(x + 0.4)^(1.3 * y) + exp(0.2 * x) * log(y + 0.6)",
            "sqrt(x + 0.3) + abs(0.1 - x) + square(0.2 * y) + cube(0.3 + x)",
            "sin(2 * x + 0.1) * cos(0.7 * y) + asin(0.3 * x) + acos(0.2 * y) + atan(1.5 * x)",
            "tanh(0.8 * x) + neg(0.4 * y) + min(0.9 * x, y) + max(x, 1.1 * y)",
            "IF(x - 1.1, 0.4 * y, 2.5 * x) + (x > y) * 0.3 + (x < y) * 0.2",
        ];
        for text in formulas {
            let e = parse(text);
            let program = Program::new(&e);
            for n in [1, 127, 300] {
                let exact = rows(n, |x, y| x - 0.3 * y);
                let constants = e.constants();
                let mut normal = Normal::from(&constants, SMALLEST);
                exact.equations(&program, Loss::Mse, &mut normal);
                for k in 0..constants.len() {
                    let at = |step: f64| {
                        let mut moved = constants.clone();
                        moved[k] += step;
                        exact.score(&program, &moved, Loss::Mse)
                    };
                    let slope = (at(1e-6) - at(-1e-6)) / 2e-6;
                    let found = -2.0 * normal.gradient[k];
                    assert!((slope - found).abs() < 1e-6 * (1.0 + slope.abs()), "{text} {k}");
                }
            }
        }
    }

    #[test]
    fn losses_are_those_of_the_formula() {
        let e = parse("0.3 * x^1.7 + exp(y)");
        let exact = rows(20_000, |x, y| x * y);
        let program = Program::new(&e);
        for loss in [Loss::Mae, Loss::Mse] {
            let row = |row: usize| {
                let value = e.eval(&[exact.columns[0][row], exact.columns[1][row]]);
                exact.weights[row] * size(loss, exact.target[row] - value)
            };
            let expected: f64 = (0..20_000).map(row).sum();
            let found = exact.score(&program, &e.constants(), loss);
            assert!((found / expected - 1.0).abs() < 1e-12, "{found} {expected}");
        }
        let invalid = parse("log(x - 1)");
        let found = exact.score(&Program::new(&invalid), &invalid.constants(), Loss::Mae);
        assert_eq!(found, f64::INFINITY);
    }

    /// Constants come out with all digits, at any scale.
    #[test]
    fn constants_are_fitted_in_double_precision() {
        for unit in [1e-60, 1.0, 1e60] {
            for loss in [Loss::Mae, Loss::Mse] {
                let exact =
                    rows(700, |x, y| unit * (1.234_567_890_123 * x * y + 0.98 * (-1.3 * x).exp()));
                let begun = parse("1 * x * y + 1 * exp(-1 * x)");
                let start = [1.1 * unit, 1.2 * unit, -1.0];
                let fit = Fit { loss, steps: 60, scaled: false, tolerance: 1e-12 };
                let (found, constants) = exact.fit(&Program::new(&begun), &start, fit);
                let power = if loss == Loss::Mse { 2 } else { 1 };
                assert!(found < (1e-12 * unit).powi(power), "{found} {unit}");
                assert!((constants[0] / unit - 1.234_567_890_123).abs() < 1e-11);
                assert!((constants[2] + 1.3).abs() < 1e-11);
            }
        }
    }
}
