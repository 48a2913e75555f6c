//! Catalogues of halos: read from many formats, checked, and kept as `.safetensors` files of kind
//! `catalog`: `position [halo, 3] f32` in Mpc/h, `velocity [halo, 3] f32` in km/s, `mass [halo] f32`
//! in Msun/h, and where they are known `particles [halo] u32` and `delta [halo] f32`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::fof;
use super::overdensity::{Particles, overdensity};
use super::subfind::Groups;
use crate::error::{Error, Result};
use crate::ops::neighbours::Reach;
use crate::store::table::{Array, Kind, Table, name_and_unit};
use crate::store::tensors::{Dtype, TensorFile, TensorSpec, TensorWriter};

/// Outside the box by this share of its edge is rounding.
const ROUNDING: f64 = 1e-6;

/// Columns of a halo, each with the names that catalogues give it, in lower case. The first is the role's own.
const COLUMNS: [(&str, &[&str]); 9] = [
    (
        "x",
        &[
            "x",
            "pos0",
            "position0",
            "halo_x",
            "xc",
            "pos_x",
            "x_pos",
            "positions0",
            "grouppos0",
            "subhalopos0",
        ],
    ),
    (
        "y",
        &[
            "y",
            "pos1",
            "position1",
            "halo_y",
            "yc",
            "pos_y",
            "y_pos",
            "positions1",
            "grouppos1",
            "subhalopos1",
        ],
    ),
    (
        "z",
        &[
            "z",
            "pos2",
            "position2",
            "halo_z",
            "zc",
            "pos_z",
            "z_pos",
            "positions2",
            "grouppos2",
            "subhalopos2",
        ],
    ),
    (
        "vx",
        &[
            "vx",
            "vel0",
            "velocity0",
            "halo_vx",
            "vxc",
            "vel_x",
            "velocities0",
            "groupvel0",
            "subhalovel0",
        ],
    ),
    (
        "vy",
        &[
            "vy",
            "vel1",
            "velocity1",
            "halo_vy",
            "vyc",
            "vel_y",
            "velocities1",
            "groupvel1",
            "subhalovel1",
        ],
    ),
    (
        "vz",
        &[
            "vz",
            "vel2",
            "velocity2",
            "halo_vz",
            "vzc",
            "vel_z",
            "velocities2",
            "groupvel2",
            "subhalovel2",
        ],
    ),
    (
        "mass",
        &[
            "mass",
            "halo_mvir",
            "mvir",
            "m_vir",
            "m200c",
            "m200b",
            "m200m",
            "m200",
            "halo_m200c",
            "halo_m200b",
            "groupmass",
            "subhalomass",
            "masses",
            "m",
        ],
    ),
    (
        "npart",
        &["npart", "particles", "np", "num_p", "halo_np", "grouplen", "subhalolen", "nparticles"],
    ),
    ("delta", &["delta", "overdensity"]),
];

/// What a single number is called that says how large the box is, in lower case.
const BOX: [&str; 4] = ["box_size", "box", "boxsize", "lbox"];

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
    /// Positions are given from −edge/2 to edge/2.
    #[serde(default)]
    pub centred: bool,
    /// What columns are, where their names do not say it: `halo_x=x`.
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
    /// What was guessed or looks wrong, a sentence each, for the user.
    #[serde(default)]
    pub notes: Vec<String>,
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
    let Read { mut halos, edge, rows, mut notes } = read(source, settings)?;
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
    if settings.centred {
        halos.positions.iter_mut().for_each(|x| *x = (f64::from(*x) + edge / 2.0) as f32);
    }
    let row_number = |row: usize| rows.get(row).copied().unwrap_or(row as u64 + 1);
    let wrapped = check(&mut halos, edge).map_err(|(field, row, message)| {
        Error::input(message).file(source).field(field).row(row_number(row))
    })?;
    if wrapped > 0 {
        notes.push(format!(
            "{wrapped} coordinates were outside the box by rounding and are wrapped"
        ));
    }
    notes.extend(doubts(&halos, edge));
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
        notes,
    };
    write(output, &about, &halos)?;
    Ok(about)
}

/// What a file holds.
struct Read {
    halos: Halos,
    /// The edge of the box, where the file says it.
    edge: Option<f64>,
    /// The number of each row in error messages, where it is not its place from 1.
    rows: Vec<u64>,
    notes: Vec<String>,
}

