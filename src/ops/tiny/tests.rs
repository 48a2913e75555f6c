//! The reference against finite differences, every instruction level, both precisions and the GPU against the
//! reference, and what must not change the result: threads, stacking, old contents of buffers.

use super::selftest::{Case, KINDS, Kind};
use super::source::{Draw, Source, States};
use super::*;
use crate::device::{Cpu, Simd};
use crate::ops::adam;
use crate::ops::mlp::Rounding;
use crate::random::Random;

const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::Bf16];

#[test]
fn reference_agrees_with_finite_differences() {
    for kind in KINDS {
        for layers in [1, 2, 3] {
            let case = Case::new(kind, [7, layers, 3], [1, 2, 3]);
            let arena = case.shape.arena();
            let mut w: Vec<f64> = case.parameters.iter().map(|&x| f64::from(x)).collect();
            let batch = case.batch();
            let exact = reference::gradient(&batch, 0, &w, Rounding::Exact);
            let mut checked = 0;
            for (name, _, range) in arena.tensors() {
                for index in range.step_by(3) {
                    let centre = w[index];
                    let mut at = |x: f64| {
                        w[index] = x;
                        reference::gradient(&batch, 0, &w, Rounding::Exact).total()
                    };
                    let mut slope = |h: f64| (at(centre + h) - at(centre - h)) / (2.0 * h);
                    // A step across a kink shows as a difference between the two; such places are not counted.
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

/// Levels that can compute in `precision`.
fn levels(precision: Precision) -> impl Iterator<Item = Simd> {
    let can = move |level: &Simd| precision == Precision::F32 || level.has_bf16();
    Simd::available().into_iter().filter(can)
}

fn cpu(simd: Simd) -> Device {
    Device::Cpu(Cpu::with(simd).unwrap())
}

/// Every level and both precisions.
fn compare(mut case: Case, what: &str) {
    for precision in PRECISIONS {
        case = case.at(precision);
        let expected = case.expected();
        for simd in levels(precision) {
            let check = case.check(&expected, &cpu(simd), what).unwrap();
            assert!(check.passed(), "{simd:?}: {check:?}");
        }
    }
}

#[test]
fn gpu_agrees_with_the_reference() {
    crate::ops::assert_gpu_passes(selftest::checks);
}

#[test]
fn every_level_agrees_with_the_reference_on_every_width() {
    for kind in KINDS {
        for hidden in [1, 7, 16, 33, 128] {
            for layers in [1, 2, 3] {
                let what = format!("{kind:?}, {layers} layers of {hidden}");
                // Enough runs that the error of a few numbers is not a matter of luck.
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

/// One run of a stack, alone.
fn member(case: &Case, run: usize) -> Case {
    let of = |values: &[f32]| {
        let len = values.len() / case.runs;
        values[run * len..(run + 1) * len].to_vec()
    };
    Case {
        runs: 1,
        features: of(&case.features),
        targets: of(&case.targets),
        noise_seeds: vec![case.noise_seeds[run]],
        parameters: of(&case.parameters),
        ..*case
    }
}

#[test]
fn a_stack_equals_its_single_runs_and_threads_do_not_matter() {
    let step = |threads: usize, case: &Case| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| case.step(&Device::cpu(), &mut Workspace::default())).unwrap()
    };
    for kind in KINDS {
        let case = Case::new(kind, [33, 2, 10], [5, 40, 4]);
        let one = step(1, &case);
        assert_eq!(one, step(2, &case), "{kind:?}");
        assert_eq!(one, step(8, &case), "{kind:?}");
        let runs = one.0.chunks_exact(case.shape.arena().len).zip(&one.1);
        for (run, (gradients, &loss)) in runs.enumerate() {
            assert_eq!(
                step(2, &member(&case, run)),
                (gradients.to_vec(), vec![loss]),
                "{kind:?}, {run}"
            );
        }
    }
}

#[test]
fn gpu_stacks_equal_their_single_runs_and_repeat_to_the_bit() {
    let Some(gpu) = crate::device::test_gpu() else { return };
    let step = |case: &Case| case.step(&gpu, &mut Workspace::default()).unwrap();
    for kind in KINDS {
        for precision in PRECISIONS {
            let case = Case::new(kind, [33, 2, 10], [3, 30, 4]).at(precision);
            let whole = step(&case);
            assert_eq!(whole, step(&case), "{kind:?}, {precision:?}");
            let runs = whole.0.chunks_exact(case.shape.arena().len).zip(&whole.1);
            for (run, (gradients, &loss)) in runs.enumerate() {
                let alone = step(&member(&case, run));
                assert_eq!(alone, (gradients.to_vec(), vec![loss]), "{kind:?}, {precision:?}");
            }
        }
    }
}

#[test]
fn what_a_workspace_was_used_for_does_not_matter() {
    for precision in PRECISIONS {
        for simd in levels(precision) {
            let mut workspace = Workspace::default();
            let mut large = Case::new(Kind::Kl, [40, 3, 20], [2, 9, 5]);
            let mut small = Case::new(Kind::L1, [7, 1, 3], [1, 3, 3]);
            (large.precision, small.precision) = (precision, precision);
            large.step(&cpu(simd), &mut workspace).unwrap();
            let used = small.step(&cpu(simd), &mut workspace).unwrap();
            let fresh = small.step(&cpu(simd), &mut Workspace::default()).unwrap();
            assert_eq!(used, fresh, "{simd:?}");
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
    let batch = Batch { graphs: 1 << 31, ..case.batch() };
    assert_eq!(call(&batch, len, len, 2), "graphs");
    let batch = Batch { precision: Precision::Bf16, ..case.batch() };
    let Ok(without) = Cpu::with(Simd::Avx2) else { return };
    let without = Device::Cpu(without);
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
    for precision in PRECISIONS {
        let mut case = Case::new(Kind::L1, [33, 2, 3], [2, 3, 3]);
        case.precision = precision;
        for simd in levels(precision) {
            let (len, sentinel) = (case.parameters.len(), f32::from_bits(0x7fab_cdef).to_bits());
            let mut gradients = vec![f32::from_bits(sentinel); len + 64];
            let mut losses = vec![Loss::default(); 2];
            gradient(
                &Device::Cpu(Cpu::with(simd).unwrap()),
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
        assert_diverges(&cpu(simd));
    }
}

#[test]
fn gpu_shows_in_the_loss_that_a_network_diverged() {
    if let Some(gpu) = crate::device::test_gpu() {
        assert_diverges(&gpu);
    }
}

fn assert_diverges(device: &Device) {
    let mut case = Case::new(Kind::L1, [33, 2, 3], [1, 3, 3]);
    case.parameters[5] = f32::NAN;
    let (_, losses) = case.step(device, &mut Workspace::default()).unwrap();
    assert!(losses[0].prediction.is_nan(), "{device:?}");
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

#[test]
fn gpu_replayed_steps_equal_launches_and_a_resumed_training_equals_an_uninterrupted_one() {
    let Some(Device::Gpu(gpu)) = crate::device::test_gpu() else { return };
    let (data_runs, frames, bodies) = (6, 5, 3);
    let numbers = |count: usize, stream: u64| -> Vec<f32> {
        let mut random = Random::new(8, stream);
        (0..count).map(|_| random.normal() as f32).collect()
    };
    let axes = [1, 2, 3].map(|stream| numbers(data_runs * frames * bodies * 2, stream));
    let scalars = [4, 5].map(|stream| numbers(data_runs * bodies, stream));
    let states = States {
        counts: None,
        positions: &axes[0],
        velocities: &axes[1],
        accelerations: &axes[2],
        masses: &scalars[0],
        charges: &scalars[1],
        frames,
        bodies,
        dim: 2,
    };
    let source = Source {
        states,
        shown: None,
        draw: Draw { first_frame: 1, frames: 2, stride: 3, translation: 3.0 },
        parts: vec![5, 0, 2, 3, 1, 4, 5, 2],
        seeds: vec![7, 1 << 40],
        noise_seeds: vec![3, 4],
    };
    let rates: Vec<adam::Args> = (1..=9).map(|step| adam::Args::new(1e-2, step)).collect();
    for (kind, precision) in KINDS.into_iter().zip([PRECISIONS[1], PRECISIONS[0], PRECISIONS[0]]) {
        let case = Case::new(kind, [20, 2, 4], [2, 4, bodies]);
        let Case { shape, penalty, runs, graphs, bodies, .. } = case;
        let weight_decay = 1e-3;
        let problem = Problem { shape, penalty, weight_decay, precision, runs, graphs, bodies };
        let start = |arenas: [&[f32]; 3], done: u64| {
            gpu::Training::new(gpu, problem, &source, &rates, arenas, done).unwrap()
        };
        let state = |training: &gpu::Training| {
            let mut arenas = [vec![f32::NAN; case.parameters.len()], vec![], vec![]];
            (arenas[1], arenas[2]) = (arenas[0].clone(), arenas[0].clone());
            let [parameters, m, v] = &mut arenas;
            training.parameters(parameters).unwrap();
            training.moments(m, v).unwrap();
            arenas
        };
        let zeros = vec![0.0; case.parameters.len()];
        let initial: [&[f32]; 3] = [&case.parameters, &zeros, &zeros];
        let mut replayed = start(initial, 0);
        let losses = replayed.advance(9).unwrap();
        let trained = state(&replayed);
        assert_eq!(losses.len(), 9 * runs);
        assert!(losses.iter().all(|loss| loss.prediction.is_finite()), "{losses:?}");
        assert!(losses[0] != losses[1] && losses[0] != losses[2], "runs and steps differ");
        assert_ne!(trained[0], case.parameters);

        let mut launched = start(initial, 0);
        (0..9).for_each(|_| launched.enqueue().unwrap());
        assert!(state(&launched) == trained, "{kind:?}: launched");

        let mut stopped = start(initial, 0);
        let mut found = stopped.advance(4).unwrap();
        let [parameters, m, v] = state(&stopped);
        let mut resumed = start([&parameters, &m, &v], 4);
        found.extend(resumed.advance(5).unwrap());
        assert!(state(&resumed) == trained, "{kind:?}: resumed");
        assert_eq!(found, losses, "{kind:?}");
    }
}
