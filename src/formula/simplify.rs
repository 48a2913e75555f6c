//! Algebraic simplification that keeps the value wherever the original has one, and never introduces an operator that
//! the expression lacks.
//!
//! Chains of + − and of · / are flattened, their constants merged, equal terms collected and equal
//! factors cancelled; the rest is constant folding and a few identities.

use super::expression::{Expression, Node, Op, Weights};

/// The operators that an expression may use, one bit each.
#[derive(Clone, Copy)]
struct Allowed(u32);

impl Allowed {
    fn of(e: &Expression) -> Self {
        Allowed(e.nodes().iter().fold(0, |bits, node| match node {
            Node::Op(op) => bits | 1 << *op as u32,
            _ => bits,
        }))
    }

    fn has(self, op: Op) -> bool {
        self.0 & 1 << op as u32 != 0
    }
}

impl Expression {
    /// The sub-tree with its root at `root`.
    pub fn subtree(&self, root: usize) -> Expression {
        Expression::from_nodes(self.nodes()[self.start(root)..=root].to_vec())
    }

    /// The operands of the root.
    pub fn operands(&self) -> Vec<Expression> {
        let root = self.nodes().len() - 1;
        let mut operands = Vec::with_capacity(3);
        let mut end = root;
        for _ in 0..self.nodes()[root].arity() {
            operands.push(self.subtree(end - 1));
            end = self.start(end - 1);
        }
        operands.reverse();
        operands
    }

    /// A shorter expression with the same values, or the expression itself.
    pub fn simplified(&self) -> Expression {
        self.simplified_with(&[])
    }

    /// The same, but these operators may be introduced.
    pub fn simplified_with(&self, operators: &[Op]) -> Expression {
        let more = operators.iter().fold(0, |bits, op| bits | 1 << *op as u32);
        let allowed = Allowed(Allowed::of(self).0 | more);
        let simple = self.fold(|node, operands: &[Expression]| match node {
            Node::Op(op) => rebuild(op, operands, allowed),
            leaf => Expression::from_nodes(vec![leaf]),
        });
        let weights = Weights::default();
        let longer = simple.complexity(&weights) > self.complexity(&weights);
        let foreign = Allowed::of(&simple).0 & !allowed.0 != 0;
        if longer || foreign { self.clone() } else { simple }
    }

    /// The expression times `factor`, if a constant can absorb the factor; else None.
    pub fn absorb(&self, factor: f64) -> Option<Expression> {
        let root = self.root();
        match root {
            Node::Constant(value) => Some(Expression::constant(value * factor)),
            Node::Op(op @ (Op::Mul | Op::Div)) => {
                let operands = self.operands();
                if let Some(a) = operands[0].absorb(factor) {
                    return Some(Expression::apply(op, &[a, operands[1].clone()]));
                }
                let second = if op == Op::Mul { factor } else { 1.0 / factor };
                let b = operands[1].absorb(second)?;
                Some(Expression::apply(op, &[operands[0].clone(), b]))
            }
            Node::Op(op @ (Op::Add | Op::Sub)) => {
                let operands = self.operands();
                let (a, b) = (operands[0].absorb(factor)?, operands[1].absorb(factor)?);
                Some(Expression::apply(op, &[a, b]))
            }
            Node::Op(Op::Neg) => {
                let a = self.operands()[0].absorb(factor)?;
                Some(Expression::apply(Op::Neg, &[a]))
            }
            _ => None,
        }
    }

    /// The first constant that [`Expression::absorb`] would change, as a factor of the whole.
    fn leading(&self) -> Option<f64> {
        self.absorb(1.0)?;
        match self.root() {
            Node::Constant(value) => Some(value),
            Node::Op(op) => {
                let operands = self.operands();
                let inverse = |c: f64| if op == Op::Div { 1.0 / c } else { c };
                operands[0].leading().or_else(|| operands.get(1)?.leading().map(inverse))
            }
            Node::Variable(_) => None,
        }
    }

    /// The expression with its scale and offset removed: no constant added to the whole, none multiplied with it. None
    /// if nothing but a constant remains.
    pub fn shape(&self) -> Option<Expression> {
        let mut e = self.simplified();
        loop {
            let operands = e.operands();
            let next = match (e.root(), &operands[..]) {
                (Node::Constant(_), _) => return None,
                (Node::Op(Op::Neg), [a]) => a.clone(),
                (Node::Op(Op::Add | Op::Sub | Op::Mul), [a, b]) if a.as_constant().is_some() => {
                    b.clone()
                }
                (Node::Op(Op::Add | Op::Sub | Op::Mul | Op::Div), [a, b])
                    if b.as_constant().is_some() =>
                {
                    a.clone()
                }
                _ => break,
            };
            e = next;
        }
        match e.leading() {
            Some(c) if c != 1.0 && (1.0 / c).is_finite() => {
                let unit = e.absorb(1.0 / c)?;
                Some(unit.simplified())
            }
            _ => Some(e),
        }
    }

