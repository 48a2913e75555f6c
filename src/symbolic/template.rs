//! Templates: a formula whose shape is given and whose parts are searched, such as
//! `f(r, m1, m2) * dx + g(r) * dy`.
//!
//! A candidate is one expression for each part. The search carries them as one tree, the parts added
//! up (`f + (g + h)`), in which variable k of a part is the k-th operand of its calls.

use super::mutate::{Grammar, crossover};
use crate::error::{Error, Result};
use crate::formula::definition::Definition;
use crate::formula::expression::{Expression, Node, Op};
use crate::formula::parse::Call;
use crate::random::Random;

/// A formula with parts to be found.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    /// The parts.
    pub parts: Vec<Part>,
    places: Vec<Place>,
    /// In the table's columns and, from `columns` on, the places.
    body: Expression,
    columns: usize,
}

/// Something to be found.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// As it was named; `p[c=3]` for a number that belongs to a value of a column.
    pub name: String,
    /// Operands of its first call, in the table's columns: what its grammar knows of the values of its
    /// variables. None for a number.
    pub operands: Option<Vec<Expression>>,
}

/// Where parts stand in the body.
#[derive(Clone, Debug, PartialEq)]
enum Place {
    /// A part with expressions of the columns for its variables.
    Call { part: usize, operands: Vec<Expression> },
    /// The number of this row's value of a column: `first` below the first threshold, the next
    /// below the next, ….
    Index { first: usize, column: u16, thresholds: Vec<f64> },
}

/// What is wrong with a column whose values single precision does not tell apart.
pub fn too_close(column: &str) -> String {
    format!("some values of '{column}' are equal in single precision: number the groups 0, 1, 2, …")
}

/// More values of a column have no numbers of their own.
const MOST_VALUES: usize = 64;

impl Template {
    /// Reads a template over `columns` with these `names`. What is called and is neither a function
    /// nor one of the `definitions` is a part, and `p[column]` stands for a number for each value of a
    /// column.
    ///
    /// # Errors
    /// A text that cannot be read; a part with different numbers of operands, or within another's
    /// operands; no part at all; an index with too many values, or with values that single precision
    /// does not tell apart.
    pub fn of_table(
        text: &str,
        names: &[String],
        columns: &[Vec<f32>],
        definitions: &[Definition],
    ) -> Result<Self> {
        let error = |message: String| Error::usage(message).field("template");
        let known: Vec<&str> = names.iter().map(String::as_str).collect();
        let (body, calls) = Expression::parse_with_calls(text, &known, definitions)
            .map_err(|e| error(e.message))?;
        let mut template =
            Template { parts: Vec::new(), places: Vec::new(), body, columns: names.len() };
        for Call { name, operands, indexed } in calls {
            let inside =
                |node: &Node| matches!(node, Node::Variable(v) if usize::from(*v) >= names.len());
            if operands.iter().flat_map(Expression::nodes).any(inside) {
                return Err(error(format!(
                    "an argument of '{name}' calls another searched function"
                )));
            }
            let place = if indexed {
                template.index(&name, &operands, names, columns)
            } else {
                template.call(&name, operands)
            };
            template.places.push(place.map_err(error)?);
        }
        if template.parts.iter().all(|part| part.operands.is_none()) {
            return Err(error(format!(
                "'{text}' has no function to search for, such as f({})",
                names[0]
            )));
        }
        Ok(template)
    }

    fn call(&mut self, name: &str, operands: Vec<Expression>) -> Result<Place, String> {
        let known = self.parts.iter().position(|part| part.name == name);
        let part = match known.map(|part| (part, &self.parts[part].operands)) {
            Some((part, Some(first))) if first.len() == operands.len() => part,
            Some((_, first)) => {
                let (a, b) = (first.as_ref().map_or(0, Vec::len), operands.len());
                return Err(format!("'{name}' has {a} operands here and {b} there"));
            }
            None => {
                let operands = Some(operands.clone());
                self.parts.push(Part { name: name.to_string(), operands });
                self.parts.len() - 1
            }
        };
        Ok(Place::Call { part, operands })
    }

