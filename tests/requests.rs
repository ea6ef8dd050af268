//! HTTP/1.1 as its clients use it: requests with bodies, one after another on one connection (RFC 9112).

mod support;

use std::net::SocketAddr;
use support::{Raw, TEXT, eventually, millis, upgrade};
use throng::{Accept, Answer, Connection, Decision, Message, Request, Response, Running, Server, Service};

/// Says what it was asked.
struct Mirror;

impl Service for Mirror {
    type State = ();

    fn open(&mut self, _: &Request<'_>) -> Decision<()> {
        Accept::new(()).into()
    }

    fn message(&mut self, connection: &mut Connection<'_, ()>, message: Message<'_>) {
        let _ = connection.send(message);
    }

    fn request(&mut self, request: &Request<'_>) -> Answer {
        let response = match request.path() {
            "/panic" => panic!("as asked"),
            "/missing" => Response::refuse(404, "there is nothing of that name: look elsewhere"),
            "/empty" => Response::new(204),
            "/large" => Response::new(200).body("text/plain", vec![b'x'; 200_000]),
            path => {
                let mut text = format!("{} {path} {}:", request.method(), request.body().len()).into_bytes();
                text.extend_from_slice(request.body());
                Response::new(200).body("application/octet-stream", text)
            }
        };
        response.into()
    }
}

fn start(server: Server) -> Running<()> {
    server.workers(2).listen(([127, 0, 0, 1], 0).into()).start(|_| Mirror).unwrap()
}

fn connect(running: &Running<()>) -> Raw {
    let address: SocketAddr = running.addresses()[0];
    Raw::connect(address)
}

fn stop(running: Running<()>) {
    running.handle().abort();
    running.wait().unwrap();
}

#[test]
fn one_connection_serves_many_requests() {
    let running = start(Server::new());
    let mut peer = connect(&running);
    for number in 0..50 {
        peer.send(format!("POST /{number} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"));
        let answer = peer.answer();
        assert_eq!((answer.status, answer.body), (200, format!("POST /{number} 4:body").into_bytes()));
    }
    peer.send("GET /missing HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = peer.answer();
    assert_eq!((answer.status, answer.problem()["code"].as_str()), (404, "service"), "and the connection stays");
    peer.send("GET /empty HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = peer.answer();
    assert_eq!((answer.status, answer.field("Content-Length")), (204, None), "RFC 9110, section 8.6");
    peer.send("HEAD /large HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(peer.head().field("Content-Length"), Some("200000"));
    peer.send(upgrade().bytes());
    assert_eq!(peer.head().status, 101);
    peer.echo("the same connection still");
    stop(running);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    const COUNT: usize = 300;
    let running = start(Server::new());
    let mut peer = connect(&running);
    let requests: String = (0..COUNT)
        .map(|number| match number % 3 {
            0 => format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n"),
            1 => format!("POST /{number} HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx"),
            _ => format!("POST /{number} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"),
        })
        .collect();
    peer.send(requests);
    for number in 0..COUNT {
        let expected = if number % 3 == 0 { format!("GET /{number} 0:") } else { format!("POST /{number} 1:x") };
        assert_eq!(String::from_utf8(peer.answer().body).unwrap(), expected);
    }
    stop(running);
}

#[test]
fn pipelined_requests_for_much_wait_for_the_reader() {
    const COUNT: usize = 200; // 40 MB of answers
    let running = start(Server::new());
    let mut peer = connect(&running);
    peer.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n".repeat(COUNT));
    for _ in 0..COUNT {
        assert_eq!(peer.answer().body.len(), 200_000);
    }
    peer.send("GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(peer.response().body, b"GET /last 0:");
    stop(running);
}

#[test]
fn a_client_that_half_closes_behind_its_requests_reads_the_answers() {
    let running = start(Server::new());
    let mut peer = connect(&running);
    peer.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n".repeat(20));
    peer.stream().shutdown(std::net::Shutdown::Write).unwrap();
    for _ in 0..20 {
        assert_eq!(peer.answer().body.len(), 200_000);
    }
    peer.expect_eof();
    stop(running);
}

#[test]
fn bodies_that_lie_about_themselves_end_the_connection() {
    let running = start(Server::new().message_bytes_max(1000));
    for (fields, body, status, code) in [
        ("Content-Length: 5\r\nContent-Length: 5", "hello", 400, "bad_length"),
        ("Content-Length: 5, 5", "hello", 400, "bad_length"),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", "0\r\n\r\n", 400, "bad_length"),
        ("Content-Length: -1", "", 400, "bad_length"),
        ("Content-Length: 99999999999999999999", "", 400, "bad_length"),
        ("Transfer-Encoding: gzip, chunked", "0\r\n\r\n", 501, "transfer_coding"),
        ("Transfer-Encoding: chunked", "x\r\n", 400, "bad_chunk"),
        ("Transfer-Encoding: chunked", "1\r\nxx\r\n", 400, "bad_chunk"),
        ("Transfer-Encoding: chunked", "ffffffffffffffff\r\n", 413, "body_too_large"),
        ("Content-Length: 1001", "", 413, "body_too_large"),
        ("Content-Length: 5\r\nExpect: tea", "hello", 417, "expectation"),
    ] {
        let mut peer = connect(&running);
        peer.send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{body}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
        ));
        let answer = peer.response();
        assert_eq!((answer.status, answer.problem()["code"].as_str()), (status, code), "{fields}");
        assert!(!String::from_utf8_lossy(&answer.body).contains("smuggled"));
    }
    stop(running);
}

#[test]
fn foreign_pages_are_kept_out_unless_they_are_allowed() {
    let running = start(Server::new().allow_origin("https://app.example"));
    for (origin, status) in
        [("http://a", 200), ("https://app.example", 200), ("http://evil.example", 403), ("null", 403)]
    {
        let mut peer = connect(&running);
        peer.send(format!("POST / HTTP/1.1\r\nHost: a\r\nOrigin: {origin}\r\nContent-Length: 1\r\n\r\nx"));
        assert_eq!(peer.answer().status, status, "{origin}");
        let mut peer = connect(&running);
        peer.send(upgrade().but("Host: a").with(format!("Origin: {origin}")).bytes());
        assert_eq!(peer.head().status, if status == 200 { 101 } else { 403 }, "{origin}");
    }
    assert!(Server::new().allow_origin("app.example").start(|_| Mirror).is_err());
    stop(running);
}

#[test]
fn a_panic_costs_its_own_connection_and_an_idle_one_ends_in_time() {
    let running = start(Server::new().idle_timeout(millis(300)));
    let (mut idle, mut unlucky) = (connect(&running), connect(&running));
    idle.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(idle.answer().status, 200);
    unlucky.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /panic HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(unlucky.answer().status, 200);
    assert_eq!(unlucky.response().status, 500);
    idle.expect_eof();
    let mut peer = connect(&running);
    peer.send(upgrade().bytes());
    assert_eq!(peer.head().status, 101);
    peer.echo("still here");
    peer.send(support::text("and again").bytes());
    peer.expect(TEXT, "and again");
    stop(running);
}

#[test]
fn a_drain_ends_idle_connections() {
    let running = start(Server::new());
    let mut peer = connect(&running);
    peer.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(peer.answer().status, 200);
    running.handle().shutdown(millis(0));
    peer.expect_eof();
    let handle = running.handle();
    running.wait().unwrap();
    eventually("nobody is left", millis(1000), || handle.connections() == 0);
}
