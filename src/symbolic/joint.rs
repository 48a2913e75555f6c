//! Several targets that are the components of one force: component k is f(x) · Σ a_kj v_j + c_k with one factor f for
//! all, where v is a vector among the columns (the distance of a pair of bodies) and the numbers a, c are fitted.
//!
//! The tables are stacked, each target in units of its own spread, with a column for the number of the component. There
//! the law is a template with one part to search for; its other parts are numbers for each component.

use std::slice;

use super::front::{Entry, Front, Select};
use super::job::{self, Earlier, Labels};
use super::round::digits;
use super::search::{self, Outcome, Problem, Settings};
use super::template::Template;
use crate::error::{Error, Result};
use crate::formula::expression::{Expression, Op};
use crate::observer::Observer;
use crate::ops::expression::Evaluator;

/// The label of the joint search in the run folder.
const JOINT: &str = "joint";

/// The column for the number of the component.
const COMPONENT: &str = "component";

/// How components were joined.
#[derive(Clone, Debug)]
pub struct Joint {
    /// The columns of the vector, by their number in the components.
    vector: Vec<u16>,
    /// The other columns, on which the factor may depend.
    others: Vec<u16>,
    /// The divisor of each target.
    spreads: Vec<f64>,
}

/// Mean absolute deviation from the median, over rows with a weight.
fn spread(component: &Problem) -> f64 {
    let weight = |row: usize| component.weights.as_ref().map_or(1.0, |w| f64::from(w[row]));
    let rows = component.target.iter().enumerate().map(|(row, &y)| (y, weight(row)));
    let mut rows: Vec<(f32, f64)> = rows.filter(|row| row.1 > 0.0).collect();
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    let median = f64::from(rows[rows.len() / 2].0);
    let sum: f64 = rows.iter().map(|&(y, w)| w * (f64::from(y) - median).abs()).sum();
    let weights: f64 = rows.iter().map(|row| row.1).sum();
    (sum / weights).max(f64::MIN_POSITIVE)
}

impl Joint {
    /// One problem for all components, which have the same columns; `vector` names the columns of the vector.
    ///
    /// # Errors
    /// No components, components with different columns, a vector that is not among the columns or is all of them.
    pub fn new(components: &[Problem], vector: &[String]) -> Result<(Self, Problem)> {
        let error = |message: String| Error::usage(message).field("joint");
        let first = components.first().ok_or_else(|| error("there are no components".into()))?;
        if components.iter().any(|c| c.names != first.names) {
            return Err(error("the components have different columns".into()));
        }
        if first.names.iter().any(|name| name == COMPONENT) {
            return Err(error(format!("a column must not be called '{COMPONENT}'")));
        }
        let position = |name: &String| {
            let found = first.names.iter().position(|n| n == name).map(|at| at as u16);
            found.ok_or_else(|| error(format!("there is no column '{name}'")))
        };
        if let Some(k) = (1..vector.len()).find(|&k| vector[..k].contains(&vector[k])) {
            return Err(error(format!("names column '{}' twice", vector[k])));
        }
        let vector = vector.iter().map(position).collect::<Result<Vec<u16>>>()?;
        let others = (0..first.names.len() as u16).filter(|c| !vector.contains(c));
        let others: Vec<u16> = others.collect();
        if vector.is_empty() || others.is_empty() {
            return Err(error("a vector and at least one other column are needed".into()));
        }
        let spreads: Vec<f64> = components.iter().map(spread).collect();
        let mut joined = Problem { names: first.names.clone(), ..Problem::default() };
        joined.names.push(COMPONENT.to_string());
        for column in 0..first.columns.len() {
            let columns = components.iter().flat_map(|c| &c.columns[column]);
            joined.columns.push(columns.copied().collect());
        }
        let number = |(k, c): (usize, &Problem)| vec![k as f32; c.target.len()];
        joined.columns.push(components.iter().enumerate().flat_map(number).collect());
        for (component, spread) in components.iter().zip(&spreads) {
            joined.target.extend(component.target.iter().map(|&y| (f64::from(y) / spread) as f32));
        }
        if components.iter().any(|c| c.weights.is_some()) {
            let weights = components.iter().flat_map(|c| match &c.weights {
                Some(weights) => weights.clone(),
                None => vec![1.0; c.target.len()],
            });
            joined.weights = Some(weights.collect());
        }
        let name = |&column: &u16| first.names[usize::from(column)].as_str();
        let term = |v: &u16| format!("along_{0}[{COMPONENT}] * {0}", name(v));
        let terms: Vec<String> = vector.iter().map(term).collect();
        let arguments: Vec<&str> = others.iter().map(name).collect();
        let text = format!(
            "factor({}) * ({}) + offset[{COMPONENT}]",
            arguments.join(", "),
            terms.join(" + ")
        );
        joined.template = Some(Template::of_table(&text, &joined.names, &joined.columns, &[])?);
        Ok((Joint { vector, others, spreads }, joined))
    }

