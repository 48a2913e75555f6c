//! The sections of a regression of a table: the evidence for its laws.

use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::page::{Page, escape, number, table};
use super::plot::{Colour, Mark, Plot, Series};
use crate::error::{Error, Result};
use crate::store::run::RunFolder;
use crate::symbolic::evidence::{Null, Points, interval_text, share};
use crate::symbolic::job::RESULT;

/// File with the rows to plot: a list with an entry for each target that has a law.
pub const POINTS: &str = "points.json";

const PANEL: (u32, u32) = (420, 380);
/// Dots in each plot of residuals; there are several such plots.
const RESIDUALS: usize = 1000;

/// One entry of [`POINTS`].
#[derive(Deserialize)]
struct Drawn {
    target: String,
    #[serde(flatten)]
    points: Points,
}

/// The part of `fit.json` that is needed, for one target.
#[derive(Deserialize)]
struct Fit {
    target: String,
    evidence: Option<Evidence>,
}

/// The evidence for a law.
#[derive(Deserialize)]
struct Evidence {
    measure: String,
    unseen: String,
    rows: usize,
    law: Quality,
    constants: Vec<Constant>,
    baselines: Baselines,
    null: Option<Null>,
}

/// Errors of models that do not use the law, on the same rows.
#[derive(Deserialize)]
struct Baselines {
    constant: BestConstant,
    linear: Quality,
}

#[derive(Deserialize)]
struct BestConstant {
    is: String,
    #[serde(flatten)]
    quality: Quality,
}

/// Null if not a number.
#[derive(Deserialize)]
struct Quality {
    error: Option<f64>,
    r2: Option<f64>,
    #[serde(default)]
    invalid: usize,
}

#[derive(Deserialize)]
struct Constant {
    value: f64,
    interval: Option<[f64; 2]>,
    why: Option<String>,
}

/// Adds the sections that only the regression of a table has.
pub(super) fn all(folder: &RunFolder, page: &mut Page) -> Result<()> {
    let fits: Option<Value> = read(&folder.file(RESULT))?;
    if let Some(fits) = fits {
        let list = match &fits["targets"] {
            Value::Array(list) => list.clone(),
            _ => vec![fits],
        };
        let fits: Vec<Fit> = serde_json::from_value(Value::Array(list))
            .map_err(|e| broken(&folder.file(RESULT), e))?;
        page.optional("evidence", "Evidence", evidence(&fits));
    }
    let drawn: Option<Vec<Drawn>> = read(&folder.file(POINTS))?;
    let drawn = drawn.unwrap_or_default();
    for Drawn { target, points } in &drawn {
        let lengths = points.inputs.iter().map(|(_, values)| values.len());
        if lengths.chain([points.predicted.len()]).any(|length| length != points.observed.len()) {
            let message = "has columns of different lengths".to_string();
            return Err(Error::input(message).file(folder.file(POINTS)).field(target));
        }
    }
    page.optional("prediction", "Prediction against target", predictions(&drawn));
    page.optional("residuals", "Residuals", residuals(&drawn));
    Ok(())
}

fn broken(path: &Path, error: serde_json::Error) -> Error {
    Error::input(format!("cannot be read: {error}")).file(path)
}

/// Reads a JSON file; `None` if it does not exist.
fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match std::fs::read_to_string(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("read", path, e)),
        Ok(text) => serde_json::from_str(&text).map(Some).map_err(|e| broken(path, e)),
    }
}

