//! Graphs of a dataset with what the network computes on them: the data of φv's regression, of the
//! refit, and of the test losses.

use super::edges::{Inputs, body};
use super::formula::Formula;
use super::messages::Component;
use crate::device::Device;
use crate::error::Result;
use crate::law::{Body, Law};
use crate::model::layout::{BodyLayout, by_graph};
use crate::nbody::dataset::Dataset;
use crate::network::forward::{edge_inputs, l1, received};
use crate::network::model::Model;
use crate::random::Random;

const GRAPH_STREAM: u64 = 0x6A7;
const OUTSIDE_STREAM: u64 = 0x0DD;

/// States of whole systems, with their true accelerations.
pub struct Graphs {
    /// `[node, n_features]`, graph by graph.
    pub features: Vec<f32>,
    /// `[node, dim]`.
    pub targets: Vec<f32>,
    /// Bodies of each graph.
    pub bodies: Vec<u32>,
    /// Dimensions of space.
    pub dim: usize,
}

impl Graphs {
    /// `count` random frames of random `runs`.
    pub fn sample(dataset: &Dataset, runs: &[usize], count: usize, seed: u64) -> Self {
        Self::dated(dataset, runs, count, seed).0
    }

    /// The same, and at which part of its run each was, from 0 to 1.
    pub fn dated(dataset: &Dataset, runs: &[usize], count: usize, seed: u64) -> (Self, Vec<f64>) {
        let about = &dataset.about;
        let mut random = Random::new(seed, GRAPH_STREAM);
        let (mut features, mut targets) = (Vec::new(), Vec::new());
        let (mut bodies, mut moments) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for _ in 0..count {
            let run = runs[random.below(runs.len())];
            let frame = random.below(about.frames);
            dataset.features(run, frame, &mut features);
            targets.extend_from_slice(dataset.targets(run, frame));
            bodies.push(dataset.bodies(run) as u32);
            moments.push(dataset.moment(run, frame));
        }
        (Graphs { features, targets, bodies, dim: about.dim }, moments)
    }

    /// Number of graphs.
    pub fn count(&self) -> usize {
        self.bodies.len()
    }

    /// Number of nodes.
    pub fn nodes(&self) -> usize {
        self.targets.len() / self.dim
    }

    /// The features of each graph.
    fn each(&self) -> impl Iterator<Item = &[f32]> {
        by_graph(&self.features, BodyLayout { dim: self.dim }.width(), &self.bodies)
    }

    /// The bodies of each graph.
    pub fn systems(&self) -> impl Iterator<Item = Vec<Body>> {
        let layout = BodyLayout { dim: self.dim };
        self.each()
            .map(move |graph| graph.chunks(layout.width()).map(|f| body(f, layout)).collect())
    }

    /// Columns that tell where a node is, `[column][node]`: its place and that of the middle of the bodies, as they
    /// are, as their direction and as their inverse square.
    pub fn places(&self) -> Vec<Vec<f64>> {
        let dim = self.dim;
        let width = BodyLayout { dim }.width();
        let mut columns = vec![Vec::with_capacity(self.nodes()); 6 * dim];
        for graph in self.each() {
            let bodies = graph.len() / width;
            let at = |body: usize, axis: usize| f64::from(graph[body * width + axis]);
            let middle =
                |axis: usize| (0..bodies).map(|body| at(body, axis)).sum::<f64>() / bodies as f64;
            let middle: Vec<f64> = (0..dim).map(middle).collect();
            for body in 0..bodies {
                let own: Vec<f64> = (0..dim).map(|axis| at(body, axis)).collect();
                for (first, place) in [(0, &own), (3 * dim, &middle)] {
                    let r = place.iter().map(|x| x * x).sum::<f64>().sqrt().max(1e-6);
                    for (axis, x) in place.iter().enumerate() {
                        columns[first + axis].push(*x);
                        columns[first + dim + axis].push(x / r);
                        columns[first + 2 * dim + axis].push(x / r.powi(3));
                    }
                }
            }
        }
        columns
    }

    /// Between which distances 98 % of the pairs are.
    pub fn distances(&self, inputs: &Inputs) -> (f64, f64) {
        let mut found = Vec::new();
        let mut values = Vec::new();
        for all in self.systems() {
            for (index, receiver) in all.iter().enumerate() {
                for sender in &all[..index] {
                    values.clear();
                    inputs.values(receiver, sender, &mut values);
                    // Behind masses, charges and the displacement.
                    found.push(values[4 + self.dim]);
                }
            }
        }
        found.sort_by(f64::total_cmp);
        let at = |share: f64| found[((found.len() - 1) as f64 * share).round() as usize];
        (at(0.01), at(0.99))
    }

