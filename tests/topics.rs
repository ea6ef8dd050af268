//! Topics as their clients see them: one log behind one URL, over four transports.
#![cfg(feature = "cli")] // There is no binary without it.

mod support;

use std::thread;
use std::time::{Duration, Instant};
use support::*;

/// One worker is the home, and three are not: most of what is asked here crosses threads.
fn start() -> Throng {
    Throng::start("--workers 4 --ping-interval 100")
}

fn publish(server: &Throng, topic: &str, body: &str) -> String {
    let mut peer = server.connect();
    publish_on(&mut peer, topic, body)
}

fn publish_on(peer: &mut Raw, topic: &str, body: &str) -> String {
    peer.send(format!(
        "POST /topics/{topic} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    let answer = peer.answer();
    assert_eq!(answer.status, 200, "{answer:?}");
    let cursor = answer.field("Throng-Cursor").unwrap().to_owned();
    assert_eq!(String::from_utf8(answer.body).unwrap(), format!("{{\"id\":\"{cursor}\"}}\n"));
    cursor
}

fn get(server: &Throng, target: &str) -> Response {
    let mut peer = server.connect();
    peer.send(plain(target).bytes());
    peer.answer()
}

fn poll(server: &Throng, target: &str) -> (u16, String, String) {
    let answer = get(server, target);
    let cursor = answer.field("Throng-Cursor").unwrap_or("").to_owned();
    (answer.status, String::from_utf8(answer.body).unwrap(), cursor)
}

/// A WebSocket subscriber, and the cursor that it started from.
fn subscribe(server: &Throng, target: &str) -> (Raw, String) {
    let mut peer = server.connect();
    peer.send(upgrade().line(format!("GET {target} HTTP/1.1")).bytes());
    let answer = peer.head();
    assert_eq!(answer.status, 101, "{answer:?}");
    let cursor = answer.field("Throng-Cursor").unwrap().to_owned();
    (peer, cursor)
}

/// An EventSource.
fn listen(server: &Throng, target: &str, more: &str) -> Raw {
    let mut peer = server.connect();
    let head = plain(target).with("Accept: text/event-stream");
    peer.send(if more.is_empty() { head } else { head.with(more) }.bytes());
    let answer = peer.head();
    assert_eq!((answer.status, answer.field("Content-Type")), (200, Some("text/event-stream")));
    peer
}

/// The next block of an event stream, without its last empty line; comments are passed over.
fn block(peer: &mut Raw) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = peer.line_block(deadline);
        if text != ":" {
            return text;
        }
    }
}

#[test]
fn what_is_posted_reaches_every_transport() {
    let server = start();
    let (mut bare, start) = subscribe(&server, "/topics/news");
    let (mut json, _) = subscribe(&server, "/topics/news?frames=json");
    let mut events = listen(&server, "/topics/news", "");
    let first = block(&mut events);
    assert!(first.starts_with("retry: ") && first.ends_with(&format!("\nid: {start}")), "{first}");
    let mut waiting = server.connect();
    waiting.send(plain("/topics/news?wait=20").bytes());
    assert!(!waiting.hears(millis(200)), "it waits");
    let cursor = publish(&server, "news", "hello");
    bare.expect(TEXT, "hello");
    json.expect(TEXT, format!("{{\"id\":\"{cursor}\",\"data\":\"hello\"}}"));
    assert_eq!(block(&mut events), format!("id: {cursor}\ndata: hello"));
    let answer = waiting.answer();
    assert_eq!(String::from_utf8(answer.body).unwrap(), format!("[{{\"id\":\"{cursor}\",\"data\":\"hello\"}}]\n"));
    let array = format!("[{{\"id\":\"{cursor}\",\"data\":\"hello\"}}]\n");
    assert_eq!(poll(&server, "/topics/news"), (200, array, cursor.clone()));
    // The same connection polls on; nothing comes, and the time is short.
    waiting.send(plain(&format!("/topics/news?wait=1&since={cursor}")).bytes());
    let answer = waiting.answer();
    assert_eq!((answer.status, answer.field("Throng-Cursor")), (204, Some(&*cursor)));
}

