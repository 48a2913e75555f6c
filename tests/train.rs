//! `lawsmith train` through the command line: results, bad input, kill and resume.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use assert_cmd::Command;
use lawsmith::device::Device;
use lawsmith::nbody::simulate::{Settings, simulate_to};
use lawsmith::store::tensors::{TensorFile, TensorSpec, TensorWriter};
use serde_json::Value;

/// A small simulated data set.
fn dataset(folder: &Path) -> PathBuf {
    let path = folder.join("spring.safetensors");
    let settings = Settings { runs: 12, frames: 40, bodies: 3, ..Settings::default() };
    simulate_to(&path, &Device::cpu(), &settings, &()).unwrap();
    path
}

fn lawsmith(arguments: &[&str]) -> Command {
    let mut command = Command::cargo_bin("lawsmith").unwrap();
    command.args(arguments);
    command
}

/// Runs `train DATASET --hidden 16 … --json` and returns the exit code and the document.
fn train(dataset: &Path, output: &Path, more: &[&str]) -> (i32, Value) {
    let mut command = lawsmith(&["train", "--hidden", "16", "--json", "-q"]);
    let done = command.arg(dataset).arg("-o").arg(output).args(more).output().unwrap();
    let text = String::from_utf8(done.stdout).unwrap();
    let document = serde_json::from_str(&text)
        .unwrap_or_else(|e| panic!("stdout is no document ({e}): {text}"));
    (done.status.code().unwrap(), document)
}

#[test]
fn a_precision_that_the_device_lacks_is_an_error_before_anything_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let (data, run) = (dataset(folder.path()), folder.path().join("run"));
    std::fs::create_dir(&run).unwrap();
    std::fs::write(run.join("metrics.csv"), "of an earlier run").unwrap();
    for precision in ["tf32", "bf16x3"] {
        let more = ["--device", "cpu", "--precision", precision, "--overwrite"];
        let (code, document) = train(&data, &run, &more);
        assert_eq!((code, &document["error"]["field"]), (2, &"precision".into()), "{document}");
    }
    assert_eq!(std::fs::read(run.join("metrics.csv")).unwrap(), b"of an earlier run");
}

#[test]
fn train_writes_a_run_folder_and_its_losses() {
    let folder = tempfile::tempdir().unwrap();
    let (data, run) = (dataset(folder.path()), folder.path().join("run"));
    let (code, document) = train(&data, &run, &["--steps", "1000", "--model", "l1"]);
    assert_eq!(code, 0, "{document}");
    assert_eq!(document["steps"], 1000);
    for key in ["seconds", "seconds_per_step", "train_loss", "test_loss"] {
        assert!(document[key].as_f64().unwrap() > 0.0, "{key}: {document}");
    }
    assert!(document["test_data"].as_str().unwrap().contains("seed"), "{document}");
    let metrics = std::fs::read_to_string(run.join("metrics.csv")).unwrap();
    let rows: Vec<Vec<f64>> = metrics
        .lines()
        .skip(1)
        .map(|line| line.split(',').map(|cell| cell.parse().unwrap()).collect())
        .collect();
    assert!(metrics.starts_with("step,learning_rate,train_loss,penalty,validation_loss,messages,"));
    assert!(metrics.lines().next().unwrap().ends_with(",significance_10"));
    assert_eq!(rows.len(), 500);
    assert!(rows[499][4] < 0.9 * rows[0][4], "the validation loss falls: {metrics}");
    let model = TensorFile::open(&run.join("model.safetensors"), "model").unwrap();
    assert!(model.has("edge.weight.0") && model.has("adam.v.node.bias.2"));
    let config = std::fs::read_to_string(run.join("config.toml")).unwrap();
    assert!(config.contains("steps = 1000") && config.contains("spring.safetensors"), "{config}");

    // The folder is taken now.
    let (code, document) = train(&data, &run, &["--steps", "1000", "--model", "l1"]);
    assert_eq!(code, 2);
    assert!(document["error"]["message"].as_str().unwrap().contains("--overwrite"), "{document}");
    let (code, document) = train(&data, &run, &["--steps", "300", "--model", "l1", "--resume"]);
    assert_eq!((code, &document["error"]["field"]), (2, &"steps".into()), "{document}");
    let (code, _) = train(&data, &run, &["--steps", "20", "--overwrite"]);
    assert_eq!(code, 0);
}

#[test]
fn replicas_get_a_folder_each() {
    let folder = tempfile::tempdir().unwrap();
    let (data, run) = (dataset(folder.path()), folder.path().join("run"));
    let more = ["--steps", "20", "--replicas", "2", "--seed", "5"];
    let (code, document) = train(&data, &run, &more);
    assert_eq!(code, 0, "{document}");
    let replicas = document["replicas"].as_array().unwrap();
    assert_eq!(replicas.len(), 2);
    assert_ne!(replicas[0]["train_loss"], replicas[1]["train_loss"]);
    assert!(run.join("seed-5/model.safetensors").exists());
    assert!(run.join("seed-6/metrics.csv").exists());
}

