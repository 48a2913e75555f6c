//! The messages of a trained network: which components matter, and what they depend on;
//! `messages.safetensors` and `messages.json`.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::forces::{ForceFit, force_fit};
use super::run::{Compute, Distilled, Edges, Physics, Predictor, Run};
use super::summary::Summary;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::network::model::{Model, TrainedOn};
use crate::options;
use crate::store;
use crate::store::run::RunFolder;
use crate::store::tensors::{Dtype, TensorFile, TensorSpec, TensorWriter};
use crate::symbolic::search::Problem;

/// Random edges on which messages are measured (docs/design.md §1).
pub const EDGES: usize = 100_000;

/// Rows of each regression (docs/design.md §4).
pub const ROWS: usize = 5000;

/// Components with less than this share of the largest significance do not survive (docs/design.md §4).
const SURVIVES: f64 = 0.01;

/// Edges on which dependences are tested.
const PROBED: usize = 4000;

/// A direction or velocity becomes an input of the laws if replacing it by another edge's changes some
/// kept message by more than this fraction of its standard deviation. For a network trained on a law
/// without velocities the change is a few per cent.
const DEPENDS: f64 = 0.2;

options! {
    /// Which messages get laws, and what the laws may contain.
    #[derive(Copy, Eq)]
    pub struct Wanted {
        /// Number of message components to keep [default: the number of dimensions if the law is known,
        /// otherwise all with more than 1 % of the largest significance]
        components: Option<usize> = None;
        /// Graphs of halos only: laws without masses, although the network sees them
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        without_mass: bool = false;
    }
}

impl Wanted {
    /// Checks that these options apply to the system.
    ///
    /// # Errors
    /// Laws without masses for a system of bodies.
    pub fn check(&self, on: &TrainedOn) -> Result<()> {
        match on {
            TrainedOn::Bodies(..) if self.without_mass => {
                let message = "applies only to graphs of halos; this is a system of bodies";
                Err(Error::usage(message).field("without-mass"))
            }
            _ => Ok(()),
        }
    }
}

/// One kept message component.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Component {
    /// Column in `messages`.
    pub column: usize,
    /// Its number among the messages before pruning.
    pub index: usize,
    /// Standard deviation over the edges; for KL the mean of μ² + σ² − log σ².
    pub significance: f64,
    /// Fit to the true forces, if the law is known.
    #[serde(default)]
    pub force: Option<ForceFit>,
}

/// Tests what the kept messages depend on.
pub struct Probe<'a> {
    device: Device,
    model: &'a Model,
    edges: &'a Edges,
    messages: &'a [f32],
    kept: &'a [Component],
}

impl Probe<'_> {
    /// Whether some kept message changes when `exchange` gives each edge something of the edge `behind` places
    /// after it.
    ///
    /// # Errors
    /// Those of the network.
    pub fn depends(&self, behind: isize, exchange: impl Fn(&mut [f32], &[f32])) -> Result<bool> {
        let (width, message_dim) = (self.edges.width, self.model.shape.message_dim);
        let count = PROBED.min(self.edges.count());
        let mut exchanged = self.edges.features[..count * width].to_vec();
        for (edge, row) in exchanged.chunks_exact_mut(width).enumerate() {
            let other = (edge as isize + behind).rem_euclid(count as isize) as usize;
            exchange(row, &self.edges.features[other * width..][..width]);
        }
        let moved = self.model.messages(&self.device, &exchanged)?.values;
        let share = |component: &Component| {
            let at = |edge: usize| edge * message_dim + component.column;
            let change = |e: usize| f64::from(moved[at(e)] - self.messages[at(e)]).powi(2);
            let change = (0..count).map(change).sum::<f64>();
            let values: Vec<f64> = (0..count).map(|e| f64::from(self.messages[at(e)])).collect();
            (change / count as f64).sqrt() / deviation(&values).max(f64::MIN_POSITIVE)
        };
        Ok(self.kept.iter().any(|component| share(component) > DEPENDS))
    }
}

fn deviation(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count).sqrt()
}

/// The messages of a network on random edges of its system.
pub struct Messages {
    /// The kept messages, with the values of the variables of their laws.
    pub kept: Table,
    /// For each kept message, the edges used in the search for its law, with their weights.
    rows: Vec<(Vec<usize>, Option<Vec<f32>>)>,
    /// The edges.
    pub edges: Edges,
    /// All messages, `[edge, message_dim]`.
    pub values: Vec<f32>,
    /// The true forces `[dim][edge]`, if the law is known.
    pub forces: Option<Vec<Vec<f64>>>,
    /// Column and significance of each message, the most significant first.
    pub ranking: Vec<(usize, f64)>,
    /// Significances, fits to the forces, the variables of the laws, the losses of the network.
    pub summary: Summary,
    /// The original number of each message left after pruning.
    components: Vec<u32>,
    /// Further metadata.
    entry: Map<String, Value>,
}

