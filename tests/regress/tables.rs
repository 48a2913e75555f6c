//! Tables in, results out, and what is wrong with either.

use lawsmith::random::Random;
use serde_json::Value;

use crate::{Place, chosen, exact, search, weighted_search};

#[test]
fn a_weighted_table_gives_its_law() {
    let place = Place::new();
    place.weighted(600, |a, b, c| (1.5 * a - 0.7 * b) / c + 0.3);
    let limits = ["--evaluations", "60000", "--target-loss", "1e-4", "-o", "run"];
    let document = place.document(&weighted_search(&limits));
    let front = document["front"].as_array().unwrap();
    let chosen = chosen(&document, "best");
    assert!(chosen["loss"].as_f64().unwrap() < 1e-3, "{chosen}");
    for key in ["evaluations", "node_evaluations", "seconds"] {
        assert!(document[key].as_f64().unwrap() > 0.0, "{key}");
    }
    let laws: Value = serde_json::from_str(&place.read("run/laws.json")).unwrap();
    let law = &laws[0];
    assert_eq!((law["target"].as_str(), law["rule"].as_str()), (Some("y"), Some("shortest")));
    assert_eq!(law["equation"], chosen["equation"]);
    let mut variables: Vec<&str> =
        law["variables"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    variables.sort_unstable();
    assert_eq!(variables, ["a", "b", "c"]);
    let hall = place.read("run/hall_of_fame.csv");
    assert!(hall.starts_with("component,complexity,loss,score,equation\ny,"), "{hall}");
    assert_eq!(hall.lines().count(), front.len() + 1);
    let config: toml::Table = place.read("run/config.toml").parse().unwrap();
    assert_eq!(config["regress"]["evaluations"].as_integer(), Some(60_000));
    // The same again is refused, then allowed, and gives the same.
    assert!(
        place.error(&weighted_search(&limits))["message"].as_str().unwrap().contains("--overwrite")
    );
    let threads = ["--threads", "1", "--overwrite"];
    place.document(&weighted_search(&[&limits[..], &threads[..]].concat()));
    assert_eq!(place.read("run/hall_of_fame.csv"), hall);
}

#[test]
fn the_table_in_text_marks_the_choices() {
    let place = Place::new();
    place.weighted(300, |a, b, _| a * b);
    let output = place.lawsmith(&weighted_search(&["--evaluations", "2000"])).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("complexity"), "{text}");
    for word in ["score", "best", "accuracy", "\nshortest: "] {
        assert!(text.contains(word), "no {word} in {text}");
    }
    assert!(text.contains("shortest: a * b\n") || text.contains("shortest: b * a\n"), "{text}");
    assert!(place.path("runs/table/laws.json").exists(), "the default folder");
}

#[test]
fn several_targets_in_one_call() {
    let place = Place::new();
    place.table("table.csv", 300, &[("y", &|a, b, _, _, _| a * b), ("z", &|a, _, c, _, _| a / c)]);
    let limits = ["--target", "y,z", "--evaluations", "4000", "-o", "run"];
    let document = place.document(&search(&limits));
    let targets = document["targets"].as_array().unwrap();
    assert_eq!(
        (targets[0]["target"].as_str(), targets[1]["target"].as_str()),
        (Some("y"), Some("z"))
    );
    assert!(["a * b", "b * a"].contains(&exact(&targets[0])), "{document}");
    assert_eq!(exact(&targets[1]), "a / c");
    let laws: Value = serde_json::from_str(&place.read("run/laws.json")).unwrap();
    assert_eq!(laws.as_array().unwrap().len(), 2);
    let hall = place.read("run/hall_of_fame.csv");
    assert!(hall.contains("\ny,") && hall.contains("\nz,"), "{hall}");
    // Neither target is an input of the other.
    assert!(!hall.lines().any(|line| line.starts_with("y,") && line.ends_with('z')), "{hall}");
    let judged = place.document(&["eval", "run", "table.csv"]);
    assert_eq!(judged["laws"].as_array().unwrap().len(), 2);
}

