//! Integration on the processor: vectors of systems, rayon over groups of them.

use rayon::prelude::*;

use super::lanes::{Lanes, MAX_WIDTH};
use super::{Batch, Frames, Integrator};
use crate::device::{Cpu, Simd};
use crate::error::{Error, Result};
use crate::interrupt;
use crate::nbody::law::{Law, Pair};

/// Runs of one task: enough to keep lanes busy that finish early, few enough for many tasks.
const RUNS_PER_TASK: usize = 64;

/// As [`super::integrate`].
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
            match cpu.simd {
                // SAFETY: `Cpu` holds what was detected (or less).
                #[cfg(target_arch = "x86_64")]
                Simd::Avx512 | Simd::Avx512Bf16 => unsafe { avx512::run(task) },
                #[cfg(target_arch = "x86_64")]
                Simd::Avx2 => unsafe { avx2::run(task) },
                _ => run::<f64>(task),
            }
        })
}

/// The runs that one thread integrates without asking anybody.
struct Task<'a> {
    batch: &'a Batch<'a>,
    /// The first run of the task, counted in the batch.
    first: usize,
    states: &'a mut [f64],
    frames: Frames<'a>,
}

/// Masses and charges of the systems in the lanes, body by body, and the law between them.
pub(super) struct Systems<'a, V> {
    law: &'a Law,
    dim: usize,
    drag: V,
    mass: Vec<V>,
    inverse_mass: Vec<V>,
    charge: Vec<V>,
}

/// A vector level: its lanes, and the derivative compiled for its instructions.
trait Level: Lanes {
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
                    // SAFETY: only `run` above, which needs the same instructions, comes here.
                    unsafe { derivative(systems, y, k) }
                }
            }
        }
    };
}
level!(avx512, crate::ops::rk4::lanes::F64x8, "avx512f,avx512dq,avx512vl,avx2,fma");
level!(avx2, crate::ops::rk4::lanes::F64x4, "avx2,fma");

impl Level for f64 {
    fn derivative(systems: &Systems<f64>, y: &[f64], k: &mut [f64]) {
        derivative(systems, y, k)
    }
}

/// Picks law, dimension and, for small systems, the number of bodies at compile time.
#[inline(always)]
fn derivative<V: Lanes>(systems: &Systems<V>, y: &[V], k: &mut [V]) {
    // A constant law in each arm lets the compiler drop the others.
    macro_rules! laws {
        ($($law:ident)*) => {
            match systems.law { $(Law::$law => sized(&Law::$law, systems, y, k),)* }
        };
    }
    laws!(InverseSquare Inverse Spring Damped Charge Discontinuous)
}

#[inline(always)]
fn sized<V: Lanes>(law: &Law, systems: &Systems<V>, y: &[V], k: &mut [V]) {
    match (systems.dim, systems.mass.len()) {
        (2, 4) => pairs::<V, 2>(law, 4, systems, y, k),
        (2, bodies) => pairs::<V, 2>(law, bodies, systems, y, k),
        (_, bodies) => pairs::<V, 3>(law, bodies, systems, y, k),
    }
}

/// Velocities and accelerations: every pair once, action = reaction.
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
            // Not 0 where two bodies coincide: then 0 · (1 / r) is 0 and not NaN.
            let mut square = V::splat(f64::MIN_POSITIVE);
            for c in 0..D {
                d[c] = position[i * D + c] - position[j * D + c];
                square = d[c].mul_add(d[c], square);
            }
            let inverse_r = square.inverse_sqrt();
            let pull = law.pull(&Pair {
                r: square * inverse_r,
                inverse_r,
                m1: mass[i],
                m2: mass[j],
                q1: charge[i],
                q2: charge[j],
            });
            for c in 0..D {
                let force = pull * d[c];
                acceleration[i * D + c] = acceleration[i * D + c] - force;
                acceleration[j * D + c] = acceleration[j * D + c] + force;
            }
        }
    }
    for i in 0..bodies {
        for c in i * D..(i + 1) * D {
            let mut force = acceleration[c];
            if *law == Law::Damped {
                force = force - *drag * velocity[c];
            }
            acceleration[c] = force * inverse_mass[i];
        }
    }
}

