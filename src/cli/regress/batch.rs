//! Many fits as one job: `regress --batch`.
//!
//! Each fit has its own folder. Running the same command again resumes a batch: finished fits are left
//! alone, and a fit that was interrupted or killed continues from the saved state of its search. On a
//! CPU as many fits run side by side as there are threads, and the islands of all fits share the
//! threads; on a GPU sixteen fits run side by side and share launches.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::Parser;
use serde_json::{Value, json};

use super::fit::{self, Config, PreparedFit};
use crate::cli::flags::Flags;
use crate::cli::{Context, usage_error};
use crate::error::{Error, Kind, Result};
use crate::observer::{Observer, Quiet};
use crate::ops::expression::{Evaluator, side_by_side};
use crate::store::run::{IfExists, RunFolder};
use crate::store::{tidy, write_atomic};
use crate::symbolic::job;
use crate::symbolic::options::Options;

/// The summary of all fits, in the folder of the batch.
const SUMMARY: &str = "summary.csv";

/// Fits side by side on a GPU: their islands' children, about two thousand per launch, fill it.
const ON_GPU: usize = 16;

/// File extensions that count as tables in a folder.
const TABLES: [&str; 11] =
    ["csv", "tsv", "txt", "dat", "gz", "npz", "npy", "h5", "hdf5", "safetensors", "parquet"];

/// A job, parsed like a command line.
#[derive(Parser)]
#[command(no_binary_name = true)]
struct Arguments {
    #[command(flatten)]
    options: Flags<Options>,
    #[arg(long)]
    seed: Option<u64>,
}

/// One fit of a batch.
struct Job {
    name: String,
    config: Config,
}

/// Runs the jobs of a file, or of a folder of tables, each into its folder below `output`.
pub fn run(
    jobs: &Path,
    options: &Options,
    output: &Path,
    existing: IfExists,
    context: &Context,
) -> Result<()> {
    let jobs = if jobs.is_dir() {
        tables(jobs, options, context.seed)?
    } else {
        options
            .only(&[], "does not apply to a file of jobs; put it under [defaults] in the file")?;
        read(jobs, context.seed)?
    };
    // Everything is checked before anything is written.
    for job in &jobs {
        if !existing.overwrite {
            check(job, &output.join(&job.name))?;
        }
    }
    std::fs::create_dir_all(output).map_err(|e| Error::io("create", output, e))?;
    tidy(&[output.join(SUMMARY)]);
    let evaluator = Evaluator::new(&context.device);
    let observer: &dyn Observer = &context.terminal;
    let bar = observer.bar("batch", jobs.len() as u64, "fits", 0);
    let (next, writing) = (AtomicUsize::new(0), Mutex::new(()));
    let results: Vec<Mutex<Option<Result<Value>>>> =
        jobs.iter().map(|_| Mutex::new(None)).collect();
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = jobs.get(index) else { return };
            if observer.stop() {
                return;
            }
            let result =
                one(job, &output.join(&job.name), existing.overwrite, &evaluator, observer);
            *results[index].lock().expect("no panic holds it") = Some(result);
            bar.add(1);
            let _one_at_a_time = writing.lock().expect("no panic holds it");
            // An error here stops nothing; if it persists, the last write reports it.
            let _ = write_summary(output, &jobs, &results);
        }
    };
    if evaluator.is_gpu() {
        side_by_side(vec![(); ON_GPU.min(jobs.len())], |()| work());
    } else {
        // This thread takes jobs, too; the others only wait while the pool works for them.
        let workers = rayon::current_num_threads().min(jobs.len());
        std::thread::scope(|scope| {
            for _ in 1..workers {
                scope.spawn(work);
            }
            work();
        });
    }
    drop(bar);
    let rows = write_summary(output, &jobs, &results)?;
    if observer.stop() {
        let message = "stopped; run the same command again to continue with the unfinished fits";
        return Err(Error::interrupted(format!("{message} ({})", output.display())));
    }
    let failed = rows.iter().filter(|row| row["error"].is_string()).count();
    let path = output.join(SUMMARY);
    let first = results.into_iter().find_map(|r| r.into_inner().ok().flatten()?.err());
    if let Some(error) = first {
        let place = path.display();
        let message = format!(
            "{failed} of {} fits failed ({place}); the first error: {}",
            jobs.len(),
            error.message
        );
        return Err(Error { message, ..error });
    }
    let mut text = format!("{} fits: {}", jobs.len(), path.display());
    let mut document = json!({ "fits": rows });
    if let Some(launches) = evaluator.launches() {
        text += &format!(" ({} requests in {} launches)", launches.requests, launches.launches);
        document["device"] = json!(launches);
    }
    context.print(&document, text);
    Ok(())
}

