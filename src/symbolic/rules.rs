//! The rules of one problem: how candidates are made, what they stand for, which are allowed, and how they are judged.
//!
//! A candidate is the formula itself or, with a template, its parts in one tree. A user-defined loss and a template are
//! both wrapped around the candidate before it is evaluated: the operation then scores the loss of a row as an
//! expression, against a target of zeros and with the absolute value as loss. Columns are added for what those
//! expressions need: target, weight and their constants, which must not be fitted.

use std::borrow::Cow;

use rayon::prelude::*;

use super::island;
use super::mutate::{Grammar, crossover};
use super::precision;
use super::search::Problem;
use super::settings::Settings;
use super::shape::Requirements;
use super::template::{Part, Template};
use crate::error::{Error, Result};
use crate::formula::expression::{Expression, Node, Op, Weights};
use crate::formula::units::Units;
use crate::ops::expression::exact::Exact;
use crate::ops::expression::{Evaluator, Fit, Fitted, Loss, Program, Rows};
use crate::random::Random;

/// Values of each variable from which thresholds are drawn.
const SAMPLES: usize = 64;

/// A column that a template or a loss needs in addition to the table's.
#[derive(Clone, Copy)]
enum Added {
    Constant(f64),
    Target,
    Weight,
}

/// How candidates of one problem are made and judged.
pub(super) struct Rules<'a> {
    pub settings: &'a Settings,
    problem: &'a Problem,
    grammars: Vec<Grammar>,
    /// Complexities within each searched part of the template.
    weights_of_parts: Vec<Weights>,
    /// The rows with a weight, if some have none.
    rows_with_weight: Option<Vec<u32>>,
    columns: Cow<'a, [Vec<f32>]>,
    target: Cow<'a, [f32]>,
    weights: Option<&'a [f32]>,
    /// The user-defined loss of a row, its constants in columns.
    row_loss: Option<Expression>,
    /// The columns of the constants of the template and of the loss.
    frozen: Vec<(f64, u16)>,
    /// The contents of the columns beyond the table's.
    added: Vec<Added>,
    /// What the law must be as a function of the problem's columns, …
    shape: Option<Requirements>,
    /// … and of the table's.
    shape_outward: Option<Requirements>,
    /// Starting values for a fit, besides those that a candidate has, see [`Template::starts`].
    starts: Vec<Vec<(usize, f64)>>,
    median: f64,
}

impl<'a> Rules<'a> {
    /// The rules of a problem.
    ///
    /// # Errors
    /// A problem without rows or columns, with lengths that disagree or values that are not finite, or
    /// with a constant target; settings without operators.
    pub fn new(problem: &'a Problem, settings: &'a Settings, random: &mut Random) -> Result<Self> {
        if settings.operators.is_empty() && settings.definitions.is_empty() {
            return Err(Error::usage("at least one operator is needed").field("operators"));
        }
        if problem.columns.is_empty() {
            return Err(Error::input("there are no input columns"));
        }
        let rules = Rules::to_judge(problem, settings, random)?;
        if problem.target.iter().all(|y| *y == problem.target[0]) {
            let message = format!("is {} in every row: there is no law to find", problem.target[0]);
            return Err(Error::input(message));
        }
        Ok(rules)
    }

    /// The same for rows that only judge formulas: their target may be constant.
    fn to_judge(problem: &'a Problem, settings: &'a Settings, random: &mut Random) -> Result<Self> {
        let rows = Rows::new(&problem.columns, &problem.target, problem.weights.as_deref())?;
        let mut rules = Rules {
            settings,
            problem,
            grammars: Vec::new(),
            weights_of_parts: Vec::new(),
            rows_with_weight: None,
            columns: Cow::Borrowed(&problem.columns),
            target: Cow::Borrowed(&problem.target),
            weights: problem.weights.as_deref(),
            row_loss: None,
            frozen: Vec::new(),
            added: Vec::new(),
            shape: None,
            shape_outward: None,
            starts: Vec::new(),
            median: rows.median(),
        };
        drop(rows);
        rules.require_shapes();
        rules.grammars = rules.grammars(random);
        if let Some(template) = &problem.template {
            let sizes: Vec<f64> = problem.columns.iter().map(|column| size(column)).collect();
            rules.starts = template.starts(&sizes);
        }
        rules.add_columns();
        rules.weights_of_parts = rules.weights_of_parts();
        // Zero weights drop rows, unless a user-defined loss reads the weights itself.
        if let Some(weights) = rules.weights.filter(|weights| weights.contains(&0.0)) {
            let rows = 0..weights.len() as u32;
            rules.rows_with_weight =
                Some(rows.filter(|&row| weights[row as usize] > 0.0).collect());
        }
        Ok(rules)
    }

