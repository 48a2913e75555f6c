//! Expressions on a CUDA device: `kernels/expression.cu`.
//!
//! A launch takes requests of one kind, each with programs for a table of its own: the programs go up, the results come
//! down, and the tables stay on the device with their [`Rows`]. A program's result does not depend on what else is in
//! the launch.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Fit, Fitted, LINE, Loss, Operand, Program, Rows};
use crate::device::Gpu;
use crate::device::args::{ExpressionArgs, ExpressionTask};
use crate::device::cuda::{Buffer, Grid, Kernel};
use crate::error::{Error, Result};

const SCORE: Kernel = Kernel { module: "expression", name: "expression_score" };
const FIT: Kernel = Kernel { module: "expression", name: "expression_fit" };
/// The most lines that a block takes at a time.
const LINES: usize = 64;
/// Threads per line: each works on four rows.
const THREADS: usize = 4;
/// Lines over which sums are f32, as in the kernel.
const SCORE_LINES: usize = 32;
const FIT_LINES: usize = 16;
/// Words of a program before its instructions.
const HEAD: usize = 8;
/// The one of these words that holds the number of the task.
const TASK: usize = 6;

/// The table of some rows on the device that last asked for it.
#[derive(Default)]
pub(super) struct Resident(Mutex<Option<(Gpu, Arc<Buffer<f32>>)>>);

impl fmt::Debug for Resident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resident")
    }
}

/// A copy of the rows uploads its own table.
impl Clone for Resident {
    fn clone(&self) -> Self {
        Resident::default()
    }
}

impl Resident {
    fn table(&self, gpu: Gpu, rows: &Rows) -> Result<Arc<Buffer<f32>>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((on, table)) = &*known
            && *on == gpu
        {
            return Ok(table.clone());
        }
        let lines = [&rows.columns[..], &rows.target, &rows.weights].concat();
        let table = Arc::new(gpu.upload(bytemuck::cast_slice(&lines))?);
        *known = Some((gpu, table.clone()));
        Ok(table)
    }
}

/// Losses of programs; `launch` gets the results of the request.
pub(super) fn score(
    gpu: Gpu,
    rows: &Rows,
    programs: &[Program],
    loss: Loss,
    launch: impl FnOnce(Request) -> Result<Vec<f64>>,
) -> Result<Vec<f64>> {
    if programs.is_empty() {
        return Ok(Vec::new());
    }
    let results = launch(Request::to_score(gpu, rows, programs, loss)?)?;
    Ok(results.into_iter().map(|l| if l.is_finite() { l } else { f64::INFINITY }).collect())
}

/// Fits of programs; `launch` gets the results of the request.
pub(super) fn fit(
    gpu: Gpu,
    rows: &Rows,
    programs: &[Program],
    fit: Fit,
    launch: impl FnOnce(Request) -> Result<Vec<f64>>,
) -> Result<Vec<Fitted>> {
    if programs.is_empty() {
        return Ok(Vec::new());
    }
    let results = launch(Request::to_fit(gpu, rows, programs, fit)?)?;
    let fitted = |(program, result): (&Program, &[f64])| {
        let (constants, rest) = result[2..].split_at(program.constants.len());
        let (scale, offset) = if fit.scaled { (rest[0], rest[1]) } else { (1.0, 0.0) };
        let (loss, evaluations) = (result[0], result[1] as u32);
        Fitted { loss, constants: constants.to_vec(), scale, offset, evaluations }
    };
    Ok(programs
        .iter()
        .zip(results.chunks_exact(results.len() / programs.len()))
        .map(fitted)
        .collect())
}

/// Programs that one caller wants scored or fitted on one table, ready to be launched.
pub(crate) struct Request {
    gpu: Gpu,
    kernel: Kernel,
    table: Arc<Buffer<f32>>,
    task: ExpressionTask,
    /// The output of [`encode`].
    words: Vec<u32>,
    programs: usize,
    /// Instructions of all programs.
    instructions: usize,
    /// Number of results of each program.
    stride: usize,
    /// Threads for the largest block.
    threads: u32,
    shared: usize,
}

