//! What is kept of a namespace's topics, and who is known to be there.

use crate::client::*;
use crate::support::*;
use crate::{start, token};
use serde_json::{Value, json};
use std::thread;
use std::time::Duration;

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