    /// offset + scale · self, as short as it can be written. An offset of 0 is left out.
    pub fn scaled(&self, scale: f64, offset: f64) -> Expression {
        let product = self.absorb(scale).unwrap_or_else(|| {
            Expression::apply(Op::Mul, &[Expression::constant(scale), self.clone()])
        });
        if offset == 0.0 {
            return product;
        }
        // An offset inside a sum absorbs the new one.
        if let (Node::Op(Op::Add), [a, b]) = (product.root(), &product.operands()[..])
            && let Some(inner) = b.as_constant()
        {
            return Expression::apply(Op::Add, &[a.clone(), Expression::constant(inner + offset)]);
        }
        Expression::apply(Op::Add, &[product, Expression::constant(offset)])
    }
}

/// `op` on simplified operands.
fn rebuild(op: Op, operands: &[Expression], allowed: Allowed) -> Expression {
    let plain = || Expression::apply(op, operands);
    let constants: Vec<f64> = operands.iter().map_while(Expression::as_constant).collect();
    if constants.len() == operands.len() {
        let value = op.apply(&constants);
        return if value.is_finite() { Expression::constant(value) } else { plain() };
    }
    let is = |e: &Expression, value: f64| e.as_constant() == Some(value);
    let [a, b] = [&operands[0], operands.get(1).unwrap_or(&operands[0])];
    match (op, a.root()) {
        (Op::Add | Op::Sub, _) | (Op::Neg, Node::Op(Op::Add | Op::Sub | Op::Neg)) => {
            Sum::of(&plain()).write(allowed)
        }
        (Op::Mul | Op::Div, _) | (Op::Neg, Node::Op(Op::Mul | Op::Div)) => {
            let product = Product::of(&plain());
            product.and_then(|p| p.write(allowed)).unwrap_or_else(plain)
        }
        (Op::Pow, _) if is(b, 1.0) => a.clone(),
        (Op::Pow, _) if is(b, 0.0) || is(a, 1.0) => Expression::constant(1.0),
        (_, Node::Op(inner)) if op.row().undoes == Some(inner) => a.subtree(a.nodes().len() - 2),
        // e^(log a · b)
        (Op::Exp, Node::Op(Op::Mul)) if allowed.has(Op::Pow) => {
            let factors = a.operands();
            let log = |e: &Expression| e.root() == Node::Op(Op::Log);
            match factors.iter().position(log) {
                Some(at) => {
                    let base = factors[at].operands().remove(0);
                    Expression::apply(Op::Pow, &[base, factors[1 - at].clone()])
                }
                None => plain(),
            }
        }
        (Op::Abs, Node::Op(Op::Abs | Op::Exp | Op::Sqrt | Op::Square)) => a.clone(),
        (Op::Greater | Op::Less, _) if a == b => Expression::constant(0.0),
        (Op::Min | Op::Max, _) if a == b => a.clone(),
        (Op::If, Node::Constant(c)) => operands[if c > 0.0 { 1 } else { 2 }].clone(),
        (Op::If, _) if operands[1] == operands[2] => operands[1].clone(),
        _ => plain(),
    }
}

/// A chain of + and −: Σ coefficient · term + constant.
#[derive(Default)]
struct Sum {
    terms: Vec<(f64, Expression)>,
    constant: f64,
}

impl Sum {
    fn of(e: &Expression) -> Self {
        let mut sum = Sum::default();
        let mut left = vec![(1.0, e.clone())];
        while let Some((sign, e)) = left.pop() {
            match (e.root(), &e.operands()[..]) {
                (Node::Constant(value), _) => sum.constant += sign * value,
                (Node::Op(op @ (Op::Add | Op::Sub)), [a, b]) => {
                    left.push((if op == Op::Add { sign } else { -sign }, b.clone()));
                    left.push((sign, a.clone()));
                }
                (Node::Op(Op::Neg), [a]) => left.push((-sign, a.clone())),
                (Node::Op(Op::Mul), [c, b]) if c.as_constant().is_some() => {
                    sum.terms.push((sign * c.as_constant().unwrap_or(1.0), b.clone()));
                }
                (Node::Op(Op::Mul | Op::Div), _) if e.leading() == Some(-1.0) => {
                    let positive = Product::of(&e).map(|p| Product { constant: -p.constant, ..p });
                    let positive = positive.and_then(|p| p.write(Allowed::of(&e)));
                    sum.terms.push(positive.map_or((sign, e), |positive| (-sign, positive)));
                }
                _ => sum.terms.push((sign, e)),
            }
        }
        sum
    }

