//! What a run found out, as data: the summary, the JSON file and the page are three ways to write it down.

mod connections;

use crate::cli::{Common, End};
use crate::observe::{Machine, Process};
use crate::plan::Plan;
use crate::run::Run;
use crate::timeline::Mark;
use crate::verdict::{Load, Verdict};
use connections::connections;
pub(crate) use connections::{Connections, TransportConnections};
use hdrhistogram::{Counter, Histogram};
use serde::Serialize;
use std::collections::BTreeMap;

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Results {
    pub(crate) tool: &'static str,
    pub(crate) version: &'static str,
    pub(crate) mode: &'static str,
    pub(crate) url: String,
    /// As `--transport` says it.
    pub(crate) transport: String,
    /// Seconds since 1970.
    pub(crate) started_unix: u64,
    pub(crate) command: String,
    /// Everything was accounted for and nothing was lost.
    pub(crate) clean: bool,
    pub(crate) ended_early: bool,
    /// What is not as it should be, in words.
    pub(crate) problems: Vec<String>,
    pub(crate) verdict: Verdict,
    pub(crate) machine: MachineFacts,
    pub(crate) threads: usize,
    /// Processes that were watched as the server.
    pub(crate) server_pids: Vec<u32>,
    pub(crate) connections: Connections,
    pub(crate) opening: Opening,
    pub(crate) measured: Measured,
    pub(crate) closing: Closing,
    pub(crate) memory: Memory,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) echo: Option<EchoResults>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fanout: Option<FanoutResults>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) slow: Option<FanoutResults>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) churn: Option<ChurnResults>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) storm: Option<StormResults>,
    pub(crate) samples: Vec<SamplePoint>,
}

/// Where it ran.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct MachineFacts {
    pub(crate) kernel: String,
    pub(crate) cores: usize,
    pub(crate) memory_bytes: u64,
    pub(crate) descriptors_per_table: u64,
}

/// From the first attempt to the last answer.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Opening {
    pub(crate) seconds: f64,
    pub(crate) attempted: u64,
    pub(crate) opened: u64,
    pub(crate) handshakes_per_second: f64,
    pub(crate) latency_us: Quantiles,
    pub(crate) generator_cpu_us: f64,
    pub(crate) server_cpu_us: Option<f64>,
}

/// The measured part.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) seconds: f64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) pings: u64,
    pub(crate) generator_cores: f64,
    /// The share of the time for which the busiest of our threads had the processor.
    pub(crate) busiest_thread: f64,
    pub(crate) server_cores: Option<f64>,
    pub(crate) idle_cores: f64,
    /// What the load is made of: `heartbeat` (a ping and its pong), `echo`, `delivery`, `connection`; and how many.
    pub(crate) unit: &'static str,
    pub(crate) units: u64,
    /// Processor time, in microseconds, for each of them.
    pub(crate) server_cpu_us_each: Option<f64>,
    pub(crate) generator_cpu_us_each: Option<f64>,
    pub(crate) server_switches_per_second: Option<f64>,
    pub(crate) server_involuntary_switches_per_second: Option<f64>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Closing {
    pub(crate) seconds: f64,
    pub(crate) by: &'static str,
}

/// Bytes per open connection.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Memory {
    /// The server's own memory: growth while the connections were opened.
    pub(crate) server_user: Option<f64>,
    pub(crate) generator_user: f64,
    /// Of which the records of connections.
    pub(crate) generator_records: f64,
    /// Growth of the kernel's slabs, for both ends together when the server is on this machine.
    pub(crate) kernel: f64,
    /// One socket of the server's, and one of ours, which also has a bind bucket.
    pub(crate) kernel_server_socket: Option<f64>,
    pub(crate) kernel_generator_socket: f64,
    /// Everything that the machine has less: both ends, user space and kernel.
    pub(crate) machine: f64,
}

