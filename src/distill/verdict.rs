//! The verdict on a run, with or without a known law: how large the errors of network and formula are on data
//! that nothing was fitted to, against those of no law at all, and one sentence that says whether there is a law,
//! how good it is, and if not, why.

use serde::{Deserialize, Serialize};

use crate::formula::print::short;
use crate::nbody::derive::MEAN_OF_NORMAL;

/// A formula explains the data where at least this share of the variance is explained, …
const EXPLAINS: f64 = 0.9;
/// (of data that no law could explain altogether, this share,)
const EXPLAINS_SCATTER: f64 = 0.2;
/// … and stands for the network where its error is at most this many times the network's, …
const AS_GOOD: f64 = 1.5;
/// … or where it is this small a part of the baseline's. (Planets: 4 % of it may be fifteen times what the network leaves over.)
const NEGLIGIBLE: f64 = 0.005;
/// Errors below this part of the baseline's need no reason.
const SMALL: f64 = 0.05;
/// A network whose error is more than this part of the baseline's has learned nothing.
const NOTHING: f64 = 0.9;
/// What is left over depends on something that explains this share of it.
const DEPENDS: f64 = 0.2;
/// One body is different where its error is so many times that of the others.
const APART: f64 = 3.0;
/// Errors up to so many times what noise alone makes are noise.
const NOISE: f64 = 1.3;

/// Whether there is a law.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conclusion {
    /// True where the formula is a law.
    pub found: bool,
    /// The same in words, with the reason.
    pub sentence: String,
    /// The error of what knows no law: the smaller one of those of zero and of the mean.
    pub baseline: f64,
    /// Of the network.
    pub network: Score,
    /// Of the formula.
    pub formula: Score,
}

/// How good something is, in the user's units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Mean over nodes of the L1 norm of (true − predicted); `None` where there is nothing, or where it is
    /// undefined on some of the data.
    pub error: Option<f64>,
    /// 1 − Σ (true − predicted)² / Σ (true − mean)².
    pub r2: Option<f64>,
}

/// What was predicted, beside the truth, in the user's units; `[node, outputs]` each.
pub struct Predictions<'a> {
    /// Outputs of a node.
    pub outputs: usize,
    /// The truth.
    pub targets: &'a [f64],
    /// By the network.
    pub network: Option<&'a [f64]>,
    /// By the formula.
    pub formula: Option<&'a [f64]>,
}

/// What is known of what the network leaves over.
#[derive(Clone, Debug, Default)]
pub struct Leftover {
    /// Standard deviation of the noise in a component of the targets, where it is known.
    pub noise: Option<f64>,
    /// The share that the place explains, where the network could not see it.
    pub place: f64,
    /// The share that the time explains.
    pub time: f64,
    /// Errors of the bodies, where these are the same in all graphs.
    pub bodies: Vec<f64>,
    /// What the law of the worst message leaves over, in standard deviations of the message.
    pub message: Option<f64>,
    /// True where no law explains the data altogether.
    pub scatter: bool,
    /// What the formula depends on and how far data reach: "distances of 0.3 to 4".
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
    /// Judges a run on such data.
    pub fn new(data: &Predictions, left: &Leftover) -> Self {
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

    /// There is nothing to find: the reason in words.
    pub fn nothing(sentence: String, baseline: f64) -> Self {
        let none = Score::default();
        Conclusion { found: false, sentence, baseline, network: none, formula: none }
    }

    /// The sentence and the figures, for a person.
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
    left: &Leftover,
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
        let text = format!("A law: its error on unseen data is {error}{r2}{noise}{range}.");
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
            "the accelerations depend on the place, which explains {:.0} % of what the network leaves \
             over: --external allows for a trap, a well or a wall",
            100.0 * left.place
        )
    } else if of_network > NOTHING * baseline {
        format!("the network learned nothing; its error on unseen data is {}", figures(of_network))
    } else if left.time > DEPENDS && matters {
        format!(
            "the accelerations depend on the time, which explains {:.0} % of what the network leaves \
             over",
            100.0 * left.time
        )
    } else if let Some((body, most)) = apart.filter(|_| matters) {
        format!(
            "body {} is different from the others: the network's error is {} on it, {} on all",
            body + 1,
            short(*most),
            short(of_network)
        )
    } else if formula.error.is_none() {
        "there is no formula that is defined on all unseen data".to_string()
    } else if as_good {
        format!(
            "neither network nor formula explains much; the formula's error is {}",
            figures(of_formula)
        )
    } else {
        let message = match left.message {
            Some(share) if share > DEPENDS => format!(
                "; the law of a message leaves over {:.0} % of it: messages are not functions of \
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

    /// Targets, and predictions that are off by so much.
    fn judged(network: f64, formula: f64, left: &Leftover) -> Conclusion {
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
        let none = Leftover::default();
        let law = judged(0.02, 0.001, &none);
        assert!(law.found && law.sentence.starts_with("A law"), "{law:?}");
        assert!(law.formula.r2.unwrap() > 0.9999 && law.baseline > 1.5, "{law:?}");
        let worse = judged(0.01, 0.32, &none);
        assert!(
            !worse.found && worse.sentence.contains("times worse than the network"),
            "{worse:?}"
        );
        let nothing = judged(1.0, 1.0, &none);
        assert!(!nothing.found && nothing.sentence.contains("learned nothing"), "{nothing:?}");
        // Small beside the baseline, and yet the network knows far more.
        let poor = judged(0.002, 0.03, &none);
        assert!(!poor.found && poor.sentence.contains("times worse than the network"), "{poor:?}");
        let both = judged(0.6, 0.6, &none);
        assert!(!both.found && both.sentence.contains("neither network nor formula"), "{both:?}");
    }

    #[test]
    fn what_is_left_over_is_explained() {
        let said = |left: Leftover| judged(0.5, 0.5, &left).sentence;
        assert!(said(Leftover { place: 0.7, ..Leftover::default() }).contains("--external"));
        assert!(said(Leftover { time: 0.7, ..Leftover::default() }).contains("the time"));
        let bodies = vec![0.1, 0.1, 2.0, 0.2];
        assert!(said(Leftover { bodies, ..Leftover::default() }).contains("body 3 is different"));
        // What explains much of nearly nothing is no reason.
        let law = judged(0.01, 0.01, &Leftover { place: 0.9, ..Leftover::default() });
        assert!(law.found, "{law:?}");
    }

    #[test]
    fn noise_is_no_force_and_no_reason_against_a_law() {
        let noisy = Leftover { noise: Some(0.5), ..Leftover::default() };
        let law = judged(0.5, 0.5, &noisy);
        assert!(law.found && law.sentence.contains("the noise of the accelerations"), "{law:?}");
        let free = judged(1.0, 1.0, &Leftover { noise: Some(1.0), ..Leftover::default() });
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
