//! Event streams, polls, and subscribers that leave and come back with a cursor.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::thread;
use support::strange::{Strange, answer, linger, read_head};
use support::{Outcome, Running, Server, load};

const SUBSCRIBERS: u64 = 60;
const TOPICS: u64 = 3;
const ALONE: [&str; 5] = ["ws", "sse", "poll", "centrifugo-json", "centrifugo-protobuf"];
const MIX: &str = "ws,sse,poll,centrifugo-json,centrifugo-protobuf";

/// Runs `check` for all of them at once: each waits for its runs' time to pass.
fn at_once<T: Send>(cases: impl IntoIterator<Item = T>, check: impl Fn(T) + Sync) {
    thread::scope(|scope| {
        for case in cases {
            let check = &check;
            scope.spawn(move || check(case));
        }
    });
}

/// A short run in which half of the subscribers come and go.
#[track_caller]
fn restless(server: &Server, transport: &str, more: &[&str]) -> Outcome {
    let post = format!("{}/topics/{{topic}}", server.http);
    let url = match transport {
        "ws" => format!("{}topics/{{topic}}", server.url),
        // Where they connect says nothing of a topic.
        "centrifugo-json" => format!("{}connection/websocket", server.url),
        _ => post.clone(),
    };
    let fixed = ["-c", "60", "--topics", "3", "--rate", "150", "--duration", "1.5", "--settle", "0.2"];
    let drain: &[&str] = if more.contains(&"--drain") { &[] } else { &["--drain", "5"] };
    let coming = ["--reconnect-share", "0.5", "--reconnect-every", "0.3", "--publishers", "3"];
    let transport = ["fanout", &url, "--transport", transport, "--publish-url", &post];
    load(&[&transport[..], &fixed, &coming, drain, more].concat())
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
    at_once(ALONE, |transport| {
        let Some(server) = Server::throng("--workers 4") else { return };
        assert_exact(&restless(&server, transport, &[]), transport);
    });
}

#[test]
fn all_transports_meet_on_the_same_topics_and_each_has_its_account() {
    let Some(server) = Server::throng("--workers 4") else { return };
    let outcome = restless(&server, "websocket,sse,poll,centrifugo-json,centrifugo-protobuf", &[]);
    assert_exact(&outcome, MIX);
    let expected = outcome.count("fanout.expected");
    for transport in ALONE {
        let of = |name: &str| outcome.count(&format!("fanout.by_transport.{transport}.{name}"));
        assert_eq!((of("subscribers"), of("reconnecting_subscribers")), (SUBSCRIBERS / 5, SUBSCRIBERS / 10));
        assert_eq!((of("delivered"), of("expected")), (expected / 5, expected / 5), "{transport}");
        assert_eq!(of("latency_us.count"), of("delivered"), "{transport}");
        let came = |name: &str| outcome.count(&format!("connections.by_transport.{transport}.{name}"));
        assert_eq!(came("opened"), SUBSCRIBERS / 5 + of("reconnects"), "{transport}");
        assert_eq!((came("failed"), came("lost"), came("closed")), (0, 0, came("opened")), "{transport}");
        assert_eq!(came("farewells.returning"), of("reconnects"), "{transport}");
        assert!(outcome.summary.contains(&format!("of them  {transport}: 12 subscribers, ")), "{}", outcome.summary);
    }
}

#[test]
fn whoever_stays_away_gets_all_that_was_missed() {
    let Some(server) = Server::throng("--workers 4") else { return };
    // More than a reply to a subscription holds.
    let outcome = restless(&server, MIX, &["--size", "3000", "--reconnect-after", "1.2"]);
    outcome.assert_clean();
    assert_eq!(outcome.count("fanout.delivered"), outcome.count("fanout.expected"), "{}", outcome.summary);
    assert!(outcome.count("fanout.reconnects") >= SUBSCRIBERS / 2, "{}", outcome.summary);
    assert_eq!(outcome.count("fanout.gaps"), 0, "{}", outcome.summary);
    assert!(outcome.number("fanout.latency_us.max") > 100_000.0, "nobody was away: {}", outcome.summary);
}

