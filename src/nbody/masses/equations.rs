//! The equations of motion of a sample of frames, and the fits of the spline and of the numbers of the bodies.

use std::collections::HashMap;
use std::ops::Range;

use super::Differs;
use crate::linear::Normal;
use crate::nbody::scale::nearest;
use crate::nbody::spline::{SPLINE, range, splines};
use crate::nbody::trajectories::{Run, Trajectories};
use crate::random::Random;

/// Most bodies whose numbers are fitted together: their covariance takes the cube of that many operations.
const MOST_BODIES: usize = 600;
/// Every so many blocks of frames one is kept for judging.
const JUDGED: usize = 4;
/// Blocks of frames of a run.
const BLOCKS: usize = 12;
/// Rounds of a fit, and those of a start that is only tried.
const ROUNDS: usize = 300;
const TRIAL: usize = 25;
/// A fit ends when twenty rounds have lowered the error by less than this fraction.
const GAIN: f64 = 1e-4;
/// Starts with random signs, where charges may differ in sign.
const STARTS: u64 = 8;
/// Ridge of the least squares, relative to the diagonal.
const RIDGE: f64 = 1e-9;
/// Different masses must lower the error of equal ones to this fraction, …
const BETTER: f64 = 0.7;
/// … and charges that of masses alone to this.
const MUCH_BETTER: f64 = 0.5;
/// With a smaller error masses explain enough, and charges are not tried.
const ENOUGH: f64 = 0.01;
/// Pull and inertia are equally good if their errors differ by less than this factor.
const ALIKE: f64 = 1.5;
/// A larger error, relative to the accelerations, explains nothing.
const NOTHING: f64 = 0.5;
/// Equations for every unknown number, and at least for each body.
const EQUATIONS: usize = 8;

pub(super) const NO_BETTER: &str = "no pair force with different masses explains the accelerations clearly better than \
                                    one with equal masses";
const TOO_FEW: &str = "there are too few frames";
const ONE_DISTANCE: &str = "the distances hardly vary";
const PAIRS_ONLY: &str =
    "pairs that have no body in common do not tell whether their masses pull or resist";

/// One body in one frame.
struct Node {
    /// The number of the body among all that differ.
    body: usize,
    target: [f64; 3],
    weight: f64,
    /// For judging, not for fitting.
    judged: bool,
    /// Its pairs among all.
    pairs: Range<usize>,
}

struct Pair {
    sender: usize,
    /// From the receiver to the sender, of length 1.
    direction: [f64; 3],
    /// Logarithm of the distance.
    place: f64,
    /// The splines that are not zero there.
    first: usize,
    basis: [f64; 4],
}

/// The equations of motion of a sample of the frames.
pub(super) struct Equations {
    dim: usize,
    nodes: Vec<Node>,
    pairs: Vec<Pair>,
    /// Names of the bodies that differ: run (if the name alone is not enough) and body.
    pub bodies: Vec<(Option<String>, String)>,
    /// Groups of bodies that act on each other.
    groups: Vec<Vec<usize>>,
}

/// A fit of the spline and of the numbers of the bodies.
#[derive(Clone)]
pub(super) struct Fit {
    pub pull: Vec<f64>,
    pub yielding: Vec<f64>,
    spline: Vec<f64>,
    /// Error relative to the accelerations, in the frames fitted to and in those for judging.
    fitted: f64,
    pub judged: f64,
}