    fn index(
        &mut self,
        name: &str,
        operands: &[Expression],
        names: &[String],
        columns: &[Vec<f32>],
    ) -> Result<Place, String> {
        let column = match operands {
            [one] if let Node::Variable(column) = one.root() => column,
            _ => return Err(format!("'{name}[…]' needs one column between its brackets")),
        };
        let of_column = &names[usize::from(column)];
        let mut values: Vec<f32> = Vec::new();
        for &value in &columns[usize::from(column)] {
            if let Err(at) = values.binary_search_by(|v| v.total_cmp(&value)) {
                values.insert(at, value);
            }
            if values.len() > MOST_VALUES {
                return Err(format!("'{of_column}' has more than {MOST_VALUES} values"));
            }
        }
        let between = |pair: &[f32]| 0.5 * (f64::from(pair[0]) + f64::from(pair[1]));
        // A threshold is a column of f32 while the search runs.
        if values.windows(2).any(|pair| between(pair) as f32 <= pair[0]) {
            return Err(too_close(of_column));
        }
        let part = |value: &f32| format!("{name}[{of_column}={value}]");
        let first = match self.parts.iter().position(|p| p.name == part(&values[0])) {
            Some(first) => first,
            None => {
                let numbers = values.iter().map(|v| Part { name: part(v), operands: None });
                let first = self.parts.len();
                self.parts.extend(numbers);
                first
            }
        };
        Ok(Place::Index { first, column, thresholds: values.windows(2).map(between).collect() })
    }

    /// The parts as one tree.
    pub fn join(parts: Vec<Expression>) -> Expression {
        let add = |rest: Expression, part: Expression| Expression::apply(Op::Add, &[part, rest]);
        parts.into_iter().rev().reduce(add).expect("a template has parts")
    }

    /// The parts of such a tree.
    pub fn split(&self, candidate: &Expression) -> Vec<Expression> {
        let mut parts = Vec::with_capacity(self.parts.len());
        let mut rest = candidate.clone();
        for _ in 1..self.parts.len() {
            let mut operands = rest.operands();
            rest = operands.remove(1);
            parts.push(operands.remove(0));
        }
        parts.push(rest);
        parts
    }

    /// The sub-tree of a candidate whose root is at `root`, within a part, in the table's columns: a
    /// variable of the part is what stands for it in the part's first call.
    pub fn in_columns(&self, candidate: &Expression, root: usize) -> Expression {
        let mut end = 0;
        for (e, part) in self.split(candidate).iter().zip(&self.parts) {
            end += e.nodes().len();
            if root < end {
                let operands = part.operands.as_deref().unwrap_or_default();
                let operand = |v: u16| operands.get(usize::from(v)).cloned();
                return candidate.subtree(root).substitute(operand);
            }
        }
        unreachable!("parts come before the sums of them")
    }

    /// The columns whose values have numbers of their own.
    pub fn indexed(&self) -> impl Iterator<Item = u16> {
        self.places.iter().filter_map(|place| match place {
            Place::Index { column, .. } => Some(*column),
            Place::Call { .. } => None,
        })
    }

    /// The formula in the table's columns.
    pub fn formula(&self, candidate: &Expression) -> Expression {
        self.formula_around(candidate, Node::Constant)
    }

