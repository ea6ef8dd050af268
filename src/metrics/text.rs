//! The metrics in Prometheus's text format (version 0.0.4).
//!
//! All workers are added up, so that there are as many series with 53 workers as with one; per worker there are a few more
//! for those who ask (`Server::each`).

use super::{CODE_SERIES, CODES, Count, Histogram, Metrics, plain};
use crate::error::{End, Refused, Violation};
use std::fmt::{Display, Write};

/// What is known beside the workers' own numbers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Server<'a> {
    /// Envelopes in each worker's mailbox.
    pub(crate) mailboxes: &'a [u64],
    /// The most connections at a time.
    pub(crate) connections_max: u64,
    /// Bytes that the process has allocated, and those that it may, if that is limited.
    pub(crate) memory: Option<(u64, u64)>,
    /// Whether workers are told apart, too.
    pub(crate) each: bool,
}

/// All workers' metrics.
pub(crate) fn render(all: &[&Metrics], server: Server<'_>) -> String {
    let mut text = String::with_capacity(24 * 1024);
    let build = concat!("{version=\"", env!("CARGO_PKG_VERSION"), "\"}");
    family(&mut text, "gauge", "throng_build_info", "The version that runs.", [(build, 1)]);
    family(&mut text, "gauge", "throng_workers", "Worker threads.", [("", all.len() as u64)]);
    connections(&mut text, all, server.connections_max);
    for (kind, name, help, value) in plain(all) {
        family(&mut text, kind, name, help, [("", value)]);
    }
    reasons(&mut text, all);
    histogram(
        &mut text,
        ("throng_loop_turn_seconds", "What a worker did between two waits for events."),
        all.iter().map(|metrics| &metrics.turn_us),
        6,
    );
    histogram(
        &mut text,
        (
            "throng_sweep_seconds",
            "From a publication's arrival at a worker until it had visited all subscribers of the topic.",
        ),
        all.iter().map(|metrics| &metrics.sweep_ms),
        3,
    );
    histogram(
        &mut text,
        (
            "throng_delivery_lag_seconds",
            "From publication until a subscriber's socket took it; of what leaves together, the oldest.",
        ),
        all.iter().map(|metrics| &metrics.delivery_ms),
        3,
    );
    let waiting = |at: usize| server.mailboxes.get(at).copied().unwrap_or(0);
    let envelopes = |(at, metrics): (usize, &&Metrics)| metrics.mail_left.read() + waiting(at);
    let depth: u64 = all.iter().enumerate().map(envelopes).sum();
    family(&mut text, "gauge", "throng_mailbox_envelopes", "Envelopes in the workers' mailboxes.", [("", depth)]);
    memory(&mut text, all, server.memory);
    if server.each {
        workers(&mut text, all, envelopes);
    }
    text
}

fn connections(text: &mut String, all: &[&Metrics], most: u64) {
    let sum = |field: fn(&Metrics) -> &Count| all.iter().map(|metrics| field(metrics).read()).sum::<u64>();
    let open: u64 = all.iter().map(|metrics| metrics.open()).sum();
    let states = [
        ("{state=\"opening\"}", sum(|metrics| &metrics.opening)),
        ("{state=\"open\"}", open),
        ("{state=\"closing\"}", sum(|metrics| &metrics.closing)),
    ];
    family(text, "gauge", "throng_connections", "Connections by state.", states);
    let transports = [
        ("{transport=\"websocket\"}", sum(|metrics| &metrics.websockets)),
        ("{transport=\"emulated\"}", sum(|metrics| &metrics.emulated)),
        ("{transport=\"event_stream\"}", sum(|metrics| &metrics.event_streams)),
        ("{transport=\"long_poll\"}", sum(|metrics| &metrics.long_polls)),
    ];
    family(text, "gauge", "throng_open_connections", "Open connections by transport.", transports);
    family(text, "gauge", "throng_connections_max", "Most connections at a time.", [("", most)]);
}

