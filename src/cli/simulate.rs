//! `lawsmith simulate`: a dataset of simulated systems.

use clap::Args;

use super::flags::choice;
use super::system::System;
use super::{Context, OutputFile};
use crate::error::Result;
use crate::nbody::simulate::{self, Integrator, Settings};

/// Simulates systems of interacting bodies and writes their trajectories.
#[derive(Args)]
pub struct Simulate {
    #[command(flatten)]
    system: System,
    /// Number of runs, each from its own initial state
    #[arg(long, default_value_t = 10_000)]
    runs: usize,
    /// Integrator
    #[arg(long, value_parser = choice::<Integrator>(), default_value_t)]
    integrator: Integrator,
    /// Steps of rk4 between two frames
    #[arg(long, default_value_t = 1)]
    substeps: usize,
    #[command(flatten)]
    output: OutputFile,
}

impl Simulate {
    /// Simulates and prints rate and energy drift.
    pub fn run(self, context: &Context) -> Result<()> {
        let output = self.output.path()?;
        let settings = Settings {
            integrator: self.integrator,
            substeps: self.substeps,
            ..self.system.settings(self.runs, context)?
        };
        let summary = simulate::simulate_to(output, &context.device, &settings, &context.terminal)?;
        let mut text = format!(
            "{}: {} runs of {} frames of {} bodies in {:.2} s ({:.1} million body-steps/s, file included)",
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
