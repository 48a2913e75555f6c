//! The messages of a network on a graph: which survive, and the table that their laws are searched in.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::graph::{Graph, N_FEATURES};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::network::model::Model;
use crate::ops::formula::{VARIABLES, variables};
use crate::random::Random;
use crate::store::run::RunFolder;
use crate::store::tensors::{Dtype, TensorFile, TensorSpec, TensorWriter};

/// Random edges on which messages are measured (docs/design.md §1).
pub const EDGES: usize = 100_000;
/// Components with less than this share of the largest significance do not survive (docs/design.md §4).
const SURVIVES: f64 = 0.01;
/// Edges on which dependences are probed.
const PROBED: usize = 4000;
/// A direction or a velocity joins the inputs of the laws if exchanging it for another edge's moves some
/// kept message by more than this share of its standard deviation.
const DEPENDS: f64 = 0.2;
const SAMPLE_STREAM: u64 = 0x5A3;
const ROWS_STREAM: u64 = 0x5A4;

/// Random edges.
pub struct Sample {
    /// `[edge, 2·N_FEATURES]`: receiver and sender as φe sees them, the receiver being the origin.
    pub inputs: Vec<f32>,
    /// Receiver and sender of each.
    pub pairs: Vec<(u32, u32)>,
}

/// `count` edges into `receivers`, each edge as likely as any other.
pub fn sample(
    graph: &Graph,
    features: &[f32],
    receivers: &[u32],
    count: usize,
    seed: u64,
) -> Sample {
    let mut random = Random::new(seed, SAMPLE_STREAM);
    let ends: Vec<usize> = receivers
        .iter()
        .scan(0, |end, &receiver| {
            *end += graph.edges_of(receiver).len();
            Some(*end)
        })
        .collect();
    let edges = ends.last().copied().unwrap_or(0);
    let count = if edges == 0 { 0 } else { count };
    let period = (graph.about.edge / graph.about.scales.length) as f32;
    let mut sample = Sample { inputs: Vec::with_capacity(2 * N_FEATURES * count), pairs: vec![] };
    for _ in 0..count {
        // There are more edges than `below` can tell apart without bias.
        let at = ((random.uniform() * edges as f64) as usize).min(edges - 1);
        let row = ends.partition_point(|&end| end <= at);
        let receiver = receivers[row];
        let span = graph.edges_of(receiver);
        let sender = graph.senders()[span.start + (at - (ends[row] - span.len()))];
        let node = |node: u32| -> &[f32; N_FEATURES] {
            features[node as usize * N_FEATURES..][..N_FEATURES].try_into().expect("a row")
        };
        let (mut own, mut other) = (*node(receiver), *node(sender));
        let values = variables(&own, &other, period);
        own[..3].fill(0.0);
        other[..3].copy_from_slice(&values[2..5]);
        sample.inputs.extend(own);
        sample.inputs.extend(other);
        sample.pairs.push((receiver, sender));
    }
    sample
}

/// The variables of an edge from its inputs of φe.
fn edge_variables(inputs: &[f32]) -> [f32; VARIABLES.len()] {
    let (own, other) = inputs.split_at(N_FEATURES);
    let row = |row: &[f32]| -> [f32; N_FEATURES] { row.try_into().expect("a row") };
    variables(&row(own), &row(other), f32::INFINITY)
}

/// One kept message component.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Component {
    /// Column in `messages`.
    pub column: usize,
    /// Its number among the messages that training began with.
    pub index: usize,
    /// Standard deviation over the edges; for KL the mean of μ² + σ² − log σ².
    pub significance: f64,
}

/// Which messages get laws, and what may be in them.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// How many messages, the most significant ones; by default those with more than 1 % of the largest
    /// significance.
    pub components: Option<usize>,
    /// No law has a mass in it; the network saw masses all the same.
    pub without_mass: bool,
}

/// What `messages` found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// Significance of every message, the largest first, as (column, significance).
    pub ranking: Vec<(usize, f64)>,
    /// The kept components, the most significant first.
    pub kept: Vec<Component>,
    /// Variables of their laws, a subset of [`VARIABLES`].
    pub inputs: Vec<String>,
}

impl Measured {
    /// Whether laws may have masses in them.
    pub fn with_masses(&self) -> bool {
        self.inputs.iter().any(|name| name == "m1")
    }

    /// How many messages have more than 1 % of the largest significance.
    pub fn survivors(&self) -> usize {
        self.ranking.iter().filter(|(_, s)| *s > SURVIVES * self.ranking[0].1).count()
    }
}

