//! Sums over the edges of a graph: out[r, :] += Σ values[e, :] over the edges e whose receiver is r.
//!
//! The edges come in any order, with a receiver each, or sorted by receiver, as rows. On the CPU both are summed in the
//! order of the edges, with the same bits for any number of threads. On a GPU rows are summed without atomics, in a
//! fixed order; edges in any order are added with atomics, whose order, and with it the last bits of a sum, differs
//! from call to call.

mod cpu;
pub(crate) mod gpu;
pub mod selftest;
#[cfg(test)]
mod tests;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::ops::Call;

/// The edges and their receivers.
#[derive(Clone, Copy, Debug)]
pub enum Edges<'a> {
    /// `[edge]`: the receiver of each.
    Receivers(&'a [u32]),
    /// `[node + 1]`: the edges of node r are `row_start[r]..row_start[r + 1]`.
    Rows(&'a [u64]),
}

/// Adds `values [edge, width]` to `out [node, width]`.
///
/// # Errors
/// Arrays whose lengths do not fit, a receiver that is not a node, a row that ends before it begins (each with its
/// row), and on a GPU too little memory; nothing is added then.
pub fn add(
    device: &Device,
    edges: Edges,
    width: usize,
    values: &[f32],
    out: &mut [f32],
) -> Result<()> {
    check(edges, width, values.len(), out.len())?;
    match device {
        Device::Cpu(_) => {
            cpu::add(edges, width, values, out);
            Ok(())
        }
        Device::Gpu(gpu) => gpu::add(*gpu, edges, width, values, out),
    }
}

fn check(edges: Edges, width: usize, values: usize, out: usize) -> Result<()> {
    for (name, len) in [("values", values), ("out", out)] {
        if width == 0 || !len.is_multiple_of(width) {
            let message = format!("has {len} elements, not a multiple of {width}");
            return Err(Error::input(message).field(name));
        }
    }
    let (count, nodes) = (values / width, out / width);
    match edges {
        Edges::Receivers(receivers) => {
            let refused = |message: String| Err(Error::input(message).field("receiver"));
            if receivers.len() != count {
                return refused(format!("has {} elements for {count} edges", receivers.len()));
            }
            match receivers.iter().position(|&receiver| receiver as usize >= nodes) {
                None => Ok(()),
                Some(edge) => {
                    let message = format!("{} is not one of {nodes} nodes", receivers[edge]);
                    Err(Error::input(message).field("receiver").row(edge as u64 + 1))
                }
            }
        }
        Edges::Rows(row_start) => {
            let refused = |message: String| Error::input(message).field("row_start");
            if row_start.len() != nodes + 1 {
                let message = format!("has {} elements for {nodes} nodes", row_start.len());
                return Err(refused(message));
            }
            if row_start[0] != 0 || row_start[nodes] != count as u64 {
                let (first, last) = (row_start[0], row_start[nodes]);
                return Err(refused(format!("goes from {first} to {last}, not from 0 to {count}")));
            }
            match row_start.windows(2).position(|ends| ends[0] > ends[1]) {
                None => Ok(()),
                Some(row) => {
                    let (start, end) = (row_start[row], row_start[row + 1]);
                    let message = format!("the row ends at {end}, before its start {start}");
                    Err(refused(message).row(row as u64 + 1))
                }
            }
        }
    }
}

/// [`add`] for `measure`, which repeats it: the data are already on the device.
pub(crate) fn repeat<T>(
    device: &Device,
    edges: Edges,
    width: usize,
    values: &[f32],
    out: &mut [f32],
    measure: impl FnOnce(Call) -> Result<T>,
) -> Result<T> {
    match device {
        Device::Cpu(_) => measure(&mut || add(device, edges, width, values, out)),
        Device::Gpu(gpu) => {
            let mut loaded = gpu::Loaded::new(*gpu, edges, width, values, out)?;
            measure(&mut || loaded.add())
        }
    }
}
