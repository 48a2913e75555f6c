//! Numbers that are simple multiples of π: written as such, and read back to the same bits.

use std::f64::consts::PI;

/// `above` · π / `below`, or 1 / (`below` · π).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PiMultiple {
    /// 1, 2, …; negative for a negative number.
    pub above: f64,
    /// 1, 2, ….
    pub below: f64,
    /// True for 1 / (below · π).
    pub inverse: bool,
}

/// The largest factors beside π: small, so that no other number is mistaken for such a multiple.
const ABOVE: u32 = 8;
const BELOW: u32 = 4;
const INVERSE: u32 = 10;

impl PiMultiple {
    /// All positive ones, the simplest first.
    pub fn all() -> impl Iterator<Item = PiMultiple> {
        let fractions = (1..=BELOW).flat_map(|below| {
            (1..=ABOVE).map(move |above| PiMultiple {
                above: above.into(),
                below: below.into(),
                inverse: false,
            })
        });
        let inverse = |below: u32| PiMultiple { above: 1.0, below: below.into(), inverse: true };
        fractions.chain((1..=INVERSE).map(inverse))
    }

    /// The number, computed in the order in which it is written.
    pub fn value(self) -> f64 {
        match self.inverse {
            true => self.above / (self.below * PI),
            false => self.above * PI / self.below,
        }
    }

    /// The multiple of π that equals a number to the last bit; None if there is none.
    pub fn of(value: f64) -> Option<PiMultiple> {
        let size = value.abs();
        let found = PiMultiple::all().find(|multiple| multiple.value() == size)?;
        Some(PiMultiple { above: found.above.copysign(value), ..found })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multiples_are_known_to_the_last_bit() {
        let half = PiMultiple { above: 1.0, below: 2.0, inverse: false };
        assert_eq!(PiMultiple::of(PI / 2.0), Some(half));
        assert_eq!(PiMultiple::of(-PI / 2.0), Some(PiMultiple { above: -1.0, ..half }));
        assert_eq!(PiMultiple::of(2.0 * PI / 4.0), Some(half), "the simplest");
        let inverse = PiMultiple { above: 1.0, below: 2.0, inverse: true };
        assert_eq!(PiMultiple::of(1.0 / (2.0 * PI)), Some(inverse));
        assert_eq!(PiMultiple::of(0.7234), None);
        assert_eq!(PiMultiple::of(0.0), None);
    }
}
