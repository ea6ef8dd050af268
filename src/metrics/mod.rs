//! What is counted: each worker counts for itself, anybody may read. `docs/metrics.md` explains every name.

mod text;

pub(crate) use text::{Server, render};

use crate::error::{End, Refused, Violation};
use std::sync::atomic::{AtomicU64, Ordering};

/// A number with one writer: counting is a load, an addition and a store, without a bus lock.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, more: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
    }

    pub(crate) fn sub(&self, less: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(less), Ordering::Relaxed);
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts by reason, indexed by a reason enum's discriminant.
#[derive(Debug)]
pub(crate) struct ByReason<const N: usize>([Count; N]);

impl<const N: usize> Default for ByReason<N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Count::default()))
    }
}

impl<const N: usize> ByReason<N> {
    pub(crate) fn count(&self, reason: usize) {
        self.0[reason].add(1);
    }

    pub(crate) fn read(&self, reason: usize) -> u64 {
        self.0[reason].read()
    }
}

/// How often what was measured was at most 1, 2, 4, 8 ... units of the smallest bucket, `2^LOW`; the last bucket has all
/// that is more. Observing is finding the highest bit, and two additions.
#[derive(Debug)]
pub(crate) struct Histogram<const LOW: u32, const N: usize> {
    buckets: [Count; N],
    sum: Count,
}

impl<const LOW: u32, const N: usize> Default for Histogram<LOW, N> {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| Count::default()), sum: Count::default() }
    }
}

impl<const LOW: u32, const N: usize> Histogram<LOW, N> {
    #[inline]
    pub(crate) fn observe(&self, value: u64) {
        // The exponent of the least power of two that is not below the value.
        let exponent = u64::BITS - value.saturating_sub(1).leading_zeros();
        let bucket = exponent.saturating_sub(LOW).min(N as u32 - 1);
        self.buckets[bucket as usize].add(1);
        self.sum.add(value);
    }

    /// What the bucket's values are at most; of the last one that is not known.
    const fn bound(bucket: usize) -> u64 {
        1 << (LOW + bucket as u32)
    }

    /// The sum of all that was observed.
    pub(crate) fn sum(&self) -> u64 {
        self.sum.read()
    }
}

/// Close codes that have a series of their own: those of RFC 6455, section 7.4.1 and the IANA registry. Others are counted by
/// who gives them out: 3000 to 3999 (registered, Centrifugo's among them), 4000 to 4999 (applications), and the rest.
const CODES: std::ops::RangeInclusive<u16> = 1000..=1015;
const CODE_SERIES: usize = 16 + 3;

/// Closes by code and side.
#[derive(Debug, Default)]
pub(crate) struct Closes([ByReason<CODE_SERIES>; 2]);

impl Closes {
    pub(crate) fn count(&self, code: u16, by_client: bool) {
        let series = match code {
            code if CODES.contains(&code) => usize::from(code - CODES.start()),
            3000..=3999 => 16,
            4000..=4999 => 17,
            _ => 18,
        };
        self.0[usize::from(by_client)].count(series);
    }
}

/// Declares a worker's plain metrics together with how they are exposed.
macro_rules! metrics {
    ($($field:ident: $kind:literal $name:literal $help:literal;)*) => {
        /// One worker's metrics.
        #[derive(Debug, Default)]
        pub(crate) struct Metrics {
            $(pub(crate) $field: Count,)*
            pub(crate) opening: Count,
            pub(crate) closing: Count,
            pub(crate) websockets: Count,
            pub(crate) emulated: Count,
            pub(crate) event_streams: Count,
            pub(crate) long_polls: Count,
            pub(crate) refused: ByReason<{ Refused::ALL.len() }>,
            pub(crate) ended: ByReason<{ End::ALL.len() }>,
            pub(crate) violations: ByReason<{ Violation::ALL.len() }>,
            pub(crate) closes: Closes,
            /// What the worker did between two waits, in microseconds: 16 us to 1 s.
            pub(crate) turn_us: Histogram<4, 18>,
            /// From a publication's arrival at the worker until each of its subscribers was visited, in milliseconds: 1 ms
            /// to 16 s.
            pub(crate) sweep_ms: Histogram<0, 16>,
            /// From publication until it was handed to the kernel for one subscriber, in milliseconds: 1 ms to 65 s.
            pub(crate) delivery_ms: Histogram<0, 18>,
            /// What the memory is for: the table as far as it was touched, what topics keep, the ring of recent closes.
            pub(crate) table_bytes: Count,
            pub(crate) kept_bytes: Count,
            pub(crate) recent_bytes: Count,
            /// Envelopes that were taken out of the mailbox and not handed out yet.
            pub(crate) mail_left: Count,
        }

        /// Kind, name, help, and the sum over all workers.
        fn plain(all: &[&Metrics]) -> Vec<(&'static str, &'static str, &'static str, u64)> {
            vec![$(($kind, $name, $help, all.iter().map(|metrics| metrics.$field.read()).sum()),)*]
        }
    };
}

