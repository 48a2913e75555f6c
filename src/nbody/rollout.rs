//! Roll-outs: the equations of motion integrated with predicted accelerations (of a network or a
//! formula) from initial states of a data set, next to the truth.
//!
//! They are stored in `rollout.safetensors`: `times [frame] f64`, `truth [run, frame, body, dim] f32`
//! and one tensor of the same shape for each prediction, under its name. After a run has left all
//! bounds, its predicted frames are NaN.

use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::dataset::Dataset;
use super::scale::nearest;
use crate::error::{Error, Result};
use crate::model::layout::BodyLayout;
use crate::observer::Observer;
use crate::store::tensors::{Dtype, TensorFile, TensorSpec, TensorWriter};

/// A run is given up once it is this many times farther from the origin than the truth ever gets.
const BOUND: f64 = 1e3;

/// A run has diverged when the rms error of its positions exceeds this fraction of the rms distance
/// of its bodies from their mean position (in the truth, over all frames).
pub const DIVERGED: f64 = 0.1;

/// A few runs of a data set: the truth and the predictions.
pub struct Rollouts {
    /// The runs, the numbers of frames, bodies and dimensions, the names of the predictions.
    pub about: About,
    /// `[frame]`.
    pub times: Vec<f64>,
    /// True positions `[run, frame, body, dim]`.
    pub truth: Vec<f32>,
    /// Predicted positions, one entry for each name in `about.predictions`, of the same shape as the truth.
    pub positions: Vec<Vec<f32>>,
}

/// The `lawsmith` entry of a roll-out file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct About {
    /// The runs of the data set that were integrated.
    pub runs: Vec<usize>,
    /// Frames of each, the initial state included.
    pub frames: usize,
    /// Bodies of each.
    pub bodies: usize,
    /// Dimensions of space.
    pub dim: usize,
    /// Names of the predictions: `network`, `formula`.
    pub predictions: Vec<String>,
    /// Origin of the positions, in the user's units.
    #[serde(default)]
    pub origin: [f64; 3],
    /// Edges of a periodic box, 0 for none.
    #[serde(default, rename = "box")]
    pub period: [f64; 3],
}

/// How far a prediction is from the truth.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Errors {
    /// Median over runs and bodies of the distance from the truth, `[frame]`; a run that was given
    /// up counts as infinitely far.
    pub median: Vec<f64>,
    /// For each run the time at which it diverged (see [`DIVERGED`]); `None` if it did not.
    pub diverged: Vec<Option<f64>>,
}

impl Rollouts {
    /// The truth alone: frames `0..frames` of the first `most` of `runs`, stopping at the first gap in time. Runs whose
    /// times or number of bodies differ from those of the first run are left out.
    pub fn new(data: &Dataset, runs: &[usize], most: usize, frames: usize) -> Result<Self> {
        let about = &data.about;
        if let Some(run) = runs.iter().find(|&&run| run >= about.runs) {
            let message = format!("run {run} does not exist: the data set has {} runs", about.runs);
            return Err(Error::usage(message).file(data.path()));
        }
        let steps = |run: usize| data.times_of(run).iter().map(move |t| t - data.times_of(run)[0]);
        let step = |run: usize| steps(run).nth(1).unwrap_or(0.0);
        let first = runs.first().copied().unwrap_or(0);
        let alike = |run: &usize| {
            let near = |(a, b): (f64, f64)| (a - b).abs() <= 1e-3 * step(first);
            data.unbroken(*run) > 1
                && data.bodies(*run) == data.bodies(first)
                && steps(*run).zip(steps(first)).all(near)
        };
        let runs: Vec<usize> = runs.iter().copied().filter(alike).take(most).collect();
        let shortest = runs.iter().map(|&run| data.unbroken(run)).min().unwrap_or(0);
        let frames = frames.min(shortest);
        if frames < 2 {
            return Err(Error::usage("at least 2 frames are needed").file(data.path()));
        }
        let bodies = data.bodies(runs[0]);
        let (stride, there) = (about.bodies * about.dim, bodies * about.dim);
        let mut truth = Vec::with_capacity(runs.len() * frames * there);
        for run in &runs {
            let positions = data.positions()[run * about.frames * stride..].chunks(stride);
            positions.take(frames).for_each(|frame| truth.extend_from_slice(&frame[..there]));
        }
        let times = data.times_of(runs[0])[..frames].to_vec();
        let about = About {
            runs,
            frames,
            bodies,
            dim: about.dim,
            predictions: Vec::new(),
            origin: data.about.units().origin,
            period: data.about.periods(),
        };
        Ok(Rollouts { about, times, truth, positions: Vec::new() })
    }

