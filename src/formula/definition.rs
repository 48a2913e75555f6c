//! User-defined operators, given as expressions of their operands.

use super::expression::{Expression, Node};
use crate::error::{Error, Result};

/// A user-defined operator.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    /// Its name.
    pub name: String,
    /// Number of operands.
    pub arity: usize,
    /// An expression of the operands; its constants are starting values, fitted like all others.
    pub body: Expression,
}

impl Definition {
    /// Reads `name(x, y) = body`.
    pub fn parse(text: &str) -> Result<Self> {
        let error = |message: &str| Error::usage(format!("'{text}' {message}"));
        let (head, body) =
            text.split_once('=').ok_or_else(|| error("must read name(x, y) = expression"))?;
        let call = head.trim().strip_suffix(')').and_then(|h| h.split_once('('));
        let Some((name, operands)) = call else {
            return Err(error("must name its operands, as in 'name(x, y) = expression'"));
        };
        let operands: Vec<&str> = operands.split(',').map(str::trim).collect();
        let body = Expression::parse(body, &operands).map_err(|e| Error::usage(e.message))?;
        for (index, operand) in operands.iter().enumerate() {
            if !body.depends_on(index as u16) {
                return Err(error(&format!("does not use its operand {operand}")));
            }
        }
        if !matches!(body.root(), Node::Op(_)) {
            return Err(error("defines nothing: its body has no operator"));
        }
        Ok(Definition { name: name.trim().to_string(), arity: operands.len(), body })
    }

    /// The operator applied to `operands`.
    pub fn apply(&self, operands: &[Expression]) -> Expression {
        self.body.substitute(|variable| operands.get(usize::from(variable)).cloned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formula::expression::{Op, Weights};

    fn parse(text: &str) -> Expression {
        Expression::parse(text, &["x", "y"]).unwrap()
    }

    #[test]
    fn definitions_are_read_and_applied() {
        let gauss = Definition::parse("gauss(x, s) = exp(-(x / s)^2)").unwrap();
        assert_eq!((gauss.name.as_str(), gauss.arity), ("gauss", 2));
        let applied = gauss.apply(&[parse("x + 1"), parse("2")]);
        assert_eq!(applied.text(&["x", "y"]), "exp(-((x + 1) / 2)^2)");
        for bad in ["gauss", "g(x) = y", "g(x, y) = x", "g = 2", "g(x) = x"] {
            assert!(Definition::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_definition_counts_as_one_node() {
        let gauss = Definition::parse("gauss(x, s) = exp(-(x / s)^2)").unwrap();
        let e = gauss.apply(&[parse("x * y"), parse("0.3")]);
        let plain = Weights::default();
        let weights = Weights { definitions: vec![(gauss.body.clone(), 2)], ..plain.clone() };
        assert_eq!(e.complexity(&plain), 3 + 1 + 3 + 1 + 1 + 3 + 1);
        assert_eq!(e.complexity(&weights), 2 + 3 + 1);
        let sum = Expression::apply(Op::Add, &[e, parse("x")]);
        assert_eq!(sum.complexity(&weights), 8);
        let weights = Weights { variables: vec![5], ..plain };
        assert_eq!(parse("x + y").complexity(&weights), 7);
    }
}
