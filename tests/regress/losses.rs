//! What a search minimises and by what it chooses.

use serde_json::Value;

use crate::{Place, chosen, exact, search};

#[test]
fn the_best_few_of_each_complexity_are_kept() {
    let place = Place::new();
    place.table("table.csv", 300, &[("y", &|a, b, c, _, _| a * b + 0.1 * c)]);
    let document = place.document(&search(&[
        "--target",
        "y",
        "--evaluations",
        "6000",
        "--keep",
        "3",
        "-o",
        "run",
    ]));
    let kept = place.read("run/kept.csv");
    let rows: Vec<Vec<&str>> =
        kept.lines().skip(1).map(|line| line.splitn(5, ',').collect()).collect();
    let of = |complexity: &str| -> Vec<(f64, &str)> {
        let rows = rows.iter().filter(|row| row[1] == complexity);
        rows.map(|row| (row[3].parse().unwrap(), row[4])).collect()
    };
    let three = of("5");
    assert_eq!(three.len(), 3, "{kept}");
    assert!(
        three.windows(2).all(|pair| pair[0].0 <= pair[1].0 && pair[0].1 != pair[1].1),
        "{kept}"
    );
    assert!(rows.iter().all(|row| ["1", "2", "3"].contains(&row[2])), "{kept}");
    // The first of each complexity are what the front is made of.
    for entry in document["front"].as_array().unwrap() {
        let best = of(&entry["complexity"].to_string())[0];
        assert_eq!(Some(best.0), entry["loss"].as_f64());
    }
}

#[test]
fn unseen_rows_choose_the_law() {
    let place = Place::new();
    place.table("table.csv", 120, &[("y", &|a, _, _, _, random| a + 0.5 * random.normal())]);
    let arguments = ["--target", "y", "--evaluations", "30000", "--select", "accuracy"];
    let seen = place.document(&search(&[&arguments[..], &["-o", "seen"]].concat()));
    let arguments = [&arguments[..], &["--validation", "0.4", "-o", "unseen"]].concat();
    let unseen = place.document(&search(&arguments));
    // Noise is fitted further and further where the rows that are fitted also choose.
    let complexity =
        |document: &Value| chosen(document, "accuracy")["complexity"].as_u64().unwrap();
    assert_eq!(complexity(&seen), seen["front"].as_array().unwrap().last().unwrap()["complexity"]);
    assert!(complexity(&unseen) < complexity(&seen), "{unseen} {seen}");
    let front = unseen["front"].as_array().unwrap();
    let losses: Vec<f64> = front.iter().map(|e| e["validation"].as_f64().unwrap()).collect();
    let least = losses.iter().copied().fold(f64::INFINITY, f64::min);
    assert_eq!(chosen(&unseen, "accuracy")["validation"].as_f64(), Some(least));
    assert_eq!(
        place.error(&search(&["--target", "y", "--validation", "0.001"]))["field"],
        "validation"
    );
}

#[test]
fn a_loss_of_the_users_own_is_minimised() {
    let place = Place::new();
    // Three of ten rows are far above: their mean moves, their quantiles below do not.
    place.table(
        "table.csv",
        400,
        &[("y", &|a, _, _, row, random| {
            2.0 * a
                + if row % 10 < 3 { 40.0 + 5.0 * random.normal() } else { 0.01 * random.normal() }
        })],
    );
    let slope = |loss: &str, folder: &str| -> (f64, f64) {
        let document = place.document(&search(&[
            "--target",
            "y",
            "--inputs",
            "a",
            "--evaluations",
            "8000",
            "--max-complexity",
            "5",
            "--loss",
            loss,
            "-o",
            folder,
        ]));
        let entry = chosen(&document, "accuracy");
        assert!(entry["loss"].as_f64().unwrap().is_finite(), "{document}");
        let values = place.document(&["eval", folder, "table.csv"]);
        let predictions = values["laws"][0]["predictions"].as_array().unwrap().clone();
        let table = place.read("table.csv");
        let mut worst = 0.0f64;
        let mut mean = 0.0;
        for (line, prediction) in table.lines().skip(1).zip(&predictions) {
            let a: f64 = line.split(',').next().unwrap().parse().unwrap();
            let off = prediction.as_f64().unwrap() - 2.0 * a;
            worst = worst.max(off.abs());
            mean += off / 400.0;
        }
        (worst, mean)
    };
    let (_, mean) = slope("mse", "mse");
    assert!(mean > 8.0, "squares follow the rows far off: {mean}");
    for (loss, folder) in [
        ("huber:0.1", "huber"),
        ("quantile:0.3", "quantile"),
        ("log(1 + (prediction - target)^2)", "own"),
    ] {
        let (worst, _) = slope(loss, folder);
        assert!(worst < 0.5, "{loss}: {worst}");
    }
    let e = place.error(&search(&["--target", "y", "--loss", "prediction * q"]));
    assert_eq!(e["field"], "loss");
}

