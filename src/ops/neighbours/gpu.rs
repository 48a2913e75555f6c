//! The radius graph on a CUDA device: `kernels/neighbours.cu`.

use super::{Grid, Reach};
use crate::device::Gpu;
use crate::device::args::{NeighboursArgs, ScanArgs};
use crate::device::cuda::{Buffer, Grid as Blocks, Kernel, Pointer};
use crate::device::ring;
use crate::error::Result;

const PLACE: Kernel = Kernel { module: "neighbours", name: "neighbours_place" };
const SCAN: Kernel = Kernel { module: "neighbours", name: "neighbours_scan" };
const SORT: Kernel = Kernel { module: "neighbours", name: "neighbours_sort" };
const COUNT: Kernel = Kernel { module: "neighbours", name: "neighbours_count" };
const WRITE: Kernel = Kernel { module: "neighbours", name: "neighbours_write" };
/// Threads of a block; one thread for each node.
const THREADS: u32 = 256;
/// Threads of the single block of a scan, with a sum for each.
const SCAN_THREADS: u32 = 1024;
/// One warp for each node.
const WARP: usize = 32;
/// The longest row that a warp of `neighbours_write` sorts in shared memory.
pub(super) const ROOM: usize = 512;

/// The nodes, cell by cell, and the rows, on the device.
pub(crate) struct Cells {
    gpu: Gpu,
    reach: Reach,
    grid: Grid,
    nodes: usize,
    cell_start: Buffer<u64>,
    sorted: Buffer<f32>,
    row_start: Buffer<u64>,
}

/// Data needed for counting only.
pub(crate) struct Nodes {
    positions: Buffer<f32>,
    cell_count: Buffer<u32>,
    rank: Buffer<u32>,
    degree: Buffer<u32>,
}

impl Cells {
    /// A counting sort, then counts the neighbours.
    pub(super) fn new(gpu: Gpu, positions: &[f32], reach: Reach) -> Result<Self> {
        let (mut cells, mut nodes) = Self::load(gpu, positions, reach)?;
        cells.count(&mut nodes)?;
        gpu.synchronize()?;
        Ok(cells)
    }

    /// Uploads the nodes.
    ///
    /// # Errors
    /// Too little memory.
    pub(crate) fn load(gpu: Gpu, positions: &[f32], reach: Reach) -> Result<(Self, Nodes)> {
        let nodes = positions.len() / 3;
        let grid = Grid::new(reach, nodes);
        let needed = Nodes {
            positions: gpu.upload(positions)?,
            cell_count: gpu.buffer(grid.cells())?,
            rank: gpu.buffer(nodes)?,
            degree: gpu.buffer(nodes)?,
        };
        let cells = Cells {
            gpu,
            reach,
            grid,
            nodes,
            cell_start: gpu.buffer(grid.cells() + 1)?,
            sorted: gpu.buffer(4 * nodes)?,
            row_start: gpu.buffer(nodes + 1)?,
        };
        Ok((cells, needed))
    }

    /// Enqueues sorting and counting.
    pub(crate) fn count(&mut self, nodes: &mut Nodes) -> Result<()> {
        let (cells, count) = (self.grid.cells(), self.nodes);
        nodes.cell_count.clear()?;
        let args = NeighboursArgs {
            positions: nodes.positions.read(3 * count),
            cell_count: nodes.cell_count.write(cells),
            rank: nodes.rank.write(count),
            cell_start: self.cell_start.write(cells + 1),
            sorted: self.sorted.write(4 * count).cast(),
            degree: nodes.degree.write(count),
            row_start: self.row_start.write(count + 1),
            ..self.args()
        };
        let cell_scan =
            ScanArgs { counts: args.cell_count, starts: args.cell_start, len: cells as u64 };
        let row_scan = ScanArgs { counts: args.degree, starts: args.row_start, len: count as u64 };
        // SAFETY: the buffers are as long as the kernels expect, and are freed in stream order.
        unsafe {
            self.launch(PLACE, Blocks::cover(count, THREADS), &args)?;
            self.scan(&cell_scan)?;
            self.launch(SORT, Blocks::cover(count, THREADS), &args)?;
            self.launch(COUNT, Blocks::cover(count * WARP, THREADS), &args)?;
            self.scan(&row_scan)
        }
    }

    /// `[node + 1]`
    pub(super) fn row_start(&self) -> Result<Vec<u64>> {
        self.row_start.to_vec()
    }

    /// Writes the senders of each row, one for each edge.
    pub(super) fn write(&self, senders: &mut [u32]) -> Result<()> {
        let mut written = self.gpu.buffer(senders.len())?;
        // SAFETY: there is one for each edge.
        unsafe { self.list(&mut written)? };
        ring::download(self.gpu, &written, senders)
    }

    /// Enqueues the list of senders.
    ///
    /// # Safety
    /// There is room for one for each edge.
    pub(crate) unsafe fn list(&self, senders: &mut Buffer<u32>) -> Result<()> {
        let args = NeighboursArgs { senders: senders.write(senders.len()), ..self.args() };
        let shared = THREADS as usize / WARP * ROOM * size_of::<u32>();
        let grid = Blocks { shared, ..Blocks::cover(self.nodes * WARP, THREADS) };
        // SAFETY: the caller's promise.
        unsafe { self.launch(WRITE, grid, &args) }
    }

    /// The arguments that are always given.
    fn args(&self) -> NeighboursArgs {
        NeighboursArgs {
            positions: Pointer::NULL,
            cell_count: Pointer::NULL,
            rank: Pointer::NULL,
            cell_start: self.cell_start.read(self.grid.cells() + 1),
            sorted: self.sorted.read(4 * self.nodes).cast(),
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

    /// Enqueues a kernel, unless there are no nodes.
    ///
    /// # Safety
    /// As for [`Gpu::launch`].
    unsafe fn launch(&self, kernel: Kernel, grid: Blocks, args: &NeighboursArgs) -> Result<()> {
        if self.nodes == 0 {
            return Ok(());
        }
        // SAFETY: the caller's promise.
        unsafe { self.gpu.launch(kernel, grid, args) }
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
