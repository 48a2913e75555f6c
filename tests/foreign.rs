//! Data that lawsmith did not simulate, end to end through the command line: units, verdicts, single runs.

use std::fmt::Write as _;
use std::path::Path;

use assert_cmd::Command;
use lawsmith::random::Random;
use serde_json::Value;

fn lawsmith(arguments: &[&str]) -> Value {
    let output =
        Command::cargo_bin("lawsmith").unwrap().args(["--json", "-q"]).args(arguments).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Bodies at random with the accelerations of springs of rest length 1 between them, times `force`; frames follow each
/// other at rest. Lengths, times and masses are multiplied by `units`.
fn springs(path: &Path, [runs, frames, bodies]: [usize; 3], force: f64, units: [f64; 3]) {
    let [length, time, mass] = units;
    let mut random = Random::new(6, 1);
    let mut table = "run,time,body,x,y,vx,vy,ax,ay,mass\n".to_string();
    for run in 0..runs {
        let m: Vec<f64> = (0..bodies).map(|_| (0.5 * random.normal()).exp()).collect();
        for frame in 0..frames {
            let mut state = || -> Vec<[f64; 2]> {
                (0..bodies).map(|_| [random.normal(), random.normal()]).collect()
            };
            let (x, v) = (state(), state());
            for i in 0..bodies {
                let mut a = [0.0; 2];
                for j in (0..bodies).filter(|&j| j != i) {
                    let d = [x[j][0] - x[i][0], x[j][1] - x[i][1]];
                    let r = d[0].hypot(d[1]);
                    for k in 0..2 {
                        a[k] += force * 2.0 * (1.0 - 1.0 / r) * d[k] / m[i];
                    }
                }
                let t = 0.1 * frame as f64 * time;
                let _ = write!(table, "{run},{t},{i}");
                for (vector, unit) in
                    [(x[i], length), (v[i], length / time), (a, length / time / time)]
                {
                    let _ = write!(table, ",{},{}", vector[0] * unit, vector[1] * unit);
                }
                let _ = writeln!(table, ",{}", m[i] * mass);
            }
        }
    }
    std::fs::write(path, table).unwrap();
}

/// Imports a table and distils it with little work.
fn distilled(folder: &Path, name: &str, more: &[&str]) -> Value {
    let table = folder.join(format!("{name}.csv"));
    let data = folder.join(format!("{name}.safetensors"));
    lawsmith(&["import", text(&table), "-o", text(&data)]);
    let run = folder.join(name);
    let little = ["--steps", "400", "--hidden", "32", "--evaluations", "20000"];
    let all = [&["distill", text(&data), "-o", text(&run)], &little[..], more].concat();
    let first = lawsmith(&all);
    // What is done already ends in the same.
    let again = lawsmith(&[&all[..], &["--resume"]].concat());
    assert_eq!(again["verdict"], first["verdict"]);
    first
}

/// The same motion in micrometres, milliseconds and picograms: what is found differs by the units alone.
#[test]
fn laws_come_back_in_the_units_of_the_data() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(format!("{name}.csv"));
    springs(&path("plain"), [40, 20, 3], 1.0, [1.0; 3]);
    springs(&path("micro"), [40, 20, 3], 1.0, [1e-6, 1e-3, 1e-12]);
    let [plain, micro] = ["plain", "micro"].map(|name| distilled(folder.path(), name, &[]));
    let of = |found: &Value, path: &str| found.pointer(path).unwrap().as_f64().unwrap();
    // An acceleration of 1 is one of 1e-6 / 1e-3².
    for figure in ["/verdict/baseline", "/verdict/network/error", "/test_loss/network"] {
        let ratio = of(&micro, figure) / of(&plain, figure);
        assert!((ratio - 1.0).abs() < 0.2, "{figure}: {ratio}");
    }
    let baseline = of(&plain, "/verdict/baseline");
    assert!(of(&plain, "/verdict/network/error") < 0.7 * baseline, "{plain}");
    assert!(of(&micro, "/verdict/network/r2") > 0.3, "{micro}");
    for (found, name) in [(&plain, "plain"), (&micro, "micro")] {
        let share = of(found, "/verdict/formula/error") / of(found, "/verdict/baseline");
        assert!(found["verdict"]["found"] == true && share < 1e-3, "{name}: {}", found["verdict"]);
    }
    let laws = std::fs::read_to_string(folder.path().join("micro/laws.json")).unwrap();
    let laws: Vec<Value> = serde_json::from_str(&laws).unwrap();
    let composed: Vec<&Value> = laws.iter().filter(|law| law["stage"] == "composed").collect();
    assert_eq!(composed.len(), 4);
    assert!(composed.iter().all(|law| law["natural"].is_string()), "{composed:?}");
    let report = std::fs::read_to_string(folder.path().join("micro/report.html")).unwrap();
    let sentence = micro["verdict"]["sentence"].as_str().unwrap();
    let begin = sentence.split(['&', '<', '>', '\'', '"']).next().unwrap();
    assert!(report.contains(begin), "the report has no verdict");
}

