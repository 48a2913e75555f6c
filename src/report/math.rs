//! Formulas as MathML, from the LaTeX that lawsmith writes: fractions, roots, powers, indices,
//! brackets, functions, Greek letters. A formula that is not understood stays plain text, so none is
//! shown wrong.

use std::iter::Peekable;

use crate::formula::operator::{Op, Spelling};

/// The formula as a MathML element; `None` if some of the LaTeX is not understood.
pub fn mathml(latex: &str) -> Option<String> {
    let mut tokens = tokens(latex)?.into_iter().peekable();
    let row = row(&mut tokens, &[])?;
    tokens.next().is_none().then(|| format!("<math display=\"block\">{row}</math>"))
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Number(String),
    Letter(char),
    Command(String),
    Symbol(char),
}

type Tokens = Peekable<std::vec::IntoIter<Token>>;

fn tokens(latex: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = latex;
    while let Some(first) = rest.chars().next() {
        let take = |test: fn(char) -> bool, text: &str| {
            text.find(|c: char| !test(c)).unwrap_or(text.len())
        };
        let length = if first == '\\' {
            let name = take(|c| c.is_ascii_alphabetic(), &rest[1..]).max(1);
            let name = rest.get(1..1 + name)?;
            tokens.push(Token::Command(name.to_string()));
            1 + name.len()
        } else if first.is_ascii_digit() || first == '.' {
            let length = take(|c| c.is_ascii_digit() || c == '.', rest);
            tokens.push(Token::Number(rest[..length].to_string()));
            length
        } else {
            if first.is_alphabetic() {
                tokens.push(Token::Letter(first));
            } else if !first.is_whitespace() {
                tokens.push(Token::Symbol(first));
            }
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    Some(tokens)
}

/// Items up to one of the `stop` tokens (not taken) or the end.
fn row(tokens: &mut Tokens, stop: &[Token]) -> Option<String> {
    let mut items = String::new();
    while tokens.peek().is_some_and(|token| !stop.contains(token)) {
        let item = item(tokens)?;
        items.push_str(&scripts(item, tokens)?);
    }
    Some(format!("<mrow>{items}</mrow>"))
}

/// `item` with the index and the power after it.
fn scripts(item: String, tokens: &mut Tokens) -> Option<String> {
    let (mut below, mut above) = (None, None);
    while let Some(Token::Symbol(mark @ ('_' | '^'))) = tokens.peek().cloned() {
        tokens.next();
        let script = if mark == '_' { &mut below } else { &mut above };
        if script.replace(group(tokens)?).is_some() {
            return None;
        }
    }
    Some(match (below, above) {
        (None, None) => item,
        (Some(below), None) => format!("<msub>{item}{below}</msub>"),
        (None, Some(above)) => format!("<msup>{item}{above}</msup>"),
        (Some(below), Some(above)) => format!("<msubsup>{item}{below}{above}</msubsup>"),
    })
}

/// `{…}` or one item.
fn group(tokens: &mut Tokens) -> Option<String> {
    if tokens.peek()? != &Token::Symbol('{') {
        return item(tokens);
    }
    tokens.next();
    let inside = row(tokens, &[Token::Symbol('}')])?;
    tokens.next()?;
    Some(inside)
}

/// The letters of `{…}`, verbatim.
fn word(tokens: &mut Tokens) -> Option<String> {
    if tokens.next()? != Token::Symbol('{') {
        return None;
    }
    let mut word = String::new();
    loop {
        match tokens.next()? {
            Token::Symbol('}') => return Some(word),
            Token::Letter(c) => word.push(c),
            Token::Symbol(c @ ('_' | '-' | ',')) => word.push(c),
            Token::Number(digits) => word.push_str(&digits),
            Token::Command(name) if name == "_" => word.push('_'),
            _ => return None,
        }
    }
}

fn item(tokens: &mut Tokens) -> Option<String> {
    Some(match tokens.next()? {
        Token::Number(number) => format!("<mn>{number}</mn>"),
        Token::Letter(letter) => format!("<mi>{letter}</mi>"),
        Token::Symbol('{') => {
            let inside = row(tokens, &[Token::Symbol('}')])?;
            tokens.next()?;
            inside
        }
        Token::Symbol(symbol) => operator(symbol)?,
        Token::Command(name) => command(&name, tokens)?,
    })
}

/// `{cases} value & condition \\ … \end{cases}`, after `\begin`.
fn cases(tokens: &mut Tokens) -> Option<String> {
    if word(tokens)? != "cases" {
        return None;
    }
    let mut table = String::new();
    loop {
        let stop = [Token::Symbol('&'), Token::Command("\\".into()), Token::Command("end".into())];
        let cell = row(tokens, &stop)?;
        let end = tokens.next()?;
        let open = if table.is_empty() || table.ends_with("</mtr>") { "<mtr>" } else { "" };
        table.push_str(&format!("{open}<mtd>{cell}</mtd>"));
        if end != stop[0] {
            table.push_str("</mtr>");
        }
        if end == stop[2] {
            let whole = format!("<mrow><mo fence=\"true\">{{</mo><mtable>{table}</mtable></mrow>");
            return (word(tokens)? == "cases").then_some(whole);
        }
    }
}

fn operator(symbol: char) -> Option<String> {
    let text = match symbol {
        '-' => "−",
        '<' => "&lt;",
        '>' => "&gt;",
        '*' => "·",
        '(' | ')' | '[' | ']' | '|' => {
            return Some(format!("<mo stretchy=\"false\">{symbol}</mo>"));
        }
        '+' | '/' | '=' | ',' | ':' | ';' | '!' | '−' | '·' => {
            return Some(format!("<mo>{symbol}</mo>"));
        }
        _ => return None,
    };
    Some(format!("<mo>{text}</mo>"))
}

fn command(name: &str, tokens: &mut Tokens) -> Option<String> {
    Some(match name {
        "frac" | "dfrac" | "tfrac" => {
            let (above, below) = (group(tokens)?, group(tokens)?);
            format!("<mfrac>{above}{below}</mfrac>")
        }
        "sqrt" => format!("<msqrt>{}</msqrt>", group(tokens)?),
        "left" => {
            let open = fence(tokens)?;
            let inside = row(tokens, &[Token::Command("right".into())])?;
            tokens.next()?;
            let close = fence(tokens)?;
            format!("<mrow>{open}{inside}{close}</mrow>")
        }
        "mathrm" | "text" | "operatorname" | "mathit" | "textrm" => {
            format!("<mi>{}</mi>", word(tokens)?)
        }
        "mathbf" | "vec" | "boldsymbol" => {
            format!("<mi style=\"font-weight:bold\">{}</mi>", word(tokens)?)
        }
        "dot" | "ddot" => {
            let dots = if name == "dot" { "˙" } else { "¨" };
            format!("<mover accent=\"true\">{}<mo>{dots}</mo></mover>", group(tokens)?)
        }
        "begin" => cases(tokens)?,
        // The space means a product: two numbers must not run together.
        "," => "<mspace width=\"0.2em\"/>".to_string(),
        "sum" => "<mo largeop=\"true\">∑</mo>".to_string(),
        "lvert" | "rvert" | "vert" => "<mo stretchy=\"false\">|</mo>".to_string(),
        _ => match symbol(name) {
            Some(text @ ("×" | "·" | "≤" | "≥" | "&lt;" | "&gt;" | "≠")) => {
                format!("<mo>{text}</mo>")
            }
            Some(text) => format!("<mi>{text}</mi>"),
            None => return None,
        },
    })
}

/// The bracket after `\left` or `\right`; it grows with what it encloses.
fn fence(tokens: &mut Tokens) -> Option<String> {
    let text = match tokens.next()? {
        Token::Number(dot) if dot == "." => return Some(String::new()),
        Token::Symbol(c @ ('(' | ')' | '[' | ']' | '|')) => c,
        Token::Command(name) => match name.as_str() {
            "{" => '{',
            "}" => '}',
            "lvert" | "rvert" | "vert" => '|',
            "lfloor" => '⌊',
            "rfloor" => '⌋',
            _ => return None,
        },
        _ => return None,
    };
    Some(format!("<mo fence=\"true\">{text}</mo>"))
}

fn symbol(name: &str) -> Option<&'static str> {
    let function = |op: Op| match op.row().latex {
        Spelling::Call(function) if function == name => Some(function),
        _ => None,
    };
    if let Some(function) = Op::ALL.into_iter().find_map(function) {
        return Some(function);
    }
    Some(match name {
        "cdot" => "·",
        "times" => "×",
        "leq" | "le" => "≤",
        "geq" | "ge" => "≥",
        "lt" => "&lt;",
        "gt" => "&gt;",
        "neq" | "ne" => "≠",
        "ln" => "ln",
        "exp" => "exp",
        "alpha" => "α",
        "beta" => "β",
        "gamma" => "γ",
        "delta" => "δ",
        "Delta" => "Δ",
        "epsilon" => "ε",
        "lambda" => "λ",
        "mu" => "μ",
        "pi" => "π",
        "rho" => "ρ",
        "sigma" => "σ",
        "Sigma" => "Σ",
        "phi" => "φ",
        "theta" => "θ",
        "omega" => "ω",
        "infty" => "∞",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::formula::expression::tests::any_expression;

    fn inside(latex: &str) -> String {
        let text = mathml(latex).unwrap_or_else(|| panic!("{latex} is not understood"));
        let text = text.strip_prefix("<math display=\"block\"><mrow>").unwrap();
        text.strip_suffix("</mrow></math>").unwrap().replace("<mrow>", "").replace("</mrow>", "")
    }

    #[test]
    fn formulas_of_laws() {
        assert_eq!(inside("-2.5"), "<mo>−</mo><mn>2.5</mn>");
        assert_eq!(
            inside(r"\frac{m_1}{r^{2}}"),
            "<mfrac><msub><mi>m</mi><mn>1</mn></msub><msup><mi>r</mi><mn>2</mn></msup></mfrac>"
        );
        assert_eq!(
            inside(r"\Delta x \cdot \left(r - 1\right)"),
            "<mi>Δ</mi><mi>x</mi><mo>·</mo><mo fence=\"true\">(</mo><mi>r</mi><mo>−</mo><mn>1</mn>\
             <mo fence=\"true\">)</mo>"
        );
        assert_eq!(inside(r"\mathrm{e}_1^{x}").matches("msubsup").count(), 2);
        assert_eq!(inside(r"a \lt b"), "<mi>a</mi><mo>&lt;</mo><mi>b</mi>");
    }

    proptest! {
        #[test]
        fn every_expression_is_understood(e in any_expression()) {
            let latex = e.latex(&["dx", "m1", "speed_x"]);
            prop_assert!(mathml(&latex).is_some(), "{}", latex);
        }
    }

    #[test]
    fn products_and_cases() {
        assert_eq!(inside(r"2 \, 3").matches("mspace").count(), 1);
        let table = inside(r"\begin{cases}a & b > 0\\c & \text{else}\end{cases}");
        assert_eq!(table.matches("<mtr><mtd>").count(), 2);
        assert_eq!(table.matches("</mtd></mtr>").count(), 2);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for latex in [
            r"\unknown{x}",
            r"\frac{1",
            r"\left(x",
            r"\begin{matrix}a\end{matrix}",
            "a & b",
            "x^2^3",
            "}",
            "\\",
        ] {
            assert_eq!(mathml(latex), None, "{latex}");
        }
    }
}
