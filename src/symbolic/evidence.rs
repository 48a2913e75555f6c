//! Evidence for a law: intervals of its constants, its error on rows that they were not fitted to, the errors of a
//! constant and of a linear model there, and how often shuffled targets are fitted as well.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::front::Front;
pub use super::intervals::Known;
use super::intervals::intervals;
pub use super::null::Null;
use super::refit::{Cholesky, Data, Formula, Measure, add_square};
use super::settings::Settings;
use crate::formula::expression::{Expression, Node};
use crate::formula::print::number;
use crate::random::Random;

/// Number of parts of the rows; each is judged with constants fitted to the others.
const FOLDS: usize = 5;
/// Most rows for refitting constants, and the most a refit may cost: nodes times rows.
const FITTED: usize = 2000;
const COST: usize = 2_000_000;
/// The most that intervals may cost: nodes plus squared number of constants, times rows.
const INTERVAL_COST: usize = 400_000_000;
/// The most that a linear model may cost: squared number of inputs times rows.
const LINEAR_COST: usize = 100_000_000;
/// Longer tables have evidence for the law only, not for every formula of the front.
const ROWS_OF_FRONTS: usize = 20_000;
/// Rows and inputs kept for plots.
const DRAWN: usize = 2000;
const INPUTS: usize = 6;
/// Constants shown on a terminal; a number for each of many groups would fill it.
const SHOWN: usize = 12;
/// A relative half-width below this is rounding of double precision.
const ROUNDING: f64 = 1e-12;

/// How well predictions fit some rows.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Quality {
    /// In the measure [`Evidence::measure`], in the units of the target.
    pub error: f64,
    /// The share of the variance explained.
    pub r2: f64,
}

/// One formula of a front.
#[derive(Clone, Debug)]
pub struct Judged {
    /// Its constants in the order in which they are written, and what is known about each.
    pub constants: Vec<(f64, Known)>,
    /// On rows that its constants were not fitted to.
    pub unseen: Quality,
    /// Rows among them in which it has no value; the qualities are for the others.
    pub invalid: usize,
}

/// Some rows to plot, from those that the search saw.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Points {
    /// Names and values of a few inputs, those of the law first.
    pub inputs: Vec<(String, Vec<f64>)>,
    /// The target.
    pub observed: Vec<f64>,
    /// The prediction of the law.
    pub predicted: Vec<f64>,
}

/// The evidence for and against a law.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// The measure of errors: `mean absolute error`, `rms error`, `mean loss`.
    pub measure: &'static str,
    /// What the best constant is: `median`, `mean`, `best constant`.
    pub constant_is: &'static str,
    /// True if rows were held out, false if each fifth was judged with constants fitted to the others.
    pub held_out: bool,
    /// Rows judged.
    pub rows: usize,
    /// The law.
    pub law: Judged,
    /// The best constant, on the same rows.
    pub constant: Quality,
    /// The linear model of all inputs, fitted by least squares, on the same rows.
    pub linear: Quality,
    /// The formulas of the front; empty if the table is long.
    pub front: Vec<Judged>,
    /// How well shuffled targets are fitted, if requested.
    pub null: Option<Null>,
    /// Some rows to plot.
    pub points: Points,
}

/// Rows to fit to, and rows to judge on.
struct Split {
    fit: Vec<usize>,
    judge: Vec<usize>,
}

/// Everything needed to judge formulas.
struct Judge<'a> {
    data: &'a Data,
    target: &'a [f64],
    measure: &'a Measure,
    /// Rows that the search saw, in random order.
    seen: Vec<usize>,
    splits: Vec<Split>,
    held_out: bool,
}

