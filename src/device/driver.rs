//! The driver: which CUDA it offers and this build needs, how many devices it has, and one sentence for each reason why
//! there is none or why one cannot be used.

use std::ffi::OsString;
use std::fs::File;
use std::path::Path;

use cudarc::driver::sys::{self, CUdevice_attribute, CUresult};
use cudarc::driver::{DriverError, result};

use super::cuda::{COMPILED, TOOLKIT};

/// The first CUDA version whose driver has every function that `cuda.rs`, `memory.rs` and `ring.rs` call.
const LEAST: i32 = 12_000;

/// The lowest compute capability that kernels are compiled for: `ARCHS` in `build.rs`.
const LEAST_CAPABILITY: (i32, i32) = (8, 0);

/// The version of CUDA that the driver offers, 12040 for 12.4.
pub fn version() -> Option<i32> {
    offered().and_then(Result::ok)
}

/// The version of CUDA that the driver must offer: machine code of any toolkit runs on every driver of its major
/// version. (PTX, for devices newer than all of `ARCHS`, needs a driver as new as the toolkit.)
pub fn needed() -> i32 {
    (TOOLKIT / 1000 * 1000).max(LEAST)
}

/// `12.4` for 12040.
pub fn release(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// `None` without a driver.
fn offered() -> Option<Result<i32, DriverError>> {
    // SAFETY: loads the library and nothing else.
    if !unsafe { sys::is_culib_present() } {
        return None;
    }
    let mut version = 0;
    // SAFETY: the driver writes one integer; every driver has this function.
    let asked = unsafe { sys::cuDriverGetVersion(&mut version) }.result();
    Some(asked.map(|()| version))
}

/// The number of devices, at least one, or why there is none. Must come before any other call to the driver, since one
/// that is too old lacks functions.
pub(super) fn devices() -> Result<usize, String> {
    let offered = offered().ok_or_else(|| {
        let kernels = if COMPILED { "" } else { ", and this build has no CUDA kernels" };
        format!("there is no CUDA driver on this machine{kernels}")
    })?;
    let offered = offered.map_err(no_device)?;
    if offered < needed() {
        return Err(too_old(offered));
    }
    result::init().map_err(no_device)?;
    match result::device::get_count().map_err(no_device)? {
        ..1 => Err(no_device(DriverError(CUresult::CUDA_ERROR_NO_DEVICE))),
        count => Ok(count as usize),
    }
}

/// Why an existing device does not suit this build, checked before anything is created on it.
pub(super) fn suits(ordinal: usize, count: usize) -> Result<(), String> {
    use CUdevice_attribute as A;
    if ordinal >= count {
        let there = match count {
            1 => "there is one GPU, cuda:0".to_string(),
            _ => format!("there are {count} GPUs, cuda:0 to cuda:{}", count - 1),
        };
        let of = visible().map(|list| format!(", of CUDA_VISIBLE_DEVICES={}", list.display()));
        return Err(there + &of.unwrap_or_default());
    }
    let read = || {
        let device = result::device::get(ordinal as i32)?;
        // SAFETY: the device exists.
        let attribute = |which| unsafe { result::device::get_attribute(device, which) };
        let major = attribute(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = attribute(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        Ok(((major, minor), result::device::get_name(device)?))
    };
    let (capability, name) = read().map_err(text)?;
    let ((major, minor), least) = (capability, LEAST_CAPABILITY);
    if capability < least {
        return Err(format!(
            "{name} has compute capability {major}.{minor}, and the kernels need {}.{} or later \
             (A100, RTX 30 and newer)",
            least.0, least.1
        ));
    }
    Ok(())
}

/// Why a suitable device does not open.
pub(super) fn closed(ordinal: usize, error: DriverError) -> String {
    if error.0 != CUresult::CUDA_ERROR_DEVICE_UNAVAILABLE {
        return no_device(error);
    }
    let mode = result::device::get(ordinal as i32).and_then(|device| {
        let mode = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_MODE;
        // SAFETY: the device exists.
        unsafe { result::device::get_attribute(device, mode) }
    });
    match mode.unwrap_or(0) == sys::CUcomputemode::CU_COMPUTEMODE_PROHIBITED as i32 {
        true => "its compute mode is 'prohibited' (nvidia-smi -c 0 lets programs use it)".into(),
        false => "another process uses it, and it is for one process at a time (compute mode \
                  'exclusive'; nvidia-smi lists the process)"
            .into(),
    }
}

/// Why kernels do not load onto a device.
pub(super) fn not_loaded(error: DriverError) -> String {
    if !COMPILED {
        return "this build has no CUDA kernels".into();
    }
    match error.0 {
        CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => format!(
            "it is newer than the GPUs that this build has machine code for, and the driver, for CUDA {}, is older \
             than the toolkit of this build, {}: update the driver, or build with a toolkit that is no newer \
             than it ({WHICH})",
            release(version().unwrap_or(0)),
            release(TOOLKIT)
        ),
        _ => format!("its kernels do not load ({})", text(error)),
    }
}

/// Toolkits that can compile the kernels, and how `build.rs` finds one.
const WHICH: &str = "12.4 or later; set CUDA_HOME or NVCC to its place";

fn too_old(offered: i32) -> String {
    let (offers, needs) = (release(offered), release(needed()));
    let remedy = match offered {
        ..LEAST => String::new(),
        _ => format!(
            ", or build with a toolkit of CUDA {}, which the machine may have ({WHICH})",
            offered / 1000
        ),
    };
    format!(
        "the driver offers CUDA {offers}, and this build needs {needs} or later: update the driver{remedy}"
    )
}

/// Why the driver finds no device.
fn no_device(error: DriverError) -> String {
    use CUresult as E;
    match error.0 {
        E::CUDA_ERROR_NO_DEVICE
        | E::CUDA_ERROR_INVALID_DEVICE
        | E::CUDA_ERROR_OPERATING_SYSTEM
        | E::CUDA_ERROR_NOT_PERMITTED
        | E::CUDA_ERROR_UNKNOWN => {
            let why = hidden(visible(), Path::new("/dev"));
            why.unwrap_or_else(|| match error.0 {
                E::CUDA_ERROR_NO_DEVICE => "the driver finds no GPU (nvidia-smi -L lists those of the machine; \
                    a job on a cluster has to ask for one, and a GPU in MIG mode needs a slice)"
                    .into(),
                E::CUDA_ERROR_OPERATING_SYSTEM | E::CUDA_ERROR_NOT_PERMITTED => {
                    format!("the operating system keeps the driver from the GPU: {}", text(error))
                }
                _ => text(error),
            })
        }
        E::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH => {
            "the driver's library and its kernel module are of different versions, as happens after updates: \
             restart the machine"
                .into()
        }
        E::CUDA_ERROR_SYSTEM_NOT_READY => {
            "the driver is not ready: GPUs that are connected by NVSwitch need NVIDIA's fabric manager to run"
                .into()
        }
        E::CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE => {
            "the libcuda found belongs to a compatibility package that this GPU does not support: \
             take its folder (…/compat) out of LD_LIBRARY_PATH"
                .into()
        }
        E::CUDA_ERROR_STUB_LIBRARY => {
            "the libcuda found is the stub for linking: take its folder (…/stubs) out of \
             LD_LIBRARY_PATH"
                .into()
        }
        _ => text(error),
    }
}

fn visible() -> Option<OsString> {
    std::env::var_os("CUDA_VISIBLE_DEVICES")
}

/// What hides devices from this process: the user's selection, or device files in `folder` that cannot be opened.
fn hidden(visible: Option<OsString>, folder: &Path) -> Option<String> {
    if visible.as_ref().is_some_and(|list| list.is_empty()) {
        return Some("CUDA_VISIBLE_DEVICES is empty, which hides every GPU".into());
    }
    if let Some((path, error)) = unreadable(folder) {
        return Some(format!(
            "{} cannot be opened ({error}): this user or cluster job has no permission to use a GPU",
            path.display()
        ));
    }
    visible
        .map(|list| format!("CUDA_VISIBLE_DEVICES={} names no GPU that is there", list.display()))
}

/// The first of nvidiactl, nvidia0, … that exists and cannot be opened.
fn unreadable(folder: &Path) -> Option<(std::path::PathBuf, std::io::Error)> {
    let mut files: Vec<_> = std::fs::read_dir(folder).ok()?.flatten().map(|e| e.path()).collect();
    files.retain(|path| {
        let rest = path.file_name().and_then(|name| name.to_str()?.strip_prefix("nvidia"));
        rest.is_some_and(|rest| rest == "ctl" || rest.parse::<u32>().is_ok())
    });
    files.sort();
    files.into_iter().find_map(|path| {
        let error = File::options().read(true).write(true).open(&path).err()?;
        Some((path, error))
    })
}

/// The driver's text for an error.
pub(super) fn text(error: DriverError) -> String {
    let owned = |text: Result<&std::ffi::CStr, DriverError>| {
        text.map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
    };
    format!("{} ({})", owned(error.error_string()), owned(error.error_name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hides_every_gpu_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let why = |visible: Option<&str>| hidden(visible.map(Into::into), folder.path());
        assert_eq!(why(None), None);
        assert!(why(Some("")).unwrap().contains("CUDA_VISIBLE_DEVICES is empty"));
        assert!(why(Some("7")).unwrap().contains("CUDA_VISIBLE_DEVICES=7 names no GPU"));
        // Device files that do not matter, and one that opens.
        for name in ["nvidia-uvm", "nvidia3", "null"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(why(None), None);
        // Nobody can open a socket as a file, not even root.
        let socket = folder.path().join("nvidiactl");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let text = why(Some("7")).unwrap();
        assert!(text.contains(&format!("{} cannot be opened (", socket.display())), "{text}");
        assert!(text.contains("permission"), "{text}");
    }

    #[test]
    fn a_driver_that_is_too_old_says_what_to_do() {
        assert_eq!((release(12_040), release(13_000)), ("12.4".into(), "13.0".into()));
        let text = too_old(12_040);
        let needs = release(needed());
        assert!(
            text.contains(&format!("offers CUDA 12.4, and this build needs {needs} ")),
            "{text}"
        );
        assert!(text.contains("a toolkit of CUDA 12,") && text.contains("CUDA_HOME"), "{text}");
        assert!(too_old(11_080).ends_with(": update the driver"), "{}", too_old(11_080));
    }
}
