//! The fused predictions against the reference, against the layers one by one, and exactly.

use super::*;
use crate::device::{Device, test_gpu};
use crate::model::Precision;
use crate::ops::edge::reference;
use crate::ops::edge::selftest::{Case, KINDS, Kind};
use crate::ops::mlp::Rounding;
use crate::ops::{Check, relative_error};

/// Predictions of a case into poisoned buffers.
fn found_by(gpu: Gpu, case: &Case, plan: Option<Plan>) -> Vec<f32> {
    let mut found = vec![f32::NAN; case.receivers.len() * case.shape.outputs];
    let way = plan.map_or(EdgePath::Layers, EdgePath::Predictions);
    predict_by((gpu, way), None, &case.batch(), &case.parameters, &mut found).unwrap();
    found
}

fn fused_plan(gpu: Gpu, case: &Case) -> Option<Plan> {
    let plan = fused::Plan::new(gpu, &case.batch()).unwrap().map(Plan::Fused);
    assert!(plan.is_some(), "hidden layers of {} are not fused", case.shape.hidden);
    plan
}

/// Fused, and layer by layer.
fn found(gpu: Gpu, case: &Case) -> [Vec<f32>; 2] {
    [fused_plan(gpu, case), None].map(|plan| found_by(gpu, case, plan))
}

fn expected(case: &Case, rounding: Rounding) -> Vec<f64> {
    let wide: Vec<f64> = case.parameters.iter().map(|&x| f64::from(x)).collect();
    reference::predict(&case.batch(), &wide, rounding)
}

pub(super) fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// Several cases of one size.
fn compare(gpu: Gpu, kind: Kind, network: [usize; 3], degrees: &[usize]) {
    // Several cases of small networks: the error of a few numbers would be a matter of luck.
    let count = if network[0] < 40 { 4 } else { 1 };
    let cases = (0..count).map(|seed| Case::new(kind, network, degrees, seed).at(Precision::Bf16));
    let cases: Vec<Case> = cases.collect();
    let of = |rounding: Rounding| -> Vec<f64> {
        cases.iter().flat_map(|case| expected(case, rounding)).collect()
    };
    let (exact, naive) = (of(Rounding::Exact), of(Rounding::Naive(Precision::Bf16)));
    let (mut fused, mut layers) = (Vec::new(), Vec::new());
    for case in &cases {
        let [one, other] = found(gpu, case);
        fused.extend(one);
        layers.extend(other);
    }
    let limit = 2.0 * relative_error(&naive, &exact) + 1e-6;
    let error = relative_error(&fused, &exact);
    let what = format!("{kind:?}, {network:?}, stars {degrees:?}");
    assert!(error <= limit, "{what}: {error} against the reference, at most {limit}");
    let error = relative_error(&fused, &wide(&layers));
    assert!(error <= limit, "{what}: {error} against the layers, at most {limit}");
}

/// Stars around the sizes of tiles, several of them in a tile or in a block.
pub(super) const STARS: [&[usize]; 6] =
    [&[1], &[0, 7, 8, 0, 65, 0], &[63, 64, 3, 128], &[389, 2], &[12; 40], &[0, 0]];

#[test]
fn gpu_fused_agrees_with_the_reference_and_the_layers() {
    let Some(Device::Gpu(gpu)) = test_gpu() else { return };
    for kind in KINDS {
        for layers in [1, 2, 3] {
            for hidden in [16, 33, 128] {
                let degrees = STARS[(hidden + layers) % STARS.len()];
                compare(gpu, kind, [hidden, layers, 31], degrees);
            }
        }
        for degrees in STARS {
            compare(gpu, kind, [16, 2, 3], degrees);
        }
        compare(gpu, kind, [20, 2, 100], &[70, 3]);
        compare(gpu, kind, [500, 2, 100], &[3, 64, 0, 30]);
    }
}

/// A case of integers, for which nothing is rounded: the result is exact in any order.
pub(super) fn integers(kind: Kind, network: [usize; 3], degrees: &[usize]) -> Case {
    integral(Case::new(kind, network, degrees, 1).at(Precision::Bf16))
}

