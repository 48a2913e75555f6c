//! Expressions: what the search evolves, what laws are written in, what `--potential` takes.
//!
//! An expression is a flat postfix list of nodes: children stand before their operator, so the last
//! node is the root, and a sub-tree is a contiguous range. Everything here walks that list once with
//! a stack and never recurses, so that a long sum cannot overflow anything.

use serde::{Deserialize, Serialize};

pub use super::operator::Op;
use crate::error::{Error, Result};

/// One node of an expression.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Node {
    /// A number; the search fits it.
    Constant(f64),
    /// The value of a variable, by its position in the table's columns.
    Variable(u16),
    /// An operator on the 1–3 sub-trees before it.
    Op(Op),
}

impl Node {
    /// Number of operands: 0 for a leaf.
    pub fn arity(self) -> usize {
        match self {
            Node::Op(op) => op.arity(),
            _ => 0,
        }
    }
}

/// Complexity of each kind of node (docs/design.md §5).
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    /// Complexity of each operator, by operator number.
    pub op: [u16; Op::ALL.len()],
    /// Complexity of a constant.
    pub constant: u16,
    /// Complexity of a variable.
    pub variable: u16,
    /// Complexity of the first variables, where it differs.
    pub variables: Vec<u16>,
    /// Bodies of definitions that count as one node of the given complexity, operands not included.
    pub definitions: Vec<(Expression, u16)>,
}

impl Default for Weights {
    /// Those in the operators' rows, 1 for each leaf.
    fn default() -> Self {
        let op = Op::ALL.map(|op| op.row().complexity);
        Weights { op, constant: 1, variable: 1, variables: Vec::new(), definitions: Vec::new() }
    }
}

impl Weights {
    /// Complexity of one node.
    pub fn of(&self, node: Node) -> u32 {
        u32::from(match node {
            Node::Constant(_) => self.constant,
            Node::Variable(v) => {
                self.variables.get(usize::from(v)).copied().unwrap_or(self.variable)
            }
            Node::Op(op) => self.op[op as usize],
        })
    }
}

/// An expression in postfix order. Never empty, always well-formed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Expression {
    nodes: Vec<Node>,
}

impl Expression {
    /// The expression with these `nodes` in postfix order; an error if they do not form one.
    pub fn new(nodes: Vec<Node>) -> Result<Self> {
        let mut depth = 0usize;
        for node in &nodes {
            match depth.checked_sub(node.arity()) {
                Some(rest) => depth = rest + 1,
                None => return Err(Error::input("an operator lacks an operand")),
            }
        }
        if depth != 1 {
            return Err(Error::input(format!("{depth} expressions where one is needed")));
        }
        Ok(Expression { nodes })
    }

    /// The same, for nodes known to be well-formed.
    pub(crate) fn from_nodes(nodes: Vec<Node>) -> Self {
        debug_assert!(Expression::new(nodes.clone()).is_ok(), "{nodes:?}");
        Expression { nodes }
    }

    /// A number.
    pub fn constant(value: f64) -> Self {
        Expression { nodes: vec![Node::Constant(value)] }
    }

    /// A variable, by its position.
    pub fn variable(index: u16) -> Self {
        Expression { nodes: vec![Node::Variable(index)] }
    }

    /// `op` applied to `operands`, as many as its arity.
    pub fn apply(op: Op, operands: &[Expression]) -> Self {
        assert_eq!(op.arity(), operands.len(), "operands of {op:?}");
        let mut nodes: Vec<Node> = operands.iter().flat_map(|e| e.nodes.iter().copied()).collect();
        nodes.push(Node::Op(op));
        Expression { nodes }
    }

    /// The nodes, children before their operator.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The operator or leaf at the root.
    pub fn root(&self) -> Node {
        self.nodes[self.nodes.len() - 1]
    }

    /// The number, if the expression is just a constant.
    pub fn as_constant(&self) -> Option<f64> {
        match self.nodes[..] {
            [Node::Constant(value)] => Some(value),
            _ => None,
        }
    }

    /// Position of the first node of the sub-tree with its root at `root`.
    pub fn start(&self, root: usize) -> usize {
        start(&self.nodes, root)
    }

