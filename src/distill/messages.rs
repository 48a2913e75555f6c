//! The messages of a trained network: which components carry it, and what they are made of.
//!
//! Writes `messages.safetensors` and `messages.json`.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::edges::{Edges, Inputs};
use super::forces::{ForceFit, force_fit};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::nbody::dataset::Dataset;
use crate::network::model::Model;
use crate::store::run::RunFolder;
use crate::store::tensors::{TensorFile, TensorSpec, TensorWriter};

/// Random test edges on which messages are measured (docs/design.md §1).
pub const EDGES: usize = 100_000;

/// Components with less than this share of the largest significance do not survive, where the law
/// is not known (docs/design.md §4).
const SURVIVES: f64 = 0.01;

/// Edges on which the dependence on velocities is probed.
const PROBED: usize = 4000;

/// A velocity component joins the inputs of the laws if exchanging it for another edge's moves some
/// kept message by more than this share of its standard deviation. A network trained on a law without
/// velocities leaks a few per cent.
const DEPENDS: f64 = 0.2;

/// One kept message component.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Component {
    /// Column in `messages`.
    pub column: usize,
    /// Its number among the messages that training began with.
    pub index: usize,
    /// Standard deviation over the edges; for KL the mean of μ² + σ² − log σ².
    pub significance: f64,
    /// Fit to the true forces, where the law is known.
    pub force: Option<ForceFit>,
}

/// The messages of a network on a sample of test edges.
pub struct Measured {
    /// The edges.
    pub edges: Edges,
    /// `[edge, message_dim]` (KL: the means).
    pub messages: Vec<f32>,
    /// Columns of `messages`.
    pub message_dim: usize,
    /// True forces `[dim][edge]`, where the law is known.
    pub forces: Option<Vec<Vec<f64>>>,
    /// Variables of the laws.
    pub inputs: Inputs,
    /// Significance of every message, the largest first, as (column, significance).
    pub ranking: Vec<(usize, f64)>,
    /// The components that are kept, most significant first.
    pub kept: Vec<Component>,
}

impl Measured {
    /// One message component over the edges.
    pub fn column(&self, column: usize) -> Vec<f64> {
        self.messages.iter().skip(column).step_by(self.message_dim).map(|&v| f64::from(v)).collect()
    }

    /// How many messages have more than 1 % of the largest significance.
    pub fn survivors(&self) -> usize {
        self.ranking.iter().filter(|(_, s)| *s > SURVIVES * self.ranking[0].1).count()
    }
}

/// Runs the network on random edges of `runs` of `test`, ranks the messages and fits the kept ones to the true forces.
///
/// `components` overrides how many are kept: D where the law is known, else those with more than 1 %
/// of the largest significance.
pub fn measure(
    device: &Device,
    model: &Model,
    test: &Dataset,
    runs: &[usize],
    components: Option<usize>,
    seed: u64,
) -> Result<Measured> {
    let edges = Edges::sample(test, runs, EDGES, seed);
    let found = model.messages(device, &edges.features)?;
    let message_dim = model.shape.message_dim;
    let column = |values: &[f32], column: usize| -> Vec<f64> {
        values.iter().skip(column).step_by(message_dim).map(|&v| f64::from(v)).collect()
    };
    let significance = |k: usize| match &found.log_variances {
        None => deviation(&column(&found.values, k)),
        Some(logs) => {
            let (means, logs) = (column(&found.values, k), column(logs, k));
            means.iter().zip(&logs).map(|(m, l)| m * m + l.exp() - l).sum::<f64>() / EDGES as f64
        }
    };
    let mut ranking: Vec<(usize, f64)> = (0..message_dim).map(|k| (k, significance(k))).collect();
    if let Some((k, _)) = ranking.iter().find(|(_, s)| !s.is_finite()) {
        return Err(
            Error::input(format!("message {k} of the network is not finite")).field("messages")
        );
    }
    ranking.sort_by(|a, b| b.1.total_cmp(&a.1));
    let forces = test.about.law.as_ref().map(|law| edges.forces(law)).transpose()?;
    let keep = match (components, &forces) {
        (Some(count), _) => count.clamp(1, message_dim),
        (None, Some(_)) => test.about.dim.min(message_dim),
        (None, None) => ranking.iter().filter(|(_, s)| *s > SURVIVES * ranking[0].1).count(),
    };
    let kept: Vec<Component> = ranking[..keep]
        .iter()
        .map(|&(k, significance)| Component {
            column: k,
            index: model.components[k] as usize,
            significance,
            force: forces.as_ref().map(|forces| force_fit(forces, &column(&found.values, k))),
        })
        .collect();
    let velocities = dependence(device, model, &edges, &found.values, &kept)?;
    let inputs = Inputs { dim: test.about.dim, velocities };
    Ok(Measured { edges, messages: found.values, message_dim, forces, inputs, ranking, kept })
}

