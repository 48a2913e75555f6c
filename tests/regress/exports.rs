//! Exported laws say what `lawsmith eval` says: every operator, and columns with names that other
//! languages refuse.

use std::process::Command;

use lawsmith::formula::export::{Law, files};
use lawsmith::formula::expression::{Expression, Op};
use lawsmith::random::Random;

use crate::laws::{close, has_python, numbers};
use crate::{Place, text};

/// Words of Python, C and Rust, a function of C and two letters that only Python takes.
const COLUMNS: [&str; 6] = ["lambda", "int", "type", "α", "j0", "β"];
const ROWS: usize = 40;

/// A law for each operator, and one of all at once under a name that becomes another's.
fn laws() -> Vec<Law> {
    let names = COLUMNS.map(String::from).to_vec();
    let law =
        |target: &str, expression| Law { target: target.into(), expression, names: names.clone() };
    let of = |op: Op| {
        let operands = [0, 3, 5].map(Expression::variable);
        Expression::apply(op, &operands[..op.arity()])
    };
    let mut laws: Vec<Law> =
        Op::ALL.iter().enumerate().map(|(k, &op)| law(&format!("op{k}"), of(op))).collect();
    let all = "IF(lambda > int, min(sin(α), cos(type)), max(tanh(lambda), -abs(int))) \
               + log(1 + square(type)) * exp(-cube(α) / 10) - sqrt(abs(j0) + 0.5)^1.5 - -2^β \
               + (j0 < 0.3) * type^2 / (1 + α^-2) - (-3 - -lambda) * (-β)^2";
    laws.push(law("a b", Expression::parse(all, &COLUMNS).unwrap()));
    laws.push(law("a_b", Expression::parse("type - lambda * int", &COLUMNS).unwrap()));
    laws
}

fn function(target: &str) -> String {
    if target == "a b" { "law_a_b_".into() } else { format!("law_{target}") }
}

/// `[row][column]`, from 0 to 1: every operator has a value there.
fn rows() -> Vec<Vec<f64>> {
    let mut random = Random::new(12, 0);
    (0..ROWS).map(|_| COLUMNS.map(|_| 0.05 + 0.9 * random.uniform()).to_vec()).collect()
}

/// What `lawsmith eval` says, law by law.
fn expected(laws: &[Law], rows: &[Vec<f64>]) -> Vec<f64> {
    let values: Vec<f64> =
        laws.iter().flat_map(|law| rows.iter().map(|row| law.expression.eval(row))).collect();
    assert!(values.iter().all(|v| v.is_finite()));
    values
}

/// Calls of all laws in all rows, with what each language puts around.
fn calls(laws: &[Law], rows: &[Vec<f64>], print: impl Fn(&str) -> String) -> String {
    let call = |(law, row): (&Law, &Vec<f64>)| {
        let used = (0..COLUMNS.len()).filter(|&c| law.expression.depends_on(c as u16));
        let values: Vec<String> = used.map(|c| format!("{:?}", row[c])).collect();
        print(&format!("{}({})", function(&law.target), values.join(", ")))
    };
    laws.iter().flat_map(|law| rows.iter().map(move |row| call((law, row)))).collect()
}

fn run(place: &Place, compiler: &str, arguments: &[&str]) -> Vec<f64> {
    let mut compile = Command::new(compiler);
    let output = compile.args(arguments).current_dir(place.folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    numbers(&Command::new(place.path("program")).output().unwrap())
}

#[test]
fn every_operator_in_every_language_and_awkward_names() {
    let place = Place::new();
    let (laws, rows) = (laws(), rows());
    let expected = expected(&laws, &rows);
    let [python, _, rust, c] = files(&laws);
    let body = calls(&laws, &rows, |call| format!("printf(\"%.17g\\n\", {call});\n"));
    place.write("main.c", &format!("#include <stdio.h>\n{}\nint main(void) {{\n{body}}}\n", c.1));
    let found = run(&place, "gcc", &["-O1", "-Wall", "-Werror", "-o", "program", "main.c", "-lm"]);
    assert!(close(&found, &expected), "C");
    let body = calls(&laws, &rows, |call| format!("println!(\"{{}}\", {call});\n"));
    place.write("main.rs", &format!("{}\nfn main() {{\n{body}}}\n", rust.1));
    let rustc = std::env::var("RUSTC").unwrap_or("rustc".into());
    let found = run(&place, &rustc, &["-A", "unused_parens", "-o", "program", "main.rs"]);
    assert!(close(&found, &expected), "Rust");
    if !has_python("numpy") {
        eprintln!("skipped: python3 has no numpy");
        return;
    }
    place.write(python.0, &python.1);
    let mut script = String::from("import numpy as np\nimport laws\ncolumns = {\n");
    for (k, column) in COLUMNS.iter().enumerate() {
        let values: Vec<String> = rows.iter().map(|row| format!("{:?}", row[k])).collect();
        script += &format!("  {column:?}: np.array([{}]),\n", values.join(", "));
    }
    script += "}\nfor target in laws.LAWS:\n  for value in laws.LAWS[target](**columns):\n    print(repr(float(value)))\n";
    place.write("main.py", &script);
    let mut command = Command::new("python3");
    let output = command.arg("main.py").current_dir(place.folder.path()).output().unwrap();
    assert!(close(&numbers(&output), &expected), "{}", text(&output));
}
