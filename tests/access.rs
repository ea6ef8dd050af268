//! Who may come in, and how: tokens in every form, cookies, names of the server, rights beyond the rules.
#![cfg(feature = "cli")] // There is no binary without it.

mod support;

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use spki::der::Document;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use support::*;

const P256: [&str; 2] = [include_str!("keys/p256.pem"), include_str!("keys/p256.pub.pem")];
const RSA: [&str; 2] = [include_str!("keys/rsa.pem"), include_str!("keys/rsa.pub.pem")];
const ED25519: [&str; 2] = [include_str!("keys/ed25519.pem"), include_str!("keys/ed25519.pub.pem")];

/// Users may subscribe to `users:`, nobody to `closed:`; everything is kept.
const RULES: &str = r#"
[[channel.namespaces]]
name = "users"
history_size = 10
history_ttl = "60s"
allow_subscribe_for_client = true
allow_history_for_client = true
allow_publish_for_client = true
[[channel.namespaces]]
name = "closed"
history_size = 10
history_ttl = "60s"
"#;

const HMAC: &str = "[client.token]\nhmac_secret_key = \"secret\"\n";

/// A configuration file of one test's own.
fn file(name: &str, text: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("access-{name}.toml"));
    fs::write(&path, text).unwrap();
    path
}

#[track_caller]
fn start(name: &str, text: &str) -> Throng {
    Throng::start(&format!("--config {}", file(name, text).display()))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn key(algorithm: Algorithm) -> EncodingKey {
    let _ = jsonwebtoken::crypto::rust_crypto::DEFAULT_PROVIDER.install_default();
    let der = |pem: &str| Document::from_pem(pem).unwrap().1.into_vec();
    match algorithm {
        Algorithm::RS256 => EncodingKey::from_rsa_der(&der(RSA[0])),
        Algorithm::ES256 => EncodingKey::from_ec_der(&der(P256[0])),
        Algorithm::EdDSA => EncodingKey::from_ed_der(&der(ED25519[0])),
        _ => EncodingKey::from_secret(b"secret"),
    }
}

fn signed(algorithm: Algorithm, kid: Option<&str>, claims: &Value) -> String {
    let header = Header { kid: kid.map(ToOwned::to_owned), ..Header::new(algorithm) };
    jsonwebtoken::encode(&header, claims, &key(algorithm)).unwrap()
}

fn token(claims: &Value) -> String {
    signed(Algorithm::HS256, None, claims)
}

fn user() -> String {
    token(&json!({"sub": "42", "exp": now() + 600}))
}

/// A poll of a topic for users.
fn poll() -> support::Head {
    plain("/topics/users:a").with("Connection: close")
}

fn websocket(target: &str) -> support::Head {
    upgrade().line(format!("GET {target} HTTP/1.1"))
}

#[track_caller]
fn ask(server: &Throng, head: support::Head) -> Response {
    let mut peer = server.connect();
    peer.send(Vec::from(head));
    peer.answer()
}

/// The status, and the word of the reason.
#[track_caller]
fn refusal(server: &Throng, head: support::Head) -> (u16, String) {
    let response = ask(server, head);
    let word = if response.status >= 400 { response.problem()["code"].clone() } else { String::new() };
    (response.status, word)
}

#[test]
fn each_fault_of_a_token_is_said() {
    let text = format!("{HMAC}audience = \"throng\"\nissuer = \"joe\"\n{RULES}");
    let server = start("faults", &text);
    let good = json!({"sub": "42", "aud": "throng", "iss": "joe", "exp": now() + 60});
    let but = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        token(&claims)
    };
    let bearer = |token: &str| poll().with(format!("Authorization: Bearer {token}"));
    assert_eq!(ask(&server, bearer(&token(&good))).status, 200);
    let other = jsonwebtoken::encode(&Header::default(), &good, &EncodingKey::from_secret(b"other")).unwrap();
    let unsigned = token(&good).rsplit_once('.').map(|(message, _)| format!("{message}.")).unwrap();
    for (token, said) in [
        (but("exp", json!(now() - 1)), "(exp, nbf)"),
        (but("nbf", json!(now() + 60)), "(exp, nbf)"),
        (but("expire_at", json!(now() - 1)), "(expire_at)"),
        (but("aud", json!("other")), "(aud)"),
        (but("iss", json!("moe")), "(iss)"),
        (but("sub", json!(42)), "a claim"),
        (other, "not signed with a key that is configured"),
        (unsigned, "not signed with a key that is configured"),
        (signed(Algorithm::ES256, None, &good), "algorithm (alg)"),
        (signed(Algorithm::RS256, Some("1"), &good), "algorithm (alg)"),
        ("eyJhbGciOiJub25lIn0.e30.".to_owned(), "algorithm (alg)"),
        ("nonsense".to_owned(), "three parts"),
        ("a.b".to_owned(), "three parts"),
        (String::new(), "three parts"),
    ] {
        let response = ask(&server, bearer(&token));
        assert_eq!((response.status, response.field("WWW-Authenticate")), (401, Some("Bearer")), "{token}");
        let problem = response.problem();
        assert!(problem["code"] == "token" && problem["detail"].contains(said), "{said}: {problem:?}");
    }
    let log = server.log().join("\n");
    assert!(log.contains("status=401 reason=token") && !log.contains("eyJ"), "{log}");
}

