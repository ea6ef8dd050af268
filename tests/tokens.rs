//! Clients of Centrifugo's protocol with tokens, over real sockets.
#![cfg(feature = "centrifugo")]

#[path = "support/site.rs"]
mod site;
mod support;

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use site::{Nothing, Site};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use support::*;
use throng::{Centrifugo, Publisher, Server, TokenKeys, TopicName};

impl Site {
    fn start() -> Self {
        let server = Server::new().workers(4).history(10_000, 1 << 20, Duration::from_secs(60)).client_publish(true);
        Self::run(server, || {
            let keys = TokenKeys::new(b"secret").audience("throng");
            Centrifugo::new(Nothing).tokens(keys).subscription_tokens(TokenKeys::new(b"other"))
        })
    }

    fn publisher(&self) -> Publisher {
        self.handle.publisher()
    }

    fn client(&self) -> Client {
        let mut raw = Raw::connect(self.address);
        raw.send(upgrade().line("GET /connection/websocket HTTP/1.1").bytes());
        assert_eq!(raw.head().status, 101);
        Client { raw, heard: Vec::new() }
    }

    fn connected(&self, claims: &Value) -> (Client, Value) {
        let mut client = self.client();
        let reply = client.connect(claims);
        (client, reply["connect"].clone())
    }
}

struct Client {
    raw: Raw,
    /// Messages of the last frame, last first.
    heard: Vec<Value>,
}

impl Client {
    fn say(&mut self, command: &Value) {
        self.raw.send(text(command.to_string()).bytes());
    }

    fn hear(&mut self) -> Value {
        while self.heard.is_empty() {
            let frame = String::from_utf8(self.raw.frame().payload).expect("text");
            self.heard = frame.lines().rev().map(|line| serde_json::from_str(line).expect(line)).collect();
        }
        self.heard.pop().expect("a message")
    }

    fn ask(&mut self, command: &Value) -> Value {
        self.say(command);
        self.hear()
    }

    fn connect(&mut self, claims: &Value) -> Value {
        self.ask(&json!({"id": 1, "connect": {"token": token(claims)}}))
    }
}

fn signed(secret: &str, claims: &Value) -> String {
    jsonwebtoken::encode(&Header::default(), claims, &EncodingKey::from_secret(secret.as_bytes())).expect("a token")
}

fn token(claims: &Value) -> String {
    let mut claims = claims.clone();
    claims["aud"] = "throng".into();
    signed("secret", &claims)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

#[test]
fn who_has_no_valid_token_does_not_come_in() {
    let site = Site::start();
    for (connect, code) in [
        (json!({}), 3501),
        (json!({"token": "nonsense"}), 3500),
        (json!({"token": signed("secret", &json!({"sub": "42"}))}), 3500), // for nobody
        (json!({"token": signed("other", &json!({"sub": "42", "aud": "throng"}))}), 3500),
    ] {
        let mut client = site.client();
        client.say(&json!({"id": 1, "connect": connect}));
        client.raw.expect_close(code);
    }
    let mut client = site.client();
    let reply = client.connect(&json!({"sub": "42", "exp": now() - 10}));
    assert_eq!(reply["error"]["code"], 109, "{reply}");
}

#[test]
fn a_client_is_who_its_token_says_until_its_time_is_over() {
    let site = Site::start();
    let (mut client, connected) =
        site.connected(&json!({"sub": "42", "exp": now() + 60, "info": {"name": "A"}, "channels": ["news"]}));
    assert_eq!(connected["expires"], true);
    let ttl = connected["ttl"].as_u64().expect("a number");
    assert!((58..=61).contains(&ttl), "{ttl}");
    assert_eq!(connected["subs"]["news"]["recoverable"], true, "{connected}");

    let refreshed =
        client.ask(&json!({"id": 2, "refresh": {"token": token(&json!({"sub": "42", "exp": now() + 600}))}}));
    assert_eq!(refreshed["refresh"]["client"], connected["client"]);
    assert!(refreshed["refresh"]["ttl"].as_u64().expect("a number") > 590, "{refreshed}");

    client.say(&json!({"id": 3, "publish": {"channel": "news", "data": 1}}));
    let heard = [client.hear(), client.hear()];
    let pushed = heard.iter().find(|message| !message["push"].is_null()).expect("a push");
    let expected = json!({"user": "42", "client": connected["client"], "conn_info": {"name": "A"}});
    assert_eq!(pushed["push"]["pub"]["info"], expected, "{pushed}");

    assert_eq!(client.ask(&json!({"id": 4, "subscribe": {"channel": "$mine"}}))["error"]["code"], 103);
    let mine = signed("other", &json!({"sub": "42", "channel": "$mine", "exp": now() + 60}));
    let subscribed = client.ask(&json!({"id": 5, "subscribe": {"channel": "$mine", "token": mine}}));
    assert_eq!(subscribed["subscribe"]["expires"], true, "{subscribed}");
    let other = token(&json!({"sub": "43"}));
    client.say(&json!({"id": 6, "refresh": {"token": other}}));
    client.raw.expect_close(3500);
}

/// Ends the publishing, also when the test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Publications must neither come before the reply that names their channel, nor be missing after it, nor come twice.
#[test]
fn what_the_server_subscribes_to_misses_nothing_and_hears_nothing_too_soon() {
    const CHANNELS: usize = 12;
    const CLIENTS: usize = 20;
    let site = Site::start();
    let names: Vec<_> = (0..CHANNELS).map(|n| format!("c{n}")).collect();
    let (publisher, over) = (site.publisher(), AtomicBool::new(false));
    let over = &over;
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Relaxed) {
                for name in &names {
                    publisher.publish(&TopicName::new(name).expect("a name"), "x");
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
        let _over = Over(over);
        for round in 0..CLIENTS {
            let mut client = site.client();
            // Half of them come back, to what is kept from the start.
            let recovers = round % 2 == 1;
            let subs = |name: &String| (name.clone(), json!({"recover": true, "offset": 0}));
            let positions: serde_json::Map<_, _> = names.iter().filter(|_| recovers).map(subs).collect();
            let token = token(&json!({"sub": "42", "channels": names}));
            let connected = client.ask(&json!({"id": 1, "connect": {"token": token, "subs": positions}}));
            let number = |value: &Value| value.as_u64().unwrap_or(0);
            let mut seen: Vec<u64> = Vec::new();
            for name in &names {
                let sub = &connected["connect"]["subs"][name];
                assert_eq!(sub["recoverable"], true, "{connected}");
                let publications = sub["publications"].as_array().cloned().unwrap_or_default();
                let first = number(&sub["offset"]);
                for (publication, offset) in publications.iter().zip(first + 1..) {
                    assert_eq!(number(&publication["offset"]), offset, "{name}");
                }
                seen.push(first + publications.len() as u64);
            }
            for _ in 0..CHANNELS * 20 {
                let push = client.hear()["push"].clone();
                let Some(at) = names.iter().position(|name| push["channel"] == **name) else { continue };
                assert_eq!(number(&push["pub"]["offset"]), seen[at] + 1, "{}, recovers: {recovers}", names[at]);
                seen[at] += 1;
            }
        }
    });
}
