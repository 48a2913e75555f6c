//! Writing expressions: infix text, LaTeX, Python and Rust.
//!
//! Infix text reads back node by node as the [readable](Expression::readable) form of the expression
//! (a property test says so). All four walk the postfix list of that form once with a stack of (text,
//! how tightly it binds).

use super::expression::{Expression, Node, Op, start};

/// How tightly a text binds, loosest first; a function call or a name is an `ATOM`.
const COMPARISON: u8 = 0;
const SUM: u8 = 1;
const PRODUCT: u8 = 2;
const MINUS: u8 = 3;
const POWER: u8 = 4;
const ATOM: u8 = 5;

type Text = (String, u8);

/// A number in the fewest digits that read back as the same f64.
pub fn number(value: f64) -> String {
    let text = format!("{value:?}");
    text.strip_suffix(".0").map_or(text.clone(), String::from)
}

fn bracketed(text: &Text, at_least: u8) -> String {
    if text.1 >= at_least { text.0.clone() } else { format!("({})", text.0) }
}

impl Expression {
    /// The same with each + and − as a person writes it: `a + 2` for `a - -2`, `a - 2 * b` for
    /// `a + -2 * b`. Values stay bit for bit, since rounding does not depend on signs.
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
                // The same operator again afterwards: there may be another minus.
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

    /// Infix text with the variables' `names`; [`Expression::parse`] reads it back.
    pub fn text(&self, names: &[impl AsRef<str>]) -> String {
        self.readable().fold(|node, operands: &[Text]| infix(node, operands, names, "^")).0
    }

    /// A Python function `law(names…)` that works on numbers and NumPy arrays, for one import.
    pub fn python(&self, names: &[impl AsRef<str>]) -> String {
        let (body, arguments) = (self.numpy(names), join(names, ", "));
        format!("import numpy as np\n\n\ndef law({arguments}):\n    return {body}\n")
    }

    /// A Python expression of numbers or NumPy arrays; NumPy is `np`.
    pub fn numpy(&self, names: &[impl AsRef<str>]) -> String {
        let (body, _) = self.readable().fold(|node, operands: &[Text]| match node {
            Node::Op(op @ (Op::Greater | Op::Less)) => {
                let (a, b) = (bracketed(&operands[0], SUM), bracketed(&operands[1], SUM));
                (format!("np.where({a} {} {b}, 1.0, 0.0)", op.name()), ATOM)
            }
            Node::Op(Op::If) => {
                let [c, a, b] = [0, 1, 2].map(|k| &operands[k].0);
                (
                    format!(
                        "np.where({} > 0, {a}, {b})",
                        bracketed(&(c.clone(), operands[0].1), SUM)
                    ),
                    ATOM,
                )
            }
            Node::Op(
                op @ (Op::Exp
                | Op::Log
                | Op::Sqrt
                | Op::Abs
                | Op::Square
                | Op::Sin
                | Op::Cos
                | Op::Tanh),
            ) => (format!("np.{}({})", op.name(), operands[0].0), ATOM),
            Node::Op(op @ (Op::Asin | Op::Acos | Op::Atan)) => {
                (format!("np.arc{}({})", &op.name()[1..], operands[0].0), ATOM)
            }
            Node::Op(op @ (Op::Min | Op::Max)) => {
                (format!("np.{}imum({}, {})", op.name(), operands[0].0, operands[1].0), ATOM)
            }
            Node::Op(Op::Cube) => (format!("{}**3", bracketed(&operands[0], ATOM)), POWER),
            // An array of integers refuses a negative power.
            Node::Op(Op::Pow) => (
                format!(
                    "np.power(1.0 * {}, {})",
                    bracketed(&operands[0], PRODUCT + 1),
                    operands[1].0
                ),
                ATOM,
            ),
            _ => infix(node, operands, names, "**"),
        });
        body
    }

    /// A Python expression of SymPy's symbols; SymPy is `sp`.
    pub fn sympy(&self, names: &[impl AsRef<str>]) -> String {
        let (body, _) = self.readable().fold(|node, operands: &[Text]| {
            let Node::Op(op) = node else { return infix(node, operands, names, "**") };
            let all = || operands.iter().map(|o| o.0.clone()).collect::<Vec<_>>().join(", ");
            let call = |name: &str| (format!("sp.{name}({})", all()), ATOM);
            match op {
                Op::Greater | Op::Less => {
                    let (a, b) = (bracketed(&operands[0], SUM), bracketed(&operands[1], SUM));
                    (format!("sp.Piecewise((1, {a} {} {b}), (0, True))", op.name()), ATOM)
                }
                Op::If => {
                    let [c, a, b] = [0, 1, 2].map(|k| &operands[k]);
                    let c = bracketed(c, SUM);
                    (format!("sp.Piecewise(({}, {c} > 0), ({}, True))", a.0, b.0), ATOM)
                }
                Op::Exp | Op::Log | Op::Sqrt | Op::Sin | Op::Cos | Op::Tanh => call(op.name()),
                Op::Asin | Op::Acos | Op::Atan => call(op.name()),
                Op::Abs => call("Abs"),
                Op::Min => call("Min"),
                Op::Max => call("Max"),
                Op::Square => (format!("{}**2", bracketed(&operands[0], ATOM)), POWER),
                Op::Cube => (format!("{}**3", bracketed(&operands[0], ATOM)), POWER),
                _ => infix(node, operands, names, "**"),
            }
        });
        body
    }

