//! Attacks on what a server has: memory, descriptors, slots, timers, time. Whatever is done to it, somebody innocent on the
//! same worker is served meanwhile, and afterwards everything is as it was before (`Siege::lift`).
//!
//! Limits are those of production. Timeouts are shorter where a test has to see them pass; crowds are as large as 20,000
//! descriptors on either side allow, and a tenth of that in builds without optimisation (`crowd_of`).
//!
//! What each measured is seen with `cargo test --profile optimised --test attacks -- --nocapture`.
#![cfg(feature = "cli")] // There is no binary without it.

mod support;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use support::*;

/// What a connection in the middle of a message may cost beside the message: its slot, and what hangs off it.
const UNFINISHED_BYTES_MAX: u64 = 1536;

const MIB: u64 = 1 << 20;

// Announced, and never sent.

#[test]
fn lengths_announced_and_not_sent_take_no_memory() {
    const CROWD: usize = crowd_of(10_000);
    // 64 KiB by each, 640 MB in all.
    let announced = |n| match n % 3 {
        0 => [upgrade().bytes(), frame(BINARY, "").announcing(65_536).bytes()].concat(),
        1 => plain("").line("POST /topics/t HTTP/1.1").with("Content-Length: 65536").bytes(),
        _ => [
            plain("").line("POST /topics/t HTTP/1.1").with("Transfer-Encoding: chunked").bytes(),
            b"10000\r\n".to_vec(),
        ]
        .concat(),
    };
    let siege = Siege::lay("--head-timeout 60");
    let mapped = siege.server.mapped_bytes();
    let crowd = siege.crowd(CROWD, announced);
    siege.server.until_connections(CROWD as f64.., PATIENCE);
    let mapped = siege.server.mapped_bytes() - mapped;
    assert!(mapped < CROWD as u64 * 6400, "{mapped} bytes of address space for what was only announced");
    drop(crowd);
    siege.lift(CROWD as u64 * UNFINISHED_BYTES_MAX);
}

/// Lengths at and beside the edges of the three forms (RFC 6455, section 5.2), of what a message may have, and of what fits
/// 31, 32 and 63 bits.
fn lengths_at_every_edge() -> impl Iterator<Item = u64> {
    [0, 126, 1 << 16, 1 << 31, 1 << 32, 1 << 63].into_iter().flat_map(|edge: u64| {
        // Those before 0 are the last that there are.
        (0..4).map(move |n| edge.wrapping_sub(2).wrapping_add(n))
    })
}

#[test]
fn lengths_at_and_around_every_edge_are_taken_or_refused_by_the_letter() {
    const MESSAGE_MAX: u64 = 65_536;
    let siege = Siege::lay("");
    let mut refused = 0;
    let cases = lengths_at_every_edge().flat_map(|len| [7, 16, 64].map(|bits| (len, bits)));
    let cases = cases.filter(|&(len, bits)| bits == 64 || len < if bits == 7 { 126 } else { 1 << 16 });
    for ((len, bits), opcode) in cases.flat_map(|case| [CONTINUATION, TEXT, BINARY, PING].map(|opcode| (case, opcode)))
    {
        let (before, max) = match opcode {
            CONTINUATION => (text("x").unfinished().bytes(), MESSAGE_MAX - 1),
            PING => (Vec::new(), 125),
            _ => (Vec::new(), MESSAGE_MAX),
        };
        let is_shortest = bits
            == if len < 126 {
                7
            } else if len < 1 << 16 {
                16
            } else {
                64
            };
        let code = match len {
            _ if !is_shortest || len >= 1 << 63 => Some(1002),
            _ if len > max => Some(if opcode == PING { 1002 } else { 1009 }),
            _ => None,
        };
        let header = frame(opcode, "").announcing(len).length_in(bits).bytes();
        for cut in [Cut::Whole, Cut::ByteByByte] {
            let mut peer = siege.server.websocket();
            peer.send(&before);
            if let Some(code) = code {
                // By the header alone.
                peer.send_cut(&header, cut);
                assert!(!peer.expect_close(code).is_empty(), "{len} in {bits} bits, opcode {opcode:X}");
                peer.expect_eof();
                refused += 1;
                continue;
            }
            let payload = vec![b'x'; len as usize];
            let whole = frame(opcode, &payload).bytes();
            peer.send_cut(&whole[..header.len()], cut);
            peer.send(&whole[header.len()..]);
            match opcode {
                CONTINUATION => peer.expect(TEXT, [b"x", &payload[..]].concat()),
                PING => peer.expect(PONG, &payload),
                _ => peer.expect(opcode, &payload),
            }
        }
    }
    assert_eq!(siege.server.metric("throng_violations_total"), f64::from(refused));
    siege.lift(MIB);
}

