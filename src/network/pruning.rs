//! Gradual pruning of message components (for `l1`).
//!
//! An L1 penalty alone leaves more components than the system needs: several share one force. So
//! between 20 % and 75 % of the training, every 2.5 % of the steps, the quarter of the components with
//! the smallest spread is cut. One interval later the validation loss is compared with the one before
//! the cut. If it has grown by more than the factor [`TOLERATED`], the network and its moments are
//! restored to their state before the cut, and half as many are cut instead. If not even a single
//! component can be cut, pruning pauses and tries again later, when the learning rate is lower and
//! losses are less noisy. The number of surviving components is thus determined by the data: nothing
//! here knows the number of dimensions.
//!
//! A cut removes rows of the last edge layer and columns of the first node layer. The average
//! contribution of the component goes into the bias of that node layer.

use crate::model::Shape;

/// Fractions of the training between which components are cut, and between two cuts.
const FIRST: f64 = 0.20;
const LAST: f64 = 0.75;
const INTERVAL: f64 = 0.025;
/// Fraction of the components that a cut keeps.
const KEPT: f64 = 0.75;
/// A cut is undone if the validation loss grows by more than this factor.
const TOLERATED: f64 = 1.25;

/// Decisions without a cut after a cut of a single component was undone.
const PAUSE: u32 = 3;

/// More components than there ever are; exact in f64.
const NO_LIMIT: usize = 1 << 32;

/// The state of pruning.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pruning {
    /// Validation loss before the cut on trial.
    before: Option<f64>,
    /// The most components the next cut may remove.
    limit: usize,
    /// Remaining decisions without a cut.
    pause: u32,
    /// Validation losses since the last decision.
    recent: Vec<f64>,
}

impl Default for Pruning {
    fn default() -> Self {
        Pruning { before: None, limit: NO_LIMIT, pause: 0, recent: Vec::new() }
    }
}

/// True if a decision is due after `step` of `steps` steps: the last cut is judged and, until [`LAST`],
/// a new one is made.
pub(crate) fn is_decision(step: u64, steps: u64) -> bool {
    // One more than the cuts: the last one must be judged too.
    (0..=cuts()).any(|cut| step_of(cut, steps) == step)
}

/// The next step after `step` at which a decision is due.
pub(crate) fn next_decision(step: u64, steps: u64) -> Option<u64> {
    (0..=cuts()).map(|cut| step_of(cut, steps)).find(|&next| next > step)
}

fn cuts() -> u64 {
    ((LAST - FIRST) / INTERVAL).round() as u64 + 1
}

fn step_of(cut: u64, steps: u64) -> u64 {
    ((FIRST + INTERVAL * cut as f64) * steps as f64).round() as u64
}

impl Pruning {
    /// Records a validation loss.
    pub(crate) fn note(&mut self, loss: f64) {
        self.recent.push(loss);
    }

    /// The validation losses of the second half of the interval, sorted; the first half is for recovery
    /// from the cut.
    fn sorted(&self) -> Vec<f64> {
        let mut half = self.recent[self.recent.len() / 2..].to_vec();
        half.sort_by(f64::total_cmp);
        half
    }

    /// Judges the cut on trial, which removed `size` components: true if it hurt and must be undone.
    /// Losses fluctuate while the learning rate is high, so the smallest one after the cut is compared
    /// with the median before it.
    pub(crate) fn hurt(&mut self, size: usize) -> bool {
        let Some(before) = self.before else { return false };
        if self.sorted()[0] <= TOLERATED * before {
            self.before = None;
            self.limit = 2 * size;
            return false;
        }
        self.limit = (size / 2).max(1);
        self.pause = if size == 1 { PAUSE } else { 0 };
        true
    }

