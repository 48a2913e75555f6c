//! Tables: named columns from text in many dialects, `.npz`, `.npy`, `.safetensors` and (build
//! features) HDF5 and `.parquet`.
//!
//! The kind of a file is recognised by its first bytes, otherwise by its extension. Columns of text are
//! parsed as numbers only when these are asked for: unused columns may hold anything.

mod arrays;
mod hdf5;
mod kind;
mod parquet;
mod text;

use std::borrow::Cow;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::error::{Error, Result};
pub use arrays::{Array, numbers};
pub use kind::Kind;

/// A table in memory: columns of equal length, by name.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Where it came from, for error messages.
    pub path: PathBuf,
    /// Names of the columns, with units if the header has them.
    pub names: Vec<String>,
    /// The columns.
    pub columns: Vec<Column>,
    /// Zero-dimensional arrays in an `.npz` or `.safetensors`: single numbers, by name.
    pub scalars: Vec<(String, f64)>,
    /// Notes for the user about what was guessed or left out, a sentence each.
    pub notes: Vec<String>,
    /// Arrays that cannot be a column, and why.
    pub unreadable: Vec<(String, String)>,
    /// The comments above the rows of a text file, without `#` or `%`.
    pub comments: Vec<String>,
    /// The line of each row in a text file; empty elsewhere.
    pub lines: Vec<u64>,
}

/// The cells of a column.
#[derive(Clone, Debug, PartialEq)]
pub enum Column {
    /// NaN where a cell is missing.
    Numbers(Vec<f64>),
    /// The text as in the file.
    Words(Words),
}

/// Cells of text, which may be numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Words {
    /// All cells, one after the other.
    text: String,
    /// Where each ends.
    ends: Vec<usize>,
    /// True if the decimal separator is a comma.
    decimal_comma: bool,
    /// The cells as numbers, parsed on first use; or the row of a cell that is not a number.
    numbers: OnceLock<Result<Vec<f64>, usize>>,
}

impl Words {
    /// Adds a cell.
    pub fn push(&mut self, cell: &str) {
        self.text.push_str(cell);
        self.ends.push(self.text.len());
    }

    fn cell(&self, row: usize) -> &str {
        let begin = if row == 0 { 0 } else { self.ends[row - 1] };
        &self.text[begin..self.ends[row]]
    }

    fn cells(&self) -> impl Iterator<Item = &str> {
        (0..self.ends.len()).map(|row| self.cell(row))
    }

    /// Parses the cells as numbers. True/False and yes/no are 1/0 if the column has no other words.
    fn parse(&self) -> Result<Vec<f64>, usize> {
        let number = |cell| match is_missing(cell) {
            true => Some(f64::NAN),
            false => number(cell, self.decimal_comma),
        };
        let mut values = Vec::with_capacity(self.ends.len());
        for (row, cell) in self.cells().enumerate() {
            match number(cell) {
                Some(value) => values.push(value),
                None => {
                    let truth = |cell| if is_missing(cell) { Some(f64::NAN) } else { truth(cell) };
                    return self.cells().map(truth).collect::<Option<_>>().ok_or(row);
                }
            }
        }
        Ok(values)
    }
}

impl<T: AsRef<str>> FromIterator<T> for Words {
    fn from_iter<I: IntoIterator<Item = T>>(cells: I) -> Self {
        let mut words = Words::default();
        cells.into_iter().for_each(|cell| words.push(cell.as_ref()));
        words
    }
}

impl From<Vec<f64>> for Column {
    fn from(values: Vec<f64>) -> Self {
        Column::Numbers(values)
    }
}

impl Column {
    /// Number of rows.
    pub fn len(&self) -> usize {
        match self {
            Column::Numbers(values) => values.len(),
            Column::Words(words) => words.ends.len(),
        }
    }

    /// True if there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The numbers, NaN where a cell is missing; the error is the row of a cell that is not a number.
    pub fn values(&self) -> Result<&[f64], usize> {
        match self {
            Column::Numbers(values) => Ok(values),
            Column::Words(words) => match words.numbers.get_or_init(|| words.parse()) {
                Ok(values) => Ok(values),
                Err(row) => Err(*row),
            },
        }
    }