#[test]
fn endless_fragments_hold_no_more_than_their_messages() {
    const CROWD: usize = crowd_of(50).div_ceil(2); // of each kind
    // Of each connection, every 20 ms.
    const BATCH: usize = crowd_of(5000);
    let siege = Siege::lay("--close-timeout 0.2");
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for payload in ["", "x"] {
            let (server, batch) = (&siege.server, frame(CONTINUATION, payload).unfinished().bytes().repeat(BATCH));
            let over = &over;
            let begin = move || {
                let mut peer = server.websocket();
                peer.send(text(payload).unfinished().bytes());
                peer
            };
            scope.spawn(move || {
                let mut peers: Vec<Raw> = (0..CROWD).map(|_| begin()).collect();
                while !over.load(Ordering::Relaxed) {
                    for peer in &mut peers {
                        if peer.try_send(&batch).is_err() {
                            *peer = begin();
                        }
                    }
                    thread::sleep(millis(20));
                }
            });
        }
        // Those of one byte add up; empty ones go on for ever, and cost what their bytes cost.
        let ended = || siege.server.metric("throng_violations_total{reason=\"message_too_big\"}");
        let until = Instant::now() + millis(20_000);
        while ended() < CROWD as f64 && Instant::now() < until {
            thread::sleep(millis(50));
        }
        over.store(true, Ordering::Relaxed);
        assert!(ended() >= CROWD as f64, "{} messages were ended", ended());
    });
    siege.lift(2 * CROWD as u64 * 2 * 65_536);
}

// Heads and bodies.

#[test]
fn heads_of_20_mb_are_given_up_at_16_kib() {
    const CROWD: usize = crowd_of(30); // 600 MB in all
    let line = [b"GET /", &[b'a'; 20_000_000][..]].concat();
    let fields = [&plain("/").bytes()[..20], &b"A: b\r\n".repeat(20_000_000 / 6)[..]].concat();
    let siege = Siege::lay("");
    for n in 0..CROWD {
        let mut peer = siege.server.connect();
        // It reads on for a while, so that the answer is not lost, and then no more.
        let _ = peer.try_send(if n % 2 == 0 { &line } else { &fields });
        assert_eq!(peer.head().status, 431);
    }
    siege.lift(MIB);
}

#[test]
fn heads_of_two_thousand_fields_are_refused() {
    const CROWD: usize = crowd_of(1000);
    // Asking all of them whether they were reset takes a while.
    let siege = Siege::lay("--close-timeout 30");
    let mut crowd = siege.crowd(CROWD, |_| [&upgrade().bytes()[..20], &b"A:b\r\n".repeat(2000), b"\r\n"].concat());
    for peer in &mut crowd {
        assert_eq!((peer.response().status, peer.was_reset()), (431, false));
    }
    assert_eq!(siege.server.metric("throng_refused_total{reason=\"too_many_fields\"}"), CROWD as f64);
    drop(crowd);
    siege.lift(MIB / 2 + CROWD as u64 * UNFINISHED_BYTES_MAX);
}

#[test]
fn heads_and_bodies_that_trickle_are_ended_in_time() {
    const CROWD: usize = crowd_of(5000);
    let siege = Siege::lay("--head-timeout 1 --close-timeout 1");
    let post = plain("").line("POST /topics/t HTTP/1.1").with("Content-Length: 60000").bytes();
    let mut crowd = siege.crowd(CROWD, |n| if n % 2 == 0 { upgrade().bytes()[..50].to_vec() } else { post.clone() });
    throughout(millis(1500), || {
        crowd.iter_mut().for_each(|peer| drop(peer.try_send("x")));
        thread::sleep(millis(80));
    });
    for peer in &mut crowd {
        assert_eq!(peer.head().status, 408);
    }
    for reason in ["head_timeout", "body_timeout"] {
        let refused = siege.server.metric(&format!("throng_refused_total{{reason=\"{reason}\"}}"));
        assert_eq!(refused, CROWD as f64 / 2.0, "{reason}");
    }
    siege.server.until_connections(..=2.0, PATIENCE);
    siege.lift(CROWD as u64 * UNFINISHED_BYTES_MAX);
}