/// What is counted by reason.
fn reasons(text: &mut String, all: &[&Metrics]) {
    let mut by_reason = |name, help, words: Vec<&'static str>, field: &dyn Fn(&Metrics, usize) -> u64| {
        let sum = |index| all.iter().map(|metrics| field(metrics, index)).sum::<u64>();
        let label = |word: &str| format!("{{reason=\"{word}\"}}");
        family(text, "counter", name, help, words.iter().enumerate().map(|(at, word)| (label(word), sum(at))));
    };
    by_reason(
        "throng_refused_total",
        "Requests refused, by reason.",
        Refused::ALL.iter().map(|reason| reason.word()).collect(),
        &|metrics, index| metrics.refused.read(index),
    );
    by_reason(
        "throng_closed_total",
        "WebSockets that ended, and sessions without one, by reason.",
        End::ALL.iter().map(|reason| reason.word()).collect(),
        &|metrics, index| metrics.ended.read(index),
    );
    by_reason(
        "throng_violations_total",
        "Protocol violations of clients, by kind.",
        Violation::ALL.iter().map(|reason| reason.word()).collect(),
        &|metrics, index| metrics.violations.read(index),
    );
    let codes: Vec<String> =
        CODES.map(|code| code.to_string()).chain(["3xxx", "4xxx", "other"].map(str::to_owned)).collect();
    let series = ["server", "client"].into_iter().enumerate().flat_map(|(side, name)| {
        let label = |code: &str| format!("{{code=\"{code}\",side=\"{name}\"}}");
        let sum = move |at| all.iter().map(|metrics| metrics.closes.0[side].read(at)).sum::<u64>();
        (0..CODE_SERIES).map(|at| (label(&codes[at]), sum(at))).collect::<Vec<_>>()
    });
    family(
        text,
        "counter",
        "throng_close_codes_total",
        "The same by close code, and by whose it was.",
        series.collect::<Vec<_>>(),
    );
}

/// What memory is used for.
fn memory(text: &mut String, all: &[&Metrics], process: Option<(u64, u64)>) {
    let sum = |field: fn(&Metrics) -> &Count| all.iter().map(|metrics| field(metrics).read()).sum::<u64>();
    let purposes = [
        ("{purpose=\"connections\"}", sum(|metrics| &metrics.table_bytes)),
        ("{purpose=\"topics\"}", sum(|metrics| &metrics.kept_bytes)),
        ("{purpose=\"queues\"}", sum(|metrics| &metrics.queued_bytes)),
        ("{purpose=\"compression\"}", sum(|metrics| &metrics.context_bytes)),
        ("{purpose=\"recent_closes\"}", sum(|metrics| &metrics.recent_bytes)),
    ];
    family(text, "gauge", "throng_memory_bytes", "Memory by purpose, in bytes.", purposes);
    if let Some((used, most)) = process {
        family(
            text,
            "gauge",
            "throng_allocated_bytes",
            "Memory that the process has allocated, in bytes.",
            [("", used)],
        );
        family(text, "gauge", "throng_memory_max_bytes", "Memory that it may allocate, in bytes.", [("", most)]);
    }
}

/// A few numbers of each worker.
fn workers(text: &mut String, all: &[&Metrics], envelopes: impl Fn((usize, &&Metrics)) -> u64) {
    let mut each = |kind, name, help, value: &dyn Fn(usize, &Metrics) -> u64| {
        let series = |(at, metrics): (usize, &&Metrics)| (format!("{{worker=\"{at}\"}}"), value(at, metrics));
        family(text, kind, name, help, all.iter().enumerate().map(series));
    };
    each("gauge", "throng_worker_connections", "Connections of each worker.", &|_, metrics| {
        metrics.opening.read() + metrics.open() + metrics.closing.read()
    });
    each("counter", "throng_worker_received_bytes_total", "Bytes that each worker read.", &|_, metrics| {
        metrics.bytes_in.read()
    });
    each("counter", "throng_worker_sent_bytes_total", "Bytes that each worker wrote.", &|_, metrics| {
        metrics.bytes_out.read()
    });
    each(
        "counter",
        "throng_worker_messages_sent_total",
        "Messages that each worker queued for clients.",
        &|_, metrics| metrics.frames_out.read(),
    );
    each("counter", "throng_worker_turns_total", "Turns of each worker's loop.", &|_, metrics| metrics.turns.read());
    each("gauge", "throng_worker_slow_connections", "Slow connections of each worker.", &|_, metrics| {
        metrics.slow.read()
    });
    each("gauge", "throng_worker_mailbox_envelopes", "Envelopes in each worker's mailbox.", &|at, metrics| {
        envelopes((at, &metrics))
    });
    let busy = |(at, metrics): (usize, &&Metrics)| (format!("{{worker=\"{at}\"}}"), seconds(metrics.turn_us.sum(), 6));
    let help = "Time in which each worker did something: at one second a second it has no more to give.";
    family(text, "counter", "throng_worker_busy_seconds_total", help, all.iter().enumerate().map(busy));
}

