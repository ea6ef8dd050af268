//! What one connection may send, and what all of them may hold, in virtual time.

use super::*;
use crate::config::Memory;
use crate::limits::{THROTTLE_MS, THROTTLED_MS_MAX};
use std::sync::atomic::{AtomicU64, Ordering};

const PING: &[u8] = b"\x89\x80\0\0\0\0";

fn rated(message_rate: u32, byte_rate: u64, control_rate: u32) -> Stage {
    Stage::by(Echo, &Config { message_rate, byte_rate, control_rate, ..Config::default() })
}

impl Stage {
    /// Lets so many milliseconds pass as the loop would, with something to read for `wire` at all times.
    fn pour(&mut self, wire: &Shared_, bytes: &[u8], ms: u64) -> usize {
        let mut poured = 0;
        for _ in 0..ms / 10 {
            let is_open = !wire.borrow().closed;
            if is_open && wire.borrow().input.len() < 64 * 1024 {
                poured += bytes.len();
                self.say(wire, bytes);
            }
            self.script.borrow_mut().now += 10;
            self.turn();
        }
        poured
    }
}

#[test]
fn who_floods_is_held_back_and_then_closed() {
    for ((messages, bytes, controls), flood) in
        [((100, 0, 200), HELLO), ((0, 2000, 200), HELLO), ((0, 0, 200), PING), ((0, 0, 200), b"\x8A\x80\0\0\0\0")]
    {
        let mut stage = rated(messages, bytes, controls);
        let (client, other) = (stage.client(), stage.client());
        stage.turn();
        stage.pour(&client, &flood.repeat(100), THROTTLED_MS_MAX - 500);
        assert!(!client.borrow().input.is_empty(), "it is not read, and TCP holds it back");
        let metrics = stage.metrics();
        let (heard, throttled) =
            (metrics.messages_in.read() + metrics.pings_in.read() + metrics.pongs.read(), metrics.throttled.read());
        // The burst of five seconds, ten seconds' worth, and a read for each time that it was let on.
        assert!((500..=40_000).contains(&heard), "{heard}");
        assert!((1..=40).contains(&throttled), "{throttled}");
        stage.say(&other, HELLO);
        stage.turn();
        assert!(other.borrow().output.ends_with(b"\x81\x05hello"), "another is answered at once");
        stage.pour(&client, &flood.repeat(100), 60_000);
        assert!(client.borrow().closed);
        assert_eq!(stage.metrics().violations.read(Violation::Flood as usize), 1);
        let output = client.borrow().output.clone();
        let close = [&b"\x03\xF0"[..], Violation::Flood.text().as_bytes()].concat();
        assert!(output.windows(close.len()).any(|window| window == close), "it is told why");
    }
}

