//! Throughput of every operation, compared with the limits of this machine.
//!
//! The floor of an operation is the larger of flops / peak and bytes / bandwidth, where peak and
//! bandwidth have just been measured on all threads (`ceilings/`), and flops and bytes are what the
//! mathematics requires, not what an implementation does. Fraction of floor = floor / median time.
//!
//! On a GPU the data are on the device before the first call, and times are from the device's clock.

pub(crate) mod ceilings;
pub mod compare;
mod operations;
pub mod trees;

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::device::meter::{Meter, Reading};
use crate::device::{Device, Gpu};
use crate::error::{Error, Result};
use crate::model::Precision;
use crate::observer::Observer;
use crate::ops::check_precision;
pub use ceilings::Ceilings;
use operations::OPERATIONS;

/// Time of the warm-up before a measurement, as a fraction of the time of the measurement.
const WARM_UP: f64 = 0.2;
/// Number of times measured: at least (slow operations), and at most (fast ones).
const REPEATS: std::ops::RangeInclusive<usize> = 5..=10_000;
/// On a GPU each time spans as many calls as take about this many seconds: the host enqueues them
/// ahead of the device, as in training.
const SPAN: f64 = 1e-3;
const MOST_CALLS: f64 = 1000.0;
/// The stand-in driver tests that operations can be measured, not how fast they are: it gets this fraction
/// of the work (one Nth), once.
const STAND_IN: usize = 64;

/// One measured operation; one object of `bench --json`.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    /// Name of the operation.
    pub op: String,
    /// Where it ran.
    pub device: String,
    /// Description of the problem size.
    pub size: String,
    /// Arithmetic: f32, bf16, f64.
    pub precision: String,
    /// Median time of a call.
    pub seconds: f64,
    /// Shortest time.
    pub seconds_min: f64,
    /// 90th percentile of the times.
    pub seconds_p90: f64,
    /// Number of times measured.
    pub repeats: usize,
    /// Work per second, from the median.
    pub rate: f64,
    /// What the rate counts.
    pub unit: String,
    /// Least time that the machine needs; `None` if the work cannot be counted honestly.
    pub floor_seconds: Option<f64>,
    /// floor_seconds / seconds.
    pub fraction_of_floor: Option<f64>,
    /// Median relative energy drift, if the operation integrates motion.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub energy_drift: Option<f64>,
    /// The commit that the program was built from.
    pub commit: &'static str,
    /// The state of a GPU.
    #[serde(flatten)]
    pub gpu: Option<Reading>,
    /// seconds / seconds of an earlier measurement, if there is one to compare with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
}

/// The work of one call of an operation.
struct Work {
    op: &'static str,
    size: String,
    precision: Arithmetic,
    /// Units of work per call, and the unit of the rate.
    count: f64,
    unit: &'static str,
    /// Floating-point operations, an FMA counting as two; `None` if they depend on the data.
    flops: Option<f64>,
    /// Bytes that must be read and written.
    bytes: f64,
}

/// The arithmetic that determines the peak for a floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arithmetic {
    F32,
    Bf16,
    F64,
}

impl Arithmetic {
    fn name(self) -> &'static str {
        match self {
            Arithmetic::F32 => "f32",
            Arithmetic::Bf16 => "bf16",
            Arithmetic::F64 => "f64",
        }
    }
}

/// An operation to measure: all its cases, or only those in one arithmetic.
struct Selected {
    op: &'static str,
    only: Option<Arithmetic>,
}

impl Selected {
    /// Reads `edge`, or `edge:bf16`.
    fn parse(text: &str) -> Result<Self> {
        let wrong = |message: String| Error::usage(message).field("op");
        let (name, only) = match text.split_once(':') {
            Some((name, only)) => (name, Some(only)),
            None => (text, None),
        };
        let Some(&(op, types)) = OPERATIONS.iter().find(|(op, _)| *op == name) else {
            let names = OPERATIONS.map(|(op, _)| op).join(", ");
            return Err(wrong(format!("'{name}' is not an operation; the operations are {names}")));
        };
        let named = |only: &str| types.iter().copied().find(|known| known.name() == only);
        let only = match only {
            Some(only) => Some(named(only).ok_or_else(|| {
                let types: Vec<_> = types.iter().map(|known| known.name()).collect();
                wrong(format!("'{text}': {op} is measured in {}", types.join(" and ")))
            })?),
            None => None,
        };
        Ok(Selected { op, only })
    }
}