#[test]
fn public_keys_of_every_kind_let_their_tokens_in_and_are_no_secrets() {
    let keys = format!(
        "[client.token]\nrsa_public_key = \"\"\"{}\"\"\"\necdsa_public_key = \"\"\"{}\"\"\"\n[throng]\ntoken_ed25519_public_key = \"\"\"{}\"\"\"\n{RULES}",
        RSA[1], P256[1], ED25519[1]
    );
    let server = start("public", &keys);
    let bearer = |token: &str| poll().with(format!("Authorization: Bearer {token}"));
    let claims = json!({"sub": "42"});
    for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA] {
        assert_eq!(ask(&server, bearer(&signed(algorithm, None, &claims))).status, 200, "{algorithm:?}");
    }
    for secret in [RSA[1], P256[1], ED25519[1]] {
        let forged = jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(secret.as_bytes()));
        assert_eq!(refusal(&server, bearer(&forged.unwrap())), (401, "token".to_owned()));
    }
}

#[test]
fn keys_that_cannot_be_keep_the_server_from_starting() {
    for (text, said) in [
        (format!("[client.token]\nrsa_public_key = \"\"\"{}\"\"\"", P256[1]), "client.token.rsa_public_key"),
        ("[client.token]\necdsa_public_key = \"x\"".to_owned(), "client.token.ecdsa_public_key"),
        ("[client.token]\njwks_public_endpoint = \"ftp://x\"".to_owned(), "client.token.jwks_public_endpoint"),
        ("[client.token]\njwks_public_endpoint = \"https://{{tenant}}/x\"".to_owned(), "{{...}}"),
        ("[throng]\ntoken_jwks_file = \"/nowhere.json\"".to_owned(), "throng.token_jwks_file"),
        ("[throng]\ntoken_cookie = \"a b\"".to_owned(), "throng.token_cookie"),
        ("[throng]\ntoken_cookie = \"token\"".to_owned(), "no key to check"),
        ("[client.token]\nhmac_previous_secret_key = \"old\"".to_owned(), "client.token.hmac_previous_secret_key"),
        (format!("{HMAC}[client]\nallowed_origins = [\"*\"]\n[throng]\ntoken_cookie = \"token\""), "name the origins"),
    ] {
        let path = file("wrong", &text);
        let (code, stderr) = run_to_end(&format!("serve --config {}", path.display()));
        assert!(code == Some(1) && stderr.contains(said) && stderr.contains("access-wrong.toml:"), "{stderr}");
    }
}

#[test]
fn a_websocket_brings_its_token_as_a_subprotocol_that_is_not_said_again() {
    let server = start("subprotocol", &format!("{HMAC}{RULES}"));
    let offer = |list: &str| websocket("/topics/users:a").with(format!("Sec-WebSocket-Protocol: {list}"));
    let token = user();
    for list in [format!("throng, bearer.{token}"), format!("bearer.{token},other , throng")] {
        let response = ask_upgrade(&server, offer(&list));
        assert_eq!((response.status, response.field("Sec-WebSocket-Protocol")), (101, Some("throng")), "{response:?}");
    }
    assert_eq!(refusal(&server, offer(&format!("bearer.{token}"))), (400, "bearer_alone".to_owned()));
    assert_eq!(refusal(&server, offer("throng, bearer.nonsense")), (401, "token".to_owned()));
    assert_eq!(refusal(&server, offer("throng")), (403, "forbidden".to_owned()), "anonymous");
    assert_eq!(refusal(&server, offer("other")), (403, "forbidden".to_owned()));
}

/// The answer to an upgrade, which has a body only if it is a refusal.
#[track_caller]
fn ask_upgrade(server: &Throng, head: support::Head) -> Response {
    let mut peer = server.connect();
    peer.send(Vec::from(head));
    peer.head()
}

#[test]
fn tokens_that_disagree_are_refused_and_those_that_agree_are_one() {
    let server = start("disagree", &format!("{HMAC}{RULES}\n[throng]\ntoken_cookie = \"sid\"\n"));
    let (one, two) = (user(), token(&json!({"sub": "43"})));
    let differ = (400, "tokens_differ".to_owned());
    let header = |token: &str| poll().with(format!("Authorization: Bearer {token}"));
    assert_eq!(refusal(&server, header(&one).with(format!("Authorization: Bearer {two}"))), differ);
    assert_eq!(refusal(&server, header(&one).with(format!("Cookie: sid={two}"))), differ);
    assert_eq!(ask(&server, header(&one).with(format!("Cookie: a=b; sid={one}; c"))).status, 200);
    let upgrade = websocket("/topics/users:a").with(format!("Sec-WebSocket-Protocol: throng, bearer.{one}"));
    assert_eq!(refusal(&server, upgrade.clone().with(format!("Authorization: Bearer {two}"))), differ);
    assert_eq!(refusal(&server, upgrade.clone().with(format!("Cookie: sid={two}"))), differ);
    assert_eq!(ask_upgrade(&server, upgrade.with(format!("Cookie: sid=\"{one}\""))).status, 101, "told by the offer");
    let unreadable = [&b"Authorization: Bearer \xFF"[..]].concat();
    assert_eq!(refusal(&server, poll().with(unreadable)), (400, "header_unreadable".to_owned()));
}