    /// The formula of each component in the components' columns, from the parts of one entry of the front.
    pub fn formulas(&self, parts: &[Expression]) -> Vec<Expression> {
        let others = |v: u16| self.others.get(usize::from(v)).copied().map(Expression::variable);
        let factor = parts[0].substitute(others);
        let count = self.spreads.len();
        let component = |(k, spread): (usize, &f64)| {
            let number = |j: usize| {
                let fitted = parts[1 + j * count + k].as_constant().unwrap_or(0.0);
                Expression::constant(digits(fitted * spread))
            };
            let term = |(j, &v): (usize, &u16)| {
                Expression::apply(Op::Mul, &[number(j), Expression::variable(v)])
            };
            let add = |a, b| Expression::apply(Op::Add, &[a, b]);
            let along = self.vector.iter().enumerate().map(term).reduce(add);
            let along = along.expect("a vector has components");
            let product = Expression::apply(Op::Mul, &[factor.clone(), along]);
            add(product, number(self.vector.len())).simplified()
        };
        self.spreads.iter().enumerate().map(component).collect()
    }

    /// Splits the outcome of the joint search into those of the components: the same entries and choices for all.
    fn apart(
        &self,
        components: &[Problem],
        settings: &Settings,
        found: &Outcome,
    ) -> Result<Vec<Outcome>> {
        let formulas: Vec<Vec<Expression>> =
            found.parts.iter().map(|parts| self.formulas(parts)).collect();
        let losses = |(k, component): (usize, &Problem)| {
            let own: Vec<Expression> = formulas.iter().map(|f| f[k].clone()).collect();
            search::losses(component, settings, &own)
        };
        let losses: Vec<Vec<f64>> =
            components.iter().enumerate().map(losses).collect::<Result<_>>()?;
        // A formula valid in every row of the joint problem may have no value in some row once written out.
        let valid = |&entry: &usize| losses.iter().all(|own| own[entry].is_finite());
        let valid: Vec<usize> = (0..formulas.len()).filter(valid).collect();
        let all = valid.iter().map(|&entry| found.front.entries[entry].clone());
        let all = Front::new(all.map(|e| (e.complexity, e.loss, e.expression)).collect());
        let shared = Some(Select::ALL.map(|rule| all.select(rule)));
        let outcome = |(k, own): (usize, &Vec<f64>)| {
            let entry = |(&entry, joint): (&usize, &Entry)| {
                let expression = formulas[entry][k].clone();
                let complexity = expression.complexity(&settings.weights);
                Entry { complexity, loss: own[entry], score: joint.score, expression }
            };
            let entries = valid.iter().zip(&all.entries).map(entry).collect();
            let front = Front { entries, shared, ..Front::default() };
            Outcome { front, kept: Vec::new(), parts: Vec::new(), ..found.clone() }
        };
        Ok(losses.iter().enumerate().map(outcome).collect())
    }
}

/// The labels of the joint problem.
pub fn together(labels: &Labels) -> Labels {
    Labels { targets: vec![JOINT.to_string()], units: Vec::new(), ..labels.clone() }
}

