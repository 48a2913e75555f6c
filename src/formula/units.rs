//! Dimensional analysis: which formulas make sense, given the units of the columns.
//!
//! Sums, comparisons and the branches of IF need equal dimensions; functions such as exp need a pure number. A constant
//! has whatever dimension fits, unless constants are declared to be pure numbers.

use super::expression::{Expression, Node, Op};
use super::operator::Rule;
use crate::error::{Error, Result};

/// Powers of the base units, in the order of [`Units::base`].
type Dimension = Vec<f64>;

/// Powers closer than this are the same: a fitted exponent is not exact.
const SAME: f64 = 1e-3;

/// Largest exponent of a quantity with a unit.
const MOST: f64 = 6.0;

/// Powers of inputs in products; free inputs in a product, beyond those whose powers the units determine; number of
/// products examined.
const POWERS: [f64; 10] = [1.0, -1.0, 2.0, -2.0, 3.0, -3.0, 0.5, -0.5, 1.5, -1.5];
const FREE: usize = 3;
const MOST_PRODUCTS: usize = 300_000;

/// Visits every choice of powers of a few `free` inputs, in addition to those already `chosen`; at most `left` choices.
fn choices(
    free: &[usize],
    chosen: &mut Vec<(usize, f64)>,
    left: &mut usize,
    visit: &mut impl FnMut(&[(usize, f64)]),
) {
    if *left == 0 {
        return;
    }
    *left -= 1;
    visit(chosen);
    if chosen.len() == FREE {
        return;
    }
    for (at, &input) in free.iter().enumerate() {
        for power in POWERS {
            chosen.push((input, power));
            choices(&free[at + 1..], chosen, left, visit);
            chosen.pop();
        }
    }
}

/// Units that are products of base units.
const DERIVED: [(&str, &str); 9] = [
    ("N", "kg * m / s^2"),
    ("J", "kg * m^2 / s^2"),
    ("W", "kg * m^2 / s^3"),
    ("Pa", "kg / (m * s^2)"),
    ("Hz", "1 / s"),
    ("C", "A * s"),
    ("V", "kg * m^2 / (A * s^3)"),
    ("F", "A^2 * s^4 / (kg * m^2)"),
    ("T", "kg / (A * s^2)"),
];

/// The units of a table's columns.
#[derive(Clone, Debug, PartialEq)]
pub struct Units {
    base: Vec<String>,
    /// Unit of each input; None if any will do.
    inputs: Vec<Option<Dimension>>,
    target: Option<Dimension>,
    /// True if constants are pure numbers.
    pure_constants: bool,
}

