//! Laws as files for other programs: Python (NumPy and SymPy), LaTeX, Rust and C.

use std::fmt::Write;

use super::expression::Expression;

/// A law with its name.
pub struct Law {
    /// The column that it explains.
    pub target: String,
    /// The formula.
    pub expression: Expression,
    /// Names of its variables.
    pub names: Vec<String>,
}

/// Words that can be a column's name but no variable's: of Python (and what the file defines), of
/// Rust, of C.
const PYTHON: &str = "False None True and as assert async await break class continue def del elif \
    else except finally for from global if import in is lambda nonlocal not or pass raise return try \
    while with yield np sp sympy LAWS VARIABLES";
const RUST: &str = "as async await break const continue crate dyn else enum extern false fn for if \
    impl in let loop match mod move mut pub ref return self Self static struct super trait true type \
    unsafe use where while abstract become box do final gen macro override priv try typeof unsized \
    virtual yield";
const C: &str = "auto break case char const continue default do double else enum extern float for \
    goto if inline int long register restrict return short signed sizeof static struct switch typedef \
    union unsigned void volatile while exp log sqrt sin cos tanh asin acos atan pow fabs fmin fmax j0 j1 jn y0 y1 yn \
    gamma main";

impl Law {
    /// The variables that occur, by number and under names that are none of `reserved`.
    fn arguments(&self, reserved: &str) -> (Vec<String>, Vec<String>) {
        let safe = |name: &String| {
            let taken = reserved.split_whitespace().any(|word| word == name);
            let plain =
                name.chars().map(|c| if c.is_ascii() { c } else { '_' }).collect::<String>();
            if taken { format!("{plain}_") } else { plain }
        };
        let names: Vec<String> = self.names.iter().map(safe).collect();
        let used = |index: &usize| self.expression.depends_on(*index as u16);
        let used = (0..names.len()).filter(used).map(|index| names[index].clone()).collect();
        (names, used)
    }

    /// `law_` and the target, as a name.
    fn function(&self) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        format!("law_{}", self.target.chars().map(plain).collect::<String>())
    }
}

/// Names and contents of the files that hold `laws`.
pub fn files(laws: &[Law]) -> [(&'static str, String); 4] {
    [
        ("laws.py", python(laws)),
        ("laws.tex", latex(laws)),
        ("laws.rs", rust(laws)),
        ("laws.c", c(laws)),
    ]
}

fn python(laws: &[Law]) -> String {
    let mut text = String::from(
        "\"\"\"Laws as functions of numbers or NumPy arrays.\n\n\
         LAWS[target](**columns) predicts a target from a dictionary of columns or a data frame;\n\
         sympy(target) is the same law as a SymPy expression.\n\"\"\"\n\nimport numpy as np\n",
    );
    let (mut entries, mut variables, mut symbolic) = (String::new(), String::new(), String::new());
    for law in laws {
        let (names, used) = law.arguments(PYTHON);
        let (function, body) = (law.function(), law.expression.numpy(&names));
        // Columns that the law does not use may be handed over as well.
        let given: Vec<String> = used.iter().cloned().chain(["**_".to_string()]).collect();
        let _ = write!(text, "\n\ndef {function}({}):\n    return {body}\n", given.join(", "));
        let _ = writeln!(entries, "    {:?}: {function},", law.target);
        let _ = writeln!(variables, "    {:?}: {used:?},", law.target);
        let symbols: Vec<String> = used
            .iter()
            .map(|name| format!("        {name} = sp.Symbol({name:?}, real=True)\n"))
            .collect();
        let _ = write!(
            symbolic,
            "    if target == {:?}:\n{}        return sp.sympify({})\n",
            law.target,
            symbols.concat(),
            law.expression.sympy(&names),
        );
    }
    let _ = write!(
        text,
        "\n\nLAWS = {{\n{entries}}}\nVARIABLES = {{\n{variables}}}\n\n\n\
         def sympy(target):\n    import sympy as sp\n\n{symbolic}    raise KeyError(target)\n"
    );
    text
}

fn latex(laws: &[Law]) -> String {
    let line = |law: &Law| {
        let target = Expression::variable(0).latex(std::slice::from_ref(&law.target));
        format!(
            "\\begin{{equation}}\n  {target} = {}\n\\end{{equation}}\n",
            law.expression.latex(&law.names)
        )
    };
    laws.iter().map(line).collect()
}

fn rust(laws: &[Law]) -> String {
    let function = |law: &Law| {
        let (names, used) = law.arguments(RUST);
        let given: Vec<String> = used.iter().map(|name| format!("{name}: f64")).collect();
        let (name, body) = (law.function(), law.expression.rust_body(&names));
        format!("pub fn {name}({}) -> f64 {{\n    {body}\n}}\n", given.join(", "))
    };
    laws.iter().map(function).collect::<Vec<_>>().join("\n")
}

fn c(laws: &[Law]) -> String {
    let function = |law: &Law| {
        let (names, used) = law.arguments(C);
        let given: Vec<String> = used.iter().map(|name| format!("double {name}")).collect();
        let given = if given.is_empty() { "void".to_string() } else { given.join(", ") };
        let (name, body) = (law.function(), law.expression.c(&names));
        format!("\ndouble {name}({given}) {{\n    return {body};\n}}\n")
    };
    format!("#include <math.h>\n{}", laws.iter().map(function).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_words_of_a_language_get_another() {
        let names = ["lambda".to_string(), "int".to_string(), "type".to_string()];
        let parse = |text| Expression::parse(text, &["lambda", "int", "type"]).unwrap();
        let law = Law {
            target: "a b".into(),
            expression: parse("lambda + int * type"),
            names: names.to_vec(),
        };
        let [python, _, rust, c] = files(&[law]).map(|f| f.1);
        assert!(
            python.contains(
                "def law_a_b(lambda_, int, type, **_):\n    return lambda_ + int * type\n"
            ),
            "{python}"
        );
        assert!(
            rust.contains("pub fn law_a_b(lambda: f64, int: f64, type_: f64) -> f64"),
            "{rust}"
        );
        assert!(c.contains("double law_a_b(double lambda, double int_, double type)"), "{c}");
    }
}
