//! Interrupts and what follows them.

use std::process::{Child, Stdio};

use serde_json::Value;

use crate::{Law, Place, chosen, search, text, wait, weighted_search};

/// Waits for the first front of a search that runs without end.
fn started(place: &Place) -> Child {
    let endless = ["--seconds", "600", "-o", "run", "-q"];
    let child = place.lawsmith(&weighted_search(&endless)).stdout(Stdio::null()).spawn().unwrap();
    wait(&place.path("run/hall_of_fame.csv"));
    child
}

/// Smallest loss of a hall of fame.
fn smallest(hall: &str) -> f64 {
    let losses = hall.lines().skip(1).map(|l| l.split(',').nth(2).unwrap().parse().unwrap());
    losses.fold(f64::INFINITY, f64::min)
}

#[test]
fn ctrl_c_keeps_the_front_and_resume_goes_on() {
    let place = Place::new();
    place.weighted(300, |a, b, c| a * b / c);
    let mut child = started(&place);
    // SAFETY: a signal to our own child.
    unsafe { libc::kill(child.id() as i32, libc::SIGINT) };
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(place.path("run/laws.json").exists());
    let before = smallest(&place.read("run/hall_of_fame.csv"));
    let more = ["--evaluations", "1000", "-o", "run", "--resume"];
    place.document(&weighted_search(&more));
    let after = smallest(&place.read("run/hall_of_fame.csv"));
    assert!(after <= before, "{after} {before}");
}

#[test]
fn a_kill_leaves_a_front_to_resume() {
    let place = Place::new();
    place.weighted(300, |a, b, c| a * b / c);
    let mut child = started(&place);
    child.kill().unwrap();
    child.wait().unwrap();
    let hall = place.read("run/hall_of_fame.csv");
    let before = smallest(&hall);
    let more = ["--evaluations", "1000", "-o", "run", "--resume"];
    place.document(&weighted_search(&more));
    let after = smallest(&place.read("run/hall_of_fame.csv"));
    assert!(after <= before, "{after} {before}");
}

/// Beginnings that are invalid on some row have no loss to remember, and less than a whole epoch is
/// all that was done.
#[test]
fn a_short_run_goes_on_with_larger_limits() {
    let place = Place::new();
    let law = |a: f64, b: f64, c: f64| (a * b - 0.3 * c).exp() / (1.0 + c * c) + a / (b * b + c);
    place.table("table.csv", 200, &[("y", &|a, b, c, _, _| law(a, b, c))]);
    // With logarithms and powers of negative numbers.
    let run = |more: &[&str]| {
        let fixed = ["regress", "table.csv", "--target", "y", "-o", "run"];
        place.document(&[&fixed[..], more].concat())
    };
    let considered = |document: &Value| document["evaluations"].as_u64().unwrap();
    let loss = |document: &Value| chosen(document, "accuracy")["loss"].as_f64().unwrap();
    let short = run(&["--evaluations", "500"]);
    assert!((400..=640).contains(&considered(&short)), "{short}");
    let long = run(&["--resume", "--evaluations", "5000"]);
    assert!(considered(&long) >= 5000 && loss(&long) <= loss(&short), "{long}");
    // What was enough before need not be enough now.
    let loose = run(&["--overwrite", "--target-loss", "1e3", "--evaluations", "20000"]);
    assert!(considered(&loose) < 15_000, "{loose}");
    let strict = run(&["--resume", "--target-loss", "1e-9", "--evaluations", "20000"]);
    assert!(considered(&strict) >= 20_000, "{strict}");
    // A memory that is none is named.
    let memory = place.read("run/memory.json");
    place.write("run/memory.json", &memory[..memory.len() / 2]);
    let again = ["regress", "table.csv", "--target", "y", "-o", "run", "--resume"];
    let e = place.error(&again);
    assert!(e["file"].as_str().unwrap().ends_with("memory.json"), "{e}");
}

