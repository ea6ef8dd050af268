//! Topics that are somebody's by their name, and who a client is.

use crate::client::*;
use crate::support::*;
use crate::{FILE, now, start, token};
use serde_json::json;
use std::time::Instant;

#[test]
fn a_topic_is_for_the_users_in_its_name_and_a_private_one_for_who_has_a_token() {
    let server = start("limits", FILE);
    let topic = "limited:a#42,43";
    post(&server, "limited:a%2342%2C43", "kept");
    for (who, may) in
        [(User("42"), true), (User("43"), true), (User("4"), false), (User("42,43"), false), (Anonymous, false)]
    {
        for way in WAYS.into_iter().filter(|way| !matches!(way, Way::Post)) {
            let status = way.status(&server, topic, who);
            assert_eq!(status != 403, may && status < 400, "{way:?} {who:?}: {status}");
            assert_eq!(status < 400, may, "{way:?} {who:?}: {status}");
        }
        let mut client = Client::connect(&server, who);
        for method in ["history", "presence", "presence_stats", "subscribe"] {
            assert_eq!(client.code(method, topic) == 0, may, "{method} {who:?}");
        }
    }
    // Where users are not looked at the name is like any other.
    assert_eq!(Way::WebSocket("").status(&server, "users:a#42", User("43")), 101);
    for way in WAYS.into_iter().filter(|way| !matches!(way, Way::Post)) {
        assert_eq!(way.status(&server, "$users:a", User("42")), 403, "{way:?}");
        assert!(way.status(&server, "$users:a", Application) < 400, "{way:?}");
        assert_eq!(way.status(&server, "$nowhere:a", Application), 404, "{way:?}");
    }
    let mut client = Client::connect(&server, User("42"));
    for method in ["subscribe", "history", "presence", "presence_stats"] {
        assert_eq!(client.code(method, "$users:a"), 103, "{method}");
    }
    let claims = json!({"sub": "42", "channel": "$users:a"});
    client.subscribe(&json!({"channel": "$users:a", "token": token("secret", &claims)}));
    for method in ["history", "presence", "presence_stats"] {
        assert_eq!(client.code(method, "$users:a"), 0, "{method}");
    }
}

#[test]
fn names_have_a_length_and_the_boundaries_that_are_set() {
    let file = "[http_api]\nkey = \"the key\"\n[client]\nallow_anonymous_connect_without_token = true\n\
        [client.token]\nhmac_secret_key = \"secret\"\n\
        [channel]\nmax_length = 10\nnamespace_boundary = \"/\"\nprivate_prefix = \"!\"\nuser_boundary = \"@\"\nuser_separator = \"+\"\n\
        [[channel.namespaces]]\nname = \"ns\"\npresence = true\nhistory_size = 1\nhistory_ttl = \"1m\"\nallow_user_limited_channels = true\n\
        allow_subscribe_for_client = true\nallow_history_for_client = true\nallow_presence_for_client = true\nallow_publish_for_client = true\n";
    let server = start("names", file);
    for (topic, status) in [
        ("ns%2Fa", 101),
        ("ns%2Fa%4042%2B4", 101),
        ("ns%2Fa%4041%2B4", 403),
        ("%21ns%2Fa", 403),
        ("%24ns%2Fa", 404),
        ("ns:a", 403),
        ("ns%2F12345678", 400),
    ] {
        assert_eq!(Way::WebSocket("").status(&server, topic, User("42")), status, "{topic}");
    }
    for way in WAYS {
        let (mut peer, who) = (server.connect(), Application);
        peer.send(who.signs(way.head("ns%2F12345678")).bytes());
        let answer = peer.head();
        assert_eq!(answer.status, 400, "{way:?}");
    }
    let mut client = Client::connect(&server, User("42"));
    for method in ["subscribe", "publish", "history", "presence"] {
        assert_eq!(client.code(method, "ns/1234567"), 0, "{method}");
        assert_eq!(client.code(method, "ns/12345678"), 107, "{method}");
    }
    assert_eq!(api(&server, "publish", &json!({"channel": "ns/12345678", "data": 1}))["error"]["code"], 107);
}