/// A case with integers instead of its numbers.
pub(super) fn integral(mut case: Case) -> Case {
    let mut random = crate::random::Random::new(5, case.shape.hidden as u64);
    let mut digit = |most: u32| (random.word() % (2 * most + 1)) as f32 - most as f32;
    case.coordinates.period = 8.0;
    case.coordinates.shift = [1.0, -3.0, 2.0];
    case.features.iter_mut().for_each(|x| *x = digit(3));
    let arena = case.shape.arena();
    case.parameters.fill(0.0);
    for layer in arena.edge.iter().chain(&arena.node) {
        for unit in 0..layer.outputs {
            // Two inputs of each unit, so that three layers do not pass 256.
            for _ in 0..2 {
                let input = (digit(5000) + 5000.0) as usize % layer.inputs;
                case.parameters[layer.weight.start + unit * layer.inputs + input] = digit(1);
            }
            case.parameters[layer.bias.start + unit] = digit(2);
        }
    }
    // One feature has more digits than bf16, which only the gradient of φe's first layer sees.
    let (width, first) = (case.shape.n_features, &arena.edge[0]);
    case.features.chunks_mut(width).for_each(|node| node[width - 1] = 257.0 + 2.0 * digit(3));
    for weights in case.parameters[first.weight.clone()].chunks_mut(width) {
        weights[width - 1] = 0.0;
    }
    case
}

#[test]
fn gpu_fused_is_exact_where_nothing_is_rounded() {
    let Some(Device::Gpu(gpu)) = test_gpu() else { return };
    for kind in KINDS {
        for network in [[16, 1, 3], [33, 3, 20], [128, 2, 40], [500, 2, 150]] {
            // The stand-in is slow: few edges of the widest network.
            for degrees in &STARS[..if network[0] < 500 { STARS.len() } else { 2 }] {
                let case = integers(kind, network, degrees);
                let exact = expected(&case, Rounding::Exact);
                for (found, how) in found(gpu, &case).iter().zip(["fused", "by layers"]) {
                    assert_eq!(wide(found), exact, "{kind:?}, {network:?}, {degrees:?}, {how}");
                }
            }
        }
    }
}

#[test]
fn gpu_fused_first_layer_is_nearly_f32() {
    let Some(Device::Gpu(gpu)) = test_gpu() else { return };
    // One hidden layer, whose sums are those of f32 results: only the first layer's operands round.
    for degrees in STARS {
        let mut case = Case::new(Kind::None, [40, 1, 5], degrees, 2);
        case.precision = Precision::Bf16;
        // Far from zero: lost digits of the features would show.
        case.features.iter_mut().for_each(|x| *x += 10.0);
        let [fused, _] = found(gpu, &case);
        let error = relative_error(&fused, &expected(&case, Rounding::Exact));
        let what = format!("{degrees:?}, nearly f32");
        let check = Check { operation: "edge", case: what, error, limit: 1e-4 };
        assert!(check.passed(), "{check:?} {:?}", check.suspect());
    }
}

#[test]
fn gpu_fused_is_for_bf16_and_widths_that_fit() {
    let Some(Device::Gpu(gpu)) = test_gpu() else { return };
    let planned = |hidden: usize, precision: Precision| {
        let case = Case::new(Kind::L1, [hidden, 1, 3], &[2], 0).at(precision);
        fused::Plan::new(gpu, &case.batch()).unwrap().is_some()
    };
    assert!(planned(16, Precision::Bf16));
    assert!(!planned(16, Precision::F32));
    assert!(!planned(513, Precision::Bf16));
}

