//! The laws: pair potentials and the forces they give.

use serde::{Deserialize, Serialize};

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
    Potential(String),
}
