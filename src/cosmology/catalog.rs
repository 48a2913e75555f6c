//! Catalogues of halos: read from many formats, checked, and kept as `.safetensors` files of kind
//! `catalog`: `position [halo, 3] f32` in Mpc/h, `velocity [halo, 3] f32` in km/s, `mass [halo] f32`
//! in Msun/h, and where they are known `particles [halo] u32` and `delta [halo] f32`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::fof;
use super::overdensity::{Particles, overdensity};
use crate::error::{Error, Result};
use crate::ops::neighbours::Reach;
use crate::store::table::Table;
use crate::store::tensors::{Dtype, TensorFile, TensorSpec, TensorWriter};

/// Extensions of tables; other files are friends-of-friends tables.
const TABLES: [&str; 5] = ["csv", "npz", "npy", "parquet", "safetensors"];

/// Halos in memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Halos {
    /// `[halo, 3]`, Mpc/h.
    pub positions: Vec<f32>,
    /// `[halo, 3]`, km/s.
    pub velocities: Vec<f32>,
    /// `[halo]`, Msun/h.
    pub masses: Vec<f32>,
    /// `[halo]`: simulation particles of which each consists.
    pub particles: Option<Vec<u32>>,
    /// `[halo]`: overdensity (ρ − ⟨ρ⟩)/⟨ρ⟩ in a ball around each.
    pub delta: Option<Vec<f32>>,
}

/// How a catalogue is made of what a file holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Edge of the periodic box in Mpc/h, where the file does not say it.
    pub edge: Option<f64>,
    /// Redshift: velocities of friends-of-friends tables count times 1 + z.
    pub redshift: f64,
    /// A table with the column `delta`, or its only one.
    pub delta: Option<PathBuf>,
    /// Positions of particles in Mpc/h, from which the overdensity is counted.
    pub particles: Option<PathBuf>,
    /// Radius of the ball in Mpc/h.
    pub smoothing: f64,
    /// Lighter halos are left out, Msun/h.
    pub min_mass: Option<f64>,
    /// Halos of fewer particles are left out.
    pub min_particles: Option<u32>,
    /// Masses are multiplied by 1 − N^−0.6 for halos of N particles (Warren et al. 2006, eq. 2).
    pub warren: bool,
    /// The box is repeated so many times along each axis: for tests of size, not for science.
    pub tile: usize,
}

/// The `lawsmith` entry of a catalogue.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct About {
    /// Number of halos.
    pub halos: usize,
    /// Edge of the periodic box, Mpc/h.
    pub edge: f64,
    /// Halos that were cut away.
    pub cut: usize,
    /// Where it came from.
    pub source: PathBuf,
    /// Where the overdensity came from; `None` where there is none.
    pub delta: Option<String>,
    /// Units of position, velocity and mass.
    pub units: [String; 3],
    /// What was asked for.
    pub settings: Settings,
}

/// A catalogue, mapped for reading.
pub struct Catalog {
    /// Its parameters.
    pub about: About,
    file: TensorFile,
}

/// Reads `source` as `settings` say and writes the catalogue `output`.
///
/// # Errors
/// A file that cannot be read or lacks a column; a box that is not known; a halo outside the box,
/// without mass, or with a number that is not finite, each with its row.
pub fn import(source: &Path, output: &Path, settings: &Settings) -> Result<About> {
    let (mut halos, edge) = read(source, settings)?;
    if let (Some(asked), Some(edge)) = (settings.edge, edge)
        && asked != edge
    {
        let message = format!("the file says {edge} Mpc/h, --box says {asked}");
        return Err(Error::usage(message).file(source).field("box"));
    }
    let edge = settings.edge.or(edge).ok_or_else(|| {
        Error::usage("the file does not say how large its box is: give --box, in Mpc/h")
            .file(source)
    })?;
    if !(edge > 0.0 && edge.is_finite()) {
        return Err(Error::usage(format!("must be positive, not {edge}")).field("box"));
    }
    let first_row = if is_table(source) { 2 } else { 1 };
    check(&mut halos, edge).map_err(|(field, row, message)| {
        Error::input(message).file(source).field(field).row(row as u64 + first_row)
    })?;
    let delta = add_delta(&mut halos, edge, source, settings)?;
    if settings.warren {
        correct(&mut halos, first_row).map_err(|e| e.file(source))?;
    }
    let all = halos.masses.len();
    halos = cut(halos, settings).map_err(|e| e.file(source))?;
    let cut = all - halos.masses.len();
    if halos.masses.len() < 2 {
        let left = halos.masses.len();
        let message = format!("{left} of {all} halos are left; at least two are needed");
        // What is cut away is what the user asked for.
        let error = if left < all { Error::usage(message) } else { Error::input(message) };
        return Err(error.file(source));
    }
    let tile = settings.tile.max(1);
    halos = tiled(halos, edge, tile);
    let about = About {
        halos: halos.masses.len(),
        edge: edge * tile as f64,
        cut,
        source: std::path::absolute(source).unwrap_or_else(|_| source.to_path_buf()),
        delta,
        units: ["Mpc/h", "km/s", "Msun/h"].map(String::from),
        settings: settings.clone(),
    };
    write(output, &about, &halos)?;
    Ok(about)
}

