//! From a trained network to a law, and back onto the data (docs/design.md §4).
//!
//! `messages` ranks the messages of the network and compares them with the true forces; `laws` searches for an
//! expression for each kept message and for φv; `compose` puts them in the network's place and refits all
//! constants. All of them are written once, on top of the [`run::Physics`] of a run, and read and write the files
//! of its folder; `bodies` implements it for small systems.

pub mod bodies;
pub mod compose;
pub mod dependence;
pub mod direct;
pub mod edges;
pub mod forces;
pub mod formula;
pub mod laws;
pub mod messages;
pub mod motion;
pub mod nodes;
pub(crate) mod refit;
pub mod rollout;
pub mod run;
pub mod summary;
pub mod verdict;
