//! Graph networks on interacting bodies: shape, training and predictions.

pub mod batches;
mod bodies;
mod displaced;
pub mod forward;
pub(crate) mod metrics;
pub mod model;
pub(crate) mod pruning;
pub mod settings;
pub(crate) mod state;
pub mod system;
pub mod tails;
#[cfg(test)]
mod tests;
pub mod train;
pub(crate) mod trainer;
pub mod view;
