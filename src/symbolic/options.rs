//! The options of a symbolic regression, for calls, the command line, config.toml and batches.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::front::Select;
use super::mutate::{KINDS, Kind};
use super::settings::{Constraints, Settings};
use super::shape::Shape;
use crate::error::{Error, Result};
use crate::formula::definition::Definition;
use crate::formula::expression::{Expression, Op, Weights};
use crate::ops::expression::Loss;
use crate::options;
use crate::options::Choice;

/// Default number of formulas, if neither --evaluations nor --seconds is given.
const EVALUATIONS: u64 = 500_000;

/// The largest complexity and number of islands: more than a search can use, but small enough for memory.
const MOST_COMPLEX: u64 = 10_000;
const MOST_ISLANDS: u64 = 10_000;

/// The largest number in a TOML file.
const LARGEST: u64 = i64::MAX as u64;

options! {
    /// Options for the search of a table.
    pub struct Options {
        /// Columns to find formulas for, each on its own (required for a table)
        target: Vec<String> = Vec::new() => [.value("COLUMNS")];
        /// Columns dx, dy, ... of a vector: each target is f(other inputs) * (a * dx + b * dy + ...) + c, with the same
        /// f for all targets and its own a, b, c for each, like the components of a force
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        joint: Vec<String> = Vec::new() => [.value("COLUMNS")];
        /// Columns that formulas may use [default: all others]
        inputs: Vec<String> = Vec::new() => [.value("COLUMNS")];
        /// Operators that formulas may use, separated by commas.
        operators: String = "+,-,*,/,^,exp,log,>,<,IF".to_string() => [.help(format!("Operators that formulas may use: {}", Op::names())).hyphens()];
        /// An operator of your own, such as "gauss(x, s) = exp(-(x / s)^2)"; may be given several times
        define: Vec<String> = Vec::new() => [.value("DEFINITION").repeated()];
        /// Complexities of operators and columns, such as "^=2,gauss=3,constant=2,variable=1,dx=2"
        complexity: Vec<String> = Vec::new() => [.value("LIST").hyphens()];
        /// Largest complexity of a formula; see [`Weights`].
        max_complexity: u32 = 30 => [.value("N").help(format!("Largest complexity of a formula: {}", complexities()))];
        /// Largest depth of a formula, in nodes from the root to a leaf
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_depth: Option<usize> = None => [.value("N")];
        /// Largest complexity of operands, such as "^=9:1,exp=5" (empty before or after a colon: no limit)
        limit_operands: Vec<String> = Vec::new() => [.value("LIST").hyphens()];
        /// How often operators may occur inside others, such as "exp:exp=0,sin:cos=1"
        limit_nesting: Vec<String> = Vec::new() => [.value("LIST").hyphens()];
        /// What is known of the law: positive, negative, increasing(COLUMN), decreasing(COLUMN), convex(COLUMN),
        /// concave(COLUMN); formulas that are not so within the range of the data are not considered
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        shape: Vec<String> = Vec::new() => [.value("LIST")];
        /// Share of the search during which formulas grow to --max-complexity
        warm_up: f64 = 0.0 => [.value("SHARE")];
        /// Weights of the mutations, such as "grow=2,delete=1" (docs/regress.md lists them)
        mutations: Vec<String> = Vec::new() => [.value("LIST")];
        /// Loss to minimise: mae, mse, huber:DELTA, quantile:Q, or the loss of a row as an expression in
        /// prediction, target and weight
        loss: String = "mae".to_string() => [.value("LOSS")];
        /// Column with the weights of the rows
        #[serde(default, skip_serializing_if = "Option::is_none")]
        weights: Option<String> = None => [.value("COLUMN")];
        /// Column with the standard errors of the target: rows weigh 1/error^2 under mse and 1/error under mae
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sigma: Option<String> = None => [.value("COLUMN")];
        /// With --sigma: columns with the standard errors of inputs, such as "x=dx,t=dt"; they count by the slope of the law
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        x_sigma: Vec<String> = Vec::new() => [.value("LIST").requires("sigma")];
        /// Leave out rows that lack a value in one of the columns used
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        drop_missing: bool = false;
        /// Share of the rows, drawn at random, that is kept from the search and used to choose the law
        #[serde(default, skip_serializing_if = "Option::is_none")]
        validation: Option<f64> = None => [.value("SHARE")];
        /// Repeat the search on N shuffled targets, and count those that are fitted as well
        #[serde(default, skip_serializing_if = "Option::is_none")]
        null: Option<u64> = None => [.value("N")];
        /// Number of formulas to keep at each complexity (kept.csv)
        keep: usize = 1 => [.value("K")];
        /// A formula to start from, or with --template parts such as "f(u, v) = u / v"; may be given several times
        guess: Vec<String> = Vec::new() => [.value("FORMULA").hyphens().repeated()];
        /// A finished run whose formulas the search starts from
        #[serde(default, skip_serializing_if = "Option::is_none")]
        warm_start: Option<PathBuf> = None => [.value("FOLDER")];
        /// Use only the N inputs that say most about the target
        #[serde(default, skip_serializing_if = "Option::is_none")]
        select_features: Option<usize> = None => [.value("N")];
        /// Rows that the search sees at a time; formulas that enter the front are fitted on all rows
        batch_rows: usize = 512 => [.value("N")];
        /// Number of populations that evolve side by side
        islands: usize = 8 => [.value("N")];
        /// Smooth the target with a Gaussian process before the search
        denoise: bool = false;
        /// Units of columns, such as "m=kg,r=m,F=kg*m/s^2,phi=1"; formulas that violate them are not considered
        #[serde(default, skip_serializing_if = "Option::is_none")]
        units: Option<String> = None => [.value("LIST")];
        /// With --units: constants have no units
        pure_constants: bool = false => [.requires("units")];
        /// Form of the formula with functions to search for, such as "f(r, m1, m2) * dx + g(r) * dy", or with
        /// numbers to fit, such as "a * exp(-b * x)"; p[column] is a number for each value of a column
        #[serde(default, skip_serializing_if = "Option::is_none")]
        template: Option<String> = None => [.value("FORMULA")];
        /// Stop after N formulas [default: 500000, or no limit with --seconds]
        #[serde(default, skip_serializing_if = "Option::is_none")]
        evaluations: Option<u64> = None => [.value("N")];
        /// Stop after S seconds
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seconds: Option<f64> = None => [.value("S")];
        /// Stop once the loss is this small
        #[serde(default, skip_serializing_if = "Option::is_none")]
        target_loss: Option<f64> = None => [.value("LOSS")];
        /// Rule that chooses the law from the front
        select: Select = Select::Shortest;
    }
}

