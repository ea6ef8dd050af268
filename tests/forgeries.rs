//! Attacks by bytes that want to be taken for something else: a request behind a failed upgrade for one that was let in, a
//! byte above ASCII for one below, a line of a message for a field of an event stream, a reason for a line of the log.
#![cfg(feature = "cli")] // There is no binary without it.

mod support;

use std::time::Instant;
use support::*;

// Heads.

/// A field, a value that is good for it, and what an upgrade with a byte above ASCII in it is answered.
const FIELDS: [(&str, &str, &[u16]); 18] = [
    ("Host", "throng.test", &[400]),
    ("Upgrade", "websocket", &[426]),
    ("Connection", "Upgrade", &[400]),
    ("Sec-WebSocket-Key", KEY, &[400]),
    ("Sec-WebSocket-Version", "13", &[426]),
    ("Sec-WebSocket-Protocol", "chat", &[400]),
    ("Origin", "http://throng.test", &[403]),
    ("Content-Length", "0", &[400]),
    ("Transfer-Encoding", "chunked", &[501]),
    // What is in these is nobody's business here.
    ("Sec-WebSocket-Extensions", "permessage-deflate", &[101]),
    ("Accept", "*/*", &[101]),
    ("Authorization", "Bearer x", &[101]),
    ("Cookie", "a=b", &[101]),
    ("Forwarded", "for=x", &[101]),
    ("Last-Event-ID", "abcdefgh-1", &[101]),
    ("Referer", "/", &[101]),
    ("User-Agent", "x", &[101]),
    ("X-Forwarded-For", "127.0.0.1", &[101]),
];

#[test]
fn bytes_above_ascii_in_every_header_open_no_door() {
    let siege = Siege::lay("");
    let answered = |head: Head| {
        let mut peer = siege.server.connect();
        peer.send(head.bytes());
        peer.head().status
    };
    for byte in 0x80..=0xFF {
        for (name, value, expected) in FIELDS {
            // Behind a good value, before it, and alone.
            for value in [[value.as_bytes(), &[byte]].concat(), [&[byte], value.as_bytes()].concat(), vec![byte]] {
                let head = upgrade().without(name).with([name.as_bytes(), b": ", &value].concat());
                let status = answered(head);
                assert!(expected.contains(&status), "{name}: {value:02X?} is answered {status}");
            }
        }
        for line in [&b"G#T /chat HTTP/1.1"[..], b"GET /ch#t HTTP/1.1", b"GET /chat HTTP/1.#"] {
            let line: Vec<u8> = line.iter().map(|&at| if at == b'#' { byte } else { at }).collect();
            assert!(matches!(answered(upgrade().line(&line)), 400 | 505), "{line:02X?}");
        }
        let name = [b"X", &[byte][..], b": a"].concat();
        assert_eq!(answered(upgrade().with(&name)), 400, "{name:02X?}");
    }
    siege.lift(1 << 20);
}

