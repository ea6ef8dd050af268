//! Limits at the door: how many connections one address may have, and how fast connections are accepted.
#![cfg(feature = "cli")] // There is no binary without it.

mod support;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Shutdown};
use std::sync::Barrier;
use std::thread;
use std::time::Instant;
use support::*;

const MINE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
/// Who asks for the metrics.
const OBSERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));

fn from(server: &Throng, source: IpAddr) -> Raw {
    Raw::connect_from(source, server.addrs[0])
}

/// Asks to be let in: the WebSocket, or the answer and its end.
#[track_caller]
fn enter(server: &Throng, source: IpAddr) -> Result<Raw, Response> {
    let mut peer = from(server, source);
    peer.send(upgrade().bytes());
    let mut answer = peer.head();
    if answer.status == 101 {
        return Ok(peer);
    }
    answer.body = peer.rest();
    Err(answer)
}

/// WebSockets of that address until one is refused, and how that was.
#[track_caller]
fn fill(server: &Throng, source: IpAddr) -> (Vec<Raw>, Response) {
    let mut peers = Vec::new();
    loop {
        match enter(server, source) {
            Ok(peer) => peers.push(peer),
            Err(answer) => return (peers, answer),
        }
    }
}

#[track_caller]
fn assert_address_full(answer: &Response) {
    assert_eq!((answer.status, &*answer.problem()["code"]), (429, "address_full"));
    assert_eq!(answer.field("Retry-After"), Some("30"));
    assert!(answer.lists("Connection", "close"));
}

/// The metrics, as an address of its own reads them.
#[track_caller]
fn metrics(server: &Throng) -> String {
    let mut peer = from(server, OBSERVER);
    peer.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    String::from_utf8(peer.response().body).unwrap()
}