impl Options {
    /// An error if an option differs from its default and is not one of `allowed`.
    pub fn only(&self, allowed: &[&str], why: &str) -> Result<()> {
        let value = |options| serde_json::to_value(options).expect("plain data");
        let (own, default) = (value(self), value(&Options::default()));
        let none = serde_json::Map::new();
        let own = own.as_object().unwrap_or(&none);
        let given = |(key, value): &(&String, &serde_json::Value)| {
            default.get(key.as_str()) != Some(*value) && !allowed.contains(&key.as_str())
        };
        match own.iter().find(given) {
            Some((key, _)) => Err(Error::usage(why).field(format!("--{}", key.replace('_', "-")))),
            None => Ok(()),
        }
    }

    /// True if a search may see columns in their own units: its formulas can be converted, and nothing user-defined
    /// computes with the values.
    ///
    /// # Errors
    /// Operators or a loss that cannot be parsed.
    pub(super) fn own_units(&self) -> Result<bool> {
        let operators = operators(&self.operators)?;
        let writes = [Op::Add, Op::Mul].iter().all(|op| operators.contains(op));
        let (_, row_loss) = loss(&self.loss, &self.definitions()?)?;
        Ok(writes && row_loss.is_none() && self.template.is_none() && self.joint.is_empty())
    }

