//! `lawsmith messages`: what the messages of a trained network consist of.

use std::path::PathBuf;

use clap::Args;

use super::Context;
use super::flags::Flags;
use crate::distill::messages::{Wanted, measure};
use crate::error::Result;
use crate::pipeline::open_run;
use crate::store::run::RunFolder;

/// Ranks the messages of a run's network and fits them to the true forces
#[derive(Args)]
pub struct Messages {
    /// The folder of a trained run
    run: PathBuf,
    #[command(flatten)]
    wanted: Flags<Wanted>,
}

impl Messages {
    /// Writes `messages.safetensors` and `messages.json` and prints the kept components.
    pub fn run(self, context: &Context) -> Result<()> {
        let run = open_run(&RunFolder::open(&self.run)?)?;
        let summary = measure(context.compute(), &run, self.wanted.0, true)?;
        context.print(&serde_json::to_value(&summary).expect("plain data"), summary.text());
        Ok(())
    }
}
