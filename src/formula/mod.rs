//! Formulas: expressions and their operators, as text and in other languages, their derivatives, simplification and
//! units. Depends on nothing but the error type.

pub mod definition;
mod derivative;
pub mod export;
pub mod expression;
pub mod operator;
pub(crate) mod parse;
pub(crate) mod pi;
pub mod print;
pub mod rescale;
mod simplify;
pub mod units;
