//! Event streams, polls, and subscribers that leave and come back with a cursor.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use support::strange::{Strange, answer, linger, read_head};
use support::{Outcome, Server, load};

const SUBSCRIBERS: u64 = 60;
const TOPICS: u64 = 3;

/// A short run in which half of the subscribers come and go.
#[track_caller]
fn restless(server: &Server, transport: &str, more: &[&str]) -> Outcome {
    let url =
        format!("{}/topics/{{topic}}", if transport == "ws" { server.url.trim_end_matches('/') } else { &server.http });
    let post = format!("{}/topics/{{topic}}", server.http);
    let fixed = ["-c", "60", "--topics", "3", "--rate", "150", "--duration", "1.5", "--settle", "0.2", "--drain", "5"];
    let coming = ["--reconnect-share", "0.5", "--reconnect-every", "0.3", "--publishers", "3"];
    let transport = ["fanout", &url, "--transport", transport, "--publish-url", &post];
    load(&[&transport[..], &fixed, &coming, more].concat())
}

#[track_caller]
fn assert_exact(outcome: &Outcome, transport: &str) {
    outcome.assert_clean();
    assert_eq!(outcome.value("transport"), transport);
    assert_eq!(outcome.count("fanout.subscribers"), SUBSCRIBERS);
    let published = outcome.count("fanout.published");
    assert!(published > 150, "{}", outcome.summary);
    assert_eq!(outcome.count("fanout.expected"), published * SUBSCRIBERS / TOPICS, "{}", outcome.summary);
    assert_eq!(outcome.count("fanout.delivered"), outcome.count("fanout.expected"), "{}", outcome.summary);
    assert_eq!(outcome.count("fanout.reconnecting_subscribers"), SUBSCRIBERS / 2, "{}", outcome.summary);
    let reconnects = outcome.count("fanout.reconnects");
    assert!(reconnects >= SUBSCRIBERS, "{}", outcome.summary);
    assert_eq!(outcome.count("connections.farewells.returning"), reconnects, "{}", outcome.summary);
    assert_eq!(outcome.count("connections.opened"), SUBSCRIBERS + reconnects, "{}", outcome.summary);
    assert_eq!(outcome.count("fanout.gaps"), 0, "{}", outcome.summary);
}

#[test]
fn whoever_comes_back_misses_nothing_over_any_transport() {
    let Some(server) = Server::throng("--workers 4") else { return };
    for transport in ["ws", "sse", "poll"] {
        assert_exact(&restless(&server, transport, &[]), transport);
    }
}

#[test]
fn what_a_gap_swallows_is_missing_and_not_lost() {
    // Nothing is kept, so whoever comes back too late is told so.
    let Some(server) = Server::throng("--workers 2 --history-size 0") else { return };
    for transport in ["ws", "sse", "poll"] {
        let outcome = restless(&server, transport, &[]);
        for what in ["lost", "duplicated", "reordered", "missed_by_lost_connections"] {
            assert_eq!(outcome.count(&format!("fanout.{what}")), 0, "{transport}: {}", outcome.summary);
        }
        let [delivered, missing, expected, gaps] =
            ["delivered", "gap_announced", "expected", "gaps"].map(|name| outcome.count(&format!("fanout.{name}")));
        assert_eq!(delivered + missing, expected, "{transport}: {}", outcome.summary);
        // A poll is away after every answer.
        assert!(gaps > 0 || transport != "poll", "{}", outcome.summary);
    }
}

