//! The terms that physics adds up: M xᵖ, M e^N and their inverses, where M is 1 or a variable and N a product, a
//! quotient or a multiple of variables. Dispersion, Pauli repulsion, Arrhenius factors and decays are of this form;
//! an enumeration by length reaches the longer ones only for one or two variables.

use super::search::Problem;
use super::settings::Settings;
use crate::formula::expression::{Expression, Op};

/// Powers of a variable that are too long for an enumeration.
const POWERS: [i32; 6] = [3, 4, 6, 8, 9, 12];
/// Multiples of a variable in an exponent, in units of the inverse of its root mean square. The search fits the number,
/// but only from these starting values.
const MULTIPLES: [f64; 5] = [0.25, 0.5, 1.0, 2.0, 4.0];

/// A term and its values on the chosen rows.
pub(super) type Term = (Expression, Vec<f64>);

/// All of them that the operators can write.
pub(super) fn terms(problem: &Problem, chosen: &[usize], settings: &Settings) -> Vec<Term> {
    let has = |op: Op| settings.operators.contains(&op);
    let variable = |(index, column): (usize, &Vec<f32>)| {
        let values = chosen.iter().map(|&row| f64::from(column[row])).collect();
        (Expression::variable(index as u16), values)
    };
    let variables: Vec<Term> = problem.columns.iter().enumerate().map(variable).collect();
    let mut bases = Vec::new();
    if has(Op::Pow) {
        for x in &variables {
            bases.extend(POWERS.map(|power| {
                let number = constant(f64::from(power), chosen.len());
                combined(Op::Pow, &[x, &number])
            }));
        }
    }
    if has(Op::Exp) {
        bases.extend(exponents(&variables, &has).iter().map(|n| combined(Op::Exp, &[n])));
    }
    let one = constant(1.0, chosen.len());
    let mut found = Vec::new();
    for base in &bases {
        for factor in &variables {
            let both = [Op::Mul, Op::Div].into_iter().filter(|op| has(*op));
            found.extend(both.map(|op| combined(op, &[factor, base])));
        }
        if has(Op::Div) {
            found.push(combined(Op::Div, &[&one, base]));
        }
    }
    found.extend(bases);
    found
}

/// What stands in an exponent.
fn exponents(variables: &[Term], has: &impl Fn(Op) -> bool) -> Vec<Term> {
    let mut found = Vec::new();
    for (index, x) in variables.iter().enumerate() {
        found.push(x.clone());
        let square = x.1.iter().map(|v| v * v).sum::<f64>() / x.1.len() as f64;
        if has(Op::Mul) && square > 0.0 {
            found.push(combined(Op::Mul, &[x, x]));
            found.extend(MULTIPLES.map(|multiple| {
                let number = constant(multiple / square.sqrt(), x.1.len());
                combined(Op::Mul, &[&number, x])
            }));
        }
        for (other, y) in variables.iter().enumerate() {
            if has(Op::Mul) && other > index {
                found.push(combined(Op::Mul, &[x, y]));
            }
            if has(Op::Div) && other != index {
                found.push(combined(Op::Div, &[x, y]));
            }
        }
    }
    found
}

fn constant(value: f64, rows: usize) -> Term {
    (Expression::constant(value), vec![value; rows])
}

/// An operator on terms.
fn combined(op: Op, operands: &[&Term]) -> Term {
    let expressions: Vec<Expression> = operands.iter().map(|term| term.0.clone()).collect();
    let row = |row: usize| {
        let values: Vec<f64> = operands.iter().map(|term| term.1[row]).collect();
        op.apply(&values)
    };
    (Expression::apply(op, &expressions), (0..operands[0].1.len()).map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_have_the_values_of_their_expressions() {
        let columns = vec![vec![0.5, 1.5, -2.0, 3.0], vec![1.0, 0.25, 4.0, -0.5]];
        let names = vec!["x".to_string(), "y".to_string()];
        let problem = Problem { names: names.clone(), columns, ..Problem::default() };
        let found = terms(&problem, &[3, 0, 1], &Settings::default());
        let texts: Vec<String> = found.iter().map(|term| term.0.text(&names)).collect();
        for expected in ["y / x^6", "x / exp(x * y)", "1 / y^12", "x * exp(x / y)", "exp(y * y)"] {
            assert!(texts.iter().any(|text| text == expected), "{expected}: {texts:?}");
        }
        for (e, values) in &found {
            for (row, value) in [3, 0, 1].into_iter().zip(values) {
                let at: Vec<f64> = problem.columns.iter().map(|c| f64::from(c[row])).collect();
                let expected = e.eval(&at);
                assert!((value - expected).abs() <= 1e-12 * expected.abs(), "{}", e.text(&names));
            }
        }
        let sums = Settings { operators: vec![Op::Add, Op::Exp], ..Settings::default() };
        let found = terms(&problem, &[0, 1], &sums);
        assert_eq!(found.len(), 2, "nothing that the operators cannot write");
    }
}
