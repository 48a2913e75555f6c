//! A run on small systems: what the stages behind the training need to know of it.

use std::cell::OnceCell;

use serde_json::{Map, Value, json};

use super::edges::{Inputs, pairs, sample};
use super::forces::{self, Verdict};
use super::formula::{Formula, Terms};
use super::laws::{Found, MESSAGE};
use super::messages::{EDGES, Probe, ROWS, Table};
use super::nodes::{Graphs, node_table};
use super::rollout;
use super::run::{Compute, Distilled, Edges, Judgement, Laws, Physics, Predictor};
use crate::error::{Error, Result};
use crate::formula::expression::Expression;
use crate::law::Law;
use crate::nbody::dataset::Dataset;
use crate::network::batches::split;
use crate::network::model::{DataSet, Model, TrainedOn};
use crate::network::system::{Measure, System};
use crate::store::run::RunFolder;
use crate::symbolic::front::Select;
use crate::symbolic::job::{self, LAWS};
use crate::symbolic::search::Problem;

/// Graphs on which losses are measured.
const LOSS_GRAPHS: usize = 4000;
/// Graphs of the training data on which the composed formula is refitted.
const REFIT_GRAPHS: usize = 4000;
/// How much wider than the initial states of the training the states outside its range are.
const OUTSIDE_WIDTH: f64 = 2.0;

/// Where the data of a run are.
enum Source {
    /// In the folder of the run, and in the file that its network was trained on.
    Folder(RunFolder),
    /// What the network was trained on, in memory.
    Memory(Dataset),
}

/// A run on small systems.
pub struct Bodies {
    source: Source,
    model: Model,
    data: DataSet,
    /// The law of the data, where it is known.
    law: Option<Law>,
    /// Data that the network has not seen, and which of their runs.
    unseen: OnceCell<(Dataset, Vec<usize>)>,
}

impl Bodies {
    /// The run of a network that was trained on `data`.
    pub fn new(folder: RunFolder, model: Model, data: DataSet, law: Option<Law>) -> Self {
        Bodies { source: Source::Folder(folder), model, data, law, unseen: OnceCell::new() }
    }

    /// The data that the network was trained on.
    fn trained(&self) -> Result<Dataset> {
        match &self.source {
            Source::Folder(_) => Dataset::open(&self.model.about.dataset),
            Source::Memory(data) => Ok(data.clone()),
        }
    }

    fn unseen(&self) -> Result<&(Dataset, Vec<usize>)> {
        if self.unseen.get().is_none() {
            let found = match &self.source {
                Source::Folder(folder) => rollout::unseen(folder, &self.model)?,
                Source::Memory(data) => rollout::unseen_of(data, &self.model)?,
            };
            return Ok(self.unseen.get_or_init(|| found));
        }
        Ok(self.unseen.get().expect("it is there"))
    }
}

impl Distilled for Dataset {
    fn physics(&self, model: &Model) -> Result<Box<dyn Physics>> {
        let on = self.trained_on();
        let TrainedOn::Bodies(data, law) = on.clone() else { unreachable!("a data set") };
        if model.about.on != on {
            let message = "is not the data set that the network was trained on";
            return Err(Error::usage(message).file(self.path()));
        }
        let (source, model) = (Source::Memory(self.clone()), model.clone());
        Ok(Box::new(Bodies { source, model, data, law, unseen: OnceCell::new() }))
    }
}

impl Physics for Bodies {
    fn model(&self) -> &Model {
        &self.model
    }

    fn terms(&self) -> Terms {
        let dim = self.data.dim;
        Inputs { dim, velocities: (0..2 * dim).collect() }.terms()
    }

    fn edges(&self, seed: u64) -> Result<Edges> {
        let (data, runs) = self.unseen()?;
        Ok(sample(data, runs, EDGES, seed))
    }

    fn forces(&self, edges: &Edges) -> Option<Vec<Vec<f64>>> {
        let DataSet { dim, bodies, .. } = self.data;
        let law = self.law.as_ref()?;
        let mut forces = vec![Vec::with_capacity(edges.count()); dim];
        for (receiver, sender) in pairs(edges, dim) {
            let force = law.force(&receiver, &sender, bodies);
            forces.iter_mut().zip(force).for_each(|(column, value)| column.push(value));
        }
        Some(forces)
    }

    fn components(&self) -> Option<usize> {
        self.law.as_ref().map(|_| self.data.dim)
    }

    /// All but the velocities, and those components of them that the messages depend on.
    fn variables(&self, _: bool, probe: &Probe) -> Result<Vec<String>> {
        let DataSet { dim, .. } = self.data;
        let mut velocities = Vec::new();
        for k in 0..2 * dim {
            // Behind the positions of the receiver, and of the sender.
            let at = if k < dim { dim + k } else { self.model.shape.n_features + k };
            if probe.depends(1, |row, other| row[at] = other[at])? {
                velocities.push(k);
            }
        }
        Ok(Inputs { dim, velocities }.names())
    }

    fn values(&self, variables: &[String], edges: &Edges) -> Vec<f32> {
        let inputs = Inputs::of(variables);
        let mut values = Vec::with_capacity(edges.count() * variables.len());
        for (receiver, sender) in pairs(edges, self.data.dim) {
            inputs.values(&receiver, &sender, &mut values);
        }
        values.iter().map(|&value| value as f32).collect()
    }