/// Echoes.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct EchoResults {
    /// `closed` or `open`.
    pub(crate) r#loop: &'static str,
    pub(crate) rate_wanted: Option<f64>,
    pub(crate) answered_per_second: f64,
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    pub(crate) missing: u64,
    pub(crate) wrong: u64,
    pub(crate) unasked: u64,
    pub(crate) unsent: u64,
    pub(crate) latency_us: Quantiles,
    /// How late this side sent; open loop only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) late_us: Option<Quantiles>,
}

/// Deliveries.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct FanoutResults {
    pub(crate) topics: u32,
    pub(crate) publishers: u32,
    pub(crate) published: u64,
    pub(crate) published_per_second: f64,
    #[serde(flatten)]
    pub(crate) account: Account,
    /// In a mix: the same by transport.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) by_transport: BTreeMap<String, Account>,
    pub(crate) publish_late_us: Option<Quantiles>,
    /// Time from the publishing to the HTTP answer.
    pub(crate) publish_answer_us: Option<Quantiles>,
    pub(crate) publish_errors: u64,
}

/// What subscribers should have got, and got.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Account {
    pub(crate) subscribers: u64,
    pub(crate) expected: u64,
    pub(crate) delivered: u64,
    pub(crate) delivered_per_second: f64,
    /// Missing, and nobody said so.
    pub(crate) lost: u64,
    /// Of which behind the last that came to a subscriber: perhaps only late, where a server forgot to send them.
    pub(crate) lost_at_end: u64,
    /// Missing behind an announced gap.
    pub(crate) gap_announced: u64,
    /// Missing because the subscriber's connection was gone.
    pub(crate) missed_by_lost_connections: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    /// Messages of topics that the subscriber had not asked for.
    pub(crate) misrouted: u64,
    /// Messages without a mark of ours.
    pub(crate) foreign: u64,
    /// Gaps that were announced, whatever was missing behind them.
    pub(crate) gaps: u64,
    /// Subscribers that left and came back with a cursor, and how often in all.
    pub(crate) reconnecting_subscribers: u64,
    pub(crate) reconnects: u64,
    pub(crate) latency_us: Quantiles,
}

/// Comings and goings.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ChurnResults {
    pub(crate) rate_wanted: f64,
    pub(crate) replaced: u64,
    pub(crate) replaced_per_second: f64,
    /// Due and not done before the end.
    pub(crate) behind: u64,
}

/// All at once.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct StormResults {
    pub(crate) rounds: Vec<StormRound>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct StormRound {
    pub(crate) dropped: u64,
    pub(crate) came_back: u64,
    pub(crate) attempts: u64,
    /// From the drop until half, nearly all, and the last were served.
    pub(crate) half_seconds: f64,
    pub(crate) p99_seconds: f64,
    pub(crate) last_seconds: f64,
}

/// A distribution, in microseconds.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Quantiles {
    pub(crate) count: u64,
    pub(crate) mean: f64,
    pub(crate) min: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p99_9: f64,
    pub(crate) p99_99: f64,
    pub(crate) max: f64,
    /// Share of the values, and the value that it does not exceed.
    pub(crate) curve: Vec<(f64, f64)>,
}

impl Quantiles {
    /// `unit` is how many of the histogram's units make a microsecond.
    pub(crate) fn of<C: Counter>(histogram: &Histogram<C>, unit: f64) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let at = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / unit;
        let nines = [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9995, 0.9999, 0.99995, 0.99999, 1.0];
        let told_apart = |quantile: f64| quantile == 1.0 || (1.0 - quantile) * histogram.len() as f64 >= 1.0;
        Self {
            count: histogram.len(),
            mean: histogram.mean() / unit,
            min: histogram.min() as f64 / unit,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            p99_99: at(0.9999),
            max: histogram.max() as f64 / unit,
            curve: nines.iter().filter(|&&q| told_apart(q)).map(|&quantile| (quantile, at(quantile))).collect(),
        }
    }
}

/// One point of the charts.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct SamplePoint {
    pub(crate) seconds: f64,
    pub(crate) open: u64,
    pub(crate) opened: u64,
    pub(crate) failed: u64,
    pub(crate) lost: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) pings: u64,
    pub(crate) generator_bytes: u64,
    pub(crate) server_bytes: Option<u64>,
    pub(crate) slab_bytes: u64,
}

