//! Scripts between a connection and its peer, in virtual time, without a socket.

use super::*;
use crate::config::{Config, Rules};
use crate::error::Violation;
use crate::http::{Head, imf_fixdate};
use crate::mem::Rng;
use crate::ws::{Event, Opcode, Role, decode, encode_masked};
use std::net::SocketAddr;
use std::time::Duration;

mod deflate;
mod overdue;
mod preamble;

const HEAD: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// Echoes, and remembers what it was told.
#[derive(Default)]
struct Echo {
    later: bool,
    refused: Vec<u16>,
    violations: Vec<Violation>,
    messages: usize,
    context_bytes: Vec<usize>,
    bodies: Vec<Vec<u8>>,
}

impl Handler<()> for Echo {
    fn open(&mut self, _: &Head<'_>, _: Peer) -> Verdict<()> {
        if self.later { Verdict::Later } else { Verdict::Now(Ok(opening())) }
    }

    fn request(&mut self, head: &Head<'_>, body: &[u8], _: Peer) -> Outcome<()> {
        self.bodies.push(body.to_vec());
        Outcome::Now(match head.path() {
            "/later" => return Outcome::Later,
            "/open" => {
                let response = Response::new(200).body("text/plain", "so ");
                return Outcome::Open(Emulated { state: (), response, first: body.to_vec() });
            }
            "/large" => Response::new(200).body("text/plain", vec![b'x'; 50_000]),
            "/panic" => panic!("as asked"),
            _ => Response::new(200).body("text/plain", "hello"),
        })
    }

    fn date(&self) -> Date {
        imf_fixdate(0)
    }

