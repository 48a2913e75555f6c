//! `lawsmith simulate` through the command line.

use std::path::Path;

use assert_cmd::Command;
use lawsmith::law::{Body, Law};
use lawsmith::nbody::dataset::Dataset;
use serde_json::Value;

fn simulate(output: &Path, arguments: &str) -> std::process::Output {
    let mut command = Command::cargo_bin("lawsmith").unwrap();
    command.args(["simulate", "--json", "-q", "-o"]).arg(output);
    // Arguments are separated by blanks; `_` stands for a blank inside one.
    command.args(arguments.split_whitespace().map(|a| a.replace('_', " ")));
    command.output().unwrap()
}

fn document(output: &std::process::Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

fn error(output: &std::process::Output) -> String {
    let error = document(output)["error"].clone();
    let code = if error["kind"] == "usage" { 2 } else { 1 };
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    error["message"].as_str().unwrap().to_string()
}

/// The stored accelerations are the law's at the stored positions and velocities.
fn accelerations_fit(data: &Dataset) {
    let about = &data.about;
    let (bodies, dim) = (about.bodies, about.dim);
    let law = about.law.clone().unwrap();
    for run in 0..about.runs {
        for frame in [0, about.frames / 2, about.frames - 1] {
            let mut features = Vec::new();
            data.features(run, frame, &mut features);
            let body = |b: usize| {
                let f = &features[b * about.n_features()..];
                let part = |at: usize| {
                    std::array::from_fn(|d| if d < dim { f64::from(f[at + d]) } else { 0.0 })
                };
                let (charge, mass) = (f64::from(f[2 * dim]), f64::from(f[2 * dim + 1]));
                Body { position: part(0), velocity: part(dim), charge, mass }
            };
            let targets = data.targets(run, frame);
            for i in 0..bodies {
                let mut force = [0.0; 3];
                let mut size = 1.0;
                for j in (0..bodies).filter(|&j| j != i) {
                    for (sum, f) in force.iter_mut().zip(law.force(&body(i), &body(j), bodies)) {
                        *sum += f;
                        // Rounding of positions to f32, amplified where bodies are close.
                        let close = (0..dim)
                            .map(|d| (body(i).position[d] - body(j).position[d]).powi(2))
                            .sum::<f64>();
                        size += f.abs() * (1.0 + 10.0 / close.sqrt());
                    }
                }
                for d in 0..dim {
                    let expected = force[d] / body(i).mass;
                    let error = (f64::from(targets[i * dim + d]) - expected).abs();
                    let limit = 1e-5 * size / body(i).mass;
                    assert!(error < limit, "{law:?} run {run} frame {frame}: {error:e} {limit:e}");
                }
            }
        }
    }
}

#[test]
fn every_law_makes_a_whole_dataset() {
    let folder = tempfile::tempdir().unwrap();
    for law in Law::ALL {
        for (dim, bodies, integrator) in [(2, 4, "adaptive"), (3, 5, "rk4")] {
            let path = folder.path().join("data.safetensors");
            let text = format!(
                "--law {} --dim {dim} --bodies {bodies} --runs 9 --frames 30 --overwrite \
                 --integrator {integrator} --substeps 4 --seed 5",
                law.name()
            );
            let output = simulate(&path, &text);
            assert!(output.status.success(), "{output:?}");
            let document = document(&output);
            assert_eq!(document["runs"], 9);
            assert_eq!(document["frames"], 30);
            assert_eq!(document["bodies"], bodies);
            assert_eq!(document["dim"], dim);
            assert!(document["seconds"].as_f64().unwrap() > 0.0);
            assert!(document["body_steps_per_second"].as_f64().unwrap() > 0.0);
            let drift = document["energy_drift"]["median"].as_f64();
            assert_eq!(drift.is_some(), law.conserves_energy(), "{document}");
            assert!(drift.unwrap_or(0.0) < 1e-4, "{law:?}: {document}");
            let data = Dataset::open(&path).unwrap();
            assert_eq!(data.about.law.as_ref(), Some(&law));
            assert_eq!(data.times()[29], 29.0 * law.default_dt().unwrap());
            accelerations_fit(&data);
            assert!(data.masses().iter().all(|m| *m > 0.0));
            assert!(data.charges().iter().all(|q| q.abs() == 1.0));
        }
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");
}

/// Components of r and v are N(0, 1), masses exp N(0, 1), charges fair coins.
#[test]
fn initial_states_have_the_stated_distributions() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.safetensors");
    assert!(simulate(&path, "--runs 5000 --frames 1").status.success());
    let data = Dataset::open(&path).unwrap();
    let moments = |values: &mut dyn Iterator<Item = f64>| {
        let (mut count, mut mean, mut square) = (0.0, 0.0, 0.0);
        for v in values {
            count += 1.0;
            mean += v;
            square += v * v;
        }
        (mean / count, square / count)
    };
    let numbers = |values: &[f32]| values.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
    let logarithms = numbers(data.masses()).into_iter().map(f64::ln).collect();
    for values in [numbers(data.positions()), numbers(data.velocities()), logarithms] {
        let five_sigma = 5.0 / (values.len() as f64).sqrt();
        let (mean, square) = moments(&mut values.into_iter());
        assert!(mean.abs() < five_sigma, "{mean}");
        assert!((square - 1.0).abs() < 1.5 * five_sigma, "{square}");
    }
    let (mean, _) = moments(&mut numbers(data.charges()).into_iter());
    assert!(mean.abs() < 5.0 / 20_000f64.sqrt(), "{mean}");
}

#[test]
fn same_seed_same_bytes_on_any_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = |name: &str, arguments: &str| {
        let path = folder.path().join(name);
        let output = simulate(&path, &format!("--runs 300 --frames 50 {arguments}"));
        assert!(output.status.success(), "{output:?}");
        std::fs::read(path).unwrap()
    };
    for integrator in ["adaptive", "rk4"] {
        let of = |threads, seed| {
            let text = format!("--integrator {integrator} --threads {threads} --seed {seed}");
            bytes(&format!("{integrator}{threads}{seed}"), &text)
        };
        let one = of(1, 7);
        assert!(one == of(2, 7), "{integrator}");
        assert!(one != of(1, 8), "{integrator}");
    }
}

