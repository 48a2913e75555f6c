//! Layers on a CUDA device: `kernels/mlp.cu`. The launches serve stacks of networks, which `ops::tiny` trains;
//! [`forward`] and [`gradient`] are for one network and rows in host memory.
//!
//! The first layer works in f32 at every precision, as on the CPU.

use half::bf16;

use crate::device::Gpu;
use crate::device::args::{InputGradientArgs, LayerArgs, SumArgs, WeightGradientArgs};
use crate::device::cuda::{Buffer, Grid, Kernel, Pointer};
use crate::error::Result;
use crate::model::{Layer, Precision};

/// Results of a block, its threads, and their shared memory: `kernels/common/gemm.cuh`.
pub(crate) const TILE: [usize; 2] = [32, 64];
pub(crate) const THREADS: u32 = 128;
pub(crate) const SHARED: usize = 30_720;

/// Rows that one block of a weight gradient sums, unless there are very many.
const ROWS_PER_SPLIT: usize = 256;
const MOST_SPLITS: usize = 16;

/// Rows on the device at a time: bounds the memory for hidden layers.
const ROWS_AT_ONCE: usize = 1 << 16;

/// A kernel for each precision.
pub(crate) struct Variants {
    pub module: &'static str,
    pub names: [&'static str; 4],
}

impl Variants {
    pub(crate) fn at(&self, precision: Precision) -> Kernel {
        let index = match precision {
            Precision::F32 => 0,
            Precision::Bf16 => 1,
            Precision::Tf32 => 2,
            Precision::Bf16x3 => 3,
        };
        Kernel { module: self.module, name: self.names[index] }
    }
}

/// Makes the [`Variants`] `module_name_f32`, ….
macro_rules! variants {
    ($module:literal, $name:literal) => {
        $crate::ops::mlp::gpu::Variants {
            module: $module,
            names: [
                concat!($module, "_", $name, "_f32"),
                concat!($module, "_", $name, "_bf16"),
                concat!($module, "_", $name, "_tf32"),
                concat!($module, "_", $name, "_bf16x3"),
            ],
        }
    };
}
pub(crate) use variants;

const LAYER: Variants = variants!("mlp", "layer");
const INPUT_GRADIENT: Variants = variants!("mlp", "input_gradient");
const WEIGHT_GRADIENT: Variants = variants!("mlp", "weight_gradient");
const SUM: Kernel = Kernel { module: "mlp", name: "mlp_sum" };

/// Activations on the device: bf16 at that precision, else f32.
pub(crate) enum Operands {
    F32(Buffer<f32>),
    Bf16(Buffer<bf16>),
}

impl Operands {
    pub(crate) fn new(gpu: Gpu, precision: Precision, len: usize) -> Result<Self> {
        match precision {
            Precision::Bf16 => Ok(Operands::Bf16(gpu.buffer(len)?)),
            _ => Ok(Operands::F32(gpu.buffer(len)?)),
        }
    }

    fn upload(gpu: Gpu, precision: Precision, values: &[f32]) -> Result<Self> {
        match precision {
            Precision::Bf16 => {
                let rounded: Vec<bf16> = values.iter().map(|&x| bf16::from_f32(x)).collect();
                Ok(Operands::Bf16(gpu.upload(&rounded)?))
            }
            _ => Ok(Operands::F32(gpu.upload(values)?)),
        }
    }

    /// The address for a kernel that reads them.
    pub(crate) fn read(&self) -> Pointer<u8> {
        match self {
            Operands::F32(buffer) => buffer.read(buffer.len()).cast(),
            Operands::Bf16(buffer) => buffer.read(buffer.len()).cast(),
        }
    }

