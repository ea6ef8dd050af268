//! `throng serve`.

use crate::access::{Access, Keys};
use crate::config::{self, Faults, Flags, Loaded, Settings};
use crate::jwks::Source;
use crate::preflight;
use crate::reload::Reloader;
use std::error::Error;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use throng::{
    Accept, Answer, ApiKey, Centrifugo, Connection, Control, Decision, Handle, Message, Mounted, Request, Response,
    Server, Service, Stranger, TokenKeys, TopicUrl, Writer,
};

const MORE: &str = "\
/connection/websocket takes the clients of Centrifugo's SDKs; their channels are topics. Without
a WebSocket they come to /connection/http_stream or /connection/sse, and what they send to /emulation.
POST /api/METHOD is Centrifugo's server API, with --api-key-file or http_api.key.
Where there is a key, for the API or for tokens, POST to a topic takes the API key or a token, or --client-publish; where there
are tokens, to read takes one, too, or --allow-anonymous. Channels' rules (channel.* in the file) say more.
/topics/NAME is a topic: POST publishes to it; a WebSocket, an EventSource, a long poll (?wait=30) and a poll read it, each
from ?since=CURSOR where it left off. GET /healthz answers `ok`, GET /readyz too until the server is told
to end, GET /metrics Prometheus's text format. Any other path is a
WebSocket that is kept open, and echoed with --echo.

  throng serve --echo                                 an echo on 127.0.0.1:8080
  throng serve --listen 0.0.0.0:80 --listen [::]:80 --api-key-file KEY   IPv4 and IPv6, beyond this machine
  throng serve --config throng.toml                   what is in the file; `throng config default` prints one
  throng serve --max-connections 1000000              as many workers as it takes; no root, no raised limit

SIGHUP reads the file again: what can change does, without a connection lost, and the log says what cannot.

Exit status: 0 after a signal, 1 when it cannot start or a worker fails, 2 for a wrong command line.";

/// What can be said on the command line.
#[derive(clap::Args)]
#[command(after_help = MORE)]
pub(crate) struct Options {
    /// File with the settings, in Centrifugo's names: `throng config default` prints one with all of them, explained. The
    /// environment's THRONG_* variables count more, and flags most [default: the environment's THRONG_CONFIG, if any]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
}

impl Options {
    /// The settings, and where they come from.
    pub(crate) fn load(&self) -> Result<Loaded, Faults> {
        Loaded::new(self.config.as_deref(), &config::variables(), &self.flags)
    }
}

/// Topics at their URLs; any other path is a WebSocket that is echoed, or swallowed.
pub(crate) struct Front {
    echo: bool,
    /// Metrics are served here, too.
    metrics: bool,
    api_key: ApiKey,
    /// What the tokens of bare clients are checked with.
    tokens: TokenKeys,
    /// They are not looked at, and every client may do everything.
    insecure: bool,
    /// Clients without a token may read where nothing is ruled.
    anonymous: bool,
    /// The application shows its key.
    asks_application: bool,
    handle: Handle<Mounted<Bare>>,
}

/// A WebSocket that speaks no protocol of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bare {
    /// It has no topic.
    Loose,
    /// It subscribes to a topic. What it sends is published, if this one may.
    By(Writer),
    /// The same. It came when everybody might do everything.
    Unasked,
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
            None if self.tokens.is_empty() && self.asks_application => Ok(topic.by_stranger(Stranger::Keyless)),
            None if self.tokens.is_empty() => Ok(topic),
            None => match self.tokens.bearer_of(request) {
                Some(bearer) => Ok(topic.by_bearer(bearer?)),
                None => Ok(topic.by_stranger(Stranger::Tokenless { reads: self.anonymous })),
            },
        }))
    }
}

impl Service for Front {
    type State = Bare;

    fn open(&mut self, request: &Request<'_>) -> Decision<Bare> {
        match self.topic(request) {
            Some(Ok(topic)) => {
                let state = match topic.writer(request) {
                    Writer::Application if self.insecure => Bare::Unasked,
                    writer => Bare::By(writer),
                };
                topic.open(request, Accept::new(state))
            }
            Some(Err(refusal)) => refusal.into(),
            None => Accept::new(Bare::Loose).into(),
        }
    }

    fn message(&mut self, connection: &mut Connection<'_, Bare>, message: Message<'_>) {
        let writer = match *connection.state() {
            Bare::By(writer) => writer,
            Bare::Unasked if self.insecure => Writer::Application,
            Bare::Unasked => Writer::Anonymous,
            // An echo always fits: reading pauses long before the queue is full.
            Bare::Loose => {
                let _ = self.echo.then(|| connection.send(message));
                return;
            }
        };
        let Some(topic) = connection.topic().cloned() else { return };
        // Asked for each message: a reload may have changed the rules.
        if connection.may_publish(&topic, writer) {
            connection.publish(&topic, message);
        } else {
            connection.close(1008, "clients may not publish here: POST to the topic's URL");
        }
    }

