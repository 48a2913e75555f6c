//! Data sets: trajectories of many runs of one system, in memory or in a memory-mapped file.
//!
//! `positions [run, frame, body, dim] f32`, `velocities`, `accelerations` (same shape),
//! `masses [run, body] f32`, `charges [run, body] f32`, `times [frame] f64`. A value in the user's units is
//! origin + unit · stored value if the file has a [`Scale`], otherwise the stored value.
//!
//! If runs have their own times, lengths or numbers of bodies: `times [run, frame] f64`, `lengths [run] u32` and
//! `counts [run] u32`. Beyond its length a run repeats its frames from the first on, so that random draws only ever see
//! real frames; beyond its number of bodies a frame repeats its first body, and nothing draws these.

mod prepare;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::scale::Scale;
use crate::error::{Error, Result};
use crate::law::Law;
use crate::model::layout::BodyLayout;
use crate::ops::tiny::source::{Graphs, States};
use crate::store::tensors::{Dtype, TensorFile, TensorSpec, TensorWriter};

/// The `lawsmith` entry of a data set: every parameter that made it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct About {
    /// Number of runs (independent initial states).
    pub runs: usize,
    /// Frames of the longest run; frame 0 is the initial state.
    pub frames: usize,
    /// Bodies of the largest run.
    pub bodies: usize,
    /// Dimensions of space: 2 or 3.
    pub dim: usize,
    /// The law that made it; `None` if it is not known (imported data).
    #[serde(default)]
    pub law: Option<Law>,
    /// How it was made: integrator and tolerances, or the imported file and the fit of derivatives.
    #[serde(default)]
    pub origin: serde_json::Value,
    /// Seed of the initial states.
    #[serde(default)]
    pub seed: u64,
    /// Units of the stored values; `None` if they are the user's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<Scale>,
    /// Edges of a periodic box, one for each axis, as stored values; 0 for an open axis.
    #[serde(default, rename = "box", skip_serializing_if = "Option::is_none")]
    pub period: Option<Vec<f64>>,
}

/// The units in which a data set is opened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Units {
    /// The stored units if it was simulated or stored with a scale, otherwise natural units, derived from the
    /// data.
    Natural,
    /// The user's units.
    Users,
    /// The given units.
    Of(Scale),
    /// The units of the file, with a single run not split: for inspection.
    Stored,
}

impl About {
    /// The layout of the features of a body.
    pub fn layout(&self) -> BodyLayout {
        BodyLayout { dim: self.dim }
    }

    /// Number of features of a body.
    pub fn n_features(&self) -> usize {
        self.layout().width()
    }

    /// Number of elements of `positions`.
    pub fn len(&self) -> usize {
        self.runs * self.frames * self.bodies * self.dim
    }

    /// Edges of the periodic box as stored values; 0 for an open axis.
    pub fn periods(&self) -> [f64; 3] {
        let edges = self.period.as_deref().unwrap_or_default();
        std::array::from_fn(|axis| edges.get(axis).copied().unwrap_or(0.0))
    }

    /// The units of the stored values, in the user's units.
    pub fn units(&self) -> Scale {
        self.scale.unwrap_or(Scale::NONE)
    }

    /// True if it holds no data.
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

    /// Creates a data-set file; fill its six tensors, then call `finish`.
    pub fn create(&self, path: &Path) -> Result<TensorWriter> {
        let entry = serde_json::to_value(self).expect("the entry is plain data");
        TensorWriter::create(path, "dataset", entry, &self.specs())
    }

    /// The same for runs with their own times, lengths and numbers of bodies: `times` is `[run, frame]`, `lengths` and
    /// `counts` are two more tensors.
    pub fn create_ragged(&self, path: &Path) -> Result<TensorWriter> {
        let entry = serde_json::to_value(self).expect("the entry is plain data");
        let mut specs: Vec<TensorSpec> = self.specs().into();
        specs.retain(|spec| spec.name != "times");
        specs.push(TensorSpec::f64("times", &[self.runs, self.frames]));
        specs.push(TensorSpec::u32("lengths", &[self.runs]));
        specs.push(TensorSpec::u32("counts", &[self.runs]));
        TensorWriter::create(path, "dataset", entry, &specs)
    }
}

