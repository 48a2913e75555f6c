//! Launches that several searches share.
//!
//! A generation of one search is a few hundred programs and leaves a GPU idle. So searches that run side by side take
//! seats: once everyone who has a seat has made a request, all requests go to the device as one round, a launch for
//! each kernel, every program with the table of its search. Results do not depend on who shares a round, so a search
//! finds the same as it would alone.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::gpu::{self, Request};
use super::{Fit, Fitted, Loss, Program, Rows, check};
use crate::device::Device;
use crate::error::{Error, Result};

/// How long a thread of the pool sleeps if it has nothing to do but wait for threads beside it.
const NAP: Duration = Duration::from_micros(50);

/// Where expressions are judged: a device, and on a GPU the rounds shared by all clones.
#[derive(Clone, Debug)]
pub struct Evaluator {
    device: Device,
    rounds: Arc<Rounds>,
    seat: Option<Arc<Seat>>,
}

/// Counts of the requests to a GPU in rounds, and of the launches for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Launches {
    /// Requests: programs to score or to fit on one table.
    pub requests: u64,
    /// Launches that served them.
    pub launches: u64,
}

impl Evaluator {
    /// With its own rounds.
    pub fn new(device: &Device) -> Self {
        Evaluator { device: *device, rounds: Arc::default(), seat: None }
    }

    /// The CPU.
    pub fn cpu() -> Self {
        Evaluator::new(&Device::cpu())
    }

    /// True if the device needs requests of many programs, and of many searches at a time.
    pub fn is_gpu(&self) -> bool {
        matches!(self.device, Device::Gpu(_))
    }

    /// The same with a seat in the rounds until it is dropped: every round waits for a request from here. Only one
    /// thread uses it at a time, and that must not be one of the pool's, unless it is alone.
    pub fn seated(&self) -> Self {
        let seat = self.is_gpu().then(|| Arc::new(Seat::take(&self.rounds)));
        Evaluator { seat, ..self.clone() }
    }

    /// What the rounds have done so far; `None` on a CPU.
    pub fn launches(&self) -> Option<Launches> {
        let Rounds { requests, launches, .. } = &*self.rounds;
        let [requests, launches] = [requests, launches].map(|n| n.load(Ordering::Relaxed));
        self.is_gpu().then_some(Launches { requests, launches })
    }

    /// [`super::score`], from a seat as part of a round.
    pub fn score(&self, rows: &Rows, programs: &[Program], loss: Loss) -> Result<Vec<f64>> {
        match (self.device, &self.seat) {
            (Device::Gpu(gpu), Some(seat)) => {
                check(rows, programs)?;
                gpu::score(gpu, rows, programs, loss, |request| seat.0.ask(request))
            }
            _ => super::score(&self.device, rows, programs, loss),
        }
    }

    /// [`super::fit`], from a seat as part of a round.
    pub fn fit(&self, rows: &Rows, programs: &[Program], fit: Fit) -> Result<Vec<Fitted>> {
        match (self.device, &self.seat) {
            (Device::Gpu(gpu), Some(seat)) => {
                check(rows, programs)?;
                gpu::fit(gpu, rows, programs, fit, |request| seat.0.ask(request))
            }
            _ => super::fit(&self.device, rows, programs, fit),
        }
    }
}

/// Who takes part, and the requests since the last round.
#[derive(Default)]
struct Rounds {
    open: Mutex<Open>,
    requests: AtomicU64,
    launches: AtomicU64,
}

#[derive(Default)]
struct Open {
    seats: usize,
    waiting: Vec<Waiting>,
}

struct Waiting {
    request: Request,
    answer: Sender<Result<Vec<f64>>>,
}

impl std::fmt::Debug for Rounds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rounds")
    }
}

impl Open {
    /// The round, if everyone who has a seat has made a request.
    fn complete(&mut self) -> Vec<Waiting> {
        if self.waiting.len() < self.seats {
            return Vec::new();
        }
        std::mem::take(&mut self.waiting)
    }
}

impl Rounds {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the round of a request; the last one to ask launches for all.
    fn ask(&self, request: Request) -> Result<Vec<f64>> {
        let (answer, result) = channel();
        let mut open = self.open();
        open.waiting.push(Waiting { request, answer });
        let round = open.complete();
        drop(open);
        self.launch(round);
        let abandoned = |_| Err(Error::device("the thread that launched a round has ended"));
        result.recv().unwrap_or_else(abandoned)
    }

    /// Launches the requests, one launch per kernel.
    fn launch(&self, mut round: Vec<Waiting>) {
        while !round.is_empty() {
            let first = round.remove(0);
            let (same, rest) =
                round.into_iter().partition(|w: &Waiting| w.request.goes_with(&first.request));
            round = rest;
            let same: Vec<Waiting> = [first].into_iter().chain::<Vec<_>>(same).collect();
            let (requests, answers): (Vec<Request>, Vec<_>) =
                same.into_iter().map(|w| (w.request, w.answer)).unzip();
            self.requests.fetch_add(requests.len() as u64, Ordering::Relaxed);
            self.launches.fetch_add(1, Ordering::Relaxed);
            let results: Vec<Result<Vec<f64>>> = match gpu::launch(&requests) {
                Ok(results) => results.into_iter().map(Ok).collect(),
                Err(error) if requests.len() == 1 => vec![Err(error)],
                // There may be enough memory for each of them alone.
                Err(_) => requests.iter().map(alone).collect(),
            };
            for (answer, result) in answers.iter().zip(results) {
                // Nobody listens if a thread has panicked.
                let _ = answer.send(result);
            }
        }
    }
}