    fn request(&mut self, request: &Request<'_>) -> Answer {
        if let Some(topic) = self.topic(request) {
            return topic.map_or_else(Answer::from, |topic| topic.answer(request));
        }
        let response = match (request.path(), request.method()) {
            ("/healthz", "GET" | "HEAD") => Response::new(200).body("text/plain", "ok\n"),
            ("/readyz", "GET" | "HEAD") if self.handle.is_ready() => Response::new(200).body("text/plain", "ready\n"),
            // No refusal: it is a right answer to a good question, and no line of the log.
            ("/readyz", "GET" | "HEAD") => {
                Response::new(503).body("text/plain", "this server is about to end: send nobody here\n")
            }
            ("/metrics", _) if !self.metrics => Response::refuse(
                404,
                "metrics are served on the admin port (--admin), or here with --public-metrics true",
            ),
            ("/metrics", "GET" | "HEAD") => {
                Response::new(200).body("text/plain; version=0.0.4; charset=utf-8", self.handle.metrics())
            }
            ("/healthz" | "/readyz" | "/metrics", _) => {
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

/// What all workers have.
#[derive(Clone)]
pub(crate) struct Site {
    settings: Arc<Settings>,
    access: Access,
}

impl Site {
    pub(crate) fn new(settings: Settings, access: Access) -> Self {
        Self { settings: Arc::new(settings), access }
    }
}

/// A worker's service, as it is set.
pub(crate) fn service(site: &Site, handle: Handle<Mounted<Bare>>) -> Centrifugo<Front> {
    let Site { settings, access: Access { api_key, tokens, subscription_tokens } } = site.clone();
    let front = Front {
        echo: settings.echo,
        metrics: settings.serves_metrics(),
        api_key: api_key.clone(),
        tokens: tokens.clone(),
        insecure: settings.insecure,
        anonymous: settings.anonymous,
        asks_application: settings.asks_application(),
        handle,
    };
    let mut service = Centrifugo::new(front)
        .pings(settings.client_ping_interval, settings.client_pong_timeout)
        .connect_timeout(settings.client_connect_timeout)
        .channels_max(settings.server.subscriptions_max)
        .command_bytes_max(settings.server.message_bytes_max)
        .api_key(api_key)
        .api_insecure(settings.api_insecure)
        .http_stream(settings.http_stream)
        .sse(settings.sse)
        .anonymous(settings.anonymous)
        .insecure(settings.insecure);
    if !tokens.is_empty() {
        service = service.tokens(tokens);
    }
    if settings.has_subscription_tokens {
        service = service.subscription_tokens(subscription_tokens);
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
pub(crate) fn run(options: Options, loaded: &Loaded) -> Result<(), Box<dyn Error>> {
    let settings = &loaded.settings;
    let (server, drain) = (Server::from(settings.config()), settings.drain());
    let machine = preflight::machine(settings.server.shared_descriptors);
    let preflight = preflight::lines(&machine, settings.server.connections_max);
    let access = Access::default();
    let keys = Keys::of(settings).map_err(|fault| loaded.explain(&fault))?;
    access.take(&keys);
    let sources = access.sources(settings);
    // Before there are workers, whose descriptor tables would keep what is open meanwhile.
    sources.iter().for_each(Source::fetch);
    let site = Site::new(settings.clone(), access.clone());
    let running = server.start(move |seat| service(&site, seat.handle().clone()))?;
    // Behind the server, so that it can reach the workers; before others open what its table would keep.
    let control = Control::new(running.handle()).key(&*settings.admin_key);
    let admin = settings.admin.map(|address| control.start(address)).transpose()?;
    for source in sources {
        running.beside("jwks", move || source.fetch_on())?;
    }
    let (workers, most) = (running.workers(), running.connections_max());
    let more = match settings.server.connections_max {
        None if settings.server.workers.is_none() => " (--max-connections N adds workers)",
        _ => "",
    };
    let paths = running.unix_paths().map(|path| format!("unix:{}", path.display()));
    for address in running.addresses().iter().map(ToString::to_string).chain(paths) {
        log::info!(
            "throng {} listening on {address} with {workers} workers for up to {most} connections{more}",
            env!("CARGO_PKG_VERSION")
        );
    }
    for warning in loaded.warnings() {
        log::warn!("{}", loaded.explain(&warning));
    }
    preflight.iter().for_each(|(level, line)| log::log!(*level, "{line}"));
    for address in admin.as_ref().map_or(&[][..], throng::Running::addresses) {
        log::info!("the admin port is http://{address}");
    }
    let mut reloader = Reloader::new(options, settings, access, running.handle());
    running.run_until_signal_reloading(drain, move || reloader.reload())?;
    if let Some(admin) = admin {
        admin.handle().abort();
        admin.wait()?;
    }
    log::info!("throng stopped");
    Ok(())
}
