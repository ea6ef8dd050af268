//! Centrifugo's client protocol over raw sockets, in JSON: what the server as a whole makes of it.
#![cfg(feature = "cli")] // There is no binary without it.

mod support;

use support::*;

fn start(options: &str) -> Throng {
    Throng::start(&format!("--workers 4 --client-publish {options}"))
}

/// A client that has connected.
struct Client {
    raw: Raw,
    id: String,
    commands: u32,
}

impl Client {
    fn connect(server: &Throng) -> Self {
        let mut raw = server.connect();
        raw.send(upgrade().line("GET /connection/websocket HTTP/1.1").bytes());
        assert_eq!(raw.head().status, 101);
        let mut client = Self { raw, id: String::new(), commands: 0 };
        let connected = client.ask("connect", "{}");
        client.id = between(&connected, "\"client\":\"", "\"").to_owned();
        client
    }

    fn say(&mut self, method: &str, params: &str) {
        self.commands += 1;
        self.raw.send(text(format!("{{\"id\":{},\"{method}\":{params}}}", self.commands)).bytes());
    }

    fn hear(&mut self) -> String {
        untimed(&String::from_utf8(self.raw.frame().payload).unwrap())
    }

    /// The reply to a command, without what stands around it.
    fn ask(&mut self, method: &str, params: &str) -> String {
        self.say(method, params);
        let reply = self.hear();
        let head = format!("{{\"id\":{},\"", self.commands);
        reply
            .strip_prefix(&head)
            .and_then(|rest| rest.strip_suffix('}'))
            .unwrap_or_else(|| panic!("{reply}"))
            .to_owned()
    }

    fn subscribe(&mut self, channel: &str) -> String {
        self.ask("subscribe", &format!("{{\"channel\":\"{channel}\",\"recoverable\":true}}"))
    }
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let rest = text.split_once(before).unwrap_or_else(|| panic!("no {before} in {text}")).1;
    rest.split_once(after).unwrap_or_else(|| panic!("no {after} in {rest}")).0
}