/// The `lawsmith` entry of a file; missing sizes are taken from the shape of the positions.
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

/// The ranges of frames without a gap; a step much longer than usual ends a range. There is at least one.
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

/// The longest step that is not a gap: 1.5 times the usual one if the steps are regular, more if they are not.
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

/// The arrays of a data set in memory.
#[derive(Clone, Debug, Default)]
pub struct Arrays {
    /// `[run, frame, body, dim]`
    pub positions: Vec<f32>,
    /// `[run, frame, body, dim]`
    pub velocities: Vec<f32>,
    /// `[run, frame, body, dim]`: what networks learn to predict.
    pub accelerations: Vec<f32>,
    /// `[run, body]`
    pub masses: Vec<f32>,
    /// `[run, body]`
    pub charges: Vec<f32>,
    /// `[frame]`, or `[run, frame]` if each run has its own.
    pub times: Vec<f64>,
    /// `[run]`: frames of each run; empty if all runs have the same number.
    pub lengths: Vec<u32>,
    /// `[run]`: bodies of each run; empty if all runs have the same number.
    pub counts: Vec<u32>,
}

impl Arrays {
    /// Zero-filled arrays for a data set of this size.
    pub(crate) fn zeros(about: &About) -> Self {
        let (frames, matter) = (vec![0.0; about.len()], vec![0.0; about.runs * about.bodies]);
        Arrays {
            positions: frames.clone(),
            velocities: frames.clone(),
            accelerations: frames,
            masses: matter.clone(),
            charges: matter,
            times: vec![0.0; about.frames],
            lengths: Vec::new(),
            counts: Vec::new(),
        }
    }
}

/// Where the numbers are stored.
enum Numbers {
    Mapped(TensorFile),
    Owned(Arrays),
}

/// The name of a data set without a file in error messages.
const IN_MEMORY: &str = "(data set in memory)";

/// A data set, in memory or mapped for reading. Clones share the data.
#[derive(Clone)]
pub struct Dataset {
    /// Its parameters.
    pub about: About,
    numbers: Arc<Numbers>,
    /// Its file; a placeholder for error messages if it was made in memory.
    path: PathBuf,
    /// True if the runs are blocks of a single run.
    blocks: bool,
}