#[test]
fn headers_that_cannot_be_read_are_not_taken_for_absent() {
    let files = [("unreadable-secret", "secret"), ("unreadable-key", "key")].map(|(name, text)| {
        let file = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::write(&file, text).unwrap();
        file.display().to_string()
    });
    let [secret, key] = &files;
    let siege = Siege::lay(&format!(
        "--history-size 10 --client-publish --allow-anonymous --token-secret-file {secret} --api-key-file {key}"
    ));
    let ask = |line: &str, fields: &[&[u8]], body: &str| {
        let mut peer = siege.server.connect();
        let head = plain("").line(format!("{line} HTTP/1.1"));
        let head = fields.iter().fold(head, Head::with);
        let length = format!("Content-Length: {}", body.len());
        let head = if line.starts_with("POST") { head.with(length) } else { head };
        peer.send([head.bytes(), body.into()].concat());
        peer.answer()
    };
    let (post, poll, api) = ("POST /topics/t", "GET /topics/t", "POST /api/info");
    let (commands, stream) = ("POST /emulation", "POST /connection/http_stream");
    let events = "GET /connection/sse?cf_connect=%7B%7D";
    for (line, field, status, code) in [
        // A type that nobody can read is neither that of text nor that of bytes; nor is one that is no token.
        (post, &b"Content-Type: application/json\xFF"[..], 400, "header_unreadable"),
        (post, b"Content-Type: text/plain; charset=\xE4", 400, "header_unreadable"),
        (post, "Content-Type: text/pläin".as_bytes(), 400, "header_unreadable"),
        (post, b"Content-Encoding: \xFF", 415, "media_type"),
        (post, b"Idempotency-Key: \xFF", 400, "bad_parameter"),
        (post, b"Expect: \xFF", 417, "expectation"),
        (post, b"Origin: http://\xFF", 403, "origin_forbidden"),
        // Who meant to be somebody is not nobody.
        (post, b"Authorization: Bearer \xFF", 400, "header_unreadable"),
        (poll, b"Authorization: \xFF", 400, "header_unreadable"),
        (poll, "Authorization: Bearer ä".as_bytes(), 401, "token"),
        (poll, b"Authorization: apikey \xFF", 401, "service"),
        (poll, b"X-API-Key: \xFF", 401, "service"),
        (poll, b"Prefer: wait=\xFF", 400, "bad_parameter"),
        (api, b"X-API-Key: key\xFF", 401, "api_key"),
        (api, b"Authorization: apikey key\xFF", 401, "api_key"),
        (commands, b"Content-Type: application/octet-stream\xFF", 400, "header_unreadable"),
        (stream, b"Content-Type: \xFF", 400, "header_unreadable"),
        (events, b"Sec-Fetch-Site: \xFF", 403, "origin_forbidden"),
    ] {
        let answer = ask(line, &[field], "{}");
        let problem = answer.problem();
        let field = String::from_utf8_lossy(field);
        assert_eq!((answer.status, &*problem["code"]), (status, code), "{line} {field}");
        let name = field.split(':').next().unwrap();
        assert!(code != "header_unreadable" || problem["detail"].contains(name), "{field}: {problem:?}");
    }
    // Behind a key that counts, nobody looks at the other field.
    assert_eq!(ask(api, &[b"X-API-Key: key", b"Authorization: \xFF"], "{}").status, 200);
    assert_eq!(ask(poll, &[], "").body, b"[]\n", "nothing was published");
    // What only says what would be liked is passed over (RFC 9110, section 12.1; RFC 7240, section 2).
    assert_eq!(ask(poll, &[b"Accept: \xFF", b"Prefer: \xFF"], "").status, 200);
    // A position that cannot be read is a gap, not the newest message; a refusal would end an EventSource for ever.
    let mut peer = siege.server.connect();
    peer.send(plain("/topics/t").with("Accept: text/event-stream").with(b"Last-Event-ID: abcdefgh-\xFF").bytes());
    assert_eq!(peer.head().status, 200);
    peer.line_block(Instant::now() + PATIENCE);
    let gap = peer.line_block(Instant::now() + PATIENCE);
    assert!(gap.starts_with("event: gap\n") && gap.contains("\"since\":\"abcdefgh-\u{FFFD}\""), "{gap}");
    drop(peer);
    siege.lift(1 << 20);
}

#[test]
fn a_secret_request_behind_a_failed_upgrade_is_neither_answered_nor_done() {
    let siege = Siege::lay("--history-size 10");
    let topic = |target: &str| upgrade().line(format!("GET {target} HTTP/1.1"));
    let failing = [
        (upgrade().without("Sec-WebSocket-Key"), 400),
        (upgrade().but("Sec-WebSocket-Key: short"), 400),
        (upgrade().without("Sec-WebSocket-Version"), 400),
        (upgrade().but("Sec-WebSocket-Version: 777"), 426),
        (upgrade().but("Connection: keep-alive"), 400),
        (upgrade().line("GET /chat HTTP/1.0").with("Connection: keep-alive"), 400),
        (upgrade().line("POST /chat HTTP/1.1"), 405),
        (upgrade().without("Host"), 400),
        (upgrade().with("Host: other.test"), 400),
        (upgrade().with("Origin: http://evil.test"), 403),
        (upgrade().with("Sec-WebSocket-Protocol: a, a"), 400),
        (upgrade().with("Content-Length: 3"), 400),
        (upgrade().with("Transfer-Encoding: chunked"), 400),
        (upgrade().with("Content-Length: 0").with("Transfer-Encoding: chunked"), 400),
        (topic("/topics/%00"), 400),
        (topic("/topics/t?since=nonsense"), 400),
        (topic("/topics/t?frames=xml"), 400),
        (topic("/connection/websocket?format=xml"), 101),
    ];
    let secret = [
        plain("").line("POST /topics/secret HTTP/1.1").with("Content-Length: 6").bytes(),
        b"stolen".to_vec(),
        plain("/metrics").bytes(),
    ]
    .concat();
    for (head, status) in failing {
        for cut in [Cut::Whole, Cut::AtRandom] {
            let mut peer = siege.server.connect();
            peer.send_cut(&[head.bytes(), secret.clone()].concat(), cut);
            let answer = peer.head();
            assert_eq!(answer.status, status, "{head:?}: {answer:?}");
            // One that does come in has its secret taken for a frame.
            if status == 101 {
                peer.expect_close(1002);
                peer.expect_eof();
                continue;
            }
            let body = peer.rest();
            assert!(answer.lists("Connection", "close"), "{head:?}: {answer:?}");
            assert_eq!(answer.field("Content-Length"), Some(&*body.len().to_string()), "one answer and no more");
        }
    }
    assert_eq!(siege.server.get("/topics/secret"), "[]\n");
    siege.lift(1 << 20);
}

