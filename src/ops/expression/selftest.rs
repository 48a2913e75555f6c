//! Losses and fits against the reference in f64, on numbers of rows that do not fit tiles.

use super::{Fit, Loss, Program, Rows, fit, reference, score};
use crate::device::Device;
use crate::error::Result;
use crate::formula::expression::Expression;
use crate::ops::Check;
use crate::random::Random;

const NAMES: [&str; 3] = ["x", "y", "z"];
const ROWS: [usize; 6] = [1, 15, 17, 511, 1025, 2500];

/// Every operator, values and constants in every place, short and long, in one population.
const VALID: [&str; 15] = [
    "z",
    "0.75",
    "x + 1.5 * y - z / 0.7",
    "z^1.7 - 2^x + 0.3 * y^2",
    "exp(0.3 * x) + log(z + 0.5)",
    "(x > 0.1) + 0.5 * (y < z)",
    "min(x, 0.4) * max(0.1, y)",
    "sqrt(z) + abs(y - 0.2)",
    "square(x - 0.5) + cube(0.3 * y)",
    "-x * sin(2 * y) + cos(z)",
    "tanh(1.5 * x) - tanh(0.1 * y)",
    "asin(0.9 * sin(x)) - acos(z / (z + 0.1)) + atan(1.5 * y)",
    "IF(x - 0.3, y * z, 1.25)",
    "((x + y) * (y + z)) / ((x - 3) * (y - 4) + (z + 20) * (x * x + 1))",
    // Powers of two, so that the angles are exactly those of the reference.
    "sin(65536 * x) + cos(1152921504606846976 * z)",
];

/// Not finite somewhere, though the final value may be.
const INVALID: [&str; 7] = [
    "1 / (1 / (x - x))",
    "IF(z, 1, log(-z))",
    "exp(-1 / abs(y - y))",
    "min(x, log(-z))",
    "(-z)^0.5",
    "exp(1e3 * z + 1e3) + 1",
    "asin(z + 1)",
];

/// What [`fit`] starts from, and what it must find.
const FIT: (&str, &str) =
    ("(x + 1 * y) * (1 - 1 / (z + 1))", "1.7 * (x + 0.4 * y) * (0.9 - 1.3 / (z + 0.5)) - 0.25");

/// Both losses of a mixed population, and a fit of known constants, for each number of rows.
pub fn checks(device: &Device) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    for rows in ROWS {
        for loss in [Loss::Mae, Loss::Mse] {
            checks.push(losses(device, rows, loss)?);
        }
    }
    for loss in [Loss::Mae, Loss::Mse] {
        checks.push(constants(device, loss)?);
    }
    Ok(checks)
}

/// Normal numbers, the last column positive, with unequal weights.
pub(super) fn table(rows: usize, seed: u64, target: impl Fn(f64, f64, f64) -> f64) -> Rows {
    let mut random = Random::new(seed, 0);
    let mut columns = vec![Vec::new(); 3];
    let (mut y, mut w) = (Vec::new(), Vec::new());
    for _ in 0..rows {
        let row = [random.normal(), random.normal(), random.normal().exp()].map(|v| v as f32);
        (0..3).for_each(|k| columns[k].push(row[k]));
        let [a, b, c] = row.map(f64::from);
        y.push(target(a, b, c) as f32);
        w.push(0.5 + random.uniform() as f32);
    }
    let all: Vec<u32> = (0..rows as u32).collect();
    Rows::gather(&columns, &y, Some(&w), &all)
}

/// The largest relative error of a loss; infinite if validity differs.
fn losses(device: &Device, rows: usize, loss: Loss) -> Result<Check> {
    let table = table(rows, rows as u64, |a, b, c| 10.0 + a * b + c);
    let parse = |text: &&str| Expression::parse(text, &NAMES);
    let expressions: Vec<Expression> =
        VALID.iter().chain(&INVALID).map(parse).collect::<Result<_>>()?;
    let programs: Vec<Program> = expressions.iter().map(Program::new).collect();
    let found = score(device, &table, &programs, loss)?;
    let error = |(i, found): (usize, &f64)| {
        if i >= VALID.len() {
            return if *found == f64::INFINITY { 0.0 } else { f64::INFINITY };
        }
        let exact = reference(&table, &expressions[i], 1.0, 0.0, loss);
        (found - exact).abs() / exact
    };
    let error =
        found.iter().enumerate().map(error).fold(0.0, |a: f64, b| if b > a { b } else { a });
    Ok(Check {
        operation: "expression",
        case: format!("{loss:?} of {rows} rows"),
        error,
        limit: 1e-5,
    })
}

/// The distance of fitted values from the truth, relative to their mean deviation.
fn constants(device: &Device, loss: Loss) -> Result<Check> {
    let truth = Expression::parse(FIT.1, &NAMES)?;
    let table = table(1999, 9, |a, b, c| truth.eval(&[a, b, c]));
    let start = Program::new(&Expression::parse(FIT.0, &NAMES)?);
    let settings = Fit { loss, steps: 40, scaled: true, tolerance: 1e-9 };
    let fitted = &fit(device, &table, &[start], settings)?[0];
    let mut f = Expression::parse(FIT.0, &NAMES)?;
    f.set_constants(&fitted.constants);
    let rest = reference(&table, &f, fitted.scale, fitted.offset, Loss::Mae);
    let case = format!("{loss:?} fit of 1999 rows");
    Ok(Check { operation: "expression", case, error: rest / table.deviation(), limit: 1e-5 })
}
