//! CUDA devices: their properties, launches, recorded graphs. Only this file, `memory.rs`, `driver.rs` and `ring.rs`
//! call the driver.
//!
//! The driver library is loaded at run time. All work of a device goes through one stream, so a kernel sees what was
//! enqueued before it; calls return before the work is done, and [`Buffer::download`] and [`Gpu::synchronize`] wait for
//! it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::CString;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};

use bytemuck::Pod;
use cudarc::driver::sys::{
    CUdevice_attribute, CUfunction, CUfunction_attribute, CUgraphInstantiate_flags, CUmemoryPool,
    CUmodule, CUstreamCaptureMode, CUuuid, cuDeviceGetUuid_v2,
};
use cudarc::driver::{CudaContext, CudaEvent, CudaGraph, CudaStream, DriverError, result};

use super::driver::{self, text};
pub(crate) use super::memory::Shelf;
#[cfg(test)]
pub(crate) use super::memory::copied;
pub use super::memory::{Buffer, Pointer};
use super::memory::{lock, pool};
use crate::error::{Error, Result};

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// Dynamic shared memory that a block may use without asking.
const SHARED_BY_DEFAULT: usize = 48 << 10;

/// An open CUDA device.
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
    pub(super) ordinal: usize,
    pub(super) context: Arc<CudaContext>,
    pub(super) stream: Arc<CudaStream>,
    /// The memory pool of the buffers, on devices that have pools.
    pub(super) pool: Option<Handle<CUmemoryPool>>,
    properties: OnceLock<Properties>,
    loaded: Mutex<Loaded>,
}

/// Loaded modules (never unloaded), and kernels with the shared memory allowed for each.
#[derive(Default)]
struct Loaded {
    modules: HashMap<&'static str, Handle<CUmodule>>,
    functions: HashMap<Kernel, (Handle<CUfunction>, usize)>,
}

/// A handle of the driver, usable from any thread.
#[derive(Clone, Copy)]
pub(super) struct Handle<T>(pub(super) T);

// SAFETY: a handle is just a number until passed to the driver, which does its own locking.
unsafe impl<T> Send for Handle<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Handle<T> {}

/// A kernel: the stem of its file in `kernels/`, and its name there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kernel {
    /// `adam` for `kernels/adam.cu`.
    pub module: &'static str,
    /// The name of its `extern "C"` function.
    pub name: &'static str,
}

/// Number of blocks, threads in a block, and dynamic shared memory of a block.
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

/// The argument struct of a kernel, from [`super::args`], with the same bytes as its C++ twin.
pub trait Args: Pod {}

thread_local! {
    /// The stream on which this thread records. It is not the device's, which other threads go on using.
    static RECORDED: RefCell<Option<Arc<CudaStream>>> = const { RefCell::new(None) };
}

/// Recorded launches, replayed all at once.
pub struct Recording {
    gpu: Gpu,
    graph: CudaGraph,
}

/// A point in the work of a device.
pub struct Moment {
    gpu: Gpu,
    event: CudaEvent,
}

/// The properties of a device.
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
    /// Dynamic shared memory that a block may request.
    pub shared: usize,
    /// Bytes of the cache shared by all multiprocessors.
    pub cache: usize,
}

/// Number of devices that the driver offers, at least one.
///
/// # Errors
/// There is none; the error says why.
pub fn count() -> Result<usize> {
    driver::devices().map_err(Error::device)
}

/// Whether this build holds compiled kernels.
pub fn compiled() -> bool {
    COMPILED
}

impl Gpu {
    /// Opens device `ordinal`, once per process.
    ///
    /// # Errors
    /// No driver, no such device, no kernels for it in this build.
    pub fn open(ordinal: usize) -> Result<Self> {
        Self::try_open(ordinal).map_err(|why| {
            Error::device(format!("cuda:{ordinal} cannot be used: {why}; use --device cpu"))
        })
    }

