//! Who asks, and the ways there are to ask.

use crate::support::*;
use crate::token;
use serde_json::{Value, json};

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Who {
    Anonymous,
    User(&'static str),
    Application,
}
pub(crate) use Who::{Anonymous, Application, User};

impl Who {
    pub(crate) fn signs(self, head: Head) -> Head {
        match self {
            Anonymous => head,
            User(user) => head.with(format!("Authorization: Bearer {}", token("secret", &json!({"sub": user})))),
            Application => head.with("X-API-Key: the key"),
        }
    }
}

/// What is asked of a topic's URL.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    WebSocket(&'static str),
    Events(&'static str),
    Get(&'static str),
    Head,
    Post,
    Presence,
}

/// All of them: first those that give what comes, then those that give what is kept, too.
pub(crate) const WAYS: [Way; 11] = [
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
    pub(crate) fn head(self, topic: &str) -> Head {
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
    pub(crate) fn ask(self, server: &Throng, topic: &str, who: Who) -> (Raw, Response) {
        let mut peer = server.connect();
        peer.send(who.signs(self.head(topic)).bytes());
        let answer = peer.head();
        (peer, answer)
    }

    pub(crate) fn status(self, server: &Throng, topic: &str, who: Who) -> u16 {
        self.ask(server, topic, who).1.status
    }
}

/// The body of an answer that has one.
pub(crate) fn get(server: &Throng, target: &str, who: Who) -> Response {
    let mut peer = server.connect();
    peer.send(who.signs(plain(target)).bytes());
    peer.answer()
}

pub(crate) fn post(server: &Throng, topic: &str, body: &str) -> String {
    let mut peer = server.connect();
    let head = plain("").line(format!("POST /topics/{topic} HTTP/1.1")).with("X-API-Key: the key");
    peer.send([head.with(format!("Content-Length: {}", body.len())).bytes(), body.into()].concat());
    let answer = peer.answer();
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.field("Throng-Cursor").unwrap().to_owned()
}

/// A client of Centrifugo's protocol that has connected.
pub(crate) struct Client {
    pub(crate) raw: Raw,
    pub(crate) connected: Value,
    commands: u64,
    /// Pushes that came before a reply.
    pushes: Vec<Value>,
}

impl Client {
    #[track_caller]
    pub(crate) fn connect(server: &Throng, who: Who) -> Self {
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
    pub(crate) fn ask(&mut self, method: &str, params: &Value) -> Value {
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
    pub(crate) fn code(&mut self, method: &str, channel: &str) -> u64 {
        let data =
            if method == "publish" { json!({"channel": channel, "data": 1}) } else { json!({"channel": channel}) };
        self.ask(method, &data)["error"]["code"].as_u64().unwrap_or(0)
    }

    #[track_caller]
    pub(crate) fn subscribe(&mut self, params: &Value) -> Value {
        let mut reply = self.ask("subscribe", params);
        assert!(reply["subscribe"].is_object(), "{reply}");
        reply["subscribe"].take()
    }

    #[track_caller]
    pub(crate) fn push(&mut self) -> Value {
        if self.pushes.is_empty() {
            let frame = String::from_utf8(self.raw.frame().payload).unwrap();
            self.pushes.extend(frame.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["push"].take()));
        }
        self.pushes.remove(0)
    }
}

/// A method of the server API.
#[track_caller]
pub(crate) fn api(server: &Throng, method: &str, body: &Value) -> Value {
    let (mut peer, body) = (server.connect(), body.to_string());
    let head = plain("").line(format!("POST /api/{method} HTTP/1.1")).with("X-API-Key: the key");
    peer.send([head.with(format!("Content-Length: {}", body.len())).bytes(), body.into()].concat());
    let answer = peer.answer();
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_slice(&answer.body).unwrap()
}
