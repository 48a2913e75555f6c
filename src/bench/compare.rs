//! Earlier measurements, from a file written by `bench --json`.

use std::path::Path;

use serde_json::Value;

use super::Measurement;
use crate::error::{Error, Result};

/// An operation counts as slower if its time grew by more than this fraction.
const NOISE: f64 = 0.1;

/// One old measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct Old {
    /// Name of the operation.
    pub op: String,
    /// Description of the problem size.
    pub size: String,
    /// Its arithmetic.
    pub precision: String,
    /// Where it ran.
    pub device: String,
    /// The commit of the program.
    pub commit: String,
    /// Median time of a call.
    pub seconds: f64,
}

/// Reads the output of `bench --json`.
///
/// # Errors
/// A file that cannot be read or is something else; names the field.
pub fn read(file: &Path) -> Result<Vec<Old>> {
    let text = std::fs::read_to_string(file).map_err(|e| Error::io("read", file, e))?;
    let wrong = |message: String| Error::input(message).file(file);
    let document: Value = serde_json::from_str(&text)
        .map_err(|e| wrong(format!("is not what lawsmith bench --json writes: {e}")))?;
    let Value::Array(entries) = document else {
        return Err(wrong("is not what lawsmith bench --json writes: not a list".into()));
    };
    let old = |(number, entry): (usize, &Value)| {
        let missing = |field: &str, what: &str| {
            wrong(format!("measurement {} has no {what} here", number + 1)).field(field)
        };
        let text = |field: &str| {
            let text = entry[field].as_str().map(String::from);
            text.ok_or_else(|| missing(field, "string"))
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
    /// True for a measurement of the same operation, size and precision.
    pub fn is_of(&self, now: &Measurement) -> bool {
        (&self.op, &self.size, &self.precision) == (&now.op, &now.size, &now.precision)
    }
}

impl Measurement {
    /// True if the operation got slower, beyond the noise.
    pub fn got_slower(&self) -> bool {
        self.ratio.is_some_and(|ratio| ratio > 1.0 + NOISE)
    }
}
