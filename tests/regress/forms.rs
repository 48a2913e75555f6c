//! What a law may look like: units, templates, operators, one factor for several targets.

use lawsmith::random::Random;

use crate::{Law, Place, chosen, exact, search, text};

#[test]
fn units_refuse_what_mixes_them() {
    let place = Place::new();
    // b is a copy of a with another unit: without units the two are one to the search.
    let mut text = String::from("a,b,t,y\n");
    let mut random = Random::new(8, 0);
    for _ in 0..300 {
        let (a, t) = (1.0 + random.uniform(), 1.0 + random.uniform());
        text += &format!("{a},{a},{t},{}\n", a / (t * t));
    }
    place.write("table.csv", &text);
    let limits = ["--target", "y", "--evaluations", "8000", "-o", "run", "--overwrite"];
    let with = |units: &str, pure: &[&str]| {
        let document = place.document(&search(&[&limits[..], &["--units", units], pure].concat()));
        let front = document["front"].as_array().unwrap().clone();
        let equations = front.iter().map(|e| e["equation"].as_str().unwrap().to_string());
        (equations.collect::<Vec<_>>(), exact(&document).to_string())
    };
    let (front, best) = with("a=m,b=kg,t=s,y=m/s^2", &["--pure-constants"]);
    assert!(front.iter().all(|e| !e.contains('b') && e.contains('a')), "{front:?}");
    assert!(["a / (t * t)", "a / t / t"].contains(&best.as_str()), "{best}");
    let (front, best) = with("a=m,b=kg,t=s,y=kg/s^2", &["--pure-constants"]);
    assert!(front.iter().all(|e| !e.contains('a') && e.contains('b')), "{front:?}");
    assert!(best.starts_with('b'), "{best}");
    // A constant may carry units unless it is said not to: a number of metres for a second.
    let (front, _) = with("a=m,b=kg,t=s,y=m/s^2", &[]);
    assert!(front.iter().any(|e| !e.contains('a')), "{front:?}");
    let e = place.error(&search(&["--target", "y", "--units", "q=m"]));
    assert_eq!(e["field"], "units");
}

/// A fitted exponent of a length fits no unit: those that are tried are small fractions.
#[test]
fn powers_of_what_has_a_unit_are_found() {
    let place = Place::new();
    place.table("table.csv", 300, &[("y", &|a, _, c, _, _| 0.7 * a * c.powf(1.5))]);
    let arguments = ["regress", "table.csv", "--target", "y", "--operators", "+,*,^", "-o", "run"];
    let units = ["--units", "a=kg,b=s,c=m,y=kg*m^1.5", "--pure-constants"];
    let limits = ["--evaluations", "30000", "--target-loss", "1e-5"];
    let document = place.document(&[&arguments[..], &units, &limits].concat());
    let equation = exact(&document);
    assert!(equation.contains("^1.5"), "{document}");
}

#[test]
fn a_front_that_no_unit_fits_says_so() {
    let place = Place::new();
    place.table("table.csv", 100, &[("y", &|a, _, c, _, _| a * c)]);
    let units = ["--units", "a=kg,b=s,c=m,y=A", "--pure-constants"];
    let mut command =
        place.lawsmith(&search(&[&["--target", "y", "--evaluations", "600"], &units[..]].concat()));
    let text = text(&command.output().unwrap());
    assert!(text.contains("no formula fits the units"), "{text}");
}

#[test]
fn templates_give_the_form() {
    let place = Place::new();
    place.table(
        "table.csv",
        300,
        &[
            ("u", &|_, _, _, row, _| (row % 4) as f64),
            ("y", &|a, b, c, row, _| {
                (1.0 / c + 0.5) * a + c * c * b + [1.0, -2.0, 4.0, 0.5][row % 4]
            }),
        ],
    );
    let run = |template: &str, folder: &str| {
        place.document(&search(&[
            "--target",
            "y",
            "--template",
            template,
            "--evaluations",
            "40000",
            "--target-loss",
            "1e-4",
            "-o",
            folder,
        ]))
    };
    let document = run("f(c) * a + g(c) * b + p[u]", "form");
    let front = document["front"].as_array().unwrap();
    let best = front.iter().find(|e| e["loss"].as_f64().unwrap() < 1e-4).unwrap();
    let equation = best["equation"].as_str().unwrap();
    assert!(equation.contains("IF((u < 0.5), 1"), "{equation}");
    assert_eq!(best["parts"]["g"].as_str(), Some("c * c"), "{best}");
    assert!(!best["parts"]["f"].as_str().unwrap().contains('a'), "{best}");
    let judged = place.document(&["eval", "form", "table.csv"]);
    assert!(judged["laws"][0]["r2"].as_f64().unwrap() > 0.999_99);
    assert_eq!(
        place.error(&search(&["--target", "y", "--template", "a * b"]))["field"],
        "template"
    );
}

