//! Every instruction level and both precisions against the reference, and wrong buffers.

use super::*;
use crate::device::{Cpu, Simd};
use crate::model::Shape;
use crate::ops::relative_error;
use crate::random::Random;

/// The precisions and the lowest level that has each.
const LOWEST: [(Precision, Simd); 2] =
    [(Precision::F32, Simd::Scalar), (Precision::Bf16, Simd::Avx512Bf16)];

/// φe of `layers` hidden layers of `hidden` units, from 12 features to 5 messages, with parameters.
fn network(layers: usize, hidden: usize, message_dim: usize) -> (Vec<Layer>, Vec<f32>) {
    let shape = Shape { n_features: 6, message_dim, outputs: 2, hidden, layers, sampled: false };
    let arena = shape.arena();
    let mut random = Random::new(2, (100 * layers + hidden) as u64);
    let scale = 1.0 / (hidden as f64).sqrt();
    let parameters = (0..arena.len).map(|_| (scale * random.normal()) as f32).collect();
    (arena.edge, parameters)
}

#[test]
fn every_level_agrees_with_the_reference() {
    for (layers, hidden, message_dim) in
        [(1, 7, 1), (1, 128, 5), (2, 16, 2), (2, 33, 100), (3, 40, 16), (2, 300, 31)]
    {
        let (network, parameters) = network(layers, hidden, message_dim);
        let wide: Vec<f64> = parameters.iter().map(|&x| f64::from(x)).collect();
        let mut random = Random::new(3, hidden as u64);
        let inputs: Vec<f32> = (0..200 * 12).map(|_| random.normal() as f32).collect();
        let all = |rounding: Rounding| -> Vec<f64> {
            let row = |x: &[f32]| {
                let input = x.iter().map(|&x| f64::from(x)).collect();
                reference(&network, &wide, input, rounding).pop().unwrap()
            };
            inputs.chunks(12).flat_map(row).collect()
        };
        let exact = all(Rounding::Exact);
        for (precision, lowest) in LOWEST {
            let naive = all(Rounding::Naive(precision));
            let limit = 2.0 * relative_error(&naive, &exact) + 1e-6;
            for simd in Simd::available().into_iter().filter(|&level| level >= lowest) {
                let device = Device::Cpu(Cpu::with(simd).unwrap());
                for block in [1, 12, 95, 96, 97, 200] {
                    let mut outputs = vec![f32::NAN; 200 * message_dim];
                    let blocks = inputs.chunks(block * 12);
                    for (inputs, outputs) in blocks.zip(outputs.chunks_mut(block * message_dim)) {
                        let rows = inputs.len() / 12;
                        forward(&device, &network, &parameters, inputs, rows, precision, outputs)
                            .unwrap();
                    }
                    let found = relative_error(&outputs, &exact);
                    assert!(
                        found <= limit,
                        "{layers} × {hidden}, {block} rows, {precision:?}, {simd:?}: {found} > {limit}"
                    );
                }
            }
        }
    }
}

#[test]
fn gpu_agrees_with_the_reference() {
    crate::ops::assert_gpu_passes(selftest::checks);
}

#[test]
fn a_row_does_not_depend_on_the_others() {
    let (network, parameters) = network(2, 33, 5);
    let inputs: Vec<f32> = (0..300 * 12).map(|i| (i as f32 * 0.37).sin()).collect();
    let run = |first: usize, rows: usize| {
        let mut outputs = vec![f32::NAN; rows * 5];
        let inputs = &inputs[first * 12..(first + rows) * 12];
        let device = Device::cpu();
        forward(&device, &network, &parameters, inputs, rows, Precision::F32, &mut outputs)
            .unwrap();
        outputs
    };
    let all = run(0, 300);
    assert_eq!(run(123, 7), all[123 * 5..130 * 5]);
    assert!(run(0, 0).is_empty());
}

#[test]
fn wrong_buffers_are_errors_that_name_them() {
    let (network, parameters) = network(2, 7, 3);
    let call = |layers: &[Layer], parameters: &[f32], inputs: usize, outputs: usize| {
        let (inputs, mut outputs) = (vec![0.0; inputs], vec![7.0; outputs]);
        let precision = Precision::F32;
        let error =
            forward(&Device::cpu(), layers, parameters, &inputs, 2, precision, &mut outputs)
                .unwrap_err();
        assert!(outputs.iter().all(|&x| x == 7.0), "written in spite of {error}");
        error.field.unwrap_or_default()
    };
    assert_eq!(call(&network, &parameters, 23, 6), "inputs");
    assert_eq!(call(&network, &parameters, 24, 7), "outputs");
    assert_eq!(call(&network, &parameters[..50], 24, 6), "parameters");
    let broken = [network[0].clone(), network[2].clone(), network[1].clone()];
    assert_eq!(call(&broken, &parameters, 24, 14), "layers");
}
