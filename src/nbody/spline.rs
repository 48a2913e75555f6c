//! Cubic splines in the logarithm of the distance, for pair forces of unknown form.

/// Intervals of the spline.
pub(crate) const INTERVALS: usize = 24;
/// Coefficients of the spline.
pub(crate) const SPLINE: usize = INTERVALS + 3;
/// The spline covers all distances but this share of the smallest and of the largest; pairs beyond are left out.
const OUTLYING: f64 = 0.002;

/// The least and the largest of these logarithms of distances that the spline covers.
pub(crate) fn range(mut places: Vec<f64>) -> Option<[f64; 2]> {
    places.sort_by(f64::total_cmp);
    let last = places.len().checked_sub(1)? as f64;
    let [low, high] = [OUTLYING, 1.0 - OUTLYING].map(|at| places[(at * last).round() as usize]);
    (low.is_finite() && high - low > 1e-3).then_some([low, high])
}

/// Cubic B-splines at `place` from 0 to 1 of the range: the first of four that are not zero, and their values.
pub(crate) fn splines(place: f64) -> (usize, [f64; 4]) {
    let scaled = place * INTERVALS as f64;
    let first = (scaled as usize).min(INTERVALS - 1);
    let t = scaled - first as f64;
    let u = 1.0 - t;
    let basis = [
        u * u * u,
        3.0 * t * t * t - 6.0 * t * t + 4.0,
        3.0 * u * u * u - 6.0 * u * u + 4.0,
        t * t * t,
    ];
    (first, basis.map(|b| b / 6.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splines_hold_constants_and_cubics() {
        for place in [0.0, 0.013, 0.5, 0.999, 1.0] {
            let (first, basis) = splines(place);
            assert!(first + 4 <= SPLINE);
            assert!((basis.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            // The mean of the three knots within the support of each spline gives back the place.
            let knot = |k: usize| (first + k) as f64 - 1.0;
            let linear: f64 = (0..4).map(|k| basis[k] * knot(k)).sum();
            assert!((linear - place * INTERVALS as f64).abs() < 1e-9, "{linear} {place}");
        }
    }
}
