//! What an application does with its users' sessions, and what they ask of it: the server API, calls and messages.
#![cfg(feature = "centrifugo")]

#[path = "support/site.rs"]
mod site;
mod support;

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use site::{Nothing, Site};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use support::*;
use throng::{Centrifugo, ConnId, Gone, Message, Publication, RpcAnswer, RpcError, RpcToken, Server, TokenKeys};

/// What the application was told.
#[derive(Debug, PartialEq)]
enum Told {
    Later(RpcToken),
    Sent(ConnId, String, Vec<u8>),
}

/// The application of the tests, which need not listen to what it is told.
fn application(told: &Sender<Told>) -> Centrifugo<Nothing> {
    let (asked, sent) = (told.clone(), told.clone());
    Centrifugo::new(Nothing)
        .tokens(TokenKeys::new(b"secret"))
        .anonymous(true)
        .api_insecure(true)
        .on_rpc(move |rpc| match (rpc.method(), rpc.data()) {
            ("echo", Message::Text(json)) => Publication::json(json).expect("the server has checked it").into(),
            ("echo", Message::Binary(bytes)) => Publication::from(bytes).into(),
            ("whoami", _) => {
                let caller = rpc.caller();
                Publication::from(format!("{} {}", caller.user(), caller.client())).into()
            }
            ("refuse", _) => RpcError::new(400, "not today").into(),
            ("wrong", _) => RpcError::new(7, "a code of the SDK's").into(),
            ("later", _) => {
                let _ = asked.send(Told::Later(rpc.token()));
                RpcAnswer::Later(rpc.token())
            }
            ("panic", _) => panic!("as the method says"),
            _ => RpcError::no_such_method().into(),
        })
        .on_send(move |caller, data| {
            let data = match data {
                Message::Text(json) => json.as_bytes().to_vec(),
                Message::Binary(bytes) => bytes.to_vec(),
                _ => unreachable!("there are no others"),
            };
            let _ = sent.send(Told::Sent(caller.id(), caller.user().to_owned(), data));
        })
}

impl Site {
    fn start() -> Self {
        Self::told().0
    }

    /// With what the application is told.
    fn told() -> (Self, Receiver<Told>) {
        let server = Server::new().workers(4).client_publish(true).presence(true).join_leave(true);
        let (sender, told) = channel();
        let sender = std::sync::Mutex::new(sender);
        (Self::run(server, move || application(&sender.lock().expect("nobody panics with it"))), told)
    }

    fn connect(&self, query: &str, connect: &Value) -> Client {
        let mut raw = Raw::connect(self.address);
        raw.send(upgrade().line(format!("GET /connection/websocket{query} HTTP/1.1")).bytes());
        assert_eq!(raw.head().status, 101);
        let mut client = Client { raw, heard: Vec::new(), id: String::new() };
        if query.is_empty() {
            let reply = client.ask(&json!({"id": 1, "connect": connect}));
            client.id = reply["connect"]["client"].as_str().unwrap_or_else(|| panic!("{reply}")).to_owned();
        }
        client
    }

    fn user(&self, user: &str) -> Client {
        self.connect("", &json!({"token": token(&json!({"sub": user}))}))
    }

    fn api(&self) -> Raw {
        Raw::connect(self.address)
    }
}

