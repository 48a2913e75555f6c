//! Five steps against the formula in f64.

use super::{Arenas, Args, step};
use crate::device::Device;
use crate::error::Result;
use crate::ops::{Check, relative_error};
use crate::random::Random;

/// Numbers of models, and lengths around those of vectors, blocks and grids.
const STACKS: [(usize, usize); 8] =
    [(1, 1), (2, 3), (5, 15), (3, 257), (1, 8191), (1, 8192), (2, 8194), (1, 100_003)];

/// Parameters and both moments after five steps, for each stack.
pub fn checks(device: &Device) -> Result<Vec<Check>> {
    STACKS.iter().map(|&(runs, len)| check(device, runs, len)).collect()
}

fn check(device: &Device, runs: usize, len: usize) -> Result<Check> {
    let total = runs * len;
    let mut random = Random::new(4, total as u64);
    let mut normals = || (0..total).map(|_| random.normal() as f32).collect::<Vec<f32>>();
    let mut w = normals();
    let (mut m, mut v) = (vec![0.0; total], vec![0.0; total]);
    let mut exact: [Vec<f64>; 3] =
        [w.iter().map(|&w| w.into()).collect(), vec![0.0; total], vec![0.0; total]];
    for number in 1..=5 {
        let gradients = normals();
        let args = Args::new(0.01, number);
        let arenas = Arenas { parameters: &mut w, m: &mut m, v: &mut v, gradients: &gradients };
        step(device, &args, runs, arenas)?;
        // The decays as f32 has them: 1 − 0.999f32 has a relative error of 1e-5.
        let (beta1, beta2) = (f64::from(args.beta1), f64::from(args.beta2));
        let t = number as i32;
        let norm = |model: &[f32]| model.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
        let norms: Vec<f64> = gradients.chunks_exact(len).map(norm).collect();
        for (k, &g) in gradients.iter().enumerate() {
            let g = f64::from(g) / norms[k / len];
            let [w, m, v] = exact.each_mut().map(|values| &mut values[k]);
            *m += (1.0 - beta1) * (g - *m);
            *v += (1.0 - beta2) * (g * g - *v);
            let (mean, square) = (*m / (1.0 - beta1.powi(t)), *v / (1.0 - beta2.powi(t)));
            *w -= f64::from(args.learning_rate) * mean / (square.sqrt() + f64::from(args.epsilon));
        }
    }
    let errors = [&w, &m, &v].into_iter().zip(&exact).map(|(f, e)| relative_error(f, e));
    let worst = errors.fold(0.0, |a: f64, b| if b > a || b.is_nan() { b } else { a });
    let case = format!("5 steps of {runs} × {len}");
    Ok(Check { operation: "adam", case, error: worst, limit: 2e-6 })
}
