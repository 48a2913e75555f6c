//! A search and the files of a run: `hall_of_fame.csv` while it runs, `laws.json` at the end, `--resume`.
//!
//! Works on any list of problems with a label each (the targets of a table, the components of a network's messages).
//! The files are offered to the observer.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::slice;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::front::{Entry, Front, Select};
use super::given::OriginalData;
use super::search::{self, Memories, Moment, Outcome, Problem, Settings};
use crate::error::{Error, Result};
use crate::formula::export;
use crate::formula::expression::Expression;
use crate::formula::print::number;
use crate::formula::rescale::Rescaling;
use crate::observer::{Bar, Observer};
use crate::ops::expression::Evaluator;
use crate::store;
use crate::store::run::RunFolder;
use crate::store::table::Table;

/// The live file.
pub const HALL_OF_FAME: &str = "hall_of_fame.csv";

/// The chosen expressions.
pub const LAWS: &str = "laws.json";

/// The document of a completed fit.
pub const RESULT: &str = "fit.json";

/// The memory of a search, see [`Labels::memory`]: for a table or a network's messages, …
pub const MEMORY: &str = "memory.json";

/// … and for the outputs of φv, which the same folder holds as well.
pub const NODE_MEMORY: &str = "memory_nodes.json";

/// The key of the equation in the problem's own units.
const NATURAL: &str = "natural";

/// The best few of each complexity, if more than one is kept.
const KEPT: &str = "kept.csv";

/// Time between two saves of the memory.
const REMEMBER_EVERY: Duration = Duration::from_secs(2);

/// Time between two rewrites of the live file.
const REWRITE_EVERY: Duration = Duration::from_secs(1);

/// How a list of problems is labelled in the files of a run folder.
#[derive(Clone)]
pub struct Labels {
    /// One for each problem: `component` in `hall_of_fame.csv`, `target` in `laws.json`.
    pub targets: Vec<String>,
    /// `stage` in `laws.json`: `table`, `message` or `node`.
    pub stage: &'static str,
    /// The file with the search's memory: the same search of the same problems in the same folder continues from it, to
    /// the same end.
    pub memory: &'static str,
    /// True to continue from that file.
    pub resume: bool,
    /// If problems are in their own units: those of the user, one for each problem; the files are in these.
    pub units: Vec<Rescaling>,
}

impl Labels {
    /// An entry of a problem's front as it is in the files.
    fn shown(&self, problem: usize, entry: &Entry) -> Entry {
        shown(entry, self.units.get(problem))
    }
}

/// An entry in the user's units.
fn shown(entry: &Entry, units: Option<&Rescaling>) -> Entry {
    let Some(units) = units else { return entry.clone() };
    let expression = entry.expression.rescaled(units);
    Entry { expression, loss: units.output.1 * entry.loss, ..entry.clone() }
}

/// What a run folder holds from earlier searches; nothing by default.
#[derive(Default)]
pub struct Earlier {
    /// Rows of `hall_of_fame.csv` under other labels, which are kept.
    rows: Vec<csv::StringRecord>,
    /// The laws of other targets, which are kept.
    pub(super) laws: Vec<Value>,
    /// The memory from which the search continues.
    memory: Option<Memories>,
}

impl Earlier {
    /// Reads what `folder` holds, except what a search of these problems writes anew.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn read(
        folder: &RunFolder,
        problems: &[Problem],
        labels: &Labels,
        settings: &Settings,
    ) -> Result<Self> {
        let memory = match labels.resume {
            true => read_memory(&folder.file(labels.memory), fingerprint(problems, settings))?,
            false => None,
        };
        Ok(Earlier {
            rows: other_rows(folder, &labels.targets)?,
            laws: other_laws(read_laws(folder)?, &labels.targets),
            memory,
        })
    }

    /// Laws under other labels and of all stages except `stage`: what remains if a search was stopped.
    pub(crate) fn laws_but(&self, stage: &str) -> Vec<Value> {
        self.laws.iter().filter(|law| law["stage"] != stage).cloned().collect()
    }
}

/// The laws of other targets.
pub(crate) fn other_laws(mut laws: Vec<Value>, targets: &[String]) -> Vec<Value> {
    laws.retain(|law| !targets.iter().any(|target| law["target"] == target.as_str()));
    laws
}

