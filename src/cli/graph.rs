//! `lawsmith graph`: the neighbours of each halo in a catalogue.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use serde_json::json;

use super::{Context, OutputFile};
use crate::cosmology::catalog::Catalog;
use crate::cosmology::graph::build;
use crate::error::Result;

/// Joins all pairs of halos within a radius, in a periodic box, into a graph
#[derive(Args)]
pub struct Graph {
    /// Catalogues; several of the same box make one graph
    #[arg(required = true)]
    catalogs: Vec<PathBuf>,
    /// Largest distance of neighbours, Mpc/h
    #[arg(long, default_value_t = 50.0, value_name = "LENGTH")]
    radius: f64,
    /// Edge of the periodic box in Mpc/h [default: the catalogue's]
    #[arg(long = "box", value_name = "LENGTH")]
    edge: Option<f64>,
    #[command(flatten)]
    output: OutputFile,
}

impl Graph {
    /// Builds and writes the graph, and prints its size.
    pub fn run(self, context: &Context) -> Result<()> {
        let output = self.output.path()?;
        let catalogs =
            self.catalogs.iter().map(|path| Catalog::open(path)).collect::<Result<Vec<_>>>()?;
        let begun = Instant::now();
        let about = build(&context.device, &catalogs, self.edge, self.radius, output)?;
        let seconds = begun.elapsed().as_secs_f64();
        let text = format!(
            "{}: {} nodes, {} directed edges within {} Mpc/h, {:.1} per node, in {seconds:.2} s",
            output.display(),
            about.nodes,
            about.edges,
            about.radius,
            about.edges as f64 / about.nodes as f64,
        );
        let mut document = serde_json::to_value(&about).expect("plain data");
        document["seconds"] = json!(seconds);
        context.print(&document, text);
        Ok(())
    }
}