    /// The accelerations that the network predicts.
    pub fn network_accelerations(&self, device: &Device, model: &Model) -> Result<Vec<f32>> {
        model.accelerations(device, &self.features, &self.bodies)
    }

    /// `count` states `width` times as wide in positions and velocities as initial states are, with the
    /// accelerations of `law`.
    pub fn outside(
        law: &Law,
        dim: usize,
        bodies: usize,
        count: usize,
        width: f64,
        seed: u64,
    ) -> Self {
        let mut random = Random::new(seed, OUTSIDE_STREAM);
        let (mut features, mut targets) = (Vec::new(), Vec::new());
        let layout = BodyLayout { dim };
        for _ in 0..count {
            let first = features.len();
            for _ in 0..bodies {
                features.extend((0..2 * dim).map(|_| (width * random.normal()) as f32));
                features.push(if random.below(2) == 0 { -1.0 } else { 1.0 });
                features.push(random.normal().exp() as f32);
            }
            let all: Vec<_> =
                features[first..].chunks(layout.width()).map(|f| body(f, layout)).collect();
            for (index, receiver) in all.iter().enumerate() {
                let mut sum = [0.0; 3];
                for (_, sender) in all.iter().enumerate().filter(|(other, _)| *other != index) {
                    let force = law.force(receiver, sender, bodies);
                    sum.iter_mut().zip(force).for_each(|(s, f)| *s += f);
                }
                targets.extend(sum[..dim].iter().map(|f| (f / receiver.mass) as f32));
            }
        }
        Graphs { features, targets, bodies: vec![bodies as u32; count], dim }
    }

    /// The network's loss: mean over nodes of the L1 norm of the error of the acceleration.
    pub fn network_loss(&self, device: &Device, model: &Model) -> Result<f64> {
        let found = self.network_accelerations(device, model)?;
        Ok(l1(&self.targets, &found) / self.nodes() as f64)
    }

    /// The formula's loss; infinite where it is undefined on some state.
    pub fn formula_loss(&self, formula: &Formula) -> f64 {
        formula.loss(&self.features, &self.targets, &self.bodies)
    }
}

/// The kept messages of a network, summed over the senders, `[node, kept]`.
pub fn network_sums(
    device: &Device,
    model: &Model,
    graphs: &Graphs,
    kept: &[Component],
) -> Result<Vec<f32>> {
    let Graphs { features, bodies, dim, .. } = graphs;
    let message_dim = model.shape.message_dim;
    let inputs = edge_inputs(features, bodies, BodyLayout { dim: *dim }.width());
    let messages = model.messages(device, &inputs)?.values;
    let mut sums = Vec::with_capacity(graphs.nodes() * kept.len());
    for received in received(&messages, bodies, message_dim) {
        let sum = |c: &Component| received.iter().skip(c.column).step_by(message_dim).sum::<f32>();
        sums.extend(kept.iter().map(sum));
    }
    Ok(sums)
}

/// The table of φv's regression on so many nodes of each graph, at random: features and summed messages
/// `[variable][node]`, outputs `[output][node]`, of sums `[node, kept]` and outputs `[node, dim]`.
pub fn node_table(
    graphs: &Graphs,
    sums: &[f32],
    outputs: &[f32],
    nodes: usize,
    seed: u64,
) -> [Vec<Vec<f32>>; 2] {
    let dim = graphs.dim;
    let n_features = BodyLayout { dim }.width();
    let kept = sums.len() / graphs.nodes();
    let mut columns = vec![Vec::with_capacity(graphs.count()); n_features + kept];
    let mut targets = vec![Vec::with_capacity(graphs.count()); dim];
    let mut random = Random::new(seed, GRAPH_STREAM + 1);
    let mut first = 0;
    let each = graphs.bodies.iter().flat_map(|&bodies| {
        let begin = first;
        first += bodies as usize;
        std::iter::repeat_n((begin, bodies as usize), nodes)
    });
    for (first, bodies) in each {
        let node = first + random.below(bodies);
        let own = &graphs.features[node * n_features..][..n_features];
        let received = &sums[node * kept..][..kept];
        for (column, value) in columns.iter_mut().zip(own.iter().chain(received)) {
            column.push(*value);
        }
        for (target, value) in targets.iter_mut().zip(&outputs[node * dim..]) {
            target.push(*value);
        }
    }
    [columns, targets]
}
