//! What a worker counts: live in [`Gauge`], which the main thread reads at any time, and in full in [`Tally`],
//! which it gets when the worker ends.
//!
//! Two sums hold whenever nothing is under way, and [`Account`] checks them:
//! attempted = opened + failed, and opened = open + lost + closed.

use crate::reason::{Failure, Loss};
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// A number that one thread adds to and others read: an ordinary addition, without a locked instruction.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub(crate) fn add(&self, count: u64) {
        self.0.store(self.0.load(Relaxed) + count, Relaxed);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A worker's live counts, on cache lines of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Gauge {
    /// The kernel's number of the thread, for reading its processor time; 0 until it runs.
    pub(crate) thread_id: AtomicU32,
    /// Connections tried.
    pub(crate) attempted: Counter,
    /// Handshakes that were completed.
    pub(crate) opened: Counter,
    /// Attempts that came to nothing.
    pub(crate) failed: Counter,
    /// Open connections that ended without our asking.
    pub(crate) lost: Counter,
    /// Open connections that we ended.
    pub(crate) closed: Counter,
    /// Messages sent and received; control frames are not messages.
    pub(crate) sent: Counter,
    pub(crate) received: Counter,
    /// Pings received, every one answered.
    pub(crate) pings: Counter,
}

/// The sum of gauges at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) attempted: u64,
    pub(crate) opened: u64,
    pub(crate) failed: u64,
    pub(crate) lost: u64,
    pub(crate) closed: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) pings: u64,
}

impl Account {
    /// Connections open.
    pub(crate) fn open(&self) -> u64 {
        self.opened.saturating_sub(self.lost + self.closed)
    }
}

impl AddAssign<&Gauge> for Account {
    fn add_assign(&mut self, gauge: &Gauge) {
        // Results before what they result from, so that a sum never shows more opened than attempted.
        self.lost += gauge.lost.value();
        self.closed += gauge.closed.value();
        self.opened += gauge.opened.value();
        self.failed += gauge.failed.value();
        self.attempted += gauge.attempted.value();
        self.received += gauge.received.value();
        self.sent += gauge.sent.value();
        self.pings += gauge.pings.value();
    }
}

/// How a connection that we closed came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Farewell {
    /// The server answered our Close.
    Answered,
    /// The server ended the stream without an answer.
    Unanswered,
    /// The server reset it.
    Reset,
    /// Nothing came within the time.
    TimedOut,
    /// We reset it, as we were told to.
    ByReset,
    /// We ended the stream: where there is no closing handshake, nothing is to be waited for.
    Ended,
    /// We ended it in order to come back.
    Returning,
}

impl Farewell {
    /// The stable word for reports.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Unanswered => "unanswered",
            Self::Reset => "reset",
            Self::TimedOut => "timed_out",
            Self::ByReset => "by_reset",
            Self::Ended => "ended",
            Self::Returning => "returning",
        }
    }
}

/// What is kept of a reason, in letters: as much as a close frame holds.
const SAID_LETTERS_MAX: usize = 123;

/// What a worker found out about the connections of one transport, class by class.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    pub(crate) failures: BTreeMap<Failure, u64>,
    pub(crate) losses: BTreeMap<Loss, u64>,
    /// What the server said first, by the word of a failure or a loss.
    pub(crate) said: BTreeMap<String, String>,
    pub(crate) farewells: BTreeMap<Farewell, u64>,
    /// From connect(2) to the whole answer, in microseconds. Two digits: a worker of tens of thousands of
    /// connections pays 20 KB for it.
    pub(crate) handshake_us: Histogram<u32>,
    /// Of the connections that were open to the end: how many had seen so many pings (the last entry: or more).
    pub(crate) pings_seen: BTreeMap<u8, u64>,
}

impl Default for Tally {
    fn default() -> Self {
        let handshake_us = Histogram::new_with_max(120_000_000, 2).expect("the bounds are constants");
        Self {
            failures: BTreeMap::new(),
            losses: BTreeMap::new(),
            said: BTreeMap::new(),
            farewells: BTreeMap::new(),
            handshake_us,
            pings_seen: BTreeMap::new(),
        }
    }
}

impl Tally {
    /// Keeps the reason that came with a code, unless there is one already.
    pub(crate) fn note_said(&mut self, word: &str, text: &str) {
        if !text.is_empty() && !self.said.contains_key(word) {
            let plain = |letter: &char| !letter.is_control();
            let text = text.chars().filter(plain).take(SAID_LETTERS_MAX).collect();
            self.said.insert(word.to_owned(), text);
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        sum(&mut self.failures, &other.failures);
        sum(&mut self.losses, &other.losses);
        for (word, text) in &other.said {
            self.note_said(word, text);
        }
        sum(&mut self.farewells, &other.farewells);
        sum(&mut self.pings_seen, &other.pings_seen);
        self.handshake_us += &other.handshake_us;
    }
}

fn sum<K: Copy + Ord>(total: &mut BTreeMap<K, u64>, part: &BTreeMap<K, u64>) {
    for (&key, &count) in part {
        *total.entry(key).or_default() += count;
    }
}
