//! Table 6 of the paper: formulas for the overdensity around a halo, with published and refitted constants,
//! on held-out space and on hidden overdensities.
//!
//! Positions are divided by 288.675 Mpc/h, masses and velocities by their standard deviations. The paper
//! does not say so, but its constants fit in these units.

use serde::Serialize;

use super::formula::{Nodes, measure, parse, terms};
use super::graph::Graph;
use super::halos::errors;
use super::run::{self, check_graph};
use super::split::{Split, mean_and_jackknife};
use crate::device::Device;
use crate::distill::formula::Formula;
use crate::error::{Error, Result};
use crate::network::model::Model;
pub use crate::network::system::Measure;
use crate::observer::Observer;
use crate::store::run::RunFolder;
use crate::symbolic::job::LAWS;

/// Radius of the ball of the overdensity, Mpc/h.
const BALL: f64 = 20.0;

/// A formula from the paper.
pub struct Published {
    /// Its name in the table.
    pub name: &'static str,
    messages: &'static [&'static str],
    node: &'static str,
    /// The error given in the paper.
    pub error: f64,
}

/// Section 4.3 and table 6, constants as printed. The soft step (C6 r)^C7 ends at 20.5 Mpc/h.
pub const PUBLISHED: [Published; 4] = [
    Published { name: "constant", messages: &[], node: "0.415", error: 0.421 },
    Published {
        name: "by hand",
        messages: &["m2 * (r < 0.06928203230275509)"],
        node: "-0.0376 + (0.0529 + m * 0.000927) * e0",
        error: 0.121,
    },
    Published {
        name: "found, without mass",
        messages: &["(1.54 + dv) / (50.165 + (18.94 * r) ^ 13.21)"],
        node: "-0.199 + e0 / (1.31 + 0.027 * e0 * v)",
        error: 0.120,
    },
    Published {
        name: "found, with mass",
        messages: &["(0.438 + m2) / (7.06 + (15.5 * r) ^ 20.3)"],
        node: "-0.156 + e0 / (3.80 + 0.0809 * m)",
        error: 0.0882,
    },
];

impl Published {
    /// The formula with its published constants.
    pub fn formula(&self) -> Formula {
        parse(self.messages, self.node).expect("the formulas of the paper parse")
    }
}

/// One row of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Name of the formula, or the network.
    pub name: String,
    /// The paper's error; `None` if it gives none.
    pub published: Option<f64>,
    /// Error with the published constants, on all nodes.
    pub as_published: Option<f64>,
    /// Error with constants refitted on all nodes, on all nodes.
    pub refitted: Option<f64>,
    /// Error with constants fitted to the nodes outside the slab and its buffer, on these nodes.
    pub train: Option<Measure>,
    /// The same on the slab.
    pub test: Option<Measure>,
    /// Error on the slab with constants fitted to the slab itself: the best the formula could reach there.
    pub test_fitted_there: Option<f64>,
    /// With constants fitted only to training nodes up to the limit on overdensity: error on the slab up to it, …
    pub seen: Option<Measure>,
    /// … and on the hidden nodes above it.
    pub hidden: Option<Measure>,
    /// The formula refitted on all nodes, as text.
    pub equations: Vec<String>,
}

impl Measure {
    /// The measure of the absolute errors of some nodes.
    pub fn of(graph: &Graph, nodes: &[u32], errors: &[f64]) -> Self {
        let (error, jackknife) = mean_and_jackknife(graph, nodes, errors);
        let finite = |v: f64| if v.is_finite() { v } else { f64::INFINITY };
        Measure { error: finite(error), jackknife: finite(jackknife) }
    }
}

/// Fits a formula in every way listed in the table.
///
/// # Errors
/// Those of [`Formula::refit`].
pub fn row(
    device: &Device,
    graph: &Graph,
    features: &[f32],
    name: &str,
    formula: &Formula,
    hide_above: f64,
    observer: &dyn Observer,
) -> Result<Row> {
    let all: Vec<u32> = (0..graph.about.nodes as u32).collect();
    let on = |nodes: &'_ [u32], formula: &Formula| measure(device, graph, features, nodes, formula);
    let fitted = |nodes: &[u32]| -> Result<Formula> {
        let mut fitted = formula.clone();
        fitted.refit_on(&Nodes::new(device, graph, features, nodes)?, observer)?;
        Ok(fitted)
    };
    let everywhere = fitted(&all)?;
    let split = Split::new(graph, None)?;
    let outside = fitted(&split.train)?;
    let hiding = Split::new(graph, Some(hide_above))?;
    let low = fitted(&hiding.train)?;
    let hidden = match hiding.hidden.is_empty() {
        true => None,
        false => Some(on(&hiding.hidden, &low)?),
    };
    Ok(Row {
        name: name.to_string(),
        published: None,
        as_published: None,
        refitted: Some(on(&all, &everywhere)?.error),
        train: Some(on(&split.train, &outside)?),
        test: Some(on(&split.test, &outside)?),
        test_fitted_there: Some(on(&split.test, &fitted(&split.test)?)?.error),
        seen: Some(on(&hiding.test, &low)?),
        hidden,
        equations: everywhere.equations(),
    })
}

