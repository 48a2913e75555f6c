//! Training steps in every way: against the reference and against each other, and exactly.

use super::step::receivers::MANY_RECEIVERS;
use super::tests::{STARS, hopper_plan, integers, integral, wide};
use super::*;
use crate::device::{Device, test_gpu};
use crate::model::Precision;
use crate::ops::edge::selftest::{Case, KINDS, Kind, each, expected};
use crate::ops::edge::{self, Penalty, Workspace, reference};
use crate::ops::mlp::Rounding;
use crate::ops::relative_error;

/// The step of a case into poisoned buffers.
fn step(how: (Gpu, EdgePath, usize), case: &Case, batch: &Batch) -> (Vec<f32>, Loss) {
    let mut gradients = vec![f32::NAN; case.parameters.len()];
    let edges = batch.check(case.parameters.len()).unwrap();
    let (targets, parameters) = (&case.targets, &case.parameters);
    let loss = gradient_by(how, None, batch, edges, targets, parameters, &mut gradients).unwrap();
    (gradients, loss)
}

/// The same, and predictions, in the order of the reference.
pub(super) fn found(how: (Gpu, EdgePath, usize), case: &Case) -> Vec<f32> {
    let batch = case.batch();
    let mut found = vec![f32::NAN; case.receivers.len() * case.shape.outputs];
    predict((how.0, None), &batch, &case.parameters, &mut found).unwrap();
    let (gradients, loss) = step(how, case, &batch);
    found.extend(gradients);
    found.extend([loss.prediction, loss.penalty, loss.decay]);
    found
}

pub(super) fn plan(gpu: Gpu, case: &Case) -> TrainingPlan {
    let plan = TrainingPlan::new(gpu, &case.batch()).unwrap();
    plan.unwrap_or_else(|| panic!("{:?} is not fused", case.shape))
}

/// With its own kernel forward.
pub(super) fn fused(plan: TrainingPlan) -> EdgePath {
    EdgePath::Training(plan, Plan::Fused(plan.forward))
}

/// With warpgroups on the way back, and the plan of the forward pass, where the device has them.
fn warpgroups(gpu: Gpu, case: &Case) -> Option<(TrainingPlan, Plan)> {
    let forward = hopper_plan(gpu, case)?;
    let plan = plan(gpu, case).by_warpgroups(&gpu.properties().unwrap(), case.shape.n_features);
    let both = plan.hopper.is_some() && plan.hopper_second.is_some();
    assert!(both, "{:?} is not for warpgroups on the way back", case.shape);
    Some((plan, forward))
}

/// With warpgroups in both directions.
pub(super) fn hopper(gpu: Gpu, case: &Case) -> Option<EdgePath> {
    warpgroups(gpu, case).map(|(plan, forward)| EdgePath::Training(plan, forward))
}

