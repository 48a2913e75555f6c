//! One program on one block of rows at a time, giving values row by row rather than a loss, and their derivatives with
//! respect to its constants. For operations that make their columns as they go.

use super::cpu::{self, Block};
use super::normal::{self, BLOCK};
use super::{LINE, Line, Program};
use crate::device::{Cpu, Simd};
use crate::simd::f32s::Lanes;

/// Rows of a block.
pub(crate) const ROWS: usize = BLOCK * LINE;

/// A program and the memory to evaluate it in.
pub(crate) struct Evaluator<'a> {
    cpu: Cpu,
    program: &'a Program,
    constants: Vec<Line>,
    tape: Vec<Line>,
    adjoints: Vec<Line>,
    /// `[constants, BLOCK]`
    jacobian: Vec<Line>,
    /// `[BLOCK]`
    values: Vec<Line>,
}

/// Columns of a block, `[variable, ROWS]`.
pub(crate) struct Columns(Vec<Line>);

impl Columns {
    /// All zero.
    pub(crate) fn new(variables: usize) -> Self {
        Columns(vec![Line([0.0; LINE]); variables * BLOCK])
    }

    /// The rows of a variable.
    pub(crate) fn of(&mut self, variable: usize) -> &mut [f32] {
        &mut bytemuck::cast_slice_mut(&mut self.0)[variable * ROWS..][..ROWS]
    }
}

impl<'a> Evaluator<'a> {
    /// For a program whose variables are columns of the blocks.
    pub(crate) fn new(cpu: Cpu, program: &'a Program) -> Self {
        let room = |columns: usize| vec![Line([0.0; LINE]); columns * BLOCK];
        Evaluator {
            cpu,
            program,
            constants: cpu::splats(program.constants.iter().copied()),
            tape: room(program.instructions.len()),
            adjoints: room(program.instructions.len()),
            jacobian: room(program.constants.len()),
            values: room(1),
        }
    }

    /// Evaluates all rows of a block, which must all be filled; false if an intermediate value is not finite.
    ///
    /// # Panics
    /// If the program has a variable that is not a column: a programming error.
    pub(crate) fn evaluate(&mut self, columns: &Columns, gradient: bool) -> bool {
        let used = self.program.variables().max().map_or(0, |v| usize::from(v) + 1);
        assert!(used * BLOCK <= columns.0.len(), "{used} variables");
        match self.cpu.simd().vectors() {
            // SAFETY: the level is always one that this CPU has; f32 needs none.
            #[cfg(target_arch = "x86_64")]
            Simd::Avx2 => unsafe { self.avx2(columns, gradient) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Simd::Avx512 => unsafe { self.avx512(columns, gradient) },
            // SAFETY: as above.
            _ => unsafe { self.lanes::<f32>(columns, gradient) },
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2(&mut self, columns: &Columns, gradient: bool) -> bool {
        // SAFETY: the features are enabled here.
        unsafe { self.lanes::<crate::simd::f32s::F32x8>(columns, gradient) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    unsafe fn avx512(&mut self, columns: &Columns, gradient: bool) -> bool {
        // SAFETY: the features are enabled here.
        unsafe { self.lanes::<crate::simd::f32s::F32x16>(columns, gradient) }
    }

    #[inline(always)]
    unsafe fn lanes<L: Lanes>(&mut self, columns: &Columns, gradient: bool) -> bool {
        let block = Block {
            columns: columns.0.as_ptr(),
            stride: BLOCK,
            lines: BLOCK,
            constants: self.constants.as_ptr(),
            results: self.tape.as_mut_ptr(),
            room: BLOCK,
            tape: true,
        };
        // SAFETY: `evaluate` checked that the columns exist, and `new` made a place for each instruction and each
        // constant.
        unsafe {
            let flag = cpu::forward::<L>(self.program, &block);
            let values = block.source::<L>(self.program, self.program.root);
            let out: *mut f32 = self.values.as_mut_ptr().cast();
            let mut total = flag;
            for i in 0..BLOCK * (LINE / L::N) {
                let value: L = values.load(i);
                total = value.fma(L::splat(0.0), total);
                value.store(out.add(i * L::N));
            }
            if !total.sum().is_finite() {
                return false;
            }
            if gradient {
                let jacobian: *mut f32 = self.jacobian.as_mut_ptr().cast();
                let adjoints = self.adjoints.as_mut_ptr();
                normal::reverse::<L>(self.program, &block, adjoints, jacobian, 1.0);
            }
        }
        true
    }

    /// `[ROWS]`: the values of the last block.
    pub(crate) fn values(&self) -> &[f32] {
        bytemuck::cast_slice(&self.values)
    }

    /// `[ROWS]`: the derivatives with respect to a constant on the last block.
    pub(crate) fn derivatives(&self, constant: usize) -> &[f32] {
        &bytemuck::cast_slice(&self.jacobian)[constant * ROWS..][..ROWS]
    }
}
