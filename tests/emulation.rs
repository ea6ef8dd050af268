//! Centrifugo's HTTP fallbacks over raw sockets: sessions whose replies are a response that goes on, and whose commands
//! come by requests of their own.
#![cfg(feature = "cli")] // There is no binary without it.

mod support;

use base64::engine::{Engine, general_purpose::URL_SAFE_NO_PAD};
use std::collections::HashSet;
use support::*;
use throng::{Centrifugo, Connection, Decision, Message, Request, Response, Server, Service};

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/octet-stream";
const CONNECT: &str = r#"{"id":1,"connect":{}}"#;

fn start(options: &str) -> Throng {
    Throng::start(&format!("--workers 4 --client-publish {options}"))
}

fn request(method: &str, target: &str, content_type: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// Text as a query has it.
fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Text as a JSON string.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let rest = text.split_once(before).unwrap_or_else(|| panic!("no {before} in {text}")).1;
    rest.split_once(after).unwrap_or_else(|| panic!("no {after} in {rest}")).0
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    HttpStream,
    Events,
    /// The event stream of a client that can POST.
    PostedEvents,
}

const TRANSPORTS: [Transport; 3] = [Transport::HttpStream, Transport::Events, Transport::PostedEvents];

/// A client that speaks JSON.
struct Client {
    raw: Raw,
    transport: Transport,
    id: String,
    session: String,
    node: String,
    commands: u32,
}

impl Client {
    #[track_caller]
    fn begin(raw: Raw, transport: Transport, commands: &str) -> (Self, support::Response) {
        let mut raw = raw;
        raw.send(match transport {
            Transport::HttpStream => request("POST", "/connection/http_stream", JSON, commands.as_bytes()),
            Transport::PostedEvents => request("POST", "/connection/sse", JSON, commands.as_bytes()),
            Transport::Events => plain(&format!("/connection/sse?cf_connect={}", escaped(commands))).bytes(),
        });
        let head = raw.head();
        let (id, session, node) = Default::default();
        let mut client = Self { raw, transport, id, session, node, commands: 1 };
        if transport != Transport::HttpStream && head.status == 200 {
            assert_eq!(client.raw.chunk(), b":\n\n", "something comes at once");
        }
        (client, head)
    }

    #[track_caller]
    fn connect(server: &Throng, transport: Transport) -> Self {
        let (mut client, head) = Self::begin(server.connect(), transport, CONNECT);
        assert_eq!(head.status, 200, "{head:?}");
        let connected = client.hear();
        client.id = between(&connected, "\"client\":\"", "\"").to_owned();
        client.session = between(&connected, "\"session\":\"", "\"").to_owned();
        client.node = between(&connected, "\"node\":\"", "\"").to_owned();
        client
    }

    /// The replies of one chunk, which are whole.
    #[track_caller]
    fn hear_all(&mut self) -> Vec<String> {
        let chunk = untimed(&String::from_utf8(self.raw.chunk()).unwrap());
        if chunk.is_empty() {
            return Vec::new();
        }
        let (before, after) = if self.transport == Transport::HttpStream { ("", "\n") } else { ("data: ", "\n\n") };
        let replies = chunk.strip_suffix(after).unwrap_or_else(|| panic!("cut: {chunk:?}")).split(after);
        replies.map(|reply| reply.strip_prefix(before).expect("a reply").to_owned()).collect()
    }

    /// The one reply of a chunk.
    #[track_caller]
    fn hear(&mut self) -> String {
        let mut replies = self.hear_all();
        assert_eq!(replies.len(), 1, "{replies:?}");
        replies.remove(0)
    }

