//! The step against the reference in f64, and its cases; the tests make more of them.

use super::reference::{self, Reference};
use super::*;
use crate::ops::mlp::Rounding;
use crate::ops::{Check, precisions, relative_error};
use crate::random::Random;

/// Each model at each precision of the device, on sizes around those of tiles, graphs and splits.
pub fn checks(device: &Device) -> Result<Vec<Check>> {
    // Hidden units, layers, messages; runs, graphs, bodies. Enough runs that the error of a few numbers is not a matter
    // of luck.
    let sizes = [
        ([1, 1, 1], [24, 1, 2]),
        ([7, 2, 5], [24, 3, 3]),
        ([16, 2, 2], [24, 1, 2]),
        ([33, 3, 31], [3, 7, 5]),
        ([65, 2, 70], [2, 3, 4]),
        ([20, 2, 3], [2, 50, 3]),
        ([16, 1, 2], [8, 1, 33]),
    ];
    let mut checks = Vec::new();
    for kind in KINDS {
        for (network, batch) in sizes {
            let [hidden, layers, messages] = network;
            let [runs, graphs, bodies] = batch;
            let what = format!(
                "{kind:?}, {layers} layers of {hidden}, {messages} messages, {runs} runs, \
                 {graphs} graphs of {bodies}"
            );
            for precision in precisions(device) {
                let case = Case::new(kind, network, batch).at(precision);
                checks.push(case.check(&case.expected(), device, &what)?);
            }
        }
    }
    Ok(checks)
}

/// A batch with everything it points to.
pub(super) struct Case {
    pub shape: Shape,
    pub penalty: Penalty,
    pub precision: Precision,
    pub runs: usize,
    pub graphs: usize,
    pub bodies: usize,
    pub features: Vec<f32>,
    pub targets: Vec<f32>,
    pub noise_seeds: Vec<u64>,
    /// `[runs, arena.len]`.
    pub parameters: Vec<f32>,
}

/// What the reference gives for a case: exactly, and with the rounding of the case's precision.
pub(super) struct Expected {
    exact: Vec<Reference>,
    naive: Vec<Reference>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    None,
    L1,
    Kl,
}

pub(super) const KINDS: [Kind; 3] = [Kind::None, Kind::L1, Kind::Kl];

impl Case {
    /// hidden, layers, message_dim, then runs, graphs, bodies.
    pub fn new(kind: Kind, network: [usize; 3], batch: [usize; 3]) -> Case {
        let [hidden, layers, message_dim] = network;
        let [runs, graphs, bodies] = batch;
        let sampled = kind == Kind::Kl;
        let shape = Shape { n_features: 6, message_dim, outputs: 2, hidden, layers, sampled };
        let mut random = Random::new(1, (hidden * 1000 + layers * 100 + message_dim) as u64);
        let arena = shape.arena();
        let nodes = runs * graphs * bodies;
        let mut normals =
            |count: usize| (0..count).map(|_| random.normal() as f32).collect::<Vec<f32>>();
        let features = normals(nodes * 6);
        // Far from the predictions, or the sign of the difference would be a matter of luck.
        let targets = normals(nodes * 2).iter().map(|x| x + 20.0 * x.signum()).collect();
        let mut parameters = vec![0.0; runs * arena.len];
        for run in 0..runs {
            for layer in arena.edge.iter().chain(&arena.node) {
                let scale = 1.0 / (layer.inputs as f32).sqrt();
                for range in [&layer.weight, &layer.bias] {
                    let values = normals(range.len());
                    for (to, x) in
                        parameters[run * arena.len..][range.clone()].iter_mut().zip(values)
                    {
                        *to = scale * x;
                    }
                }
            }
        }
        Case {
            shape,
            penalty: match kind {
                Kind::None => Penalty::None,
                Kind::L1 => Penalty::L1(0.3),
                Kind::Kl => Penalty::Kl(0.7),
            },
            precision: Precision::F32,
            runs,
            graphs,
            bodies,
            features,
            targets,
            noise_seeds: (0..runs as u64).map(|run| run * 7919 + (1 << 40)).collect(),
            parameters,
        }
    }

