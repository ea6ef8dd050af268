//! Every setting of the configuration file: one table, from which reading, suggestions and refusals follow.

use crate::memory;
use log::LevelFilter;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use throng::{Compression, Config, Memory, SlowReaders, TopicRules, limits};

/// What can be set; durations are as in the file.
#[derive(Debug)]
pub(crate) struct Settings {
    /// What the library's server is told, with its defaults.
    pub(crate) server: Config,
    pub(crate) address: Option<IpAddr>,
    pub(crate) port: Option<u16>,
    pub(crate) drain: Duration,
    /// 0: as much as there is. Nothing is set: [`memory::half`].
    pub(crate) memory_max: Option<u64>,
    pub(crate) compresses: bool,
    pub(crate) compression: Compression,
    pub(crate) log_level: LevelFilter,
    /// Centrifugo's clients have pings of their own.
    pub(crate) client_ping_interval: Duration,
    pub(crate) client_pong_timeout: Duration,
    pub(crate) client_connect_timeout: Duration,
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
        Self {
            server: Config::default(),
            address: None,
            port: None,
            drain: Duration::from_secs(5),
            memory_max: None,
            compresses: false,
            compression: Compression::default(),
            log_level: LevelFilter::Info,
            client_ping_interval: limits::CENTRIFUGO_PING_INTERVAL,
            client_pong_timeout: limits::CENTRIFUGO_PONG_TIMEOUT,
            client_connect_timeout: limits::CENTRIFUGO_CONNECT_TIMEOUT,
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
    /// What the server is told: what several settings make together is put together.
    pub(crate) fn config(&self) -> Config {
        let mut config = self.server.clone();
        if self.address.is_some() || self.port.is_some() {
            let (address, port) = (Config::ADDRESS.ip(), Config::ADDRESS.port());
            config.listen.push(SocketAddr::new(self.address.unwrap_or(address), self.port.unwrap_or(port)));
        }
        let memory_max = self.memory_max.unwrap_or_else(memory::half);
        config.memory = (memory_max > 0).then_some(Memory { bytes_max: memory_max, used: memory::used });
        config.compression = self.compresses.then_some(self.compression);
        config
    }
}

/// How a value is taken. What is wrong with it is said without its name.
pub(crate) enum Set<T> {
    Switch(fn(&mut T, bool)),
    Number(fn(&mut T, u64) -> Result<(), String>),
    Duration(fn(&mut T, Duration)),
    Text(fn(&mut T, &str) -> Result<(), String>),
    /// Any text.
    Word(fn(&mut T) -> &mut String),
    /// Any text, which is not shown.
    Secret(fn(&mut T) -> &mut Vec<u8>),
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

/// What becomes of slow readers, by name.
pub(crate) const POLICIES: [(&str, SlowReaders); 2] =
    [("disconnect", SlowReaders::Disconnect), ("skip", SlowReaders::Skip)];

pub(crate) fn policy(name: &str) -> Option<SlowReaders> {
    POLICIES.iter().find(|(known, _)| *known == name).map(|(_, policy)| *policy)
}

pub(crate) fn policy_name(policy: SlowReaders) -> &'static str {
    POLICIES.iter().find(|(_, known)| *known == policy).map_or("", |(name, _)| name)
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
            s.server.origins.push(origin.to_owned());
            Ok(())
        }),
    ),
    ("client.ping_interval", Set::Duration(|s, time| s.client_ping_interval = time)),
    ("client.pong_timeout", Set::Duration(|s, time| s.client_pong_timeout = time)),
    ("client.stale_close_delay", Set::Duration(|s, time| s.client_connect_timeout = time)),
    ("client.channel_limit", Set::Number(|s, n| fits(n).map(|n| s.server.subscriptions_max = n))),
    ("client.queue_max_size", Set::Number(|s, n| limit(n).map(|n| s.server.queue_bytes_max = n))),
    ("client.connection_limit", Set::Number(|s, n| limit(n).map(|n| s.server.connections_max = n))),
    ("client.allow_anonymous_connect_without_token", Set::Switch(|s, on| s.anonymous = on)),
    ("client.insecure", Set::Switch(|s, on| s.insecure = on)),
    ("client.subscribe_to_user_personal_channel.enabled", Set::Switch(|s, on| s.has_personal_channel = on)),
    ("client.subscribe_to_user_personal_channel.personal_channel_namespace", Set::Word(|s| &mut s.personal_namespace)),
    ("client.token.hmac_secret_key", Set::Secret(|s| &mut s.tokens.secret)),
    ("client.token.hmac_previous_secret_key", Set::Secret(|s| &mut s.tokens.previous)),
    (
        "client.token.hmac_previous_secret_key_valid_until",
        Set::Number(|s, at| {
            s.tokens.previous_until = at;
            Ok(())
        }),
    ),
    ("client.token.audience", Set::Word(|s| &mut s.tokens.audience)),
    ("client.token.issuer", Set::Word(|s| &mut s.tokens.issuer)),
    ("client.subscription_token.enabled", Set::Switch(|s, on| s.has_subscription_tokens = on)),
    ("client.subscription_token.hmac_secret_key", Set::Secret(|s| &mut s.subscription_tokens.secret)),
    ("client.subscription_token.hmac_previous_secret_key", Set::Secret(|s| &mut s.subscription_tokens.previous)),
    (
        "client.subscription_token.hmac_previous_secret_key_valid_until",
        Set::Number(|s, at| {
            s.subscription_tokens.previous_until = at;
            Ok(())
        }),
    ),
    ("client.subscription_token.audience", Set::Word(|s| &mut s.subscription_tokens.audience)),
    ("client.subscription_token.issuer", Set::Word(|s| &mut s.subscription_tokens.issuer)),
    ("channel.max_length", Set::Number(|s, n| fits(n).map(|n| s.server.topics.max_length = n))),
    ("channel.history_meta_ttl", Set::Duration(|s, time| s.server.topics.history_meta_ttl = time)),
    ("channel.private_prefix", Set::Word(|s| &mut s.server.topics.private_prefix)),
    ("channel.namespace_boundary", Set::Word(|s| &mut s.server.topics.namespace_boundary)),
    ("channel.user_boundary", Set::Word(|s| &mut s.server.topics.user_boundary)),
    ("channel.user_separator", Set::Word(|s| &mut s.server.topics.user_separator)),
    ("http_api.key", Set::Secret(|s| &mut s.api_key)),
    ("http_api.insecure", Set::Switch(|s, on| s.api_insecure = on)),
    ("websocket.message_size_limit", Set::Number(|s, n| fits(n).map(|n| s.server.message_bytes_max = n))),
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
            s.log_level = level.parse().map_err(|_| "off, error, warn, info, debug or trace".to_owned())?;
            Ok(())
        }),
    ),
    // Ours.
    (
        "throng.listen",
        Set::Texts(|s, address| {
            s.server.listen.push(
                address.parse().map_err(|_| "an address and a port, such as 127.0.0.1:8080 or [::]:80".to_owned())?,
            );
            Ok(())
        }),
    ),
    ("throng.workers", Set::Number(|s, n| fits(n).map(|n| s.server.workers = Some(n)))),
    ("throng.pin", Set::Switch(|s, on| s.server.pin = on)),
    ("throng.shared_fds", Set::Switch(|s, on| s.server.shared_descriptors = on)),
    (
        "throng.max_connections_per_address",
        Set::Number(|s, n| limit(n).map(|n| s.server.connections_per_address_max = n)),
    ),
    ("throng.accept_rate", Set::Number(|s, n| fits(n).map(|n| s.server.accept_rate = Some(n).filter(|&n| n > 0)))),
    ("throng.max_topics", Set::Number(|s, n| fits(n).map(|n| s.server.topics_max = n))),
    (
        "throng.slow",
        Set::Text(|s, name| {
            s.server.slow_readers = policy(name).ok_or("disconnect or skip")?;
            Ok(())
        }),
    ),
    ("throng.compression_context", Set::Number(|s, n| fits(n).map(|n| s.compression = s.compression.context(n)))),
    ("throng.command_rate", Set::Number(|s, n| fits(n).map(|n| s.command_rate = n))),
    ("throng.command_burst", Set::Number(|s, n| fits(n).map(|n| s.command_burst = n))),
    ("throng.ping_interval", Set::Duration(|s, time| s.server.ping_interval = time)),
    ("throng.pong_timeout", Set::Duration(|s, time| s.server.pong_timeout = time)),
    ("throng.head_timeout", Set::Duration(|s, time| s.server.head_timeout = time)),
    ("throng.idle_timeout", Set::Duration(|s, time| s.server.idle_timeout = time)),
    ("throng.close_timeout", Set::Duration(|s, time| s.server.close_timeout = time)),
    ("throng.write_timeout", Set::Duration(|s, time| s.server.write_timeout = time)),
    ("throng.message_timeout", Set::Duration(|s, time| s.server.message_timeout = time)),
    ("throng.message_rate", Set::Number(|s, n| fits(n).map(|n| s.server.message_rate = n))),
    ("throng.byte_rate", Set::Number(|s, n| fits(n).map(|n| s.server.byte_rate = n))),
    ("throng.control_rate", Set::Number(|s, n| fits(n).map(|n| s.server.control_rate = n))),
    ("throng.max_memory", Set::Number(|s, n| fits(n).map(|n| s.memory_max = Some(n)))),
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
    ("client.connection_rate_limit", "set throng.accept_rate: who comes too soon waits, and is not refused"),
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