    /// The addresses for a kernel that writes either f32 or bf16: the other pointer is null.
    pub(crate) fn write(&mut self) -> (Pointer<f32>, Pointer<bf16>) {
        match self {
            Operands::F32(buffer) => (buffer.write(buffer.len()), Pointer::NULL),
            Operands::Bf16(buffer) => (Pointer::NULL, buffer.write(buffer.len())),
        }
    }
}

/// A block for each tile of `rows` × `columns` results of each run.
pub(crate) fn tiles(rows: usize, columns: usize, runs: usize) -> Grid {
    let [x, y] = [rows.div_ceil(TILE[0]), columns.div_ceil(TILE[1])];
    Grid { blocks: [x as u32, y as u32, runs as u32], threads: THREADS, shared: SHARED }
}

/// The number of sums that a weight gradient over `rows` rows is split into. It depends on the problem only, never on
/// the device or on the number of runs.
pub(crate) fn splits(rows: usize) -> usize {
    rows.div_ceil(ROWS_PER_SPLIT).clamp(1, MOST_SPLITS)
}

/// Enqueues a layer of `runs` networks.
///
/// # Safety
/// The pointers of `args` belong to living buffers of the sizes given in the kernel's struct; what is written is
/// borrowed mutably.
pub(crate) unsafe fn layer(
    gpu: Gpu,
    precision: Precision,
    runs: usize,
    args: &LayerArgs,
) -> Result<()> {
    let grid = tiles(args.rows as usize, args.out_width as usize, runs);
    // SAFETY: the caller's promise; the grid covers the outputs.
    unsafe { gpu.launch(LAYER.at(precision), grid, args) }
}

/// Enqueues the gradient of a layer's inputs.
///
/// # Safety
/// As for [`layer`].
pub(crate) unsafe fn input_gradient(
    gpu: Gpu,
    precision: Precision,
    runs: usize,
    args: &InputGradientArgs,
) -> Result<()> {
    let grid = tiles(args.rows as usize, args.in_width as usize, runs);
    // SAFETY: the caller's promise; the grid covers the inputs.
    unsafe { gpu.launch(INPUT_GRADIENT.at(precision), grid, args) }
}

/// Enqueues the sums of `count` partial gradients.
///
/// # Safety
/// As for [`layer`].
pub(crate) unsafe fn sum(gpu: Gpu, runs: usize, args: &SumArgs) -> Result<()> {
    let mut grid = Grid::cover(args.len as usize, 256);
    grid.blocks[2] = runs as u32;
    // SAFETY: the caller's promise; threads stride over `len`.
    unsafe { gpu.launch(SUM, grid, args) }
}

/// A network on the device, with room for the values of all its layers on some rows.
pub(crate) struct Network<'a> {
    gpu: Gpu,
    layers: &'a [Layer],
    precision: Precision,
    parameters: Buffer<f32>,
    inputs: Buffer<f32>,
    hidden: Vec<Operands>,
    outputs: Buffer<f32>,
}

impl<'a> Network<'a> {
    /// Room for `rows` rows.
    pub(crate) fn new(
        gpu: Gpu,
        layers: &'a [Layer],
        parameters: &[f32],
        precision: Precision,
        rows: usize,
    ) -> Result<Self> {
        let (last, hidden) = layers.split_last().expect("checked by the entry");
        let operands = |layer: &Layer| Operands::new(gpu, precision, rows * layer.outputs);
        Ok(Network {
            gpu,
            layers,
            precision,
            parameters: gpu.upload(parameters)?,
            inputs: gpu.buffer(rows * layers[0].inputs)?,
            hidden: hidden.iter().map(operands).collect::<Result<_>>()?,
            outputs: gpu.buffer(rows * last.outputs)?,
        })
    }

    /// The precision of a layer's products: features may be absolute coordinates, of which bf16
    /// would keep two digits.
    fn precision_of(&self, index: usize) -> Precision {
        if index == 0 { Precision::F32 } else { self.precision }
    }

    /// The input of a layer.
    fn values(&self, index: usize) -> Pointer<u8> {
        match index {
            0 => self.inputs.read(self.inputs.len()).cast(),
            _ => self.hidden[index - 1].read(),
        }
    }

    /// Uploads inputs for at most as many rows as there is room for; returns how many.
    pub(crate) fn upload(&mut self, inputs: &[f32]) -> Result<usize> {
        self.inputs.upload(inputs)?;
        Ok(inputs.len() / self.layers[0].inputs)
    }

    /// Enqueues the forward pass of the first `rows` inputs.
    pub(crate) fn forward(&mut self, rows: usize) -> Result<()> {
        for (index, at) in self.layers.iter().enumerate() {
            let entering = self.values(index);
            let (outputs, rounded) = match self.hidden.get_mut(index) {
                Some(hidden) => hidden.write(),
                None => (self.outputs.write(self.outputs.len()), Pointer::NULL),
            };
            let args = LayerArgs {
                inputs: entering,
                parameters: self.parameters.read(self.parameters.len()),
                outputs,
                rounded,
                arena: self.parameters.len() as u64,
                weight: at.weight.start as u64,
                bias: at.bias.start as u64,
                rows: rows as u32,
                group: 1,
                in_width: at.inputs as u32,
                out_width: at.outputs as u32,
                relu: u64::from(index < self.hidden.len()),
            };
            // SAFETY: the buffers belong to this network.
            unsafe { layer(self.gpu, self.precision_of(index), 1, &args)? };
        }
        Ok(())
    }
}