    /// The case at a precision. Below f32, parameters keep every unit's value away from zero: rounding would flip ReLUs
    /// and signs, and the error of a small case would be a matter of luck. Every other unit is off.
    pub fn at(mut self, precision: Precision) -> Case {
        self.precision = precision;
        if precision == Precision::F32 {
            return self;
        }
        let arena = self.shape.arena();
        for (name, _, range) in arena.tensors() {
            for parameters in self.parameters.chunks_exact_mut(arena.len) {
                for (index, w) in parameters[range.clone()].iter_mut().enumerate() {
                    if name.contains("bias") {
                        *w = if index % 2 == 0 { 1.0 } else { -1.0 } + 0.1 * *w;
                    } else {
                        *w *= 0.2 / if name == "node.weight.0" { self.bodies as f32 } else { 1.0 };
                    }
                }
            }
        }
        self
    }

    pub fn batch(&self) -> Batch<'_> {
        Batch {
            shape: self.shape,
            penalty: self.penalty,
            weight_decay: 1e-3,
            precision: self.precision,
            runs: self.runs,
            graphs: self.graphs,
            bodies: self.bodies,
            features: &self.features,
            targets: &self.targets,
            noise_seeds: &self.noise_seeds,
            step: (3 << 33) + 5,
        }
    }

    fn reference(&self, run: usize, rounding: Rounding) -> Reference {
        let len = self.shape.arena().len;
        let wide: Vec<f64> =
            self.parameters[run * len..][..len].iter().map(|&x| f64::from(x)).collect();
        reference::gradient(&self.batch(), run, &wide, rounding)
    }

    pub fn expected(&self) -> Expected {
        let of = |rounding| (0..self.runs).map(|run| self.reference(run, rounding)).collect();
        Expected { exact: of(Rounding::Exact), naive: of(Rounding::Naive(self.precision)) }
    }

    /// The step into poisoned buffers.
    pub fn step(
        &self,
        device: &Device,
        workspace: &mut Workspace,
    ) -> Result<(Vec<f32>, Vec<Loss>)> {
        let mut gradients = vec![f32::NAN; self.parameters.len()];
        let poison = Loss { prediction: f32::NAN, penalty: f32::NAN, decay: f32::NAN };
        let mut losses = vec![poison; self.runs];
        let batch = self.batch();
        gradient(device, &batch, &self.parameters, &mut gradients, &mut losses, workspace)?;
        Ok((gradients, losses))
    }

    /// The step on a device: the tensor or part of the loss whose error comes closest to its limit,
    /// which is 2 × the naive error + 1e-6.
    pub fn check(&self, expected: &Expected, device: &Device, what: &str) -> Result<Check> {
        let (gradients, losses) = self.step(device, &mut Workspace::default())?;
        let arena = self.shape.arena();
        let mut checks = Vec::new();
        let mut check = |name: &str, found: &[f32], part: &dyn Fn(&Reference) -> Vec<f64>| {
            let exact: Vec<f64> = expected.exact.iter().flat_map(part).collect();
            let naive: Vec<f64> = expected.naive.iter().flat_map(part).collect();
            checks.push(Check {
                operation: "tiny",
                case: format!("{what}, {:?}: {name}", self.precision),
                error: relative_error(found, &exact),
                limit: 2.0 * relative_error(&naive, &exact) + 1e-6,
            });
        };
        for (name, _, range) in arena.tensors() {
            let runs = gradients.chunks_exact(arena.len);
            let found = runs.flat_map(|g| &g[range.clone()]).copied().collect::<Vec<f32>>();
            check(&name, &found, &|r| r.gradients[range.clone()].to_vec());
        }
        let part = |f: fn(&Loss) -> f32| losses.iter().map(f).collect::<Vec<f32>>();
        check("prediction", &part(|l| l.prediction), &|r| vec![r.prediction]);
        check("penalty", &part(|l| l.penalty), &|r| vec![r.penalty]);
        check("decay", &part(|l| l.decay), &|r| vec![r.decay]);
        // Gaps between the tensors must be zero.
        let mut outside = gradients;
        for gradients in outside.chunks_exact_mut(arena.len) {
            arena.tensors().into_iter().for_each(|(_, _, range)| gradients[range].fill(0.0));
        }
        let nothing = vec![0.0; arena.len];
        check("gaps", &outside, &|_| nothing.clone());
        let share = |check: &Check| match (check.error / check.limit).is_nan() {
            true => f64::INFINITY,
            false => check.error / check.limit,
        };
        let worst = checks.into_iter().max_by(|a, b| share(a).total_cmp(&share(b)));
        Ok(worst.expect("a network has tensors"))
    }
}
