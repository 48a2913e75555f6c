//! Short pieces of work on all threads of the pool, many times a second: the phases of a training step.
//!
//! A phase takes a fraction of a millisecond, and waking a thread that sleeps may take a tenth of one. So the threads
//! that help look for the next phase for a while before they go back to the pool, and nobody waits for a thread that
//! has not come: the caller works, too, and waits only for pieces that somebody has begun. On a busy machine even that
//! is long, if that somebody has to wait for a processor: as long as members do, there are fewer of them.

use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use rayon::prelude::*;

/// How long a thread looks for the next phase.
const LOOKING: Duration = Duration::from_micros(200);
/// How long the caller looks for the end of the last pieces, before it lets others have its processor.
const WAITING: Duration = Duration::from_micros(50);
/// The time over which members add up how long they have waited for a processor. If that is more than a tenth of it,
/// the next phases have a member less.
const WINDOW: Duration = Duration::from_millis(20);
/// For how long: at first, and at most if it happens again and again.
const PAUSE: [Duration; 2] = [Duration::from_millis(40), Duration::from_millis(1280)];
/// Most threads at a phase, one bit each in [`Crew::present`].
const MOST: usize = 64;

/// The open phase, for all who can help.
struct Crew {
    /// `[number of the phase: 24 bits][pieces: 20][next piece: 20]`: one word, so that nobody takes a piece of a phase
    /// other than the one that was looked at.
    ticket: AtomicU64,
    /// The work of that phase; valid for whoever has taken a piece, until it is done.
    work: AtomicPtr<&'static Work<'static>>,
    /// Threads that may take part.
    members: AtomicUsize,
    /// Pieces done.
    done: AtomicUsize,
    /// Helpers that look for work, or will.
    present: AtomicU64,
    /// Nanoseconds that members have waited for a processor.
    waited: AtomicU64,
    /// Who calls; one at a time.
    caller: Mutex<Caller>,
}

/// A piece of work: its number, and that of the member that does it.
type Work<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// What a caller leaves to the next one.
struct Caller {
    phase: u64,
    /// Most members of a phase, and until when it stays so.
    most: usize,
    until: Option<Instant>,
    pause: Duration,
    /// The most members of a phase in the window, and when it began.
    largest: usize,
    since: Option<Instant>,
}

static CREW: Crew = Crew {
    ticket: AtomicU64::new(0),
    work: AtomicPtr::new(null_mut()),
    members: AtomicUsize::new(0),
    done: AtomicUsize::new(0),
    present: AtomicU64::new(0),
    waited: AtomicU64::new(0),
    caller: Mutex::new(Caller::new()),
};

const FIELD: u64 = 1 << 20;

/// Calls `work(piece, member)` for the pieces `0..count`, on this thread and on those of its pool that look for work. No
/// two pieces that run at the same time have the same member; members are numbers below the number of threads of the
/// pool. Returns when all pieces are done; a panic of a piece is one of the caller.
pub(crate) fn share(count: usize, work: impl Fn(usize, usize) + Sync) {
    let panicked = AtomicBool::new(false);
    let work = |piece: usize, member: usize| {
        if catch_unwind(AssertUnwindSafe(|| work(piece, member))).is_err() {
            panicked.store(true, Ordering::Relaxed);
        }
    };
    let members = rayon::current_num_threads().min(count);
    let fits = count < FIELD as usize && members <= MOST;
    if members < 2 {
        (0..count).for_each(|piece| work(piece, 0));
    } else if let Some(mut caller) = CREW.caller().filter(|_| fits) {
        caller.share(count, members, &work);
    } else {
        (0..count).into_par_iter().for_each(|piece| {
            work(piece, rayon::current_thread_index().unwrap_or(0));
        });
    }
    if panicked.into_inner() {
        resume_unwind(Box::new("a piece of work panicked"));
    }
}

/// The results of `work(item, member)` for each item, in order, as [`share`] does it.
pub(crate) fn share_each<T: Send, R: Send>(
    items: Vec<T>,
    work: impl Fn(T, usize) -> R + Sync,
) -> Vec<R> {
    let each: Vec<Mutex<(Option<T>, Option<R>)>> =
        items.into_iter().map(|item| Mutex::new((Some(item), None))).collect();
    share(each.len(), |piece, member| {
        let mut own = each[piece].lock().expect("a piece is taken once");
        let item = own.0.take().expect("a piece is taken once");
        own.1 = Some(work(item, member));
    });
    let result = |own: Mutex<(Option<T>, Option<R>)>| own.into_inner().ok()?.1;
    each.into_iter().map(|own| result(own).expect("all pieces are done")).collect()
}

