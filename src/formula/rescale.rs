//! The same law in other units. Factors of the variables are moved through the expression into its constants, so that a
//! simple law stays simple: `0.5 / r^2` becomes `2 / r^2`, `r - 1` becomes `r - 100` under a factor.

use super::expression::{Expression, Node, Op};

/// Units of an expression's inputs and output.
#[derive(Clone, Debug, PartialEq)]
pub struct Rescaling {
    /// Zero and unit of each variable: the variable is (value − zero) / unit.
    pub inputs: Vec<(f64, f64)>,
    /// Zero and unit of the result: the value is zero + unit · result.
    pub output: (f64, f64),
}

impl Rescaling {
    /// The inverse conversion.
    pub fn inverse(&self) -> Rescaling {
        let inverse = |&(zero, unit): &(f64, f64)| (-zero / unit, 1.0 / unit);
        Rescaling {
            inputs: self.inputs.iter().map(inverse).collect(),
            output: inverse(&self.output),
        }
    }
}

/// An expression with a positive factor in front of it.
type Scaled = (f64, Expression);

/// Rounds a constant that has been multiplied: to more digits than any data have, fewer than rounding spoils.
fn clean(value: f64) -> f64 {
    format!("{value:.12e}").parse().unwrap_or(value)
}

impl Expression {
    /// The expression in the original values: at `value[k]` it gives zero + unit · (what this one gives at (value[k] −
    /// zero[k]) / unit[k]). Units are positive.
    pub fn rescaled(&self, units: &Rescaling) -> Expression {
        let (factor, e) = self.fold(|node, operands: &[Scaled]| match node {
            Node::Constant(_) => (1.0, Expression::from_nodes(vec![node])),
            Node::Variable(v) => {
                let (zero, unit) = units.inputs.get(usize::from(v)).copied().unwrap_or((0.0, 1.0));
                let variable = Expression::variable(v);
                let shifted = match zero {
                    0.0 => variable,
                    zero => Expression::apply(Op::Add, &[variable, Expression::constant(-zero)]),
                };
                (1.0 / unit, shifted)
            }
            Node::Op(op) => apply(op, operands),
        });
        let (zero, unit) = units.output;
        let mut e = plain(&(factor * unit, e));
        if zero != 0.0 {
            e = e.scaled(1.0, zero);
        }
        // Constants that did not change keep all digits.
        let own = self.constants();
        let kept = |c: f64| if own.contains(&c) { c } else { clean(c) };
        let constants: Vec<f64> = e.constants().into_iter().map(kept).collect();
        if constants.iter().all(|c| c.is_finite()) {
            e.set_constants(&constants);
        }
        e
    }
}

/// The expression with the factor moved into it.
fn plain((factor, e): &Scaled) -> Expression {
    // A factor that is 1 up to rounding is none.
    if clean(*factor) == 1.0 {
        return e.clone();
    }
    let product = || Expression::apply(Op::Mul, &[Expression::constant(*factor), e.clone()]);
    e.absorb(*factor).unwrap_or_else(product)
}

fn apply(op: Op, operands: &[Scaled]) -> Scaled {
    let (factor, e) = outside(op, operands);
    if factor.is_normal() && e.constants().iter().all(|c| c.is_finite()) {
        return (factor, e);
    }
    // A factor that overflows stays inside.
    let operands: Vec<Expression> = operands.iter().map(plain).collect();
    (1.0, Expression::apply(op, &operands))
}

/// Moves the factors of the operands outside as far as possible.
fn outside(op: Op, operands: &[Scaled]) -> Scaled {
    let bare = |operands: Vec<Expression>| Expression::apply(op, &operands);
    match (op, operands) {
        (Op::Neg | Op::Abs, [(f, a)]) => (*f, bare(vec![a.clone()])),
        (Op::Sqrt, [(f, a)]) => (f.sqrt(), bare(vec![a.clone()])),
        (Op::Square, [(f, a)]) => (f * f, bare(vec![a.clone()])),
        (Op::Cube, [(f, a)]) => (f * f * f, bare(vec![a.clone()])),
        (Op::Mul, [(f, a), (g, b)]) => (f * g, bare(vec![a.clone(), b.clone()])),
        (Op::Div, [(f, a), (g, b)]) => (f / g, bare(vec![a.clone(), b.clone()])),
        (Op::Pow, [(f, a), (1.0, b)]) if b.as_constant().is_some() => {
            let power = f.powf(b.as_constant().unwrap_or(1.0));
            (power, bare(vec![a.clone(), b.clone()]))
        }
        (Op::Add | Op::Sub | Op::Min | Op::Max | Op::Mod, [a, b]) => {
            let (factor, [a, b]) = common(a, b);
            (factor, bare(vec![a, b]))
        }
        (Op::Greater | Op::Less, [a, b]) => {
            let (_, [a, b]) = common(a, b);
            (1.0, bare(vec![a, b]))
        }
        // Only the sign of a condition matters.
        (Op::If, [(_, condition), a, b]) => {
            (1.0, bare(vec![condition.clone(), plain(a), plain(b)]))
        }
        (_, operands) => (1.0, bare(operands.iter().map(plain).collect())),
    }
}