impl Units {
    /// Reads `column=unit` pairs such as `r=m`, `F=kg*m/s^2`, `phi=1`, separated by commas. Columns that are not named
    /// may have any dimension; units of `others` are ignored.
    ///
    /// # Errors
    /// An unknown column, a column named twice, a unit that cannot be read.
    pub fn parse(
        text: &str,
        inputs: &[String],
        target: &str,
        others: &[String],
        pure_constants: bool,
    ) -> Result<Self> {
        let error = |message: String| Error::usage(message).field("units");
        let mut units = Units {
            base: Vec::new(),
            inputs: vec![None; inputs.len()],
            target: None,
            pure_constants,
        };
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (column, unit) = pair
                .split_once('=')
                .map(|(column, unit)| (column.trim(), unit.trim()))
                .ok_or_else(|| error(format!("'{pair}' must read column=unit, as in r=m")))?;
            let dimension = units.dimension(unit).map_err(|message| {
                error(format!("'{unit}' of column '{column}' is not a unit: {message}"))
            })?;
            let place = match inputs.iter().position(|name| name == column) {
                Some(index) => &mut units.inputs[index],
                None if column == target => &mut units.target,
                None if others.iter().any(|name| name == column) => continue,
                None => {
                    return Err(error(format!("'{column}' is neither an input nor the target")));
                }
            };
            if place.replace(dimension).is_some() {
                return Err(error(format!("'{column}' has two units")));
            }
        }
        let length = units.base.len();
        for dimension in units.inputs.iter_mut().chain([&mut units.target]).flatten() {
            dimension.resize(length, 0.0);
        }
        Ok(units)
    }

    /// The powers of base units in a text; new base units are registered.
    fn dimension(&mut self, text: &str) -> Result<Dimension, String> {
        let words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
        let words: Vec<&str> =
            words.filter(|w| w.starts_with(|c: char| c.is_alphabetic())).collect();
        let e = Expression::parse(text, &words).map_err(|e| e.message)?;
        let mut meanings = Vec::new();
        for word in &words {
            meanings.push(match DERIVED.iter().find(|d| d.0 == *word) {
                Some((_, meaning)) => self.dimension(meaning)?,
                None => {
                    let known = self.base.iter().position(|b| b == word);
                    let index = known.unwrap_or_else(|| {
                        self.base.push(word.to_string());
                        self.base.len() - 1
                    });
                    let mut dimension = vec![0.0; index + 1];
                    dimension[index] = 1.0;
                    dimension
                }
            });
        }
        let length = self.base.len();
        meanings.iter_mut().for_each(|m| m.resize(length, 0.0));
        // Each node is a product of powers or a number.
        let combined = e.fold(|node, operands: &[Option<(Dimension, f64)>]| match node {
            Node::Constant(value) => Some((vec![0.0; length], value)),
            Node::Variable(v) => Some((meanings[usize::from(v)].clone(), 1.0)),
            Node::Op(op) => {
                let (a, x) = operands[0].as_ref()?;
                let (b, y) = operands.get(1)?.as_ref()?;
                match op {
                    Op::Mul => Some((add(a, b, 1.0), x * y)),
                    Op::Div => Some((add(a, b, -1.0), x / y)),
                    Op::Pow if b.iter().all(|&p| p == 0.0) => {
                        Some((a.iter().map(|p| p * y).collect(), x.powf(*y)))
                    }
                    _ => None,
                }
            }
        });
        let products = "only products, quotients and powers of names are allowed here";
        combined.map(|c| c.0).ok_or_else(|| products.to_string())
    }

    /// The powers of the inputs, one list for each product of inputs that has the target's unit: whole ones up to ±3
    /// and halves up to ±3/2, of inputs whose units are known. None if the target's unit is not known.
    pub(crate) fn products(&self) -> Vec<Vec<f64>> {
        let Some(target) = &self.target else { return Vec::new() };
        let known: Vec<usize> =
            (0..self.inputs.len()).filter(|&k| self.inputs[k].is_some()).collect();
        // One equation for each base unit, the target's power last, solved for as many inputs as possible.
        let power = |k: usize, base: usize| self.inputs[k].as_ref().map_or(0.0, |d| d[base]);
        let mut equations: Vec<Vec<f64>> = (0..self.base.len())
            .map(|base| known.iter().map(|&k| power(k, base)).chain([target[base]]).collect())
            .collect();
        let mut solved: Vec<usize> = Vec::new();
        for column in 0..known.len() {
            let done = solved.len();
            let size = |row: &usize| equations[*row][column].abs();
            let Some(pivot) = (done..equations.len()).max_by(|a, b| size(a).total_cmp(&size(b)))
            else {
                break;
            };
            if size(&pivot) < SAME {
                continue;
            }
            equations.swap(done, pivot);
            let scale = equations[done][column];
            equations[done].iter_mut().for_each(|v| *v /= scale);
            let own = equations[done].clone();
            for (row, other) in equations.iter_mut().enumerate() {
                let factor = if row == done { 0.0 } else { other[column] };
                other.iter_mut().zip(&own).for_each(|(v, own)| *v -= factor * own);
            }
            solved.push(column);
        }
        let last = known.len();
        if equations[solved.len()..].iter().any(|equation| equation[last].abs() > SAME) {
            return Vec::new();
        }
        let free: Vec<usize> = (0..last).filter(|column| !solved.contains(column)).collect();
        let mut found = Vec::new();
        let mut visit = |chosen: &[(usize, f64)]| {
            let mut powers = vec![0.0; self.inputs.len()];
            chosen.iter().for_each(|&(column, power)| powers[known[column]] = power);
            for (&column, equation) in solved.iter().zip(&equations) {
                let beside = |&(other, power): &(usize, f64)| equation[other] * power;
                powers[known[column]] = equation[last] - chosen.iter().map(beside).sum::<f64>();
            }
            let nearest = |power: &f64| (2.0 * power).round() / 2.0;
            let simple = |power: &f64| {
                let rounded = nearest(power);
                (rounded - power).abs() < SAME && (rounded == 0.0 || POWERS.contains(&rounded))
            };
            if powers.iter().all(simple) && powers.iter().any(|power| nearest(power) != 0.0) {
                found.push(powers.iter().map(nearest).collect());
            }
        };
        let mut left = MOST_PRODUCTS;
        choices(&free, &mut Vec::new(), &mut left, &mut visit);
        found
    }

    /// True if constants are pure numbers.
    pub fn pure_constants(&self) -> bool {
        self.pure_constants
    }

    /// The expression with exponents of quantities with units replaced by small fractions, and the indices of these
    /// constants: a freely fitted exponent would fit no unit.
    pub fn exponents(&self, e: &Expression) -> (Expression, Vec<u16>) {
        let mut nodes = e.nodes().to_vec();
        let (mut constants, mut held) = (0, Vec::new());
        let mut stack: Vec<Option<Found>> = Vec::new();
        for at in 0..nodes.len() {
            let first = stack.len() - nodes[at].arity();
            if let Node::Constant(_) = nodes[at] {
                constants += 1;
            }
            let unit = |base: &Found| base.dimension.as_ref().is_some_and(|d| !is_number(d));
            if nodes[at] == Node::Op(Op::Pow)
                && let Node::Constant(power) = nodes[at - 1]
                && stack[first].as_ref().is_some_and(unit)
            {
                nodes[at - 1] = Node::Constant(fraction(power));
                stack[first + 1] = self.of(nodes[at - 1], &[]);
                held.push(constants - 1);
            }
            let operands: Option<Vec<&Found>> = stack[first..].iter().map(Option::as_ref).collect();
            let found = operands.and_then(|operands| self.of(nodes[at], &operands));
            stack.truncate(first);
            stack.push(found);
        }
        (Expression::from_nodes(nodes), held)
    }

    /// The same; if the formula does not fit the units, one of those exponents is changed to the nearest fraction that
    /// makes it fit.
    pub fn with_exponents(&self, e: &Expression) -> Expression {
        let (e, held) = self.exponents(e);
        if held.is_empty() || self.allow(&e) {
            return e;
        }
        let values = e.constants();
        for k in held.into_iter().map(usize::from) {
            let mut trials: Vec<f64> = (1..=3)
                .flat_map(|d| (1..=3 * d).map(move |n| f64::from(n) / f64::from(d)))
                .flat_map(|power| [power, -power])
                .collect();
            trials.sort_by(|a, b| (a - values[k]).abs().total_cmp(&(b - values[k]).abs()));
            for power in trials {
                let mut constants = values.clone();
                constants[k] = power;
                let mut trial = e.clone();
                trial.set_constants(&constants);
                if self.allow(&trial) {
                    return trial;
                }
            }
        }
        e
    }

    /// True if the formula is dimensionally consistent and can be the target.
    pub fn allow(&self, formula: &Expression) -> bool {
        let Some(found) = formula.fold(|node, operands: &[Option<Found>]| {
            let operands: Option<Vec<&Found>> = operands.iter().map(Option::as_ref).collect();
            self.of(node, &operands?)
        }) else {
            return false;
        };
        match (&found.dimension, &self.target) {
            (Some(found), Some(target)) => same(found, target),
            _ => true,
        }
    }

    /// The dimension of an operator's result; None if its operands do not fit.
    fn of(&self, node: Node, operands: &[&Found]) -> Option<Found> {
        let number = || Some(vec![0.0; self.base.len()]);
        let op = match node {
            Node::Constant(value) => {
                let dimension = if self.pure_constants { number() } else { None };
                return Some(Found { dimension, value: Some(value) });
            }
            Node::Variable(v) => {
                let dimension = self.inputs[usize::from(v)].clone();
                return Some(Found { dimension, value: None });
            }
            Node::Op(op) => op,
        };
        let a = &operands[0].dimension;
        let b = operands.get(1).map_or(a, |o| &o.dimension);
        let times = |power: f64| a.as_ref().map(|a| a.iter().map(|p| p * power).collect());
        let dimension = match op.row().units {
            Rule::Equal => common(a, b)?,
            Rule::Comparison => {
                common(a, b)?;
                number()
            }
            Rule::Choice => common(b, &operands[2].dimension)?,
            Rule::Product(power) => match (a, b) {
                (Some(a), Some(b)) => Some(add(a, b, power)),
                _ => None,
            },
            Rule::Exponent => {
                common(b, &number())?;
                match (a, operands[1].value) {
                    (Some(a), _) if is_number(a) => number(),
                    (Some(_), Some(power)) => times(power),
                    (Some(_), None) => return None,
                    (None, _) => None,
                }
            }
            Rule::Power(power) => times(power),
            Rule::Number => {
                common(a, &number())?;
                number()
            }
        };
        Some(Found { dimension, value: None })
    }
}

