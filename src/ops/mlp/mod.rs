//! Forward pass of one multilayer perceptron on any number of rows: x₀ = input,
//! x_{k+1} = relu(W_k x_k + b_k), and no ReLU after the last layer.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod buffer;
mod cpu;
pub(crate) mod gpu;
pub(crate) mod kernel;
pub(crate) mod product;
pub mod selftest;
#[cfg(test)]
mod tests;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::network::spec::{Layer, Precision};
use crate::ops::check_len;

/// The outputs `[rows, out]` of the network `layers` of the arena `parameters` for `inputs`
/// `[rows, in]`.
///
/// Layers whose widths do not fit each other or the buffers are errors; nothing is written then.
pub fn forward(
    device: &Device,
    layers: &[Layer],
    parameters: &[f32],
    inputs: &[f32],
    rows: usize,
    precision: Precision,
    outputs: &mut [f32],
) -> Result<()> {
    let (Some(first), Some(last)) = (layers.first(), layers.last()) else {
        return Err(Error::usage("a network needs at least one layer"));
    };
    check_len("inputs", inputs.len(), rows * first.inputs)?;
    check_len("outputs", outputs.len(), rows * last.outputs)?;
    let mut width = first.inputs;
    for layer in layers {
        check_len("layers", layer.inputs, width)?;
        check_len("weight", layer.weight.len(), layer.inputs * layer.outputs)?;
        check_len("bias", layer.bias.len(), layer.outputs)?;
        let end = layer.weight.end.max(layer.bias.end);
        if end > parameters.len() {
            let found = parameters.len();
            return Err(Error::input(format!("has {found} elements, a layer ends at {end}"))
                .field("parameters"));
        }
        width = layer.outputs;
    }
    match device {
        Device::Cpu(cpu) => cpu::forward(cpu, layers, parameters, inputs, rows, precision, outputs),
        Device::Gpu(gpu) => gpu::forward(gpu, layers, parameters, inputs, rows, precision, outputs),
    }
}

/// How numbers are rounded in [`reference`]: it becomes the naive implementation in a lower
/// precision, whose error says how much error an implementation may have.
#[derive(Clone, Copy)]
pub struct Rounding {
    /// Factors of a product inside a sum.
    pub operand: fn(f64) -> f64,
    /// Partial sums, and what is stored.
    pub sum: fn(f64) -> f64,
}

/// No rounding but that of f64.
pub const EXACT: Rounding = Rounding { operand: |x| x, sum: |x| x };

impl Rounding {
    /// What makes the naive implementation in `precision`: sums in f32, operands rounded as it asks.
    pub fn naive(precision: Precision) -> Self {
        fn bf16(x: f64) -> f64 {
            f64::from(half::bf16::from_f32(x as f32))
        }
        let operand: fn(f64) -> f64 = match precision {
            Precision::F32 => |x| x,
            Precision::Bf16 => bf16,
            // To the nearest, ties away from zero, as the conversion instruction does.
            Precision::Tf32 => {
                |x| f64::from(f32::from_bits((x as f32).to_bits().wrapping_add(0x1000) & !0x1fff))
            }
            Precision::Bf16x3 => |x| bf16(x) + bf16(x - bf16(x)),
        };
        Rounding { operand, sum: |x| f64::from(x as f32) }
    }
}

/// The input of every layer, then the output, for one row in f64, one number at a time: what every
/// implementation is compared with.
pub fn reference(
    layers: &[Layer],
    parameters: &[f64],
    input: Vec<f64>,
    Rounding { operand, sum }: Rounding,
) -> Vec<Vec<f64>> {
    let mut values = vec![input];
    for (index, layer) in layers.iter().enumerate() {
        let x = &values[index];
        let weight = &parameters[layer.weight.clone()];
        let output = (0..layer.outputs).map(|o| {
            let row = &weight[o * layer.inputs..][..layer.inputs];
            let bias = parameters[layer.bias.start + o];
            let terms = row.iter().zip(x);
            let z = terms.fold(bias, |z, (&w, &x)| sum(z + operand(w) * operand(x)));
            if index + 1 < layers.len() { z.max(0.0) } else { z }
        });
        let output = output.collect();
        values.push(output);
    }
    values
}

/// Adds the gradient of the parameters to `gradients`, given `values` of [`reference`] and the gradient
/// of the output of one row; returns the gradient of its input.
pub fn reference_gradient(
    layers: &[Layer],
    parameters: &[f64],
    values: &[Vec<f64>],
    mut d_output: Vec<f64>,
    gradients: &mut [f64],
    Rounding { operand, sum }: Rounding,
) -> Vec<f64> {
    for (index, layer) in layers.iter().enumerate().rev() {
        let x = &values[index];
        let mut d_input = vec![0.0; layer.inputs];
        for (o, &d) in d_output.iter().enumerate() {
            let bias = &mut gradients[layer.bias.start + o];
            *bias = sum(*bias + operand(d));
            for i in 0..layer.inputs {
                let w = layer.weight.start + o * layer.inputs + i;
                gradients[w] = sum(gradients[w] + operand(d) * operand(x[i]));
                d_input[i] = sum(d_input[i] + operand(d) * operand(parameters[w]));
            }
        }
        if index > 0 {
            // The input of this layer is the ReLU of the one before.
            d_input.iter_mut().zip(x).for_each(|(d, &x)| *d *= f64::from(u8::from(x > 0.0)));
        }
        d_output = d_input;
    }
    d_output
}
