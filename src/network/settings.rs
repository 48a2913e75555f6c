//! The settings of a training, the presets, and the learning rate of each step (docs/design.md §3).

use serde::{Deserialize, Serialize};

use super::view::Quantity;
use crate::error::{Error, Result};
use crate::model::layout::BodyLayout;
use crate::model::{ModelKind, PrecisionChoice, Shape};
use crate::ops::tiny::Penalty;
use crate::{choice, options};

/// Number of messages of all models except the bottleneck.
const MESSAGES: usize = 100;
/// Bounds that keep a typing error from asking for terabytes.
const MOST_HIDDEN: usize = 16_384;
const MOST_LAYERS: usize = 32;
/// Fraction of the steps during which the learning rate rises.
const WARM_UP: f64 = 0.3;
/// peak / start of the learning rate, and start / end.
const RISE: f64 = 25.0;
const FALL: f64 = 1e5;

choice! {
    /// How much work a training does.
    pub enum Preset {
        /// A minute or two on two cores.
        Quick = "quick",
        /// In between: minutes to an hour.
        Standard = "standard",
        /// As in the paper: a million steps; 100,000 on halos.
        Paper = "paper",
    }
}

options! {
    /// Which network is trained, on what, and for how long.
    pub struct Work {
        /// How messages are kept compact [default: bottleneck; l1 on a graph of halos]
        model: Option<ModelKind> = None => [.value("MODEL")];
        /// How much work to do
        preset: Preset = Preset::Quick;
        /// Graphs of halos only: hide halos above this overdensity from training and fits
        hide_above: Option<f64> = None => [.value("DELTA")];
    }
}