    /// A C expression of doubles, with the functions of `math.h`.
    pub fn c(&self, names: &[impl AsRef<str>]) -> String {
        let (body, _) = self.readable().fold(|node, operands: &[Text]| {
            let op = match node {
                Node::Constant(value) => {
                    let binding = if value.is_sign_negative() { MINUS } else { ATOM };
                    return (format!("{value:?}"), binding);
                }
                Node::Op(op) => op,
                Node::Variable(_) => return infix(node, operands, names, "^"),
            };
            let all = || operands.iter().map(|o| o.0.clone()).collect::<Vec<_>>().join(", ");
            let call = |name: &str| (format!("{name}({})", all()), ATOM);
            let power = |n: &str| (format!("pow({}, {n})", operands[0].0), ATOM);
            match op {
                Op::Greater | Op::Less => {
                    let (a, b) = (bracketed(&operands[0], SUM), bracketed(&operands[1], SUM));
                    (format!("({a} {} {b} ? 1.0 : 0.0)", op.name()), ATOM)
                }
                Op::If => {
                    let c = bracketed(&operands[0], SUM);
                    (format!("({c} > 0.0 ? {} : {})", operands[1].0, operands[2].0), ATOM)
                }
                Op::Exp | Op::Log | Op::Sqrt | Op::Sin | Op::Cos | Op::Tanh | Op::Pow => {
                    call(if op == Op::Pow { "pow" } else { op.name() })
                }
                Op::Asin | Op::Acos | Op::Atan => call(op.name()),
                Op::Abs => call("fabs"),
                Op::Min => call("fmin"),
                Op::Max => call("fmax"),
                Op::Square => power("2.0"),
                Op::Cube => power("3.0"),
                // Two signs in a row would be a decrement.
                Op::Neg if operands[0].0.starts_with('-') => {
                    (format!("-({})", operands[0].0), MINUS)
                }
                _ => infix(node, operands, names, "^"),
            }
        });
        body
    }

    /// A Rust function `law(names…)` on f64.
    pub fn rust(&self, names: &[impl AsRef<str>]) -> String {
        let arguments: Vec<String> = names.iter().map(|n| format!("{}: f64", n.as_ref())).collect();
        let body = self.rust_body(names);
        format!("fn law({}) -> f64 {{\n    {body}\n}}\n", arguments.join(", "))
    }

    /// A Rust expression of f64.
    pub fn rust_body(&self, names: &[impl AsRef<str>]) -> String {
        let (body, _) = self.readable().fold(|node, operands: &[Text]| match node {
            Node::Constant(value) => {
                let text = format!("{value:?}_f64");
                (text, if value.is_sign_negative() { MINUS } else { ATOM })
            }
            Node::Op(op @ (Op::Greater | Op::Less)) => {
                let (a, b) = (bracketed(&operands[0], SUM), bracketed(&operands[1], SUM));
                (format!("f64::from(u8::from({a} {} {b}))", op.name()), ATOM)
            }
            Node::Op(Op::If) => {
                let [a, b] = [1, 2].map(|k| &operands[k].0);
                let c = bracketed(&operands[0], SUM);
                (format!("(if {c} > 0.0 {{ {a} }} else {{ {b} }})"), ATOM)
            }
            Node::Op(
                op @ (Op::Exp
                | Op::Sqrt
                | Op::Abs
                | Op::Sin
                | Op::Cos
                | Op::Tanh
                | Op::Asin
                | Op::Acos
                | Op::Atan),
            ) => (format!("{}.{}()", bracketed(&operands[0], ATOM), op.name()), ATOM),
            Node::Op(op @ (Op::Min | Op::Max)) => (
                format!("{}.{}({})", bracketed(&operands[0], ATOM), op.name(), operands[1].0),
                ATOM,
            ),
            Node::Op(Op::Log) => (format!("{}.ln()", bracketed(&operands[0], ATOM)), ATOM),
            Node::Op(Op::Pow) => {
                (format!("{}.powf({})", bracketed(&operands[0], ATOM), operands[1].0), ATOM)
            }
            Node::Op(Op::Square) => (format!("{}.powi(2)", bracketed(&operands[0], ATOM)), ATOM),
            Node::Op(Op::Cube) => (format!("{}.powi(3)", bracketed(&operands[0], ATOM)), ATOM),
            _ => infix(node, operands, names, "^"),
        });
        body
    }

