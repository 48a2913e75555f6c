//! Results that stream back while the device goes on working and the host stores them.
//!
//! There are three chunks of device memory and as many of pinned host memory: while a kernel fills one, a copy in a
//! stream of its own empties another, and the host moves the third to its destination. (The mapped file of a dataset
//! cannot be pinned itself, and copies from a device into pageable memory do not overlap with anything.)

use std::collections::VecDeque;
use std::sync::Arc;

use bytemuck::Pod;
use cudarc::driver::{CudaEvent, CudaStream, DriverError, PinnedHostSlice};
use rayon::prelude::*;

use super::cuda::{Buffer, Gpu};
use crate::error::Result;

/// Number of chunks in flight.
pub const CHUNKS: usize = 3;

/// For each of `jobs`, in order: `launch` enqueues work that fills a buffer of `len` elements and returns how many it
/// fills; `take` gets those, up to two jobs later.
///
/// # Errors
/// Those of `launch`; too little memory on the device or the host.
pub fn stream<T: Pod, J>(
    gpu: Gpu,
    len: usize,
    jobs: impl IntoIterator<Item = J>,
    mut launch: impl FnMut(&J, &mut Buffer<T>) -> Result<usize>,
    mut take: impl FnMut(&J, &[T]),
) -> Result<()> {
    let copies = gpu.inner.context.new_stream();
    let copies = copies.map_err(|e| gpu.failed("make a stream for copies", e))?;
    let mut ring = Ring { gpu, copies, chunks: Vec::new() };
    let mut under_way: VecDeque<(usize, usize, J)> = VecDeque::new();
    for (number, job) in jobs.into_iter().enumerate() {
        let at = number % CHUNKS;
        if ring.chunks.len() == at {
            ring.add(len)?;
        } else if let Some((at, used, job)) = under_way.pop_front() {
            take(&job, ring.wait_for(at, used)?);
        }
        let used = launch(&job, &mut ring.chunks[at].buffer)?;
        ring.send(at, used)?;
        under_way.push_back((at, used, job));
    }
    for (at, used, job) in under_way {
        take(&job, ring.wait_for(at, used)?);
    }
    Ok(())
}

/// Bytes of a chunk of [`download`]: enough to keep the bus busy, but few, since pinning memory takes time.
const CHUNK: usize = 2 << 20;
/// Bytes that a thread copies at a time.
const PAGES: usize = 64 << 10;

/// Like [`Buffer::download`], for large arrays that are not pinned, such as mapped files; all threads take part.
///
/// # Errors
/// Too little memory on the device or of the host.
///
/// # Panics
/// If more values are asked for than there are: a programming error.
pub fn download<T: Pod + Send + Sync>(gpu: Gpu, from: &Buffer<T>, to: &mut [T]) -> Result<()> {
    download_in_parts(gpu, from, to, CHUNK / size_of::<T>())
}

/// The same, `len` elements at a time.
pub(super) fn download_in_parts<T: Pod + Send + Sync>(
    gpu: Gpu,
    from: &Buffer<T>,
    to: &mut [T],
    len: usize,
) -> Result<()> {
    if to.is_empty() {
        return gpu.synchronize();
    }
    let count = to.len();
    let launch = |&first: &usize, chunk: &mut Buffer<T>| {
        let used = len.min(count - first);
        chunk.copy_part(from, first, used)?;
        Ok(used)
    };
    let take = |&first: &usize, chunk: &[T]| {
        let each = PAGES / size_of::<T>();
        let to = to[first..][..chunk.len()].par_chunks_mut(each);
        to.zip(chunk.par_chunks(each)).for_each(|(to, from)| to.copy_from_slice(from));
    };
    stream(gpu, len.min(count), (0..count).step_by(len), launch, take)
}

struct Ring<T> {
    gpu: Gpu,
    copies: Arc<CudaStream>,
    chunks: Vec<Chunk<T>>,
}

struct Chunk<T> {
    buffer: Buffer<T>,
    pinned: PinnedHostSlice<u8>,
    /// The last copy into `pinned`.
    copied: Option<CudaEvent>,
}

impl<T: Pod> Ring<T> {
    fn add(&mut self, len: usize) -> Result<()> {
        let buffer = self.gpu.buffer(len)?;
        let bytes = (len * size_of::<T>()).max(1);
        // Not write-combined, which the host reads very slowly.
        // SAFETY: only bytes that a copy has written are read.
        let pinned = unsafe { self.gpu.inner.context.alloc_pinned_with_flags(bytes, 0) };
        let action = format!("pin {} MiB of the host's memory", bytes.div_ceil(1 << 20));
        let pinned = pinned.map_err(|e| self.gpu.failed(&action, e))?;
        self.chunks.push(Chunk { buffer, pinned, copied: None });
        Ok(())
    }

    /// Enqueues a copy of the first `used` elements, after what was launched.
    fn send(&mut self, at: usize, used: usize) -> Result<()> {
        let Chunk { buffer, pinned, copied } = &mut self.chunks[at];
        assert!(used <= buffer.len(), "{used} of {} elements", buffer.len());
        let bytes = used * size_of::<T>();
        let mut enqueue = || -> Result<(), DriverError> {
            if bytes > 0 {
                self.copies.wait(&self.gpu.inner.stream.record_event(None)?)?;
                let target = &mut pinned.as_mut_slice()?[..bytes];
                self.copies.memcpy_dtoh(&buffer.memory.slice.slice(..bytes), target)?;
            }
            *copied = Some(self.copies.record_event(None)?);
            Ok(())
        };
        enqueue().map_err(|e| self.gpu.failed("copy from the device", e))
    }

    /// The elements sent last.
    fn wait_for(&self, at: usize, used: usize) -> Result<&[T]> {
        let Chunk { pinned, copied, .. } = &self.chunks[at];
        let wait = || {
            if let Some(copied) = copied {
                copied.synchronize()?;
            }
            pinned.as_slice()
        };
        let bytes = wait().map_err(|e| self.gpu.failed("copy from the device", e))?;
        Ok(bytemuck::cast_slice(&bytes[..used * size_of::<T>()]))
    }
}

/// Waits for copies in flight, which use the chunks.
impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        let context = &self.gpu.inner.context;
        context.record_err(self.copies.synchronize());
    }
}
