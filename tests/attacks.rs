//! Attacks on what a server has: memory, descriptors, slots, timers, time. Whatever is done to it, somebody innocent on the
//! same worker is served meanwhile, and afterwards everything is as it was before (`Siege::lift`).
//!
//! Limits are those of production. Timeouts are shorter where a test has to see them pass; crowds are as large as 20,000
//! descriptors on either side allow.
#![cfg(feature = "cli")] // There is no binary without it.

mod support;

use std::fs;
use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};
use support::*;

/// What a connection in the middle of a message may cost beside the message: its slot, and what hangs off it.
const UNFINISHED_BYTES_MAX: u64 = 1536;

const MIB: u64 = 1 << 20;

// Announced, and never sent.

#[test]
fn lengths_announced_on_ten_thousand_connections_take_no_memory() {
    const CROWD: usize = 10_000;
    // 640 MB in all.
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
    assert!(mapped < 64 * MIB, "{mapped} bytes of address space for what was only announced");
    drop(crowd);
    siege.lift(CROWD as u64 * UNFINISHED_BYTES_MAX);
}

#[test]
fn endless_fragments_on_fifty_connections_hold_no_more_than_their_messages() {
    const CROWD: usize = 25; // of each kind
    // 50 connections every 20 ms: 250,000 fragments a second is what a build without optimisation looks at.
    const BATCH: usize = 100;
    let siege = Siege::lay("--max-message 8192 --close-timeout 0.2");
    let over = Instant::now() + millis(3000);
    thread::scope(|scope| {
        for payload in ["", "x"] {
            let (server, batch) = (&siege.server, frame(CONTINUATION, payload).unfinished().bytes().repeat(BATCH));
            let begin = move || {
                let mut peer = server.websocket();
                peer.send(text(payload).unfinished().bytes());
                peer
            };
            scope.spawn(move || {
                let mut peers: Vec<Raw> = (0..CROWD).map(|_| begin()).collect();
                while Instant::now() < over {
                    for peer in &mut peers {
                        if peer.try_send(&batch).is_err() {
                            *peer = begin();
                        }
                    }
                    thread::sleep(millis(20));
                }
            });
        }
    });
    // Those of one byte add up; empty ones go on for ever, and cost what their bytes cost.
    assert!(siege.server.metric("throng_violations_total{reason=\"message_too_big\"}") >= CROWD as f64);
    siege.lift(2 * CROWD as u64 * 2 * 8192);
}

// Heads and bodies.

#[test]
fn heads_of_20_mb_are_given_up_at_16_kib() {
    const CROWD: usize = 30; // 600 MB in all
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
    const CROWD: usize = 300;
    let siege = Siege::lay("");
    let mut crowd = siege.crowd(CROWD, |_| [&upgrade().bytes()[..20], &b"A:b\r\n".repeat(2000), b"\r\n"].concat());
    for peer in &mut crowd {
        assert_eq!((peer.response().status, peer.was_reset()), (431, false));
    }
    assert_eq!(siege.server.metric("throng_refused_total{reason=\"too_many_fields\"}"), CROWD as f64);
    drop(crowd);
    siege.lift(CROWD as u64 * UNFINISHED_BYTES_MAX);
}

#[test]
fn heads_and_bodies_that_trickle_on_a_thousand_connections_are_ended_in_time() {
    const CROWD: usize = 1000;
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
    const CROWD: usize = 8;
    let siege = Siege::lay("--head-timeout 60");
    // CPU a byte of heads of that length, in seconds.
    let cost = |length: usize| {
        let head = upgrade().padded_to(length).bytes();
        let mut crowd = siege.crowd(CROWD, |_| Vec::new());
        let before = cpu_of_threads(siege.server.pid());
        for byte in head {
            crowd.iter_mut().for_each(|peer| peer.send([byte]));
            thread::sleep(Duration::from_micros(20));
        }
        crowd.iter_mut().for_each(|peer| assert_eq!(peer.head().status, 101));
        (cpu_of_threads(siege.server.pid()) - before) / (length * CROWD) as f64
    };
    let (short, long) = (cost(2048), cost(16_384));
    println!("{:.1} and {:.1} us a byte", short * 1e6, long * 1e6);
    // Were the whole head looked at again for each byte, eight times as much of that would come to each.
    assert!(long < 2.0 * short, "{long} s a byte of a long head, {short} s of a short one");
    siege.lift(MIB);
}

