//! What was measured earlier: a file that `bench --json` wrote.

use std::path::Path;

use serde_json::Value;

use super::Measurement;
use crate::error::{Error, Result};

/// An operation is slower by more than this part of its old time, or it is not.
const NOISE: f64 = 0.1;

/// One old measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct Old {
    /// Name of the operation.
    pub op: String,
    /// What it worked on.
    pub size: String,
    /// Its arithmetic.
    pub precision: String,
    /// Where it ran.
    pub device: String,
    /// Which source.
    pub commit: String,
    /// Median time of a call.
    pub seconds: f64,
}

/// Reads what `bench --json` wrote.
///
/// # Errors
/// A file that cannot be read or is something else; the error names the field.
pub fn read(file: &Path) -> Result<Vec<Old>> {
    let text = std::fs::read_to_string(file).map_err(|e| Error::io("read", file, e))?;
    let wrong = |message: String| Error::input(message).file(file);
    let document: Value = serde_json::from_str(&text)
        .map_err(|e| wrong(format!("is not what lawsmith bench --json writes: {e}")))?;
    let Value::Array(entries) = document else {
        return Err(wrong("is not what lawsmith bench --json writes: no list".into()));
    };
    let old = |(number, entry): (usize, &Value)| {
        let missing = |field: &str, what: &str| {
            wrong(format!("measurement {} has no such {what}", number + 1)).field(field)
        };
        let text = |field: &str| {
            let text = entry[field].as_str().map(String::from);
            text.ok_or_else(|| missing(field, "text"))
        };
        let seconds = entry["seconds"].as_f64().filter(|seconds| *seconds > 0.0);
        Ok(Old {
            op: text("op")?,
            size: text("size")?,
            precision: text("precision")?,
            device: text("device")?,
            commit: text("commit")?,
            seconds: seconds.ok_or_else(|| missing("seconds", "positive number"))?,
        })
    };
    entries.iter().enumerate().map(old).collect()
}

impl Old {
    /// True for a measurement of the same operation on the same.
    pub fn is_of(&self, now: &Measurement) -> bool {
        (&self.op, &self.size, &self.precision) == (&now.op, &now.size, &now.precision)
    }
}

impl Measurement {
    /// True where the operation got slower than it was, noise aside.
    pub fn got_slower(&self) -> bool {
        self.ratio.is_some_and(|ratio| ratio > 1.0 + NOISE)
    }
}