impl Equations {
    /// Equations of frames at random, of about `most` pairs, or as many as there are unknown numbers; a body is the
    /// same in all runs where its name is, unless it is `own`.
    ///
    /// # Errors
    /// A clause that says what is missing.
    pub fn new(
        read: &Trajectories,
        noise: f64,
        most: usize,
        own: bool,
    ) -> Result<Self, &'static str> {
        let (dim, period) = (read.dim, read.period());
        let counts = read.runs.iter().map(|run| run.bodies.len());
        let largest = counts.clone().max().unwrap_or(0);
        let unknown = SPLINE + if own { counts.sum() } else { largest };
        let needed = 3 * EQUATIONS * unknown * (largest - 1) / dim;
        let pairs = |run: &Run| run.bodies.len() * (run.bodies.len() - 1) * run.frames();
        let all: usize = read.runs.iter().map(pairs).sum();
        let stride = all.div_ceil(most.max(needed)).max(1);
        let mut random = Random::new(0, 0);
        let mut equations = Equations {
            dim,
            nodes: Vec::new(),
            pairs: Vec::new(),
            bodies: Vec::new(),
            groups: Vec::new(),
        };
        let mut known: HashMap<(Option<String>, String), usize> = HashMap::new();
        let mut kept = 0;
        let mut group_of = Vec::new();
        for run in &read.runs {
            let accelerations = run.accelerations.as_ref().ok_or(TOO_FEW)?;
            let n = run.bodies.len();
            let name = |body: &String| (own.then(|| run.name.clone()), body.clone());
            let mut number = |body: &String| {
                let next = known.len();
                *known.entry(name(body)).or_insert_with(|| {
                    equations.bodies.push(name(body));
                    next
                })
            };
            let ids: Vec<usize> = run.bodies.iter().map(&mut number).collect();
            if equations.bodies.len() > MOST_BODIES {
                return Err("there are too many bodies");
            }
            for frame in 0..run.frames() {
                if stride > 1 && random.below(stride) != 0 {
                    continue;
                }
                kept += 1;
                let at = |body: usize| (frame * n + body) * dim;
                // Blocks of time; where few frames of a run are left, these are taken as they come.
                let block = match run.frames() / stride {
                    ..BLOCKS => kept,
                    _ => frame * BLOCKS / run.frames(),
                };
                for receiver in 0..n {
                    let first = equations.pairs.len();
                    for sender in (0..n).filter(|sender| *sender != receiver) {
                        let mut direction = [0.0; 3];
                        for axis in 0..dim {
                            let x = |body: usize| run.positions[at(body) + axis];
                            direction[axis] = nearest(x(sender) - x(receiver), period[axis]);
                        }
                        let r = length(&direction);
                        direction.iter_mut().for_each(|d| *d /= r);
                        let (sender, place) = (ids[sender], r.ln());
                        let (first, basis) = (0, [0.0; 4]);
                        equations.pairs.push(Pair { sender, direction, place, first, basis });
                    }
                    let mut target = [0.0; 3];
                    target[..dim].copy_from_slice(&accelerations[at(receiver)..][..dim]);
                    equations.nodes.push(Node {
                        body: ids[receiver],
                        target,
                        weight: 0.0,
                        judged: block % JUDGED == JUDGED - 1,
                        pairs: first..equations.pairs.len(),
                    });
                }
            }
            equations.connect(&ids, &mut group_of);
        }
        equations.place().ok_or(ONE_DISTANCE)?;
        equations.weigh(noise);
        let mut fitted = vec![0; equations.bodies.len()];
        equations.for_fitting().for_each(|node| fitted[node.body] += dim);
        let enough = fitted.iter().sum::<usize>() >= EQUATIONS * (SPLINE + fitted.len())
            && fitted.iter().all(|equations| *equations >= EQUATIONS);
        let judged = equations.nodes.iter().any(|node| node.judged);
        if enough && judged { Ok(equations) } else { Err(TOO_FEW) }
    }

    /// Puts the bodies of a run into one group, with all that are in a group with one of them already.
    fn connect(&mut self, ids: &[usize], group_of: &mut Vec<Option<usize>>) {
        group_of.resize(self.bodies.len(), None);
        let mut old: Vec<usize> = ids.iter().filter_map(|&id| group_of[id]).collect();
        old.sort_unstable();
        old.dedup();
        let into = old.first().copied().unwrap_or_else(|| {
            self.groups.push(Vec::new());
            self.groups.len() - 1
        });
        let mut joined: Vec<usize> =
            ids.iter().copied().filter(|&id| group_of[id].is_none()).collect();
        for &other in old.iter().skip(1) {
            joined.append(&mut self.groups[other]);
        }
        for id in joined {
            group_of[id] = Some(into);
            self.groups[into].push(id);
        }
    }

    /// Places the pairs on the spline, and leaves out nodes with a pair beyond it.
    fn place(&mut self) -> Option<()> {
        let [low, high] = range(self.pairs.iter().map(|pair| pair.place).collect())?;
        let Equations { nodes, pairs, .. } = self;
        nodes.retain(|node| {
            pairs[node.pairs.clone()].iter().all(|pair| (low..=high).contains(&pair.place))
        });
        for pair in pairs {
            let place = ((pair.place - low) / (high - low)).clamp(0.0, 1.0);
            (pair.first, pair.basis) = splines(place);
        }
        Some(())
    }

    /// Weighs the equations of every body by its own accelerations: a star that hardly moves tells the masses of
    /// planets.
    fn weigh(&mut self, noise: f64) {
        let mut sizes = vec![Vec::new(); self.bodies.len()];
        for node in &self.nodes {
            sizes[node.body].push(length(&node.target));
        }
        let usual = |mut sizes: Vec<f64>| {
            sizes.sort_by(f64::total_cmp);
            sizes.get(sizes.len() / 2).copied().unwrap_or(0.0)
        };
        let usual: Vec<f64> = sizes.into_iter().map(usual).collect();
        for node in &mut self.nodes {
            let size = usual[node.body] + length(&node.target) + noise;
            node.weight = if size > 0.0 { 1.0 / size } else { 0.0 };
        }
    }

    /// Masses if they explain more than equal ones, and charges if these explain much more; and the error of equal masses.
    pub fn best(&self, charges: bool) -> Best {
        let ones = vec![1.0; self.bodies.len()];
        let fit = |pull, yielding| self.fit([pull, yielding], [ones.clone(), ones.clone()], ROUNDS);
        let Some(equal) = fit(false, false).map(|fit| fit.judged) else {
            let none = f64::INFINITY;
            return Best { model: Err(NO_BETTER), error: none, equal: none };
        };
        let one = [(Differs::Pull, fit(true, false)), (Differs::Inertia, fit(false, true))];
        let one = one.into_iter().filter_map(|(differs, fit)| Some((differs, fit?)));
        let valid = one.filter(|(differs, fit)| fit.judged.is_finite() && fit.positive(*differs));
        let mut found: Vec<(Differs, Fit)> = valid.collect();
        found.sort_by(|a, b| a.1.judged.total_cmp(&b.1.judged));
        let pairs = self.groups.len() > 1 && self.groups.iter().all(|group| group.len() <= 2);
        let undecided = match &found[..] {
            [(_, a), (_, b)] => pairs && b.judged < ALIKE * a.judged,
            _ => false,
        };
        let mut best = found.into_iter().next();
        let least = best.as_ref().map_or(equal, |(_, fit)| fit.judged).min(equal);
        // In two groups the charges of one could be larger and its masses larger still.
        let one_group = self.groups.iter().filter(|group| !group.is_empty()).count() == 1;
        if charges && one_group && self.bodies.len() > 2 && least > ENOUGH {
            let both = self.charged();
            if let Some(both) = both.filter(|both| both.judged < MUCH_BETTER * least) {
                best = Some((Differs::Both, both));
            }
        }
        let best = best.filter(|(_, fit)| fit.judged < NOTHING && fit.judged < BETTER * equal);
        let error = best.as_ref().map_or(equal, |(_, fit)| fit.judged);
        let model = match best {
            Some(_) if undecided => Err(PAIRS_ONLY),
            Some(best) => Ok(best),
            None => Err(NO_BETTER),
        };
        Best { model, error, equal }
    }

    /// The fit of charges and masses: the best of several starts, as charges may differ in sign.
    fn charged(&self) -> Option<Fit> {
        let start = |seed: u64| {
            let mut random = Random::new(seed, 0);
            let mut sign = || if seed > 0 && random.below(2) == 0 { -1.0 } else { 1.0 };
            let signs: Vec<f64> = self.bodies.iter().map(|_| sign()).collect();
            self.fit([true, true], [signs.clone(), signs], TRIAL)
        };
        let tried = (0..STARTS).filter_map(start);
        let best = tried.min_by(|a, b| a.fitted.total_cmp(&b.fitted))?;
        let mut fit = self.fit([true, true], [best.pull, best.yielding], ROUNDS)?;
        // Of charge over mass and charge, the common sign is that of the force.
        let ratio: f64 = fit.pull.iter().zip(&fit.yielding).map(|(s, t)| (s / t).signum()).sum();
        if ratio < 0.0 {
            fit.yielding.iter_mut().chain(&mut fit.spline).for_each(|v| *v = -*v);
        }
        fit.positive(Differs::Both).then_some(fit)
    }

    /// Least squares in turn, from these numbers; which of the two may differ is `free`.
    fn fit(&self, free: [bool; 2], start: [Vec<f64>; 2], rounds: usize) -> Option<Fit> {
        let [pull, yielding] = start;
        let mut fit = Fit { pull, yielding, spline: vec![], fitted: 0.0, judged: 0.0 };
        let mut errors: Vec<f64> = Vec::new();
        for round in 0..rounds {
            fit.spline = self.spline(&fit)?;
            if free == [false; 2] {
                break;
            }
            if free[0] {
                fit.pull = scaled(self.pull(&fit)?)?;
            }
            if free[1] {
                fit.yielding = scaled(self.yielding(&fit))?;
            }
            errors.push(self.error(&fit, false));
            let before = round.checked_sub(20).map(|before| errors[before]);
            if before.is_some_and(|before| errors[round] >= (1.0 - GAIN) * before) {
                break;
            }
        }
        fit.spline = self.spline(&fit)?;
        (fit.fitted, fit.judged) = (self.error(&fit, false), self.error(&fit, true));
        Some(fit)
    }

    fn for_fitting(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| !node.judged)
    }

    fn spline(&self, fit: &Fit) -> Option<Vec<f64>> {
        let mut normal = Normal::new(SPLINE);
        let mut row = [0.0; SPLINE];
        for node in self.for_fitting() {
            for axis in 0..self.dim {
                self.along_spline(node, axis, fit, &mut row);
                normal.add(&row, node.target[axis], node.weight.powi(2));
            }
        }
        normal.ridged(RIDGE).solve()
    }

    /// Derivatives of the acceleration of a node along an axis by the coefficients of the spline.
    fn along_spline(&self, node: &Node, axis: usize, fit: &Fit, row: &mut [f64]) {
        row.fill(0.0);
        for pair in &self.pairs[node.pairs.clone()] {
            let strength = fit.yielding[node.body] * fit.pull[pair.sender] * pair.direction[axis];
            for (value, basis) in row[pair.first..].iter_mut().zip(pair.basis) {
                *value += strength * basis;
            }
        }
    }

    fn pull(&self, fit: &Fit) -> Option<Vec<f64>> {
        let mut pull = vec![0.0; self.bodies.len()];
        let mut place = vec![(0, 0); self.bodies.len()];
        for (number, group) in self.groups.iter().enumerate() {
            group.iter().enumerate().for_each(|(at, &body)| place[body] = (number, at));
        }
        let mut normals: Vec<Normal> = self.groups.iter().map(|g| Normal::new(g.len())).collect();
        for node in self.for_fitting() {
            let group = place[node.body].0;
            for axis in 0..self.dim {
                let mut row = vec![0.0; self.groups[group].len()];
                for pair in &self.pairs[node.pairs.clone()] {
                    row[place[pair.sender].1] +=
                        fit.yielding[node.body] * fit.force(pair) * pair.direction[axis];
                }
                normals[group].add(&row, node.target[axis], node.weight.powi(2));
            }
        }
        for (group, normal) in self.groups.iter().zip(normals) {
            for (&body, value) in group.iter().zip(normal.ridged(RIDGE).solve()?) {
                pull[body] = value;
            }
        }
        Some(pull)
    }

    fn yielding(&self, fit: &Fit) -> Vec<f64> {
        let mut sums = vec![(0.0, 0.0); self.bodies.len()];
        for node in self.for_fitting() {
            let (along, square) = &mut sums[node.body];
            for axis in 0..self.dim {
                let felt = self.felt(node, axis, fit);
                *along += node.weight.powi(2) * felt * node.target[axis];
                *square += node.weight.powi(2) * felt * felt;
            }
        }
        sums.into_iter()
            .map(|(along, square)| if square > 0.0 { along / square } else { 0.0 })
            .collect()
    }

    /// The sum over the senders, for a node that yields by 1.
    fn felt(&self, node: &Node, axis: usize, fit: &Fit) -> f64 {
        let pairs = self.pairs[node.pairs.clone()].iter();
        pairs.map(|pair| fit.pull[pair.sender] * fit.force(pair) * pair.direction[axis]).sum()
    }

    /// Σ weight |target − found| / Σ weight |target|
    fn error(&self, fit: &Fit, judged: bool) -> f64 {
        let (mut error, mut size) = (0.0, 0.0);
        for node in self.nodes.iter().filter(|node| node.judged == judged) {
            for axis in 0..self.dim {
                let found = fit.yielding[node.body] * self.felt(node, axis, fit);
                error += node.weight * (node.target[axis] - found).abs();
                size += node.weight * node.target[axis].abs();
            }
        }
        error / size
    }

    /// Standard deviations of the masses, in units of that of the body `held`, with all numbers that differ and the
    /// spline free.
    pub fn errors(&self, differs: Differs, fit: &Fit, held: usize) -> Option<Vec<f64>> {
        let n = self.bodies.len();
        let [pulls, yields] = [differs != Differs::Inertia, differs != Differs::Pull];
        // The spline, then pulls and yields.
        let (pull, yielding) = (SPLINE, SPLINE + if pulls { n } else { 0 });
        let count = yielding + if yields { n } else { 0 };
        let mut normal = Normal::new(count);
        let (mut squares, mut rows) = (0.0, 0);
        let mut row = vec![0.0; count];
        for node in self.for_fitting() {
            for axis in 0..self.dim {
                row.fill(0.0);
                self.along_spline(node, axis, fit, &mut row[..SPLINE]);
                let felt = self.felt(node, axis, fit);
                if pulls {
                    for pair in &self.pairs[node.pairs.clone()] {
                        row[pull + pair.sender] +=
                            fit.yielding[node.body] * fit.force(pair) * pair.direction[axis];
                    }
                    row[pull + held] = 0.0;
                }
                if yields && node.body != held {
                    row[yielding + node.body] = felt;
                }
                let left = node.target[axis] - fit.yielding[node.body] * felt;
                squares += (node.weight * left).powi(2);
                rows += 1;
                normal.add(&row, node.target[axis], node.weight.powi(2));
            }
        }
        let variance = squares / (f64::from(rows) - count as f64).max(1.0);
        let covariance = normal.ridged(RIDGE).covariance(variance)?;
        let masses = fit.masses(differs);
        let error = |k: usize| {
            if k == held {
                return 0.0;
            }
            // How the mass changes with the pull and with the yield of its body.
            let by_pull = (pull + k, if pulls { masses[k] / fit.pull[k] } else { 0.0 });
            let by_yield = (yielding + k, if yields { -masses[k] / fit.yielding[k] } else { 0.0 });
            let by: Vec<(usize, f64)> =
                [by_pull, by_yield].into_iter().filter(|(at, _)| *at < count).collect();
            let terms = by.iter().flat_map(|&(i, a)| {
                let covariance = &covariance;
                by.iter().map(move |&(j, b)| a * b * covariance[i * count + j])
            });
            terms.sum::<f64>().max(0.0).sqrt() / masses[held]
        };
        Some((0..n).map(error).collect())
    }
}