/// CPU time of a process, in seconds, to the nanosecond (Documentation/scheduler/sched-stats.rst).
fn cpu_of_threads(pid: u32) -> f64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let spent = threads.map(|thread| {
        let stat = fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap();
        stat.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
    });
    spent.sum()
}

#[test]
fn keys_of_publications_are_remembered_only_if_they_are_short() {
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
    for n in 0..5000 {
        assert_eq!(publish(format!("{n:0255}").as_bytes()), 200);
    }
    assert_eq!(siege.server.metric("throng_published_total"), 5000.0);
    drop(publisher);
    // For five minutes.
    siege.lift(4 * MIB);
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
    siege.is_calm(millis(500));
    drop(peers);
    siege.lift(crowd as u64 * UNFINISHED_BYTES_MAX);
}

#[test]
fn ten_thousand_silent_connections_are_ended() {
    let told = "throng_refused_total{reason=\"head_timeout\"}";
    silence_is_ended(10_000, "--head-timeout 1 --close-timeout 0.5", told, |_| Vec::new());
}

#[test]
fn five_thousand_that_never_finish_the_handshake_are_ended() {
    let (head, told) = (upgrade().bytes(), "throng_refused_total{reason=\"head_timeout\"}");
    let cut = |n| head[..1 + n % (head.len() - 1)].to_vec();
    silence_is_ended(5000, "--head-timeout 1 --close-timeout 0.5", told, cut);
}

#[test]
fn ten_thousand_silent_websockets_are_ended() {
    let told = "throng_closed_total{reason=\"ping_timeout\"}";
    silence_is_ended(10_000, "--ping-interval 1 --pong-timeout 1", told, |_| upgrade().bytes());
}

// Questions whose answers nobody reads.

#[test]
fn a_million_pings_without_reading_cost_one_pong() {
    let siege = Siege::lay("--write-timeout 2");
    // Their pongs are small: the kernel takes as many as it can, the latest follows when there is room.
    let mut peer = siege.server.websocket();
    let asking = peer.stream().try_clone().unwrap();
    let pings = frame(PING, "").bytes().repeat(10_000);
    let asked = thread::spawn(move || (0..100).try_for_each(|_| std::io::Write::write_all(&mut &asking, &pings)));
    thread::sleep(millis(1500));
    let (mut pongs, mut chunk) = (0, [0; 65_536]);
    let mut stream = peer.stream();
    while !asked.is_finished() || pongs == 0 {
        let count = stream.read(&mut chunk).unwrap();
        assert!(chunk[..count].iter().enumerate().all(|(n, byte)| *byte == [0x8A, 0][(pongs + n) % 2]));
        pongs += count;
    }
    asked.join().unwrap().expect("reading goes on once the answers are read");
    peer.send(close(1000, "").bytes());
    drop(peer);
    // These do not fit: of those that wait only the latest is kept, and once the time is up the connection is reset.
    let mut peer = siege.server.websocket();
    let pings = frame(PING, "x".repeat(125)).bytes().repeat(1000);
    let _ = (0..1000).try_for_each(|_| peer.try_send(&pings));
    siege.server.until_connections(..=2.0, PATIENCE);
    assert_eq!(siege.server.metric("throng_closed_total{reason=\"write_stall\"}"), 1.0);
    drop(peer);
    siege.lift(MIB);
}

#[test]
fn a_million_unsolicited_pongs_are_ignored() {
    let siege = Siege::lay("");
    let mut peer = siege.server.websocket();
    let pongs = [frame(PONG, ""), frame(PONG, "never asked")].map(|pong| pong.bytes()).concat().repeat(5000);
    (0..100).for_each(|_| peer.send(&pongs));
    peer.echo("still here");
    assert_eq!(siege.server.metric("throng_pongs_received_total"), 1e6);
    drop(peer);
    siege.lift(MIB);
}

#[test]
fn answers_that_nobody_reads_wait_within_bounds() {
    // Of each kind. What is written to a session, up to a MiB, takes a build without optimisation 150 ms.
    const CROWD: usize = 4;
    let siege = Siege::lay("--write-timeout 2");
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
    // 200 KB for each request and command: 8 GB are asked for.
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
    thread::sleep(millis(2000));
    let used = siege.server.cpu_seconds() - before;
    assert!(used <= 0.1, "{used} s of CPU in 2 s: more than 5 % of a core");
    drop(crowd);
    eventually("it serves again", millis(1000), || {
        let mut next = siege.server.connect();
        let _ = next.try_send(upgrade().bytes());
        next.hears_or_ends(millis(500)) && next.starts_with(b"HTTP/1.1 101")
    });
    siege.lift(MIB);
}