#[test]
fn a_cookie_counts_where_the_request_says_whose_it_is() {
    let origins = "[client]\nallowed_origins = [\"https://app.example\"]\n";
    let server = start("cookie", &format!("{HMAC}{origins}{RULES}\n[throng]\ntoken_cookie = \"sid\"\n"));
    let cookie = |head: support::Head| head.with(format!("Cookie: a=1; sid={}", user()));
    let post = || plain("/topics/users:a").line("POST /topics/users:a HTTP/1.1").with("Content-Length: 0");
    let forgeable = (403, "cookie_origin".to_owned());
    let foreign = (403, "origin_forbidden".to_owned());
    let (own, allowed, other) =
        ("Origin: http://localhost", "Origin: https://app.example", "Origin: https://evil.example");
    for (head, expected) in [
        (poll(), Ok(200)),
        (poll().with("Sec-Fetch-Site: same-origin"), Ok(200)),
        (poll().with("Sec-Fetch-Site: none"), Ok(200)),
        (poll().with("Sec-Fetch-Site: cross-site"), Err(&forgeable)),
        (poll().with("Sec-Fetch-Site: cross-site").with(allowed), Ok(200)),
        (poll().with("Sec-Fetch-Site: cross-site").with(other), Err(&foreign)),
        (post(), Err(&forgeable)),
        (post().with("Sec-Fetch-Site: same-origin"), Err(&forgeable)),
        (post().with(own), Ok(200)),
        (post().with(allowed), Ok(200)),
        (post().with(other), Err(&foreign)),
        (post().with("Origin: null"), Err(&foreign)),
        (websocket("/topics/users:a"), Err(&forgeable)),
        (websocket("/topics/users:a").with(other), Err(&foreign)),
    ] {
        let said = String::from_utf8_lossy(&head.bytes()).into_owned();
        match expected {
            Ok(status) => assert_eq!(ask(&server, cookie(head)).status, status, "{said}"),
            Err(reason) => assert_eq!(refusal(&server, cookie(head)), *reason, "{said}"),
        }
    }
    for origin in [own, allowed] {
        assert_eq!(ask_upgrade(&server, cookie(websocket("/topics/users:a").with(origin))).status, 101, "{origin}");
    }
    // Whoever sets the header is no stranger's page, and a cookie of another name is nobody's token.
    let bearer = post().with(format!("Authorization: Bearer {}", user()));
    assert_eq!(ask(&server, bearer).status, 200);
    assert_eq!(refusal(&server, poll().with("Cookie: sid=; other=x")), (403, "forbidden".to_owned()), "anonymous");
}

#[test]
fn without_the_setting_no_cookie_is_looked_at() {
    let server = start("no-cookie", &format!("{HMAC}{RULES}"));
    let cookied = poll().with(format!("Cookie: sid={0}; token={0}", user()));
    assert_eq!(refusal(&server, cookied), (403, "forbidden".to_owned()), "anonymous");
}

#[test]
fn a_token_in_a_url_is_refused_and_not_logged() {
    let server = start("url", &format!("{HMAC}{RULES}[log]\nlevel = \"debug\"\n"));
    let token = user();
    for name in ["token", "access_token", "jwt", "bearer", "auth", "whatever"] {
        let refused = (400, "token_in_url".to_owned());
        for path in ["/topics/users:a", "/topics/users:a/presence"] {
            assert_eq!(refusal(&server, plain(&format!("{path}?since=latest&{name}={token}"))), refused, "{name}");
        }
        let encoded = token.replace('e', "%65");
        assert_eq!(refusal(&server, plain(&format!("/topics/users:a?{name}=Bearer%20{encoded}"))), refused, "{name}");
        for path in ["/topics/users:a", "/connection/websocket"] {
            assert_eq!(refusal(&server, websocket(&format!("{path}?{name}={token}"))), refused, "{name}");
        }
    }
    // What only looks a little like one is a parameter that nobody knows.
    assert_eq!(refusal(&server, plain("/topics/users:a?v=1.2.3&x=eyJ")), (403, "forbidden".to_owned()));
    let connect = format!("{{\"id\":1,\"connect\":{{\"token\":\"{token}\"}}}}");
    let connect: String = connect.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let mut session = server.connect();
    session.send(plain(&format!("/connection/sse?cf_connect={connect}")).bytes());
    assert_eq!(session.head().status, 200, "the SDK has no other way");
    assert!(String::from_utf8(session.chunk()).is_ok());
    let log = server.log().join("\n");
    assert!(log.contains("token_in_url") && !log.contains("eyJ") && !log.contains(&token[..20]), "{log}");
}

