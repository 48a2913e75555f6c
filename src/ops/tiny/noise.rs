//! The standard normal noise of sampled messages, counter-based.
//!
//! A number depends only on (seed of the run, step, edge, unit), so it is the same for any number of threads, after a
//! resume, and on a GPU. Units come in blocks of 64: Philox at counter (16 · block + lane, edge, step) gives four
//! words, hence two Box–Muller pairs, hence the units 64 · block + lane + {0, 16, 32, 48}: sixteen lanes of a vector
//! write sixteen neighbours.

use crate::random::{MULTIPLIER, WEYL, philox};

/// Separates the noise from every other use of the same seed.
pub(crate) const KEY: [u32; 2] = [0x6d65_7373, 0x6e6f_6973];

/// The noise of `unit` of `edge` (of the whole batch) at `step`, in f64.
pub fn normal(seed: u64, step: u64, edge: u32, unit: usize) -> f64 {
    let key = [seed as u32 ^ KEY[0], (seed >> 32) as u32 ^ KEY[1]];
    let counter = (16 * (unit / 64) + unit % 16) as u32;
    let words = philox([counter, edge, step as u32, (step >> 32) as u32], key);
    let quarter = unit / 16 % 4;
    // 23 and 24 bits: exact in f32 too, and never zero under the logarithm.
    let u = (f64::from(words[quarter / 2 * 2] >> 9) + 0.5) / f64::from(1 << 23);
    let turn = f64::from(words[quarter / 2 * 2 + 1] >> 8) / f64::from(1 << 24);
    let radius = (-2.0 * u.ln()).sqrt();
    let angle = std::f64::consts::TAU * turn;
    radius * if quarter.is_multiple_of(2) { angle.cos() } else { angle.sin() }
}

/// The noise of units 0.. of an edge; the length is a multiple of 64.
#[inline(always)]
pub(crate) fn fill(seed: u64, step: u64, edge: u32, to: &mut [f32]) {
    for (block, to) in to.chunks_exact_mut(64).enumerate() {
        let words = philox_lanes(seed, step, edge, 16 * block as u32);
        let (first, second) = to.split_at_mut(32);
        box_muller(&words[0], &words[1], first);
        box_muller(&words[2], &words[3], second);
    }
}

/// [`philox`] at sixteen counters, `first + lane`, side by side.
#[inline(always)]
fn philox_lanes(seed: u64, step: u64, edge: u32, first: u32) -> [[u32; 16]; 4] {
    let mut key = [seed as u32 ^ KEY[0], (seed >> 32) as u32 ^ KEY[1]];
    let mut a: [u32; 16] = std::array::from_fn(|lane| first + lane as u32);
    let [mut b, mut c, mut d] = [[edge; 16], [step as u32; 16], [(step >> 32) as u32; 16]];
    for _ in 0..10 {
        for lane in 0..16 {
            let p = u64::from(MULTIPLIER[0]) * u64::from(a[lane]);
            let q = u64::from(MULTIPLIER[1]) * u64::from(c[lane]);
            a[lane] = (q >> 32) as u32 ^ b[lane] ^ key[0];
            b[lane] = q as u32;
            c[lane] = (p >> 32) as u32 ^ d[lane] ^ key[1];
            d[lane] = p as u32;
        }
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    [a, b, c, d]
}

/// Sixteen pairs of normal numbers from as many pairs of words: the cosines, then the sines.
#[inline(always)]
fn box_muller(radii: &[u32; 16], turns: &[u32; 16], to: &mut [f32]) {
    let (cosines, sines) = to.split_at_mut(16);
    for lane in 0..16 {
        // Only signed conversions exist at every instruction level.
        let u = ((radii[lane] >> 9) as i32 as f32 + 0.5) * (1.0 / (1 << 23) as f32);
        let turn = (turns[lane] >> 8) as i32 as f32 * (1.0 / (1 << 24) as f32);
        let radius = (-2.0 * ln(u)).sqrt();
        let (sin, cos) = sin_cos_turns(turn);
        cosines[lane] = radius * cos;
        sines[lane] = radius * sin;
    }
}

/// Adding 1.5 · 2²³ rounds a small number to an integer, and leaves that integer in the low bits.
const ROUND: f32 = 12_582_912.0;

/// Natural logarithm of a positive normal number, to 2 ulp: u = 2^k · m with m in [√½, √2), and
/// ln m = 2 atanh((m − 1)/(m + 1)) as a series. Without branches, so that loops vectorise.
#[inline(always)]
fn ln(u: f32) -> f32 {
    let bits = u.to_bits();
    // The exponent; mantissas in the upper half count towards the next power of two.
    let k = (bits.wrapping_sub(0x3f35_04f3) as i32) >> 23;
    let m = f32::from_bits(bits.wrapping_sub((k << 23) as u32));
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let series =
        z * (0.666_666_7 + z * (0.4 + z * (0.285_714_3 + z * (0.222_222_2 + z * 0.181_8))));
    s * series + 2.0 * s + k as f32 * std::f32::consts::LN_2
}

/// Sine and cosine of an angle in turns, in [0, 1): reduced to an eighth of a turn around the
/// nearest quarter, then Taylor.
#[inline(always)]
fn sin_cos_turns(turn: f32) -> (f32, f32) {
    let rounded = 4.0 * turn + ROUND;
    let quarter = rounded.to_bits();
    let x = (turn - 0.25 * (rounded - ROUND)) * std::f32::consts::TAU;
    let z = x * x;
    let sin = x + x * z * (-1.0 / 6.0 + z * (1.0 / 120.0 + z * (-1.0 / 5040.0 + z / 362_880.0)));
    let cos = 1.0 + z * (-0.5 + z * (1.0 / 24.0 + z * (-1.0 / 720.0 + z / 40_320.0)));
    let (sin, cos) = if quarter & 1 == 1 { (cos, -sin) } else { (sin, cos) };
    if quarter & 2 == 2 { (-sin, -cos) } else { (sin, cos) }
}

/// e^x to 2 ulp over the range of f32 (infinite above it, zero below): x = k ln 2 + r, and Taylor for
/// e^r. Without branches, so that loops vectorise; NaN stays NaN.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let x = x.clamp(-104.0, 89.0);
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let k = rounded - ROUND;
    // ln 2 in two parts, the first exact under multiplication by k.
    let r = (x - k * 0.693_359_4) + k * 2.121_944_4e-4;
    let series = 1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0 + r * (1.0 / 5040.0)));
    let power = 1.0 + r + r * r * (0.5 + r * (1.0 / 6.0 + r * series));
    // 2^k in two factors, since k reaches from −150 to 128.
    let k = rounded.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let scale = |k: i32| f32::from_bits((k.wrapping_add(127) << 23) as u32);
    power * scale(k >> 1) * scale(k.wrapping_sub(k >> 1))
}
