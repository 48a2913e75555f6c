//! Laws as files for other programs: Python (NumPy and SymPy), LaTeX, Rust and C.

use std::collections::HashSet;
use std::fmt::Write;

use super::expression::{Expression, Op};
use super::operator::Spelling;

/// A law with its name.
pub struct Law {
    /// The column it explains.
    pub target: String,
    /// The formula.
    pub expression: Expression,
    /// Names of its variables.
    pub names: Vec<String>,
}

/// Words that may name a column but not a variable: those of Python (and of the file itself), of Rust, and of C with
/// `math.h`, except the functions that formulas call.
const PYTHON: &str = "_ False None True and as assert async await break class continue def del elif \
    else except finally for from global if import in is lambda nonlocal not or pass raise return try \
    while with yield np sp sympy target";
const RUST: &str = "_ as async await break const continue crate dyn else enum extern false fn for if \
    impl in let loop match mod move mut pub ref return self Self static struct super trait true type \
    unsafe use where while abstract become box do final gen macro override priv try typeof unsized \
    virtual yield";
const C: &str = "auto break case char const continue default do double else enum extern float for \
    goto if inline int long register restrict return short signed sizeof static struct switch typedef \
    union unsigned void volatile while alignas alignof bool constexpr false nullptr static_assert \
    thread_local true typeof j0 j1 jn y0 y1 yn gamma signgam main linux unix \
    i386 NAN INFINITY HUGE_VAL HUGE_VALF HUGE_VALL MAXFLOAT M_E M_LOG2E M_LOG10E M_LN2 M_LN10 M_PI M_PI_2 M_PI_4 M_1_PI M_2_PI M_2_SQRTPI M_SQRT2 M_SQRT1_2 OVERFLOW \
    UNDERFLOW DOMAIN SING PLOSS TLOSS";

/// [`C`] plus the functions of `math.h` that formulas call.
fn reserved_in_c() -> String {
    let calls = Op::ALL.into_iter().filter_map(|op| match op.row().c {
        Spelling::Call(name) => Some(name),
        Spelling::Form(..) => None,
    });
    calls.fold(C.to_string(), |words, name| words + " " + name)
}

/// Non-ASCII letters that Python's normalisation of identifiers leaves unchanged.
fn python_letter(c: char) -> bool {
    matches!(c, 'À'..='ı' | 'Α'..='ώ' | 'А'..='я') && c.is_alphabetic()
}

/// A variable name for each column: all different, none `reserved`; characters other than ASCII letters, digits, _ and
/// those accepted by `letter` become _.
fn aliases(columns: &[String], reserved: &str, letter: fn(char) -> bool) -> Vec<String> {
    let mut taken: HashSet<String> = reserved.split_whitespace().map(String::from).collect();
    let plain = |c: char| if c.is_ascii_alphanumeric() || letter(c) { c } else { '_' };
    // Columns that need no new name keep their own.
    let own =
        |name: &String| !taken.contains(name) && name.chars().all(|c| c == '_' || plain(c) == c);
    let kept: Vec<bool> = columns.iter().map(own).collect();
    taken
        .extend(columns.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(name, _)| name.clone()));
    let alias = |(name, kept): (&String, &bool)| {
        if *kept {
            return name.clone();
        }
        let base: String = name.chars().map(plain).collect();
        let numbered = (2..).map(|k| format!("{base}_{k}"));
        let mut tried = [format!("{base}_")].into_iter().chain(numbered);
        let alias = tried.find(|alias| !taken.contains(alias)).expect("numbers do not end");
        taken.insert(alias.clone());
        alias
    };
    columns.iter().zip(&kept).map(alias).collect()
}

/// A Python function of all columns, for `laws.json`.
pub fn python_law(e: &Expression, columns: &[String]) -> String {
    e.python(&aliases(columns, PYTHON, python_letter))
}

/// A Rust function of all columns, for `laws.json`.
pub fn rust_law(e: &Expression, columns: &[String]) -> String {
    e.rust(&aliases(columns, RUST, |_| false))
}

/// A column and the variable that stands for it.
struct Argument<'a> {
    column: &'a str,
    alias: String,
}

impl Law {
    /// The names of all variables, and the arguments: the variables that occur.
    fn arguments(
        &self,
        reserved: &str,
        letter: fn(char) -> bool,
    ) -> (Vec<String>, Vec<Argument<'_>>) {
        let names = aliases(&self.names, reserved, letter);
        let used = |index: &usize| self.expression.depends_on(*index as u16);
        let argument =
            |index: usize| Argument { column: &self.names[index], alias: names[index].clone() };
        let used = (0..names.len()).filter(used).map(argument).collect();
        (names, used)
    }

    /// What the law explains, and which columns are renamed in it.
    fn comment(&self, arguments: &[Argument]) -> String {
        let renamed = arguments.iter().filter(|a| a.alias != a.column);
        let renamed: String = renamed.map(|a| format!("; {} is {:?}", a.alias, a.column)).collect();
        // No column name may close a C comment.
        format!("The law of {:?}{renamed}.", self.target).replace("*/", "* /")
    }
}

