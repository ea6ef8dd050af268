//! When connections came, without a word of memory for each: serials are given in the order of accepting, so a few marks of
//! (serial, time) tell the age of any connection.
//!
//! Marks are a second apart. When there are too many the older ones are thinned out, so that what is said of a connection's
//! age is wrong by a second or by a 256th of it, whichever is more.

use crate::limits::AGE_MARKS_MAX;
use crate::time::Millis;

/// How far apart marks are at the least, in milliseconds.
const APART_MS: u64 = 1000;

/// The part of an age by which what is said of it may be wrong, once marks were thinned out.
const PRECISION: u64 = 256;

/// The marks of a worker.
#[derive(Debug, Default)]
pub(super) struct Ages {
    /// A serial, and when its connection came; ascending in both.
    marks: Vec<(u64, Millis)>,
}

impl Ages {
    /// A connection has come.
    pub(super) fn came(&mut self, serial: u64, now: Millis) {
        if self.marks.last().is_some_and(|(_, last)| now.0 < last.0 + APART_MS) {
            return;
        }
        if self.marks.len() >= AGE_MARKS_MAX {
            self.thin_out(now);
        }
        self.marks.push((serial, now));
    }

    /// When it came, or a little before; now, for one that is not known.
    pub(super) fn since(&self, serial: u64, now: Millis) -> Millis {
        let behind = self.marks.partition_point(|(first, _)| *first <= serial);
        behind.checked_sub(1).map_or(now, |at| self.marks[at].1)
    }

    fn thin_out(&mut self, now: Millis) {
        let mut kept: Vec<(u64, Millis)> = Vec::with_capacity(AGE_MARKS_MAX);
        for (at, mark) in self.marks.iter().enumerate() {
            // Without this one, would its neighbours be too far apart?
            let apart = |next: &(u64, Millis), last: &(u64, Millis)| {
                next.1.0 - last.1.0 > now.0.saturating_sub(next.1.0) / PRECISION
            };
            let (next, last) = (self.marks.get(at + 1), kept.last());
            if next.zip(last).is_none_or(|(next, last)| apart(next, last)) {
                kept.push(*mark);
            }
        }
        self.marks = kept;
        // Whatever the clock did: there is room again.
        if self.marks.len() >= AGE_MARKS_MAX {
            self.marks.drain(..AGE_MARKS_MAX / 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::Rng;

    #[test]
    fn an_age_is_right_to_a_second_or_a_256th_however_long_it_is() {
        let (mut ages, mut rng) = (Ages::default(), Rng::new(7));
        let (mut came, mut now) = (Vec::new(), 0);
        for serial in 1..400_000 {
            // Some in the same second, some after minutes: two months in all.
            now += if rng.below(10) == 0 { rng.below(300_000) } else { rng.below(500) };
            ages.came(serial, Millis(now));
            came.push((serial, now));
            assert!(ages.marks.len() <= AGE_MARKS_MAX);
        }
        assert!(now > 60 * 24 * 3600 * 1000 && ages.marks.len() > AGE_MARKS_MAX / 8);
        for &(serial, at) in came.iter().step_by(37) {
            let said = ages.since(serial, Millis(now)).0;
            let (age, error) = (now - at, at.checked_sub(said).expect("never younger than it is"));
            assert!(error <= APART_MS + age / PRECISION, "{serial}: {age} ms, {error} too old");
        }
    }

    #[test]
    fn who_is_not_known_has_just_come() {
        let mut ages = Ages::default();
        assert_eq!(ages.since(1, Millis(5)), Millis(5));
        ages.came(10, Millis(1000));
        ages.came(11, Millis(1999));
        ages.came(12, Millis(2000));
        assert_eq!(
            [9, 10, 11, 12, 13].map(|serial| ages.since(serial, Millis(9000)).0),
            [9000, 1000, 1000, 2000, 2000]
        );
    }
}
