//! A disk that fills up: one clear error that names the file, nothing half-written under a final name,
//! and what was there before stays.
//!
//! No disk is filled: the child may write files of so many bytes and no more (`RLIMIT_FSIZE`), and
//! the system then refuses as a full disk does, without root and on any file system.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use lawsmith::random::Random;
use lawsmith::store::table::Table;
use serde_json::Value;

/// Runs lawsmith in `folder`, with files of at most `limit` bytes.
fn lawsmith(folder: &Path, limit: Option<u64>, arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lawsmith"));
    command.current_dir(folder).arg("-q").args(arguments.split_whitespace());
    if let Some(bytes) = limit {
        let restrict = move || {
            let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
            // SAFETY: two system calls on values of this frame. Where the signal is ignored, a write
            // beyond the limit is an error instead of the end of the process.
            unsafe {
                libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
                match libc::setrlimit(libc::RLIMIT_FSIZE, &limit) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            }
        };
        // SAFETY: between fork and exec only these two system calls are made; both may be.
        unsafe { command.pre_exec(restrict) };
    }
    command.output().unwrap()
}

fn succeed(folder: &Path, arguments: &str) {
    let output = lawsmith(folder, None, arguments);
    assert!(output.status.success(), "{arguments}: {output:?}");
}

/// Runs lawsmith where the disk is full after `limit` bytes; returns the file that the error names.
fn refused(folder: &Path, limit: u64, arguments: &str) -> PathBuf {
    let output = lawsmith(folder, Some(limit), arguments);
    assert_eq!(output.status.code(), Some(1), "{limit} bytes: {arguments}: {output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text.lines().count(), 1, "{limit} bytes: {arguments}: {text}");
    let message = text.strip_prefix("error: ").unwrap_or_else(|| panic!("{text}"));
    let (file, message) = message.split_once(": ").unwrap_or_else(|| panic!("{text}"));
    assert!(message.starts_with("cannot write: "), "{text}");
    PathBuf::from(file)
}

/// The files of a folder with their bytes; every one must be whole and have a final name.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        let bytes = std::fs::read(&path).unwrap();
        let text = || std::str::from_utf8(&bytes).unwrap();
        match path.extension().and_then(|e| e.to_str()) {
            Some("toml") => drop(text().parse::<toml::Table>().unwrap()),
            Some("json") => drop(serde_json::from_str::<Value>(text()).unwrap()),
            Some("csv") => {
                let mut rows = csv::Reader::from_reader(&bytes[..]).into_records();
                assert!(
                    rows.all(|row| row.is_ok()) && text().ends_with('\n'),
                    "{name}: {}",
                    text()
                );
            }
            Some("safetensors") => {
                safetensors::SafeTensors::deserialize(&bytes)
                    .unwrap_or_else(|e| panic!("{name}: {e}"));
            }
            Some("py" | "tex" | "rs" | "c") => assert!(text().ends_with('\n'), "{name}"),
            Some("html") => assert!(text().trim_end().ends_with("</html>"), "{name}"),
            _ => panic!("{name} is left behind"),
        }
        files.insert(name, bytes);
    }
    files
}

#[test]
fn simulate_leaves_nothing_new_and_everything_old() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let command = "simulate --runs 50 --frames 50 -o data.safetensors";
    for limit in [0, 100, 100_000] {
        assert_eq!(refused(folder, limit, command), Path::new("data.safetensors"));
        assert!(files(folder).is_empty(), "{limit} bytes");
    }
    succeed(folder, "simulate --runs 2 --frames 2 -o data.safetensors");
    let old = files(folder);
    refused(folder, 100_000, &format!("{command} --overwrite"));
    assert!(files(folder) == old, "the older file was changed");
}

#[test]
fn regress_leaves_whole_files_and_goes_on_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut random = Random::new(3, 0);
    let mut column = || (0..100).map(|_| random.normal()).collect::<Vec<f64>>();
    let (a, b, noise) = (column(), column(), column());
    // With noise there is a formula of every length, and so a long hall of fame.
    let y = (0..100).map(|row| 1.5 * a[row] - a[row] * b[row] + 0.1 * noise[row]).collect();
    let names = ["a", "b", "y"].map(String::from).to_vec();
    let table = Table::new(names, vec![a, b, y]);
    table.write_csv(&folder.join("table.csv")).unwrap();
    let run = folder.join("run");

    let command = "regress table.csv --target y --evaluations 3000 -o run";
    // Room for the settings, and none for the hall of fame.
    succeed(folder, "regress table.csv --target y --evaluations 3000 -o whole");
    let whole = files(&folder.join("whole"));
    let size = |name: &str| whole[name].len() as u64;
    let (settings, hall) = (size("config.toml"), size("hall_of_fame.csv"));
    assert!(settings + 20 < hall, "{settings} {hall}");
    let between = (settings + hall) / 2;
    for (limit, file) in [(20, "config.toml"), (between, "hall_of_fame.csv")] {
        let overwrite = format!("{command} --overwrite");
        assert_eq!(refused(folder, limit, &overwrite), Path::new("run").join(file));
        files(&run);
    }
    assert!(files(&run).contains_key("config.toml"));
    succeed(folder, &format!("{command} --resume"));
    let old = files(&run);
    assert!(old.contains_key("laws.json") && old.contains_key("hall_of_fame.csv"));
    refused(folder, 20, &format!("{command} --resume"));
    assert!(files(&run) == old, "an older file was changed");
}

#[test]
fn every_stage_of_distill_leaves_whole_files_and_goes_on_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let run = folder.join("run");
    let command = "distill --runs 30 --frames 20 --steps 200 --evaluations 2000 -o run --resume";
    for (limit, file) in [
        (100, "config.toml"),
        (2_000, "dataset.safetensors"),
        (200_000, "model.safetensors"),
        (1_000_000, "messages.safetensors"),
    ] {
        assert_eq!(refused(folder, limit, command), Path::new("run").join(file));
        assert!(!files(&run).contains_key(file), "{limit} bytes");
    }
    succeed(folder, command);
    let old = files(&run);
    for (limit, arguments, file) in [
        (1000, "compose run --evaluations 2000", "hall_of_fame.csv"),
        (10_000, "predict run --rollout", "rollout.safetensors"),
        (100_000, "report run", "report.html"),
        (1_000_000, "messages run", "messages.safetensors"),
    ] {
        assert_eq!(refused(folder, limit, arguments), Path::new("run").join(file));
        let new = files(&run);
        assert!(new[file] == old[file], "{arguments} changed {file}");
        assert!(new.len() == old.len(), "{arguments}: a file is gone or left behind");
    }
}

/// The only file that grows while it has its name: its rows are whole.
#[test]
fn metrics_have_whole_rows() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    succeed(folder, "simulate --runs 30 --frames 20 -o data.safetensors");
    for limit in [520, 550, 580] {
        let command = "train data.safetensors --steps 200 --overwrite -o run";
        assert_eq!(refused(folder, limit, command), Path::new("run/metrics.csv"));
        let metrics = &files(&folder.join("run"))["metrics.csv"];
        let rows = metrics.iter().filter(|byte| **byte == b'\n').count();
        assert!(rows > 2 && metrics.len() as u64 <= limit, "{rows} rows, {} bytes", metrics.len());
    }
}
