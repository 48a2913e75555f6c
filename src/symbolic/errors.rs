//! Standard errors of target and inputs as weights of the rows.
//!
//! A row weighs 1/σ² under mse and 1/σ under mae. With errors of inputs, σ² is the effective variance σ_y² +
//! Σ (∂f/∂x σ_x)² (Orear 1982, Am. J. Phys. 50, 912), with the slopes of the law that a short search finds without
//! them.

use std::slice;

use super::columns::Columns;
use super::front::Select;
use super::refit::Data;
use super::search::{Problem, Settings, search};
use crate::error::{Error, Result};
use crate::formula::expression::Expression;
use crate::observer::Observer;
use crate::ops::expression::{Evaluator, Loss};
use crate::store::table::Table;

/// Formulas considered for the law that gives the slopes: a fixed number, so that a resumed search has the same weights.
const FIRST_LAW: u64 = 20_000;

/// Standard errors of a table with a single target.
pub(super) struct StandardErrors {
    /// `[row]`
    target: Vec<f64>,
    /// Of inputs, by name: `[row]` each.
    inputs: Vec<(String, Vec<f64>)>,
}

impl StandardErrors {
    /// Those that the options name, for the inputs `names`; `None` if they name none.
    ///
    /// # Errors
    /// A missing column; an error of 0 or less; an error of what is no input.
    pub fn new(ready: &Columns, names: &[String]) -> Result<Option<Self>> {
        let Columns { table, options, .. } = ready;
        let Some(name) = &options.sigma else { return Ok(None) };
        let target = column(table, name, |error| error > 0.0, "larger than 0")?;
        let mut inputs = Vec::new();
        for (input, name) in options.errors_of_inputs()? {
            if !names.contains(&input) {
                let message = format!("'{input}' is not a column that formulas may use");
                return Err(Error::usage(message).field("x-sigma"));
            }
            inputs.push((input, column(table, &name, |error| error >= 0.0, "0 or more")?));
        }
        Ok(Some(StandardErrors { target, inputs }))
    }

    /// Weights from the errors of the target alone.
    ///
    /// # Errors
    /// The row whose error is too far from the others, with the file and column.
    pub fn weights(&self, ready: &Columns, loss: Loss) -> Result<Vec<f32>> {
        let Columns { table, options, .. } = ready;
        weights(&self.target, loss).map_err(|row| {
            let message = "is too far from the other standard errors for single precision";
            let error = Error::input(message).file(&table.path);
            let error = error.field(options.sigma.as_deref().unwrap_or_default());
            error.row(table.row_number(row))
        })
    }

    /// Gives the rows the weights of the effective variance, if there are errors of inputs.
    ///
    /// # Errors
    /// Those of the search.
    pub fn reweigh(
        &self,
        evaluator: &Evaluator,
        problem: &mut Problem,
        data: &mut Data,
        settings: &Settings,
        select: Select,
        observer: &dyn Observer,
    ) -> Result<()> {
        if self.inputs.is_empty() {
            return Ok(());
        }
        let short = Settings {
            evaluations: Some(FIRST_LAW),
            seconds: None,
            target_loss: None,
            ..settings.clone()
        };
        let found =
            search(evaluator, slice::from_ref(problem), &short, None, observer, &mut |_| {})?;
        let front = &found[0].front;
        let Some(chosen) = front.select(select) else { return Ok(()) };
        let law = &front.entries[chosen].expression;
        observer.note(&format!(
            "errors of inputs: rows are weighted by the slopes of {}",
            law.text(&problem.names)
        ));
        let errors = self.effective(law, &problem.names, data);
        // As far from the others as the slopes say, but within single precision.
        let weights = weights(&errors, settings.loss).unwrap_or_else(|_| {
            weights(&self.target, settings.loss).expect("checked before the search")
        });
        let of = |wanted: bool| {
            let held = |row: &usize| data.held.as_ref().is_some_and(|held| held[*row]) == wanted;
            (0..weights.len()).filter(held).map(|row| weights[row]).collect::<Vec<f32>>()
        };
        problem.weights = Some(of(false));
        if let Some(rest) = &mut problem.rest {
            rest.weights = Some(of(true));
        }
        data.weights = Some(weights.into_iter().map(f64::from).collect());
        Ok(())
    }

