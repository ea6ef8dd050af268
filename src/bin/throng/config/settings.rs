//! What can be set, as it is kept, and what several settings make together.

use super::table::{ADDRESS, LISTEN, PORT};
use super::value::{Listen, Mode, Secret};
use super::{Fault, Loaded};
use crate::log::Format;
use crate::memory;
use log::LevelFilter;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;
use throng::{Compression, Config, Drain, Hosts, Memory, PublicKey, TokenKeys, limits};

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
    pub(crate) previous_api_key: Secret,
    /// Whoever reaches the server comes in, and that is meant.
    pub(crate) open: bool,
    pub(crate) token_cookie: String,
    pub(crate) jwks_refresh: Duration,
    pub(crate) api_insecure: bool,
    pub(crate) http_stream: bool,
    pub(crate) sse: bool,
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) admin_key: Secret,
    /// Nothing is set: where only this machine can ask.
    pub(crate) public_metrics: Option<bool>,
}

/// What tokens are checked with.
#[derive(Clone, Debug)]
pub(crate) struct Tokens {
    pub(crate) secret: Secret,
    pub(crate) previous: Secret,
    pub(crate) previous_until: u64,
    /// Public keys in PEM; empty: none.
    pub(crate) rsa: String,
    pub(crate) ecdsa: String,
    pub(crate) ed25519: String,
    pub(crate) jwks_file: String,
    pub(crate) jwks_url: String,
    pub(crate) user_claim: String,
    pub(crate) audience: String,
    pub(crate) issuer: String,
}

impl Default for Tokens {
    fn default() -> Self {
        let empty = String::new;
        Self {
            secret: Secret::default(),
            previous: Secret::default(),
            previous_until: 0,
            rsa: empty(),
            ecdsa: empty(),
            ed25519: empty(),
            jwks_file: empty(),
            jwks_url: empty(),
            user_claim: "sub".to_owned(),
            audience: empty(),
            issuer: empty(),
        }
    }
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
            previous_api_key: Secret::default(),
            open: false,
            token_cookie: String::new(),
            jwks_refresh: Duration::from_secs(600),
            api_insecure: false,
            http_stream: true,
            sse: true,
            admin: None,
            admin_key: Secret::default(),
            public_metrics: None,
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
        if config.topics.is_open() && (self.tokens.has_key() || self.subscription_tokens.has_key()) {
            config.topics.private_prefix = "$".to_owned();
        }
        if !self.open && !self.asks() {
            config.hosts = Hosts::Loopback;
        }
        config
    }

    /// How the server ends.
    pub(crate) fn drain(&self) -> Drain {
        Drain { delay: self.drain_delay, over: self.drain }
    }

    /// Whether anybody is asked who it is.
    fn asks(&self) -> bool {
        (self.tokens.has_key() || self.asks_application()) && !self.insecure && !self.api_insecure
    }

    /// Whether the application has to show its key.
    pub(crate) fn asks_application(&self) -> bool {
        !(self.api_key.is_empty() && self.previous_api_key.is_empty() || self.api_insecure)
    }

    /// Whether metrics are served on the public port.
    pub(crate) fn serves_metrics(&self) -> bool {
        let config = self.config();
        // Who comes through a Unix-domain socket comes from a proxy, and so from anywhere.
        let is_local =
            || config.listen_unix.is_empty() && config.listen.iter().all(|address| address.ip().is_loopback());
        self.public_metrics.unwrap_or_else(is_local)
    }

    /// Leaves what only a start takes as a running server has it, but for what the library leaves itself.
    pub(crate) fn keep_of(&mut self, running: &Self) {
        (self.address, self.port, self.listen_mode) = (running.address, running.port, running.listen_mode);
        self.listen.clone_from(&running.listen);
        self.tokens.jwks_url.clone_from(&running.tokens.jwks_url);
        self.subscription_tokens.jwks_url.clone_from(&running.subscription_tokens.jwks_url);
        (self.jwks_refresh, self.admin) = (running.jwks_refresh, running.admin);
        self.admin_key = running.admin_key.clone();
    }

    /// The keys of connection tokens, and of subscription tokens that have their own. None: there are none.
    pub(crate) fn token_keys(&self) -> [Result<TokenKeys, Fault>; 2] {
        let keys = |tokens: &Tokens, theirs: &str, ours: &str| {
            let keys = tokens.keys().map_err(|(setting, what)| {
                let prefix = if matches!(setting, "ed25519_public_key" | "jwks_file") { ours } else { theirs };
                Fault { setting: format!("{prefix}{setting}"), what }
            })?;
            Ok(keys.unwrap_or_else(TokenKeys::none))
        };
        let own = || keys(&self.subscription_tokens, "client.subscription_token.", "throng.subscription_token_");
        let subscription = if self.has_subscription_tokens { own() } else { Ok(TokenKeys::none()) };
        [keys(&self.tokens, "client.token.", "throng.token_"), subscription]
    }

    /// What cannot be together, beside what the library says of its own settings.
    fn conflicts(&self, faults: &mut Vec<Fault>) {
        faults.extend(self.token_keys().into_iter().filter_map(Result::err));
        let mut fault = |setting: &str, what: String| faults.push(Fault { setting: setting.to_owned(), what });
        if self.has_subscription_tokens && !self.subscription_tokens.has_key() {
            let what = "subscription tokens are to have keys of their own, and there is none: set client.subscription_token.hmac_secret_key too, or another of its keys";
            fault("client.subscription_token.enabled", what.to_owned());
        }
        if self.client_pong_timeout >= self.client_ping_interval {
            let what = "a client must answer a ping before the next one: less than client.ping_interval, please";
            fault("client.pong_timeout", what.to_owned());
        }
        self.access_conflicts(&mut fault);
        if self.admin.is_some_and(|address| !address.ip().is_loopback()) && self.admin_key.is_empty() {
            let what = "who reaches the admin port may see and disconnect everybody: set throng.admin_key too, or listen on 127.0.0.1";
            fault("throng.admin", what.to_owned());
        }
        let (personal, topics) = (&self.personal_namespace, &self.server.topics);
        let is_known = personal.is_empty() || topics.is_open() || topics.has_namespace(personal);
        if self.has_personal_channel && !is_known {
            let what = format!("the namespace {personal:?} is not configured: add it to channel.namespaces");
            fault("client.subscribe_to_user_personal_channel.personal_channel_namespace", what);
        }
    }
}

