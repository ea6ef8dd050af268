//! Frames as clients send them, right and wrong, at the limits of production (RFC 6455, sections 5 to 8).
#![cfg(feature = "cli")] // There is no binary without it.

mod support;

use std::time::Instant;
use support::*;

/// `bytes`, the shortest sequence that proves a violation, is refused with `code` as soon as it has arrived,
/// however it is cut. What came before is delivered; nothing of it, and nothing behind it, is.
#[track_caller]
fn violates(server: &Throng, bytes: &[u8], code: u16) {
    for cut in Cut::ALL {
        let mut peer = server.websocket();
        peer.send_cut(&[&text("before").bytes(), bytes, &text("behind").bytes()].concat(), cut);
        peer.expect(TEXT, "before");
        assert!(!peer.expect_close(code).is_empty(), "a violation is explained");
        peer.expect_eof();
    }
    let mut peer = server.websocket();
    peer.send(bytes);
    peer.expect_close(code);
    peer.expect_eof();
    assert!(!peer.was_reset(), "what it still sends is to be discarded");
}

macro_rules! violations {
    ($($claim:ident: $frames:expr => $code:literal;)*) => {
        $(#[test] fn $claim() { violates(&Throng::start("--echo"), &wire(&$frames), $code); })*
    };
}

violations! {
    an_unmasked_text_is_refused: [text("hi").unmasked()] => 1002;
    an_unmasked_empty_frame_is_refused: [text("").unmasked()] => 1002;
    an_unmasked_ping_is_refused: [frame(PING, "hi").unmasked()] => 1002;
    an_unmasked_close_is_refused: [close(1000, "").unmasked()] => 1002;
    the_first_reserved_bit_is_refused: [text("hi").reserved(0x40)] => 1002;
    the_second_reserved_bit_is_refused: [text("hi").reserved(0x20)] => 1002;
    the_third_reserved_bit_is_refused: [text("hi").reserved(0x10)] => 1002;
    a_reserved_bit_on_a_ping_is_refused: [frame(PING, "hi").reserved(0x40)] => 1002;
    a_reserved_bit_on_a_continuation_is_refused: [text("a").unfinished(), frame(CONTINUATION, "b").reserved(0x40)]
        => 1002;
    a_fragmented_ping_is_refused: [frame(PING, "").unfinished()] => 1002;
    a_fragmented_pong_is_refused: [frame(PONG, "").unfinished()] => 1002;
    a_fragmented_close_is_refused: [frame(CLOSE, "").unfinished()] => 1002;
    a_ping_of_126_bytes_is_refused_by_its_header: [frame(PING, "").announcing(126)] => 1002;
    a_pong_of_126_bytes_is_refused_by_its_header: [frame(PONG, "").announcing(126)] => 1002;
    a_close_of_126_bytes_is_refused_by_its_header: [frame(CLOSE, "").announcing(126)] => 1002;
    a_ping_of_64_kib_is_refused_by_its_header: [frame(PING, "").announcing(65_536)] => 1002;
    a_length_of_125_in_16_bits_is_refused: [text("").announcing(125).length_in(16)] => 1002;
    a_length_of_0_in_16_bits_is_refused: [text("").length_in(16)] => 1002;
    a_length_of_125_in_64_bits_is_refused: [text("").announcing(125).length_in(64)] => 1002;
    a_length_of_65535_in_64_bits_is_refused: [text("").announcing(65_535).length_in(64)] => 1002;
    a_control_length_in_16_bits_is_refused: [frame(PING, "").announcing(5).length_in(16)] => 1002;
    a_length_with_its_top_bit_set_is_refused: [text("").announcing(1 << 63)] => 1002;
    a_length_of_all_ones_is_refused: [text("").announcing(u64::MAX)] => 1002;
    a_continuation_of_nothing_is_refused: [frame(CONTINUATION, "hi")] => 1002;
    an_unfinished_continuation_of_nothing_is_refused: [frame(CONTINUATION, "hi").unfinished()] => 1002;
    a_text_behind_an_unfinished_continuation_is_refused:
        [text("a").unfinished(), frame(CONTINUATION, "b").unfinished(), text("c")]
        => 1002;
    a_text_inside_a_fragmented_text_is_refused: [text("a").unfinished(), text("b")] => 1002;
    a_binary_inside_a_fragmented_text_is_refused: [text("a").unfinished(), frame(BINARY, "b")] => 1002;
    a_second_start_of_a_message_is_refused: [frame(BINARY, "a").unfinished(), frame(BINARY, "b").unfinished()] => 1002;
    a_close_of_one_byte_is_refused: [frame(CLOSE, [3])] => 1002;
    a_close_reason_that_is_no_utf8_is_refused: [close(1000, b"bye\xFF")] => 1007;
    a_close_reason_that_ends_inside_a_character_is_refused: [close(1000, b"\xE2\x82")] => 1007;
    a_text_that_ends_inside_a_character_is_refused: [text(b"\xE2\x82")] => 1007;
    a_fragmented_text_that_ends_inside_a_character_is_refused:
        [text(b"\xE2").unfinished(), frame(CONTINUATION, b"\x82")]
        => 1007;
    a_character_left_open_by_an_empty_last_fragment_is_refused: [text(b"\xE2").unfinished(), frame(CONTINUATION, "")]
        => 1007;
    a_message_one_byte_too_long_is_refused_by_its_header: [text("").announcing(65_537)] => 1009;
    a_binary_one_byte_too_long_is_refused_by_its_header: [frame(BINARY, "").announcing(65_537)] => 1009;
    a_message_of_2_to_the_63_less_1_is_refused_by_its_header: [text("").announcing((1 << 63) - 1)] => 1009;
    fragments_that_add_up_to_one_byte_too_many_are_refused_by_the_header:
        [text("x".repeat(65_536)).unfinished(), frame(CONTINUATION, "").announcing(1)]
        => 1009;
    many_fragments_that_add_up_to_too_much_are_refused: [
        frame(BINARY, [1; 30_000]).unfinished(), frame(CONTINUATION, [2; 30_000]).unfinished(),
        frame(PONG, "between"), frame(CONTINUATION, "").announcing(5_537)] => 1009;
}

#[test]
fn every_reserved_opcode_is_refused() {
    let server = Throng::start("--echo");
    for opcode in (0x3..=0x7).chain(0xB..=0xF) {
        violates(&server, &frame(opcode, "").bytes(), 1002);
    }
}

#[test]
fn close_codes_that_may_not_be_sent_are_refused() {
    // Section 7.4.2: below 1000; for reporting only; reserved; unassigned; above the private range.
    let server = Throng::start("--echo");
    for code in [0, 1, 999, 1005, 1006, 1015, 1004, 1016, 1100, 2000, 2999, 5000, 65_535] {
        violates(&server, &close(code, "x").bytes(), 1002);
    }
}

#[test]
fn close_codes_that_may_be_sent_are_echoed() {
    // Section 7.4.1 and the registry behind it; then the ranges of libraries and of applications.
    let server = Throng::start("--echo");
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999] {
        for reason in [String::new(), "€".repeat(41)] {
            let mut peer = server.websocket();
            peer.send(close(code, reason).bytes());
            peer.expect_close(code);
            peer.expect_eof();
        }
    }
}

