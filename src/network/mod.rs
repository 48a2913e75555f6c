//! Graph networks on interacting bodies: their shape, training, and what they predict.

pub mod spec;
