//! The forward pass on the processor.

use rayon::prelude::*;

use super::reference;
use crate::device::Cpu;
use crate::error::Result;
use crate::network::spec::{Layer, Precision};

pub(super) fn forward(
    _: &Cpu,
    layers: &[Layer],
    parameters: &[f32],
    inputs: &[f32],
    rows: usize,
    _: Precision,
    outputs: &mut [f32],
) -> Result<()> {
    let wide: Vec<f64> = parameters.iter().map(|&x| f64::from(x)).collect();
    let (n_in, n_out) = (inputs.len() / rows.max(1), outputs.len() / rows.max(1));
    outputs.par_chunks_mut(n_out.max(1)).enumerate().for_each(|(row, output)| {
        let input: Vec<f64> =
            inputs[row * n_in..(row + 1) * n_in].iter().map(|&x| f64::from(x)).collect();
        for (to, from) in output.iter_mut().zip(reference(layers, &wide, &input)) {
            *to = from as f32;
        }
    });
    Ok(())
}
