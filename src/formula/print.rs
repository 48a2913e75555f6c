//! Writing expressions: infix text, LaTeX, Python, Rust and C.
//!
//! Infix text reads back node by node as the [readable](Expression::readable) form of the expression (a property test
//! checks this). All formats walk the postfix list of that form once with a stack of (text, how tightly it binds); how
//! each operator is spelled is in its row.

use super::expression::{Expression, Node, Op, start};
use super::operator::{ATOM, MINUS, POWER, PRODUCT, Row, SUM, Spelling};
use super::pi::PiMultiple;

type Text = (String, u8);

/// The name of π in formulas, unless a column has this name.
pub(super) const PI: &str = "pi";

/// A number in the fewest digits that read back as the same f64.
pub fn number(value: f64) -> String {
    let text = format!("{value:?}");
    text.strip_suffix(".0").map_or(text.clone(), String::from)
}

/// The languages that formulas are written in.
#[derive(Clone, Copy, PartialEq)]
enum Language {
    Text,
    Latex,
    Numpy,
    Sympy,
    Rust,
    C,
}

impl Expression {
    /// The expression with each + and − as a person writes it: `a + 2` for `a - -2`, `a - 2 * b` for `a + -2 * b`.
    /// Values stay the same bit for bit, since rounding does not depend on signs.
    pub fn readable(&self) -> Expression {
        let mut nodes = self.nodes().to_vec();
        let mut at = 0;
        while at < nodes.len() {
            let flipped = match nodes[at] {
                Node::Op(Op::Add) => Op::Sub,
                Node::Op(Op::Sub) => Op::Add,
                _ => {
                    at += 1;
                    continue;
                }
            };
            match minus(&nodes, at - 1) {
                // Look at the same operator again: there may be another minus.
                Some(sign) => {
                    nodes[at] = Node::Op(flipped);
                    if let Node::Constant(value) = &mut nodes[sign] {
                        *value = -*value;
                    } else {
                        nodes.remove(sign);
                        at -= 1;
                    }
                }
                None => at += 1,
            }
        }
        Expression::from_nodes(nodes)
    }

    /// Infix text with these variable `names`; [`Expression::parse`] reads it back.
    pub fn text(&self, names: &[impl AsRef<str>]) -> String {
        self.written(Language::Text, names)
    }

    /// A Python function `law(names…)` that works on numbers and NumPy arrays, with its import.
    pub fn python(&self, names: &[impl AsRef<str>]) -> String {
        let (body, arguments) = (self.numpy(names), join(names, ", "));
        format!("import numpy as np\n\n\ndef law({arguments}):\n    return {body}\n")
    }

    /// A Python expression of numbers or NumPy arrays; NumPy is `np`.
    pub fn numpy(&self, names: &[impl AsRef<str>]) -> String {
        self.written(Language::Numpy, names)
    }

    /// A Python expression of SymPy symbols; SymPy is `sp`.
    pub fn sympy(&self, names: &[impl AsRef<str>]) -> String {
        self.written(Language::Sympy, names)
    }

    /// A C expression of doubles, with the functions of `math.h`.
    pub fn c(&self, names: &[impl AsRef<str>]) -> String {
        self.written(Language::C, names)
    }

    /// A Rust function `law(names…)` on f64.
    pub fn rust(&self, names: &[impl AsRef<str>]) -> String {
        let arguments: Vec<String> = names.iter().map(|n| format!("{}: f64", n.as_ref())).collect();
        let body = self.rust_body(names);
        format!("fn law({}) -> f64 {{\n    {body}\n}}\n", arguments.join(", "))
    }

    /// A Rust expression of f64.
    pub fn rust_body(&self, names: &[impl AsRef<str>]) -> String {
        self.written(Language::Rust, names)
    }

    /// LaTeX, with constants at four significant digits.
    pub fn latex(&self, names: &[impl AsRef<str>]) -> String {
        self.written(Language::Latex, names)
    }

    fn written(&self, language: Language, names: &[impl AsRef<str>]) -> String {
        // In the other languages π is a constant of a library.
        let has_pi = language != Language::Text || names.iter().all(|name| name.as_ref() != PI);
        let write = |node, operands: &[Text]| match node {
            Node::Constant(value) => match PiMultiple::of(value) {
                Some(multiple) if has_pi => language.of_pi(multiple),
                _ => language.number(value),
            },
            Node::Variable(index) => {
                let name = names[usize::from(index)].as_ref();
                (if language == Language::Latex { latex_name(name) } else { name.into() }, ATOM)
            }
            Node::Op(op) => language.operator(op, operands),
        };
        self.readable().fold(write).0
    }
}