/// Searches for the laws of `problems`, each with its label. The observer is offered `hall_of_fame.csv` and the memory
/// of the search while it runs, `laws.json` and `kept.csv` at its end; they include what `earlier` searches found under
/// other labels.
///
/// If the observer stops the search, it ends early with the same files; [`Outcome::interrupted`] says so.
///
/// # Errors
/// Those of [`search::search`], and of writing the files.
pub fn run(
    evaluator: &Evaluator,
    problems: &[Problem],
    labels: &Labels,
    settings: &Settings,
    select: Select,
    earlier: Earlier,
    observer: &dyn Observer,
) -> Result<Vec<Outcome>> {
    assert_eq!(problems.len(), labels.targets.len(), "a label for each problem");
    let begun = Instant::now();
    let fingerprint = fingerprint(problems, settings);
    let Earlier { rows: others, mut laws, memory } = earlier;
    let whole = settings.evaluations.map(|limit| limit.saturating_mul(problems.len() as u64));
    let bar = match (whole, settings.seconds) {
        (Some(whole), _) => {
            let done = memory.as_ref().map_or(0, Memories::evaluations);
            observer.bar("regress", whole, "formulas", done)
        }
        (None, Some(seconds)) => observer.bar("regress", seconds.ceil() as u64, "s", 0),
        (None, None) => observer.bar("regress", 0, "s", 0),
    };
    let mut remembered: Option<Instant> = None;
    let mut written = None;
    let mut seen = |moment: &Moment| {
        advance(&bar, settings, problems, moment, begun);
        let ends = whole.is_some_and(|whole| moment.evaluations >= whole);
        if moment.whole && (ends || remembered.is_none_or(|at| at.elapsed() >= REMEMBER_EVERY)) {
            remembered = Some(Instant::now());
            let memory = [head(fingerprint).as_bytes(), &moment.memory(), b"}\n"].concat();
            // A failure here only costs a later resume some seconds of work.
            let _ = keep(observer, labels.memory, &memory);
        }
        if written.is_none_or(|at: Instant| at.elapsed() >= REWRITE_EVERY) {
            written = Some(Instant::now());
            // A failure here stops nothing: if it persists, the last write reports it.
            let _ = write_fronts(observer, &others, problems, labels, moment.fronts);
        }
    };
    let outcomes = search::search(evaluator, problems, settings, memory, observer, &mut seen)?;
    let fronts: Vec<Front> = outcomes.iter().map(|o| o.front.clone()).collect();
    write_fronts(observer, &others, problems, labels, &fronts)?;
    if settings.keep > 1 {
        write_kept(observer, problems, labels, &outcomes)?;
    }
    for (k, ((problem, label), front)) in
        problems.iter().zip(&labels.targets).zip(&fronts).enumerate()
    {
        if let Some(chosen) = front.select(select) {
            let (entry, names) = (&front.entries[chosen], &problem.names);
            let units = labels.units.get(k);
            laws.push(law_in(units, label, labels.stage, entry, names, select.name()));
        }
    }
    keep_laws(observer, &laws)?;
    Ok(outcomes)
}

/// A hash of problems and settings, except limits.
fn fingerprint(problems: &[Problem], settings: &Settings) -> u64 {
    let mut hasher = DefaultHasher::new();
    let limits =
        Settings { evaluations: None, seconds: None, target_loss: None, ..settings.clone() };
    format!("{limits:?}").hash(&mut hasher);
    for problem in problems {
        let Problem { names, columns, target, weights, template, units, .. } = problem;
        format!("{names:?} {template:?} {units:?}").hash(&mut hasher);
        for column in columns.iter().chain([target]).chain(weights) {
            bytemuck::cast_slice::<f32, u8>(column).hash(&mut hasher);
        }
    }
    hasher.finish()
}

/// The start of a search's memory: a JSON object of the fingerprint and the memory itself.
fn head(fingerprint: u64) -> String {
    format!("{{\"fingerprint\":\"{fingerprint:016x}\",\"searches\":")
}

/// True if `memory` is that of a search of these problems with these settings, limits aside.
///
/// # Errors
/// A file that cannot be read.
pub fn remembers(memory: &Path, problems: &[Problem], settings: &Settings) -> Result<bool> {
    match std::fs::read(memory) {
        Ok(bytes) => Ok(bytes.starts_with(head(fingerprint(problems, settings)).as_bytes())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::io("read", memory, e)),
    }
}

