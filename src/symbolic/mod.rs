//! Symbolic regression: expressions, the search for them, and the front of the best.

mod derivative;
pub mod expression;
pub mod front;
mod island;
pub mod job;
pub mod mutate;
mod parse;
mod print;
mod rules;
pub mod search;
pub mod settings;
mod simplify;
pub mod template;
pub mod units;
