//! One rule set, from a configuration file, over every transport.
#![cfg(feature = "cli")] // There is no binary without it.

mod client;
mod file;
mod kept;
mod names;
mod rights;
#[path = "../support/mod.rs"]
mod support;

use jsonwebtoken::{EncodingKey, Header};
use serde_json::Value;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};
use support::*;

/// What most tests here are about. Every namespace keeps ten messages and knows who is there; what clients may do differs.
const FILE: &str = r#"
[http_api]
key = "the key"
[client]
allow_anonymous_connect_without_token = true
[client.token]
hmac_secret_key = "secret"

[[channel.namespaces]]
name = "closed"
presence = true
history_size = 10
history_ttl = "60s"

[[channel.namespaces]]
name = "users"
presence = true
history_size = 10
history_ttl = "60s"
allow_subscribe_for_client = true
allow_publish_for_client = true
allow_history_for_client = true
allow_presence_for_client = true

[[channel.namespaces]]
name = "public"
presence = true
history_size = 10
history_ttl = "60s"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_publish_for_client = true
allow_publish_for_anonymous = true
allow_history_for_client = true
allow_history_for_anonymous = true
allow_presence_for_client = true
allow_presence_for_anonymous = true

[[channel.namespaces]]
name = "live"
presence = true
history_size = 10
history_ttl = "60s"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true

[[channel.namespaces]]
name = "members"
presence = true
history_size = 10
history_ttl = "60s"
allow_subscribe_for_client = true
allow_publish_for_subscriber = true
allow_history_for_subscriber = true
allow_presence_for_subscriber = true
# Alone it means nothing.
allow_history_for_anonymous = true

[[channel.namespaces]]
name = "guests"
presence = true
history_size = 10
history_ttl = "60s"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
# Not for anonymous ones.
allow_publish_for_subscriber = true
allow_history_for_subscriber = true
allow_presence_for_subscriber = true

[[channel.namespaces]]
name = "limited"
presence = true
history_size = 10
history_ttl = "60s"
allow_user_limited_channels = true
allow_history_for_client = true
allow_presence_for_client = true
"#;

fn config(name: &str, text: &str) -> PathBuf {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("rules-{name}.toml"));
    std::fs::write(&file, text).unwrap();
    file
}

/// One worker is a topic's home, and three are not.
fn start(name: &str, text: &str) -> Throng {
    Throng::start(&format!("--workers 4 --ping-interval 100 --config {}", config(name, text).display()))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn token(secret: &str, claims: &Value) -> String {
    jsonwebtoken::encode(&Header::default(), claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}