impl Caller {
    const fn new() -> Self {
        Caller { phase: 0, most: MOST, until: None, pause: PAUSE[0], largest: 1, since: None }
    }

    fn share(&mut self, count: usize, members: usize, work: &Work) {
        let members = members.min(self.most);
        if members == 1 {
            (0..count).for_each(|piece| work(piece, 0));
            return self.adapt(1, Instant::now());
        }
        // SAFETY: only the lifetime is extended: nobody uses the work after this function has seen all pieces done.
        let mut work = unsafe { std::mem::transmute::<&Work, &'static Work<'static>>(work) };
        CREW.work.store(&raw mut work, Ordering::Relaxed);
        CREW.members.store(members, Ordering::Relaxed);
        CREW.done.store(0, Ordering::Relaxed);
        self.phase = (self.phase + 1) % (1 << 24);
        CREW.ticket.store((self.phase * FIELD + count as u64) * FIELD, Ordering::Release);
        call(members);
        while CREW.piece(0) {}
        let waiting = Instant::now();
        while CREW.done.load(Ordering::Acquire) < count {
            match waiting.elapsed() < WAITING {
                true => spin_loop(),
                false => thread::sleep(WAITING),
            }
        }
        self.adapt(members, Instant::now());
    }

    /// Decides, after a phase of this many members, how many the next ones may have.
    fn adapt(&mut self, members: usize, now: Instant) {
        if let Some(until) = self.until {
            if now >= until {
                // One more, on trial.
                self.most += 1;
                self.until = None;
                self.since = None;
            }
            return;
        }
        let since = *self.since.get_or_insert_with(|| {
            self.largest = 1;
            CREW.waited.store(0, Ordering::Relaxed);
            waited();
            now
        });
        self.largest = self.largest.max(members);
        if now - since < WINDOW {
            return;
        }
        self.since = None;
        let waited = CREW.waited.load(Ordering::Relaxed) + waited();
        if u128::from(waited) > (now - since).as_nanos() / 10 {
            self.most = (self.largest - 1).max(1);
            self.until = Some(now + self.pause);
            self.pause = (2 * self.pause).min(PAUSE[1]);
        } else {
            self.pause = PAUSE[0];
            self.most = MOST.min(self.most + 1);
        }
    }
}

/// Nanoseconds that this thread has waited for a processor since it last asked: the second number of its `schedstat`
/// (Documentation/scheduler/sched-stats.rst of Linux). 0 where there is none.
fn waited() -> u64 {
    #[cfg(target_os = "linux")]
    {
        use std::cell::Cell;
        use std::fs::File;
        use std::os::unix::fs::FileExt;
        thread_local! {
            static BEFORE: Cell<u64> = const { Cell::new(0) };
            static FILE: Option<File> = File::open("/proc/thread-self/schedstat").ok();
        }
        let mut text = [0; 64];
        let read = FILE.with(|file| file.as_ref()?.read_at(&mut text, 0).ok()).unwrap_or(0);
        let text = std::str::from_utf8(&text[..read]).unwrap_or_default();
        let now: u64 = text.split(' ').nth(1).and_then(|number| number.parse().ok()).unwrap_or(0);
        now.saturating_sub(BEFORE.replace(now))
    }
    #[cfg(not(target_os = "linux"))]
    0
}

