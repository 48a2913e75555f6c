//! What the kernels of `kernels/edge*.cu` take: the twins of their structs, whose comments say what each field is.

use half::bf16;

use crate::device::cuda::Pointer;
use crate::kernel_args;

kernel_args! {
    /// What `edge_operands` takes.
    struct EdgeOperandsArgs {
        parameters: Pointer<f32>,
        bias: Pointer<f32>,
        wide: Pointer<f32>,
        rounded: Pointer<bf16>,
        padded_bias: Pointer<f32>,
        out_width: u32,
        in_width: u32,
        padded_out: u32,
        padded_in: u32,
        n_features: u32,
        dim: u32,
    }
}

kernel_args! {
    /// What `edge_gather` takes.
    struct EdgeGatherArgs {
        features: Pointer<f32>,
        receivers: Pointer<u32>,
        starts: Pointer<u32>,
        senders: Pointer<u32>,
        inputs: Pointer<f32>,
        shift: [f32; 3],
        period: f32,
        n_features: u32,
        dim: u32,
    }
}

kernel_args! {
    /// What `edge_sum_hidden_*` takes.
    struct EdgeSumHiddenArgs {
        hidden: Pointer<u8>,
        starts: Pointer<u32>,
        sums: Pointer<f32>,
        width: u64,
    }
}

kernel_args! {
    /// What `edge_sum_messages` takes.
    struct EdgeSumMessagesArgs {
        outputs: Pointer<f32>,
        starts: Pointer<u32>,
        edges: Pointer<u32>,
        sums: Pointer<f32>,
        deviations: Pointer<f32>,
        penalties: Pointer<f64>,
        seed: u64,
        step: u64,
        row: u32,
        message_dim: u32,
        sampled: u32,
        unused: u32,
    }
}

kernel_args! {
    /// What `edge_node_inputs` takes.
    struct EdgeNodeInputsArgs {
        features: Pointer<f32>,
        receivers: Pointer<u32>,
        starts: Pointer<u32>,
        sums: Pointer<f32>,
        bias: Pointer<f32>,
        inputs: Pointer<f32>,
        shift: [f32; 3],
        count: u32,
        n_features: u32,
        message_dim: u32,
        dim: u32,
        unused: u32,
    }
}

kernel_args! {
    /// What `edge_loss` takes.
    struct EdgeLossArgs {
        outputs: Pointer<f32>,
        targets: Pointer<f32>,
        receivers: Pointer<u32>,
        d_outputs: Pointer<f32>,
        losses: Pointer<f64>,
        count: u32,
        width: u32,
        scale: f32,
        unused: u32,
    }
}

kernel_args! {
    /// What `edge_message_gradients` takes.
    struct EdgeMessageGradientsArgs {
        d_inputs: Pointer<f32>,
        starts: Pointer<u32>,
        outputs: Pointer<f32>,
        deviations: Pointer<f32>,
        d_outputs: Pointer<f32>,
        rounded: Pointer<bf16>,
        n_features: u32,
        row: u32,
        message_dim: u32,
        weight: f32,
        sampled: u32,
        unused: u32,
    }
}

kernel_args! {
    /// What `edge_last` takes.
    struct EdgeLastArgs {
        d_inputs: Pointer<f32>,
        starts: Pointer<u32>,
        d_sums: Pointer<f32>,
        bias: Pointer<f32>,
        count: u32,
        n_features: u32,
        message_dim: u32,
        unused: u32,
    }
}

kernel_args! {
    /// What `edge_spread_*` takes.
    struct EdgeSpreadArgs {
        passed: Pointer<f32>,
        starts: Pointer<u32>,
        hidden: Pointer<u8>,
        d_hidden: Pointer<f32>,
        rounded: Pointer<bf16>,
        width: u64,
    }
}

kernel_args! {
    /// What `edge_finish` takes.
    struct EdgeFinishArgs {
        partials: Pointer<f32>,
        biases: Pointer<f32>,
        parameters: Pointer<f32>,
        bias: Pointer<f32>,
        gradients: Pointer<f32>,
        d_bias: Pointer<f32>,
        stride: u64,
        count: u64,
        out_width: u32,
        in_width: u32,
        padded_in: u32,
        n_features: u32,
        dim: u32,
        decay: f32,
    }
}