    fn require_shapes(&mut self) {
        let (problem, shapes) = (self.problem, &self.settings.shapes);
        if shapes.is_empty() {
            return;
        }
        let wide = |column: &Vec<f32>| column.iter().map(|&v| f64::from(v)).collect();
        let seen: Vec<Vec<f64>> = problem.columns.iter().map(wide).collect();
        let given = problem.given.as_ref();
        let output = given.map_or((0.0, 1.0), |given| given.units.output);
        self.shape = Some(Requirements::new(shapes, &seen, output));
        let outward = given.map_or(&seen, |given| &given.columns);
        self.shape_outward = Some(Requirements::new(shapes, outward, (0.0, 1.0)));
    }

    /// True if a candidate in the table's units has the shape that the law must have.
    pub fn has_shape(&self, candidate: &Expression) -> bool {
        let shape = self.shape_outward.as_ref();
        shape.is_none_or(|shape| shape.hold(&self.formula(candidate)))
    }

    /// The same in the problem's own units.
    fn has_shape_within(&self, candidate: &Expression) -> bool {
        self.shape.as_ref().is_none_or(|shape| shape.hold(&self.formula(candidate)))
    }

    /// Variable k of a part costs what the column costs that it stands for in the part's first call.
    fn weights_of_parts(&self) -> Vec<Weights> {
        let all = &self.settings.weights;
        let of = |operand: &Expression| match operand.root() {
            Node::Variable(v) => all.variables.get(usize::from(v)).copied(),
            _ => None,
        };
        let part = |operands: &Vec<Expression>| Weights {
            variables: operands.iter().map(|o| of(o).unwrap_or(all.variable)).collect(),
            ..all.clone()
        };
        let parts = self.problem.template.iter().flat_map(|template| &template.parts);
        parts.filter_map(|p| p.operands.as_ref()).map(part).collect()
    }

    /// A grammar for each part; without a template, the formula is the only part.
    fn grammars(&self, random: &mut Random) -> Vec<Grammar> {
        let columns = &self.problem.columns;
        let samples = |column: &Vec<f32>, random: &mut Random| -> Vec<f32> {
            (0..SAMPLES).map(|_| column[random.below(column.len())]).collect()
        };
        let Some(template) = &self.problem.template else {
            let samples = columns.iter().map(|column| samples(column, random));
            return vec![Grammar::new(self.settings, samples.collect())];
        };
        let mut values = |operand: &Expression| -> Vec<f32> {
            let number =
                |node: &Node| matches!(node, Node::Variable(v) if usize::from(*v) >= columns.len());
            let numbers = operand.nodes().iter().any(number);
            let value = |_| {
                let row = random.below(self.problem.target.len());
                let mut row: Vec<f64> = columns.iter().map(|c| f64::from(c[row])).collect();
                if numbers {
                    row.resize_with(template.variables(), || random.normal());
                }
                operand.eval(&row) as f32
            };
            let some: Vec<f32> = (0..SAMPLES).map(value).filter(|v| v.is_finite()).collect();
            if some.is_empty() { vec![0.0] } else { some }
        };
        let grammar = |part: &Part| {
            let operands = part.operands.iter().flatten();
            Grammar::new(self.settings, operands.map(&mut values).collect())
        };
        template.parts.iter().map(grammar).collect()
    }