    fn entry(&self, variables: &[String]) -> Map<String, Value> {
        let Inputs { dim, velocities } = Inputs::of(variables);
        let entry = json!({"velocities": velocities, "dim": dim, "bodies": self.data.bodies});
        entry.as_object().cloned().unwrap_or_default()
    }

    fn label(&self, component: usize) -> String {
        component.to_string()
    }

    /// The first ones: they are in random order.
    fn rows(&self, message: &[f32], _: u64) -> (Vec<usize>, Option<Vec<f32>>) {
        ((0..ROWS.min(message.len())).collect(), None)
    }

    fn verdict(&self, law: &Expression, problem: &Problem, seed: u64) -> Option<Verdict> {
        let truth = self.law.as_ref()?;
        let inputs = Inputs::of(&problem.names);
        let mut distances = problem.columns[4 + inputs.dim].clone();
        distances.sort_by(f32::total_cmp);
        let most = distances[(0.99 * (distances.len() - 1) as f64).round() as usize];
        let r_max = 2.0 * f64::from(most);
        Some(forces::judge(truth, law, &inputs, self.data.bodies, r_max, seed))
    }

    /// Those that `regress` chose.
    fn found(&self, folder: &RunFolder, table: &Table, _: Select) -> Result<Vec<Found>> {
        let (found, path) = (job::read_laws(folder)?, folder.file(LAWS));
        let names: Vec<&str> = table.inputs.iter().map(String::as_str).collect();
        let law = |index: usize| {
            let target = self.label(index);
            let is = |l: &&Value| l["stage"] == MESSAGE && l["target"] == target.as_str();
            let law = found.iter().find(is);
            let equation = law.and_then(|law| law["equation"].as_str()).ok_or_else(|| {
                let message =
                    "has no law for this message: run `lawsmith regress` on the folder first";
                Error::input(message).file(&path).field(&target)
            })?;
            let chosen = Expression::parse(equation, &names)
                .map_err(|e| Error::input(e.message).file(&path).field(&target))?;
            Ok(Found::only(chosen))
        };
        table.components().into_iter().map(law).collect()
    }

    fn laws(&self, _: &Table, found: &[Found]) -> Vec<Laws> {
        let chosen = found.iter().map(|found| found.chosen.expression.clone());
        chosen.map(|chosen| Laws { candidates: vec![chosen.clone()], chosen }).collect()
    }

    /// Features and kept summed messages of one node of each graph, outputs of the network.
    fn node_problems(&self, at: Compute, table: &Table, _: &[Laws]) -> Result<Vec<Problem>> {
        let (data, runs) = self.unseen()?;
        let graphs = Graphs::sample(data, runs, ROWS, at.seed.wrapping_add(1));
        let [columns, targets] =
            node_table(&at.device, &self.model, &graphs, &table.kept, at.seed)?;
        let names = self.terms().node_names(&table.components());
        let problem = |target| Problem {
            names: names.clone(),
            columns: columns.clone(),
            target,
            ..Problem::default()
        };
        Ok(targets.into_iter().map(problem).collect())
    }

    /// The chosen laws, refitted on graphs of the training data.
    fn settle(
        &self,
        at: Compute,
        table: &Table,
        laws: Vec<Laws>,
        _: &[Problem],
        nodes: Vec<Found>,
    ) -> Result<(Formula, f64)> {
        let mut formula = Formula {
            terms: Inputs::of(&table.inputs).terms(),
            components: table.components(),
            messages: laws.into_iter().map(|law| law.chosen).collect(),
            nodes: nodes.into_iter().map(|found| found.chosen.expression).collect(),
        };
        let data = self.trained()?;
        let (trained, _) = split(&data, self.model.about.settings.seed)?;
        let train = Graphs::sample(&data, &trained.runs, REFIT_GRAPHS, at.seed.wrapping_add(2));
        let loss = formula
            .refit(&train.features, &train.targets, train.bodies, at.observer)
            .map_err(|e| match &self.source {
                Source::Folder(folder) => e.file(folder.path()),
                Source::Memory(_) => e,
            })?;
        Ok((formula, loss))
    }

    /// Out of the distribution are random states twice as wide as initial states, where the law is known.
    fn judgement(&self, at: Compute, of: Predictor) -> Result<Judgement> {
        let (data, runs) = self.unseen()?;
        let loss = |graphs: &Graphs| -> Result<Measure> {
            Ok(Measure::plain(match of {
                Predictor::Network => graphs.network_loss(&at.device, &self.model)?,
                Predictor::Formula(formula) => graphs.formula_loss(formula),
            }))
        };
        let outside = self.law.as_ref().map(|law| {
            let DataSet { dim, bodies, .. } = self.data;
            loss(&Graphs::outside(law, dim, bodies, LOSS_GRAPHS, OUTSIDE_WIDTH, at.seed))
        });
        Ok(Judgement {
            test: Some(loss(&Graphs::sample(data, runs, LOSS_GRAPHS, at.seed))?),
            outside: outside.transpose()?,
            fitted: None,
        })
    }

    fn roll_out(&self, at: Compute, formula: Option<&Formula>) -> Result<()> {
        let (data, runs) = self.unseen()?;
        let rollouts = rollout::integrate(
            &at.device,
            &self.model,
            formula,
            data,
            &runs[..rollout::RUNS.min(runs.len())],
            (rollout::FRAMES, rollout::SUBSTEPS),
            at.observer,
        )?;
        at.observer.keep("rollout.safetensors", &mut |path| rollouts.save(path))
    }
}
