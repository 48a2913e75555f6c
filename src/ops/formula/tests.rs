//! Sums against f64, one edge at a time, and derivatives against finite differences.

use super::*;
use crate::device::Simd;
use crate::ops::relative_error;
use crate::random::Random;
use crate::symbolic::expression::Expression;

/// A random graph: node 3 has no edges, node 5 more than a block.
struct Case {
    row_start: Vec<u64>,
    sender: Vec<u32>,
    receivers: Vec<u32>,
    features: Vec<f32>,
}

impl Case {
    fn new() -> Self {
        let mut random = Random::new(11, 0);
        let nodes = 150;
        let (mut row_start, mut sender) = (vec![0], vec![]);
        for node in 0..nodes {
            let degree = match node {
                3 => 0,
                5 => 700,
                _ => random.below(40),
            };
            sender.extend((0..degree).map(|_| random.below(nodes) as u32));
            row_start.push(sender.len() as u64);
        }
        let features = (0..nodes * N_FEATURES).map(|k| match k % N_FEATURES {
            0..3 => 2.0 * random.uniform() as f32,
            3..6 => random.normal() as f32,
            _ => random.normal().exp() as f32,
        });
        let features = features.collect();
        // Some nodes, not in order.
        let receivers = (0..nodes as u32).rev().filter(|r| r % 7 != 0).collect();
        Case { row_start, sender, receivers, features }
    }

    fn edges(&self) -> Edges<'_> {
        let Case { row_start, sender, receivers, features } = self;
        Edges { row_start, sender, receivers, features, period: 2.0 }
    }

    /// Each sum in f64.
    fn reference(&self, expression: &Expression) -> Vec<f64> {
        let row = |node: u32| -> Vec<f64> {
            self.features[node as usize * 7..][..7].iter().map(|&v| f64::from(v)).collect()
        };
        let sum = |&receiver: &u32| {
            let span = self.row_start[receiver as usize]..self.row_start[receiver as usize + 1];
            let value = |&sender: &u32| {
                let (a, b) = (row(receiver), row(sender));
                let d: Vec<f64> = (0..3)
                    .map(|k| {
                        let plain = b[k] - a[k];
                        plain - 2.0 * (plain / 2.0).round()
                    })
                    .collect();
                let norm = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
                let dv: Vec<f64> = (3..6).map(|k| a[k] - b[k]).collect();
                let (dr, dv) = (norm(&d), norm(&dv));
                let (v1, v2) = (norm(&a[3..6]), norm(&b[3..6]));
                expression.eval(&[a[6], b[6], d[0], d[1], d[2], dr, dv, v1, v2])
            };
            let senders = &self.sender[span.start as usize..span.end as usize];
            senders.iter().map(value).sum::<f64>()
        };
        self.receivers.iter().map(sum).collect()
    }
}

const TEXTS: [&str; 5] = [
    "(0.44 + m2) / (7.0 + (1.5 * r) ^ 3.3)",
    "IF(r < 0.6, m2 * dx, 0.25)",
    "exp(0 - dv) * (dy - 0.3 * dz) + v1 / (1.5 + v2)",
    "m1",
    "2.5",
];

#[test]
fn sums_and_derivatives_are_those_of_f64() {
    let case = Case::new();
    let expressions = TEXTS.map(|text| Expression::parse(text, &VARIABLES).unwrap());
    let programs: Vec<Program> = expressions.iter().map(Program::new).collect();
    for simd in Simd::available() {
        let cpu = Cpu { simd };
        let plain = sums(cpu, &case.edges(), &programs, false).unwrap().unwrap();
        let found = sums(cpu, &case.edges(), &programs, true).unwrap().unwrap();
        let column = |sums: &Sums, k: usize| -> Vec<f64> {
            sums.values.iter().skip(k).step_by(sums.width).copied().collect()
        };
        let mut at = 0;
        for (index, expression) in expressions.iter().enumerate() {
            let expected = case.reference(expression);
            assert!(relative_error(&column(&found, at), &expected) < 1e-6, "{simd:?} {index}");
            assert_eq!(column(&plain, index), column(&found, at), "with or without gradients");
            let constants = expression.constants();
            for k in 0..constants.len() {
                let moved = |h: f64| {
                    let mut values = constants.clone();
                    values[k] += h;
                    let mut moved = expression.clone();
                    moved.set_constants(&values);
                    case.reference(&moved)
                };
                let (up, down) = (moved(1e-5), moved(-1e-5));
                let slope: Vec<f64> = up.iter().zip(&down).map(|(a, b)| (a - b) / 2e-5).collect();
                let error = relative_error(&column(&found, at + 1 + k), &slope);
                assert!(error < 1e-5, "{simd:?} {index}, constant {k}: {error}");
            }
            at += 1 + constants.len();
        }
        assert_eq!(found.width, at);
    }
}

#[test]
fn an_edge_that_is_not_finite_makes_everything_invalid() {
    let case = Case::new();
    let program = |text: &str| Program::new(&Expression::parse(text, &VARIABLES).unwrap());
    let cpu = Cpu { simd: Simd::detect() };
    let run = |text: &str| sums(cpu, &case.edges(), &[program(text)], true).unwrap();
    assert!(run("log(r - 100)").is_none());
    assert!(run("1 / (m1 - m1)").is_none());
    assert!(run("1 / (1 + r)").is_some());
    let mut wrong = case.edges();
    wrong.receivers = &[1000];
    assert!(sums(cpu, &wrong, &[program("r")], true).is_err());
}
