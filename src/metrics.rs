//! What is counted: each worker counts for itself, anybody may read.

use crate::error::{End, Refused, Violation};
use std::fmt::Write;
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

    #[cfg(test)]
    pub(crate) fn read(&self, reason: usize) -> u64 {
        self.0[reason].read()
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
            pub(crate) open: Count,
            pub(crate) closing: Count,
            pub(crate) refused: ByReason<{ Refused::ALL.len() }>,
            pub(crate) ended: ByReason<{ End::ALL.len() }>,
            pub(crate) violations: ByReason<{ Violation::ALL.len() }>,
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
    lagged: "counter" "throng_lagged_total" "Subscribers that read so slowly that their next message was no longer kept.";
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
    throttled: "counter" "throng_throttled_total" "Times that a connection was not read for a while, having sent more than it may.";
    shed: "counter" "throng_shed_total" "Connections reset because memory was short.";
    stale_events: "counter" "throng_stale_events_total" "Readiness events for connections that were gone.";
    panics: "counter" "throng_panics_total" "Panics of the service, each of which cost one connection.";
    turns: "counter" "throng_loop_turns_total" "Turns of the event loops.";
    timers: "gauge" "throng_timers" "Timers armed.";
}

/// All workers' metrics in Prometheus's text format (version 0.0.4).
pub(crate) fn render(all: &[&Metrics]) -> String {
    let mut text = String::with_capacity(8 * 1024);
    let sum = |field: fn(&Metrics) -> &Count| all.iter().map(|metrics| field(metrics).read()).sum::<u64>();
    family(
        &mut text,
        "gauge",
        "throng_build_info",
        "The version that runs.",
        [(concat!("{version=\"", env!("CARGO_PKG_VERSION"), "\"}").to_owned(), 1)],
    );
    family(&mut text, "gauge", "throng_workers", "Worker threads.", [(String::new(), all.len() as u64)]);
    family(
        &mut text,
        "gauge",
        "throng_connections",
        "Connections by state.",
        [
            ("{state=\"opening\"}".into(), sum(|metrics| &metrics.opening)),
            ("{state=\"open\"}".into(), sum(|metrics| &metrics.open)),
            ("{state=\"closing\"}".into(), sum(|metrics| &metrics.closing)),
        ],
    );
    for (kind, name, help, value) in plain(all) {
        family(&mut text, kind, name, help, [(String::new(), value)]);
    }
    let by_reason = |words: Vec<&'static str>, field: &dyn Fn(&Metrics, usize) -> u64| {
        let sum = |index| all.iter().map(|metrics| field(metrics, index)).sum();
        let label = |word: &str| format!("{{reason=\"{word}\"}}");
        words.iter().enumerate().map(|(index, word)| (label(word), sum(index))).collect::<Vec<_>>()
    };
    let refused = by_reason(Refused::ALL.iter().map(|reason| reason.word()).collect(), &|metrics, index| {
        metrics.refused.0[index].read()
    });
    family(&mut text, "counter", "throng_refused_total", "Requests refused, by reason.", refused);
    let ended = by_reason(End::ALL.iter().map(|reason| reason.word()).collect(), &|metrics, index| {
        metrics.ended.0[index].read()
    });
    family(
        &mut text,
        "counter",
        "throng_closed_total",
        "WebSockets that ended, and sessions without one, by reason.",
        ended,
    );
    let violations = by_reason(Violation::ALL.iter().map(|reason| reason.word()).collect(), &|metrics, index| {
        metrics.violations.0[index].read()
    });
    family(&mut text, "counter", "throng_violations_total", "Protocol violations of clients, by kind.", violations);
    text
}

fn family(text: &mut String, kind: &str, name: &str, help: &str, samples: impl IntoIterator<Item = (String, u64)>) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for (labels, value) in samples {
        let _ = writeln!(text, "{name}{labels} {value}");
    }
}