metrics! {
    accepted: "counter" "throng_accepted_total" "Connections accepted.";
    turned_away: "counter" "throng_turned_away_total" "Connections answered 503 or 429 at accept, being over a limit.";
    accept_errors: "counter" "throng_accept_errors_total" "Times that accepting failed for want of descriptors or memory.";
    accept_paused: "counter" "throng_accept_paused_total" "Times that accepting paused to keep to the accept rate.";
    requests: "counter" "throng_requests_total" "HTTP requests handed to the service, other than upgrades.";
    published: "counter" "throng_published_total" "Messages published to topics.";
    delivered: "counter" "throng_delivered_total" "Messages of topics handed to the kernel for a subscriber, or queued as the first that waits.";
    lagged: "counter" "throng_lagged_total" "Subscribers that read so slowly that their next message was no longer kept.";
    gaps: "counter" "throng_gaps_total" "Readers that came back to a position that is no longer kept, and were told so.";
    opened: "counter" "throng_opened_total" "WebSockets opened, and sessions without one.";
    compressed: "counter" "throng_opened_compressed_total" "WebSockets opened that agreed on compression.";
    context_bytes: "gauge" "throng_compression_context_bytes" "Memory of the streams that compressed connections keep, in bytes.";
    messages_in: "counter" "throng_messages_received_total" "Messages received from clients.";
    frames_out: "counter" "throng_messages_sent_total" "Messages queued for clients.";
    bytes_in: "counter" "throng_received_bytes_total" "Bytes read from sockets.";
    bytes_out: "counter" "throng_sent_bytes_total" "Bytes written to sockets.";
    pings: "counter" "throng_pings_sent_total" "Heartbeat pings sent.";
    pings_in: "counter" "throng_pings_received_total" "Pings received.";
    pongs: "counter" "throng_pongs_received_total" "Pongs received.";
    slow: "gauge" "throng_slow_connections" "Connections whose socket is full while something waits for them.";
    queued_bytes: "gauge" "throng_queued_bytes" "Bytes that wait for clients whose sockets are full; what several wait for counts for each.";
    throttled: "counter" "throng_throttled_total" "Times that a connection was not read for a while, having sent more than it may.";
    shed: "counter" "throng_shed_total" "Connections reset because memory was short.";
    stale_events: "counter" "throng_stale_events_total" "Readiness events for connections that were gone.";
    panics: "counter" "throng_panics_total" "Panics of the service, each of which cost one connection.";
    turns: "counter" "throng_loop_turns_total" "Turns of the event loops.";
    mail: "counter" "throng_mail_total" "Envelopes that workers took from their mailboxes.";
    timers: "gauge" "throng_timers" "Timers armed.";
    homes: "gauge" "throng_topics" "Topics: those with messages, subscribers, or a position that is remembered.";
    subscriptions: "gauge" "throng_subscriptions" "Subscriptions to topics.";
    kept: "gauge" "throng_log_messages" "Messages that topics keep.";
    copied: "gauge" "throng_log_copy_messages" "References to these on the workers whose connections listen.";
    sweeping: "gauge" "throng_sweeping_topics" "Topics whose subscribers are being sent to, counted on each worker.";
}

impl Metrics {
    /// Connections on which messages go out: WebSockets, sessions without one, event streams, polls that wait.
    pub(crate) fn open(&self) -> u64 {
        [&self.websockets, &self.emulated, &self.event_streams, &self.long_polls].map(Count::read).iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_falls_into_the_least_bucket_that_holds_it() {
        for (value, bucket) in
            [(0, 0), (1, 0), (16, 0), (17, 1), (32, 1), (33, 2), (1 << 20, 16), ((1 << 20) + 1, 17), (u64::MAX / 2, 17)]
        {
            let histogram = Histogram::<4, 18>::default();
            histogram.observe(value);
            let found: Vec<_> = (0..18).filter(|&at| histogram.buckets[at].read() == 1).collect();
            assert_eq!((found, histogram.sum()), (vec![bucket], value), "{value}");
            assert!(bucket == 17 || value <= Histogram::<4, 18>::bound(bucket));
            assert!(bucket == 0 || value > Histogram::<4, 18>::bound(bucket - 1));
        }
    }

    #[test]
    fn closes_are_counted_by_code_and_side() {
        let closes = Closes::default();
        for (code, by_client, series) in [
            (1000, false, 0),
            (1015, true, 15),
            (3501, false, 16),
            (4999, true, 17),
            (999, true, 18),
            (5000, false, 18),
        ] {
            let before = closes.0[usize::from(by_client)].read(series);
            closes.count(code, by_client);
            assert_eq!(closes.0[usize::from(by_client)].read(series), before + 1, "{code}");
        }
    }
}
