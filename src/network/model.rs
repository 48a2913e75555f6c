//! A graph network with its parameters, and its file `model.safetensors` (docs/design.md §1).

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::forward::{self, Messages};
use super::settings::Settings;
use super::view::View;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::law::Law;
use crate::model::{ModelKind, Shape};
use crate::nbody::dataset::{self, Dataset};
use crate::nbody::scale::{ColumnEncoding, Scale};
use crate::store::tensors::{TensorFile, TensorSpec, TensorWriter};

/// How, on what and how far a model was trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "AboutFile", into = "AboutFile")]
pub struct About {
    /// Settings of the training.
    pub settings: Settings,
    /// What it was trained on.
    pub on: TrainedOn,
    /// The file it was trained on.
    pub dataset: PathBuf,
    /// Steps done.
    pub step: u64,
    /// Prediction loss on training batches, as in the last row of `metrics.csv`; `None` before the first row.
    pub train_loss: Option<f64>,
    /// Prediction loss on the validation data in that row.
    pub validation_loss: Option<f64>,
}

/// What a model was trained on.
#[derive(Clone, Debug, PartialEq)]
pub enum TrainedOn {
    /// A data set of small systems, with its law if it is known.
    Bodies(DataSet, Option<Law>),
    /// A graph of halos.
    Halos(OnGraph),
}

/// The data set a model was trained on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataSet {
    /// Dimensions of space.
    pub dim: usize,
    /// Bodies of the largest graph.
    pub bodies: usize,
    /// Runs.
    pub runs: usize,
    /// Frames of each run.
    pub frames: usize,
    /// Its seed.
    pub dataset_seed: u64,
    /// Units used in training; `None` for simulated data, which are in the user's units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<Scale>,
    /// Edges of its periodic box in these units, 0 for an open axis.
    #[serde(default, rename = "box", skip_serializing_if = "Option::is_none")]
    pub period: Option<[f64; 3]>,
    /// How the network sees masses.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mass: ColumnEncoding,
    /// How the network sees charges.
    #[serde(default, skip_serializing_if = "is_default")]
    pub charge: ColumnEncoding,
}

fn is_default(seen: &ColumnEncoding) -> bool {
    *seen == ColumnEncoding::default()
}

impl DataSet {
    /// The part of an opened data set that a model file records.
    pub fn of(data: &Dataset) -> Self {
        let dataset::About { dim, bodies, runs, frames, seed, ref law, .. } = data.about;
        let foreign = law.is_none();
        let seen = |values: &[f32]| {
            if foreign { ColumnEncoding::of(values) } else { ColumnEncoding::default() }
        };
        DataSet {
            dim,
            bodies,
            runs,
            frames,
            dataset_seed: seed,
            scale: foreign.then(|| data.about.units()),
            period: data.about.period.is_some().then(|| data.about.periods()),
            mass: seen(data.masses()),
            charge: seen(data.charges()),
        }
    }

    /// The units used in training, in the user's units.
    pub fn units(&self) -> Scale {
        self.scale.unwrap_or(Scale::NONE)
    }
}

/// [`About`] as stored in the file: with a data set or a graph.
#[derive(Clone, Serialize, Deserialize)]
struct AboutFile {
    settings: Settings,
    #[serde(flatten)]
    data: Option<DataSet>,
    dataset: PathBuf,
    law: Option<Law>,
    step: u64,
    train_loss: Option<f64>,
    validation_loss: Option<f64>,
    #[serde(default)]
    graph: Option<OnGraph>,
}

impl From<About> for AboutFile {
    fn from(about: About) -> Self {
        let About { settings, on, dataset, step, train_loss, validation_loss } = about;
        let (data, law, graph) = match on {
            TrainedOn::Bodies(data, law) => (Some(data), law, None),
            TrainedOn::Halos(graph) => (None, None, Some(graph)),
        };
        AboutFile { settings, data, dataset, law, step, train_loss, validation_loss, graph }
    }
}

impl TryFrom<AboutFile> for About {
    type Error = &'static str;

    fn try_from(file: AboutFile) -> Result<Self, Self::Error> {
        let AboutFile { settings, data, dataset, law, step, train_loss, validation_loss, graph } =
            file;
        let on = match (graph, data) {
            (Some(graph), _) => TrainedOn::Halos(graph),
            (None, Some(data)) => TrainedOn::Bodies(data, law),
            (None, None) => return Err("names neither a data set nor a graph"),
        };
        Ok(About { settings, on, dataset, step, train_loss, validation_loss })
    }
}

