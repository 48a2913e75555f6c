//! The columns of a table as a search needs them: names that can stand in a formula, numeric inputs, words as groups,
//! complete rows.

use serde_json::{Map, Value, json};

use super::options::Options;
use crate::error::{Error, Result};
use crate::formula::expression::Expression;
use crate::store::table::{Column, Table, name_and_unit};

/// Fewer rows than this give a warning.
const FEW_ROWS: usize = 10;

/// A table that is ready for a search, and the notes for the user.
#[derive(Clone, Debug)]
pub struct Columns {
    /// Its columns have names that can stand in a formula.
    pub table: Table,
    /// The options, with these names.
    pub options: Options,
    /// The inputs.
    pub inputs: Vec<String>,
    /// Names that differ from those of the file, with the file's.
    pub renamed: Vec<(String, String)>,
    /// Columns of words that stand for groups, with the words: group k is word k.
    pub words: Vec<(String, Vec<String>)>,
    /// One sentence each.
    pub notes: Vec<String>,
}

impl Columns {
    /// Prepares the table.
    ///
    /// # Errors
    /// A missing column; a row that lacks a value, unless such rows are to be left out.
    pub fn new(mut table: Table, asked: &Options) -> Result<Columns> {
        let mut options = asked.clone();
        let mut notes = std::mem::take(&mut table.notes);
        let renamed = rename(&mut table, &mut options);
        let named = |name: &String| {
            let original = renamed.iter().find(|(safe, _)| safe == name);
            original.map_or_else(|| name.clone(), |(_, original)| original.clone())
        };
        if !renamed.is_empty() {
            let pairs = renamed.iter().map(|(safe, original)| format!("{safe} is '{original}'"));
            notes.push(format!("in formulas {}", pairs.collect::<Vec<_>>().join(", ")));
        }
        let mut inputs = options.inputs.clone();
        if inputs.is_empty() {
            let (found, left_out) = numeric(&table, &options);
            if !left_out.is_empty() && !found.is_empty() {
                let list: Vec<String> =
                    left_out.iter().map(|(name, why)| format!("{} ({why})", named(name))).collect();
                notes.push(format!("left out: {}", list.join(", ")));
            }
            inputs = match (&found[..], left_out.into_iter().next()) {
                // The error for this column then says what is wrong with the only candidate.
                ([], Some((name, _))) => vec![name],
                _ => found,
            };
        }
        let mut words = Vec::new();
        for name in &inputs {
            if let Some(of_column) =
                indexed(&options, name).then(|| groups(&mut table, name)).flatten()
            {
                words.push((name.clone(), of_column));
            }
        }
        let others = options.target.iter().chain(&options.weights).chain(&options.sigma);
        let mut needed: Vec<String> = inputs.iter().chain(others).cloned().collect();
        needed.extend(options.errors_of_inputs()?.into_iter().map(|(_, error)| error));
        let mut columns = Columns { table, options, inputs, renamed, words, notes };
        // A missing column is worse than a gap in another one: the code that asks for it reports it.
        if needed.iter().all(|name| columns.table.find(name).is_some()) {
            columns.whole_rows(&needed).map_err(|e| columns.with_original_name(e))?;
        }
        let rows = columns.table.rows();
        if rows < FEW_ROWS {
            let message = format!("warning: {rows} rows are few: many formulas fit them");
            columns.notes.push(message);
        }
        Ok(columns)
    }

    /// An error if a row lacks a value, or drops the rows that do.
    fn whole_rows(&mut self, needed: &[String]) -> Result<()> {
        let table = &mut self.table;
        let there: Vec<String> =
            needed.iter().filter(|n| table.find(n).is_some()).cloned().collect();
        if self.options.drop_missing {
            let all = table.rows();
            let dropped = table.drop_missing(&there)?;
            self.notes.push(format!("{dropped} of {all} rows lack a value and are left out"));
            return Ok(());
        }
        let cells: Vec<&Column> =
            there.iter().map(|name| table.cells(name)).collect::<Result<_>>()?;
        let lacks = |row: &usize| cells.iter().any(|column| column.is_missing(*row));
        let lacking: Vec<usize> = (0..table.rows()).filter(lacks).collect();
        let Some(&first) = lacking.first() else { return Ok(()) };
        let of = cells.iter().position(|column| column.is_missing(first)).expect("one lacks it");
        let (name, word) = (&there[of], cells[of].word(first).into_owned());
        let (count, rows) = (lacking.len(), table.rows());
        let lack = if count == 1 { "rows lacks" } else { "rows lack" };
        let message = format!(
            "{} where a number is needed; {count} of {rows} {lack} a value: --drop-missing leaves such rows out",
            if word.is_empty() { "nothing" } else { &word },
        );
        let error = Error::input(message).file(&table.path).field(name);
        Err(error.row(table.row_number(first)))
    }

    /// The same error with the file's name for the column.
    pub fn with_original_name(&self, mut error: Error) -> Error {
        if let Some(field) = &mut error.field
            && let Some((_, original)) = self.renamed.iter().find(|(safe, _)| safe == field)
        {
            field.clone_from(original);
        }
        error
    }

    /// The file's name for a column.
    pub fn original(&self, name: &str) -> String {
        let known = self.renamed.iter().find(|(safe, _)| safe == name);
        known.map_or_else(|| name.to_string(), |(_, original)| original.clone())
    }

