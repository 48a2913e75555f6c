//! Products of bf16 by tiles: a unit multiplies 16 rows of 16 words (32 values) by 16 words of 16 columns, and adds the
//! results to 16 × 16 sums. Two by two tiles of results share each tile of the operands.

use std::ops::Range;

use super::kernel::{COLUMNS, Kernel, LANES};
use super::product::{Outer, Product, TILE, WORDS_PER_PASS, depth, finish};

/// Rows of a block of results: two tiles.
pub(crate) const SIDE: usize = 2 * TILE;

/// What multiplies tiles. A block of results has M × N tiles, M tiles of rows and N of columns; its rows in memory are
/// [`COLUMNS`] apart.
///
/// Every function may be called only where the unit may be used; pointers must be valid for the rows of the unit.
pub(super) trait Unit {
    /// A unit for blocks of this many rows, at most [`SIDE`].
    unsafe fn new(rows: usize) -> Self;
    /// Sets the sums to 0.
    unsafe fn clear<const M: usize, const N: usize>(&mut self);
    /// Reads the sums.
    unsafe fn load<const M: usize, const N: usize>(&mut self, c: *const f32);
    /// Adds the products of 16 words, `a[m, k] · b[k, n]`, of rows that are `a_row` and `b_row` words apart.
    unsafe fn step<const M: usize, const N: usize>(
        &mut self,
        a: (*const f32, usize),
        b: (*const f32, usize),
    );
    /// Writes the sums.
    unsafe fn store<const M: usize, const N: usize>(&self, c: *mut f32);
}

/// Calls a function with the numbers of tiles as its const arguments.
macro_rules! with_tiles {
    ($rows:expr, $vectors:expr, $function:ident::<$($type:ty),*>($($argument:expr),*)) => {
        match ($rows > TILE, $vectors > 1) {
            (false, false) => $function::<$($type,)* 1, 1>($($argument),*),
            (false, true) => $function::<$($type,)* 1, 2>($($argument),*),
            (true, false) => $function::<$($type,)* 2, 1>($($argument),*),
            (true, true) => $function::<$($type,)* 2, 2>($($argument),*),
        }
    };
}

/// A block of results on its way through memory.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Block([[f32; COLUMNS]; SIDE]);

/// Results of a product that vectors have still to finish.
#[derive(Clone, Copy)]
struct Pending {
    row: usize,
    rows: usize,
    column: usize,
    vectors: usize,
    from: *const f32,
}

impl Pending {
    /// Finishes some rows of the block.
    #[inline(always)]
    unsafe fn finish<K: Kernel>(&self, p: &Product, rows: Range<usize>) {
        for row in rows {
            // SAFETY: as promised by the caller of `product`.
            unsafe {
                let from = self.from.add(row * COLUMNS);
                finish::<K>(p, self.row + row, self.column, self.vectors, from);
            }
        }
    }
}

/// The product on tiles: [`Kernel::product`].
///
/// # Safety
/// As for [`Kernel`] and [`Unit`].
#[inline(always)]
pub(super) unsafe fn product<K: Kernel, U: Unit>(p: &Product) {
    // Vectors finish one block while the unit works on the next.
    let mut blocks = [Block([[0.0; COLUMNS]; SIDE]); 2];
    let blocks = blocks.each_mut().map(|block| block.0.as_flattened_mut().as_mut_ptr());
    let vectors = p.columns.div_ceil(LANES);
    let whole = p.rows / SIDE * SIDE;
    for (begin, end) in [(0, whole), (whole, p.rows)] {
        if begin == end {
            continue;
        }
        let rows = (end - begin).min(SIDE);
        let mut pending = Pending { row: 0, rows: 0, column: 0, vectors: 0, from: blocks[0] };
        // SAFETY: as the caller promises.
        unsafe {
            let mut unit = U::new(rows);
            for first in (0..vectors).step_by(2) {
                let vectors = (vectors - first).min(2);
                for row in (begin..end).step_by(SIDE) {
                    let column = first * LANES;
                    let block = if pending.from == blocks[0] { blocks[1] } else { blocks[0] };
                    let next = Pending { row, rows, column, vectors, from: block };
                    with_tiles!(rows, vectors, multiply::<K, U>(p, &mut unit, &next, &pending));
                    pending = next;
                }
            }
            pending.finish::<K>(p, 0..pending.rows);
        }
    }
}

/// Multiplies one block, `next`, and finishes the one before.
#[inline(always)]
unsafe fn multiply<K: Kernel, U: Unit, const M: usize, const N: usize>(
    p: &Product,
    unit: &mut U,
    next: &Pending,
    before: &Pending,
) {
    let depth = depth(p.terms, K::PER_WORD);
    // Rows that are finished with each step.
    let share = before.rows.div_ceil(depth / TILE);
    // SAFETY: as promised by the caller of `product`.
    unsafe {
        let (a, b) = (p.a.add(next.row * p.a_row), p.b.add(next.column * depth));
        unit.clear::<M, N>();
        for (index, word) in (0..depth).step_by(TILE).enumerate() {
            unit.step::<M, N>((a.add(word), p.a_row), (b.add(word * COLUMNS), COLUMNS));
            let first = before.rows.min(index * share);
            before.finish::<K>(p, first..before.rows.min(first + share));
        }
        unit.store::<M, N>(next.from.cast_mut());
    }
}

