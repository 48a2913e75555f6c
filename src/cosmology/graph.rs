//! The graph of a catalogue: all pairs of halos within a radius, in a memory-mapped file of kind
//! `graph` (docs/design.md §1).
//!
//! `position [node, 3] f32` in Mpc/h, `features [node, 4] f32` (velocity in km/s, mass in Msun/h),
//! `target [node] f32` (overdensity) if it is known, `row_start [node + 1] u64`,
//! `sender [edge] u32`: the senders of node i are at `row_start[i]..row_start[i + 1]`, ascending.
//! Several catalogues with the same box make one graph without edges between them.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::catalog::Catalog;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::network::model::OnGraph;
pub use crate::network::model::Scales;
use crate::ops::neighbours::{self, Reach};
use crate::store::tensors::{Dtype, TensorFile, TensorSpec, TensorWriter};

/// The unit of length of networks and formulas, in Mpc/h: the standard deviation of a coordinate
/// uniform in the paper's box of 1000 Mpc/h. Table 6 of the paper is in this unit.
pub const LENGTH: f64 = 288.675_134_594_812_9;

/// Features of a node in the network: position, velocity, mass.
pub const N_FEATURES: usize = 7;

/// The `lawsmith` entry of a graph.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct About {
    /// Number of nodes.
    pub nodes: usize,
    /// Number of directed edges.
    pub edges: usize,
    /// Edge of the periodic box, Mpc/h.
    pub edge: f64,
    /// The largest distance between neighbours, Mpc/h.
    pub radius: f64,
    /// Units of networks and formulas.
    pub scales: Scales,
    /// The catalogues.
    pub catalogs: Vec<PathBuf>,
    /// The first node of each catalogue.
    pub first_nodes: Vec<usize>,
    /// Whether there is a target, the overdensity around each node.
    pub target: bool,
}

impl About {
    /// The description of the graph that is stored in a model.
    pub fn on_graph(&self, hide_above: Option<f64>) -> OnGraph {
        let About { nodes, edges, radius, scales, .. } = *self;
        OnGraph { nodes, edges, radius, scales, hide_above }
    }
}

