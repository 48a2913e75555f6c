//! `lawsmith report`: rewrites `report.html` from the files of a run folder.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::Context;
use crate::error::Result;
use crate::report;
use crate::store::run::RunFolder;

/// Writes the report of a run folder.
#[derive(Args)]
pub struct Report {
    /// The run folder
    folder: PathBuf,
}

impl Report {
    /// Writes the report and prints where it is.
    pub fn run(self, context: &Context) -> Result<()> {
        let folder = RunFolder::open(&self.folder)?;
        report::write(&folder)?;
        let path = folder.file("report.html");
        context.print(&json!({"report": path}), path.display());
        Ok(())
    }
}