#[test]
fn what_a_token_opened_ends_with_its_time() {
    let server = start("expiry", &format!("{HMAC}{RULES}"));
    let mut publisher = server.connect();
    let publish = plain("/topics/users:a").line("POST /topics/users:a HTTP/1.1");
    publisher.send(publish.with(format!("Authorization: Bearer {}", user())).with("Content-Length: 1").bytes());
    publisher.send("x");
    let cursor = publisher.answer().field("Throng-Cursor").unwrap().to_owned();

    let bearer = format!("Authorization: Bearer {}", token(&json!({"sub": "42", "exp": now() + 2})));
    let forever = format!("Authorization: Bearer {}", token(&json!({"sub": "42"})));
    let begun = Instant::now();
    let open = |line: &str| {
        let mut peer = server.connect();
        peer.send(websocket("/topics/users:a").with(line).bytes());
        assert_eq!(peer.head().status, 101);
        peer
    };
    let (mut socket, mut lasting) = (open(&bearer), open(&forever));
    let mut events = server.connect();
    events.send(plain("/topics/users:a").with("Accept: text/event-stream").with(&bearer).bytes());
    assert_eq!(events.head().status, 200);
    let mut waiting = server.connect();
    waiting.send(plain("/topics/users:a?wait=30").with(&bearer).bytes());

    let closed = socket.frame();
    assert_eq!(closed.opcode, CLOSE);
    let reason = String::from_utf8(closed.payload[2..].to_vec()).unwrap();
    assert_eq!(u16::from_be_bytes([closed.payload[0], closed.payload[1]]), 3005);
    assert_eq!(reason, format!("token expired: resume at {cursor} with another"));
    assert!(String::from_utf8(events.rest()).unwrap().contains(&format!("id: {cursor}")), "and then it ends");
    let answer = waiting.answer();
    assert_eq!((answer.status, answer.field("Throng-Cursor")), (204, Some(&*cursor)));
    assert!(begun.elapsed() >= millis(900), "not before its time: {:?}", begun.elapsed());
    assert_eq!(refusal(&server, poll().with(&bearer)), (401, "token".to_owned()));

    // From there on with another token, and whoever has one for ever is still there.
    let again = websocket(&format!("/topics/users:a?since={cursor}")).with(&forever);
    assert_eq!(ask_upgrade(&server, again).status, 101);
    lasting.send(text("y").bytes());
    assert_eq!(lasting.frame().payload, b"y");
    assert!(server.get("/metrics").contains("expired"));
}

#[test]
fn caps_give_rights_beyond_the_rules() {
    let server = start("caps", &format!("{HMAC}{RULES}"));
    let caps = json!([
        {"channels": ["closed:a*"], "match": "wildcard", "allow": ["sub"]},
        {"channels": ["^closed:b[0-9]$"], "match": "regex", "allow": ["sub", "hst", "pub"]},
        {"channels": ["$closed:x", "nowhere:x"], "allow": ["sub", "pub", "hst", "prs"]}
    ]);
    let bearer = format!("Authorization: Bearer {}", token(&json!({"sub": "42", "caps": caps})));
    let plainly = format!("Authorization: Bearer {}", user());
    let get = |name: &str| plain(&format!("/topics/{name}")).with("Connection: close");
    let post = |name: &str| get(name).line(format!("POST /topics/{name} HTTP/1.1")).with("Content-Length: 0");
    let socket = |name: &str| websocket(&format!("/topics/{name}"));
    let status = |head: support::Head| ask_upgrade(&server, head.with(&bearer)).status;
    for (name, [subscribe, history, publish]) in [
        ("closed:a1", [101, 403, 403]),
        ("closed:b1", [101, 200, 200]),
        ("closed:b12", [403, 403, 403]),
        ("closed:c", [403, 403, 403]),
        ("users:a", [101, 200, 200]),
        ("%24closed:x", [403, 403, 200]), // to publish takes no subscription
        ("nowhere:x", [404, 404, 404]),
    ] {
        let is = [status(socket(name)), status(get(name)), status(post(name))];
        assert_eq!(is, [subscribe, history, publish], "{name}");
    }
    assert_eq!(ask_upgrade(&server, socket("closed:b1").with(&plainly)).status, 403, "without them");
    let mut writer = server.connect();
    writer.send(socket("closed:b1").with(&bearer).bytes());
    assert_eq!(writer.head().status, 101);
    writer.send(text("by a cap").bytes());
    assert_eq!(writer.frame().payload, b"by a cap");
}

/// A session of Centrifugo's protocol.
#[derive(Debug)]
struct Session(Raw);

impl Session {
    #[track_caller]
    fn connect(server: &Throng, claims: &Value) -> Self {
        let mut raw = server.connect();
        raw.send(websocket("/connection/websocket").bytes());
        assert_eq!(raw.head().status, 101);
        let mut session = Self(raw);
        let reply = session.ask(&json!({"id": 1, "connect": {"token": token(claims)}}));
        assert!(reply["connect"].is_object(), "{reply}");
        session
    }

    #[track_caller]
    fn hear(&mut self) -> Value {
        serde_json::from_slice(&self.0.frame().payload).unwrap()
    }

    #[track_caller]
    fn ask(&mut self, command: &Value) -> Value {
        self.0.send(text(command.to_string()).bytes());
        self.hear()
    }

    /// 0, or the code of the error.
    #[track_caller]
    fn outcome(&mut self, command: &Value) -> u64 {
        let reply = self.ask(command);
        assert_eq!(reply["id"], command["id"], "{reply}");
        reply["error"]["code"].as_u64().unwrap_or(0)
    }
}

