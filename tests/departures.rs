//! Attacks by leaving, by leaving half, and by not leaving: whoever goes, however and in the middle of whatever, is gone with
//! everything that was theirs, and nobody else notices.
//!
//! Some of them stop the server for a moment, so that it finds what was sent and that its sender is gone in one turn.
#![cfg(feature = "cli")] // There is no binary without it.

mod support;

use socket2::SockRef;
use std::io::Write;
use std::net::Shutdown;
use std::time::Instant;
use support::*;

const MIB: u64 = 1 << 20;

// Closes.

#[test]
fn ten_thousand_closes_in_one_write_are_answered_once() {
    let siege = Siege::lay("");
    for _ in 0..crowd_of(20) {
        let mut peer = siege.server.websocket();
        peer.send(close(1000, "bye").bytes().repeat(10_000));
        peer.expect_close(1000);
        peer.expect_end();
        // What it still sends is thrown away for a while, so that it gets to read the close, and then refused.
        let taken = (0..1024).take_while(|_| peer.try_send([0; 65_536]).is_ok()).count();
        assert!(taken < 512, "{} MiB were taken behind a close", taken / 16);
    }
    siege.lift(MIB);
}

#[test]
fn what_comes_behind_a_close_is_not_done() {
    const CROWD: usize = crowd_of(200);
    let siege = Siege::lay("--client-publish");
    let publish = |data: &str| text(format!(r#"{{"id":2,"publish":{{"channel":"t","data":"{data}"}}}}"#));
    let spoken: [(&str, Vec<Frame>, Frame); 2] = [
        ("/topics/t", vec![text("in time")], text("late")),
        ("/connection/websocket", vec![text(r#"{"id":1,"connect":{}}"#), publish("in time")], publish("late")),
    ];
    for (n, cut) in (0..CROWD).flat_map(|n| Cut::ALL.map(|cut| (n, cut))) {
        let (target, before, behind) = &spoken[n % 2];
        let mut peer = siege.server.connect();
        peer.send(upgrade().line(format!("GET {target} HTTP/1.1")).bytes());
        assert_eq!(peer.head().status, 101);
        let last = [close(1000, ""), behind.clone(), close(4000, ""), behind.clone(), behind.clone().unmasked()];
        peer.send_cut(&[wire(before), wire(&last)].concat(), cut);
        let closed = peer.frame_behind_all(TEXT).expect("an answer to the Close");
        assert_eq!((closed.opcode, &closed.payload[..2]), (CLOSE, &1000_u16.to_be_bytes()[..]));
        peer.expect_end();
    }
    assert_eq!(siege.server.metric("throng_published_total"), 3.0 * CROWD as f64);
    assert_eq!(siege.server.metric("throng_violations_total"), 0.0);
    assert!(!siege.server.get("/topics/t").contains("late"));
    siege.lift(MIB);
}

#[test]
fn who_ignores_the_close_and_pings_on_is_dropped_in_time() {
    const CROWD: usize = crowd_of(1000);
    let siege = Siege::lay("--close-timeout 1");
    // Half of them broke the protocol, half did what the service does not allow.
    let reader = upgrade().line("GET /topics/t HTTP/1.1").bytes();
    let mut crowd = siege.crowd(CROWD, |n| match n % 2 {
        0 => [upgrade().bytes(), text("x").unmasked().bytes()].concat(),
        _ => reader.clone(),
    });
    for (n, peer) in crowd.iter_mut().enumerate() {
        assert_eq!(peer.head().status, 101);
        if n % 2 == 1 {
            peer.send(text("not allowed").bytes());
        }
        peer.expect_close(if n % 2 == 0 { 1002 } else { 1008 });
    }
    let (closed, pings) = (Instant::now(), frame(PING, "alive").bytes().repeat(10));
    // A pong behind the close would be found by `expect_end`.
    eventually("all are dropped", millis(4000), || {
        crowd.retain_mut(|peer| {
            peer.try_send(&pings).is_ok() || {
                peer.expect_end();
                false
            }
        });
        crowd.is_empty()
    });
    assert!(closed.elapsed() > millis(400), "they had no time to answer: {:?}", closed.elapsed());
    siege.lift(2 * MIB);
}

// Half-closes and resets.

#[test]
fn half_closed_connections_are_freed_wherever_they_stand() {
    const CROWD: usize = crowd_of(3000);
    let post = plain("").line("POST /topics/t HTTP/1.1").with("Content-Length: 5").bytes();
    let stages: [Vec<u8>; 10] = [
        Vec::new(),
        b"GET / HT".to_vec(),
        [post, b"abc".to_vec()].concat(),
        plain("/healthz").bytes(),
        plain("/topics/t?wait=60").bytes(),
        plain("/topics/t").with("Accept: text/event-stream").bytes(),
        upgrade().bytes(),
        [upgrade().bytes(), text("hello").bytes()[..8].to_vec()].concat(),
        [upgrade().bytes(), text("hello").unfinished().bytes()].concat(),
        [upgrade().bytes(), close(1000, "").bytes()].concat(),
    ];
    let siege = Siege::lay("");
    let crowd = siege.crowd(CROWD, |n| stages[n % stages.len()].clone());
    // No timeout has a part in this: all of them are 10 s and more.
    crowd.iter().for_each(|peer| drop(peer.stream().shutdown(Shutdown::Write)));
    siege.server.until_connections(..=2.0, millis(4000));
    drop(crowd);
    siege.lift(CROWD as u64 * 1536 + MIB);
}

#[test]
fn whoever_stops_reading_holds_a_bounded_amount_and_is_reset_in_time() {
    const CROWD: usize = crowd_of(100);
    let siege = Siege::lay("--write-timeout 1");
    let message = frame(BINARY, vec![7; 32_768]).bytes();
    // How far into a message each of them is.
    let mut crowd: Vec<(Raw, usize)> = siege.crowd(CROWD, |_| upgrade().bytes()).into_iter().map(|p| (p, 0)).collect();
    for (peer, _) in &mut crowd {
        assert_eq!(peer.head().status, 101);
        SockRef::from(peer.stream()).set_recv_buffer_size(16_384).unwrap();
        peer.stream().set_nonblocking(true).unwrap();
    }
    let began = Instant::now();
    eventually("all are reset", PATIENCE, || {
        crowd.retain_mut(|(peer, at)| match peer.stream().write(&message[*at..]) {
            Ok(taken) => {
                *at = (*at + taken) % message.len();
                true
            }
            Err(error) => timed_out(&error),
        });
        crowd.is_empty()
    });
    assert!(began.elapsed() > millis(900), "they had no time to read: {:?}", began.elapsed());
    assert_eq!(siege.server.metric("throng_closed_total{reason=\"write_stall\"}"), CROWD as f64);
    // What waits when reading stops, and the message that made it so much, there and back.
    siege.lift(CROWD as u64 * (65_536 + 3 * 32_768) + MIB);
}

#[test]
fn whoever_is_gone_before_its_subscription_is_answered_takes_nobody_with_it() {
    const CROWD: usize = 64;
    let siege = Siege::lay("--presence --join-leave --force-recovery");
    for connects in 0..4 {
        let mut crowd = siege.crowd(CROWD, |_| upgrade().line("GET /connection/websocket HTTP/1.1").bytes());
        for peer in &mut crowd {
            assert_eq!(peer.head().status, 101);
            peer.send(text(r#"{"id":1,"connect":{}}"#).bytes());
            peer.frame();
        }
        // It reads what they want when there is nobody left to be told: half of them are the only ones on their topic.
        siege.server.signal("STOP");
        for (n, mut peer) in crowd.into_iter().enumerate() {
            let topic = if n % 2 == 0 { format!("{connects}-{n}") } else { "all".to_owned() };
            let subscribe =
                format!(r#"{{"id":2,"subscribe":{{"channel":"{topic}","recover":true,"join_leave":true}}}}"#);
            peer.send(text(subscribe + "\n" + r#"{"id":3,"history":{"channel":"all","limit":9}}"#).bytes());
            if n % 8 < 6 {
                peer.reset();
            }
        }
        siege.server.signal("CONT");
        siege.server.until_connections(..=2.0, PATIENCE);
    }
    siege.lift(2 * MIB);
}

#[test]
fn what_was_for_somebody_who_is_gone_reaches_nobody_else() {
    const CROWD: usize = 32;
    let siege = Siege::lay("");
    let mut publisher = siege.server.connect();
    let head = plain("").line("POST /topics/private HTTP/1.1").with("Content-Length: 6000").bytes();
    publisher.send([&head, "secret".repeat(1000).as_bytes()].concat());
    assert_eq!(publisher.answer().status, 200);
    let ask = |peer: &mut Raw| {
        peer.send(text("{\"id\":3,\"ping\":{}}\n{\"id\":4,\"history\":{\"channel\":\"private\",\"limit\":9}}").bytes());
    };
    for _ in 0..4 {
        let mut leaving = siege.crowd(CROWD, |_| upgrade().line("GET /connection/websocket HTTP/1.1").bytes());
        for peer in &mut leaving {
            assert_eq!(peer.head().status, 101);
            peer.send(text(r#"{"id":1,"connect":{}}"#).bytes());
            peer.frame();
        }
        let mut staying: Vec<Raw> = (0..CROWD).map(|_| siege.server.websocket()).collect();
        // A small answer is put aside for a moment, a large one is not, and both come when nobody is there to be told.
        siege.server.signal("STOP");
        for (mut gone, stays) in leaving.into_iter().zip(&mut staying) {
            ask(&mut gone);
            gone.reset();
            stays.send(text("mine").bytes());
        }
        siege.server.signal("CONT");
        staying.iter_mut().for_each(|peer| peer.expect(TEXT, "mine"));
    }
    drop(publisher);
    siege.lift(2 * MIB);
}

#[test]
fn a_broadcast_reaches_the_others_whatever_a_crowd_does() {
    const EACH: usize = crowd_of(250);
    const MESSAGES: usize = 100;
    let siege = Siege::lay("--write-timeout 1 --close-timeout 1");
    let head = upgrade().line("GET /topics/news HTTP/1.1").bytes();
    let [mut readers, stalled, resetting, half_closing, speaking] = [(); 5].map(|()| {
        let mut peers = siege.crowd(EACH, |_| head.clone());
        peers.iter_mut().for_each(|peer| assert_eq!(peer.head().status, 101));
        peers
    });
    let message = |n: usize| format!("{n} {}", "x".repeat(8000));
    let mut publisher = siege.server.connect();
    let mut going = resetting.into_iter().zip(half_closing).zip(speaking);
    let mut left = Vec::new();
    for n in 0..MESSAGES {
        let post = plain("").line("POST /topics/news HTTP/1.1").with(format!("Content-Length: {}", message(n).len()));
        publisher.send([post.bytes(), message(n).into_bytes()].concat());
        // Between two messages, some leave with a reset, some half-close, some say what they may not.
        for ((resets, half_closes), mut speaks) in going.by_ref().take(EACH.div_ceil(MESSAGES / 4)) {
            resets.reset();
            half_closes.stream().shutdown(Shutdown::Write).unwrap();
            speaks.send(text("mine").bytes());
            left.push((half_closes, speaks));
        }
        assert_eq!(publisher.answer().status, 200);
        readers.iter_mut().for_each(|peer| peer.expect(TEXT, message(n)));
    }
    drop(publisher);
    siege.server.until_connections(..=2.0 + EACH as f64, PATIENCE);
    assert_eq!(left.len(), EACH);
    drop((readers, stalled, left));
    // The topic's log, what each message is encoded to, and the rest of one at each that stopped reading.
    siege.lift(4 * MIB + EACH as u64 * 10_000);
}

#[test]
fn a_descriptor_used_again_within_one_batch_of_events_is_somebody_elses() {
    const CROWD: usize = 64;
    const ROUNDS: usize = 10;
    let siege = Siege::lay("");
    for round in 0..ROUNDS {
        let mut leaving: Vec<Raw> = (0..CROWD).map(|_| siege.server.websocket()).collect();
        // Stopped meanwhile, it finds the ends of some and the beginnings of others in one turn of its loop.
        siege.server.signal("STOP");
        for (n, mut peer) in leaving.drain(..).enumerate() {
            peer.send(text(format!("lost {n}")).bytes());
            match n % 3 {
                0 => peer.reset(),
                1 => peer.send(close(1000, "").bytes()),
                _ => {}
            }
        }
        let hello = |n| format!("round {round}, number {n}");
        let mut coming = siege.crowd(CROWD, |n| [upgrade().bytes(), text(hello(n)).bytes()].concat());
        siege.server.signal("CONT");
        for (n, peer) in coming.iter_mut().enumerate() {
            assert_eq!(peer.head().status, 101);
            peer.expect(TEXT, hello(n));
            peer.echo("and nothing of anybody else");
        }
    }
    siege.lift(2 * MIB);
}
