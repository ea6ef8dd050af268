//! How much may come in a time: a token bucket in one number, the generic cell rate algorithm (ITU-T I.371, annex A).

use std::time::Duration;

/// So many units a second in the long run, and so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// At least 1.
    pub per_second: u64,
    /// What a meter that has rested lets through at once.
    pub burst: u64,
}

impl Rate {
    /// How long so many units take. Rounded down, so that a burst taken one by one is no longer than the burst.
    fn span_ns(&self, units: u64) -> u64 {
        let span = u128::from(units) * 1_000_000_000 / u128::from(self.per_second.max(1));
        u64::try_from(span).unwrap_or(u64::MAX)
    }
}

/// How much of a rate has been taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meter {
    /// When all that was taken will have taken its time, and a whole burst may come again.
    due_ns: u64,
}

impl Meter {
    /// Takes `n` units at `now_ns`, which does not go back. More than a burst is let through where a burst would be.
    ///
    /// # Errors
    ///
    /// It is too soon: nothing is taken, and there is room after that time, to the nanosecond.
    pub fn take(&mut self, rate: &Rate, n: u64, now_ns: u64) -> Result<(), Duration> {
        let due_ns = self.due_ns.max(now_ns).saturating_add(rate.span_ns(n));
        let early_ns = due_ns.saturating_sub(now_ns).saturating_sub(rate.span_ns(rate.burst.max(n)));
        if early_ns > 0 {
            return Err(Duration::from_nanos(early_ns));
        }
        self.due_ns = due_ns;
        Ok(())
    }

    /// Counts what has come already, whether it was to or not.
    pub fn charge(&mut self, rate: &Rate, n: u64, now_ns: u64) {
        self.due_ns = self.due_ns.max(now_ns).saturating_add(rate.span_ns(n));
    }

    /// How long until no more has come than may; zero if that is so.
    pub fn wait(&self, rate: &Rate, now_ns: u64) -> Duration {
        let early_ns = self.due_ns.saturating_sub(now_ns).saturating_sub(rate.span_ns(rate.burst));
        Duration::from_nanos(early_ns)
    }

    /// Whether it has rested: a whole burst may come.
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
    fn a_burst_comes_at_once_and_the_rest_at_its_pace() {
        for (per_second, burst) in [(10, 10), (3, 3), (7, 1), (1000, 5), (1, 4)] {
            let (rate, mut meter, mut now) = (Rate { per_second, burst }, Meter::default(), 5 * SECOND);
            assert!((0..burst).all(|_| meter.take(&rate, 1, now).is_ok()), "{rate:?}");
            for _ in 0..20 {
                let wait = meter.take(&rate, 1, now).expect_err("it is empty").as_nanos() as u64;
                assert!(wait.abs_diff(SECOND / per_second) <= burst, "{wait} ns, {rate:?}");
                assert_eq!(meter.take(&rate, 1, now + wait - 1), Err(Duration::from_nanos(1)), "the wait is exact");
                now += wait;
                assert_eq!(meter.take(&rate, 1, now), Ok(()));
            }
        }
    }

    #[test]
    fn rest_is_not_saved_beyond_a_burst() {
        let (rate, mut meter) = (Rate { per_second: 100, burst: 8 }, Meter::default());
        for rest in [SECOND, 1000 * SECOND, u64::MAX / 2] {
            let taken = (0..100).filter(|_| meter.take(&rate, 1, rest).is_ok()).count();
            assert_eq!(taken, 8);
        }
    }

    #[test]
    fn more_than_a_burst_waits_for_a_whole_one_and_is_paid_for() {
        let (rate, mut meter) = (Rate { per_second: 10, burst: 5 }, Meter::default());
        assert_eq!(meter.take(&rate, 20, SECOND), Ok(()));
        assert_eq!(meter.take(&rate, 1, SECOND), Err(Duration::from_millis(1600)), "2 s to pay, less 4 of a burst");
        assert_eq!(meter.take(&rate, 20, SECOND), Err(Duration::from_secs(2)));
        assert_eq!(meter.take(&rate, 20, 3 * SECOND), Ok(()));
    }

    #[test]
    fn extremes_neither_overflow_nor_lock_up() {
        let (fast, slow) = (Rate { per_second: u64::MAX, burst: 1 }, Rate { per_second: 1, burst: 1 });
        let mut meter = Meter::default();
        assert!((0..100).all(|_| meter.take(&fast, 1, 0).is_ok()));
        assert_eq!(meter.take(&slow, u64::MAX, 0), Ok(()));
        assert!(meter.take(&slow, 1, SECOND).is_err());
    }

    /// In no window of time does more come than a burst and what the time is worth; and whoever asks all the time gets
    /// no less than that.
    #[test]
    fn it_is_neither_faster_nor_slower_than_its_rate() {
        for seed in 0..50 {
            let mut rng = Rng::new(seed);
            let rate = Rate { per_second: 1 + rng.below(500), burst: 1 + rng.below(50) };
            let (mut meter, mut now, mut taken) = (Meter::default(), SECOND, Vec::new());
            for _ in 0..2000 {
                match meter.take(&rate, 1, now) {
                    Ok(()) => taken.push(now),
                    Err(wait) => now += (wait.as_nanos() as u64).min(1 + rng.below(SECOND / 50)),
                }
            }
            for (first, &from) in taken.iter().enumerate().step_by(7) {
                for (count, &to) in taken[first..].iter().enumerate() {
                    let worth = u128::from(to - from + taken.len() as u64) * u128::from(rate.per_second);
                    let most = u128::from(rate.burst) + worth / u128::from(SECOND);
                    assert!(count as u128 <= most, "{count} in {} ns, seed {seed}: {rate:?}", to - from);
                }
            }
            let worth = u128::from(now - SECOND) * u128::from(rate.per_second) / u128::from(SECOND);
            assert!(taken.len() as u128 + 1 >= worth, "{} of {worth}, seed {seed}: {rate:?}", taken.len());
        }
    }

    #[test]
    fn what_is_charged_is_as_in_a_bucket_that_is_counted_out() {
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
}
