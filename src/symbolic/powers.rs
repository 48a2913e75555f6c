//! Products of powers: a factor that can be taken out of a target, and a group of variables that the
//! rest depends on.
//!
//! log |y| is fitted by a quadratic function of the log |x|; at each row that has a gradient, the
//! local powers of the variables. A power that is the same on all rows, and half of a whole number,
//! belongs to a factor y = M · g(the other variables). Gradients that differ along one direction only
//! belong to y = M · F(z) with one product of powers z, as dimensional analysis would find it: such a
//! guess is checked, without knowing F, by how much y / M varies between neighbours in z.
//!
//! Either leaves a smaller problem, on which an enumeration reaches further.

use super::linear::least_squares;
use super::search::Problem;
use crate::formula::expression::{Expression, Op};
use crate::random::Random;

/// Rows that are looked at.
const ROWS: usize = 2000;
/// Variables at most: the quadratic function has a coefficient for each pair.
const VARIABLES: usize = 16;
/// Rows for each coefficient, at least.
const ROWS_EACH: usize = 4;
/// A power is the same everywhere if its deviation is at most this part of the largest one, and this.
const STEADY: (f64, f64) = (0.25, 0.02);
/// How far from half of a whole number a power may be found.
const ROUNDING: f64 = 0.15;
/// Share of the gradients' variance along one direction, at least.
const ALONG: f64 = 0.8;
/// Variance between neighbours in z, as a share of all, at most.
const ROUGH: f64 = 0.01;

/// A smaller problem within another one.
pub(super) struct View {
    /// What its target was divided by.
    pub factor: Expression,
    /// What its variables stand for.
    pub leaves: Vec<Expression>,
    /// Its columns and target, on some rows.
    pub problem: Problem,
}

impl View {
    /// What an expression of the view is in the whole problem.
    pub fn whole(&self, e: &Expression) -> Expression {
        let inside = e.substitute(|v| self.leaves.get(usize::from(v)).cloned());
        match self.factor.as_constant() {
            Some(_) => inside,
            None => Expression::apply(Op::Mul, &[self.factor.clone(), inside]),
        }
    }
}

/// Logarithms on some rows.
struct Logs {
    /// The variables that have some.
    variables: Vec<usize>,
    /// `[variable][row]`, without their means.
    x: Vec<Vec<f64>>,
    y: Vec<f64>,
}

impl Logs {
    fn new(problem: &Problem, random: &mut Random) -> Option<Self> {
        let all = problem.target.len();
        let mut rows: Vec<usize> = match all <= ROWS {
            true => (0..all).collect(),
            false => (0..ROWS).map(|_| random.below(all)).collect(),
        };
        rows.retain(|&row| problem.target[row] != 0.0);
        let value = |variable: usize, row: usize| f64::from(problem.columns[variable][row]);
        let varies = |&v: &usize| {
            let size = |row: &usize| value(v, *row).abs();
            let zeros = rows.iter().filter(|row| size(row) == 0.0).count();
            let least = rows.iter().map(size).fold(f64::INFINITY, f64::min);
            let most = rows.iter().map(size).fold(0.0, f64::max);
            20 * zeros <= rows.len() && most > 1.01 * least
        };
        let variables: Vec<usize> = (0..problem.columns.len()).filter(varies).collect();
        rows.retain(|&row| variables.iter().all(|&v| value(v, row) != 0.0));
        let p = variables.len();
        let enough = rows.len() >= ROWS_EACH * (1 + p + p * (p + 1) / 2);
        if p == 0 || p > VARIABLES || !enough {
            return None;
        }
        let logs = |values: Vec<f64>| -> Vec<f64> {
            let logs: Vec<f64> = values.iter().map(|v| v.abs().ln()).collect();
            let mean = logs.iter().sum::<f64>() / logs.len() as f64;
            logs.into_iter().map(|v| v - mean).collect()
        };
        let column = |&v: &usize| logs(rows.iter().map(|&row| value(v, row)).collect());
        let x = variables.iter().map(column).collect();
        let y = logs(rows.iter().map(|&row| f64::from(problem.target[row])).collect());
        Some(Logs { variables, x, y })
    }

