//! Time as the generator counts it: nanoseconds since the run began, the same on every thread.

use std::ops::Add;
use std::time::{Duration, Instant};

/// The run's beginning.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

/// A moment, in nanoseconds since the run began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Nanos(pub(crate) u64);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(self) -> Nanos {
        Nanos(nanos(self.0.elapsed()))
    }
}

impl Nanos {
    /// How long from `earlier` until this; zero when it lies ahead.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    pub(crate) fn seconds(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// The moment in a connection's record: microseconds, which wrap after 71 minutes.
    pub(crate) fn stamp(self) -> Stamp {
        Stamp((self.0 / 1000) as u32)
    }
}

impl Add<Duration> for Nanos {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A moment in four bytes. Good for what lasts less than an hour, as handshakes do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp(u32);

impl Stamp {
    /// Microseconds from this until `now`.
    pub(crate) fn age_us(self, now: Nanos) -> u32 {
        now.stamp().0.wrapping_sub(self.0)
    }
}

/// Due moments at an even rate, by count rather than by adding up, so that no rounding accumulates.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    start: Nanos,
    per_second: f64,
    taken: u64,
}

impl Pace {
    /// The first is due at `start`.
    pub(crate) fn new(start: Nanos, per_second: f64) -> Self {
        Self { start, per_second, taken: 0 }
    }

    /// When the next one is due.
    pub(crate) fn due(&self) -> Nanos {
        Nanos(self.start.0.saturating_add((self.taken as f64 / self.per_second * 1e9) as u64))
    }

    /// Takes the next one if it is due at `now`, and says when it was.
    pub(crate) fn take(&mut self, now: Nanos) -> Option<Nanos> {
        let due = self.due();
        (due <= now).then(|| {
            self.taken += 1;
            due
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_gives_exactly_its_rate_however_seldom_it_is_asked() {
        for per_second in [0.3, 1.0, 7.0, 1000.0, 33_333.3] {
            let mut pace = Pace::new(Nanos(5_000_000_000), per_second);
            assert_eq!(pace.take(Nanos(4_999_999_999)), None);
            let mut count = 0;
            while pace.take(Nanos(15_000_000_000 - 1)).is_some() {
                count += 1;
            }
            assert!((f64::from(count) - 10.0 * per_second).abs() <= 1.0, "{count} at {per_second}");
        }
    }

    #[test]
    fn stamps_survive_their_wrap() {
        let before = Nanos(u64::from(u32::MAX) * 1000 - 3000);
        assert_eq!(before.stamp().age_us(before + Duration::from_millis(9)), 9000);
    }
}
