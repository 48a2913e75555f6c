//! Sums of expressions over the edges of a large graph, with their derivatives.
//!
//! For each receiver r and each program f with constants θ: S_r = Σ_s f(x_rs; θ) over its senders s,
//! and ∂S_r/∂θ. This is what a formula in the place of φe needs: the gradient of a loss goes through
//! the sum, and nothing of the size of the edges is ever stored.
//!
//! The variables x_rs of an edge are made as it is met, from scaled features (position, velocity,
//! mass) of receiver 1 and sender 2; displacements are those to the nearest image in the periodic
//! box.

mod cpu;
#[cfg(test)]
mod tests;

use crate::device::Cpu;
use crate::error::{Error, Result};
use crate::ops::check_len;
use crate::ops::expression::Program;

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
    /// The nodes whose sums are wanted.
    pub receivers: &'a [u32],
    /// `[node, N_FEATURES]`
    pub features: &'a [f32],
    /// Edge of the periodic box in the unit of the features.
    pub period: f32,
}

/// The sums of some programs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sums {
    /// `[receiver, width]`: for each program its sum and, if they were asked for, the sums of its
    /// derivatives with respect to its constants.
    pub values: Vec<f64>,
    /// Numbers of a receiver.
    pub width: usize,
}

/// The sums of `programs` over the edges of each receiver; `None` where a value on some edge is not
/// finite. Arithmetic is f32 on each edge, sums are f64.
///
/// # Errors
/// Features of another length, a receiver or sender that does not exist.
pub fn sums(cpu: Cpu, edges: &Edges, programs: &[Program], gradient: bool) -> Result<Option<Sums>> {
    let nodes = edges.row_start.len().saturating_sub(1);
    check_len("features", edges.features.len(), nodes * N_FEATURES)?;
    if let Some(row) = edges.receivers.iter().position(|&r| r as usize >= nodes) {
        let message = format!("is node {} of {nodes}", edges.receivers[row]);
        return Err(Error::input(message).field("receivers").row(row as u64 + 1));
    }
    let used = programs.iter().flat_map(Program::variables).max().unwrap_or(0);
    if usize::from(used) >= VARIABLES.len() {
        let message = format!("has variable {used}, an edge has {}", VARIABLES.len());
        return Err(Error::input(message).field("expression"));
    }
    Ok(cpu::sums(cpu, edges, programs, gradient))
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
    let length = |x: f32, y: f32, z: f32| (x * x + y * y + z * z).sqrt();
    let (dx, dy, dz) = (delta(0), delta(1), delta(2));
    let speed = |v: &[f32; N_FEATURES]| length(v[3], v[4], v[5]);
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
