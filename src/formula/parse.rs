//! Parsing infix text: Python's grammar for + − * / comparisons and functions, with `^` (or `**`) for powers.
//!
//! A minus directly before a number belongs to the number, except under a power: `-2^x` is −(2^x),
//! as in Python.

use super::definition::Definition;
use super::expression::{Expression, Node, Op};
use super::pi::PiMultiple;
use super::print::PI;
use crate::error::{Error, Result};

/// Nesting beyond this is refused, so that the recursion below cannot overflow the stack.
const MAX_NESTING: usize = 200;

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Number(f64),
    Name(String),
    Sign(char),
}

impl Expression {
    /// Reads `text`, in which the variables have these `names`.
    ///
    /// # Errors
    /// Gives the position (from 1) and what is wrong there.
    pub fn parse(text: &str, names: &[&str]) -> Result<Self> {
        Expression::parse_with(text, names, &[])
    }

    /// The same, for text that may also call user-defined operators, which are expanded.
    pub fn parse_with(text: &str, names: &[&str], definitions: &[Definition]) -> Result<Self> {
        Ok(read(text, names, definitions, None, false)?.0)
    }

    /// The same, for text that calls functions which do not exist yet: call k becomes variable `names.len()` + k; the
    /// calls and their operands are returned as well. With `words` an unknown name is such a call, too.
    pub(crate) fn parse_with_calls(
        text: &str,
        names: &[&str],
        definitions: &[Definition],
        words: bool,
    ) -> Result<(Self, Calls)> {
        read(text, names, definitions, Some(Vec::new()), words)
    }
}

/// A call in the text of something that does not exist yet.
pub(crate) struct Call {
    pub name: String,
    pub operands: Vec<Expression>,
    pub kind: CallKind,
}

/// How a call is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum CallKind {
    /// `name(operands)`
    Function,
    /// `name[column]` or `name[]`
    Index,
    /// `name`
    Word,
}

type Calls = Vec<Call>;

fn read(
    text: &str,
    names: &[&str],
    definitions: &[Definition],
    calls: Option<Calls>,
    words: bool,
) -> Result<(Expression, Calls)> {
    let tokens = tokens(text)?;
    let nodes = Vec::new();
    let mut parser =
        Parser { text, names, definitions, tokens, at: 0, nesting: 0, nodes, calls, words };
    parser.comparison()?;
    if parser.at < parser.tokens.len() {
        return Err(parser.error("an operator is missing"));
    }
    Ok((Expression::new(parser.nodes)?, parser.calls.unwrap_or_default()))
}

fn error_at(text: &str, position: usize, message: &str) -> Error {
    Error::input(format!("in '{text}', at character {}: {message}", position + 1))
}

fn tokens(text: &str) -> Result<Vec<(usize, Token)>> {
    let characters: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < characters.len() {
        let begun = at;
        let token = match characters[at] {
            c if c.is_whitespace() => {
                at += 1;
                continue;
            }
            c if c.is_ascii_digit() || c == '.' => {
                while at < characters.len() {
                    let exponent = at > begun && matches!(characters[at - 1], 'e' | 'E');
                    match characters[at] {
                        '0'..='9' | '.' | 'e' | 'E' => at += 1,
                        '+' | '-' if exponent => at += 1,
                        _ => break,
                    }
                }
                let word: String = characters[begun..at].iter().collect();
                match word.parse::<f64>() {
                    Ok(value) if value.is_finite() => Token::Number(value),
                    _ => return Err(error_at(text, begun, &format!("'{word}' is not a number"))),
                }
            }
            c if c.is_alphabetic() || c == '_' => {
                while at < characters.len()
                    && (characters[at].is_alphanumeric() || characters[at] == '_')
                {
                    at += 1;
                }
                Token::Name(characters[begun..at].iter().collect())
            }
            '*' if characters.get(at + 1) == Some(&'*') => {
                at += 2;
                Token::Sign('^')
            }
            c @ ('+' | '-' | '*' | '/' | '^' | '(' | ')' | ',' | '>' | '<' | '[' | ']') => {
                at += 1;
                Token::Sign(c)
            }
            c => return Err(error_at(text, begun, &format!("'{c}' is unexpected"))),
        };
        tokens.push((begun, token));
    }
    Ok(tokens)
}

struct Parser<'a> {
    text: &'a str,
    names: &'a [&'a str],
    definitions: &'a [Definition],
    tokens: Vec<(usize, Token)>,
    at: usize,
    nesting: usize,
    nodes: Vec<Node>,
    /// Calls of functions that do not exist yet, if these are allowed.
    calls: Option<Calls>,
    /// Unknown names are such calls, too.
    words: bool,
}

