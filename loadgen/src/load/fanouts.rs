//! `fanout` and `slow`.

use super::{Stop, names, prepare};
use crate::cli::{Fanout, Slow, Transport};
use crate::engine::Note;
use crate::fanout::{
    FanoutReport, Ledger, MARK_BYTES, Mark, Publisher, Route, Slowness, Subscribers, Tale, Template, Travellers,
};
use crate::plan::{Plan, Wants};
use crate::results::{Account, FanoutResults, Quantiles, Results};
use crate::run::{self, Companions, Timing};
use crate::target::Target;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::thread;
use throng::ws::Opcode;

pub(super) fn fanout(args: &Fanout) -> Result<Results, Stop> {
    deliver("fanout", args, Slowness::default())
}

pub(super) fn slow(args: &Slow) -> Result<Results, Stop> {
    deliver("slow", &args.fanout, Slowness { share: args.slow_share, bytes_per_second: args.slow_bytes })
}

fn deliver(name: &'static str, args: &Fanout, slowness: Slowness) -> Result<Results, Stop> {
    let common = &args.common;
    let topics = names(&args.topics)?;
    check(args, slowness)?;
    let wants = Wants { topics: &topics, returning: args.reconnect_share, ..Wants::default() };
    let (plan, pids) = prepare(common, wants)?;
    let route = route(args, &plan, &topics)?;
    let by_http = matches!(route, Route::Http { .. });
    let ledger = Arc::new(Ledger::new(plan.seed as u32 & Mark::RUN_MASK, topics, args.publishers));
    let opcode = if args.binary { Opcode::Binary } else { Opcode::Text };
    let publisher = Publisher {
        index: 0,
        count: args.publishers,
        ledger: Arc::clone(&ledger),
        route,
        template: Template::new(&args.publish_template),
        opcode,
        rate: args.rate,
        size: args.size as usize,
        seed: plan.seed.wrapping_add(1),
    };
    let companions: Companions<'_> = Box::new(|shared, notes| {
        let publish = |index| {
            let publisher =
                Publisher { index, seed: publisher.seed.wrapping_add(u64::from(index)), ..publisher.clone() };
            let (shared, notes) = (Arc::clone(shared), notes.clone());
            let run = move || {
                let result = publisher.run(&shared);
                if result.is_err() {
                    let _ = notes.send(Note::Failed);
                }
                result
            };
            thread::Builder::new().name(format!("publisher-{index}")).spawn(run)
        };
        (0..args.publishers).filter_map(|index| publish(index).ok()).collect()
    });
    let subscribe = args.subscribe_template.as_deref();
    let mode_of = |_| {
        let ledger = Arc::clone(&ledger);
        let travellers = Travellers::new(args.reconnect_every, args.reconnect_after);
        Subscribers::new(ledger, subscribe, Opcode::Text, &args.gap_marker, slowness, travellers)
    };
    let timing = Timing { settle: args.settle, measured: args.duration, drain: args.drain, ..Timing::default() };
    let run = run::drive(&plan, common, timing, pids, mode_of, companions)?;
    let mut results = Results::new(name, &plan, common, &run);
    let seconds = results.measured.seconds;
    let parts = |tale: fn(&FanoutReport) -> &Tale| {
        let mut parts = BTreeMap::<String, Tale>::new();
        for report in &run.reports {
            for (transport, report) in common.transports.iter().zip(report) {
                parts.entry(transport.to_string()).or_default().merge(tale(report));
            }
        }
        results_of(args, &ledger, &parts, by_http, seconds)
    };
    results.fanout = Some(parts(|report| &report.prompt));
    results.slow = (slowness.share > 0.0).then(|| parts(|report| &report.slow));
    Ok(results)
}

