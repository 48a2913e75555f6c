//! Observers of a computation: an observer is told how far the work is, is asked whether to stop, and is offered the
//! files of the run to keep. A run folder is one observer, a terminal another; `()` ignores everything.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Result;

/// Watches a computation. By default every method does nothing; all may be called from any thread.
///
/// ```
/// use std::sync::atomic::{AtomicBool, Ordering};
/// use lawsmith::observer::{Observer, Progress};
///
/// /// Prints how far the work is, until someone sets the flag.
/// struct Watcher(AtomicBool);
///
/// impl Observer for Watcher {
///     fn progress(&self, progress: &Progress) {
///         println!("{}: {} of {} {}", progress.label, progress.done, progress.total, progress.unit);
///     }
///     fn stop(&self) -> bool {
///         self.0.load(Ordering::Relaxed)
///     }
/// }
/// ```
pub trait Observer: Sync {
    /// Tells how far a part of the work is: called when it begins, after each step, and when it ends.
    fn progress(&self, _: &Progress) {}

    /// A line of information.
    fn note(&self, _: &str) {}

    /// True to end the computation early. Long loops ask after every step; what was found so far is offered to
    /// [`Observer::keep`], and the call returns an error of kind [`Interrupted`](crate::error::Kind::Interrupted),
    /// except for `regress`, which returns what it has found.
    fn stop(&self) -> bool {
        false
    }

    /// Offers a file of the run, by its name in a run folder (`docs/files.md`): a checkpoint to continue from, or a
    /// result so far. To keep it, call `write` with the path to write to. The same name is offered repeatedly;
    /// `metrics.csv` is appended to the file already there.
    ///
    /// # Errors
    /// Errors of `write`; they end the computation.
    fn keep(&self, _name: &str, _write: &mut dyn FnMut(&Path) -> Result<()>) -> Result<()> {
        Ok(())
    }
}

/// Ignores everything.
impl Observer for () {}

/// Passes on only the question whether to stop, for work that shows no progress.
pub struct Quiet<'a>(pub &'a dyn Observer);

impl Observer for Quiet<'_> {
    fn stop(&self) -> bool {
        self.0.stop()
    }
}

/// How far a part of the work is.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// Which part: `simulate`, `train`, `regress`, ….
    pub label: &'a str,
    /// Units done, including those of an earlier run.
    pub done: u64,
    /// Units in total; 0 if unknown.
    pub total: u64,
    /// What is counted, in the plural.
    pub unit: &'a str,
    /// Units done by an earlier run.
    pub before: u64,
    /// A short text, such as the loss or the front.
    pub message: &'a str,
    /// True for the last call.
    pub ended: bool,
}

impl<'a> dyn Observer + 'a {
    /// Begins a part of the work that counts to `total`, of which an earlier run has done `done`. It ends when the
    /// bar is dropped.
    pub fn bar(&'a self, label: &'a str, total: u64, unit: &'a str, done: u64) -> Bar<'a> {
        let message = Mutex::new(String::new());
        let bar =
            Bar { observer: self, label, total, unit, before: done, done: done.into(), message };
        bar.tell(false);
        bar
    }
}

/// A part of the work under way.
pub struct Bar<'a> {
    observer: &'a dyn Observer,
    label: &'a str,
    total: u64,
    unit: &'a str,
    before: u64,
    done: AtomicU64,
    message: Mutex<String>,
}

impl Bar<'_> {
    /// Sets the number of units done, including those of an earlier run.
    pub fn set(&self, done: u64) {
        self.done.store(done, Ordering::Relaxed);
        self.tell(false);
    }

    /// Adds `more` units; from any thread.
    pub fn add(&self, more: u64) {
        self.done.fetch_add(more, Ordering::Relaxed);
        self.tell(false);
    }

    /// Sets the text after the bar, such as the loss or the front; shown with the next update.
    pub fn message(&self, text: impl Into<String>) {
        *self.message.lock().expect("no panic holds it") = text.into();
    }

    fn tell(&self, ended: bool) {
        let Bar { observer, label, total, unit, before, .. } = *self;
        let message = self.message.lock().expect("no panic holds it");
        let (done, message) = (self.done.load(Ordering::Relaxed), &message);
        observer.progress(&Progress { label, done, total, unit, before, message, ended });
    }
}

impl Drop for Bar<'_> {
    fn drop(&mut self) {
        self.tell(true);
    }
}
