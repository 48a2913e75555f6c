//! Symbolic derivatives, simplified as they are built: no terms times zero, no factors of one.

use super::expression::{Expression, Node, Op};

type E = Expression;

fn constant(value: f64) -> E {
    E::constant(value)
}

fn is(e: &E, value: f64) -> bool {
    e.as_constant() == Some(value)
}

/// `op` on two operands, folded where both are numbers.
fn binary(op: Op, a: &E, b: &E) -> E {
    if let (Some(x), Some(y)) = (a.as_constant(), b.as_constant()) {
        let value = op.apply(&[x, y]);
        if value.is_finite() {
            return constant(value);
        }
    }
    E::apply(op, &[a.clone(), b.clone()])
}

fn add(a: &E, b: &E) -> E {
    match (is(a, 0.0), is(b, 0.0)) {
        (true, _) => b.clone(),
        (_, true) => a.clone(),
        _ => binary(Op::Add, a, b),
    }
}

fn sub(a: &E, b: &E) -> E {
    match (is(a, 0.0), is(b, 0.0)) {
        (_, true) => a.clone(),
        (true, _) => neg(b),
        _ => binary(Op::Sub, a, b),
    }
}

fn neg(a: &E) -> E {
    match a.as_constant() {
        Some(value) => constant(-value),
        None => E::apply(Op::Neg, std::slice::from_ref(a)),
    }
}

fn mul(a: &E, b: &E) -> E {
    match () {
        () if is(a, 0.0) || is(b, 0.0) => constant(0.0),
        () if is(a, 1.0) => b.clone(),
        () if is(b, 1.0) => a.clone(),
        () => binary(Op::Mul, a, b),
    }
}

fn div(a: &E, b: &E) -> E {
    match () {
        () if is(a, 0.0) => constant(0.0),
        () if is(b, 1.0) => a.clone(),
        () => binary(Op::Div, a, b),
    }
}

fn pow(a: &E, b: &E) -> E {
    match () {
        () if is(b, 0.0) => constant(1.0),
        () if is(b, 1.0) => a.clone(),
        () => binary(Op::Pow, a, b),
    }
}

fn unary(op: Op, a: &E) -> E {
    E::apply(op, std::slice::from_ref(a))
}

/// `IF(c, a, b)`, or one of them where both are the same.
fn choose(c: &E, a: &E, b: &E) -> E {
    if a == b { a.clone() } else { E::apply(Op::If, &[c.clone(), a.clone(), b.clone()]) }
}

impl Expression {
    /// The derivative with respect to a variable. Comparisons and the jumps of `IF` count as flat,
    /// and kinks of `abs`, `min`, `max` take one of their two sides (`abs` the mean, 0).
    pub fn derivative(&self, variable: u16) -> Expression {
        self.fold(|node, operands: &[(E, E)]| match node {
            Node::Constant(value) => (constant(value), constant(0.0)),
            Node::Variable(index) => {
                (E::variable(index), constant(f64::from(u8::from(index == variable))))
            }
            Node::Op(op) => {
                let values: Vec<E> = operands.iter().map(|o| o.0.clone()).collect();
                (E::apply(op, &values), chain(op, operands))
            }
        })
        .1
    }
}

/// The derivative of `op` on operands given with their derivatives.
fn chain(op: Op, operands: &[(E, E)]) -> E {
    if operands.iter().all(|o| is(&o.1, 0.0)) {
        return constant(0.0);
    }
    let (a, da) = (&operands[0].0, &operands[0].1);
    let (b, db) = operands.get(1).map_or((a, da), |o| (&o.0, &o.1));
    match op {
        Op::Add => add(da, db),
        Op::Sub => sub(da, db),
        Op::Mul => add(&mul(da, b), &mul(a, db)),
        // (a/b)' = a'/b − a b'/b²
        Op::Div => sub(&div(da, b), &div(&mul(a, db), &mul(b, b))),
        Op::Pow if is(db, 0.0) => mul(&mul(b, &pow(a, &sub(b, &constant(1.0)))), da),
        // (a^b)' = a^b (b' log a + b a'/a)
        Op::Pow => mul(&pow(a, b), &add(&mul(db, &unary(Op::Log, a)), &div(&mul(b, da), a))),
        Op::Greater | Op::Less => constant(0.0),
        Op::Min => choose(&sub(b, a), da, db),
        Op::Max => choose(&sub(a, b), da, db),
        Op::Exp => mul(&unary(Op::Exp, a), da),
        Op::Log => div(da, a),
        Op::Sqrt => div(da, &mul(&constant(2.0), &unary(Op::Sqrt, a))),
        Op::Abs => {
            let zero = constant(0.0);
            mul(&sub(&binary(Op::Greater, a, &zero), &binary(Op::Less, a, &zero)), da)
        }
        Op::Square => mul(&mul(&constant(2.0), a), da),
        Op::Cube => mul(&mul(&constant(3.0), &unary(Op::Square, a)), da),
        Op::Neg => neg(da),
        Op::Sin => mul(&unary(Op::Cos, a), da),
        Op::Cos => neg(&mul(&unary(Op::Sin, a), da)),
        Op::Tanh => mul(&sub(&constant(1.0), &unary(Op::Square, &unary(Op::Tanh, a))), da),
        Op::Asin => div(da, &half_circle(a)),
        Op::Acos => neg(&div(da, &half_circle(a))),
        Op::Atan => div(da, &add(&constant(1.0), &unary(Op::Square, a))),
        Op::If => choose(a, db, &operands[2].1),
    }
}

/// √(1 − a²)
fn half_circle(a: &E) -> E {
    unary(Op::Sqrt, &sub(&constant(1.0), &unary(Op::Square, a)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formula::expression::tests::{any_expression, cases};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(cases(20_000))]
        #[test]
        fn agrees_with_differences(
            e in any_expression(), x in 0.3..3.0f64, y in 0.3..3.0f64, z in -2.0..2.0f64,
        ) {
            let at = |x: f64| e.eval(&[x, y, z]);
            let found = e.derivative(0).eval(&[x, y, z]);
            let slope = |h: f64| (at(x + h) - at(x - h)) / (2.0 * h);
            let (coarse, fine) = (slope(2e-5), slope(1e-5));
            // Only where the differences themselves have converged: no jump, no kink, no overflow,
            // no intermediate value beside which the step vanishes.
            let size = at(x).abs().max(1.0);
            let value = |root: usize| e.subtree(root).eval(&[x, y, z]);
            let moderate = (0..e.nodes().len()).all(|root| value(root).abs() < 1e4);
            let smooth = moderate && (coarse - fine).abs() < 1e-6 * (fine.abs() + size) && fine.abs() < 1e6;
            if smooth && size < 1e6 && found.is_finite() {
                prop_assert!((found - fine).abs() < 1e-4 * (fine.abs() + size), "{found} {fine}");
            }
        }
    }

    #[test]
    fn derivatives_are_short() {
        let names = ["r", "m1", "m2"];
        let of = |text: &str| Expression::parse(text, &names).unwrap().derivative(0).text(&names);
        assert_eq!(of("m1 * m2 * log(r)"), "m1 * m2 * (1 / r)");
        assert_eq!(of("(r - 1)^2"), "2 * (r - 1)");
        assert_eq!(of("-m1 * m2 / r"), "-(-m1 * m2 / (r * r))");
        assert_eq!(of("IF(r > 2, (r - 1)^2, 0)"), "IF((r > 2), 2 * (r - 1), 0)");
        assert_eq!(of("exp(-r)"), "exp(-r) * -1");
        assert_eq!(of("m1 + 3"), "0");
    }
}
