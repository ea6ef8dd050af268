//! `throng serve`.

use crate::file;
use crate::settings::{POLICIES, Settings, Tokens, policy, policy_name};
use clap::Arg;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use log::LevelFilter;
use std::error::Error;
use std::fmt::Display;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;
use throng::{
    Accept, Allow, Answer, ApiKey, Centrifugo, Config, Connection, Decision, Handle, Message, Mounted, Request,
    Response, RuleSet, Seat, Server, Service, SlowReaders, TokenKeys, TopicUrl,
};

const MORE: &str = "\
/connection/websocket takes the clients of Centrifugo's SDKs; their channels are topics. Without
a WebSocket they come to /connection/http_stream or /connection/sse, and what they send to /emulation.
POST /api/METHOD is Centrifugo's server API, with --api-key-file or http_api.key.
/topics/NAME is a topic: POST publishes to it; a WebSocket, an EventSource, a long poll (?wait=30) and a poll read it, each
from ?since=CURSOR where it left off. GET /healthz answers `ok`, GET /metrics Prometheus's text format. Any other path is a
WebSocket that is kept open, and echoed with --echo.

  throng serve --echo                                 an echo on 127.0.0.1:8080
  throng serve --listen 0.0.0.0:80 --listen [::]:80   IPv4 and IPv6
  throng serve --config throng.toml                   what is in the file: docs/centrifugo.md
  throng serve --max-connections 1000000              as many workers as it takes; no root, no raised limit

Exit status: 0 after a signal, 1 when it cannot start or a worker fails, 2 for a wrong command line.";

