//! From a catalogue of halos to a formula, through the command line.

use std::path::Path;

use assert_cmd::Command;
use lawsmith::formula::expression::Expression;
use lawsmith::store::tensors::TensorFile;
use serde_json::Value;

fn lawsmith(folder: &Path) -> Command {
    let mut command = Command::cargo_bin("lawsmith").unwrap();
    command.current_dir(folder).args(["--device", "cpu", "--json", "-q"]);
    command
}

/// The document of a command that succeeds.
fn run(folder: &Path, args: &[&str]) -> Value {
    let output = lawsmith(folder).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stdout));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The message of a command that fails.
fn fails(folder: &Path, args: &[&str]) -> String {
    let output = lawsmith(folder).args(args).output().unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let code = if document["error"]["kind"] == "usage" { 2 } else { 1 };
    assert_eq!(output.status.code(), Some(code), "{args:?}: {document}");
    document["error"]["message"].as_str().unwrap().to_string()
}

/// A physically simulated catalogue: 26,982 halos in 500 Mpc/h (tests/data/README.md).
fn simulated() -> String {
    format!("{}/tests/data/halos_lh0_L500_s0.npz", env!("CARGO_MANIFEST_DIR"))
}

/// Counts are exact, errors those of an independent computation with numpy and scipy, to three digits.
#[test]
fn the_papers_formulas_on_a_simulated_catalogue() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    run(at, &["catalog", &simulated(), "-o", "halos.safetensors"]);
    let graph = run(at, &["graph", "halos.safetensors", "--radius", "20", "-o", "20.safetensors"]);
    assert_eq!(graph["edges"], 389_616);
    let graph = run(at, &["graph", "halos.safetensors", "-o", "50.safetensors"]);
    assert_eq!(graph["edges"], 3_798_234);
    let scale = |name: &str| graph["scales"][name].as_f64().unwrap();
    assert!((scale("mass") / 3.65727e13 - 1.0).abs() < 1e-5);
    assert!((scale("velocity") / 264.179 - 1.0).abs() < 1e-5);
    let table = run(at, &["reproduce", "table6", "50.safetensors"]);
    let rows = table["table6"].as_array().unwrap();
    let published = [None, Some(0.1270), Some(0.1187), Some(0.0951)];
    let refitted = [0.3899, 0.1200, 0.1154, 0.0799];
    for ((row, published), refitted) in rows.iter().zip(published).zip(refitted) {
        if let Some(expected) = published {
            let found = row["as_published"].as_f64().unwrap();
            assert!((found - expected).abs() < 1e-3, "{row}");
        }
        // Those are upper bounds of the minimum.
        let found = row["refitted"].as_f64().unwrap();
        assert!(found < refitted + 1e-4 && found > refitted - 2e-3, "{row}");
    }
}

/// Halos in a box of 100 Mpc/h, whose overdensity is the mass within 20 Mpc/h, the less the further away.
fn synthetic() -> String {
    let mut state = 12345u64;
    let mut uniform = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    let halos: Vec<[f64; 7]> = (0..1500)
        .map(|_| {
            std::array::from_fn(|k| match k {
                0..3 => 100.0 * uniform(),
                3..6 => 600.0 * (uniform() - 0.5),
                _ => 1e13 * (1.0 + 3.0 * uniform()),
            })
        })
        .collect();
    let mut text = "x,y,z,vx,vy,vz,mass,delta\n".to_string();
    for a in &halos {
        let counts = |b: &[f64; 7]| {
            let square = |k: usize| {
                let d = (a[k] - b[k]).abs();
                d.min(100.0 - d).powi(2)
            };
            let r = square(0) + square(1) + square(2);
            if r > 0.0 { b[6] * (1.0 - r / 400.0).max(0.0) } else { 0.0 }
        };
        let mass: f64 = halos.iter().map(counts).sum();
        let row: Vec<String> = a.iter().map(|v| format!("{v:.6e}")).collect();
        text += &format!("{},{:.6}\n", row.join(","), mass / 2e14 - 2.2);
    }
    text
}

fn synthetic_graph(at: &Path) {
    std::fs::write(at.join("halos.csv"), synthetic()).unwrap();
    run(at, &["catalog", "halos.csv", "--box", "100", "-o", "halos.safetensors"]);
    run(at, &["graph", "halos.safetensors", "--radius", "20", "-o", "graph.safetensors"]);
}

/// What lengths, masses and velocities of the graph were divided by.
fn measured_scales(at: &Path) -> [f64; 3] {
    let file = TensorFile::open(&at.join("graph.safetensors"), "graph").unwrap();
    let entry: Value = file.entry().unwrap();
    ["length", "mass", "velocity"].map(|name| entry["scales"][name].as_f64().unwrap())
}