impl Request {
    /// One or more programs to score.
    pub(crate) fn to_score(
        gpu: Gpu,
        rows: &Rows,
        programs: &[Program],
        loss: Loss,
    ) -> Result<Self> {
        let fit = Fit { loss, steps: 0, scaled: false, tolerance: 0.0 };
        Self::new(gpu, SCORE, rows, programs, fit, 1)
    }

    /// One or more programs to fit.
    pub(crate) fn to_fit(gpu: Gpu, rows: &Rows, programs: &[Program], fit: Fit) -> Result<Self> {
        let most = programs.iter().map(|p| parameters(p, fit)).max().unwrap_or(0);
        Self::new(gpu, FIT, rows, programs, fit, 2 + most)
    }

    /// For one of the kernels, with `stride` results for each program.
    fn new(
        gpu: Gpu,
        kernel: Kernel,
        rows: &Rows,
        programs: &[Program],
        fit: Fit,
        stride: usize,
    ) -> Result<Self> {
        let tape = kernel == FIT;
        let most = gpu.properties()?.shared;
        let rooms = programs.iter().map(|program| Room::new(program, tape.then_some(fit)));
        let rooms: Vec<Room> = rooms.collect();
        let mut tile = LINES.min(rows.lines);
        for (room, program) in rooms.iter().zip(programs) {
            while tile > 0 && room.bytes(tile) > most {
                // Whole blocks of lines, as long as they last.
                let block = if tape { FIT_LINES } else { SCORE_LINES };
                tile -= if tile > block { (tile - 1) % block + 1 } else { 1 };
            }
            if tile == 0 {
                return Err(Error::device(format!(
                    "an expression of {} nodes is too long for {gpu:?}; use --device cpu",
                    program.nodes
                )));
            }
        }
        let table = rows.resident.table(gpu, rows)?;
        let task = ExpressionTask {
            table: table.read(table.len()),
            rows: (rows.lines * LINE) as u32,
            variables: rows.variables as u32,
            tile: tile as u32,
            squared: (fit.loss == Loss::Mse).into(),
            scaled: fit.scaled.into(),
            steps: fit.steps,
            tolerance: fit.tolerance,
            median: rows.median,
            deviation: rows.deviation,
            reserved: 0,
        };
        Ok(Request {
            gpu,
            kernel,
            table,
            task,
            words: encode(programs, tape),
            programs: programs.len(),
            instructions: programs.iter().map(|p| p.instructions.len()).sum(),
            stride,
            threads: (THREADS * tile).next_multiple_of(32) as u32,
            shared: rooms.iter().map(|room| room.bytes(tile)).max().unwrap_or(0),
        })
    }

    /// True if one launch can take both.
    pub(super) fn goes_with(&self, other: &Request) -> bool {
        self.gpu == other.gpu && self.kernel == other.kernel
    }
}

/// Requests of one kind on the device, and room for their results.
pub(crate) struct Population {
    gpu: Gpu,
    kernel: Kernel,
    grid: Grid,
    /// Kept alive as long as the tasks.
    _tables: Vec<Arc<Buffer<f32>>>,
    tasks: Buffer<ExpressionTask>,
    words: Buffer<u32>,
    /// `[programs, stride]`
    results: Buffer<f64>,
    stride: usize,
}

