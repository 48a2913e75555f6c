//! A trained run, and what the stages after training need to know about its system: edges, variables, nodes,
//! and the truth if it is known. The stages are written once, on top of this.

use serde_json::{Map, Value};

use super::forces::Verdict;
use super::formula::{Formula, Terms};
use super::laws::{Found, Search};
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

/// Device, seed and observer of a stage.
#[derive(Clone, Copy)]
pub struct Compute<'a> {
    /// The device to compute on.
    pub device: Device,
    /// Seed of everything random.
    pub seed: u64,
    /// Is told about progress and files, and can stop the stage.
    pub observer: &'a dyn Observer,
}

impl Default for Compute<'_> {
    /// The CPU, seed 0, no observer.
    fn default() -> Self {
        Compute { device: Device::cpu(), seed: 0, observer: &() }
    }
}

/// A system whose networks can be distilled.
pub trait Distilled: System {
    /// What the stages after training need to know about it, for a network trained on it.
    ///
    /// # Errors
    /// A network trained on another system.
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
    /// `[edge, width]`: features of the receiver, then of the sender.
    pub features: Vec<f32>,
    /// Twice the number of features of a node.
    pub width: usize,
}

impl Edges {
    /// Number of edges.
    pub fn count(&self) -> usize {
        self.features.len() / self.width
    }
}

/// What makes the predictions that are judged.
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
    /// On data to which nothing was fitted.
    pub test: Option<Measure>,
    /// Outside the training distribution, if there is something to compare with.
    pub outside: Option<Measure>,
    /// On the data to which formulas are fitted, if that is not known already.
    pub fitted: Option<Measure>,
}

/// The laws of a kept message: the chosen one, and the candidates for a formula.
pub struct Laws {
    /// The chosen one.
    pub chosen: Expression,
    /// All candidates, in the variables of the formula.
    pub candidates: Vec<Expression>,
}

/// The system of a trained run. Errors are missing data, laws that are undefined on the data, and those of the
/// operations.
pub trait Physics {
    /// Its network.
    fn model(&self) -> &Model;

    /// All variables of formulas, whatever the messages depend on.
    fn terms(&self) -> Terms;

    /// Random edges on which messages are measured.
    fn edges(&self, seed: u64) -> Result<Edges>;

    /// The true forces on the receivers `[dim][edge]`, if the law is known.
    fn forces(&self, _: &Edges) -> Option<Vec<Vec<f64>>> {
        None
    }

    /// How many message components are kept; `None` for those with more than 1 % of the largest significance.
    fn components(&self) -> Option<usize> {
        None
    }

    /// The variables of the laws of the messages, a subset of [`Terms::edge`].
    fn variables(&self, wanted: Wanted, velocities: bool, probe: &Probe) -> Result<Vec<String>>;

    /// Their values, `[edge, variables]`.
    fn values(&self, variables: &[String], edges: &Edges) -> Vec<f32>;

    /// Further metadata of the messages.
    fn entry(&self, _: &[String]) -> Map<String, Value> {
        Map::new()
    }

    /// The name of a message component in `hall_of_fame.csv` and `laws.json`.
    fn label(&self, component: usize) -> String;

    /// The edges used in the search for the law of a message, with their weights.
    fn rows(&self, message: &[f32], seed: u64) -> (Vec<usize>, Option<Vec<f32>>);

    /// How close the law of a message comes to the truth, if that is known; `problem` is the problem it solves.
    fn verdict(&self, _: &Expression, _: &Problem, _: u64) -> Option<Verdict> {
        None
    }

    /// Reads what was found for the kept messages of the table from the files of the run.
    fn found(&self, folder: &RunFolder, table: &Table, select: Select) -> Result<Vec<Found>>;

    /// The laws of the kept messages of the table, taken from what was found for them.
    fn laws(&self, table: &Table, found: &[Found]) -> Vec<Laws>;

    /// The regression problems for the laws of φv, one per output.
    fn node_problems(&self, at: Compute, table: &Table, laws: &[Laws]) -> Result<Vec<Problem>>;

    /// The formula with its constants refitted on the data, and its loss there. `nodes` was found for `problems`.
    fn settle(
        &self,
        at: Compute,
        table: &Table,
        laws: Vec<Laws>,
        problems: &[Problem],
        nodes: Vec<Found>,
    ) -> Result<(Formula, f64)>;

    /// A formula that was fitted to the data without the network, for data whose messages have no law, and its loss;
    /// `None` if there is none.
    fn direct(&self, _: Compute, _: Search) -> Result<Option<(Formula, f64)>> {
        Ok(None)
    }

    /// How well network or formula predicts.
    fn judgement(&self, at: Compute, of: Predictor) -> Result<Judgement>;

    /// Whether there is a law and how good it is, on data to which nothing was fitted; `summary` holds what was found.
    fn assess(
        &self,
        at: Compute,
        formula: Option<&Formula>,
        summary: &Summary,
    ) -> Result<Option<Conclusion>>;

    /// True if the search for laws may be repeated with velocities when laws without them do not hold.
    fn may_retry_with_velocities(&self) -> bool {
        false
    }

    /// Offers the observer what the report shows about a composed formula besides its losses.
    fn show(&self, _: Compute, _: &Formula) -> Result<()> {
        Ok(())
    }

    /// Offers the observer the roll-outs of network and formula, for a system that moves.
    fn roll_out(&self, _: Compute, _: Option<&Formula>) -> Result<()> {
        Ok(())
    }
}

impl Run {
    /// The composed formula; `None` if there is none yet.
    ///
    /// # Errors
    /// Equations that cannot be parsed.
    pub fn formula(&self) -> Result<Option<Formula>> {
        Formula::read(&self.folder, self.physics.terms())
    }
}
