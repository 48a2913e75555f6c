//! Panics that stay inside: a library that reads a damaged file may panic, and a user gets an error.

use std::cell::Cell;
#[cfg(any(feature = "parquet", feature = "hdf5", test))]
use std::panic::{self, UnwindSafe};

thread_local! {
    /// True while a panic of this thread is one that [`contained`] expects.
    static EXPECTED: Cell<bool> = const { Cell::new(false) };
}

/// What `work` returns; `None` where it panics. Those of Parquet and HDF5 need it.
#[cfg(any(feature = "parquet", feature = "hdf5", test))]
pub(crate) fn contained<T>(work: impl FnOnce() -> T + UnwindSafe) -> Option<T> {
    let before = EXPECTED.replace(true);
    let done = panic::catch_unwind(work);
    EXPECTED.set(before);
    done.ok()
}

/// True while this thread is in work whose panics are contained: a hook of the program that is called has nothing to
/// say of them. Without such a hook their message appears on stderr.
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
