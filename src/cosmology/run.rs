//! A run on a graph of halos, as the stages after training see it.
//!
//! The network's surviving messages get laws in the variables of an edge, φv gets one in mass, speed and the
//! summed messages; [`pairs`](super::pairs) makes one formula of them.

use std::cell::OnceCell;

use serde_json::Value;

use super::edges::{self, sample};
use super::formula::{Nodes, in_all, measure, terms, terms_in};
use super::graph::{Graph, N_FEATURES};
use super::halos::{Halos, errors, predict};
use super::slab::Slab;
use super::split::Split;
use super::{pairs, slab};
use crate::distill::formula::{Formula, Terms};
use crate::distill::laws::{Found, MESSAGE, read_front};
use crate::distill::messages::{EDGES, Probe, ROWS, Table, Wanted};
use crate::distill::run::{Compute, Distilled, Edges, Judgement, Laws, Physics, Predictor};
use crate::distill::summary::Summary;
use crate::distill::verdict::{Conclusion, Predictions, ResidualSummary};
use crate::error::{Error, Result};
use crate::formula::expression::Expression;
use crate::network::model::Model;
use crate::ops::edge;
use crate::store::run::RunFolder;
use crate::symbolic::front::Select;
use crate::symbolic::job;
use crate::symbolic::search::Problem;

/// A run on a graph of halos.
pub struct HalosRun {
    /// Its folder, if it has one.
    folder: Option<RunFolder>,
    model: Model,
    opened: OnceCell<(Graph, Split)>,
}

impl HalosRun {
    /// The run of a network that was trained on a graph.
    pub fn new(folder: RunFolder, model: Model) -> Self {
        HalosRun { folder: Some(folder), model, opened: OnceCell::new() }
    }

    /// The graph and its split into nodes that may be fitted to and others.
    fn opened(&self) -> Result<&(Graph, Split)> {
        if self.opened.get().is_none() {
            let graph = Graph::open(&self.model.about.dataset)?;
            check_graph(&self.model, &graph)?;
            let split = Split::new(&graph, hide_above(&self.model))?;
            return Ok(self.opened.get_or_init(|| (graph, split)));
        }
        Ok(self.opened.get().expect("it is there"))
    }
}

/// The overdensity above which nodes were hidden from the training of a network.
pub(super) fn hide_above(model: &Model) -> Option<f64> {
    model.about.on.graph().and_then(|graph| graph.hide_above)
}

/// Checks that a network was trained on this graph.
///
/// # Errors
/// Different nodes, edges, radius or scales.
pub fn check_graph(model: &Model, graph: &Graph) -> Result<()> {
    if model.about.on.graph() != Some(&graph.about.on_graph(hide_above(model))) {
        let message = "is not the graph that the run's network was trained on";
        return Err(Error::input(message).file(graph.path()));
    }
    Ok(())
}

impl Distilled for Halos {
    fn physics(&self, model: &Model) -> Result<Box<dyn Physics>> {
        check_graph(model, &self.graph)?;
        let split = Split::new(&self.graph, hide_above(model))?;
        let opened = OnceCell::from((self.graph.clone(), split));
        Ok(Box::new(HalosRun { folder: None, model: model.clone(), opened }))
    }
}

impl Physics for HalosRun {
    fn model(&self) -> &Model {
        &self.model
    }

    fn terms(&self) -> Terms {
        self.model.about.on.graph().map_or_else(terms, |graph| terms_in(&graph.scales))
    }

    /// Random edges into the nodes that may be fitted to.
    fn edges(&self, seed: u64) -> Result<Edges> {
        let (graph, split) = self.opened()?;
        let features = sample(graph, &graph.scaled_features(), &split.train, EDGES, seed);
        if features.is_empty() {
            return Err(
                Error::input("none of the training halos has a neighbour").file(graph.path())
            );
        }
        Ok(Edges { features, width: 2 * N_FEATURES })
    }

    /// Masses and distance, with directions and velocities if the messages depend on them. Laws without masses always
    /// have the speeds.
    fn variables(&self, wanted: Wanted, _: bool, probe: &Probe) -> Result<Vec<String>> {
        let without_mass = wanted.without_mass;
        let mut names = if without_mass { vec![] } else { vec!["m1", "m2"] };
        if probe.depends(-1, edges::align_displacement)? {
            names.extend(["dx", "dy", "dz"]);
        }
        names.push("r");
        if without_mass || probe.depends(-1, edges::other_velocities)? {
            names.extend(["dv", "v1", "v2"]);
        }
        Ok(names.into_iter().map(String::from).collect())
    }

    fn values(&self, variables: &[String], edges: &Edges) -> Vec<f32> {
        edges::values(&edges.features, variables)
    }

    fn label(&self, component: usize) -> String {
        format!("e{component}")
    }

    fn rows(&self, message: &[f32], seed: u64) -> (Vec<usize>, Option<Vec<f32>>) {
        let (rows, weights) = edges::important(message, ROWS, seed);
        (rows, Some(weights))
    }

