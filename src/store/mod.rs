//! Files: memory-mapped tensors, tables, run folders.
//!
//! Everything is written to a temporary name beside its destination and renamed when it is whole, so
//! a file that exists is whole.

pub mod run;
pub mod table;
pub mod tensors;

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The name under which `path` is written until it is whole.
pub(crate) fn temporary(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".tmp{}", std::process::id()));
    path.with_file_name(name)
}

/// True for what a process that ended left of writing a file called `name`.
pub(crate) fn is_temporary_of(path: &Path, name: &str) -> bool {
    let file = path.file_name().and_then(|file| file.to_str()).unwrap_or_default();
    let id = file.strip_prefix(name).and_then(|rest| rest.strip_prefix(".tmp"));
    id.is_some_and(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()))
}

/// Writes a whole file at once: temporary name, flush to disk, rename.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write;
    let temporary = temporary(path);
    let written = std::fs::File::create(&temporary)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_data()))
        .and_then(|()| std::fs::rename(&temporary, path));
    written.map_err(|error| {
        let _ = std::fs::remove_file(&temporary);
        Error::io("write", path, error)
    })
}