#[test]
fn a_head_byte_by_byte_costs_no_more_a_byte_the_longer_it_is() {
    const CROWD: usize = crowd_of(10);
    let siege = Siege::lay("--head-timeout 60");
    // CPU a byte of heads of that length, in seconds.
    let cost = |length: usize| {
        let head = upgrade().padded_to(length).bytes();
        let mut crowd = siege.crowd(CROWD, |_| Vec::new());
        let before = siege.server.cpu_seconds();
        for byte in head {
            crowd.iter_mut().for_each(|peer| peer.send([byte]));
            thread::sleep(Duration::from_micros(20));
        }
        crowd.iter_mut().for_each(|peer| assert_eq!(peer.head().status, 101));
        (siege.server.cpu_seconds() - before) / (length * CROWD) as f64
    };
    let (short, long) = (cost(2048), cost(16_384));
    println!("{:.1} and {:.1} us a byte", short * 1e6, long * 1e6);
    // Were the whole head looked at again for each byte, eight times as much of that would come to each.
    assert!(long < 2.0 * short, "{long} s a byte of a long head, {short} s of a short one");
    siege.lift(MIB);
}

#[test]
fn keys_of_publications_are_remembered_only_if_they_are_short() {
    const KEYS: usize = crowd_of(5000);
    let siege = Siege::lay("");
    let mut publisher = siege.server.connect();
    let mut publish = |key: &[u8]| {
        let head = plain("").line("POST /topics/t HTTP/1.1").with([b"Idempotency-Key: ", key].concat());
        publisher.send([head.with("Content-Length: 1").bytes(), b"x".to_vec()].concat());
        publisher.answer().status
    };
    for refused in [&[b'x'; 256][..], &[b'x'; 16_000], b"caf\xE9"] {
        assert_eq!(publish(refused), 400);
    }
    for n in 0..KEYS {
        assert_eq!(publish(format!("{n:0255}").as_bytes()), 200);
    }
    assert_eq!(siege.server.metric("throng_published_total"), KEYS as f64);
    drop(publisher);
    // For five minutes.
    siege.lift(KEYS as u64 * 600 + MIB);
}

// Silence.

/// A crowd that sends this and then nothing is told so, and is gone before any of it has closed a socket.
#[track_caller]
fn silence_is_ended(crowd: usize, flags: &str, metric: &str, bytes: impl Fn(usize) -> Vec<u8>) {
    let siege = Siege::lay(flags);
    let peers = siege.crowd(crowd, bytes);
    // Who comes now comes in.
    siege.server.websocket().echo("hello");
    eventually("everybody is told", millis(20_000), || siege.server.metric(metric) >= crowd as f64);
    siege.server.until_connections(..=2.0, PATIENCE);
    drop(peers);
    siege.lift(crowd as u64 * UNFINISHED_BYTES_MAX);
}

#[test]
fn silent_connections_are_ended() {
    let told = "throng_refused_total{reason=\"head_timeout\"}";
    silence_is_ended(crowd_of(10_000), "--head-timeout 1 --close-timeout 0.2", told, |_| Vec::new());
}

#[test]
fn handshakes_that_are_never_finished_are_ended() {
    let (head, told) = (upgrade().bytes(), "throng_refused_total{reason=\"head_timeout\"}");
    let cut = |n| head[..1 + n % (head.len() - 1)].to_vec();
    silence_is_ended(crowd_of(5000), "--head-timeout 1 --close-timeout 0.2", told, cut);
}

#[test]
fn silent_websockets_are_ended() {
    let told = "throng_closed_total{reason=\"ping_timeout\"}";
    silence_is_ended(crowd_of(10_000), "--ping-interval 1 --pong-timeout 0.5", told, |_| upgrade().bytes());
}

// Questions whose answers nobody reads.

/// What becomes of whoever floods.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// Everything was taken, and what came behind it answered.
    Served,
    Closed(u16),
    Dropped,
}