    /// Integrates all runs at once with `accelerate` and stores the trajectories under `name`.
    ///
    /// `accelerate` takes features `[runs, bodies, n_features]` (r, v, q, m) and returns
    /// accelerations `[runs, bodies, dim]`. Classical Runge–Kutta, `substeps` steps per frame.
    pub fn predict(
        &mut self,
        name: &str,
        data: &Dataset,
        substeps: usize,
        observer: &dyn Observer,
        mut accelerate: impl FnMut(&[f32]) -> Result<Vec<f32>>,
    ) -> Result<()> {
        let About { runs, frames, bodies, dim, .. } = &self.about;
        let (frames, dim, stride) = (*frames, *dim, bodies * dim);
        let mut features = Vec::new();
        for &run in runs {
            data.features(run, 0, &mut features);
        }
        let mut state = State::new(&features, dim);
        let reach = self.truth.iter().fold(1.0f64, |far, &x| far.max(f64::from(x.abs())));
        let mut lost = vec![false; runs.len()];
        let mut positions = vec![f32::NAN; self.truth.len()];
        for frame in 0..frames {
            for (run, lost) in lost.iter_mut().enumerate() {
                let now = &state.position[run * stride..][..stride];
                *lost |= !now.iter().all(|x| x.abs() < BOUND * reach);
                if *lost {
                    // Any finite state will do: it is no longer used.
                    state.reset(run * stride..(run + 1) * stride);
                } else {
                    let out = &mut positions[(run * frames + frame) * stride..][..stride];
                    out.iter_mut().zip(now).for_each(|(out, x)| *out = *x as f32);
                }
            }
            if frame + 1 < frames {
                let dt = (self.times[frame + 1] - self.times[frame]) / substeps as f64;
                for _ in 0..substeps {
                    state.rk4(dt, &mut features, dim, &mut accelerate)?;
                }
            }
            if observer.stop() {
                return Err(Error::interrupted("stopped during the rollout; nothing was written"));
            }
        }
        self.about.predictions.push(name.to_string());
        self.positions.push(positions);
        Ok(())
    }

    /// Converts times and positions from the units of `data` to the user's; positions stay relative to the origin.
    pub fn to_users_units(&mut self, data: &Dataset) {
        let scale = data.about.units();
        if scale.is_none() {
            return;
        }
        self.times.iter_mut().for_each(|t| *t *= scale.time);
        self.about.period.iter_mut().for_each(|l| *l *= scale.length);
        for x in self.truth.iter_mut().chain(self.positions.iter_mut().flatten()) {
            *x = (f64::from(*x) * scale.length) as f32;
        }
    }

    /// How far prediction number `index` is from the truth.
    pub fn errors(&self, index: usize) -> Errors {
        let About { runs, frames, bodies, dim, .. } = &self.about;
        let (frames, bodies, dim) = (*frames, *bodies, *dim);
        let (truth, positions) = (&self.truth, &self.positions[index]);
        let period = self.about.period;
        let along =
            |(axis, (a, b)): (usize, (&f32, &f32))| nearest(f64::from(a - b), period[axis]).powi(2);
        // [run, frame, body]
        let distances: Vec<f64> = truth
            .chunks(dim)
            .zip(positions.chunks(dim))
            .map(|(a, b)| {
                let square: f64 = a.iter().zip(b).enumerate().map(along).sum();
                if square.is_nan() { f64::INFINITY } else { square.sqrt() }
            })
            .collect();
        let median = (0..frames)
            .map(|frame| {
                let run = |run: usize| &distances[(run * frames + frame) * bodies..][..bodies];
                let mut all: Vec<f64> = (0..runs.len()).flat_map(run).copied().collect();
                all.sort_by(f64::total_cmp);
                all[all.len() / 2]
            })
            .collect();
        let diverged = (0..runs.len())
            .map(|run| {
                let size = extent(
                    &truth[run * frames * bodies * dim..][..frames * bodies * dim],
                    dim,
                    bodies,
                );
                (0..frames).find_map(|frame| {
                    let now = &distances[(run * frames + frame) * bodies..][..bodies];
                    let rms = (now.iter().map(|d| d * d).sum::<f64>() / bodies as f64).sqrt();
                    (rms > DIVERGED * size).then(|| self.times[frame])
                })
            })
            .collect();
        Errors { median, diverged }
    }

