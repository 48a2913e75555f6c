//! Tables as they come: dialects, missing values, words, names.

use serde_json::Value;

use crate::Place;

/// 3 t² − p on 40 rows.
fn rows(separator: &str) -> Vec<String> {
    // In the digits that are written, so that the law is exact.
    let written = |value: f64| (1e4 * value).round() / 1e4;
    let value = |k: usize, a: usize, b: usize| written(1.0 + (k * a % b) as f64 / b as f64 * 4.0);
    let row = |k: usize| {
        let (t, p) = (value(k, 7, 41), value(k, 13, 37));
        format!("{t:.4}{separator}{p:.4}{separator}{:.6}", 3.0 * t * t - p)
    };
    (0..40).map(row).collect()
}

fn search<'a>(table: &'a str, target: &'a str) -> Vec<&'a str> {
    vec![
        "regress",
        table,
        "--target",
        target,
        "--operators",
        "+,-,*,/",
        "--evaluations",
        "20000",
        "-o",
        "run",
        "--overwrite",
    ]
}

/// The loss of the best formula of a search that must end well.
fn loss(document: &Value) -> f64 {
    let front = document["front"].as_array().unwrap_or_else(|| panic!("{document}"));
    front.last().unwrap()["loss"].as_f64().unwrap()
}

fn notes(document: &Value) -> String {
    document["notes"].as_array().map_or(String::new(), |notes| {
        notes.iter().map(|note| note.as_str().unwrap()).collect::<Vec<_>>().join("; ")
    })
}

#[test]
fn every_dialect_gives_the_law() {
    let place = Place::new();
    let (comma, semicolon, blank) =
        (rows(",").join("\n"), rows(";").join("\n"), rows(" ").join("\n"));
    for (name, text, target, note) in [
        ("t.csv", format!("t;p;f\n{semicolon}\n"), "f", "semicolon"),
        ("t.csv", format!("t;p;f\n{}\n", semicolon.replace('.', ",")), "f", "decimal commas"),
        ("t.csv", format!("# by a logger\n# s, Pa, N\nt,p,f\n{comma}\n"), "f", ""),
        ("t.csv", format!("{comma}\n"), "x2", "x0 to x2"),
        ("t", format!("{blank}\n"), "x2", "x0 to x2"),
        ("t.txt", format!("t\tp\tf\n{}\n", blank.replace(' ', "\t")), "f", "tab"),
    ] {
        place.write(name, &text);
        let document = place.document(&search(name, target));
        assert!(notes(&document).contains(note), "{name}: {document}");
        assert!(loss(&document) < 1e-4, "{name}: {document}");
    }
}

/// Columns of text and half-empty ones are left out and named; a gap in one that is used is an error that counts
/// the rows and names the way out.
#[test]
fn what_is_missing_is_counted() {
    let place = Place::new();
    let extra = |k: usize| {
        format!("2024-01-{:02},{},{}", k % 28 + 1, ["Rome", "Oslo"][k % 2], ["", "7"][k % 2])
    };
    let text: Vec<String> =
        rows(",").iter().enumerate().map(|(k, row)| format!("{},{row}", extra(k))).collect();
    place.write("t.csv", &format!("when,city,gap,t,p,f\n{}\n", text.join("\n")));
    let document = place.document(&search("t.csv", "f"));
    let said = notes(&document);
    assert!(
        said.contains("when (no numbers), city (no numbers), gap (20 of 40 values missing)"),
        "{said}"
    );
    assert!(loss(&document) < 1e-4, "{document}");

    let mut lines = rows(",");
    lines[10] = "NA,2.0,1.0".into();
    lines[20] = "2.0,,10".into();
    place.write("na.csv", &format!("t,p,f\n{}\n", lines.join("\n")));
    let error = place.error(&search("na.csv", "f"));
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("2 of 40 rows lack a value: --drop-missing"), "{error}");
    assert_eq!((error["field"].as_str(), error["row"].as_u64()), (Some("t"), Some(12)));
    let error = place.error(&search("na.csv", "g"));
    assert!(error["message"].as_str().unwrap().contains("the columns are t, p, f"), "{error}");
    let mut dropping = search("na.csv", "f");
    dropping.push("--drop-missing");
    let document = place.document(&dropping);
    assert!(notes(&document).contains("2 of 40 rows lack a value and are left out"), "{document}");
    assert!(loss(&document) < 1e-4, "{document}");

    // A row that lacks an input has no prediction.
    let judged = place.document(&["eval", "run", "na.csv", "-o", "out.csv"]);
    assert_eq!(
        (judged["laws"][0]["rows"].as_u64(), judged["laws"][0]["incomplete"].as_u64()),
        (Some(40), Some(2))
    );
    let out = place.read("out.csv");
    assert!(out.lines().nth(11).unwrap().starts_with("NA,2.0,1.0,"), "{out}");
    assert!(out.lines().nth(11).unwrap().ends_with(','), "{out}");
    assert!(!out.lines().nth(12).unwrap().ends_with(','), "{out}");
    let judged = place.document(&["eval", "run", "na.csv", "--drop-missing"]);
    assert_eq!(judged["laws"][0]["rows"], 38);
}

