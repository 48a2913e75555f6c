//! `lawsmith simulate`: a data set of simulated systems.

use clap::Args;

use super::flags::{OptionSubset, SubsetFlags};
use super::system::System;
use super::{Context, OutputFile};
use crate::error::Result;
use crate::nbody::simulate::{self, Settings};

/// Simulates systems of interacting bodies and writes their trajectories.
#[derive(Args)]
pub struct Simulate {
    #[command(flatten)]
    system: System,
    #[command(flatten)]
    how: SubsetFlags<How>,
    #[command(flatten)]
    output: OutputFile,
}

/// The options of `simulate` besides the system.
enum How {}

impl OptionSubset for How {
    type Of = Settings;
    const FIELDS: &'static [&'static str] = &["runs", "integrator", "substeps"];
}

impl Simulate {
    /// Simulates and prints rate and energy drift.
    pub fn run(self, context: &Context) -> Result<()> {
        let output = self.output.path()?;
        let settings = Settings {
            integrator: self.how.0.integrator,
            substeps: self.how.0.substeps,
            ..self.system.settings(self.how.0.runs, context)?
        };
        let summary = simulate::simulate_to(output, &context.device, &settings, &context.terminal)?;
        let mut text = format!(
            "{}: {} runs of {} frames of {} bodies in {:.2} s ({:.1} million body-steps/s, including writing)",
            output.display(),
            summary.runs,
            summary.frames,
            summary.bodies,
            summary.seconds,
            summary.body_steps_per_second / 1e6,
        );
        if let Some(drift) = summary.energy_drift {
            text += &format!(
                "\nenergy drift: {:.1e} median, {:.1e} in the worst run",
                drift.median, drift.max
            );
        }
        let document = serde_json::to_value(&summary).expect("a summary is plain data");
        context.print(&document, text);
        Ok(())
    }
}
