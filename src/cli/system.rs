//! The options of `simulate` and `distill` that describe the system to simulate.

use clap::Args;

use super::Context;
use super::flags::{OptionSubset, SubsetFlags};
use crate::error::Result;
use crate::law::Law;
use crate::nbody::simulate::Settings;

/// A system to simulate.
#[derive(Args)]
pub struct System {
    #[arg(long, default_value = "spring", help = format!("Law of motion: {}", Law::names().join(", ")))]
    law: String,
    /// Your own pair potential instead, in r, m1, m2, q1, q2, such as "m1*m2*log(r)"; needs --dt
    #[arg(long, value_name = "EXPRESSION", conflicts_with = "law")]
    potential: Option<String>,
    #[command(flatten)]
    shape: SubsetFlags<Shape>,
}

/// The options that `simulate` and `distill` share.
enum Shape {}

impl OptionSubset for Shape {
    type Of = Settings;
    const FIELDS: &'static [&'static str] = &["dim", "bodies", "frames", "dt"];
}

impl System {
    /// The settings of a simulation of `runs` runs, with the default integrator.
    pub fn settings(&self, runs: usize, context: &Context) -> Result<Settings> {
        let law = match &self.potential {
            Some(text) => Law::from_potential(text)?,
            None => Law::parse(&self.law)?,
        };
        Ok(Settings { law, runs, seed: context.seed, ..self.shape.0.clone() })
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
