//! Simulated data sets: random initial states, integrated into memory or straight into the mapped file.

use std::path::Path;
use std::time::Instant;

use serde::Serialize;

use super::dataset::{About, Arrays, Dataset};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::law::{Body, Law};
use crate::observer::Observer;
use crate::ops::rk4::{self, Batch, Frames, TOLERANCE};
use crate::options::{Kind, Value};
use crate::random::Random;
use crate::{choice, options};

/// Body-frames between two updates of the progress bar.
const BODY_FRAMES_PER_BATCH: usize = 16_000_000;

choice! {
    /// How to get from one frame to the next.
    pub enum Integrator {
        /// Adaptive steps between frames, tolerance 1.4e-8
        Adaptive = "adaptive",
        /// Classical Runge–Kutta, --substeps steps per frame
        Rk4 = "rk4",
    }
}

impl Default for Integrator {
    /// With adaptive steps.
    fn default() -> Self {
        Integrator::Adaptive
    }
}

impl Value for Law {
    const KIND: Kind = Kind::Other;
}

options! {
    /// Settings of a simulated data set; by default 10,000 runs of 1000 frames of four bodies on springs in the plane.
    pub struct Settings {
        /// Law of force between the bodies
        law: Law = Law::Spring;
        /// Number of dimensions: 2 or 3
        dim: usize = 2;
        /// Number of bodies: 2 to 64
        bodies: usize = 4;
        /// Number of runs, each from its own initial state
        runs: usize = 10_000;
        /// Frames of each run, including the initial state
        frames: usize = 1000;
        /// Time between frames [default: depends on the law]
        dt: Option<f64> = None;
        /// Integrator
        integrator: Integrator = Integrator::Adaptive;
        /// Steps of rk4 from one frame to the next
        substeps: usize = 1;
        /// Seed of the initial states
        seed: u64 = 0;
    }
}

/// Energy drift over the runs: |E(end) − E(start)| / (kinetic energy + Σ |U12| at the start).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Drift {
    /// Median over the runs.
    pub median: f64,
    /// Of the worst run.
    pub max: f64,
}

/// Size, speed and energy drift of a simulation.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Number of runs.
    pub runs: usize,
    /// Frames of each run.
    pub frames: usize,
    /// Bodies of each run.
    pub bodies: usize,
    /// Dimensions of space.
    pub dim: usize,
    /// Seconds for everything, including writing the file.
    pub seconds: f64,
    /// runs · bodies · (frames − 1) / seconds, whatever the number of substeps.
    pub body_steps_per_second: f64,
    /// Given if the law conserves energy.
    pub energy_drift: Option<Drift>,
}

impl Settings {
    /// Time between frames: as given, or the default of the law.
    pub fn time_step(&self) -> Result<f64> {
        let dt = self.dt.or(self.law.default_dt()).ok_or_else(|| {
            Error::usage("--potential needs --dt, the time between frames").field("dt")
        })?;
        if !(dt > 0.0 && dt.is_finite()) {
            return Err(Error::usage(format!("must be a positive time between frames, not {dt}"))
                .field("dt"));
        }
        Ok(dt)
    }

    /// Times of the frames.
    fn times(&self) -> Result<Vec<f64>> {
        let dt = self.time_step()?;
        Ok((0..self.frames).map(|k| k as f64 * dt).collect())
    }

    /// The metadata of the data set.
    fn about(&self) -> Result<About> {
        let Settings { dim, bodies, runs, frames, seed, .. } = *self;
        let dt = self.time_step()?;
        let origin = match self.integrator {
            Integrator::Adaptive => {
                serde_json::json!({"integrator": "adaptive", "dt": dt, "rtol": TOLERANCE, "atol": TOLERANCE})
            }
            Integrator::Rk4 => {
                serde_json::json!({"integrator": "rk4", "dt": dt, "substeps": self.substeps})
            }
        };
        Ok(About {
            runs,
            frames,
            bodies,
            dim,
            law: Some(self.law.clone()),
            origin,
            seed,
            scale: None,
            period: None,
        })
    }

