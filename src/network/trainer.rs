//! A stack of trainings that advance together: one step, one row of metrics, one pruning decision,
//! one checkpoint.
//!
//! Networks of a stack have one shape and differ by their seed. Networks that are pruned change shape, so
//! they train in a stack of one.
//!
//! Beside parameters and moments a checkpoint holds what metrics and pruning have accumulated;
//! everything random comes from (seed, step). So a resumed training is bit-identical to an
//! uninterrupted one.

use std::path::PathBuf;

use super::forward::Evaluation;
use super::metrics::Metrics;
use super::model::{About, Model};
use super::pruning;
use super::settings::Settings;
use super::state::{State, Sums};
use super::system::{Session, System};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::interrupt;
use crate::progress::Progress;
use crate::store::run::RunFolder;

/// A stack of trainings.
pub(crate) struct Trainer<'a> {
    system: &'a dyn System,
    /// Of each run of the stack.
    settings: Vec<Settings>,
    models: Vec<PathBuf>,
    sums: Vec<Sums>,
    metrics: Vec<Metrics>,
    /// The loss of the last step, mean over the stack.
    loss: f64,
    /// Steps done.
    step: u64,
    /// Parameters and moments are copies, as old as the last look at them.
    state: State,
    session: Box<dyn Session + 'a>,
}

/// Steps that the checkpoint of `folder` has done; 0 where there is none.
pub(super) fn steps_done(folder: &RunFolder) -> Result<u64> {
    let path = folder.file("model.safetensors");
    if path.exists() { Ok(Model::load(&path)?.about.step) } else { Ok(0) }
}

impl<'a> Trainer<'a> {
    /// Starts trainings with these settings (equal but for the seed), or goes on where their
    /// checkpoints stopped, all at the same step.
    pub fn new(
        device: &Device,
        system: &'a dyn System,
        settings: &[Settings],
        folders: &[RunFolder],
    ) -> Result<Self> {
        let models: Vec<_> = folders.iter().map(|run| run.file("model.safetensors")).collect();
        let mut state = State::start(system, settings);
        let (mut step, mut sums) = (0, vec![Sums::default(); settings.len()]);
        if models[0].exists() {
            state = State::new(state.shape, Vec::new());
            let on = system.trained_on();
            for ((path, settings), sums) in models.iter().zip(settings).zip(&mut sums) {
                let same = |found: &About| (&found.settings, &found.on) == (settings, &on);
                (step, *sums) = state.load(path, same, on.what())?;
            }
        }
        // The columns are those of the network before pruning.
        let messages = system.shape(&settings[0]).message_dim;
        let session = system.begin(*device, settings, state.shape, state.arenas(), step)?;
        let open = |run: &RunFolder| Metrics::open(&run.file("metrics.csv"), messages, step);
        let metrics = folders.iter().map(open).collect::<Result<_>>()?;
        let settings = settings.to_vec();
        Ok(Trainer { system, settings, models, sums, metrics, loss: 0.0, step, state, session })
    }

    /// Steps done.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Edges that have gone forward and back since the trainings were opened.
    pub fn edges(&self) -> u64 {
        self.session.edges()
    }

    /// Takes all steps that are left, with checkpoints.
    ///
    /// # Errors
    /// Those of the steps; `interrupted` after Ctrl-C, when the checkpoint is written.
    pub fn run(&mut self, folder: &RunFolder, progress: Progress) -> Result<()> {
        let Settings { steps, checkpoint_every, .. } = self.settings[0];
        let bar = progress.bar("train", steps, "steps", self.step);
        bar.set(self.step);
        while self.step < steps {
            let before = self.step;
            self.advance((before / checkpoint_every + 1) * checkpoint_every)?;
            let step = self.step;
            bar.set(step);
            if step / 10 > before / 10 {
                bar.message(format!("loss {:.4}", self.loss));
            }
            let stop = interrupt::requested() && step < steps;
            if stop || step.is_multiple_of(checkpoint_every) || step == steps {
                self.save()?;
            }
            if stop {
                return Err(Error::interrupted(format!(
                    "stopped after step {step} of {steps} and saved: the same command with \
                     --resume goes on"
                ))
                .file(folder.path()));
            }
        }
        Ok(())
    }

