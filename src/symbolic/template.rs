//! Templates: formulas with a given form and parts to be found, such as
//! `f(r, m1, m2) * dx + g(r) * dy + p[city]` or `a * exp(-b * x) + c`.
//!
//! A candidate is one expression for each part. The search handles them as one tree, with the parts added up (`f + (g +
//! h)`); in it variable k of a part is the k-th operand of its calls.

use super::mutate::{Grammar, crossover};
use crate::error::{Error, Result};
use crate::formula::definition::Definition;
use crate::formula::expression::{Expression, Node, Op};
use crate::formula::parse::{Call, CallKind};
use crate::random::Random;

/// A formula with parts to be found.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    /// The parts.
    pub parts: Vec<Part>,
    /// The parts that are mere numbers, as the template names them.
    pub numbers: Vec<Numbers>,
    pub(super) places: Vec<Place>,
    /// The formula in the table's columns and, from `columns` on, the places.
    pub(super) body: Expression,
    pub(super) columns: usize,
}

/// A part to be found.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Its name; `p[c=3]` for a number that belongs to a value of a column.
    pub name: String,
    /// Operands of its first call, in the table's columns and the places of numbers: from these its grammar takes the
    /// values of its variables. None for a number.
    pub operands: Option<Vec<Expression>>,
}

/// A number to be fitted, or one for each value of a column.
#[derive(Clone, Debug, PartialEq)]
pub struct Numbers {
    /// As the template has it: `a`, `q[]`, `p[city]`.
    pub name: String,
    /// The first of the parts that are its numbers.
    pub first: usize,
    /// The values that have numbers of their own.
    pub groups: Option<Groups>,
}

/// The values of a column, as groups of rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Groups {
    /// The column.
    pub column: u16,
    /// The name of each group.
    pub labels: Vec<String>,
    /// The first group is below the first threshold, the next below the next, ….
    thresholds: Vec<f64>,
}

/// What stands at a place in the body.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Place {
    /// A part, with expressions of columns and places for its variables.
    Call { part: usize, operands: Vec<Expression> },
    /// A number: the only one, or that of the row's group.
    Numbers(usize),
}

impl Place {
    /// The expressions for the variables of a part.
    pub(super) fn operands(&self) -> &[Expression] {
        match self {
            Place::Call { operands, .. } => operands,
            Place::Numbers(_) => &[],
        }
    }
}

impl Numbers {
    /// The parts that are these numbers.
    pub(super) fn parts(&self) -> std::ops::Range<usize> {
        let count = self.groups.as_ref().map_or(1, |groups| groups.labels.len());
        self.first..self.first + count
    }
}

/// The error for a column with values that single precision cannot distinguish.
pub fn too_close(column: &str) -> String {
    format!("some values of '{column}' are equal in single precision: number the groups 0, 1, 2, …")
}

/// A column with more values cannot have a number for each.
const MOST_VALUES: usize = 64;