/// Measures the named operations, or all if none is named, on `device`, each case for `seconds`. A name is that of an
/// operation; with an arithmetic, as in `edge:bf16`, it selects some of its cases. Without one, cases in bf16 are left
/// out on a device that lacks it, and the observer is told. `report` is called after each case.
///
/// # Errors
/// An unknown name; errors of the device and of `report`.
pub fn run(
    device: &Device,
    names: &[String],
    seconds: f64,
    observer: &dyn Observer,
    mut report: impl FnMut(&Measurement) -> Result<()>,
) -> Result<Vec<Measurement>> {
    let mut selected: Vec<Selected> =
        names.iter().map(|name| Selected::parse(name)).collect::<Result<_>>()?;
    if selected.is_empty() {
        selected.extend(OPERATIONS.map(|(op, _)| Selected { op, only: None }));
    }
    let lacks_bf16 = check_precision(device, Precision::Bf16).err();
    if let Some(reason) = &lacks_bf16
        && selected.iter().any(|Selected { op, only }| only.is_none() && in_bf16(op))
    {
        observer.note(&format!("cases in bf16 are left out: {}", reason.message));
    }
    let budget = Duration::from_secs_f64(seconds);
    let ceilings = Ceilings::measure(device)?;
    let harness = Harness { device, ceilings, budget, observer };
    let mut all = Vec::new();
    for Selected { op, only } in selected {
        let wanted = |arithmetic: Arithmetic| match only {
            Some(only) => arithmetic == only,
            None => arithmetic != Arithmetic::Bf16 || lacks_bf16.is_none(),
        };
        operations::measure(op, &harness, &wanted, &mut |measurement| {
            report(&measurement)?;
            all.push(measurement);
            Ok(())
        })?;
    }
    Ok(all)
}

/// True for an operation that has cases in bf16.
fn in_bf16(op: &str) -> bool {
    OPERATIONS.iter().any(|(name, types)| *name == op && types.contains(&Arithmetic::Bf16))
}

/// Where to measure, the limits to compare with, and for how long.
struct Harness<'a> {
    device: &'a Device,
    ceilings: Ceilings,
    /// Time of one measurement, without the warm-up.
    budget: Duration,
    observer: &'a dyn Observer,
}

