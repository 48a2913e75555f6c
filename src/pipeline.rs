//! One pipeline for every system: which one a file or a run folder is about.

use std::path::Path;

use crate::cosmology::graph::Graph;
use crate::cosmology::halos::Halos;
use crate::error::{Error, Result};
use crate::nbody::dataset::Dataset;
use crate::network::system::System;
use crate::store::tensors::TensorFile;

/// The system of a file: a data set of small systems, or a graph of halos, of which the nodes above an
/// overdensity may be hidden.
///
/// # Errors
/// A file that is neither; something to hide in a data set.
pub fn open(path: &Path, hide_above: Option<f64>) -> Result<Box<dyn System>> {
    if TensorFile::kind_of(path).as_deref() == Some("graph") {
        return Ok(Box::new(Halos { graph: Graph::open(path)?, hide_above }));
    }
    if hide_above.is_some() {
        let message = "hides nodes of a graph; this is a data set of small systems";
        return Err(Error::usage(message).file(path).field("hide-above"));
    }
    Ok(Box::new(Dataset::open(path)?))
}