impl Template {
    /// Reads a template over `columns` with these `names`. A called name that is neither a function nor one of the
    /// `definitions` is a part; `p[column]` stands for a number for each value of a column, and `q[]` for one number.
    /// If there is no function to search for, an unknown name is a number, too.
    ///
    /// # Errors
    /// Text that cannot be parsed; a part with different numbers of operands, or inside another's operands; no part or
    /// no column at all; an index with too many values, or with values that single precision cannot distinguish.
    pub fn of_table(
        text: &str,
        names: &[String],
        columns: &[Vec<f32>],
        definitions: &[Definition],
    ) -> Result<Self> {
        let error = |message: String| Error::usage(message).field("template");
        let known: Vec<&str> = names.iter().map(String::as_str).collect();
        let read = |words| {
            Expression::parse_with_calls(text, &known, definitions, words)
                .map_err(|e| error(e.message))
        };
        let (body, calls) = read(true)?;
        let has = |kind: CallKind| calls.iter().any(|call| call.kind == kind);
        if has(CallKind::Function) && has(CallKind::Word) {
            // Next to a function to search for, an unknown name would too easily be a typing error.
            let hint = |e: Error| {
                error(format!("{}; a number that is to be fitted is written q[]", e.message))
            };
            read(false).map_err(hint)?;
        }
        let mut template = Template {
            parts: Vec::new(),
            numbers: Vec::new(),
            places: Vec::new(),
            body,
            columns: names.len(),
        };
        for Call { name, operands, kind } in calls {
            let place = match kind {
                CallKind::Function => template.call(&name, operands),
                CallKind::Index => template.index(&name, &operands, names, columns),
                CallKind::Word => could_be_a_number(&name, names, definitions)
                    .map(|()| template.number(name.clone())),
            };
            template.places.push(place.map_err(error)?);
        }
        if template.parts.is_empty() {
            return Err(error(format!(
                "'{text}' has nothing to find: no function to search for, such as f({}), and no \
                 number to fit, such as a",
                names[0]
            )));
        }
        let column =
            |node: &Node| matches!(node, Node::Variable(v) if usize::from(*v) < names.len());
        let operands = template.places.iter().flat_map(Place::operands);
        let reads = operands.chain([&template.body]).any(|e| e.nodes().iter().any(column));
        if !reads && template.indexed().next().is_none() {
            let known = names.join(", ");
            return Err(error(format!("'{text}' has no column in it; the columns are {known}")));
        }
        Ok(template)
    }