options! {
    /// Changes that a user may make to a preset.
    pub struct Changes {
        /// Training steps, instead of the preset's
        steps: Option<u64> = None => [.value("N")];
        /// Units of each hidden layer, instead of the preset's
        hidden: Option<usize> = None => [.value("N")];
        /// Hidden layers of each network, instead of the preset's
        layers: Option<usize> = None => [.value("N")];
        /// Highest learning rate, instead of the preset's
        peak_rate: Option<f64> = None => [.value("RATE")];
        /// Arithmetic of the matrix products [default: auto; preset paper: f32]
        precision: Option<PrecisionChoice> = None => [.value("PRECISION")];
        /// Forces may depend on position, as in a trap or near the ground: graphs are not translated in training
        #[serde(default, skip_serializing_if = "is_false")]
        external: bool = false;
        /// What laws may depend on: r (positions), v (velocities), m (masses), q (charges) [default: all]
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        inputs: Vec<Quantity> = Vec::new() => [.value("LIST")];
        /// Use every N-th frame of a run [default: 5 for simulated data, otherwise 1 unless there are very many]
        #[serde(default, skip_serializing_if = "Option::is_none")]
        frame_stride: Option<usize> = None => [.value("N")];
        /// Use data in the units of the file, not in natural units, as in the paper
        #[serde(default, skip_serializing_if = "is_false")]
        raw_units: bool = false;
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

impl Changes {
    /// Applies the changes to a preset.
    pub fn apply(&self, settings: &mut Settings) {
        if let Some(steps) = self.steps {
            settings.set_steps(steps);
        }
        settings.hidden = self.hidden.unwrap_or(settings.hidden);
        settings.layers = self.layers.unwrap_or(settings.layers);
        settings.peak_rate = self.peak_rate.unwrap_or(settings.peak_rate);
        settings.precision = self.precision.unwrap_or(settings.precision);
        settings.frame_stride = self.frame_stride.unwrap_or(settings.frame_stride);
        if self.external {
            settings.translation = 0.0;
        }
        if !self.inputs.is_empty() {
            let all = [Quantity::V, Quantity::M, Quantity::Q];
            settings.unseen = all.into_iter().filter(|q| !self.inputs.contains(q)).collect();
        }
    }

    /// Checks the inputs.
    ///
    /// # Errors
    /// Inputs without positions.
    pub fn check(&self) -> Result<()> {
        if !self.inputs.is_empty() && !self.inputs.contains(&Quantity::R) {
            let message = "must contain r: there is no force between bodies without positions";
            return Err(Error::usage(message).field("inputs"));
        }
        Ok(())
    }
}

/// Everything that determines a training, apart from the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The preset from which these settings were made.
    pub preset: Preset,
    /// How messages are kept compact.
    pub model: ModelKind,
    /// Messages before pruning.
    pub messages: usize,
    /// Units of a hidden layer.
    pub hidden: usize,
    /// Hidden layers of each of the two networks.
    pub layers: usize,
    /// Steps of the optimizer.
    pub steps: u64,
    /// Graphs in a batch; receivers on one large graph.
    #[serde(rename = "graphs")]
    pub batch: usize,
    /// Highest learning rate of the one-cycle schedule.
    pub peak_rate: f64,
    /// Weight of the penalty on messages.
    pub penalty: f64,
    /// Weight of Σw² in the loss.
    pub weight_decay: f64,
    /// Arithmetic of the matrix products.
    pub precision: PrecisionChoice,
    /// True if components that the validation loss does not need are removed during training.
    pub prune: bool,
    /// Every `frame_stride`-th frame of a run is used.
    pub frame_stride: usize,
    /// Standard deviation of the random translation of each graph; 0 if forces may depend on position.
    pub translation: f64,
    /// Quantities hidden from the network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unseen: Vec<Quantity>,
    /// Steps between two rows of `metrics.csv`.
    pub metrics_every: u64,
    /// Steps between two checkpoints.
    pub checkpoint_every: u64,
    /// Seed of everything random.
    pub seed: u64,
}

impl Settings {
    /// The settings of `preset` for a model of this kind on systems of `bodies` bodies in `dim` dimensions.
    pub fn preset(preset: Preset, model: ModelKind, dim: usize, bodies: usize) -> Self {
        let (hidden, steps, peak_rate) = match (preset, model) {
            (Preset::Quick, ModelKind::Bottleneck) => (128, 60_000, 8e-3),
            (Preset::Quick, _) => (128, 100_000, 2e-3),
            (Preset::Standard, ModelKind::Bottleneck) => (200, 300_000, 8e-3),
            (Preset::Standard, _) => (200, 150_000, 4e-3),
            (Preset::Paper, _) => (300, 1_000_000, 1e-3),
        };
        let mut settings = Settings {
            preset,
            model,
            messages: if model == ModelKind::Bottleneck { dim } else { MESSAGES },
            hidden,
            layers: 2,
            steps: 0,
            batch: scaled(64, bodies),
            peak_rate,
            penalty: match model {
                ModelKind::L1 => 1e-2,
                ModelKind::Kl => 1.0,
                ModelKind::Standard | ModelKind::Bottleneck => 0.0,
            },
            weight_decay: 1e-8,
            // The paper's recipe is that of the paper.
            precision: match preset {
                Preset::Paper => PrecisionChoice::F32,
                Preset::Quick | Preset::Standard => PrecisionChoice::Auto,
            },
            prune: model == ModelKind::L1,
            frame_stride: 5,
            translation: 3.0,
            unseen: Vec::new(),
            metrics_every: 1,
            checkpoint_every: 1,
            seed: 0,
        };
        settings.set_steps(steps);
        settings
    }

    /// The settings of `preset` on a graph of halos.
    pub fn on_graph(preset: Preset, model: ModelKind) -> Self {
        let (hidden, steps, peak_rate) = match preset {
            Preset::Quick => (128, 24_000, 2e-3),
            Preset::Standard => (300, 30_000, 1e-3),
            Preset::Paper => (500, 100_000, 1e-3),
        };
        let mut settings = Settings {
            hidden,
            batch: 128,
            peak_rate,
            frame_stride: 1,
            translation: 0.0,
            messages: if model == ModelKind::Bottleneck { 1 } else { MESSAGES },
            ..Settings::preset(preset, model, 3, 4)
        };
        settings.set_steps(steps);
        settings
    }

    /// True if forces may depend on position.
    pub fn external(&self) -> bool {
        self.translation == 0.0
    }

    /// Sets the number of steps and, accordingly, how often metrics and checkpoints are written: 400 rows
    /// and at least 25 checkpoints.
    pub fn set_steps(&mut self, steps: u64) {
        self.steps = steps;
        self.metrics_every = (steps / 400).max(1);
        self.checkpoint_every = (steps / 25).clamp(1, 5000);
    }

    /// An error that names the first invalid setting.
    pub fn check(&self) -> Result<()> {
        let bad = |field: &str, message: String| Err(Error::usage(message).field(field));
        let counts = [
            ("messages", self.messages),
            ("hidden", self.hidden),
            ("layers", self.layers),
            ("graphs", self.batch),
            ("frame_stride", self.frame_stride),
            ("steps", self.steps as usize),
            ("metrics_every", self.metrics_every as usize),
            ("checkpoint_every", self.checkpoint_every as usize),
        ];
        for (field, value) in counts {
            if value == 0 {
                return bad(field, "is 0; at least 1 is needed".to_string());
            }
        }
        let limits = [("hidden", self.hidden, MOST_HIDDEN), ("layers", self.layers, MOST_LAYERS)];
        for (field, value, most) in limits {
            if value > most {
                return bad(field, format!("is {value}; at most {most} is possible"));
            }
        }
        if !(self.peak_rate.is_finite() && self.peak_rate > 0.0) {
            return bad("peak_rate", format!("is {}; a positive number is needed", self.peak_rate));
        }
        let weights = [
            ("penalty", self.penalty),
            ("weight_decay", self.weight_decay),
            ("translation", self.translation),
        ];
        for (field, value) in weights {
            if !(value.is_finite() && value >= 0.0) {
                return bad(field, format!("is {value}; a number of 0 or more is needed"));
            }
        }
        Ok(())
    }

    /// These settings in one line; `units` is what a batch consists of.
    pub fn describe(&self, units: &str) -> String {
        let Settings { messages, hidden, layers, steps, batch, peak_rate, .. } = self;
        let model = match self.model {
            ModelKind::Standard => "standard model".to_string(),
            ModelKind::Bottleneck => "bottleneck".to_string(),
            ModelKind::L1 => format!("L1 penalty {} on messages", self.penalty),
            ModelKind::Kl => format!("sampled messages, KL penalty {}", self.penalty),
        };
        let pruned = if self.prune {
            "; between 20 % and 75 % of the steps the messages with the smallest spread are removed \
             as long as the validation loss allows it"
        } else {
            ""
        };
        let stride = match self.frame_stride {
            1 => String::new(),
            stride => format!(", one frame in {stride}"),
        };
        format!(
            "train: {model}, {messages} messages, {layers} hidden layers of {hidden}, {steps} steps \
             of {batch} {units}{stride}, learning rate up to {peak_rate}{pruned}"
        )
    }

    /// The network on bodies in `dim` dimensions, before pruning.
    pub fn shape(&self, dim: usize) -> Shape {
        Shape {
            n_features: BodyLayout { dim }.width(),
            message_dim: self.messages,
            outputs: dim,
            hidden: self.hidden,
            layers: self.layers,
            sampled: self.model == ModelKind::Kl,
        }
    }

    /// The penalty on messages.
    pub fn penalty(&self) -> Penalty {
        match self.model {
            ModelKind::L1 => Penalty::L1(self.penalty as f32),
            ModelKind::Kl => Penalty::Kl(self.penalty as f32),
            ModelKind::Standard | ModelKind::Bottleneck => Penalty::None,
        }
    }

    /// The learning rates of all steps.
    pub fn rates(&self) -> Vec<f32> {
        (0..self.steps).map(|step| self.rate(step) as f32).collect()
    }

    /// Learning rate at `step` (from 0): a half cosine up from peak/25, another down to peak/25e5.
    pub fn rate(&self, step: u64) -> f64 {
        let (last, step) = ((self.steps - 1) as f64, step as f64);
        let top = WARM_UP * last;
        let (start, end) = (self.peak_rate / RISE, self.peak_rate / RISE / FALL);
        let cosine = |from: f64, to: f64, t: f64| {
            to + (from - to) * 0.5 * (1.0 + (std::f64::consts::PI * t).cos())
        };
        if step < top {
            cosine(start, self.peak_rate, step / top)
        } else if last > top {
            cosine(self.peak_rate, end, (step - top) / (last - top))
        } else {
            self.peak_rate
        }
    }
}

/// `graphs` for 4 bodies, scaled so that the number of edges stays about the same; at least 1.
pub(super) fn scaled(graphs: usize, bodies: usize) -> usize {
    let factor = 4.0 / bodies as f64;
    ((graphs as f64 * factor * factor).round() as usize).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_learning_rate_is_one_cycle() {
        let mut settings = Settings::preset(Preset::Quick, ModelKind::L1, 2, 4);
        settings.set_steps(1001);
        settings.peak_rate = 1.0;
        let near = |step: u64, rate: f64| {
            let found = settings.rate(step);
            assert!((found / rate - 1.0).abs() < 1e-9, "step {step}: {found}, not {rate}");
        };
        near(0, 1.0 / 25.0);
        near(150, 0.5 * (1.0 + 1.0 / 25.0));
        near(300, 1.0);
        near(650, 0.5 * (1.0 + 1.0 / 25e5));
        near(1000, 1.0 / 25e5);
        let mut one = settings.clone();
        one.set_steps(1);
        assert_eq!(one.rate(0), 1.0);
    }

    #[test]
    fn presets_follow_the_design() {
        let paper = Settings::preset(Preset::Paper, ModelKind::Kl, 3, 8);
        assert_eq!((paper.hidden, paper.layers, paper.steps), (300, 2, 1_000_000));
        assert_eq!((paper.batch, paper.messages, paper.peak_rate), (16, 100, 1e-3));
        assert!(paper.shape(3).sampled && !paper.prune);
        let quick = Settings::preset(Preset::Quick, ModelKind::Bottleneck, 3, 64);
        assert_eq!((quick.batch, quick.messages), (1, 3));
        let halos = Settings::on_graph(Preset::Quick, ModelKind::L1);
        assert!(halos.describe("receivers").contains("steps of 128 receivers,"));
        let text = toml::to_string(&quick).unwrap();
        assert_eq!(toml::from_str::<Settings>(&text).unwrap(), quick);
    }

    #[test]
    fn settings_that_make_no_sense_are_named() {
        let good = Settings::preset(Preset::Quick, ModelKind::L1, 2, 4);
        good.check().unwrap();
        let zero = Settings { hidden: 0, ..good.clone() };
        assert_eq!(zero.check().unwrap_err().field.as_deref(), Some("hidden"));
        let wide = Settings { hidden: 1_000_000_000, ..good.clone() };
        assert_eq!(wide.check().unwrap_err().field.as_deref(), Some("hidden"));
        let rate = Settings { peak_rate: f64::NAN, ..good };
        assert_eq!(rate.check().unwrap_err().field.as_deref(), Some("peak_rate"));
    }
}
