//! Evidence compared with closed forms: the least-squares line, coverage, baselines, and shuffled targets.

use super::*;
use crate::device::Device;
use crate::ops::expression::Loss;
use crate::store::table::Table;
use crate::symbolic::fit::regress;
use crate::symbolic::front::Front;
use crate::symbolic::options::Options;

/// y = 1.7 x − 0.6 with noise.
fn line(rows: usize, stream: u64, noise: f64) -> Data {
    let mut random = Random::new(3, stream);
    let x: Vec<f64> = (0..rows).map(|_| 2.0 * random.normal()).collect();
    let y = x.iter().map(|x| 1.7 * x - 0.6 + noise * random.normal()).collect();
    Data { columns: vec![x], targets: vec![y], ..Data::default() }
}

/// Slope and offset of weighted least squares, and their standard deviations.
fn closed_form(data: &Data) -> [(f64, f64); 2] {
    let (x, y) = (&data.columns[0], &data.targets[0]);
    let sum =
        |of: &dyn Fn(usize) -> f64| -> f64 { (0..x.len()).map(|k| data.weight(k) * of(k)).sum() };
    let (s, sx, sy) = (sum(&|_| 1.0), sum(&|k| x[k]), sum(&|k| y[k]));
    let (sxx, sxy) = (sum(&|k| x[k] * x[k]), sum(&|k| x[k] * y[k]));
    let determinant = s * sxx - sx * sx;
    let slope = (s * sxy - sx * sy) / determinant;
    let offset = (sxx * sy - sx * sxy) / determinant;
    let squares = sum(&|k| (y[k] - slope * x[k] - offset).powi(2));
    let variance = squares / (x.len() as f64 - 2.0);
    [(slope, (variance * s / determinant).sqrt()), (offset, (variance * sxx / determinant).sqrt())]
}

fn parse(text: &str) -> Expression {
    Expression::parse(text, &["x"]).unwrap()
}

fn settings(loss: Loss) -> Settings {
    Settings { loss, ..Settings::default() }
}

/// What is known about the constants of a formula; with `fit` they are fitted to all rows first.
fn known(text: &str, data: &Data, settings: &Settings, fit: bool) -> Vec<(f64, Known)> {
    let measure = Measure::new(settings);
    let rows: Vec<usize> = (0..data.targets[0].len()).collect();
    let mut expression = parse(text);
    let mut formula = Formula::new(&expression, 1);
    if fit {
        let all: Vec<usize> = (0..formula.constants.len()).collect();
        expression.set_constants(&formula.refitted(data, &data.targets[0], &rows, &all, &measure));
        formula = Formula::new(&expression, 1);
    }
    let found = intervals(&formula, data, &data.targets[0], &rows, rows.len(), &measure);
    formula.constants.iter().copied().zip(found.known).collect()
}

fn ends(known: Known) -> [f64; 2] {
    let Known::Within(ends) = known else { panic!("{known:?}") };
    ends
}

#[test]
fn intervals_are_those_of_a_line_of_least_squares() {
    let mut data = line(22, 0, 0.3);
    for weights in [None, Some((0..22).map(|k| 0.5 + f64::from(k % 3)).collect())] {
        data.weights = weights;
        let exact = closed_form(&data);
        let found = known("1.5 * x + 0.3", &data, &settings(Loss::Mse), true);
        for ((value, known), (wanted, deviation)) in found.into_iter().zip(exact) {
            let [low, high] = ends(known);
            assert!((value - wanted).abs() < 1e-6, "{value} {wanted}");
            // The 0.975 quantile of Student's t with 20 degrees of freedom.
            let half = 2.085_963 * deviation;
            assert!(((high - low) / 2.0 / half - 1.0).abs() < 1e-4, "{low} {high} {half}");
        }
    }
}