/// The memory of an interrupted search of the same problems with the same settings; None if there is none.
fn read_memory(path: &Path, fingerprint: u64) -> Result<Option<Memories>> {
    if !path.exists() {
        return Ok(None);
    }
    let bytes = std::fs::read(path).map_err(|e| Error::io("read", path, e))?;
    let memory = bytes.strip_prefix(head(fingerprint).as_bytes());
    let Some(memory) = memory else { return Ok(None) };
    // No need to check the end: files are written whole.
    let memory = memory.strip_suffix(b"}\n").unwrap_or_default();
    Memories::read(memory).map(Some).map_err(|e| e.file(path))
}

/// Writes `kept.csv`: the best few of each complexity.
fn write_kept(
    observer: &dyn Observer,
    problems: &[Problem],
    labels: &Labels,
    outcomes: &[Outcome],
) -> Result<()> {
    let failed = |e: String| Error::input(format!("cannot be written: {e}")).file(KEPT);
    let mut writer = csv::Writer::from_writer(Vec::new());
    let mut write =
        |record: [String; 5]| writer.write_record(record).map_err(|e| failed(e.to_string()));
    write(["component", "complexity", "rank", "loss", "equation"].map(String::from))?;
    for ((problem, label), outcome) in problems.iter().zip(&labels.targets).zip(outcomes) {
        let mut rank = 0;
        let mut last = None;
        for (complexity, loss, expression) in &outcome.kept {
            rank = if last == Some(complexity) { rank + 1 } else { 1 };
            last = Some(complexity);
            let text = expression.text(&problem.names);
            let (complexity, rank) = (complexity.to_string(), rank.to_string());
            write([label.clone(), complexity, rank, number(*loss), text])?;
        }
    }
    let bytes = writer.into_inner().map_err(|e| failed(e.to_string()))?;
    keep(observer, KEPT, &bytes)
}

/// One entry of `laws.json`.
pub fn law(target: &str, stage: &str, entry: &Entry, names: &[String], rule: &str) -> Value {
    let e = &entry.expression.readable();
    let used = |(index, name): (usize, &String)| e.depends_on(index as u16).then(|| name.clone());
    let variables: Vec<String> = names.iter().enumerate().filter_map(used).collect();
    json!({
        "target": target,
        "stage": stage,
        "equation": e.text(names),
        "latex": e.latex(names),
        "python": export::python_law(e, names),
        "rust": export::rust_law(e, names),
        "variables": variables,
        "constants": e.constants(),
        "complexity": entry.complexity,
        "loss": entry.loss,
        "rule": rule,
    })
}

/// One entry of `laws.json` in the user's units; the key `natural` holds the equation in the problem's own, from which
/// it is read back.
pub fn law_in(
    units: Option<&Rescaling>,
    target: &str,
    stage: &str,
    entry: &Entry,
    names: &[String],
    rule: &str,
) -> Value {
    let mut law = law(target, stage, &shown(entry, units), names, rule);
    if units.is_some() {
        law[NATURAL] = entry.expression.readable().text(names).into();
    }
    law
}

/// The equation of an entry of `laws.json` in the units of its problem.
pub fn own_equation(law: &Value) -> Option<&str> {
    law[NATURAL].as_str().or_else(|| law["equation"].as_str())
}

/// True if an entry of `laws.json` is in the user's units, and those of its problem are others.
pub fn is_converted(law: &Value) -> bool {
    law[NATURAL].is_string()
}

/// The entries of `laws.json`; none if there is no such file.
pub fn read_laws(folder: &RunFolder) -> Result<Vec<Value>> {
    let path = folder.file(LAWS);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = std::fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))?;
    serde_json::from_str(&text)
        .map_err(|e| Error::input(format!("is not a list of laws: {e}")).file(&path))
}

/// Offers `laws.json`.
///
/// # Errors
/// Those of writing.
pub fn keep_laws(observer: &dyn Observer, laws: &[Value]) -> Result<()> {
    let text = serde_json::to_string_pretty(laws).expect("a JSON value prints");
    keep(observer, LAWS, format!("{text}\n").as_bytes())
}

fn keep(observer: &dyn Observer, name: &str, bytes: &[u8]) -> Result<()> {
    observer.keep(name, &mut |path| store::write_atomic(path, bytes))
}