fn extension(path: &Path) -> String {
    path.extension().and_then(|e| e.to_str()).unwrap_or("").to_lowercase()
}

fn is_table(path: &Path) -> bool {
    TABLES.contains(&extension(path).as_str())
}

/// The halos of a file of any format, and the edge of the box where the file says it.
fn read(source: &Path, settings: &Settings) -> Result<(Halos, Option<f64>)> {
    if !is_table(source) {
        return Ok((fof::read(source, settings.redshift)?, None));
    }
    let table = Table::read(source)?;
    let mut edge = table.scalar("box_size").or(table.scalar("box"));
    if extension(source) == "safetensors"
        && TensorFile::kind_of(source).as_deref() == Some("catalog")
    {
        edge = Some(TensorFile::open(source, "catalog")?.entry::<About>()?.edge);
    }
    let halos = Halos {
        positions: vectors(&table, ["pos", "position"], ["x", "y", "z"])?,
        velocities: vectors(&table, ["vel", "velocity"], ["vx", "vy", "vz"])?,
        masses: single(table.column("mass")?),
        particles: ["npart", "particles"]
            .into_iter()
            .find(|name| table.find(name).is_some())
            .map(|name| counts(&table, name))
            .transpose()?,
        delta: table.find("delta").map(|_| table.column("delta").map(single)).transpose()?,
    };
    Ok((halos, edge))
}

/// A column of whole numbers.
fn counts(table: &Table, name: &str) -> Result<Vec<u32>> {
    let column = table.column(name)?;
    let whole = |n: f64| n >= 0.0 && n <= f64::from(u32::MAX) && n.fract() == 0.0;
    if let Some(row) = column.iter().position(|&n| !whole(n)) {
        let message = format!("{}; a number of particles is needed", column[row]);
        return Err(Error::input(message).file(&table.path).field(name).row(row as u64 + 2));
    }
    Ok(column.iter().map(|&n| n as u32).collect())
}

fn single(column: &[f64]) -> Vec<f32> {
    column.iter().map(|&v| v as f32).collect()
}

/// Rows of three from the columns `name0`, `name1`, `name2` of an array, or from columns of their own.
fn vectors(table: &Table, arrays: [&str; 2], own: [&str; 3]) -> Result<Vec<f32>> {
    let array = arrays.into_iter().find(|name| table.find(&format!("{name}0")).is_some());
    let names = match array {
        Some(name) => [0, 1, 2].map(|k| format!("{name}{k}")),
        None if table.find(own[0]).is_some() => own.map(String::from),
        None => {
            let message = format!(
                "needs an array '{}' or '{}', or columns {}; it has {}",
                arrays[0],
                arrays[1],
                own.join(", "),
                table.names.join(", ")
            );
            return Err(Error::input(message).file(&table.path));
        }
    };
    let [x, y, z] = &names;
    let (x, y, z) = (table.column(x)?, table.column(y)?, table.column(z)?);
    Ok((0..x.len()).flat_map(|i| [x[i] as f32, y[i] as f32, z[i] as f32]).collect())
}

