//! Training on a graph as a whole, on a GPU: agreement with the CPU, bytes copied, resuming.

use std::path::Path;

use super::catalog::{self, Catalog};
use super::graph::{self, Graph};
use super::halos::Halos;
use crate::device::cuda::copied;
use crate::device::{Device, Simd, test_gpu};
use crate::error::Result;
use crate::model::{ModelKind, Precision};
use crate::network::model::Model;
use crate::network::settings::{Preset, Settings};
use crate::network::train::train_into;
use crate::network::trainer::Trainer;
use crate::ops::relative_error;
use crate::random::Random;
use crate::store::run::{FolderObserver, IfExists, RunFolder};

/// 300 halos in a box of 60 Mpc/h, each with some ten neighbours, and an overdensity that depends on mass and
/// position.
fn halos(folder: &Path) -> Halos {
    let mut random = Random::new(5, 0);
    let mut table = String::from("x,y,z,vx,vy,vz,mass,delta\n");
    for _ in 0..300 {
        let [x, y, z] = [(); 3].map(|()| 60.0 * random.uniform());
        let [vx, vy, vz] = [(); 3].map(|()| 300.0 * random.normal());
        let mass = 1e13 * (1.0 + random.uniform());
        table += &format!("{x},{y},{z},{vx},{vy},{vz},{mass},{}\n", (0.1 * x).sin() + mass / 1e13);
    }
    let [source, halos, graph] =
        ["halos.csv", "halos.safetensors", "graph.safetensors"].map(|name| folder.join(name));
    std::fs::write(&source, table).unwrap();
    let settings = catalog::Settings { edge: Some(60.0), ..Default::default() };
    catalog::import(&source, &halos, &settings).unwrap();
    let catalogs = [Catalog::open(&halos).unwrap()];
    graph::build(&Device::cpu(), &catalogs, None, 12.0, &graph).unwrap();
    Halos { graph: Graph::open(&graph).unwrap(), hide_above: None }
}

fn settings(model: ModelKind, precision: Precision, steps: u64) -> Settings {
    let mut settings = Settings::on_graph(Preset::Quick, model);
    settings.set_steps(steps);
    let messages = if model == ModelKind::Bottleneck { 1 } else { 6 };
    let precision = precision.into();
    Settings { hidden: 16, batch: 24, messages, precision, seed: 11, ..settings }
}

fn fresh(path: &Path) -> RunFolder {
    RunFolder::create(path, IfExists::default()).unwrap()
}

fn start<'a>(
    device: &Device,
    halos: &'a Halos,
    settings: &Settings,
    run: &'a FolderObserver<'a>,
) -> Result<Trainer<'a>> {
    Trainer::new(device, halos, std::slice::from_ref(settings), Vec::new(), &[run])
}

/// Trains up to `stop`, without what follows the end of a training.
fn advance(trainer: &mut Trainer, stop: u64) {
    while trainer.step() < stop {
        trainer.advance(stop).unwrap();
    }
}

const MODELS: [ModelKind; 4] =
    [ModelKind::Standard, ModelKind::Bottleneck, ModelKind::L1, ModelKind::Kl];

/// Twenty steps of every model on a GPU and on the CPU, with the same receivers, rotations and noise.
#[test]
fn gpu_trains_on_a_graph_like_the_processor() {
    let Some(gpu) = test_gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let halos = halos(folder.path());
    let bf16 = (Simd::detect() >= Simd::Avx512Bf16).then_some((Precision::Bf16, 5e-3));
    for (precision, limit) in [(Precision::F32, 1e-4)].into_iter().chain(bf16) {
        for model in MODELS {
            let settings =
                Settings { prune: false, metrics_every: 20, ..settings(model, precision, 20) };
            let [here, there] = [("cpu", Device::cpu()), ("gpu", gpu)].map(|(name, device)| {
                let run = fresh(&folder.path().join(format!("{model:?}-{precision:?}-{name}")));
                let observer = run.observer(&());
                let mut trainer = start(&device, &halos, &settings, &observer).unwrap();
                advance(&mut trainer, 20);
                trainer.save().unwrap();
                trainer.model(0)
            });
            let what = format!("{model:?}, {precision:?}");
            let exact: Vec<f64> = here.parameters.iter().map(|&w| w.into()).collect();
            let error = relative_error(&there.parameters, &exact);
            assert!(error < limit, "{what}: parameters differ by {error}");
            let losses = |model: &Model| [model.about.train_loss, model.about.validation_loss];
            for (here, there) in losses(&here).into_iter().zip(losses(&there)) {
                let (here, there) = (here.unwrap(), there.unwrap());
                assert!((there / here - 1.0).abs() < limit, "{what}: {here} and {there}");
            }
        }
    }
}