fn token(claims: &Value) -> String {
    jsonwebtoken::encode(&Header::default(), claims, &EncodingKey::from_secret(b"secret")).expect("a token")
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

#[track_caller]
fn call(peer: &mut Raw, method: &str, body: &Value) -> Value {
    let body = body.to_string();
    peer.send(format!(
        "POST /api/{method} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    let answer = peer.answer();
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_slice(&answer.body).expect("JSON")
}

/// A call that has nothing to say but that it was done.
#[track_caller]
fn done(peer: &mut Raw, method: &str, body: &Value) {
    assert_eq!(call(peer, method, body), json!({"result": {}}), "{method} {body}");
}

struct Client {
    raw: Raw,
    /// Messages of the last frame, last first.
    heard: Vec<Value>,
    id: String,
}

impl Client {
    fn say(&mut self, command: &Value) {
        self.raw.send(text(command.to_string()).bytes());
    }

    fn hear(&mut self) -> Value {
        while self.heard.is_empty() {
            let frame = String::from_utf8(self.raw.frame().payload).expect("text");
            self.heard = untimed(&frame).lines().rev().map(|line| serde_json::from_str(line).expect(line)).collect();
        }
        self.heard.pop().expect("a message")
    }

    fn ask(&mut self, command: &Value) -> Value {
        self.say(command);
        self.hear()
    }

    /// It has been told nothing since, and is there.
    #[track_caller]
    fn is_undisturbed(&mut self) {
        assert_eq!(self.ask(&json!({"id": 99, "ping": {}})), json!({"id": 99, "ping": {}}));
    }

    fn rpc(&mut self, method: &str, data: &Value) -> Value {
        self.ask(&json!({"id": 7, "rpc": {"method": method, "data": data}}))
    }
}

#[test]
fn a_user_is_disconnected_wherever_it_is_and_nobody_else() {
    let site = Site::start();
    let mut api = site.api();
    let mut mine: Vec<_> = (0..12).map(|_| site.user("ann")).collect();
    let mut others: Vec<_> = (0..4).map(|_| site.user("bob")).collect();
    others.extend((0..4).map(|_| site.connect("", &json!({}))));
    done(&mut api, "disconnect", &json!({"user": "nobody"}));
    done(&mut api, "disconnect", &json!({"user": "ann", "client": others[0].id}));
    done(&mut api, "disconnect", &json!({"user": "ann", "session": "unknown"}));
    mine.iter_mut().chain(&mut others).for_each(Client::is_undisturbed);
    let mut one = mine.remove(3);
    done(&mut api, "disconnect", &json!({"user": "ann", "client": one.id}));
    assert_eq!(one.raw.expect_close(3503), "force disconnect");
    let (mut first, mut last) = (mine.remove(0), mine.pop().expect("the last"));
    let whitelist = json!([first.id, last.id]);
    let disconnect = json!({"code": 4005, "reason": "elsewhere"});
    done(&mut api, "disconnect", &json!({"user": "ann", "whitelist": whitelist, "disconnect": disconnect}));
    mine.iter_mut().for_each(|client| assert_eq!(client.raw.expect_close(4005), "elsewhere"));
    first.is_undisturbed();
    last.is_undisturbed();
    let both = json!({"commands": [{"disconnect": {"user": "ann"}}, {"disconnect": {"user": "bob"}}, {"refresh": {}}]});
    let replies = call(&mut api, "batch", &both);
    assert_eq!(replies["replies"][0], json!({"disconnect": {}}));
    assert_eq!(replies["replies"][1], json!({"disconnect": {}}));
    assert_eq!(replies["replies"][2]["error"]["code"], 107, "{replies}");
    first.raw.expect_close(3503);
    last.raw.expect_close(3503);
    others.drain(..4).for_each(|mut client| _ = client.raw.expect_close(3503));
    others.iter_mut().for_each(Client::is_undisturbed);
    for user in [json!({}), json!({"user": ""}), json!({"user": "", "client": others[0].id})] {
        assert_eq!(call(&mut api, "disconnect", &user)["error"]["code"], 107);
    }
    others.iter_mut().for_each(Client::is_undisturbed);
    done(&mut api, "disconnect", &json!({"user": "ann"}));
}

/// Whoever publishes after the answer reaches everybody, and presence knows of them: what was asked has been done.
#[test]
fn the_server_subscribes_its_users_and_unsubscribes_them() {
    let site = Site::start();
    let (mut api, mut clients) = (site.api(), (0..12).map(|_| site.user("ann")).collect::<Vec<_>>());
    let mut other = site.user("bob");
    for round in 0..10 {
        let channel = format!("c{round}");
        call(&mut api, "publish", &json!({"channel": channel, "data": "before"}));
        done(&mut api, "subscribe", &json!({"user": "ann", "channel": channel, "data": {"round": round}}));
        let published = call(&mut api, "publish", &json!({"channel": channel, "data": round}));
        let stats = call(&mut api, "presence_stats", &json!({"channel": channel}));
        assert_eq!(stats["result"], json!({"num_clients": 12, "num_users": 1}));
        for client in &mut clients {
            let pushed = client.hear()["push"].take();
            let at = json!({"recoverable": true, "positioned": true, "epoch": published["result"]["epoch"],
                "offset": 1, "data": {"round": round}});
            assert_eq!(pushed, json!({"channel": channel, "subscribe": at}));
            let pushed = client.hear()["push"].take();
            assert_eq!(pushed, json!({"channel": channel, "pub": {"data": round, "offset": 2}}));
        }
        done(&mut api, "subscribe", &json!({"user": "ann", "channel": channel}));
        done(&mut api, "unsubscribe", &json!({"user": "ann", "client": clients[0].id, "channel": channel}));
        let ended =
            json!({"push": {"channel": channel, "unsubscribe": {"code": 2000, "reason": "server unsubscribe"}}});
        assert_eq!(clients[0].hear(), ended);
        done(&mut api, "unsubscribe", &json!({"user": "ann", "channel": channel}));
        done(&mut api, "unsubscribe", &json!({"user": "ann", "channel": channel}));
        clients[1..].iter_mut().for_each(|client| assert_eq!(client.hear(), ended));
        let stats = call(&mut api, "presence_stats", &json!({"channel": channel}));
        assert_eq!(stats["result"], json!({"num_clients": 0, "num_users": 0}));
        call(&mut api, "publish", &json!({"channel": channel, "data": "after"}));
        clients.iter_mut().for_each(Client::is_undisturbed);
    }
    other.is_undisturbed();
    // From a position on, and into a channel whose owner leaves by itself.
    let epoch = call(&mut api, "history", &json!({"channel": "c0"}))["result"]["epoch"].take();
    let since = json!({"offset": 1, "epoch": epoch});
    let id = clients[0].id.clone();
    let body = json!({"user": "ann", "client": id, "channel": "c0", "recover_since": since, "info": {"seat": 4}});
    done(&mut api, "subscribe", &body);
    let present = call(&mut api, "presence", &json!({"channel": "c0"}));
    let member = json!({"user": "ann", "client": id, "chan_info": {"seat": 4}});
    assert_eq!(present["result"]["presence"], json!({ id.clone(): member }));
    let client = &mut clients[0];
    assert_eq!(client.hear()["push"]["subscribe"]["offset"], 1);
    for (offset, data) in [(2, json!(0)), (3, json!("after"))] {
        assert_eq!(client.hear()["push"]["pub"], json!({"data": data, "offset": offset}));
    }
    assert_eq!(client.ask(&json!({"id": 2, "unsubscribe": {"channel": "c0"}})), json!({"id": 2, "unsubscribe": {}}));
    let own = client.ask(&json!({"id": 3, "subscribe": {"channel": "c0"}}));
    assert!(own["subscribe"].is_object(), "{own}");
    let present = call(&mut api, "presence", &json!({"channel": "c0"}));
    assert_eq!(present["result"]["presence"], json!({ id.clone(): {"user": "ann", "client": id} }));
    done(&mut api, "unsubscribe", &json!({"user": "ann", "channel": "c0"}));
    assert_eq!(client.hear()["push"]["unsubscribe"]["code"], 2000, "its own too");
    for channel in ["", "with space"] {
        for method in ["subscribe", "unsubscribe"] {
            let refused = call(&mut api, method, &json!({"user": "ann", "channel": channel}));
            assert_eq!(refused["error"]["code"], 107, "{refused}");
        }
    }
}

/// Where they are told of who comes, too: of themselves as well.
#[test]
fn whom_the_server_subscribes_hears_of_its_own_coming_and_of_what_is_published_then() {
    let site = Site::start();
    let (mut api, mut clients) = (site.api(), (0..8).map(|_| site.user("ann")).collect::<Vec<_>>());
    for round in 0..20 {
        let channel = format!("j{round}");
        let told = json!({"force_push_join_leave": {"value": true}});
        done(&mut api, "subscribe", &json!({"user": "ann", "channel": channel, "override": told}));
        let published = call(&mut api, "publish", &json!({"channel": channel, "data": round}));
        assert_eq!(published["result"]["offset"], 1);
        for client in &mut clients {
            let begun = client.hear()["push"].take();
            assert!(begun["channel"] == channel && begun["subscribe"].is_object(), "{begun}");
            let (mut is_published, mut joined) = (false, Vec::new());
            while !is_published || !joined.contains(&json!(client.id)) {
                let push = client.hear()["push"].take();
                assert_eq!(push["channel"], channel, "{push}");
                match push["join"]["info"]["client"].clone() {
                    Value::Null => is_published |= push["pub"]["offset"] == 1,
                    id => joined.push(id),
                }
            }
        }
        done(&mut api, "unsubscribe", &json!({"user": "ann", "channel": channel}));
        for client in &mut clients {
            while client.hear()["push"]["unsubscribe"].is_null() {}
        }
    }
}

#[test]
fn the_server_says_until_when_a_user_may_stay() {
    let site = Site::start();
    let (mut api, mut client, mut other) = (site.api(), site.user("ann"), site.user("bob"));
    done(&mut api, "refresh", &json!({"user": "ann", "expire_at": now() + 100, "info": {"vip": true}}));
    let pushed = client.hear()["push"]["refresh"].take();
    assert!(pushed["expires"] == true && (98..=101).contains(&pushed["ttl"].as_u64().unwrap_or(0)), "{pushed}");
    client.ask(&json!({"id": 2, "subscribe": {"channel": "a"}}));
    let present = call(&mut api, "presence", &json!({"channel": "a"}))["result"]["presence"].take();
    assert_eq!(present[&client.id], json!({"user": "ann", "client": client.id, "conn_info": {"vip": true}}));
    done(&mut api, "refresh", &json!({"user": "ann"}));
    assert_eq!(client.hear(), json!({"push": {"refresh": {}}}));
    done(&mut api, "refresh", &json!({"user": "ann", "expired": true}));
    client.raw.expect_close(3005);
    other.is_undisturbed();
}

/// Thousands of sessions are worked off in slices: whoever else is there is answered meanwhile.
#[test]
fn a_user_with_very_many_sessions_holds_nobody_up() {
    const SESSIONS: usize = 1_500;
    let site = Site::start();
    let (mut api, mut other) = (site.api(), site.user("bob"));
    let mut clients: Vec<_> = (0..SESSIONS).map(|_| site.user("ann")).collect();
    done(&mut api, "subscribe", &json!({"user": "ann", "channel": "all"}));
    done(&mut api, "unsubscribe", &json!({"user": "ann", "channel": "all"}));
    let body = json!({"user": "ann"}).to_string();
    api.send(format!(
        "POST /api/disconnect HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    let began = Instant::now();
    other.is_undisturbed();
    assert!(began.elapsed() < millis(2000), "{:?}", began.elapsed());
    assert_eq!(api.answer().body, b"{\"result\":{}}\n");
    for client in &mut clients {
        assert_eq!(client.hear()["push"]["subscribe"]["recoverable"], true);
        assert_eq!(client.hear()["push"]["unsubscribe"]["code"], 2000);
        client.raw.expect_close(3503);
    }
    drop(clients);
    eventually("all but one are gone", PATIENCE, || site.handle.connections() == 1);
    // Nothing of them is left to be found.
    done(&mut api, "disconnect", &json!({"user": "ann"}));
    let channels = call(&mut api, "channels", &json!({}));
    assert_eq!(channels["result"]["channels"], json!({}));
}

#[test]
fn the_application_answers_calls_at_once_or_later() {
    let (site, told) = Site::told();
    let mut client = site.user("ann");
    for data in [json!({"a": [1, "x\n"]}), json!("text"), json!(null)] {
        assert_eq!(client.rpc("echo", &data), json!({"id": 7, "rpc": {"data": data}}));
    }
    assert_eq!(client.rpc("whoami", &json!(1)), json!({"id": 7, "rpc": {"data": format!("ann {}", client.id)}}));
    let error = |code: u64, message: &str| json!({"id": 7, "error": {"code": code, "message": message}});
    assert_eq!(client.rpc("refuse", &json!(1)), error(400, "not today"));
    assert_eq!(client.rpc("unknown", &json!(1)), error(104, "method not found"));
    assert_eq!(client.rpc("wrong", &json!(1))["error"]["code"], 100);
    client.say(&json!({"id": 8, "rpc": {"method": "later"}}));
    client.is_undisturbed();
    let Ok(Told::Later(token)) = told.recv_timeout(PATIENCE) else { panic!("it was asked") };
    site.handle.answer_rpc(token, Ok("at last".into())).expect("it is there");
    assert_eq!(client.hear(), json!({"id": 8, "rpc": {"data": "at last"}}));
    site.handle.answer_rpc(token, Err(RpcError::new(1999, "no"))).expect("it is there");
    assert_eq!(client.hear()["error"], json!({"code": 1999, "message": "no"}));
    client.say(&json!({"id": 9, "rpc": {"method": "panic"}}));
    client.raw.expect_close(1011);
    drop(client);
    eventually("it is gone", PATIENCE, || site.handle.answer_rpc(token, Ok("too late".into())) == Err(Gone));
}

#[test]
fn the_application_hears_what_is_sent_and_says_something_back() {
    let (site, told) = Site::told();
    let mut client = site.connect("", &json!({}));
    client.say(&json!({"send": {"data": {"n": 1}}}));
    let Ok(Told::Sent(id, user, data)) = told.recv_timeout(PATIENCE) else { panic!("it was told") };
    assert_eq!((&*user, &data[..]), ("", &br#"{"n":1}"#[..]));
    for (said, heard) in [
        (Publication::json("{\"n\":\n2}").expect("JSON"), json!({"n": 2})),
        (Publication::from("text"), json!("text")),
        (Publication::from(vec![0xFF]), json!({"base64": "/w=="})),
    ] {
        site.handle.say(id, said).expect("it is there");
        assert_eq!(client.hear(), json!({"push": {"message": {"data": heard}}}));
    }
}

/// Bytes of the schema: the field numbers and lengths of `client.proto`, by hand.
#[test]
fn with_protobuf_bytes_go_in_and_out_as_they_are() {
    let (site, told) = Site::told();
    let mut client = site.connect("?format=protobuf", &json!(null));
    let mut ask = |command: &[u8]| {
        let delimited = [&[u8::try_from(command.len()).expect("it is short")], command].concat();
        client.raw.send(frame(BINARY, delimited).bytes());
        client.raw.frame().payload
    };
    let connected = ask(&[0x08, 1, 0x22, 0]);
    assert_eq!(connected[1..4], [0x08, 1, 0x2A], "id 1, a ConnectResult");
    // rpc = 13 { data = 1: ff 00, method = 2: "echo" }
    let rpc = [&[0x08, 2, 0x6A, 10, 0x0A, 2, 0xFF, 0x00, 0x12, 4][..], b"echo"].concat();
    assert_eq!(ask(&rpc), [8, 0x08, 2, 0x6A, 4, 0x0A, 2, 0xFF, 0x00]);
    // send = 12 { data = 1: ff }, which has no reply.
    client.raw.send(frame(BINARY, [5, 0x62, 3, 0x0A, 1, 0xFF]).bytes());
    let Ok(Told::Sent(id, _, data)) = told.recv_timeout(PATIENCE) else { panic!("it was told") };
    assert_eq!(data, [0xFF]);
    site.handle.say(id, vec![1, 2]).expect("it is there");
    // push = 4 { message = 8 { data = 1: 01 02 } }
    assert_eq!(client.raw.frame().payload, [8, 0x22, 6, 0x42, 4, 0x0A, 2, 1, 2]);
}
