//! The forward pass on the CPU: weights packed once, then tiles of rows in parallel, whose
//! hidden layers stay in cache.
//!
//! The first layer works in f32 at every precision, as in training: inputs may be absolute coordinates, of which bf16
//! would keep two digits.

use rayon::prelude::*;

use super::buffer::{Buffer, Shared};
use super::kernel::{COLUMNS, Kernel, Task, check_precision, per_word, run};
use super::product::{
    Out, Product, Weights, depth, narrow, pack_forward, panel_words, stride, wide_stride,
};
use crate::device::Cpu;
use crate::error::Result;
use crate::model::{Layer, Precision};

/// Rows of a tile: eight blocks of rows share each read of the weights.
const ROWS_PER_TILE: usize = 96;

/// The network with packed weights.
struct Network<'a> {
    layers: &'a [Layer],
    parameters: &'a [f32],
    inputs: &'a [f32],
    packed: Shared<f32>,
    /// Places of each layer's panels, followed by the padded bias.
    places: Vec<usize>,
    /// Row lengths of the widest layer, in f32 and as operand.
    wide_row: usize,
    hidden_row: usize,
}

pub(super) fn forward(
    cpu: &Cpu,
    layers: &[Layer],
    parameters: &[f32],
    inputs: &[f32],
    rows: usize,
    precision: Precision,
    outputs: &mut [f32],
) -> Result<()> {
    check_precision(cpu, precision)?;
    if rows == 0 {
        return Ok(());
    }
    let (mut places, mut len) = (Vec::new(), 0);
    for (index, layer) in layers.iter().enumerate() {
        places.push(len);
        let per_word = if index == 0 { 1 } else { per_word(precision) };
        len += panel_words(layer.outputs, layer.inputs, per_word);
        len += layer.outputs.next_multiple_of(COLUMNS);
    }
    let width = outputs.len() / rows;
    let widest = layers.iter().map(|layer| layer.outputs).max().unwrap_or(0);
    let mut packed = Buffer::default();
    let network = Network {
        layers,
        parameters,
        inputs,
        packed: packed.words(len),
        places,
        wide_row: wide_stride(widest),
        hidden_row: stride(widest, per_word(precision)),
    };
    // SAFETY: buffers have the lengths given by the places.
    (0..layers.len())
        .into_par_iter()
        .for_each(|i| unsafe { run(cpu, precision, Pack(&network, i)) });
    let scratch = ROWS_PER_TILE * (2 * network.hidden_row + network.wide_row);
    outputs.par_chunks_mut(ROWS_PER_TILE * width).enumerate().for_each_init(
        Buffer::default,
        |buffer, (index, outputs)| {
            let scratch = buffer.words(scratch);
            let tile = Tile { network: &network, first: index * ROWS_PER_TILE, outputs, scratch };
            // SAFETY: as above.
            unsafe { run(cpu, precision, tile) }
        },
    );
    Ok(())
}

/// Packs one layer.
struct Pack<'a>(&'a Network<'a>, usize);

impl Task for Pack<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<K: Kernel>(self) {
        let Pack(network, index) = self;
        // SAFETY: as the caller promises.
        unsafe {
            if index == 0 { pack::<K::Wide>(network, index) } else { pack::<K>(network, index) }
        }
    }
}

#[inline(always)]
unsafe fn pack<K: Kernel>(network: &Network, index: usize) {
    let layer = &network.layers[index];
    let weights = Weights {
        at: network.parameters[layer.weight.clone()].as_ptr(),
        row: layer.inputs,
        outputs: layer.outputs,
        inputs: layer.inputs,
    };
    let words = depth(layer.inputs, K::PER_WORD);
    let padded = layer.outputs.next_multiple_of(COLUMNS);
    // SAFETY: as the caller promises.
    unsafe {
        for panel in 0..padded / COLUMNS {
            let to = network.packed.at(network.places[index] + panel * COLUMNS * words);
            pack_forward::<K>(&weights, panel, to);
        }
        let bias = network.packed.at(network.places[index] + padded * words);
        let bias = std::slice::from_raw_parts_mut(bias, padded);
        bias[..layer.outputs].copy_from_slice(&network.parameters[layer.bias.clone()]);
        bias[layer.outputs..].fill(0.0);
    }
}

/// Some rows through all layers.
struct Tile<'a> {
    network: &'a Network<'a>,
    first: usize,
    outputs: &'a mut [f32],
    scratch: Shared<f32>,
}

impl Task for Tile<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<K: Kernel>(self) {
        let Network { layers, inputs, packed, places, wide_row, hidden_row, .. } = self.network;
        let width = layers[layers.len() - 1].outputs;
        let rows = self.outputs.len() / width;
        // SAFETY: as the caller promises.
        unsafe {
            // The first layer before rounding, then the output.
            let wide = self.scratch.at(2 * ROWS_PER_TILE * hidden_row);
            let first = &inputs[self.first * layers[0].inputs..];
            let (mut a, mut a_row) = (first.as_ptr(), layers[0].inputs);
            for (index, layer) in layers.iter().enumerate() {
                let to = self.scratch.at(index % 2 * ROWS_PER_TILE * hidden_row);
                let words = depth(layer.inputs, if index == 0 { 1 } else { K::PER_WORD });
                let panels = packed.at(places[index]);
                let product = Product {
                    rows,
                    columns: layer.outputs,
                    terms: layer.inputs,
                    a,
                    a_row,
                    b: panels,
                    addend: panels.add(layer.outputs.next_multiple_of(COLUMNS) * words),
                    addend_row: 0,
                    out: match index + 1 == layers.len() {
                        true => Out::Linear { to: wide, row: *wide_row },
                        false => Out::Relu { to, row: *hidden_row },
                    },
                };
                match index {
                    0 => first_layer::<K>(&product, wide, *wide_row),
                    _ => K::product(&product),
                }
                (a, a_row) = (to, *hidden_row);
            }
            for (row, to) in self.outputs.chunks_exact_mut(width).enumerate() {
                let from = wide.add(row * wide_row);
                to.copy_from_slice(std::slice::from_raw_parts(from, width));
            }
        }
    }
}

/// The first layer: f32 operands, and results in the chosen precision.
#[inline(always)]
unsafe fn first_layer<K: Kernel>(product: &Product, wide: *mut f32, wide_row: usize) {
    // SAFETY: as the caller promises.
    unsafe {
        let Out::Relu { to, row } = product.out else { return K::Wide::product(product) };
        if K::PER_WORD == 1 {
            return K::product(product);
        }
        let out = Out::Relu { to: wide, row: wide_row };
        K::Wide::product(&Product { out, ..*product });
        for m in 0..product.rows {
            narrow::<K>(wide.add(m * wide_row), to.add(m * row), product.columns);
        }
    }
}
