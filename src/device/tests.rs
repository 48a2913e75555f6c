//! Picking a device, and what `cuda.rs` and `memory.rs` promise.

use super::*;
use crate::error::Kind;

#[test]
fn a_device_is_cpu_or_cuda_with_a_number() {
    assert!(matches!(Device::pick("cpu").unwrap(), Device::Cpu(_)));
    assert_eq!(Device::pick("cuda").unwrap_err().kind, Kind::Usage);
    assert_eq!(Device::pick("cuda:x").unwrap_err().kind, Kind::Usage);
}

#[test]
fn auto_is_a_real_gpu_or_the_processor_and_says_why() {
    let (device, why) = Device::auto();
    match (device, Gpu::open(0)) {
        (Device::Gpu(gpu), Ok(first)) => assert!(gpu == first && !gpu.is_emulated(), "{why}"),
        (Device::Gpu(_), Err(error)) => panic!("{error}"),
        (Device::Cpu(_), Ok(gpu)) => {
            assert!(gpu.is_emulated() || !cuda::compiled());
            assert!(why.contains("stand-in") || why.contains("no CUDA kernels"), "{why}");
        }
        (Device::Cpu(_), Err(error)) => {
            let why = why.strip_prefix("no GPU: ").unwrap();
            assert!(!cuda::compiled() || error.to_string().contains(why), "{why}");
        }
    }
}

#[test]
fn a_gpu_that_is_not_there_is_one_clear_error() {
    let error = Device::pick("cuda:999").unwrap_err();
    assert_eq!(error.kind, Kind::Device);
    assert!(error.to_string().starts_with("cuda:999 cannot be used: "), "{error}");
    assert!(error.to_string().contains("--device cpu"), "{error}");
}

fn gpu() -> Option<Gpu> {
    match test_gpu()? {
        Device::Gpu(gpu) => Some(gpu),
        Device::Cpu(_) => unreachable!("test_gpu gives a GPU"),
    }
}

#[test]
fn gpu_buffers_keep_what_they_are_given() {
    let Some(gpu) = gpu() else { return };
    for len in [0, 1, 3, 1000] {
        let values: Vec<u32> = (0..len as u32).collect();
        let mut buffer = gpu.upload(&values).unwrap();
        assert_eq!((buffer.len(), buffer.to_vec().unwrap()), (len, values.clone()));
        buffer.clear().unwrap();
        assert_eq!(buffer.to_vec().unwrap(), vec![0; len]);
        let half = &values[..len / 2];
        buffer.upload(half).unwrap();
        let mut found = vec![7; len / 2];
        buffer.download(&mut found).unwrap();
        assert_eq!(found, half);
    }
}

#[test]
fn gpu_buffers_can_be_freed_by_any_thread() {
    let Some(gpu) = gpu() else { return };
    let buffer = gpu.upload(&[1u8, 2]).unwrap();
    std::thread::spawn(move || drop(buffer)).join().unwrap();
    // An error in a free would be returned by the next call.
    assert_eq!(gpu.upload(&[3u8]).unwrap().to_vec().unwrap(), [3]);
}

/// Reads an invalid address: with it `scripts/on-gpu --inject` checks that it can tell a device fault from a wrong result.
#[test]
#[ignore = "not a test: a fault for scripts/on-gpu --inject, which expects it to fail"]
fn faults_for_on_gpu() {
    use crate::ops::mlp::gpu::sum;
    let Some(gpu) = gpu() else { return };
    let mut sums = gpu.zeros::<f32>(32).unwrap();
    let args =
        args::SumArgs { partials: cuda::Pointer::NULL, sums: sums.write(32), len: 32, count: 2 };
    // SAFETY: none; the device refuses to read there.
    unsafe { sum(gpu, 1, &args).unwrap() };
    gpu.synchronize().unwrap();
}

#[test]
fn gpu_memory_that_is_not_there_is_an_error_that_says_how_much_is_needed() {
    let Some(gpu) = gpu() else { return };
    let bytes = gpu.properties().unwrap().memory + (1 << 30);
    let error = gpu.buffer::<u8>(bytes).err().expect("more than there is");
    assert_eq!(error.kind, Kind::Device);
    let needed = format!("{} MiB more are needed", bytes.div_ceil(1 << 20));
    assert!(error.to_string().contains(&needed), "{error}");
    gpu.upload(&[1u8]).unwrap();
}

