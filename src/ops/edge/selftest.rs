//! The step against the reference in f64, and its cases; the tests make more of them.

use std::ops::Range;

use super::reference::{self, Reference};
use super::*;
use crate::ops::mlp::Rounding;
use crate::ops::{Check, precisions, relative_error};
use crate::random::Random;

/// Each model at each precision of the device, on stars around the sizes of tiles and groups.
pub fn checks(device: &Device) -> Result<Vec<Check>> {
    // Hidden units, layers, messages; degrees of the receivers.
    let cases: [([usize; 3], &[usize]); 6] = [
        ([16, 2, 2], &[1]),
        ([33, 2, 31], &[0, 7, 8, 0, 65]),
        ([20, 1, 5], &[63, 64, 3, 128]),
        ([17, 3, 3], &[260, 2]),
        ([40, 2, 70], &[12; 11]),
        // Several tiles in each direction.
        ([161, 2, 5], &[131, 2]),
    ];
    let mut checks = Vec::new();
    for kind in KINDS {
        for (network, degrees) in cases {
            let [hidden, layers, messages] = network;
            let what = format!(
                "{kind:?}, {layers} layers of {hidden}, {messages} messages, {} stars of up to {} edges",
                degrees.len(),
                degrees.iter().max().unwrap_or(&0)
            );
            // Several of the small ones: the error of a few numbers would be a matter of luck.
            let count = if hidden < 100 { 4 } else { 1 };
            let cases = || (0..count).map(|seed| Case::new(kind, network, degrees, seed));
            for precision in precisions(device) {
                let cases: Vec<Case> = cases().map(|case| case.at(precision)).collect();
                checks.push(check(&cases, &expected(&cases), device, &what)?);
            }
        }
    }
    Ok(checks)
}

/// A graph, and everything else a batch points to.
pub(super) struct Case {
    pub shape: Shape,
    pub penalty: Penalty,
    pub precision: Precision,
    pub row_start: Vec<u64>,
    pub sender: Vec<u32>,
    pub receivers: Vec<u32>,
    pub features: Vec<f32>,
    pub targets: Vec<f32>,
    pub coordinates: Coordinates,
    /// `[arena.len]`.
    pub parameters: Vec<f32>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    None,
    L1,
    Kl,
}

pub(super) const KINDS: [Kind; 3] = [Kind::None, Kind::L1, Kind::Kl];

/// Features of a node: three coordinates and two more.
const FEATURES: usize = 5;

impl Case {
    /// hidden, layers, message_dim; then the degrees of some receivers, which are listed in reverse, between nodes that
    /// are not receivers.
    pub fn new(kind: Kind, network: [usize; 3], degrees: &[usize], seed: u64) -> Case {
        Case::of_features(FEATURES, kind, network, degrees, seed)
    }

