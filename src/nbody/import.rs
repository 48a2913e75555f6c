//! Data sets from tables of trajectories: columns run, time, body, x, y\[, z\]\[, vx…\]\[, mass\]
//! \[, charge\]\[, ax…\], rows in any order.
//!
//! All runs must share times and bodies. What is missing is made (velocities and accelerations by
//! the local polynomial fit of `fit.rs`, masses 1, charges 0), and the summary says so.

use std::collections::HashMap;
use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::dataset::About;
use super::fit::{Fit, dot};
use crate::error::{Error, Result};
use crate::store::table::Table;

/// How to make what is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Order of the local polynomial.
    pub order: usize,
    /// Frames that it is fitted to.
    pub window: usize,
}

impl Default for Settings {
    /// A quartic through nine frames: its acceleration has an error of fourth order in the time
    /// between frames, and four degrees of freedom are left to see the noise.
    fn default() -> Self {
        Settings { order: 4, window: 9 }
    }
}

/// One standard deviation of a component of the accelerations that the fit made.
///
/// From what the fit leaves over around each body and frame, but at least from what it leaves over
/// on the whole: a local misfit raises the bar, a lucky one does not lower it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ErrorBar {
    /// Of half of the frames it is smaller.
    pub median: f64,
    /// Of the worst frame.
    pub max: f64,
}

/// What an import found and made.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Number of runs.
    pub runs: usize,
    /// Frames of each run.
    pub frames: usize,
    /// Bodies of each run.
    pub bodies: usize,
    /// Dimensions of space.
    pub dim: usize,
    /// What the table lacked and was made: velocities, accelerations, mass, charge.
    pub made: Vec<&'static str>,
    /// Standard deviation of the noise in the positions, where a fit was made.
    pub position_noise: Option<f64>,
    /// Where accelerations were made.
    pub acceleration_error: Option<ErrorBar>,
}

/// Where the rows of the table belong.
struct Layout {
    runs: Vec<f64>,
    times: Vec<f64>,
    bodies: Vec<f64>,
    /// Row of the table for `[run, frame, body]`.
    rows: Vec<usize>,
}

/// The row number of a table's row in error messages: row 1 is the header.
fn row_number(row: usize) -> u64 {
    row as u64 + 2
}

impl Layout {
    fn new(table: &Table) -> Result<Layout> {
        let error = |message: String, field: &str, row: usize| {
            Err(Error::input(message).file(&table.path).field(field).row(row_number(row)))
        };
        let [run, time, body] = ["run", "time", "body"].map(|name| table.column(name));
        let (run, time, body) = (run?, time?, body?);
        for (name, column) in [("run", run), ("body", body)] {
            if let Some(row) = column.iter().position(|v| v.fract() != 0.0) {
                return error(format!("{} is not a whole number", column[row]), name, row);
            }
        }
        let runs = distinct(run.iter().copied());
        // The first run says which times and bodies all others must have.
        let of_first = |column: &[f64]| {
            distinct(column.iter().zip(run).filter(|(_, run)| **run == runs[0]).map(|(v, _)| *v))
        };
        let (times, bodies) = (of_first(time), of_first(body));
        let numbers = |values: &[f64]| -> HashMap<u64, usize> {
            values.iter().enumerate().map(|(at, v)| (key(*v), at)).collect()
        };
        let (run_number, time_number, body_number) =
            (numbers(&runs), numbers(&times), numbers(&bodies));
        let mut rows = vec![usize::MAX; runs.len() * times.len() * bodies.len()];
        for row in 0..table.rows() {
            let r = run_number[&key(run[row])];
            let Some(&t) = time_number.get(&key(time[row])) else {
                let message = format!(
                    "run {} has time {}, run {} has not: all runs must share times",
                    run[row], time[row], runs[0]
                );
                return error(message, "time", row);
            };
            let Some(&b) = body_number.get(&key(body[row])) else {
                let message = format!(
                    "run {} has body {}, run {} has not: all runs must share bodies",
                    run[row], body[row], runs[0]
                );
                return error(message, "body", row);
            };
            let slot = &mut rows[(r * times.len() + t) * bodies.len() + b];
            if *slot != usize::MAX {
                let message = format!(
                    "run {}, time {}, body {} is in row {} already",
                    run[row],
                    time[row],
                    body[row],
                    row_number(*slot)
                );
                return error(message, "body", row);
            }
            *slot = row;
        }
        if let Some(at) = rows.iter().position(|row| *row == usize::MAX) {
            let (run_at, rest) =
                (at / (times.len() * bodies.len()), at % (times.len() * bodies.len()));
            let message = format!(
                "run {} has no row for time {} and body {}: all runs must share times and bodies",
                runs[run_at],
                times[rest / bodies.len()],
                bodies[rest % bodies.len()]
            );
            let first_row = run.iter().position(|r| *r == runs[run_at]).unwrap_or(0);
            return error(message, "time", first_row);
        }
        if bodies.len() < 2 {
            return error("there is only one body: nothing interacts".into(), "body", 0);
        }
        Ok(Layout { runs, times, bodies, rows })
    }
}

