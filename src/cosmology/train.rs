//! Training a network on a graph: the loop around the trainer, its settings, and what it ends with.

use std::path::PathBuf;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::graph::Graph;
use super::split::Split;
use super::table6::Measure;
use super::trainer::{Trainer, predict};
use crate::device::Device;
use crate::error::Result;
use crate::network::model::Model;
use crate::network::settings::Settings;
use crate::network::state;
use crate::ops::{check_precision, edge};
use crate::progress::Progress;
use crate::store::run::RunFolder;

/// What a training ended with.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Steps of the whole training.
    pub steps: u64,
    /// Wall-clock time of this call.
    pub seconds: f64,
    /// Edges through forward and backward pass a second, in this call.
    pub edges_per_second: f64,
    /// Mean absolute error on training batches, mean over the last row of `metrics.csv`.
    pub train_loss: f64,
    /// Mean absolute error on nodes that only pruning was judged on.
    pub validation_loss: f64,
    /// On the held-out slab.
    pub test: Measure,
    /// On the nodes that were hidden for their overdensity.
    pub hidden: Option<Measure>,
    /// Original index of each message that is left.
    pub components: Vec<u32>,
    /// The run folder.
    pub folder: PathBuf,
}

/// The `[train]` table of `config.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Config {
    graph: PathBuf,
    hide_above: Option<f64>,
    #[serde(flatten)]
    settings: Settings,
}

/// All that a training can fail for but divergence later on, found by a first step of which nothing is kept.
///
/// # Errors
/// Settings that make no sense or that the device cannot do; a graph without target or without halos to
/// train on; too little memory.
pub fn check(
    device: &Device,
    graph: &Graph,
    settings: &Settings,
    hide_above: Option<f64>,
) -> Result<()> {
    settings.check()?;
    check_precision(device, settings.precision)?;
    Trainer::check(device, graph, settings, hide_above)
}

/// Trains a network on `graph` into `folder`, nodes above `hide_above` hidden. With `resume` it goes on
/// where an interrupted training with the same settings stopped.
///
/// # Errors
/// Settings that make no sense or differ from those of the run to resume; a graph without target; a
/// training that diverges; `interrupted` after Ctrl-C, when the checkpoint is written.
pub fn train(
    device: &Device,
    graph: &Graph,
    settings: &Settings,
    hide_above: Option<f64>,
    folder: &RunFolder,
    resume: bool,
    progress: Progress,
) -> Result<Summary> {
    settings.check()?;
    let config = Config { graph: graph.absolute_path(), hide_above, settings: settings.clone() };
    folder.begin("train", &config, "graph", resume)?;
    let begun = Instant::now();
    let mut trainer = Trainer::new(device, graph, settings, hide_above, folder)?;
    state::train(&mut trainer, settings, folder, progress)?;
    let seconds = begun.elapsed().as_secs_f64();
    let (edges, model) = (trainer.edges() as f64, trainer.model());
    // What it holds on a device is room for the errors of the rest.
    drop(trainer);
    let (test, hidden) = losses(device, graph, &model)?;
    Ok(Summary {
        steps: settings.steps,
        seconds,
        edges_per_second: edges / seconds,
        train_loss: model.about.train_loss.unwrap_or(f64::NAN),
        validation_loss: model.about.validation_loss.unwrap_or(f64::NAN),
        test,
        hidden,
        components: model.components,
        folder: folder.path().to_path_buf(),
    })
}

/// The errors of a network on the held-out slab and on the hidden nodes.
///
/// # Errors
/// Those of [`Split::new`] and of the operation.
pub fn losses(device: &Device, graph: &Graph, model: &Model) -> Result<(Measure, Option<Measure>)> {
    let hide_above = model.about.graph.as_ref().and_then(|g| g.hide_above);
    let split = Split::new(graph, hide_above)?;
    let features = graph.scaled_features();
    let targets = graph.targets()?;
    let mut workspace = edge::Workspace::default();
    let mut measure = |nodes: &[u32]| -> Result<Measure> {
        let found = predict(device, graph, &features, model, nodes, &mut workspace)?;
        let error = |(&node, p): (&u32, &f32)| f64::from((targets[node as usize] - p).abs());
        let errors: Vec<f64> = nodes.iter().zip(&found).map(error).collect();
        Ok(Measure::of(graph, nodes, &errors))
    };
    let test = measure(&split.test)?;
    let hidden = match split.hidden.is_empty() {
        true => None,
        false => Some(measure(&split.hidden)?),
    };
    Ok((test, hidden))
}

impl Summary {
    /// For a person.
    pub fn text(&self) -> String {
        let Summary { steps, seconds, edges_per_second, train_loss, components, .. } = self;
        let measure = |m: &Measure| format!("{:.4} ± {:.4}", m.error, m.jackknife);
        let hidden = self
            .hidden
            .as_ref()
            .map_or(String::new(), |hidden| format!(", hidden overdensities {}", measure(hidden)));
        format!(
            "{}: {steps} steps in {seconds:.1} s ({:.0} thousand edges/s)\n\
             mean absolute error: training {train_loss:.4}, held-out slab {}{hidden}\n\
             messages: {}",
            self.folder.display(),
            edges_per_second / 1e3,
            measure(&self.test),
            components.len()
        )
    }
}
