//! Simulated and imported systems of interacting bodies (docs/design.md §2).

pub mod dataset;
pub mod derive;
mod fit;
pub mod import;
pub mod masses;
pub mod periodic;
pub mod rollout;
pub mod scale;
pub mod simulate;
pub(crate) mod spline;
pub mod trajectories;