    fn ready(&mut self, _: Io<'_>, (): &mut ()) {}

    fn text(&mut self, mut io: Io<'_>, (): &mut (), text: &str) {
        self.messages += 1;
        match text {
            "close" => io.close(4000, "as you say"),
            _ => io.send(Opcode::Text, text.as_bytes()).expect("there is room"),
        }
    }

    fn binary(&mut self, mut io: Io<'_>, (): &mut (), bytes: &[u8]) {
        self.messages += 1;
        io.send(Opcode::Binary, bytes).expect("there is room");
    }

    fn pong(&mut self, _: Io<'_>, (): &mut (), _: &[u8]) {}

    fn woken(&mut self, mut io: Io<'_>, (): &mut ()) {
        io.send(Opcode::Text, b"woken").expect("there is room");
    }

    fn compresses(&mut self, context_bytes: usize) {
        self.context_bytes.push(context_bytes);
    }

    fn pinged(&mut self) {}

    fn refused(&mut self, response: &Response, _: Peer) {
        self.refused.push(response.status());
    }

    fn violated(&mut self, violation: Violation, _: Peer) {
        self.violations.push(violation);
    }
}

fn opening() -> Opening<()> {
    Opening { state: (), subprotocol: None, headers: Vec::new() }
}

/// A connection, its handler, its rules, and a socket that takes what it is told to take.
struct Pair {
    conn: Conn<()>,
    echo: Echo,
    rules: Rules,
    now: Tick,
    output: Vec<u8>,
    /// What reached the peer.
    wire: Vec<u8>,
    /// Bytes the socket takes before it is full.
    room: usize,
}

impl Pair {
    fn new() -> Self {
        let now = Tick(u32::MAX - 100); // the clock wraps in every test
        let rules = Config::default().rules().expect("the defaults are right");
        let conn = Conn::new(SocketAddr::from(([127, 0, 0, 1], 1)).into(), now);
        Self { conn, echo: Echo::default(), rules, now, output: Vec::new(), wire: Vec::new(), room: usize::MAX }
    }

    fn open() -> Self {
        let mut pair = Self::new();
        pair.feed(HEAD.as_bytes());
        assert!(pair.wire.starts_with(b"HTTP/1.1 101 "));
        pair.wire.clear();
        pair
    }

    fn feed(&mut self, bytes: &[u8]) {
        let mut input = bytes.to_vec();
        self.conn.input(&mut input, self.now, &self.rules, &mut self.output, &mut self.echo);
        self.flush();
    }

    fn say(&mut self, opcode: Opcode, payload: &[u8]) {
        let mut frame = Vec::new();
        encode_masked(&mut frame, opcode, payload, [1, 2, 3, 4]);
        self.feed(&frame);
    }

    /// As the worker does it.
    fn flush(&mut self) {
        if self.conn.queued() == 0 {
            let sent = self.output.len().min(self.room);
            self.wire.extend_from_slice(&self.output[..sent]);
            self.room -= sent;
            if sent == self.output.len() {
                return self.output.clear();
            }
            self.conn.keep(&mut self.output, sent, self.now);
        } else if !self.output.is_empty() {
            self.conn.keep(&mut self.output, 0, self.now);
        }
    }

    /// The socket takes `room` more bytes.
    fn drain(&mut self, room: usize) {
        self.room = room;
        let mut scratch = [0; 1000];
        while let Some(pending) = self.conn.pending(&mut scratch).filter(|_| self.room > 0) {
            let sent = pending.len().min(self.room);
            self.wire.extend_from_slice(&pending[..sent]);
            self.room -= sent;
            self.conn.wrote(sent, self.now, &mut self.output);
            self.flush();
        }
    }

    /// Lets time pass, and the timer fire.
    fn pass(&mut self, seconds: u64) -> Option<Tick> {
        self.now = self.now + crate::time::Span::covering(Duration::from_secs(seconds));
        let again = self.conn.timer(self.now, &self.rules, &mut self.output, &mut self.echo);
        self.flush();
        again
    }

    /// The frames on the wire, as a client reads them.
    fn heard(&mut self) -> Vec<String> {
        let (mut wire, mut partial, mut at) = (std::mem::take(&mut self.wire), None, 0);
        let rules = crate::ws::Rules { role: Role::Client, message_bytes_max: 1 << 24, compression: true };
        let mut heard = Vec::new();
        while let Some(event) = decode(&mut partial, &mut wire, &mut at, rules).expect("the server keeps to the RFC") {
            heard.push(match event {
                Event::Text(text) => text.to_owned(),
                Event::Binary(bytes) => format!("{} bytes", bytes.len()),
                Event::Compressed(_, bytes) => format!("compressed {bytes:x?}"),
                Event::Ping(_) => "ping".into(),
                Event::Pong(payload) => format!("pong {}", String::from_utf8_lossy(payload)),
                Event::Close(close) => format!("close {:?} {}", close.code, close.reason),
            });
        }
        heard
    }
}

#[test]
fn an_idle_connection_owns_nothing() {
    let mut pair = Pair::open();
    pair.say(Opcode::Text, b"hello");
    assert_eq!(pair.heard(), ["hello"]);
    assert!(pair.conn.rare.is_none());
}

#[test]
fn a_head_byte_by_byte_opens_like_a_whole_one() {
    let mut pair = Pair::new();
    HEAD.bytes().for_each(|byte| pair.feed(&[byte]));
    assert_eq!(pair.conn.phase(), Phase::Open);
    assert!(pair.conn.rare.is_none(), "nothing of it is kept");
}

#[test]
fn a_frame_behind_the_head_is_not_lost() {
    let mut pair = Pair::new();
    let mut bytes = HEAD.as_bytes().to_vec();
    encode_masked(&mut bytes, Opcode::Text, b"early", [9, 9, 9, 9]);
    let cut = bytes.len() - 3;
    pair.feed(&bytes[..cut]);
    pair.feed(&bytes[cut..]);
    assert!(pair.wire.ends_with(b"\r\n\r\n\x81\x05early"));
}

#[test]
fn a_later_verdict_finds_what_came_meanwhile() {
    let mut pair = Pair::new();
    pair.echo.later = true;
    let mut bytes = HEAD.as_bytes().to_vec();
    encode_masked(&mut bytes, Opcode::Text, b"early", [9, 9, 9, 9]);
    pair.feed(&bytes);
    assert_eq!((pair.conn.phase(), pair.conn.wants_input(), pair.wire.len()), (Phase::Deciding, false, 0));
    assert!(pair.conn.answer(Ok(opening()), pair.now, &pair.rules, &mut pair.output, &mut pair.echo));
    pair.flush();
    assert!(pair.wire.ends_with(b"\r\n\r\n\x81\x05early"));
    assert!(!pair.conn.answer(Ok(opening()), pair.now, &pair.rules, &mut pair.output, &mut pair.echo), "only once");
}

#[test]
fn deadlines_before_the_handshake_answer_and_end() {
    let mut pair = Pair::new();
    pair.feed(b"GET / HT");
    assert_eq!(pair.pass(10), None);
    assert!(pair.wire.starts_with(b"HTTP/1.1 408 "));
    assert_eq!((pair.conn.phase(), &*pair.echo.refused), (Phase::Refusing, &[408][..]));

    let mut pair = Pair::new();
    pair.echo.later = true;
    pair.feed(HEAD.as_bytes());
    assert_eq!(pair.pass(10), None);
    assert!(pair.wire.starts_with(b"HTTP/1.1 503 "));
    assert!(!pair.conn.answer(Ok(opening()), pair.now, &pair.rules, &mut pair.output, &mut pair.echo), "too late");
}

#[test]
fn who_is_silent_is_pinged_and_then_closed() {
    let mut pair = Pair::open();
    assert_eq!(pair.pass(25), None);
    assert_eq!((pair.heard(), pair.conn.phase()), (vec!["ping".to_owned()], Phase::Pinged));
    assert_eq!(pair.pass(20), None);
    assert_eq!(pair.heard(), ["close Some(1011) ping timeout"]);
    assert_eq!(pair.conn.phase(), Phase::Resetting);
    assert_eq!(pair.conn.ended().map(|ended| (ended.end, ended.clean)), Some((End::PingTimeout, false)));
}

#[test]
fn any_byte_counts_as_life() {
    let mut pair = Pair::open();
    pair.pass(25);
    pair.feed(&[0x81]); // the first byte of a frame
    assert_eq!(pair.conn.phase(), Phase::Open);
    // The worker arms the timer anew, and one that fires early finds the newer stamp.
    let due = pair.conn.ping_due(&pair.rules);
    assert_eq!(pair.conn.deadline(pair.now, &pair.rules), due);
    assert_eq!(pair.pass(5), Some(due));
    assert_eq!(pair.heard(), ["ping"]);
}

#[test]
fn pings_leave_together_a_little_before_they_are_due() {
    let mut pair = Pair::open();
    let (start, interval) = (pair.now.0, pair.rules.ping_interval);
    for phase in 0..3 {
        pair.rules.ping_phase = phase;
        let mut moments = std::collections::BTreeSet::new();
        for step in 0..80 {
            pair.conn.last_seen = Tick(start.wrapping_add(step));
            let due = pair.conn.ping_due(&pair.rules);
            let early = (pair.conn.last_seen + interval).minus(due);
            assert!((0..8).contains(&early), "{due:?} is {early} early");
            assert_eq!(due.0.wrapping_add(phase) % 8, 0);
            moments.insert(due.0);
        }
        assert!(moments.len() <= 11, "{moments:?}");
    }
}

#[test]
fn with_tcp_keepalive_nobody_is_pinged_and_a_message_has_its_time_as_ever() {
    let mut pair = Pair::open();
    pair.rules.tcp_keepalive = true;
    for _ in 0..3 {
        assert_eq!(pair.pass(25), Some(pair.now + pair.rules.ping_interval));
    }
    assert!(pair.heard().is_empty() && pair.conn.phase() == Phase::Open);
    pair.feed(&[0x81]); // of a message
    let since = pair.now;
    assert_eq!(pair.pass(25), Some(since + pair.rules.message_timeout));
    assert_eq!(pair.pass(5), None);
    assert_eq!(
        (pair.echo.violations.as_slice(), pair.conn.phase()),
        (&[Violation::MessageTimeout][..], Phase::Refusing)
    );
}

#[test]
fn the_first_ping_comes_after_a_random_half_to_whole_interval() {
    let mut rng = Rng::new(1);
    let mut wait = || {
        let mut pair = Pair::open();
        pair.conn.stagger(&pair.rules, &mut rng);
        pair.conn.deadline(pair.now, &pair.rules).minus(pair.now) as u32
    };
    let waits: Vec<_> = (0..1000).map(|_| wait()).collect();
    let interval = Pair::new().rules.ping_interval.0;
    let (least, most) = (waits.iter().min().expect("a thousand"), waits.iter().max().expect("a thousand"));
    assert!((interval / 2..interval * 6 / 10).contains(least) && (interval * 9 / 10..=interval).contains(most));
}

#[test]
fn a_close_is_echoed_and_the_connection_finishes() {
    let mut pair = Pair::open();
    pair.say(Opcode::Close, b"\x0b\xb8bye");
    assert_eq!((pair.heard(), pair.conn.phase()), (vec!["close Some(3000) ".to_owned()], Phase::Finishing));
    let ended = pair.conn.ended().expect("settled");
    assert_eq!((ended.end, ended.code, &*ended.reason, ended.clean), (End::PeerClosed, 3000, "bye", true));
}

#[test]
fn after_our_close_only_the_peers_counts() {
    let mut pair = Pair::open();
    pair.say(Opcode::Text, b"close");
    assert_eq!((pair.heard(), pair.conn.phase()), (vec!["close Some(4000) as you say".to_owned()], Phase::Closing));
    pair.say(Opcode::Text, b"late");
    pair.say(Opcode::Ping, b"late");
    assert_eq!((pair.heard().len(), pair.echo.messages), (0, 1));
    pair.say(Opcode::Close, b"\x0f\xa0");
    assert_eq!((pair.heard().len(), pair.conn.phase()), (0, Phase::Finishing));
    assert!(pair.conn.ended().is_some_and(|ended| ended.clean));
}

#[test]
fn a_close_that_is_not_answered_ends_in_a_reset_whatever_the_peer_sends() {
    let mut pair = Pair::open();
    pair.say(Opcode::Text, b"close");
    let deadline = pair.conn.deadline(pair.now, &pair.rules);
    assert_eq!(deadline, pair.now + pair.rules.close_timeout);
    pair.say(Opcode::Text, b"still here");
    assert_eq!((pair.pass(3), pair.conn.phase()), (None, Phase::Resetting));
}

#[test]
fn a_violation_is_answered_once_and_nothing_more_is_read() {
    let mut pair = Pair::open();
    let mut bytes = Vec::new();
    encode_masked(&mut bytes, Opcode::Text, b"before", [1, 1, 1, 1]);
    bytes.extend_from_slice(&[0x81, 0x01, b'x']); // not masked
    encode_masked(&mut bytes, Opcode::Text, b"after", [1, 1, 1, 1]);
    pair.feed(&bytes);
    let heard = pair.heard();
    assert_eq!((heard.len(), &*heard[0]), (2, "before"));
    assert!(heard[1].starts_with("close Some(1002)"));
    assert_eq!((pair.conn.phase(), &*pair.echo.violations), (Phase::Refusing, &[Violation::Unmasked][..]));
    pair.say(Opcode::Text, b"after");
    assert_eq!((pair.heard().len(), pair.echo.messages), (0, 1));
}

#[test]
fn a_violation_after_our_close_sends_no_second_one() {
    let mut pair = Pair::open();
    pair.say(Opcode::Text, b"close");
    pair.heard();
    pair.feed(&[0x81, 0x01, b'x']);
    assert_eq!((pair.heard().len(), pair.conn.phase()), (0, Phase::Refusing));
    assert!(pair.conn.ended().is_some_and(|ended| ended.end == End::ServiceClosed));
}

#[test]
fn of_the_pings_to_a_full_socket_only_the_latest_is_answered() {
    let mut pair = Pair::open();
    pair.room = 3;
    pair.say(Opcode::Binary, &[7; 100]);
    for n in 0..1000 {
        pair.say(Opcode::Ping, n.to_string().as_bytes());
    }
    assert!(pair.conn.queued() <= 100);
    pair.drain(usize::MAX);
    assert_eq!(pair.heard(), ["100 bytes", "pong 999"]);
    assert!(pair.conn.rare.is_none());
}

#[test]
fn a_connection_with_much_to_write_is_not_read() {
    let mut pair = Pair::open();
    pair.room = 0;
    while pair.conn.wants_input() {
        pair.say(Opcode::Binary, &[7; 10_000]);
    }
    assert!(pair.conn.queued() >= crate::limits::READ_PAUSE_BYTES);
    pair.drain(50_000);
    assert!(pair.conn.wants_input());
}

#[test]
fn a_stalled_writer_is_reset_and_progress_puts_that_off() {
    let mut pair = Pair::open();
    pair.room = 0;
    pair.say(Opcode::Binary, &[7; 1000]);
    assert!(pair.pass(20).is_some());
    pair.drain(10);
    assert!(pair.pass(20).is_some(), "it took ten bytes twenty seconds ago");
    assert_eq!((pair.pass(11), pair.conn.phase()), (None, Phase::Resetting));
    assert!(pair.conn.ended().is_some_and(|ended| ended.end == End::WriteStall));
}

#[test]
fn a_peer_that_never_ends_is_not_read_for_ever() {
    let mut pair = Pair::new();
    pair.feed(b"BAD\r\n\r\n");
    assert_eq!(pair.conn.phase(), Phase::Refusing);
    pair.conn.linger();
    for _ in 0..=crate::limits::LINGER_BYTES_MAX / 60_000 {
        assert_eq!(pair.conn.phase(), Phase::Lingering);
        pair.feed(&[b'x'; 60_000]);
    }
    assert_eq!(pair.conn.phase(), Phase::Resetting);
}

#[test]
fn a_client_that_says_close_is_answered_once() {
    let mut pair = Pair::new();
    pair.feed(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /secret HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(pair.wire.ends_with(b"hello"));
    assert_eq!((pair.conn.phase(), pair.echo.refused.len()), (Phase::Refusing, 0));
    assert_eq!(pair.echo.bodies.len(), 1);
}

/// Requests with and without bodies and an upgrade, as one stream: however it is cut, the answers are the same.
#[test]
fn requests_in_a_row_may_be_cut_anywhere() {
    let stream = [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nfirst",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nsec\r\n3\r\nond\r\n0\r\nT: x\r\n\r\n",
        "HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        HEAD,
    ]
    .concat();
    let stream = stream.as_bytes();
    let run = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut pair = Pair::new();
        pieces.for_each(|piece| pair.feed(piece));
        assert_eq!(pair.conn.phase(), Phase::Open);
        assert_eq!(pair.echo.bodies, [&b""[..], b"first", b"second", b""]);
        pair.wire
    };
    let whole = run(&mut std::iter::once(stream));
    assert_eq!(whole.windows(9).filter(|window| window == b"HTTP/1.1 ").count(), 5);
    assert_eq!(whole.windows(5).filter(|window| window == b"hello").count(), 3, "a HEAD has no body");
    assert_eq!(run(&mut stream.chunks(1)), whole);
    for cut in 1..stream.len() {
        assert_eq!(run(&mut [&stream[..cut], &stream[cut..]].into_iter()), whole, "cut at {cut}");
    }
}

#[test]
fn requests_wait_while_the_answers_before_them_are_not_read() {
    let mut pair = Pair::new();
    pair.room = 0;
    pair.feed("GET /large HTTP/1.1\r\nHost: a\r\n\r\n".repeat(100).as_bytes());
    assert!(pair.conn.has_early() && !pair.conn.wants_input());
    assert!(pair.echo.bodies.len() < 4, "{} answers of 50 KB wait", pair.echo.bodies.len());
    while pair.conn.has_early() {
        pair.drain(usize::MAX);
        pair.feed(b"");
    }
    pair.drain(usize::MAX);
    assert_eq!((pair.echo.bodies.len(), pair.conn.phase()), (100, Phase::Idle));
    assert_eq!(pair.wire.windows(9).filter(|window| window == b"HTTP/1.1 ").count(), 100);
}

#[test]
fn a_client_that_expects_a_word_gets_one_before_it_sends() {
    let mut pair = Pair::new();
    pair.feed(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-Continue\r\n\r\n");
    assert_eq!(pair.wire, b"HTTP/1.1 100 Continue\r\n\r\n");
    pair.feed(b"hi");
    assert_eq!(pair.echo.bodies, [b"hi"]);
    // One that is over the limit is told at once, and need not send.
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n", 1 << 20);
    pair.feed(head.as_bytes());
    assert_eq!((&*pair.echo.refused, pair.conn.phase()), (&[413][..], Phase::Refusing));
    let mut pair = Pair::new();
    pair.feed(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: tea\r\n\r\nhi");
    assert_eq!(pair.echo.refused, [417]);
}

#[test]
fn a_body_has_its_time_and_an_idle_connection_too() {
    let mut pair = Pair::new();
    pair.feed(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n12");
    let due = pair.conn.deadline(pair.now, &pair.rules);
    assert_eq!(due, pair.now + pair.rules.head_timeout);
    assert_eq!(pair.conn.timer(pair.now, &pair.rules, &mut pair.output, &mut pair.echo), Some(due), "not yet");
    pair.conn.timer(due, &pair.rules, &mut pair.output, &mut pair.echo);
    assert_eq!((&*pair.echo.refused, pair.conn.phase()), (&[408][..], Phase::Refusing));
    let mut pair = Pair::new();
    pair.feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let due = pair.conn.deadline(pair.now, &pair.rules);
    assert_eq!(due, pair.now + pair.rules.idle_timeout);
    assert_eq!(pair.conn.timer(pair.now, &pair.rules, &mut pair.output, &mut pair.echo), Some(due), "not yet");
    assert_eq!(pair.conn.timer(due, &pair.rules, &mut pair.output, &mut pair.echo), None);
    assert_eq!((pair.conn.phase(), pair.output.len()), (Phase::Finishing, 0));
}

#[test]
fn each_of_the_requests_in_a_row_has_its_own_time() {
    let request = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody".as_bytes();
    // Every read ends at the same place in the middle of the next request.
    for cut in 1..request.len() {
        let mut pair = Pair::new();
        pair.feed(&request[..cut]);
        for _ in 0..30 {
            pair.pass(1);
            pair.feed(&[&request[cut..], &request[..cut]].concat());
        }
        assert_eq!((pair.echo.bodies.len(), &*pair.echo.refused), (30, &[][..]), "cut at {cut}");
        // Bytes that trickle put nothing off.
        let mut seconds = 0;
        while pair.echo.refused.is_empty() {
            pair.feed(&request[cut..cut]);
            pair.pass(1);
            seconds += 1;
        }
        assert!((10..=11).contains(&seconds), "{seconds}, cut at {cut}");
    }
}

#[test]
fn a_connection_is_open_without_a_websocket() {
    let mut pair = Pair::new();
    pair.feed(b"POST /open HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nfirst and what comes behind it");
    let head = String::from_utf8_lossy(&pair.wire).into_owned();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\nConnection: close\r\n") && !head.contains("Content-Length"));
    assert!(head.contains("\r\n\r\nso "), "the body has begun: {head}");
    assert_eq!((pair.conn.phase(), pair.echo.messages), (Phase::Emulated, 1));
    assert!(pair.conn.phase().is_open() && pair.conn.phase().is_subscribed());
    // Nothing on this connection is a frame, or a request.
    let mut frame = Vec::new();
    encode_masked(&mut frame, Opcode::Text, b"x", [0; 4]);
    pair.feed(&frame);
    pair.feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((pair.conn.phase(), pair.echo.messages, pair.echo.bodies.len()), (Phase::Emulated, 1, 1));
    // The service sets the pace.
    let until = pair.now + pair.rules.pong_timeout;
    pair.conn.pace(until);
    assert_eq!((pair.conn.phase(), pair.conn.deadline(pair.now, &pair.rules)), (Phase::Emulated, until));
    pair.wire.clear();
    assert_eq!(pair.conn.timer(pair.now, &pair.rules, &mut pair.output, &mut pair.echo), Some(until), "not yet");
    assert!(pair.output.is_empty());
    assert_eq!(pair.conn.timer(until, &pair.rules, &mut pair.output, &mut pair.echo), None);
    assert!(pair.output.ends_with(b"woken") && pair.conn.phase() == Phase::Emulated);
    pair.output.clear();
    // It ends without a Close; the caller says how.
    assert!(!pair.conn.end_of_input(), "who hangs up is gone");
    assert!(pair.conn.last_words().is_none());
    pair.conn.close(Some(4001), Ended { code: 4001, ..Ended::new(End::ServiceClosed) }, &mut pair.output);
    assert_eq!((pair.conn.phase(), pair.output.len()), (Phase::Refusing, 0));
    assert_eq!(pair.conn.last_words(), Some((&(), 4001, End::ServiceClosed.text())));
}

#[test]
fn a_head_that_trickles_is_kept_in_one_buffer() {
    let mut pair = Pair::new();
    let padding = "x".repeat(15_000);
    let head = format!("GET /first HTTP/1.1\r\nHost: a\r\nX-Padding: {padding}\r\n\r\n");
    let (last, most) = head.as_bytes().split_last().expect("it is long");
    let (mut capacity, mut moves) = (0, 0);
    for &byte in most {
        pair.feed(&[byte]);
        let kept = pair.conn.rare.as_ref().and_then(|rare| rare.handshake.as_ref());
        let Some(Handshake::Head { bytes, .. }) = kept else { panic!("{kept:?}") };
        moves += u32::from(bytes.capacity() != capacity);
        capacity = bytes.capacity();
    }
    assert!(moves <= 20, "it moved {moves} times in {} bytes", most.len());
    assert!(capacity <= 2 * most.len(), "{capacity} bytes for {}", most.len());
    // What comes behind it is another request.
    pair.feed(&[&[*last], &most[..100]].concat());
    let kept = pair.conn.rare.as_ref().and_then(|rare| rare.handshake.as_ref());
    let Some(Handshake::Head { bytes, .. }) = kept else { panic!("{kept:?}") };
    assert!(bytes == &most[..100] && bytes.capacity() < 200, "{kept:?}");
}
