//! Scoring a population written by another program, to compare speeds on the same trees.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::formula::expression::Expression;
use crate::ops::expression::{self as op, Loss, Program, Rows};
use crate::store::table::Table;

/// Time spent on calls, and their minimum number.
const BUDGET: Duration = Duration::from_secs(2);
const FEWEST: usize = 5;

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Trees {
    /// Number of expressions.
    pub trees: usize,
    /// Number of rows.
    pub rows: usize,
    /// Nodes of all expressions, as counted in the file.
    pub nodes: u64,
    /// Nodes of the formulas as written: more, if leaves in the file have weights.
    pub nodes_written: u64,
    /// Calls measured.
    pub calls: usize,
    /// Median time of a call.
    pub seconds: f64,
    /// Nodes of the file × rows per second, from the median.
    pub rate: f64,
    /// The same from the fastest call.
    pub rate_max: f64,
    /// Fraction of the expressions that are valid on all rows.
    pub valid: f64,
}

/// Scores the expressions of `trees` (each line: number of nodes, tab, infix formula) on the columns of
/// a table, whose last column is the target. Every expression is evaluated on every row, on the CPU;
/// nothing is simplified, shared or left out.
///
/// # Errors
/// Files that cannot be read in this form.
pub fn measure(device: &Device, trees: &Path, table: &Path) -> Result<Trees> {
    let Device::Cpu(cpu) = device else {
        return Err(Error::usage("--trees runs only on the CPU: add --device cpu"));
    };
    let table = Table::read(table)?;
    let single = |name: &String| -> Result<Vec<f32>> {
        Ok(table.values(name)?.iter().map(|&v| v as f32).collect())
    };
    let mut columns: Vec<Vec<f32>> = table.names.iter().map(single).collect::<Result<_>>()?;
    let target = columns.pop().unwrap_or_default();
    let rows = Rows::new(&columns, &target, None).map_err(|e| e.file(&table.path))?;
    let names: Vec<&str> = table.names[..columns.len()].iter().map(String::as_str).collect();
    let text = std::fs::read_to_string(trees).map_err(|e| Error::io("read", trees, e))?;
    let mut programs = Vec::new();
    let mut nodes = 0;
    for (number, line) in text.lines().enumerate() {
        let at = |message: String| Error::input(message).file(trees).row(number as u64 + 1);
        let split = line.split_once('\t').and_then(|(n, f)| Some((n.parse::<u64>().ok()?, f)));
        let (count, formula) = split
            .ok_or_else(|| at("must be a number of nodes, a tab and a formula".to_string()))?;
        programs
            .push(Program::new(&Expression::parse(formula, &names).map_err(|e| at(e.message))?));
        nodes += count;
    }
    if programs.is_empty() {
        return Err(Error::input("has no formulas").file(trees));
    }
    let losses = op::score_all_rows(*cpu, &rows, &programs, Loss::Mae);
    let valid = losses.iter().filter(|loss| loss.is_finite()).count();
    let begun = Instant::now();
    let mut times = Vec::new();
    while times.len() < FEWEST || begun.elapsed() < BUDGET {
        let call = Instant::now();
        std::hint::black_box(op::score_all_rows(*cpu, &rows, &programs, Loss::Mae));
        times.push(call.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    let work = nodes as f64 * rows.rows() as f64;
    let seconds = times[times.len() / 2];
    Ok(Trees {
        trees: programs.len(),
        rows: rows.rows(),
        nodes,
        nodes_written: programs.iter().map(|p| p.nodes as u64).sum(),
        calls: times.len(),
        seconds,
        rate: work / seconds,
        rate_max: work / times[0],
        valid: valid as f64 / programs.len() as f64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_of_another_program_are_measured() {
        let folder = tempfile::tempdir().unwrap();
        let [trees, table] = ["trees.tsv", "rows.csv"].map(|name| folder.path().join(name));
        std::fs::write(&table, "a,b,y\n1,2,3\n2,-1,5\n3,4,7\n").unwrap();
        std::fs::write(&trees, "3\t((2.5 * a) + b)\n2\tlog((-0.5 * b))\n").unwrap();
        let found = measure(&Device::cpu(), &trees, &table).unwrap();
        assert_eq!((found.trees, found.rows, found.nodes, found.nodes_written), (2, 3, 5, 9));
        assert_eq!(found.valid, 0.5, "log of a negative number");
        assert!(found.rate_max >= found.rate && found.rate > 0.0);
        std::fs::write(&trees, "3\ta + c\n").unwrap();
        let error = measure(&Device::cpu(), &trees, &table).unwrap_err().to_string();
        assert!(error.contains("trees.tsv") && error.contains('c'), "{error}");
    }
}
