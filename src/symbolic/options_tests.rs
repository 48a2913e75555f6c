//! Options as the command line reads them.

use super::*;
use crate::cli::flags::Flags;

fn options(arguments: &[&str]) -> Options {
    use clap::Parser;
    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        options: Flags<Options>,
    }
    Command::parse_from([&["regress"], arguments].concat()).options.0
}

fn settings(arguments: &[&str]) -> Result<Settings> {
    options(arguments).settings(&["x".into(), "y".into()], &["z".into()], 0)
}

#[test]
fn settings_are_read() {
    let s = settings(&[
        "--define=g(u) = exp(-u^2)",
        "--complexity=^=2,g=4,constant=2,y=3",
        "--limit-operands=^=9:1,exp=:",
    ]);
    assert!(s.is_err(), "exp has one operand");
    let s = settings(&[
        "--define=g(u) = exp(-u^2)",
        "--complexity=^=2,g=4,constant=2,y=3",
        "--limit-operands=^=:1,exp=5",
        "--limit-nesting=exp:exp=0",
        "--mutations=grow=0,swap=2",
        "--max-depth=6",
    ])
    .unwrap();
    assert_eq!(s.weights.op[Op::Pow as usize], 2);
    assert_eq!((s.weights.constant, &s.weights.variables[..]), (2, &[1, 3][..]));
    assert_eq!(s.weights.definitions[0].1, 4);
    assert_eq!(s.constraints.sizes, [(Op::Pow, 1, 1), (Op::Exp, 0, 5)]);
    assert_eq!(s.constraints.nested, [(Op::Exp, Op::Exp, 0)]);
    assert_eq!(s.constraints.max_depth, Some(6));
    let weight = |kind| s.mutations[KINDS.iter().position(|k| k.0 == kind).unwrap()];
    assert_eq!((weight(Kind::Grow), weight(Kind::Swap)), (0.0, 2.0));
    assert_eq!(s.evaluations, Some(EVALUATIONS));
}

#[test]
fn help_and_docs_name_every_operator() {
    assert_eq!(complexities(), "1 for each node, 3 for ^ exp log IF");
    let docs = include_str!("../../docs/regress.md");
    assert!(docs.contains(&format!("`--operators` from `{}`;", Op::names())));
}

#[test]
fn losses_of_rows() {
    let value = |text: &str, p: f64, y: f64| loss(text, &[]).unwrap().1.unwrap().eval(&[p, y, 2.0]);
    assert_eq!(value("huber:2", 1.0, 2.5), 0.5 * 1.5 * 1.5);
    assert_eq!(value("huber:2", 1.0, -4.0), 2.0 * (5.0 - 1.0));
    assert_eq!(value("huber", 0.0, 3.0), 2.5);
    assert!((value("quantile:0.9", 1.0, 3.0) - 1.8).abs() < 1e-12);
    assert!((value("quantile:0.9", 3.0, 1.0) - 0.2).abs() < 1e-12);
    assert_eq!(value("weight * (prediction - target)^4", 1.0, 3.0), 32.0);
    assert_eq!(loss("mse", &[]).unwrap(), (Loss::Mse, None));
    let own = [Definition::parse("off(p, y) = abs(p - y)").unwrap()];
    let (_, row) = loss("off(prediction, target)^2", &own).unwrap();
    assert_eq!(row.unwrap().eval(&[1.0, 4.0, 1.0]), 9.0);
    for bad in ["mape", "huber:0", "huber:x", "quantile", "quantile:1", "target^2"] {
        assert_eq!(loss(bad, &[]).unwrap_err().field.as_deref(), Some("loss"), "{bad}");
    }
}

#[test]
fn bad_lists_are_named() {
    let field = |arguments: &[&str]| settings(arguments).unwrap_err().field.unwrap();
    assert_eq!(field(&["--complexity=q=2"]), "complexity");
    assert_eq!(field(&["--complexity=x=-2"]), "complexity");
    assert_eq!(field(&["--complexity=x=0"]), "complexity");
    assert!(settings(&["--complexity=z=2"]).is_ok(), "a column that is not an input");
    assert_eq!(field(&["--limit-nesting=exp=0"]), "limit-nesting");
    assert_eq!(field(&["--mutations=jump=1"]), "mutations");
    assert_eq!(field(&["--define=g(x)"]), "define");
    assert_eq!(field(&["--operators=+,%"]), "operators");
    assert_eq!(field(&["--warm-up=2"]), "warm-up");
    assert_eq!(field(&["--operators="]), "operators");
    assert_eq!(field(&["--max-complexity=4000000000"]), "max-complexity");
    assert_eq!(field(&["--batch-rows=9223372036854775808"]), "batch-rows");
    assert_eq!(field(&["--evaluations=9223372036854775808"]), "evaluations");
    for count in ["islands", "keep", "batch-rows", "evaluations", "max-depth", "max-complexity"] {
        assert_eq!(field(&[&format!("--{count}=0")]), count);
    }
    for number in ["seconds", "target-loss"] {
        assert_eq!(field(&[&format!("--{number}=nan")]), number);
    }
    assert_eq!(field(&["--seconds=0"]), "seconds");
    let seed = options(&[]).settings(&[], &[], 1 << 63).unwrap_err();
    assert_eq!(seed.field.as_deref(), Some("seed"));
}

#[test]
fn options_that_are_given_are_known() {
    assert!(options(&["--select=shortest", "--evaluations=5"]).only(&["evaluations"], "").is_ok());
    let e = options(&["--batch-rows=5"]).only(&["evaluations"], "not here").unwrap_err();
    assert_eq!(e.field.as_deref(), Some("--batch-rows"));
    assert!(options(&["--target=y"]).only(&[], "").is_err());
    assert!(options(&["--units=x=m"]).only(&[], "").is_err());
}