/// The negative constant or the Neg that makes the sub-tree at `root` the negative of something: its root, or one of
/// its factors.
fn minus(nodes: &[Node], root: usize) -> Option<usize> {
    let mut at = root;
    let mut factors = 1;
    loop {
        match nodes[at] {
            Node::Constant(value) if value.is_sign_negative() => return Some(at),
            Node::Op(Op::Neg) => return Some(at),
            Node::Op(Op::Mul | Op::Div) => factors += 1,
            _ if factors == 1 => return None,
            _ => {
                at = start(nodes, at);
                factors -= 1;
            }
        }
        at -= 1;
    }
}

fn join(names: &[impl AsRef<str>], separator: &str) -> String {
    names.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(separator)
}

impl Language {
    fn number(self, value: f64) -> Text {
        let text = match self {
            Language::Latex => return latex_number(value),
            Language::Rust => format!("{value:?}_f64"),
            Language::C => format!("{value:?}"),
            _ => number(value),
        };
        // A negative zero counts as negative here, too.
        (text, if value.is_sign_negative() { MINUS } else { ATOM })
    }

    fn of_pi(self, PiMultiple { above, below, inverse }: PiMultiple) -> Text {
        let pi = match self {
            Language::Text => PI,
            Language::Latex => r"\pi",
            Language::Numpy => "np.pi",
            Language::Sympy => "sp.pi",
            Language::Rust => "std::f64::consts::PI",
            Language::C => "M_PI",
        };
        let (sign, factor) = (if above < 0.0 { "-" } else { "" }, above.abs());
        let number = |value: f64| self.number(value).0;
        let times = |factor: f64| match (factor, self) {
            (1.0, _) => pi.to_string(),
            (_, Language::Latex) => format!("{} {pi}", number(factor)),
            _ => format!("{} * {pi}", number(factor)),
        };
        let (top, bottom) = match inverse {
            false if below == 1.0 => (times(factor), None),
            false => (times(factor), Some((number(below), ATOM))),
            true => {
                (number(factor), Some((times(below), if below == 1.0 { ATOM } else { PRODUCT })))
            }
        };
        let text = match (bottom, self) {
            (None, _) => top.clone(),
            (Some((bottom, _)), Language::Latex) => format!(r"\frac{{{top}}}{{{bottom}}}"),
            (Some(bottom), _) => format!("{top} / {}", self.bracketed(&bottom, ATOM)),
        };
        let binding = match text == pi {
            true if sign.is_empty() => ATOM,
            true => MINUS,
            false => PRODUCT,
        };
        (sign.to_string() + &text, binding)
    }

    fn operator(self, op: Op, operands: &[Text]) -> Text {
        let first = &operands[0];
        let is_number = first.0.starts_with(|c: char| c.is_ascii_digit()) && first.1 == ATOM;
        // A number goes in brackets, or the minus would become part of it; two minus signs are a decrement in C.
        let alone = is_number && self != Language::Latex;
        if op == Op::Neg && (alone || self == Language::C && first.0.starts_with('-')) {
            return (format!("-({})", first.0), MINUS);
        }
        match self.spelling(op.row()) {
            Spelling::Form(form, binding) => (self.filled(form, operands), binding),
            Spelling::Call(name) => (self.call(name, operands), ATOM),
        }
    }

    fn spelling(self, row: &Row) -> Spelling {
        match self {
            Language::Text => row.text,
            Language::Latex => row.latex,
            Language::Numpy => row.numpy,
            Language::Sympy => row.sympy,
            Language::Rust => row.rust,
            Language::C => row.c,
        }
    }

    fn call(self, name: &str, operands: &[Text]) -> String {
        let texts: Vec<&str> = operands.iter().map(|o| o.0.as_str()).collect();
        let all = texts.join(", ");
        match self {
            Language::Text | Language::C => format!("{name}({all})"),
            Language::Latex => format!(r"\{name}\left({all}\right)"),
            Language::Numpy => format!("np.{name}({all})"),
            Language::Sympy => format!("sp.{name}({all})"),
            Language::Rust => {
                format!("{}.{name}({})", self.bracketed(&operands[0], ATOM), texts[1..].join(", "))
            }
        }
    }

    /// A [`Spelling::Form`] with the operands filled in.
    fn filled(self, form: &str, operands: &[Text]) -> String {
        let mut parts = form.split('#');
        let mut text = parts.next().unwrap_or_default().to_string();
        for part in parts {
            let operand = &operands[usize::from(part.as_bytes()[0] - b'a')];
            let at_least = match part.as_bytes().get(1) {
                Some(b'+') => SUM,
                Some(b'*') => PRODUCT,
                Some(b'-') => MINUS,
                Some(b'^') => POWER,
                Some(b'.') => ATOM,
                _ => {
                    text += &operand.0;
                    text += &part[1..];
                    continue;
                }
            };
            text += &self.bracketed(operand, at_least);
            text += &part[2..];
        }
        text
    }

