//! `fanout` and `slow`.

use super::{Stop, prepare};
use crate::cli::{Fanout, Slow, Transport};
use crate::engine::Note;
use crate::fanout::{
    FanoutReport, Ledger, MARK_BYTES, Mark, Publisher, Route, Slowness, Subscribers, Tale, Template, Values,
};
use crate::plan::{Plan, Wants};
use crate::results::{FanoutResults, Quantiles, Results};
use crate::run::{self, Companions, Timing};
use crate::target::Target;
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
    check(args, slowness)?;
    let topic = Template::new(&args.topic);
    let named = |number| topic.text(Values { number, ..Values::default() });
    let topics: Vec<String> = (0..u64::from(args.topics)).map(named).collect();
    // One request serves all unless the URL says which topic it is.
    let per_topic: &[String] = if common.url.contains("{topic}") { &topics } else { &[] };
    let wants = Wants { topics: per_topic, returning: args.reconnect_share, ..Wants::default() };
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
        Subscribers::new(ledger, subscribe, Opcode::Text, &args.gap_marker, slowness, args.reconnect_every)
    };
    let timing = Timing { settle: args.settle, measured: args.duration, drain: args.drain, ..Timing::default() };
    let run = run::drive(&plan, common, timing, pids, mode_of, companions)?;
    let mut results = Results::new(name, &plan, common, &run);
    let mut sum = FanoutReport::default();
    for report in &run.reports {
        sum.prompt.merge(&report.prompt);
        sum.slow.merge(&report.slow);
    }
    let seconds = results.measured.seconds;
    results.fanout = Some(results_of(args, &ledger, &sum.prompt, by_http, seconds));
    results.slow = (slowness.share > 0.0).then(|| results_of(args, &ledger, &sum.slow, by_http, seconds));
    Ok(results)
}

/// What cannot work is said before anything starts.
fn check(args: &Fanout, slowness: Slowness) -> Result<(), Stop> {
    if !Template::new(&args.publish_template).has_payload() {
        return Err(Stop::Usage("--publish-template lacks {payload}: without it no delivery can be told".into()));
    }
    if args.topics > 1 && !args.topic.contains("{n}") {
        return Err(Stop::Usage("--topic lacks {n}: several topics need names of their own".into()));
    }
    let is_websocket = args.common.transport == Transport::Ws;
    let by_socket = args.publish_url.is_none() && (is_websocket || args.publish_ws.is_some());
    let by_url = args.common.url.contains("{topic}") && by_socket && args.publish_ws.is_none();
    if args.publishers > 1 && by_socket {
        return Err(Stop::Usage(
            "several --publishers publish by POST: say where, as in --publish-url 'http://HOST:PORT/topics/{topic}'"
                .into(),
        ));
    }
    if args.publishers > args.topics {
        return Err(Stop::Usage(format!(
            "each of {} publishers needs a topic of its own, so that what it publishes has one order: say --topics {0} or more",
            args.publishers
        )));
    }
    if by_url && args.topics > 1 {
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
    // Who subscribes by GET publishes by POST, to the same place unless another is said.
    let own = (args.publish_ws.is_none() && args.common.transport != Transport::Ws).then(|| {
        let target = plan.target.clone();
        Target { path: target.path.split('?').next().unwrap_or_default().to_owned(), ..target }
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
    let mut fields = lines(&common.headers);
    if let Some(names) = &common.subprotocol {
        fields += &format!("Sec-WebSocket-Protocol: {names}\r\n");
    }
    Ok(Route::WebSocket { target: Target { path, ..target }, fields, subprotocol: common.subprotocol.clone() })
}

fn results_of(args: &Fanout, ledger: &Ledger, tale: &Tale, by_http: bool, seconds: f64) -> FanoutResults {
    let publisher = ledger.publishers.lock().unwrap_or_else(PoisonError::into_inner).clone();
    FanoutResults {
        topics: args.topics,
        publishers: args.publishers,
        subscribers: tale.subscribers,
        published: ledger.total(),
        published_per_second: ledger.total() as f64 / seconds.max(1e-9),
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
        publish_late_us: (!publisher.late_ns.is_empty()).then(|| Quantiles::of(&publisher.late_ns, 1000.0)),
        publish_answer_us: by_http.then(|| Quantiles::of(&publisher.answer_ns, 1000.0)),
        publish_errors: publisher.errors,
    }
}