    /// The gradients of the quadratic fit: their mean and covariance.
    fn gradients(&self) -> Option<(Vec<f64>, Vec<Vec<f64>>)> {
        let (p, n) = (self.x.len(), self.y.len());
        let mut columns: Vec<Vec<f32>> = Vec::new();
        let single = |values: &[f64]| values.iter().map(|&v| v as f32).collect();
        columns.extend(self.x.iter().map(|u| -> Vec<f32> { single(u) }));
        for (i, u) in self.x.iter().enumerate() {
            for w in &self.x[i..] {
                let product: Vec<f64> = u.iter().zip(w).map(|(a, b)| a * b).collect();
                columns.push(single(&product));
            }
        }
        let columns: Vec<&[f32]> = columns.iter().map(|c| &c[..]).collect();
        let (_, found) = least_squares(&columns, &single(&self.y))?;
        let mean = found[..p].to_vec();
        let mut curvature = vec![vec![0.0; p]; p];
        let pairs = (0..p).flat_map(|i| (i..p).map(move |j| (i, j)));
        for ((i, j), c) in pairs.zip(&found[p..]) {
            curvature[i][j] += c;
            curvature[j][i] += c;
        }
        let mut covariance = vec![vec![0.0; p]; p];
        for row in 0..n {
            let bend = |c: &Vec<f64>| c.iter().zip(&self.x).map(|(c, u)| c * u[row]).sum();
            let bends: Vec<f64> = curvature.iter().map(bend).collect();
            for i in 0..p {
                for j in 0..p {
                    covariance[i][j] += bends[i] * bends[j] / n as f64;
                }
            }
        }
        Some((mean, covariance))
    }

    /// Σ power · log |x| on each row.
    fn product(&self, powers: &[f64]) -> Vec<f64> {
        let row = |row: usize| powers.iter().zip(&self.x).map(|(k, u)| k * u[row]).sum();
        (0..self.y.len()).map(row).collect()
    }

    /// Variance of log |y / M| between neighbours in z, as a share of all of it.
    fn roughness(&self, factor: &[f64], group: &[f64]) -> f64 {
        let (z, m) = (self.product(group), self.product(factor));
        let rest: Vec<f64> = self.y.iter().zip(&m).map(|(y, m)| y - m).collect();
        let mut order: Vec<usize> = (0..z.len()).collect();
        order.sort_by(|&a, &b| z[a].total_cmp(&z[b]).then(a.cmp(&b)));
        let between: f64 = order.windows(2).map(|w| (rest[w[0]] - rest[w[1]]).powi(2)).sum();
        let mean = rest.iter().sum::<f64>() / rest.len() as f64;
        let all: f64 = rest.iter().map(|r| (r - mean).powi(2)).sum();
        // Where nothing is left there is nothing to explain.
        if all > 1e-8 * rest.len() as f64 { between / (2.0 * all) } else { f64::INFINITY }
    }

    /// Powers for each of the problem's variables.
    fn spread(&self, powers: &[f64], columns: usize) -> Vec<f64> {
        let mut all = vec![0.0; columns];
        self.variables.iter().zip(powers).for_each(|(&v, &k)| all[v] = k);
        all
    }
}

fn half(value: f64) -> f64 {
    (2.0 * value).round() / 2.0
}

/// The direction of most variance, its largest part 1, and its share of all; None without any.
fn direction(covariance: &[Vec<f64>]) -> Option<(Vec<f64>, f64)> {
    let p = covariance.len();
    let trace: f64 = (0..p).map(|i| covariance[i][i]).sum();
    let widest = (0..p).max_by(|&i, &j| covariance[i][i].total_cmp(&covariance[j][j]))?;
    if !(trace.is_finite() && trace > 1e-12) {
        return None;
    }
    let mut a = covariance[widest].clone();
    let mut size = 0.0;
    for _ in 0..60 {
        size = a.iter().map(|v| v * v).sum::<f64>().sqrt();
        a.iter_mut().for_each(|v| *v /= size);
        a = covariance.iter().map(|row| row.iter().zip(&a).map(|(c, v)| c * v).sum()).collect();
        size = a.iter().map(|v| v * v).sum::<f64>().sqrt();
    }
    let largest = a.iter().fold(0.0f64, |most, v| if v.abs() > most.abs() { *v } else { most });
    a.iter_mut().for_each(|v| *v /= largest);
    Some((a, size / trace))
}

/// Powers of a factor M and of a group z with y = M · F(z), the simplest of those that fit.
fn group(logs: &Logs, mean: &[f64], covariance: &[Vec<f64>]) -> Option<[Vec<f64>; 2]> {
    let (a, share) = direction(covariance)?;
    if share < ALONG {
        return None;
    }
    let mut found: Vec<(f64, f64, [Vec<f64>; 2])> = Vec::new();
    for times in [1.0, 2.0] {
        let group: Vec<f64> = a.iter().map(|v| (v * times).round()).collect();
        // A power of z may be part of M: any one variable of the group can be without.
        let free = (0..a.len()).filter(|&i| group[i] != 0.0).map(|i| mean[i] / a[i]);
        for k in free.chain([0.0]) {
            let factor: Vec<f64> = mean.iter().zip(&a).map(|(b, a)| half(b - k * a)).collect();
            let rough = logs.roughness(&factor, &group);
            let size = |k: &f64| if *k == 0.0 { 0.0 } else { 1.0 + k.abs() };
            let size = factor.iter().chain(&group).map(size).sum();
            found.push((rough, size, [factor, group.clone()]));
        }
    }
    let least = found.iter().map(|f| f.0).fold(ROUGH / 3.0, f64::min);
    found.retain(|f| f.0 <= 3.0 * least);
    found.into_iter().min_by(|a, b| a.1.total_cmp(&b.1)).map(|f| f.2)
}

