//! Laws of two products of powers: y = M · g(N), where M and N are constants times powers of the variables and g is
//! one of a few functions. Much of physics has this form: two power laws, the interaction of Lennard-Jones, Planck's
//! and Fermi's distributions, factors of Arrhenius and Lorentz, profiles of Moffat, saturation.
//!
//! In logarithms, log |y| = log M + log |g(N)|: the first part is linear in its constant and its powers. So for each N of
//! whole and half powers and each g only the constant of N is searched, along a line; least squares have the rest. This
//! is a guess on some rows: the search fits and judges what comes out.

use rayon::prelude::*;

use super::enumerate::StopCheck;
use super::powers::power;
use super::search::Problem;
use super::settings::Settings;
use crate::formula::expression::{Expression, Op};
use crate::random::Random;

/// Rows that are looked at.
const ROWS: usize = 120;
/// Rows whose target is a smaller part of the median are left out: their logarithms outweigh all others.
const SMALL: f64 = 0.02;
/// Variables at most.
const VARIABLES: usize = 8;
/// Variables up to which a power k may be a multiple of one of them.
const MULTIPLES: usize = 5;
/// Powers of N at most, and those that a candidate which the search may consider pays for.
const MOST: usize = 3000;
const EACH: f64 = 0.02;
/// The constant of N makes its median e to such powers, …
const CONSTANTS: [f64; 9] = [-4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0];
/// … and is then searched between the neighbours of the best in so many halvings.
const HALVINGS: usize = 24;
/// Share of what a product of powers leaves of log |y| that an N leaves at most to be moved, …
const LEFT: f64 = 0.1;
/// … and to be a guess: what only comes near would lead the search astray.
const NEAR: f64 = 1e-3;
/// Guesses, and how many are moved to better powers before they are chosen.
const GUESSES: usize = 12;
const CLIMBING: usize = 48;
/// Steps of such a move.
const STEPS: usize = 12;
/// A power this near to half of a whole number is that.
const HALF: f64 = 0.06;
const STREAM: u64 = 0x4D0;

/// The functions g of N > 0.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    /// (1 + N)^k
    Plus,
    /// (1 − N)^k
    Minus,
    /// exp(−N)
    Falling,
    /// exp(N)
    Rising,
    /// 1 − exp(−N)
    Saturating,
    /// 1 / (exp(N) − 1)
    Bose,
    /// 1 / (exp(N) + 1)
    Fermi,
    /// log(1 + N)
    Logarithm,
}

const FORMS: [Form; 8] = [
    Form::Plus,
    Form::Minus,
    Form::Falling,
    Form::Rising,
    Form::Saturating,
    Form::Bose,
    Form::Fermi,
    Form::Logarithm,
];

impl Form {
    /// log |g|, for k = 1.
    fn log(self, n: f64) -> f64 {
        match self {
            Form::Plus => n.ln_1p(),
            Form::Minus => (1.0 - n).abs().ln(),
            Form::Falling => -n,
            Form::Rising => n,
            Form::Saturating => (-(-n).exp_m1()).ln(),
            Form::Bose => -n.exp_m1().ln(),
            Form::Fermi => -n.exp().ln_1p(),
            Form::Logarithm => n.ln_1p().ln(),
        }
    }

    /// True for those that have a power k.
    fn has_power(self) -> bool {
        matches!(self, Form::Plus | Form::Minus)
    }

    fn needs(self) -> &'static [Op] {
        match self {
            Form::Plus => &[Op::Add],
            Form::Minus => &[Op::Sub],
            Form::Falling | Form::Rising => &[Op::Exp],
            Form::Saturating => &[Op::Exp, Op::Sub],
            Form::Bose => &[Op::Exp, Op::Sub, Op::Div],
            Form::Fermi => &[Op::Exp, Op::Add, Op::Div],
            Form::Logarithm => &[Op::Log, Op::Add],
        }
    }

    /// g(n), without its power.
    fn of(self, n: Expression) -> Expression {
        let one = || Expression::constant(1.0);
        let apply = Expression::apply;
        let exp = |n: Expression| apply(Op::Exp, &[n]);
        let negative = |n: Expression| apply(Op::Mul, &[Expression::constant(-1.0), n]);
        match self {
            Form::Plus => apply(Op::Add, &[one(), n]),
            Form::Minus => apply(Op::Sub, &[one(), n]),
            Form::Falling => exp(negative(n)),
            Form::Rising => exp(n),
            Form::Saturating => apply(Op::Sub, &[one(), exp(negative(n))]),
            Form::Bose => apply(Op::Div, &[one(), apply(Op::Sub, &[exp(n), one()])]),
            Form::Fermi => apply(Op::Div, &[one(), apply(Op::Add, &[exp(n), one()])]),
            Form::Logarithm => apply(Op::Log, &[apply(Op::Add, &[one(), n])]),
        }
    }
}

