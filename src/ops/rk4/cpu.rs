//! Integration on the CPU: vectors of systems, rayon over groups of them.

use rayon::prelude::*;

use super::dop853::Stepper;
use super::{Batch, Frames, Integrator};
use crate::device::{Cpu, Simd};
use crate::error::{Error, Result};
use crate::law::{Law, Pair, laws};
use crate::simd::f64s::{Lanes, MAX_WIDTH};

/// Runs of one task: enough to refill lanes that finish early, few enough for many tasks.
const RUNS_PER_TASK: usize = 128;

/// See [`super::integrate`].
pub(super) fn integrate(
    cpu: &Cpu,
    batch: &Batch,
    states: &mut [f64],
    frames: Frames,
) -> Result<()> {
    let Batch { dim, bodies, .. } = *batch;
    let stored = RUNS_PER_TASK * batch.frames * bodies * dim;
    states
        .par_chunks_mut(RUNS_PER_TASK * 2 * bodies * dim)
        .zip(frames.positions.par_chunks_mut(stored))
        .zip(frames.velocities.par_chunks_mut(stored))
        .zip(frames.accelerations.par_chunks_mut(stored))
        .enumerate()
        .try_for_each(|(index, (((states, positions), velocities), accelerations))| {
            let first = index * RUNS_PER_TASK;
            let frames = Frames { positions, velocities, accelerations };
            let task = Task { batch, first, states, frames };
            match cpu.simd().vectors() {
                // SAFETY: `Cpu` holds the detected level, or a lower one.
                #[cfg(target_arch = "x86_64")]
                Simd::Avx512 => unsafe { avx512::run(task) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Simd::Avx2 => unsafe { avx2::run(task) },
                _ => run::<f64>(task),
            }
        })
}

/// The runs that one thread integrates on its own.
struct Task<'a> {
    batch: &'a Batch<'a>,
    /// The first run of the task, counted within the batch.
    first: usize,
    states: &'a mut [f64],
    frames: Frames<'a>,
}

/// Masses and charges of the systems in the lanes, body by body, and the law between them.
pub(super) struct Systems<'a, V> {
    law: &'a Law,
    dim: usize,
    /// The drag on a body from all its pairs.
    drag: V,
    mass: Vec<V>,
    inverse_mass: Vec<V>,
    charge: Vec<V>,
}

/// A vector level: its lanes, and the derivative compiled for its instructions.
pub(super) trait Level: Lanes {
    /// k = f(y), both `[2, body, dim]`.
    fn derivative(systems: &Systems<Self>, y: &[Self], k: &mut [Self]);
}

macro_rules! level {
    ($module:ident, $lanes:ty, $features:literal) => {
        #[cfg(target_arch = "x86_64")]
        mod $module {
            use super::{Level, Systems, Task};
            use crate::error::Result;

            #[target_feature(enable = $features)]
            pub(super) fn run(task: Task) -> Result<()> {
                super::run::<$lanes>(task)
            }

            #[target_feature(enable = $features)]
            fn derivative(systems: &Systems<$lanes>, y: &[$lanes], k: &mut [$lanes]) {
                super::derivative(systems, y, k)
            }

            impl Level for $lanes {
                #[inline(always)]
                fn derivative(systems: &Systems<Self>, y: &[Self], k: &mut [Self]) {
                    // SAFETY: called only from `run` above, which needs the same instructions.
                    unsafe { derivative(systems, y, k) }
                }
            }
        }
    };
}
level!(avx512, crate::simd::f64s::F64x8, "avx512f,avx512dq,avx512vl,avx2,fma");
level!(avx2, crate::simd::f64s::F64x4, "avx2,fma");

impl Level for f64 {
    fn derivative(systems: &Systems<f64>, y: &[f64], k: &mut [f64]) {
        derivative(systems, y, k)
    }
}