    fn found(&self, folder: &RunFolder, table: &Table, select: Select) -> Result<Vec<Found>> {
        let units = self.terms().units(&table.inputs).map(|units| units.inverse());
        let laws = job::read_laws(folder)?;
        let found = |component: usize| {
            let target = self.label(component);
            let is = |law: &&Value| law["stage"] == MESSAGE && law["target"] == target.as_str();
            if units.is_some() && laws.iter().find(is).is_some_and(|law| !job::is_converted(law)) {
                let message = "was written by an earlier version, in scaled units: run `lawsmith regress` on the \
                               folder again";
                return Err(Error::input(message).file(folder.file(job::HALL_OF_FAME)));
            }
            let mut front = read_front(folder, &target, &table.inputs)?;
            // The file is in the user's units.
            for (entry, units) in front.entries.iter_mut().zip(units.iter().cycle()) {
                entry.expression = entry.expression.rescaled(units);
            }
            let chosen = front.entries[front.select(select).unwrap_or(0)].clone();
            Ok(Found { chosen, front })
        };
        table.components().into_iter().map(found).collect()
    }

    /// The laws of the fronts worth composing.
    fn laws(&self, table: &Table, found: &[Found]) -> Vec<Laws> {
        let laws = |found: &Found| {
            let in_all = |e: &Expression| in_all(e, &table.inputs, &self.terms().edge);
            let chosen = in_all(&found.chosen.expression);
            let mut candidates = pairs::candidates(&found.front, in_all);
            if !candidates.contains(&chosen) {
                candidates.push(chosen.clone());
            }
            Laws { chosen, candidates }
        };
        found.iter().map(laws).collect()
    }

    /// The network's output as a function of a node's mass, its speed and the summed laws of the messages. The sums of
    /// the laws replace those of the network's messages, which also contain what the laws leave out.
    fn node_problems(&self, at: Compute, table: &Table, laws: &[Laws]) -> Result<Vec<Problem>> {
        let (graph, split) = self.opened()?;
        let (device, features) = (&at.device, graph.scaled_features());
        let receivers = pairs::draw(&split.train, ROWS, at.seed);
        let nodes = Nodes::new(device, graph, &features, &receivers)?;
        let messages: Vec<Expression> = laws.iter().map(|law| law.chosen.clone()).collect();
        let sums = nodes.sums(&messages, false)?.ok_or_else(|| {
            Error::input("the law of a message is undefined on some edge").file(graph.path())
        })?;
        let mut workspace = edge::Workspace::default();
        let target = predict(device, graph, &features, &self.model, &receivers, &mut workspace)?;
        let mut columns = vec![Vec::with_capacity(receivers.len()); 2 + messages.len()];
        for row in 0..receivers.len() {
            let own = nodes.own(row);
            let sums = &sums.values[row * sums.width..][..sums.width];
            for (column, value) in columns.iter_mut().zip(own.iter().chain(sums)) {
                column.push(*value as f32);
            }
        }
        let mut names = self.terms().node_names(&table.components());
        if !table.inputs.iter().any(|name| name == "m1") {
            // Laws without masses.
            names.remove(0);
            columns.remove(0);
        }
        Ok(vec![Problem { names, columns, target, ..Problem::default() }])
    }

    fn settle(
        &self,
        at: Compute,
        table: &Table,
        laws: Vec<Laws>,
        problems: &[Problem],
        nodes: Vec<Found>,
    ) -> Result<(Formula, f64)> {
        let components = table.components();
        let names = self.terms().node_names(&components);
        let in_all = |e: &Expression| in_all(e, &problems[0].names, &names);
        let nodes = pairs::candidates(&nodes[0].front, in_all);
        let (graph, split) = self.opened()?;
        let folder = self.folder.as_ref();
        pairs::settle(at, graph, &split.train, components, &laws, &nodes, folder)
    }

    /// Outside the training distribution are the nodes hidden from training.
    fn judgement(&self, at: Compute, of: Predictor) -> Result<Judgement> {
        let (graph, split) = self.opened()?;
        let (test, outside, fitted) = match of {
            Predictor::Network => {
                let (test, hidden) = errors(&at.device, graph, &self.model)?;
                (test, hidden, None)
            }
            Predictor::Formula(formula) => {
                let features = graph.scaled_features();
                let on = |nodes: &[u32]| measure(&at.device, graph, &features, nodes, formula);
                let (test, hidden) = split.measure(on)?;
                (test, hidden, Some(on(&split.train)?))
            }
        };
        Ok(Judgement { test: Some(test), outside, fitted })
    }

    fn assess(
        &self,
        _: Compute,
        formula: Option<&Formula>,
        _: &Summary,
    ) -> Result<Option<Conclusion>> {
        // Written by [`Physics::show`].
        let slab = self.folder.as_ref().map(Slab::read).transpose()?.flatten();
        let Some(slab) = slab else { return Ok(None) };
        let wide = |values: &[f32]| values.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
        let (network, of_formula) = (wide(&slab.network), wide(&slab.formula));
        let data = Predictions {
            outputs: 1,
            targets: &wide(&slab.targets),
            network: Some(&network),
            formula: formula.map(|_| &of_formula[..]),
        };
        // Halos follow no law of motion: their surroundings explain only part of the overdensity.
        let left = ResidualSummary { scatter: true, ..ResidualSummary::default() };
        Ok(Some(Conclusion::new(&data, &left)))
    }

    fn show(&self, at: Compute, formula: &Formula) -> Result<()> {
        let (graph, split) = self.opened()?;
        let found = (&self.model, formula);
        at.observer.keep(slab::SLAB, &mut |path| {
            slab::write(&at.device, graph, &graph.scaled_features(), &split.test, found, path)
        })
    }
}