/// Equal numbers, equal keys (−0 is 0).
fn key(value: f64) -> u64 {
    (value + 0.0).to_bits()
}

/// The different values, in order.
fn distinct(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.dedup_by(|a, b| a == b);
    values
}

/// The columns `prefix + x`, … where the table has all of them; an error where it has only some.
fn vector<'a>(table: &'a Table, prefix: &str, dim: usize) -> Result<Option<Vec<&'a [f64]>>> {
    let names: Vec<String> =
        ["x", "y", "z"][..dim].iter().map(|d| format!("{prefix}{d}")).collect();
    if names.iter().all(|name| table.find(name).is_none()) {
        return Ok(None);
    }
    names.iter().map(|name| representable(table, name)).collect::<Result<_>>().map(Some)
}

/// A column of numbers that f32 can hold.
fn representable<'a>(table: &'a Table, name: &str) -> Result<&'a [f64]> {
    let column = table.column(name)?;
    match column.iter().position(|v| v.abs() > f64::from(f32::MAX)) {
        Some(row) => Err(Error::input(format!("{} is too large for the file", column[row]))
            .file(&table.path)
            .field(name)
            .row(row_number(row))),
        None => Ok(column),
    }
}

/// The value of each body, which may not change with time; `None` where there is no such column.
fn constant(table: &Table, layout: &Layout, name: &str) -> Result<Option<Vec<f32>>> {
    if table.find(name).is_none() {
        return Ok(None);
    }
    let column = representable(table, name)?;
    let bodies = layout.bodies.len();
    let mut values = Vec::with_capacity(layout.runs.len() * bodies);
    for rows in layout.rows.chunks(layout.times.len() * bodies) {
        for (at, &row) in rows.iter().enumerate() {
            let of_body = column[rows[at % bodies]];
            if column[row] != of_body {
                let message = format!("{} here, {of_body} at the first time", column[row]);
                return Err(Error::input(format!("changes with time: {message}"))
                    .file(&table.path)
                    .field(name)
                    .row(row_number(row)));
            }
        }
        values.extend(rows[..bodies].iter().map(|&row| column[row] as f32));
    }
    Ok(Some(values))
}

/// What the fits make of the positions.
struct Made {
    velocities: Vec<f32>,
    accelerations: Vec<f32>,
    position_noise: f64,
    error: ErrorBar,
}

/// Fits `positions` `[run, frame, body, dim]`.
fn derivatives(positions: &[f64], layout: &Layout, dim: usize, settings: Settings) -> Made {
    let (frames, stride) = (layout.times.len(), layout.bodies.len() * dim);
    let window = settings.window.min(frames);
    let fits: Vec<Fit> =
        (0..frames).map(|k| Fit::new(&layout.times, k, settings.order, window)).collect();
    let mut velocities = vec![0.0; positions.len()];
    let mut accelerations = vec![0.0; positions.len()];
    // Mean square of what is left over, per degree of freedom, `[run, frame, body]`.
    let mut left = vec![0.0; positions.len() / dim];
    positions
        .par_chunks(frames * stride)
        .zip(velocities.par_chunks_mut(frames * stride))
        .zip(accelerations.par_chunks_mut(frames * stride))
        .zip(left.par_chunks_mut(frames * stride / dim))
        .for_each(|(((positions, velocities), accelerations), left)| {
            let mut inside = vec![0.0; window];
            for (frame, fit) in fits.iter().enumerate() {
                for c in 0..stride {
                    for (i, value) in inside.iter_mut().enumerate() {
                        *value = positions[(fit.first + i) * stride + c];
                    }
                    let at = frame * stride + c;
                    velocities[at] = dot(&fit.velocity, &inside) as f32;
                    accelerations[at] = dot(&fit.acceleration, &inside) as f32;
                    left[at / dim] += fit.residual(&inside) / (fit.freedom() * dim) as f64;
                }
            }
        });
    let mean = left.iter().sum::<f64>() / left.len() as f64;
    let mut bars: Vec<f64> = left
        .iter()
        .enumerate()
        .map(|(at, &left)| {
            let frame = at / layout.bodies.len() % frames;
            left.max(mean).sqrt() * fits[frame].acceleration_noise()
        })
        .collect();
    bars.sort_by(f64::total_cmp);
    let error = ErrorBar { median: bars[bars.len() / 2], max: bars[bars.len() - 1] };
    Made { velocities, accelerations, position_noise: mean.sqrt(), error }
}

