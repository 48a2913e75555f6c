//! Random edges of a dataset: the features a network sees, and the variables a law is written in.

use std::ops::Range;

use crate::law::{Body, Law};
use crate::model::layout::BodyLayout;
use crate::nbody::dataset::Dataset;
use crate::random::Random;

/// A sample of directed edges.
pub struct Edges {
    /// `[edge, 2·n_features]`: features (r, v, q, m) of the receiver, then of the sender.
    pub features: Vec<f32>,
    /// Dimensions of space.
    pub dim: usize,
    /// Bodies of the system they come from.
    pub bodies: usize,
    /// Number of edges.
    pub count: usize,
}

impl Edges {
    /// `count` random edges of `runs`: run, frame, receiver and sender drawn uniformly.
    pub fn sample(dataset: &Dataset, runs: &[usize], count: usize, seed: u64) -> Self {
        let about = &dataset.about;
        let n_features = about.n_features();
        let mut random = Random::new(seed, EDGE_STREAM);
        let mut features = Vec::with_capacity(count * 2 * n_features);
        let mut frame = Vec::new();
        for _ in 0..count {
            frame.clear();
            let run = runs[random.below(runs.len())];
            dataset.features(run, random.below(about.frames), &mut frame);
            let receiver = random.below(about.bodies);
            let sender = (receiver + 1 + random.below(about.bodies - 1)) % about.bodies;
            for body in [receiver, sender] {
                features.extend_from_slice(&frame[body * n_features..(body + 1) * n_features]);
            }
        }
        Edges { features, dim: about.dim, bodies: about.bodies, count }
    }

    /// What is where among the features of a body.
    pub fn layout(&self) -> BodyLayout {
        BodyLayout { dim: self.dim }
    }

    /// Width of a row of `features`.
    pub fn width(&self) -> usize {
        2 * self.layout().width()
    }

    /// Receiver and sender of one edge.
    pub fn pair(&self, edge: usize) -> (Body, Body) {
        let row = &self.features[edge * self.width()..(edge + 1) * self.width()];
        let (receiver, sender) = row.split_at(self.width() / 2);
        (body(receiver, self.layout()), body(sender, self.layout()))
    }

    /// The true forces on the receivers, by component: `[dim][edge]`.
    pub fn forces(&self, law: &Law) -> crate::error::Result<Vec<Vec<f64>>> {
        let mut forces = vec![Vec::with_capacity(self.count); self.dim];
        for edge in 0..self.count {
            let (receiver, sender) = self.pair(edge);
            let force = law.force(&receiver, &sender, self.bodies);
            for (column, value) in forces.iter_mut().zip(force) {
                column.push(value);
            }
        }
        Ok(forces)
    }
}

const EDGE_STREAM: u64 = 0xED6E;

/// The body that a row of features (r, v, q, m) describes.
pub fn body(features: &[f32], layout: BodyLayout) -> Body {
    let vector = |at: Range<usize>| {
        let mut v = [0.0; 3];
        v.iter_mut().zip(&features[at]).for_each(|(v, &x)| *v = f64::from(x));
        v
    };
    Body {
        position: vector(layout.position()),
        velocity: vector(layout.velocity()),
        charge: f64::from(features[layout.charge()]),
        mass: f64::from(features[layout.mass()]),
    }
}

const AXES: [&str; 3] = ["x", "y", "z"];

/// The variables of the laws of a system (docs/design.md §4): m1, m2, q1, q2, dx, dy, (dz), r, and those
/// components of the velocities that the messages depend on.
#[derive(Clone, Debug, PartialEq)]
pub struct Inputs {
    /// Dimensions of space.
    pub dim: usize,
    /// Components of the velocities that join: index k < dim is the receiver's, k ≥ dim the sender's.
    pub velocities: Vec<usize>,
}

impl Inputs {
    /// Names, in the order of [`Inputs::values`].
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = ["m1", "m2", "q1", "q2"].map(String::from).to_vec();
        names.extend(AXES[..self.dim].iter().map(|axis| format!("d{axis}")));
        names.push("r".to_string());
        for &k in &self.velocities {
            names.push(format!("v{}{}", AXES[k % self.dim], 1 + k / self.dim));
        }
        names
    }

    /// The values for one pair; displacement and distance point from the receiver 1 to the sender 2.
    pub fn values(&self, receiver: &Body, sender: &Body, out: &mut Vec<f64>) {
        let delta = |k: usize| sender.position[k] - receiver.position[k];
        out.extend([receiver.mass, sender.mass, receiver.charge, sender.charge]);
        out.extend((0..self.dim).map(delta));
        out.push((0..self.dim).map(|k| delta(k).powi(2)).sum::<f64>().sqrt());
        for &k in &self.velocities {
            let body = if k < self.dim { receiver } else { sender };
            out.push(body.velocity[k % self.dim]);
        }
    }

    /// The values for every edge, `[edge, n_inputs]`.
    pub fn table(&self, edges: &Edges) -> Vec<f64> {
        let mut table = Vec::with_capacity(edges.count * self.names().len());
        for edge in 0..edges.count {
            let (receiver, sender) = edges.pair(edge);
            self.values(&receiver, &sender, &mut table);
        }
        table
    }
}

/// The names of a node's features and of its kept summed messages: x, y, (z), vx, vy, (vz), q, m, e0, e1, ….
pub fn node_names(dim: usize, components: &[usize]) -> Vec<String> {
    let mut names: Vec<String> = AXES[..dim].iter().map(|axis| axis.to_string()).collect();
    names.extend(AXES[..dim].iter().map(|axis| format!("v{axis}")));
    names.extend(["q".to_string(), "m".to_string()]);
    names.extend(components.iter().map(|index| format!("e{index}")));
    names
}
