//! If constants are pure numbers, few products of powers have the unit of the target: tries all of them, and sums of
//! two.

use rayon::prelude::*;

use super::search::Problem;
use super::settings::Settings;
use crate::formula::expression::{Expression, Op};

/// Rows used.
const ROWS: usize = 256;
/// Products tried in pairs.
const PAIRED: usize = 400;
/// Sums kept for each complexity.
const KEPT: usize = 2;

/// A product, its complexity, and its values.
struct Monomial {
    e: Expression,
    complexity: u32,
    values: Vec<f64>,
}

/// Products of powers with the unit of the target, the shortest first, and the sums of two that come nearest to it;
/// none if constants may have units.
pub(super) fn seeds(problem: &Problem, settings: &Settings) -> Vec<Expression> {
    let Some(units) = problem.units.as_ref().filter(|units| units.pure_constants()) else {
        return Vec::new();
    };
    let every = problem.target.len().div_ceil(ROWS);
    let rows: Vec<usize> = (0..problem.target.len()).step_by(every).collect();
    let target: Vec<f64> = rows.iter().map(|&row| f64::from(problem.target[row])).collect();
    let monomial = |powers: Vec<f64>| {
        let e = product(&powers, &settings.operators)?;
        let complexity = e.complexity(&settings.weights);
        let values: Vec<f64> = rows.iter().map(|&row| value(&powers, problem, row)).collect();
        let holds = complexity <= settings.max_complexity && values.iter().all(|v| v.is_finite());
        holds.then_some(Monomial { e, complexity, values })
    };
    let mut all: Vec<Monomial> = units.products().into_iter().filter_map(monomial).collect();
    all.sort_by_key(|m| m.complexity);
    let mut found: Vec<Expression> = all.iter().map(|m| m.e.clone()).collect();
    all.truncate(PAIRED);
    let pairs: Vec<(f64, usize, usize, f64)> = (0..all.len())
        .into_par_iter()
        .flat_map_iter(|i| (0..i).map(move |k| (k, i)))
        .filter_map(|(k, i)| {
            let (left, ratio) = left_over(&all[k].values, &all[i].values, &target)?;
            Some((left, k, i, ratio))
        })
        .collect();
    let complexity = |k: usize, i: usize| all[k].complexity + all[i].complexity;
    let mut sums = pairs;
    sums.sort_by(|a, b| complexity(a.1, a.2).cmp(&complexity(b.1, b.2)).then(a.0.total_cmp(&b.0)));
    for group in sums.chunk_by(|a, b| complexity(a.1, a.2) == complexity(b.1, b.2)) {
        for &(_, k, i, ratio) in group.iter().take(KEPT) {
            let second =
                Expression::apply(Op::Mul, &[Expression::constant(ratio), all[i].e.clone()]);
            found.push(Expression::apply(Op::Add, &[all[k].e.clone(), second]));
        }
    }
    found
}

fn value(powers: &[f64], problem: &Problem, row: usize) -> f64 {
    let factor = |(column, &power): (&Vec<f32>, &f64)| match power {
        0.0 => 1.0,
        _ => f64::from(column[row]).powf(power),
    };
    problem.columns.iter().zip(powers).map(factor).product()
}

/// The smallest sum of squares that a f + b g leaves of the target, and b / a.
fn left_over(f: &[f64], g: &[f64], y: &[f64]) -> Option<(f64, f64)> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let (ff, fg, gg, fy, gy) = (dot(f, f), dot(f, g), dot(g, g), dot(f, y), dot(g, y));
    let determinant = ff * gg - fg * fg;
    let (a, b) = ((fy * gg - gy * fg) / determinant, (gy * ff - fy * fg) / determinant);
    let independent = determinant > 1e-9 * ff * gg && a != 0.0 && b != 0.0;
    let left = dot(y, y) - a * fy - b * gy;
    (independent && left.is_finite()).then_some((left, b / a))
}

/// The product of the columns to these powers; None if the operators cannot express it.
fn product(powers: &[f64], operators: &[Op]) -> Option<Expression> {
    let has = |op: Op| operators.contains(&op);
    let factor = |(v, power): (usize, f64)| -> Option<Expression> {
        let variable = Expression::variable(v as u16);
        if power.fract() == 0.0 && power <= 3.0 {
            let all = std::iter::repeat_n(variable, power as usize);
            return all.reduce(|a, b| Expression::apply(Op::Mul, &[a, b]));
        }
        if power == 0.5 && has(Op::Sqrt) {
            return Some(Expression::apply(Op::Sqrt, &[variable]));
        }
        has(Op::Pow).then(|| Expression::apply(Op::Pow, &[variable, Expression::constant(power)]))
    };
    let multiply = |a: Expression, b: Expression| Expression::apply(Op::Mul, &[a, b]);
    let side = |sign: f64| -> Option<Option<Expression>> {
        let powers = powers.iter().map(|power| sign * power).enumerate().filter(|p| p.1 > 0.0);
        let factors = powers.map(factor).collect::<Option<Vec<Expression>>>()?;
        Some(factors.into_iter().reduce(multiply))
    };
    match (side(1.0)?, side(-1.0)?) {
        (above, None) => above,
        (above, Some(below)) => has(Op::Div).then(|| {
            let above = above.unwrap_or_else(|| Expression::constant(1.0));
            Expression::apply(Op::Div, &[above, below])
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formula::units::Units;
    use crate::random::Random;

    #[test]
    fn sums_of_products_of_the_right_unit_are_found() {
        let names = ["n", "V", "r", "L", "eps", "rho", "E"].map(String::from);
        let text = "n=mol,V=V,r=nm,L=nm,eps=J/V^2/nm,rho=mol/nm^3,E=J,y=J/V";
        let units = Units::parse(text, &names, "y", &[], true).unwrap();
        let mut random = Random::new(4, 0);
        let mut value = || 1.0 + 2.0 * random.uniform() as f32;
        let columns: Vec<Vec<f32>> =
            names.iter().map(|_| (0..90).map(|_| value()).collect()).collect();
        let y = |row: usize| {
            let [n, v, r, l, eps, rho, e] = std::array::from_fn(|k| columns[k][row]);
            eps * l * v * rho * r.powi(3) / n + 2.0 * e / v
        };
        let target: Vec<f32> = (0..90).map(y).collect();
        let problem = Problem {
            names: names.to_vec(),
            columns,
            target,
            units: Some(units.clone()),
            ..Problem::default()
        };
        let found = seeds(&problem, &Settings::default());
        assert!(found.iter().all(|e| units.allow(e)));
        assert_eq!(found[0].text(&names), "E / V");
        let error = |e: &Expression| -> f64 {
            let row = |row: usize| {
                let values: Vec<f64> = problem.columns.iter().map(|c| f64::from(c[row])).collect();
                (f64::from(problem.target[row]), e.eval(&values))
            };
            let rows: Vec<(f64, f64)> = (0..90).map(row).collect();
            let scale = rows.iter().map(|r| r.0 * r.1).sum::<f64>()
                / rows.iter().map(|r| r.1 * r.1).sum::<f64>();
            rows.iter().map(|(y, f)| (y - scale * f).abs()).sum::<f64>()
        };
        let least = found.iter().map(error).fold(f64::INFINITY, f64::min);
        assert!(least < 1e-2, "{least}");
        let free = Units::parse(text, &names, "y", &[], false).unwrap();
        let problem = Problem { units: Some(free), ..problem };
        assert!(seeds(&problem, &Settings::default()).is_empty());
    }
}
