//! Ctrl-C during the refit of a formula, from inside: the handler serves a whole process, so this
//! test has one of its own.

use std::time::{Duration, Instant};

use lawsmith::distill::compose::Formula;
use lawsmith::distill::edges::Inputs;
use lawsmith::error::Kind;
use lawsmith::formula::expression::Expression;
use lawsmith::interrupt;

#[test]
fn a_refit_stops_at_the_next_round() {
    let inputs = Inputs { dim: 2, velocities: vec![] };
    let names = inputs.names();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let messages = vec![Expression::parse("0.5 * dx / r", &names).unwrap()];
    let mut formula = Formula { inputs, components: vec![0], messages, nodes: Vec::new() };
    let names = formula.node_names();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    formula.nodes = ["e0 + 0.1", "0.3 * e0"].map(|e| Expression::parse(e, &names).unwrap()).into();
    // Two bodies; the second feels more than the formula says.
    let features = [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.5, 0.0, 0.0, 1.0, 1.0];
    let targets = [1.0, 0.5, -2.0, 0.3];

    let mut whole = formula.clone();
    let before = whole.loss(&features, &targets, 2);
    assert!(whole.refit(&features, &targets, 2).unwrap() < before);

    interrupt::install();
    // SAFETY: the signal has a handler that sets a flag.
    unsafe { libc::raise(libc::SIGINT) };
    let begun = Instant::now();
    while !interrupt::requested() {
        assert!(begun.elapsed() < Duration::from_secs(60), "no handler");
        std::thread::sleep(Duration::from_millis(1));
    }
    let error = formula.refit(&features, &targets, 2).unwrap_err();
    assert_eq!((error.kind, error.exit_code()), (Kind::Interrupted, 130));
    assert!(error.message.contains("--resume continues from there"), "{error}");
    assert_eq!(formula.loss(&features, &targets, 2), before, "no round was begun");
}
