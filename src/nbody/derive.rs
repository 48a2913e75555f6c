//! Velocities and accelerations from positions, their errors, and whether given ones agree with the positions.
//!
//! The error of an acceleration has two parts: noise of the positions, passed on by the weights of the fit, and
//! whatever a polynomial of this order cannot follow. The latter is estimated by the difference from a polynomial two
//! orders higher, minus the noise in that difference, which is known on average, not for each frame.

use std::collections::HashMap;
use std::ops::Range;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::fit::{Fit, dot};
use super::trajectories::{Run, Trajectories};
use crate::error::{Error, Result};

/// How missing velocities and accelerations are fitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Order of the local polynomial.
    pub order: usize,
    /// Frames it is fitted to; `None`: as many as give the smallest error.
    pub window: Option<usize>,
}

impl Default for Settings {
    /// A quartic: its acceleration has an error of fourth order in the time between frames.
    fn default() -> Self {
        Settings { order: 4, window: None }
    }
}

/// The mean absolute value of a standard normal variable: √(2/π).
pub const MEAN_OF_NORMAL: f64 = 0.797_884_560_802_865_4;

/// Errors of the components of fitted accelerations.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ErrorBar {
    /// One standard deviation, median over bodies and frames.
    pub median: f64,
    /// One standard deviation for the worst body and frame.
    pub max: f64,
    /// 95 % of all components are within this of the truth.
    pub within_95: f64,
}

/// Window and errors of the fits.
pub struct Fitted {
    /// Frames to which most polynomials were fitted.
    pub window: usize,
    /// Standard deviation of the noise in the positions.
    pub position_noise: f64,
    /// Errors of the accelerations.
    pub error: ErrorBar,
}

/// Components of accelerations used to choose a window.
const SAMPLE: usize = 40_000;

/// Quantiles of the standard normal distribution at equal steps of probability.
const NORMAL: [f64; 12] =
    [-1.732, -1.150, -0.812, -0.549, -0.319, -0.105, 0.105, 0.319, 0.549, 0.812, 1.150, 1.732];

/// Relative disagreement that triggers a warning.
const DISAGREES: f64 = 0.03;

/// An error if no fit is possible with these settings.
pub fn check(settings: Settings) -> Result<()> {
    let Settings { order, window } = settings;
    if order < 2 {
        return Err(Error::usage("accelerations need at least order 2").field("order"));
    }
    if window.is_some_and(|window| window < order + 2) {
        let message = format!("a fit of order {order} needs a window of at least {}", order + 2);
        return Err(Error::usage(message).field("window"));
    }
    Ok(())
}

/// Fits missing velocities and accelerations to the positions. Frames between gaps too close together for a fit
/// are left out.
///
/// # Errors
/// Too few frames are left.
pub fn fill(read: &mut Trajectories, settings: Settings) -> Result<Option<Fitted>> {
    let given = |run: &Run| run.velocities.is_some() && run.accelerations.is_some();
    if read.runs.iter().all(given) {
        return Ok(None);
    }
    let needed = settings.order + 2;
    let mut short = 0;
    for run in &mut read.runs {
        let kept: Vec<Range<usize>> =
            run.segments().into_iter().filter(|segment| segment.len() >= needed).collect();
        let left: usize = kept.iter().map(Range::len).sum();
        short += run.frames() - left;
        if left < run.frames() {
            let size = run.positions.len() / run.frames();
            keep(run, &kept, size);
        }
    }
    let all = read.runs.len();
    read.runs.retain(|run| run.frames() > 0);
    if read.runs.is_empty() {
        // Warnings from reading may say why, for example that the axes of an array are in another order.
        let notes: String = read
            .notes
            .iter()
            .filter(|n| n.starts_with("warning"))
            .map(|n| format!("; {n}"))
            .collect();
        let message = format!(
            "there are too few times to fit velocities or accelerations with order {}: {needed} without a gap are \
             needed{notes}",
            settings.order
        );
        return Err(Error::input(message).file(&read.path).field("time"));
    }
    if short > 0 {
        let gone = match all - read.runs.len() {
            0 => String::new(),
            gone => format!(", among them {gone} whole runs"),
        };
        read.notes.push(format!(
            "{short} frames are left out{gone}: there are fewer than {needed} in a row without a gap"
        ));
    }
    let gaps: usize = read.runs.iter().map(|run| run.segments().len() - 1).sum();
    if gaps > 0 {
        let gaps = if gaps == 1 { "1 gap".to_string() } else { format!("{gaps} gaps") };
        read.notes.push(format!("{gaps} in time, which no fit crosses"));
    }
    let (dim, order) = (read.dim, settings.order);
    let (window, noise) = match settings.window {
        Some(window) => (window, None),
        None => choose(read, order),
    };
    let longest =
        read.runs.iter().flat_map(|run| run.segments()).map(|s| s.len()).max().unwrap_or(0);
    let fits: Vec<Derivatives> =
        read.runs.par_iter().map(|run| Derivatives::new(run, dim, order, window, 1)).collect();
    let noise = noise.unwrap_or_else(|| position_noise(&fits, dim));
    let error = bars(&fits, dim, noise);
    let size = |values: &[f64]| (values.iter().map(|v| v * v).sum::<f64>(), values.len());
    let (squares, count) = fits
        .iter()
        .map(|fit| size(&fit.accelerations))
        .fold((0.0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1));
    let rms = (squares / count as f64).sqrt();
    if read.runs.iter().any(|run| run.accelerations.is_none()) && error.within_95 > rms {
        read.notes.push(format!(
            "warning: the accelerations have errors of {:.1e} but a size of only {rms:.1e}: nothing can be learned \
             from them",
            error.within_95
        ));
    }
    for (run, fit) in read.runs.iter_mut().zip(fits) {
        run.velocities.get_or_insert(fit.velocities);
        run.accelerations.get_or_insert(fit.accelerations);
    }
    Ok(Some(Fitted { window: window.min(longest), position_noise: noise, error }))
}

