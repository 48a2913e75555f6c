//! The search as a whole: recovery with small budgets, determinism.

use super::*;
use crate::device::{Device, Simd};
use crate::formula::expression::Op;
use crate::ops::expression::Loss;
use crate::random::Random;
use crate::store::table::{Column, Table};
use crate::symbolic::enumerate::StopCheck;
use crate::symbolic::front::Select;
use crate::symbolic::island::Member;
use crate::symbolic::job::problem_of_table;

/// Rows of pairs of bodies: masses, charges, a distance vector and its length.
fn pairs(n: usize, seed: u64, target: impl Fn(&[f64; 7]) -> f64) -> Problem {
    let mut random = Random::new(seed, 9);
    let mut problem = Problem {
        names: ["m1", "m2", "q1", "q2", "dx", "dy", "r"].map(String::from).to_vec(),
        columns: vec![Vec::new(); 7],
        ..Problem::default()
    };
    for _ in 0..n {
        let masses = [random.normal().exp(), random.normal().exp()];
        let charges = [0, 1].map(|_| if random.uniform() < 0.5 { -1.0 } else { 1.0 });
        let (dx, dy) = (1.5 * random.normal(), 1.5 * random.normal());
        let r = dx.hypot(dy).max(0.05);
        let row = [masses[0], masses[1], charges[0], charges[1], dx, dy, r];
        (0..7).for_each(|k| problem.columns[k].push(row[k] as f32));
        problem.target.push(target(&row) as f32);
    }
    problem
}

fn settings(evaluations: u64) -> Settings {
    Settings { evaluations: Some(evaluations), target_loss: Some(1e-4), ..Settings::default() }
}

fn run(problems: &[Problem], settings: &Settings) -> Vec<Outcome> {
    search(&Evaluator::cpu(), problems, settings, None, &(), &mut |_| {}).unwrap()
}

/// Largest relative error on fresh pairs.
fn error(e: &Expression, law: impl Fn(&[f64; 7]) -> f64 + Copy) -> f64 {
    let fresh = pairs(500, 77, law);
    let mut worst = 0.0f64;
    for row in 0..500 {
        let values: Vec<f64> = fresh.columns.iter().map(|c| f64::from(c[row])).collect();
        let exact = law(&std::array::from_fn(|k| values[k]));
        worst = worst.max((e.eval(&values) - exact).abs() / (exact.abs() + 1.0));
    }
    worst
}

#[test]
fn laws_are_recovered() {
    type Law = fn(&[f64; 7]) -> f64;
    let laws: [(&str, Law); 3] = [
        ("spring", |x| (1.36 * x[5] + 0.6 * x[4]) * (1.0 - 1.0 / x[6]) - 0.25),
        ("inverse", |x| (0.5 * x[4] - 1.1 * x[5]) * x[0] * x[1] / (x[6] * x[6]) + 0.1),
        ("charge", |x| x[2] * x[3] * (0.7 * x[4] + x[5]) / (x[6] * x[6] * x[6])),
    ];
    let problems: Vec<Problem> = laws.iter().map(|l| pairs(2000, 4, l.1)).collect();
    let outcomes = run(&problems, &settings(150_000));
    for ((name, law), outcome) in laws.into_iter().zip(&outcomes) {
        let chosen = outcome.front.select(Select::Best).unwrap();
        let e = &outcome.front.entries[chosen].expression;
        let text = e.text(&problems[0].names);
        assert!(error(e, law) < 1e-2, "{name}: {text} after {}", outcome.evaluations);
    }
}

/// The threshold is not among the values that a search draws, and noise hides it.
#[test]
fn thresholds_are_found_between_the_rows() {
    let mut problem = pairs(3000, 6, |x| if x[6] > 1.618 { x[6] * x[5] } else { 0.0 });
    let mut random = Random::new(3, 3);
    problem.target.iter_mut().for_each(|y| *y += 0.02 * random.normal() as f32);
    let outcome = run(&[problem], &settings(40_000)).remove(0);
    let chosen = outcome.front.select(Select::Best).unwrap();
    let e = &outcome.front.entries[chosen].expression;
    let at = |r: f64| e.eval(&[1.0, 1.0, 1.0, 1.0, 0.0, 1.0, r]);
    assert!(at(1.61).abs() < 0.05 && (at(1.626) - 1.626).abs() < 0.05, "{e:?}");
}

#[test]
fn the_front_is_the_same_on_any_number_of_threads() {
    // Sines are not among the operators: there is always something to improve.
    let wave = |x: &[f64; 7]| (1.3 * x[4]).sin() / x[6] + x[0];
    let problems = [pairs(3000, 1, wave), pairs(700, 2, |x| x[5] * (x[1] + x[4]).sin())];
    let settings = Settings { evaluations: Some(12_000), ..Settings::default() };
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| run(&problems, &settings))
    };
    let one = on(1);
    for threads in [2, 5] {
        for (a, b) in one.iter().zip(&on(threads)) {
            assert_eq!(a.front, b.front, "{threads} threads");
            assert_eq!((a.evaluations, a.node_evaluations), (b.evaluations, b.node_evaluations));
        }
    }
    let other = run(&problems, &Settings { seed: 1, ..settings.clone() });
    assert_ne!(one[0].front, other[0].front, "the seed matters");
}