const SHORT: [&str; 4] = ["--steps", "600", "--hidden", "16"];

#[test]
fn a_graph_goes_through_every_stage() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    synthetic_graph(at);
    // What a formula of no variables reaches on the slab.
    let table = run(at, &["reproduce", "table6", "graph.safetensors"]);
    let constant =
        table["table6"][0]["test"]["error"].as_f64().unwrap_or_else(|| panic!("{table}"));
    let train =
        [&["train", "graph.safetensors", "--model", "l1", "-o", "run"][..], &SHORT].concat();
    let trained = run(at, &train);
    assert!(trained["test"]["error"].as_f64().unwrap() < 0.75 * constant, "{constant} {trained}");
    let measured = run(at, &["messages", "run"]);
    assert!(measured["survivors"].as_u64().unwrap() >= 1);
    run(at, &["regress", "run", "--evaluations", "3000"]);
    let composed = run(at, &["compose", "run", "--evaluations", "3000"]);
    let error = composed["test_loss"]["formula"].as_f64().unwrap();
    assert!(error < 0.75 * constant, "{constant} {composed}");
    // Laws are in Msun/h, Mpc/h and km/s, and as the search saw them beside that.
    let laws = std::fs::read_to_string(at.join("run/laws.json")).unwrap();
    let laws: Value = serde_json::from_str(&laws).unwrap();
    let names = ["m1", "m2", "dx", "dy", "dz", "r", "dv", "v1", "v2"];
    let parse = |law: &Value| Expression::parse(law.as_str().unwrap(), &names).unwrap();
    let of_message = |law: &&Value| law["stage"] == "message";
    let scales = measured_scales(at);
    let mut with_variables = 0;
    for law in laws.as_array().unwrap().iter().filter(of_message) {
        let (users, seen) = (parse(&law["equation"]), parse(&law["natural"]));
        with_variables += usize::from((0..9).any(|variable| seen.depends_on(variable)));
        for r in [3.0, 11.0, 17.5] {
            let [m, d, v] = [2.3e13, 7.0, 240.0];
            let values = [m, 1.5 * m, d, -d, 0.4 * d, r, v, 0.5 * v, 2.0 * v];
            let kinds = [1, 1, 0, 0, 0, 0, 2, 2, 2];
            let scaled: Vec<f64> = values.iter().zip(kinds).map(|(x, k)| x / scales[k]).collect();
            let (found, expected) = (users.eval(&values), seen.eval(&scaled));
            assert!(
                (found - expected).abs() <= 1e-3 * expected.abs() + 1e-5,
                "{law} {found} {expected}"
            );
        }
    }
    assert!(with_variables >= 1, "{laws}");
    // One schema for every system: what halos do not have is null.
    assert!(composed["components"][0]["law"]["equation"].is_string(), "{composed}");
    assert!(composed["components"][0]["force_r2"].is_null(), "{composed}");
    assert!(composed["fitted_loss"]["formula_jackknife"].is_number(), "{composed}");
    assert!(composed["outside_loss"]["formula"].is_null(), "nothing was hidden: {composed}");
    run(at, &["report", "run"]);
    for file in ["hall_of_fame.csv", "laws.json", "slab.safetensors", "report.html"] {
        assert!(at.join("run").join(file).exists(), "{file}");
    }
    let report = std::fs::read_to_string(at.join("run/report.html")).unwrap();
    for id in ["result", "map", "scatter", "errors", "terms", "loss", "front", "settings"] {
        assert!(report.contains(&format!("id=\"{id}\"")), "{id}");
    }
    assert!(fails(at, &["predict", "run"]).contains("graph"));
    // Laws in scaled units, as they once were written, are not taken for laws in the user's.
    let mut old = laws.clone();
    for law in old.as_array_mut().unwrap() {
        law.as_object_mut().unwrap().remove("natural");
    }
    std::fs::write(at.join("run/laws.json"), old.to_string()).unwrap();
    assert!(fails(at, &["compose", "run"]).contains("regress` on the folder again"));
    // The same without masses.
    let measured = run(at, &["messages", "run", "--without-mass"]);
    let inputs = measured["inputs"].as_array().unwrap();
    let has = |name: &str| inputs.iter().any(|input| input == name);
    assert!(has("r") && has("dv") && has("v1") && !has("m1") && !has("m2"), "{inputs:?}");
    run(at, &["regress", "run", "--evaluations", "3000"]);
    let bare = run(at, &["compose", "run", "--evaluations", "3000"]);
    assert!(bare["test_loss"]["formula"].as_f64().unwrap() < constant, "{bare}");
    let laws: Value =
        serde_json::from_slice(&std::fs::read(at.join("run/laws.json")).unwrap()).unwrap();
    for law in laws.as_array().unwrap() {
        let expression = law["equation"].as_str().unwrap();
        let mut names = expression.split(|c: char| !c.is_ascii_alphanumeric());
        assert!(!names.any(|name| ["m", "m1", "m2"].contains(&name)), "{law}");
    }
    // All of it by one command, twice: what has ended stays.
    let distill = ["distill", "graph.safetensors", "--steps", "200", "--evaluations", "2000"];
    let distill = |more: &[&'static str]| [&distill[..], &["-o", "all"], more].concat();
    let whole = run(at, &distill(&[]));
    let laws = std::fs::read(at.join("all/laws.json")).unwrap();
    let again = run(at, &distill(&["--resume"]));
    assert_eq!(whole["formula"], again["formula"]);
    assert_eq!(laws, std::fs::read(at.join("all/laws.json")).unwrap());
    assert!(fails(at, &distill(&["--resume", "--seed", "1"])).contains("other settings"));
}

