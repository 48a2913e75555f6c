//! `lawsmith messages`: what the messages of a trained network are made of.

use std::path::PathBuf;

use clap::Args;

use super::Context;
use crate::distill::messages::{Wanted, measure};
use crate::error::Result;
use crate::pipeline::open_run;
use crate::store::run::RunFolder;

/// Ranks the messages of a run's network and fits them to the true forces
#[derive(Args)]
pub struct Messages {
    /// The folder of a trained run
    run: PathBuf,
    /// Number of message components to keep [default: the number of dimensions where the law is known,
    /// else all with more than 1 % of the largest significance]
    #[arg(long)]
    components: Option<usize>,
    /// Graphs of halos only: laws without masses
    #[arg(long)]
    without_mass: bool,
}

impl Messages {
    /// Writes `messages.safetensors` and `messages.json` and prints the kept components.
    pub fn run(self, context: &Context) -> Result<()> {
        let run = open_run(&RunFolder::open(&self.run)?)?;
        let Messages { components, without_mass, .. } = self;
        let wanted = Wanted { components, without_mass, velocities: true };
        let summary = measure(context.compute(), &run, wanted)?;
        context.print(&serde_json::to_value(&summary).expect("plain data"), summary.text());
        Ok(())
    }
}
