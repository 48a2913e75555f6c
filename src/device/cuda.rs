//! CUDA devices: buffers, launches, recorded graphs. With `driver.rs` and `ring.rs` the only file that speaks
//! to the driver.
//!
//! The driver's library is loaded at run time. All work of a device goes through one stream, so
//! that a kernel sees what was enqueued before it; calls return before the work is done, and
//! [`Buffer::download`] and [`Gpu::synchronize`] wait for it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::CString;
use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::sync::{Arc, Mutex, OnceLock};

use bytemuck::{Pod, Zeroable};
use cudarc::driver::sys::{
    CUdevice_attribute, CUfunction, CUfunction_attribute, CUgraphInstantiate_flags,
    CUmemPool_attribute, CUmemoryPool, CUmodule, CUresult, CUstreamCaptureMode, CUuuid,
    cuDeviceGetUuid_v2,
};
use cudarc::driver::{
    CudaContext, CudaEvent, CudaGraph, CudaSlice, CudaStream, DevicePtr, DevicePtrMut, DriverError,
    result,
};

use super::driver::{self, text};
use crate::error::{Error, Result};

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// Dynamic shared memory of a block that needs no permission.
const SHARED_BY_DEFAULT: usize = 48 << 10;

/// A CUDA device that is open.
#[derive(Clone, Copy)]
pub struct Gpu {
    pub(super) inner: &'static Inner,
}

/// The same device.
impl PartialEq for Gpu {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.inner, other.inner)
    }
}

pub(super) struct Inner {
    ordinal: usize,
    pub(super) context: Arc<CudaContext>,
    pub(super) stream: Arc<CudaStream>,
    /// Where buffers come from, on devices that have such pools.
    pool: Option<Handle<CUmemoryPool>>,
    properties: OnceLock<Properties>,
    loaded: Mutex<Loaded>,
}

/// Modules that are loaded, for good, and kernels with the shared memory that each was allowed.
#[derive(Default)]
struct Loaded {
    modules: HashMap<&'static str, Handle<CUmodule>>,
    functions: HashMap<Kernel, (Handle<CUfunction>, usize)>,
}

/// What the driver calls a thing by, in any thread.
#[derive(Clone, Copy)]
pub(super) struct Handle<T>(pub(super) T);

// SAFETY: a handle is a number until the driver takes it, which locks what it needs to.
unsafe impl<T> Send for Handle<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Handle<T> {}

/// A kernel: the stem of its file in `kernels/`, and its name there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kernel {
    /// `adam` for `kernels/adam.cu`.
    pub module: &'static str,
    /// The `extern "C"` function.
    pub name: &'static str,
}

/// How many blocks of how many threads, and the dynamic shared memory of each block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Blocks along x, y and z.
    pub blocks: [u32; 3],
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of dynamic shared memory.
    pub shared: usize,
}

impl Grid {
    /// `blocks` blocks along x and no shared memory.
    pub fn new(blocks: usize, threads: u32) -> Self {
        Grid { blocks: [u32::try_from(blocks).unwrap_or(u32::MAX), 1, 1], threads, shared: 0 }
    }

    /// One thread for each of `items`, in blocks of `threads`.
    pub fn cover(items: usize, threads: u32) -> Self {
        Self::new(items.div_ceil(threads as usize), threads)
    }
}

/// The argument struct of a kernel, of [`super::args`]: the very bytes of its C++ twin.
pub trait Args: Pod {}

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

// SAFETY: the address 0 is 'not given'.
unsafe impl<T> Zeroable for Pointer<T> {}
// SAFETY: an address is a number, transparently.
unsafe impl<T: 'static> Pod for Pointer<T> {}

// SAFETY: an address is a number until a kernel takes it, for which the caller of the launch answers.
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

/// Elements in the memory of a device, freed with the value, or left on the shelf that it came from.
pub struct Buffer<T> {
    gpu: Gpu,
    /// At least as long as the elements.
    pub(super) memory: ManuallyDrop<Memory>,
    home: Option<(Places, usize)>,
    len: usize,
    of: PhantomData<T>,
}