#[test]
#[should_panic(expected = "a kernel reads 4 of 3 elements")]
fn gpu_kernels_get_no_pointer_to_a_buffer_that_is_too_short() {
    let Some(gpu) = gpu() else { panic!("a kernel reads 4 of 3 elements (skipped)") };
    gpu.upload(&[1u8, 2, 3]).unwrap().read(4);
}

/// Another thread may be between requesting a kernel with more shared memory and launching it.
#[test]
fn gpu_kernels_keep_the_shared_memory_that_they_were_allowed() {
    use cudarc::driver::result::function::get_function_attribute;
    use cudarc::driver::sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as LIMIT;
    let Some(gpu) = gpu() else { return };
    let kernel = cuda::Kernel { module: "adam", name: "adam_step" };
    for shared in [96 << 10, 64 << 10, 0] {
        let function = gpu.function(kernel, shared).unwrap().0;
        // SAFETY: the function belongs to a module that stays loaded.
        let limit = unsafe { get_function_attribute(function, LIMIT) };
        assert_eq!(limit.unwrap(), 96 << 10, "after {shared}");
    }
}

/// The kernels that a file exports, found by the lines that name one.
fn exported(source: &str) -> impl Iterator<Item = &str> {
    let names = source.lines().filter_map(|line| line.strip_prefix("EXPORT(")?.split_once(')'));
    names.map(|(name, _)| name)
}

#[test]
fn gpu_modules_are_loaded_once_for_all_their_kernels() {
    let Some(gpu) = gpu() else { return };
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    for module in ["tiny", "edge"] {
        let source = std::fs::read_to_string(folder.join(format!("{module}.cu"))).unwrap();
        let (loads, mut kernels) = (cuda::asked::calls()[cuda::asked::LOADS], 0);
        for name in exported(&source) {
            // A kernel is identified by a name that lives as long as the process.
            let name: &'static str = name.to_string().leak();
            gpu.function(cuda::Kernel { module, name }, 0).unwrap();
            kernels += 1;
        }
        assert!(kernels > 2, "{module}: {kernels} kernels");
        // None if another test came first.
        let loads = cuda::asked::calls()[cuda::asked::LOADS] - loads;
        assert!(loads <= 1, "{module}: loaded {loads} times for {kernels} kernels");
    }
}