#[test]
fn a_sessions_caps_count_until_a_refresh_takes_them_back() {
    let server = start("session-caps", &format!("{HMAC}{RULES}"));
    let caps = |allow: &[&str]| json!([{"channels": ["closed:*"], "match": "wildcard", "allow": allow}]);
    let mut session = Session::connect(&server, &json!({"sub": "42", "caps": caps(&["sub", "hst"])}));
    for (command, expected) in [
        (json!({"id": 2, "subscribe": {"channel": "closed:a", "recoverable": true}}), 0),
        (json!({"id": 3, "history": {"channel": "closed:b"}}), 0),
        (json!({"id": 4, "publish": {"channel": "closed:a", "data": 1}}), 103),
        (json!({"id": 5, "subscribe": {"channel": "$closed:a"}}), 103),
        (json!({"id": 6, "subscribe": {"channel": "nowhere:a"}}), 102),
        (json!({"id": 7, "subscribe": {"channel": "users:a"}}), 0),
    ] {
        assert_eq!(session.outcome(&command), expected, "{command}");
    }
    let next = token(&json!({"sub": "42", "exp": now() + 600, "caps": caps(&["pub"])}));
    session.0.send(text(json!({"id": 8, "refresh": {"token": next}}).to_string()).bytes());
    let heard = String::from_utf8(session.0.frame().payload).unwrap();
    let heard: Vec<Value> = heard.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let unsubscribed: Vec<_> = heard.iter().filter(|message| message["push"]["unsubscribe"].is_object()).collect();
    assert_eq!(unsubscribed.len(), 1, "{heard:?}");
    assert_eq!(unsubscribed[0]["push"]["channel"], "closed:a");
    for (command, expected) in [
        (json!({"id": 9, "subscribe": {"channel": "closed:a"}}), 103),
        (json!({"id": 10, "publish": {"channel": "closed:a", "data": 1}}), 0),
        (json!({"id": 11, "history": {"channel": "closed:a"}}), 103),
    ] {
        assert_eq!(session.outcome(&command), expected, "{command}");
    }
}

#[test]
fn a_subscription_tokens_allow_counts_for_its_channel() {
    let server = start("allow", &format!("{HMAC}{RULES}"));
    let mut session = Session::connect(&server, &json!({"sub": "42"}));
    let subscription = |channel: &str, allow: &[&str]| {
        let token = token(&json!({"sub": "42", "channel": channel, "allow": allow}));
        json!({"id": 2, "subscribe": {"channel": channel, "token": token}})
    };
    assert_eq!(session.outcome(&subscription("closed:a", &["hst"])), 0);
    assert_eq!(session.outcome(&subscription("$closed:b", &["hst"])), 0);
    for (command, expected) in [
        (json!({"id": 3, "history": {"channel": "closed:a"}}), 0),
        (json!({"id": 4, "history": {"channel": "$closed:b"}}), 0),
        (json!({"id": 5, "history": {"channel": "closed:c"}}), 103),
        (json!({"id": 6, "publish": {"channel": "closed:a", "data": 1}}), 103),
        (json!({"id": 7, "unsubscribe": {"channel": "closed:a"}}), 0),
        (json!({"id": 8, "history": {"channel": "closed:a"}}), 103),
    ] {
        assert_eq!(session.outcome(&command), expected, "{command}");
    }
}

/// A provider of keys: a server that answers every request with what it is told to, and counts them.
#[derive(Clone, Debug)]
struct Provider {
    url: String,
    answer: Arc<Mutex<(u16, String)>>,
    asked: Arc<Mutex<usize>>,
}

impl Provider {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/keys?secret=not-logged", listener.local_addr().unwrap());
        let provider = Self { url, answer: Arc::default(), asked: Arc::default() };
        let own = provider.clone();
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let _head: Vec<_> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
                *own.asked.lock().unwrap() += 1;
                let (status, body) = own.answer.lock().unwrap().clone();
                let length = body.len();
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                );
            }
        });
        provider
    }

    fn says(&self, status: u16, body: &str) {
        *self.answer.lock().unwrap() = (status, body.to_owned());
    }

    fn has(&self, keys: &[(Algorithm, &str)]) {
        let jwk = |&(algorithm, kid): &(Algorithm, &str)| {
            let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&key(algorithm), algorithm).unwrap()).unwrap();
            jwk["kid"] = kid.into();
            jwk
        };
        self.says(200, &json!({"keys": keys.iter().map(jwk).collect::<Vec<_>>()}).to_string());
    }

    fn asked(&self) -> usize {
        *self.asked.lock().unwrap()
    }
}

