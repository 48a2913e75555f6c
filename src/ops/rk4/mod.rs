//! Integration of many small systems of bodies at once, each in one lane of a vector.
//!
//! With y = (r, v) of all bodies of a system and y' = f(y) = (v, a),
//! a_i = −(1/m_i) Σ_{j≠i} ∂U_ij/∂r_i:
//!
//! - `rk4`, h = dt / substeps: k1 = f(y), k2 = f(y + h/2 k1), k3 = f(y + h/2 k2), k4 = f(y + h k3),
//!   y += h/6 (k1 + 2 k2 + 2 k3 + k4).
//! - `adaptive`: the embedded pair of order 8 of Dormand and Prince with its interpolant of order 7
//!   (`dop853.rs`). Each lane has its own step size: |error| ≤ tolerance · (1 + |y|) in the root mean
//!   square; frames are read off the interpolant, and their accelerations are a(r) there.
//!
//! Arithmetic is f64, frames are stored as f32. A system's trajectory depends neither on its
//! neighbours in the vector nor on the number of threads.

use serde::{Deserialize, Serialize};

use crate::device::Device;
use crate::error::{Error, Result};
use crate::law::Law;
use crate::observer::Observer;
use crate::ops::Call;

mod cpu;
mod dop853;
pub(crate) mod gpu;
pub mod selftest;
#[cfg(test)]
mod tests;

/// Relative and absolute tolerance of `adaptive` on a step (docs/design.md §2).
pub const TOLERANCE: f64 = 1.4e-8;

/// How to get from one frame to the next.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Integrator {
    /// Error control, order 8.
    Adaptive {
        /// Relative and absolute tolerance of a step.
        tolerance: f64,
    },
    /// Classical Runge–Kutta steps of fixed size.
    Rk4 {
        /// Steps from one frame to the next.
        substeps: usize,
    },
}

/// Systems of one law, integrated together.
pub struct Batch<'a> {
    /// Forces between the bodies.
    pub law: &'a Law,
    /// How to step.
    pub integrator: Integrator,
    /// Dimensions of space: 2 or 3.
    pub dim: usize,
    /// Bodies of each system.
    pub bodies: usize,
    /// Frames to store, the initial state among them.
    pub frames: usize,
    /// Time between frames.
    pub dt: f64,
    /// `[run, body]`
    pub masses: &'a [f64],
    /// `[run, body]`
    pub charges: &'a [f64],
    /// Number of the first run, for error messages.
    pub first_run: usize,
    /// Who may stop the integration.
    pub observer: &'a dyn Observer,
}

impl Batch<'_> {
    /// Systems in the batch.
    pub fn runs(&self) -> usize {
        self.masses.len() / self.bodies
    }

    /// The error for a motion that is not finite; `run` counts within the batch.
    fn lost(&self, run: usize, time: f64) -> Error {
        Error::usage(format!(
            "the motion of run {} cannot be followed beyond time {time}: \
             the law is singular or not finite there, or the steps are too large",
            self.first_run + run,
        ))
    }
}

/// Where the frames go: three times `[run, frame, body, dim]`.
pub struct Frames<'a> {
    /// r
    pub positions: &'a mut [f32],
    /// v
    pub velocities: &'a mut [f32],
    /// a
    pub accelerations: &'a mut [f32],
}

/// Integrates every system of the batch from `states` `[run, 2, body, dim]` (positions, then velocities), fills the
/// frames and leaves the last state in `states`.
///
/// A motion that is not finite gives an error that names run and time; so does a stop by the observer. Frames are then
/// incomplete.
///
/// # Panics
/// If the lengths of the buffers disagree: a programming error.
pub fn integrate(device: &Device, batch: &Batch, states: &mut [f64], frames: Frames) -> Result<()> {
    let Batch { dim, bodies, .. } = *batch;
    let runs = batch.runs();
    let length = runs * batch.frames * bodies * dim;
    assert!((2..=3).contains(&dim), "{dim} dimensions");
    assert_eq!(batch.masses.len(), runs * bodies, "masses");
    assert_eq!(batch.charges.len(), runs * bodies, "charges");
    assert_eq!(states.len(), runs * 2 * bodies * dim, "states");
    assert_eq!(frames.positions.len(), length, "positions");
    assert_eq!(frames.velocities.len(), length, "velocities");
    assert_eq!(frames.accelerations.len(), length, "accelerations");
    if bodies < 2 {
        return Err(Error::usage("one body has nothing to interact with").field("bodies"));
    }
    match device {
        Device::Cpu(cpu) => cpu::integrate(cpu, batch, states, frames),
        Device::Gpu(gpu) => gpu::integrate(*gpu, batch, states, frames),
    }
}

/// [`integrate`] from `states` for `measure`, which repeats it: the data are already on the device, and frames stay
/// there. Afterwards `states` holds the result of the last repetition.
pub(crate) fn repeat<T>(
    device: &Device,
    batch: &Batch,
    states: &mut [f64],
    measure: impl FnOnce(Call) -> Result<T>,
) -> Result<T> {
    let start = states.to_vec();
    let length = start.len() / 2 * batch.frames;
    match device {
        Device::Cpu(_) => {
            let mut buffers = [vec![0.0f32; length], vec![0.0f32; length], vec![0.0f32; length]];
            measure(&mut || {
                states.copy_from_slice(&start);
                let [positions, velocities, accelerations] = &mut buffers;
                integrate(device, batch, states, Frames { positions, velocities, accelerations })
            })
        }
        Device::Gpu(gpu) => {
            let mut motion = gpu::Motion::new(*gpu, batch, &start)?;
            let begin = gpu::Motion::new(*gpu, batch, &start)?;
            let mut stored = gpu.buffer(3 * length)?;
            let measured = measure(&mut || {
                motion.return_to(&begin)?;
                motion.launch(0, batch.frames, &mut stored)
            })?;
            motion.download(states)?;
            Ok(measured)
        }
    }
}
