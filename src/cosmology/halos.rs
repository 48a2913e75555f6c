//! Training on a graph of halos: mini-batches of receivers, whose edges [`edge`] streams from the mapped graph;
//! memory is proportional to nodes and tiles.

use std::ops::Range;
use std::path::PathBuf;

use super::edges;
use super::graph::{Graph, N_FEATURES};
use super::run::hide_above;
use super::split::Split;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::model::{ModelKind, Precision, Shape};
use crate::network::forward::{self, Evaluation};
use crate::network::model::{Model, TrainedOn};
use crate::network::settings::{Preset, Settings};
use crate::network::system::{Measure, Session, System, Tested, uniform};
use crate::observer::Observer;
use crate::ops::edge;
use crate::ops::edge::symmetry::{self, Turn};
use crate::ops::tiny::Loss;
use crate::ops::{Training, check_precision, precision};
use crate::random::Random;

/// Random streams of a training's seed, above those of the steps, which draw rotations.
const EPOCH: u64 = 1 << 60;
const VALIDATION: u64 = 2 << 60;
/// Random share of the training nodes on which pruning is judged, and their maximum number. They share their
/// surroundings with training nodes; reported errors come from the held-out slab.
const VALIDATION_SHARE: f64 = 0.1;
const MOST_VALIDATION: usize = 1000;
/// Edges on which the spread of messages is measured.
const MEASURED_EDGES: usize = 20_000;

/// A graph of halos, and which of its nodes are hidden.
pub struct Halos {
    /// The graph.
    pub graph: Graph,
    /// Nodes with a larger overdensity are hidden from training and fits.
    pub hide_above: Option<f64>,
}

/// A training on a graph.
struct OnHalos<'a> {
    graph: &'a Graph,
    settings: Settings,
    features: Vec<f32>,
    targets: &'a [f32],
    train: Vec<u32>,
    validation: Vec<u32>,
    /// `[edge, 2·N_FEATURES]`: inputs of φe on random edges of the training nodes.
    sample: Vec<f32>,
    /// The epoch and its order of the training nodes.
    order: (u64, Vec<u32>),
    session: edge::Session,
    edges: u64,
}

impl Halos {
    /// Sets up the training.
    fn train(
        &self,
        device: Device,
        settings: &Settings,
        arenas: [&[f32]; 3],
    ) -> Result<OnHalos<'_>> {
        let graph = &self.graph;
        let split = Split::new(graph, self.hide_above)?;
        // φe learns nothing from a halo without neighbours.
        let mut connected = split.train;
        connected.retain(|&node| !graph.edges_of(node).is_empty());
        if connected.len() < 2 {
            let message = "fewer than two of the training halos have neighbours";
            return Err(Error::input(message).file(graph.path()).field("radius"));
        }
        let (train, validation) = validation(connected, settings.seed);
        let (features, targets) = (graph.scaled_features(), graph.targets()?);
        let sample = edges::sample(graph, &features, &train, MEASURED_EDGES, settings.seed);
        let (rates, senders) = (settings.rates(), graph.senders());
        let session = edge::Session::new(&device, rates, arenas, &features, targets, senders)?;
        Ok(OnHalos {
            graph,
            settings: settings.clone(),
            features,
            targets,
            train,
            validation,
            sample,
            order: (u64::MAX, Vec::new()),
            session,
            edges: 0,
        })
    }
}

impl System for Halos {
    fn trained_on(&self) -> TrainedOn {
        TrainedOn::Halos(self.graph.about.on_graph(self.hide_above))
    }

    fn path(&self) -> PathBuf {
        self.graph.absolute_path()
    }

    fn settings(&self, preset: Preset, model: Option<ModelKind>) -> Settings {
        Settings::on_graph(preset, model.unwrap_or(ModelKind::L1))
    }

    fn shape(&self, settings: &Settings) -> Shape {
        Shape { n_features: N_FEATURES, outputs: 1, ..settings.shape(3) }
    }

    fn initial(&self, shape: &Shape, seed: u64) -> Vec<f32> {
        let mut parameters = uniform(shape, seed);
        symmetry::centre(&shape.arena(), &mut parameters);
        parameters
    }

    fn mean_degree(&self) -> f64 {
        self.graph.about.edges as f64 / self.graph.about.nodes as f64
    }

    /// Networks on a graph are trained one at a time.
    fn begin<'a>(
        &'a self,
        device: Device,
        settings: &[Settings],
        _: Shape,
        arenas: [&[f32]; 3],
        _: u64,
    ) -> Result<Box<dyn Session + 'a>> {
        assert_eq!(settings.len(), 1, "a stack of networks on a graph");
        Ok(Box::new(self.train(device, &settings[0], arenas)?))
    }

    /// Takes the first step on the receivers with the most edges, and evaluates: no later step needs more
    /// memory.
    fn check(&self, device: Device, settings: &[Settings]) -> Result<()> {
        let shape = self.shape(&settings[0]);
        let parameters = self.initial(&shape, settings[0].seed);
        let zeros = vec![0.0; parameters.len()];
        let mut training = self.train(device, &settings[0], [&parameters, &zeros, &zeros])?;
        let mut order = training.train.clone();
        order.sort_by_key(|&node| std::cmp::Reverse(self.graph.edges_of(node).len()));
        training.order = (0, order);
        training.advance(shape, 0..1)?;
        training.evaluate(0, &shape, &parameters).map(drop)
    }

    fn test(&self, device: Device, model: &Model, _: &dyn Observer) -> Result<Tested> {
        let (test, hidden) = errors(&device, &self.graph, model)?;
        let data = "held-out slab".to_string();
        Ok(Tested { loss: test.error, data, test: Some(test), hidden })
    }
}

