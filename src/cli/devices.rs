//! `lawsmith devices`: what this build can compute on.

use clap::Args;
use serde_json::{Value, json};

use super::Context;
use crate::device::Simd;
use crate::device::cuda::{self, Gpu, Properties};
use crate::device::driver;
use crate::error::{Error, Result};

/// Lists the devices.
#[derive(Args)]
pub struct Devices {}

impl Devices {
    /// Prints one line for each device.
    pub fn run(self, context: &Context) -> Result<()> {
        let (simd, threads) = (Simd::detect().name(), rayon::current_num_threads());
        let mut documents = vec![json!({"device": "cpu", "simd": simd, "threads": threads})];
        let mut lines = vec![format!("cpu      {threads} threads, {simd}")];
        let mut add = |document: Value, line: String| {
            documents.push(document);
            lines.push(line);
        };
        let refused =
            |name: &str, error: &Error| json!({"device": name, "error": error.to_string()});
        let count = cuda::count();
        if let Err(error) = &count {
            add(refused("cuda", error), format!("cuda     none: {error}"));
        }
        for ordinal in 0..count.unwrap_or(0) {
            let name = format!("cuda:{ordinal}");
            match Gpu::open(ordinal).and_then(|gpu| Ok((gpu.properties()?, gpu.free_memory()?))) {
                Ok((properties, free)) => {
                    let line = format!("{name:<9}{}", line(&properties, free));
                    add(document(&name, &properties, free), line);
                }
                Err(error) => add(refused(&name, &error), error.to_string()),
            }
        }
        context.print(&json!(documents), lines.join("\n"));
        Ok(())
    }
}

const GIB: f64 = (1u64 << 30) as f64;

fn line(properties: &Properties, free: usize) -> String {
    let Properties { name, capability: (major, minor), memory, multiprocessors, .. } = properties;
    let (free, memory) = (free as f64 / GIB, *memory as f64 / GIB);
    let offered = offered().unwrap_or_else(|| "unknown".into());
    let needed = driver::release(driver::needed());
    format!(
        "{name}, {free:.1} of {memory:.1} GiB free, compute capability {major}.{minor}, \
         {multiprocessors} multiprocessors, CUDA {offered} by the driver, {needed} or later needed"
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
        "driver": offered(),
        "driver_needed": driver::release(driver::needed()),
    })
}

/// The version of CUDA that the driver offers: `13.0`.
fn offered() -> Option<String> {
    driver::version().map(driver::release)
}