/// The halos of a file of any format.
fn read(source: &Path, settings: &Settings) -> Result<Read> {
    let only = |field: &str, of: &str| {
        Err(Error::usage(format!("applies to {of} only")).file(source).field(field))
    };
    let kind = Kind::of(source)?;
    if kind == Kind::Binary {
        if !settings.columns.is_empty() {
            return only("columns", "tables");
        }
        let halos = fof::read(source, settings.redshift)?;
        return Ok(Read { halos, edge: None, rows: Vec::new(), notes: Vec::new() });
    }
    if settings.redshift != 0.0 {
        return only("redshift", "friends-of-friends files, whose velocities need it");
    }
    let groups = if kind == Kind::Hdf5 { Groups::read(source)? } else { None };
    let table = match &groups {
        Some(groups) => Table::of_arrays(source, &groups.arrays)?,
        None => Table::read(source)?,
    };
    let lower = |name: &str| BOX.contains(&name.to_lowercase().as_str());
    let mut edge = table.scalars.iter().find(|(name, _)| lower(name)).map(|(_, value)| *value);
    // Rockstar says it in a comment.
    let said = table.comments.iter().find_map(|comment| comment.strip_prefix("Box size:"));
    edge = edge.or(said.and_then(|text| text.split_whitespace().next()?.parse().ok()));
    if kind == Kind::Safetensors && TensorFile::kind_of(source).as_deref() == Some("catalog") {
        edge = Some(TensorFile::open(source, "catalog")?.entry::<About>()?.edge);
    }
    if let Some(groups) = &groups {
        edge = groups.edge;
    } else if kind == Kind::Hdf5 && edge.is_none() {
        let attributes = Array::attributes(source)?;
        let says = |(name, _): &&(String, f64)| lower(name.rsplit('/').next().unwrap_or(name));
        edge = attributes.iter().find(says).map(|(_, value)| *value);
    }
    let mut notes = table.notes.clone();
    let columns = Columns::new(&table, &settings.columns)?;
    let mut halos = Halos {
        positions: columns.vectors("pos", ["x", "y", "z"])?,
        velocities: columns.vectors("vel", ["vx", "vy", "vz"])?,
        masses: single(table.column(&columns.needed("mass")?)?),
        particles: columns.find("npart").map(|name| counts(&table, &name)).transpose()?,
        delta: columns.find("delta").map(|name| table.column(&name).map(single)).transpose()?,
    };
    let renamed: Vec<String> = columns.renamed();
    if !renamed.is_empty() {
        notes.push(format!("read as {}", renamed.join(", ")));
    }
    if ["numSubStruct", "hostHalo", "Xc"].iter().all(|name| table.find(name).is_some()) {
        halos.positions.iter_mut().for_each(|x| *x /= 1000.0);
        notes.push("positions of AHF are in kpc/h: read as Mpc/h".into());
    }
    if let Some(groups) = groups {
        let scale = |values: &mut [f32], factor: f64| {
            values.iter_mut().for_each(|v| *v = (f64::from(*v) * factor) as f32);
        };
        scale(&mut halos.positions, groups.length);
        scale(&mut halos.velocities, groups.speed);
        scale(&mut halos.masses, groups.mass);
        notes.push(groups.note);
    }
    let rows = (0..table.rows()).map(|row| table.row_number(row)).collect();
    Ok(Read { halos, edge, rows, notes })
}

/// The columns of a table, by what they hold.
struct Columns<'a> {
    table: &'a Table,
    /// Role and name.
    found: Vec<(&'static str, String)>,
}

