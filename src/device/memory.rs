//! Memory of a CUDA device: buffers, the pool they come from, addresses for kernels.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytemuck::{Pod, Zeroable};
use cudarc::driver::sys::{CUmemPool_attribute, CUmemoryPool, CUresult};
use cudarc::driver::{CudaContext, CudaSlice, DevicePtr, DevicePtrMut, DriverError, result};

#[cfg(test)]
use super::cuda::asked;
use super::cuda::{Gpu, Handle};
use crate::error::{Error, Result};

/// An address in a device's memory, for an argument struct.
#[repr(transparent)]
pub struct Pointer<T> {
    address: u64,
    of: PhantomData<*const T>,
}

impl<T> Clone for Pointer<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Pointer<T> {}

// SAFETY: address 0 means 'not given'.
unsafe impl<T> Zeroable for Pointer<T> {}
// SAFETY: an address is a number, transparently.
unsafe impl<T: 'static> Pod for Pointer<T> {}

// SAFETY: an address is just a number until passed to a kernel, for which the caller of the launch is responsible.
unsafe impl<T> Send for Pointer<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Pointer<T> {}

impl<T> Pointer<T> {
    /// What a kernel recognises as 'not given'.
    pub const NULL: Self = Pointer { address: 0, of: PhantomData };

    /// The address of element `index`.
    ///
    /// # Safety
    /// The buffer has that element.
    pub unsafe fn add(self, index: usize) -> Self {
        Pointer { address: self.address + (index * size_of::<T>()) as u64, of: PhantomData }
    }

    /// The same address, of another type, for kernels that take one of several.
    pub fn cast<U>(self) -> Pointer<U> {
        Pointer { address: self.address, of: PhantomData }
    }
}

/// Elements in device memory; freed when dropped, or returned to the shelf they came from.
pub struct Buffer<T> {
    gpu: Gpu,
    /// At least as long as the elements need.
    pub(super) memory: ManuallyDrop<Memory>,
    home: Option<(Places, usize)>,
    len: usize,
    of: PhantomData<T>,
}

/// A piece of device memory.
pub(super) struct Memory {
    gpu: Gpu,
    pub(super) slice: CudaSlice<u8>,
}

/// Memory kept by its owner from one run of some work to the next: see [`Gpu::reuse`].
#[derive(Clone, Default)]
pub(crate) struct Shelf {
    places: Places,
}

type Places = Arc<Mutex<Vec<Option<Memory>>>>;

thread_local! {
    /// The shelf from which this thread takes buffers, and how many it has taken.
    static SHELF: RefCell<Option<(Places, usize)>> = const { RefCell::new(None) };
}

impl Gpu {
    /// Bytes of free memory, including what dropped buffers left in the pool.
    pub fn free_memory(self) -> Result<usize> {
        use CUmemPool_attribute as A;
        let read = || -> Result<usize, DriverError> {
            let (free, _) = self.inner.context.mem_get_info()?;
            let Some(Handle(pool)) = self.inner.pool else { return Ok(free) };
            let pooled = |attribute| {
                let mut bytes = 0u64;
                // SAFETY: both attributes queried have this type.
                unsafe {
                    result::mem_pool::get_attribute(pool, attribute, (&raw mut bytes).cast())?
                };
                Ok(bytes as usize)
            };
            // In this order: what other threads free in between is not counted twice.
            let held = pooled(A::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)?;
            Ok(free + held.saturating_sub(pooled(A::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)?))
        };
        read().map_err(|e| self.failed("ask for the free memory", e))
    }

