//! A stack of trainings that advance together: one step, one row of metrics, one pruning decision,
//! one checkpoint.
//!
//! Networks of a stack have one shape and differ by their seed. Networks that are pruned change shape, so
//! they train in a stack of one.
//!
//! Besides parameters and moments a checkpoint holds what metrics and pruning have accumulated;
//! everything random is derived from (seed, step). So a resumed training is bit-identical to an
//! uninterrupted one.

use super::forward::Evaluation;
use super::metrics::{Metrics, Row};
use super::model::{About, Model};
use super::pruning;
use super::settings::Settings;
use super::state::{Checkpoint, State, Sums};
use super::system::{Session, System};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::observer::Observer;

/// A stack of trainings.
pub(crate) struct Trainer<'a> {
    system: &'a dyn System,
    /// For each run of the stack.
    settings: Vec<Settings>,
    observers: Vec<&'a dyn Observer>,
    sums: Vec<Sums>,
    metrics: Vec<Written>,
    /// The loss of the last step, mean over the stack.
    loss: f64,
    /// Steps done.
    step: u64,
    /// Parameters and moments are copies from when they were last needed.
    state: State,
    session: Box<dyn Session + 'a>,
}

/// `metrics.csv` of a run, if its observer keeps one.
struct Written {
    /// Number of messages, which gives the columns, and the step at which this training began.
    messages: usize,
    first: u64,
    file: Option<Metrics>,
}

impl Written {
    /// Opens the file (new or continued) if it is not open yet, and appends `row`.
    fn file(&mut self, observer: &dyn Observer, row: Option<&Row>) -> Result<()> {
        observer.keep("metrics.csv", &mut |path| {
            if self.file.is_none() {
                self.file = Some(Metrics::open(path, self.messages, self.first)?);
            }
            row.zip(self.file.as_mut()).map_or(Ok(()), |(row, file)| file.push(row))
        })
    }
}

impl<'a> Trainer<'a> {
    /// Starts trainings with these settings (equal except for the seed), or continues from their checkpoints, all at
    /// the same step. Each run has its observer; the first one shows the progress of all.
    pub fn new(
        device: &Device,
        system: &'a dyn System,
        settings: &[Settings],
        starts: Vec<Checkpoint>,
        observers: &[&'a dyn Observer],
    ) -> Result<Self> {
        let mut state = State::start(system, settings);
        let (mut step, mut sums) = (0, vec![Sums::default(); settings.len()]);
        if !starts.is_empty() {
            state = State::new(state.shape, Vec::new());
            for (start, sums) in starts.into_iter().zip(&mut sums) {
                step = start.model.about.step;
                *sums = state.add(start);
            }
        }
        // The columns are those of the network before pruning.
        let messages = system.shape(&settings[0]).message_dim;
        let session = system.begin(*device, settings, state.shape, state.arenas(), step)?;
        let open = |observer: &&dyn Observer| -> Result<Written> {
            let mut written = Written { messages, first: step, file: None };
            written.file(*observer, None)?;
            Ok(written)
        };
        let metrics = observers.iter().map(open).collect::<Result<_>>()?;
        let (settings, observers) = (settings.to_vec(), observers.to_vec());
        Ok(Trainer { system, settings, observers, sums, metrics, loss: 0.0, step, state, session })
    }

    /// Steps done.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Edges passed forward and backward since this trainer was created.
    pub fn edges(&self) -> u64 {
        self.session.edges()
    }

    /// Takes all remaining steps, with checkpoints.
    ///
    /// # Errors
    /// Those of the steps; `interrupted` if the observer stops it, after a checkpoint.
    pub fn run(&mut self) -> Result<()> {
        let Settings { steps, checkpoint_every, .. } = self.settings[0];
        let observer = self.observers[0];
        let bar = observer.bar("train", steps, "steps", self.step);
        bar.set(self.step);
        while self.step < steps {
            let before = self.step;
            self.advance((before / checkpoint_every + 1) * checkpoint_every)?;
            let step = self.step;
            bar.set(step);
            if step / 10 > before / 10 {
                bar.message(format!("loss {:.4}", self.loss));
            }
            let stop = observer.stop() && step < steps;
            if stop || step.is_multiple_of(checkpoint_every) || step == steps {
                self.save()?;
            }
            if stop {
                return Err(Error::interrupted(format!(
                    "stopped after step {step} of {steps} and saved; the same command with \
                     --resume continues"
                )));
            }
        }
        Ok(())
    }

    /// Takes as many steps as the session can at once, up to `until` or to the next step at which something
    /// else is due, and does what is due then.
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

    /// Writes the row of metrics and makes the pruning decision, if due at this step.
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
                let row = self.sums[run].row(self.step, &self.settings[run], &evaluation);
                self.metrics[run].file(self.observers[run], Some(&row))?;
                self.sums[run] = Sums::after(&row);
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

    /// Judges the last cut and makes the next one, in a stack of one.
    fn decide(&mut self, mut evaluation: Evaluation) -> Result<()> {
        self.session.training().moments(&mut self.state.m, &mut self.state.v)?;
        let taken_back = self.state.take_back();
        if taken_back {
            evaluation = self.evaluate(0)?;
        }
        let steps = self.settings[0].steps;
        let cut = self.state.cut(&evaluation, self.system.mean_degree(), self.step, steps);
        if taken_back || cut {
            self.session.training().replace(self.state.shape, self.state.arenas())?;
        }
        Ok(())
    }

    /// The network of one run of the stack, from the latest copy of the parameters.
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

    /// Offers the checkpoint of every run of the stack.
    pub fn save(&mut self) -> Result<()> {
        self.session.training().parameters(&mut self.state.parameters)?;
        self.session.training().moments(&mut self.state.m, &mut self.state.v)?;
        for (run, observer) in self.observers.iter().enumerate() {
            let checkpoint = self.state.checkpoint(self.model(run), run, &self.sums[run]);
            observer.keep("model.safetensors", &mut |path| checkpoint.save(path))?;
        }
        Ok(())
    }
}

/// The next step after `step` at which something is due: a row of metrics, a pruning decision, the end.
fn next_due(step: u64, settings: &Settings) -> u64 {
    let Settings { steps, metrics_every, prune, .. } = *settings;
    let row = (step / metrics_every + 1) * metrics_every;
    let decision = pruning::next_decision(step, steps).filter(|_| prune);
    steps.min(row).min(decision.unwrap_or(steps))
}