/// 95 % means 95 %: 400 intervals from 200 tables.
#[test]
fn intervals_cover_the_truth() {
    for (loss, rows) in [(Loss::Mse, 8), (Loss::Mse, 40), (Loss::Mae, 40), (Loss::Mae, 150)] {
        let mut inside = 0;
        for stream in 0..200 {
            let data = line(rows, stream, 0.5);
            let found = known("1.5 * x - 0.3", &data, &settings(loss), true);
            for ((_, known), truth) in found.into_iter().zip([1.7, 0.6]) {
                let [low, high] = ends(known);
                inside += usize::from((low..high).contains(&truth));
            }
        }
        let share = f64::from(inside as u32) / 400.0;
        assert!((0.90..=0.99).contains(&share), "{loss:?} {rows}: {share}");
    }
}

#[test]
fn a_loss_of_ones_own_has_intervals_where_it_is_curved() {
    let options = |loss: &str| Options { loss: loss.into(), ..Options::default() };
    let settings = |loss: &str| options(loss).settings(&[], &[], 0).unwrap();
    let data = line(400, 1, 0.3);
    let square = known("1.7 * x - 0.61", &data, &self::settings(Loss::Mse), true);
    let own = known("1.7 * x - 0.61", &data, &settings("(prediction - target)^2"), true);
    let huber = known("1.7 * x - 0.61", &data, &settings("huber:0.3"), true);
    for ((own, huber), square) in own.into_iter().zip(huber).zip(square) {
        let width = |known: Known| ends(known)[1] - ends(known)[0];
        assert!((own.0 - square.0).abs() < 1e-6);
        // Robust against noise that depends on x, and therefore not quite the same.
        assert!((width(own.1) / width(square.1) - 1.0).abs() < 0.15);
        assert!((width(huber.1) / width(square.1) - 1.05).abs() < 0.2);
    }
    let quantile = known("1.7 * x - 0.61", &data, &settings("quantile:0.8"), false);
    assert!(quantile.iter().all(|(_, known)| *known == Known::Undetermined));
}

#[test]
fn constants_that_say_the_same_are_not_determined() {
    let mut data = line(100, 2, 0.1);
    data.columns[0].iter_mut().for_each(|x| *x = x.abs() + 0.1);
    let settings = settings(Loss::Mse);
    let of = |text: &str| -> Vec<Known> {
        known(text, &data, &settings, false).into_iter().map(|(_, known)| known).collect()
    };
    let within = |known: Known| matches!(known, Known::Within(_));
    let found = of("2.13 * (1.7 * x - 0.637)");
    assert_eq!(found, [Known::Undetermined; 3]);
    let found = of("2.13 * (1 - 1.3071 / x)");
    assert!(within(found[0]) && found[1] == Known::Exact && within(found[2]), "{found:?}");
    let found = of("2.13 * x^2 + IF(x > 0.771, x, 0.1234)");
    assert!(within(found[0]) && within(found[1]) && within(found[3]), "{found:?}");
    assert_eq!(found[2], Known::Flat);
    // A negative base has no value for exponents next to a whole one.
    let negative = line(100, 2, 0.1);
    let found = known("1.7 * x^2 - 0.6", &negative, &settings, false);
    assert_eq!(found[1].1, Known::Exact);
}

fn judged(data: &Data, formula: &str, settings: &Settings) -> Evidence {
    let front = Front::new(vec![(1, 1.0, parse(formula))]);
    Evidence::new(data, &data.targets[0], &["x".to_string()], &front, 0, settings)
}

#[test]
fn errors_are_those_of_rows_that_were_not_fitted() {
    let noise: f64 = 0.4;
    let data = line(4000, 5, noise);
    let spread: f64 = 1.7 * 2.0;
    let near =
        |found: f64, wanted: f64| assert!((found / wanted - 1.0).abs() < 0.06, "{found} {wanted}");
    let found = judged(&data, "1.71 * x - 0.59", &settings(Loss::Mse));
    assert_eq!((found.rows, found.measure, found.held_out), (4000, "rms error", false));
    near(found.law.unseen.error, noise);
    near(found.linear.error, noise);
    near(found.constant.error, spread.hypot(noise));
    near(found.law.unseen.r2, 1.0 - (noise / spread.hypot(noise)).powi(2));
    assert!(found.constant.r2.abs() < 0.01 && found.constant.r2 < 0.0);
    let found = judged(&data, "1.71 * x - 0.59", &settings(Loss::Mae));
    // The mean absolute value of normal noise.
    near(found.law.unseen.error, 0.798 * noise);
    near(found.constant.error, 0.798 * spread.hypot(noise));
    assert_eq!((found.measure, found.constant_is), ("mean absolute error", "median"));
    assert_eq!(found.points.predicted.len(), DRAWN);
    assert_eq!(found.points.inputs[0].0, "x");
}

