//! Training as a whole: resume, precision, sampled messages, pruning. Tiny networks and systems.

use std::path::Path;

use super::model::Model;
use super::settings::{Preset, Settings};
use super::spec::ModelKind;
use super::train::train;
use super::trainer::Trainer;
use crate::device::Device;
use crate::nbody::dataset::{About, Dataset};
use crate::progress::Progress;
use crate::random::Random;
use crate::store::run::{Existing, RunFolder};

/// Bodies at random places; on each the sum over the others of `force(displacement)`. Frames are
/// independent of each other: nothing here depends on trajectories.
fn dataset(path: &Path, bodies: usize, force: fn([f64; 2]) -> [f64; 2]) -> Dataset {
    let (runs, frames, dim) = (40, 20, 2);
    let about =
        About { runs, frames, bodies, dim, law: None, origin: serde_json::json!({}), seed: 3 };
    let mut writer = about.create(path).unwrap();
    let mut random = Random::new(5, 0);
    for value in writer.slice::<f32>("positions") {
        *value = random.normal() as f32;
    }
    let positions = writer.slice::<f32>("positions").to_vec();
    let accelerations = writer.slice::<f32>("accelerations");
    let frames = positions.chunks(bodies * dim).zip(accelerations.chunks_mut(bodies * dim));
    for (places, pulls) in frames {
        for (i, pull) in pulls.chunks_mut(dim).enumerate() {
            for j in (0..bodies).filter(|&j| j != i) {
                let [x, y] = [0, 1].map(|k| f64::from(places[j * dim + k] - places[i * dim + k]));
                let [fx, fy] = force([x, y]);
                pull[0] += fx as f32;
                pull[1] += fy as f32;
            }
        }
    }
    writer.slice::<f32>("masses").fill(1.0);
    for (k, time) in writer.slice::<f64>("times").iter_mut().enumerate() {
        *time = k as f64;
    }
    writer.finish().unwrap();
    Dataset::open(path).unwrap()
}

fn settings(model: ModelKind, steps: u64) -> Settings {
    let mut settings = Settings::preset(Preset::Quick, model, 2, 3);
    settings.set_steps(steps);
    Settings { hidden: 16, graphs: 4, frame_stride: 1, metrics_every: 7, seed: 11, ..settings }
}

fn fresh(path: &Path) -> RunFolder {
    RunFolder::create(path, Existing::default()).unwrap()
}

fn spring([x, y]: [f64; 2]) -> [f64; 2] {
    let r = x.hypot(y) + 0.01;
    [2.0 * (r - 1.0) * x / r, 2.0 * (r - 1.0) * y / r]
}

/// Trains to `stop`, saves, and goes on in a new trainer: the same files as without a stop. The
/// stops lie between and on rows of metrics, before, between and after pruning decisions.
#[test]
fn resume_is_bit_identical() {
    let folder = tempfile::tempdir().unwrap();
    let data = dataset(&folder.path().join("data.safetensors"), 3, spring);
    let device = Device::cpu();
    for model in [ModelKind::L1, ModelKind::Kl] {
        let settings = Settings { messages: 6, ..settings(model, 80) };
        let whole = fresh(&folder.path().join(format!("{model:?}")));
        train(&device, &data, &settings, &whole, false, Progress::Quiet).unwrap();
        for stop in [1, 7, 17, 23, 30, 61, 79] {
            let part = fresh(&folder.path().join(format!("{model:?}{stop}")));
            let slice = std::slice::from_ref(&settings);
            let mut trainer =
                Trainer::new(&device, &data, slice, std::slice::from_ref(&part)).unwrap();
            while trainer.step() < stop {
                trainer.advance().unwrap();
            }
            trainer.save().unwrap();
            // Rows behind the checkpoint, as after a kill.
            for _ in 0..8.min(settings.steps - stop) {
                trainer.advance().unwrap();
            }
            drop(trainer);
            train(&device, &data, &settings, &part, true, Progress::Quiet).unwrap();
            for name in ["model.safetensors", "metrics.csv"] {
                let [a, b] = [&whole, &part].map(|run| std::fs::read(run.file(name)).unwrap());
                assert!(a == b, "{model:?}, {name} after a stop at step {stop}");
            }
        }
        let left = Model::load(&whole.file("model.safetensors")).unwrap().components.len();
        assert!(model != ModelKind::L1 || left < 6, "the test has to see pruning: {left} left");
    }
}

#[test]
fn a_stack_trains_like_its_members() {
    let folder = tempfile::tempdir().unwrap();
    let data = dataset(&folder.path().join("data.safetensors"), 3, spring);
    let settings = settings(ModelKind::Bottleneck, 30);
    let stack = [0, 1, 2].map(|k| fresh(&folder.path().join(format!("stack{k}"))));
    let device = Device::cpu();
    super::train::train_replicas(&device, &data, &settings, &stack, false, Progress::Quiet)
        .unwrap();
    for (k, member) in stack.iter().enumerate() {
        let alone = fresh(&folder.path().join(format!("alone{k}")));
        let settings = Settings { seed: settings.seed + k as u64, ..settings.clone() };
        train(&device, &data, &settings, &alone, false, Progress::Quiet).unwrap();
        for name in ["model.safetensors", "metrics.csv"] {
            let [a, b] = [member, &alone].map(|run| std::fs::read(run.file(name)).unwrap());
            assert!(a == b, "{name} of member {k}");
        }
    }
}

#[test]
fn other_settings_are_refused_on_resume() {
    let folder = tempfile::tempdir().unwrap();
    let data = dataset(&folder.path().join("data.safetensors"), 3, spring);
    let (device, settings) = (Device::cpu(), settings(ModelKind::Bottleneck, 5));
    let run = fresh(&folder.path().join("run"));
    train(&device, &data, &settings, &run, false, Progress::Quiet).unwrap();
    let other = Settings { hidden: 17, ..settings.clone() };
    let error = train(&device, &data, &other, &run, true, Progress::Quiet).unwrap_err();
    assert_eq!(error.field.as_deref(), Some("hidden"), "{error}");
    let data = dataset(&folder.path().join("four.safetensors"), 4, spring);
    let error = train(&device, &data, &settings, &run, true, Progress::Quiet).unwrap_err();
    assert!(error.to_string().contains("another data set"), "{error}");
}
