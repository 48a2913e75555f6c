//! The roll-outs of a run: the equations of motion integrated with its network and formula, from initial
//! states it has not seen; `rollout.safetensors`.

use std::path::Path;

use super::formula::Formula;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::nbody::dataset::{Dataset, Units};
use crate::nbody::rollout::Rollouts;
use crate::network::batches;
use crate::network::model::{Model, TrainedOn};
use crate::observer::Observer;
use crate::store::run::RunFolder;

/// Default numbers of runs, of frames, and of integrator steps per frame.
pub const RUNS: usize = 16;
/// See [`RUNS`].
pub const FRAMES: usize = 200;
/// See [`RUNS`].
pub const SUBSTEPS: usize = 2;

/// Opens a data set in the units used to train a network.
///
/// # Errors
/// Those of [`Dataset::open_in`].
pub fn open_for(model: &Model, path: &Path) -> Result<Dataset> {
    let scale = match &model.about.on {
        TrainedOn::Bodies(data, _) => data.scale,
        TrainedOn::Halos(_) => None,
    };
    Dataset::open_in(path, scale.map_or(Units::Users, Units::Of))
}

/// Data the network has not seen, and the numbers of the runs to use: `test.safetensors` of the folder,
/// or the validation runs of the training data.
pub fn unseen(folder: &RunFolder, model: &Model) -> Result<(Dataset, Vec<usize>)> {
    let test = folder.file("test.safetensors");
    if test.exists() {
        let data = open_for(model, &test)?;
        let runs = (0..data.about.runs).collect();
        return Ok((data, runs));
    }
    let trained = &model.about.dataset;
    if !trained.exists() {
        let message = "has no test.safetensors, and its training data are gone: name \
                       a data set with --data";
        return Err(Error::usage(message).file(folder.path()));
    }
    let data = open_for(model, trained)?;
    let runs = batches::split(&data, model.about.settings.seed)?.1.runs;
    Ok((data, runs))
}

/// The same for a network trained on `data`: fresh runs if the data were simulated, otherwise the validation runs.
pub fn unseen_of(data: &Dataset, model: &Model) -> Result<(Dataset, Vec<usize>)> {
    match data.fresh(&Device::cpu(), &())? {
        Some(fresh) => {
            let runs = (0..fresh.about.runs).collect();
            Ok((fresh, runs))
        }
        None => {
            let runs = batches::split(data, model.about.settings.seed)?.1.runs;
            Ok((data.clone(), runs))
        }
    }
}

/// Integrates the first of `runs` of `data` with the network and, if there is one, the composed formula: at most so
/// many runs that are alike, for so many frames, with so many steps per frame.
///
/// # Errors
/// Those of the operations.
pub fn integrate(
    device: &Device,
    model: &Model,
    formula: Option<&Formula>,
    data: &Dataset,
    runs: &[usize],
    [most, frames, substeps]: [usize; 3],
    observer: &dyn Observer,
) -> Result<Rollouts> {
    let mut rollouts = Rollouts::new(data, runs, most, frames)?;
    let bodies = vec![rollouts.about.bodies as u32; rollouts.about.runs.len()];
    rollouts.predict("network", data, substeps, observer, |features| {
        model.accelerations(device, features, &bodies)
    })?;
    if let Some(formula) = formula {
        rollouts.predict("formula", data, substeps, observer, |features| {
            Ok(formula.accelerations(features, &bodies))
        })?;
    }
    rollouts.to_users_units(data);
    Ok(rollouts)
}
