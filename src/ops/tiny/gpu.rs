//! The step on a CUDA device.

use super::{Batch, Loss, Workspace};
use crate::device::Gpu;
use crate::error::Result;
use crate::network::spec::Arena;

pub(super) fn gradient(
    gpu: &Gpu,
    _: &Batch,
    _: &Arena,
    _: &[f32],
    _: &mut [f32],
    _: &mut [Loss],
    _: &mut Workspace,
) -> Result<()> {
    match *gpu {}
}