/// What cannot work is said before anything starts.
fn check(args: &Fanout, slowness: Slowness) -> Result<(), Stop> {
    if !Template::new(&args.publish_template).has_payload() {
        return Err(Stop::Usage("--publish-template lacks {payload}: without it no delivery can be told".into()));
    }
    let is_websocket = args.common.transports == [Transport::Ws];
    let topics = args.topics.count;
    let by_socket = args.publish_url.is_none() && (is_websocket || args.publish_ws.is_some());
    let by_url = args.common.url.contains("{topic}") && by_socket && args.publish_ws.is_none();
    if args.publishers > 1 && by_socket {
        return Err(Stop::Usage(
            "several --publishers publish by POST: say where, as in --publish-url 'http://HOST:PORT/topics/{topic}'"
                .into(),
        ));
    }
    if args.publishers > topics {
        return Err(Stop::Usage(format!(
            "each of {} publishers needs a topic of its own, so that what it publishes has one order: say --topics {0} or more",
            args.publishers
        )));
    }
    if by_url && topics > 1 {
        return Err(Stop::Usage(
            "each topic has a URL of its own, and one WebSocket cannot publish to all: say --publish-url or --publish-ws".into(),
        ));
    }
    if args.subscribe_template.is_some() && !is_websocket {
        return Err(Stop::Usage("--subscribe-template is sent over a WebSocket: leave it or --transport out".into()));
    }
    if args.reconnect_share > 0.0 && (args.subscribe_template.is_some() || slowness.share > 0.0) {
        return Err(Stop::Usage(
            "--reconnect-share needs subscribers whose cursor is all there is to say, and who read: fanout without --subscribe-template".into(),
        ));
    }
    if (args.size as usize) < MARK_BYTES {
        eprintln!("throng-load: a payload has at least {MARK_BYTES} bytes: what identifies a message takes them");
    }
    Ok(())
}

fn route(args: &Fanout, plan: &Plan, topics: &[String]) -> Result<Route, Stop> {
    let lines = |lines: &[String]| lines.iter().map(|line| format!("{line}\r\n")).collect::<String>();
    let transports = &args.common.transports;
    let is_websocket = *transports == [Transport::Ws];
    // Who subscribes by GET publishes by POST, to the same place unless another is said. Where Centrifugo's clients connect
    // is no such place.
    let own = (args.publish_ws.is_none() && !is_websocket).then(|| {
        let target = plan.target.clone();
        let alone = transports.iter().all(|transport| transport.centrifugo().is_some());
        let path = match target.path.split('?').next().unwrap_or_default() {
            path if alone && !path.contains("{topic}") => "/topics/{topic}",
            path => path,
        };
        Target { path: path.to_owned(), ..target }
    });
    if let Some(target) = args.publish_url.as_deref().map(Target::http).transpose()?.or(own) {
        let mut fields = lines(&args.publish_headers);
        if !fields.to_ascii_lowercase().contains("content-type:") {
            fields += "Content-Type: text/plain\r\n";
        }
        return Ok(Route::Http { target, fields });
    }
    let target = match &args.publish_ws {
        Some(url) => Target::websocket(url)?,
        None => plan.target.clone(),
    };
    let path = target.path.replace("{topic}", topics.first().map_or("", String::as_str));
    let common = &args.common;
    let fields = lines(&common.headers);
    Ok(Route::WebSocket { target: Target { path, ..target }, fields, subprotocol: common.subprotocol.clone() })
}

/// `parts` are the tales of the transports, by name.
fn results_of(
    args: &Fanout,
    ledger: &Ledger,
    parts: &BTreeMap<String, Tale>,
    by_http: bool,
    seconds: f64,
) -> FanoutResults {
    let publisher = ledger.publishers.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut all = Tale::default();
    parts.values().for_each(|tale| all.merge(tale));
    let account = |tale: &Tale| account_of(tale, seconds);
    let by_transport = parts.iter().filter(|_| parts.len() > 1).map(|(name, tale)| (name.clone(), account(tale)));
    FanoutResults {
        topics: args.topics.count,
        publishers: args.publishers,
        published: ledger.total(),
        published_per_second: ledger.total() as f64 / seconds.max(1e-9),
        account: account(&all),
        by_transport: by_transport.collect(),
        publish_late_us: (!publisher.late_ns.is_empty()).then(|| Quantiles::of(&publisher.late_ns, 1000.0)),
        publish_answer_us: by_http.then(|| Quantiles::of(&publisher.answer_ns, 1000.0)),
        publish_errors: publisher.errors,
    }
}

fn account_of(tale: &Tale, seconds: f64) -> Account {
    Account {
        subscribers: tale.subscribers,
        expected: tale.expected,
        delivered: tale.delivered,
        delivered_per_second: tale.delivered as f64 / seconds.max(1e-9),
        lost: tale.lost,
        lost_at_end: tale.lost_at_end,
        gap_announced: tale.gap_announced,
        missed_by_lost_connections: tale.missed_by_lost,
        duplicated: tale.duplicated,
        reordered: tale.reordered,
        misrouted: tale.misrouted,
        foreign: tale.foreign,
        gaps: tale.gaps,
        reconnecting_subscribers: tale.travellers,
        reconnects: tale.reconnects,
        latency_us: Quantiles::of(&tale.latency_ns, 1000.0),
    }
}