/// Numbers that span decades; what the template itself says stays as it is.
#[test]
fn numbers_of_a_given_form_are_fitted() {
    let place = Place::new();
    let law: &Law = &|a, _, c, row, _| {
        1200.0 * (-0.03 * c).exp() * (7.0 * a + 0.4).cos() + 0.5 + [1e3, -2e3][row % 2]
    };
    place.table("table.csv", 200, &[("u", &|_, _, _, row, _| (row % 2) as f64), ("y", law)]);
    let form = "k * exp(-s * c) * cos(7 * a + 0.4) + 0.5 + p[u]";
    let command = search(&["--target", "y", "--template", form, "-o", "run"]);
    let document = place.document(&command);
    let front = document["front"].as_array().unwrap();
    assert_eq!(front.len(), 1, "{document}");
    let near = |value: &serde_json::Value, exact: f64| {
        let value = value.as_f64().unwrap();
        assert!((value / exact - 1.0).abs() < 1e-4, "{value} {exact}: {document}");
    };
    let numbers = &front[0]["numbers"];
    near(&numbers["k"], 1200.0);
    near(&numbers["s"], 0.03);
    near(&numbers["p[u]"]["0"], 1e3);
    near(&numbers["p[u]"]["1"], -2e3);
    let written = front[0]["form"].as_str().unwrap();
    assert!(written.ends_with("* cos(7 * a + 0.4) + 0.5 + p[u]"), "{written}");
    let shown = text(&place.lawsmith(&[&command[..], &["--overwrite"]].concat()).output().unwrap());
    assert!(shown.contains("fitted: k = ") && shown.contains("p[u]\n  0  "), "{shown}");
    let judged = place.document(&["eval", "run", "table.csv"]);
    assert!(judged["laws"][0]["r2"].as_f64().unwrap() > 0.999_99);
    // A number is no way around a typing error.
    let refused = |template: &str| {
        let e = place.error(&search(&["--target", "y", "--template", template]));
        assert_eq!(e["field"], "template");
        e["message"].as_str().unwrap().to_string()
    };
    assert!(refused("f(a) + k").contains("'k' is not a variable"));
    assert!(refused("k * C").contains("'C' is not a column, but 'c' is"));
    assert!(refused("k * a + y").contains("column 'y' is not an input"));
}

/// p[u] is an operand of the function that is searched; a guess is found again, and so is an earlier run.
#[test]
fn numbers_of_a_group_within_a_function() {
    let place = Place::new();
    place.table(
        "table.csv",
        150,
        &[
            ("u", &|_, _, _, row, _| (row % 3) as f64),
            ("y", &|a, b, _, row, _| {
                2.0 * (a + [0.3, 1.1, -0.7][row % 3]).cos() + b * b - [0.5, -1.2, 2.0][row % 3]
            }),
        ],
    );
    let run = |more: &[&str]| {
        let form = ["--template", "f(a, b, p[u]) - q[u]", "--target-loss", "1e-4"];
        let fixed = ["regress", "table.csv", "--target", "y", "--operators", "+,-,*,cos"];
        place.document(&[&fixed[..], &form, more].concat())
    };
    let best = |document: &serde_json::Value| {
        let front = document["front"].as_array().unwrap();
        front.iter().find(|e| e["loss"].as_f64().unwrap() < 1e-4).cloned()
    };
    let found = best(&run(&["--evaluations", "60000", "-o", "run"])).unwrap();
    assert_eq!(found["numbers"]["q[u]"].as_object().unwrap().len(), 3, "{found}");
    assert!(found["parts"]["f"].as_str().unwrap().contains("p[u]"), "{found}");
    assert!(!found["form"].as_str().unwrap().contains("IF"), "{found}");
    let little = ["--evaluations", "20", "--islands", "1"];
    assert!(best(&run(&[&little[..], &["-o", "alone"]].concat())).is_none());
    let warm = run(&[&little[..], &["--warm-start", "run", "-o", "warm"]].concat());
    assert!(best(&warm).is_some(), "{warm}");
    let guess = ["--guess", "f(x, y, p) = 2 * cos(x + p) + y * y"];
    let guessed = run(&[&little[..], &guess, &["-o", "guessed"]].concat());
    assert!(best(&guessed).is_some(), "{guessed}");
}

