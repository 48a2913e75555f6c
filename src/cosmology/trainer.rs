//! The training of one network on one large graph: receivers as mini-batches, their stars streamed
//! from the mapped graph by [`edge`], memory of the order of nodes and tiles.
//!
//! As in the training on small systems everything random comes from (seed, step), and a checkpoint
//! holds what metrics and pruning have accumulated, so that a resumed training is bit-identical to an
//! uninterrupted one.

use std::path::PathBuf;

use super::graph::{Graph, N_FEATURES};
use super::split::Split;
use super::symmetry::{self, Turn};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::network::forward::{self, Evaluation};
use crate::network::metrics::Metrics;
use crate::network::model::{About, Model, OnGraph};
use crate::network::pruning;
use crate::network::settings::Settings;
use crate::network::spec::Shape;
use crate::network::state::{State, Sums, Training};
use crate::network::trainer::{initial, rate};
use crate::ops::{adam, edge};
use crate::random::Random;
use crate::store::run::RunFolder;

/// Streams of a training's seed above those of the steps, which draw turns.
const EPOCH: u64 = 1 << 60;
const VALIDATION: u64 = 2 << 60;
/// Share of the training nodes, at random, on which pruning is judged, and the most of them. They leak
/// what is around them; errors that are reported come from the held-out slab.
const VALIDATION_SHARE: f64 = 0.1;
const MOST_VALIDATION: usize = 1000;
/// Edges on which the spread of messages is measured.
const MEASURED_EDGES: usize = 20_000;

/// A training.
pub(super) struct Trainer<'a> {
    device: &'a Device,
    graph: &'a Graph,
    on_graph: OnGraph,
    settings: Settings,
    path: PathBuf,
    features: Vec<f32>,
    targets: &'a [f32],
    train: Vec<u32>,
    validation: Vec<u32>,
    /// `[edge, 2·N_FEATURES]`: inputs of φe on random edges of the training nodes.
    sample: Vec<f32>,
    /// The order of the training nodes in this epoch.
    order: (u64, Vec<u32>),
    sums: Sums,
    /// Opened behind the last step that the checkpoint has.
    metrics: Option<Metrics>,
    loss: edge::Loss,
    step: u64,
    edges: u64,
    state: State,
    gradients: Vec<f32>,
    workspace: edge::Workspace,
}

impl<'a> Trainer<'a> {
    /// Starts a training, or goes on where its checkpoint stopped.
    pub fn new(
        device: &'a Device,
        graph: &'a Graph,
        settings: &Settings,
        hide_above: Option<f64>,
        folder: &RunFolder,
    ) -> Result<Self> {
        let model = folder.file("model.safetensors");
        let mut trainer = Self::with_model(device, graph, settings, hide_above, model)?;
        let metrics = folder.file("metrics.csv");
        let messages = shape(settings).message_dim;
        trainer.metrics = Some(Metrics::open(&metrics, messages, trainer.step)?);
        Ok(trainer)
    }

    /// Takes the first step of a new training, of which nothing is kept: what it fails for is known before
    /// a file is touched.
    pub fn check(
        device: &Device,
        graph: &Graph,
        settings: &Settings,
        hide_above: Option<f64>,
    ) -> Result<()> {
        Trainer::with_model(device, graph, settings, hide_above, PathBuf::new())?.take_step()
    }

