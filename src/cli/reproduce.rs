//! `lawsmith reproduce`: the tables of the paper.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::Context;
use crate::cosmology::graph::Graph;
use crate::cosmology::table6;
use crate::error::Result;
use crate::store::run::RunFolder;

/// A table of the paper.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Table {
    /// Formulas for the overdensity around a halo.
    Table6,
}

/// Reproduces a table of the paper
#[derive(Args)]
pub struct Reproduce {
    /// The table to reproduce
    #[arg(value_enum)]
    table: Table,
    /// The graph of halos (from graph)
    graph: PathBuf,
    /// A run on this graph, whose network and formula are added to the table
    #[arg(long, value_name = "FOLDER")]
    run: Option<PathBuf>,
    /// Overdensity above which halos are hidden in the out-of-distribution columns
    #[arg(long, default_value_t = 1.0, value_name = "DELTA")]
    hide_above: f64,
}

impl Reproduce {
    /// Fits and prints.
    pub fn run(self, context: &Context) -> Result<()> {
        let Table::Table6 = self.table;
        let graph = Graph::open(&self.graph)?;
        let device = &context.device;
        let run = self.run.as_deref().map(RunFolder::open).transpose()?;
        let mut rows = table6::published(device, &graph, self.hide_above, &context.terminal)?;
        if let Some(folder) = run {
            rows.extend(table6::of_run(
                device,
                &graph,
                &folder,
                self.hide_above,
                &context.terminal,
            )?);
        }
        context.print(&json!({"table6": rows}), table6::text(&rows, self.hide_above));
        Ok(())
    }
}