/// kill -9 in the middle, then `--resume`: the files of an undisturbed run, and at least the steps of
/// the last checkpoint were not done again.
#[test]
fn kill_and_resume_is_bit_identical() {
    let folder = tempfile::tempdir().unwrap();
    let (data, whole) = (dataset(folder.path()), folder.path().join("whole"));
    let run = folder.path().join("run");
    let more = ["--steps", "3000", "--model", "l1"];
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin("lawsmith"))
        .args(["train", "--hidden", "16", "-q"])
        .arg(&data)
        .arg("-o")
        .arg(&run)
        .args(more)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    let model = run.join("model.safetensors");
    while !model.exists() {
        assert!(begun.elapsed() < Duration::from_secs(60), "no checkpoint after a minute");
        assert!(child.try_wait().unwrap().is_none(), "the training ended before its checkpoint");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let about: Value = TensorFile::open(&model, "model").unwrap().entry().unwrap();
    let step = about["about"]["step"].as_u64().unwrap();
    assert!(step > 0 && step < 3000, "{step}");
    let (code, document) = train(&data, &run, &[&more[..], &["--resume"]].concat());
    assert_eq!(code, 0, "{document}");
    let (code, _) = train(&data, &whole, &more);
    assert_eq!(code, 0);
    for name in ["model.safetensors", "metrics.csv"] {
        let [a, b] = [&run, &whole].map(|run| std::fs::read(run.join(name)).unwrap());
        assert!(a == b, "{name} after a kill at or after step {step}");
    }
}

/// Steps of the earlier run count as done, and not as fast.
#[test]
fn the_rate_after_a_resume_counts_from_the_resume() {
    let folder = tempfile::tempdir().unwrap();
    let (data, run) = (dataset(folder.path()), folder.path().join("run"));
    let arguments = ["train", "--hidden", "16", "--steps", "300"];
    let progress = |more: &[&str]| {
        let mut command = lawsmith(&[&arguments[..], more].concat());
        let output = command.arg(&data).arg("-o").arg(&run).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        text.lines().rfind(|line| line.starts_with("train: 300/300")).unwrap().to_string()
    };
    assert!(!progress(&[]).contains(" 0/s"));
    let again = progress(&["--resume"]);
    assert!(again.starts_with("train: 300/300 steps, 0/s"), "{again}");
}

/// Ctrl-C: saved, exit code 130, `--resume` goes on.
#[cfg(unix)]
#[test]
fn interrupt_saves_and_exits_130() {
    let folder = tempfile::tempdir().unwrap();
    let (data, run) = (dataset(folder.path()), folder.path().join("run"));
    let child = std::process::Command::new(assert_cmd::cargo::cargo_bin("lawsmith"))
        .args(["train", "--hidden", "16", "--steps", "10000000"])
        .arg(&data)
        .arg("-o")
        .arg(&run)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while !run.join("metrics.csv").exists() {
        assert!(begun.elapsed() < Duration::from_secs(60), "the training did not start");
        std::thread::sleep(Duration::from_millis(2));
    }
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let done = child.wait_with_output().unwrap();
    let text = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(130), "{text}");
    assert!(text.contains("--resume"), "{text}");
    assert!(run.join("model.safetensors").exists());
}

/// Each bad data set is one clear error that names the file, before anything is written.
#[test]
fn bad_data_sets_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let good = dataset(folder.path());
    let bad = folder.path().join("bad.safetensors");
    let output = folder.path().join("run");
    let check = |field: Option<&str>, words: &str| {
        let (code, document) = train(&bad, &output, &["--steps", "5"]);
        let error = &document["error"];
        assert_eq!(code, 1, "{document}");
        assert!(error["file"].as_str().unwrap().ends_with("bad.safetensors"), "{document}");
        assert_eq!(error["field"].as_str(), field, "{document}");
        assert!(error["message"].as_str().unwrap().contains(words), "{document}");
        assert!(!output.exists(), "nothing is written");
    };
    check(None, "no such file");
    std::fs::write(&bad, "").unwrap();
    check(None, "empty");
    let bytes = std::fs::read(&good).unwrap();
    std::fs::write(&bad, &bytes[..bytes.len() - 10]).unwrap();
    check(None, "truncated");
    std::fs::write(&bad, "run,time,body,x,y\n").unwrap();
    check(None, "safetensors");
    let mut nan = bytes.clone();
    let end = nan.len();
    nan[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&bad, &nan).unwrap();
    let last = last_tensor(&good);
    check(Some(&last), "NaN");
    let specs = [TensorSpec::f32("x", &[3])];
    let entry = serde_json::json!({});
    TensorWriter::create(&bad, "catalog", entry.clone(), &specs).unwrap().finish().unwrap();
    check(None, "is a catalog file");
    TensorWriter::create(&bad, "graph", entry, &specs).unwrap().finish().unwrap();
    check(Some("lawsmith"), "nodes");
}

/// The tensor whose values end the file.
fn last_tensor(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let tensors = header.as_object().unwrap().iter().filter(|(name, _)| *name != "__metadata__");
    tensors.max_by_key(|(_, t)| t["data_offsets"][1].as_u64()).unwrap().0.clone()
}

#[test]
fn settings_that_make_no_sense_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let data = dataset(folder.path());
    let output = folder.path().join("run");
    for (option, value, field) in [("--steps", "0", "steps"), ("--peak-rate", "-1", "peak_rate")] {
        let (code, document) = train(&data, &output, &[&format!("{option}={value}")]);
        assert_eq!((code, document["error"]["field"].as_str()), (2, Some(field)), "{document}");
        assert!(!output.exists());
    }
}
