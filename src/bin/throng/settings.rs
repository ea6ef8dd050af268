//! Every setting of the configuration file: one table, from which reading, suggestions and refusals follow.

use log::LevelFilter;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use throng::{Compression, RuleSet, SlowReaders, TopicRules};

/// What can be set, and its defaults; durations are as in the file.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) address: Option<IpAddr>,
    pub(crate) port: Option<u16>,
    pub(crate) workers: Option<usize>,
    pub(crate) connections_max: Option<usize>,
    pub(crate) message_bytes_max: usize,
    pub(crate) queue_bytes_max: Option<usize>,
    pub(crate) ping_interval: Duration,
    pub(crate) pong_timeout: Duration,
    pub(crate) head_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) close_timeout: Duration,
    pub(crate) write_timeout: Duration,
    pub(crate) drain: Duration,
    pub(crate) origins: Vec<String>,
    pub(crate) topics_max: usize,
    pub(crate) slow_readers: SlowReaders,
    pub(crate) compresses: bool,
    pub(crate) compression: Compression,
    pub(crate) shared_descriptors: bool,
    pub(crate) pin: bool,
    pub(crate) log_level: Option<LevelFilter>,
    pub(crate) topics: RuleSet,
    /// Centrifugo's clients have pings of their own.
    pub(crate) client_ping_interval: Duration,
    pub(crate) client_pong_timeout: Duration,
    pub(crate) client_connect_timeout: Duration,
    pub(crate) channels_max: usize,
    /// Commands a second in the long run, if that is bounded, and at once.
    pub(crate) command_rate: u32,
    pub(crate) command_burst: u32,
    pub(crate) tokens: Tokens,
    pub(crate) has_subscription_tokens: bool,
    pub(crate) subscription_tokens: Tokens,
    pub(crate) anonymous: bool,
    pub(crate) insecure: bool,
    pub(crate) has_personal_channel: bool,
    pub(crate) personal_namespace: String,
    pub(crate) api_key: Vec<u8>,
    pub(crate) api_insecure: bool,
    pub(crate) http_stream: bool,
    pub(crate) sse: bool,
}

/// What tokens are checked with.
#[derive(Clone, Default)]
pub(crate) struct Tokens {
    pub(crate) secret: Vec<u8>,
    pub(crate) previous: Vec<u8>,
    pub(crate) previous_until: u64,
    pub(crate) audience: String,
    pub(crate) issuer: String,
}

impl std::fmt::Debug for Tokens {
    /// Without the secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("audience", &self.audience).field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl Default for Settings {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            listen: Vec::new(),
            address: None,
            port: None,
            workers: None,
            connections_max: None,
            message_bytes_max: 64 * 1024,
            queue_bytes_max: None,
            ping_interval: seconds(25),
            pong_timeout: seconds(20),
            head_timeout: seconds(10),
            idle_timeout: seconds(75),
            close_timeout: seconds(3),
            write_timeout: seconds(30),
            drain: seconds(5),
            origins: Vec::new(),
            topics_max: 1_000_000,
            slow_readers: SlowReaders::Disconnect,
            compresses: false,
            compression: Compression::default(),
            shared_descriptors: false,
            pin: false,
            log_level: None,
            topics: RuleSet::open(),
            client_ping_interval: seconds(25),
            client_pong_timeout: seconds(8),
            client_connect_timeout: seconds(10),
            channels_max: 128,
            command_rate: 0,
            command_burst: 0,
            tokens: Tokens::default(),
            has_subscription_tokens: false,
            subscription_tokens: Tokens::default(),
            anonymous: false,
            insecure: false,
            has_personal_channel: false,
            personal_namespace: String::new(),
            api_key: Vec::new(),
            api_insecure: false,
            http_stream: true,
            sse: true,
        }
    }
}

impl Settings {
    /// Where to listen.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let mut addresses = self.listen.clone();
        if self.address.is_some() || self.port.is_some() || addresses.is_empty() {
            let address = self.address.unwrap_or(Ipv4Addr::LOCALHOST.into());
            addresses.push(SocketAddr::new(address, self.port.unwrap_or(8080)));
        }
        addresses
    }
}

/// How a value is taken. What is wrong with it is said without its name.
pub(crate) enum Set<T> {
    Switch(fn(&mut T, bool)),
    Number(fn(&mut T, u64) -> Result<(), String>),
    Duration(fn(&mut T, Duration)),
    Text(fn(&mut T, &str) -> Result<(), String>),
    /// Each of a list.
    Texts(fn(&mut T, &str) -> Result<(), String>),
}

