//! Data sets from trajectories that lawsmith did not simulate.
//!
//! The trajectories are read (`trajectories/`), missing values are filled in (`derive.rs`), and the file is written
//! (`dataset/`). Missing velocities and accelerations come from local polynomials, missing masses are 1 or inferred from
//! the motion (`masses/`), missing charges 0; the summary lists what was filled in.

use std::ops::RangeInclusive;
use std::path::Path;

use serde::Serialize;

use super::dataset::About;
use super::derive::{ErrorBar, Settings, check, compare, fill};
use super::masses::{self, Inferred, percent};
use super::periodic::{self, Jumps};
use super::scale::{Sample, Scale};
use super::trajectories::{Options, Run, Trajectories};
use crate::error::{Error, Result};

/// What an import read and filled in.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Number of runs.
    pub runs: usize,
    /// Frames of the longest run.
    pub frames: usize,
    /// Frames of the shortest run.
    pub fewest_frames: usize,
    /// Bodies of the largest run.
    pub bodies: usize,
    /// Bodies of the smallest run.
    pub fewest_bodies: usize,
    /// Dimensions of space.
    pub dim: usize,
    /// What the file lacked and was filled in: velocities, accelerations, mass, charge.
    pub made: Vec<&'static str>,
    /// Frames in the window of a fit, if one was made.
    pub window: Option<usize>,
    /// Standard deviation of the noise in the positions, if a fit was made.
    pub position_noise: Option<f64>,
    /// Errors of the accelerations, if they were fitted.
    pub acceleration_error: Option<ErrorBar>,
    /// Masses and charges inferred from the motion.
    pub inferred: Option<Inferred>,
    /// What was guessed, used or left out, and what looks wrong; one sentence each.
    pub notes: Vec<String>,
}

/// Reads the file at `from` and writes a data set to `to`; after an error there is no file. Missing masses are inferred
/// if `infer_masses`.
///
/// # Errors
/// Those of [`Trajectories::read`], of [`fill`] and of [`write`]; masses that are to be inferred and are in the file, or
/// cannot be.
pub fn import(
    from: &Path,
    to: &Path,
    options: &Options,
    settings: Settings,
    infer_masses: bool,
) -> Result<Summary> {
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
    unwrap_paths(&mut read);
    compare(&mut read);
    let fitted = fill(&mut read, settings)?;
    let derived = fitted.as_ref().filter(|_| made.contains(&"accelerations"));
    let noise = derived.map_or(0.0, |fit| fit.error.median);
    let inferred = match made.contains(&"mass") {
        true => inferred(&mut read, noise, infer_masses)?,
        false if infer_masses => {
            let message = "masses cannot be inferred: they are in the file";
            return Err(Error::usage(message).file(from).field("infer-masses"));
        }
        false => None,
    };
    let summary = Summary {
        runs: read.runs.len(),
        frames: read.runs.iter().map(Run::frames).max().unwrap_or(0),
        fewest_frames: read.runs.iter().map(Run::frames).min().unwrap_or(0),
        bodies: most_bodies(&read),
        fewest_bodies: read.runs.iter().map(|run| run.bodies.len()).min().unwrap_or(0),
        dim: read.dim,
        window: fitted.as_ref().map(|fit| fit.window),
        position_noise: fitted.as_ref().map(|fit| fit.position_noise),
        acceleration_error: derived.map(|fit| fit.error),
        inferred,
        made,
        notes: read.notes.clone(),
    };
    let origin = serde_json::json!({
        "imported": from,
        "made": summary.made,
        "fit": fitted.as_ref().map(|fit| serde_json::json!({ "order": settings.order, "window": fit.window })),
        "position_noise": summary.position_noise,
        "acceleration_error": summary.acceleration_error,
        "inferred": summary.inferred,
        "units": read.units.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        "notes": summary.notes,
    });
    write(&read, origin, to)?;
    Ok(summary)
}

/// Different masses are noted if they leave less than this fraction of what equal ones leave unexplained.
const CLEARLY: f64 = 0.3;

