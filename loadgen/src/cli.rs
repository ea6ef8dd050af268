//! The command line.

use crate::centrifugo::Format;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// Opens connections to any server, up to millions from one machine, keeps them busy, and reports what it saw and
/// what it cost.
#[derive(Debug, Parser)]
#[command(name = "throng-load", version, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) load: Load,
}

const AFTER_HELP: &str = "\
Exit status: 0 when every connection and message is accounted for and none was lost, 3 when some were,
2 when the machine or the command line does not allow the run, 1 when something broke.
Ctrl-C ends a run early, with a full report; a second one ends it at once.";

/// The kinds of load.
#[derive(Debug, Subcommand)]
pub(crate) enum Load {
    /// Open connections and hold them, answering pings.
    Idle(Idle),
    /// Send messages and wait for them to come back: closed loop, or open loop at a rate.
    Echo(Echo),
    /// Publish to topics, and account for every message at every subscriber.
    Fanout(Fanout),
    /// Close connections and open others at a rate.
    Churn(Churn),
    /// Drop all connections at once and come back.
    Storm(Storm),
    /// Like fanout, while a share of the subscribers reads slowly or not at all.
    Slow(Slow),
    /// Idle connections, echoes at a rate and churn at a rate, side by side.
    Mixed(Mixed),
}

impl Load {
    pub(crate) fn common(&self) -> &Common {
        match self {
            Self::Idle(load) => &load.common,
            Self::Echo(load) => &load.common,
            Self::Fanout(load) => &load.common,
            Self::Churn(load) => &load.common,
            Self::Storm(load) => &load.common,
            Self::Slow(load) => &load.fanout.common,
            Self::Mixed(load) => &load.common,
        }
    }
}

/// What all kinds of load take.
#[derive(Clone, Debug, Args)]
pub(crate) struct Common {
    /// Where to connect: `ws://HOST[:PORT]/PATH`; for other transports than ws `http:` as well
    pub(crate) url: String,
    /// How many connections
    #[arg(short, long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) connections: u64,
    /// What is spoken over them; several, comma-separated, are dealt to the connections in turn, so that each topic has
    /// all of them. sse and poll are for idle, fanout and (sse) slow
    #[arg(long = "transport", value_enum, value_delimiter = ',', default_value = "ws", value_name = "A,B,...")]
    pub(crate) transports: Vec<Transport>,
    /// Where Centrifugo's clients connect [default: the URL's path where there are no others and it names no {topic},
    /// else /connection/websocket]
    #[arg(long, value_name = "PATH", value_parser = path)]
    pub(crate) centrifugo_path: Option<String>,
    /// The connection token (a JWT) of Centrifugo's clients
    #[arg(long, default_value = "", value_name = "TOKEN", hide_default_value = true)]
    pub(crate) token: String,
    /// For poll: seconds that the server is to hold a poll
    #[arg(long, default_value_t = 25, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=60))]
    pub(crate) poll_wait: u64,

    /// Threads [default: one a core, more when their descriptor tables do not hold the connections]
    #[arg(long, value_name = "N", help_heading = "Opening", value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub(crate) threads: Option<u64>,
    /// Handshakes under way at a time, in all
    #[arg(long, default_value_t = 1000, value_name = "N", help_heading = "Opening", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) pending: u64,
    /// Connections to open a second [default: as fast as they go]
    #[arg(long, value_name = "PER_SECOND", value_parser = rate, help_heading = "Opening")]
    pub(crate) open_rate: Option<f64>,
    /// Seconds until a connection must be open
    #[arg(long, default_value = "10", value_name = "S", value_parser = seconds, help_heading = "Opening")]
    pub(crate) open_timeout: Duration,
    /// Source addresses: addresses and networks, comma-separated [default: 127.1.0.1 and on for a loopback
    /// target, else what the kernel chooses]
    #[arg(long, value_name = "A,B,C/LEN", help_heading = "Opening")]
    pub(crate) source: Option<String>,
    /// Connections from one source address; beyond some thousands the kernel's search for a port gets slow
    #[arg(long, default_value_t = 4000, value_name = "N", help_heading = "Opening", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) per_source: u32,
    /// A header line of the request, `NAME: VALUE`; repeatable
    #[arg(long = "header", value_name = "LINE", help_heading = "Opening")]
    pub(crate) headers: Vec<String>,
    /// Subprotocols to offer, comma-separated
    #[arg(long, value_name = "NAMES", help_heading = "Opening")]
    pub(crate) subprotocol: Option<String>,

    /// The same key in every request, for bare servers that know only its answer
    #[arg(long, value_name = "BASE64", hide = true)]
    pub(crate) key: Option<String>,

    /// How connections end
    #[arg(long, value_enum, default_value_t = End::Close, help_heading = "Ending")]
    pub(crate) end: End,
    /// Seconds until a closing connection is reset
    #[arg(long, default_value = "10", value_name = "S", value_parser = seconds, help_heading = "Ending")]
    pub(crate) close_timeout: Duration,