#[test]
fn an_empty_close_is_answered_by_an_empty_close() {
    let server = Throng::start("--echo");
    for cut in Cut::ALL {
        let mut peer = server.websocket();
        peer.send_cut(&frame(CLOSE, "").bytes(), cut);
        assert_eq!(peer.rest(), [0x88, 0]);
    }
}

#[test]
fn what_comes_behind_a_close_is_ignored() {
    let server = Throng::start("--echo");
    let behind = [text("late"), frame(PING, "late"), close(4000, ""), text("").unmasked()];
    let mut peer = server.websocket();
    peer.send([text("in time").bytes(), close(1000, "").bytes(), wire(&behind)].concat());
    peer.expect(TEXT, "in time");
    peer.expect_close(1000);
    peer.expect_eof();
    assert!(!peer.was_reset(), "what it still sends is to be discarded");
}

#[test]
fn a_close_inside_a_fragmented_message_ends_the_connection() {
    let server = Throng::start("--echo");
    let mut peer = server.websocket();
    peer.send(wire(&[text("a").unfinished(), close(1000, "")]));
    peer.expect_close(1000);
    peer.expect_eof();
}

#[test]
fn a_peer_that_never_answers_a_close_is_dropped_even_if_it_keeps_sending() {
    let server = Throng::start("--echo --close-timeout 0.5");
    let mut peer = server.websocket();
    peer.send(text("hi").unmasked().bytes());
    peer.expect_close(1002);
    let closed = Instant::now();
    eventually("sending fails", millis(2500), || peer.try_send(text("still here").bytes()).is_err());
    assert!(closed.elapsed() > millis(300), "it had no time to answer: {:?}", closed.elapsed());
}

