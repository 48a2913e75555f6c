//! Many tiles for each block: a step in every way against f32, and against itself, bit by bit. On the stand-in, where a
//! multiprocessor is a loop, with small sizes.

use super::tests::wide;
use super::training_tests::{found, fused, hopper, plan};
use super::*;
use crate::device::{Device, test_gpu};
use crate::model::Precision;
use crate::ops::edge::selftest::{Case, Kind, each, expected};

/// Edges, units of a hidden layer, messages, and how often everything is computed.
fn size(gpu: Gpu) -> (usize, usize, usize, usize) {
    if gpu.is_emulated() {
        eprintln!("skipped: 2^19 edges and 500 units need a GPU; 512 edges and 64 units instead");
        return (512, 64, 16, 2);
    }
    (1 << 19, 500, 100, 10)
}

/// A case with all targets above the predictions, so that gradients do not cancel; cancelling would exaggerate any
/// error.
fn case(kind: Kind, network: [usize; 3], degrees: &[usize], seed: u64) -> Case {
    let mut case = Case::new(kind, network, degrees, seed).at(Precision::Bf16);
    case.targets.iter_mut().for_each(|y| *y = y.abs());
    case
}

/// The error allowed in bf16 for each part of the result, found from a few stars.
fn limits(kind: Kind, network: [usize; 3]) -> Vec<f64> {
    let cases: Vec<Case> = (0..2).map(|seed| case(kind, network, &[33, 0, 64, 31], seed)).collect();
    let expected = expected(&cases);
    let exact: Vec<Vec<f32>> =
        expected[0].iter().map(|numbers| numbers.iter().map(|&x| x as f32).collect()).collect();
    each(&cases, &exact, &expected, "").into_iter().map(|check| check.limit).collect()
}

fn agree_and_repeat(kind: Kind) {
    let Some(Device::Gpu(gpu)) = test_gpu() else { return };
    let (edges, hidden, messages, times) = size(gpu);
    let network = [hidden, 2, messages];
    let limits = limits(kind, network);
    let degrees: Vec<usize> = (0..edges / 128).map(|k| [128, 0, 255, 129][k % 4]).collect();
    let mut cases = [case(kind, network, &degrees, 1)];
    cases[0].precision = Precision::F32;
    let exact = found((gpu, EdgePath::Layers, CHUNK_EDGES), &cases[0]);
    cases[0].precision = Precision::Bf16;
    let case = &cases[0];
    let mut results = vec![(wide(&exact), "f32".to_string())];
    let ways = [
        Some((EdgePath::Layers, "layers")),
        Some((fused(plan(gpu, case)), "fused")),
        hopper(gpu, case).map(|way| (way, "warpgroups")),
    ];
    for (way, name) in ways.into_iter().flatten() {
        for most in [edges / 3, usize::MAX] {
            let how = (gpu, way, most.min(way.edges()));
            let what = format!("{kind:?}, {edges} edges, chunks of {}, {name}", how.2);
            let first = found(how, case);
            for time in 1..times {
                let again = found(how, case);
                let differ =
                    first.iter().zip(&again).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
                assert_eq!(differ, 0, "{what}: other bits at repetition {time}");
            }
            let found = [first];
            for (other, which) in &results {
                let other = [vec![other.clone()], vec![other.clone()]];
                let checks = each(&cases, &found, &other, &what);
                let shares = checks.iter().zip(&limits).map(|(check, limit)| check.error / limit);
                let worst = shares.fold(0.0, f64::max);
                eprintln!("{what}: {worst:.3} of what bf16 may do, against {which}");
                for (check, limit) in checks.iter().zip(&limits) {
                    let (case, error) = (&check.case, check.error);
                    assert!(error <= *limit, "{case}, against {which}: {error}, at most {limit}");
                }
            }
            results.push((wide(&found[0]), what));
        }
    }
}

#[test]
fn gpu_large_steps_agree_and_repeat() {
    agree_and_repeat(Kind::None);
}

#[test]
fn gpu_large_steps_with_l1_agree_and_repeat() {
    agree_and_repeat(Kind::L1);
}
