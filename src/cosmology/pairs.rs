//! The choice of a pair of laws, of a message and of φv, as the formula of a graph.
//!
//! Pairs of candidates from the two fronts are compared as they will be used: constants refitted through the
//! sums on one part of the training space, errors measured on another. The composed formula is the simplest
//! whose error exceeds the smallest by at most the jackknife error of the difference (the one-standard-error
//! rule, in space).

use super::formula::{Nodes, terms_in};
use super::graph::Graph;
use super::split::mean_and_jackknife;
use crate::distill::formula::Formula;
use crate::distill::run::{Compute, Laws};
use crate::error::{Error, Result};
use crate::formula::expression::Expression;
use crate::observer::Observer;
use crate::random::Random;
use crate::store::run::RunFolder;
use crate::symbolic::front::{Entry, Front};
use crate::symbolic::job;

/// Candidates taken from each front.
const CANDIDATES: usize = 6;
/// Candidates have at most this many times the smallest loss of their front.
const LOSS: f64 = 1.5;
/// Training nodes on which pairs of candidates are fitted, and also the number on which they are judged.
const COMPARED: usize = 3000;
/// Training nodes in this fraction of the box along x are used for fitting, the others for judging.
const FITTED: f64 = 0.6;
const COMPARED_STREAM: u64 = 0xC0;

/// The laws of a front worth composing, simplest first, rewritten by `in_all`.
pub(super) fn candidates(
    front: &Front,
    in_all: impl Fn(&Expression) -> Expression,
) -> Vec<Expression> {
    let limit = front.entries.last().map_or(0.0, |entry| LOSS * entry.loss);
    let good = front.entries.iter().filter(|entry| entry.loss <= limit);
    good.take(CANDIDATES).map(|Entry { expression, .. }| in_all(expression)).collect()
}

/// The best pair of a law of the first message and one of `nodes`, with its constants refitted on all training
/// nodes, and its error there.
pub(super) fn settle(
    at: Compute,
    graph: &Graph,
    train: &[u32],
    components: Vec<usize>,
    laws: &[Laws],
    nodes: &[Expression],
    folder: Option<&RunFolder>,
) -> Result<(Formula, f64)> {
    let place = |e: Error| match folder {
        Some(folder) => e.file(folder.path()),
        None => e,
    };
    let features = graph.scaled_features();
    let left =
        |&node: &u32| f64::from(graph.positions()[3 * node as usize]) < FITTED * graph.about.edge;
    let (fitting, judging): (Vec<u32>, Vec<u32>) = train.iter().partition(|node| left(node));
    if fitting.is_empty() || judging.is_empty() {
        let message = "all training halos are in one part of the box, which leaves no space for comparing formulas";
        return Err(Error::input(message).file(graph.path()));
    }
    // Of the judging nodes, use those without a neighbour among the fitting ones, if there are any.
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
    let first = &laws[0].candidates;
    let bar = at.observer.bar("compose", (first.len() * nodes.len()) as u64, "pairs", 0);
    let mut pairs: Vec<Pair> = Vec::new();
    for message in first {
        for node in nodes {
            bar.add(1);
            let mut messages: Vec<_> = laws.iter().map(|law| law.chosen.clone()).collect();
            messages[0] = message.clone();
            let (terms, components) = (terms_in(&graph.about.scales), components.clone());
            let mut formula = Formula { terms, components, messages, nodes: vec![node.clone()] };
            formula.refit_on(&fit, at.observer).map_err(place)?;
            let Some(found) = formula.predictions(&judge)? else { continue };
            let errors = judge.errors(&found);
            if errors.iter().all(|e| e.is_finite()) {
                pairs.push(Pair { complexity: formula.complexity(), errors, formula });
            }
        }
    }
    drop(bar);
    let train = Nodes::new(&at.device, graph, &features, train)?;
    let settled = last(pairs, graph, &judging, &train, at.observer).map_err(place)?;
    settled.ok_or_else(|| {
        let message = "no pair of laws is defined on all edges of the training nodes";
        match folder {
            Some(folder) => Error::input(message).file(folder.file(job::HALL_OF_FAME)),
            None => Error::input(message),
        }
    })
}

/// Some of the nodes, each at most once.
pub(super) fn draw(nodes: &[u32], count: usize, seed: u64) -> Vec<u32> {
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

/// A pair of laws with its constants fitted.
struct Pair {
    complexity: u32,
    /// For each judging node.
    errors: Vec<f64>,
    formula: Formula,
}

/// The simplest pair as good as the best one within the jackknife error of the difference.
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

/// The chosen pair with its constants refitted on all training nodes, and its error there. A pair defined on the
/// judging nodes may be undefined on others; then the next one is taken.
fn last(
    mut pairs: Vec<Pair>,
    graph: &Graph,
    judging: &[u32],
    train: &Nodes,
    observer: &dyn Observer,
) -> Result<Option<(Formula, f64)>> {
    while let Some(best) = choose(&pairs, graph, judging) {
        let mut formula = pairs.remove(best).formula;
        let error = formula.refit_on(train, observer)?;
        if error.is_finite() {
            return Ok(Some((formula, error)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cosmology::formula::{parse, tests::random_graph};
    use crate::device::Device;

    /// A pair that is undefined on some halo is passed over, however small its error on the judging nodes.
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
            formula: parse(&["m2"], node).unwrap(),
        };
        let chosen = |pairs: Vec<Pair>| last(pairs, &graph, &judging, &nodes, &()).unwrap();
        let (formula, error) =
            chosen(vec![pair(&undefined, 0.01), pair("e0 * 0.1", 0.03), pair("0.2 * m", 0.02)])
                .expect("two of them are defined");
        let text = formula.equations()[1].clone();
        assert!(text.contains("* m") && error.is_finite(), "{text}, {error}");
        assert!(chosen(vec![pair(&undefined, 0.01)]).is_none());
        assert!(chosen(vec![]).is_none());
    }
}
