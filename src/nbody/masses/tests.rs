use super::*;
use crate::random::Random;

/// Runs of bodies at random with these accelerations by pair (masses, charges, distance), over the mass of the
/// receiver, with noise relative to their size.
fn read(
    runs: &[(&[f64], &[f64])],
    frames: usize,
    noise: f64,
    force: impl Fn([f64; 2], [f64; 2], f64) -> f64,
) -> Trajectories {
    let mut random = Random::new(5, 0);
    let run = |(name, (m, q)): (usize, &(&[f64], &[f64]))| {
        let n = m.len();
        let positions: Vec<f64> = (0..frames * n * 2).map(|_| random.normal()).collect();
        let mut accelerations = Vec::new();
        for frame in positions.chunks(2 * n) {
            for i in 0..n {
                for axis in 0..2 {
                    let felt = (0..n).filter(|j| *j != i).map(|j| {
                        let d = [0, 1].map(|k| frame[2 * j + k] - frame[2 * i + k]);
                        let r = d[0].hypot(d[1]);
                        force([m[i], m[j]], [q[i], q[j]], r) * d[axis] / r
                    });
                    let a = felt.sum::<f64>() / m[i];
                    accelerations.push(a + noise * a.abs() * random.normal());
                }
            }
        }
        Run {
            name: name.to_string(),
            times: (0..frames).map(|t| t as f64).collect(),
            bodies: (0..n).map(|k| k.to_string()).collect(),
            positions,
            accelerations: Some(accelerations),
            ..Run::default()
        }
    };
    let runs = runs.iter().enumerate().map(run).collect();
    Trajectories { dim: 2, runs, ..Trajectories::default() }
}

fn check(found: &Inferred, masses: &[f64], tolerance: f64) {
    let largest = masses.iter().copied().fold(0.0, f64::max);
    for (of, mass) in found.bodies.iter().zip(masses) {
        let truth = mass / largest;
        assert!((of.mass / truth - 1.0).abs() < tolerance, "{truth} {of:?}");
        assert!((of.mass - truth).abs() < 6.0 * of.error + 1e-3 * truth, "{truth} {of:?}");
    }
}

const MASSES: [f64; 4] = [0.4, 3.0, 1.1, 0.02];
const NONE: [f64; 4] = [0.0; 4];

#[test]
fn pulling_masses_come_back() {
    let gravity = |m: [f64; 2], _: [f64; 2], r: f64| m[0] * m[1] / (r * r + 0.01);
    for (noise, tolerance) in [(0.0, 1e-3), (0.02, 0.03)] {
        let found = infer(&read(&[(&MASSES, &NONE)], 500, noise, gravity), 0.0).unwrap();
        assert_eq!(found.differs, Differs::Pull);
        check(&found, &MASSES, tolerance);
    }
}

#[test]
fn yielding_masses_come_back_of_every_run() {
    let spring = |_: [f64; 2], _: [f64; 2], r: f64| 2.0 * (r - 1.0);
    let other = [1.0, 0.3, 0.5];
    let found = infer(&read(&[(&MASSES, &NONE)], 300, 0.0, spring), 0.0).unwrap();
    assert_eq!(found.differs, Differs::Inertia);
    check(&found, &MASSES, 1e-3);
    // The same names mean other bodies in the second run.
    let both = read(&[(&MASSES, &NONE), (&other, &NONE[..3])], 300, 0.0, spring);
    let found = infer(&both, 0.0).unwrap();
    assert_eq!(found.bodies.len(), 7);
    check(&found, &[&MASSES[..], &other].concat(), 1e-3);
    let mut runs = both.runs.clone();
    found.give(&mut runs);
    assert_eq!(runs[1].masses.as_ref().unwrap()[0], found.bodies[4].mass);
    // Fifty runs with the same bodies are fitted together.
    let many = read(&[(&MASSES[..], &NONE[..]); 50], 6, 0.0, spring);
    check(&infer(&many, 0.0).unwrap(), &MASSES, 1e-3);
}