/// Ranks the messages on random edges of `receivers` and writes `messages.safetensors`. Without masses
/// the laws have all speeds to explain the messages with.
///
/// # Errors
/// Messages that are not finite.
pub fn measure(
    device: &Device,
    graph: &Graph,
    model: &Model,
    receivers: &[u32],
    wanted: Wanted,
    seed: u64,
    folder: &RunFolder,
) -> Result<Measured> {
    let features = graph.scaled_features();
    let edges = sample(graph, &features, receivers, EDGES, seed);
    if edges.pairs.is_empty() {
        return Err(Error::input("none of the receivers has an edge").file(graph.path()));
    }
    let spread =
        crate::network::forward::spread(device, &model.shape, &model.parameters, &edges.inputs)?;
    let message_dim = model.shape.message_dim;
    let mut ranking: Vec<(usize, f64)> = spread.significance.iter().copied().enumerate().collect();
    if let Some((k, _)) = ranking.iter().find(|(_, s)| !s.is_finite()) {
        let message = format!("message {k} of the network is not finite");
        return Err(Error::input(message).field("messages"));
    }
    ranking.sort_by(|a, b| b.1.total_cmp(&a.1));
    let survivors = ranking.iter().filter(|(_, s)| *s > SURVIVES * ranking[0].1).count();
    let keep = wanted.components.unwrap_or(survivors).clamp(1, message_dim);
    let kept: Vec<Component> = ranking[..keep]
        .iter()
        .map(|&(column, significance)| Component {
            column,
            index: model.components[column] as usize,
            significance,
        })
        .collect();
    let messages = model.messages(device, &edges.inputs)?.values;
    let mut inputs = if wanted.without_mass { vec![] } else { vec!["m1", "m2"] };
    if depends(device, model, &edges.inputs, &messages, &kept, turned)? {
        inputs.extend(["dx", "dy", "dz"]);
    }
    inputs.push("r");
    if wanted.without_mass
        || depends(device, model, &edges.inputs, &messages, &kept, other_velocities)?
    {
        inputs.extend(["dv", "v1", "v2"]);
    }
    let inputs: Vec<String> = inputs.into_iter().map(String::from).collect();
    let measured = Measured { ranking, kept, inputs };
    write(folder, model, &measured, &edges, &messages)?;
    Ok(measured)
}

/// The displacement of edge `at` in the direction of that of another edge.
fn turned(row: &mut [f32], other: &[f32]) {
    let length = |d: &[f32]| d.iter().map(|x| x * x).sum::<f32>().sqrt();
    let (from, to) = (&other[N_FEATURES..N_FEATURES + 3], length(&row[N_FEATURES..N_FEATURES + 3]));
    let scale = to / length(from).max(f32::MIN_POSITIVE);
    for k in 0..3 {
        row[N_FEATURES + k] = scale * from[k];
    }
}

/// The velocities of another edge.
fn other_velocities(row: &mut [f32], other: &[f32]) {
    for first in [3, N_FEATURES + 3] {
        row[first..first + 3].copy_from_slice(&other[first..first + 3]);
    }
}

/// Whether some kept message moves when each edge takes something of the one before it.
fn depends(
    device: &Device,
    model: &Model,
    inputs: &[f32],
    messages: &[f32],
    kept: &[Component],
    change: impl Fn(&mut [f32], &[f32]),
) -> Result<bool> {
    let width = 2 * N_FEATURES;
    let count = PROBED.min(inputs.len() / width);
    let mut changed = inputs[..count * width].to_vec();
    for (edge, row) in changed.chunks_exact_mut(width).enumerate() {
        let other = (edge + count - 1) % count;
        change(row, &inputs[other * width..][..width]);
    }
    let found = model.messages(device, &changed)?.values;
    let message_dim = model.shape.message_dim;
    let share = |component: &Component| {
        let column = |values: &[f32]| -> Vec<f64> {
            let column = values.iter().skip(component.column).step_by(message_dim);
            column.take(count).map(|&v| f64::from(v)).collect()
        };
        let (before, after) = (column(messages), column(&found));
        let mean = before.iter().sum::<f64>() / count as f64;
        let spread: f64 = before.iter().map(|v| (v - mean).powi(2)).sum();
        let change: f64 = before.iter().zip(&after).map(|(a, b)| (a - b).powi(2)).sum();
        (change / spread.max(f64::MIN_POSITIVE)).sqrt()
    };
    Ok(kept.iter().any(|component| share(component) > DEPENDS))
}

fn write(
    folder: &RunFolder,
    model: &Model,
    measured: &Measured,
    edges: &Sample,
    messages: &[f32],
) -> Result<()> {
    let count = edges.pairs.len();
    let specs = [
        TensorSpec::f32("features", &[count, 2 * N_FEATURES]),
        TensorSpec::f32("messages", &[count, model.shape.message_dim]),
        TensorSpec::f32("inputs", &[count, measured.inputs.len()]),
    ];
    let mut entry = serde_json::to_value(measured).expect("plain data");
    entry["components"] = json!(model.components);
    let path = folder.file("messages.safetensors");
    let mut writer = TensorWriter::create(&path, "messages", entry, &specs)?;
    writer.slice("features").copy_from_slice(&edges.inputs);
    writer.slice("messages").copy_from_slice(messages);
    let columns = positions(&measured.inputs, &VARIABLES);
    let rows = edges.inputs.chunks_exact(2 * N_FEATURES).flat_map(|row| {
        let all = edge_variables(row);
        columns.iter().map(move |&k| all[k]).collect::<Vec<_>>()
    });
    for (out, value) in writer.slice::<f32>("inputs").iter_mut().zip(rows) {
        *out = value;
    }
    writer.finish()
}

