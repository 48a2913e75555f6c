//! The fused operations: one folder each, with the mathematics (`mod.rs`), the CPU (`cpu.rs`), the GPU (`gpu.rs` or
//! `gpu/`), what `lawsmith selftest` checks (`selftest.rs`) and the tests (`tests.rs`). The seam between devices is
//! here and nowhere else.

pub mod adam;
pub mod edge;
pub mod expression;
pub mod formula;
pub mod mlp;
pub mod neighbours;
pub mod rk4;
pub mod scatter;
pub mod tiny;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::model::{Precision, PrecisionChoice, Shape};

/// Networks of one shape being trained on a device. Errors are those of the device, including too little memory.
pub trait Training {
    /// The most steps between two looks at their losses. One on the CPU, where nothing is gained by waiting.
    fn most_steps(&self) -> u64;

    /// Copies the parameters out, `[runs, arena.len]`.
    fn parameters(&self, parameters: &mut [f32]) -> Result<()>;

    /// Copies the moments out.
    fn moments(&self, m: &mut [f32], v: &mut [f32]) -> Result<()>;

    /// Continues with networks of another shape: parameters and both moments.
    fn replace(&mut self, shape: Shape, arenas: [&[f32]; 3]) -> Result<()>;
}

/// An operation whose data are already where it runs, to be called repeatedly: what `bench` measures. On a GPU nothing
/// is copied back.
pub(crate) type Call<'a> = &'a mut dyn FnMut() -> Result<()>;

/// One comparison of a device with a reference.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// The operation: a folder of `ops`.
    pub operation: &'static str,
    /// What was computed, with its size.
    pub case: String,
    /// |found − expected| / |expected| in Frobenius norms, unless the operation says otherwise.
    pub error: f64,
    /// The error that is allowed.
    pub limit: f64,
}

impl Check {
    /// Whether the error is within the limit; NaN never is.
    pub fn passed(&self) -> bool {
        self.error <= self.limit
    }

    /// What to suspect if a check fails slightly where sums on tensor cores are expected to be nearly those of f32:
    /// tensor cores truncate the terms they align, while the stand-in driver, with which the limits were found, rounds.
    pub fn suspect(&self) -> Option<&'static str> {
        let slight = self.error > self.limit && self.error <= 2.0 * self.limit;
        let close = ["Bf16x3", "nearly f32"].iter().any(|what| self.case.contains(what));
        (slight && close)
            .then_some("tensor cores truncate in their sums: suspect this before a layout")
    }
}

/// Compares the named operations on `device` (all of them if none is named) with their references, for sizes that do
/// not fit blocks and vectors, with outputs poisoned before.
///
/// An operation that fails altogether counts as a failed check; the others are still compared.
///
/// # Errors
/// A name that is not an operation.
pub fn selftest(device: &Device, names: &[String]) -> Result<Vec<Check>> {
    type Checks = fn(&Device) -> Result<Vec<Check>>;
    let operations: [(&str, Checks); 9] = [
        ("adam", adam::selftest::checks),
        ("edge", edge::selftest::checks),
        ("expression", expression::selftest::checks),
        ("formula", formula::selftest::checks),
        ("mlp", mlp::selftest::checks),
        ("neighbours", neighbours::selftest::checks),
        ("rk4", rk4::selftest::checks),
        ("scatter", scatter::selftest::checks),
        ("tiny", tiny::selftest::checks),
    ];
    let known = operations.map(|(name, _)| name);
    if let Some(name) = names.iter().find(|name| !known.contains(&name.as_str())) {
        let message = format!("'{name}' is no operation; there are {}", known.join(", "));
        return Err(Error::usage(message).field("op"));
    }
    let named = |name: &str| names.is_empty() || names.iter().any(|n| n == name);
    let checks = operations.into_iter().filter(|(name, _)| named(name));
    let checks = checks.map(|(operation, checks)| {
        checks(device).unwrap_or_else(|error| {
            let case = error.to_string();
            vec![Check { operation, case, error: f64::NAN, limit: 0.0 }]
        })
    });
    Ok(checks.collect::<Vec<_>>().concat())
}

/// An error that names a buffer whose length is not the one the shape demands.
fn check_len(name: &str, found: usize, expected: usize) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    let message = format!("has {found} elements but the shape needs {expected}");
    Err(Error::input(message).field(name))
}

