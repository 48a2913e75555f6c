//! Every law with both integrators against plain f64 code, one system after the other.

use super::{Batch, Frames, Integrator, TOLERANCE, integrate};
use crate::device::Device;
use crate::error::Result;
use crate::law::{Body, Law};
use crate::ops::Check;
use crate::random::Random;

/// Dimensions, bodies, runs.
const SIZES: [(usize, usize, usize); 6] =
    [(2, 2, 35), (2, 3, 7), (2, 4, 17), (3, 5, 13), (2, 33, 2), (3, 64, 2)];

/// Accuracy: states to 1e-12 with fixed steps, to 1e-7 with error control; frames to f32.
pub fn checks(device: &Device) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    for law in laws() {
        for (dim, bodies, runs) in SIZES {
            let case = Case::new(law.clone(), dim, bodies, runs, 1.5);
            let what = format!("{} of {bodies} bodies in {dim}-D, {runs} runs", law.name());
            let mut compare = |integrator, name: &str, substeps, limits: [f64; 2]| -> Result<()> {
                let out = case.integrate(device, integrator)?;
                let (states, frames) = case.errors(&out, &case.reference(substeps));
                for (part, error, limit) in
                    [("states", states, limits[0]), ("frames", frames, limits[1])]
                {
                    let case = format!("{name}, {what}: {part}");
                    checks.push(Check { operation: "rk4", case, error, limit });
                }
                Ok(())
            };
            compare(Integrator::Rk4 { substeps: 2 }, "fixed steps", 2, [1e-12, 1.2e-7])?;
            // A jump in the force costs any integrator its order.
            if law != Law::Discontinuous && bodies < 10 {
                let integrator = Integrator::Adaptive { tolerance: TOLERANCE };
                compare(integrator, "error control", 10, [1e-7, 2e-7])?;
            }
        }
    }
    Ok(checks)
}

/// A few systems, and the results for them.
#[derive(Clone)]
pub(super) struct Case {
    pub law: Law,
    pub dim: usize,
    pub bodies: usize,
    pub frames: usize,
    pub dt: f64,
    pub masses: Vec<f64>,
    pub charges: Vec<f64>,
    pub states: Vec<f64>,
}

pub(super) struct Out {
    pub positions: Vec<f32>,
    pub velocities: Vec<f32>,
    pub accelerations: Vec<f32>,
    pub states: Vec<f64>,
}

impl Case {
    /// `runs` random systems, their bodies `spread` apart so that there is no close encounter.
    pub fn new(law: Law, dim: usize, bodies: usize, runs: usize, spread: f64) -> Case {
        let mut random = Random::new(3, (dim * 100 + bodies) as u64);
        let mut states = Vec::new();
        for _ in 0..runs {
            for body in 0..bodies {
                for d in 0..dim {
                    // A perturbed grid of side 4 in two or three dimensions.
                    let place = (body / 4usize.pow(d as u32)) % if d + 1 < dim { 4 } else { 64 };
                    states.push(spread * (place as f64 + 0.3 * (random.uniform() - 0.5)));
                }
            }
            states.extend((0..bodies * dim).map(|_| 0.3 * random.normal()));
        }
        let masses = (0..runs * bodies).map(|_| (0.5 * random.normal()).exp()).collect();
        let charges = (0..runs * bodies).map(|_| [-1.0, 1.0][random.below(2)]).collect();
        let dt = law.default_dt().unwrap_or(0.01);
        Case { law, dim, bodies, frames: 6, dt, masses, charges, states }
    }

    pub fn runs(&self) -> usize {
        self.masses.len() / self.bodies
    }

