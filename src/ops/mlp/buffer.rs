//! Memory of kernels: aligned to cache lines, grown but never shrunk, shared by threads that each write only their own
//! piece of work.

/// Sixteen f32 on a boundary of 64 bytes.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[expect(dead_code, reason = "read through pointers")] [f32; 16]);

/// A growing buffer of f32, aligned to 64 bytes.
#[derive(Default)]
pub(crate) struct Buffer(Vec<Line>);

impl Buffer {
    /// The buffer with room for at least `words`. Its contents do not matter to any kernel; it starts as NaN, so that
    /// reading a word before it is written shows.
    pub fn words(&mut self, words: usize) -> Shared<f32> {
        let lines = words.div_ceil(16);
        if self.0.len() < lines {
            self.0 = Vec::with_capacity(lines);
            if lines * size_of::<Line>() >= HUGE {
                in_huge_pages(self.0.as_mut_ptr().cast(), lines * size_of::<Line>());
            }
            self.0.resize(lines, Line([f32::NAN; 16]));
        }
        Shared(self.0.as_mut_ptr().cast())
    }
}

/// Bytes of a huge page.
const HUGE: usize = 2 << 20;

/// Asks for pages of 2 MiB, before the memory is touched. Products go through some ten MB again and again; in pages of
/// 4 KiB these are more than the CPU knows the places of (`notes/edge.md`).
fn in_huge_pages(at: *mut u8, bytes: usize) {
    #[cfg(target_os = "linux")]
    {
        const PAGE: usize = 4096;
        let skipped = at.align_offset(PAGE);
        let whole = bytes.saturating_sub(skipped) / PAGE * PAGE;
        // SAFETY: whole pages of an allocation of ours; the advice does not change what is in them.
        unsafe { libc::madvise(at.add(skipped.min(bytes)).cast(), whole, libc::MADV_HUGEPAGE) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (at, bytes);
}

/// A pointer shared by threads.
#[derive(Clone, Copy)]
pub(crate) struct Shared<T>(pub *mut T);

// SAFETY: every use takes ranges that are disjoint from those of other threads.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as for `Send`.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// # Safety
    /// `offset` is inside the buffer.
    #[inline(always)]
    pub unsafe fn at(self, offset: usize) -> *mut T {
        // SAFETY: as the caller promises.
        unsafe { self.0.add(offset) }
    }
}
