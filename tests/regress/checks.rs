//! What is refused, before anything of an earlier run is lost.

use crate::{Place, search};

fn message(e: &serde_json::Value) -> &str {
    e["message"].as_str().unwrap()
}

#[test]
fn settings_that_cannot_be_keep_the_earlier_run() {
    let place = Place::new();
    place.table(
        "table.csv",
        40,
        &[
            ("y", &|a, b, _, _, _| a * b),
            // Constant but in a few rows: those that the search keeps may all be equal.
            ("z", &|_, _, _, row, _| f64::from(row == 7)),
            ("w", &|_, _, _, row, _| f64::from(row == 3)),
        ],
    );
    let run = ["--target", "y", "--evaluations", "500", "-o", "run"];
    place.document(&search(&run));
    let laws = place.read("run/laws.json");
    let large = "9223372036854775808";
    for (more, field) in [
        (&["--islands", "0"][..], "islands"),
        (&["--operators", ""], "operators"),
        (&["--seed", large], "seed"),
        (&["--evaluations", large], "evaluations"),
        (&["--batch-rows", large], "batch-rows"),
        (&["--max-complexity", "4000000000"], "max-complexity"),
        (&["--complexity", "variable=0"], "complexity"),
        (&["--target", "y,y"], "target"),
        (&["--preset", "quick"], "--preset"),
        (&["--guess", "a * exp(b) + exp(c)", "--max-complexity", "5"], "guess"),
        (&["--guess", "a + b", "--units", "a=m,b=s"], "guess"),
    ] {
        let arguments: Vec<&str> = match more[0] {
            "--operators" => vec!["regress", "table.csv", "--target", "y"],
            "--target" => vec!["regress", "table.csv"],
            _ => vec!["regress", "table.csv", "--target", "y"],
        };
        let e = place.error(&[&arguments[..], more, &["-o", "run", "--overwrite"]].concat());
        assert_eq!(e["field"], field, "{e}");
        assert_eq!(place.read("run/laws.json"), laws, "{more:?}");
    }
    let validation = ["--validation", "0.5", "--evaluations", "300", "-o", "run", "--overwrite"];
    let mut refused = 0;
    for (target, seed) in ["0", "1", "2", "3"].map(|seed| ("z", seed)) {
        let arguments = [&["--target", target, "--seed", seed], &validation[..]].concat();
        let output = place.lawsmith(&search(&arguments)).arg("--json").output().unwrap();
        refused += u32::from(!output.status.success());
        assert!(place.path("run/laws.json").exists());
    }
    assert!(refused > 0 && refused < 4, "{refused} of 4 halves lack the one row");
    let weightless = [&["--target", "y", "--weights", "w"], &validation[..]].concat();
    assert_eq!(place.error(&search(&weightless))["field"], "validation");
}

#[test]
fn options_without_effect_are_refused() {
    let place = Place::new();
    place.table("table.csv", 40, &[("y", &|a, b, _, _, _| a * b)]);
    place.write("jobs.toml", "[[job]]\ntable = \"table.csv\"\ntarget = \"y\"\nevaluations = 500\n");
    let batch = ["regress", "--batch", "jobs.toml", "-o", "out"];
    let e = place.error(&[&batch[..], &["--loss", "mse"]].concat());
    assert_eq!(e["field"], "--loss", "{e}");
    let e = place.error(&[&batch[..], &["--target", "z"]].concat());
    assert!(message(&e).contains("[defaults]"), "{e}");
    assert!(!place.path("out").exists());
    std::fs::create_dir(place.path("messages")).unwrap();
    let run = ["regress", "messages"];
    assert_eq!(place.error(&[&run[..], &["--loss", "mse"]].concat())["field"], "--loss");
    assert_eq!(place.error(&[&run[..], &["-o", "out"]].concat())["field"], "--output");
    assert_eq!(place.error(&[&run[..], &["--overwrite"]].concat())["field"], "--overwrite");
}

/// Units and complexities name columns of the table, whichever of them a search uses.
#[test]
fn units_and_complexities_of_columns_that_are_not_used_are_no_errors() {
    let place = Place::new();
    place.table(
        "table.csv",
        200,
        &[("y", &|a, _, _, _, _| 2.0 * a), ("z", &|_, b, _, _, _| 3.0 * b)],
    );
    let few = ["--evaluations", "600", "--overwrite", "-o", "run"];
    let units = ["--target", "y,z", "--units", "a=m,b=s,y=m,z=s", "--pure-constants"];
    let document = place.document(&search(&[&units[..], &few].concat()));
    for (target, column) in document["targets"].as_array().unwrap().iter().zip(["a", "b"]) {
        let front = target["front"].as_array().unwrap();
        let equations: Vec<&str> = front.iter().map(|e| e["equation"].as_str().unwrap()).collect();
        assert!(
            !equations.is_empty() && equations.iter().all(|e| e.contains(column)),
            "{document}"
        );
    }
    let one = ["--target", "y", "--inputs", "a,b,c", "--select-features", "1"];
    let named = ["--units", "a=m,b=s,y=m", "--complexity", "b=3,a=2"];
    let document = place.document(&search(&[&one[..], &named, &few].concat()));
    assert_eq!(document["inputs"], serde_json::json!(["a"]));
}

#[test]
fn formulas_of_an_earlier_run_that_break_the_rules_are_left_out() {
    let place = Place::new();
    place.table("table.csv", 200, &[("y", &|a, b, c, _, _| a * b / c + a)]);
    let plain = ["--target", "y", "--evaluations", "9000"];
    place.document(&search(&[&plain[..], &["-o", "long"]].concat()));
    let few = ["--target", "y", "--evaluations", "300", "--max-complexity", "3", "-o", "short"];
    let warm = [&few[..], &["--warm-start", "long"]].concat();
    let document = place.document(&search(&warm));
    assert!(document["refused"].as_u64().unwrap() > 0, "{document}");
    let front = document["front"].as_array().unwrap();
    assert!(front.iter().all(|e| e["complexity"].as_u64().unwrap() <= 3), "{document}");
}
