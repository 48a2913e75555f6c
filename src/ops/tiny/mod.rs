//! Loss and gradient of one training step for a stack of independent models on small, fully
//! connected graphs.
//!
//! For each run of the stack: messages e = φe(v_r, v_s) on every directed edge, summed at the
//! receiver; prediction φv(v_i, Σe); loss = mean over nodes of the L1 norm of (target − prediction)
//! + penalty on messages + weight_decay · Σw².

use crate::network::spec::{Precision, Shape};

/// The penalty on messages (DESIGN §3), already weighted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Penalty {
    /// None.
    None,
    /// weight · (1/N_e) Σ over edges of the L1 norm of e_k.
    L1(f32),
    /// weight · (1/N_e) Σ over edges Σ ½(μ² + σ² − log σ² − 1).
    Kl(f32),
}

/// What one step works on.
pub struct Batch<'a> {
    /// Shape of every model of the stack.
    pub shape: Shape,
    /// Penalty on messages.
    pub penalty: Penalty,
    /// Weight of Σw² (weights and biases) in the loss.
    pub weight_decay: f32,
    /// Arithmetic of the matrix products.
    pub precision: Precision,
    /// Models in the stack.
    pub runs: usize,
    /// Graphs of each model's batch.
    pub graphs: usize,
    /// Bodies of each graph; every ordered pair of them is an edge.
    pub bodies: usize,
    /// `[runs, graphs, bodies, n_features]`.
    pub features: &'a [f32],
    /// `[runs, graphs, bodies, outputs]`.
    pub targets: &'a [f32],
    /// Key of the noise of sampled messages: seed of each run, `[runs]`.
    pub noise_seeds: &'a [u64],
    /// Step number: the counter of that noise.
    pub step: u64,
}

/// The parts of the loss of one run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Loss {
    /// Mean over nodes of the L1 norm of (target − prediction).
    pub prediction: f32,
    /// The weighted penalty on messages.
    pub penalty: f32,
    /// weight_decay · Σw².
    pub decay: f32,
}
