//! Text tables: any separator, comments, with or without a header.

use std::io::Read;
use std::path::Path;

use super::{Column, Table, Words, is_missing, number};
use crate::error::{Error, Result};

/// Number of lines used to guess the separator.
const SAMPLE: usize = 200;

/// What separates cells.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Separator {
    Is(char),
    /// Any number of blanks and tabs.
    Blanks,
}

impl Separator {
    fn name(self) -> &'static str {
        match self {
            Separator::Is('\t') => "tab",
            Separator::Is(';') => "semicolon",
            Separator::Is('|') => "|",
            Separator::Is(_) => "comma",
            Separator::Blanks => "blanks",
        }
    }
}

/// Text read record by record.
struct Records<'a> {
    text: &'a str,
    /// Where the next line begins.
    at: usize,
    /// The number of that line, from 1.
    line: u64,
    separator: Separator,
}

impl<'a> Records<'a> {
    fn new(text: &'a str, separator: Separator) -> Self {
        Records { text, at: 0, line: 1, separator }
    }

    /// Moves to the next line that is neither blank nor a comment; false at the end. Comments go to `comments`.
    fn skip(&mut self, comments: &mut Vec<&'a str>) -> bool {
        while self.at < self.text.len() {
            let rest = &self.text[self.at..];
            let end = rest.find('\n').unwrap_or(rest.len());
            let line = rest[..end].trim();
            match line.strip_prefix(['#', '%']) {
                None if !line.is_empty() => return true,
                Some(comment) => comments.push(comment.trim_start_matches(['#', '%']).trim()),
                None => {}
            }
            self.at += end + 1;
            self.line += 1;
        }
        false
    }

    /// Reads one record into `cells`, trimmed and without quotes, and returns the line that it began on.
    fn next(&mut self, cells: &mut Words) -> u64 {
        cells.text.clear();
        cells.ends.clear();
        let begun = self.line;
        let text = self.text;
        // Blanks before the first cell and after the last are not separators.
        let mut at = self.at;
        loop {
            let blank = |c: char| c == ' ' || (c == '\t' && self.separator != Separator::Is('\t'));
            at += text[at..].len() - text[at..].trim_start_matches(blank).len();
            let ends_here = text[at..].is_empty() || text[at..].starts_with(['\n', '\r']);
            if ends_here && self.separator == Separator::Blanks {
                break;
            }
            if text[at..].starts_with('"') {
                at += 1;
                loop {
                    let rest = &text[at..];
                    let quote = rest.find('"').unwrap_or(rest.len());
                    self.line += rest[..quote].matches('\n').count() as u64;
                    cells.text.push_str(&rest[..quote]);
                    at = (at + quote + 1).min(text.len());
                    match text[at..].starts_with('"') {
                        true => cells.text.push('"'),
                        false => break,
                    }
                    at += 1;
                }
            }
            let stop = |c: char| match self.separator {
                Separator::Is(separator) => c == separator || c == '\n',
                Separator::Blanks => c.is_whitespace(),
            };
            let end = text[at..].find(stop).map_or(text.len(), |end| at + end);
            cells.text.push_str(text[at..end].trim());
            cells.ends.push(cells.text.len());
            at = end;
            match self.separator {
                Separator::Is(separator) if text[at..].starts_with(separator) => {
                    at += separator.len_utf8();
                }
                Separator::Blanks if text[at..].starts_with([' ', '\t']) => {}
                _ => break,
            }
        }
        self.at = text[at..].find('\n').map_or(text.len(), |end| at + end + 1);
        self.line += 1;
        begun
    }
}

/// The separator that splits the first lines into equal numbers of cells.
fn guess(text: &str, extension: &str) -> Separator {
    let first = if extension == "csv" { ',' } else { '\t' };
    let all = [first, '\t', ';', '|', ','].map(Separator::Is);
    let widths = |separator| -> Vec<usize> {
        let (mut records, mut cells) = (Records::new(text, separator), Words::default());
        let mut widths = Vec::new();
        while widths.len() < SAMPLE && records.skip(&mut Vec::new()) {
            records.next(&mut cells);
            // A separator at the end of a line does not start a cell.
            let last = cells.ends.len() - usize::from(cells.cells().last() == Some(""));
            widths.push(last.max(1));
        }
        widths
    };
    let mut most = (0, Separator::Is(first));
    for separator in all.into_iter().chain([Separator::Blanks]) {
        let widths = widths(separator);
        let usual = widths.get(1).or(widths.first()).copied().unwrap_or(1);
        let same = widths.iter().filter(|&&width| width == usual).count();
        // A header may lack the name of an index.
        let header = widths.first().is_none_or(|&w| w == usual || (w + 1 == usual && w > 1));
        if usual > 1 && header && same + 1 >= widths.len() {
            return separator;
        }
        if usual > 1 && separator != Separator::Blanks && same > most.0 {
            most = (same, separator);
        }
    }
    most.1
}

