//! `lawsmith distill`: everything, from a system to its law.

use std::path::PathBuf;

use clap::Args;

use super::Context;
use crate::distill::pipeline::{self, Settings};
use crate::error::{Error, Result};
use crate::nbody::law::Law;
use crate::nbody::simulate::{self, Integrator};
use crate::network::settings::Preset;
use crate::network::spec::{ModelKind, Precision};
use crate::store::run::{Existing, RunFolder};
use crate::symbolic::front::Select;

/// Simulates a system, trains a network, distils its messages into a law and writes a report
#[derive(Args)]
pub struct Distill {
    /// A dataset to distil instead of simulating one
    #[arg(conflicts_with_all = ["law", "potential", "dt", "dim", "bodies", "runs", "frames"])]
    dataset: Option<PathBuf>,
    /// inverse-square, inverse, spring, damped, charge or discontinuous
    #[arg(long, default_value = "spring")]
    law: String,
    /// A pair potential of your own in r, m1, m2, q1, q2; needs --dt
    #[arg(long, conflicts_with = "law", requires = "dt", value_name = "EXPRESSION")]
    potential: Option<String>,
    /// Time between frames; each law has its own default
    #[arg(long)]
    dt: Option<f64>,
    /// Dimensions of space: 2 or 3
    #[arg(long, default_value_t = 2)]
    dim: usize,
    /// Bodies of each run, 2 to 64
    #[arg(long, default_value_t = 4)]
    bodies: usize,
    /// Runs to simulate; the preset has its own default
    #[arg(long)]
    runs: Option<usize>,
    /// Frames of each run
    #[arg(long, default_value_t = 1000)]
    frames: usize,
    /// How the messages are kept compact
    #[arg(long, value_enum, default_value_t = ModelKind::Bottleneck)]
    model: ModelKind,
    /// How much work to put in
    #[arg(long, value_enum, default_value_t = Preset::Quick)]
    preset: Preset,
    /// Arithmetic of the matrix products in training
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    precision: Precision,
    /// Message components to keep
    #[arg(long)]
    components: Option<usize>,
    /// The rule that chooses from a Pareto front
    #[arg(long, value_enum, default_value_t = Select::Best)]
    select: Select,
    /// Steps of training; the preset has its own default
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    /// Formulas to consider for each message; the preset has its own default
    #[arg(long, value_name = "N")]
    evaluations: Option<u64>,
    /// The run folder; by default runs/LAW-DIMd-MODEL
    #[arg(short, long, value_name = "FOLDER")]
    output: Option<PathBuf>,
    #[command(flatten)]
    existing: Existing,
}

impl Distill {
    /// Runs the pipeline and prints the recovered law.
    pub fn run(self, context: &Context) -> Result<()> {
        let model = clap::ValueEnum::to_possible_value(&self.model).expect("no model is hidden");
        let (simulate, name) = match &self.dataset {
            Some(path) => {
                let stem = path.file_stem().unwrap_or_default().to_string_lossy();
                (None, format!("{stem}-{}", model.get_name()))
            }
            None => {
                let law = match self.potential {
                    Some(text) => Law::from_potential(&text)?,
                    None => Law::parse(&self.law)?,
                };
                let name = format!("{}-{}d-{}", law.name(), self.dim, model.get_name());
                let settings = simulate::Settings {
                    law,
                    dim: self.dim,
                    bodies: self.bodies,
                    runs: self.runs.unwrap_or(pipeline::runs(self.preset)),
                    frames: self.frames,
                    dt: self.dt,
                    integrator: Integrator::Adaptive,
                    substeps: 1,
                    seed: context.seed,
                };
                (Some(settings), name)
            }
        };
        let settings = Settings {
            dataset: self.dataset,
            simulate,
            model: self.model,
            preset: self.preset,
            precision: self.precision,
            components: self.components,
            select: self.select,
            steps: self.steps,
            evaluations: self.evaluations,
            seed: context.seed,
        };
        let output = self.output.unwrap_or_else(|| PathBuf::from("runs").join(name));
        pipeline::check(&settings)?;
        let folder = RunFolder::create(&output, self.existing)?;
        if self.existing.resume {
            match folder.read_config::<Settings>("distill")? {
                Some(found) if found != settings => {
                    return Err(Error::usage("the run was begun with other settings: resume it with those, or --overwrite")
                        .file(folder.file("config.toml"))
                        .field("distill"));
                }
                _ => {}
            }
        }
        let (summary, text) = pipeline::distill(context.setting(), &folder, &settings)?;
        context.print(&serde_json::to_value(&summary).expect("plain data"), text);
        Ok(())
    }
}