/// Takes masses, and charges, from the motion if they are `wanted`; otherwise notes that this can be done.
fn inferred(read: &mut Trajectories, noise: f64, wanted: bool) -> Result<Option<Inferred>> {
    if wanted {
        let why = match read.undivided {
            true => Err("the file gives forces, which do not tell masses"),
            false => masses::infer(read, noise),
        };
        let found = why.map_err(|why| {
            let message = format!("masses cannot be inferred: {why}");
            Error::input(message).file(&read.path).field("infer-masses")
        })?;
        read.notes.push(found.note());
        found.give(&mut read.runs);
        return Ok(Some(found));
    }
    if !read.undivided
        && let Some([equal, own]) = masses::differ(read, noise)
        && own < CLEARLY * equal
    {
        let [equal, own] = [equal, own].map(percent);
        read.notes.push(format!(
            "all masses are 1, but the bodies differ: a pair force leaves {equal} of the accelerations unexplained with \
             equal masses, {own} with different ones; --infer-masses finds them"
        ));
    }
    Ok(None)
}

/// Unwraps the paths in a periodic box, so that fits see no jumps at its edges. Jumps that suggest another box are
/// noted.
fn unwrap_paths(read: &mut Trajectories) {
    let (dim, period) = (read.dim, read.period());
    let stride = |run: &Run| run.bodies.len() * dim;
    let runs = read.runs.iter().map(|run| (&run.positions[..], stride(run)));
    let found = periodic::jumps(runs, dim);
    for Jumps { axis, count, length } in found {
        let (edge, axis) = (period[axis], ["x", "y", "z"][axis]);
        let jumps = format!(
            "bodies jump {count} times by about {length:.3} along {axis} from one frame to the next"
        );
        if edge == 0.0 {
            let hint = "if that is the edge of a periodic box, name it with --box";
            read.notes.push(format!("{jumps}: {hint}"));
        } else if (length - edge).abs() > WRONG_EDGE * edge {
            read.notes.push(format!("warning: {jumps}, but the box has an edge of {edge}"));
        }
    }
    if period != [0.0; 3] {
        read.runs.iter_mut().for_each(|run| {
            let stride = stride(run);
            periodic::unwrap(&mut run.positions, stride, dim, period);
        });
    }
}

/// Jumps across the edge of the box differ from its length by less than this fraction of it.
const WRONG_EDGE: f64 = 0.25;

/// Writes complete trajectories as a data set.
///
/// The file is in the user's units if f32 can hold all values, otherwise in natural units, with the scale in its
/// metadata.
///
/// The file is rectangular: runs shorter than the longest repeat their frames from the first on, and `lengths` holds
/// the true number of frames of each; frames with fewer bodies than the largest repeat their first body, and `counts`
/// holds the true number.
///
/// # Errors
/// A number that f32 cannot hold; a file that cannot be written.
pub fn write(read: &Trajectories, origin: serde_json::Value, to: &Path) -> Result<()> {
    let Trajectories { dim, runs, .. } = read;
    let (dim, bodies) = (*dim, most_bodies(read));
    let frames = runs.iter().map(Run::frames).max().unwrap_or(0);
    let period = read.period();
    let own = natural(read, period);
    let held = own.origin == [0.0; 3] && held(read);
    let scale = if held { Scale::NONE } else { own };
    let edges = || period[..dim].iter().map(|edge| edge / scale.length).collect();
    let about = About {
        runs: runs.len(),
        frames,
        bodies,
        dim,
        law: None,
        origin,
        seed: 0,
        scale: (!held).then_some(scale),
        period: (period != [0.0; 3]).then(edges),
    };
    let same = |run: &Run| run.bodies.len() == bodies && same_times(&run.times, &runs[0].times);
    let alike = runs.iter().all(same);
    let mut file = if alike { about.create(to)? } else { about.create_ragged(to)? };
    if alike {
        repeat(&runs[0].times, file.slice::<f64>("times"), |t| t / scale.time);
    } else {
        let times = file.slice::<f64>("times").chunks_mut(frames);
        times.zip(runs).for_each(|(out, run)| repeat(&run.times, out, |t| t / scale.time));
        let lengths = file.slice::<u32>("lengths").iter_mut();
        lengths.zip(runs).for_each(|(out, run)| *out = run.frames() as u32);
        let counts = file.slice::<u32>("counts").iter_mut();
        counts.zip(runs).for_each(|(out, run)| *out = run.bodies.len() as u32);
    }
    type Values = fn(&Run) -> &Vec<f64>;
    let tensors: [(&str, f64, Values); 3] = [
        ("positions", scale.length, |run| &run.positions),
        ("velocities", scale.velocity(), |run| run.velocities.as_ref().expect("given or made")),
        ("accelerations", scale.acceleration(), |run| {
            run.accelerations.as_ref().expect("given or made")
        }),
    ];
    // In natural units a number that f32 cannot hold is far larger than the others.
    let single = |name: &'static str, run: &Run, values: &[f64], unit: f64| -> Result<()> {
        match values.iter().find(|v| (*v / unit).abs() > f64::from(f32::MAX)) {
            Some(large) => {
                let message = format!(
                    "{large} in run {} is too large compared with the other values",
                    run.name
                );
                Err(Error::input(message).file(&read.path).field(name))
            }
            None => Ok(()),
        }
    };
    for (name, unit, of) in tensors {
        runs.iter().try_for_each(|run| single(name, run, of(run), unit))?;
        let out = file.slice::<f32>(name).chunks_mut(frames * bodies * dim);
        for (out, run) in out.zip(runs) {
            let origin = if name == "positions" { scale.origin } else { [0.0; 3] };
            let values = of(run).iter().enumerate();
            let stored: Vec<f64> =
                values.map(|(at, value)| (value - origin[at % dim]) / unit).collect();
            let stored = filled(&stored, run.bodies.len() * dim, bodies * dim, dim);
            repeat(&stored, out, |v| v as f32);
        }
    }
    type Given = fn(&Run) -> &Option<Vec<f64>>;
    let matter: [(&str, f64, f64, Given); 2] = [
        ("masses", 1.0, scale.mass, |run| &run.masses),
        ("charges", 0.0, scale.charge, |run| &run.charges),
    ];
    for (name, otherwise, unit, of) in matter {
        for (run, out) in runs.iter().zip(file.slice::<f32>(name).chunks_mut(bodies)) {
            match of(run) {
                Some(values) => {
                    single(name, run, values, unit)?;
                    let values = filled(values, values.len(), bodies, 1);
                    repeat(&values, out, |v| (v / unit) as f32);
                }
                None => out.fill((otherwise / unit) as f32),
            }
        }
    }
    file.finish()
}

