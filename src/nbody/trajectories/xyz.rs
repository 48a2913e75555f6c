//! XYZ files, plain and extended, read as tables.

use std::path::Path;

use crate::error::{Error, Result};
use crate::store::table::{Table, Words};

/// True for text that begins like an XYZ file: a line with only the number of atoms, then any line, then an atom.
pub(super) fn is(begin: &str) -> bool {
    let mut lines = begin.lines();
    let atoms = lines.next().and_then(|line| line.trim().parse::<usize>().ok());
    lines.next();
    let mut cells = lines.next().unwrap_or("").split_whitespace();
    let named = cells.next().is_some_and(|word| word.starts_with(|c: char| c.is_alphabetic()));
    atoms.is_some() && named && cells.next().is_some_and(|word| word.parse::<f64>().is_ok())
}

/// The value of `key=value` in a comment; the value may be quoted.
fn value<'a>(comment: &'a str, keys: &[&str]) -> Option<&'a str> {
    let lower = comment.to_ascii_lowercase();
    keys.iter().find_map(|key| {
        let begins = |at: &usize| *at == 0 || !lower.as_bytes()[at - 1].is_ascii_alphanumeric();
        let (at, sign) = ["=", ":"].iter().find_map(|sign| {
            let key = format!("{key}{sign}");
            Some((lower.match_indices(&key).map(|(at, _)| at).find(begins)?, key.len()))
        })?;
        let rest = comment[at + sign..].trim_start();
        match rest.strip_prefix('"') {
            Some(rest) => rest.split('"').next(),
            None => rest.split([' ', ',', '\t']).next(),
        }
    })
}

/// The columns of an atom: those of `Properties`, or species and position.
fn properties(comment: &str) -> Option<Vec<String>> {
    let Some(text) = value(comment, &["properties"]) else {
        return Some(["species", "x", "y", "z"].map(String::from).to_vec());
    };
    let parts: Vec<&str> = text.split(':').collect();
    let mut names = Vec::new();
    for part in parts.chunks(3) {
        let &[name, _, width] = part else { return None };
        match width.parse::<usize>().ok()? {
            1 => names.push(name.to_string()),
            3 => {
                let prefix = match name.to_ascii_lowercase().as_str() {
                    "pos" | "positions" => "",
                    "vel" | "velo" | "velocity" | "velocities" => "v",
                    "force" | "forces" => "f",
                    "acc" | "acceleration" | "accelerations" => "a",
                    _ => name,
                };
                names.extend(["x", "y", "z"].map(|axis| format!("{prefix}{axis}")));
            }
            width => names.extend((0..width).map(|k| format!("{name}_{k}"))),
        }
    }
    Some(names)
}

/// The file as a table of time, body, …, and the period of each axis.
pub(super) fn table(path: &Path) -> Result<(Table, Vec<Option<f64>>)> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
    let mut lines = text.lines().enumerate().peekable();
    let bad =
        |line: usize, message: String| Err(Error::input(message).file(path).row(line as u64 + 1));
    let mut names: Vec<String> = Vec::new();
    let mut columns: Vec<Words> = Vec::new();
    let (mut row_lines, mut frame, mut timed) = (Vec::new(), 0, true);
    let mut periods = vec![None; 3];
    while let Some((at, line)) = lines.next() {
        if line.trim().is_empty() {
            continue;
        }
        let Ok(atoms) = line.trim().parse::<usize>() else {
            return bad(at, format!("'{}' is not a number of atoms", line.trim()));
        };
        let comment = lines.next().map_or("", |(_, line)| line);
        let Some(here) = properties(comment) else {
            return bad(at + 1, "has Properties that cannot be read".into());
        };
        if names.is_empty() {
            names = here.clone();
            columns = vec![Words::default(); names.len() + 2];
            let lattice: Vec<f64> = value(comment, &["lattice"])
                .map(|l| l.split_whitespace().filter_map(|w| w.parse().ok()).collect())
                .unwrap_or_default();
            let periodic = value(comment, &["pbc"]).map(str::to_ascii_lowercase);
            let periodic: Option<Vec<bool>> = periodic
                .map(|p| p.split_whitespace().map(|word| word.starts_with(['t', '1'])).collect());
            for (axis, period) in periods.iter_mut().enumerate() {
                let open = periodic.as_ref().is_some_and(|p| p.get(axis) == Some(&false));
                *period = lattice.get(4 * axis).copied().filter(|_| !open);
            }
        }
        if here != names {
            return bad(at + 1, "has different columns from the first frame".into());
        }
        let time = value(comment, &["time", "t"]).filter(|t| t.parse::<f64>().is_ok());
        let step =
            value(comment, &["timestep", "step", "frame"]).filter(|t| t.parse::<f64>().is_ok());
        timed &= time.is_some();
        let time = time.or(step).map_or(frame.to_string(), String::from);
        frame += 1;
        for atom in 0..atoms {
            let Some((at, line)) = lines.next() else {
                return bad(at, format!("has {atom} of {atoms} atoms: the file is truncated"));
            };
            let cells: Vec<&str> = line.split_whitespace().collect();
            if cells.len() < names.len() {
                let message = format!("has {} cells where {} are needed", cells.len(), names.len());
                return bad(at, message);
            }
            columns[0].push(&time);
            columns[1].push(&(atom + 1).to_string());
            columns[2..].iter_mut().zip(&cells).for_each(|(column, cell)| column.push(cell));
            row_lines.push(at as u64 + 1);
        }
    }
    let mut table = Table::of_lines(path, row_lines);
    if !timed {
        table.notes.push(
            "the time is counted in frames or steps (--time-step sets the length of one)".into(),
        );
    }
    // A column that numbers the atoms is preferred to their place in the list.
    let own = names.iter().any(|name| ["id", "body", "particle", "atom"].contains(&name.as_str()));
    let place = if own { "place" } else { "body" };
    table.names = ["time", place].map(String::from).into_iter().chain(names).collect();
    table.push_words(columns);
    Ok((table, periods))
}
