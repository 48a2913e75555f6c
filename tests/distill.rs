//! From a system to its law through the command line, in small: every stage as a command of its own,
//! `distill` as one, an interrupt, and errors.

use std::cell::Cell;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use lawsmith::formula::expression::Expression;
use lawsmith::store::tensors::TensorFile;
use serde_json::Value;

fn lawsmith(arguments: &[&str]) -> Output {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("lawsmith"));
    command.args(arguments).args(["--json", "-q"]).output().unwrap()
}

fn document(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stdout)))
}

fn succeed(arguments: &[&str]) -> Value {
    let output = lawsmith(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    document(&output)
}

fn error(arguments: &[&str]) -> Value {
    let output = lawsmith(arguments);
    let error = document(&output)["error"].clone();
    let code = if error["kind"] == "usage" { 2 } else { 1 };
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
    error
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// 3000 steps bring the messages of a bottleneck close to linear maps of the force; the law need not
/// be found for the files and the documents to be right.
#[test]
fn every_stage_as_a_command_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let (data, run) = (folder.path().join("spring.safetensors"), folder.path().join("run"));
    let (data, run) = (text(&data), text(&run));
    succeed(&["simulate", "--runs", "200", "--frames", "100", "-o", data]);
    succeed(&[
        "train",
        data,
        "--model",
        "bottleneck",
        "--steps",
        "3000",
        "--hidden",
        "32",
        "-o",
        run,
    ]);

    let messages = succeed(&["messages", run]);
    let components = messages["components"].as_array().unwrap();
    assert_eq!(components.len(), 2, "as many as dimensions");
    for component in components {
        let (plain, trimmed) = (&component["force_r2"], &component["force_r2_trimmed"]);
        assert!(trimmed.as_f64().unwrap() > 0.5, "{component}");
        assert!(trimmed.as_f64().unwrap() >= plain.as_f64().unwrap() - 0.05, "{component}");
        assert!(component["law"].is_null(), "no law is known yet");
    }
    let order: Vec<f64> = components.iter().map(|c| c["significance"].as_f64().unwrap()).collect();
    assert!(order[0] >= order[1]);
    assert!(messages["test_loss"]["network"].as_f64().unwrap() > 0.0);

    let e = error(&["compose", run]);
    assert!(e["message"].as_str().unwrap().contains("lawsmith regress"), "{e}");

    let laws = succeed(&["regress", run, "--evaluations", "20000"]);
    for component in laws["components"].as_array().unwrap() {
        assert!(component["law"]["equation"].is_string(), "{component}");
        assert!(component["law"]["latex"].is_string() && component["law"]["loss"].is_number());
        assert!(component["recovered"].is_boolean());
    }

    let composed = succeed(&["compose", run, "--evaluations", "20000"]);
    assert!(composed["test_loss"]["formula"].as_f64().unwrap() > 0.0);
    let entries: Vec<Value> =
        serde_json::from_str(&std::fs::read_to_string(format!("{run}/laws.json")).unwrap())
            .unwrap();
    let count = |stage: &str| entries.iter().filter(|law| law["stage"] == stage).count();
    assert_eq!((count("message"), count("node"), count("composed")), (2, 2, 4));

    let predicted = succeed(&["predict", run, "--rollout", "--frames", "20", "--runs", "2"]);
    assert!(predicted["test_loss"]["formula"].is_number(), "{predicted}");
    assert!(predicted["rollout"]["formula"]["median_error"].is_array(), "{predicted}");
    succeed(&["report", run]);
    let report = std::fs::read_to_string(format!("{run}/report.html")).unwrap();
    for law in &entries {
        assert!(!law["equation"].as_str().unwrap().is_empty());
    }
    assert!(report.contains("<svg") && report.contains("formula"));
}

/// Whatever a network says that has hardly been trained: f(m, q, r) is the same in both laws.
#[test]
fn messages_of_a_run_share_one_factor_under_joint() {
    let folder = tempfile::tempdir().unwrap();
    let (data, run) = (folder.path().join("data.safetensors"), folder.path().join("run"));
    let (data, run) = (text(&data), text(&run));
    succeed(&["simulate", "--runs", "20", "--frames", "20", "-o", data]);
    let training = ["--model", "bottleneck", "--steps", "20", "--hidden", "16"];
    succeed(&[&["train", data, "-o", run], &training[..]].concat());
    succeed(&["messages", run]);
    let found = succeed(&["regress", run, "--joint", "dx,dy", "--evaluations", "1000"]);
    let names = "m1 m2 q1 q2 dx dy r vx1 vy1 vx2 vy2";
    let names: Vec<&str> = names.split(' ').collect();
    let laws: Vec<Expression> = found["components"]
        .as_array()
        .unwrap()
        .iter()
        .map(|component| component["law"]["equation"].as_str().unwrap())
        .map(|law| Expression::parse(law, &names).unwrap())
        .collect();
    assert_eq!(laws.len(), 2);
    // Without the offset the laws are in the same ratio wherever dx : dy is the same.
    let ratio = |m1: f64, q2: f64, r: f64, size: f64| {
        let at = |law: &Expression, size: f64| {
            law.eval(&[m1, 0.7, 1.0, q2, 0.6 * size, -0.8 * size, r, 0.1, -0.2, 0.3, 0.4])
        };
        let along = |law: &Expression| at(law, size) - at(law, 0.0);
        along(&laws[0]) / along(&laws[1])
    };
    let expected = ratio(1.0, 1.0, 1.0, 1.0);
    for (m1, q2, r, size) in [(2.5, 1.0, 1.0, 1.0), (1.0, -1.0, 2.0, 1.0), (0.4, 1.0, 0.6, 3.0)] {
        let here = ratio(m1, q2, r, size);
        assert!((here / expected - 1.0).abs() < 1e-3, "{here} {expected} {laws:?}");
    }
    let laws = || std::fs::read(format!("{run}/laws.json")).unwrap();
    let before = laws();
    let e = error(&["regress", run, "--joint", "dx,dz"]);
    assert!(e["message"].as_str().unwrap().contains("'dz'"), "{e}");
    assert!(laws() == before, "the error comes before anything is removed");
    // What is there goes on only as what it is.
    let again = |more: &[&str]| {
        succeed(&[&["regress", run, "--evaluations", "1000", "--resume"], more].concat());
        laws()
    };
    assert!(again(&["--joint", "dx,dy"]) == before);
    assert!(again(&["--joint", "vx1,vy1"]) != before, "another vector");
    assert!(again(&[]) != before, "no vector");
    assert!(again(&["--joint", "dx,dy"]) == before);
    succeed(&["compose", run, "--evaluations", "400"]);
}

#[test]
fn distill_resumes_where_it_was_killed_and_ends_in_the_same_files() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
    let arguments = |run: &Path| -> Vec<String> {
        let settings =
            "distill --runs 100 --frames 50 --steps 4000 --hidden 32 --evaluations 10000 -o";
        settings.split(' ').map(String::from).chain([text(run).to_string()]).collect()
    };
    fn borrowed(arguments: &[String]) -> Vec<&str> {
        arguments.iter().map(String::as_str).collect()
    }
    let summary = succeed(&borrowed(&arguments(&whole)));
    for key in ["simulate", "train", "regress", "total"] {
        assert!(summary["seconds"][key].as_f64().unwrap() > 0.0, "{key}");
    }
    assert!(summary["test_loss"]["network"].is_number() && summary["components"].is_array());

    // Killed as soon as the first checkpoint is there.
    let mut child = Command::new(assert_cmd::cargo::cargo_bin!("lawsmith"))
        .args(arguments(&killed))
        .arg("-q")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    while !killed.join("model.safetensors").exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();

    let again = arguments(&killed);
    let e = error(&borrowed(&again));
    assert!(e["message"].as_str().unwrap().contains("--resume"), "{e}");
    let mut resumed = borrowed(&again);
    resumed.push("--resume");
    succeed(&resumed);
    for name in ["metrics.csv", "laws.json", "hall_of_fame.csv"] {
        let read = |run: &Path| std::fs::read_to_string(run.join(name)).unwrap();
        assert_eq!(read(&whole), read(&killed), "{name}");
    }
    let mut other = resumed.clone();
    other.extend(["--model", "kl"]);
    let e = error(&other);
    assert!(e["message"].as_str().unwrap().contains("other settings"), "{e}");
}