    /// Adds columns for what the template and the loss need beyond the table's.
    fn add_columns(&mut self) {
        let first = self.columns.len();
        let body = self.problem.template.iter().flat_map(|t| t.constants());
        let of_loss = self.settings.row_loss.iter().flat_map(|loss| loss.constants());
        for value in body.chain(of_loss) {
            if self.frozen.iter().all(|f| f.0.to_bits() != value.to_bits()) {
                self.frozen.push((value, (first + self.added.len()) as u16));
                self.added.push(Added::Constant(value));
            }
        }
        if let Some(loss) = &self.settings.row_loss {
            let target = (first + self.added.len()) as u16;
            self.added.push(Added::Target);
            if loss.depends_on(2) {
                self.added.push(Added::Weight);
            }
            let frozen = |node: &Node| match *node {
                Node::Constant(value) => self.frozen(value),
                Node::Variable(1) => Node::Variable(target),
                Node::Variable(2) => Node::Variable(target + 1),
                other => other,
            };
            let loss = Expression::from_nodes(loss.nodes().iter().map(frozen).collect());
            self.row_loss = Some(loss);
        }
        let rows = self.problem.target.len();
        for added in &self.added {
            let column = match *added {
                Added::Constant(value) => vec![value as f32; rows],
                Added::Target => self.problem.target.clone(),
                Added::Weight => self.weights.map_or_else(|| vec![1.0; rows], <[f32]>::to_vec),
            };
            self.columns.to_mut().push(column);
        }
        if self.row_loss.is_some() {
            self.target = Cow::Owned(vec![0.0; rows]);
            if self.added.iter().any(|added| matches!(added, Added::Weight)) {
                self.weights = None;
            }
        }
    }

    /// The column of a constant that is not fitted.
    fn frozen(&self, value: f64) -> Node {
        let column = self.frozen.iter().find(|f| f.0.to_bits() == value.to_bits());
        column.map_or(Node::Constant(value), |&(_, column)| Node::Variable(column))
    }

    /// All rows.
    pub fn rows(&self) -> Result<Rows> {
        Rows::new(&self.columns, &self.target, self.weights)
    }

    /// All rows in double precision, as given.
    pub fn exact(&self) -> Exact {
        let wide = |values: &[f32]| values.iter().map(|&v| f64::from(v)).collect();
        let given = self.problem.given.as_ref();
        let mut columns: Vec<Vec<f64>> = match given {
            Some(given) => given.columns.clone(),
            None => self.problem.columns.iter().map(|column| wide(column)).collect(),
        };
        let target: Vec<f64> =
            given.map_or_else(|| wide(&self.problem.target), |given| given.target.clone());
        let rows = target.len();
        for added in &self.added {
            columns.push(match *added {
                Added::Constant(value) => vec![value; rows],
                Added::Target => target.clone(),
                Added::Weight => {
                    self.problem.weights.as_deref().map_or_else(|| vec![1.0; rows], wide)
                }
            });
        }
        let target = if self.row_loss.is_some() { vec![0.0; rows] } else { target };
        let weights: Option<Vec<f64>> = self.weights.map(wide);
        Exact::new(columns, target, weights.as_deref())
    }

    /// The loss caused by rounding of the target as given; 0 for a user-defined loss.
    pub fn floor(&self) -> f64 {
        let (problem, loss) = (self.problem, self.loss());
        match &problem.given {
            _ if self.row_loss.is_some() => 0.0,
            Some(given) => precision::floor(&given.target, self.weights, loss),
            None => {
                let target: Vec<f64> = problem.target.iter().map(|&y| f64::from(y)).collect();
                precision::floor(&target, self.weights, loss)
            }
        }
    }

    /// The loss of a formula in the original values, in double precision.
    pub fn exact_loss(&self, exact: &Exact, formula: &Expression) -> f64 {
        exact.score(&self.program(formula, false), &formula.constants(), self.loss())
    }

    /// Fits the constants of such a formula except those `held`: the loss, and the constants.
    pub fn exact_fit(
        &self,
        exact: &Exact,
        formula: &Expression,
        held: &[u16],
        (steps, tolerance): (u32, f64),
    ) -> (f64, Vec<f64>) {
        let mut program = self.program(formula, false);
        program.held.extend(held);
        let fit = Fit { loss: self.loss(), steps, scaled: false, tolerance };
        exact.fit(&program, &formula.constants(), fit)
    }

