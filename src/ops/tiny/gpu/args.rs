//! The kernels of `kernels/tiny.cu`, and what each of them takes.

use bytemuck::{Pod, Zeroable};
use half::bf16;

use crate::device::cuda::{Kernel, Pointer};
use crate::kernel_args;
use crate::ops::mlp::gpu::{Variants, variants};

pub(super) const GATHER: Kernel = Kernel { module: "tiny", name: "tiny_gather" };
pub(super) const EDGES: Kernel = Kernel { module: "tiny", name: "tiny_edges" };
pub(super) const MESSAGES: Variants = variants!("tiny", "messages");
pub(super) const NODES: Variants = variants!("tiny", "nodes");
pub(super) const LOSS: Variants = variants!("tiny", "loss");
pub(super) const MESSAGE_GRADIENTS: Variants = variants!("tiny", "message_gradients");
pub(super) const WEIGHTS: Variants = variants!("tiny", "weights");
pub(super) const TOTALS: Kernel = Kernel { module: "tiny", name: "tiny_totals" };

kernel_args! {
    /// What `tiny_gather` takes.
    struct GatherArgs {
        positions: Pointer<f32>,
        velocities: Pointer<f32>,
        accelerations: Pointer<f32>,
        masses: Pointer<f32>,
        charges: Pointer<f32>,
        parts: Pointer<u32>,
        seeds: Pointer<u64>,
        step: Pointer<u64>,
        features: Pointer<f32>,
        targets: Pointer<f32>,
        translation: f64,
        part_runs: u32,
        frames: u32,
        first_frame: u32,
        drawn_frames: u32,
        stride: u32,
        graphs: u32,
        bodies: u32,
        dim: u32,
    }
}

kernel_args! {
    /// What `tiny_edges` takes.
    struct EdgeArgs {
        features: Pointer<f32>,
        parameters: Pointer<f32>,
        outputs: Pointer<f32>,
        rounded: Pointer<bf16>,
        arena: u64,
        weight: u64,
        bias: u64,
        nodes: u32,
        bodies: u32,
        n_features: u32,
        hidden: u32,
    }
}

kernel_args! {
    /// What `tiny_messages_*` takes.
    struct MessagesArgs {
        hidden: Pointer<u8>,
        parameters: Pointer<f32>,
        messages: Pointer<f32>,
        deviations: Pointer<f32>,
        penalties: Pointer<f64>,
        seeds: Pointer<u64>,
        step: Pointer<u64>,
        arena: u64,
        weight: u64,
        bias: u64,
        edges: u32,
        width: u32,
        message_dim: u32,
        sampled: u32,
    }
}

kernel_args! {
    /// What `tiny_nodes_*` takes.
    struct NodeArgs {
        messages: Pointer<f32>,
        deviations: Pointer<f32>,
        features: Pointer<f32>,
        parameters: Pointer<f32>,
        outputs: Pointer<f32>,
        rounded: Pointer<bf16>,
        arena: u64,
        weight: u64,
        bias: u64,
        nodes: u32,
        terms: u32,
        row: u32,
        message_dim: u32,
        n_features: u32,
        hidden: u32,
    }
}

kernel_args! {
    /// What `tiny_loss_*` takes.
    struct LossArgs {
        hidden: Pointer<u8>,
        parameters: Pointer<f32>,
        targets: Pointer<f32>,
        d_outputs: Pointer<f32>,
        rounded: Pointer<bf16>,
        losses: Pointer<f64>,
        arena: u64,
        weight: u64,
        bias: u64,
        nodes: u32,
        width: u32,
        outputs: u32,
        scale: f32,
    }
}

kernel_args! {
    /// What `tiny_message_gradients_*` takes.
    struct MessageGradientArgs {
        d_hidden: Pointer<u8>,
        parameters: Pointer<f32>,
        messages: Pointer<f32>,
        deviations: Pointer<f32>,
        d_messages: Pointer<f32>,
        rounded: Pointer<bf16>,
        arena: u64,
        weight: u64,
        penalty: f64,
        nodes: u32,
        terms: u32,
        row: u32,
        message_dim: u32,
        n_features: u32,
        hidden: u32,
    }
}

kernel_args! {
    /// One matrix of weights whose gradient `tiny_weights_*` computes.
    struct WeightTask {
        d_outputs: Pointer<u8>,
        inputs: Pointer<u8>,
        weight: u64,
        bias: u64,
        source: u32,
        rows: u32,
        group: u32,
        inputs_width: u32,
        outputs_width: u32,
        weight_row: u32,
    }
}

// SAFETY: addresses and integers without padding, for which any bits are a value.
unsafe impl Zeroable for WeightTask {}
// SAFETY: as above.
unsafe impl Pod for WeightTask {}

/// What the input of a [`WeightTask`] is: `Source` of the kernel.
pub(super) const ROWS: u32 = 0;
pub(super) const RECEIVED: u32 = 1;
pub(super) const EDGE_FEATURES: u32 = 2;
pub(super) const NODE_FEATURES: u32 = 3;
/// The bias of a task that has none.
pub(super) const NO_BIAS: u64 = u64::MAX;

kernel_args! {
    /// One tile of a task.
    #[derive(Pod, Zeroable)]
    struct WeightTile {
        task: u32,
        row: u32,
        column: u32,
    }
}

kernel_args! {
    /// What `tiny_weights_*` takes.
    struct WeightsArgs {
        tasks: Pointer<WeightTask>,
        tiles: Pointer<WeightTile>,
        features: Pointer<f32>,
        messages: Pointer<f32>,
        deviations: Pointer<f32>,
        parameters: Pointer<f32>,
        partials: Pointer<f32>,
        squares: Pointer<f64>,
        arena: u64,
        weight_decay: f64,
        nodes: u32,
        bodies: u32,
        n_features: u32,
        terms: u32,
        row: u32,
        message_dim: u32,
    }
}

kernel_args! {
    /// What `tiny_totals` takes.
    struct TotalsArgs {
        losses: Pointer<f64>,
        penalties: Pointer<f64>,
        squares: Pointer<f64>,
        totals: Pointer<f32>,
        step: Pointer<u64>,
        loss_scale: f64,
        penalty_scale: f64,
        decay_scale: f64,
        runs: u64,
        ring: u64,
        n_losses: u64,
        n_penalties: u64,
        n_squares: u64,
    }
}