impl TrainedOn {
    /// Its name in messages.
    pub fn what(&self) -> &'static str {
        match self {
            TrainedOn::Bodies(..) => "data set",
            TrainedOn::Halos(_) => "graph",
        }
    }

    /// What a batch consists of.
    pub fn units(&self) -> &'static str {
        match self {
            TrainedOn::Bodies(..) => "graphs",
            TrainedOn::Halos(_) => "receivers",
        }
    }

    /// The graph, if it is one.
    pub fn graph(&self) -> Option<&OnGraph> {
        match self {
            TrainedOn::Bodies(..) => None,
            TrainedOn::Halos(graph) => Some(graph),
        }
    }
}

/// The graph a model was trained on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OnGraph {
    /// Number of nodes.
    pub nodes: usize,
    /// Number of directed edges.
    pub edges: usize,
    /// The largest distance between neighbours, Mpc/h.
    pub radius: f64,
    /// Units of the features.
    pub scales: Scales,
    /// Nodes with a larger target were hidden.
    pub hide_above: Option<f64>,
}

/// Units of lengths, velocities and masses: networks and formulas see values divided by these.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scales {
    /// Mpc/h.
    pub length: f64,
    /// km/s: the standard deviation of a velocity component.
    pub velocity: f64,
    /// Msun/h: the standard deviation of the masses, which are not centred.
    pub mass: f64,
}

/// A graph network.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// Its shape, after pruning.
    pub shape: Shape,
    /// How its messages were kept compact.
    pub kind: ModelKind,
    /// For each message left after pruning, its index in the original network.
    pub components: Vec<u32>,
    /// The arena of `shape`.
    pub parameters: Vec<f32>,
    /// How and on what it was trained.
    pub about: About,
}

/// The `lawsmith` entry of a model file.
#[derive(Serialize, Deserialize)]
struct Entry {
    shape: Shape,
    model: ModelKind,
    components: Vec<u32>,
    about: About,
    /// Components before the last cut, while that cut may still be undone.
    before_cut: Option<Vec<u32>>,
}

/// Everything besides the model that a training needs to continue.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct TrainState {
    /// Adam's first moments, in the layout of the arena.
    pub m: Vec<f32>,
    /// Adam's second moments, in the layout of the arena.
    pub v: Vec<f32>,
    /// Sums and the state of pruning (see `state.rs`), in f64 because resuming must be exact.
    pub numbers: Vec<f64>,
    /// Components, parameters and moments before the last cut.
    pub before_cut: Option<Snapshot>,
}

/// A network and its moments at one time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Snapshot {
    /// Original index of each message.
    pub components: Vec<u32>,
    /// Parameters, first and second moments: three arenas.
    pub arenas: [Vec<f32>; 3],
}

/// The prefixes of the tensors of a snapshot's arenas.
const SNAPSHOT: [&str; 3] = ["before_cut.", "before_cut.adam.m.", "before_cut.adam.v."];

impl Model {
    /// Reads a model file.
    pub fn load(path: &Path) -> Result<Self> {
        let file = TensorFile::open(path, "model")?;
        Ok(Self::read(&file)?.0)
    }

    /// Writes the model without the state of its training. `--resume` cannot continue from such a file.
    pub fn save(&self, path: &Path) -> Result<()> {
        self.write(path, &[("", &self.parameters)], &[], None)
    }

    /// Writes the model with everything its training needs to continue.
    pub(crate) fn save_training(&self, path: &Path, state: &TrainState) -> Result<()> {
        let arenas: [(&str, &[f32]); 3] =
            [("", &self.parameters), ("adam.m.", &state.m), ("adam.v.", &state.v)];
        self.write(path, &arenas, &state.numbers, state.before_cut.as_ref())
    }

    /// Reads a model with the state of its training.
    pub(crate) fn load_training(path: &Path) -> Result<(Self, TrainState)> {
        let file = TensorFile::open(path, "model")?;
        if !file.has("train.state") {
            return Err(Error::input("has no optimizer state, so its training cannot be resumed")
                .file(path));
        }
        let (model, before_cut) = Self::read(&file)?;
        let numbers = file.tensor::<f64>("train.state", crate::store::tensors::Dtype::F64)?.0;
        let before_cut = before_cut.map(|components| -> Result<Snapshot> {
            let shape = Shape { message_dim: components.len(), ..model.shape };
            let mut arenas = [vec![], vec![], vec![]];
            for (arena, prefix) in arenas.iter_mut().zip(SNAPSHOT) {
                *arena = read_arena(&file, &shape, prefix)?;
            }
            Ok(Snapshot { components, arenas })
        });
        let state = TrainState {
            m: read_arena(&file, &model.shape, "adam.m.")?,
            v: read_arena(&file, &model.shape, "adam.v.")?,
            numbers: numbers.to_vec(),
            before_cut: before_cut.transpose()?,
        };
        Ok((model, state))
    }