    /// The predictions of a formula for these rows.
    pub fn exact_values(&self, exact: &Exact, formula: &Expression) -> Vec<f64> {
        exact.values(&self.program(formula, false), &formula.constants())
    }

    /// The chosen rows.
    pub fn gather(&self, chosen: &[u32]) -> Rows {
        Rows::gather(&self.columns, &self.target, self.weights, chosen)
    }

    /// Number of rows with a weight.
    pub fn row_count(&self) -> usize {
        self.rows_with_weight.as_ref().map_or(self.problem.target.len(), Vec::len)
    }

    /// A random one of those rows.
    pub fn draw_row(&self, random: &mut Random) -> u32 {
        let k = random.below(self.row_count());
        self.rows_with_weight.as_ref().map_or(k as u32, |rows| rows[k])
    }

    /// True if candidates are the parts of a template.
    pub fn is_template(&self) -> bool {
        self.problem.template.is_some()
    }

    /// True if the loss is user-defined.
    pub fn has_own_loss(&self) -> bool {
        self.row_loss.is_some()
    }

    /// True if formulas are searched for; false if only the numbers of one are fitted.
    pub fn searches(&self) -> bool {
        self.problem.template.as_ref().is_none_or(Template::searches)
    }

    /// True if a scale and an offset are fitted with each candidate.
    pub fn scaled(&self) -> bool {
        self.problem.template.is_none() && self.settings.scaled()
    }

    /// A candidate to start from.
    pub fn beginning(&self, random: &mut Random) -> Expression {
        match &self.problem.template {
            None => self.grammars[0].beginning(random),
            Some(template) => template.beginning(&self.grammars, random),
        }
    }

    /// One random mutation; None if the kind drawn is not possible here.
    pub fn mutate(&self, candidate: &Expression, random: &mut Random) -> Option<Expression> {
        match &self.problem.template {
            None => self.grammars[0].mutate(candidate, random),
            Some(template) => template.mutate(&self.grammars, candidate, random),
        }
    }

    /// A child of two candidates.
    pub fn crossover(&self, a: &Expression, b: &Expression, random: &mut Random) -> Expression {
        match &self.problem.template {
            None => crossover(a, b, random),
            Some(template) => template.crossover(a, b, random),
        }
    }

    /// The candidate in as few nodes as possible.
    pub fn simplified(&self, candidate: &Expression) -> Expression {
        match &self.problem.template {
            None => candidate.simplified_with(&self.settings.operators),
            Some(template) => {
                let each = template.each(candidate, |part| Some(part.simplified()));
                template.absorbed(each.expect("never None"))
            }
        }
    }

    /// The form in which a candidate is a member: without scale and offset if those are fitted.
    pub fn canonical(&self, candidate: &Expression) -> Option<Expression> {
        if self.scaled() { candidate.shape() } else { Some(self.simplified(candidate)) }
    }

    /// offset + scale · candidate, if those are fitted.
    pub fn with_scale(&self, candidate: &Expression, scale: f64, offset: f64) -> Expression {
        if self.scaled() { candidate.scaled(scale, offset) } else { candidate.clone() }
    }

    /// The formula that a candidate stands for.
    pub fn formula(&self, candidate: &Expression) -> Expression {
        match &self.problem.template {
            None => candidate.clone(),
            Some(template) => template.formula(candidate),
        }
    }

    /// A sub-tree of a candidate, in the table's columns.
    pub fn in_columns(&self, candidate: &Expression, root: usize) -> Expression {
        match &self.problem.template {
            None => candidate.subtree(root),
            Some(template) => template.in_columns(candidate, root),
        }
    }

    /// The candidate with exponents that its units allow, where exponents are not fitted.
    pub fn with_exponents(&self, candidate: Expression) -> Expression {
        match self.units_of_exponents() {
            None => candidate,
            Some(units) => units.with_exponents(&candidate),
        }
    }

