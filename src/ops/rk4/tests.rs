//! Every vector level against a plain reference; physics that any integrator must respect.

use super::selftest::{Case, laws};
use super::*;
use crate::device::{Cpu, Simd};
use crate::law::Body;

fn cpu(simd: Simd) -> Device {
    Device::Cpu(Cpu::with(simd).unwrap())
}

const RK4: Integrator = Integrator::Rk4 { substeps: 2 };
const ADAPTIVE: Integrator = Integrator::Adaptive { tolerance: TOLERANCE };

/// Rounding of a frame to f32, plus that of a few hundred f64 operations.
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
                let out = case.integrate(&cpu(simd), RK4).unwrap();
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
                let out = case.integrate(&cpu(simd), ADAPTIVE).unwrap();
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
        // Short enough that no two bodies meet: the force has a kink there.
        case.dt = 0.04;
        case.frames = 6;
        let exact = case.integrate(&Device::cpu(), Integrator::Rk4 { substeps: 400 }).unwrap();
        let error = |substeps| -> f64 {
            let out = case.integrate(&Device::cpu(), Integrator::Rk4 { substeps }).unwrap();
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
            case.integrate(&Device::cpu(), Integrator::Adaptive { tolerance }).unwrap().states
        };
        let exact = run(1e-14);
        let error = |tolerance| {
            let states = run(tolerance);
            states.iter().zip(&exact).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
        };
        let tolerances = [1e-4, 1e-6, 1e-8, 1e-10];
        let errors = tolerances.map(error);
        for (error, tolerance) in errors.iter().zip(tolerances) {
            // A factor of a hundred for accumulated steps and amplification by forces.
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

fn check_conservation(device: &Device) {
    for law in laws().into_iter().filter(Law::conserves_energy) {
        for integrator in [RK4, ADAPTIVE] {
            let mut case = Case::new(law.clone(), 3, 5, 9, 1.5);
            case.frames = 31;
            let out = case.integrate(device, integrator).unwrap();
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
fn energy_and_momentum_are_conserved() {
    check_conservation(&Device::cpu());
}

#[test]
fn translated_and_permuted_systems_move_alike() {
    for law in laws().into_iter().filter(|law| *law != Law::Discontinuous) {
        for integrator in [RK4, ADAPTIVE] {
            let case = Case::new(law.clone(), 2, 4, 3, 1.5);
            let plain = case.integrate(&Device::cpu(), integrator).unwrap();
            let (bodies, dim) = (case.bodies, case.dim);
            let size = 2 * bodies * dim;
            let mut other = case.clone();
            // Bodies in reverse order, everything shifted by (1, 1).
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
            let moved = other.integrate(&Device::cpu(), integrator).unwrap();
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
            let all = case.integrate(&cpu(simd), integrator).unwrap();
            let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
            let single = pool.install(|| case.integrate(&cpu(simd), integrator).unwrap());
            assert!(all.states == single.states && all.positions == single.positions);
            assert!(all.accelerations == single.accelerations);
            for run in [0, 5, 130] {
                let mut alone = case.clone();
                let (bodies, size) = (3, 12);
                alone.masses = case.masses[run * bodies..][..bodies].to_vec();
                alone.charges = case.charges[run * bodies..][..bodies].to_vec();
                alone.states = case.states[run * size..][..size].to_vec();
                let alone = alone.integrate(&cpu(simd), integrator).unwrap();
                assert_eq!(alone.states[..], all.states[run * size..][..size], "{simd:?} {run}");
                let frames = 40 * 6;
                assert_eq!(alone.velocities[..], all.velocities[run * frames..][..frames]);
            }
        }
    }
}

/// Nine runs, of which the seventh starts where the potential is not defined.
fn broken() -> Case {
    let mut case = Case::new(Law::from_potential("(r - 1)^1.5").unwrap(), 2, 2, 9, 3.0);
    case.states[6 * 8 + 2] = case.states[6 * 8] + 0.1;
    case.states[6 * 8 + 3] = case.states[6 * 8 + 1];
    case
}

#[test]
fn what_cannot_be_followed_is_an_error_that_names_the_run() {
    for simd in Simd::available() {
        for integrator in [RK4, ADAPTIVE] {
            let out = broken().integrate(&cpu(simd), integrator);
            let error = out.err().expect("no error").to_string();
            assert!(error.contains("run 6"), "{simd:?} {integrator:?}: {error}");
        }
    }
}

/// If two bodies coincide, the laws that are finite there continue.
#[test]
fn coinciding_bodies_are_no_nan() {
    let mut case = Case::new(Law::Spring, 2, 3, 1, 1.5);
    case.states[2] = case.states[0];
    case.states[3] = case.states[1];
    case.integrate(&Device::cpu(), RK4).unwrap();
}

#[test]
fn a_potential_that_says_spring_is_spring() {
    let spring = Case::new(Law::Spring, 2, 4, 5, 1.0);
    let mut own = spring.clone();
    own.law = Law::from_potential("(r-1)^2").unwrap();
    let expected = spring.reference(2);
    for integrator in [RK4, ADAPTIVE] {
        let (state, frame) =
            spring.errors(&own.integrate(&Device::cpu(), integrator).unwrap(), &expected);
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

/// Each row of kernels/common/laws.cuh has the law's place and name.
#[test]
fn kernels_have_a_row_for_every_law() {
    let text = include_str!("../../../kernels/common/laws.cuh");
    let (_, list) = text.split_once("#define LAWS").unwrap();
    let row =
        |line: &str| line.trim_start().strip_prefix("LAW(")?.split(',').next().map(String::from);
    let found: Vec<String> = list.lines().skip(1).map_while(row).collect();
    assert_eq!(found, Law::names().map(|name| name.to_uppercase().replace('-', "_")));
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
            // A jump in the force costs any integrator its order.
            let jump = case.law == Law::Discontinuous;
            let tolerance = if jump { 1e-4 } else { tolerance };
            let out = case.integrate(&Device::cpu(), integrator).unwrap();
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

#[test]
fn gpu_agrees_with_plain_code() {
    crate::ops::assert_gpu_passes(selftest::checks);
}

#[test]
fn gpu_conserves_energy_and_momentum() {
    let Some(gpu) = crate::device::test_gpu() else { return };
    check_conservation(&gpu);
}

/// The built-in laws use nothing but arithmetic and square roots, in the same order as on the CPU.
#[test]
fn gpu_is_the_avx2_level_bit_for_bit() {
    let Some(gpu) = crate::device::test_gpu() else { return };
    if Simd::detect() < Simd::Avx2 {
        eprintln!("skipped: this processor has no AVX2");
        return;
    }
    for law in Law::ALL {
        for (dim, bodies, runs) in [(2, 2, 40), (3, 3, 5), (2, 5, 14), (3, 21, 4), (2, 63, 2)] {
            for integrator in [RK4, ADAPTIVE] {
                let mut case = Case::new(law.clone(), dim, bodies, runs, 1.2);
                case.frames = if bodies > 10 { 3 } else { 15 };
                let found = case.integrate(&gpu, integrator).unwrap();
                let twin = case.integrate(&cpu(Simd::Avx2), integrator).unwrap();
                let what = format!("{law:?}, {bodies} bodies in {dim}-D, {integrator:?}");
                assert!(found.states == twin.states, "{what}");
                assert!(found.positions == twin.positions, "{what}");
                assert!(found.velocities == twin.velocities, "{what}");
                assert!(found.accelerations == twin.accelerations, "{what}");
            }
        }
    }
}

#[test]
fn gpu_launches_of_any_number_of_frames_make_the_same() {
    let Some(device @ Device::Gpu(gpu)) = crate::device::test_gpu() else { return };
    for integrator in [RK4, ADAPTIVE] {
        let mut case = Case::new(Law::Charge, 2, 3, 45, 1.0);
        case.frames = 40;
        let all = case.integrate(&device, integrator).unwrap();
        for at_once in [1, 3, 16, 39, 40] {
            let (mut states, poison) = (case.states.clone(), vec![f32::NAN; all.positions.len()]);
            let mut out = [poison.clone(), poison.clone(), poison];
            let [positions, velocities, accelerations] = &mut out;
            let frames = Frames { positions, velocities, accelerations };
            let batch = case.batch(integrator);
            gpu::integrate_in_parts(gpu, &batch, &mut states, frames, at_once).unwrap();
            assert!(states == all.states, "{integrator:?}, {at_once} at once");
            assert!(out == [&all.positions[..], &all.velocities, &all.accelerations]);
        }
    }
}

#[test]
fn gpu_motions_return_to_where_they_began() {
    let Some(Device::Gpu(gpu)) = crate::device::test_gpu() else { return };
    for integrator in [RK4, ADAPTIVE] {
        let case = Case::new(Law::Charge, 2, 3, 45, 1.0);
        let batch = case.batch(integrator);
        let begin = gpu::Motion::new(gpu, &batch, &case.states).unwrap();
        let mut motion = gpu::Motion::new(gpu, &batch, &case.states).unwrap();
        let mut go = || {
            let mut frames = gpu.buffer(3 * 45 * case.frames * 3 * 2).unwrap();
            motion.return_to(&begin).unwrap();
            motion.launch(0, case.frames, &mut frames).unwrap();
            let mut states = case.states.clone();
            motion.download(&mut states).unwrap();
            (states, frames.to_vec().unwrap())
        };
        let first = go();
        assert!(first.0 != case.states, "{integrator:?}: nothing moved");
        assert!(go() == first, "{integrator:?}");
    }
}

#[test]
fn gpu_takes_fewer_frames_at_once_where_memory_is_short() {
    let case = Case::new(Law::Spring, 2, 4, 1000, 1.0);
    let frame = 3 * 4 * 1000 * 4 * 2;
    let at_once = |frames, integrator, free| {
        let batch = Batch { frames, ..case.batch(integrator) };
        gpu::frames_at_once(&batch, free)
    };
    assert_eq!(at_once(10, ADAPTIVE, usize::MAX), 10);
    assert_eq!(at_once(1000, ADAPTIVE, usize::MAX), (16 << 20) / frame);
    assert_eq!(at_once(1000, ADAPTIVE, 40 * frame), 12);
    assert_eq!(at_once(1000, ADAPTIVE, 0), 1);
    assert_eq!(at_once(1000, Integrator::Rk4 { substeps: 1000 }, usize::MAX), 20);
    assert_eq!(at_once(1000, Integrator::Rk4 { substeps: 1_000_000 }, usize::MAX), 1);
}

#[test]
fn gpu_errors_name_the_run_and_the_time() {
    let Some(gpu) = crate::device::test_gpu() else { return };
    for integrator in [RK4, ADAPTIVE] {
        let errors = [gpu, Device::cpu()]
            .map(|device| broken().integrate(&device, integrator).err().unwrap().to_string());
        assert!(errors[0].contains("run 6") && errors[0].contains("time 0"), "{}", errors[0]);
        assert_eq!(errors[0], errors[1], "{integrator:?}");
    }
    // A motion that leaves the range of f32 later.
    let mut case = Case::new(Law::from_potential("-exp(r)").unwrap(), 2, 2, 3, 3.0);
    case.frames = 600;
    for integrator in [RK4, ADAPTIVE] {
        let errors = [gpu, cpu(Simd::Scalar)]
            .map(|device| case.integrate(&device, integrator).err().unwrap().to_string());
        assert!(!errors[0].contains("time 0:"), "{}", errors[0]);
        assert_eq!(errors[0].split("time").next(), errors[1].split("time").next());
    }
}
