//! Servers that speak Centrifugo's protocol, and do with it what throng never does.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use support::strange::{Strange, linger, read_head, upgrade_to};
use support::{Outcome, load};
use throng::ws::{Opcode, encode};

/// Answers to both commands: lines of JSON, and Protobuf with lengths.
const JSON_CONNECTED: &[u8] = br#"{"id":1,"connect":{"client":"c","ping":25,"pong":true}}"#;
const JSON_SUBSCRIBED: &[u8] = br#"{"id":2,"subscribe":{"epoch":"ep","offset":3,"recoverable":true}}"#;
const PROTOBUF_CONNECTED: &[u8] = b"\x07\x08\x01\x2A\x03\x0A\x01c";
const PROTOBUF_SUBSCRIBED: &[u8] = b"\x0A\x08\x02\x32\x06\x32\x02ep\x48\x03";

/// A client that has sent its commands.
struct Client {
    stream: TcpStream,
    opcode: Opcode,
}

impl Client {
    fn take(mut stream: TcpStream, head: &str) -> Self {
        upgrade_to(&mut stream, head);
        let is_protobuf = head.contains("Sec-WebSocket-Protocol: centrifuge-protobuf\r\n");
        let mut client = Self { stream, opcode: if is_protobuf { Opcode::Binary } else { Opcode::Text } };
        let commands = client.hear();
        if is_protobuf {
            assert_eq!(commands, b"\x04\x08\x01\x22\x00\x0C\x08\x02\x2A\x08\x0A\x06load-0");
        } else {
            assert!(
                commands.starts_with(b"{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"load-0\"")
            );
        }
        client
    }

    fn new(mut stream: TcpStream) -> Self {
        let head = read_head(&mut stream);
        Self::take(stream, &head)
    }

    /// The next frame's payload, which is short; a Close is answered, and nothing comes behind it.
    fn hear(&mut self) -> Vec<u8> {
        let mut header = [0; 6];
        if self.stream.read_exact(&mut header).is_err() {
            return Vec::new();
        }
        let mut payload = vec![0; usize::from(header[1] & 0x7F)];
        self.stream.read_exact(&mut payload).unwrap();
        payload.iter_mut().zip(header[2..].iter().cycle()).for_each(|(byte, key)| *byte ^= key);
        if header[0] & 0x0F == 8 {
            self.say_as(Opcode::Close, &payload);
            payload.clear();
        }
        payload
    }

    fn say_as(&mut self, opcode: Opcode, payload: &[u8]) {
        let mut frame = Vec::new();
        encode(&mut frame, opcode, payload);
        let _ = self.stream.write_all(&frame);
    }

    fn say(&mut self, json: &[u8], protobuf: &[u8]) {
        self.say_as(self.opcode, if self.opcode == Opcode::Text { json } else { protobuf });
    }

    fn join(&mut self) {
        // In two frames, as a server may.
        self.say(JSON_CONNECTED, PROTOBUF_CONNECTED);
        self.say(JSON_SUBSCRIBED, PROTOBUF_SUBSCRIBED);
    }
}

const BOTH: [&str; 2] = ["centrifugo-json", "centrifugo-protobuf"];

fn idle(server: &Strange, transport: &str) -> Outcome {
    let fixed = ["-c", "6", "--hold", "0.5", "--open-timeout", "0.7", "--close-timeout", "0.5"];
    load(&[&["idle", &server.url, "--transport", transport], &fixed[..]].concat())
}

/// All connections ended in the same way.
#[track_caller]
fn assert_all(treat: fn(TcpStream), what: &str, reason: &str) {
    let server = Strange::new(treat);
    for transport in BOTH {
        let outcome = idle(&server, transport);
        assert_eq!(outcome.status, 3, "{}", outcome.summary);
        assert_eq!(outcome.count(&format!("connections.{what}")), 6, "{transport}: {}", outcome.summary);
        if !reason.is_empty() {
            let class = what.rsplit('.').next().unwrap();
            assert_eq!(outcome.value(&format!("connections.said.{class}")), reason, "{}", outcome.summary);
        }
    }
}

#[test]
fn every_ping_is_answered_with_a_pong() {
    let server = Strange::new(|stream| {
        let mut client = Client::new(stream);
        client.join();
        for _ in 0..3 {
            client.say(b"{}", b"\0");
            let expected: &[u8] = if client.opcode == Opcode::Text { b"{}" } else { b"\0" };
            if client.hear() != expected {
                return client.say_as(Opcode::Close, b"\x0B\xC4no pong");
            }
        }
        client.hear();
    });
    for transport in BOTH {
        let outcome = idle(&server, transport);
        outcome.assert_clean();
        assert_eq!(outcome.count("connections.pings"), 18, "{}", outcome.summary);
        assert_eq!(outcome.count("connections.farewells.answered"), 6, "{}", outcome.summary);
    }
}

