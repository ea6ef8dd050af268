//! Clients of Centrifugo's protocol that break its rules: each gets the documented error or disconnect, and leaves nothing
//! behind.
#![cfg(feature = "centrifugo")]

#[path = "support/site.rs"]
mod site;
mod support;

use serde_json::{Value, json};
use site::{Nothing, Site};
use support::*;
use throng::{Centrifugo, Server};

impl Site {
    fn start(with: fn(Centrifugo<Nothing>) -> Centrifugo<Nothing>) -> Self {
        let server = Server::new().workers(3).client_publish(true).presence(true).join_leave(true);
        Self::run(server, move || with(Centrifugo::new(Nothing).api_insecure(true)))
    }

    fn open(&self, query: &str) -> Raw {
        let mut raw = Raw::connect(self.address);
        raw.send(upgrade().line(format!("GET /connection/websocket{query} HTTP/1.1")).bytes());
        assert_eq!(raw.head().status, 101);
        raw
    }

    /// Connected, and subscribed to a channel with everything that there is to it.
    fn settled(&self) -> Raw {
        let mut raw = self.open("");
        let (connect, subscribe) =
            (r#"{"id":1,"connect":{}}"#, r#"{"id":2,"subscribe":{"channel":"t","join_leave":true}}"#);
        raw.send(text(format!("{connect}\n{subscribe}\n")).bytes());
        while !hear(&mut raw).contains("\"join\"") {}
        raw
    }

    fn api(&self, method: &str, body: &Value) -> Value {
        let (mut peer, body) = (Raw::connect(self.address), body.to_string());
        peer.send(format!(
            "POST /api/{method} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        serde_json::from_slice::<Value>(&peer.answer().body).expect("JSON")["result"].take()
    }

    /// Nobody is there, in no place where somebody was.
    #[track_caller]
    fn is_empty(&self) {
        eventually("nobody is left", PATIENCE, || {
            let node = self.api("info", &json!({}))["nodes"][0].take();
            self.handle.connections() == 0
                && ["num_clients", "num_subs", "num_channels"].iter().all(|count| node[count] == 0)
                && self.api("presence_stats", &json!({"channel": "t"})) == json!({"num_clients": 0, "num_users": 0})
        });
        assert!(self.handle.metrics().lines().any(|line| line == "throng_panics_total 0"), "{}", self.handle.metrics());
    }
}

fn hear(raw: &mut Raw) -> String {
    String::from_utf8(raw.frame().payload).expect("text")
}

fn is_push(payload: &[u8]) -> bool {
    payload.starts_with(br#"{"push":"#)
}

/// The next frame that is meant for this session alone.
fn next_but_pushes(raw: &mut Raw) -> Received {
    loop {
        let frame = raw.frame();
        if !is_push(&frame.payload) {
            return frame;
        }
    }
}

#[test]
fn whatever_comes_before_the_connect_ends_the_session() {
    let site = Site::start(|service| service);
    for command in [
        "{}",
        r#"{"id":1,"ping":{}}"#,
        r#"{"id":1,"subscribe":{"channel":"t"}}"#,
        r#"{"id":1,"publish":{"channel":"t","data":1}}"#,
        r#"{"id":1,"rpc":{"method":"m"}}"#,
        r#"{"send":{"data":1}}"#,
        r#"{"id":1,"unknown":{}}"#,
        r#"{"id":1,"connect":{"token":1}}"#,
        "nonsense",
    ] {
        let mut raw = site.open("");
        raw.send(text(command).bytes());
        assert_eq!(raw.expect_close(3501), "bad request", "{command}");
    }
    site.is_empty();
}

#[test]
fn what_is_malformed_ends_the_session() {
    let site = Site::start(|service| service);
    let long = format!(r#"{{"id":3,"rpc":{{"data":"{}"}}}}"#, "x".repeat(64 * 1024 - 100));
    for command in [
        "{",
        "[]",
        "null",
        "1",
        r#"{"id":3}"#,
        r#"{"id":3,"nothing":{}}"#,
        r#"{"id":"3","ping":{}}"#,
        r#"{"id":-3,"ping":{}}"#,
        r#"{"id":4294967296,"ping":{}}"#,
        r#"{"id":3,"connect":{}}"#,
        r#"{"id":3,"subscribe":{"channel":7}}"#,
        r#"{"id":3,"subscribe":{}}"#,
        r#"{"id":3,"unsubscribe":{"channel":""}}"#,
        r#"{"id":3,"publish":{"channel":"t"}}"#,
        r#"{"id":3,"publish":{"channel":"","data":1}}"#,
        r#"{"id":3,"history":{"channel":"t","limit":"all"}}"#,
        r#"{"id":3,"presence":{}}"#,
        "{\"id\":3,\"ping\":{}}\n\n{\"id\":4,\"ping\":{}}",
        &*format!("{{\"id\":3,\"ping\":{{}}}}\n{}", "{".repeat(60_000)),
    ] {
        let mut raw = site.settled();
        raw.send(text(command).bytes());
        loop {
            let frame = raw.frame();
            if frame.opcode == CLOSE {
                assert_eq!(frame.payload, [&3501_u16.to_be_bytes()[..], b"bad request"].concat(), "{command:.60}");
                break;
            }
            // Commands before the one that is wrong are answered; the session before this one may be seen to leave.
            if !is_push(&frame.payload) {
                assert_eq!(frame.payload, br#"{"id":3,"ping":{}}"#, "{command:.60}");
            }
        }
    }
    // What is too long for a message is so by the WebSocket's rules, and what just fits is a command.
    let mut raw = site.settled();
    raw.send(text(&long).bytes());
    let said = String::from_utf8(next_but_pushes(&mut raw).payload).expect("text");
    assert!(said.contains("\"code\":108"), "{said}");
    raw.send(text("x".repeat(64 * 1024 + 1)).bytes());
    assert_eq!(next_but_pushes(&mut raw).payload[..2], 1009_u16.to_be_bytes());
    drop(raw);
    let mut raw = site.settled();
    raw.send(text(b"{\"id\":3,\"rpc\":{\"data\":\"\xff\"}}").bytes());
    assert_eq!(next_but_pushes(&mut raw).payload[..2], 1007_u16.to_be_bytes());
    drop(raw);
    for bytes in
        [&b"\x05"[..], b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x02\xff\xff", b"\x02\x08\x03", b"\x80"]
    {
        let mut raw = site.open("?format=protobuf");
        raw.send(frame(BINARY, [4, 0x08, 1, 0x22, 0]).bytes());
        assert_eq!(raw.frame().opcode, BINARY);
        raw.send(frame(BINARY, bytes).bytes());
        raw.expect_close(3501);
    }
    site.is_empty();
}

#[test]
fn what_cannot_be_done_is_an_error_and_the_session_goes_on() {
    let site = Site::start(|service| service);
    let mut raw = site.settled();
    let (longest, longer) = ("x".repeat(255), "x".repeat(256));
    let fits = json!({"id": 3, "publish": {"channel": longest, "data": 1}});
    raw.send(text(fits.to_string()).bytes());
    assert_eq!(hear(&mut raw), r#"{"id":3,"publish":{}}"#);
    let deep = format!("{}1{}", "[".repeat(129), "]".repeat(129));
    let deep = serde_json::value::RawValue::from_string(deep).expect("JSON");
    for (command, code) in [
        (json!({"subscribe": {"channel": longer}}).to_string(), 107),
        (json!({"publish": {"channel": longer, "data": 1}}).to_string(), 107),
        (json!({"history": {"channel": longer}}).to_string(), 107),
        (json!({"presence": {"channel": longer}}).to_string(), 107),
        (json!({"presence_stats": {"channel": "with space"}}).to_string(), 107),
        (json!({"sub_refresh": {"channel": longer, "token": "x"}}).to_string(), 103),
        (json!({"subscribe": {"channel": "t"}}).to_string(), 105),
        (json!({"subscribe": {"channel": "u", "type": 1}}).to_string(), 103),
        (json!({"subscribe": {"channel": "u", "tf": {}}}).to_string(), 107),
        (json!({"rpc": {"method": "m"}}).to_string(), 108),
        (json!({"refresh": {"token": "x"}}).to_string(), 108),
        (format!("{{\"publish\":{{\"channel\":\"t\",\"data\":{deep}}}}}"), 107),
    ] {
        raw.send(text(command.replacen('{', "{\"id\":9,", 1)).bytes());
        let said: Value = serde_json::from_str(&hear(&mut raw)).expect("JSON");
        assert_eq!((&said["id"], &said["error"]["code"]), (&json!(9), &json!(code)), "{command:.60}: {said}");
    }
    raw.send(text(r#"{"send":{"data":1}}"#).bytes());
    assert_eq!(raw.expect_close(3508), "not available");
    drop(raw);
    site.is_empty();
}

#[test]
fn a_flood_is_held_back_and_then_ended() {
    let site = Site::start(|service| service.command_rate(1.try_into().expect("not 0"), 30.try_into().expect("not 0")));
    let mut raw = site.settled();
    let ping = "{\"id\":3,\"ping\":{}}\n";
    raw.send(text(ping.repeat(40)).bytes());
    let said = hear(&mut raw);
    let (done, refused) = (said.matches("\"ping\":{}").count(), said.matches("\"code\":111").count());
    // As many seconds as there were between the first command and these have let as many more through.
    assert!((29..35).contains(&done) && done + refused == 40, "{done} and {refused}: {said}");
    raw.send(text(ping.repeat(40)).bytes());
    loop {
        let frame = raw.frame();
        if frame.opcode == CLOSE {
            assert_eq!(frame.payload, [&3013_u16.to_be_bytes()[..], b"too many requests"].concat());
            break;
        }
        assert!(!String::from_utf8(frame.payload).expect("text").contains("\"ping\":{}"));
    }
    drop(raw);
    site.is_empty();
}

/// Whatever is cut off, wherever: nobody stays behind, and others are served.
#[test]
fn a_crowd_that_breaks_off_leaves_nothing_behind() {
    let site = Site::start(|service| service);
    let script = concat!(
        r#"{"id":1,"connect":{}}"#,
        "\n",
        r#"{"id":2,"subscribe":{"channel":"t","join_leave":true,"recover":true}}"#,
        "\n",
        r#"{"id":3,"publish":{"channel":"t","data":{"a":1}}}"#,
        "\n",
        r#"{"id":4,"history":{"channel":"t","limit":10}}"#,
        "\n",
        r#"{"id":5,"unsubscribe":{"channel":"t"}}"#,
        "\n",
        r#"{"id":6,"presence":{"channel":"t"}}"#,
    );
    for cut in (0..script.len()).step_by(3) {
        let mut raw = site.open("");
        raw.send(text(&script[..cut]).bytes());
        match cut % 2 {
            0 => raw.reset(),
            _ => drop(raw),
        }
    }
    site.is_empty();
    let mut raw = site.settled();
    raw.send(text(r#"{"id":3,"ping":{}}"#).bytes());
    assert_eq!(hear(&mut raw), r#"{"id":3,"ping":{}}"#);
}