/// Memory of a device.
pub(super) struct Memory {
    gpu: Gpu,
    pub(super) slice: CudaSlice<u8>,
}

/// Memory that stays with its owner from one run of some work to the next: [`Gpu::reuse`].
#[derive(Clone, Default)]
pub(crate) struct Shelf {
    places: Places,
}

type Places = Arc<Mutex<Vec<Option<Memory>>>>;

thread_local! {
    /// The stream on which this thread records. It is not the device's: other threads go on there.
    static RECORDED: RefCell<Option<Arc<CudaStream>>> = const { RefCell::new(None) };
    /// From which shelf this thread takes buffers, and how many it has asked for.
    static SHELF: RefCell<Option<(Places, usize)>> = const { RefCell::new(None) };
}

/// Launches that were recorded, to be replayed at once.
pub struct Recording {
    gpu: Gpu,
    graph: CudaGraph,
}

/// A moment in the work of a device.
pub struct Moment {
    gpu: Gpu,
    event: CudaEvent,
}

/// What a device is.
#[derive(Clone, Debug, PartialEq)]
pub struct Properties {
    /// `NVIDIA H200`
    pub name: String,
    /// Compute capability.
    pub capability: (i32, i32),
    /// Bytes of memory.
    pub memory: usize,
    /// Streaming multiprocessors.
    pub multiprocessors: usize,
    /// Dynamic shared memory that a block may ask for.
    pub shared: usize,
    /// Bytes of the cache that all multiprocessors share.
    pub cache: usize,
}

/// Devices that the driver offers, at least one.
///
/// # Errors
/// There is none, and why.
pub fn count() -> Result<usize> {
    driver::devices().map_err(Error::device)
}

/// Whether this build holds compiled kernels.
pub fn compiled() -> bool {
    COMPILED
}

impl Gpu {
    /// Opens device `ordinal`, once in a process.
    ///
    /// # Errors
    /// No driver, no such device, no kernels for it in this build.
    pub fn open(ordinal: usize) -> Result<Self> {
        Self::try_open(ordinal).map_err(|why| {
            Error::device(format!("cuda:{ordinal} cannot be used: {why}; use --device cpu"))
        })
    }

    /// The same, with nothing but the reason where there is an error.
    pub(super) fn try_open(ordinal: usize) -> Result<Self, String> {
        static OPEN: OnceLock<Mutex<HashMap<usize, &'static Inner>>> = OnceLock::new();
        let mut open = lock(OPEN.get_or_init(Default::default));
        if let Some(inner) = open.get(&ordinal) {
            return Ok(Gpu { inner });
        }
        driver::suits(ordinal, driver::devices()?)?;
        let context = CudaContext::new(ordinal).map_err(|e| driver::closed(ordinal, e))?;
        let context_stream = || -> Result<Arc<CudaStream>, DriverError> {
            // SAFETY: every buffer is used on the one stream of its device.
            unsafe { context.disable_event_tracking() };
            context.new_stream()
        };
        let stream = context_stream().map_err(text)?;
        let pool = pool(&context).map_err(text)?;
        let (properties, loaded) = (OnceLock::new(), Mutex::default());
        let inner = Inner { ordinal, context, stream, pool, properties, loaded };
        let gpu = Gpu { inner: Box::leak(Box::new(inner)) };
        if let Some(&(module, _)) = MODULES.first() {
            gpu.module(&mut lock(&gpu.inner.loaded), module).map_err(driver::not_loaded)?;
        }
        open.insert(ordinal, gpu.inner);
        Ok(gpu)
    }

