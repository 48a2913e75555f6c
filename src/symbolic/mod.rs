//! Symbolic regression: the search for formulas, and the front of the best.

pub mod columns;
mod constants;
pub mod denoise;
mod enumerate;
pub mod fit;
pub mod front;
mod guess;
mod hall;
mod inner;
mod island;
pub mod job;
pub mod joint;
mod library;
mod linear;
pub mod mutate;
pub mod options;
mod pairs;
mod powers;
mod prepare;
pub mod relevance;
mod round;
mod rules;
pub mod search;
pub mod settings;
mod state;
pub mod template;
mod threshold;
