//! The dataset file: trajectories of many runs of one system, memory-mapped.
//!
//! `positions [run, frame, body, dim] f32`, `velocities`, `accelerations` (same shape),
//! `masses [run, body] f32`, `charges [run, body] f32`, `times [frame] f64`.

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

/// A dataset, mapped for reading.
pub struct Dataset {
    /// Its parameters.
    pub about: About,
    file: TensorFile,
}

impl Dataset {
    /// Maps a dataset and checks shapes and that every value is finite.
    pub fn open(path: &Path) -> Result<Self> {
        let file = TensorFile::open(path, "dataset")?;
        let about: About = file.entry()?;
        for spec in about.specs() {
            if spec.name == "times" {
                file.tensor::<f64>("times", Dtype::F64)?;
                continue;
            }
            let values = file.f32(&spec.name, &spec.shape)?;
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

    /// `[frame]`.
    pub fn times(&self) -> &[f64] {
        self.file.tensor("times", Dtype::F64).expect("checked in open").0
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