    /// The units, if they determine exponents: constants are pure numbers, and the candidate is the formula.
    fn units_of_exponents(&self) -> Option<&Units> {
        let units = self.problem.units.as_ref().filter(|units| units.pure_constants());
        units.filter(|_| self.problem.template.is_none())
    }

    /// The same hash for candidates that fitting makes equal.
    pub fn structure(&self, candidate: &Expression) -> u64 {
        let power = |node: &Node| *node == Node::Op(Op::Pow);
        let exact = self.units_of_exponents().is_some() && candidate.nodes().iter().any(power);
        island::structure(candidate, exact)
    }

    /// True if the candidate may enter the front.
    pub fn admits(&self, candidate: &Expression) -> bool {
        self.complexity(candidate) <= self.settings.max_complexity && self.allow(candidate)
    }

    /// The complexity of the parts that were searched for.
    pub fn complexity(&self, candidate: &Expression) -> u32 {
        let weights = &self.settings.weights;
        match &self.problem.template {
            None => candidate.complexity(weights),
            Some(template) => {
                let parts = template.searched(candidate);
                parts.iter().zip(&self.weights_of_parts).map(|(p, w)| p.complexity(w)).sum()
            }
        }
    }

    /// True if the candidate satisfies the constraints and the units.
    pub fn allow(&self, candidate: &Expression) -> bool {
        let (constraints, weights) = (&self.settings.constraints, &self.settings.weights);
        let shape = match &self.problem.template {
            None => constraints.allow(candidate, weights),
            Some(template) => {
                let parts = template.searched(candidate);
                parts.iter().zip(&self.weights_of_parts).all(|(p, w)| constraints.allow(p, w))
            }
        };
        let units = self.problem.units.as_ref();
        shape && units.is_none_or(|units| units.allow(&self.formula(candidate)))
    }

    /// The program evaluated for a candidate; its constants are the candidate's, then scale and offset if `scaled`.
    fn program(&self, candidate: &Expression, scaled: bool) -> Program {
        let held = self.units_of_exponents().map(|units| units.exponents(candidate).1);
        let held = held.unwrap_or_default();
        if self.row_loss.is_none() && self.problem.template.is_none() {
            return Program { held, ..Program::new(candidate) };
        }
        // While expressions are put together, each constant is represented by its index in the list.
        let mut values = candidate.constants();
        let mut marked = candidate.clone();
        let marks: Vec<f64> = (0..values.len()).map(|k| k as f64).collect();
        marked.set_constants(&marks);
        let mut formula = match &self.problem.template {
            None => marked,
            Some(template) => template.formula_around(&marked, |value| self.frozen(value)),
        };
        if self.row_loss.is_some() && scaled {
            let mark = |k: usize| Expression::constant((values.len() + k) as f64);
            let product = Expression::apply(Op::Mul, &[mark(0), formula]);
            formula = Expression::apply(Op::Add, &[product, mark(1)]);
            values.extend([0.0, self.median]);
        }
        if let Some(loss) = &self.row_loss {
            formula = loss.substitute(|variable| (variable == 0).then(|| formula.clone()));
        }
        Program { held, ..Program::new(&formula).tied(&values) }
    }

