//! Contained panics: if a library panics on a damaged file, the user gets an error.

use std::cell::Cell;
#[cfg(any(feature = "parquet", feature = "hdf5", test))]
use std::panic::{self, UnwindSafe};

thread_local! {
    /// True while [`contained`] would catch a panic of this thread.
    static EXPECTED: Cell<bool> = const { Cell::new(false) };
}

/// The result of `work`; `None` if it panics. Used for the Parquet and HDF5 libraries.
#[cfg(any(feature = "parquet", feature = "hdf5", test))]
pub(crate) fn contained<T>(work: impl FnOnce() -> T + UnwindSafe) -> Option<T> {
    let before = EXPECTED.replace(true);
    let done = panic::catch_unwind(work);
    EXPECTED.set(before);
    done.ok()
}

/// True while panics of this thread are contained: a panic hook of the program should then stay silent. Without such
/// a hook their message appears on stderr.
pub fn expected() -> bool {
    EXPECTED.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_contained_and_expected_no_longer() {
        assert_eq!(contained(|| 7), Some(7));
        assert_eq!(contained(|| -> i32 { panic!("expected") }), None);
        assert!(!EXPECTED.get());
        assert!(contained(|| EXPECTED.get()).unwrap());
    }
}
