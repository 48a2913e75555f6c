//! `lawsmith bench`: throughput of the operations against what this machine allows.

use clap::Args;
use serde_json::json;

use super::Context;
use crate::bench::{self, Measurement};
use crate::error::Result;

/// Measures operations.
#[derive(Args)]
pub struct Bench {
    /// The operations to measure [default: all]
    #[arg(value_name = "OP")]
    ops: Vec<String>,
}

impl Bench {
    /// Prints a table, or an array of measurements under --json.
    pub fn run(self, context: &Context) -> Result<()> {
        let progress = context.progress;
        let measured = bench::run(&context.device, &self.ops, |m| {
            progress.note(&format!("measured {} {} {}", m.op, m.precision, m.size));
        })?;
        context.print(&json!(measured), table(&context.device.describe(), &measured));
        Ok(())
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
    let width = |k: usize| rows.iter().map(|row| row[k].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |row: &[String; 10]| {
        let cells = row.iter().zip(&widths).enumerate().map(|(k, (cell, &width))| match k {
            0..=2 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_string()
    };
    let commit = measured.first().map_or("unknown", |m| m.commit);
    let lines: Vec<String> = rows.iter().map(line).collect();
    format!("{device}, commit {commit}\n{}", lines.join("\n"))
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
