//! Heavy tails. In data with close encounters a few frames hold most of the acceleration and dominate any mean error.
//! Frames that are drawn, and values that laws are fitted to, then have weight 1 / (1 + size / s), where one value in
//! twenty exceeds s: encounters count by their relative error, the rest as before.

use crate::formula::print::short;
use crate::nbody::dataset::Dataset;

/// A tail is heavy if the size exceeded by each of these shares of the values is …
const SHARES: [f64; 5] = [0.1, 0.05, 0.025, 0.0125, 0.00625];
/// … more than this many times that of the share before it: a power law of index below 1.7, with infinite variance.
/// Rare values of similar size (contacts of particles) are no such tail.
const HEAVY: f64 = 1.5;
/// With fewer values no tail can be detected.
const FEWEST: usize = 800;
/// Entries for each frame in the table from which frames are drawn, …
const ENTRIES: usize = 16;
/// … and the most entries of a table (more only if there are more frames).
const MOST_ENTRIES: usize = 1 << 22;

/// The values exceeded by one size in twenty and by one in eighty, if the sizes have a heavy tail.
fn tail(sizes: &[f64]) -> Option<[f64; 2]> {
    if sizes.len() < FEWEST {
        return None;
    }
    let mut sorted = sizes.to_vec();
    sorted.sort_by(f64::total_cmp);
    let exceeded = |share: f64| sorted[((sorted.len() - 1) as f64 * (1.0 - share)) as usize];
    let by_share = SHARES.map(exceeded);
    let heavy = by_share[0] > 0.0 && by_share.windows(2).all(|pair| pair[1] > HEAVY * pair[0]);
    heavy.then_some([by_share[1], by_share[3]])
}

/// Weights of values by their distance from the median, if these distances have a heavy tail.
pub fn weights(values: &[f32]) -> Option<Vec<f32>> {
    let mut sorted = values.to_vec();
    let half = sorted.len() / 2;
    let median = *sorted.select_nth_unstable_by(half, f32::total_cmp).1;
    let sizes: Vec<f64> = values.iter().map(|&v| f64::from((v - median).abs())).collect();
    let [twentieth, _] = tail(&sizes)?;
    Some(sizes.iter().map(|&size| weight(size, twentieth)).collect())
}

/// The weight of a value of this size if one in twenty exceeds `twentieth`.
fn weight(size: f64, twentieth: f64) -> f32 {
    (1.0 / (1.0 + size / twentieth)) as f32
}

/// Weights of the frames of data with a heavy tail.
#[derive(Clone, Debug, PartialEq)]
pub struct Tails {
    /// `[run, frame]`, from 0 to 1.
    weights: Vec<f32>,
    /// The result of [`tail`].
    exceeded: [f64; 2],
}

impl Tails {
    /// Weights for data that were not simulated; `None` if the mean accelerations of their frames have no heavy tail.
    pub fn of(data: &Dataset) -> Option<Self> {
        if data.about.law.is_some() {
            return None;
        }
        let size = |frame: &[f32]| {
            let bodies = (frame.len() / data.about.dim) as f64;
            frame.iter().map(|a| f64::from(a.abs())).sum::<f64>() / bodies
        };
        Tails::of_sizes(&data.frames(data.accelerations()).map(size).collect::<Vec<f64>>())
    }

    fn of_sizes(sizes: &[f64]) -> Option<Self> {
        let exceeded = tail(sizes)?;
        let weights = sizes.iter().map(|&size| weight(size, exceeded[0])).collect();
        Some(Tails { weights, exceeded })
    }

    /// A sentence for the user; `unit` is the unit of acceleration in the user's units.
    pub fn note(&self, unit: f64) -> String {
        let [twentieth, quarter] = self.exceeded.map(|a| short(unit * a));
        format!(
            "accelerations have a heavy tail: one frame in 20 is above {twentieth}, one in 80 above {quarter}; frames \
             are drawn with weight 1 / (1 + acceleration / {twentieth}), so that close encounters do not outweigh the rest"
        )
    }

    /// A table of these frames (indices into `[run, frame]`) in which each occurs in proportion to its weight.
    pub fn table(&self, frames: &[u32]) -> Vec<u32> {
        let entries = (ENTRIES * frames.len()).min(MOST_ENTRIES).max(frames.len());
        let weight = |&frame: &u32| f64::from(self.weights[frame as usize]);
        let step = frames.iter().map(weight).sum::<f64>() / entries as f64;
        let mut table = Vec::with_capacity(entries);
        let mut sum = 0.0;
        for frame in frames {
            sum += weight(frame);
            while table.len() < entries && (table.len() as f64 + 0.5) * step < sum {
                table.push(*frame);
            }
        }
        // In case rounding ends the sum too early.
        table.resize(entries, frames[frames.len() - 1]);
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes of which a share `p` exceeds `quantile(p)`.
    fn sizes(quantile: impl Fn(f64) -> f64) -> Vec<f64> {
        (0..4000).map(|k| quantile((f64::from(k * 1237 % 4000) + 0.5) / 4000.0)).collect()
    }

    #[test]
    fn power_laws_have_a_tail_and_rare_contacts_have_none() {
        let [twentieth, quarter] = tail(&sizes(|p| 3.0 / p)).unwrap();
        assert!((twentieth / 60.0 - 1.0).abs() < 0.02 && (quarter / 240.0 - 1.0).abs() < 0.02);
        assert_eq!(tail(&sizes(|p| p.powf(-0.5))), None, "finite variance");
        assert_eq!(tail(&sizes(|p| -p.ln())), None, "an exponential");
        for share in [0.3, 0.1, 0.06, 0.04, 0.02, 0.01, 0.003] {
            let contacts = |size: fn(f64) -> f64| {
                sizes(move |p| if p < share { 1000.0 * size(p / share) } else { 0.1 })
            };
            assert_eq!(tail(&contacts(|p| 1.0 - p)), None, "{share}");
            assert_eq!(tail(&contacts(|p| -p.ln())), None, "{share}");
        }
        assert_eq!(tail(&sizes(|_| 0.0)), None);
        assert_eq!(tail(&sizes(|p| 1.0 / p)[..700]), None, "too few");
    }

    #[test]
    fn tables_hold_frames_by_their_weight() {
        let tails = Tails::of_sizes(&sizes(|p| 3.0 / p)).unwrap();
        let frames: Vec<u32> = (0..4000).filter(|frame| *frame != 3).collect();
        let table = tails.table(&frames);
        assert_eq!(table.len(), ENTRIES * frames.len());
        let count = |frame: u32| table.iter().filter(|other| **other == frame).count() as f64;
        let all: f64 = frames.iter().map(|&f| f64::from(tails.weights[f as usize])).sum();
        assert_eq!(count(3), 0.0);
        for frame in [0, 1, 20, 3999] {
            let expected = table.len() as f64 * f64::from(tails.weights[frame as usize]) / all;
            assert!((count(frame) - expected).abs() <= 1.0, "{frame} {expected}");
        }
        // The largest of all, 24000, counts as much as twice the 400 times smaller size at one in twenty.
        assert!(tails.weights[0] < 0.003, "{}", tails.weights[0]);
        assert!(tails.note(2.0).contains("one in 80 above 4"), "{}", tails.note(2.0));
    }
}