    /// The cell of a row, as in the file.
    pub fn word(&self, row: usize) -> Cow<'_, str> {
        match self {
            Column::Numbers(values) if values[row].is_nan() => "".into(),
            Column::Numbers(values) => values[row].to_string().into(),
            Column::Words(words) => words.cell(row).into(),
        }
    }

    /// True if the cell of a row has no value.
    pub fn is_missing(&self, row: usize) -> bool {
        match self {
            Column::Numbers(values) => values[row].is_nan(),
            Column::Words(words) => is_missing(words.cell(row)),
        }
    }

    /// Number of cells without a value.
    pub fn missing(&self) -> usize {
        (0..self.len()).filter(|&row| self.is_missing(row)).count()
    }

    /// Number of cells that are numbers as they stand (not True, yes, …).
    pub fn numbers(&self) -> usize {
        match self {
            Column::Numbers(values) => values.iter().filter(|v| !v.is_nan()).count(),
            Column::Words(words) => {
                let is =
                    |cell: &&str| !is_missing(cell) && number(cell, words.decimal_comma).is_some();
                words.cells().filter(is).count()
            }
        }
    }

    /// The index of each cell in `words`, which are sorted; NaN if it is not among them.
    pub fn indices_in(&self, words: &[String]) -> Vec<f64> {
        let place = |row| match words.binary_search_by(|word| word.as_str().cmp(&self.word(row))) {
            Ok(place) => place as f64,
            Err(_) => f64::NAN,
        };
        (0..self.len()).map(place).collect()
    }

    /// The column with only these `rows`.
    fn select(&self, rows: &[usize]) -> Column {
        match self {
            Column::Numbers(values) => {
                rows.iter().map(|&row| values[row]).collect::<Vec<_>>().into()
            }
            Column::Words(words) => {
                let kept: Words = rows.iter().map(|&row| words.cell(row)).collect();
                Column::Words(Words { decimal_comma: words.decimal_comma, ..kept })
            }
        }
    }
}

/// True for words that mark a missing value.
fn is_missing(cell: &str) -> bool {
    const WORDS: [&str; 9] = ["na", "n/a", "#n/a", "nan", "-nan", "+nan", "null", "none", "--"];
    match cell {
        "" | "-" | "?" => true,
        _ => cell.len() <= 4 && WORDS.iter().any(|word| cell.eq_ignore_ascii_case(word)),
    }
}

/// 1 or 0 for a word that means true or false.
fn truth(cell: &str) -> Option<f64> {
    let is = |words: [&str; 2]| words.iter().any(|word| cell.eq_ignore_ascii_case(word));
    match cell {
        _ if is(["true", "yes"]) => Some(1.0),
        _ if is(["false", "no"]) => Some(0.0),
        _ => None,
    }
}

/// Parses a number as programs write it, including Fortran's exponents (`1.0D+03`, `1.0-103`).
fn number(cell: &str, decimal_comma: bool) -> Option<f64> {
    if decimal_comma && cell.contains([',', '.']) {
        // A point among decimal commas separates thousands or is an error: neither is guessed.
        return match cell.contains('.') || cell.matches(',').count() > 1 {
            true => None,
            false => number(&cell.replacen(',', ".", 1), false),
        };
    }
    if let Ok(value) = cell.parse() {
        return Some(value);
    }
    let first = cell.chars().next()?;
    if !(first.is_ascii_digit() || matches!(first, '+' | '-' | '.' | '\u{2212}')) {
        return None;
    }
    let plain = cell.replace('\u{2212}', "-").replace(['D', 'd'], "e");
    if let Ok(value) = plain.parse() {
        return Some(value);
    }
    // Fortran omits the letter before exponents of three digits.
    let at = plain.rfind(['+', '-']).filter(|&at| at > 0)?;
    let (mantissa, exponent) = plain.split_at(at);
    let digits = exponent.len() == 4 && exponent[1..].bytes().all(|b| b.is_ascii_digit());
    let ends = mantissa.ends_with(|c: char| c.is_ascii_digit() || c == '.');
    (digits && ends).then(|| format!("{mantissa}e{exponent}").parse().ok()).flatten()
}

/// A column's name without its unit, and the unit: `x [AU]`, `x (km)`. AHF numbers its columns in this way.
pub fn name_and_unit(name: &str) -> (&str, Option<&str>) {
    let split = |open: char, close: char| {
        let inside = name.strip_suffix(close)?;
        let at = inside.find(open).filter(|&at| at > 0)?;
        let (short, unit) = (inside[..at].trim_end(), inside[at + 1..].trim());
        (!short.is_empty()).then_some((short, Some(unit)))
    };
    split('[', ']').or_else(|| split('(', ')')).unwrap_or((name, None))
}