impl Dataset {
    /// Maps a data set in [`Units::Natural`] and checks its shapes and that every value is finite.
    ///
    /// Only `kind` and `version` are required in the `lawsmith` entry: the shapes give the rest.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_in(path, Units::Natural)
    }

    /// The same in the given units.
    ///
    /// # Errors
    /// Also values that f32 cannot hold in these units.
    pub fn open_in(path: &Path, units: Units) -> Result<Self> {
        Self::map(path)?.prepared(units)
    }

    /// Maps a data set as it is stored.
    fn map(path: &Path) -> Result<Self> {
        let file = TensorFile::open(path, "dataset")?;
        let about = about(&file)?;
        let About { runs, frames, .. } = about;
        for spec in about.specs().iter().filter(|spec| spec.name != "times") {
            file.f32(&spec.name, &spec.shape)?;
        }
        let (_, shape) = file.tensor::<f64>("times", Dtype::F64)?;
        if shape != [frames] && shape != [runs, frames] {
            let message =
                format!("has shape {shape:?}; [{frames}] or [{runs}, {frames}] is needed");
            return Err(Error::input(message).file(path).field("times"));
        }
        for name in ["lengths", "counts"].into_iter().filter(|name| file.has(name)) {
            let (_, shape) = file.tensor::<u32>(name, Dtype::U32)?;
            if shape != [runs] {
                let message = format!("has shape {shape:?}; [{runs}] is needed");
                return Err(Error::input(message).file(path).field(name));
            }
        }
        let numbers = Arc::new(Numbers::Mapped(file));
        let data = Dataset { about, numbers, path: path.to_path_buf(), blocks: false };
        data.check()?;
        Ok(data)
    }

    /// A data set from arrays in memory, in [`Units::Natural`].
    ///
    /// # Errors
    /// An array whose length does not match its shape in `about`, or that contains NaN or infinity; fewer than two
    /// bodies; no frames.
    ///
    /// ```
    /// use lawsmith::nbody::dataset::{About, Arrays, Dataset};
    ///
    /// // Two bodies on a line that pull at each other, one run of three frames, in two dimensions.
    /// let about = About {
    ///     runs: 1,
    ///     frames: 3,
    ///     bodies: 2,
    ///     dim: 2,
    ///     law: None,
    ///     origin: "measured".into(),
    ///     seed: 0,
    ///     scale: None,
    ///     period: None,
    /// };
    /// let arrays = Arrays {
    ///     positions: vec![-1.0, 0.0, 1.0, 0.0, -0.9, 0.0, 0.9, 0.0, -0.6, 0.0, 0.6, 0.0],
    ///     velocities: vec![0.0, 0.0, 0.0, 0.0, 0.2, 0.0, -0.2, 0.0, 0.4, 0.0, -0.4, 0.0],
    ///     accelerations: [0.2, 0.0, -0.2, 0.0].repeat(3),
    ///     masses: vec![1.0; 2],
    ///     charges: vec![0.0; 2],
    ///     times: vec![0.0, 1.0, 2.0],
    ///     lengths: vec![],
    ///     counts: vec![],
    /// };
    /// let data = Dataset::new(about, arrays)?;
    /// // Accelerations are near 1 in natural units, which record the conversion to yours.
    /// assert_eq!(data.targets(0, 2), [0.8, 0.0, -0.8, 0.0]);
    /// assert_eq!(data.about.units().acceleration(), 0.25);
    /// # Ok::<(), lawsmith::error::Error>(())
    /// ```
    pub fn new(about: About, arrays: Arrays) -> Result<Self> {
        Self::new_in(about, arrays, Units::Natural)
    }

    /// The same in the given units.
    ///
    /// # Errors
    /// Also values that f32 cannot hold in these units.
    pub fn new_in(about: About, arrays: Arrays, units: Units) -> Result<Self> {
        let Arrays { positions, velocities, accelerations, masses, charges, .. } = &arrays;
        let Arrays { times, lengths, counts, .. } = &arrays;
        let found = [positions, velocities, accelerations, masses, charges].map(Vec::len);
        let wrong = |name: &str, found: usize, shape: &[usize]| {
            let message = format!("has {found} numbers, which do not fill its shape {shape:?}");
            Err(Error::input(message).file(IN_MEMORY).field(name))
        };
        for (spec, found) in about.specs().iter().zip(found) {
            if found != spec.shape.iter().product::<usize>() {
                return wrong(&spec.name, found, &spec.shape);
            }
        }
        let About { runs, frames, .. } = about;
        if times.len() != frames && times.len() != runs * frames {
            return wrong("times", times.len(), &[frames]);
        }
        for (name, values) in [("lengths", lengths), ("counts", counts)] {
            if !values.is_empty() && values.len() != runs {
                return wrong(name, values.len(), &[runs]);
            }
        }
        let numbers = Arc::new(Numbers::Owned(arrays));
        let data = Dataset { about, numbers, path: IN_MEMORY.into(), blocks: false };
        data.check()?;
        data.prepared(units)
    }

    /// Checks that every value is finite and that there are enough bodies and frames.
    fn check(&self) -> Result<()> {
        let (about, path) = (&self.about, self.path());
        if let Some(bad) = self.clocks().iter().find(|t| !t.is_finite()) {
            let message = format!("{bad} where a number is needed");
            return Err(Error::input(message).file(path).field("times"));
        }
        for spec in about.specs().iter().filter(|spec| spec.name != "times") {
            let values = self.frames_of(&spec.name);
            if let Some(index) = values.iter().position(|v| !v.is_finite()) {
                let run = index / spec.shape[1..].iter().product::<usize>();
                let message = format!("{} in run {run} where a number is needed", values[index]);
                return Err(Error::input(message).file(path).field(&spec.name));
            }
        }
        if about.bodies < 2 {
            return Err(Error::input("has fewer than two bodies: nothing interacts").file(path));
        }
        for (name, least, most) in [("lengths", 1, about.frames), ("counts", 2, about.bodies)] {
            let there = |n: &u32| (least..=most).contains(&(*n as usize));
            if let Some(bad) = self.of_runs(name).iter().flat_map(|l| l.iter()).find(|n| !there(n))
            {
                let message = format!("{bad} where a number from {least} to {most} is needed");
                return Err(Error::input(message).file(path).field(name));
            }
        }
        if about.is_empty() {
            return Err(Error::input("contains no frames").file(path));
        }
        if let Some(edges) = &about.period
            && (edges.len() != about.dim || edges.iter().any(|l| !l.is_finite() || *l < 0.0))
        {
            let message = format!("is {edges:?}; {} edges, each 0 or more, are needed", about.dim);
            return Err(Error::input(message).file(path).field("box"));
        }
        Ok(())
    }

    /// True if the runs are blocks of a single run.
    pub fn in_blocks(&self) -> bool {
        self.blocks
    }

    /// Writes the data set to a file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let (times, lengths, counts) = (self.clocks(), self.lengths(), self.counts());
        let own = lengths.is_some() || counts.is_some() || times.len() != self.about.frames;
        let mut file = match own {
            true => self.about.create_ragged(path)?,
            false => self.about.create(path)?,
        };
        for spec in self.about.specs().iter().filter(|spec| spec.name != "times") {
            file.slice::<f32>(&spec.name).copy_from_slice(self.frames_of(&spec.name));
        }
        if own {
            let Self { about: About { runs, frames, bodies, .. }, .. } = *self;
            for (name, values, most) in [("lengths", lengths, frames), ("counts", counts, bodies)] {
                let all = vec![most as u32; runs];
                file.slice::<u32>(name).copy_from_slice(values.unwrap_or(&all));
            }
            let times = if times.len() == frames { times.repeat(runs) } else { times.to_vec() };
            file.slice::<f64>("times").copy_from_slice(&times);
        } else {
            file.slice::<f64>("times").copy_from_slice(times);
        }
        file.finish()
    }

    /// Its file; a placeholder for error messages if it was made in memory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The absolute path of its file, as stored in run folders.
    pub fn absolute_path(&self) -> PathBuf {
        match self.path == Path::new(IN_MEMORY) {
            true => IN_MEMORY.into(),
            false => std::path::absolute(&self.path).unwrap_or_else(|_| self.path.clone()),
        }
    }

    fn frames_of(&self, name: &str) -> &[f32] {
        match (&*self.numbers, name) {
            (Numbers::Mapped(file), _) => file.tensor(name, Dtype::F32).expect("checked in open").0,
            (Numbers::Owned(arrays), "positions") => &arrays.positions,
            (Numbers::Owned(arrays), "velocities") => &arrays.velocities,
            (Numbers::Owned(arrays), "accelerations") => &arrays.accelerations,
            (Numbers::Owned(arrays), "masses") => &arrays.masses,
            (Numbers::Owned(arrays), _) => &arrays.charges,
        }
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

    /// The times of the first run, `[frame]`: those of all runs, unless each has its own.
    pub fn times(&self) -> &[f64] {
        self.times_of(0)
    }

    /// All times: `[frame]`, or `[run, frame]` if each run has its own.
    fn clocks(&self) -> &[f64] {
        match &*self.numbers {
            Numbers::Mapped(file) => file.tensor("times", Dtype::F64).expect("checked in open").0,
            Numbers::Owned(arrays) => &arrays.times,
        }
    }

    /// The times of a run, `[length]`.
    pub fn times_of(&self, run: usize) -> &[f64] {
        let (times, frames) = (self.clocks(), self.about.frames);
        let first = if times.len() == frames { 0 } else { run * frames };
        &times[first..first + self.length(run)]
    }

    /// Frames of each run, `[run]`; `None` if all have the same number.
    fn lengths(&self) -> Option<&[u32]> {
        self.of_runs("lengths")
    }

    /// Bodies of each run, `[run]`; `None` if all have the same number.
    pub fn counts(&self) -> Option<&[u32]> {
        self.of_runs("counts")
    }

    /// The values of `lengths` or `counts`, if there are any.
    fn of_runs(&self, name: &str) -> Option<&[u32]> {
        match &*self.numbers {
            Numbers::Mapped(file) if file.has(name) => {
                Some(file.tensor(name, Dtype::U32).expect("checked in open").0)
            }
            Numbers::Mapped(_) => None,
            Numbers::Owned(Arrays { lengths, counts, .. }) => {
                let values = if name == "lengths" { lengths } else { counts };
                Some(&**values).filter(|values| !values.is_empty())
            }
        }
    }

    /// Bodies of a run.
    pub fn bodies(&self, run: usize) -> usize {
        self.counts().map_or(self.about.bodies, |counts| counts[run] as usize)
    }

    /// True if runs have different numbers of bodies.
    pub fn is_ragged(&self) -> bool {
        self.counts().is_some_and(|counts| counts.iter().any(|n| *n as usize != self.about.bodies))
    }

    /// The values of every frame, `[body, dim]` of the bodies that are there, of values `[run, frame, body, dim]`.
    pub fn frames<'a>(&'a self, values: &'a [f32]) -> impl Iterator<Item = &'a [f32]> {
        let About { frames, bodies, dim, .. } = self.about;
        let of_frame = values.chunks_exact(bodies * dim).enumerate();
        of_frame.map(move |(at, frame)| &frame[..self.bodies(at / frames) * dim])
    }

    /// Frames of a run; the arrays repeat them if they hold more.
    pub fn length(&self, run: usize) -> usize {
        self.lengths().map_or(self.about.frames, |lengths| lengths[run] as usize)
    }

    /// Frames of a run before its first gap in time.
    pub fn unbroken(&self, run: usize) -> usize {
        segments(self.times_of(run))[0].len()
    }

    /// The states from which graphs are drawn.
    pub fn states(&self) -> States<'_> {
        let About { frames, bodies, dim, .. } = self.about;
        States {
            positions: self.positions(),
            velocities: self.velocities(),
            accelerations: self.accelerations(),
            masses: self.masses(),
            charges: self.charges(),
            counts: self.counts(),
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

    /// The position of a frame in its run as a fraction from 0 to 1; for blocks of a single run, in the whole run.
    pub fn moment(&self, run: usize, frame: usize) -> f64 {
        let (at, frames) = match self.blocks {
            true => (run * self.about.frames + frame, self.about.runs * self.about.frames),
            false => (frame, self.about.frames),
        };
        at as f64 / frames as f64
    }

    /// The accelerations `[body, dim]` of one frame.
    pub fn targets(&self, run: usize, frame: usize) -> &[f32] {
        let About { frames, bodies, dim, .. } = self.about;
        let at = (run * frames + frame) * bodies * dim;
        &self.accelerations()[at..at + self.bodies(run) * dim]
    }
}

#[cfg(test)]
mod tests;
