//! `lawsmith bench`: throughput of the operations compared with the limits of this machine.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::Context;
use crate::bench::compare::{self, Old};
use crate::bench::{self, Measurement};
use crate::device::{Cpu, Device, Simd};
use crate::error::{Error, Result};
use crate::observer::Observer;

/// Measures operations.
#[derive(Args)]
pub struct Bench {
    /// The operations to measure; edge:bf16 measures only the bf16 cases of edge [default: all]
    #[arg(value_name = "OP[:TYPE]")]
    ops: Vec<String>,
    /// Time for one measurement, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    seconds: f64,
    /// Append each measurement to this file as soon as it is made, as a line of JSON
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Use the CPU's instructions only up to this level: scalar, avx2, avx512, avx512+bf16 or amx
    #[arg(long, value_name = "LEVEL")]
    simd: Option<String>,
    /// Earlier output of bench --json to compare with
    #[arg(long, value_name = "OLD.json")]
    compare: Option<PathBuf>,
    /// Score these expressions instead of operations (each line: number of nodes, tab, formula)
    #[arg(long, value_name = "FILE", requires = "rows", conflicts_with_all = ["ops", "compare"])]
    trees: Option<PathBuf>,
    /// Table for --trees; its last column is the target
    #[arg(long, value_name = "TABLE", requires = "trees")]
    rows: Option<PathBuf>,
}

impl Bench {
    /// Prints a table, or an array of measurements under --json.
    pub fn run(self, context: &Context) -> Result<()> {
        if let (Some(trees), Some(rows)) = (&self.trees, &self.rows) {
            let found = bench::trees::measure(&context.device, trees, rows)?;
            let text = format!(
                "{} expressions, {} nodes, {} rows: {}nodes/s, at best {}nodes/s; {:.0} % valid on all rows",
                found.trees,
                found.nodes,
                found.rows,
                rate(found.rate),
                rate(found.rate_max),
                100.0 * found.valid
            );
            context.print(&json!(found), text);
            return Ok(());
        }
        if !(0.001..=3600.0).contains(&self.seconds) {
            return Err(Error::usage("must be between 0.001 and 3600").field("seconds"));
        }
        let observer = &context.terminal;
        let old = self.compare.as_deref().map(compare::read).transpose()?;
        let mut log = self.log.as_deref().map(Log::open).transpose()?;
        let device = match &self.simd {
            Some(_) if matches!(context.device, Device::Gpu(_)) => {
                let message = "is for the CPU: it goes with --device cpu";
                return Err(Error::usage(message).field("simd"));
            }
            Some(level) => Device::Cpu(Cpu::with(Simd::named(level)?)?),
            None => context.device,
        };
        let mut measured = bench::run(&device, &self.ops, self.seconds, observer, |m| {
            observer.note(&format!("measured {} {} {}", m.op, m.precision, m.size));
            log.as_mut().map_or(Ok(()), |log| log.write(m))
        })?;
        for m in &mut measured {
            let old = old.iter().flatten().find(|old| old.is_of(m));
            m.ratio = old.map(|old| m.seconds / old.seconds);
        }
        let mut text = table(&device.describe(), &measured);
        if let (Some(file), Some(mut old)) = (&self.compare, old) {
            let named = |name: &String, op: &str| name.split(':').next() == Some(op);
            old.retain(|old| {
                self.ops.is_empty() || self.ops.iter().any(|name| named(name, &old.op))
            });
            text += &format!("\n\n{}", comparison(file, &old, &measured));
        }
        context.print(&json!(measured), text);
        Ok(())
    }
}

/// A log of measurements, one per line; none is lost if the process is killed.
struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    fn open(path: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(path);
        let file = file.map_err(|e| Error::io("write", path, e))?;
        Ok(Log { path: path.to_path_buf(), file })
    }

    fn write(&mut self, m: &Measurement) -> Result<()> {
        writeln!(self.file, "{}", json!(m)).map_err(|e| Error::io("write", &self.path, e))
    }
}

/// The measurements as an aligned table.
fn table(device: &str, measured: &[Measurement]) -> String {
    let header =
        ["op", "size", "type", "median", "min", "p90", "rate", "floor", "of floor", "drift"];
    let mut rows = vec![header.map(String::from)];
    for m in measured {
        rows.push([
            m.op.clone(),
            m.size.clone(),
            m.precision.clone(),
            time(m.seconds),
            time(m.seconds_min),
            time(m.seconds_p90),
            format!("{} {}", rate(m.rate), m.unit),
            m.floor_seconds.map_or("-".into(), time),
            m.fraction_of_floor.map_or("-".into(), |f| format!("{:.0} %", 100.0 * f)),
            m.energy_drift.map_or("-".into(), |drift| format!("{drift:.1e}")),
        ]);
    }
    let commit = measured.first().map_or("unknown", |m| m.commit);
    format!("{device}, commit {commit}\n{}", align(&rows))
}

/// Old and new times side by side.
fn comparison(file: &Path, old: &[Old], measured: &[Measurement]) -> String {
    let header = ["op", "size", "type", "old", "new", "new / old", ""];
    let mut rows = vec![header.map(String::from)];
    let none = || "-".to_string();
    for m in measured {
        let before = old.iter().find(|old| old.is_of(m));
        let mark = match before {
            None => "not measured then",
            _ if m.got_slower() => "slower",
            _ => "",
        };
        rows.push([
            m.op.clone(),
            m.size.clone(),
            m.precision.clone(),
            before.map_or_else(none, |old| time(old.seconds)),
            time(m.seconds),
            m.ratio.map_or_else(none, |ratio| format!("{ratio:.2}")),
            mark.into(),
        ]);
    }
    for old in old.iter().filter(|old| !measured.iter().any(|m| old.is_of(m))) {
        let Old { op, size, precision, seconds, .. } = old.clone();
        let mark = "not measured now".into();
        rows.push([op, size, precision, time(seconds), none(), none(), mark]);
    }
    let from =
        old.first().map_or(String::new(), |old| format!(" ({}, {})", old.device, old.commit));
    format!("compared with {}{from}\n{}", file.display(), align(&rows))
}

/// Aligned columns: three of text on the left, the rest numbers.
fn align<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |k: usize| rows.iter().map(|row| row[k].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(&widths).enumerate().map(|(k, (cell, &width))| match k {
            0..=2 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_string()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn time(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.1} us", 1e6 * s),
        s if s < 1.0 => format!("{:.3} ms", 1e3 * s),
        s => format!("{s:.3} s"),
    }
}

fn rate(rate: f64) -> String {
    match rate {
        r if r >= 1e12 => format!("{:.2} T", r / 1e12),
        r if r >= 1e9 => format!("{:.2} G", r / 1e9),
        r if r >= 1e6 => format!("{:.2} M", r / 1e6),
        r if r >= 1e3 => format!("{:.2} k", r / 1e3),
        r => format!("{r:.2}"),
    }
}