kernel_args! {
    /// What `edge_layer` takes.
    struct EdgeLayerArgs {
        inputs: Pointer<bf16>,
        weights: Pointer<bf16>,
        bias: Pointer<f32>,
        outputs: Pointer<f32>,
        rounded: Pointer<bf16>,
        rows: u32,
        in_width: u32,
        out_width: u32,
        unused: u32,
    }
}

kernel_args! {
    /// What `edge_input_gradient` takes.
    struct EdgeInputGradientArgs {
        d_outputs: Pointer<bf16>,
        weights: Pointer<bf16>,
        inputs: Pointer<bf16>,
        d_inputs: Pointer<f32>,
        rounded: Pointer<bf16>,
        rows: u32,
        in_width: u32,
        out_width: u32,
        unused: u32,
    }
}

kernel_args! {
    /// What `edge_weight_gradient` takes.
    struct EdgeWeightGradientArgs {
        d_outputs: Pointer<bf16>,
        inputs: Pointer<bf16>,
        partials: Pointer<f32>,
        biases: Pointer<f32>,
        stride: u64,
        rows: u32,
        in_width: u32,
        out_width: u32,
        rows_per_split: u32,
    }
}

kernel_args! {
    /// What `edge_fused_weights` takes.
    struct EdgeFusedWeightsArgs {
        parameters: Pointer<f32>,
        bias: Pointer<f32>,
        weights: Pointer<bf16>,
        padded_bias: Pointer<f32>,
        rows: u32,
        columns: u32,
        row_step: u32,
        column_step: u32,
        passes: u32,
        chunks: u32,
        units: u32,
        n_features: u32,
        dim: u32,
        split: u32,
        scale: f32,
        unused: u32,
    }
}

kernel_args! {
    /// What `edge_fused`, `edge_fused_training`, `edge_fused_sampled` and `edge_fused_last` take.
    struct EdgeFusedArgs {
        features: Pointer<f32>,
        receivers: Pointer<u32>,
        starts: Pointer<u32>,
        senders: Pointer<u32>,
        ranges: Pointer<u32>,
        weights: Pointer<bf16>,
        biases: Pointer<f32>,
        sums: Pointer<f32>,
        d_outputs: Pointer<bf16>,
        owners: Pointer<u32>,
        masks: Pointer<u16>,
        signs: Pointer<u32>,
        shares: Pointer<f32>,
        counts: Pointer<f32>,
        penalties: Pointer<f64>,
        shift: [f32; 3],
        period: f32,
        n_features: u32,
        dim: u32,
        hidden: u32,
        layers: u32,
        inputs: u32,
        first_chunks: u32,
        passes: u32,
        width: u32,
        row: u32,
        sign_columns: u32,
    }
}

kernel_args! {
    /// What `edge_fused_first*`, `edge_fused_second*` and `edge_hopper_first_*` take.
    struct EdgeFusedBackwardArgs {
        features: Pointer<f32>,
        receivers: Pointer<u32>,
        senders: Pointer<u32>,
        owners: Pointer<u32>,
        masks: Pointer<u16>,
        signs: Pointer<u32>,
        d_outputs: Pointer<bf16>,
        passed: Pointer<f32>,
        weights: Pointer<bf16>,
        bias: Pointer<f32>,
        sums: Pointer<f32>,
        biases: Pointer<f32>,
        shift: [f32; 3],
        period: f32,
        n_features: u32,
        dim: u32,
        edges: u32,
        hidden: u32,
        inputs: u32,
        first_chunks: u32,
        words: u32,
        tiles: u32,
        outputs: u32,
        unused: u32,
    }
}

kernel_args! {
    /// What `edge_hopper_inputs` takes.
    struct EdgeHopperInputsArgs {
        features: Pointer<f32>,
        receivers: Pointer<u32>,
        senders: Pointer<u32>,
        owners: Pointer<u32>,
        inputs: Pointer<bf16>,
        shift: [f32; 3],
        period: f32,
        n_features: u32,
        dim: u32,
        edges: u32,
        width: u32,
        blocks: u32,
        unused: u32,
    }
}

kernel_args! {
    /// What `edge_hopper_second` takes.
    struct EdgeHopperSecondArgs {
        inputs: Pointer<bf16>,
        owners: Pointer<u32>,
        masks: Pointer<u16>,
        signs: Pointer<u32>,
        passed: Pointer<f32>,
        first_weights: Pointer<bf16>,
        last_weights: Pointer<bf16>,
        bias: Pointer<f32>,
        sums: Pointer<f32>,
        biases: Pointer<f32>,
        edges: u32,
        hidden: u32,
        first_blocks: u32,
        first_steps: u32,
        words: u32,
        tiles: u32,
    }
}

