//! From a trained network to a law, and back onto the data (docs/design.md §4).
//!
//! `messages` ranks what the network sends and compares it with the true forces; `laws` searches an
//! expression for each kept message and for φv; `compose` puts them in the network's place and refits
//! all constants; `pipeline` runs everything. All of them read and write the files of a run folder.

pub mod compose;
pub mod edges;
pub mod forces;
pub mod laws;
pub mod linear;
pub mod messages;
pub mod nodes;
pub mod pipeline;
pub(crate) mod refit;
pub mod rollout;
pub mod summary;