/// Whatever the number of frames, those that are taken are spread over all blocks of time.
#[test]
fn many_runs_are_sampled_evenly() {
    let spring = |_: [f64; 2], _: [f64; 2], r: f64| 2.0 * (r - 1.0);
    for frames in [12, 50, 60] {
        let many = read(&[(&MASSES[..], &NONE[..]); 500], frames, 0.02, spring);
        let [equal, own] = differ(&many, 0.0).unwrap();
        assert!(equal > 0.3 && own < 0.05, "{frames}: {equal} {own}");
    }
}

/// Error bars refer to the heaviest body, and hold.
#[test]
fn errors_of_yielding_masses_hold() {
    let spring = |_: [f64; 2], _: [f64; 2], r: f64| 2.0 * (r - 1.0);
    let found = infer(&read(&[(&MASSES, &NONE)], 500, 0.05, spring), 0.0).unwrap();
    check(&found, &MASSES, 0.05);
    assert!(found.note().starts_with("masses inferred"), "{}", found.note());
    let rough = Inferred { unexplained: 0.3, unexplained_if_equal: 33.0, ..found.clone() }.note();
    assert!(
        rough.starts_with("warning: rough masses") && rough.contains("(over 100 % with"),
        "{rough}"
    );
    let errors: Vec<f64> = found.bodies.iter().map(|of| of.error / of.mass).collect();
    assert!(errors[1] == 0.0 && errors[0] > 5e-4 && errors[3] > 5e-4, "{errors:?}");
}

/// Pairs that have no body in common: their masses pull or yield, and both explain the motion.
#[test]
fn separate_pairs_do_not_tell_what_differs() {
    let gravity = |m: [f64; 2], _: [f64; 2], r: f64| m[0] * m[1] / (r * r + 0.01);
    let masses: Vec<[f64; 2]> = (0..6).map(|k| [1.0 + 0.3 * k as f64, 0.4]).collect();
    let runs: Vec<(&[f64], &[f64])> = masses.iter().map(|m| (&m[..], &NONE[..2])).collect();
    let error = infer(&read(&runs, 100, 0.0, gravity), 0.0).err();
    assert!(error.is_some_and(|why| why.contains("pull or resist")), "{error:?}");
}

#[test]
fn charges_and_masses_come_back() {
    let charges = [1.0, -0.6, -1.0, 0.8];
    let masses = [1.0, 2.0, 0.5, 0.7];
    let coulomb = |_: [f64; 2], q: [f64; 2], r: f64| -q[0] * q[1] / (r * r + 0.05);
    let found = infer(&read(&[(&masses, &charges)], 400, 0.0, coulomb), 0.0).unwrap();
    assert_eq!(found.differs, Differs::Both);
    check(&found, &masses, 1e-2);
    let sign = found.bodies[0].charge.unwrap().signum();
    for (of, charge) in found.bodies.iter().zip(charges) {
        assert!((sign * of.charge.unwrap() - charge).abs() < 0.01, "{charge} {of:?}");
    }
}

#[test]
fn equal_masses_and_no_force_infer_nothing() {
    let equal = [1.0; 4];
    let gravity = |m: [f64; 2], _: [f64; 2], r: f64| m[0] * m[1] / (r * r + 0.01);
    assert_eq!(
        infer(&read(&[(&equal, &NONE)], 500, 0.02, gravity), 0.0).err(),
        Some(equations::NO_BETTER)
    );
    let mut noise = read(&[(&MASSES, &NONE)], 500, 0.0, gravity);
    let mut random = Random::new(8, 0);
    let values = noise.runs[0].accelerations.as_mut().unwrap();
    values.iter_mut().for_each(|a| *a = random.normal());
    assert_eq!(infer(&noise, 0.0).err(), Some(equations::NO_BETTER));
    // Free particles.
    noise.runs[0].accelerations.as_mut().unwrap().fill(0.0);
    assert_eq!(infer(&noise, 0.0).err(), Some(equations::NO_BETTER));
}
