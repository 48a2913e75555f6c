//! `lawsmith import` through the command line.

mod circles;
mod formats;
mod own;

use std::path::Path;

use assert_cmd::Command;
use lawsmith::nbody::dataset::{Dataset, Units};
use lawsmith::store::table::Table;
use lawsmith::store::tensors::{TensorSpec, TensorWriter};
use serde_json::Value;

fn lawsmith(arguments: &[&str]) -> (Option<i32>, Value) {
    let output =
        Command::cargo_bin("lawsmith").unwrap().args(["--json", "-q"]).args(arguments).output();
    let output = output.unwrap();
    let document = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| {
        panic!("{e}: {output:?}");
    });
    (output.status.code(), document)
}

/// Writes the trajectories as a table, columns as asked for, rows back to front.
fn table(data: &Dataset, path: &Path, all: bool, noise: f64) {
    let about = &data.about;
    let axes = &["x", "y", "z"][..about.dim];
    let mut header = vec!["run".to_string(), "time".into(), "body".into()];
    header.extend(axes.iter().map(|d| d.to_string()));
    if all {
        header.extend(axes.iter().map(|d| format!("v{d}")));
        header.extend(axes.iter().map(|d| format!("a{d}")));
        header.extend(["mass".into(), "charge".into()]);
    }
    let mut random = lawsmith::random::Random::new(1, 1);
    let mut rows = Vec::new();
    for run in 0..about.runs {
        for frame in 0..about.frames {
            for body in 0..about.bodies {
                let at = ((run * about.frames + frame) * about.bodies + body) * about.dim;
                let part = |values: &[f32]| values[at..at + about.dim].to_vec();
                let mut row = vec![run as f64, data.times()[frame], (10 * body) as f64];
                let x = part(data.positions());
                row.extend(x.iter().map(|x| f64::from(*x) + noise * random.normal()));
                if all {
                    let rest = [part(data.velocities()), part(data.accelerations())].concat();
                    row.extend(rest.iter().map(|v| f64::from(*v)));
                    let matter = run * about.bodies + body;
                    row.push(data.masses()[matter].into());
                    row.push(data.charges()[matter].into());
                }
                let cells: Vec<String> = row.iter().map(f64::to_string).collect();
                rows.push(cells.join(","));
            }
        }
    }
    rows.push(header.join(","));
    rows.reverse();
    std::fs::write(path, rows.join("\n") + "\n").unwrap();
}

fn simulated(folder: &Path, arguments: &[&str]) -> Dataset {
    let path = folder.join("truth.safetensors");
    let mut all = vec!["simulate", "-o", path.to_str().unwrap(), "--overwrite"];
    all.extend(arguments);
    let (code, document) = lawsmith(&all);
    assert_eq!(code, Some(0), "{document}");
    Dataset::open_in(&path, Units::Stored).unwrap()
}

/// A small set of trajectories with everything in it, as `t.csv` and as a table.
fn full_table(folder: &Path) -> (Dataset, Table) {
    let truth =
        simulated(folder, &["--dim", "3", "--bodies", "3", "--runs", "5", "--frames", "20"]);
    let csv = folder.join("t.csv");
    table(&truth, &csv, true, 0.0);
    (truth, Table::read(&csv).unwrap())
}

/// Imports a table and compares with the dataset that it was written from, bit for bit.
fn comes_back(truth: &Dataset, from: &Path) {
    let out = from.with_extension("out");
    let arguments = ["import", from.to_str().unwrap(), "-o", out.to_str().unwrap()];
    let (code, document) = lawsmith(&arguments);
    assert_eq!(code, Some(0), "{document}");
    assert_eq!(document["made"], serde_json::json!([]));
    assert!(document["acceleration_error"].is_null());
    let data = Dataset::open_in(&out, Units::Stored).unwrap();
    assert!(data.about.law.is_none());
    assert_eq!(data.positions(), truth.positions());
    assert_eq!(data.velocities(), truth.velocities());
    assert_eq!(data.accelerations(), truth.accelerations());
    assert_eq!(data.masses(), truth.masses());
    assert_eq!(data.charges(), truth.charges());
    assert_eq!(data.times(), truth.times());
    // A second time it is in the way.
    let (code, document) = lawsmith(&arguments);
    assert_eq!(code, Some(2));
    assert!(document["error"]["message"].as_str().unwrap().contains("--overwrite"));
}
