//! The network in f64, one number at a time: the reference for every implementation.
//!
//! With rounding after each operation it becomes the naive implementation in a lower precision, whose error says how
//! much error an implementation may have.

use crate::model::{Layer, Precision};

/// How numbers are rounded in [`reference`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// No rounding except that of f64.
    Exact,
    /// As in the naive implementation: partial sums and stored values to f32; factors of a product inside a sum as the
    /// precision demands.
    Naive(Precision),
}

impl Rounding {
    /// The stored value of a partial sum.
    pub fn sum(self, x: f64) -> f64 {
        if self == Rounding::Exact { x } else { to_f32(x) }
    }

    /// The same, but factors are not rounded below f32.
    pub fn wide(self) -> Self {
        if self == Rounding::Exact { self } else { Rounding::Naive(Precision::F32) }
    }
}

fn same(x: f64) -> f64 {
    x
}

fn to_f32(x: f64) -> f64 {
    f64::from(x as f32)
}

fn bf16(x: f64) -> f64 {
    f64::from(half::bf16::from_f32(x as f32))
}

/// To the nearest, ties away from zero, as the conversion instruction does.
fn tf32(x: f64) -> f64 {
    f64::from(f32::from_bits((x as f32).to_bits().wrapping_add(0x1000) & !0x1fff))
}

fn bf16x3(x: f64) -> f64 {
    bf16(x) + bf16(x - bf16(x))
}

/// Calls a function with the roundings of operands and sums as its last arguments. Each call is compiled separately:
/// most of the time of the tests goes into these loops.
macro_rules! with_rounding {
    ($rounding:expr, $function:ident($($argument:expr),*)) => {
        match $rounding {
            Rounding::Exact => $function($($argument,)* same, same),
            Rounding::Naive(Precision::F32) => $function($($argument,)* same, to_f32),
            Rounding::Naive(Precision::Bf16) => $function($($argument,)* bf16, to_f32),
            Rounding::Naive(Precision::Tf32) => $function($($argument,)* tf32, to_f32),
            Rounding::Naive(Precision::Bf16x3) => $function($($argument,)* bf16x3, to_f32),
        }
    };
}

/// The input of every layer, then the output, for one row.
pub fn reference(
    layers: &[Layer],
    parameters: &[f64],
    input: Vec<f64>,
    rounding: Rounding,
) -> Vec<Vec<f64>> {
    let mut values = vec![input];
    for (index, layer) in layers.iter().enumerate() {
        let mut output = with_rounding!(rounding, layer_outputs(layer, parameters, &values[index]));
        if index + 1 < layers.len() {
            output.iter_mut().for_each(|z| *z = z.max(0.0));
        }
        values.push(output);
    }
    values
}

/// Units summed side by side: each waits only for its own last addition.
const SIDE_BY_SIDE: usize = 8;

fn layer_outputs(
    layer: &Layer,
    parameters: &[f64],
    input: &[f64],
    operand: impl Fn(f64) -> f64,
    sum: impl Fn(f64) -> f64,
) -> Vec<f64> {
    let weight = &parameters[layer.weight.clone()];
    let input: Vec<f64> = input.iter().map(|&x| operand(x)).collect();
    let mut outputs = parameters[layer.bias.clone()].to_vec();
    for (block, outputs) in outputs.chunks_mut(SIDE_BY_SIDE).enumerate() {
        let rows = &weight[block * SIDE_BY_SIDE * layer.inputs..];
        for (i, &x) in input.iter().enumerate() {
            for (o, z) in outputs.iter_mut().enumerate() {
                *z = sum(*z + operand(rows[o * layer.inputs + i]) * x);
            }
        }
    }
    outputs
}

/// Adds the gradient of the parameters to `gradients`, given `values` from [`reference`] and the gradient of the output
/// of one row; returns the gradient of its input.
pub fn reference_gradient(
    layers: &[Layer],
    parameters: &[f64],
    values: &[Vec<f64>],
    mut d_output: Vec<f64>,
    gradients: &mut [f64],
    rounding: Rounding,
) -> Vec<f64> {
    for (index, layer) in layers.iter().enumerate().rev() {
        let x = &values[index];
        let mut d_input =
            with_rounding!(rounding, layer_gradient(layer, parameters, x, &d_output, gradients));
        if index > 0 {
            // The input of this layer is the ReLU of the one before.
            d_input.iter_mut().zip(x).for_each(|(d, &x)| *d *= f64::from(u8::from(x > 0.0)));
        }
        d_output = d_input;
    }
    d_output
}

fn layer_gradient(
    layer: &Layer,
    parameters: &[f64],
    input: &[f64],
    d_output: &[f64],
    gradients: &mut [f64],
    operand: impl Fn(f64) -> f64,
    sum: impl Fn(f64) -> f64,
) -> Vec<f64> {
    let input: Vec<f64> = input.iter().map(|&x| operand(x)).collect();
    let mut d_input = vec![0.0; layer.inputs];
    for (o, &d) in d_output.iter().enumerate() {
        let d = operand(d);
        let bias = &mut gradients[layer.bias.start + o];
        *bias = sum(*bias + d);
        let row =
            layer.weight.start + o * layer.inputs..layer.weight.start + (o + 1) * layer.inputs;
        let sums = gradients[row.clone()].iter_mut().zip(&mut d_input);
        for ((d_weight, d_input), (&w, &x)) in sums.zip(parameters[row].iter().zip(&input)) {
            *d_weight = sum(*d_weight + d * x);
            *d_input = sum(*d_input + d * operand(w));
        }
    }
    d_input
}
