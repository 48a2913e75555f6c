//! `metrics.csv`: one row every few steps, flushed at once so that it can be watched. It holds no
//! wall-clock times: a resumed training writes the same file as an uninterrupted one.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Number of messages whose significance is written.
const SHOWN: usize = 10;

/// One row.
pub(crate) struct Row<'a> {
    pub step: u64,
    pub rate: f64,
    pub train_loss: f64,
    pub penalty: f64,
    pub validation_loss: f64,
    pub significance: &'a [f64],
}

/// The open file.
pub(crate) struct Metrics {
    path: PathBuf,
    file: File,
    shown: usize,
}

impl Metrics {
    /// Creates the file, or continues after the last row up to `step`. There is a significance column
    /// for each of the `messages` of the network before pruning, at most ten; pruned components
    /// count as 0.
    pub(crate) fn open(path: &Path, messages: usize, step: u64) -> Result<Self> {
        let shown = messages.min(SHOWN);
        let mut text = "step,learning_rate,train_loss,penalty,validation_loss,messages".to_string();
        for k in 1..=shown {
            let _ = write!(text, ",significance_{k}");
        }
        text.push('\n');
        if step > 0 {
            let old = match std::fs::read_to_string(path) {
                Ok(old) => old,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
                Err(error) => return Err(Error::io("read", path, error)),
            };
            let done = |line: &&str| {
                line.split(',').next().and_then(|s| s.parse().ok()).is_some_and(|s: u64| s <= step)
            };
            for line in old.lines().skip(1).take_while(done) {
                text.push_str(line);
                text.push('\n');
            }
        }
        crate::store::write_atomic(path, text.as_bytes())?;
        let file = File::options().append(true).open(path);
        let file = file.map_err(|e| Error::io("write", path, e))?;
        Ok(Metrics { path: path.to_path_buf(), file, shown })
    }

    /// Appends one row; if that fails, nothing.
    pub(crate) fn push(&mut self, row: &Row) -> Result<()> {
        let Row { step, rate, train_loss, penalty, validation_loss, significance } = row;
        let mut line = format!(
            "{step},{rate:.6e},{train_loss:.6e},{penalty:.6e},{validation_loss:.6e},{}",
            significance.len()
        );
        let mut sorted = significance.to_vec();
        sorted.sort_by(|a, b| b.total_cmp(a));
        sorted.resize(sorted.len().max(self.shown), 0.0);
        for value in &sorted[..self.shown] {
            let _ = write!(line, ",{value:.6e}");
        }
        line.push('\n');
        let written = self.file.metadata().and_then(|before| {
            // A full disk may take half a row: remove it.
            let undo = |_: &std::io::Error| drop(self.file.set_len(before.len()));
            (&self.file).write_all(line.as_bytes()).inspect_err(undo)
        });
        written.map_err(|e| Error::io("write", &self.path, e))
    }
}