/// What can be set on the command line, over what the file says.
#[derive(clap::Args)]
#[command(after_help = MORE)]
pub(crate) struct Options {
    /// File with the settings (throng.toml), in Centrifugo's names: docs/centrifugo.md has them all. What is given on the
    /// command line counts more
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address to listen on; may be given several times, IPv4 and IPv6; port 0 is any free one
    #[arg(long, value_name = "ADDR", by_default = |_| Config::ADDRESS)]
    listen: Vec<SocketAddr>,
    /// Worker threads, each with its own event loop [default: one per core, more where the connections
    /// would not fit into that many descriptor tables]
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// Most connections at a time; the next one gets a 503 [default: what the descriptor tables hold]
    #[arg(long, value_name = "N")]
    max_connections: Option<usize>,
    /// Most connections of one address at a time, IPv6 by its /64; the next one gets a 429. Not behind a proxy, where all
    /// clients have its address [default: no limit of its own]
    #[arg(long, value_name = "N")]
    max_connections_per_address: Option<usize>,
    /// Most connections accepted in a second, and as many at once after a rest; those beyond wait in the kernel [default:
    /// any number]
    #[arg(long, value_name = "N")]
    accept_rate: Option<u32>,
    /// Longest message; a longer one ends the connection with close code 1009
    #[arg(long, value_name = "BYTES", by_default = |s| s.server.message_bytes_max)]
    max_message: Option<usize>,
    /// Compress messages for WebSocket clients that offer it (permessage-deflate, RFC 7692), as browsers do: fewer bytes for
    /// more CPU time; idle connections cost no more
    #[arg(long)]
    compression: bool,
    /// Send every message back to its sender
    #[arg(long)]
    echo: bool,
    /// A client that is silent this long is pinged (proxies drop idle connections after 30 s to 300 s)
    #[arg(long, value_name = "S", value_parser = seconds, by_default = |s| s.server.ping_interval.as_secs_f64())]
    ping_interval: Option<Duration>,
    /// A pinged client that sends nothing for this long is closed (1011)
    #[arg(long, value_name = "S", value_parser = seconds, by_default = |s| s.server.pong_timeout.as_secs_f64())]
    pong_timeout: Option<Duration>,
    /// Time for a request's head to be complete, from accept, and again for its body
    #[arg(long, value_name = "S", value_parser = seconds, by_default = |s| s.server.head_timeout.as_secs_f64())]
    head_timeout: Option<Duration>,
    /// A connection between two requests is closed after this time
    #[arg(long, value_name = "S", value_parser = seconds, by_default = |s| s.server.idle_timeout.as_secs_f64())]
    idle_timeout: Option<Duration>,
    /// Let pages of this origin in, beside those of this host: https://app.example.com, https://*.example.com for
    /// all below that host, * for all; may be given several times
    #[arg(long, value_name = "ORIGIN")]
    allow_origin: Vec<String>,
    /// Time for the client's close frame after ours
    #[arg(long, value_name = "S", value_parser = seconds, by_default = |s| s.server.close_timeout.as_secs_f64())]
    close_timeout: Option<Duration>,
    /// A client that takes no byte for this long, while something waits for it, is reset
    #[arg(long, value_name = "S", value_parser = seconds, by_default = |s| s.server.write_timeout.as_secs_f64())]
    write_timeout: Option<Duration>,
    /// Time for a WebSocket's message from its first byte to its last, in however many frames and pieces; else the connection
    /// is closed (1008)
    #[arg(long, value_name = "S", value_parser = seconds, by_default = |s| s.server.message_timeout.as_secs_f64())]
    message_timeout: Option<Duration>,
    /// Most messages and requests a second of one connection, in bursts of up to five seconds' worth: who sends more is not read
    /// for a while, and after 10 s of that closed (1008, or 429); 0: no limit
    #[arg(long, value_name = "N", by_default = |s| s.server.message_rate)]
    message_rate: Option<u32>,
    /// The same of bytes; 0: no limit
    #[arg(long, value_name = "BYTES", by_default = |s| s.server.byte_rate)]
    byte_rate: Option<u64>,
    /// The same of pings, and of pongs that were not asked for; 0: no limit
    #[arg(long, value_name = "N", by_default = |s| s.server.control_rate)]
    control_rate: Option<u32>,
    /// Most memory to be in use: over it new connections get a 503, and those that hold most are reset until it is enough;
    /// 0: no limit [default: half of what the machine or its control group has]
    #[arg(long, value_name = "BYTES")]
    max_memory: Option<u64>,
    /// At SIGTERM or SIGINT everybody is closed with 1001 (Centrifugo's clients with 3001), spread over this time; a second
    /// signal ends at once
    #[arg(long, value_name = "S", value_parser = seconds, by_default = |s| s.drain.as_secs_f64())]
    drain: Option<Duration>,
    /// Most messages that a topic keeps for those who come late or read slowly; 0: no history. This and
    /// the rules of topics that follow are for those without a namespace, where a file has rules for namespaces
    #[arg(long, value_name = "N", by_default = |s| s.server.topics.without_namespace.history_size)]
    history_size: Option<usize>,
    /// Most bytes that a topic keeps
    #[arg(long, value_name = "BYTES", by_default = |s| s.server.topics.without_namespace.history_bytes)]
    history_bytes: Option<usize>,
    /// How long a topic keeps a message
    #[arg(long, value_name = "S", value_parser = seconds,
        by_default = |s| s.server.topics.without_namespace.history_ttl.as_secs_f64())]
    history_ttl: Option<Duration>,
    /// How long a topic's position outlives its messages, while nobody listens
    #[arg(long, value_name = "S", value_parser = seconds,
        by_default = |s| s.server.topics.history_meta_ttl.as_secs_f64())]
    history_meta_ttl: Option<Duration>,
    /// A subscriber that reads so slowly that its next message is no longer kept is disconnected, or told of the gap and
    /// skips to the newest
    #[arg(long, value_name = "POLICY", value_parser = policies(), by_default = |s| policy_name(s.server.slow_readers))]
    slow: Option<SlowReaders>,
    /// Most topics; one more takes the place of an idle one, or gets a 503
    #[arg(long, value_name = "N", by_default = |s| s.server.topics_max)]
    max_topics: Option<usize>,
    /// Have topics know who subscribes: GET /topics/NAME/presence
    #[arg(long)]
    presence: bool,
    /// Let every one of Centrifugo's clients come back to its position, whether or not it asks for that
    #[arg(long)]
    force_recovery: bool,
    /// Have Centrifugo's clients that ask for it told of each other's coming and going
    #[arg(long)]
    join_leave: bool,
    /// Let every client publish, to a topic by sending on its WebSocket
    #[arg(long)]
    client_publish: bool,
    /// Serve Centrifugo's server API (POST /api/METHOD) to whoever sends the key that this file holds, who may do
    /// everything at a topic's URL too [default: the key in the environment variable THRONG_API_KEY; without one the API is
    /// off]
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Serve the server API without a key, to everybody
    #[arg(long)]
    api_insecure: bool,
    /// File with the secret that the connection tokens of clients are signed with (HS256); Centrifugo's clients then need
    /// one [default: the environment's THRONG_TOKEN_SECRET, if any]
    #[arg(long, value_name = "FILE")]
    token_secret_file: Option<PathBuf>,
    /// File with the secret of subscription tokens [default: the environment's THRONG_SUBSCRIPTION_TOKEN_SECRET, or
    /// that of connection tokens]
    #[arg(long, value_name = "FILE")]
    subscription_token_secret_file: Option<PathBuf>,
    /// Let Centrifugo's clients connect without a token as well
    #[arg(long)]
    allow_anonymous: bool,
    /// Leave all workers in one descriptor table: `ulimit -n` then counts for all of them together
    #[arg(long)]
    shared_fds: bool,
    /// Keep each worker on one core
    #[arg(long)]
    pin: bool,
    /// Least important lines to log: off, error, warn, info, debug
    #[arg(long, value_name = "LEVEL", by_default = |s| s.log_level.as_str().to_lowercase())]
    log_level: Option<LevelFilter>,
}

