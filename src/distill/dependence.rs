//! Whether outputs depend on more than the variables that explain them: linear fits on one half of the rows,
//! judged on the other half.

use crate::linear::fit;

/// Velocities matter if they reduce the unexplained variance by this fraction, …
const TELLS: f64 = 0.1;
/// … unless the unexplained fraction was this small already.
const NOTHING: f64 = 1e-4;

/// The fraction of the variance of `y` that a linear fit in the columns explains on rows it was not fitted to. It
/// can be negative; 0 if `y` does not vary.
pub fn explained(columns: &[Vec<f64>], y: &[f64]) -> f64 {
    let (fitted, judged): (Vec<usize>, Vec<usize>) = (0..y.len()).partition(|row| row % 2 == 0);
    let found = fit(columns, y, &fitted);
    let mean = judged.iter().map(|&row| y[row]).sum::<f64>() / judged.len().max(1) as f64;
    let total: f64 = judged.iter().map(|&row| (y[row] - mean).powi(2)).sum();
    let left: f64 = judged.iter().map(|&row| (y[row] - found.value(columns, row)).powi(2)).sum();
    if total > 0.0 { 1.0 - left / total } else { 0.0 }
}

/// Whether the velocities among the node columns explain something about the outputs of φv that the summed
/// messages, the mass and the charge do not.
pub fn velocities_tell(names: &[String], columns: &[Vec<f32>], targets: &[Vec<f32>]) -> bool {
    let of = |name: &str| names.iter().position(|n| n == name).map(|k| &columns[k]);
    let wide = |column: &[f32]| column.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
    // A constant column duplicates the offset of the fit, which would have no unique solution.
    let varying = |name: &str| {
        let values = wide(of(name)?);
        values.iter().any(|value| *value != values[0]).then_some(values)
    };
    let inverse = |m: Vec<f64>| -> Vec<f64> {
        m.iter().map(|&m| if m == 0.0 { 1.0 } else { 1.0 / m }).collect()
    };
    let times = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).collect::<Vec<f64>>();
    let (mass, charge) = (varying("m").map(inverse), varying("q"));
    let both = mass.as_ref().zip(charge.as_ref()).map(|(m, q)| times(m, q));
    let factors: Vec<Vec<f64>> = [mass, charge, both].into_iter().flatten().collect();
    let with_factors = |first: char| -> Vec<Vec<f64>> {
        let chosen = names.iter().zip(columns).filter(|(name, _)| name.starts_with(first));
        let products = chosen.flat_map(|(_, column)| {
            let column = wide(column);
            let products: Vec<Vec<f64>> = factors.iter().map(|f| times(&column, f)).collect();
            [vec![column], products].concat()
        });
        products.collect()
    };
    let base = [factors.clone(), with_factors('e')].concat();
    let more = [base.clone(), with_factors('v')].concat();
    targets.iter().any(|target| {
        let target = wide(target);
        let (without, with) = (1.0 - explained(&base, &target), 1.0 - explained(&more, &target));
        without > NOTHING && with < (1.0 - TELLS) * without
    })
}

/// Functions of time, `[column][node]`, for graphs of `bodies` bodies at these moments of their runs (0 to 1):
/// drifts, and waves of up to eight periods per run.
pub fn waves(moments: &[f64], bodies: &[u32]) -> Vec<Vec<f64>> {
    let nodes = |of: &dyn Fn(f64) -> f64| -> Vec<f64> {
        moments
            .iter()
            .zip(bodies)
            .flat_map(|(&t, &n)| std::iter::repeat_n(of(t), n as usize))
            .collect()
    };
    let mut columns = vec![nodes(&|t| t), nodes(&|t| t * t)];
    for periods in 1..=8 {
        let phase = f64::from(periods) * std::f64::consts::TAU;
        columns.push(nodes(&|t| (phase * t).sin()));
        columns.push(nodes(&|t| (phase * t).cos()));
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn normal(count: usize, stream: u64) -> Vec<f32> {
        let mut random = Random::new(4, stream);
        (0..count).map(|_| random.normal() as f32).collect()
    }

    #[test]
    fn drag_is_told_and_a_correlated_velocity_is_not() {
        let names = ["vx", "m", "e0"].map(String::from);
        let (v, e) = (normal(2000, 1), normal(2000, 2));
        let m: Vec<f32> = normal(2000, 3).iter().map(|x| x.exp()).collect();
        let columns = [v.clone(), m.clone(), e.clone()];
        let pull: Vec<f32> = e.iter().zip(&m).map(|(e, m)| e / m).collect();
        let drag: Vec<f32> = pull.iter().zip(&v).map(|(a, v)| a - 0.4 * v).collect();
        assert!(velocities_tell(&names, &columns, &[drag]));
        assert!(!velocities_tell(&names, &columns, std::slice::from_ref(&pull)));
        // Masses that are all equal, or not among the variables.
        let drag: Vec<f32> = e.iter().zip(&v).map(|(e, v)| e - 0.4 * v).collect();
        let ones = vec![1.0; 2000];
        assert!(velocities_tell(&names, &[v.clone(), ones.clone(), e.clone()], &[drag]));
        assert!(!velocities_tell(&names, &[v.clone(), ones, e.clone()], std::slice::from_ref(&e)));
        // Velocities are not needed for what the messages explain, however strongly they are correlated.
        let same = [e.clone(), m, e];
        assert!(!velocities_tell(&names, &same, &[pull]));
    }

    #[test]
    fn noise_is_not_explained() {
        let wide = |v: Vec<f32>| v.into_iter().map(f64::from).collect::<Vec<f64>>();
        let columns: Vec<Vec<f64>> = (0..6).map(|k| wide(normal(4000, k))).collect();
        let y = wide(normal(4000, 9));
        assert!(explained(&columns, &y).abs() < 0.02);
        let line: Vec<f64> = columns[2].iter().zip(&y).map(|(x, n)| 3.0 * x + n).collect();
        assert!((explained(&columns, &line) - 0.9).abs() < 0.02);
        assert_eq!(explained(&columns, &vec![2.0; 4000]), 0.0);
    }
}