#[test]
fn keys_at_a_url_rotate_and_outlive_their_provider() {
    let provider = Provider::start();
    provider.has(&[(Algorithm::ES256, "1")]);
    let config = format!("[client.token]\njwks_public_endpoint = \"{}\"\n{RULES}", provider.url);
    let server = start("jwks", &config);
    assert_eq!(provider.asked(), 1, "once, before anybody comes");
    let status = |algorithm, kid| {
        let token = signed(algorithm, Some(kid), &json!({"sub": "42"}));
        ask(&server, poll().with(format!("Authorization: Bearer {token}"))).status
    };
    assert_eq!((status(Algorithm::ES256, "1"), status(Algorithm::HS256, "1")), (200, 401));

    provider.has(&[(Algorithm::ES256, "1"), (Algorithm::RS256, "2")]);
    assert_eq!(status(Algorithm::RS256, "2"), 401, "not yet");
    eventually("the key that was named is fetched", PATIENCE * 2, || status(Algorithm::RS256, "2") == 200);
    assert_eq!((status(Algorithm::ES256, "1"), provider.asked()), (200, 2));

    provider.says(502, "<html>");
    let refused: Vec<_> = (0..50).map(|_| status(Algorithm::EdDSA, "3")).collect();
    assert!(refused.iter().all(|&status| status == 401));
    eventually("a fetch fails", PATIENCE * 2, || server.log().iter().any(|line| line.contains("cannot fetch")));
    assert!(provider.asked() <= 4, "however many tokens name what is not there: {}", provider.asked());
    assert_eq!((status(Algorithm::ES256, "1"), status(Algorithm::RS256, "2")), (200, 200));
    assert!(!server.log().join("\n").contains("not-logged"));
}

#[test]
fn a_provider_that_is_away_does_not_keep_the_server_from_starting() {
    let provider = Provider::start();
    provider.says(500, "");
    let config = format!(
        "[client.token]\njwks_public_endpoint = \"{}\"\n{RULES}[throng]\ntoken_jwks_refresh = \"1s\"\n",
        provider.url
    );
    let server = start("away", &config);
    let token = signed(Algorithm::EdDSA, Some("1"), &json!({"sub": "42"}));
    let ask = || refusal(&server, poll().with(format!("Authorization: Bearer {token}")));
    assert_eq!(ask(), (401, "token".to_owned()));
    provider.has(&[(Algorithm::EdDSA, "1")]);
    eventually("it is asked again", PATIENCE * 2, || ask().0 == 200);
}

#[test]
fn keys_in_a_file_are_secrets_too_and_named_by_their_tokens() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("access-keys.json");
    let secret = |kid: &str, k: &str| json!({"kty": "oct", "alg": "HS256", "kid": kid, "k": k});
    // `secret` and `other!` in base64url.
    fs::write(&path, json!({"keys": [secret("old", "c2VjcmV0"), secret("new", "b3RoZXIh")]}).to_string()).unwrap();
    let server = start("jwks-file", &format!("[throng]\ntoken_jwks_file = \"{}\"\n{RULES}", path.display()));
    let status = |kid: Option<&str>| {
        let token = signed(Algorithm::HS256, kid, &json!({"sub": "42"}));
        ask(&server, poll().with(format!("Authorization: Bearer {token}"))).status
    };
    assert_eq!([status(Some("old")), status(Some("new")), status(Some("none")), status(None)], [200, 401, 401, 401]);
}

#[test]
fn two_api_keys_count_while_applications_change_over() {
    let server = start("api-keys", "[http_api]\nkey = \"new\"\n[throng]\nprevious_api_key = \"old\"\n");
    let status = |key: &str| ask(&server, poll().with(format!("X-API-Key: {key}"))).status;
    assert_eq!([status("new"), status("old"), status("newold"), status("ne")], [200, 200, 401, 401]);
}

#[test]
fn a_server_that_asks_nobody_answers_to_names_of_loopback_alone() {
    let server = Throng::start("");
    let host = |name: &str| plain("/topics/t").but(&format!("Host: {name}")).with("Connection: close");
    let port = server.addrs[0].port();
    for name in ["localhost", "LocalHost", "127.0.0.1", "127.1.2.3", "[::1]", "app.localhost"] {
        assert_eq!(ask(&server, host(name)).status, 200, "{name}");
        assert_eq!(ask(&server, host(&format!("{name}:{port}"))).status, 200, "{name}");
    }
    for name in ["evil.example", "localhost.evil.example", "10.0.0.1", "0.0.0.0", "[::]"] {
        let rebound = host(name).with(format!("Origin: http://{name}"));
        assert_eq!(refusal(&server, rebound), (421, "host_forbidden".to_owned()), "{name}");
        let socket = websocket("/topics/t").but(&format!("Host: {name}"));
        let response = ask(&server, socket.with(format!("Origin: http://{name}")));
        assert_eq!(response.status, 421, "{name}");
        assert!(response.problem()["detail"].contains("--open"), "{response:?}");
    }
    let healthz = plain("/healthz").but("Host: evil.example").with("Connection: close");
    assert_eq!(ask(&server, healthz).status, 421);
}

#[test]
fn a_server_that_asks_or_is_open_answers_to_any_name() {
    let host = || plain("/topics/t").but("Host: app.example").with("Connection: close");
    let open = Throng::start("--open");
    assert_eq!(ask(&open, host()).status, 200);
    for (name, text, status) in [("asks-api", "[http_api]\nkey = \"k\"", 200), ("asks-token", HMAC, 403)] {
        assert_eq!(ask(&start(name, text), host()).status, status, "{name}");
    }
    for (name, text) in [
        ("insecure", "[client]\ninsecure = true\n[client.token]\nhmac_secret_key = \"s\""),
        ("api-insecure", "[http_api]\ninsecure = true\n[client.token]\nhmac_secret_key = \"s\""),
        ("allowed", "[client]\nallowed_origins = [\"https://app.example\"]"),
    ] {
        assert_eq!(ask(&start(name, text), host()).status, 421, "{name}");
    }
}