    /// Writes the roll-out file.
    pub fn save(&self, path: &Path) -> Result<()> {
        let About { runs, frames, bodies, dim, predictions, .. } = &self.about;
        let shape = [runs.len(), *frames, *bodies, *dim];
        let mut specs =
            vec![TensorSpec::f64("times", &[*frames]), TensorSpec::f32("truth", &shape)];
        specs.extend(predictions.iter().map(|name| TensorSpec::f32(name, &shape)));
        let entry = serde_json::to_value(&self.about).expect("the entry is plain data");
        let mut writer = TensorWriter::create(path, "rollout", entry, &specs)?;
        writer.slice::<f64>("times").copy_from_slice(&self.times);
        writer.slice::<f32>("truth").copy_from_slice(&self.truth);
        for (name, positions) in predictions.iter().zip(&self.positions) {
            writer.slice::<f32>(name).copy_from_slice(positions);
        }
        writer.finish()
    }

    /// Reads a roll-out file.
    pub fn open(path: &Path) -> Result<Self> {
        let file = TensorFile::open(path, "rollout")?;
        let about: About = file.entry()?;
        let shape = [about.runs.len(), about.frames, about.bodies, about.dim];
        let (times, found) = file.tensor::<f64>("times", Dtype::F64)?;
        if found != [about.frames] || about.frames == 0 || about.runs.is_empty() {
            let message = format!("has shape {found:?}; [{}] is needed", about.frames);
            return Err(Error::input(message).file(path).field("times"));
        }
        let truth = file.f32("truth", &shape)?.to_vec();
        let positions = about
            .predictions
            .iter()
            .map(|name| Ok(file.f32(name, &shape)?.to_vec()))
            .collect::<Result<_>>()?;
        Ok(Rollouts { times: times.to_vec(), truth, positions, about })
    }
}

/// Rms distance of the bodies from their mean position; positions `[frame, body, dim]`.
fn extent(positions: &[f32], dim: usize, bodies: usize) -> f64 {
    let mut square = 0.0;
    for frame in positions.chunks(bodies * dim) {
        for axis in 0..dim {
            let along = || frame[axis..].iter().step_by(dim).map(|&x| f64::from(x));
            let mean = along().sum::<f64>() / bodies as f64;
            square += along().map(|x| (x - mean).powi(2)).sum::<f64>();
        }
    }
    (square * dim as f64 / positions.len() as f64).sqrt()
}

/// Positions and velocities `[run, body, dim]` of all runs.
struct State {
    position: Vec<f64>,
    velocity: Vec<f64>,
}

impl State {
    /// From features `[run, body, n_features]`.
    fn new(features: &[f32], dim: usize) -> Self {
        let layout = BodyLayout { dim };
        let part = |of: Range<usize>| {
            let body = |f: &[f32]| f[of.clone()].to_vec();
            features.chunks(layout.width()).flat_map(body).map(f64::from).collect()
        };
        State { position: part(layout.position()), velocity: part(layout.velocity()) }
    }

    fn reset(&mut self, range: Range<usize>) {
        for (k, index) in range.enumerate() {
            self.position[index] = k as f64;
            self.velocity[index] = 0.0;
        }
    }

