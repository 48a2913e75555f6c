//! `messages.json`: what a run has found so far; also the output of `messages --json` and `distill --json`.
//! All systems share one schema; what a system does not have is null or missing.

use serde::{Deserialize, Serialize};

use super::forces::Verdict;
use super::messages::Component;
use super::run::{Judgement, Predictor};
use super::verdict::Conclusion;
use crate::error::{Error, Result};
use crate::formula::rescale::Rescaling;
use crate::network::system::Measure;
use crate::store::run::RunFolder;
use crate::symbolic::front::Entry;

/// What a run has found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Summary {
    /// The kept message components, the most significant first.
    pub components: Vec<ComponentSummary>,
    /// Messages with more than 1 % of the largest significance.
    #[serde(default)]
    pub survivors: usize,
    /// Variables of the laws of the messages.
    #[serde(default)]
    pub inputs: Vec<String>,
    /// The equations of the composed formula.
    #[serde(default)]
    pub formula: Vec<String>,
    /// Mean over nodes of the L1 norm of the error, on data to which nothing was fitted.
    #[serde(default)]
    pub test_loss: Losses,
    /// The same outside the training distribution: on random states twice as wide as the initial states, if the law
    /// is known; on hidden overdensities.
    #[serde(default)]
    pub outside_loss: Losses,
    /// The same on the data to which the formula was fitted.
    #[serde(default)]
    pub fitted_loss: Losses,
    /// Whether there is a law, once that is known.
    #[serde(default)]
    pub verdict: Option<Conclusion>,
    /// Wall-clock times of the stages.
    #[serde(default)]
    pub seconds: Seconds,
}

/// One kept message component.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ComponentSummary {
    /// Its number among the messages before pruning.
    pub index: usize,
    /// Standard deviation; KL: mean of μ² + σ² − log σ².
    pub significance: f64,
    /// R² of the fit to the true forces.
    pub force_r2: Option<f64>,
    /// The same without the worst 10 % of the residuals.
    pub force_r2_trimmed: Option<f64>,
    /// Coefficients of the force components and the offset, of the trimmed fit.
    pub force_fit: Option<Vec<f64>>,
    /// The chosen expression.
    pub law: Option<LawSummary>,
    /// True if the law is the true one on fresh inputs (docs/design.md §4); `None` if the truth is not known.
    pub recovered: Option<bool>,
    /// Details of that judgement.
    pub verdict: Option<Verdict>,
}

/// The chosen expression of a component.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LawSummary {
    /// Infix.
    pub equation: String,
    /// LaTeX.
    pub latex: String,
    /// Its complexity.
    pub complexity: u32,
    /// Its loss on the rows of the search.
    pub loss: f64,
}

impl LawSummary {
    /// The summary of an entry of a front, converted from `units` to the user's, if given.
    pub fn of(entry: &Entry, names: &[String], units: Option<&Rescaling>) -> Self {
        let rescaled = units.map(|units| entry.expression.rescaled(units));
        let expression = rescaled.as_ref().unwrap_or(&entry.expression);
        LawSummary {
            equation: expression.text(names),
            latex: expression.latex(names),
            complexity: entry.complexity,
            loss: entry.loss * units.map_or(1.0, |units| units.output.1),
        }
    }
}

/// Losses of network and formula, with jackknife errors on one large graph.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Losses {
    /// Loss of the network.
    pub network: Option<f64>,
    /// Loss of the composed formula; `None` if it is undefined on some of the data.
    pub formula: Option<f64>,
    /// The jackknife error of the network's loss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_jackknife: Option<f64>,
    /// The jackknife error of the formula's loss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub formula_jackknife: Option<f64>,
}

impl Losses {
    fn set(&mut self, of: Predictor, measure: Option<Measure>) {
        let finite = |v: f64| Some(v).filter(|v| v.is_finite());
        let error = measure.and_then(|m| finite(m.error));
        let jackknife = measure.and_then(|m| finite(m.jackknife));
        match of {
            Predictor::Network => (self.network, self.network_jackknife) = (error, jackknife),
            Predictor::Formula(_) => (self.formula, self.formula_jackknife) = (error, jackknife),
        }
    }