/// `law_` and the target, as a function name; all different.
fn functions(laws: &[Law]) -> Vec<String> {
    let targets: Vec<String> = laws.iter().map(|law| format!("law_{}", law.target)).collect();
    aliases(&targets, "", |_| false)
}

/// A Python string literal.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
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

const NAN_RULE: &str = "Where an intermediate value is not finite (the logarithm of a negative \
    number, even in a branch of IF\nthat is not taken), `lawsmith eval` writes NaN; these functions may give \
    a number there.";

fn python(laws: &[Law]) -> String {
    let mut text = format!(
        "\"\"\"Laws as functions of numbers or NumPy arrays.\n\n\
         LAWS[target](**columns) predicts a target from a dictionary of columns or a data frame,\n\
         VARIABLES[target] names the columns that it reads, in the order of its function's arguments;\n\
         sympy(target) is the same law as a SymPy expression.\n\n{NAN_RULE}\n\"\"\"\n\nimport numpy as np\n",
    );
    let (mut entries, mut variables, mut symbolic) = (String::new(), String::new(), String::new());
    for (law, function) in laws.iter().zip(functions(laws)) {
        let (names, used) = law.arguments(PYTHON, python_letter);
        let body = law.expression.numpy(&names);
        let given: Vec<&str> = used.iter().map(|a| a.alias.as_str()).collect();
        let _ = write!(text, "\n\ndef {function}({}):\n    return {body}\n", given.join(", "));
        let target = quoted(&law.target);
        let _ = writeln!(entries, "    {target}: _of_columns({function}, VARIABLES[{target}]),");
        let columns: Vec<String> = used.iter().map(|a| quoted(a.column)).collect();
        let _ = writeln!(variables, "    {target}: [{}],", columns.join(", "));
        let symbol = |a: &Argument| {
            format!("        {} = sp.Symbol({}, real=True)\n", a.alias, quoted(a.column))
        };
        let _ = write!(
            symbolic,
            "    if target == {target}:\n{}        return sp.sympify({})\n",
            used.iter().map(symbol).collect::<String>(),
            law.expression.sympy(&names),
        );
    }
    let _ = write!(
        text,
        "\n\ndef _of_columns(function, names):\n    \
         return lambda **columns: function(*(columns[name] for name in names))\n\n\n\
         VARIABLES = {{\n{variables}}}\nLAWS = {{\n{entries}}}\n\n\n\
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
    let function = |(law, name): (&Law, String)| {
        let (names, used) = law.arguments(RUST, |_| false);
        let given: Vec<String> = used.iter().map(|a| format!("{}: f64", a.alias)).collect();
        let (comment, body) = (law.comment(&used), law.expression.rust_body(&names));
        format!("\n/// {comment}\npub fn {name}({}) -> f64 {{\n    {body}\n}}\n", given.join(", "))
    };
    let rule = NAN_RULE.replace('\n', "\n// ");
    let functions = laws.iter().zip(functions(laws)).map(function);
    format!("// {rule}\n{}", functions.collect::<String>())
}

fn c(laws: &[Law]) -> String {
    let function = |(law, name): (&Law, String)| {
        let (names, used) = law.arguments(&reserved_in_c(), |_| false);
        let given: Vec<String> = used.iter().map(|a| format!("double {}", a.alias)).collect();
        let given = if given.is_empty() { "void".to_string() } else { given.join(", ") };
        let (comment, body) = (law.comment(&used), law.expression.c(&names));
        format!("\n/* {comment} */\ndouble {name}({given}) {{\n    return {body};\n}}\n")
    };
    let functions = laws.iter().zip(functions(laws)).map(function);
    format!("/* {NAN_RULE} */\n#include <math.h>\n{}", functions.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_words_of_a_language_get_another() {
        let columns = ["lambda", "int", "type", "α", "β", "lambda_"].map(String::from).to_vec();
        let names: Vec<&str> = columns.iter().map(String::as_str).collect();
        let parse = |text| Expression::parse(text, &names).unwrap();
        let law = |target: &str, text| Law {
            target: target.into(),
            expression: parse(text),
            names: columns.clone(),
        };
        let laws = [law("a b", "lambda + int * type - lambda_"), law("a_b", "α + β")];
        let [python, _, rust, c] = files(&laws).map(|f| f.1);
        let has = |text: &str, part: &str| assert!(text.contains(part), "{part} in\n{text}");
        let first = "(lambda_2, int, type, lambda_):\n    return lambda_2 + int * type - lambda_\n";
        has(&python, &format!("def law_a_b_{first}"));
        has(&python, "def law_a_b(α, β):\n    return α + β\n");
        has(&python, "\"a b\": [\"lambda\", \"int\", \"type\", \"lambda_\"]");
        has(&rust, "pub fn law_a_b_(lambda: f64, int: f64, type_: f64, lambda_: f64) -> f64");
        has(
            &rust,
            "/// The law of \"a_b\"; __ is \"α\"; __2 is \"β\".\npub fn law_a_b(__: f64, __2: f64)",
        );
        has(&c, "double law_a_b_(double lambda, double int_, double type, double lambda_)");
        assert!(
            python_law(&laws[0].expression, &columns).contains("def law(lambda_2, int, type, α, β")
        );
    }
}
