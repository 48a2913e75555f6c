//! Sums over edges on a CUDA device: `kernels/scatter.cu`.

use super::Edges;
use crate::device::Gpu;
use crate::device::cuda::{Grid, Kernel, Pointer};
use crate::error::Result;
use crate::kernel_args;

const ROWS: Kernel = Kernel { module: "scatter", name: "scatter_rows" };
const EDGES: Kernel = Kernel { module: "scatter", name: "scatter_edges" };
const THREADS: u32 = 256;
const WARP: usize = 32;

kernel_args! {
    /// What `scatter_rows` and `scatter_edges` take.
    struct ScatterArgs {
        /// `[edge]`, for `scatter_edges`.
        receivers: Pointer<u32>,
        /// `[node + 1]`, for `scatter_rows`.
        row_start: Pointer<u64>,
        /// `[edge, width]`
        values: Pointer<f32>,
        /// `[node, width]`
        out: Pointer<f32>,
        edges: u64,
        nodes: u64,
        width: u64,
    }
}

pub(super) fn add(
    gpu: Gpu,
    edges: Edges,
    width: usize,
    values: &[f32],
    out: &mut [f32],
) -> Result<()> {
    if values.is_empty() {
        return Ok(());
    }
    let uploaded = gpu.upload(values)?;
    let mut sums = gpu.upload(out)?;
    let args = ScatterArgs {
        receivers: Pointer::NULL,
        row_start: Pointer::NULL,
        values: uploaded.read(values.len()),
        out: sums.write(out.len()),
        edges: (values.len() / width) as u64,
        nodes: (out.len() / width) as u64,
        width: width as u64,
    };
    // SAFETY: the lengths were checked, and the buffers live until the work is waited for.
    unsafe {
        match edges {
            Edges::Rows(rows) => {
                let rows = gpu.upload(rows)?;
                let args = ScatterArgs { row_start: rows.read(rows.len()), ..args };
                gpu.launch(ROWS, Grid::cover(out.len() / width * WARP, THREADS), &args)?;
                gpu.synchronize()?;
            }
            Edges::Receivers(receivers) => {
                let receivers = gpu.upload(receivers)?;
                let args = ScatterArgs { receivers: receivers.read(receivers.len()), ..args };
                // As many lanes for an edge as the kernel takes.
                let across = width.next_power_of_two().min(WARP);
                let threads = values.len() / width * across;
                gpu.launch(EDGES, Grid::cover(threads, THREADS), &args)?;
                gpu.synchronize()?;
            }
        }
    }
    sums.download(out)
}