impl Settings {
    /// What would let in who is not meant.
    fn access_conflicts(&self, fault: &mut impl FnMut(&str, String)) {
        let beyond = |address: &SocketAddr| !address.ip().to_canonical().is_loopback();
        let config = self.config();
        if config.hosts == Hosts::Loopback
            && let Some(address) = config.listen.iter().find(|address| beyond(address))
        {
            let is_listed = self.listen.iter().any(|listen| matches!(listen, Listen::Address(own) if own == address));
            let setting = if is_listed { LISTEN } else { ADDRESS };
            let (why, instead) = match (self.insecure, self.api_insecure) {
                (true, _) => ("client.insecure looks at no token", "Switch client.insecure off"),
                (_, true) => ("http_api.insecure takes everybody for the application", "Switch http_api.insecure off"),
                _ => ("there is no key for tokens (client.token) nor for the API (http_api.key)", "Set one"),
            };
            let what = format!(
                "{address} can be reached by others, and nobody is asked who it is: {why}. {instead}, listen on 127.0.0.1, or say with --open (throng.open) that everybody may come in"
            );
            fault(setting, what);
        }
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if !self.token_cookie.bytes().all(is_token) {
            fault("throng.token_cookie", "a cookie's name is letters, digits and !#$%&'*+-.^_`|~".to_owned());
        }
        if !self.token_cookie.is_empty() && !self.tokens.has_key() {
            fault(
                "throng.token_cookie",
                "there is no key to check the tokens with: set one of client.token".to_owned(),
            );
        }
        if !self.token_cookie.is_empty() && self.server.origins.iter().any(|origin| origin == "*") {
            let what = "with `*` in client.allowed_origins every page could use its reader's cookie: name the origins";
            fault("throng.token_cookie", what.to_owned());
        }
        if self.jwks_refresh < Duration::from_secs(1) {
            fault("throng.token_jwks_refresh", "at least 1s".to_owned());
        }
    }
}