fn post(server: &Throng, topic: &str, body: &str) {
    let mut peer = server.connect();
    peer.send(format!(
        "POST /topics/{topic} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(peer.answer().status, 200);
}

fn get(server: &Throng, target: &str) -> (u16, String) {
    let mut peer = server.connect();
    peer.send(plain(target).bytes());
    let answer = peer.answer();
    (answer.status, String::from_utf8(answer.body).unwrap())
}

#[test]
fn both_kinds_of_client_meet_on_a_topic() {
    let server = start("");
    let mut bare = server.connect();
    bare.send(upgrade().line("GET /topics/news HTTP/1.1").bytes());
    assert_eq!(bare.head().status, 101);
    let (mut one, mut other) = (Client::connect(&server), Client::connect(&server));
    for client in [&mut one, &mut other] {
        assert!(client.subscribe("news").starts_with("subscribe\":{\"recoverable\":true,\"epoch\":\""));
    }
    post(&server, "news", "hello");
    bare.expect(TEXT, "hello");
    for client in [&mut one, &mut other] {
        assert_eq!(client.hear(), r#"{"push":{"channel":"news","pub":{"data":"hello","offset":1}}}"#);
    }
    one.say("publish", r#"{"channel":"news","data":{"n":1}}"#);
    bare.expect(TEXT, r#"{"n":1}"#);
    let info = format!(r#""info":{{"user":"","client":"{}"}},"#, one.id);
    let push = format!(r#"{{"push":{{"channel":"news","pub":{{"data":{{"n":1}},{info}"offset":2}}}}}}"#);
    assert_eq!(other.hear(), push);
    let mut mine = [one.hear(), one.hear()];
    mine.sort();
    assert_eq!(mine, [r#"{"id":3,"publish":{}}"#.to_owned(), push]);
}

#[test]
fn what_was_missed_follows_in_order_however_much_it_is() {
    let server = start("");
    let mut client = Client::connect(&server);
    let subscribed = client.subscribe("t");
    let epoch = between(&subscribed, "\"epoch\":\"", "\"").to_owned();
    client.raw.reset();
    let body = "x".repeat(5000);
    (0..20).for_each(|_| post(&server, "t", &body));
    let mut client = Client::connect(&server);
    let recover = format!("{{\"channel\":\"t\",\"recover\":true,\"epoch\":\"{epoch}\",\"offset\":0}}");
    let reply = client.ask("subscribe", &recover);
    assert!(reply.contains("\"recovered\":true") && reply.contains("\"was_recovering\":true"));
    let mut offsets: Vec<u64> =
        reply.split("\"offset\":").skip(1).filter_map(|rest| rest.split('}').next()?.parse().ok()).collect();
    assert_eq!(offsets, [1, 2, 3], "16 KiB of them");
    while offsets.len() < 20 {
        let push = client.hear();
        offsets.push(between(&push, "\"offset\":", "}").parse().unwrap());
    }
    assert_eq!(offsets, (1..=20).collect::<Vec<_>>());
}

#[test]
fn a_slow_session_is_disconnected_or_subscribes_again() {
    for (slow, expected) in [("disconnect", "3008"), ("skip", "2500")] {
        let server = start(&format!("--history-size 4 --slow {slow}"));
        let mut client = Client::connect(&server);
        client.subscribe("t");
        let body = "x".repeat(60_000);
        (0..200).for_each(|_| post(&server, "t", &body));
        let mut offset = 0;
        loop {
            let frame = client.raw.frame();
            if frame.opcode == CLOSE {
                assert_eq!((expected, &frame.payload[..2]), ("3008", &3008_u16.to_be_bytes()[..]));
                break;
            }
            let push = untimed(&String::from_utf8(frame.payload).unwrap());
            if push.contains("\"unsubscribe\"") {
                assert_eq!(between(&push, "\"code\":", ","), expected);
                assert!(client.subscribe("t").contains("\"offset\":200"));
                break;
            }
            let next: u64 = between(&push, "\"offset\":", "}").parse().unwrap();
            assert_eq!(next, offset + 1);
            offset = next;
        }
    }
}

#[test]
fn whoever_is_there_is_known_exactly() {
    let server = start("--presence --api-insecure");
    let mut clients: Vec<Client> = (0..5).map(|_| Client::connect(&server)).collect();
    for (count, client) in clients.iter_mut().enumerate() {
        client.subscribe("t");
        let stats = client.ask("presence_stats", r#"{"channel":"t"}"#);
        assert_eq!(stats, format!("presence_stats\":{{\"num_clients\":{},\"num_users\":1}}", count + 1));
    }
    let all = clients[0].ask("presence", r#"{"channel":"t"}"#);
    for client in &clients {
        let entry = format!("\"{0}\":{{\"user\":\"\",\"client\":\"{0}\"}}", client.id);
        assert!(all.contains(&entry), "{all}");
    }
    // A bare client is one too, and a poll is not.
    let mut events = server.connect();
    events.send(plain("/topics/t").with("Accept: text/event-stream").bytes());
    assert_eq!(events.head().status, 200);
    let (status, body) = get(&server, "/topics/t/presence");
    assert!(status == 200 && body.ends_with("\"num_clients\":6,\"num_users\":1}\n"), "{body}");
    let mut api = server.connect();
    let body = r#"{"channel":"t"}"#;
    api.send(format!(
        "POST /api/presence_stats HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(api.answer().body, b"{\"result\":{\"num_clients\":6,\"num_users\":1}}\n");
    api.send(format!("POST /api/presence HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    let all = String::from_utf8(api.answer().body).unwrap();
    let entry = format!("\"{0}\":{{\"user\":\"\",\"client\":\"{0}\"}}", clients[4].id);
    assert!(all.starts_with("{\"result\":{\"presence\":{\"") && all.contains(&entry), "{all}");
    // Gone by a close, by a reset, and by unsubscribing.
    assert_eq!(clients[0].ask("unsubscribe", r#"{"channel":"t"}"#), "unsubscribe\":{}");
    clients.remove(1).raw.reset();
    events.reset();
    eventually("all of them are gone", PATIENCE, || {
        clients[0].ask("presence_stats", r#"{"channel":"t"}"#) == "presence_stats\":{\"num_clients\":3,\"num_users\":1}"
    });
    drop(clients);
    eventually("nobody is there", PATIENCE, || {
        get(&server, "/topics/t/presence").1 == "{\"clients\":{},\"num_clients\":0,\"num_users\":0}\n"
    });
    assert_eq!(get(&start(""), "/topics/t/presence").0, 404, "unless topics know");
}

#[test]
fn who_comes_and_goes_is_told_to_those_who_ask() {
    let server = start("--presence --join-leave");
    let change = |what: &str, id: &str| {
        format!("{{\"push\":{{\"channel\":\"t\",\"{what}\":{{\"info\":{{\"user\":\"\",\"client\":\"{id}\"}}}}}}}}")
    };
    let wants = r#"{"channel":"t","join_leave":true}"#;
    let (mut host, mut deaf) = (Client::connect(&server), Client::connect(&server));
    assert_eq!(host.ask("subscribe", wants), "subscribe\":{}");
    assert_eq!(host.hear(), change("join", &host.id), "its own");
    deaf.subscribe("t");
    assert_eq!(host.hear(), change("join", &deaf.id));
    for round in 0..20 {
        let mut guest = Client::connect(&server);
        assert_eq!(guest.ask("subscribe", wants), "subscribe\":{}");
        assert_eq!(guest.hear(), change("join", &guest.id));
        assert_eq!(host.hear(), change("join", &guest.id));
        let id = guest.id.clone();
        match round % 3 {
            0 => assert_eq!(guest.ask("unsubscribe", r#"{"channel":"t"}"#), "unsubscribe\":{}"),
            1 => guest.raw.reset(),
            _ => drop(guest),
        }
        assert_eq!(host.hear(), change("leave", &id));
    }
    assert_eq!(deaf.ask("ping", "{}"), "ping\":{}", "it was told nothing");
    // It is no topic that anybody else can name.
    assert_eq!(get(&server, "/topics/t%20live").0, 400);
}

#[test]
fn a_shutdown_is_said_in_the_protocols_own_code() {
    let server = start("--drain 0.2");
    let mut client = Client::connect(&server);
    server.signal("TERM");
    assert_eq!(client.raw.expect_close(3001), "shutdown");
}