/// Checks every number; a coordinate that is the edge of the box becomes 0. The error is a field, a row
/// from 0 and a sentence.
fn check(halos: &mut Halos, edge: f64) -> Result<(), (&'static str, usize, String)> {
    for (at, x) in halos.positions.iter_mut().enumerate() {
        let far = f64::from(*x);
        // An edge that is no f32 is one in the file's rounding.
        if far == edge || *x == edge as f32 {
            *x = 0.0;
        } else if !(far >= 0.0 && far < edge) {
            return Err(("position", at / 3, format!("{x} is outside the box of {edge} Mpc/h")));
        }
    }
    if let Some(at) = halos.velocities.iter().position(|v| !v.is_finite()) {
        let message = format!("{} where a number is needed", halos.velocities[at]);
        return Err(("velocity", at / 3, message));
    }
    if let Some(row) = halos.masses.iter().position(|&m| !(m > 0.0 && m.is_finite())) {
        return Err(("mass", row, format!("{}; a mass above 0 is needed", halos.masses[row])));
    }
    Ok(())
}

/// Fills in the overdensity; says where it came from.
fn add_delta(
    halos: &mut Halos,
    edge: f64,
    source: &Path,
    settings: &Settings,
) -> Result<Option<String>> {
    if let Some(path) = &settings.delta {
        let table = Table::read(path)?;
        let name = match &table.names[..] {
            [only] => only,
            _ => "delta",
        };
        let column = table.column(name)?;
        if column.len() != halos.masses.len() {
            let message = format!("has {} rows for {} halos", column.len(), halos.masses.len());
            return Err(Error::input(message).file(path).field(name));
        }
        halos.delta = Some(single(column));
        return Ok(Some(format!("column {name} of {}", path.display())));
    }
    if let Some(path) = &settings.particles {
        let particles = Particles::open(path)?;
        let (positions, reach) =
            (particles.positions(), Reach { edge, radius: settings.smoothing });
        let found = overdensity(&halos.positions, positions, reach).map_err(|e| e.file(path))?;
        halos.delta = Some(found);
        return Ok(Some(format!(
            "{} particles of {} in balls of {} Mpc/h",
            positions.len() / 3,
            path.display(),
            settings.smoothing
        )));
    }
    Ok(halos.delta.as_ref().map(|_| format!("column delta of {}", source.display())))
}

/// Warren et al. 2006: friends of friends of few particles come out too heavy.
fn correct(halos: &mut Halos, first_row: u64) -> Result<()> {
    let Some(particles) = &halos.particles else {
        let message =
            "the Warren correction needs the number of particles of each halo, a column npart";
        return Err(Error::usage(message).field("warren"));
    };
    if let Some(row) = particles.iter().position(|&n| n < 2) {
        let message = format!("{}; the Warren correction needs two or more", particles[row]);
        return Err(Error::input(message).field("npart").row(row as u64 + first_row));
    }
    for (mass, &n) in halos.masses.iter_mut().zip(particles) {
        *mass = (f64::from(*mass) * (1.0 - f64::from(n).powf(-0.6))) as f32;
    }
    Ok(())
}

fn cut(halos: Halos, settings: &Settings) -> Result<Halos> {
    if settings.min_particles.is_some() && halos.particles.is_none() {
        let message = "needs the number of particles of each halo, a column npart";
        return Err(Error::usage(message).field("min-particles"));
    }
    let heavy = |row: usize| settings.min_mass.is_none_or(|m| f64::from(halos.masses[row]) >= m);
    let many = |row: usize| match (settings.min_particles, &halos.particles) {
        (Some(n), Some(particles)) => particles[row] >= n,
        _ => true,
    };
    let kept: Vec<usize> = (0..halos.masses.len()).filter(|&row| heavy(row) && many(row)).collect();
    let rows = |values: &[f32]| kept.iter().flat_map(|&i| values[3 * i..][..3].to_vec()).collect();
    Ok(Halos {
        positions: rows(&halos.positions),
        velocities: rows(&halos.velocities),
        masses: kept.iter().map(|&i| halos.masses[i]).collect(),
        particles: halos.particles.map(|n| kept.iter().map(|&i| n[i]).collect()),
        delta: halos.delta.map(|d| kept.iter().map(|&i| d[i]).collect()),
    })
}

