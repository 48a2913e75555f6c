//! How expressions change: the mutations of regularised evolution (PySR's kinds and a few more) and
//! crossover.
//!
//! Everything works on the postfix list: a sub-tree is a range, and a change replaces one range by another.

use super::settings::Settings;
use crate::choice;
use crate::formula::definition::Definition;
use crate::formula::expression::{Expression, Node, Op};
use crate::random::Random;

/// What expressions are made of.
#[derive(Clone, Debug)]
pub struct Grammar {
    /// Operators and the probability to draw each, by arity − 1.
    operators: [Vec<(Op, f64)>; 3],
    variables: usize,
    /// Some values of each variable, from which thresholds of comparisons are drawn.
    samples: Vec<Vec<f32>>,
    compares: Vec<Op>,
    /// True if both + and * are available.
    combines: bool,
    /// User-defined operators; one is drawn as often as an operator of complexity 1.
    definitions: Vec<Definition>,
    kinds: [f64; KINDS.len()],
    /// True if * is available; and /.
    multiplies: bool,
    divides: bool,
}

/// Kinds of mutation with their weights. Constants are fitted after each mutation, so changing numbers has little
/// weight.
pub const KINDS: [(Kind, f64); 13] = [
    (Kind::Constant, 0.4),
    (Kind::Operator, 1.0),
    (Kind::Variable, 1.0),
    (Kind::Swap, 0.3),
    (Kind::Rotate, 1.0),
    (Kind::Grow, 1.5),
    (Kind::Insert, 2.0),
    (Kind::Delete, 2.0),
    (Kind::Graft, 1.0),
    (Kind::Hoist, 0.3),
    (Kind::Combine, 1.5),
    (Kind::Multiply, 0.7),
    (Kind::Random, 0.3),
];

choice! {
    /// A kind of mutation.
    pub enum Kind {
        /// A constant times a random factor, rarely with a change of sign.
        Constant = "constant",
        /// An operator becomes another of the same arity.
        Operator = "operator",
        /// A variable becomes another.
        Variable = "variable",
        /// The operands of a binary operator are swapped.
        Swap = "swap",
        /// a ∘ (b • c) becomes (a ∘ b) • c, or back.
        Rotate = "rotate",
        /// A leaf becomes an operator on leaves, or an operator is put above the root.
        Grow = "grow",
        /// An operator is put above any node.
        Insert = "insert",
        /// An operator is replaced by one of its operands.
        Delete = "delete",
        /// Any sub-tree becomes a small random one.
        Graft = "graft",
        /// A sub-tree becomes the whole.
        Hoist = "hoist",
        /// A variable v becomes v + c·u: linear combinations of two variables at once.
        Combine = "combine",
        /// A sub-tree is multiplied by a product of two variables, where neither helps alone.
        Multiply = "multiply",
        /// A new random expression.
        Random = "random",
    }
}

/// An operator to be put above something.
#[derive(Clone, Copy)]
enum Drawn {
    Op(Op),
    /// One of the definitions.
    Own(usize),
}

impl Grammar {
    /// Expressions of the operators of `settings` on variables; `samples` are some values of each variable.
    pub fn new(settings: &Settings, samples: Vec<Vec<f32>>) -> Self {
        let operators = &settings.operators;
        let mut by_arity = [const { Vec::new() }; 3];
        for &op in operators {
            // A costly operator is drawn less often than a cheap one.
            let weight = 1.0 / f64::from(settings.weights.op[op as usize].max(1));
            by_arity[op.arity() - 1].push((op, weight));
        }
        let compares = [Op::Greater, Op::Less].into_iter().filter(|c| operators.contains(c));
        Grammar {
            operators: by_arity,
            variables: samples.len(),
            samples,
            definitions: settings.definitions.clone(),
            kinds: settings.mutations,
            compares: compares.collect(),
            multiplies: operators.contains(&Op::Mul),
            divides: operators.contains(&Op::Div),
            combines: [Op::Add, Op::Mul].iter().all(|op| operators.contains(op)),
        }
    }

    /// A random variable or constant.
    fn leaf(&self, random: &mut Random) -> Expression {
        if random.uniform() < 0.75 {
            self.variable(random)
        } else {
            Expression::constant(random.normal())
        }
    }

    fn variable(&self, random: &mut Random) -> Expression {
        Expression::variable(random.below(self.variables) as u16)
    }