impl Harness<'_> {
    /// The size to measure at instead of `count`: smaller on the stand-in driver.
    fn size(&self, count: usize) -> usize {
        if self.is_emulated() { count.div_ceil(STAND_IN) } else { count }
    }

    fn on_gpu(&self) -> bool {
        matches!(self.device, Device::Gpu(_))
    }

    fn is_emulated(&self) -> bool {
        matches!(self.device, Device::Gpu(gpu) if gpu.is_emulated())
    }

    /// Times `call` repeatedly within the budget, after a warm-up. On a GPU `call` only enqueues its work.
    fn measure(&self, work: Work, call: impl FnMut() -> Result<()>) -> Result<Measurement> {
        self.measure_steps(work, 1, call)
    }

    /// The same for a call that does the work `steps` times; times are per step.
    fn measure_steps(
        &self,
        work: Work,
        steps: usize,
        mut call: impl FnMut() -> Result<()>,
    ) -> Result<Measurement> {
        let (warm_up, budget, least) = match self.is_emulated() {
            true => (Duration::ZERO, Duration::ZERO, 1),
            false => (self.budget.mul_f64(WARM_UP), self.budget, *REPEATS.start()),
        };
        let begun = Instant::now();
        let mut shortest = f64::INFINITY;
        loop {
            shortest = self.span(1, &mut call)?.min(shortest);
            if begun.elapsed() > warm_up {
                break;
            }
        }
        let (meter, calls) = match self.device {
            Device::Cpu(_) => (None, 1),
            Device::Gpu(gpu) => {
                let calls = (SPAN / shortest).ceil().clamp(1.0, MOST_CALLS);
                (Some(Meter::start(*gpu)), calls as usize)
            }
        };
        let mut times = Vec::new();
        let begun = Instant::now();
        while times.len() < least || (begun.elapsed() < budget && times.len() < *REPEATS.end()) {
            times.push(self.span(calls, &mut call)? / (calls * steps) as f64);
            if self.observer.stop() {
                return Err(Error::interrupted("stopped while measuring"));
            }
        }
        let gpu = meter.map(|meter| meter.read(calls * steps * times.len()));
        let floor = work.flops.map(|flops| {
            let peak = match work.precision {
                Arithmetic::F32 => self.ceilings.f32_flops.rate(),
                Arithmetic::Bf16 => self.ceilings.bf16_rate(),
                Arithmetic::F64 => self.ceilings.f64_flops.rate(),
            };
            (flops / peak).max(work.bytes / self.ceilings.bandwidth(work.bytes))
        });
        Ok(Measurement { gpu, ..measurement(self.device, &work, times, floor) })
    }

    /// Seconds that `calls` calls take together.
    fn span(&self, calls: usize, call: &mut impl FnMut() -> Result<()>) -> Result<f64> {
        let mut all = || (0..calls).try_for_each(|_| call());
        match self.device {
            Device::Cpu(_) => {
                let begun = Instant::now();
                all()?;
                Ok(begun.elapsed().as_secs_f64())
            }
            Device::Gpu(gpu) => seconds(*gpu, all),
        }
    }
}

/// Seconds on the device's clock for the work that `enqueue` enqueues; waits for it.
fn seconds(gpu: Gpu, enqueue: impl FnOnce() -> Result<()>) -> Result<f64> {
    let begun = gpu.moment()?;
    enqueue()?;
    begun.seconds_to(&gpu.moment()?)
}

fn measurement(
    device: &Device,
    work: &Work,
    mut times: Vec<f64>,
    floor: Option<f64>,
) -> Measurement {
    times.sort_by(f64::total_cmp);
    let seconds = times[times.len() / 2];
    Measurement {
        op: work.op.into(),
        device: device.describe(),
        size: work.size.clone(),
        precision: work.precision.name().into(),
        seconds,
        seconds_min: times[0],
        seconds_p90: times[(times.len() * 9 / 10).min(times.len() - 1)],
        repeats: times.len(),
        rate: work.count / seconds,
        unit: work.unit.into(),
        floor_seconds: floor,
        fraction_of_floor: floor.map(|floor| floor / seconds),
        energy_drift: None,
        commit: env!("LAWSMITH_COMMIT"),
        gpu: None,
        ratio: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_of_known_times() {
        let work = Work {
            op: "test",
            size: String::new(),
            precision: Arithmetic::F32,
            count: 6.0,
            unit: "things/s",
            flops: Some(1.0),
            bytes: 0.0,
        };
        let times: Vec<f64> = (1..=10).rev().map(f64::from).collect();
        let found = measurement(&Device::cpu(), &work, times, Some(3.0));
        assert_eq!((found.seconds_min, found.seconds, found.seconds_p90), (1.0, 6.0, 10.0));
        assert_eq!((found.repeats, found.rate, found.fraction_of_floor), (10, 1.0, Some(0.5)));
    }

    #[test]
    fn an_unknown_operation_or_arithmetic_is_an_error_that_lists_the_known() {
        let error = |name: &str| {
            let nothing = |_: &Measurement| panic!("nothing is measured");
            run(&Device::cpu(), &["adam".into(), name.into()], 0.1, &(), nothing).unwrap_err()
        };
        assert!(error("fft").to_string().contains("adam"));
        assert!(error("fft:f32").to_string().contains("'fft' is not an operation"));
        assert!(error("rk4:f32").to_string().contains("rk4 is measured in f64"));
        assert!(error("edge:tf32").to_string().contains("edge is measured in f32 and bf16"));
    }
}