/// A long table must not delay a search: at its deadline few members are fitted on all rows.
#[test]
fn members_enter_until_the_deadline() {
    let problem = pairs(300, 4, |x| x[5] / x[6]);
    let settings = settings(1000);
    let product = |k: u16| {
        let f = Expression::apply(Op::Mul, &[k / 7, k % 7].map(Expression::variable));
        Member { f, scale: 1.0, offset: 0.0, loss: 1.0, complexity: 3 }
    };
    let work = |late: &StopCheck| {
        let mut state = State::new(0, &problem, &settings).unwrap();
        state.enter(&Evaluator::cpu(), (0..49).map(product).collect(), late).unwrap();
        state.memory.node_evaluations
    };
    let (all, some) = (work(&|| false), work(&|| true));
    assert!(some > 0 && 2 * some < all, "{some} of {all}");
}

#[test]
fn rows_without_weight_are_not_drawn() {
    let mut problem = pairs(3000, 1, |x| x[0]);
    problem.weights = Some((0..3000).map(|row| f32::from(u8::from(row % 300 == 7))).collect());
    let settings = Settings::default();
    let mut state = State::new(0, &problem, &settings).unwrap();
    assert!(state.some_rows().is_none(), "ten rows are less than a batch");
    assert_eq!(state.draw(64).rows(), 10);
    assert!((0..100).all(|_| state.rules.draw_row(&mut state.memory.random) % 300 == 7));
}

/// Sums on the GPU are taken in the order of vectors of sixteen.
#[test]
fn gpu_finds_the_front_of_a_processor_with_avx_512() {
    let Some(gpu) = crate::device::test_gpu() else { return };
    let target = |x: &[f64; 7]| (x[5] + 0.4 * x[4]) * (1.0 - 1.0 / x[6]) - 0.25;
    let problems = [pairs(300, 4, target), pairs(1100, 5, target)];
    let settings = Settings { islands: 2, ..settings(600) };
    let [found, twin] = [gpu, Device::cpu()].map(|device| {
        search(&Evaluator::new(&device), &problems, &settings, None, &(), &mut |_| {}).unwrap()
    });
    assert!(found.iter().all(|outcome| outcome.front.entries.len() > 3), "{found:?}");
    if Simd::detect() >= Simd::Avx512 {
        for (found, twin) in found.iter().zip(twin) {
            assert_eq!(found.front, twin.front);
        }
    }
}

/// Tables of different lengths, losses and limits; also several targets in one search.
#[test]
fn gpu_searches_side_by_side_share_launches_and_find_what_each_finds_alone() {
    let Some(gpu) = crate::device::test_gpu() else { return };
    let all: Vec<(Vec<Problem>, Settings)> =
        [(60, Loss::Mae, 2), (350, Loss::Mse, 1), (30, Loss::Mae, 1)]
            .into_iter()
            .enumerate()
            .map(|(k, (rows, loss, targets))| {
                let law = |x: &[f64; 7]| (x[5] + 0.4 * x[4]) * (1.0 - 1.0 / x[6]) - 0.2 * k as f64;
                let problem = |target| pairs(rows, (3 * k + target) as u64, law);
                let limits = Settings { islands: 2, ..settings(250 + 50 * k as u64) };
                ((0..targets).map(problem).collect(), Settings { loss, ..limits })
            })
            .collect();
    let find = |evaluator: &Evaluator, (problems, settings): &(Vec<Problem>, Settings)| {
        let found = search(evaluator, problems, settings, None, &(), &mut |_| {}).unwrap();
        found.into_iter().map(|o| Outcome { seconds: 0.0, ..o }).collect::<Vec<_>>()
    };
    let mut alone = Vec::new();
    let (mut requests, mut launches) = (0, 0);
    for one in &all {
        let evaluator = Evaluator::new(&gpu);
        alone.push(find(&evaluator, one));
        let took = evaluator.launches().unwrap();
        (requests, launches) = (requests + took.requests, launches + took.launches);
    }
    let evaluator = Evaluator::new(&gpu);
    let together = side_by_side(all.iter().collect(), |one| find(&evaluator, one));
    assert_eq!(together, alone);
    assert!(alone.iter().flatten().all(|outcome| outcome.front.entries.len() > 2), "{alone:?}");
    let took = evaluator.launches().unwrap();
    assert_eq!(took.requests, requests);
    assert!(took.launches < launches && launches < requests, "{took:?} {launches}");
}

/// What single precision cannot tell from a law is none while double precision can: the search goes on.
#[test]
fn exact_means_exact_in_double_precision() {
    let evaluations = |ripple: f64| {
        let x: Vec<f64> = (0..300).map(|k| 0.5 + 0.01 * f64::from(k)).collect();
        let y: Vec<f64> = x.iter().map(|x| 2.0 * x + 1.0 + ripple * (40.0 * x).sin()).collect();
        let table = Table {
            names: vec!["x".into(), "y".into()],
            columns: [x, y].map(Column::Numbers).to_vec(),
            ..Table::default()
        };
        let problem = problem_of_table(&table, "y", &["x".into()], None, true).unwrap();
        let settings = Settings { target_loss: None, ..settings(40_000) };
        let outcome = run(&[problem], &settings).remove(0);
        assert!(outcome.front.entries.last().unwrap().loss < 2e-7);
        outcome.evaluations
    };
    let (exact, rippled) = (evaluations(0.0), evaluations(1e-7));
    assert!(exact < 30_000 && rippled >= 40_000, "{exact} {rippled}");
}