#[test]
fn a_client_that_is_not_let_in_has_failed_with_the_reason() {
    assert_all(|stream| linger(&mut Client::new(stream).stream), "failures.join_timeout", "");
    assert_all(
        |stream| {
            let mut client = Client::new(stream);
            client.say(JSON_CONNECTED, PROTOBUF_CONNECTED);
            client.say(
                br#"{"id":2,"error":{"code":103,"message":"permission denied"}}"#,
                b"\x0B\x08\x02\x12\x07\x08\x67\x12\x03no!",
            );
            linger(&mut client.stream);
        },
        "failures.error_103",
        "",
    );
    let close = |stream| {
        let mut client = Client::new(stream);
        client.say_as(Opcode::Close, b"\x0D\xADbad \x1B[2Jrequest");
        linger(&mut client.stream);
    };
    // What a server says goes to a terminal.
    assert_all(close, "failures.closed_3501", "bad [2Jrequest");
    assert_all(|stream| drop(Client::new(stream)), "failures.closed_early", "");
    let nonsense = |stream| {
        let mut client = Client::new(stream);
        client.say(b"{\"id\":1,\"connect\":{}}", b"\x05\x08\x01");
        linger(&mut client.stream);
    };
    assert_all(nonsense, "failures.bad_reply", "");
}

#[test]
fn a_client_that_is_thrown_out_is_lost_with_the_reason() {
    assert_all(
        |stream| {
            let mut client = Client::new(stream);
            client.join();
            client.say(
                br#"{"push":{"channel":"load-0","unsubscribe":{"code":2500,"reason":"insufficient state"}}}"#,
                b"\x0D\x22\x0B\x3A\x09\x10\xC4\x13\x1A\x04lag!",
            );
            linger(&mut client.stream);
        },
        "losses.unsubscribed_2500",
        "",
    );
    assert_all(
        |stream| {
            let mut client = Client::new(stream);
            client.join();
            client.say_as(Opcode::Close, b"\x0B\xC0slow");
            linger(&mut client.stream);
        },
        "losses.closed_3008",
        "slow",
    );
    assert_all(
        |stream| {
            let mut client = Client::new(stream);
            client.join();
            let other = if client.opcode == Opcode::Text { Opcode::Binary } else { Opcode::Text };
            client.say_as(other, b"{}");
            linger(&mut client.stream);
        },
        "losses.violation_frame_type",
        "",
    );
    assert_all(
        |stream| {
            let mut client = Client::new(stream);
            client.join();
            client.say(b"{}\nx", b"\0\x09");
            linger(&mut client.stream);
        },
        "losses.violation_reply",
        "",
    );
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A field of bytes, in Protobuf.
fn field(key: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![key];
    varint(&mut out, value.len() as u64);
    out.extend_from_slice(value);
    out
}

/// A server that loses every tenth publication, doubles another and swaps a third with its successor.
fn careless(mut stream: TcpStream) {
    static CLIENTS: Mutex<Vec<Client>> = Mutex::new(Vec::new());
    let (mut count, mut held) = (0, Vec::new());
    loop {
        let head = read_head(&mut stream);
        if head.starts_with("GET") {
            let mut reading = stream.try_clone().unwrap();
            let mut client = Client::take(stream, &head);
            client.join();
            CLIENTS.lock().unwrap().push(client);
            return linger(&mut reading);
        }
        let Some(length) = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")) else { return };
        let mut body = vec![0; length.parse().unwrap()];
        stream.read_exact(&mut body).unwrap();
        count += 1;
        let text = String::from_utf8(body).unwrap();
        let json = format!(r#"{{"push":{{"channel":"load-0","pub":{{"data":"{text}","offset":{count}}}}}}}"#);
        let mut publication = [field(0x22, text.as_bytes()), vec![0x30]].concat();
        varint(&mut publication, count);
        let push = field(0x22, &[field(0x12, b"load-0"), field(0x22, &publication)].concat());
        let mut protobuf = Vec::new();
        varint(&mut protobuf, push.len() as u64);
        protobuf.extend_from_slice(&push);
        let said = vec![(json.into_bytes(), protobuf)];
        let said = match count % 10 {
            0 => Vec::new(),
            3 => [&said[..], &said].concat(),
            6 => {
                held = said;
                Vec::new()
            }
            _ => [said, std::mem::take(&mut held)].concat(),
        };
        for client in CLIENTS.lock().unwrap().iter_mut() {
            said.iter().for_each(|(json, protobuf)| client.say(json, protobuf));
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    }
}

#[test]
fn what_a_careless_server_does_is_counted_exactly_for_each_transport() {
    let server = Strange::new(careless);
    let fixed = ["-c", "10", "--rate", "100", "--duration", "1", "--settle", "0.3", "--drain", "0.5"];
    let transports = BOTH.join(",");
    // Who is gone at once waits for no answer.
    let ending = ["--end", "reset"];
    let outcome = load(&[&["fanout", &server.url, "--transport", &transports], &fixed[..], &ending].concat());
    assert_eq!(outcome.status, 3, "{}", outcome.summary);
    let published = outcome.count("fanout.published");
    assert!(published > 50, "{}", outcome.summary);
    for transport in BOTH {
        let seen = |what: &str| outcome.count(&format!("fanout.by_transport.{transport}.{what}"));
        let of = |digit: u64| (published + 10 - digit) / 10 * 5;
        let held = u64::from(published % 10 == 6) * 5; // the last one never came
        assert_eq!(seen("lost"), of(10) + held, "{}", outcome.summary);
        assert_eq!(seen("duplicated"), of(3), "{}", outcome.summary);
        assert_eq!(seen("reordered"), of(6) - held, "{}", outcome.summary);
    }
}
