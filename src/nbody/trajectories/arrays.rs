//! Trajectories from arrays: positions `[run, frame, body, dim]` or `[frame, body, dim]`. Bodies without positions in a
//! run (NaN) are not in it.

use std::path::Path;

use super::{Options, Run, Trajectories};
use crate::error::{Error, Result};
use crate::store::table::Array;

/// Accepted names of arrays, in lower case.
const POSITIONS: [&str; 8] =
    ["positions", "position", "pos", "x", "r", "coordinates", "coords", "xyz"];
const VELOCITIES: [&str; 5] = ["velocities", "velocity", "vel", "v", "velo"];
const ACCELERATIONS: [&str; 5] = ["accelerations", "acceleration", "acc", "a", "accel"];
const FORCES: [&str; 3] = ["forces", "force", "f"];
const TIMES: [&str; 3] = ["times", "time", "t"];
const MASSES: [&str; 3] = ["masses", "mass", "m"];
const CHARGES: [&str; 3] = ["charges", "charge", "q"];
/// Frames of each run, if shorter runs are padded.
const LENGTHS: [&str; 1] = ["lengths"];

/// The arrays of a file, and which of them have been used.
struct Arrays<'a> {
    path: &'a Path,
    all: &'a [Array],
    used: Vec<&'a str>,
}

impl<'a> Arrays<'a> {
    fn find(&mut self, names: &[&str]) -> Result<Option<&'a Array>> {
        let named = |name: &&str| self.all.iter().find(|a| a.name.eq_ignore_ascii_case(name));
        let Some(array) = names.iter().find_map(named) else { return Ok(None) };
        self.used.push(&array.name);
        if let Some(message) = &array.unreadable {
            let message = format!("{message}; save plain arrays of numbers");
            return Err(Error::input(message).file(self.path).field(&array.name));
        }
        Ok(Some(array))
    }

    /// An array of numbers only.
    fn finite(&mut self, names: &[&str]) -> Result<Option<&'a Array>> {
        let Some(array) = self.find(names)? else { return Ok(None) };
        let all = 0..array.values.len();
        gathered(self.path, array, all)?;
        Ok(Some(array))
    }

    /// An array of this shape (that of the positions), or without the first axis if there is one run.
    fn like(&mut self, names: &[&str], shape: &[usize]) -> Result<Option<&'a Array>> {
        let Some(array) = self.find(names)? else { return Ok(None) };
        match array.shape[..] == *shape || (shape[0] == 1 && array.shape[..] == shape[1..]) {
            true => Ok(Some(array)),
            false => Err(self.bad(array, &format!("{shape:?} is needed, as for the positions"))),
        }
    }

    fn bad(&self, array: &Array, needed: &str) -> Error {
        let message = format!("has shape {:?}; {needed}", array.shape);
        Error::input(message).file(self.path).field(&array.name)
    }
}