/// Powers of a factor that the curvature does not touch.
fn steady(mean: &[f64], covariance: &[Vec<f64>]) -> Vec<f64> {
    let deviation = |i: usize| covariance[i][i].sqrt();
    let most = (0..mean.len()).map(deviation).fold(0.0, f64::max);
    let power = |i: usize| {
        let near = (mean[i] - half(mean[i])).abs() < ROUNDING;
        let steady = deviation(i) <= STEADY.0 * most + STEADY.1;
        if near && steady { half(mean[i]) } else { 0.0 }
    };
    (0..mean.len()).map(power).collect()
}

/// A power of an expression, which is not 0; None where the operators cannot write it.
pub(super) fn power(e: Expression, k: f64, operators: &[Op]) -> Option<Expression> {
    /// From this power on `^` is shorter than products of a variable.
    const LONG: f64 = 4.0;
    let has = |op: Op| operators.contains(&op);
    let apply = Expression::apply;
    let pow = |e| has(Op::Pow).then(|| apply(Op::Pow, &[e, Expression::constant(k)]));
    if k < 0.0 && !has(Op::Pow) {
        let below = has(Op::Div).then(|| power(e, -k, operators)).flatten()?;
        return Some(apply(Op::Div, &[Expression::constant(1.0), below]));
    }
    if k < 0.0 || k.fract() != 0.0 {
        return if has(Op::Sqrt) && k == 0.5 { Some(apply(Op::Sqrt, &[e])) } else { pow(e) };
    }
    let single = e.nodes().len() == 1;
    if has(Op::Pow) && k != 1.0 && !(single && k < LONG) && !(k == 2.0 && has(Op::Square)) {
        return pow(e);
    }
    let square = |e: Expression| match has(Op::Square) {
        true => apply(Op::Square, &[e]),
        false => apply(Op::Mul, &[e.clone(), e]),
    };
    let (mut product, mut left, mut next) = (None, k as u32, e);
    while left > 0 {
        if left % 2 == 1 {
            product = Some(match product {
                None => next.clone(),
                Some(e) => apply(Op::Mul, &[e, next.clone()]),
            });
        }
        left /= 2;
        next = square(next);
    }
    product
}

/// A product of powers of the variables as an expression; None where the operators cannot write it.
fn product(powers: &[f64], operators: &[Op]) -> Option<Expression> {
    let has = |op: Op| operators.contains(&op);
    let apply = Expression::apply;
    let side = |sign: f64| -> Option<Option<Expression>> {
        let mut side: Option<Expression> = None;
        for (v, k) in powers.iter().enumerate().filter(|(_, k)| **k * sign > 0.0) {
            let power = power(Expression::variable(v as u16), k.abs(), operators)?;
            side = Some(match side {
                None => power,
                Some(side) => apply(Op::Mul, &[side, power]),
            });
        }
        Some(side)
    };
    let above = side(1.0)?.unwrap_or_else(|| Expression::constant(1.0));
    match side(-1.0)? {
        None => Some(above),
        Some(_) if !has(Op::Div) => None,
        Some(below) => Some(apply(Op::Div, &[above, below])),
    }
}

/// The smaller problems that a problem seems to contain, at most one with a factor and one with a
/// factor and a group.
pub(super) fn views(problem: &Problem, operators: &[Op], random: &mut Random) -> Vec<View> {
    let columns = problem.columns.len();
    let Some(logs) = Logs::new(problem, random) else { return Vec::new() };
    let Some((mean, covariance)) = logs.gradients() else { return Vec::new() };
    let mut views = Vec::new();
    if let Some([factor, mut group]) = group(&logs, &mean, &covariance) {
        // More of it above the line than below, or else the first variable.
        let first = group.iter().find(|k| **k != 0.0).map_or(0.0, |k| 0.5 * k.signum());
        if group.iter().sum::<f64>() + first < 0.0 {
            group.iter_mut().for_each(|k| *k = -*k);
        }
        let leaf = product(&logs.spread(&group, columns), operators);
        let factor = product(&logs.spread(&factor, columns), operators);
        if let (Some(leaf), Some(factor)) = (leaf, factor)
            && !(leaf.nodes().len() == 1 && columns == 1 && factor.as_constant().is_some())
        {
            views.push((factor, vec![leaf]));
        }
    }
    let powers = logs.spread(&steady(&mean, &covariance), columns);
    if powers.iter().any(|k| *k != 0.0)
        && let Some(factor) = product(&powers, operators)
    {
        let free = (0..columns).filter(|&v| powers[v] == 0.0);
        let leaves: Vec<Expression> = free.map(|v| Expression::variable(v as u16)).collect();
        let known = views.iter().any(|(f, l)| *f == factor && *l == leaves);
        if !known {
            views.push((factor, leaves));
        }
    }
    views.into_iter().map(|(factor, leaves)| view(problem, factor, leaves, random)).collect()
}