    /// How many of `messages` components to cut now, after `step` of `steps` steps; starts the next
    /// trial.
    pub(crate) fn next_cut(&mut self, messages: usize, step: u64, steps: u64) -> usize {
        // After an undo, `before` still holds the loss of the restored network.
        let losses = self.sorted();
        let before = self.before.take().unwrap_or_else(|| losses[losses.len() / 2]);
        self.recent.clear();
        if self.pause > 0 {
            self.pause -= 1;
            return 0;
        }
        if messages == 1 || step >= step_of(cuts(), steps) {
            return 0;
        }
        self.before = Some(before);
        let quarter = messages - (KEPT * messages as f64) as usize;
        quarter.min(messages - 1).min(self.limit)
    }

    /// The state as numbers, for a checkpoint.
    pub(crate) fn to_numbers(&self) -> Vec<f64> {
        let before = self.before.unwrap_or(f64::NAN);
        let mut numbers = vec![before, self.limit as f64, f64::from(self.pause)];
        numbers.extend(&self.recent);
        numbers
    }

    /// The inverse of [`Pruning::to_numbers`]; `None` if there are too few numbers.
    pub(crate) fn from_numbers(numbers: &[f64]) -> Option<Self> {
        let [before, limit, pause, recent @ ..] = numbers else { return None };
        Some(Pruning {
            before: (!before.is_nan()).then_some(*before),
            limit: *limit as usize,
            pause: *pause as u32,
            recent: recent.to_vec(),
        })
    }
}

/// The components to keep, in order, when the `count` least significant ones are cut.
pub(crate) fn survivors(significance: &[f64], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..significance.len()).collect();
    order.sort_by(|&a, &b| significance[b].total_cmp(&significance[a]));
    order.truncate(significance.len() - count);
    order.sort_unstable();
    order
}

/// The arena of `shape` without the messages that are not in `kept`.
pub(crate) fn without(shape: &Shape, arena: &[f32], kept: &[usize]) -> Vec<f32> {
    let smaller = Shape { message_dim: kept.len(), ..*shape };
    let (old, new) = (shape.arena(), smaller.arena());
    let mut out = vec![0.0; new.len];
    // Rows of φe's last layer: means, followed by log-variances for sampled messages.
    let blocks = shape.edge_outputs() / shape.message_dim;
    let rows: Vec<usize> =
        (0..blocks).flat_map(|b| kept.iter().map(move |k| b * shape.message_dim + k)).collect();
    let pairs = || old.edge.iter().chain(&old.node).zip(new.edge.iter().chain(&new.node));
    for (index, (from, to)) in pairs().enumerate() {
        let last_edge = index + 1 == old.edge.len();
        let first_node = index == old.edge.len();
        for row in 0..to.outputs {
            let source = if last_edge { rows[row] } else { row };
            let values = &arena[from.weight.clone()][source * from.inputs..][..from.inputs];
            let target = &mut out[to.weight.clone()][row * to.inputs..][..to.inputs];
            if first_node {
                let (features, messages) = values.split_at(shape.n_features);
                target[..shape.n_features].copy_from_slice(features);
                for (value, &k) in target[shape.n_features..].iter_mut().zip(kept) {
                    *value = messages[k];
                }
            } else {
                target.copy_from_slice(values);
            }
            out[to.bias.start + row] = arena[from.bias.start + source];
        }
    }
    out
}

