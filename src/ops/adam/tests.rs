//! Every level of instructions against the formula in f64.

use super::*;
use crate::device::{Cpu, Simd};
use crate::random::Random;

#[test]
fn every_level_agrees_with_the_formula() {
    for len in [1, 15, 16, 17, 8191, 8192, 20_001] {
        for simd in Simd::available() {
            let mut random = Random::new(4, len as u64);
            let mut normals = || (0..len).map(|_| random.normal() as f32).collect::<Vec<f32>>();
            let mut w = normals();
            let mut exact: Vec<[f64; 3]> = w.iter().map(|&w| [f64::from(w), 0.0, 0.0]).collect();
            let (mut m, mut v) = (vec![0.0; len], vec![0.0; len]);
            for step in 1..=5 {
                let gradients = normals();
                let args = Args::new(0.01, step);
                super::step(&Device::Cpu(Cpu { simd }), &args, &mut w, &mut m, &mut v, &gradients)
                    .unwrap();
                let t = step as f64;
                for ([w, m, v], &g) in exact.iter_mut().zip(&gradients) {
                    let g = f64::from(g);
                    *m = 0.9 * *m + 0.1 * g;
                    *v = 0.999 * *v + 0.001 * g * g;
                    let (m, v) = (*m / (1.0 - 0.9f64.powf(t)), *v / (1.0 - 0.999f64.powf(t)));
                    *w -= 0.01 * m / (v.sqrt() + 1e-8);
                }
            }
            for (index, exact) in exact.iter().enumerate() {
                let found = [w[index], m[index], v[index]].map(f64::from);
                for (found, exact) in found.iter().zip(exact) {
                    // The decays themselves are f32: 1 − 0.999f32 is off by 1e-5 of itself.
                    let limit = 2e-6 + 2e-5 * exact.abs();
                    assert!((found - exact).abs() < limit, "{len}, {simd:?}: {found} {exact}");
                }
            }
        }
    }
}

#[test]
fn a_gap_with_zero_gradients_stays_zero() {
    let (mut w, mut m, mut v) = ([0.0; 3], [0.0; 3], [0.0; 3]);
    let device = Device::cpu();
    step(&device, &Args::new(0.1, 1), &mut w, &mut m, &mut v, &[0.0, 1.0, 0.0]).unwrap();
    assert_eq!([w[0], w[2]], [0.0; 2]);
    assert!((w[1] + 0.1).abs() < 1e-6, "the first step is as long as the rate: {w:?}");
}

#[test]
fn wrong_buffers_are_errors_that_name_them() {
    let device = Device::cpu();
    let args = Args::new(0.1, 1);
    let call = |args: &Args, m: usize, v: usize, g: usize| {
        let (mut w, g) = (vec![7.0; 3], vec![1.0; g]);
        let error =
            step(&device, args, &mut w, &mut vec![0.0; m], &mut vec![0.0; v], &g).unwrap_err();
        assert_eq!(w, [7.0; 3]);
        error.field.unwrap_or_default()
    };
    assert_eq!(call(&args, 2, 3, 3), "m");
    assert_eq!(call(&args, 3, 4, 3), "v");
    assert_eq!(call(&args, 3, 3, 0), "gradients");
    assert_eq!(call(&Args { step: 0, ..args }, 3, 3, 3), "step");
}