    /// Goes on by as many steps as the session takes at once, up to `until` or to where something else is
    /// due, with what is due then.
    pub fn advance(&mut self, until: u64) -> Result<()> {
        let most = self.step + self.session.training().most_steps();
        let next = until.min(next_due(self.step, &self.settings[0])).min(most);
        let losses = self.session.advance(self.state.shape, self.step..next)?;
        for losses in losses.chunks_exact(self.settings.len()) {
            for (sums, loss) in self.sums.iter_mut().zip(losses) {
                sums.add(self.step, loss.prediction, loss.penalty)?;
            }
            let sum: f64 = losses.iter().map(|loss| f64::from(loss.prediction)).sum();
            self.loss = sum / losses.len() as f64;
            self.step += 1;
        }
        self.after_step()
    }

    /// The row of metrics and the pruning decision that are due at this step.
    fn after_step(&mut self) -> Result<()> {
        let Settings { steps, metrics_every, prune, .. } = self.settings[0];
        let row = self.step.is_multiple_of(metrics_every) || self.step == steps;
        let decision = prune && pruning::is_decision(self.step, steps);
        if !row && !decision {
            return Ok(());
        }
        self.session.training().parameters(&mut self.state.parameters)?;
        for run in 0..self.settings.len() {
            let evaluation = self.evaluate(run)?;
            if prune {
                self.state.note(evaluation.loss);
            }
            if row {
                let (metrics, settings) = (&mut self.metrics[run], &self.settings[run]);
                self.sums[run].write(metrics, self.step, settings, &evaluation)?;
            }
            if decision {
                self.decide(evaluation)?;
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, run: usize) -> Result<Evaluation> {
        let State { shape, parameters, .. } = &self.state;
        let len = parameters.len() / self.settings.len();
        self.session.evaluate(run, shape, &parameters[run * len..][..len])
    }

    /// Judges the last cut, and makes the next one. The stack is a stack of one.
    fn decide(&mut self, mut evaluation: Evaluation) -> Result<()> {
        self.session.training().moments(&mut self.state.m, &mut self.state.v)?;
        let taken_back = self.state.take_back();
        if taken_back {
            evaluation = self.evaluate(0)?;
        }
        let steps = self.settings[0].steps;
        let cut = self.state.cut(&evaluation, self.system.received(), self.step, steps);
        if taken_back || cut {
            self.session.training().replace(self.state.shape, self.state.arenas())?;
        }
        Ok(())
    }

    /// The network of one run of the stack, as it was at the last look.
    pub fn model(&self, run: usize) -> Model {
        let len = self.state.parameters.len() / self.settings.len();
        let settings = self.settings[run].clone();
        Model {
            shape: self.state.shape,
            kind: settings.model,
            components: self.state.components.clone(),
            parameters: self.state.parameters[run * len..][..len].to_vec(),
            about: About {
                settings,
                on: self.system.trained_on(),
                dataset: self.system.path(),
                step: self.step,
                train_loss: self.sums[run].train_loss,
                validation_loss: self.sums[run].validation_loss,
            },
        }
    }

    /// Writes the checkpoint of every run of the stack.
    pub fn save(&mut self) -> Result<()> {
        self.session.training().parameters(&mut self.state.parameters)?;
        self.session.training().moments(&mut self.state.m, &mut self.state.v)?;
        for (run, path) in self.models.iter().enumerate() {
            self.state.save(path, &self.model(run), run, &self.sums[run])?;
        }
        Ok(())
    }
}

/// The step behind `step` at which something else is due: a row of metrics, a pruning decision, the end.
fn next_due(step: u64, settings: &Settings) -> u64 {
    let Settings { steps, metrics_every, prune, .. } = *settings;
    let row = (step / metrics_every + 1) * metrics_every;
    let decision = pruning::next_decision(step, steps).filter(|_| prune);
    steps.min(row).min(decision.unwrap_or(steps))
}
