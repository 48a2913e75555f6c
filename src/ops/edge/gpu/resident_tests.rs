//! A training that stays on the device against the same operations one by one.

use super::*;
use crate::device::cuda::asked;
use crate::device::{Device, test_gpu};
use crate::model::Precision;
use crate::ops::adam::{self, Arenas};
use crate::ops::edge::selftest::{Case, KINDS};
use crate::ops::edge::symmetry::{self, Turn};
use crate::ops::edge::{Workspace, gradient};
use crate::random::Random;

/// Steps of each training.
const STEPS: u64 = 3;

fn turn(step: u64) -> Turn {
    Turn::random(&mut Random::new(9, step))
}

fn rate(step: u64) -> adam::Args {
    adam::Args::new(0.01 / (step + 1) as f32, step + 1)
}

/// The batch of this step.
fn batch(case: &Case, step: u64) -> Batch<'_> {
    Batch { step, ..case.batch() }
}

/// Parameters, moments and losses of a training by operations that copy everything.
fn one_by_one(gpu: &Device, case: &Case) -> ([Vec<f32>; 3], Vec<[f32; 2]>) {
    let (mut parameters, arena) = (case.parameters.clone(), case.shape.arena());
    let [mut m, mut v, mut gradients] = [(); 3].map(|()| vec![0.0; arena.len]);
    let mut losses = Vec::new();
    for step in 0..STEPS {
        let mut turned = parameters.clone();
        turn(step).apply(&arena, &mut turned);
        let (batch, mut workspace) = (batch(case, step), Workspace::default());
        let loss = gradient(gpu, &batch, &case.targets, &turned, &mut gradients, &mut workspace);
        let loss = loss.unwrap();
        losses.push([loss.prediction, loss.penalty]);
        turn(step).undo(&arena, &mut gradients);
        symmetry::project(&arena, &mut gradients);
        let (parameters, m, v) = (&mut parameters[..], &mut m[..], &mut v[..]);
        let arenas = Arenas { parameters, m, v, gradients: &gradients };
        adam::step(gpu, &rate(step), 1, arenas).unwrap();
    }
    ([parameters, m, v], losses)
}

/// The same for one that stays on the device, and is moved there again after each of the `stops`.
fn resident(
    gpu: Gpu,
    case: &Case,
    workspace: &Workspace,
    stops: &[u64],
) -> ([Vec<f32>; 3], Vec<[f32; 2]>) {
    let zeros = vec![0.0; case.parameters.len()];
    let [mut parameters, mut m, mut v] = [case.parameters.clone(), zeros.clone(), zeros];
    let rates: Vec<adam::Args> = (0..STEPS).map(rate).collect();
    let mut losses = Vec::new();
    let (mut first, ends) = (0, stops.iter().copied().chain([STEPS]));
    for end in ends {
        let mut training = Resident::new(gpu, &rates, [&parameters, &m, &v]).unwrap();
        for step in first..end {
            let batch = batch(case, step);
            training.step(workspace, &batch, &case.targets, &turn(step)).unwrap();
        }
        first = end;
        losses.extend(training.losses().unwrap());
        training.parameters(&mut parameters).unwrap();
        training.moments(&mut m, &mut v).unwrap();
    }
    ([parameters, m, v], losses)
}

#[test]
fn gpu_resident_steps_are_the_operations_one_by_one() {
    let Some(Device::Gpu(gpu)) = test_gpu() else { return };
    let plain = |turn: Turn| turn.axis == [0, 1, 2] && turn.sign == [1.0; 3];
    assert!(!(0..STEPS).map(turn).any(plain), "the test has to see turns");
    for kind in KINDS {
        for precision in [Precision::F32, Precision::Bf16] {
            let case = Case::of_features(7, kind, [16, 2, 3], &[9, 30, 0, 70], 1).at(precision);
            let (expected, losses) = one_by_one(&Device::Gpu(gpu), &case);
            assert!(expected[0].iter().zip(&case.parameters).any(|(a, b)| a != b));
            let mut kept = Workspace::default();
            kept.keep(&Device::Gpu(gpu), &case.features, &case.targets, &case.sender).unwrap();
            assert!(kept.kept.as_ref().is_some_and(|kept| kept.senders.is_some()));
            let mut without_senders = Workspace::default();
            let (features, targets) = (&case.features, &case.targets);
            without_senders.keep(&Device::Gpu(gpu), features, targets, &case.sender).unwrap();
            without_senders.kept.iter_mut().for_each(|kept| kept.senders = None);
            for workspace in [kept, without_senders, Workspace::default()] {
                for stops in [&[][..], &[1]] {
                    let (found, those) = resident(gpu, &case, &workspace, stops);
                    assert!(found == expected, "{kind:?}, {precision:?}, {stops:?}");
                    for (a, b) in those.iter().flatten().zip(losses.iter().flatten()) {
                        assert!((a - b).abs() <= 1e-6 * b.abs(), "{those:?}, not {losses:?}");
                    }
                    assert_eq!(those.len(), losses.len());
                }
            }
        }
    }
}

#[test]
fn gpu_steps_that_repeat_allocate_nothing() {
    let Some(Device::Gpu(gpu)) = test_gpu() else { return };
    let rates: Vec<adam::Args> = (0..STEPS).map(rate).collect();
    for kind in KINDS {
        for precision in [Precision::F32, Precision::Bf16] {
            let case = Case::of_features(7, kind, [16, 2, 3], &[9, 30, 0, 70], 1).at(precision);
            let zeros = vec![0.0; case.parameters.len()];
            let mut workspace = Workspace::default();
            let (features, targets) = (&case.features, &case.targets);
            workspace.keep(&Device::Gpu(gpu), features, targets, &case.sender).unwrap();
            let mut training =
                Resident::new(gpu, &rates, [&case.parameters, &zeros, &zeros]).unwrap();
            let mut step = |number: u64| {
                let before = asked::calls();
                let batch = batch(&case, number);
                training.step(&workspace, &batch, &case.targets, &turn(number)).unwrap();
                let after = asked::calls();
                [asked::ALLOCATIONS, asked::LAUNCHES].map(|which| after[which] - before[which])
            };
            let ([first, launches], [second, again]) = (step(0), step(1));
            assert!(first > 20 && second == 0, "{kind:?}, {precision:?}: {first}, then {second}");
            assert!(
                launches == again && launches < 55,
                "{kind:?}, {precision:?}: {launches}, {again}"
            );
        }
    }
}