/// A part that is called twice has the same constants in both places.
#[test]
fn a_part_of_a_template_may_be_called_twice() {
    let place = Place::new();
    place.table(
        "table.csv",
        300,
        &[("y", &|a, b, _, _, _| {
            let f = |x: f64| 1.0 / (x * x + 0.7);
            f(a) - f(b)
        })],
    );
    let document = place.document(&search(&[
        "--target",
        "y",
        "--template",
        "f(a) - f(b)",
        "--evaluations",
        "30000",
        "--target-loss",
        "1e-5",
        "-o",
        "run",
    ]));
    let best = chosen(&document, "accuracy");
    assert!(best["loss"].as_f64().unwrap() < 1e-4, "{document}");
}

#[test]
fn operators_of_the_users_own() {
    let place = Place::new();
    place.table("table.csv", 300, &[("y", &|a, b, _, _, _| 3.0 * (-a * a).exp() + 0.0 * b)]);
    let document = place.document(&[
        "regress",
        "table.csv",
        "--target",
        "y",
        "--operators",
        "*,+",
        "--define",
        "bell(x) = exp(-(x * x))",
        "--complexity",
        "bell=2",
        "--evaluations",
        "6000",
        "--target-loss",
        "1e-4",
        "-o",
        "own",
    ]);
    let best = chosen(&document, "accuracy");
    assert!(best["loss"].as_f64().unwrap() < 1e-3, "{document}");
    // 3 · bell(a): three nodes beside bell, which counts 2.
    assert_eq!(best["complexity"].as_u64(), Some(5), "{document}");
}

#[test]
fn components_of_one_force_share_a_factor() {
    let place = Place::new();
    let laws: [(&str, &Law); 2] = [
        ("y", &|a, b, c, _, _| (1.0 - 1.0 / c) * (2.0 * a - b) + 1.0),
        ("z", &|a, b, c, _, _| (1.0 - 1.0 / c) * (0.01 * a + 0.03 * b)),
    ];
    place.table("table.csv", 400, &laws);
    let limits = ["--target", "y,z", "--evaluations", "12000", "-o", "run"];
    let document = place.document(&search(&[&limits[..], &["--joint", "a,b"]].concat()));
    assert_eq!(document["targets"].as_array().unwrap().len(), 2);
    let judged = place.document(&["eval", "run", "table.csv"]);
    for law in judged["laws"].as_array().unwrap() {
        assert!(law["r2"].as_f64().unwrap() > 0.9999, "{law}");
    }
    let hall = place.read("run/hall_of_fame.csv");
    assert!(hall.lines().skip(1).all(|line| line.starts_with("joint,")), "{hall}");
    let bad = ["--target", "y,z", "--joint", "a,d", "-o", "bad"];
    assert!(place.error(&search(&bad))["message"].as_str().unwrap().contains("'d'"));
}

/// What is reported for each target, and chosen by, is the loss that was asked for.
#[test]
fn joint_targets_are_judged_by_the_loss() {
    let place = Place::new();
    let laws: [(&str, &Law); 2] = [
        ("y", &|a, b, c, _, random| c * (2.0 * a - b) + 0.1 * random.normal()),
        ("z", &|a, b, c, _, random| c * (a + 3.0 * b) + 0.1 * random.normal()),
    ];
    place.table("table.csv", 200, &laws);
    let limits = ["--target", "y,z", "--joint", "a,b", "--evaluations", "2000", "-o", "run"];
    let own = ["--loss", "3 * (prediction - target)^2"];
    let document = place.document(&search(&[&limits[..], &own].concat()));
    let judged = place.document(&["eval", "run", "table.csv"]);
    let targets = document["targets"].as_array().unwrap();
    for (target, law) in targets.iter().zip(judged["laws"].as_array().unwrap()) {
        let loss = chosen(target, "best")["loss"].as_f64().unwrap();
        let expected = 3.0 * law["rmse"].as_f64().unwrap().powi(2);
        assert!((loss - expected).abs() < 1e-3 * expected, "{loss} {expected}");
    }
}

/// Laws with jumps: whole parts, rounding, remainders.
#[test]
fn whole_numbers_and_remainders() {
    let place = Place::new();
    type OfInputs = fn(f64, f64, f64) -> f64;
    let laws: [(&str, OfInputs); 3] = [
        ("floor", |a, b, c| 3.0 * (2.0 * c).floor() - a * b),
        ("round", |a, b, _| (a + b + 0.5).floor() * b),
        ("mod", |a, b, c| 0.5 * b + a.rem_euclid(c)),
    ];
    for (name, law) in laws {
        place.table("table.csv", 300, &[("y", &|a, b, c, _, _| law(a, b, c))]);
        let operators = format!("+,-,*,{name}");
        let arguments = ["regress", "table.csv", "--target", "y", "--operators", &operators];
        let more = ["--evaluations", "60000", "--target-loss", "1e-6", "--overwrite", "-o", "run"];
        let document = place.document(&[&arguments[..], &more].concat());
        let found = exact(&document);
        assert!(found.contains(&format!("{name}(")), "{found}");
    }
}
