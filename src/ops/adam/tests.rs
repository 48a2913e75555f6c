//! Every level of instructions and the GPU against the formula in f64.

use super::*;
use crate::device::{Cpu, Simd};

#[test]
fn every_level_agrees_with_the_formula() {
    for simd in Simd::available() {
        for check in selftest::checks(&Device::Cpu(Cpu::with(simd).unwrap())).unwrap() {
            assert!(check.passed(), "{simd:?}: {check:?}");
        }
    }
}

#[test]
fn gpu_agrees_with_the_formula() {
    crate::ops::assert_gpu_passes(selftest::checks);
}

#[test]
fn gpu_steps_write_the_operands_in_bf16_and_read_the_rates_of_their_step() {
    let Some(Device::Gpu(gpu)) = crate::device::test_gpu() else { return };
    let len = 1001;
    let values: Vec<f32> = (0..len).map(|k| (k as f32 - 500.0) * 1.001).collect();
    let mut parameters = gpu.upload(&values).unwrap();
    let [mut m, mut v] = [0, 1].map(|_| gpu.zeros::<f32>(len).unwrap());
    let gradients = gpu.upload(&values).unwrap();
    let table = [1.0, 0.25].map(|rate| Rates::new(&Args::new(rate, 1)));
    let (rates, step) = (gpu.upload(&table).unwrap(), gpu.upload(&[1u64]).unwrap());
    let mut squares = gpu.buffer(1).unwrap();
    let mut operands = gpu.upload(&vec![half::bf16::NAN; len + 1]).unwrap();
    let args = crate::device::args::AdamArgs {
        parameters: parameters.write(len),
        m: m.write(len),
        v: v.write(len),
        gradients: gradients.read(len),
        operands: operands.write(len).cast(),
        squares: squares.write(1),
        rates: rates.read(2),
        step: step.read(1),
        len: len as u64,
        parts: 1,
    };
    // SAFETY: all buffers are longer than `len` and live to the end.
    unsafe { gpu::enqueue(gpu, 1, &args).unwrap() };
    let (found, rounded) = (parameters.to_vec().unwrap(), operands.to_vec().unwrap());
    assert!((found[0] - (values[0] + 0.25)).abs() < 1e-4, "{}", found[0]);
    assert!(rounded[len].is_nan(), "an operand behind the end");
    for (f32, bf16) in found.iter().zip(&rounded[..len]) {
        assert_eq!(*bf16, half::bf16::from_f32(*f32));
    }
}

/// Sums of squares that f64 holds exactly: they come out in any order, and each element must count once.
#[test]
fn gpu_norms_are_exact_where_nothing_is_rounded() {
    let Some(Device::Gpu(gpu)) = crate::device::test_gpu() else { return };
    for (runs, len) in [(1, 1), (3, 8191), (2, 8193), (3, 50_001), (1, 40 * 8192 + 5)] {
        // |g|² of run r is 4^r · len, and after a step from 0, m is (1 − β₁) g / |g|.
        let gradient =
            |k: usize| f32::exp2((k / len) as f32) * if k.is_multiple_of(3) { -1.0 } else { 1.0 };
        let gradients: Vec<f32> = (0..runs * len).map(gradient).collect();
        let zeros = vec![0.0; runs * len];
        let rates = Rates::new(&Args::new(0.1, 1));
        let mut stack = gpu::Stack::new(gpu, &[rates], runs, [&zeros; 3]).unwrap();
        stack.gradients.upload(&gradients).unwrap();
        stack.step(0).unwrap();
        let m = stack.m.to_vec().unwrap();
        for (k, (&m, &g)) in m.iter().zip(&gradients).enumerate() {
            let norm = f64::exp2((k / len) as f64) * (len as f64).sqrt();
            let expected = rates.fresh1 * ((1.0 / norm) as f32 * g);
            assert_eq!(m, expected, "element {k} of {runs} × {len}");
        }
    }
}

#[test]
fn parts_of_a_gradient_are_one_at_least_and_a_block_adds_them_up() {
    let parts = [0, 1, 8192, 8193, 100_000, 1 << 21, (1 << 21) + 1, 1 << 40].map(gpu::parts);
    assert_eq!(parts, [1, 1, 1, 2, 13, 256, 256, 256]);
}

/// A step on one model.
fn one(
    args: &Args,
    [parameters, m, v]: [&mut [f32]; 3],
    gradients: &[f32],
) -> crate::error::Result<()> {
    step(&Device::cpu(), args, 1, Arenas { parameters, m, v, gradients })
}

#[test]
fn a_gap_with_zero_gradients_stays_zero() {
    for gradient in [1.0, 1e-30, 1e30] {
        let [mut w, mut m, mut v] = [[0.0; 3]; 3];
        one(&Args::new(0.1, 1), [&mut w, &mut m, &mut v], &[0.0, gradient, 0.0]).unwrap();
        assert_eq!([w[0], w[2]], [0.0; 2]);
        assert!((w[1] + 0.1).abs() < 1e-6, "the first step is as long as the rate: {w:?}");
    }
    let [mut w, mut m, mut v] = [[1.0; 3], [0.0; 3], [0.0; 3]];
    one(&Args::new(0.1, 1), [&mut w, &mut m, &mut v], &[0.0; 3]).unwrap();
    assert_eq!((w, m, v), ([1.0; 3], [0.0; 3], [0.0; 3]), "no gradient, no step");
}

#[test]
fn the_scale_of_a_gradient_does_not_matter_nor_that_of_its_neighbour_in_the_stack() {
    let gradients: Vec<f32> = (0..40).map(|k| (k as f32 - 20.5) / 3.0).collect();
    let mut scaled = gradients.clone();
    scaled[20..].iter_mut().for_each(|g| *g *= 1024.0);
    let run = |gradients: &[f32]| {
        let [mut w, mut m, mut v] = [vec![0.5; 40], vec![0.0; 40], vec![0.0; 40]];
        for number in 1..=3 {
            let arenas = Arenas { parameters: &mut w, m: &mut m, v: &mut v, gradients };
            step(&Device::cpu(), &Args::new(0.1, number), 2, arenas).unwrap();
        }
        w
    };
    for (a, b) in run(&gradients).iter().zip(run(&scaled)) {
        assert!((a - b).abs() < 1e-6, "{a} {b}");
    }
}

#[test]
fn wrong_buffers_are_errors_that_name_them() {
    let args = Args::new(0.1, 1);
    let call = |args: &Args, m: usize, v: usize, g: usize| {
        let (mut w, mut m, mut v) = (vec![7.0; 3], vec![0.0; m], vec![0.0; v]);
        let error = one(args, [&mut w, &mut m, &mut v], &vec![1.0; g]).unwrap_err();
        assert_eq!(w, [7.0; 3]);
        error.field.unwrap_or_default()
    };
    assert_eq!(call(&args, 2, 3, 3), "m");
    assert_eq!(call(&args, 3, 4, 3), "v");
    assert_eq!(call(&args, 3, 3, 0), "gradients");
    assert_eq!(call(&Args { step: 0, ..args }, 3, 3, 3), "step");
    let [mut w, mut m, mut v] = [[7.0; 3]; 3];
    let arenas = Arenas { parameters: &mut w, m: &mut m, v: &mut v, gradients: &[1.0; 3] };
    assert_eq!(step(&Device::cpu(), &args, 2, arenas).unwrap_err().field.as_deref(), Some("runs"));
}
