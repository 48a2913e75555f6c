//! `lawsmith distill`: everything, from a system to its law.

use std::path::{Path, PathBuf};

use clap::Args;

use super::Context;
use super::system::System;
use crate::cosmology as on_graph;
use crate::cosmology::graph::Graph;
use crate::distill::laws::Search;
use crate::distill::pipeline::{self, Settings};
use crate::error::{Error, Result};
use crate::model::{ModelKind, Precision};
use crate::network::settings::{Changes, Preset, Settings as TrainSettings};
use crate::ops::check_precision;
use crate::report;
use crate::store::run::{Existing, RunFolder};
use crate::store::tensors::TensorFile;
use crate::symbolic::front::Select;

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
    /// How messages are kept compact [default: bottleneck; l1 on a graph of halos]
    #[arg(long, value_enum, value_name = "MODEL")]
    model: Option<ModelKind>,
    /// How much work to do
    #[arg(long, value_enum, default_value_t = Preset::Quick)]
    preset: Preset,
    #[command(flatten)]
    training: Changes,
    /// Number of message components to keep
    #[arg(long)]
    components: Option<usize>,
    /// Rule that chooses a law from its Pareto front
    #[arg(long, value_enum, default_value_t = Select::Best)]
    select: Select,
    /// Formulas to consider for each message [default: depends on the preset]
    #[arg(long, value_name = "N")]
    evaluations: Option<u64>,
    /// Graphs of halos only: hide halos above this overdensity from training and fits
    #[arg(long, value_name = "DELTA")]
    hide_above: Option<f64>,
    /// Graphs of halos only: search for laws without masses
    #[arg(long)]
    without_mass: bool,
    /// The run folder [default: runs/LAW-DIMd-MODEL]
    #[arg(short, long, value_name = "FOLDER")]
    output: Option<PathBuf>,
    #[command(flatten)]
    existing: Existing,
}

impl Distill {
    /// Runs the pipeline and prints the recovered law.
    pub fn run(self, context: &Context) -> Result<()> {
        if let Some(path) = &self.dataset
            && TensorFile::kind_of(path).as_deref() == Some("graph")
        {
            return self.run_on_graph(path, context);
        }
        if self.hide_above.is_some() {
            let message = "applies only to a graph of halos";
            return Err(Error::usage(message).field("hide-above"));
        }
        if self.without_mass {
            let message = "applies only to a graph of halos";
            return Err(Error::usage(message).field("without-mass"));
        }
        let kind = self.model.unwrap_or(ModelKind::Bottleneck);
        let model = clap::ValueEnum::to_possible_value(&kind).expect("no model is hidden");
        let (simulate, name) = match &self.dataset {
            Some(path) => {
                let stem = path.file_stem().unwrap_or_default().to_string_lossy();
                (None, format!("{stem}-{}", model.get_name()))
            }
            None => {
                let runs = self.runs.unwrap_or(pipeline::runs(self.preset));
                let settings = self.system.settings(runs, context)?;
                let (law, dim) = (settings.law.name(), settings.dim);
                let name = format!("{law}-{dim}d-{}", model.get_name());
                (Some(settings), name)
            }
        };
        let settings = Settings {
            dataset: self.dataset,
            simulate,
            model: kind,
            preset: self.preset,
            training: self.training,
            components: self.components,
            select: self.select,
            evaluations: self.evaluations,
            seed: context.seed,
        };
        let output = self.output.unwrap_or_else(|| PathBuf::from("runs").join(name));
        pipeline::check(&settings)?;
        check_precision(&context.device, settings.training.precision.unwrap_or(Precision::F32))?;
        let folder = RunFolder::create(&output, self.existing)?;
        if self.existing.resume {
            match folder.read_config::<Settings>("distill")? {
                Some(found) if found != settings => {
                    return Err(Error::usage("the run was started with other settings: resume it with those, or use --overwrite")
                        .file(folder.file("config.toml"))
                        .field("distill"));
                }
                _ => {}
            }
        }
        let (summary, text) = pipeline::distill(context.setting(), &folder, &settings)?;
        report::write(&folder)?;
        let text = format!("{text}\nreport: {}", folder.file("report.html").display());
        context.print(&serde_json::to_value(&summary).expect("plain data"), text);
        Ok(())
    }

    /// The stages on a graph of halos.
    fn run_on_graph(&self, path: &Path, context: &Context) -> Result<()> {
        let graph = Graph::open(path)?;
        let kind = self.model.unwrap_or(ModelKind::L1);
        let mut settings = TrainSettings::on_graph(self.preset, kind);
        self.training.apply(&mut settings);
        settings.seed = context.seed;
        if self.evaluations == Some(0) {
            return Err(Error::usage("is 0; at least 1 is needed").field("evaluations"));
        }
        on_graph::train::check(&context.device, &graph, &settings, self.hide_above)?;
        let model = clap::ValueEnum::to_possible_value(&kind).expect("no model is hidden");
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let name = format!("{stem}-{}", model.get_name());
        let output = self.output.clone().unwrap_or_else(|| PathBuf::from("runs").join(name));
        let folder = RunFolder::create(&output, self.existing)?;
        let asked = on_graph::distill::Settings {
            graph: graph.absolute_path(),
            hide_above: self.hide_above,
            components: self.components,
            without_mass: self.without_mass,
            select: self.select,
            evaluations: self.evaluations,
            training: settings.clone(),
        };
        let found = folder.read_config::<on_graph::distill::Settings>("distill");
        if self.existing.resume && found?.is_some_and(|found| found != asked) {
            let message =
                "the run was started with other settings: resume it with those, or use --overwrite";
            return Err(Error::usage(message).file(folder.file("config.toml")).field("distill"));
        }
        folder.write_config("distill", &asked)?;
        let resume = folder.file("model.safetensors").exists();
        let (device, progress) = (&context.device, context.progress);
        let trained = on_graph::train::train(
            device,
            &graph,
            &settings,
            self.hide_above,
            &folder,
            resume,
            progress,
        )?;
        let search = Search::new(self.preset, self.evaluations, self.select);
        let summary = on_graph::distill::distill(
            context.setting(),
            &folder,
            on_graph::messages::Wanted {
                components: self.components,
                without_mass: self.without_mass,
            },
            search,
            trained.seconds,
        )?;
        report::write(&folder)?;
        let text = format!(
            "{}\n{}\nreport: {}",
            trained.text(),
            summary.text(),
            folder.file("report.html").display()
        );
        context.print(&serde_json::to_value(&summary).expect("plain data"), text);
        Ok(())
    }
}
