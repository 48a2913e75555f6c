//! The settings of a search: the language of its formulas, what it minimises, and when it stops.

use serde::{Deserialize, Serialize};

use super::mutate::KINDS;
use super::shape::Shape;
use crate::formula::definition::Definition;
use crate::formula::expression::{Expression, Node, Op, Weights};
use crate::ops::expression::Loss;

/// Settings of a search.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The operators of expressions.
    pub operators: Vec<Op>,
    /// User-defined operators: the search inserts the whole body.
    pub definitions: Vec<Definition>,
    /// Complexity of each kind of node.
    pub weights: Weights,
    /// The loss to minimise.
    pub loss: Loss,
    /// If given, minimised instead: the mean over the rows of an expression of prediction (variable 0), target (1) and
    /// weight (2), nonnegative everywhere.
    pub row_loss: Option<Expression>,
    /// Largest complexity of a formula.
    pub max_complexity: u32,
    /// Share of the search over which the largest complexity grows from 3 to `max_complexity`.
    pub warm_up: f64,
    /// What formulas may not contain.
    pub constraints: Constraints,
    /// What is known of the law as a function.
    pub shapes: Vec<Shape>,
    /// Weight of each kind of mutation, in the order of [`KINDS`].
    pub mutations: [f64; KINDS.len()],
    /// Rows that the islands see between two synchronisations.
    pub batch_rows: usize,
    /// Number of expressions kept for each complexity.
    pub keep: usize,
    /// Stop after this many candidates for each problem.
    pub evaluations: Option<u64>,
    /// Stop after this many seconds in all.
    pub seconds: Option<f64>,
    /// A problem is finished when its smallest loss is at most this.
    pub target_loss: Option<f64>,
    /// Islands of each problem.
    pub islands: usize,
    /// Seed of everything random.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        let operators = [Op::Add, Op::Sub, Op::Mul, Op::Div, Op::Pow, Op::Exp, Op::Log];
        Settings {
            operators: [&operators[..], &[Op::Greater, Op::Less, Op::If]].concat(),
            definitions: Vec::new(),
            weights: Weights::default(),
            loss: Loss::Mae,
            row_loss: None,
            max_complexity: 30,
            warm_up: 0.0,
            constraints: Constraints::default(),
            shapes: Vec::new(),
            mutations: KINDS.map(|k| k.1),
            batch_rows: 512,
            keep: 1,
            evaluations: None,
            seconds: None,
            target_loss: None,
            islands: 8,
            seed: 0,
        }
    }
}

/// The smallest limit of a warm-up.
const FIRST_LIMIT: u32 = 3;

impl Settings {
    /// True if + and · are available to write a scale and an offset.
    pub(super) fn scaled(&self) -> bool {
        self.operators.contains(&Op::Add) && self.operators.contains(&Op::Mul)
    }

    /// The largest complexity after a share of the search, 0 to 1.
    pub(super) fn limit(&self, share: f64) -> u32 {
        if share >= self.warm_up {
            return self.max_complexity;
        }
        let room = f64::from(self.max_complexity.saturating_sub(FIRST_LIMIT));
        (FIRST_LIMIT + (room * share / self.warm_up) as u32).min(self.max_complexity)
    }
}

/// What formulas may not contain.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Constraints {
    /// Nodes on the longest path from the root to a leaf.
    pub max_depth: Option<usize>,
    /// Operand `.1` (from 0) of operator `.0` has at most complexity `.2`.
    pub sizes: Vec<(Op, usize, u32)>,
    /// Below operator `.0` there are at most `.2` of operator `.1` on any path to a leaf.
    pub nested: Vec<(Op, Op, usize)>,
}

impl Constraints {
    /// True if `e` satisfies all of them.
    pub fn allow(&self, e: &Expression, weights: &Weights) -> bool {
        self.max_depth.is_none_or(|limit| e.depth() <= limit)
            && (self.sizes.is_empty() || self.sizes_allow(e, weights))
            && self.nested.iter().all(|&(outer, inner, most)| nesting(e, outer, inner) <= most)
    }

    fn sizes_allow(&self, e: &Expression, weights: &Weights) -> bool {
        e.nodes().iter().enumerate().all(|(at, node)| {
            let Node::Op(op) = *node else { return true };
            let limits: Vec<_> = self.sizes.iter().filter(|s| s.0 == op).collect();
            if limits.is_empty() {
                return true;
            }
            let operands = e.subtree(at).operands();
            limits.iter().all(|&&(_, k, most)| {
                operands.get(k).is_none_or(|operand| operand.complexity(weights) <= most)
            })
        })
    }
}

/// The most `inner` operators on any path from an `outer` one (not counted) to a leaf.
fn nesting(e: &Expression, outer: Op, inner: Op) -> usize {
    // For each node: the most `inner` on a path from it (counting itself), and the answer so far.
    e.fold(|node, operands: &[(usize, usize)]| {
        let below = operands.iter().map(|o| o.0).max().unwrap_or(0);
        let found = operands.iter().map(|o| o.1).max().unwrap_or(0);
        let found = if node == Node::Op(outer) { found.max(below) } else { found };
        (below + usize::from(node == Node::Op(inner)), found)
    })
    .1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Expression {
        Expression::parse(text, &["x", "y"]).unwrap()
    }

    #[test]
    fn constraints_refuse_what_they_name() {
        let weights = Weights::default();
        let nested = Constraints { nested: vec![(Op::Exp, Op::Exp, 0)], ..Constraints::default() };
        assert!(nested.allow(&parse("exp(x) + exp(y)"), &weights));
        assert!(!nested.allow(&parse("exp(x + exp(y))"), &weights));
        let once = Constraints { nested: vec![(Op::Sin, Op::Cos, 1)], ..Constraints::default() };
        assert!(once.allow(&parse("sin(cos(x) + cos(y))"), &weights), "only one on each path");
        assert!(!once.allow(&parse("sin(x * cos(x + cos(y)))"), &weights));
        let power = Constraints { sizes: vec![(Op::Pow, 1, 1)], ..Constraints::default() };
        assert!(power.allow(&parse("(x + y)^2"), &weights));
        assert!(!power.allow(&parse("2^(x + y)"), &weights));
        let depth = Constraints { max_depth: Some(3), ..Constraints::default() };
        assert!(depth.allow(&parse("x * y + x"), &weights));
        assert!(!depth.allow(&parse("(x * y + x) / y"), &weights));
    }

    #[test]
    fn the_limit_warms_up() {
        let settings = Settings { warm_up: 0.5, max_complexity: 23, ..Settings::default() };
        assert_eq!([0.0, 0.25, 0.5, 1.0].map(|share| settings.limit(share)), [3, 13, 23, 23]);
        assert_eq!(Settings::default().limit(0.0), 30);
    }
}
