//! A training on its device: each step takes the gradient of the turned network, turns it back and moves
//! the network.
//!
//! On a GPU the network and its moments stay there, and of a step only its receivers go there, until
//! losses are asked for.

use super::symmetry::{self, Turn};
use super::{Batch, Loss, Workspace, gpu, gradient, predict};
use crate::device::Device;
use crate::error::Result;
use crate::ops::adam;

/// A training on a device.
pub struct Session {
    device: Device,
    /// What the device keeps of the graph.
    workspace: Workspace,
    on: On,
}

enum On {
    Processor(Host),
    Gpu(gpu::Resident),
}

/// A training on the processor.
struct Host {
    rates: Vec<f32>,
    parameters: Vec<f32>,
    m: Vec<f32>,
    v: Vec<f32>,
    gradients: Vec<f32>,
    /// Of the steps since the last look.
    losses: Vec<Loss>,
}

impl Session {
    /// Takes a training to the device, with what [`Workspace::keep`] keeps there. `rates` are the learning
    /// rates of all its steps, `arenas` parameters and both moments, `[arena.len]` each.
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
        let on = match device {
            Device::Cpu(_) => {
                let [parameters, m, v] = arenas.map(<[f32]>::to_vec);
                let gradients = vec![0.0; parameters.len()];
                On::Processor(Host { rates, parameters, m, v, gradients, losses: Vec::new() })
            }
            Device::Gpu(gpu) => On::Gpu(gpu::Resident::new(*gpu, &adam::schedule(&rates), arenas)?),
        };
        Ok(Session { device: *device, workspace, on })
    }

    /// Where it is.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The most steps between two looks at [`Session::losses`]. On the processor one: nothing waits for it.
    pub fn most_steps(&self) -> u64 {
        match self.on {
            On::Processor(_) => 1,
            On::Gpu(_) => gpu::MOST_STEPS as u64,
        }
    }

    /// Takes the step of the batch, which its number is the number of.
    ///
    /// # Errors
    /// Those of [`gradient`].
    pub fn step(&mut self, batch: &Batch, targets: &[f32], turn: &Turn) -> Result<()> {
        let Session { device, workspace, on } = self;
        match on {
            On::Processor(host) => host.step(device, workspace, batch, targets, turn),
            On::Gpu(resident) => resident.step(workspace, batch, targets, turn),
        }
    }

    /// The loss of each step since the last look; a GPU leaves out what decays.
    ///
    /// # Errors
    /// Those of the device.
    pub fn losses(&mut self) -> Result<Vec<Loss>> {
        match &mut self.on {
            On::Processor(host) => Ok(std::mem::take(&mut host.losses)),
            On::Gpu(resident) => {
                let loss =
                    |[prediction, penalty]: [f32; 2]| Loss { prediction, penalty, decay: 0.0 };
                Ok(resident.losses()?.into_iter().map(loss).collect())
            }
        }
    }

    /// Goes on with a network of another shape.
    ///
    /// # Errors
    /// As [`Session::new`].
    pub fn replace(&mut self, arenas: [&[f32]; 3]) -> Result<()> {
        match &mut self.on {
            On::Processor(host) => {
                [host.parameters, host.m, host.v] = arenas.map(<[f32]>::to_vec);
                host.gradients.resize(host.parameters.len(), 0.0);
                Ok(())
            }
            On::Gpu(resident) => resident.replace(arenas),
        }
    }

    /// Copies the parameters out.
    ///
    /// # Errors
    /// Those of the device.
    pub fn parameters(&self, parameters: &mut [f32]) -> Result<()> {
        match &self.on {
            On::Processor(host) => parameters.copy_from_slice(&host.parameters),
            On::Gpu(resident) => resident.parameters(parameters)?,
        }
        Ok(())
    }

    /// Copies the moments out.
    ///
    /// # Errors
    /// Those of the device.
    pub fn moments(&self, m: &mut [f32], v: &mut [f32]) -> Result<()> {
        match &self.on {
            On::Processor(host) => {
                m.copy_from_slice(&host.m);
                v.copy_from_slice(&host.v);
            }
            On::Gpu(resident) => resident.moments(m, v)?,
        }
        Ok(())
    }

    /// [`predict`] with what the device keeps of the graph.
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

impl Host {
    fn step(
        &mut self,
        device: &Device,
        workspace: &mut Workspace,
        batch: &Batch,
        targets: &[f32],
        turn: &Turn,
    ) -> Result<()> {
        let arena = batch.shape.arena();
        let Host { parameters, m, v, gradients, .. } = self;
        let mut turned = parameters.clone();
        turn.apply(&arena, &mut turned);
        let loss = gradient(device, batch, targets, &turned, gradients, workspace)?;
        turn.undo(&arena, gradients);
        symmetry::project(&arena, gradients);
        let args = adam::Args::new(self.rates[batch.step as usize], batch.step + 1);
        adam::step(device, &args, 1, adam::Arenas { parameters, m, v, gradients })?;
        self.losses.push(loss);
        Ok(())
    }
}
