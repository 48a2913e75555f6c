//! What `lawsmith regress` can be asked for beyond a plain search, each through the command line.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use lawsmith::random::Random;
use serde_json::Value;

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Place { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// A table of a, b, c (c > 0) and columns that follow `laws` of them and of the row's number.
    fn table(&self, name: &str, rows: usize, laws: &[(&str, &Law<'_>)]) {
        let mut random = Random::new(21, 0);
        let columns: Vec<&str> = laws.iter().map(|law| law.0).collect();
        let mut text = format!("a,b,c,{}\n", columns.join(","));
        for row in 0..rows {
            let [a, b, c] = [random.normal(), random.normal(), 0.3 + random.normal().abs()];
            let values: Vec<String> =
                laws.iter().map(|law| law.1(a, b, c, row, &mut random).to_string()).collect();
            text += &format!("{a},{b},{c},{}\n", values.join(","));
        }
        self.write(name, &text);
    }

    fn lawsmith(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lawsmith"));
        command.current_dir(self.folder.path()).args(arguments);
        command
    }

    /// The document of a command that must work.
    fn document(&self, arguments: &[&str]) -> Value {
        let output = self.lawsmith(arguments).arg("--json").output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The error of a command that must fail.
    fn error(&self, arguments: &[&str]) -> Value {
        let output = self.lawsmith(arguments).arg("--json").output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?} {}", text(&output));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["error"].clone()
    }
}

type Law<'a> = dyn Fn(f64, f64, f64, usize, &mut Random) -> f64 + 'a;

fn text(output: &Output) -> String {
    let all = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&all).into_owned()
}

/// The entry that a rule chose.
fn chosen<'a>(document: &'a Value, rule: &str) -> &'a Value {
    &document["front"][document["selected"][rule].as_u64().unwrap() as usize]
}

/// The simplest formula of a front that fits to rounding.
fn exact(document: &Value) -> &str {
    let front = document["front"].as_array().unwrap();
    let fits = |entry: &&Value| entry["loss"].as_f64().unwrap() < 1e-4;
    let entry = front.iter().find(fits).unwrap_or_else(|| panic!("{document}"));
    entry["equation"].as_str().unwrap()
}

const SEARCH: [&str; 4] = ["regress", "table.csv", "--operators", "+,-,*,/"];

fn search<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&SEARCH[..], more].concat()
}

