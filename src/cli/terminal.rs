//! Progress on stderr: bars with rate and remaining time on a terminal, a plain line every few
//! seconds in a log, nothing with `-q`. Ctrl-C asks the computation to stop.
//!
//! Rate and remaining time are counted from the start of this process: work done before `--resume`
//! counts as done, but not towards the rate.

use std::fmt::Write;
use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::interrupt;
use crate::observer::{Observer, Progress};

/// Time between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// The person who typed the command.
pub struct Terminal {
    /// Nothing is shown (`-q`).
    quiet: bool,
    /// Stderr is a terminal.
    bars: bool,
    /// The bars under way.
    running: Mutex<Vec<Bar>>,
}

impl Terminal {
    /// Shows progress on stderr, or nothing if `quiet`.
    pub fn new(quiet: bool) -> Self {
        let bars = std::io::stderr().is_terminal();
        Terminal { quiet, bars, running: Mutex::new(Vec::new()) }
    }
}

impl Observer for Terminal {
    fn progress(&self, progress: &Progress) {
        if self.quiet {
            return;
        }
        let mut running = self.running.lock().expect("no panic holds it");
        let known = running.iter().position(|bar| bar.label == progress.label);
        let at = known.unwrap_or_else(|| {
            running.push(Bar::new(progress, self.bars));
            running.len() - 1
        });
        running[at].show(progress, self.bars);
        if progress.ended {
            running.remove(at).bar.finish();
        }
    }

    fn note(&self, text: &str) {
        if !self.quiet {
            eprintln!("{text}");
        }
    }

    fn stop(&self) -> bool {
        interrupt::requested()
    }
}

/// One running bar.
struct Bar {
    label: String,
    bar: ProgressBar,
    begun: Instant,
    /// When the last plain line was printed.
    last: Instant,
}

impl Bar {
    fn new(progress: &Progress, shown: bool) -> Self {
        let target =
            if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let Progress { label, unit, total, before, .. } = *progress;
        let template =
            format!("{{prefix:<10}} {{bar:30}} {{pos}}/{{len}} {unit} {{speed}} {{msg}}");
        let begun = Instant::now();
        let speed = move |state: &ProgressState, out: &mut dyn Write| {
            let pace = Pace::of(before, state.pos(), begun.elapsed().as_secs_f64());
            let _ = write!(out, "{:.0}/s", pace.rate);
            if let Some(left) = pace.left(state.pos(), state.len().unwrap_or(0)) {
                let _ = write!(out, " eta {:#}", HumanDuration(left));
            }
        };
        let style = ProgressStyle::with_template(&template).expect("a constant template");
        let bar = ProgressBar::with_draw_target(Some(total), target)
            .with_prefix(label.to_string())
            .with_position(before)
            .with_style(style.with_key("speed", speed));
        Bar { label: label.to_string(), bar, begun, last: begun }
    }

    fn show(&mut self, progress: &Progress, bars: bool) {
        let Progress { label, done, total, unit, before, message, ended } = *progress;
        if bars {
            if self.bar.message() != message {
                self.bar.set_message(message.to_string());
            }
            self.bar.set_position(done);
        } else if ended || self.last.elapsed() >= LINE_EVERY {
            self.last = Instant::now();
            let seconds = self.begun.elapsed().as_secs_f64();
            eprintln!("{label}: {} {message}", describe(before, done, total, unit, seconds));
        }
    }
}

/// How fast the work goes, counted from when this process started on it.
struct Pace {
    /// Units per second.
    rate: f64,
}

impl Pace {
    /// From `before` units to `now` in `seconds`.
    fn of(before: u64, now: u64, seconds: f64) -> Self {
        Pace { rate: now.saturating_sub(before) as f64 / seconds.max(1e-9) }
    }

    /// How long the rest will take; `None` until something is done.
    fn left(&self, now: u64, total: u64) -> Option<Duration> {
        let seconds = total.saturating_sub(now) as f64 / self.rate;
        (self.rate > 0.0).then(|| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
    }
}

/// A line of progress: from `before` units to `now` of `total` in `seconds`.
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