#[test]
fn features_are_selected_and_noise_is_smoothed() {
    let place = Place::new();
    let mut random = Random::new(5, 0);
    let names: Vec<String> = (0..15).map(|k| format!("x{k}")).collect();
    let mut text = format!("{},y\n", names.join(","));
    for _ in 0..400 {
        let x: Vec<f64> = (0..15).map(|_| random.normal()).collect();
        let cells: Vec<String> = x.iter().map(f64::to_string).collect();
        text +=
            &format!("{},{}\n", cells.join(","), x[4] * x[4] + 2.0 * x[9] + 0.2 * random.normal());
    }
    place.write("table.csv", &text);
    let document = place.document(&search(&[
        "--target",
        "y",
        "--select-features",
        "2",
        "--denoise",
        "--evaluations",
        "6000",
        "-o",
        "run",
    ]));
    assert_eq!(document["inputs"], serde_json::json!(["x4", "x9"]));
    let laws = place.read("run/laws.json");
    assert!(laws.contains("x4") && laws.contains("x9"), "{laws}");
}

#[test]
fn bad_input_is_named() {
    let place = Place::new();
    let y = ["--target", "y"];
    let rows = |row: &str, n: usize| format!("a,y\n{}", format!("{row}\n").repeat(n));
    let error = |name: &str, text: &str, more: &[&str]| {
        place.write(name, text);
        place.error(&[&["regress", name], &y[..], more].concat())
    };
    let good: String = (0..30).map(|i| format!("{i},{}\n", i * i)).collect();
    let good = format!("a,y\n{good}");

    let e = place.error(&["regress", "none.csv", "--target", "y"]);
    assert!(e["message"].as_str().unwrap().contains("no such file"), "{e}");
    let e = error("constant.csv", &rows("1,2", 20), &[]);
    assert_eq!(e["field"], "y");
    assert!(e["message"].as_str().unwrap().contains("2 in every row"), "{e}");
    let e = error("few.csv", "a,y\n1,2\n2,3\n", &[]);
    assert!(e["message"].as_str().unwrap().contains("at least 3"), "{e}");
    let e = error("one.csv", "a,y\n1,2\n", &[]);
    assert!(e["message"].as_str().unwrap().contains("has 1 row;"), "{e}");
    assert!(e["file"].as_str().unwrap().ends_with("one.csv"), "{e}");
    let e = error("twice.csv", &good.replace("a,y", "y,y"), &[]);
    assert_eq!((e["field"].as_str(), e["row"].as_u64()), (Some("y"), Some(1)));
    let words: String = (0..30).map(|i| format!("word{i},{i}\n")).collect();
    let e = error("words.csv", &format!("a,y\n{words}"), &[]);
    assert_eq!((e["field"].as_str(), e["row"].as_u64()), (Some("a"), Some(2)));
    let e = error("infinite.csv", &good.replace("7,49", "7,inf"), &[]);
    assert_eq!((e["field"].as_str(), e["row"].as_u64()), (Some("y"), Some(9)));
    let e = error("empty.csv", &good.replace("7,49", "7,"), &[]);
    assert_eq!((e["field"].as_str(), e["row"].as_u64()), (Some("y"), Some(9)));
    let e = place.error(&["regress", "twice.csv"]);
    assert_eq!((e["kind"].as_str(), e["field"].as_str()), (Some("usage"), Some("target")));
    let e = error("missing.csv", &good.replace("a,y", "a,z"), &[]);
    assert_eq!(e["field"], "y");
    let e = error("nan.csv", &good.replace("7,49", "NaN,49"), &[]);
    assert_eq!((e["field"].as_str(), e["row"].as_u64()), (Some("a"), Some(9)));
    let e = error("text.csv", &good.replace("7,49", "7,x"), &[]);
    assert_eq!((e["field"].as_str(), e["row"].as_u64()), (Some("y"), Some(9)));
    let e = error("large.csv", &good.replace("7,49", "1e200,49"), &[]);
    assert_eq!((e["field"].as_str(), e["row"].as_u64()), (Some("a"), Some(9)));
    let e = error("name.csv", &good.replace("a,y", "a b,y").replace("7,49", "1e200,49"), &[]);
    assert_eq!((e["field"].as_str(), e["row"].as_u64()), (Some("a b"), Some(9)));
    let e = error("input.csv", &good, &["--inputs", "b"]);
    assert_eq!(e["field"], "b");
    let e = error("weight.csv", &good.replace("a,y", "w,y"), &["--inputs", "w", "--weights", "q"]);
    assert_eq!(e["field"], "q");
    let e = error("operator.csv", &good, &["--operators", "+,%"]);
    assert_eq!((e["kind"].as_str(), e["field"].as_str()), (Some("usage"), Some("operators")));
    assert!(!place.path("runs").exists(), "nothing is made before everything is checked");
    place.write("occupied.txt", "kept");
    let e = place.error(&["regress", "input.csv", "--target", "y", "-o", "."]);
    assert!(e["message"].as_str().unwrap().contains("--overwrite"), "{e}");
}
