//! Matrix products on rows of activations, and the packing of weights for them.
//!
//! Activations are row-major operands, `[rows, stride]` words; weights are packed as panels
//! `[columns / 32][words of the summed index][32]`, so that the inner loop reads them in order.

use super::kernel::{Block, COLUMNS, Inner, Kernel, LANES, ROWS, block};

/// Words of a row of f32 activations of this width: whole vectors, and an odd number of them, since rows a power of two
/// apart would fall on the same cache lines.
pub(crate) fn wide_stride(width: usize) -> usize {
    (width.div_ceil(LANES) | 1) * LANES
}

/// Words of a row of operands of this width.
pub(crate) fn stride(width: usize, per_word: usize) -> usize {
    (width.next_multiple_of(LANES).div_ceil(LANES * per_word) | 1) * LANES
}

/// Words of the panels of a matrix with this many columns (of results) and terms (of the sums).
pub(crate) fn panel_words(columns: usize, terms: usize, per_word: usize) -> usize {
    columns.next_multiple_of(COLUMNS) * terms.div_ceil(per_word)
}

/// What happens to a result.
#[derive(Clone, Copy)]
pub(crate) enum Out {
    /// The result plus the addend, as f32.
    Linear { to: *mut f32, row: usize },
    /// The same with negative values set to 0, as operand.
    Relu { to: *mut f32, row: usize },
    /// Zero where `mask`, a row of operands, is not positive; as operand.
    Masked { mask: *const f32, mask_row: usize, to: *mut f32, row: usize },
    /// The same, as f32.
    MaskedLinear { mask: *const f32, mask_row: usize, to: *mut f32, row: usize },
}

/// `rows` × `columns` results: Σ over the words of a row of `a` times a column of the panels `b`.
pub(crate) struct Product {
    pub rows: usize,
    pub columns: usize,
    /// Words of the summed index.
    pub words: usize,
    pub a: *const f32,
    pub a_row: usize,
    pub b: *const f32,
    /// f32, added before the ReLU: a bias (`addend_row` = 0), or one addend row for each row.
    pub addend: *const f32,
    pub addend_row: usize,
    pub out: Out,
}

/// Computes the product; results are written in whole vectors.
///
/// # Safety
/// As for [`Kernel`].
#[inline(always)]
pub(crate) unsafe fn product<K: Kernel>(p: &Product) {
    let mut c = Block([[0.0; COLUMNS]; ROWS]);
    let vectors = p.columns.div_ceil(LANES);
    for first in (0..vectors).step_by(2) {
        let n = (vectors - first).min(2);
        let column = first * LANES;
        for row in (0..p.rows).step_by(ROWS) {
            let m = (p.rows - row).min(ROWS);
            // SAFETY: as the caller promises; columns rounded up to whole vectors are inside every row.
            unsafe {
                let inner = Inner {
                    a: p.a.add(row * p.a_row),
                    a_row: p.a_row,
                    a_step: 1,
                    b: p.b.add(column * p.words),
                    b_step: COLUMNS,
                    words: p.words,
                    accumulate: false,
                };
                block::<K>(m, n, &inner, &mut c);
                for m in 0..m {
                    for n in 0..n {
                        let value = K::load(c.0[m].as_ptr().add(n * LANES));
                        finish::<K>(p, row + m, column + n * LANES, value);
                    }
                }
            }
        }
    }
}

/// Writes sixteen results.
#[inline(always)]
unsafe fn finish<K: Kernel>(p: &Product, m: usize, column: usize, value: K::V) {
    // SAFETY: as promised by the caller of `product`.
    unsafe {
        let addend = || K::load(p.addend.add(m * p.addend_row + column));
        match p.out {
            Out::Linear { to, row } => {
                K::store(to.add(m * row + column), K::add(value, addend()));
            }
            Out::Relu { to, row } => {
                K::put(to.add(m * row), column, K::relu(K::add(value, addend())));
            }
            Out::Masked { mask, mask_row, to, row } => {
                let mask = K::get(mask.add(m * mask_row), column);
                K::put(to.add(m * row), column, K::keep(value, mask));
            }
            Out::MaskedLinear { mask, mask_row, to, row } => {
                let mask = K::get(mask.add(m * mask_row), column);
                K::store(to.add(m * row + column), K::keep(value, mask));
            }
        }
    }
}

