//! Thresholds of comparisons: the loss is a step function of them, so that no gradient moves them.
//! They climb over the values that the data have, the way to each neighbour and to far ones at once.

use super::expression::{Expression, Node, Op};
use super::rules::Rules;
use crate::device::Device;
use crate::error::Result;
use crate::ops::expression::Rows;

/// Rounds of climbing at most.
const ROUNDS: usize = 8;

/// Positions of the constants that something is compared with.
fn thresholds(e: &Expression) -> Vec<usize> {
    let nodes = e.nodes();
    let compared = |&at: &usize| {
        matches!(nodes[at], Node::Constant(_))
            && matches!(nodes.get(at + 1), Some(Node::Op(Op::Greater | Op::Less)))
    };
    // A constant before a comparison is its second operand; u > c, and never c > u.
    (1..nodes.len()).filter(compared).collect()
}

/// The expression with the constant at `at` replaced.
fn with(e: &Expression, at: usize, value: f64) -> Expression {
    let mut nodes = e.nodes().to_vec();
    nodes[at] = Node::Constant(value);
    Expression::from_nodes(nodes)
}

/// The number of fewest digits between two.
fn between(low: f64, high: f64) -> f64 {
    let middle = 0.5 * (low + high);
    let short = |digits: usize| format!("{middle:.digits$e}").parse().unwrap_or(middle);
    (0..9).map(short).find(|m| low < *m && *m < high).unwrap_or(middle)
}

/// Moves the thresholds of a candidate to where its loss on `rows` is smallest.
pub(super) fn settle(
    rules: &Rules,
    device: &Device,
    rows: &Rows,
    candidate: &mut Expression,
) -> Result<()> {
    for at in thresholds(candidate) {
        let compared = candidate.subtree(at - 1);
        let mut values: Vec<f64> =
            (0..rows.rows()).map(|row| compared.eval(&rows.row(row))).collect();
        values.retain(|v| v.is_finite());
        values.sort_by(f64::total_cmp);
        values.dedup();
        if values.len() < 2 {
            continue;
        }
        let gap = |k: usize| between(values[k], values[k + 1]);
        let last = values.len() - 2;
        for _ in 0..ROUNDS {
            let Node::Constant(now) = candidate.nodes()[at] else { break };
            let here = values.partition_point(|v| *v <= now).clamp(1, last + 1) - 1;
            let mut places = vec![here];
            let mut far = 1;
            while far <= last {
                places.extend(here.checked_sub(far));
                places.extend(Some(here + far).filter(|k| *k <= last));
                far *= 2;
            }
            let mut trials: Vec<Expression> =
                places.iter().map(|&k| with(candidate, at, gap(k))).collect();
            trials.push(candidate.clone());
            let losses = rules.score(device, rows, &trials)?;
            let best = (0..trials.len()).min_by(|&a, &b| losses[a].total_cmp(&losses[b]));
            let best = best.expect("one at least");
            if losses[best] >= losses[trials.len() - 1] {
                break;
            }
            *candidate = trials.swap_remove(best);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_short_numbers_between_two() {
        assert_eq!(between(1.9996, 2.0003), 2.0);
        assert_eq!(between(-0.13, -0.11), -0.12);
        assert_eq!(between(1.0, 1.0 + 1e-12), 1.0 + 0.5e-12);
    }

    #[test]
    fn only_second_operands_of_comparisons_are_thresholds() {
        let e = Expression::parse("IF(x > 2, 3, x * 4) + (x < 5) * 6", &["x"]).unwrap();
        let values = thresholds(&e).into_iter().map(|at| e.nodes()[at]);
        assert_eq!(values.collect::<Vec<_>>(), [Node::Constant(2.0), Node::Constant(5.0)]);
    }
}