/// The text of a file: unpacked, and decoded from UTF-16, UTF-8 or else Latin-1.
fn decoded(path: &Path, notes: &mut Vec<String>) -> Result<String> {
    let mut bytes = std::fs::read(path).map_err(|e| Error::io("read", path, e))?;
    if bytes.starts_with(b"\x1f\x8b") {
        let mut unpacked = Vec::new();
        flate2::read::MultiGzDecoder::new(&bytes[..])
            .read_to_end(&mut unpacked)
            .map_err(|e| Error::input(format!("is not a complete gzip file ({e})")).file(path))?;
        bytes = unpacked;
        if let Some(what) = super::Kind::inside(&bytes) {
            return Err(Error::input(what).file(path));
        }
    }
    let utf16 = |from: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes[2..].as_chunks().0.iter().map(|b| from(*b)).collect();
        String::from_utf16_lossy(&units)
    };
    let mut text = match bytes {
        _ if bytes.starts_with(b"\xff\xfe") => utf16(u16::from_le_bytes),
        _ if bytes.starts_with(b"\xfe\xff") => utf16(u16::from_be_bytes),
        bytes => match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                notes.push("read as Latin-1: it is not valid UTF-8".into());
                error.as_bytes().iter().map(|&b| char::from(b)).collect()
            }
        },
    };
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    // Old Macs end lines with just a carriage return.
    if text.contains('\r') && !text.contains('\n') {
        text = text.replace('\r', "\n");
    }
    Ok(text)
}

/// True for a cell that cannot be in a header.
fn is_value(cell: &str) -> bool {
    is_missing(cell) || number(cell, false).is_some() || number(cell, true).is_some()
}

/// The names in the last comment with as many names as there are cells.
fn names_in(comments: &[&str], separator: Separator, cells: usize) -> Option<Vec<String>> {
    let names = |comment: &&str, separator| {
        let mut names = Words::default();
        if !comment.is_empty() {
            Records::new(comment, separator).next(&mut names);
        }
        let found = names.ends.len() == cells && !names.cells().any(is_value);
        found.then(|| names.cells().map(String::from).collect::<Vec<_>>())
    };
    let separators = [separator, Separator::Blanks, Separator::Is(',')];
    comments.iter().rev().find_map(|comment| separators.iter().find_map(|&s| names(comment, s)))
}

