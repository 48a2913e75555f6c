//! The fused operations: one folder each, with the mathematics (`mod.rs`), the CPU (`cpu.rs`), the
//! GPU (`gpu.rs`) and the tests (`tests.rs`). The seam between devices sits here and nowhere else.

pub mod adam;
pub mod expression;
pub mod mlp;
pub mod rk4;
pub mod tiny;