/// What was found for an N and a form.
#[derive(Clone, Debug)]
struct Guess {
    form: Form,
    /// The powers of N.
    powers: Vec<f64>,
    /// log of the constant of N.
    constant: f64,
    /// The variable that the power k is a multiple of.
    times: Option<usize>,
    /// What is left of log |y|, squared and summed.
    left: f64,
}

/// Logarithms on some rows, and what products of powers do not explain of them.
struct Logs {
    /// The variables that have some, in the numbers of the problem.
    variables: Vec<usize>,
    /// `[variable][row]` of the variables, and their logarithms.
    values: Vec<Vec<f64>>,
    x: Vec<Vec<f64>>,
    y: Vec<f64>,
    /// Whether the target is.
    positive: Vec<bool>,
    /// An orthonormal basis of the constants and the logarithms of the variables.
    basis: Vec<Vec<f64>>,
    /// What it leaves of `y`.
    left: Vec<f64>,
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

impl Logs {
    fn new(problem: &Problem, random: &mut Random) -> Option<Self> {
        let target = &problem.target;
        let mut sizes: Vec<f32> = target.iter().map(|y| y.abs()).collect();
        let half = sizes.len() / 2;
        let least = SMALL as f32 * *sizes.select_nth_unstable_by(half, f32::total_cmp).1;
        let weight = |row: usize| problem.weights.as_ref().map_or(1.0, |weights| weights[row]);
        let clear = |row: &usize| target[*row].abs() > least && weight(*row) > 0.0;
        let mut rows: Vec<usize> = (0..target.len()).filter(clear).collect();
        for k in 0..rows.len().min(ROWS) {
            let other = k + random.below(rows.len() - k);
            rows.swap(k, other);
        }
        rows.truncate(ROWS);
        let positive = |&v: &usize| {
            let mut values = rows.iter().map(|&row| problem.columns[v][row]);
            values.all(|x| x > 0.0)
        };
        let varies = |&v: &usize| {
            let column = &problem.columns[v];
            rows.iter().any(|&row| (column[row] / column[rows[0]] - 1.0).abs() > 0.01)
        };
        let variables = 0..problem.columns.len();
        let variables: Vec<usize> = variables.filter(positive).filter(varies).collect();
        let p = variables.len();
        if p == 0 || p > VARIABLES || rows.len() < 4 * (p + 3) {
            return None;
        }
        let column = |&v: &usize| -> Vec<f64> {
            rows.iter().map(|&row| f64::from(problem.columns[v][row])).collect()
        };
        let values: Vec<Vec<f64>> = variables.iter().map(column).collect();
        let x: Vec<Vec<f64>> =
            values.iter().map(|column| column.iter().map(|v| v.ln()).collect()).collect();
        let y: Vec<f64> = rows.iter().map(|&row| f64::from(target[row].abs()).ln()).collect();
        let positive = rows.iter().map(|&row| target[row] > 0.0).collect();
        let mut logs =
            Logs { variables, values, x, left: y.clone(), y, positive, basis: Vec::new() };
        let ones = vec![1.0; rows.len()];
        for column in std::iter::once(&ones).chain(&logs.x.clone()) {
            let mut rest = logs.rejected(column);
            let size = dot(&rest, &rest).sqrt();
            if size <= 1e-6 * dot(column, column).sqrt() {
                return None;
            }
            rest.iter_mut().for_each(|v| *v /= size);
            logs.basis.push(rest);
        }
        logs.left = logs.rejected(&logs.y);
        Some(logs)
    }

    /// A column without what the basis explains.
    fn rejected(&self, column: &[f64]) -> Vec<f64> {
        let mut rest = column.to_vec();
        for unit in &self.basis {
            let along = dot(&rest, unit);
            rest.iter_mut().zip(unit).for_each(|(v, u)| *v -= along * u);
        }
        rest
    }

