//! `lawsmith import`: a dataset from a table of trajectories.

use std::path::PathBuf;

use clap::Args;

use super::{Context, OutputFile};
use crate::error::Result;
use crate::nbody::import::{self, Settings};

/// Makes a data set from a table with columns run,time,body,x,y[,z][,vx…][,mass][,charge][,ax…].
#[derive(Args)]
pub struct Import {
    /// The table: .csv, .npz, .npy or .parquet, rows in any order
    table: PathBuf,
    /// Order of the local polynomial that gives missing velocities and accelerations
    #[arg(long, default_value_t = Settings::default().order)]
    order: usize,
    /// Number of frames that the polynomial is fitted to
    #[arg(long, default_value_t = Settings::default().window)]
    window: usize,
    #[command(flatten)]
    output: OutputFile,
}

impl Import {
    /// Imports and says what was made.
    pub fn run(self, context: &Context) -> Result<()> {
        let output = self.output.path()?;
        let settings = Settings { order: self.order, window: self.window };
        let summary = import::import(&self.table, output, settings)?;
        let mut text = format!(
            "{}: {} runs of {} frames of {} bodies in {} dimensions",
            output.display(),
            summary.runs,
            summary.frames,
            summary.bodies,
            summary.dim,
        );
        if !summary.made.is_empty() {
            text += &format!("\nfilled in, not in the table: {}", summary.made.join(", "));
        }
        if let Some(noise) = summary.position_noise {
            text += &format!(
                "\nfit of order {} to {} frames; noise of the positions {noise:.2e}",
                settings.order,
                settings.window.min(summary.frames),
            );
        }
        if let Some(bar) = summary.acceleration_error {
            text += &format!(
                "\nerror bar of the accelerations: {:.2e} median, {:.2e} at worst",
                bar.median, bar.max
            );
        }
        let document = serde_json::to_value(&summary).expect("a summary is plain data");
        context.print(&document, text);
        Ok(())
    }
}
