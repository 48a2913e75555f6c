//! The forward pass, and on a GPU the gradient, against the reference in f64.

use super::*;
use crate::device::Gpu;
use crate::model::Shape;
use crate::ops::{Check, precisions, relative_error};
use crate::random::Random;

/// Hidden layers, their units, messages, rows: around the sizes of tiles.
const CASES: [[usize; 4]; 7] = [
    [1, 7, 1, 1],
    [1, 65, 5, 33],
    [2, 16, 2, 31],
    [2, 33, 100, 64],
    [3, 40, 16, 97],
    [2, 128, 31, 65],
    [2, 20, 3, 600],
];

/// Each network at each precision of the device: the error may be twice that of the naive implementation.
pub fn checks(device: &Device) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    for case in CASES {
        for precision in precisions(device) {
            checks.push(check_forward(device, case, precision)?);
            if let Device::Gpu(gpu) = device {
                checks.extend(check_gradient(*gpu, case, precision)?);
            }
        }
    }
    Ok(checks)
}

/// φe from 12 features and its parameters, and inputs.
fn network([layers, hidden, message_dim, rows]: [usize; 4]) -> (Vec<Layer>, Vec<f32>, Vec<f32>) {
    let shape = Shape { n_features: 6, message_dim, outputs: 2, hidden, layers, sampled: false };
    let arena = shape.arena();
    let mut random = Random::new(2, (100 * layers + hidden) as u64);
    let scale = 1.0 / (hidden as f64).sqrt();
    let parameters = (0..arena.len).map(|_| (scale * random.normal()) as f32).collect();
    let inputs = (0..rows * 12).map(|_| random.normal() as f32).collect();
    (arena.edge, parameters, inputs)
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| x.into()).collect()
}

fn check_forward(device: &Device, case: [usize; 4], precision: Precision) -> Result<Check> {
    let [layers, hidden, messages, rows] = case;
    let (network, parameters, inputs) = network(case);
    let outputs = |rounding: Rounding| -> Vec<f64> {
        let parameters = wide(&parameters);
        let row = |x: &[f32]| reference(&network, &parameters, wide(x), rounding).pop();
        inputs.chunks(12).filter_map(row).flatten().collect()
    };
    let exact = outputs(Rounding::Exact);
    let mut found = vec![f32::NAN; rows * messages];
    forward(device, &network, &parameters, &inputs, rows, precision, &mut found)?;
    Ok(Check {
        operation: "mlp",
        case: format!("{rows} rows, {layers} layers of {hidden} to {messages}, {precision:?}"),
        error: relative_error(&found, &exact),
        limit: 2.0 * relative_error(&outputs(Rounding::Naive(precision)), &exact) + 1e-6,
    })
}

/// Gradients of the inputs and of the parameters, for random gradients of the outputs. Biases keep the units away from
/// zero, every other one off: otherwise rounding would switch units, and the error would be a matter of luck.
fn check_gradient(gpu: Gpu, case: [usize; 4], precision: Precision) -> Result<Vec<Check>> {
    let [layers, hidden, messages, rows] = case;
    let (network, mut parameters, inputs) = network(case);
    for layer in &network {
        parameters[layer.weight.clone()].iter_mut().for_each(|w| *w *= 0.1);
        for (index, bias) in parameters[layer.bias.clone()].iter_mut().enumerate() {
            *bias = if index % 2 == 0 { 1.0 } else { -1.0 } + 0.1 * *bias;
        }
    }
    let mut random = Random::new(5, rows as u64);
    let d_outputs: Vec<f32> = (0..rows * messages).map(|_| random.normal() as f32).collect();
    let gradients = |rounding: Rounding| {
        let parameters = wide(&parameters);
        let (mut d_inputs, mut gradients) = (Vec::new(), vec![0.0; parameters.len()]);
        for (x, d) in inputs.chunks(12).zip(d_outputs.chunks(messages)) {
            let values = reference(&network, &parameters, wide(x), rounding);
            let to = &mut gradients;
            let d = reference_gradient(&network, &parameters, &values, wide(d), to, rounding);
            d_inputs.extend(d);
        }
        [d_inputs, gradients]
    };
    let (exact, naive) = (gradients(Rounding::Exact), gradients(Rounding::Naive(precision)));
    let found = gpu::gradient(gpu, &network, &parameters, precision, &inputs, &d_outputs)?;
    let check = |what: &str, found: &[f32], index: usize| Check {
        operation: "mlp",
        case: format!(
            "gradient of {what}, {rows} rows, {layers} layers of {hidden} to {messages}, \
             {precision:?}"
        ),
        error: relative_error(found, &exact[index]),
        limit: 2.0 * relative_error(&naive[index], &exact[index]) + 1e-6,
    };
    Ok(vec![check("inputs", &found.0, 0), check("parameters", &found.1, 1)])
}