#[test]
fn laws_are_applied_and_exported() {
    let place = Place::new();
    place.table("table.csv", 200, &[("y", &|a, b, c, _, _| (1.5 * a - 0.5 * b) / c + 0.25)]);
    place.document(&search(&[
        "--target",
        "y",
        "--evaluations",
        "40000",
        "--target-loss",
        "1e-5",
        "-o",
        "run",
    ]));
    place.table("fresh.csv", 50, &[("y", &|a, b, c, _, _| (1.5 * a - 0.5 * b) / c + 0.25)]);
    let judged = place.document(&["eval", "run/laws.json", "fresh.csv"]);
    let law = &judged["laws"][0];
    assert!(law["r2"].as_f64().unwrap() > 0.999_999, "{law}");
    assert_eq!((law["rows"].as_u64(), law["invalid"].as_u64()), (Some(50), Some(0)));
    let predictions: Vec<f64> =
        law["predictions"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    // The same as a table, and beside the columns of the table.
    let printed = place.lawsmith(&["eval", "run", "fresh.csv", "-q"]).output().unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert!(printed.starts_with("y_predicted\n"), "{printed}");
    assert_eq!(printed.lines().count(), 51);
    let arguments = ["eval", "run", "fresh.csv", "-o", "out.csv"];
    place.document(&arguments);
    assert!(place.read("out.csv").starts_with("a,b,c,y,y_predicted\n"));
    assert!(place.error(&arguments)["message"].as_str().unwrap().contains("--overwrite"));
    place.write("other.csv", "a,b\n1,2\n");
    assert_eq!(place.error(&["eval", "run", "other.csv"])["field"], "c");
    assert_eq!(place.error(&["eval", "run", "fresh.csv", "--target", "z"])["field"], "z");

    assert!(place.read("run/laws.tex").starts_with("\\begin{equation}\n  y = "));
    python(&place, &predictions);
    compiled(&place, &predictions);
}

/// The exported Python file, imported, where there is NumPy.
fn python(place: &Place, predictions: &[f64]) {
    let has = |module: &str| {
        let import = format!("import {module}");
        let status = Command::new("python3").args(["-c", &import]).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    if !has("numpy") {
        eprintln!("skipped: python3 has no numpy");
        return;
    }
    let script = "
import csv, sys
import numpy as np
sys.path.insert(0, 'run')
import laws
rows = list(csv.DictReader(open('fresh.csv')))
columns = {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
for value in laws.LAWS['y'](**columns):
    print(repr(float(value)))
";
    let output = Command::new("python3")
        .args(["-c", script])
        .current_dir(place.folder.path())
        .output()
        .unwrap();
    let found = numbers(&output);
    assert!(close(&found, predictions), "{}", text(&output));
    if !has("sympy") {
        eprintln!("skipped: python3 has no sympy");
        return;
    }
    let script = "
import sys
sys.path.insert(0, 'run')
import laws
first = open('fresh.csv').read().split('\\n')[1].split(',')
values = dict(zip('abc', map(float, first)))
e = laws.sympy('y')
print(float(e.subs({s: values[s.name] for s in e.free_symbols})))
";
    let output = Command::new("python3")
        .args(["-c", script])
        .current_dir(place.folder.path())
        .output()
        .unwrap();
    assert!(close(&numbers(&output), &predictions[..1]), "{}", text(&output));
}

/// The exported C and Rust files, compiled.
fn compiled(place: &Place, predictions: &[f64]) {
    let fresh = place.read("fresh.csv");
    let row: Vec<&str> = fresh.lines().nth(1).unwrap().split(',').collect();
    let c = place.read("run/laws.c");
    let order: Vec<usize> = c[c.find("law_y(").unwrap()..c.find(") {").unwrap()]
        .split("double ")
        .skip(1)
        .map(|name| usize::from(name.as_bytes()[0] - b'a'))
        .collect();
    let values: Vec<String> =
        order.iter().map(|&k| format!("{:?}", row[k].parse::<f64>().unwrap())).collect();
    let values = values.join(", ");
    let main = format!(
        "#include <stdio.h>\n{c}\nint main(void) {{ printf(\"%.17g\\n\", law_y({values})); }}"
    );
    place.write("main.c", &main);
    let compile = Command::new("gcc")
        .args(["-O1", "-o", "in_c", "main.c", "-lm"])
        .current_dir(place.folder.path())
        .output()
        .unwrap();
    assert!(compile.status.success(), "{}", text(&compile));
    let output = Command::new(place.path("in_c")).output().unwrap();
    assert!(close(&numbers(&output), &predictions[..1]), "{}", text(&output));
    let rust = place.read("run/laws.rs");
    place
        .write("main.rs", &format!("{rust}\nfn main() {{ println!(\"{{}}\", law_y({values})); }}"));
    let rustc = std::env::var("RUSTC").unwrap_or("rustc".into());
    let compile = Command::new(rustc)
        .args(["-o", "in_rust", "main.rs"])
        .current_dir(place.folder.path())
        .output()
        .unwrap();
    assert!(compile.status.success(), "{}", text(&compile));
    let output = Command::new(place.path("in_rust")).output().unwrap();
    assert!(close(&numbers(&output), &predictions[..1]), "{}", text(&output));
}

fn numbers(output: &Output) -> Vec<f64> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

fn close(a: &[f64], b: &[f64]) -> bool {
    let near = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-9 * (1.0 + b.abs());
    a.len() == b.len() && a.iter().zip(b).all(near)
}

#[test]
fn several_targets_in_one_call() {
    let place = Place::new();
    place.table("table.csv", 300, &[("y", &|a, b, _, _, _| a * b), ("z", &|a, _, c, _, _| a / c)]);
    let limits = ["--target", "y,z", "--evaluations", "4000", "-o", "run"];
    let document = place.document(&search(&limits));
    let targets = document["targets"].as_array().unwrap();
    assert_eq!(
        (targets[0]["target"].as_str(), targets[1]["target"].as_str()),
        (Some("y"), Some("z"))
    );
    assert!(["a * b", "b * a"].contains(&exact(&targets[0])), "{document}");
    assert_eq!(exact(&targets[1]), "a / c");
    let laws: Value = serde_json::from_str(&place.read("run/laws.json")).unwrap();
    assert_eq!(laws.as_array().unwrap().len(), 2);
    let hall = place.read("run/hall_of_fame.csv");
    assert!(hall.contains("\ny,") && hall.contains("\nz,"), "{hall}");
    // Neither target is an input of the other.
    assert!(!hall.lines().any(|line| line.starts_with("y,") && line.ends_with('z')), "{hall}");
    let judged = place.document(&["eval", "run", "table.csv"]);
    assert_eq!(judged["laws"].as_array().unwrap().len(), 2);
}

#[test]
fn the_best_few_of_each_complexity_are_kept() {
    let place = Place::new();
    place.table("table.csv", 300, &[("y", &|a, b, c, _, _| a * b + 0.1 * c)]);
    let document = place.document(&search(&[
        "--target",
        "y",
        "--evaluations",
        "6000",
        "--keep",
        "3",
        "-o",
        "run",
    ]));
    let kept = place.read("run/kept.csv");
    let rows: Vec<Vec<&str>> =
        kept.lines().skip(1).map(|line| line.splitn(5, ',').collect()).collect();
    let of = |complexity: &str| -> Vec<(f64, &str)> {
        let rows = rows.iter().filter(|row| row[1] == complexity);
        rows.map(|row| (row[3].parse().unwrap(), row[4])).collect()
    };
    let three = of("5");
    assert_eq!(three.len(), 3, "{kept}");
    assert!(
        three.windows(2).all(|pair| pair[0].0 <= pair[1].0 && pair[0].1 != pair[1].1),
        "{kept}"
    );
    assert!(rows.iter().all(|row| ["1", "2", "3"].contains(&row[2])), "{kept}");
    // The first of each complexity are what the front is made of.
    for entry in document["front"].as_array().unwrap() {
        let best = of(&entry["complexity"].to_string())[0];
        assert_eq!(Some(best.0), entry["loss"].as_f64());
    }
}

#[test]
fn unseen_rows_choose_the_law() {
    let place = Place::new();
    place.table("table.csv", 120, &[("y", &|a, _, _, _, random| a + 0.5 * random.normal())]);
    let arguments = ["--target", "y", "--evaluations", "30000", "--select", "accuracy"];
    let seen = place.document(&search(&[&arguments[..], &["-o", "seen"]].concat()));
    let arguments = [&arguments[..], &["--validation", "0.4", "-o", "unseen"]].concat();
    let unseen = place.document(&search(&arguments));
    // Noise is fitted further and further where the rows that are fitted also choose.
    let complexity =
        |document: &Value| chosen(document, "accuracy")["complexity"].as_u64().unwrap();
    assert_eq!(complexity(&seen), seen["front"].as_array().unwrap().last().unwrap()["complexity"]);
    assert!(complexity(&unseen) < complexity(&seen), "{unseen} {seen}");
    let front = unseen["front"].as_array().unwrap();
    let losses: Vec<f64> = front.iter().map(|e| e["validation"].as_f64().unwrap()).collect();
    let least = losses.iter().copied().fold(f64::INFINITY, f64::min);
    assert_eq!(chosen(&unseen, "accuracy")["validation"].as_f64(), Some(least));
    assert_eq!(
        place.error(&search(&["--target", "y", "--validation", "0.001"]))["field"],
        "validation"
    );
}

#[test]
fn a_loss_of_the_users_own_is_minimised() {
    let place = Place::new();
    // Three of ten rows are far above: their mean moves, their quantiles below do not.
    place.table(
        "table.csv",
        400,
        &[("y", &|a, _, _, row, random| {
            2.0 * a
                + if row % 10 < 3 { 40.0 + 5.0 * random.normal() } else { 0.01 * random.normal() }
        })],
    );
    let slope = |loss: &str, folder: &str| -> (f64, f64) {
        let document = place.document(&search(&[
            "--target",
            "y",
            "--inputs",
            "a",
            "--evaluations",
            "8000",
            "--max-complexity",
            "5",
            "--loss",
            loss,
            "-o",
            folder,
        ]));
        let entry = chosen(&document, "accuracy");
        assert!(entry["loss"].as_f64().unwrap().is_finite(), "{document}");
        let values = place.document(&["eval", folder, "table.csv"]);
        let predictions = values["laws"][0]["predictions"].as_array().unwrap().clone();
        let table = place.read("table.csv");
        let mut worst = 0.0f64;
        let mut mean = 0.0;
        for (line, prediction) in table.lines().skip(1).zip(&predictions) {
            let a: f64 = line.split(',').next().unwrap().parse().unwrap();
            let off = prediction.as_f64().unwrap() - 2.0 * a;
            worst = worst.max(off.abs());
            mean += off / 400.0;
        }
        (worst, mean)
    };
    let (_, mean) = slope("mse", "mse");
    assert!(mean > 8.0, "squares follow the rows far off: {mean}");
    for (loss, folder) in [
        ("huber:0.1", "huber"),
        ("quantile:0.3", "quantile"),
        ("log(1 + (prediction - target)^2)", "own"),
    ] {
        let (worst, _) = slope(loss, folder);
        assert!(worst < 0.5, "{loss}: {worst}");
    }
    let e = place.error(&search(&["--target", "y", "--loss", "prediction * q"]));
    assert_eq!(e["field"], "loss");
}

#[test]
fn weights_count_in_a_loss_of_the_users_own() {
    let place = Place::new();
    let spoiled = |row: usize| row.is_multiple_of(3);
    place.table(
        "table.csv",
        300,
        &[
            ("y", &|a, b, _, row, _| if spoiled(row) { 50.0 } else { a * b }),
            ("w", &|_, _, _, row, _| if spoiled(row) { 0.0 } else { 2.0 }),
        ],
    );
    for loss in ["weight * abs(prediction - target)", "abs(prediction - target)"] {
        let document = place.document(&search(&[
            "--target",
            "y",
            "--weights",
            "w",
            "--loss",
            loss,
            "--evaluations",
            "4000",
            "-o",
            "run",
            "--overwrite",
        ]));
        assert!(["a * b", "b * a"].contains(&exact(&document)), "{loss}: {document}");
    }
}

#[test]
fn units_refuse_what_mixes_them() {
    let place = Place::new();
    // b is a copy of a with another unit: without units the two are one to the search.
    let mut text = String::from("a,b,t,y\n");
    let mut random = Random::new(8, 0);
    for _ in 0..300 {
        let (a, t) = (1.0 + random.uniform(), 1.0 + random.uniform());
        text += &format!("{a},{a},{t},{}\n", a / (t * t));
    }
    place.write("table.csv", &text);
    let limits = ["--target", "y", "--evaluations", "8000", "-o", "run", "--overwrite"];
    let with = |units: &str, pure: &[&str]| {
        let document = place.document(&search(&[&limits[..], &["--units", units], pure].concat()));
        let front = document["front"].as_array().unwrap().clone();
        let equations = front.iter().map(|e| e["equation"].as_str().unwrap().to_string());
        (equations.collect::<Vec<_>>(), exact(&document).to_string())
    };
    let (front, best) = with("a=m,b=kg,t=s,y=m/s^2", &["--pure-constants"]);
    assert!(front.iter().all(|e| !e.contains('b') && e.contains('a')), "{front:?}");
    assert!(["a / (t * t)", "a / t / t"].contains(&best.as_str()), "{best}");
    let (front, best) = with("a=m,b=kg,t=s,y=kg/s^2", &["--pure-constants"]);
    assert!(front.iter().all(|e| !e.contains('a') && e.contains('b')), "{front:?}");
    assert!(best.starts_with('b'), "{best}");
    // A constant may carry units unless it is said not to.
    let (front, _) = with("a=m,b=kg,t=s,y=m/s^2", &[]);
    assert!(front.iter().any(|e| e.parse::<f64>().is_ok() || !e.contains("t * t")), "{front:?}");
    let e = place.error(&search(&["--target", "y", "--units", "q=m"]));
    assert_eq!(e["field"], "units");
}

#[test]
fn templates_give_the_form() {
    let place = Place::new();
    place.table(
        "table.csv",
        300,
        &[
            ("u", &|_, _, _, row, _| (row % 4) as f64),
            ("y", &|a, b, c, row, _| {
                (1.0 / c + 0.5) * a + c * c * b + [1.0, -2.0, 4.0, 0.5][row % 4]
            }),
        ],
    );
    let run = |template: &str, folder: &str| {
        place.document(&search(&[
            "--target",
            "y",
            "--template",
            template,
            "--evaluations",
            "40000",
            "--target-loss",
            "1e-4",
            "-o",
            folder,
        ]))
    };
    let document = run("f(c) * a + g(c) * b + p[u]", "form");
    let front = document["front"].as_array().unwrap();
    let best = front.iter().find(|e| e["loss"].as_f64().unwrap() < 1e-4).unwrap();
    let equation = best["equation"].as_str().unwrap();
    assert!(equation.contains("IF((u < 0.5), 1"), "{equation}");
    assert_eq!(best["parts"]["g"].as_str(), Some("c * c"), "{best}");
    assert!(!best["parts"]["f"].as_str().unwrap().contains('a'), "{best}");
    let judged = place.document(&["eval", "form", "table.csv"]);
    assert!(judged["laws"][0]["r2"].as_f64().unwrap() > 0.999_99);
    assert_eq!(
        place.error(&search(&["--target", "y", "--template", "a * b"]))["field"],
        "template"
    );
}

/// A part that is called twice has the same constants in both places.
#[test]
fn a_part_of_a_template_may_be_called_twice() {
    let place = Place::new();
    place.table(
        "table.csv",
        300,
        &[("y", &|a, b, _, _, _| {
            let f = |x: f64| 1.0 / (x * x + 0.7);
            f(a) - f(b)
        })],
    );
    let document = place.document(&search(&[
        "--target",
        "y",
        "--template",
        "f(a) - f(b)",
        "--evaluations",
        "30000",
        "--target-loss",
        "1e-5",
        "-o",
        "run",
    ]));
    let best = chosen(&document, "accuracy");
    assert!(best["loss"].as_f64().unwrap() < 1e-4, "{document}");
}

#[test]
fn operators_of_the_users_own_and_constraints() {
    let place = Place::new();
    place.table("table.csv", 300, &[("y", &|a, b, _, _, _| 3.0 * (-a * a).exp() + 0.0 * b)]);
    let document = place.document(&[
        "regress",
        "table.csv",
        "--target",
        "y",
        "--operators",
        "*,+",
        "--define",
        "bell(x) = exp(-(x * x))",
        "--complexity",
        "bell=2",
        "--evaluations",
        "6000",
        "--target-loss",
        "1e-4",
        "-o",
        "own",
    ]);
    let best = chosen(&document, "accuracy");
    assert!(best["loss"].as_f64().unwrap() < 1e-3, "{document}");
    // 3 · bell(a): three nodes beside bell, which counts 2.
    assert_eq!(best["complexity"].as_u64(), Some(5), "{document}");
    let document = place.document(&search(&[
        "--target",
        "y",
        "--evaluations",
        "8000",
        "--max-depth",
        "3",
        "--limit-nesting",
        "/:/=0",
        "--limit-operands",
        "/=:1",
        "--max-complexity",
        "12",
        "--warm-up",
        "0.5",
        "--mutations",
        "grow=3",
        "-o",
        "limits",
    ]));
    let names = ["a", "b", "c"];
    for entry in document["front"].as_array().unwrap() {
        let text = entry["equation"].as_str().unwrap();
        let e = lawsmith::symbolic::expression::Expression::parse(text, &names).unwrap();
        assert!(e.depth() <= 3, "{text}");
        assert!(!text.contains("/ ("), "{text}");
    }
}

#[test]
fn guesses_and_an_earlier_run_begin_a_search() {
    let place = Place::new();
    let law = |a: f64, b: f64, c: f64| (a * b - 0.3 * c).exp() / (1.0 + c * c) + a / (b * b + c);
    place.table("table.csv", 300, &[("y", &|a, b, c, _, _| law(a, b, c))]);
    let guess = "exp(a * b - 0.5 * c) / (0.8 + c * c) + a / (b * b + c)";
    let few =
        ["regress", "table.csv", "--target", "y", "--evaluations", "500", "--max-complexity", "40"];
    let plain = place.document(&[&few[..], &["-o", "plain"]].concat());
    assert!(chosen(&plain, "accuracy")["loss"].as_f64().unwrap() > 1e-2);
    let guessed = place.document(&[&few[..], &["--guess", guess, "-o", "guessed"]].concat());
    assert!(chosen(&guessed, "accuracy")["loss"].as_f64().unwrap() < 1e-3, "{guessed}");
    let warm = place.document(&[&few[..], &["--warm-start", "guessed", "-o", "warm"]].concat());
    assert!(chosen(&warm, "accuracy")["loss"].as_f64().unwrap() < 1e-3, "{warm}");
    let e = place.error(&[&few[..], &["--guess", "exp(q)", "-o", "bad"]].concat());
    assert_eq!(e["field"], "guess");
}

#[test]
fn features_are_selected_and_noise_is_smoothed() {
    let place = Place::new();
    let mut random = Random::new(5, 0);
    let names: Vec<String> = (0..15).map(|k| format!("x{k}")).collect();
    let mut text = format!("{},y\n", names.join(","));
    for _ in 0..400 {
        let x: Vec<f64> = (0..15).map(|_| random.normal()).collect();
        let cells: Vec<String> = x.iter().map(f64::to_string).collect();
        text +=
            &format!("{},{}\n", cells.join(","), x[4] * x[4] + 2.0 * x[9] + 0.2 * random.normal());
    }
    place.write("table.csv", &text);
    let document = place.document(&search(&[
        "--target",
        "y",
        "--select-features",
        "2",
        "--denoise",
        "--evaluations",
        "6000",
        "-o",
        "run",
    ]));
    assert_eq!(document["inputs"], serde_json::json!(["x4", "x9"]));
    let laws = place.read("run/laws.json");
    assert!(laws.contains("x4") && laws.contains("x9"), "{laws}");
}

/// Waits for a file.
fn wait(path: &Path) {
    let begun = Instant::now();
    while !path.exists() {
        assert!(begun.elapsed() < Duration::from_secs(120), "no {}", path.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_killed_search_ends_like_one_that_was_not() {
    let place = Place::new();
    place.table(
        "table.csv",
        1500,
        &[("y", &|a, b, c, _, random| (a - 0.3 * b) / c + a * b * c + 0.1 * random.normal())],
    );
    fn arguments(folder: &str) -> Vec<&str> {
        search(&["--target", "y", "--evaluations", "80000", "-q", "-o", folder])
    }
    let whole = place.lawsmith(&arguments("whole")).output().unwrap();
    assert!(whole.status.success(), "{}", text(&whole));
    for signal in [libc::SIGKILL, libc::SIGINT] {
        let folder = format!("killed{signal}");
        let mut child = place
            .lawsmith(&arguments(&folder))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait(&place.path(&format!("{folder}/memory.json")));
        // SAFETY: a signal to our own child.
        unsafe { libc::kill(child.id() as i32, signal) };
        child.wait().unwrap();
        assert!(!place.path(&format!("{folder}/fit.json")).exists(), "it ended before the signal");
        let resumed = [&arguments(&folder)[..], &["--resume"]].concat();
        let resumed = place.lawsmith(&resumed).output().unwrap();
        assert!(resumed.status.success(), "{}", text(&resumed));
        let [a, b] = ["whole", &folder].map(|f| place.read(&format!("{f}/hall_of_fame.csv")));
        assert_eq!(a, b);
        assert_eq!(place.read("whole/laws.json"), place.read(&format!("{folder}/laws.json")));
    }
}

#[test]
fn a_batch_goes_on_after_a_kill() {
    let place = Place::new();
    std::fs::create_dir(place.path("data")).unwrap();
    place.table(
        "data/one.csv",
        400,
        &[("y", &|a, b, _, _, _| a * b), ("z", &|a, _, c, _, _| a / c)],
    );
    place.table("data/two.csv", 400, &[("y", &|a, b, c, _, _| a * b / c)]);
    let mut jobs =
        String::from("[defaults]\noperators = [\"+\", \"-\", \"*\", \"/\"]\nevaluations = 20000\n");
    for (table, target) in [("one", "y"), ("one", "z"), ("two", "y")] {
        for seed in 0..4 {
            jobs += &format!(
                "[[job]]\nname = \"{table}-{target}-{seed}\"\ntable = \"{table}.csv\"\ntarget = \"{target}\"\n\
                 inputs = [\"a\", \"b\", \"c\"]\nseed = {seed}\nmax_complexity = 15\n"
            );
        }
    }
    place.write("data/jobs.toml", &jobs);
    let arguments = |folder| ["regress", "--batch", "data/jobs.toml", "-q", "-o", folder];
    let whole = place.document(&arguments("whole"));
    assert_eq!(whole["fits"].as_array().unwrap().len(), 12);
    let mut child = place.lawsmith(&arguments("killed")).stdout(Stdio::null()).spawn().unwrap();
    wait(&place.path("killed/one-y-1/fit.json"));
    child.kill().unwrap();
    child.wait().unwrap();
    let results = |folder: &str| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(place.path(folder)).unwrap();
        let results = entries.map(|entry| entry.unwrap().path().join("fit.json"));
        results.filter(|path| path.exists()).collect()
    };
    let before = results("killed");
    assert!(!before.is_empty() && before.len() < 12, "{before:?}");
    let written = |path: &PathBuf| std::fs::metadata(path).unwrap().modified().unwrap();
    let times: Vec<_> = before.iter().map(written).collect();
    place.document(&arguments("killed"));
    assert_eq!(results("killed").len(), 12);
    assert_eq!(
        before.iter().map(written).collect::<Vec<_>>(),
        times,
        "finished fits are not redone"
    );
    for fit in whole["fits"].as_array().unwrap() {
        let name = fit["name"].as_str().unwrap();
        let [a, b] =
            ["whole", "killed"].map(|f| place.read(&format!("{f}/{name}/hall_of_fame.csv")));
        assert_eq!(a, b, "{name}");
        assert!(fit["loss"].as_f64().unwrap() < 1e-5, "{fit}");
    }
    let summary = place.read("killed/summary.csv");
    assert!(summary.starts_with("name,target,complexity,loss,equation,"), "{summary}");
    assert_eq!(summary.lines().count(), 13);
    // Other settings in the same folders are an error, not new results beside old ones.
    place.write("data/jobs.toml", &jobs.replace("20000", "30000"));
    let e = place.error(&arguments("killed"));
    assert!(e["message"].as_str().unwrap().contains("other settings"), "{e}");
}

#[test]
fn a_batch_of_a_folder_and_its_errors() {
    let place = Place::new();
    std::fs::create_dir(place.path("data")).unwrap();
    for name in ["one", "two"] {
        place.table(&format!("data/{name}.csv"), 200, &[("y", &|a, b, _, _, _| a + b)]);
    }
    place.write("data/bad.csv", "a,y\n1,2\n");
    let batch =
        ["regress", "--batch", "data", "--target", "y", "--evaluations", "1000", "-o", "out"];
    // One bad table stops none of the others.
    let e = place.error(&batch);
    assert!(e["file"].as_str().unwrap().ends_with("bad.csv"), "{e}");
    for name in ["one", "two"] {
        assert!(place.path(&format!("out/{name}/laws.json")).exists(), "{name}");
    }
    let summary = place.read("out/summary.csv");
    assert!(
        summary.lines().any(|l| l.starts_with("bad,y,") && l.contains("at least 10")),
        "{summary}"
    );
    let error = |jobs: &str| {
        place.write("jobs.toml", jobs);
        place.error(&["regress", "--batch", "jobs.toml", "-o", "bad"])
    };
    assert_eq!(error("[[jobs]]\n")["field"], "jobs");
    assert_eq!(error("")["field"], "job");
    assert_eq!(error("[[job]]\ntarget = \"y\"\n")["field"], "table");
    let e = error("[[job]]\ntable = \"t.csv\"\nspeed = 3\n");
    assert!(e["message"].as_str().unwrap().contains("job 1: unexpected argument '--speed'"), "{e}");
    let twice = "[[job]]\ntable = \"t.csv\"\n".repeat(2);
    assert_eq!(error(&twice)["field"], "name");
    assert!(!place.path("bad").exists());
}

#[test]
fn components_of_one_force_share_a_factor() {
    let place = Place::new();
    let laws: [(&str, &Law); 2] = [
        ("y", &|a, b, c, _, _| (1.0 - 1.0 / c) * (2.0 * a - b) + 1.0),
        ("z", &|a, b, c, _, _| (1.0 - 1.0 / c) * (0.01 * a + 0.03 * b)),
    ];
    place.table("table.csv", 400, &laws);
    let limits = ["--target", "y,z", "--evaluations", "12000", "-o", "run"];
    let document = place.document(&search(&[&limits[..], &["--joint", "a,b"]].concat()));
    assert_eq!(document["targets"].as_array().unwrap().len(), 2);
    let judged = place.document(&["eval", "run", "table.csv"]);
    for law in judged["laws"].as_array().unwrap() {
        assert!(law["r2"].as_f64().unwrap() > 0.9999, "{law}");
    }
    let hall = place.read("run/hall_of_fame.csv");
    assert!(hall.lines().skip(1).all(|line| line.starts_with("joint,")), "{hall}");
    let bad = ["--target", "y,z", "--joint", "a,d", "-o", "bad"];
    assert!(place.error(&search(&bad))["message"].as_str().unwrap().contains("'d'"));
}