kernel_args! {
    /// What `edge_fused_collect` takes.
    struct EdgeFusedCollectArgs {
        sums: Pointer<f32>,
        biases: Pointer<f32>,
        gradients: Pointer<f32>,
        d_bias: Pointer<f32>,
        size: u64,
        count: u32,
        bias_stride: u32,
        fragments: u32,
        across: u32,
        rows: u32,
        columns: u32,
        row_step: u32,
        column_step: u32,
        bias_count: u32,
        scale: f32,
    }
}

kernel_args! {
    /// What `edge_hopper_weights` takes.
    struct EdgeHopperWeightsArgs {
        parameters: Pointer<f32>,
        bias: Pointer<f32>,
        weights: Pointer<bf16>,
        padded_bias: Pointer<f32>,
        rows: u32,
        columns: u32,
        row_step: u32,
        column_step: u32,
        parts: u32,
        blocks: u32,
        units: u32,
        n_features: u32,
        dim: u32,
        split: u32,
        mixed: u32,
        scale: f32,
    }
}

kernel_args! {
    /// What `edge_hopper_64`, `edge_hopper_192` and `edge_hopper_256` take.
    struct EdgeHopperArgs {
        features: Pointer<f32>,
        receivers: Pointer<u32>,
        starts: Pointer<u32>,
        senders: Pointer<u32>,
        ranges: Pointer<u32>,
        weights: Pointer<bf16>,
        biases: Pointer<f32>,
        sums: Pointer<f32>,
        owners: Pointer<u32>,
        masks: Pointer<u16>,
        signs: Pointer<u32>,
        shares: Pointer<f32>,
        counts: Pointer<f32>,
        penalties: Pointer<f64>,
        shift: [f32; 3],
        period: f32,
        n_features: u32,
        dim: u32,
        parts: u32,
        layers: u32,
        first_blocks: u32,
        passes: u32,
        width: u32,
        mask_row: u32,
        sign_columns: u32,
        unused: u32,
    }
}

kernel_args! {
    /// What `edge_senders` takes.
    struct EdgeSendersArgs {
        all: Pointer<u32>,
        firsts: Pointer<u32>,
        starts: Pointer<u32>,
        senders: Pointer<u32>,
        edges: Pointer<u32>,
    }
}

kernel_args! {
    /// What `edge_turn` and `edge_turn_back` take.
    struct EdgeTurnArgs {
        from: Pointer<f32>,
        to: Pointer<f32>,
        edge: u64,
        node: u64,
        rows: u32,
        n_features: u32,
        message_dim: u32,
        axis: [u32; 3],
        sign: [f32; 3],
        unused: u32,
    }
}

kernel_args! {
    /// What `edge_totals` takes.
    struct EdgeTotalsArgs {
        losses: Pointer<f64>,
        penalties: Pointer<f64>,
        totals: Pointer<f64>,
        n_losses: u32,
        n_penalties: u32,
    }
}

kernel_args! {
    /// What `edge_receivers_layer` takes.
    struct EdgeReceiversLayerArgs {
        inputs: Pointer<f32>,
        weights: Pointer<f32>,
        bias: Pointer<f32>,
        outputs: Pointer<f32>,
        rows: u32,
        in_width: u32,
        out_width: u32,
        relu: u32,
    }
}

kernel_args! {
    /// What `edge_receivers_input_gradient` takes.
    struct EdgeReceiversInputGradientArgs {
        d_outputs: Pointer<f32>,
        weights: Pointer<f32>,
        inputs: Pointer<f32>,
        d_inputs: Pointer<f32>,
        rows: u32,
        in_width: u32,
        out_width: u32,
        unused: u32,
    }
}

kernel_args! {
    /// What `edge_receivers_weight_gradient` takes.
    struct EdgeReceiversWeightGradientArgs {
        d_outputs: Pointer<f32>,
        inputs: Pointer<f32>,
        partials: Pointer<f32>,
        biases: Pointer<f32>,
        stride: u64,
        rows: u32,
        in_width: u32,
        out_width: u32,
        rows_per_split: u32,
    }
}
