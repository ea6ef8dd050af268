//! A message has its time from its first byte to its last, whatever comes in between.

use super::*;
use crate::time::Span;

fn seconds(seconds: u64) -> Span {
    Span::covering(Duration::from_secs(seconds))
}

/// Seconds until the connection was closed, while a piece of a message comes every second.
fn lasts(mut piece: impl FnMut(u64) -> Vec<u8>) -> Option<u64> {
    let mut pair = Pair::open();
    for second in 0..100 {
        pair.feed(&piece(second));
        if pair.conn.phase() == Phase::Refusing {
            assert_eq!(pair.echo.violations, [Violation::MessageTimeout]);
            assert!(pair.heard().last().is_some_and(|last| last.starts_with("close Some(1008)")));
            assert_eq!(pair.conn.held(), 0, "what was there of it is gone");
            return Some(second);
        }
        pair.now = pair.now + Span(15); // just short of a second
    }
    None
}

fn frame(opcode: Opcode, fin: bool, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    encode_masked(&mut frame, opcode, payload, [1, 2, 3, 4]);
    frame[0] = frame[0] & 0x7F | u8::from(fin) << 7;
    frame
}

#[test]
fn a_message_that_trickles_is_ended_in_time_however_it_does() {
    let about = |lasted: Option<u64>| assert!(lasted.is_some_and(|lasted| (30..=33).contains(&lasted)), "{lasted:?}");
    // A frame byte by byte, a header byte by byte, fragments without end, empty ones, pings between them.
    let long = frame(Opcode::Binary, true, &[0; 1000]);
    about(lasts(|second| long[second as usize..][..1].to_vec()));
    let opcode = |second| if second == 0 { Opcode::Text } else { Opcode::Continuation };
    about(lasts(|second| frame(opcode(second), false, b"x")));
    about(lasts(|second| frame(opcode(second), false, b"")));
    about(lasts(|second| [frame(opcode(second), false, b""), frame(Opcode::Ping, true, b"")].concat()));
    about(lasts(|second| if second == 0 { vec![0x81] } else { Vec::new() }));
}

#[test]
fn messages_that_are_completed_may_go_on_for_ever() {
    // Each ends in the middle of the next one.
    let mut rest = Vec::new();
    let halves = lasts(|_| {
        let mut piece = std::mem::take(&mut rest);
        let mut next = frame(Opcode::Binary, true, &[0; 1000]);
        rest = next.split_off(500);
        piece.append(&mut next);
        piece
    });
    assert_eq!(halves, None);
    let two = lasts(|second| frame([Opcode::Text, Opcode::Continuation][second as usize % 2], second % 2 == 1, b"x"));
    assert_eq!(two, None);
}

#[test]
fn silence_in_the_middle_of_a_message_ends_it_though_pings_are_answered() {
    let mut pair = Pair::open();
    pair.feed(&frame(Opcode::Text, false, b"half of it"));
    let start = pair.now;
    let mut due = pair.conn.deadline(pair.now, &pair.rules);
    assert_eq!(due, pair.conn.ping_due(&pair.rules));
    for _ in 0..3 {
        pair.now = due;
        let again = pair.conn.timer(pair.now, &pair.rules, &mut pair.output, &mut pair.echo);
        pair.flush();
        if pair.conn.phase() == Phase::Pinged {
            pair.say(Opcode::Pong, b"");
        }
        due = again.unwrap_or_else(|| pair.conn.deadline(pair.now, &pair.rules));
        if pair.conn.phase() == Phase::Refusing {
            break;
        }
    }
    assert_eq!(pair.echo.violations, [Violation::MessageTimeout]);
    assert_eq!(pair.now, start + pair.rules.message_timeout, "neither earlier nor later");
    assert!(pair.now.minus(start + seconds(30)) >= 0);
}