/// Reads the table at `from` and writes a dataset at `to`; on an error there is no file.
pub fn import(from: &Path, to: &Path, settings: Settings) -> Result<Summary> {
    let Settings { order, window } = settings;
    if order < 2 {
        return Err(Error::usage("an acceleration needs at least order 2").field("order"));
    }
    if window < order + 2 {
        let message = format!("a fit of order {order} needs a window of at least {}", order + 2);
        return Err(Error::usage(message).field("window"));
    }
    let table = Table::read(from)?;
    let dim = if table.find("z").is_some() { 3 } else { 2 };
    let [x, v, a] = ["", "v", "a"].map(|prefix| vector(&table, prefix, dim));
    let x = match x? {
        Some(columns) => columns,
        None => vec![table.column("x")?],
    };
    let (v, a) = (v?, a?);
    let layout = Layout::new(&table)?;
    let (mass, charge) = (constant(&table, &layout, "mass")?, constant(&table, &layout, "charge")?);
    let (runs, frames, bodies) = (layout.runs.len(), layout.times.len(), layout.bodies.len());
    if let Some(at) = mass.iter().flatten().position(|m| *m <= 0.0) {
        let row = layout.rows[at / bodies * frames * bodies + at % bodies];
        let error = Error::input("a mass must be positive").file(from).field("mass");
        return Err(error.row(row_number(row)));
    }
    if (v.is_none() || a.is_none()) && frames < order + 2 {
        let message = format!(
            "{frames} times are too few to fit velocities or accelerations of order {order}: \
             {} are needed",
            order + 2
        );
        return Err(Error::input(message).file(from).field("time"));
    }

    let gathered = |columns: &[&[f64]]| -> Vec<f64> {
        layout.rows.iter().flat_map(|&row| columns.iter().map(move |c| c[row])).collect()
    };
    let positions = gathered(&x);
    let fitted =
        (v.is_none() || a.is_none()).then(|| derivatives(&positions, &layout, dim, settings));
    let made: Vec<&str> = [
        ("velocities", v.is_none()),
        ("accelerations", a.is_none()),
        ("mass", mass.is_none()),
        ("charge", charge.is_none()),
    ]
    .iter()
    .filter_map(|(name, missing)| missing.then_some(*name))
    .collect();
    let summary = Summary {
        runs,
        frames,
        bodies,
        dim,
        made,
        position_noise: fitted.as_ref().map(|fit| fit.position_noise),
        acceleration_error: fitted.as_ref().filter(|_| a.is_none()).map(|fit| fit.error),
    };
    let origin = serde_json::json!({
        "imported": from,
        "made": summary.made,
        "fit": fitted.is_some().then_some(settings),
        "position_noise": summary.position_noise,
        "acceleration_error": summary.acceleration_error,
    });
    let about =
        About { runs, frames, bodies, dim, law: None, origin, seed: 0, scale: None, period: None };
    let mut file = about.create(to)?;
    file.slice::<f64>("times").copy_from_slice(&layout.times);
    let narrow = |values: Vec<f64>| -> Vec<f32> { values.iter().map(|v| *v as f32).collect() };
    file.slice::<f32>("positions").copy_from_slice(&narrow(positions));
    let (made_v, made_a) = fitted.map(|fit| (fit.velocities, fit.accelerations)).unzip();
    for (name, given, made) in [("velocities", v, made_v), ("accelerations", a, made_a)] {
        let values = given.map(|columns| narrow(gathered(&columns))).or(made);
        file.slice::<f32>(name).copy_from_slice(&values.expect("given or made"));
    }
    let ones = |value: f32| vec![value; runs * bodies];
    file.slice::<f32>("masses").copy_from_slice(&mass.unwrap_or_else(|| ones(1.0)));
    file.slice::<f32>("charges").copy_from_slice(&charge.unwrap_or_else(|| ones(0.0)));
    file.finish()?;
    Ok(summary)
}