#[test]
fn an_interrupted_training_goes_on_to_the_same_network() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    synthetic_graph(at);
    let train = |name: &str, more: &[&str]| {
        let args =
            ["train", "graph.safetensors", "--model", "l1", "--hide-above", "0.6", "-o", name];
        let mut args = args.to_vec();
        args.extend(["--steps", "600", "--hidden", "8"]);
        args.extend(more);
        args.iter().map(|arg| arg.to_string()).collect::<Vec<_>>()
    };
    let whole = train("whole", &[]);
    run(at, &whole.iter().map(String::as_str).collect::<Vec<_>>());
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin("lawsmith"))
        .current_dir(at)
        .args(["--device", "cpu", "-q"])
        .args(train("killed", &[]))
        .spawn()
        .unwrap();
    // Behind the first cut, at 120, and a checkpoint that has it.
    let step = || {
        let rows = std::fs::read_to_string(at.join("killed/metrics.csv")).unwrap_or_default();
        let last = rows.lines().last().and_then(|row| row.split(',').next()?.parse::<u64>().ok());
        last.unwrap_or(0)
    };
    while step() < 170 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let _ = child.kill();
    assert!(child.wait().unwrap().code().is_none(), "it ended before it was killed");
    let resumed = train("killed", &["--resume"]);
    let summary = run(at, &resumed.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(summary["hidden"]["error"].as_f64().is_some());
    for file in ["model.safetensors", "metrics.csv"] {
        let read = |run: &str| std::fs::read(at.join(run).join(file)).unwrap();
        assert!(read("whole") == read("killed"), "{file} differs");
    }
    let other = train("killed", &["--resume", "--seed", "3"]);
    let message = fails(at, &other.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(message.contains("seed") && message.contains("this command has 3"), "{message}");
}

#[test]
fn what_is_no_graph_of_halos_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let says = |args: &[&str], expected: &str| {
        let message = fails(at, args);
        assert!(message.contains(expected), "{args:?}: {message}");
    };
    says(&["catalog", "nowhere.csv", "-o", "a.safetensors"], "no such file");
    std::fs::write(at.join("group_tab_004.0"), [7; 100]).unwrap();
    says(
        &["catalog", "group_tab_004.0", "--box", "500", "-o", "a.safetensors"],
        "friends-of-friends",
    );
    std::fs::write(at.join("halos.csv"), synthetic()).unwrap();
    says(&["catalog", "halos.csv", "-o", "a.safetensors"], "--box");
    says(&["catalog", "halos.csv", "--box", "50", "-o", "a.safetensors"], "outside the box");
    run(at, &["catalog", "halos.csv", "--box", "100", "-o", "halos.safetensors"]);
    let graph =
        |radius: &'static str| ["graph", "halos.safetensors", "--radius", radius, "-o", "g"];
    says(&graph("51"), "half the box");
    says(&graph("0.00001"), "no two halos");
    // Of a box of 100 a slab of 20 and buffers of 50 leave nothing.
    run(at, &["graph", "halos.safetensors", "--radius", "50", "-o", "wide.safetensors"]);
    says(&["train", "wide.safetensors", "-o", "run"], "no halo is left to train on");
    let without: String = synthetic()
        .lines()
        .map(|line| line.rsplit_once(',').unwrap().0.to_string() + "\n")
        .collect();
    std::fs::write(at.join("bare.csv"), without).unwrap();
    run(at, &["catalog", "bare.csv", "--box", "100", "-o", "bare.safetensors"]);
    run(at, &["graph", "bare.safetensors", "--radius", "20", "-o", "bareg.safetensors"]);
    says(&["train", "bareg.safetensors", "-o", "run"], "overdensity");
    says(&["reproduce", "table6", "bareg.safetensors"], "overdensity");
    assert!(!at.join("run").exists(), "nothing is begun");
}