/// Keeps only these frames of the run; each has `size` coordinates.
fn keep(run: &mut Run, frames: &[Range<usize>], size: usize) {
    let part = |values: &Vec<f64>, size: usize| -> Vec<f64> {
        frames.iter().flat_map(|f| values[f.start * size..f.end * size].to_vec()).collect()
    };
    run.positions = part(&run.positions, size);
    run.velocities = run.velocities.as_ref().map(|v| part(v, size));
    run.accelerations = run.accelerations.as_ref().map(|a| part(a, size));
    run.times = part(&run.times, 1);
}

/// Derivatives fitted to the positions of a run, and the residuals.
struct Derivatives {
    /// `[frame, body, dim]`
    velocities: Vec<f64>,
    /// `[frame, body, dim]`
    accelerations: Vec<f64>,
    /// What a polynomial two orders higher adds to the velocities, `[frame, body, dim]`.
    velocities_more: Vec<f64>,
    /// The same for the accelerations.
    accelerations_more: Vec<f64>,
    /// Mean squared residual of the second polynomial per degree of freedom, `[frame, body]`; no rows where it has
    /// no degrees of freedom.
    left: Vec<f64>,
    /// Degrees of freedom it leaves.
    degrees_of_freedom: usize,
    /// Noise of the fit around each frame.
    frames: Vec<OfFrame>,
}

/// How the fit around a frame propagates noise.
#[derive(Clone, Copy)]
struct OfFrame {
    /// Standard deviation of an acceleration for positions of standard deviation 1.
    noise: f64,
    /// The same for what the second polynomial adds.
    noise_more: f64,
    /// Equal for fits of the same kind: frames in the window, and frames from its middle to this frame.
    class: (usize, usize),
}

impl Derivatives {
    /// Fits around every `every`-th frame.
    fn new(run: &Run, dim: usize, order: usize, window: usize, every: usize) -> Derivatives {
        let stride = run.bodies.len() * dim;
        let mut made = Derivatives {
            velocities: Vec::new(),
            accelerations: Vec::new(),
            velocities_more: Vec::new(),
            accelerations_more: Vec::new(),
            left: Vec::new(),
            degrees_of_freedom: 0,
            frames: Vec::new(),
        };
        let norm = |weights: &[f64]| dot(weights, weights).sqrt();
        for segment in run.segments().into_iter().filter(|segment| segment.len() >= order + 2) {
            let window = window.min(segment.len());
            let times = &run.times[segment.clone()];
            let mut inside = vec![0.0; window];
            for frame in segment.clone().step_by(every) {
                let fit = Fit::new(times, frame - segment.start, order, window);
                let first = segment.start + fit.first;
                let middle = fit.first + window / 2;
                made.frames.push(OfFrame {
                    noise: norm(&fit.acceleration),
                    noise_more: norm(&fit.acceleration_more),
                    class: (window, middle.abs_diff(frame - segment.start)),
                });
                made.degrees_of_freedom = made.degrees_of_freedom.max(fit.degrees_of_freedom());
                for c in 0..stride {
                    for (i, value) in inside.iter_mut().enumerate() {
                        *value = run.positions[(first + i) * stride + c];
                    }
                    made.velocities.push(dot(&fit.velocity, &inside));
                    made.accelerations.push(dot(&fit.acceleration, &inside));
                    made.velocities_more.push(dot(&fit.velocity_more, &inside));
                    made.accelerations_more.push(dot(&fit.acceleration_more, &inside));
                    if fit.degrees_of_freedom() > 0 {
                        let left = fit.residual(&inside) / (fit.degrees_of_freedom() * dim) as f64;
                        match made.left.last_mut() {
                            Some(of_body) if c % dim > 0 => *of_body += left,
                            _ => made.left.push(left),
                        }
                    }
                }
            }
        }
        made
    }
}

