//! How a network sees bodies: the inputs derived from the values of a data set, the same in training and afterwards.
//! For simulated data they are the values themselves.

use super::model::DataSet;
use super::settings::Settings;
use crate::choice;
use crate::model::layout::BodyLayout;
use crate::nbody::dataset::Dataset;
use crate::nbody::scale::{ColumnEncoding, nearest};
use crate::ops::tiny::source::Shown;

choice! {
    /// What a law may depend on.
    pub enum Quantity {
        /// Positions.
        R = "r",
        /// Velocities.
        V = "v",
        /// Masses.
        M = "m",
        /// Charges.
        Q = "q",
    }
}

/// How a network sees bodies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct View {
    layout: BodyLayout,
    /// Positions are relative to the mean of the bodies, as the law does not depend on position.
    centred: bool,
    mass: ColumnEncoding,
    charge: ColumnEncoding,
    /// Whether velocities, masses and charges are hidden, that is, set to 0.
    hidden: [bool; 3],
    /// Edge of the periodic box in the positions the network sees; 0 for open space.
    period: f64,
    /// Factors on positions that turn the box into a cube.
    stretch: [f64; 3],
}

/// Open axes of a partly periodic box are scaled by this factor, so that they do not wrap while bodies
/// are less than 0.5 / OPEN_AXIS_SCALE edges of the box apart.
const OPEN_AXIS_SCALE: f64 = 1.0 / 16.0;

impl View {
    /// How a network with these settings sees this data set.
    pub fn new(data: &DataSet, settings: &Settings) -> Self {
        let hides = |quantity| settings.unseen.contains(&quantity);
        let periods = data.period.unwrap_or_default();
        let period = periods.into_iter().find(|&l| l > 0.0).unwrap_or(0.0);
        let stretch = |l: f64| if l > 0.0 { period / l } else { OPEN_AXIS_SCALE };
        View {
            layout: BodyLayout { dim: data.dim },
            centred: data.scale.is_some() && !settings.external() && period == 0.0,
            mass: data.mass,
            charge: data.charge,
            hidden: [hides(Quantity::V), hides(Quantity::M), hides(Quantity::Q)],
            period,
            stretch: if period > 0.0 { periods.map(stretch) } else { [1.0; 3] },
        }
    }

    /// The same for an opened data set.
    pub fn of(data: &Dataset, settings: &Settings) -> Self {
        View::new(&DataSet::of(data), settings)
    }

    /// True if the network sees the values themselves.
    pub fn is_plain(&self) -> bool {
        !self.centred
            && self.period == 0.0
            && self.hidden == [false; 3]
            && [self.mass, self.charge] == [ColumnEncoding::default(); 2]
    }

    /// Edge of the periodic box in the positions the network sees; 0 for open space.
    pub fn period(&self) -> f64 {
        self.period
    }

    /// The data set as seen in training; `None` if that is the data set itself.
    pub fn shown(&self, data: &Dataset) -> Option<Shown> {
        (!self.is_plain()).then(|| self.show_all(data))
    }

    /// The same, but a copy if that is the data set itself.
    pub fn show_all(&self, data: &Dataset) -> Shown {
        let matter = |values: &[f32], seen: ColumnEncoding, hidden: bool| -> Vec<f32> {
            values.iter().map(|&v| if hidden { 0.0 } else { seen.apply(v) }).collect()
        };
        let [no_velocities, no_masses, no_charges] = self.hidden;
        let dim = self.layout.dim;
        let mut positions = data.positions().to_vec();
        let all = positions.chunks_exact_mut(data.about.bodies * dim);
        for (frame, real) in all.zip(data.frames(data.positions())) {
            self.place(&mut frame[..real.len()], dim);
        }
        let mut velocities = data.velocities().to_vec();
        if no_velocities {
            velocities.fill(0.0);
        }
        Shown {
            positions,
            velocities,
            masses: matter(data.masses(), self.mass, no_masses),
            charges: matter(data.charges(), self.charge, no_charges),
            counts: data.counts().map(<[u32]>::to_vec),
        }
    }

    /// Converts the features of a graph, or of the two ends of an edge, `[bodies, n_features]`, in place.
    pub fn show(&self, features: &mut [f32]) {
        let width = self.layout.width();
        self.place(features, width);
        for body in features.chunks_exact_mut(width) {
            if self.hidden[0] {
                body[self.layout.velocity()].fill(0.0);
            }
            let (mass, charge) = (self.layout.mass(), self.layout.charge());
            body[mass] = if self.hidden[1] { 0.0 } else { self.mass.apply(body[mass]) };
            body[charge] = if self.hidden[2] { 0.0 } else { self.charge.apply(body[charge]) };
        }
    }

    /// Converts the positions of a graph, the first columns of rows of `width` numbers.
    fn place(&self, rows: &mut [f32], width: usize) {
        let bodies = (rows.len() / width) as f64;
        for axis in 0..self.layout.dim {
            let column = || rows.iter().skip(axis).step_by(width).map(|&x| f64::from(x));
            let middle = if self.centred { column().sum::<f64>() / bodies } else { 0.0 };
            if middle == 0.0 && self.stretch[axis] == 1.0 {
                continue;
            }
            for x in rows.iter_mut().skip(axis).step_by(width) {
                *x = ((f64::from(*x) - middle) * self.stretch[axis]) as f32;
            }
        }
    }

    /// Moves the sender of each edge (as seen, `[edges, 2·n_features]`) to its image nearest to the receiver.
    pub fn nearest(&self, edges: &mut [f32]) {
        if self.period == 0.0 {
            return;
        }
        let width = self.layout.width();
        for edge in edges.chunks_exact_mut(2 * width) {
            let (receiver, sender) = edge.split_at_mut(width);
            for axis in 0..self.layout.dim {
                let from = f64::from(receiver[axis]);
                let along = nearest(f64::from(sender[axis]) - from, self.period);
                sender[axis] = (from + along) as f32;
            }
        }
    }
}
