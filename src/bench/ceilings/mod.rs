//! The limits of this machine, measured on the whole device: operations per second, bytes per second.

mod cpu;
pub(crate) mod gpu;

use crate::device::Device;
use crate::error::Result;

/// Rounds that are timed, and the least seconds of each: long compared with the start of the threads.
const ROUNDS: usize = 10;
const LEAST: f64 = 0.03;

/// A measured limit: the work and the times that it took.
#[derive(Clone, Debug)]
pub struct Ceiling {
    /// Description of the work.
    pub what: String,
    /// Operations or bytes per round.
    pub count: f64,
    /// Seconds of each round.
    pub times: Vec<f64>,
}

impl Ceiling {
    /// Work per second in the best round.
    pub fn rate(&self) -> f64 {
        self.count / self.times.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// Times `rounds` rounds of `timed(steps)`, which returns work and seconds, with enough steps to take
    /// `least` seconds.
    fn measure(
        what: String,
        least: f64,
        rounds: usize,
        timed: impl Fn(u64) -> Result<(f64, f64)>,
    ) -> Result<Self> {
        let mut steps = 1;
        while timed(steps)?.1 < least {
            steps *= 2;
        }
        let rounds: Vec<_> = (0..rounds).map(|_| timed(steps)).collect::<Result<_>>()?;
        let times = rounds.iter().map(|round| round.1).collect();
        Ok(Ceiling { what, count: rounds[0].0, times })
    }
}

/// Measured limits of a device.
#[derive(Clone, Debug)]
pub struct Ceilings {
    /// f32 operations, a fused multiply-add counting as two.
    pub f32_flops: Ceiling,
    /// bf16 operations, if there are instructions for bf16 products.
    pub bf16_flops: Option<Ceiling>,
    /// The same with the warpgroup products (wgmma) of a GPU of compute capability 9.0.
    pub wgmma_flops: Option<Ceiling>,
    /// f64 operations.
    pub f64_flops: Ceiling,
    /// Bytes read and written by a copy that stays in caches.
    pub cache_bandwidth: Ceiling,
    /// Bytes brought from cache to shared memory by bulk copies, on a GPU of compute capability 9.0.
    pub bulk_bandwidth: Option<Ceiling>,
    /// Bytes read and written by a copy in memory.
    pub memory_bandwidth: Ceiling,
    /// Working sets of fewer bytes stay in caches.
    pub cached: f64,
}

impl Ceilings {
    /// Measures the limits, for about two seconds.
    pub fn measure(device: &Device) -> Result<Self> {
        match device {
            Device::Cpu(cpu) => cpu::measure(cpu),
            Device::Gpu(gpu) => gpu::measure(*gpu),
        }
    }

    /// bf16 operations per second with the fastest instruction; without one, bf16 is widened to f32.
    pub fn bf16_rate(&self) -> f64 {
        let rates = [&self.bf16_flops, &self.wgmma_flops].into_iter().flatten().map(Ceiling::rate);
        rates.reduce(f64::max).unwrap_or(self.f32_flops.rate())
    }

    /// Bytes per second for a working set of this many bytes.
    pub fn bandwidth(&self, bytes: f64) -> f64 {
        if bytes < self.cached { self.cache_bandwidth.rate() } else { self.memory_bandwidth.rate() }
    }
}

fn copy_of(bytes: usize) -> String {
    format!("copy, {} MiB in all", bytes >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_is_judged_by_the_fastest_instruction_for_it() {
        let of = |count| Ceiling { what: String::new(), count, times: vec![2.0, 1.0] };
        let none = Ceilings {
            f32_flops: of(1.0),
            bf16_flops: None,
            wgmma_flops: None,
            f64_flops: of(9.0),
            cache_bandwidth: of(9.0),
            bulk_bandwidth: None,
            memory_bandwidth: of(9.0),
            cached: 0.0,
        };
        assert_eq!(none.bf16_rate(), 1.0);
        let mma = Ceilings { bf16_flops: Some(of(4.0)), ..none };
        assert_eq!(mma.bf16_rate(), 4.0);
        let both = |rate| Ceilings { wgmma_flops: Some(of(rate)), ..mma.clone() }.bf16_rate();
        assert_eq!([both(3.0), both(6.0)], [4.0, 6.0]);
    }

    #[test]
    fn ceilings_are_what_hardware_can_have() {
        let found = Ceilings::measure(&Device::cpu()).unwrap();
        let (f32_flops, f64_flops) = (found.f32_flops.rate(), found.f64_flops.rate());
        // One core at 1 GHz without vectors does a billion; nothing does 100 million million.
        assert!((1e9..1e14).contains(&f32_flops), "{found:?}");
        assert!((1e9..1e14).contains(&f64_flops), "{found:?}");
        assert!((1e8..1e13).contains(&found.memory_bandwidth.rate()), "{found:?}");
    }
}
