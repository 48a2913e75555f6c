//! Symbolic regression: expressions, the search for them, and the front of the best.

pub mod expression;