/// Secrets and keys with fewer bytes than these can be guessed, or tried out. RFC 7518, section 3.2: at least as many as the
/// hash has.
const SECRET_BYTES: usize = 32;
const API_KEY_BYTES: usize = 16;

impl Loaded {
    /// What can be, and should not.
    pub(crate) fn warnings(&self) -> Vec<Fault> {
        let Settings { tokens, subscription_tokens, api_key, previous_api_key, admin_key, .. } = &self.settings;
        let short = [
            ("client.token.hmac_secret_key", &tokens.secret, SECRET_BYTES),
            ("client.token.hmac_previous_secret_key", &tokens.previous, SECRET_BYTES),
            ("client.subscription_token.hmac_secret_key", &subscription_tokens.secret, SECRET_BYTES),
            ("client.subscription_token.hmac_previous_secret_key", &subscription_tokens.previous, SECRET_BYTES),
            ("http_api.key", api_key, API_KEY_BYTES),
            ("throng.previous_api_key", previous_api_key, API_KEY_BYTES),
            ("throng.admin_key", admin_key, API_KEY_BYTES),
        ];
        let short = short.into_iter().filter(|(_, secret, least)| !secret.is_empty() && secret.len() < *least);
        let warning = |(setting, secret, least): (&str, &Secret, usize)| {
            let what = format!("{} bytes can be guessed: take at least {least} random ones", secret.len());
            Fault { setting: setting.to_owned(), what }
        };
        short.map(warning).collect()
    }

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
    /// Whether there is anything to check a token with.
    pub(crate) fn has_key(&self) -> bool {
        let Self { rsa, ecdsa, ed25519, jwks_file, jwks_url, .. } = self;
        !self.secret.is_empty() || [rsa, ecdsa, ed25519, jwks_file, jwks_url].iter().any(|key| !key.is_empty())
    }

    /// What tokens are checked with, if there is anything.
    ///
    /// # Errors
    ///
    /// Which setting is wrong, by its last name, and why.
    pub(crate) fn keys(&self) -> Result<Option<TokenKeys>, (&'static str, String)> {
        if !self.has_key() {
            // Whoever took the key away meant to close something, and would have opened it.
            return if self.previous.is_empty() {
                Ok(None)
            } else {
                let what = "the secret before needs one after it: set hmac_secret_key too, or another key";
                Err(("hmac_previous_secret_key", what.to_owned()))
            };
        }
        let mut keys = TokenKeys::none();
        if !self.secret.is_empty() {
            keys = keys.secret(&self.secret);
        }
        if !self.previous.is_empty() {
            keys = keys.previous(&self.previous, self.previous_until);
        }
        for (setting, kind, pem) in [
            ("rsa_public_key", PublicKey::Rsa, &self.rsa),
            ("ecdsa_public_key", PublicKey::Ecdsa, &self.ecdsa),
            ("ed25519_public_key", PublicKey::Ed25519, &self.ed25519),
        ] {
            if !pem.is_empty() {
                keys = keys.public_key(kind, pem).map_err(|error| (setting, error.to_string()))?;
            }
        }
        if !self.jwks_file.is_empty() {
            let fault = |error: &dyn std::fmt::Display| ("jwks_file", format!("{}: {error}", self.jwks_file));
            let json = std::fs::read(Path::new(&self.jwks_file)).map_err(|error| fault(&error))?;
            keys = keys.jwks(&json).map_err(|error| fault(&error))?;
        }
        if !self.jwks_url.is_empty() {
            let url = &self.jwks_url;
            if url.contains("{{") {
                let what = "one endpoint for all tokens is what is taken: no {{...}} in its URL";
                return Err(("jwks_public_endpoint", what.to_owned()));
            }
            if !url.starts_with("https://") && !url.starts_with("http://") {
                return Err(("jwks_public_endpoint", "a URL, https://... or http://...".to_owned()));
            }
            keys = keys.fetching();
        }
        if !self.user_claim.is_empty() {
            keys = keys.user_claim(&self.user_claim);
        }
        if !self.audience.is_empty() {
            keys = keys.audience(&self.audience);
        }
        if !self.issuer.is_empty() {
            keys = keys.issuer(&self.issuer);
        }
        Ok(Some(keys))
    }
}
