//! Progress on stderr: bars with rate and remaining time on a terminal, a plain line every few
//! seconds in a log, nothing under `-q`.

use std::fmt::Write;
use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

/// Time between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Where progress goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nowhere (`-q`, tests).
    Quiet,
    /// To stderr: bars on a terminal, lines elsewhere.
    Stderr,
}

impl Progress {
    /// A bar named `label` that counts to `total` `unit`s.
    pub fn bar(self, label: &str, total: u64, unit: &str) -> Bar {
        let terminal = std::io::stderr().is_terminal();
        let target = match self {
            Progress::Stderr if terminal => ProgressDrawTarget::stderr(),
            _ => ProgressDrawTarget::hidden(),
        };
        let template =
            format!("{{prefix:<10}} {{bar:30}} {{pos}}/{{len}} {unit} {{per_sec}}{{left}} {{msg}}");
        let left = |state: &ProgressState, out: &mut dyn Write| {
            if state.pos() > 0 {
                let _ = write!(out, " eta {:#}", HumanDuration(state.eta()));
            }
        };
        let style = ProgressStyle::with_template(&template).expect("a constant template");
        let bar = ProgressBar::with_draw_target(Some(total), target)
            .with_prefix(label.to_string())
            .with_style(style.with_key("left", left));
        let lines = (self == Progress::Stderr && !terminal)
            .then(|| Mutex::new(Lines { begun: Instant::now(), last: Instant::now() }));
        Bar { bar, lines, label: label.to_string(), unit: unit.to_string() }
    }

    /// One line of information.
    pub fn note(self, text: &str) {
        if self == Progress::Stderr {
            eprintln!("{text}");
        }
    }
}

struct Lines {
    begun: Instant,
    last: Instant,
}

/// One running bar; finished when dropped.
pub struct Bar {
    bar: ProgressBar,
    lines: Option<Mutex<Lines>>,
    label: String,
    unit: String,
}

impl Bar {
    /// `done` units are done in all.
    pub fn set(&self, done: u64) {
        self.bar.set_position(done);
        self.line(false);
    }

    /// `more` units are done since the last call; from any thread.
    pub fn add(&self, more: u64) {
        self.bar.inc(more);
        self.line(false);
    }

    /// The text behind the bar: a loss, a front.
    pub fn message(&self, text: impl Into<String>) {
        self.bar.set_message(text.into());
    }

    fn line(&self, last: bool) {
        let Some(lines) = &self.lines else { return };
        // Another thread is printing: its line serves.
        let Ok(mut lines) = lines.try_lock() else { return };
        if !last && lines.last.elapsed() < LINE_EVERY {
            return;
        }
        lines.last = Instant::now();
        let seconds = lines.begun.elapsed().as_secs_f64();
        let (done, total) = (self.bar.position(), self.bar.length().unwrap_or(0));
        let (label, message) = (&self.label, self.bar.message());
        eprintln!("{label}: {} {message}", describe(done, total, &self.unit, seconds));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.line(true);
        self.bar.finish();
    }
}

/// How far `seconds` have brought the work. How long the rest takes is known once something is done.
fn describe(done: u64, total: u64, unit: &str, seconds: f64) -> String {
    let rate = done as f64 / seconds.max(1e-9);
    let mut text = format!("{done}/{total} {unit}, {rate:.0}/s, {seconds:.0} s");
    if done > 0 {
        let left = total.saturating_sub(done) as f64 / rate;
        text += &format!(", {left:.0} s left");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remaining_time_is_said_once_something_is_done() {
        assert_eq!(describe(0, 1000, "runs", 5.2), "0/1000 runs, 0/s, 5 s");
        assert_eq!(describe(250, 1000, "runs", 5.0), "250/1000 runs, 50/s, 5 s, 15 s left");
    }
}
