//! The reference against finite differences, every instruction level and both precisions against the reference, and
//! what must not change the result: threads, old contents of buffers, the frame of the coordinates.

use super::selftest::{Case, KINDS, Kind, check, expected};
use super::*;
use crate::device::{Cpu, Simd};
use crate::ops::mlp::Rounding;

#[test]
fn reference_agrees_with_finite_differences() {
    for kind in KINDS {
        for layers in [1, 2, 3] {
            let case = Case::new(kind, [7, layers, 3], &[2, 0, 3], 0);
            let mut w: Vec<f64> = case.parameters.iter().map(|&x| f64::from(x)).collect();
            let batch = case.batch();
            let exact = reference::gradient(&batch, &case.targets, &w, Rounding::Exact);
            let mut checked = 0;
            for (name, _, range) in case.shape.arena().tensors() {
                for index in range.step_by(3) {
                    let centre = w[index];
                    let mut at = |x: f64| {
                        w[index] = x;
                        reference::gradient(&batch, &case.targets, &w, Rounding::Exact).total()
                    };
                    let mut slope = |h: f64| (at(centre + h) - at(centre - h)) / (2.0 * h);
                    // A step across a kink shows as a difference between the two; such places are not counted.
                    let (wide, narrow) = (slope(2e-6), slope(1e-6));
                    w[index] = centre;
                    if (wide - narrow).abs() > 1e-6 {
                        continue;
                    }
                    let found = exact.gradients[index];
                    assert!(
                        (found - narrow).abs() < 1e-6 + 1e-6 * narrow.abs(),
                        "{kind:?}, {layers} layers, {name}[{index}]: {found} against {narrow}"
                    );
                    checked += 1;
                }
            }
            assert!(checked * 4 > w.len() / 3, "only {checked} of {} were smooth", w.len());
        }
    }
}

/// Every level and both precisions.
fn compare(kind: Kind, network: [usize; 3], degrees: &[usize], what: &str) {
    // Several cases of small networks: the error of a few numbers would be a matter of luck.
    let count = if network[0].min(network[2]) < 20 { 8 } else { 1 };
    for precision in [Precision::F32, Precision::Bf16] {
        let case = |seed| Case::new(kind, network, degrees, seed).at(precision);
        let cases: Vec<Case> = (0..count).map(case).collect();
        let expected = expected(&cases);
        let can = |level: &Simd| precision == Precision::F32 || level.has_bf16();
        for simd in Simd::available().into_iter().filter(can) {
            let check =
                check(&cases, &expected, &Device::Cpu(Cpu::with(simd).unwrap()), what).unwrap();
            assert!(check.passed(), "{simd:?}: {check:?}");
        }
    }
}

#[test]
fn gpu_agrees_with_the_reference() {
    crate::ops::assert_gpu_passes(selftest::checks);
}

#[test]
fn every_level_agrees_with_the_reference_on_every_network() {
    for kind in KINDS {
        for hidden in [3, 7, 16, 33, 128] {
            for layers in [1, 2, 3] {
                let what = format!("{kind:?}, {layers} layers of {hidden}");
                compare(kind, [hidden, layers, 5], &[9, 0, 30, 24, 25], &what);
            }
        }
        for message_dim in [1, 2, 16, 31, 100] {
            let what = format!("{kind:?}, {message_dim} messages");
            compare(kind, [33, 2, message_dim], &[3, 14, 27], &what);
        }
    }
}

#[test]
fn every_level_agrees_with_the_reference_on_every_star() {
    for kind in KINDS {
        // Alone, around a tile, around a group, and many of them.
        for degrees in [&[1][..], &[191, 1], &[193], &[1, 385, 0, 2], &[1701, 1, 300], &[5; 211]] {
            let what = format!("{kind:?}, stars {:?}…", &degrees[..degrees.len().min(4)]);
            compare(kind, [16, 2, 3], degrees, &what);
        }
    }
}

#[test]
fn receivers_without_edges_have_predictions_and_no_gradient() {
    let case = Case::new(Kind::L1, [7, 2, 3], &[0, 0], 0);
    let mut found = vec![f32::NAN; 4];
    let mut workspace = Workspace::default();
    let (batch, w) = (case.batch(), &case.parameters);
    predict(&Device::cpu(), &batch, w, &mut found, &mut workspace).unwrap();
    let wide: Vec<f64> = w.iter().map(|&x| f64::from(x)).collect();
    let exact = reference::predict(&batch, &wide, Rounding::Exact);
    assert!(crate::ops::relative_error(&found, &exact) < 1e-6, "{found:?}, not {exact:?}");
    let error = case.step(&Device::cpu(), &mut Workspace::default()).unwrap_err();
    assert_eq!(error.field.as_deref(), Some("receivers"));
}

