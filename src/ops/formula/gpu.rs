//! Sums over edges on a CUDA device: `kernels/formula.cu`.
//!
//! Edges go in chunks of whole receivers. As many as fit into half of the free memory stay on the device, so that a
//! refit uploads them once; the others are uploaded at each call, from wherever they are mapped.

use std::ops::Range;

use super::{Edges, N_FEATURES, Sums, speed};
use crate::device::Gpu;
use crate::device::args::FormulaArgs;
use crate::device::cuda::{Buffer, Grid, Kernel, Pointer};
use crate::error::{Error, Result};
use crate::ops::expression::gpu::{encode, slots};
use crate::ops::expression::{Operand, Program};

const VALUES: Kernel = Kernel { module: "formula", name: "formula_values" };
const GRADIENTS: Kernel = Kernel { module: "formula", name: "formula_gradients" };
const WARP: usize = 32;
/// Warps of a block, unless their columns do not fit.
const WARPS: usize = 4;
/// Elements from one column of a warp to the next, as in the kernel.
const LENGTH: usize = 4 * WARP + 4;
/// Approximate number of edges of a warp.
const EDGES_EACH: usize = 1024;
/// Bytes of a chunk, unless one receiver has more or memory is short.
const CHUNK: usize = 1 << 24;
/// Bytes of an edge, and of a receiver with its sums.
const EDGE_BYTES: usize = size_of::<u32>();
const RECEIVER_BYTES: usize = 128;

/// Nodes and edges on the device.
pub(crate) struct Loaded {
    gpu: Gpu,
    nodes: Buffer<f32>,
    chunks: Vec<Chunk>,
}

/// Some receivers with all their edges.
struct Chunk {
    /// The range in `Edges::receivers`.
    rows: Range<usize>,
    /// The data, if they stay on the device.
    resident: Option<Rows>,
}

/// A chunk on the device.
struct Rows {
    row_start: Buffer<u64>,
    receivers: Buffer<u32>,
    sender: Buffer<u32>,
}

impl Rows {
    fn upload(gpu: Gpu, edges: &Edges, rows: Range<usize>) -> Result<Self> {
        let receivers = &edges.receivers[rows];
        let spans = receivers.iter().map(|&receiver| edges.span(receiver));
        let mut row_start = vec![0];
        let mut sender = Vec::with_capacity(spans.clone().map(|span| span.len()).sum());
        for span in spans {
            sender.extend_from_slice(&edges.sender[span]);
            row_start.push(sender.len() as u64);
        }
        Ok(Rows {
            row_start: gpu.upload(&row_start)?,
            receivers: gpu.upload(receivers)?,
            sender: gpu.upload(&sender)?,
        })
    }
}

impl Loaded {
    /// Uploads edges that have been checked.
    ///
    /// # Errors
    /// Too little memory.
    pub(crate) fn new(gpu: Gpu, edges: &Edges) -> Result<Self> {
        Self::within(gpu, edges, gpu.free_memory()?)
    }

    /// With this many bytes of free memory.
    pub(super) fn within(gpu: Gpu, edges: &Edges, free: usize) -> Result<Self> {
        let of = |f: &[f32; N_FEATURES]| [f[0], f[1], f[2], f[3], f[4], f[5], f[6], speed(f)];
        let rows = edges.features.as_chunks::<N_FEATURES>().0;
        let nodes = gpu.upload(&rows.iter().flat_map(of).collect::<Vec<f32>>())?;
        let most = CHUNK.min(free / 8);
        let mut chunks = Vec::new();
        let (mut begin, mut bytes, mut kept) = (0, 0, 0);
        let mut close = |rows: Range<usize>, bytes: usize| -> Result<()> {
            kept += bytes;
            let resident = (kept <= free / 2).then(|| Rows::upload(gpu, edges, rows.clone()));
            chunks.push(Chunk { rows, resident: resident.transpose()? });
            Ok(())
        };
        for (row, &receiver) in edges.receivers.iter().enumerate() {
            let own = RECEIVER_BYTES + EDGE_BYTES * edges.span(receiver).len();
            if bytes > 0 && bytes + own > most {
                close(begin..row, bytes)?;
                (begin, bytes) = (row, 0);
            }
            bytes += own;
        }
        if bytes > 0 {
            close(begin..edges.receivers.len(), bytes)?;
        }
        Ok(Loaded { gpu, nodes, chunks })
    }

    pub(super) fn sums(
        &self,
        edges: &Edges,
        programs: &[Program],
        gradient: bool,
    ) -> Result<Option<Sums>> {
        if programs.is_empty() {
            return Ok(Some(Sums::default()));
        }
        let mut sweep = Sweep::new(self, edges.period, programs, gradient)?;
        let width = sweep.args.width as usize;
        let mut values = vec![0.0; edges.receivers.len() * width];
        let mut sums = sweep.room()?;
        for chunk in &self.chunks {
            let uploaded = match chunk.resident {
                Some(_) => None,
                None => Some(Rows::upload(self.gpu, edges, chunk.rows.clone())?),
            };
            let rows = chunk.resident.as_ref().or(uploaded.as_ref()).expect("one of the two");
            sweep.launch(rows, &mut sums)?;
            sums.download(&mut values[chunk.rows.start * width..chunk.rows.end * width])?;
        }
        let mut invalid = [0];
        sweep.invalid.download(&mut invalid)?;
        Ok((invalid == [0]).then_some(Sums { values, width }))
    }
}

