//! Masses and charges that nobody gave, from the motion.
//!
//! The accelerations are fitted by a_i = t_i Σ_j s_j f(r_ij) d_ij/r_ij with a cubic spline f in ln r and a number s or t
//! for every body, by least squares for the spline and the numbers in turn. By Newton's third law the force between two
//! bodies is m_i t_i s_j = m_j t_j s_i: where only the pull s differs, it is the mass (gravity); where only t differs, it
//! is 1/m (springs); where both do, s is a charge and m = s/t. All up to a factor: the largest is 1.

mod equations;
#[cfg(test)]
mod tests;

use serde::Serialize;

use self::equations::{Equations, Fit};
use super::trajectories::{Run, Trajectories};
use crate::formula::print::short;

/// Masses for every run must lower the error of masses of the names to this fraction.
const OWN_BETTER: f64 = 0.5;
/// Most bodies whose masses a note lists.
const LISTED: usize = 12;

/// What differs from body to body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Differs {
    /// How strongly it pulls: its mass, as in gravity.
    Pull,
    /// How little it yields: its mass, as with springs.
    Inertia,
    /// Both, in different proportions: charge and mass.
    Both,
}

/// The masses of a body, and how sure they are.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OfBody {
    /// The run, if the same name means another body in each.
    pub run: Option<String>,
    /// The name of the body.
    pub body: String,
    /// The mass; the largest is 1.
    pub mass: f64,
    /// Standard deviation of the mass.
    pub error: f64,
    /// The charge, of which the largest is 1 in size, if charges differ.
    pub charge: Option<f64>,
}

/// Masses inferred from the motion.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inferred {
    /// What differs.
    pub differs: Differs,
    /// Error of the accelerations, relative to their size, with these masses, on frames that were not fitted.
    pub unexplained: f64,
    /// The same with equal masses.
    pub unexplained_if_equal: f64,
    /// Every body.
    pub bodies: Vec<OfBody>,
}

/// Infers masses, and charges if there are none either; `None` if different ones explain no more than equal ones.
/// `noise` is the error of the accelerations; at most so many `pairs` of bodies are fitted to.
pub fn infer(read: &Trajectories, noise: f64, pairs: usize) -> Option<Inferred> {
    let charges = read.runs.iter().all(|run| run.charges.is_none());
    let common = Equations::new(read, noise, pairs, false)?;
    let found = common.best(charges);
    let own = (read.runs.len() > 1).then(|| Equations::new(read, noise, pairs, true)).flatten();
    let own = own.map(|own| (own.best(charges), own));
    let enough = |found: &(Option<(Differs, Fit)>, f64)| {
        found.0.as_ref().map_or(found.1, |(_, fit)| fit.judged)
    };
    let (equations, (model, equal)) = match own {
        Some((other, own)) if enough(&other) < OWN_BETTER * enough(&found) => (own, other),
        _ => (common, found),
    };
    let (differs, fit) = model?;
    Some(equations.inferred(differs, &fit, equal))
}

impl Inferred {
    /// A sentence for the user.
    pub fn note(&self) -> String {
        let (what, how) = match self.differs {
            Differs::Pull => ("masses", "the pull of each body on the others"),
            Differs::Inertia => ("masses", "how little each body yields"),
            Differs::Both => ("masses and charges", "how each body pulls and yields"),
        };
        let one = |of: &OfBody| {
            let (mass, error) = (short(of.mass), short(of.error));
            let charge = of.charge.map(|q| format!(", charge {}", short(q))).unwrap_or_default();
            match of.mass > of.error {
                true if of.error > 0.0 => format!("{} {mass} ± {error}{charge}", of.body),
                true => format!("{} {mass}{charge}", of.body),
                false => format!("{} at most {error}{charge}", of.body),
            }
        };
        let list = match self.bodies.len() {
            ..=LISTED => self.bodies.iter().map(one).collect::<Vec<_>>().join(", "),
            many => {
                let least = self.bodies.iter().map(|of| of.mass).fold(f64::INFINITY, f64::min);
                format!("of {many} bodies from {} to 1 (all in --json)", short(least))
            }
        };
        format!(
            "{what} inferred from {how}, up to a common factor: {list}; {:.2} % of the accelerations are left \
             unexplained, with equal masses {:.2} %",
            100.0 * self.unexplained,
            100.0 * self.unexplained_if_equal
        )
    }

    /// The masses of a run.
    pub fn masses(&self, run: &Run) -> Vec<f64> {
        run.bodies.iter().map(|body| self.of(run, body).mass).collect()
    }

    /// The charges of a run, if charges differ.
    pub fn charges(&self, run: &Run) -> Option<Vec<f64>> {
        run.bodies.iter().map(|body| self.of(run, body).charge).collect()
    }

    fn of(&self, run: &Run, body: &str) -> &OfBody {
        let is = |of: &&OfBody| of.body == body && of.run.as_ref().is_none_or(|r| *r == run.name);
        self.bodies.iter().find(is).expect("every body of every run was fitted")
    }
}

impl Equations {
    /// The masses, and charges, of a fit; `equal` is the error of equal ones.
    fn inferred(&self, differs: Differs, fit: &Fit, equal: f64) -> Inferred {
        let n = self.bodies.len();
        let deviations = self.errors(differs, fit).unwrap_or_else(|| vec![f64::INFINITY; n]);
        // Values with their relative errors.
        let value = |k: usize| match differs {
            Differs::Pull => (fit.pull[k], deviations[k] / fit.pull[k].abs()),
            Differs::Inertia => (1.0 / fit.yielding[k], deviations[k] / fit.yielding[k].abs()),
            Differs::Both => (fit.pull[k] / fit.yielding[k], deviations[k] / fit.yielding[k].abs()),
        };
        let values: Vec<(f64, f64)> = (0..n).map(value).collect();
        let largest = values.iter().map(|(mass, _)| *mass).fold(0.0, f64::max);
        let of_body = |k: usize| {
            let (mass, relative) = (values[k].0 / largest, values[k].1);
            let error = (mass * relative).abs();
            let (run, body) = self.bodies[k].clone();
            // A mass that cannot be told from zero is at most its error.
            let mass = if mass > error { mass } else { error };
            let charge = (differs == Differs::Both).then(|| fit.pull[k]);
            OfBody { run, body, mass, error, charge }
        };
        Inferred {
            differs,
            unexplained: fit.judged,
            unexplained_if_equal: equal,
            bodies: (0..n).map(of_body).collect(),
        }
    }
}
