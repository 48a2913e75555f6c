//! What is known of a law as a function: its sign, and that it rises, falls or bends one way in an input.
//!
//! A formula is tried on the data and in the box that they span: along each input in question on a grid from its
//! smallest to its largest value, the others as in a row of the data, or each as in a row of its own. Differences are
//! compared, not derivatives, so that a jump counts.

use crate::error::{Error, Result};
use crate::formula::expression::Expression;
use crate::random::Random;

/// Values of an input along which a formula is followed.
const GRID: usize = 13;
/// Places from which a grid starts, half of them rows.
const PLACES: usize = 32;
/// Rows on which the sign is checked, and as many places between them.
const SIGNED: usize = 256;
/// A difference of the wrong sign up to this fraction of the values is rounding.
const ROUNDING: f64 = 1e-9;
const PLACES_STREAM: u64 = 0x5A4E;

/// What the law must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Nowhere below zero.
    Positive,
    /// Nowhere above zero.
    Negative,
    /// Never falling with the input.
    Increasing,
    /// Never rising with the input.
    Decreasing,
    /// With a slope that never falls.
    Convex,
    /// With a slope that never rises.
    Concave,
}

const NAMES: [(&str, Kind); 6] = [
    ("positive", Kind::Positive),
    ("negative", Kind::Negative),
    ("increasing", Kind::Increasing),
    ("decreasing", Kind::Decreasing),
    ("convex", Kind::Convex),
    ("concave", Kind::Concave),
];

/// One requirement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// What is required.
    pub kind: Kind,
    /// The number of the input, except for the sign.
    pub input: Option<usize>,
}

impl Shape {
    /// Reads "positive", "increasing(x)" and the like; `inputs` are the columns that formulas may use.
    ///
    /// # Errors
    /// Anything else, and a column that formulas may not use.
    pub fn parse(text: &str, inputs: &[String]) -> Result<Self> {
        let bad = |message: String| Error::usage(message).field("shape");
        let trimmed = text.trim();
        let (name, column) = match trimmed.split_once('(') {
            Some((name, rest)) => (name.trim(), rest.strip_suffix(')').map(str::trim)),
            None => (trimmed, None),
        };
        let Some((_, kind)) = NAMES.into_iter().find(|(known, _)| *known == name) else {
            return Err(bad(format!(
                "'{trimmed}' is not one of positive, negative, increasing(COLUMN), decreasing(COLUMN), \
                 convex(COLUMN), concave(COLUMN)"
            )));
        };
        let signs = matches!(kind, Kind::Positive | Kind::Negative);
        let input = match column {
            None if signs => None,
            Some(column) if !signs => {
                let found = inputs.iter().position(|input| input == column);
                let message = || format!("'{column}' is not a column that formulas may use");
                Some(found.ok_or_else(|| bad(message()))?)
            }
            _ if signs => {
                return Err(bad(format!("'{name}' is about the target: without a column")));
            }
            _ => return Err(bad(format!("'{name}' needs a column, as in {name}(x)"))),
        };
        Ok(Shape { kind, input })
    }
}

/// Requirements and the places at which formulas are tried.
pub(super) struct Requirements {
    shapes: Vec<Shape>,
    /// Values of all columns.
    signed: Vec<Vec<f64>>,
    places: Vec<Vec<f64>>,
    /// Smallest and largest value of each column.
    ranges: Vec<[f64; 2]>,
    /// Zero and unit of the target.
    output: (f64, f64),
}

impl Requirements {
    /// Of formulas of these columns, whose values are `output.0 + output.1 · formula`.
    pub fn new(shapes: &[Shape], columns: &[Vec<f64>], output: (f64, f64)) -> Self {
        let mut random = Random::new(0, PLACES_STREAM);
        let rows = columns[0].len();
        let spread = |count: usize| (0..count).map(move |k| k * rows / count);
        let row = |row: usize| columns.iter().map(|column| column[row]).collect::<Vec<f64>>();
        let mut between = |count: usize| -> Vec<Vec<f64>> {
            let mut place = || columns.iter().map(|column| column[random.below(rows)]).collect();
            (0..count).map(|_| place()).collect()
        };
        let mut signed: Vec<Vec<f64>> = spread(SIGNED.min(rows)).map(row).collect();
        signed.extend(between(SIGNED));
        let mut places: Vec<Vec<f64>> = spread((PLACES / 2).min(rows)).map(row).collect();
        places.extend(between(PLACES / 2));
        let range = |column: &Vec<f64>| {
            [
                column.iter().copied().fold(f64::INFINITY, f64::min),
                column.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            ]
        };
        let ranges = columns.iter().map(range).collect();
        Requirements { shapes: shapes.to_vec(), signed, places, ranges, output }
    }