#[test]
fn where_there_are_keys_and_no_rules_only_who_shows_one_publishes() {
    let key = "[http_api]\nkey = \"k\"\n";
    let everybody = "[client]\nallow_anonymous_connect_without_token = true\n";
    let user = format!("Authorization: Bearer {}", user());
    let post = || plain("").line("POST /topics/t HTTP/1.1").with("Content-Length: 0");
    let get = || plain("/topics/t").with("Connection: close");
    let socket = || websocket("/topics/t");
    // Of nobody: a POST, a poll, a WebSocket. Of a user: the same. Of the application: the POST.
    for (name, text, flags, expected) in [
        ("strangers-none", String::new(), "", [200, 200, 101, 200, 200, 101, 401]),
        ("strangers-key", key.to_owned(), "", [403, 200, 101, 403, 200, 101, 200]),
        ("strangers-key-all", key.to_owned(), "--client-publish", [200, 200, 101, 200, 200, 101, 200]),
        ("strangers-token", HMAC.to_owned(), "", [403, 403, 403, 200, 200, 101, 401]),
        ("strangers-both", format!("{key}{HMAC}"), "", [403, 403, 403, 200, 200, 101, 200]),
        ("strangers-read", format!("{key}{everybody}{HMAC}"), "", [403, 200, 101, 200, 200, 101, 200]),
        ("strangers-all", format!("{everybody}{HMAC}"), "--client-publish", [200, 200, 101, 200, 200, 101, 401]),
    ] {
        let server = Throng::start(&format!("--config {} {flags}", file(name, &text).display()));
        let status = |head: support::Head| ask_upgrade(&server, head).status;
        let nobodys = [post(), get(), socket()].map(status);
        let users = [post(), get(), socket()].map(|head| status(head.with(&user)));
        let applications = status(post().with("X-API-Key: k"));
        assert_eq!([&nobodys[..], &users, &[applications]].concat(), expected, "{name}");
    }
    let server = start("strangers-said", HMAC);
    for head in [post(), get()] {
        let said = ask(&server, head).problem()["detail"].clone();
        assert!(said.starts_with("no token was sent: send `Authorization: Bearer TOKEN`, or"), "{said}");
    }
    let server = start("strangers-key-said", key);
    assert!(ask(&server, post()).problem()["detail"].contains("X-API-Key: KEY"));
}

#[test]
fn who_sends_no_token_where_one_would_do_is_told_so() {
    let server = start("told", &format!("{HMAC}{RULES}"));
    let detail = |path: &str| ask(&server, plain(path).with("Connection: close")).problem()["detail"].clone();
    let said = detail("/topics/users:a");
    assert!(said.starts_with("no token was sent: send `Authorization: Bearer TOKEN`, or"), "{said}");
    assert!(said.contains("allow_subscribe_for_anonymous"), "{said}");
    let said = detail("/topics/closed:a");
    assert!(!said.contains("no token was sent"), "a token would not do: {said}");
}

#[test]
fn nobody_beyond_loopback_comes_in_unasked() {
    for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:80"] {
        let (code, stderr) = run_to_end(&format!("serve --listen {listen}"));
        assert_eq!(code, Some(1), "{stderr}");
        for said in [listen, "--open", "client.token", "http_api.key", "127.0.0.1", "--listen"] {
            assert!(stderr.contains(said), "{said}: {stderr}");
        }
    }
    let path = file("address", "[http_server]\naddress = \"0.0.0.0\"\nport = 0\n");
    let (code, stderr) = run_to_end(&format!("serve --config {}", path.display()));
    assert!(code == Some(1) && stderr.contains("access-address.toml:2") && stderr.contains("0.0.0.0"), "{stderr}");
    let path = file("insecure-address", "[client]\ninsecure = true\n[client.token]\nhmac_secret_key = \"s\"\n");
    let (code, stderr) = run_to_end(&format!("serve --listen 0.0.0.0:0 --config {}", path.display()));
    assert!(code == Some(1) && stderr.contains("client.insecure"), "{stderr}");
    assert!(stderr.contains("Switch client.insecure off, listen on 127.0.0.1, or"), "{stderr}");
    for flags in ["--listen 0.0.0.0:0 --open".to_owned(), {
        let keyed = file("keyed", HMAC);
        format!("--listen 0.0.0.0:0 --config {}", keyed.display())
    }] {
        assert_eq!(Throng::start(&flags).addrs.len(), 1, "{flags}");
    }
}