/// The sum of all series that start so.
#[track_caller]
fn sum(metrics: &str, name: &str) -> f64 {
    let series: Vec<&str> = metrics.lines().filter(|line| line.starts_with(name)).collect();
    assert!(!series.is_empty(), "no {name} in\n{metrics}");
    series.iter().map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

/// Waits until nobody is there but who asks.
#[track_caller]
fn until_alone(server: &Throng, why: &str) {
    eventually(why, PATIENCE, || sum(&metrics(server), "throng_connections{") <= 1.0);
}

// Connections of one address.

#[test]
fn four_workers_together_keep_to_the_limit_of_an_address() {
    let server = Throng::start("--echo --workers 4 --max-connections-per-address 8");
    let (mut mine, refusal) = fill(&server, MINE);
    assert_eq!(mine.len(), 8);
    assert_address_full(&refusal);
    for _ in 0..12 {
        assert_address_full(&enter(&server, MINE).unwrap_err());
    }
    let (mut others, refusal) = fill(&server, OTHER);
    assert_eq!(others.len(), 8, "each address has its own");
    assert_address_full(&refusal);
    for _ in 0..3 {
        drop(mine.remove(0));
        eventually("the place of who left is free", PATIENCE, || {
            mine.extend(enter(&server, MINE));
            mine.len() == 8
        });
        assert_address_full(&enter(&server, MINE).unwrap_err());
    }
    mine.iter_mut().chain(&mut others).for_each(|peer| peer.echo("never disturbed"));
    let metrics = metrics(&server);
    let refused = sum(&metrics, "throng_refused_total{reason=\"address_full\"}");
    assert!(refused >= 17.0);
    assert_eq!(refused, sum(&metrics, "throng_turned_away_total "));
    let is_told =
        |line: &String| line.contains("refused peer=127.0.0.2:") && line.contains("status=429 reason=address_full");
    eventually("the log says so", PATIENCE, || server.log().iter().any(is_told));
}

#[test]
fn of_those_who_come_at_once_exactly_as_many_get_in() {
    let server = Throng::start("--echo --workers 4 --max-connections-per-address 8");
    for _ in 0..3 {
        let barrier = Barrier::new(32);
        let outcomes: Vec<_> = thread::scope(|scope| {
            let knock = || {
                barrier.wait();
                enter(&server, MINE)
            };
            let threads: Vec<_> = (0..32).map(|_| scope.spawn(knock)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 8);
        outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).for_each(assert_address_full);
        drop(outcomes);
        until_alone(&server, "all of them have gone");
    }
}

#[test]
fn the_place_is_given_back_however_a_connection_ends() {
    type End = fn(&Throng);
    fn says(server: &Throng, bytes: impl AsRef<[u8]>) -> Raw {
        let mut peer = from(server, MINE);
        peer.send(bytes);
        peer
    }
    let server = Throng::start(
        "--echo --workers 4 --max-connections-per-address 8 --head-timeout 1 --idle-timeout 1 --close-timeout 1",
    );
    let ways: [(&str, End); 11] = [
        ("a close", |server| {
            let mut peer = enter(server, MINE).unwrap();
            peer.send(close(1000, "").bytes());
            peer.expect_close(1000);
        }),
        ("a reset", |server| enter(server, MINE).unwrap().reset()),
        ("gone without a word", |server| drop(enter(server, MINE).unwrap())),
        ("a half-close", |server| {
            let mut peer = enter(server, MINE).unwrap();
            peer.stream().shutdown(Shutdown::Write).unwrap();
            peer.end();
        }),
        ("a half-close in the head", |server| {
            let mut peer = says(server, "GET / HTTP/1.1\r\nHo");
            peer.stream().shutdown(Shutdown::Write).unwrap();
            peer.end();
        }),
        ("a refused handshake", |server| {
            let answer = says(server, upgrade().without("Sec-WebSocket-Key").bytes()).response();
            assert_eq!((answer.status, &*answer.problem()["code"]), (400, "key_missing"));
        }),
        ("a violation", |server| {
            let mut peer = enter(server, MINE).unwrap();
            peer.send(text("not masked").unmasked().bytes());
            peer.expect_close(1002);
        }),
        ("a head that is never finished", |server| std::mem::forget(says(server, "GET / HTTP/1.1\r\n"))),
        ("a connection between two requests", |server| {
            let mut peer = says(server, plain("/healthz").bytes());
            assert_eq!(peer.answer().status, 200);
            std::mem::forget(peer);
        }),
        ("a stream", |server| {
            let mut peer = says(server, plain("/topics/t").with("Accept: text/event-stream").bytes());
            assert_eq!(peer.head().status, 200);
            peer.reset();
        }),
        ("a poll that waits", |server| drop(says(server, plain("/topics/t?wait=1").bytes()))),
    ];
    for (way, end) in ways {
        (0..8).for_each(|_| end(&server));
        until_alone(&server, way);
        let (peers, refusal) = fill(&server, MINE);
        assert_eq!(peers.len(), 8, "after {way}");
        assert_address_full(&refusal);
        drop(peers);
        until_alone(&server, "all of them have gone");
    }
}

#[test]
fn thousands_come_and_go_and_the_address_has_as_much_room_as_before() {
    raise_own_descriptor_limit();
    let server = Throng::start("--echo --workers 4 --max-connections-per-address 100 --head-timeout 1");
    let (mut came, mut refused) = (0, 0);
    for round in 0..20 {
        let mut peers = Vec::new();
        for n in 0..120 {
            match enter(&server, MINE) {
                Ok(peer) => peers.push(peer),
                Err(answer) => {
                    assert_address_full(&answer);
                    refused += 1;
                }
            }
            came += 1;
            if n % 10 == round % 10 {
                // Those who never get as far as an upgrade; they may be refused, too.
                let mut peer = from(&server, MINE);
                let _ = peer.try_send(if n % 20 < 10 { &b"GET / HT"[..] } else { b"\x16\x03\x01\n" });
                came += 1;
            }
        }
        for (n, mut peer) in peers.into_iter().enumerate() {
            match n % 4 {
                0 => peer.send(close(1000, "").bytes()),
                1 => peer.reset(),
                2 => peer.send([0x82, 0xFE, 0x40]), // the header of a frame, not all of it
                _ => {}
            }
        }
    }
    assert!(came > 2500 && refused > 100 && refused < came, "{refused} of {came}");
    until_alone(&server, "all of them have gone");
    let (peers, refusal) = fill(&server, MINE);
    assert_eq!(peers.len(), 100);
    assert_address_full(&refusal);
}

#[test]
fn who_finds_the_server_full_keeps_no_place_of_its_address() {
    let server = Throng::start("--echo --workers 4 --max-connections 4 --max-connections-per-address 3");
    let (mine, refusal) = fill(&server, MINE);
    assert_eq!(mine.len(), 3);
    assert_address_full(&refusal);
    let (mut others, _) = fill(&server, OTHER);
    assert_eq!(others.len(), 1);
    for _ in 0..20 {
        let answer = enter(&server, OTHER).unwrap_err();
        assert_eq!((answer.status, &*answer.problem()["code"]), (503, "at_capacity"));
    }
    drop(mine);
    eventually("it has all that it may have", PATIENCE, || {
        others.extend(enter(&server, OTHER));
        others.len() == 3
    });
    assert_address_full(&enter(&server, OTHER).unwrap_err());
}

#[test]
fn an_event_source_of_a_full_address_is_told_when_to_come_back() {
    let server = Throng::start("--workers 1 --max-connections-per-address 1");
    let _held = enter(&server, MINE).unwrap();
    let ask = |source| {
        let mut peer = from(&server, source);
        peer.send(plain("/topics/t").with("Accept: text/event-stream").bytes());
        peer
    };
    let answer = ask(MINE).response();
    assert_eq!((answer.status, answer.field("Content-Type")), (200, Some("text/event-stream")));
    let body = String::from_utf8(answer.body).unwrap();
    let retry_ms: u64 = body.strip_prefix("retry: ").and_then(|rest| rest.trim_end().parse().ok()).expect(&body);
    assert!((15_000..60_000).contains(&retry_ms), "{retry_ms}");
    assert_eq!(sum(&metrics(&server), "throng_refused_total{reason=\"address_full\"}"), 1.0);
    let streamed = ask(OTHER).head();
    assert_eq!((streamed.status, streamed.field("Content-Length")), (200, None));
}

// How fast connections are accepted.

#[test]
fn a_burst_is_accepted_at_the_accept_rate_and_nobody_is_refused() {
    raise_own_descriptor_limit();
    let server = Throng::start("--echo --workers 4 --accept-rate 100");
    let started = Instant::now();
    let mut peers: Vec<Raw> = (0..500)
        .map(|_| {
            let mut peer = server.connect();
            peer.send(upgrade().bytes());
            peer
        })
        .collect();
    for peer in &mut peers {
        assert_eq!(peer.head().status, 101);
    }
    // 100 at once, and 400 at 100 a second: no spread over the workers makes it shorter. The server counts whole
    // milliseconds.
    let took = started.elapsed();
    assert!(took >= millis(3990), "500 connections in {took:?}");
    println!("500 connections at 100/s: {took:.2?}");
    peers.iter_mut().for_each(|peer| peer.echo("hello"));
    let metrics = metrics(&server);
    assert_eq!(sum(&metrics, "throng_turned_away_total "), 0.0);
    let (pauses, turns) = (sum(&metrics, "throng_accept_paused_total "), sum(&metrics, "throng_loop_turns_total "));
    assert!((4.0..=501.0).contains(&pauses), "{pauses} pauses");
    // A pause, a new connection and an echo make a turn each at most; a loop that spins makes ten thousands a second.
    assert!(turns < 2500.0, "{turns} turns");
}

#[test]
fn waiting_for_the_accept_rate_costs_no_cpu() {
    let server = Throng::start("--echo --workers 2 --accept-rate 1");
    let peers: Vec<Raw> = (0..60)
        .map(|_| {
            let mut peer = server.connect();
            peer.send(upgrade().bytes());
            peer
        })
        .collect();
    thread::sleep(millis(300));
    let before = server.cpu_seconds();
    thread::sleep(millis(2000));
    let used = server.cpu_seconds() - before;
    assert!(used <= 0.1, "{used} s of CPU in 2 s of waiting: more than 5 % of a core");
    let served = peers.into_iter().filter_map(|mut peer| peer.hears(millis(1)).then_some(peer)).count();
    // Each worker's first, and half a connection a second of it: the rest, and nobody else, still waits.
    assert!((2..=8).contains(&served), "{served} were served");
}

#[test]
fn listeners_take_turns_at_the_accept_rate() {
    let server = Throng::start("--echo --workers 1 --accept-rate 10 --listen 127.0.0.1:0 --listen 127.0.0.2:0");
    let mut crowd: Vec<Raw> = (0..250)
        .map(|_| {
            let mut peer = Raw::connect(server.addrs[0]);
            peer.send(upgrade().bytes());
            peer
        })
        .collect();
    let mut other = Raw::connect(server.addrs[1]);
    other.upgrade();
    other.echo("hello");
    let last = crowd.last_mut().unwrap();
    assert!(!last.hears_or_ends(millis(1)), "the others' queue takes 24 s");
}

// Settings.

#[test]
fn limits_that_cannot_be_are_explained() {
    for (flags, says) in [
        ("--max-connections-per-address 65536", "from 1 to 65535"),
        ("--max-connections-per-address 11 --max-connections 10", "set fewer, or leave it out"),
        ("--max-connections-per-address few", "--max-connections-per-address"),
        ("--accept-rate 1.5", "--accept-rate"),
        ("--accept-rate 4294967296", "--accept-rate"),
    ] {
        let (code, stderr) = run_to_end(flags);
        assert!(code.is_some_and(|code| code != 0), "{flags}: {code:?}");
        assert!(stderr.contains(says) && !stderr.contains("panicked"), "{flags}: {stderr}");
    }
}

#[test]
fn the_file_sets_both_limits_and_the_command_line_counts_more() {
    let file = format!("{}/limits-{}.toml", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    fs::write(&file, "[throng]\nmax_connections_per_address = 3\naccept_rate = 1\n").unwrap();
    let server = Throng::start(&format!("--config {file} --accept-rate 1000"));
    let (peers, refusal) = fill(&server, MINE);
    assert_eq!(peers.len(), 3);
    assert_address_full(&refusal);
    drop(server);
    fs::write(&file, "[throng]\nmax_connections_per_address = 0\naccept_rate = 0\n").unwrap();
    let server = Throng::start(&format!("--config {file}"));
    assert_eq!((0..20).filter_map(|_| enter(&server, MINE).ok()).count(), 20, "0 is no limit");
    fs::write(&file, "[throng]\nmax_connections_per_address = 3\naccept_rate = -1\n").unwrap();
    let (code, stderr) = run_to_end(&format!("--config {file}"));
    assert!(code.is_some_and(|code| code != 0) && stderr.contains(":3: `throng.accept_rate`"), "{stderr}");
    fs::remove_file(&file).unwrap();
}
