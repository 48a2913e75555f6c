//! Templates: a formula whose shape is given and whose parts are searched, such as
//! `f(r, m1, m2) * dx + g(r) * dy`.
//!
//! A candidate is one expression for each part. The search carries them as one tree, the parts added
//! up (`f + (g + h)`), in which variable k of a part is the k-th operand of its first call.

use super::expression::{Expression, Node, Op};
use super::mutate::{Grammar, crossover};
use crate::error::{Error, Result};
use crate::random::Random;

/// A formula with parts to be found.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    /// Names of the parts.
    pub names: Vec<String>,
    /// Operands of the first call of each part, in the table's columns: what its grammar knows of
    /// the values of its variables.
    pub operands: Vec<Vec<Expression>>,
    calls: Vec<Call>,
    /// In the table's columns and, from `columns` on, the calls.
    body: Expression,
    columns: usize,
}

/// A part with expressions of the columns for its variables.
#[derive(Clone, Debug, PartialEq)]
struct Call {
    part: usize,
    operands: Vec<Expression>,
}

impl Template {
    /// Reads a template over columns with these `names`. What is called and is no function is a part.
    ///
    /// # Errors
    /// A text that cannot be read; a part with different numbers of operands, or within another's
    /// operands; no part at all.
    pub fn parse(text: &str, names: &[String]) -> Result<Self> {
        let error = |message: String| Error::usage(message).field("template");
        let columns: Vec<&str> = names.iter().map(String::as_str).collect();
        let (body, called) =
            Expression::parse_with_calls(text, &columns).map_err(|e| error(e.message))?;
        let mut template = Template {
            names: Vec::new(),
            operands: Vec::new(),
            calls: Vec::new(),
            body,
            columns: names.len(),
        };
        for (name, operands) in called {
            if operands
                .iter()
                .flat_map(Expression::nodes)
                .any(|node| matches!(node, Node::Variable(v) if usize::from(*v) >= names.len()))
            {
                return Err(error(format!("an operand of '{name}' calls another part")));
            }
            let part = match template.names.iter().position(|n| *n == name) {
                Some(part) if template.operands[part].len() != operands.len() => {
                    let (a, b) = (template.operands[part].len(), operands.len());
                    return Err(error(format!("'{name}' has {a} operands here and {b} there")));
                }
                Some(part) => part,
                None => {
                    template.names.push(name);
                    template.operands.push(operands.clone());
                    template.names.len() - 1
                }
            };
            template.calls.push(Call { part, operands });
        }
        if template.names.is_empty() {
            return Err(error(format!("'{text}' has no part to find, such as f({})", columns[0])));
        }
        Ok(template)
    }

    /// The parts as one tree.
    pub fn join(parts: Vec<Expression>) -> Expression {
        let add = |rest: Expression, part: Expression| Expression::apply(Op::Add, &[part, rest]);
        parts.into_iter().rev().reduce(add).expect("a template has parts")
    }

    /// The parts of such a tree.
    pub fn split(&self, candidate: &Expression) -> Vec<Expression> {
        let mut parts = Vec::with_capacity(self.names.len());
        let mut rest = candidate.clone();
        for _ in 1..self.names.len() {
            let mut operands = rest.operands();
            rest = operands.remove(1);
            parts.push(operands.remove(0));
        }
        parts.push(rest);
        parts
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
            let call = match *place {
                Node::Variable(v) => usize::from(v).checked_sub(self.columns),
                _ => None,
            };
            let Some(call) = call.map(|index| &self.calls[index]) else {
                nodes.push(node(place));
                continue;
            };
            let operand = |v: u16| -> Option<Expression> {
                let operand = call.operands.get(usize::from(v))?;
                Some(Expression::from_nodes(operand.nodes().iter().map(node).collect()))
            };
            nodes.extend_from_slice(parts[call.part].substitute(operand).nodes());
        }
        Expression::from_nodes(nodes)
    }

    /// The constants that the template itself has: they are not fitted.
    pub fn constants(&self) -> Vec<f64> {
        let operands = self.calls.iter().flat_map(|call| &call.operands);
        [&self.body].into_iter().chain(operands).flat_map(Expression::constants).collect()
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
        Template::join(grammars.iter().map(|grammar| grammar.beginning(random)).collect())
    }

    /// One part mutated.
    pub fn mutate(
        &self,
        grammars: &[Grammar],
        candidate: &Expression,
        random: &mut Random,
    ) -> Option<Expression> {
        let mut parts = self.split(candidate);
        let at = random.below(parts.len());
        parts[at] = grammars[at].mutate(&parts[at], random)?;
        Some(Template::join(parts))
    }

    /// One part crossed with the same of another candidate, or taken from it whole.
    pub fn crossover(&self, a: &Expression, b: &Expression, random: &mut Random) -> Expression {
        let (mut parts, mut others) = (self.split(a), self.split(b));
        let at = random.below(parts.len());
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

    #[test]
    fn parts_are_found_and_put_in_place() {
        let names = names();
        let template = Template::parse("f(r, m1) * dx + g(r) * dy - f(2 * r, m2)", &names).unwrap();
        assert_eq!(template.names, ["f", "g"]);
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
        let names = names();
        let template = Template::parse("f(r, m1, m2) * dx + g(r)", &names).unwrap();
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
    fn templates_without_sense_are_refused() {
        let error = |text: &str| Template::parse(text, &names()).unwrap_err().to_string();
        assert!(error("r * dx").contains("no part"));
        assert!(error("f(r) + f(r, m1)").contains("operands"));
        assert!(error("f(g(r))").contains("calls another part"));
        assert!(error("f(r) * q").contains("'q' is no variable"));
    }
}
