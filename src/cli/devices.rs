//! `lawsmith devices`: what this build can compute on.

use clap::Args;
use serde_json::json;

use super::Context;
use crate::device::Simd;
use crate::error::Result;

/// Lists the devices.
#[derive(Args)]
pub struct Devices {}

impl Devices {
    /// Prints one line for each device.
    pub fn run(self, context: &Context) -> Result<()> {
        let (simd, threads) = (Simd::detect().name(), rayon::current_num_threads());
        let document = json!([{"device": "cpu", "simd": simd, "threads": threads}]);
        let text = format!(
            "cpu      {threads} threads, {simd}\ncuda     none: this build has no CUDA kernels"
        );
        context.print(&document, text);
        Ok(())
    }
}
