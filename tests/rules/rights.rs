//! Which clients may do what with the topics of a namespace.

use crate::client::*;
use crate::support::*;
use crate::{FILE, start, token};
use serde_json::{Value, json};
use std::time::Instant;

#[test]
fn a_topics_url_gives_what_its_namespace_allows() {
    let server = start("urls", FILE);
    for topic in ["closed:a", "users:a", "public:a", "live:a", "members:a", "guests:a"] {
        post(&server, topic, "kept");
    }
    const ALL: [u16; 11] = [101, 101, 200, 101, 101, 200, 200, 200, 200, 200, 200];
    const NONE: [u16; 11] = [403; 11];
    // What comes, and nothing that is kept.
    const LIVE: [u16; 11] = [101, 101, 200, 403, 403, 403, 403, 403, 403, 403, 403];
    // Who reads is a subscriber; who posts or asks who is there is none.
    const MEMBER: [u16; 11] = [101, 101, 200, 101, 101, 200, 200, 200, 200, 403, 403];
    for (topic, who, expected) in [
        ("closed:a", Anonymous, NONE),
        ("closed:a", User("42"), NONE),
        ("closed:a", Application, ALL),
        ("users:a", Anonymous, NONE),
        ("users:a", User(""), NONE),
        ("users:a", User("42"), ALL),
        ("public:a", Anonymous, ALL),
        ("public:a", User("42"), ALL),
        ("live:a", Anonymous, LIVE),
        ("live:a", User("42"), LIVE),
        ("members:a", Anonymous, NONE),
        ("members:a", User("42"), MEMBER),
        ("guests:a", Anonymous, LIVE),
        ("guests:a", User("42"), MEMBER),
        ("nowhere:a", User("42"), [404; 11]),
        ("nowhere:a", Application, [404; 11]),
        ("a", User("42"), NONE),
    ] {
        let statuses = WAYS.map(|way| way.status(&server, topic, who));
        assert_eq!(statuses, expected, "{topic} {who:?}, for {WAYS:?}");
    }
    for way in WAYS.into_iter().filter(|way| !matches!(way, Way::Head)) {
        for (topic, code) in [("nowhere:a", "unknown_namespace"), ("closed:a", "forbidden")] {
            let mut peer = server.connect();
            peer.send(way.head(topic).bytes());
            assert_eq!(peer.answer().problem()["code"], code, "{way:?} {topic}");
        }
    }
}

#[test]
fn a_client_of_centrifugos_may_do_what_its_namespace_allows() {
    let server = start("sessions", FILE);
    let asked = ["history", "publish", "presence", "presence_stats"];
    let all = |code| [code; 4];
    for (channel, who, before, subscribe, behind) in [
        ("closed:a", User("42"), all(103), 103, all(103)),
        ("users:a", Anonymous, all(103), 103, all(103)),
        ("users:a", User("42"), all(0), 0, all(0)),
        ("public:a", Anonymous, all(0), 0, all(0)),
        ("live:a", Anonymous, all(103), 0, all(103)),
        ("live:a", User("42"), all(103), 0, all(103)),
        ("members:a", Anonymous, all(103), 103, all(103)),
        ("members:a", User("42"), all(103), 0, all(0)),
        ("guests:a", Anonymous, all(103), 0, all(103)),
        ("guests:a", User("42"), all(103), 0, all(0)),
        ("nowhere:a", User("42"), all(102), 102, all(102)),
        ("a", User("42"), [108, 103, 108, 108], 103, [108, 103, 108, 108]),
    ] {
        let mut client = Client::connect(&server, who);
        assert_eq!(asked.map(|method| client.code(method, channel)), before, "{channel} {who:?}");
        assert_eq!(client.code("subscribe", channel), subscribe, "{channel} {who:?}");
        assert_eq!(asked.map(|method| client.code(method, channel)), behind, "{channel} {who:?}, subscribed");
        if subscribe == 0 {
            assert_eq!(client.code("unsubscribe", channel), 0);
            assert_eq!(asked.map(|method| client.code(method, channel)), before, "{channel} {who:?}, no longer");
        }
    }
    for (method, body) in [
        ("publish", json!({"channel": "nowhere:a", "data": 1})),
        ("history", json!({"channel": "nowhere:a"})),
        ("history_remove", json!({"channel": "nowhere:a"})),
        ("presence", json!({"channel": "nowhere:a"})),
        ("presence_stats", json!({"channel": "nowhere:a"})),
        ("subscribe", json!({"channel": "nowhere:a", "user": "42"})),
    ] {
        assert_eq!(api(&server, method, &body)["error"]["code"], 102, "{method}");
    }
    let broadcast = api(&server, "broadcast", &json!({"channels": ["nowhere:a", "closed:b"], "data": 1}));
    let responses = &broadcast["result"]["responses"];
    assert_eq!((&responses[0]["error"]["code"], &responses[1]["result"]["offset"]), (&json!(102), &json!(1)));
    assert!(
        api(&server, "presence", &json!({"channel": "closed:a"}))["result"].is_object(),
        "its rules are for clients"
    );
    assert_eq!(api(&server, "presence", &json!({"channel": "a"}))["error"]["code"], 108);
    assert_eq!(api(&server, "history", &json!({"channel": "a"}))["error"]["code"], 108);
}

