//! Data sets from the trajectories of others.
//!
//! Reading (`trajectories/`), then the fit of what is missing (`derive.rs`), then the file (`dataset.rs`). What
//! is missing is made (velocities and accelerations by a local polynomial, masses 1, charges 0), and the
//! summary says so.

use std::path::Path;

use serde::Serialize;

use super::dataset::About;
use super::derive::{ErrorBar, Settings, check, compare, fill};
use super::trajectories::{Options, Run, Trajectories};
use crate::error::{Error, Result};

/// What an import found and made.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Number of runs.
    pub runs: usize,
    /// Frames of the longest run.
    pub frames: usize,
    /// Frames of the shortest run.
    pub fewest_frames: usize,
    /// Bodies of each run.
    pub bodies: usize,
    /// Dimensions of space.
    pub dim: usize,
    /// What the file lacked and was made: velocities, accelerations, mass, charge.
    pub made: Vec<&'static str>,
    /// Frames that a fit was made to.
    pub window: Option<usize>,
    /// Standard deviation of the noise in the positions, where a fit was made.
    pub position_noise: Option<f64>,
    /// Where accelerations were made.
    pub acceleration_error: Option<ErrorBar>,
    /// What was guessed, used, left out or looks wrong, a sentence each.
    pub notes: Vec<String>,
}

/// Reads the file at `from` and writes a dataset at `to`; on an error there is no file.
///
/// # Errors
/// Those of [`Trajectories::read`], of [`fill`] and of [`write`].
pub fn import(from: &Path, to: &Path, options: &Options, settings: Settings) -> Result<Summary> {
    check(settings)?;
    let mut read = Trajectories::read(from, options)?;
    let lacks = |of: fn(&Run) -> bool, what| read.runs.iter().any(of).then_some(what);
    let made: Vec<&'static str> = [
        lacks(|run| run.velocities.is_none(), "velocities"),
        lacks(|run| run.accelerations.is_none(), "accelerations"),
        lacks(|run| run.masses.is_none(), "mass"),
        lacks(|run| run.charges.is_none(), "charge"),
    ]
    .into_iter()
    .flatten()
    .collect();
    compare(&mut read);
    let fitted = fill(&mut read, settings)?;
    let summary = Summary {
        runs: read.runs.len(),
        frames: read.runs.iter().map(Run::frames).max().unwrap_or(0),
        fewest_frames: read.runs.iter().map(Run::frames).min().unwrap_or(0),
        bodies: read.runs[0].bodies.len(),
        dim: read.dim,
        window: fitted.as_ref().map(|fit| fit.window),
        position_noise: fitted.as_ref().map(|fit| fit.position_noise),
        acceleration_error: fitted
            .as_ref()
            .filter(|_| made.contains(&"accelerations"))
            .map(|fit| fit.error),
        made,
        notes: read.notes.clone(),
    };
    let origin = serde_json::json!({
        "imported": from,
        "made": summary.made,
        "fit": fitted.as_ref().map(|fit| serde_json::json!({ "order": settings.order, "window": fit.window })),
        "position_noise": summary.position_noise,
        "acceleration_error": summary.acceleration_error,
        "units": read.units.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        "notes": summary.notes,
    });
    write(&read, origin, to)?;
    Ok(summary)
}

/// Writes complete trajectories as a dataset.
///
/// The file is rectangular: runs that are shorter than the longest repeat their frames from the first on, and
/// `lengths` says how many each really has.
///
/// # Errors
/// A number that f32 does not hold; a file that cannot be written.
pub fn write(read: &Trajectories, origin: serde_json::Value, to: &Path) -> Result<()> {
    let Trajectories { dim, runs, .. } = read;
    let (dim, bodies) = (*dim, runs[0].bodies.len());
    let frames = runs.iter().map(Run::frames).max().unwrap_or(0);
    let about = About { runs: runs.len(), frames, bodies, dim, law: None, origin, seed: 0 };
    let same_clock = runs.iter().all(|run| same_times(&run.times, &runs[0].times));
    let mut file = if same_clock { about.create(to)? } else { about.create_with_clocks(to)? };
    if same_clock {
        file.slice::<f64>("times").copy_from_slice(&runs[0].times);
    } else {
        let times = file.slice::<f64>("times").chunks_mut(frames);
        times.zip(runs).for_each(|(out, run)| repeat(&run.times, out, |t| t));
        let lengths = file.slice::<u32>("lengths").iter_mut();
        lengths.zip(runs).for_each(|(out, run)| *out = run.frames() as u32);
    }
    let tensors: [(&str, fn(&Run) -> &Vec<f64>); 3] = [
        ("positions", |run| &run.positions),
        ("velocities", |run| run.velocities.as_ref().expect("given or made")),
        ("accelerations", |run| run.accelerations.as_ref().expect("given or made")),
    ];
    let single = |name: &'static str, run: &Run, values: &[f64]| -> Result<()> {
        match values.iter().find(|v| v.abs() > f64::from(f32::MAX)) {
            Some(large) => {
                let message = format!("{large} in run {} is too large for the file", run.name);
                Err(Error::input(message).file(&read.path).field(name))
            }
            None => Ok(()),
        }
    };
    for (name, of) in tensors {
        runs.iter().try_for_each(|run| single(name, run, of(run)))?;
        let out = file.slice::<f32>(name).chunks_mut(frames * bodies * dim);
        out.zip(runs).for_each(|(out, run)| repeat(of(run), out, |v| v as f32));
    }
    let matter: [(&str, f64, fn(&Run) -> &Option<Vec<f64>>); 2] =
        [("masses", 1.0, |run| &run.masses), ("charges", 0.0, |run| &run.charges)];
    for (name, otherwise, of) in matter {
        for (run, out) in runs.iter().zip(file.slice::<f32>(name).chunks_mut(bodies)) {
            match of(run) {
                Some(values) => {
                    single(name, run, values)?;
                    repeat(values, out, |v| v as f32);
                }
                None => out.fill(otherwise as f32),
            }
        }
    }
    file.finish()
}

/// Fills `out` with the values, again from the first where they end.
fn repeat<T>(values: &[f64], out: &mut [T], cast: impl Fn(f64) -> T) {
    out.iter_mut().zip(values.iter().cycle()).for_each(|(out, value)| *out = cast(*value));
}

/// True where two clocks differ by rounding only.
fn same_times(a: &[f64], b: &[f64]) -> bool {
    let step = match b {
        [first, .., last] => (last - first) / (b.len() - 1) as f64,
        _ => 0.0,
    };
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-3 * step || a == b)
}
