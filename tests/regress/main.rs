//! `lawsmith regress` through the command line: tables, losses, forms of laws, batches, interrupts, what laws are good for.

mod batch;
mod checks;
mod columns;
mod evidence;
mod exports;
mod forms;
mod held_out;
mod laws;
mod limits;
mod losses;
mod numbers;
mod resume;
mod tables;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
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

    /// A table whose column `y` follows `law(a, b, c)`, with weights that hide spoiled rows.
    fn weighted(&self, rows: usize, law: impl Fn(f64, f64, f64) -> f64) {
        let spoiled = |row: usize| row.is_multiple_of(3);
        self.table(
            "table.csv",
            rows,
            &[
                ("y", &|a, b, c, row, random| {
                    if spoiled(row) { 100.0 * random.normal() } else { law(a, b, c) }
                }),
                ("w", &|_, _, _, row, _| f64::from(!spoiled(row))),
            ],
        );
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
        let error = serde_json::from_slice::<Value>(&output.stdout).unwrap()["error"].clone();
        let code = if error["kind"] == "usage" { 2 } else { 1 };
        assert_eq!(output.status.code(), Some(code), "{arguments:?} {}", text(&output));
        error
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

/// The simplest entry of a front that fits to rounding.
fn exact_entry(document: &Value) -> &Value {
    let front = document["front"].as_array().unwrap();
    let fits = |entry: &&Value| entry["loss"].as_f64().unwrap() < 1e-4;
    front.iter().find(fits).unwrap_or_else(|| panic!("{document}"))
}

/// Its formula.
fn exact(document: &Value) -> &str {
    exact_entry(document)["equation"].as_str().unwrap()
}

const SEARCH: [&str; 4] = ["regress", "table.csv", "--operators", "+,-,*,/"];

fn search<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&SEARCH[..], more].concat()
}

/// [`search`] of [`Place::weighted`].
fn weighted_search<'a>(more: &[&'a str]) -> Vec<&'a str> {
    search(&[&["--target", "y", "--weights", "w"], more].concat())
}

/// Waits for a file.
fn wait(path: &Path) {
    let begun = Instant::now();
    while !path.exists() {
        assert!(begun.elapsed() < Duration::from_secs(120), "no {}", path.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}
