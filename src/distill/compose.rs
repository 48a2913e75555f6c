//! `compose`: expressions into the place of φe and φv, and the joint refit of all their constants on the
//! original data.

use super::laws::{NODE, Search, search};
use super::messages::Table;
use super::run::{Compute, Predictor, Run};
use super::summary::Summary;
use crate::error::Result;
use crate::network::system::Measure;

/// Searches laws for φv, puts them and those of the messages in the place of the network and refits all
/// constants.
///
/// # Errors
/// Files of the run that cannot be read; laws that are undefined on the data; `interrupted`.
pub fn compose(at: Compute, run: &Run, how: Search) -> Result<Summary> {
    let Run { folder, physics } = run;
    let table = Table::read(folder)?;
    let laws = physics.laws(folder, &table, how.select)?;
    let problems = physics.node_problems(at, &table, &laws)?;
    let targets = physics.terms().outputs;
    let nodes = search(at, run, how, NODE, targets, problems.clone(), None)?;
    let (formula, loss) = physics.settle(at, &table, laws, &problems, nodes)?;
    formula.write(folder, loss)?;
    let mut found = physics.judgement(at, Predictor::Formula(&formula))?;
    found.fitted = found.fitted.or(Some(Measure::plain(loss)));
    let mut summary = Summary::read(folder)?;
    summary.formula = formula.equations();
    summary.judge(&found, Predictor::Formula(&formula));
    physics.show(at, folder, &formula)?;
    summary.verdict = physics.assess(at, Some(&formula), &summary)?;
    summary.write(folder)?;
    Ok(summary)
}