    /// Σ power · log x on each row.
    fn product(&self, powers: &[f64]) -> Vec<f64> {
        let row = |row: usize| powers.iter().zip(&self.x).map(|(p, x)| p * x[row]).sum();
        (0..self.y.len()).map(row).collect()
    }

    /// log |g(N)| on each row where log N is `constant` more than `n`, and times a variable.
    fn column(&self, form: Form, n: &[f64], constant: f64, times: Option<usize>) -> Vec<f64> {
        let mut column: Vec<f64> =
            n.iter().map(|n| form.log((n + constant).min(700.0).exp())).collect();
        if let Some(v) = times {
            column.iter_mut().zip(&self.values[v]).for_each(|(c, x)| *c *= x);
        }
        column
    }

    /// What is left of log |y| beside it and any product of powers; infinite where g is not finite.
    fn left(&self, form: Form, column: &[f64]) -> f64 {
        let rest = self.rejected(column);
        let (own, with) = (dot(&rest, &rest), dot(&rest, &self.left));
        let left = match form.has_power() {
            true => dot(&self.left, &self.left) - with * with / own.max(1e-300),
            false => dot(&self.left, &self.left) - 2.0 * with + own,
        };
        if left.is_finite() { left } else { f64::INFINITY }
    }

    /// The best constant of an N.
    fn best(&self, form: Form, powers: &[f64], times: Option<usize>) -> Guess {
        let n = self.product(powers);
        let mut sorted = n.clone();
        let half = sorted.len() / 2;
        let median = *sorted.select_nth_unstable_by(half, f64::total_cmp).1;
        let left = |constant: f64| self.left(form, &self.column(form, &n, constant, times));
        // Also none at all; and where the sign of 1 − N has to change, what puts it between the rows of either sign.
        let begun = CONSTANTS.iter().map(|c| c - median).chain([0.0]).chain(self.change(form, &n));
        let tried = begun.map(|constant| (constant, left(constant)));
        let best = tried.min_by(|a, b| a.1.total_cmp(&b.1)).expect("some");
        let (mut constant, mut least) = best;
        let mut step = 0.5;
        // Hopeless ones are not worth a search.
        let halvings = if least < 0.7 * self.all() { HALVINGS } else { 0 };
        for _ in 0..halvings {
            for other in [constant - step, constant + step] {
                let found = left(other);
                if found < least {
                    (constant, least) = (other, found);
                }
            }
            step /= 2.0;
        }
        Guess { form, powers: powers.to_vec(), constant, times, left: least }
    }

    /// The constant with which 1 − N is 0 between the rows of either sign; none where the signs do not part so.
    fn change(&self, form: Form, n: &[f64]) -> Option<f64> {
        let ends = |positive: bool| {
            let rows = n.iter().zip(&self.positive).filter(|row| *row.1 == positive);
            rows.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), (&n, _)| {
                (low.min(n), high.max(n))
            })
        };
        let ([low, high], [other_low, other_high]) =
            (<[f64; 2]>::from(ends(true)), <[f64; 2]>::from(ends(false)));
        match form {
            Form::Minus if high < other_low => Some(-0.5 * (high + other_low)),
            Form::Minus if other_high < low => Some(-0.5 * (other_high + low)),
            _ => None,
        }
        .filter(|constant| constant.is_finite())
    }

    /// The guess with the powers of N half a step away, as long as that is better.
    fn climbed(&self, guess: &Guess, late: &StopCheck) -> Guess {
        let mut best = guess.clone();
        for _ in 0..STEPS {
            let neighbours = (0..2 * best.powers.len()).map(|k| {
                let mut powers = best.powers.clone();
                powers[k / 2] += if k % 2 == 0 { 0.5 } else { -0.5 };
                self.best(best.form, &powers, best.times)
            });
            let next = neighbours.min_by(|a, b| a.left.total_cmp(&b.left));
            match next {
                Some(next) if next.left < best.left && !late() => best = next,
                _ => break,
            }
        }
        best
    }

    /// What products of powers alone leave of log |y|.
    fn all(&self) -> f64 {
        dot(&self.left, &self.left)
    }
}

