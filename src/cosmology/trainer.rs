//! The training of one network on one large graph: receivers as mini-batches, their stars streamed
//! from the mapped graph by [`edge`], memory of the order of nodes and tiles.
//!
//! As in the training on small systems everything random comes from (seed, step), and a checkpoint
//! holds what metrics and pruning have accumulated, so that a resumed training is bit-identical to an
//! uninterrupted one.
//!
//! On a GPU the network and its moments stay on the device, and of a step only its receivers go there, until
//! something is due.

use std::path::PathBuf;

use super::graph::{Graph, N_FEATURES};
use super::split::Split;
use crate::device::{Device, Gpu};
use crate::error::{Error, Result};
use crate::model::Shape;
use crate::network::forward::{self, Evaluation};
use crate::network::metrics::Metrics;
use crate::network::model::{About, Model, OnGraph};
use crate::network::pruning;
use crate::network::settings::Settings;
use crate::network::state::{State, Sums, Training, next_due};
use crate::network::trainer::{initial, rate};
use crate::ops::edge::symmetry::{self, Turn};
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
    /// The loss of the last step.
    loss: f32,
    step: u64,
    edges: u64,
    state: State,
    gradients: Vec<f32>,
    workspace: edge::Workspace,
    /// Where the training goes on on a GPU; parameters and moments above are then copies, as old as the
    /// last look at them.
    on_gpu: Option<edge::gpu::Resident>,
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
    /// a file is touched. On a GPU that is a step on the receivers with the most edges, and an evaluation: no
    /// later one needs more memory.
    pub fn check(
        device: &Device,
        graph: &Graph,
        settings: &Settings,
        hide_above: Option<f64>,
    ) -> Result<()> {
        let mut trainer = Trainer::with_model(device, graph, settings, hide_above, PathBuf::new())?;
        if trainer.on_gpu.is_none() {
            return trainer.take_step();
        }
        let mut order = trainer.train.clone();
        order.sort_by_key(|&node| std::cmp::Reverse(graph.edges_of(node).len()));
        trainer.order = (0, order);
        trainer.take_steps(1)?;
        trainer.evaluate().map(drop)
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
            let message = "fewer than two of the training halos have neighbours";
            return Err(Error::input(message).file(graph.path()).field("radius"));
        }
        let (train, validation) = validation(connected, settings.seed);
        let features = graph.scaled_features();
        let shape = shape(settings);
        let mut trainer = Trainer {
            device,
            graph,
            on_graph: graph.about.on_graph(hide_above),
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
            loss: 0.0,
            step: 0,
            edges: 0,
            state: State::new(shape, Vec::new()),
            gradients: Vec::new(),
            workspace: edge::Workspace::default(),
            on_gpu: None,
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
        trainer.workspace.keep(device, &trainer.features, trainer.targets, graph.senders())?;
        if let Device::Gpu(gpu) = device {
            trainer.on_gpu = Some(trainer.move_to(*gpu)?);
        }
        Ok(trainer)
    }

    /// The training on the device, as it is here.
    fn move_to(&self, gpu: Gpu) -> Result<edge::gpu::Resident> {
        let settings = &self.settings;
        let rates: Vec<adam::Args> = (0..settings.steps).map(|step| rate(settings, step)).collect();
        let State { parameters, m, v, .. } = &self.state;
        edge::gpu::Resident::new(gpu, &rates, [parameters, m, v])
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
    fn receivers(&mut self, step: u64) -> Vec<u32> {
        let count = self.settings.graphs.min(self.train.len());
        let steps = (self.train.len() / count) as u64;
        let (epoch, at) = (step / steps, (step % steps) as usize);
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
        let receivers = self.receivers(self.step);
        let shape = self.state.shape;
        let arena = shape.arena();
        let turn = self.turn(self.step);
        let mut turned = self.state.parameters.clone();
        turn.apply(&arena, &mut turned);
        let batch = batch(self.graph, &self.features, &self.settings, shape, &receivers, self.step);
        let loss = edge::gradient(
            self.device,
            &batch,
            self.targets,
            &turned,
            &mut self.gradients,
            &mut self.workspace,
        )?;
        let number = self.step;
        self.note_loss([loss.prediction, loss.penalty])?;
        turn.undo(&arena, &mut self.gradients);
        symmetry::project(&arena, &mut self.gradients);
        let args = rate(&self.settings, number);
        let State { parameters, m, v, .. } = &mut self.state;
        let gradients = &self.gradients;
        adam::step(self.device, &args, 1, adam::Arenas { parameters, m, v, gradients })?;
        self.count(&receivers);
        Ok(())
    }

    /// Steps on the GPU, at least one.
    fn take_steps(&mut self, until: u64) -> Result<()> {
        let most = self.step + edge::gpu::MOST_STEPS as u64;
        let next = until.min(next_due(self.step, &self.settings)).min(most);
        for step in self.step..next {
            let (receivers, turn) = (self.receivers(step), self.turn(step));
            let shape = self.state.shape;
            let batch = batch(self.graph, &self.features, &self.settings, shape, &receivers, step);
            let training = self.on_gpu.as_mut().expect("a training that is on a GPU");
            training.step(&self.workspace, &batch, self.targets, &turn)?;
            self.count(&receivers);
        }
        let training = self.on_gpu.as_mut().expect("a training that is on a GPU");
        training.losses()?.into_iter().try_for_each(|loss| self.note_loss(loss))
    }

    /// How the graph is turned at a step.
    fn turn(&self, step: u64) -> Turn {
        Turn::random(&mut Random::new(self.settings.seed, step))
    }

    /// Adds loss and penalty of a step to the sums; with that it is done.
    fn note_loss(&mut self, [loss, penalty]: [f32; 2]) -> Result<()> {
        self.loss = loss;
        self.sums.add(self.step, loss, penalty)?;
        self.step += 1;
        Ok(())
    }

    /// Counts the edges of a batch.
    fn count(&mut self, receivers: &[u32]) {
        let degree = |&node: &u32| self.graph.edges_of(node).len() as u64;
        self.edges += receivers.iter().map(degree).sum::<u64>();
    }

    /// Copies the parameters back from the GPU.
    fn fetch_parameters(&mut self) -> Result<()> {
        match &self.on_gpu {
            None => Ok(()),
            Some(training) => training.parameters(&mut self.state.parameters),
        }
    }

    /// Copies the moments back from the GPU.
    fn fetch_moments(&mut self) -> Result<()> {
        match &self.on_gpu {
            None => Ok(()),
            Some(training) => training.moments(&mut self.state.m, &mut self.state.v),
        }
    }

    /// The row of metrics and the pruning decision that are due at this step.
    fn after_step(&mut self) -> Result<()> {
        let Settings { steps, metrics_every, prune, .. } = self.settings;
        let row = self.step.is_multiple_of(metrics_every) || self.step == steps;
        let decision = prune && pruning::is_decision(self.step, steps);
        if !row && !decision {
            return Ok(());
        }
        self.fetch_parameters()?;
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
        self.fetch_moments()?;
        let taken_back = self.state.take_back();
        if taken_back {
            evaluation = self.evaluate()?;
        }
        let received = self.graph.about.edges as f64 / self.graph.about.nodes as f64;
        let cut = self.state.cut(&evaluation, received, self.step, self.settings.steps);
        self.gradients.resize(self.state.parameters.len(), 0.0);
        match &mut self.on_gpu {
            Some(training) if taken_back || cut => {
                training.replace([&self.state.parameters, &self.state.m, &self.state.v])
            }
            _ => Ok(()),
        }
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
        self.loss.into()
    }

    /// One step of the optimizer, on a GPU as many as there are before `until` or before something else is
    /// due, with what is due then.
    fn advance(&mut self, until: u64) -> Result<()> {
        match self.on_gpu {
            None => self.take_step()?,
            Some(_) => self.take_steps(until)?,
        }
        self.after_step()
    }

    fn save(&mut self) -> Result<()> {
        self.fetch_parameters()?;
        self.fetch_moments()?;
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