pub(super) fn forward(
    gpu: &Gpu,
    layers: &[Layer],
    parameters: &[f32],
    inputs: &[f32],
    rows: usize,
    precision: Precision,
    outputs: &mut [f32],
) -> Result<()> {
    if rows == 0 {
        return Ok(());
    }
    let at_once = rows.min(ROWS_AT_ONCE);
    let mut network = Network::new(*gpu, layers, parameters, precision, at_once)?;
    let widths = [inputs.len() / rows, outputs.len() / rows];
    let inputs = inputs.chunks(at_once * widths[0]);
    for (inputs, outputs) in inputs.zip(outputs.chunks_mut(at_once * widths[1])) {
        let rows = network.upload(inputs)?;
        network.forward(rows)?;
        network.outputs.download(outputs)?;
    }
    Ok(())
}

/// The gradients with respect to `inputs` `[rows, in]` and to the arena `parameters`, given those with respect to the
/// outputs, `[rows, out]`. In bf16 the first layer takes its gradient in f32, like its inputs.
pub(super) fn gradient(
    gpu: Gpu,
    layers: &[Layer],
    parameters: &[f32],
    precision: Precision,
    inputs: &[f32],
    d_outputs: &[f32],
) -> Result<(Vec<f32>, Vec<f32>)> {
    let rows = inputs.len() / layers[0].inputs;
    let mut network = Network::new(gpu, layers, parameters, precision, rows)?;
    network.upload(inputs)?;
    network.forward(rows)?;
    let (arena, splits) = (parameters.len(), splits(rows));
    let mut partials = gpu.zeros(splits * arena)?;
    let mut gradients = gpu.buffer(arena)?;
    let mut d_inputs = gpu.buffer(inputs.len())?;
    let mut d = Operands::upload(gpu, network.precision_of(layers.len() - 1), d_outputs)?;
    for (index, at) in layers.iter().enumerate().rev() {
        let precision = network.precision_of(index);
        let args = WeightGradientArgs {
            d_outputs: d.read(),
            inputs: network.values(index),
            partials: partials.write(splits * arena),
            arena: arena as u64,
            weight: at.weight.start as u64,
            bias: at.bias.start as u64,
            rows: rows as u32,
            in_width: at.inputs as u32,
            out_width: at.outputs as u32,
            rows_per_split: rows.div_ceil(splits) as u32,
        };
        // SAFETY: the buffers live to the end, and the grid covers the weights.
        unsafe { weight_gradient(gpu, precision, splits, &args)? };
        let mut entering = match index {
            0 => None,
            _ => Some(Operands::new(gpu, network.precision_of(index - 1), rows * at.inputs)?),
        };
        let (wide, rounded) = match &mut entering {
            Some(entering) => entering.write(),
            None => (d_inputs.write(inputs.len()), Pointer::NULL),
        };
        let args = InputGradientArgs {
            d_outputs: d.read(),
            parameters: network.parameters.read(arena),
            inputs: if index == 0 { Pointer::NULL } else { network.values(index) },
            d_inputs: wide,
            rounded,
            arena: arena as u64,
            weight: at.weight.start as u64,
            rows: rows as u32,
            group: 1,
            in_width: at.inputs as u32,
            out_width: at.outputs as u32,
        };
        // SAFETY: as above.
        unsafe { input_gradient(gpu, precision, 1, &args)? };
        if let Some(entering) = entering {
            // The old buffer is freed in stream order, after the kernels above.
            d = entering;
        }
    }
    let args = SumArgs {
        partials: partials.read(splits * arena),
        sums: gradients.write(arena),
        len: arena as u64,
        count: splits as u64,
    };
    // SAFETY: as above.
    unsafe { sum(gpu, 1, &args)? };
    Ok((d_inputs.to_vec()?, gradients.to_vec()?))
}

/// Enqueues adding the partial gradients of a layer's parameters to the contents of `partials`.
///
/// # Safety
/// As for [`layer`].
pub(crate) unsafe fn weight_gradient(
    gpu: Gpu,
    precision: Precision,
    splits: usize,
    args: &WeightGradientArgs,
) -> Result<()> {
    let outputs = (args.out_width as usize).div_ceil(TILE[0]);
    let inputs = (args.in_width as usize).div_ceil(TILE[1]);
    let mut grid = Grid::new(outputs * inputs, THREADS);
    (grid.blocks[1], grid.shared) = (splits as u32, SHARED);
    // SAFETY: the caller's promise; the grid covers the weights and the rows.
    unsafe { gpu.launch(WEIGHT_GRADIENT.at(precision), grid, args) }
}