/// The help shows what holds without an option, which the library says: an option that is not given leaves the file's to count.
trait ByDefault {
    fn by_default<D: Display>(self, of: fn(&Settings) -> D) -> Self;
}

impl ByDefault for Arg {
    fn by_default<D: Display>(self, of: fn(&Settings) -> D) -> Self {
        let help = self.get_help().map(ToString::to_string).unwrap_or_default();
        self.help(format!("{help} [default: {}]", of(&Settings::default())))
    }
}

fn policies() -> impl TypedValueParser<Value = SlowReaders> {
    PossibleValuesParser::new(POLICIES.map(|(name, _)| name)).try_map(|name| policy(&name).ok_or("no such policy"))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds, such as 25 or 0.5".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

/// A secret in a file or in the environment, so that it is not on a command line that others can see.
fn secret(file: Option<&Path>, variable: &str) -> Result<Option<Vec<u8>>, String> {
    let (place, secret) = match (file, std::env::var_os(variable)) {
        (Some(file), _) => {
            let secret = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
            (file.display().to_string(), secret)
        }
        (None, Some(secret)) => (variable.to_owned(), secret.into_encoded_bytes()),
        (None, None) => return Ok(None),
    };
    // Editors end files with a line end, which is none of the secret's.
    let secret = secret.strip_suffix(b"\n").unwrap_or(&secret);
    let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
    if secret.trim_ascii().is_empty() {
        return Err(format!("{place}: the secret is empty; leave it out if none is wanted"));
    }
    Ok(Some(secret.to_vec()))
}

/// Sets what was given.
fn over<T>(setting: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *setting = given;
    }
}

impl Options {
    /// The settings: the defaults, the file's over them, and over those what was given here.
    pub(crate) fn settings(&self) -> Result<Settings, String> {
        let mut settings = Settings::default();
        if let Some(file) = &self.config {
            let name = file.display().to_string();
            let text = std::fs::read_to_string(file).map_err(|error| format!("{name}: {error}"))?;
            file::apply(&mut settings, &name, &text)?;
        }
        let s = &mut settings;
        if !self.listen.is_empty() {
            (s.server.listen, s.address, s.port) = (self.listen.clone(), None, None);
        }
        over(&mut s.server.workers, self.workers.map(Some));
        over(&mut s.server.connections_max, self.max_connections.map(Some));
        over(&mut s.server.connections_per_address_max, self.max_connections_per_address.map(Some));
        over(&mut s.server.accept_rate, self.accept_rate.map(Some));
        over(&mut s.server.message_bytes_max, self.max_message);
        over(&mut s.server.ping_interval, self.ping_interval);
        over(&mut s.server.pong_timeout, self.pong_timeout);
        over(&mut s.server.head_timeout, self.head_timeout);
        over(&mut s.server.idle_timeout, self.idle_timeout);
        over(&mut s.server.close_timeout, self.close_timeout);
        over(&mut s.server.write_timeout, self.write_timeout);
        over(&mut s.server.message_timeout, self.message_timeout);
        over(&mut s.server.message_rate, self.message_rate);
        over(&mut s.server.byte_rate, self.byte_rate);
        over(&mut s.server.control_rate, self.control_rate);
        over(&mut s.memory_max, self.max_memory.map(Some));
        over(&mut s.drain, self.drain);
        over(&mut s.server.topics_max, self.max_topics);
        over(&mut s.log_level, self.log_level);
        over(&mut s.server.slow_readers, self.slow);
        s.server.origins.extend(self.allow_origin.iter().cloned());
        s.compresses |= self.compression;
        s.server.shared_descriptors |= self.shared_fds;
        s.server.pin |= self.pin;
        self.rules(&mut s.server.topics);
        self.access(s)?;
        Ok(settings)
    }

