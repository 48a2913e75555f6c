//! Run folders: `config.toml`, `model.safetensors`, `metrics.csv`, `messages.safetensors`,
//! `hall_of_fame.csv`, `laws.json`, `report.html`.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::observer::{Observer, Progress};
use crate::options;

options! {
    /// What to do with a folder that is not empty.
    #[derive(Copy, Eq)]
    pub struct IfExists {
        /// Continue an interrupted run.
        resume: bool = false;
        /// Delete the earlier run in the output folder.
        overwrite: bool = false => [.conflicts("resume")];
    }
}

/// The folder of a run.
#[derive(Clone, Debug)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// Makes the folder for a new run, or enters it for `--resume`.
    ///
    /// A folder that is not empty is refused without `--resume` or `--overwrite`; `--overwrite`
    /// removes only the files that a run writes, and `--resume` needs a `config.toml`.
    pub fn create(path: &Path, existing: IfExists) -> Result<Self> {
        if path.is_file() {
            return Err(Error::usage("is a file; a folder is needed").file(path));
        }
        std::fs::create_dir_all(path).map_err(|e| Error::io("create", path, e))?;
        let run = RunFolder { path: path.to_path_buf() };
        run.tidy();
        let empty = run.is_empty()?;
        if existing.resume && !empty && !run.file("config.toml").exists() {
            return Err(Error::usage("has no config.toml: there is no run to resume").file(path));
        }
        if existing.overwrite {
            // config.toml goes last, so that the folder is still recognised if the process is killed here.
            for name in FILES.iter().rev() {
                run.remove(name)?;
            }
        } else if !empty && !existing.resume {
            return Err(Error::usage(
                "the folder is not empty: --resume continues the run, --overwrite starts again",
            )
            .file(path));
        }
        Ok(run)
    }

    /// Enters the folder of a finished run.
    pub fn open(path: &Path) -> Result<Self> {
        if !path.is_dir() {
            return Err(Error::input("no such run folder").file(path));
        }
        let run = RunFolder { path: path.to_path_buf() };
        run.tidy();
        Ok(run)
    }

    /// Removes temporary files left by runs that were killed.
    fn tidy(&self) {
        super::tidy(&FILES.map(|name| self.file(name)));
    }

    /// True if the folder holds no files, so that no run has begun in it.
    pub fn is_empty(&self) -> Result<bool> {
        let mut entries =
            std::fs::read_dir(&self.path).map_err(|e| Error::io("read", &self.path, e))?;
        Ok(entries.next().is_none())
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of one of the run's files.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes one of the run's files, all at once.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        super::write_atomic(&self.file(name), bytes)
    }

    /// Removes one of the run's files if it exists.
    pub fn remove(&self, name: &str) -> Result<()> {
        let file = self.file(name);
        match std::fs::remove_file(&file) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove", &file, e))
            }
            _ => Ok(()),
        }
    }

    /// Writes one table of `config.toml` (`[simulate]`, `[train]`, `[regress]`), keeping the others.
    pub fn write_config<T: Serialize>(&self, table: &str, settings: &T) -> Result<()> {
        let mut config = self.config()?;
        let value = toml::Value::try_from(settings).map_err(|e| {
            Error::usage(format!("cannot write the settings: {e}")).file(self.file("config.toml"))
        })?;
        config.insert(table.to_string(), value);
        self.write("config.toml", toml::to_string(&config).expect("a TOML table prints").as_bytes())
    }

    /// Reads one table of `config.toml`; `None` if it is not there.
    pub fn read_config<T: DeserializeOwned>(&self, table: &str) -> Result<Option<T>> {
        let Some(value) = self.config()?.remove(table) else { return Ok(None) };
        value
            .try_into()
            .map(Some)
            .map_err(|e| Error::input(format!("{e}")).file(self.file("config.toml")).field(table))
    }

    /// Writes a table of `config.toml`. With `resume`, a table that is already there must be the same, except
    /// for the path in field `data`, since files may be moved.
    ///
    /// # Errors
    /// Names the first setting that differs.
    pub fn begin<T: Serialize + DeserializeOwned>(
        &self,
        table: &str,
        config: &T,
        data: &str,
        resume: bool,
    ) -> Result<()> {
        let old = if resume { self.read_config::<T>(table)? } else { None };
        let Some(old) = old else { return self.write_config(table, config) };
        // In JSON the fields keep their order: settings of the user come before those that follow from them.
        let fields = |config| serde_json::to_value(config).expect("settings are plain data");
        let (old, new) = (fields(&old), fields(config));
        let mut all = new.as_object().into_iter().flatten();
        let Some((key, is)) = all.find(|(key, is)| *key != data && old[*key] != **is) else {
            return Ok(());
        };
        let was = &old[key];
        Err(Error::usage(format!(
            "the run was started with {was}, this command has {is}: --resume needs the same \
             settings, --overwrite starts again"
        ))
        .file(self.file("config.toml"))
        .field(key))
    }

    /// An observer that writes every file offered to it and passes everything else on to `observer`.
    pub fn observer<'a>(&'a self, observer: &'a dyn Observer) -> FolderObserver<'a> {
        FolderObserver { folder: self, observer }
    }

    fn config(&self) -> Result<toml::Table> {
        let path = self.file("config.toml");
        if !path.exists() {
            return Ok(toml::Table::new());
        }
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))?;
        text.parse().map_err(|e| Error::input(format!("is not valid TOML: {e}")).file(&path))
    }
}