/// Runs of three, four and five bodies in one table, and as arrays in which bodies that are not there are NaN, give the
/// law of them all.
#[test]
fn runs_of_different_numbers_of_bodies_have_one_law() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(format!("{name}.csv"));
    let mut all = String::new();
    for (part, bodies) in [3, 4, 5].into_iter().enumerate() {
        springs(&path("part"), [14, 20, bodies], 1.0, [1.0; 3]);
        let table = std::fs::read_to_string(path("part")).unwrap();
        for (row, line) in table.lines().enumerate().filter(|(row, _)| *row > 0 || part == 0) {
            let number = if row > 0 { part.to_string() } else { String::new() };
            let _ = writeln!(all, "{number}{line}");
        }
    }
    std::fs::write(path("several"), all).unwrap();
    let found = distilled(folder.path(), "several", &[]);
    let of = |path: &str| found["verdict"].pointer(path).unwrap().as_f64().unwrap();
    assert!(found["verdict"]["found"] == true, "{found}");
    assert!(of("/formula/error") < 1e-3 * of("/baseline"), "{found}");
    assert!(of("/network/r2") > 0.3, "{found}");
    let run = folder.path().join("several");
    let predicted = lawsmith(&["predict", text(&run), "--rollout", "--frames", "5"]);
    let loss = predicted["test_loss"]["formula"].as_f64().unwrap();
    assert!(loss < 1e-3 * of("/baseline"), "{predicted}");
}

/// Snapshots lead nowhere: the work ends without a roll-out, and masses that are the same are in no law.
#[test]
fn snapshots_are_distilled_without_a_roll_out() {
    let folder = tempfile::tempdir().unwrap();
    springs(&folder.path().join("one.csv"), [300, 1, 3], 1.0, [1.0; 3]);
    let found = distilled(folder.path(), "one", &["--inputs", "r,v,q"]);
    assert!(found["verdict"]["sentence"].is_string());
    assert!(!folder.path().join("one/rollout.safetensors").exists());
    let inputs = found["inputs"].as_array().unwrap();
    let names: Vec<&str> = inputs.iter().map(|name| name.as_str().unwrap()).collect();
    // No charge differs, masses are left out by the user, and velocities are no matter.
    assert_eq!(names, ["dx", "dy", "r"]);
    let formula = found["formula"].to_string();
    assert!(!formula.contains("= x") && !formula.contains(" m"), "{formula}");
}