#[test]
fn a_user_has_a_channel_of_its_own() {
    for (settings, channel, url) in
        [("personal_channel_namespace = \"own\"", "own:#42", "own:%2342"), ("", "#42", "%2342")]
    {
        let file = format!(
            "[http_api]\nkey = \"the key\"\n[client]\nallow_anonymous_connect_without_token = true\n[client.token]\nhmac_secret_key = \"secret\"\n\
             [client.subscribe_to_user_personal_channel]\nenabled = true\n{settings}\n\
             [channel.without_namespace]\nallow_user_limited_channels = true\n\
             [[channel.namespaces]]\nname = \"own\"\nallow_user_limited_channels = true\n"
        );
        let server = start(&format!("personal{}", settings.len()), &file);
        let mut client = Client::connect(&server, User("42"));
        assert!(client.connected["subs"][channel].is_object(), "{}", client.connected);
        assert!(Client::connect(&server, Anonymous).connected["subs"].is_null());
        let (mut bare, answer) = Way::Events("").ask(&server, channel, User("42"));
        assert_eq!(answer.status, 200);
        bare.line_block(Instant::now() + PATIENCE);
        assert_eq!(Way::Events("").status(&server, channel, User("43")), 403);
        post(&server, url, "for you");
        assert_eq!(client.push()["pub"]["data"], "for you");
        assert!(bare.line_block(Instant::now() + PATIENCE).ends_with("data: for you"));
    }
}

#[test]
fn a_bare_client_is_who_its_token_says_or_nobody() {
    let server = start("tokens", FILE);
    let refused = |why: &str, credentials: String| {
        for way in WAYS {
            let mut peer = server.connect();
            peer.send(way.head("public:t").with(format!("Authorization: {credentials}")).bytes());
            let answer = peer.head();
            assert_eq!((answer.status, answer.field("WWW-Authenticate")), (401, Some("Bearer")), "{why} {way:?}");
        }
        let mut peer = server.connect();
        peer.send(plain("/topics/public:t").with(format!("Authorization: {credentials}")).bytes());
        assert_eq!(peer.answer().problem()["code"], "token", "{why}");
    };
    refused("expired", format!("Bearer {}", token("secret", &json!({"sub": "42", "exp": now() - 10}))));
    refused("over", format!("Bearer {}", token("secret", &json!({"sub": "42", "expire_at": now() - 10}))));
    refused("another's signature", format!("Bearer {}", token("another", &json!({"sub": "42"}))));
    refused("for a subscription", format!("Bearer {}", token("secret", &json!({"sub": "42", "channel": "public:t"}))));
    refused("no token", "bearer nonsense".to_owned());
    let mut peer = server.connect();
    let good = token("secret", &json!({"sub": "42", "exp": now() + 60}));
    for (credentials, status) in [
        (format!("Bearer {good}"), 200),
        (format!("bearer  {good} "), 200),
        ("Basic dXNlcjpwYXNz".to_owned(), 403), // which is another's business: an anonymous client
        ("apikey the key".to_owned(), 200),
        ("apikey another".to_owned(), 401),
    ] {
        peer.send(plain("/topics/users:t").with(format!("Authorization: {credentials}")).bytes());
        assert_eq!(peer.answer().status, status, "{credentials}");
    }
    for way in WAYS {
        let mut peer = server.connect();
        peer.send(way.head("public:t").with("X-API-Key: wrong").bytes());
        assert_eq!(peer.head().status, 401, "{way:?}");
    }
    // The key counts before a token.
    let head = plain("/topics/closed:t").with("X-API-Key: the key").with(format!("Authorization: Bearer {good}"));
    peer.send(head.bytes());
    assert_eq!(peer.answer().status, 200);
    peer.send(plain("").line("OPTIONS /topics/users:t HTTP/1.1").bytes());
    assert!(peer.answer().lists("Access-Control-Allow-Headers", "Authorization"), "pages can show one");
}
