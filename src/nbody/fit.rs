//! Velocities and accelerations from positions alone: a local polynomial fit (Savitzky and Golay
//! 1964, for times that need not be equidistant).
//!
//! Around each frame a polynomial is fitted to the positions of a window of frames; its first and
//! second derivatives there are linear in the positions, with weights that depend only on the times.
//! The residuals of the fit estimate the noise of the positions, and the weights propagate it.

/// The fit around one frame, as weights of the positions in its window.
///
/// A second polynomial, two orders higher if the window allows it, shows what the first one cannot follow.
pub(super) struct Fit {
    /// First frame of the window.
    pub first: usize,
    /// Weights for the velocity, `[window]`.
    pub velocity: Vec<f64>,
    /// Weights for the acceleration, `[window]`.
    pub acceleration: Vec<f64>,
    /// Weights for what the second polynomial adds to the velocity, `[window]`.
    pub velocity_more: Vec<f64>,
    /// Weights for what the second polynomial adds to the acceleration, `[window]`.
    pub acceleration_more: Vec<f64>,
    /// Orthonormal polynomials on the window, `[order of the second + 1][window]`.
    basis: Vec<Vec<f64>>,
}

impl Fit {
    /// Fits a polynomial of `order` around `frame` to a window of `window` frames, centred except near the ends of
    /// the run. Needs order ≥ 2 and order + 1 < window ≤ times.len().
    pub fn new(times: &[f64], frame: usize, order: usize, window: usize) -> Fit {
        let first = frame.saturating_sub(window / 2).min(times.len() - window);
        let inside = &times[first..first + window];
        let scale = inside[window - 1] - inside[0];
        let tau: Vec<f64> = inside.iter().map(|t| (t - times[frame]) / scale).collect();
        // Gram–Schmidt on 1, τ, τ², …; after its values each vector holds the first and second derivatives of its
        // polynomial at τ = 0. Done twice, for orthogonality to the last digit.
        let second = (order + 2).min(window - 1);
        let mut basis: Vec<Vec<f64>> = Vec::with_capacity(second + 1);
        for power in 0..=second {
            let mut vector: Vec<f64> = tau.iter().map(|t| t.powi(power as i32)).collect();
            vector.push(f64::from(u8::from(power == 1)));
            vector.push(2.0 * f64::from(u8::from(power == 2)));
            for other in basis.iter().chain(&basis) {
                let overlap = dot(&vector[..window], &other[..window]);
                vector.iter_mut().zip(other).for_each(|(v, o)| *v -= overlap * o);
            }
            let norm = dot(&vector[..window], &vector[..window]).sqrt();
            vector.iter_mut().for_each(|v| *v /= norm);
            basis.push(vector);
        }
        let weights = |basis: &[Vec<f64>], derivative: usize, unit: f64| -> Vec<f64> {
            let at = |i: usize| basis.iter().map(|q| q[window + derivative] * q[i]).sum::<f64>();
            (0..window).map(|i| at(i) / unit).collect()
        };
        let (lower, more) = basis.split_at(order + 1);
        let (velocity, acceleration) = (weights(lower, 0, scale), weights(lower, 1, scale * scale));
        let velocity_more = weights(more, 0, scale);
        let acceleration_more = weights(more, 1, scale * scale);
        for vector in &mut basis {
            vector.truncate(window);
        }
        Fit { first, velocity, acceleration, velocity_more, acceleration_more, basis }
    }

    /// Degrees of freedom that the second polynomial leaves.
    pub fn degrees_of_freedom(&self) -> usize {
        self.velocity.len() - self.basis.len()
    }

    /// The sum of squares of the residuals of the second polynomial; `positions` is `[window]`.
    pub fn residual(&self, positions: &[f64]) -> f64 {
        let mut left = positions.to_vec();
        for vector in &self.basis {
            let overlap = dot(&left, vector);
            left.iter_mut().zip(vector).for_each(|(l, v)| *l -= overlap * v);
        }
        dot(&left, &left)
    }
}

/// Σ a b
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Polynomials up to the order are differentiated exactly, also at uneven times and at the ends.
    #[test]
    fn polynomials_are_exact() {
        let times: Vec<f64> =
            (0..20).map(|k| 0.1 * f64::from(k) + 0.02 * f64::from(k).sin()).collect();
        let cubic = |t: f64| 2.0 - t + 3.0 * t * t - 0.5 * t * t * t;
        for frame in [0, 1, 7, 18, 19] {
            let fit = Fit::new(&times, frame, 3, 8);
            let t = times[frame];
            let window: Vec<f64> =
                times[fit.first..fit.first + 8].iter().map(|&t| cubic(t)).collect();
            assert!((dot(&fit.velocity, &window) - (-1.0 + 6.0 * t - 1.5 * t * t)).abs() < 1e-10);
            assert!((dot(&fit.acceleration, &window) - (6.0 - 3.0 * t)).abs() < 1e-9);
            assert!(fit.residual(&window) < 1e-24);
            assert!(dot(&fit.acceleration_more, &window).abs() < 1e-9);
            assert_eq!(fit.degrees_of_freedom(), 2);
            // The second polynomial supplies the part of t⁶ that the quartic misses.
            let fit = Fit::new(&times, frame, 4, 9);
            let window: Vec<f64> =
                times[fit.first..fit.first + 9].iter().map(|t| t.powi(6)).collect();
            let (a, more) = (dot(&fit.acceleration, &window), dot(&fit.acceleration_more, &window));
            assert!((a + more - 30.0 * t.powi(4)).abs() < 1e-6, "{frame}: {a} {more}");
        }
    }
}
