//! lawsmith turns data about interacting bodies into a formula.
//!
//! It simulates (or imports) a system, trains a graph network whose messages are forced to be
//! compact, and distils those messages into closed-form laws by symbolic regression: the method of
//! Cranmer et al. 2020, "Discovering Symbolic Models from Deep Learning with Inductive Biases",
//! arXiv 2006.11287.
//!
//! From a program these are five calls on data in memory, in the order of the pipeline:
//!
//! 1. [`simulate`](fn@simulate): settings become a data set; [`Dataset::new`](nbody::dataset::Dataset::new) takes
//!    trajectories of your own.
//! 2. [`train`](fn@train): a data set, or a graph of halos, becomes a [model](network::model::Model).
//! 3. [`messages`](fn@messages): a model becomes a table of its messages, with their significance and their fits to the
//!    true forces.
//! 4. [`regress`](fn@regress): any [table](store::table::Table) becomes a Pareto front of formulas, and a law.
//! 5. [`compose`](fn@compose): a model and the laws of its messages become one formula, with refitted constants and a
//!    test loss.
//!
//! An [`Observer`](observer::Observer) is told how far they are, may stop them, and is offered checkpoints; `&()`
//! ignores all of it. A [run folder](store::run::RunFolder::observer) is an observer, and the command line is one user
//! of the calls. `examples/` has three programs.
//!
//! The map of the crate, in the order of the pipeline:
//!
//! - [`nbody`]: laws, initial states, data sets of trajectories; [`network`]: graph networks and
//!   their training; [`symbolic`]: expressions and the search for them; `distill`: from messages to
//!   a law, refitted to the data; [`pipeline`]: all stages in turn, for every system; [`report`]: the
//!   HTML report.
//! - [`cosmology`]: halo catalogues and their graphs.
//! - [`ops`]: the fused operations that do the work, one folder each with mathematics, CPU, GPU and
//!   tests; only they and [`device`] know where they run.
//! - [`store`]: memory-mapped files, tables, run folders; [`cli`]: one file per subcommand.
//! - [`random`], [`options`], [`observer`], [`panics`], [`error`]: what everything shares.

#![deny(unsafe_op_in_unsafe_fn)]
#![warn(missing_docs)]
#![warn(clippy::undocumented_unsafe_blocks)]

pub mod bench;
pub mod cli;
pub mod cosmology;
mod crew;
pub mod device;
pub mod distill;
pub mod error;
pub mod formula;
pub mod law;
mod linear;
pub mod model;
pub mod nbody;
pub mod network;
pub mod observer;
pub mod ops;
pub mod options;
pub mod panics;
pub mod pipeline;
pub mod random;
pub mod report;
pub mod simd;
pub mod store;
pub mod symbolic;

pub use distill::compose::compose;
pub use distill::messages::messages;
pub use nbody::simulate::simulate;
pub use network::train::train;
pub use symbolic::fit::regress;