fn advance(bar: &Bar, settings: &Settings, problems: &[Problem], moment: &Moment, begun: Instant) {
    let best = |(front, problem): (&Front, &Problem)| {
        let entry = &front.entries[front.select(Select::Best)?];
        let text = format!("{:.3e} at {}", entry.loss, entry.complexity);
        // There is room for one formula.
        let formula = (problems.len() == 1).then(|| entry.expression.text(&problem.names));
        Some(formula.map_or(text.clone(), |formula| format!("{text}: {formula}")))
    };
    let shown: Vec<String> = moment.fronts.iter().zip(problems).take(4).filter_map(best).collect();
    // A bar that counts seconds does not show the rate.
    let rate = match settings.evaluations {
        Some(_) => String::new(),
        None => format!("{:.0}/s, ", moment.evaluations as f64 / begun.elapsed().as_secs_f64()),
    };
    bar.message(format!("{rate}best {}", shown.join(", ")));
    bar.set(match settings.evaluations {
        Some(_) => moment.evaluations,
        None => begun.elapsed().as_secs(),
    });
}

fn write_fronts(
    observer: &dyn Observer,
    others: &[csv::StringRecord],
    problems: &[Problem],
    labels: &Labels,
    fronts: &[Front],
) -> Result<()> {
    let failed = |e: String| Error::input(format!("cannot be written: {e}")).file(HALL_OF_FAME);
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer
        .write_record(["component", "complexity", "loss", "score", "equation"])
        .map_err(|e| failed(e.to_string()))?;
    for record in others {
        writer.write_record(record).map_err(|e| failed(e.to_string()))?;
    }
    for (k, ((problem, label), front)) in
        problems.iter().zip(&labels.targets).zip(fronts).enumerate()
    {
        for entry in &front.entries {
            let entry = labels.shown(k, entry);
            let record = [
                label.clone(),
                entry.complexity.to_string(),
                number(entry.loss),
                number(entry.score),
                entry.expression.text(&problem.names),
            ];
            writer.write_record(record).map_err(|e| failed(e.to_string()))?;
        }
    }
    let bytes = writer.into_inner().map_err(|e| failed(e.to_string()))?;
    keep(observer, HALL_OF_FAME, &bytes)
}

/// The rows of `hall_of_fame.csv` that belong to other components.
fn other_rows(folder: &RunFolder, targets: &[String]) -> Result<Vec<csv::StringRecord>> {
    let path = folder.file(HALL_OF_FAME);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let bad = |e: csv::Error| Error::input(format!("is not a hall of fame: {e}")).file(&path);
    let mut reader = csv::Reader::from_path(&path).map_err(bad)?;
    let mut rows = reader.records().collect::<Result<Vec<_>, _>>().map_err(bad)?;
    rows.retain(|row| !targets.iter().any(|target| row.get(0) == Some(target)));
    Ok(rows)
}

/// Adds the expressions in an interrupted run's `hall_of_fame.csv` to `problems` as seeds.
///
/// # Errors
/// A file that cannot be read as such; equations with variables that a problem lacks.
pub fn resume(problems: &mut [Problem], labels: &[String], folder: &RunFolder) -> Result<()> {
    let path = folder.file(HALL_OF_FAME);
    if !path.exists() {
        return Ok(());
    }
    let bad = |e: csv::Error| Error::input(format!("is not a hall of fame: {e}")).file(&path);
    let mut reader = csv::Reader::from_path(&path).map_err(bad)?;
    for (row, record) in reader.records().enumerate() {
        let record = record.map_err(bad)?;
        let (Some(label), Some(equation)) = (record.get(0), record.get(4)) else { continue };
        let Some(index) = labels.iter().position(|l| l == label) else { continue };
        let names: Vec<&str> = problems[index].names.iter().map(String::as_str).collect();
        let expression = Expression::parse(equation, &names).map_err(|e| {
            Error::input(e.message).file(&path).field("equation").row(row as u64 + 2)
        })?;
        problems[index].seeds.push(expression);
    }
    Ok(())
}