/// One fit: the result of an earlier run if it is finished, otherwise fitted now.
fn one(
    job: &Job,
    path: &Path,
    overwrite: bool,
    evaluator: &Evaluator,
    observer: &dyn Observer,
) -> Result<Value> {
    let done = path.join(job::RESULT);
    if done.exists() && !overwrite {
        let text = std::fs::read_to_string(&done).map_err(|e| Error::io("read", &done, e))?;
        return serde_json::from_str(&text)
            .map_err(|e| Error::input(format!("is not the result of a fit: {e}")).file(&done));
    }
    let ready = PreparedFit::new(job.config.clone())?;
    let resume = !overwrite && path.join("config.toml").exists();
    let folder = RunFolder::create(path, IfExists { resume, overwrite })?;
    Ok(ready.run(evaluator, &folder, resume, &Quiet(observer))?.document())
}

/// An error if the folder of a job holds something else.
fn check(job: &Job, path: &Path) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let folder = RunFolder::open(path)?;
    let earlier: Option<Config> = folder.read_config("regress")?;
    match earlier {
        Some(earlier) => {
            // A table is identified by its contents; one that cannot be read fails later, on its own.
            let table = earlier.table.clone();
            let data = fit::fingerprint(&job.config.table).unwrap_or(earlier.data.clone());
            if earlier != (Config { table, data, ..job.config.clone() }) {
                let message =
                    "was fitted with other settings or another table; --overwrite fits it again";
                return Err(Error::usage(message).file(path));
            }
            Ok(())
        }
        // The process may have been killed before the first file was complete.
        None if folder.is_empty()? => Ok(()),
        None => Err(Error::usage("contains something other than a fit").file(path)),
    }
}

/// A job for each table of a folder, all with the same options.
fn tables(folder: &Path, options: &Options, seed: u64) -> Result<Vec<Job>> {
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io("read", folder, e))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("").to_lowercase();
        path.is_file() && TABLES.contains(&extension.as_str())
    });
    paths.sort();
    if paths.is_empty() {
        return Err(Error::input(
            "contains no table (.csv, .tsv, .txt, .dat, .gz, .npz, .npy, .h5, .hdf5, .safetensors or .parquet)",
        )
        .file(folder));
    }
    let job = |table: PathBuf| {
        let name = table.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Job { name, config: Config::new(table, options.clone(), seed) }
    };
    distinct(paths.into_iter().map(job).collect(), folder)
}

/// The jobs of a file.
fn read(path: &Path, seed: u64) -> Result<Vec<Job>> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
    let bad = |message: String| Error::input(message).file(path);
    let file: toml::Table = text.parse().map_err(|e| bad(format!("is not valid TOML: {e}")))?;
    if let Some(key) = file.keys().find(|key| !["job", "defaults"].contains(&key.as_str())) {
        return Err(bad("is neither [[job]] nor [defaults]".to_string()).field(key));
    }
    let empty = toml::Table::new();
    let defaults = match file.get("defaults") {
        None => &empty,
        Some(value) => {
            value.as_table().ok_or_else(|| bad("must be a table".to_string()).field("defaults"))?
        }
    };
    let list = file.get("job").and_then(toml::Value::as_array);
    let list = list.filter(|list| !list.is_empty());
    let list = list.ok_or_else(|| bad("has no [[job]]".to_string()).field("job"))?;
    let base = path.parent().unwrap_or(Path::new(""));
    let mut jobs = Vec::new();
    for (index, job) in list.iter().enumerate() {
        let at = |message: String| bad(format!("job {}: {message}", index + 1));
        let own = job.as_table().ok_or_else(|| at("is not a table".to_string()).field("job"))?;
        let mut settings = defaults.clone();
        settings.extend(own.clone());
        let text = |key: &str, value: toml::Value| match value {
            toml::Value::String(text) => Ok(text),
            _ => Err(at("must be a string".to_string()).field(key)),
        };
        let table = settings
            .remove("table")
            .ok_or_else(|| at("has no table".to_string()).field("table"))?;
        let table = base.join(text("table", table)?);
        let name = match settings.remove("name") {
            Some(name) => text("name", name)?,
            None => {
                let stem = table.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                let alone = list.iter().filter(|other| other.get("table") == job.get("table"));
                match settings.get("target").and_then(toml::Value::as_str) {
                    Some(target) if alone.count() > 1 => format!("{stem}-{target}"),
                    _ => stem,
                }
            }
        };
        if name.is_empty() || name.contains(['/', '\\']) || name.starts_with('.') {
            return Err(at(format!("'{name}' cannot be the name of a folder")).field("name"));
        }
        let mut arguments = Vec::new();
        for (key, value) in settings {
            argument(&key, value, &mut arguments)
                .ok_or_else(|| at("must be a list, string or number".to_string()).field(&key))?;
        }
        let parsed =
            Arguments::try_parse_from(&arguments).map_err(|e| at(usage_error(&e).message))?;
        let mut options = parsed.options.0;
        if let Some(folder) = &options.warm_start {
            options.warm_start = Some(base.join(folder));
        }
        let config = Config::new(table, options, parsed.seed.unwrap_or(seed));
        jobs.push(Job { name, config });
    }
    distinct(jobs, path)
}