    /// The same, with another node for each constant of the template itself.
    pub(super) fn formula_around(
        &self,
        candidate: &Expression,
        constant: impl Fn(f64) -> Node,
    ) -> Expression {
        let parts = self.split(candidate);
        let node = |node: &Node| match *node {
            Node::Constant(value) => constant(value),
            other => other,
        };
        let mut nodes = Vec::new();
        for place in self.body.nodes() {
            let number = match *place {
                Node::Variable(v) => usize::from(v).checked_sub(self.columns),
                _ => None,
            };
            match number.map(|number| &self.places[number]) {
                None => nodes.push(node(place)),
                Some(Place::Call { part, operands }) => {
                    let operand = |v: u16| -> Option<Expression> {
                        let operand = operands.get(usize::from(v))?;
                        Some(Expression::from_nodes(operand.nodes().iter().map(node).collect()))
                    };
                    nodes.extend_from_slice(parts[*part].substitute(operand).nodes());
                }
                Some(Place::Index { first, column, thresholds }) => {
                    for (k, &threshold) in thresholds.iter().enumerate() {
                        nodes.extend([Node::Variable(*column), constant(threshold)]);
                        nodes.push(Node::Op(Op::Less));
                        nodes.extend_from_slice(parts[first + k].nodes());
                    }
                    nodes.extend_from_slice(parts[first + thresholds.len()].nodes());
                    nodes.extend(thresholds.iter().map(|_| Node::Op(Op::If)));
                }
            }
        }
        Expression::from_nodes(nodes)
    }

    /// The constants that the template itself has: they are not fitted.
    pub fn constants(&self) -> Vec<f64> {
        let mut constants = self.body.constants();
        for place in &self.places {
            match place {
                Place::Call { operands, .. } => {
                    constants.extend(operands.iter().flat_map(Expression::constants));
                }
                Place::Index { thresholds, .. } => constants.extend(thresholds),
            }
        }
        constants
    }

    /// The parts of a candidate that are no mere numbers.
    pub fn searched(&self, candidate: &Expression) -> Vec<Expression> {
        let parts = self.split(candidate).into_iter().zip(&self.parts);
        parts.filter(|(_, part)| part.operands.is_some()).map(|(e, _)| e).collect()
    }

    /// One of the parts that are no mere numbers.
    fn draw(&self, random: &mut Random) -> usize {
        let searched: Vec<usize> =
            (0..self.parts.len()).filter(|&k| self.parts[k].operands.is_some()).collect();
        searched[random.below(searched.len())]
    }

    /// Each part changed by itself; None where one of them is None.
    pub fn each(
        &self,
        candidate: &Expression,
        change: impl Fn(&Expression) -> Option<Expression>,
    ) -> Option<Expression> {
        Some(Template::join(self.split(candidate).iter().map(change).collect::<Option<_>>()?))
    }

    /// A candidate to begin with.
    pub fn beginning(&self, grammars: &[Grammar], random: &mut Random) -> Expression {
        let part = |(part, grammar): (&Part, &Grammar)| match part.operands {
            Some(_) => grammar.beginning(random),
            None => Expression::constant(random.normal()),
        };
        Template::join(self.parts.iter().zip(grammars).map(part).collect())
    }

    /// One part mutated.
    pub fn mutate(
        &self,
        grammars: &[Grammar],
        candidate: &Expression,
        random: &mut Random,
    ) -> Option<Expression> {
        let mut parts = self.split(candidate);
        let at = self.draw(random);
        parts[at] = grammars[at].mutate(&parts[at], random)?;
        Some(Template::join(parts))
    }