/// One or more programs to run over the edges.
pub(crate) struct Sweep<'a> {
    loaded: &'a Loaded,
    words: Buffer<u32>,
    invalid: Buffer<u32>,
    kernel: Kernel,
    /// Without the addresses and what depends on the chunk.
    args: FormulaArgs,
    warps: usize,
    shared: usize,
}

impl<'a> Sweep<'a> {
    /// Uploads the programs.
    ///
    /// # Errors
    /// A program that is too long for the device, too little memory.
    pub(crate) fn new(
        loaded: &'a Loaded,
        period: f32,
        programs: &[Program],
        gradient: bool,
    ) -> Result<Self> {
        let gpu = loaded.gpu;
        let used = programs.iter().flat_map(Program::variables).fold(0, |all, v| all | 1u32 << v);
        let mut words = encode(&numbered(programs, used), gradient);
        words.resize(words.len().next_multiple_of(4), 0);
        let derivatives = |p: &Program| if gradient { p.constants.len() } else { 0 };
        let columns = |p: &Program| {
            let tape = if gradient { p.instructions.len() } else { 0 };
            1 + derivatives(p) + tape + slots(p)
        };
        let most_columns = programs.iter().map(columns).max().unwrap_or(0);
        let columns = used.count_ones() as usize + most_columns;
        let [fixed, warp] = [words.len(), columns * LENGTH].map(|n| n * size_of::<u32>());
        let room = gpu.properties()?.shared.saturating_sub(fixed);
        let warps = WARPS.min(room / warp);
        if warps == 0 {
            let nodes: usize = programs.iter().map(|p| p.nodes).sum();
            return Err(Error::device(format!(
                "expressions of {nodes} nodes are too long for {gpu:?}; use --device cpu"
            )));
        }
        let width: usize = programs.iter().map(|p| 1 + derivatives(p)).sum();
        let args = FormulaArgs {
            row_start: Pointer::NULL,
            receivers: Pointer::NULL,
            sender: Pointer::NULL,
            nodes: loaded.nodes.read(loaded.nodes.len()),
            programs: Pointer::NULL,
            sums: Pointer::NULL,
            invalid: Pointer::NULL,
            count: programs.len() as u32,
            words: words.len() as u32,
            width: width as u32,
            used,
            columns: columns as u32,
            receivers_each: 0,
            receiver_count: 0,
            period,
        };
        let (words, invalid) = (gpu.upload(&words)?, gpu.zeros(1)?);
        let kernel = if gradient { GRADIENTS } else { VALUES };
        Ok(Sweep { loaded, words, invalid, kernel, args, warps, shared: fixed + warps * warp })
    }

    /// Room for the sums of any chunk.
    ///
    /// # Errors
    /// Too little memory.
    pub(crate) fn room(&self) -> Result<Buffer<f64>> {
        let most = self.loaded.chunks.iter().map(|chunk| chunk.rows.len()).max().unwrap_or(0);
        self.loaded.gpu.buffer(most * self.args.width as usize)
    }

    /// Enqueues the sums of all chunks that stay on the device, each overwriting the last: for measurements.
    pub(crate) fn resident(&mut self, sums: &mut Buffer<f64>) -> Result<()> {
        let chunks = &self.loaded.chunks;
        chunks.iter().filter_map(|c| c.resident.as_ref()).try_for_each(|r| self.launch(r, sums))
    }

    /// Enqueues the sums of a chunk.
    fn launch(&mut self, rows: &Rows, sums: &mut Buffer<f64>) -> Result<()> {
        sums.clear()?;
        let (receivers, edges) = (rows.receivers.len(), rows.sender.len());
        let each = (EDGES_EACH * receivers / edges.max(1)).clamp(1, receivers.max(1));
        let args = FormulaArgs {
            row_start: rows.row_start.read(receivers + 1),
            receivers: rows.receivers.read(receivers),
            sender: rows.sender.read(edges),
            programs: self.words.read(self.words.len()),
            sums: sums.write(receivers * self.args.width as usize),
            invalid: self.invalid.write(1),
            receivers_each: each as u32,
            receiver_count: receivers as u32,
            ..self.args
        };
        let blocks = receivers.div_ceil(each).div_ceil(self.warps);
        let grid = Grid { shared: self.shared, ..Grid::new(blocks, (self.warps * WARP) as u32) };
        // SAFETY: edges and variables were checked, programs are as made by `encode` and fit into shared memory, the
        // buffers have the lengths documented in the kernel.
        unsafe { self.loaded.gpu.launch(self.kernel, grid, &args) }
    }
}

/// The programs with their variables renumbered among the set bits of `used`.
fn numbered(programs: &[Program], used: u32) -> Vec<Program> {
    let mut programs = programs.to_vec();
    for program in &mut programs {
        let operands = program.instructions.iter_mut().flat_map(|i| &mut i.operands);
        for operand in operands.chain([&mut program.root]) {
            if let Operand::Variable(v) = operand {
                *v = (used & ((1 << *v) - 1)).count_ones() as u16;
            }
        }
    }
    programs
}
