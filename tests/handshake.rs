//! The opening handshake as clients meet it: what is accepted, what is refused, and that a refused client
//! can always read why (RFC 6455, section 4.2; RFC 9112).
#![cfg(feature = "cli")] // There is no binary without it.

mod support;

use std::time::Instant;
use support::*;

/// Sends `head` whole, byte by byte, cut at random, and with 64 KiB behind it. Each time the client reads the
/// whole answer: `status`, a problem document whose detail names the `fault`, and a clean end.
#[track_caller]
fn refused(head: impl Into<Vec<u8>>, status: u16, code: &str, fault: &str) -> Response {
    let (server, head) = (Throng::start("--echo"), head.into());
    let with_more = [&head[..], &[b'x'; 65_536]].concat();
    let answers = [(&head, Cut::Whole), (&head, Cut::ByteByByte), (&head, Cut::AtRandom), (&with_more, Cut::Whole)]
        .map(|(bytes, cut)| {
            let mut peer = server.connect();
            peer.send_cut(bytes, cut);
            let answer = peer.response();
            check_refusal(&answer, status, code, fault);
            assert!(!peer.was_reset(), "the answer was read, but by luck");
            answer
        });
    assert_eq!(server.get("/healthz").trim(), "ok");
    answers.into_iter().next().unwrap()
}

#[track_caller]
fn check_refusal(answer: &Response, status: u16, code: &str, fault: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert!(answer.lists("Connection", "close"), "{answer:?}");
    assert_eq!(answer.field("Content-Length"), Some(&*answer.body.len().to_string()), "one answer and no more");
    let problem = answer.problem();
    assert_eq!(problem["status"], status.to_string());
    assert_eq!(problem["code"], code, "{problem:?}");
    assert!(!problem["type"].is_empty() && !problem["title"].is_empty(), "{problem:?}");
    assert!(problem["detail"].contains(fault), "the detail should speak of `{fault}`: {problem:?}");
}

/// Sends `head` in every cut, with a frame behind it: each time it is a 101 and the frame comes back.
#[track_caller]
fn accepted(head: impl Into<Vec<u8>>) -> Response {
    let (server, head) = (Throng::start("--echo"), head.into());
    let answers = Cut::ALL.map(|cut| {
        let mut peer = server.connect();
        peer.send_cut(&[&head[..], &text("early").bytes()].concat(), cut);
        let answer = peer.head();
        assert_eq!(answer.status, 101, "{cut:?}: {answer:?}");
        peer.expect(TEXT, "early");
        answer
    });
    answers.into_iter().next().unwrap()
}