/// Powers of N, the simplest first: whole ones up to 2, times ½, 1, 3 or 6, at most so many.
fn all_powers(variables: usize, most: usize) -> Vec<Vec<f64>> {
    let mut all: Vec<Vec<f64>> = vec![vec![]];
    for _ in 0..variables {
        let with = |powers: &Vec<f64>| {
            let used = powers.iter().filter(|p| **p != 0.0).count();
            let values: &[f64] = match used {
                // More than four variables in a group, or powers in many, are rare.
                4.. => &[0.0],
                2 | 3 if variables > 4 => &[0.0, 1.0, -1.0],
                _ => &[0.0, 1.0, -1.0, 2.0, -2.0],
            };
            let next = |value: &f64| [&powers[..], &[*value]].concat();
            values.iter().map(next).collect::<Vec<_>>()
        };
        all = all.iter().flat_map(with).collect();
    }
    let whole = |powers: &Vec<f64>| powers.iter().any(|p| p.abs() == 1.0);
    all.retain(whole);
    let mut times: Vec<Vec<f64>> = Vec::new();
    for factor in [1.0, 2.0, 0.5, 3.0, 6.0] {
        times.extend(all.iter().map(|powers| powers.iter().map(|p| p * factor).collect()));
    }
    // Halves are rarer than their size says.
    let size = |powers: &Vec<f64>| {
        powers.iter().map(|p| if p.fract() == 0.0 { p.abs() } else { 1.5 + p.abs() }).sum()
    };
    times.sort_by(|a, b| f64::total_cmp(&size(a), &size(b)));
    times.truncate(most);
    times
}

/// Laws of two products of powers that explain much of the target; none where it is to end before.
pub(super) fn seeds(problem: &Problem, settings: &Settings, late: &StopCheck) -> Vec<Expression> {
    let has = |op: &Op| settings.operators.contains(op);
    if !settings.scaled()
        || !has(&Op::Div)
        || problem.template.is_some()
        || problem.target.len() < 16
    {
        return Vec::new();
    }
    let Some(logs) = Logs::new(problem, &mut Random::new(settings.seed, STREAM)) else {
        return Vec::new();
    };
    // A product of powers alone is for others to find.
    let spread = logs.y.iter().map(|y| (y - logs.y[0]).powi(2)).sum::<f64>();
    if logs.all() <= 1e-9 * spread {
        return Vec::new();
    }
    let effort = settings.evaluations.map_or(f64::INFINITY, |n| EACH * n as f64);
    let powers = all_powers(logs.variables.len(), (effort as usize).min(MOST));
    let forms: Vec<Form> = FORMS.into_iter().filter(|form| form.needs().iter().all(has)).collect();
    let guesses = |powers: &Vec<f64>| -> Vec<Guess> {
        if late() {
            return Vec::new();
        }
        let of = |form: &Form| {
            let variables = logs.variables.len();
            let may = form.has_power() && has(&Op::Pow) && variables <= MULTIPLES;
            let multiples = (0..variables).filter(|_| may).map(Some);
            let times = std::iter::once(None).chain(multiples);
            let guess = |times| logs.best(*form, powers, times);
            times.map(guess).collect::<Vec<_>>()
        };
        forms.iter().flat_map(of).filter(|guess| guess.left < LEFT * logs.all()).collect()
    };
    let mut found: Vec<Guess> = powers.par_iter().flat_map_iter(guesses).collect();
    let order = |found: &mut Vec<Guess>| found.sort_by(|a, b| a.left.total_cmp(&b.left));
    order(&mut found);
    found.truncate(CLIMBING);
    let mut found: Vec<Guess> = found.par_iter().map(|guess| logs.climbed(guess, late)).collect();
    found.retain(|guess| guess.left < NEAR * logs.all());
    order(&mut found);
    found.dedup_by(|a, b| (a.form, &a.powers, a.times) == (b.form, &b.powers, b.times));
    found.truncate(GUESSES);
    found.iter().filter_map(|guess| logs.law(guess, problem, settings)).collect()
}