/// Ranks the messages of a trained network on random edges of its system, unseen in training if possible; fits the kept
/// ones to the true forces, if known; determines which variables their laws may have.
///
/// # Errors
/// A network trained on another system; messages that are not finite.
///
/// ```
/// # use lawsmith::model::ModelKind;
/// # use lawsmith::nbody::simulate::{Settings, simulate};
/// # use lawsmith::network::settings::{self, Preset};
/// # use lawsmith::network::train::train;
/// use lawsmith::distill::messages::{Wanted, messages};
/// use lawsmith::distill::run::Compute;
///
/// # let at = Compute::default();
/// # let springs = Settings { runs: 8, frames: 20, ..Settings::default() };
/// # let data = simulate(&at.device, &springs, &())?;
/// # let mut settings = settings::Settings::preset(Preset::Quick, ModelKind::Bottleneck, 2, 4);
/// # settings.hidden = 16;
/// # settings.set_steps(20);
/// # let trained = train(&at.device, &data, &settings, None, &())?;
/// // `data` and `trained` as in the example of `train`.
/// let found = messages(Compute::default(), &trained.model, &data, Wanted::default())?;
/// let best = &found.summary.components[0];
/// println!("message {}: R² of the fit to the forces {:?}", best.index, best.force_r2);
/// let table = found.table(0); // columns m1, m2, …, r and the message
/// # assert_eq!(table.names[0], "m1");
/// # Ok::<(), lawsmith::error::Error>(())
/// ```
pub fn messages(
    at: Compute,
    model: &Model,
    system: &dyn Distilled,
    wanted: Wanted,
) -> Result<Messages> {
    on_edges(at, &*system.physics(model)?, wanted, true)
}

/// `messages` for a run, written to its folder. For data that were not simulated, laws may contain the velocities on
/// which messages depend only if `velocities` is true.
///
/// # Errors
/// Files of the run that cannot be read; messages that are not finite.
pub fn measure(at: Compute, run: &Run, wanted: Wanted, velocities: bool) -> Result<Summary> {
    let found = on_edges(at, &*run.physics, wanted, velocities)?;
    found.save(&run.folder.file("messages.safetensors"))?;
    found.summary.write(&run.folder)?;
    Ok(found.summary)
}

fn on_edges(
    at: Compute,
    physics: &dyn Physics,
    wanted: Wanted,
    velocities: bool,
) -> Result<Messages> {
    let model = physics.model();
    wanted.check(&model.about.on)?;
    let edges = physics.edges(at.seed)?;
    let found = model.messages(&at.device, &edges.features)?;
    let message_dim = model.shape.message_dim;
    let column = |values: &[f32], column: usize| -> Vec<f64> {
        values.iter().skip(column).step_by(message_dim).map(|&v| f64::from(v)).collect()
    };
    let significance = |k: usize| match &found.log_variances {
        None => deviation(&column(&found.values, k)),
        Some(logs) => {
            let (means, logs) = (column(&found.values, k), column(logs, k));
            let sum: f64 = means.iter().zip(&logs).map(|(m, l)| m * m + l.exp() - l).sum();
            sum / edges.count() as f64
        }
    };
    let mut ranking: Vec<(usize, f64)> = (0..message_dim).map(|k| (k, significance(k))).collect();
    if let Some((k, _)) = ranking.iter().find(|(_, s)| !s.is_finite()) {
        let message = format!("message {k} of the network is not finite");
        return Err(Error::input(message).field("messages"));
    }
    ranking.sort_by(|a, b| b.1.total_cmp(&a.1));
    let survivors = ranking.iter().filter(|(_, s)| *s > SURVIVES * ranking[0].1).count();
    let forces = physics.forces(&edges);
    let keep = wanted.components.or(physics.components()).unwrap_or(survivors);
    let kept: Vec<Component> = ranking[..keep.clamp(1, message_dim)]
        .iter()
        .map(|&(k, significance)| Component {
            column: k,
            index: model.components[k] as usize,
            significance,
            force: forces.as_ref().map(|forces| force_fit(forces, &column(&found.values, k))),
        })
        .collect();
    let (device, messages) = (at.device, &found.values);
    let probe = Probe { device, model, edges: &edges, messages, kept: &kept };
    let inputs = physics.variables(wanted, velocities, &probe)?;
    let mut summary = Summary::new(&kept, survivors, inputs.clone());
    summary.judge(&physics.judgement(at, Predictor::Network)?, Predictor::Network);
    let values = physics.values(&inputs, &edges);
    let entry = physics.entry(&inputs);
    let kept = Table::new(inputs, kept, values, &found.values, message_dim);
    Ok(Messages {
        entry,
        rows: kept.messages.iter().map(|message| physics.rows(message, at.seed)).collect(),
        kept,
        edges,
        values: found.values,
        forces,
        ranking,
        summary,
        components: model.components.clone(),
    })
}