    /// The file's names of the columns that were renamed.
    pub fn originals(&self) -> Map<String, Value> {
        self.renamed.iter().map(|(safe, original)| (safe.clone(), json!(original))).collect()
    }
}

/// True if the template has a number for each value of this column.
fn indexed(options: &Options, name: &str) -> bool {
    let template: String =
        options.template.iter().flat_map(|t| t.chars()).filter(|c| !c.is_whitespace()).collect();
    template.contains(&format!("[{name}]"))
}

/// The columns that can be inputs, and those that cannot, with the reason.
fn numeric(table: &Table, options: &Options) -> (Vec<String>, Vec<(String, String)>) {
    let (mut found, mut left_out) = (Vec::new(), Vec::new());
    let rows = table.rows();
    let errors = options.errors_of_inputs().unwrap_or_default();
    for (name, column) in table.names.iter().zip(&table.columns) {
        let weighs = options.weights.iter().chain(&options.sigma).any(|other| other == name)
            || errors.iter().any(|(_, other)| other == name);
        if options.target.contains(name) || weighs {
            continue;
        }
        let missing = column.missing();
        let why = match column.values() {
            _ if indexed(options, name) => None,
            _ if missing == rows => Some("no values".to_string()),
            _ if 2 * missing >= rows => Some(format!("{missing} of {rows} values missing")),
            // One bad cell among numbers is an error; it does not make a column of words.
            Err(_) if 2 * column.numbers() < rows => Some("no numbers".to_string()),
            _ => None,
        };
        match why {
            // A duplicate name is reported elsewhere.
            None if found.contains(name) => {}
            None => found.push(name.clone()),
            Some(why) => left_out.push((name.clone(), why)),
        }
    }
    (found, left_out)
}

/// Turns a column of words into numbers 0, 1, …, in the order of the words, and returns the words.
fn groups(table: &mut Table, name: &str) -> Option<Vec<String>> {
    let column = &table.columns[table.find(name)?];
    if column.values().is_ok() {
        return None;
    }
    let there = (0..column.len()).filter(|&row| !column.is_missing(row));
    let mut words: Vec<String> = there.map(|row| column.word(row).into_owned()).collect();
    words.sort();
    words.dedup();
    let numbers = column.indices_in(&words);
    let index = table.find(name)?;
    table.columns[index] = Column::Numbers(numbers);
    Some(words)
}

/// Gives columns names that can stand in a formula, also in the options.
fn rename(table: &mut Table, options: &mut Options) -> Vec<(String, String)> {
    let fits = |name: &str| Expression::parse(name, &[name]).ok() == Some(Expression::variable(0));
    let mut renamed: Vec<(String, String)> = Vec::new();
    for index in 0..table.names.len() {
        let original = table.names[index].clone();
        let twice = table.names.iter().filter(|name| **name == original).count() > 1;
        if fits(&original) || twice {
            continue;
        }
        let letter = |c: char| if c.is_alphanumeric() || c == '_' { c } else { '_' };
        let short: String = name_and_unit(&original).0.chars().map(letter).collect();
        let mut base = short.trim_matches('_').to_string();
        if !base.starts_with(|c: char| c.is_alphabetic()) {
            base = format!("x_{base}");
        }
        let tried = [base.clone(), format!("{base}_")].into_iter();
        let mut tried = tried.chain((2..).map(|k| format!("{base}_{k}")));
        let free = |name: &String| fits(name) && !table.names.contains(name);
        table.names[index] = tried.find(free).expect("numbers do not end");
        renamed.push((table.names[index].clone(), original));
    }
    let safe = |name: &mut String| {
        let known = renamed.iter().find(|(_, original)| original == name);
        if let Some((safe, _)) = known {
            name.clone_from(safe);
        } else if let Some(index) = table.find(name) {
            // The file's name without its unit.
            name.clone_from(&table.names[index]);
        }
    };
    let Options { target, inputs, weights, sigma, .. } = options;
    target.iter_mut().chain(inputs).chain(weights).chain(sigma).for_each(safe);
    for item in &mut options.x_sigma {
        let mut names: Vec<String> = item.split('=').map(|name| name.trim().to_string()).collect();
        names.iter_mut().for_each(safe);
        *item = names.join("=");
    }
    // In lists and formulas a name is followed by a sign, or stands between backquotes.
    for (safe, original) in &renamed {
        let pair = |item: &str| match item.trim_start().strip_prefix(original.as_str()) {
            Some(rest) if rest.trim_start().starts_with('=') => format!("{safe}{rest}"),
            _ => item.to_string(),
        };
        options.complexity.iter_mut().for_each(|item| *item = pair(item));
        if let Some(units) = &mut options.units {
            *units = units.split(',').map(pair).collect::<Vec<_>>().join(",");
        }
        let (within, safe_within) = (format!("({original})"), format!("({safe})"));
        options.shape.iter_mut().for_each(|text| *text = text.replace(&within, &safe_within));
        let quoted = format!("`{original}`");
        options
            .guess
            .iter_mut()
            .chain(&mut options.template)
            .for_each(|text| *text = text.replace(&quoted, safe));
    }
    renamed
}
