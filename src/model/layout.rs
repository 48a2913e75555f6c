//! The layout of the features of a body.

use std::ops::Range;

/// The features of a body, in the order of data sets, networks and kernels: position, velocity, charge, mass
/// (docs/design.md §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyLayout {
    /// Dimensions of space.
    pub dim: usize,
}

impl BodyLayout {
    /// Number of features of a body.
    pub const fn width(self) -> usize {
        self.mass() + 1
    }

    /// r
    pub const fn position(self) -> Range<usize> {
        0..self.dim
    }

    /// v
    pub const fn velocity(self) -> Range<usize> {
        self.dim..2 * self.dim
    }

    /// q
    pub const fn charge(self) -> usize {
        2 * self.dim
    }

    /// m
    pub const fn mass(self) -> usize {
        self.charge() + 1
    }
}

/// The values of each graph in turn, of `values` `[node, width]` of graphs with these numbers of bodies.
pub fn by_graph<'a, T>(
    values: &'a [T],
    width: usize,
    bodies: &'a [u32],
) -> impl Iterator<Item = &'a [T]> {
    let mut rest = values;
    bodies.iter().map(move |&bodies| {
        let (graph, others) = rest.split_at(bodies as usize * width);
        rest = others;
        graph
    })
}
