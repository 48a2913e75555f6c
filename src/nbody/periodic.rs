//! Trajectories in a periodic box: unwrapping them, and detecting a box that was not declared.

use super::scale::nearest;

/// A step longer than this fraction of the extent of all positions along the axis is a jump.
const JUMP: f64 = 0.6;
/// Steps between this fraction and that of a jump are taken for mere fast motion.
const FAST: f64 = 0.3;

/// Jumps along an axis, all of about the same length.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Jumps {
    /// The axis, 0 for x.
    pub axis: usize,
    /// How many.
    pub count: usize,
    /// Their median length: about the edge of the box.
    pub length: f64,
}

/// Unwraps the positions `[frame, bodies · dim]` of one run in a box with edges `period` (0 for an open axis): each
/// position is moved to the image nearest to the previous frame. Missing values stay missing.
pub fn unwrap(positions: &mut [f64], stride: usize, dim: usize, period: [f64; 3]) {
    let mut last = vec![f64::NAN; stride];
    for frame in positions.chunks_exact_mut(stride) {
        for (k, (x, last)) in frame.iter_mut().zip(&mut last).enumerate() {
            if last.is_finite() && x.is_finite() {
                *x = *last + nearest(*x - *last, period[k % dim]);
            }
            if x.is_finite() {
                *last = *x;
            }
        }
    }
}

/// Jumps that look like crossings of the edges of a periodic box, in runs of positions `[frame, bodies · dim]`, each
/// with its bodies · dim: one entry for each axis that has any.
pub fn jumps<'a>(runs: impl Iterator<Item = (&'a [f64], usize)> + Clone, dim: usize) -> Vec<Jumps> {
    let of_axis = |axis: usize| {
        let values = runs.clone().flat_map(|(run, _)| run.iter().skip(axis).step_by(dim));
        let finite = values.filter(|x| x.is_finite());
        let (least, most) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), &x| {
            (least.min(x), most.max(x))
        });
        let extent = most - least;
        let (mut far, mut fast) = (Vec::new(), 0);
        for (run, stride) in runs.clone() {
            for (now, next) in run.iter().zip(run.iter().skip(stride)).skip(axis).step_by(dim) {
                let step = (next - now).abs();
                if step > JUMP * extent {
                    far.push(step);
                } else if step > FAST * extent {
                    fast += 1;
                }
            }
        }
        // Bodies that are merely fast take steps of all lengths.
        if far.is_empty() || fast >= far.len() || extent <= 0.0 {
            return None;
        }
        far.sort_by(f64::total_cmp);
        Some(Jumps { axis, count: far.len(), length: far[far.len() / 2] })
    };
    (0..dim).filter_map(of_axis).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two bodies that cross a box of edge 4 along x and drift along y.
    fn wrapped(frames: usize) -> Vec<f64> {
        let frame = |k: usize| {
            let t = 0.1 * k as f64;
            [(3.0 + t).rem_euclid(4.0), 0.2 * t, (1.0 - 0.7 * t).rem_euclid(4.0), 1.0]
        };
        (0..frames).flat_map(frame).collect()
    }

    #[test]
    fn paths_have_no_jumps_once_they_are_unwrapped() {
        let mut positions = wrapped(100);
        let found = jumps(std::iter::once((&positions[..], 4)), 2);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].axis == 0 && found[0].count >= 3, "{found:?}");
        assert!((found[0].length - 3.9).abs() < 0.1, "{found:?}");
        positions[4 * 50] = f64::NAN;
        unwrap(&mut positions, 4, 2, [4.0, 0.0, 0.0]);
        assert!(positions[4 * 50].is_nan());
        assert!((positions[4 * 99] - (3.0 + 9.9)).abs() < 1e-12);
        assert!((positions[4 * 99 + 2] - (1.0 - 0.7 * 9.9)).abs() < 1e-12);
        positions[4 * 50] = 8.0;
        assert_eq!(jumps(std::iter::once((&positions[..], 4)), 2), []);
    }

    #[test]
    fn fast_bodies_do_not_jump() {
        let frame =
            |k: usize| [(1.3 * k as f64).sin(), (1.7 * k as f64).cos(), 0.0, 0.1 * k as f64];
        let positions: Vec<f64> = (0..200).flat_map(frame).collect();
        assert_eq!(jumps(std::iter::once((&positions[..], 4)), 2), []);
    }
}
