//! The standard normal noise of sampled messages, by counter.
//!
//! A number depends on (seed of the run, step, edge, unit) only, so it is the same for any number of
//! threads, after a resume, and on a GPU. Units come in blocks of 64: Philox at counter
//! (16 · block + lane, edge, step) gives four words, hence two Box–Muller pairs, hence the units
//! 64 · block + lane + {0, 16, 32, 48}: sixteen lanes of a vector write sixteen neighbours.

use crate::random::philox;

/// Separates the noise from every other use of the same seed.
pub(crate) const KEY: [u32; 2] = [0x6d65_7373, 0x6e6f_6973];

/// The noise of `unit` of `edge` (of the whole batch) at `step`, in f64.
pub fn normal(seed: u64, step: u64, edge: u32, unit: usize) -> f64 {
    let key = [seed as u32 ^ KEY[0], (seed >> 32) as u32 ^ KEY[1]];
    let counter = (16 * (unit / 64) + unit % 16) as u32;
    let words = philox([counter, edge, step as u32, (step >> 32) as u32], key);
    let quarter = unit / 16 % 4;
    // 23 and 24 bits: exact in f32 too, and never zero under the logarithm.
    let u = (f64::from(words[quarter / 2 * 2] >> 9) + 0.5) / f64::from(1 << 23);
    let turn = f64::from(words[quarter / 2 * 2 + 1] >> 8) / f64::from(1 << 24);
    let radius = (-2.0 * u.ln()).sqrt();
    let angle = std::f64::consts::TAU * turn;
    radius * if quarter % 2 == 0 { angle.cos() } else { angle.sin() }
}