impl Results {
    /// What every mode has. `work` says what was measured, for the verdict.
    pub(crate) fn new<R>(mode: &'static str, plan: &Plan, common: &Common, run: &Run<R>) -> Self {
        let marks = &run.marks;
        let load = Load::between(&marks.measured, &marks.stopped);
        let mut results = Self {
            tool: "throng-load",
            version: env!("CARGO_PKG_VERSION"),
            mode,
            url: common.url.clone(),
            transport: common.transport_names(),
            started_unix: run.started_unix,
            command: std::env::args().collect::<Vec<_>>().join(" "),
            clean: false,
            ended_early: run.interrupted,
            problems: run.errors.clone(),
            verdict: Verdict::default(),
            machine: MachineFacts {
                kernel: crate::observe::kernel_release(),
                cores: marks.start.machine.cores,
                memory_bytes: crate::observe::memory_total(),
                descriptors_per_table: plan.descriptors,
            },
            threads: plan.workers.len(),
            server_pids: run.pids.clone(),
            connections: connections(plan, common, run),
            opening: opening(run),
            measured: measured(mode, &marks.measured, &marks.stopped, &load),
            closing: Closing {
                seconds: marks.closed.at.since(marks.drained.at).as_secs_f64(),
                by: if common.end == End::Close { "close" } else { "reset" },
            },
            memory: memory(plan, run),
            echo: None,
            fanout: None,
            slow: None,
            churn: None,
            storm: None,
            samples: samples(run),
        };
        let opening_load = Load::between(&marks.start, &marks.opened);
        results.verdict = Verdict::of(&load, &opening_load);
        results
    }

    /// Whether there were enough connections for bytes a connection to mean anything.
    pub(crate) fn tells_memory(&self) -> bool {
        self.opening.opened >= 1000
    }

    /// Settles whether the run was clean, once everything is in.
    pub(crate) fn conclude(&mut self) {
        let mut problems = Vec::new();
        let mut problem = |count: u64, what: &str| {
            if count > 0 {
                problems.push(format!("{} {what}", crate::progress::grouped(count)));
            }
        };
        // Who fails in a storm and comes back later has lost nothing but time.
        if self.storm.is_none() {
            // What the user's own signal cut off is no failure of anyone's.
            let aborted = self.connections.failures.get("aborted").copied().unwrap_or(0);
            problem(self.connections.failed - aborted, "connections failed to open");
        }
        problem(self.connections.lost, "connections were lost");
        for (fanout, who) in [(&self.fanout, ""), (&self.slow, " (slow ones)")] {
            let Some(fanout) = fanout else { continue };
            let account = &fanout.account;
            problem(account.lost, &format!("deliveries were lost unnoticed{who}"));
            problem(account.duplicated, &format!("deliveries came twice{who}"));
            problem(account.reordered, &format!("deliveries came out of order{who}"));
            problem(account.misrouted, &format!("deliveries went to the wrong subscriber{who}"));
            if who.is_empty() {
                problem(account.gap_announced, "deliveries are missing behind announced gaps");
                problem(fanout.publish_errors, "publishes were not accepted");
            }
        }
        if let Some(echo) = &self.echo {
            problem(echo.missing, "answers are missing");
            problem(echo.wrong, "answers were not what was sent");
            problem(echo.unasked, "messages came that nobody had asked for");
        }
        if let Some(storm) = &self.storm {
            problem(storm.rounds.iter().map(|round| round.dropped - round.came_back).sum(), "did not come back");
        }
        self.problems.append(&mut problems);
        self.clean = self.problems.is_empty();
    }
}