impl Population {
    /// Uploads one or more requests that go together.
    pub(crate) fn new(requests: &[Request]) -> Result<Self> {
        let Request { gpu, kernel, .. } = requests[0];
        let programs = requests.iter().map(|r| r.programs).sum();
        let most = |of: fn(&Request) -> usize| requests.iter().map(of).max().unwrap_or(0);
        let stride = most(|r| r.stride);
        let tasks: Vec<ExpressionTask> = requests.iter().map(|r| r.task).collect();
        let grid = Grid::new(programs, most(|r| r.threads as usize) as u32);
        Ok(Population {
            gpu,
            kernel,
            grid: Grid { shared: most(|r| r.shared), ..grid },
            _tables: requests.iter().map(|r| r.table.clone()).collect(),
            tasks: gpu.upload(&tasks)?,
            words: gpu.upload(&joined(requests))?,
            results: gpu.buffer::<f64>(programs * stride)?,
            stride,
        })
    }

    /// Enqueues the work, one block per program.
    pub(crate) fn launch(&mut self) -> Result<()> {
        let Population { tasks, words, results, .. } = self;
        let args = ExpressionArgs {
            tasks: tasks.read(tasks.len()),
            programs: words.read(words.len()),
            results: results.write(results.len()),
            stride: self.stride as u32,
            reserved: 0,
        };
        // SAFETY: the lengths are those documented in the kernel, the programs are as made by `encode` and fit into
        // shared memory; the buffers belong to this population, which keeps the tables that the tasks refer to.
        unsafe { self.gpu.launch(self.kernel, self.grid, &args) }
    }
}

/// Launches requests that go together; returns the results of each, `[programs, stride]`.
pub(super) fn launch(requests: &[Request]) -> Result<Vec<Vec<f64>>> {
    let mut population = Population::new(requests)?;
    population.launch()?;
    let results = population.results.to_vec()?;
    let mut rows = results.chunks_exact(population.stride);
    let of = |request: &Request| {
        let own = rows.by_ref().take(request.programs);
        own.flat_map(|row| &row[..request.stride]).copied().collect()
    };
    Ok(requests.iter().map(of).collect())
}

/// The programs of all requests as those of one, each with the number of its request.
fn joined(requests: &[Request]) -> Vec<u32> {
    const WORDS: usize = 4;
    let programs: usize = requests.iter().map(|r| r.programs).sum();
    let instructions: usize = requests.iter().map(|r| r.instructions).sum();
    // Heads, instructions and constants follow one another, in each request and in the whole.
    let mut code = HEAD * programs;
    let mut constant = code + WORDS * instructions;
    let mut parts = [Vec::new(), Vec::new(), Vec::new()];
    for (number, request) in requests.iter().enumerate() {
        let (heads, rest) = request.words.split_at(HEAD * request.programs);
        let (instructions, constants) = rest.split_at(WORDS * request.instructions);
        for head in heads.chunks_exact(HEAD) {
            let mut head = head.to_vec();
            head[0] += ((code - heads.len()) / WORDS) as u32;
            head[2] += (constant - heads.len() - instructions.len()) as u32;
            head[TASK] = number as u32;
            parts[0].extend(head);
        }
        parts[1].extend_from_slice(instructions);
        parts[2].extend_from_slice(constants);
        code += instructions.len();
        constant += constants.len();
    }
    parts.concat()
}

/// The number of fitted parameters of a program.
fn parameters(program: &Program, fit: Fit) -> usize {
    program.constants.len() + if fit.scaled { 2 } else { 0 }
}

/// Most intermediate results needed at a time.
pub(crate) fn slots(program: &Program) -> usize {
    program.instructions.iter().map(|i| usize::from(i.slot) + 1).max().unwrap_or(0)
}

/// Shared memory of a block, in the kernels' layout.
struct Room {
    /// Bytes.
    fixed: usize,
    /// Columns of a tile.
    columns: usize,
}

