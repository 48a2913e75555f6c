//! bf16 on AMX: products on tiles, everything else on AVX-512.
//!
//! The tile instructions are written in assembly, since their intrinsics are not stable (Intel 64 and IA-32
//! Architectures Software Developer's Manual, volume 1, chapter 18).

use std::arch::asm;
use std::arch::x86_64::*;

use super::avx512::{F32, bf16_operands, products, vector_operations};
use super::kernel::{COLUMNS, Inner, Kernel, LANES, Task};
use super::product::{Outer, Product, TILE};
use super::tiles::{self, Unit};

/// bf16 operands, two to a word.
pub(crate) struct Bf16;

impl Kernel for Bf16 {
    vector_operations!("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma");
    products!("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma", tiles, Amx);
    bf16_operands!();
}

/// Bytes of a row of a tile.
const TILE_BYTES: u16 = 64;
/// Bytes from a row of results to the next.
const ROW_BYTES: usize = 128;

/// Shapes of the eight tile registers, as LDTILECFG reads them.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes_per_row: [u16; 16],
    rows: [u8; 16],
}

/// The tile registers of this thread: 0 and 1 are the results of the first tile of rows, 2 and 3 of the second one; 4
/// and 5 are the tiles of `a`, 6 and 7 those of `b`. They keep their contents from one piece of assembly to the next: no
/// compiled code uses them.
struct Amx;

impl Unit for Amx {
    #[inline(always)]
    unsafe fn new(rows: usize) -> Self {
        let (first, second) = (rows.min(TILE) as u8, rows.saturating_sub(TILE) as u8);
        let mut shapes = Shapes {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            bytes_per_row: [0; 16],
            rows: [0; 16],
        };
        let registers = [first, first, second, second, first, second, TILE as u8, TILE as u8];
        for (register, rows) in registers.into_iter().enumerate().filter(|&(_, rows)| rows > 0) {
            shapes.rows[register] = rows;
            shapes.bytes_per_row[register] = TILE_BYTES;
        }
        // SAFETY: the CPU has AMX and the process may use it (`Simd::Amx`).
        unsafe { asm!("ldtilecfg [{}]", in(reg) &shapes, options(nostack, readonly)) }
        Amx
    }

    #[inline(always)]
    unsafe fn clear<const M: usize, const N: usize>(&mut self) {
        // SAFETY: registers that have a shape.
        unsafe {
            asm!("tilezero tmm0", options(nostack, nomem));
            if N > 1 {
                asm!("tilezero tmm1", options(nostack, nomem));
            }
            if M > 1 {
                asm!("tilezero tmm2", options(nostack, nomem));
            }
            if M > 1 && N > 1 {
                asm!("tilezero tmm3", options(nostack, nomem));
            }
        }
    }

    #[inline(always)]
    unsafe fn load<const M: usize, const N: usize>(&mut self, c: *const f32) {
        // SAFETY: as the caller promises.
        unsafe {
            asm!("tileloadd tmm0, [{} + {}]", in(reg) c, in(reg) ROW_BYTES, options(nostack, readonly));
            if N > 1 {
                asm!("tileloadd tmm1, [{} + {}]", in(reg) c.add(LANES), in(reg) ROW_BYTES, options(nostack, readonly));
            }
            let c = c.byte_add(TILE * ROW_BYTES);
            if M > 1 {
                asm!("tileloadd tmm2, [{} + {}]", in(reg) c, in(reg) ROW_BYTES, options(nostack, readonly));
            }
            if M > 1 && N > 1 {
                asm!("tileloadd tmm3, [{} + {}]", in(reg) c.add(LANES), in(reg) ROW_BYTES, options(nostack, readonly));
            }
        }
    }

    #[inline(always)]
    unsafe fn step<const M: usize, const N: usize>(
        &mut self,
        (a, a_row): (*const f32, usize),
        (b, b_row): (*const f32, usize),
    ) {
        let (a_row, b_row) = (4 * a_row, 4 * b_row);
        // SAFETY: as the caller promises. Loads of one tile are in the shadow of products of others.
        unsafe {
            asm!(
                "tileloadd tmm6, [{b} + {b_row}]",
                "tileloadd tmm4, [{a} + {a_row}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                a = in(reg) a, a_row = in(reg) a_row, b = in(reg) b, b_row = in(reg) b_row,
                options(nostack, readonly)
            );
            if N > 1 {
                asm!(
                    "tileloadd tmm7, [{b} + {b_row}]",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    b = in(reg) b.add(LANES), b_row = in(reg) b_row,
                    options(nostack, readonly)
                );
            }
            if M > 1 {
                asm!(
                    "tileloadd tmm5, [{a} + {a_row}]",
                    "tdpbf16ps tmm2, tmm5, tmm6",
                    a = in(reg) a.byte_add(TILE * a_row), a_row = in(reg) a_row,
                    options(nostack, readonly)
                );
            }
            if M > 1 && N > 1 {
                asm!("tdpbf16ps tmm3, tmm5, tmm7", options(nostack, nomem));
            }
        }
    }

    #[inline(always)]
    unsafe fn store<const M: usize, const N: usize>(&self, c: *mut f32) {
        // SAFETY: as the caller promises.
        unsafe {
            asm!("tilestored [{} + {}], tmm0", in(reg) c, in(reg) ROW_BYTES, options(nostack));
            if N > 1 {
                asm!("tilestored [{} + {}], tmm1", in(reg) c.add(LANES), in(reg) ROW_BYTES, options(nostack));
            }
            let c = c.byte_add(TILE * ROW_BYTES);
            if M > 1 {
                asm!("tilestored [{} + {}], tmm2", in(reg) c, in(reg) ROW_BYTES, options(nostack));
            }
            if M > 1 && N > 1 {
                asm!("tilestored [{} + {}], tmm3", in(reg) c.add(LANES), in(reg) ROW_BYTES, options(nostack));
            }
        }
    }
}

/// Multiplies tiles that are in registers already, `rounds` times four of them; returns the operations done.
///
/// # Safety
/// The CPU has AMX ([`crate::device::Simd::Amx`]).
pub(crate) unsafe fn from_registers(rounds: u64) -> f64 {
    // SAFETY: as the caller promises; zeros of any register do.
    unsafe {
        let mut unit = Amx::new(2 * TILE);
        unit.clear::<2, 2>();
        asm!("tilezero tmm4", "tilezero tmm5", "tilezero tmm6", "tilezero tmm7", options(nostack));
        for _ in 0..rounds {
            asm!(
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                options(nostack)
            );
        }
    }
    (rounds * 4 * (2 * TILE * TILE * 2 * TILE) as u64) as f64
}

impl Drop for Amx {
    /// Tiles that hold nothing need not be saved when the thread is interrupted.
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: as for `new`.
        unsafe { asm!("tilerelease", options(nostack, nomem)) }
    }
}
