//! Numbers as they come: any scale, any offset, rounding, noise, π.

use lawsmith::formula::expression::Expression;
use lawsmith::random::Random;
use serde_json::Value;

use super::{Place, chosen};

/// A table of x in 1 … 5 and of y, each in `digits` digits.
fn write(place: &Place, rows: usize, digits: usize, y: impl Fn(f64, &mut Random) -> [f64; 2]) {
    let mut random = Random::new(12, 0);
    let mut text = "x,y\n".to_string();
    for _ in 0..rows {
        let x = 1.0 + 4.0 * random.uniform();
        let [x, y] = y(x, &mut random);
        text += &format!("{x:.digits$e},{y:.digits$e}\n");
    }
    place.write("table.csv", &text);
}

fn fit(place: &Place, more: &[&str]) -> Value {
    let command =
        ["regress", "table.csv", "--target", "y", "--evaluations", "20000", "--overwrite"];
    place.document(&[&command, more].concat())
}

fn law(document: &Value) -> (String, Expression) {
    let text = chosen(document, "shortest")["equation"].as_str().unwrap().to_string();
    let e = Expression::parse(&text, &["x"]).unwrap();
    (text, e)
}

/// Columns times a power of ten have the same law with another constant.
#[test]
fn laws_do_not_depend_on_scales() {
    let place = Place::new();
    for power in [-60, -31, -8, 0, 7, 33, 60] {
        for inputs in [false, true] {
            let unit = 10f64.powi(power);
            let [a, b] = if inputs { [unit, 1.0] } else { [1.0, unit] };
            write(&place, 120, 12, |x, _| [a * x, b * (2.5 * x * x + 3.0)]);
            let (text, e) = law(&fit(&place, &[]));
            for x in [1.3f64, 4.2] {
                let expected = b * (2.5 * x * x + 3.0);
                let found = e.eval(&[a * x]);
                assert!((found / expected - 1.0).abs() < 1e-9, "{power} {text}");
            }
            assert!(e.nodes().len() <= 9, "{power} {text}");
        }
    }
}

#[test]
fn what_is_small_beside_an_offset_is_not_lost() {
    let place = Place::new();
    write(&place, 120, 15, |x, _| [x, 1e7 + 0.01 * x * x]);
    let (text, e) = law(&fit(&place, &[]));
    assert!((e.eval(&[3.0]) - (1e7 + 0.09)).abs() < 1e-6, "{text}");
    write(&place, 120, 15, |x, _| [1.7e9 + 1e4 * x, 3.5 * x]);
    let (text, e) = law(&fit(&place, &[]));
    assert!((e.eval(&[1.7e9 + 2e4]) - 7.0).abs() < 1e-6, "{text}");
    assert_eq!(text, "0.00035 * (x - 1700000000)");
}

/// The data have nine digits: what a longer formula gains beyond them is none of the front.
#[test]
fn the_front_ends_where_rounding_begins() {
    let place = Place::new();
    write(&place, 200, 8, |x, _| [x, 6.626e-34 * x * x]);
    let document = fit(&place, &[]);
    let front = document["front"].as_array().unwrap();
    let last = front.last().unwrap()["equation"].as_str().unwrap();
    assert_eq!(last, "6.626e-34 * x * x", "{document}");
    assert_eq!(front[0]["complexity"], 1, "the simplest is there: {document}");
}

#[test]
fn pi_has_its_name_and_noise_has_none() {
    let place = Place::new();
    write(&place, 200, 12, |x, _| [x, x / (2.0 * std::f64::consts::PI)]);
    assert_eq!(law(&fit(&place, &["-o", "pi"])).0, "1 / (2 * pi) * x");
    let laws = [place.read("pi/laws.py"), place.read("pi/laws.tex")];
    assert!(laws[0].contains("np.pi") && laws[1].contains(r"\pi"), "{laws:?}");
    write(&place, 200, 12, |x, random| [x, 0.1587 * x + 0.02 * random.normal()]);
    let text = law(&fit(&place, &[])).0;
    assert!(!text.contains("pi") && text.len() < 20, "{text}");
}

/// Under 10 % noise the law, and on few rows nothing that says more than they do.
#[test]
fn noise_is_no_part_of_a_law() {
    let place = Place::new();
    let truth = |x: f64| 2.0 * x + 3.0 * (-0.7 * x).exp();
    for rows in [30, 200] {
        write(&place, rows, 8, |x, random| [x, 3.0 * x * x / (1.0 + x) + 0.25 * random.normal()]);
        let document = fit(&place, &[]);
        let (text, e) = law(&document);
        let error = |x: f64| (e.eval(&[x]) - 3.0 * x * x / (1.0 + x)).abs();
        let mean = (0..50).map(|k| error(1.0 + 0.08 * f64::from(k))).sum::<f64>() / 50.0;
        assert!(mean < 0.12, "{rows} {text} {mean}");
        assert!(e.nodes().len() <= 11, "{rows} {text}");
    }
    write(&place, 400, 8, |x, random| [x, truth(x) + 0.05 * random.normal()]);
    let (text, e) = law(&fit(&place, &[]));
    let worst = (0..50).map(|k| 1.0 + 0.08 * f64::from(k));
    let worst = worst.map(|x| (e.eval(&[x]) - truth(x)).abs()).fold(0.0, f64::max);
    assert!(worst < 0.1, "{text} {worst}");
}

#[test]
fn numbers_that_single_precision_cannot_hold_together_are_an_error() {
    let place = Place::new();
    let mut text = "x,y\n".to_string();
    for k in 0..60 {
        text += &format!("{:e},{k}\n", 10f64.powi(3 * k - 90));
    }
    place.write("table.csv", &text);
    let error = place.error(&["regress", "table.csv", "--target", "y"]);
    assert_eq!((error["field"].as_str(), error["kind"].as_str()), (Some("x"), Some("input")));
    assert!(error["message"].as_str().unwrap().contains("take the logarithm"), "{error}");
}
