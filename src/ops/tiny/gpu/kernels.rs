//! The kernels of `kernels/tiny.cu`.

use crate::device::cuda::Kernel;
use crate::ops::mlp::gpu::{Variants, variants};

pub(super) const GATHER: Kernel = Kernel { module: "tiny", name: "tiny_gather" };
pub(super) const EDGES: Kernel = Kernel { module: "tiny", name: "tiny_edges" };
pub(super) const MESSAGES: Variants = variants!("tiny", "messages");
pub(super) const NODES: Variants = variants!("tiny", "nodes");
pub(super) const LOSS: Variants = variants!("tiny", "loss");
pub(super) const MESSAGE_GRADIENTS: Variants = variants!("tiny", "message_gradients");
pub(super) const WEIGHTS: Variants = variants!("tiny", "weights");
pub(super) const TOTALS: Kernel = Kernel { module: "tiny", name: "tiny_totals" };

/// The kind of input of a [`WeightTask`](crate::device::args::WeightTask): `Source` of the kernel.
pub(super) const ROWS: u32 = 0;
pub(super) const RECEIVED: u32 = 1;
pub(super) const EDGE_FEATURES: u32 = 2;
pub(super) const NODE_FEATURES: u32 = 3;
/// The bias of a task without one.
pub(super) const NO_BIAS: u64 = u64::MAX;
