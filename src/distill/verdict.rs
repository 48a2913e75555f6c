//! The verdict on a run, with or without a known law: the errors of network and formula on data to which nothing
//! was fitted, against those of having no law, and one sentence that says whether there is a law, how good it is,
//! or why there is none.

use serde::{Deserialize, Serialize};

use crate::formula::print::short;
use crate::nbody::derive::MEAN_OF_NORMAL;

/// A formula is a law if it explains at least this fraction of the variance, …
const EXPLAINS: f64 = 0.9;
/// (this fraction for data that no law could explain entirely,)
const EXPLAINS_SCATTER: f64 = 0.2;
/// … and if its error is at most this many times the network's, …
const AS_GOOD: f64 = 1.5;
/// … or at most this fraction of the baseline's. (Planets: 4 % of it may be fifteen times the network's error.)
const NEGLIGIBLE: f64 = 0.005;
/// A formula with an error above this fraction of the baseline's may be an approximation, however good the network is.
const ROUGH: f64 = 0.02;
/// Of two laws the second is taken only if its error is less than this many times that of the first, …
const BETTER: f64 = 0.8;
/// … or than this many times, if it is simpler.
const AS_CLOSE: f64 = 1.02;
/// Errors below this fraction of the baseline's need no reason.
const SMALL: f64 = 0.05;
/// A network whose error is more than this fraction of the baseline's has learned nothing.
const NOTHING: f64 = 0.9;
/// Residuals depend on something if it explains this fraction of them.
const DEPENDS: f64 = 0.2;
/// A body is different if its error is more than this many times that of every other.
const APART: f64 = 3.0;
/// Errors up to this many times those from noise alone are noise.
const NOISE: f64 = 1.3;

/// Whether there is a law.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conclusion {
    /// True if the formula is a law.
    pub found: bool,
    /// The same in words, with the reason.
    pub sentence: String,
    /// The error without a law: that of predicting zero or the mean, whichever is smaller.
    pub baseline: f64,
    /// Score of the network.
    pub network: Score,
    /// Score of the formula.
    pub formula: Score,
}

/// How well something predicts, in the user's units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Mean over nodes of the L1 norm of (true − predicted); `None` if there is no prediction, or if it is
    /// undefined on some of the data.
    pub error: Option<f64>,
    /// 1 − Σ (true − predicted)² / Σ (true − mean)².
    pub r2: Option<f64>,
}

/// Predictions and the truth, in the user's units; `[node, outputs]` each.
pub struct Predictions<'a> {
    /// Outputs of a node.
    pub outputs: usize,
    /// The truth.
    pub targets: &'a [f64],
    /// Predictions of the network.
    pub network: Option<&'a [f64]>,
    /// Predictions of the formula.
    pub formula: Option<&'a [f64]>,
}

/// What is known about the network's residuals.
#[derive(Clone, Debug, Default)]
pub struct ResidualSummary {
    /// Standard deviation of the noise in a component of the targets, if known.
    pub noise: Option<f64>,
    /// The fraction explained by position, if the network could not see it.
    pub place: f64,
    /// The fraction explained by time.
    pub time: f64,
    /// Error of each body, if the bodies are the same in all graphs.
    pub bodies: Vec<f64>,
    /// Residual of the law of the worst message, in standard deviations of the message.
    pub message: Option<f64>,
    /// True if no law can explain the data entirely.
    pub scatter: bool,
    /// The range of the data in what the formula depends on: "distances of 0.3 to 4".
    pub range: String,
}

/// Mean over nodes of the L1 norm of the difference.
fn error(targets: &[f64], predicted: &[f64], outputs: usize) -> f64 {
    let sum: f64 = targets.iter().zip(predicted).map(|(t, p)| (t - p).abs()).sum();
    sum * outputs as f64 / targets.len() as f64
}

impl Score {
    fn of(targets: &[f64], predicted: Option<&[f64]>, means: &[f64]) -> Score {
        let Some(predicted) = predicted else { return Score::default() };
        let outputs = means.len();
        let mut total = 0.0;
        for row in targets.chunks_exact(outputs) {
            total += row.iter().zip(means).map(|(t, mean)| (t - mean).powi(2)).sum::<f64>();
        }
        let left: f64 = targets.iter().zip(predicted).map(|(t, p)| (t - p).powi(2)).sum();
        let finite = |v: f64| Some(v).filter(|v| v.is_finite());
        let r2 = if total > 0.0 { finite(1.0 - left / total) } else { None };
        Score { error: finite(error(targets, predicted, outputs)), r2 }
    }
}