/// Adds a setting as a command-line argument; `None` if that is not possible.
fn argument(key: &str, value: toml::Value, arguments: &mut Vec<String>) -> Option<()> {
    let flag = format!("--{}", key.replace('_', "-"));
    let plain = |value: &toml::Value| match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        _ => None,
    };
    match value {
        toml::Value::Boolean(true) => arguments.push(flag),
        toml::Value::Boolean(false) => {}
        // In options that may be repeated, commas are not separators.
        toml::Value::Array(list) if ["define", "guess"].contains(&key) => {
            for item in &list {
                arguments.push(format!("{flag}={}", plain(item)?));
            }
        }
        toml::Value::Array(list) => {
            let items: Vec<String> = list.iter().map(plain).collect::<Option<_>>()?;
            arguments.push(format!("{flag}={}", items.join(",")));
        }
        other => arguments.push(format!("{flag}={}", plain(&other)?)),
    }
    Some(())
}

/// The jobs, if no two share a folder.
fn distinct(jobs: Vec<Job>, path: &Path) -> Result<Vec<Job>> {
    let mut names = HashSet::new();
    match jobs.iter().find(|job| !names.insert(&job.name)) {
        Some(twice) => {
            let message =
                format!("two fits are called '{}'; give them different names", twice.name);
            Err(Error::input(message).file(path).field("name"))
        }
        None => Ok(jobs),
    }
}

/// Writes a row for each target of each finished fit, and returns the rows as JSON objects.
fn write_summary(
    output: &Path,
    jobs: &[Job],
    results: &[Mutex<Option<Result<Value>>>],
) -> Result<Vec<Value>> {
    let mut rows = Vec::new();
    for (job, result) in jobs.iter().zip(results) {
        let result = result.lock().expect("no panic holds it");
        match result.as_ref() {
            None => {}
            // It continues when the command is run again.
            Some(Err(error)) if error.kind == Kind::Interrupted => {}
            Some(Err(error)) => rows.push(json!({
                "name": job.name,
                "target": job.config.options.target.join(","),
                "error": error.to_string(),
            })),
            Some(Ok(document)) => {
                let targets = document["targets"].as_array();
                let documents = targets.map_or(std::slice::from_ref(document), Vec::as_slice);
                for document in documents {
                    let rule = job.config.options.select.name();
                    let chosen = document["selected"][rule].as_u64().unwrap_or(u64::MAX);
                    let entry = &document["front"][chosen as usize];
                    rows.push(json!({
                        "name": job.name,
                        "target": document["target"],
                        "complexity": entry["complexity"],
                        "loss": entry["loss"],
                        "equation": entry["equation"],
                        "evaluations": document["evaluations"],
                        "seconds": document["seconds"],
                    }));
                }
            }
        }
    }
    const COLUMNS: [&str; 8] =
        ["name", "target", "complexity", "loss", "equation", "evaluations", "seconds", "error"];
    let path = output.join(SUMMARY);
    let failed = |e: String| Error::input(format!("cannot be written: {e}")).file(&path);
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(COLUMNS).map_err(|e| failed(e.to_string()))?;
    for row in &rows {
        let cell = |key: &str| match &row[key] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        writer.write_record(COLUMNS.map(cell)).map_err(|e| failed(e.to_string()))?;
    }
    let bytes = writer.into_inner().map_err(|e| failed(e.to_string()))?;
    write_atomic(&path, &bytes)?;
    Ok(rows)
}
