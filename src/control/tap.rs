//! Taps: a WebSocket of the admin port on which frames are told, a line of JSON each.
//!
//! Workers put what they see into a bounded queue ([`Tap`]); this side looks into it every few milliseconds, since workers cannot
//! ring it. It ends with its time, with its WebSocket, or when the operator does not read.

use super::params::{self, Params};
use super::text::{Value, object};
use super::{Desk, Watcher};
use crate::http::Response;
use crate::limits::{TAP_S, TAPS_MAX};
use crate::service::{Accept, Connection, Request};
use crate::worker::{Quest, Seen, Tap, Target, Way};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the queue is looked into.
const LOOK: Duration = Duration::from_millis(64);

/// How often an operator is pinged whom nothing is told: who has gone is noticed by that.
const PING: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Watch {
    tap: Arc<Tap>,
    ends: Instant,
    pings: Instant,
    /// What it was told at first.
    about: String,
}

impl Watch {
    pub(super) fn end(&self) {
        self.tap.end();
    }
}

impl Drop for Watch {
    /// However it ends, the upgrade that did not come about included.
    fn drop(&mut self) {
        self.tap.end();
    }
}

/// An upgrade: the workers are told, and the WebSocket is opened.
pub(super) fn open<T>(desk: &Desk<T>, request: &Request<'_>) -> Result<Accept<Watcher>, Response> {
    if request.path() != "/tap" {
        return Err(Response::refuse(404, "a WebSocket of the admin port is a tap: connect to /tap"));
    }
    let params = Params::read(request, &["id", "user", "topic", "payload", "seconds"])?;
    let target = match (params.text("id"), params.boxed("user"), params.topic("topic")?) {
        (Some(id), None, None) => {
            let (worker, serial) = params::id(id)?;
            let found = desk.handle.find(worker, serial);
            let gone = || Response::refuse(404, "there is no such connection (any more): /closes may say why");
            Target::Connection(found.ok_or_else(gone)?)
        }
        (None, Some(user), None) => Target::User(user),
        (None, None, Some(topic)) => Target::Topic(topic),
        _ => return Err(Response::refuse(400, "say what to tap: one of id, user, topic")),
    };
    let seconds = params.value("seconds", "a number of seconds")?.unwrap_or(TAP_S.0);
    if !(1..=TAP_S.1).contains(&seconds) {
        return Err(Response::refuse(400, &format!("seconds must be from 1 to {}", TAP_S.1)));
    }
    let lasts = Duration::from_secs(seconds);
    let only = if let Target::Connection(id) = &target { Some(id.worker) } else { None };
    let tap = Arc::new(Tap::new(target, params.has("payload"), lasts));
    let asked = desk.ask(Quest::Tap(Arc::clone(&tap)), only);
    let payload = if params.has("payload") { "shown, as far as 512 bytes" } else { "hidden" };
    let mut about = format!("tapping for {seconds} s, payloads {payload}");
    if !asked.silent.is_empty() {
        about.push_str(&format!("; these workers did not answer yet: {:?}", asked.silent));
    }
    let now = Instant::now();
    Ok(Accept::new(Watcher(Watch { tap, ends: now + lasts, pings: now + PING, about })))
}

pub(super) fn ready(connection: &mut Connection<'_, Watcher>) {
    let about = std::mem::take(&mut connection.state().0.about);
    let _ = connection.send(&*notice(&about));
    connection.wake_after(LOOK);
}

/// A line that is no frame's.
fn notice(text: &str) -> String {
    let mut line = Vec::new();
    object(&mut line, &[("notice", Value::of(Some(text)))]);
    String::from_utf8(line).unwrap_or_default()
}

/// Tells what was seen since the last look.
pub(super) fn look(connection: &mut Connection<'_, Watcher>) {
    let now = Instant::now();
    let watch = &mut connection.state().0;
    let (is_over, is_displaced) = (now >= watch.ends, watch.tap.is_displaced());
    let (seen, mut left_out) = watch.tap.fetch();
    let pings = now >= watch.pings;
    if pings || !seen.is_empty() {
        watch.pings = now + PING;
    }
    let had = seen.len() as u64;
    let mut told = 0;
    for seen in &seen {
        if connection.send(&*line(seen)).is_err() {
            break; // the operator reads too slowly
        }
        told += 1;
    }
    left_out += had - told;
    if left_out > 0 {
        let _ = connection.send(&*notice(&format!("{left_out} frames were left out: there were too many")));
    }
    if is_displaced {
        let reason = format!("ended to make room: a worker has {TAPS_MAX} taps at most, and a newer one came");
        return connection.close(1000, &reason);
    }
    if is_over {
        return connection.close(1000, "the tap's time is up");
    }
    if pings && had == 0 {
        let _ = connection.ping(b"");
    }
    connection.wake_after(LOOK);
}

/// What was seen, as JSON.
fn line(seen: &Seen) -> String {
    let way = match seen.way {
        Way::In => "in",
        Way::Out => "out",
        Way::Event => "event",
    };
    let mut fields = vec![
        ("unix_ms", Value::Number(seen.unix_ms)),
        ("id", seen.id.map_or(Value::Nothing, |id| Value::Text(id.to_string()))),
        ("way", Value::Text(way.to_owned())),
        ("what", Value::Text(seen.what.to_owned())),
        ("bytes", Value::Number(seen.bytes)),
    ];
    if seen.goes_on {
        fields.push(("goes_on", Value::Flag(true)));
    }
    if seen.compressed {
        fields.push(("compressed", Value::Flag(true)));
    }
    if let Some(topic) = &seen.topic {
        fields.push(("topic", Value::Text(topic.as_str().to_owned())));
    }
    if !seen.payload.is_empty() {
        let cut = seen.way != Way::Event && (seen.payload.len() as u64) < seen.bytes;
        fields.push(("payload", Value::Text(readable(&seen.payload, cut))));
        fields.extend(cut.then_some(("cut", Value::Flag(true))));
    }
    let mut line = Vec::new();
    object(&mut line, &fields);
    String::from_utf8(line).unwrap_or_default()
}

/// Text as it is, which may be cut within a character; anything else with what is not ASCII escaped.
fn readable(payload: &[u8], cut: bool) -> String {
    match std::str::from_utf8(payload) {
        Ok(text) => text.to_owned(),
        Err(error) if cut && error.error_len().is_none() => {
            String::from_utf8_lossy(&payload[..error.valid_up_to()]).into_owned()
        }
        Err(_) => payload.escape_ascii().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::validate;

    #[test]
    fn lines_are_json_whatever_the_payload() {
        for (payload, bytes, shown) in [
            (&b"hello"[..], 5, "\"payload\":\"hello\"}"),
            (b"a\x1b[2J\"", 6, "\"payload\":\"a\\u001b[2J\\\"\"}"),
            (b"\xff\x00", 2, "\"payload\":\"\\\\xff\\\\x00\"}"),
            ("ä".as_bytes(), 2, "\"payload\":\"ä\"}"),
            (b"a\xc3", 10, "\"payload\":\"a\",\"cut\":true}"),
            (b"", 10, "\"bytes\":10}"),
        ] {
            let seen = Seen {
                unix_ms: 1,
                id: None,
                way: Way::In,
                what: "text",
                bytes,
                goes_on: false,
                compressed: false,
                topic: None,
                payload: payload.into(),
            };
            let line = line(&seen);
            assert!(validate(line.as_bytes()).is_ok(), "{line}");
            assert!(line.ends_with(shown), "{line}");
        }
    }
}