#[test]
fn a_peer_that_is_silent_after_a_violation_is_dropped() {
    let server = Throng::start("--echo --close-timeout 0.5");
    let mut peer = server.websocket();
    peer.send(text("hi").unmasked().bytes());
    peer.expect_close(1002);
    server.until_connections(..=1.0, millis(2500));
}

/// Sequences that are UTF-8 up to their last byte.
const BAD_AT_THE_LAST_BYTE: [&[u8]; 16] = [
    b"\x80",
    b"ok\xBF",
    b"\xC0",
    b"\xC1",
    b"\xF5",
    b"\xFF",
    b"\xC2\x20",
    b"\xC2\xC2",
    b"\xE0\x9F",
    b"\xE2\x82\x20",
    b"\xED\xA0",
    b"\xEF\xBF\xFF",
    b"\xF0\x8F",
    b"\xF0\x90\x80\x20",
    b"\xF4\x90",
    b"\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC\xCE\xB5\xED\xA0",
];

#[test]
fn text_is_refused_at_its_first_bad_byte_and_not_before() {
    let server = Throng::start("--echo");
    for bad in BAD_AT_THE_LAST_BYTE {
        let bytes = text(bad).announcing(100).bytes();
        let (last, good) = bytes.split_last().unwrap();
        let mut peer = server.websocket();
        peer.send(good);
        assert!(!peer.hears(millis(20)), "{bad:02X?} is good without its last byte");
        peer.send([*last]);
        peer.expect_close(1007);
        peer.expect_eof();
        violates(&server, &bytes, 1007);
    }
}

#[test]
fn text_is_refused_at_its_first_bad_byte_across_fragments() {
    let server = Throng::start("--echo");
    for bad in BAD_AT_THE_LAST_BYTE {
        let (good, last) = bad.split_at(bad.len() - 1);
        violates(&server, &wire(&[text(good).unfinished(), frame(CONTINUATION, last).announcing(50)]), 1007);
        let mut fragments: Vec<u8> = text("").unfinished().bytes();
        fragments.extend(good.iter().flat_map(|byte| frame(CONTINUATION, [*byte]).unfinished().bytes()));
        fragments.extend(wire(&[frame(PONG, "between"), frame(CONTINUATION, last).announcing(50)]));
        violates(&server, &fragments, 1007);
    }
}

#[test]
fn characters_cut_between_fragments_are_whole_again() {
    let server = Throng::start("--echo");
    let message = "κόσμε €  𐀀 \u{10FFFF} \u{0} \u{FFFE}";
    let mut fragments = text("").unfinished().bytes();
    fragments.extend(message.bytes().flat_map(|byte| frame(CONTINUATION, [byte]).unfinished().bytes()));
    fragments.extend(frame(CONTINUATION, "").bytes());
    for cut in Cut::ALL {
        let mut peer = server.websocket();
        peer.send_cut(&fragments, cut);
        peer.expect(TEXT, message);
    }
}

#[test]
fn binary_need_not_be_utf8() {
    let server = Throng::start("--echo");
    let mut peer = server.websocket();
    peer.send(frame(BINARY, b"\xFF\xC0\x80").bytes());
    peer.expect(BINARY, b"\xFF\xC0\x80");
}

#[test]
fn every_edge_of_the_length_field_is_echoed() {
    let server = Throng::start("--echo --max-message 70000");
    for len in [0, 1, 125, 126, 127, 65_535, 65_536] {
        let payload: Vec<u8> = (0..len).map(|n| b'a' + (n % 26) as u8).collect();
        for cut in Cut::ALL {
            let mut peer = server.websocket();
            for opcode in [TEXT, BINARY] {
                peer.send_cut(&frame(opcode, &payload).bytes(), cut);
                peer.expect(opcode, &payload);
            }
        }
    }
}