impl Logs {
    /// A guess as an expression of the problem's variables; None where the operators cannot write it.
    fn law(&self, guess: &Guess, problem: &Problem, settings: &Settings) -> Option<Expression> {
        let Guess { form, ref powers, constant, times, .. } = *guess;
        let column = self.column(form, &self.product(powers), constant, times);
        let rest = self.rejected(&column);
        let k = if form.has_power() {
            near_half(dot(&rest, &self.left) / dot(&rest, &rest))
        } else {
            1.0
        };
        let target: Vec<f64> = self.y.iter().zip(&column).map(|(y, c)| y - k * c).collect();
        let own = self.powers_of(&target)?;
        let of_problem = |powers: &[f64]| {
            let powers = self.variables.iter().zip(powers).filter(|(_, p)| **p != 0.0);
            powers.map(|(&v, &p)| (v, p)).collect::<Vec<_>>()
        };
        let own: Vec<f64> = own.into_iter().map(near_half).collect();
        let own_product = self.product(&own);
        let offset =
            target.iter().zip(&own_product).map(|(t, m)| t - m).sum::<f64>() / target.len() as f64;
        let scaled = |factor: f64, e: Expression| match (factor - 1.0).abs() < 5e-3 {
            true => e,
            false => Expression::apply(Op::Mul, &[Expression::constant(factor), e]),
        };
        let n = scaled(constant.exp(), monomial(&of_problem(powers), &settings.operators)?);
        let mut g = form.of(n);
        g = match (times, k) {
            (None, 0.0) => return None,
            (None, -1.0) => Expression::apply(Op::Div, &[Expression::constant(1.0), g]),
            (None, k) => power(g, k, &settings.operators)?,
            (Some(v), k) => {
                let exponent = scaled(k, Expression::variable(self.variables[v] as u16));
                Expression::apply(Op::Pow, &[g, exponent])
            }
        };
        let product = match monomial(&of_problem(&own), &settings.operators)? {
            one if one.as_constant() == Some(1.0) => g,
            m => Expression::apply(Op::Mul, &[m, g]),
        };
        // The sign that most rows have.
        let values =
            |row: usize| problem.columns.iter().map(|c| f64::from(c[row])).collect::<Vec<f64>>();
        let agrees =
            |row: &usize| product.eval(&values(*row)) * f64::from(problem.target[*row]) > 0.0;
        let looked_at = problem.target.len().min(1000);
        let sign = if 2 * (0..looked_at).filter(agrees).count() > looked_at { 1.0 } else { -1.0 };
        Some(scaled(sign * offset.exp(), product))
    }

    /// The powers of the product that comes nearest to a logarithm.
    fn powers_of(&self, target: &[f64]) -> Option<Vec<f64>> {
        let single = |values: &[f64]| values.iter().map(|&v| v as f32).collect::<Vec<f32>>();
        let columns: Vec<Vec<f32>> = self.x.iter().map(|x| single(x)).collect();
        let columns: Vec<&[f32]> = columns.iter().map(|c| &c[..]).collect();
        super::linear::least_squares(&columns, &single(target)).map(|found| found.1)
    }
}

fn near_half(power: f64) -> f64 {
    let half = (2.0 * power).round() / 2.0;
    if (power - half).abs() < HALF { half } else { power }
}