    fn read(file: &TensorFile) -> Result<(Self, Option<Vec<u32>>)> {
        let Entry { shape, model: kind, components, about, before_cut } = file.entry()?;
        if components.len() != shape.message_dim {
            let message = format!("names {} components of {}", components.len(), shape.message_dim);
            return Err(Error::input(message).file(file.path()).field("components"));
        }
        let parameters = read_arena(file, &shape, "")?;
        Ok((Model { shape, kind, components, parameters, about }, before_cut))
    }

    fn write<'a>(
        &'a self,
        path: &Path,
        arenas: &[(&str, &'a [f32])],
        numbers: &[f64],
        before_cut: Option<&'a Snapshot>,
    ) -> Result<()> {
        let mut all = Vec::new();
        let mut add = |shape: &Shape, prefix: &str, arena: &'a [f32]| {
            for (name, dims, range) in shape.arena().tensors() {
                all.push((format!("{prefix}{name}"), dims, range, arena));
            }
        };
        for (prefix, arena) in arenas {
            add(&self.shape, prefix, arena);
        }
        let entry = Entry {
            shape: self.shape,
            model: self.kind,
            components: self.components.clone(),
            about: self.about.clone(),
            before_cut: before_cut.map(|snapshot| snapshot.components.clone()),
        };
        if let Some(snapshot) = before_cut {
            let shape = Shape { message_dim: snapshot.components.len(), ..self.shape };
            for (prefix, arena) in SNAPSHOT.iter().zip(&snapshot.arenas) {
                add(&shape, prefix, arena);
            }
        }
        let mut specs: Vec<TensorSpec> =
            all.iter().map(|(name, dims, ..)| TensorSpec::f32(name, dims)).collect();
        if !numbers.is_empty() {
            specs.push(TensorSpec::f64("train.state", &[numbers.len()]));
        }
        let entry = serde_json::to_value(&entry).expect("the entry is plain data");
        let mut writer = TensorWriter::create(path, "model", entry, &specs)?;
        for (name, _, range, arena) in &all {
            writer.slice::<f32>(name).copy_from_slice(&arena[range.clone()]);
        }
        if !numbers.is_empty() {
            writer.slice::<f64>("train.state").copy_from_slice(numbers);
        }
        writer.finish()
    }

    /// How it sees bodies; `None` if it sees the values of the data set themselves, or a graph of halos.
    pub fn view(&self) -> Option<View> {
        let TrainedOn::Bodies(data, _) = &self.about.on else { return None };
        Some(View::new(data, &self.about.settings)).filter(|view| !view.is_plain())
    }

    /// True if each receiver has a single sender, so that messages are not determined by being summed: φv could undo
    /// anything φe does to a force.
    fn of_pairs(&self) -> bool {
        let TrainedOn::Bodies(data, None) = &self.about.on else { return false };
        let Shape { message_dim, outputs, sampled, .. } = self.shape;
        let place = self.about.settings.external();
        data.bodies == 2 && !place && !sampled && message_dim >= outputs
    }

    /// φe on `inputs` `[edges, 2·n_features]`: features of the receiver, then of the sender. If the model was trained
    /// on two-body systems that were not simulated, the messages are replaced by the output of φv: the acceleration of
    /// the receiver, padded with zeros.
    pub fn messages(&self, device: &Device, inputs: &[f32]) -> Result<Messages> {
        if self.of_pairs() {
            let Shape { message_dim, outputs, .. } = self.shape;
            let edges = inputs.len() / self.shape.edge_inputs();
            // The two ends of an edge form a graph.
            let found = self.accelerations(device, inputs, &vec![2; edges])?;
            let mut values = vec![0.0; edges * message_dim];
            let rows = values.chunks_exact_mut(message_dim).zip(found.chunks_exact(2 * outputs));
            rows.for_each(|(row, both)| row[..outputs].copy_from_slice(&both[..outputs]));
            return Ok(Messages { values, log_variances: None });
        }
        let Some(view) = self.view() else {
            return forward::messages(device, &self.shape, &self.parameters, inputs);
        };
        let mut seen = inputs.to_vec();
        seen.chunks_exact_mut(self.shape.edge_inputs()).for_each(|edge| view.show(edge));
        view.nearest(&mut seen);
        forward::messages(device, &self.shape, &self.parameters, &seen)
    }

