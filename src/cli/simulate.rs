//! `lawsmith simulate`: a dataset of simulated systems.

use std::path::PathBuf;

use clap::Args;

use super::Context;
use crate::error::{Error, Result};
use crate::nbody::law::Law;
use crate::nbody::simulate::{self, Integrator, Settings};

/// Simulates systems of interacting bodies and writes their trajectories.
#[derive(Args)]
pub struct Simulate {
    /// inverse-square, inverse, spring, damped, charge or discontinuous
    #[arg(long, default_value = "spring")]
    law: String,
    /// A law of your own: a pair potential in r, m1, m2, q1, q2, such as "m1*m2*log(r)"; needs --dt
    #[arg(long, value_name = "EXPRESSION", conflicts_with = "law")]
    potential: Option<String>,
    /// Dimensions of space: 2 or 3
    #[arg(long, default_value_t = 2)]
    dim: usize,
    /// Bodies of each run, 2 to 64
    #[arg(long, default_value_t = 4)]
    bodies: usize,
    /// Runs: independent initial states
    #[arg(long, default_value_t = 10_000)]
    runs: usize,
    /// Frames of each run, the initial state among them
    #[arg(long, default_value_t = 1000)]
    frames: usize,
    /// Time between frames; each law has its own default
    #[arg(long)]
    dt: Option<f64>,
    /// How to get from one frame to the next
    #[arg(long, value_enum, default_value_t)]
    integrator: Integrator,
    /// Steps from one frame to the next, of rk4
    #[arg(long, default_value_t = 1)]
    substeps: usize,
    /// The dataset to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Replace the output file if there is one
    #[arg(long)]
    overwrite: bool,
}

impl Simulate {
    /// Simulates and prints rate and energy drift.
    pub fn run(self, context: &Context) -> Result<()> {
        if self.output.exists() && !self.overwrite {
            return Err(Error::usage("exists already: --overwrite replaces it").file(&self.output));
        }
        let settings = Settings {
            law: match &self.potential {
                Some(text) => Law::from_potential(text)?,
                None => Law::parse(&self.law)?,
            },
            dim: self.dim,
            bodies: self.bodies,
            runs: self.runs,
            frames: self.frames,
            dt: self.dt,
            integrator: self.integrator,
            substeps: self.substeps,
            seed: context.seed,
        };
        let summary =
            simulate::simulate(&context.device, &settings, &self.output, context.progress)?;
        let mut text = format!(
            "{}: {} runs of {} frames of {} bodies in {:.2} s ({:.1} million body-steps/s, file included)",
            self.output.display(),
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
