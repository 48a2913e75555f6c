//! `lawsmith devices`: what this build can compute on.

use clap::Args;
use serde_json::{Value, json};

use super::Context;
use crate::device::Simd;
use crate::device::cuda::{self, Gpu, Properties};
use crate::error::Result;

/// Lists the devices.
#[derive(Args)]
pub struct Devices {}

impl Devices {
    /// Prints one line for each device.
    pub fn run(self, context: &Context) -> Result<()> {
        let (simd, threads) = (Simd::detect().name(), rayon::current_num_threads());
        let mut documents = vec![json!({"device": "cpu", "simd": simd, "threads": threads})];
        let mut lines = vec![format!("cpu      {threads} threads, {simd}")];
        let count = cuda::count();
        for ordinal in 0..count {
            let name = format!("cuda:{ordinal}");
            match Gpu::open(ordinal).and_then(|gpu| Ok((gpu.properties()?, gpu.free_memory()?))) {
                Ok((properties, free)) => {
                    documents.push(document(&name, &properties, free));
                    lines.push(format!("{name:<9}{}", line(&properties, free)));
                }
                Err(error) => {
                    documents.push(json!({"device": name, "error": error.to_string()}));
                    lines.push(error.to_string());
                }
            }
        }
        if let (0, Err(error)) = (count, Gpu::open(0)) {
            lines.push(format!("cuda     none: {error}"));
        }
        context.print(&json!(documents), lines.join("\n"));
        Ok(())
    }
}

const GIB: f64 = (1u64 << 30) as f64;

fn line(properties: &Properties, free: usize) -> String {
    let Properties { name, capability: (major, minor), memory, multiprocessors, .. } = properties;
    let (free, memory) = (free as f64 / GIB, *memory as f64 / GIB);
    let driver = driver().unwrap_or_else(|| "unknown".into());
    format!(
        "{name}, {free:.1} of {memory:.1} GiB free, compute capability {major}.{minor}, \
         {multiprocessors} multiprocessors, driver {driver}"
    )
}

fn document(name: &str, properties: &Properties, free: usize) -> Value {
    let (major, minor) = properties.capability;
    json!({
        "device": name,
        "name": properties.name,
        "memory": properties.memory,
        "free": free,
        "compute_capability": format!("{major}.{minor}"),
        "multiprocessors": properties.multiprocessors,
        "driver": driver(),
    })
}

/// The version of the driver's interface: `13.0`.
fn driver() -> Option<String> {
    cuda::driver_version().map(|v| format!("{}.{}", v / 1000, v % 1000 / 10))
}
