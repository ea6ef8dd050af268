//! `throng serve`.

use log::LevelFilter;
use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;
use throng::{Accept, Connection, Decision, Handle, Message, Request, Response, Seat, Server, Service};

const MORE: &str = "\
Every path is a WebSocket. GET /healthz answers `ok`, GET /metrics Prometheus's text format.

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
    /// At SIGTERM or SIGINT everybody is closed with 1001, spread over this time; a second signal ends at once
    #[arg(long, value_name = "S", default_value = "5", value_parser = seconds)]
    drain: Duration,
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

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds, such as 25 or 0.5".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

/// Until topics: sends back, or swallows.
struct Front {
    echo: bool,
    handle: Handle<()>,
}

impl Front {
    fn new(seat: &Seat<()>, echo: bool) -> Self {
        Self { echo, handle: seat.handle().clone() }
    }
}

impl Service for Front {
    type State = ();

    fn open(&mut self, _: &Request<'_>) -> Decision<()> {
        Accept::new(()).into()
    }

    fn message(&mut self, connection: &mut Connection<'_, ()>, message: Message<'_>) {
        if self.echo {
            // An echo always fits: reading pauses long before the queue is full.
            let _ = connection.send(message);
        }
    }

    fn request(&mut self, request: &Request<'_>) -> Response {
        match (request.path(), request.method()) {
            ("/healthz", "GET" | "HEAD") => Response::new(200).body("text/plain", "ok\n"),
            ("/metrics", "GET" | "HEAD") => {
                Response::new(200).body("text/plain; version=0.0.4; charset=utf-8", self.handle.metrics())
            }
            ("/healthz" | "/metrics", _) => {
                Response::refuse(405, "this resource can only be read: use GET").header("Allow", "GET, HEAD")
            }
            _ => Response::upgrade_required(),
        }
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
    let echo = options.echo;
    let running = server.start(move |seat| Front::new(seat, echo))?;
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