impl Conclusion {
    /// Judges a run by its predictions and residuals.
    pub fn new(data: &Predictions, left: &ResidualSummary) -> Self {
        let Predictions { outputs, targets, network, formula } = *data;
        let nodes = (targets.len() / outputs) as f64;
        let means: Vec<f64> = (0..outputs)
            .map(|k| targets.iter().skip(k).step_by(outputs).sum::<f64>() / nodes)
            .collect();
        let mean: Vec<f64> = targets.iter().enumerate().map(|(k, _)| means[k % outputs]).collect();
        let zero = vec![0.0; targets.len()];
        let [of_zero, of_mean] = [&zero, &mean].map(|guess| error(targets, guess, outputs));
        let (baseline, guess) =
            if of_zero <= of_mean { (of_zero, "zero") } else { (of_mean, "the mean") };
        let network = Score::of(targets, network, &means);
        let formula = Score::of(targets, formula, &means);
        let (found, sentence) = judge((baseline, guess), network, formula, outputs, left);
        Conclusion { found, sentence, baseline, network, formula }
    }

    /// The conclusion that there is nothing to find, with the reason in words.
    pub fn nothing(sentence: String, baseline: f64) -> Self {
        let none = Score::default();
        Conclusion { found: false, sentence, baseline, network: none, formula: none }
    }

    /// True if nothing better needs to be looked for.
    pub fn is_settled(&self) -> bool {
        let small = |error: f64| error <= NEGLIGIBLE * self.baseline;
        self.found && self.formula.error.is_some_and(small)
    }

    /// True if this formula is a law with a much smaller error than the other, or with about the same if it is simpler.
    pub fn is_better(&self, other: &Conclusion, simpler: bool) -> bool {
        let error = |of: &Conclusion| of.formula.error.unwrap_or(f64::INFINITY);
        let limit = if simpler { AS_CLOSE } else { BETTER };
        self.found && (!other.found || error(self) < limit * error(other))
    }

    /// The conclusion on a formula that was fitted to the accelerations without the messages.
    pub fn of_direct(mut self) -> Self {
        self.sentence += " This pair force was fitted to the accelerations directly; the laws of the messages \
                          hold less well or are longer.";
        self
    }

    /// The sentence and the figures, as text.
    pub fn text(&self) -> String {
        let Conclusion { sentence, baseline, network, formula, .. } = self;
        let number = |v: Option<f64>| v.map_or("-".to_string(), short);
        let score = |s: &Score| format!("{} (R² {})", number(s.error), number(s.r2));
        format!(
            "{sentence}\nerror on unseen data: baseline {}, network {}, formula {}",
            short(*baseline),
            score(network),
            score(formula)
        )
    }
}

