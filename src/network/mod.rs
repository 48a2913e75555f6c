//! Graph networks on interacting bodies: their shape, training, and what they predict.

pub mod batches;
pub mod forward;
mod metrics;
pub mod model;
mod pruning;
pub mod settings;
pub mod spec;
#[cfg(test)]
mod tests;
pub mod train;
mod trainer;