fn opening<R>(run: &Run<R>) -> Opening {
    let (start, opened) = (&run.marks.start, &run.marks.opened);
    let seconds = opened.at.since(start.at).as_secs_f64();
    let count = opened.account.opened.max(1) as f64;
    let cpu_us = |before: &Process, after: &Process| (after.cpu_seconds - before.cpu_seconds) * 1e6 / count;
    Opening {
        seconds,
        attempted: opened.account.attempted,
        opened: opened.account.opened,
        handshakes_per_second: opened.account.opened as f64 / seconds.max(1e-9),
        latency_us: Quantiles::of(&run.tally.handshake_us, 1.0),
        generator_cpu_us: cpu_us(&start.own, &opened.own),
        server_cpu_us: start.server.zip(opened.server).map(|(before, after)| cpu_us(&before, &after)),
    }
}

fn measured(mode: &str, from: &Mark, to: &Mark, load: &Load) -> Measured {
    let count = |of: fn(&Mark) -> u64| of(to).saturating_sub(of(from));
    let sent = count(|mark| mark.account.sent);
    let received = count(|mark| mark.account.received);
    let pings = count(|mark| mark.account.pings);
    let (unit, units) = match mode {
        "idle" => ("heartbeat", pings),
        "churn" | "storm" => ("connection", count(|mark| mark.account.opened)),
        "fanout" | "slow" => ("delivery", received),
        _ => ("echo", received),
    };
    let each = |cores: f64| (units > 0).then(|| cores * load.seconds * 1e6 / units as f64);
    let servers = from.server.zip(to.server);
    let per_second = |of: fn(&Process) -> u64| {
        servers.map(|(before, after)| of(&after).saturating_sub(of(&before)) as f64 / load.seconds.max(1e-9))
    };
    Measured {
        seconds: load.seconds,
        sent,
        received,
        pings,
        generator_cores: load.generator_cores,
        busiest_thread: load.busiest_thread,
        server_cores: load.server_cores,
        idle_cores: load.idle_cores,
        unit,
        units,
        server_cpu_us_each: load.server_cores.and_then(each),
        generator_cpu_us_each: each(load.generator_cores),
        server_switches_per_second: per_second(|process| process.voluntary_switches),
        server_involuntary_switches_per_second: per_second(|process| process.involuntary_switches),
    }
}

fn memory<R>(plan: &Plan, run: &Run<R>) -> Memory {
    let (before, after) = (&run.marks.start, &run.marks.opened);
    let open = after.account.open();
    if open == 0 {
        return Memory::default();
    }
    let each = |before: u64, after: u64| (after as f64 - before as f64) / open as f64;
    let (Machine { slab_bytes: slab_before, .. }, Machine { slab_bytes: slab_after, .. }) =
        (before.machine, after.machine);
    let kernel = each(slab_before, slab_after);
    let local = plan.target.is_local();
    let server_socket = (kernel - BIND_BUCKET_BYTES) / 2.0;
    Memory {
        server_user: before.server.zip(after.server).map(|(b, a)| each(b.anonymous_bytes, a.anonymous_bytes)),
        generator_user: each(before.own.anonymous_bytes, after.own.anonymous_bytes),
        generator_records: run.table_bytes as f64 / open as f64,
        kernel,
        kernel_server_socket: local.then_some(server_socket),
        kernel_generator_socket: if local { kernel - server_socket } else { kernel },
        machine: each(after.machine.memory_available_bytes, before.machine.memory_available_bytes),
    }
}

/// What the kernel keeps for a port that was chosen for one address (`tcp_bind2_bucket`): the calling end has
/// one for each socket, the accepting end one in all. The rest of a socket is the same at both ends.
const BIND_BUCKET_BYTES: f64 = 128.0;

fn samples<R>(run: &Run<R>) -> Vec<SamplePoint> {
    let point = |sample: &crate::timeline::Sample| SamplePoint {
        seconds: sample.at.seconds(),
        open: sample.account.open(),
        opened: sample.account.opened,
        failed: sample.account.failed,
        lost: sample.account.lost,
        sent: sample.account.sent,
        received: sample.account.received,
        pings: sample.account.pings,
        generator_bytes: sample.own_bytes,
        server_bytes: sample.server_bytes,
        slab_bytes: sample.slab_bytes,
    };
    run.timeline.samples.iter().map(point).collect()
}