#[test]
fn potential_of_ones_own() {
    let folder = tempfile::tempdir().unwrap();
    let [own, spring] = ["own", "spring"].map(|name| folder.path().join(name));
    let common = "--runs 20 --frames 20 --dt 0.01";
    let output = simulate(&own, &format!("{common} --potential (r-1)^2"));
    assert!(output.status.success(), "{output:?}");
    assert!(document(&output)["energy_drift"]["median"].as_f64().unwrap() < 1e-6);
    assert!(simulate(&spring, common).status.success());
    let [own, spring] = [own, spring].map(|path| Dataset::open(&path).unwrap());
    for (a, b) in own.accelerations().iter().zip(spring.accelerations()) {
        assert!((a - b).abs() < 1e-4 * (1.0 + b.abs()), "{a} {b}");
    }
    accelerations_fit(&own);
    for text in ["m1*m2*log(r)", "q1*q2*exp(-r)/r", "-m1*m2*r^-1.5"] {
        let path = folder.path().join("more");
        let arguments = format!("--runs 9 --frames 9 --dt 0.001 --overwrite --potential={text}");
        let output = simulate(&path, &arguments);
        assert!(output.status.success(), "{output:?}");
        accelerations_fit(&Dataset::open(&path).unwrap());
    }
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.safetensors");
    for (arguments, expected) in [
        ("--law sprin", "inverse-square"),
        ("--dim 4", "2 or 3"),
        ("--bodies 1", "2 to 64"),
        ("--bodies 65", "2 to 64"),
        ("--runs 0", "run"),
        ("--frames 0", "frame"),
        ("--dt 0", "time"),
        ("--dt nan", "time"),
        ("--substeps 0 --integrator rk4", "step"),
        ("--potential r^2", "time between frames"),
        ("--dt 0.01 --potential r^", "r^"),
        ("--dt 0.01 --potential m1*m3", "m3"),
        ("--dt 0.01 --potential m1*m2", "depend on r"),
        ("--dt 0.01 --runs 50 --potential log(r-1)", "not a number"),
        ("--dt 0.01 --runs 50 --potential m1*(r-1)^1.5", "cannot be followed"),
        ("--device cuda:0", "--device cpu"),
    ] {
        let message = error(&simulate(&path, arguments));
        assert!(message.contains(expected), "{arguments}: {message}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{arguments}");
    }
    std::fs::write(&path, "precious").unwrap();
    assert!(error(&simulate(&path, "--runs 2 --frames 2")).contains("--overwrite"));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

/// Ctrl-C: exit code 130 and no file.
#[cfg(unix)]
#[test]
fn an_interrupt_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.safetensors");
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin("lawsmith"))
        .args(["simulate", "-q", "--frames", "20000", "--runs", "40", "--bodies", "64"])
        .args(["--integrator", "rk4", "--substeps", "50", "-o"])
        .arg(&path)
        .spawn()
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(700));
    // SAFETY: a signal to a child of this test that has not been waited for.
    unsafe { libc::kill(child.id() as i32, libc::SIGINT) };
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// What a kill leaves of a file goes with the next run into the same file; what another process is still
/// writing stays.
#[cfg(unix)]
#[test]
fn what_a_kill_leaves_is_tidied() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.safetensors");
    let temporary = || -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(folder.path()).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.file_name() != Some("data.safetensors".as_ref())).collect()
    };
    let start = |count: usize| {
        let child = std::process::Command::new(assert_cmd::cargo::cargo_bin("lawsmith"))
            .args(["simulate", "-q", "--frames", "20000", "--runs", "40", "--bodies", "64"])
            .args(["--integrator", "rk4", "--substeps", "50", "-o"])
            .arg(&path)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        while temporary().len() < count {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        // Between its creation and its lock.
        std::thread::sleep(std::time::Duration::from_millis(50));
        child
    };
    let (mut killed, mut alive) = (start(1), start(2));
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_eq!(temporary().len(), 2);
    let output = simulate(&path, "--runs 2 --frames 2");
    assert!(output.status.success(), "{output:?}");
    let left = temporary();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0].to_str().unwrap().ends_with(&format!(".tmp{}", alive.id())), "{left:?}");
    alive.kill().unwrap();
    alive.wait().unwrap();
    assert!(simulate(&path, "--runs 2 --frames 2 --overwrite").status.success());
    assert!(temporary().is_empty() && path.exists());
}
