//! Thresholds of comparisons. The loss is a step function of them, so no gradient moves them. They climb over the
//! values in the data, trying each neighbour and distant values at once.

use super::rules::Rules;
use crate::error::Result;
use crate::formula::expression::{Expression, Node, Op};
use crate::ops::expression::exact::Exact;
use crate::ops::expression::{Evaluator, Program, Rows};

/// Rounds of climbing at most.
const ROUNDS: usize = 8;

/// Positions of the constants with which something is compared.
fn thresholds(e: &Expression) -> Vec<usize> {
    let nodes = e.nodes();
    let compared = |&at: &usize| {
        matches!(nodes[at], Node::Constant(_))
            && matches!(nodes.get(at + 1), Some(Node::Op(Op::Greater | Op::Less)))
    };
    // A constant right before a comparison is its second operand: u > c, never c > u.
    (1..nodes.len()).filter(compared).collect()
}

/// The expression with the constant at `at` replaced.
fn with(e: &Expression, at: usize, value: f64) -> Expression {
    let mut nodes = e.nodes().to_vec();
    nodes[at] = Node::Constant(value);
    Expression::from_nodes(nodes)
}

/// The number with the fewest digits between two numbers.
fn between(low: f64, high: f64) -> f64 {
    let middle = 0.5 * (low + high);
    let short = |digits: usize| format!("{middle:.digits$e}").parse().unwrap_or(middle);
    (0..9).map(short).find(|m| low < *m && *m < high).unwrap_or(middle)
}

/// The indices of those constants, in the order of [`Expression::constants`].
pub(super) fn numbers(e: &Expression) -> Vec<u16> {
    let constants = |at: usize| e.nodes()[..at].iter().filter(|n| matches!(n, Node::Constant(_)));
    thresholds(e).into_iter().map(|at| constants(at).count() as u16).collect()
}

/// Replaces each threshold by the shortest number between the neighbouring values.
pub(super) fn shorten(rules: &Rules, rows: &Exact, candidate: &mut Expression) {
    for at in thresholds(candidate) {
        let Node::Constant(now) = candidate.nodes()[at] else { continue };
        let compared = rules.in_columns(candidate, at - 1);
        let (mut low, mut high) = (f64::NEG_INFINITY, f64::INFINITY);
        for value in rows.values(&Program::new(&compared), &compared.constants()) {
            match value {
                value if value < now => low = low.max(value),
                value if value > now => high = high.min(value),
                // On which side an equal value belongs depends on the comparison.
                _ => (low, high) = (f64::NEG_INFINITY, f64::INFINITY),
            }
        }
        if low.is_finite() && high.is_finite() {
            *candidate = with(candidate, at, between(low, high));
        }
    }
}

/// Moves the thresholds of a candidate to where its loss on `rows` is smallest.
pub(super) fn settle(
    rules: &Rules,
    evaluator: &Evaluator,
    rows: &Rows,
    candidate: &mut Expression,
) -> Result<()> {
    for at in thresholds(candidate) {
        let compared = rules.in_columns(candidate, at - 1);
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
            let losses = rules.score(evaluator, rows, &trials)?;
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
    use crate::random::Random;
    use crate::symbolic::search::Problem;
    use crate::symbolic::settings::Settings;
    use crate::symbolic::template::Template;

    #[test]
    fn thresholds_are_short_numbers_between_two() {
        assert_eq!(between(1.9996, 2.0003), 2.0);
        assert_eq!(between(-0.13, -0.11), -0.12);
        assert_eq!(between(1.0, 1.0 + 1e-12), 1.0 + 0.5e-12);
    }

    /// The part's variable is not the table's first column.
    #[test]
    fn thresholds_of_a_part_lie_among_the_values_of_its_operand() {
        let names = ["a", "b"].map(String::from);
        let a: Vec<f32> = (0..60).map(|row| (row % 7) as f32 - 3.0).collect();
        let b: Vec<f32> = (0..60).map(|row| 10.0 + 0.5 * row as f32).collect();
        let y = |(a, b): (&f32, &f32)| a * if *b > 20.3 { 2.0 } else { 5.0 };
        let problem = Problem {
            target: a.iter().zip(&b).map(y).collect(),
            template: Some(
                Template::of_table("f(b) * a", &names, &[a.clone(), b.clone()], &[]).unwrap(),
            ),
            names: names.to_vec(),
            columns: vec![a, b],
            ..Problem::default()
        };
        let settings = Settings::default();
        let rules = Rules::new(&problem, &settings, &mut Random::new(0, 0)).unwrap();
        let rows = rules.rows().unwrap();
        let mut candidate = Expression::parse("IF(v > 13, 2, 5)", &["v"]).unwrap();
        settle(&rules, &Evaluator::cpu(), &rows, &mut candidate).unwrap();
        let threshold = candidate.constants()[0];
        assert!(threshold > 20.0 && threshold < 20.5, "{threshold}");
        // Operands that do not have the number of any column.
        let text = "f(a, b, a * b)";
        let template = Template::of_table(text, &names, &problem.columns, &[]).unwrap();
        let problem = Problem { template: Some(template), ..problem.clone() };
        let rules = Rules::new(&problem, &settings, &mut Random::new(0, 0)).unwrap();
        let mut candidate = Expression::parse("u + v + (w > 2)", &["u", "v", "w"]).unwrap();
        settle(&rules, &Evaluator::cpu(), &rules.rows().unwrap(), &mut candidate).unwrap();
    }

    #[test]
    fn only_second_operands_of_comparisons_are_thresholds() {
        let e = Expression::parse("IF(x > 2, 3, x * 4) + (x < 5) * 6", &["x"]).unwrap();
        let values = thresholds(&e).into_iter().map(|at| e.nodes()[at]);
        assert_eq!(values.collect::<Vec<_>>(), [Node::Constant(2.0), Node::Constant(5.0)]);
    }
}
