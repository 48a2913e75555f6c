//! The reference against finite differences, every level of instructions and both precisions against
//! the reference, and what must not change the result: threads, stacking, old contents of buffers.

use half::bf16;

use super::reference::{self, Reference};
use super::*;
use crate::device::{Cpu, Simd};
use crate::ops::mlp::{EXACT, Rounding};
use crate::random::Random;

/// Naive f32, and bf16 operands summed in f32.
const NAIVE: [(Precision, Rounding); 2] = [
    (Precision::F32, Rounding { operand: |x| x, sum: |x| f64::from(x as f32) }),
    (
        Precision::Bf16,
        Rounding { operand: |x| f64::from(bf16::from_f32(x as f32)), sum: |x| f64::from(x as f32) },
    ),
];

/// A batch with everything it points to.
struct Case {
    shape: Shape,
    penalty: Penalty,
    precision: Precision,
    runs: usize,
    graphs: usize,
    bodies: usize,
    features: Vec<f32>,
    targets: Vec<f32>,
    noise_seeds: Vec<u64>,
    /// `[runs, arena.len]`.
    parameters: Vec<f32>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    None,
    L1,
    Kl,
}

const KINDS: [Kind; 3] = [Kind::None, Kind::L1, Kind::Kl];

impl Case {
    /// hidden, layers, message_dim, then runs, graphs, bodies.
    fn new(kind: Kind, network: [usize; 3], batch: [usize; 3]) -> Case {
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
        // Far from the predictions, or else the sign of the difference would be luck.
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

    /// Parameters that keep every unit's value away from zero: rounding to bf16 would flip ReLUs
    /// and signs, and the error of a small case would be luck. Every other unit is off.
    fn calm(mut self) -> Case {
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

    fn batch(&self) -> Batch<'_> {
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

    /// The step into poisoned buffers.
    fn step(&self, simd: Simd, workspace: &mut Workspace) -> (Vec<f32>, Vec<Loss>) {
        let mut gradients = vec![f32::NAN; self.parameters.len()];
        let poison = Loss { prediction: f32::NAN, penalty: f32::NAN, decay: f32::NAN };
        let mut losses = vec![poison; self.runs];
        let device = Device::Cpu(Cpu { simd });
        let batch = self.batch();
        gradient(&device, &batch, &self.parameters, &mut gradients, &mut losses, workspace)
            .unwrap();
        (gradients, losses)
    }
}

#[test]
fn reference_agrees_with_finite_differences() {
    for kind in KINDS {
        for layers in [1, 2, 3] {
            let case = Case::new(kind, [7, layers, 3], [1, 2, 3]);
            let arena = case.shape.arena();
            let mut w: Vec<f64> = case.parameters.iter().map(|&x| f64::from(x)).collect();
            let batch = case.batch();
            let exact = reference::gradient(&batch, 0, &w, EXACT);
            let mut checked = 0;
            for (name, _, range) in arena.tensors() {
                for index in range.step_by(3) {
                    let centre = w[index];
                    let mut at = |x: f64| {
                        w[index] = x;
                        reference::gradient(&batch, 0, &w, EXACT).total()
                    };
                    let mut slope = |h: f64| (at(centre + h) - at(centre - h)) / (2.0 * h);
                    // A step across a kink shows in the two differences; such places are not counted.
                    let (wide, narrow) = (slope(2e-6), slope(1e-6));
                    w[index] = centre;
                    if (wide - narrow).abs() > 1e-7 {
                        continue;
                    }
                    let found = exact.gradients[index];
                    assert!(
                        (found - narrow).abs() < 1e-7 + 1e-6 * narrow.abs(),
                        "{kind:?}, {layers} layers, {name}[{index}]: {found} against {narrow}"
                    );
                    checked += 1;
                }
            }
            assert!(checked * 4 > arena.len / 3, "only {checked} of {} were smooth", arena.len);
        }
    }
}

/// |a − b| / |b|, Frobenius.
fn error(a: &[f64], b: &[f64]) -> f64 {
    let difference: f64 = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum();
    // What is zero (the penalty that is none) must be zero.
    (difference / b.iter().map(|b| b * b).sum::<f64>().max(f64::MIN_POSITIVE)).sqrt()
}

/// Levels that can compute in `precision`.
fn levels(precision: Precision) -> impl Iterator<Item = Simd> {
    let lowest = if precision == Precision::Bf16 { Simd::Avx512Bf16 } else { Simd::Scalar };
    Simd::available().into_iter().filter(move |&level| level >= lowest)
}

/// Every level and both precisions: error at most 2 × the naive error + 1e-6, tensor by tensor.
fn compare(mut case: Case, what: &str) {
    let arena = case.shape.arena();
    let references = |case: &Case, rounding: Rounding| -> Vec<Reference> {
        (0..case.runs).map(|run| case.reference(run, rounding)).collect()
    };
    for (precision, rounding) in NAIVE {
        case.precision = precision;
        if precision == Precision::Bf16 {
            case = case.calm();
        }
        let exact = references(&case, EXACT);
        let naive = references(&case, rounding);
        for simd in levels(precision) {
            let (gradients, losses) = case.step(simd, &mut Workspace::default());
            assert!(gradients.iter().all(|g| g.is_finite()), "{what}, {precision:?}, {simd:?}");
            let check = |name: &str, found: Vec<f64>, part: &dyn Fn(&Reference) -> Vec<f64>| {
                let exact = exact.iter().flat_map(part).collect::<Vec<f64>>();
                let naive = naive.iter().flat_map(part).collect::<Vec<f64>>();
                let (limit, found) = (2.0 * error(&naive, &exact) + 1e-6, error(&found, &exact));
                assert!(
                    found <= limit,
                    "{what}, {precision:?}, {simd:?}, {name}: {found} > {limit}"
                );
            };
            for (name, _, range) in arena.tensors() {
                let runs = gradients.chunks_exact(arena.len);
                let found = runs.flat_map(|g| g[range.clone()].iter().map(|&g| f64::from(g)));
                check(&name, found.collect(), &|r| r.gradients[range.clone()].to_vec());
            }
            let part = |f: fn(&Loss) -> f32| losses.iter().map(|l| f64::from(f(l))).collect();
            check("prediction", part(|l| l.prediction), &|r| vec![r.prediction]);
            check("penalty", part(|l| l.penalty), &|r| vec![r.penalty]);
            check("decay", part(|l| l.decay), &|r| vec![r.decay]);
        }
    }
}

#[test]
fn every_level_agrees_with_the_reference_on_every_width() {
    for kind in KINDS {
        for hidden in [1, 7, 16, 33, 128] {
            for layers in [1, 2, 3] {
                let what = format!("{kind:?}, {layers} layers of {hidden}");
                // Enough runs for the error of a few numbers to be no luck.
                let runs = if hidden < 16 { 24 } else { 3 };
                compare(Case::new(kind, [hidden, layers, 5], [runs, 3, 3]), &what);
            }
        }
    }
}

#[test]
fn every_level_agrees_with_the_reference_on_every_number_of_messages() {
    for kind in KINDS {
        for message_dim in [1, 2, 16, 31, 100] {
            let what = format!("{kind:?}, {message_dim} messages");
            compare(Case::new(kind, [33, 2, message_dim], [4, 2, 4]), &what);
        }
    }
}

#[test]
fn every_level_agrees_with_the_reference_on_every_size_of_batch() {
    for kind in KINDS {
        for bodies in [2, 3, 5, 8] {
            for graphs in [1, 3, 7, 64] {
                let what = format!("{kind:?}, {graphs} graphs of {bodies}");
                compare(Case::new(kind, [16, 2, 2], [3, graphs, bodies]), &what);
            }
        }
    }
}

#[test]
fn a_stack_equals_its_single_runs_and_threads_do_not_matter() {
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    for kind in KINDS {
        let mut case = Case::new(kind, [33, 2, 10], [5, 40, 4]);
        let len = case.shape.arena().len;
        let (nodes, simd) = (40 * 4, Simd::detect());
        let one = pool(1).install(|| case.step(simd, &mut Workspace::default()));
        let two = pool(2).install(|| case.step(simd, &mut Workspace::default()));
        let eight = pool(8).install(|| case.step(simd, &mut Workspace::default()));
        assert_eq!(one, two, "{kind:?}");
        assert_eq!(one, eight, "{kind:?}");
        let parameters = case.parameters.clone();
        let (features, targets) = (case.features.clone(), case.targets.clone());
        let seeds = case.noise_seeds.clone();
        case.runs = 1;
        for run in 0..5 {
            case.parameters = parameters[run * len..(run + 1) * len].to_vec();
            case.features = features[run * nodes * 6..(run + 1) * nodes * 6].to_vec();
            case.targets = targets[run * nodes * 2..(run + 1) * nodes * 2].to_vec();
            case.noise_seeds = vec![seeds[run]];
            let (gradients, losses) =
                pool(2).install(|| case.step(simd, &mut Workspace::default()));
            assert_eq!(gradients, one.0[run * len..(run + 1) * len], "{kind:?}, run {run}");
            assert_eq!(losses[0], one.1[run], "{kind:?}, run {run}");
        }
    }
}

#[test]
fn what_a_workspace_was_used_for_does_not_matter() {
    for (precision, _) in NAIVE {
        for simd in levels(precision) {
            let mut workspace = Workspace::default();
            let mut large = Case::new(Kind::Kl, [40, 3, 20], [2, 9, 5]);
            let mut small = Case::new(Kind::L1, [7, 1, 3], [1, 3, 3]);
            (large.precision, small.precision) = (precision, precision);
            large.step(simd, &mut workspace);
            let used = small.step(simd, &mut workspace);
            assert_eq!(used, small.step(simd, &mut Workspace::default()), "{simd:?}");
        }
    }
}

#[test]
fn wrong_buffers_are_errors_that_name_them() {
    let case = Case::new(Kind::Kl, [7, 1, 3], [2, 3, 3]);
    let device = Device::cpu();
    let call = |batch: &Batch, parameters: usize, gradients: usize, losses: usize| {
        let mut buffer = vec![7.0; gradients];
        let result = gradient(
            &device,
            batch,
            &case.parameters[..parameters],
            &mut buffer,
            &mut vec![Loss::default(); losses],
            &mut Workspace::default(),
        );
        let error = result.unwrap_err();
        assert!(buffer.iter().all(|&g| g == 7.0), "written in spite of {error}");
        error.field.unwrap_or_default()
    };
    let len = case.parameters.len();
    assert_eq!(call(&case.batch(), len - 1, len, 2), "parameters");
    assert_eq!(call(&case.batch(), len, len + 1, 2), "gradients");
    assert_eq!(call(&case.batch(), len, len, 1), "losses");
    let batch = Batch { features: &case.features[1..], ..case.batch() };
    assert_eq!(call(&batch, len, len, 2), "features");
    let batch = Batch { targets: &[], ..case.batch() };
    assert_eq!(call(&batch, len, len, 2), "targets");
    let batch = Batch { noise_seeds: &[1], ..case.batch() };
    assert_eq!(call(&batch, len, len, 2), "noise_seeds");
    let batch = Batch { penalty: Penalty::L1(1.0), ..case.batch() };
    assert_eq!(call(&batch, len, len, 2), "penalty");
    let batch = Batch { bodies: 1, ..case.batch() };
    assert_eq!(call(&batch, len, len, 2), "bodies");
    let batch = Batch { precision: Precision::Bf16, ..case.batch() };
    let without = Device::Cpu(Cpu { simd: Simd::Avx512 });
    let (mut gradients, mut losses) = (vec![0.0; len], vec![Loss::default(); 2]);
    let mut workspace = Workspace::default();
    let error =
        gradient(&without, &batch, &case.parameters, &mut gradients, &mut losses, &mut workspace)
            .unwrap_err();
    assert_eq!(error.kind, crate::error::Kind::Device);
    assert!(error.to_string().contains("bf16"), "{error}");
}

#[test]
fn nothing_is_written_behind_the_buffers() {
    for (precision, _) in NAIVE {
        let mut case = Case::new(Kind::L1, [33, 2, 3], [2, 3, 3]);
        case.precision = precision;
        for simd in levels(precision) {
            let (len, sentinel) = (case.parameters.len(), f32::from_bits(0x7fab_cdef).to_bits());
            let mut gradients = vec![f32::from_bits(sentinel); len + 64];
            let mut losses = vec![Loss::default(); 2];
            gradient(
                &Device::Cpu(Cpu { simd }),
                &case.batch(),
                &case.parameters,
                &mut gradients[32..len + 32],
                &mut losses,
                &mut Workspace::default(),
            )
            .unwrap();
            let (before, rest) = gradients.split_at(32);
            let (inside, behind) = rest.split_at(len);
            assert!(before.iter().chain(behind).all(|g| g.to_bits() == sentinel), "{simd:?}");
            assert!(inside.iter().all(|g| g.is_finite()), "{simd:?}");
        }
    }
}

#[test]
fn a_network_that_diverged_shows_in_the_loss() {
    for simd in Simd::available() {
        let mut case = Case::new(Kind::L1, [33, 2, 3], [1, 3, 3]);
        case.parameters[5] = f32::NAN;
        assert!(case.step(simd, &mut Workspace::default()).1[0].prediction.is_nan(), "{simd:?}");
    }
}

#[test]
fn noise_is_standard_normal_and_the_same_in_f32() {
    let mut noise = vec![0.0; 128];
    let (mut n, mut mean, mut square, mut fourth) = (0.0, 0.0, 0.0, 0.0);
    for edge in 0..2000 {
        noise::fill(5, 1 << 35, edge, &mut noise);
        for (unit, &found) in noise.iter().enumerate() {
            let exact = noise::normal(5, 1 << 35, edge, unit);
            assert!((f64::from(found) - exact).abs() < 2e-6, "{found} {exact}");
            (n, mean, square) = (n + 1.0, mean + exact, square + exact * exact);
            fourth += exact.powi(4);
        }
    }
    // Five standard errors.
    assert!((mean / n).abs() < 5.0 / f64::sqrt(n), "{}", mean / n);
    assert!((square / n - 1.0).abs() < 5.0 * f64::sqrt(2.0 / n), "{}", square / n);
    assert!((fourth / n - 3.0).abs() < 5.0 * f64::sqrt(96.0 / n), "{}", fourth / n);
    assert_ne!(noise::normal(5, 1, 0, 0), noise::normal(6, 1, 0, 0));
    assert_ne!(noise::normal(5, 1, 0, 0), noise::normal(5, 2, 0, 0));
}

#[test]
fn exponential_is_exact_to_rounding() {
    // From the smallest normal number to the largest one.
    for step in -8700..8872 {
        let x = step as f32 * 0.01;
        let (found, exact) = (f64::from(noise::exp(x)), f64::from(x).exp());
        assert!((found / exact - 1.0).abs() < 3e-7, "{x}: {found} {exact}");
    }
    assert_eq!(noise::exp(-200.0), 0.0);
    assert_eq!(noise::exp(200.0), f32::INFINITY);
    assert!(noise::exp(f32::NAN).is_nan());
}