/// The box beside itself, `tile` times along each axis.
fn tiled(halos: Halos, edge: f64, tile: usize) -> Halos {
    if tile == 1 {
        return halos;
    }
    let copies = tile.pow(3);
    let shift = |copy: usize| [copy / (tile * tile), copy / tile % tile, copy % tile];
    let limit = below((edge * tile as f64) as f32, edge * tile as f64);
    let positions = (0..copies).flat_map(|copy| {
        let shift = shift(copy).map(|k| k as f64 * edge);
        let moved =
            move |(at, &x): (usize, &f32)| ((f64::from(x) + shift[at % 3]) as f32).min(limit);
        halos.positions.iter().enumerate().map(moved).collect::<Vec<_>>()
    });
    Halos {
        positions: positions.collect(),
        velocities: halos.velocities.repeat(copies),
        masses: halos.masses.repeat(copies),
        particles: halos.particles.map(|n| n.repeat(copies)),
        delta: halos.delta.map(|d| d.repeat(copies)),
    }
}

/// The largest f32 up to `x` that is below `edge`.
fn below(x: f32, edge: f64) -> f32 {
    if f64::from(x) < edge { x } else { x.next_down() }
}

fn write(output: &Path, about: &About, halos: &Halos) -> Result<()> {
    let n = about.halos;
    let mut specs = vec![
        TensorSpec::f32("position", &[n, 3]),
        TensorSpec::f32("velocity", &[n, 3]),
        TensorSpec::f32("mass", &[n]),
    ];
    if halos.particles.is_some() {
        specs.push(TensorSpec::u32("particles", &[n]));
    }
    if halos.delta.is_some() {
        specs.push(TensorSpec::f32("delta", &[n]));
    }
    let entry = serde_json::to_value(about).expect("the entry is plain data");
    let mut writer = TensorWriter::create(output, "catalog", entry, &specs)?;
    writer.slice("position").copy_from_slice(&halos.positions);
    writer.slice("velocity").copy_from_slice(&halos.velocities);
    writer.slice("mass").copy_from_slice(&halos.masses);
    if let Some(particles) = &halos.particles {
        writer.slice("particles").copy_from_slice(particles);
    }
    if let Some(delta) = &halos.delta {
        writer.slice("delta").copy_from_slice(delta);
    }
    writer.finish()
}

