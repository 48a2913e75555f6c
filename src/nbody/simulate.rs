//! Data sets from nothing: random initial states, integrated straight into the mapped file.

use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::dataset::About;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::law::{Body, Law};
use crate::ops::rk4::{self, Batch, Frames, TOLERANCE};
use crate::progress::Progress;
use crate::random::Random;

/// Body-frames between two looks at the progress bar.
const BODY_FRAMES_PER_BATCH: usize = 16_000_000;

/// How to get from one frame to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Integrator {
    /// Error control between the frames, tolerance 1.4e-8
    #[default]
    Adaptive,
    /// Classical Runge–Kutta, --substeps steps a frame
    Rk4,
}

/// Everything that makes a simulated dataset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Forces between the bodies.
    pub law: Law,
    /// Dimensions of space: 2 or 3.
    pub dim: usize,
    /// Bodies of each run, 2 to 64.
    pub bodies: usize,
    /// Independent initial states.
    pub runs: usize,
    /// Frames of each run; the first is the initial state.
    pub frames: usize,
    /// Time between frames; `None` is the law's own.
    pub dt: Option<f64>,
    /// How to step.
    pub integrator: Integrator,
    /// Steps from one frame to the next, of `rk4`.
    pub substeps: usize,
    /// Seed of the initial states.
    pub seed: u64,
}

impl Default for Settings {
    /// 10,000 runs of 1000 frames of four bodies on springs in the plane.
    fn default() -> Self {
        Settings {
            law: Law::Spring,
            dim: 2,
            bodies: 4,
            runs: 10_000,
            frames: 1000,
            dt: None,
            integrator: Integrator::Adaptive,
            substeps: 1,
            seed: 0,
        }
    }
}

/// |E(end) − E(start)| / (kinetic energy + Σ |U12|, at the start), over the runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Drift {
    /// Of half of the runs it is smaller.
    pub median: f64,
    /// Of the worst run.
    pub max: f64,
}

/// What a simulation was like.
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
    /// Time that all of it took, the file included.
    pub seconds: f64,
    /// runs · bodies · (frames − 1) / seconds, whatever the number of substeps.
    pub body_steps_per_second: f64,
    /// Where the law conserves energy.
    pub energy_drift: Option<Drift>,
}

impl Settings {
    /// Time between frames: the one given, or the law's own.
    pub fn time_step(&self) -> Result<f64> {
        let dt = self.dt.or(self.law.default_dt()).ok_or_else(|| {
            Error::usage("a potential of your own needs the time between frames").field("dt")
        })?;
        if !(dt > 0.0 && dt.is_finite()) {
            return Err(Error::usage(format!("must be a positive time between frames, not {dt}"))
                .field("dt"));
        }
        Ok(dt)
    }

    /// An error that names the first setting that makes no sense.
    pub fn check(&self) -> Result<()> {
        let error = |field: &str, message: String| Err(Error::usage(message).field(field));
        match *self {
            Settings { dim, .. } if !(2..=3).contains(&dim) => {
                error("dim", format!("{dim} dimensions; 2 or 3 are possible"))
            }
            Settings { bodies, .. } if !(2..=64).contains(&bodies) => {
                error("bodies", format!("{bodies} bodies; 2 to 64 are possible"))
            }
            Settings { runs: 0, .. } => error("runs", "at least one run is needed".into()),
            Settings { frames: 0, .. } => error("frames", "at least one frame is needed".into()),
            Settings { substeps: 0, .. } => {
                error("substeps", "at least one step a frame is needed".into())
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

/// Energy, and the sum of the magnitudes of its parts.
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

/// Makes a dataset at `path`. On an error or Ctrl-C there is no file.
pub fn simulate(
    device: &Device,
    settings: &Settings,
    path: &Path,
    progress: Progress,
) -> Result<Summary> {
    settings.check()?;
    let begun = Instant::now();
    let Settings { dim, bodies, runs, frames, .. } = *settings;
    let dt = settings.time_step()?;
    let (integrator, origin) = match settings.integrator {
        Integrator::Adaptive => (
            rk4::Integrator::Adaptive { tolerance: TOLERANCE },
            serde_json::json!({"integrator": "adaptive", "dt": dt, "rtol": TOLERANCE, "atol": TOLERANCE}),
        ),
        Integrator::Rk4 => (
            rk4::Integrator::Rk4 { substeps: settings.substeps },
            serde_json::json!({"integrator": "rk4", "dt": dt, "substeps": settings.substeps}),
        ),
    };
    let law = Some(settings.law.clone());
    let about = About {
        runs,
        frames,
        bodies,
        dim,
        law,
        origin,
        seed: settings.seed,
        scale: None,
        period: None,
    };
    let mut file = about.create(path)?;
    for (k, time) in file.slice::<f64>("times").iter_mut().enumerate() {
        *time = k as f64 * dt;
    }
    let [positions, velocities, accelerations, masses, charges] =
        file.slices(["positions", "velocities", "accelerations", "masses", "charges"]);

    let bar = progress.bar("simulate", runs as u64, "runs", 0);
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
    drop(bar);
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
