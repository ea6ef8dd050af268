//! How much of something there was lately: the generic cell rate algorithm (ITU-T I.371), a token bucket in one number.

use std::time::Duration;

/// So much a second, in bursts of up to `burst`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Units a second; at least 1.
    pub per_second: u64,
    /// Units that may come at once after a silence.
    pub burst: u64,
}

impl Rate {
    /// How long so many units take at this rate, in nanoseconds.
    fn ns(&self, units: u64) -> u64 {
        let ns = u128::from(units) * 1_000_000_000 / u128::from(self.per_second.max(1));
        u64::try_from(ns).unwrap_or(u64::MAX)
    }
}

/// Measures one source against a [`Rate`]. One that was quiet for long enough is as good as new.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meter {
    /// When what came so far would have come at the rate.
    due_ns: u64,
}

impl Meter {
    /// Counts what has come, whether it may or not.
    pub fn charge(&mut self, rate: &Rate, units: u64, now_ns: u64) {
        self.due_ns = self.due_ns.max(now_ns).saturating_add(rate.ns(units));
    }

    /// How long until the burst has room again; zero if it has.
    pub fn wait(&self, rate: &Rate, now_ns: u64) -> Duration {
        Duration::from_nanos(self.due_ns.saturating_sub(now_ns).saturating_sub(rate.ns(rate.burst)))
    }

    /// Whether nothing of it is left: the whole burst has room.
    pub fn is_clear(&self, now_ns: u64) -> bool {
        self.due_ns <= now_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::Rng;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let rate = Rate { per_second: 10, burst: 5 };
        let (mut meter, mut passed) = (Meter::default(), 0);
        for ms in 0..10_000 {
            let now = SECOND + ms * 1_000_000;
            while meter.wait(&rate, now).is_zero() {
                meter.charge(&rate, 1, now);
                passed += 1;
            }
        }
        assert!((104..=106).contains(&passed), "{passed} in 10 s");
        let now = SECOND + 10_000 * 1_000_000;
        assert!(meter.wait(&rate, now) <= Duration::from_millis(100), "{:?}", meter.wait(&rate, now));
        assert!(!meter.is_clear(now) && meter.is_clear(now + SECOND));
    }

    #[test]
    fn never_more_than_a_bucket_that_is_counted_out() {
        for seed in 0..200 {
            let mut rng = Rng::new(seed);
            let rate = Rate { per_second: 1 + rng.below(1000), burst: 1 + rng.below(1000) };
            let (mut meter, mut now, mut tokens) = (Meter::default(), 0, rate.burst as f64);
            for _ in 0..500 {
                let passed = rng.below(SECOND / 10);
                now += passed;
                tokens = (tokens + passed as f64 * rate.per_second as f64 / SECOND as f64).min(rate.burst as f64);
                let units = rng.below(20);
                meter.charge(&rate, units, now);
                tokens -= units as f64;
                if tokens.abs() > 0.01 {
                    assert_eq!(meter.wait(&rate, now).is_zero(), tokens > 0.0, "seed {seed}: {tokens} left");
                }
            }
        }
    }

    #[test]
    fn nothing_overflows() {
        let mut meter = Meter::default();
        meter.charge(&Rate { per_second: 0, burst: u64::MAX }, u64::MAX, u64::MAX);
        assert!(meter.wait(&Rate { per_second: 1, burst: 0 }, 0) > Duration::from_secs(1 << 33));
    }
}