/// Joins halos of `catalogs` that are at most `radius` Mpc/h apart and writes the graph `output`.
/// `edge` overrides the box of the catalogues.
///
/// # Errors
/// Catalogues with different boxes, or only some of them with overdensities; those of
/// [`neighbours::count`]; no two halos within the radius.
pub fn build(
    device: &Device,
    catalogs: &[Catalog],
    edge: Option<f64>,
    radius: f64,
    output: &Path,
) -> Result<About> {
    let first = &catalogs[0];
    let edge = edge.unwrap_or(first.about.edge);
    for other in catalogs {
        if other.about.edge != first.about.edge {
            let (a, b) = (other.about.edge, first.about.edge);
            let message =
                format!("has a box of {a} Mpc/h, unlike {} with {b} Mpc/h", first.path().display());
            return Err(Error::input(message).file(other.path()));
        }
        if other.delta().is_some() != first.delta().is_some() {
            let message = "only some of the catalogues have overdensities: use catalog \
                           --delta or --particles for all of them";
            return Err(Error::input(message).file(other.path()).field("delta"));
        }
    }
    let reach = Reach { edge, radius };
    let counted = catalogs.iter().map(|catalog| {
        neighbours::count(device, catalog.positions(), reach).map_err(|e| e.file(catalog.path()))
    });
    let counted = counted.collect::<Result<Vec<_>>>()?;
    let edges: usize = counted.iter().map(|graph| graph.edges()).sum();
    if edges == 0 {
        let message = format!("no two halos are within {radius} Mpc/h of each other");
        return Err(Error::usage(message).file(first.path()).field("radius"));
    }
    let mut first_nodes = Vec::new();
    let mut nodes = 0;
    for catalog in catalogs {
        first_nodes.push(nodes);
        nodes += catalog.about.halos;
    }
    if u32::try_from(nodes).is_err() {
        let message = format!("{nodes} halos are too many: at most {} are possible", u32::MAX);
        return Err(Error::input(message).file(first.path()));
    }
    let scales = Scales {
        length: LENGTH,
        velocity: deviation(catalogs.iter().flat_map(|c| c.velocities())),
        // If all halos have the same mass it becomes 1, and the law is in distances and speeds.
        mass: match deviation(catalogs.iter().flat_map(|c| c.masses())) {
            0.0 => first.masses().first().copied().unwrap_or(0.0).into(),
            scatter => scatter,
        },
    };
    for (name, scale) in [("velocity", scales.velocity), ("mass", scales.mass)] {
        if !(scale > 0.0 && scale.is_finite()) {
            let message =
                format!("has a standard deviation of {scale}, so nothing can be learned from it");
            return Err(Error::input(message).file(first.path()).field(name));
        }
    }
    let about = About {
        nodes,
        edges,
        edge,
        radius,
        scales,
        catalogs: catalogs
            .iter()
            .map(|c| std::path::absolute(c.path()).unwrap_or_else(|_| c.path().to_path_buf()))
            .collect(),
        first_nodes,
        target: first.delta().is_some(),
    };
    let entry = serde_json::to_value(&about).expect("the entry is plain data");
    let mut writer = TensorWriter::create(output, "graph", entry, &about.specs())?;
    let join = |values: fn(&Catalog) -> &[f32]| catalogs.iter().flat_map(move |c| values(c).iter());
    fill(writer.slice("position"), join(Catalog::positions).copied());
    let rows =
        catalogs.iter().flat_map(|c| c.velocities().as_chunks::<3>().0.iter().zip(c.masses()));
    fill(writer.slice("features"), rows.flat_map(|(v, &mass)| [v[0], v[1], v[2], mass]));
    if about.target {
        fill(writer.slice("target"), join(|c| c.delta().unwrap_or_default()).copied());
    }
    let mut before = 0;
    for ((graph, catalog), &first) in counted.iter().zip(catalogs).zip(&about.first_nodes) {
        let rows = &mut writer.slice::<u64>("row_start")[first..][..=catalog.about.halos];
        fill(rows, graph.row_start().iter().map(|&row| row + before as u64));
        let senders = &mut writer.slice::<u32>("sender")[before..][..graph.edges()];
        graph.write_senders(senders)?;
        if first > 0 {
            senders.iter_mut().for_each(|sender| *sender += first as u32);
        }
        before += graph.edges();
    }
    writer.finish()?;
    Ok(about)
}

fn fill<T>(out: &mut [T], values: impl Iterator<Item = T>) {
    out.iter_mut().zip(values).for_each(|(out, value)| *out = value);
}

fn deviation<'a>(values: impl Iterator<Item = &'a f32>) -> f64 {
    let (mut count, mut mean, mut squares) = (0.0, 0.0, 0.0);
    for &value in values {
        // Welford's method: masses are about 1e13, and their squares would lose digits.
        count += 1.0;
        let delta = f64::from(value) - mean;
        mean += delta / count;
        squares += delta * (f64::from(value) - mean);
    }
    f64::sqrt(squares / f64::max(count, 1.0))
}

impl About {
    fn specs(&self) -> Vec<TensorSpec> {
        let n = self.nodes;
        let mut specs = vec![
            TensorSpec::f32("position", &[n, 3]),
            TensorSpec::f32("features", &[n, 4]),
            TensorSpec::u64("row_start", &[n + 1]),
            TensorSpec::u32("sender", &[self.edges]),
        ];
        if self.target {
            specs.push(TensorSpec::f32("target", &[n]));
        }
        specs
    }
}

/// A graph, mapped for reading.
#[derive(Clone)]
pub struct Graph {
    /// Its parameters.
    pub about: About,
    file: Arc<TensorFile>,
}