    /// Where the programs can be evaluated: kernels cannot handle a constant in two places, or one that is held.
    pub fn evaluator<'e>(&self, evaluator: &'e Evaluator) -> Cow<'e, Evaluator> {
        let composed = self.row_loss.is_some() || self.problem.template.is_some();
        if composed || self.units_of_exponents().is_some() {
            return Cow::Owned(Evaluator::cpu());
        }
        Cow::Borrowed(evaluator)
    }

    pub fn loss(&self) -> Loss {
        if self.row_loss.is_some() { Loss::Mae } else { self.settings.loss }
    }

    /// Losses of candidates as they are.
    pub fn score(
        &self,
        evaluator: &Evaluator,
        rows: &Rows,
        candidates: &[Expression],
    ) -> Result<Vec<f64>> {
        let programs: Vec<Program> = candidates.iter().map(|e| self.program(e, false)).collect();
        let mut losses = self.evaluator(evaluator).score(rows, &programs, self.loss())?;
        if self.shape.is_some() {
            losses.par_iter_mut().zip(candidates).for_each(|(loss, e)| {
                if loss.is_finite() && !self.has_shape_within(e) {
                    *loss = f64::INFINITY;
                }
            });
        }
        Ok(losses)
    }

    /// Fits the constants of candidates, with scale and offset if `scaled`.
    pub fn fit(
        &self,
        evaluator: &Evaluator,
        rows: &Rows,
        candidates: &[Expression],
        (steps, scaled, tolerance): (u32, bool, f64),
    ) -> Result<Vec<Fitted>> {
        let programs: Vec<Program> = match &self.problem.template {
            Some(template) if !self.starts.is_empty() => {
                let begun = |e: &Expression| -> Vec<Program> {
                    let others = self.starts.iter().map(|start| template.with_numbers(e, start));
                    [e.clone()]
                        .into_iter()
                        .chain(others)
                        .map(|e| self.program(&e, scaled))
                        .collect()
                };
                candidates.iter().flat_map(begun).collect()
            }
            _ => candidates.iter().map(|e| self.program(e, scaled)).collect(),
        };
        let inside = self.row_loss.is_some() && scaled;
        let fit = Fit { loss: self.loss(), steps, scaled: scaled && !inside, tolerance };
        let mut fitted = self.evaluator(evaluator).fit(rows, &programs, fit)?;
        if inside {
            for fitted in &mut fitted {
                fitted.offset = fitted.constants.pop().unwrap_or(0.0);
                fitted.scale = fitted.constants.pop().unwrap_or(1.0);
            }
        }
        if !self.starts.is_empty() {
            fitted = self.best_starts(&fitted);
        }
        if self.shape.is_some() {
            fitted.par_iter_mut().zip(candidates).for_each(|(fitted, e)| {
                let mut e = e.clone();
                e.set_constants(&fitted.constants);
                let e = if scaled { e.scaled(fitted.scale, fitted.offset) } else { e };
                if fitted.loss.is_finite() && !self.has_shape_within(&e) {
                    fitted.loss = f64::INFINITY;
                }
            });
        }
        Ok(fitted)
    }

    /// The best of the fits of each candidate from all its starts.
    fn best_starts(&self, fitted: &[Fitted]) -> Vec<Fitted> {
        let best = |tried: &[Fitted]| {
            let evaluations = tried.iter().map(|fitted| fitted.evaluations).sum();
            let least = tried.iter().min_by(|a, b| a.loss.total_cmp(&b.loss)).cloned();
            least.map(|fitted| Fitted { evaluations, ..fitted })
        };
        fitted.chunks(1 + self.starts.len()).filter_map(best).collect()
    }
}

/// The typical magnitude of a column; 1 if all values are 0.
pub(super) fn size(column: &[f32]) -> f64 {
    let sum: f64 = column.iter().map(|v| f64::from(v.abs())).sum();
    Some(sum / column.len() as f64).filter(|&size| size > 0.0).unwrap_or(1.0)
}

/// Losses of formulas on the rows of a problem without a template, in the original values.
///
/// # Errors
/// Those of gathering the rows.
pub fn losses(problem: &Problem, settings: &Settings, formulas: &[Expression]) -> Result<Vec<f64>> {
    let rules = Rules::to_judge(problem, settings, &mut Random::new(0, 0))?;
    let exact = rules.exact();
    Ok(formulas.iter().map(|formula| rules.exact_loss(&exact, formula)).collect())
}

/// Checks everything that a search of the problem would reject; returns for each of its seeds whether it may enter the
/// front.
///
/// # Errors
/// Those of [`search`](super::search::search) before it starts.
pub fn check(problem: &Problem, settings: &Settings) -> Result<Vec<bool>> {
    let rules = Rules::new(problem, settings, &mut Random::new(0, 0))?;
    Ok(problem.seeds.iter().map(|seed| rules.admits(seed)).collect())
}
