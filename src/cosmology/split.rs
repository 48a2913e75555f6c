//! Which halos a fit may see: space is held out, not single halos.
//!
//! Halos near each other share their surroundings, so a random split would leak. The test set is a
//! slab of the box, a fifth of it along z; halos within a buffer of the graph's radius on either side of
//! it belong to neither part. Halos above a given overdensity can be hidden from training, as a test
//! outside its distribution (section 4.3 of the paper: δ > 1).

use super::graph::Graph;
use crate::error::{Error, Result};
use crate::network::system::Measure;

/// Share of the box that is held out.
const HELD_OUT: f64 = 0.2;
/// Jackknife blocks along each axis.
const JACKKNIFE: usize = 3;

/// The parts of a graph's nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// Nodes that may be fitted to.
    pub train: Vec<u32>,
    /// Nodes of the held-out slab.
    pub test: Vec<u32>,
    /// Nodes anywhere that are hidden for their overdensity; empty if none is.
    pub hidden: Vec<u32>,
}

impl Split {
    /// Splits a graph; `hide_above` hides nodes with a larger overdensity from both parts.
    ///
    /// # Errors
    /// A graph without target, a part without nodes.
    pub fn new(graph: &Graph, hide_above: Option<f64>) -> Result<Self> {
        let (edge, buffer) = (graph.about.edge, graph.about.radius);
        if let Some(limit) = hide_above.filter(|limit| !limit.is_finite()) {
            return Err(
                Error::usage(format!("must be a finite number, not {limit}")).field("hide-above")
            );
        }
        let split = assign(graph.positions(), graph.targets()?, edge, buffer, hide_above);
        for (name, part) in [("train", &split.train), ("test", &split.test)] {
            if part.is_empty() {
                let mut message = format!(
                    "no halo is left to {name} on: a fifth of the box of {edge} Mpc/h is held out, with a \
                     buffer of {buffer} Mpc/h on either side"
                );
                let Some(limit) = hide_above else {
                    return Err(Error::input(message).file(graph.path()));
                };
                message += &format!(", and overdensities above {limit} are hidden");
                return Err(Error::usage(message).file(graph.path()).field("hide-above"));
            }
        }
        Ok(split)
    }

    /// Measures something on the held-out slab and, if there are any, on the hidden nodes.
    ///
    /// # Errors
    /// Those of `measure`.
    pub fn measure(
        &self,
        mut measure: impl FnMut(&[u32]) -> Result<Measure>,
    ) -> Result<(Measure, Option<Measure>)> {
        let test = measure(&self.test)?;
        let hidden = (!self.hidden.is_empty()).then(|| measure(&self.hidden)).transpose()?;
        Ok((test, hidden))
    }
}

/// The part of each node, by its position in a box of `edge` and its overdensity.
fn assign(
    positions: &[f32],
    targets: &[f32],
    edge: f64,
    buffer: f64,
    hide_above: Option<f64>,
) -> Split {
    let first = edge * (1.0 - HELD_OUT);
    let mut split = Split { train: vec![], test: vec![], hidden: vec![] };
    for (node, position) in positions.as_chunks::<3>().0.iter().enumerate() {
        let z = f64::from(position[2]);
        // To the nearer side of the slab, which is at 0 across the box and at `first`.
        let distance = z.min(first - z);
        let part = if hide_above.is_some_and(|limit| f64::from(targets[node]) > limit) {
            &mut split.hidden
        } else if z >= first {
            &mut split.test
        } else if distance > buffer {
            &mut split.train
        } else {
            continue;
        };
        part.push(node as u32);
    }
    split
}

/// Mean of the absolute errors of some nodes, and its jackknife error: the scatter of the mean when each of
/// 27 blocks of space in turn is left out. `errors[k]` belongs to `nodes[k]`.
pub fn mean_and_jackknife(graph: &Graph, nodes: &[u32], errors: &[f64]) -> (f64, f64) {
    jackknife(graph.positions(), graph.about.edge, nodes, errors)
}