impl Parser<'_> {
    fn error(&self, message: &str) -> Error {
        let end = self.text.chars().count();
        error_at(self.text, self.tokens.get(self.at).map_or(end, |t| t.0), message)
    }

    fn peek(&self, ahead: usize) -> Option<&Token> {
        self.tokens.get(self.at + ahead).map(|t| &t.1)
    }

    /// Consumes the next token if it is one of `signs`.
    fn sign(&mut self, signs: &[char]) -> Option<char> {
        match self.peek(0) {
            Some(&Token::Sign(c)) if signs.contains(&c) => {
                self.at += 1;
                Some(c)
            }
            _ => None,
        }
    }

    fn expect(&mut self, sign: char) -> Result<()> {
        match self.sign(&[sign]) {
            Some(_) => Ok(()),
            None => Err(self.error(&format!("'{sign}' is missing"))),
        }
    }

    fn push(&mut self, op: Op) {
        self.nodes.push(Node::Op(op));
    }

    /// Folds the operator just read into one number if its operands are a multiple of π and perhaps another number, as
    /// formulas are written.
    fn fold_pi(&mut self, operands: usize) {
        let last = self.nodes.len() - 1;
        let constant = |node: &Node| match *node {
            Node::Constant(value) => Some(value),
            _ => None,
        };
        let Some(first) = last.checked_sub(operands) else { return };
        let values: Vec<f64> = self.nodes[first..last].iter().map_while(constant).collect();
        let of_pi = values.iter().any(|value| PiMultiple::of(*value).is_some());
        if let (Node::Op(op), true) = (self.nodes[last], of_pi && values.len() == operands) {
            self.nodes.truncate(first);
            self.nodes.push(Node::Constant(op.apply(&values)));
        }
    }

    /// sum [> sum]. Python chains comparisons; here a second one needs parentheses.
    fn comparison(&mut self) -> Result<()> {
        self.nesting += 1;
        if self.nesting > MAX_NESTING {
            return Err(self.error(&format!("more than {MAX_NESTING} levels of nesting")));
        }
        self.sum()?;
        if let Some(c) = self.sign(&['>', '<']) {
            self.sum()?;
            self.push(if c == '>' { Op::Greater } else { Op::Less });
        }
        self.nesting -= 1;
        Ok(())
    }

    fn sum(&mut self) -> Result<()> {
        self.product()?;
        while let Some(c) = self.sign(&['+', '-']) {
            self.product()?;
            self.push(if c == '+' { Op::Add } else { Op::Sub });
        }
        Ok(())
    }

    fn product(&mut self) -> Result<()> {
        self.unary()?;
        while let Some(c) = self.sign(&['*', '/']) {
            self.unary()?;
            self.push(if c == '*' { Op::Mul } else { Op::Div });
            self.fold_pi(2);
        }
        Ok(())
    }

    fn unary(&mut self) -> Result<()> {
        self.nesting += 1;
        if self.nesting > MAX_NESTING {
            return Err(self.error(&format!("more than {MAX_NESTING} levels of nesting")));
        }
        match (self.peek(0), self.peek(1), self.peek(2)) {
            (Some(Token::Sign('-')), Some(&Token::Number(value)), after)
                if after != Some(&Token::Sign('^')) =>
            {
                self.at += 2;
                self.nodes.push(Node::Constant(-value));
            }
            (Some(Token::Sign('-')), ..) => {
                self.at += 1;
                self.unary()?;
                self.push(Op::Neg);
                self.fold_pi(1);
            }
            (Some(Token::Sign('+')), ..) => {
                self.at += 1;
                self.unary()?;
            }
            _ => {
                self.atom()?;
                if self.sign(&['^']).is_some() {
                    self.unary()?;
                    self.push(Op::Pow);
                }
            }
        }
        self.nesting -= 1;
        Ok(())
    }

    fn atom(&mut self) -> Result<()> {
        match self.peek(0).cloned() {
            Some(Token::Number(value)) => {
                self.at += 1;
                self.nodes.push(Node::Constant(value));
                Ok(())
            }
            Some(Token::Name(name)) => {
                if self.peek(1) == Some(&Token::Sign('(')) {
                    return self.call(&name);
                }
                if self.peek(1) == Some(&Token::Sign('[')) {
                    return self.unknown_call(&name);
                }
                match self.names.iter().position(|n| *n == name) {
                    Some(index) => self.nodes.push(Node::Variable(index as u16)),
                    None if name == PI => self.nodes.push(Node::Constant(std::f64::consts::PI)),
                    None if self.words => self.unknown(&name, Vec::new(), CallKind::Word),
                    None => {
                        let known = self.names.join(", ");
                        let message =
                            format!("'{name}' is not a variable; the variables are {known}");
                        return Err(self.error(&message));
                    }
                }
                self.at += 1;
                Ok(())
            }
            Some(Token::Sign('(')) => {
                self.at += 1;
                self.comparison()?;
                self.expect(')')
            }
            _ => Err(self.error("a value is missing")),
        }
    }

    fn call(&mut self, name: &str) -> Result<()> {
        let function = |op: &Op| op.name().starts_with(char::is_alphabetic);
        let definitions = self.definitions;
        let Some(op) = Op::from_name(name).filter(function) else {
            return match definitions.iter().find(|d| d.name == name) {
                Some(definition) => self.own_call(definition),
                None => self.unknown_call(name),
            };
        };
        self.at += 2;
        for operand in 0..op.arity() {
            if operand > 0 {
                self.expect(',')?;
            }
            self.comparison()?;
        }
        self.push(op);
        self.expect(')')
    }

    /// A call of a user-defined operator.
    fn own_call(&mut self, definition: &Definition) -> Result<()> {
        self.at += 2;
        let before = std::mem::take(&mut self.nodes);
        let mut operands = Vec::with_capacity(definition.arity);
        for operand in 0..definition.arity {
            if operand > 0 {
                self.expect(',')?;
            }
            self.comparison()?;
            operands.push(Expression::new(std::mem::take(&mut self.nodes))?);
        }
        self.expect(')')?;
        self.nodes = before;
        self.nodes.extend_from_slice(definition.apply(&operands).nodes());
        Ok(())
    }

    /// A call of a function that does not exist yet, `name[column]` or `name[]`.
    fn unknown_call(&mut self, name: &str) -> Result<()> {
        if self.calls.is_none() {
            return Err(self.error(&format!("'{name}' is not a function")));
        }
        let indexed = self.peek(1) == Some(&Token::Sign('['));
        self.at += 2;
        let before = std::mem::take(&mut self.nodes);
        let mut operands = Vec::new();
        if !(indexed && self.peek(0) == Some(&Token::Sign(']'))) {
            loop {
                self.comparison()?;
                operands.push(Expression::new(std::mem::take(&mut self.nodes))?);
                if self.sign(&[',']).is_none() {
                    break;
                }
            }
        }
        self.expect(if indexed { ']' } else { ')' })?;
        self.nodes = before;
        self.unknown(name, operands, if indexed { CallKind::Index } else { CallKind::Function });
        Ok(())
    }

    /// A variable in place of something that does not exist yet.
    fn unknown(&mut self, name: &str, operands: Vec<Expression>, kind: CallKind) {
        let calls = self.calls.get_or_insert_default();
        self.nodes.push(Node::Variable((self.names.len() + calls.len()) as u16));
        calls.push(Call { name: name.to_string(), operands, kind });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_where() {
        let error = |text: &str| Expression::parse(text, &["r", "m1"]).unwrap_err().to_string();
        assert!(error("r + ").contains("character 5: a value is missing"), "{}", error("r + "));
        assert!(error("r * m2").contains("'m2' is not a variable; the variables are r, m1"));
        assert!(error("tan(r)").contains("character 1: 'tan' is not a function"));
        assert!(error("(r").contains("')' is missing"));
        assert!(error("r m1").contains("an operator is missing"));
        assert!(error("1.2.3").contains("not a number"));
        assert!(error("1e999").contains("not a number"));
        assert!(error("r > 1 > 2").contains("an operator is missing"));
        assert!(error("min(r)").contains("',' is missing"));
        assert!(error("r % 2").contains("'%'"));
        assert!(error("").contains("a value is missing"));
        assert!(error(&"(".repeat(100_000)).contains("levels"));
        assert!(error(&"-".repeat(100_000)).contains("levels"));
    }

    #[test]
    fn precedence_is_that_of_python() {
        let same = |a: &str, b: &str| {
            let parse = |text| Expression::parse(text, &["x", "y"]).unwrap();
            assert_eq!(parse(a), parse(b));
        };
        same("x ** y", "x^y");
        same("x - y - 1", "(x - y) - 1");
        same("x / y * 2", "(x / y) * 2");
        same("x^y^2", "x^(y^2)");
        same("-x^2", "-(x^2)");
        same("-x * y", "(-x) * y");
        same("x^-y", "x^(-y)");
        same("x * -2", "x * (-2)");
        same("x + 1 > y * 2", "(x + 1) > (y * 2)");
        same("1.5E-3 + .5", "0.0015 + 0.5");
    }
}
