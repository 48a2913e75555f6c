//! Every level of instructions and the GPU against the formula in f64.

use super::*;
use crate::device::{Cpu, Simd};

#[test]
fn every_level_agrees_with_the_formula() {
    for simd in Simd::available() {
        for check in selftest::checks(&Device::Cpu(Cpu { simd })).unwrap() {
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
    let mut operands = gpu.upload(&vec![half::bf16::NAN; len + 1]).unwrap();
    let args = gpu::AdamArgs {
        parameters: parameters.write(len),
        m: m.write(len),
        v: v.write(len),
        gradients: gradients.read(len),
        operands: operands.write(len),
        rates: rates.read(2),
        step: step.read(1),
        len: len as u64,
    };
    // SAFETY: all buffers are longer than `len` and live to the end.
    unsafe { gpu::enqueue(gpu, &args).unwrap() };
    let (found, rounded) = (parameters.to_vec().unwrap(), operands.to_vec().unwrap());
    assert!((found[0] - (values[0] + 0.25)).abs() < 1e-4, "{}", found[0]);
    assert!(rounded[len].is_nan(), "an operand behind the end");
    for (f32, bf16) in found.iter().zip(&rounded[..len]) {
        assert_eq!(*bf16, half::bf16::from_f32(*f32));
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