impl Catalog {
    /// Maps a catalogue and checks shapes.
    pub fn open(path: &Path) -> Result<Self> {
        let file = TensorFile::open(path, "catalog")?;
        let about: About = file.entry()?;
        let n = about.halos;
        for (name, shape) in [("position", &[n, 3][..]), ("velocity", &[n, 3]), ("mass", &[n])] {
            file.f32(name, shape)?;
        }
        if file.has("delta") {
            file.f32("delta", &[n])?;
        }
        Ok(Catalog { about, file })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    fn values(&self, name: &str) -> &[f32] {
        self.file.tensor(name, Dtype::F32).expect("checked in open").0
    }

    /// `[halo, 3]`, Mpc/h.
    pub fn positions(&self) -> &[f32] {
        self.values("position")
    }

    /// `[halo, 3]`, km/s.
    pub fn velocities(&self) -> &[f32] {
        self.values("velocity")
    }

    /// `[halo]`, Msun/h.
    pub fn masses(&self) -> &[f32] {
        self.values("mass")
    }

    /// `[halo]`, where it is known.
    pub fn delta(&self) -> Option<&[f32]> {
        self.file.has("delta").then(|| self.values("delta"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    const TABLE: &str = "x,y,z,vx,vy,vz,mass,npart,delta\n\
                         1,2,3,10,20,30,1e13,100,0.5\n\
                         10,5,6,40,50,60,2e12,20,-0.5\n\
                         7,8,9,70,80,90,3e12,30,1.5\n";

    fn imported(text: &str, settings: Settings) -> Result<(About, Halos)> {
        let folder = tempfile::tempdir().unwrap();
        let [source, output] = ["a.csv", "b.safetensors"].map(|name| folder.path().join(name));
        std::fs::write(&source, text).unwrap();
        let about = import(&source, &output, &settings)?;
        let catalog = Catalog::open(&output).unwrap();
        let halos = Halos {
            positions: catalog.positions().to_vec(),
            velocities: catalog.velocities().to_vec(),
            masses: catalog.masses().to_vec(),
            particles: None,
            delta: catalog.delta().map(<[f32]>::to_vec),
        };
        // What was written is read again as a table.
        let again = folder.path().join("c.safetensors");
        import(&output, &again, &Settings::default()).unwrap();
        assert_eq!(Catalog::open(&again).unwrap().positions(), catalog.positions());
        Ok((about, halos))
    }

    fn boxed() -> Settings {
        Settings { edge: Some(10.0), ..Settings::default() }
    }

    #[test]
    fn columns_cuts_and_corrections() {
        let (about, halos) = imported(TABLE, boxed()).unwrap();
        assert_eq!((about.halos, about.cut, about.edge), (3, 0, 10.0));
        assert_eq!(halos.positions, [1.0, 2.0, 3.0, 0.0, 5.0, 6.0, 7.0, 8.0, 9.0], "10 is 0");
        assert_eq!(halos.delta.unwrap(), [0.5, -0.5, 1.5]);
        let (about, halos) =
            imported(TABLE, Settings { min_particles: Some(30), warren: true, ..boxed() }).unwrap();
        assert_eq!(about.cut, 1);
        let expected = (1e13f64 * (1.0 - 100f64.powf(-0.6))) as f32;
        assert_eq!(halos.masses[0], expected);
        assert_eq!(halos.velocities, [10.0, 20.0, 30.0, 70.0, 80.0, 90.0]);
        let (about, _) = imported(TABLE, Settings { min_mass: Some(3e12), ..boxed() }).unwrap();
        assert_eq!(about.cut, 1);
    }

    #[test]
    fn a_box_beside_itself() {
        let (about, halos) = imported(TABLE, Settings { tile: 2, ..boxed() }).unwrap();
        assert_eq!((about.halos, about.edge), (24, 20.0));
        assert_eq!(halos.positions[9..12], [1.0, 2.0, 13.0]);
        assert_eq!(halos.positions[63..66], [11.0, 12.0, 13.0]);
        assert_eq!(halos.masses[21..], halos.masses[..3]);
    }

    #[test]
    fn bad_halos_are_named() {
        let fails = |text: &str, settings: Settings| imported(text, settings).unwrap_err();
        let error = fails(TABLE, Settings::default());
        assert!(error.to_string().contains("--box"), "{error}");
        let error = fails(TABLE, Settings { edge: Some(8.5), ..boxed() });
        assert_eq!((error.field.as_deref(), error.row), (Some("position"), Some(3)));
        let error = fails(&TABLE.replace("3e12", "0"), boxed());
        assert_eq!((error.field.as_deref(), error.row), (Some("mass"), Some(4)));
        let error = fails(&TABLE.replace("20,30,", "NaN,30,"), boxed());
        assert_eq!((error.field.as_deref(), error.row), (Some("vy"), Some(2)));
        let error = fails(&TABLE.replace("0.5", "NaN"), boxed());
        assert_eq!((error.field.as_deref(), error.row), (Some("delta"), Some(2)));
        let few = TABLE.replace("3e12,30", "3e12,1");
        let error = fails(&few, Settings { warren: true, ..boxed() });
        assert_eq!((error.field.as_deref(), error.row), (Some("npart"), Some(4)));
        let error = fails(&TABLE.replace("npart", "other"), Settings { warren: true, ..boxed() });
        assert_eq!((error.kind, error.field.as_deref()), (Kind::Usage, Some("warren")));
        let few = Settings { min_particles: Some(20), ..boxed() };
        let error = fails(&TABLE.replace("npart", "other"), few);
        assert_eq!((error.kind, error.field.as_deref()), (Kind::Usage, Some("min-particles")));
        let error = fails(&TABLE.replace("vx", "ux"), boxed());
        assert!(error.to_string().contains("vx, vy, vz"), "{error}");
        let error = fails(TABLE, Settings { min_mass: Some(1e15), ..boxed() });
        assert!(error.to_string().contains("0 of 3"), "{error}");
    }
}