/// A launch for one request.
fn alone(request: &Request) -> Result<Vec<f64>> {
    Ok(gpu::launch(std::slice::from_ref(request))?.remove(0))
}

/// A place in the rounds.
#[derive(Debug)]
struct Seat(Arc<Rounds>);

impl Seat {
    fn take(rounds: &Arc<Rounds>) -> Self {
        rounds.open().seats += 1;
        Seat(rounds.clone())
    }
}

/// The others may have been waiting only for this one.
impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = self.0.open();
        open.seats -= 1;
        let round = open.complete();
        drop(open);
        self.0.launch(round);
    }
}

/// Does `work` for each item on a thread of its own, which may wait in rounds, or on this one for a single item;
/// returns the results in order.
///
/// A calling thread that belongs to the pool meanwhile works for the pool: in a pool of one thread the others would
/// otherwise wait for ever for what they share among threads.
pub(crate) fn side_by_side<T: Send, R: Send>(
    items: Vec<T>,
    work: impl Fn(T) -> R + Sync,
) -> Vec<R> {
    if items.len() == 1 {
        return items.into_iter().map(work).collect();
    }
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> =
            items.into_iter().map(|item| scope.spawn(move || work(item))).collect();
        while threads.iter().any(|thread| !thread.is_finished()) {
            match rayon::yield_now() {
                Some(rayon::Yield::Executed) => {}
                Some(rayon::Yield::Idle) => thread::sleep(NAP),
                None => break,
            }
        }
        let join = |thread: thread::ScopedJoinHandle<R>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::super::selftest::table;
    use super::*;
    use crate::formula::expression::Expression;

    fn programs(texts: &[&str]) -> Vec<Program> {
        let parse = |text: &&str| Expression::parse(text, &["x", "y", "z"]).unwrap();
        texts.iter().map(parse).map(|e| Program::new(&e)).collect()
    }

    const SHORT: [&str; 3] = ["x + 1.5 * y", "2 * z", "sin(x) / (0.3 + z)"];

    /// Tables of different lengths, losses, parameters and numbers of programs, one of them invalid.
    #[test]
    fn gpu_requests_of_several_tables_are_one_launch_with_the_results_of_each_alone() {
        let Some(gpu) = crate::device::test_gpu() else { return };
        let long = ["0.5 * x * y + 0.25 * z * (x + 1) - 0.125", "x * y", "log(-z)"];
        let tables = [(20, &SHORT[..]), (1500, &long[..]), (300, &SHORT[1..2])];
        let settings = |k: usize| Fit {
            loss: [Loss::Mae, Loss::Mse][k % 2],
            steps: 3 + k as u32,
            scaled: k != 2,
            tolerance: 1e-4,
        };
        let evaluator = Evaluator::new(&gpu);
        let seats = (0..tables.len()).map(|k| (k, evaluator.seated())).collect();
        let found = side_by_side(seats, |(k, evaluator): (usize, Evaluator)| {
            let (rows, texts) = tables[k];
            let rows = table(rows, k as u64, |a, b, c| a * b + 0.2 * c - k as f64);
            let programs = programs(texts);
            let losses = evaluator.score(&rows, &programs, settings(k).loss).unwrap();
            let fitted = evaluator.fit(&rows, &programs, settings(k)).unwrap();
            let alone = super::super::score(&gpu, &rows, &programs, settings(k).loss).unwrap();
            assert_eq!(losses, alone, "table {k}");
            let alone = super::super::fit(&gpu, &rows, &programs, settings(k)).unwrap();
            assert_eq!(fitted, alone, "table {k}");
            fitted
        });
        assert!(found.concat().iter().filter(|f| f.loss.is_finite()).count() == 6, "{found:?}");
        let launches = evaluator.launches().unwrap();
        assert_eq!(launches, Launches { requests: 6, launches: 2 });
    }

    /// A seat that is given up delays nobody, and invalid requests are rejected before the round.
    #[test]
    fn gpu_rounds_go_on_without_those_who_have_left() {
        let Some(gpu) = crate::device::test_gpu() else { return };
        let evaluator = Evaluator::new(&gpu);
        let rows = table(40, 1, |a, b, _| a + b);
        let seats = (0..3).map(|k| (k, evaluator.seated())).collect();
        let counts = side_by_side(seats, |(k, evaluator): (usize, Evaluator)| {
            let ask = |_| evaluator.score(&rows, &programs(&SHORT), Loss::Mae).unwrap().len();
            (0..k).map(ask).sum::<usize>()
        });
        assert_eq!(counts, [0, 3, 6]);
        assert_eq!(evaluator.launches(), Some(Launches { requests: 3, launches: 2 }));
        let seated = evaluator.seated();
        assert!(seated.score(&rows, &[], Loss::Mae).unwrap().is_empty());
        let too_wide = [Program::new(&Expression::variable(3))];
        let error = seated.score(&rows, &too_wide, Loss::Mae).unwrap_err();
        assert!(error.to_string().contains("4 variables"), "{error}");
    }
}