impl<'a> Judge<'a> {
    fn new(data: &'a Data, target: &'a [f64], measure: &'a Measure, seed: u64) -> Self {
        let mut rows: Vec<usize> =
            (0..target.len()).filter(|&row| data.weight(row) > 0.0).collect();
        let mut random = Random::new(seed, 9 << 40);
        for at in 1..rows.len() {
            rows.swap(at, random.below(at + 1));
        }
        let held = |row: &usize| data.held.as_ref().is_some_and(|held| held[*row]);
        let (judge, seen): (Vec<usize>, Vec<usize>) = rows.into_iter().partition(held);
        let held_out = !judge.is_empty();
        let splits = if held_out {
            vec![Split { fit: seen.clone(), judge }]
        } else {
            let folds = FOLDS.min(seen.len());
            let part = |fold: usize, inside: bool| {
                let rows = seen.iter().enumerate();
                rows.filter(|(at, _)| (at % folds == fold) == inside).map(|(_, &r)| r).collect()
            };
            let split = |fold| Split { fit: part(fold, false), judge: part(fold, true) };
            (0..folds).map(split).collect()
        };
        Judge { data, target, measure, seen, splits, held_out }
    }

    /// Predictions for all judged rows; `fit` makes a predictor from the rows to fit to.
    fn predictions<P: Fn(usize) -> f64>(&self, fit: impl Fn(&[usize]) -> P) -> Vec<f64> {
        let predict = |split: &Split| {
            let model = fit(&split.fit);
            split.judge.iter().map(|&row| model(row)).collect::<Vec<f64>>()
        };
        self.splits.iter().flat_map(predict).collect()
    }

    /// The quality of predictions in the rows where `valid` is finite.
    fn quality(&self, predictions: &[f64], valid: &[f64]) -> Quality {
        let rows = self.splits.iter().flat_map(|split| &split.judge);
        let rows = rows.zip(predictions).zip(valid).filter(|(_, valid)| valid.is_finite());
        let rows: Vec<(f64, f64, f64)> = rows
            .map(|((&row, &predicted), _)| (predicted, self.target[row], self.data.weight(row)))
            .collect();
        let weights: f64 = rows.iter().map(|row| row.2).sum();
        let mean = rows.iter().map(|row| row.2 * row.1).sum::<f64>() / weights;
        let left: f64 = rows.iter().map(|row| row.2 * (row.1 - row.0).powi(2)).sum();
        let all: f64 = rows.iter().map(|row| row.2 * (row.1 - mean).powi(2)).sum();
        let error = self.measure.size(self.measure.mean(rows.into_iter()));
        Quality { error, r2: 1.0 - left / all }
    }

    /// Judges a formula, and returns its predictions for the judged rows.
    fn formula(&self, expression: &Expression) -> (Judged, Vec<f64>) {
        let formula = Formula::new(&expression.readable(), self.data.columns.len());
        let (nodes, p) = (formula.nodes(), formula.constants.len());
        // The order is random: the first are as good as any.
        let some = &self.seen[..(INTERVAL_COST / (nodes + p * p)).min(self.seen.len())];
        let (data, target, all) = (self.data, self.target, self.seen.len());
        let found = intervals(&formula, data, target, some, all, self.measure);
        let predictions = self.predictions(|rows| {
            let constants = if self.held_out {
                formula.constants.clone()
            } else {
                let most = FITTED.min(COST / nodes).max(10 * p);
                let rows = &rows[..most.min(rows.len())];
                formula.refitted(data, target, rows, &found.free, self.measure)
            };
            let formula = &formula;
            move |row| formula.value(&formula.at(self.data, row, &constants))
        });
        let unseen = self.quality(&predictions, &predictions);
        let invalid = predictions.iter().filter(|value| !value.is_finite()).count();
        let constants = formula.constants.iter().copied().zip(found.known).collect();
        (Judged { constants, unseen, invalid }, predictions)
    }