fn jackknife(positions: &[f32], edge: f64, nodes: &[u32], errors: &[f64]) -> (f64, f64) {
    let blocks = JACKKNIFE.pow(3);
    let (mut sums, mut counts) = (vec![0.0; blocks], vec![0.0; blocks]);
    // Along z only the span of these nodes is divided: a held-out slab is thin.
    let z = |node: u32| f64::from(positions[3 * node as usize + 2]);
    let low = nodes.iter().map(|&n| z(n)).fold(f64::INFINITY, f64::min);
    let high = nodes.iter().map(|&n| z(n)).fold(f64::NEG_INFINITY, f64::max);
    let part = |x: f64, low: f64, span: f64| {
        (((x - low) / span * JACKKNIFE as f64) as usize).min(JACKKNIFE - 1)
    };
    for (&node, error) in nodes.iter().zip(errors) {
        let [x, y] = [0, 1].map(|k| f64::from(positions[3 * node as usize + k]));
        let (i, j) = (part(x, 0.0, edge), part(y, 0.0, edge));
        let k = part(z(node), low, (high - low).max(f64::MIN_POSITIVE));
        let block = (i * JACKKNIFE + j) * JACKKNIFE + k;
        sums[block] += error;
        counts[block] += 1.0;
    }
    let (sum, count) = (sums.iter().sum::<f64>(), counts.iter().sum::<f64>());
    let used: Vec<usize> = (0..blocks).filter(|&b| counts[b] > 0.0 && counts[b] < count).collect();
    let without: Vec<f64> = used.iter().map(|&b| (sum - sums[b]) / (count - counts[b])).collect();
    let n = without.len() as f64;
    let mean = without.iter().sum::<f64>() / n;
    let scatter = without.iter().map(|w| (w - mean).powi(2)).sum::<f64>();
    (sum / count, ((n - 1.0) / n * scatter).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// No neighbour of a training node is in the slab, on either side or across the box.
    #[test]
    fn no_edge_joins_training_and_slab() {
        let (edge, radius) = (100.0, 11.0);
        let mut random = Random::new(4, 0);
        let positions: Vec<f32> =
            (0..6000).map(|_| (edge * random.uniform()) as f32).filter(|x| *x < 100.0).collect();
        let nodes = positions.len() / 3;
        let targets: Vec<f32> = (0..nodes).map(|k| (k % 7) as f32).collect();
        let split = assign(&positions, &targets, edge, radius, Some(5.0));
        let place = |node: u32| -> [f64; 3] {
            std::array::from_fn(|k| f64::from(positions[3 * node as usize + k]))
        };
        let apart = |a: u32, b: u32| {
            let square = |k: usize| {
                let d = (place(a)[k] - place(b)[k]).abs();
                d.min(edge - d).powi(2)
            };
            (square(0) + square(1) + square(2)).sqrt()
        };
        for &a in &split.train {
            assert!(split.test.iter().all(|&b| apart(a, b) > radius), "{:?}", place(a));
        }
        assert!(split.hidden.iter().all(|&n| targets[n as usize] == 6.0));
        assert!(split.train.iter().chain(&split.test).all(|&n| targets[n as usize] < 6.0));
        // A fifth is held out, 2 · 11 of 100 belong to neither part.
        let share = |part: &[u32]| part.len() as f64 / (nodes as f64 * 6.0 / 7.0);
        assert!((share(&split.test) - 0.2).abs() < 0.03, "{}", share(&split.test));
        assert!((share(&split.train) - 0.58).abs() < 0.03, "{}", share(&split.train));
    }

    #[test]
    fn the_buffer_ends_at_the_radius() {
        let z = [0.0, 10.9, 11.1, 68.9, 69.1, 79.9, 80.0, 99.9];
        let positions: Vec<f32> = z.iter().flat_map(|&z| [50.0, 50.0, z]).collect();
        let split = assign(&positions, &[0.0; 8], 100.0, 11.0, None);
        assert_eq!((split.train, split.test), (vec![2, 3], vec![6, 7]));
        assert!(split.hidden.is_empty());
    }

    /// Two blocks with errors 1 and 3: means without one of them are 3 and 1, so the error is
    /// √(1/2 · (1 + 1)) = 1. A third block makes √(2/3 · Σ(w − w̄)²).
    #[test]
    fn jackknife_of_blocks_by_hand() {
        let at = |x: f32| [x, 5.0, 5.0];
        let positions = [at(10.0), at(11.0), at(40.0), at(41.0)].concat();
        let (mean, error) = jackknife(&positions, 90.0, &[0, 1, 2, 3], &[1.0, 1.0, 3.0, 3.0]);
        assert!((mean - 2.0).abs() < 1e-12 && (error - 1.0).abs() < 1e-12, "{mean} {error}");
        let positions = [at(10.0), at(40.0), at(80.0)].concat();
        let (mean, error) = jackknife(&positions, 90.0, &[0, 1, 2], &[1.0, 2.0, 6.0]);
        // Means without one: 4, 3.5, 1.5; their mean is 3.
        let expected = (2.0f64 / 3.0 * (1.0 + 0.25 + 2.25)).sqrt();
        assert!((mean - 3.0).abs() < 1e-12 && (error - expected).abs() < 1e-12, "{mean} {error}");
    }
}