#[test]
fn gpu_memory_that_buffers_leave_stays_and_counts_as_free() {
    let Some(gpu) = gpu().filter(|gpu| gpu.is_emulated()) else { return };
    // Nobody else may allocate, and a small memory fills up soon.
    let (variable, memory) = ("LAWSMITH_EMULATED_MEMORY", "1000000");
    if std::env::var(variable).ok().as_deref() != Some(memory) {
        let name = "device::tests::gpu_memory_that_buffers_leave_stays_and_counts_as_free";
        let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
        let output = alone.args(["--exact", name]).env(variable, memory).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let nobodys = || cudarc::driver::result::mem_get_info().unwrap().0;
    let (free, before) = (gpu.free_memory().unwrap(), nobodys());
    assert_eq!(free, before);
    let buffer = gpu.buffer::<u8>(600_000).unwrap();
    assert_eq!(gpu.free_memory().unwrap(), free - 600_000);
    drop(buffer);
    gpu.synchronize().unwrap();
    assert_eq!((gpu.free_memory().unwrap(), nobodys()), (free, before - 600_000));
    drop(gpu.buffer::<u8>(free).unwrap());
    gpu.synchronize().unwrap();
    assert_eq!((gpu.free_memory().unwrap(), nobodys()), (free, 0));
    // Memory for code is not part of the pool.
    gpu.function(cuda::Kernel { module: "mlp", name: "mlp_sum" }, 0).unwrap();
    assert!(nobodys() > 0);
    let error = gpu.buffer::<u8>(free).err().unwrap();
    assert!(error.to_string().contains("1 MiB more are needed, 0 MiB are free"), "{error}");
}

#[test]
fn gpu_buffers_of_work_that_repeats_lie_where_they_lay() {
    let Some(gpu) = gpu() else { return };
    let shelf = cuda::Shelf::default();
    let allocations = || cuda::asked::calls()[cuda::asked::ALLOCATIONS];
    // With this many numbers each; nothing of a longer buffer shows in a shorter one.
    let work = |lens: [usize; 3]| {
        let before = allocations();
        let [a, mut b, zeros] = Gpu::reuse(&shelf, || {
            let values: Vec<u32> = (0..lens[0] as u32).collect();
            let a = gpu.upload(&values).unwrap();
            assert_eq!(a.to_vec().unwrap(), values);
            [a, gpu.buffer(lens[1]).unwrap(), gpu.zeros(lens[2]).unwrap()]
        });
        assert_eq!(zeros.to_vec().unwrap(), vec![0; lens[2]]);
        if lens[0] == lens[1] {
            b.copy_from(&a).unwrap();
            assert_eq!(b.to_vec().unwrap(), a.to_vec().unwrap());
        }
        allocations() - before
    };
    assert_eq!(work([10, 10, 10]), 3);
    assert_eq!(work([10, 10, 10]), 0);
    assert_eq!(work([3, 10, 5]), 0);
    assert_eq!(work([3, 11, 0]), 1);
    assert_eq!(work([10, 11, 10]), 0);
    // Outside of it nothing is kept.
    let before = allocations();
    drop(gpu.buffer::<u32>(10).unwrap());
    drop(gpu.buffer::<u32>(10).unwrap());
    assert_eq!(allocations() - before, 2);
}

#[test]
fn gpu_downloads_in_parts_bring_every_element_to_its_place() {
    let Some(gpu) = gpu() else { return };
    let values: Vec<u32> = (0..50_000u32).map(|k| k.wrapping_mul(2_654_435_761)).collect();
    let buffer = gpu.upload(&values).unwrap();
    // One chunk and many, full and partly full, fewer elements than chunks hold.
    for (count, at_once) in [(50_000, 1 << 20), (50_000, 17_000), (49_999, 1000), (2, 1), (0, 5)] {
        let mut found = vec![7; 50_000];
        ring::download_in_parts(gpu, &buffer, &mut found[..count], at_once).unwrap();
        assert!(found[..count] == values[..count], "{count} elements, {at_once} at a time");
        assert!(found[count..].iter().all(|&value| value == 7));
    }
}

#[test]
fn gpu_recordings_run_when_replayed_and_leave_other_threads_alone() {
    use crate::ops::mlp::gpu::sum;
    let Some(gpu) = gpu() else { return };
    let partials = gpu.upload(&[1.0f32, 2.0, 10.0, 20.0]).unwrap();
    let mut sums = gpu.zeros::<f32>(2).unwrap();
    let args = args::SumArgs { partials: partials.read(4), sums: sums.write(2), len: 2, count: 2 };
    let recording = gpu
        .record(|| {
            let elsewhere = std::thread::spawn(move || {
                let copied = gpu.upload(&[7u32]).and_then(|buffer| buffer.to_vec());
                copied.unwrap()
            });
            assert_eq!(elsewhere.join().unwrap(), [7]);
            // SAFETY: the buffers outlive the recording.
            unsafe { sum(gpu, 1, &args) }
        })
        .unwrap();
    assert_eq!(sums.to_vec().unwrap(), [0.0; 2], "recorded, not run");
    // SAFETY: as above.
    unsafe { recording.replay().unwrap() };
    assert_eq!(sums.to_vec().unwrap(), [11.0, 22.0]);
}

/// The argument structs as the C++ compiler lays them out. Only the stand-in driver can tell.
fn twin(name: &str) -> Option<Vec<(String, usize, usize)>> {
    type Layout = unsafe extern "C" fn(
        *const std::ffi::c_char,
        u32,
        *mut *const std::ffi::c_char,
        *mut usize,
        *mut usize,
    ) -> i32;
    let struct_name = std::ffi::CString::new(name).unwrap();
    // SAFETY: the handle is that of the loaded driver; the symbol has this type.
    let layout: Layout = unsafe {
        let library = libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_NOW);
        assert!(!library.is_null());
        let symbol = libc::dlsym(library, c"lawsmith_layout".as_ptr());
        if symbol.is_null() {
            return None;
        }
        std::mem::transmute(symbol)
    };
    let mut fields = Vec::new();
    for index in 0.. {
        let (mut field, mut offset, mut size) = (std::ptr::null(), 0, 0);
        // SAFETY: the driver writes a static name and two numbers.
        let found =
            unsafe { layout(struct_name.as_ptr(), index, &mut field, &mut offset, &mut size) == 0 };
        if !found {
            break;
        }
        // SAFETY: the driver wrote the address of a string.
        let field = unsafe { std::ffi::CStr::from_ptr(field) };
        fields.push((field.to_str().unwrap().to_string(), offset, size));
    }
    Some(fields)
}

