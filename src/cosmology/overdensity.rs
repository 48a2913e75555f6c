//! The overdensity around halos, counted from particles in a periodic box: their number in a ball
//! divided by its mean, minus one.
//!
//! Halos are few and particles many, so halos are sorted into cells and particles are streamed: memory
//! is proportional to the halos, and the particles may be in a mapped file.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use memmap2::Mmap;
use npyz::npz::file_name_from_array_name;
use rayon::prelude::*;
use zip::ZipArchive;
use zip::result::ZipError;

use crate::error::{Error, Result};
use crate::ops::neighbours::{Nodes, Reach};

/// Particles per task.
const PARTICLES: usize = 1 << 16;

/// δ = N / (n 4π/3 R³ / V) − 1 for each halo, `positions` `[halo, 3]` and `particles` `[particle, 3]`
/// in [0, edge], radius in the same unit. A particle on the ball's surface counts.
///
/// # Errors
/// A radius that is not positive or is above half the box; a particle outside the box or not finite, with
/// its row.
pub fn overdensity(positions: &[f32], particles: &[f32], reach: Reach) -> Result<Vec<f32>> {
    let nodes = Nodes::new(positions, reach)?;
    let count = particles.len() / 3;
    let outside = |row: &[f32]| !row.iter().all(|&x| x >= 0.0 && f64::from(x) <= reach.edge);
    let bad = particles.par_chunks_exact(3).position_first(outside);
    if let Some(row) = bad {
        let message =
            format!("{:?} is outside the box of {}", &particles[3 * row..][..3], reach.edge);
        return Err(Error::input(message).field("particles").row(row as u64 + 1));
    }
    let halos = positions.len() / 3;
    let inside = particles
        .par_chunks(3 * PARTICLES)
        .fold(
            || vec![0u32; halos],
            |mut inside, particles| {
                for particle in particles.as_chunks().0 {
                    nodes.within(*particle, |halo| inside[halo as usize] += 1);
                }
                inside
            },
        )
        .reduce(
            || vec![0; halos],
            |mut a, b| {
                a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
                a
            },
        );
    let ball = 4.0 / 3.0 * std::f64::consts::PI * reach.radius.powi(3);
    let mean = count as f64 * ball / reach.edge.powi(3);
    Ok(inside.iter().map(|&n| (f64::from(n) / mean - 1.0) as f32).collect())
}

/// Positions of particles, `[particle, 3]` f32; mapped if the file is an `.npy` of that type.
pub enum Particles {
    /// An `.npy`: the mapped file and the offset of its data.
    Mapped(Mmap, usize),
    /// Anything else.
    Read(Vec<f32>),
}

impl Particles {
    /// Opens an `.npy` `[particle, 3]`, or an `.npz` with such an array named `pos` or `position`.
    ///
    /// # Errors
    /// A wrong shape or type, a truncated file.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::io("read", path, e))?;
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("");
        match extension {
            "npy" => Self::open_npy(path, &file),
            "npz" => {
                let bad = |e: std::io::Error| {
                    Error::input(format!("is not a complete .npz file ({e})")).file(path)
                };
                let mut archive =
                    ZipArchive::new(BufReader::new(file)).map_err(|e| bad(e.into()))?;
                for name in ["pos", "position"] {
                    let entry = match archive.by_name(&file_name_from_array_name(name)) {
                        Err(ZipError::FileNotFound) => continue,
                        entry => entry.map_err(|e| bad(e.into()))?,
                    };
                    let array = npyz::NpyFile::new(entry).map_err(bad)?;
                    check(path, array.shape(), array.order())?;
                    let values = array.into_vec::<f32>().map_err(|e| {
                        Error::input(format!("cannot be read as f32: {e}")).file(path).field(name)
                    })?;
                    return Ok(Particles::Read(values));
                }
                Err(Error::input("has no array 'pos' or 'position'").file(path))
            }
            _ => Err(Error::input("particles are read from .npy and .npz").file(path)),
        }
    }

    fn open_npy(path: &Path, file: &File) -> Result<Self> {
        let bad = |e: std::io::Error| {
            Error::input(format!("is not a complete .npy file ({e})")).file(path)
        };
        // SAFETY: nothing can be done about a program that truncates the file while it is mapped.
        let map = unsafe { Mmap::map(file) }.map_err(|e| Error::io("map", path, e))?;
        let mut rest = &map[..];
        let header = npyz::NpyHeader::from_reader(&mut rest).map_err(bad)?;
        check(path, header.shape(), header.order())?;
        let (len, data) = (header.shape().iter().product::<u64>() as usize, map.len() - rest.len());
        let single = header.dtype().descr().contains("<f4");
        if single && rest.len() == 4 * len && bytemuck::try_cast_slice::<u8, f32>(rest).is_ok() {
            return Ok(Particles::Mapped(map, data));
        }
        if rest.len() * 8 < len {
            return Err(Error::input("is truncated").file(path));
        }
        let array = npyz::NpyFile::with_header(header, rest);
        let values = crate::store::table::numbers(array)
            .map_err(|message| Error::input(message).file(path))?;
        Ok(Particles::Read(values.iter().map(|&x| x as f32).collect()))
    }

    /// `[particle, 3]`
    pub fn positions(&self) -> &[f32] {
        match self {
            Particles::Mapped(map, data) => bytemuck::cast_slice(&map[*data..]),
            Particles::Read(values) => values,
        }
    }
}

