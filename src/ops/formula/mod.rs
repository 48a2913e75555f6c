//! Sums of expressions over the edges of a large graph, with their derivatives.
//!
//! For each receiver r and each program f with constants θ: S_r = Σ_s f(x_rs; θ) over its senders s, and ∂S_r/∂θ. This
//! is what a formula in place of φe needs: the gradient of a loss goes through the sum, and nothing of the size of the
//! edges is ever stored.
//!
//! The variables x_rs of an edge are computed on the fly from scaled features (position, velocity, mass) of receiver 1
//! and sender 2; displacements are to the nearest image in the periodic box.

mod cpu;
pub(crate) mod gpu;
pub mod selftest;
#[cfg(test)]
mod tests;

use std::ops::Range;

use rayon::prelude::*;

use crate::device::{Cpu, Device};
use crate::error::{Error, Result};
use crate::ops::expression::Program;
use crate::ops::{Call, check_len};

/// Features of a node: position, velocity, mass.
pub const N_FEATURES: usize = 7;

/// Variables of an edge: masses; displacement from 1 to 2 and its length; |v1 − v2|; |v1|, |v2|.
pub const VARIABLES: [&str; 9] = ["m1", "m2", "dx", "dy", "dz", "r", "dv", "v1", "v2"];

/// Receivers of a large graph.
#[derive(Clone, Copy)]
pub struct Edges<'a> {
    /// Edges are sorted by receiver: those of node i are `row_start[i]..row_start[i + 1]`, `[node + 1]`.
    pub row_start: &'a [u64],
    /// `[edge]`
    pub sender: &'a [u32],
    /// The nodes whose sums are computed.
    pub receivers: &'a [u32],
    /// `[node, N_FEATURES]`
    pub features: &'a [f32],
    /// Edge of the periodic box in the unit of the features.
    pub period: f32,
}

/// The sums of some programs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sums {
    /// `[receiver, width]`: for each program its sum and, if requested, the sums of its derivatives with respect to its
    /// constants.
    pub values: Vec<f64>,
    /// Numbers for each receiver.
    pub width: usize,
}

impl Edges<'_> {
    /// The edges of a node.
    fn span(&self, node: u32) -> Range<usize> {
        let rows = self.row_start;
        rows[node as usize] as usize..rows[node as usize + 1] as usize
    }

    fn check(&self) -> Result<()> {
        let Edges { row_start, sender, receivers, features, .. } = *self;
        let nodes = row_start.len().saturating_sub(1);
        check_len("features", features.len(), nodes * N_FEATURES)?;
        if let Some(row) = receivers.iter().position(|&r| r as usize >= nodes) {
            let message = format!("names node {}, but there are {nodes}", receivers[row]);
            return Err(Error::input(message).field("receivers").row(row as u64 + 1));
        }
        let fits = |ends: &[u64]| ends[0] <= ends[1] && ends[1] <= sender.len() as u64;
        if let Some(row) = row_start.windows(2).position(|ends| !fits(ends)) {
            let [start, end] = [row_start[row], row_start[row + 1]];
            let message = format!("spans edges {start} to {end}, but there are {}", sender.len());
            return Err(Error::input(message).field("row_start").row(row as u64 + 1));
        }
        let outside =
            |&receiver: &u32| self.span(receiver).find(|&edge| sender[edge] as usize >= nodes);
        if let Some(edge) = receivers.par_iter().find_map_first(outside) {
            let message = format!("names node {}, but there are {nodes}", sender[edge]);
            return Err(Error::input(message).field("sender").row(edge as u64 + 1));
        }
        Ok(())
    }
}

/// Edges on the device where they are summed.
pub struct Loaded<'a> {
    edges: Edges<'a>,
    backend: Backend,
}

enum Backend {
    Cpu(Cpu),
    Gpu(gpu::Loaded),
}

impl<'a> Loaded<'a> {
    /// Moves edges to a device.
    ///
    /// # Errors
    /// Features of the wrong length, a receiver or sender that does not exist, rows that end before they begin; on a
    /// GPU too little memory.
    pub fn new(device: &Device, edges: Edges<'a>) -> Result<Self> {
        edges.check()?;
        let backend = match device {
            Device::Cpu(cpu) => Backend::Cpu(*cpu),
            Device::Gpu(gpu) => Backend::Gpu(gpu::Loaded::new(*gpu, &edges)?),
        };
        Ok(Loaded { edges, backend })
    }

    /// The edges.
    pub fn edges(&self) -> &Edges<'a> {
        &self.edges
    }

    /// The sums of `programs` over the edges of each receiver; `None` if a value on some edge is not finite. Arithmetic
    /// is f32 on each edge, sums are f64 in the order of the edges: the same bits on a GPU and on a CPU with vectors.
    ///
    /// # Errors
    /// A variable that edges do not have; on a GPU programs that are too long, or too little memory.
    pub fn sums(&self, programs: &[Program], gradient: bool) -> Result<Option<Sums>> {
        let used = programs.iter().flat_map(Program::variables).max().unwrap_or(0);
        if usize::from(used) >= VARIABLES.len() {
            let message = format!("uses variable {used}, but an edge has {}", VARIABLES.len());
            return Err(Error::input(message).field("expression"));
        }
        match &self.backend {
            Backend::Cpu(cpu) => Ok(cpu::sums(*cpu, &self.edges, programs, gradient)),
            Backend::Gpu(loaded) => loaded.sums(&self.edges, programs, gradient),
        }
    }
}

/// The variables of an edge between two rows of features.
#[inline(always)]
pub fn variables(
    receiver: &[f32; N_FEATURES],
    sender: &[f32; N_FEATURES],
    period: f32,
) -> [f32; VARIABLES.len()] {
    let delta = |k: usize| {
        let plain = sender[k] - receiver[k];
        if plain > 0.5 * period {
            plain - period
        } else if plain < -0.5 * period {
            plain + period
        } else {
            plain
        }
    };
    let (dx, dy, dz) = (delta(0), delta(1), delta(2));
    let dv = |k: usize| sender[k] - receiver[k];
    [
        receiver[6],
        sender[6],
        dx,
        dy,
        dz,
        length(dx, dy, dz),
        length(dv(3), dv(4), dv(5)),
        speed(receiver),
        speed(sender),
    ]
}

#[inline(always)]
fn length(x: f32, y: f32, z: f32) -> f32 {
    (x * x + y * y + z * z).sqrt()
}

/// |v| of a row of features.
#[inline(always)]
fn speed(node: &[f32; N_FEATURES]) -> f32 {
    length(node[3], node[4], node[5])
}

/// [`Loaded::sums`] for `measure`, which repeats it: edges are already on the device, and on a GPU the sums stay there.
pub(crate) fn repeat<T>(
    device: &Device,
    edges: Edges,
    programs: &[Program],
    gradient: bool,
    measure: impl FnOnce(Call) -> Result<T>,
) -> Result<T> {
    let loaded = Loaded::new(device, edges)?;
    match &loaded.backend {
        Backend::Cpu(_) => measure(&mut || loaded.sums(programs, gradient).map(drop)),
        Backend::Gpu(uploaded) => {
            let mut sweep = gpu::Sweep::new(uploaded, loaded.edges.period, programs, gradient)?;
            let mut sums = sweep.room()?;
            measure(&mut || sweep.resident(&mut sums))
        }
    }
}
