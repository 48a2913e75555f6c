//! The one error type of the library.
//!
//! Each error is one sentence that says what is wrong and what to do, plus, where known, the file, the
//! field and the row (counted from 1; the header of a table is row 1). The binary prints it as text,
//! or as a document with `--json`; see [`Error::document`].

use std::fmt;
use std::path::{Path, PathBuf};

/// Result of every fallible function of the library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kind of failure; `kind` in the JSON error document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The user's data: missing, truncated, of another kind, NaN where not allowed, shapes that disagree.
    Input,
    /// A setting that is invalid or does not fit the data.
    Usage,
    /// The operating system refused: no permission, disk full.
    Io,
    /// No such device, too little memory on it, or a failure of it.
    Device,
    /// Ctrl-C: the work was saved; exit code 130.
    Interrupted,
}

impl Kind {
    /// The name in JSON documents.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Input => "input",
            Kind::Usage => "usage",
            Kind::Io => "io",
            Kind::Device => "device",
            Kind::Interrupted => "interrupted",
        }
    }
}

/// A failure and its place.
#[derive(Debug, thiserror::Error)]
pub struct Error {
    /// The kind of failure.
    pub kind: Kind,
    /// One sentence: what is wrong, and what to do about it where that is not obvious.
    pub message: String,
    /// The file at fault.
    pub file: Option<PathBuf>,
    /// The column, tensor or setting at fault.
    pub field: Option<String>,
    /// The row at fault, counted from 1; the header of a table is row 1.
    pub row: Option<u64>,
}

impl Error {
    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into(), file: None, field: None, row: None }
    }

    /// The user's data is at fault.
    pub fn input(message: impl Into<String>) -> Self {
        Self::new(Kind::Input, message)
    }

    /// A setting is at fault.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// The device is at fault.
    pub fn device(message: impl Into<String>) -> Self {
        Self::new(Kind::Device, message)
    }

    /// The user pressed Ctrl-C; the message says what was saved and how to continue.
    pub fn interrupted(message: impl Into<String>) -> Self {
        Self::new(Kind::Interrupted, message)
    }

    /// The operating system refused to `action` ("read", "create", …) `file`.
    pub fn io(action: &str, file: &Path, source: std::io::Error) -> Self {
        let message = match source.kind() {
            std::io::ErrorKind::NotFound => format!("cannot {action}: no such file or folder"),
            std::io::ErrorKind::StorageFull => format!("cannot {action}: the disk is full"),
            _ => format!("cannot {action}: {source}"),
        };
        Self::new(Kind::Io, message).file(file)
    }

    /// Names the file at fault.
    pub fn file(mut self, file: impl AsRef<Path>) -> Self {
        self.file = Some(file.as_ref().to_path_buf());
        self
    }

    /// Names the column, tensor or setting at fault.
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Names the row at fault, counted from 1; the header of a table is row 1.
    pub fn row(mut self, row: u64) -> Self {
        self.row = Some(row);
        self
    }

    /// The exit code of a program that ends with this error.
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            Kind::Usage => 2,
            Kind::Interrupted => 130,
            _ => 1,
        }
    }

    /// The document that `--json` prints: `{"error":{"kind","message","file","field","row"}}`.
    pub fn document(&self) -> serde_json::Value {
        serde_json::json!({"error": {
            "kind": self.kind.name(),
            "message": self.to_string(),
            "file": self.file,
            "field": self.field,
            "row": self.row,
        }})
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}: ", file.display())?;
        }
        match (&self.field, self.row) {
            (Some(field), Some(row)) => write!(f, "field '{field}', row {row}: ")?,
            (Some(field), None) => write!(f, "field '{field}': ")?,
            (None, Some(row)) => write!(f, "row {row}: ")?,
            (None, None) => {}
        }
        f.write_str(&self.message)
    }
}
