//! Training steps with sampled messages, fused: against the reference and the chunks, and exactly.

use super::tests::{STARS, integers};
use super::training_tests::{compare, compare_changed, exact, fused, plan};
use super::*;
use crate::device::{Device, test_gpu};
use crate::model::Precision;
use crate::ops::edge::selftest::{Case, Kind};

/// With its own kernel, on the whole device and on one block.
fn ways(gpu: Gpu, case: &Case) -> Vec<(EdgePath, &'static str)> {
    let plan = plan(gpu, case);
    vec![(fused(plan), "fused"), (fused(plan.alone()), "one block")]
}

#[test]
fn gpu_fused_sampled_step_agrees_with_the_chunked_one() {
    let Some(Device::Gpu(gpu)) = test_gpu() else { return };
    let agree = |network: [usize; 2], degrees: &[usize], most: usize| {
        compare(gpu, Kind::Kl, network, (degrees, most), |case| ways(gpu, case));
    };
    // Receivers without edges, several of them in a tile, one with many tiles.
    for degrees in &STARS[..5] {
        agree([16, 3], degrees, usize::MAX);
    }
    // Odd widths, chunks of several stars and of one.
    agree([33, 31], &[9, 30, 0, 0, 7, 5, 12, 1], 22);
    agree([65, 17], &[70, 3, 0, 130], usize::MAX);
    // More outputs than hidden units, in several passes over them.
    agree([40, 100], &[0, 65, 2], usize::MAX);
    agree([130, 128], &[0, 65], usize::MAX);
    // More units than a slice of the second layer's gradient.
    agree([260, 100], &[3, 64, 0, 1], usize::MAX);
    // More tiles than a chain of sums.
    agree([16, 2], &[4100], usize::MAX);
}

#[test]
fn gpu_fused_sampled_step_has_a_gradient_without_its_penalty() {
    let Some(Device::Gpu(gpu)) = test_gpu() else { return };
    // Log-variances have a gradient even so, from the noise.
    let free = |case: &mut Case| case.penalty = Penalty::Kl(0.0);
    let network = [33, 20];
    let of = |degrees: &[usize], most: usize| {
        compare_changed(gpu, Kind::Kl, network, (degrees, most), free, |case| ways(gpu, case));
    };
    of(STARS[1], usize::MAX);
    of(&[9, 30, 0, 12], 22);
}

/// Small integers, and log-variances so far below zero that deviations vanish; a penalty of `per_edge` on each edge.
fn certain(network: [usize; 3], degrees: &[usize], per_edge: f32) -> Case {
    let mut case = integers(Kind::Kl, network, degrees);
    let last = &case.shape.arena().edge[2];
    case.parameters[last.bias.clone()][network[2]..].iter_mut().for_each(|b| *b -= 3000.0);
    let edges = case.batch().check(case.parameters.len()).unwrap();
    case.penalty = Penalty::Kl(per_edge * edges as f32);
    case
}

#[test]
fn gpu_fused_sampled_step_is_exact_where_nothing_is_rounded() {
    let Some(Device::Gpu(gpu)) = test_gpu() else { return };
    for (network, degrees, per_edge) in [
        ([20, 2, 3], &[9, 0, 64, 130][..], 0.125),
        ([20, 2, 3], &[9, 0, 64, 130], 0.0),
        ([33, 2, 20], &[1], 0.125),
        ([128, 2, 40], &[63, 0, 0, 7, 8, 1, 1, 65], 0.125),
        ([490, 2, 100], &[66, 1], 0.125),
    ] {
        let case = certain(network, degrees, per_edge);
        let plan = plan(gpu, &case);
        // Chunks of several stars, and one.
        for most in [70, usize::MAX] {
            exact(gpu, &case, &[fused(plan), fused(plan.alone())], most);
        }
    }
}

#[test]
fn gpu_fused_sampled_step_is_for_shapes_that_fit() {
    let Some(Device::Gpu(gpu)) = test_gpu() else { return };
    let planned = |features: usize, network: [usize; 3], precision: Precision| {
        let case = Case::of_features(features, Kind::Kl, network, &[2], 0).at(precision);
        let plan = TrainingPlan::new(gpu, &case.batch()).unwrap();
        // These kernels are used at every compute capability.
        match EdgePath::of(gpu, &case.batch()).unwrap() {
            EdgePath::Layers => assert!(plan.is_none(), "{network:?}"),
            way => assert!(matches!(way, EdgePath::Training(_, Plan::Fused(_))), "{way:?}"),
        }
        plan
    };
    // Uses all of the shared memory of a block on sm_80.
    let widest = planned(7, [512, 2, 100], Precision::Bf16);
    assert_eq!(widest.map(|plan| plan.most_shared()), Some(163 << 10));
    assert!(planned(7, [16, 2, 100], Precision::Bf16).is_some());
    assert!(planned(7, [16, 2, 3], Precision::F32).is_none());
    assert!(planned(7, [16, 3, 3], Precision::Bf16).is_none());
    assert!(planned(7, [513, 2, 3], Precision::Bf16).is_none());
}