#[test]
fn a_message_of_exactly_the_limit_passes() {
    for limit in [1, 125, 126, 65_536] {
        let server = Throng::start(&format!("--echo --max-message {limit}"));
        let whole = vec![b'x'; limit];
        let mut peer = server.websocket();
        peer.send(text(&whole).bytes());
        peer.expect(TEXT, &whole);
        let (start, rest) = whole.split_at(limit / 2);
        peer.send(wire(&[text(start).unfinished(), frame(PING, "x"), frame(CONTINUATION, rest)]));
        peer.expect(PONG, "x");
        peer.expect(TEXT, &whole);
        peer.send(text("").announcing(limit as u64 + 1).bytes());
        peer.expect_close(1009);
        peer.expect_eof();
    }
}

#[test]
fn control_frames_between_fragments_are_answered_at_once() {
    let server = Throng::start("--echo");
    for cut in Cut::ALL {
        let mut peer = server.websocket();
        peer.send_cut(&wire(&[text("a").unfinished(), frame(PING, "1"), frame(CONTINUATION, "").unfinished()]), cut);
        peer.expect(PONG, "1");
        peer.send_cut(&wire(&[frame(PONG, "?"), frame(PING, "2"), frame(CONTINUATION, "b")]), cut);
        peer.expect(PONG, "2");
        peer.expect(TEXT, "ab");
    }
}

#[test]
fn pings_of_every_length_come_back_as_pongs() {
    let server = Throng::start("");
    let mut peer = server.websocket();
    for len in 0..=125 {
        let payload: Vec<u8> = (0..len).map(|n| 0x80 | n).collect();
        peer.send(frame(PING, &payload).bytes());
        peer.expect(PONG, &payload);
    }
}

#[test]
fn of_many_pings_the_last_is_answered() {
    // Section 5.5.3 lets a server leave out the older ones, but not reorder them.
    let server = Throng::start("");
    let mut peer = server.websocket();
    peer.send((0..=99).flat_map(|n: u8| frame(PING, [n]).bytes()).collect::<Vec<_>>());
    let mut last = None;
    while last != Some(99) {
        let pong = peer.frame();
        assert_eq!(pong.opcode, PONG);
        assert!(last < Some(pong.payload[0]), "{last:?} before {pong:?}");
        last = Some(pong.payload[0]);
    }
}

#[test]
fn unsolicited_pongs_are_ignored() {
    let server = Throng::start("--echo");
    let mut peer = server.websocket();
    peer.send(wire(&[frame(PONG, ""), frame(PONG, "never asked"), frame(PONG, [0xFF; 125]), text("hi")]));
    peer.expect(TEXT, "hi");
}

#[test]
fn many_messages_in_one_packet_are_answered_in_order() {
    let server = Throng::start("--echo");
    for cut in Cut::ALL {
        let mut peer = server.websocket();
        let messages = || (0..500).map(|n| if n % 2 == 0 { (TEXT, n.to_string()) } else { (BINARY, n.to_string()) });
        peer.send_cut(&messages().flat_map(|(opcode, m)| frame(opcode, m).bytes()).collect::<Vec<_>>(), cut);
        for (opcode, message) in messages() {
            peer.expect(opcode, message);
        }
    }
}

#[test]
fn any_masking_key_is_undone() {
    let server = Throng::start("--echo");
    let mut peer = server.websocket();
    for key in [[0; 4], [0xFF; 4], [1, 2, 3, 4], [0, 0, 0, 0x80]] {
        for len in 0..70 {
            let payload = "0123456789".repeat(7)[..len].to_owned();
            peer.send(text(&payload).masked_with(key).bytes());
            peer.expect(TEXT, payload);
        }
    }
}

#[test]
fn the_server_never_masks() {
    let server = Throng::start("--echo");
    let mut peer = server.websocket();
    peer.send(wire(&[text("hi"), frame(PING, "p"), close(4321, "")]));
    assert_eq!(peer.rest(), b"\x81\x02hi\x8A\x01p\x88\x02\x10\xE1");
}

#[test]
fn without_echo_messages_are_checked_and_dropped() {
    let server = Throng::start("");
    let mut peer = server.websocket();
    peer.send(wire(&[text("hi"), frame(BINARY, "hi"), frame(PING, "p")]));
    peer.expect(PONG, "p");
    peer.send(text(b"\xFF").bytes());
    peer.expect_close(1007);
}
