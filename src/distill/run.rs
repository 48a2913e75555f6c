//! A trained run, and what the stages behind the training need to know of its system: edges, variables,
//! the truth where it is known, nodes. The stages are written once, on this.

use serde_json::{Map, Value};

use super::forces::Verdict;
use super::formula::{Formula, Terms};
use super::laws::Found;
use super::messages::{Probe, Table, Wanted};
use super::summary::Summary;
use super::verdict::Conclusion;
use crate::device::Device;
use crate::error::Result;
use crate::formula::expression::Expression;
use crate::network::model::Model;
use crate::network::system::{Measure, System};
use crate::observer::Observer;
use crate::store::run::RunFolder;
use crate::symbolic::front::Select;
use crate::symbolic::search::Problem;

/// Where and how a stage runs.
#[derive(Clone, Copy)]
pub struct Compute<'a> {
    /// Where to compute.
    pub device: Device,
    /// Seed of everything random.
    pub seed: u64,
    /// Who watches.
    pub observer: &'a dyn Observer,
}

impl Default for Compute<'_> {
    /// On the CPU, with seed 0, and nobody watches.
    fn default() -> Self {
        Compute { device: Device::cpu(), seed: 0, observer: &() }
    }
}

/// A system whose networks can be distilled.
pub trait Distilled: System {
    /// What the stages behind the training need to know of it, for a network that was trained on it.
    ///
    /// # Errors
    /// A network of another system.
    fn physics(&self, model: &Model) -> Result<Box<dyn Physics>>;
}

/// A trained run.
pub struct Run {
    /// Its folder.
    pub folder: RunFolder,
    /// Its system.
    pub physics: Box<dyn Physics>,
}

/// A sample of directed edges.
pub struct Edges {
    /// `[edge, width]`: what φe sees of the receiver, then of the sender.
    pub features: Vec<f32>,
    /// Twice the features of a node.
    pub width: usize,
}

impl Edges {
    /// How many.
    pub fn count(&self) -> usize {
        self.features.len() / self.width
    }
}

/// What is judged on the data of a system.
#[derive(Clone, Copy)]
pub enum Predictor<'a> {
    /// The network of the run.
    Network,
    /// A formula.
    Formula(&'a Formula),
}

/// Mean over nodes of the L1 norm of the error, on the data of a system.
#[derive(Clone, Copy, Debug, Default)]
pub struct Judgement {
    /// On data that nothing was fitted to.
    pub test: Option<Measure>,
    /// Out of the distribution of the training, where there is something to compare with.
    pub outside: Option<Measure>,
    /// On the data that formulas are fitted to, where that is not known already.
    pub fitted: Option<Measure>,
}

/// The laws of a kept message: the chosen one, and those that a formula may take.
pub struct Laws {
    /// The chosen one.
    pub chosen: Expression,
    /// All, in the variables of the formula.
    pub candidates: Vec<Expression>,
}

/// The system of a trained run. Errors are data that are gone, laws that are undefined on them, and those of
/// the operations.
pub trait Physics {
    /// Its network.
    fn model(&self) -> &Model;

    /// What formulas are written in, whatever the messages depend on.
    fn terms(&self) -> Terms;

    /// Random edges that messages are measured on.
    fn edges(&self, seed: u64) -> Result<Edges>;

    /// The true forces on the receivers `[dim][edge]`, where the law is known.
    fn forces(&self, _: &Edges) -> Option<Vec<Vec<f64>>> {
        None
    }

    /// How many message components are kept; `None` for those with more than 1 % of the largest significance.
    fn components(&self) -> Option<usize> {
        None
    }

    /// Variables of the laws of the messages, of those of [`Terms::edge`].
    fn variables(&self, wanted: Wanted, velocities: bool, probe: &Probe) -> Result<Vec<String>>;

    /// Their values, `[edge, variables]`.
    fn values(&self, variables: &[String], edges: &Edges) -> Vec<f32>;

    /// What else the metadata of the messages say.
    fn entry(&self, _: &[String]) -> Map<String, Value> {
        Map::new()
    }

    /// The name of a message component in `hall_of_fame.csv` and `laws.json`.
    fn label(&self, component: usize) -> String;

    /// The edges on which the law of a message is searched, with their weights.
    fn rows(&self, message: &[f32], seed: u64) -> (Vec<usize>, Option<Vec<f32>>);

    /// How close the law of a message comes to the truth, where that is known; `problem` is what it was
    /// searched in.
    fn verdict(&self, _: &Expression, _: &Problem, _: u64) -> Option<Verdict> {
        None
    }

    /// What was found for the kept messages of the table, from the files of the run.
    fn found(&self, folder: &RunFolder, table: &Table, select: Select) -> Result<Vec<Found>>;

    /// The laws of the kept messages of the table, of what was found for them.
    fn laws(&self, table: &Table, found: &[Found]) -> Vec<Laws>;

    /// What the laws of φv are searched in: one problem an output.
    fn node_problems(&self, at: Compute, table: &Table, laws: &[Laws]) -> Result<Vec<Problem>>;

    /// The formula, its constants refitted on the data, and its loss there. `nodes` was found in `problems`.
    fn settle(
        &self,
        at: Compute,
        table: &Table,
        laws: Vec<Laws>,
        problems: &[Problem],
        nodes: Vec<Found>,
    ) -> Result<(Formula, f64)>;

    /// How well something predicts.
    fn judgement(&self, at: Compute, of: Predictor) -> Result<Judgement>;

    /// Whether there is a law, and how good, on data that nothing was fitted to; `summary` says what was found.
    fn assess(
        &self,
        at: Compute,
        formula: Option<&Formula>,
        summary: &Summary,
    ) -> Result<Option<Conclusion>>;

    /// True where laws may be searched with velocities if they do not hold without.
    fn may_move(&self) -> bool {
        false
    }

    /// Offers the observer what the report shows of a composed formula beside its losses.
    fn show(&self, _: Compute, _: &Formula) -> Result<()> {
        Ok(())
    }

    /// Offers the observer where network and formula lead, for a system that moves.
    fn roll_out(&self, _: Compute, _: Option<&Formula>) -> Result<()> {
        Ok(())
    }
}

impl Run {
    /// The composed formula; `None` where it was not composed yet.
    ///
    /// # Errors
    /// Equations that cannot be parsed.
    pub fn formula(&self) -> Result<Option<Formula>> {
        Formula::read(&self.folder, self.physics.terms())
    }
}