    /// The same, but the error is only the reason.
    pub(super) fn try_open(ordinal: usize) -> Result<Self, String> {
        static OPEN: OnceLock<Mutex<HashMap<usize, &'static Inner>>> = OnceLock::new();
        let mut open = lock(OPEN.get_or_init(Default::default));
        if let Some(inner) = open.get(&ordinal) {
            return Ok(Gpu { inner });
        }
        driver::suits(ordinal, driver::devices()?)?;
        let context = CudaContext::new(ordinal).map_err(|e| driver::closed(ordinal, e))?;
        let context_stream = || -> Result<Arc<CudaStream>, DriverError> {
            // SAFETY: every buffer is used on its device's single stream.
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

    /// The properties of the device, queried once.
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

    /// True for the stand-in driver of `scripts/emulated`, which computes on the CPU.
    pub fn is_emulated(self) -> bool {
        self.identifier().is_ok_and(|bytes| bytes == *b"lawsmithemulated")
    }

    /// The name by which other driver libraries know the device: `GPU-0f3a…`.
    pub(super) fn uuid(self) -> Result<String> {
        let hex = self.identifier()?.map(|byte| format!("{byte:02x}")).concat();
        let part = |range: std::ops::Range<usize>| &hex[range];
        let [a, b, c, d, e] = [0..8, 8..12, 12..16, 16..20, 20..32].map(part);
        Ok(format!("GPU-{a}-{b}-{c}-{d}-{e}"))
    }

    fn identifier(self) -> Result<[u8; 16]> {
        let (mut uuid, device) = (CUuuid { bytes: [0; 16] }, self.inner.context.cu_device());
        // SAFETY: the driver writes 16 bytes. (The first version of the function does not know MIG slices.)
        let told = unsafe { cuDeviceGetUuid_v2(&mut uuid, device) }.result();
        told.map_err(|e| self.failed("read its identifier", e))?;
        Ok(uuid.bytes.map(|byte| byte as u8))
    }

    /// Enqueues a kernel.
    ///
    /// # Safety
    /// `args` is the struct that the kernel expects, its pointers reach as far as the kernel accesses with this grid,
    /// and the caller mutably borrows what the kernel writes.
    pub unsafe fn launch<A: Args>(self, kernel: Kernel, grid: Grid, args: &A) -> Result<()> {
        let Handle(function) = self.function(kernel, grid.shared)?;
        #[cfg(test)]
        asked::count(asked::LAUNCHES);
        let [x, y, z] = grid.blocks;
        let failed = |e| self.failed(&format!("launch {} with {grid:?}", kernel.name), e);
        let mut args = *args;
        let mut pointers = [(&raw mut args).cast::<std::ffi::c_void>()];
        let recorded = RECORDED.with_borrow(|stream| stream.as_ref().map(|s| s.cu_stream()));
        // A kernel that needs more stack than any before makes the driver allocate.
        // SAFETY: the caller's promise; the driver copies the argument struct before it returns.
        let mut launch = || unsafe {
            let (blocks, threads, shared) = ((x, y, z), (grid.threads, 1, 1), grid.shared as u32);
            let stream = recorded.unwrap_or(self.raw_stream());
            result::launch_kernel(function, blocks, threads, shared, stream, &mut pointers)
        };
        let launched = if recorded.is_some() { launch() } else { self.with_memory(launch) };
        launched.map_err(failed)
    }

    /// Waits until all enqueued work is done.
    pub fn synchronize(self) -> Result<()> {
        self.inner.stream.synchronize().map_err(|e| self.failed("run its kernels", e))
    }

    /// Records what `enqueue` launches instead of running it. It must not allocate, free, upload or download; other
    /// threads may.
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

    /// Marks the current end of the work.
    pub fn moment(self) -> Result<Moment> {
        let flags = cudarc::driver::sys::CUevent_flags::CU_EVENT_DEFAULT;
        let event = self.inner.stream.record_event(Some(flags));
        event.map(|event| Moment { gpu: self, event }).map_err(|e| self.failed("record a time", e))
    }

    /// The module of this name, loaded on the first call.
    fn module(self, loaded: &mut Loaded, name: &'static str) -> Result<CUmodule, DriverError> {
        if let Some(&Handle(module)) = loaded.modules.get(name) {
            return Ok(module);
        }
        #[cfg(test)]
        asked::count(asked::LOADS);
        let image = MODULES.iter().find(|(module, _)| *module == name);
        let image = image.map_or(&b"\0"[..], |(_, image)| image).as_ptr().cast();
        // SAFETY: a fatbin made by nvcc, or empty text, which is rejected.
        let module = self.with_memory(|| unsafe { result::module::load_data(image) })?;
        loaded.modules.insert(name, Handle(module));
        Ok(module)
    }

    /// The kernel, allowed this much shared memory, for this thread to launch. An earlier allowance is never reduced:
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
            // SAFETY: the function belongs to a module that stays loaded.
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

impl Recording {
    /// Enqueues what was recorded.
    ///
    /// # Safety
    /// The recorded buffers still exist and are borrowed as for the launches.
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
    /// Seconds of device time from `self` to `later`; waits for `later`.
    pub fn seconds_to(&self, later: &Moment) -> Result<f64> {
        let seconds = || {
            later.event.synchronize()?;
            self.event.elapsed_ms(&later.event).map(|ms| f64::from(ms) * 1e-3)
        };
        seconds().map_err(|e| self.gpu.failed("measure time", e))
    }
}

/// Counts of the driver calls of a thread, for tests.
#[cfg(test)]
pub(crate) mod asked {
    use std::cell::Cell;

    pub(crate) const LOADS: usize = 0;
    pub(crate) const ALLOCATIONS: usize = 1;
    pub(crate) const LAUNCHES: usize = 2;

    thread_local! {
        static CALLS: Cell<[usize; 3]> = const { Cell::new([0; 3]) };
    }

    pub(in crate::device) fn count(which: usize) {
        let mut all = CALLS.get();
        all[which] += 1;
        CALLS.set(all);
    }

    /// Modules loaded, buffers allocated, kernels launched.
    pub(crate) fn calls() -> [usize; 3] {
        CALLS.get()
    }
}