impl Crew {
    /// The right to call; `None` during somebody else's phase, or in a piece that has pieces itself.
    fn caller(&self) -> Option<MutexGuard<'_, Caller>> {
        match self.caller.try_lock() {
            Ok(caller) => Some(caller),
            Err(TryLockError::Poisoned(caller)) => Some(caller.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Takes a piece of the open phase and does it; false if there is none.
    fn piece(&self, member: usize) -> bool {
        let mut ticket = self.ticket.load(Ordering::Acquire);
        loop {
            let (next, count) = (ticket % FIELD, ticket / FIELD % FIELD);
            if next >= count || member >= self.members.load(Ordering::Relaxed) {
                return false;
            }
            // What is read before the piece is taken belongs to its phase: the caller writes it only when all pieces
            // of the phase before are taken, and this would fail then.
            let work = self.work.load(Ordering::Relaxed);
            let taken = self.ticket.compare_exchange_weak(
                ticket,
                ticket + 1,
                Ordering::AcqRel,
                Ordering::Acquire,
            );
            match taken {
                Err(now) => ticket = now,
                Ok(_) => {
                    // SAFETY: the caller waits until this piece is done. It does not unwind (see `share`).
                    let work: &Work = unsafe { *work };
                    work(next as usize, member);
                    self.done.fetch_add(1, Ordering::Release);
                    return true;
                }
            }
        }
    }
}

/// Asks the pool for the helpers that are missing.
fn call(members: usize) {
    let caller = rayon::current_thread_index();
    for number in 1..members {
        let bit = 1 << number;
        if CREW.present.load(Ordering::Relaxed) & bit == 0 {
            CREW.present.fetch_or(bit, Ordering::Relaxed);
            rayon::spawn(move || {
                // A caller that waits for something else in the pool may find its own call for help.
                if caller.is_none() || caller != rayon::current_thread_index() {
                    help(number);
                }
                CREW.present.fetch_and(!bit, Ordering::Relaxed);
            });
        }
    }
}

/// Does pieces until there have been none for a while.
fn help(number: usize) {
    let mut last = Instant::now();
    let mut told = last;
    waited();
    while last.elapsed() < LOOKING {
        if CREW.piece(number) {
            last = Instant::now();
            if last - told > WINDOW / 8 {
                told = last;
                CREW.waited.fetch_add(waited(), Ordering::Relaxed);
            }
        } else {
            (0..16).for_each(|_| spin_loop());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds up 0..count in `[member]` sums.
    fn sum(count: usize) -> usize {
        let sums: Vec<AtomicUsize> =
            (0..rayon::current_num_threads()).map(|_| AtomicUsize::new(0)).collect();
        share(count, |piece, member| {
            sums[member].fetch_add(piece, Ordering::Relaxed);
        });
        sums.iter().map(|sum| sum.load(Ordering::Relaxed)).sum()
    }

    fn pool(threads: usize) -> rayon::ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
    }

    #[test]
    fn every_piece_is_done_once() {
        for threads in [1, 2, 3, 7] {
            pool(threads).install(|| {
                for count in (0..200).chain([1000, FIELD as usize + 1]) {
                    assert_eq!(sum(count), count * count.saturating_sub(1) / 2, "{count}");
                }
            });
        }
        assert_eq!(sum(100), 4950);
    }

    #[test]
    fn results_come_in_order() {
        let items: Vec<String> = (0..100).map(|i| i.to_string()).collect();
        let found = pool(3).install(|| share_each(items, |item, _| item.parse::<usize>().unwrap()));
        assert!(found.into_iter().eq(0..100));
    }

    #[test]
    fn members_work_one_piece_at_a_time() {
        pool(4).install(|| {
            for _ in 0..200 {
                let busy: Vec<AtomicBool> = (0..4).map(|_| AtomicBool::new(false)).collect();
                share(50, |_, member| {
                    assert!(!busy[member].swap(true, Ordering::SeqCst));
                    std::hint::black_box((0..100).sum::<usize>());
                    busy[member].store(false, Ordering::SeqCst);
                });
            }
        });
    }

    #[test]
    fn callers_at_the_same_time_and_calls_within_calls_do_not_meet() {
        let pool = pool(3);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        assert_eq!(pool.install(|| sum(33)), 528);
                        let total = AtomicUsize::new(0);
                        pool.install(|| {
                            share(5, |_, _| {
                                total.fetch_add(sum(10), Ordering::Relaxed);
                            });
                        });
                        assert_eq!(total.into_inner(), 225);
                    }
                });
            }
        });
    }

    #[test]
    fn a_panic_reaches_the_caller_after_all_pieces() {
        let done = AtomicUsize::new(0);
        let found = catch_unwind(AssertUnwindSafe(|| {
            pool(2).install(|| {
                share(20, |piece, _| {
                    assert!(piece != 7);
                    done.fetch_add(1, Ordering::Relaxed);
                });
            });
        }));
        assert!(found.is_err());
        assert_eq!(done.into_inner(), 19);
        assert_eq!(sum(10), 45);
    }

    #[test]
    fn members_that_wait_stay_away_for_a_while() {
        let _alone = CREW.caller.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (mut caller, begun) = (Caller::new(), Instant::now());
        // A window in which members waited all the time; when it ended.
        let window = |caller: &mut Caller, members: usize, from: Instant| {
            caller.adapt(members, from);
            CREW.waited.store(WINDOW.as_nanos() as u64, Ordering::Relaxed);
            caller.adapt(members, from + WINDOW);
            from + WINDOW
        };
        window(&mut caller, 4, begun);
        assert_eq!(caller.most, 3);
        let mut now = caller.until.unwrap();
        caller.adapt(3, now);
        assert_eq!((caller.most, caller.until), (4, None));
        // The pauses grow.
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let ended = window(&mut caller, 2, now);
            assert_eq!(caller.most, 1);
            now = caller.until.unwrap();
            pauses.push(now - ended);
            caller.adapt(1, now);
        }
        assert!(pauses.is_sorted() && pauses[7] == PAUSE[1], "{pauses:?}");
    }
}