// Frames.

#[test]
fn unmasked_frames_of_every_opcode_are_refused_and_not_read() {
    let siege = Siege::lay("");
    for opcode in 0..16 {
        for payload in [&b""[..], b"x", &[b'x'; 125], &[b'x'; 126], &[b'x'; 65_536]] {
            for frame in [frame(opcode, payload).unmasked(), frame(opcode, payload).unfinished().unmasked()] {
                let mut peer = siege.server.websocket();
                peer.send(frame.bytes());
                peer.expect_close(1002);
                peer.expect_eof();
            }
        }
    }
    assert_eq!(siege.server.metric("throng_violations_total"), 16.0 * 5.0 * 2.0);
    siege.lift(1 << 20);
}

/// What is not UTF-8: continuations alone, overlong forms, surrogates, beyond the last code point, cut characters.
const NOT_UTF8: [&[u8]; 12] = [
    b"\x80",
    b"\xBF\xBF",
    b"\xC0\xAF",
    b"\xE0\x9F\xBF",
    b"\xF0\x8F\xBF\xBF",
    b"\xED\xA0\x80",
    b"\xED\xBF\xBF",
    b"\xF4\x90\x80\x80",
    b"\xF8\x88\x80\x80\x80",
    b"\xFE\xFF",
    b"\xE2\x82",
    b"\xF0\x9F\x98",
];

#[test]
fn invalid_utf8_is_refused_wherever_it_is_split() {
    let siege = Siege::lay("");
    for bad in NOT_UTF8 {
        let payload = ["κ€😀".as_bytes(), bad, b"x"].concat();
        // In three fragments, of whatever lengths.
        for (at, then) in (0..=payload.len()).flat_map(|at| (at..=payload.len()).map(move |then| (at, then))) {
            let (fragments, mut peer) =
                ((&payload[..at], &payload[at..then], &payload[then..]), siege.server.websocket());
            peer.send(wire(&[
                text(fragments.0).unfinished(),
                frame(PONG, "between"),
                frame(CONTINUATION, fragments.1).unfinished(),
                frame(CONTINUATION, fragments.2),
            ]));
            peer.expect_close(1007);
            peer.expect_eof();
        }
        // One frame, split where it is read.
        let whole = text(&payload).bytes();
        for at in 1..whole.len() {
            let mut peer = siege.server.websocket();
            peer.send(&whole[..at]);
            // Refused before the rest comes, perhaps.
            let _ = peer.try_send(&whole[at..]);
            peer.expect_close(1007);
        }
        // And by POST, in what says that it is text.
        for kind in ["text/plain", "application/json"] {
            let body = [b"\"", &payload[..], b"\""].concat();
            let mut peer = siege.server.connect();
            let head = plain("").line("POST /topics/t HTTP/1.1").with(format!("Content-Type: {kind}"));
            peer.send([head.with(format!("Content-Length: {}", body.len())).bytes(), body].concat());
            assert_eq!(peer.answer().status, 400);
        }
    }
    assert_eq!(siege.server.metric("throng_published_total"), 0.0);
    siege.lift(1 << 20);
}