/// All commands at once, behind the connect, without a WebSocket.
#[test]
fn the_fallbacks_of_centrifugos_clients_keep_to_the_same_rules() {
    let server = start("fallbacks", FILE);
    for (channel, who, subscribe, behind) in [
        ("closed:a", User("42"), 103, 103),
        ("users:a", Anonymous, 103, 103),
        ("users:a", User("42"), 0, 0),
        ("live:a", Anonymous, 0, 103),
        ("members:a", User("42"), 0, 0),
        ("nowhere:a", User("42"), 102, 102),
    ] {
        let token = if let User(user) = who { token("secret", &json!({"sub": user})) } else { String::new() };
        let mut commands = json!({"id": 1, "connect": {"token": token}}).to_string();
        for (id, method) in [(2, "subscribe"), (3, "history"), (4, "publish"), (5, "presence")] {
            let params = if id == 4 { json!({"channel": channel, "data": 1}) } else { json!({"channel": channel}) };
            commands += &format!("\n{}", json!({"id": id, method: params}));
        }
        let escaped: String = commands.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let head = plain("").line("POST /connection/http_stream HTTP/1.1");
        for request in [
            [head.with(format!("Content-Length: {}", commands.len())).bytes(), commands.into()].concat(),
            plain(&format!("/connection/sse?cf_connect={escaped}")).bytes(),
        ] {
            let mut peer = server.connect();
            peer.send(request);
            assert_eq!(peer.head().status, 200);
            let (mut codes, mut heard) = ([0; 4], 0);
            while heard < 4 {
                let chunk = String::from_utf8(peer.chunk()).unwrap();
                for line in chunk.lines().map(|line| line.trim_start_matches("data: ")) {
                    let Ok(reply) = serde_json::from_str::<Value>(line) else { continue };
                    let Some(id @ 2..) = reply["id"].as_u64() else { continue };
                    codes[id as usize - 2] = reply["error"]["code"].as_u64().unwrap_or(0);
                    heard += 1;
                }
            }
            assert_eq!(codes, [subscribe, behind, behind, behind], "{channel} {who:?}");
        }
    }
}

#[test]
fn what_is_sent_on_a_topics_websocket_is_published_if_the_client_may() {
    let server = start("writers", FILE);
    for (topic, who, published) in [
        ("users:w", User("42"), true),
        ("members:w", User("42"), true), // it is a subscriber
        ("public:w", Anonymous, true),
        ("live:w", User("42"), false),
        ("guests:w", User("42"), true),
        ("guests:x", Anonymous, false),
        ("closed:w", Application, true),
    ] {
        for frames in ["", "?frames=json"] {
            let (mut peer, answer) = Way::WebSocket(frames).ask(&server, topic, who);
            assert_eq!(answer.status, 101);
            peer.send(text("1").bytes());
            if published {
                assert!(String::from_utf8(peer.frame().payload).unwrap().contains('1'), "{topic}");
            } else {
                peer.expect_close(1008);
                assert_eq!(get(&server, &format!("/topics/{topic}"), Application).body, b"[]\n");
            }
        }
    }
}

