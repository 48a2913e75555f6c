//! `lawsmith bench` and `--device auto` through the command line.

use std::path::Path;
use std::process::Output;

use assert_cmd::Command;
use lawsmith::device::{Device, Gpu};
use serde_json::{Value, json};

fn lawsmith(arguments: &[&str]) -> Output {
    Command::cargo_bin("lawsmith").unwrap().args(arguments).output().unwrap()
}

fn succeed(arguments: &[&str]) -> String {
    let output = lawsmith(arguments);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn stderr(arguments: &[&str]) -> String {
    String::from_utf8(lawsmith(arguments).stderr).unwrap()
}

fn measured(arguments: &[&str]) -> Vec<Value> {
    serde_json::from_str(&succeed(arguments)).unwrap()
}

const LARGE: &str = "16777216 parameters";

/// Two measurements of Adam and one of something else.
fn old(file: &Path) {
    let entry = |op: &str, size: &str, seconds: f64| {
        let more = json!({"device": "an old machine", "commit": "0123456789ab"});
        let mut entry = json!({"op": op, "size": size, "precision": "f32", "seconds": seconds});
        entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        entry
    };
    let entries =
        [entry("adam", LARGE, 1e-9), entry("adam", "7 parameters", 1.0), entry("tiny", "x", 1.0)];
    std::fs::write(file, json!(entries).to_string()).unwrap();
}

#[test]
fn a_comparison_marks_what_got_slower_and_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("old.json");
    let name = file.to_str().unwrap();
    old(&file);
    let common = ["bench", "adam", "--device", "cpu", "-q", "--compare", name];
    let text = succeed(&common);
    let (measurements, comparison) = text.split_once("\n\n").unwrap();
    assert_eq!(measurements.lines().count(), 4, "{text}");
    let lines: Vec<&str> = comparison.lines().collect();
    assert_eq!(lines.len(), 5, "{text}");
    assert!(lines[0].contains(name) && lines[0].contains("an old machine"), "{text}");
    let marked = |part: &str, mark: &str| {
        let line = lines.iter().find(|line| line.contains(part));
        assert!(line.is_some_and(|line| line.ends_with(mark)), "{part}: {text}");
    };
    marked(LARGE, "slower");
    marked("7 parameters", "not measured now");
    let rest: Vec<_> = lines.iter().filter(|line| line.ends_with("not measured then")).collect();
    assert_eq!(rest.len(), 1, "{text}");

    let measured = measured(&[&common[..], &["--json"]].concat());
    assert_eq!(measured.len(), 2);
    let ratio = |m: &Value| m["ratio"].as_f64().map(|ratio| ratio * 1e-9);
    for m in &measured {
        let expected = (m["size"] == LARGE).then(|| m["seconds"].as_f64().unwrap());
        let close = match (ratio(m), expected) {
            (Some(found), Some(expected)) => (found / expected - 1.0).abs() < 1e-9,
            (found, expected) => found == expected,
        };
        assert!(close, "{m}");
        assert!(m.get("driver").is_none(), "a processor has no driver: {m}");
    }
}

#[test]
fn a_bad_file_to_compare_with_is_one_error_that_names_file_and_field() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("old.json");
    let name = file.to_str().unwrap();
    let refused = |expected: &str| {
        let arguments = ["bench", "adam", "--device", "cpu", "-q", "--compare", name];
        let output = lawsmith(&arguments);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains(name) && text.contains(expected), "{expected}: {text}");
    };
    refused("cannot read");
    let cases = [
        ("op,size", "is not what lawsmith bench --json writes"),
        ("{}", "is not what lawsmith bench --json writes"),
        (r#"[{"op": "adam"}]"#, "size"),
        (
            r#"[{"op": "a", "size": "1", "precision": "f32", "device": "cpu", "commit": "0",
                 "seconds": "1"}]"#,
            "seconds",
        ),
    ];
    for (text, expected) in cases {
        std::fs::write(&file, text).unwrap();
        refused(expected);
    }
}

#[test]
fn a_log_has_each_measurement_as_a_line_and_goes_on_where_one_stands() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("log.jsonl");
    let name = file.to_str().unwrap();
    let logged = || -> Vec<Value> {
        let text = std::fs::read_to_string(&file).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let common = ["bench", "mlp:f32", "adam", "--device", "cpu", "-q", "--json", "--log", name];
    let begun = std::time::Instant::now();
    let measured = measured(&[&common[..], &["--seconds", "0.02"]].concat());
    // The ceilings take two seconds, a second for each case would be three more; the machine may be busy.
    let ops: Vec<_> = measured.iter().map(|m| (m["op"].clone(), m["precision"].clone())).collect();
    assert_eq!(
        ops,
        [("mlp", "f32"), ("adam", "f32"), ("adam", "f32")].map(|(a, b)| (json!(a), json!(b)))
    );
    assert_eq!(logged(), measured, "after {:?}", begun.elapsed());
    succeed(&[&common[..], &["--seconds", "0.02"]].concat());
    assert_eq!(logged().len(), 6);

    for (wrong, why) in [("0", "between"), ("1e9", "between"), ("NaN", "between"), ("x", "invalid")]
    {
        let output = lawsmith(&[&common[..], &["--seconds", wrong]].concat());
        assert!(!output.status.success(), "{wrong}");
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("seconds") && text.contains(why), "{wrong}: {text}");
    }
    assert_eq!(logged().len(), 6, "nothing is measured then");
}