    /// The state after `dt` at a constant rate of change.
    fn moved(&self, dt: f64, rate: &State) -> State {
        let add = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a + dt * b).collect();
        State {
            position: add(&self.position, &rate.position),
            velocity: add(&self.velocity, &rate.velocity),
        }
    }

    /// The rate of change of this state. `features` keeps charges and masses.
    fn rate(
        &self,
        features: &mut [f32],
        dim: usize,
        accelerate: &mut impl FnMut(&[f32]) -> Result<Vec<f32>>,
    ) -> Result<State> {
        let bodies = self.position.chunks(dim).zip(self.velocity.chunks(dim));
        for (feature, (r, v)) in features.chunks_mut(BodyLayout { dim }.width()).zip(bodies) {
            for (out, x) in feature.iter_mut().zip(r.iter().chain(v)) {
                *out = *x as f32;
            }
        }
        let acceleration = accelerate(features)?;
        Ok(State {
            position: self.velocity.clone(),
            velocity: acceleration.into_iter().map(f64::from).collect(),
        })
    }

    /// One classical Runge–Kutta step.
    fn rk4(
        &mut self,
        dt: f64,
        features: &mut [f32],
        dim: usize,
        accelerate: &mut impl FnMut(&[f32]) -> Result<Vec<f32>>,
    ) -> Result<()> {
        let k1 = self.rate(features, dim, accelerate)?;
        let k2 = self.moved(dt / 2.0, &k1).rate(features, dim, accelerate)?;
        let k3 = self.moved(dt / 2.0, &k2).rate(features, dim, accelerate)?;
        let k4 = self.moved(dt, &k3).rate(features, dim, accelerate)?;
        for (k, weight) in [(&k1, 1.0), (&k2, 2.0), (&k3, 2.0), (&k4, 1.0)] {
            *self = self.moved(dt * weight / 6.0, k);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two bodies on unit springs to the origin: r = r0 cos t + v0 sin t.
    fn oscillators(path: &Path, frames: usize) -> Dataset {
        let about = super::super::dataset::About {
            runs: 2,
            frames,
            bodies: 2,
            dim: 2,
            law: None,
            origin: serde_json::json!("test"),
            seed: 0,
            scale: Some(crate::nbody::scale::Scale::NONE),
            period: None,
        };
        let mut writer = about.create(path).unwrap();
        let start = |k: usize| (0.3 + k as f64, 0.7 - 0.2 * k as f64);
        for frame in 0..frames {
            let t = 0.1 * frame as f64;
            writer.slice::<f64>("times")[frame] = t;
            for run in 0..2 {
                for k in 0..4 {
                    let (r, v) = start(run * 4 + k);
                    let at = (run * frames + frame) * 4 + k;
                    let x = r * t.cos() + v * t.sin();
                    writer.slice::<f32>("positions")[at] = x as f32;
                    writer.slice::<f32>("velocities")[at] = (v * t.cos() - r * t.sin()) as f32;
                    writer.slice::<f32>("accelerations")[at] = -x as f32;
                }
            }
        }
        writer.slice::<f32>("masses").fill(2.0);
        writer.slice::<f32>("charges").fill(-1.0);
        writer.finish().unwrap();
        Dataset::open(path).unwrap()
    }

    fn spring(features: &[f32]) -> Result<Vec<f32>> {
        assert!(features.chunks(6).all(|f| f[4] == -1.0 && f[5] == 2.0), "charge and mass stay");
        Ok(features.chunks(6).flat_map(|f| [-f[0], -f[1]]).collect())
    }

    #[test]
    fn true_accelerations_give_the_true_trajectories() {
        let folder = tempfile::tempdir().unwrap();
        let data = oscillators(&folder.path().join("data.safetensors"), 50);
        let mut rollouts = Rollouts::new(&data, &[1, 0], 9, 40).unwrap();
        rollouts.predict("network", &data, 2, &(), spring).unwrap();
        let errors = rollouts.errors(0);
        assert_eq!(errors.median.len(), 40);
        assert!(errors.median.iter().all(|&e| e < 1e-5), "{:?}", errors.median);
        assert_eq!(errors.diverged, [None, None]);
        let path = folder.path().join("rollout.safetensors");
        rollouts.save(&path).unwrap();
        let again = Rollouts::open(&path).unwrap();
        assert_eq!((again.truth, again.positions), (rollouts.truth, rollouts.positions));
        assert_eq!(again.about.runs, [1, 0]);
    }

    #[test]
    fn wrong_accelerations_diverge_and_infinite_ones_are_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let data = oscillators(&folder.path().join("data.safetensors"), 50);
        let mut rollouts = Rollouts::new(&data, &[0, 1], 9, 50).unwrap();
        let push = |f: &[f32]| Ok(f.chunks(6).flat_map(|f| [-1.5 * f[0], -1.5 * f[1]]).collect());
        rollouts.predict("weak", &data, 1, &(), push).unwrap();
        let errors = rollouts.errors(0);
        assert!(errors.diverged.iter().all(|t| t.is_some_and(|t| t > 0.0)), "{errors:?}");
        // The first run only; the second must not be affected.
        let burst = |f: &[f32]| {
            let mut a = spring(f)?;
            a[0] = f32::INFINITY;
            Ok(a)
        };
        rollouts.predict("burst", &data, 1, &(), burst).unwrap();
        let errors = rollouts.errors(1);
        assert_eq!(errors.diverged[1], None);
        assert!(errors.diverged[0].is_some());
        assert!(rollouts.positions[1][4].is_nan(), "frame 1 of run 0");
        assert!(Rollouts::new(&data, &[2], 9, 50).is_err());
        assert!(Rollouts::new(&data, &[0], 9, 1).is_err());
    }
}