#[test]
fn a_reader_goes_on_over_another_transport() {
    let server = start();
    let cursors: Vec<String> = (0..10).map(|number| publish(&server, "t", &number.to_string())).collect();
    let (mut bare, from) = subscribe(&server, &format!("/topics/t?since={}", cursors[3]));
    assert_eq!(from, cursors[3]);
    (4..10).for_each(|number| bare.expect(TEXT, number.to_string()));
    let mut events = listen(&server, "/topics/t", &format!("Last-Event-ID: {}", cursors[7]));
    assert!(block(&mut events).ends_with(&cursors[7]));
    for (number, cursor) in cursors.iter().enumerate().skip(8) {
        assert_eq!(block(&mut events), format!("id: {cursor}\ndata: {number}"));
    }
    let (status, body, cursor) = poll(&server, &format!("/topics/t?since={}&limit=1&wait=5", cursors[5]));
    assert_eq!(
        (status, body, &cursor),
        (200, format!("[{{\"id\":\"{}\",\"data\":\"6\"}}]\n", cursors[6]), &cursors[6])
    );
    assert_eq!(get(&server, "/topics/t?since=earliest").body.iter().filter(|&&byte| byte == b'{').count(), 10);
    let (mut all, _) = subscribe(&server, "/topics/t?since=earliest");
    (0..10).for_each(|number| all.expect(TEXT, number.to_string()));
}

#[test]
fn a_gap_is_said_aloud_on_every_transport() {
    let server = Throng::start("--workers 4 --history-size 2");
    let cursors: Vec<String> = (0..5).map(|number| publish(&server, "t", &number.to_string())).collect();
    let (old, resumed) = (&cursors[0], &cursors[2]);
    let gap = format!("{{\"gap\":{{\"since\":\"{old}\",\"resumed\":\"{resumed}\"}}}}");
    let (_, body, _) = poll(&server, &format!("/topics/t?since={old}&wait=10"));
    assert!(body.starts_with(&format!("[{gap},{{\"id\":\"{}\"", cursors[3])), "{body}");
    let mut events = listen(&server, "/topics/t", &format!("Last-Event-ID: {old}"));
    block(&mut events);
    assert_eq!(block(&mut events), format!("event: gap\nid: {resumed}\ndata: {gap}"));
    assert_eq!(block(&mut events), format!("id: {}\ndata: 3", cursors[3]));
    let mut strange = listen(&server, "/topics/t", "Last-Event-ID: strange");
    block(&mut strange);
    assert!(block(&mut strange).starts_with("event: gap\n"));
    let (mut json, _) = subscribe(&server, &format!("/topics/t?frames=json&since={old}"));
    json.expect(TEXT, &gap);
    let (mut bare, _) = subscribe(&server, &format!("/topics/t?since={old}"));
    assert_eq!(bare.expect_close(4410), format!("gap: resume at {resumed}"));
    let (mut again, _) = subscribe(&server, &format!("/topics/t?since={resumed}"));
    again.expect(TEXT, "3");
}

#[test]
fn messages_are_text_json_or_bytes() {
    let server = start();
    let (mut bare, _) = subscribe(&server, "/topics/kinds");
    let post = |fields: &str, body: &[u8]| {
        let mut peer = server.connect();
        let head =
            format!("POST /topics/kinds HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n{fields}\r\n", body.len());
        peer.send([head.as_bytes(), body].concat());
        peer.answer()
    };
    for (fields, body, opcode) in [
        ("Content-Type: application/json\r\n", &b"{\"a\": [1]}"[..], TEXT),
        ("Content-Type: application/x-www-form-urlencoded\r\n", b"hello", TEXT),
        ("Content-Type: application/octet-stream\r\n", b"text, but so be it", BINARY),
        ("", "ü".as_bytes(), TEXT),
        ("", b"\xFF", BINARY),
        ("", b"", TEXT),
    ] {
        assert_eq!(post(fields, body).status, 200, "{fields}");
        bare.expect(opcode, body);
    }
    for (fields, body, status, code) in [
        ("Content-Type: application/json\r\n", &b"{\"a\": [1}"[..], 400, "bad_message"),
        ("Content-Type: text/plain\r\n", b"\xFF", 400, "bad_message"),
        ("Content-Type: text/plain; charset=latin1\r\n", b"x", 415, "media_type"),
        ("Content-Encoding: gzip\r\n", b"x", 415, "media_type"),
    ] {
        let answer = post(fields, body);
        assert_eq!((answer.status, &*answer.problem()["code"]), (status, code), "{fields}");
    }
    let first = post("Idempotency-Key: once\r\n", b"one").body;
    assert_eq!(post("Idempotency-Key: once\r\n", b"two").body, first);
    bare.expect(TEXT, "one");
    assert_eq!(post("", b"three").status, 200);
    bare.expect(TEXT, "three");
}

