//! Parquet tables (build feature `parquet`).

use std::path::Path;

use super::Table;
use crate::error::{Error, Result};

#[cfg(not(feature = "parquet"))]
pub(super) fn read(path: &Path) -> Result<Table> {
    Err(Error::input("this build cannot read Parquet: build with --features parquet").file(path))
}

/// The reader panics on some damaged files, which becomes an error.
#[cfg(feature = "parquet")]
pub(super) fn read(path: &Path) -> Result<Table> {
    crate::panics::contained(|| rows(path))
        .unwrap_or_else(|| Err(Error::input("is a damaged Parquet file").file(path)))
}

#[cfg(feature = "parquet")]
fn rows(path: &Path) -> Result<Table> {
    use super::{Column, Words};
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::Field;

    /// Beyond this, not every integer is exact in f64.
    const EXACT: u64 = 1 << 53;
    /// A column being read: numbers until something else occurs.
    enum Growing {
        Numbers(Vec<f64>),
        Words(Words),
    }
    impl Growing {
        fn word(&mut self, word: &str) {
            if let Growing::Numbers(values) = self {
                let word = |v: &f64| if v.is_nan() { String::new() } else { v.to_string() };
                *self = Growing::Words(values.iter().map(word).collect());
            }
            if let Growing::Words(words) = self {
                words.push(word);
            }
        }

        fn number(&mut self, value: f64) {
            match self {
                Growing::Numbers(values) => values.push(value),
                Growing::Words(words) if value.is_nan() => words.push(""),
                Growing::Words(words) => words.push(&value.to_string()),
            }
        }
    }

    let bad = |e: parquet::errors::ParquetError| {
        Error::input(format!("is not a complete Parquet file ({e})")).file(path)
    };
    let file = std::fs::File::open(path).map_err(|e| Error::io("read", path, e))?;
    let reader = SerializedFileReader::new(file).map_err(bad)?;
    let mut names: Vec<String> = Vec::new();
    let mut columns: Vec<Growing> = Vec::new();
    for record in reader.get_row_iter(None).map_err(bad)? {
        let record = record.map_err(bad)?;
        if names.is_empty() {
            names = record.get_column_iter().map(|(name, _)| name.clone()).collect();
            columns = names.iter().map(|_| Growing::Numbers(Vec::new())).collect();
        }
        for (column, (_, field)) in columns.iter_mut().zip(record.get_column_iter()) {
            match *field {
                Field::Null => column.number(f64::NAN),
                Field::Bool(v) => column.number(f64::from(u8::from(v))),
                Field::Byte(v) => column.number(f64::from(v)),
                Field::Short(v) => column.number(f64::from(v)),
                Field::Int(v) => column.number(f64::from(v)),
                Field::Long(v) if v.unsigned_abs() > EXACT => column.word(&v.to_string()),
                Field::Long(v) => column.number(v as f64),
                Field::UByte(v) => column.number(f64::from(v)),
                Field::UShort(v) => column.number(f64::from(v)),
                Field::UInt(v) => column.number(f64::from(v)),
                Field::ULong(v) if v > EXACT => column.word(&v.to_string()),
                Field::ULong(v) => column.number(v as f64),
                Field::Float16(v) => column.number(f64::from(v)),
                Field::Float(v) => column.number(f64::from(v)),
                Field::Double(v) => column.number(v),
                Field::Str(ref text) => column.word(text),
                _ => column.word(&field.to_string()),
            }
        }
    }
    let mut table = Table { names, ..Table::default() };
    for column in columns {
        table.columns.push(match column {
            Growing::Numbers(values) => values.into(),
            Growing::Words(words) => Column::Words(words),
        });
    }
    // The index of a pandas frame is not a column.
    if let Some(k) = table.names.iter().position(|name| name.starts_with("__index_level_")) {
        table.names.remove(k);
        table.columns.remove(k);
    }
    Ok(table)
}