    /// LaTeX, with constants at four significant digits.
    pub fn latex(&self, names: &[impl AsRef<str>]) -> String {
        self.readable().fold(|node, operands: &[Text]| latex(node, operands, names)).0
    }
}

/// The negative constant or the Neg that makes the sub-tree at `root` the negative of something: its
/// root, or a factor of it.
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

fn infix(node: Node, operands: &[Text], names: &[impl AsRef<str>], power: &str) -> Text {
    let op = match node {
        // A negative zero is a negative number here too.
        Node::Constant(value) => {
            return (number(value), if value.is_sign_negative() { MINUS } else { ATOM });
        }
        Node::Variable(index) => return (names[usize::from(index)].as_ref().to_string(), ATOM),
        Node::Op(op) => op,
    };
    let side = |operand: usize, at_least| bracketed(&operands[operand], at_least);
    match op {
        Op::Add | Op::Sub => (format!("{} {} {}", side(0, SUM), op.name(), side(1, PRODUCT)), SUM),
        Op::Mul | Op::Div => {
            (format!("{} {} {}", side(0, PRODUCT), op.name(), side(1, MINUS)), PRODUCT)
        }
        Op::Pow => (format!("{}{power}{}", side(0, ATOM), side(1, MINUS)), POWER),
        // Always in brackets, so that Python's chaining of comparisons never applies.
        Op::Greater | Op::Less => {
            (format!("({} {} {})", side(0, SUM), op.name(), side(1, SUM)), ATOM)
        }
        // A number in brackets, or the minus would become part of it.
        Op::Neg
            if operands[0].0.starts_with(|c: char| c.is_ascii_digit()) && operands[0].1 == ATOM =>
        {
            (format!("-({})", operands[0].0), MINUS)
        }
        Op::Neg => (format!("-{}", side(0, MINUS)), MINUS),
        _ => {
            let inside: Vec<&str> = operands.iter().map(|o| o.0.as_str()).collect();
            (format!("{}({})", op.name(), inside.join(", ")), ATOM)
        }
    }
}

fn latex(node: Node, operands: &[Text], names: &[impl AsRef<str>]) -> Text {
    let side = |operand: usize, at_least: u8| {
        let (text, binding) = &operands[operand];
        if *binding >= at_least { text.clone() } else { format!(r"\left({text}\right)") }
    };
    let op = match node {
        Node::Constant(value) => return latex_number(value),
        Node::Variable(index) => return (latex_name(names[usize::from(index)].as_ref()), ATOM),
        Node::Op(op) => op,
    };
    match op {
        Op::Add | Op::Sub => (format!("{} {} {}", side(0, SUM), op.name(), side(1, PRODUCT)), SUM),
        Op::Mul => (format!(r"{} \, {}", side(0, PRODUCT), side(1, MINUS + 1)), PRODUCT),
        Op::Div => (format!(r"\frac{{{}}}{{{}}}", operands[0].0, operands[1].0), PRODUCT),
        Op::Pow => (format!("{}^{{{}}}", side(0, ATOM), operands[1].0), POWER),
        Op::Greater | Op::Less => {
            (format!(r"\left[{} {} {}\right]", side(0, SUM), op.name(), side(1, SUM)), ATOM)
        }
        Op::Neg => (format!("-{}", side(0, MINUS + 1)), MINUS),
        Op::Sqrt => (format!(r"\sqrt{{{}}}", operands[0].0), ATOM),
        Op::Abs => (format!(r"\left|{}\right|", operands[0].0), ATOM),
        Op::Square => (format!("{}^{{2}}", side(0, ATOM)), POWER),
        Op::Cube => (format!("{}^{{3}}", side(0, ATOM)), POWER),
        Op::Exp => (format!("e^{{{}}}", operands[0].0), POWER),
        Op::If => (
            format!(
                r"\begin{{cases}}{} & {} > 0\\{} & \text{{else}}\end{{cases}}",
                operands[1].0,
                side(0, SUM),
                operands[2].0
            ),
            COMPARISON,
        ),
        Op::Min | Op::Max => {
            (format!(r"\{}\left({}, {}\right)", op.name(), operands[0].0, operands[1].0), ATOM)
        }
        Op::Log | Op::Sin | Op::Cos | Op::Tanh => {
            (format!(r"\{}\left({}\right)", op.name(), operands[0].0), ATOM)
        }
        Op::Asin | Op::Acos | Op::Atan => {
            (format!(r"\arc{}\left({}\right)", &op.name()[1..], operands[0].0), ATOM)
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

/// `m1` becomes m with an index; d before a coordinate a Δ.
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

/// A character of a column's name, which may be any.
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
            // NaN aside, nodes compare by value; the sign of a zero is in the text.
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
