//! What networks are trained on: a set of small graphs, or one large one. The trainer is written once, on top
//! of this.

use std::ops::Range;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize};

use super::batches;
use super::forward::Evaluation;
use super::model::{Model, TrainedOn};
use super::settings::{Preset, Settings};
use super::state::State;
use crate::device::Device;
use crate::error::Result;
use crate::model::{ModelKind, Shape};
use crate::observer::Observer;
use crate::ops::Training;
use crate::ops::tiny::Loss;
use crate::random::Random;

/// What networks are trained on: a set of small graphs, or one large one. Errors are too little
/// data, too little memory, and those of the operations.
pub trait System {
    /// The description of the system that is stored in a model.
    fn trained_on(&self) -> TrainedOn;

    /// The absolute path of its file.
    fn path(&self) -> PathBuf;

    /// The settings of a preset for this kind of model (`None`: the default kind).
    fn settings(&self, preset: Preset, model: Option<ModelKind>) -> Settings;

    /// The network before pruning.
    fn shape(&self, settings: &Settings) -> Shape;

    /// Its parameters at the start.
    fn initial(&self, shape: &Shape, seed: u64) -> Vec<f32> {
        uniform(shape, seed)
    }

    /// A loss of 1 in the user's units.
    fn unit(&self) -> f64 {
        1.0
    }

    /// Notes for the user on how the data are used, one sentence each.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    /// If there is nothing to learn: a sentence that says why, and the error of predicting zero.
    fn nothing_to_learn(&self) -> Option<(String, f64)> {
        None
    }

    /// The mean number of messages a node receives.
    fn mean_degree(&self) -> f64;

    /// Sets up trainings with these settings (equal except for the seed) on the device, after `done` steps: networks of
    /// one shape, `arenas` holds parameters and both moments, `[run, arena.len]` each.
    fn begin<'a>(
        &'a self,
        device: Device,
        settings: &[Settings],
        shape: Shape,
        arenas: [&[f32]; 3],
        done: u64,
    ) -> Result<Box<dyn Session + 'a>>;

    /// Checks for everything that can make new trainings fail, except divergence. Nothing is kept or written.
    fn check(&self, device: Device, settings: &[Settings]) -> Result<()> {
        let start = State::start(self, settings);
        self.begin(device, settings, start.shape, start.arenas(), 0).map(drop)
    }

    /// The loss of a trained network on data to which nothing was fitted, in the units of the training. Data made for
    /// the test are offered to the observer.
    fn test(&self, device: Device, model: &Model, observer: &dyn Observer) -> Result<Tested>;
}

/// Trainings under way on a device. Errors are those of the operations.
pub trait Session {
    /// The networks.
    fn training(&mut self) -> &mut dyn Training;

    /// Takes these steps of the optimizer with networks of this shape; returns the losses, `[step, run]`.
    fn advance(&mut self, shape: Shape, steps: Range<u64>) -> Result<Vec<Loss>>;

    /// Evaluates the network of a run on its validation data.
    fn evaluate(&mut self, run: usize, shape: &Shape, parameters: &[f32]) -> Result<Evaluation>;

    /// Edges passed forward and backward so far, over all runs.
    fn edges(&self) -> u64;
}

/// A loss with its jackknife error.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Measure {
    /// Mean over the nodes; infinite if a prediction is undefined.
    #[serde(deserialize_with = "or_infinite")]
    pub error: f64,
    /// Scatter of the mean when blocks of space are left out; infinite if all nodes are in one block.
    #[serde(deserialize_with = "or_infinite")]
    pub jackknife: f64,
}

impl Measure {
    /// A loss without a jackknife error.
    pub fn plain(error: f64) -> Self {
        Measure { error, jackknife: f64::INFINITY }
    }
}

/// JSON has no infinity: it is written as null.
fn or_infinite<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::INFINITY))
}

/// The loss on data to which nothing was fitted.
pub struct Tested {
    /// The loss.
    pub loss: f64,
    /// What the data are.
    pub data: String,
    /// The loss with its error, if there is one.
    pub test: Option<Measure>,
    /// The loss on nodes deliberately hidden from the training.
    pub hidden: Option<Measure>,
}

/// Initial parameters, uniform in ±1/√(width of the layer's input) as in PyTorch.
pub(crate) fn uniform(shape: &Shape, seed: u64) -> Vec<f32> {
    let arena = shape.arena();
    let mut parameters = vec![0.0; arena.len];
    let mut random = Random::new(seed, batches::INITIAL);
    for layer in arena.edge.iter().chain(&arena.node) {
        let bound = 1.0 / (layer.inputs as f64).sqrt();
        for range in [&layer.weight, &layer.bias] {
            for value in &mut parameters[range.clone()] {
                *value = (bound * (2.0 * random.uniform() - 1.0)) as f32;
            }
        }
    }
    parameters
}
