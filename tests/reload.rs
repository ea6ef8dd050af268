//! SIGHUP: other settings without a connection lost.

mod support;

use std::fs;
use std::path::PathBuf;
use support::*;

/// A configuration that is read again.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let file =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("reload-{name}-{}.toml", std::process::id()));
        fs::write(&file, text).unwrap();
        Self(file)
    }

    fn start(&self, flags: &str) -> Throng {
        Throng::start(&format!("--config {} {flags}", self.0.display()))
    }

    /// Has the server read another text, until it has said so in a line with `says`.
    #[track_caller]
    fn reload(&self, server: &Throng, text: &str, says: &str) {
        let count = || server.log().iter().filter(|line| line.contains(says)).count();
        let before = count();
        fs::write(&self.0, text).unwrap();
        server.signal("HUP");
        eventually(says, PATIENCE, || count() > before);
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn status(server: &Throng, request: &Head) -> u16 {
    let mut peer = server.connect();
    peer.send(request.bytes());
    peer.head().status
}

fn publish(server: &Throng, topic: &str, body: &str) -> u16 {
    let mut peer = server.connect();
    peer.send(format!(
        "POST {topic} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: a key of 16 bytes\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    peer.head().status
}

const CROWD: usize = 5_000;

/// Everything that a reload can take is taken, again and again, while each of 5,000 connections gets every message.
#[test]
fn five_thousand_connections_live_through_reloads_under_load() {
    raise_own_descriptor_limit();
    let text = |n: usize| {
        format!(
            "[client]\nallowed_origins = [\"https://app-{n}.example\"]\n[http_api]\nkey = \"a key of 16 bytes\"\n\
             [websocket]\nmessage_size_limit = {}\n[throng]\nping_interval = \"{}s\"\nmax_topics = {}\n\
             message_rate = {}\ncontrol_rate = {}\naccept_rate = {}\n\
             [[channel.namespaces]]\nname = \"news\"\nhistory_size = {}\nhistory_ttl = \"1m\"\n\
             allow_subscribe_for_client = true\nallow_subscribe_for_anonymous = true\n\
             [[channel.namespaces]]\nname = \"new-{n}\"\n",
            40_000 + n,
            100 + n,
            1000 + n,
            1000 + n,
            100 + n,
            50_000 + n,
            100 + n
        )
    };
    let file = File::new("crowd", &text(0));
    let server = file.start("--workers 4");
    let subscribe = upgrade().line("GET /topics/news:world HTTP/1.1").bytes();
    let mut crowd: Vec<_> = (0..CROWD)
        .map(|_| {
            let mut peer = server.connect();
            peer.send(&subscribe);
            peer
        })
        .collect();
    crowd.iter_mut().for_each(|peer| assert_eq!(peer.head().status, 101));
    let all = (CROWD + 1) as f64; // with the one that asks
    server.until_connections(all..=all, PATIENCE);
    let mut sent = 0;
    for round in 1..=8 {
        fs::write(&file.0, text(round)).unwrap();
        server.signal("HUP");
        // Some before it, some amid it, some behind it.
        for _ in 0..5 {
            assert_eq!(publish(&server, "/topics/news:world", &format!("{sent}")), 200);
            sent += 1;
        }
        let says = format!("app-{round}.example");
        eventually("it is reloaded", PATIENCE, || server.log().iter().any(|line| line.contains(&says)));
    }
    for (n, peer) in crowd.iter_mut().enumerate() {
        for message in 0..sent {
            assert_eq!(peer.frame().payload, message.to_string().as_bytes(), "connection {n}");
        }
    }
    server.until_connections(all..=all, PATIENCE);
    assert_eq!(server.metric("throng_opened_total"), CROWD as f64, "nobody had to come again");
    assert!(server.log().iter().all(|line| !line.contains("ERROR") && !line.contains("WARN")), "{:?}", server.log());
}

#[test]
fn origins_keys_and_namespaces_change() {
    let text = |origin: &str, key: &str, namespace: &str| {
        format!(
            "[client]\nallowed_origins = [\"{origin}\"]\n[http_api]\nkey = \"{key}\"\n\
             [[channel.namespaces]]\nname = \"{namespace}\"\nallow_subscribe_for_client = true\n\
             allow_subscribe_for_anonymous = true\n"
        )
    };
    let file = File::new("access", &text("https://old.example", "old", "old"));
    let server = file.start("--workers 2");
    let from = |origin: &str| status(&server, &upgrade().with(format!("Origin: {origin}")));
    let with = |key: &str| {
        status(
            &server,
            &plain("/api/channels")
                .line("POST /api/channels HTTP/1.1")
                .with(format!("X-API-Key: {key}"))
                .with("Content-Length: 2\r\n\r\n{}"),
        )
    };
    let at = |namespace: &str| status(&server, &upgrade().line(format!("GET /topics/{namespace}:1 HTTP/1.1")));
    let mut subscriber = server.connect();
    subscriber.send(upgrade().line("GET /topics/old:1 HTTP/1.1").bytes());
    assert_eq!(subscriber.head().status, 101);
    assert_eq!((from("https://old.example"), from("https://new.example")), (101, 403));
    assert_eq!((with("old"), with("new")), (200, 401));
    assert_eq!((at("old"), at("new")), (101, 404));
    file.reload(&server, &text("https://new.example", "new", "new"), "client.allowed_origins: ");
    assert_eq!((from("https://old.example"), from("https://new.example")), (403, 101));
    assert_eq!((with("old"), with("new")), (401, 200));
    assert_eq!((at("old"), at("new")), (404, 101));
    let log = server.log().join("\n");
    assert!(log.contains("http_api.key: changed, not shown"), "{log}");
    assert!(log.contains("channel.namespaces.old.presence: gone"), "{log}");
    subscriber.send(frame(9, "still").bytes());
    subscriber.expect(10, "still");
}

#[test]
fn limits_change_for_connections_that_are_there() {
    let text = |size: usize, rate: usize, level: &str| {
        format!(
            "[websocket]\nmessage_size_limit = {size}\n[throng]\nmessage_rate = {rate}\n[log]\nlevel = \"{level}\"\n"
        )
    };
    let file = File::new("limits", &text(10_000, 0, "info"));
    let server = file.start("--workers 1 --echo");
    let (mut one, mut other) = (server.websocket(), server.websocket());
    let long = "x".repeat(5_000);
    one.echo(&long);
    (0..200).for_each(|_| one.echo("quick"));
    assert_eq!(server.metric("throng_throttled_total"), 0.0);
    file.reload(&server, &text(1_000, 10, "debug"), "log.level: ");
    (0..51).for_each(|_| one.echo("quick"));
    assert!(server.metric("throng_throttled_total") > 0.0, "more than five seconds' worth at once");
    other.send(frame(1, &long).bytes());
    other.expect_close(1009);
    eventually("the log says more", PATIENCE, || server.log().iter().any(|line| line.contains(" DEBUG ")));
    file.reload(&server, &text(20_000, 0, "info"), "log.level: ");
    one.echo(&"y".repeat(15_000));
}

#[test]
fn what_only_a_restart_takes_is_said_with_both_values() {
    let file = File::new("untaken", "[throng]\nworkers = 2\n[client]\nconnection_limit = 100\n");
    let server = file.start("--max-topics 77");
    let next = "[throng]\nworkers = 3\nmax_topics = 5\nmax_connections_per_address = 9\nlisten = [\"127.0.0.1:1\"]\n\
                pong_timeout = \"9s\"\n[client]\nconnection_limit = 200\n";
    file.reload(&server, next, "throng.workers: 2 -> 3: only a restart takes this");
    let log = server.log();
    let says = |what: &str| log.iter().any(|line| line.contains(what));
    assert!(says("WARN not reloaded: client.connection_limit: 100 -> 200: only a restart takes this"), "{log:#?}");
    assert!(says("not reloaded: throng.max_connections_per_address: no limit of its own -> 9"), "{log:#?}");
    assert!(says("INFO reloaded: throng.pong_timeout: \"20s\" -> \"9s\""), "{log:#?}");
    assert!(!says("throng.max_topics") && !says("throng.listen"), "flags count more: {log:#?}");
    file.reload(&server, next, "throng.workers: 2 -> 3: only a restart takes this");
    file.reload(
        &server,
        "[throng]\nworkers = 2\npong_timeout = \"9s\"\n[client]\nconnection_limit = 100\n",
        "reloaded: nothing has changed",
    );
}

#[test]
fn a_file_with_errors_changes_nothing_and_says_so_line_by_line() {
    let file = File::new("errors", "[client]\nallowed_origins = [\"https://old.example\"]\n");
    let server = file.start("");
    let from = |origin: &str| status(&server, &upgrade().with(format!("Origin: {origin}")));
    let name = file.0.display().to_string();
    let bad =
        "[client]\nallowed_origins = [\"https://new.example\"]\nping_intervall = \"1s\"\n[throng]\nworkers = \"x\"\n";
    file.reload(&server, bad, &format!("ERROR not reloaded: {name}:5: `throng.workers` must be a number"));
    let log = server.log().join("\n");
    assert!(log.contains(&format!("not reloaded: {name}:3: unknown setting `client.ping_intervall`")), "{log}");
    assert_eq!((from("https://old.example"), from("https://new.example")), (101, 403));
    let conflict = "[client]\nallowed_origins = [\"https://new.example\"]\nqueue_max_size = 5\n";
    file.reload(&server, conflict, &format!("not reloaded: {name}:3: `client.queue_max_size`"));
    assert_eq!(from("https://new.example"), 403);
    fs::remove_file(&file.0).unwrap();
    server.signal("HUP");
    eventually("it says that there is no file", PATIENCE, || {
        server.log().iter().any(|line| line.contains(&format!("not reloaded: {name}: ")))
    });
    eventually("and that nothing has changed", PATIENCE, || {
        server.log().last().is_some_and(|line| line.contains("not reloaded: the settings before stay"))
    });
    assert_eq!(from("https://old.example"), 101);
}

#[test]
fn the_time_to_drain_and_secrets_in_files_change() {
    let file = File::new("drain", "[shutdown]\ntimeout = \"1h\"\n");
    let key = file.0.with_extension("key");
    fs::write(&key, "first\n").unwrap();
    let mut server = file.start(&format!("--api-key-file {}", key.display()));
    let knows = |server: &Throng, key: &str| status(server, &plain("/topics/t").with(format!("X-API-Key: {key}")));
    assert_eq!((knows(&server, "first"), knows(&server, "second")), (200, 401));
    fs::write(&key, "second\n").unwrap();
    file.reload(&server, "[shutdown]\ntimeout = \"100ms\"\n", "shutdown.timeout: \"1h\" -> \"100ms\"");
    assert_eq!((knows(&server, "first"), knows(&server, "second")), (401, 200));
    let mut peer = server.websocket();
    server.signal("TERM");
    peer.expect_close(1001);
    drop(peer);
    assert!(server.exit(PATIENCE).success());
}

/// What is safe on the addresses that the file has now is not on those that the server keeps until a restart.
#[test]
fn a_reload_lets_nobody_in_at_the_addresses_that_only_a_restart_changes() {
    let listening = |address: &str, rest: &str| format!("[throng]\nlisten = [\"{address}:0\"]\n{rest}");
    let keys = "[http_api]\nkey = \"a key of 16 bytes\"\n[client.token]\nhmac_secret_key = \"secret\"\n";
    let file = File::new("addresses", &listening("0.0.0.0", keys));
    let server = Throng::start_as_configured(&format!("--config {}", file.0.display()));
    let api =
        plain("").line("POST /api/channels HTTP/1.1").but("Host: app.example").with("Content-Length: 2\r\n\r\n{}");
    let metrics = plain("/metrics").but("Host: app.example");
    let asked = || (status(&server, &api), publish(&server, "/topics/t", "x"), status(&server, &metrics));
    assert_eq!(asked(), (401, 200, 404));
    for (rest, why) in [
        ("", "there is no key"),
        ("[client]\ninsecure = true\n[http_api]\nkey = \"other\"\n", "client.insecure"),
        ("[http_api]\ninsecure = true\nkey = \"other\"\n", "http_api.insecure"),
    ] {
        file.reload(
            &server,
            &listening("127.0.0.1", rest),
            &format!("can be reached by others, and nobody is asked who it is: {why}"),
        );
        assert_eq!(asked(), (401, 200, 404), "{why}");
    }
    let log = server.log().join("\n");
    assert!(log.contains("ERROR not reloaded: ") && log.contains("0.0.0.0:0 can be reached"), "{log}");
    assert!(!log.contains("INFO reloaded"), "{log}");
    // With a key it is safe on both; where metrics are served is as where it listens.
    file.reload(&server, &listening("127.0.0.1", &keys.replace("secret\"", "other\"")), "only a restart takes this");
    assert_eq!(asked(), (401, 200, 404));
}

/// The file can be a pipe to which nobody writes, and a worker can be stuck: to be told to end is still to end.
#[test]
fn a_reload_that_does_not_end_keeps_nothing_from_ending_the_server() {
    let pipe = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("reload-pipe-{}", std::process::id()));
    let _ = fs::remove_file(&pipe);
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let file = File(pipe);
    let written = std::thread::spawn({
        let pipe = file.0.clone();
        move || fs::write(pipe, "[shutdown]\ntimeout = \"100ms\"\n").unwrap()
    });
    let mut server = file.start("");
    written.join().unwrap();
    server.signal("HUP");
    server.signal("TERM");
    assert!(server.exit(PATIENCE).success());
}

/// A WebSocket was let in as a writer, or not: that is asked again for each message.
#[test]
fn what_a_websocket_sends_is_published_by_the_rules_that_hold_then() {
    let text = |may: bool, insecure: bool| {
        format!(
            "[client]\ninsecure = {insecure}\n[[channel.namespaces]]\nname = \"news\"\nallow_subscribe_for_client = true\n\
             allow_subscribe_for_anonymous = true\nallow_publish_for_client = {may}\nallow_publish_for_anonymous = {may}\n"
        )
    };
    let file = File::new("writers", &text(true, false));
    let server = file.start("");
    let open = || {
        let mut peer = server.connect();
        peer.send(upgrade().line("GET /topics/news:1 HTTP/1.1").bytes());
        assert_eq!(peer.head().status, 101);
        peer
    };
    let publishes = |peer: &mut Raw| {
        peer.send(frame(1, "mine").bytes());
        peer.expect(1, "mine");
    };
    let mut writer = open();
    publishes(&mut writer);
    file.reload(&server, &text(false, false), "reloaded: channel.namespaces.news.allow_publish_for_client: ");
    writer.send(frame(1, "still mine").bytes());
    assert!(writer.expect_close(1008).contains("POST"));
    let mut reader = open();
    file.reload(&server, &text(true, false), "reloaded: channel.namespaces.news.allow_publish_for_client: ");
    publishes(&mut reader);
    drop(reader);
    file.reload(&server, &text(false, true), "reloaded: client.insecure: ");
    let mut unasked = open();
    publishes(&mut unasked);
    file.reload(&server, &text(false, false), "reloaded: client.insecure: ");
    unasked.send(frame(1, "still mine").bytes());
    unasked.expect_close(1008);
}
