//! Connections over time: heartbeats, limits, shortages, peers that misbehave, and how the server starts and ends.
#![cfg(feature = "cli")] // There is no binary without it.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use support::*;

const UNFINISHED: [u8; 6] = [0x82, 0xFE, 0x40, 0, 0, 0]; // The header of a long frame, two bytes short.

// Heartbeats.

#[test]
fn first_pings_come_after_half_to_a_whole_interval_and_are_spread() {
    let server = Throng::start("--ping-interval 1");
    let mut peers: Vec<(Raw, Instant)> = (0..24).map(|_| (server.websocket(), Instant::now())).collect();
    let mut waits: Vec<Duration> = Vec::new();
    eventually("everyone is pinged", millis(3000), || {
        peers.retain_mut(|(peer, since)| {
            let ping = peer.frame_within(millis(1));
            assert!(ping.as_ref().is_none_or(|ping| ping.opcode == PING), "{ping:?}");
            waits.extend(ping.as_ref().map(|_| since.elapsed()));
            ping.is_none()
        });
        peers.is_empty()
    });
    let (first, last) = (waits[0], waits[waits.len() - 1]);
    assert!(first > millis(400) && last < millis(1500), "{waits:?}");
    assert!(last - first > millis(150), "they are spread over half a second: {waits:?}");
}

#[test]
fn who_answers_pings_stays() {
    let server = Throng::start("--echo --ping-interval 0.3 --pong-timeout 0.3");
    let mut peer = server.websocket();
    for _ in 0..4 {
        let ping = peer.frame();
        assert_eq!(ping.opcode, PING);
        peer.send(frame(PONG, &ping.payload).bytes());
    }
    peer.send(text("still here").bytes());
    while peer.frame() != (Received { opcode: TEXT, payload: b"still here".to_vec() }) {}
}

#[test]
fn one_byte_of_any_frame_answers_a_ping() {
    let server = Throng::start("--echo --ping-interval 0.3 --pong-timeout 0.3");
    let mut peer = server.websocket();
    for byte in &text("abcd").bytes()[..4] {
        assert_eq!(peer.frame().opcode, PING);
        peer.send([*byte]);
    }
}

#[test]
fn who_talks_is_not_pinged() {
    let server = Throng::start("--echo --ping-interval 0.6 --pong-timeout 0.3");
    let mut peer = server.websocket();
    throughout(millis(2000), || peer.echo("I am here"));
}

#[test]
fn silence_is_closed_with_1011() {
    let server = Throng::start("--ping-interval 0.3 --pong-timeout 0.5");
    let mut peer = server.websocket();
    assert_eq!(peer.frame().opcode, PING);
    let pinged = Instant::now();
    assert_eq!(peer.expect_close(1011), "ping timeout");
    assert!(pinged.elapsed() > millis(400) && pinged.elapsed() < millis(1500), "{:?}", pinged.elapsed());
    peer.expect_end();
    server.until_connections(..=1.0, millis(1000));
}

#[test]
fn with_tcp_keepalive_the_kernel_finds_who_is_gone_and_nobody_is_pinged() {
    let server =
        Throng::start("--echo --client-publish --tcp-keepalive --ping-interval 1 --pong-timeout 1 --write-timeout 1");
    let streaming = || {
        let mut peer = server.connect();
        peer.send(plain("/topics/t").with("Accept: text/event-stream").bytes());
        assert_eq!(peer.head().status, 200);
        peer
    };
    let (mut here, mut stream) = (server.websocket(), streaming());
    let (silent, sent_to) = (server.websocket(), streaming());
    silent.vanish();
    sent_to.vanish();
    let mut publisher = server.connect();
    publisher.send("POST /topics/t HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nnews");
    assert_eq!(publisher.answer().status, 200);
    drop(publisher);
    let started = Instant::now();
    server.until_connections(..=3.0, millis(8000)); // those that are there, and who asks
    assert!(started.elapsed() > millis(1500), "both times must be over: {:?}", started.elapsed());
    assert_eq!(
        server.metric("throng_closed_total{reason=\"ping_timeout\"}"),
        1.0,
        "the WebSocket; streams are not counted"
    );
    thread::sleep(millis(1000));
    here.echo("I am here");
    assert_eq!(server.metric("throng_pings_sent_total"), 0.0);
    let [_, seen] = [(); 2].map(|()| stream.line_block(Instant::now() + PATIENCE)); // the first is where it stands
    assert!(seen.contains("data: news"), "{seen}");
    assert!(!stream.hears(millis(1)), "a comment came");
}

