//! Expressions on a CUDA device.

use super::{Fit, Fitted, Loss, Program, Rows};
use crate::device::Gpu;
use crate::error::Result;

pub(super) fn score(gpu: &Gpu, _: &Rows, _: &[Program], _: Loss) -> Result<Vec<f64>> {
    gpu.lacks("the evaluation of expressions")
}

pub(super) fn fit(gpu: &Gpu, _: &Rows, _: &[Program], _: Fit) -> Result<Vec<Fitted>> {
    gpu.lacks("the evaluation of expressions")
}