    /// Without a place for metrics yet.
    fn with_model(
        device: &'a Device,
        graph: &'a Graph,
        settings: &Settings,
        hide_above: Option<f64>,
        path: PathBuf,
    ) -> Result<Self> {
        let split = Split::new(graph, hide_above)?;
        // A halo without neighbours teaches φe nothing.
        let mut connected = split.train;
        connected.retain(|&node| !graph.edges_of(node).is_empty());
        if connected.len() < 2 {
            let message = "fewer than two of the halos to train on have neighbours";
            return Err(Error::input(message).file(graph.path()).field("radius"));
        }
        let (train, validation) = validation(connected, settings.seed);
        let features = graph.scaled_features();
        let shape = shape(settings);
        let mut trainer = Trainer {
            device,
            graph,
            on_graph: OnGraph::new(graph, hide_above),
            settings: settings.clone(),
            sample: super::messages::sample(
                graph,
                &features,
                &train,
                MEASURED_EDGES,
                settings.seed,
            )
            .inputs,
            features,
            targets: graph.targets()?,
            train,
            validation,
            order: (u64::MAX, Vec::new()),
            sums: Sums::default(),
            metrics: None,
            loss: edge::Loss::default(),
            step: 0,
            edges: 0,
            state: State::new(shape, Vec::new()),
            gradients: Vec::new(),
            workspace: edge::Workspace::default(),
            path,
        };
        if trainer.path.exists() {
            trainer.load()?;
        } else {
            let mut parameters = initial(&shape, settings.seed);
            symmetry::centre(&shape.arena(), &mut parameters);
            trainer.state = State::new(shape, parameters);
        }
        trainer.gradients = vec![0.0; trainer.state.parameters.len()];
        trainer.workspace.keep(device, &trainer.features, trainer.targets)?;
        Ok(trainer)
    }

    fn load(&mut self) -> Result<()> {
        let expected = self.about();
        let same = |found: &About| {
            (&found.settings, &found.graph) == (&expected.settings, &expected.graph)
        };
        (self.step, self.sums) = self.state.load(&self.path, same, "graph")?;
        Ok(())
    }

    /// Edges that have gone forward and back since this training was opened.
    pub fn edges(&self) -> u64 {
        self.edges
    }

    /// The receivers of a step: the next of a random order of all, which each epoch draws anew.
    fn receivers(&mut self) -> Vec<u32> {
        let count = self.settings.graphs.min(self.train.len());
        let steps = (self.train.len() / count) as u64;
        let (epoch, at) = (self.step / steps, (self.step % steps) as usize);
        if self.order.0 != epoch {
            let mut order = self.train.clone();
            shuffle(&mut order, &mut Random::new(self.settings.seed, EPOCH + epoch));
            self.order = (epoch, order);
        }
        let mut receivers = self.order.1[at * count..][..count].to_vec();
        receivers.sort_unstable();
        receivers
    }

    /// One step of the optimizer.
    fn take_step(&mut self) -> Result<()> {
        let receivers = self.receivers();
        let shape = self.state.shape;
        let arena = shape.arena();
        let turn = Turn::random(&mut Random::new(self.settings.seed, self.step));
        let mut turned = self.state.parameters.clone();
        turn.apply(&arena, &mut turned);
        let batch = batch(self.graph, &self.features, &self.settings, shape, &receivers, self.step);
        self.loss = edge::gradient(
            self.device,
            &batch,
            self.targets,
            &turned,
            &mut self.gradients,
            &mut self.workspace,
        )?;
        self.sums.add(self.step, self.loss.prediction, self.loss.penalty)?;
        turn.undo(&arena, &mut self.gradients);
        symmetry::project(&arena, &mut self.gradients);
        let args = rate(&self.settings, self.step);
        let State { parameters, m, v, .. } = &mut self.state;
        let gradients = &self.gradients;
        adam::step(self.device, &args, 1, adam::Arenas { parameters, m, v, gradients })?;
        let degree = |&node: &u32| self.graph.edges_of(node).len() as u64;
        self.edges += receivers.iter().map(degree).sum::<u64>();
        self.step += 1;
        Ok(())
    }

