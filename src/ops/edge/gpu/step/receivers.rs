//! Layers on the receivers of a chunk (φv's, and φe's last one if it acts on sums over edges) in f32: in larger tiles
//! (`kernels/edge_receivers.cu`) where these fill a device, and with the same bits.

use super::*;

const LAYER: Kernel = Kernel { module: "edge_receivers", name: "edge_receivers_layer" };
const INPUT_GRADIENT: Kernel =
    Kernel { module: "edge_receivers", name: "edge_receivers_input_gradient" };
const WEIGHT_GRADIENT: Kernel =
    Kernel { module: "edge_receivers", name: "edge_receivers_weight_gradient" };

/// From this many receivers on, a layer of some hundred units has two large tiles for each multiprocessor.
pub(in crate::ops::edge::gpu) const MANY_RECEIVERS: usize = 8192;

/// A block for each tile of a product; two buffers of both operands.
fn tiles(rows: usize, columns: usize, count: usize) -> Grid {
    Grid { shared: 16_896, ..large(rows, columns, count) }
}

impl Step<'_> {
    /// Enqueues a layer.
    ///
    /// # Safety
    /// `inputs` and `outputs` have a row for each receiver.
    pub(super) unsafe fn receivers_layer(
        &self,
        at: &Layer,
        inputs: Pointer<f32>,
        outputs: Pointer<f32>,
        relu: bool,
    ) -> Result<()> {
        let rows = self.receivers;
        if rows < MANY_RECEIVERS {
            let args = LayerArgs { outputs, ..self.plain(at, inputs.cast(), rows, relu) };
            // SAFETY: as the caller promises; a layer is inside its arena.
            return unsafe { layer(self.gpu, Precision::F32, 1, &args) };
        }
        let parameters = self.wide.read(self.wide.len());
        // SAFETY: as above.
        unsafe {
            let args = EdgeReceiversLayerArgs {
                inputs,
                weights: parameters.add(at.weight.start),
                bias: parameters.add(at.bias.start),
                outputs,
                rows: rows as u32,
                in_width: at.inputs as u32,
                out_width: at.outputs as u32,
                relu: u32::from(relu),
            };
            self.gpu.launch(LAYER, tiles(rows, at.outputs, 1), &args)
        }
    }

    /// Enqueues the gradient of a layer's inputs; `inputs` are those of a ReLU, or null.
    ///
    /// # Safety
    /// `d_outputs`, `inputs` and `d_inputs` have a row for each receiver.
    pub(super) unsafe fn receivers_input_gradient(
        &self,
        at: &Layer,
        d_outputs: Pointer<f32>,
        inputs: Pointer<f32>,
        d_inputs: Pointer<f32>,
    ) -> Result<()> {
        let rows = self.receivers;
        if rows < MANY_RECEIVERS {
            let args = InputGradientArgs {
                inputs: inputs.cast(),
                d_inputs,
                ..self.passing(at, rows, d_outputs.cast())
            };
            // SAFETY: as the caller promises; a layer is inside its arena.
            return unsafe { input_gradient(self.gpu, Precision::F32, 1, &args) };
        }
        // SAFETY: as above.
        unsafe {
            let args = EdgeReceiversInputGradientArgs {
                d_outputs,
                weights: self.wide.read(self.wide.len()).add(at.weight.start),
                inputs,
                d_inputs,
                rows: rows as u32,
                in_width: at.inputs as u32,
                out_width: at.outputs as u32,
                unused: 0,
            };
            self.gpu.launch(INPUT_GRADIENT, tiles(rows, at.inputs, 1), &args)
        }
    }

    /// Adds the gradient of a layer's parameters.
    ///
    /// # Safety
    /// `d_outputs` and `inputs` have a row for each receiver.
    pub(super) unsafe fn receivers_weights(
        &self,
        to: &mut Backward,
        at: &Layer,
        d_outputs: Pointer<f32>,
        inputs: Pointer<f32>,
    ) -> Result<()> {
        let rows = self.receivers;
        if rows < MANY_RECEIVERS {
            return self.weights(Precision::F32, to, at, rows, d_outputs.cast(), inputs.cast());
        }
        let partials = to.partials.write(to.splits * to.stride);
        // SAFETY: as the caller promises; the partial sums have room for every split, a layer is inside its arena.
        unsafe {
            let args = EdgeReceiversWeightGradientArgs {
                d_outputs,
                inputs,
                partials: partials.add(at.weight.start),
                biases: partials.add(at.bias.start),
                stride: to.stride as u64,
                rows: rows as u32,
                in_width: at.inputs as u32,
                out_width: at.outputs as u32,
                rows_per_split: rows.div_ceil(to.splits) as u32,
            };
            self.gpu.launch(WEIGHT_GRADIENT, tiles(at.outputs, at.inputs, to.splits), &args)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Device, test_gpu};
    use crate::random::Random;

    /// Rows, inputs, outputs, and splits of the weight gradient.
    const SIZES: [([usize; 3], usize); 5] = [
        ([1, 3, 2], 1),
        ([300, 107, 140], 3),
        ([128, 33, 1], 1),
        ([129, 32, 129], 16),
        ([40, 257, 64], 2),
    ];

    /// A layer, and numbers for it.
    struct Numbers {
        sizes: [usize; 3],
        inputs: Vec<f32>,
        /// `[out, in]`, `[out]`
        parameters: Vec<f32>,
        d_outputs: Vec<f32>,
    }

    impl Numbers {
        fn new(sizes: [usize; 3], mut next: impl FnMut() -> f32) -> Self {
            let [rows, inputs, outputs] = sizes;
            let mut draw = |count: usize| (0..count).map(|_| next()).collect::<Vec<f32>>();
            Numbers {
                sizes,
                inputs: draw(rows * inputs),
                parameters: draw(outputs * (inputs + 1)),
                d_outputs: draw(rows * outputs),
            }
        }

        /// Outputs after a ReLU; the gradient of the inputs, which come from a ReLU; that of the parameters, starting
        /// from 1.
        fn expected(&self) -> [Vec<f64>; 3] {
            let [rows, inputs, outputs] = self.sizes;
            let x = |r: usize, i: usize| f64::from(self.inputs[r * inputs + i]);
            let w = |o: usize, i: usize| f64::from(self.parameters[o * inputs + i]);
            let d = |r: usize, o: usize| f64::from(self.d_outputs[r * outputs + o]);
            let each = |height: usize, width: usize, of: &dyn Fn(usize, usize) -> f64| {
                (0..height * width).map(|at| of(at / width, at % width)).collect::<Vec<f64>>()
            };
            let output = |r: usize, o: usize| {
                let sum: f64 = (0..inputs).map(|i| x(r, i) * w(o, i)).sum();
                (sum + w(outputs, o)).max(0.0)
            };
            let d_input = |r: usize, i: usize| match x(r, i) > 0.0 {
                true => (0..outputs).map(|o| d(r, o) * w(o, i)).sum(),
                false => 0.0,
            };
            let d_weight = |o: usize, i: usize| (0..rows).map(|r| d(r, o) * x(r, i)).sum::<f64>();
            let d_bias = |o: usize, _: usize| (0..rows).map(|r| d(r, o)).sum::<f64>();
            let d_parameters = [each(outputs, inputs, &d_weight), each(outputs, 1, &d_bias)];
            let d_parameters = d_parameters.concat().into_iter().map(|d| d + 1.0).collect();
            [each(rows, outputs, &output), each(rows, inputs, &d_input), d_parameters]
        }

        /// The same from these kernels, or from those of `ops::mlp`, into poisoned buffers.
        fn found(&self, gpu: Gpu, splits: usize, large: bool) -> [Vec<f32>; 3] {
            let [rows, inputs, outputs] = self.sizes;
            let [x, parameters] =
                [&self.inputs, &self.parameters].map(|numbers| gpu.upload(numbers).unwrap());
            let d = gpu.upload(&self.d_outputs).unwrap();
            let mut out = gpu.upload(&vec![f32::NAN; rows * outputs]).unwrap();
            let mut d_in = gpu.upload(&vec![f32::NAN; rows * inputs]).unwrap();
            let arena = outputs * (inputs + 1);
            let mut partials = vec![0.0; splits * arena];
            partials[..arena].fill(1.0);
            let mut partials = gpu.upload(&partials).unwrap();
            let (to, to_inputs) = (out.write(out.len()), d_in.write(d_in.len()));
            let to_partials = partials.write(splits * arena);
            let (x, w, d) = (x.read(x.len()), parameters.read(arena), d.read(d.len()));
            let (in_width, out_width) = (inputs as u32, outputs as u32);
            let (weight, bias) = (0, (outputs * inputs) as u64);
            let rows_per_split = rows.div_ceil(splits) as u32;
            let count = rows as u32;
            // SAFETY: the buffers have the sizes given in the kernels' structs.
            unsafe {
                if large {
                    let bias = w.add(outputs * inputs);
                    let args = EdgeReceiversLayerArgs {
                        inputs: x,
                        weights: w,
                        bias,
                        outputs: to,
                        rows: count,
                        in_width,
                        out_width,
                        relu: 1,
                    };
                    gpu.launch(LAYER, tiles(rows, outputs, 1), &args).unwrap();
                    let args = EdgeReceiversInputGradientArgs {
                        d_outputs: d,
                        weights: w,
                        inputs: x,
                        d_inputs: to_inputs,
                        rows: count,
                        in_width,
                        out_width,
                        unused: 0,
                    };
                    gpu.launch(INPUT_GRADIENT, tiles(rows, inputs, 1), &args).unwrap();
                    let args = EdgeReceiversWeightGradientArgs {
                        d_outputs: d,
                        inputs: x,
                        partials: to_partials,
                        biases: to_partials.add(outputs * inputs),
                        stride: arena as u64,
                        rows: count,
                        in_width,
                        out_width,
                        rows_per_split,
                    };
                    gpu.launch(WEIGHT_GRADIENT, tiles(outputs, inputs, splits), &args).unwrap();
                } else {
                    let arena = arena as u64;
                    let args = LayerArgs {
                        inputs: x.cast(),
                        parameters: w,
                        outputs: to,
                        rounded: Pointer::NULL,
                        arena,
                        weight,
                        bias,
                        rows: count,
                        group: 1,
                        in_width,
                        out_width,
                        relu: 1,
                    };
                    layer(gpu, Precision::F32, 1, &args).unwrap();
                    let args = InputGradientArgs {
                        d_outputs: d.cast(),
                        parameters: w,
                        inputs: x.cast(),
                        d_inputs: to_inputs,
                        rounded: Pointer::NULL,
                        arena,
                        weight,
                        rows: count,
                        group: 1,
                        in_width,
                        out_width,
                    };
                    input_gradient(gpu, Precision::F32, 1, &args).unwrap();
                    let args = WeightGradientArgs {
                        d_outputs: d.cast(),
                        inputs: x.cast(),
                        partials: to_partials,
                        arena,
                        weight,
                        bias,
                        rows: count,
                        in_width,
                        out_width,
                        rows_per_split,
                    };
                    weight_gradient(gpu, Precision::F32, splits, &args).unwrap();
                }
            }
            let downloaded = |buffer: &Buffer<f32>| {
                let mut numbers = vec![0.0; buffer.len()];
                buffer.download(&mut numbers).unwrap();
                numbers
            };
            let parts = downloaded(&partials);
            let sum = |at: usize| parts.iter().skip(at).step_by(arena).sum::<f32>();
            [downloaded(&out), downloaded(&d_in), (0..arena).map(sum).collect()]
        }
    }

    #[test]
    fn gpu_large_tiles_on_receivers_have_the_bits_of_small_ones() {
        let Some(Device::Gpu(gpu)) = test_gpu() else { return };
        let mut random = Random::new(3, 1);
        for (sizes, splits) in SIZES {
            // Nothing is rounded.
            let numbers = Numbers::new(sizes, || (random.word() % 257) as f32 - 128.0);
            let pairs = numbers.found(gpu, splits, true).into_iter().zip(numbers.expected());
            for (what, (found, expected)) in pairs.enumerate() {
                let found: Vec<f64> = found.into_iter().map(f64::from).collect();
                assert!(found == expected, "{sizes:?}: result {what} is not exact");
            }
            let numbers = Numbers::new(sizes, || random.normal() as f32);
            let [large, small] = [true, false].map(|large| numbers.found(gpu, splits, large));
            for (what, (large, small)) in large.iter().zip(&small).enumerate() {
                assert!(large == small, "{sizes:?}: result {what} has other bits");
            }
        }
    }
}