/// Per step only its receivers are copied to the device, and only its loss back: no parameters, gradients or senders.
#[test]
fn gpu_steps_on_a_graph_copy_receivers_and_losses() {
    let Some(Device::Gpu(gpu)) = test_gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let halos = halos(folder.path());
    let device = Device::Gpu(gpu);
    for model in MODELS {
        for precision in [Precision::F32, Precision::Bf16] {
            let settings = Settings { metrics_every: 10, ..settings(model, precision, 100) };
            let run = fresh(&folder.path().join(format!("{model:?}-{precision:?}")));
            let observer = run.observer(&());
            let mut trainer = start(&device, &halos, &settings, &observer).unwrap();
            advance(&mut trainer, 1);
            let before = copied::bytes();
            advance(&mut trainer, 9);
            let after = copied::bytes();
            let [up, down] = [0, 1].map(|way| (after[way] - before[way]) / 8);
            // Number, first edge and first place in the batch of each receiver; in bf16 also the receivers of each
            // block, or, on compute capability 9.0, of each of its eight warps.
            let receivers = 4 * (3 * settings.batch + 1);
            let blocks = 8 * gpu.properties().unwrap().multiprocessors;
            let dealt = if precision == Precision::Bf16 { 4 * (blocks + 1) } else { 0 };
            assert!(
                (receivers..=receivers + dealt).contains(&up),
                "{model:?}, {precision:?}: {up}"
            );
            assert_eq!(down, 2 * size_of::<f64>(), "{model:?}, {precision:?}");
            assert!(up < 4 * trainer.model(0).parameters.len() / 4, "{up}");
        }
    }
}

/// Trains to a stop, saves, and continues in a new trainer: the same files as without a stop.
#[test]
fn gpu_resume_on_a_graph_is_bit_identical() {
    let Some(gpu) = test_gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let halos = halos(folder.path());
    // Between and on rows of metrics; before, between and after pruning decisions.
    for (model, precision, stops) in [
        (ModelKind::L1, Precision::F32, &[3, 23][..]),
        (ModelKind::L1, Precision::Bf16, &[17]),
        (ModelKind::Kl, Precision::F32, &[5]),
        (ModelKind::Kl, Precision::Bf16, &[20]),
        (ModelKind::Bottleneck, Precision::Bf16, &[19]),
        (ModelKind::Standard, Precision::F32, &[39]),
    ] {
        let settings = Settings { metrics_every: 10, ..settings(model, precision, 40) };
        let name = |what: &str| folder.path().join(format!("{model:?}-{precision:?}-{what}"));
        let whole = fresh(&name("whole"));
        train_into(&whole, &gpu, &halos, &settings, false, &()).unwrap();
        for &stop in stops {
            let part = fresh(&name(&stop.to_string()));
            let observer = part.observer(&());
            let mut trainer = start(&gpu, &halos, &settings, &observer).unwrap();
            advance(&mut trainer, stop);
            trainer.save().unwrap();
            // Rows after the checkpoint, as after a kill.
            advance(&mut trainer, (stop + 8).min(settings.steps));
            drop(trainer);
            train_into(&part, &gpu, &halos, &settings, true, &()).unwrap();
            for name in ["model.safetensors", "metrics.csv"] {
                let [a, b] = [&whole, &part].map(|run| std::fs::read(run.file(name)).unwrap());
                assert!(a == b, "{model:?}, {precision:?}: {name} after a stop at step {stop}");
            }
        }
        let left = Model::load(&whole.file("model.safetensors")).unwrap().components.len();
        assert!(model != ModelKind::L1 || left < 6, "the test has to see pruning: {left} left");
    }
}
