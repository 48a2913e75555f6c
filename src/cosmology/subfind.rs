//! Groups of halos in HDF5 as written by Gadget-4, AREPO and Subfind: arrays `GroupPos`, `GroupVel` and `GroupMass` in
//! the group `Group`, the box and the redshift in the attributes of `Header`.
//!
//! Units are those of the simulation, given (per h) by `UnitLength_in_cm` and the like in `Parameters` or `Header`. If
//! they are missing, units are guessed from the sizes of the values, with a warning.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::store::table::Array;

/// Centimetres in a megaparsec.
const MPC: f64 = 3.085_678e24;
/// Grams in the mass of the sun.
const SUN: f64 = 1.989e33;
/// The critical density in h² Msun/Mpc³.
const CRITICAL: f64 = 2.775e11;
/// A catalogue whose heaviest group is lighter than this, in Msun/h, is in another unit.
const LIGHT: f64 = 1e6;

/// The groups of a catalogue, and the factors that convert their values.
pub(super) struct Groups {
    /// The arrays of `Group`.
    pub arrays: Vec<Array>,
    /// Edge of the box in Mpc/h, if the file gives it.
    pub edge: Option<f64>,
    /// Unit of length in Mpc/h.
    pub length: f64,
    /// Unit of velocity in km/s.
    pub speed: f64,
    /// Unit of mass in Msun/h.
    pub mass: f64,
    /// The units that were used, for the user.
    pub note: String,
}

impl Groups {
    /// Reads the groups of an HDF5 file and of the other pieces next to it; `None` if there are none with a mass.
    ///
    /// # Errors
    /// A damaged or missing piece.
    pub fn read(path: &Path) -> Result<Option<Groups>> {
        let attributes = Array::attributes(path)?;
        let attribute = |name: &str| {
            let of = |group: &str| {
                let wanted = format!("{group}/{name}");
                attributes.iter().find(|(path, _)| *path == wanted).map(|(_, value)| *value)
            };
            ["Parameters", "Header", "Units"].iter().find_map(|group| of(group))
        };
        let arrays = joined(path, attribute("NumFiles").map_or(1, |files| files as u64))?;
        let Some(masses) = arrays.iter().find(|array| array.name == "GroupMass") else {
            return Ok(None);
        };
        let masses = &masses.values;
        let given = attribute("UnitLength_in_cm").zip(attribute("UnitMass_in_g"));
        let size = attribute("BoxSize");
        let (length, mass) = match given {
            Some((length, mass)) => (nearly(length / MPC), nearly(mass / SUN)),
            None => {
                let mass = if masses.iter().all(|m| *m < LIGHT) { 1e10 } else { 1.0 };
                // Halos hold a sizeable part of all matter: if it is far below 1e-5, the box is not in Mpc/h.
                let density =
                    size.map(|edge| masses.iter().sum::<f64>() * mass / edge.powi(3) / CRITICAL);
                (if density.is_some_and(|d| d < 1e-6) { 1e-3 } else { 1.0 }, mass)
            }
        };
        let redshift = attribute("Redshift").unwrap_or(0.0);
        let scaling = attributes.iter().find(|(name, _)| name == "Group/GroupVel/a_scaling");
        // Without the attribute, velocities are a · v, as in friends-of-friends tables.
        let scaling = scaling.map_or(-1.0, |(_, power)| *power);
        let kms = attribute("UnitVelocity_in_cm_per_s").map_or(1.0, |unit| nearly(unit / 1e5));
        let speed = kms * (1.0 + redshift).powf(-scaling);
        let unit = |factor: f64, unit: &str| match factor {
            1.0 => unit.to_string(),
            1e-3 if unit == "Mpc/h" => "kpc/h".into(),
            _ => format!("{factor} {unit}"),
        };
        let read = format!(
            "lengths are read in {}, masses in {}, velocities in {}",
            unit(length, "Mpc/h"),
            unit(mass, "Msun/h"),
            unit(speed, "km/s")
        );
        let note = match given {
            Some(_) => format!("{read}, as given in the file"),
            None => {
                format!("warning: the file does not give its units: {read}, judging by their sizes")
            }
        };
        Ok(Some(Groups { arrays, edge: size.map(|edge| edge * length), length, speed, mass, note }))
    }
}