/// Several cases of one size, layer by layer and in other ways: every gradient, the predictions and the parts of the
/// loss, against the reference and against each earlier way.
pub(super) fn compare(
    gpu: Gpu,
    kind: Kind,
    network: [usize; 2],
    (degrees, most): (&[usize], usize),
    ways: impl Fn(&Case) -> Vec<(EdgePath, &'static str)>,
) {
    compare_changed(gpu, kind, network, (degrees, most), |_| (), ways);
}

/// The same, with cases that are modified first.
pub(super) fn compare_changed(
    gpu: Gpu,
    kind: Kind,
    network: [usize; 2],
    (degrees, most): (&[usize], usize),
    change: impl Fn(&mut Case),
    ways: impl Fn(&Case) -> Vec<(EdgePath, &'static str)>,
) {
    let network = [network[0], 2, network[1]];
    // Several cases of small networks: the error of a few numbers would be a matter of luck.
    let few = network[0].min(network[2]) < 40 && degrees.iter().sum::<usize>() < 1000;
    let cases = (0..if few { 4 } else { 1 })
        .map(|seed| Case::new(kind, network, degrees, seed).at(Precision::Bf16));
    let mut cases: Vec<Case> = cases.collect();
    cases.iter_mut().for_each(change);
    let expected = expected(&cases);
    let mut before: Vec<Vec<Vec<f64>>> = Vec::new();
    for (way, how) in [vec![(EdgePath::Layers, "layers")], ways(&cases[0])].concat() {
        let what = format!("{kind:?}, {network:?}, stars {degrees:?}, chunks of {most}, {how}");
        let found: Vec<Vec<f32>> = cases.iter().map(|case| found((gpu, way, most), case)).collect();
        let checks = each(&cases, &found, &expected, &what);
        for check in &checks {
            assert!(check.passed(), "against the reference: {check:?}");
        }
        for other in &before {
            let between = each(&cases, &found, &[other.clone(), other.clone()], &what);
            for (check, limit) in between.iter().zip(&checks) {
                let (error, limit) = (check.error, limit.limit);
                assert!(error <= limit, "against another way: {error} of {limit}, {check:?}");
            }
        }
        before.push(found.iter().map(|found| wide(found)).collect());
    }
}

#[test]
fn gpu_fused_step_agrees_with_the_chunked_one() {
    let Some(Device::Gpu(gpu)) = test_gpu() else { return };
    let fused_alone = |case: &Case| vec![(fused(plan(gpu, case)), "fused")];
    let and_one_block = |case: &Case| {
        let plan = plan(gpu, case);
        vec![(fused(plan), "fused"), (fused(plan.alone()), "one block")]
    };
    for kind in [Kind::None, Kind::L1] {
        // Receivers without edges, several of them in a tile, one with many tiles.
        for degrees in &STARS[..4] {
            compare(gpu, kind, [16, 3], (degrees, usize::MAX), fused_alone);
        }
        compare(gpu, kind, [16, 3], (STARS[4], usize::MAX), and_one_block);
        // Odd widths, chunks of several stars and of one.
        compare(gpu, kind, [33, 31], (&[9, 30, 0, 0, 7, 5, 12, 1], 22), and_one_block);
        compare(gpu, kind, [65, 17], (&[70, 3, 0, 130], usize::MAX), and_one_block);
        compare(gpu, kind, [130, 128], (&[0, 65], usize::MAX), fused_alone);
        // More units than a slice of the second layer's gradient.
        compare(gpu, kind, [260, 100], (&[3, 64, 0, 1], usize::MAX), fused_alone);
        // More tiles than a chain of sums.
        compare(gpu, kind, [16, 2], (&[4100], usize::MAX), fused_alone);
    }
}

#[test]
fn gpu_hopper_step_agrees_with_the_fused_one_and_the_chunked_one() {
    let Some(Device::Gpu(gpu)) = test_gpu() else { return };
    let ways = |case: &Case| {
        let hopper = hopper(gpu, case).map(|way| (way, "warpgroups"));
        [(fused(plan(gpu, case)), "fused")].into_iter().chain(hopper).collect()
    };
    for kind in [Kind::None, Kind::L1] {
        compare(gpu, kind, [16, 3], (STARS[1], usize::MAX), ways);
        compare(gpu, kind, [33, 31], (&[9, 30, 0, 0, 7, 5, 12, 1], 22), ways);
        compare(gpu, kind, [65, 17], (&[170, 3, 0, 30], usize::MAX), ways);
        compare(gpu, kind, [130, 128], (&[0, 65], usize::MAX), ways);
        compare(gpu, kind, [260, 100], (&[3, 64, 0, 1], usize::MAX), ways);
    }
}

/// Small integers, and a penalty of 1/8 on each message.
fn integers_with(kind: Kind, network: [usize; 3], degrees: &[usize]) -> Case {
    eighths(integers(kind, network, degrees))
}

fn eighths(mut case: Case) -> Case {
    if let Penalty::L1(_) = case.penalty {
        case.penalty = Penalty::L1(case.batch().check(case.parameters.len()).unwrap() as f32 / 8.0);
    }
    case
}

/// A step in some ways against the reference, exactly; in chunks of up to `most` edges.
pub(super) fn exact(gpu: Gpu, case: &Case, ways: &[EdgePath], most: usize) {
    let batch = Batch { weight_decay: 0.0, ..case.batch() };
    let parameters = wide(&case.parameters);
    let exact = reference::gradient(&batch, &case.targets, &parameters, Rounding::Exact);
    assert!(exact.gradients.iter().filter(|&&g| g != 0.0).count() > 20);
    for &way in ways {
        let (gradients, loss) = step((gpu, way, most), case, &batch);
        let what = format!("{:?}, {:?}, chunks of {most}, {way:?}", case.shape, case.penalty);
        assert_eq!(wide(&gradients), exact.gradients, "{what}");
        assert_eq!(loss.penalty, exact.penalty as f32, "{what}");
    }
}

#[test]
fn gpu_fused_step_is_exact_where_nothing_is_rounded() {
    let Some(Device::Gpu(gpu)) = test_gpu() else { return };
    for kind in [Kind::None, Kind::L1] {
        for (network, degrees) in [
            ([16, 2, 3], &[9, 0, 64, 130][..]),
            ([33, 2, 20], &[1]),
            ([128, 2, 40], &[63, 0, 0, 7, 8, 1, 1, 65]),
            ([500, 2, 100], &[66, 1]),
        ] {
            let case = integers_with(kind, network, degrees);
            let plan = plan(gpu, &case);
            exact(gpu, &case, &[fused(plan), fused(plan.alone())], usize::MAX);
        }
    }
}

#[test]
fn gpu_chunks_give_what_the_whole_gives() {
    let Some(Device::Gpu(gpu)) = test_gpu() else { return };
    for kind in KINDS {
        for precision in [Precision::F32, Precision::Bf16] {
            let degrees = [9, 30, 0, 0, 7, 5, 12, 1];
            let case = Case::new(kind, [16, 2, 3], &degrees, 3).at(precision);
            let batch = case.batch();
            let exact = case.reference(Rounding::Exact);
            let limit = if precision == Precision::F32 { 2e-6 } else { 5e-3 };
            let mut ways = vec![EdgePath::Layers];
            ways.extend(TrainingPlan::new(gpu, &batch).unwrap().map(fused));
            // Chunks of several stars, of one that is larger than a chunk, of stars without edges.
            for (most, way) in
                [0, 10, 22, 64].iter().flat_map(|&most| ways.iter().map(move |w| (most, w)))
            {
                let (gradients, loss) = step((gpu, *way, most), &case, &batch);
                let error = relative_error(&gradients, &exact.gradients);
                assert!(error < limit, "{kind:?}, {precision:?}, chunks of {most}: {error}");
                let near =
                    |found: f32, exact: f64| (f64::from(found) - exact).abs() <= limit * exact;
                assert!(near(loss.prediction, exact.prediction), "{loss:?}");
                assert!(near(loss.penalty, exact.penalty), "{loss:?}");
            }
        }
    }
}

/// Layers on this many receivers use larger tiles.
#[test]
fn gpu_steps_on_many_receivers_are_exact_where_nothing_is_rounded() {
    let Some(Device::Gpu(gpu)) = test_gpu() else { return };
    let degrees: Vec<usize> = (0..MANY_RECEIVERS).map(|k| [1, 0, 0, 0][k % 4]).collect();
    let case = integers_with(Kind::None, [16, 2, 3], &degrees);
    exact(gpu, &case, &[EdgePath::Layers, fused(plan(gpu, &case))], usize::MAX);
}

#[test]
fn gpu_fused_step_is_for_shapes_that_fit() {
    let Some(Device::Gpu(gpu)) = test_gpu() else { return };
    let fused = |kind: Kind, network: [usize; 3], precision: Precision| {
        let case = Case::new(kind, network, &[2], 0).at(precision);
        TrainingPlan::new(gpu, &case.batch()).unwrap().is_some()
    };
    for kind in [Kind::None, Kind::L1] {
        assert!(fused(kind, [512, 2, 128], Precision::Bf16));
        assert!(!fused(kind, [16, 2, 3], Precision::F32));
        assert!(!fused(kind, [16, 1, 3], Precision::Bf16));
        assert!(!fused(kind, [513, 2, 3], Precision::Bf16));
    }
    assert!(fused(Kind::None, [16, 2, 300], Precision::Bf16));
    assert!(!fused(Kind::L1, [16, 2, 129], Precision::Bf16));
}

#[test]
fn gpu_hopper_step_is_exact_where_nothing_is_rounded() {
    let Some(Device::Gpu(gpu)) = test_gpu() else { return };
    for kind in [Kind::None, Kind::L1] {
        for (network, degrees) in [
            ([16, 2, 3], &[9, 0, 64, 130][..]),
            ([33, 2, 20], &[1]),
            ([128, 2, 40], &[63, 0, 0, 7, 8, 1, 300, 65]),
            // Padded more than on the way back.
            ([300, 2, 5], &[40, 3]),
            ([500, 2, 100], &[66, 1]),
        ] {
            let case = integers_with(kind, network, degrees);
            let Some(way) = hopper(gpu, &case) else { return };
            // Chunks of several stars, and one.
            for most in [70, usize::MAX] {
                exact(gpu, &case, &[way], most);
            }
        }
    }
}

#[test]
fn gpu_steps_read_what_was_kept() {
    let Some(gpu) = test_gpu() else { return };
    for precision in [Precision::F32, Precision::Bf16] {
        let case = Case::new(Kind::L1, [16, 2, 3], &[9, 30, 0, 7], 1).at(precision);
        let mut other = Case::new(Kind::L1, [16, 2, 3], &[9, 30, 0, 7], 1).at(precision);
        other.features.iter_mut().for_each(|x| *x += 0.25);
        other.targets.iter_mut().for_each(|y| *y -= 1.0);
        other.sender.rotate_left(1);
        let found = |case: &Case, workspace: &mut Workspace| {
            let mut outputs = vec![f32::NAN; case.receivers.len() * case.shape.outputs];
            let (batch, w) = (case.batch(), &case.parameters);
            edge::predict(&gpu, &batch, w, &mut outputs, workspace).unwrap();
            (case.step(&gpu, workspace).unwrap(), outputs)
        };
        let mut workspace = Workspace::default();
        workspace.keep(&gpu, &case.features, &case.targets, &case.sender).unwrap();
        let expected = found(&case, &mut Workspace::default());
        assert_eq!(found(&case, &mut workspace), expected);
        // They ignore the batch's own.
        assert_eq!(found(&other, &mut workspace), expected);
        assert_ne!(found(&other, &mut Workspace::default()), expected);
        let mut refused = |features: &[f32], senders: &[u32], field: &str| {
            workspace.keep(&gpu, features, &case.targets, senders).unwrap();
            let error = case.step(&gpu, &mut workspace).unwrap_err();
            assert_eq!(error.field.as_deref(), Some(field));
        };
        refused(&case.features[1..], &case.sender, "kept features");
        refused(&case.features, &case.sender[1..], "kept senders");
        let mut behind = case.sender.clone();
        behind[0] = 11;
        refused(&case.features, &behind, "kept senders");
    }
}

#[test]
fn gpu_hopper_way_back_agrees_with_the_fused_one() {
    let Some(Device::Gpu(gpu)) = test_gpu() else { return };
    // The same forward pass.
    let ways = |case: &Case| {
        let mut ways = vec![(fused(plan(gpu, case)), "fused")];
        if let Some((plan, _)) = warpgroups(gpu, case) {
            ways.extend([(fused(plan), "warpgroups"), (fused(plan.alone()), "one block")]);
        }
        ways
    };
    for kind in [Kind::None, Kind::L1] {
        compare(gpu, kind, [16, 3], (STARS[1], usize::MAX), ways);
        compare(gpu, kind, [33, 31], (&[9, 30, 0, 0, 7, 5, 12, 1], 22), ways);
        compare(gpu, kind, [130, 128], (&[0, 65], usize::MAX), ways);
    }
}

#[test]
fn gpu_hopper_way_back_is_exact_where_nothing_is_rounded() {
    let Some(Device::Gpu(gpu)) = test_gpu() else { return };
    let check = |case: Case| {
        let case = eighths(integral(case.at(Precision::Bf16)));
        if let Some((plan, _)) = warpgroups(gpu, &case) {
            exact(gpu, &case, &[fused(plan), fused(plan.alone())], usize::MAX);
        }
    };
    for kind in [Kind::None, Kind::L1] {
        // One block has several rounds of its buffers, and a tile that is not full.
        check(Case::new(kind, [16, 2, 3], &[300, 0, 9, 350], 1));
        check(Case::new(kind, [128, 2, 40], &[63, 0, 0, 7, 8, 1, 1, 65], 1));
        // Padded more than in the forward pass.
        check(Case::new(kind, [300, 2, 5], &[40, 3], 1));
    }
    // More messages than hidden units; parts of the other sizes, one and two.
    check(Case::new(Kind::L1, [33, 2, 128], &[130, 1], 1));
    check(Case::new(Kind::L1, [150, 2, 3], &[40], 1));
    check(Case::new(Kind::L1, [250, 2, 3], &[33], 1));
    check(Case::new(Kind::L1, [500, 2, 100], &[6, 1], 1));
    // More inputs than one block has in both parts.
    check(Case::of_features(9, Kind::L1, [64, 2, 40], &[140, 2], 1));
}

/// In every third unit of φe's first layer, takes the difference of the feature that has more digits than bf16.
fn with_low_parts(mut case: Case) -> Case {
    let (width, first) = (case.shape.n_features, &case.shape.arena().edge[0]);
    let units = case.parameters[first.weight.clone()].chunks_mut(first.inputs);
    for weights in units.step_by(3) {
        weights[width - 1] = 1.0;
        weights[2 * width - 1] = -1.0;
    }
    case
}

/// With warpgroups only on the way back through the second layer, where the device has them.
fn second(gpu: Gpu, case: &Case) -> Option<TrainingPlan> {
    warpgroups(gpu, case).map(|(plan, _)| plan.own_first())
}

#[test]
fn gpu_hopper_second_agrees_with_the_fused_one() {
    let Some(Device::Gpu(gpu)) = test_gpu() else { return };
    let ways = |case: &Case| {
        let mut ways = vec![(fused(plan(gpu, case)), "fused")];
        if let Some(plan) = second(gpu, case) {
            ways.extend([(fused(plan), "warpgroups"), (fused(plan.alone()), "one split")]);
        }
        ways
    };
    for kind in [Kind::None, Kind::L1] {
        compare(gpu, kind, [16, 3], (STARS[1], usize::MAX), ways);
        compare(gpu, kind, [33, 31], (&[9, 30, 0, 0, 7, 5, 12, 1], 22), ways);
        compare(gpu, kind, [260, 100], (&[3, 64, 0, 1], usize::MAX), ways);
    }
}

#[test]
fn gpu_hopper_second_is_exact_where_nothing_is_rounded() {
    let Some(Device::Gpu(gpu)) = test_gpu() else { return };
    let check = |case: Case| {
        let case = with_low_parts(eighths(integral(case.at(Precision::Bf16))));
        if let Some(plan) = second(gpu, &case) {
            exact(gpu, &case, &[fused(plan), fused(plan.alone())], usize::MAX);
        }
    };
    for kind in [Kind::None, Kind::L1] {
        // One split has several tiles for each warpgroup that makes them, one partial tile, and an odd number of tiles.
        check(Case::new(kind, [16, 2, 3], &[300, 0, 9, 350], 1));
        check(Case::new(kind, [128, 2, 40], &[63, 0, 0, 7, 8, 1, 1, 65], 1));
        // Slices along inputs and outputs.
        check(Case::new(kind, [300, 2, 5], &[40, 3], 1));
    }
    // As many messages as allowed; all slices; more tiles than a chain of sums.
    check(Case::new(Kind::L1, [33, 2, 128], &[130, 1], 1));
    check(Case::new(Kind::L1, [500, 2, 100], &[6, 1], 1));
    check(Case::new(Kind::L1, [16, 2, 3], &[300, 0, 9, 4350], 1));
    // Several blocks of inputs.
    check(Case::of_features(9, Kind::L1, [64, 2, 40], &[140, 2], 1));
}

#[test]
fn gpu_hopper_way_back_is_chosen_where_it_fits() {
    let Some(Device::Gpu(gpu)) = test_gpu() else { return };
    let planned = |features: usize| {
        let case = Case::of_features(features, Kind::L1, [512, 2, 128], &[2], 0);
        let case = case.at(Precision::Bf16);
        let EdgePath::Training(plan, forward) = EdgePath::of(gpu, &case.batch()).unwrap() else {
            panic!("{:?} is not fused", case.shape);
        };
        let back = [plan.hopper.is_some(), plan.hopper_second.is_some()];
        (matches!(forward, Plan::Hopper(_)), back)
    };
    let hopper = gpu.properties().unwrap().capability == hopper::CAPABILITY;
    assert_eq!(planned(7), (hopper, [hopper; 2]));
    // Two buffers of inputs do not fit for the first layer; then a slice's weights do not for the second.
    assert_eq!(planned(8), (hopper, [false, hopper]));
    assert_eq!(planned(9), (hopper, [false; 2]));
}