/// The standard deviation of the noise in the positions, from the median of the squared residuals, as the largest
/// are misfits.
fn position_noise(fits: &[Derivatives], dim: usize) -> f64 {
    let mut left: Vec<f64> = fits.iter().flat_map(|fit| &fit.left).copied().collect();
    if left.is_empty() {
        return 0.0;
    }
    left.sort_by(f64::total_cmp);
    let freedom = fits.iter().map(|fit| fit.degrees_of_freedom).max().unwrap_or(1).max(1) * dim;
    // The median of χ² over its mean (Wilson and Hilferty 1931).
    let median = (1.0 - 2.0 / (9.0 * freedom as f64)).powi(3);
    (left[left.len() / 2] / median).sqrt()
}

/// The errors of the accelerations for positions with this noise.
fn bars(fits: &[Derivatives], dim: usize, noise: f64) -> ErrorBar {
    // For each kind of fit: the sum of squares of what the second polynomial adds, and that expected from noise.
    let mut classes: HashMap<(usize, usize), (f64, f64)> = HashMap::new();
    for fit in fits {
        let stride = fit.accelerations.len() / fit.frames.len().max(1);
        for (of_frame, more) in fit.frames.iter().zip(fit.accelerations_more.chunks(stride.max(1)))
        {
            let (adds, noisy) = classes.entry(of_frame.class).or_default();
            *adds += more.iter().map(|d| d * d).sum::<f64>();
            *noisy += stride as f64 * (noise * of_frame.noise_more).powi(2);
        }
    }
    let share = |class: &(usize, usize)| {
        let (adds, noisy) = classes[class];
        if adds > noisy { (1.0 - noisy / adds).sqrt() } else { 0.0 }
    };
    let all: usize = fits.iter().map(|fit| fit.accelerations.len()).sum();
    let every = (all / (5 * SAMPLE)).max(1);
    let (mut deviations, mut errors) = (Vec::new(), Vec::new());
    for fit in fits {
        let stride = fit.accelerations.len() / fit.frames.len().max(1);
        for (of_frame, more) in fit.frames.iter().zip(fit.accelerations_more.chunks(stride.max(1)))
        {
            let (passed, share) = (noise * of_frame.noise, share(&of_frame.class));
            for of_body in more.chunks(dim) {
                let squares = of_body.iter().map(|d| (share * d).powi(2)).sum::<f64>();
                deviations.push((passed * passed + squares / dim as f64).sqrt());
            }
            if errors.len() / NORMAL.len() * every <= deviations.len() * dim {
                let error = |d: &f64| NORMAL.map(|z| (share * d + passed * z).abs());
                errors.extend(more.iter().flat_map(error));
            }
        }
    }
    deviations.sort_by(f64::total_cmp);
    let at = errors.len() * 95 / 100;
    let within_95 = *errors.select_nth_unstable_by(at, f64::total_cmp).1;
    ErrorBar {
        median: deviations[deviations.len() / 2],
        max: deviations[deviations.len() - 1],
        within_95,
    }
}