    /// Runs `call`. If memory is too short for it, unused memory of the pool is returned to the driver, which cannot
    /// use it otherwise, and `call` is tried once more.
    pub(super) fn with_memory<R>(
        self,
        mut call: impl FnMut() -> Result<R, DriverError>,
    ) -> Result<R, DriverError> {
        let first = call();
        let short = matches!(first, Err(DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY)));
        let Some(Handle(pool)) = self.inner.pool.filter(|_| short) else { return first };
        // Freed memory is unused once the work before it is done.
        self.inner.stream.synchronize()?;
        // SAFETY: the pool is the device's.
        unsafe { result::mem_pool::trim_to(pool, 0)? };
        call()
    }

    /// `len` elements, uninitialised.
    ///
    /// # Errors
    /// Too little memory: the error says how much is needed and how much there is.
    pub fn buffer<T: Pod>(self, len: usize) -> Result<Buffer<T>> {
        let bytes = (len * size_of::<T>()).max(1);
        let home = SHELF.with_borrow_mut(|shelf| {
            let (places, asked) = shelf.as_mut()?;
            *asked += 1;
            Some((places.clone(), *asked - 1))
        });
        let kept = home.as_ref().and_then(|(places, place)| {
            let mut places = lock(places);
            if places.len() <= *place {
                places.resize_with(place + 1, || None);
            }
            places[*place].take()
        });
        let kept = kept.filter(|memory| memory.gpu == self && memory.slice.len() >= bytes);
        let memory = match kept {
            Some(memory) => memory,
            None => self.allocate(bytes)?,
        };
        Ok(Buffer { gpu: self, memory: ManuallyDrop::new(memory), home, len, of: PhantomData })
    }

    fn allocate(self, bytes: usize) -> Result<Memory> {
        #[cfg(test)]
        asked::count(asked::ALLOCATIONS);
        // SAFETY: a kernel or an upload writes before anything is read; tests poison fresh memory.
        let slice = self.with_memory(|| unsafe { self.inner.stream.alloc::<u8>(bytes) });
        let slice = slice.map_err(|e| {
            if e.0 != CUresult::CUDA_ERROR_OUT_OF_MEMORY {
                return self.failed("allocate memory", e);
            }
            let mib = |bytes: usize| bytes.div_ceil(1 << 20);
            let free = self.free_memory().map_or(0, |free| free >> 20);
            let ordinal = self.inner.ordinal;
            Error::device(format!(
                "cuda:{ordinal} has too little memory: {} MiB more are needed, {free} MiB are free",
                mib(bytes)
            ))
        })?;
        Ok(Memory { gpu: self, slice })
    }

    /// Runs `work`, where this thread's first, second, … buffer takes the memory of its counterpart in the last run
    /// with this shelf, if that is large enough; repeated work allocates nothing.
    pub(crate) fn reuse<R>(shelf: &Shelf, work: impl FnOnce() -> R) -> R {
        let outer = SHELF.replace(Some((shelf.places.clone(), 0)));
        let result = work();
        SHELF.set(outer);
        result
    }

    /// `len` elements whose bytes are 0.
    pub fn zeros<T: Pod>(self, len: usize) -> Result<Buffer<T>> {
        let mut buffer = self.buffer(len)?;
        buffer.clear()?;
        Ok(buffer)
    }

    /// A copy of `values`.
    pub fn upload<T: Pod>(self, values: &[T]) -> Result<Buffer<T>> {
        let mut buffer = self.buffer(values.len())?;
        buffer.upload(values)?;
        Ok(buffer)
    }
}

