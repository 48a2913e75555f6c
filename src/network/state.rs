//! What a training is made of, on small systems and on a large graph alike: networks with their
//! moments, pruning decisions, and the sums that become a row of metrics.

use std::path::Path;

use super::forward::Evaluation;
use super::metrics::{Metrics, Row};
use super::model::{About, Model, Snapshot, TrainState};
use super::pruning::{self, Pruning};
use super::settings::Settings;
use crate::error::{Error, Result};
use crate::interrupt;
use crate::model::Shape;
use crate::progress::Progress;
use crate::store::run::RunFolder;

/// What trains step by step.
pub(crate) trait Training {
    /// Steps done.
    fn step(&self) -> u64;
    /// The loss on training batches lately.
    fn recent_loss(&self) -> f64;
    /// Goes on by a step, or by more up to `until`.
    fn advance(&mut self, until: u64) -> Result<()>;
    /// Writes the checkpoint.
    fn save(&mut self) -> Result<()>;
}

/// Takes all steps that are left, with checkpoints.
///
/// # Errors
/// Those of the steps; `interrupted` after Ctrl-C, when the checkpoint is written.
pub(crate) fn train(
    training: &mut dyn Training,
    settings: &Settings,
    folder: &RunFolder,
    progress: Progress,
) -> Result<()> {
    let Settings { steps, checkpoint_every, .. } = *settings;
    let bar = progress.bar("train", steps, "steps", training.step());
    while training.step() < steps {
        let before = training.step();
        training.advance((before / checkpoint_every + 1) * checkpoint_every)?;
        let step = training.step();
        bar.set(step);
        if step / 10 > before / 10 {
            bar.message(format!("loss {:.4}", training.recent_loss()));
        }
        let stop = interrupt::requested() && step < steps;
        if stop || step.is_multiple_of(checkpoint_every) || step == steps {
            training.save()?;
        }
        if stop {
            return Err(Error::interrupted(format!(
                "stopped after step {step} of {steps} and saved: the same command with --resume \
                 continues"
            ))
            .file(folder.path()));
        }
    }
    Ok(())
}

/// The step behind `step` at which something else is due: a row of metrics, a pruning decision, the end.
pub(crate) fn next_due(step: u64, settings: &Settings) -> u64 {
    let Settings { steps, metrics_every, prune, .. } = *settings;
    let row = (step / metrics_every + 1) * metrics_every;
    let decision = pruning::next_decision(step, steps).filter(|_| prune);
    steps.min(row).min(decision.unwrap_or(steps))
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
    /// Without any step.
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

    /// Adds the network of a checkpoint, with what it has summed up. `same` says whether it was
    /// trained as this one is; `what` names what else it can have been trained on.
    pub fn load(
        &mut self,
        path: &Path,
        same: impl Fn(&About) -> bool,
        what: &str,
    ) -> Result<(u64, Sums)> {
        let (model, state) = Model::load_training(path)?;
        let found = model.about;
        if !same(&found) {
            return Err(Error::usage(format!(
                "was trained with other settings or on another {what}: give the same ones, or \
                 --overwrite to start again"
            ))
            .file(path));
        }
        let short = || Error::input("is too short").file(path).field("train.state");
        let [prediction, penalty, steps, decisions @ ..] = &state.numbers[..] else {
            return Err(short());
        };
        self.pruning = Pruning::from_numbers(decisions).ok_or_else(short)?;
        self.shape = model.shape;
        self.components = model.components;
        self.parameters.extend(model.parameters);
        self.m.extend(state.m);
        self.v.extend(state.v);
        self.before_cut = state.before_cut;
        let sums = Sums {
            prediction: *prediction,
            penalty: *penalty,
            steps: *steps,
            train_loss: found.train_loss,
            validation_loss: found.validation_loss,
        };
        Ok((found.step, sums))
    }

    /// Writes the checkpoint of network `run`, which is `model`.
    pub fn save(&self, path: &Path, model: &Model, run: usize, sums: &Sums) -> Result<()> {
        let len = model.parameters.len();
        let mut numbers = vec![sums.prediction, sums.penalty, sums.steps];
        numbers.extend(self.pruning.to_numbers());
        let state = TrainState {
            m: self.m[run * len..][..len].to_vec(),
            v: self.v[run * len..][..len].to_vec(),
            numbers,
            before_cut: self.before_cut.clone(),
        };
        model.save_training(path, &state)
    }

    /// Notes a validation loss for the next decision.
    pub fn note(&mut self, validation_loss: f64) {
        self.pruning.note(validation_loss);
    }

    /// Judges the last cut; true if it hurt and is taken back, so that the network has to be evaluated
    /// again.
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

    /// Makes the cut that is due when `step` of `steps` steps are done, by what `evaluation` says of each message; nodes
    /// receive `received` messages on average. True if there is one.
    pub fn cut(&mut self, evaluation: &Evaluation, received: f64, step: u64, steps: u64) -> bool {
        let cut = self.pruning.next_cut(self.shape.message_dim, step, steps);
        if cut == 0 {
            return false;
        }
        let kept = pruning::survivors(&evaluation.significance, cut);
        self.before_cut = Some(Snapshot {
            components: self.components.clone(),
            arenas: [self.parameters.clone(), self.m.clone(), self.v.clone()],
        });
        let means = &evaluation.means;
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
                "the training diverged at step {step} (loss {total}): lower the peak rate"
            ))
            .field("peak_rate"));
        }
        self.prediction += f64::from(prediction);
        self.penalty += f64::from(penalty);
        self.steps += 1.0;
        Ok(())
    }

    /// Writes the row that is due after `step` steps, and starts the next.
    pub fn write(
        &mut self,
        metrics: &mut Metrics,
        step: u64,
        settings: &Settings,
        evaluation: &Evaluation,
    ) -> Result<()> {
        let train_loss = self.prediction / self.steps;
        metrics.push(&Row {
            step,
            rate: settings.rate(step - 1),
            train_loss,
            penalty: self.penalty / self.steps,
            validation_loss: evaluation.loss,
            significance: &evaluation.significance,
        })?;
        *self = Sums {
            train_loss: Some(train_loss),
            validation_loss: Some(evaluation.loss),
            ..Sums::default()
        };
        Ok(())
    }
}
