//! `compose` on a graph: which pair of laws, of a message and of φv, becomes the formula.
//!
//! Pairs of candidates from the two fronts are compared where they have to work: constants refitted through
//! the sums on one part of the training space, errors on another. The composed formula is the simplest
//! whose error is not larger than the smallest by more than the jackknife error of the difference (the
//! one-standard-error rule, in space).

use super::distill::{ROWS, Run, Summary, candidates, in_all_variables, read_front, search};
use super::formula::{Formula, Nodes, node_names};
use super::graph::Graph;
use super::messages::Measured;
use super::slab;
use super::split::mean_and_jackknife;
use super::table6::measure;
use super::trainer::predict;
use crate::distill::laws::Search;
use crate::distill::pipeline::Setting;
use crate::error::{Error, Result};
use crate::formula::expression::{Expression, Weights};
use crate::ops::{edge, formula};
use crate::random::Random;
use crate::store::run::RunFolder;
use crate::symbolic::front::Entry;
use crate::symbolic::job::{self, Labels, NODE_MEMORY};
use crate::symbolic::search::Problem;

/// Training nodes on which pairs of candidates are fitted, and as many on which they are judged.
const COMPARED: usize = 3000;
/// Share of the box along x whose training nodes fit; the others judge.
const FITTED: f64 = 0.6;
const COMPARED_STREAM: u64 = 0xC0;

/// `compose`: a law for φv, the best pair of laws, its constants refitted on all training nodes.
///
/// # Errors
/// Files of the run that cannot be read; no pair of laws that is defined on all edges; `interrupted`.
pub fn compose(at: Setting, folder: &RunFolder, how: Search) -> Result<Summary> {
    let run = Run::open(folder)?;
    let Run { graph, split, .. } = &run;
    let mut summary = Summary::read(folder)?;
    let with_masses = summary.messages.with_masses();
    let Measured { kept, inputs, .. } = summary.messages.clone();
    let components: Vec<usize> = kept.iter().map(|c| c.index).collect();
    let features = graph.scaled_features();
    // Expressions of each kept message; their sums stand in for the network's, which differ by what the
    // laws leave out.
    let fronts = components
        .iter()
        .map(|k| read_front(folder, &format!("e{k}"), &inputs))
        .collect::<Result<Vec<_>>>()?;
    let mut messages: Vec<Vec<Expression>> = fronts
        .iter()
        .map(|front| {
            let entries = candidates(front);
            let law = |e: &Entry| in_all_variables(&e.expression, &inputs, &formula::VARIABLES);
            entries.iter().map(law).collect()
        })
        .collect();
    let chosen: Vec<Expression> = fronts
        .iter()
        .zip(&mut messages)
        .map(|(front, candidates)| {
            let entry = &front.entries[front.select(how.select).unwrap_or(0)];
            let law = in_all_variables(&entry.expression, &inputs, &formula::VARIABLES);
            if !candidates.contains(&law) {
                candidates.push(law.clone());
            }
            law
        })
        .collect();
    let sampled = draw(&split.train, ROWS, at.seed);
    let nodes = Nodes::new(&at.device, graph, &features, &sampled)?;
    let names = node_names(&components);
    let mut problem = node_problem(at, &run, &features, &nodes, &sampled, &chosen)?;
    problem.names = names.clone();
    if !with_masses {
        problem.names.remove(0);
        problem.columns.remove(0);
    }
    let labels = Labels {
        targets: vec!["delta".to_string()],
        stage: "node",
        memory: NODE_MEMORY,
        resume: how.resume,
    };
    let node_front = search(at, folder, how, std::slice::from_ref(&problem), &labels)?.remove(0);
    let node_laws: Vec<Expression> = candidates(&node_front)
        .iter()
        .map(|entry| in_all_variables(&entry.expression, &problem.names, &names))
        .collect();

    let left =
        |&node: &u32| f64::from(graph.positions()[3 * node as usize]) < FITTED * graph.about.edge;
    let (fitting, judging): (Vec<u32>, Vec<u32>) = split.train.iter().partition(|node| left(node));
    if fitting.is_empty() || judging.is_empty() {
        let message = "all training halos are in one part of the box: no space is left to compare formulas in";
        return Err(Error::input(message).file(graph.path()));
    }
    // Of those that judge, only such as no fitted one has for a neighbour, if there are any.
    let apart = |&node: &u32| {
        let x = f64::from(graph.positions()[3 * node as usize]);
        let (edge, radius) = (graph.about.edge, graph.about.radius);
        x > FITTED * edge + radius && x < edge - radius
    };
    let far: Vec<u32> = judging.iter().copied().filter(apart).collect();
    let judging = if far.is_empty() { judging } else { far };
    let [fitting, judging] = [fitting, judging].map(|part| draw(&part, COMPARED, at.seed));
    let fit = Nodes::new(&at.device, graph, &features, &fitting)?;
    let judge = Nodes::new(&at.device, graph, &features, &judging)?;
    let bar = at.progress.bar("compose", (messages[0].len() * node_laws.len()) as u64, "pairs", 0);
    let mut pairs: Vec<Pair> = Vec::new();
    for first in &messages[0] {
        for node in &node_laws {
            bar.add(1);
            let mut messages = chosen.clone();
            messages[0] = first.clone();
            let mut formula =
                Formula { messages, components: components.clone(), node: node.clone() };
            formula.refit(&fit).map_err(|e| e.file(folder.path()))?;
            let Some(found) = formula.predictions(&judge)? else { continue };
            let errors: Vec<f64> =
                found.iter().zip(judge.targets()).map(|(p, &t)| (f64::from(t) - p).abs()).collect();
            if errors.iter().all(|e| e.is_finite()) {
                let all = formula.messages.iter().chain([&formula.node]);
                let complexity = all.map(|e| e.complexity(&Weights::default())).sum();
                pairs.push(Pair { complexity, errors, formula });
            }
        }
    }
    drop(bar);
    let train = Nodes::new(&at.device, graph, &features, &split.train)?;
    let settled = settle(pairs, graph, &judging, &train).map_err(|e| e.file(folder.path()))?;
    let (formula, error) = settled.ok_or_else(|| {
        let message = "no pair of laws is defined on all edges of the training nodes";
        Error::input(message).file(folder.file(job::HALL_OF_FAME))
    })?;
    write_laws(folder, &formula, error)?;
    let on = |nodes: &[u32]| measure(&at.device, graph, &features, nodes, &formula);
    summary.formula =
        Some(formula.equations().iter().map(|(left, right)| format!("{left} {right}")).collect());
    summary.formula_train = Some(on(&split.train)?);
    let hidden = match split.hidden.is_empty() {
        true => None,
        false => Some(on(&split.hidden)?),
    };
    summary.formula_test = Some((on(&split.test)?, hidden));
    let found = (&run.model, &formula);
    slab::write(&at.device, graph, &features, &split.test, found, folder)?;
    summary.write(folder)?;
    Ok(summary)
}