    pub fn batch(&self, integrator: Integrator) -> Batch<'_> {
        let Case { ref law, dim, bodies, frames, dt, ref masses, ref charges, .. } = *self;
        Batch {
            law,
            integrator,
            dim,
            bodies,
            frames,
            dt,
            masses,
            charges,
            first_run: 0,
            observer: &(),
        }
    }

    /// Integrates on `device`, into poisoned frames.
    pub fn integrate(&self, device: &Device, integrator: Integrator) -> Result<Out> {
        let poison = vec![f32::NAN; self.runs() * self.frames * self.bodies * self.dim];
        let mut out = Out {
            positions: poison.clone(),
            velocities: poison.clone(),
            accelerations: poison,
            states: self.states.clone(),
        };
        let Out { positions, velocities, accelerations, states } = &mut out;
        let frames = Frames { positions, velocities, accelerations };
        integrate(device, &self.batch(integrator), states, frames)?;
        Ok(out)
    }

    /// Accelerations of run `run` in `state` `[2, body, dim]`, straight from the definition.
    pub fn accelerations(&self, run: usize, state: &[f64]) -> Vec<f64> {
        let Case { dim, bodies, .. } = *self;
        let part =
            |at: usize| std::array::from_fn(|d| if d < dim { state[at * dim + d] } else { 0.0 });
        let body = |b: usize| Body {
            position: part(b),
            velocity: part(bodies + b),
            charge: self.charges[run * bodies + b],
            mass: self.masses[run * bodies + b],
        };
        let mut all = vec![0.0; bodies * dim];
        for i in 0..bodies {
            for j in (0..bodies).filter(|&j| j != i) {
                let force = self.law.force(&body(i), &body(j), bodies);
                for d in 0..dim {
                    all[i * dim + d] += force[d] / body(i).mass;
                }
            }
        }
        all
    }

    /// The plain reference: classical Runge–Kutta, one system after another. Returns the states of all frames, `[run,
    /// frame, 2, body, dim]`.
    pub fn reference(&self, substeps: usize) -> Vec<f64> {
        let half = self.bodies * self.dim;
        let h = self.dt / substeps as f64;
        let mut all = Vec::new();
        for (run, state) in self.states.chunks(2 * half).enumerate() {
            let derivative = |y: &[f64]| [&y[half..], &self.accelerations(run, y)].concat();
            let shifted = |y: &[f64], k: &[f64], by: f64| -> Vec<f64> {
                y.iter().zip(k).map(|(y, k)| y + by * k).collect()
            };
            let mut y = state.to_vec();
            all.extend_from_slice(&y);
            for _ in 0..(self.frames - 1) * substeps {
                let k1 = derivative(&y);
                let k2 = derivative(&shifted(&y, &k1, h / 2.0));
                let k3 = derivative(&shifted(&y, &k2, h / 2.0));
                let k4 = derivative(&shifted(&y, &k3, h));
                for c in 0..y.len() {
                    y[c] += h / 6.0 * (k1[c] + 2.0 * k2[c] + 2.0 * k3[c] + k4[c]);
                }
                // `all` gets the frames only.
                all.extend_from_slice(&y);
            }
        }
        let size = 2 * half;
        let steps = (self.frames - 1) * substeps + 1;
        let frames = |run: usize| {
            let all = &all;
            (0..steps)
                .step_by(substeps)
                .flat_map(move |step| all[(run * steps + step) * size..][..size].iter().copied())
        };
        (0..self.runs()).flat_map(frames).collect()
    }

    /// Largest difference of `out`'s states and frames from `[run, frame, 2, body, dim]`, relative to the largest
    /// number among them; NaN if there is one. (f64 for the states, f32 for the frames.)
    pub fn errors(&self, out: &Out, expected: &[f64]) -> (f64, f64) {
        let half = self.bodies * self.dim;
        let size = expected.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
        let (mut state_error, mut frame_error) = (0.0f64, 0.0f64);
        for (at, state) in expected.chunks(2 * half).enumerate() {
            let (run, frame) = (at / self.frames, at % self.frames);
            let acceleration = self.accelerations(run, state);
            let scale = acceleration.iter().fold(size, |m: f64, v| m.max(v.abs()));
            for c in 0..half {
                let pairs = [
                    (out.positions[at * half + c], state[c]),
                    (out.velocities[at * half + c], state[half + c]),
                    (out.accelerations[at * half + c], acceleration[c]),
                ];
                for (found, expected) in pairs {
                    frame_error = larger(frame_error, (f64::from(found) - expected).abs() / scale);
                }
            }
            if frame + 1 == self.frames {
                for (last, expected) in out.states[run * 2 * half..].iter().zip(state) {
                    state_error = larger(state_error, (last - expected).abs() / size);
                }
            }
        }
        (state_error, frame_error)
    }
}

/// The larger one; NaN if either is.
fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}

/// The built-in laws, and two user-defined ones: the second is not symmetric and uses every kind of node.
pub(super) fn laws() -> Vec<Law> {
    let own = ["m1*m2*log(r)", "m1*exp(-r)*sqrt(r) + q1*q2/r^2 + IF(r - 50, r, r^1.5)"];
    let own = own.iter().filter_map(|text| Law::from_potential(text).ok());
    Law::ALL.into_iter().chain(own).collect()
}