macro_rules! refusals {
    ($($claim:ident: $head:expr => $status:literal $code:literal, $fault:literal;)*) => {
        $(#[test] fn $claim() { refused($head, $status, $code, $fault); })*
    };
}

macro_rules! acceptances {
    ($($claim:ident: $head:expr;)*) => { $(#[test] fn $claim() { accepted($head); })* };
}

// The request line (RFC 9112, section 3).
refusals! {
    a_request_line_of_one_word_is_refused: upgrade().line("GET") => 400 "bad_request_line", "request line";
    a_request_line_without_a_version_is_refused: upgrade().line("GET /") => 400 "bad_request_line", "request line";
    a_second_space_in_the_request_line_is_refused: upgrade().line("GET  / HTTP/1.1")
        => 400 "bad_request_line", "request line";
    a_space_behind_the_request_line_is_refused: upgrade().line("GET / HTTP/1.1 ")
        => 400 "bad_request_line", "request line";
    a_tab_in_the_request_line_is_refused: upgrade().line("GET\t/\tHTTP/1.1") => 400 "bad_request_line", "request line";
    a_space_in_the_target_is_refused: upgrade().line("GET /a b HTTP/1.1") => 400 "bad_request_line", "request line";
    a_method_that_is_no_token_is_refused: upgrade().line("G(T / HTTP/1.1") => 400 "bad_request_line", "request line";
    a_lower_case_protocol_is_refused: upgrade().line("GET / http/1.1") => 505 "bad_version", "HTTP/1.1";
    another_protocol_is_refused: upgrade().line("GET / ICY/1.1") => 505 "bad_version", "HTTP/1.1";
    white_space_before_the_request_line_is_refused: upgrade().line(" GET / HTTP/1.1")
        => 400 "bad_request_line", "request line";
    a_tls_client_is_refused: *b"\x16\x03\x01\x02\x00\x01\x00\x01\xFC\x03\x03" => 400 "bad_request_line", "request line";
    a_relative_target_is_refused: upgrade().line("GET chat HTTP/1.1") => 400 "bad_target", "target";
    an_asterisk_as_target_is_refused: upgrade().line("GET * HTTP/1.1") => 400 "bad_target", "target";
    a_control_character_in_the_target_is_refused: upgrade().line("GET /a\x01b HTTP/1.1") => 400 "bad_target", "target";
    http_2_in_words_is_refused: upgrade().line("GET / HTTP/2.0") => 505 "bad_version", "HTTP/1.1";
    http_0_9_in_words_is_refused: upgrade().line("GET / HTTP/0.9") => 505 "bad_version", "HTTP/1.1";
    the_preface_of_http_2_is_refused: *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" => 505 "bad_version", "HTTP/1.1";
}

// Lines and fields (RFC 9112, sections 2.2 and 5).
refusals! {
    lines_that_end_in_lf_alone_are_refused: *b"GET / HTTP/1.1\nHost: a\n\n" => 400 "bare_lf", "LF";
    one_field_line_that_ends_in_lf_alone_is_refused: upgrade().with("X: a\nY: b") => 400 "bare_lf", "LF";
    an_empty_line_of_lf_alone_is_refused: *b"GET / HTTP/1.1\r\nHost: a\r\n\n" => 400 "bare_lf", "LF";
    a_carriage_return_inside_a_value_is_refused: upgrade().with("X: a\rb") => 400 "bad_header", "control";
    a_space_before_the_colon_is_refused: upgrade().with("X : a") => 400 "space_before_colon", "colon";
    a_tab_before_the_colon_is_refused: upgrade().with("X\t: a") => 400 "space_before_colon", "colon";
    a_folded_line_is_refused: upgrade().with("X: a").with(" b") => 400 "obsolete_folding", "fold";
    a_line_folded_by_a_tab_is_refused: upgrade().with("X: a").with("\tb") => 400 "obsolete_folding", "fold";
    white_space_before_the_first_field_is_refused: *b"GET / HTTP/1.1\r\n Host: a\r\n\r\n"
        => 400 "obsolete_folding", "white space";
    a_nul_in_a_value_is_refused: upgrade().with("X: a\0b") => 400 "nul_byte", "NUL";
    a_nul_in_a_name_is_refused: upgrade().with("X\0: a") => 400 "nul_byte", "NUL";
    a_control_character_in_a_value_is_refused: upgrade().with("X: a\x01b") => 400 "bad_header", "control";
    a_delete_character_in_a_value_is_refused: upgrade().with("X: a\x7Fb") => 400 "bad_header", "control";
    a_name_that_is_no_token_is_refused: upgrade().with("X(Y): a") => 400 "bad_header", "token";
    a_name_outside_ascii_is_refused: upgrade().with("Größe: 1") => 400 "bad_header", "token";
    an_empty_name_is_refused: upgrade().with(": a") => 400 "bad_header", "name";
    a_line_without_a_colon_is_refused: upgrade().with("X") => 400 "bad_header", "header line";
}

// Host (RFC 9112, section 3.2).
refusals! {
    a_missing_host_is_refused: upgrade().without("Host") => 400 "host_missing", "Host";
    a_missing_host_is_refused_on_plain_requests_too: plain("/healthz").without("Host") => 400 "host_missing", "Host";
    two_hosts_are_refused: upgrade().with("Host: other.test") => 400 "host_repeated", "one Host";
    the_same_host_twice_is_refused: upgrade().with("host: throng.test") => 400 "host_repeated", "one Host";
    two_hosts_in_one_line_are_refused: upgrade().but("Host: a.test, b.test") => 400 "host_invalid", "Host";
    a_host_with_a_space_in_it_is_refused: upgrade().but("Host: a b") => 400 "host_invalid", "Host";
    a_host_with_a_path_is_refused: upgrade().but("Host: a.test/b") => 400 "host_invalid", "Host";
    a_host_with_a_port_that_is_no_number_is_refused: upgrade().but("Host: a.test:http") => 400 "host_invalid", "Host";
}

// What an upgrade consists of (RFC 6455, section 4.2.1).
refusals! {
    an_upgrade_by_http_1_0_is_refused: upgrade().line("GET / HTTP/1.0") => 400 "upgrade_http10", "HTTP/1.1";
    an_upgrade_without_connection_is_refused: upgrade().without("Connection") => 400 "upgrade_connection", "Connection";
    a_connection_that_does_not_name_upgrade_is_refused: upgrade().but("Connection: keep-alive")
        => 400 "upgrade_connection", "Connection";
    a_connection_token_that_only_starts_with_upgrade_is_refused: upgrade().but("Connection: Upgrade-Insecure")
        => 400 "upgrade_connection", "Connection";
    a_missing_key_is_refused: upgrade().without("Sec-WebSocket-Key") => 400 "key_missing", "Sec-WebSocket-Key";
    two_keys_are_refused: upgrade().with("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==")
        => 400 "key_repeated", "one Sec-WebSocket-Key";
    the_same_key_twice_is_refused: upgrade().with(format!("Sec-WebSocket-Key: {KEY}"))
        => 400 "key_repeated", "one Sec-WebSocket-Key";
    two_keys_in_one_line_are_refused: upgrade().but(&format!("Sec-WebSocket-Key: {KEY}, {KEY}"))
        => 400 "key_invalid", "16 bytes";
    an_empty_key_is_refused: upgrade().but("Sec-WebSocket-Key:") => 400 "key_invalid", "16 bytes";
    a_key_of_15_bytes_is_refused: upgrade().but("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAA")
        => 400 "key_invalid", "16 bytes";
    a_key_of_17_bytes_is_refused: upgrade().but("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAAA=")
        => 400 "key_invalid", "16 bytes";
    a_key_that_is_no_base64_is_refused: upgrade().but("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZ!==")
        => 400 "key_invalid", "base64";
    a_key_in_the_url_alphabet_is_refused: upgrade().but("Sec-WebSocket-Key: _-AAAAAAAAAAAAAAAAAAAA==")
        => 400 "key_invalid", "base64";
    a_key_without_padding_is_refused: upgrade().but("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ")
        => 400 "key_invalid", "base64";
    a_key_with_bits_behind_its_end_is_refused: upgrade().but("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZR==")
        => 400 "key_invalid", "base64";
    a_missing_version_is_refused: upgrade().without("Sec-WebSocket-Version")
        => 400 "version_missing", "Sec-WebSocket-Version";
    an_upgrade_with_a_body_is_refused: upgrade().with("Content-Length: 5") => 400 "upgrade_body", "body";
    an_upgrade_with_a_chunked_body_is_refused: upgrade().with("Transfer-Encoding: chunked")
        => 400 "upgrade_body", "body";
    a_length_beside_a_transfer_encoding_is_refused:
        upgrade().with("Content-Length: 0").with("Transfer-Encoding: chunked")
        => 400 "bad_length", "Content-Length";
    a_length_that_is_no_number_is_refused: upgrade().with("Content-Length: none") => 400 "bad_length", "Content-Length";
    a_signed_length_is_refused: upgrade().with("Content-Length: +0") => 400 "bad_length", "Content-Length";
    two_different_lengths_are_refused: upgrade().with("Content-Length: 0").with("Content-Length: 5")
        => 400 "bad_length", "Content-Length";
    a_subprotocol_that_is_no_token_is_refused: upgrade().with("Sec-WebSocket-Protocol: chat room")
        => 400 "protocol_invalid", "Sec-WebSocket-Protocol";
    a_subprotocol_list_that_names_one_twice_is_refused: upgrade().with("Sec-WebSocket-Protocol: a, b, a")
        => 400 "protocol_invalid", "Sec-WebSocket-Protocol";
    a_subprotocol_named_in_two_lines_is_refused:
        upgrade().with("Sec-WebSocket-Protocol: a").with("Sec-WebSocket-Protocol: a")
        => 400 "protocol_invalid", "Sec-WebSocket-Protocol";
}

// What is no fault, though some parsers and proxies trip over it.
acceptances! {
    names_and_tokens_are_case_insensitive: plain("/").with("UPGRADE: WebSocket").with("cOnnection: uPGRADE")
        .with(format!("sec-websocket-key: {KEY}")).with("SEC-WEBSOCKET-VERSION: 13");
    keep_alive_beside_upgrade_is_accepted: upgrade().but("Connection: keep-alive, Upgrade");
    a_connection_list_over_several_lines_is_accepted:
        upgrade().but("Connection: keep-alive").with("Connection: x, Upgrade");
    empty_list_elements_are_accepted: upgrade().but("Connection: , Upgrade,,");
    several_upgrade_tokens_are_accepted: upgrade().but("Upgrade: h2c, websocket");
    an_upgrade_list_over_several_lines_is_accepted: upgrade().but("Upgrade: h2c").with("Upgrade: websocket");
    white_space_around_values_is_accepted:
        upgrade().but("Upgrade: \t websocket \t ").but(&format!("Sec-WebSocket-Key:{KEY} \t"));
    an_absolute_target_is_accepted: upgrade().line("GET http://throng.test/chat?x=1 HTTP/1.1");
    a_target_with_a_query_is_accepted: upgrade().line("GET /a/b%20c?d=e&f HTTP/1.1");
    any_path_is_accepted: upgrade().line("GET /no/such/thing HTTP/1.1");
    an_empty_line_before_the_request_is_accepted: [b"\r\n", &upgrade().bytes()[..]].concat();
    a_content_length_of_0_is_accepted: upgrade().with("Content-Length: 0");
    bytes_above_ascii_in_a_value_are_accepted: upgrade().with(b"X: caf\xE9");
    an_empty_value_is_accepted: upgrade().with("X:");
    an_empty_subprotocol_list_is_accepted: upgrade().with("Sec-WebSocket-Protocol: ");
    empty_elements_in_a_subprotocol_list_are_accepted: upgrade().with("Sec-WebSocket-Protocol: a,, b,");
    a_host_with_a_port_is_accepted: upgrade().but("Host: localhost:8080");
    an_ipv6_host_is_accepted: upgrade().but("Host: [::1]:8080");
    a_head_of_exactly_16_kib_is_accepted: upgrade().padded_to(16_384);
    exactly_100_fields_are_accepted: upgrade().with_fields(100);
}

refusals! {
    a_head_one_byte_over_16_kib_is_refused: upgrade().padded_to(16_385) => 431 "head_too_large", "16 KiB";
    a_head_without_end_is_refused_at_16_kib: [b"GET /", &[b'a'; 16_384][..]].concat() => 431 "head_too_large", "16 KiB";
    empty_lines_without_end_are_refused: b"\r\n".repeat(10_000) => 400 "bad_request_line", "request line";
    one_field_over_100_is_refused: upgrade().with_fields(101) => 431 "too_many_fields", "100";
}

#[test]
fn the_accept_value_is_the_one_of_the_rfc() {
    let answer = accepted(upgrade());
    assert_eq!(answer.field("Sec-WebSocket-Accept"), Some(ACCEPT));
    assert_eq!(answer.field("Upgrade"), Some("websocket"));
    assert_eq!(answer.field("Connection"), Some("Upgrade"));
    // A 101 has no content, and these would announce some (RFC 9110, section 8.6; RFC 9112, section 6.1).
    assert_eq!((answer.field("Content-Length"), answer.field("Transfer-Encoding")), (None, None));
}

#[test]
fn nothing_is_agreed_on_that_the_server_does_not_know() {
    let offers = upgrade().with("Sec-WebSocket-Protocol: chat, superchat");
    let answer = accepted(offers.with("Sec-WebSocket-Extensions: permessage-foo; bar=1, x-webkit-deflate-frame"));
    assert_eq!(answer.field("Sec-WebSocket-Protocol"), None);
    assert_eq!(answer.field("Sec-WebSocket-Extensions"), None);
}

#[test]
fn another_version_is_told_which_one_is_spoken() {
    for version in ["8", "0", "14", "113"] {
        let head = upgrade().but(&format!("Sec-WebSocket-Version: {version}"));
        let answer = refused(head, 426, "version_unsupported", "13");
        assert_eq!(answer.field("Sec-WebSocket-Version"), Some("13"));
        assert_eq!(answer.field("Upgrade"), Some("websocket"));
        assert!(answer.lists("Connection", "Upgrade"));
    }
}

#[test]
fn a_repeated_version_is_refused() {
    for version in ["13", "8"] {
        let server = Throng::start("");
        let mut peer = server.connect();
        peer.send(upgrade().with(format!("Sec-WebSocket-Version: {version}")).bytes());
        let answer = peer.response();
        assert!(matches!(answer.status, 400 | 426), "{answer:?}");
    }
}

#[test]
fn an_upgrade_by_another_method_is_told_the_right_one() {
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "get", "BREW"] {
        let head = upgrade().line(format!("{method} /chat HTTP/1.1"));
        let answer = refused(head, 405, "upgrade_method", "GET");
        assert_eq!(answer.field("Allow"), Some("GET"));
    }
}

#[test]
fn an_upgrade_by_head_is_refused_without_a_body() {
    let server = Throng::start("");
    let mut peer = server.connect();
    peer.send(upgrade().line("HEAD /chat HTTP/1.1").bytes());
    let answer = peer.response();
    assert_eq!((answer.status, answer.field("Allow")), (405, Some("GET")));
    assert_eq!(answer.body, b"", "an answer to HEAD has no content (RFC 9110, section 9.3.2)");
}

#[test]
fn a_plain_request_is_told_what_this_is() {
    for head in [plain("/chat").with("Connection: close"), upgrade().without("Upgrade").but("Connection: close")] {
        let answer = refused(head, 426, "upgrade_required", "WebSocket");
        assert_eq!(answer.field("Upgrade"), Some("websocket"));
        assert_eq!(answer.field("Sec-WebSocket-Version"), Some("13"));
        assert!(answer.lists("Connection", "Upgrade"));
    }
}

#[test]
fn an_upgrade_to_something_else_is_a_plain_request() {
    for token in ["h2c", "websockets", "TLS/1.0"] {
        let offer = |head: Head| head.with(format!("Upgrade: {token}")).with("Connection: Upgrade");
        refused(offer(plain("/chat")).with("Connection: close"), 426, "upgrade_required", "WebSocket");
        let server = Throng::start("");
        let mut peer = server.connect();
        peer.send(offer(plain("/healthz")).with("Connection: close").bytes());
        assert_eq!(peer.response().status, 200);
    }
}

#[test]
fn http_1_0_is_served_but_not_upgraded() {
    let server = Throng::start("");
    for head in [plain("/healthz"), plain("/healthz").without("Host")] {
        let mut peer = server.connect();
        peer.send(head.line("GET /healthz HTTP/1.0").bytes());
        assert_eq!(peer.response().status, 200);
    }
}

#[test]
fn a_trickled_head_is_answered_408_and_its_bytes_buy_no_time() {
    let server = Throng::start("--head-timeout 1");
    let mut peer = server.connect();
    let (started, mut head) = (Instant::now(), upgrade().with_fields(90).bytes().into_iter());
    while !peer.hears(millis(50)) {
        let _ = peer.try_send([head.next().unwrap()]);
    }
    let elapsed = started.elapsed();
    assert!(elapsed > millis(900) && elapsed < millis(2000), "{elapsed:?}");
    check_refusal(&peer.response(), 408, "head_timeout", "in time");
}

#[test]
fn a_silent_client_is_answered_408() {
    let server = Throng::start("--head-timeout 0.5");
    let mut peer = server.connect();
    check_refusal(&peer.response(), 408, "head_timeout", "in time");
}

#[test]
fn a_request_behind_a_refused_upgrade_is_not_answered() {
    let server = Throng::start("");
    let mut peer = server.connect();
    let bytes = [upgrade().without("Host").bytes(), plain("/healthz").bytes(), upgrade().bytes()].concat();
    peer.send(bytes);
    check_refusal(&peer.response(), 400, "host_missing", "Host");
}

#[test]
fn ipv6_and_ipv4_listeners_stand_side_by_side() {
    let server = Throng::start("--echo --listen [::1]:0 --listen 127.0.0.1:0");
    assert_eq!(server.addrs.iter().filter(|addr| addr.is_ipv6()).count(), 1);
    for &addr in &server.addrs {
        let mut peer = Raw::connect(addr);
        peer.upgrade();
        peer.echo("hello");
    }
}

#[test]
fn every_refusal_is_logged_with_its_reason() {
    let server = Throng::start("");
    for (head, word) in [
        (upgrade().without("Host"), "host_missing"),
        (upgrade().with("X : y"), "space_before_colon"),
        (upgrade().but("Sec-WebSocket-Version: 8"), "version_unsupported"),
    ] {
        let mut peer = server.connect();
        peer.send(head.bytes());
        peer.response();
        eventually(&format!("`refused` and `{word}` in one line"), PATIENCE, || {
            server.log().iter().any(|line| line.contains("refused") && line.contains(word))
        });
    }
}