    /// The losses as text.
    fn text(&self) -> String {
        let one = |loss: Option<f64>, jackknife: Option<f64>| match (loss, jackknife) {
            (Some(loss), Some(jackknife)) => format!("{loss:.5} ± {jackknife:.5}"),
            (Some(loss), None) => format!("{loss:.5}"),
            (None, _) => "-".to_string(),
        };
        format!(
            "network {}, formula {}",
            one(self.network, self.network_jackknife),
            one(self.formula, self.formula_jackknife)
        )
    }
}

/// Wall-clock times of the stages.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Seconds {
    /// Simulating the data.
    pub simulate: f64,
    /// Training the network.
    pub train: f64,
    /// Searching for the laws of messages and nodes.
    pub regress: f64,
    /// Everything except the report.
    pub total: f64,
}

impl Summary {
    /// The summary after the messages have been measured.
    pub fn new(kept: &[Component], survivors: usize, inputs: Vec<String>) -> Self {
        let component = |c: &Component| ComponentSummary {
            index: c.index,
            significance: c.significance,
            force_r2: c.force.as_ref().map(|f| f.r2),
            force_r2_trimmed: c.force.as_ref().map(|f| f.r2_trimmed),
            force_fit: c.force.as_ref().map(|f| f.coefficients.clone()),
            law: None,
            recovered: None,
            verdict: None,
        };
        let components = kept.iter().map(component).collect();
        Summary { components, survivors, inputs, ..Summary::default() }
    }

    /// Records how well network or formula predicts.
    pub fn judge(&mut self, found: &Judgement, of: Predictor) {
        self.test_loss.set(of, found.test);
        self.outside_loss.set(of, found.outside);
        self.fitted_loss.set(of, found.fitted);
    }

    /// Writes `messages.json`.
    pub fn write(&self, folder: &RunFolder) -> Result<()> {
        let text = serde_json::to_string_pretty(self).expect("plain data");
        folder.write("messages.json", text.as_bytes())
    }

    /// Reads `messages.json`.
    pub fn read(folder: &RunFolder) -> Result<Self> {
        let path = folder.file("messages.json");
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))?;
        serde_json::from_str(&text)
            .map_err(|e| Error::input(format!("cannot be read: {e}")).file(&path))
    }

    /// The table that `messages` and `distill` print.
    pub fn text(&self) -> String {
        let number = |v: Option<f64>| v.map_or("-".to_string(), |v| format!("{v:.4}"));
        let mut lines = vec![format!(
            "{:>9}  {:>12}  {:>8}  {:>8}  {:>9}  law",
            "component", "significance", "force R²", "trimmed", "recovered"
        )];
        for c in &self.components {
            let recovered = match c.recovered {
                Some(true) => "yes",
                Some(false) => "no",
                None => "-",
            };
            lines.push(format!(
                "{:>9}  {:>12.4}  {:>8}  {:>8}  {:>9}  {}",
                c.index,
                c.significance,
                number(c.force_r2),
                number(c.force_r2_trimmed),
                recovered,
                c.law.as_ref().map_or("-", |law| &law.equation),
            ));
        }
        lines.join("\n")
    }

    /// The formula and its losses, one line each.
    pub fn composed(&self) -> String {
        let mut lines: Vec<String> = self.verdict.iter().map(Conclusion::text).collect();
        if self.components.is_empty() {
            // There was nothing to learn.
            return lines.join("\n");
        }
        lines.extend(self.formula.iter().cloned());
        lines.push(format!("test loss: {}", self.test_loss.text()));
        lines.push(format!("outside its range: {}", self.outside_loss.text()));
        let Seconds { simulate, train, regress, total } = self.seconds;
        lines.push(format!(
            "seconds: simulate {simulate:.1}, train {train:.1}, regress {regress:.1}, total {total:.1}"
        ));
        lines.join("\n")
    }
}
