//! `lawsmith distill`: the whole pipeline, from a system to its law.

use std::path::PathBuf;

use clap::Args;

use super::Context;
use super::flags::Flags;
use super::system::System;
use crate::distill::laws::LawOptions;
use crate::distill::messages::Wanted;
use crate::error::{Error, Result};
use crate::network::settings::{Changes, Work};
use crate::pipeline::{self, Settings};
use crate::report;
use crate::store::run::{IfExists, RunFolder};

/// Simulates a system, trains a network, distils its messages into a law and writes a report
#[derive(Args)]
pub struct Distill {
    /// A data set or a graph of halos to distil, instead of a simulated system
    #[arg(conflicts_with_all = ["law", "potential", "dt", "dim", "bodies", "runs", "frames"])]
    dataset: Option<PathBuf>,
    #[command(flatten)]
    system: System,
    /// Number of runs to simulate [default: depends on the preset]
    #[arg(long)]
    runs: Option<usize>,
    #[command(flatten)]
    work: Flags<Work>,
    #[command(flatten)]
    training: Flags<Changes>,
    #[command(flatten)]
    wanted: Flags<Wanted>,
    #[command(flatten)]
    laws: Flags<LawOptions>,
    /// The run folder [default: runs/LAW-DIMd-MODEL, or runs/NAME-MODEL of a data set]
    #[arg(short, long, value_name = "FOLDER")]
    output: Option<PathBuf>,
    #[command(flatten)]
    existing: Flags<IfExists>,
}

impl Distill {
    /// Runs the pipeline and prints the recovered law.
    pub fn run(self, context: &Context) -> Result<()> {
        let dataset = self.dataset.as_deref();
        let mut work = self.work.0;
        let kind = *work.model.get_or_insert_with(|| pipeline::default_model(dataset));
        let (simulate, name) = match dataset {
            Some(path) => (None, path.file_stem().unwrap_or_default().to_string_lossy().into()),
            None => {
                let runs = self.runs.unwrap_or(pipeline::runs(work.preset));
                let settings = self.system.settings(runs, context)?;
                let name = format!("{}-{}d", settings.law.name(), settings.dim);
                (Some(settings), name)
            }
        };
        let settings = Settings {
            dataset: self.dataset,
            simulate,
            work,
            training: self.training.0,
            wanted: self.wanted.0,
            laws: self.laws.0,
            seed: context.seed,
        };
        let name = format!("{name}-{kind}");
        let output = self.output.unwrap_or_else(|| PathBuf::from("runs").join(name));
        pipeline::check(&context.device, &settings)?;
        let folder = RunFolder::create(&output, self.existing.0)?;
        let found = folder.read_config::<Settings>("distill");
        if self.existing.0.resume && found?.is_some_and(|found| found != settings) {
            let message =
                "the run was started with other settings; resume with those, or use --overwrite";
            return Err(Error::usage(message).file(folder.file("config.toml")).field("distill"));
        }
        let summary = pipeline::distill(context.compute(), &folder, &settings)?;
        report::write(&folder)?;
        let report = folder.file("report.html");
        let mut parts = Vec::new();
        if !summary.components.is_empty() {
            parts.push(summary.text() + "\n");
        }
        parts.push(summary.composed());
        parts.push(format!("report: {}", report.display()));
        let text = parts.join("\n");
        context.print(&serde_json::to_value(&summary).expect("plain data"), text);
        Ok(())
    }
}