/// The searches remember where they are: whenever they are interrupted, the run ends in the files of one that
/// was not.
#[test]
fn distill_ends_in_the_same_files_whenever_it_is_interrupted() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    let settings = "distill --bodies 6 --runs 40 --frames 40 --steps 300 --hidden 32 --evaluations 60000 \
                    --resume -o";
    let arguments = |run| settings.split_whitespace().chain([run]).collect::<Vec<&str>>();
    succeed(&arguments(text(&whole)));

    let arguments = arguments(text(&parts));
    let exists = |name: &str| parts.join(name).exists();
    let read = |name: &str| std::fs::read_to_string(parts.join(name)).unwrap_or_default();
    // In the training; then among the messages' formulas, at once and after a while; then among φv's.
    interrupted(&arguments, || exists("metrics.csv"));
    interrupted(&arguments, || exists("hall_of_fame.csv"));
    let since = Cell::new(None);
    interrupted(&arguments, || {
        let memory = read("memory.json");
        let first = since.take().unwrap_or(memory.clone());
        let later = memory != first;
        since.set(Some(first));
        later
    });
    assert!(!read("laws.json").contains("equation"), "the search of the messages has not ended");
    interrupted(&arguments, || exists("memory_nodes.json"));
    interrupted(&arguments, || read("hall_of_fame.csv").contains("\nax,"));
    assert!(!read("laws.json").contains("\"node\""), "the search of φv has not ended");
    succeed(&arguments);
    for name in [
        "dataset.safetensors",
        "model.safetensors",
        "metrics.csv",
        "messages.safetensors",
        "laws.json",
        "hall_of_fame.csv",
        "rollout.safetensors",
    ] {
        // A model names its data set, which is in the folder of its run.
        let read = |run: &Path| {
            let bytes = std::fs::read(run.join(name)).unwrap();
            let text: String = bytes.iter().map(|&byte| char::from(byte)).collect();
            text.replace(&*run.to_string_lossy(), "RUN")
        };
        assert!(read(&whole) == read(&parts), "{name} differs");
    }
    // What has ended is as it was when the same command is given again.
    let laws = read("laws.json");
    succeed(&arguments);
    assert_eq!(read("laws.json"), laws);
}

