//! What the log says, and what it does not.

mod support;

use serde_json::Value;
use std::time::Instant;
use support::*;

/// Sends a request and waits for the status of its answer.
fn status(server: &Throng, request: &Head) -> u16 {
    let mut peer = server.connect();
    peer.send(request.bytes());
    peer.head().status
}

/// The lines, each of which must be an object.
fn objects(server: &Throng) -> Vec<Value> {
    let parse = |line: &String| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    server.log().iter().map(parse).collect()
}

#[test]
fn lines_are_objects_of_json_if_that_is_wanted() {
    let mut server = Throng::start("--log-format json --log-level debug --drain 0");
    assert_eq!(status(&server, &upgrade().without("Host")), 400);
    let mut peer = server.websocket();
    peer.send(close(4000, "\"quoted\"\n\u{202E}").bytes());
    peer.expect_close(4000);
    let mut peer = server.websocket();
    peer.send(frame(1, "x").unmasked().bytes());
    peer.expect_close(1002);
    let has = |server: &Throng, wanted: &dyn Fn(&Value) -> bool| objects(server).iter().any(wanted);
    eventually("a refusal", PATIENCE, || {
        has(&server, &|line| line["message"] == "refused" && line["status"] == 400 && line["reason"] == "host_missing")
    });
    eventually("a close, with what its client said", PATIENCE, || {
        has(&server, &|line| {
            line["message"] == "closed" && line["code"] == 4000 && line["text"] == "\"quoted\"\n\u{202E}"
        })
    });
    eventually("a violation", PATIENCE, || {
        has(&server, &|line| line["level"] == "info" && line["message"] == "closed" && line["code"] == 1002)
    });
    server.signal("TERM");
    assert!(server.exit(PATIENCE).success());
    eventually("all of the log is there", PATIENCE, || has(&server, &|line| line["message"] == "throng stopped"));
    for line in objects(&server) {
        let (time, level) = (line["time"].as_str().unwrap(), line["level"].as_str().unwrap());
        // RFC 3339, in milliseconds of UTC.
        let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(shape, "0000-00-00T00:00:00.000Z", "{line}");
        assert!(["error", "warn", "info", "debug"].contains(&level), "{line}");
    }
    assert!(!server.log().concat().contains('\u{202E}'), "{:?}", server.log());
}

/// 300 refusals for one reason, and then one for another: that one is in the log, and so is how many are not.
#[test]
fn a_flood_of_one_reason_hides_no_other_and_is_counted() {
    const FLOOD: usize = 300;
    let server = Throng::start("--workers 1 --log-format json");
    let started = Instant::now();
    (0..FLOOD).for_each(|_| assert_eq!(status(&server, &upgrade().without("Host")), 400));
    let took = started.elapsed();
    assert_eq!(status(&server, &upgrade().with("Origin: https://evil.example")), 403);
    eventually("the other is there", PATIENCE, || {
        objects(&server).iter().any(|line| line["message"] == "refused" && line["reason"] == "origin_forbidden")
    });
    let count = || {
        let of = |wanted: &dyn Fn(&Value) -> Option<u64>| objects(&server).iter().filter_map(wanted).sum::<u64>();
        let is_flood = |line: &Value| line["reason"] == "host_missing";
        let said = of(&|line| (is_flood(line) && line["message"] == "refused").then_some(1));
        (said, of(&|line| is_flood(line).then(|| line["left_out"].as_u64()).flatten()))
    };
    // Nobody comes any more: the last ones are counted all the same, once their second is over.
    eventually("all are said or counted", PATIENCE, || count().0 + count().1 == FLOOD as u64);
    let seconds = took.as_secs() + 2;
    assert!(count().0 <= 10 * seconds, "{:?} in {took:?}", count());
}

#[test]
fn tokens_keys_and_query_strings_are_in_no_line() {
    let mut server = Throng::start("--log-level trace --drain 0 --allow-anonymous");
    let secret = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJodXNoIn0.hush-hush-hush";
    for head in [
        upgrade().line(format!("GET /topics/t?token={secret} HTTP/1.1")),
        upgrade().line(format!("GET /topics/t?since={secret} HTTP/1.1")),
        upgrade().with(format!("Authorization: Bearer {secret}")),
        upgrade().with(format!("Sec-WebSocket-Protocol: throng, bearer.{secret}")),
        upgrade().with(format!("Cookie: token={secret}")),
        upgrade().without("Host").line(format!("GET /?{secret} HTTP/1.1")),
        plain(&format!("/connection/sse?cf_connect={secret}")),
        plain("/topics/t").with(format!("X-API-Key: {secret}")),
        plain("/topics/t").with(format!("Authorization: apikey {secret}")),
    ] {
        assert!(status(&server, &head) >= 101);
    }
    let mut peer = server.connect();
    peer.send(upgrade().line("GET /connection/websocket HTTP/1.1").bytes());
    assert_eq!(peer.head().status, 101);
    peer.send(text(format!("{{\"id\":1,\"connect\":{{\"token\":\"{secret}\"}}}}")).bytes());
    peer.frame();
    // What a client says of itself as it goes is in the log, but for what looks like this.
    let mut peer = server.websocket();
    peer.send(close(4000, format!("bye, Bearer {secret}")).bytes());
    peer.expect_close(4000);
    server.signal("TERM");
    server.exit(PATIENCE);
    eventually("all of the log is there", PATIENCE, || {
        server.log().last().is_some_and(|line| line.ends_with("throng stopped"))
    });
    let log = server.log().join("\n");
    assert!(!log.contains("hush") && !log.contains("eyJ"), "{log}");
    assert!(log.contains("text=\"bye, Bearer (hidden)\""), "{log}");
}

#[test]
fn a_format_that_is_none_is_refused() {
    let (code, said) = run_to_end("--log-format xml");
    assert_eq!(code, Some(2));
    assert!(said.contains("text or json"), "{said}");
}