    /// One part crossed with the same of another candidate, or taken from it whole.
    pub fn crossover(&self, a: &Expression, b: &Expression, random: &mut Random) -> Expression {
        let (mut parts, mut others) = (self.split(a), self.split(b));
        let at = self.draw(random);
        parts[at] = if random.uniform() < 0.5 {
            others.swap_remove(at)
        } else {
            crossover(&parts[at], &others[at], random)
        };
        Template::join(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        ["r", "m1", "m2", "dx", "dy"].map(String::from).to_vec()
    }

    fn template(text: &str) -> Result<Template> {
        let mut columns = vec![vec![1.0; 4]; 5];
        columns[1] = vec![2.0, 5.0, 1.0, 2.0];
        Template::of_table(text, &names(), &columns, &[])
    }

    #[test]
    fn parts_are_found_and_put_in_place() {
        let names = names();
        let template = template("f(r, m1) * dx + g(r) * dy - f(2 * r, m2)").unwrap();
        let found: Vec<&str> = template.parts.iter().map(|part| part.name.as_str()).collect();
        assert_eq!(found, ["f", "g"]);
        let f = Expression::parse("a / b + 1.5", &["a", "b"]).unwrap();
        let g = Expression::parse("a^2", &["a"]).unwrap();
        let candidate = Template::join(vec![f.clone(), g.clone()]);
        assert_eq!(template.split(&candidate), [f, g]);
        assert_eq!(
            template.formula(&candidate).text(&names),
            "(r / m1 + 1.5) * dx + r^2 * dy - (2 * r / m2 + 1.5)"
        );
    }

    #[test]
    fn mutations_stay_within_a_part() {
        let template = template("f(r, m1, m2) * dx + g(r)").unwrap();
        let settings = crate::symbolic::settings::Settings::default();
        let grammar = |n| Grammar::new(&settings, vec![vec![1.0, 2.0]; n]);
        let grammars = [grammar(3), grammar(1)];
        let mut random = Random::new(5, 0);
        let mut e = template.beginning(&grammars, &mut random);
        for _ in 0..3000 {
            let other = template.beginning(&grammars, &mut random);
            let mixed = template.crossover(&e, &other, &mut random);
            e = template.mutate(&grammars, &mixed, &mut random).unwrap_or(mixed);
            let parts = template.split(&e);
            assert!(parts[0].nodes().iter().all(|n| !matches!(n, Node::Variable(v) if *v > 2)));
            assert!(parts[1].nodes().iter().all(|n| !matches!(n, Node::Variable(v) if *v > 0)));
            if e.nodes().len() > 60 {
                e = other;
            }
        }
    }

    #[test]
    fn numbers_belong_to_values_of_a_column() {
        let names = names();
        let template = template("f(dx) * p[m1] + p[m1]").unwrap();
        let found: Vec<&str> = template.parts.iter().map(|part| part.name.as_str()).collect();
        assert_eq!(found, ["f", "p[m1=1]", "p[m1=2]", "p[m1=5]"]);
        let parts = ["a + 1", "10", "20", "30"].map(|e| Expression::parse(e, &["a"]).unwrap());
        let candidate = Template::join(parts.to_vec());
        let numbers = "IF((m1 < 1.5), 10, IF((m1 < 3.5), 20, 30))";
        let text = template.formula(&candidate).text(&names);
        assert_eq!(text, format!("(dx + 1) * {numbers} + {numbers}"));
        assert_eq!(template.searched(&candidate), [parts[0].clone()]);
        assert_eq!(template.constants(), [1.5, 3.5, 1.5, 3.5]);
    }

    #[test]
    fn definitions_are_no_parts() {
        let twice = Definition::parse("twice(x, y) = 2 * x + y").unwrap();
        let columns = vec![vec![1.0; 4]; 5];
        let read =
            |text| Template::of_table(text, &names(), &columns, std::slice::from_ref(&twice));
        let template = read("f(twice(r, m1)) * twice(dx, 3)").unwrap();
        assert_eq!(template.parts.len(), 1);
        let f = Expression::parse("a^2", &["a"]).unwrap();
        assert_eq!(template.formula(&f).text(&names()), "(2 * r + m1)^2 * (2 * dx + 3)");
        let error = read("f(twice(r))").unwrap_err();
        assert!(error.message.contains("',' is missing"), "{error}");
    }

    #[test]
    fn templates_without_sense_are_refused() {
        let error = |text: &str| template(text).unwrap_err().to_string();
        assert!(error("r * dx").contains("no function to search for"));
        assert!(error("f(r) + f(r, m1)").contains("operands"));
        assert!(error("f(g(r))").contains("calls another searched function"));
        assert!(error("p[m1] * r").contains("no function to search for"));
        assert!(error("f(r) * p[m1 + 1]").contains("one column"));
        assert!(error("f(r) * q").contains("'q' is not a variable"));
        let close = vec![vec![0.0, 1.0], vec![16_777_216.0, 16_777_218.0]];
        let names = ["r", "u"].map(String::from);
        let error = Template::of_table("f(r) + p[u]", &names, &close, &[]).unwrap_err();
        assert!(error.message.contains("single precision"), "{error}");
    }
}