    /// The row of metrics and the pruning decision that are due at this step.
    fn after_step(&mut self) -> Result<()> {
        let Settings { steps, metrics_every, prune, .. } = self.settings;
        let row = self.step.is_multiple_of(metrics_every) || self.step == steps;
        let decision = prune && pruning::is_decision(self.step, steps);
        if !row && !decision {
            return Ok(());
        }
        let evaluation = self.evaluate()?;
        if prune {
            self.state.note(evaluation.loss);
        }
        if row {
            let metrics = self.metrics.as_mut().expect("opened in new");
            self.sums.write(metrics, self.step, &self.settings, &evaluation)?;
        }
        if decision {
            self.decide(evaluation)?;
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<Evaluation> {
        let predictions = predict(
            self.device,
            self.graph,
            &self.features,
            &self.model(),
            &self.validation,
            &mut self.workspace,
        )?;
        let error = |(&node, p): (&u32, &f32)| f64::from((self.targets[node as usize] - p).abs());
        let errors = self.validation.iter().zip(&predictions).map(error);
        let loss = errors.sum::<f64>() / self.validation.len() as f64;
        let spread =
            forward::spread(self.device, &self.state.shape, &self.state.parameters, &self.sample)?;
        Ok(Evaluation { loss, means: spread.means, significance: spread.significance })
    }

    /// Judges the last cut, and makes the next one.
    fn decide(&mut self, mut evaluation: Evaluation) -> Result<()> {
        if self.state.take_back() {
            evaluation = self.evaluate()?;
        }
        let received = self.graph.about.edges as f64 / self.graph.about.nodes as f64;
        self.state.cut(&evaluation, received, self.step, self.settings.steps);
        self.gradients.resize(self.state.parameters.len(), 0.0);
        Ok(())
    }

    fn about(&self) -> About {
        About {
            settings: self.settings.clone(),
            dim: 3,
            bodies: 0,
            runs: 0,
            frames: 0,
            dataset_seed: 0,
            dataset: self.graph.absolute_path(),
            law: None,
            step: self.step,
            train_loss: self.sums.train_loss,
            validation_loss: self.sums.validation_loss,
            graph: Some(self.on_graph.clone()),
        }
    }

    /// The network as it is now.
    pub fn model(&self) -> Model {
        Model {
            shape: self.state.shape,
            kind: self.settings.model,
            components: self.state.components.clone(),
            parameters: self.state.parameters.clone(),
            about: self.about(),
        }
    }
}

impl Training for Trainer<'_> {
    fn step(&self) -> u64 {
        self.step
    }

    fn recent_loss(&self) -> f64 {
        f64::from(self.loss.prediction)
    }

    /// One step of the optimizer, with what is due then.
    fn advance(&mut self, _until: u64) -> Result<()> {
        self.take_step()?;
        self.after_step()
    }

    fn save(&mut self) -> Result<()> {
        self.state.save(&self.path, &self.model(), 0, &self.sums)
    }
}

/// The network on a graph, before pruning.
pub(super) fn shape(settings: &Settings) -> Shape {
    Shape { n_features: N_FEATURES, outputs: 1, ..settings.shape(3) }
}

fn shuffle(nodes: &mut [u32], random: &mut Random) {
    for last in (1..nodes.len()).rev() {
        nodes.swap(last, random.below(last + 1));
    }
}

/// Takes the validation nodes from those of the training.
fn validation(mut train: Vec<u32>, seed: u64) -> (Vec<u32>, Vec<u32>) {
    shuffle(&mut train, &mut Random::new(seed, VALIDATION));
    let count = ((train.len() as f64 * VALIDATION_SHARE) as usize).clamp(1, MOST_VALIDATION);
    let mut validation = train.split_off(train.len() - count);
    validation.sort_unstable();
    train.sort_unstable();
    (train, validation)
}

/// What [`edge`] works on.
fn batch<'a>(
    graph: &'a Graph,
    features: &'a [f32],
    settings: &Settings,
    shape: Shape,
    receivers: &'a [u32],
    step: u64,
) -> edge::Batch<'a> {
    edge::Batch {
        shape,
        penalty: settings.penalty(),
        weight_decay: settings.weight_decay as f32,
        precision: settings.precision,
        row_start: graph.row_start(),
        sender: graph.senders(),
        receivers,
        features,
        coordinates: edge::Coordinates {
            dim: 3,
            period: (graph.about.edge / graph.about.scales.length) as f32,
            shift: [0.0; 3],
        },
        noise_seed: settings.seed,
        step,
    }
}

/// The predictions of a network for some nodes, `features` being the graph's scaled ones.
pub(super) fn predict(
    device: &Device,
    graph: &Graph,
    features: &[f32],
    model: &Model,
    receivers: &[u32],
    workspace: &mut edge::Workspace,
) -> Result<Vec<f32>> {
    let mut predictions = vec![0.0; receivers.len()];
    let batch = batch(graph, features, &model.about.settings, model.shape, receivers, 0);
    edge::predict(device, &batch, &model.parameters, &mut predictions, workspace)?;
    Ok(predictions)
}
