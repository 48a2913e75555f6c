//! Reading catalogues: friends-of-friends files, HDF5 groups, the text output of other programs, tables.

use std::path::Path;

use super::catalog::{About, Halos, Settings};
use super::fof;
use super::subfind::Groups;
use crate::error::{Error, Result};
use crate::store::table::{Array, Kind, Table, name_and_unit};
use crate::store::tensors::TensorFile;

/// The columns of a halo: role, and the names that catalogues use for it, in lower case, the role's own first.
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

/// Names of a single number that gives the edge of the box, in lower case.
const BOX: [&str; 4] = ["box_size", "box", "boxsize", "lbox"];

/// The contents of a file.
pub(super) struct Read {
    /// Its halos, unchecked.
    pub halos: Halos,
    /// The edge of the box, if the file gives it.
    pub edge: Option<f64>,
    /// The number of each row in error messages; empty if rows are numbered from 1.
    pub rows: Vec<u64>,
    /// What was guessed, for the user.
    pub notes: Vec<String>,
}

/// Reads the halos of a file of any format.
pub(super) fn read(source: &Path, settings: &Settings) -> Result<Read> {
    let only = |field: &str, of: &str| {
        Err(Error::usage(format!("applies only to {of}")).file(source).field(field))
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
    // Rockstar gives it in a comment.
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
        notes.push(format!("read {}", renamed.join(", ")));
    }
    if ["numSubStruct", "hostHalo", "Xc"].iter().all(|name| table.find(name).is_some()) {
        halos.positions.iter_mut().for_each(|x| *x /= 1000.0);
        notes.push("positions of AHF are in kpc/h and have been converted to Mpc/h".into());
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

/// The columns of a table, by role.
struct Columns<'a> {
    table: &'a Table,
    /// Role and name.
    found: Vec<(&'static str, String)>,
}

impl<'a> Columns<'a> {
    /// Finds them by name, or as given by the user: `halo_x=x`.
    fn new(table: &'a Table, asked: &[String]) -> Result<Self> {
        let error = |message: String| Error::usage(message).file(&table.path).field("columns");
        let role_of = |name: &str| COLUMNS.iter().map(|(role, _)| *role).find(|role| *role == name);
        let mut found: Vec<(&'static str, String)> = Vec::new();
        for item in asked {
            let (a, b) =
                item.rsplit_once('=').map(|(a, b)| (a.trim(), b.trim())).ok_or_else(|| {
                    error(format!("'{item}' must have the form column=role, as in halo_x=x"))
                })?;
            let (name, role) = match (role_of(b), role_of(a)) {
                (Some(role), _) => (a, role),
                (None, Some(role)) => (b, role),
                (None, None) => {
                    let roles: Vec<&str> = COLUMNS.iter().map(|(role, _)| *role).collect();
                    return Err(error(format!(
                        "'{b}' in '{item}' is not a role; use one of {}",
                        roles.join(", ")
                    )));
                }
            };
            if table.find(name).is_none() {
                return Err(error(format!(
                    "there is no column '{name}'; the columns are {}",
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
            let message =
                format!("{}; name it with --columns", self.table.missing_column_message());
            Error::input(message).file(&self.table.path).field(role)
        })
    }

    /// Three columns as `[halo, 3]`.
    fn vectors(&self, array: &str, roles: [&str; 3]) -> Result<Vec<f32>> {
        if roles.iter().any(|role| self.find(role).is_none()) {
            let message = format!(
                "needs an array '{array}', or columns {}; it has {}; name them with --columns",
                roles.join(", "),
                self.table.names.join(", ")
            );
            return Err(Error::input(message).file(&self.table.path));
        }
        let column = |role: &str| self.table.column(&self.needed(role)?);
        let (x, y, z) = (column(roles[0])?, column(roles[1])?, column(roles[2])?);
        Ok((0..x.len()).flat_map(|i| [x[i] as f32, y[i] as f32, z[i] as f32]).collect())
    }

    /// Columns that were recognised by another name, for the notes.
    fn renamed(&self) -> Vec<String> {
        let arrays = ["pos", "vel", "position", "velocity", "npart", "particles"];
        let plain = |role: &str, name: &str| {
            name == role || arrays.iter().any(|array| name.starts_with(array))
        };
        let other = self.found.iter().filter(|(role, name)| !plain(role, name));
        other.map(|(role, name)| format!("{role} from '{name}'")).collect()
    }
}

/// A column of whole numbers.
fn counts(table: &Table, name: &str) -> Result<Vec<u32>> {
    let column = table.column(name)?;
    let whole = |n: f64| n >= 0.0 && n <= f64::from(u32::MAX) && n.fract() == 0.0;
    if let Some(row) = column.iter().position(|&n| !whole(n)) {
        let message = format!("is {}; a number of particles is needed", column[row]);
        let error = Error::input(message).file(&table.path).field(name);
        return Err(error.row(table.row_number(row)));
    }
    Ok(column.iter().map(|&n| n as u32).collect())
}

pub(super) fn single(column: &[f64]) -> Vec<f32> {
    column.iter().map(|&v| v as f32).collect()
}
