//! The dataset file: trajectories of many runs of one system, memory-mapped.
//!
//! `positions [run, frame, body, dim] f32`, `velocities`, `accelerations` (same shape),
//! `masses [run, body] f32`, `charges [run, body] f32`, `times [frame] f64`.
//!
//! Where runs have their own clocks or lengths, `times [run, frame] f64` and `lengths [run] u32`: the frames
//! of a run from its length on repeat its first, so that whoever draws frames draws real ones.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::law::Law;
use crate::model::layout::BodyLayout;
use crate::ops::tiny::source::{Graphs, States};
use crate::store::tensors::{Dtype, TensorFile, TensorSpec, TensorWriter};

/// The `lawsmith` entry of a dataset: every parameter that made it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct About {
    /// Number of runs (independent initial states).
    pub runs: usize,
    /// Frames of the longest run; frame 0 is the initial state.
    pub frames: usize,
    /// Bodies of each run.
    pub bodies: usize,
    /// Dimensions of space: 2 or 3.
    pub dim: usize,
    /// The law that made it; `None` where it is not known (imported data).
    #[serde(default)]
    pub law: Option<Law>,
    /// How it was made: integrator and tolerances, or the imported file and the fit of derivatives.
    #[serde(default)]
    pub origin: serde_json::Value,
    /// Seed of the initial states.
    #[serde(default)]
    pub seed: u64,
}

impl About {
    /// What is where among the features of a body.
    pub fn layout(&self) -> BodyLayout {
        BodyLayout { dim: self.dim }
    }

    /// Features of a body.
    pub fn n_features(&self) -> usize {
        self.layout().width()
    }

    /// Elements of `positions`.
    pub fn len(&self) -> usize {
        self.runs * self.frames * self.bodies * self.dim
    }

    /// True where there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tensors of the file.
    fn specs(&self) -> [TensorSpec; 6] {
        let frames = [self.runs, self.frames, self.bodies, self.dim];
        [
            TensorSpec::f32("positions", &frames),
            TensorSpec::f32("velocities", &frames),
            TensorSpec::f32("accelerations", &frames),
            TensorSpec::f32(
                "masses",
                &frames[..1].iter().chain(&[self.bodies]).copied().collect::<Vec<_>>(),
            ),
            TensorSpec::f32("charges", &[self.runs, self.bodies]),
            TensorSpec::f64("times", &[self.frames]),
        ]
    }

    /// Starts a dataset file; fill its six tensors, then call `finish`.
    pub fn create(&self, path: &Path) -> Result<TensorWriter> {
        let entry = serde_json::to_value(self).expect("the entry is plain data");
        TensorWriter::create(path, "dataset", entry, &self.specs())
    }

    /// The same for runs with their own clocks and lengths: `times` is `[run, frame]`, and there are
    /// `lengths`, seven tensors.
    pub fn create_with_clocks(&self, path: &Path) -> Result<TensorWriter> {
        let entry = serde_json::to_value(self).expect("the entry is plain data");
        let mut specs: Vec<TensorSpec> = self.specs().into();
        specs.retain(|spec| spec.name != "times");
        specs.push(TensorSpec::f64("times", &[self.runs, self.frames]));
        specs.push(TensorSpec::u32("lengths", &[self.runs]));
        TensorWriter::create(path, "dataset", entry, &specs)
    }
}

/// The entry of a file, its sizes filled in from the shape of the positions.
fn about(file: &TensorFile) -> Result<About> {
    let mut entry: serde_json::Value = file.entry()?;
    let (_, shape) = file.tensor::<f32>("positions", Dtype::F32)?;
    if let &[runs, frames, bodies, dim] = shape
        && let Some(entry) = entry.as_object_mut()
    {
        let sizes = [("runs", runs), ("frames", frames), ("bodies", bodies), ("dim", dim)];
        for (name, size) in sizes {
            entry.entry(name).or_insert_with(|| size.into());
        }
    }
    serde_json::from_value(entry).map_err(|e| {
        let message = format!("has metadata that cannot be read: {e}");
        Error::input(message).file(file.path()).field("lawsmith")
    })
}

/// The ranges of frames without a gap: a step that is much longer than usual ends one. At least one.
pub(super) fn segments(times: &[f64]) -> Vec<Range<usize>> {
    let limit = longest_step(times);
    let mut segments = Vec::new();
    let mut first = 0;
    for at in 1..=times.len() {
        if at == times.len() || times[at] - times[at - 1] > limit {
            segments.push(first..at);
            first = at;
        }
    }
    segments
}

/// The longest step that is no gap: 1.5 times the usual one where the clock is regular, more where it is not.
fn longest_step(times: &[f64]) -> f64 {
    let mut steps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    if steps.is_empty() {
        return f64::INFINITY;
    }
    steps.sort_by(f64::total_cmp);
    let usual = steps[steps.len() / 2];
    let regular = steps.iter().filter(|&&step| (step / usual - 1.0).abs() < 0.2).count();
    if 4 * regular >= 3 * steps.len() { 1.5 * usual } else { 4.0 * steps[steps.len() * 9 / 10] }
}