/// Some of the nodes, each at most once.
fn draw(nodes: &[u32], count: usize, seed: u64) -> Vec<u32> {
    let mut random = Random::new(seed, COMPARED_STREAM);
    let mut nodes = nodes.to_vec();
    let count = count.min(nodes.len());
    for k in 0..count {
        let other = k + random.below(nodes.len() - k);
        nodes.swap(k, other);
    }
    nodes.truncate(count);
    nodes
}

/// The network's output on some nodes in their mass, their speed and the sums of the messages' laws, which
/// have no names yet.
fn node_problem(
    at: Setting,
    run: &Run,
    features: &[f32],
    nodes: &Nodes,
    receivers: &[u32],
    messages: &[Expression],
) -> Result<Problem> {
    let Run { model, graph, .. } = run;
    let sums = nodes.sums(messages, false)?.ok_or_else(|| {
        Error::input("the law of a message is undefined on some edge").file(graph.path())
    })?;
    let mut workspace = edge::Workspace::default();
    let target = predict(&at.device, graph, features, model, receivers, &mut workspace)?;
    let mut columns = vec![Vec::with_capacity(receivers.len()); 2 + messages.len()];
    for row in 0..receivers.len() {
        let own = nodes.own(row);
        let sums = &sums.values[row * sums.width..][..sums.width];
        for (column, value) in columns.iter_mut().zip(own.iter().chain(sums)) {
            column.push(*value as f32);
        }
    }
    Ok(Problem { columns, target, ..Problem::default() })
}

/// A pair of laws with its constants fitted.
struct Pair {
    complexity: u32,
    /// Of each judging node.
    errors: Vec<f64>,
    formula: Formula,
}

/// The simplest pair that is as good as the best one, but for the jackknife error of the difference.
fn choose(pairs: &[Pair], graph: &Graph, nodes: &[u32]) -> Option<usize> {
    let mean = |&k: &usize| pairs[k].errors.iter().sum::<f64>() / pairs[k].errors.len() as f64;
    let all = 0..pairs.len();
    let best = all.clone().min_by(|a, b| mean(a).total_cmp(&mean(b)))?;
    let as_good = |&k: &usize| {
        let both = pairs[k].errors.iter().zip(&pairs[best].errors);
        let worse: Vec<f64> = both.map(|(a, b)| a - b).collect();
        let (mean, jackknife) = mean_and_jackknife(graph, nodes, &worse);
        mean <= jackknife
    };
    let order = |&k: &usize| pairs[k].complexity;
    let simplest = all
        .filter(as_good)
        .min_by(|a, b| order(a).cmp(&order(b)).then(mean(a).total_cmp(&mean(b))));
    simplest.or(Some(best))
}