impl OnHalos<'_> {
    /// The receivers of a step: the next in a random order of all, drawn anew in each epoch.
    fn receivers(&mut self, step: u64) -> Vec<u32> {
        let count = self.settings.batch.min(self.train.len());
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
}

impl Session for OnHalos<'_> {
    fn training(&mut self) -> &mut dyn Training {
        &mut self.session
    }

    fn advance(&mut self, shape: Shape, steps: Range<u64>) -> Result<Vec<Loss>> {
        for step in steps {
            let receivers = self.receivers(step);
            let turn = Turn::random(&mut Random::new(self.settings.seed, step));
            let OnHalos { graph, features, settings, .. } = self;
            let device = *self.session.device();
            let batch = batch(&device, graph, features, settings, shape, &receivers, step);
            self.session.step(&batch, self.targets, &turn)?;
            let degree = |&node: &u32| graph.edges_of(node).len() as u64;
            self.edges += receivers.iter().map(degree).sum::<u64>();
        }
        self.session.losses()
    }

    fn evaluate(&mut self, _: usize, shape: &Shape, parameters: &[f32]) -> Result<Evaluation> {
        let OnHalos { graph, features, settings, validation, session, .. } = self;
        let mut predictions = vec![0.0; validation.len()];
        let device = *session.device();
        let batch = batch(&device, graph, features, settings, *shape, validation, 0);
        session.predict(&batch, parameters, &mut predictions)?;
        let targets: Vec<f32> =
            validation.iter().map(|&node| self.targets[node as usize]).collect();
        let loss = forward::l1(&targets, &predictions) / targets.len() as f64;
        let spread = forward::spread(&device, shape, parameters, &self.sample)?;
        Ok(Evaluation { loss, spread })
    }

    fn edges(&self) -> u64 {
        self.edges
    }
}

fn shuffle(nodes: &mut [u32], random: &mut Random) {
    for last in (1..nodes.len()).rev() {
        nodes.swap(last, random.below(last + 1));
    }
}

/// Splits off the validation nodes from the training nodes.
fn validation(mut train: Vec<u32>, seed: u64) -> (Vec<u32>, Vec<u32>) {
    shuffle(&mut train, &mut Random::new(seed, VALIDATION));
    let count = ((train.len() as f64 * VALIDATION_SHARE) as usize).clamp(1, MOST_VALIDATION);
    let mut validation = train.split_off(train.len() - count);
    validation.sort_unstable();
    train.sort_unstable();
    (train, validation)
}

/// The arguments of [`edge`].
fn batch<'a>(
    device: &Device,
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
        precision: precision(device, settings.precision).0,
        row_start: graph.row_start(),
        sender: graph.senders(),
        receivers,
        features,
        coordinates: edge::Coordinates { dim: 3, period: graph.period(), shift: [0.0; 3] },
        noise_seed: settings.seed,
        step,
    }
}

/// The predictions of a network for some nodes; `features` are the graph's scaled features.
pub(super) fn predict(
    device: &Device,
    graph: &Graph,
    features: &[f32],
    model: &Model,
    receivers: &[u32],
    workspace: &mut edge::Workspace,
) -> Result<Vec<f32>> {
    let mut predictions = vec![0.0; receivers.len()];
    let mut batch =
        batch(device, graph, features, &model.about.settings, model.shape, receivers, 0);
    if check_precision(device, batch.precision).is_err() {
        // Trained on a device that has a precision which this one lacks: f32 is more exact than any.
        batch.precision = Precision::F32;
    }
    edge::predict(device, &batch, &model.parameters, &mut predictions, workspace)?;
    Ok(predictions)
}

/// The errors of a network on the held-out slab and on the hidden nodes.
///
/// # Errors
/// Those of [`Split::new`] and of the operation.
pub fn errors(device: &Device, graph: &Graph, model: &Model) -> Result<(Measure, Option<Measure>)> {
    let split = Split::new(graph, hide_above(model))?;
    let features = graph.scaled_features();
    let targets = graph.targets()?;
    let mut workspace = edge::Workspace::default();
    split.measure(|nodes| {
        let found = predict(device, graph, &features, model, nodes, &mut workspace)?;
        let error = |(&node, p): (&u32, &f32)| f64::from((targets[node as usize] - p).abs());
        let errors: Vec<f64> = nodes.iter().zip(&found).map(error).collect();
        Ok(Measure::of(graph, nodes, &errors))
    })
}
