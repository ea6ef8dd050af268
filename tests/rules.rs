//! One rule set, from a configuration file, over every transport.
#![cfg(feature = "cli")] // There is no binary without it.

mod support;

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use support::*;

/// What most tests here are about. Every namespace keeps ten messages and knows who is there; what clients may do differs.
const FILE: &str = r#"
[http_api]
key = "the key"
[client]
allow_anonymous_connect_without_token = true
[client.token]
hmac_secret_key = "secret"

[[channel.namespaces]]
name = "closed"
presence = true
history_size = 10
history_ttl = "60s"

[[channel.namespaces]]
name = "users"
presence = true
history_size = 10
history_ttl = "60s"
allow_subscribe_for_client = true
allow_publish_for_client = true
allow_history_for_client = true
allow_presence_for_client = true

[[channel.namespaces]]
name = "public"
presence = true
history_size = 10
history_ttl = "60s"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_publish_for_client = true
allow_publish_for_anonymous = true
allow_history_for_client = true
allow_history_for_anonymous = true
allow_presence_for_client = true
allow_presence_for_anonymous = true

[[channel.namespaces]]
name = "live"
presence = true
history_size = 10
history_ttl = "60s"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true

[[channel.namespaces]]
name = "members"
presence = true
history_size = 10
history_ttl = "60s"
allow_subscribe_for_client = true
allow_publish_for_subscriber = true
allow_history_for_subscriber = true
allow_presence_for_subscriber = true
# Alone it means nothing.
allow_history_for_anonymous = true

[[channel.namespaces]]
name = "guests"
presence = true
history_size = 10
history_ttl = "60s"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
# Not for anonymous ones.
allow_publish_for_subscriber = true
allow_history_for_subscriber = true
allow_presence_for_subscriber = true

[[channel.namespaces]]
name = "limited"
presence = true
history_size = 10
history_ttl = "60s"
allow_user_limited_channels = true
allow_history_for_client = true
allow_presence_for_client = true
"#;

fn config(name: &str, text: &str) -> PathBuf {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("rules-{name}.toml"));
    std::fs::write(&file, text).unwrap();
    file
}