    /// The constants, in the order of the nodes.
    pub fn constants(&self) -> Vec<f64> {
        let constant = |node: &Node| match *node {
            Node::Constant(value) => Some(value),
            _ => None,
        };
        self.nodes.iter().filter_map(constant).collect()
    }

    /// Replaces the constants, in the order of the nodes; there must be as many as [`Expression::constants`] gives.
    pub fn set_constants(&mut self, values: &[f64]) {
        let mut values = values.iter();
        for node in &mut self.nodes {
            if let Node::Constant(value) = node {
                *value = *values.next().expect("a value for each constant");
            }
        }
    }

    /// True if the variable occurs.
    pub fn depends_on(&self, variable: u16) -> bool {
        self.nodes.contains(&Node::Variable(variable))
    }

    /// Sum of the weights of the nodes; a body listed in [`Weights::definitions`] counts as one.
    pub fn complexity(&self, weights: &Weights) -> u32 {
        if weights.definitions.is_empty() {
            return self.nodes.iter().map(|&node| weights.of(node)).sum();
        }
        let mut sums: Vec<u32> = Vec::with_capacity(self.nodes.len());
        for (at, &node) in self.nodes.iter().enumerate() {
            let whole = weights.definitions.iter().find_map(|(body, weight)| {
                let operands = self.operands_of(body, at)?;
                Some(u32::from(*weight) + operands.iter().map(|&o| sums[o]).sum::<u32>())
            });
            let mut operand = at;
            let mut sum = weights.of(node);
            for _ in 0..node.arity() {
                sum += sums[operand - 1];
                operand = self.start(operand - 1);
            }
            sums.push(whole.unwrap_or(sum));
        }
        sums[sums.len() - 1]
    }

    /// If the sub-tree at `root` is `body` with operands in place of its variables: the roots of these operands. Any
    /// constant matches any other.
    fn operands_of(&self, body: &Expression, root: usize) -> Option<Vec<usize>> {
        let mut operands: Vec<Option<usize>> = Vec::new();
        let mut left = vec![(body.nodes.len() - 1, root)];
        while let Some((in_body, here)) = left.pop() {
            match (body.nodes[in_body], self.nodes[here]) {
                (Node::Variable(v), _) => {
                    let v = usize::from(v);
                    if operands.len() <= v {
                        operands.resize(v + 1, None);
                    }
                    match operands[v] {
                        Some(bound) if !self.same(bound, here) => return None,
                        _ => operands[v] = Some(here),
                    }
                }
                (Node::Constant(_), Node::Constant(_)) => {}
                (Node::Op(a), Node::Op(b)) if a == b => {
                    let (mut x, mut y) = (in_body, here);
                    for _ in 0..a.arity() {
                        left.push((x - 1, y - 1));
                        (x, y) = (body.start(x - 1), self.start(y - 1));
                    }
                }
                _ => return None,
            }
        }
        Some(operands.into_iter().flatten().collect())
    }

    /// True if the sub-trees at two roots are the same.
    fn same(&self, a: usize, b: usize) -> bool {
        self.nodes[self.start(a)..=a] == self.nodes[self.start(b)..=b]
    }

    /// The expression with variables replaced by expressions, where `by` gives one.
    pub fn substitute(&self, by: impl Fn(u16) -> Option<Expression>) -> Expression {
        let mut nodes = Vec::with_capacity(self.nodes.len());
        for &node in &self.nodes {
            let replaced = match node {
                Node::Variable(v) => by(v),
                _ => None,
            };
            match replaced {
                Some(e) => nodes.extend_from_slice(&e.nodes),
                None => nodes.push(node),
            }
        }
        Expression { nodes }
    }

    /// Longest path from the root to a leaf, in nodes.
    pub fn depth(&self) -> usize {
        self.fold(|_, operands: &[usize]| 1 + operands.iter().max().copied().unwrap_or(0))
    }

    /// The value where variable k is `values[k]`; NaN if any intermediate value is not finite.
    pub fn eval(&self, values: &[f64]) -> f64 {
        let mut small = [0.0; 64];
        let mut large;
        let stack = if self.nodes.len() <= small.len() {
            &mut small[..]
        } else {
            large = vec![0.0; self.nodes.len()];
            &mut large[..]
        };
        let mut top = 0;
        for &node in &self.nodes {
            let value = match node {
                Node::Constant(value) => value,
                Node::Variable(index) => values[usize::from(index)],
                Node::Op(op) => {
                    top -= op.arity();
                    op.apply(&stack[top..top + op.arity()])
                }
            };
            if !value.is_finite() {
                return f64::NAN;
            }
            stack[top] = value;
            top += 1;
        }
        stack[0]
    }