fn view(
    problem: &Problem,
    factor: Expression,
    leaves: Vec<Expression>,
    random: &mut Random,
) -> View {
    let all = problem.target.len();
    let mut small = Problem { columns: vec![Vec::new(); leaves.len()], ..Problem::default() };
    for k in 0..all.min(ROWS) {
        let row = if all <= ROWS { k } else { random.below(all) };
        let values: Vec<f64> = problem.columns.iter().map(|c| f64::from(c[row])).collect();
        let target = f64::from(problem.target[row]) / factor.eval(&values);
        let inputs: Vec<f64> = leaves.iter().map(|leaf| leaf.eval(&values)).collect();
        if inputs.iter().chain([&target]).all(|v| (*v as f32).is_finite()) {
            small.columns.iter_mut().zip(&inputs).for_each(|(c, v)| c.push(*v as f32));
            small.target.push(target as f32);
        }
    }
    View { factor, leaves, problem: small }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 4] = ["a", "b", "c", "d"];
    const OPERATORS: [Op; 6] = [Op::Add, Op::Sub, Op::Mul, Op::Div, Op::Sqrt, Op::Square];

    /// Factor and leaves of each view of a law of four positive variables.
    fn found(law: impl Fn(&[f64; 4]) -> f64) -> Vec<(String, Vec<String>)> {
        let mut random = Random::new(3, 1);
        let mut problem = Problem { columns: vec![Vec::new(); 4], ..Problem::default() };
        for _ in 0..900 {
            let x = [0; 4].map(|_| 1.0 + 3.0 * random.uniform());
            problem.columns.iter_mut().zip(x).for_each(|(c, v)| c.push(v as f32));
            problem.target.push(law(&x) as f32);
        }
        let views = views(&problem, &OPERATORS, &mut Random::new(1, 1));
        let text = |e: &Expression| e.text(&NAMES);
        views.iter().map(|v| (text(&v.factor), v.leaves.iter().map(text).collect())).collect()
    }

    #[test]
    fn factors_and_groups_are_found() {
        let of = |factor: &str, leaves: &[&str]| {
            (factor.to_string(), leaves.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        // A group alone, and one beside a factor that shares a variable with it.
        assert_eq!(
            found(|[a, b, c, d]| 1.0 / ((0.1 * a * b / (c * d)).exp() - 1.0)),
            [of("1", &["a * b / (c * d)"])]
        );
        let shared = found(|[a, b, c, d]| 3.0 * d * b * (0.4 * a * b / c).tanh());
        assert_eq!(shared[0], of("b * d", &["a * b / c"]));
        // A factor of which nothing else depends.
        let rest = found(|[a, b, c, d]| a * a / (b * b * b) * (c + d * d).sqrt());
        assert!(rest.contains(&of("square(a) / (b * square(b))", &["c", "d"])), "{rest:?}");
        let sum = found(|[a, b, c, d]| a * b + c * d);
        assert!(sum.contains(&of("c * d", &["a * b / (c * d)"])), "{sum:?}");
        assert_eq!(found(|[a, b, c, d]| a * b + c + d * d), []);
    }

    #[test]
    fn a_view_is_part_of_the_whole() {
        let parse = |text: &str| Expression::parse(text, &NAMES).unwrap();
        let (factor, leaves) = (parse("a / b"), vec![parse("c * d")]);
        let problem = Problem {
            columns: vec![vec![2.0, 3.0], vec![4.0, 5.0], vec![0.5, 1.5], vec![7.0, 2.0]],
            target: vec![1.0, 6.0],
            ..Problem::default()
        };
        let view = view(&problem, factor, leaves, &mut Random::new(0, 0));
        assert_eq!(view.problem.columns, [vec![3.5, 3.0]]);
        assert_eq!(view.problem.target, [2.0, 10.0]);
        let e = Expression::parse("sqrt(z)", &["z"]).unwrap();
        assert_eq!(view.whole(&e).text(&NAMES), "a / b * sqrt(c * d)");
    }
}
