//! The state of a training: networks with their moments, the state of pruning, and the sums for the next row of
//! metrics.

use std::path::Path;

use super::forward::Evaluation;
use super::metrics::Row;
use super::model::{Model, Snapshot, TrainState, TrainedOn};
use super::pruning::{self, Pruning};
use super::settings::Settings;
use super::system::System;
use crate::error::{Error, Result};
use crate::model::Shape;

/// A training to continue: the network so far, and the state of the optimizer and of pruning.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The network so far.
    pub model: Model,
    state: TrainState,
}

impl Checkpoint {
    /// Reads a model file with the state of its training.
    ///
    /// # Errors
    /// A file that is not a model, or has no such state.
    pub fn load(path: &Path) -> Result<Self> {
        let (model, state) = Model::load_training(path)?;
        if state.numbers.len() < 3 || Pruning::from_numbers(&state.numbers[3..]).is_none() {
            return Err(Error::input("is too short").file(path).field("train.state"));
        }
        Ok(Checkpoint { model, state })
    }

    /// Writes it as a model file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        self.model.save_training(path, &self.state)
    }

    /// Checks that a training with these settings on this system can continue from here.
    ///
    /// # Errors
    /// Different settings or a different system.
    pub fn check(&self, settings: &Settings, on: &TrainedOn) -> Result<()> {
        let about = &self.model.about;
        if (&about.settings, &about.on) == (settings, on) {
            return Ok(());
        }
        let message = format!(
            "was trained with other settings or on another {}: give the same ones, or \
             --overwrite to start afresh",
            on.what()
        );
        Err(Error::usage(message))
    }
}

/// Networks of one shape and their moments. Only a single one can be pruned.
#[derive(Debug)]
pub(crate) struct State {
    pub shape: Shape,
    /// Original index of each message.
    pub components: Vec<u32>,
    /// `[runs, arena.len]` each: parameters, first and second moments.
    pub parameters: Vec<f32>,
    pub m: Vec<f32>,
    pub v: Vec<f32>,
    pruning: Pruning,
    before_cut: Option<Snapshot>,
}

impl State {
    /// The initial state of trainings with these settings.
    pub fn start<S: System + ?Sized>(system: &S, settings: &[Settings]) -> Self {
        let shape = system.shape(&settings[0]);
        let initial = settings.iter().flat_map(|run| system.initial(&shape, run.seed));
        State::new(shape, initial.collect())
    }

    /// The state before the first step.
    pub fn new(shape: Shape, parameters: Vec<f32>) -> Self {
        State {
            shape,
            components: (0..shape.message_dim as u32).collect(),
            m: vec![0.0; parameters.len()],
            v: vec![0.0; parameters.len()],
            parameters,
            pruning: Pruning::default(),
            before_cut: None,
        }
    }

    /// Parameters and both moments.
    pub fn arenas(&self) -> [&[f32]; 3] {
        [&self.parameters, &self.m, &self.v]
    }

    /// Adds the network of a checkpoint; returns its sums.
    pub fn add(&mut self, checkpoint: Checkpoint) -> Sums {
        let Checkpoint { model, state } = checkpoint;
        let found = model.about;
        let numbers = &state.numbers;
        self.pruning = Pruning::from_numbers(&numbers[3..]).expect("checked when it was made");
        self.shape = model.shape;
        self.components = model.components;
        self.parameters.extend(model.parameters);
        self.m.extend(state.m);
        self.v.extend(state.v);
        self.before_cut = state.before_cut;
        Sums {
            prediction: numbers[0],
            penalty: numbers[1],
            steps: numbers[2],
            train_loss: found.train_loss,
            validation_loss: found.validation_loss,
        }
    }

    /// The checkpoint of network number `run`, given as `model`.
    pub fn checkpoint(&self, model: Model, run: usize, sums: &Sums) -> Checkpoint {
        let len = model.parameters.len();
        let mut numbers = vec![sums.prediction, sums.penalty, sums.steps];
        numbers.extend(self.pruning.to_numbers());
        let state = TrainState {
            m: self.m[run * len..][..len].to_vec(),
            v: self.v[run * len..][..len].to_vec(),
            numbers,
            before_cut: self.before_cut.clone(),
        };
        Checkpoint { model, state }
    }

    /// Records a validation loss for the next decision.
    pub fn note(&mut self, validation_loss: f64) {
        self.pruning.note(validation_loss);
    }

    /// Judges the last cut; true if it hurt and was undone, so that the network must be evaluated again.
    pub fn take_back(&mut self) -> bool {
        let Some(before) = self.before_cut.take() else { return false };
        if !self.pruning.hurt(before.components.len() - self.components.len()) {
            return false;
        }
        self.shape.message_dim = before.components.len();
        self.components = before.components;
        [self.parameters, self.m, self.v] = before.arenas;
        true
    }

    /// Makes the cut due after `step` of `steps` steps, by the significance of each message in `evaluation`; nodes
    /// receive `received` messages on average. True if something was cut.
    pub fn cut(&mut self, evaluation: &Evaluation, received: f64, step: u64, steps: u64) -> bool {
        let cut = self.pruning.next_cut(self.shape.message_dim, step, steps);
        if cut == 0 {
            return false;
        }
        let kept = pruning::survivors(&evaluation.spread.significance, cut);
        self.before_cut = Some(Snapshot {
            components: self.components.clone(),
            arenas: [self.parameters.clone(), self.m.clone(), self.v.clone()],
        });
        let means = &evaluation.spread.means;
        pruning::fold_means(&self.shape, &mut self.parameters, &kept, means, received);
        for arena in [&mut self.parameters, &mut self.m, &mut self.v] {
            *arena = pruning::without(&self.shape, arena, &kept);
        }
        self.components = kept.iter().map(|&k| self.components[k]).collect();
        self.shape.message_dim = kept.len();
        true
    }
}

/// Sums since the last row of metrics, and the losses of that row.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sums {
    prediction: f64,
    penalty: f64,
    steps: f64,
    pub train_loss: Option<f64>,
    pub validation_loss: Option<f64>,
}

impl Sums {
    /// Adds the losses of step `step`; an error if they are not finite.
    pub fn add(&mut self, step: u64, prediction: f32, penalty: f32) -> Result<()> {
        let total = prediction + penalty;
        if !total.is_finite() {
            return Err(Error::usage(format!(
                "the training diverged at step {step} (loss {total}): use a lower peak rate"
            ))
            .field("peak_rate"));
        }
        self.prediction += f64::from(prediction);
        self.penalty += f64::from(penalty);
        self.steps += 1.0;
        Ok(())
    }

    /// The row of metrics due after `step` steps.
    pub fn row<'a>(&self, step: u64, settings: &Settings, evaluation: &'a Evaluation) -> Row<'a> {
        Row {
            step,
            rate: settings.rate(step - 1),
            train_loss: self.prediction / self.steps,
            penalty: self.penalty / self.steps,
            validation_loss: evaluation.loss,
            significance: &evaluation.spread.significance,
        }
    }

    /// Empty sums for the next row.
    pub fn after(row: &Row) -> Self {
        Sums {
            train_loss: Some(row.train_loss),
            validation_loss: Some(row.validation_loss),
            ..Sums::default()
        }
    }
}
