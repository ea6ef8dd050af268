//! What can be set, as it is kept, and what several settings make together.

use super::table::{ADDRESS, LISTEN, PORT};
use super::value::{Listen, Mode, Secret};
use super::{Fault, Loaded};
use crate::log::Format;
use crate::memory;
use log::LevelFilter;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use throng::{Compression, Config, Drain, Memory, TokenKeys, limits};

/// What can be set; each is a row of [`SETTINGS`](super::table::SETTINGS).
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// What the library's server is told, with its defaults.
    pub(crate) server: Config,
    pub(crate) address: Option<IpAddr>,
    pub(crate) port: Option<u16>,
    pub(crate) echo: bool,
    /// Where to listen, over address and port.
    pub(crate) listen: Vec<Listen>,
    pub(crate) listen_mode: Mode,
    pub(crate) drain_delay: Duration,
    pub(crate) drain: Duration,
    /// 0: as much as there is. Nothing is set: [`memory::half`].
    pub(crate) memory_max: Option<u64>,
    pub(crate) compresses: bool,
    pub(crate) compression: Compression,
    pub(crate) log_level: LevelFilter,
    pub(crate) log_format: Format,
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
    pub(crate) api_key: Secret,
    pub(crate) api_insecure: bool,
    pub(crate) http_stream: bool,
    pub(crate) sse: bool,
}

/// What tokens are checked with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tokens {
    pub(crate) secret: Secret,
    pub(crate) previous: Secret,
    pub(crate) previous_until: u64,
    pub(crate) audience: String,
    pub(crate) issuer: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            server: Config::default(),
            address: None,
            port: None,
            echo: false,
            listen: Vec::new(),
            listen_mode: Mode(Config::default().listen_unix_mode),
            drain_delay: Duration::ZERO,
            drain: Duration::from_secs(5),
            memory_max: None,
            compresses: false,
            compression: Compression::default(),
            log_level: LevelFilter::Info,
            log_format: Format::Text,
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
            api_key: Secret::default(),
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
        for listen in &self.listen {
            match listen {
                Listen::Address(address) => config.listen.push(*address),
                Listen::Unix(path) => config.listen_unix.push(path.clone()),
            }
        }
        config.listen_unix_mode = self.listen_mode.0;
        if self.address.is_some() || self.port.is_some() {
            let (address, port) = (Config::ADDRESS.ip(), Config::ADDRESS.port());
            config.listen.push(SocketAddr::new(self.address.unwrap_or(address), self.port.unwrap_or(port)));
        }
        let memory_max = self.memory_max.unwrap_or_else(memory::half);
        config.memory = (memory_max > 0).then_some(Memory { bytes_max: memory_max, used: memory::used });
        config.compression = self.compresses.then_some(self.compression);
        // Where tokens are looked at, they guard what is private, by whatever way one comes.
        if config.topics.is_open() && !(self.tokens.secret.is_empty() && self.subscription_tokens.secret.is_empty()) {
            config.topics.private_prefix = "$".to_owned();
        }
        config
    }

    /// How the server ends.
    pub(crate) fn drain(&self) -> Drain {
        Drain { delay: self.drain_delay, over: self.drain }
    }

    /// What cannot be together, beside what the library says of its own settings.
    fn conflicts(&self, faults: &mut Vec<Fault>) {
        let mut fault = |setting: &str, what: String| faults.push(Fault { setting: setting.to_owned(), what });
        if self.has_subscription_tokens && self.subscription_tokens.secret.is_empty() {
            let what = "subscription tokens are to have keys of their own, and there is none: set client.subscription_token.hmac_secret_key too";
            fault("client.subscription_token.enabled", what.to_owned());
        }
        let (personal, topics) = (&self.personal_namespace, &self.server.topics);
        let is_known = personal.is_empty() || topics.is_open() || topics.has_namespace(personal);
        if self.has_personal_channel && !is_known {
            let what = format!("the namespace {personal:?} is not configured: add it to channel.namespaces");
            fault("client.subscribe_to_user_personal_channel.personal_channel_namespace", what);
        }
    }
}

impl Loaded {
    /// Everything that cannot be, each with its setting.
    pub(crate) fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        self.settings.conflicts(&mut faults);
        for error in self.settings.config().faults() {
            faults.push(Fault { setting: super::table::setting_of(error.field()), what: error.to_string() });
        }
        faults
    }

    /// Leaves addresses that were said where more counts than where the others were: those of a flag are not added to.
    pub(super) fn choose_addresses(&mut self) {
        let said = |name| self.origins.get(name).map_or(0, super::Origin::weight);
        let (listen, address) = (said(LISTEN), said(ADDRESS).max(said(PORT)));
        if listen > address {
            (self.settings.address, self.settings.port) = (None, None);
            self.origins.remove(ADDRESS);
            self.origins.remove(PORT);
        } else if address > listen {
            self.settings.listen.clear();
            self.origins.remove(LISTEN);
        }
    }
}

impl Tokens {
    /// What tokens are checked with, if there is a secret.
    pub(crate) fn keys(&self) -> Option<TokenKeys> {
        let mut keys = (!self.secret.is_empty()).then(|| TokenKeys::new(&self.secret))?;
        if !self.previous.is_empty() {
            keys = keys.previous(&self.previous, self.previous_until);
        }
        if !self.audience.is_empty() {
            keys = keys.audience(&self.audience);
        }
        if !self.issuer.is_empty() {
            keys = keys.issuer(&self.issuer);
        }
        Some(keys)
    }
}
