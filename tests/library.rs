//! The five calls on data in memory: the same numbers as the files of a run folder, and observers that stop them, go on
//! and do not hear of each other.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use lawsmith::device::Device;
use lawsmith::distill::compose::{Composed, compose_run};
use lawsmith::distill::laws::{self, Found, Search};
use lawsmith::distill::messages::{Wanted, measure};
use lawsmith::distill::run::Compute;
use lawsmith::error::{Kind, Result};
use lawsmith::formula::expression::Expression;
use lawsmith::model::ModelKind;
use lawsmith::nbody::dataset::{About, Arrays, Dataset};
use lawsmith::nbody::simulate::{self, simulate_to};
use lawsmith::network::settings::{Preset, Settings};
use lawsmith::network::tails::Tails;
use lawsmith::network::train::{Checkpoint, train_into};
use lawsmith::observer::{Observer, Progress};
use lawsmith::pipeline;
use lawsmith::random::Random;
use lawsmith::store::run::{IfExists, RunFolder};
use lawsmith::store::table::Table;
use lawsmith::symbolic::front::Select;
use lawsmith::symbolic::options::Options;

fn springs() -> simulate::Settings {
    simulate::Settings { runs: 24, frames: 20, bodies: 3, ..simulate::Settings::default() }
}

/// Data that were not simulated, in the plane.
fn about(runs: usize, frames: usize, bodies: usize) -> About {
    About {
        runs,
        frames,
        bodies,
        dim: 2,
        law: None,
        origin: "a test".into(),
        seed: 0,
        scale: None,
        period: None,
    }
}

fn training(steps: u64) -> Settings {
    let mut settings = Settings::preset(Preset::Quick, ModelKind::Bottleneck, 2, 3);
    (settings.hidden, settings.batch, settings.seed) = (16, 8, 3);
    settings.set_steps(steps);
    settings
}

/// Counts what it is told and keeps what it is offered; stops `label` once it has come to a number of units.
#[derive(Default)]
struct Watcher {
    folder: PathBuf,
    stop: Option<(&'static str, u64)>,
    done: AtomicU64,
    ended: Mutex<Vec<String>>,
    offered: Mutex<Vec<String>>,
}

impl Observer for Watcher {
    fn progress(&self, progress: &Progress) {
        if self.stop.is_some_and(|(label, _)| label == progress.label) {
            self.done.store(progress.done, Ordering::Relaxed);
        }
        if progress.ended {
            self.ended.lock().unwrap().push(format!("{} {}", progress.label, progress.done));
        }
    }

    fn stop(&self) -> bool {
        self.stop.is_some_and(|(_, most)| self.done.load(Ordering::Relaxed) >= most)
    }

    fn keep(&self, name: &str, write: &mut dyn FnMut(&Path) -> Result<()>) -> Result<()> {
        self.offered.lock().unwrap().push(name.to_string());
        if self.folder.as_os_str().is_empty() { Ok(()) } else { write(&self.folder.join(name)) }
    }
}

#[test]
fn memory_and_folders_have_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let read = |path: PathBuf| std::fs::read(path).unwrap();
    let at = Compute { seed: 5, ..Compute::default() };
    let device = &at.device;

    let data = lawsmith::simulate(device, &springs(), &()).unwrap();
    simulate_to(&path("data.safetensors"), device, &springs(), &()).unwrap();
    data.save(&path("saved.safetensors")).unwrap();
    assert!(read(path("data.safetensors")) == read(path("saved.safetensors")), "data sets");
    let mapped = Dataset::open(&path("data.safetensors")).unwrap();

    let run = RunFolder::create(&path("run"), IfExists::default()).unwrap();
    let here = lawsmith::train(device, &data, &training(60), None, &()).unwrap();
    let there = train_into(&run, device, &mapped, &training(60), false, &()).unwrap();
    assert_eq!(here.model.parameters, there.model.parameters);
    assert_eq!(here.test_loss, there.test_loss);

    let found = lawsmith::messages(at, &here.model, &data, Wanted::default()).unwrap();
    let opened = pipeline::open_run(&run).unwrap();
    let summary = measure(at, &opened, Wanted::default(), true).unwrap();
    found.save(&path("messages.safetensors")).unwrap();
    assert!(read(path("messages.safetensors")) == read(run.file("messages.safetensors")));
    assert_eq!(found.summary.test_loss.network, summary.test_loss.network);