#[test]
fn what_a_gap_swallows_is_missing_and_not_lost() {
    // Nothing is kept, so whoever comes back too late is told so.
    at_once(ALONE.into_iter().chain([MIX]), |transport| {
        let Some(server) = Server::throng("--workers 2 --history-size 0") else { return };
        let outcome = restless(&server, transport, &["--drain", "0.5"]);
        for what in ["lost", "duplicated", "reordered", "missed_by_lost_connections"] {
            assert_eq!(outcome.count(&format!("fanout.{what}")), 0, "{transport}: {}", outcome.summary);
        }
        let [delivered, missing, expected, gaps] =
            ["delivered", "gap_announced", "expected", "gaps"].map(|name| outcome.count(&format!("fanout.{name}")));
        assert_eq!(delivered + missing, expected, "{transport}: {}", outcome.summary);
        // A poll is away after every answer; one of Centrifugo's clients is told that it may have missed something.
        let is_told = transport == "poll" || transport.contains("centrifugo");
        assert!(gaps > 0 || !is_told, "{transport}: {}", outcome.summary);
    });
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
    let bytes = ["--publish-header", "Content-Type: application/octet-stream"];
    at_once(ALONE, |transport| {
        let Some(server) = Server::throng("--workers 2") else { return };
        assert_exact(&restless(&server, transport, &bytes), transport);
    });
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
fn what_is_published_by_centrifugos_server_api_arrives_too() {
    let Some(server) = Server::throng("--workers 2 --api-insecure") else { return };
    let endpoint = format!("{}connection/websocket", server.url);
    let api = format!("{}/api/publish", server.http);
    let publish = [
        "--publish-url",
        &api,
        "--publish-header",
        "Content-Type: application/json",
        "--publish-template",
        r#"{"channel":"{topic}","data":{"n":{seq},"text":"{payload}"}}"#,
    ];
    let fixed = ["-c", "20", "--topics", "2", "--rate", "100", "--duration", "1", "--settle", "0.1"];
    let transport = ["--transport", "centrifugo-json,centrifugo-protobuf", "--reconnect-share", "0.5"];
    let fixed = [&fixed[..], &["--reconnect-every", "0.3"]].concat();
    let outcome = load(&[&["fanout", &endpoint], &transport[..], &fixed, &publish].concat());
    outcome.assert_clean();
    assert!(outcome.count("fanout.published") > 50, "{}", outcome.summary);
    assert_eq!(outcome.count("fanout.delivered"), outcome.count("fanout.published") * 10, "{}", outcome.summary);
}

#[test]
fn idle_sessions_streams_and_polls_stay_open() {
    let Some(server) = Server::throng("") else { return };
    let url = format!("{}/topics/quiet", server.http);
    let sessions = ["centrifugo-json", "centrifugo-protobuf"].map(|transport| {
        let of = |topic| vec!["idle", &server.http, "--transport", transport, "--topic", topic, "--hold", "0.3"];
        ["quiet", "", r#"a"b\/%"#].map(|topic| (of(topic), 100, "answered"))
    });
    // Polls come to their end and are asked for again.
    let answers = ["sse", "poll"].map(|transport| {
        let fixed = ["--poll-wait", "1", "-c", "50", "--hold", "2.3"];
        ([&["idle", &*url, "--transport", transport], &fixed[..]].concat(), 50, "ended")
    });
    at_once(sessions.into_iter().flatten().chain(answers), |(arguments, count, farewell)| {
        let outcome = load(&arguments);
        outcome.assert_clean();
        assert_eq!(outcome.count("connections.open_at_end"), count, "{}", outcome.summary);
        assert_eq!(outcome.count(&format!("connections.farewells.{farewell}")), count, "{}", outcome.summary);
    });
}

#[test]
fn streams_and_sessions_may_be_read_slowly() {
    let slowness = ["-c", "20", "--slow-share", "0.25", "--rate", "100", "--duration", "1", "--settle", "0.1"];
    at_once(["sse", "centrifugo-json", "centrifugo-protobuf"], |transport| {
        let Some(server) = Server::throng("") else { return };
        let url = format!("{}/topics/{{topic}}", server.http);
        let outcome = load(&[&["slow", &url, "--transport", transport], &slowness[..]].concat());
        outcome.assert_clean();
        assert_eq!((outcome.count("fanout.subscribers"), outcome.count("slow.subscribers")), (15, 5));
        for who in ["fanout", "slow"] {
            let [delivered, expected] = ["delivered", "expected"].map(|name| outcome.count(&format!("{who}.{name}")));
            assert_eq!(delivered, expected, "{transport}: {}", outcome.summary);
        }
    });
}

#[test]
fn centrifugos_clients_come_and_go_too() {
    let Some(server) = Server::throng("--workers 2") else { return };
    let transports = ["--transport", "ws,centrifugo-json,centrifugo-protobuf"];
    let url = format!("{}topics/{{topic}}", server.url);
    let churn = ["churn", &url, "-c", "60", "--rate", "100", "--duration", "1", "--topics", "2"];
    let outcome = load(&[&churn[..], &transports].concat());
    outcome.assert_clean();
    assert!(outcome.count("churn.replaced") >= 80, "{}", outcome.summary);
    for transport in &ALONE[3..] {
        let opened = outcome.count(&format!("connections.by_transport.{transport}.opened"));
        assert!(opened > 20, "{}", outcome.summary);
    }
    let storm = load(&[&["storm", &url, "-c", "60", "--rest", "0.2"], &transports[..]].concat());
    storm.assert_clean();
}

#[test]
fn what_keeps_centrifugos_clients_out_is_told_apart() {
    let secret = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("transports-secret");
    std::fs::write(&secret, "a secret that is long enough").unwrap();
    let Some(open) = Server::throng("--workers 2") else { return };
    let Some(closed) = Server::throng(&format!("--token-secret-file {}", secret.display())) else { return };
    let (long, wrong) = ("x".repeat(256), format!("{}wrong", open.url));
    let either: [(&str, &[&str], [&str; 2], &str); 4] = [
        // There, throng has a WebSocket that answers nothing, and knows no subprotocol.
        (&wrong, &[], ["join_timeout", "bad_upgrade"], ""),
        (&open.url, &["--topic", &long], ["error_107"; 2], "bad request"),
        (&closed.url, &[], ["closed_3501"; 2], "bad request"),
        (&closed.url, &["--token", "no.such.token"], ["closed_3500"; 2], "invalid token"),
    ];
    at_once(either, |(url, more, classes, reason)| {
        for (transport, class) in ["centrifugo-json", "centrifugo-protobuf"].into_iter().zip(classes) {
            let fixed = ["-c", "9", "--hold", "0.1", "--open-timeout", "0.7", "--transport", transport];
            let outcome = load(&[&["idle", url], &fixed[..], more].concat());
            assert_eq!(outcome.status, 3, "{}", outcome.summary);
            assert_eq!(outcome.count(&format!("connections.failures.{class}")), 9, "{}", outcome.summary);
            assert_eq!(outcome.count("connections.attempted"), 9, "{}", outcome.summary);
            if !reason.is_empty() {
                assert_eq!(outcome.value(&format!("connections.said.{class}")), reason, "{}", outcome.summary);
                assert!(outcome.summary.contains(&format!("{class}: {reason}")), "{}", outcome.summary);
            }
        }
    });
}

#[test]
fn a_server_that_drains_tells_each_transport_in_its_words() {
    let Some(server) = Server::throng("--workers 2 --drain 0.5") else { return };
    let url = format!("{}/topics/{{topic}}", server.http);
    let running = Running::start(&["idle", &url, "--transport", MIX, "-c", "50", "--hold", "4"]);
    thread::sleep(std::time::Duration::from_millis(1500));
    server.terminate();
    let outcome = running.wait();
    assert_eq!(outcome.status, 3, "{}", outcome.summary);
    assert_eq!((outcome.count("connections.opened"), outcome.count("connections.lost")), (50, 50));
    for (transport, class) in ALONE.into_iter().zip(["closed_1001", "eof", "eof", "closed_3001", "closed_3001"]) {
        let losses = format!("connections.by_transport.{transport}.losses.{class}");
        assert_eq!(outcome.count(&losses), 10, "{transport}: {}", outcome.summary);
    }
    assert_eq!(outcome.value("connections.said.closed_3001"), "shutdown", "{}", outcome.summary);
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
    at_once(["sse", "poll"], |transport| {
        for (server, class) in [(&page, "bad_stream"), (&busy, "http_503")] {
            let outcome = idle(server, transport);
            assert_eq!(outcome.status, 3, "{}", outcome.summary);
            assert_eq!(outcome.count(&format!("connections.failures.{class}")), 6, "{}", outcome.summary);
        }
    });
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
    for load in ["echo", "mixed"] {
        refused(&[load, url, "--transport", "ws,centrifugo-json"], "leave --transport out");
    }
    refused(&["idle", "http://127.0.0.1:9/topics/a", "--transport", "ws,centrifugo-json"], "/topics/{topic}");
    refused(&["idle", url, "--transport", "centrifugo-json", "--topics", "2", "--topic", "a"], "{n}");
    refused(&["idle", url, "--transport", "centrifugo-json", "--centrifugo-path", "a"], "slash");
    refused(&["slow", url, "--transport", "poll"], "use ws or sse");
    refused(&["fanout", url], "ws://");
    refused(&["fanout", url, "--transport", "sse", "--subscribe-template", "x"], "--subscribe-template");
    refused(&["slow", url, "--transport", "sse", "--reconnect-share", "0.5"], "fanout");
    refused(&["fanout", "ws://127.0.0.1:9/", "--publishers", "2", "--topics", "2"], "--publish-url");
    refused(&[&["fanout", "ws://127.0.0.1:9/", "--publishers", "2"], &post[..]].concat(), "--topics 2");
}
