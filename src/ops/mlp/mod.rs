//! Forward pass of one multilayer perceptron on any number of rows: x₀ = input,
//! x_{k+1} = relu(W_k x_k + b_k), and no ReLU after the last layer.

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod buffer;
mod cpu;
pub(crate) mod gpu;
pub(crate) mod kernel;
pub(crate) mod product;
mod reference;
mod scalar;
pub mod selftest;
#[cfg(test)]
mod tests;
pub(crate) mod tiles;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::model::{Layer, Precision};
use crate::ops::{Call, check_len};
pub use reference::{Rounding, reference, reference_gradient};

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

/// [`forward`] for `measure`, which repeats it: the data are already on the device.
pub(crate) fn repeat<T>(
    device: &Device,
    layers: &[Layer],
    parameters: &[f32],
    inputs: &[f32],
    rows: usize,
    precision: Precision,
    measure: impl FnOnce(Call) -> Result<T>,
) -> Result<T> {
    match device {
        Device::Cpu(_) => {
            let mut outputs = vec![0.0; rows * layers[layers.len() - 1].outputs];
            measure(&mut || {
                forward(device, layers, parameters, inputs, rows, precision, &mut outputs)
            })
        }
        Device::Gpu(gpu) => {
            let mut network = gpu::Network::new(*gpu, layers, parameters, precision, rows)?;
            network.upload(inputs)?;
            measure(&mut || network.forward(rows))
        }
    }
}