/// The arrays of `Group` that may be columns, joined from the `files` pieces of the catalogue; `path` is one of them.
fn joined(path: &Path, files: u64) -> Result<Vec<Array>> {
    let mut arrays: Vec<Array> = Vec::new();
    for number in 0..files.max(1) {
        let piece = if files > 1 { piece(path, number)? } else { path.to_path_buf() };
        let mut some = Array::read_group(&piece, "Group")?;
        some.retain(|array| {
            matches!(array.shape.len(), 1 | 2)
                && array.words.is_none()
                && array.unreadable.is_none()
        });
        for array in some {
            match arrays.iter_mut().find(|all| all.name == array.name) {
                Some(all) => {
                    all.shape[0] += array.shape[0];
                    all.values.extend(array.values);
                }
                None => arrays.push(array),
            }
        }
    }
    Ok(arrays)
}

/// Another piece of a catalogue: `groups_099.1.hdf5` beside `groups_099.0.hdf5`.
fn piece(path: &Path, number: u64) -> Result<PathBuf> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let parts: Vec<&str> = name.rsplitn(3, '.').collect();
    match parts[..] {
        [extension, digits, stem] if digits.parse::<u64>().is_ok() => {
            Ok(path.with_file_name(format!("{stem}.{number}.{extension}")))
        }
        _ => {
            let message = "is one of several pieces, whose names must end in .0.hdf5, .1.hdf5, …";
            Err(Error::input(message).file(path))
        }
    }
}

/// A ratio of units, made an exact power of ten if it is one up to rounding in the constants.
fn nearly(ratio: f64) -> f64 {
    let power = 10f64.powf(ratio.log10().round());
    if (ratio / power - 1.0).abs() < 1e-3 { power } else { ratio }
}

#[cfg(all(test, feature = "hdf5"))]
mod tests {
    use super::*;

    /// A file made by `scripts/hdf5_fixtures.py`.
    fn fixture(name: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
    }

    fn values<'a>(groups: &'a Groups, name: &str) -> &'a [f64] {
        &groups.arrays.iter().find(|array| array.name == name).unwrap().values
    }

    #[test]
    fn hdf5_pieces_are_joined_in_the_units_of_their_attributes() {
        for name in ["groups.0.hdf5", "groups.1.hdf5"] {
            let groups = Groups::read(&fixture(name)).unwrap().unwrap();
            assert_eq!(values(&groups, "GroupMass"), [100.0, 101.0, 102.0, 103.0, 104.0]);
            assert_eq!(values(&groups, "GroupPos")[12..], [6000.0, 6500.0, 7000.0]);
            assert_eq!(values(&groups, "GroupLen").len(), 5);
            assert_eq!((groups.edge, groups.length, groups.mass), (Some(10.0), 1e-3, 1e10));
            assert_eq!(groups.speed, 2.0, "z = 1");
            assert!(groups.note.contains("kpc/h") && !groups.note.contains("warning"));
        }
        let folder = tempfile::tempdir().unwrap();
        let alone = folder.path().join("groups.0.hdf5");
        std::fs::copy(fixture("groups.0.hdf5"), &alone).unwrap();
        let error = Groups::read(&alone).err().unwrap();
        assert_eq!(error.file, Some(folder.path().join("groups.1.hdf5")));
        let renamed = folder.path().join("groups.hdf5");
        std::fs::copy(&alone, &renamed).unwrap();
        let error = Groups::read(&renamed).err().unwrap().to_string();
        assert!(error.contains("several pieces"), "{error}");
    }

    #[test]
    fn hdf5_groups_without_units_come_with_a_warning() {
        for (name, length, mass) in [("mpc.hdf5", 1.0, 1.0), ("kpc.hdf5", 1e-3, 1e10)] {
            let groups = Groups::read(&fixture(name)).unwrap().unwrap();
            assert_eq!((groups.edge, groups.length, groups.mass), (Some(100.0), length, mass));
            assert!(groups.note.starts_with("warning"), "{}", groups.note);
        }
        assert!(Groups::read(&fixture("frame.h5")).unwrap().is_none());
    }
}
