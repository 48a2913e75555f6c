//! The files of a run folder that the report uses. Each is optional; a damaged one is an error.

use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::cosmology::slab::Slab;
use crate::distill::summary::Summary;
use crate::error::{Error, Result};
use crate::nbody::rollout::Rollouts;
use crate::store::run::RunFolder;
use crate::store::table::Table;
use crate::store::tensors::{Dtype, TensorFile};

/// Everything that the report can show.
pub struct Inputs {
    /// `config.toml`, verbatim.
    pub config: Option<String>,
    /// `metrics.csv`.
    pub metrics: Option<Table>,
    /// `messages.safetensors`.
    pub messages: Option<Messages>,
    /// `messages.json`.
    pub summary: Option<Summary>,
    /// `hall_of_fame.csv`.
    pub front: Option<Vec<FrontRow>>,
    /// `laws.json`.
    pub laws: Option<Vec<Law>>,
    /// `slab.safetensors`.
    pub slab: Option<Slab>,
    /// `rollout.safetensors`.
    pub rollouts: Option<Rollouts>,
}

/// The messages of random test edges and the true forces on them.
pub struct Messages {
    /// For each column of `values`, the index of the message component in the model.
    pub components: Vec<usize>,
    /// `[edge, components]`.
    pub values: Vec<f32>,
    /// Dimensions of the forces.
    pub dim: usize,
    /// `[edge, dim]`, if the true law is known.
    pub forces: Option<Vec<f32>>,
}

/// The part of the metadata of the messages that is needed.
#[derive(Deserialize)]
struct MessagesEntry {
    components: Option<Vec<usize>>,
}

/// One line of `hall_of_fame.csv`.
#[derive(Deserialize)]
pub struct FrontRow {
    /// The message component, or the target of a table.
    pub component: String,
    /// Weighted number of nodes.
    pub complexity: u64,
    /// Smallest loss at this complexity.
    pub loss: f64,
    /// −Δlog loss / Δcomplexity.
    pub score: Option<f64>,
    /// Plain infix.
    pub equation: String,
}

/// One entry of `laws.json`.
#[derive(Deserialize)]
pub struct Law {
    /// The quantity that it predicts.
    pub target: String,
    /// `message`, `node` or `composed`.
    pub stage: Option<String>,
    /// Plain infix.
    pub equation: String,
    /// LaTeX.
    pub latex: Option<String>,
    /// Weighted number of nodes.
    pub complexity: Option<u64>,
    /// Loss of the law.
    pub loss: Option<f64>,
    /// The selection rule that chose it.
    pub rule: Option<String>,
}

impl Inputs {
    /// Reads the files that exist.
    pub fn read(folder: &RunFolder) -> Result<Self> {
        let present = |name: &str| Some(folder.file(name)).filter(|path| path.exists());
        let inputs = Inputs {
            config: present("config.toml").map(|path| text(&path)).transpose()?,
            metrics: present("metrics.csv").map(|path| metrics(&path)).transpose()?,
            messages: present("messages.safetensors").map(|path| messages(&path)).transpose()?,
            summary: present("messages.json").map(|path| json(&path)).transpose()?,
            front: present("hall_of_fame.csv").map(|path| front(&path)).transpose()?,
            laws: present("laws.json").map(|path| json(&path)).transpose()?,
            slab: Slab::read(folder)?,
            rollouts: present("rollout.safetensors")
                .map(|path| Rollouts::open(&path))
                .transpose()?,
        };
        let Inputs { metrics, messages, summary, front, laws, rollouts, .. } = &inputs;
        let nothing = metrics.is_none()
            && messages.is_none()
            && summary.is_none()
            && front.is_none()
            && laws.is_none()
            && rollouts.is_none();
        if nothing {
            let message = "contains no results (metrics.csv, messages.json, hall_of_fame.csv, \
                           laws.json, …): run train, regress or distill first";
            return Err(Error::input(message).file(folder.path()));
        }
        inputs.check(folder)?;
        Ok(inputs)
    }

    /// Checks that the summary agrees with the messages.
    fn check(&self, folder: &RunFolder) -> Result<()> {
        let (Some(summary), Some(messages)) = (&self.summary, &self.messages) else {
            return Ok(());
        };
        for component in &summary.components {
            let error = |message| {
                Err(Error::input(message).file(folder.file("messages.json")).field("components"))
            };
            if !messages.components.contains(&component.index) {
                let index = component.index;
                return error(format!("messages.safetensors has no message {index}"));
            }
            let fit = component.force_fit.as_ref().filter(|_| messages.forces.is_some());
            if fit.is_some_and(|fit| fit.len() != messages.dim + 1) {
                let n = messages.dim + 1;
                return error(format!(
                    "force_fit of message {} needs {n} numbers",
                    component.index
                ));
            }
        }
        Ok(())
    }
}

fn text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| Error::io("read", path, e))
}

fn json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    serde_json::from_str(&text(path)?)
        .map_err(|e| Error::input(format!("cannot be read: {e}")).file(path))
}

/// Reads the metrics; the columns of the loss curve must hold only numbers.
fn metrics(path: &Path) -> Result<Table> {
    let table = Table::read(path)?;
    for name in ["step", "learning_rate", "train_loss"] {
        table.column(name)?;
    }
    Ok(table)
}

fn messages(path: &Path) -> Result<Messages> {
    let file = TensorFile::open(path, "messages")?;
    let matrix = |name: &str| {
        let (values, shape) = file.tensor::<f32>(name, Dtype::F32)?;
        let error = |message| Error::input(message).file(path).field(name);
        let &[_, width] = shape else {
            return Err(error(format!("has shape {shape:?}; [edge, component] is needed")));
        };
        if let Some(index) = values.iter().position(|v| !v.is_finite()) {
            let message = format!("{} where a number is needed", values[index]);
            return Err(error(message).row((index / width) as u64 + 1));
        }
        Ok((values.to_vec(), width))
    };
    let (values, width) = matrix("messages")?;
    let entry: MessagesEntry = file.entry()?;
    let components = entry.components.unwrap_or_else(|| (0..width).collect());
    if components.len() != width {
        let message = format!("lists {} components, but messages has {width}", components.len());
        return Err(Error::input(message).file(path).field("lawsmith"));
    }
    let (forces, dim) = match file.has("forces") {
        true => matrix("forces").map(|(forces, dim)| (Some(forces), dim))?,
        false => (None, 0),
    };
    if forces.as_ref().is_some_and(|f| f.len() / dim.max(1) != values.len() / width.max(1)) {
        return Err(Error::input("has a different number of edges than messages")
            .file(path)
            .field("forces"));
    }
    Ok(Messages { components, values, dim, forces })
}

fn front(path: &Path) -> Result<Vec<FrontRow>> {
    let bad = |e: csv::Error| {
        let row = e.position().map(|p| p.record() + 1);
        let error = Error::input(format!("cannot be read: {e}")).file(path);
        match row {
            Some(row) => error.row(row),
            None => error,
        }
    };
    let rows: Vec<FrontRow> = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_path(path)
        .map_err(bad)?
        .deserialize()
        .collect::<Result<_, _>>()
        .map_err(bad)?;
    match rows.iter().position(|row| !row.loss.is_finite() || row.loss < 0.0) {
        Some(row) => Err(Error::input(format!("{} is not a valid loss", rows[row].loss))
            .file(path)
            .field("loss")
            .row(row as u64 + 2)),
        None => Ok(rows),
    }
}