impl<T: Pod> Buffer<T> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The address for a kernel that reads the first `len` elements.
    ///
    /// # Panics
    /// If there are fewer: a programming error.
    pub fn read(&self, len: usize) -> Pointer<T> {
        assert!(len <= self.len, "a kernel reads {len} of {} elements", self.len);
        let (address, _) = self.memory.slice.device_ptr(&self.gpu.inner.stream);
        Pointer { address, of: PhantomData }
    }

    /// The address for a kernel that writes (and may read) the first `len` elements.
    ///
    /// # Panics
    /// If there are fewer: a programming error.
    pub fn write(&mut self, len: usize) -> Pointer<T> {
        assert!(len <= self.len, "a kernel writes {len} of {} elements", self.len);
        let (address, _) = self.memory.slice.device_ptr_mut(&self.gpu.inner.stream);
        Pointer { address, of: PhantomData }
    }

    /// Overwrites the first elements.
    ///
    /// # Panics
    /// If there are more values than elements: a programming error.
    pub fn upload(&mut self, values: &[T]) -> Result<()> {
        assert!(values.len() <= self.len, "{} values for {} elements", values.len(), self.len);
        let bytes: &[u8] = bytemuck::cast_slice(values);
        if bytes.is_empty() {
            return Ok(());
        }
        #[cfg(test)]
        copied::count(0, bytes.len());
        let mut target = self.memory.slice.slice_mut(..bytes.len());
        let copied = self.gpu.inner.stream.memcpy_htod(bytes, &mut target);
        copied.map_err(|e| self.gpu.failed("copy to the device", e))
    }

    /// Enqueues a copy of `other`, which must have the same length.
    ///
    /// # Panics
    /// If it does not: a programming error.
    pub fn copy_from(&mut self, other: &Buffer<T>) -> Result<()> {
        assert_eq!(self.len, other.len, "elements");
        self.copy_part(other, 0, self.len)
    }

    /// Enqueues a copy of `len` elements of `other`, from `first` on, to the start of this one.
    ///
    /// # Panics
    /// If either is too short: a programming error.
    pub fn copy_part(&mut self, other: &Buffer<T>, first: usize, len: usize) -> Result<()> {
        assert!(first + len <= other.len && len <= self.len, "{len} elements from {first} on");
        let bytes = |elements: usize| elements * size_of::<T>();
        if bytes(len) == 0 {
            return Ok(());
        }
        let from = other.memory.slice.slice(bytes(first)..bytes(first + len));
        let mut to = self.memory.slice.slice_mut(..bytes(len));
        let copied = self.gpu.inner.stream.memcpy_dtod(&from, &mut to);
        copied.map_err(|e| self.gpu.failed("copy its memory", e))
    }

    /// Waits for the work and copies the first elements to the host.
    ///
    /// # Panics
    /// If more values are asked for than there are: a programming error.
    pub fn download(&self, values: &mut [T]) -> Result<()> {
        assert!(values.len() <= self.len, "{} values of {} elements", values.len(), self.len);
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(values);
        if bytes.is_empty() {
            return self.gpu.synchronize();
        }
        #[cfg(test)]
        copied::count(1, bytes.len());
        let stream = &self.gpu.inner.stream;
        let copied = stream.memcpy_dtoh(&self.memory.slice.slice(..bytes.len()), bytes);
        copied.map_err(|e| self.gpu.failed("copy from the device", e))?;
        self.gpu.synchronize()
    }

    /// All elements, copied to the host.
    pub fn to_vec(&self) -> Result<Vec<T>> {
        let mut values = vec![T::zeroed(); self.len];
        self.download(&mut values)?;
        Ok(values)
    }

    /// Sets every byte to 0.
    pub fn clear(&mut self) -> Result<()> {
        let bytes = self.len * size_of::<T>();
        if bytes == 0 {
            return Ok(());
        }
        let cleared = self.gpu.inner.stream.memset_zeros(&mut self.memory.slice.slice_mut(..bytes));
        cleared.map_err(|e| self.gpu.failed("clear memory", e))
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        // SAFETY: nobody uses it afterwards.
        let memory = unsafe { ManuallyDrop::take(&mut self.memory) };
        if let Some((places, place)) = &self.home {
            lock(places)[*place] = Some(memory);
        }
    }
}

/// Frees in any thread, even one that has not used the device yet.
impl Drop for Memory {
    fn drop(&mut self) {
        let context = &self.gpu.inner.context;
        context.record_err(context.bind_to_thread());
    }
}

/// Locks; a panic in another thread does not matter, since the maps are whole at any time.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The pool of a device's buffers, told to keep freed memory: by default it returns everything to the driver at each
/// synchronisation, and each step would map its gigabytes again.
pub(super) fn pool(context: &CudaContext) -> Result<Option<Handle<CUmemoryPool>>, DriverError> {
    if !context.has_async_alloc() {
        return Ok(None);
    }
    let threshold = CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    let mut everything = u64::MAX;
    // SAFETY: the device exists, and the threshold has this type.
    unsafe {
        let pool = result::device::get_mem_pool(context.cu_device())?;
        result::mem_pool::set_attribute(pool, threshold, (&raw mut everything).cast())?;
        Ok(Some(Handle(pool)))
    }
}

/// Bytes that a thread has copied between its buffers and the host, for tests.
#[cfg(test)]
pub(crate) mod copied {
    use std::cell::Cell;

    thread_local! {
        static BYTES: Cell<[usize; 2]> = const { Cell::new([0; 2]) };
    }

    pub(super) fn count(direction: usize, bytes: usize) {
        let mut all = BYTES.get();
        all[direction] += bytes;
        BYTES.set(all);
    }

    /// Bytes to devices and back.
    pub(crate) fn bytes() -> [usize; 2] {
        BYTES.get()
    }
}