/// Adds the average contribution of the messages outside `kept`, of which each node receives
/// `received`, to the bias of φv's first layer.
pub(crate) fn fold_means(
    shape: &Shape,
    parameters: &mut [f32],
    kept: &[usize],
    means: &[f64],
    received: f64,
) {
    let layer = &shape.arena().node[0];
    for unit in 0..layer.outputs {
        let row = layer.weight.start + unit * layer.inputs + shape.n_features;
        let gone = (0..shape.message_dim).filter(|k| !kept.contains(k));
        let constant: f64 = gone.map(|k| f64::from(parameters[row + k]) * means[k]).sum();
        parameters[layer.bias.start + unit] += (constant * received) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::network::forward;
    use crate::ops::tiny::source::Graphs;
    use crate::random::Random;

    fn random(count: usize, stream: u64) -> Vec<f32> {
        let mut random = Random::new(9, stream);
        (0..count).map(|_| random.normal() as f32).collect()
    }

    /// Constant messages can be cut without any effect on the predictions.
    #[test]
    fn cutting_constant_messages_changes_nothing() {
        for sampled in [false, true] {
            let (n_features, bodies) = (4, 3);
            let shape =
                Shape { n_features, message_dim: 5, outputs: 2, hidden: 7, layers: 2, sampled };
            let arena = shape.arena();
            let mut parameters = vec![0.0; arena.len];
            for (_, _, range) in arena.tensors() {
                let values = random(range.len(), range.start as u64);
                parameters[range].copy_from_slice(&values);
            }
            let kept = [1, 3, 4];
            let last = &arena.edge[2];
            for gone in [0, 2] {
                parameters[last.weight.clone()][gone * last.inputs..][..last.inputs].fill(0.0);
            }
            let features = random(6 * bodies * n_features, 1);
            let targets = vec![0.0; 6 * bodies * 2];
            let graphs = Graphs { features, targets, bodies: vec![bodies as u32; 6] };
            let run = |shape: &Shape, parameters: &[f32]| {
                let device = Device::cpu();
                let found = forward::evaluate(&device, shape, parameters, &graphs, None);
                let Graphs { features, bodies, .. } = &graphs;
                let predictions =
                    forward::accelerations(&device, shape, parameters, features, bodies, None);
                (found.unwrap().spread, predictions.unwrap())
            };
            let (spread, before) = run(&shape, &parameters);
            fold_means(&shape, &mut parameters, &kept, &spread.means, (bodies - 1) as f64);
            let parameters = without(&shape, &parameters, &kept);
            let (smaller, after) = run(&Shape { message_dim: 3, ..shape }, &parameters);
            for (a, b) in before.iter().zip(&after) {
                assert!((a - b).abs() < 1e-4 * (1.0 + a.abs()), "{a} became {b}");
            }
            let expected = kept.map(|k| spread.significance[k]);
            for (a, b) in expected.iter().zip(&smaller.significance) {
                assert!((a - b).abs() < 1e-5 * (1.0 + a), "significance {a} became {b}");
            }
        }
    }

    /// Simulates a training whose loss depends only on the number of messages.
    fn play(loss: fn(usize) -> f64) -> usize {
        let (steps, mut messages, mut before) = (1000, 100, None);
        let mut pruning = Pruning::default();
        for step in 1..=steps {
            if step % 5 == 0 {
                pruning.note(loss(messages));
            }
            if is_decision(step, steps) {
                if let Some(size) = before.take().map(|n: usize| n - messages)
                    && pruning.hurt(size)
                {
                    messages += size;
                }
                let cut = pruning.next_cut(messages, step, steps);
                if cut > 0 {
                    before = Some(messages);
                    messages -= cut;
                }
            }
            let kept = Pruning::from_numbers(&pruning.to_numbers()).unwrap();
            assert_eq!(kept, pruning, "a checkpoint keeps the decisions");
        }
        assert_eq!(before, None, "no cut is left without its judgement");
        messages
    }

    #[test]
    fn cuts_that_hurt_are_taken_back() {
        assert_eq!(play(|n| if n >= 2 { 1.0 } else { 2.0 }), 2);
        assert_eq!(play(|n| if n >= 5 { 1.0 } else { 2.0 }), 5);
        assert_eq!(play(|_| 1.0), 1);
        assert_eq!(play(|n| if n == 100 { 1.0 } else { 2.0 }), 100);
    }

    #[test]
    fn the_least_significant_go() {
        assert_eq!(survivors(&[3.0, 0.1, 2.0, 0.2, 5.0], 2), vec![0, 2, 4]);
    }
}