#[test]
fn where_nothing_may_be_read_that_is_kept_nothing_leaks() {
    let server = start("leaks", FILE);
    let first = post(&server, "live:l", "secret-1");
    post(&server, "live:l", "secret-2");
    let start = first.replace("-1", "-0");
    for since in ["earliest", &start] {
        let target = format!("/topics/live:l?since={since}");
        for head in [upgrade().line(format!("GET {target} HTTP/1.1")), plain(&target).with("Accept: text/event-stream")]
        {
            let mut peer = server.connect();
            peer.send(head.bytes());
            assert_eq!(peer.answer().status, 403, "{since}");
        }
    }
    // An EventSource comes back with where it was, and would not come again after a refusal.
    for id in [&*start, "nonsense"] {
        for by_header in [true, false] {
            let query = if by_header { String::new() } else { format!("?last_event_id={id}") };
            let head = plain(&format!("/topics/live:l{query}")).with("Accept: text/event-stream");
            let mut peer = server.connect();
            peer.send(if by_header { head.with(format!("Last-Event-ID: {id}")) } else { head }.bytes());
            assert_eq!(peer.head().status, 200);
            let deadline = Instant::now() + PATIENCE;
            let mut blocks = peer.line_block(deadline);
            while !blocks.contains("event: gap") {
                blocks += &peer.line_block(deadline);
            }
            let cursor = post(&server, "live:l", "news");
            let block = peer.line_block(deadline);
            assert!(!blocks.contains("secret") && block == format!("id: {cursor}\ndata: news"), "{blocks} {block}");
        }
    }
    // Who is there is no stream.
    let mut peer = server.connect();
    peer.send(upgrade().line("GET /topics/live:l/presence HTTP/1.1").bytes());
    assert_eq!(peer.answer().status, 400);
    let mut client = Client::connect(&server, User("42"));
    let epoch = start.split('-').next().unwrap();
    let recover = json!({"channel": "live:l", "recover": true, "epoch": epoch, "offset": 0, "recoverable": true, "positioned": true});
    assert_eq!(client.subscribe(&recover), json!({}), "it is told no position, and nothing from before");
}

#[test]
fn without_rules_everything_is_allowed_but_client_publishing_and_what_is_private() {
    let server = start(
        "open",
        "[client.token]\nhmac_secret_key = \"secret\"\n[client]\nallow_anonymous_connect_without_token = true",
    );
    for way in WAYS.into_iter().filter(|way| !matches!(way, Way::Presence)) {
        assert!(way.status(&server, "any:thing#1", User("42")) < 400, "{way:?}");
        // Where there are tokens, nobody publishes without one.
        let is_post = matches!(way, Way::Post);
        assert_eq!(way.status(&server, "any:thing#1", Anonymous) == 403, is_post, "{way:?}");
    }
    assert_eq!(Way::Presence.status(&server, "any:thing", Anonymous), 404, "nobody is counted");
    let (mut peer, _) = Way::WebSocket("").ask(&server, "t", Anonymous);
    peer.send(text("1").bytes());
    peer.expect_close(1008);
    let mut client = Client::connect(&server, Anonymous);
    assert_eq!(["publish", "subscribe", "history"].map(|method| client.code(method, "any:thing")), [103, 0, 0]);
    for way in WAYS.into_iter().filter(|way| !matches!(way, Way::Post)) {
        assert_eq!(way.status(&server, "$mine", User("42")), 403, "{way:?}");
    }
    assert_eq!(["subscribe", "history"].map(|method| client.code(method, "$mine")), [103, 103]);
    // Where there are no tokens the name is like any other.
    let server = Throng::start("--workers 2 --ping-interval 100");
    assert_eq!(Way::WebSocket("").status(&server, "$mine", Anonymous), 101);
}

#[test]
fn insecure_clients_may_do_everything_where_there_are_rules() {
    let server = start("insecure", &FILE.replace("[client]", "[client]\ninsecure = true"));
    for way in WAYS {
        assert!(way.status(&server, "closed:a", Anonymous) < 400, "{way:?}");
        assert_eq!(way.status(&server, "nowhere:a", Anonymous), 404, "{way:?}");
    }
    let mut client = Client::connect(&server, Anonymous);
    for method in ["history", "publish", "presence", "subscribe"] {
        assert_eq!(client.code(method, "closed:a"), 0, "{method}");
        assert_eq!(client.code(method, "nowhere:a"), 102, "{method}");
    }
    let mut client = Client::connect(&server, Anonymous);
    let subscribed = client.subscribe(&json!({"channel": "closed:a", "recoverable": true}));
    assert_eq!(subscribed["recoverable"], true);
}
