//! Predictions of network and formula for each halo of the held-out slab: `slab.safetensors` of a run folder,
//! from which the report is made.
//!
//! `position [halo, 3]` in Mpc/h, `mass [halo]` in Msun/h, `target`, `network` and `formula` `[halo]`.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::formula::Nodes;
use super::graph::Graph;
use super::halos::predict;
use crate::device::Device;
use crate::distill::formula::Formula;
use crate::error::{Error, Result};
use crate::network::model::Model;
use crate::ops::edge;
use crate::store::run::RunFolder;
use crate::store::tensors::{TensorFile, TensorSpec, TensorWriter};

/// The file in the run folder.
pub(super) const SLAB: &str = "slab.safetensors";

#[derive(Serialize, Deserialize)]
struct About {
    halos: usize,
    edge: f64,
}

/// The halos of the slab with the predictions.
pub struct Slab {
    /// Edge of the box, Mpc/h.
    pub edge: f64,
    /// `[halo, 3]`, Mpc/h.
    pub positions: Vec<f32>,
    /// `[halo]`, Msun/h.
    pub masses: Vec<f32>,
    /// `[halo]`: the overdensity, …
    pub targets: Vec<f32>,
    /// … the prediction of the network, …
    pub network: Vec<f32>,
    /// … and that of the formula.
    pub formula: Vec<f32>,
}

/// Predicts and writes the file.
///
/// # Errors
/// Those of the operations and of writing.
pub fn write(
    device: &Device,
    graph: &Graph,
    features: &[f32],
    nodes: &[u32],
    (model, formula): (&Model, &Formula),
    path: &Path,
) -> Result<()> {
    let on = Nodes::new(device, graph, features, nodes)?;
    let mut workspace = edge::Workspace::default();
    let network = predict(device, graph, features, model, nodes, &mut workspace)?;
    let nowhere = || vec![f64::NAN; nodes.len()];
    let predicted = formula.predictions(&on)?.unwrap_or_else(nowhere);
    let n = nodes.len();
    let columns = ["mass", "target", "network", "formula"].map(|name| TensorSpec::f32(name, &[n]));
    let specs: Vec<TensorSpec> =
        [TensorSpec::f32("position", &[n, 3])].into_iter().chain(columns).collect();
    let entry =
        serde_json::to_value(About { halos: n, edge: graph.about.edge }).expect("plain data");
    let mut writer = TensorWriter::create(path, "slab", entry, &specs)?;
    let rows = writer.slice::<f32>("position").as_chunks_mut::<3>().0;
    for (out, &node) in rows.iter_mut().zip(nodes) {
        out.copy_from_slice(&graph.positions()[3 * node as usize..][..3]);
    }
    for (out, &node) in writer.slice::<f32>("mass").iter_mut().zip(nodes) {
        *out = graph.features()[4 * node as usize + 3];
    }
    writer.slice("target").copy_from_slice(on.targets());
    writer.slice("network").copy_from_slice(&network);
    for (out, value) in writer.slice::<f32>("formula").iter_mut().zip(predicted) {
        *out = value as f32;
    }
    writer.finish()
}

impl Slab {
    /// Reads the file of a run; `None` if there is none yet.
    ///
    /// # Errors
    /// A file that is truncated or of another kind.
    pub fn read(folder: &RunFolder) -> Result<Option<Self>> {
        let path = folder.file(SLAB);
        if !path.exists() {
            return Ok(None);
        }
        let file = TensorFile::open(&path, "slab")?;
        let About { halos, edge } = file.entry()?;
        if halos == 0 {
            return Err(Error::input("contains no halos").file(path));
        }
        let column = |name: &str| file.f32(name, &[halos]).map(<[f32]>::to_vec);
        Ok(Some(Slab {
            edge,
            positions: file.f32("position", &[halos, 3])?.to_vec(),
            masses: column("mass")?,
            targets: column("target")?,
            network: column("network")?,
            formula: column("formula")?,
        }))
    }
}
