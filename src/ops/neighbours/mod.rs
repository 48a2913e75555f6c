//! The radius graph in a periodic box: all pairs at most `radius` apart, found with a cell list.
//!
//! d² = δx² + δy² + δz² with δ = min(|xᵢ − xⱼ|, edge − |xᵢ − xⱼ|), and i and j are joined, in both directions, if d² ≤
//! radius². Everything is in f64 on the stored f32 positions, each operation rounded separately and the sum taken from
//! left to right, as in SciPy's periodic `cKDTree`, so that both decide alike about pairs exactly `radius` apart. CPU
//! and GPU give the same bits.
//!
//! The box is divided into cells at least `radius` wide, so that the neighbours of a node are in its own cell and the
//! 26 around it. Edges are counted first, so that the caller can make room for them, in memory or in a mapped file, and
//! computed a second time to be written.

mod cpu;
pub(crate) mod gpu;
pub mod selftest;
#[cfg(test)]
mod tests;

use std::ops::Range;

use crate::device::{Cpu, Device};
use crate::error::{Error, Result};
use crate::ops::Call;

/// The box and the largest distance of a neighbour, in the unit of the positions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reach {
    /// Edge of the cube, which is periodic in all three directions.
    pub edge: f64,
    /// The largest distance of neighbours, at most half the edge.
    pub radius: f64,
}

/// A graph whose edges have been counted but not written.
pub struct Graph<'a> {
    row_start: Vec<u64>,
    cells: DeviceCells<'a>,
}

/// What the device keeps between counting and writing.
enum DeviceCells<'a> {
    Cpu(cpu::Cells<'a>),
    Gpu(gpu::Cells),
}

/// Counts the neighbours of each node; positions `[node, 3]` in [0, edge).
///
/// # Errors
/// A box or radius that is not positive and finite, a radius above half the box, positions that are not rows of three,
/// a position outside the box or not finite (with its row), more nodes than a u32 counts, and on a GPU too little
/// memory.
pub fn count<'a>(device: &Device, positions: &'a [f32], reach: Reach) -> Result<Graph<'a>> {
    check(positions, reach)?;
    let (row_start, cells) = match device {
        Device::Cpu(cpu) => {
            let grid = Grid::new(reach, positions.len() / 3);
            let cells = cpu::Cells::new(*cpu, positions, reach, grid);
            (cells.row_start(), DeviceCells::Cpu(cells))
        }
        Device::Gpu(gpu) => {
            let cells = gpu::Cells::new(*gpu, positions, reach)?;
            (cells.row_start()?, DeviceCells::Gpu(cells))
        }
    };
    Ok(Graph { row_start, cells })
}

/// The nodes of a periodic box, for finding those near a point; on the CPU.
pub struct Nodes<'a>(cpu::Cells<'a>);

impl<'a> Nodes<'a> {
    /// Positions `[node, 3]`.
    ///
    /// # Errors
    /// Those of [`count`].
    pub fn new(positions: &'a [f32], reach: Reach) -> Result<Self> {
        check(positions, reach)?;
        let cpu = Cpu::detect();
        Ok(Nodes(cpu::Cells::new(cpu, positions, reach, Grid::new(reach, positions.len() / 3))))
    }

    /// Calls `each` with the nodes at most the radius away from a point in the box.
    pub fn within(&self, point: [f32; 3], each: impl FnMut(u32)) {
        self.0.within(point, each);
    }
}

fn check(positions: &[f32], reach: Reach) -> Result<()> {
    reach.check()?;
    if !positions.len().is_multiple_of(3) {
        let message = format!("has {} elements, not a multiple of 3 (x, y, z)", positions.len());
        return Err(Error::input(message).field("positions"));
    }
    check_nodes(positions.len() / 3)?;
    let outside = |row: &[f32]| !row.iter().all(|&x| x >= 0.0 && f64::from(x) < reach.edge);
    if let Some(row) = positions.chunks_exact(3).position(outside) {
        let (at, edge) = (&positions[3 * row..][..3], reach.edge);
        let message =
            format!("{at:?} is outside the box, which goes from 0 to below {edge} along each axis");
        return Err(Error::input(message).field("positions").row(row as u64 + 1));
    }
    Ok(())
}

impl Graph<'_> {
    /// `[node + 1]`: the senders of node i are at `row_start[i]..row_start[i + 1]`.
    pub fn row_start(&self) -> &[u64] {
        &self.row_start
    }

    /// Directed edges: each pair counts twice.
    pub fn edges(&self) -> usize {
        self.row_start.last().map_or(0, |&end| end as usize)
    }

    /// Writes the senders of each node, `[edge]`, ascending in each row.
    ///
    /// # Errors
    /// An array without exactly one element for each edge, and on a GPU too little memory.
    pub fn write_senders(&self, senders: &mut [u32]) -> Result<()> {
        if senders.len() != self.edges() {
            let message = format!("has {} elements for {} edges", senders.len(), self.edges());
            return Err(Error::input(message).field("sender"));
        }
        match &self.cells {
            DeviceCells::Cpu(cells) => cells.write(&self.row_start, senders),
            DeviceCells::Gpu(cells) => cells.write(senders)?,
        }
        Ok(())
    }
}