impl<'a> Columns<'a> {
    /// Finds them by their names, and as the user says: `halo_x=x`.
    fn new(table: &'a Table, asked: &[String]) -> Result<Self> {
        let error = |message: String| Error::usage(message).file(&table.path).field("columns");
        let role_of = |name: &str| COLUMNS.iter().map(|(role, _)| *role).find(|role| *role == name);
        let mut found: Vec<(&'static str, String)> = Vec::new();
        for item in asked {
            let (a, b) = item
                .rsplit_once('=')
                .map(|(a, b)| (a.trim(), b.trim()))
                .ok_or_else(|| error(format!("'{item}' must read column=what, as in halo_x=x")))?;
            let (name, role) = match (role_of(b), role_of(a)) {
                (Some(role), _) => (a, role),
                (None, Some(role)) => (b, role),
                (None, None) => {
                    let roles: Vec<&str> = COLUMNS.iter().map(|(role, _)| *role).collect();
                    return Err(error(format!(
                        "'{b}' in '{item}' is none of {}",
                        roles.join(", ")
                    )));
                }
            };
            if table.find(name).is_none() {
                return Err(error(format!(
                    "there is no column '{name}'; there are {}",
                    table.names.join(", ")
                )));
            }
            found.push((role, name.to_string()));
        }
        for (role, names) in COLUMNS {
            let taken = |name: &String| found.iter().any(|(_, other)| other == name);
            if found.iter().any(|(other, _)| *other == role) {
                continue;
            }
            let called = |wanted: &&str| {
                let same = |name: &&String| name_and_unit(name).0.eq_ignore_ascii_case(wanted);
                table.names.iter().filter(|name| !taken(name)).find(same).cloned()
            };
            if let Some(name) = names.iter().find_map(called) {
                found.push((role, name));
            }
        }
        Ok(Columns { table, found })
    }

    fn find(&self, role: &str) -> Option<String> {
        self.found.iter().find(|(other, _)| *other == role).map(|(_, name)| name.clone())
    }

    fn needed(&self, role: &str) -> Result<String> {
        self.find(role).ok_or_else(|| {
            let message = format!("{}; --columns says which is meant", self.table.lacks());
            Error::input(message).file(&self.table.path).field(role)
        })
    }

    /// Rows of three.
    fn vectors(&self, array: &str, roles: [&str; 3]) -> Result<Vec<f32>> {
        if roles.iter().any(|role| self.find(role).is_none()) {
            let message = format!(
                "needs an array '{array}', or columns {}; it has {}; --columns says which is meant",
                roles.join(", "),
                self.table.names.join(", ")
            );
            return Err(Error::input(message).file(&self.table.path));
        }
        let column = |role: &str| self.table.column(&self.needed(role)?);
        let (x, y, z) = (column(roles[0])?, column(roles[1])?, column(roles[2])?);
        Ok((0..x.len()).flat_map(|i| [x[i] as f32, y[i] as f32, z[i] as f32]).collect())
    }

    /// Names that had to be interpreted.
    fn renamed(&self) -> Vec<String> {
        let arrays = ["pos", "vel", "position", "velocity", "npart", "particles"];
        let plain = |role: &str, name: &str| {
            name == role || arrays.iter().any(|array| name.starts_with(array))
        };
        let other = self.found.iter().filter(|(role, name)| !plain(role, name));
        other.map(|(role, name)| format!("{role} from '{name}'")).collect()
    }
}

/// What looks wrong without being so for certain.
fn doubts(halos: &Halos, edge: f64) -> Vec<String> {
    let mut doubts = Vec::new();
    let median = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let mut masses: Vec<f64> = halos.masses.iter().map(|&m| m.into()).collect();
    let mass = median(&mut masses);
    if masses[0] >= 7.0 && masses[masses.len() - 1] <= 17.0 {
        doubts.push(
            "warning: all masses are between 7 and 17: are they logarithms? Msun/h is needed"
                .into(),
        );
    } else if !(1e6..1e17).contains(&mass) {
        doubts.push(format!("warning: half of the masses are above {mass:.1e}: Msun/h is needed, and this may be another unit"));
    }
    let speed = |v: &[f32]| v.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    let speed = median(&mut halos.velocities.chunks(3).map(speed).collect());
    if speed > 0.0 && !(3.0..2e4).contains(&speed) {
        doubts.push(format!("warning: half of the speeds are above {speed:.1e}: km/s is needed, and this may be another unit"));
    }
    let reach = f64::from(halos.positions.iter().fold(0.0f32, |most, x| most.max(*x)));
    if reach < 0.05 * edge {
        doubts.push(format!(
            "warning: no coordinate is above {reach}, in a box of {edge} Mpc/h: other units?"
        ));
    } else if edge > 2e4 {
        doubts.push(format!("warning: the box has {edge} Mpc/h: are lengths in kpc/h?"));
    }
    doubts
}

/// A column of whole numbers.
fn counts(table: &Table, name: &str) -> Result<Vec<u32>> {
    let column = table.column(name)?;
    let whole = |n: f64| n >= 0.0 && n <= f64::from(u32::MAX) && n.fract() == 0.0;
    if let Some(row) = column.iter().position(|&n| !whole(n)) {
        let message = format!("{}; a number of particles is needed", column[row]);
        let error = Error::input(message).file(&table.path).field(name);
        return Err(error.row(table.row_number(row)));
    }
    Ok(column.iter().map(|&n| n as u32).collect())
}

fn single(column: &[f64]) -> Vec<f32> {
    column.iter().map(|&v| v as f32).collect()
}

/// Checks every number; a coordinate that is the edge of the box becomes 0, and one that is outside by rounding is
/// wrapped: how many were. The error is a field, a row from 0 and a sentence.
fn check(halos: &mut Halos, edge: f64) -> Result<usize, (&'static str, usize, String)> {
    let mut wrapped = 0;
    for at in 0..halos.positions.len() {
        let x = halos.positions[at];
        let far = f64::from(x);
        // An edge that is no f32 is one in the file's rounding.
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
        return Err(("mass", row, format!("{}; a mass above 0 is needed", halos.masses[row])));
    }
    Ok(wrapped)
}

/// What to say of a coordinate that is outside the box.
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
        "; positions seem to be in kpc/h: Mpc/h is needed"
    } else {
        ""
    };
    format!("{x} is outside the box of {edge} Mpc/h{why}")
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
fn correct(halos: &mut Halos, row_number: &dyn Fn(usize) -> u64) -> Result<()> {
    let Some(particles) = &halos.particles else {
        let message =
            "the Warren correction needs the number of particles of each halo, a column npart";
        return Err(Error::usage(message).field("warren"));
    };
    if let Some(row) = particles.iter().position(|&n| n < 2) {
        let message = format!("{}; the Warren correction needs two or more", particles[row]);
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
    fn rounding_is_wrapped_and_centred_boxes_are_moved() {
        let text = TABLE.replace("7,8,9", "-2e-6,10.000001,9");
        let (about, halos) = imported(&text, boxed()).unwrap();
        assert!(about.notes[0].contains("2 coordinates"), "{:?}", about.notes);
        let row = &halos.positions[6..];
        assert!((9.999_99..10.0).contains(&row[0]) && (0.0..1e-5).contains(&row[1]), "{row:?}");
        let centred = TABLE
            .replace("10,5,6", "-5,5,4.5")
            .replace("7,8,9", "0,-1,2")
            .replace("1,2,3", "1,2,-3");
        let error = imported(&centred, boxed()).unwrap_err().to_string();
        assert!(error.contains("--centred"), "{error}");
        let (_, halos) = imported(&centred, Settings { centred: true, ..boxed() }).unwrap();
        assert_eq!(halos.positions, [6.0, 7.0, 2.0, 0.0, 0.0, 9.5, 5.0, 4.0, 7.0]);
        let kpc = TABLE.replace("7,8,9", "7000,8000,9000");
        let error = imported(&kpc, boxed()).unwrap_err().to_string();
        assert!(error.contains("kpc/h"), "{error}");
    }

    /// The names of halotools, Rockstar and AHF, and those that the user gives.
    #[test]
    fn catalogues_of_other_programs() {
        let (_, base) = imported(TABLE, boxed()).unwrap();
        let same = |halos: &Halos, what: &str| {
            assert_eq!(halos.positions, base.positions, "{what}");
            assert_eq!(halos.velocities, base.velocities, "{what}");
            assert_eq!(halos.masses, base.masses, "{what}");
        };
        let rows = TABLE.split_once('\n').unwrap().1;
        let names = "halo_x,halo_y,halo_z,halo_vx,halo_vy,halo_vz,halo_mvir,halo_np,overdensity";
        let (about, halos) = imported(&format!("{names}\n{rows}"), boxed()).unwrap();
        assert!(
            about.notes.iter().any(|note| note.contains("mass from 'halo_mvir'")),
            "{:?}",
            about.notes
        );
        same(&halos, "halotools");
        assert_eq!(halos.delta, base.delta);
        let names = "a,b,c,vx,vy,vz,m500,npart,delta";
        let columns = ["a=x", "b=y", "c=z", "mass=m500"].map(String::from).to_vec();
        let (_, halos) =
            imported(&format!("{names}\n{rows}"), Settings { columns, ..boxed() }).unwrap();
        same(&halos, "--columns");
        let columns = vec!["q=x".to_string()];
        let error = imported(TABLE, Settings { columns, ..boxed() }).unwrap_err();
        assert_eq!((error.kind, error.field.as_deref()), (Kind::Usage, Some("columns")));

        let blanks = |scale: f64| -> String {
            let line = |line: &str| {
                let cells: Vec<f64> = line.split(',').map(|cell| cell.parse().unwrap()).collect();
                let x: Vec<String> = cells[..3].iter().map(|x| (x * scale).to_string()).collect();
                let v: Vec<String> = cells[3..6].iter().map(f64::to_string).collect();
                format!("7 -1 {} {} {} {}\n", cells[6], cells[7], x.join(" "), v.join(" "))
            };
            rows.lines().map(line).collect()
        };
        let rockstar = format!(
            "#ID DescID Mvir Np X Y Z VX VY VZ\n#a = 1.0\n#Box size: 10.000000 Mpc/h\n{}",
            blanks(1.0)
        );
        let (about, halos) = imported(&rockstar, Settings::default()).unwrap();
        assert_eq!(about.edge, 10.0);
        same(&halos, "Rockstar");
        let ahf = format!(
            "#ID(1) hostHalo(2) Mvir(3) npart(4) Xc(5) Yc(6) Zc(7) VXc(8) VYc(9) VZc(10) numSubStruct(11)\n{}",
            blanks(1000.0).replace('\n', " 0\n")
        );
        let (about, halos) = imported(&ahf, boxed()).unwrap();
        assert!(about.notes.iter().any(|note| note.contains("kpc/h")), "{:?}", about.notes);
        same(&halos, "AHF");
    }

    #[test]
    fn what_looks_wrong_is_said_and_options_without_effect_are_errors() {
        let notes = |text: &str, edge: f64| {
            imported(text, Settings { edge: Some(edge), ..Settings::default() })
                .unwrap()
                .0
                .notes
                .join("; ")
        };
        assert_eq!(notes(TABLE, 10.0), "");
        let log = TABLE.replace("1e13", "13").replace("2e12", "12.3").replace("3e12", "12.5");
        assert!(notes(&log, 10.0).contains("logarithms"));
        let light = TABLE.replace("1e13", "1e3").replace("2e12", "2e2").replace("3e12", "3e2");
        assert!(notes(&light, 10.0).contains("Msun/h is needed"));
        let slow = TABLE.replace("10,20,30", "1e-4,0,0").replace("40,50,60", "1e-4,0,0");
        assert!(notes(&slow, 10.0).contains("km/s is needed"));
        assert!(notes(TABLE, 1e5).contains("no coordinate is above 10"));
        let error = imported(TABLE, Settings { redshift: 1.0, ..boxed() }).unwrap_err();
        assert_eq!((error.kind, error.field.as_deref()), (Kind::Usage, Some("redshift")));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fof_subhalo_tab_056.0");
        std::fs::write(&path, b"\x89HDF\r\n\x1a\n\0\0\0\0").unwrap();
        let error = import(&path, &folder.path().join("o"), &boxed()).unwrap_err().to_string();
        assert!(error.contains("HDF5"), "{error}");
    }

    #[cfg(feature = "hdf5")]
    #[test]
    fn groups_in_hdf5_come_in_the_units_of_a_catalogue() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("o.safetensors");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/groups.0.hdf5");
        let about = import(&source, &output, &Settings::default()).unwrap();
        assert_eq!((about.halos, about.edge), (5, 10.0));
        assert!(about.notes.iter().any(|note| note.contains("kpc/h")), "{:?}", about.notes);
        let catalog = Catalog::open(&output).unwrap();
        assert_eq!(catalog.positions()[12..], [6.0, 6.5, 7.0]);
        assert_eq!(catalog.velocities()[..3], [10.0, 30.0, 50.0], "z = 1");
        assert_eq!(catalog.masses(), [1.00e12, 1.01e12, 1.02e12, 1.03e12, 1.04e12]);
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
