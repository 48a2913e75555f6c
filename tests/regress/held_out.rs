//! Rows that are held out or have no weight say nothing to what comes before the search.

use lawsmith::random::Random;

use crate::{Place, chosen, search};

/// y = a but in every third row, which has no weight.
fn spoiled(place: &Place) {
    place.table(
        "table.csv",
        300,
        &[
            ("y", &|a, b, _, row, _| if row.is_multiple_of(3) { 90.0 * b } else { a }),
            ("w", &|_, _, _, row, _| f64::from(!row.is_multiple_of(3))),
        ],
    );
}

#[test]
fn rows_without_weight_spoil_neither_smoothing_nor_the_choice_of_inputs() {
    let place = Place::new();
    spoiled(&place);
    let weighted = ["--target", "y", "--weights", "w", "--evaluations", "1500", "-o", "run"];
    let document = place.document(&search(&[&weighted[..], &["--denoise"]].concat()));
    let loss = chosen(&document, "accuracy")["loss"].as_f64().unwrap();
    assert!(loss < 0.05, "{document}");
    let one = ["--select-features", "1", "--overwrite"];
    let document = place.document(&search(&[&weighted[..], &one].concat()));
    assert_eq!(document["inputs"], serde_json::json!(["a"]));
}

/// Losses at the held-out rows are those of the target as it is.
#[test]
fn rows_that_choose_are_not_smoothed() {
    let place = Place::new();
    place.table("table.csv", 400, &[("y", &|a, _, _, _, random| a + random.normal())]);
    let arguments = ["--target", "y", "--inputs", "a", "--denoise", "--validation", "0.5"];
    let document =
        place.document(&search(&[&arguments[..], &["--evaluations", "800", "-o", "run"]].concat()));
    let entry = chosen(&document, "accuracy");
    // The mean size of the noise is 0.8.
    let (seen, unseen) = (entry["loss"].as_f64().unwrap(), entry["validation"].as_f64().unwrap());
    assert!(seen < 0.4 && unseen > 0.6, "{document}");
}

#[test]
fn a_constant_target_among_the_rows_that_choose_is_no_error() {
    let place = Place::new();
    let mut random = Random::new(4, 0);
    let mut text = String::from("a,y\n");
    for row in 0..40 {
        let y = if row % 10 == 0 { 1.0 + row as f64 } else { 0.0 };
        text += &format!("{},{y}\n", random.normal());
    }
    place.write("table.csv", &text);
    for seed in 0..4 {
        let (seed, folder) = (seed.to_string(), format!("run{seed}"));
        let arguments = ["--target", "y", "--validation", "0.1", "--evaluations", "300"];
        let named = ["--seed", &seed, "-o", &folder];
        place.document(&search(&[&arguments[..], &named].concat()));
        assert!(place.path(&folder).join("laws.json").exists());
    }
}

#[test]
fn a_number_of_a_group_without_rows_is_refused() {
    let place = Place::new();
    place.table(
        "table.csv",
        60,
        &[
            ("u", &|_, _, _, row, _| f64::from(row == 11)),
            ("w", &|_, _, _, row, _| f64::from(row != 11)),
            ("y", &|a, _, _, row, _| if row == 11 { 7.0 } else { a }),
            ("id", &|_, _, _, row, _| 1_700_000_001.0 + (row % 2) as f64),
        ],
    );
    let refused = |more: &[&str]| {
        let fixed = ["--target", "y", "--inputs", "a,u,id", "--evaluations", "300"];
        let e = place.error(&search(&[&fixed[..], more, &["-o", "run"]].concat()));
        assert_eq!(e["field"], "template");
        assert!(!place.path("run").exists());
        e["message"].as_str().unwrap().to_string()
    };
    let text = refused(&["--template", "f(a) + p[u]", "--weights", "w"]);
    assert!(text.contains("u = 1"), "{text}");
    let text = refused(&["--template", "f(a) + p[id]"]);
    assert!(text.contains("'id' are equal in single precision"), "{text}");
    // Some division of the rows holds the one row out.
    let held = (0..40).any(|seed: u32| {
        let (seed, folder) = (seed.to_string(), format!("s{seed}"));
        let fixed = ["--target", "y", "--inputs", "a,u", "--template", "f(a) + p[u]"];
        let more = ["--validation", "0.5", "--evaluations", "100", "--islands", "1"];
        let named = ["--seed", &seed, "-o", &folder, "--json"];
        let output = place.lawsmith(&search(&[&fixed[..], &more, &named].concat())).output();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        text.contains("cannot be fitted: all rows")
    });
    assert!(held);
}
