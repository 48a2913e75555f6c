//! `lawsmith messages`: what the messages of a trained network are made of.

use std::path::PathBuf;

use clap::Args;

use super::Context;
use crate::cosmology::distill as on_graph;
use crate::cosmology::messages::Wanted;
use crate::distill::pipeline;
use crate::error::{Error, Result};
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
        let folder = RunFolder::open(&self.run)?;
        if on_graph::is_on_graph(&folder) {
            let Messages { components, without_mass, .. } = self;
            let wanted = Wanted { components, without_mass };
            let summary = on_graph::messages(context.setting(), &folder, wanted)?;
            context.print(&serde_json::to_value(&summary).expect("plain data"), summary.text());
            return Ok(());
        }
        if self.without_mass {
            let message = "applies only to runs on a graph of halos";
            return Err(Error::usage(message).field("without-mass"));
        }
        let summary = pipeline::messages(context.setting(), &folder, self.components)?;
        context.print(&serde_json::to_value(&summary).expect("plain data"), summary.text());
        Ok(())
    }
}
