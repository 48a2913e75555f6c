//! A run on small systems: what the stages behind the training need to know of it.

use std::cell::OnceCell;

use serde_json::{Map, Value, json};

use super::dependence::{explained, velocities_tell, waves};
use super::direct::Accelerations;
use super::edges::{self, Inputs, pairs, sample};
use super::forces::{self, Verdict};
use super::formula::{Formula, Terms, VariableUnits};
use super::laws::{Found, MESSAGE, Search};
use super::messages::{EDGES, Probe, ROWS, Table, Wanted};
use super::nodes::{Graphs, network_sums, node_table};
use super::rollout;
use super::run::{Compute, Distilled, Edges, Judgement, Laws, Physics, Predictor};
use super::summary::{ComponentSummary, Summary};
use super::verdict::{Conclusion, Predictions, ResidualSummary};
use crate::error::{Error, Result};
use crate::formula::expression::Expression;
use crate::formula::print::short;
use crate::law::Law;
use crate::nbody::dataset::Dataset;
use crate::nbody::derive::MEAN_OF_NORMAL;
use crate::network::batches::split;
use crate::network::model::{DataSet, Model, TrainedOn};
use crate::network::system::{Measure, System};
use crate::network::tails::{self, Tails};
use crate::network::view::Quantity;
use crate::store::run::RunFolder;
use crate::symbolic::front::Select;
use crate::symbolic::job::{self, LAWS};
use crate::symbolic::search::Problem;

/// Graphs on which losses are measured.
const LOSS_GRAPHS: usize = 4000;
/// Graphs of the training data on which the composed formula is refitted.
const REFIT_GRAPHS: usize = 4000;
/// Graphs of the training data to which a pair force is fitted directly, and as many on which it is judged.
const DIRECT_GRAPHS: usize = 1000;
/// Edges of eight bodies: larger systems are judged and fitted on fewer graphs, …
const LARGEST_PAIRS: usize = 56;
/// … but no fewer than these.
const FEWEST_GRAPHS: usize = 50;
/// How much wider than the initial states of the training the states outside its range are.
const OUTSIDE_WIDTH: f64 = 2.0;