    let how = Search { evaluations: 1500, ..Search::default() };
    let summary = laws::regress(at, &opened, how).unwrap();
    // The first of the messages is the first problem of both searches.
    let target = vec!["message".to_string()];
    let options =
        Options { select: Select::Best, evaluations: Some(1500), target, ..Options::default() };
    let fit =
        |k: usize| lawsmith::regress(device, found.table(k), options.clone(), 5, &()).unwrap();
    let law = &summary.components[0].law.as_ref().unwrap().equation;
    assert_eq!(&fit(0).text(0).unwrap(), law);

    let inputs: Vec<&str> = found.kept.inputs.iter().map(String::as_str).collect();
    let parse = |text: &String| Expression::parse(text, &inputs);
    let chosen = summary.components.iter().map(|c| &c.law.as_ref().unwrap().equation);
    let chosen: Vec<Found> = chosen.map(|law| Found::only(parse(law).unwrap())).collect();
    let Composed { formula, judgement, .. } =
        lawsmith::compose(at, &here.model, &data, &found, &chosen, how).unwrap();
    let summary = compose_run(at, &opened, how).unwrap();
    assert_eq!(formula.equations(), summary.formula);
    assert_eq!(judgement.test.map(|test| test.error), summary.test_loss.formula);
}

/// A network that was hardly trained says nothing about accelerations. Under heavy tails φv's laws are those of the data.
#[test]
fn laws_of_nodes_are_of_the_data_where_close_encounters_outweigh_all_else() {
    // With fewer frames the tail is not always seen.
    let (runs, frames, bodies) = (240, 20, 3);
    let mut random = Random::new(7, 0);
    let positions: Vec<f32> =
        (0..runs * frames * bodies * 2).map(|_| (2.0 * random.uniform() - 1.0) as f32).collect();
    let mut accelerations = Vec::new();
    for frame in positions.chunks(2 * bodies) {
        for own in frame.chunks(2) {
            let mut sum = [0.0; 2];
            for other in frame.chunks(2).filter(|other| *other != own) {
                let d = [0, 1].map(|k| f64::from(other[k]) - f64::from(own[k]));
                let r = d[0].hypot(d[1]);
                [0, 1].iter().for_each(|&k| sum[k] += d[k] / r.powi(3));
            }
            accelerations.extend(sum.map(|a| a as f32));
        }
    }
    let mean = accelerations.iter().map(|a| f64::from(a.abs())).sum::<f64>()
        / (accelerations.len() / 2) as f64;
    let arrays = Arrays {
        velocities: vec![0.0; positions.len()],
        positions,
        accelerations,
        masses: vec![1.0; runs * bodies],
        charges: vec![0.0; runs * bodies],
        times: (0..frames).map(|k| k as f64).collect(),
        lengths: vec![],
        counts: vec![],
    };
    let data = Dataset::new(about(runs, frames, bodies), arrays).unwrap();
    assert!(Tails::of(&data).is_some());
    let at = Compute::default();
    let trained = lawsmith::train(&at.device, &data, &training(30), None, &()).unwrap();
    let found = lawsmith::messages(at, &trained.model, &data, Wanted::default()).unwrap();
    let names: Vec<&str> = found.kept.inputs.iter().map(String::as_str).collect();
    let laws = ["dx / r^3", "dy / r^3"].map(|law| Expression::parse(law, &names).unwrap());
    let laws: Vec<Found> = laws.into_iter().map(Found::only).collect();
    let how = Search { evaluations: 3000, ..Search::default() };
    let composed = lawsmith::compose(at, &trained.model, &data, &found, &laws, how).unwrap();
    let [network, formula] =
        [found.summary.test_loss.network.unwrap(), composed.judgement.test.unwrap().error];
    assert!(network > 0.3 * mean, "{network} {mean}");
    assert_eq!(composed.formula.components, found.kept.components(), "nothing was fitted directly");
    let equations = composed.formula.equations();
    assert!(formula < 1e-4 * mean, "{formula} {mean} {equations:?}");
}