/// True if f32 holds all numbers in the user's units at full precision.
fn held(read: &Trajectories) -> bool {
    let fits = |v: &f64| *v == 0.0 || !v.is_finite() || HELD.contains(&v.abs());
    read.runs.iter().all(|run| {
        let more = [&run.velocities, &run.accelerations, &run.masses, &run.charges];
        run.positions.iter().chain(more.into_iter().flatten().flatten()).all(fits)
    })
}

/// Sizes of numbers that f32 holds, with some room for products.
const HELD: RangeInclusive<f64> = 1e-30..=1e30;

/// Natural units of the data.
fn natural(read: &Trajectories, period: [f64; 3]) -> Scale {
    let all = |of: fn(&Run) -> Option<&Vec<f64>>| -> Vec<f64> {
        read.runs.iter().filter_map(of).flatten().copied().collect()
    };
    let bodies = most_bodies(read);
    // Bodies that are not there are not numbers, and left out.
    let positions = read.runs.iter().flat_map(|run| {
        let there = run.bodies.len() * read.dim;
        run.positions.chunks(there).flat_map(move |frame| {
            let missing = std::iter::repeat_n(f64::NAN, bodies * read.dim - there);
            frame.iter().copied().chain(missing)
        })
    });
    let positions: Vec<f64> = positions.collect();
    Scale::natural(&Sample {
        positions: &positions,
        accelerations: &all(|run| run.accelerations.as_ref()),
        masses: &all(|run| run.masses.as_ref()),
        charges: &all(|run| run.charges.as_ref()),
        bodies,
        dim: read.dim,
        period,
    })
}

/// Bodies of the largest run.
fn most_bodies(read: &Trajectories) -> usize {
    read.runs.iter().map(|run| run.bodies.len()).max().unwrap_or(0)
}

/// Rows of `width` values made as long as `most`, with their first `dim` values again and again.
fn filled(values: &[f64], width: usize, most: usize, dim: usize) -> Vec<f64> {
    let longer = |row: &[f64]| {
        let first = row[..dim].iter().cycle().take(most - width);
        row.iter().chain(first).copied().collect::<Vec<f64>>()
    };
    values.chunks_exact(width).flat_map(longer).collect()
}

/// Fills `out` with the values, cycling through them.
fn repeat<T>(values: &[f64], out: &mut [T], cast: impl Fn(f64) -> T) {
    out.iter_mut().zip(values.iter().cycle()).for_each(|(out, value)| *out = cast(*value));
}

/// True if two sequences of times differ only by rounding.
fn same_times(a: &[f64], b: &[f64]) -> bool {
    let step = match b {
        [first, .., last] => (last - first) / (b.len() - 1) as f64,
        _ => 0.0,
    };
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-3 * step || a == b)
}
