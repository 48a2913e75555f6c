//! Friends-of-friends tables of Gadget, as published by the Quijote simulations: `group_tab_004.0`,
//! `group_tab_004.1`, ….
//!
//! Little- or big-endian, no record markers: a packed header of 24 bytes (groups in this file,
//! groups in total, ids here as i32, ids in total as u64, files as u32), then one array after another,
//! in f32 or f64: length i32, offset i32, mass, position `[3]`, velocity `[3]`, lengths by type
//! `[6]`, masses by type `[6]`, and, if the run formed stars, their rate and a type as u32. Mass is
//! in 1e10 Msun/h, position in kpc/h, velocity · (1 + z) in km/s.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::catalog::Halos;
use crate::error::{Error, Result};

/// Bytes of the header.
const HEADER: u64 = 24;
/// More files than any catalogue is split into.
const MOST_FILES: u32 = 1 << 16;

/// How the arrays of a file are stored.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Layout {
    /// Groups in this file.
    groups: u64,
    /// Groups in all files.
    total: u64,
    /// Number of files.
    files: u32,
    /// Bytes of a real number: 4 or 8.
    real: u64,
    /// True if the file is big-endian.
    swapped: bool,
}

/// Reads the table of which `path` is one file: all files in the order of their numbers.
///
/// # Errors
/// A missing file, a size that does not fit the number of groups, files that disagree.
pub fn read(path: &Path, redshift: f64) -> Result<Halos> {
    let first = Layout::read(path)?;
    let mut halos = Halos { particles: Some(Vec::new()), ..Halos::default() };
    if first.files == 1 {
        read_piece(path, first, redshift, &mut halos)?;
    } else {
        for number in 0..first.files {
            let piece = piece(path, number)?;
            let layout = Layout::read(&piece)?;
            if (layout.files, layout.total) != (first.files, first.total) {
                let message = format!(
                    "announces {} groups in {} files, but {} announces {} in {}",
                    layout.total,
                    layout.files,
                    path.display(),
                    first.total,
                    first.files
                );
                return Err(Error::input(message).file(piece));
            }
            read_piece(&piece, layout, redshift, &mut halos)?;
        }
    }
    if halos.masses.len() as u64 != first.total {
        let message = format!(
            "announces {} groups, but its files contain {}",
            first.total,
            halos.masses.len()
        );
        return Err(Error::input(message).file(path));
    }
    if first.total == 0 {
        return Err(Error::input("contains no groups").file(path));
    }
    Ok(halos)
}

/// The file with this number next to `path`: the number is the extension.
fn piece(path: &Path, number: u32) -> Result<PathBuf> {
    let numbered =
        path.extension().and_then(|e| e.to_str()).is_some_and(|e| e.parse::<u32>().is_ok());
    if !numbered {
        let message = "is one of several pieces, whose names must end in .0, .1, …";
        return Err(Error::input(message).file(path));
    }
    Ok(path.with_extension(number.to_string()))
}