#[test]
fn a_training_that_an_observer_stops_goes_on_to_the_same_network() {
    let folder = tempfile::tempdir().unwrap();
    let device = Device::cpu();
    let data = lawsmith::simulate(&device, &springs(), &()).unwrap();
    let whole = lawsmith::train(&device, &data, &training(50), None, &()).unwrap();
    let stopping = Watcher {
        folder: folder.path().to_path_buf(),
        stop: Some(("train", 17)),
        ..Watcher::default()
    };
    let error = lawsmith::train(&device, &data, &training(50), None, &stopping).unwrap_err();
    assert_eq!(error.kind, Kind::Interrupted, "{error}");
    let start = || Checkpoint::load(&folder.path().join("model.safetensors")).unwrap();
    let done = start().model.about.step;
    assert!((17..50).contains(&done), "{done}");

    let other = lawsmith::train(&device, &data, &training(49), Some(start()), &()).unwrap_err();
    assert!(other.message.contains("other settings"), "{other}");
    let rest = Watcher::default();
    let resumed = lawsmith::train(&device, &data, &training(50), Some(start()), &rest).unwrap();
    assert_eq!(resumed.model.parameters, whole.model.parameters);
    assert_eq!(rest.ended.into_inner().unwrap(), ["train 50"]);
    let offered = rest.offered.into_inner().unwrap();
    for name in ["metrics.csv", "model.safetensors", "test.safetensors"] {
        assert!(offered.iter().any(|other| other == name), "{name}: {offered:?}");
    }
    assert!(!folder.path().join("test.safetensors").exists(), "a stop before the test");
    let metrics = std::fs::read_to_string(folder.path().join("metrics.csv")).unwrap();
    assert_eq!(metrics.lines().count() as u64, 1 + done, "a row a step");
}

#[test]
fn simulations_and_searches_stop_by_themselves() {
    let device = Device::cpu();
    let at_once = Watcher { stop: Some(("nothing", 0)), ..Watcher::default() };
    let error = lawsmith::simulate(&device, &springs(), &at_once).map(drop).unwrap_err();
    assert_eq!(error.kind, Kind::Interrupted, "{error}");

    let x: Vec<f64> = (0..60).map(|k| 0.1 * f64::from(k)).collect();
    let y = x.iter().map(|x| (1.3 * x).sin() / (1.0 + x)).collect();
    let names = ["x", "y"].map(String::from).to_vec();
    let table = Table::new(names, vec![x, y]);
    let options =
        Options { target: vec!["y".into()], evaluations: Some(12_000), ..Options::default() };
    let stopping = Watcher { stop: Some(("regress", 3000)), ..Watcher::default() };
    let search = |observer: &dyn Observer| {
        lawsmith::regress(&device, table.clone(), options.clone(), 0, observer).unwrap()
    };
    // Side by side: that one is stopped is nothing to the other.
    let (stopped, whole) = std::thread::scope(|scope| {
        let stopped = scope.spawn(|| search(&stopping));
        let whole = search(&());
        (stopped.join().unwrap(), whole)
    });
    assert!(stopped.outcomes[0].interrupted && !whole.outcomes[0].interrupted);
    assert!(stopped.outcomes[0].evaluations < whole.outcomes[0].evaluations);
    assert!(stopped.law(0).is_some(), "what was found is returned");
    assert_eq!(whole.front(0), search(&()).front(0));
}

#[test]
fn what_makes_no_sense_in_memory_is_named() {
    let arrays = |about: &About| Arrays {
        positions: vec![0.5; about.len()],
        velocities: vec![0.5; about.len()],
        accelerations: vec![0.5; about.len()],
        masses: vec![1.0; about.runs * about.bodies],
        charges: vec![1.0; about.runs * about.bodies],
        times: (0..about.frames).map(|k| k as f64).collect(),
        lengths: vec![],
        counts: vec![],
    };
    let about = |bodies| about(2, 3, bodies);
    let error = |about: About, change: fn(&mut Arrays)| {
        let mut arrays = arrays(&about);
        change(&mut arrays);
        let error = Dataset::new(about, arrays).map(drop).unwrap_err();
        (error.field.clone().unwrap_or_default(), error.to_string())
    };
    assert!(Dataset::new(about(2), arrays(&about(2))).is_ok());
    let (field, text) = error(about(2), |arrays| arrays.masses.truncate(3));
    assert!(field == "masses" && text.contains("has 3 numbers"), "{text}");
    let (field, text) = error(about(2), |arrays| arrays.velocities[13] = f32::NAN);
    assert!(field == "velocities" && text.contains("in run 1"), "{text}");
    assert!(error(about(1), |_| {}).1.contains("fewer than two bodies"));

    let names = ["x", "y"].map(String::from).to_vec();
    let uneven = Table::new(names, vec![vec![1.0; 20], vec![2.0; 19]]);
    let options = Options { target: vec!["y".into()], ..Options::default() };
    let error = |table: Table, options: Options| {
        lawsmith::regress(&Device::cpu(), table, options, 0, &()).map(drop).unwrap_err().to_string()
    };
    assert!(error(uneven.clone(), options).contains("equal length"));
    assert!(error(uneven, Options::default()).contains("target"));
}