    /// True if the formula meets all of them.
    pub fn hold(&self, formula: &Expression) -> bool {
        self.shapes.iter().all(|shape| match (shape.kind, shape.input) {
            (Kind::Positive, _) => self.signs(formula, 1.0),
            (Kind::Negative, _) => self.signs(formula, -1.0),
            (Kind::Increasing, Some(input)) => self.differs(formula, input, 1.0, 1),
            (Kind::Decreasing, Some(input)) => self.differs(formula, input, -1.0, 1),
            (Kind::Convex, Some(input)) => self.differs(formula, input, 1.0, 2),
            (Kind::Concave, Some(input)) => self.differs(formula, input, -1.0, 2),
            (_, None) => true,
        })
    }

    fn signs(&self, formula: &Expression, sign: f64) -> bool {
        let (zero, unit) = self.output;
        self.signed.iter().all(|place| sign * (zero + unit * formula.eval(place)) >= 0.0)
    }

    /// True if no first or second difference (`order`) along the input has the wrong sign.
    fn differs(&self, formula: &Expression, input: usize, sign: f64, order: usize) -> bool {
        if !formula.depends_on(input as u16) {
            return true;
        }
        let [low, high] = self.ranges[input];
        let mut values = [0.0; GRID];
        self.places.iter().all(|place| {
            let mut place = place.clone();
            for (k, value) in values.iter_mut().enumerate() {
                place[input] = low + (high - low) * k as f64 / (GRID - 1) as f64;
                *value = formula.eval(&place);
            }
            let largest = values.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
            values.windows(order + 1).all(|v| {
                let difference = if order == 1 { v[1] - v[0] } else { v[2] - 2.0 * v[1] + v[0] };
                // Also false where the formula has no value.
                sign * difference >= -ROUNDING * largest
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requirements(shapes: &[&str], output: (f64, f64)) -> Requirements {
        let names = ["x", "y"].map(String::from);
        let shapes: Vec<Shape> =
            shapes.iter().map(|text| Shape::parse(text, &names).unwrap()).collect();
        let mut random = Random::new(3, 0);
        let mut column = |from: f64, to: f64| -> Vec<f64> {
            (0..40).map(|_| from + (to - from) * random.uniform()).collect()
        };
        Requirements::new(&shapes, &[column(-2.0, 2.0), column(0.5, 3.0)], output)
    }

    #[test]
    fn formulas_are_what_they_are() {
        let holds = |shape: &str, formula: &str| {
            let formula = Expression::parse(formula, &["x", "y"]).unwrap();
            requirements(&[shape], (0.0, 1.0)).hold(&formula)
        };
        for (shape, yes, no) in [
            ("positive", "x^2 + 0.01", "x + y"),
            ("negative", "-(x^2) - y", "x - y"),
            ("increasing(x)", "x * y", "x * x"),
            ("decreasing( y )", "1 / y", "x * y"),
            ("convex(x)", "exp(x) * y", "tanh(x)"),
            ("concave(y)", "log(y)", "y^2"),
            // Jumps and kinks, of which the slope says nothing.
            ("increasing(x)", "(x > 0.3)", "(x < 0.3)"),
            ("convex(x)", "abs(x)", "min(x, 0)"),
            // What does not depend on the input, and what has no value.
            ("increasing(x)", "y", "sqrt(x)"),
        ] {
            assert!(holds(shape, yes), "{shape}: {yes}");
            assert!(!holds(shape, no), "{shape}: {no}");
        }
        // In other units only the sign has a zero of its own.
        let x = Expression::parse("x", &["x", "y"]).unwrap();
        assert!(requirements(&["positive", "increasing(x)"], (3.0, 1.0)).hold(&x));
        assert!(!requirements(&["positive"], (1.0, 1.0)).hold(&x));
    }

    #[test]
    fn what_cannot_be_required_is_named() {
        let names = ["x".to_string()];
        let message = |text: &str| Shape::parse(text, &names).unwrap_err().to_string();
        assert!(message("rising(x)").contains("'rising(x)' is not one of positive"));
        assert!(message("convex").contains("needs a column, as in convex(x)"));
        assert!(message("positive(x)").contains("without a column"));
        assert!(message("increasing(z)").contains("'z' is not a column that formulas may use"));
    }
}
