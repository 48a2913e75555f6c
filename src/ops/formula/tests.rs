//! Sums and derivatives against f64, and a GPU against the CPU, bit for bit.

use super::selftest::{Case, TEXTS, checks, column};
use super::*;
use crate::device::{Simd, test_gpu};
use crate::formula::expression::Expression;

fn program(text: &str) -> Program {
    Program::new(&Expression::parse(text, &VARIABLES).unwrap())
}

fn on(simd: Simd) -> Device {
    Device::Cpu(Cpu::with(simd).unwrap())
}

fn sums(device: &Device, edges: Edges, programs: &[Program], gradient: bool) -> Option<Sums> {
    Loaded::new(device, edges).unwrap().sums(programs, gradient).unwrap()
}

#[test]
fn sums_and_derivatives_are_those_of_f64() {
    for simd in Simd::available() {
        let checks = checks(&on(simd)).unwrap();
        let failed: Vec<_> = checks.iter().filter(|check| !check.passed()).collect();
        assert!(failed.is_empty(), "{simd:?}: {failed:#?}");
    }
}

#[test]
fn gpu_sums_and_derivatives_are_those_of_f64() {
    crate::ops::assert_gpu_passes(checks);
}

#[test]
fn programs_together_give_what_each_gives() {
    let case = Case::new(150, 40);
    let programs = TEXTS.map(program);
    for simd in Simd::available() {
        let plain = sums(&on(simd), case.edges(), &programs, false).unwrap();
        let all = sums(&on(simd), case.edges(), &programs, true).unwrap();
        let mut at = 0;
        for (k, program) in programs.iter().enumerate() {
            let one = std::slice::from_ref(program);
            let one = sums(&on(simd), case.edges(), one, true).unwrap();
            assert_eq!(column(&plain, k), column(&one, 0), "with or without gradients");
            for k in 0..one.width {
                assert_eq!(column(&all, at + k), column(&one, k));
            }
            at += one.width;
        }
        assert_eq!(all.width, at);
    }
}

#[test]
fn an_edge_that_is_not_finite_makes_everything_invalid() {
    let case = Case::new(150, 40);
    for device in [Some(Device::cpu()), test_gpu()].into_iter().flatten() {
        let run = |text: &str| sums(&device, case.edges(), &[program(text)], true);
        assert!(run("log(r - 100)").is_none());
        assert!(run("1 / (m1 - m1)").is_none());
        assert!(run("1 / (1 + r)").is_some());
    }
}

/// Padding of a block must not count for a receiver after the last edge, here at zero distance from the sender.
#[test]
fn receivers_without_edges_do_not_make_sums_invalid() {
    let features = [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.5, 0.0, 0.0, 0.0, 1.0, 0.0, 2.0];
    let edges = Edges {
        row_start: &[0, 1, 1],
        sender: &[1],
        receivers: &[0, 1],
        features: &features,
        period: 2.0,
    };
    for device in [Some(Device::cpu()), test_gpu()].into_iter().flatten() {
        let found = sums(&device, edges, &[program("m2 / r")], false).unwrap();
        assert_eq!(found.values, [4.0, 0.0]);
    }
}

#[test]
fn edges_of_no_graph_are_refused() {
    let case = Case::new(150, 40);
    let refused = |edges: Edges| match Loaded::new(&Device::cpu(), edges) {
        Ok(_) => panic!("loaded"),
        Err(error) => error.to_string(),
    };
    let edges = case.edges();
    assert!(refused(Edges { receivers: &[1000], ..edges }).contains("receivers"));
    assert!(refused(Edges { features: &edges.features[1..], ..edges }).contains("features"));
    let mut sender = edges.sender.to_vec();
    let at = edges.span(edges.receivers[1]).start;
    sender[at] = 150;
    let error = refused(Edges { sender: &sender, ..edges });
    assert!(error.contains("sender") && error.contains(&(at + 1).to_string()), "{error}");
    assert!(refused(Edges { sender: &sender[..at], ..edges }).contains("row_start"));
    let mut rows = edges.row_start.to_vec();
    rows[9] = rows[10] + 1;
    assert!(refused(Edges { row_start: &rows, ..edges }).contains("row_start"));
    let loaded = Loaded::new(&Device::cpu(), edges).unwrap();
    let beyond = Expression::new(vec![crate::formula::expression::Node::Variable(9)]).unwrap();
    let error = loaded.sums(&[Program::new(&beyond)], false).unwrap_err().to_string();
    assert!(error.contains("expression"), "{error}");
}

/// Receivers without edges in every place, receivers that end with a tile, a single edge; and parts that are uploaded
/// at every call.
#[test]
fn gpu_sums_are_those_of_the_processor_bit_for_bit() {
    let Some(Device::Gpu(device)) = test_gpu() else { return };
    if Simd::detect() < Simd::Avx2 {
        eprintln!("skipped: functions differ in their last bits without vectors");
        return;
    }
    let programs = TEXTS.map(program);
    for (nodes, most) in [(6, 1), (9, 2), (64, 5), (150, 40), (40, 300)] {
        let case = Case::new(nodes, most);
        for receivers in [case.edges().receivers, &[3], &[5], &[3, 5, 3, 4], &[]] {
            let edges = Edges { receivers, ..case.edges() };
            for gradient in [false, true] {
                let twin = sums(&Device::cpu(), edges, &programs, gradient);
                // All of it, a third of it, and nothing stays on the device.
                let bytes = 4 * edges.sender.len() + 128 * receivers.len();
                for free in [usize::MAX, 2 * bytes / 3, 0] {
                    let loaded = gpu::Loaded::within(device, &edges, free).unwrap();
                    let found = loaded.sums(&edges, &programs, gradient).unwrap();
                    assert_eq!(found, twin, "{nodes} nodes, {receivers:?}, {free} bytes");
                }
            }
        }
    }
}

#[test]
fn gpu_long_programs_are_an_error() {
    let Some(gpu) = test_gpu() else { return };
    let case = Case::new(20, 5);
    let sum = |terms: usize| program(&vec!["0.5 * r"; terms].join(" + "));
    let twin = sums(&Device::cpu(), case.edges(), &[sum(60)], true);
    assert_eq!(sums(&gpu, case.edges(), &[sum(60)], true), twin);
    let error = Loaded::new(&gpu, case.edges()).unwrap().sums(&[sum(2000)], true).unwrap_err();
    assert!(error.to_string().contains("too long for cuda:0"), "{error}");
}
