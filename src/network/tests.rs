//! Training as a whole: resume, precision, sampled messages, pruning. Tiny networks and systems.

use std::path::Path;

use super::batches::Sampler;
use super::forward;
use super::model::Model;
use super::settings::{Preset, Settings};
use super::train::train_into;
use super::trainer::Trainer;
use crate::device::{Device, Simd, test_gpu};
use crate::model::{ModelKind, Precision, PrecisionChoice};
use crate::nbody::dataset::{About, Dataset};
use crate::observer::Observer;
use crate::ops::{relative_error, tiny};
use crate::random::Random;
use crate::store::run::{IfExists, RunFolder};

/// Bodies at random positions; the acceleration of each is the sum over the others of
/// `force(displacement)`. Frames are independent: nothing here depends on trajectories.
fn dataset(path: &Path, bodies: usize, force: fn([f64; 2]) -> [f64; 2]) -> Dataset {
    let (runs, frames, dim) = (40, 20, 2);
    let about = About {
        runs,
        frames,
        bodies,
        dim,
        law: None,
        origin: serde_json::json!({}),
        seed: 3,
        scale: Some(crate::nbody::scale::Scale::NONE),
        period: None,
    };
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
    let precision = Precision::F32.into();
    let small = Settings { hidden: 16, batch: 4, precision, ..settings };
    Settings { frame_stride: 1, metrics_every: 7, seed: 11, ..small }
}

fn fresh(path: &Path) -> RunFolder {
    RunFolder::create(path, IfExists::default()).unwrap()
}

fn spring([x, y]: [f64; 2]) -> [f64; 2] {
    let r = x.hypot(y) + 0.01;
    [2.0 * (r - 1.0) * x / r, 2.0 * (r - 1.0) * y / r]
}

/// Trains to each of `stops`, saves, and continues in a new trainer: the same files as without a stop.
fn assert_resumes(device: &Device, settings: &Settings, stops: &[u64]) {
    let folder = tempfile::tempdir().unwrap();
    let data = dataset(&folder.path().join("data.safetensors"), 3, spring);
    let model = settings.model;
    let whole = fresh(&folder.path().join("whole"));
    train_into(&whole, device, &data, settings, false, &()).unwrap();
    for &stop in stops {
        let part = fresh(&folder.path().join(stop.to_string()));
        let slice = std::slice::from_ref(settings);
        let observer = part.observer(&());
        let mut trainer = Trainer::new(device, &data, slice, Vec::new(), &[&observer]).unwrap();
        while trainer.step() < stop {
            trainer.advance(stop).unwrap();
        }
        trainer.save().unwrap();
        // Rows after the checkpoint, as after a kill.
        let behind = (stop + 8).min(settings.steps);
        while trainer.step() < behind {
            trainer.advance(behind).unwrap();
        }
        drop(trainer);
        train_into(&part, device, &data, settings, true, &()).unwrap();
        for name in ["model.safetensors", "metrics.csv"] {
            let [a, b] = [&whole, &part].map(|run| std::fs::read(run.file(name)).unwrap());
            let lines = a.split(|&c| c == b'\n').zip(b.split(|&c| c == b'\n'));
            let other = lines.clone().find(|(a, b)| name == "metrics.csv" && a != b);
            let other = other.map(|(a, b)| [a, b].map(String::from_utf8_lossy));
            assert!(a == b, "{model:?}, {name} after a stop at step {stop}: {other:?}");
        }
    }
    let left = Model::load(&whole.file("model.safetensors")).unwrap().components.len();
    assert!(model != ModelKind::L1 || left < 6, "the test has to see pruning: {left} left");
}

/// The stops lie between and on rows of metrics, before, between and after pruning decisions.
#[test]
fn resume_is_bit_identical() {
    for precision in crate::ops::precisions(&Device::cpu()) {
        for model in [ModelKind::L1, ModelKind::Kl] {
            let precision = precision.into();
            let settings = Settings { messages: 6, precision, ..settings(model, 80) };
            assert_resumes(&Device::cpu(), &settings, &[1, 7, 17, 23, 30, 61, 79]);
        }
    }
}

#[test]
fn gpu_resume_is_bit_identical() {
    let Some(gpu) = test_gpu() else { return };
    for (model, stops) in [(ModelKind::L1, &[23][..]), (ModelKind::Kl, &[5, 21])] {
        let settings = Settings { messages: 6, metrics_every: 20, ..settings(model, 40) };
        assert_resumes(&gpu, &settings, stops);
    }
}

