//! Symbolic regression: expressions, the search for them, and the front of the best.

mod derivative;
pub mod expression;
pub mod front;
mod island;
pub mod job;
mod mutate;
mod parse;
mod print;
pub mod search;
mod simplify;
