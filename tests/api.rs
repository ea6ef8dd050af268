//! Centrifugo's server API, as an application's server uses it.
#![cfg(feature = "cli")] // There is no binary without it.

mod support;

use serde_json::{Value, json};
use std::path::PathBuf;
use support::*;

const KEY: &str = "a-key-of-the-application";

fn key_file(name: &str, text: &str) -> PathBuf {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&file, text).unwrap();
    file
}

/// One worker is a channel's home, and three are not: most of what is asked here crosses threads.
fn start() -> Throng {
    Throng::start("--workers 4 --ping-interval 100 --api-insecure")
}

fn ask(peer: &mut Raw, method: &str, fields: &str, body: &str) -> Response {
    let length = body.len();
    let head = format!("POST /api/{method} HTTP/1.1\r\nHost: localhost\r\n{fields}Content-Length: {length}\r\n\r\n");
    peer.send(head + body);
    peer.answer()
}

/// The answer to a request that is answered with 200.
#[track_caller]
fn call(peer: &mut Raw, method: &str, body: &Value) -> Value {
    let answer = ask(peer, method, "", &body.to_string());
    assert_eq!((answer.status, answer.field("Content-Type")), (200, Some("application/json")), "{answer:?}");
    serde_json::from_str(&untimed(std::str::from_utf8(&answer.body).unwrap())).unwrap()
}

#[track_caller]
fn result(peer: &mut Raw, method: &str, body: &Value) -> Value {
    let mut answer = call(peer, method, body);
    assert!(answer["error"].is_null(), "{answer}");
    answer["result"].take()
}

#[track_caller]
fn error(peer: &mut Raw, method: &str, body: &Value) -> (u64, String) {
    let answer = call(peer, method, body);
    assert!(answer["result"].is_null(), "{answer}");
    (answer["error"]["code"].as_u64().unwrap(), answer["error"]["message"].as_str().unwrap().to_owned())
}

/// A subscriber by the topic's URL.
fn subscribe(server: &Throng, target: &str) -> Raw {
    let mut peer = server.connect();
    peer.send(upgrade().line(format!("GET {target} HTTP/1.1")).bytes());
    assert_eq!(peer.head().status, 101);
    peer
}

/// A client of Centrifugo's protocol that is subscribed.
fn session(server: &Throng, channel: &str) -> Raw {
    let mut peer = server.connect();
    peer.send(upgrade().line("GET /connection/websocket HTTP/1.1").bytes());
    assert_eq!(peer.head().status, 101);
    peer.send(text("{\"id\":1,\"connect\":{}}").bytes());
    assert_eq!(said(&mut peer)["id"], 1);
    peer.send(text(json!({"id": 2, "subscribe": {"channel": channel}}).to_string()).bytes());
    assert!(said(&mut peer)["subscribe"].is_object());
    peer
}

fn said(peer: &mut Raw) -> Value {
    serde_json::from_str(&untimed(std::str::from_utf8(&peer.frame().payload).unwrap())).unwrap()
}

fn poll(server: &Throng, target: &str) -> String {
    let mut peer = server.connect();
    peer.send(plain(target).bytes());
    String::from_utf8(peer.answer().body).unwrap()
}