#[inline(always)]
fn run<V: Level>(mut task: Task) -> Result<()> {
    match task.batch.integrator {
        Integrator::Rk4 { substeps } => rk4::<V>(&mut task, substeps),
        Integrator::Adaptive { .. } => rk4::<V>(&mut task, 8),
    }
}

/// Classical Runge–Kutta for one vector of systems after the other.
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
            task.store(&y, &k[size / 2..], first, used, frame)?;
            if frame + 1 == frames {
                break;
            }
            for step in 0..substeps {
                if step > 0 {
                    V::derivative(&systems, &y, &mut k);
                }
                sum.copy_from_slice(&zero);
                for (offset, weight) in stages {
                    let (offset_h, weight) = (V::splat(offset * h), V::splat(weight));
                    for c in 0..size {
                        sum[c] = k[c].mul_add(weight, sum[c]);
                        stage[c] = k[c].mul_add(offset_h, y[c]);
                    }
                    if offset > 0.0 {
                        V::derivative(&systems, &stage, &mut k);
                    }
                }
                for c in 0..size {
                    y[c] = sum[c].mul_add(V::splat(h / 6.0), y[c]);
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

/// The systems in the lanes; `run` says which run of the batch is in lane l.
#[inline(always)]
fn systems<'a, V: Lanes>(batch: &Batch<'a>, run: impl Fn(usize) -> usize) -> Systems<'a, V> {
    let Batch { law, dim, bodies, masses, charges, .. } = *batch;
    let all = |value: &dyn Fn(usize) -> f64| -> Vec<V> {
        (0..bodies).map(|b| gather(|l| value(run(l) * bodies + b))).collect()
    };
    Systems {
        law,
        dim,
        drag: V::splat(law.drag(bodies)),
        mass: all(&|at| masses[at]),
        inverse_mass: all(&|at| 1.0 / masses[at]),
        charge: all(&|at| charges[at]),
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
    /// Stores the same frame of `used` runs from `first` on.
    #[inline(always)]
    fn store<V: Lanes>(
        &mut self,
        y: &[V],
        acceleration: &[V],
        first: usize,
        used: usize,
        frame: usize,
    ) -> Result<()> {
        if interrupt::requested() {
            return Err(Error::interrupted("interrupted: nothing was written"));
        }
        let Batch { frames, bodies, dim, dt, .. } = *self.batch;
        let size = bodies * dim;
        let (positions, velocities) = y.split_at(size);
        let Frames { positions: p, velocities: v, accelerations: a } = &mut self.frames;
        for (values, out) in [(positions, p), (velocities, v), (acceleration, a)] {
            for (c, value) in values.iter().enumerate() {
                let mut lanes = [0.0; MAX_WIDTH];
                value.store(&mut lanes);
                for (l, value) in lanes[..used].iter().enumerate() {
                    out[((first + l) * frames + frame) * size + c] = *value as f32;
                }
            }
        }
        let mut norm = V::splat(0.0);
        for value in y.iter().chain(acceleration) {
            norm = value.mul_add(*value, norm);
        }
        let mut norms = [0.0; MAX_WIDTH];
        norm.store(&mut norms);
        let limit = f64::from(f32::MAX) * f64::from(f32::MAX);
        // NaN is not below the limit either.
        match norms[..used].iter().position(|&norm| !(norm < limit)) {
            None => Ok(()),
            Some(l) => Err(Error::usage(format!(
                "the motion of run {} is not finite at time {}: the law or the step does not suit it",
                self.batch.first_run + self.first + first + l,
                frame as f64 * dt,
            ))),
        }
    }
}
