//! Silences panics caused by damaged files, which the library turns into errors.

use std::panic;

use crate::panics::expected;

/// Keeps contained panics quiet, for the whole process; called once, by the binary.
pub fn install() {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(move |about| {
        if !expected() {
            hook(about);
        }
    }));
}