fn judge(
    (baseline, guess): (f64, &str),
    network: Score,
    formula: Score,
    outputs: usize,
    left: &ResidualSummary,
) -> (bool, String) {
    let noise = left.noise.map(|sigma| sigma * MEAN_OF_NORMAL * outputs as f64);
    let infinite = f64::INFINITY;
    let (of_network, of_formula) =
        (network.error.unwrap_or(infinite), formula.error.unwrap_or(infinite));
    let best = of_network.min(of_formula);
    let is_noise = noise.is_some_and(|noise| of_formula <= NOISE * noise);
    let enough = if left.scatter { EXPLAINS_SCATTER } else { EXPLAINS };
    let explains = formula.r2.unwrap_or(0.0) >= enough || is_noise;
    let as_good =
        of_formula <= AS_GOOD * of_network || of_formula <= NEGLIGIBLE * baseline || is_noise;
    let figures = |error: f64| {
        let share = 100.0 * error / baseline;
        format!("{}, {} % of that of {guess} ({})", short(error), short(share), short(baseline))
    };
    if explains && as_good && of_formula < NOTHING * baseline {
        let noise = match noise {
            Some(_) if is_noise => "; that is the noise of the accelerations",
            _ => "",
        };
        let range = match left.range.as_str() {
            "" => String::new(),
            range => format!("; it was seen to hold for {range}"),
        };
        let r2 = formula.r2.map_or(String::new(), |r2| format!(" (R² {r2:.4})"));
        let error = figures(of_formula);
        let rough = of_formula > ROUGH * baseline && !is_noise && !left.scatter;
        let what = if rough { "A law, or an approximation of one" } else { "A law" };
        let text = format!("{what}: its error on unseen data is {error}{r2}{noise}{range}.");
        return (true, text);
    }
    if let Some(noise) = noise
        && baseline <= NOISE * noise
    {
        let text = format!(
            "No law found: no force within the error bar; the accelerations ({}) are no larger \
             than the noise of their fit ({}).",
            short(baseline),
            short(noise)
        );
        return (false, text);
    }
    let worst = left.bodies.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    let apart = worst.filter(|(body, most)| {
        let others = left.bodies.iter().enumerate().filter(|(other, _)| other != body);
        left.bodies.len() > 2 && others.map(|(_, e)| e * APART).all(|e| e < **most)
    });
    let matters = best > SMALL * baseline;
    let reason = if left.place > DEPENDS && matters {
        format!(
            "the accelerations depend on position, which explains {:.0} % of the network's residual: \
             --external allows for a trap, a well or a wall",
            100.0 * left.place
        )
    } else if of_network > NOTHING * baseline {
        format!("the network learned nothing; its error on unseen data is {}", figures(of_network))
    } else if left.time > DEPENDS && matters {
        format!(
            "the accelerations depend on the time, which explains {:.0} % of the network's residual",
            100.0 * left.time
        )
    } else if let Some((body, most)) = apart.filter(|_| matters) {
        format!(
            "body {} is different from the others: the network's error is {} for it, {} for all",
            body + 1,
            short(*most),
            short(of_network)
        )
    } else if formula.error.is_none() {
        "no formula is defined on all unseen data".to_string()
    } else if as_good {
        format!(
            "neither network nor formula explains much; the formula's error is {}",
            figures(of_formula)
        )
    } else {
        let message = match left.message {
            Some(share) if share > DEPENDS => format!(
                "; the law of a message leaves {:.0} % of it unexplained: messages are not functions of \
                 distances, masses and charges alone",
                100.0 * share
            ),
            _ => String::new(),
        };
        format!(
            "the formula is {} times worse than the network ({} against {}){message}",
            short(of_formula / of_network),
            short(of_formula),
            short(of_network)
        )
    };
    (false, format!("No law found: {reason}."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// Judges predictions with normal errors of these sizes.
    fn judged(network: f64, formula: f64, left: &ResidualSummary) -> Conclusion {
        let mut random = Random::new(2, 0);
        let mut some = |size: f64| (0..2000).map(|_| size * random.normal()).collect::<Vec<f64>>();
        let targets = some(1.0);
        let mut off = |size: f64| {
            let noise = some(size);
            targets.iter().zip(&noise).map(|(t, n)| t + n).collect::<Vec<f64>>()
        };
        let (network, formula) = (off(network), off(formula));
        let (network, formula) = (Some(&network[..]), Some(&formula[..]));
        Conclusion::new(&Predictions { outputs: 2, targets: &targets, network, formula }, left)
    }

    #[test]
    fn a_good_formula_is_a_law_and_a_bad_one_says_why() {
        let none = ResidualSummary::default();
        let law = judged(0.02, 0.001, &none);
        assert!(law.found && law.sentence.starts_with("A law: "), "{law:?}");
        assert!(law.formula.r2.unwrap() > 0.9999 && law.baseline > 1.5, "{law:?}");
        let rough = judged(0.1, 0.1, &none);
        assert!(
            rough.found && rough.sentence.starts_with("A law, or an approximation"),
            "{rough:?}"
        );
        let worse = judged(0.01, 0.32, &none);
        assert!(
            !worse.found && worse.sentence.contains("times worse than the network"),
            "{worse:?}"
        );
        let nothing = judged(1.0, 1.0, &none);
        assert!(!nothing.found && nothing.sentence.contains("learned nothing"), "{nothing:?}");
        // Small compared with the baseline, but the network is far better.
        let poor = judged(0.002, 0.03, &none);
        assert!(!poor.found && poor.sentence.contains("times worse than the network"), "{poor:?}");
        let both = judged(0.6, 0.6, &none);
        assert!(!both.found && both.sentence.contains("neither network nor formula"), "{both:?}");
    }

    #[test]
    fn what_is_left_over_is_explained() {
        let said = |left: ResidualSummary| judged(0.5, 0.5, &left).sentence;
        assert!(
            said(ResidualSummary { place: 0.7, ..ResidualSummary::default() })
                .contains("--external")
        );
        assert!(
            said(ResidualSummary { time: 0.7, ..ResidualSummary::default() }).contains("the time")
        );
        let bodies = vec![0.1, 0.1, 2.0, 0.2];
        assert!(
            said(ResidualSummary { bodies, ..ResidualSummary::default() })
                .contains("body 3 is different")
        );
        // Explaining much of almost nothing is no reason.
        let law = judged(0.01, 0.01, &ResidualSummary { place: 0.9, ..ResidualSummary::default() });
        assert!(law.found, "{law:?}");
    }

    #[test]
    fn the_better_or_the_simpler_of_two_laws_is_taken() {
        let none = ResidualSummary::default();
        let [poor, good, same] = [0.1, 0.05, 0.101].map(|error| judged(0.1, error, &none));
        assert!(poor.found && !poor.is_settled() && judged(0.1, 1e-3, &none).is_settled());
        assert!(good.is_better(&poor, false) && !poor.is_better(&good, true));
        assert!(same.is_better(&poor, true) && !same.is_better(&poor, false));
        let wrong = judged(0.01, 0.4, &none);
        assert!(!wrong.found && good.is_better(&wrong, false) && !wrong.is_better(&wrong, true));
    }

    #[test]
    fn noise_is_no_force_and_no_reason_against_a_law() {
        let noisy = ResidualSummary { noise: Some(0.5), ..ResidualSummary::default() };
        let law = judged(0.5, 0.5, &noisy);
        assert!(law.found && law.sentence.contains("the noise of the accelerations"), "{law:?}");
        let free =
            judged(1.0, 1.0, &ResidualSummary { noise: Some(1.0), ..ResidualSummary::default() });
        assert!(!free.found && free.sentence.contains("no force within the error bar"), "{free:?}");
    }

    #[test]
    fn numbers_have_three_digits() {
        assert_eq!(
            [0.012345, 3.24859, 1234.5, 1.2e-7].map(short),
            ["0.0123", "3.25", "1234", "1.20e-7"]
        );
    }
}
