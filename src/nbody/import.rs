//! Data sets from the trajectories of others.
//!
//! Reading (`trajectories/`), then the fit of what is missing (`fit.rs`), then the file (`dataset.rs`). What
//! is missing is made (velocities and accelerations by a local polynomial, masses 1, charges 0), and the
//! summary says so.

use std::ops::{Range, RangeInclusive};
use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::dataset::About;
use super::fit::{Fit, dot};
use super::periodic::{self, Jumps};
use super::scale::{Sample, Scale};
use super::trajectories::{Options, Run, Trajectories};
use crate::error::{Error, Result};

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
    wrap(&mut read);
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
        "fit": fitted.is_some().then_some(settings),
        "position_noise": summary.position_noise,
        "acceleration_error": summary.acceleration_error,
        "units": read.units.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        "notes": summary.notes,
    });
    write(&read, origin, to)?;
    Ok(summary)
}

/// In a periodic box takes paths apart where they cross its edges, so that fits see no jumps; without one notes jumps
/// that look like those at the edges of a box.
fn wrap(read: &mut Trajectories) {
    let (dim, period) = (read.dim, read.period());
    let stride = |run: &Run| run.bodies.len() * dim;
    if period != [0.0; 3] {
        read.runs.iter_mut().for_each(|run| {
            let stride = stride(run);
            periodic::unwrap(&mut run.positions, stride, dim, period);
        });
        return;
    }
    let found: Vec<Jumps> = match read.runs.first() {
        Some(first) => {
            let runs = read.runs.iter().map(|run| &run.positions[..]);
            periodic::jumps(runs, stride(first), dim)
        }
        None => Vec::new(),
    };
    for Jumps { axis, count, length } in found {
        let axis = ["x", "y", "z"][axis];
        read.notes.push(format!(
            "bodies jump {count} times by about {length:.3} along {axis} from one frame to the next: if that is the \
             edge of a periodic box, name it with --box"
        ));
    }
}

/// An error where no fit could be made so.
fn check(settings: Settings) -> Result<()> {
    let Settings { order, window } = settings;
    if order < 2 {
        return Err(Error::usage("an acceleration needs at least order 2").field("order"));
    }
    if window < order + 2 {
        let message = format!("a fit of order {order} needs a window of at least {}", order + 2);
        return Err(Error::usage(message).field("window"));
    }
    Ok(())
}

/// What the fits left over.
pub struct Fitted {
    /// Frames that most polynomials were fitted to.
    pub window: usize,
    /// Standard deviation of the noise in the positions.
    pub position_noise: f64,
    /// Of the accelerations.
    pub error: ErrorBar,
}

/// Fits velocities and accelerations to the positions where they are missing. Frames between gaps that are
/// too close for a fit are left out.
///
/// # Errors
/// Where too few frames are left.
pub fn fill(read: &mut Trajectories, settings: Settings) -> Result<Option<Fitted>> {
    if read.runs.iter().all(|run| run.velocities.is_some() && run.accelerations.is_some()) {
        return Ok(None);
    }
    let needed = settings.order + 2;
    let mut short = 0;
    for run in &mut read.runs {
        let kept: Vec<Range<usize>> =
            run.segments().into_iter().filter(|segment| segment.len() >= needed).collect();
        let left: usize = kept.iter().map(Range::len).sum();
        short += run.frames() - left;
        if left < run.frames() {
            let size = run.positions.len() / run.frames();
            keep(run, &kept, size);
        }
    }
    let most = read.runs.iter().map(Run::frames).max().unwrap_or(0);
    if most == 0 {
        let message = format!(
            "there are too few times to fit velocities or accelerations of order {}: {needed} without a gap are \
             needed",
            settings.order
        );
        return Err(Error::input(message).file(&read.path).field("time"));
    }
    let all = read.runs.len();
    read.runs.retain(|run| run.frames() > 0);
    if short > 0 {
        let gone = match all - read.runs.len() {
            0 => String::new(),
            gone => format!(", {gone} runs with them"),
        };
        read.notes.push(format!(
            "{short} frames are left out{gone}: fewer than {needed} follow each other without a gap"
        ));
    }
    let gaps: usize = read.runs.iter().map(|run| run.segments().len() - 1).sum();
    if gaps > 0 {
        read.notes.push(format!("{gaps} gaps in time: no fit runs across one"));
    }
    let dim = read.dim;
    let fits: Vec<Derivatives> =
        read.runs.par_iter().map(|run| derivatives(run, dim, settings)).collect();
    let count: usize = fits.iter().map(|fit| fit.left.len()).sum();
    let mean = fits.iter().flat_map(|fit| &fit.left).sum::<f64>() / count as f64;
    let bar = |(left, noise): (&f64, &f64)| left.max(mean).sqrt() * noise;
    let mut bars: Vec<f64> =
        fits.iter().flat_map(|fit| fit.left.iter().zip(&fit.noise).map(bar)).collect();
    bars.sort_by(f64::total_cmp);
    for (run, fit) in read.runs.iter_mut().zip(fits) {
        run.velocities.get_or_insert(fit.velocities);
        run.accelerations.get_or_insert(fit.accelerations);
    }
    Ok(Some(Fitted {
        window: settings.window.min(most),
        position_noise: mean.sqrt(),
        error: ErrorBar { median: bars[bars.len() / 2], max: bars[bars.len() - 1] },
    }))
}

