//! Arguments that make no sense: exit code 2, and under `--json` a document on stdout.

use std::process::{Command, Output};

use serde_json::Value;

fn lawsmith(arguments: &[&str]) -> Output {
    Command::new(assert_cmd::cargo::cargo_bin!("lawsmith")).args(arguments).output().unwrap()
}

fn usage_error(arguments: &[&str]) -> String {
    let output = lawsmith(arguments);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
    let document: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{arguments:?}: {e}: {output:?}"));
    assert_eq!(document["error"]["kind"], "usage", "{document}");
    document["error"]["message"].as_str().unwrap().to_string()
}

#[test]
fn bad_arguments_are_a_document_under_json() {
    for (arguments, expected) in [
        (&["simulate", "--json", "--bodys", "4", "-o", "x"][..], "unexpected argument '--bodys'"),
        (&["train", "--json"], "required arguments were not provided: --output <OUTPUT> <DATASET>"),
        (&["--json", "nothing"], "unrecognized subcommand 'nothing'"),
        (&["distill", "--preset", "slow", "--json"], "invalid value 'slow' for '--preset"),
        (&["distill", "--steps", "many", "--json"], "invalid value 'many' for '--steps"),
        (&["graph", "--resume", "--json", "-o", "x", "y"], "unexpected argument '--resume'"),
    ] {
        let message = usage_error(arguments);
        assert!(message.contains(expected), "{arguments:?}: {message}");
        assert!(!message.contains('\n') && !message.contains("Usage"), "{message}");
    }
}

#[test]
fn without_json_bad_arguments_are_text_with_the_usage() {
    for arguments in [&["simulate", "--bodys", "4"][..], &["simulate", "-o", "x", "--", "--json"]] {
        let output = lawsmith(arguments);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{output:?}");
        assert!(String::from_utf8(output.stderr).unwrap().contains("Usage: "), "{arguments:?}");
    }
    for arguments in [["--help", "--json"], ["--version", "--json"], ["train", "--help"]] {
        let output = lawsmith(&arguments);
        assert!(output.status.success() && !output.stdout.is_empty(), "{output:?}");
    }
}

/// Values that clap takes and the command does not.
#[test]
fn values_that_make_no_sense_end_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let (table, halos, data, laws) =
        (path("t.csv"), path("halos.csv"), path("d.safetensors"), path("laws.json"));
    let rows: String = (0..30).map(|i| format!("{i},{}\n", i * i)).collect();
    std::fs::write(&table, format!("a,y\n{rows}")).unwrap();
    std::fs::write(&halos, "x,y,z,vx,vy,vz,mass\n1,1,1,0,0,0,1e13\n2,2,2,0,0,0,2e13\n").unwrap();
    std::fs::write(&laws, r#"[{"target": "y", "equation": "a", "variables": ["a"]}]"#).unwrap();
    let (table, halos, data, laws) = (&*table, &*halos, &*data, &*laws);
    assert!(lawsmith(&["simulate", "--runs", "4", "--frames", "4", "-o", data]).status.success());
    let out = path("out");
    for arguments in [
        &["simulate", "--law", "gravity"][..],
        &["simulate", "--bodies", "1"],
        &["simulate", "--potential", "r^", "--dt", "0.1"],
        &["simulate", "--device", "gpu"],
        &["simulate", "-o", data],
        &["train", data, "--steps", "0"],
        &["train", data, "--hidden", "0"],
        &["train", data, "--replicas", "0"],
        &["train", data, "--hide-above", "1"],
        &["train", data, "--device", "cpu", "--precision", "tf32"],
        &["distill", data, "--layers", "0"],
        &["distill", data, "--peak-rate", "-1"],
        &["distill", data, "--evaluations", "0"],
        &["distill", data, "--without-mass"],
        &["import", table, "--order", "1"],
        &["regress", table, "--target", "z"],
        &["regress", table, "--target", "y", "--inputs", "b"],
        &["regress", table, "--target", "y", "--inputs", "a,y"],
        &["regress", table, "--target", "y", "--weights", "w"],
        &["regress", table, "--target", "y", "--operators", "%"],
        &["regress", table, "--target", "y", "--loss", "mape"],
        &["regress", table, "--target", "y", "--guess", "a +"],
        &["regress", table, "--target", "y", "--define", "f(x)"],
        &["regress", table, "--target", "y", "--template", "f(b)"],
        &["regress", table, "--target", "y", "--units", "a=1/"],
        &["catalog", halos, "--box", "-5"],
        &["catalog", halos, "--box", "0"],
        &["catalog", halos, "--box", "100,200,50"],
        &["catalog", halos, "--box", "10", "--min-mass", "1e20"],
        &["catalog", halos, "--box", "10", "--min-particles", "20"],
        &["catalog", halos, "--box", "10", "--warren"],
        &["eval", laws, table, "--target", "z"],
        &["bench", "fft"],
    ] {
        let with_output = [arguments, &["--json", "-q"]].concat();
        let needs_output = !arguments.contains(&"-o") && arguments[0] != "bench";
        let output = if needs_output { &["-o", &*out][..] } else { &[] };
        usage_error(&[&with_output[..], output].concat());
        assert!(!folder.path().join("out").exists(), "{arguments:?} left its output");
    }
}