/// `distill` takes what `train` takes, keeps it, and asks for the same again.
#[test]
fn distill_takes_the_settings_of_a_training() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let settings = "distill --runs 20 --frames 20 --steps 30 --evaluations 1000 --hidden 24 --layers 1 \
                    --peak-rate 0.004 -o";
    let arguments: Vec<&str> = settings.split_whitespace().chain([text(&run)]).collect();
    succeed(&arguments);
    let config = std::fs::read_to_string(run.join("config.toml")).unwrap();
    let config: toml::Table = config.parse().unwrap();
    for table in ["distill", "train"] {
        let value = |key: &str| config[table][key].clone();
        assert_eq!(value("hidden").as_integer(), Some(24), "{table}");
        assert_eq!(value("layers").as_integer(), Some(1), "{table}");
        assert_eq!(value("peak_rate").as_float(), Some(0.004), "{table}");
    }
    let model = TensorFile::open(&run.join("model.safetensors"), "model").unwrap();
    assert!(model.f32("edge.weight.1", &[2, 24]).is_ok(), "one hidden layer of 24 units");
    succeed(&[&arguments[..], &["--resume"]].concat());
    for (flag, value) in [("--hidden", "25"), ("--layers", "2"), ("--peak-rate", "0.005")] {
        let mut other = arguments.clone();
        let at = other.iter().position(|a| *a == flag).unwrap();
        other[at + 1] = value;
        other.push("--resume");
        let e = error(&other);
        assert!(e["message"].as_str().unwrap().contains("other settings"), "{flag}: {e}");
    }
}

