//! `lawsmith compose`: replaces the network by expressions.

use std::path::PathBuf;

use clap::Args;

use super::Context;
use super::flags::{Flags, choice};
use crate::distill::compose::compose_run;
use crate::distill::laws::{LawOptions, Search};
use crate::error::Result;
use crate::network::settings::Preset;
use crate::pipeline::open_run;
use crate::store::run::RunFolder;

/// Replaces the network of a run by its laws and refits all constants on the data
#[derive(Args)]
pub struct Compose {
    /// The folder of a run that has messages and their laws
    run: PathBuf,
    #[command(flatten)]
    laws: Flags<LawOptions>,
    /// How hard to search
    #[arg(long, value_parser = choice::<Preset>(), default_value_t = Preset::Quick)]
    preset: Preset,
}

impl Compose {
    /// Extends `laws.json` and prints the composed formula with its test loss.
    pub fn run(self, context: &Context) -> Result<()> {
        let run = open_run(&RunFolder::open(&self.run)?)?;
        let search = Search::new(self.preset, self.laws.0);
        let summary = compose_run(context.compute(), &run, search)?;
        context.print(&serde_json::to_value(&summary).expect("plain data"), summary.composed());
        Ok(())
    }
}
