//! Catalogues of halos: read from many formats, checked, and stored as `.safetensors` files of kind
//! `catalog`: `position [halo, 3] f32` in Mpc/h, `velocity [halo, 3] f32` in km/s, `mass [halo] f32`
//! in Msun/h, and, if known, `particles [halo] u32` and `delta [halo] f32`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::overdensity::{Particles, overdensity};
use super::source::{Read, read, single};
use crate::error::{Error, Result};
use crate::ops::neighbours::Reach;
use crate::store::table::Table;
use crate::store::tensors::{Dtype, TensorFile, TensorSpec, TensorWriter};

/// A position outside the box by at most this fraction of its edge is due to rounding.
const ROUNDING: f64 = 1e-6;

/// Halos in memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Halos {
    /// `[halo, 3]`, Mpc/h.
    pub positions: Vec<f32>,
    /// `[halo, 3]`, km/s.
    pub velocities: Vec<f32>,
    /// `[halo]`, Msun/h.
    pub masses: Vec<f32>,
    /// `[halo]`: number of simulation particles in each.
    pub particles: Option<Vec<u32>>,
    /// `[halo]`: overdensity (ρ − ⟨ρ⟩)/⟨ρ⟩ in a ball around each.
    pub delta: Option<Vec<f32>>,
}

/// How a catalogue is made from a file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Edge of the periodic box in Mpc/h, if the file does not give it.
    pub edge: Option<f64>,
    /// Redshift: velocities of friends-of-friends tables are multiplied by 1 + z.
    pub redshift: f64,
    /// A table with a column `delta`, or with a single column.
    pub delta: Option<PathBuf>,
    /// Positions of particles in Mpc/h, from which the overdensity is counted.
    pub particles: Option<PathBuf>,
    /// Radius of the ball in Mpc/h.
    pub smoothing: f64,
    /// Halos lighter than this are left out, Msun/h.
    pub min_mass: Option<f64>,
    /// Halos with fewer particles than this are left out.
    pub min_particles: Option<u32>,
    /// Masses are multiplied by 1 − N^−0.6 for halos of N particles (Warren et al. 2006, eq. 2).
    pub warren: bool,
    /// The box is repeated this many times along each axis: for tests of size, not for science.
    pub tile: usize,
    /// Positions run from −edge/2 to edge/2.
    #[serde(default)]
    pub centred: bool,
    /// Roles of columns whose names do not tell them: `halo_x=x`.
    #[serde(default)]
    pub columns: Vec<String>,
}

/// The `lawsmith` entry of a catalogue.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct About {
    /// Number of halos.
    pub halos: usize,
    /// Edge of the periodic box, Mpc/h.
    pub edge: f64,
    /// Number of halos left out by the cuts.
    pub cut: usize,
    /// The file it was made from.
    pub source: PathBuf,
    /// Where the overdensity came from; `None` if there is none.
    pub delta: Option<String>,
    /// Units of position, velocity and mass.
    pub units: [String; 3],
    /// The settings it was made with.
    pub settings: Settings,
    /// What was guessed or looks wrong, one sentence each, for the user.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// A catalogue, mapped for reading.
pub struct Catalog {
    /// Its parameters.
    pub about: About,
    file: TensorFile,
}

/// Reads `source` according to `settings` and writes the catalogue `output`.
///
/// # Errors
/// A file that cannot be read or lacks a column; a box of unknown size; a halo outside the box,
/// without mass, or with a number that is not finite, with its row.
pub fn import(source: &Path, output: &Path, settings: &Settings) -> Result<About> {
    let Read { mut halos, edge, rows, mut notes } = read(source, settings)?;
    if let (Some(asked), Some(edge)) = (settings.edge, edge)
        && asked != edge
    {
        let message = format!("the file says {edge} Mpc/h, but --box says {asked}");
        return Err(Error::usage(message).file(source).field("box"));
    }
    let edge = settings.edge.or(edge).ok_or_else(|| {
        Error::usage("the file does not give the size of its box: use --box, in Mpc/h").file(source)
    })?;
    if !(edge > 0.0 && edge.is_finite()) {
        return Err(Error::usage(format!("must be positive, not {edge}")).field("box"));
    }
    if settings.centred {
        halos.positions.iter_mut().for_each(|x| *x = (f64::from(*x) + edge / 2.0) as f32);
    }
    let row_number = |row: usize| rows.get(row).copied().unwrap_or(row as u64 + 1);
    let wrapped = check(&mut halos, edge).map_err(|(field, row, message)| {
        Error::input(message).file(source).field(field).row(row_number(row))
    })?;
    if wrapped > 0 {
        notes.push(format!(
            "{wrapped} coordinates were outside the box by rounding and have been wrapped"
        ));
    }
    notes.extend(plausibility_warnings(&halos, edge));
    let delta = add_delta(&mut halos, edge, source, settings)?;
    if settings.warren {
        correct(&mut halos, &row_number).map_err(|e| e.file(source))?;
    }
    let all = halos.masses.len();
    halos = cut(halos, settings).map_err(|e| e.file(source))?;
    let cut = all - halos.masses.len();
    if halos.masses.len() < 2 {
        let left = halos.masses.len();
        let message = format!("{left} of {all} halos are left; at least two are needed");
        // Too many cuts are the user's choice.
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
        notes,
    };
    write(output, &about, &halos)?;
    Ok(about)
}