#[test]
fn gpu_argument_structs_are_laid_out_as_in_c() {
    if gpu().is_none() {
        return;
    }
    for &(name, size, fields) in args::LAYOUTS {
        let Some(twin) = twin(name) else {
            eprintln!("skipped: only the stand-in driver knows the layout of {name}");
            return;
        };
        let fields = fields.iter().map(|&(name, offset, size)| (name.to_string(), offset, size));
        let whole = (name.to_string(), 0, size);
        assert_eq!(twin, [whole].into_iter().chain(fields).collect::<Vec<_>>());
    }
}

/// Finds kernels whose argument has no `LAYOUT`.
#[test]
fn every_kernel_takes_a_struct_that_is_laid_out() {
    let kernels = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    let mut compared = 0;
    for entry in std::fs::read_dir(kernels).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "cu") {
            continue;
        }
        let source = std::fs::read_to_string(&path).unwrap();
        for line in source.lines().filter(|line| line.starts_with("KERNEL")) {
            let Some((before, _)) = line.split_once(" args)") else { continue };
            let argument = before.rsplit('(').next().unwrap_or("");
            let known = args::LAYOUTS.iter().any(|&(name, ..)| name == argument);
            assert!(known, "{}: {line}", path.display());
            compared += 1;
        }
    }
    assert!(compared > 20, "{compared} kernels were found");
}

/// The generator of `args.rs`.
#[path = "../../build/args.rs"]
mod generator;

#[test]
fn the_twin_of_an_argument_struct_is_its_declaration() {
    let rust = |text: &str| generator::rust(&[("a.cu".to_string(), text.to_string())].into());
    let code = rust(
        "// What a kernel takes.\nstruct A {\n    const float* x;  // [rows]\n    \
         float shift[3];\n    unsigned n;\n};\nLAYOUT(A, x,\n       shift, n)\n",
    )
    .unwrap();
    let declared = "#[repr(C)]\npub(crate) struct A {\n    #[doc = \"[rows]\"]\n    pub(crate) x: Pointer<f32>,\n    \
                    pub(crate) shift: [f32; 3],\n    pub(crate) n: u32,\n}\n";
    assert!(
        code.contains("#[doc = \"What a kernel takes.\"]") && code.contains(declared),
        "{code}"
    );
    for (text, why) in [
        ("LAYOUT(A, x)", "no file declares it"),
        ("struct A {\n    long x;\n};\nLAYOUT(A, x)", "type long"),
        ("struct A {\n    B* x;\n};\nLAYOUT(A, x)", "points to B"),
        ("struct A {\n    float x[N];\n};\nLAYOUT(A, x)", "N elements"),
        ("struct A {\n    float x;\n    float y;\n};\nLAYOUT(A, x)", "LAYOUT lists"),
        ("struct A {\n    float x;\n    double y;\n};\nLAYOUT(A, x, y)", "padding before y"),
        ("struct A {\n    double x;\n    float y;\n};\nLAYOUT(A, x, y)", "padding at the end"),
        ("struct A {\n    float x\n};\nLAYOUT(A, x)", "ended by ;"),
    ] {
        let error = rust(&format!("\n{text}\n")).unwrap_err();
        assert!(error.starts_with("A of the kernels: ") && error.contains(why), "{error}");
    }
}
