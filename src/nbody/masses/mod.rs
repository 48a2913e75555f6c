//! Masses and charges that nobody gave, from the motion.
//!
//! The accelerations are fitted by a_i = t_i Σ_j s_j f(r_ij) d_ij/r_ij with a cubic spline f in ln r and a number s or t
//! for every body, by least squares for the spline and the numbers in turn. By Newton's third law the force between two
//! bodies is m_i t_i s_j = m_j t_j s_i: where only the pull s differs, it is the mass (gravity); where only t differs, it
//! is 1/m (springs); where both do, s is a charge and m = s/t. All up to a factor: the largest is 1.

mod equations;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use serde::Serialize;

use self::equations::{Equations, Fit};
use super::trajectories::{Run, Trajectories};
use crate::formula::print::short;

/// Masses for every run must lower the error of masses of the names to this fraction.
const OWN_BETTER: f64 = 0.5;
/// Pairs of bodies to which masses are fitted, and fewer if nobody asked for them; more of large systems.
const PAIRS: usize = 40_000;
/// See [`PAIRS`].
const FEW_PAIRS: usize = 6_000;
/// Masses are rough if a larger share of the accelerations remains unexplained.
const ROUGH: f64 = 0.1;
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
    /// Standard deviation of the mass, in units of the heaviest, which has none.
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

/// How much of the accelerations a pair force leaves unexplained with equal masses, and with different ones; `None` if
/// these explain no more. `noise` is the error of the accelerations.
pub fn differ(read: &Trajectories, noise: f64) -> Option<[f64; 2]> {
    let Choice { equal, fit, .. } = choose(read, noise, FEW_PAIRS).ok()?;
    Some([equal, fit.judged])
}

/// Infers masses, and charges if there are none either. `noise` is the error of the accelerations.
///
/// # Errors
/// A clause that says why they cannot be inferred.
pub fn infer(read: &Trajectories, noise: f64) -> Result<Inferred, &'static str> {
    choose(read, noise, PAIRS)?.inferred()
}

/// What explains the motion best.
struct Choice {
    equations: Equations,
    differs: Differs,
    fit: Fit,
    /// The error with equal masses.
    equal: f64,
}

fn choose(read: &Trajectories, noise: f64, pairs: usize) -> Result<Choice, &'static str> {
    let charges = read.runs.iter().all(|run| run.charges.is_none());
    let common = Equations::new(read, noise, pairs, false)?;
    let found = common.best(charges);
    let own = (read.runs.len() > 1).then(|| Equations::new(read, noise, pairs, true));
    let own = own.and_then(Result::ok).map(|own| (own.best(charges), own));
    let (equations, best) = match own {
        Some((other, own)) if other.error < OWN_BETTER * found.error => (own, other),
        _ => (common, found),
    };
    let (differs, fit) = best.model?;
    Ok(Choice { equations, differs, fit, equal: best.equal })
}

impl Choice {
    fn inferred(self) -> Result<Inferred, &'static str> {
        let Choice { equations, differs, fit, equal } = self;
        let masses = fit.masses(differs);
        let heaviest = (0..masses.len()).max_by(|&a, &b| masses[a].total_cmp(&masses[b]));
        let heaviest = heaviest.ok_or(equations::NO_BETTER)?;
        let errors = equations.errors(differs, &fit, heaviest);
        let errors = errors.ok_or("the accelerations do not determine them")?;
        let of_body = |k: usize| {
            let (mass, error) = (masses[k] / masses[heaviest], errors[k]);
            let (run, body) = equations.bodies[k].clone();
            // A mass that cannot be told from zero is at most its error.
            let mass = if mass > error { mass } else { error };
            let charge = (differs == Differs::Both).then(|| fit.pull[k]);
            OfBody { run, body, mass, error, charge }
        };
        let bodies: Vec<OfBody> = (0..masses.len()).map(of_body).collect();
        if !bodies.iter().all(|of| of.mass > 0.0 && of.mass.is_finite() && of.error.is_finite()) {
            return Err("the motion says nothing about some of the bodies");
        }
        let (unexplained, unexplained_if_equal) = (fit.judged, equal);
        Ok(Inferred { differs, unexplained, unexplained_if_equal, bodies })
    }
}

/// A share as text; a fit can be worse than none.
pub(super) fn percent(share: f64) -> String {
    if share > 1.0 { "over 100 %".to_string() } else { format!("{:.2} %", 100.0 * share) }
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
            let name = match &of.run {
                Some(run) => format!("{} of run {run}", of.body),
                None => of.body.clone(),
            };
            let (mass, error) = (short(of.mass), short(of.error));
            let charge = of.charge.map(|q| format!(", charge {}", short(q))).unwrap_or_default();
            match of.mass > of.error {
                true if of.error > 0.0 => format!("{name} {mass} ± {error}{charge}"),
                true => format!("{name} {mass}{charge}"),
                false => format!("{name} at most {error}{charge}"),
            }
        };
        let list = match self.bodies.len() {
            ..=LISTED => self.bodies.iter().map(one).collect::<Vec<_>>().join(", "),
            many => {
                let least = self.bodies.iter().map(|of| of.mass).fold(f64::INFINITY, f64::min);
                format!("of {many} bodies from {} to 1 (all in --json)", short(least))
            }
        };
        let begin = if self.unexplained > ROUGH { "warning: rough " } else { "" };
        format!(
            "{begin}{what} inferred from {how}, up to a common factor: {list}; {} of the accelerations remain \
             unexplained ({} with equal masses)",
            percent(self.unexplained),
            percent(self.unexplained_if_equal)
        )
    }

    /// Gives every body its mass, and its charge if charges differ.
    pub fn give(&self, runs: &mut [Run]) {
        let key = |of: &OfBody| (of.run.clone(), of.body.clone());
        let known: HashMap<_, _> = self.bodies.iter().map(|of| (key(of), of)).collect();
        let own = self.bodies.iter().any(|of| of.run.is_some());
        for run in runs {
            let of = |body: &String| known[&(own.then(|| run.name.clone()), body.clone())];
            let bodies: Vec<&OfBody> = run.bodies.iter().map(of).collect();
            run.masses = Some(bodies.iter().map(|of| of.mass).collect());
            if self.differs == Differs::Both {
                run.charges = bodies.iter().map(|of| of.charge).collect();
            }
        }
    }
}