    fn write(mut self, allowed: Allowed) -> Expression {
        let mut merged: Vec<(f64, Expression)> = Vec::new();
        for (k, term) in self.terms.drain(..) {
            let same = merged.iter_mut().find(|(other, t)| {
                *t == term && (allowed.has(Op::Mul) || other.abs() != 1.0 || *other == -k)
            });
            match same {
                Some((other, _)) => *other += k,
                None => merged.push((k, term)),
            }
        }
        merged.retain(|(k, _)| *k != 0.0);
        // A positive term comes first, if there is one.
        if let Some(first) = merged.iter().position(|(k, _)| *k > 0.0) {
            merged[..=first].rotate_right(1);
        }
        let times = |k: f64, term: Expression| match k {
            1.0 => term,
            _ => {
                let product = Expression::apply(Op::Mul, &[Expression::constant(k), term]);
                // −1 · (y / z) is (−1 · y) / z, as a product has it.
                let whole = || Product::of(&product)?.write(allowed);
                if k == -1.0 { whole().unwrap_or(product) } else { product }
            }
        };
        let mut terms = merged.into_iter();
        let mut constant = self.constant;
        let mut result = match terms.next() {
            None => return Expression::constant(constant),
            Some((k, term)) if k > 0.0 => times(k, term),
            Some((k, term)) if constant != 0.0 && allowed.has(Op::Sub) => {
                let first = Expression::constant(std::mem::take(&mut constant));
                Expression::apply(Op::Sub, &[first, times(-k, term)])
            }
            Some((-1.0, term)) if allowed.has(Op::Neg) => Expression::apply(Op::Neg, &[term]),
            Some((-1.0, term)) if allowed.has(Op::Sub) && !allowed.has(Op::Mul) => {
                Expression::apply(Op::Sub, &[Expression::constant(0.0), term])
            }
            Some((k, term)) => times(k, term),
        };
        for (k, term) in terms {
            let subtract = k < 0.0 && allowed.has(Op::Sub);
            let (op, k) = if subtract { (Op::Sub, -k) } else { (Op::Add, k) };
            let term = match k {
                -1.0 if allowed.has(Op::Neg) => Expression::apply(Op::Neg, &[term]),
                _ => times(k, term),
            };
            result = Expression::apply(op, &[result, term]);
        }
        match constant {
            0.0 => result,
            c if c < 0.0 && allowed.has(Op::Sub) => {
                Expression::apply(Op::Sub, &[result, Expression::constant(-c)])
            }
            c if allowed.has(Op::Add) => {
                Expression::apply(Op::Add, &[result, Expression::constant(c)])
            }
            c => Expression::apply(Op::Sub, &[result, Expression::constant(-c)]),
        }
    }
}

/// A chain of · and /: constant · Π above / Π below.
struct Product {
    constant: f64,
    above: Vec<Expression>,
    below: Vec<Expression>,
}

impl Product {
    /// None if the constant overflows.
    fn of(e: &Expression) -> Option<Self> {
        let mut product = Product { constant: 1.0, above: Vec::new(), below: Vec::new() };
        let mut left = vec![(false, e.clone())];
        while let Some((inverse, e)) = left.pop() {
            match (e.root(), &e.operands()[..]) {
                (Node::Constant(value), _) if inverse => product.constant /= value,
                (Node::Constant(value), _) => product.constant *= value,
                (Node::Op(op @ (Op::Mul | Op::Div)), [a, b]) => {
                    left.push((inverse != (op == Op::Div), b.clone()));
                    left.push((inverse, a.clone()));
                }
                (Node::Op(Op::Neg), [a]) => {
                    product.constant = -product.constant;
                    left.push((inverse, a.clone()));
                }
                _ => {
                    let (same, other) = if inverse {
                        (&mut product.below, &mut product.above)
                    } else {
                        (&mut product.above, &mut product.below)
                    };
                    match other.iter().position(|factor| *factor == e) {
                        Some(at) => drop(other.remove(at)),
                        None => same.push(e),
                    }
                }
            }
        }
        product.constant.is_finite().then_some(product)
    }