/// A product of powers of variables. Variables of the same power, or of opposite ones, are one group.
fn monomial(powers: &[(usize, f64)], operators: &[Op]) -> Option<Expression> {
    let mut sizes: Vec<f64> = powers.iter().map(|(_, p)| p.abs()).collect();
    sizes.sort_by(f64::total_cmp);
    sizes.dedup();
    let product = |variables: Vec<usize>| {
        let variables = variables.into_iter().map(|v| Expression::variable(v as u16));
        variables.reduce(|a, b| Expression::apply(Op::Mul, &[a, b]))
    };
    let (mut above, mut below): (Option<Expression>, Option<Expression>) = (None, None);
    let times = |side: &mut Option<Expression>, e: Expression| {
        *side = Some(match side.take() {
            None => e,
            Some(side) => Expression::apply(Op::Mul, &[side, e]),
        });
    };
    for size in sizes {
        let with = |sign: f64| {
            let of = powers.iter().filter(|(_, p)| *p == sign * size);
            product(of.map(|(v, _)| *v).collect())
        };
        match (with(1.0), with(-1.0)) {
            // A quotient under one power is shorter than two powers.
            (Some(a), Some(b)) if size != 1.0 => {
                let quotient = Expression::apply(Op::Div, &[a, b]);
                times(&mut above, power(quotient, size, operators)?);
            }
            (a, b) => {
                if let Some(a) = a {
                    times(&mut above, power(a, size, operators)?);
                }
                if let Some(b) = b {
                    times(&mut below, power(b, size, operators)?);
                }
            }
        }
    }
    let above = above.unwrap_or_else(|| Expression::constant(1.0));
    Some(match below {
        None => above,
        Some(below) => Expression::apply(Op::Div, &[above, below]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A column, and the values that it has.
    type Range = (&'static str, f64, f64);

    /// The errors of the best guess, relative to the spread, for a law of columns in these ranges.
    fn error(law: &str, ranges: &[Range], seed: u64) -> f64 {
        let names: Vec<&str> = ranges.iter().map(|r| r.0).collect();
        let truth = Expression::parse(law, &names).unwrap();
        let mut random = Random::new(seed, 1);
        let mut problem = Problem { columns: vec![Vec::new(); names.len()], ..Problem::default() };
        for _ in 0..300 {
            let x: Vec<f64> = ranges.iter().map(|r| r.1 + (r.2 - r.1) * random.uniform()).collect();
            problem.columns.iter_mut().zip(&x).for_each(|(c, v)| c.push(*v as f32));
            problem.target.push(truth.eval(&x) as f32);
        }
        let settings = Settings { evaluations: Some(50_000), ..Settings::default() };
        let found = seeds(&problem, &settings, &|| false);
        let spread = problem.target.iter().map(|y| f64::from(y.abs())).sum::<f64>();
        let error = |e: &Expression| {
            let row = |row: usize| {
                let x: Vec<f64> = problem.columns.iter().map(|c| f64::from(c[row])).collect();
                (e.eval(&x) - f64::from(problem.target[row])).abs()
            };
            (0..300).map(row).sum::<f64>() / spread
        };
        found.iter().map(error).fold(f64::INFINITY, f64::min)
    }

    #[test]
    fn laws_of_two_products_are_found() {
        let cases: [(&str, &[Range]); 9] = [
            (
                "4 * e * ((s / r)^12 - (s / r)^6)",
                &[("e", 0.5, 2.0), ("s", 0.8, 1.2), ("r", 0.9, 2.5)],
            ),
            (
                "2 * h * f^3 / (c * c * (exp(h * f / (k * T)) - 1))",
                &[
                    ("h", 1.0, 2.0),
                    ("f", 0.5, 4.0),
                    ("c", 1.0, 2.0),
                    ("k", 1.0, 2.0),
                    ("T", 0.5, 2.0),
                ],
            ),
            (
                "I * (1 + (r / a)^2)^(-1 * b)",
                &[("I", 1.0, 5.0), ("r", 0.1, 3.0), ("a", 0.5, 2.0), ("b", 1.0, 3.0)],
            ),
            ("m / (1 - v * v / (c * c))^0.5", &[("m", 1.0, 3.0), ("v", 0.1, 0.9), ("c", 1.0, 2.0)]),
            ("V * s / (k + s)", &[("V", 1.0, 3.0), ("s", 0.1, 5.0), ("k", 0.5, 2.0)]),
            (
                "a * exp(-0.7 * e / (k * t))",
                &[("a", 1.0, 3.0), ("e", 0.5, 3.0), ("k", 0.5, 2.0), ("t", 1.0, 2.0)],
            ),
            ("4 * (1.7 * (s / r)^9 - (s / r)^6)", &[("s", 0.8, 1.2), ("r", 0.9, 2.5)]),
            ("3 * x^1.5 + 0.4 * x^4 / y", &[("x", 0.5, 3.0), ("y", 0.5, 3.0)]),
            (
                "-2 * q * (1 - exp(-1 * t / (r * c)))",
                &[("q", 1.0, 3.0), ("t", 0.1, 3.0), ("r", 0.5, 2.0), ("c", 0.5, 2.0)],
            ),
        ];
        for (law, ranges) in cases {
            for seed in [5, 6] {
                let error = error(law, ranges, seed);
                assert!(error < 1e-4, "{law}: {error}");
            }
        }
    }

    #[test]
    fn monomials_have_groups() {
        let names = ["a", "b", "c"];
        let text = |powers: &[(usize, f64)], operators: &[Op]| {
            monomial(powers, operators).map(|e| e.text(&names))
        };
        let all = [Op::Mul, Op::Div, Op::Pow];
        assert_eq!(text(&[(0, 12.0), (1, -12.0)], &all).unwrap(), "(a / b)^12");
        assert_eq!(text(&[(0, 1.0), (1, -1.0), (2, 2.0)], &all).unwrap(), "a * (c * c) / b");
        assert_eq!(text(&[], &all).unwrap(), "1");
        assert_eq!(text(&[(1, -0.5)], &all[..2]), None);
    }
}