    /// A process of the server, to be watched; repeatable [default: whoever listens at a loopback target]
    #[arg(long = "pid", value_name = "PID", help_heading = "Reporting")]
    pub(crate) pids: Vec<u32>,
    /// Write the results as JSON
    #[arg(long, value_name = "FILE", help_heading = "Reporting")]
    pub(crate) json: Option<PathBuf>,
    /// Write the results as one page of HTML
    #[arg(long, value_name = "FILE", help_heading = "Reporting")]
    pub(crate) report: Option<PathBuf>,
    /// No progress
    #[arg(short, long, help_heading = "Reporting")]
    pub(crate) quiet: bool,
    /// Start although the machine seems not to allow it
    #[arg(long)]
    pub(crate) force: bool,
}

impl Common {
    /// The transports as they are named in reports.
    pub(crate) fn transport_names(&self) -> String {
        self.transports.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }
}

/// Topics by name.
#[derive(Clone, Debug, Args)]
pub(crate) struct Topics {
    /// How many topics; subscribers are spread over them evenly
    #[arg(long = "topics", default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) count: u32,
    /// A topic's name, with its number in place of an n in braces: what stands for {topic} in URLs and templates,
    /// and what Centrifugo's clients subscribe to (nothing, if it is empty)
    #[arg(long = "topic", default_value = "load-{n}", value_name = "TEMPLATE")]
    pub(crate) template: String,
}

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Transport {
    /// WebSocket
    #[value(alias = "websocket")]
    Ws,
    /// Server-sent events
    Sse,
    /// Long polls for JSON arrays, each from the cursor of the last
    Poll,
    /// Centrifugo's protocol over WebSocket, in JSON
    CentrifugoJson,
    /// Centrifugo's protocol over WebSocket, in Protobuf
    CentrifugoProtobuf,
}

impl Transport {
    /// How it writes Centrifugo's protocol, if that is what it speaks.
    pub(crate) fn centrifugo(self) -> Option<Format> {
        match self {
            Self::CentrifugoJson => Some(Format::Json),
            Self::CentrifugoProtobuf => Some(Format::Protobuf),
            Self::Ws | Self::Sse | Self::Poll => None,
        }
    }

    /// Whether it has frames, and a closing handshake.
    pub(crate) fn is_websocket(self) -> bool {
        !matches!(self, Self::Sse | Self::Poll)
    }
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
    }
}

