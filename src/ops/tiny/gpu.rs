//! The step on a CUDA device.

use super::{Batch, Loss, Workspace};
use crate::device::Gpu;
use crate::error::Result;

pub(super) fn gradient(
    gpu: &Gpu,
    _: &Batch,
    _: &[f32],
    _: &mut [f32],
    _: &mut [Loss],
    _: &mut Workspace,
) -> Result<()> {
    gpu.lacks("training")
}
