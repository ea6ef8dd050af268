//! `throng serve`.

use log::LevelFilter;
use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use throng::{
    Accept, Answer, Centrifugo, Connection, Decision, Handle, Message, Mounted, Request, Response, Seat, Server,
    Service, SlowReaders, TokenKeys, TopicUrl,
};

const MORE: &str = "\
/connection/websocket takes the clients of Centrifugo's SDKs; their channels are topics.
POST /api/METHOD is Centrifugo's server API, with --api-key-file.
/topics/NAME is a topic: POST publishes to it; a WebSocket, an EventSource, a long poll (?wait=30) and a poll read it, each
from ?since=CURSOR where it left off. GET /healthz answers `ok`, GET /metrics Prometheus's text format. Any other path is a
WebSocket that is kept open, and echoed with --echo.

  throng serve --echo                                 an echo on 127.0.0.1:8080
  throng serve --listen 0.0.0.0:80 --listen [::]:80   IPv4 and IPv6
  throng serve --max-connections 1000000              as many workers as it takes; no root, no raised limit

Exit status: 0 after a signal, 1 when it cannot start or a worker fails, 2 for a wrong command line.";

/// What can be set on the command line.
#[derive(clap::Args)]
#[command(after_help = MORE)]
pub(crate) struct Options {
    /// Address to listen on; may be given several times, IPv4 and IPv6; port 0 is any free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: Vec<SocketAddr>,
    /// Worker threads, each with its own event loop [default: one per core, more where the connections
    /// would not fit into that many descriptor tables]
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// Most connections at a time; the next one gets a 503 [default: what the descriptor tables hold]
    #[arg(long, value_name = "N")]
    max_connections: Option<usize>,
    /// Longest message; a longer one ends the connection with close code 1009
    #[arg(long, value_name = "BYTES", default_value_t = 64 * 1024)]
    max_message: usize,
    /// Send every message back to its sender
    #[arg(long)]
    echo: bool,
    /// A client that is silent this long is pinged (proxies drop idle connections after 30 s to 300 s)
    #[arg(long, value_name = "S", default_value = "25", value_parser = seconds)]
    ping_interval: Duration,
    /// A pinged client that sends nothing for this long is closed (1011)
    #[arg(long, value_name = "S", default_value = "20", value_parser = seconds)]
    pong_timeout: Duration,
    /// Time for a request's head to be complete, from accept, and again for its body
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds)]
    head_timeout: Duration,
    /// A connection between two requests is closed after this time
    #[arg(long, value_name = "S", default_value = "75", value_parser = seconds)]
    idle_timeout: Duration,
    /// Let pages of this origin in, beside those of this host: https://app.example.com, or * for all; may be given several
    /// times
    #[arg(long, value_name = "ORIGIN")]
    allow_origin: Vec<String>,
    /// Time for the client's close frame after ours
    #[arg(long, value_name = "S", default_value = "3", value_parser = seconds)]
    close_timeout: Duration,
    /// A client that takes no byte for this long, while something waits for it, is reset
    #[arg(long, value_name = "S", default_value = "30", value_parser = seconds)]
    write_timeout: Duration,
    /// At SIGTERM or SIGINT everybody is closed with 1001 (Centrifugo's clients with 3001), spread over this time; a second signal ends at once
    #[arg(long, value_name = "S", default_value = "5", value_parser = seconds)]
    drain: Duration,
    /// Most messages that a topic keeps for those who come late or read slowly; 0: no history
    #[arg(long, value_name = "N", default_value_t = 1000)]
    history_size: usize,
    /// Most bytes that a topic keeps
    #[arg(long, value_name = "BYTES", default_value_t = 1024 * 1024)]
    history_bytes: usize,
    /// How long a topic keeps a message
    #[arg(long, value_name = "S", default_value = "600", value_parser = seconds)]
    history_ttl: Duration,
    /// How long a topic's position outlives its messages, while nobody listens
    #[arg(long, value_name = "S", default_value = "86400", value_parser = seconds)]
    history_meta_ttl: Duration,
    /// A subscriber that reads so slowly that its next message is no longer kept is disconnected, or told of the gap and
    /// skips to the newest
    #[arg(long, value_name = "POLICY", value_enum, default_value_t = Slow::Disconnect)]
    slow: Slow,
    /// Most topics; one more takes the place of an idle one, or gets a 503
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    max_topics: usize,
    /// Have topics know who subscribes: GET /topics/NAME/presence
    #[arg(long)]
    presence: bool,
    /// Let every one of Centrifugo's clients come back to its position, whether or not it asks for that
    #[arg(long)]
    force_recovery: bool,
    /// Have Centrifugo's clients that ask for it told of each other's coming and going
    #[arg(long)]
    join_leave: bool,
    /// Let clients publish to a topic by sending on its WebSocket
    #[arg(long)]
    client_publish: bool,
    /// Serve Centrifugo's server API (POST /api/METHOD) to whoever sends the key that this file holds [default: the key in
    /// the environment variable THRONG_API_KEY; without one the API is off]
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Serve the server API without a key, to everybody
    #[arg(long)]
    api_insecure: bool,
    /// File with the secret that the connection tokens of Centrifugo's clients are signed with (HS256); clients then need
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
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub(crate) log_level: LevelFilter,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Slow {
    Disconnect,
    Skip,
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

/// Topics at their URLs; any other path is a WebSocket that is echoed, or swallowed.
struct Front {
    echo: bool,
    client_publish: bool,
    handle: Handle<Mounted<bool>>,
}

impl Front {
    fn new(seat: &Seat<Mounted<bool>>, echo: bool, client_publish: bool) -> Self {
        Self { echo, client_publish, handle: seat.handle().clone() }
    }
}

impl Service for Front {
    /// Whether it subscribes to a topic.
    type State = bool;

    fn open(&mut self, request: &Request<'_>) -> Decision<bool> {
        match TopicUrl::of(request) {
            Some(Ok(topic)) => topic.open(request, Accept::new(true)),
            Some(Err(refusal)) => refusal.into(),
            None => Accept::new(false).into(),
        }
    }

    fn message(&mut self, connection: &mut Connection<'_, bool>, message: Message<'_>) {
        match *connection.state() {
            true if self.client_publish => {
                if let Some(topic) = connection.topic().cloned() {
                    connection.publish(&topic, message);
                }
            }
            true => connection.close(1008, "clients may not publish here: POST to the topic's URL"),
            // An echo always fits: reading pauses long before the queue is full.
            false if self.echo => drop(connection.send(message)),
            false => {}
        }
    }

    fn request(&mut self, request: &Request<'_>) -> Answer {
        if let Some(topic) = TopicUrl::of(request) {
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
            (path, _) if path.starts_with("/api/") => {
                Response::refuse(401, "the server API is off: start the server with --api-key-file")
            }
            _ => Response::upgrade_required(),
        };
        response.into()
    }
}

/// Serves until a signal.
pub(crate) fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let mut server = Server::new()
        .message_bytes_max(options.max_message)
        .ping_interval(options.ping_interval)
        .pong_timeout(options.pong_timeout)
        .head_timeout(options.head_timeout)
        .idle_timeout(options.idle_timeout)
        .topics_max(options.max_topics)
        .history_meta_ttl(options.history_meta_ttl)
        .presence(options.presence)
        .join_leave(options.join_leave)
        .slow_readers(match options.slow {
            Slow::Disconnect => SlowReaders::Disconnect,
            Slow::Skip => SlowReaders::Skip,
        })
        .history(options.history_size, options.history_bytes, options.history_ttl)
        .close_timeout(options.close_timeout)
        .write_timeout(options.write_timeout)
        .shared_descriptors(options.shared_fds)
        .pin(options.pin);
    for &address in &options.listen {
        server = server.listen(address);
    }
    for origin in &options.allow_origin {
        server = server.allow_origin(origin);
    }
    if let Some(workers) = options.workers {
        server = server.workers(workers);
    }
    if let Some(connections) = options.max_connections {
        server = server.connections_max(connections);
    }
    let (echo, client_publish) = (options.echo, options.client_publish);
    let force_recovery = options.force_recovery;
    let (api_key, api_insecure) = (secret(options.api_key_file.as_deref(), "THRONG_API_KEY")?, options.api_insecure);
    let tokens = secret(options.token_secret_file.as_deref(), "THRONG_TOKEN_SECRET")?;
    let subscription_tokens =
        secret(options.subscription_token_secret_file.as_deref(), "THRONG_SUBSCRIPTION_TOKEN_SECRET")?;
    let anonymous = options.allow_anonymous;
    let running = server.start(move |seat| {
        let mut service = Centrifugo::new(Front::new(seat, echo, client_publish))
            .client_publish(client_publish)
            .force_recovery(force_recovery)
            .api_key(api_key.clone().unwrap_or_default())
            .api_insecure(api_insecure)
            .anonymous(anonymous);
        if let Some(secret) = &tokens {
            service = service.tokens(TokenKeys::new(secret));
        }
        if let Some(secret) = &subscription_tokens {
            service = service.subscription_tokens(TokenKeys::new(secret));
        }
        service
    })?;
    let (workers, most) = (running.workers(), running.connections_max());
    for address in running.addresses() {
        log::info!(
            "throng {} listening on {address} with {workers} workers for up to {most} connections",
            env!("CARGO_PKG_VERSION")
        );
    }
    running.run_until_signal(options.drain)?;
    log::info!("throng stopped");
    Ok(())
}