#[test]
fn neither_threads_nor_old_buffers_change_a_bit() {
    for kind in KINDS {
        for precision in crate::ops::precisions(&Device::cpu()) {
            // Several parts, of different sizes.
            let case = Case::new(kind, [16, 2, 3], &[97; 150], 0).at(precision);
            let mut workspace = Workspace::default();
            let other = Case::new(kind, [40, 1, 9], &[400, 3], 0).at(precision);
            other.step(&Device::cpu(), &mut workspace).unwrap();
            let mut run = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| case.step(&Device::cpu(), &mut workspace).unwrap())
            };
            let one = run(1);
            assert_eq!(one, run(2));
            assert_eq!(one, run(5));
            assert_eq!(one, case.step(&Device::cpu(), &mut Workspace::default()).unwrap());
        }
    }
}

#[test]
fn relative_coordinates_keep_their_digits_and_wrap() {
    // Two pairs at equal distances, one of them across the border of a box of 1024, in a network that sees the second
    // coordinate of the sender minus that of the receiver.
    let shape =
        Shape { n_features: 3, message_dim: 1, outputs: 1, hidden: 1, layers: 1, sampled: false };
    let arena = shape.arena();
    let mut parameters = vec![0.0; arena.len];
    parameters[arena.edge[0].weight.start + 1] = -1.0;
    parameters[arena.edge[0].weight.start + 4] = 1.0;
    parameters[arena.edge[1].weight.start] = 1.0;
    parameters[arena.node[0].weight.start + 3] = 1.0;
    parameters[arena.node[1].weight.start] = 1.0;
    // Offsets that f32 holds at 1 but not at 1000, where a digit is 6e-5.
    let near = 2f32.powi(-14) * 3.0;
    let features = [0.0, 1000.0, 0.0, 0.0, 1000.0 + near, 0.0, 5.0, 1023.75, 0.0, 5.0, 0.5, 0.0];
    let batch = Batch {
        shape,
        penalty: Penalty::None,
        weight_decay: 0.0,
        precision: Precision::F32,
        row_start: &[0, 1, 1, 2, 2],
        sender: &[1, 3],
        receivers: &[0, 2],
        features: &features,
        coordinates: Coordinates { dim: 3, period: 1024.0, shift: [9.0, 100_000.3, -4.0] },
        noise_seed: 0,
        step: 1,
    };
    for simd in Simd::available() {
        let mut found = [f32::NAN; 2];
        let device = Device::Cpu(Cpu::with(simd).unwrap());
        predict(&device, &batch, &parameters, &mut found, &mut Workspace::default()).unwrap();
        assert_eq!(found, [features[4] - 1000.0, 0.75], "{simd:?}");
    }
}

#[test]
fn wrong_buffers_are_errors_that_name_them() {
    let case = Case::new(Kind::L1, [7, 2, 3], &[2, 3], 0);
    let good = case.batch();
    let call = |batch: &Batch, targets: usize, gradients: usize| {
        let (targets, mut gradients) = (vec![0.0; targets], vec![7.0; gradients]);
        let error = gradient(
            &Device::cpu(),
            batch,
            &targets,
            &case.parameters,
            &mut gradients,
            &mut Workspace::default(),
        )
        .unwrap_err();
        assert!(gradients.iter().all(|&g| g == 7.0), "written in spite of {error}");
        (error.field.clone().unwrap_or_default(), error.row.unwrap_or(0))
    };
    let (targets, len) = (case.targets.len(), case.parameters.len());
    let with = |change: &dyn Fn(&mut Batch)| {
        let mut batch = Batch { ..case.batch() };
        change(&mut batch);
        call(&batch, targets, len)
    };
    assert_eq!(call(&good, targets - 1, len).0, "targets");
    assert_eq!(call(&good, targets, len + 1).0, "gradients");
    assert_eq!(with(&|b| b.features = &b.features[1..]).0, "features");
    assert_eq!(with(&|b| b.receivers = &[1, 99]), ("receivers".into(), 2));
    assert_eq!(with(&|b| b.receivers = &[]).0, "receivers");
    assert_eq!(with(&|b| b.sender = &b.sender[..3]), ("receivers".into(), 1));
    assert_eq!(with(&|b| b.sender = &[77; 99]), ("receivers".into(), 1));
    assert_eq!(with(&|b| b.row_start = &[0, 5, 3, 7, 7, 7, 7, 7]), ("receivers".into(), 2));
    assert_eq!(with(&|b| b.coordinates.dim = 4).0, "coordinates");
    assert_eq!(with(&|b| b.coordinates.period = f32::NAN).0, "coordinates");
    assert_eq!(with(&|b| b.penalty = Penalty::Kl(1.0)).0, "penalty");
    assert_eq!(with(&|b| b.shape.layers = 0).0, "");
}

#[test]
fn gradients_of_equal_steps_have_equal_bits() {
    let first = [1.0, -0.0, f32::MIN_POSITIVE];
    assert!(same_bits(&first, &first).is_ok());
    let error = same_bits(&first, &[1.0, 0.0, first[2] / 2.0]).unwrap_err();
    assert!(error.message.starts_with("2 of 3 numbers"), "{error}");
}
