//! Integration on a GPU.

use super::{Batch, Frames};
use crate::device::Gpu;
use crate::error::Result;

/// As [`super::integrate`].
pub(super) fn integrate(gpu: &Gpu, _: &Batch, _: &mut [f64], _: Frames) -> Result<()> {
    gpu.lacks("simulation")
}