/// Sends `frames` so many times and then a text, and reads nothing before all is sent or no more is taken; what comes
/// back then is `answers`, and what becomes of it.
#[track_caller]
fn flood(peer: &mut Raw, frames: &[u8], times: usize, answers: u8) -> Fate {
    let (mut asking, sent) = (peer.stream().try_clone().unwrap(), AtomicUsize::new(0));
    let sent = &sent;
    thread::scope(|scope| {
        let asked = scope.spawn(move || {
            (0..times).try_for_each(|_| {
                sent.fetch_add(1, Ordering::Relaxed);
                asking.write_all(frames)
            })?;
            asking.write_all(&text("behind them").bytes())
        });
        let mut before = 0;
        while !asked.is_finished() && before != sent.load(Ordering::Relaxed) {
            before = sent.load(Ordering::Relaxed);
            thread::sleep(millis(500));
        }
        match peer.frame_behind_all(answers) {
            Some(Received { opcode: TEXT, payload }) if payload == b"behind them" => Fate::Served,
            Some(Received { opcode: CLOSE, payload }) => Fate::Closed(u16::from_be_bytes([payload[0], payload[1]])),
            Some(other) => panic!("nobody asked for {other:?}"),
            None => Fate::Dropped,
        }
    })
}

#[test]
fn pings_without_reading_cost_one_pong() {
    const BATCHES: usize = crowd_of(100);
    let siege = Siege::lay("--control-rate 0");
    // Their pongs are small: the kernel takes as many as it can, the latest follows when there is room.
    let mut peer = siege.server.websocket();
    let fate = flood(&mut peer, &frame(PING, "").bytes().repeat(10_000), BATCHES, PONG);
    assert_eq!(fate, Fate::Served);
    drop(peer);
    siege.lift(MIB);
}

#[test]
fn large_pings_whose_pongs_nobody_reads_end_in_a_reset() {
    let siege = Siege::lay("--write-timeout 1 --control-rate 0");
    // Until nobody takes them any more: of the pongs that wait only the latest is kept, so the kernels' buffers fill slowly;
    // once they are full, and the time is up, that is the end.
    let mut peer = siege.server.websocket();
    let pings = frame(PING, "x".repeat(125)).bytes().repeat(1000);
    let started = Instant::now();
    while peer.try_send(&pings).is_ok() {
        assert!(started.elapsed() < PATIENCE, "still served");
    }
    siege.server.until_connections(..=2.0, PATIENCE);
    assert_eq!(siege.server.metric("throng_closed_total{reason=\"write_stall\"}"), 1.0);
    drop(peer);
    siege.lift(MIB);
}

#[test]
fn unsolicited_pongs_are_ignored() {
    const BATCHES: usize = crowd_of(100);
    let siege = Siege::lay("--control-rate 0");
    let mut peer = siege.server.websocket();
    let pongs = [frame(PONG, ""), frame(PONG, "never asked")].map(|pong| pong.bytes()).concat().repeat(5000);
    let fate = flood(&mut peer, &pongs, BATCHES, PONG);
    let counted = siege.server.metric("throng_pongs_received_total");
    assert_eq!((fate, counted), (Fate::Served, BATCHES as f64 * 1e4));
    drop(peer);
    siege.lift(MIB);
}

#[test]
fn floods_are_held_back_and_then_closed() {
    const CROWD: usize = crowd_of(50).div_ceil(4); // of each kind
    let siege = Siege::lay("--message-rate 1000 --byte-rate 100000");
    let (server, requests) = (&siege.server, plain("/healthz").bytes().repeat(100));
    let kinds: [(Vec<u8>, u16); 4] = [
        (frame(PING, "").bytes().repeat(1000), 1008),
        (frame(PONG, "x").bytes().repeat(1000), 1008),
        (text("x").bytes().repeat(1000), 1008),
        (frame(CONTINUATION, "").unfinished().bytes().repeat(1000), 1008),
    ];
    thread::scope(|scope| {
        for (frames, code) in kinds.iter().flat_map(|kind| std::iter::repeat_n(kind, CROWD)) {
            scope.spawn(move || {
                let mut peer = server.websocket();
                if frames[0] == CONTINUATION {
                    peer.send(text("").unfinished().bytes());
                }
                let mut writing = peer.stream().try_clone().unwrap();
                // It sends whenever it may, until nobody takes it any more, and reads whatever comes.
                let writer = scope.spawn(move || while writing.write_all(frames).is_ok() {});
                let closed = loop {
                    match peer.frame_within(millis(40_000)) {
                        Some(Received { opcode: CLOSE, payload }) => {
                            break u16::from_be_bytes([payload[0], payload[1]]);
                        }
                        Some(_) => {}
                        None => panic!("it was not closed"),
                    }
                };
                assert_eq!(closed, *code);
                let _ = peer.stream().shutdown(Shutdown::Both);
                writer.join().unwrap();
            });
        }
        scope.spawn(|| {
            let peer = server.connect();
            let mut writing = peer.stream().try_clone().unwrap();
            scope.spawn(move || while writing.write_all(&requests).is_ok() {});
            // It is held back for ten seconds.
            peer.stream().set_read_timeout(Some(millis(40_000))).unwrap();
            let mut answers = Vec::new();
            let _ = peer.stream().read_to_end(&mut answers);
            let answers = String::from_utf8_lossy(&answers);
            let (_, last) = answers.rsplit_once("HTTP/1.1 ").unwrap();
            assert!(last.starts_with("429 ") && last.contains("\"code\":\"flood\""), "{last}");
            let _ = peer.stream().shutdown(Shutdown::Both);
        });
    });
    assert_eq!(siege.server.metric("throng_violations_total{reason=\"flood\"}"), 4.0 * CROWD as f64);
    assert!(siege.server.metric("throng_throttled_total") >= 4.0 * CROWD as f64);
    siege.lift(16 * MIB);
}

