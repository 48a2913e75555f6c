//! lawsmith turns data about interacting bodies into a formula.
//!
//! It simulates (or imports) a system, trains a graph network whose messages are forced to be
//! compact, and distils those messages into closed-form laws by symbolic regression: the method of
//! Cranmer et al. 2020, "Discovering Symbolic Models from Deep Learning with Inductive Biases",
//! arXiv 2006.11287.
//!
//! The map of the crate, in the order of the pipeline:
//!
//! - [`nbody`]: laws, initial states, data sets of trajectories; [`network`]: graph networks and
//!   their training; [`symbolic`]: expressions and the search for them; `distill`: from messages to
//!   a law, and back onto the data; [`pipeline`]: all of it, for every system; [`report`]: what a person
//!   looks at.
//! - [`cosmology`]: halo catalogues and their graphs.
//! - [`ops`]: the fused operations that do the work, one folder each with mathematics, CPU, GPU and
//!   tests; [`device`] says where they run, and nothing else knows.
//! - [`store`]: memory-mapped files, tables, run folders; [`cli`]: one file a subcommand.
//! - [`random`], [`progress`], [`interrupt`], [`panics`], [`error`]: what everything shares.

#![deny(unsafe_op_in_unsafe_fn)]
#![warn(missing_docs)]
#![warn(clippy::undocumented_unsafe_blocks)]

pub mod bench;
pub mod cli;
pub mod cosmology;
pub mod device;
pub mod distill;
pub mod error;
pub mod formula;
pub mod law;
pub mod model;
pub mod nbody;
pub mod network;
pub mod observer;
pub mod ops;
pub mod panics;
pub mod pipeline;
pub mod random;
pub mod report;
pub mod simd;
pub mod store;
pub mod symbolic;
