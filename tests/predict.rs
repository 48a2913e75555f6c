//! `lawsmith predict` and `lawsmith bench` through the command line.

use std::path::{Path, PathBuf};
use std::process::Command;

use lawsmith::device::Device;
use lawsmith::nbody::rollout::Rollouts;
use lawsmith::nbody::simulate::{Settings, simulate_to};
use lawsmith::store::tensors::TensorFile;
use serde_json::Value;

/// Runs the program with `--json` and returns the exit code and the document.
fn lawsmith(arguments: &[&str]) -> (i32, Value) {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("lawsmith"));
    let output = command.args(arguments).args(["--json", "-q"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let document = serde_json::from_str(&text)
        .unwrap_or_else(|e| panic!("stdout is no document ({e}): {text}"));
    (output.status.code().unwrap(), document)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn dataset(path: PathBuf, seed: u64, dim: usize) -> PathBuf {
    let settings = Settings { runs: 12, frames: 40, bodies: 3, dim, seed, ..Settings::default() };
    simulate_to(&path, &Device::cpu(), &settings, &()).unwrap();
    path
}

#[test]
fn predict_rolls_out_a_trained_network() {
    let folder = tempfile::tempdir().unwrap();
    let data = dataset(folder.path().join("data.safetensors"), 0, 2);
    let run = folder.path().join("run");
    let train = ["train", text(&data), "-o", text(&run), "--steps", "600", "--hidden", "16"];
    assert_eq!(lawsmith(&train).0, 0);

    // Without a data set: the test data of the folder, or the validation runs, a quarter.
    let (code, tested) = lawsmith(&["predict", text(&run)]);
    let test = run.join("test.safetensors");
    assert_eq!((code, tested["data"].as_str()), (0, test.to_str()), "{tested}");
    std::fs::remove_file(test).unwrap();
    let (code, known) = lawsmith(&["predict", text(&run)]);
    assert_eq!((code, &known["runs"]), (0, &Value::from(3)), "{known}");
    let loss = known["test_loss"]["network"].as_f64().unwrap();
    assert!(loss > 0.0 && loss.is_finite());
    assert!(known.get("rollout").is_none() && !run.join("rollout.safetensors").exists());

    let fresh = dataset(folder.path().join("fresh.safetensors"), 1, 2);
    let more = ["--data", text(&fresh), "--rollout", "--frames", "20", "--runs", "5"];
    let (code, found) = lawsmith(&[&["predict", text(&run)], &more[..]].concat());
    assert_eq!((code, &found["runs"]), (0, &Value::from(12)), "{found}");
    let errors = found["rollout"]["network"]["median_error"].as_array().unwrap();
    assert_eq!((errors.len(), errors[0].as_f64()), (20, Some(0.0)), "{found}");
    assert!(errors[19].as_f64().unwrap() > 0.0, "{found}");
    let rollouts = Rollouts::open(&run.join("rollout.safetensors")).unwrap();
    assert_eq!(rollouts.about.runs, [0, 1, 2, 3, 4]);
    assert_eq!(rollouts.positions[0].len(), 5 * 20 * 3 * 2);

    // The report shows them.
    assert_eq!(lawsmith(&["report", text(&run)]).0, 0);
    let page = std::fs::read_to_string(run.join("report.html")).unwrap();
    assert!(
        page.contains("<section id=\"trajectories\">") && page.contains("<section id=\"loss\">")
    );
}

#[test]
fn predict_says_what_is_missing_or_does_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let data = dataset(folder.path().join("data.safetensors"), 0, 2);
    let run = folder.path().join("run");
    let error = |arguments: &[&str], file: &str| {
        let (code, document) = lawsmith(arguments);
        let error = &document["error"];
        assert_eq!(code, if error["kind"] == "usage" { 2 } else { 1 }, "{document}");
        assert!(error["file"].as_str().unwrap_or("").ends_with(file), "{document}");
        error["message"].as_str().unwrap().to_string()
    };
    error(&["predict", text(&run)], "run");
    std::fs::create_dir(&run).unwrap();
    error(&["predict", text(&run)], "model.safetensors");
    let train = ["train", text(&data), "-o", text(&run), "--steps", "50", "--hidden", "8"];
    assert_eq!(lawsmith(&[&train[..], &["--overwrite"]].concat()).0, 0);

    let space = dataset(folder.path().join("space.safetensors"), 0, 3);
    let message = error(&["predict", text(&run), "--data", text(&space)], "space.safetensors");
    assert!(message.contains("3 dimensions"), "{message}");
    error(
        &["predict", text(&run), "--data", text(&run.join("model.safetensors"))],
        "model.safetensors",
    );
    let (code, zero) = lawsmith(&["predict", text(&run), "--rollout", "--runs", "0"]);
    assert_eq!((code, &zero["error"]["field"]), (2, &Value::from("runs")), "{zero}");

    // A NaN in the data, in the third run.
    let poisoned = folder.path().join("nan.safetensors");
    let mut bytes = std::fs::read(&data).unwrap();
    let file = TensorFile::open(&data, "dataset").unwrap();
    let values = file.f32("velocities", &[12, 40, 3, 2]).unwrap();
    let place = values[2 * 240].to_le_bytes();
    let from = bytes.len() - 4 * 3 * values.len();
    let at = (from..bytes.len() - 4).find(|&at| bytes[at..at + 4] == place).unwrap();
    bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&poisoned, bytes).unwrap();
    let message = error(&["predict", text(&run), "--data", text(&poisoned)], "nan.safetensors");
    assert!(message.contains("NaN") && message.contains("run 2"), "{message}");

    // Nobody knows what to predict once the data are gone.
    drop(file);
    std::fs::remove_file(&data).unwrap();
    std::fs::remove_file(run.join("test.safetensors")).unwrap();
    let message = error(&["predict", text(&run)], "run");
    assert!(message.contains("--data"), "{message}");
}

#[test]
fn bench_measures_one_operation() {
    let (code, document) = lawsmith(&["bench", "adam"]);
    assert_eq!(code, 0, "{document}");
    let measured = document.as_array().unwrap();
    assert!(!measured.is_empty());
    for row in measured {
        assert_eq!(row["op"], "adam");
        let of = |key: &str| row[key].as_f64().unwrap_or_else(|| panic!("{key}: {row}"));
        assert!(0.0 < of("seconds_min") && of("seconds_min") <= of("seconds"), "{row}");
        assert!(of("seconds") <= of("seconds_p90") && of("repeats") >= 5.0, "{row}");
        assert!(of("rate") > 0.0 && of("floor_seconds") > 0.0, "{row}");
        let fraction = of("floor_seconds") / of("seconds");
        assert!((fraction / of("fraction_of_floor") - 1.0).abs() < 1e-9, "{row}");
        for key in ["device", "size", "precision", "unit", "commit"] {
            assert!(row[key].as_str().is_some_and(|text| !text.is_empty()), "{key}: {row}");
        }
    }
    let (code, document) = lawsmith(&["bench", "fft"]);
    assert_eq!((code, &document["error"]["field"]), (2, &Value::from("op")), "{document}");
}