fn evidence(fits: &[Fit]) -> Option<String> {
    let mut html = String::new();
    for (fit, evidence) in fits.iter().filter_map(|fit| Some((fit, fit.evidence.as_ref()?))) {
        if fits.len() > 1 {
            html.push_str(&format!("<h3>{}</h3>\n", escape(&fit.target)));
        }
        let rows = evidence.rows;
        let text = match evidence.unseen.as_str() {
            "held out" => format!(
                "<p>On the {rows} rows held out from the search: the law as it stands, and two models \
                 that do not use it, fitted to the other rows.</p>\n"
            ),
            _ => "<p>Fivefold cross-validation: each fifth of the rows is predicted by the law with its constants \
                  fitted to the other rows. The two models that do not use the law are fitted to the same rows.</p>\n"
                .to_string(),
        };
        html.push_str(&text);
        let row = |name: &str, quality: &Quality, law| {
            let error = quality.error.map_or("–".to_string(), number);
            let r2 = quality.r2.map_or("–".to_string(), share);
            (law, vec![escape(name), error, r2])
        };
        let Baselines { constant, linear } = &evidence.baselines;
        let names = ["model".to_string(), format!("#{}", evidence.measure), "#R²".to_string()];
        html.push_str(&table(
            &names.each_ref().map(String::as_str),
            &[
                row("law", &evidence.law, true),
                row(&constant.is, &constant.quality, false),
                row("linear model of all inputs", linear, false),
            ],
        ));
        if evidence.law.invalid > 0 {
            let invalid = evidence.law.invalid;
            html.push_str(&format!("<p>The law is undefined in {invalid} of {rows} rows.</p>\n"));
        }
        if let Some(text) = evidence.null.as_ref().map(Null::text) {
            html.push_str(&format!(
                "<p>{text}, by a formula of at most the same complexity: the same search with the values of the target \
                 shuffled.</p>\n"
            ));
        }
        let constant = |constant: &Constant| {
            let interval = constant.interval.map(|ends| interval_text(constant.value, ends));
            let about = interval.or(constant.why.clone()).unwrap_or_default();
            (false, vec![crate::formula::print::number(constant.value), escape(&about)])
        };
        if !evidence.constants.is_empty() {
            let rows: Vec<_> = evidence.constants.iter().map(constant).collect();
            html.push_str(&table(&["#constant", "95 % confidence interval"], &rows));
        }
    }
    (!html.is_empty()).then_some(html)
}

fn dots(points: Vec<(f64, f64)>) -> Series {
    Series { label: String::new(), colour: Colour::Series(0), mark: Mark::Dots, points }
}

fn predictions(drawn: &[Drawn]) -> Option<String> {
    let panel = |Drawn { target, points }: &Drawn| {
        let pairs: Vec<(f64, f64)> =
            points.observed.iter().copied().zip(points.predicted.iter().copied()).collect();
        let (low, high) = points
            .observed
            .iter()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &y| (low.min(y), high.max(y)));
        let plot = Plot {
            title: format!("Prediction of {target} against {target}"),
            x: target.clone(),
            y: "law".into(),
            log: false,
            equal: false,
            size: PANEL,
            series: vec![Series::diagonal(low, high), dots(pairs)],
        };
        plot.figure()
    };
    let panels: Vec<String> = drawn.iter().filter_map(panel).collect();
    let text = "<p>Each dot is a row of the table (a random sample if there are many). On the line, the law predicts the target exactly.</p>";
    (!panels.is_empty()).then(|| format!("{text}<div class=\"panels\">{}</div>", panels.concat()))
}

fn residuals(drawn: &[Drawn]) -> Option<String> {
    let mut panels = String::new();
    for Drawn { target, points } in drawn {
        let residuals: Vec<f64> =
            points.observed.iter().zip(&points.predicted).map(|(y, law)| y - law).collect();
        for (name, values) in &points.inputs {
            let pairs = values.iter().copied().zip(residuals.iter().copied()).take(RESIDUALS);
            let plot = Plot {
                title: format!("Residuals of {target} against {name}"),
                x: name.clone(),
                y: format!("{target} − law"),
                log: false,
                equal: false,
                size: PANEL,
                series: vec![dots(pairs.collect())],
            };
            panels.push_str(&plot.figure().unwrap_or_default());
        }
    }
    let text =
        "<p>Target minus prediction against each input. A pattern shows what the law misses.</p>";
    (!panels.is_empty()).then(|| format!("{text}<div class=\"panels\">{panels}</div>"))
}
