//! One step of Adam on a stack of flat arenas, each with its gradient scaled to unit norm.
//!
//! g ← g / |g|, m ← m + (1 − β₁)(g − m), v ← v + (1 − β₂)(g² − v),
//! w ← w − rate · (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε), with t = 1 at the first step.
//!
//! Adam is blind to the scale of all gradients together, not to that of one among many: a close
//! encounter of two bodies would fill v for the next thousand steps, in which nothing else is learnt.
//! |g| is that of one model of the stack; a gradient of 0 stays 0.

mod cpu;
pub(crate) mod gpu;
pub mod selftest;
#[cfg(test)]
mod tests;

use bytemuck::{Pod, Zeroable};

use crate::device::Device;
use crate::error::{Error, Result};
use crate::kernel_args;

/// The settings of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Args {
    /// Learning rate of this step.
    pub learning_rate: f32,
    /// Decay of the mean of the gradient.
    pub beta1: f32,
    /// Decay of the mean of its square.
    pub beta2: f32,
    /// Added to the root.
    pub epsilon: f32,
    /// Number of this step, from 1.
    pub step: u64,
}

impl Args {
    /// The usual decays (0.9, 0.999, 1e-8).
    pub fn new(learning_rate: f32, step: u64) -> Self {
        Args { learning_rate, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, step }
    }
}

/// What a step works on: `[runs, len]` each.
pub struct Arenas<'a> {
    /// w
    pub parameters: &'a mut [f32],
    /// The mean of g.
    pub m: &'a mut [f32],
    /// The mean of g².
    pub v: &'a mut [f32],
    /// Before they are scaled to unit norm.
    pub gradients: &'a [f32],
}

/// Updates the parameters and moments of each of `runs` independent models.
///
/// Buffers whose lengths differ or are no multiple of `runs`, and step 0, are errors; nothing is
/// written then.
pub fn step(device: &Device, args: &Args, runs: usize, arenas: Arenas) -> Result<()> {
    let expected = arenas.parameters.len();
    let lens =
        [("m", arenas.m.len()), ("v", arenas.v.len()), ("gradients", arenas.gradients.len())];
    for (name, len) in lens {
        if len != expected {
            return Err(Error::input(format!(
                "has {len} elements where the parameters have {expected}"
            ))
            .field(name));
        }
    }
    if runs == 0 || !expected.is_multiple_of(runs) {
        let message = format!("{expected} parameters cannot be divided among {runs} models");
        return Err(Error::input(message).field("runs"));
    }
    if args.step == 0 {
        return Err(Error::usage("steps of Adam count from 1").field("step"));
    }
    let rates = Rates::new(args);
    match device {
        Device::Cpu(cpu) => {
            cpu::step(cpu, &rates, runs, arenas);
            Ok(())
        }
        Device::Gpu(gpu) => gpu::step(*gpu, &rates, runs, arenas),
    }
}

kernel_args! {
    /// What the inner loop needs, the bias corrections folded in.
    struct Rates {
        /// learning_rate / (1 − β₁ᵗ).
        rate: f32,
        /// 1 / √(1 − β₂ᵗ).
        root: f32,
        /// 1 − β₁.
        fresh1: f32,
        /// 1 − β₂.
        fresh2: f32,
        epsilon: f32,
    }
}

// SAFETY: numbers without padding, for which any bits are a value.
unsafe impl Zeroable for Rates {}
// SAFETY: as above.
unsafe impl Pod for Rates {}

impl Rates {
    pub(crate) fn new(args: &Args) -> Self {
        let correction = |beta: f32| 1.0 - f64::from(beta).powf(args.step as f64);
        Rates {
            rate: (f64::from(args.learning_rate) / correction(args.beta1)) as f32,
            root: (1.0 / correction(args.beta2).sqrt()) as f32,
            fresh1: (1.0 - f64::from(args.beta1)) as f32,
            fresh2: (1.0 - f64::from(args.beta2)) as f32,
            epsilon: args.epsilon,
        }
    }
}