    /// φv on `inputs` `[rows, n_features + message_dim]`: features, then summed messages.
    pub fn node_outputs(&self, device: &Device, inputs: &[f32]) -> Result<Vec<f32>> {
        forward::node_outputs(device, &self.shape, &self.parameters, inputs)
    }

    /// Accelerations `[node, dim]` for `features` `[node, n_features]` of graphs with these numbers of bodies; KL:
    /// from the means of the messages.
    pub fn accelerations(
        &self,
        device: &Device,
        features: &[f32],
        bodies: &[u32],
    ) -> Result<Vec<f32>> {
        let n_features = self.shape.n_features;
        let nodes: usize = bodies.iter().map(|&n| n as usize).sum();
        if features.len() != nodes * n_features || bodies.iter().any(|n| *n < 2) {
            let message =
                format!("{} features of {nodes} bodies in {} graphs", features.len(), bodies.len());
            return Err(Error::usage(message).field("features"));
        }
        let Some(view) = self.view() else {
            return forward::accelerations(
                device,
                &self.shape,
                &self.parameters,
                features,
                bodies,
                None,
            );
        };
        let mut seen = features.to_vec();
        let mut rest = &mut seen[..];
        for n in bodies {
            let (graph, others) = rest.split_at_mut(*n as usize * n_features);
            view.show(graph);
            rest = others;
        }
        let view = Some(&view);
        forward::accelerations(device, &self.shape, &self.parameters, &seen, bodies, view)
    }
}

/// One arena of `shape`, from the tensors whose names begin with `prefix`.
fn read_arena(file: &TensorFile, shape: &Shape, prefix: &str) -> Result<Vec<f32>> {
    let layout = shape.arena();
    let mut arena = vec![0.0; layout.len];
    for (name, dims, range) in layout.tensors() {
        let name = format!("{prefix}{name}");
        let values = file.f32(&name, &dims)?;
        if let Some(bad) = values.iter().find(|v| !v.is_finite()) {
            let message = format!("contains {bad} where a number is needed");
            return Err(Error::input(message).file(file.path()).field(name));
        }
        arena[range].copy_from_slice(values);
    }
    Ok(arena)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::settings::Preset;

    fn about(on: TrainedOn) -> About {
        let settings = Settings::preset(Preset::Quick, ModelKind::L1, 2, 4);
        let dataset = PathBuf::from("/data");
        About { settings, on, dataset, step: 7, train_loss: Some(0.5), validation_loss: None }
    }

    /// Only the file of a network on bodies has bodies and frames; a file of a network on a graph that has zeros
    /// there is read as such.
    #[test]
    fn a_file_says_what_its_network_was_trained_on() {
        let data = DataSet {
            dim: 2,
            bodies: 4,
            runs: 10,
            frames: 20,
            dataset_seed: 3,
            scale: None,
            period: None,
            mass: ColumnEncoding::default(),
            charge: ColumnEncoding::default(),
        };
        let bodies = about(TrainedOn::Bodies(data, None));
        let file = serde_json::to_value(&bodies).unwrap();
        let keys: Vec<&str> = file.as_object().unwrap().keys().map(String::as_str).collect();
        let expected = "settings dim bodies runs frames dataset_seed dataset law step train_loss \
                        validation_loss graph";
        assert_eq!(keys.join(" "), expected);
        assert!(file["graph"].is_null());
        assert_eq!(serde_json::from_value::<About>(file).unwrap(), bodies);

        let scales = Scales { length: 1.0, velocity: 2.0, mass: 3.0 };
        let on = OnGraph { nodes: 5, edges: 6, radius: 7.0, scales, hide_above: None };
        let halos = about(TrainedOn::Halos(on));
        let mut file = serde_json::to_value(&halos).unwrap();
        assert!(file.get("bodies").is_none() && file["graph"]["nodes"] == 5);
        assert_eq!(serde_json::from_value::<About>(file.clone()).unwrap(), halos);
        for key in ["dim", "bodies", "runs", "frames", "dataset_seed"] {
            file[key] = serde_json::json!(0);
        }
        assert_eq!(serde_json::from_value::<About>(file.clone()).unwrap(), halos);
        file["graph"] = serde_json::Value::Null;
        file.as_object_mut().unwrap().remove("bodies");
        assert!(serde_json::from_value::<About>(file).is_err());
    }
}
