//! Every vector level against a plain reference; physics that any integrator must respect.

use super::*;
use crate::device::{Cpu, Simd};
use crate::nbody::law::Body;
use crate::random::Random;

/// A few systems, and what came out of them.
#[derive(Clone)]
struct Case {
    law: Law,
    dim: usize,
    bodies: usize,
    frames: usize,
    dt: f64,
    masses: Vec<f64>,
    charges: Vec<f64>,
    states: Vec<f64>,
}

struct Out {
    positions: Vec<f32>,
    velocities: Vec<f32>,
    accelerations: Vec<f32>,
    states: Vec<f64>,
}

impl Case {
    /// `runs` random systems, their bodies `spread` apart so that no encounter is close.
    fn new(law: Law, dim: usize, bodies: usize, runs: usize, spread: f64) -> Case {
        let mut random = Random::new(3, (dim * 100 + bodies) as u64);
        let mut states = Vec::new();
        for _ in 0..runs {
            for body in 0..bodies {
                for d in 0..dim {
                    // A grid of side 4 in two or three dimensions, shaken.
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

    fn runs(&self) -> usize {
        self.masses.len() / self.bodies
    }

    fn batch(&self, integrator: Integrator) -> Batch<'_> {
        let Case { ref law, dim, bodies, frames, dt, ref masses, ref charges, .. } = *self;
        Batch { law, integrator, dim, bodies, frames, dt, masses, charges, first_run: 0 }
    }

    fn integrate(&self, simd: Simd, integrator: Integrator) -> Result<Out> {
        let poison = vec![f32::NAN; self.runs() * self.frames * self.bodies * self.dim];
        let mut out = Out {
            positions: poison.clone(),
            velocities: poison.clone(),
            accelerations: poison,
            states: self.states.clone(),
        };
        let Out { positions, velocities, accelerations, states } = &mut out;
        let frames = Frames { positions, velocities, accelerations };
        integrate(&Device::Cpu(Cpu { simd }), &self.batch(integrator), states, frames)?;
        Ok(out)
    }

    /// Accelerations of run `run` in `state` `[2, body, dim]`, straight from the definition.
    fn accelerations(&self, run: usize, state: &[f64]) -> Vec<f64> {
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

    /// The plain reference: classical Runge–Kutta, one system after the other. States of all frames
    /// `[run, frame, 2, body, dim]`.
    fn reference(&self, substeps: usize) -> Vec<f64> {
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

    /// Largest difference of `out`'s frames and last states from `[run, frame, 2, body, dim]`,
    /// relative to the largest number among them. (f64 for the states, f32 for the frames.)
    fn errors(&self, out: &Out, expected: &[f64]) -> (f64, f64) {
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
                    let error = (f64::from(found) - expected).abs() / scale;
                    assert!(error.is_finite(), "run {run} frame {frame} component {c}: {found}");
                    frame_error = frame_error.max(error);
                }
            }
            if frame + 1 == self.frames {
                for (last, expected) in out.states[run * 2 * half..].iter().zip(state) {
                    let error = (last - expected).abs() / size;
                    assert!(error.is_finite());
                    state_error = state_error.max(error);
                }
            }
        }
        (state_error, frame_error)
    }
}

fn laws() -> Vec<Law> {
    let mut laws = Law::ALL.to_vec();
    laws.push(Law::from_potential("m1*m2*log(r)").unwrap());
    // Not symmetric, and through every kind of node.
    laws.push(
        Law::from_potential("m1*exp(-r)*sqrt(r) + q1*q2/r^2 + IF(r - 50, r, r^1.5)").unwrap(),
    );
    laws
}

const RK4: Integrator = Integrator::Rk4 { substeps: 2 };
const ADAPTIVE: Integrator = Integrator::Adaptive { tolerance: TOLERANCE };

/// Rounding of a frame to f32, with the rounding of a few hundred f64 operations.
const F32: f64 = 1.2e-7;

#[test]
fn every_level_agrees_with_the_plain_reference() {
    for law in laws() {
        for (dim, bodies, runs) in
            [(2, 2, 1), (2, 3, 7), (2, 4, 9), (3, 5, 8), (2, 8, 17), (3, 8, 3), (3, 64, 3)]
        {
            let case = Case::new(law.clone(), dim, bodies, runs, 1.5);
            let exact = case.reference(2);
            for simd in Simd::available() {
                let out = case.integrate(simd, RK4).unwrap();
                let (state, frame) = case.errors(&out, &exact);
                let what = format!("{law:?} {dim}-D, {bodies} bodies, {runs} runs, {simd:?}");
                assert!(state < 1e-12, "{what}: {state:e}");
                assert!(frame < F32, "{what}: {frame:e}");
            }
        }
    }
}

#[test]
fn adaptive_agrees_with_fine_fixed_steps_at_every_level() {
    for law in laws().into_iter().filter(|law| *law != Law::Discontinuous) {
        for (dim, bodies, runs) in [(2, 2, 1), (2, 3, 7), (2, 4, 11), (3, 5, 2), (3, 8, 9)] {
            let mut case = Case::new(law.clone(), dim, bodies, runs, 1.5);
            case.frames = 23;
            let exact = case.reference(10);
            for simd in Simd::available() {
                let out = case.integrate(simd, ADAPTIVE).unwrap();
                let (state, frame) = case.errors(&out, &exact);
                let what = format!("{law:?} {dim}-D, {bodies} bodies, {runs} runs, {simd:?}");
                assert!(state < 1e-7, "{what}: {state:e}");
                assert!(frame < 2e-7, "{what}: {frame:e}");
            }
        }
    }
}

/// The error of classical Runge–Kutta falls with the fourth power of the step.
#[test]
fn rk4_converges_at_order_four() {
    for law in [Law::Spring, Law::Inverse, Law::InverseSquare, Law::Charge] {
        let mut case = Case::new(law.clone(), 2, 4, 5, 1.5);
        // Short enough that no two bodies meet: there the force has a kink.
        case.dt = 0.04;
        case.frames = 6;
        let exact = case.integrate(Simd::detect(), Integrator::Rk4 { substeps: 400 }).unwrap();
        let error = |substeps| -> f64 {
            let out = case.integrate(Simd::detect(), Integrator::Rk4 { substeps }).unwrap();
            let square = out.states.iter().zip(&exact.states).map(|(a, b)| (a - b).powi(2));
            square.sum::<f64>().sqrt()
        };
        let order = (error(2) / error(4)).log2();
        assert!((3.7..4.3).contains(&order), "{law:?}: order {order}");
    }
}

/// The error follows the tolerance over six decades.
#[test]
fn adaptive_converges_with_the_tolerance() {
    for law in [Law::Spring, Law::Inverse, Law::Charge, Law::Damped] {
        let mut case = Case::new(law.clone(), 2, 4, 9, 1.5);
        case.dt = 0.025;
        case.frames = 21;
        let run = |tolerance| {
            case.integrate(Simd::detect(), Integrator::Adaptive { tolerance }).unwrap().states
        };
        let exact = run(1e-14);
        let error = |tolerance| {
            let states = run(tolerance);
            states.iter().zip(&exact).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
        };
        let tolerances = [1e-4, 1e-6, 1e-8, 1e-10];
        let errors = tolerances.map(error);
        for (error, tolerance) in errors.iter().zip(tolerances) {
            // A hundred times for what steps add up to and forces amplify.
            assert!(*error < 100.0 * tolerance, "{law:?}: {errors:?}");
        }
        assert!(errors[3] < 1e-2 * errors[0], "{law:?}: {errors:?}");
    }
}

fn energy(case: &Case, run: usize, state: &[f64]) -> f64 {
    let Case { dim, bodies, .. } = *case;
    let part = |at: usize| std::array::from_fn(|d| if d < dim { state[at * dim + d] } else { 0.0 });
    let body = |b: usize| Body {
        position: part(b),
        velocity: part(bodies + b),
        charge: case.charges[run * bodies + b],
        mass: case.masses[run * bodies + b],
    };
    let mut total = 0.0;
    for i in 0..bodies {
        let one = body(i);
        total += 0.5 * one.mass * one.velocity.iter().map(|v| v * v).sum::<f64>();
        for j in i + 1..bodies {
            total += case.law.potential(&one, &body(j), bodies);
        }
    }
    total
}

#[test]
fn energy_and_momentum_are_conserved() {
    for law in laws().into_iter().filter(Law::conserves_energy) {
        for integrator in [RK4, ADAPTIVE] {
            let mut case = Case::new(law.clone(), 3, 5, 9, 1.5);
            case.frames = 31;
            let out = case.integrate(Simd::detect(), integrator).unwrap();
            let size = 2 * case.bodies * case.dim;
            for run in 0..case.runs() {
                let (before, after) =
                    (&case.states[run * size..][..size], &out.states[run * size..][..size]);
                let drift = energy(&case, run, after) - energy(&case, run, before);
                let kinetic = energy(&case, run, before).abs().max(1.0);
                assert!(drift.abs() < 2e-6 * kinetic, "{law:?} {integrator:?}: {drift:e}");
                for d in 0..case.dim {
                    let momentum = |state: &[f64]| -> f64 {
                        (0..case.bodies)
                            .map(|b| {
                                case.masses[run * case.bodies + b]
                                    * state[(case.bodies + b) * case.dim + d]
                            })
                            .sum()
                    };
                    let change = momentum(after) - momentum(before);
                    assert!(change.abs() < 1e-11, "{law:?} {integrator:?}: {change:e}");
                }
            }
        }
    }
}

#[test]
fn translated_and_permuted_systems_move_alike() {
    for law in laws().into_iter().filter(|law| *law != Law::Discontinuous) {
        for integrator in [RK4, ADAPTIVE] {
            let case = Case::new(law.clone(), 2, 4, 3, 1.5);
            let plain = case.integrate(Simd::detect(), integrator).unwrap();
            let (bodies, dim) = (case.bodies, case.dim);
            let size = 2 * bodies * dim;
            let mut other = case.clone();
            // Bodies in reverse order, everything moved by (1, 1).
            for run in 0..case.runs() {
                for b in 0..bodies {
                    let from = bodies - 1 - b;
                    other.masses[run * bodies + b] = case.masses[run * bodies + from];
                    other.charges[run * bodies + b] = case.charges[run * bodies + from];
                    for d in 0..dim {
                        for (part, shift) in [(0, 1.0), (bodies, 0.0)] {
                            other.states[run * size + (part + b) * dim + d] =
                                case.states[run * size + (part + from) * dim + d] + shift;
                        }
                    }
                }
            }
            let moved = other.integrate(Simd::detect(), integrator).unwrap();
            for run in 0..case.runs() {
                for b in 0..bodies {
                    for d in 0..dim {
                        let at = |b: usize| run * size + b * dim + d;
                        let error = moved.states[at(b)] - plain.states[at(bodies - 1 - b)] - 1.0;
                        assert!(error.abs() < 1e-7, "{law:?} {integrator:?}: {error:e}");
                    }
                }
            }
        }
    }
}

/// A trajectory depends neither on its neighbours in the vector, nor on the number of threads.
#[test]
fn neighbours_and_threads_change_no_bit() {
    for integrator in [RK4, ADAPTIVE] {
        for simd in Simd::available() {
            // More runs than one task holds.
            let mut case = Case::new(Law::Charge, 2, 3, 131, 1.0);
            case.frames = 40;
            let all = case.integrate(simd, integrator).unwrap();
            let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
            let single = pool.install(|| case.integrate(simd, integrator).unwrap());
            assert!(all.states == single.states && all.positions == single.positions);
            assert!(all.accelerations == single.accelerations);
            for run in [0, 5, 130] {
                let mut alone = case.clone();
                let (bodies, size) = (3, 12);
                alone.masses = case.masses[run * bodies..][..bodies].to_vec();
                alone.charges = case.charges[run * bodies..][..bodies].to_vec();
                alone.states = case.states[run * size..][..size].to_vec();
                let alone = alone.integrate(simd, integrator).unwrap();
                assert_eq!(alone.states[..], all.states[run * size..][..size], "{simd:?} {run}");
                let frames = 40 * 6;
                assert_eq!(alone.velocities[..], all.velocities[run * frames..][..frames]);
            }
        }
    }
}

#[test]
fn what_cannot_be_followed_is_an_error_that_names_the_run() {
    for simd in Simd::available() {
        for integrator in [RK4, ADAPTIVE] {
            let mut case = Case::new(Law::from_potential("(r - 1)^1.5").unwrap(), 2, 2, 9, 3.0);
            // The seventh run begins where the potential is not defined.
            case.states[6 * 8 + 2] = case.states[6 * 8] + 0.1;
            case.states[6 * 8 + 3] = case.states[6 * 8 + 1];
            let error = case.integrate(simd, integrator).err().expect("no error").to_string();
            assert!(error.contains("run 6"), "{simd:?} {integrator:?}: {error}");
        }
    }
}

/// Where two bodies coincide the laws that are finite there go on.
#[test]
fn coinciding_bodies_are_no_nan() {
    let mut case = Case::new(Law::Spring, 2, 3, 1, 1.5);
    case.states[2] = case.states[0];
    case.states[3] = case.states[1];
    case.integrate(Simd::detect(), RK4).unwrap();
}

#[test]
fn a_potential_that_says_spring_is_spring() {
    let spring = Case::new(Law::Spring, 2, 4, 5, 1.0);
    let mut own = spring.clone();
    own.law = Law::from_potential("(r-1)^2").unwrap();
    let expected = spring.reference(2);
    for integrator in [RK4, ADAPTIVE] {
        let (state, frame) =
            spring.errors(&own.integrate(Simd::detect(), integrator).unwrap(), &expected);
        assert!(state < 1e-8 && frame < F32, "{integrator:?}: {state:e} {frame:e}");
    }
}

#[derive(serde::Deserialize)]
struct Witness {
    law: String,
    dim: usize,
    bodies: usize,
    dt: f64,
    frames: usize,
    masses: Vec<f64>,
    charges: Vec<f64>,
    at: Vec<usize>,
    states: Vec<[Vec<Vec<f64>>; 2]>,
}

/// All six laws against SciPy's DOP853 (scripts/scipy_witness.py).
#[test]
fn agrees_with_scipy() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/dop853.json");
    let text = std::fs::read_to_string(path).unwrap();
    let witnesses: Vec<Witness> = serde_json::from_str(&text).unwrap();
    assert_eq!(witnesses.len(), 12);
    for witness in witnesses {
        let Witness { dim, bodies, dt, frames, masses, charges, .. } = witness;
        let flat = |state: &[Vec<Vec<f64>>; 2]| state.concat().concat();
        let law = Law::parse(&witness.law).unwrap();
        let states = flat(&witness.states[0]);
        let case = Case { law, dim, bodies, frames, dt, masses, charges, states };
        let tight = Integrator::Adaptive { tolerance: 1e-13 };
        for (integrator, tolerance) in
            [(ADAPTIVE, 1e-6), (tight, 1e-10), (Integrator::Rk4 { substeps: 200 }, 1e-9)]
        {
            // A jump of the force costs any integrator its order.
            let jump = case.law == Law::Discontinuous;
            let tolerance = if jump { 1e-4 } else { tolerance };
            let out = case.integrate(Simd::detect(), integrator).unwrap();
            for (&frame, state) in witness.at.iter().zip(&witness.states) {
                let half = bodies * dim;
                for (c, expected) in flat(state).iter().enumerate() {
                    let stored = if c < half { &out.positions } else { &out.velocities };
                    let found = f64::from(stored[frame * half + c % half]);
                    let error = (found - expected).abs() / (1.0 + expected.abs());
                    assert!(
                        error < tolerance + F32,
                        "{} {integrator:?} frame {frame}: {found} {expected}",
                        witness.law
                    );
                    if frame + 1 == frames {
                        let error = (out.states[c] - expected).abs() / (1.0 + expected.abs());
                        assert!(error < tolerance, "{} {integrator:?}: {error:e}", witness.law);
                    }
                }
            }
        }
    }
}
