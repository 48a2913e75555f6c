//! Symbolic regression: expressions, the search for them, and the front of the best.

pub mod denoise;
mod derivative;
mod enumerate;
pub mod export;
pub mod expression;
pub mod front;
mod hall;
mod island;
pub mod job;
pub mod joint;
mod library;
mod linear;
pub mod mutate;
mod pairs;
mod parse;
mod powers;
mod print;
pub mod relevance;
mod round;
mod rules;
pub mod search;
pub mod settings;
mod simplify;
mod state;
pub mod template;
mod threshold;
pub mod units;