impl Messages {
    /// Writes `messages.safetensors`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let Messages { edges, values, forces, ranking, components, .. } = self;
        let Table { inputs, kept, values: of_inputs, .. } = &self.kept;
        let count = edges.count();
        let mut specs = vec![
            TensorSpec::f32("features", &[count, edges.width]),
            TensorSpec::f32("messages", &[count, values.len() / count]),
            TensorSpec::f32("inputs", &[count, inputs.len()]),
        ];
        let dim = forces.as_ref().map(Vec::len);
        specs.extend(dim.map(|dim| TensorSpec::f32("forces", &[count, dim])));
        let mut entry = json!({"components": components, "kept": kept, "inputs": inputs});
        let more = entry.as_object_mut().expect("an object");
        more.extend(self.entry.clone());
        more.insert("significance".into(), json!(ranking));
        let mut writer = TensorWriter::create(path, "messages", entry, &specs)?;
        writer.slice("features").copy_from_slice(&edges.features);
        writer.slice("messages").copy_from_slice(values);
        writer.slice("inputs").copy_from_slice(of_inputs);
        for (k, force) in forces.iter().flatten().enumerate() {
            let out = writer.slice::<f32>("forces")[k..].iter_mut().step_by(dim.unwrap_or(1));
            for (out, &value) in out.zip(force) {
                *out = value as f32;
            }
        }
        writer.finish()
    }

    /// Kept message number `k` as a table in which to search for its law: a column for each variable of the laws, one
    /// named `message`, and, if edges have weights, one named `weight`.
    ///
    /// # Panics
    /// Fewer messages are kept.
    pub fn table(&self, k: usize) -> store::table::Table {
        let Table { inputs, values, messages, .. } = &self.kept;
        let ((rows, weights), width) = (&self.rows[k], inputs.len());
        let column = |c: usize| rows.iter().map(|row| f64::from(values[row * width + c])).collect();
        let mut columns: Vec<Vec<f64>> = (0..width).map(column).collect();
        columns.push(rows.iter().map(|&row| f64::from(messages[k][row])).collect());
        let mut names = [&inputs[..], &["message".to_string()]].concat();
        if let Some(weights) = weights {
            names.push("weight".to_string());
            columns.push(weights.iter().map(|&w| f64::from(w)).collect());
        }
        store::table::Table::new(names, columns)
    }
}

/// The messages as later stages need them.
pub struct Table {
    /// Variables of the laws.
    pub inputs: Vec<String>,
    /// The kept components.
    pub kept: Vec<Component>,
    /// `[edge, inputs]`.
    values: Vec<f32>,
    /// `[kept][edge]`.
    messages: Vec<Vec<f32>>,
}

impl Table {
    /// Reads the messages of a run.
    ///
    /// # Errors
    /// A file that is not a complete messages file.
    pub fn read(folder: &RunFolder) -> Result<Self> {
        #[derive(Deserialize)]
        struct Entry {
            kept: Vec<Component>,
            inputs: Vec<String>,
        }
        let file = TensorFile::open(&folder.file("messages.safetensors"), "messages")?;
        let Entry { kept, inputs } = file.entry()?;
        let (messages, shape) = file.tensor::<f32>("messages", Dtype::F32)?;
        let bad = || {
            let message = format!("has shape {shape:?}, which does not fit the file's metadata");
            Err(Error::input(message).file(file.path()).field("messages"))
        };
        let &[edges, message_dim] = shape else { return bad() };
        if edges == 0 || kept.is_empty() || kept.iter().any(|c| c.column >= message_dim) {
            return bad();
        }
        let values = file.f32("inputs", &[edges, inputs.len()])?.to_vec();
        Ok(Table::new(inputs, kept, values, messages, message_dim))
    }

    /// Picks the kept messages from all `messages`, `[edge, message_dim]`.
    fn new(
        inputs: Vec<String>,
        kept: Vec<Component>,
        values: Vec<f32>,
        messages: &[f32],
        message_dim: usize,
    ) -> Self {
        let of = |c: &Component| messages.iter().skip(c.column).step_by(message_dim).copied();
        let messages = kept.iter().map(|component| of(component).collect()).collect();
        Table { inputs, kept, values, messages }
    }

    /// The numbers of the kept components.
    pub fn components(&self) -> Vec<usize> {
        self.kept.iter().map(|component| component.index).collect()
    }

    /// The regression problem for each kept message.
    ///
    /// # Errors
    /// Variables that the system does not have.
    pub fn problems(&self, physics: &dyn Physics, seed: u64) -> Result<Vec<Problem>> {
        let all = physics.terms().edge;
        if let Some(unknown) = self.inputs.iter().find(|name| !all.contains(name)) {
            let message = format!("'{unknown}' is not a variable of an edge");
            return Err(Error::input(message).field("inputs"));
        }
        let width = self.inputs.len();
        let problem = |message: &Vec<f32>| {
            let (rows, weights) = physics.rows(message, seed);
            let pick = |k: usize| rows.iter().map(|&row| self.values[row * width + k]).collect();
            Problem {
                names: self.inputs.clone(),
                columns: (0..width).map(pick).collect(),
                target: rows.iter().map(|&row| message[row]).collect(),
                weights,
                ..Problem::default()
            }
        };
        Ok(self.messages.iter().map(problem).collect())
    }
}
