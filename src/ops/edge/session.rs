//! A training on its device: each step takes the gradient of the transformed network, transforms it back and updates
//! the network.
//!
//! On a GPU the network and its moments stay there; a step sends only its receivers, until losses are asked for.

use super::symmetry::{self, Turn};
use super::{Batch, Loss, Workspace, gpu, gradient, predict};
use crate::device::Device;
use crate::error::Result;
use crate::model::Shape;
use crate::ops::Training;
use crate::ops::adam::{self, Networks};

/// A training on a device.
pub struct Session {
    device: Device,
    /// What the device keeps of the graph.
    workspace: Workspace,
    backend: Backend,
}

enum Backend {
    /// With the losses since the last call of `losses`.
    Processor(Networks, Vec<Loss>),
    Gpu(Box<gpu::Resident>),
}

impl Session {
    /// Moves a training to the device, with what [`Workspace::keep`] keeps there. `rates` are the learning rates of all
    /// steps, `arenas` the parameters and both moments, `[arena.len]` each.
    ///
    /// # Errors
    /// Too little memory.
    pub fn new(
        device: &Device,
        rates: Vec<f32>,
        arenas: [&[f32]; 3],
        features: &[f32],
        targets: &[f32],
        senders: &[u32],
    ) -> Result<Self> {
        let mut workspace = Workspace::default();
        workspace.keep(device, features, targets, senders)?;
        let backend = match device {
            Device::Cpu(_) => Backend::Processor(Networks::new(rates, arenas), Vec::new()),
            Device::Gpu(gpu) => {
                let rates = adam::schedule(&rates);
                Backend::Gpu(Box::new(gpu::Resident::new(*gpu, &rates, arenas)?))
            }
        };
        Ok(Session { device: *device, workspace, backend })
    }

    /// The device it runs on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Takes the step with the number of the batch.
    ///
    /// # Errors
    /// Those of [`gradient`].
    pub fn step(&mut self, batch: &Batch, targets: &[f32], turn: &Turn) -> Result<()> {
        let Session { device, workspace, backend } = self;
        let (networks, losses) = match backend {
            Backend::Processor(networks, losses) => (networks, losses),
            Backend::Gpu(resident) => return resident.step(workspace, batch, targets, turn),
        };
        let arena = batch.shape.arena();
        let mut turned = networks.parameters.clone();
        turn.apply(&arena, &mut turned);
        let gradients = &mut networks.gradients;
        losses.push(gradient(device, batch, targets, &turned, gradients, workspace)?);
        turn.undo(&arena, gradients);
        symmetry::project(&arena, gradients);
        networks.step(device, batch.step, 1)
    }

    /// The loss of each step since the last call; a GPU leaves out the weight decay.
    ///
    /// # Errors
    /// Those of the device.
    pub fn losses(&mut self) -> Result<Vec<Loss>> {
        match &mut self.backend {
            Backend::Processor(_, losses) => Ok(std::mem::take(losses)),
            Backend::Gpu(resident) => {
                let loss =
                    |[prediction, penalty]: [f32; 2]| Loss { prediction, penalty, decay: 0.0 };
                Ok(resident.losses()?.into_iter().map(loss).collect())
            }
        }
    }

    /// [`predict`] using what the device keeps of the graph.
    ///
    /// # Errors
    /// Those of [`predict`].
    pub fn predict(
        &mut self,
        batch: &Batch,
        parameters: &[f32],
        predictions: &mut [f32],
    ) -> Result<()> {
        predict(&self.device, batch, parameters, predictions, &mut self.workspace)
    }
}

impl Training for Session {
    fn most_steps(&self) -> u64 {
        match self.backend {
            Backend::Processor(..) => 1,
            Backend::Gpu(_) => gpu::MOST_STEPS as u64,
        }
    }

    fn parameters(&self, parameters: &mut [f32]) -> Result<()> {
        match &self.backend {
            Backend::Processor(networks, _) => networks.parameters(parameters),
            Backend::Gpu(resident) => resident.parameters(parameters),
        }
    }

    fn moments(&self, m: &mut [f32], v: &mut [f32]) -> Result<()> {
        match &self.backend {
            Backend::Processor(networks, _) => networks.moments(m, v),
            Backend::Gpu(resident) => resident.moments(m, v),
        }
    }

    fn replace(&mut self, _: Shape, arenas: [&[f32]; 3]) -> Result<()> {
        match &mut self.backend {
            Backend::Processor(networks, _) => {
                networks.replace(arenas);
                Ok(())
            }
            Backend::Gpu(resident) => resident.replace(arenas),
        }
    }
}
