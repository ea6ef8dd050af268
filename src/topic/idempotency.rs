//! Which publications were made already, by their `Idempotency-Key`.

use super::cursor::Cursor;
use crate::limits::{IDEMPOTENCY_KEYS_MAX, IDEMPOTENCY_MS};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// The keys of one topic, each with the cursor of the first publication. An empty one has no memory.
///
/// Invariant: `order` holds the keys of `cursors`, each once, by time.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    /// The first cursor, and when that was.
    cursors: HashMap<Arc<[u8]>, (Cursor, u64)>,
    order: VecDeque<(Arc<[u8]>, u64)>,
}

impl Keys {
    /// Whether none is remembered.
    pub(crate) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// What the publication with this key was answered, if that was less than five minutes ago.
    pub(crate) fn get(&self, key: &[u8], now_ms: u64) -> Option<Cursor> {
        let &(cursor, time_ms) = self.cursors.get(key)?;
        (!is_expired(time_ms, now_ms)).then_some(cursor)
    }

    /// Remembers a key. One that is remembered already keeps its first cursor and its time.
    pub(crate) fn insert(&mut self, key: &[u8], cursor: Cursor, now_ms: u64) {
        // A clock that was set back must not break the order by time.
        let now_ms = self.order.back().map_or(now_ms, |&(_, last_ms)| last_ms.max(now_ms));
        self.expire(now_ms);
        if self.cursors.contains_key(key) {
            return;
        }
        if self.order.len() == IDEMPOTENCY_KEYS_MAX {
            self.pop();
        }
        let key: Arc<[u8]> = key.into();
        self.cursors.insert(key.clone(), (cursor, now_ms));
        self.order.push_back((key, now_ms));
    }

    /// Forgets what has expired.
    pub(crate) fn expire(&mut self, now_ms: u64) {
        while self.order.front().is_some_and(|&(_, time_ms)| is_expired(time_ms, now_ms)) {
            self.pop();
        }
        if self.order.is_empty() && self.order.capacity() > 0 {
            *self = Self::default();
        }
    }

    fn pop(&mut self) {
        let (key, _) = self.order.pop_front().expect("only called when there is one");
        self.cursors.remove(&key);
    }
}

fn is_expired(time_ms: u64, now_ms: u64) -> bool {
    now_ms >= time_ms.saturating_add(IDEMPOTENCY_MS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::Epoch;

    fn at(offset: u64) -> Cursor {
        Cursor { epoch: Epoch::from_random(0), offset }
    }

    #[test]
    fn the_first_cursor_is_answered_for_five_minutes() {
        let mut keys = Keys::default();
        assert_eq!(keys.get(b"a", 0), None);
        keys.insert(b"a", at(1), 1000);
        keys.insert(b"a", at(2), 2000);
        assert_eq!(keys.get(b"a", 300_999), Some(at(1)));
        assert_eq!(keys.get(b"a", 301_000), None);
        assert_eq!(keys.get(b"A", 1000), None);
        keys.insert(b"a", at(3), 301_000);
        assert_eq!((keys.get(b"a", 301_000), keys.order.len()), (Some(at(3)), 1));
    }

    #[test]
    fn ten_thousand_keys_are_kept_and_the_oldest_leave_first() {
        let mut keys = Keys::default();
        let key = |number: u64| number.to_be_bytes();
        for number in 0..10_003 {
            keys.insert(&key(number), at(number), number);
        }
        assert_eq!((keys.order.len(), keys.cursors.len()), (10_000, 10_000));
        assert_eq!((keys.get(&key(2), 10_003), keys.get(&key(3), 10_003)), (None, Some(at(3))));
        assert_eq!(keys.get(&key(10_002), 10_003), Some(at(10_002)));
        keys.expire(300_000 + 5000);
        assert_eq!((keys.order.len(), keys.cursors.len()), (5002, 5002));
        keys.expire(u64::MAX);
        assert_eq!((keys.order.len(), keys.cursors.len(), keys.order.capacity()), (0, 0, 0));
    }

    #[test]
    fn a_clock_set_back_keeps_the_order() {
        let mut keys = Keys::default();
        keys.insert(b"a", at(1), 500_000);
        keys.insert(b"b", at(2), 0);
        assert_eq!((keys.get(b"a", 0), keys.get(b"b", 0)), (Some(at(1)), Some(at(2))));
        assert_eq!(keys.get(b"b", 799_999), Some(at(2)), "it counts as published when `a` was");
        keys.expire(800_000);
        assert_eq!(keys.order.len(), 0);
    }
}
