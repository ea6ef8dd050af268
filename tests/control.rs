//! The admin port as an operator uses it: who is there, why somebody is gone, disconnecting, taps; and who may not use it.
#![cfg(feature = "cli")] // There is no binary without it.

#[path = "support/site.rs"]
mod site;
mod support;

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use site::{Nothing, Site};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use support::*;
use throng::{Centrifugo, Control, Running, Server, TokenKeys, Watcher};

/// A server with an admin port, and where that is.
fn start(flags: &str) -> (Throng, SocketAddr) {
    let server = Throng::start(&format!("--admin 127.0.0.1:0 {flags}"));
    let mut admin = None;
    eventually("it says where its admin port is", PATIENCE, || {
        let log = server.log();
        let mut lines = log.iter().filter_map(|line| line.split_once("the admin port is http://"));
        admin = lines.next().map(|(_, address)| address.trim().parse().expect("an address"));
        admin.is_some()
    });
    (server, admin.expect("it is known"))
}

fn ask(admin: SocketAddr, head: &Head) -> Response {
    let mut peer = Raw::connect(admin);
    peer.send(head.bytes());
    peer.answer()
}

fn to(line: &str) -> Head {
    plain("/").line(format!("{line} HTTP/1.1")).without("Host").with("Host: localhost:8081")
}

/// What a GET answers, as JSON.
#[track_caller]
fn get(admin: SocketAddr, target: &str) -> Value {
    let answer = ask(admin, &to(&format!("GET {target}")));
    assert_eq!(answer.status, 200, "{target}: {answer:?}");
    assert_eq!(answer.field("Cache-Control"), Some("no-store"));
    serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error} in {answer:?}"))
}

fn delete(admin: SocketAddr, target: &str) -> (u16, Value) {
    let answer = ask(admin, &to(&format!("DELETE {target}")));
    (answer.status, serde_json::from_slice(&answer.body).expect("JSON"))
}

