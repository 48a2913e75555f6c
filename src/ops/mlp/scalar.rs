//! The kernels in plain Rust; bf16 on an emulated tile unit, so that packing and tails of tiles are tested on every CPU.

use half::bf16;

use super::kernel::{COLUMNS, Inner, Kernel, LANES, Task, array_operations, f32_operands};
use super::product::{self, Outer, Product, TILE};
use super::tiles::{self, Unit};

/// f32 operands.
pub(crate) struct F32;

/// bf16 operands, two to a word.
pub(crate) struct Bf16;

/// The block's loop; `$product` is the product of two words.
macro_rules! block {
    ($inner:ident, $c:ident, $m:ident, $n:ident, $product:expr) => {
        for m in 0..$m {
            // SAFETY: as the caller promises.
            unsafe {
                let c = std::slice::from_raw_parts_mut($c.add(m * COLUMNS), $n * LANES);
                if !$inner.accumulate {
                    c.fill(0.0);
                }
                for k in 0..$inner.words {
                    let a = *$inner.a.add(m * $inner.a_row + k * $inner.a_step);
                    let b = $inner.b.add(k * $inner.b_step);
                    for (n, c) in c.iter_mut().enumerate() {
                        *c += $product(a, *b.add(n));
                    }
                }
            }
        }
    };
}

impl Kernel for F32 {
    array_operations!();
    f32_operands!();

    unsafe fn block<const M: usize, const N: usize>(inner: &Inner, c: *mut f32) {
        block!(inner, c, M, N, |a: f32, b: f32| a * b);
    }
    unsafe fn run<T: Task>(task: T) -> T::Output {
        // SAFETY: as the caller promises.
        unsafe { task.run::<Self>() }
    }
    unsafe fn product(product: &Product) {
        // SAFETY: as the caller promises.
        unsafe { product::product::<Self>(product) }
    }
    unsafe fn outer(outer: &Outer) {
        // SAFETY: as the caller promises.
        unsafe { product::outer::<Self>(outer) }
    }
}

/// The two values of a word.
#[inline(always)]
fn pair(word: f32) -> [f32; 2] {
    let bits = word.to_bits();
    [f32::from_bits(bits << 16), f32::from_bits(bits & 0xffff_0000)]
}

impl Kernel for Bf16 {
    array_operations!();
    type Wide = F32;
    const PER_WORD: usize = 2;
    const ONES: f32 = f32::from_bits(0x3f80_3f80);

    unsafe fn block<const M: usize, const N: usize>(inner: &Inner, c: *mut f32) {
        block!(inner, c, M, N, |a: f32, b: f32| {
            let (a, b) = (pair(a), pair(b));
            a[0] * b[0] + a[1] * b[1]
        });
    }
    unsafe fn get(row: *const f32, column: usize) -> Self::V {
        // SAFETY: as the caller promises.
        let values = unsafe { row.cast::<[bf16; LANES]>().byte_add(2 * column).read_unaligned() };
        values.map(f32::from)
    }
    unsafe fn put(row: *mut f32, column: usize, v: Self::V) {
        // SAFETY: as the caller promises.
        unsafe {
            let to = row.cast::<[bf16; LANES]>().byte_add(2 * column);
            to.write_unaligned(v.map(bf16::from_f32));
        }
    }
    unsafe fn pair_rows(first: *mut f32, rows: usize, row: usize) {
        let mut pairs = vec![bf16::ZERO; 4 * row];
        for pair in 0..rows.div_ceil(2) {
            // SAFETY: as the caller promises: both rows of a pair are there.
            let words =
                unsafe { std::slice::from_raw_parts_mut(first.add(2 * pair * row), 2 * row) };
            let values: &mut [bf16] = bytemuck::cast_slice_mut(words);
            for column in 0..2 * row {
                pairs[2 * column] = values[column];
                let odd = 2 * pair + 1 < rows;
                pairs[2 * column + 1] = if odd { values[2 * row + column] } else { bf16::ZERO };
            }
            values.copy_from_slice(&pairs);
        }
    }
    unsafe fn run<T: Task>(task: T) -> T::Output {
        // SAFETY: as the caller promises.
        unsafe { task.run::<Self>() }
    }
    unsafe fn product(product: &Product) {
        // SAFETY: as the caller promises.
        unsafe { tiles::product::<Self, Emulated>(product) }
    }
    unsafe fn outer(outer: &Outer) {
        // SAFETY: as the caller promises.
        unsafe { tiles::outer::<Self, Emulated>(outer) }
    }
}

/// The tile unit as Intel describes it (Software Developer's Manual, TDPBF16PS).
struct Emulated {
    rows: [usize; 2],
    /// Results of the two tiles of rows and two of columns.
    c: [[[[f32; LANES]; TILE]; 2]; 2],
}

impl Unit for Emulated {
    unsafe fn new(rows: usize) -> Self {
        let rows = [rows.min(TILE), rows.saturating_sub(TILE)];
        Emulated { rows, c: [[[[f32::NAN; LANES]; TILE]; 2]; 2] }
    }

    unsafe fn clear<const M: usize, const N: usize>(&mut self) {
        self.c.as_flattened_mut().as_flattened_mut().fill([0.0; LANES]);
    }

    unsafe fn load<const M: usize, const N: usize>(&mut self, c: *const f32) {
        for m in 0..M {
            for n in 0..N {
                for row in 0..self.rows[m] {
                    let place = (m * TILE + row) * COLUMNS + n * LANES;
                    // SAFETY: as the caller promises.
                    self.c[m][n][row] = unsafe { c.add(place).cast::<[f32; LANES]>().read() };
                }
            }
        }
    }

    unsafe fn step<const M: usize, const N: usize>(
        &mut self,
        (a, a_row): (*const f32, usize),
        (b, b_row): (*const f32, usize),
    ) {
        for m in 0..M {
            for n in 0..N {
                for row in 0..self.rows[m] {
                    let mut sums = [[0.0f32; 2]; LANES];
                    for k in 0..TILE {
                        // SAFETY: as the caller promises.
                        let (a, b) = unsafe {
                            let b = b.add(k * b_row + n * LANES);
                            (*a.add((m * TILE + row) * a_row + k), b.cast::<[f32; LANES]>().read())
                        };
                        let a = pair(a);
                        for (sum, b) in sums.iter_mut().zip(b.map(pair)) {
                            *sum = [sum[0] + a[0] * b[0], sum[1] + a[1] * b[1]];
                        }
                    }
                    let c = self.c[m][n][row].iter_mut();
                    c.zip(sums).for_each(|(c, sum)| *c += sum[0] + sum[1]);
                }
            }
        }
    }

    unsafe fn store<const M: usize, const N: usize>(&self, c: *mut f32) {
        for m in 0..M {
            for n in 0..N {
                for row in 0..self.rows[m] {
                    let place = (m * TILE + row) * COLUMNS + n * LANES;
                    // SAFETY: as the caller promises.
                    unsafe { c.add(place).cast::<[f32; LANES]>().write(self.c[m][n][row]) }
                }
            }
        }
    }
}
