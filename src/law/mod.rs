//! The laws: pair potentials and the forces they give (docs/design.md §2), one row each.
//!
//! `laws!` below is all of the physics, except for its counterpart in the kernels (`kernels/common/laws.cuh`);
//! integrators, fits of messages to true forces and plots all use it. How to add a law: docs/adding.md.

use serde::{Deserialize, Serialize};

pub mod potential;

use potential::Potential;

use crate::error::{Error, Result};
use crate::simd::f64s::Lanes;

/// Softening of the distance: r' = |r1 - r2| + SOFTENING.
pub const SOFTENING: f64 = 0.01;

/// Passes the rows to the named macro, in the order of the paper's tables. `potential`: U12 at the softened
/// distance r between receiver 1 and sender 2, given the number of bodies. `pull`: U12'(r) / |r1 − r2| for the pair
/// p, in SIMD vectors `V` over systems; the force on the receiver is −pull · (r1 − r2), without drag.
macro_rules! laws {
    ($take:ident) => {
        $take! {
            /// −m1 m2 / r'
            InverseSquare "inverse-square" { dt: 0.001, conserves_energy: true, damped: false }
                potential(r, one, two, _) { -one.mass * two.mass / r }
                pull(r, p) {
                    let inverse = r.inverse();
                    p.m1 * p.m2 * inverse * inverse * p.inverse_r
                }
            /// m1 m2 ln r'
            Inverse "inverse" { dt: 0.005, conserves_energy: true, damped: false }
                potential(r, one, two, _) { one.mass * two.mass * r.ln() }
                pull(r, p) { p.m1 * p.m2 * r.inverse() * p.inverse_r }
            /// (r' − 1)²
            Spring "spring" { dt: 0.01, conserves_energy: true, damped: false }
                potential(r, _, _, _) { (r - 1.0).powi(2) }
                pull(_, p) { spring(p) }
            /// (r' − 1)² + r1·v1 / n
            Damped "damped" { dt: 0.02, conserves_energy: false, damped: true }
                potential(r, one, _, n) { (r - 1.0).powi(2) + dot(&one.position, &one.velocity) / n }
                pull(_, p) { spring(p) }
            /// q1 q2 / r'
            Charge "charge" { dt: 0.001, conserves_energy: true, damped: false }
                potential(r, one, two, _) { one.charge * two.charge / r }
                pull(r, p) {
                    let inverse = r.inverse();
                    V::splat(-1.0) * p.q1 * p.q2 * inverse * inverse * p.inverse_r
                }
            /// 0 for r' < 2, (r' − 1)² for r' ≥ 2
            Discontinuous "discontinuous" { dt: 0.01, conserves_energy: false, damped: false }
                potential(r, _, _, _) { if r < 2.0 { 0.0 } else { (r - 1.0).powi(2) } }
                pull(r, p) { r.if_less(V::splat(2.0), V::splat(0.0), spring(p)) }
        }
    };
}
pub(crate) use laws;