fn publish(server: &Throng, topic: &str, body: &str) {
    let mut peer = server.connect();
    peer.send(format!(
        "POST /topics/{topic} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(peer.answer().status, 200);
}

fn subscribe(address: SocketAddr, target: &str) -> Raw {
    let mut peer = Raw::connect(address);
    let line = format!("GET {target} HTTP/1.1");
    peer.send(upgrade().line(line).without("Host").with("Host: localhost").bytes());
    assert_eq!(peer.head().status, 101);
    peer
}

/// The id of the connection on the other side of this one.
#[track_caller]
fn id_of(admin: SocketAddr, peer: &Raw) -> String {
    let address = peer.stream().local_addr().expect("it is connected").to_string();
    let list = get(admin, "/connections?limit=1000");
    let rows = list["connections"].as_array().expect("a list");
    let row = rows.iter().find(|row| row["address"] == address).unwrap_or_else(|| panic!("no {address} in {list}"));
    row["id"].as_str().expect("text").to_owned()
}

/// The first end of that connection.
#[track_caller]
fn end_of(admin: SocketAddr, id: &str) -> Value {
    let mut found = Value::Null;
    eventually("its end is remembered", PATIENCE, || {
        found = get(admin, &format!("/closes?id={id}"))["closes"][0].clone();
        !found.is_null()
    });
    found
}

#[test]
fn what_there_is_is_listed_and_each_answers() {
    let (server, admin) = start("--workers 2");
    let _listener = subscribe(server.addrs[0], "/topics/news");
    publish(&server, "news", "hello");
    let text = |target: &str| {
        let answer = ask(admin, &to(&format!("GET {target}")));
        assert_eq!(answer.status, 200, "{target}");
        String::from_utf8(answer.body).expect("text")
    };
    let index = text("/");
    for path in ["/healthz", "/readyz", "/metrics", "/connections", "/topics", "/closes", "/tap"] {
        assert!(index.contains(path), "{index}");
    }
    assert_eq!((text("/healthz"), text("/readyz")), ("ok\n".to_owned(), "ready\n".to_owned()));
    let metrics = text("/metrics?workers");
    assert!(metrics.contains("throng_worker_busy_seconds_total{worker=\"1\"}"), "{metrics}");
    assert!(metrics.lines().any(|line| line == "throng_open_connections{transport=\"websocket\"} 1"), "{metrics}");
    assert!(!text("/metrics").contains("worker=\""));

    let topics = get(admin, "/topics");
    let news = &topics["topics"][0];
    assert_eq!(
        (&news["name"], &news["subscribers"], &news["messages"], &news["published"]),
        (&json!("news"), &json!(1), &json!(1), &json!(1)),
        "{topics}"
    );
    assert_eq!(get(admin, "/topics?name=news")["topics"], topics["topics"]);
    assert_eq!(get(admin, "/topics?name=other")["topics"], json!([]));
    assert_eq!(get(admin, "/topics?prefix=x")["topics"], json!([]));
    let table = text("/connections?format=text");
    assert!(table.contains("TRANSPORT") && table.contains("websocket") && table.contains("news"), "{table}");
    assert_eq!(text("/connections?sort=age&topic=news&limit=1").matches("\"id\"").count(), 1);
    assert_eq!(get(admin, "/connections?transport=long_poll")["matched"], 0);
    assert_eq!(get(admin, "/connections?address=127.0.0.1")["matched"], 1);
    assert_eq!(get(admin, "/connections?id=0-99999")["matched"], 0);

    for (line, status) in [
        ("GET /other", 404),
        ("POST /connections", 405),
        ("DELETE /topics", 405),
        ("GET /tap", 426),
        ("GET /connections?sort=name", 400),
        ("GET /connections?limit=0", 400),
        ("GET /closes?whose=mine", 400),
        ("DELETE /connections", 400),
        ("DELETE /connections/0-99999", 404),
        ("DELETE /connections/news", 400),
        ("DELETE /connections?user=x&code=1006", 400),
    ] {
        let answer = ask(admin, &to(line));
        assert_eq!(answer.status, status, "{line}: {answer:?}");
        assert!(!answer.problem()["detail"].is_empty());
    }
}

#[test]
fn pages_and_strange_hosts_are_kept_out() {
    let (_server, admin) = start("--workers 1");
    let tap = || {
        let line = "GET /tap?topic=news HTTP/1.1";
        upgrade().line(line).without("Host").with("Host: localhost")
    };
    let list = || to("GET /connections");
    for (head, what) in [
        (list().without("Host").with("Host: rebound.example:8081"), "a name that was rebound"),
        (list().without("Host").with("Host: 127.0.0.1.example"), "a name that looks like an address"),
        (list().with("Origin: http://localhost:8081"), "a page, be it of the same host"),
        (list().with("Origin: https://evil.example"), "a page of another origin"),
        (list().with("Origin: null"), "a page without an origin"),
        (list().with("Sec-Fetch-Site: cross-site"), "an image in a page"),
        (list().with("Sec-Fetch-Site: same-origin"), "a script"),
        (to("DELETE /connections?user=x").with("Origin: https://evil.example"), "a page that disconnects"),
        (tap().with("Origin: https://evil.example"), "a page that taps"),
        (tap().without("Host").with("Host: rebound.example"), "a tap through a name that was rebound"),
    ] {
        assert_eq!(ask(admin, &head).status, 403, "{what}");
    }
    for head in [list(), list().with("Sec-Fetch-Site: none"), list().without("Host").with("Host: 127.0.0.1:1")] {
        assert_eq!(ask(admin, &head).status, 200);
    }
    assert_eq!(ask(admin, &tap()).status, 101);
}

#[test]
fn beyond_loopback_it_needs_its_key() {
    let (code, stderr) = run_to_end("--listen 127.0.0.1:0 --admin 0.0.0.0:0");
    assert!(code == Some(1) && stderr.contains("key"), "{code:?} {stderr}");
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("admin-key");
    std::fs::write(&file, "open-sesame\n").expect("written");
    let (_server, admin) = start(&format!("--workers 1 --admin-key-file {}", file.display()));
    let list = || to("GET /connections");
    for (head, status) in [
        (list(), 401),
        (list().with("X-API-Key: open"), 401),
        (list().with("Authorization: apikey open-sesame!"), 401),
        (list().with("X-API-Key: open-sesame"), 200),
        (list().with("Authorization: apikey open-sesame"), 200),
        // Whoever has the key is no page, whatever the name.
        (list().without("Host").with("Host: admin.example").with("X-API-Key: open-sesame"), 200),
        (list().with("Origin: https://admin.example").with("X-API-Key: open-sesame"), 403),
        (to("GET /healthz"), 200),
        (to("GET /readyz"), 200),
        (to("GET /metrics"), 401),
    ] {
        assert_eq!(ask(admin, &head).status, status, "{head:?}");
    }
}

#[test]
fn a_slow_reader_is_found_by_what_waits_and_then_among_the_closes() {
    let (server, admin) = start("--workers 2 --write-timeout 2 --ping-interval 100 --history-size 2000");
    let _quick = subscribe(server.addrs[0], "/topics/news");
    let slow = subscribe(server.addrs[0], "/topics/news?frames=json");
    let id = id_of(admin, &slow);
    // Much more than its socket takes; the other one reads nothing either, but of another topic.
    let _other = subscribe(server.addrs[0], "/topics/quiet");
    let body = "x".repeat(60_000);
    let mut row = Value::Null;
    eventually("something waits for it", PATIENCE, || {
        publish(&server, "news", &body);
        let list = get(admin, "/connections?sort=queued&topic=news");
        let rows = list["connections"].as_array().expect("a list").clone();
        row = rows.into_iter().find(|row| row["id"] == id.as_str()).unwrap_or_default();
        row["queued_bytes"].as_u64().is_some_and(|bytes| bytes > 0) && row["lag_messages"].as_u64() > Some(1)
    });
    let list = get(admin, "/connections?sort=lag&limit=3");
    let rows = list["connections"].as_array().expect("a list");
    let lags: Vec<_> = rows.iter().map(|row| row["lag_messages"].as_u64().expect("a number")).collect();
    assert!(lags.is_sorted_by(|a, b| a >= b) && lags[0] > 1 && lags[2] == 0, "{list}");
    assert!(server.metric("throng_slow_connections") >= 1.0 && server.metric("throng_queued_bytes") > 0.0);

    let end = end_of(admin, &id);
    assert_eq!(end["reason"], "write_stall", "{end}");
    assert_eq!(end["transport"], "websocket");
    assert_eq!((&end["topic"], &end["side"], &end["what"]), (&json!("news"), &json!("server"), &json!("closed")));
    assert!(end["queued_bytes"].as_u64() > Some(0) && end["lag_messages"].as_u64() > Some(1), "{end}");
    assert!(end["means"].as_str().expect("text").contains("--write-timeout"), "{end}");
    assert!(end["advice"].as_str().expect("text").contains("cursor"), "{end}");
    assert_eq!(get(admin, "/closes?reason=write_stall&address=127.0.0.1")["closes"][0]["reason"], "write_stall");
    assert_eq!(get(admin, "/closes?address=127.0.0.2")["closes"], json!([]));
}

#[test]
fn whoever_was_refused_or_broke_the_rules_is_explained() {
    let (server, admin) = start("--workers 1");
    let mut peer = server.connect();
    peer.send(upgrade().without("Sec-WebSocket-Key").bytes());
    assert_eq!(peer.head().status, 400);
    let refused = get(admin, "/closes?reason=key_missing")["closes"][0].clone();
    assert_eq!((&refused["what"], &refused["code"]), (&json!("refused"), &json!(400)));
    assert!(refused["advice"].as_str().expect("text").contains("Sec-WebSocket-Key"), "{refused}");

    let mut peer = server.websocket();
    let id = id_of(admin, &peer);
    peer.send(text("unmasked").unmasked().bytes());
    peer.expect_close(1002);
    peer.expect_end();
    let end = end_of(admin, &id);
    assert_eq!((&end["reason"], &end["code"]), (&json!("violation"), &json!(1002)));
    assert!(end["means"].as_str().expect("text").contains("unmasked"), "{end}");

    let mut peer = server.websocket();
    let id = id_of(admin, &peer);
    peer.send(close(4001, "bye\x1b").bytes());
    peer.expect_close(4001);
    let end = end_of(admin, &id);
    assert_eq!(
        (&end["reason"], &end["side"], &end["text"]),
        (&json!("peer_closed"), &json!("client"), &json!("bye\u{1b}"))
    );
    let table = ask(admin, &to(&format!("GET /closes?id={id}&format=text"))).body;
    assert!(!table.contains(&0x1b), "a table cannot be painted over");
    assert!(
        server
            .get("/metrics")
            .lines()
            .any(|line| line.starts_with("throng_close_codes_total{code=\"4xxx\",side=\"client\"} 1"))
    );
}

#[test]
fn one_is_disconnected_by_its_id_and_others_by_their_topic() {
    let (server, admin) = start("--workers 2 --echo");
    let (mut one, mut other) = (server.websocket(), server.websocket());
    let id = id_of(admin, &one);
    assert_eq!(
        delete(admin, &format!("/connections/{id}?code=4000&reason=go%20away")),
        (200, json!({"disconnected": 1, "silent_workers": []}))
    );
    assert_eq!(one.expect_close(4000), "go away");
    other.echo("still here");
    one.send(close(4000, "").bytes());
    one.expect_end();
    assert_eq!(end_of(admin, &id)["reason"], "operator");
    assert_eq!(delete(admin, &format!("/connections/{id}")).0, 404);

    let mut listeners: Vec<Raw> = (0..5).map(|_| subscribe(server.addrs[0], "/topics/news")).collect();
    let mut stream = server.connect();
    stream.send(plain("/topics/news").with("Accept: text/event-stream").bytes());
    assert_eq!(stream.head().status, 200);
    assert_eq!(delete(admin, "/connections?topic=news&transport=websocket").1["disconnected"], 5);
    assert!(listeners.iter_mut().all(|peer| peer.expect_close(1008) == "disconnected by an operator"));
    assert_eq!(
        delete(admin, "/connections?topic=news").1["disconnected"],
        1,
        "those on their way are not counted again"
    );
    stream.rest();
    other.echo("still here");
    let log = server.log();
    assert!(log.iter().any(|line| line.contains("told by the admin port") && line.contains(&id)), "{log:#?}");
}

/// The admin port of a server within the test, and its end.
struct Admin(Option<Running<Watcher>>, SocketAddr);

impl Admin {
    fn of(site: &Site) -> Self {
        let running = Control::new(site.handle.clone()).start(([127, 0, 0, 1], 0).into()).expect("it starts");
        let address = running.addresses()[0];
        Self(Some(running), address)
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        if let Some(running) = self.0.take() {
            running.handle().abort();
            running.wait().expect("it ends");
        }
    }
}

fn session(address: SocketAddr, user: &str) -> Raw {
    let claims = json!({"sub": user});
    let token =
        jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(b"secret")).expect("a token");
    let mut peer = subscribe(address, "/connection/websocket");
    peer.send(text(json!({"id": 1, "connect": {"token": token}}).to_string()).bytes());
    let reply = peer.frame();
    assert!(String::from_utf8_lossy(&reply.payload).contains("\"connect\""), "{reply:?}");
    peer
}

#[test]
fn a_user_is_found_tapped_and_disconnected_by_name() {
    let service = || Centrifugo::new(Nothing).tokens(TokenKeys::new(b"secret"));
    let site = Site::run(Server::new().workers(2), service);
    let admin = Admin::of(&site);
    let mut marys = [session(site.address, "mary"), session(site.address, "mary")];
    let mut john = session(site.address, "john");
    let list = get(admin.1, "/connections?user=mary");
    assert_eq!(list["matched"], 2, "{list}");
    let row = &list["connections"][0];
    assert_eq!((&row["user"], &row["protocol"]), (&json!("mary"), &json!("centrifugo json")));

    let mut tap = subscribe(admin.1, "/tap?user=mary&seconds=60");
    assert!(tap_line(&mut tap)["notice"].as_str().expect("text").contains("hidden"));
    let subscribe = json!({"id": 2, "subscribe": {"channel": "secrets"}}).to_string();
    john.send(text(&subscribe).bytes());
    john.frame();
    marys[1].send(text(&subscribe).bytes());
    marys[1].frame();
    let (heard, said) = (tap_line(&mut tap), tap_line(&mut tap));
    let mary = id_of(admin.1, &marys[1]);
    assert_eq!(
        (&heard["id"], &heard["way"], &heard["what"], &heard["bytes"]),
        (&json!(mary), &json!("in"), &json!("text"), &json!(subscribe.len()))
    );
    assert_eq!((&said["id"], &said["way"], &said["what"]), (&json!(mary), &json!("out"), &json!("text")));
    assert!(heard["payload"].is_null() && said["payload"].is_null(), "{heard} {said}");

    assert_eq!(delete(admin.1, "/connections?user=mary").1["disconnected"], 2);
    marys.iter_mut().for_each(|mary| assert_eq!(mary.expect_close(3503), "force disconnect"));
    let mut ends = Vec::new();
    for mary in &mut marys {
        mary.send(close(3503, "").bytes());
    }
    eventually("both ends are remembered", PATIENCE, || {
        ends = get(admin.1, "/closes?user=mary")["closes"].as_array().expect("a list").clone();
        ends.len() == 2
    });
    let means = ends[0]["means"].as_str().expect("text");
    assert!(means.contains("operator") && means.contains("does not come back by itself"), "{means}");
    john.send(text(json!({"id": 3, "ping": {}}).to_string()).bytes());
    assert!(!john.hears(millis(50)) || john.frame().opcode == TEXT, "john is still there");
    let mut told = Vec::new();
    while told.iter().filter(|line: &&Value| line["way"] == "event").count() < 2 {
        told.push(tap_line(&mut tap));
    }
    assert!(told.iter().all(|line| line["id"] != json!(id_of(admin.1, &john))), "{told:?}");
}

/// The next line of a tap.
#[track_caller]
fn tap_line(tap: &mut Raw) -> Value {
    loop {
        let frame = tap.frame();
        if frame.opcode == TEXT {
            return serde_json::from_slice(&frame.payload).expect("JSON");
        }
        assert_eq!(frame.opcode, PING, "{frame:?}");
    }
}

#[test]
fn a_tap_shows_the_frames_of_that_connection_alone_and_payloads_only_when_asked() {
    let (server, admin) = start("--workers 2 --echo");
    let (mut one, mut other) = (server.websocket(), server.websocket());
    let id = id_of(admin, &one);
    let mut tap = subscribe(admin, &format!("/tap?id={id}"));
    let mut open = subscribe(admin, &format!("/tap?id={id}&payload"));
    for tap in [&mut tap, &mut open] {
        assert!(tap_line(tap)["notice"].is_string());
    }
    other.echo("not mine");
    one.echo("a secret");
    one.send(
        [frame(BINARY, b"\x00\xff").unfinished().bytes(), frame(PING, b"p").bytes(), frame(CONTINUATION, b"!").bytes()]
            .concat(),
    );
    one.expect(PONG, "p");
    one.expect(BINARY, b"\x00\xff!");
    other.echo("not mine either");
    one.send(close(1000, "").bytes());
    one.expect_close(1000);
    let lines = |tap: &mut Raw| {
        let mut lines = Vec::new();
        loop {
            let line = tap_line(tap);
            assert_eq!(line["id"], id.as_str(), "{line}");
            let (way, what) =
                (line["way"].as_str().expect("text").to_owned(), line["what"].as_str().expect("text").to_owned());
            let is_last = way == "event";
            lines.push((
                way,
                what,
                line["bytes"].as_u64().expect("a number"),
                line["payload"].as_str().map(str::to_owned),
            ));
            if is_last {
                return lines;
            }
        }
    };
    let hidden = lines(&mut tap);
    let seen: Vec<_> = hidden.iter().map(|(way, what, bytes, _)| (way.as_str(), what.as_str(), *bytes)).collect();
    assert_eq!(
        seen,
        [
            ("in", "text", 8),
            ("out", "text", 8),
            ("in", "binary", 2),
            ("in", "ping", 1),
            ("in", "continuation", 1),
            ("out", "pong", 1),
            ("out", "binary", 3),
            ("in", "close", 2),
            ("out", "close", 2),
            ("event", "ended", 0)
        ]
    );
    assert!(hidden.iter().take(9).all(|line| line.3.is_none()), "{hidden:?}");
    let shown = lines(&mut open);
    assert_eq!(shown[0].3.as_deref(), Some("a secret"));
    assert_eq!(shown[1].3.as_deref(), Some("a secret"));
    assert_eq!(shown[2].3.as_deref(), Some("\\x00\\xff"));
    assert_eq!(shown[9].3.as_deref(), Some("1000 peer_closed"));
}

#[test]
fn a_tap_of_a_topic_shows_what_is_published_and_to_whom_it_goes() {
    let (server, admin) = start("--workers 2");
    let mut listeners = [subscribe(server.addrs[0], "/topics/news"), subscribe(server.addrs[0], "/topics/news")];
    let _other = subscribe(server.addrs[0], "/topics/other");
    let ids: Vec<String> = listeners.iter().map(|peer| id_of(admin, peer)).collect();
    let mut tap = subscribe(admin, "/tap?topic=news&payload");
    assert!(tap_line(&mut tap)["notice"].is_string());
    publish(&server, "other", "nothing");
    publish(&server, "news", "hello");
    listeners.iter_mut().for_each(|peer| peer.expect(TEXT, "hello"));
    let lines: Vec<Value> = (0..3).map(|_| tap_line(&mut tap)).collect();
    let publications: Vec<_> = lines.iter().filter(|line| line["what"] == "publication").collect();
    assert_eq!(publications.len(), 1, "{lines:?}");
    assert_eq!((&publications[0]["payload"], &publications[0]["bytes"]), (&json!("hello"), &json!(5)));
    for id in ids {
        let mut deliveries = lines.iter().filter(|line| line["what"] == "delivery" && line["id"] == id.as_str());
        assert!(deliveries.next().is_some_and(|line| line["topic"] == "news"), "{lines:?}");
        assert!(deliveries.next().is_none());
    }
    drop(tap);
    publish(&server, "news", "again");
    listeners.iter_mut().for_each(|peer| peer.expect(TEXT, "again"));
}

#[test]
fn throng_tap_prints_a_line_a_frame_and_says_why_it_cannot() {
    let (server, admin) = start("--workers 1 --echo");
    let mut peer = server.websocket();
    let id = id_of(admin, &peer);
    let tap = |flags: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_throng"));
        command.args(["tap", "--url", &format!("http://{admin}")]).args(flags.split_whitespace());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs")
    };
    let mut child = tap(&format!("--id {id} --payload --seconds 2"));
    let mut errors = BufReader::new(child.stderr.take().expect("piped")).lines();
    assert!(errors.next().expect("a line").expect("text").contains("tapping for 2 s"));
    peer.echo("hello\x1b[2J");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut line = || lines.next().expect("a line").expect("text");
    let (heard, said) = (line(), line());
    assert!(heard.contains(&format!("{id} ")) && heard.contains("  in ") && heard.contains("9 B"), "{heard}");
    assert!(heard.ends_with("hello\\u{1b}[2J"), "{heard}");
    assert!(said.contains("  out ") && said.contains("text"), "{said}");
    assert!(child.wait().expect("it ends").success(), "its time was up");

    let output = tap("--id 0-99999").wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("no such connection"), "{said}");
    let closed = Command::new(env!("CARGO_BIN_EXE_throng"))
        .args(["tap", "--url", "http://127.0.0.1:1", "--topic", "news"])
        .output()
        .expect("it ends");
    assert!(String::from_utf8_lossy(&closed.stderr).contains("--admin"));
    peer.echo("still here");
}