impl Table {
    /// A table of numbers in memory; NaN where a value is missing.
    pub fn new(names: Vec<String>, columns: Vec<Vec<f64>>) -> Self {
        let columns = columns.into_iter().map(Column::from).collect();
        Table { names, columns, ..Table::default() }
    }

    /// Reads a table from a file of any supported kind.
    ///
    /// An `.npz` or `.safetensors` holds one array of shape `[row]` per column; arrays of shape
    /// `[row, k]` give columns `name0`, `name1`, …, and those of shape `[]` are scalars. An `.npy` of
    /// shape `[row, k]` gives `x0`, `x1`, …, as does text without a header.
    ///
    /// # Errors
    /// A file of another kind, with its name and what to do; a damaged file; rows of different lengths.
    pub fn read(path: &Path) -> Result<Self> {
        let mut table = match Kind::of(path)? {
            Kind::Text => text::read(path)?,
            Kind::Parquet => parquet::read(path)?,
            Kind::Npz | Kind::Npy | Kind::Safetensors | Kind::Hdf5 => {
                arrays::table(path, &Array::read(path)?)?
            }
            Kind::Other(what) => return Err(Error::input(what).file(path)),
            Kind::Binary => return Err(Error::input(kind::BINARY).file(path)),
        };
        table.path = path.to_path_buf();
        table.check_lengths()?;
        Ok(table)
    }

    /// The table whose columns are the `arrays` of the file `path`, as made by [`Table::read`].
    ///
    /// # Errors
    /// Arrays with more than two axes, without rows or of different lengths.
    pub fn of_arrays(path: &Path, arrays: &[Array]) -> Result<Self> {
        let table = Table { path: path.to_path_buf(), ..arrays::table(path, arrays)? };
        table.check_lengths()?;
        Ok(table)
    }

    /// An error if there are no rows or the columns differ in length.
    fn check_lengths(&self) -> Result<()> {
        if self.rows() == 0 {
            return Err(Error::input("the table has no rows").file(&self.path));
        }
        for (name, column) in self.names.iter().zip(&self.columns) {
            if column.len() != self.rows() {
                let message =
                    format!("has {} rows; '{}' has {}", column.len(), self.names[0], self.rows());
                return Err(Error::input(message).file(&self.path).field(name));
            }
        }
        Ok(())
    }

    /// Number of rows, without the header.
    pub fn rows(&self) -> usize {
        self.columns.first().map_or(0, Column::len)
    }

    /// The number of a row in error messages: its line in a text file; elsewhere the first row is 2.
    pub fn row_number(&self, row: usize) -> u64 {
        self.lines.get(row).copied().unwrap_or(row as u64 + 2)
    }

    /// The single number `name`.
    pub fn scalar(&self, name: &str) -> Option<f64> {
        self.scalars.iter().find(|(n, _)| n == name).map(|(_, value)| *value)
    }

    /// Position of the column `name`, given with or without the unit in the header.
    pub fn find(&self, name: &str) -> Option<usize> {
        let only = |same: &dyn Fn(&str) -> bool| {
            let mut found = (0..self.names.len()).filter(|&k| same(&self.names[k]));
            found.next().filter(|_| found.next().is_none())
        };
        match self.names.iter().position(|n| n == name) {
            Some(index) => Some(index),
            None => only(&|n| name_and_unit(n).0 == name),
        }
    }

    /// The error message for a missing column.
    pub(crate) fn missing_column_message(&self) -> String {
        const MOST: usize = 40;
        let more = match self.names.len().saturating_sub(MOST) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let names = self.names[..self.names.len().min(MOST)].join(", ");
        format!("there is no such column; the columns are {names}{more}")
    }

    /// The cells of the column `name`; an error if there is none, or more than one.
    pub fn cells(&self, name: &str) -> Result<&Column> {
        let error = |message: String| Error::input(message).file(&self.path).field(name);
        let unreadable = self.unreadable.iter().find(|(other, _)| other == name);
        if let Some((_, why)) = unreadable {
            return Err(error(why.clone()));
        }
        let index = self.find(name).ok_or_else(|| error(self.missing_column_message()))?;
        let twice = self.names[index + 1..].contains(&self.names[index]);
        if twice {
            return Err(error("the column occurs twice".into()).row(1));
        }
        Ok(&self.columns[index])
    }