/// Reads the arrays as trajectories.
pub(super) fn trajectories(path: &Path, all: &[Array], options: &Options) -> Result<Trajectories> {
    let mut arrays = Arrays { path, all, used: Vec::new() };
    let mut notes = Vec::new();
    let Some(positions) = arrays.find(&POSITIONS)? else {
        let names: Vec<&str> = all.iter().map(|a| a.name.as_str()).collect();
        let message = format!(
            "has no array 'positions' [run, frame, body, dim] or [frame, body, dim]; it has {}",
            names.join(", ")
        );
        return Err(Error::input(message).file(path).field("positions"));
    };
    let shape = match positions.shape[..] {
        [runs, frames, bodies, dim] => [runs, frames, bodies, dim],
        [frames, bodies, dim] => [1, frames, bodies, dim],
        _ => {
            return Err(
                arrays.bad(positions, "[run, frame, body, dim] or [frame, body, dim] is needed")
            );
        }
    };
    let [runs, frames, bodies, dim] = shape;
    if !(1..=3).contains(&dim) || runs * frames * bodies == 0 {
        let needed = "[run, frame, body, dim] or [frame, body, dim] with dim 1, 2 or 3 is needed";
        return Err(arrays.bad(positions, needed));
    }
    let velocities = arrays.like(&VELOCITIES, &shape)?;
    let given = arrays.like(&ACCELERATIONS, &shape)?;
    let forces = if given.is_none() { arrays.like(&FORCES, &shape)? } else { None };
    let times = arrays.find(&TIMES)?;
    let own_times = match times {
        None => {
            notes.push(match options.time_step {
                Some(step) => format!("there are no times: frames are {step} apart"),
                None => {
                    "there are no times: frames are 1 apart (change this with --time-step)".into()
                }
            });
            false
        }
        Some(array) if array.shape[..] == [frames] => false,
        Some(array) if array.shape[..] == [runs, frames] => true,
        Some(array) => {
            return Err(arrays.bad(array, &format!("[{frames}] or [{runs}, {frames}] is needed")));
        }
    };
    let mut matter = |names: &[&str]| -> Result<Option<&Array>> {
        let Some(array) = arrays.find(names)? else { return Ok(None) };
        match array.shape[..] == [bodies] || array.shape[..] == [runs, bodies] {
            true => Ok(Some(array)),
            false => Err(arrays.bad(array, &format!("[{bodies}] or [{runs}, {bodies}] is needed"))),
        }
    };
    let (masses, charges) = (matter(&MASSES)?, matter(&CHARGES)?);
    let lengths = arrays.finite(&LENGTHS)?;
    if let Some(array) = lengths
        && (array.shape[..] != [runs]
            || array.values.iter().any(|n| !(*n >= 1.0 && *n <= frames as f64)))
    {
        return Err(
            arrays.bad(array, &format!("[{runs}] numbers of frames from 1 to {frames} are needed"))
        );
    }
    let unused: Vec<&str> =
        all.iter().map(|a| a.name.as_str()).filter(|name| !arrays.used.contains(name)).collect();
    if !unused.is_empty() {
        notes.push(format!("not used: {}", unused.join(", ")));
    }
    if forces.is_some() {
        let by = if masses.is_some() { "the masses" } else { "masses of 1" };
        notes.push(format!("accelerations are the forces over {by}"));
    }
    notes.extend(axis_order_warning(&positions.values, shape));
    let run = |run: usize| -> Result<(Run, usize)> {
        let length = lengths.map_or(frames, |array| array.values[run] as usize);
        let first = |frame: usize, body: usize| ((run * frames + frame) * bodies + body) * dim;
        let missing = |frame: usize, body: usize| {
            positions.values[first(frame, body)..][..dim].iter().all(|x| x.is_nan())
        };
        let there: Vec<usize> =
            (0..bodies).filter(|&body| (0..length).any(|frame| !missing(frame, body))).collect();
        let whole = |frame: &usize| there.iter().all(|&body| !missing(*frame, body));
        let kept: Vec<usize> = (0..length).filter(whole).collect();
        if kept.is_empty() {
            let message = format!("run {run} has no frame in which all of its bodies are present");
            return Err(Error::input(message).file(path).field(&positions.name));
        }
        let part = |array: &Array| {
            let at = kept.iter().flat_map(|&frame| there.iter().map(move |&b| first(frame, b)));
            gathered(path, array, at.flat_map(|at| at..at + dim))
        };
        let of_bodies = |array: &Array| {
            let first = if array.shape.len() == 1 { 0 } else { run * bodies };
            gathered(path, array, there.iter().map(|body| first + body))
        };
        let times: Vec<f64> = match times {
            Some(array) => {
                let first = if own_times { run * frames } else { 0 };
                gathered(path, array, kept.iter().map(|frame| first + frame))?
            }
            None => kept.iter().map(|&frame| frame as f64).collect(),
        };
        if times.windows(2).any(|pair| pair[1] <= pair[0]) {
            let message = format!("must increase from frame to frame; those of run {run} do not");
            return Err(Error::input(message).file(path).field("times"));
        }
        let masses = masses.map(of_bodies).transpose()?;
        let over_mass = |array: &Array| {
            let mut forces = part(array)?;
            for (at, force) in forces.iter_mut().enumerate() {
                *force /= masses.as_ref().map_or(1.0, |masses| masses[at / dim % there.len()]);
            }
            Ok(forces)
        };
        let accelerations = given.map(part).or_else(|| forces.map(over_mass)).transpose()?;
        let read = Run {
            name: run.to_string(),
            times,
            bodies: there.iter().map(|b| b.to_string()).collect(),
            positions: part(positions)?,
            velocities: velocities.map(part).transpose()?,
            accelerations,
            charges: charges.map(of_bodies).transpose()?,
            masses,
        };
        // Frames without any body are padding.
        let partial =
            |frame: &usize| !whole(frame) && there.iter().any(|&body| !missing(*frame, body));
        Ok((read, (0..length).filter(partial).count()))
    };
    let all = (0..runs).map(run).collect::<Result<Vec<_>>>()?;
    let partial: usize = all.iter().map(|(_, partial)| partial).sum();
    let runs: Vec<Run> = all.into_iter().map(|(run, _)| run).collect();
    if partial > 0 {
        let all = partial + runs.iter().map(Run::frames).sum::<usize>();
        notes.push(format!("{partial} of {all} frames lack a body and are left out"));
    }
    let undivided = given.is_none() && forces.is_some() && masses.is_none();
    let path = path.to_path_buf();
    Ok(Trajectories { path, dim, runs, notes, undivided, ..Trajectories::default() })
}

/// These elements of an array, which must be numbers.
fn gathered(path: &Path, array: &Array, at: impl Iterator<Item = usize>) -> Result<Vec<f64>> {
    let number = |at: usize| match array.values[at] {
        value if value.is_finite() => Ok(value),
        value => {
            let message = format!("{value} at element {at} where a number is needed");
            Err(Error::input(message).file(path).field(&array.name))
        }
    };
    at.map(number).collect()
}

/// A warning if positions change more smoothly from run to run than from frame to frame: the axes may be
/// in another order.
fn axis_order_warning(
    positions: &[f64],
    [runs, frames, bodies, dim]: [usize; 4],
) -> Option<String> {
    let size = bodies * dim;
    let step = |from: usize, to: usize| -> f64 {
        let pairs = positions[from * size..][..size].iter().zip(&positions[to * size..][..size]);
        pairs.map(|(a, b)| (a - b) * (a - b)).filter(|square| !square.is_nan()).sum()
    };
    if runs < 3 || frames < 3 {
        return None;
    }
    let (mut along_runs, mut along_frames) = (0.0, 0.0);
    for run in 0..runs - 1 {
        for frame in 0..frames - 1 {
            let at = run * frames + frame;
            along_frames += step(at, at + 1);
            along_runs += step(at, at + frames);
        }
    }
    (along_runs < 0.1 * along_frames).then(|| {
        "warning: positions change far less along their first axis than along their second: [run, frame, body, dim] \
         is needed, and this may be [frame, run, body, dim]"
            .into()
    })
}
