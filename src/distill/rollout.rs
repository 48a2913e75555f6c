//! The rollouts of a run: the equations of motion integrated with what the run has learnt, from the
//! initial states of data that it has not seen; `rollout.safetensors`.

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

/// Runs, frames and steps of the integrator between two frames, where nobody asks for others.
pub const RUNS: usize = 16;
/// See [`RUNS`].
pub const FRAMES: usize = 200;
/// See [`RUNS`].
pub const SUBSTEPS: usize = 2;

/// A data set in the units that a network was trained in.
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

/// Data that the network has not seen, and which of their runs: `test.safetensors` of the folder, or
/// the validation runs of what it was trained on.
pub fn unseen(folder: &RunFolder, model: &Model) -> Result<(Dataset, Vec<usize>)> {
    let test = folder.file("test.safetensors");
    if test.exists() {
        let data = open_for(model, &test)?;
        let runs = (0..data.about.runs).collect();
        return Ok((data, runs));
    }
    let trained = &model.about.dataset;
    if !trained.exists() {
        let message = "has no test.safetensors, and the data that it was trained on are gone: name \
                       a data set with --data";
        return Err(Error::usage(message).file(folder.path()));
    }
    let data = open_for(model, trained)?;
    let runs = batches::split(&data, model.about.settings.seed)?.1.runs;
    Ok((data, runs))
}

/// The same of a network that was trained on `data`: fresh runs where they were simulated, else the validation runs.
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

/// Integrates `runs` of `data` with the network and, where there is one, the composed formula, for so many
/// frames with so many steps between them.
///
/// # Errors
/// Those of the operations.
pub fn integrate(
    device: &Device,
    model: &Model,
    formula: Option<&Formula>,
    data: &Dataset,
    runs: &[usize],
    (frames, substeps): (usize, usize),
    observer: &dyn Observer,
) -> Result<Rollouts> {
    let mut rollouts = Rollouts::new(data, runs, frames)?;
    let bodies = data.about.bodies;
    rollouts.predict("network", data, substeps, observer, |features| {
        let graphs = features.len() / (bodies * model.shape.n_features);
        model.accelerations(device, features, graphs, bodies)
    })?;
    if let Some(formula) = formula {
        rollouts.predict("formula", data, substeps, observer, |features| {
            Ok(formula.accelerations(features, bodies))
        })?;
    }
    rollouts.to_users_units(data);
    Ok(rollouts)
}
