//! Trajectories in memory, as read from a file: tables of rows, arrays, LAMMPS dumps, extended XYZ.
//!
//! Everything here is f64 and in the file's own units; missing values stay missing. `import.rs` fills them in
//! and writes the data set.

mod arrays;
mod columns;
mod lammps;
mod rows;
mod xyz;

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::dataset::segments;
use crate::error::{Error, Result};
use crate::store::table::{Array, Kind, Table};
pub use columns::{Columns, Role};

/// How a file is read.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Roles of columns whose names do not tell them.
    pub columns: Columns,
    /// The time of one step, if the file counts steps.
    pub time_step: Option<f64>,
    /// Read only runs with this number of bodies.
    pub bodies: Option<usize>,
    /// Edges of a periodic box, one for all axes or one each; 0 for an open axis.
    pub edges: Vec<f64>,
}

/// One run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Run {
    /// Its name in the file.
    pub name: String,
    /// `[frame]`, increasing.
    pub times: Vec<f64>,
    /// The names of the bodies, `[body]`.
    pub bodies: Vec<String>,
    /// `[frame, body, dim]`
    pub positions: Vec<f64>,
    /// `[frame, body, dim]`
    pub velocities: Option<Vec<f64>>,
    /// `[frame, body, dim]`
    pub accelerations: Option<Vec<f64>>,
    /// `[body]`
    pub masses: Option<Vec<f64>>,
    /// `[body]`
    pub charges: Option<Vec<f64>>,
}

impl Run {
    /// Number of frames.
    pub fn frames(&self) -> usize {
        self.times.len()
    }

    /// The ranges of frames without a gap.
    pub fn segments(&self) -> Vec<Range<usize>> {
        segments(&self.times)
    }
}

/// The trajectories of a file.
#[derive(Clone, Debug, Default)]
pub struct Trajectories {
    /// The file they were read from.
    pub path: PathBuf,
    /// Dimensions of space: 2 or 3.
    pub dim: usize,
    /// The runs; velocities, … are present in all or in none.
    pub runs: Vec<Run>,
    /// Units of positions, times, …, as far as the file gives them.
    pub units: Vec<(String, String)>,
    /// True if accelerations are forces that were divided by no masses, as there are none.
    pub undivided: bool,
    /// The period of space along each axis, if the file gives one.
    pub periods: Vec<Option<f64>>,
    /// What was guessed, used or left out, and what looks wrong: one sentence each, for the user.
    pub notes: Vec<String>,
}

/// The period along each axis of a box with these edges.
fn edges(edges: &[f64], dim: usize) -> Result<Vec<Option<f64>>> {
    let wrong = |message: String| Err(Error::usage(message).field("box"));
    if let Some(edge) = edges.iter().find(|edge| !edge.is_finite() || **edge < 0.0) {
        return wrong(format!("{edge} cannot be the edge of a box; give a number of 0 or more"));
    }
    if edges.len() != 1 && edges.len() != dim {
        return wrong(format!(
            "has {} edges; give one, or one for each of the {dim} axes",
            edges.len()
        ));
    }
    let edge = |axis: usize| Some(edges[axis.min(edges.len() - 1)]).filter(|edge| *edge > 0.0);
    Ok((0..dim).map(edge).collect())
}

impl Trajectories {
    /// Edges of the periodic box, 0 for an open axis.
    pub fn period(&self) -> [f64; 3] {
        std::array::from_fn(|axis| self.periods.get(axis).copied().flatten().unwrap_or(0.0))
    }

    /// Reads a file of any supported kind.
    ///
    /// # Errors
    /// Anything wrong with the file; the error names file, field and row as far as they are known.
    pub fn read(path: &Path, options: &Options) -> Result<Trajectories> {
        if options.time_step.is_some_and(|step| !(step > 0.0 && step.is_finite())) {
            return Err(Error::usage("must be a number above 0").field("time-step"));
        }
        let mut read = match Kind::of(path)? {
            Kind::Npz | Kind::Npy | Kind::Safetensors | Kind::Hdf5 => {
                let arrays = Array::read(path)?;
                match arrays.iter().any(|array| array.shape.len() > 2) {
                    true => arrays::trajectories(path, &arrays, options)?,
                    false => rows::trajectories(&Table::read(path)?, options)?,
                }
            }
            Kind::Text => {
                let begin = columns::beginning(path)?;
                if begin.starts_with("ITEM:") {
                    let (table, periods) = lammps::table(path)?;
                    Trajectories { periods, ..rows::trajectories(&table, options)? }
                } else if xyz::is(&begin) {
                    let (table, periods) = xyz::table(path)?;
                    Trajectories { periods, ..rows::trajectories(&table, options)? }
                } else {
                    rows::trajectories(&Table::read(path)?, options)?
                }
            }
            _ => rows::trajectories(&Table::read(path)?, options)?,
        };
        read.path = path.to_path_buf();
        if let Some(step) = options.time_step {
            read.runs.iter_mut().flat_map(|run| &mut run.times).for_each(|time| *time *= step);
        }
        read.keep_bodies(options.bodies)?;
        read.flatten();
        read.masses()?;
        read.periods.resize(read.dim, None);
        if !options.edges.is_empty() {
            read.periods = edges(&options.edges, read.dim)?;
        }
        Ok(read)
    }

