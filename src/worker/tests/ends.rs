//! The server's end, and that of connections that are too old.

use super::*;
use crate::config::Drain;
use crate::error::End;
use crate::worker::Why;
use std::cell::Cell;

fn output(client: &Shared_) -> String {
    String::from_utf8_lossy(&client.borrow().output).into_owned()
}

fn pass(stage: &mut Stage, ms: u64) -> bool {
    stage.script.borrow_mut().now += ms;
    stage.worker.turn().expect("the script does not fail")
}

#[test]
fn while_a_drain_is_put_off_everything_goes_on() {
    let mut stage = Stage::new();
    let first = stage.client();
    stage.turn();
    stage.worker.begin_drain(Drain { delay: Duration::from_secs(5), over: Duration::from_secs(1) });
    let second = stage.client();
    assert!(pass(&mut stage, 4_999));
    stage.say(&second, HELLO);
    stage.turn();
    assert!(output(&second).ends_with("hello"));
    assert_eq!(stage.worker.timeout(), Some(Duration::from_millis(1)), "it wakes up by itself");
    for _ in 0..20 {
        pass(&mut stage, 100);
    }
    for client in [first, second] {
        assert!(output(&client).contains("\u{3}\u{fffd}the server is shutting down"), "{:?}", output(&client));
    }
}

/// Whom TCP_DEFER_ACCEPT kept back when the end began shows within a second.
#[test]
fn who_comes_at_the_last_moment_is_told() {
    let mut stage = Stage::new();
    let _held = stage.client();
    stage.turn();
    stage.worker.begin_drain(Duration::from_secs(5).into());
    assert!(pass(&mut stage, 999));
    let late = stage.client();
    assert!(pass(&mut stage, 1));
    assert!(
        output(&late).starts_with("HTTP/1.1 503 ") && output(&late).contains("\"draining\""),
        "{:?}",
        output(&late)
    );
    assert!(output(&late).contains("\r\nRetry-After: 5\r\n"));
    assert_eq!(stage.worker.accepting.count(), 0, "nobody else can come");
}

#[test]
fn a_request_in_the_drain_is_answered_and_ends_its_connection() {
    let mut stage = Stage::new();
    let client = stage.client_with(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    let _other = stage.client();
    stage.turn();
    assert!(output(&client).contains("\r\nConnection: Upgrade, keep-alive\r\n"));
    client.borrow_mut().output.clear();
    stage.worker.begin_drain(Duration::from_secs(5).into());
    stage.say(&client, b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    stage.turn();
    assert!(output(&client).is_empty() || output(&client).contains("\r\nConnection: Upgrade, close\r\n"));
}

#[test]
fn whoever_is_left_at_the_deadline_is_reset() {
    let mut stage = Stage::new();
    let clients: Vec<_> = (0..8).map(|_| stage.client()).collect();
    stage.turn();
    stage.worker.begin_drain(Duration::from_secs(2).into());
    let closed = || clients.iter().filter(|client| output(client).contains("shutting down")).count();
    let mut seen = Vec::new();
    for _ in 0..8 {
        pass(&mut stage, 250);
        seen.push(closed());
    }
    assert!(seen.windows(2).all(|pair| pair[1] - pair[0] <= 2), "they are spread: {seen:?}");
    assert_eq!(closed(), 8);
    // The close timeout's 3 s, and half a second; nobody answers.
    let mut turns = 0;
    while pass(&mut stage, 250) {
        turns += 1;
        assert!(turns < 20);
    }
    assert!(clients.iter().all(|client| client.borrow().closed));
    stage.assert_empty();
}

#[test]
fn old_connections_are_closed_and_young_ones_are_not() {
    let mut stage = Stage::new();
    stage.worker.aging = Some(aging::Aging::new(Duration::from_secs(100), Millis(0)));
    let old: Vec<_> = (0..6).map(|_| stage.client()).collect();
    stage.turn();
    let is_told = |client: &Shared_| output(client).contains("as old as it may become");
    let (first, all) = (Cell::new(0), Cell::new(0));
    let mut young = None;
    for second in 1..=120 {
        if second == 60 {
            young = Some(stage.client());
        }
        for _ in 0..4 {
            pass(&mut stage, 250);
            // They answer pings.
            for client in old.iter().chain(&young).filter(|client| !is_told(client)) {
                stage.say(client, b"\x8A\x80\0\0\0\0");
            }
        }
        let told = old.iter().filter(|client| is_told(client)).count();
        if told > 0 && first.get() == 0 {
            first.set(second);
        }
        if told == 6 && all.get() == 0 {
            all.set(second);
        }
    }
    assert!(first.get() >= 89 && all.get() <= 105 && first.get() < all.get(), "from {first:?} s to {all:?} s");
    assert!(!is_told(&young.expect("it came")));
    assert_eq!(stage.metrics().ended.read(End::MaxAge as usize), 6);
}

/// An event stream ends without a Close, so that nothing but these says why.
#[test]
fn why_an_event_stream_ended_is_remembered() {
    for why in [End::GoingAway, End::MaxAge, End::Expired] {
        let mut stage = Stage::with(super::polls::Urls);
        let client = stage.client_with(b"GET /topics/t HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n");
        stage.turn();
        assert!(output(&client).contains("text/event-stream"), "{}", output(&client));
        let slot = 0;
        if why == End::Expired {
            stage.worker.expiries.insert(slot, 1);
        } else {
            stage.worker.see_off(slot, why, false);
        }
        stage.turn();
        stage.hang_up(&client);
        stage.turn();
        let ends: Vec<_> = stage.worker.recent.iter().map(|gone| (gone.why, gone.transport.word())).collect();
        assert_eq!(ends, [(Why::Ended(why), "event_stream")]);
    }
}