    /// A random operator, of the given arity if there is one.
    fn operator(&self, arity: Option<usize>, random: &mut Random) -> Option<Op> {
        let pool = || {
            let wanted = |(i, _): &(usize, _)| arity.is_none_or(|a| a == i + 1);
            self.operators.iter().enumerate().filter(wanted).flat_map(|(_, ops)| ops)
        };
        let mut left = random.uniform() * pool().map(|o| o.1).sum::<f64>();
        let drawn = pool().find(|o| {
            left -= o.1;
            left < 0.0
        });
        drawn.or_else(|| pool().last()).map(|o| o.0)
    }

    /// A random operator, possibly a user-defined one.
    fn any_operator(&self, random: &mut Random) -> Option<Drawn> {
        if !self.definitions.is_empty() {
            let built_in: f64 = self.operators.iter().flatten().map(|o| o.1).sum();
            let own = self.definitions.len() as f64;
            if random.uniform() * (built_in + own) < own {
                return Some(Drawn::Own(random.below(self.definitions.len())));
            }
        }
        self.operator(None, random).map(Drawn::Op)
    }

    /// The drawn operator on `operand` and leaves, in some order.
    fn on_top(&self, drawn: Drawn, operand: Expression, random: &mut Random) -> Expression {
        match drawn {
            Drawn::Op(op) => self.above(op, operand, random),
            Drawn::Own(index) => {
                let definition = &self.definitions[index];
                let at = random.below(definition.arity);
                let leaves = (0..definition.arity).map(|_| self.leaf(random));
                let mut operands: Vec<Expression> = leaves.collect();
                operands[at] = operand;
                definition.apply(&operands)
            }
        }
    }

    /// A comparison of a variable with one of its values.
    fn condition(&self, random: &mut Random) -> Expression {
        if self.compares.is_empty() {
            return self.leaf(random);
        }
        let op = self.compares[random.below(self.compares.len())];
        let v = random.below(self.variables);
        let threshold = Expression::constant(self.sample(v, random));
        Expression::apply(op, &[Expression::variable(v as u16), threshold])
    }

    fn sample(&self, variable: usize, random: &mut Random) -> f64 {
        let samples = &self.samples[variable];
        f64::from(samples[random.below(samples.len())])
    }

    /// `op` on `operand` and leaves, in some order.
    fn above(&self, op: Op, operand: Expression, random: &mut Random) -> Expression {
        match op {
            Op::If => {
                let other = if random.uniform() < 0.5 {
                    Expression::constant(0.0)
                } else {
                    self.leaf(random)
                };
                let condition = self.condition(random);
                if random.uniform() < 0.5 {
                    Expression::apply(op, &[condition, operand, other])
                } else {
                    Expression::apply(op, &[condition, other, operand])
                }
            }
            Op::Pow if random.uniform() < 0.8 => {
                let exponent = Expression::constant(1.5 * random.normal());
                Expression::apply(op, &[operand, exponent])
            }
            Op::Greater | Op::Less if let Node::Variable(v) = operand.root() => {
                let threshold = Expression::constant(self.sample(usize::from(v), random));
                Expression::apply(op, &[operand, threshold])
            }
            _ if op.arity() == 1 => Expression::apply(op, &[operand]),
            _ => {
                let other = self.leaf(random);
                if random.uniform() < 0.5 {
                    Expression::apply(op, &[operand, other])
                } else {
                    Expression::apply(op, &[other, operand])
                }
            }
        }
    }

    /// A random expression of `operators` operators.
    pub fn random(&self, operators: usize, random: &mut Random) -> Expression {
        let mut e = self.leaf(random);
        for _ in 0..operators {
            e = self.grow(&e, random);
        }
        e
    }

    /// A starting point: a random expression, or (every other time) a product of random variables.
    ///
    /// A law that is a product, such as q1 q2 dx, is invisible to a search that has only some of its factors.
    pub fn beginning(&self, random: &mut Random) -> Expression {
        if random.uniform() < 0.5 {
            self.monomial(1 + random.below(4), random)
        } else {
            let size = 1 + random.below(6);
            self.random(size, random)
        }
    }

    /// A product of `factors` different variables or their inverses (as many as there are).
    fn monomial(&self, factors: usize, random: &mut Random) -> Expression {
        let mut left: Vec<u16> = (0..self.variables as u16).collect();
        let mut e = Expression::variable(left.swap_remove(random.below(left.len())));
        while e.nodes().len() + 1 < 2 * factors && !left.is_empty() {
            let factor = Expression::variable(left.swap_remove(random.below(left.len())));
            let op = match (self.multiplies, self.divides) {
                (true, true) => [Op::Mul, Op::Div][random.below(2)],
                (true, false) => Op::Mul,
                (false, true) => Op::Div,
                (false, false) => break,
            };
            e = Expression::apply(op, &[e, factor]);
        }
        e
    }

