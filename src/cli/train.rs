//! `lawsmith train`: a data set in, a run folder with a model out.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::Context;
use crate::cosmology::graph::Graph;
use crate::cosmology::train as on_graph;
use crate::error::{Error, Result};
use crate::model::ModelKind;
use crate::nbody::dataset::Dataset;
use crate::network::settings::Changes;
use crate::network::train::{Preset, Settings, Summary, check_room, train, train_replicas};
use crate::ops::check_precision;
use crate::store::run::{Existing, RunFolder};
use crate::store::tensors::TensorFile;

/// Trains a graph network on a data set or on a graph of halos.
#[derive(Args)]
pub struct Train {
    /// The data set (from simulate or import) or the graph (from graph)
    dataset: PathBuf,
    /// How messages are kept compact [default: bottleneck; l1 on a graph of halos]
    #[arg(long, value_enum, value_name = "MODEL")]
    model: Option<ModelKind>,
    /// How much work to do
    #[arg(long, value_enum, default_value_t = Preset::Quick)]
    preset: Preset,
    #[command(flatten)]
    changes: Changes,
    /// Train N networks as one job, with the seeds seed, seed + 1, …, into OUTPUT/seed-N
    #[arg(long, default_value_t = 1, value_name = "N")]
    replicas: usize,
    /// Graphs of halos only: hide halos above this overdensity from the training
    #[arg(long, value_name = "DELTA")]
    hide_above: Option<f64>,
    /// The run folder
    #[arg(short, long)]
    output: PathBuf,
    #[command(flatten)]
    existing: Existing,
}

impl Train {
    /// Trains, and prints losses and what is left of the messages.
    pub fn run(self, context: &Context) -> Result<()> {
        if TensorFile::kind_of(&self.dataset).as_deref() == Some("graph") {
            return self.run_on_graph(context);
        }
        if self.hide_above.is_some() {
            let message = "applies only to a graph of halos";
            return Err(Error::usage(message).file(&self.dataset).field("hide-above"));
        }
        let dataset = Dataset::open(&self.dataset)?;
        let about = &dataset.about;
        let kind = self.model.unwrap_or(ModelKind::Bottleneck);
        let mut settings = Settings::preset(self.preset, kind, about.dim, about.bodies);
        self.changes.apply(&mut settings);
        settings.seed = context.seed;
        settings.check()?;
        check_precision(&context.device, settings.precision)?;
        if self.replicas == 0 {
            return Err(Error::usage("is 0; at least 1 is needed").field("replicas"));
        }
        let (device, resume) = (&context.device, self.existing.resume);
        if self.existing.overwrite {
            check_room(device, &dataset, &settings, self.replicas)?;
        }
        context.progress.note(&settings.describe());
        if self.replicas == 1 {
            let folder = RunFolder::create(&self.output, self.existing)?;
            let summary = train(device, &dataset, &settings, &folder, resume, context.progress)?;
            context.print(&json!(summary), text(&summary));
            return Ok(());
        }
        let folders = (0..self.replicas).map(|k| {
            let name = format!("seed-{}", settings.seed.wrapping_add(k as u64));
            RunFolder::create(&self.output.join(name), self.existing)
        });
        let folders: Vec<RunFolder> = folders.collect::<Result<_>>()?;
        let summaries =
            train_replicas(device, &dataset, &settings, &folders, resume, context.progress)?;
        let mean = |value: fn(&Summary) -> f64| {
            summaries.iter().map(value).sum::<f64>() / summaries.len() as f64
        };
        let document = json!({
            "steps": settings.steps,
            "seconds": summaries.iter().map(|s| s.seconds).fold(0.0, f64::max),
            "seconds_per_step": mean(|s| s.seconds_per_step),
            "train_loss": mean(|s| s.train_loss),
            "test_loss": mean(|s| s.test_loss),
            "replicas": summaries,
        });
        let texts: Vec<String> = summaries.iter().map(text).collect();
        context.print(&document, texts.join("\n"));
        Ok(())
    }
}

impl Train {
    fn run_on_graph(self, context: &Context) -> Result<()> {
        if self.replicas != 1 {
            let message = "networks on a graph are trained one at a time";
            return Err(Error::usage(message).field("replicas"));
        }
        let graph = Graph::open(&self.dataset)?;
        let mut settings = Settings::on_graph(self.preset, self.model.unwrap_or(ModelKind::L1));
        self.changes.apply(&mut settings);
        settings.seed = context.seed;
        on_graph::check(&context.device, &graph, &settings, self.hide_above)?;
        context.progress.note(&settings.describe());
        let folder = RunFolder::create(&self.output, self.existing)?;
        let summary = on_graph::train(
            &context.device,
            &graph,
            &settings,
            self.hide_above,
            &folder,
            self.existing.resume,
            context.progress,
        )?;
        context.print(&json!(summary), summary.text());
        Ok(())
    }
}

/// The result of one training, for a person.
fn text(summary: &Summary) -> String {
    let Summary { steps, seconds, train_loss, test_loss, test_data, components, .. } = summary;
    format!(
        "{}: {steps} steps in {seconds:.1} s ({:.3} ms a step)\n\
         loss: training {train_loss:.4}, test {test_loss:.4} ({test_data})\n\
         messages: {}",
        summary.folder.display(),
        1e3 * summary.seconds_per_step,
        components.len()
    )
}
