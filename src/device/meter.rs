//! What the driver's management library (NVML, loaded at run time) reports about a device: clocks, power, memory.
//! Without the library, or on devices it does not know, everything is `None`.

use std::sync::OnceLock;
use std::time::Instant;

use nvml_wrapper::Device;
use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::Clock;
use serde::Serialize;

use super::cuda::Gpu;

/// A device during some work; `None` is unknown.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Reading {
    /// Version of the driver.
    pub driver: Option<String>,
    /// Clock of the multiprocessors at the end of the work, in MHz.
    pub sm_mhz: Option<u32>,
    /// Clock of the memory at that time, in MHz.
    pub memory_mhz: Option<u32>,
    /// Mean power during the work, in W.
    pub power_watts: Option<f64>,
    /// Energy of one call, in J.
    pub joules: Option<f64>,
    /// Bytes of device memory in use, by any process.
    pub memory_used: Option<u64>,
}

/// Watches a device from [`Meter::start`] on.
pub struct Meter {
    device: Option<Device<'static>>,
    begun: Instant,
    /// Energy used since the driver was loaded, in mJ.
    energy: Option<u64>,
}

impl Meter {
    /// Starts measuring.
    pub fn start(gpu: Gpu) -> Self {
        let device = nvml().zip(gpu.uuid().ok());
        let device = device.and_then(|(nvml, uuid)| nvml.device_by_uuid(uuid).ok());
        let energy = device.as_ref().and_then(|device| device.total_energy_consumption().ok());
        Meter { device, begun: Instant::now(), energy }
    }

    /// The state after `calls` completed calls.
    pub fn read(&self, calls: usize) -> Reading {
        let Some(device) = &self.device else { return Reading::default() };
        let seconds = self.begun.elapsed().as_secs_f64();
        let energy = device.total_energy_consumption().ok().zip(self.energy);
        let joules = energy.map(|(now, before)| now.saturating_sub(before) as f64 / 1e3);
        // For devices that do not count energy, the power at the end.
        let power = || device.power_usage().ok().map(|milliwatts| f64::from(milliwatts) / 1e3);
        Reading {
            driver: nvml().and_then(|nvml| nvml.sys_driver_version().ok()),
            sm_mhz: device.clock_info(Clock::SM).ok(),
            memory_mhz: device.clock_info(Clock::Memory).ok(),
            power_watts: joules.map(|joules| joules / seconds).or_else(power),
            joules: joules.map(|joules| joules / calls as f64),
            memory_used: device.memory_info().ok().map(|memory| memory.used),
        }
    }
}

/// The library, if there is one. Its plain name is only installed by developer packages.
fn nvml() -> Option<&'static Nvml> {
    static NVML: OnceLock<Option<Nvml>> = OnceLock::new();
    NVML.get_or_init(|| Nvml::builder().lib_path("libnvidia-ml.so.1".as_ref()).init().ok()).as_ref()
}
