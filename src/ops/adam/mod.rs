//! One step of Adam on a stack of flat arenas, each with its gradient scaled to unit norm.
//!
//! g ← g / |g|, m ← m + (1 − β₁)(g − m), v ← v + (1 − β₂)(g² − v),
//! w ← w − rate · (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε), with t = 1 at the first step.
//!
//! Adam is insensitive to the scale of all gradients together, but not to that of one among many: a close encounter of
//! two bodies would dominate v for the next thousand steps, in which nothing else is learnt. |g| is that of one model
//! of the stack; a gradient of 0 stays 0.

mod cpu;
pub(crate) mod gpu;
pub mod selftest;
#[cfg(test)]
mod tests;

use crate::device::Device;
pub(crate) use crate::device::args::Rates;
use crate::error::{Error, Result};
use crate::ops::Call;

/// The settings of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Args {
    /// Learning rate of this step.
    pub learning_rate: f32,
    /// Decay of the mean of the gradient.
    pub beta1: f32,
    /// Decay of the mean of its square.
    pub beta2: f32,
    /// Added to the square root.
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

/// The steps of a whole training with these learning rates.
pub fn schedule(rates: &[f32]) -> Vec<Args> {
    rates.iter().zip(1..).map(|(&rate, step)| Args::new(rate, step)).collect()
}

/// Networks being trained on the CPU, `[runs, len]` each.
pub(crate) struct Networks {
    /// w
    pub parameters: Vec<f32>,
    m: Vec<f32>,
    v: Vec<f32>,
    /// The gradients for the next step.
    pub gradients: Vec<f32>,
    rates: Vec<f32>,
}

impl Networks {
    /// With the learning rates of all steps.
    pub fn new(rates: Vec<f32>, arenas: [&[f32]; 3]) -> Self {
        let [parameters, m, v] = arenas.map(<[f32]>::to_vec);
        Networks { gradients: vec![0.0; parameters.len()], parameters, m, v, rates }
    }

    /// Takes step `number`, counted from 0.
    pub fn step(&mut self, device: &Device, number: u64, runs: usize) -> Result<()> {
        let Networks { parameters, m, v, gradients, rates } = self;
        let args = Args::new(rates[number as usize], number + 1);
        step(device, &args, runs, Arenas { parameters, m, v, gradients })
    }

    /// Continues with networks of another shape.
    pub fn replace(&mut self, arenas: [&[f32]; 3]) {
        *self = Networks::new(std::mem::take(&mut self.rates), arenas);
    }

    /// Copies the parameters out.
    pub fn parameters(&self, parameters: &mut [f32]) -> Result<()> {
        parameters.copy_from_slice(&self.parameters);
        Ok(())
    }

    /// Copies the moments out.
    pub fn moments(&self, m: &mut [f32], v: &mut [f32]) -> Result<()> {
        m.copy_from_slice(&self.m);
        v.copy_from_slice(&self.v);
        Ok(())
    }
}

/// The arrays that a step updates: `[runs, len]` each.
pub struct Arenas<'a> {
    /// w
    pub parameters: &'a mut [f32],
    /// The mean of g.
    pub m: &'a mut [f32],
    /// The mean of g².
    pub v: &'a mut [f32],
    /// The gradients before scaling to unit norm.
    pub gradients: &'a [f32],
}

/// Updates the parameters and moments of each of `runs` independent models.
///
/// Buffers whose lengths differ or are not a multiple of `runs`, and step 0, are errors; nothing is written then.
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

/// A step of one model for `measure`, which repeats it: the data are already on the device.
pub(crate) fn repeat<T>(
    device: &Device,
    gradients: &[f32],
    measure: impl FnOnce(Call) -> Result<T>,
) -> Result<T> {
    let (mut parameters, mut m, mut v) =
        (gradients.to_vec(), vec![0.0; gradients.len()], vec![0.0; gradients.len()]);
    let mut args = Args::new(1e-3, 1);
    match device {
        Device::Cpu(_) => measure(&mut || {
            let [parameters, m, v] = [&mut parameters, &mut m, &mut v].map(Vec::as_mut_slice);
            step(device, &args, 1, Arenas { parameters, m, v, gradients })?;
            args.step += 1;
            Ok(())
        }),
        Device::Gpu(gpu) => {
            let (rates, arenas) = ([Rates::new(&args)], [&parameters[..], &m, &v]);
            let mut stack = gpu::Stack::new(*gpu, &rates, 1, arenas)?;
            stack.gradients.upload(gradients)?;
            measure(&mut || stack.step(0))
        }
    }
}