    fn bracketed(self, text: &Text, at_least: u8) -> String {
        match self {
            _ if text.1 >= at_least => text.0.clone(),
            Language::Latex => format!(r"\left({}\right)", text.0),
            _ => format!("({})", text.0),
        }
    }
}

fn latex_number(value: f64) -> Text {
    let rounded: f64 = format!("{value:.3e}").parse().unwrap_or(value);
    let text = number(rounded);
    let binding = if value.is_sign_negative() { MINUS } else { ATOM };
    match text.split_once('e') {
        Some((digits, exponent)) => {
            (format!(r"{digits} \cdot 10^{{{exponent}}}"), binding.min(PRODUCT))
        }
        None => (text, binding),
    }
}

/// `m1` becomes m with an index; d before a coordinate becomes Δ.
fn latex_name(name: &str) -> String {
    if let "dx" | "dy" | "dz" = name {
        return format!(r"\Delta {}", &name[1..]);
    }
    let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    let (stem, index) = name.split_at(name.len() - digits);
    let stem = match stem.trim_end_matches('_') {
        single if single.chars().count() == 1 => single.chars().map(latex_character).collect(),
        long => format!(r"\mathrm{{{}}}", long.chars().map(latex_character).collect::<String>()),
    };
    if index.is_empty() { stem } else { format!("{stem}_{{{index}}}") }
}

/// A character of a column's name, which may be anything.
fn latex_character(c: char) -> String {
    match c {
        '_' | '%' | '&' | '#' | '$' | '{' | '}' => format!(r"\{c}"),
        ' ' => r"\ ".to_string(),
        '\\' => r"\backslash{}".to_string(),
        '^' | '~' => format!(r"\text{{\{c}{{}}}}"),
        c if c.is_control() => String::new(),
        c => c.to_string(),
    }
}

