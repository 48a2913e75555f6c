//! Training on displacements: in a periodic box, if position matters for bodies but not for the forces between them,
//! or if runs have different numbers of bodies. The bodies of a batch form one graph of [`edge`], which uses the
//! nearest image of each sender. φe depends on displacements alone, exactly; φv sees the position only if it matters.

use std::ops::Range;

use crate::device::Device;
use crate::error::Result;
use crate::model::Shape;
use crate::ops::Training;
use crate::ops::adam::Networks;
use crate::ops::edge::{self, Coordinates, symmetry};
use crate::ops::tiny::source::{Draw, Graphs, Source};
use crate::ops::tiny::{Loss, Problem};
use crate::random::Random;

/// A stack of trainings on displacements. Networks and moments stay on the host on every device.
pub(super) struct Displaced<'a> {
    device: Device,
    problem: Problem,
    source: Source<'a>,
    period: f32,
    /// True if φv sees the position.
    place: bool,
    networks: Networks,
    batch: Graphs,
    edges: Complete,
    workspace: edge::Workspace,
}

/// The edges of a batch: every ordered pair of each graph.
#[derive(Default)]
struct Complete {
    /// Bodies of each graph.
    bodies: Vec<u32>,
    row_start: Vec<u64>,
    sender: Vec<u32>,
    receivers: Vec<u32>,
}

impl Complete {
    /// Connects graphs with these numbers of bodies.
    fn connect(&mut self, bodies: &[u32]) {
        if self.bodies == bodies {
            return;
        }
        self.bodies = bodies.to_vec();
        self.sender.clear();
        self.row_start = vec![0];
        let mut first = 0;
        for &n in bodies {
            for node in first..first + n {
                self.sender.extend((first..first + n).filter(|other| *other != node));
                self.row_start.push(self.sender.len() as u64);
            }
            first += n;
        }
        self.receivers = (0..first).collect();
    }
}

impl<'a> Displaced<'a> {
    /// Trainings with these rates and arenas, as for [`crate::ops::tiny::Session::new`], in a box with
    /// edge `period` (0 for open space); φv sees the position if `place`.
    pub fn new(
        device: Device,
        problem: Problem,
        source: Source<'a>,
        period: f64,
        place: bool,
        rates: Vec<f32>,
        arenas: [&[f32]; 3],
    ) -> Self {
        let mut networks = Networks::new(rates, arenas);
        let (arena, dim) = (problem.shape.arena(), problem.shape.outputs);
        for run in networks.parameters.chunks_exact_mut(arena.len) {
            symmetry::displacements(&arena, run, dim);
            if !place {
                symmetry::drop_position(&arena, run, dim);
            }
        }
        Displaced {
            device,
            problem,
            source,
            period: period as f32,
            place,
            networks,
            batch: Graphs::default(),
            edges: Complete::default(),
            workspace: edge::Workspace::default(),
        }
    }

    /// Takes these steps; returns the losses, `[steps, runs]`.
    ///
    /// # Errors
    /// Those of the operation.
    pub fn advance(&mut self, shape: Shape, steps: Range<u64>) -> Result<Vec<Loss>> {
        let mut losses = Vec::new();
        for step in steps {
            for run in 0..self.problem.runs {
                losses.push(self.step(shape, step, run)?);
            }
            self.networks.step(&self.device, step, self.problem.runs)?;
        }
        Ok(losses)
    }

    /// The gradient of one run of the stack, and its loss.
    fn step(&mut self, shape: Shape, step: u64, run: usize) -> Result<Loss> {
        let Problem { penalty, weight_decay, precision, runs, graphs, .. } = self.problem;
        let Source { parts, seeds, noise_seeds, draw, .. } = &self.source;
        let part = &parts[run * (parts.len() / runs)..][..parts.len() / runs];
        self.batch.clear();
        let mut random = Random::new(seeds[run], step);
        // Displacements need no random translation.
        let draw = Draw { translation: 0.0, ..*draw };
        self.source.states().draw(part, draw, graphs, &mut random, &mut self.batch);
        self.edges.connect(&self.batch.bodies);
        let arena = shape.arena();
        let of_run = run * arena.len..(run + 1) * arena.len;
        let batch = edge::Batch {
            shape,
            penalty,
            weight_decay,
            precision,
            row_start: &self.edges.row_start,
            sender: &self.edges.sender,
            receivers: &self.edges.receivers,
            features: &self.batch.features,
            coordinates: Coordinates { dim: shape.outputs, period: self.period, shift: [0.0; 3] },
            noise_seed: noise_seeds[run],
            step,
        };
        let Networks { parameters, gradients, .. } = &mut self.networks;
        let gradients = &mut gradients[of_run.clone()];
        let parameters = &parameters[of_run];
        let (targets, workspace) = (&self.batch.targets, &mut self.workspace);
        let loss = edge::gradient(&self.device, &batch, targets, parameters, gradients, workspace)?;
        symmetry::project_displacements(&arena, gradients, shape.outputs);
        if !self.place {
            symmetry::drop_position(&arena, gradients, shape.outputs);
        }
        Ok(loss)
    }
}

impl Training for Displaced<'_> {
    fn most_steps(&self) -> u64 {
        1
    }

    fn parameters(&self, parameters: &mut [f32]) -> Result<()> {
        self.networks.parameters(parameters)
    }

    fn moments(&self, m: &mut [f32], v: &mut [f32]) -> Result<()> {
        self.networks.moments(m, v)
    }

    fn replace(&mut self, _: Shape, arenas: [&[f32]; 3]) -> Result<()> {
        self.networks.replace(arenas);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_a_graph_is_connected() {
        let mut edges = Complete::default();
        edges.connect(&[4]);
        edges.connect(&[2, 3]);
        assert_eq!(edges.row_start, [0, 1, 2, 4, 6, 8]);
        assert_eq!(edges.sender, [1, 0, 3, 4, 2, 4, 2, 3]);
        assert_eq!(edges.receivers, [0, 1, 2, 3, 4]);
    }
}