    /// The same with a number of features other than [`FEATURES`].
    pub fn of_features(
        n_features: usize,
        kind: Kind,
        network: [usize; 3],
        degrees: &[usize],
        seed: u64,
    ) -> Case {
        let [hidden, layers, message_dim] = network;
        let sampled = kind == Kind::Kl;
        let shape = Shape { n_features, message_dim, outputs: 2, hidden, layers, sampled };
        let mut random = Random::new(seed, (hidden * 1000 + layers * 100 + message_dim) as u64);
        // Every other node is not a receiver of the batch, but has two edges.
        let nodes = 2 * degrees.len() + 3;
        let mut row_start = vec![0];
        let mut sender = Vec::new();
        for node in 0..nodes {
            let degree = if node % 2 == 1 { degrees.get(node / 2).copied() } else { Some(2) };
            for _ in 0..degree.unwrap_or(0) {
                sender.push(random.word() % nodes as u32);
            }
            row_start.push(sender.len() as u64);
        }
        let mut normals =
            |count: usize| (0..count).map(|_| random.normal() as f32).collect::<Vec<f32>>();
        // Far from the predictions, or the sign of the difference would be a matter of luck.
        let targets = normals(nodes * 2).iter().map(|x| x + 200.0 * x.signum()).collect();
        let features = normals(nodes * n_features);
        let mut parameters = vec![0.0; shape.arena().len];
        for layer in shape.arena().edge.iter().chain(&shape.arena().node) {
            let scale = 1.0 / (layer.inputs as f32).sqrt();
            for range in [&layer.weight, &layer.bias] {
                let values = normals(range.len());
                parameters[range.clone()].iter_mut().zip(values).for_each(|(w, x)| *w = scale * x);
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
            row_start,
            sender,
            receivers: (0..degrees.len() as u32).rev().map(|index| 2 * index + 1).collect(),
            features,
            targets,
            coordinates: Coordinates { dim: 3, period: 2.5, shift: [0.5, -3.0, 0.25] },
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
        let most = self.row_start.windows(2).map(|own| own[1] - own[0]).max().unwrap_or(1);
        for (name, _, range) in self.shape.arena().tensors() {
            for (index, w) in self.parameters[range].iter_mut().enumerate() {
                if name.contains("bias") {
                    *w = if index % 2 == 0 { 1.0 } else { -1.0 } + 0.1 * *w;
                } else {
                    *w *= 0.1 / if name == "node.weight.0" { most as f32 } else { 1.0 };
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
            row_start: &self.row_start,
            sender: &self.sender,
            receivers: &self.receivers,
            features: &self.features,
            coordinates: self.coordinates,
            noise_seed: 7919 + (1 << 40),
            step: (3 << 33) + 5,
        }
    }

    pub fn reference(&self, rounding: Rounding) -> Reference {
        let wide: Vec<f64> = self.parameters.iter().map(|&x| f64::from(x)).collect();
        reference::gradient(&self.batch(), &self.targets, &wide, rounding)
    }

    /// The step into poisoned buffers.
    pub fn step(&self, device: &Device, workspace: &mut Workspace) -> Result<(Vec<f32>, Loss)> {
        let mut gradients = vec![f32::NAN; self.parameters.len()];
        let batch = self.batch();
        let loss =
            gradient(device, &batch, &self.targets, &self.parameters, &mut gradients, workspace)?;
        Ok((gradients, loss))
    }

    /// The results of a device: predictions, gradients, parts of the loss.
    fn found(&self, device: &Device) -> Result<Vec<f32>> {
        let mut workspace = Workspace::default();
        let mut found = vec![f32::NAN; self.receivers.len() * self.shape.outputs];
        predict(device, &self.batch(), &self.parameters, &mut found, &mut workspace)?;
        let (gradients, loss) = self.step(device, &mut workspace)?;
        found.extend(gradients);
        found.extend([loss.prediction, loss.penalty, loss.decay]);
        Ok(found)
    }

    /// The places of the compared parts among the numbers of `found`.
    fn parts(&self) -> Vec<(String, Vec<Range<usize>>)> {
        let first = self.receivers.len() * self.shape.outputs;
        let one = |name: &str, range: Range<usize>| (name.to_string(), Vec::from([range]));
        let mut parts = Vec::from([one("outputs", 0..first)]);
        let (mut gaps, mut end) = (Vec::new(), first);
        for (name, _, range) in self.shape.arena().tensors() {
            let range = first + range.start..first + range.end;
            gaps.push(end..range.start);
            end = range.end;
            parts.push(one(&name, range));
        }
        let losses = first + self.parameters.len();
        gaps.push(end..losses);
        parts.push(("gaps".to_string(), gaps));
        for (index, name) in ["prediction", "penalty", "decay"].into_iter().enumerate() {
            parts.push(one(name, losses + index..losses + index + 1));
        }
        parts
    }
}

/// What the reference gives for some cases of the same sizes, in the order of `found`: exactly, and with the rounding
/// of their precision.
pub(super) fn expected(cases: &[Case]) -> [Vec<Vec<f64>>; 2] {
    let of = |rounding: fn(&Case) -> Rounding| {
        let each = cases.iter().map(|case| {
            let wide: Vec<f64> = case.parameters.iter().map(|&x| f64::from(x)).collect();
            let mut expected = reference::predict(&case.batch(), &wide, rounding(case));
            let Reference { prediction, penalty, decay, gradients } =
                case.reference(rounding(case));
            expected.extend(gradients);
            expected.extend([prediction, penalty, decay]);
            expected
        });
        each.collect()
    };
    [of(|_| Rounding::Exact), of(|case| Rounding::Naive(case.precision))]
}

/// The cases on a device: the part of the result whose error comes closest to its limit.
pub(super) fn check(
    cases: &[Case],
    expected: &[Vec<Vec<f64>>; 2],
    device: &Device,
    what: &str,
) -> Result<Check> {
    let found = cases.iter().map(|case| case.found(device)).collect::<Result<Vec<_>>>()?;
    let share = |check: &Check| match (check.error / check.limit).is_nan() {
        true => f64::INFINITY,
        false => check.error / check.limit,
    };
    let checks = each(cases, &found, expected, what);
    let worst = checks.into_iter().max_by(|a, b| share(a).total_cmp(&share(b)));
    Ok(worst.expect("a network has tensors"))
}

/// A check for each part of what was found, in the order of `expected`; the limit is 2 × the naive error + 1e-6.
pub(super) fn each(
    cases: &[Case],
    found: &[Vec<f32>],
    [exact, naive]: &[Vec<Vec<f64>>; 2],
    what: &str,
) -> Vec<Check> {
    let part = |(name, ranges): (String, Vec<Range<usize>>)| {
        let exact = pick(exact, &ranges);
        Check {
            operation: "edge",
            case: format!("{what}, {:?}: {name}", cases[0].precision),
            error: relative_error(&pick(found, &ranges), &exact),
            limit: 2.0 * relative_error(&pick(naive, &ranges), &exact) + 1e-6,
        }
    };
    cases[0].parts().into_iter().map(part).collect()
}

/// These places of every case.
fn pick<T: Copy>(cases: &[Vec<T>], ranges: &[Range<usize>]) -> Vec<T> {
    let each = cases.iter().flat_map(|case| ranges.iter().map(|range| &case[range.clone()]));
    each.flatten().copied().collect()
}