/// A number with three digits.
pub fn short(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 || !value.is_finite() {
        return format!("{value}");
    }
    if !(1e-3..1e5).contains(&size) {
        return format!("{value:.2e}");
    }
    let digits = (2 - size.log10().floor() as i32).max(0) as usize;
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formula::expression::tests::{any_expression, cases};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(cases(3000))]
        #[test]
        fn text_reads_back_node_by_node(e in any_expression(), values in prop::array::uniform3(-3.0..3.0f64)) {
            let names = ["x", "y1", "z_"];
            let text = e.text(&names);
            let back = Expression::parse(&text, &names).unwrap();
            prop_assert_eq!(back.text(&names), text);
            // NaN aside, nodes compare by value; the sign of a zero shows in the text.
            prop_assert_eq!(&back, &e.readable());
            let [before, after] = [&e, &back].map(|e| e.eval(&values));
            prop_assert!(before.to_bits() == after.to_bits() || (before.is_nan() && after.is_nan()));
        }

        #[test]
        fn no_sign_follows_a_sign(e in any_expression()) {
            let names = ["x", "y1", "z_"];
            for text in [e.text(&names), e.latex(&names), e.python(&names), e.rust(&names)] {
                prop_assert!(!text.contains("+ -") && !text.contains("- -"), "{}", text);
            }
        }
    }

    fn parse(text: &str) -> Expression {
        Expression::parse(text, &["x", "m1"]).unwrap()
    }

    #[test]
    fn signs_of_terms() {
        for (written, read) in [
            ("x - -0.159", "x + 0.159"),
            ("x + -0.56", "x - 0.56"),
            ("x + -1.28 * m1 + -3", "x - 1.28 * m1 - 3"),
            ("x - (m1 - -3)", "x - (m1 + 3)"),
            ("x - -(m1 - 3)", "x + (m1 - 3)"),
            ("x - (-m1 - 3)", "x - (-m1 - 3)"),
            ("-2 * x - -2 * m1", "-2 * x + 2 * m1"),
            ("x - -2 * m1 * -3 / -4", "x + 2 * m1 * 3 / 4"),
            ("x + m1 / -2", "x - m1 / 2"),
            ("x - --m1", "x - m1"),
            ("x + -m1^-2", "x - m1^-2"),
            ("x + (-2)^m1", "x + (-2)^m1"),
            ("x - -2^m1", "x + 2^m1"),
            ("x + sin(-m1)", "x + sin(-m1)"),
            ("x * (-2 + -m1)", "x * (-2 - m1)"),
            ("x + -1e-7", "x - 1e-7"),
        ] {
            assert_eq!(parse(written).text(&["x", "m1"]), read, "{written}");
        }
        let e = parse("x - -1.36 / m1 + -2 * IF(x > -2, x - -3, -3)");
        assert_eq!(
            e.latex(&["x", "m1"]),
            r"x + \frac{1.36}{m_{1}} - 2 \, \left(\begin{cases}x + 3 & \left[x > -2\right] > 0\\-3 & \text{else}\end{cases}\right)"
        );
        assert_eq!(
            e.python(&["x", "m1"]).lines().last(),
            Some(
                "    return x + 1.36 / m1 - 2 * np.where(np.where(x > -2, 1.0, 0.0) > 0, x + 3, -3)"
            )
        );
        assert_eq!(
            e.rust(&["x", "m1"]).lines().nth(1),
            Some(
                "    x + 1.36_f64 / m1 - 2.0_f64 * (if f64::from(u8::from(x > -2.0_f64)) > 0.0 { x + 3.0_f64 } else { -3.0_f64 })"
            )
        );
    }

    /// π has a name in every language, and formulas read back to the same bits.
    #[test]
    fn multiples_of_pi_are_named() {
        use std::f64::consts::PI;
        let times = |value: f64| {
            Expression::apply(Op::Mul, &[Expression::constant(value), Expression::variable(0)])
        };
        for (value, text) in [
            (PI, "pi * x"),
            (2.0 * PI / 3.0, "2 * pi / 3 * x"),
            (-PI / 2.0, "-pi / 2 * x"),
            (1.0 / (2.0 * PI), "1 / (2 * pi) * x"),
            (-1.0 / PI, "-1 / pi * x"),
        ] {
            let e = times(value);
            assert_eq!(e.text(&["x", "m1"]), text);
            assert_eq!(parse(text), e, "{text}");
        }
        let e = times(1.0 / (2.0 * PI));
        assert_eq!(e.latex(&["x"]), r"\frac{1}{2 \pi} \, x");
        assert_eq!(e.numpy(&["x"]), "1 / (2 * np.pi) * x");
        assert_eq!(e.sympy(&["x"]), "1 / (2 * sp.pi) * x");
        assert_eq!(e.rust_body(&["x"]), "1.0_f64 / (2.0_f64 * std::f64::consts::PI) * x");
        assert_eq!(e.c(&["x"]), "1.0 / (2.0 * M_PI) * x");
        assert_eq!(times(PI).text(&["pi"]), "3.141592653589793 * pi", "a column of that name");
        let power = parse("x^pi - 2^(pi / 2)");
        assert_eq!(power.text(&["x", "m1"]), "x^pi - 2^(pi / 2)");
    }

    #[test]
    fn exports() {
        let names = ["x", "m1"];
        let e = parse("IF(x > 2, 0.5 * (x - 1) / m1^2, -x)");
        assert_eq!(e.text(&names), "IF((x > 2), 0.5 * (x - 1) / m1^2, -x)");
        assert_eq!(
            e.latex(&names),
            r"\begin{cases}\frac{0.5 \, \left(x - 1\right)}{m_{1}^{2}} & \left[x > 2\right] > 0\\-x & \text{else}\end{cases}"
        );
        assert_eq!(
            e.python(&names),
            "import numpy as np\n\n\ndef law(x, m1):\n    return np.where(np.where(x > 2, 1.0, 0.0) > 0, \
             0.5 * (x - 1) / np.power(1.0 * m1, 2), -x)\n"
        );
        assert_eq!(
            parse("-x^2 + log(m1)").rust(&names),
            "fn law(x: f64, m1: f64) -> f64 {\n    -x.powf(2.0_f64) + m1.ln()\n}\n"
        );
        assert_eq!(parse("1.23456e-7 * x").latex(&names), r"1.235 \cdot 10^{-7} \, x");
        assert_eq!(latex_name("gain %"), r"\mathrm{gain\ \%}");
        assert_eq!(latex_name("a_b&2"), r"\mathrm{a\_b\&}_{2}");
    }

    #[test]
    fn inverse_functions_have_the_name_of_each_language() {
        let (names, e) = (["x", "m1"], parse("asin(x) + acos(m1) - atan(x)"));
        assert_eq!(e.text(&names), "asin(x) + acos(m1) - atan(x)");
        assert_eq!(
            e.latex(&names),
            r"\arcsin\left(x\right) + \arccos\left(m_{1}\right) - \arctan\left(x\right)"
        );
        assert_eq!(e.numpy(&names), "np.arcsin(x) + np.arccos(m1) - np.arctan(x)");
        assert_eq!(e.sympy(&names), "sp.asin(x) + sp.acos(m1) - sp.atan(x)");
        assert_eq!(e.rust_body(&names), "x.asin() + m1.acos() - x.atan()");
        assert_eq!(e.c(&names), "asin(x) + acos(m1) - atan(x)");
    }
}