/// With warpgroups; `None` on a device without the instructions. The stand-in has them all.
pub(super) fn hopper_plan(gpu: Gpu, case: &Case) -> Option<Plan> {
    let device = gpu.properties().unwrap();
    if device.capability != hopper::CAPABILITY && !gpu.is_emulated() {
        eprintln!("skipped: {} has no wgmma", device.name);
        return None;
    }
    let plan = hopper::Plan::new(&device, &case.batch()).map(Plan::Hopper);
    assert!(plan.is_some(), "hidden layers of {} are not for warpgroups", case.shape.hidden);
    plan
}

fn hopper_found(gpu: Gpu, case: &Case) -> Option<Vec<f32>> {
    Some(found_by(gpu, case, Some(hopper_plan(gpu, case)?)))
}

/// Stars that keep one warp busy while others are done, and stars that fill several blocks.
const LONG: [&[usize]; 2] = [&[700, 0, 5], &[12; 60]];

#[test]
fn gpu_hopper_forward_agrees_with_the_fused_one() {
    let Some(Device::Gpu(gpu)) = test_gpu() else { return };
    let agree = |kind: Kind, network: [usize; 3], degrees: &[usize]| {
        let case = Case::new(kind, network, degrees, 7).at(Precision::Bf16);
        let Some(hopper) = hopper_found(gpu, &case) else { return };
        let fused = found_by(gpu, &case, fused_plan(gpu, &case));
        let exact = expected(&case, Rounding::Exact);
        let naive = expected(&case, Rounding::Naive(Precision::Bf16));
        // With so few numbers the naive error is a matter of luck: allow at least the precision of bf16.
        let limit = 2.0 * relative_error(&naive, &exact).max(1e-3);
        let what = format!("{kind:?}, {network:?}, stars {degrees:?}");
        for (other, name) in [(wide(&fused), "the fused kernel"), (exact, "the reference")] {
            let error = relative_error(&hopper, &other);
            assert!(error <= limit, "{what}: {error} against {name}, at most {limit}");
        }
    };
    for kind in KINDS {
        for degrees in STARS.into_iter().chain(LONG) {
            agree(kind, [16, 2, 3], degrees);
        }
        for (index, hidden) in [33, 128, 130, 200, 300].into_iter().enumerate() {
            agree(kind, [hidden, 1 + index % 3, 31], STARS[1 + index]);
        }
        agree(kind, [20, 2, 100], &[70, 3]);
        agree(kind, [500, 2, 100], &[3, 64, 0, 130]);
    }
}

#[test]
fn gpu_hopper_is_exact_where_nothing_is_rounded() {
    let Some(Device::Gpu(gpu)) = test_gpu() else { return };
    for kind in KINDS {
        for network in
            [[16, 1, 3], [33, 3, 20], [128, 2, 140], [150, 2, 3], [300, 3, 40], [500, 2, 150]]
        {
            // The stand-in is slow: few edges of wide networks.
            for degrees in
                if network[0] < 150 { &[STARS[1], LONG[0], LONG[1]][..] } else { &STARS[1..3] }
            {
                let case = integers(kind, network, degrees);
                let Some(found) = hopper_found(gpu, &case) else { return };
                let exact = expected(&case, Rounding::Exact);
                assert_eq!(wide(&found), exact, "{kind:?}, {network:?}, {degrees:?}");
            }
        }
    }
}

#[test]
fn gpu_hopper_is_for_bf16_and_what_fits() {
    let Some(Device::Gpu(gpu)) = test_gpu() else { return };
    let device = gpu.properties().unwrap();
    let planned = |hidden: usize, precision: Precision| {
        let case = Case::new(Kind::L1, [hidden, 2, 3], &[2], 0).at(precision);
        let best = Plan::new(gpu, &case.batch()).unwrap();
        let possible = hopper::Plan::new(&device, &case.batch()).is_some();
        let chosen = matches!(best, Some(Plan::Hopper(_)));
        assert_eq!(chosen, possible && device.capability == hopper::CAPABILITY);
        possible
    };
    assert!(planned(16, Precision::Bf16));
    assert!(!planned(16, Precision::F32));
    assert!(!planned(513, Precision::Bf16));
    assert_eq!(planned(512, Precision::Bf16), device.shared >= 213_072);
}
