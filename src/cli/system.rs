//! The options that describe a system to simulate, of `simulate` and `distill`.

use clap::Args;

use super::Context;
use crate::error::Result;
use crate::law::Law;
use crate::nbody::simulate::{Integrator, Settings};

/// A system to simulate.
#[derive(Args)]
pub struct System {
    #[arg(long, default_value = "spring", help = format!("Law of motion: {}", Law::names().join(", ")))]
    law: String,
    /// Instead: a pair potential of your own in r, m1, m2, q1, q2, such as "m1*m2*log(r)"; needs --dt
    #[arg(long, value_name = "EXPRESSION", conflicts_with = "law")]
    potential: Option<String>,
    /// Number of dimensions: 2 or 3
    #[arg(long, default_value_t = 2)]
    dim: usize,
    /// Number of bodies: 2 to 64
    #[arg(long, default_value_t = 4)]
    bodies: usize,
    /// Frames of each run, including the initial state
    #[arg(long, default_value_t = 1000)]
    frames: usize,
    /// Time between frames [default: depends on the law]
    #[arg(long)]
    dt: Option<f64>,
}

impl System {
    /// The settings of a simulation of so many runs, with the default integrator.
    pub fn settings(&self, runs: usize, context: &Context) -> Result<Settings> {
        let law = match &self.potential {
            Some(text) => Law::from_potential(text)?,
            None => Law::parse(&self.law)?,
        };
        let System { dim, bodies, frames, dt, .. } = *self;
        let (integrator, seed) = (Integrator::default(), context.seed);
        Ok(Settings { law, dim, bodies, runs, frames, dt, integrator, substeps: 1, seed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_design_has_a_row_for_every_law() {
        let design = include_str!("../../docs/design.md");
        for name in Law::names() {
            assert!(design.contains(&format!("\n| `{name}` ")), "{name}");
        }
    }
}
