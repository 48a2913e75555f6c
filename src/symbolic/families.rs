//! The usual forms of a function of a column with one or two numbers of its own, as in `f(x, p[group], q[group])`:
//! saturation, decay, steps and peaks. A search would have to hit upon the form and on fitting numbers for every group
//! at once.

use super::search::Problem;
use super::settings::Settings;
use super::template::{Part, Place, Template};
use crate::formula::expression::{Expression, Node};

/// The value from which a number is fitted, for typical sizes of x and of the target.
type Start = fn(f64, f64) -> f64;

/// Functions of x and p.
const ONE: [(&str, [Start; 1]); 8] = [
    ("exp(x / p)", [|x, _| -x]),
    ("1 - exp(x / p)", [|x, _| -x]),
    ("x / (p + x)", [|x, _| x]),
    ("p / (p + x * x)", [|x, _| x * x]),
    ("exp(x * x / p)", [|x, _| -x * x]),
    ("1 / (1 + exp(p - x))", [|x, _| x]),
    ("log(1 + x / p)", [|x, _| x]),
    ("x^p", [|_, _| 1.5]),
];

/// Functions of x, p and q.
const TWO: [(&str, [Start; 2]); 10] = [
    ("p * x^q", [|_, y| y, |_, _| 1.0]),
    ("p * exp(x / q)", [|_, y| y, |x, _| -x]),
    ("p * (1 - exp(x / q))", [|_, y| y, |x, _| -x]),
    ("p * x / (q + x)", [|_, y| y, |x, _| x]),
    ("p / (q + x * x)", [|x, y| y * x * x, |x, _| x * x]),
    ("1 / (1 + (p / x)^q)", [|x, _| x, |_, _| 2.0]),
    ("1 / (1 + (x / p)^q)", [|x, _| x, |_, _| 2.0]),
    ("1 / (1 + exp((p - x) * q))", [|x, _| x, |x, _| 4.0 / x]),
    ("exp((x - p) * (x - p) / q)", [|x, _| x, |x, _| -x * x]),
    ("p + q * log(x)", [|_, y| y, |_, y| y]),
];

/// Candidates for a template with a single part to be found, of a column and of one or two numbers; none for others.
pub(super) fn seeds(problem: &Problem, settings: &Settings) -> Vec<Expression> {
    let Some(template) = &problem.template else { return Vec::new() };
    let mut searched = template.parts.iter().filter_map(|part| part.operands.as_ref());
    let (Some(operands), None) = (searched.next(), searched.next()) else { return Vec::new() };
    let variable = |e: &Expression| match e.nodes() {
        [Node::Variable(v)] => Some(usize::from(*v)),
        _ => None,
    };
    let number = |at: usize| {
        let place = variable(&operands[at])?.checked_sub(template.columns)?;
        match template.places[place] {
            Place::Numbers(index) => Some(index),
            Place::Call { .. } => None,
        }
    };
    let numbers: Vec<(usize, usize)> =
        (0..operands.len()).filter_map(|at| Some((at, number(at)?))).collect();
    let columns = (0..operands.len()).filter_map(|at| {
        let column = variable(&operands[at]).filter(|&v| v < template.columns)?;
        Some((at, size(&problem.columns[column])))
    });
    let y = size(&problem.target);
    let mut seeds = Vec::new();
    for (x, size) in columns {
        let mut add = |text: &str, chosen: &[(usize, usize)], starts: &[Start]| {
            let form = Expression::parse(text, &["x", "p", "q"]).expect("written here");
            let places = [&[x][..], &chosen.iter().map(|c| c.0).collect::<Vec<_>>()].concat();
            let part =
                form.substitute(|v| Some(Expression::variable(places[usize::from(v)] as u16)));
            let values = starts.iter().map(|start| start(size, y));
            let values: Vec<(usize, f64)> = chosen.iter().map(|c| c.1).zip(values).collect();
            seeds.push(candidate(template, &part, &values));
        };
        for &p in &numbers {
            ONE.iter().for_each(|(text, starts)| add(text, &[p], starts));
            for &q in numbers.iter().filter(|q| q.0 != p.0) {
                TWO.iter().for_each(|(text, starts)| add(text, &[p, q], starts));
            }
        }
    }
    let known = |e: &Expression| {
        e.nodes().iter().all(|node| match node {
            Node::Op(op) => settings.operators.contains(op),
            _ => true,
        })
    };
    seeds.retain(|seed| template.searched(seed).iter().all(known));
    seeds
}

/// The candidate with this part, where the numbers that it has start from these values, and others from 1.
fn candidate(template: &Template, part: &Expression, values: &[(usize, f64)]) -> Expression {
    let start = |at: usize| {
        let of = |(index, _): &&(usize, f64)| template.numbers[*index].parts().contains(&at);
        values.iter().find(of).map_or(1.0, |(_, value)| *value)
    };
    let one = |(at, own): (usize, &Part)| match own.operands {
        Some(_) => part.clone(),
        None => Expression::constant(start(at)),
    };
    Template::join(template.parts.iter().enumerate().map(one).collect())
}

/// The median of the sizes; 1 if that is zero.
fn size(values: &[f32]) -> f64 {
    let mut sizes: Vec<f32> = values.iter().map(|v| v.abs()).collect();
    let half = sizes.len() / 2;
    let median = f64::from(*sizes.select_nth_unstable_by(half, f32::total_cmp).1);
    if median > 0.0 { median } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formula::expression::Op;

    fn problem(text: &str) -> Problem {
        let names: Vec<String> = ["x", "g"].map(String::from).into();
        let columns = vec![vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], vec![0.0, 0.0, 0.0, 1.0, 1.0, 1.0]];
        let template = Template::of_table(text, &names, &columns, &[]).unwrap();
        Problem {
            names,
            columns,
            target: vec![0.5; 6],
            template: Some(template),
            ..Problem::default()
        }
    }

    #[test]
    fn forms_take_the_operands_of_the_template() {
        let settings = Settings::default();
        let problem = problem("f(p[g], x, q[g])");
        let found = seeds(&problem, &settings);
        // Of each number alone, and of both in either order.
        assert_eq!(found.len(), 2 * ONE.len() + 2 * TWO.len());
        let template = problem.template.as_ref().unwrap();
        let hill = Expression::parse("1 / (1 + (p / x)^q)", &["p", "x", "q"]).unwrap();
        let candidate = found.iter().find(|c| template.searched(c) == [hill.clone()]).unwrap();
        // The numbers p of both groups start from the median of x, q from 2.
        let parts = template.split(candidate);
        let starts: Vec<f64> = parts.iter().filter_map(Expression::as_constant).collect();
        assert_eq!(starts, [4.0, 4.0, 2.0, 2.0]);
        // Without powers and exponentials few are left.
        let operators = vec![Op::Add, Op::Mul, Op::Div];
        let few = seeds(&problem, &Settings { operators, ..settings });
        assert!(!few.is_empty() && few.len() < found.len() / 2, "{}", few.len());
    }

    #[test]
    fn other_templates_have_no_such_forms() {
        let settings = Settings::default();
        assert!(seeds(&problem("f(x) + g(x, p[g])"), &settings).is_empty());
        assert!(seeds(&problem("f(x)"), &settings).is_empty());
        assert!(seeds(&problem("p[g] * x"), &settings).is_empty());
    }
}