/// How connections end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum End {
    /// By the closing handshake
    Close,
    /// By a reset
    Reset,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Idle {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    pub(crate) topics: Topics,
    /// Seconds to hold them once all are open
    #[arg(long, default_value = "10", value_name = "S", value_parser = seconds)]
    pub(crate) hold: Duration,
    /// The same as --open-rate
    #[arg(long, value_name = "PER_SECOND", value_parser = rate, conflicts_with = "open_rate")]
    pub(crate) rate: Option<f64>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Echo {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Seconds to measure
    #[arg(long, default_value = "10", value_name = "S", value_parser = seconds)]
    pub(crate) duration: Duration,
    /// Seconds of the same load before
    #[arg(long, default_value = "1", value_name = "S", value_parser = seconds)]
    pub(crate) warmup: Duration,
    /// Closed loop: messages on their way at a time, on each connection
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) inflight: u32,
    /// Open loop: messages a second in all; latency counts from when each was due
    #[arg(long, value_name = "PER_SECOND", value_parser = rate, conflicts_with = "inflight")]
    pub(crate) rate: Option<f64>,
    /// Bytes of a message: `64`, a range `16..1024`, or weighted sizes `64:0.9,4096:0.1`
    #[arg(long, default_value = "64", value_name = "SIZES")]
    pub(crate) size: crate::sizes::Sizes,
    /// Binary messages instead of text
    #[arg(long)]
    pub(crate) binary: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Fanout {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Seconds to publish
    #[arg(long, default_value = "10", value_name = "S", value_parser = seconds)]
    pub(crate) duration: Duration,
    #[command(flatten)]
    pub(crate) topics: Topics,
    /// Messages to publish a second, to all topics in turn
    #[arg(long, default_value = "10", value_name = "PER_SECOND", value_parser = rate)]
    pub(crate) rate: f64,
    /// Bytes of a payload; what identifies a message takes 47 of them
    #[arg(long, default_value_t = 64, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    pub(crate) size: u32,
    /// What a subscriber sends as it opens
    #[arg(long, value_name = "TEMPLATE")]
    pub(crate) subscribe_template: Option<String>,
    /// What is published: {topic}, {seq}, {time}, and {payload}, which subscribers must receive
    #[arg(long, default_value = "{payload}", value_name = "TEMPLATE")]
    pub(crate) publish_template: String,
    /// Publish by HTTP POST to this URL instead of a WebSocket [default unless the transport is ws: the subscribers' URL;
    /// where that names no topic, because all are Centrifugo's clients: /topics/{topic} there]
    #[arg(long, value_name = "URL")]
    pub(crate) publish_url: Option<String>,
    /// Header lines of the POST, `NAME: VALUE`; repeatable
    #[arg(long = "publish-header", value_name = "LINE")]
    pub(crate) publish_headers: Vec<String>,
    /// The WebSocket that is published to, if it is not the subscribers' URL
    #[arg(long, value_name = "URL", conflicts_with = "publish_url")]
    pub(crate) publish_ws: Option<String>,
    /// Connections to publish over, each with topics of its own; more than one: by POST
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) publishers: u32,
    /// Share of the subscribers that leave now and then, and come back with the cursor of the last message they have seen;
    /// over a bare WebSocket they ask for `?frames=json`
    #[arg(long, default_value = "0", value_name = "0..1", value_parser = share)]
    pub(crate) reconnect_share: f64,
    /// How long they stay: a random time of 0.5 to 1.5 times so many seconds
    #[arg(long, default_value = "5", value_name = "S", value_parser = seconds)]
    pub(crate) reconnect_every: Duration,
    /// How long they stay away: a random time up to so many seconds; 0: they come back at once
    #[arg(long, default_value = "0", value_name = "S", value_parser = seconds)]
    pub(crate) reconnect_after: Duration,
    /// Messages are binary
    #[arg(long)]
    pub(crate) binary: bool,
    /// Seconds between the last subscription and the first message
    #[arg(long, default_value = "1", value_name = "S", value_parser = seconds)]
    pub(crate) settle: Duration,
    /// Seconds to wait for what is missing after the last message
    #[arg(long, default_value = "5", value_name = "S", value_parser = seconds)]
    pub(crate) drain: Duration,
    /// A message with this text announces a gap: what is missing behind it was not lost unnoticed
    #[arg(long, default_value = "\"gap\":", value_name = "TEXT")]
    pub(crate) gap_marker: String,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Churn {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    pub(crate) topics: Topics,
    /// Connections to replace a second
    #[arg(long, default_value = "100", value_name = "PER_SECOND", value_parser = rate)]
    pub(crate) rate: f64,
    /// Seconds
    #[arg(long, default_value = "10", value_name = "S", value_parser = seconds)]
    pub(crate) duration: Duration,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Storm {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    pub(crate) topics: Topics,
    /// How often all drop and come back
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// Seconds of rest before each round
    #[arg(long, default_value = "1", value_name = "S", value_parser = seconds)]
    pub(crate) rest: Duration,
    /// Wait before coming back, and again after each failure: a random time up to this many seconds, doubled
    /// with each attempt; 0: come back at once
    #[arg(long, default_value = "0", value_name = "S", value_parser = seconds)]
    pub(crate) backoff: Duration,
    /// Longest such wait
    #[arg(long, default_value = "30", value_name = "S", value_parser = seconds)]
    pub(crate) backoff_max: Duration,
    /// Seconds until a round must be over
    #[arg(long, default_value = "60", value_name = "S", value_parser = seconds)]
    pub(crate) round_timeout: Duration,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Slow {
    #[command(flatten)]
    pub(crate) fanout: Fanout,
    /// Share of the subscribers that is slow
    #[arg(long, default_value = "0.1", value_name = "0..1", value_parser = share)]
    pub(crate) slow_share: f64,
    /// Bytes a second that a slow one reads; 0: none at all
    #[arg(long, default_value_t = 0, value_name = "BYTES")]
    pub(crate) slow_bytes: u32,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Mixed {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Seconds to measure
    #[arg(long, default_value = "10", value_name = "S", value_parser = seconds)]
    pub(crate) duration: Duration,
    /// Share of the connections that send; the rest idles
    #[arg(long, default_value = "0.1", value_name = "0..1", value_parser = share)]
    pub(crate) active: f64,
    /// Echoes a second in all
    #[arg(long, default_value = "1000", value_name = "PER_SECOND", value_parser = rate)]
    pub(crate) rate: f64,
    /// Bytes of a message, as for echo
    #[arg(long, default_value = "64", value_name = "SIZES")]
    pub(crate) size: crate::sizes::Sizes,
    /// Connections to replace a second
    #[arg(long, default_value = "100", value_name = "PER_SECOND", value_parser = rate)]
    pub(crate) churn: f64,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let value: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    // A day is more than anybody means; longer ones would not fit the clocks in a connection's record.
    if !(0.0..=86_400.0).contains(&value) {
        return Err("must be from 0 to 86400 seconds".to_owned());
    }
    Ok(Duration::from_secs_f64(value))
}

fn path(text: &str) -> Result<String, String> {
    let fits = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(text.to_owned()) } else { Err("must begin with a slash and hold no spaces".to_owned()) }
}

fn rate(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if value > 0.0 && value <= 1e9 { Ok(value) } else { Err("must be above 0".to_owned()) }
}

fn share(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=1.0).contains(&value) { Ok(value) } else { Err("must be from 0 to 1".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