/// Properties of a built-in law besides its forces.
struct Row {
    /// Default time between frames.
    dt: f64,
    /// Kinetic energy + Σ over pairs of U12 is conserved.
    conserves_energy: bool,
    /// Each pair also adds a force −v1 / n.
    damped: bool,
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

/// 2 (r' − 1) / r
#[inline(always)]
fn spring<V: Lanes>(pair: &Pair<V>) -> V {
    pair.inverse_r.mul_add(V::splat(-2.0 * (1.0 - SOFTENING)), V::splat(2.0))
}

macro_rules! define {
    ($(
        $(#[$doc:meta])* $law:ident $name:literal { $($row:tt)* }
        potential($r:tt, $one:tt, $two:tt, $n:tt) $potential:block
        pull($softened:tt, $pair:ident) $pull:block
    )*) => {
        /// A pair potential U12 between receiver 1 and sender 2.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        pub enum Law {
            $($(#[$doc])* #[serde(rename = $name)] $law,)*
            /// A user's expression in r (meaning r'), m1, m2, q1, q2.
            #[serde(rename = "potential")]
            Potential(Potential),
        }

        impl Law {
            /// The built-in laws, in the order of the paper's tables.
            pub const ALL: [Law; [$($name),*].len()] = [$(Law::$law),*];

            /// The name on the command line and in tables.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Law::$law => $name,)*
                    Law::Potential(_) => "potential",
                }
            }

            #[inline(always)]
            fn row(&self) -> Option<Row> {
                match self {
                    $(Law::$law => Some(Row { $($row)* }),)*
                    Law::Potential(_) => None,
                }
            }

            /// U12, in a system of `bodies` bodies.
            pub fn potential(&self, receiver: &Body, sender: &Body, bodies: usize) -> f64 {
                let r = distance(receiver, sender) + SOFTENING;
                match self {
                    $(Law::$law => {
                        let ($r, $one, $two, $n) = (r, receiver, sender, bodies as f64);
                        $potential
                    })*
                    Law::Potential(potential) => {
                        let Body { mass: m2, charge: q2, .. } = *sender;
                        potential.energy(r, receiver.mass, m2, receiver.charge, q2)
                    }
                }
            }

            /// U12'(r') / r: the force on the receiver is −pull · (r1 − r2), without drag.
            #[inline(always)]
            pub(crate) fn pull<V: Lanes>(&self, pair: &Pair<V>) -> V {
                let r = pair.r + V::splat(SOFTENING);
                match self {
                    $(Law::$law => {
                        let ($softened, $pair) = (r, pair);
                        $pull
                    })*
                    Law::Potential(potential) => potential.slope(r, pair) * pair.inverse_r,
                }
            }
        }
    };
}
laws!(define);

impl Law {
    /// The built-in law that `--law` names.
    pub fn parse(name: &str) -> Result<Law> {
        Law::ALL.iter().find(|law| law.name() == name).cloned().ok_or_else(|| {
            let names = Law::names().join(", ");
            Error::usage(format!("'{name}' is not a law; the laws are {names}")).field("law")
        })
    }

    /// The names of the built-in laws.
    pub fn names() -> [&'static str; Law::ALL.len()] {
        Law::ALL.each_ref().map(Law::name)
    }

    /// The law of a user's potential, such as `m1*m2*log(r)`.
    pub fn from_potential(text: &str) -> Result<Law> {
        Potential::parse(text).map(Law::Potential)
    }

    /// Default time between frames; `None` for a user's potential.
    pub fn default_dt(&self) -> Option<f64> {
        self.row().map(|row| row.dt)
    }

    /// True if kinetic energy + Σ over pairs of U12 is conserved.
    pub fn conserves_energy(&self) -> bool {
        match self {
            Law::Potential(potential) => potential.is_symmetric(),
            law => law.row().is_some_and(|row| row.conserves_energy),
        }
    }

    /// The force −∂U12/∂r1 on the receiver, in a system of `bodies` bodies. If the two coincide, the
    /// part along the line between them is 0.
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

    /// True if the force on the sender is minus the force on the receiver, without drag.
    #[inline(always)]
    pub(crate) fn is_symmetric(&self) -> bool {
        match self {
            Law::Potential(potential) => potential.is_symmetric(),
            _ => true,
        }
    }

    /// True if there is drag.
    #[inline(always)]
    pub(crate) fn is_damped(&self) -> bool {
        self.row().is_some_and(|row| row.damped)
    }

    /// The coefficient of drag of one pair: the force is −drag · v1.
    pub(crate) fn drag(&self, bodies: usize) -> f64 {
        if self.is_damped() { 1.0 / bodies as f64 } else { 0.0 }
    }
}

fn dot(a: &[f64; 3], b: &[f64; 3]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn distance(a: &Body, b: &Body) -> f64 {
    let d: [f64; 3] = std::array::from_fn(|k| a.position[k] - b.position[k]);
    dot(&d, &d).sqrt()
}
