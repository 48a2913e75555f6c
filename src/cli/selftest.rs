//! `lawsmith selftest`: every operation of a device against its reference.

use clap::Args;
use serde_json::json;

use super::Context;
use crate::error::{Error, Result};
use crate::ops::{self, Check};

/// Compares the operations of a device with their references.
#[derive(Args)]
pub struct Selftest {
    /// The operations to check [default: all]
    #[arg(value_name = "OP")]
    ops: Vec<String>,
}

impl Selftest {
    /// Prints errors and limits.
    ///
    /// # Errors
    /// An unknown operation; an unusable device; an error above its limit.
    pub fn run(self, context: &Context) -> Result<()> {
        let checks = ops::selftest(&context.device, &self.ops)?;
        let documents: Vec<_> = checks
            .iter()
            .map(|check| {
                json!({
                    "operation": check.operation,
                    "case": check.case,
                    "error": check.error,
                    "limit": check.limit,
                    "passed": check.passed(),
                })
            })
            .collect();
        context.print(&json!(documents), table(&context.device.describe(), &checks));
        let failed = checks.iter().filter(|check| !check.passed()).count();
        if failed > 0 {
            let (device, all) = (context.device.describe(), checks.len());
            return Err(Error::device(format!("{failed} of {all} checks failed on {device}")));
        }
        Ok(())
    }
}

fn table(device: &str, checks: &[Check]) -> String {
    let width = checks.iter().map(|check| check.case.chars().count()).max().unwrap_or(0);
    let line = |check: &Check| {
        let Check { operation, case, error, limit } = check;
        let verdict = match (check.passed(), check.suspect()) {
            (true, _) => "ok".to_string(),
            (false, None) => "FAILED".to_string(),
            (false, Some(suspect)) => format!("FAILED ({suspect})"),
        };
        format!("{operation:<12}{case:<width$}  error {error:<9.1e} limit {limit:<9.1e} {verdict}")
    };
    let lines: Vec<String> = checks.iter().map(line).collect();
    format!("{device}\n{}", lines.join("\n"))
}
