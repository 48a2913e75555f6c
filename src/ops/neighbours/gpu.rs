//! The radius graph on a CUDA device: `kernels/neighbours.cu`.

use super::{Grid, Reach};
use crate::device::Gpu;
use crate::device::cuda::{Buffer, Grid as Blocks, Kernel, Pointer};
use crate::error::Result;
use crate::kernel_args;

const PLACE: Kernel = Kernel { module: "neighbours", name: "neighbours_place" };
const SCAN: Kernel = Kernel { module: "neighbours", name: "neighbours_scan" };
const SORT: Kernel = Kernel { module: "neighbours", name: "neighbours_sort" };
const COUNT: Kernel = Kernel { module: "neighbours", name: "neighbours_count" };
const WRITE: Kernel = Kernel { module: "neighbours", name: "neighbours_write" };
/// A thread for each node.
const THREADS: u32 = 256;
/// Of the one block of a scan, which has a sum for each.
const SCAN_THREADS: u32 = 1024;
/// A warp for each node.
const WARP: usize = 32;

kernel_args! {
    /// What all kernels take but the scan.
    struct NeighboursArgs {
        /// `[node, 3]`
        positions: Pointer<f32>,
        /// `[cell]`: nodes of each.
        cell_count: Pointer<u32>,
        /// `[node]`: its place in its cell.
        rank: Pointer<u32>,
        /// `[cell + 1]`
        cell_start: Pointer<u64>,
        /// `[node, 4]`: the nodes, cell after cell: x, y, z and the bits of the number.
        sorted: Pointer<f32>,
        /// `[node]`: neighbours of each.
        degree: Pointer<u32>,
        /// `[node + 1]`
        row_start: Pointer<u64>,
        /// `[edge]`
        senders: Pointer<u32>,
        edge: f64,
        radius: f64,
        /// Cells per unit of length.
        scale: f64,
        /// Cells along each axis.
        side: u32,
        nodes: u32,
    }
}

kernel_args! {
    /// What `neighbours_scan` takes.
    struct ScanArgs {
        /// `[len]`
        counts: Pointer<u32>,
        /// `[len + 1]`: the sums of what comes before, and of all.
        starts: Pointer<u64>,
        len: u64,
    }
}

/// The nodes, cell after cell, and the rows, on the device.
pub(super) struct Cells {
    gpu: Gpu,
    reach: Reach,
    grid: Grid,
    nodes: usize,
    cell_start: Buffer<u64>,
    sorted: Buffer<f32>,
    row_start: Buffer<u64>,
}

impl Cells {
    /// Sorts by counting, and counts the neighbours.
    pub(super) fn new(gpu: Gpu, positions: &[f32], reach: Reach, grid: Grid) -> Result<Self> {
        let nodes = positions.len() / 3;
        let uploaded = gpu.upload(positions)?;
        let mut cell_count = gpu.zeros::<u32>(grid.cells())?;
        let mut rank = gpu.buffer::<u32>(nodes)?;
        let mut degree = gpu.buffer::<u32>(nodes)?;
        let mut cells = Cells {
            gpu,
            reach,
            grid,
            nodes,
            cell_start: gpu.buffer(grid.cells() + 1)?,
            sorted: gpu.buffer(4 * nodes)?,
            row_start: gpu.buffer(nodes + 1)?,
        };
        let args = NeighboursArgs {
            positions: uploaded.read(3 * nodes),
            cell_count: cell_count.write(grid.cells()),
            rank: rank.write(nodes),
            cell_start: cells.cell_start.write(grid.cells() + 1),
            sorted: cells.sorted.write(4 * nodes),
            degree: degree.write(nodes),
            row_start: cells.row_start.write(nodes + 1),
            ..cells.args()
        };
        let cell_scan =
            ScanArgs { counts: args.cell_count, starts: args.cell_start, len: grid.cells() as u64 };
        let row_scan = ScanArgs { counts: args.degree, starts: args.row_start, len: nodes as u64 };
        // SAFETY: the buffers are as long as the kernels expect and live until the work is waited
        // for below.
        unsafe {
            cells.launch(PLACE, nodes, &args)?;
            cells.scan(&cell_scan)?;
            cells.launch(SORT, nodes, &args)?;
            cells.launch(COUNT, nodes * WARP, &args)?;
            cells.scan(&row_scan)?;
        }
        gpu.synchronize()?;
        Ok(cells)
    }

    /// `[node + 1]`
    pub(super) fn row_start(&self) -> Result<Vec<u64>> {
        self.row_start.to_vec()
    }

    /// The senders of each row, one for each edge.
    pub(super) fn write(&self, senders: &mut [u32]) -> Result<()> {
        let mut written = self.gpu.buffer(senders.len())?;
        let args = NeighboursArgs { senders: written.write(senders.len()), ..self.args() };
        // SAFETY: the buffers live until the download is done.
        unsafe { self.launch(WRITE, self.nodes * WARP, &args)? };
        written.download(senders)
    }

    /// What is there in any case.
    fn args(&self) -> NeighboursArgs {
        NeighboursArgs {
            positions: Pointer::NULL,
            cell_count: Pointer::NULL,
            rank: Pointer::NULL,
            cell_start: self.cell_start.read(self.grid.cells() + 1),
            sorted: self.sorted.read(4 * self.nodes),
            degree: Pointer::NULL,
            row_start: self.row_start.read(self.nodes + 1),
            senders: Pointer::NULL,
            edge: self.reach.edge,
            radius: self.reach.radius,
            scale: self.grid.scale,
            side: self.grid.side,
            nodes: self.nodes as u32,
        }
    }

    /// Enqueues a kernel on `threads` threads.
    ///
    /// # Safety
    /// As for [`Gpu::launch`].
    unsafe fn launch(&self, kernel: Kernel, threads: usize, args: &NeighboursArgs) -> Result<()> {
        if threads == 0 {
            return Ok(());
        }
        // SAFETY: the caller's promise.
        unsafe { self.gpu.launch(kernel, Blocks::cover(threads, THREADS), args) }
    }

    /// Enqueues a scan.
    ///
    /// # Safety
    /// As for [`Gpu::launch`].
    unsafe fn scan(&self, args: &ScanArgs) -> Result<()> {
        let shared = SCAN_THREADS as usize * size_of::<u64>();
        let block = Blocks { shared, ..Blocks::new(1, SCAN_THREADS) };
        // SAFETY: the caller's promise; the block strides over `len`.
        unsafe { self.gpu.launch(SCAN, block, args) }
    }
}