/// Which velocity components (index k < dim the receiver's, k ≥ dim the sender's) the kept messages depend on.
fn dependence(
    device: &Device,
    model: &Model,
    edges: &Edges,
    messages: &[f32],
    kept: &[Component],
) -> Result<Vec<usize>> {
    let (dim, width, message_dim) = (edges.dim, edges.width(), model.shape.message_dim);
    let count = PROBED.min(edges.count);
    let mut depends = Vec::new();
    for k in 0..2 * dim {
        let velocity = edges.layout().velocity().start + k % dim;
        let at = if k < dim { velocity } else { width / 2 + velocity };
        let mut exchanged = edges.features[..count * width].to_vec();
        for edge in 0..count {
            exchanged[edge * width + at] = edges.features[(edge + 1) % count * width + at];
        }
        let moved = model.messages(device, &exchanged)?.values;
        let share = |component: &Component| {
            let at = |edge: usize| edge * message_dim + component.column;
            let change =
                (0..count).map(|e| f64::from(moved[at(e)] - messages[at(e)]).powi(2)).sum::<f64>();
            let values: Vec<f64> = (0..count).map(|e| f64::from(messages[at(e)])).collect();
            (change / count as f64).sqrt() / deviation(&values).max(f64::MIN_POSITIVE)
        };
        if kept.iter().any(|component| share(component) > DEPENDS) {
            depends.push(k);
        }
    }
    Ok(depends)
}

fn deviation(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count).sqrt()
}

/// Writes `messages.safetensors`.
pub fn write(folder: &RunFolder, model: &Model, measured: &Measured) -> Result<()> {
    let Measured { edges, messages, message_dim, forces, inputs, kept, .. } = measured;
    let count = edges.count;
    let mut specs = vec![
        TensorSpec::f32("features", &[count, edges.width()]),
        TensorSpec::f32("messages", &[count, *message_dim]),
        TensorSpec::f32("inputs", &[count, inputs.names().len()]),
    ];
    if forces.is_some() {
        specs.push(TensorSpec::f32("forces", &[count, edges.dim]));
    }
    let entry = json!({
        "components": model.components,
        "kept": kept,
        "inputs": inputs.names(),
        "velocities": inputs.velocities,
        "dim": edges.dim,
        "bodies": edges.bodies,
        "significance": measured.ranking,
    });
    let path = folder.file("messages.safetensors");
    let mut writer = TensorWriter::create(&path, "messages", entry, &specs)?;
    writer.slice("features").copy_from_slice(&edges.features);
    writer.slice("messages").copy_from_slice(messages);
    for (out, value) in writer.slice::<f32>("inputs").iter_mut().zip(inputs.table(edges)) {
        *out = value as f32;
    }
    if let Some(forces) = forces {
        for (k, force) in forces.iter().enumerate() {
            let out = writer.slice::<f32>("forces");
            for (edge, &value) in force.iter().enumerate() {
                out[edge * edges.dim + k] = value as f32;
            }
        }
    }
    writer.finish()
}

/// What the regression needs of `messages.safetensors`: a table of the inputs and the kept messages.
pub struct MessageTable {
    /// Variables of the laws.
    pub inputs: Inputs,
    /// `[input][edge]`.
    pub columns: Vec<Vec<f32>>,
    /// The kept components with their messages over the edges.
    pub targets: Vec<(Component, Vec<f32>)>,
    /// Bodies of the system.
    pub bodies: usize,
}

impl MessageTable {
    /// Reads the first `rows` edges (they are in random order) of a run's messages.
    pub fn read(folder: &RunFolder, rows: usize) -> Result<Self> {
        #[derive(Deserialize)]
        struct Entry {
            kept: Vec<Component>,
            velocities: Vec<usize>,
            dim: usize,
            bodies: usize,
        }
        use crate::store::tensors::Dtype;
        let file = TensorFile::open(&folder.file("messages.safetensors"), "messages")?;
        let Entry { kept, velocities, dim, bodies } = file.entry()?;
        let (messages, shape) = file.tensor::<f32>("messages", Dtype::F32)?;
        let bad = |field: &str, found: &[usize]| {
            Error::input(format!("has shape {found:?}, which does not fit the file's metadata"))
                .file(file.path())
                .field(field)
        };
        let &[edges, message_dim] = shape else { return Err(bad("messages", shape)) };
        if kept.iter().any(|component| component.column >= message_dim) {
            return Err(bad("messages", shape));
        }
        let inputs = Inputs { dim, velocities };
        let width = inputs.names().len();
        let table = file.f32("inputs", &[edges, width])?;
        let rows = rows.min(edges);
        let pick = |values: &[f32], width: usize, column: usize| -> Vec<f32> {
            values.iter().skip(column).step_by(width).take(rows).copied().collect()
        };
        let columns = (0..width).map(|k| pick(table, width, k)).collect();
        let targets =
            kept.into_iter().map(|c| (c.clone(), pick(messages, message_dim, c.column))).collect();
        Ok(MessageTable { inputs, columns, targets, bodies })
    }

    /// The kept components.
    pub fn kept(&self) -> Vec<Component> {
        self.targets.iter().map(|(component, _)| component.clone()).collect()
    }

    /// The distance that `share` of the edges stay below.
    pub fn distance(&self, share: f64) -> f64 {
        let mut distances = self.columns[4 + self.inputs.dim].clone();
        distances.sort_by(f32::total_cmp);
        let at = (share * (distances.len() - 1) as f64).round() as usize;
        f64::from(distances[at])
    }
}