#[test]
fn requests_are_counted_as_messages_and_refused_with_429() {
    let mut stage = rated(10, 0, 200);
    let client = stage.client_with(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    stage.turn();
    stage.pour(&client, &b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n".repeat(30), 60_000);
    assert!(client.borrow().closed);
    let output = String::from_utf8_lossy(&client.borrow().output).into_owned();
    let last = output.rsplit_once("HTTP/1.1 ").expect("an answer").1;
    assert!(last.starts_with("429 ") && last.contains("Retry-After: ") && last.contains("\"flood\""), "{last}");
}

#[test]
fn who_is_within_the_rate_is_never_held_back() {
    let mut stage = rated(100, 2000, 10);
    let client = stage.client();
    stage.turn();
    for _ in 0..600 {
        stage.pour(&client, b"", 100);
        stage.say(&client, &[&HELLO.repeat(9)[..], PING].concat());
        stage.turn();
    }
    assert_eq!(stage.metrics().throttled.read(), 0);
    assert_eq!(stage.metrics().messages_in.read(), 600 * 9);
    // A burst is what the bucket is for; a pause, and there may be another.
    for _ in 0..3 {
        stage.pour(&client, b"", 10_000);
        stage.say(&client, &HELLO.repeat(500));
        stage.turn();
    }
    assert_eq!((stage.metrics().throttled.read(), stage.metrics().messages_in.read()), (0, 600 * 9 + 1500));
}

#[test]
fn a_pong_that_was_asked_for_is_free_and_its_absence_too() {
    let mut stage = rated(0, 0, 1);
    let client = stage.client();
    stage.turn();
    for answer in [&b"\x8A\x80\0\0\0\0"[..], HELLO].repeat(10) {
        let pings = stage.metrics().pings.read();
        while stage.metrics().pings.read() == pings {
            stage.script.borrow_mut().now += 1000;
            stage.turn();
        }
        stage.say(&client, answer);
        stage.turn();
    }
    assert_eq!((stage.metrics().throttled.read(), stage.worker.throttle.next()), (0, None));
}

#[test]
fn the_loop_sleeps_while_somebody_is_held_back_and_loses_nothing() {
    let mut stage = rated(100, 0, 200);
    let client = stage.client();
    stage.turn();
    stage.say(&client, &HELLO.repeat(510));
    stage.turn();
    // More has come, and then it hangs up: none of that makes another edge.
    client.borrow_mut().error = Some(ErrorKind::UnexpectedEof);
    stage.say(&client, &HELLO.repeat(5));
    let token = client.borrow().token.expect("registered");
    stage.event(token, |event| event.read_closed = true);
    stage.turn();
    stage.turn();
    assert_eq!(stage.script.borrow().timeout, Some(Duration::from_millis(THROTTLE_MS)));
    assert!(!client.borrow().closed);
    for _ in 0..3 {
        stage.script.borrow_mut().now += THROTTLE_MS;
        stage.turn();
        stage.turn();
    }
    assert!(client.borrow().closed);
    assert_eq!(stage.metrics().messages_in.read(), 515);
    stage.assert_empty();
}

static USED: AtomicU64 = AtomicU64::new(0);

#[test]
fn when_memory_is_short_the_largest_go_first_and_nobody_comes_in() {
    let memory = Memory { bytes_max: 1_000_000, used: || USED.load(Ordering::Relaxed) };
    let mut stage = Stage::by(Echo, &Config { memory: Some(memory), ..Config::default() });
    let sizes = [0, 1_500, 10_000, 60_000];
    let clients = sizes.map(|_| stage.client());
    stage.turn();
    for (client, size) in clients.iter().zip(sizes) {
        let header = [&[0x82, 0xFE], &60_001_u16.to_be_bytes()[..], &[0; 4]].concat();
        stage.say(client, &[header, vec![0; size]].concat());
        stage.turn();
    }
    let pass = |stage: &mut Stage, used| {
        USED.store(used, Ordering::Relaxed);
        stage.script.borrow_mut().now += 50;
        stage.turn();
        clients.clone().map(|client| client.borrow().closed)
    };
    assert_eq!(pass(&mut stage, 1_000_000), [false; 4]);
    assert_eq!(stage.worker.memory_look(), None, "nobody is woken for that");
    // The bound comes down from the most that anybody may hold.
    let mut closed = [false; 4];
    let mut order = Vec::new();
    for _ in 0..20 {
        let now = pass(&mut stage, 1_000_001);
        (0..4).filter(|&index| now[index] && !closed[index]).for_each(|index| order.push(index));
        closed = now;
        assert!(stage.worker.timeout().is_some_and(|timeout| timeout <= Duration::from_millis(50)), "it looks again");
    }
    assert_eq!(order, [3, 2], "the largest first, and those who hold little are left alone");
    assert_eq!(stage.metrics().shed.read(), 2);
    let newcomer = stage.client();
    stage.turn();
    let answer = String::from_utf8_lossy(&newcomer.borrow().output).into_owned();
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("Retry-After: 5") && answer.contains("memory_short")
    );
    stage.say(&clients[0], &[0; 10]);
    assert_eq!(pass(&mut stage, 900_000), [false, false, true, true]);
    let newcomer = stage.client();
    stage.turn();
    assert!(newcomer.borrow().output.starts_with(b"HTTP/1.1 101 "), "there is room again");
}

#[test]
fn when_connections_hold_little_the_logs_are_cut() {
    static USED: AtomicU64 = AtomicU64::new(0);
    let memory = Memory { bytes_max: 0, used: || USED.load(Ordering::Relaxed) };
    let mut stage = Stage::by(Echo, &Config { memory: Some(memory), ..Config::default() });
    let name = TopicName::new("t").expect("a name");
    for _ in 0..100 {
        let publication = crate::topic::Publication::new(crate::topic::Kind::Text, vec![b'x'; 1000].into());
        stage.worker.topics.publish(&name, publication, 0, || 1).expect("there is room");
    }
    USED.store(1, Ordering::Relaxed);
    for _ in 0..20 {
        stage.script.borrow_mut().now += 50;
        stage.turn();
    }
    let left = stage.worker.topics.shrink();
    assert_eq!(left, 0, "as little as may be");
}
