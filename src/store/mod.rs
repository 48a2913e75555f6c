//! Files: memory-mapped tensors, tables, run folders.
//!
//! Every file is written under a temporary name in the same folder and renamed when it is complete, so
//! a file that exists is complete. Until then it is locked: an unlocked temporary file was left by a
//! process that was killed, and [`tidy`] removes it.

pub mod run;
pub mod table;
pub mod tensors;

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The name under which `path` is written until it is complete.
fn temporary(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".tmp{}", std::process::id()));
    path.with_file_name(name)
}

/// Creates a temporary file, which is locked as long as it is open.
fn create(temporary: &Path) -> std::io::Result<File> {
    let file =
        File::options().read(true).write(true).create(true).truncate(true).open(temporary)?;
    // On a file system without locks nothing is ever tidied.
    let _ = file.try_lock();
    Ok(file)
}

/// True for the temporary name of a file called `name`.
fn is_temporary_of(path: &Path, name: &OsStr) -> bool {
    let file = path.file_name().unwrap_or_default().as_encoded_bytes();
    let rest = file.strip_prefix(name.as_encoded_bytes());
    let id = rest.and_then(|rest| rest.strip_prefix(b".tmp"));
    id.is_some_and(|id| !id.is_empty() && id.iter().all(u8::is_ascii_digit))
}

/// Removes temporary files that killed processes left while writing `paths`, which are all in one folder.
/// Files still being written are locked and stay, whichever machine the process runs on.
///
/// Files that cannot be read or removed stay as well; the next run tries again.
pub fn tidy<P: AsRef<Path>>(paths: &[P]) {
    let names: Vec<&OsStr> = paths.iter().filter_map(|path| path.as_ref().file_name()).collect();
    let folder = paths.first().and_then(|path| path.as_ref().parent());
    let folder = folder.filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if !names.iter().any(|name| is_temporary_of(&path, name)) {
            continue;
        }
        let Ok(file) = File::open(&path) else { continue };
        if file.try_lock().is_ok() {
            let _ = std::fs::remove_file(&path);
        }
    }
}

/// Writes a complete file: temporary name, flush to disk, rename.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write;
    let temporary = temporary(path);
    let written = create(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_data()?;
        std::fs::rename(&temporary, path)
    });
    written.map_err(|error| {
        let _ = std::fs::remove_file(&temporary);
        Error::io("write", path, error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_writes_is_tidied() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let names = ["a.csv.tmp4711", "a.csv.tmp12", "a.csv.tmp", "a.csv.tmp1x", "b.csv.tmp4711"];
        for name in names {
            std::fs::write(path(name), "half").unwrap();
        }
        let written = create(&path("a.csv.tmp12")).unwrap();
        tidy(&[path("a.csv")]);
        let left: Vec<&str> = names.into_iter().filter(|name| path(name).exists()).collect();
        assert_eq!(left, ["a.csv.tmp12", "a.csv.tmp", "a.csv.tmp1x", "b.csv.tmp4711"]);
        drop(written);
        tidy(&[path("b.csv"), path("a.csv")]);
        let left: Vec<&str> = names.into_iter().filter(|name| path(name).exists()).collect();
        assert_eq!(left, ["a.csv.tmp", "a.csv.tmp1x"]);
    }
}