/// Its topic has no presence: nobody but the worker knows whose they are.
#[test]
fn a_bare_client_with_a_token_is_found_and_disconnected_by_its_user() {
    let rules = "[[channel.namespaces]]\nname = \"users\"\nallow_subscribe_for_client = true\n";
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("control-bare.toml");
    std::fs::write(&path, format!("[client.token]\nhmac_secret_key = \"secret\"\n{rules}")).expect("it is written");
    let (server, admin) = start(&format!("--workers 2 --config {}", path.display()));
    let token = |user: &str| {
        let key = EncodingKey::from_secret(b"secret");
        jsonwebtoken::encode(&Header::default(), &json!({"sub": user}), &key).expect("a token")
    };
    let bare = |head: support::Head, user: &str, status: u16| {
        let mut peer = server.connect();
        peer.send(
            head.without("Host").with("Host: localhost").with(format!("Authorization: Bearer {}", token(user))).bytes(),
        );
        assert_eq!(peer.head().status, status);
        peer
    };
    let websocket = || upgrade().line("GET /topics/users:a HTTP/1.1");
    let mut mary = bare(websocket(), "mary", 101);
    let mut stream = bare(plain("/topics/users:a").with("Accept: text/event-stream"), "mary", 200);
    let mut john = bare(websocket(), "john", 101);
    let list = get(admin, "/connections?user=mary");
    assert_eq!((&list["matched"], &list["connections"][1]["user"]), (&json!(2), &json!("mary")), "{list}");
    assert_eq!(delete(admin, "/connections?user=mary").1["disconnected"], 2);
    assert_eq!(mary.expect_close(1008), "disconnected by an operator");
    mary.send(close(1008, "").bytes());
    stream.rest();
    eventually("both are among the closes", PATIENCE, || {
        let list = get(admin, "/closes?user=mary&reason=operator");
        list["closes"].as_array().is_some_and(|closes| closes.len() == 2)
    });
    john.send(close(4000, "").bytes());
    john.expect_close(4000);
}

