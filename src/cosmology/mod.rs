//! Cosmology: catalogues of dark-matter halos, the graph of their neighbours, and the overdensity
//! around each (section 4.3 and table 6 of the paper).
//!
//! A catalogue ([`catalog`]; friends-of-friends tables in [`fof`], HDF5 groups in `subfind`) holds the halos of a
//! periodic box in Mpc/h, km/s and Msun/h, with the overdensity around each, read from a column or counted from
//! particles ([`overdensity`]). [`graph`] joins halos near each other.

pub mod catalog;
pub mod edges;
pub mod fof;
pub mod formula;
pub mod graph;
pub mod halos;
pub mod overdensity;
mod pairs;
pub mod run;
pub mod slab;
mod source;
pub mod split;
mod subfind;
pub mod table6;
#[cfg(test)]
mod tests;