/// What is known about a sub-tree.
struct Found {
    /// None if any dimension fits.
    dimension: Option<Dimension>,
    /// The number, if it is one.
    value: Option<f64>,
}

/// The nearest of the numbers k, k/2 and k/3 that is neither 0 nor beyond ±[`MOST`].
fn fraction(power: f64) -> f64 {
    let near = |denominator: f64| {
        let numerator = (power.clamp(-MOST, MOST) * denominator).round();
        let numerator = if numerator == 0.0 { 1f64.copysign(power) } else { numerator };
        numerator / denominator
    };
    let all = [1.0, 2.0, 3.0].map(near);
    let far = |f: &f64| (f - power).abs();
    all.into_iter().min_by(|a, b| far(a).total_cmp(&far(b))).expect("three")
}

fn add(a: &[f64], b: &[f64], sign: f64) -> Dimension {
    a.iter().zip(b).map(|(a, b)| a + sign * b).collect()
}

fn same(a: &[f64], b: &[f64]) -> bool {
    a.iter().zip(b).all(|(a, b)| (a - b).abs() < SAME)
}

fn is_number(a: &[f64]) -> bool {
    a.iter().all(|p| p.abs() < SAME)
}

/// The dimension that both can have; None if there is none.
fn common(a: &Option<Dimension>, b: &Option<Dimension>) -> Option<Option<Dimension>> {
    match (a, b) {
        (Some(a), Some(b)) => same(a, b).then(|| Some(a.clone())),
        (Some(known), None) | (None, Some(known)) => Some(Some(known.clone())),
        (None, None) => Some(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        ["m", "r", "t", "a"].map(String::from).to_vec()
    }

    fn units(text: &str, pure_constants: bool) -> Units {
        Units::parse(text, &names(), "F", &[], pure_constants).unwrap()
    }

    #[test]
    fn formulas_without_sense_are_refused() {
        let free = units("m=kg, r=m, t=s, a=1, F=N", false);
        let pure = units("m=kg, r=m, t=s, a=1, F=kg*m/s^2", true);
        for (text, with_free, with_pure) in [
            ("m * r / t^2", true, true),
            ("m * r / (t * t) * exp(a)", true, true),
            ("m * r / t", false, false),
            ("2.5 * r", true, false),
            ("m * (r + 0.1) / t^2", true, false),
            ("m * r / t^2 + t", false, false),
            ("m * r / t^2 * exp(t)", false, false),
            ("m * r / t^2 * exp(2 * t)", true, false),
            ("m * (r > t) * r / t^2", false, false),
            ("m * IF(r > 2, r, r) / t^2", true, false),
            ("m * sqrt(r^2) / square(t)", true, true),
            ("m * r / t^a", false, false),
            ("m * r / t^2.00001", true, true),
            ("m * r^a / t^2", false, false),
            ("m * r * a^a / t^2", true, true),
        ] {
            let names = names();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let e = Expression::parse(text, &names).unwrap();
            assert_eq!((free.allow(&e), pure.allow(&e)), (with_free, with_pure), "{text}");
        }
    }

    #[test]
    fn exponents_of_units_are_small_fractions() {
        let units = units("m=kg, r=m, a=1, F=kg*m^1.5", true);
        let names = names();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let parse = |text: &str| Expression::parse(text, &names).unwrap();
        let (e, held) = units.exponents(&parse("0.3 * m * r^1.43 * a^0.77 + t^0.1"));
        assert_eq!((e.text(&names).as_str(), held), ("0.3 * m * r^1.5 * a^0.77 + t^0.1", vec![1]));
        assert!(units.allow(&parse("m * r^1.5 * a^0.77")));
        let fits = |text| units.with_exponents(&parse(text)).text(&names);
        assert_eq!(fits("0.3 * m * r^-0.4"), "0.3 * m * r^1.5");
        assert_eq!(fits("m^2 * r^0.7"), "m^2 * r^0.6666666666666666", "no single power fixes it");
        let fractions = [0.1, -0.1, 1.34, 9.0, -2.1].map(fraction);
        assert_eq!(fractions, [1.0 / 3.0, -1.0 / 3.0, 4.0 / 3.0, 6.0, -2.0]);
    }

    #[test]
    fn columns_without_a_unit_fit_everywhere() {
        let some = units("r=m, F=m", true);
        let e = Expression::parse("r + t * a", &["m", "r", "t", "a"]).unwrap();
        assert!(some.allow(&e));
    }

    #[test]
    fn units_that_cannot_be_read_are_refused() {
        let others = ["G".to_string()];
        let parse = |text: &str| Units::parse(text, &names(), "F", &others, false);
        let error = |text: &str| parse(text).unwrap_err().to_string();
        assert!(parse("r=m, G=kg").is_ok(), "another target of the same table");
        assert!(error("r").contains("column=unit"));
        assert!(error("q=m").contains("'q' is neither an input"));
        assert!(error("r=m, r=s").contains("two units"));
        assert!(error("r=m +").contains("not a unit"), "{}", error("r=m +"));
        assert!(error("r=m + s").contains("products"), "{}", error("r=m + s"));
    }
}