    /// Keeps only runs with the requested number of bodies; without a request, those of at least two.
    fn keep_bodies(&mut self, asked: Option<usize>) -> Result<()> {
        let error = |message: String| Error::input(message).file(&self.path).field("body");
        let kept = |run: &Run| match asked {
            Some(n) => run.bodies.len() == n,
            None => run.bodies.len() >= 2,
        };
        if !self.runs.iter().any(kept) {
            return Err(match asked {
                Some(n) => error(format!("no run has {n} bodies")),
                None => error("there is only one body, so nothing interacts".into()).row(2),
            });
        }
        if asked == Some(1) {
            return Err(error("a single body interacts with nothing".into()));
        }
        let all = self.runs.len();
        self.runs.retain(kept);
        let left = all - self.runs.len();
        if left > 0 {
            let why = match asked {
                Some(n) => format!("do not have {n} bodies"),
                None => "have fewer than two bodies, so that nothing interacts,".to_string(),
            };
            self.notes.push(format!("{left} of {all} runs {why} and are left out"));
        }
        Ok(())
    }

    /// Reduces to two dimensions if z never changes; adds y = 0 if there is only one.
    fn flatten(&mut self) {
        let Trajectories { runs, dim, notes, .. } = self;
        let old = *dim;
        let constant =
            |values: &Vec<f64>| values.iter().skip(2).step_by(3).all(|v| *v == values[2]);
        let still = |run: &Run| {
            let zero = |values: &Option<Vec<f64>>| {
                values.as_ref().is_none_or(|v| v.iter().skip(2).step_by(3).all(|v| *v == 0.0))
            };
            constant(&run.positions) && zero(&run.velocities) && zero(&run.accelerations)
        };
        match old {
            1 => notes.push("there is only one dimension: y is set to 0".into()),
            3 if runs.iter().all(still) => {
                notes.push("z never changes and is left out: there are two dimensions".into());
            }
            _ => return,
        }
        *dim = 2;
        for run in runs {
            let plane = |values: &Vec<f64>| -> Vec<f64> {
                let of = |v: &[f64]| [v[0], if old == 1 { 0.0 } else { v[1] }];
                values.chunks(old).flat_map(of).collect()
            };
            debug_assert_eq!(run.positions.len(), run.times.len() * run.bodies.len() * old);
            run.positions = plane(&run.positions);
            run.velocities = run.velocities.as_ref().map(plane);
            run.accelerations = run.accelerations.as_ref().map(plane);
        }
    }

    /// An error if a mass is not positive.
    fn masses(&self) -> Result<()> {
        for run in &self.runs {
            let mut masses = run.masses.iter().flatten().zip(&run.bodies);
            let none = |mass: f64| mass.is_nan() || mass <= 0.0;
            if let Some((mass, body)) = masses.find(|(mass, _)| none(**mass)) {
                let message = match *mass {
                    0.0 => format!(
                        "body {body} of run {} has mass 0, but accelerations are forces divided by masses; give a \
                         tracer a mass far below the others",
                        run.name
                    ),
                    _ => format!(
                        "a mass must be positive, not {mass}: body {body} of run {}",
                        run.name
                    ),
                };
                return Err(Error::input(message).file(&self.path).field("mass"));
            }
        }
        Ok(())
    }
}

#[cfg(all(test, feature = "hdf5"))]
mod tests {
    use super::*;

    #[test]
    fn hdf5_arrays_are_trajectories() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/orbits.h5");
        let read = Trajectories::read(&path, &Options::default()).unwrap();
        assert_eq!((read.runs.len(), read.dim, read.runs[0].bodies.len()), (2, 2, 3));
        assert_eq!(read.runs[1].positions[..2], [1.0039615758421696, -0.6179070447076008]);
        assert_eq!(read.runs[1].times[3], 0.1 * 3.0);
    }
}