    /// An error that names the first invalid setting.
    pub fn check(&self) -> Result<()> {
        let error = |field: &str, message: String| Err(Error::usage(message).field(field));
        match *self {
            Settings { dim, .. } if !(2..=3).contains(&dim) => {
                error("dim", format!("must be 2 or 3, not {dim}"))
            }
            Settings { bodies, .. } if !(2..=64).contains(&bodies) => {
                error("bodies", format!("must be 2 to 64, not {bodies}"))
            }
            Settings { runs: 0, .. } => error("runs", "at least one run is needed".into()),
            Settings { frames: 0, .. } => error("frames", "at least one frame is needed".into()),
            Settings { substeps: 0, .. } => {
                error("substeps", "at least one step per frame is needed".into())
            }
            _ => self.time_step().map(|_| ()),
        }
    }
}

/// Initial state of one run: `states` `[2, body, dim]`, masses and charges `[body]`.
///
/// Components of r and v are N(0, 1), masses exp N(0, 1), charges −1 or +1 (docs/design.md §2).
pub(crate) fn initial_state(
    settings: &Settings,
    run: usize,
    states: &mut [f64],
    masses: &mut [f64],
    charges: &mut [f64],
) {
    let mut random = Random::new(settings.seed, run as u64);
    states.fill_with(|| random.normal());
    masses.fill_with(|| random.normal().exp());
    charges.fill_with(|| if random.below(2) == 0 { -1.0 } else { 1.0 });
}

/// Total energy, and the sum of the absolute values of its terms.
pub(crate) fn energy(
    law: &Law,
    dim: usize,
    state: &[f64],
    masses: &[f64],
    charges: &[f64],
) -> (f64, f64) {
    let bodies = masses.len();
    let part = |at: usize| std::array::from_fn(|d| if d < dim { state[at * dim + d] } else { 0.0 });
    let body = |b: usize| Body {
        position: part(b),
        velocity: part(bodies + b),
        charge: charges[b],
        mass: masses[b],
    };
    let (mut total, mut size) = (0.0, 0.0);
    for i in 0..bodies {
        let one = body(i);
        let kinetic = 0.5 * one.mass * one.velocity.iter().map(|v| v * v).sum::<f64>();
        total += kinetic;
        size += kinetic;
        for j in i + 1..bodies {
            let potential = law.potential(&one, &body(j), bodies);
            total += potential;
            size += potential.abs();
        }
    }
    (total, size)
}

/// Simulates a data set in memory, each run from its own random initial state. The same seed gives bit-identical data
/// on the same class of device.
///
/// # Errors
/// Invalid settings; motion that the integrator cannot follow; `interrupted` if `observer` stops it.
///
/// ```
/// use lawsmith::device::Device;
/// use lawsmith::nbody::simulate::{Settings, simulate};
///
/// // Three runs of four bodies on springs, in the plane.
/// let settings = Settings { runs: 3, frames: 50, ..Settings::default() };
/// let data = simulate(&Device::cpu(), &settings, &())?;
/// assert_eq!(data.positions().len(), 3 * 50 * 4 * 2);
/// # Ok::<(), lawsmith::error::Error>(())
/// ```
pub fn simulate(device: &Device, settings: &Settings, observer: &dyn Observer) -> Result<Dataset> {
    settings.check()?;
    let about = settings.about()?;
    let mut arrays = Arrays::zeros(&about);
    let Arrays { positions, velocities, accelerations, masses, charges, .. } = &mut arrays;
    let frames = Frames { positions, velocities, accelerations };
    fill(device, settings, frames, [masses, charges], observer)?;
    arrays.times = settings.times()?;
    Dataset::new(about, arrays)
}