/// A search that was killed, or stopped by Ctrl-C, ends in the files of one that was not.
fn ends_like_one_that_was_not(place: &Place, targets: &[&str]) {
    let arguments = |folder: &'static str| {
        search(&[targets, &["--evaluations", "80000", "-q", "-o", folder]].concat())
    };
    let whole = place.lawsmith(&arguments("whole")).output().unwrap();
    assert!(whole.status.success(), "{}", text(&whole));
    for (signal, folder) in [(libc::SIGKILL, "killed"), (libc::SIGINT, "stopped")] {
        let mut child = place
            .lawsmith(&arguments(folder))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait(&place.path(&format!("{folder}/memory.json")));
        // SAFETY: a signal to our own child.
        unsafe { libc::kill(child.id() as i32, signal) };
        child.wait().unwrap();
        assert!(!place.path(&format!("{folder}/fit.json")).exists(), "it ended before the signal");
        let resumed = [&arguments(folder)[..], &["--resume"]].concat();
        let resumed = place.lawsmith(&resumed).output().unwrap();
        assert!(resumed.status.success(), "{}", text(&resumed));
        let [a, b] = ["whole", folder].map(|f| place.read(&format!("{f}/hall_of_fame.csv")));
        assert_eq!(a, b);
        assert_eq!(place.read("whole/laws.json"), place.read(&format!("{folder}/laws.json")));
    }
}

#[test]
fn a_killed_search_ends_like_one_that_was_not() {
    let place = Place::new();
    place.table(
        "table.csv",
        1500,
        &[("y", &|a, b, c, _, random| (a - 0.3 * b) / c + a * b * c + 0.1 * random.normal())],
    );
    ends_like_one_that_was_not(&place, &["--target", "y"]);
}

#[test]
fn a_killed_joint_search_ends_like_one_that_was_not() {
    let place = Place::new();
    let laws: [(&str, &Law); 2] = [
        ("y", &|a, b, c, _, random| (a - 0.3 * b) * (c - 1.0 / c) + 0.1 * random.normal()),
        ("z", &|a, b, c, _, random| (0.2 * a + b) * (c - 1.0 / c) + 0.1 * random.normal()),
    ];
    place.table("table.csv", 1500, &laws);
    ends_like_one_that_was_not(&place, &["--target", "y,z", "--joint", "a,b"]);
}

/// Without a memory a search had found nothing that it would not find again.
#[test]
fn what_was_interrupted_before_its_first_memory_begins_anew() {
    let place = Place::new();
    let law = |a: f64, b: f64, c: f64| (a * b - 0.3 * c).exp() / (1.0 + c * c) + a / (b * b + c);
    place.table("table.csv", 200, &[("y", &|a, b, c, _, _| law(a, b, c))]);
    let run = |more: &[&str]| {
        place.document(&search(
            &[&["--target", "y", "--evaluations", "6000", "-o", "run"], more].concat(),
        ))
    };
    let whole = run(&[]);
    std::fs::remove_file(place.path("run/memory.json")).unwrap();
    let again = run(&["--resume"]);
    for key in ["front", "evaluations", "node_evaluations"] {
        assert_eq!(again[key], whole[key], "{key}");
    }
}

#[test]
fn guesses_and_an_earlier_run_begin_a_search() {
    let place = Place::new();
    let law = |a: f64, b: f64, c: f64| (a * b - 0.3 * c).exp() / (1.0 + c * c) + a / (b * b + c);
    place.table("table.csv", 300, &[("y", &|a, b, c, _, _| law(a, b, c))]);
    let guess = "exp(a * b - 0.5 * c) / (0.8 + c * c) + a / (b * b + c)";
    let few =
        ["regress", "table.csv", "--target", "y", "--evaluations", "500", "--max-complexity", "40"];
    let plain = place.document(&[&few[..], &["-o", "plain"]].concat());
    assert!(chosen(&plain, "accuracy")["loss"].as_f64().unwrap() > 1e-2);
    let guessed = place.document(&[&few[..], &["--guess", guess, "-o", "guessed"]].concat());
    assert!(chosen(&guessed, "accuracy")["loss"].as_f64().unwrap() < 1e-3, "{guessed}");
    let warm = place.document(&[&few[..], &["--warm-start", "guessed", "-o", "warm"]].concat());
    assert!(chosen(&warm, "accuracy")["loss"].as_f64().unwrap() < 1e-3, "{warm}");
    let e = place.error(&[&few[..], &["--guess", "exp(q)", "-o", "bad"]].concat());
    assert_eq!(e["field"], "guess");
}
