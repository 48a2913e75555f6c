//! `lawsmith eval`: applies laws to the rows of a table.

use std::borrow::Cow;
use std::path::PathBuf;

use clap::Args;
use rayon::prelude::*;
use serde_json::{Value, json};

use super::Context;
use crate::error::{Error, Result};
use crate::formula::expression::Expression;
use crate::observer::Observer;
use crate::store::table::{Column, Table, Words};
use crate::store::tidy;

/// Applies laws to the rows of a table.
///
/// Each law's predictions are written to a column named after its target. If the table already has that
/// column, it counts as the truth, and the name of the predictions ends with `_predicted`.
#[derive(Args)]
pub struct Eval {
    /// laws.json of a run, or its folder
    laws: PathBuf,
    /// The table (text with any separator, also .gz; .npz, .npy, HDF5, .safetensors or .parquet)
    table: PathBuf,
    /// Leave out rows with missing inputs [default: their predictions are empty]
    #[arg(long)]
    drop_missing: bool,
    /// Apply only the law for this target
    #[arg(long, value_name = "COLUMN")]
    target: Option<String>,
    /// Where to write the table with the predictions [default: only the predictions, to stdout]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace the output file if it exists
    #[arg(long, requires = "output")]
    overwrite: bool,
}

/// A law as in laws.json.
struct Law {
    target: String,
    equation: String,
    variables: Vec<String>,
    /// For each variable whose name differs in the table: its column.
    columns: Value,
    /// For each variable that stands for groups: their words.
    words: Value,
}

impl Eval {
    /// Predicts, and prints the predictions, or their errors with `--output`.
    pub fn run(self, context: &Context) -> Result<()> {
        let laws = self.laws()?;
        if let Some(output) = &self.output
            && output.exists()
            && !self.overwrite
        {
            return Err(Error::usage("already exists; use --overwrite to replace it").file(output));
        }
        let mut table = Table::read(&self.table)?;
        let mut notes = std::mem::take(&mut table.notes);
        if self.drop_missing {
            let used = |law: &Law| -> Vec<String> {
                law.variables.iter().map(|v| law.original(v, &table).to_string()).collect()
            };
            let names: Vec<String> = laws.iter().flat_map(used).collect();
            let all = table.rows();
            let dropped = table.drop_missing(&names)?;
            notes.push(format!("{dropped} of {all} rows lack a value and are left out"));
        }
        let mut out = Table { path: PathBuf::new(), ..table.clone() };
        let mut added = Table::default();
        let mut documents = Vec::new();
        for law in &laws {
            let predicted = law.predict(&table)?;
            let there = table.find(&law.target);
            // A column of words cannot serve as the truth.
            let truth = there.and_then(|index| table.columns[index].values().ok());
            let mut name = match there {
                Some(_) => format!("{}_predicted", law.target),
                None => law.target.clone(),
            };
            // The table may already have predictions from an earlier call.
            if out.find(&name).is_some() {
                let free = |k: &u32| out.find(&format!("{name}_{k}")).is_none();
                let k = (2..).find(free).unwrap_or_default();
                name = format!("{name}_{k}");
            }
            let incomplete = predicted.iter().filter(|v| v.is_none()).count();
            let (lacks, predicted): (Vec<bool>, Vec<f64>) =
                predicted.into_iter().map(|v| (v.is_none(), v.unwrap_or(f64::NAN))).unzip();
            let invalid = predicted.iter().filter(|v| !v.is_finite()).count() - incomplete;
            let mut document = json!({
                "target": law.target,
                "equation": law.equation,
                "rows": predicted.len(),
                "invalid": invalid,
                "incomplete": incomplete,
            });
            if let Some(truth) = truth {
                merge(&mut document, judged(truth, &predicted));
            }
            if self.output.is_none() {
                document["predictions"] = json!(predicted);
            }
            documents.push(document);
            let cell = |(value, lacks): (&f64, &bool)| match lacks {
                true => String::new(),
                false => value.to_string(),
            };
            let cells: Words = predicted.iter().zip(&lacks).map(cell).collect();
            for table in [&mut out, &mut added] {
                table.names.push(name.clone());
                table.columns.push(Column::Words(cells.clone()));
            }
        }
        let text = match &self.output {
            Some(output) => {
                tidy(&[output]);
                out.write_csv(output)?;
                summary(&documents)
            }
            None => added.csv().trim_end().to_string(),
        };
        notes.iter().for_each(|note| context.terminal.note(note));
        let mut document = json!({ "laws": documents });
        if !notes.is_empty() {
            document["notes"] = json!(notes);
        }
        context.print(&document, text);
        Ok(())
    }