#[test]
fn weights_count_in_a_loss_of_the_users_own() {
    let place = Place::new();
    let spoiled = |row: usize| row.is_multiple_of(3);
    place.table(
        "table.csv",
        300,
        &[
            ("y", &|a, b, _, row, _| if spoiled(row) { 50.0 } else { a * b }),
            ("w", &|_, _, _, row, _| if spoiled(row) { 0.0 } else { 2.0 }),
        ],
    );
    for loss in ["weight * abs(prediction - target)", "abs(prediction - target)"] {
        let document = place.document(&search(&[
            "--target",
            "y",
            "--weights",
            "w",
            "--loss",
            loss,
            "--evaluations",
            "4000",
            "-o",
            "run",
            "--overwrite",
        ]));
        assert!(["a * b", "b * a"].contains(&exact(&document)), "{loss}: {document}");
    }
}

/// Standard errors are weights: 1/σ² of squares, 1/σ of absolute differences.
#[test]
fn standard_errors_weigh_the_rows() {
    let place = Place::new();
    let error = |row: usize| [0.05, 0.4, 3.0][row % 3];
    let laws: [(&str, &crate::Law); 4] = [
        ("y", &|_, _, c, row, random| 2.0 * c + error(row) * random.normal()),
        ("s", &|_, _, _, row, _| error(row)),
        ("w1", &|_, _, _, row, _| 1.0 / error(row)),
        ("w2", &|_, _, _, row, _| 1.0 / error(row).powi(2)),
    ];
    place.table("table.csv", 150, &laws);
    let slope = |loss: &str, more: &[&str]| {
        let fixed = ["--target", "y", "--inputs", "c", "--template", "k * c", "--overwrite"];
        let more = [&fixed[..], &["--loss", loss, "-o", "run"], more].concat();
        place.document(&search(&more))["front"][0]["numbers"]["k"].as_f64().unwrap()
    };
    for (loss, weights) in [("mse", "w2"), ("mae", "w1")] {
        let by_errors = slope(loss, &["--sigma", "s"]);
        let by_weights = slope(loss, &["--weights", weights]);
        assert!((by_errors - by_weights).abs() < 2e-4, "{loss}: {by_errors} {by_weights}");
        // A third of the rows are good to 0.05; absolute differences bear the others without weights too.
        assert!((by_errors - 2.0).abs() < 0.02, "{loss}: {by_errors}");
        let plain = slope(loss, &[]);
        let further = (plain - 2.0).abs() > 2.0 * (by_errors - 2.0).abs();
        assert!(further || loss == "mae", "{loss}: {by_errors} {plain}");
    }
    let refused = |more: &[&str]| {
        let fixed = ["--target", "y", "--inputs", "a", "--sigma"];
        place.error(&search(&[&fixed[..], more].concat()))
    };
    let both = refused(&["s", "--weights", "w1"]);
    assert_eq!(both["field"], "sigma");
    assert!(both["message"].as_str().unwrap().contains("--weights"), "{both}");
    assert_eq!(refused(&["s", "--loss", "huber"])["field"], "sigma");
    assert_eq!(refused(&["q"])["field"], "q");
    let negative = refused(&["a"]);
    assert!(negative["message"].as_str().unwrap().contains("larger than 0"), "{negative}");
}

/// Where an input is uncertain the target says less, by the slope of the law.
#[test]
fn standard_errors_of_inputs_weigh_the_rows() {
    let place = Place::new();
    let error = |row: usize| [0.0, 0.6][row % 2];
    let laws: [(&str, &crate::Law); 4] = [
        ("y", &|_, _, c, _, random| 2.0 * c + 0.05 * random.normal()),
        ("measured x", &|_, _, c, row, random| c + error(row) * random.normal()),
        ("s", &|_, _, _, _, _| 0.05),
        ("x error", &|_, _, _, row, _| error(row)),
    ];
    place.table("table.csv", 200, &laws);
    let slope = |more: &[&str]| {
        let fixed = ["--target", "y", "--inputs", "measured x", "--template", "k * `measured x`"];
        let more = [&fixed[..], &["--loss", "mse", "-o", "run", "--overwrite"], more].concat();
        place.document(&search(&more))["front"][0]["numbers"]["k"].as_f64().unwrap()
    };
    let plain = slope(&["--sigma", "s"]);
    assert!(plain < 1.95, "uncertain rows flatten the slope: {plain}");
    let weighed = slope(&["--sigma", "s", "--x-sigma", "measured x=x error"]);
    assert!((weighed - 2.0).abs() < 0.02, "{weighed}");
    let held = slope(&["--sigma", "s", "--x-sigma", "measured x=x error", "--validation", "0.2"]);
    assert!((held - 2.0).abs() < 0.03, "{held}");
    let refused = |more: &[&str]| {
        place.error(&search(&[&["--target", "y", "--inputs", "measured x"][..], more].concat()))
    };
    let other = refused(&["--sigma", "s", "--x-sigma", "a=x error"]);
    assert!(other["message"].as_str().unwrap().contains("'a' is not a column"), "{other}");
    assert_eq!(refused(&["--sigma", "s", "--x-sigma", "measured x"])["field"], "x-sigma");
    assert_eq!(refused(&["--sigma", "s", "--x-sigma", "measured x=b"])["field"], "b");
}
