//! What keeps formulas short, and what their names stand for.

use lawsmith::formula::expression::{Expression, Node, Op};
use lawsmith::random::Random;
use serde_json::Value;

use crate::{Place, chosen, exact, exact_entry, search};

fn formulas(document: &Value) -> Vec<Expression> {
    let front = document["front"].as_array().unwrap().iter();
    let parse = |e: &Value| Expression::parse(e["equation"].as_str().unwrap(), &["a", "b", "c"]);
    front.map(|e| parse(e).unwrap()).collect()
}

/// True where a quotient stands within a quotient.
fn nested(e: &Expression) -> bool {
    // Of each operand on the stack: whether it holds a quotient.
    let mut stack: Vec<bool> = Vec::new();
    let mut found = false;
    for node in e.nodes() {
        let operands = stack.split_off(stack.len() - node.arity());
        let below = operands.contains(&true);
        found |= below && *node == Node::Op(Op::Div);
        stack.push(below || *node == Node::Op(Op::Div));
    }
    found
}

/// True where something is divided by more than a leaf.
fn long_divisor(e: &Expression) -> bool {
    let nodes = e.nodes();
    (1..nodes.len()).any(|at| nodes[at] == Node::Op(Op::Div) && nodes[at - 1].arity() > 0)
}

#[test]
fn each_limit_on_formulas_holds() {
    let place = Place::new();
    place.table("table.csv", 300, &[("y", &|a, b, c, _, _| (b / (1.0 + a * a) / c).tanh())]);
    let run = |more: &[&str]| {
        let fixed = ["--target", "y", "--evaluations", "8000", "-o", "run", "--overwrite"];
        formulas(&place.document(&search(&[&fixed[..], more].concat())))
    };
    let free = run(&[]);
    assert!(free.iter().any(nested) && free.iter().any(long_divisor), "limits have work to do");
    assert!(free.iter().any(|e| e.depth() > 3));
    assert!(!run(&["--limit-nesting", "/:/=0"]).iter().any(nested));
    assert!(!run(&["--limit-operands", "/=:1"]).iter().any(long_divisor));
    assert!(run(&["--max-depth", "3"]).iter().all(|e| e.depth() <= 3));
}

#[test]
fn formulas_grow_during_the_warm_up_and_mutations_have_weights() {
    let place = Place::new();
    place.table("table.csv", 300, &[("y", &|a, b, c, _, _| (a - b) / (c - a * b))]);
    // Without sums and products nothing is enumerated before: all comes from the islands.
    let run = |more: &[&str]| {
        let fixed = ["regress", "table.csv", "--target", "y", "--operators", "-,/", "--overwrite"];
        let few = ["--evaluations", "640", "-o", "run"];
        place.document(&[&fixed[..], &few, more].concat())
    };
    let longest = |document: &Value| {
        document["front"].as_array().unwrap().last().unwrap()["complexity"].as_u64()
    };
    let plain = run(&[]);
    assert!(longest(&plain) > Some(3), "{plain}");
    assert!(longest(&run(&["--warm-up", "0.9"])) <= Some(3));
    let other = run(&["--mutations", "grow=0,insert=0,graft=0,random=0,delete=5"]);
    assert_ne!(other["node_evaluations"], plain["node_evaluations"], "other formulas were tried");
}

/// Operands are more than the table's columns, and each part has the complexities of its own.
#[test]
fn parts_know_what_their_variables_stand_for() {
    let place = Place::new();
    place.table("table.csv", 200, &[("y", &|a, _, c, _, _| c * c * a)]);
    let run = ["regress", "table.csv", "--target", "y", "--inputs", "a,c", "--evaluations", "3000"];
    let of = |template: &str, complexity: &str, folder: &str| {
        let more = ["--template", template, "--complexity", complexity, "-o", folder];
        place.document(&[&run[..], &more].concat())
    };
    of("f(a, a * a, a * a * a) + a", "variable=1", "many");
    let simplest = |document: &serde_json::Value| document["front"][0]["complexity"].as_u64();
    // c is the first variable of f, and the second column.
    let plain = of("f(c) * a", "variable=1,a=7", "plain");
    assert_eq!(exact(&plain), "c * c * a", "{plain}");
    let squared =
        |document: &serde_json::Value| exact_entry(document)["complexity"].as_u64().unwrap();
    assert_eq!(squared(&plain), 3, "{plain}");
    let dear = of("f(c) * a", "variable=1,c=7", "dear");
    assert!(squared(&dear) > 7, "{dear}");
    assert_eq!(simplest(&dear), Some(1), "a number");
}

/// `--define` says what a name means wherever a formula is read.
#[test]
fn definitions_are_read_in_templates_and_guesses() {
    let place = Place::new();
    place.table("table.csv", 200, &[("y", &|a, b, _, _, _| (-a * a).exp() * b + 0.1 * a)]);
    let run = ["--target", "y", "--inputs", "a,b", "--define", "bell(x) = exp(-x^2)"];
    let with = |more: &[&str], folder: &str| {
        let fixed = ["--evaluations", "1500", "-o", folder];
        place.document(&search(&[&run[..], more, &fixed].concat()))
    };
    let document = with(&["--template", "bell(a) * f(b) + g(a)"], "template");
    let parts = document["front"][0]["parts"].as_object().unwrap();
    assert_eq!(parts.keys().collect::<Vec<_>>(), ["f", "g"]);
    assert!(chosen(&document, "accuracy")["loss"].as_f64().unwrap() < 1e-3, "{document}");
    let document = with(&["--guess", "bell(a) * b + 0.1 * a"], "guess");
    assert!(chosen(&document, "accuracy")["loss"].as_f64().unwrap() < 1e-5, "{document}");
}

/// True if the formula never falls as c grows, nor gets steeper, on a fine grid of the data's range.
fn saturates(e: &Expression) -> bool {
    let values: Vec<f64> =
        (0..60).map(|k| e.eval(&[0.0, 0.0, 0.35 + 0.04 * f64::from(k)])).collect();
    let rises = values.windows(2).all(|v| v[1] - v[0] >= -1e-6);
    rises && values.windows(3).all(|v| v[2] - 2.0 * v[1] + v[0] <= 1e-6)
}

#[test]
fn laws_have_the_shape_that_is_known() {
    let place = Place::new();
    let law = |c: f64, random: &mut Random| 3.0 * c / (1.0 + c) + 0.3 * random.normal();
    place.table("table.csv", 40, &[("y", &|_, _, c, _, random| law(c, random))]);
    let run = |more: &[&str]| {
        let fixed = [
            "--target",
            "y",
            "--inputs",
            "c",
            "--evaluations",
            "30000",
            "-o",
            "run",
            "--overwrite",
        ];
        let document = place.document(&search(&[&fixed[..], more].concat()));
        let front = document["front"].as_array().unwrap().clone();
        let parse =
            |e: &Value| Expression::parse(e["equation"].as_str().unwrap(), &["a", "b", "c"]);
        front.iter().map(|e| parse(e).unwrap()).collect::<Vec<_>>()
    };
    assert!(!run(&[]).iter().all(saturates), "the requirement has work to do");
    let shaped = run(&["--shape", "increasing(c),concave(c),positive"]);
    assert!(shaped.len() > 2 && shaped.iter().all(saturates), "{shaped:?}");
    let refused = place.lawsmith(&search(&["--target", "y", "--shape", "increasing(d)"])).output();
    let message = String::from_utf8(refused.unwrap().stderr).unwrap();
    assert!(message.contains("'shape': 'd' is not a column that formulas may use"), "{message}");
}