    /// The linear model of all inputs fitted to `rows`.
    fn linear<'b>(&'b self, rows: &[usize]) -> impl Fn(usize) -> f64 + use<'a, 'b> {
        let columns = &self.data.columns;
        let p = columns.len() + 1;
        let rows = &rows[..(LINEAR_COST / (p * p)).max(10 * p).min(rows.len())];
        let n = rows.len() as f64;
        // Centred and in units of their spread, so that squares neither underflow nor overflow.
        let measures = columns.iter().map(|column| {
            let mean = rows.iter().map(|&row| column[row] / n).sum::<f64>();
            let spread = rows.iter().map(|&row| (column[row] - mean).abs() / n).sum::<f64>();
            (mean, spread)
        });
        let measures: Vec<(f64, f64)> = measures.collect();
        let line = move |row: usize| -> Vec<f64> {
            let scaled = columns.iter().zip(&measures).map(|(column, (mean, spread))| {
                if *spread > 0.0 { (column[row] - mean) / spread } else { 0.0 }
            });
            [1.0].into_iter().chain(scaled).collect()
        };
        let (mut matrix, mut right) = (vec![vec![0.0; p]; p], vec![0.0; p]);
        for &row in rows {
            let (line, weight) = (line(row), self.data.weight(row));
            add_square(&mut matrix, &line, weight);
            let along = weight * self.target[row];
            right.iter_mut().zip(&line).for_each(|(sum, v)| *sum += along * v);
        }
        let factors = Cholesky::new(&matrix).solve(&right);
        move |row| line(row).iter().zip(&factors).map(|(v, factor)| v * factor).sum()
    }

    /// Some rows of the inputs called `names`, to plot.
    fn points(&self, law: &Expression, names: &[String]) -> Points {
        let used = law.nodes().iter().filter_map(|node| match node {
            Node::Variable(v) => Some(usize::from(*v)),
            _ => None,
        });
        let mut inputs: Vec<usize> = Vec::new();
        for input in used.chain(0..names.len()) {
            if !inputs.contains(&input) && inputs.len() < INPUTS {
                inputs.push(input);
            }
        }
        let formula = Formula::new(law, names.len());
        let value = |row: usize| formula.value(&formula.at(self.data, row, &formula.constants));
        let rows = self.seen.iter().take(DRAWN).map(|&row| (row, value(row)));
        let rows: Vec<(usize, f64)> = rows.filter(|row| row.1.is_finite()).collect();
        let column = |of: &[f64]| rows.iter().map(|&(row, _)| of[row]).collect();
        let named = |&input: &usize| (names[input].clone(), column(&self.data.columns[input]));
        Points {
            inputs: inputs.iter().map(named).collect(),
            observed: column(self.target),
            predicted: rows.iter().map(|row| row.1).collect(),
        }
    }
}

impl Evidence {
    /// The evidence for entry `chosen` of the front of `target`; `names` are those of its inputs.
    pub(super) fn new(
        data: &Data,
        target: &[f64],
        names: &[String],
        front: &Front,
        chosen: usize,
        settings: &Settings,
    ) -> Self {
        let measure = Measure::new(settings);
        let judge = Judge::new(data, target, &measure, settings.seed);
        let expression = &front.entries[chosen].expression;
        let (law, predictions) = judge.formula(expression);
        let weight = |row| data.weight(row);
        let constant = judge.predictions(|rows| {
            let value = measure.constant(target, weight, rows);
            move |_| value
        });
        let linear = judge.predictions(|rows| judge.linear(rows));
        let few = target.len() <= ROWS_OF_FRONTS;
        let entries = if few { &front.entries[..] } else { &[] };
        let judged = entries.par_iter().map(|entry| judge.formula(&entry.expression).0);
        Evidence {
            measure: measure.name(),
            constant_is: measure.constant_name(),
            held_out: judge.held_out,
            rows: predictions.len(),
            law,
            constant: judge.quality(&constant, &predictions),
            linear: judge.quality(&linear, &predictions),
            front: judged.collect(),
            null: None,
            points: judge.points(expression, names),
        }
    }

    /// The document for `--json`.
    pub fn document(&self) -> Value {
        let mut document = json!({
            "measure": self.measure,
            "unseen": if self.held_out { "held out" } else { "folds" },
            "rows": self.rows,
        });
        merge(&mut document, self.law.document());
        let mut constant = json!(self.constant);
        constant["is"] = json!(self.constant_is);
        document["baselines"] = json!({ "constant": constant, "linear": self.linear });
        if let Some(counted) = &self.null {
            document["null"] = json!(counted);
        }
        document
    }

