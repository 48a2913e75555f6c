//! Whether the tiles of AMX may be used: the CPU has them, the system saves them, and this process has asked for them.

use std::arch::x86_64::{__cpuid_count, _xgetbv};
use std::sync::OnceLock;

/// Leaf 7, sub-leaf 0 of CPUID: AMX-BF16 and AMX-TILE in EDX.
const AMX_BF16: u32 = 1 << 22;
const AMX_TILE: u32 = 1 << 24;
/// Leaf 1 of CPUID: XGETBV may be used, in ECX.
const OSXSAVE: u32 = 1 << 27;
/// The state of tiles in XCR0: shapes and data.
const TILE_STATE: u64 = 0b11 << 17;

/// Asks once: the answer does not change.
pub(super) fn usable() -> bool {
    static USABLE: OnceLock<bool> = OnceLock::new();
    *USABLE.get_or_init(|| present() && permitted())
}

fn present() -> bool {
    if __cpuid_count(0, 0).eax < 7 || __cpuid_count(1, 0).ecx & OSXSAVE == 0 {
        return false;
    }
    let wanted = AMX_BF16 | AMX_TILE;
    // SAFETY: OSXSAVE says that the instruction may be used.
    let enabled = unsafe { enabled() };
    __cpuid_count(7, 0).edx & wanted == wanted && enabled & TILE_STATE == TILE_STATE
}

#[target_feature(enable = "xsave")]
unsafe fn enabled() -> u64 {
    // SAFETY: as the caller promises; register 0 always exists.
    unsafe { _xgetbv(0) }
}

/// Linux gives a process the room to save tiles only if it asks (Documentation/arch/x86/xstate.rst); the permission is
/// the process's, so threads that run already have it, too.
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: a system call that takes numbers only.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}