    fn rules(&self, topics: &mut RuleSet) {
        over(&mut topics.history_meta_ttl, self.history_meta_ttl);
        let rules = &mut topics.without_namespace;
        over(&mut rules.history_size, self.history_size);
        over(&mut rules.history_bytes, self.history_bytes);
        over(&mut rules.history_ttl, self.history_ttl);
        rules.presence |= self.presence;
        rules.join_leave |= self.join_leave;
        rules.force_recovery |= self.force_recovery;
        if self.client_publish {
            rules.allow_publish = Allow::EVERYBODY;
        }
    }

    /// Who may come in.
    fn access(&self, s: &mut Settings) -> Result<(), String> {
        over(&mut s.api_key, secret(self.api_key_file.as_deref(), "THRONG_API_KEY")?);
        over(&mut s.tokens.secret, secret(self.token_secret_file.as_deref(), "THRONG_TOKEN_SECRET")?);
        let subscriptions = self.subscription_token_secret_file.as_deref();
        if let Some(secret) = secret(subscriptions, "THRONG_SUBSCRIPTION_TOKEN_SECRET")? {
            (s.subscription_tokens.secret, s.has_subscription_tokens) = (secret, true);
        }
        if s.has_subscription_tokens && s.subscription_tokens.secret.is_empty() {
            return Err("client.subscription_token is enabled: give its hmac_secret_key too".to_owned());
        }
        let personal = &s.personal_namespace;
        let is_known = personal.is_empty() || s.server.topics.is_open() || s.server.topics.has_namespace(personal);
        if s.has_personal_channel && !is_known {
            return Err(format!(
                "client.subscribe_to_user_personal_channel: the namespace {personal:?} is not configured: add it to channel.namespaces"
            ));
        }
        s.api_insecure |= self.api_insecure;
        s.anonymous |= self.allow_anonymous;
        // Where tokens are looked at, they guard what is private, by whatever way one comes.
        if s.server.topics.is_open() && !(s.tokens.secret.is_empty() && s.subscription_tokens.secret.is_empty()) {
            s.server.topics.private_prefix = "$".to_owned();
        }
        Ok(())
    }
}

impl Tokens {
    /// What tokens are checked with, if there is a secret.
    fn keys(&self) -> Option<TokenKeys> {
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

/// Topics at their URLs; any other path is a WebSocket that is echoed, or swallowed.
struct Front {
    echo: bool,
    api_key: ApiKey,
    /// What the tokens of bare clients are checked with.
    tokens: Option<TokenKeys>,
    /// They are not looked at, and every client may do everything.
    insecure: bool,
    handle: Handle<Mounted<Bare>>,
}

/// A WebSocket that speaks no protocol of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bare {
    /// It has no topic.
    Loose,
    /// It subscribes to a topic.
    Reader,
    /// What it sends is published, too.
    Writer,
}

impl Front {
    /// The topic that a request names, and who asks.
    fn topic(&self, request: &Request<'_>) -> Option<Result<TopicUrl, Response>> {
        Some(TopicUrl::of(request)?.and_then(|topic| match self.api_key.is_in(request) {
            Some(true) => Ok(topic.by_application()),
            Some(false) => {
                Err(Response::refuse(401, "this is not the server's API key").header("WWW-Authenticate", "apikey"))
            }
            None if self.insecure => Ok(topic.by_application()),
            None => match self.tokens.as_ref().and_then(|tokens| tokens.user_of(request)) {
                Some(user) => Ok(topic.by(&user?)),
                None => Ok(topic),
            },
        }))
    }
}

impl Service for Front {
    type State = Bare;

    fn open(&mut self, request: &Request<'_>) -> Decision<Bare> {
        match self.topic(request) {
            Some(Ok(topic)) => {
                let state = if topic.may_publish(request) { Bare::Writer } else { Bare::Reader };
                topic.open(request, Accept::new(state))
            }
            Some(Err(refusal)) => refusal.into(),
            None => Accept::new(Bare::Loose).into(),
        }
    }

