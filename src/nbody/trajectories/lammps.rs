//! Text dumps of LAMMPS, read as tables.

use std::path::Path;

use crate::error::{Error, Result};
use crate::store::table::{Table, Words};

/// The text of a line after `ITEM:`.
fn item(line: &str) -> Option<&str> {
    line.strip_prefix("ITEM:").map(str::trim)
}

/// The dump as a table of time, id, …, and the period of each axis.
///
/// Scaled positions are converted to lengths; positions with image flags are unwrapped.
pub(super) fn table(path: &Path) -> Result<(Table, Vec<Option<f64>>)> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
    let mut lines = text.lines().enumerate();
    let bad =
        |line: usize, message: String| Err(Error::input(message).file(path).row(line as u64 + 1));
    let mut names: Vec<String> = Vec::new();
    let mut columns: Vec<Words> = Vec::new();
    let mut row_lines = Vec::new();
    let (mut step, mut time) = (String::new(), None::<String>);
    let (mut atoms, mut bounds, mut periodic) = (0usize, Vec::new(), Vec::new());
    while let Some((at, line)) = lines.next() {
        let mut line_of = |what: &str| match lines.next() {
            Some((_, line)) => Ok(line.trim()),
            None => Err(Error::input(format!("the file ends where {what} is needed"))
                .file(path)
                .row(at as u64 + 1)),
        };
        match item(line) {
            Some("TIMESTEP") => (step, time) = (line_of("a time step")?.to_string(), None),
            Some("TIME") => time = Some(line_of("a time")?.to_string()),
            Some("NUMBER OF ATOMS") => match line_of("a number of atoms")?.parse() {
                Ok(n) => atoms = n,
                Err(_) => return bad(at + 1, "is not a number of atoms".into()),
            },
            Some(rest) if rest.starts_with("BOX BOUNDS") => {
                if rest.contains("xy") || rest.contains("abc") {
                    return bad(
                        at,
                        "a tilted box cannot be read: its edges must be along the axes".into(),
                    );
                }
                periodic = rest.split_whitespace().skip(2).map(|word| word == "pp").collect();
                bounds.clear();
                for _ in 0..3 {
                    let line = line_of("a bound of the box")?;
                    let ends: Vec<f64> =
                        line.split_whitespace().filter_map(|w| w.parse().ok()).collect();
                    let &[low, high] = &ends[..] else {
                        return bad(at, format!("'{line}' must be the two bounds of the box"));
                    };
                    bounds.push((low, high));
                }
            }
            Some(rest) if rest.starts_with("ATOMS") => {
                let here: Vec<String> = rest.split_whitespace().skip(1).map(String::from).collect();
                if names.is_empty() {
                    names = here.clone();
                    columns = vec![Words::default(); names.len() + 1];
                }
                if here != names {
                    return bad(at, "has different columns from the first frame".into());
                }
                for _ in 0..atoms {
                    let Some((at, line)) = lines.next() else {
                        return bad(
                            at,
                            format!("has fewer than {atoms} atoms: the file is truncated"),
                        );
                    };
                    let cells: Vec<&str> = line.split_whitespace().collect();
                    if cells.len() != names.len() || item(line).is_some() {
                        let message =
                            format!("has {} cells where {} are needed", cells.len(), names.len());
                        return bad(at, message);
                    }
                    columns[0].push(time.as_ref().unwrap_or(&step));
                    unwrapped(&names, &cells, &bounds)
                        .iter()
                        .zip(&mut columns[1..])
                        .for_each(|(cell, column)| column.push(cell));
                    row_lines.push(at as u64 + 1);
                }
            }
            _ if line.trim().is_empty() => {}
            _ => {}
        }
    }
    if row_lines.is_empty() {
        return Err(Error::input("has no atoms").file(path));
    }
    let mut table = Table::of_lines(path, row_lines);
    if time.is_none() {
        table
            .notes
            .push("the time is counted in steps (--time-step sets the length of one)".into());
    }
    let plain = |name: &String| match name.as_str() {
        "xs" | "ys" | "zs" | "xu" | "yu" | "zu" | "xsu" | "ysu" | "zsu" => name[..1].to_string(),
        _ => name.clone(),
    };
    table.names = ["time".to_string()].into_iter().chain(names.iter().map(plain)).collect();
    table.push_words(columns);
    let period = |k: usize| {
        let (low, high) = *bounds.get(k)?;
        periodic.get(k).copied().unwrap_or(false).then_some(high - low)
    };
    // Coordinates that are unwrapped, in the file or by image flags, are not periodic.
    let wrapped = |k: usize| {
        let name = ["x", "y", "z"][k];
        let open = names.iter().any(|n| *n == format!("{name}u") || *n == format!("{name}su"));
        !open && !names.contains(&format!("i{name}"))
    };
    let periods = (0..3).map(|k| period(k).filter(|_| wrapped(k))).collect();
    Ok((table, periods))
}

/// The cells of an atom, with positions as lengths and unwrapped by image flags.
fn unwrapped(names: &[String], cells: &[&str], bounds: &[(f64, f64)]) -> Vec<String> {
    let cell = |name: &str| names.iter().position(|n| n == name).map(|k| cells[k]);
    let place = |k: usize| {
        let axis = ["x", "y", "z"].iter().position(|axis| names[k].starts_with(axis))?;
        let (low, high) = *bounds.get(axis)?;
        let value: f64 = cells[k].parse().ok()?;
        let scaled = match &names[k][1..] {
            "" => value,
            "s" | "su" => low + value * (high - low),
            _ => return None,
        };
        let image: f64 = match cell(&format!("i{}", &names[k][..1])) {
            Some(flag) if !names[k].ends_with('u') => flag.parse().ok()?,
            _ => 0.0,
        };
        Some(scaled + image * (high - low)).filter(|moved| *moved != value)
    };
    (0..names.len()).map(|k| place(k).map_or(cells[k].to_string(), |x| x.to_string())).collect()
}