#[test]
fn a_reload_changes_keys_and_leaves_what_was_fetched() {
    let provider = Provider::start();
    provider.has(&[(Algorithm::ES256, "1")]);
    let with = |keys: &str| format!("[client.token]\njwks_public_endpoint = \"{}\"\n{keys}\n{RULES}", provider.url);
    let server = start("reload", &with("hmac_secret_key = \"other\""));
    let status = |algorithm, kid| {
        let token = signed(algorithm, kid, &json!({"sub": "42"}));
        ask(&server, poll().with(format!("Authorization: Bearer {token}"))).status
    };
    let all = || [status(Algorithm::HS256, None), status(Algorithm::ES256, Some("1")), status(Algorithm::RS256, None)];
    assert_eq!(all(), [401, 200, 401]);
    for (keys, expected) in [
        ("hmac_secret_key = \"secret\"".to_owned(), [200, 200, 401]),
        (format!("rsa_public_key = \"\"\"{}\"\"\"", RSA[1]), [401, 200, 200]),
        ("hmac_previous_secret_key = \"secret\"".to_owned(), [200, 200, 401]),
    ] {
        file("reload", &with(&keys));
        server.signal("HUP");
        eventually(&keys, PATIENCE, || all() == expected);
    }
    assert_eq!(provider.asked(), 1);
}

/// Where keys are fetched from is for a restart to change: until then what is fetched counts, for whom it counted.
#[test]
fn a_reload_neither_drops_the_rules_of_fetched_keys_nor_waits_for_keys_that_nobody_fetches() {
    let provider = Provider::start();
    provider.has(&[(Algorithm::ES256, "1")]);
    let url = format!("jwks_public_endpoint = \"{}\"\n", provider.url);
    let with = |keys: &str| format!("[client.token]\naudience = \"throng\"\n{keys}\n{RULES}");
    let server = start("reload-url", &with(&url));
    let status = |server: &Throng, algorithm, audience: &str| {
        let token = signed(algorithm, Some("1"), &json!({"sub": "42", "aud": audience}));
        ask(server, poll().with(format!("Authorization: Bearer {token}"))).status
    };
    let both = || [status(&server, Algorithm::ES256, "throng"), status(&server, Algorithm::ES256, "other")];
    assert_eq!(both(), [200, 401]);
    file("reload-url", &with(""));
    server.signal("HUP");
    let untaken = |line: &String| line.contains("jwks_public_endpoint") && line.contains("only a restart takes this");
    eventually("it says what it does not take", PATIENCE, || server.log().iter().any(untaken));
    assert_eq!(both(), [200, 401]);

    let adding = start("reload-adds-url", &with("hmac_secret_key = \"secret\""));
    assert_eq!(status(&adding, Algorithm::HS256, "throng"), 200);
    file("reload-adds-url", &with(&url));
    adding.signal("HUP");
    eventually("it says what it does not take", PATIENCE, || adding.log().iter().any(untaken));
    let without =
        ask(&adding, plain("/topics/closed:a").with("Authorization: Bearer nonsense").with("Connection: close"));
    assert_eq!(without.status, 403, "as where there is no key: nobody fetches those");
}

#[test]
fn a_reload_may_let_everybody_in_and_take_that_back() {
    let server = start("reload-open", "");
    let host = || ask(&server, plain("/topics/t").but("Host: app.example").with("Connection: close")).status;
    assert_eq!(host(), 421);
    for (text, expected) in [("[throng]\nopen = true\n", 200), ("", 421), ("[http_api]\nkey = \"k\"\n", 200)] {
        file("reload-open", text);
        server.signal("HUP");
        eventually(text, PATIENCE, || host() == expected);
    }
}

/// What `throng token` prints, and whether it ended well.
fn throng_token(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_throng")).arg("token").args(arguments).output().unwrap();
    let said = if output.status.success() { output.stdout } else { output.stderr };
    (output.status.success(), String::from_utf8(said).unwrap().trim_end().to_owned())
}

#[test]
fn a_token_that_the_command_prints_counts() {
    let text = format!("{HMAC}audience = \"throng\"\nissuer = \"joe\"\n{RULES}");
    let server = start("printed", &text);
    let config = file("printed", &text);
    let print = |arguments: &[&str]| throng_token(&[arguments, &["--config", config.to_str().unwrap()]].concat());
    let status = |token: &str, path: &str| {
        ask(&server, plain(path).with(format!("Authorization: Bearer {token}")).with("Connection: close")).status
    };
    let (printed, token) = print(&["42"]);
    assert!(printed, "{token}");
    assert_eq!([status(&token, "/topics/users:a"), status(&token, "/topics/closed:a")], [200, 403]);
    let caps = r#"{"caps":[{"channels":["closed:a"],"allow":["sub","hst"]}]}"#;
    assert_eq!(status(&print(&["42", "--ttl", "0", "--claims", caps]).1, "/topics/closed:a"), 200);
    let mut session = Session::connect(&server, &json!({"sub": "42", "aud": "throng", "iss": "joe"}));
    let token = print(&["42", "--channel", "closed:b"]).1;
    assert_eq!(session.outcome(&json!({"id": 2, "subscribe": {"channel": "closed:b", "token": token}})), 0);
    let (printed, said) = throng_token(&["42"]);
    assert!(!printed && said.contains("hmac_secret_key") && said.contains("THRONG_TOKEN_SECRET"), "{said}");
    assert!(!print(&["42", "--claims", "[]"]).0);
}