/// A CPU without bf16 is measured in what it has.
#[test]
fn an_operation_is_measured_in_the_arithmetic_that_the_cpu_has() {
    let all = ["bench", "mlp", "--seconds", "0.001", "--device", "cpu"];
    let found = measured(&[&all[..], &["--json"]].concat());
    let has = |precision: &str| found.iter().any(|m| m["precision"] == precision);
    assert!(has("f32"), "{found:?}");
    let left_out = stderr(&all).contains("cases in bf16 are left out: bf16 needs a CPU");
    assert_eq!(has("bf16"), !left_out);
    let named = lawsmith(&["bench", "mlp:bf16", "--seconds", "0.001", "--device", "cpu"]);
    assert_eq!(named.status.success(), !left_out, "{named:?}");
}

#[test]
fn a_selftest_of_named_operations_is_of_these() {
    let checks = measured(&["selftest", "scatter", "adam", "--device", "cpu", "-q", "--json"]);
    let mut found: Vec<_> =
        checks.iter().map(|check| check["operation"].as_str().unwrap()).collect();
    found.dedup();
    assert_eq!(found, ["adam", "scatter"]);
    let text = stderr(&["selftest", "fft", "--device", "cpu", "-q"]);
    assert!(text.contains("'fft' is no operation; there are adam"), "{text}");
}

#[test]
fn auto_says_once_what_computes_where_that_matters() {
    let (device, why) = Device::auto();
    let name = match device {
        Device::Cpu(_) => "cpu (",
        Device::Gpu(_) => "cuda:0 (",
    };
    let text = stderr(&["messages", "nowhere"]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].starts_with(&format!("device: {name}")), "{text}");
    assert!(lines[0].ends_with(&format!("; {why}")), "{text}");
    assert!(lines[1].starts_with("error: "), "{text}");
    assert_eq!(stderr(&["messages", "nowhere", "-q"]).lines().count(), 1);
    assert_eq!(stderr(&["messages", "nowhere", "--device", "cpu"]).lines().count(), 1);
    assert_eq!(stderr(&["report", "nowhere"]).lines().count(), 1);
}

fn gpu() -> Option<Gpu> {
    match Device::pick("cuda:0") {
        Ok(Device::Gpu(gpu)) => Some(gpu),
        Ok(Device::Cpu(_)) => unreachable!("cuda:0 is a GPU"),
        Err(error) => {
            assert!(std::env::var_os("LAWSMITH_REQUIRE_GPU").is_none(), "{error}");
            eprintln!("skipped: {error}");
            None
        }
    }
}

/// What compute capability 9.0 has beyond the others, on the stand-in for such a device.
#[test]
fn gpu_ceilings_of_capability_9_are_those_of_its_own_instructions_too() {
    if !gpu().is_some_and(Gpu::is_emulated) {
        return;
    }
    let mut command = Command::cargo_bin("lawsmith").unwrap();
    command.args(["bench", "ceilings", "--device", "cuda:0", "--json", "-q"]);
    let output = command.env("LAWSMITH_EMULATED_CAPABILITY", "90").output().unwrap();
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let row = |what: &str| {
        let found = rows.iter().find(|row| row["size"].as_str().unwrap().starts_with(what));
        let found = found.unwrap_or_else(|| panic!("no {what}: {rows:?}"));
        (found["precision"].as_str().unwrap(), found["unit"].as_str().unwrap())
    };
    assert_eq!(rows.len(), 7);
    assert_eq!(row("wgmma m64n256k16"), ("bf16", "flop/s"));
    assert_eq!(row("bulk copies"), ("f32", "byte/s"));
}

#[test]
fn gpu_bench_measures_every_operation() {
    let Some(gpu) = gpu() else { return };
    let measured = measured(&["bench", "--device", "cuda:0", "--json", "-q"]);
    let of = |op: &str, precision: &str| {
        let is = |m: &&Value| m["op"] == op && m["precision"] == precision;
        measured.iter().filter(is).count()
    };
    let ceilings = [of("ceilings", "f32"), of("ceilings", "bf16"), of("ceilings", "f64")];
    let hopper = gpu.properties().unwrap().capability == (9, 0);
    assert_eq!(ceilings, if hopper { [4, 2, 1] } else { [3, 1, 1] });
    assert_eq!([of("rk4", "f64"), of("adam", "f32"), of("expression", "f32")], [7, 2, 4]);
    assert_eq!([of("tiny", "f32"), of("tiny", "bf16")], [6, 6]);
    assert_eq!([of("mlp", "f32"), of("mlp", "bf16")], [1, 1]);
    // On a GPU a batch of receivers and all; on the stand-in a few.
    let edge = [of("edge", "f32"), of("edge", "bf16")];
    assert!(edge == [2, 2] || edge == [4, 4], "{edge:?}");
    let graphs = [of("neighbours", "f64"), of("scatter", "f32"), of("formula", "f32")];
    assert_eq!(graphs, [1, 4, 2]);
    for m in &measured {
        let number = |field: &str| m[field].as_f64().unwrap_or_else(|| panic!("{field}: {m}"));
        assert!(m["device"].as_str().unwrap().starts_with("cuda:0 ("), "{m}");
        assert!(number("repeats") >= 1.0 && number("seconds_min") > 0.0, "{m}");
        assert!(number("seconds") <= number("seconds_p90") && number("rate") > 0.0, "{m}");
        if let Some(drift) = m["energy_drift"].as_f64() {
            assert!(drift < 1e-3, "the motion ended where it should not: {m}");
        }
        if m["op"] != "ceilings" {
            for field in ["driver", "sm_mhz", "memory_mhz", "power_watts", "joules", "memory_used"]
            {
                assert!(m.get(field).is_some(), "{field}, though it may be null: {m}");
            }
        }
    }
}
