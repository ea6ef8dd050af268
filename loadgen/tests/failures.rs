//! What goes wrong is told apart, and counted exactly.

mod support;

use std::io::Write;
use std::thread;
use std::time::Duration;
use support::strange::{Strange, answer, linger, read_head, reset, upgrade};
use support::{Outcome, load};

const COUNT: u64 = 12;

#[track_caller]
fn idle(url: &str) -> Outcome {
    load(&["idle", url, "-c", "12", "--hold", "0.5", "--open-timeout", "0.7", "--close-timeout", "1"])
}

/// Every attempt failed, for one reason.
#[track_caller]
fn assert_all_fail(url: &str, class: &str) {
    let outcome = idle(url);
    assert_eq!(outcome.status, 3, "{}\n{}", outcome.summary, outcome.errors);
    assert_eq!(outcome.count("connections.attempted"), COUNT);
    assert_eq!(outcome.count("connections.opened"), 0);
    assert_eq!(outcome.count("connections.failed"), COUNT);
    assert_eq!(outcome.count(&format!("connections.failures.{class}")), COUNT, "{}", outcome.summary);
}

/// Every connection opened and was lost, for one reason.
#[track_caller]
fn assert_all_lost(url: &str, class: &str) {
    let outcome = idle(url);
    assert_eq!(outcome.status, 3, "{}\n{}", outcome.summary, outcome.errors);
    assert_eq!(outcome.count("connections.opened"), COUNT, "{}", outcome.summary);
    assert_eq!(outcome.count("connections.lost"), COUNT, "{}", outcome.summary);
    assert_eq!(outcome.count(&format!("connections.losses.{class}")), COUNT, "{}", outcome.summary);
}

#[test]
fn nobody_listens() {
    assert_all_fail(&Strange::gone().url, "refused");
}

#[test]
fn the_server_resets() {
    let server = Strange::new(|mut stream| {
        read_head(&mut stream);
        reset(stream);
    });
    assert_all_fail(&server.url, "reset");
}

#[test]
fn the_server_hangs_up() {
    let server = Strange::new(|mut stream| {
        read_head(&mut stream);
    });
    assert_all_fail(&server.url, "closed_early");
}

#[test]
fn the_server_never_answers() {
    let server = Strange::new(|mut stream| {
        let _ = stream.set_read_timeout(Some(Duration::from_secs(20)));
        linger(&mut stream);
    });
    assert_all_fail(&server.url, "handshake_timeout");
}

#[test]
fn the_server_answers_half_and_waits() {
    let server = Strange::new(|stream| answer(stream, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: web"));
    assert_all_fail(&server.url, "handshake_timeout");
}

#[test]
fn the_backlog_is_full() {
    let (server, _listener) = Strange::full();
    let outcome = idle(&server.url);
    // The kernel takes a few that the server never will.
    let [taken, left] =
        ["handshake_timeout", "connect_timeout"].map(|class| outcome.count(&format!("connections.failures.{class}")));
    assert_eq!(taken + left, COUNT, "{}", outcome.summary);
    assert!(taken > 0 && left > 0, "{}", outcome.summary);
}

#[test]
fn the_server_speaks_something_else() {
    let server = Strange::new(|stream| answer(stream, "SSH-2.0-OpenSSH_9.2\r\n\r\n"));
    assert_all_fail(&server.url, "not_http");
    let server = Strange::new(|stream| answer(stream, &"x".repeat(20_000)));
    assert_all_fail(&server.url, "not_http");
}

#[test]
fn the_server_refuses_in_http() {
    let server =
        Strange::new(|stream| answer(stream, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nfull"));
    assert_all_fail(&server.url, "http_503");
    let server = Strange::new(|stream| answer(stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"));
    assert_all_fail(&server.url, "http_200");
}

#[test]
fn the_accept_value_is_wrong() {
    let server = Strange::new(|stream| {
        answer(
            stream,
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        );
    });
    assert_all_fail(&server.url, "bad_accept");
}

#[test]
fn the_upgrade_is_missing() {
    let server = Strange::new(|mut stream| {
        let head = read_head(&mut stream);
        let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
        let accept = String::from_utf8(throng::ws::accept_value(key.as_bytes()).to_vec()).unwrap();
        let text = format!("HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {accept}\r\n\r\n");
        let _ = stream.write_all(text.as_bytes());
        linger(&mut stream);
    });
    assert_all_fail(&server.url, "bad_upgrade");
}

#[test]
fn open_connections_are_lost_in_their_own_ways() {
    fn after_a_moment(mut stream: std::net::TcpStream, bytes: &[u8]) -> std::net::TcpStream {
        upgrade(&mut stream);
        thread::sleep(Duration::from_millis(100));
        let _ = stream.write_all(bytes);
        stream
    }
    let closing = Strange::new(|stream| linger(&mut after_a_moment(stream, b"\x88\x02\x03\xe9")));
    assert_all_lost(&closing.url, "closed_1001");
    let ending = Strange::new(|stream| drop(after_a_moment(stream, b"")));
    assert_all_lost(&ending.url, "eof");
    let resetting = Strange::new(|stream| reset(after_a_moment(stream, b"")));
    assert_all_lost(&resetting.url, "reset");
    let masking = Strange::new(|stream| linger(&mut after_a_moment(stream, b"\x81\x81\x00\x00\x00\x00x")));
    assert_all_lost(&masking.url, "violation_masked");
}

#[test]
fn a_server_that_ignores_our_close_is_told_apart() {
    let server = Strange::new(|mut stream| {
        upgrade(&mut stream);
        linger(&mut stream);
    });
    let outcome = idle(&server.url);
    assert_eq!(outcome.status, 0, "{}", outcome.summary);
    assert_eq!(outcome.count("connections.farewells.timed_out"), COUNT, "{}", outcome.summary);
}