impl Room {
    /// For a fit, or for scoring.
    fn new(program: &Program, fit: Option<Fit>) -> Self {
        let up = |bytes: usize| bytes.next_multiple_of(16);
        let doubles = |count: usize| up(count * size_of::<f64>());
        let (code, slots) = (program.instructions.len(), slots(program));
        let program_bytes = size_of::<ExpressionTask>()
            + code * 16
            + up(program.constants.len() * size_of::<f32>());
        match fit.map(|fit| parameters(program, fit)) {
            None => Room { fixed: program_bytes + doubles(1), columns: slots + 1 },
            Some(n) => {
                let equations = n * (n + 3) / 2;
                let solver = doubles(equations + 1) + doubles(equations) + doubles(n * (n + 1) / 2);
                let fixed = program_bytes + 3 * doubles(n) + solver;
                Room { fixed, columns: code + slots + n + 3 }
            }
        }
    }

    fn bytes(&self, tile: usize) -> usize {
        // A column has a gap of one line after every sixteen.
        let length = (tile + (tile - 1) / FIT_LINES) * LINE;
        self.fixed + self.columns * length * size_of::<f32>()
    }
}

/// The programs as the kernels read them: eight words each (`Program` in `kernels/common/evaluate.cuh`, with task
/// number 0), then the instructions, four words each, then the constants. On a tape the place of a result is the number
/// of its instruction, else its slot.
pub(crate) fn encode(programs: &[Program], tape: bool) -> Vec<u32> {
    const WORDS: usize = 4;
    let all: usize = programs.iter().map(|p| p.instructions.len()).sum();
    let mut first = HEAD * programs.len();
    let mut constant = first + WORDS * all;
    let mut words = Vec::with_capacity(constant);
    for program in programs {
        let Program { instructions, constants, root, .. } = program;
        words.extend([
            (first / WORDS) as u32,
            instructions.len() as u32,
            constant as u32,
            constants.len() as u32,
            operand(program, *root, tape),
            slots(program) as u32,
            0,
            0,
        ]);
        first += WORDS * instructions.len();
        constant += constants.len();
    }
    words.extend(programs.iter().flat_map(|program| code(program, tape)).flatten());
    words.extend(programs.iter().flat_map(|p| &p.constants).map(|c| c.to_bits()));
    words
}

/// The instructions as `kernels/common/program.cuh` describes them.
pub(crate) fn code(program: &Program, tape: bool) -> impl Iterator<Item = [u32; 4]> {
    program.instructions.iter().enumerate().map(move |(i, instruction)| {
        // The next instruction finds the result in registers.
        let is_next = |o: &Operand| *o == Operand::Result(i as u16);
        let next = program.instructions.get(i + 1);
        let kept = next.is_some_and(|next| !next.operands.iter().any(is_next));
        let flags = u32::from(instruction.has_constant) << 8 | u32::from(kept) << 9;
        let [a, b, c] = instruction.operands.map(|o| operand(program, o, tape));
        [instruction.op as u32 | flags | u32::from(instruction.slot) << 16, a, b, c]
    })
}

/// `Kind` in the kernel, then an index.
pub(crate) fn operand(program: &Program, operand: Operand, tape: bool) -> u32 {
    let (kind, number) = match operand {
        Operand::Constant(c) => (0, c),
        Operand::Variable(v) => (1, v),
        Operand::Result(i) => {
            let instruction = &program.instructions[usize::from(i)];
            (2 + u32::from(instruction.has_constant), if tape { i } else { instruction.slot })
        }
    };
    kind << 16 | u32::from(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Device, assert_traps, test_gpu};
    use crate::formula::expression::Expression;

    #[test]
    fn gpu_operators_without_an_arm_trap() {
        assert_traps("ops::expression::gpu::tests::gpu_operators_without_an_arm_trap", || {
            let Some(Device::Gpu(gpu)) = test_gpu() else { unreachable!("asked for before") };
            let rows = super::super::selftest::table(50, 1, |x, y, _| x + y);
            let program = Program::new(&Expression::parse("x * y", &["x", "y"])?);
            let mut request = Request::to_score(gpu, &rows, &[program], Loss::Mae)?;
            request.words[HEAD] |= 0xff;
            launch(&[request]).map(drop)
        });
    }
}