// The end of the server.

#[test]
fn sigterm_closes_everyone_spread_over_the_drain() {
    let mut server = Throng::start("--drain 1");
    let mut peers: Vec<Raw> = (0..40).map(|_| server.websocket()).collect();
    let started = Instant::now();
    server.signal("TERM");
    let mut waits: Vec<Duration> = Vec::new();
    eventually("everyone is closed", millis(4000), || {
        peers.retain_mut(|peer| {
            let Some(got) = peer.frame_within(millis(1)) else {
                return true;
            };
            assert_eq!((got.opcode, &got.payload[..2]), (CLOSE, &1001_u16.to_be_bytes()[..]));
            waits.push(started.elapsed());
            peer.send(close(1001, "").bytes());
            peer.expect_eof();
            false
        });
        peers.is_empty()
    });
    let (first, last) = (waits[0], waits[waits.len() - 1]);
    assert!(last - first > millis(400) && last < millis(2000), "{waits:?}");
    assert_eq!(server.exit(millis(1000)).code(), Some(0));
}

#[test]
fn long_polls_are_answered_and_streams_say_when_to_come_back() {
    let mut server = Throng::start("--drain 0.3");
    let ask = |head: &str| {
        let mut peer = server.connect();
        peer.send(head);
        peer
    };
    let mut poll = ask("GET /topics/t?wait=30 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut stream = ask("GET /topics/t HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n");
    assert_eq!(stream.head().status, 200);
    server.until_connections(3.0.., PATIENCE);
    server.signal("TERM");
    let answer = poll.response();
    assert_eq!(answer.status, 204, "{answer:?}");
    assert!(answer.lists("Connection", "close"));
    poll.expect_end();
    let rest = String::from_utf8(stream.rest()).unwrap();
    let last = rest.trim_end().rsplit("\n\n").next().unwrap();
    let retry: u32 = last.strip_prefix("retry: ").unwrap_or_else(|| panic!("{rest:?}")).parse().unwrap();
    assert!((1000..5000).contains(&retry), "{rest:?}");
    assert_eq!(server.exit(PATIENCE).code(), Some(0));
}

/// Those who were closed first are at another server by then, and would never hear of it.
#[test]
fn nothing_is_published_once_the_first_are_closed() {
    let server = Throng::start("--workers 1 --drain 6 --client-publish");
    let mut first: Vec<Raw> = (0..4).map(|_| server.websocket()).collect();
    let asked = |target: &str| {
        let mut peer = server.connect();
        peer.send(plain(target).bytes());
        assert_eq!(peer.answer().status, 200);
        peer
    };
    // Their turn comes late.
    let (mut publisher, mut reader) = (asked("/topics/t"), asked("/topics/t"));
    let mut writer = server.connect();
    writer.send(upgrade().line("GET /topics/t HTTP/1.1").bytes());
    assert_eq!(writer.head().status, 101);
    server.signal("TERM");
    first[0].expect_close(1001);
    publisher.send("POST /topics/t HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nlate");
    let refused = publisher.response();
    assert_eq!((refused.status, &*refused.problem()["code"]), (503, "draining"));
    assert!(refused.lists("Connection", "close") && refused.field("Retry-After").is_some(), "{refused:?}");
    writer.send(text("late").bytes());
    writer.expect_close(1001);
    // What only reads is answered, and nothing is there.
    reader.send(plain("/topics/t").bytes());
    let answer = reader.response();
    assert_eq!((answer.status, answer.body.trim_ascii()), (200, &b"[]"[..]));
    assert!(answer.lists("Connection", "close"), "{answer:?}");
}

#[test]
fn connections_that_are_too_old_are_told_to_come_back() {
    let server = Throng::start("--workers 1 --max-connection-age 1 --ping-interval 60");
    let began = Instant::now();
    let mut peer = server.websocket();
    let mut stream = server.connect();
    stream.send("GET /topics/t HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n");
    let mut idle = server.connect();
    idle.send(plain("/topics/t").bytes());
    assert_eq!((stream.head().status, idle.answer().status), (200, 200));
    assert_eq!(peer.expect_close(1001), "this connection is as old as it may become: connect again");
    assert!(began.elapsed() >= millis(900) && began.elapsed() < millis(4000), "{:?}", began.elapsed());
    peer.send(close(1001, "").bytes());
    let rest = String::from_utf8(stream.rest()).unwrap();
    assert!(rest.trim_end().rsplit("\n\n").next().unwrap().starts_with("retry: "), "{rest:?}");
    idle.expect_eof();
    eventually("it is counted", PATIENCE, || {
        server.get("/metrics").contains("throng_closed_total{reason=\"max_age\"} 1\n")
    });
}

#[test]
fn sigint_drains_too() {
    let mut server = Throng::start("--drain 0.2");
    let mut peer = server.websocket();
    server.signal("INT");
    peer.expect_close(1001);
    peer.send(close(1001, "").bytes());
    peer.expect_eof();
    assert_eq!(server.exit(millis(1000)).code(), Some(0));
}

#[test]
fn a_drain_ends_as_soon_as_everyone_is_gone() {
    let mut server = Throng::start("--drain 30");
    let peer = server.websocket();
    server.signal("TERM");
    thread::sleep(millis(100));
    drop(peer);
    assert_eq!(server.exit(millis(1500)).code(), Some(0));
    let mut empty = Throng::start("--drain 30");
    empty.signal("TERM");
    assert_eq!(empty.exit(millis(1500)).code(), Some(0));
}

#[test]
fn who_ignores_the_close_does_not_hold_up_the_end() {
    let mut server = Throng::start("--drain 0.2 --close-timeout 0.5");
    let (mut silent, mut talking) = (server.websocket(), server.websocket());
    server.signal("TERM");
    silent.expect_close(1001);
    talking.expect_close(1001);
    eventually("who talks on is dropped", millis(2000), || talking.try_send(text("not yet").bytes()).is_err());
    assert_eq!(server.exit(millis(2500)).code(), Some(0));
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut server = Throng::start("--drain 30");
    let peers: Vec<Raw> = (0..20).map(|_| server.websocket()).collect();
    server.signal("TERM");
    thread::sleep(millis(200));
    server.signal("TERM");
    server.exit(millis(1000));
    drop(peers);
}

#[test]
fn a_request_that_meets_the_drain_is_told_so() {
    let mut server = Throng::start("--drain 1 --close-timeout 0.5");
    let _holds_it_open = server.websocket();
    let head = upgrade().bytes();
    let (start, rest) = head.split_at(30);
    let mut late = server.connect();
    late.send(start);
    thread::sleep(millis(100));
    server.signal("TERM");
    thread::sleep(millis(100));
    let _ = late.try_send(rest);
    let answer = late.response();
    assert_eq!((answer.status, &*answer.problem()["code"]), (503, "draining"));
    server.exit(PATIENCE);
}

// Limits and shortages.

#[track_caller]
fn the_limit_is_exact_and_room_is_used_again(workers: u32) {
    let server = Throng::start(&format!("--echo --max-connections 8 --workers {workers}"));
    let mut peers: Vec<Raw> = (0..8).map(|_| server.websocket()).collect();
    let refused = || {
        let mut late = server.connect();
        late.send([upgrade().bytes(), vec![b'x'; 65_536]].concat());
        let answer = late.response();
        assert_eq!((answer.status, &*answer.problem()["code"]), (503, "at_capacity"));
        assert!(answer.lists("Connection", "close"));
    };
    for _ in 0..12 {
        refused();
    }
    for _ in 0..3 {
        drop(peers.remove(0));
        eventually("the place of who left is free", millis(2000), || {
            let mut next = server.connect();
            next.send(upgrade().bytes());
            let taken = next.head().status == 101;
            if taken {
                peers.push(next);
            }
            taken
        });
        refused();
    }
    for peer in &mut peers {
        peer.echo("never disturbed");
    }
}

#[test]
fn one_worker_keeps_to_max_connections() {
    the_limit_is_exact_and_room_is_used_again(1);
}

#[test]
fn four_workers_together_keep_to_max_connections() {
    the_limit_is_exact_and_room_is_used_again(4);
}

/// 200 that ask for a WebSocket, some of whom are refused at once.
fn crowd(server: &Throng) -> Vec<Raw> {
    let ask = |_| {
        let mut peer = server.connect();
        let _ = peer.try_send(upgrade().bytes());
        peer
    };
    (0..200).map(ask).collect()
}

#[track_caller]
fn serves_again(server: &Throng, within: Duration) {
    eventually("it serves again", within, || {
        let mut next = server.connect();
        next.send(upgrade().bytes());
        next.hears(millis(500)) && next.head().status == 101
    });
}

#[test]
fn a_full_descriptor_table_costs_no_cpu_and_room_is_used_within_a_second() {
    let server = Throng::start("--echo --workers 1 --max-connections 1000");
    server.websocket().echo("warm");
    // Everything is open by now; what is left of the 64 is for connections.
    server.limit_descriptors(64);
    let peers = crowd(&server);
    thread::sleep(millis(300));
    let before = server.cpu_seconds();
    thread::sleep(millis(1000));
    let used = server.cpu_seconds() - before;
    assert!(used <= 0.05, "{used} s of CPU in a second of being full: more than 5 % of a core");
    drop(peers);
    serves_again(&server, millis(1000));
}

#[test]
fn a_small_table_is_filled_and_the_rest_are_told() {
    let server = Throng::start_with_descriptors(64, "--echo --workers 1");
    let (mut served, mut refused) = (Vec::new(), 0);
    for _ in 0..80 {
        let mut peer = server.connect();
        peer.send(upgrade().bytes());
        let answer = peer.head();
        match answer.status {
            101 => served.push(peer),
            503 => refused += 1,
            _ => panic!("{answer:?}"),
        }
    }
    assert!(served.len() >= 40 && refused >= 16, "{} served, {refused} refused", served.len());
    served.iter_mut().for_each(|peer| peer.echo("hello"));
}

#[test]
fn who_is_accepted_while_descriptors_are_short_is_served() {
    let server = Throng::start("--echo --workers 1 --max-connections 1000");
    server.websocket().echo("warm");
    server.limit_descriptors(64);
    let mut peers: Vec<Raw> = (0..100).map(|_| server.connect()).collect();
    for peer in &mut peers {
        let _ = peer.try_send(upgrade().bytes());
    }
    // Nobody waits for ever: served, refused or hung up on.
    let mut served = 0;
    for peer in &mut peers {
        if peer.hears_or_ends(millis(2000)) && peer.starts_with(b"HTTP/1.1 101") {
            peer.head();
            peer.echo("hello");
            served += 1;
        }
    }
    assert!(served >= 20, "only {served} were served beside 64 descriptors");
}

#[test]
fn shared_descriptors_are_short_for_all_workers_alike() {
    let server = Throng::start("--echo --workers 2 --shared-fds --max-connections 1000");
    server.limit_descriptors(64);
    let peers = crowd(&server);
    thread::sleep(millis(300));
    let before = server.cpu_seconds();
    thread::sleep(millis(1000));
    assert!(server.cpu_seconds() - before <= 0.05);
    drop(peers);
    serves_again(&server, millis(1500));
}

// Peers that leave, stall and flood.

#[test]
fn a_reset_in_the_middle_of_a_write_frees_the_place() {
    let server = Throng::start("--echo --write-timeout 60");
    let mut peers: Vec<Raw> = (0..8).map(|_| server.websocket()).collect();
    thread::scope(|scope| {
        for peer in &mut peers {
            scope.spawn(|| {
                let stalled = flood_without_reading(peer, millis(500)).expect_err("it cannot have taken everything");
                assert!(timed_out(&stalled), "{stalled}");
            });
        }
    });
    server.until_connections(8.0.., PATIENCE);
    peers.into_iter().for_each(Raw::reset);
    server.until_connections(..=1.0, millis(2000));
}

/// Sends echo traffic and never reads, until the server has not taken more for `pause`; says how it ended.
fn flood_without_reading(peer: &mut Raw, pause: Duration) -> std::io::Result<()> {
    peer.stream().set_write_timeout(Some(pause)).unwrap();
    let message = frame(BINARY, vec![7; 32_768]).bytes();
    // 128 MiB: more than every buffer on the way can hold.
    (0..4096).try_for_each(|_| peer.try_send(&message))
}

#[test]
fn a_peer_that_never_reads_is_held_back_and_then_dropped() {
    let server = Throng::start("--echo --workers 1 --write-timeout 1");
    let mut other = server.websocket();
    other.echo("warm");
    let memory = server.resident_bytes();
    let mut peer = server.websocket();
    let (started, mut most) = (Instant::now(), memory);
    let flood = thread::spawn(move || flood_without_reading(&mut peer, millis(5000)));
    while !flood.is_finished() {
        most = most.max(server.resident_bytes());
        other.echo("not disturbed");
        thread::sleep(millis(10));
    }
    let error = flood.join().unwrap().expect_err("it cannot have taken everything");
    assert!(!timed_out(&error), "it should have been dropped after a second: {error}");
    assert!(started.elapsed() > millis(900) && started.elapsed() < millis(4000), "{:?}", started.elapsed());
    assert!(most - memory < 4 << 20, "{} bytes more for one slow reader", most - memory);
    drop(other);
    server.until_connections(..=1.0, millis(1000));
}

#[test]
fn thousands_come_and_go_and_leave_nothing_behind() {
    raise_own_descriptor_limit();
    let server = Throng::start("--echo --workers 2");
    let descriptors = server.descriptors();
    for _ in 0..4 {
        let mut peers: Vec<Raw> = (0..400).map(|_| server.websocket()).collect();
        server.until_connections(400.0.., PATIENCE);
        for (n, mut peer) in peers.drain(..).enumerate() {
            match n % 4 {
                0 => peer.send(close(1000, "").bytes()),
                1 => peer.reset(),
                2 => peer.send(UNFINISHED),
                _ => {}
            }
        }
        // And those who never get as far as an upgrade.
        for n in 0..100 {
            let mut peer = server.connect();
            peer.send(if n % 2 == 0 { &b"GET / HT"[..] } else { b"\x16\x03\x01\n" });
        }
        server.until_connections(..=1.0, PATIENCE);
    }
    // The connection that asked for the metrics may have counted in what it began with.
    eventually("every descriptor is closed", PATIENCE, || {
        server.descriptors().iter().zip(&descriptors).all(|(after, before)| after <= before)
    });
}

#[test]
fn answers_of_one_turn_go_to_whoever_asked() {
    let server = Throng::start("--echo --workers 1");
    let mut peers: Vec<Raw> = (0..64).map(|_| server.websocket()).collect();
    let message = |n: usize| format!("{n} {}", "x".repeat([0, 60_000, 100, 5000, 10][n % 5]));
    for round in 0..5 {
        // Stopped while they ask, it finds all of it in one turn of its loop.
        server.signal("STOP");
        for (n, peer) in peers.iter_mut().enumerate() {
            peer.send(wire(&[frame(PING, [n as u8]), text(message(n + round))]));
        }
        server.signal("CONT");
        for (n, peer) in peers.iter_mut().enumerate() {
            peer.expect(PONG, [n as u8]);
            peer.expect(TEXT, message(n + round));
        }
    }
}

#[test]
fn floods_of_tiny_frames_and_trickled_heads_do_not_stop_another() {
    raise_own_descriptor_limit();
    let server = Throng::start("--echo --workers 1");
    let mut other = server.websocket();
    let over = Instant::now() + millis(2000);
    let flood = flood_with_tiny_frames(&server, over);
    let mut trickling: Vec<Raw> = (0..1000).map(|_| server.connect()).collect();
    let trickler = thread::spawn(move || {
        for byte in upgrade().with_fields(100).bytes().into_iter().take_while(|_| Instant::now() < over) {
            trickling.iter_mut().for_each(|peer| peer.send([byte]));
        }
    });
    let (mut slowest, mut answers) = (Duration::ZERO, 0);
    while Instant::now() < over {
        let asked = Instant::now();
        other.echo("still there?");
        slowest = slowest.max(asked.elapsed());
        answers += 1;
        thread::sleep(millis(20));
    }
    flood.into_iter().chain([trickler]).for_each(|load| load.join().unwrap());
    assert!(answers >= 3 && slowest < millis(2000), "{answers} answers, the slowest after {slowest:?}");
}

#[test]
fn a_flood_gets_a_bounded_share_of_each_turn() {
    // What others wait for depends on the machine; this does not. Three floods keep the one worker busy.
    let server = Throng::start("--echo --workers 1");
    let over = Instant::now() + millis(1000);
    let floods = [(); 3].map(|()| flood_with_tiny_frames(&server, over));
    floods.into_iter().flatten().for_each(|load| load.join().unwrap());
    let share = server.metric("throng_received_bytes_total") / server.metric("throng_loop_turns_total") / 3.0;
    assert!(share < 131_072.0, "{share:.0} bytes were read of each in a turn, on average");
}

/// Sends 1-byte frames as fast as it can and reads what comes back: two threads, until `over`.
fn flood_with_tiny_frames(server: &Throng, over: Instant) -> [JoinHandle<()>; 2] {
    let peer = server.websocket();
    let (mut sending, mut receiving) = (peer.stream().try_clone().unwrap(), peer.stream().try_clone().unwrap());
    let tiny = text("x").bytes().repeat(8192);
    let sender = thread::spawn(move || {
        while Instant::now() < over {
            sending.write_all(&tiny).unwrap();
        }
        sending.shutdown(Shutdown::Both).unwrap();
    });
    let receiver = thread::spawn(move || while matches!(receiving.read(&mut [0; 65_536]), Ok(n) if n > 0) {});
    [sender, receiver]
}

// Workers and their tables.

const HELD: usize = 60;

#[test]
fn private_tables_count_each_connection_once() {
    let server = Throng::start("--echo --workers 3");
    eventually("all threads are there", PATIENCE, || server.descriptors().len() == 3 + 3);
    let before = server.descriptors();
    let mut peers: Vec<Raw> = (0..HELD).map(|_| server.websocket()).collect();
    peers.iter_mut().for_each(|peer| peer.echo("hello"));
    eventually("each connection is in one table", PATIENCE, || {
        server.descriptors().iter().sum::<usize>() == before.iter().sum::<usize>() + HELD
    });
    assert!(server.descriptors().iter().all(|&count| count < HELD), "{:?}", server.descriptors());
}

#[test]
fn a_shared_table_counts_each_connection_for_every_thread() {
    let server = Throng::start("--echo --workers 3 --shared-fds");
    // The main thread, the one that waits for signals and the one that reloads, beside the workers.
    eventually("all threads are there", PATIENCE, || server.descriptors().len() == 3 + 3);
    let before = server.descriptors();
    let mut peers: Vec<Raw> = (0..HELD).map(|_| server.websocket()).collect();
    peers.iter_mut().for_each(|peer| peer.echo("hello"));
    assert_eq!(server.descriptors(), before.iter().map(|count| count + HELD).collect::<Vec<_>>());
}

#[test]
fn there_are_as_many_threads_as_workers_were_asked_for() {
    for workers in [2, 5] {
        let server = Throng::start(&format!("--workers {workers}"));
        let others = 3; // the main thread, the one that waits for signals, and the one that reloads
        eventually("all threads are there", PATIENCE, || server.descriptors().len() == workers + others);
        throughout(millis(200), || assert_eq!(server.descriptors().len(), workers + others));
    }
}

// Starting.

#[test]
fn bad_flags_are_explained_and_end_with_2() {
    for (flags, about) in [
        ("--no-such-flag", "--no-such-flag"),
        ("--listen nowhere", "--listen"),
        ("--listen 127.0.0.1", "--listen"),
        ("--listen 127.0.0.1:65536", "--listen"),
        ("--workers many", "--workers"),
        ("--workers -1", "-1"),
        ("--max-connections 1e9x", "--max-connections"),
        ("--max-message -5", "-5"),
        ("--ping-interval soon", "--ping-interval"),
        ("--pong-timeout=-1", "--pong-timeout"),
        ("--head-timeout NaN", "--head-timeout"),
        ("--drain inf", "--drain"),
        ("--write-timeout 1e300", "--write-timeout"),
        ("--close-timeout", "--close-timeout"),
        ("--log-level loud", "--log-level"),
        ("--echo surplus", "surplus"),
    ] {
        let (code, stderr) = run_to_end(flags);
        assert_eq!(code, Some(2), "{flags}: {stderr}");
        assert!(stderr.contains(about) && !stderr.contains("panicked"), "{flags}: {stderr}");
    }
}

#[test]
fn a_port_in_use_is_explained() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let running = Throng::start("");
    for (addr, workers) in [(taken.local_addr().unwrap(), 1), (taken.local_addr().unwrap(), 3), (running.addrs[0], 2)] {
        let addr = addr.to_string();
        let (code, stderr) = run_to_end(&format!("--listen {addr} --workers {workers}"));
        assert!(code.is_some_and(|code| code != 0), "{code:?}: {stderr}");
        assert!(stderr.contains(&addr) && stderr.contains("another process"), "{stderr}");
        assert!(!stderr.contains("panicked") && !stderr.contains("listening on"), "{stderr}");
    }
}

#[test]
fn an_address_of_another_machine_is_explained() {
    let (code, stderr) = run_to_end("--listen 192.0.2.1:80");
    assert!(code.is_some_and(|code| code != 0), "{code:?}: {stderr}");
    assert!(stderr.contains("192.0.2.1:80") && !stderr.contains("panicked"), "{stderr}");
}

#[test]
fn serve_is_the_default_command() {
    let server = Throng::start("serve --echo");
    server.websocket().echo("hello");
}
