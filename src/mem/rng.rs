//! Cheap randomness for phases, jitter and masking keys: never for secrets.

#[cfg(any(test, fuzzing))]
use std::collections::VecDeque;

/// SplitMix64 (Steele, Lea, Flood 2014): one addition and a few multiplications a number; the same seed gives
/// the same numbers, which is what the simulation needs.
#[derive(Clone, Debug)]
pub struct Rng {
    state: u64,
    /// What a fuzzer wants drawn first.
    #[cfg(any(test, fuzzing))]
    script: VecDeque<u8>,
}

impl Rng {
    /// A generator that starts from `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            state: seed,
            #[cfg(any(test, fuzzing))]
            script: VecDeque::new(),
        }
    }

    /// One that draws from `script` as long as there is something of it, and goes on from `seed` behind it.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn scripted(script: &[u8], seed: u64) -> Self {
        Self { state: seed, script: script.iter().copied().collect() }
    }

    /// The next number, uniform.
    #[expect(clippy::should_implement_trait, reason = "an iterator that never ends would hide the seed's position")]
    pub fn next(&mut self) -> u64 {
        #[cfg(any(test, fuzzing))]
        if !self.script.is_empty() {
            return self.read(8);
        }
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 when `bound` is 0. The bias is below `bound` / 2^64.
    pub fn below(&mut self, bound: u64) -> u64 {
        #[cfg(any(test, fuzzing))]
        if !self.script.is_empty() {
            // As few bytes as will do: so a byte of the script stays one decision.
            let bytes = if bound <= 1 << 8 { 1 } else { 2 };
            return ((u128::from(self.read(bytes)) * u128::from(bound)) >> (8 * bytes)) as u64;
        }
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// So many bytes of the script as a number; zeros behind its end.
    #[cfg(any(test, fuzzing))]
    fn read(&mut self, bytes: usize) -> u64 {
        (0..bytes).fold(0, |number, _| number << 8 | u64::from(self.script.pop_front().unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_drawn_first_and_the_seed_behind_it() {
        let mut rng = Rng::scripted(&[0, 128, 255, 1, 2, 9, 0, 0, 0, 0, 0, 0, 1, 7], 5);
        let drawn = [rng.below(10), rng.below(10), rng.below(10), rng.below(1 << 16), rng.next(), rng.next()];
        assert_eq!(drawn, [0, 5, 9, 0x0102, 0x0900_0000_0000_0001, 7 << 56]);
        assert_eq!(rng.next(), Rng::new(5).next());
    }
}