#[test]
fn messages_that_are_never_finished_are_ended_in_time() {
    const CROWD: usize = crowd_of(1000);
    let siege = Siege::lay("--message-timeout 1.5 --ping-interval 1");
    let begun = frame(BINARY, vec![0; 30_000]).announcing(60_000).bytes();
    let mut peers = siege.crowd(CROWD, |_| [&upgrade().bytes()[..], &begun].concat());
    // They answer each ping between their bytes, if that is possible: in the middle of a frame it is not.
    let since = Instant::now();
    eventually("all were told", millis(20_000), || {
        peers.iter_mut().for_each(|peer| drop(peer.try_send([0; 10])));
        siege.server.metric("throng_violations_total{reason=\"message_timeout\"}") == CROWD as f64
    });
    assert!(since.elapsed() >= millis(500), "{:?}", since.elapsed());
    drop(peers);
    siege.lift(CROWD as u64 * 80_000);
}

#[test]
fn when_memory_is_short_those_who_hold_most_go() {
    const CROWD: usize = crowd_of(300);
    // Three times what there is.
    let budget = CROWD * 300_000;
    let siege = Siege::lay(&format!("--max-message 1000000 --max-memory {}", budget + 16 * 1_048_576));
    // Others are in the middle of a message, too, but of a small one.
    let small =
        siege.crowd(20, |_| [&upgrade().bytes()[..], &frame(BINARY, vec![0; 500]).announcing(1000).bytes()].concat());
    let begun = frame(BINARY, vec![0; 900_000]).announcing(1_000_000).bytes();
    // Nobody new comes in meanwhile, to ask for metrics either.
    let mut observer = siege.server.connect();
    let mut shed = move || {
        observer.send(plain("/metrics").bytes());
        let metrics = String::from_utf8(observer.answer().body).unwrap();
        let line = metrics.lines().find_map(|line| line.strip_prefix("throng_shed_total "));
        line.unwrap().parse::<f64>().unwrap()
    };
    assert_eq!(shed(), 0.0); // and with that the observer is in
    let greedy = siege.crowd(CROWD, |_| [&upgrade().bytes()[..], &begun].concat());
    eventually("enough were reset", PATIENCE, || shed() >= CROWD as f64 / 3.0);
    assert!(shed() < CROWD as f64 + 1.0);
    for mut peer in small {
        peer.head();
        peer.send([0; 500]);
        assert_eq!(peer.frame().payload.len(), 1000, "who holds little is left alone");
    }
    drop(greedy);
    siege.lift((budget as u64 + 16 * MIB) * 3 / 2);
}

#[test]
fn answers_that_nobody_reads_wait_within_bounds() {
    // Of each kind. What is written to a session, up to a MiB, takes a build without optimisation 150 ms.
    const CROWD: usize = crowd_of(20);
    let siege = Siege::lay("--write-timeout 1.5");
    let mut publisher = siege.server.connect();
    let message = "x".repeat(20_000);
    for _ in 0..10 {
        let head = plain("").line("POST /topics/big HTTP/1.1").with("Content-Length: 20000").bytes();
        publisher.send([&head, message.as_bytes()].concat());
        assert_eq!(publisher.answer().status, 200);
    }
    drop(publisher);
    let polls = plain("/topics/big").bytes().repeat(1000);
    let ask = "{\"id\":3,\"history\":{\"channel\":\"big\",\"limit\":300}}\n".repeat(1000);
    let session = upgrade().line("GET /connection/websocket HTTP/1.1").bytes();
    let commands = [session, text("{\"id\":1,\"connect\":{}}").bytes(), text(&ask).bytes().repeat(10)].concat();
    // 200 KB for each request and command.
    let crowd = siege.crowd(2 * CROWD, |n| if n % 2 == 0 { polls.clone() } else { commands.clone() });
    siege.server.until_connections(2.0 * CROWD as f64.., millis(1500));
    siege.server.until_connections(..=2.0, PATIENCE);
    drop(crowd);
    // The topic stays, with its messages, their encodings, and what one answer holds for each.
    siege.lift(2 * CROWD as u64 * (MIB + 256 * 1024) + MIB);
}

