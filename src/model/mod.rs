//! The shape of a graph network and the layout of its parameter arena and features (docs/design.md §3).
//!
//! One flat f32 arena per model: `edge.weight.0 [out, in]`, `edge.bias.0 [out]`, …, then
//! `node.weight.0`, …. Each tensor starts at a multiple of [`ALIGN`] elements; the gaps are zero and
//! stay zero, since their gradients are.

pub mod layout;

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::choice;

/// Tensors of the arena start at multiples of this many f32 (64 bytes).
pub const ALIGN: usize = 16;

choice! {
    /// How messages are kept compact.
    pub enum ModelKind {
        /// 100 messages, no penalty.
        Standard = "standard",
        /// As many messages as dimensions; one on a graph of halos.
        Bottleneck = "bottleneck",
        /// 100 messages, L1 penalty.
        L1 = "l1",
        /// 100 sampled messages, Kullback–Leibler penalty against N(0, 1).
        Kl = "kl",
    }
}

choice! {
    /// The arithmetic of matrix products; accumulation and master weights are always f32.
    pub enum Precision {
        /// f32 operands.
        F32 = "f32",
        /// bf16 operands, f32 accumulation.
        Bf16 = "bf16",
        /// On a GPU: operands rounded to a 10-bit mantissa, on tensor cores.
        Tf32 = "tf32",
        /// On a GPU: each operand as the sum of two bf16, three products on tensor cores.
        Bf16x3 = "bf16x3",
    }
}

choice! {
    /// The arithmetic that a training is asked to use.
    pub enum PrecisionChoice {
        /// The fastest of the device whose laws are as good as those of f32.
        Auto = "auto",
        /// f32 operands.
        F32 = "f32",
        /// bf16 operands, f32 accumulation.
        Bf16 = "bf16",
        /// On a GPU: operands rounded to a 10-bit mantissa, on tensor cores.
        Tf32 = "tf32",
        /// On a GPU: each operand as the sum of two bf16, three products on tensor cores.
        Bf16x3 = "bf16x3",
    }
}

impl From<Precision> for PrecisionChoice {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => PrecisionChoice::F32,
            Precision::Bf16 => PrecisionChoice::Bf16,
            Precision::Tf32 => PrecisionChoice::Tf32,
            Precision::Bf16x3 => PrecisionChoice::Bf16x3,
        }
    }
}

/// The shape of a graph network: φe(v_r, v_s) → messages, φv(v_i, Σ messages) → output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Features of a node; for bodies those of [`layout::BodyLayout`].
    pub n_features: usize,
    /// Messages that are summed at the receiver.
    pub message_dim: usize,
    /// Outputs of φv: dim accelerations for bodies.
    pub outputs: usize,
    /// Units of a hidden layer.
    pub hidden: usize,
    /// Hidden layers of each of the two networks.
    pub layers: usize,
    /// True if φe gives means and log-variances of `message_dim` sampled messages (KL).
    pub sampled: bool,
}

/// One linear layer and the place of its parameters in the arena.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Width of its input.
    pub inputs: usize,
    /// Width of its output.
    pub outputs: usize,
    /// `[outputs, inputs]`, row-major.
    pub weight: Range<usize>,
    /// `[outputs]`.
    pub bias: Range<usize>,
}

/// The layers of φe and φv in the arena.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arena {
    /// φe: 2·n_features → hidden … → messages (KL: means, then log-variances).
    pub edge: Vec<Layer>,
    /// φv: n_features + message_dim → hidden … → outputs.
    pub node: Vec<Layer>,
    /// Elements of the arena.
    pub len: usize,
}

impl Shape {
    /// Inputs of φe: features of the receiver, then of the sender.
    pub fn edge_inputs(&self) -> usize {
        2 * self.n_features
    }

    /// Inputs of φv: features of the node, then the sums of its messages.
    pub fn node_inputs(&self) -> usize {
        self.n_features + self.message_dim
    }

    /// Outputs of φe.
    pub fn edge_outputs(&self) -> usize {
        if self.sampled { 2 * self.message_dim } else { self.message_dim }
    }

    /// The place of each parameter.
    pub fn arena(&self) -> Arena {
        let mut len = 0;
        let mut take = |count: usize| {
            let range = len..len + count;
            len = range.end.next_multiple_of(ALIGN);
            range
        };
        let mut network = |inputs: usize, outputs: usize| -> Vec<Layer> {
            let mut widths = vec![inputs];
            widths.extend(std::iter::repeat_n(self.hidden, self.layers));
            widths.push(outputs);
            let layer = |pair: &[usize]| Layer {
                inputs: pair[0],
                outputs: pair[1],
                weight: take(pair[0] * pair[1]),
                bias: take(pair[1]),
            };
            widths.windows(2).map(layer).collect()
        };
        let edge = network(self.edge_inputs(), self.edge_outputs());
        let node = network(self.node_inputs(), self.outputs);
        Arena { edge, node, len }
    }
}

impl Arena {
    /// Every tensor: its name in model files, its shape and its place in the arena.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>, Range<usize>)> {
        let mut tensors = Vec::new();
        for (part, layers) in [("edge", &self.edge), ("node", &self.node)] {
            for (index, layer) in layers.iter().enumerate() {
                let Layer { inputs, outputs, weight, bias } = layer;
                tensors.push((
                    format!("{part}.weight.{index}"),
                    vec![*outputs, *inputs],
                    weight.clone(),
                ));
                tensors.push((format!("{part}.bias.{index}"), vec![*outputs], bias.clone()));
            }
        }
        tensors
    }
}
