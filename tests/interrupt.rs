//! Ctrl-C during the refit of a formula, from inside: the handler serves a whole process, so this
//! test has one of its own.

use std::time::{Duration, Instant};

use lawsmith::cli::interrupt;
use lawsmith::distill::edges::Inputs;
use lawsmith::distill::formula::Formula;
use lawsmith::error::Kind;
use lawsmith::formula::expression::Expression;
use lawsmith::observer::Observer;

/// Ctrl-C.
struct Keyboard;

impl Observer for Keyboard {
    fn stop(&self) -> bool {
        interrupt::requested()
    }
}

#[test]
fn a_refit_stops_at_the_next_round() {
    let terms = Inputs { velocities: vec![], ..Inputs::all(2) }.terms();
    let parse = |text: &str, names: &[String]| {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        Expression::parse(text, &names).unwrap()
    };
    let messages = vec![parse("0.5 * dx / r", &terms.edge)];
    let names = terms.node_names(&[0]);
    let nodes = ["e0 + 0.1", "0.3 * e0"].map(|text| parse(text, &names)).into();
    let mut formula = Formula { terms, components: vec![0], messages, nodes };
    // Two bodies; the second feels more than the formula says.
    let features = [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.5, 0.0, 0.0, 1.0, 1.0];
    let targets = [1.0, 0.5, -2.0, 0.3];

    let mut whole = formula.clone();
    let before = whole.loss(&features, &targets, &[2]);
    assert!(whole.refit(&features, &targets, &[2], &Keyboard).unwrap() < before);

    interrupt::install();
    // SAFETY: the signal has a handler that sets a flag.
    unsafe { libc::raise(libc::SIGINT) };
    let begun = Instant::now();
    while !interrupt::requested() {
        assert!(begun.elapsed() < Duration::from_secs(60), "no handler");
        std::thread::sleep(Duration::from_millis(1));
    }
    let error = formula.refit(&features, &targets, &[2], &Keyboard).unwrap_err();
    assert_eq!((error.kind, error.exit_code()), (Kind::Interrupted, 130));
    assert!(error.message.contains("--resume continues from there"), "{error}");
    assert_eq!(formula.loss(&features, &targets, &[2]), before, "no round was begun");
}