/// A star and three planets in the plane, by leapfrog with short steps; AU, years and solar masses.
fn planets(path: &Path) {
    let gravity = 4.0 * std::f64::consts::PI.powi(2);
    let masses = [1.0, 3e-6, 9.5e-4, 2.9e-4];
    let mut x = [[0.0; 2]; 4];
    let mut v = [[0.0; 2]; 4];
    for (body, (radius, angle)) in [(1.0, 0.3), (1.9, 2.0), (3.4, 4.1)].into_iter().enumerate() {
        let (sin, cos) = f64::sin_cos(angle);
        let speed = 1.03 * f64::sqrt(gravity / radius);
        x[body + 1] = [radius * cos, radius * sin];
        v[body + 1] = [-speed * sin, speed * cos];
    }
    let pull = |x: &[[f64; 2]; 4]| {
        let mut a = [[0.0; 2]; 4];
        for i in 0..4 {
            for j in (0..4).filter(|&j| j != i) {
                let d = [x[j][0] - x[i][0], x[j][1] - x[i][1]];
                let r = d[0].hypot(d[1]);
                (0..2).for_each(|k| a[i][k] += gravity * masses[j] * d[k] / r.powi(3));
            }
        }
        a
    };
    let mut table = "t,name,x,y,vx,vy,ax,ay,mass\n".to_string();
    let (step, names) = (1e-3, ["star", "b", "c", "d"]);
    for frame in 0..600 {
        let a = pull(&x);
        for i in 0..4 {
            let t = 0.02 * f64::from(frame);
            let _ = write!(table, "{t},{}", names[i]);
            [x[i], v[i], a[i]].concat().iter().for_each(|value| _ = write!(table, ",{value}"));
            let _ = writeln!(table, ",{}", masses[i]);
        }
        for _ in 0..20 {
            let before = pull(&x);
            (0..4).for_each(|i| (0..2).for_each(|k| v[i][k] += 0.5 * step * before[i][k]));
            (0..4).for_each(|i| (0..2).for_each(|k| x[i][k] += step * v[i][k]));
            let after = pull(&x);
            (0..4).for_each(|i| (0..2).for_each(|k| v[i][k] += 0.5 * step * after[i][k]));
        }
    }
    std::fs::write(path, table).unwrap();
}

/// In one run of planets messages need not be forces; the pair force is found all the same, and how is said.
#[test]
fn planets_have_the_law_of_gravity() {
    let folder = tempfile::tempdir().unwrap();
    planets(&folder.path().join("planets.csv"));
    let found = distilled(folder.path(), "planets", &[]);
    let (verdict, formula) = (&found["verdict"], found["formula"].to_string());
    assert_eq!(verdict["found"], true, "{verdict} {formula}");
    assert!(verdict["sentence"].as_str().unwrap().contains("directly"), "{verdict}");
    let of = |path: &str| verdict.pointer(path).unwrap().as_f64().unwrap();
    assert!(of("/formula/error") < 1e-4 * of("/baseline"), "{verdict} {formula}");
    assert!(
        formula.contains("39.4") && formula.contains("m2") && !formula.contains("m1"),
        "{formula}"
    );
}

/// Masses that nobody gave are noticed, and inferred from positions alone.
#[test]
fn masses_of_planets_are_inferred_from_their_motion() {
    let folder = tempfile::tempdir().unwrap();
    let (given, data) = (folder.path().join("given.csv"), folder.path().join("data.safetensors"));
    planets(&given);
    // Times, names and positions.
    let table = std::fs::read_to_string(&given).unwrap();
    let rows = table.lines().map(|row| row.split(',').take(4).collect::<Vec<_>>().join(","));
    let alone = folder.path().join("alone.csv");
    std::fs::write(&alone, rows.collect::<Vec<_>>().join("\n")).unwrap();
    let import = ["import", text(&alone), "-o", text(&data), "--overwrite"];
    let plain = lawsmith(&import);
    assert!(plain["notes"].to_string().contains("--infer-masses finds them"), "{plain}");
    assert!(plain["inferred"].is_null());
    let found = lawsmith(&[&import[..], &["--infer-masses"]].concat());
    assert_eq!(found["inferred"]["differs"], "pull", "{found}");
    let bodies = found["inferred"]["bodies"].as_array().unwrap();
    for (of, (name, mass)) in
        bodies.iter().zip([("star", 1.0), ("b", 3e-6), ("c", 9.5e-4), ("d", 2.9e-4)])
    {
        assert_eq!(of["body"], name);
        let [found, error] = ["mass", "error"].map(|key| of[key].as_f64().unwrap());
        assert!((found - mass).abs() < 0.05 * mass, "{of}");
        assert!((found - mass).abs() < 6.0 * error + 1e-3 * mass, "{of}");
    }
    let kept = lawsmith::nbody::dataset::Dataset::open(&data).unwrap();
    let ratio = kept.masses()[2] / kept.masses()[0];
    assert!((ratio / 9.5e-4 - 1.0).abs() < 0.05, "{ratio}");

    let refused = |path: &Path| {
        let options = ["--json", "-q", "import", text(path), "-o", text(&data), "--overwrite"];
        let mut command = Command::cargo_bin("lawsmith").unwrap();
        let output = command.args(options).arg("--infer-masses").output().unwrap();
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), document["error"]["message"].as_str().unwrap().to_string())
    };
    let (code, message) = refused(&given);
    assert!(code == Some(2) && message.contains("they are in the file"), "{message}");
    springs(&alone, [20, 10, 3], 0.0, [1.0; 3]);
    let rows = std::fs::read_to_string(&alone).unwrap();
    let rows = rows.lines().map(|row| row.rsplit_once(',').unwrap().0);
    std::fs::write(&alone, rows.collect::<Vec<_>>().join("\n")).unwrap();
    let (code, message) = refused(&alone);
    assert!(code == Some(1) && message.contains("cannot be inferred"), "{message}");
}

