//! Laws applied to other tables, and exported to other languages.

use std::process::{Command, Output, Stdio};

use crate::{Place, search, text};

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
    // On its own output, and where it has no value in any row.
    place.document(&["eval", "run", "out.csv", "-o", "again.csv"]);
    assert!(place.read("again.csv").starts_with("a,b,c,y,y_predicted,y_predicted_2\n"));
    place.document(&["eval", "run", "again.csv", "-o", "third.csv"]);
    place.write("zero.csv", "a,b,c,y\n1,2,0,1\n2,3,0,4\n");
    let judged = place.document(&["eval", "run", "zero.csv", "-o", "nothing.csv"]);
    let law = &judged["laws"][0];
    assert_eq!((law["invalid"].as_u64(), &law["mae"]), (Some(2), &serde_json::Value::Null));

    assert!(place.read("run/laws.tex").starts_with("\\begin{equation}\n  y = "));
    python(&place, &predictions);
    compiled(&place, &predictions);
}

/// True where Python has a module.
pub fn has_python(module: &str) -> bool {
    let import = format!("import {module}");
    let status = Command::new("python3").args(["-c", &import]).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// The exported Python file, imported, where there is NumPy.
fn python(place: &Place, predictions: &[f64]) {
    if !has_python("numpy") {
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
    if !has_python("sympy") {
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

pub fn numbers(output: &Output) -> Vec<f64> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

pub fn close(a: &[f64], b: &[f64]) -> bool {
    let near = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-9 * (1.0 + b.abs());
    a.len() == b.len() && a.iter().zip(b).all(near)
}