    /// The standard error of target − law in each row.
    fn effective(&self, law: &Expression, names: &[String], data: &Data) -> Vec<f64> {
        // Of inputs that the search may use.
        let slope = |(input, errors): &(String, Vec<f64>)| {
            let index = names.iter().position(|name| name == input)?;
            Some((law.derivative(index as u16), errors.clone()))
        };
        let slopes: Vec<(Expression, Vec<f64>)> = self.inputs.iter().filter_map(slope).collect();
        let of = |row: usize| {
            let values: Vec<f64> = data.columns.iter().map(|column| column[row]).collect();
            let terms = slopes.iter();
            let terms = terms.map(|(slope, errors)| (slope.eval(&values) * errors[row]).powi(2));
            let sum = self.target[row].powi(2) + terms.filter(|t| t.is_finite()).sum::<f64>();
            sum.sqrt()
        };
        (0..self.target.len()).map(of).collect()
    }
}

/// Weights of these standard errors, or the row whose weight is beyond single precision.
fn weights(errors: &[f64], loss: Loss) -> std::result::Result<Vec<f32>, usize> {
    // Only ratios count: relative to their geometric mean they are within single precision.
    let mean = errors.iter().map(|error| error.ln()).sum::<f64>() / errors.len() as f64;
    let power = if loss == Loss::Mse { 2.0 } else { 1.0 };
    let weight = |error: &f64| (power * (mean - error.ln())).exp() as f32;
    let weights: Vec<f32> = errors.iter().map(weight).collect();
    match weights.iter().position(|w| !w.is_finite()) {
        Some(row) => Err(row),
        None => Ok(weights),
    }
}

/// A column of standard errors.
fn column(table: &Table, name: &str, valid: fn(f64) -> bool, range: &str) -> Result<Vec<f64>> {
    if table.find(name).is_none() && !table.unreadable.iter().any(|(other, _)| other == name) {
        return Err(Error::usage(table.missing_column_message()).file(&table.path).field(name));
    }
    let errors = table.column(name)?;
    if let Some(row) = errors.iter().position(|&error| !valid(error)) {
        let message = format!("a standard error must be {range}, not {}", errors[row]);
        let error = Error::input(message).file(&table.path).field(name);
        return Err(error.row(table.row_number(row)));
    }
    Ok(errors.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_inputs_count_by_the_slope() {
        let law = Expression::parse("3 * x + y ^ 2", &["x", "y"]).unwrap();
        let errors = StandardErrors {
            target: vec![0.3, 0.4],
            inputs: vec![("x".into(), vec![0.1, 0.1]), ("y".into(), vec![0.0, 0.2])],
        };
        let data = Data { columns: vec![vec![5.0, 6.0], vec![7.0, 2.0]], ..Data::default() };
        let found = errors.effective(&law, &["x".into(), "y".into()], &data);
        assert!((found[0] - 0.18f64.sqrt()).abs() < 1e-12, "{found:?}");
        assert!((found[1] - (0.16f64 + 0.09 + 0.64).sqrt()).abs() < 1e-12, "{found:?}");
        let [mse, mae] = [Loss::Mse, Loss::Mae].map(|loss| weights(&[0.1, 0.2], loss).unwrap());
        assert!((mse[0] / mse[1] - 4.0).abs() < 1e-5 && (mae[0] / mae[1] - 2.0).abs() < 1e-5);
        assert_eq!(weights(&[1e-60, 1.0, 1.0], Loss::Mse), Err(0));
    }
}
