//! Data sets: trajectories of many runs of one system, in memory or in a memory-mapped file.
//!
//! `positions [run, frame, body, dim] f32`, `velocities`, `accelerations` (same shape),
//! `masses [run, body] f32`, `charges [run, body] f32`, `times [frame] f64`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

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
    /// Frames of each run; frame 0 is the initial state.
    pub frames: usize,
    /// Bodies of each run.
    pub bodies: usize,
    /// Dimensions of space: 2 or 3.
    pub dim: usize,
    /// The law that made it; `None` where it is not known (imported data).
    pub law: Option<Law>,
    /// How it was made: integrator and tolerances, or the imported file and the fit of derivatives.
    pub origin: serde_json::Value,
    /// Seed of the initial states.
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
}

/// The numbers of a data set in memory.
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
    /// `[frame]`
    pub times: Vec<f64>,
}

impl Arrays {
    /// Room for a data set like this.
    pub(crate) fn room(about: &About) -> Self {
        let (frames, matter) = (vec![0.0; about.len()], vec![0.0; about.runs * about.bodies]);
        Arrays {
            positions: frames.clone(),
            velocities: frames.clone(),
            accelerations: frames,
            masses: matter.clone(),
            charges: matter,
            times: vec![0.0; about.frames],
        }
    }
}

/// Where the numbers are.
enum Numbers {
    Mapped(TensorFile),
    Owned(Arrays),
}

/// What errors call a data set that has no file.
const IN_MEMORY: &str = "(data set in memory)";

/// A data set, in memory or mapped for reading. Copies share the numbers.
#[derive(Clone)]
pub struct Dataset {
    /// Its parameters.
    pub about: About,
    numbers: Arc<Numbers>,
}

impl Dataset {
    /// Maps a dataset and checks shapes and that every value is finite.
    pub fn open(path: &Path) -> Result<Self> {
        let file = TensorFile::open(path, "dataset")?;
        let about: About = file.entry()?;
        for spec in about.specs() {
            match spec.name.as_str() {
                "times" => drop(file.tensor::<f64>("times", Dtype::F64)?),
                name => drop(file.f32(name, &spec.shape)?),
            }
        }
        let data = Dataset { about, numbers: Arc::new(Numbers::Mapped(file)) };
        data.check()?;
        Ok(data)
    }

    /// A data set of numbers in memory.
    ///
    /// # Errors
    /// An array whose length is not that of its shape in `about`, or that has a NaN or an infinity; fewer than two
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
    /// };
    /// let arrays = Arrays {
    ///     positions: vec![-1.0, 0.0, 1.0, 0.0, -0.9, 0.0, 0.9, 0.0, -0.6, 0.0, 0.6, 0.0],
    ///     velocities: vec![0.0, 0.0, 0.0, 0.0, 0.2, 0.0, -0.2, 0.0, 0.4, 0.0, -0.4, 0.0],
    ///     accelerations: [0.2, 0.0, -0.2, 0.0].repeat(3),
    ///     masses: vec![1.0; 2],
    ///     charges: vec![0.0; 2],
    ///     times: vec![0.0, 1.0, 2.0],
    /// };
    /// let data = Dataset::new(about, arrays)?;
    /// assert_eq!(data.targets(0, 2), [0.2, 0.0, -0.2, 0.0]);
    /// # Ok::<(), lawsmith::error::Error>(())
    /// ```
    pub fn new(about: About, arrays: Arrays) -> Result<Self> {
        let Arrays { positions, velocities, accelerations, masses, charges, times } = &arrays;
        let lengths = [positions, velocities, accelerations, masses, charges].map(Vec::len);
        for (spec, length) in about.specs().iter().zip(lengths.into_iter().chain([times.len()])) {
            if length != spec.shape.iter().product::<usize>() {
                let message = format!("has {length} numbers; its shape is {:?}", spec.shape);
                return Err(Error::input(message).file(IN_MEMORY).field(&spec.name));
            }
        }
        let data = Dataset { about, numbers: Arc::new(Numbers::Owned(arrays)) };
        data.check()?;
        Ok(data)
    }

    /// An error where a value is not finite, or there is too little.
    fn check(&self) -> Result<()> {
        let (about, path) = (&self.about, self.path());
        for spec in about.specs() {
            if spec.name == "times" {
                continue;
            }
            let values = self.frames_of(&spec.name);
            if let Some(index) = values.iter().position(|v| !v.is_finite()) {
                let run = index / spec.shape[1..].iter().product::<usize>();
                let message = format!("{} in run {run} where a number is needed", values[index]);
                return Err(Error::input(message).file(path).field(spec.name));
            }
        }
        if about.bodies < 2 {
            return Err(Error::input("has fewer than two bodies: nothing interacts").file(path));
        }
        if about.is_empty() {
            return Err(Error::input("contains no frames").file(path));
        }
        Ok(())
    }

    /// Writes it as a file.
    ///
    /// # Errors
    /// Those of writing.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut file = self.about.create(path)?;
        for spec in self.about.specs() {
            match spec.name.as_str() {
                "times" => file.slice::<f64>("times").copy_from_slice(self.times()),
                name => file.slice::<f32>(name).copy_from_slice(self.frames_of(name)),
            }
        }
        file.finish()
    }

    /// Where it is; a name for error messages where it is in memory.
    pub fn path(&self) -> &Path {
        match &*self.numbers {
            Numbers::Mapped(file) => file.path(),
            Numbers::Owned(_) => Path::new(IN_MEMORY),
        }
    }

    /// Where it is, from any working folder: what run folders remember.
    pub fn absolute_path(&self) -> PathBuf {
        match &*self.numbers {
            Numbers::Mapped(file) => std::path::absolute(file.path()),
            Numbers::Owned(_) => Ok(IN_MEMORY.into()),
        }
        .unwrap_or_else(|_| self.path().to_path_buf())
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

    /// `[frame]`.
    pub fn times(&self) -> &[f64] {
        match &*self.numbers {
            Numbers::Mapped(file) => file.tensor("times", Dtype::F64).expect("checked in open").0,
            Numbers::Owned(arrays) => &arrays.times,
        }
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