/// A weight matrix `[outputs, inputs]`, row-major, rows `row` apart.
#[derive(Clone, Copy)]
pub(crate) struct Weights {
    pub at: *const f32,
    pub row: usize,
    pub outputs: usize,
    pub inputs: usize,
}

impl Weights {
    /// Up to 16 weights of a row, zeros outside the matrix.
    #[inline(always)]
    unsafe fn read<K: Kernel>(&self, output: usize, input: usize) -> K::V {
        // SAFETY: the matrix is valid for its elements, and others are not touched.
        unsafe {
            if output >= self.outputs || input >= self.inputs {
                return K::zero();
            }
            let from = self.at.add(output * self.row + input);
            if input + LANES <= self.inputs {
                return K::load(from);
            }
            let mut tail = [0.0f32; LANES];
            std::ptr::copy_nonoverlapping(from, tail.as_mut_ptr(), self.inputs - input);
            K::load(tail.as_ptr())
        }
    }
}

/// Packs panel number `panel` of the forward product: columns are outputs, the sum is over inputs.
///
/// # Safety
/// As for [`Kernel`]; `to` has room for the panel.
#[inline(always)]
pub(crate) unsafe fn pack_forward<K: Kernel>(weights: &Weights, panel: usize, to: *mut f32) {
    let words = weights.inputs.div_ceil(K::PER_WORD);
    let mut rows = [[0.0f32; LANES]; LANES];
    let mut turned = [[0.0f32; LANES]; LANES];
    for word in (0..words).step_by(LANES) {
        for half in [0, LANES] {
            for (i, row) in rows.iter_mut().enumerate() {
                let output = panel * COLUMNS + half + i;
                for part in 0..K::PER_WORD {
                    // SAFETY: as the caller promises; PER_WORD × 16 values fill sixteen words.
                    unsafe {
                        let input = word * K::PER_WORD + part * LANES;
                        let values = weights.read::<K>(output, input);
                        K::put(row.as_mut_ptr(), part * LANES, values);
                    }
                }
            }
            // SAFETY: as the caller promises.
            unsafe {
                K::transpose(rows[0].as_ptr(), LANES, turned[0].as_mut_ptr(), LANES);
                for (k, row) in turned.iter().enumerate().take(words - word) {
                    let to = to.add((word + k) * COLUMNS + half);
                    std::ptr::copy_nonoverlapping(row.as_ptr(), to, LANES);
                }
            }
        }
    }
}

/// Packs panel number `panel` of the backward product: columns are inputs, the sum is over outputs.
///
/// # Safety
/// As for [`Kernel`]; `to` has room for the panel.
#[inline(always)]
pub(crate) unsafe fn pack_backward<K: Kernel>(weights: &Weights, panel: usize, to: *mut f32) {
    let words = weights.outputs.div_ceil(K::PER_WORD);
    // A row of operands for each output of a word, then paired along the outputs.
    let mut rows = [0.0f32; 2 * LANES];
    for word in 0..words {
        for half in [0, LANES] {
            // SAFETY: as the caller promises; a panel's row is 32 words.
            unsafe {
                let to = to.add(word * COLUMNS + half);
                let input = panel * COLUMNS + half;
                if K::PER_WORD == 1 {
                    K::store(to, weights.read::<K>(word, input));
                    continue;
                }
                K::put(rows.as_mut_ptr(), 0, weights.read::<K>(2 * word, input));
                K::put(rows.as_mut_ptr().add(LANES), 0, weights.read::<K>(2 * word + 1, input));
                K::pair_rows(rows.as_mut_ptr(), 2, LANES);
                std::ptr::copy_nonoverlapping(rows.as_ptr(), to, LANES);
            }
        }
    }
}
