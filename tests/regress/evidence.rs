//! What is said beside a law: intervals, errors on unseen rows, baselines, shuffled targets, and the page that shows them.

use serde_json::Value;

use crate::{Place, search, text};

const QUICK: [&str; 6] = ["--evaluations", "800", "--islands", "2", "-o", "run"];

#[test]
fn evidence_is_in_every_place() {
    let place = Place::new();
    place.table(
        "table.csv",
        200,
        &[("y", &|a, b, _, _, random| 2.5 * a * b + 0.1 * random.normal())],
    );
    let arguments = search(&[&["--target", "y", "--null", "3"], &QUICK[..]].concat());
    let document = place.document(&arguments);
    let evidence = &document["evidence"];
    assert_eq!(evidence["measure"], "mean absolute error");
    assert_eq!((&evidence["unseen"], &evidence["rows"]), (&"folds".into(), &200.into()));
    let value = |of: &Value, key: &str| of[key].as_f64().unwrap_or_else(|| panic!("{evidence}"));
    assert!(
        (value(&evidence["law"], "error") - 0.08).abs() < 0.02
            && value(&evidence["law"], "r2") > 0.99
    );
    let baselines = &evidence["baselines"];
    assert_eq!(baselines["constant"]["is"], "median");
    for model in ["constant", "linear"] {
        assert!(value(&baselines[model], "error") > 1.0 && value(&baselines[model], "r2") < 0.3);
    }
    let factor = &evidence["constants"][0];
    let ends = [0, 1].map(|end| factor["interval"][end].as_f64().unwrap());
    assert!(ends[0] < 2.5 && 2.5 < ends[1] && ends[1] - ends[0] < 0.1, "{factor}");
    assert_eq!(evidence["null"], serde_json::json!({ "shuffled": 3, "as_well": 0 }));
    assert!(
        document["front"]
            .as_array()
            .unwrap()
            .iter()
            .all(|e| e["evidence"]["law"]["error"].is_f64())
    );
    let laws: Value = serde_json::from_str(&place.read("run/laws.json")).unwrap();
    assert_eq!(&laws[0]["evidence"], evidence);

    let output = place.lawsmith(&[&arguments[..], &["--overwrite"]].concat()).output().unwrap();
    let shown = text(&output);
    for line in [
        "constants, 95 %: 2.5",
        "the same for the median: ",
        "0 of 3 shuffled targets are fitted as well",
    ] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
}

#[test]
fn the_page_of_a_table_shows_the_law_and_escapes_names() {
    let place = Place::new();
    let mut table = String::from("<script>,b,\"y <b>&\"\n");
    for row in 0..60 {
        let (a, b) = (f64::from(row) / 10.0, f64::from(row * 7 % 13));
        table += &format!("{a},{b},{}\n", a * b + 1.0);
    }
    place.write("table.csv", &table);
    place.document(&search(&[&["--target", "y <b>&"], &QUICK[..]].concat()));
    let page = place.read("run/report.html");
    assert!(!page.contains("<script") && !page.contains("<b>"), "{page}");
    assert!(page.contains("&lt;script&gt;") && page.contains("y &lt;b&gt;&amp;"));
    for section in ["result", "evidence", "prediction", "residuals", "front", "settings"] {
        assert!(page.contains(&format!("<section id=\"{section}\">")), "{section}");
    }
    assert!(page.contains("<math"));
    std::fs::remove_file(place.path("run/report.html")).unwrap();
    place.document(&["report", "run"]);
    assert_eq!(place.read("run/report.html"), page);
}

#[test]
fn rows_held_out_judge_the_law() {
    let place = Place::new();
    place.table("table.csv", 100, &[("y", &|a, _, c, _, _| a / c), ("z", &|a, b, _, _, _| a + b)]);
    let more = ["--target", "y,z", "--loss", "mse", "--validation", "0.25"];
    let document = place.document(&search(&[&more[..], &QUICK[..]].concat()));
    for target in document["targets"].as_array().unwrap() {
        let evidence = &target["evidence"];
        assert_eq!((&evidence["unseen"], &evidence["rows"]), (&"held out".into(), &25.into()));
        assert_eq!((&evidence["measure"], &evidence["null"]), (&"rms error".into(), &Value::Null));
        assert_eq!(evidence["baselines"]["constant"]["is"], "mean");
    }
}

#[test]
fn a_smoothed_target_is_not_shuffled() {
    let place = Place::new();
    place.table("table.csv", 30, &[("y", &|a, _, _, _, _| a)]);
    let error = place.error(&search(&["--target", "y", "--denoise", "--null", "3"]));
    assert_eq!((&error["kind"], &error["field"]), (&"usage".into(), &"null".into()));
    assert!(!place.path("runs").exists());
}