/// Simulates a data set into a file at `path`, which may be larger than memory. After an error or a stop there is no
/// file.
///
/// # Errors
/// Those of [`simulate`], and of writing.
pub fn simulate_to(
    path: &Path,
    device: &Device,
    settings: &Settings,
    observer: &dyn Observer,
) -> Result<Summary> {
    settings.check()?;
    let begun = Instant::now();
    let Settings { dim, bodies, runs, frames, .. } = *settings;
    let mut file = settings.about()?.create(path)?;
    file.slice::<f64>("times").copy_from_slice(&settings.times()?);
    let [positions, velocities, accelerations, masses, charges] =
        file.slices(["positions", "velocities", "accelerations", "masses", "charges"]);
    let out = Frames { positions, velocities, accelerations };
    let mut drifts = fill(device, settings, out, [masses, charges], observer)?;
    file.finish()?;
    let seconds = begun.elapsed().as_secs_f64();
    drifts.sort_by(f64::total_cmp);
    Ok(Summary {
        runs,
        frames,
        bodies,
        dim,
        seconds,
        body_steps_per_second: (runs * bodies * (frames - 1)) as f64 / seconds,
        energy_drift: drifts.last().map(|&max| Drift { median: drifts[drifts.len() / 2], max }),
    })
}

/// Integrates all runs into `out` and `[masses, charges]`. Returns the energy drift of each run if the law conserves
/// energy, otherwise nothing.
fn fill(
    device: &Device,
    settings: &Settings,
    out: Frames,
    [masses, charges]: [&mut [f32]; 2],
    observer: &dyn Observer,
) -> Result<Vec<f64>> {
    let Settings { dim, bodies, runs, frames, .. } = *settings;
    let dt = settings.time_step()?;
    let integrator = match settings.integrator {
        Integrator::Adaptive => rk4::Integrator::Adaptive { tolerance: TOLERANCE },
        Integrator::Rk4 => rk4::Integrator::Rk4 { substeps: settings.substeps },
    };
    let Frames { positions, velocities, accelerations } = out;
    let bar = observer.bar("simulate", runs as u64, "runs", 0);
    let conserved = settings.law.conserves_energy();
    let mut drifts = Vec::new();
    let batch_runs = (BODY_FRAMES_PER_BATCH / (frames * bodies)).clamp(64, 4096);
    let size = frames * bodies * dim;
    for first in (0..runs).step_by(batch_runs) {
        let count = batch_runs.min(runs - first);
        let mut states = vec![0.0; count * 2 * bodies * dim];
        let mut batch_masses = vec![0.0; count * bodies];
        let mut batch_charges = vec![0.0; count * bodies];
        for run in 0..count {
            initial_state(
                settings,
                first + run,
                &mut states[run * 2 * bodies * dim..][..2 * bodies * dim],
                &mut batch_masses[run * bodies..][..bodies],
                &mut batch_charges[run * bodies..][..bodies],
            );
        }
        let energies = |states: &[f64]| -> Vec<(f64, f64)> {
            let systems = states.chunks(2 * bodies * dim);
            let matter = batch_masses.chunks(bodies).zip(batch_charges.chunks(bodies));
            systems.zip(matter).map(|(s, (m, q))| energy(&settings.law, dim, s, m, q)).collect()
        };
        let before = if conserved { energies(&states) } else { Vec::new() };
        if let Some(run) = before.iter().position(|(_, size)| !size.is_finite()) {
            return Err(Error::usage(format!(
                "the potential is not a number in the initial state of run {}",
                first + run
            ))
            .field("potential"));
        }
        let batch = Batch {
            law: &settings.law,
            integrator,
            dim,
            bodies,
            frames,
            dt,
            masses: &batch_masses,
            charges: &batch_charges,
            first_run: first,
            observer,
        };
        let part = first * size..(first + count) * size;
        let out = Frames {
            positions: &mut positions[part.clone()],
            velocities: &mut velocities[part.clone()],
            accelerations: &mut accelerations[part],
        };
        rk4::integrate(device, &batch, &mut states, out)?;
        if conserved {
            let after = energies(&states);
            drifts.extend(before.iter().zip(&after).map(|(b, a)| (a.0 - b.0).abs() / b.1));
        }
        let matter = first * bodies..(first + count) * bodies;
        for (to, from) in masses[matter.clone()].iter_mut().zip(&batch_masses) {
            *to = *from as f32;
        }
        for (to, from) in charges[matter].iter_mut().zip(&batch_charges) {
            *to = *from as f32;
        }
        bar.set((first + count) as u64);
    }
    Ok(drifts)
}