/// The guesses that a completed run with a template left for a target, see [`Template::as_guess`].
///
/// [`Template::as_guess`]: super::template::Template::as_guess
///
/// # Errors
/// A file that cannot be read as such.
pub fn guesses(folder: &RunFolder, target: &str) -> Result<Vec<String>> {
    let path = folder.file(RESULT);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = std::fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))?;
    let document: Value = serde_json::from_str(&text)
        .map_err(|e| Error::input(format!("is not the document of a fit: {e}")).file(&path))?;
    let targets = document["targets"].as_array().map_or(slice::from_ref(&document), Vec::as_slice);
    let own = targets.iter().filter(|document| document["target"] == target);
    let entries = own.filter_map(|document| document["front"].as_array()).flatten();
    Ok(entries.filter_map(|entry| entry["guess"].as_str().map(String::from)).collect())
}

/// The fewest rows that a search accepts.
pub const FEWEST_ROWS: usize = 3;

/// The problem of finding `target` from `inputs` in a table; with `own_units` the search may see them in units of their
/// own.
///
/// # Errors
/// A missing column, or one with a value that is not a finite number, or with numbers that single precision cannot hold
/// together; a constant target, too few rows, names that cannot stand in an equation.
pub fn problem_of_table(
    table: &Table,
    target: &str,
    inputs: &[String],
    weights: Option<&str>,
    own_units: bool,
) -> Result<Problem> {
    let error = |field: &str, message: String| Error::input(message).file(&table.path).field(field);
    let asked = |field: &str, message: String| Error::usage(message).file(&table.path).field(field);
    let column = |name: &str| -> Result<Vec<f64>> {
        if table.find(name).is_none() && !table.unreadable.iter().any(|(other, _)| other == name) {
            return Err(asked(name, table.missing_column_message()));
        }
        table.column(name).map(<[f64]>::to_vec)
    };
    let y = column(target)?;
    if y.len() < FEWEST_ROWS {
        let rows = if y.len() == 1 { "row" } else { "rows" };
        let message = format!("has {} {rows}; a search needs at least {FEWEST_ROWS}", y.len());
        return Err(Error::input(message).file(&table.path));
    }
    if y.iter().all(|v| *v == y[0]) {
        return Err(error(target, format!("is {} in every row: there is no law to find", y[0])));
    }
    if inputs.is_empty() {
        return Err(Error::input("has no input column besides the target").file(&table.path));
    }
    for (index, name) in inputs.iter().enumerate() {
        let alone = Expression::parse(name, &[name.as_str()]).ok();
        if alone != Some(Expression::variable(0)) {
            let message = "cannot stand in an equation: rename it to letters, digits and _";
            return Err(error(name, message.to_string()));
        }
        if name == target {
            return Err(asked(name, "is the target and cannot be an input as well".to_string()));
        }
        if inputs[..index].contains(name) {
            return Err(asked(name, "is named twice among the inputs".to_string()));
        }
    }
    let w = weights.map(column).transpose()?;
    if let (Some(name), Some(w)) = (weights, &w) {
        if let Some(row) = w.iter().position(|&w| w < 0.0) {
            return Err(error(name, "a weight below 0".to_string()).row(table.row_number(row)));
        }
        if w.iter().all(|&w| w == 0.0) {
            return Err(error(name, "all weights are 0".to_string()));
        }
    }
    // Only their ratios count.
    let largest = w.iter().flatten().copied().fold(0.0, f64::max);
    let unit = if (1e-6..1e6).contains(&largest) { 1.0 } else { largest };
    let columns = inputs.iter().map(|name| column(name)).collect::<Result<_>>()?;
    let given = OriginalData::new(columns, y, own_units);
    let lost = |name: &str, row: usize| {
        let message = if own_units {
            "and others of its column are too many decades apart for single precision: take the \
             logarithm of the column"
        } else {
            "is beyond the range of single precision, which a template, --joint or a loss of your own \
             is computed in: rescale the column"
        };
        let value = table.column(name).map_or(f64::NAN, |column| column[row]);
        error(name, format!("{} {message}", number(value))).row(table.row_number(row))
    };
    let seen = |(index, name): (usize, &String)| given.column(index).map_err(|row| lost(name, row));
    Ok(Problem {
        names: inputs.to_vec(),
        columns: inputs.iter().enumerate().map(seen).collect::<Result<_>>()?,
        target: given.seen_target().map_err(|row| lost(target, row))?,
        weights: w.map(|w| w.iter().map(|w| (w / unit) as f32).collect()),
        given: Some(given),
        ..Problem::default()
    })
}