/// An event stream that loses every tenth message, doubles another and swaps a third with its successor.
fn careless(mut stream: TcpStream) {
    static STREAMS: Mutex<Vec<TcpStream>> = Mutex::new(Vec::new());
    let (mut count, mut held) = (0, String::new());
    loop {
        let head = read_head(&mut stream);
        if head.starts_with("GET") {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nid: e-0\n\n");
            STREAMS.lock().unwrap().push(stream.try_clone().unwrap());
            return linger(&mut stream);
        }
        let Some(length) = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")) else { return };
        let mut body = vec![0; length.parse().unwrap()];
        stream.read_exact(&mut body).unwrap();
        count += 1;
        let event = format!("id: e-{count}\ndata: {}\n\n", String::from_utf8(body).unwrap());
        let sent = match count % 10 {
            0 => String::new(),
            3 => event.repeat(2),
            6 => {
                held = event;
                String::new()
            }
            _ => event + &std::mem::take(&mut held),
        };
        for listener in STREAMS.lock().unwrap().iter_mut() {
            let _ = listener.write_all(sent.as_bytes());
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    }
}

#[test]
fn what_a_careless_server_does_to_events_is_counted_exactly() {
    let server = Strange::new(careless);
    let fixed = ["-c", "10", "--rate", "100", "--duration", "1", "--settle", "0.3", "--drain", "0.5"];
    let outcome = load(&[&["fanout", &server.url, "--transport", "sse"], &fixed[..]].concat());
    assert_eq!(outcome.status, 3, "{}", outcome.summary);
    let published = outcome.count("fanout.published");
    let of = |digit: u64| (published + 10 - digit) / 10 * 10;
    let held = u64::from(published % 10 == 6) * 10; // the last one never came
    assert!(published > 50, "{}", outcome.summary);
    assert_eq!(outcome.count("fanout.lost"), of(10) + held, "{}", outcome.summary);
    let at_end = u64::from(matches!(published % 10, 0 | 6)) * 10;
    assert_eq!(outcome.count("fanout.lost_at_end"), at_end, "{}", outcome.summary);
    assert_eq!(outcome.count("fanout.duplicated"), of(3), "{}", outcome.summary);
    assert_eq!(outcome.count("fanout.reordered"), of(6) - held, "{}", outcome.summary);
}

#[test]
fn bytes_are_told_apart_from_text_and_counted_all_the_same() {
    let Some(server) = Server::throng("--workers 2") else { return };
    let bytes = ["--publish-header", "Content-Type: application/octet-stream"];
    for transport in ["ws", "sse", "poll"] {
        assert_exact(&restless(&server, transport, &bytes), transport);
    }
}

#[test]
fn what_is_published_goes_to_the_subscribers_url_unless_another_is_said() {
    let Some(server) = Server::throng("") else { return };
    let url = format!("{}/topics/a?wait=1", server.http);
    let outcome = load(&["fanout", &url, "--transport", "sse", "-c", "20", "--duration", "0.5", "--settle", "0.1"]);
    outcome.assert_clean();
    assert_eq!(outcome.count("connections.farewells.ended"), 20, "{}", outcome.summary);
    assert!(outcome.count("fanout.delivered") >= 80, "{}", outcome.summary);
}

#[test]
fn idle_streams_and_polls_stay_open() {
    let Some(server) = Server::throng("") else { return };
    let url = format!("{}/topics/quiet", server.http);
    for transport in ["sse", "poll"] {
        // Polls come to their end and are asked for again.
        let outcome = load(&["idle", &url, "--transport", transport, "--poll-wait", "1", "-c", "50", "--hold", "2.3"]);
        outcome.assert_clean();
        assert_eq!(outcome.count("connections.open_at_end"), 50, "{}", outcome.summary);
        assert_eq!(outcome.count("connections.farewells.ended"), 50, "{}", outcome.summary);
    }
}

#[test]
fn streams_may_be_read_slowly() {
    let Some(server) = Server::throng("") else { return };
    let url = format!("{}/topics/{{topic}}", server.http);
    let outcome = load(&[
        "slow",
        &url,
        "--transport",
        "sse",
        "-c",
        "20",
        "--slow-share",
        "0.25",
        "--rate",
        "100",
        "--duration",
        "1",
        "--settle",
        "0.1",
    ]);
    outcome.assert_clean();
    assert_eq!((outcome.count("fanout.subscribers"), outcome.count("slow.subscribers")), (15, 5));
    for who in ["fanout", "slow"] {
        let [delivered, expected] = ["delivered", "expected"].map(|name| outcome.count(&format!("{who}.{name}")));
        assert_eq!(delivered, expected, "{}", outcome.summary);
    }
}

fn idle(server: &Strange, transport: &str) -> Outcome {
    let fixed = ["-c", "6", "--hold", "0.5", "--open-timeout", "0.7"];
    load(&[&["idle", &server.url, "--transport", transport], &fixed[..]].concat())
}

#[test]
fn what_is_no_stream_and_no_poll_is_not_open() {
    let page = Strange::new(|stream| answer(stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"));
    let busy = Strange::new(|stream| answer(stream, "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"));
    let half =
        Strange::new(|stream| answer(stream, "HTTP/1.1 200 OK\r\nThrong-Cursor: e-0\r\nContent-Length: 2\r\n\r\n["));
    for transport in ["sse", "poll"] {
        for (server, class) in [(&page, "bad_stream"), (&busy, "http_503")] {
            let outcome = idle(server, transport);
            assert_eq!(outcome.status, 3, "{}", outcome.summary);
            assert_eq!(outcome.count(&format!("connections.failures.{class}")), 6, "{}", outcome.summary);
        }
    }
    let outcome = idle(&half, "poll");
    assert_eq!(outcome.count("connections.failures.handshake_timeout"), 6, "{}", outcome.summary);
}

#[test]
fn a_poll_that_is_answered_wrongly_is_a_lost_connection() {
    fn then(mut stream: TcpStream, second: &str) {
        read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nThrong-Cursor: e-0\r\nContent-Length: 2\r\n\r\n[]");
        assert!(read_head(&mut stream).starts_with("GET /?wait=25&since=e-0 "));
        let _ = stream.write_all(second.as_bytes());
        linger(&mut stream);
    }
    let busy = Strange::new(|stream| then(stream, "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"));
    let bare = Strange::new(|stream| then(stream, "HTTP/1.1 204 No Content\r\n\r\n"));
    let wild = Strange::new(|stream| {
        then(stream, "HTTP/1.1 200 OK\r\nThrong-Cursor: e-1\r\nContent-Length: 3\r\n\r\n[{]");
    });
    for (server, class) in [(busy, "http_503"), (bare, "violation_answer"), (wild, "violation_element")] {
        let outcome = idle(&server, "poll");
        assert_eq!(outcome.status, 3, "{}", outcome.summary);
        assert_eq!(outcome.count(&format!("connections.losses.{class}")), 6, "{}", outcome.summary);
    }
}

#[test]
fn what_cannot_be_carried_is_refused_with_what_to_do() {
    let refused = |arguments: &[&str], word: &str| {
        let outcome = load(arguments);
        assert_eq!(outcome.status, 2, "{}", outcome.errors);
        assert!(outcome.errors.contains(word), "{}", outcome.errors);
    };
    let url = "http://127.0.0.1:9/topics/{topic}";
    let post = ["--publish-url", url];
    for load in ["echo", "churn", "storm", "mixed"] {
        refused(&[load, url, "--transport", "sse"], "leave --transport out");
    }
    refused(&["slow", url, "--transport", "poll"], "use ws or sse");
    refused(&["fanout", url], "ws://");
    refused(&["fanout", url, "--transport", "sse", "--subscribe-template", "x"], "--subscribe-template");
    refused(&["slow", url, "--transport", "sse", "--reconnect-share", "0.5"], "fanout");
    refused(&["fanout", "ws://127.0.0.1:9/", "--publishers", "2", "--topics", "2"], "--publish-url");
    refused(&[&["fanout", "ws://127.0.0.1:9/", "--publishers", "2"], &post[..]].concat(), "--topics 2");
}
