//! Time as the server counts it. Nothing in here asks the system: time is always an argument.

use std::time::Duration;

/// Milliseconds since the server started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Millis(pub u64);

impl Millis {
    /// The tick that this moment falls into.
    pub fn tick(self) -> Tick {
        // Wraps after 8.7 years; all arithmetic on ticks wraps too.
        Tick((self.0 / Tick::MS) as u32)
    }

    /// How long from `earlier` until now; zero when it lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Millis {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// A length of time in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub u32);

impl Span {
    /// The shortest span that is never over before `duration` is, wherever in a tick it starts; at most 4 years,
    /// half of the scale.
    pub const fn covering(duration: Duration) -> Self {
        let ticks = duration.as_millis().div_ceil(Tick::MS as u128) + 1;
        let half = (u32::MAX / 2 - 1) as u128;
        Self(if ticks < half { ticks as u32 } else { half as u32 })
    }
}

impl std::ops::Add<Span> for Tick {
    type Output = Self;

    fn add(self, span: Span) -> Self {
        Self(self.0.wrapping_add(span.0))
    }
}

/// A point on the timer wheel's scale: 64 ms each. Deadlines of connections are seconds, and a wide tick
/// lets the timers of many connections share one wakeup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Tick(pub u32);

impl Tick {
    /// The length of a tick in milliseconds.
    pub const MS: u64 = 64;

    /// Ticks from `earlier` to this; negative when `earlier` lies ahead.
    pub fn minus(self, earlier: Self) -> i32 {
        self.0.wrapping_sub(earlier.0) as i32
    }

    /// Whether this moment has come at `now`.
    pub fn is_due(self, now: Self) -> bool {
        now.minus(self) >= 0
    }

    /// The first moment that falls into this tick, given that it is near `now`.
    pub fn starts_at(self, now: Millis) -> Millis {
        let ticks = i64::from(self.minus(now.tick()));
        let tick = (now.0 / Self::MS).saturating_add_signed(ticks);
        Millis(tick * Self::MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_survives_the_wrap() {
        let before = Tick(u32::MAX - 3);
        let after = before + Span::covering(Duration::from_secs(1));
        assert!(after.0 < before.0);
        assert!(before.is_due(after) && !after.is_due(before));
        assert_eq!(after.minus(before), 17);
    }

    #[test]
    fn a_tick_starts_where_it_says() {
        let now = Millis(1_000_000);
        let tick = now.tick() + Span::covering(Duration::from_secs(25));
        let start = tick.starts_at(now);
        assert_eq!(start.tick(), tick);
        assert!(start >= now + Duration::from_secs(25));
        assert!(start.since(now) < Duration::from_millis(25_000 + 2 * Tick::MS));
    }
}