impl Layout {
    /// Reads the header and finds the layout that fits the size of the file.
    fn read(path: &Path) -> Result<Layout> {
        let bad = |message: String| Err(Error::input(message).file(path));
        let mut file = File::open(path).map_err(|e| Error::io("read", path, e))?;
        let about = file.metadata().map_err(|e| Error::io("read", path, e))?;
        if about.is_dir() {
            return bad("is a folder; a file is needed".into());
        }
        if about.len() < HEADER {
            return bad(format!(
                "has {} bytes; the header of a friends-of-friends table alone has {HEADER}",
                about.len()
            ));
        }
        let mut header = [0; HEADER as usize];
        file.read_exact(&mut header).map_err(|e| Error::io("read", path, e))?;
        let word = |at: usize, swapped: bool| {
            let bytes: [u8; 4] = header[at..at + 4].try_into().expect("four bytes");
            if swapped { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
        };
        let payload = about.len() - HEADER;
        for swapped in [false, true] {
            let (groups, total) = (u64::from(word(0, swapped)), u64::from(word(4, swapped)));
            let files = word(20, swapped);
            if groups > total || files == 0 || files > MOST_FILES {
                continue;
            }
            for real in [4, 8] {
                let layout = Layout { groups, total, files, real, swapped };
                let sizes = [layout.stride(), layout.stride() + real + 4];
                let fits = match groups {
                    0 => payload == 0,
                    _ => payload.is_multiple_of(groups) && sizes.contains(&(payload / groups)),
                };
                if fits {
                    return Ok(layout);
                }
            }
        }
        let groups = u64::from(word(0, false));
        let expected = |real| {
            let layout = Layout { groups, total: groups, files: 1, real, swapped: false };
            HEADER + groups * layout.stride()
        };
        bad(format!(
            "has {} bytes, but the {groups} groups of its header need {} (or {} in double precision): \
             it is truncated, or not a friends-of-friends table",
            about.len(),
            expected(4),
            expected(8),
        ))
    }

    /// Bytes per group, without star formation.
    fn stride(self) -> u64 {
        // Length, offset and six lengths by type; mass, position, velocity and six masses by type.
        // If reals are f64, the lengths by type are still i32.
        8 * 4 + 13 * self.real
    }
}

/// Appends the groups of one file.
fn read_piece(path: &Path, layout: Layout, redshift: f64, halos: &mut Halos) -> Result<()> {
    let mut file = File::open(path).map_err(|e| Error::io("read", path, e))?;
    let mut array = |at: u64, width: u64, size: u64| -> Result<Vec<u8>> {
        let mut bytes = vec![0; (layout.groups * width * size) as usize];
        file.seek(SeekFrom::Start(HEADER + layout.groups * at))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(|e| Error::io("read", path, e))?;
        if layout.swapped {
            bytes.chunks_exact_mut(size as usize).for_each(<[u8]>::reverse);
        }
        Ok(bytes)
    };
    let real = layout.real;
    let reals = |bytes: Vec<u8>| -> Vec<f64> {
        match real {
            4 => {
                bytes.as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect()
            }
            _ => bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
        }
    };
    let lengths = array(0, 1, 4)?;
    let masses = reals(array(8, 1, real)?);
    let positions = reals(array(8 + real, 3, real)?);
    let velocities = reals(array(8 + 4 * real, 3, real)?);
    let counts = lengths.as_chunks::<4>().0.iter().map(|b| i32::from_le_bytes(*b));
    for (row, count) in counts.enumerate() {
        let Ok(count) = u32::try_from(count) else {
            let message = format!("is {count}; a number of particles is needed");
            return Err(Error::input(message).file(path).field("GroupLen").row(row as u64 + 1));
        };
        halos.particles.get_or_insert_default().push(count);
    }
    halos.masses.extend(masses.iter().map(|m| (m * 1e10) as f32));
    halos.positions.extend(positions.iter().map(|x| (x / 1e3) as f32));
    halos.velocities.extend(velocities.iter().map(|v| (v * (1.0 + redshift)) as f32));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of these groups in one of the layouts.
    fn bytes(
        first: usize,
        groups: usize,
        total: usize,
        files: u32,
        real: usize,
        big: bool,
        stars: bool,
    ) -> Vec<u8> {
        let mut out = Vec::new();
        let mut push = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            if big {
                bytes.reverse();
            }
            out.extend(bytes);
        };
        for word in [groups as i32, total as i32, 0] {
            push(&word.to_le_bytes());
        }
        push(&0u64.to_le_bytes());
        push(&files.to_le_bytes());
        let number = |push: &mut dyn FnMut(&[u8]), value: f64| match real {
            4 => push(&(value as f32).to_le_bytes()),
            _ => push(&value.to_le_bytes()),
        };
        let every = first..first + groups;
        every.clone().for_each(|i| push(&(20 + i as i32).to_le_bytes()));
        every.clone().for_each(|i| push(&(i as i32).to_le_bytes()));
        every.clone().for_each(|i| number(&mut push, 700.0 + i as f64));
        every
            .clone()
            .for_each(|i| (0..3).for_each(|k| number(&mut push, (1000 * (3 * i + k)) as f64)));
        every.clone().for_each(|i| (0..3).for_each(|k| number(&mut push, -((3 * i + k) as f64))));
        (0..6 * groups).for_each(|_| push(&7i32.to_le_bytes()));
        (0..6 * groups).for_each(|_| number(&mut push, 1.0));
        if stars {
            (0..groups).for_each(|_| number(&mut push, 0.0));
            (0..groups).for_each(|_| push(&1u32.to_le_bytes()));
        }
        out
    }

    #[test]
    fn every_layout_gives_the_same_halos() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("group_tab_004.0");
        for (real, big, stars) in [
            (4, false, false),
            (4, true, false),
            (8, false, false),
            (8, true, true),
            (4, false, true),
        ] {
            std::fs::write(&path, bytes(0, 5, 5, 1, real, big, stars)).unwrap();
            let halos = read(&path, 1.0).unwrap();
            assert_eq!(halos.masses, [7.00e12, 7.01e12, 7.02e12, 7.03e12, 7.04e12], "{real} {big}");
            assert_eq!(halos.positions[3..6], [3.0, 4.0, 5.0]);
            assert_eq!(halos.velocities[3..6], [-6.0, -8.0, -10.0], "times 1 + z");
            assert_eq!(halos.particles.as_deref(), Some(&[20, 21, 22, 23, 24][..]));
        }
    }

    #[test]
    fn pieces_are_joined_in_order_and_a_missing_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = |k: usize| folder.path().join(format!("group_tab_004.{k}"));
        std::fs::write(path(0), bytes(0, 3, 5, 3, 4, false, false)).unwrap();
        std::fs::write(path(1), bytes(3, 0, 5, 3, 4, false, false)).unwrap();
        std::fs::write(path(2), bytes(3, 2, 5, 3, 4, false, false)).unwrap();
        for start in 0..3 {
            let halos = read(&path(start), 0.0).unwrap();
            assert_eq!(halos.particles.unwrap(), [20, 21, 22, 23, 24]);
        }
        std::fs::remove_file(path(1)).unwrap();
        assert_eq!(read(&path(0), 0.0).unwrap_err().file, Some(path(1)));
        std::fs::write(path(1), bytes(3, 0, 6, 3, 4, false, false)).unwrap();
        assert!(read(&path(0), 0.0).unwrap_err().to_string().contains("6 groups"));
    }

    #[test]
    fn other_sizes_are_refused_before_anything_is_allocated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("group_tab_004.0");
        let whole = bytes(0, 5, 5, 1, 4, false, false);
        for length in [0, 10, 24, whole.len() - 1] {
            std::fs::write(&path, &whole[..length]).unwrap();
            let error = read(&path, 0.0).unwrap_err().to_string();
            assert!(error.contains("bytes"), "{length}: {error}");
        }
        std::fs::write(&path, [&whole[..], &[0]].concat()).unwrap();
        assert!(read(&path, 0.0).is_err(), "a byte too many");
        let mut huge = whole;
        huge[..4].copy_from_slice(&i32::MAX.to_le_bytes());
        huge[4..8].copy_from_slice(&i32::MAX.to_le_bytes());
        std::fs::write(&path, huge).unwrap();
        assert!(read(&path, 0.0).unwrap_err().to_string().contains("2147483647 groups"));
    }
}