    fn message(&mut self, connection: &mut Connection<'_, Bare>, message: Message<'_>) {
        match *connection.state() {
            Bare::Writer => {
                if let Some(topic) = connection.topic().cloned() {
                    connection.publish(&topic, message);
                }
            }
            Bare::Reader => connection.close(1008, "clients may not publish here: POST to the topic's URL"),
            // An echo always fits: reading pauses long before the queue is full.
            Bare::Loose if self.echo => drop(connection.send(message)),
            Bare::Loose => {}
        }
    }

    fn request(&mut self, request: &Request<'_>) -> Answer {
        if let Some(topic) = self.topic(request) {
            return topic.map_or_else(Answer::from, |topic| topic.answer(request));
        }
        let response = match (request.path(), request.method()) {
            ("/healthz", "GET" | "HEAD") => Response::new(200).body("text/plain", "ok\n"),
            ("/metrics", "GET" | "HEAD") => {
                Response::new(200).body("text/plain; version=0.0.4; charset=utf-8", self.handle.metrics())
            }
            ("/healthz" | "/metrics", _) => {
                Response::refuse(405, "this resource can only be read: use GET").header("Allow", "GET, HEAD")
            }
            (path, _) if path.starts_with("/api/") => Response::refuse(
                401,
                "the server API is off: start the server with --api-key-file, or set http_api.key",
            ),
            _ => Response::upgrade_required(),
        };
        response.into()
    }
}

/// A worker's service, as it is set.
fn service(settings: &Settings, echo: bool, seat: &Seat<Mounted<Bare>>) -> Centrifugo<Front> {
    let (tokens, api_key) = (settings.tokens.keys(), ApiKey::new(&*settings.api_key));
    let (insecure, handle) = (settings.insecure, seat.handle().clone());
    let front = Front { echo, api_key, tokens: tokens.clone(), insecure, handle };
    let mut service = Centrifugo::new(front)
        .pings(settings.client_ping_interval, settings.client_pong_timeout)
        .connect_timeout(settings.client_connect_timeout)
        .channels_max(settings.server.subscriptions_max)
        .command_bytes_max(settings.server.message_bytes_max)
        .api_key(&*settings.api_key)
        .api_insecure(settings.api_insecure)
        .http_stream(settings.http_stream)
        .sse(settings.sse)
        .anonymous(settings.anonymous)
        .insecure(settings.insecure);
    if let Some(keys) = tokens {
        service = service.tokens(keys);
    }
    if let Some(keys) = settings.subscription_tokens.keys().filter(|_| settings.has_subscription_tokens) {
        service = service.subscription_tokens(keys);
    }
    if let Some(rate) = NonZeroU32::new(settings.command_rate) {
        service = service.command_rate(rate, NonZeroU32::new(settings.command_burst).unwrap_or(rate));
    }
    if settings.has_personal_channel {
        service = service.personal_channel(&settings.personal_namespace);
    }
    service
}

/// Serves until a signal.
pub(crate) fn run(options: &Options, settings: Settings) -> Result<(), Box<dyn Error>> {
    let (server, drain, echo) = (Server::from(settings.config()), settings.drain, options.echo);
    let running = server.start(move |seat| service(&settings, echo, seat))?;
    let (workers, most) = (running.workers(), running.connections_max());
    for address in running.addresses() {
        log::info!(
            "throng {} listening on {address} with {workers} workers for up to {most} connections",
            env!("CARGO_PKG_VERSION")
        );
    }
    running.run_until_signal(drain)?;
    log::info!("throng stopped");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Args;

    #[test]
    fn the_help_says_what_the_library_has_by_default() {
        let command = Options::augment_args(clap::Command::new("serve"));
        let defaults: Vec<_> = (command.get_arguments())
            .filter_map(|arg| {
                let help = arg.get_help()?.to_string();
                Some((arg.get_id().to_string(), help.split_once("[default: ")?.1.strip_suffix(']')?.to_owned()))
            })
            .collect();
        let default = |id: &str| defaults.iter().find(|(arg, _)| arg == id).map_or("", |(_, default)| default);
        let Config { ping_interval, message_bytes_max, topics_max, .. } = Config::default();
        assert_eq!(default("ping_interval"), ping_interval.as_secs().to_string());
        assert_eq!(default("max_message"), message_bytes_max.to_string());
        assert_eq!(default("max_topics"), topics_max.to_string());
        assert_eq!(
            (default("listen"), default("slow"), default("log_level")),
            ("127.0.0.1:8080", "disconnect", "info")
        );
        assert_eq!(default("history_ttl"), "600");
        assert!(defaults.iter().all(|(_, default)| !default.is_empty()), "{defaults:?}");
    }
}