/// The outer product on tiles: [`Kernel::outer`].
///
/// # Safety
/// As for [`Kernel`] and [`Unit`].
#[inline(always)]
pub(super) unsafe fn outer<K: Kernel, U: Unit>(p: &Outer) {
    /// Words of a row of the transposed `a`: an odd number of tiles.
    const ROW: usize = WORDS_PER_PASS + TILE;
    let mut turned = Lines([[0.0; TILE]; SIDE * ROW / TILE]);
    let mut tail = Lines([[0.0; TILE]; TILE * COLUMNS / TILE]);
    let turned = turned.0.as_flattened_mut().as_mut_ptr();
    let tail = tail.0.as_flattened_mut().as_mut_ptr();
    let vectors = p.inputs.div_ceil(LANES);
    for start in (0..p.words).step_by(WORDS_PER_PASS) {
        let words = (p.words - start).min(WORDS_PER_PASS);
        let add = p.add || start > 0;
        for output in (0..p.outputs).step_by(SIDE) {
            let rows = (p.outputs - output).min(SIDE);
            // SAFETY: as the caller promises.
            unsafe {
                turn::<K>(p, start, words, output, rows, (turned, ROW));
                let mut unit = U::new(rows);
                for first in (0..vectors).step_by(2) {
                    let b = p.b.add(start * p.b_row + first * LANES);
                    let c = p.c.add(first * LANES * p.outputs + output * COLUMNS);
                    let n = (vectors - first).min(2);
                    let whole = words / TILE * TILE;
                    if whole < words {
                        copy::<K>((b.add(whole * p.b_row), p.b_row), words - whole, n, tail);
                    }
                    let (a, b) = ((turned.cast_const(), ROW), (b, p.b_row));
                    with_tiles!(rows, n, block::<U>(&mut unit, a, b, words, tail, c, add));
                }
            }
        }
    }
}

/// f32 on boundaries of 64 bytes.
#[repr(align(64))]
struct Lines<const N: usize>([[f32; TILE]; N]);

/// One block of an outer product; what is left of the words after whole tiles is in `tail`.
#[inline(always)]
unsafe fn block<U: Unit, const M: usize, const N: usize>(
    unit: &mut U,
    (a, a_row): (*const f32, usize),
    (b, b_row): (*const f32, usize),
    words: usize,
    tail: *const f32,
    c: *mut f32,
    add: bool,
) {
    let whole = words / TILE * TILE;
    // SAFETY: as promised by the caller of `outer`.
    unsafe {
        if add {
            unit.load::<M, N>(c);
        } else {
            unit.clear::<M, N>();
        }
        for word in (0..whole).step_by(TILE) {
            unit.step::<M, N>((a.add(word), a_row), (b.add(word * b_row), b_row));
        }
        if whole < words {
            unit.step::<M, N>((a.add(whole), a_row), (tail, COLUMNS));
        }
        unit.store::<M, N>(c);
    }
}

/// Transposes the rows `output..output + rows` of `a`, with zeros after the last word up to a whole tile.
#[inline(always)]
unsafe fn turn<K: Kernel>(
    p: &Outer,
    start: usize,
    words: usize,
    output: usize,
    rows: usize,
    (to, to_row): (*mut f32, usize),
) {
    let mut square = Lines([[0.0; TILE]; TILE]);
    let square = square.0.as_flattened_mut().as_mut_ptr();
    for word in (0..words).step_by(TILE) {
        for row in (0..rows).step_by(TILE) {
            let count = (words - word).min(TILE);
            // SAFETY: as promised by the caller of `outer`; rows of operands are whole vectors.
            unsafe {
                let from = p.a.add((start + word) * p.a_row + output + row);
                let to = to.add(row * to_row + word);
                if count == TILE {
                    K::transpose(from, p.a_row, to, to_row);
                    continue;
                }
                for k in 0..TILE {
                    let value = if k < count { K::load(from.add(k * p.a_row)) } else { K::zero() };
                    K::store(square.add(k * TILE), value);
                }
                K::transpose(square, TILE, to, to_row);
            }
        }
    }
}

/// Copies fewer rows of `b` than a tile has, followed by zeros.
#[inline(always)]
unsafe fn copy<K: Kernel>(
    (b, b_row): (*const f32, usize),
    rows: usize,
    vectors: usize,
    to: *mut f32,
) {
    for k in 0..TILE {
        for n in 0..vectors {
            // SAFETY: as promised by the caller of `outer`.
            unsafe {
                let value =
                    if k < rows { K::load(b.add(k * b_row + n * LANES)) } else { K::zero() };
                K::store(to.add(k * COLUMNS + n * LANES), value);
            }
        }
    }
}