#[test]
fn one_tap_too_many_ends_the_oldest_and_it_says_why() {
    let (server, admin) = start("--workers 2");
    let _listener = subscribe(server.addrs[0], "/topics/news");
    let mut first = subscribe(admin, "/tap?topic=news");
    let _others: Vec<_> = (0..throng::limits::TAPS_MAX).map(|_| subscribe(admin, "/tap?topic=news")).collect();
    assert!(tap_line(&mut first)["notice"].is_string());
    let frame = first.frame();
    assert!(frame.opcode == CLOSE && String::from_utf8_lossy(&frame.payload).contains("to make room"), "{frame:?}");
}

#[test]
fn why_an_event_stream_ended_refusals_and_words_are_found_among_the_closes() {
    let (server, admin) = start("--workers 2 --max-connection-age 1s");
    let mut stream = server.connect();
    stream.send("GET /topics/news HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n");
    eventually("it is too old", PATIENCE, || {
        let list = get(admin, "/closes?reason=max_age");
        list["closes"][0]["transport"] == "event_stream"
    });
    let wrong = ask(admin, &to("GET /closes?reason=slow_readr"));
    let said = String::from_utf8_lossy(&wrong.body).into_owned();
    assert!(wrong.status == 400 && said.contains("slow_reader") && said.contains("slow_readr"), "{said}");
    assert_eq!(wrong.field("Connection"), Some("close"), "who is refused makes room");
    assert_eq!(ask(admin, &to("GET /closes?reason=slow_reader")).field("Connection"), Some("keep-alive"));
}

#[test]
fn it_ends_with_the_server_and_its_watchers_are_told() {
    let (mut server, admin) = start("--workers 1");
    let _tap = subscribe(admin, "/tap?topic=news");
    server.signal("TERM");
    assert!(server.exit(PATIENCE + Duration::from_secs(5)).success());
}