/// What [`Equations::best`] finds.
pub(super) struct Best {
    /// What differs, and the fit; or why there is none.
    pub model: Result<(Differs, Fit), &'static str>,
    /// The error of the fit, also where it cannot be used, or of equal masses.
    pub error: f64,
    /// The error of equal masses.
    pub equal: f64,
}

impl Fit {
    fn force(&self, pair: &Pair) -> f64 {
        (0..4).map(|k| pair.basis[k] * self.spline[pair.first + k]).sum()
    }

    /// The masses, up to a factor.
    pub fn masses(&self, differs: Differs) -> Vec<f64> {
        match differs {
            Differs::Pull => self.pull.clone(),
            Differs::Inertia => self.yielding.iter().map(|t| 1.0 / t).collect(),
            Differs::Both => self.pull.iter().zip(&self.yielding).map(|(s, t)| s / t).collect(),
        }
    }

    /// True if no mass is negative, but for pulls that are small.
    fn positive(&self, differs: Differs) -> bool {
        let masses = self.masses(differs);
        let largest = masses.iter().copied().fold(0.0, f64::max);
        let slack = if differs == Differs::Pull { 0.01 * largest } else { 0.0 };
        masses.iter().all(|mass| *mass > -slack && mass.is_finite())
    }
}

/// The numbers over the largest in size; `None` if that is no number, or zero.
fn scaled(mut values: Vec<f64>) -> Option<Vec<f64>> {
    let largest = values.iter().fold(0.0f64, |most, v| most.max(v.abs()));
    if !(largest > 0.0 && values.iter().all(|v| v.is_finite())) {
        return None;
    }
    values.iter_mut().for_each(|v| *v /= largest);
    Some(values)
}

fn length(vector: &[f64; 3]) -> f64 {
    vector.iter().map(|v| v * v).sum::<f64>().sqrt()
}
