//! `compose`: puts expressions in place of φe and φv, and refits all their constants together on the original
//! data.

use super::formula::Formula;
use super::laws::{Found, NODE, Search, search};
use super::messages::{Messages, Table};
use super::run::{Compute, Distilled, Judgement, Physics, Predictor, Run};
use super::summary::Summary;
use super::verdict::Conclusion;
use crate::error::Result;
use crate::network::model::Model;
use crate::network::system::Measure;
use crate::store::run::RunFolder;

/// A composed formula and its losses.
#[derive(Clone, Debug)]
pub struct Composed {
    /// The formula, with its constants refitted.
    pub formula: Formula,
    /// Its loss on the data it was fitted to.
    pub loss: f64,
    /// Its losses on data to which nothing was fitted.
    pub judgement: Judgement,
    /// Whether it is a law.
    pub verdict: Option<Conclusion>,
}

/// Puts laws in place of a network: `found` holds those of its kept messages, in the order of `messages`
/// ([`Found::of`] a front, [`Found::only`] a law); those of φv are found by a search with settings `how`. Then
/// refits all constants together on the data the network was trained on. Data that were not simulated may get a pair
/// force instead that is fitted to their accelerations directly (docs/design.md §4).
///
/// # Errors
/// A network trained on another system; laws that are undefined on the data; `interrupted`.
///
/// # Panics
/// There is not one law for each kept message.
///
/// ```no_run
/// use lawsmith::distill::compose::compose;
/// use lawsmith::distill::laws::{Found, Search};
/// use lawsmith::distill::messages::{Wanted, messages};
/// use lawsmith::distill::run::Compute;
/// # use lawsmith::error::Result;
/// # use lawsmith::formula::expression::Expression;
/// # use lawsmith::nbody::dataset::Dataset;
/// # use lawsmith::network::model::Model;
///
/// # fn example(model: &Model, data: &Dataset) -> Result<()> {
/// // A network and the data it was trained on; a law for each of its two messages, from `regress` or a guess.
/// let at = Compute::default();
/// let found = messages(at, model, data, Wanted::default())?;
/// let names: Vec<&str> = found.kept.inputs.iter().map(String::as_str).collect();
/// let laws = ["dx * (1 - 1 / r)", "dy * (1 - 1 / r)"];
/// let laws = laws.map(|law| Found::only(Expression::parse(law, &names).unwrap()));
/// let composed = compose(at, model, data, &found, &laws, Search::default())?;
/// println!("{}", composed.formula.equations().join("\n"));
/// println!("test loss: {:?}", composed.judgement.test);
/// # Ok(())
/// # }
/// ```
pub fn compose(
    at: Compute,
    model: &Model,
    system: &dyn Distilled,
    messages: &Messages,
    found: &[Found],
    how: Search,
) -> Result<Composed> {
    assert_eq!(found.len(), messages.kept.kept.len(), "a law for each kept message");
    composed(at, None, &*system.physics(model)?, &messages.kept, found, how, &messages.summary)
}

/// `compose` for a run, in its folder.
///
/// # Errors
/// Files of the run that cannot be read; laws that are undefined on the data; `interrupted`.
pub fn compose_run(at: Compute, run: &Run, how: Search) -> Result<Summary> {
    let Run { folder, physics } = run;
    let table = Table::read(folder)?;
    let found = physics.found(folder, &table, how.select)?;
    let mut summary = Summary::read(folder)?;
    let Composed { formula, loss, judgement, verdict } =
        composed(at, Some(folder), &**physics, &table, &found, how, &summary)?;
    formula.write(folder, loss)?;
    summary.formula = formula.equations();
    summary.judge(&judgement, Predictor::Formula(&formula));
    summary.verdict = verdict;
    let observer = &folder.observer(at.observer);
    physics.show(Compute { observer, ..at }, &formula)?;
    summary.write(folder)?;
    Ok(summary)
}

fn composed(
    at: Compute,
    folder: Option<&RunFolder>,
    physics: &dyn Physics,
    table: &Table,
    found: &[Found],
    how: Search,
    summary: &Summary,
) -> Result<Composed> {
    let laws = physics.laws(table, found);
    let problems = physics.node_problems(at, table, &laws)?;
    let terms = physics.terms();
    let targets = terms.outputs.clone();
    let nodes = search(at, folder, &terms, how, NODE, targets, problems.clone(), None)?;
    let (mut formula, mut loss) = physics.settle(at, table, laws, &problems, nodes)?;
    let mut verdict = physics.assess(at, Some(&formula), summary)?;
    if let Some(of_messages) = verdict.as_ref().filter(|verdict| !verdict.is_settled())
        && let Some(direct) = physics.direct(at, how)?
        && let Some(of_direct) = physics.assess(at, Some(&direct.0), summary)?
        && of_direct.is_better(of_messages, direct.0.complexity() < formula.complexity())
    {
        (formula, loss) = direct;
        verdict = Some(of_direct.of_direct());
    }
    let mut judgement = physics.judgement(at, Predictor::Formula(&formula))?;
    judgement.fitted = judgement.fitted.or(Some(Measure::plain(loss)));
    Ok(Composed { formula, loss, judgement, verdict })
}