/// Where names are among all variables, which are those of an edge ([`VARIABLES`]) or of a node.
pub fn positions<S: AsRef<str>>(names: &[String], all: &[S]) -> Vec<usize> {
    let position = |name: &String| all.iter().position(|v| v.as_ref() == name);
    names.iter().filter_map(position).collect()
}

/// The table in which the law of a kept message is searched.
pub struct Table {
    /// Which message.
    pub component: Component,
    /// Its variables, a subset of [`VARIABLES`].
    pub inputs: Vec<String>,
    /// `[input][row]`
    pub columns: Vec<Vec<f32>>,
    /// `[row]`
    pub target: Vec<f32>,
    /// `[row]`
    pub weights: Vec<f32>,
}

impl Table {
    /// `rows` of the edges of a run's messages for each kept component.
    ///
    /// Most neighbours send next to nothing, and what the law is shows on the others. So an edge is drawn
    /// with a probability of which half is the same for all and half goes with how far its message is
    /// from the median, and weighs the inverse of it: the weighted loss is that of all edges, with a
    /// fraction of the noise.
    ///
    /// # Errors
    /// A file that is no whole messages file of a graph.
    pub fn read(folder: &RunFolder, rows: usize, seed: u64) -> Result<Vec<Self>> {
        let file = TensorFile::open(&folder.file("messages.safetensors"), "messages")?;
        let Measured { kept, inputs, .. } = file.entry()?;
        let (messages, shape) = file.tensor::<f32>("messages", Dtype::F32)?;
        let bad = || {
            let message = format!("has shape {shape:?}, which does not fit the file's metadata");
            Error::input(message).file(file.path()).field("messages")
        };
        let &[edges, message_dim] = shape else { return Err(bad()) };
        if edges == 0 || kept.iter().any(|component| component.column >= message_dim) {
            return Err(bad());
        }
        let width = inputs.len();
        let values = file.f32("inputs", &[edges, width])?;
        let table = |component: Component| {
            let message: Vec<f32> =
                messages.iter().skip(component.column).step_by(message_dim).copied().collect();
            let (chosen, weights) = important(&message, rows, seed);
            let pick = |k: usize| chosen.iter().map(|&row| values[row * width + k]).collect();
            let columns = (0..width).map(pick).collect();
            let target = chosen.iter().map(|&row| message[row]).collect();
            Table { component, inputs: inputs.clone(), columns, target, weights }
        };
        Ok(kept.into_iter().map(table).collect())
    }
}

/// Rows drawn by importance, and their weights.
fn important(values: &[f32], rows: usize, seed: u64) -> (Vec<usize>, Vec<f32>) {
    let mut sorted = values.to_vec();
    let half = sorted.len() / 2;
    let median = *sorted.select_nth_unstable_by(half, f32::total_cmp).1;
    let far: Vec<f64> = values.iter().map(|v| f64::from((v - median).abs())).collect();
    let total: f64 = far.iter().sum::<f64>().max(f64::MIN_POSITIVE);
    let probability = |far: f64| 0.5 / values.len() as f64 + 0.5 * far / total;
    let mut sum = 0.0;
    let ends: Vec<f64> = far
        .iter()
        .map(|&far| {
            sum += probability(far);
            sum
        })
        .collect();
    let mut random = Random::new(seed, ROWS_STREAM);
    let draw = |_| {
        let at = random.uniform() * sum;
        ends.partition_point(|&end| end <= at).min(values.len() - 1)
    };
    let chosen: Vec<usize> = (0..rows).map(draw).collect();
    let weight = |&row: &usize| (1.0 / (probability(far[row]) * values.len() as f64)) as f32;
    let weights = chosen.iter().map(weight).collect();
    (chosen, weights)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn important_rows_weigh_what_all_rows_do() {
        let mut random = Random::new(2, 0);
        // One value in fifty is far from the median.
        let value =
            |k: usize| if k.is_multiple_of(50) { 5.0 + random.normal() as f32 } else { 0.0 };
        let values: Vec<f32> = (0..50_000).map(value).collect();
        let (chosen, weights) = important(&values, 5000, 1);
        let large = chosen.iter().filter(|&&row| values[row] > 1.0).count();
        assert!((2300..2800).contains(&large), "{large} of 5000 rows are of the rare kind");
        let sum: f32 = weights.iter().sum();
        let mean: f32 = chosen.iter().zip(&weights).map(|(&r, w)| w * values[r]).sum::<f32>() / sum;
        let truth = values.iter().sum::<f32>() / 50_000.0;
        assert!((mean / truth - 1.0).abs() < 0.1, "{mean} instead of {truth}");
    }
}