    /// Computes a value for each node from those of its operands, up to the root.
    pub(crate) fn fold<T>(&self, mut combine: impl FnMut(Node, &[T]) -> T) -> T {
        let mut stack: Vec<T> = Vec::with_capacity(16);
        for &node in &self.nodes {
            let operands = stack.len() - node.arity();
            let value = combine(node, &stack[operands..]);
            stack.truncate(operands);
            stack.push(value);
        }
        stack.pop().expect("never empty")
    }
}

/// Position of the first node of the sub-tree with its root at `root`.
pub(crate) fn start(nodes: &[Node], root: usize) -> usize {
    let mut missing = 1;
    let mut at = root + 1;
    while missing > 0 {
        at -= 1;
        missing = missing + nodes[at].arity() - 1;
    }
    at
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// This many cases, the same on every run.
    pub(crate) fn cases(cases: u32) -> ProptestConfig {
        let rng_seed = proptest::test_runner::RngSeed::Fixed(1);
        ProptestConfig { cases, rng_seed, failure_persistence: None, ..ProptestConfig::default() }
    }

    /// Any expression of three variables, with constants of the kind that a search holds.
    pub(crate) fn any_expression() -> impl Strategy<Value = Expression> {
        let leaf = prop_oneof![
            (0u16..3).prop_map(Expression::variable),
            (-4i32..5).prop_map(|c| Expression::constant(f64::from(c) / 2.0)),
            (-1e3f64..1e3).prop_map(Expression::constant),
            any::<f64>().prop_filter("finite", |c| c.is_finite()).prop_map(Expression::constant),
        ];
        leaf.prop_recursive(6, 40, 3, |inner| {
            (0..Op::ALL.len(), prop::collection::vec(inner, 3)).prop_map(|(op, operands)| {
                let op = Op::ALL[op];
                Expression::apply(op, &operands[..op.arity()])
            })
        })
    }

    #[test]
    fn evaluates_with_the_rules_of_the_design() {
        let eval = |text: &str, x: f64| Expression::parse(text, &["x"]).unwrap().eval(&[x]);
        assert_eq!(eval("2 + 3 * x ^ 2 ^ 0", 5.0), 17.0);
        assert_eq!(eval("-x^2", 3.0), -9.0);
        assert_eq!(eval("(x > 1) + (x < 1)", 2.0), 1.0);
        assert_eq!(eval("IF(x, 3, 4)", 0.0), 4.0);
        assert_eq!(eval("IF(x, 3, 4)", 1e-9), 3.0);
        assert!(eval("IF(1, 3, log(x))", -1.0).is_nan(), "both branches must be finite");
        assert!(eval("x ^ 0.5", -1.0).is_nan());
        assert_eq!(eval("x ^ 3", -2.0), -8.0);
        assert!(eval("exp(x) * 0", 1e4).is_nan());
        assert!(eval("min(1, x / 0)", 1.0).is_nan());
    }

    #[test]
    fn malformed_nodes_are_refused() {
        assert!(Expression::new(vec![]).is_err());
        assert!(Expression::new(vec![Node::Op(Op::Exp)]).is_err());
        assert!(Expression::new(vec![Node::Variable(0), Node::Variable(1)]).is_err());
    }

    #[test]
    fn sub_trees_are_ranges() {
        let e = Expression::parse("a * (b - 2) + IF(a, b, 3)", &["a", "b"]).unwrap();
        let root = e.nodes().len() - 1;
        assert_eq!(e.start(root), 0);
        assert_eq!(e.start(root - 1), 5);
        assert_eq!(e.depth(), 4);
        assert_eq!(e.complexity(&Weights::default()), 12);
    }

    proptest! {
        #![proptest_config(cases(300))]
        #[test]
        fn constants_are_set_in_order(mut e in any_expression()) {
            let negated: Vec<f64> = e.constants().iter().map(|c| -c).collect();
            e.set_constants(&negated);
            prop_assert_eq!(e.constants(), negated);
        }
    }
}