pub(super) fn read(path: &Path) -> Result<Table> {
    let mut table = Table::default();
    let text = decoded(path, &mut table.notes)?;
    let inner = match path.extension().and_then(|e| e.to_str()) {
        Some(gz) if gz.eq_ignore_ascii_case("gz") => path.with_extension(""),
        _ => path.to_path_buf(),
    };
    let extension = inner.extension().and_then(|e| e.to_str()).unwrap_or("").to_lowercase();
    let separator = guess(&text, &extension);
    let mut records = Records::new(&text, separator);
    let (mut comments, mut cells) = (Vec::new(), Words::default());
    if !records.skip(&mut comments) {
        return Err(Error::input("the table has no rows").file(path));
    }
    let (at, line) = (records.at, records.line);
    records.next(&mut cells);
    let first: Vec<String> = cells.cells().map(String::from).collect();
    let mut second = Words::default();
    if records.skip(&mut Vec::new()) {
        records.next(&mut second);
    }
    if let Some(names) = numbered(&first, &second) {
        (records.at, records.line) = (at, line);
        records.next(&mut cells);
        table.notes.push("the header only numbers the columns: they are called x0, x1, …".into());
        table.names = names;
    } else if headless(&first, &second) {
        (records.at, records.line) = (at, line);
        table.names = match names_in(&comments, separator, first.len()) {
            Some(names) => names,
            None => {
                let names: Vec<String> = (0..first.len()).map(|k| format!("x{k}")).collect();
                let range = match &names[..] {
                    [first, .., last] => format!("columns are called {first} to {last}"),
                    _ => "column is called x0".to_string(),
                };
                table.notes.push(format!("there is no header: the {range}"));
                names
            }
        };
    } else {
        (records.at, records.line) = (at, line);
        records.next(&mut cells);
        table.names = first;
    }
    table.comments = comments.into_iter().map(String::from).collect();
    let mut columns = vec![Words::default(); table.names.len()];
    let mut begun = false;
    while records.skip(&mut Vec::new()) {
        let line = records.next(&mut cells);
        if !begun {
            begun = true;
            // R writes names of rows, without a header for them.
            if cells.ends.len() == columns.len() + 1 && cells.cells().last() != Some("") {
                table.names.insert(0, String::new());
                columns.push(Words::default());
            }
            // A separator at the end of the header does not start a column.
            if cells.ends.len() + 1 == columns.len()
                && table.names.last().is_some_and(String::is_empty)
            {
                table.names.pop();
                columns.pop();
            }
        }
        // Empty cells beyond the last column come from separators at the end of the line.
        let beyond = (columns.len()..cells.ends.len()).any(|k| !cells.cell(k).is_empty());
        if cells.ends.len() < columns.len() || beyond {
            let message = format!(
                "is not valid CSV: has {} cells (separator: {}) but the table has {} columns",
                cells.ends.len(),
                separator.name(),
                columns.len()
            );
            return Err(Error::input(message).file(path).row(line));
        }
        for (column, cell) in columns.iter_mut().zip(cells.cells()) {
            column.push(cell);
        }
        table.lines.push(line);
    }
    if table.lines.is_empty() {
        return Err(Error::input("the table has no rows").file(path));
    }
    unnamed(&mut table, &mut columns);
    let decimal_comma = separator != Separator::Is(',') && decimal_commas(&columns);
    if separator != Separator::Is(',') && columns.len() > 1 || decimal_comma {
        let decimals = if decimal_comma { ", decimal commas" } else { "" };
        table.notes.push(format!("separator: {}{decimals}", separator.name()));
    }
    columns.iter_mut().for_each(|column| column.decimal_comma = decimal_comma);
    table.columns = columns.into_iter().map(Column::Words).collect();
    Ok(table)
}

/// The names of columns under a header 0, 1, 2, …, which pandas writes if they have no names.
fn numbered(first: &[String], second: &Words) -> Option<Vec<String>> {
    let index = usize::from(first.first().is_some_and(String::is_empty));
    let counts = first[index..].iter().enumerate().all(|(k, cell)| *cell == k.to_string());
    // A header of two numbers, or above rows of integers, may be data.
    let fractions = second.cells().skip(index).any(|cell| cell.contains('.'));
    let sure = counts && fractions && first.len() - index >= 3 - 2 * index;
    let name = |k: usize| if k < index { String::new() } else { format!("x{}", k - index) };
    sure.then(|| (0..first.len()).map(name).collect())
}

/// True if the first row is not a header: it holds only values, or has values in the same columns as the second.
fn headless(first: &[String], second: &Words) -> bool {
    if first.iter().all(|cell| is_value(cell)) {
        return true;
    }
    let fraction = |cell: &str| is_value(cell) && cell.contains(['.', ',']);
    let alike = second.ends.len() == first.len()
        && first.iter().zip(second.cells()).all(|(a, b)| is_value(a) == is_value(b));
    alike && first.iter().any(|cell| fraction(cell))
}

/// Leaves out columns without a name: an index, or those due to separators at the ends of lines.
fn unnamed(table: &mut Table, columns: &mut Vec<Words>) {
    for k in (0..columns.len()).rev() {
        let name = &table.names[k];
        let index = name.strip_prefix("Unnamed: ").is_some_and(|n| n.parse::<usize>().is_ok());
        if !(name.is_empty() || index) {
            continue;
        }
        table.names.remove(k);
        let column = columns.remove(k);
        if column.cells().any(|cell| !cell.is_empty()) {
            let message = format!("column {} has no name and is left out", k + 1);
            table.notes.push(message);
        }
    }
}

/// True if commas are decimal separators: some number has a comma, and no number has a point.
fn decimal_commas(columns: &[Words]) -> bool {
    let comma = |cell: &str| cell.contains(',') && number(cell, true).is_some();
    if !columns.iter().any(|c| c.text.contains(',') && c.cells().any(comma)) {
        return false;
    }
    let point = |cell: &str| cell.contains('.') && number(cell, false).is_some();
    !columns.iter().any(|c| c.text.contains('.') && c.cells().any(point))
}
