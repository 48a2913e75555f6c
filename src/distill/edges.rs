//! Random edges of a data set of small systems, and the variables of their laws.

use std::ops::Range;

use super::formula::Terms;
use super::run::Edges;
use crate::law::Body;
use crate::model::layout::BodyLayout;
use crate::nbody::dataset::Dataset;
use crate::nbody::scale::nearest;
use crate::random::Random;

/// `count` random edges of `runs`: run, frame, receiver and sender drawn uniformly.
pub fn sample(dataset: &Dataset, runs: &[usize], count: usize, seed: u64) -> Edges {
    let about = &dataset.about;
    let n_features = about.n_features();
    let mut random = Random::new(seed, EDGE_STREAM);
    let mut features = Vec::with_capacity(count * 2 * n_features);
    let mut frame = Vec::new();
    for _ in 0..count {
        frame.clear();
        let run = runs[random.below(runs.len())];
        let bodies = dataset.bodies(run);
        dataset.features(run, random.below(about.frames), &mut frame);
        let receiver = random.below(bodies);
        let sender = (receiver + 1 + random.below(bodies - 1)) % bodies;
        for body in [receiver, sender] {
            features.extend_from_slice(&frame[body * n_features..(body + 1) * n_features]);
        }
    }
    Edges { features, width: 2 * n_features }
}

/// The receiver and sender of each edge of a system in `dim` dimensions.
pub fn pairs(edges: &Edges, dim: usize) -> impl Iterator<Item = (Body, Body)> {
    let layout = BodyLayout { dim };
    edges.features.chunks_exact(edges.width).map(move |row| {
        let (receiver, sender) = row.split_at(layout.width());
        (body(receiver, layout), body(sender, layout))
    })
}

const EDGE_STREAM: u64 = 0xED6E;

/// The body described by a row of features (r, v, q, m).
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

/// The indices of `names` in `all`, which must contain them.
pub fn positions(names: &[String], all: &[String]) -> Vec<usize> {
    names.iter().filter_map(|name| all.iter().position(|other| other == name)).collect()
}

const AXES: [&str; 3] = ["x", "y", "z"];

/// The variables of the laws of a system (docs/design.md §4): m1, m2, q1, q2, dx, dy, (dz), r, and the
/// velocity components on which messages depend.
#[derive(Clone, Debug, PartialEq)]
pub struct Inputs {
    /// Dimensions of space.
    pub dim: usize,
    /// The velocity components: k < dim are the receiver's, k ≥ dim the sender's.
    pub velocities: Vec<usize>,
    /// Edges of a periodic box, 0 for none; displacements are to the nearest image.
    pub period: [f64; 3],
}

impl Inputs {
    /// Names, in the order of [`Inputs::values`].
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = ["m1", "m2", "q1", "q2"].map(String::from).to_vec();
        names.extend(AXES[..self.dim].iter().map(|axis| format!("d{axis}")));
        names.push("r".to_string());
        names.extend(self.velocities.iter().map(|&k| self.velocity(k)));
        names
    }

    /// The values for one pair; displacement and distance point from the receiver 1 to the sender 2.
    pub fn values(&self, receiver: &Body, sender: &Body, out: &mut Vec<f64>) {
        let delta = |k: usize| nearest(sender.position[k] - receiver.position[k], self.period[k]);
        out.extend([receiver.mass, sender.mass, receiver.charge, sender.charge]);
        out.extend((0..self.dim).map(delta));
        out.push((0..self.dim).map(|k| delta(k).powi(2)).sum::<f64>().sqrt());
        for &k in &self.velocities {
            let body = if k < self.dim { receiver } else { sender };
            out.push(body.velocity[k % self.dim]);
        }
    }

    /// The inputs with these names, which may be in any order.
    pub fn of(names: &[String]) -> Self {
        let dim = AXES.iter().filter(|axis| names.contains(&format!("d{axis}"))).count();
        let all = Inputs::all(dim);
        let joins = |&k: &usize| names.contains(&all.velocity(k));
        Inputs { velocities: all.velocities.iter().copied().filter(joins).collect(), ..all }
    }

    /// All variables, in open space.
    pub fn all(dim: usize) -> Self {
        Inputs { dim, velocities: (0..2 * dim).collect(), period: [0.0; 3] }
    }

    /// The same in a periodic box.
    pub fn within(self, period: [f64; 3]) -> Self {
        Inputs { period, ..self }
    }

    /// The variables of formulas with these inputs: a node has x, y, (z), vx, vy, (vz), q, m.
    pub fn terms(&self) -> Terms {
        let axes = &AXES[..self.dim];
        let mut node: Vec<String> = axes.iter().map(|axis| axis.to_string()).collect();
        node.extend(axes.iter().map(|axis| format!("v{axis}")));
        node.extend(["q", "m"].map(String::from));
        let outputs = axes.iter().map(|axis| format!("a{axis}")).collect();
        Terms { edge: self.names(), node, outputs, units: None, period: self.period }
    }

    fn velocity(&self, k: usize) -> String {
        format!("v{}{}", AXES[k % self.dim], 1 + k / self.dim)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_known_by_their_names() {
        for dim in [2, 3] {
            for velocities in [vec![], vec![1, dim], (0..2 * dim).collect()] {
                let inputs = Inputs { dim, velocities, period: [0.0; 3] };
                assert_eq!(Inputs::of(&inputs.names()), inputs);
            }
        }
    }
}