/// Where the data of a run are.
enum Source {
    /// In the folder of the run, and in the file that its network was trained on.
    Folder(RunFolder),
    /// What the network was trained on, in memory.
    Memory(Box<Dataset>),
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
            Source::Folder(_) => rollout::open_for(&self.model, &self.model.about.dataset),
            Source::Memory(data) => Ok((**data).clone()),
        }
    }

    /// All variables of an edge.
    fn inputs(&self) -> Inputs {
        Inputs::all(self.data.dim).within(self.data.period.unwrap_or_default())
    }

    /// True where the data were not simulated.
    fn foreign(&self) -> bool {
        self.law.is_none()
    }

    /// Names of masses and charges that laws do not have: those that are the same for all bodies, and those that
    /// the user left out. Simulated data keep theirs.
    fn constant(&self) -> Result<Vec<&'static str>> {
        let mut gone = Vec::new();
        if !self.foreign() {
            return Ok(gone);
        }
        let data = &self.unseen()?.0;
        let same = |values: &[f32]| values.iter().all(|v| *v == values[0]);
        let unseen = &self.model.about.settings.unseen;
        if same(data.masses()) || unseen.contains(&Quantity::M) {
            gone.extend(["m", "m1", "m2"]);
        }
        if same(data.charges()) || unseen.contains(&Quantity::Q) {
            gone.extend(["q", "q1", "q2"]);
        }
        Ok(gone)
    }

    /// The variables that the laws of φv may have of these columns, with the output `targets`: no place where
    /// the network was trained blind to it, and of data that were not simulated no velocities where they tell
    /// nothing.
    fn node_variables(
        &self,
        names: &[String],
        columns: &[Vec<f32>],
        targets: &[Vec<f32>],
    ) -> Result<Vec<usize>> {
        let settings = &self.model.about.settings;
        let mut gone: Vec<&str> = self.constant()?;
        if !settings.external() {
            gone.extend(["x", "y", "z"]);
        }
        let velocity = ["vx", "vy", "vz"];
        let blind = settings.unseen.contains(&Quantity::V);
        if self.foreign() && (blind || !velocities_tell(names, columns, targets)) {
            gone.extend(velocity);
        }
        Ok((0..names.len()).filter(|&k| !gone.contains(&names[k].as_str())).collect())
    }

    /// Weights of rows with these targets, where they have a heavy tail and were not simulated.
    fn weights(&self, targets: &[f32]) -> Option<Vec<f32>> {
        self.foreign().then(|| tails::weights(targets)).flatten()
    }

    /// What an acceleration of 1 is in the user's units.
    fn unit(&self) -> f64 {
        self.data.units().acceleration()
    }

    /// The axes along which nothing in the data ever accelerates.
    fn still(&self) -> Result<Vec<bool>> {
        let data = &self.unseen()?.0;
        let along = |axis: usize| data.accelerations().iter().skip(axis).step_by(self.data.dim);
        Ok((0..self.data.dim).map(|axis| along(axis).all(|a| *a == 0.0)).collect())
    }

    /// How many runs are rolled out.
    fn rolled_out(&self) -> usize {
        let pairs = self.data.bodies * (self.data.bodies - 1);
        (rollout::RUNS * LARGEST_PAIRS / pairs.max(LARGEST_PAIRS)).max(1)
    }

    /// What is known of what the network leaves over of these graphs, drawn at these moments of their runs.
    fn leftover(
        &self,
        data: &Dataset,
        graphs: &Graphs,
        moments: &[f64],
        network: &[f32],
        summary: &Summary,
    ) -> ResidualSummary {
        let DataSet { dim, bodies, .. } = self.data;
        let unit = self.unit();
        let left: Vec<f64> =
            graphs.targets.iter().zip(network).map(|(t, p)| f64::from(t - p)).collect();
        let axis = |k: usize| left.iter().skip(k).step_by(dim).copied().collect::<Vec<f64>>();
        // Of the axis that most is explained of.
        let share = |columns: &[Vec<f64>]| {
            (0..dim).map(|k| explained(columns, &axis(k))).fold(0.0, f64::max)
        };
        let external = self.model.about.settings.external();
        let place = if external { 0.0 } else { share(&graphs.places()) };
        // Where runs have different numbers of bodies, the same number means different bodies.
        let mut errors = vec![0.0; if data.is_ragged() { 0 } else { bodies }];
        if !errors.is_empty() {
            for (node, left) in left.chunks_exact(dim).enumerate() {
                errors[node % bodies] += left.iter().map(|l| l.abs()).sum::<f64>();
            }
        }
        let message = |c: &ComponentSummary| {
            let law = c.law.as_ref()?;
            Some(law.loss / (unit * c.significance * MEAN_OF_NORMAL))
        };
        let (near, far) = graphs.distances(&self.inputs());
        let length = self.data.units().length;
        ResidualSummary {
            noise: data.about.origin["acceleration_error"]["median"].as_f64(),
            place,
            time: share(&waves(moments, &graphs.bodies)),
            bodies: errors.iter().map(|e| unit * e / graphs.count() as f64).collect(),
            message: summary.components.iter().filter_map(message).reduce(f64::max),
            scatter: false,
            range: format!(
                "distances of {} to {} (98 % of the pairs)",
                short(length * near),
                short(length * far)
            ),
        }
    }

    /// Graphs of the training data, and on these the sums of the laws of the kept messages, which are defined
    /// there; `None` where accelerations have no heavy tail.
    fn encounters(
        &self,
        table: &Table,
        laws: &[Laws],
        count: usize,
        seed: u64,
    ) -> Result<Option<(Graphs, Vec<f32>)>> {
        let data = self.trained()?;
        if Tails::of(&data).is_none() {
            return Ok(None);
        }
        let (trained, _) = split(&data, self.model.about.settings.seed)?;
        let graphs = Graphs::sample(&data, &trained.runs, count, seed);
        let messages = laws.iter().map(|law| law.chosen.clone()).collect();
        let sums = self.formula(table, messages, vec![]).sums(&graphs.features, &graphs.bodies);
        Ok(sums.iter().all(|sum| sum.is_finite()).then_some((graphs, sums)))
    }

    /// A formula of these expressions for the kept messages and for φv.
    fn formula(&self, table: &Table, messages: Vec<Expression>, nodes: Vec<Expression>) -> Formula {
        Formula { terms: self.terms(), components: table.components(), messages, nodes }
    }

    /// How many graphs make about as much work as `graphs` of up to eight bodies.
    fn graphs(&self, graphs: usize) -> usize {
        let pairs = self.data.bodies * (self.data.bodies - 1);
        (graphs * LARGEST_PAIRS / pairs.max(LARGEST_PAIRS)).max(FEWEST_GRAPHS)
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
        let (source, model) = (Source::Memory(Box::new(self.clone())), model.clone());
        Ok(Box::new(Bodies { source, model, data, law, unseen: OnceCell::new() }))
    }
}