/// The rows of the paper's formulas.
///
/// # Errors
/// A graph without target; a radius below 20 Mpc/h; `interrupted`.
pub fn published(
    device: &Device,
    graph: &Graph,
    hide_above: f64,
    observer: &dyn Observer,
) -> Result<Vec<Row>> {
    if graph.about.radius < BALL {
        let message = format!(
            "is {} Mpc/h; the formulas of the paper sum over a ball of {BALL} Mpc/h",
            graph.about.radius
        );
        return Err(Error::input(message).file(graph.path()).field("radius"));
    }
    let features = graph.scaled_features();
    let all: Vec<u32> = (0..graph.about.nodes as u32).collect();
    let bar = observer.bar("table 6", PUBLISHED.len() as u64, "formulas", 0);
    let mut rows = Vec::new();
    for published in &PUBLISHED {
        let formula = published.formula();
        let mut found =
            row(device, graph, &features, published.name, &formula, hide_above, observer)?;
        found.published = Some(published.error);
        found.as_published = Some(measure(device, graph, &features, &all, &formula)?.error);
        rows.push(found);
        bar.add(1);
    }
    Ok(rows)
}

/// The rows of a run: its network, with the errors of its own training, and the formula found from it, fitted
/// like the others.
///
/// # Errors
/// Files of the run that cannot be read; those of [`row`].
pub fn of_run(
    device: &Device,
    graph: &Graph,
    folder: &RunFolder,
    hide_above: f64,
    observer: &dyn Observer,
) -> Result<[Row; 2]> {
    let features = graph.scaled_features();
    let formula = Formula::read(folder, terms())?.ok_or_else(|| {
        let message = "has no composed formula for an overdensity: run compose on it first";
        Error::input(message).file(folder.file(LAWS))
    })?;
    let found = row(device, graph, &features, "found by this run", &formula, hide_above, observer)?;
    let model = Model::load(&folder.file("model.safetensors"))?;
    check_graph(&model, graph)?;
    let (test, hidden) = errors(device, graph, &model)?;
    let hides = hidden.is_some();
    // Errors are comparable only if the training hid the same overdensities.
    let same = run::hide_above(&model) == Some(hide_above);
    let network = Row {
        name: "its network".to_string(),
        published: None,
        as_published: None,
        refitted: None,
        train: None,
        test: Some(test).filter(|_| !hides),
        test_fitted_there: None,
        seen: Some(test).filter(|_| same),
        hidden: hidden.filter(|_| same),
        equations: vec![],
    };
    Ok([found, network])
}

/// The table as text.
pub fn text(rows: &[Row], hide_above: f64) -> String {
    let number = |v: Option<f64>| v.map_or("-".to_string(), |v| format!("{v:.4}"));
    let measure = |m: Option<Measure>| {
        m.map_or("-".to_string(), |m| format!("{:.4} ± {:.4}", m.error, m.jackknife))
    };
    let mut lines = vec![
        "mean absolute error of the overdensity".to_string(),
        format!(
            "{:<22} {:>9} {:>12} {:>9} {:>16} {:>16} {:>13} {:>16} {:>16}",
            "formula",
            "paper",
            "its numbers",
            "refitted",
            "train",
            "held-out slab",
            "fitted there",
            format!("d <= {hide_above}, slab"),
            format!("d > {hide_above}, hidden"),
        ),
    ];
    for row in rows {
        lines.push(format!(
            "{:<22} {:>9} {:>12} {:>9} {:>16} {:>16} {:>13} {:>16} {:>16}",
            row.name,
            number(row.published),
            number(row.as_published),
            number(row.refitted),
            measure(row.train),
            measure(row.test),
            number(row.test_fitted_there),
            measure(row.seen),
            measure(row.hidden),
        ));
    }
    for row in rows.iter().filter(|row| !row.equations.is_empty()) {
        lines.push(String::new());
        lines.push(format!("{}, refitted on all halos:", row.name));
        lines.extend(row.equations.iter().map(|line| format!("  {line}")));
    }
    lines.join("\n")
}
