//! `lawsmith train`: a data set in, a run folder with a model out.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::Context;
use super::flags::Flags;
use crate::error::{Error, Result};
use crate::network::settings::{Changes, Work};
use crate::network::train::{Trained, check, train_into, train_replicas};
use crate::observer::Observer;
use crate::pipeline;
use crate::store::run::{IfExists, RunFolder};

/// Trains a graph network on a data set or on a graph of halos.
#[derive(Args)]
pub struct Train {
    /// The data set (from simulate or import) or the graph (from graph)
    dataset: PathBuf,
    #[command(flatten)]
    work: Flags<Work>,
    #[command(flatten)]
    changes: Flags<Changes>,
    /// Train N networks as one job, with the seeds seed, seed + 1, …, into OUTPUT/seed-N
    #[arg(long, default_value_t = 1, value_name = "N")]
    replicas: usize,
    /// The run folder
    #[arg(short, long)]
    output: PathBuf,
    #[command(flatten)]
    existing: Flags<IfExists>,
}

impl Train {
    /// Trains, and prints the losses and how many message components are left.
    pub fn run(self, context: &Context) -> Result<()> {
        let system = pipeline::open(&self.dataset, self.work.0.hide_above, &self.changes.0)?;
        let on = system.trained_on();
        let mut settings = system.settings(self.work.0.preset, self.work.0.model);
        self.changes.0.apply(&mut settings);
        settings.seed = context.seed;
        if self.replicas == 0 {
            return Err(Error::usage("is 0; at least 1 is needed").field("replicas"));
        }
        if self.replicas > 1 && on.graph().is_some() {
            let message = "networks on a graph are trained one at a time";
            return Err(Error::usage(message).field("replicas"));
        }
        let (device, resume, observer) =
            (&context.device, self.existing.0.resume, &context.terminal);
        check(device, &*system, &settings, self.replicas)?;
        observer.note(&settings.describe(on.units()));
        if self.replicas == 1 {
            let folder = RunFolder::create(&self.output, self.existing.0)?;
            let trained = train_into(&folder, device, &*system, &settings, resume, observer)?;
            context.print(&json!(trained), trained.text());
            return Ok(());
        }
        let folders = (0..self.replicas).map(|k| {
            let name = format!("seed-{}", settings.seed.wrapping_add(k as u64));
            RunFolder::create(&self.output.join(name), self.existing.0)
        });
        let folders: Vec<RunFolder> = folders.collect::<Result<_>>()?;
        let trained = train_replicas(&folders, device, &*system, &settings, resume, observer)?;
        let mean = |value: fn(&Trained) -> f64| {
            trained.iter().map(value).sum::<f64>() / trained.len() as f64
        };
        let document = json!({
            "steps": settings.steps,
            "seconds": trained.iter().map(|s| s.seconds).fold(0.0, f64::max),
            "seconds_per_step": mean(|s| s.seconds_per_step),
            "train_loss": mean(|s| s.train_loss),
            "test_loss": mean(|s| s.test_loss),
            "replicas": trained,
        });
        let texts: Vec<String> = trained.iter().map(Trained::text).collect();
        context.print(&document, texts.join("\n"));
        Ok(())
    }
}