    fn laws(&self) -> Result<Vec<Law>> {
        let path = if self.laws.is_dir() { self.laws.join("laws.json") } else { self.laws.clone() };
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))?;
        let bad = |message: &str| Error::input(message).file(&path);
        let document: Value =
            serde_json::from_str(&text).map_err(|e| bad(&format!("is not a list of laws: {e}")))?;
        let list = match document {
            Value::Array(list) => list,
            one => vec![one],
        };
        let mut laws = Vec::new();
        for law in &list {
            let text = |key: &str| {
                law[key]
                    .as_str()
                    .map(String::from)
                    .ok_or_else(|| bad("is missing from a law").field(key))
            };
            let variables = law["variables"]
                .as_array()
                .ok_or_else(|| bad("must be a list of variables in each law").field("variables"))?;
            laws.push(Law {
                target: text("target")?,
                equation: text("equation")?,
                variables: variables.iter().filter_map(|v| v.as_str()).map(String::from).collect(),
                columns: law["columns"].clone(),
                words: law["words"].clone(),
            });
        }
        if let Some(target) = &self.target {
            let known: Vec<String> = laws.iter().map(|law| law.target.clone()).collect();
            laws.retain(|law| law.target == *target);
            if laws.is_empty() {
                let message = format!("has no law for this target; it has {}", known.join(", "));
                return Err(Error::usage(message).file(&path).field(target));
            }
        }
        if laws.is_empty() {
            return Err(bad("contains no laws"));
        }
        Ok(laws)
    }
}

impl Law {
    /// The law's value in each row, NaN where it is undefined; `None` where an input is missing.
    fn predict(&self, table: &Table) -> Result<Vec<Option<f64>>> {
        let names: Vec<&str> = self.variables.iter().map(String::as_str).collect();
        let expression = Expression::parse(&self.equation, &names)
            .map_err(|e| Error::input(e.message).field("equation"))?;
        let columns: Vec<Cow<[f64]>> =
            names.iter().map(|name| self.column(name, table)).collect::<Result<_>>()?;
        let value = |row: usize| {
            let values: Vec<f64> = columns.iter().map(|column| column[row]).collect();
            (!values.iter().any(|v| v.is_nan())).then(|| expression.eval(&values))
        };
        Ok((0..table.rows()).into_par_iter().map(value).collect())
    }
}

impl Law {
    /// The name of a variable in the table.
    fn original<'a>(&'a self, variable: &'a str, table: &Table) -> &'a str {
        let original = self.columns[variable].as_str();
        original.filter(|name| table.find(name).is_some()).unwrap_or(variable)
    }

    /// The values of a variable, NaN where the cell is empty or has a word that the law does not know.
    fn column<'a>(&self, variable: &str, table: &'a Table) -> Result<Cow<'a, [f64]>> {
        let name = self.original(variable, table);
        match self.words[variable].as_array() {
            Some(words) => {
                let words: Vec<String> =
                    words.iter().filter_map(|word| word.as_str()).map(String::from).collect();
                Ok(table.cells(name)?.indices_in(&words).into())
            }
            None => table.with_gaps(name).map(Cow::from),
        }
    }
}

/// MAE, RMSE and R² over the rows where both truth and prediction are finite.
fn judged(truth: &[f64], predicted: &[f64]) -> Value {
    let pairs: Vec<(f64, f64)> = truth
        .iter()
        .copied()
        .zip(predicted.iter().copied())
        .filter(|(y, p)| y.is_finite() && p.is_finite())
        .collect();
    if pairs.is_empty() {
        return json!({ "mae": null, "rmse": null, "r2": null });
    }
    let n = pairs.len() as f64;
    let mean = pairs.iter().map(|p| p.0).sum::<f64>() / n;
    let squares: f64 = pairs.iter().map(|(y, p)| (y - p) * (y - p)).sum();
    let spread: f64 = pairs.iter().map(|(y, _)| (y - mean) * (y - mean)).sum();
    json!({
        "mae": pairs.iter().map(|(y, p)| (y - p).abs()).sum::<f64>() / n,
        "rmse": (squares / n).sqrt(),
        "r2": if spread > 0.0 { Some(1.0 - squares / spread) } else { None },
    })
}

fn merge(document: &mut Value, more: Value) {
    if let (Value::Object(document), Value::Object(more)) = (document, more) {
        document.extend(more);
    }
}

fn summary(documents: &[Value]) -> String {
    let mut text =
        String::from("target  rows  invalid         MAE        RMSE          R²  equation");
    for law in documents {
        let figure = |key: &str| match law[key].as_f64() {
            Some(value) if key == "r2" => format!("{value:>10.6}"),
            Some(value) => format!("{value:>10.3e}"),
            None => format!("{:>10}", "-"),
        };
        let (target, equation) = (law["target"].as_str(), law["equation"].as_str());
        text += &format!(
            "\n{:<6}  {:>4}  {:>7}  {}  {}  {}  {}",
            target.unwrap_or_default(),
            law["rows"],
            law["invalid"],
            figure("mae"),
            figure("rmse"),
            figure("r2"),
            equation.unwrap_or_default(),
        );
    }
    text
}
