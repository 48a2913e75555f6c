//! The data from which a training draws its graphs: states of many runs of one system.

use std::sync::Arc;

use crate::model::layout::BodyLayout;
use crate::random::Random;

/// The states of many runs of one system.
#[derive(Clone, Copy)]
pub struct States<'a> {
    /// `[run, frame, body, dim]`.
    pub positions: &'a [f32],
    /// The same.
    pub velocities: &'a [f32],
    /// The same.
    pub accelerations: &'a [f32],
    /// `[run, body]`.
    pub masses: &'a [f32],
    /// The same.
    pub charges: &'a [f32],
    /// Bodies that a run really has, `[run]`; `None` if all have `bodies`.
    pub counts: Option<&'a [u32]>,
    /// Frames of a run.
    pub frames: usize,
    /// Bodies of a run: places in the arrays.
    pub bodies: usize,
    /// Dimensions of space.
    pub dim: usize,
}

/// Replacements for the numbers that networks see of the states.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    /// `[run, frame, body, dim]`.
    pub positions: Vec<f32>,
    /// The same.
    pub velocities: Vec<f32>,
    /// `[run, body]`.
    pub masses: Vec<f32>,
    /// The same.
    pub charges: Vec<f32>,
    /// As in [`States`].
    pub counts: Option<Vec<u32>>,
}

/// Graphs with their targets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graphs {
    /// `[node, n_features]`, graph by graph.
    pub features: Vec<f32>,
    /// `[node, dim]`.
    pub targets: Vec<f32>,
    /// Bodies of each graph.
    pub bodies: Vec<u32>,
}

impl Graphs {
    /// Leaves no graph, and keeps the memory.
    pub fn clear(&mut self) {
        let Graphs { features, targets, bodies } = self;
        features.clear();
        targets.clear();
        bodies.clear();
    }
}

/// Which frames are drawn, and how far each graph is translated.
#[derive(Clone, Copy)]
pub struct Draw {
    /// The first frame.
    pub first_frame: usize,
    /// Their number; they are `stride` apart.
    pub frames: usize,
    /// Distance from one drawn frame to the next.
    pub stride: usize,
    /// Standard deviation of the random translation of a graph.
    pub translation: f64,
}

/// The data from which each training of a stack draws.
pub struct Source<'a> {
    /// The states.
    pub states: States<'a>,
    /// What is shown instead of them, if that differs.
    pub shown: Option<Arc<Shown>>,
    /// Which frames to draw.
    pub draw: Draw,
    /// The data runs that each training draws from, `[runs, …]`.
    pub parts: Vec<u32>,
    /// The seed of each training's batches.
    pub seeds: Vec<u64>,
    /// The key of each training's noise.
    pub noise_seeds: Vec<u64>,
}

impl Source<'_> {
    /// The states as shown.
    pub fn states(&self) -> States<'_> {
        self.states.with(self.shown.as_deref())
    }
}

impl States<'_> {
    /// The same states with `shown` in place of their own numbers.
    pub fn with<'b>(&'b self, shown: Option<&'b Shown>) -> States<'b> {
        let Some(Shown { positions, velocities, masses, charges, counts }) = shown else {
            return *self;
        };
        States { positions, velocities, masses, charges, counts: counts.as_deref(), ..*self }
    }

    /// Appends one frame.
    pub fn push(&self, run: usize, frame: usize, out: &mut Graphs) {
        let (dim, bodies) = (self.dim, self.bodies);
        let at = (run * self.frames + frame) * bodies * dim;
        let count = self.counts.map_or(bodies, |counts| counts[run] as usize);
        for body in 0..count {
            let axes = at + body * dim..at + (body + 1) * dim;
            out.features.extend_from_slice(&self.positions[axes.clone()]);
            out.features.extend_from_slice(&self.velocities[axes]);
            out.features.push(self.charges[run * bodies + body]);
            out.features.push(self.masses[run * bodies + body]);
        }
        out.targets.extend_from_slice(&self.accelerations[at..at + count * dim]);
        out.bodies.push(count as u32);
    }

    /// Appends `count` random graphs of `runs`, each with a random translation as a whole. The kernel `tiny_gather`
    /// draws the same words.
    pub fn draw(
        &self,
        runs: &[u32],
        draw: Draw,
        count: usize,
        random: &mut Random,
        out: &mut Graphs,
    ) {
        for _ in 0..count {
            let run = runs[random.below(runs.len())] as usize;
            let frame = draw.first_frame + draw.stride * random.below(draw.frames);
            let begin = out.features.len();
            self.push(run, frame, out);
            let width = BodyLayout { dim: self.dim }.width();
            for axis in 0..self.dim {
                let shift = (draw.translation * random.normal()) as f32;
                for body in out.features[begin..].chunks_exact_mut(width) {
                    body[axis] += shift;
                }
            }
        }
    }
}
