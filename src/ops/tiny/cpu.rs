//! The step on the processor: one run of the stack after the other, through the f64 reference.

use super::{Batch, Loss, Workspace, reference};
use crate::device::Cpu;
use crate::error::Result;
use crate::network::spec::Arena;

pub(super) fn gradient(
    _: &Cpu,
    batch: &Batch,
    arena: &Arena,
    parameters: &[f32],
    gradients: &mut [f32],
    losses: &mut [Loss],
    _: &mut Workspace,
) -> Result<()> {
    for (run, loss) in losses.iter_mut().enumerate() {
        let range = run * arena.len..(run + 1) * arena.len;
        let wide: Vec<f64> = parameters[range.clone()].iter().map(|&x| f64::from(x)).collect();
        let result = reference::gradient(batch, run, &wide);
        for (to, from) in gradients[range].iter_mut().zip(&result.gradients) {
            *to = *from as f32;
        }
        *loss = Loss {
            prediction: result.prediction as f32,
            penalty: result.penalty as f32,
            decay: result.decay as f32,
        };
    }
    Ok(())
}
