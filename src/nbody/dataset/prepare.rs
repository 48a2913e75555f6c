//! Preparing a data set for use: conversion of units, splitting a single run into blocks of time.

use std::sync::Arc;

use super::{About, Arrays, Dataset, Numbers, Units};
use crate::error::{Error, Result};
use crate::nbody::scale::{Sample, Scale};

impl Dataset {
    /// Converts to these units and splits a single run into blocks.
    pub(super) fn prepared(mut self, units: Units) -> Result<Self> {
        let stored = self.about.units();
        let wanted = match units {
            Units::Natural if self.about.law.is_some() || self.about.scale.is_some() => stored,
            Units::Natural => self.natural(),
            Units::Users => Scale::NONE,
            Units::Of(scale) => scale,
            Units::Stored => return Ok(self),
        };
        if wanted != stored {
            self.convert(wanted)?;
        }
        if self.about.law.is_none() && self.about.runs == 1 {
            self.split()?;
        }
        Ok(self)
    }

    /// Turns blocks of time of a single run into runs, so that held-out data are spread over all of it.
    fn split(&mut self) -> Result<()> {
        let Some(blocks) = blocks(self.about.frames) else { return Ok(()) };
        let mut own = self.converted(self.about.units())?;
        let frames = self.about.frames / blocks;
        (self.about.runs, self.about.frames, self.blocks) = (blocks, frames, true);
        let values = blocks * frames * self.about.bodies * self.about.dim;
        for tensor in [&mut own.positions, &mut own.velocities, &mut own.accelerations] {
            tensor.truncate(values);
        }
        own.times.truncate(blocks * frames);
        own.lengths.clear();
        own.counts = own.counts.repeat(blocks);
        (own.masses, own.charges) = (own.masses.repeat(blocks), own.charges.repeat(blocks));
        self.numbers = Arc::new(Numbers::Owned(own));
        Ok(())
    }

    /// Natural units of data stored in the user's units.
    fn natural(&self) -> Scale {
        let About { bodies, dim, .. } = self.about;
        let wide = |values: &[f32]| values.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
        // Bodies that are not there are not numbers, and left out.
        let of_frames = |values: &[f32]| -> Vec<f64> {
            let mut all = vec![f64::NAN; values.len()];
            let frames = all.chunks_exact_mut(bodies * dim).zip(self.frames(values));
            frames.for_each(|(all, there)| {
                all.iter_mut().zip(there).for_each(|(v, &value)| *v = f64::from(value));
            });
            all
        };
        Scale::natural(&Sample {
            positions: &of_frames(self.positions()),
            accelerations: &of_frames(self.accelerations()),
            masses: &wide(self.masses()),
            charges: &wide(self.charges()),
            bodies,
            dim,
            period: self.about.periods(),
        })
    }

    /// Converts all values to other units.
    fn convert(&mut self, to: Scale) -> Result<()> {
        let length = self.about.units().length / to.length;
        self.numbers = Arc::new(Numbers::Owned(self.converted(to)?));
        let period = self.about.period.take();
        self.about.period = period.map(|edges| edges.iter().map(|l| l * length).collect());
        self.about.scale = Some(to);
        Ok(())
    }

    /// All values in other units.
    fn converted(&self, to: Scale) -> Result<Arrays> {
        let from = self.about.units();
        let values = |name: &str, values: &[f32], by: f64| {
            let values: Vec<f32> = values.iter().map(|&v| (f64::from(v) * by) as f32).collect();
            self.held(name, values)
        };
        let dim = self.about.dim;
        let length = from.length / to.length;
        let moved: [f64; 3] =
            std::array::from_fn(|axis| (from.origin[axis] - to.origin[axis]) / to.length);
        let place = |(at, &x): (usize, &f32)| (f64::from(x) * length + moved[at % dim]) as f32;
        let positions = self.positions().iter().enumerate().map(place).collect();
        let (velocity, acceleration) =
            (from.velocity() / to.velocity(), from.acceleration() / to.acceleration());
        let time = from.time / to.time;
        Ok(Arrays {
            positions: self.held("positions", positions)?,
            velocities: values("velocities", self.velocities(), velocity)?,
            accelerations: values("accelerations", self.accelerations(), acceleration)?,
            masses: values("masses", self.masses(), from.mass / to.mass)?,
            charges: values("charges", self.charges(), from.charge / to.charge)?,
            times: self.clocks().iter().map(|t| t * time).collect(),
            lengths: self.lengths().unwrap_or_default().to_vec(),
            counts: self.counts().unwrap_or_default().to_vec(),
        })
    }

    /// An error if f32 cannot hold a value.
    fn held(&self, name: &str, values: Vec<f32>) -> Result<Vec<f32>> {
        if values.iter().all(|v| v.is_finite()) {
            return Ok(values);
        }
        let message = "has numbers that f32 cannot hold in these units";
        Err(Error::input(message).file(self.path()).field(name))
    }
}

/// The number of blocks into which a single run of this many frames is split, leaving over as few frames as possible.
fn blocks(frames: usize) -> Option<usize> {
    (FEWEST_BLOCKS.min(frames)..=MOST_BLOCKS.min(frames)).min_by_key(|n| frames % n)
}

/// Limits on the number of blocks of a single run (fewer if it has fewer frames).
const FEWEST_BLOCKS: usize = 8;
const MOST_BLOCKS: usize = 24;