/// One long run is split into blocks of time.
#[test]
fn a_single_run_is_judged_on_blocks_that_it_was_not_trained_on() {
    let folder = tempfile::tempdir().unwrap();
    springs(&folder.path().join("long.csv"), [1, 400, 3], 1.0, [1.0; 3]);
    let found = distilled(folder.path(), "long", &[]);
    assert!(found["verdict"]["network"]["error"].as_f64().unwrap() > 0.0);
}

#[test]
fn bodies_that_do_not_accelerate_have_no_law() {
    let folder = tempfile::tempdir().unwrap();
    springs(&folder.path().join("still.csv"), [20, 5, 3], 0.0, [1.0; 3]);
    let found = distilled(folder.path(), "still", &[]);
    assert_eq!(found["verdict"]["found"], false);
    let sentence = found["verdict"]["sentence"].as_str().unwrap();
    assert!(sentence.contains("no body ever accelerates"), "{sentence}");
    assert_eq!(found["formula"], serde_json::json!([]));

    // Free motion with a little noise, or with rounding alone: its accelerations are those of the fit.
    for noise in [1e-4, 0.0] {
        let name = format!("free{noise}");
        std::fs::write(folder.path().join(format!("{name}.csv")), free(noise)).unwrap();
        let found = distilled(folder.path(), &name, &[]);
        let sentence = found["verdict"]["sentence"].as_str().unwrap();
        assert!(sentence.contains("no force within the error bar"), "{sentence}");
    }
}

/// Bodies without forces, with noise in their positions.
fn free(noise: f64) -> String {
    let mut random = Random::new(1, 0);
    let mut table = "run,time,body,x,y\n".to_string();
    for run in 0..10 {
        let state: Vec<f64> = (0..8).map(|_| random.normal()).collect();
        for frame in 0..40 {
            let t = 0.05 * f64::from(frame);
            for body in 0..2 {
                let mut at = |k: usize| {
                    state[4 * body + k] + t * state[4 * body + k + 2] + noise * random.normal()
                };
                let (x, y) = (at(0), at(1));
                let _ = writeln!(table, "{run},{t},{body},{x},{y}");
            }
        }
    }
    table
}

#[test]
fn options_that_do_not_apply_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    springs(&folder.path().join("data.csv"), [4, 3, 2], 1.0, [1.0; 3]);
    let (table, data) = (folder.path().join("data.csv"), folder.path().join("data.safetensors"));
    lawsmith(&["import", text(&table), "-o", text(&data)]);
    let output = Command::cargo_bin("lawsmith")
        .unwrap()
        .args(["--json", "-q", "distill", text(&data), "--inputs", "v,m", "-o"])
        .arg(folder.path().join("run"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let error: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(error["error"]["field"], "inputs");
    // A table is no damaged data set.
    let output = Command::cargo_bin("lawsmith")
        .unwrap()
        .args(["--json", "-q", "distill", text(&table), "-o"])
        .arg(folder.path().join("run"))
        .output()
        .unwrap();
    let error: Value = serde_json::from_slice(&output.stdout).unwrap();
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.contains("`lawsmith import` makes one"), "{error}");
    assert!(!folder.path().join("run").exists());
}
