//! Five steps against the formula in f64.

use super::{Args, step};
use crate::device::Device;
use crate::error::Result;
use crate::ops::{Check, relative_error};
use crate::random::Random;

/// Lengths around those of vectors, blocks and grids.
const LENGTHS: [usize; 7] = [1, 3, 15, 257, 8191, 8192, 100_003];

/// Parameters and both moments after five steps, at each length.
pub fn checks(device: &Device) -> Result<Vec<Check>> {
    LENGTHS.iter().map(|&len| check(device, len)).collect()
}

fn check(device: &Device, len: usize) -> Result<Check> {
    let mut random = Random::new(4, len as u64);
    let mut normals = || (0..len).map(|_| random.normal() as f32).collect::<Vec<f32>>();
    let mut w = normals();
    let (mut m, mut v) = (vec![0.0; len], vec![0.0; len]);
    let mut exact: [Vec<f64>; 3] =
        [w.iter().map(|&w| w.into()).collect(), vec![0.0; len], vec![0.0; len]];
    for number in 1..=5 {
        let gradients = normals();
        let args = Args::new(0.01, number);
        step(device, &args, &mut w, &mut m, &mut v, &gradients)?;
        // The decays as they are in f32: 1 − 0.999f32 is off by 1e-5 of itself.
        let (beta1, beta2) = (f64::from(args.beta1), f64::from(args.beta2));
        let t = number as i32;
        let [w, m, v] = &mut exact;
        for (((w, m), v), &g) in w.iter_mut().zip(m).zip(v).zip(&gradients) {
            let g = f64::from(g);
            *m += (1.0 - beta1) * (g - *m);
            *v += (1.0 - beta2) * (g * g - *v);
            let (mean, square) = (*m / (1.0 - beta1.powi(t)), *v / (1.0 - beta2.powi(t)));
            *w -= f64::from(args.learning_rate) * mean / (square.sqrt() + f64::from(args.epsilon));
        }
    }
    let error = |found: &[f32], exact: &[f64]| relative_error(found, exact);
    let errors = [error(&w, &exact[0]), error(&m, &exact[1]), error(&v, &exact[2])];
    let worst = errors.into_iter().fold(0.0, |a: f64, b| if b > a || b.is_nan() { b } else { a });
    Ok(Check { operation: "adam", case: format!("5 steps of {len}"), error: worst, limit: 2e-6 })
}