#[test]
fn only_who_has_the_key_is_let_in() {
    let file = key_file("api-key", &format!("{KEY}\n"));
    let server = Throng::start(&format!("--workers 2 --api-key-file {}", file.display()));
    let mut peer = server.connect();
    for (fields, status) in [
        (format!("X-API-Key: {KEY}\r\n"), 200),
        (format!("Authorization: apikey {KEY}\r\n"), 200),
        (format!("Authorization: ApiKey  {KEY}\r\n"), 200),
        (String::new(), 401),
        ("X-API-Key: \r\n".to_owned(), 401),
        (format!("X-API-Key: {KEY}x\r\n"), 401),
        (format!("X-API-Key: wrong\r\nAuthorization: apikey {KEY}\r\n"), 401),
        (format!("Authorization: bearer {KEY}\r\n"), 401),
        (format!("Authorization: {KEY}\r\n"), 401),
    ] {
        let answer = ask(&mut peer, "info", &fields, "{}");
        assert_eq!(answer.status, status, "{fields}");
        if status == 401 {
            assert_eq!(answer.problem()["code"], "api_key");
        }
    }
    let answer = ask(&mut peer, "publish", "X-API-Key: wrong\r\n", r#"{"channel":"a","data":1}"#);
    assert_eq!((answer.status, poll(&server, "/topics/a")), (401, "[]\n".to_owned()));
}

#[test]
fn without_a_key_the_api_is_off() {
    let server = Throng::start("--workers 2");
    let mut peer = server.connect();
    let answer = ask(&mut peer, "publish", "X-API-Key: \r\n", r#"{"channel":"a","data":1}"#);
    assert_eq!(answer.status, 401);
    assert!(answer.problem()["detail"].contains("--api-key-file"));
    let (code, said) = run_to_end(&format!("--api-key-file {}", key_file("empty-key", " \n").display()));
    assert_eq!(code, Some(1));
    assert!(said.contains("the secret is empty"), "{said}");
    let (code, said) = run_to_end("--api-key-file /nonexistent/key");
    assert!(code == Some(1) && said.contains("/nonexistent/key"), "{said}");
}

#[test]
fn what_cannot_be_read_is_refused() {
    let server = start();
    let mut peer = server.connect();
    for (method, body, status) in [
        ("publish", "", 400),
        ("publish", "{", 400),
        ("publish", "[]", 400),
        ("publish", r#"{"channel":1,"data":1}"#, 400),
        ("batch", r#"{"commands":1}"#, 400),
        ("info", "", 400),
        ("presence", "{", 400),
        ("rpc", "{}", 404),
        ("Publish", "{}", 404),
        ("", "{}", 404),
        ("publish/", "{}", 404),
    ] {
        let answer = ask(&mut peer, method, "", body);
        assert_eq!(answer.status, status, "{method} {body}");
        assert!(!answer.problem()["detail"].is_empty());
    }
    peer.send("GET /api/info HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let answer = peer.answer();
    assert_eq!((answer.status, answer.field("Allow")), (405, Some("POST")));
    for (method, body, code) in [
        ("publish", json!({"data": 1}), 107),
        ("publish", json!({"channel": "with space", "data": 1}), 107),
        ("publish", json!({"channel": "a"}), 107),
        ("publish", json!({"channel": "a", "b64data": "%"}), 107),
        ("publish", json!({"channel": "a", "data": 1, "version": 1}), 108),
        ("broadcast", json!({"channels": [], "data": 1}), 107),
        ("history", json!({}), 107),
        ("history", json!({"channel": "a", "limit": 1, "since": {"offset": 1, "epoch": "wrong"}}), 112),
        ("history", json!({"channel": "a", "limit": 1, "since": {"offset": 9}}), 112),
        ("channels", json!({"pattern": "["}), 107),
        ("presence", json!({"channel": "a"}), 108),
        ("presence_stats", json!({"channel": "a"}), 108),
        ("subscribe", json!({"channel": "a"}), 107),
        ("subscribe", json!({"channel": "a b", "user": "u"}), 107),
        ("unsubscribe", json!({"channel": "a", "user": ""}), 107),
        ("disconnect", json!({}), 107),
        ("disconnect", json!({"user": "u", "disconnect": {"code": 1000}}), 107),
        ("refresh", json!({}), 107),
    ] {
        assert_eq!(error(&mut peer, method, &body).0, code, "{method} {body}");
    }
    assert_eq!(poll(&server, "/topics/a"), "[]\n", "nothing was published");
}

#[test]
fn a_publication_reaches_every_kind_of_client() {
    let server = start();
    let (mut bare, mut client) = (subscribe(&server, "/topics/news"), session(&server, "news"));
    let mut waiting = server.connect();
    waiting.send(plain("/topics/news?wait=20").bytes());
    assert!(!waiting.hears(millis(200)), "it waits");
    let mut peer = server.connect();
    let published = result(
        &mut peer,
        "publish",
        &json!({"channel": "news", "data": {"a": [1]}, "tags": {"lang": "en"}, "idempotency_key": "once", "delta": true}),
    );
    let epoch = published["epoch"].as_str().unwrap().to_owned();
    assert_eq!(published, json!({"offset": 1, "epoch": epoch}));
    bare.expect(TEXT, r#"{"a":[1]}"#);
    let push = json!({"data": {"a": [1]}, "offset": 1, "tags": {"lang": "en"}});
    assert_eq!(said(&mut client), json!({"push": {"channel": "news", "pub": push}}));
    let element = format!("{{\"id\":\"{epoch}-1\",\"data\":{{\"a\":[1]}}}}");
    assert_eq!(String::from_utf8(waiting.answer().body).unwrap(), format!("[{element}]\n"));
    let again = json!({"channel": "news", "data": "other", "idempotency_key": "once"});
    assert_eq!(result(&mut peer, "publish", &again), published, "it was published before");
    let bytes = json!({"channel": "news", "b64data": "//8="});
    assert_eq!(result(&mut peer, "publish", &bytes)["offset"], 2);
    bare.expect(BINARY, b"\xff\xff");
    assert_eq!(said(&mut client)["push"]["pub"]["data"], json!({"base64": "//8="}));
    assert_eq!(result(&mut peer, "publish", &json!({"channel": "news", "data": null}))["offset"], 3);
    bare.expect(TEXT, "null");
    let history = result(&mut peer, "history", &json!({"channel": "news", "limit": -1}));
    let publications = json!([push, {"data": {"base64": "//8="}, "offset": 2}, {"data": null, "offset": 3}]);
    assert_eq!(history, json!({"publications": publications, "offset": 3, "epoch": epoch}));
}

#[test]
fn history_is_read_in_both_directions() {
    let server = start();
    let mut peer = server.connect();
    let empty = result(&mut peer, "history", &json!({"channel": "h", "limit": 5}));
    let epoch = empty["epoch"].as_str().unwrap().to_owned();
    assert_eq!(empty, json!({"publications": [], "offset": 0, "epoch": epoch}));
    for number in 1..=5 {
        result(&mut peer, "publish", &json!({"channel": "h", "data": number}));
    }
    let mut offsets = |more: Value| {
        let mut body = json!({"channel": "h"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let history = result(&mut peer, "history", &body);
        assert_eq!((&history["offset"], &history["epoch"]), (&json!(5), &json!(epoch)));
        let publications = history["publications"].as_array().unwrap().iter();
        publications.map(|publication| publication["offset"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(offsets(json!({})), [0u64; 0]);
    assert_eq!(offsets(json!({"limit": 2})), [1, 2]);
    assert_eq!(offsets(json!({"limit": 2, "reverse": true})), [5, 4]);
    assert_eq!(offsets(json!({"limit": -1, "since": {"offset": 3, "epoch": epoch}})), [4, 5]);
    assert_eq!(offsets(json!({"limit": -1, "since": {"offset": 3}, "reverse": true})), [2, 1]);
    assert_eq!(offsets(json!({"limit": 1, "since": {"offset": 5, "epoch": epoch}})), [0u64; 0]);
}

#[test]
fn removed_history_leaves_a_gap_and_the_position() {
    let server = start();
    let mut peer = server.connect();
    // Several on every worker: copies are told as well.
    let mut listeners: Vec<Raw> = (0..8).map(|_| subscribe(&server, "/topics/r?frames=json")).collect();
    let mut epoch = String::new();
    for number in 1..=3 {
        let published = result(&mut peer, "publish", &json!({"channel": "r", "data": number}));
        epoch = published["epoch"].as_str().unwrap().to_owned();
    }
    assert_eq!(result(&mut peer, "history_remove", &json!({"channel": "r"})), json!({}));
    let history = result(&mut peer, "history", &json!({"channel": "r", "limit": -1}));
    assert_eq!(history, json!({"publications": [], "offset": 3, "epoch": epoch}));
    assert_eq!(poll(&server, "/topics/r?since=earliest"), "[]\n");
    let gap = |since: u64| format!("{{\"gap\":{{\"since\":\"{epoch}-{since}\",\"resumed\":\"{epoch}-3\"}}}}");
    for _ in 0..8 {
        // Whichever worker it comes to, none starts it from its copy.
        let mut late = subscribe(&server, &format!("/topics/r?frames=json&since={epoch}-1"));
        late.expect(TEXT, gap(1));
    }
    assert_eq!(poll(&server, &format!("/topics/r?since={epoch}-0")), format!("[{}]\n", gap(0)));
    assert_eq!(error(&mut peer, "history", &json!({"channel": "r", "limit": 1, "since": {"offset": 2}})).0, 112);
    assert_eq!(result(&mut peer, "publish", &json!({"channel": "r", "data": 4}))["offset"], 4);
    for listener in &mut listeners {
        (1..=4).for_each(|n| listener.expect(TEXT, format!("{{\"id\":\"{epoch}-{n}\",\"data\":{n}}}")));
    }
    assert_eq!(result(&mut peer, "history_remove", &json!({"channel": "nobody:was:here"})), json!({}));
}

#[test]
fn a_broadcast_reaches_a_thousand_channels() {
    let server = start();
    let mut peer = server.connect();
    let names: Vec<String> = (0..1000).map(|number| format!("room:{number}")).collect();
    let mut listeners: Vec<Raw> =
        names.iter().step_by(100).map(|name| subscribe(&server, &format!("/topics/{name}"))).collect();
    // Every channel with an even number has one publication already.
    for name in names.iter().step_by(2) {
        result(&mut peer, "publish", &json!({"channel": name, "data": 0}));
    }
    let mut channels = names.clone();
    channels.insert(500, "not a name".to_owned());
    channels.push("room:0".to_owned());
    let broadcast = result(&mut peer, "broadcast", &json!({"channels": channels, "data": {"all": true}}));
    let responses = broadcast["responses"].as_array().unwrap();
    assert_eq!(responses.len(), 1002);
    for (at, response) in responses.iter().enumerate() {
        let offset = match at {
            500 => {
                assert_eq!(response["error"]["code"], 107);
                continue;
            }
            1001 => 3,
            at => 2 - (at - usize::from(at > 500)) as u64 % 2,
        };
        assert_eq!(response["result"]["offset"], offset, "{at}: in the order of the request");
    }
    for listener in &mut listeners {
        listener.expect(TEXT, "0");
        listener.expect(TEXT, r#"{"all":true}"#);
    }
    for (number, name) in names.iter().enumerate().skip(1).step_by(37) {
        assert_eq!(poll(&server, &format!("/topics/{name}")).matches("\"id\"").count(), 2 - number % 2, "{name}");
    }
    let keyed = json!({"channels": ["k:1", "k:2"], "data": 1, "idempotency_key": "k"});
    assert_eq!(result(&mut peer, "broadcast", &keyed), result(&mut peer, "broadcast", &keyed));
}

#[test]
fn one_request_may_do_so_much_and_no_more() {
    let server = Throng::start("--workers 4 --api-insecure --max-message 1000000");
    let mut peer = server.connect();
    let channels: Vec<String> = (0..10_001).map(|number| format!("c{number}")).collect();
    let broadcast = |count: usize| json!({"channels": &channels[..count], "data": 1});
    let (code, message) = error(&mut peer, "broadcast", &broadcast(10_001));
    assert!(code == 106 && message.contains("10000"), "{message}");
    assert_eq!(result(&mut peer, "broadcast", &broadcast(10_000))["responses"].as_array().unwrap().len(), 10_000);
    let commands = vec![json!({"info": {}}); 10_001];
    assert_eq!(ask(&mut peer, "batch", "", &json!({"commands": commands}).to_string()).status, 400);
    let listings = call(&mut peer, "batch", &json!({"commands": vec![json!({"channels": {}}); 11]}));
    let replies = listings["replies"].as_array().unwrap();
    assert!(replies[9]["channels"].is_object() && replies[10]["error"]["code"] == 106, "{listings}");
}

#[test]
fn channels_and_info_say_who_listens() {
    let server = start();
    let mut peer = server.connect();
    assert_eq!(result(&mut peer, "channels", &json!({})), json!({"channels": {}}));
    let mut clients: Vec<Raw> = (0..8).map(|_| session(&server, "chat:1")).collect();
    clients.extend((0..3).map(|number| subscribe(&server, &format!("/topics/chat:{number}"))));
    clients.push(session(&server, "news"));
    let counted = |count: u64| json!({"num_clients": count});
    let all = json!({"chat:0": counted(1), "chat:1": counted(9), "chat:2": counted(1), "news": counted(1)});
    assert_eq!(result(&mut peer, "channels", &json!({})), json!({"channels": all}));
    assert_eq!(result(&mut peer, "channels", &json!({"pattern": "ne*"})), json!({"channels": {"news": counted(1)}}));
    let some = json!({"chat:0": counted(1), "chat:2": counted(1)});
    assert_eq!(result(&mut peer, "channels", &json!({"pattern": "chat:[!1]"})), json!({"channels": some}));
    let info = result(&mut peer, "info", &json!({}));
    let node = &info["nodes"][0];
    assert_eq!(info["nodes"].as_array().unwrap().len(), 1);
    assert_eq!(node["uid"].as_str().unwrap().len(), 32);
    assert_eq!((&node["name"], &node["num_users"]), (&json!("throng"), &json!(0)));
    assert_eq!((&node["num_clients"], &node["num_subs"], &node["num_channels"]), (&json!(12), &json!(12), &json!(4)));
    assert!(node["version"].as_str().unwrap().starts_with("throng ") && node["uptime"].is_u64());
    clients.clear();
    eventually("nobody listens any more", PATIENCE, || {
        let node = result(&mut peer, "info", &json!({}))["nodes"][0].take();
        result(&mut peer, "channels", &json!({})) == json!({"channels": {}})
            && (&node["num_clients"], &node["num_subs"], &node["num_channels"]) == (&json!(0), &json!(0), &json!(0))
    });
}

#[test]
fn a_batch_is_answered_in_its_order() {
    let server = start();
    let mut peer = server.connect();
    let mut commands = vec![json!({"history": {"channel": "b0", "limit": 1}})];
    for number in 0..40 {
        commands.push(json!({"publish": {"channel": format!("b{}", number % 10), "data": number}}));
    }
    commands.extend([
        json!({"broadcast": {"channels": ["b0", "b1"], "data": "all"}}),
        json!({"history": {"channel": "b0", "limit": -1}}),
        json!({"history_remove": {"channel": "b0"}}),
        json!({"history": {"channel": "b0", "limit": -1}}),
        json!({"publish": {"channel": ""}}),
        json!({"presence": {"channel": "b0"}}),
        json!({"nothing": {}}),
        Value::Null,
        json!({"info": {}}),
        json!({"channels": {}}),
    ]);
    let replies = call(&mut peer, "batch", &json!({"commands": commands}))["replies"].take();
    let replies = replies.as_array().unwrap();
    assert_eq!(replies.len(), commands.len());
    assert_eq!(replies[0]["history"]["offset"], 0);
    for number in 0..40 {
        assert_eq!(replies[1 + number]["publish"]["offset"], number / 10 + 1);
    }
    assert_eq!(replies[41]["broadcast"]["responses"][1]["result"]["offset"], 5);
    let data: Vec<_> = replies[42]["history"]["publications"].as_array().unwrap().iter().map(|p| &p["data"]).collect();
    assert_eq!(data, [&json!(0), &json!(10), &json!(20), &json!(30), &json!("all")]);
    assert_eq!(replies[43], json!({"history_remove": {}}));
    assert_eq!((&replies[44]["history"]["publications"], &replies[44]["history"]["offset"]), (&json!([]), &json!(5)));
    let codes: Vec<_> = replies[45..49].iter().map(|reply| reply["error"]["code"].as_u64().unwrap()).collect();
    assert_eq!(codes, [107, 108, 104, 104]);
    assert!(replies[49]["info"]["nodes"].is_array() && replies[50]["channels"]["channels"].is_object());
    let body = json!({"parallel": true, "commands": commands[1..41]});
    let replies = call(&mut peer, "batch", &body)["replies"].take();
    for (number, reply) in replies.as_array().unwrap().iter().enumerate() {
        let name = number % 10;
        assert_eq!(reply["publish"]["offset"], number / 10 + 5 + usize::from(name < 2), "{number}");
    }
    assert_eq!(call(&mut peer, "batch", &json!({})), json!({"replies": []}));
}

#[test]
fn topics_without_history_have_no_position() {
    let server = Throng::start("--workers 2 --history-size 0 --api-insecure");
    let mut peer = server.connect();
    let mut bare = subscribe(&server, "/topics/t");
    let skipping = json!({"channel": "t", "data": 1, "skip_history": true});
    assert_eq!(result(&mut peer, "publish", &skipping), json!({}));
    bare.expect(TEXT, "1");
    assert_eq!(error(&mut peer, "history", &json!({"channel": "t"})).0, 108);
    assert_eq!(error(&mut peer, "history_remove", &json!({"channel": "t"})).0, 108);
}

#[test]
fn requests_behind_one_another_are_answered_in_order() {
    let server = start();
    let mut peer = server.connect();
    let mut all = String::new();
    for number in 0..20 {
        let body = json!({"channels": ["p", format!("p{number}")], "data": number}).to_string();
        all +=
            &format!("POST /api/broadcast HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    }
    peer.send(all);
    for number in 1..=20 {
        let answer: Value = serde_json::from_slice(&peer.answer().body).unwrap();
        assert_eq!(answer["result"]["responses"][0]["result"]["offset"], number);
    }
    // Who leaves before the answer leaves nothing behind.
    let mut gone = server.connect();
    let body = json!({"channels": (0..500).map(|n| format!("g{n}")).collect::<Vec<_>>(), "data": 1}).to_string();
    gone.send(format!(
        "POST /api/broadcast HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    drop(gone);
    eventually("it was published all the same", PATIENCE, || poll(&server, "/topics/g499").contains("\"id\""));
}

#[test]
fn what_skips_history_reaches_who_is_there_and_is_not_kept() {
    let server = start();
    let mut clients: Vec<Raw> = (0..6).map(|_| session(&server, "typing")).collect();
    let mut bare = subscribe(&server, "/topics/typing");
    let mut peer = server.connect();
    let publish = |peer: &mut Raw, data: u64, skip: bool| {
        result(peer, "publish", &json!({"channel": "typing", "data": data, "skip_history": skip}))
    };
    assert_eq!(publish(&mut peer, 1, false)["offset"], 1);
    for client in &mut clients {
        assert_eq!(said(client)["push"]["pub"], json!({"data": 1, "offset": 1}));
    }
    assert_eq!(publish(&mut peer, 2, true), json!({}), "it has no position");
    for client in &mut clients {
        assert_eq!(said(client)["push"]["pub"], json!({"data": 2}));
    }
    assert_eq!(publish(&mut peer, 3, false)["offset"], 2);
    for client in &mut clients {
        assert_eq!(said(client)["push"]["pub"], json!({"data": 3, "offset": 2}));
    }
    bare.expect(TEXT, "1");
    bare.expect(TEXT, "3");
    let kept = result(&mut peer, "history", &json!({"channel": "typing", "limit": 10}));
    assert_eq!(kept["publications"], json!([{"data": 1, "offset": 1}, {"data": 3, "offset": 2}]));
    let responses =
        result(&mut peer, "broadcast", &json!({"channels": ["typing", "other"], "data": 4, "skip_history": true}));
    assert_eq!(responses, json!({"responses": [{"result": {}}, {"result": {}}]}));
    assert_eq!(said(&mut clients[0])["push"]["pub"], json!({"data": 4}));
}