    /// The numbers of the column `name`, NaN where a cell is missing; an error if there is no such column or
    /// a cell is not a number.
    pub fn values(&self, name: &str) -> Result<&[f64]> {
        let cells = self.cells(name)?;
        cells.values().map_err(|row| {
            let message = format!("'{}' is not a number", cells.word(row));
            Error::input(message).file(&self.path).field(name).row(self.row_number(row))
        })
    }

    /// The column `name`; an error if there is none, or a cell is missing, infinite or not a number.
    pub fn column(&self, name: &str) -> Result<&[f64]> {
        let column = self.values(name)?;
        let Some(row) = column.iter().position(|v| !v.is_finite()) else { return Ok(column) };
        let others = column.iter().filter(|v| v.is_nan()).count();
        let many = match (column[row].is_nan(), others) {
            (true, 2..) => format!("; missing in {others} of {} rows", column.len()),
            _ => String::new(),
        };
        let cell = match self.cells(name)?.word(row) {
            _ if column[row].is_infinite() => column[row].to_string(),
            word if word.is_empty() => "nothing".to_string(),
            word if word.eq_ignore_ascii_case("nan") => "NaN".to_string(),
            word => word.to_string(),
        };
        let message = format!("{cell} where a number is needed{many}");
        Err(Error::input(message).file(&self.path).field(name).row(self.row_number(row)))
    }

    /// A table without columns so far, whose rows are on these `lines` of the file `path`.
    pub fn of_lines(path: &Path, lines: Vec<u64>) -> Self {
        Table { path: path.to_path_buf(), lines, ..Table::default() }
    }

    /// Adds columns of text.
    pub fn push_words(&mut self, columns: impl IntoIterator<Item = Words>) {
        self.columns.extend(columns.into_iter().map(Column::Words));
    }

    /// The table with only these `rows`.
    pub fn with_rows(&self, rows: &[usize]) -> Table {
        Table {
            path: self.path.clone(),
            names: self.names.clone(),
            columns: self.columns.iter().map(|column| column.select(rows)).collect(),
            scalars: self.scalars.clone(),
            notes: self.notes.clone(),
            unreadable: self.unreadable.clone(),
            comments: self.comments.clone(),
            lines: rows.iter().map(|&row| self.row_number(row)).collect(),
        }
    }

    /// The column `name`, NaN where a cell is missing; an error if there is none, or a cell is infinite or not
    /// a number.
    pub fn with_gaps(&self, name: &str) -> Result<&[f64]> {
        let column = self.values(name)?;
        match column.iter().position(|v| v.is_infinite()) {
            Some(row) => {
                let message = format!("{} where a number is needed", column[row]);
                Err(Error::input(message).file(&self.path).field(name).row(self.row_number(row)))
            }
            None => Ok(column),
        }
    }

    /// Leaves out the rows with a missing value in one of the columns `names`, and returns their number.
    ///
    /// # Errors
    /// A column that does not exist; no complete row.
    pub fn drop_missing(&mut self, names: &[String]) -> Result<usize> {
        let columns = names.iter().map(|name| self.cells(name)).collect::<Result<Vec<_>>>()?;
        let whole = |row: &usize| !columns.iter().any(|column| column.is_missing(*row));
        let rows: Vec<usize> = (0..self.rows()).filter(whole).collect();
        let dropped = self.rows() - rows.len();
        if rows.is_empty() {
            let message = format!("every row lacks a value in one of {}", names.join(", "));
            return Err(Error::input(message).file(&self.path));
        }
        if dropped > 0 {
            *self = self.with_rows(&rows);
        }
        Ok(dropped)
    }

    /// The text of a `.csv` file; cells without a value are empty.
    pub fn csv(&self) -> String {
        let quoted = |cell: &str| match cell.contains([',', '"', '\n', '\r']) {
            true => format!("\"{}\"", cell.replace('"', "\"\"")),
            false => cell.to_string(),
        };
        let mut text = self.names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(",");
        text.push('\n');
        for row in 0..self.rows() {
            for (index, column) in self.columns.iter().enumerate() {
                let separator = if index == 0 { "" } else { "," };
                let _ = match column {
                    Column::Numbers(values) => write!(text, "{separator}{}", values[row]),
                    Column::Words(words) => write!(text, "{separator}{}", quoted(words.cell(row))),
                };
            }
            text.push('\n');
        }
        text
    }

    /// Writes the table as a `.csv` file, all at once.
    pub fn write_csv(&self, path: &Path) -> Result<()> {
        crate::store::write_atomic(path, self.csv().as_bytes())
    }
}

#[cfg(test)]
mod tests;