/// Picks law, dimension and, for small systems, the number of bodies at compile time.
#[inline(always)]
fn derivative<V: Lanes>(systems: &Systems<V>, y: &[V], k: &mut [V]) {
    // A constant law in each arm lets the compiler drop the others.
    macro_rules! arms {
        ($(
            $(#[$doc:meta])* $law:ident $name:literal $row:tt
            potential $bodies:tt $potential:tt
            pull $pair:tt $pull:tt
        )*) => {
            match systems.law {
                $(Law::$law => sized(&Law::$law, systems, y, k),)*
                law @ Law::Potential(_) => sized(law, systems, y, k),
            }
        };
    }
    laws!(arms)
}

#[inline(always)]
fn sized<V: Lanes>(law: &Law, systems: &Systems<V>, y: &[V], k: &mut [V]) {
    match (systems.dim, systems.mass.len()) {
        (2, 4) => pairs::<V, 2>(law, 4, systems, y, k),
        (2, bodies) => pairs::<V, 2>(law, bodies, systems, y, k),
        (_, bodies) => pairs::<V, 3>(law, bodies, systems, y, k),
    }
}

/// Velocities and accelerations: each pair once, action = reaction.
#[inline(always)]
fn pairs<V: Lanes, const D: usize>(
    law: &Law,
    bodies: usize,
    systems: &Systems<V>,
    y: &[V],
    k: &mut [V],
) {
    let Systems { mass, inverse_mass, charge, drag, .. } = systems;
    let (position, velocity) = y[..2 * bodies * D].split_at(bodies * D);
    let (k_position, acceleration) = k[..2 * bodies * D].split_at_mut(bodies * D);
    k_position.copy_from_slice(velocity);
    acceleration.fill(V::splat(0.0));
    for i in 0..bodies {
        for j in i + 1..bodies {
            let mut d = [V::splat(0.0); D];
            // Not 0 if two bodies coincide: then 0 · (1 / r) is 0, not NaN.
            let mut square = V::splat(f64::MIN_POSITIVE);
            for (c, d) in d.iter_mut().enumerate() {
                *d = position[i * D + c] - position[j * D + c];
                square = d.mul_add(*d, square);
            }
            let inverse_r = square.inverse_sqrt();
            let r = square * inverse_r;
            let (m1, m2, q1, q2) = (mass[i], mass[j], charge[i], charge[j]);
            let on_i = law.pull(&Pair { r, inverse_r, m1, m2, q1, q2 });
            let on_j = if law.is_symmetric() {
                on_i
            } else {
                law.pull(&Pair { r, inverse_r, m1: m2, m2: m1, q1: q2, q2: q1 })
            };
            for (c, d) in d.into_iter().enumerate() {
                let (a, b) = (i * D + c, j * D + c);
                acceleration[a] = on_i.neg_mul_add(d, acceleration[a]);
                acceleration[b] = on_j.mul_add(d, acceleration[b]);
            }
        }
    }
    for (i, inverse_mass) in inverse_mass[..bodies].iter().enumerate() {
        for c in i * D..(i + 1) * D {
            let mut force = acceleration[c];
            if law.is_damped() {
                force = drag.neg_mul_add(velocity[c], force);
            }
            acceleration[c] = force * *inverse_mass;
        }
    }
}

#[inline(always)]
fn run<V: Level>(mut task: Task) -> Result<()> {
    match task.batch.integrator {
        Integrator::Rk4 { substeps } => rk4::<V>(&mut task, substeps),
        Integrator::Adaptive { tolerance } => adaptive::<V>(&mut task, tolerance),
    }
}

/// Classical Runge–Kutta, one vector of systems after another.
#[inline(always)]
fn rk4<V: Level>(task: &mut Task, substeps: usize) -> Result<()> {
    let Batch { dim, bodies, dt, frames, .. } = *task.batch;
    let size = 2 * bodies * dim;
    let runs = task.states.len() / size;
    let zero = vec![V::splat(0.0); size];
    let [mut y, mut stage, mut k, mut sum] = std::array::from_fn(|_| zero.clone());
    let h = dt / substeps as f64;
    // y_stage = y + (offset of the next stage) k; sum += weight k
    let stages = [(0.5, 1.0), (0.5, 2.0), (1.0, 2.0), (0.0, 1.0)];
    for first in (0..runs).step_by(V::WIDTH) {
        let used = (runs - first).min(V::WIDTH);
        let lane = |l: usize| first + l.min(used - 1);
        let systems = systems(task.batch, |l| task.first + lane(l));
        for (c, y) in y.iter_mut().enumerate() {
            *y = gather(|l| task.states[lane(l) * size + c]);
        }
        for frame in 0..frames {
            V::derivative(&systems, &y, &mut k);
            task.store(&y, &k[size / 2..], used, |l| (first + l, frame))?;
            if frame + 1 == frames {
                break;
            }
            if task.batch.observer.stop() {
                return Err(Error::interrupted("interrupted: nothing was written"));
            }
            for step in 0..substeps {
                if step > 0 {
                    V::derivative(&systems, &y, &mut k);
                }
                sum.copy_from_slice(&zero);
                for (offset, weight) in stages {
                    let (offset_h, weight) = (V::splat(offset * h), V::splat(weight));
                    let rows = sum.iter_mut().zip(&mut stage).zip(k.iter().zip(&y));
                    for ((sum, stage), (k, y)) in rows {
                        *sum = k.mul_add(weight, *sum);
                        *stage = k.mul_add(offset_h, *y);
                    }
                    if offset > 0.0 {
                        V::derivative(&systems, &stage, &mut k);
                    }
                }
                for (y, sum) in y.iter_mut().zip(&sum) {
                    *y = sum.mul_add(V::splat(h / 6.0), *y);
                }
            }
        }
        for (c, y) in y.iter().enumerate() {
            let mut values = [0.0; MAX_WIDTH];
            y.store(&mut values);
            for (l, value) in values[..used].iter().enumerate() {
                task.states[(first + l) * size + c] = *value;
            }
        }
    }
    Ok(())
}

/// The state of one lane.
#[derive(Clone, Copy, Default)]
struct Lane {
    /// The run in it, counted within the task; `None` if there are no more.
    run: Option<usize>,
    /// The first frame not yet stored.
    frame: usize,
    /// Time at the start of the step.
    time: f64,
    /// Size of the step.
    step: f64,
    /// True if the previous step was rejected: this one may not grow.
    rejected: bool,
}

/// Error-controlled steps, with a separate step size in each lane; a lane that is done takes the next run.
#[inline(always)]
fn adaptive<V: Level>(task: &mut Task, tolerance: f64) -> Result<()> {
    let Batch { dim, bodies, dt, frames, .. } = *task.batch;
    let size = 2 * bodies * dim;
    let mut waiting = 0..task.states.len() / size;
    let end = (frames - 1) as f64 * dt;
    let mut lanes = vec![Lane::default(); V::WIDTH];
    // The system of each lane replicated in all lanes, for its frames.
    let first = task.first;
    let alone = |run: usize| systems::<V>(task.batch, |_| first + run);
    let mut alone_in: Vec<_> = lanes.iter().map(|_| alone(0)).collect();
    let mut together = alone(0);
    let mut stepper = Stepper::<V>::new(size);
    let [mut state, mut k] = std::array::from_fn(|_| vec![V::splat(0.0); size]);
    loop {
        let mut filled = false;
        for (l, lane) in lanes.iter_mut().enumerate() {
            if lane.run.is_none()
                && let Some(run) = waiting.next()
            {
                // The frame interval is a fair first guess: too small costs a step, too large a rejection.
                *lane = Lane { run: Some(run), step: dt, ..Lane::default() };
                stepper.fill(l, &task.states[run * size..][..size]);
                alone_in[l] = alone(run);
                filled = true;
            }
        }
        if lanes.iter().all(|lane| lane.run.is_none()) {
            return Ok(());
        }
        if filled {
            together = systems(task.batch, |l| first + lanes[l].run.unwrap_or(0));
            stepper.begin(&together);
        }
        for lane in &mut lanes {
            // The last step ends at the last frame; a lane that is done stands still.
            let left = end - lane.time;
            let active = lane.run.is_some();
            lane.step =
                if !active { 0.0 } else { if 1.01 * lane.step < left { lane.step } else { left } };
        }
        let h = gather(|l| lanes[l].step);
        let error = stepper.attempt(&together, h, tolerance);
        let (mut errors, mut factors) = ([0.0; MAX_WIDTH], [0.0; MAX_WIDTH]);
        error.store(&mut errors);
        // 0.9 error^(−1/8); at most 10, at least 0.2, also if the error is not finite.
        let factor = V::splat(0.9) * error.sqrt().sqrt().sqrt().inverse();
        factor.store(&mut factors);

        let mut interpolated = false;
        for (l, lane) in lanes.iter_mut().enumerate() {
            let Some(run) = lane.run else { continue };
            let factor = factors[l].min(if lane.rejected { 1.0 } else { 10.0 }).max(0.2);
            let accepted = errors[l] < 1.0;
            lane.rejected = !accepted;
            if !accepted {
                lane.step *= if errors[l].is_finite() { factor } else { 0.2 };
                if lane.step < 1e-14 * (lane.time + dt) {
                    return Err(task.error(run, lane.time));
                }
                continue;
            }
            let done = lane.time + lane.step >= end;
            let mut until = lane.frame;
            while until < frames && (done || until as f64 * dt <= lane.time + lane.step) {
                until += 1;
            }
            if until > lane.frame && !interpolated {
                stepper.interpolate(&together, h);
                interpolated = true;
            }
            for frame in (lane.frame..until).step_by(V::WIDTH) {
                let theta = gather(|i| {
                    let time = (frame + i).min(until - 1) as f64 * dt;
                    ((time - lane.time) / lane.step.max(f64::MIN_POSITIVE)).clamp(0.0, 1.0)
                });
                stepper.at(l, theta, &mut state);
                V::derivative(&alone_in[l], &state, &mut k);
                let used = (until - frame).min(V::WIDTH);
                task.store(&state, &k[size / 2..], used, |i| (run, frame + i))?;
            }
            lane.frame = until;
            lane.time += lane.step;
            lane.step *= factor;
            if done {
                for (c, end) in stepper.end().iter().enumerate() {
                    let mut values = [0.0; MAX_WIDTH];
                    end.store(&mut values);
                    task.states[run * size + c] = values[l];
                }
                lane.run = None;
            }
        }
        stepper.accept(error);
        if task.batch.observer.stop() {
            return Err(Error::interrupted("interrupted: nothing was written"));
        }
    }
}

/// The systems in the lanes; `run` gives the run of the batch in lane l.
#[inline(always)]
fn systems<'a, V: Lanes>(batch: &Batch<'a>, run: impl Fn(usize) -> usize) -> Systems<'a, V> {
    let Batch { law, dim, bodies, masses, charges, .. } = *batch;
    let all = |value: &dyn Fn(usize) -> f64| -> Vec<V> {
        (0..bodies).map(|b| gather(|l| value(run(l) * bodies + b))).collect()
    };
    Systems {
        law,
        dim,
        drag: V::splat((bodies - 1) as f64 * law.drag(bodies)),
        mass: all(&|at| masses[at]),
        inverse_mass: all(&|at| 1.0 / masses[at]),
        charge: all(&|at| charges[at]),
    }
}