impl Physics for Bodies {
    fn model(&self) -> &Model {
        &self.model
    }

    fn terms(&self) -> Terms {
        let units = self.data.scale.as_ref().and_then(VariableUnits::of_bodies);
        Terms { units, ..self.inputs().terms() }
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

    fn may_retry_with_velocities(&self) -> bool {
        let blind = self.model.about.settings.unseen.contains(&Quantity::V);
        self.foreign() && !blind
    }

    fn components(&self) -> Option<usize> {
        self.law.as_ref().map(|_| self.data.dim)
    }

    /// All but the velocities, and those components of them that the messages depend on; nothing that is the
    /// same everywhere.
    fn variables(&self, _: Wanted, velocities: bool, probe: &Probe) -> Result<Vec<String>> {
        let DataSet { dim, .. } = self.data;
        let allowed = velocities || !self.foreign();
        let mut velocities = Vec::new();
        for k in (0..2 * dim).filter(|_| allowed) {
            // Behind the positions of the receiver, and of the sender.
            let at = if k < dim { dim + k } else { self.model.shape.n_features + k };
            if probe.depends(1, |row, other| row[at] = other[at])? {
                velocities.push(k);
            }
        }
        let constant = self.constant()?;
        let mut names = Inputs { velocities, ..self.inputs() }.names();
        names.retain(|name| !constant.contains(&name.as_str()));
        Ok(names)
    }

    fn values(&self, variables: &[String], edges: &Edges) -> Vec<f32> {
        let (inputs, names) = (self.inputs(), self.terms().edge);
        let at = edges::positions(variables, &names);
        let mut values = Vec::with_capacity(edges.count() * variables.len());
        let mut all = Vec::new();
        for (receiver, sender) in pairs(edges, self.data.dim) {
            all.clear();
            inputs.values(&receiver, &sender, &mut all);
            values.extend(at.iter().map(|&k| all[k] as f32));
        }
        values
    }

    fn entry(&self, variables: &[String]) -> Map<String, Value> {
        let Inputs { dim, velocities, .. } = Inputs::of(variables);
        let entry = json!({"velocities": velocities, "dim": dim, "bodies": self.data.bodies});
        entry.as_object().cloned().unwrap_or_default()
    }

    fn label(&self, component: usize) -> String {
        component.to_string()
    }

    /// The first ones: they are in random order.
    /// Messages with a heavy tail are weighed as [`tails`] says, by their distance from the median.
    fn rows(&self, message: &[f32], _: u64) -> (Vec<usize>, Option<Vec<f32>>) {
        let message = &message[..ROWS.min(message.len())];
        ((0..message.len()).collect(), self.weights(message))
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
            let equation = law.and_then(job::own_equation).ok_or_else(|| {
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

    fn laws(&self, table: &Table, found: &[Found]) -> Vec<Laws> {
        let all = self.terms().edge;
        let law = |found: &Found| {
            let chosen = in_all(&found.chosen.expression, &table.inputs, &all);
            Laws { candidates: vec![chosen.clone()], chosen }
        };
        found.iter().map(law).collect()
    }

    /// Features and kept summed messages of one node of each graph, outputs of the network. Where accelerations
    /// have a heavy tail, networks saturate in close encounters, which laws of φv would make up for: they are searched
    /// on true accelerations and sums of the messages' laws then.
    fn node_problems(&self, at: Compute, table: &Table, laws: &[Laws]) -> Result<Vec<Problem>> {
        let graphs = self.graphs(ROWS);
        let nodes = ROWS.div_ceil(graphs).min(self.data.bodies);
        let seed = at.seed.wrapping_add(1);
        let (graphs, sums, outputs) = match self.encounters(table, laws, graphs, seed)? {
            Some((graphs, sums)) => {
                let outputs = graphs.targets.clone();
                (graphs, sums, outputs)
            }
            None => {
                let (data, runs) = self.unseen()?;
                let graphs = Graphs::sample(data, runs, graphs, seed);
                let sums = network_sums(&at.device, &self.model, &graphs, &table.kept)?;
                let outputs = graphs.network_accelerations(&at.device, &self.model)?;
                (graphs, sums, outputs)
            }
        };
        let [columns, targets] = node_table(&graphs, &sums, &outputs, nodes, at.seed);
        let names = self.terms().node_names(&table.components());
        let kept = self.node_variables(&names, &columns, &targets)?;
        let still = self.still()?;
        let problem = |(target, still): (Vec<f32>, bool)| Problem {
            names: kept.iter().map(|&k| names[k].clone()).collect(),
            columns: kept.iter().map(|&k| columns[k].clone()).collect(),
            weights: self.weights(&target),
            target: if still { vec![0.0; target.len()] } else { target },
            ..Problem::default()
        };
        Ok(targets.into_iter().zip(still).map(problem).collect())
    }

    /// The chosen laws, refitted on graphs of the training data.
    fn settle(
        &self,
        at: Compute,
        table: &Table,
        laws: Vec<Laws>,
        problems: &[Problem],
        nodes: Vec<Found>,
    ) -> Result<(Formula, f64)> {
        let names = self.terms().node_names(&table.components());
        let node = |(found, problem): (Found, &Problem)| {
            in_all(&found.chosen.expression, &problem.names, &names)
        };
        let messages = laws.into_iter().map(|law| law.chosen).collect();
        let nodes = nodes.into_iter().zip(problems).map(node).collect();
        let mut formula = self.formula(table, messages, nodes);
        let data = self.trained()?;
        let (trained, _) = split(&data, self.model.about.settings.seed)?;
        let graphs = self.graphs(REFIT_GRAPHS);
        let train = Graphs::sample(&data, &trained.runs, graphs, at.seed.wrapping_add(2));
        let loss = formula
            .refit(&train.features, &train.targets, &train.bodies, at.observer)
            .map_err(|e| match &self.source {
                Source::Folder(folder) => e.file(folder.path()),
                Source::Memory(_) => e,
            })?;
        Ok((formula, loss * self.unit()))
    }

    /// A pair force, of data that were not simulated.
    fn direct(&self, at: Compute, how: Search) -> Result<Option<(Formula, f64)>> {
        if !self.foreign() {
            return Ok(None);
        }
        let data = self.trained()?;
        let (trained, _) = split(&data, self.model.about.settings.seed)?;
        let sample = |count: usize, seed: u64| {
            Graphs::sample(&data, &trained.runs, self.graphs(count), at.seed.wrapping_add(seed))
        };
        let settings = &self.model.about.settings;
        let gone = self.constant()?;
        let allowed = |name: &str| match name.as_bytes() {
            [b'x' | b'y' | b'z'] => settings.external(),
            [b'v', ..] => !settings.unseen.contains(&Quantity::V),
            _ => !gone.contains(&name),
        };
        let first = self.model.shape.message_dim;
        let components = (first..first + self.data.dim).collect();
        let formula = Formula { terms: self.terms(), components, messages: vec![], nodes: vec![] };
        let [fitting, judging] = [4, 5].map(|seed| sample(DIRECT_GRAPHS, seed));
        let (inputs, allowed) = (&self.inputs(), &allowed);
        let accelerations =
            Accelerations { inputs, formula, allowed, fitting: &fitting, judging: &judging };
        let found = accelerations.law(at, how, &sample(REFIT_GRAPHS, 2))?;
        Ok(found.map(|(formula, loss)| (formula, loss * self.unit())))
    }

    /// Out of the distribution are random states twice as wide as initial states, where the law is known.
    fn judgement(&self, at: Compute, of: Predictor) -> Result<Judgement> {
        let (data, runs) = self.unseen()?;
        let loss = |graphs: &Graphs| -> Result<Measure> {
            let loss = match of {
                Predictor::Network => graphs.network_loss(&at.device, &self.model)?,
                Predictor::Formula(formula) => graphs.formula_loss(formula),
            };
            Ok(Measure::plain(loss * self.unit()))
        };
        let outside = self.law.as_ref().map(|law| {
            let DataSet { dim, bodies, .. } = self.data;
            loss(&Graphs::outside(law, dim, bodies, LOSS_GRAPHS, OUTSIDE_WIDTH, at.seed))
        });
        Ok(Judgement {
            test: Some(loss(&Graphs::sample(data, runs, self.graphs(LOSS_GRAPHS), at.seed))?),
            outside: outside.transpose()?,
            fitted: None,
        })
    }

    fn assess(
        &self,
        at: Compute,
        formula: Option<&Formula>,
        summary: &Summary,
    ) -> Result<Option<Conclusion>> {
        let (data, runs) = self.unseen()?;
        let (graphs, moments) =
            Graphs::dated(data, runs, self.graphs(LOSS_GRAPHS), at.seed.wrapping_add(3));
        let network = graphs.network_accelerations(&at.device, &self.model)?;
        let formula = formula.map(|f| f.accelerations(&graphs.features, &graphs.bodies));
        let leftover = self.leftover(data, &graphs, &moments, &network, summary);
        let unit = self.unit();
        let users = |a: &[f32]| a.iter().map(|&a| unit * f64::from(a)).collect::<Vec<f64>>();
        let (network, formula) = (users(&network), formula.map(|a| users(&a)));
        let predictions = Predictions {
            outputs: self.data.dim,
            targets: &users(&graphs.targets),
            network: Some(&network),
            formula: formula.as_deref(),
        };
        Ok(Some(Conclusion::new(&predictions, &leftover)))
    }

    /// Not of snapshots, which lead nowhere.
    fn roll_out(&self, at: Compute, formula: Option<&Formula>) -> Result<()> {
        let (data, runs) = self.unseen()?;
        if runs.iter().all(|&run| data.unbroken(run) < 2) {
            at.observer.note("no roll-out: runs of single frames lead nowhere");
            return Ok(());
        }
        let rollouts = rollout::integrate(
            &at.device,
            &self.model,
            formula,
            data,
            runs,
            [self.rolled_out(), rollout::FRAMES, rollout::SUBSTEPS],
            at.observer,
        )?;
        at.observer.keep("rollout.safetensors", &mut |path| rollouts.save(path))
    }
}

/// An expression in some variables, in all.
fn in_all(e: &Expression, some: &[String], all: &[String]) -> Expression {
    let at = edges::positions(some, all);
    e.substitute(|v| Some(Expression::variable(at[usize::from(v)] as u16)))
}