    /// The inputs with standard errors, and the columns of these.
    pub(super) fn errors_of_inputs(&self) -> Result<Vec<(String, String)>> {
        let read =
            |item: &String| pair(item, "x-sigma").map(|(a, b)| (a.to_string(), b.to_string()));
        self.x_sigma.iter().map(read).collect()
    }

    /// The user-defined operators.
    pub fn definitions(&self) -> Result<Vec<Definition>> {
        let define = |text: &String| Definition::parse(text).map_err(|e| e.field("define"));
        self.define.iter().map(define).collect()
    }

    /// Settings for formulas of `inputs`; options about other columns of the `table` are ignored.
    ///
    /// # Errors
    /// A list that cannot be parsed, a limit that is 0 or too large for a computer, an unknown name.
    pub fn settings(&self, inputs: &[String], table: &[String], seed: u64) -> Result<Settings> {
        if self.seconds.is_some_and(|s| !(s.is_finite() && s > 0.0)) {
            return Err(Error::usage("must be a number larger than 0").field("seconds"));
        }
        // It may be negative where a user-defined loss is.
        if self.target_loss.is_some_and(|loss| !loss.is_finite()) {
            return Err(Error::usage("must be a number").field("target-loss"));
        }
        for (field, share) in [("warm-up", Some(self.warm_up)), ("validation", self.validation)] {
            if share.is_some_and(|share| !(0.0..1.0).contains(&share)) {
                return Err(Error::usage("must be at least 0 and below 1").field(field));
            }
        }
        let counts = [
            ("max-complexity", Some(u64::from(self.max_complexity)), MOST_COMPLEX),
            ("max-depth", self.max_depth.map(|v| v as u64), LARGEST),
            ("islands", Some(self.islands as u64), MOST_ISLANDS),
            ("evaluations", self.evaluations, LARGEST),
            ("batch-rows", Some(self.batch_rows as u64), LARGEST),
            ("keep", Some(self.keep as u64), LARGEST),
            ("select-features", self.select_features.map(|v| v as u64), LARGEST),
        ];
        for (field, value, most) in counts {
            if value.is_some_and(|v| v == 0 || v > most) {
                return Err(Error::usage(format!("must be from 1 to {most}")).field(field));
            }
        }
        if seed > LARGEST {
            return Err(Error::usage(format!("must not be larger than {LARGEST}")).field("seed"));
        }
        let definitions = self.definitions()?;
        let operators = operators(&self.operators)?;
        if operators.is_empty() && definitions.is_empty() {
            return Err(Error::usage("at least one operator is needed").field("operators"));
        }
        let (loss, row_loss) = loss(&self.loss, &definitions)?;
        self.errors_of_inputs()?;
        if self.sigma.is_none() && !self.x_sigma.is_empty() {
            let message = "needs --sigma, the standard errors of the target";
            return Err(Error::usage(message).field("x-sigma"));
        }
        if self.sigma.is_some() {
            let message = match (&self.weights, &row_loss) {
                (Some(_), _) => "cannot be combined with --weights: both weight the rows",
                (_, Some(_)) => "goes with --loss mae or mse; any other loss takes --weights",
                _ if self.target.len() > 1 => "needs a single target",
                _ => "",
            };
            if !message.is_empty() {
                return Err(Error::usage(message).field("sigma"));
            }
        }
        let evaluations = match (self.evaluations, self.seconds) {
            (None, None) => Some(EVALUATIONS),
            (evaluations, _) => evaluations,
        };
        Ok(Settings {
            operators,
            weights: self.complexities(inputs, table, &definitions)?,
            definitions,
            loss,
            row_loss,
            max_complexity: self.max_complexity,
            warm_up: self.warm_up,
            constraints: self.constraints()?,
            shapes: self
                .shape
                .iter()
                .map(|text| Shape::parse(text, inputs))
                .collect::<Result<_>>()?,
            mutations: self.mutations()?,
            batch_rows: self.batch_rows,
            keep: self.keep,
            islands: self.islands,
            evaluations,
            seconds: self.seconds,
            target_loss: self.target_loss,
            seed,
        })
    }

