//! `lawsmith predict`: the errors of a trained network on data that it has not seen, and the
//! trajectories that its accelerations lead to.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::Context;
use crate::distill::rollout;
use crate::error::{Error, Result};
use crate::nbody::dataset::Dataset;
use crate::nbody::rollout::{DIVERGED, Rollouts};
use crate::network::forward::l1;
use crate::network::model::Model;
use crate::pipeline::open_run;
use crate::store::run::RunFolder;

/// Number of frames that the loss is computed on, spread evenly over runs and time.
const GRAPHS: usize = 4096;

/// Predicts accelerations and, with --rollout, trajectories.
#[derive(Args)]
pub struct Predict {
    /// The run folder
    folder: PathBuf,
    /// The data set to predict [default: test.safetensors of the folder, else the validation runs of
    /// the data that the network was trained on]
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Integrate the equations of motion with the predictions and write rollout.safetensors
    #[arg(long)]
    rollout: bool,
    /// Number of frames of a rollout
    #[arg(long, default_value_t = rollout::FRAMES, value_name = "N")]
    frames: usize,
    /// Number of runs to roll out
    #[arg(long, default_value_t = rollout::RUNS, value_name = "N")]
    runs: usize,
    /// Integrator steps between two frames
    #[arg(long, default_value_t = rollout::SUBSTEPS, value_name = "N")]
    substeps: usize,
}

impl Predict {
    /// Prints the test losses and the errors of the rollout.
    pub fn run(self, context: &Context) -> Result<()> {
        for (name, count) in [("runs", self.runs), ("substeps", self.substeps)] {
            if count == 0 {
                return Err(Error::usage("is 0; at least 1 is needed").field(name));
            }
        }
        let folder = RunFolder::open(&self.folder)?;
        let run = open_run(&folder)?;
        let model = run.physics.model();
        if model.about.on.graph().is_some() {
            return Err(Error::usage(
                "the run is on a graph of halos, which has no trajectories; messages and report show \
                 its errors",
            )
            .file(folder.path()));
        }
        let (data, runs) = self.data(&folder, model)?;
        let network = |features: &[f32], bodies: &[u32]| {
            model.accelerations(&context.device, features, bodies)
        };
        let formula = run.formula()?;
        // The user's units of a loss of 1.
        let unit = data.about.units().acceleration();
        let of_formula = match &formula {
            Some(formula) => {
                let of =
                    |features: &[f32], bodies: &[u32]| Ok(formula.accelerations(features, bodies));
                Some(unit * loss(&data, &runs, of)?)
            }
            None => None,
        };
        let loss = unit * loss(&data, &runs, network)?;
        let mut document = json!({
            "data": data.path(),
            "runs": runs.len(),
            "test_loss": {"network": loss, "formula": of_formula},
        });
        let mut text = format!(
            "test loss of the network: {loss:.5} ({} runs of {})",
            runs.len(),
            data.path().display()
        );
        if let Some(loss) = of_formula {
            text.push_str(&format!("\ntest loss of the formula: {loss:.5}"));
        }
        if self.rollout {
            let (formula, sizes) = (formula.as_ref(), [self.runs, self.frames, self.substeps]);
            let device = &context.device;
            let rollouts =
                rollout::integrate(device, model, formula, &data, &runs, sizes, &context.terminal)?;
            let path = folder.file("rollout.safetensors");
            rollouts.save(&path)?;
            document["rollout"] = summary(&rollouts);
            document["rollout"]["file"] = json!(path);
            text.push_str(&describe(&rollouts));
            text.push_str(&format!("\nwritten to {}", path.display()));
        }
        context.print(&document, text);
        Ok(())
    }

    /// The data to predict, and the runs to use.
    fn data(&self, folder: &RunFolder, model: &Model) -> Result<(Dataset, Vec<usize>)> {
        let Some(path) = &self.data else { return rollout::unseen(folder, model) };
        let data = rollout::open_for(model, path)?;
        let (found, needed) = (data.about.dim, model.shape.outputs);
        if found != needed {
            let message = format!("has {found} dimensions; the network was trained on {needed}");
            return Err(Error::input(message).file(path));
        }
        let runs = (0..data.about.runs).collect();
        Ok((data, runs))
    }
}

/// Mean over nodes of the L1 norm of (true − predicted acceleration), the loss of training, on frames
/// spread evenly over `runs` and over time.
fn loss(
    data: &Dataset,
    runs: &[usize],
    accelerate: impl Fn(&[f32], &[u32]) -> Result<Vec<f32>>,
) -> Result<f64> {
    let all = runs.len() * data.about.frames;
    let graphs: Vec<usize> = (0..all.min(GRAPHS)).map(|k| k * all / all.min(GRAPHS)).collect();
    let (mut sum, mut nodes) = (0.0, 0);
    for graphs in graphs.chunks(256) {
        let (mut features, mut targets, mut bodies) = (Vec::new(), Vec::new(), Vec::new());
        for graph in graphs {
            let (run, frame) = (runs[graph / data.about.frames], graph % data.about.frames);
            data.features(run, frame, &mut features);
            targets.extend_from_slice(data.targets(run, frame));
            bodies.push(data.bodies(run) as u32);
        }
        let found = accelerate(&features, &bodies)?;
        sum += l1(&targets, &found);
        nodes += targets.len() / data.about.dim;
    }
    Ok(sum / nodes as f64)
}

/// The errors of each prediction: `{"network": {"time", "median_error", "diverged"}}`.
fn summary(rollouts: &Rollouts) -> Value {
    let mut document = json!({"times": rollouts.times, "runs": rollouts.about.runs});
    for (index, name) in rollouts.about.predictions.iter().enumerate() {
        let errors = rollouts.errors(index);
        // JSON has no infinity: a run that was given up is null.
        document[name] = json!({"median_error": errors.median, "diverged": errors.diverged});
    }
    document
}

/// The same as text, with the error at a few times.
fn describe(rollouts: &Rollouts) -> String {
    let mut text = String::new();
    let last = rollouts.about.frames - 1;
    for (index, name) in rollouts.about.predictions.iter().enumerate() {
        let errors = rollouts.errors(index);
        let count = errors.diverged.iter().flatten().count();
        text.push_str(&format!("\nmedian error of positions, {name}:"));
        for frame in [last / 8, last / 4, last / 2, last] {
            let (time, error) = (rollouts.times[frame], errors.median[frame]);
            text.push_str(&format!("  {error:.2e} at t = {time:.3}"));
        }
        text.push_str(&format!(
            "\n{count} of {} runs off by more than {} % of the size of the system",
            errors.diverged.len(),
            100.0 * DIVERGED
        ));
    }
    text
}