    fn envelope(&self, commands: &str) -> String {
        let Self { session, node, .. } = self;
        format!(r#"{{"session":"{session}","node":"{node}","data":{}}}"#, quoted(commands))
    }

    #[track_caller]
    fn say_by(&mut self, raw: &mut Raw, method: &str, params: &str) {
        self.commands += 1;
        let commands = format!("{{\"id\":{},\"{method}\":{params}}}", self.commands);
        raw.send(request("POST", "/emulation", JSON, self.envelope(&commands).as_bytes()));
        assert_eq!(raw.answer().status, 204);
    }

    /// The reply to a command, without what stands around it.
    #[track_caller]
    fn ask(&mut self, server: &Throng, method: &str, params: &str) -> String {
        self.say_by(&mut server.connect(), method, params);
        let reply = self.hear();
        let head = format!("{{\"id\":{},\"", self.commands);
        reply
            .strip_prefix(&head)
            .and_then(|rest| rest.strip_suffix('}'))
            .unwrap_or_else(|| panic!("{reply}"))
            .to_owned()
    }

    /// Disconnected with this code and reason, and then nothing.
    #[track_caller]
    fn expect_end(&mut self, code: u16, reason: &str) {
        assert_eq!(self.hear(), format!(r#"{{"push":{{"disconnect":{{"code":{code},"reason":"{reason}"}}}}}}"#));
        assert!(self.hear_all().is_empty(), "the last chunk");
        self.raw.expect_eof();
    }
}

fn publish(server: &Throng, topic: &str, body: &str) {
    let mut peer = server.connect();
    peer.send(request("POST", &format!("/topics/{topic}"), JSON, body.as_bytes()));
    assert_eq!(peer.answer().status, 200);
}

/// What `/emulation` answers to this body.
fn emulate(server: &Throng, content_type: &str, body: impl AsRef<[u8]>) -> u16 {
    let mut peer = server.connect();
    peer.send(request("POST", "/emulation", content_type, body.as_ref()));
    peer.answer().status
}

#[test]
fn a_session_takes_its_first_commands_with_the_request_and_the_others_from_anywhere() {
    let server = start("");
    for transport in TRANSPORTS {
        let first = format!("{CONNECT}\n{{\"id\":2,\"subscribe\":{{\"channel\":\"news\",\"recoverable\":true}}}}");
        let (mut client, head) = Client::begin(server.connect(), transport, &first);
        assert_eq!(head.status, 200);
        let media_type = if transport == Transport::HttpStream { "application/x-ndjson" } else { "text/event-stream" };
        for (name, value) in [
            ("Content-Type", media_type),
            ("Transfer-Encoding", "chunked"),
            ("Connection", "close"),
            ("Cache-Control", "no-store, no-transform"),
            ("X-Accel-Buffering", "no"),
        ] {
            assert_eq!(head.field(name), Some(value), "{transport:?}");
        }
        assert_eq!(head.field("Content-Length"), None);
        let connected = client.hear();
        assert!(
            connected.starts_with(r#"{"id":1,"connect":{"client":""#) && connected.contains(r#""ping":25,"pong":true"#)
        );
        assert!(client.hear().starts_with(r#"{"id":2,"subscribe":{"recoverable":true,"epoch":""#));
    }
    let mut clients = TRANSPORTS.map(|transport| Client::connect(&server, transport));
    for client in &mut clients {
        // So many connections are not all with the session's worker.
        let mut peers: Vec<Raw> = (0..16).map(|_| server.connect()).collect();
        for round in 0..2 {
            for peer in &mut peers {
                client.say_by(peer, "ping", "{}");
                assert_eq!(client.hear(), format!("{{\"id\":{},\"ping\":{{}}}}", client.commands), "{round}");
            }
        }
    }
    let sessions: HashSet<_> = clients.iter().map(|client| &client.session).collect();
    let nodes: HashSet<_> = clients.iter().map(|client| &client.node).collect();
    assert_eq!((sessions.len(), nodes.len()), (3, 1));
    let other = Client::connect(&start(""), Transport::HttpStream);
    assert_ne!(other.node, clients[0].node, "another process is another node");
}

#[test]
fn a_publication_is_one_chunk_and_reaches_all_kinds_of_clients() {
    let server = start("");
    let mut bare = server.connect();
    bare.send(upgrade().line("GET /topics/t HTTP/1.1").bytes());
    assert_eq!(bare.head().status, 101);
    let mut clients = TRANSPORTS.map(|transport| Client::connect(&server, transport));
    for client in &mut clients {
        assert!(client.ask(&server, "subscribe", r#"{"channel":"t","recoverable":true}"#).starts_with("subscribe\":{"));
    }
    for (offset, data) in ["1", "\"zażółć 🐢\"", r#"{"a":"\n\n"}"#].into_iter().enumerate() {
        publish(&server, "t", data);
        bare.expect(TEXT, data);
        let push = format!(r#"{{"push":{{"channel":"t","pub":{{"data":{data},"offset":{}}}}}}}"#, offset + 1);
        clients.iter_mut().for_each(|client| assert_eq!(client.hear(), push));
    }
    // Far more than a socket takes at once.
    let large = quoted(&"x".repeat(60_000));
    (0..20).for_each(|_| publish(&server, "t", &large));
    for client in &mut clients {
        for offset in 4..24 {
            let push = format!(r#"{{"push":{{"channel":"t","pub":{{"data":{large},"offset":{offset}}}}}}}"#);
            assert!(client.hear() == push, "{offset}");
        }
    }
    let info = format!(r#""info":{{"user":"","client":"{}"}}"#, clients[0].id);
    clients[0].say_by(&mut server.connect(), "publish", r#"{"channel":"t","data":[2]}"#);
    let push = format!(r#"{{"push":{{"channel":"t","pub":{{"data":[2],{info},"offset":24}}}}}}"#);
    let mut own = [clients[0].hear(), clients[0].hear()];
    own.sort();
    assert_eq!(own, [r#"{"id":3,"publish":{}}"#.to_owned(), push.clone()]);
    assert_eq!(clients[1].hear(), push);
}

/// A field with a length (its wire type is 2) of a message; the fields in front of it have one too, or are a varint.
fn field(mut message: &[u8], number: u8) -> Option<&[u8]> {
    let varint = |bytes: &mut &[u8]| {
        let (mut value, mut shift) = (0_usize, 0);
        while let Some((&byte, rest)) = bytes.split_first() {
            *bytes = rest;
            value |= usize::from(byte & 0x7F) << shift;
            shift += 7;
            if byte < 0x80 {
                break;
            }
        }
        value
    };
    while !message.is_empty() {
        let key = varint(&mut message);
        let length = varint(&mut message);
        if key % 8 == 2 {
            let (value, rest) = message.split_at(length);
            if key / 8 == usize::from(number) {
                return Some(value);
            }
            message = rest;
        }
    }
    None
}

/// A field of that number, shorter than 128 bytes.
fn with_length(number: u8, value: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, value.len() as u8][..], value].concat()
}

/// One command or reply, behind its length.
fn delimited(message: &[u8]) -> Vec<u8> {
    [&[message.len() as u8][..], message].concat()
}

#[test]
fn protobuf_goes_both_ways() {
    let server = start("");
    let mut raw = server.connect();
    // Command { id: 1, connect: 4, subscribe: 5 { channel: 1 }, ping: 14 }, as client.proto numbers them.
    let connect = delimited(b"\x08\x01\x22\x00");
    raw.send(request("POST", "/connection/http_stream", PROTOBUF, &connect));
    let head = raw.head();
    assert_eq!((head.status, head.field("Content-Type")), (200, Some(PROTOBUF)));
    let hear = |raw: &mut Raw| {
        let chunk = raw.chunk();
        assert!(usize::from(chunk[0]) == chunk.len() - 1 || chunk[0] >= 0x80, "one whole reply");
        chunk[if chunk[0] >= 0x80 { 2 } else { 1 }..].to_vec()
    };
    let connected = hear(&mut raw);
    // Reply { id: 1, connect: 5 { session: 9, node: 10 } }
    let result = field(&connected, 5).expect("connect");
    let (session, node) = (field(result, 9).expect("session"), field(result, 10).expect("node"));
    let envelope =
        |command: &[u8]| [with_length(1, node), with_length(2, session), with_length(3, &delimited(command))].concat();
    let subscribe = [&b"\x08\x02"[..], &with_length(5, &with_length(1, b"t"))].concat();
    assert_eq!(emulate(&server, PROTOBUF, envelope(&subscribe)), 204);
    let subscribed = hear(&mut raw);
    assert!(subscribed.starts_with(b"\x08\x02") && field(&subscribed, 6).is_some(), "{}", subscribed.escape_ascii());
    let mut peer = server.connect();
    peer.send(request("POST", "/topics/t", PROTOBUF, b"\xFF\0\n"));
    assert_eq!(peer.answer().status, 200);
    // Reply { push: 4 { channel: 2, pub: 4 { data: 4 } } }
    let push = hear(&mut raw);
    let push = field(&push, 4).expect("a push");
    assert_eq!(field(push, 2), Some(&b"t"[..]));
    assert_eq!(field(field(push, 4).expect("a publication"), 4), Some(&b"\xFF\0\n"[..]));
    // What is no command ends it: JSON is none.
    assert_eq!(
        emulate(&server, PROTOBUF, [with_length(1, node), with_length(2, session), with_length(3, b"{}")].concat()),
        204
    );
    let last = hear(&mut raw);
    assert!(last.windows(11).any(|window| window == b"bad request"), "{}", last.escape_ascii());
    assert_eq!(raw.chunk(), b"");
    raw.expect_eof();
}

#[test]
fn a_forged_session_is_nobodys() {
    let server = start("");
    let mut client = Client::connect(&server, Transport::HttpStream);
    let bytes = URL_SAFE_NO_PAD.decode(&client.session).unwrap();
    let ping = r#"{"id":9,"ping":{}}"#;
    let envelope = |session: &str, node: &str| {
        format!(r#"{{"session":{},"node":{},"data":{}}}"#, quoted(session), quoted(node), quoted(ping))
    };
    // Worker, slot, generation, random bits: another one of each is another session, or none.
    for at in 0..bytes.len() {
        for bit in [0, 7] {
            let mut forged = bytes.clone();
            forged[at] ^= 1 << bit;
            let forged = URL_SAFE_NO_PAD.encode(forged);
            assert_eq!(emulate(&server, JSON, envelope(&forged, &client.node)), 404, "byte {at}, bit {bit}");
        }
    }
    let (session, node) = (&client.session, &client.node);
    for forged in ["", "?", "not base64 at all!", &session[..39], &format!("{session}A"), &session.replace('A', "=")] {
        assert_eq!(emulate(&server, JSON, envelope(forged, node)), 404, "{forged:?}");
    }
    for forged in ["", "0", &node[1..], &format!("{node}0")] {
        assert_eq!(emulate(&server, JSON, envelope(session, forged)), 404, "{forged:?}");
    }
    // A WebSocket has none; its connection is nobody's to write to.
    let mut websocket = server.connect();
    websocket.send(upgrade().line("GET /connection/websocket HTTP/1.1").bytes());
    assert_eq!(websocket.head().status, 101);
    for (worker, slot, serial) in (0..5).flat_map(|w| (0..4).flat_map(move |s| (0..8).map(move |n| (w, s, n)))) {
        let forged = [&[0, worker, 0, 0, 0, slot, 0, 0, 0, 0, 0, 0, 0, serial][..], &[0; 16]].concat();
        assert_eq!(emulate(&server, JSON, envelope(&URL_SAFE_NO_PAD.encode(forged), node)), 404);
    }
    assert_eq!(emulate(&server, JSON, envelope(session, node)), 204);
    assert_eq!(client.hear(), r#"{"id":9,"ping":{}}"#, "and nothing else came of all this");
    // Whose stream has ended has no session any more.
    let (session, node) = (client.session.clone(), client.node.clone());
    client.raw.reset();
    eventually("it is gone", PATIENCE, || emulate(&server, JSON, envelope(&session, &node)) == 404);
}

#[test]
fn what_is_no_command_is_said_to_be_none() {
    let server = start("--max-message 1000000 --allow-origin https://app.test");
    let mut client = Client::connect(&server, Transport::Events);
    for (body, status) in [
        ("", 400),
        ("[]", 400),
        ("{}", 400),
        (r#"{"session":1,"node":2,"data":3}"#, 400),
        (r#"{"session":"a","node":"b","data":{}}"#, 400),
        (r#"{"session":"a","node":"b","data":"{}"}"#, 404),
    ] {
        assert_eq!(emulate(&server, JSON, body), status, "{body}");
    }
    assert_eq!(emulate(&server, PROTOBUF, b"\x0a\x05n"), 400);
    let large = |bytes: usize| {
        let around = client.envelope("").len();
        client.envelope(&" ".repeat(bytes - around))
    };
    assert_eq!(emulate(&server, JSON, large(64 * 1024 + 1)), 413);
    assert_eq!(emulate(&start(""), JSON, large(64 * 1024 + 1)), 413, "whatever a message may be");
    for target in ["/connection/http_stream", "/connection/sse"] {
        let mut peer = server.connect();
        peer.send(request("POST", target, JSON, &[b' '; 64 * 1024 + 1]));
        assert_eq!(peer.answer().status, 413);
    }
    for (method, target, status) in [
        ("GET", "/connection/http_stream", 405),
        ("PUT", "/connection/sse", 405),
        ("GET", "/emulation", 405),
        ("GET", "/connection/sse", 400),
        ("GET", "/connection/sse?cf_connect=", 400),
        ("GET", "/connection/sse?cf_connect=%7", 400),
        ("GET", "/connection/sse?cf_connect=a&cf_connect=b", 400),
    ] {
        let mut peer = server.connect();
        peer.send(request(method, target, JSON, b""));
        let answer = peer.answer();
        assert_eq!(
            (answer.status, answer.problem()["status"].as_str()),
            (status, &*status.to_string()),
            "{method} {target}"
        );
        assert_eq!(answer.field("Allow").is_some(), status == 405);
    }
    // Commands that are wrong are the session's to complain about.
    assert_eq!(emulate(&server, JSON, client.envelope("no JSON")), 204);
    client.expect_end(3501, "bad request");
    for transport in TRANSPORTS {
        let (mut client, head) = Client::begin(server.connect(), transport, r#"{"id":1,"subscribe":{"channel":"a"}}"#);
        assert_eq!(head.status, 200);
        client.expect_end(3501, "bad request");
    }
}

#[test]
fn pages_of_other_origins_are_let_in_if_they_are_allowed() {
    let server = start("--allow-origin https://app.test");
    let ask = |method: &str, target: &str, origin: &str, body: &str| {
        let mut peer = server.connect();
        let length = body.len();
        peer.send(format!(
            "{method} {target} HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\nContent-Length: {length}\r\n\r\n{body}"
        ));
        (peer.head(), peer)
    };
    for target in ["/connection/http_stream", "/connection/sse", "/emulation"] {
        let (preflight, _) = ask("OPTIONS", target, "https://app.test", "");
        assert_eq!(preflight.status, 204);
        assert_eq!(preflight.field("Access-Control-Allow-Origin"), Some("https://app.test"));
        assert!(preflight.lists("Access-Control-Allow-Methods", "POST"), "{preflight:?}");
        assert!(preflight.lists("Access-Control-Allow-Headers", "Content-Type"));
        for method in ["OPTIONS", "POST"] {
            let (refused, _) = ask(method, target, "https://evil.test", CONNECT);
            assert_eq!((refused.status, refused.field("Access-Control-Allow-Origin")), (403, None));
        }
    }
    for target in ["/connection/http_stream", "/connection/sse"] {
        let (begun, _peer) = ask("POST", target, "https://app.test", CONNECT);
        assert_eq!((begun.status, begun.field("Access-Control-Allow-Origin")), (200, Some("https://app.test")));
        assert!(begun.lists("Vary", "Origin"));
    }
    // An image of a page, say, has no Origin.
    for (site, status) in [("same-origin", 200), ("none", 200), ("same-site", 403), ("cross-site", 403)] {
        let mut peer = server.connect();
        let target = format!("/connection/sse?cf_connect={}", escaped(CONNECT));
        peer.send(plain(&target).with(format!("Sec-Fetch-Site: {site}")).bytes());
        assert_eq!(peer.head().status, status, "{site}");
    }
    let (unknown, _) = ask("POST", "/emulation", "https://app.test", r#"{"session":"a","node":"b","data":"{}"}"#);
    assert_eq!((unknown.status, unknown.field("Access-Control-Allow-Origin")), (404, Some("https://app.test")));
}

#[test]
fn without_chunks_the_body_ends_with_the_connection() {
    let server = start("--drain 0.2 --presence");
    let mut streams: Vec<(Raw, &str)> = Vec::new();
    for (target, after) in [("/connection/http_stream", "\n"), ("/connection/sse", "\n\n")] {
        let mut raw = server.connect();
        let (length, subscribe) = (CONNECT.len(), r#"{"id":2,"subscribe":{"channel":"t"}}"#);
        let length = length + 1 + subscribe.len();
        raw.send(format!("POST {target} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{CONNECT}\n{subscribe}"));
        let head = raw.head();
        assert_eq!((head.status, head.field("Transfer-Encoding")), (200, None));
        assert_eq!(head.field("Connection"), Some("close"));
        streams.push((raw, after));
    }
    let mut watcher = Client::connect(&server, Transport::HttpStream);
    watcher.ask(&server, "subscribe", r#"{"channel":"t"}"#);
    eventually("all have subscribed", PATIENCE, || {
        watcher.ask(&server, "presence_stats", r#"{"channel":"t"}"#).contains("\"num_clients\":3")
    });
    publish(&server, "t", "7");
    assert!(watcher.hear().contains("\"data\":7"));
    server.signal("TERM");
    watcher.expect_end(3001, "shutdown");
    for (mut raw, after) in streams {
        let body = String::from_utf8(raw.rest()).unwrap();
        let body = body.strip_prefix(":\n\n").unwrap_or(&body);
        let replies: Vec<_> = body.strip_suffix(after).expect("a whole reply").split(after).collect();
        let says = |at: usize, what: &str| assert!(replies[at].contains(what), "{replies:?}");
        says(0, "\"id\":1,\"connect\":");
        says(1, "\"id\":2,\"subscribe\":");
        says(2, "\"pub\":{\"data\":7");
        says(3, r#"{"push":{"disconnect":{"code":3001,"reason":"shutdown"}}}"#);
        assert_eq!(replies.len(), 4);
    }
}

#[test]
fn who_was_away_comes_back_to_where_it_was() {
    let server = start("");
    for transport in TRANSPORTS {
        let topic = format!("{transport:?}");
        let mut client = Client::connect(&server, transport);
        let subscribe = format!("{{\"channel\":\"{topic}\",\"recoverable\":true}}");
        let epoch = between(&client.ask(&server, "subscribe", &subscribe), "\"epoch\":\"", "\"").to_owned();
        client.raw.reset();
        let body = quoted(&"x".repeat(5000));
        (0..20).for_each(|_| publish(&server, &topic, &body));
        let recover = format!("{{\"channel\":\"{topic}\",\"recover\":true,\"epoch\":\"{epoch}\",\"offset\":0}}");
        let first = format!("{CONNECT}\n{{\"id\":2,\"subscribe\":{recover}}}");
        let (mut client, _) = Client::begin(server.connect(), transport, &first);
        client.hear();
        let reply = client.hear();
        assert!(reply.contains("\"recovered\":true"));
        let mut offsets: Vec<u64> =
            reply.split("\"offset\":").skip(1).filter_map(|rest| rest.split('}').next()?.parse().ok()).collect();
        while offsets.len() < 20 {
            offsets.push(between(&client.hear(), "\"offset\":", "}").parse().unwrap());
        }
        assert_eq!(offsets, (1..=20).collect::<Vec<_>>());
    }
}

#[test]
fn a_slow_session_is_disconnected_or_subscribes_again() {
    for (slow, transport) in [("disconnect", Transport::HttpStream), ("skip", Transport::Events)] {
        let server = start(&format!("--history-size 4 --slow {slow}"));
        let mut client = Client::connect(&server, transport);
        client.ask(&server, "subscribe", r#"{"channel":"t"}"#);
        let body = quoted(&"x".repeat(60_000));
        (0..200).for_each(|_| publish(&server, "t", &body));
        let mut offset = 0;
        loop {
            let push = client.hear();
            if slow == "disconnect" && push.contains("\"disconnect\"") {
                assert_eq!(push, r#"{"push":{"disconnect":{"code":3008,"reason":"slow"}}}"#);
                assert!(client.hear_all().is_empty());
                client.raw.expect_eof();
                break;
            }
            if slow == "skip" && push.contains("\"unsubscribe\"") {
                assert_eq!(between(&push, "\"code\":", ","), "2500");
                let again = client.ask(&server, "subscribe", r#"{"channel":"t","recoverable":true}"#);
                assert!(again.contains("\"offset\":200"));
                break;
            }
            let next: u64 = between(&push, "\"offset\":", "}").parse().unwrap();
            assert_eq!(next, offset + 1);
            offset = next;
        }
    }
}

#[test]
fn a_stream_that_its_client_closes_is_the_end_of_its_session() {
    let server = start("--presence --join-leave");
    let mut host = Client::connect(&server, Transport::HttpStream);
    host.ask(&server, "subscribe", r#"{"channel":"t","join_leave":true}"#);
    assert!(host.hear().contains("\"join\""), "its own");
    for (round, transport) in TRANSPORTS.into_iter().cycle().take(9).enumerate() {
        let mut guest = Client::connect(&server, transport);
        guest.ask(&server, "subscribe", r#"{"channel":"t"}"#);
        assert!(host.hear().contains(&format!("\"join\":{{\"info\":{{\"user\":\"\",\"client\":\"{}\"", guest.id)));
        let stats = host.ask(&server, "presence_stats", r#"{"channel":"t"}"#);
        assert_eq!(stats, "presence_stats\":{\"num_clients\":2,\"num_users\":1}");
        let id = std::mem::take(&mut guest.id);
        if round % 2 == 0 {
            guest.raw.reset();
        } else {
            drop(guest);
        }
        assert!(host.hear().contains(&format!("\"leave\":{{\"info\":{{\"user\":\"\",\"client\":\"{id}\"")));
    }
}

#[test]
fn hundreds_of_sessions_leave_nothing_behind() {
    let server = Throng::start("--workers 1 --api-insecure");
    let cycle = |count: usize| {
        for round in 0..count {
            let mut client = Client::connect(&server, TRANSPORTS[round % 3]);
            client.ask(&server, "subscribe", r#"{"channel":"t","recoverable":true}"#);
            match round % 3 {
                0 => client.raw.reset(),
                1 => drop(client),
                _ => {
                    assert_eq!(emulate(&server, JSON, client.envelope("{")), 204);
                    client.expect_end(3501, "bad request");
                }
            }
        }
        server.until_connections(1.0..=1.0, PATIENCE);
    };
    // What is remembered of the latest that ended is meant to stay, and is bounded.
    let remembered = || server.metric("throng_memory_bytes{purpose=\"recent_closes\"}") as u64;
    cycle(200);
    let before = server.resident_bytes() - remembered();
    cycle(1600);
    // A session that is left behind with its subscription would be 200 bytes at least.
    let after = server.resident_bytes() - remembered();
    assert!(after < before + 256 * 1024, "from {before} to {after} bytes");
    let mut peer = server.connect();
    peer.send(request("POST", "/api/channels", JSON, b"{}"));
    assert_eq!(peer.answer().body, b"{\"result\":{\"channels\":{}}}\n");
    assert_eq!(server.metric("throng_panics_total"), 0.0);
    // Its own timer is that of the connection that asks.
    eventually("no timer is left", PATIENCE, || server.metric("throng_timers") <= 1.0);
}

struct Nothing;

impl Service for Nothing {
    type State = ();

    fn open(&mut self, _: &Request<'_>) -> Decision<()> {
        Response::refuse(404, "nothing").into()
    }

    fn message(&mut self, _: &mut Connection<'_, ()>, _: Message<'_>) {}

    fn request(&mut self, _: &Request<'_>) -> throng::Answer {
        Response::new(410).into()
    }
}

#[test]
fn a_fallback_that_is_not_wanted_is_not_there() {
    for (http_stream, sse) in [(true, true), (true, false), (false, true), (false, false)] {
        let server = Server::new().listen("127.0.0.1:0".parse().unwrap()).workers(1);
        let service = move |_: &_| Centrifugo::new(Nothing).http_stream(http_stream).sse(sse);
        let running = server.start(service).unwrap();
        let (handle, address) = (running.handle(), running.addresses()[0]);
        let status = |target: &str| {
            let mut peer = Raw::connect(address);
            peer.send(request("POST", target, JSON, CONNECT.as_bytes()));
            peer.head().status
        };
        assert_eq!(status("/connection/http_stream"), if http_stream { 200 } else { 410 });
        assert_eq!(status("/connection/sse"), if sse { 200 } else { 410 });
        assert_eq!(status("/emulation"), if http_stream || sse { 400 } else { 410 });
        handle.shutdown(millis(0));
        running.wait().unwrap();
    }
}
