//! `messages.json`: what a run has found so far; the document of `messages --json` and `distill --json`.

use serde::{Deserialize, Serialize};

use super::forces::Verdict;
use super::messages::{Component, Measured};
use crate::error::{Error, Result};
use crate::store::run::RunFolder;
use crate::symbolic::front::Entry;

/// What a run has found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Summary {
    /// The kept message components, the most significant first.
    pub components: Vec<ComponentSummary>,
    /// Messages with more than 1 % of the largest significance.
    pub survivors: usize,
    /// Mean over nodes of the L1 norm of the error of the acceleration, on fresh test data.
    pub test_loss: Losses,
    /// The same on random states twice as wide as the initial states of the training, where the law is known.
    pub outside_loss: Losses,
    /// Wall-clock of the stages.
    pub seconds: Seconds,
}

/// One kept message component.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ComponentSummary {
    /// Its number among the messages that training began with.
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
    /// True where the law is the true one on fresh inputs (docs/design.md §4); `None` where the truth is not known.
    pub recovered: Option<bool>,
    /// How it was judged.
    pub verdict: Option<Verdict>,
}

/// The chosen expression of a component.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LawSummary {
    /// Infix.
    pub equation: String,
    /// The same for a paper.
    pub latex: String,
    /// Its complexity.
    pub complexity: u32,
    /// Its loss on the rows of the search.
    pub loss: f64,
}

impl LawSummary {
    /// The summary of an entry of a front.
    pub fn of(entry: &Entry, names: &[String]) -> Self {
        LawSummary {
            equation: entry.expression.text(names),
            latex: entry.expression.latex(names),
            complexity: entry.complexity,
            loss: entry.loss,
        }
    }
}

/// Test losses.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Losses {
    /// Of the network.
    pub network: Option<f64>,
    /// Of the composed formula.
    pub formula: Option<f64>,
}

/// Wall-clock of the stages.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Seconds {
    /// Simulating the data.
    pub simulate: f64,
    /// Training the network.
    pub train: f64,
    /// Searching the laws of messages and nodes.
    pub regress: f64,
    /// Everything but the report.
    pub total: f64,
}

impl Summary {
    /// What is known once the messages are measured.
    pub fn of(measured: &Measured) -> Self {
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
        Summary {
            components: measured.kept.iter().map(component).collect(),
            survivors: measured.survivors(),
            ..Summary::default()
        }
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

    /// The losses, one line each.
    pub fn losses(&self) -> String {
        let pair = |losses: &Losses| {
            let number = |v: Option<f64>| v.map_or("-".to_string(), |v| format!("{v:.5}"));
            format!("network {}, formula {}", number(losses.network), number(losses.formula))
        };
        let Seconds { simulate, train, regress, total } = self.seconds;
        format!(
            "test loss: {}\ntest loss on states twice as wide: {}\nseconds: simulate {simulate:.1}, train {train:.1}, regress \
             {regress:.1}, total {total:.1}",
            pair(&self.test_loss),
            pair(&self.outside_loss),
        )
    }
}
