//! Sums and derivatives on a random graph against f64, one edge at a time.

use super::{Edges, Loaded, N_FEATURES, Program, Sums, VARIABLES};
use crate::device::Device;
use crate::error::Result;
use crate::formula::expression::Expression;
use crate::ops::{Check, relative_error};
use crate::random::Random;

/// Every variable, operators of each kind, constants in every place, and expressions without operators.
pub(super) const TEXTS: [&str; 7] = [
    "(0.44 + m2) / (7.0 + (1.5 * r) ^ 3.3)",
    "IF(r < 0.6, m2 * dx, 0.25)",
    "exp(0 - dv) * (dy - 0.3 * dz) + v1 / (1.5 + v2)",
    "m1",
    "2.5",
    "min(r, 0.7) * cos(2.0 * dx) + sqrt(0.5 + m1) - tanh(0.4 * dz)",
    "square(dx - 0.2) + log(1.5 + r) * abs(dy + 0.1)",
];

/// Allowed distance of a derivative from the difference quotient in f64.
const SLOPE: f64 = 1e-5;

/// Each expression, and all together.
pub fn checks(device: &Device) -> Result<Vec<Check>> {
    let case = Case::new(150, 40);
    let loaded = Loaded::new(device, case.edges())?;
    let mut checks = Vec::new();
    for text in TEXTS {
        let expression = Expression::parse(text, &VARIABLES)?;
        let found = loaded.sums(&[Program::new(&expression)], true)?.unwrap_or_default();
        let column = |k: usize| column(&found, k);
        let check = |case, error, limit| Check { operation: "formula", case, error, limit };
        let error = relative_error(&column(0), &case.reference(&expression));
        checks.push(check(format!("sums of {text}"), error, 1e-6));
        let slopes = case.slopes(&expression);
        let errors =
            slopes.iter().enumerate().map(|(k, slope)| relative_error(&column(1 + k), slope));
        let worst = errors.fold(0.0, |a: f64, b| if b > a || b.is_nan() { b } else { a });
        if !slopes.is_empty() {
            checks.push(check(format!("derivatives of {text}"), worst, SLOPE));
        }
    }
    Ok(checks)
}

/// A column of the sums.
pub(super) fn column(sums: &Sums, k: usize) -> Vec<f64> {
    sums.values.iter().skip(k).step_by(sums.width.max(1)).copied().collect()
}

/// A random graph: node 3 has no edges, node 5 more than a block.
pub(super) struct Case {
    row_start: Vec<u64>,
    sender: Vec<u32>,
    receivers: Vec<u32>,
    features: Vec<f32>,
}

impl Case {
    /// At most `most` edges for each node.
    pub(super) fn new(nodes: usize, most: usize) -> Self {
        let mut random = Random::new(11, 0);
        let (mut row_start, mut sender) = (vec![0], vec![]);
        for node in 0..nodes {
            let degree = match node {
                3 => 0,
                5 => 700,
                _ => random.below(most),
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

    pub(super) fn edges(&self) -> Edges<'_> {
        let Case { row_start, sender, receivers, features } = self;
        Edges { row_start, sender, receivers, features, period: 2.0 }
    }

    /// Each sum in f64.
    pub(super) fn reference(&self, expression: &Expression) -> Vec<f64> {
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

    /// The derivative of each sum with respect to each constant, as a difference quotient in f64.
    pub(super) fn slopes(&self, expression: &Expression) -> Vec<Vec<f64>> {
        let constants = expression.constants();
        let slope = |k: usize| {
            let moved = |h: f64| {
                let mut values = constants.clone();
                values[k] += h;
                let mut moved = expression.clone();
                moved.set_constants(&values);
                self.reference(&moved)
            };
            let (up, down) = (moved(1e-5), moved(-1e-5));
            up.iter().zip(&down).map(|(a, b)| (a - b) / 2e-5).collect()
        };
        (0..constants.len()).map(slope).collect()
    }
}
