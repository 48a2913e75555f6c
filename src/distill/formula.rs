//! The composed formula: expressions in place of φe and φv (docs/design.md §4.4), and its entries in `laws.json`.

use crate::error::{Error, Result};
use crate::formula::expression::{Expression, Weights};
use crate::formula::rescale::Rescaling;
use crate::nbody::scale::Scale;
use crate::store::run::RunFolder;
use crate::symbolic::front::Entry;
use crate::symbolic::job::{self, LAWS};

/// The stage in `laws.json`.
const COMPOSED: &str = "composed";

/// The variables, outputs and units of a formula.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// The variables of an edge.
    pub edge: Vec<String>,
    /// The variables of a node, before its summed messages.
    pub node: Vec<String>,
    /// The quantities predicted for a node.
    pub outputs: Vec<String>,
    /// Their units; `None` for the user's.
    pub units: Option<VariableUnits>,
    /// Edges of a periodic box, 0 for none.
    pub period: [f64; 3],
}

impl Terms {
    /// The variables of node expressions: the node's own, then e0, e1, … of these message components.
    pub fn node_names(&self, components: &[usize]) -> Vec<String> {
        let sums = components.iter().map(|index| format!("e{index}"));
        self.node.iter().cloned().chain(sums).collect()
    }

    /// The conversion to the user's units of a law in these variables; `None` if it is in them already.
    /// Messages have the unit of the predicted quantity.
    pub fn units(&self, names: &[String]) -> Option<Rescaling> {
        let units = self.units?;
        let inputs = names.iter().map(|name| units.of(name)).collect();
        Some(Rescaling { inputs, output: (0.0, units.output) })
    }
}

/// The unit of each kind of variable, in the user's units.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VariableUnits {
    /// The point at which positions are zero.
    pub origin: [f64; 3],
    /// Positions, displacements and distances.
    pub length: f64,
    /// Velocities and speeds.
    pub velocity: f64,
    /// Masses.
    pub mass: f64,
    /// Charges.
    pub charge: f64,
    /// Predicted quantities and messages.
    pub output: f64,
}

impl VariableUnits {
    /// For the accelerations of small systems in natural units; `None` if these are the user's units.
    pub fn of_bodies(scale: &Scale) -> Option<Self> {
        let Scale { origin, length, mass, charge, .. } = *scale;
        let (velocity, output) = (scale.velocity(), scale.acceleration());
        (!scale.is_none()).then_some(VariableUnits {
            origin,
            length,
            velocity,
            mass,
            charge,
            output,
        })
    }

    /// The zero point and the unit of a variable.
    fn of(&self, name: &str) -> (f64, f64) {
        let axis = ["x", "y", "z"].iter().position(|axis| *axis == name);
        match (axis, name.as_bytes()) {
            (Some(axis), _) => (self.origin[axis], self.length),
            (None, [b'm', ..]) => (0.0, self.mass),
            (None, [b'q', ..]) => (0.0, self.charge),
            (None, [b'v', ..] | b"dv") => (0.0, self.velocity),
            (None, [b'e', ..]) => (0.0, self.output),
            _ => (0.0, self.length),
        }
    }
}

/// The outputs of each node in closed form: nodes[d](own variables, Σ over senders of messages).
#[derive(Clone, Debug, PartialEq)]
pub struct Formula {
    /// Its variables, outputs and units.
    pub terms: Terms,
    /// The numbers of the message components.
    pub components: Vec<usize>,
    /// One expression per component, in `terms.edge`.
    pub messages: Vec<Expression>,
    /// One expression per output, in [`Terms::node_names`].
    pub nodes: Vec<Expression>,
}

impl Formula {
    /// The equations as text, in the user's units.
    pub fn equations(&self) -> Vec<String> {
        let Formula { terms, components, messages, nodes } = self;
        let names = terms.node_names(components);
        let text = |e: &Expression, names: &[String]| match terms.units(names) {
            Some(units) => e.rescaled(&units).text(names),
            None => e.text(names),
        };
        let sums = components.iter().zip(messages).map(|(index, message)| {
            format!("e{index} = sum over neighbours of {}", text(message, &terms.edge))
        });
        let outputs = terms.outputs.iter().zip(nodes);
        sums.chain(outputs.map(|(name, e)| format!("{name} = {}", text(e, &names)))).collect()
    }

    /// Complexity of all expressions together.
    pub fn complexity(&self) -> u32 {
        let all = self.messages.iter().chain(&self.nodes);
        all.map(|e| e.complexity(&Weights::default())).sum()
    }

    /// Adds it to `laws.json`, with its loss on the data of the refit.
    ///
    /// # Errors
    /// Those of reading and writing.
    pub fn write(&self, folder: &RunFolder, loss: f64) -> Result<()> {
        let mut laws = job::read_laws(folder)?;
        laws.retain(|law| law["stage"] != COMPOSED);
        let mut add = |target: &str, expression: &Expression, names: &[String]| {
            let complexity = expression.complexity(&Weights::default());
            let entry = Entry { complexity, loss, score: 0.0, expression: expression.clone() };
            let units = self.terms.units(names);
            laws.push(job::law_in(units.as_ref(), target, COMPOSED, &entry, names, "refit"));
        };
        for (index, message) in self.components.iter().zip(&self.messages) {
            add(&format!("e{index}"), message, &self.terms.edge);
        }
        let names = self.terms.node_names(&self.components);
        for (name, node) in self.terms.outputs.iter().zip(&self.nodes) {
            add(name, node, &names);
        }
        job::keep_laws(&folder.observer(&()), &laws)
    }

    /// Reads it from `laws.json`; `None` if there is none.
    ///
    /// # Errors
    /// Equations that cannot be parsed.
    pub fn read(folder: &RunFolder, terms: Terms) -> Result<Option<Self>> {
        let laws = job::read_laws(folder)?;
        let composed: Vec<(&str, &str)> = laws
            .iter()
            .filter(|law| law["stage"] == COMPOSED)
            .filter_map(|law| Some((law["target"].as_str()?, job::own_equation(law)?)))
            .collect();
        let bad = |e: Error| Error::input(e.message).file(folder.file(LAWS)).field("equation");
        let parse = |equation: &str, names: &[String]| {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            Expression::parse(equation, &names).map_err(bad)
        };
        let (mut components, mut messages) = (Vec::new(), Vec::new());
        for (target, equation) in &composed {
            if let Some(index) = target.strip_prefix('e').and_then(|index| index.parse().ok()) {
                components.push(index);
                messages.push(parse(equation, &terms.edge)?);
            }
        }
        let names = terms.node_names(&components);
        let of = |output: &String| {
            let law = composed.iter().find(|(target, _)| target == output)?;
            Some(parse(law.1, &names))
        };
        let nodes: Option<Result<Vec<Expression>>> = terms.outputs.iter().map(of).collect();
        let Some(nodes) = nodes.transpose()? else { return Ok(None) };
        Ok(Some(Formula { terms, components, messages, nodes }))
    }
}