// Event streams.

/// An event as an EventSource sees it (HTML, section 9.2.6).
#[derive(Debug, Default, PartialEq, Eq)]
struct SeenEvent {
    id: String,
    kind: String,
    data: String,
}

/// Reads a stream, written from the standard's text, until `count` events have been seen. A `retry` behind the first block
/// is somebody's who may not set it.
fn events(peer: &mut Raw, count: usize) -> Vec<SeenEvent> {
    let deadline = Instant::now() + PATIENCE;
    let (mut seen, mut id) = (Vec::new(), String::new());
    while seen.len() < count {
        let (block, mut event) = (peer.line_block(deadline), SeenEvent::default());
        for line in block.replace("\r\n", "\n").replace('\r', "\n").split('\n') {
            // An empty line would dispatch: `line_block` ends at those that the server wrote.
            assert!(!line.is_empty(), "{block:?}");
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match name {
                "" => {}
                "data" => event.data.extend([value, "\n"]),
                "event" => value.clone_into(&mut event.kind),
                "id" if !value.contains('\0') => value.clone_into(&mut id),
                "retry" if id.is_empty() && seen.is_empty() => {}
                _ => panic!("a field {name:?} in {block:?}"),
            }
        }
        if let Some(data) = event.data.strip_suffix('\n') {
            seen.push(SeenEvent { id: id.clone(), data: data.to_owned(), kind: event.kind });
        }
    }
    seen
}

#[track_caller]
fn listen(server: &Throng, target: &str, fields: &str) -> Raw {
    let mut peer = server.connect();
    peer.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n{fields}\r\n"));
    let answer = peer.head();
    assert_eq!((answer.status, answer.field("Content-Type")), (200, Some("text/event-stream")));
    peer
}

#[test]
fn no_message_breaks_out_of_its_data_lines() {
    let siege = Siege::lay("");
    let forged = "event: gap\nid: forged-1\nretry: 1\ndata: forged\n\nevent: forged\ndata: x\n\n";
    let (crlf, cr) = (forged.replace('\n', "\r\n"), forged.replace('\n', "\r"));
    let texts = [
        "",
        "\n",
        "\r",
        "\r\n",
        "\n\r",
        "\r\r\n\n",
        "\0",
        "a\0b\nid: \0",
        ":",
        ": comment",
        "data",
        "data: x",
        "id: 1",
        " x",
        "\u{FEFF}x",
        "a\u{85}b\u{2028}c\u{2029}d",
        "\u{B}\u{C}\u{1B}[2J",
        forged,
        &crlf,
        &cr,
        &format!("x{forged}"),
        &format!("x\n\n{forged}"),
    ];
    let json = ["{\r\n\"a\":\n1\r}", "[\r1,\n\n2]", r#""\n\nid: forged\r\ndata: x\u0000""#];
    let mut peer = listen(&siege.server, "/topics/t", "");
    let mut publisher = siege.server.connect();
    let mut publish = |kind: &str, body: &str| {
        let head = plain("").line("POST /topics/t HTTP/1.1").with(format!("Content-Type: {kind}"));
        publisher.send([head.with(format!("Content-Length: {}", body.len())).bytes(), body.into()].concat());
        let answer = publisher.answer();
        assert_eq!(answer.status, 200, "{body:?}");
        answer.field("Throng-Cursor").unwrap().to_owned()
    };
    let published =
        texts.iter().map(|text| ("text/plain", *text)).chain(json.iter().map(|text| ("application/json", *text)));
    for (kind, body) in published {
        let id = publish(kind, body);
        let data = body.replace("\r\n", "\n").replace('\r', "\n");
        assert_eq!(events(&mut peer, 1), [SeenEvent { id, kind: String::new(), data }], "{body:?}");
    }
    drop((peer, publisher));
    siege.lift(1 << 20);
}

#[test]
fn no_position_breaks_out_of_the_gap_that_names_it() {
    let siege = Siege::lay("");
    let forged = "%0Aevent:%20forged%0Adata:%20x%0A%0A";
    for (target, fields, since) in [
        (format!("/topics/t?last_event_id={forged}"), "", "\nevent: forged\ndata: x\n\n"),
        ("/topics/t?last_event_id=%0D%0D%00%22%5C%7D".to_owned(), "", "\r\r\0\"\\}"),
        ("/topics/t?last_event_id=abcdefgh-1%0Aid:%20x".to_owned(), "", "abcdefgh-1\nid: x"),
        ("/topics/t".to_owned(), "Last-Event-ID: \"},\"data\":\t{\r\n", "\"},\"data\":\t{"),
        ("/topics/t".to_owned(), "Last-Event-ID: %0Aevent: forged\r\n", "%0Aevent: forged"),
    ] {
        let gap = events(&mut listen(&siege.server, &target, fields), 1).remove(0);
        assert_eq!(gap.kind, "gap", "{target}");
        let said: serde_json::Value = serde_json::from_str(&gap.data).unwrap();
        assert_eq!(said["gap"]["since"], since, "{said}");
        assert_eq!(said["gap"]["resumed"], *gap.id);
    }
    siege.lift(1 << 20);
}

/// A token for a user, with `info` that is not compacted.
fn token(user: &str, info: &str) -> String {
    #[derive(serde::Serialize)]
    struct Claims<'a> {
        sub: &'a str,
        info: Box<serde_json::value::RawValue>,
    }
    let info = serde_json::value::RawValue::from_string(info.to_owned()).unwrap();
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &Claims { sub: user, info }, &key).unwrap()
}