fn check(path: &Path, shape: &[u64], order: npyz::Order) -> Result<()> {
    if !matches!(shape, [rows, 3] if *rows > 0) || order != npyz::Order::C {
        let message = format!("has shape {shape:?}; rows of x, y, z are needed, [particles, 3]");
        return Err(Error::input(message).file(path));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn uniform(count: usize, edge: f64, stream: u64) -> Vec<f32> {
        let mut random = Random::new(5, stream);
        (0..3 * count).map(|_| (edge * random.uniform()) as f32).collect()
    }

    #[test]
    fn balls_are_counted_as_by_trying_every_pair() {
        let (halos, particles) = (uniform(40, 30.0, 1), uniform(3000, 30.0, 2));
        for radius in [2.0, 7.5, 15.0] {
            let reach = Reach { edge: 30.0, radius };
            let found = overdensity(&halos, &particles, reach).unwrap();
            let mean = 3000.0 * 4.0 / 3.0 * std::f64::consts::PI * (radius / 30.0).powi(3);
            for (halo, &delta) in halos.as_chunks::<3>().0.iter().zip(&found) {
                let near = |p: &&[f32; 3]| {
                    let square = |k: usize| {
                        let d = (f64::from(p[k]) - f64::from(halo[k])).abs();
                        d.min(30.0 - d).powi(2)
                    };
                    square(0) + square(1) + square(2) <= radius * radius
                };
                let inside = particles.as_chunks::<3>().0.iter().filter(near).count();
                assert!((f64::from(delta) - (inside as f64 / mean - 1.0)).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn particles_are_read_in_place_or_converted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.npy");
        let write = |descr: &str, shape: &str, data: &[u8]| {
            let mut header =
                format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
            header += &" ".repeat((64 - (10 + header.len() + 1) % 64) % 64);
            header += "\n";
            let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
            bytes.extend((header.len() as u16).to_le_bytes());
            bytes.extend(header.as_bytes());
            bytes.extend(data);
            std::fs::write(&path, bytes).unwrap();
        };
        let single: Vec<u8> = [1.5f32, 2.5, 3.5].iter().flat_map(|x| x.to_le_bytes()).collect();
        write("<f4", "(1, 3)", &single);
        let particles = Particles::open(&path).unwrap();
        assert!(matches!(particles, Particles::Mapped(..)));
        assert_eq!(particles.positions(), [1.5, 2.5, 3.5]);
        let double: Vec<u8> = [1.5f64, 2.5, 3.5].iter().flat_map(|x| x.to_le_bytes()).collect();
        write("<f8", "(1, 3)", &double);
        assert_eq!(Particles::open(&path).unwrap().positions(), [1.5, 2.5, 3.5]);
        write("<f4", "(2, 3)", &single);
        assert!(Particles::open(&path).is_err(), "truncated");
        write("<f4", "(3,)", &single);
        assert!(Particles::open(&path).err().unwrap().to_string().contains("[particles, 3]"));
    }
}
