//! Numbers of a template inside a part to be found, as p in `f(x, p[city])`. The part may hold constants that such a
//! number makes redundant, and the result of a fit depends on where it starts.

use super::template::{Place, Template};
use crate::formula::expression::{Expression, Node, Op, start};

/// Within this factor of 1, a column's scale counts as 1.
const SAME_SCALE: f64 = 3.0;
/// Most starting points.
const MOST_STARTS: usize = 4;

impl Template {
    /// The numbers that occur inside a part.
    fn inner(&self) -> Vec<usize> {
        let mut found = Vec::new();
        for numbers in self.places.iter().flat_map(Place::operands).flat_map(|e| self.numbers_in(e))
        {
            if !found.contains(&numbers) {
                found.push(numbers);
            }
        }
        found
    }

    /// The numbers in an expression of columns and places.
    fn numbers_in(&self, e: &Expression) -> impl Iterator<Item = usize> {
        let number = |node: &Node| match *node {
            Node::Variable(v) => {
                match self.places.get(usize::from(v).checked_sub(self.columns)?)? {
                    Place::Numbers(numbers) => Some(*numbers),
                    Place::Call { .. } => None,
                }
            }
            _ => None,
        };
        e.nodes().iter().filter_map(number)
    }

    /// Starting values for the numbers inside parts: for each, the index of the part and a value. `sizes` are typical
    /// values of the columns.
    pub(super) fn starts(&self, sizes: &[f64]) -> Vec<Vec<(usize, f64)>> {
        let groups: Vec<u16> = self.indexed().collect();
        let read = |&(column, _): &(usize, &f64)| {
            let column = column as u16;
            let operands = self.places.iter().flat_map(Place::operands);
            !groups.contains(&column) && operands.into_iter().any(|e| e.depends_on(column))
        };
        let logs: Vec<f64> =
            sizes.iter().enumerate().filter(read).map(|(_, size)| size.ln()).collect();
        let scale = (logs.iter().sum::<f64>() / logs.len().max(1) as f64).exp();
        let same = scale < SAME_SCALE && scale > 1.0 / SAME_SCALE;
        let values = if same { vec![1.0] } else { vec![1.0, scale] };
        let inner = self.inner();
        let mut starts: Vec<Vec<(usize, f64)>> = Vec::new();
        if inner.is_empty() {
            return starts;
        }
        // All combinations, as the digits of a number.
        let base = values.len();
        for combination in 0..base.saturating_pow(inner.len() as u32).min(MOST_STARTS) {
            let mut start = Vec::new();
            for (k, &numbers) in inner.iter().enumerate() {
                let value = values[combination / base.pow(k as u32) % base];
                start.extend(self.numbers[numbers].parts().map(|part| (part, value)));
            }
            starts.push(start);
        }
        starts
    }

    /// The candidate with other values of some numbers.
    pub(super) fn with_numbers(
        &self,
        candidate: &Expression,
        values: &[(usize, f64)],
    ) -> Expression {
        let mut parts = self.split(candidate);
        for &(part, value) in values {
            parts[part] = Expression::constant(value);
        }
        Template::join(parts)
    }

    /// The candidate without constants that its numbers can absorb: `cos(x + p - 2)` with p = 3 becomes `cos(x + p)`
    /// with p = 1.
    pub(super) fn absorbed(&self, candidate: Expression) -> Expression {
        let inner = self.inner();
        if inner.is_empty() {
            return candidate;
        }
        let mut parts = self.split(&candidate);
        let mut changed = false;
        for place in &self.places {
            let Place::Call { part, operands } = place else { continue };
            for (k, operand) in operands.iter().enumerate() {
                let Node::Variable(_) = operand.root() else { continue };
                let Some(numbers) = self.numbers_in(operand).next() else { continue };
                if self.occurrences(numbers, *part) != 1 {
                    continue;
                }
                while let Some((without, change)) = absorb(&parts[*part], k as u16) {
                    parts[*part] = without.simplified();
                    for number in self.numbers[numbers].parts() {
                        let value = parts[number].as_constant().unwrap_or(0.0);
                        parts[number] = Expression::constant(change.of(value));
                    }
                    changed = true;
                }
            }
        }
        let finite = || parts.iter().flat_map(Expression::constants).all(f64::is_finite);
        if changed && finite() { Template::join(parts) } else { candidate }
    }

    /// How often a number occurs anywhere, counting each call of the part.
    fn occurrences(&self, numbers: usize, part: usize) -> usize {
        let same = |&other: &usize| other == numbers;
        let operands = self.places.iter().flat_map(Place::operands);
        let within = operands.flat_map(|e| self.numbers_in(e)).filter(same).count();
        let calls = |place: &&Place| matches!(place, Place::Call { part: p, .. } if *p == part);
        let calls = self.places.iter().filter(calls).count();
        within + self.numbers_in(&self.body).filter(same).count() + calls.saturating_sub(1)
    }
}

/// How a number changes when it absorbs a constant.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Change {
    Add(f64),
    Multiply(f64),
}

impl Change {
    fn of(self, value: f64) -> f64 {
        match self {
            Change::Add(term) => value + term,
            Change::Multiply(factor) => value * factor,
        }
    }
}