impl Reach {
    fn check(&self) -> Result<()> {
        for (name, value) in [("box", self.edge), ("radius", self.radius)] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(Error::usage(format!("must be positive, not {value}")).field(name));
            }
        }
        if self.radius > self.edge / 2.0 {
            let message = format!(
                "{} is more than half the box of {}, beyond which a pair has several distances",
                self.radius, self.edge
            );
            return Err(Error::usage(message).field("radius"));
        }
        Ok(())
    }

    /// Whether two nodes are neighbours: the only place where this is decided, see the top of the file.
    #[inline(always)]
    fn joins(self, a: [f64; 3], b: [f64; 3]) -> bool {
        self.square_distance(a, b) <= self.radius * self.radius
    }

    #[inline(always)]
    fn square_distance(self, a: [f64; 3], b: [f64; 3]) -> f64 {
        let square = |axis: usize| {
            let plain = (a[axis] - b[axis]).abs();
            let around = self.edge - plain;
            let distance = if around < plain { around } else { plain };
            distance * distance
        };
        square(0) + square(1) + square(2)
    }
}

fn check_nodes(nodes: usize) -> Result<()> {
    match u32::try_from(nodes) {
        Ok(_) => Ok(()),
        Err(_) => {
            let message = format!("has {nodes} nodes; at most {} are possible", u32::MAX);
            Err(Error::input(message).field("positions"))
        }
    }
}

/// The cells: `side` along each axis, numbered with z varying fastest.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Grid {
    side: u32,
    /// Cells per unit of length.
    scale: f64,
}

impl Grid {
    /// Cells slightly wider than the radius, so that rounding never puts neighbours two cells apart; not many more
    /// cells than nodes.
    fn new(reach: Reach, nodes: usize) -> Self {
        let fitting = (reach.edge / reach.radius * (1.0 - 1e-9)).floor();
        let enough = (nodes as f64).cbrt().ceil();
        let side = fitting.min(enough).max(1.0);
        Grid { side: side as u32, scale: side / reach.edge }
    }

    fn cells(self) -> usize {
        (self.side as usize).pow(3)
    }

    /// The cell of a coordinate.
    #[inline(always)]
    fn along(self, x: f32) -> u32 {
        ((f64::from(x) * self.scale) as u32).min(self.side - 1)
    }

    fn cell(self, row: &[f32]) -> usize {
        let side = self.side as usize;
        row.iter().fold(0, |cell, &x| cell * side + self.along(x) as usize)
    }

    /// The cells up to one step from `cell` along an axis, each once: two ranges, the second often empty.
    #[inline(always)]
    fn around(self, cell: u32) -> [Range<u32>; 2] {
        let side = self.side;
        if side <= 3 {
            [0..side, 0..0]
        } else if cell == 0 {
            [0..2, side - 1..side]
        } else if cell == side - 1 {
            [cell - 1..side, 0..1]
        } else {
            [cell - 1..cell + 2, 0..0]
        }
    }
}

/// Every pair in turn: the reference for all implementations.
fn reference(positions: &[f32], reach: Reach) -> (Vec<u64>, Vec<u32>) {
    let rows: Vec<[f64; 3]> =
        positions.chunks_exact(3).map(|row| [0, 1, 2].map(|axis| row[axis].into())).collect();
    let (mut row_start, mut senders) = (vec![0], Vec::new());
    for (i, &receiver) in rows.iter().enumerate() {
        let joined = |&j: &usize| i != j && reach.joins(receiver, rows[j]);
        senders.extend((0..rows.len()).filter(joined).map(|j| j as u32));
        row_start.push(senders.len() as u64);
    }
    (row_start, senders)
}

/// [`count`] and the list of the `edges` senders for `measure`, which repeats them: positions are already on the
/// device.
pub(crate) fn repeat<T>(
    device: &Device,
    positions: &[f32],
    reach: Reach,
    edges: usize,
    measure: impl FnOnce(Call) -> Result<T>,
) -> Result<T> {
    match device {
        Device::Cpu(_) => {
            let mut senders = vec![0; edges];
            measure(&mut || count(device, positions, reach)?.write_senders(&mut senders))
        }
        Device::Gpu(gpu) => {
            let (mut cells, mut nodes) = gpu::Cells::load(*gpu, positions, reach)?;
            let mut senders = gpu.buffer(edges)?;
            measure(&mut || {
                cells.count(&mut nodes)?;
                // SAFETY: the caller has counted the edges of these positions.
                unsafe { cells.list(&mut senders) }
            })
        }
    }
}