/// Both operands with a common factor: that of the operand with no constant to absorb another.
fn common((f, a): &Scaled, (g, b): &Scaled) -> (f64, [Expression; 2]) {
    if f == g {
        return (*f, [a.clone(), b.clone()]);
    }
    if let Some(b) = b.absorb(g / f) {
        return (*f, [a.clone(), b]);
    }
    if let Some(a) = a.absorb(f / g) {
        return (*g, [a, b.clone()]);
    }
    (*f, [a.clone(), plain(&(g / f, b.clone()))])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formula::expression::Weights;
    use crate::formula::expression::tests::{any_expression, cases};
    use proptest::prelude::*;

    fn rescaled(text: &str, inputs: [(f64, f64); 2], output: f64) -> String {
        let e = Expression::parse(text, &["r", "m"]).unwrap();
        e.rescaled(&Rescaling { inputs: inputs.to_vec(), output: (0.0, output) }).text(&["r", "m"])
    }

    /// The text in its usual form.
    fn written(text: &str) -> String {
        Expression::parse(text, &["r", "m"]).unwrap().text(&["r", "m"])
    }

    #[test]
    fn simple_laws_stay_simple() {
        let units = [(0.0, 10.0), (0.0, 100.0)];
        let same = |text: &str, output: f64, expected: &str| {
            assert_eq!(rescaled(text, units, output), written(expected), "{text}");
        };
        same("0.5 / r^2", 1.0, "50 / r^2");
        same("m * r^-2", 1.0, "m * r^-2");
        same("2 * (r - 1)", 10.0, "2 * (r - 10)");
        same("exp(r) + r", 1.0, "exp(0.1 * r) + 0.1 * r");
        same("IF(r > 2, 3 * m, 0)", 1.0, "IF(r > 20, 0.03 * m, 0)");
        assert_eq!(rescaled("r", [(5.0, 2.0), (0.0, 1.0)], 2.0), "r - 5");
    }

    /// Laws of nature in units of atoms or planets: no constant is lost.
    #[test]
    fn extreme_units_keep_their_constants() {
        let small = rescaled("3 * m / r^3", [(0.0, 1e-10), (0.0, 1e-27)], 1e10);
        assert_eq!(small, "30000000 * m / r^3");
        let large = rescaled("(r - 0.5) * m", [(0.0, 1e12), (0.0, 1e30)], 1e-9);
        assert!(!large.contains("inf") && large.contains("500000000000"), "{large}");
    }

    proptest! {
        #![proptest_config(cases(3000))]
        #[test]
        fn values_are_the_same_in_other_units(
            e in any_expression(),
            values in prop::array::uniform3(-3.0..3.0f64),
            powers in prop::array::uniform3(-6..=6i32),
            zero in -2.0..2.0f64,
            power in -6..=6i32,
        ) {
            let inputs: Vec<(f64, f64)> =
                powers.iter().map(|&k| (zero, 10f64.powi(k))).collect();
            let output = 10f64.powi(power);
            let own: Vec<f64> =
                values.iter().zip(&inputs).map(|(v, (zero, unit))| zero * unit + v * unit).collect();
            let inputs: Vec<(f64, f64)> = inputs.iter().map(|(z, u)| (z * u, *u)).collect();
            let other = e.rescaled(&Rescaling { inputs, output: (0.0, output) });
            // A comparison may hinge on the last digit, and so may a difference or a remainder.
            let exact = e.eval(&values);
            let mut shaken = e.clone();
            shaken.set_constants(&e.constants().iter().map(|c| c * (1.0 - 1e-9)).collect::<Vec<_>>());
            let near = [e.eval(&values.map(|v| v * (1.0 + 1e-9))), shaken.eval(&values)];
            let steady = near.iter().all(|near| (exact - near).abs() <= 1e-7 * exact.abs());
            if exact.is_finite() && steady && exact.abs() > 1e-9 && exact.abs() < 1e9 {
                let found = other.eval(&own) / output;
                // Values in other units may overflow where these do not.
                prop_assert!(!found.is_finite() || (found - exact).abs() <= 1e-5 * exact.abs(), "{found} {exact}");
            }
            prop_assert!(other.complexity(&Weights::default()) < 10_000);
        }
    }
}