/// Twenty steps of every model, one of them as a stack, on a GPU and on the CPU, with the same graphs
/// and the same noise.
#[test]
fn gpu_trains_like_the_processor() {
    let Some(gpu) = test_gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let data = dataset(&folder.path().join("data.safetensors"), 3, spring);
    for model in [ModelKind::Standard, ModelKind::Bottleneck, ModelKind::L1, ModelKind::Kl] {
        let runs = if model == ModelKind::Bottleneck { 2 } else { 1 };
        let settings = Settings {
            messages: if model == ModelKind::Bottleneck { 2 } else { 7 },
            prune: false,
            metrics_every: 20,
            frame_stride: 3,
            hidden: 20,
            ..settings(model, 20)
        };
        let stack: Vec<Settings> =
            (0..runs).map(|seed| Settings { seed, ..settings.clone() }).collect();
        let [here, there] = [&Device::cpu(), &gpu].map(|device| {
            let observers = vec![&() as &dyn Observer; runs as usize];
            let mut trainer = Trainer::new(device, &data, &stack, Vec::new(), &observers).unwrap();
            while trainer.step() < 20 {
                trainer.advance(20).unwrap();
            }
            trainer.save().unwrap();
            (0..runs as usize).map(|run| trainer.model(run)).collect::<Vec<Model>>()
        });
        for (here, there) in here.iter().zip(&there) {
            let exact: Vec<f64> = here.parameters.iter().map(|&w| w.into()).collect();
            let error = relative_error(&there.parameters, &exact);
            assert!(error < 1e-4, "{model:?}: parameters differ by {error}");
            let losses = |model: &Model| [model.about.train_loss, model.about.validation_loss];
            for (here, there) in losses(here).into_iter().zip(losses(there)) {
                let (here, there) = (here.unwrap(), there.unwrap());
                assert!((there / here - 1.0).abs() < 1e-4, "{model:?}: {here} and {there}");
            }
        }
    }
}

#[test]
fn gpu_says_when_a_training_diverges() {
    let Some(gpu) = test_gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let data = dataset(&folder.path().join("data.safetensors"), 3, spring);
    let settings = Settings { peak_rate: 1e30, ..settings(ModelKind::L1, 10) };
    let message = |name: &str, device: &Device| {
        let run = fresh(&folder.path().join(name));
        let result = train_into(&run, device, &data, &settings, false, &());
        let error = result.unwrap_err();
        assert_eq!(error.field.as_deref(), Some("peak_rate"), "{error}");
        error.to_string().split(" (").next().unwrap_or_default().to_string()
    };
    assert_eq!(message("gpu", &gpu), message("cpu", &Device::cpu()));
}