/// Any header can be regressed on; the files that come out say which column is which.
#[test]
fn any_name() {
    let place = Place::new();
    let text = format!("t [s],a-b,IF\n{}\n", rows(",").join("\n"));
    place.write("t.csv", &text);
    let document = place.document(&search("t.csv", "IF"));
    assert!(loss(&document) < 1e-4, "{document}");
    assert_eq!(document["columns"]["t"], "t [s]");
    assert_eq!(document["columns"]["a_b"], "a-b");
    assert_eq!(document["target"], "IF");
    let laws: Value = serde_json::from_str(&place.read("run/laws.json")).unwrap();
    assert_eq!(laws[0]["columns"]["t"], "t [s]");
    assert!(place.read("run/laws.py").contains("t [s]"));
    let judged = place.document(&["eval", "run", "t.csv"]);
    assert!(judged["laws"][0]["r2"].as_f64().unwrap() > 0.999, "{judged}");
    // The file's names and the short ones both serve.
    let mut named = search("t.csv", "IF");
    named.extend(["--inputs", "t [s],a_b", "--complexity", "t [s]=2"]);
    assert!(loss(&place.document(&named)) < 1e-4);
}

/// p[city] is a number for each city.
#[test]
fn words_are_groups() {
    let place = Place::new();
    let offset = [("Rome", 5.0), ("Oslo", -2.0), ("Lima", 1.5)];
    let row = |k: usize| {
        let x = 1.0 + (k * 7 % 41) as f64 / 10.0;
        let (city, own) = offset[k % 3];
        format!("{x},{city},{}", x * x + own)
    };
    let rows: Vec<String> = (0..60).map(row).collect();
    place.write("t.csv", &format!("x,city,y\n{}\n", rows.join("\n")));
    let mut template = search("t.csv", "y");
    template.extend(["--template", "f(x) + p[city]"]);
    let document = place.document(&template);
    assert!(loss(&document) < 1e-3, "{document}");
    let last = document["front"].as_array().unwrap().last().unwrap();
    let numbers = &last["numbers"]["p[city]"];
    assert!(numbers["Rome"].is_number() && numbers["Lima"].is_number(), "{last}");
    assert!(last["form"].as_str().unwrap().ends_with("p[city]"), "{last}");
    assert_eq!(last["parts"].as_object().unwrap().len(), 1, "{last}");
    place.write("new.csv", "city,x\nOslo,3\nParis,3\n");
    let judged = place.document(&["eval", "run", "new.csv"]);
    let predicted = judged["laws"][0]["predictions"].as_array().unwrap();
    assert!((predicted[0].as_f64().unwrap() - 7.0).abs() < 1e-2, "{judged}");
    assert!(predicted[1].is_null(), "a city that was not fitted: {judged}");
    let mut named = search("t.csv", "y");
    named.extend(["--inputs", "x,city"]);
    let error = place.error(&named);
    assert_eq!((error["field"].as_str(), error["row"].as_u64()), (Some("city"), Some(2)));
}

#[test]
fn three_rows_are_enough_and_warned_of() {
    let place = Place::new();
    place.write("t.csv", "x,y\n1,2\n2,4\n3,6\n");
    let mut few = search("t.csv", "y");
    few[7] = "2000";
    let document = place.document(&few);
    assert!(notes(&document).contains("3 rows are few"), "{document}");
    assert!(loss(&document) < 1e-5, "{document}");
    place.write("two.csv", "x,y\n1,2\n2,4\n");
    assert!(
        place.error(&search("two.csv", "y"))["message"].as_str().unwrap().contains("at least 3")
    );
    place.write("one.csv", "x,y\n1,2\n");
    let one = place.error(&search("one.csv", "y"));
    assert!(one["message"].as_str().unwrap().contains("has 1 row; "), "{one}");
    let mut held_out = search("t.csv", "y");
    held_out.extend(["--validation", "0.3"]);
    let error = place.error(&held_out);
    assert_eq!(error["field"], "validation");
    assert!(error["message"].as_str().unwrap().contains("keeps 1 of 3 rows"), "{error}");
}

/// True and False are 1 and 0.
#[test]
fn truth_is_a_number() {
    let place = Place::new();
    let row = |k: usize| {
        format!("{},{},{}", k * 7 % 11, ["False", "True"][k % 2], k * 7 % 11 + 3 * (k % 2))
    };
    let rows: Vec<String> = (0..40).map(row).collect();
    place.write("t.csv", &format!("x,ok,y\n{}\n", rows.join("\n")));
    assert!(loss(&place.document(&search("t.csv", "y"))) < 1e-5);
}