/// An error if the device cannot compute in `precision`.
pub fn check_precision(device: &Device, precision: Precision) -> Result<()> {
    match device {
        Device::Cpu(cpu) => mlp::kernel::check_precision(cpu, precision),
        Device::Gpu(_) => Ok(()),
    }
}

/// The precision that a training uses on this device, and for [`PrecisionChoice::Auto`] the reason, as a sentence.
pub fn precision(device: &Device, choice: PrecisionChoice) -> (Precision, Option<&'static str>) {
    let of = |precision, why| (precision, Some(why));
    match (choice, device) {
        (PrecisionChoice::F32, _) => (Precision::F32, None),
        (PrecisionChoice::Bf16, _) => (Precision::Bf16, None),
        (PrecisionChoice::Tf32, _) => (Precision::Tf32, None),
        (PrecisionChoice::Bf16x3, _) => (Precision::Bf16x3, None),
        // Messages fit forces as well as in f32, within the spread between seeds (`notes/tiny.md`).
        (PrecisionChoice::Auto, Device::Cpu(cpu)) if cpu.has_fast_bf16() => {
            of(Precision::Bf16, "precision: bf16, which this CPU multiplies faster than f32")
        }
        (PrecisionChoice::Auto, Device::Cpu(_)) => {
            of(Precision::F32, "precision: f32, since bf16 is not faster on this CPU")
        }
        (PrecisionChoice::Auto, Device::Gpu(_)) => {
            of(Precision::F32, "precision: f32, since bf16 has not been measured on a GPU yet")
        }
    }
}

/// True if bf16 takes the layers of this network.
pub fn fits_bf16(shape: &Shape) -> bool {
    shape.hidden.max(shape.edge_outputs()).max(shape.n_features) <= tiny::WIDEST_BF16
}

/// The precisions of the device.
pub(crate) fn precisions(device: &Device) -> Vec<Precision> {
    match device {
        Device::Cpu(cpu) if cpu.simd().has_bf16() => vec![Precision::F32, Precision::Bf16],
        Device::Cpu(_) => vec![Precision::F32],
        Device::Gpu(_) => {
            vec![Precision::F32, Precision::Bf16, Precision::Tf32, Precision::Bf16x3]
        }
    }
}

/// |found − expected| / |expected| in the Frobenius norm; the plain distance if `expected` is all zeros, NaN if the
/// lengths differ.
pub(crate) fn relative_error<T: Copy + Into<f64>>(found: &[T], expected: &[f64]) -> f64 {
    if found.len() != expected.len() {
        return f64::NAN;
    }
    let pairs = found.iter().zip(expected);
    let distance: f64 = pairs.map(|(&f, &e)| (f.into() - e).powi(2)).sum();
    let size: f64 = expected.iter().map(|e| e * e).sum();
    if size == 0.0 { distance.sqrt() } else { (distance / size).sqrt() }
}

/// Asserts that the checks of an operation pass on the GPU, if there is one.
#[cfg(test)]
pub(crate) fn assert_gpu_passes(checks: fn(&Device) -> Result<Vec<Check>>) {
    let Some(gpu) = crate::device::test_gpu() else { return };
    let checks = checks(&gpu).unwrap();
    assert!(!checks.is_empty());
    let failed: Vec<&Check> = checks.iter().filter(|check| !check.passed()).collect();
    let suspects: Vec<&str> = failed.iter().filter_map(|check| check.suspect()).collect();
    assert!(failed.is_empty(), "{failed:#?} {suspects:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slight_failures_of_nearly_exact_sums_have_a_suspect() {
        let suspect = |case: &str, error: f64| {
            let check = Check { operation: "mlp", case: case.into(), error, limit: 1e-6 };
            check.suspect().is_some()
        };
        assert!(suspect("3 rows, Bf16x3", 1.9e-6));
        // A layout, a check that passed, and sums that round more.
        assert!(!suspect("3 rows, Bf16x3", 2.1e-6) && !suspect("3 rows, Bf16x3", f64::NAN));
        assert!(!suspect("3 rows, Bf16x3", 1e-6) && !suspect("3 rows, Bf16", 1.9e-6));
    }
}
