//! Preparing a table for the search: held-out rows, selected inputs, template, units and formulas to start from.

use std::collections::HashSet;

use super::columns::Columns;
use super::given::OriginalData;
use super::job;
use super::joint::Joint;
use super::options::Options;
use super::relevance::{relevance, relevance_of_pairs};
use super::search::{self, Problem, Settings};
use super::template::{Numbers, Template, too_close};
use crate::error::{Error, Result};
use crate::formula::expression::Expression;
use crate::formula::units::Units;
use crate::random::Random;
use crate::store::run::RunFolder;

/// The targets as one problem, with `--joint`.
pub(super) fn joined(problems: &[Problem], options: &Options) -> Result<Option<(Joint, Problem)>> {
    if options.joint.is_empty() {
        return Ok(None);
    }
    let alone = options.template.is_none()
        && options.units.is_none()
        && options.validation.is_none()
        && options.guess.is_empty()
        && options.shape.is_empty()
        && options.warm_start.is_none();
    if !alone {
        let message = "cannot be combined with --template, --units, --validation, --guess, --shape or --warm-start";
        return Err(Error::usage(message).field("joint"));
    }
    Joint::new(problems, &options.joint).map(Some)
}

/// Keeps only the inputs that say most about any of the targets.
pub(super) fn select_features(
    problems: &mut [Problem],
    options: &Options,
    seed: u64,
) -> Result<()> {
    let Some(count) = options.select_features else { return Ok(()) };
    if options.template.is_some() {
        return Err(Error::usage("a template names its inputs itself").field("select-features"));
    }
    let mut most = vec![0.0f64; problems[0].columns.len()];
    for problem in problems.iter() {
        let Problem { columns, target, weights, .. } = problem;
        let alone = relevance(columns, target, weights.as_deref(), seed);
        let pairs = relevance_of_pairs(columns, target, weights.as_deref(), &alone, count, seed);
        for ((most, alone), pairs) in most.iter_mut().zip(alone).zip(pairs) {
            *most = most.max(alone).max(pairs);
        }
    }
    let mut order: Vec<usize> = (0..most.len()).collect();
    order.sort_by(|&a, &b| most[b].total_cmp(&most[a]));
    order.truncate(count);
    order.sort_unstable();
    for problem in problems {
        problem.names = order.iter().map(|&index| problem.names[index].clone()).collect();
        let columns = std::mem::take(&mut problem.columns);
        let kept = columns.into_iter().enumerate().filter(|(index, _)| order.contains(index));
        problem.columns = kept.map(|(_, column)| column).collect();
        if let Some(OriginalData { columns, units, .. }) = &mut problem.given {
            *columns = order.iter().map(|&index| std::mem::take(&mut columns[index])).collect();
            units.inputs = order.iter().map(|&index| units.inputs[index]).collect();
        }
    }
    Ok(())
}

/// The template, from all rows of the table.
pub(super) fn template(problem: &Problem, ready: &Columns) -> Result<Option<Template>> {
    let Columns { table, options, words, .. } = ready;
    let Some(text) = &options.template else { return Ok(None) };
    let error = |message: String| Error::usage(message).field("template");
    let definitions = options.definitions()?;
    let mut template = Template::of_table(text, &problem.names, &problem.columns, &definitions)?;
    let own = template.numbers.iter().find(|numbers| table.find(&numbers.name).is_some());
    if let Some(Numbers { name, .. }) = own {
        let inputs = problem.names.join(", ");
        return Err(error(format!("column '{name}' is not an input; the inputs are {inputs}")));
    }
    for column in template.indexed().collect::<Vec<_>>() {
        let name = &problem.names[usize::from(column)];
        let values = table.column(name)?;
        let exact: HashSet<u64> = values.iter().map(|v| v.to_bits()).collect();
        let single: HashSet<u32> = values.iter().map(|&v| (v as f32).to_bits()).collect();
        if exact.len() > single.len() {
            return Err(error(too_close(name)));
        }
        if let Some((_, words)) = words.iter().find(|(column, _)| column == name) {
            template.name_groups(column, words);
        }
    }
    Ok(Some(template))
}

/// An error if a number of a template belongs to rows that the search does not see.
pub(super) fn groups_are_seen(problem: &Problem) -> Result<()> {
    for column in problem.template.iter().flat_map(Template::indexed) {
        let (name, column) = (&problem.names[usize::from(column)], usize::from(column));
        let weighs = |row: usize| problem.weights.as_ref().is_none_or(|w| w[row] > 0.0);
        let all = &problem.columns[column];
        let seen = all.iter().enumerate().filter(|(row, _)| weighs(*row));
        let seen: HashSet<u32> = seen.map(|(_, v)| v.to_bits()).collect();
        let held = problem.rest.iter().flat_map(|rest| &rest.columns[column]);
        if let Some(value) = all.iter().chain(held).find(|v| !seen.contains(&v.to_bits())) {
            let message = format!(
                "the number for {name} = {value} cannot be fitted: all rows with this value have no \
                 weight or are held out"
            );
            return Err(Error::usage(message).field("template"));
        }
    }
    Ok(())
}