    /// Replaces a random leaf by an operator on leaves.
    fn grow(&self, e: &Expression, random: &mut Random) -> Expression {
        let Some(drawn) = self.any_operator(random) else { return e.clone() };
        let at = pick(e, random, |node| node.arity() == 0).unwrap_or(0);
        let leaf = if random.uniform() < 0.5 { e.subtree(at) } else { self.leaf(random) };
        replace(e, at, &self.on_top(drawn, leaf, random))
    }

    /// One random mutation; None if the kind drawn is not possible here.
    pub fn mutate(&self, e: &Expression, random: &mut Random) -> Option<Expression> {
        let mut left = random.uniform() * self.kinds.iter().sum::<f64>();
        let drawn = self.kinds.iter().position(|weight| {
            left -= weight;
            left < 0.0
        });
        let binary = |node: Node| node.arity() == 2;
        match drawn.map_or(Kind::Random, |k| KINDS[k].0) {
            Kind::Constant => {
                let at = pick(e, random, |node| matches!(node, Node::Constant(_)))?;
                let Node::Constant(value) = e.nodes()[at] else { return None };
                Some(replace(e, at, &Expression::constant(self.nudge(e, at, value, random))))
            }
            Kind::Operator => {
                let at = pick(e, random, |node| node.arity() > 0)?;
                let op = self.operator(Some(e.nodes()[at].arity()), random)?;
                let mut nodes = e.nodes().to_vec();
                nodes[at] = Node::Op(op);
                Some(Expression::from_nodes(nodes))
            }
            Kind::Variable => {
                let at = pick(e, random, |node| matches!(node, Node::Variable(_)))?;
                Some(replace(e, at, &self.variable(random)))
            }
            Kind::Swap => {
                let at = pick(e, random, binary)?;
                let operands = e.subtree(at).operands();
                let [a, b] = [operands[1].clone(), operands[0].clone()];
                let Node::Op(op) = e.nodes()[at] else { return None };
                Some(replace(e, at, &Expression::apply(op, &[a, b])))
            }
            Kind::Rotate => rotate(e, pick(e, random, binary)?, random),
            Kind::Grow if random.uniform() < 0.5 => Some(self.grow(e, random)),
            Kind::Grow => {
                let drawn = self.any_operator(random)?;
                Some(self.on_top(drawn, e.clone(), random))
            }
            Kind::Insert => {
                let at = pick(e, random, |_| true)?;
                let drawn = self.any_operator(random)?;
                Some(replace(e, at, &self.on_top(drawn, e.subtree(at), random)))
            }
            Kind::Delete => {
                let at = pick(e, random, |node| node.arity() > 0)?;
                let operands = e.subtree(at).operands();
                Some(replace(e, at, &operands[random.below(operands.len())]))
            }
            Kind::Graft => {
                let at = pick(e, random, |_| true)?;
                let size = random.below(3);
                Some(replace(e, at, &self.random(size, random)))
            }
            Kind::Hoist => Some(e.subtree(pick(e, random, |node| node.arity() > 0)?)),
            Kind::Combine if !self.combines => None,
            Kind::Combine => {
                let at = pick(e, random, |node| matches!(node, Node::Variable(_)))?;
                let factor = Expression::constant(random.normal());
                let other = Expression::apply(Op::Mul, &[factor, self.variable(random)]);
                Some(replace(e, at, &Expression::apply(Op::Add, &[e.subtree(at), other])))
            }
            Kind::Multiply if !self.multiplies => None,
            Kind::Multiply => {
                let at = pick(e, random, |_| true)?;
                let by = self.monomial(2, random);
                Some(replace(e, at, &Expression::apply(Op::Mul, &[e.subtree(at), by])))
            }
            Kind::Random => Some(self.beginning(random)),
        }
    }