/// The chosen pair with its constants refitted on all training nodes, and its error there; the next one
/// where that is undefined, since what was defined on the nodes that judged may not be on all.
fn settle(
    mut pairs: Vec<Pair>,
    graph: &Graph,
    judging: &[u32],
    train: &Nodes,
) -> Result<Option<(Formula, f64)>> {
    while let Some(best) = choose(&pairs, graph, judging) {
        let mut formula = pairs.remove(best).formula;
        let error = formula.refit(train)?;
        if error.is_finite() {
            return Ok(Some((formula, error)));
        }
    }
    Ok(None)
}

/// The composed formula in `laws.json`.
fn write_laws(folder: &RunFolder, formula: &Formula, error: f64) -> Result<()> {
    let mut laws = job::read_laws(folder)?;
    laws.retain(|law| law["stage"] != "composed");
    let names = formula::VARIABLES.map(String::from);
    let node = node_names(&formula.components);
    let entry = |target: String, expression: &Expression, names: &[String]| {
        let complexity = expression.complexity(&Weights::default());
        let expression = expression.clone();
        let entry = Entry { complexity, loss: error, score: 0.0, expression };
        job::law(&target, "composed", &entry, names, "refit")
    };
    for (message, k) in formula.messages.iter().zip(&formula.components) {
        laws.push(entry(format!("e{k}"), message, &names));
    }
    laws.push(entry("delta".to_string(), &formula.node, &node));
    job::write_laws(folder, &laws)
}

/// The composed formula of a run.
///
/// # Errors
/// A run that has none, or one that cannot be parsed.
pub fn composed(folder: &RunFolder) -> Result<Formula> {
    let path = folder.file(job::LAWS);
    let laws = job::read_laws(folder)?;
    let text = |law: &serde_json::Value, key: &str| law[key].as_str().unwrap_or("").to_string();
    let composed: Vec<(String, String)> = laws
        .iter()
        .filter(|law| law["stage"] == "composed")
        .map(|law| (text(law, "target"), text(law, "equation")))
        .collect();
    let Some((_, node)) = composed.iter().find(|(target, _)| target == "delta") else {
        let message = "has no composed formula of an overdensity: run compose on it first";
        return Err(Error::input(message).file(path));
    };
    let bad = |e: Error| Error::input(e.message).file(&path).field("equation");
    let mut components = Vec::new();
    let mut messages = Vec::new();
    for (target, equation) in &composed {
        if let Some(index) = target.strip_prefix('e').and_then(|k| k.parse().ok()) {
            components.push(index);
            messages.push(Expression::parse(equation, &formula::VARIABLES).map_err(bad)?);
        }
    }
    let names = node_names(&components);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let node = Expression::parse(node, &names).map_err(bad)?;
    Ok(Formula { messages, components, node })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cosmology::formula::tests::random_graph;
    use crate::device::Device;

    /// A pair that is undefined on some halo is passed over, however good it was where pairs were judged.
    #[test]
    fn the_next_pair_is_taken_where_the_best_one_is_undefined() {
        let folder = tempfile::tempdir().unwrap();
        let delta: Vec<f64> = (0..80).map(|row| 0.5 + f64::from(row % 7)).collect();
        let graph = random_graph(folder.path(), &delta, 80);
        let features = graph.scaled_features();
        let all: Vec<u32> = (0..80).collect();
        let nodes = Nodes::new(&Device::cpu(), &graph, &features, &all).unwrap();
        let mut masses: Vec<f64> = (0..80).map(|row| nodes.own(row)[0]).collect();
        masses.sort_by(f64::total_cmp);
        // Half of the halos are too light for this root.
        let undefined = format!("e0 * 0.0 + (m - {}) ^ 0.5", masses[40]);
        let judging = [1, 5, 9, 33];
        let pair = |node: &str, error: f64| Pair {
            complexity: 5,
            errors: vec![error; judging.len()],
            formula: Formula::parse(&["m2"], node).unwrap(),
        };
        let chosen = |pairs: Vec<Pair>| settle(pairs, &graph, &judging, &nodes).unwrap();
        let (formula, error) =
            chosen(vec![pair(&undefined, 0.01), pair("e0 * 0.1", 0.03), pair("0.2 * m", 0.02)])
                .expect("two of them are defined");
        let text = formula.equations()[1].1.clone();
        assert!(text.contains("* m") && error.is_finite(), "{text}, {error}");
        assert!(chosen(vec![pair(&undefined, 0.01)]).is_none());
        assert!(chosen(vec![]).is_none());
    }
}