#[test]
fn slow_readers_of_a_full_topic_hold_its_messages_and_no_copies() {
    const CROWD: usize = 300;
    let siege = Siege::lay("--history-size 1000 --write-timeout 60");
    let mut peer = siege.server.connect();
    for n in 0..300 {
        let head = plain("").line("POST /topics/big HTTP/1.1").with("Content-Length: 1000").bytes();
        peer.send([head, format!("{n:01000}").into_bytes()].concat());
        assert_eq!(peer.answer().status, 200);
    }
    // Each third asks for the same; the others stop, or begin, where nobody else does.
    peer.send(plain("/topics/big?limit=1").bytes());
    let epoch = peer.answer().field("Throng-Cursor").unwrap().split_once('-').unwrap().0.to_owned();
    let target = |n: usize| match n % 3 {
        0 => "/topics/big".to_owned(),
        1 => format!("/topics/big?limit={}", 300 - n / 3),
        _ => format!("/topics/big?since={epoch}-{}", 1 + n / 3),
    };
    let mut expected = Vec::new();
    for n in 0..CROWD {
        peer.send(plain(&target(n)).bytes());
        expected.push(peer.answer().body);
    }
    drop(peer);
    // Pipelined behind it is a question that is answered once the answer before has been read.
    let both = |n| [plain(&target(n)).bytes(), plain("/topics/big?limit=1").bytes()].concat();
    let crowd = siege.crowd(CROWD, both);
    siege.server.until_connections(CROWD as f64.., PATIENCE);
    thread::sleep(millis(500));
    for (n, mut peer) in crowd.into_iter().enumerate() {
        // Some go in the middle of it.
        if n % 10 != 0 {
            assert!(peer.answer().body == expected[n], "{}", target(n));
            assert_eq!(peer.answer().status, 200);
        }
    }
    // Of 300 KB each. What the topic has stays.
    siege.lift(8 * MIB);
}

#[test]
fn thousands_of_commands_in_one_message_are_answered_one_after_another() {
    let siege = Siege::lay("--client-publish --presence");
    for command in
        [r#""history":{"channel":"b"}"#, r#""presence":{"channel":"b"}"#, r#""publish":{"channel":"b","data":1}"#]
    {
        let mut peer = siege.server.connect();
        peer.send(upgrade().line("GET /connection/websocket HTTP/1.1").bytes());
        assert_eq!(peer.head().status, 101);
        peer.send(text(r#"{"id":1,"connect":{}}"#).bytes());
        peer.frame();
        // Each is answered on the worker that asks: the answer to one must not be waited for on the stack of the next.
        let command = format!("{{\"id\":7,{command}}}\n");
        let (commands, mut answers) = (65_536 / command.len(), 0);
        peer.send(text(command.repeat(commands)).bytes());
        while answers < commands {
            let said = String::from_utf8(peer.frame().payload).unwrap();
            assert!(!said.contains("error"), "{said:.200}");
            answers += said.matches("\"id\":7").count();
        }
        assert_eq!(answers, commands);
    }
    // What is published stays.
    siege.lift(4 * MIB);
}

// Descriptors.

#[test]
fn a_server_with_few_descriptors_stays_calm_and_serves_again_within_a_second() {
    let siege = Siege::with_descriptors(64, "");
    let crowd = siege.crowd(200, |_| upgrade().bytes());
    thread::sleep(millis(300));
    let before = siege.server.cpu_seconds();
    thread::sleep(millis(1000));
    let used = siege.server.cpu_seconds() - before;
    assert!(used <= 0.05, "{used} s of CPU in a second: more than 5 % of a core");
    drop(crowd);
    eventually("it serves again", millis(1000), || {
        let mut next = siege.server.connect();
        let _ = next.try_send(upgrade().bytes());
        next.hears_or_ends(millis(500)) && next.starts_with(b"HTTP/1.1 101")
    });
    siege.lift(MIB);
}