/// Constants that follow noise look better on the rows they are fitted to.
#[test]
fn a_polynomial_through_noise_is_found_out() {
    let mut random = Random::new(1, 1);
    let x: Vec<f64> = (0..12).map(|k| f64::from(k) / 6.0 - 0.9).collect();
    let y = x.iter().map(|_| random.normal()).collect();
    let data = Data { columns: vec![x], targets: vec![y], ..Data::default() };
    let found = judged(
        &data,
        "0.1 + x * (0.1 + x * (0.1 + x * (0.1 + x * (0.1 + x * (0.1 + 0.1 * x)))))",
        &settings(Loss::Mse),
    );
    assert!(found.law.unseen.r2 < 0.0, "{:?}", found.law.unseen);
    assert!(found.law.unseen.error > found.constant.error);
}

#[test]
fn rows_that_are_held_out_judge_the_law_as_it_stands() {
    let mut data = line(100, 6, 0.0);
    data.held = Some((0..100).map(|row| row % 4 == 0).collect());
    // The other losses would not be refitted to this.
    let found = judged(&data, "1.7 * x + 0.4", &settings(Loss::Mae));
    assert_eq!((found.rows, found.held_out), (25, true));
    assert!((found.law.unseen.error - 1.0).abs() < 1e-9);
    assert!(found.linear.error < 1e-9);
    // Rows of weight zero do not count.
    data.weights = Some((0..100).map(|row| f64::from(u8::from(row % 8 != 0))).collect());
    assert_eq!(judged(&data, "1.7 * x + 0.4", &settings(Loss::Mae)).rows, 12);
}

#[test]
fn intervals_read_well() {
    assert_eq!(interval_text(2.50342, [2.4911, 2.5157]), "2.491 to 2.516");
    assert_eq!(interval_text(1.5e8, [1.482e8, 1.518e8]), "1.482e8 to 1.518e8");
    assert_eq!(interval_text(120.0, [-20.0, 260.0]), "-20 to 260");
    assert_eq!(interval_text(2.0, [2.0 - 1.5e-8, 2.0 + 1.5e-8]), "1.999999985 to 2.000000015");
    assert_eq!(interval_text(2.0, [2.0 - 1e-14, 2.0 + 1e-14]), "exact to rounding");
    let texts = [0.5, 0.99998, 1.0, -0.0123, f64::NAN].map(share);
    assert_eq!(texts, ["0.500", "0.999980", "1.0000000", "-0.012", "none"]);
    assert_eq!([1.2345, 0.0, 123456.0, 1e-7].map(size), ["1.23", "0", "123456", "1.00e-7"]);
}

/// A true law, and noise in its place.
#[test]
fn shuffled_targets_are_fitted_as_well_as_noise() {
    let mut random = Random::new(5, 0);
    let columns: Vec<Vec<f64>> =
        (0..3).map(|_| (0..60).map(|_| random.normal()).collect()).collect();
    let law = (0..60).map(|k| columns[0][k] * columns[1][k] + 0.1 * random.normal()).collect();
    let noise = (0..60).map(|_| random.normal()).collect();
    let names = ["a", "b", "law", "noise"].map(String::from).to_vec();
    let table = Table::new(names, vec![columns[0].clone(), columns[1].clone(), law, noise]);
    let options = Options {
        target: ["law", "noise"].map(String::from).to_vec(),
        inputs: ["a", "b"].map(String::from).to_vec(),
        evaluations: Some(600),
        islands: 2,
        null: Some(8),
        ..Options::default()
    };
    let found = regress(&Device::cpu(), table, options, 0, &()).unwrap();
    let null = |k: usize| found.evidence[k].as_ref().unwrap().null.unwrap();
    assert_eq!((null(0).shuffled, null(0).as_well), (8, 0));
    assert!(null(1).as_well >= 1, "{:?} {:?}", null(1), found.text(1));
}
