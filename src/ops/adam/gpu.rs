//! Adam on a CUDA device.

use super::Rates;
use crate::device::Gpu;

pub(super) fn step(gpu: &Gpu, _: &Rates, _: &mut [f32], _: &mut [f32], _: &mut [f32], _: &[f32]) {
    match *gpu {}
}