    fn complexities(
        &self,
        inputs: &[String],
        table: &[String],
        definitions: &[Definition],
    ) -> Result<Weights> {
        let mut weights = Weights {
            definitions: definitions.iter().map(|d| (d.body.clone(), 1)).collect(),
            ..Weights::default()
        };
        let mut columns = vec![None; inputs.len()];
        for item in &self.complexity {
            let (name, value) = pair(item, "complexity")?;
            let value = number::<u16>(value, item, "complexity")?;
            if value == 0 {
                let message = format!("'{item}': a complexity must be at least 1");
                return Err(Error::usage(message).field("complexity"));
            }
            let input = inputs.iter().position(|input| input == name);
            let own = definitions.iter().position(|d| d.name == name);
            match (Op::from_name(name), own, input) {
                _ if name == "constant" => weights.constant = value,
                _ if name == "variable" => weights.variable = value,
                (Some(op), ..) => weights.op[op as usize] = value,
                (None, Some(own), _) => weights.definitions[own].1 = value,
                (None, None, Some(input)) => columns[input] = Some(value),
                (None, None, None) if table.iter().any(|column| column == name) => {}
                (None, None, None) => {
                    let message = format!("'{name}' is neither an operator nor a column");
                    return Err(Error::usage(message).field("complexity"));
                }
            }
        }
        if columns.iter().any(Option::is_some) {
            let variable = weights.variable;
            weights.variables = columns.into_iter().map(|c| c.unwrap_or(variable)).collect();
        }
        Ok(weights)
    }

    fn constraints(&self) -> Result<Constraints> {
        let mut constraints = Constraints { max_depth: self.max_depth, ..Constraints::default() };
        for item in &self.limit_operands {
            let (name, limits) = pair(item, "limit-operands")?;
            let op = operator(name, "limit-operands")?;
            let limits: Vec<&str> = limits.split(':').collect();
            if limits.len() > op.arity() {
                let message = format!("'{name}' has {} operands, not {}", op.arity(), limits.len());
                return Err(Error::usage(message).field("limit-operands"));
            }
            for (operand, limit) in limits.into_iter().enumerate().filter(|l| !l.1.is_empty()) {
                constraints.sizes.push((op, operand, number(limit, item, "limit-operands")?));
            }
        }
        for item in &self.limit_nesting {
            let (pair_of, most) = pair(item, "limit-nesting")?;
            let Some((outer, inner)) = pair_of.split_once(':') else {
                let message = format!("'{item}' must name two operators, as in exp:exp=0");
                return Err(Error::usage(message).field("limit-nesting"));
            };
            let [outer, inner] = [outer, inner].map(|name| operator(name, "limit-nesting"));
            constraints.nested.push((outer?, inner?, number(most, item, "limit-nesting")?));
        }
        Ok(constraints)
    }

    fn mutations(&self) -> Result<[f64; KINDS.len()]> {
        let mut weights = KINDS.map(|k| k.1);
        for item in &self.mutations {
            let (name, value) = pair(item, "mutations")?;
            let Some(kind) = Kind::of_name(&name.to_lowercase()) else {
                let kinds: Vec<&str> = Kind::NAMES.iter().map(|kind| kind.name).collect();
                let message =
                    format!("'{name}' is not a mutation; the mutations are {}", kinds.join(", "));
                return Err(Error::usage(message).field("mutations"));
            };
            let weight: f64 = number(value, item, "mutations")?;
            if !(weight.is_finite() && weight >= 0.0) {
                return Err(Error::usage("a weight must be 0 or more").field("mutations"));
            }
            for (index, known) in KINDS.iter().enumerate() {
                if known.0 == kind {
                    weights[index] = weight;
                }
            }
        }
        if weights.iter().sum::<f64>() <= 0.0 {
            return Err(Error::usage("at least one mutation must be possible").field("mutations"));
        }
        Ok(weights)
    }
}

