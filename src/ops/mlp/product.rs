//! Matrix products on rows of activations, and the packing of weights for them.
//!
//! Activations are row-major operands, `[rows, stride]` words; weights are packed as panels
//! `[columns / 32][depth][32]`, where depth is the number of words that are summed, so that the inner loop reads them
//! in order. At bf16 both are padded with zeros to a depth of whole tiles.

use super::kernel::{Block, COLUMNS, Inner, Kernel, LANES, ROWS, block, padded};

/// Words that a tile adds up.
pub(crate) const TILE: usize = 16;

/// Words of a row of f32 activations of this width: whole vectors, and an odd number of them, since rows a power of two
/// apart would fall on the same cache lines.
pub(crate) fn wide_stride(width: usize) -> usize {
    (width.div_ceil(LANES) | 1) * LANES
}

/// Words of a row of operands of this width.
pub(crate) fn stride(width: usize, per_word: usize) -> usize {
    (width.next_multiple_of(LANES).div_ceil(LANES * per_word) | 1) * LANES
}

/// Words of a panel's column for sums of this many terms.
pub(crate) fn depth(terms: usize, per_word: usize) -> usize {
    terms.div_ceil(per_word).next_multiple_of(if per_word == 1 { 1 } else { TILE })
}

/// Words of the panels of a matrix with this many columns (of results) and terms (of the sums).
pub(crate) fn panel_words(columns: usize, terms: usize, per_word: usize) -> usize {
    columns.next_multiple_of(COLUMNS) * depth(terms, per_word)
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
    /// Terms of the sum, one or two to a word.
    pub terms: usize,
    pub a: *const f32,
    pub a_row: usize,
    pub b: *const f32,
    /// f32, added before the ReLU: a bias (`addend_row` = 0), or one addend row for each row.
    pub addend: *const f32,
    pub addend_row: usize,
    pub out: Out,
}

/// The product on vectors: [`Kernel::product`].
///
/// # Safety
/// As for [`Kernel`].
#[inline(always)]
pub(crate) unsafe fn product<K: Kernel>(p: &Product) {
    let mut c = Block::new();
    let vectors = p.columns.div_ceil(LANES);
    let depth = depth(p.terms, K::PER_WORD);
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
                    b: p.b.add(column * depth),
                    b_step: COLUMNS,
                    words: p.terms.div_ceil(K::PER_WORD),
                    accumulate: false,
                };
                block::<K>(m, n, &inner, c.at());
                for m in 0..m {
                    finish::<K>(p, row + m, column, n, c.at().add(m * COLUMNS));
                }
            }
        }
    }
}

/// Writes one or two vectors of results of row `m`, and the zeros that an operand is padded with.
#[inline(always)]
pub(super) unsafe fn finish<K: Kernel>(
    p: &Product,
    m: usize,
    column: usize,
    vectors: usize,
    from: *const f32,
) {
    // SAFETY: as promised by the caller of `product`.
    unsafe {
        for n in 0..vectors {
            let column = column + n * LANES;
            let value = K::load(from.add(n * LANES));
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
        let (Out::Relu { to, row } | Out::Masked { to, row, .. }) = p.out else { return };
        pad::<K>(to.add(m * row), column + vectors * LANES);
    }
}

/// Writes the zeros with which a row of operands of `width` values, rounded up to whole vectors, is padded.
#[inline(always)]
pub(crate) unsafe fn pad<K: Kernel>(row: *mut f32, width: usize) {
    for column in (width.next_multiple_of(LANES)..padded::<K>(width)).step_by(LANES) {
        // SAFETY: as promised by the caller; rows have room for it (see `stride`).
        unsafe { K::put(row, column, K::zero()) }
    }
}

/// Rounds a row of f32, whole vectors for `width` values, into a row of operands.
///
/// # Safety
/// As for [`Kernel`].
#[inline(always)]
pub(crate) unsafe fn narrow<K: Kernel>(from: *const f32, to: *mut f32, width: usize) {
    // SAFETY: as the caller promises.
    unsafe {
        for column in (0..width).step_by(LANES) {
            K::put(to, column, K::load(from.add(column)));
        }
        pad::<K>(to, width);
    }
}

/// `outputs` × `inputs` results: Σ over words of `a` (rows of outputs) times `b` (rows of inputs).
pub(crate) struct Outer {
    pub outputs: usize,
    pub inputs: usize,
    /// Rows of `a` and `b`; at bf16 pairs of rows, see [`Kernel::pair_rows`].
    pub words: usize,
    pub a: *const f32,
    pub a_row: usize,
    pub b: *const f32,
    pub b_row: usize,
    /// The results, `[inputs / 32][outputs][32]`, at a 64-byte boundary.
    pub c: *mut f32,
    /// Add to the contents of `c`.
    pub add: bool,
}

/// Words of a block of rows: with this, 32 columns of an activation stay in the L1 cache while several blocks of
/// outputs read them.
pub(super) const WORDS_PER_PASS: usize = 256;

/// The outer product on vectors: [`Kernel::outer`].
///
/// # Safety
/// As for [`Kernel`].
#[inline(always)]
pub(crate) unsafe fn outer<K: Kernel>(p: &Outer) {
    let vectors = p.inputs.div_ceil(LANES);
    let mut sum = Block::new();
    for start in (0..p.words).step_by(WORDS_PER_PASS) {
        for first in (0..vectors).step_by(2) {
            let n = (vectors - first).min(2);
            for output in (0..p.outputs).step_by(ROWS) {
                let m = (p.outputs - output).min(ROWS);
                // SAFETY: as the caller promises.
                unsafe {
                    let c = p.c.add(first * LANES * p.outputs + output * COLUMNS);
                    let inner = Inner {
                        a: p.a.add(start * p.a_row + output),
                        a_row: 1,
                        a_step: p.a_row,
                        b: p.b.add(start * p.b_row + first * LANES),
                        b_step: p.b_row,
                        words: (p.words - start).min(WORDS_PER_PASS),
                        accumulate: start > 0,
                    };
                    if start > 0 || !p.add {
                        block::<K>(m, n, &inner, c);
                        continue;
                    }
                    // The sum is added as a whole: rounding grows with the length of a chain of sums.
                    block::<K>(m, n, &inner, sum.at());
                    for m in 0..m {
                        for n in 0..n {
                            let place = m * COLUMNS + n * LANES;
                            let (to, from) = (c.add(place), sum.at().add(place));
                            K::store(to, K::add(K::load(to), K::load(from)));
                        }
                    }
                }
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
    let words = depth(weights.inputs, K::PER_WORD);
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
    let words = depth(weights.outputs, K::PER_WORD);
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
