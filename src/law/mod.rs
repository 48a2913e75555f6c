//! The laws: pair potentials and the forces they give (docs/design.md §2).
//!
//! [`Law::potential`] and [`Law::pull`] are the whole physics; integrators, fits of messages to true
//! forces and plots all come here.

use serde::{Deserialize, Serialize};

pub mod potential;

use potential::Potential;

use crate::error::{Error, Result};
use crate::simd::lanes::Lanes;

/// Softening of the distance: r' = |r1 - r2| + SOFTENING.
pub const SOFTENING: f64 = 0.01;

/// A pair potential U12 between receiver 1 and sender 2.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Law {
    /// −m1 m2 / r'
    InverseSquare,
    /// m1 m2 ln r'
    Inverse,
    /// (r' − 1)²
    Spring,
    /// (r' − 1)² + r1·v1 / n
    Damped,
    /// q1 q2 / r'
    Charge,
    /// 0 for r' < 2, (r' − 1)² for r' ≥ 2
    Discontinuous,
    /// A user's expression in r (meaning r'), m1, m2, q1, q2.
    Potential(Potential),
}

/// A body at one moment. In two dimensions z is 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Body {
    /// r
    pub position: [f64; 3],
    /// v
    pub velocity: [f64; 3],
    /// q
    pub charge: f64,
    /// m
    pub mass: f64,
}

/// What the force between receiver 1 and sender 2 depends on.
pub(crate) struct Pair<V> {
    /// |r1 − r2|
    pub r: V,
    /// 1 / |r1 − r2|
    pub inverse_r: V,
    pub m1: V,
    pub m2: V,
    pub q1: V,
    pub q2: V,
}

impl Law {
    /// The built-in laws, in the order of the paper's tables.
    pub const ALL: [Law; 6] = [
        Law::InverseSquare,
        Law::Inverse,
        Law::Spring,
        Law::Damped,
        Law::Charge,
        Law::Discontinuous,
    ];

    /// The built-in law that `--law` names.
    pub fn parse(name: &str) -> Result<Law> {
        let names: Vec<&str> = Law::ALL.iter().map(Law::name).collect();
        Law::ALL.iter().find(|law| law.name() == name).cloned().ok_or_else(|| {
            Error::usage(format!("'{name}' is not a law; the laws are {}", names.join(", ")))
                .field("law")
        })
    }

    /// The law of a user's potential, such as `m1*m2*log(r)`.
    pub fn from_potential(text: &str) -> Result<Law> {
        Potential::parse(text).map(Law::Potential)
    }

    /// The name on the command line and in tables.
    pub fn name(&self) -> &'static str {
        match self {
            Law::InverseSquare => "inverse-square",
            Law::Inverse => "inverse",
            Law::Spring => "spring",
            Law::Damped => "damped",
            Law::Charge => "charge",
            Law::Discontinuous => "discontinuous",
            Law::Potential(_) => "potential",
        }
    }

    /// Time between frames where the user gives none.
    pub fn default_dt(&self) -> Option<f64> {
        match self {
            Law::InverseSquare | Law::Charge => Some(0.001),
            Law::Inverse => Some(0.005),
            Law::Spring | Law::Discontinuous => Some(0.01),
            Law::Damped => Some(0.02),
            Law::Potential(_) => None,
        }
    }

    /// True where kinetic energy + Σ over pairs of U12 stays the same.
    pub fn conserves_energy(&self) -> bool {
        match self {
            Law::Damped | Law::Discontinuous => false,
            Law::Potential(potential) => potential.is_symmetric(),
            _ => true,
        }
    }

    /// U12, in a system of `bodies` bodies.
    pub fn potential(&self, receiver: &Body, sender: &Body, bodies: usize) -> f64 {
        let r = distance(receiver, sender) + SOFTENING;
        match self {
            Law::InverseSquare => -receiver.mass * sender.mass / r,
            Law::Inverse => receiver.mass * sender.mass * r.ln(),
            Law::Spring => (r - 1.0).powi(2),
            Law::Damped => {
                (r - 1.0).powi(2) + dot(&receiver.position, &receiver.velocity) / bodies as f64
            }
            Law::Charge => receiver.charge * sender.charge / r,
            Law::Discontinuous if r < 2.0 => 0.0,
            Law::Discontinuous => (r - 1.0).powi(2),
            Law::Potential(potential) => {
                let Body { mass: m2, charge: q2, .. } = *sender;
                potential.energy(r, receiver.mass, m2, receiver.charge, q2)
            }
        }
    }

    /// The force −∂U12/∂r1 on the receiver, in a system of `bodies` bodies. Where the two coincide,
    /// the part along the line between them is 0.
    pub fn force(&self, receiver: &Body, sender: &Body, bodies: usize) -> [f64; 3] {
        let r = distance(receiver, sender).max(f64::MIN_POSITIVE);
        let pull = self.pull(&Pair {
            r,
            inverse_r: 1.0 / r,
            m1: receiver.mass,
            m2: sender.mass,
            q1: receiver.charge,
            q2: sender.charge,
        });
        let drag = self.drag(bodies);
        std::array::from_fn(|d| {
            -pull * (receiver.position[d] - sender.position[d]) - drag * receiver.velocity[d]
        })
    }

    /// U12'(r') / r: the force on the receiver is −pull · (r1 − r2), drag aside.
    #[inline(always)]
    pub(crate) fn pull<V: Lanes>(&self, pair: &Pair<V>) -> V {
        let Pair { inverse_r, m1, m2, q1, q2, .. } = *pair;
        let number = V::splat;
        let softened = pair.r + number(SOFTENING);
        // 2 (r' − 1) / r
        let spring = inverse_r.mul_add(number(-2.0 * (1.0 - SOFTENING)), number(2.0));
        match self {
            Law::InverseSquare => {
                let inverse = softened.inverse();
                m1 * m2 * inverse * inverse * inverse_r
            }
            Law::Inverse => m1 * m2 * softened.inverse() * inverse_r,
            Law::Spring | Law::Damped => spring,
            Law::Charge => {
                let inverse = softened.inverse();
                number(-1.0) * q1 * q2 * inverse * inverse * inverse_r
            }
            Law::Discontinuous => softened.if_less(number(2.0), number(0.0), spring),
            Law::Potential(potential) => potential.slope(softened, pair) * inverse_r,
        }
    }

    /// True where the force on the sender is minus the force on the receiver, drag aside.
    #[inline(always)]
    pub(crate) fn is_symmetric(&self) -> bool {
        match self {
            Law::Potential(potential) => potential.is_symmetric(),
            _ => true,
        }
    }

    /// The part of the force of one pair against the receiver's velocity: −drag · v1.
    pub(crate) fn drag(&self, bodies: usize) -> f64 {
        if *self == Law::Damped { 1.0 / bodies as f64 } else { 0.0 }
    }
}

fn dot(a: &[f64; 3], b: &[f64; 3]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn distance(a: &Body, b: &Body) -> f64 {
    let d: [f64; 3] = std::array::from_fn(|k| a.position[k] - b.position[k]);
    dot(&d, &d).sqrt()
}