    /// A changed value for the constant at `at`.
    fn nudge(&self, e: &Expression, at: usize, value: f64, random: &mut Random) -> f64 {
        // The threshold of a variable: fitting does not move it; the data determine where it can be.
        if let (Some(Node::Op(Op::Greater | Op::Less)), Some(&Node::Variable(v))) =
            (e.nodes().get(at + 1), at.checked_sub(1).and_then(|before| e.nodes().get(before)))
            && random.uniform() < 0.5
        {
            return self.sample(usize::from(v), random);
        }
        let factor = (0.5 * random.normal()).exp();
        match random.uniform() {
            u if u < 0.05 => -value * factor,
            u if u < 0.2 => value + random.normal(),
            _ => value * factor,
        }
    }
}

/// The position of a random node among those that are `wanted`.
fn pick(e: &Expression, random: &mut Random, wanted: impl Fn(Node) -> bool) -> Option<usize> {
    let count = e.nodes().iter().filter(|&&node| wanted(node)).count();
    if count == 0 {
        return None;
    }
    let nth = random.below(count);
    let mut candidates = e.nodes().iter().enumerate().filter(|&(_, &node)| wanted(node));
    candidates.nth(nth).map(|c| c.0)
}

/// The expression with the sub-tree at `root` replaced.
pub(super) fn replace(e: &Expression, root: usize, by: &Expression) -> Expression {
    let mut nodes = Vec::with_capacity(e.nodes().len() + by.nodes().len());
    nodes.extend_from_slice(&e.nodes()[..e.start(root)]);
    nodes.extend_from_slice(by.nodes());
    nodes.extend_from_slice(&e.nodes()[root + 1..]);
    Expression::from_nodes(nodes)
}

fn rotate(e: &Expression, at: usize, random: &mut Random) -> Option<Expression> {
    let top = e.subtree(at);
    let operands = top.operands();
    let (Node::Op(outer), side) = (top.root(), random.below(2)) else { return None };
    let Node::Op(inner) = operands[side].root() else { return None };
    if inner.arity() != 2 {
        return None;
    }
    let under = operands[side].operands();
    let rotated = if side == 1 {
        // a ∘ (b • c) → (a ∘ b) • c
        let left = Expression::apply(outer, &[operands[0].clone(), under[0].clone()]);
        Expression::apply(inner, &[left, under[1].clone()])
    } else {
        // (a • b) ∘ c → a • (b ∘ c)
        let right = Expression::apply(outer, &[under[1].clone(), operands[1].clone()]);
        Expression::apply(inner, &[under[0].clone(), right])
    };
    Some(replace(e, at, &rotated))
}

/// `a` with a random sub-tree replaced by one of `b`.
pub fn crossover(a: &Expression, b: &Expression, random: &mut Random) -> Expression {
    let (at, from) = (random.below(a.nodes().len()), random.below(b.nodes().len()));
    replace(a, at, &b.subtree(from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mutations_stay_well_formed_and_reach_everything() {
        let samples = vec![vec![1.0, 2.0], vec![3.0]];
        let settings = Settings { operators: Op::ALL.to_vec(), ..Settings::default() };
        let grammar = Grammar::new(&settings, samples);
        let mut random = Random::new(3, 0);
        let mut e = grammar.random(4, &mut random);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..20_000 {
            let Some(next) = grammar.mutate(&e, &mut random) else { continue };
            // Checked again, because release builds do not.
            let next = Expression::new(next.nodes().to_vec()).unwrap();
            for node in next.nodes() {
                match *node {
                    Node::Variable(v) => assert!(v < 2),
                    Node::Constant(c) => assert!(c.is_finite()),
                    Node::Op(op) => drop(seen.insert(op)),
                }
            }
            let mixed = crossover(&next, &e, &mut random);
            Expression::new(mixed.nodes().to_vec()).unwrap();
            e = if next.nodes().len() > 40 { grammar.random(3, &mut random) } else { next };
        }
        assert_eq!(seen.len(), Op::ALL.len());
    }

    #[test]
    fn only_the_operators_of_the_set_appear() {
        let settings = Settings { operators: vec![Op::Mul, Op::Add], ..Settings::default() };
        let grammar = Grammar::new(&settings, vec![vec![1.0]]);
        let mut random = Random::new(4, 0);
        let mut e = grammar.random(2, &mut random);
        for _ in 0..2000 {
            e = grammar.mutate(&e, &mut random).unwrap_or(e);
            let allowed = |n: &Node| !matches!(n, Node::Op(op) if ![Op::Add, Op::Mul].contains(op));
            assert!(e.nodes().iter().all(allowed));
            if e.nodes().len() > 30 {
                e = grammar.random(2, &mut random);
            }
        }
    }
}