/// A dataset, mapped for reading.
pub struct Dataset {
    /// Its parameters.
    pub about: About,
    file: TensorFile,
}

impl Dataset {
    /// Maps a dataset and checks shapes and that every value is finite.
    ///
    /// Of the entry only `kind` and `version` are needed: the shapes say the rest.
    pub fn open(path: &Path) -> Result<Self> {
        let file = TensorFile::open(path, "dataset")?;
        let about = about(&file)?;
        let About { runs, frames, .. } = about;
        for spec in about.specs() {
            if spec.name == "times" {
                let (times, shape) = file.tensor::<f64>("times", Dtype::F64)?;
                let error = |message| Error::input(message).file(path).field("times");
                if shape != [frames] && shape != [runs, frames] {
                    let message =
                        format!("has shape {shape:?}; [{frames}] or [{runs}, {frames}] is needed");
                    return Err(error(message));
                }
                if let Some(bad) = times.iter().find(|t| !t.is_finite()) {
                    return Err(error(format!("{bad} where a number is needed")));
                }
                continue;
            }
            let values = file.f32(&spec.name, &spec.shape)?;
            if let Some(index) = values.iter().position(|v| !v.is_finite()) {
                let run = index / spec.shape[1..].iter().product::<usize>();
                let message = format!("{} in run {run} where a number is needed", values[index]);
                return Err(Error::input(message).file(path).field(spec.name));
            }
        }
        if file.has("lengths") {
            let (lengths, shape) = file.tensor::<u32>("lengths", Dtype::U32)?;
            let there = |n: &u32| (1..=frames).contains(&(*n as usize));
            if shape != [runs] || !lengths.iter().all(there) {
                let message = format!("[{runs}] numbers from 1 to {frames} are needed");
                return Err(Error::input(message).file(path).field("lengths"));
            }
        }
        if about.bodies < 2 {
            return Err(Error::input("has fewer than two bodies: nothing interacts").file(path));
        }
        if about.is_empty() {
            return Err(Error::input("contains no frames").file(path));
        }
        Ok(Dataset { about, file })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Where it is, from any working folder: what run folders remember.
    pub fn absolute_path(&self) -> PathBuf {
        std::path::absolute(self.path()).unwrap_or_else(|_| self.path().to_path_buf())
    }

    fn frames_of(&self, name: &str) -> &[f32] {
        self.file.tensor(name, Dtype::F32).expect("checked in open").0
    }

    /// `[run, frame, body, dim]`.
    pub fn positions(&self) -> &[f32] {
        self.frames_of("positions")
    }

    /// `[run, frame, body, dim]`.
    pub fn velocities(&self) -> &[f32] {
        self.frames_of("velocities")
    }

    /// `[run, frame, body, dim]`.
    pub fn accelerations(&self) -> &[f32] {
        self.frames_of("accelerations")
    }

    /// `[run, body]`.
    pub fn masses(&self) -> &[f32] {
        self.frames_of("masses")
    }

    /// `[run, body]`.
    pub fn charges(&self) -> &[f32] {
        self.frames_of("charges")
    }

    /// The times of the first run, `[frame]`: those of all where runs have no clocks of their own.
    pub fn times(&self) -> &[f64] {
        self.times_of(0)
    }

    /// The times of a run, `[length]`.
    pub fn times_of(&self, run: usize) -> &[f64] {
        let (times, shape) = self.file.tensor("times", Dtype::F64).expect("checked in open");
        let first = if shape.len() == 1 { 0 } else { run * self.about.frames };
        &times[first..first + self.length(run)]
    }

    /// Frames of a run; the file repeats them where it has more.
    pub fn length(&self, run: usize) -> usize {
        match self.file.tensor::<u32>("lengths", Dtype::U32) {
            Ok((lengths, _)) => lengths[run] as usize,
            Err(_) => self.about.frames,
        }
    }

    /// Frames of a run before its first gap in time.
    pub fn unbroken(&self, run: usize) -> usize {
        segments(self.times_of(run))[0].len()
    }

    /// The states, to draw graphs from.
    pub fn states(&self) -> States<'_> {
        let About { frames, bodies, dim, .. } = self.about;
        States {
            positions: self.positions(),
            velocities: self.velocities(),
            accelerations: self.accelerations(),
            masses: self.masses(),
            charges: self.charges(),
            frames,
            bodies,
            dim,
        }
    }

    /// The features `[body, n_features]` (r, v, q, m) of one frame, appended to `out`.
    pub fn features(&self, run: usize, frame: usize, out: &mut Vec<f32>) {
        let mut graph = Graphs::default();
        self.states().push(run, frame, &mut graph);
        out.extend(graph.features);
    }

    /// The accelerations `[body, dim]` of one frame.
    pub fn targets(&self, run: usize, frame: usize) -> &[f32] {
        let About { frames, bodies, dim, .. } = self.about;
        let at = (run * frames + frame) * bodies * dim;
        &self.accelerations()[at..at + bodies * dim]
    }
}