    fn write(mut self, allowed: Allowed) -> Option<Expression> {
        let mut constant = self.constant;
        if constant == 0.0 {
            return Some(Expression::constant(0.0));
        }
        if constant != 1.0
            && let Some((factor, with)) = self
                .above
                .iter_mut()
                .find_map(|factor| factor.absorb(constant).map(|with| (factor, with)))
        {
            *factor = with.simplified();
            constant = 1.0;
        }
        let multiply = |a, b| Expression::apply(Op::Mul, &[a, b]);
        let divide = |a, b| Expression::apply(Op::Div, &[a, b]);
        let mut above = self.above.into_iter();
        let mut negate = false;
        let mut result = match above.next() {
            None => Expression::constant(constant),
            Some(first) if constant == 1.0 => first,
            Some(first) if constant == -1.0 && allowed.has(Op::Neg) => {
                negate = true;
                first
            }
            Some(first) if allowed.has(Op::Mul) => multiply(Expression::constant(constant), first),
            Some(first) => divide(first, Expression::constant(1.0 / constant)),
        };
        for factor in above {
            result = multiply(result, factor);
        }
        let below = self.below.into_iter();
        if allowed.has(Op::Mul) {
            if let Some(below) = below.reduce(multiply) {
                result = divide(result, below);
            }
        } else {
            result = below.fold(result, divide);
        }
        if negate {
            result = Expression::apply(Op::Neg, &[result]);
        }
        Some(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formula::expression::tests::{any_expression, cases};
    use proptest::prelude::*;

    const NAMES: [&str; 3] = ["x", "y", "z"];

    fn simple(text: &str) -> String {
        Expression::parse(text, &NAMES).unwrap().simplified().text(&NAMES)
    }

    #[test]
    fn examples() {
        assert_eq!(simple("1 + x + 2"), "x + 3");
        assert_eq!(simple("x - x + y"), "y");
        assert_eq!(simple("2 * x * 3 / 4"), "1.5 * x");
        assert_eq!(simple("2 * x + 3 * x"), "5 * x");
        assert_eq!(simple("x + x"), "x + x", "no multiplication is introduced");
        assert_eq!(simple("x * y / x"), "y");
        assert_eq!(simple("2 * (3 * x + 4 * y)"), "6 * x + 8 * y");
        assert_eq!(simple("x^1 + y^0"), "x + 1");
        assert_eq!(simple("IF(2 > 1, x, y)"), "x");
        assert_eq!(simple("exp(log(x)) + -2 - y"), "x - y - 2");
        assert_eq!(simple("sin(asin(x)) + cos(acos(y))"), "x + y");
        assert_eq!(simple("asin(sin(x))"), "asin(sin(x))", "not x beyond a quarter turn");
        assert_eq!(simple("0 * x + y"), "y");
        assert_eq!(simple("x / y / z * (1 * x)"), "x * x / (y * z)");
        assert_eq!(simple("2 / x * 3"), "6 / x");
        assert_eq!(simple("y - x + -1 * y / z^6"), "y - x - y / z^6");
        assert_eq!(simple("x + y - y / (-1 * z)"), "x + y + y / z");
        assert_eq!(simple("x + -1 * y / z"), "x - 1 * y / z", "no operator is introduced");
        assert_eq!(simple("x - 2 * y / z^6"), "x - 2 * y / z^6");
        assert_eq!(simple("-(x - y)"), "y - x");
    }

    #[test]
    fn shapes_lose_scale_and_offset() {
        let shape =
            |text: &str| Expression::parse(text, &NAMES).unwrap().shape().map(|e| e.text(&NAMES));
        assert_eq!(shape("3 - 2 * x").as_deref(), Some("x"));
        assert_eq!(shape("2 * x + 3 * y - 1").as_deref(), Some("x + 1.5 * y"));
        assert_eq!(shape("4 / x").as_deref(), Some("1 / x"));
        assert_eq!(shape("2 + 3"), None);
        let e = Expression::parse("(x + 1.5 * y) * (2 - 1 / z)", &NAMES).unwrap();
        assert_eq!(e.scaled(2.0, 0.5).text(&NAMES), "(x + 1.5 * y) * (4 - 2 / z) + 0.5");
    }

    proptest! {
        #![proptest_config(cases(20_000))]
        #[test]
        fn values_stay(e in any_expression(), x in -3.0..3.0f64, y in 0.1..3.0f64, z in -2.0..2.0f64) {
            let simple = e.simplified();
            let weights = Weights::default();
            prop_assert!(simple.complexity(&weights) <= e.complexity(&weights));
            prop_assert!(Allowed::of(&simple).0 & !Allowed::of(&e).0 == 0);
            let at = |e: &Expression, x: f64| e.eval(&[x, y, z]);
            let (before, after) = (at(&e, x), at(&simple, x));
            // Only where the value does not hinge on rounding: no cancellation, no edge of a comparison.
            let spread = [1e-9, -1e-9].map(|h| (at(&e, x * (1.0 + h)) - before).abs());
            let steady = spread.iter().all(|s| *s <= 1e-6 * before.abs());
            if steady && before.abs() > 1e-6 && before.abs() < 1e6 {
                prop_assert!((before - after).abs() <= 1e-5 * before.abs(), "{before} {after} {}", simple.text(&NAMES));
            }
        }
    }
}
