//! The configuration file itself: what it sets, and what is said of one that cannot be.

use crate::client::*;
use crate::support::*;
use crate::{config, token};
use serde_json::{Value, json};

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
        "FILE:9: unknown setting `nonsense`: `throng config default` has them all",
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
    assert_eq!(said.lines().count(), 21, "{said}");
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