/// The window with the smallest error on a sample, and the noise of the positions if it could be determined.
fn choose(read: &Trajectories, order: usize) -> (usize, Option<f64>) {
    let longest =
        read.runs.iter().flat_map(|run| run.segments()).map(|s| s.len()).max().unwrap_or(0);
    let all: usize = read.runs.iter().map(|run| run.positions.len()).sum();
    let skip = all.div_ceil(SAMPLE);
    // Runs are left out first, then frames.
    let runs: Vec<&Run> =
        read.runs.iter().step_by(skip.min(read.runs.len().div_ceil(20))).collect();
    let of_runs: usize = runs.iter().map(|run| run.positions.len()).sum();
    let every = of_runs.div_ceil(SAMPLE);
    let fits = |window: usize| -> Vec<Derivatives> {
        let fit = |run: &&Run| Derivatives::new(run, read.dim, order, window, every);
        runs.par_iter().map(fit).collect()
    };
    // The shortest window in which the second polynomial leaves two degrees of freedom.
    let shortest = (order + 5).min(longest);
    let noise = position_noise(&fits(shortest), read.dim);
    let mut best = (f64::INFINITY, shortest);
    let mut window = order + 3;
    while window <= longest {
        let error = bars(&fits(window), read.dim, noise).within_95;
        if error < best.0 {
            best = (error, window);
        } else if error > 3.0 * best.0 {
            break;
        }
        // Odd windows are symmetric.
        window = (window * 7 / 5 + 1) | 1;
    }
    (best.1, (shortest > order + 3).then_some(noise))
}

/// Compares given velocities and accelerations with those fitted to the positions, and notes disagreement.
pub fn compare(read: &mut Trajectories) {
    let order = Settings::default().order;
    let all: usize = read.runs.iter().map(|run| run.positions.len()).sum();
    let given = |run: &&Run| run.velocities.is_some() || run.accelerations.is_some();
    let runs: Vec<&Run> =
        read.runs.iter().step_by((all / SAMPLE).clamp(1, read.runs.len())).filter(given).collect();
    let (mut velocities, mut accelerations) = (Vec::new(), Vec::new());
    for run in runs {
        // Runs with segments too short for a fit are left out.
        let whole = run.segments().iter().all(|segment| segment.len() >= order + 3);
        if !whole {
            continue;
        }
        let fit = Derivatives::new(run, read.dim, order, order + 5, 1);
        let fitted = |values: &[f64], more: &[f64], given: &Option<Vec<f64>>| -> Vec<[f64; 3]> {
            let Some(given) = given else { return Vec::new() };
            given.iter().zip(values).zip(more).map(|((g, v), m)| [*g, *v, *m]).collect()
        };
        velocities.extend(fitted(&fit.velocities, &fit.velocities_more, &run.velocities));
        accelerations.extend(fitted(
            &fit.accelerations,
            &fit.accelerations_more,
            &run.accelerations,
        ));
    }
    let (v, a) = (factor(velocities), factor(accelerations));
    // Three digits: the fits are no more accurate.
    let shown = |factor: f64| -> f64 { format!("{factor:.2e}").parse().unwrap_or(factor) };
    let off = |factor: Option<f64>| factor.filter(|f| (f - 1.0).abs() > DISAGREES);
    let close = |a: f64, b: f64| (a / b - 1.0).abs() < DISAGREES;
    if let (Some(v), Some(a)) = (off(v), off(a))
        && v > 0.0
        && close(a, v * v)
    {
        read.notes.push(format!(
            "warning: the times are {} times what velocities and accelerations say: are they in other units?",
            shown(v)
        ));
        return;
    }
    for (name, factor) in [("velocities", off(v)), ("accelerations", off(a))] {
        let Some(factor) = factor else { continue };
        let why =
            if close(factor, -1.0) { "is the sign reversed?" } else { "are they in other units?" };
        read.notes.push(format!(
            "warning: the {name} are {} times what the positions say: {why}",
            shown(factor)
        ));
    }
}

/// The ratio of given to fitted values; `None` if the fits are too coarse to tell. Each item is the given value, the
/// fitted value, and what a polynomial two orders higher adds.
fn factor(mut items: Vec<[f64; 3]>) -> Option<f64> {
    // The larger half, where noise is relatively small.
    items.sort_by(|a, b| b[1].abs().total_cmp(&a[1].abs()));
    items.truncate(items.len() / 2);
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    };
    let unsure = median(items.iter().map(|[_, value, more]| (more / value).abs()).collect())?;
    let factor = median(items.iter().map(|[given, value, _]| given / value).collect())?;
    let spread =
        median(items.iter().map(|[given, value, _]| (given / value - factor).abs()).collect())?;
    (unsure < DISAGREES / 3.0 && spread < 0.1 * factor.abs() && factor.is_finite())
        .then_some(factor)
}