    /// What the device is, asked once.
    pub fn properties(self) -> Result<Properties> {
        use CUdevice_attribute as A;
        if let Some(known) = self.inner.properties.get() {
            return Ok(known.clone());
        }
        let read = || -> Result<Properties, DriverError> {
            let context = &self.inner.context;
            let count = |attribute| context.attribute(attribute).map(|n| n as usize);
            Ok(Properties {
                name: context.name()?,
                capability: context.compute_capability()?,
                memory: context.total_mem()?,
                multiprocessors: count(A::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
                shared: count(A::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
                cache: count(A::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?,
            })
        };
        let read = read().map_err(|e| self.failed("describe the device", e))?;
        Ok(self.inner.properties.get_or_init(|| read).clone())
    }

    /// True for the stand-in of `scripts/emulated`, which computes and is no GPU.
    pub fn is_emulated(self) -> bool {
        self.identifier().is_ok_and(|bytes| bytes == *b"lawsmithemulated")
    }

    /// The name by which other libraries of the driver know the device: `GPU-0f3a…`.
    pub(super) fn uuid(self) -> Result<String> {
        let hex = self.identifier()?.map(|byte| format!("{byte:02x}")).concat();
        let part = |range: std::ops::Range<usize>| &hex[range];
        let [a, b, c, d, e] = [0..8, 8..12, 12..16, 16..20, 20..32].map(part);
        Ok(format!("GPU-{a}-{b}-{c}-{d}-{e}"))
    }

    fn identifier(self) -> Result<[u8; 16]> {
        let (mut uuid, device) = (CUuuid { bytes: [0; 16] }, self.inner.context.cu_device());
        // SAFETY: the driver writes 16 bytes. (The first version of the function knows no MIG slices.)
        let told = unsafe { cuDeviceGetUuid_v2(&mut uuid, device) }.result();
        told.map_err(|e| self.failed("tell its identifier", e))?;
        Ok(uuid.bytes.map(|byte| byte as u8))
    }

    /// Bytes of memory that are free: what nobody has, and what buffers had that are gone.
    pub fn free_memory(self) -> Result<usize> {
        use CUmemPool_attribute as A;
        let read = || -> Result<usize, DriverError> {
            let (free, _) = self.inner.context.mem_get_info()?;
            let Some(Handle(pool)) = self.inner.pool else { return Ok(free) };
            let pooled = |attribute| {
                let mut bytes = 0u64;
                // SAFETY: both attributes that are asked for are of this type.
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

    /// What `call` gives. Where memory is too short for it, what the pool holds and no buffer uses goes back to the
    /// driver, which has no other use for it while it is the pool's, and `call` is tried once more.
    fn with_memory<R>(
        self,
        mut call: impl FnMut() -> Result<R, DriverError>,
    ) -> Result<R, DriverError> {
        let first = call();
        let short = matches!(first, Err(DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY)));
        let Some(Handle(pool)) = self.inner.pool.filter(|_| short) else { return first };
        // What was freed is unused when the work before it is done.
        self.inner.stream.synchronize()?;
        // SAFETY: the pool is the device's.
        unsafe { result::mem_pool::trim_to(pool, 0)? };
        call()
    }

    /// `len` elements, not initialised.
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

    /// Runs `work`, in which this thread's first, second, … buffer lies where that of the last run with this shelf lay,
    /// if it has room there; nothing is allocated in work that repeats.
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

    /// Enqueues a kernel.
    ///
    /// # Safety
    /// `args` is the struct that the kernel takes, its pointers reach as far as the kernel goes with
    /// this grid, and what the kernel writes is borrowed mutably by the caller.
    pub unsafe fn launch<A: Args>(self, kernel: Kernel, grid: Grid, args: &A) -> Result<()> {
        let Handle(function) = self.function(kernel, grid.shared)?;
        #[cfg(test)]
        asked::count(asked::LAUNCHES);
        let [x, y, z] = grid.blocks;
        let failed = |e| self.failed(&format!("launch {} with {grid:?}", kernel.name), e);
        let mut args = *args;
        let mut pointers = [(&raw mut args).cast::<std::ffi::c_void>()];
        let recorded = RECORDED.with_borrow(|stream| stream.as_ref().map(|s| s.cu_stream()));
        // A kernel with more stack than any before makes the driver allocate.
        // SAFETY: the caller's promise; the driver copies the argument struct before it returns.
        let mut launch = || unsafe {
            let (blocks, threads, shared) = ((x, y, z), (grid.threads, 1, 1), grid.shared as u32);
            let stream = recorded.unwrap_or(self.raw_stream());
            result::launch_kernel(function, blocks, threads, shared, stream, &mut pointers)
        };
        let launched = if recorded.is_some() { launch() } else { self.with_memory(launch) };
        launched.map_err(failed)
    }

    /// Waits until everything that was enqueued is done.
    pub fn synchronize(self) -> Result<()> {
        self.inner.stream.synchronize().map_err(|e| self.failed("run its kernels", e))
    }

    /// Records what `enqueue` launches instead of running it. It may not allocate, free, upload or
    /// download; other threads may.
    pub fn record(self, enqueue: impl FnOnce() -> Result<()>) -> Result<Recording> {
        let failed = |e| self.failed("record launches", e);
        let stream = self.inner.context.new_stream().map_err(failed)?;
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        stream.begin_capture(mode).map_err(failed)?;
        RECORDED.set(Some(stream.clone()));
        let enqueued = enqueue();
        RECORDED.set(None);
        let graph = stream.end_capture(CUgraphInstantiate_flags(0));
        enqueued?;
        let graph = graph.map_err(failed)?;
        let graph = graph.ok_or_else(|| Error::device("there was nothing to record"))?;
        // SAFETY: the graph is instantiated.
        let upload = || unsafe { result::graph::upload(graph.cu_graph_exec(), self.raw_stream()) };
        let uploaded = self.with_memory(upload);
        uploaded.map_err(failed)?;
        Ok(Recording { gpu: self, graph })
    }

    /// Marks the present end of the work.
    pub fn moment(self) -> Result<Moment> {
        let flags = cudarc::driver::sys::CUevent_flags::CU_EVENT_DEFAULT;
        let event = self.inner.stream.record_event(Some(flags));
        event.map(|event| Moment { gpu: self, event }).map_err(|e| self.failed("record a time", e))
    }

    /// The module of this name, loaded at the first call.
    fn module(self, loaded: &mut Loaded, name: &'static str) -> Result<CUmodule, DriverError> {
        if let Some(&Handle(module)) = loaded.modules.get(name) {
            return Ok(module);
        }
        #[cfg(test)]
        asked::count(asked::LOADS);
        let image = MODULES.iter().find(|(module, _)| *module == name);
        let image = image.map_or(&b"\0"[..], |(_, image)| image).as_ptr().cast();
        // SAFETY: a fatbin of nvcc's, or an empty text, which is no module.
        let module = self.with_memory(|| unsafe { result::module::load_data(image) })?;
        loaded.modules.insert(name, Handle(module));
        Ok(module)
    }

    /// The kernel, allowed as much shared memory, for this thread to launch. What it was once allowed it keeps:
    /// another thread may be about to launch it with more.
    pub(super) fn function(self, kernel: Kernel, shared: usize) -> Result<Handle<CUfunction>> {
        let failed = |e| self.failed(&format!("load the kernel {}", kernel.name), e);
        self.inner.context.bind_to_thread().map_err(failed)?;
        let mut loaded = lock(&self.inner.loaded);
        let module = self.module(&mut loaded, kernel.module).map_err(failed)?;
        let (function, allowed) = match loaded.functions.entry(kernel) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let name = CString::new(kernel.name).expect("a name in C++");
                // SAFETY: modules stay loaded.
                let function = unsafe { result::module::get_function(module, name) };
                place.insert((Handle(function.map_err(failed)?), SHARED_BY_DEFAULT))
            }
        };
        if shared > *allowed {
            let limit = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function is that of a module that stays loaded.
            let set = unsafe {
                result::function::set_function_attribute(function.0, limit, shared as i32)
            };
            set.map_err(failed)?;
            *allowed = shared;
        }
        Ok(*function)
    }

    fn raw_stream(self) -> cudarc::driver::sys::CUstream {
        self.inner.stream.cu_stream()
    }

    pub(super) fn failed(self, action: &str, error: DriverError) -> Error {
        Error::device(format!("cuda:{} could not {action}: {}", self.inner.ordinal, text(error)))
    }
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cuda:{}", self.inner.ordinal)
    }
}

impl<T: Pod> Buffer<T> {
    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True without elements.
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

    /// Enqueues a copy of `other`, which has as many elements.
    ///
    /// # Panics
    /// If it has not: a programming error.
    pub fn copy_from(&mut self, other: &Buffer<T>) -> Result<()> {
        assert_eq!(self.len, other.len, "elements");
        self.copy_part(other, 0, self.len)
    }

    /// Enqueues a copy of `len` elements of `other`, from `first` on, to the first ones.
    ///
    /// # Panics
    /// If one of both has not so many: a programming error.
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

    /// Waits for the work and copies the first elements back.
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

    /// All elements, copied back.
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
        // SAFETY: nobody uses it behind this.
        let memory = unsafe { ManuallyDrop::take(&mut self.memory) };
        if let Some((places, place)) = &self.home {
            lock(places)[*place] = Some(memory);
        }
    }
}

/// Frees in any thread, also in one that has not used the device yet.
impl Drop for Memory {
    fn drop(&mut self) {
        let context = &self.gpu.inner.context;
        context.record_err(context.bind_to_thread());
    }
}

impl Recording {
    /// Enqueues what was recorded.
    ///
    /// # Safety
    /// The buffers that were recorded still exist and are borrowed as for the launches.
    pub unsafe fn replay(&self) -> Result<()> {
        let failed = |e| self.gpu.failed("replay launches", e);
        self.gpu.inner.context.bind_to_thread().map_err(failed)?;
        // SAFETY: the caller's promise.
        let launched =
            unsafe { result::graph::launch(self.graph.cu_graph_exec(), self.gpu.raw_stream()) };
        launched.map_err(failed)
    }
}

impl Moment {
    /// Seconds of the device from `self` to `later`, which is waited for.
    pub fn seconds_to(&self, later: &Moment) -> Result<f64> {
        let seconds = || {
            later.event.synchronize()?;
            self.event.elapsed_ms(&later.event).map(|ms| f64::from(ms) * 1e-3)
        };
        seconds().map_err(|e| self.gpu.failed("measure time", e))
    }
}

/// A lock that a panicked thread held protects maps that are whole at any time.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The pool that buffers of a device come from, told to keep what they leave: by default it gives everything
/// back to the driver whenever somebody waits, and each step would map its gigabytes again.
fn pool(context: &CudaContext) -> Result<Option<Handle<CUmemoryPool>>, DriverError> {
    if !context.has_async_alloc() {
        return Ok(None);
    }
    let threshold = CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    let mut everything = u64::MAX;
    // SAFETY: the device is the driver's, the threshold of this type.
    unsafe {
        let pool = result::device::get_mem_pool(context.cu_device())?;
        result::mem_pool::set_attribute(pool, threshold, (&raw mut everything).cast())?;
        Ok(Some(Handle(pool)))
    }
}

/// What a thread has asked of drivers, for tests.
#[cfg(test)]
pub(crate) mod asked {
    use std::cell::Cell;

    pub(crate) const LOADS: usize = 0;
    pub(crate) const ALLOCATIONS: usize = 1;
    pub(crate) const LAUNCHES: usize = 2;

    thread_local! {
        static CALLS: Cell<[usize; 3]> = const { Cell::new([0; 3]) };
    }

    pub(super) fn count(which: usize) {
        let mut all = CALLS.get();
        all[which] += 1;
        CALLS.set(all);
    }

    /// Modules loaded, buffers allocated, kernels launched.
    pub(crate) fn calls() -> [usize; 3] {
        CALLS.get()
    }
}

/// What a thread has copied between its buffers and the host, for tests.
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