fn family<L: AsRef<str>, V: Display>(
    text: &mut String,
    kind: &str,
    name: &str,
    help: &str,
    samples: impl IntoIterator<Item = (L, V)>,
) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for (labels, value) in samples {
        let _ = writeln!(text, "{name}{} {value}", labels.as_ref());
    }
}

/// Histograms, added up. What was observed counts `10^-digits` seconds.
fn histogram<'a, const LOW: u32, const N: usize>(
    text: &mut String,
    (name, help): (&str, &str),
    all: impl Iterator<Item = &'a Histogram<LOW, N>> + Clone,
    digits: usize,
) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} histogram");
    let mut count = 0;
    for bucket in 0..N {
        count += all.clone().map(|one| one.buckets[bucket].read()).sum::<u64>();
        if bucket < N - 1 {
            let bound = seconds(Histogram::<LOW, N>::bound(bucket), digits);
            let _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {count}");
        }
    }
    let sum = seconds(all.map(Histogram::sum).sum(), digits);
    let _ = writeln!(text, "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {sum}\n{name}_count {count}");
}

/// A number of `10^-digits` seconds, in seconds.
fn seconds(value: u64, digits: usize) -> String {
    let whole = 10_u64.pow(digits as u32);
    let text = format!("{}.{:0digits$}", value / whole, value % whole);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn names(text: &str) -> BTreeSet<&str> {
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect()
    }

    fn everything() -> String {
        let (one, other) = (Metrics::default(), Metrics::default());
        one.turn_us.observe(100);
        other.turn_us.observe(2_000_000);
        render(&[&one, &other], Server { memory: Some((1, 2)), each: true, ..Server::default() })
    }

    #[test]
    fn every_metric_is_explained_and_nothing_else_is() {
        let (text, manual) = (everything(), include_str!("../../docs/metrics.md"));
        let explained: BTreeSet<_> = (manual.lines())
            .filter_map(|line| line.strip_prefix("| `")?.split(['`', '{']).next())
            .filter(|name| name.starts_with("throng_"))
            .collect();
        assert_eq!(names(&text), explained);
    }

    #[test]
    fn a_histogram_adds_up_to_its_count() {
        let text = everything();
        let value = |series: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("no {series} in {text}")).to_owned()
        };
        assert_eq!(value("throng_loop_turn_seconds_bucket{le=\"0.000064\"}"), "0");
        assert_eq!(value("throng_loop_turn_seconds_bucket{le=\"0.000128\"}"), "1");
        assert_eq!(value("throng_loop_turn_seconds_bucket{le=\"1.048576\"}"), "1");
        assert_eq!(value("throng_loop_turn_seconds_bucket{le=\"+Inf\"}"), "2");
        assert_eq!(value("throng_loop_turn_seconds_count"), "2");
        assert_eq!(value("throng_loop_turn_seconds_sum"), "2.0001");
        assert_eq!(value("throng_worker_busy_seconds_total{worker=\"1\"}"), "2");
    }

    #[test]
    fn workers_are_told_apart_only_when_that_is_wanted() {
        let metrics: Vec<Metrics> = (0..53).map(|_| Metrics::default()).collect();
        let all: Vec<&Metrics> = metrics.iter().collect();
        let one = render(&all[..1], Server::default());
        let many = render(&all, Server::default());
        assert_eq!(one.lines().count(), many.lines().count());
        assert!(!many.contains("worker=\""));
    }

    #[test]
    fn seconds_have_no_more_digits_than_they_need() {
        for (value, digits, text) in
            [(0, 3, "0"), (1, 3, "0.001"), (1500, 3, "1.5"), (16, 6, "0.000016"), (2000, 3, "2")]
        {
            assert_eq!(seconds(value, digits), text);
        }
    }
}
