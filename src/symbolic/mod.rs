//! Symbolic regression: expressions, the search for them, and the front of the best.

mod derivative;
pub mod expression;
mod parse;
mod print;