const SECRET: &str = "secret";

/// A file that has the secret of the tokens, for a test of this name.
fn secret_file(name: &str) -> std::path::PathBuf {
    let file = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&file, SECRET).unwrap();
    file
}

#[test]
fn nothing_breaks_out_of_the_events_of_a_session() {
    let secret = secret_file("throng-forgeries-events");
    let flags = "--client-publish --presence --join-leave --allow-anonymous --api-insecure --token-secret-file";
    let siege = Siege::lay(&format!("{flags} {}", secret.display()));
    // HTTP/1.0 has no chunks: what comes is the stream.
    let commands = "{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"t\",\"join_leave\":true}}";
    let commands: String = commands.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let mut peer = siege.server.connect();
    peer.send(plain("").line(format!("GET /connection/sse?cf_connect={commands} HTTP/1.0")).bytes());
    let answer = peer.head();
    assert_eq!((answer.status, answer.field("Content-Type")), (200, Some("text/event-stream")), "{answer:?}");
    let mut seen = |kind: &str| loop {
        let event = events(&mut peer, 1).remove(0);
        assert_eq!((&*event.id, &*event.kind), ("", ""), "{event:?}");
        assert!(!event.data.contains('\n'), "one line: {event:?}");
        let reply: serde_json::Value = serde_json::from_str(&event.data).unwrap_or_else(|_| panic!("{event:?}"));
        if let Some(push) = reply["push"].get(kind) {
            return push.clone();
        }
        assert!(reply["push"].is_null() && reply["error"].is_null() || reply["push"].get("join").is_some(), "{reply}");
    };
    let forged = "\n\nevent: forged\r\rdata: x\r\nid: \0\n\n";
    let json = ["{\r\n\"a\":\n\n1\r}", "[\r1,\n\n2\r\n]", "\r\n\r\n\"x\"\n\n", r#""\n\nid: forged\r\ndata: x\u0000""#];
    let mut publisher = siege.server.connect();
    let mut post = |target: &str, kind: &str, body: &str| {
        let head = plain("").line(format!("POST {target} HTTP/1.1")).with(format!("Content-Type: {kind}"));
        publisher.send([head.with(format!("Content-Length: {}", body.len())).bytes(), body.into()].concat());
        let answer = publisher.answer();
        assert_eq!(answer.status, 200, "{body:?}: {answer:?}");
    };
    for text in [forged, "\r", "\0", "\u{85}\u{2028}\u{2029}"] {
        post("/topics/t", "text/plain", text);
        assert_eq!(seen("pub")["data"], *text);
    }
    for value in json {
        let said: serde_json::Value = serde_json::from_str(value).unwrap();
        post("/topics/t", "application/json", value);
        assert_eq!(seen("pub")["data"], said);
        let tags = serde_json::json!({ forged: forged });
        let publish = format!(r#"{{"channel":"t","tags":{tags},"data":{value}}}"#);
        post("/api/publish", "application/json", &publish);
        let published = seen("pub");
        assert_eq!((&published["data"], &published["tags"]), (&said, &tags));
        // Somebody comes, and says something, of whom all of it is said.
        let mut client = siege.server.connect();
        client.send(upgrade().line("GET /connection/websocket HTTP/1.1").bytes());
        assert_eq!(client.head().status, 101);
        let connect = serde_json::json!({"id": 1, "connect": {"token": token(forged, value), "name": forged}});
        let subscribe = r#"{"id":2,"subscribe":{"channel":"t"}}"#;
        let publish = format!(r#"{{"id":3,"publish":{{"channel":"t","data":{}}}}}"#, value.replace('\n', " "));
        client.send(wire(&[text(connect.to_string()), text(subscribe), text(publish)]));
        let joined = seen("join");
        assert_eq!((&joined["info"]["user"], &joined["info"]["conn_info"]), (&forged.into(), &said));
        let published = seen("pub");
        assert_eq!((&published["data"], &published["info"]), (&said, &joined["info"]));
        client.send(close(1000, forged).bytes());
        assert_eq!(seen("leave")["info"], joined["info"]);
    }
    std::fs::remove_file(&secret).unwrap();
    drop((peer, publisher));
    siege.lift(2 << 20);
}

#[test]
fn nothing_of_a_request_breaks_out_of_its_answer() {
    let siege = Siege::lay("--allow-origin *");
    let forged = "%0D%0ASet-Cookie:%20forged%0D%0A%0D%0A%00%1B[2J%22%7D";
    for (target, fields, status) in [
        (format!("/topics/{forged}"), "", 400),
        (format!("/topics/t?since={forged}"), "", 400),
        (format!("/topics/t?limit={forged}"), "", 400),
        (format!("/topics/t?wait={forged}"), "", 400),
        (format!("/topics/t?since=%FF{forged}"), "", 400),
        (format!("/{forged}"), "", 426),
        (format!("/api/{forged}"), "", 401),
        ("/topics/t".to_owned(), "Prefer: wait=\"\tx\"\r\n", 400),
        ("/topics/t".to_owned(), "Origin: null\tSet-Cookie: forged\r\n", 200),
    ] {
        let mut peer = siege.server.connect();
        peer.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}\r\n"));
        let answer = peer.response();
        assert_eq!(answer.status, status, "{target}: {answer:?}");
        assert_eq!(answer.field("Set-Cookie"), None);
        assert_eq!(answer.field("Content-Length"), Some(&*answer.body.len().to_string()));
        let body = String::from_utf8(answer.body).unwrap();
        assert!(!body.trim_end().contains(char::is_control), "{target}: {body:?}");
    }
    siege.lift(1 << 20);
}

// The log.

#[test]
fn nobody_writes_lines_of_the_log() {
    let secret = secret_file("throng-forgeries-log");
    let flags = "--log-level debug --drain 0 --presence --client-publish --api-insecure --allow-anonymous";
    let flags = format!("{flags} --token-secret-file {}", secret.display());
    let mut server = Throng::start(&flags);
    let forged = "\n2026-01-01T00:00:00.000Z INFO forged\r\u{1B}[2J\u{9B}31m\0\u{7F}\u{85}\u{2028}\u{202E}";
    // Where a head may have such bytes at all, and where it may not; escaped as in a URL, too.
    let escaped = "%0A2026-01-01T00:00:00.000Z%20INFO%20forged%0D%1B[2J%00";
    for head in [
        upgrade().line(format!("GET /topics/{escaped} HTTP/1.1")),
        upgrade().line(format!("GET /{escaped}?{escaped} HTTP/1.1")),
        upgrade().line(format!("GET /topics/t?since={escaped} HTTP/1.1")),
        upgrade().line(format!("GET /{forged} HTTP/1.1")),
        upgrade().line(format!("{forged} / HTTP/1.1")),
        upgrade().with(format!("X: {forged}")),
        upgrade().with(format!("{forged}: x")),
        upgrade().but("Sec-WebSocket-Version: 8").with(format!("User-Agent: {escaped} \u{9B}31m")),
        upgrade().with(format!("Origin: http://{escaped}")),
        upgrade().with(format!("Authorization: Bearer {escaped}")),
        plain(&format!("/api/{escaped}")).with("Connection: close"),
        plain(&format!("/connection/sse?cf_connect={escaped}")),
        plain(&format!("/connection/sse?cf_connect=%7B%22id%22:1,%22connect%22:%7B%22name%22:%22{escaped}%22%7D%7D")),
        plain("/healthz").with(format!("X-Forwarded-For: {escaped}")).with(format!("Forwarded: for=\"{escaped}\"")),
        plain("/topics/t").with(format!("Last-Event-ID: {escaped}")).with("Accept: text/event-stream"),
        plain("/topics/t").with(format!("Authorization: apikey {escaped}")).with(format!("X-API-Key: {escaped}")),
    ] {
        let mut peer = server.connect();
        peer.send(head.bytes());
        assert!(peer.head().status >= 101);
    }
    for (target, body) in [
        ("/emulation", serde_json::json!({"session": forged, "node": forged, "data": forged})),
        ("/connection/http_stream", serde_json::json!({"id": 1, "connect": {"token": forged}})),
        ("/connection/sse", serde_json::json!({forged: forged})),
        ("/api/publish", serde_json::json!({"channel": forged, "data": forged})),
        ("/api/publish", serde_json::json!({"channel": "t", "data": forged, "idempotency_key": forged})),
        ("/api/disconnect", serde_json::json!({"user": forged, "client": forged})),
        ("/api/subscribe", serde_json::json!({"user": forged, "channel": forged})),
        ("/api/batch", serde_json::json!({"commands": [{forged: {}}]})),
    ] {
        let (mut peer, body) = (server.connect(), body.to_string());
        let head = plain("").line(format!("POST {target} HTTP/1.1")).with("Content-Type: application/json");
        peer.send([head.with(format!("Content-Length: {}", body.len())).bytes(), body.into()].concat());
        assert!(peer.head().status >= 200);
    }
    // Reasons of closes may be any text, up to 123 bytes.
    let mut peer = server.websocket();
    peer.send(close(4000, forged).bytes());
    peer.expect_close(4000);
    let base64 = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    for command in [
        serde_json::json!({"id": 1, "connect": {"token": forged, "name": forged, "version": forged}}),
        serde_json::json!({"id": 1, "connect": {"token": format!("{}.{}.x", base64(forged), base64(forged))}}),
        serde_json::json!({"id": 1, forged: {}}),
        serde_json::json!({"id": 1, "connect": {forged: forged}, "subscribe": {"channel": forged}}),
        serde_json::json!({"id": 1, "connect": {"token": token(forged, "{\n\n}"), "name": forged}}),
        serde_json::json!({"id": 1, "connect": {"subs": {forged: {}}}}),
    ]
    .map(|command| command.to_string())
    .into_iter()
    .chain([
        forged.to_owned(),
        format!("{{\"id\":1,\"connect\":{{}}}}\n{{\"id\":2,\"subscribe\":{{\"channel\":{forged:?}}}}}"),
    ]) {
        let mut peer = server.connect();
        peer.send(upgrade().line("GET /connection/websocket HTTP/1.1").bytes());
        assert_eq!(peer.head().status, 101);
        peer.send(text(command).bytes());
        peer.frame();
    }
    std::fs::remove_file(&secret).unwrap();
    server.signal("TERM");
    server.exit(PATIENCE);
    eventually("all of the log is there", PATIENCE, || {
        server.log().last().is_some_and(|line| line.ends_with("throng stopped"))
    });
    let log = server.log();
    let is_level = |level: &str| ["ERROR", "WARN", "INFO", "DEBUG"].contains(&level);
    for line in &log {
        let words: Vec<&str> = line.splitn(3, ' ').collect();
        assert!(words.len() == 3 && words[0].len() == 24 && is_level(words[1]), "not a line of the log: {line:?}");
        assert!(!words[2].starts_with("forged"), "{line:?}");
        let unprintable = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202A}'..='\u{202E}');
        assert!(!line.contains(unprintable), "{line:?}");
    }
    // What may be logged at all, the reason of a close, is, in a form that shows what it was.
    assert!(log.iter().any(|line| line.contains(r"\n2026-01-01T00:00:00.000Z INFO forged\r\u{1b}[2J")), "{log:#?}");
}
