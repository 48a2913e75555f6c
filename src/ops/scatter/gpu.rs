//! Sums over edges on a CUDA device: `kernels/scatter.cu`.

use super::Edges;
use crate::device::Gpu;
use crate::device::args::ScatterArgs;
use crate::device::cuda::{Buffer, Grid, Kernel, Pointer};
use crate::error::Result;

const ROWS: Kernel = Kernel { module: "scatter", name: "scatter_rows" };
const EDGES: Kernel = Kernel { module: "scatter", name: "scatter_edges" };
const THREADS: u32 = 256;
const WARP: usize = 32;

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
    let mut loaded = Loaded::new(gpu, edges, width, values, out)?;
    loaded.add()?;
    loaded.out.download(out)
}

/// Edges, values and sums on the device.
pub(crate) struct Loaded {
    gpu: Gpu,
    edges: DeviceEdges,
    width: usize,
    values: Buffer<f32>,
    out: Buffer<f32>,
}

enum DeviceEdges {
    Receivers(Buffer<u32>),
    Rows(Buffer<u64>),
}

impl Loaded {
    /// Uploads data that [`check`](super::check) has accepted.
    ///
    /// # Errors
    /// Too little memory.
    pub(crate) fn new(
        gpu: Gpu,
        edges: Edges,
        width: usize,
        values: &[f32],
        out: &[f32],
    ) -> Result<Self> {
        let (values, out) = (gpu.upload(values)?, gpu.upload(out)?);
        let edges = match edges {
            Edges::Receivers(receivers) => DeviceEdges::Receivers(gpu.upload(receivers)?),
            Edges::Rows(row_start) => DeviceEdges::Rows(gpu.upload(row_start)?),
        };
        Ok(Loaded { gpu, edges, width, values, out })
    }

    /// Enqueues the sums.
    pub(crate) fn add(&mut self) -> Result<()> {
        let (edges, nodes) = (self.values.len() / self.width, self.out.len() / self.width);
        let args = ScatterArgs {
            receivers: Pointer::NULL,
            row_start: Pointer::NULL,
            values: self.values.read(self.values.len()),
            out: self.out.write(nodes * self.width),
            edges: edges as u64,
            nodes: nodes as u64,
            width: self.width as u64,
        };
        let (kernel, args, threads) = match &self.edges {
            DeviceEdges::Rows(rows) => {
                let args = ScatterArgs { row_start: rows.read(nodes + 1), ..args };
                (ROWS, args, nodes * WARP)
            }
            DeviceEdges::Receivers(receivers) => {
                let args = ScatterArgs { receivers: receivers.read(edges), ..args };
                // The number of lanes that the kernel uses for an edge.
                (EDGES, args, edges * self.width.next_power_of_two().min(WARP))
            }
        };
        // SAFETY: lengths, rows and receivers were checked.
        unsafe { self.gpu.launch(kernel, Grid::cover(threads, THREADS), &args) }
    }
}