/// Warnings about values that are probably wrong.
fn plausibility_warnings(halos: &Halos, edge: f64) -> Vec<String> {
    let mut warnings = Vec::new();
    let median = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let mut masses: Vec<f64> = halos.masses.iter().map(|&m| m.into()).collect();
    let mass = median(&mut masses);
    if masses[0] >= 7.0 && masses[masses.len() - 1] <= 17.0 {
        warnings.push(
            "warning: all masses are between 7 and 17: are they logarithms? Msun/h is needed"
                .into(),
        );
    } else if !(1e6..1e17).contains(&mass) {
        warnings.push(format!("warning: half of the masses are above {mass:.1e}, but Msun/h is needed: is this another unit?"));
    }
    let speed = |v: &[f32]| v.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    let speed = median(&mut halos.velocities.chunks(3).map(speed).collect());
    if speed > 0.0 && !(3.0..2e4).contains(&speed) {
        warnings.push(format!("warning: half of the speeds are above {speed:.1e}, but km/s is needed: is this another unit?"));
    }
    let reach = f64::from(halos.positions.iter().fold(0.0f32, |most, x| most.max(*x)));
    if reach < 0.05 * edge {
        warnings.push(format!(
            "warning: no coordinate is above {reach}, in a box of {edge} Mpc/h: are they in another unit?"
        ));
    } else if edge > 2e4 {
        warnings
            .push(format!("warning: the edge of the box is {edge} Mpc/h: are lengths in kpc/h?"));
    }
    warnings
}

/// Checks every number. A coordinate equal to the edge of the box becomes 0, one outside by rounding is wrapped;
/// returns how many were wrapped. The error is a field, a row (from 0) and a sentence.
fn check(halos: &mut Halos, edge: f64) -> Result<usize, (&'static str, usize, String)> {
    let mut wrapped = 0;
    for at in 0..halos.positions.len() {
        let x = halos.positions[at];
        let far = f64::from(x);
        // The edge may not be exact in f32; compare it as rounded, too.
        if far == edge || x == edge as f32 {
            halos.positions[at] = 0.0;
        } else if !(far >= 0.0 && far < edge) {
            if !(far >= -ROUNDING * edge && far <= (1.0 + ROUNDING) * edge) {
                return Err(("position", at / 3, outside(halos, x, edge)));
            }
            let inside = far.rem_euclid(edge) as f32;
            halos.positions[at] = if f64::from(inside) < edge { inside } else { 0.0 };
            wrapped += 1;
        }
    }
    if let Some(at) = halos.velocities.iter().position(|v| !v.is_finite()) {
        let message = format!("{} where a number is needed", halos.velocities[at]);
        return Err(("velocity", at / 3, message));
    }
    if let Some(row) = halos.masses.iter().position(|&m| !(m > 0.0 && m.is_finite())) {
        return Err(("mass", row, format!("is {}; a mass above 0 is needed", halos.masses[row])));
    }
    Ok(wrapped)
}

/// The message for a coordinate outside the box.
fn outside(halos: &Halos, x: f32, edge: f64) -> String {
    let (low, high) = halos
        .positions
        .iter()
        .fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), x| (low.min(*x), high.max(*x)));
    let (low, high) = (f64::from(low), f64::from(high));
    let half = (0.5 + ROUNDING) * edge;
    let why = if low < 0.0 && low >= -half && high <= half {
        "; --centred reads positions from -edge/2 to edge/2"
    } else if high > 50.0 * edge && high <= 1001.0 * edge && low >= 0.0 {
        "; positions seem to be in kpc/h, but Mpc/h is needed"
    } else {
        ""
    };
    format!("{x} is outside the box of {edge} Mpc/h{why}")
}

/// Fills in the overdensity; returns where it came from.
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

/// Warren et al. 2006: friends-of-friends halos of few particles come out too massive.
fn correct(halos: &mut Halos, row_number: &dyn Fn(usize) -> u64) -> Result<()> {
    let Some(particles) = &halos.particles else {
        let message =
            "the Warren correction needs the number of particles of each halo, a column npart";
        return Err(Error::usage(message).field("warren"));
    };
    if let Some(row) = particles.iter().position(|&n| n < 2) {
        let message = format!("is {}; the Warren correction needs two or more", particles[row]);
        return Err(Error::input(message).field("npart").row(row_number(row)));
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

/// The box repeated `tile` times along each axis.
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

    /// Its file.
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

    /// `[halo]`, if it is known.
    pub fn delta(&self) -> Option<&[f32]> {
        self.file.has("delta").then(|| self.values("delta"))
    }
}

#[cfg(test)]
#[path = "catalog_tests.rs"]
mod tests;