#[test]
fn requests_that_make_no_sense_are_told_why() {
    let server = start();
    for (target, status, code) in [
        ("/topics/", 400, "bad_topic"),
        ("/topics/a%2", 400, "bad_topic"),
        ("/topics/a/b", 400, "bad_topic"),
        ("/topics/..", 400, "bad_topic"),
        ("/topics/a?since=yesterday", 400, "bad_parameter"),
        ("/topics/a?wait=-1", 400, "bad_parameter"),
        ("/topics/a?limit=x", 400, "bad_parameter"),
        ("/topics/a?since=latest&since=earliest", 400, "bad_parameter"),
    ] {
        let answer = get(&server, target);
        assert_eq!((answer.status, &*answer.problem()["code"]), (status, code), "{target}");
    }
    let mut peer = server.connect();
    peer.send("DELETE /topics/a HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let answer = peer.answer();
    assert_eq!((answer.status, answer.field("Allow")), (405, Some("GET, HEAD, POST, OPTIONS")));
    peer.send("OPTIONS /topics/a HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n\r\n");
    let answer = peer.answer();
    assert_eq!((answer.status, answer.field("Access-Control-Allow-Origin")), (204, Some("http://localhost")));
    let cursor = publish(&server, "a%2Fb%25", "x");
    peer.send("HEAD /topics/a%2Fb%25 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(peer.head().field("Throng-Cursor"), Some(&*cursor));
}

#[test]
fn pipelined_publishers_are_acknowledged_in_order() {
    let server = start();
    let (mut bare, _) = subscribe(&server, "/topics/fast");
    let mut peer = server.connect();
    let requests: String = (100..400)
        .map(|number| format!("POST /topics/fast HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\n{number}"))
        .collect();
    peer.send(requests);
    for number in 100..400 {
        let cursor = peer.answer().field("Throng-Cursor").unwrap().to_owned();
        assert!(cursor.ends_with(&format!("-{}", number - 99)), "{cursor}");
        bare.expect(TEXT, number.to_string());
    }
}

/// Publishers and subscribers on all workers; a part of the subscribers comes and goes with cursors all the time. Every
/// one of them sees every message of its topic once, in order.
#[test]
fn nothing_is_lost_while_readers_come_and_go() {
    const TOPICS: usize = 5;
    const MESSAGES: u64 = 400;
    let server = start();
    let server = &server;
    thread::scope(|scope| {
        for reader in 0..30 {
            scope.spawn(move || {
                let topic = reader % TOPICS;
                let mut cursor = String::new();
                let mut next = 1;
                let mut target = format!("/topics/t{topic}?frames=json&since=earliest");
                while next <= MESSAGES {
                    let (mut peer, _) = subscribe(server, &target);
                    // A third of them leave after a few.
                    let until = if reader % 3 == 0 { next + 7 } else { MESSAGES + 1 };
                    while next <= MESSAGES && next < until {
                        let text = String::from_utf8(peer.frame().payload).unwrap();
                        let id = text
                            .split('"')
                            .nth(3)
                            .unwrap_or_else(|| panic!("reader {reader} at {next} from {target}: {text:?}"));
                        let (_, offset) = id.split_once('-').unwrap();
                        assert_eq!(offset, next.to_string(), "reader {reader}: {text}");
                        cursor = id.to_owned();
                        next += 1;
                    }
                    target = format!("/topics/t{topic}?frames=json&since={cursor}");
                }
            });
        }
        for topic in 0..TOPICS {
            for publisher in 0..2 {
                scope.spawn(move || {
                    let mut peer = server.connect();
                    for number in 0..MESSAGES / 2 {
                        publish_on(&mut peer, &format!("t{topic}"), &format!("{publisher} {number}"));
                    }
                });
            }
        }
    });
    eventually("all have left", PATIENCE, || server.metric("throng_connections{state=\"open\"}") == 0.0);
}

#[test]
fn a_reader_that_stops_holds_up_nobody_and_is_closed_once_it_lags() {
    let server = Throng::start("--workers 1 --history-size 50 --history-bytes 4000000 --ping-interval 100");
    let (mut stalled, _) = subscribe(&server, "/topics/big");
    let (mut brisk, _) = subscribe(&server, "/topics/big");
    let mut publisher = server.connect();
    let body = "x".repeat(60_000);
    let began = Instant::now();
    while server.metric("throng_lagged_total") == 0.0 {
        publish_on(&mut publisher, "big", &body);
        brisk.expect(TEXT, &body);
        assert!(began.elapsed() < Duration::from_secs(20), "it never lagged");
    }
    // What was under way arrives whole, then the close.
    loop {
        let frame = stalled.frame();
        if frame.opcode == CLOSE {
            assert_eq!(frame.payload[..2], 1013_u16.to_be_bytes());
            break;
        }
        assert_eq!(frame.payload.len(), body.len());
    }
    publish_on(&mut publisher, "big", "last");
    brisk.expect(TEXT, "last");
}

#[test]
fn clients_publish_only_where_they_may() {
    let server = start();
    let (mut silent, _) = subscribe(&server, "/topics/t");
    silent.send(text("hello").bytes());
    assert!(silent.expect_close(1008).contains("POST"));
    let server = Throng::start("--workers 4 --client-publish");
    let (mut one, _) = subscribe(&server, "/topics/t");
    let (mut other, _) = subscribe(&server, "/topics/t");
    one.send(text("hello").bytes());
    one.expect(TEXT, "hello");
    other.expect(TEXT, "hello");
}

#[test]
fn a_drain_ends_streams_and_polls() {
    let server = start();
    let mut events = listen(&server, "/topics/t", "");
    block(&mut events);
    let mut waiting = server.connect();
    waiting.send(plain("/topics/t?wait=60").bytes());
    assert!(!waiting.hears(millis(200)));
    server.signal("TERM");
    assert!(block(&mut events).starts_with("retry: "));
    events.expect_eof();
    assert_eq!(waiting.response().status, 204);
}

#[test]
fn there_are_only_so_many_topics() {
    let server = Throng::start("--workers 2 --max-topics 2 --history-ttl 1");
    let all: Vec<_> =
        ["a", "b", "c", "d", "e", "f"].map(|topic| get(&server, &format!("/topics/{topic}")).status).into();
    assert_eq!(all, [200; 6], "idle ones make room");
    let (mut first, _) = subscribe(&server, "/topics/a");
    let statuses: Vec<u16> = (0..20)
        .map(|number| {
            let mut peer = server.connect();
            peer.send(upgrade().line(format!("GET /topics/t{number} HTTP/1.1")).bytes());
            let status = peer.head().status;
            if status == 101 {
                std::mem::forget(peer); // it stays
            }
            status
        })
        .collect();
    assert_eq!(statuses.iter().filter(|&&status| status == 101).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|&&status| status == 503).count(), 19);
    publish(&server, "a", "still here");
    first.expect(TEXT, "still here");
}

#[test]
fn an_event_source_for_which_there_is_no_room_is_told_when_to_come_back() {
    // One has a place for one connection, the other for one topic; both are taken.
    let full = Throng::start("--workers 1 --max-connections 1");
    let _held = subscribe(&full, "/topics/t");
    let crowded = Throng::start("--workers 1 --max-topics 1 --allow-origin https://a.example");
    let _other = subscribe(&crowded, "/topics/other");
    for server in [&full, &crowded] {
        let mut peer = server.connect();
        peer.send(plain("/topics/t").with("Accept: text/event-stream").bytes());
        let answer = peer.answer();
        assert_eq!((answer.status, answer.field("Content-Type")), (200, Some("text/event-stream")));
        let body = String::from_utf8(answer.body).unwrap();
        let retry_ms: u64 =
            body.strip_prefix("retry: ").and_then(|rest| rest.strip_suffix("\n\n")).unwrap().parse().unwrap();
        assert!((15_000..60_000).contains(&retry_ms), "{retry_ms}");
        assert_eq!(get(server, "/topics/t?wait=1").status, 503, "whoever else asks is refused");
    }
    let mut page = crowded.connect();
    let from = plain("/topics/t").with("Accept: text/event-stream").with("Origin: https://a.example");
    page.send(from.bytes());
    assert_eq!(page.answer().field("Access-Control-Allow-Origin"), Some("https://a.example"));
}

#[test]
fn a_head_says_where_the_topic_stands_and_no_length() {
    let server = start();
    let cursor = publish(&server, "t", "x");
    let mut peer = server.connect();
    peer.send("HEAD /topics/t HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let head = peer.head();
    assert_eq!((head.status, head.field("Throng-Cursor")), (200, Some(&*cursor)));
    assert_eq!(head.field("Content-Length"), None, "a GET would send more");
    peer.send(plain("/topics/t").bytes());
    assert_eq!(peer.answer().status, 200, "the connection goes on");
}