    fn call(&mut self, name: &str, operands: Vec<Expression>) -> Result<Place, String> {
        let calls = |node: &Node| match node {
            Node::Variable(v) => {
                let place = usize::from(*v).checked_sub(self.columns);
                place.is_some_and(|place| matches!(self.places[place], Place::Call { .. }))
            }
            _ => false,
        };
        if operands.iter().flat_map(Expression::nodes).any(calls) {
            return Err(format!("an argument of '{name}' calls another searched function"));
        }
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

    /// One number.
    fn number(&mut self, name: String) -> Place {
        let known = self.numbers.iter().position(|numbers| numbers.name == name);
        Place::Numbers(known.unwrap_or_else(|| {
            self.numbers.push(Numbers {
                name: name.clone(),
                first: self.parts.len(),
                groups: None,
            });
            self.parts.push(Part { name, operands: None });
            self.numbers.len() - 1
        }))
    }

    fn index(
        &mut self,
        name: &str,
        operands: &[Expression],
        names: &[String],
        columns: &[Vec<f32>],
    ) -> Result<Place, String> {
        let column = match operands {
            [] => return Ok(self.number(format!("{name}[]"))),
            [one]
                if let Node::Variable(column) = one.root()
                    && usize::from(column) < names.len() =>
            {
                column
            }
            _ => return Err(format!("'{name}[…]' needs one column between its brackets")),
        };
        let of_column = &names[usize::from(column)];
        let whole = format!("{name}[{of_column}]");
        if let Some(known) = self.numbers.iter().position(|numbers| numbers.name == whole) {
            return Ok(Place::Numbers(known));
        }
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
        let labels: Vec<String> = values.iter().map(f32::to_string).collect();
        let first = self.parts.len();
        self.parts.extend(
            labels
                .iter()
                .map(|label| Part { name: format!("{name}[{of_column}={label}]"), operands: None }),
        );
        let thresholds = values.windows(2).map(between).collect();
        let groups = Some(Groups { column, labels, thresholds });
        self.numbers.push(Numbers { name: whole, first, groups });
        Ok(Place::Numbers(self.numbers.len() - 1))
    }

    /// Names the groups of a column by words, if it has as many values as there are words.
    pub fn name_groups(&mut self, column: u16, words: &[String]) {
        for Numbers { first, groups, .. } in &mut self.numbers {
            let Some(groups) = groups.as_mut().filter(|groups| groups.column == column) else {
                continue;
            };
            for (k, (label, word)) in groups.labels.iter_mut().zip(words).enumerate() {
                let name = &mut self.parts[*first + k].name;
                *name = name.replace(&format!("={label}]"), &format!("={word}]"));
                label.clone_from(word);
            }
        }
    }

    /// True if there is a function to search for, and not only numbers to fit.
    pub fn searches(&self) -> bool {
        self.parts.iter().any(|part| part.operands.is_some())
    }

    /// Number of variables that the operands of parts may have: the columns, then the places.
    pub(super) fn variables(&self) -> usize {
        self.columns + self.places.len()
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

    /// The sub-tree at `root` of a candidate, inside a part, in the table's columns: a variable of the part becomes its
    /// operand in the part's first call.
    pub fn in_columns(&self, candidate: &Expression, root: usize) -> Expression {
        let parts = self.split(candidate);
        let mut end = 0;
        for (e, part) in parts.iter().zip(&self.parts) {
            end += e.nodes().len();
            if root < end {
                let operands = part.operands.as_deref().unwrap_or_default();
                let operand = |v: u16| {
                    let operand = operands.get(usize::from(v))?;
                    Some(self.put(operand, &parts, &Node::Constant, true))
                };
                return candidate.subtree(root).substitute(operand);
            }
        }
        unreachable!("parts come before the sums of them")
    }

    /// The columns whose values have numbers of their own.
    pub fn indexed(&self) -> impl Iterator<Item = u16> {
        self.numbers.iter().filter_map(|numbers| Some(numbers.groups.as_ref()?.column))
    }

    /// The formula in the table's columns.
    pub fn formula(&self, candidate: &Expression) -> Expression {
        without_signs(&self.formula_around(candidate, Node::Constant))
    }

    /// The same, with `constant` giving the node for each constant of the template itself.
    pub(super) fn formula_around(
        &self,
        candidate: &Expression,
        constant: impl Fn(f64) -> Node,
    ) -> Expression {
        self.put(&self.body, &self.split(candidate), &constant, true)
    }

    /// The formula as text, with `p[column]` for numbers of groups; `names` are those of the columns.
    pub fn text(&self, parts: &[Expression], names: &[String]) -> String {
        let written = self.put(&self.body, parts, &Node::Constant, false);
        without_signs(&written).text(&self.names_with_numbers(names))
    }

    /// A part as text, in the operands of its first call.
    pub fn part_text(&self, part: usize, parts: &[Expression], names: &[String]) -> String {
        let all = self.names_with_numbers(names);
        let operand = |operand: &Expression| {
            let written = self.put(operand, parts, &Node::Constant, false);
            match written.root() {
                Node::Variable(_) => written.text(&all),
                _ => format!("({})", written.text(&all)),
            }
        };
        let operands: Vec<String> =
            self.parts[part].operands.iter().flatten().map(operand).collect();
        parts[part].text(&operands)
    }

    /// The names of the columns, and then those of the numbers.
    fn names_with_numbers(&self, names: &[String]) -> Vec<String> {
        names.iter().chain(self.numbers.iter().map(|numbers| &numbers.name)).cloned().collect()
    }

    /// An expression of columns and places with the places filled in. Numbers of groups are written `out`, or stand as
    /// variables after the columns.
    fn put(
        &self,
        e: &Expression,
        parts: &[Expression],
        constant: &dyn Fn(f64) -> Node,
        out: bool,
    ) -> Expression {
        let mut nodes = Vec::new();
        for node in e.nodes() {
            let place = match *node {
                Node::Constant(value) => {
                    nodes.push(constant(value));
                    continue;
                }
                Node::Variable(v) => usize::from(v).checked_sub(self.columns),
                Node::Op(_) => None,
            };
            match place.map(|place| &self.places[place]) {
                None => nodes.push(*node),
                Some(Place::Call { part, operands }) => {
                    let operand = |v: u16| {
                        let operand = operands.get(usize::from(v))?;
                        Some(self.put(operand, parts, constant, out))
                    };
                    nodes.extend_from_slice(parts[*part].substitute(operand).nodes());
                }
                Some(&Place::Numbers(index)) => match &self.numbers[index] {
                    Numbers { first, groups: Some(groups), .. } if out => {
                        let numbers = &parts[*first..];
                        nodes.extend_from_slice(groups.choose(numbers, constant).nodes());
                    }
                    Numbers { groups: Some(_), .. } => {
                        nodes.push(Node::Variable((self.columns + index) as u16));
                    }
                    Numbers { first, .. } => nodes.extend_from_slice(parts[*first].nodes()),
                },
            }
        }
        Expression::from_nodes(nodes)
    }

    /// The constants of the template itself, which are not fitted.
    pub fn constants(&self) -> Vec<f64> {
        let mut constants = self.body.constants();
        let operands = self.places.iter().flat_map(Place::operands);
        constants.extend(operands.flat_map(Expression::constants));
        let groups = self.numbers.iter().filter_map(|numbers| numbers.groups.as_ref());
        constants.extend(groups.flat_map(|groups| &groups.thresholds));
        constants
    }

    /// The parts of a candidate that are not mere numbers.
    pub fn searched(&self, candidate: &Expression) -> Vec<Expression> {
        let parts = self.split(candidate).into_iter().zip(&self.parts);
        parts.filter(|(_, part)| part.operands.is_some()).map(|(e, _)| e).collect()
    }

    /// A random part that is not a mere number.
    fn draw(&self, random: &mut Random) -> usize {
        let searched: Vec<usize> =
            (0..self.parts.len()).filter(|&k| self.parts[k].operands.is_some()).collect();
        searched[random.below(searched.len())]
    }

    /// Changes each part by itself; None if one of the changes is None.
    pub fn each(
        &self,
        candidate: &Expression,
        change: impl Fn(&Expression) -> Option<Expression>,
    ) -> Option<Expression> {
        Some(Template::join(self.split(candidate).iter().map(change).collect::<Option<_>>()?))
    }

    /// A candidate to start from.
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

    /// One part crossed with the same part of another candidate, or taken from it whole.
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

impl Groups {
    /// Selects the number of the row's group.
    fn choose(&self, numbers: &[Expression], constant: &dyn Fn(f64) -> Node) -> Expression {
        let mut nodes = Vec::new();
        for (&threshold, number) in self.thresholds.iter().zip(numbers) {
            nodes.extend([Node::Variable(self.column), constant(threshold), Node::Op(Op::Less)]);
            nodes.extend_from_slice(number.nodes());
        }
        nodes.extend_from_slice(numbers[self.thresholds.len()].nodes());
        nodes.extend(self.thresholds.iter().map(|_| Node::Op(Op::If)));
        Expression::from_nodes(nodes)
    }
}

/// The expression with −3 for the negative of a 3 that was put in a place.
fn without_signs(e: &Expression) -> Expression {
    let mut nodes: Vec<Node> = Vec::with_capacity(e.nodes().len());
    for &node in e.nodes() {
        match (node, nodes.last_mut()) {
            (Node::Op(Op::Neg), Some(Node::Constant(value))) => *value = -*value,
            _ => nodes.push(node),
        }
    }
    Expression::from_nodes(nodes)
}

/// An error if an unknown name is probably not meant as a number.
fn could_be_a_number(
    name: &str,
    names: &[String],
    definitions: &[Definition],
) -> Result<(), String> {
    if Op::from_name(name).is_some() || definitions.iter().any(|d| d.name == name) {
        return Err(format!("'{name}' is a function: give its operands in brackets"));
    }
    if name.eq_ignore_ascii_case("pi") {
        return Err(format!("'{name}' would be fitted like any other number: π is written pi"));
    }
    let similar = |column: &&String| column.to_lowercase() == name.to_lowercase();
    match names.iter().find(similar) {
        Some(column) => Err(format!("'{name}' is not a column, but '{column}' is")),
        None => Ok(()),
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
        assert_eq!(template.constants(), [1.5, 3.5]);
        assert_eq!(template.text(&template.split(&candidate), &names), "(dx + 1) * p[m1] + p[m1]");
    }

    #[test]
    fn numbers_of_a_group_stand_within_a_part() {
        let names = names();
        let template = template("f(dx, 2 * p[m1]) - p[m1] - q[]").unwrap();
        let parts: Vec<Expression> = template
            .parts
            .iter()
            .map(|part| match part.name.as_str() {
                "f" => Expression::parse("a * b > 3", &["a", "b"]).unwrap(),
                "p[m1=1]" => Expression::constant(10.0),
                "p[m1=2]" => Expression::constant(20.0),
                "p[m1=5]" => Expression::constant(30.0),
                "q[]" => Expression::constant(7.0),
                other => panic!("{other}"),
            })
            .collect();
        let candidate = Template::join(parts.clone());
        let numbers = "IF((m1 < 1.5), 10, IF((m1 < 3.5), 20, 30))";
        let whole = format!("(dx * (2 * {numbers}) > 3) - {numbers} - 7");
        assert_eq!(template.formula(&candidate).text(&names), whole);
        assert_eq!(template.text(&parts, &names), "(dx * (2 * p[m1]) > 3) - p[m1] - 7");
        let f = template.parts.iter().position(|part| part.name == "f").unwrap();
        assert_eq!(template.part_text(f, &parts, &names), "(dx * (2 * p[m1]) > 3)");
        let product = Expression::parse("a * b", &["a", "b"]).unwrap();
        let at = candidate.nodes().windows(3).position(|w| w == product.nodes()).unwrap() + 2;
        let inside = template.in_columns(&candidate, at);
        assert_eq!(inside.text(&names), format!("dx * (2 * {numbers})"));
    }

    #[test]
    fn names_are_numbers_where_no_function_is_searched() {
        let names = names();
        let template = template("a * exp(-b * r) + a + 2 + p[m1]").unwrap();
        let found: Vec<&str> = template.numbers.iter().map(|n| n.name.as_str()).collect();
        assert_eq!((found, template.searches()), (vec!["a", "b", "p[m1]"], false));
        let parts: Vec<Expression> = [3.0, 0.5, 1.0, 2.0, 5.0].map(Expression::constant).into();
        assert_eq!(template.text(&parts, &names), "3 * exp(-0.5 * r) + 3 + 2 + p[m1]");
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
        assert!(error("a + b").contains("no column in it"));
        assert!(error("a * exp(-b * R)").contains("'R' is not a column, but 'r' is"));
        assert!(error("a * exp * r").contains("'exp' is a function"));
        assert!(error("sin(2 * PI * b * r)").contains("π is written pi"));
        assert_eq!(template("sin(2 * pi * b * r)").unwrap().parts.len(), 1);
        assert!(error("f(r) + f(r, m1)").contains("operands"));
        assert!(error("f(g(r))").contains("calls another searched function"));
        assert!(error("f(r) * p[q[]]").contains("one column"));
        assert!(error("f(r) * p[m1 + 1]").contains("one column"));
        assert!(error("f(r) * q").contains("'q' is not a variable"));
        assert!(error("f(r) * q").contains("is written q[]"));
        let close = vec![vec![0.0, 1.0], vec![16_777_216.0, 16_777_218.0]];
        let names = ["r", "u"].map(String::from);
        let error = Template::of_table("f(r) + p[u]", &names, &close, &[]).unwrap_err();
        assert!(error.message.contains("single precision"), "{error}");
    }
}