/// Checks a problem as a whole, and removes formulas of an earlier run that break its rules; returns how many.
pub(super) fn admitted(
    problem: &mut Problem,
    settings: &Settings,
    options: &Options,
) -> Result<usize> {
    let may = search::check(problem, settings)?;
    if let Some((guess, _)) = options.guess.iter().zip(&may).find(|(_, may)| !**may) {
        let message = format!(
            "'{guess}' breaks --units, --max-complexity, --max-depth or another limit on formulas"
        );
        return Err(Error::usage(message).field("guess"));
    }
    let mut kept = may.iter();
    problem.seeds.retain(|_| kept.next() == Some(&true));
    Ok(may.len() - problem.seeds.len())
}

/// Adds units, guesses and the formulas of an earlier run; `table` names all columns, and `label` is the target's name
/// in the files of a run.
pub(super) fn complete(
    problem: &mut Problem,
    target: &str,
    label: &str,
    table: &[String],
    options: &Options,
) -> Result<()> {
    if let Some(text) = &options.units {
        let (names, pure) = (&problem.names, options.pure_constants);
        problem.units = Some(Units::parse(text, names, target, table, pure)?);
    }
    let names: Vec<&str> = problem.names.iter().map(String::as_str).collect();
    let definitions = options.definitions()?;
    for text in &options.guess {
        let guess = match &problem.template {
            Some(template) => template.guess(text, &definitions),
            None => Expression::parse_with(text, &names, &definitions),
        };
        problem.seeds.push(guess.map_err(|e| Error::usage(e.message).field("guess"))?);
    }
    if let Some(path) = &options.warm_start {
        let earlier = RunFolder::open(path)?;
        let before = problem.seeds.len();
        if let Some(template) = &problem.template {
            let known = job::guesses(&earlier, target)?;
            let parts = known.iter().filter_map(|text| template.guess(text, &[]).ok());
            problem.seeds.extend(parts);
            if problem.seeds.len() == before {
                let message = format!("has no formulas of this template for '{target}'");
                return Err(Error::input(message).file(earlier.file(job::RESULT)));
            }
            return Ok(());
        }
        job::resume(std::slice::from_mut(problem), &[label.to_string()], &earlier)?;
        if problem.seeds.len() == before {
            let message = format!("has no formulas for '{label}' to start from");
            return Err(Error::input(message).file(earlier.file(job::HALL_OF_FAME)));
        }
    }
    Ok(())
}

/// Keeps the rows that are `wanted`.
fn keep_rows(problem: &mut Problem, wanted: &[bool]) {
    fn keep<T: Copy>(column: &mut Vec<T>, wanted: &[bool]) {
        let mut wanted = wanted.iter();
        column.retain(|_| wanted.next() == Some(&true));
    }
    let Problem { columns, target, weights, given, .. } = problem;
    columns.iter_mut().chain([target]).chain(weights).for_each(|column| keep(column, wanted));
    if let Some(OriginalData { columns, target, .. }) = given {
        columns.iter_mut().chain([target]).for_each(|column| keep(column, wanted));
    }
}

/// Draws a share of the rows at random: true for those.
///
/// # Errors
/// Too few rows.
pub(super) fn held_out(rows: usize, share: f64, seed: u64) -> Result<Vec<bool>> {
    let mut order: Vec<usize> = (0..rows).collect();
    let mut random = Random::new(seed, 6 << 40);
    let held = (share * rows as f64).round() as usize;
    if held < 2 || rows - held < job::FEWEST_ROWS {
        let message =
            format!("keeps {held} of {rows} rows from the search; both parts need more rows");
        return Err(Error::usage(message).field("validation"));
    }
    for at in 0..held {
        order.swap(at, at + random.below(rows - at));
    }
    let mut out = vec![false; rows];
    order[..held].iter().for_each(|&row| out[row] = true);
    Ok(out)
}

/// Withholds a share of the rows, drawn at random, from the search.
///
/// # Errors
/// Too little left to search, or to choose by: few rows, a constant target, no weight.
pub(super) fn hold_out(problem: &mut Problem, share: f64, seed: u64) -> Result<()> {
    let out = held_out(problem.target.len(), share, seed)?;
    let mut rest = problem.clone();
    keep_rows(problem, &out.iter().map(|out| !out).collect::<Vec<bool>>());
    keep_rows(&mut rest, &out);
    problem.rest = Some(Box::new(rest));
    let error = |message: &str| Err(Error::usage(message).field("validation"));
    let weightless = |weights: &Option<Vec<f32>>| {
        weights.as_ref().is_some_and(|weights| weights.iter().all(|w| *w == 0.0))
    };
    if weightless(&problem.weights)
        || problem.rest.as_ref().is_some_and(|rest| weightless(&rest.weights))
    {
        return error("all rows of one part have weight 0: try another share or another --seed");
    }
    if problem.target.iter().all(|y| *y == problem.target[0]) {
        return error("the target is constant in the rows that the search sees");
    }
    Ok(())
}