/// Leaves only these frames, each of `size` positions.
fn keep(run: &mut Run, frames: &[Range<usize>], size: usize) {
    let part = |values: &Vec<f64>, size: usize| -> Vec<f64> {
        frames.iter().flat_map(|f| values[f.start * size..f.end * size].to_vec()).collect()
    };
    run.positions = part(&run.positions, size);
    run.velocities = run.velocities.as_ref().map(|v| part(v, size));
    run.accelerations = run.accelerations.as_ref().map(|a| part(a, size));
    run.times = part(&run.times, 1);
}

/// What the fits make of the positions of a run.
struct Derivatives {
    velocities: Vec<f64>,
    accelerations: Vec<f64>,
    /// Mean square of what is left over, per degree of freedom, `[frame, body]`.
    left: Vec<f64>,
    /// Standard deviation of an acceleration for positions of standard deviation 1, `[frame, body]`.
    noise: Vec<f64>,
}

fn derivatives(run: &Run, dim: usize, settings: Settings) -> Derivatives {
    let stride = run.bodies.len() * dim;
    let mut made = Derivatives {
        velocities: vec![0.0; run.positions.len()],
        accelerations: vec![0.0; run.positions.len()],
        left: vec![0.0; run.positions.len() / dim],
        noise: vec![0.0; run.positions.len() / dim],
    };
    for segment in run.segments() {
        let window = settings.window.min(segment.len());
        let times = &run.times[segment.clone()];
        let mut inside = vec![0.0; window];
        for frame in segment.clone() {
            let fit = Fit::new(times, frame - segment.start, settings.order, window);
            let first = segment.start + fit.first;
            for c in 0..stride {
                for (i, value) in inside.iter_mut().enumerate() {
                    *value = run.positions[(first + i) * stride + c];
                }
                let at = frame * stride + c;
                made.velocities[at] = dot(&fit.velocity, &inside);
                made.accelerations[at] = dot(&fit.acceleration, &inside);
                made.left[at / dim] += fit.residual(&inside) / (fit.freedom() * dim) as f64;
                made.noise[at / dim] = fit.acceleration_noise();
            }
        }
    }
    made
}

/// Writes complete trajectories as a dataset.
///
/// The file is in the user's units where f32 holds them, else in natural ones with their scale beside them.
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
    let same_clock = runs.iter().all(|run| same_times(&run.times, &runs[0].times));
    let mut file = if same_clock { about.create(to)? } else { about.create_with_clocks(to)? };
    if same_clock {
        repeat(&runs[0].times, file.slice::<f64>("times"), |t| t / scale.time);
    } else {
        let times = file.slice::<f64>("times").chunks_mut(frames);
        times.zip(runs).for_each(|(out, run)| repeat(&run.times, out, |t| t / scale.time));
        let lengths = file.slice::<u32>("lengths").iter_mut();
        lengths.zip(runs).for_each(|(out, run)| *out = run.frames() as u32);
    }
    let tensors: [(&str, f64, fn(&Run) -> &Vec<f64>); 3] = [
        ("positions", scale.length, |run| &run.positions),
        ("velocities", scale.velocity(), |run| run.velocities.as_ref().expect("given or made")),
        ("accelerations", scale.acceleration(), |run| {
            run.accelerations.as_ref().expect("given or made")
        }),
    ];
    // In natural units a number is too large beside the others, whatever it is.
    let single = |name: &'static str, run: &Run, values: &[f64], unit: f64| -> Result<()> {
        match values.iter().find(|v| (*v / unit).abs() > f64::from(f32::MAX)) {
            Some(large) => {
                let message = format!("{large} in run {} is too large beside the others", run.name);
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
            repeat(&stored, out, |v| v as f32);
        }
    }
    let matter: [(&str, f64, f64, fn(&Run) -> &Option<Vec<f64>>); 2] = [
        ("masses", 1.0, scale.mass, |run| &run.masses),
        ("charges", 0.0, scale.charge, |run| &run.charges),
    ];
    for (name, otherwise, unit, of) in matter {
        for (run, out) in runs.iter().zip(file.slice::<f32>(name).chunks_mut(bodies)) {
            match of(run) {
                Some(values) => {
                    single(name, run, values, unit)?;
                    repeat(values, out, |v| (v / unit) as f32);
                }
                None => out.fill((otherwise / unit) as f32),
            }
        }
    }
    file.finish()
}

/// True where f32 holds all numbers in the user's units, with all digits that it has.
fn held(read: &Trajectories) -> bool {
    let fits = |v: &f64| *v == 0.0 || !v.is_finite() || HELD.contains(&v.abs());
    read.runs.iter().all(|run| {
        let more = [&run.velocities, &run.accelerations, &run.masses, &run.charges];
        run.positions.iter().chain(more.into_iter().flatten().flatten()).all(fits)
    })
}

/// Sizes of numbers that f32 holds and that may be multiplied a little.
const HELD: RangeInclusive<f64> = 1e-30..=1e30;

/// Units of the data's own.
fn natural(read: &Trajectories, period: [f64; 3]) -> Scale {
    let all = |of: fn(&Run) -> Option<&Vec<f64>>| -> Vec<f64> {
        read.runs.iter().filter_map(of).flatten().copied().collect()
    };
    Scale::natural(&Sample {
        positions: &all(|run| Some(&run.positions)),
        accelerations: &all(|run| run.accelerations.as_ref()),
        masses: &all(|run| run.masses.as_ref()),
        charges: &all(|run| run.charges.as_ref()),
        bodies: read.runs[0].bodies.len(),
        dim: read.dim,
        period,
    })
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