/// Ctrl-C as soon as `ready`: exit code 130; returns the sentence that says how to go on.
fn interrupted(arguments: &[&str], ready: impl Fn() -> bool) -> String {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("lawsmith"));
    command.args(arguments).args(["--json", "-q"]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    // Where a file of the run before is all that is waited for, the handler may not be there yet.
    let handles = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()));
        let status = status.unwrap_or_default();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        caught.is_some_and(|mask| mask >> (libc::SIGINT - 1) & 1 == 1)
    };
    while !handles() {
        std::thread::sleep(Duration::from_millis(1));
    }
    while !ready() {
        assert!(child.try_wait().unwrap().is_none(), "the run ended before it was interrupted");
        std::thread::sleep(Duration::from_millis(1));
    }
    // SAFETY: a signal to a child of this test that has not been waited for.
    unsafe { libc::kill(child.id() as i32, libc::SIGINT) };
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    let error = document(&output)["error"].clone();
    assert_eq!(error["kind"], "interrupted");
    error["message"].as_str().unwrap().to_string()
}

#[test]
fn distill_goes_on_after_ctrl_c_in_the_search_and_in_the_refit() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let settings =
        "distill --bodies 6 --runs 40 --frames 40 --steps 500 --evaluations 30000 --resume -o";
    let arguments: Vec<&str> = settings.split(' ').chain([text(&run)]).collect();
    let laws = |stages: &[&str]| -> Vec<Value> {
        let text = std::fs::read_to_string(run.join("laws.json")).unwrap_or("[]".into());
        let mut laws: Vec<Value> = serde_json::from_str(&text).unwrap();
        laws.retain(|law| stages.contains(&law["stage"].as_str().unwrap()));
        laws
    };

    let message = interrupted(&arguments, || run.join("hall_of_fame.csv").exists());
    assert!(message.contains("--resume continues from there"), "{message}");
    assert!(laws(&["message"]).is_empty(), "a search that was broken off has no laws yet");

    let message = interrupted(&arguments, || laws(&["node"]).len() == 2);
    assert!(message.contains("while refitting the constants"), "{message}");
    assert!(message.contains("--resume continues from there"), "{message}");
    let found = laws(&["message", "node"]);
    assert_eq!((found.len(), laws(&["composed"]).len()), (4, 0));

    let summary = succeed(&arguments);
    assert!(summary["test_loss"]["formula"].as_f64().unwrap() > 0.0);
    assert_eq!(laws(&["message", "node"]), found, "what had been found was searched again");
    assert_eq!(laws(&["composed"]).len(), 4);
}

#[test]
fn errors_come_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let run_text = text(&run);
    let cases: [(&[&str], &str); 5] = [
        (&["distill", "--law", "gravity"], "gravity"),
        (&["distill", "--potential", "r^", "--dt", "0.01"], "potential"),
        (&["distill", "--potential", "m1*m2", "--dt", "0.01"], "does not depend on r"),
        (&["distill", "--bodies", "1"], "bodies"),
        (&["distill", "missing.safetensors"], "missing.safetensors"),
    ];
    for (arguments, expected) in cases {
        let e = error(&[arguments, &["-o", run_text]].concat());
        assert!(e["message"].as_str().unwrap().contains(expected), "{arguments:?}: {e}");
        assert!(!run.exists(), "{arguments:?} left a folder");
    }
    let e = error(&["messages", run_text]);
    assert!(e["message"].as_str().unwrap().contains("no such run folder"), "{e}");
}
