//! Messages against the true forces (table 1 of the paper), and whether a law was recovered (table 5).

use serde::{Deserialize, Serialize};

use super::edges::Inputs;
use crate::formula::expression::Expression;
use crate::law::{Body, Law, SOFTENING};
use crate::linear;
use crate::random::Random;

/// How well one message component is a linear combination of the true force components.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ForceFit {
    /// Coefficients of the force components, then the offset, of the trimmed fit.
    pub coefficients: Vec<f64>,
    /// R² over all edges.
    pub r2: f64,
    /// R² without the worst 10 % of the residuals.
    pub r2_trimmed: f64,
}

/// Fits one message component to the force components `[dim][edge]`.
pub fn force_fit(forces: &[Vec<f64>], message: &[f64]) -> ForceFit {
    let rows: Vec<usize> = (0..message.len()).collect();
    let trimmed = linear::fit_trimmed(forces, message);
    let mut coefficients = trimmed.coefficients;
    coefficients.push(trimmed.offset);
    ForceFit { coefficients, r2: linear::fit(forces, message, &rows).r2, r2_trimmed: trimmed.r2 }
}

/// The smallest R² at which a law counts as recovered (docs/design.md §4).
pub const RECOVERED_R2: f64 = 0.999;

/// Number of fresh inputs on which a law is judged.
const JUDGED: usize = 10_000;
const JUDGE_STREAM: u64 = 0x10D6E;

/// How close a law comes to the truth on inputs not used in training.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Verdict {
    /// The best R² of the fits below.
    pub r2: f64,
    /// The factor g of the receiver in g·F: "1", "1/m1", "1/q1" or "1/(m1 q1)".
    pub factor: String,
    /// True if the fit is to the force at r' = r instead of r' = r + 0.01.
    pub unsoftened: bool,
    /// `r2 >= RECOVERED_R2`.
    pub recovered: bool,
}

/// Judges a law: on fresh inputs (r uniform in [0.3, `r_max`], random directions, masses log-uniform in
/// [0.1, 10], charges ±1, velocities N(0, 1)) it is fitted by a linear combination of the components of g·F plus
/// an offset, for each factor g of the receiver and with and without softening.
///
/// `r_max` is twice the 99th percentile of the distances in training.
pub fn judge(
    law: &Law,
    equation: &Expression,
    inputs: &Inputs,
    bodies: usize,
    r_max: f64,
    seed: u64,
) -> Verdict {
    let mut random = Random::new(seed, JUDGE_STREAM);
    let mut values = Vec::new();
    let mut y = Vec::with_capacity(JUDGED);
    let mut pairs = Vec::with_capacity(JUDGED);
    for _ in 0..JUDGED {
        let (receiver, direction) =
            (fresh_body(&mut random, inputs.dim), direction(&mut random, inputs.dim));
        let r = 0.3 + (r_max - 0.3) * random.uniform();
        let mut sender = fresh_body(&mut random, inputs.dim);
        sender.position = std::array::from_fn(|k| receiver.position[k] + r * direction[k]);
        values.clear();
        inputs.values(&receiver, &sender, &mut values);
        y.push(equation.eval(&values));
        pairs.push((receiver, sender, direction, r));
    }
    let factors: [Factor; 4] = [
        ("1", |_| 1.0),
        ("1/m1", |b| 1.0 / b.mass),
        ("1/q1", |b| 1.0 / b.charge),
        ("1/(m1 q1)", |b| 1.0 / (b.mass * b.charge)),
    ];
    let mut best = Verdict {
        r2: f64::NEG_INFINITY,
        factor: String::new(),
        unsoftened: false,
        recovered: false,
    };
    if y.iter().any(|v| !v.is_finite()) {
        best.r2 = 0.0;
        return best;
    }
    let rows: Vec<usize> = (0..JUDGED).collect();
    for unsoftened in [false, true] {
        // The law adds the softening to the distance: to judge at r' = r, subtract it first.
        let shift = if unsoftened { SOFTENING } else { 0.0 };
        let forces: Vec<[f64; 3]> = pairs
            .iter()
            .map(|(receiver, sender, direction, r)| {
                let mut moved = *sender;
                moved.position =
                    std::array::from_fn(|k| receiver.position[k] + (r - shift) * direction[k]);
                law.force(receiver, &moved, bodies)
            })
            .collect();
        for (name, factor) in factors {
            let columns: Vec<Vec<f64>> = (0..inputs.dim)
                .map(|k| {
                    forces.iter().zip(&pairs).map(|(f, pair)| factor(&pair.0) * f[k]).collect()
                })
                .collect();
            let r2 = linear::fit(&columns, &y, &rows).r2;
            if r2 > best.r2 {
                best = Verdict {
                    r2,
                    factor: name.to_string(),
                    unsoftened,
                    recovered: r2 >= RECOVERED_R2,
                };
            }
        }
    }
    best
}

/// A factor of the receiver, with its name.
type Factor = (&'static str, fn(&Body) -> f64);

fn fresh_body(random: &mut Random, dim: usize) -> Body {
    let vector =
        |random: &mut Random| std::array::from_fn(|k| if k < dim { random.normal() } else { 0.0 });
    Body {
        position: vector(random),
        velocity: vector(random),
        charge: if random.below(2) == 0 { -1.0 } else { 1.0 },
        mass: (0.1f64.ln() + (10f64 / 0.1).ln() * random.uniform()).exp(),
    }
}

fn direction(random: &mut Random, dim: usize) -> [f64; 3] {
    loop {
        let v: [f64; 3] = std::array::from_fn(|k| if k < dim { random.normal() } else { 0.0 });
        let length = v.iter().map(|x| x * x).sum::<f64>().sqrt();
        if length > 1e-6 {
            return v.map(|x| x / length);
        }
    }
}
