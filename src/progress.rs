//! Progress on stderr: bars with rate and remaining time on a terminal, a plain line every few
//! seconds in a log, nothing under `-q`.
//!
//! Rate and remaining time are those of this process: what an earlier run had done before `--resume`
//! counts as done, and not as fast.

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
    /// A bar named `label` that counts to `total` `unit`s, `done` of which an earlier run has done.
    pub fn bar(self, label: &str, total: u64, unit: &str, done: u64) -> Bar {
        let terminal = std::io::stderr().is_terminal();
        let target = match self {
            Progress::Stderr if terminal => ProgressDrawTarget::stderr(),
            _ => ProgressDrawTarget::hidden(),
        };
        let template =
            format!("{{prefix:<10}} {{bar:30}} {{pos}}/{{len}} {unit} {{speed}} {{msg}}");
        let begun = Instant::now();
        let speed = move |state: &ProgressState, out: &mut dyn Write| {
            let pace = Pace::of(done, state.pos(), begun.elapsed().as_secs_f64());
            let _ = write!(out, "{:.0}/s", pace.rate);
            if let Some(left) = pace.left(state.pos(), state.len().unwrap_or(0)) {
                let _ = write!(out, " eta {:#}", HumanDuration(left));
            }
        };
        let style = ProgressStyle::with_template(&template).expect("a constant template");
        let bar = ProgressBar::with_draw_target(Some(total), target)
            .with_prefix(label.to_string())
            .with_position(done)
            .with_style(style.with_key("speed", speed));
        let lines =
            (self == Progress::Stderr && !terminal).then(|| Mutex::new(Lines { last: begun }));
        Bar { bar, lines, done, begun, label: label.to_string(), unit: unit.to_string() }
    }

    /// One line of information.
    pub fn note(self, text: &str) {
        if self == Progress::Stderr {
            eprintln!("{text}");
        }
    }
}

/// How fast the work goes, since this process began with it.
struct Pace {
    /// Units a second.
    rate: f64,
}

impl Pace {
    /// From `before` units to `now` in `seconds`.
    fn of(before: u64, now: u64, seconds: f64) -> Self {
        Pace { rate: now.saturating_sub(before) as f64 / seconds.max(1e-9) }
    }

    /// How long the rest takes; known once something is done.
    fn left(&self, now: u64, total: u64) -> Option<Duration> {
        let seconds = total.saturating_sub(now) as f64 / self.rate;
        (self.rate > 0.0).then(|| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
    }
}

struct Lines {
    last: Instant,
}

/// One running bar; finished when dropped.
pub struct Bar {
    bar: ProgressBar,
    lines: Option<Mutex<Lines>>,
    /// Units that an earlier run has done.
    done: u64,
    begun: Instant,
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
        let seconds = self.begun.elapsed().as_secs_f64();
        let (now, total) = (self.bar.position(), self.bar.length().unwrap_or(0));
        let (label, message) = (&self.label, self.bar.message());
        eprintln!("{label}: {} {message}", describe(self.done, now, total, &self.unit, seconds));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.line(true);
        self.bar.finish();
    }
}

/// How far `seconds` have brought the work, from `before` units to `now`.
fn describe(before: u64, now: u64, total: u64, unit: &str, seconds: f64) -> String {
    let pace = Pace::of(before, now, seconds);
    let mut text = format!("{now}/{total} {unit}, {:.0}/s, {seconds:.0} s", pace.rate);
    if let Some(left) = pace.left(now, total) {
        text += &format!(", {:.0} s left", left.as_secs_f64());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remaining_time_is_said_once_something_is_done() {
        assert_eq!(describe(0, 0, 1000, "runs", 5.2), "0/1000 runs, 0/s, 5 s");
        assert_eq!(describe(0, 250, 1000, "runs", 5.0), "250/1000 runs, 50/s, 5 s, 15 s left");
    }

    #[test]
    fn the_rate_after_a_resume_is_that_since_the_resume() {
        assert_eq!(describe(500, 500, 1000, "steps", 2.0), "500/1000 steps, 0/s, 2 s");
        assert_eq!(describe(500, 600, 1000, "steps", 5.0), "600/1000 steps, 20/s, 5 s, 20 s left");
    }
}