/// One worker is a topic's home, and three are not.
fn start(name: &str, text: &str) -> Throng {
    Throng::start(&format!("--workers 4 --ping-interval 100 --config {}", config(name, text).display()))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn token(secret: &str, claims: &Value) -> String {
    jsonwebtoken::encode(&Header::default(), claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
enum Who {
    Anonymous,
    User(&'static str),
    Application,
}
use Who::{Anonymous, Application, User};

impl Who {
    fn signs(self, head: Head) -> Head {
        match self {
            Anonymous => head,
            User(user) => head.with(format!("Authorization: Bearer {}", token("secret", &json!({"sub": user})))),
            Application => head.with("X-API-Key: the key"),
        }
    }
}

/// What is asked of a topic's URL.
#[derive(Clone, Copy, Debug)]
enum Way {
    WebSocket(&'static str),
    Events(&'static str),
    Get(&'static str),
    Head,
    Post,
    Presence,
}

/// All of them: first those that give what comes, then those that give what is kept, too.
const WAYS: [Way; 11] = [
    Way::WebSocket(""),
    Way::WebSocket("?frames=json"),
    Way::Events(""),
    Way::WebSocket("?since=earliest"),
    Way::WebSocket("?frames=json&since=earliest"),
    Way::Events("?since=earliest"),
    Way::Get("?since=earliest&wait=1"),
    Way::Get(""),
    Way::Head,
    Way::Post,
    Way::Presence,
];

impl Way {
    fn head(self, topic: &str) -> Head {
        let topic = topic.replace('#', "%23").replace(',', "%2C").replace('$', "%24");
        match self {
            Self::WebSocket(query) => upgrade().line(format!("GET /topics/{topic}{query} HTTP/1.1")),
            Self::Events(query) => plain(&format!("/topics/{topic}{query}")).with("Accept: text/event-stream"),
            Self::Get(query) => plain(&format!("/topics/{topic}{query}")),
            Self::Head => plain("").line(format!("HEAD /topics/{topic} HTTP/1.1")),
            Self::Post => plain("").line(format!("POST /topics/{topic} HTTP/1.1")).with("Content-Length: 0"),
            Self::Presence => plain(&format!("/topics/{topic}/presence")),
        }
    }

    /// Asks, and gives the connection back with the head of the answer read.
    #[track_caller]
    fn ask(self, server: &Throng, topic: &str, who: Who) -> (Raw, Response) {
        let mut peer = server.connect();
        peer.send(who.signs(self.head(topic)).bytes());
        let answer = peer.head();
        (peer, answer)
    }

    fn status(self, server: &Throng, topic: &str, who: Who) -> u16 {
        self.ask(server, topic, who).1.status
    }
}

/// The body of an answer that has one.
fn get(server: &Throng, target: &str, who: Who) -> Response {
    let mut peer = server.connect();
    peer.send(who.signs(plain(target)).bytes());
    peer.answer()
}

fn post(server: &Throng, topic: &str, body: &str) -> String {
    let mut peer = server.connect();
    let head = plain("").line(format!("POST /topics/{topic} HTTP/1.1")).with("X-API-Key: the key");
    peer.send([head.with(format!("Content-Length: {}", body.len())).bytes(), body.into()].concat());
    let answer = peer.answer();
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.field("Throng-Cursor").unwrap().to_owned()
}

/// A client of Centrifugo's protocol that has connected.
struct Client {
    raw: Raw,
    connected: Value,
    commands: u64,
    /// Pushes that came before a reply.
    pushes: Vec<Value>,
}

impl Client {
    #[track_caller]
    fn connect(server: &Throng, who: Who) -> Self {
        let token = match who {
            User(user) => token("secret", &json!({"sub": user})),
            Anonymous | Application => String::new(),
        };
        let mut raw = server.connect();
        raw.send(upgrade().line("GET /connection/websocket HTTP/1.1").bytes());
        assert_eq!(raw.head().status, 101);
        let mut client = Self { raw, connected: Value::Null, commands: 0, pushes: Vec::new() };
        client.connected = client.ask("connect", &json!({"token": token}))["connect"].take();
        assert!(client.connected.is_object());
        client
    }

    #[track_caller]
    fn ask(&mut self, method: &str, params: &Value) -> Value {
        self.commands += 1;
        let id = self.commands;
        self.raw.send(text(json!({"id": id, method: params}).to_string()).bytes());
        loop {
            let frame = String::from_utf8(self.raw.frame().payload).unwrap();
            let mut reply = None;
            for line in frame.lines() {
                let said: Value = serde_json::from_str(line).unwrap();
                if said["id"] == id {
                    reply = Some(said);
                } else {
                    self.pushes.push(said["push"].clone());
                }
            }
            if let Some(reply) = reply {
                return reply;
            }
        }
    }

    /// The code of the error; 0: there is none.
    #[track_caller]
    fn code(&mut self, method: &str, channel: &str) -> u64 {
        let data =
            if method == "publish" { json!({"channel": channel, "data": 1}) } else { json!({"channel": channel}) };
        self.ask(method, &data)["error"]["code"].as_u64().unwrap_or(0)
    }

    #[track_caller]
    fn subscribe(&mut self, params: &Value) -> Value {
        let mut reply = self.ask("subscribe", params);
        assert!(reply["subscribe"].is_object(), "{reply}");
        reply["subscribe"].take()
    }

    #[track_caller]
    fn push(&mut self) -> Value {
        if self.pushes.is_empty() {
            let frame = String::from_utf8(self.raw.frame().payload).unwrap();
            self.pushes.extend(frame.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["push"].take()));
        }
        self.pushes.remove(0)
    }
}

/// A method of the server API.
#[track_caller]
fn api(server: &Throng, method: &str, body: &Value) -> Value {
    let (mut peer, body) = (server.connect(), body.to_string());
    let head = plain("").line(format!("POST /api/{method} HTTP/1.1")).with("X-API-Key: the key");
    peer.send([head.with(format!("Content-Length: {}", body.len())).bytes(), body.into()].concat());
    let answer = peer.answer();
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_slice(&answer.body).unwrap()
}

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
fn without_history_nothing_is_kept_but_for_those_who_are_being_sent_to() {
    let rights = ["subscribe", "history"]
        .map(|right| format!("allow_{right}_for_client = true\nallow_{right}_for_anonymous = true\n"));
    let file = format!("[http_api]\nkey = \"the key\"\n[channel.without_namespace]\n{}", rights.concat());
    let server = start("lingers", &file);
    let (mut peer, _) = Way::WebSocket("").ask(&server, "t", Anonymous);
    let first = post(&server, "t", "gone");
    peer.expect(TEXT, "gone");
    assert_eq!(get(&server, "/topics/t", Anonymous).body, b"[]\n");
    let (mut late, _) = Way::WebSocket("?since=earliest").ask(&server, "t", Anonymous);
    post(&server, "t", "next");
    late.expect(TEXT, "next");
    let polled = get(&server, &format!("/topics/t?since={}", first.replace("-1", "-0")), Anonymous).body;
    let polled = String::from_utf8(polled).unwrap();
    assert!(polled.contains("gap") && !polled.contains("gone") && !polled.contains("next"), "{polled}");
}

#[test]
fn recovery_and_positions_follow_the_namespaces_flags() {
    let history = "history_size = 10\nhistory_ttl = \"60s\"\nallow_subscribe_for_client = true\nallow_subscribe_for_anonymous = true\n";
    let mut file = "[http_api]\nkey = \"the key\"\n".to_owned();
    for flag in ["none", "allow_recovery", "force_recovery", "allow_positioning", "force_positioning"] {
        let name = flag.replace('_', "-");
        let flag = if flag == "none" { String::new() } else { format!("{flag} = true\n") };
        file += &format!("[[channel.namespaces]]\nname = \"{name}\"\n{history}{flag}");
    }
    let server = start("recovery", &file);
    for (channel, unasked, positioned, recoverable) in [
        ("none:r", "", "", ""),
        ("allow-recovery:r", "", "pos", "pos rec"),
        ("force-recovery:r", "pos rec", "pos rec", "pos rec"),
        ("allow-positioning:r", "", "pos", ""),
        ("force-positioning:r", "pos", "pos", "pos"),
    ] {
        let told = |flags: &Value| {
            let mut client = Client::connect(&server, Anonymous);
            let mut params = json!({"channel": channel});
            params.as_object_mut().unwrap().extend(flags.as_object().unwrap().clone());
            let subscribed = client.subscribe(&params);
            assert_eq!(subscribed["epoch"].is_string(), subscribed["positioned"] == true, "{subscribed}");
            let is = |name: &str, word| if subscribed[name] == true { Some(word) } else { None };
            is("positioned", "pos").into_iter().chain(is("recoverable", "rec")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(told(&json!({})), unasked, "{channel}");
        assert_eq!(told(&json!({"positioned": true})), positioned, "{channel}");
        assert_eq!(told(&json!({"recoverable": true})), recoverable, "{channel}");
    }
    for (channel, recovers) in
        [("none:r", false), ("allow-recovery:r", true), ("force-recovery:r", true), ("allow-positioning:r", false)]
    {
        let first = post(&server, channel, "1");
        post(&server, channel, "2");
        let mut client = Client::connect(&server, Anonymous);
        let epoch = first.split('-').next().unwrap();
        let subscribed = client.subscribe(&json!({"channel": channel, "recover": true, "epoch": epoch, "offset": 1}));
        assert_eq!(subscribed["recovered"] == true, recovers, "{channel} {subscribed}");
        assert_eq!(subscribed["publications"].as_array().map_or(0, Vec::len), usize::from(recovers));
        // The same over a topic's URL; a poll and the whole history are another right.
        let mut peer = server.connect();
        peer.send(upgrade().line(format!("GET /topics/{channel}?since={first} HTTP/1.1")).bytes());
        assert_eq!(peer.head().status, if recovers { 101 } else { 403 }, "{channel}");
        if recovers {
            peer.expect(TEXT, "2");
        }
        assert_eq!(get(&server, &format!("/topics/{channel}?since={first}"), Anonymous).status, 403);
        assert_eq!(Way::WebSocket("?since=earliest").status(&server, channel, Anonymous), 403);
    }
}

#[test]
fn every_namespace_keeps_as_much_and_as_long_as_it_says() {
    let open = "allow_subscribe_for_client = true\nallow_subscribe_for_anonymous = true\nallow_history_for_client = true\nallow_history_for_anonymous = true\n";
    let namespace = |name: &str, more: &str| format!("[[channel.namespaces]]\nname = \"{name}\"\n{open}{more}\n");
    let file = "[http_api]\nkey = \"the key\"\n".to_owned()
        + &namespace("two", "history_size = 2\nhistory_ttl = \"1h\"")
        + &namespace("five", "history_size = 5\nhistory_ttl = \"1m30s\"")
        + &namespace("bytes", "history_size = 100\nhistory_ttl = \"1h\"\nhistory_bytes = 2000")
        + &namespace("brief", "history_size = 5\nhistory_ttl = \"500ms\"")
        + &namespace("forgotten", "history_size = 5\nhistory_ttl = \"100ms\"\nhistory_meta_ttl = \"200ms\"");
    let server = start("history", &file);
    let kept = |topic: &str| {
        get(&server, &format!("/topics/{topic}"), Anonymous).body.iter().filter(|&&byte| byte == b'{').count()
    };
    for topic in ["two:h", "five:h", "bytes:h"] {
        (0..7).for_each(|_| drop(post(&server, topic, &"x".repeat(500))));
    }
    assert_eq!((kept("two:h"), kept("five:h")), (2, 5));
    assert!((1..4).contains(&kept("bytes:h")), "{}", kept("bytes:h"));
    let (brief, forgotten) = (post(&server, "brief:h", "x"), post(&server, "forgotten:h", "x"));
    eventually("what is old is not kept", PATIENCE, || kept("brief:h") == 0);
    let epoch = |cursor: &str| cursor.split('-').next().unwrap().to_owned();
    assert_eq!(epoch(&post(&server, "brief:h", "y")), epoch(&brief), "its position outlives its messages");
    eventually("a topic is forgotten", PATIENCE, || {
        // To ask is to keep it for longer.
        thread::sleep(Duration::from_millis(2500));
        epoch(&post(&server, "forgotten:h", "y")) != epoch(&forgotten)
    });
}

#[test]
fn presence_is_known_where_the_namespace_says_and_names_bare_users() {
    let file = "[http_api]\nkey = \"the key\"\n[client.token]\nhmac_secret_key = \"secret\"\n\
        [[channel.namespaces]]\nname = \"seen\"\npresence = true\nallow_subscribe_for_client = true\n\
        [[channel.namespaces]]\nname = \"unseen\"\nallow_subscribe_for_client = true\n";
    let server = start("presence", file);
    let mut streams = Vec::new();
    for (topic, status) in [("seen:p", 200), ("unseen:p", 404)] {
        streams.push(Way::WebSocket("").ask(&server, topic, User("42")));
        streams.push(Way::WebSocket("?frames=json").ask(&server, topic, User("42")));
        streams.push(Way::Events("").ask(&server, topic, User("43")));
        streams.push(Way::WebSocket("").ask(&server, topic, Application));
        let mut client = Client::connect(&server, User("44"));
        client.subscribe(&json!({"channel": topic}));
        let answer = get(&server, &format!("/topics/{topic}/presence"), Application);
        assert_eq!(answer.status, status);
        if status == 200 {
            let presence: Value = serde_json::from_slice(&answer.body).unwrap();
            let mut users: Vec<_> = presence["clients"]
                .as_object()
                .unwrap()
                .values()
                .map(|client| client["user"].as_str().unwrap())
                .collect();
            users.sort_unstable();
            assert_eq!((users, &presence["num_users"]), (vec!["", "42", "42", "43", "44"], &json!(4)), "{presence}");
        } else {
            assert_eq!(answer.problem()["code"], "no_presence");
            assert_eq!(api(&server, "presence", &json!({"channel": topic}))["error"]["code"], 108);
        }
    }
}

#[test]
fn who_comes_and_goes_is_told_as_the_namespace_says() {
    let namespace = |name: &str, more: &str| {
        format!("[[channel.namespaces]]\nname = \"{name}\"\nallow_subscribe_for_client = true\n{more}\n")
    };
    let file = "[http_api]\nkey = \"the key\"\n[client.token]\nhmac_secret_key = \"secret\"\n".to_owned()
        + &namespace("forced", "join_leave = true\nforce_push_join_leave = true")
        + &namespace("asked", "join_leave = true\npresence = true\nallow_presence_for_subscriber = true")
        + &namespace("blind", "join_leave = true\npresence = true")
        + &namespace("never", "presence = true\nallow_presence_for_client = true");
    let server = start("joins", &file);
    for (channel, asks, told) in [
        ("forced:j", false, true),
        ("asked:j", true, true),
        ("asked:j", false, false),
        ("blind:j", true, false), // it may not see who is there
        ("never:j", true, false),
    ] {
        let mut host = Client::connect(&server, User("1"));
        host.subscribe(&json!({"channel": channel, "join_leave": asks}));
        let mut guest = Client::connect(&server, User("2"));
        guest.subscribe(&json!({"channel": channel}));
        guest.raw.reset();
        post(&server, channel, "last");
        let mut heard = Vec::new();
        while !told || heard.len() < 4 {
            let push = host.push();
            let what = ["join", "leave", "pub"].into_iter().find(|what| push[what].is_object()).unwrap();
            heard.push((what, push[what]["info"]["user"].as_str().unwrap_or("").to_owned()));
            if !told {
                break;
            }
        }
        if told {
            for expected in [("join", "1"), ("join", "2"), ("leave", "2"), ("pub", "")] {
                assert!(heard.iter().any(|(what, user)| (*what, &**user) == expected), "{channel}: {heard:?}");
            }
        } else {
            assert_eq!(heard, [("pub", String::new())], "{channel}");
        }
    }
}

#[test]
fn a_topic_is_for_the_users_in_its_name_and_a_private_one_for_who_has_a_token() {
    let server = start("limits", FILE);
    let topic = "limited:a#42,43";
    post(&server, "limited:a%2342%2C43", "kept");
    for (who, may) in
        [(User("42"), true), (User("43"), true), (User("4"), false), (User("42,43"), false), (Anonymous, false)]
    {
        for way in WAYS.into_iter().filter(|way| !matches!(way, Way::Post)) {
            let status = way.status(&server, topic, who);
            assert_eq!(status != 403, may && status < 400, "{way:?} {who:?}: {status}");
            assert_eq!(status < 400, may, "{way:?} {who:?}: {status}");
        }
        let mut client = Client::connect(&server, who);
        for method in ["history", "presence", "presence_stats", "subscribe"] {
            assert_eq!(client.code(method, topic) == 0, may, "{method} {who:?}");
        }
    }
    // Where users are not looked at the name is like any other.
    assert_eq!(Way::WebSocket("").status(&server, "users:a#42", User("43")), 101);
    for way in WAYS.into_iter().filter(|way| !matches!(way, Way::Post)) {
        assert_eq!(way.status(&server, "$users:a", User("42")), 403, "{way:?}");
        assert!(way.status(&server, "$users:a", Application) < 400, "{way:?}");
        assert_eq!(way.status(&server, "$nowhere:a", Application), 404, "{way:?}");
    }
    let mut client = Client::connect(&server, User("42"));
    for method in ["subscribe", "history", "presence", "presence_stats"] {
        assert_eq!(client.code(method, "$users:a"), 103, "{method}");
    }
    let claims = json!({"sub": "42", "channel": "$users:a"});
    client.subscribe(&json!({"channel": "$users:a", "token": token("secret", &claims)}));
    for method in ["history", "presence", "presence_stats"] {
        assert_eq!(client.code(method, "$users:a"), 0, "{method}");
    }
}

#[test]
fn names_have_a_length_and_the_boundaries_that_are_set() {
    let file = "[http_api]\nkey = \"the key\"\n[client]\nallow_anonymous_connect_without_token = true\n\
        [client.token]\nhmac_secret_key = \"secret\"\n\
        [channel]\nmax_length = 10\nnamespace_boundary = \"/\"\nprivate_prefix = \"!\"\nuser_boundary = \"@\"\nuser_separator = \"+\"\n\
        [[channel.namespaces]]\nname = \"ns\"\npresence = true\nhistory_size = 1\nhistory_ttl = \"1m\"\nallow_user_limited_channels = true\n\
        allow_subscribe_for_client = true\nallow_history_for_client = true\nallow_presence_for_client = true\nallow_publish_for_client = true\n";
    let server = start("names", file);
    for (topic, status) in [
        ("ns%2Fa", 101),
        ("ns%2Fa%4042%2B4", 101),
        ("ns%2Fa%4041%2B4", 403),
        ("%21ns%2Fa", 403),
        ("%24ns%2Fa", 404),
        ("ns:a", 403),
        ("ns%2F12345678", 400),
    ] {
        assert_eq!(Way::WebSocket("").status(&server, topic, User("42")), status, "{topic}");
    }
    for way in WAYS {
        let (mut peer, who) = (server.connect(), Application);
        peer.send(who.signs(way.head("ns%2F12345678")).bytes());
        let answer = peer.head();
        assert_eq!(answer.status, 400, "{way:?}");
    }
    let mut client = Client::connect(&server, User("42"));
    for method in ["subscribe", "publish", "history", "presence"] {
        assert_eq!(client.code(method, "ns/1234567"), 0, "{method}");
        assert_eq!(client.code(method, "ns/12345678"), 107, "{method}");
    }
    assert_eq!(api(&server, "publish", &json!({"channel": "ns/12345678", "data": 1}))["error"]["code"], 107);
}

#[test]
fn a_user_has_a_channel_of_its_own() {
    for (settings, channel, url) in
        [("personal_channel_namespace = \"own\"", "own:#42", "own:%2342"), ("", "#42", "%2342")]
    {
        let file = format!(
            "[http_api]\nkey = \"the key\"\n[client]\nallow_anonymous_connect_without_token = true\n[client.token]\nhmac_secret_key = \"secret\"\n\
             [client.subscribe_to_user_personal_channel]\nenabled = true\n{settings}\n\
             [channel.without_namespace]\nallow_user_limited_channels = true\n\
             [[channel.namespaces]]\nname = \"own\"\nallow_user_limited_channels = true\n"
        );
        let server = start(&format!("personal{}", settings.len()), &file);
        let mut client = Client::connect(&server, User("42"));
        assert!(client.connected["subs"][channel].is_object(), "{}", client.connected);
        assert!(Client::connect(&server, Anonymous).connected["subs"].is_null());
        let (mut bare, answer) = Way::Events("").ask(&server, channel, User("42"));
        assert_eq!(answer.status, 200);
        bare.line_block(Instant::now() + PATIENCE);
        assert_eq!(Way::Events("").status(&server, channel, User("43")), 403);
        post(&server, url, "for you");
        assert_eq!(client.push()["pub"]["data"], "for you");
        assert!(bare.line_block(Instant::now() + PATIENCE).ends_with("data: for you"));
    }
}

#[test]
fn a_bare_client_is_who_its_token_says_or_nobody() {
    let server = start("tokens", FILE);
    let refused = |why: &str, credentials: String| {
        for way in WAYS {
            let mut peer = server.connect();
            peer.send(way.head("public:t").with(format!("Authorization: {credentials}")).bytes());
            let answer = peer.head();
            assert_eq!((answer.status, answer.field("WWW-Authenticate")), (401, Some("Bearer")), "{why} {way:?}");
        }
        let mut peer = server.connect();
        peer.send(plain("/topics/public:t").with(format!("Authorization: {credentials}")).bytes());
        assert_eq!(peer.answer().problem()["code"], "token", "{why}");
    };
    refused("expired", format!("Bearer {}", token("secret", &json!({"sub": "42", "exp": now() - 10}))));
    refused("over", format!("Bearer {}", token("secret", &json!({"sub": "42", "expire_at": now() - 10}))));
    refused("another's signature", format!("Bearer {}", token("another", &json!({"sub": "42"}))));
    refused("for a subscription", format!("Bearer {}", token("secret", &json!({"sub": "42", "channel": "public:t"}))));
    refused("no token", "bearer nonsense".to_owned());
    let mut peer = server.connect();
    let good = token("secret", &json!({"sub": "42", "exp": now() + 60}));
    for (credentials, status) in [
        (format!("Bearer {good}"), 200),
        (format!("bearer  {good} "), 200),
        ("Basic dXNlcjpwYXNz".to_owned(), 403), // which is another's business: an anonymous client
        ("apikey the key".to_owned(), 200),
        ("apikey another".to_owned(), 401),
    ] {
        peer.send(plain("/topics/users:t").with(format!("Authorization: {credentials}")).bytes());
        assert_eq!(peer.answer().status, status, "{credentials}");
    }
    for way in WAYS {
        let mut peer = server.connect();
        peer.send(way.head("public:t").with("X-API-Key: wrong").bytes());
        assert_eq!(peer.head().status, 401, "{way:?}");
    }
    // The key counts before a token.
    let head = plain("/topics/closed:t").with("X-API-Key: the key").with(format!("Authorization: Bearer {good}"));
    peer.send(head.bytes());
    assert_eq!(peer.answer().status, 200);
    peer.send(plain("").line("OPTIONS /topics/users:t HTTP/1.1").bytes());
    assert!(peer.answer().lists("Access-Control-Allow-Headers", "Authorization"), "pages can show one");
}

#[test]
fn without_rules_everything_is_allowed_but_client_publishing_and_what_is_private() {
    let server = start(
        "open",
        "[client.token]\nhmac_secret_key = \"secret\"\n[client]\nallow_anonymous_connect_without_token = true",
    );
    for way in WAYS.into_iter().filter(|way| !matches!(way, Way::Presence)) {
        assert!(way.status(&server, "any:thing#1", Anonymous) < 400, "{way:?}");
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

#[test]
fn the_command_line_counts_more_than_the_file() {
    let file = config(
        "flags",
        "[http_server]\naddress = \"192.0.2.1\"\nport = 1\n[throng]\nworkers = 3\n[channel.without_namespace]\n\
         history_size = 5\nhistory_ttl = \"1m\"\n[http_api]\nkey = \"another key\"\n",
    );
    let key = file.with_extension("key");
    std::fs::write(&key, "the key").unwrap();
    let flags = format!(
        "--config {} --workers 2 --history-size 2 --client-publish --api-key-file {}",
        file.display(),
        key.display()
    );
    let server = Throng::start(&flags);
    assert!(server.log().iter().any(|line| line.contains("with 2 workers")), "{:?}", server.log());
    (0..5).for_each(|_| drop(post(&server, "t", "x")));
    assert_eq!(get(&server, "/topics/t", Application).body.iter().filter(|&&byte| byte == b'{').count(), 2);
    let mut client = Client::connect(&server, Anonymous);
    assert_eq!((client.code("publish", "t"), client.code("subscribe", "t")), (0, 103));
}

#[test]
fn the_file_says_where_to_listen() {
    let file = config("listen", "[throng]\nlisten = [\"127.0.0.1:0\"]\nworkers = 3\n[shutdown]\ntimeout = \"100ms\"\n");
    let mut server = Throng::start_as_configured(&format!("serve --config {}", file.display()));
    assert!(server.log().iter().any(|line| line.contains("with 3 workers")), "{:?}", server.log());
    let mut client = Client::connect(&server, Anonymous);
    server.signal("TERM");
    client.raw.expect_close(3001);
    drop(client);
    assert!(server.exit(PATIENCE).success());
}

#[test]
fn what_is_wrong_with_a_file_is_said_all_at_once() {
    let refused = |name: &str, text: &str| {
        let file = config(name, text);
        let (code, said) = run_to_end(&format!("--config {}", file.display()));
        assert_eq!(code, Some(1), "{said}");
        said.replace(&file.display().to_string(), "FILE")
    };
    let said = refused(
        "faults",
        "[client]\nping_intervall = \"1s\"\n[http_server]\nport = \"8000\"\n[engine]\ntype = \"redis\"\n\
         [[channel.namespaces]]\nhistory_ttl = 5\n[nonsense]\n",
    );
    for line in [
        "FILE:2: unknown setting `client.ping_intervall`: did you mean `client.ping_interval`?",
        "FILE:4: `http_server.port` must be a number",
        "FILE:5: throng has no `engine` of Centrifugo's: topics live in the memory of one process",
        "FILE:7: a namespace needs a `name`",
        "FILE:9: unknown setting `nonsense`: see docs/centrifugo.md",
    ] {
        assert!(said.contains(line), "{line} in {said}");
    }
    assert!(refused("syntax", "[client\n").contains("FILE:1: "));
    assert!(refused("json", "{\n  \"client\": {}\n}").contains("FILE:1: this is JSON, not TOML"));
    let said = refused("forced", "[[channel.namespaces]]\nname = \"news\"\nforce_recovery = true\n");
    assert!(said.contains("\"news\"") && said.contains("history_ttl"), "{said}");
    let said = refused("half", "[channel.without_namespace]\nhistory_size = 5\n");
    assert!(said.contains("history_ttl"), "{said}");
    let said = refused(
        "nobodys",
        "[client.subscribe_to_user_personal_channel]\nenabled = true\npersonal_channel_namespace = \"own\"\n[channel]\n",
    );
    assert!(said.contains("\"own\"") && said.contains("channel.namespaces"), "{said}");
    let said = refused("secretless", "[client.subscription_token]\nenabled = true\n");
    assert!(said.contains("hmac_secret_key"), "{said}");
    let (code, said) = run_to_end("--config /nonexistent/throng.toml");
    assert!(code == Some(1) && said.contains("/nonexistent/throng.toml"), "{said}");
}

fn given(name: &str) -> String {
    format!("{}/tests/configs/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn a_configuration_of_centrifugos_is_taken_as_it_is() {
    let server = Throng::start(&format!("--workers 2 --config {}", given("chat.toml")));
    let connection = json!({"sub": "42", "aud": "chat", "iss": "https://id.example.com"});
    for secret in ["bbe7d157-a253-4094-9759-06a8236543f9", "the one before"] {
        let mut peer = server.connect();
        let head = upgrade().line("GET /connection/websocket HTTP/1.1").with("Origin: https://eu.example.net");
        peer.send(head.bytes());
        assert_eq!(peer.head().status, 101);
        peer.send(text(json!({"id": 1, "connect": {"token": token(secret, &connection)}}).to_string()).bytes());
        let connected: Value = serde_json::from_slice(&peer.frame().payload).unwrap();
        assert!(connected["connect"]["subs"]["personal:#42"].is_object(), "{connected}");
        peer.send(text(json!({"id": 2, "subscribe": {"channel": "rooms:1"}}).to_string()).bytes());
        let subscribed: Value = serde_json::from_slice(&peer.frame().payload).unwrap();
        assert_eq!(subscribed["subscribe"]["recoverable"], true, "{subscribed}");
    }
    let mut peer = server.connect();
    peer.send(plain("/topics/rooms:1").bytes());
    assert_eq!(peer.answer().status, 403);
    peer.send(plain("/topics/rooms:1").with("X-API-Key: 3d3b1b1e-7e0f-4f8a-9b3e-6a9ff0d4f4f2").bytes());
    assert_eq!(peer.answer().status, 200);
}

#[test]
fn what_centrifugo_has_and_throng_has_not_is_named() {
    let file = given("cluster.toml");
    let (code, said) = run_to_end(&format!("--config {file}"));
    assert_eq!(code, Some(1));
    let text = std::fs::read_to_string(&file).unwrap();
    for name in [
        "pid_file",
        "http_server.internal_port",
        "http_server.tls",
        "engine",
        "admin",
        "prometheus",
        "client.concurrency",
        "client.proxy",
        "client.token.jwks_public_endpoint",
        "proxies",
        "rpc",
        "consumers",
        "force_recovery_mode",
        "allowed_delta_types",
        "delta_publish",
        "allow_tags_filter",
        "subscribe_proxy_enabled",
        "channel_regex",
        "subscription_type",
        "map",
        "uni_sse",
        "websocket.compression_prepared_message_cache_size",
    ] {
        let faults: Vec<_> =
            said.lines().filter(|line| line.contains(&format!("throng has no `{name}` of Centrifugo's: "))).collect();
        let [fault] = faults[..] else { panic!("{name}: {said}") };
        let line: usize = fault.split(&format!("{file}:")).nth(1).unwrap().split(':').next().unwrap().parse().unwrap();
        let last = name.rsplit('.').next().unwrap();
        assert!(text.lines().nth(line - 1).unwrap().contains(last), "{fault}");
    }
    assert_eq!(said.lines().count(), 22, "{said}");
}

/// The examples are configurations that work.
#[test]
fn the_examples_of_the_manuals_are_taken() {
    for (page, before) in [("docs/centrifugo.md", "<!-- throng.toml -->\n"), ("README.md", "\n## Configuration\n")] {
        let page = std::fs::read_to_string(format!("{}/{page}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let example =
            page.split(before).nth(1).unwrap().split("```toml\n").nth(1).unwrap().split("\n```").next().unwrap();
        assert!(example.contains("[[channel.namespaces]]"), "{example}");
        let mut server = Throng::start(&format!("--drain 0.1 --config {}", config("manual", example).display()));
        server.signal("TERM");
        assert!(server.exit(PATIENCE).success());
    }
}

#[test]
fn what_the_server_subscribes_to_is_recovered_where_that_is_allowed() {
    let history = "history_size = 10\nhistory_ttl = \"1m\"\n";
    let file = format!(
        "[http_api]\nkey = \"the key\"\n[client.token]\nhmac_secret_key = \"secret\"\n\
         [[channel.namespaces]]\nname = \"closed\"\n{history}\
         [[channel.namespaces]]\nname = \"forced\"\n{history}force_recovery = true\n"
    );
    let server = start("server-side", &file);
    for (channel, force, recovers) in [
        ("closed:s", json!({}), false),
        ("closed:s", json!({"override": {"force_recovery": {"value": true}}}), true),
        ("forced:s", json!({}), true),
    ] {
        let first = post(&server, channel, "kept");
        let token = token("secret", &json!({"sub": "42", "subs": {channel: force}}));
        let position = json!({"recover": true, "epoch": first.split('-').next(), "offset": 0});
        let mut raw = server.connect();
        raw.send(upgrade().line("GET /connection/websocket HTTP/1.1").bytes());
        assert_eq!(raw.head().status, 101);
        raw.send(text(json!({"id": 1, "connect": {"token": token, "subs": {channel: position}}}).to_string()).bytes());
        let connected: Value = serde_json::from_slice(&raw.frame().payload).unwrap();
        let sub = &connected["connect"]["subs"][channel];
        assert!(sub.is_object(), "{connected}");
        assert_eq!(sub["recoverable"] == true, recovers, "{channel} {force} {sub}");
        assert_eq!(sub["publications"].is_array(), recovers, "{channel} {force} {sub}");
    }
    let claims = json!({"sub": "42", "channels": ["nowhere:s"]});
    let mut raw = server.connect();
    raw.send(upgrade().line("GET /connection/websocket HTTP/1.1").bytes());
    assert_eq!(raw.head().status, 101);
    raw.send(text(json!({"id": 1, "connect": {"token": token("secret", &claims)}}).to_string()).bytes());
    let refused: Value = serde_json::from_slice(&raw.frame().payload).unwrap();
    assert_eq!(refused["error"]["code"], 102, "{refused}");
}