fn pair<'a>(item: &'a str, field: &str) -> Result<(&'a str, &'a str)> {
    let parts = item.split_once('=').map(|(name, value)| (name.trim(), value.trim()));
    parts.ok_or_else(|| Error::usage(format!("'{item}' must read name=value")).field(field))
}

fn number<T: std::str::FromStr>(text: &str, item: &str, field: &str) -> Result<T> {
    let error =
        |_| Error::usage(format!("'{text}' in '{item}' is not a valid number")).field(field);
    text.trim().parse().map_err(error)
}

/// The default complexities: "1 for each node, 3 for ^ exp log IF".
fn complexities() -> String {
    let mut text = "1 for each node".to_string();
    let weights: BTreeSet<u16> = Op::ALL.map(|op| op.row().complexity).into();
    for weight in weights.into_iter().filter(|&weight| weight > 1) {
        let of = Op::ALL.into_iter().filter(|op| op.row().complexity == weight);
        text += &format!(", {weight} for {}", of.map(Op::name).collect::<Vec<_>>().join(" "));
    }
    text
}

fn operator(name: &str, field: &str) -> Result<Op> {
    Op::from_name(name.trim()).ok_or_else(|| {
        let message = format!("'{name}' is not an operator; the operators are {}", Op::names());
        Error::usage(message).field(field)
    })
}

/// The operators of a comma-separated list.
pub fn operators(text: &str) -> Result<Vec<Op>> {
    let mut operators = Vec::new();
    for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let op = operator(name, "operators")?;
        if !operators.contains(&op) {
            operators.push(op);
        }
    }
    Ok(operators)
}

/// A loss by its name, or as an expression for one row.
fn loss(text: &str, definitions: &[Definition]) -> Result<(Loss, Option<Expression>)> {
    let error = |message: String| Error::usage(message).field("loss");
    let (name, parameter) = text.split_once(':').unwrap_or((text, ""));
    let parameter = || -> Result<f64> { number(parameter, text, "loss") };
    let size = "abs(target - prediction)";
    let row = match name.trim() {
        "mae" => return Ok((Loss::Mae, None)),
        "mse" => return Ok((Loss::Mse, None)),
        "huber" => {
            let delta = if text.contains(':') { parameter()? } else { 1.0 };
            if !(delta.is_finite() && delta > 0.0) {
                return Err(error(format!("the width of '{text}' must be larger than 0")));
            }
            // Quadratic within delta, linear outside.
            format!("min({size}, {delta}) * ({size} - 0.5 * min({size}, {delta}))")
        }
        "quantile" => {
            let q = parameter()?;
            if !(q > 0.0 && q < 1.0) {
                return Err(error(format!("the quantile of '{text}' must lie between 0 and 1")));
            }
            format!("max({q} * (target - prediction), {} * (prediction - target))", 1.0 - q)
        }
        _ => text.to_string(),
    };
    let names = ["prediction", "target", "weight"];
    let row = Expression::parse_with(&row, &names, definitions).map_err(|e| {
        let names =
            "mae, mse, huber:DELTA, quantile:Q or an expression in prediction, target, weight";
        error(format!("is {names}; {}", e.message))
    })?;
    if !row.depends_on(0) {
        return Err(error(format!("'{text}' does not depend on the prediction")));
    }
    Ok((Loss::Mae, Some(row)))
}

#[cfg(test)]
#[path = "options_tests.rs"]
mod tests;