    /// The same in a few lines of text.
    pub fn text(&self) -> String {
        let Evidence { measure, constant_is, rows, law, .. } = self;
        let mut lines = Vec::new();
        if !law.constants.is_empty() {
            let shown = law.constants.iter().take(SHOWN).map(constant_text);
            let more = law.constants.len().saturating_sub(SHOWN);
            let more = (more > 0).then(|| format!("and {more} more in --json"));
            let constants: Vec<String> = shown.chain(more).collect();
            lines.push(format!("constants, 95 %: {}", constants.join(", ")));
        }
        let unseen = match self.held_out {
            true => format!("{rows} held-out rows"),
            false => "rows that the constants were not fitted to (a fifth at a time)".to_string(),
        };
        let Quality { error, r2 } = law.unseen;
        let valueless = match law.invalid {
            0 => String::new(),
            count => format!("; no value in {count} of {rows} rows"),
        };
        lines.push(format!("{unseen}: {measure} {}, R² {}{valueless}", size(error), share(r2)));
        let other = |q: &Quality| format!("{} (R² {})", size(q.error), share(q.r2));
        let (constant, linear) = (other(&self.constant), other(&self.linear));
        lines.push(format!(
            "the same for the {constant_is}: {constant}, for a linear model of all inputs: {linear}"
        ));
        lines.extend(self.null.as_ref().map(Null::text));
        lines.join("\n")
    }
}

impl Judged {
    /// The part of the `--json` document about an entry of the front.
    pub fn document(&self) -> Value {
        let constant = |(value, known): &(f64, Known)| {
            let mut document = json!({ "value": value, "interval": null });
            match known {
                Known::Within(interval) => document["interval"] = json!(interval),
                other => document["why"] = json!(other.why()),
            }
            document
        };
        let constants: Vec<Value> = self.constants.iter().map(constant).collect();
        let mut document = json!({ "law": self.unseen, "constants": constants });
        if self.invalid > 0 {
            document["law"]["invalid"] = json!(self.invalid);
        }
        document
    }
}

fn merge(document: &mut Value, more: Value) {
    if let (Value::Object(all), Value::Object(more)) = (document, more) {
        all.extend(more);
    }
}

/// A constant as printed, and its interval.
fn constant_text((value, known): &(f64, Known)) -> String {
    let about = match known {
        Known::Within([low, high]) => interval_text(*value, [*low, *high]),
        other => other.why().to_string(),
    };
    format!("{} ({about})", number(*value))
}

/// An interval with two digits of its width.
pub fn interval_text(value: f64, [low, high]: [f64; 2]) -> String {
    let half = (high - low) / 2.0;
    if half <= ROUNDING * value.abs() {
        return "exact to rounding".to_string();
    }
    let (size, least) = (low.abs().max(high.abs()).log10().floor(), half.log10().floor());
    if (-4.0..6.0).contains(&size) {
        let digits = (1.0 - least).max(0.0) as usize;
        format!("{low:.digits$} to {high:.digits$}")
    } else {
        let digits = (size - least + 1.0).max(0.0) as usize;
        format!("{low:.digits$e} to {high:.digits$e}")
    }
}

/// An error, with three digits.
fn size(value: f64) -> String {
    let digits = (2.0 - value.abs().log10().floor()).max(0.0) as usize;
    match value.abs() {
        0.0 => "0".to_string(),
        size if (1e-4..1e6).contains(&size) => format!("{value:.digits$}"),
        _ => format!("{value:.2e}"),
    }
}

/// A share of the variance, with two digits of the remainder.
pub fn share(r2: f64) -> String {
    let digits = (1.0 - (1.0 - r2).log10().floor()).clamp(3.0, 7.0);
    if r2.is_finite() { format!("{r2:.*}", digits as usize) } else { "none".to_string() }
}

#[cfg(test)]
#[path = "evidence_tests.rs"]
mod tests;