/// Searches for the laws of `components` as one problem, made from them by [`Joint::new`], and offers files as
/// [`job::run`] does; `laws.json` holds the laws of the components.
///
/// # Errors
/// Those of [`job::run`].
#[expect(clippy::too_many_arguments, reason = "those of job::run, and how the problems join")]
pub fn run(
    evaluator: &Evaluator,
    components: &[Problem],
    (joint, problem): &(Joint, Problem),
    labels: &Labels,
    settings: &Settings,
    select: Select,
    earlier: Earlier,
    observer: &dyn Observer,
) -> Result<Vec<Outcome>> {
    let together = together(labels);
    let problem = slice::from_ref(problem);
    let mut laws = job::other_laws(earlier.laws.clone(), &labels.targets);
    let found = job::run(evaluator, problem, &together, settings, select, earlier, observer)?;
    let outcomes = joint.apart(components, settings, &found[0])?;
    for (k, ((outcome, target), component)) in
        outcomes.iter().zip(&labels.targets).zip(components).enumerate()
    {
        if let Some(chosen) = outcome.front.select(select) {
            let (entry, names) = (&outcome.front.entries[chosen], &component.names);
            let (units, stage) = (labels.units.get(k), labels.stage);
            laws.push(job::law_in(units, target, stage, entry, names, select.name()));
        }
    }
    job::keep_laws(observer, &laws)?;
    Ok(outcomes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use crate::symbolic::search::search;

    /// Two components of m (1 − 1/r²) (dx, dy), rotated and sheared.
    fn components(rows: usize) -> Vec<Problem> {
        let mut random = Random::new(2, 8);
        let names = ["m", "dx", "dy", "r"].map(String::from).to_vec();
        let empty = Problem { names, columns: vec![Vec::new(); 4], ..Problem::default() };
        let mut components = vec![empty.clone(), empty];
        for _ in 0..rows {
            let (m, dx, dy) = (random.normal().exp(), random.normal(), random.normal());
            let r = dx.hypot(dy) + 0.1;
            let force = m * (1.0 - 1.0 / (r * r));
            for (k, [a, b]) in [[0.7, -1.9], [0.02, 0.05]].into_iter().enumerate() {
                let row = [m, dx, dy, r].map(|v| v as f32);
                (0..4).for_each(|c| components[k].columns[c].push(row[c]));
                components[k].target.push((force * (a * dx + b * dy) + 0.3) as f32);
            }
        }
        components
    }

    #[test]
    fn components_share_one_factor() {
        let components = components(1000);
        let vector = ["dx", "dy"].map(String::from);
        let (joint, problem) = Joint::new(&components, &vector).unwrap();
        assert_eq!((problem.target.len(), problem.columns.len()), (2000, 5));
        let settings = Settings { evaluations: Some(40_000), ..Settings::default() };
        let outcome =
            search(&Evaluator::cpu(), &[problem], &settings, None, &(), &mut |_| {}).unwrap();
        let chosen = outcome[0].front.select(Select::Best).unwrap();
        let formulas = joint.formulas(&outcome[0].parts[chosen]);
        for (formula, component) in formulas.iter().zip(&components) {
            for row in 0..100 {
                let values: Vec<f64> =
                    component.columns.iter().map(|c| f64::from(c[row])).collect();
                let y = f64::from(component.target[row]);
                let text = formula.text(&component.names);
                assert!((formula.eval(&values) - y).abs() < 1e-3 * (1.0 + y.abs()), "{text}");
            }
        }
    }

    #[test]
    fn rows_without_weight_say_nothing_about_the_spread() {
        let mut component = components(200).remove(0);
        component.weights = Some(vec![1.0; 200]);
        let clean = spread(&component);
        component.target.extend([1e6, -1e6]);
        component.weights.as_mut().unwrap().extend([0.0, 0.0]);
        assert_eq!(spread(&component), clean);
    }

    #[test]
    fn components_that_do_not_fit_together_are_errors() {
        let mut components = components(20);
        let error = |components: &[Problem], vector: &[&str]| {
            let vector: Vec<String> = vector.iter().map(|v| v.to_string()).collect();
            Joint::new(components, &vector).unwrap_err().to_string()
        };
        assert!(error(&components, &["dz"]).contains("'dz'"));
        assert!(error(&components, &["dx", "dy", "dx"]).contains("'dx' twice"));
        assert!(error(&components, &["m", "dx", "dy", "r"]).contains("other column"));
        components[1].names[0] = "mass".into();
        assert!(error(&components, &["dx"]).contains("different columns"));
    }
}
