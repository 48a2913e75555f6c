//! Ctrl-C: the first finishes the step and saves, the second ends the program at once.

use std::sync::atomic::{AtomicBool, Ordering};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Installs the handler; called once, by the binary. SIGTERM counts as Ctrl-C.
pub fn install() {
    // This fails only if there is a handler already: then that one stays.
    let _ = ctrlc::set_handler(|| {
        if REQUESTED.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        eprintln!("\ninterrupted: finishing the step and saving (again to stop at once)");
    });
}

/// True once Ctrl-C has been pressed. Long loops check it after every step.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}