/// A run folder as an observer.
#[derive(Clone, Copy)]
pub struct FolderObserver<'a> {
    folder: &'a RunFolder,
    observer: &'a dyn Observer,
}

impl Observer for FolderObserver<'_> {
    fn progress(&self, progress: &Progress) {
        self.observer.progress(progress);
    }

    fn note(&self, text: &str) {
        self.observer.note(text);
    }

    fn stop(&self) -> bool {
        self.observer.stop()
    }

    fn keep(&self, name: &str, write: &mut dyn FnMut(&Path) -> Result<()>) -> Result<()> {
        write(&self.folder.file(name))
    }
}

/// The files that a run writes, and that `--overwrite` may therefore remove.
const FILES: [&str; 21] = [
    "config.toml",
    "dataset.safetensors",
    "test.safetensors",
    "model.safetensors",
    "metrics.csv",
    "messages.safetensors",
    "messages.json",
    "hall_of_fame.csv",
    "laws.json",
    "laws.py",
    "laws.tex",
    "laws.rs",
    "laws.c",
    "kept.csv",
    "memory.json",
    "memory_nodes.json",
    "fit.json",
    "points.json",
    "rollout.safetensors",
    "slab.safetensors",
    "report.html",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_empty_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        let run = RunFolder::create(&path, IfExists::default()).unwrap();
        run.write_config("train", &toml::toml! { steps = 3 }).unwrap();
        run.write_config("regress", &toml::toml! { seed = 1 }).unwrap();
        assert!(RunFolder::create(&path, IfExists::default()).is_err());
        let run = RunFolder::create(&path, IfExists { resume: true, overwrite: false }).unwrap();
        let train: toml::Table = run.read_config("train").unwrap().unwrap();
        assert_eq!(train["steps"].as_integer(), Some(3));
        std::fs::write(run.file("mine.txt"), "kept").unwrap();
        let run = RunFolder::create(&path, IfExists { resume: false, overwrite: true }).unwrap();
        assert!(!run.file("config.toml").exists());
        assert!(run.file("mine.txt").exists(), "files that are not ours stay");
    }

    #[test]
    fn what_a_kill_left_of_a_file_is_no_run() {
        let folder = tempfile::tempdir().unwrap();
        let left = ["config.toml.tmp4711", "laws.json.tmp1"].map(|name| folder.path().join(name));
        for file in &left {
            std::fs::write(file, "[regr").unwrap();
        }
        let run = RunFolder::create(folder.path(), IfExists::default()).unwrap();
        assert!(left.iter().all(|file| !file.exists()));
        for other in ["config.toml.tmp", "config.toml.tmp1x", "mine.txt.tmp1", "config.toml"] {
            std::fs::write(run.file(other), "").unwrap();
            assert!(RunFolder::create(folder.path(), IfExists::default()).is_err(), "{other}");
            std::fs::remove_file(run.file(other)).unwrap();
        }
    }
}