/// Writes lane l of `values` to `out[rows[l]..]`, as f32.
#[inline(always)]
fn transpose<V: Lanes>(values: &[V], rows: &[usize], out: &mut [f32]) {
    const BLOCK: usize = 8;
    for (at, values) in values.chunks(BLOCK).enumerate() {
        let mut block = [[0.0; MAX_WIDTH]; BLOCK];
        for (lanes, value) in block.iter_mut().zip(values) {
            value.store(lanes);
        }
        for (l, row) in rows.iter().enumerate() {
            let out = &mut out[row + at * BLOCK..][..values.len()];
            for (out, lanes) in out.iter_mut().zip(&block) {
                *out = lanes[l] as f32;
            }
        }
    }
}

#[inline(always)]
fn gather<V: Lanes>(value: impl Fn(usize) -> f64) -> V {
    let mut values = [0.0; MAX_WIDTH];
    for (l, slot) in values[..V::WIDTH].iter_mut().enumerate() {
        *slot = value(l);
    }
    V::load(&values)
}

impl Task<'_> {
    /// Stores the states in the first `used` lanes; `place` gives run and frame of each.
    #[inline(always)]
    fn store<V: Lanes>(
        &mut self,
        y: &[V],
        acceleration: &[V],
        used: usize,
        place: impl Fn(usize) -> (usize, usize),
    ) -> Result<()> {
        let Batch { frames, bodies, dim, dt, .. } = *self.batch;
        let size = bodies * dim;
        let (positions, velocities) = y.split_at(size);
        let Frames { positions: p, velocities: v, accelerations: a } = &mut self.frames;
        let mut rows = [0; MAX_WIDTH];
        for (l, row) in rows[..used].iter_mut().enumerate() {
            let (run, frame) = place(l);
            *row = (run * frames + frame) * size;
        }
        for (values, out) in [(positions, p), (velocities, v), (acceleration, a)] {
            transpose(values, &rows[..used], out);
        }
        let mut norm = V::splat(0.0);
        for value in y.iter().chain(acceleration) {
            norm = value.mul_add(*value, norm);
        }
        let mut norms = [0.0; MAX_WIDTH];
        norm.store(&mut norms);
        let limit = f64::from(f32::MAX) * f64::from(f32::MAX);
        // NaN is in no range.
        match norms[..used].iter().position(|norm| !(0.0..limit).contains(norm)) {
            None => Ok(()),
            Some(l) => Err(self.error(place(l).0, place(l).1 as f64 * dt)),
        }
    }

    fn error(&self, run: usize, time: f64) -> Error {
        self.batch.lost(self.first + run, time)
    }
}
