//! Counter-based random numbers: Philox 4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy
//! as 1, 2, 3").
//!
//! A number depends only on (seed, stream, counter), so results are the same for any number of
//! threads, after a resume, and on a GPU, which runs the same ten rounds.

pub(crate) const MULTIPLIER: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
pub(crate) const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Ten rounds of Philox on a 128-bit counter under a 64-bit key: four random words.
pub fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let a = u64::from(MULTIPLIER[0]) * u64::from(counter[0]);
        let b = u64::from(MULTIPLIER[1]) * u64::from(counter[2]);
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

/// A sequence of random numbers: the words of `philox` at counters 0, 1, 2, … for one (seed, stream).
///
/// ```
/// use lawsmith::random::Random;
/// let mut a = Random::new(7, 3);
/// let mut b = Random::new(7, 3);
/// assert_eq!(a.uniform(), b.uniform());
/// ```
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Random {
    key: [u32; 2],
    stream: u64,
    counter: u64,
    words: [u32; 4],
    used: usize,
}

impl Random {
    /// Sequence number `stream` of `seed`. Streams are independent.
    pub fn new(seed: u64, stream: u64) -> Self {
        Random {
            key: [seed as u32, (seed >> 32) as u32],
            stream,
            counter: 0,
            words: [0; 4],
            used: 4,
        }
    }

    /// A random 32-bit word.
    pub fn word(&mut self) -> u32 {
        if self.used == 4 {
            let (c, s) = (self.counter, self.stream);
            self.words = philox([c as u32, (c >> 32) as u32, s as u32, (s >> 32) as u32], self.key);
            self.counter += 1;
            self.used = 0;
        }
        self.used += 1;
        self.words[self.used - 1]
    }

    /// Uniform in [0, 1), with 53 random bits.
    pub fn uniform(&mut self) -> f64 {
        let bits = (u64::from(self.word()) << 32 | u64::from(self.word())) >> 11;
        bits as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in 0..n, with negligible bias (n far below 2^32).
    pub fn below(&mut self, n: usize) -> usize {
        ((u64::from(self.word()) * n as u64) >> 32) as usize
    }

    /// Standard normal (Box–Muller, cosine branch only: one number from two uniform ones of 53 bits).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of the Random123 distribution.
    #[test]
    fn philox_known_answers() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
    }

    #[test]
    fn moments_of_uniform_and_normal() {
        let mut random = Random::new(1, 2);
        let n = 200_000;
        let (mut mean, mut square, mut uniform) = (0.0, 0.0, 0.0);
        for _ in 0..n {
            let x = random.normal();
            mean += x / n as f64;
            square += x * x / n as f64;
            uniform += random.uniform() / n as f64;
        }
        // Five standard errors.
        assert!(mean.abs() < 5.0 / (n as f64).sqrt(), "{mean}");
        assert!((square - 1.0).abs() < 5.0 * (2.0 / n as f64).sqrt(), "{square}");
        assert!((uniform - 0.5).abs() < 5.0 / (12.0 * n as f64).sqrt(), "{uniform}");
    }
}