/// The expression with one constant less in the sum or product that contains `variable`, if this occurs only once, and
/// the change that the variable has to absorb.
fn absorb(e: &Expression, variable: u16) -> Option<(Expression, Change)> {
    let nodes = e.nodes();
    let mut places = (0..nodes.len()).filter(|&at| nodes[at] == Node::Variable(variable));
    let at = places.next().filter(|_| places.next().is_none())?;
    let parents = parents(e);
    for (plus, minus, neutral) in [(Op::Add, Op::Sub, 0.0), (Op::Mul, Op::Div, 1.0)] {
        // Whether the node at `at` counts as it is or inverted in the chain that ends at `top`.
        let inverted = |mut at: usize, top: usize| {
            let mut inverted = false;
            while at != top {
                let parent = parents[at];
                inverted ^= nodes[parent] == Node::Op(minus) && at + 1 == parent;
                at = parent;
            }
            inverted
        };
        let in_chain = |at: usize| nodes[at] == Node::Op(plus) || nodes[at] == Node::Op(minus);
        let mut top = at;
        while parents[top] > top && in_chain(parents[top]) {
            top = parents[top];
        }
        let within = |mut at: usize| {
            while at != top && in_chain(parents[at]) {
                at = parents[at];
            }
            at == top
        };
        for constant in start(nodes, top)..top {
            let Node::Constant(value) = nodes[constant] else { continue };
            if value == neutral || value == 0.0 || !within(constant) {
                continue;
            }
            let same = inverted(constant, top) == inverted(at, top);
            let change = match (plus, same) {
                (Op::Add, true) => Change::Add(value),
                (Op::Add, false) => Change::Add(-value),
                (_, true) => Change::Multiply(value),
                (_, false) => Change::Multiply(1.0 / value),
            };
            let mut rest = nodes.to_vec();
            rest[constant] = Node::Constant(neutral);
            return Some((Expression::from_nodes(rest), change));
        }
    }
    None
}

/// The operator above each node; the root is its own parent.
fn parents(e: &Expression) -> Vec<usize> {
    let nodes = e.nodes();
    let mut parents: Vec<usize> = (0..nodes.len()).collect();
    for (at, node) in nodes.iter().enumerate() {
        let mut operand = at;
        for _ in 0..node.arity() {
            parents[operand - 1] = at;
            operand = start(nodes, operand - 1);
        }
    }
    parents
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        ["x", "group"].map(String::from).to_vec()
    }

    fn template(text: &str) -> Template {
        let columns = vec![vec![20.0, 40.0, 60.0, 80.0], vec![0.0, 1.0, 0.0, 1.0]];
        Template::of_table(text, &names(), &columns, &[]).unwrap()
    }

    #[test]
    fn constants_beside_a_number_go_into_it() {
        let template = template("f(x, p[group])");
        for (before, after) in [
            (
                "f(x, p) = sin(x + p - 2)",
                "p[group=0] = 1; p[group=1] = 2; f(x1, x2) = sin(x1 + x2)",
            ),
            (
                "f(x, p) = sin(2 - (x + p))",
                "p[group=0] = 1; p[group=1] = 2; f(x1, x2) = sin(0 - x1 - x2)",
            ),
            ("f(x, p) = x / (p * 3)", "p[group=0] = 9; p[group=1] = 12; f(x1, x2) = x1 / x2"),
            (
                "f(x, p) = x^(6 / p)",
                "p[group=0] = 0.5; p[group=1] = 0.6666666666666666; f(x1, x2) = x1^(1 / x2)",
            ),
            // In two places, or not in the same sum.
            ("f(x, p) = (p - 2) * p", "p[group=0] = 3; p[group=1] = 4; f(x1, x2) = (x2 - 2) * x2"),
            ("f(x, p) = x * p - 2", "p[group=0] = 3; p[group=1] = 4; f(x1, x2) = x1 * x2 - 2"),
        ] {
            let numbers = "p[group=0] = 3; p[group=1] = 4";
            let candidate = template.guess(&format!("{before}; {numbers}"), &[]).unwrap();
            let absorbed = template.absorbed(candidate.clone());
            assert_eq!(template.as_guess(&template.split(&absorbed)), after, "{before}");
            for row in [[20.0, 0.0], [60.0, 1.0]] {
                let value = |e: &Expression| template.formula(e).eval(&row);
                assert!((value(&candidate) - value(&absorbed)).abs() < 1e-12, "{before}");
            }
        }
    }

    #[test]
    fn numbers_that_are_not_alone_stay() {
        for text in ["f(x, p[group]) * p[group]", "f(x, p[group]) - f(2 * x, p[group])"] {
            let template = template(text);
            let candidate = template.guess("f(x, p) = x + p - 2", &[]).unwrap();
            assert_eq!(template.absorbed(candidate.clone()), candidate, "{text}");
        }
    }

    #[test]
    fn fits_begin_at_the_scale_of_the_columns() {
        let of = |text: &str| template(text).starts(&[50.0, 0.5]);
        assert_eq!(of("f(x) + p[group]"), Vec::<Vec<_>>::new());
        let starts = of("f(x, p[group], q[])");
        let expected = |p: f64, q: f64| vec![(0, p), (1, p), (2, q)];
        let near = |a: &f64, b: f64| (a - b).abs() < 1e-9;
        assert_eq!(starts.len(), 4);
        for (start, (p, q)) in
            starts.iter().zip([(1.0, 1.0), (50.0, 1.0), (1.0, 50.0), (50.0, 50.0)])
        {
            let same = start.iter().zip(expected(p, q)).all(|(a, b)| a.0 == b.0 && near(&a.1, b.1));
            assert!(same, "{start:?}");
        }
    }
}