impl Graph {
    /// Maps a graph and checks its shapes, that rows are in order and that senders exist.
    pub fn open(path: &Path) -> Result<Self> {
        let file = TensorFile::open(path, "graph")?;
        let about: About = file.entry()?;
        let bad = |field: &str, message: String| Err(Error::input(message).file(path).field(field));
        for spec in about.specs() {
            let shape = match spec.dtype {
                Dtype::F32 => {
                    let (values, shape) = file.tensor::<f32>(&spec.name, Dtype::F32)?;
                    if let Some(at) = values.iter().position(|v| !v.is_finite()) {
                        let row = at / spec.shape.get(1).unwrap_or(&1);
                        let message = format!("{} where a number is needed", values[at]);
                        return bad(&spec.name, message).map_err(|e| e.row(row as u64 + 1));
                    }
                    shape
                }
                Dtype::U64 => file.tensor::<u64>(&spec.name, Dtype::U64)?.1,
                _ => file.tensor::<u32>(&spec.name, Dtype::U32)?.1,
            };
            if shape != spec.shape {
                return bad(&spec.name, format!("has shape {shape:?}; {:?} is needed", spec.shape));
            }
        }
        let graph = Graph { about, file: Arc::new(file) };
        let rows = graph.row_start();
        let ordered = rows.windows(2).all(|pair| pair[0] <= pair[1]);
        if rows[0] != 0 || !ordered || rows[rows.len() - 1] != graph.about.edges as u64 {
            return bad("row_start", "does not increase from 0 to the number of edges".to_string());
        }
        if graph.about.edges == 0 {
            return bad("sender", "contains no edges, so nothing interacts".to_string());
        }
        let nodes = graph.about.nodes;
        if let Some(at) = graph.senders().iter().position(|&s| s as usize >= nodes) {
            return bad(
                "sender",
                format!("edge {at} comes from a node beyond the last of {nodes}"),
            );
        }
        Ok(graph)
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The absolute path of its file.
    pub fn absolute_path(&self) -> PathBuf {
        std::path::absolute(self.path()).unwrap_or_else(|_| self.path().to_path_buf())
    }

    fn values(&self, name: &str) -> &[f32] {
        self.file.tensor(name, Dtype::F32).expect("checked in open").0
    }

    /// `[node, 3]`, Mpc/h.
    pub fn positions(&self) -> &[f32] {
        self.values("position")
    }

    /// `[node, 4]`: velocity in km/s, mass in Msun/h.
    pub fn features(&self) -> &[f32] {
        self.values("features")
    }

    /// `[node]`: the overdensity.
    ///
    /// # Errors
    /// A graph of catalogues without overdensities.
    pub fn targets(&self) -> Result<&[f32]> {
        if !self.about.target {
            let message = "has no overdensity: make its catalogue with --delta or --particles";
            return Err(Error::input(message).file(self.path()).field("target"));
        }
        Ok(self.values("target"))
    }

    /// `[node + 1]`
    pub fn row_start(&self) -> &[u64] {
        self.file.tensor("row_start", Dtype::U64).expect("checked in open").0
    }

    /// `[edge]`
    pub fn senders(&self) -> &[u32] {
        self.file.tensor("sender", Dtype::U32).expect("checked in open").0
    }

    /// The edge of the box in the units of [`Graph::scaled_features`].
    pub fn period(&self) -> f32 {
        (self.about.edge / self.about.scales.length) as f32
    }

    /// The edges of a node.
    pub fn edges_of(&self, node: u32) -> Range<usize> {
        let rows = self.row_start();
        rows[node as usize] as usize..rows[node as usize + 1] as usize
    }

    /// The inputs of a network, `[node, N_FEATURES]`: position, velocity, mass, scaled.
    pub fn scaled_features(&self) -> Vec<f32> {
        let Scales { length, velocity, mass } = self.about.scales;
        let rows =
            self.positions().as_chunks::<3>().0.iter().zip(self.features().as_chunks::<4>().0);
        let scaled = |(position, &[vx, vy, vz, m]): (&[f32; 3], &[f32; 4])| {
            let [x, y, z] = position.map(|x| (f64::from(x) / length) as f32);
            let [vx, vy, vz] = [vx, vy, vz].map(|v| (f64::from(v) / velocity) as f32);
            [x, y, z, vx, vy, vz, (f64::from(m) / mass) as f32]
        };
        rows.flat_map(scaled).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cosmology::catalog::{self, Settings};
    use crate::random::Random;

    fn catalog(folder: &Path, name: &str, count: usize, stream: u64) -> Catalog {
        let mut random = Random::new(3, stream);
        let mut text = "x,y,z,vx,vy,vz,mass,delta\n".to_string();
        for _ in 0..count {
            let row: Vec<String> = (0..8).map(|_| (10.0 * random.uniform()).to_string()).collect();
            text += &(row.join(",") + "\n");
        }
        let [source, output] = ["csv", "safetensors"].map(|e| folder.join(format!("{name}.{e}")));
        std::fs::write(&source, text).unwrap();
        let settings = Settings { edge: Some(10.0), ..Settings::default() };
        catalog::import(&source, &output, &settings).unwrap();
        Catalog::open(&output).unwrap()
    }

    #[test]
    fn joined_catalogues_are_the_graphs_side_by_side() {
        let folder = tempfile::tempdir().unwrap();
        let both = [catalog(folder.path(), "a", 50, 0), catalog(folder.path(), "b", 70, 1)];
        let path = folder.path().join("graph.safetensors");
        let graph = |catalogs: &[Catalog]| {
            build(&Device::cpu(), catalogs, None, 3.0, &path).unwrap();
            let graph = Graph::open(&path).unwrap();
            let rows = graph.row_start().to_vec();
            (
                rows,
                graph.senders().to_vec(),
                graph.scaled_features(),
                graph.targets().unwrap().to_vec(),
            )
        };
        let (a, b) = (graph(&both[..1]), graph(&both[1..]));
        let joined = graph(&both);
        assert_eq!(joined.0[..51], a.0[..]);
        let edges = a.1.len();
        assert!(edges > 0);
        assert_eq!(joined.0[50..], b.0.iter().map(|r| r + edges as u64).collect::<Vec<_>>());
        assert_eq!(joined.1[..edges], a.1[..]);
        assert_eq!(joined.1[edges..], b.1.iter().map(|s| s + 50).collect::<Vec<_>>());
        assert_eq!(joined.3, [a.3, b.3].concat());
        assert_eq!(joined.2.len(), 120 * N_FEATURES);
        // Scaled by the standard deviation over the joined halos.
        let masses: Vec<f64> = joined.2.chunks(7).map(|row| row[6].into()).collect();
        let mean = masses.iter().sum::<f64>() / 120.0;
        let spread = masses.iter().map(|m| (m - mean).powi(2)).sum::<f64>() / 120.0;
        assert!((spread - 1.0).abs() < 1e-5);
        assert!((f64::from(joined.2[0]) * LENGTH - f64::from(both[0].positions()[0])).abs() < 1e-5);
    }

    #[test]
    fn halos_of_one_mass_have_mass_one() {
        let folder = tempfile::tempdir().unwrap();
        let text =
            "x,y,z,vx,vy,vz,mass\n1,2,3,10,20,30,1e13\n2,2,3,-10,0,30,1e13\n3,2,3,5,9,1,1e13\n";
        let [source, output, path] = ["a.csv", "b", "c"].map(|name| folder.path().join(name));
        std::fs::write(&source, text).unwrap();
        let settings = Settings { edge: Some(10.0), ..Settings::default() };
        catalog::import(&source, &output, &settings).unwrap();
        build(&Device::cpu(), &[Catalog::open(&output).unwrap()], None, 3.0, &path).unwrap();
        let graph = Graph::open(&path).unwrap();
        assert!(graph.scaled_features().chunks(7).all(|row| row[6] == 1.0));
    }

    #[test]
    fn what_makes_no_graph_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let halos = [catalog(folder.path(), "a", 20, 0)];
        let path = folder.path().join("graph.safetensors");
        let fails = |edge: Option<f64>, radius: f64| {
            let error = build(&Device::cpu(), &halos, edge, radius, &path).unwrap_err();
            assert!(!path.exists());
            error.to_string()
        };
        assert!(fails(None, 5.1).contains("half the box"));
        assert!(fails(None, 1e-9).contains("no two halos"));
        assert!(fails(Some(5.0), 1.0).contains("outside the box"));
        build(&Device::cpu(), &halos, None, 3.0, &path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 8]).unwrap();
        assert!(Graph::open(&path).err().unwrap().to_string().contains("truncated"));
    }
}