/// A setting's name, with its tables, and how it is set.
pub(crate) type Entry<T> = (&'static str, Set<T>);

fn fits<N: TryFrom<u64>>(number: u64) -> Result<N, String> {
    N::try_from(number).map_err(|_| format!("{number} is too large"))
}

/// Zero is no limit.
fn limit(number: u64) -> Result<Option<usize>, String> {
    Ok(Some(fits(number)?).filter(|&number| number > 0))
}

/// Everything but the rules of channels.
pub(crate) const SETTINGS: &[Entry<Settings>] = &[
    (
        "http_server.address",
        Set::Text(|s, text| {
            let address = if text.is_empty() { Ok(Ipv4Addr::UNSPECIFIED.into()) } else { text.parse() };
            s.address = Some(address.map_err(|_| "an IP address, such as 127.0.0.1 or ::".to_owned())?);
            Ok(())
        }),
    ),
    ("http_server.port", Set::Number(|s, port| fits(port).map(|port| s.port = Some(port)))),
    (
        "client.allowed_origins",
        Set::Texts(|s, origin| {
            s.origins.push(origin.to_owned());
            Ok(())
        }),
    ),
    ("client.ping_interval", Set::Duration(|s, time| s.client_ping_interval = time)),
    ("client.pong_timeout", Set::Duration(|s, time| s.client_pong_timeout = time)),
    ("client.stale_close_delay", Set::Duration(|s, time| s.client_connect_timeout = time)),
    ("client.channel_limit", Set::Number(|s, n| fits(n).map(|n| s.channels_max = n))),
    ("client.queue_max_size", Set::Number(|s, n| limit(n).map(|n| s.queue_bytes_max = n))),
    ("client.connection_limit", Set::Number(|s, n| limit(n).map(|n| s.connections_max = n))),
    ("client.allow_anonymous_connect_without_token", Set::Switch(|s, on| s.anonymous = on)),
    ("client.insecure", Set::Switch(|s, on| s.insecure = on)),
    ("client.subscribe_to_user_personal_channel.enabled", Set::Switch(|s, on| s.has_personal_channel = on)),
    (
        "client.subscribe_to_user_personal_channel.personal_channel_namespace",
        Set::Text(|s, text| {
            s.personal_namespace = text.to_owned();
            Ok(())
        }),
    ),
    (
        "client.token.hmac_secret_key",
        Set::Text(|s, key| {
            s.tokens.secret = key.into();
            Ok(())
        }),
    ),
    (
        "client.token.hmac_previous_secret_key",
        Set::Text(|s, key| {
            s.tokens.previous = key.into();
            Ok(())
        }),
    ),
    (
        "client.token.hmac_previous_secret_key_valid_until",
        Set::Number(|s, at| {
            s.tokens.previous_until = at;
            Ok(())
        }),
    ),
    (
        "client.token.audience",
        Set::Text(|s, text| {
            s.tokens.audience = text.to_owned();
            Ok(())
        }),
    ),
    (
        "client.token.issuer",
        Set::Text(|s, text| {
            s.tokens.issuer = text.to_owned();
            Ok(())
        }),
    ),
    ("client.subscription_token.enabled", Set::Switch(|s, on| s.has_subscription_tokens = on)),
    (
        "client.subscription_token.hmac_secret_key",
        Set::Text(|s, key| {
            s.subscription_tokens.secret = key.into();
            Ok(())
        }),
    ),
    (
        "client.subscription_token.hmac_previous_secret_key",
        Set::Text(|s, key| {
            s.subscription_tokens.previous = key.into();
            Ok(())
        }),
    ),
    (
        "client.subscription_token.hmac_previous_secret_key_valid_until",
        Set::Number(|s, at| {
            s.subscription_tokens.previous_until = at;
            Ok(())
        }),
    ),
    (
        "client.subscription_token.audience",
        Set::Text(|s, text| {
            s.subscription_tokens.audience = text.to_owned();
            Ok(())
        }),
    ),
    (
        "client.subscription_token.issuer",
        Set::Text(|s, text| {
            s.subscription_tokens.issuer = text.to_owned();
            Ok(())
        }),
    ),
    ("channel.max_length", Set::Number(|s, n| fits(n).map(|n| s.topics.max_length = n))),
    ("channel.history_meta_ttl", Set::Duration(|s, time| s.topics.history_meta_ttl = time)),
    (
        "channel.private_prefix",
        Set::Text(|s, text| {
            s.topics.private_prefix = text.to_owned();
            Ok(())
        }),
    ),
    (
        "channel.namespace_boundary",
        Set::Text(|s, text| {
            s.topics.namespace_boundary = text.to_owned();
            Ok(())
        }),
    ),
    (
        "channel.user_boundary",
        Set::Text(|s, text| {
            s.topics.user_boundary = text.to_owned();
            Ok(())
        }),
    ),
    (
        "channel.user_separator",
        Set::Text(|s, text| {
            s.topics.user_separator = text.to_owned();
            Ok(())
        }),
    ),
    (
        "http_api.key",
        Set::Text(|s, key| {
            s.api_key = key.into();
            Ok(())
        }),
    ),
    ("http_api.insecure", Set::Switch(|s, on| s.api_insecure = on)),
    ("websocket.message_size_limit", Set::Number(|s, n| fits(n).map(|n| s.message_bytes_max = n))),
    ("websocket.compression", Set::Switch(|s, on| s.compresses = on)),
    (
        "websocket.compression_min_size",
        Set::Number(|s, n| fits(n).map(|n| s.compression = s.compression.message_bytes_min(n))),
    ),
    ("websocket.compression_level", Set::Number(|s, n| fits(n).map(|n| s.compression = s.compression.level(n)))),
    ("http_stream.enabled", Set::Switch(|s, on| s.http_stream = on)),
    ("sse.enabled", Set::Switch(|s, on| s.sse = on)),
    ("shutdown.timeout", Set::Duration(|s, time| s.drain = time)),
    (
        "log.level",
        Set::Text(|s, level| {
            let level = if level == "none" { "off" } else { level };
            s.log_level = Some(level.parse().map_err(|_| "off, error, warn, info, debug or trace".to_owned())?);
            Ok(())
        }),
    ),
    // Ours.
    (
        "throng.listen",
        Set::Texts(|s, address| {
            s.listen.push(
                address.parse().map_err(|_| "an address and a port, such as 127.0.0.1:8080 or [::]:80".to_owned())?,
            );
            Ok(())
        }),
    ),
    ("throng.workers", Set::Number(|s, n| fits(n).map(|n| s.workers = Some(n)))),
    ("throng.pin", Set::Switch(|s, on| s.pin = on)),
    ("throng.shared_fds", Set::Switch(|s, on| s.shared_descriptors = on)),
    ("throng.max_topics", Set::Number(|s, n| fits(n).map(|n| s.topics_max = n))),
    (
        "throng.slow",
        Set::Text(|s, policy| {
            s.slow_readers = match policy {
                "disconnect" => SlowReaders::Disconnect,
                "skip" => SlowReaders::Skip,
                _ => return Err("disconnect or skip".to_owned()),
            };
            Ok(())
        }),
    ),
    ("throng.compression_context", Set::Number(|s, n| fits(n).map(|n| s.compression = s.compression.context(n)))),
    ("throng.command_rate", Set::Number(|s, n| fits(n).map(|n| s.command_rate = n))),
    ("throng.command_burst", Set::Number(|s, n| fits(n).map(|n| s.command_burst = n))),
    ("throng.ping_interval", Set::Duration(|s, time| s.ping_interval = time)),
    ("throng.pong_timeout", Set::Duration(|s, time| s.pong_timeout = time)),
    ("throng.head_timeout", Set::Duration(|s, time| s.head_timeout = time)),
    ("throng.idle_timeout", Set::Duration(|s, time| s.idle_timeout = time)),
    ("throng.close_timeout", Set::Duration(|s, time| s.close_timeout = time)),
    ("throng.write_timeout", Set::Duration(|s, time| s.write_timeout = time)),
];

/// The rules of one namespace, or of the channels without one.
pub(crate) const RULES: &[Entry<TopicRules>] = &[
    ("history_size", Set::Number(|r, n| fits(n).map(|n| r.history_size = n))),
    ("history_bytes", Set::Number(|r, n| fits(n).map(|n| r.history_bytes = n))),
    ("history_ttl", Set::Duration(|r, time| r.history_ttl = time)),
    ("history_meta_ttl", Set::Duration(|r, time| r.history_meta_ttl = Some(time).filter(|time| !time.is_zero()))),
    ("presence", Set::Switch(|r, on| r.presence = on)),
    ("join_leave", Set::Switch(|r, on| r.join_leave = on)),
    ("force_push_join_leave", Set::Switch(|r, on| r.force_push_join_leave = on)),
    ("allow_positioning", Set::Switch(|r, on| r.allow_positioning = on)),
    ("force_positioning", Set::Switch(|r, on| r.force_positioning = on)),
    ("allow_recovery", Set::Switch(|r, on| r.allow_recovery = on)),
    ("force_recovery", Set::Switch(|r, on| r.force_recovery = on)),
    ("allow_subscribe_for_client", Set::Switch(|r, on| r.allow_subscribe.client = on)),
    ("allow_subscribe_for_anonymous", Set::Switch(|r, on| r.allow_subscribe.anonymous = on)),
    ("allow_publish_for_client", Set::Switch(|r, on| r.allow_publish.client = on)),
    ("allow_publish_for_anonymous", Set::Switch(|r, on| r.allow_publish.anonymous = on)),
    ("allow_publish_for_subscriber", Set::Switch(|r, on| r.allow_publish.subscriber = on)),
    ("allow_history_for_client", Set::Switch(|r, on| r.allow_history.client = on)),
    ("allow_history_for_anonymous", Set::Switch(|r, on| r.allow_history.anonymous = on)),
    ("allow_history_for_subscriber", Set::Switch(|r, on| r.allow_history.subscriber = on)),
    ("allow_presence_for_client", Set::Switch(|r, on| r.allow_presence.client = on)),
    ("allow_presence_for_anonymous", Set::Switch(|r, on| r.allow_presence.anonymous = on)),
    ("allow_presence_for_subscriber", Set::Switch(|r, on| r.allow_presence.subscriber = on)),
    ("allow_user_limited_channels", Set::Switch(|r, on| r.allow_user_limited_channels = on)),
];

/// What Centrifugo has and throng has not: what a name starts with, and what to do instead.
pub(crate) const NOT_HERE: &[(&str, &str)] = &[
    ("http_server.tls", "throng speaks no TLS yet: end it in a proxy before it"),
    ("http_server.internal", "everything is served on one port"),
    ("http_server.", "HTTP/1.1 is what is served"),
    ("log.file", "the log goes to standard error"),
    ("engine", "topics live in the memory of one process"),
    ("broker", "topics live in the memory of one process"),
    ("presence_manager", "presence lives in the memory of one process"),
    ("map_broker", "there are no map subscriptions"),
    ("controller", "there is one process"),
    ("shared_poll", "there are no shared poll subscriptions"),
    ("client.proxy", "there are no proxies: use tokens, or write a service with the library"),
    ("client.token.", "tokens are signed with HS256: set client.token.hmac_secret_key"),
    ("client.subscription_token.", "tokens are signed with HS256: set client.subscription_token.hmac_secret_key"),
    ("client.disallow_anonymous_connection_tokens", "tokens of the empty user count"),
    ("client.expired_close_delay", "it is 25 s"),
    ("client.expired_sub_close_delay", "it is 25 s"),
    ("client.presence_update_interval", "presence is exact and needs no updates"),
    ("client.concurrency", "commands of a client are seen to one after another"),
    (
        "client.channel_position_",
        "positions are not checked, since no message is lost between a topic and its subscribers",
    ),
    ("client.user_connection_limit", "users are not limited yet"),
    ("client.connection_rate_limit", "connections are not limited by rate yet"),
    ("client.connect_include_server_time", "the time is not in the reply"),
    ("client.history_max_publication_limit", "it is 300"),
    ("client.recovery_max_publication_limit", "as many are recovered as are kept"),
    ("client.insecure_skip_token_signature_verify", "signatures are always checked; client.insecure looks at no token"),
    ("client.user_id_http_header", "users come with tokens"),
    ("client.subscribe_to_user_personal_channel.single_connection", "a user may have many connections"),
    ("client.connect_code_to_unidirectional_disconnect", "there are no unidirectional transports of Centrifugo's"),
    ("channel.proxy", "there are no proxies: use tokens, or write a service with the library"),
    ("channel.publication_data_format", "publications are JSON or bytes"),
    ("rpc", "write a service with the library to handle RPC"),
    ("proxies", "there are no proxies: use tokens, or write a service with the library"),
    ("http_api.", "the API is at /api/, and on when it has a key"),
    ("grpc_api", "the server API is HTTP"),
    ("consumers", "publish through the server API"),
    ("websocket.compression_prepared_message_cache_size", "what is published is compressed once in any case"),
    ("websocket.", "it is at /connection/websocket, and its buffers are throng's own"),
    ("http_stream.", "it is at /connection/http_stream, and its requests are as long as messages"),
    ("sse.", "it is at /connection/sse, and its requests are as long as messages"),
    ("emulation", "it is at /emulation, and its requests are as long as messages"),
    ("webtransport", "there is no WebTransport"),
    ("uni_", "a topic's URL serves WebSocket, event streams and polls to any client"),
    ("admin", "there is no admin page"),
    ("prometheus", "metrics are always at /metrics"),
    ("health", "health is always at /healthz"),
    ("swagger", "there is no Swagger page"),
    ("debug", "use perf: the binary has line tables"),
    ("init", "there is no such endpoint"),
    ("opentelemetry", "metrics are at /metrics"),
    ("graphite", "metrics are at /metrics"),
    ("usage_stats", "nothing is reported to anybody"),
    ("node", "there is one process"),
    ("pid_file", "let the service manager keep it"),
    ("enable_unreleased_features", "there are none"),
];

/// The same for the rules of channels.
pub(crate) const RULES_NOT_HERE: &[(&str, &str)] = &[
    ("map_", "there are no map subscriptions"),
    ("map", "there are no map subscriptions"),
    ("shared_poll", "there are no shared poll subscriptions"),
    ("subscription_type", "all subscriptions are streams"),
    ("force_recovery_mode", "recovery sends all that was missed"),
    ("auto_cache_recover", "recovery sends all that was missed"),
    ("allowed_delta_types", "there are no deltas"),
    ("delta_publish", "there are no deltas"),
    ("allow_tags_filter", "there are no tag filters"),
    ("channel_regex", "names are bounded by channel.max_length alone"),
    ("publication_data_format", "publications are JSON or bytes"),
    ("subscribe_", "there are no proxies: use tokens, or write a service with the library"),
    ("publish_", "there are no proxies: use tokens, or write a service with the library"),
    ("sub_refresh_", "there are no proxies: use tokens, or write a service with the library"),
];

#[cfg(test)]
mod tests {
    use super::*;

    const MANUAL: &str = include_str!("../../../docs/centrifugo.md");

    /// The names in the first column of the tables under a heading.
    fn names(heading: &str) -> Vec<&'static str> {
        let start = MANUAL.find(&format!("\n## {heading}\n")).expect(heading) + 4;
        let section = &MANUAL[start..];
        let section = &section[..section.find("\n## ").unwrap_or(section.len())];
        let rows = section.lines().filter(|line| line.starts_with("| `"));
        let cells = rows.filter_map(|row| row.split('|').nth(1));
        cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect()
    }

    fn sorted<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
        let mut names: Vec<_> = names.into_iter().collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn the_manual_has_every_setting_and_no_other() {
        assert_eq!(sorted(names("Settings")), sorted(SETTINGS.iter().map(|(name, _)| *name)));
        assert_eq!(sorted(names("Rules of channels")), sorted(RULES.iter().map(|(name, _)| *name)));
    }

    #[test]
    fn what_the_manual_says_is_not_here_is_refused_with_what_to_do() {
        let names = names("Not here");
        assert!(names.len() > 20, "{names:?}");
        for name in names {
            let is_set =
                SETTINGS.iter().any(|(setting, _)| *setting == name) || RULES.iter().any(|(rule, _)| *rule == name);
            let is_known = NOT_HERE.iter().chain(RULES_NOT_HERE).any(|(start, _)| name.starts_with(start));
            assert!(is_known && !is_set, "{name}");
        }
    }

    #[test]
    fn every_name_is_there_once_and_is_not_said_to_be_missing() {
        let all = sorted(SETTINGS.iter().map(|(name, _)| *name));
        assert!(all.windows(2).all(|pair| pair[0] != pair[1]));
        for (name, instead) in NOT_HERE.iter().chain(RULES_NOT_HERE) {
            assert!(!all.contains(name) && !RULES.iter().any(|(rule, _)| rule == name), "{name}");
            assert!(!instead.is_empty(), "{name}");
        }
    }
}