#[test]
fn a_stack_trains_like_its_members() {
    let folder = tempfile::tempdir().unwrap();
    let data = dataset(&folder.path().join("data.safetensors"), 3, spring);
    let settings = settings(ModelKind::Bottleneck, 30);
    let stack = [0, 1, 2].map(|k| fresh(&folder.path().join(format!("stack{k}"))));
    let device = Device::cpu();
    super::train::train_replicas(&stack, &device, &data, &settings, false, &()).unwrap();
    for (k, member) in stack.iter().enumerate() {
        let alone = fresh(&folder.path().join(format!("alone{k}")));
        let settings = Settings { seed: settings.seed + k as u64, ..settings.clone() };
        train_into(&alone, &device, &data, &settings, false, &()).unwrap();
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
    train_into(&run, &device, &data, &settings, false, &()).unwrap();
    let other = Settings { hidden: 17, ..settings.clone() };
    let error = train_into(&run, &device, &data, &other, true, &()).unwrap_err();
    assert_eq!(error.field.as_deref(), Some("hidden"), "{error}");
    let data = dataset(&folder.path().join("four.safetensors"), 4, spring);
    let error = train_into(&run, &device, &data, &settings, true, &()).unwrap_err();
    assert!(error.to_string().contains("another data set"), "{error}");
}

#[test]
fn layers_too_wide_for_bf16_are_trained_in_f32() {
    let folder = tempfile::tempdir().unwrap();
    let data = dataset(&folder.path().join("data.safetensors"), 3, spring);
    let wide = Settings { hidden: 4001, batch: 1, ..settings(ModelKind::Bottleneck, 1) };
    let auto = Settings { precision: PrecisionChoice::Auto, ..wide };
    crate::network::train::check(&Device::cpu(), &data, &auto, 1).unwrap();
}

/// The choice is made once, and kept by the run: it goes on in the precision in which it began.
#[test]
fn the_precision_is_decided_by_the_device_and_kept_on_resume() {
    let folder = tempfile::tempdir().unwrap();
    let data = dataset(&folder.path().join("data.safetensors"), 3, spring);
    let device = Device::cpu();
    let fastest = crate::ops::precision(&device, PrecisionChoice::Auto).0;
    assert!(crate::ops::precisions(&device).contains(&fastest));
    let auto = Settings { precision: PrecisionChoice::Auto, ..settings(ModelKind::Bottleneck, 5) };
    for begun in [PrecisionChoice::Auto, PrecisionChoice::F32] {
        let run = fresh(&folder.path().join(begun.name()));
        let settings = Settings { precision: begun, ..auto.clone() };
        train_into(&run, &device, &data, &settings, false, &()).unwrap();
        train_into(&run, &device, &data, &auto, true, &()).unwrap();
        let found = Model::load(&run.file("model.safetensors")).unwrap().about.settings.precision;
        let expected = if begun == PrecisionChoice::Auto { fastest } else { Precision::F32 };
        assert_eq!(found, expected.into());
    }
}

/// The loss of an evaluation equals that of the training operation on the same graphs.
#[test]
fn evaluation_agrees_with_training() {
    let folder = tempfile::tempdir().unwrap();
    let data = dataset(&folder.path().join("data.safetensors"), 5, spring);
    let (device, settings) = (Device::cpu(), settings(ModelKind::L1, 5));
    let run = fresh(&folder.path().join("run"));
    train_into(&run, &device, &data, &settings, false, &()).unwrap();
    let model = Model::load(&run.file("model.safetensors")).unwrap();
    let graphs = Sampler::new(&data, &settings).all();
    let batch = tiny::Batch {
        shape: model.shape,
        penalty: settings.penalty(),
        weight_decay: 0.0,
        precision: Precision::F32,
        runs: 1,
        graphs: 40 * 20,
        bodies: 5,
        features: &graphs.features,
        targets: &graphs.targets,
        noise_seeds: &[0],
        step: 0,
    };
    let mut gradients = vec![0.0; model.parameters.len()];
    let mut losses = [tiny::Loss::default()];
    let mut workspace = tiny::Workspace::default();
    tiny::gradient(&device, &batch, &model.parameters, &mut gradients, &mut losses, &mut workspace)
        .unwrap();
    let found = forward::evaluate(&device, &model.shape, &model.parameters, &graphs, None);
    let (found, expected) = (found.unwrap().loss, f64::from(losses[0].prediction));
    assert!((found / expected - 1.0).abs() < 1e-5, "{found}, not {expected}");
}

/// Validation losses in the first and the last row of `metrics.csv`.
fn losses(run: &RunFolder) -> (f64, f64) {
    let text = std::fs::read_to_string(run.file("metrics.csv")).unwrap();
    let loss = |line: &str| line.split(',').nth(4).unwrap().parse::<f64>().unwrap();
    let rows: Vec<f64> = text.lines().skip(1).map(loss).collect();
    (rows[0], rows[rows.len() - 1])
}

/// Without the random translation, whose large offsets bf16 rounds coarsely, bf16 reaches the loss
/// of f32 within the spread between seeds.
#[test]
fn bf16_training_falls_like_f32() {
    if Simd::detect() < Simd::Avx512Bf16 {
        println!("skipped: this processor has no bf16");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let data = dataset(&folder.path().join("data.safetensors"), 3, spring);
    let mut last = Vec::new();
    for precision in [Precision::F32, Precision::Bf16] {
        let run = fresh(&folder.path().join(format!("{precision:?}")));
        let settings = Settings {
            precision: precision.into(),
            hidden: 32,
            translation: 0.0,
            ..settings(ModelKind::Bottleneck, 1500)
        };
        train_into(&run, &Device::cpu(), &data, &settings, false, &()).unwrap();
        let (begin, end) = losses(&run);
        assert!(end < 0.5 * begin, "{precision:?}: {begin} to {end}");
        last.push(end);
    }
    assert!(last[0] != last[1], "bf16 has to differ from f32");
    assert!((last[1] / last[0] - 1.0).abs() < 0.25, "f32 {}, bf16 {}", last[0], last[1]);
}

#[test]
fn kl_training_falls_and_its_messages_have_variances() {
    let folder = tempfile::tempdir().unwrap();
    let data = dataset(&folder.path().join("data.safetensors"), 3, spring);
    let run = fresh(&folder.path().join("kl"));
    let settings =
        Settings { messages: 4, hidden: 32, penalty: 0.01, ..settings(ModelKind::Kl, 800) };
    train_into(&run, &Device::cpu(), &data, &settings, false, &()).unwrap();
    let (begin, end) = losses(&run);
    assert!(end < 0.8 * begin, "{begin} to {end}");
    let model = Model::load(&run.file("model.safetensors")).unwrap();
    let sent = model.messages(&Device::cpu(), &[0.5; 2 * 12]).unwrap();
    assert_eq!((sent.values.len(), sent.log_variances.unwrap().len()), (8, 8));
}

/// Bodies need one number from each other in one system and two in the other: pruning finds out, with
/// the same settings.
#[test]
fn pruning_finds_the_number_of_components() {
    let folder = tempfile::tempdir().unwrap();
    let line: fn([f64; 2]) -> [f64; 2] = |[x, y]| {
        let pull = 2.0 * x - y;
        [pull, 0.5 * pull]
    };
    let plane: fn([f64; 2]) -> [f64; 2] = |[x, y]| [2.0 * x, y * y.abs()];
    for (force, number) in [(line, 1), (plane, 2)] {
        let path = folder.path().join(format!("{number}.safetensors"));
        let data = dataset(&path, 3, force);
        let run = fresh(&folder.path().join(format!("run{number}")));
        let settings = Settings {
            messages: 12,
            hidden: 32,
            translation: 0.5,
            batch: 8,
            metrics_every: 10,
            ..settings(ModelKind::L1, 4000)
        };
        let summary = train_into(&run, &Device::cpu(), &data, &settings, false, &()).unwrap();
        let metrics = std::fs::read_to_string(run.file("metrics.csv")).unwrap();
        assert_eq!(summary.components.len(), number, "{metrics}");
    }
}
