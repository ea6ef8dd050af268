//! The command line of `throng connect`, and what it comes to: a [`Plan`].

use super::text::escaped;
use clap::{Args, ValueEnum};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use throng::client::{Scheme, Url, UrlError};
use throng::{Cursor, Since};

const EXAMPLES: &str = "\
Examples:
  throng connect ws://127.0.0.1:8080/                       type lines, see frames; /help has the commands
  throng connect 'ws://127.0.0.1:8080/topics/news?frames=json' --reconnect
  throng connect http://127.0.0.1:8080/topics/news          the same topic as an event stream
  throng connect http://127.0.0.1:8080/topics/news --wait 30             by long polls
  throng connect http://127.0.0.1:8080/topics/news --poll --since earliest
  throng connect http://127.0.0.1:8080/topics/news --post 'hello'        publishes
  throng connect ws://127.0.0.1:8080/ -x /ping -x hello --linger 2       for scripts: sends, waits, closes
  seq 3 | throng connect ws://127.0.0.1:8080/ --raw --count 3            lines in, payloads out
  throng connect ws://127.0.0.1:8080/ --token-file token.txt --compression --frames

Exit status:
  0    it ended as it should: closed by this side, or by the server with 1000 or without a code; all was published or polled
  1    no connection, or the server refused
  2    the command line or the input was wrong
  3    it ended otherwise: another close code, a connection lost, a server that broke the protocol
  130  interrupted for the second time, or before it was connected";

/// Speak with any WebSocket server, event stream or topic from the terminal.
///
/// Lines that are typed are sent as text; what comes is shown above the line, each frame with its direction, time, opcode and
/// size. Nothing that a peer sends reaches the terminal unescaped. An http:// URL is read as an event stream, or by polls.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// ws://HOST:PORT/PATH, or http://HOST:PORT/PATH for event streams, polls and publishing.
    url: String,

    /// Read an event stream (the default for http://).
    #[arg(long, group = "how")]
    sse: bool,
    /// Ask once what is there.
    #[arg(long, group = "how")]
    poll: bool,
    /// Long polls, one after another, each of up to SECONDS.
    #[arg(long, group = "how", value_name = "SECONDS")]
    wait: Option<u32>,
    /// Publish TEXT (`-`: standard input) by POST, show the answer, and end.
    #[arg(long, group = "how", value_name = "TEXT")]
    post: Option<String>,

    /// Another header of the request, or another value for one of ours.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", help_heading = "Request")]
    headers: Vec<String>,
    /// A subprotocol to offer; may be given again.
    #[arg(long = "subprotocol", value_name = "NAME", value_delimiter = ',', help_heading = "Request")]
    subprotocols: Vec<String>,
    /// The Origin header, as a page of that origin would send it.
    #[arg(long, value_name = "ORIGIN", help_heading = "Request")]
    origin: Option<String>,
    /// A file whose first line is sent as `Authorization: Bearer ...`.
    #[arg(long, value_name = "FILE", help_heading = "Request")]
    token_file: Option<PathBuf>,
    /// A token that is sent as `Authorization: Bearer ...`. Others on this machine may see it: --token-file is safer.
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file", help_heading = "Request")]
    bearer: Option<String>,
    /// Offer permessage-deflate.
    #[arg(long, help_heading = "Request")]
    compression: bool,
    /// Where in a topic to start: a cursor, `earliest` or `latest`.
    #[arg(long, value_name = "CURSOR", help_heading = "Request")]
    since: Option<String>,
    /// Follow redirects, five at most. To another host no token goes along.
    #[arg(long, help_heading = "Request")]
    location: bool,
    /// How long connecting and the answer may take each, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds, help_heading = "Request")]
    timeout: Duration,
    /// Come back after a loss, later each time, from where it was (`?frames=json`, event streams, polls).
    #[arg(long, help_heading = "Request")]
    reconnect: bool,

    /// Send this, a line or a command, in place of standard input; may be given again.
    #[arg(short = 'x', long, value_name = "LINE", help_heading = "Input")]
    execute: Vec<String>,
    /// Take commands (/ping, /close) from a pipe too, where lines are else sent as they are.
    #[arg(long, help_heading = "Input")]
    slash: bool,
    /// How long to stay after all of a pipe or of --execute is sent: seconds, or `forever`.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = linger, help_heading = "Input")]
    linger: Linger,
    /// End after N messages have come.
    #[arg(short = 'c', long, value_name = "N", help_heading = "Input")]
    count: Option<u64>,

    /// What stands in front of each frame: seconds since it was opened, the time of day (UTC), or nothing.
    #[arg(long, value_enum, default_value = "relative", help_heading = "Output")]
    time: TimeStyle,
    /// Show each frame of a message, not only the message.
    #[arg(long, help_heading = "Output")]
    frames: bool,
    /// Show JSON indented.
    #[arg(long, help_heading = "Output")]
    pretty: bool,
    /// Most bytes of a payload that are shown.
    #[arg(long, value_name = "BYTES", default_value = "4096", help_heading = "Output")]
    max_show: usize,
    /// Most bytes of a message that are taken.
    #[arg(long, value_name = "BYTES", default_value = "67108864", help_heading = "Output")]
    max_message: usize,
    /// Do not show pings and the pongs that answer them.
    #[arg(long, help_heading = "Output")]
    hide_pings: bool,
    /// Messages that come, and errors, alone: nothing of connecting, pings and closing.
    #[arg(short, long, help_heading = "Output")]
    quiet: bool,
    /// Payloads of messages alone: text with a line's end, bytes as they are. Into a terminal text is escaped all the same.
    #[arg(short, long, conflicts_with_all = ["frames", "pretty"], help_heading = "Output")]
    raw: bool,
    /// When to use colours; `auto` knows NO_COLOR.
    #[arg(long, value_enum, default_value = "auto", help_heading = "Output")]
    color: When,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum TimeStyle {
    Relative,
    Clock,
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum When {
    Auto,
    Always,
    Never,
}

/// How long to stay when there is nothing more to send; `None`: for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Linger(pub(super) Option<Duration>);

/// How the server is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum How {
    WebSocket,
    Events,
    Poll,
    LongPoll(u32),
    Post(String),
}

/// What was asked for, checked.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) url: Url,
    pub(super) how: How,
    /// Without those that the handshake has of its own.
    pub(super) headers: Vec<(String, String)>,
    /// Comma-separated.
    pub(super) subprotocols: Option<String>,
    pub(super) compression: bool,
    pub(super) since: Option<Since>,
    pub(super) location: bool,
    pub(super) timeout: Duration,
    pub(super) reconnect: bool,
    pub(super) execute: Vec<String>,
    pub(super) slash: bool,
    pub(super) linger: Option<Duration>,
    pub(super) count: Option<u64>,
    pub(super) message_bytes_max: usize,
    pub(super) look: Look,
    /// What is to be said before anything else.
    pub(super) warnings: Vec<String>,
}

/// How it is shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) time: TimeStyle,
    pub(super) frames: bool,
    pub(super) pretty: bool,
    pub(super) bytes_max: usize,
    pub(super) hide_pings: bool,
    pub(super) quiet: bool,
    pub(super) raw: bool,
    pub(super) color: When,
}

impl Options {
    /// Checks what clap cannot.
    pub(super) fn plan(self) -> Result<Plan, String> {
        let url = Url::parse(&self.url).map_err(|error| unusable(&self.url, &error))?;
        let how = self.how(&url)?;
        let mut headers = Vec::new();
        for header in &self.headers {
            headers.push(parse_header(header)?);
        }
        if let Some(origin) = &self.origin {
            headers.push(parse_header(&format!("Origin: {origin}"))?);
        }
        if let Some(token) = self.token()? {
            headers.push(parse_header(&format!("Authorization: Bearer {token}"))?);
        }
        let mut warnings = Vec::new();
        if let Some((name, _)) = url.parameters().find(|(name, _)| is_secret(name)) {
            warnings.push(format!(
                "`{}` in the URL ends up in logs and histories: send it as a header (--token-file, -H)",
                escaped(name)
            ));
        }
        let since = match &self.since {
            Some(text) => Some(text.parse::<Since>().map_err(|error| format!("--since {}: {error}", escaped(text)))?),
            None => None,
        };
        if let Some(bad) = self.subprotocols.iter().find(|name| !is_token(name)) {
            return Err(format!("--subprotocol `{}` is no token (RFC 6455, section 4.1)", escaped(bad)));
        }
        let subprotocols = (!self.subprotocols.is_empty()).then(|| self.subprotocols.join(", "));
        Ok(Plan {
            url,
            how,
            headers,
            subprotocols,
            compression: self.compression,
            since,
            location: self.location,
            timeout: self.timeout,
            reconnect: self.reconnect,
            execute: self.execute,
            slash: self.slash,
            linger: self.linger.0,
            count: self.count,
            message_bytes_max: self.max_message,
            look: Look {
                time: self.time,
                frames: self.frames,
                pretty: self.pretty,
                bytes_max: self.max_show,
                hide_pings: self.hide_pings,
                quiet: self.quiet,
                raw: self.raw,
                color: self.color,
            },
            warnings,
        })
    }

    fn how(&self, url: &Url) -> Result<How, String> {
        let how = match (&self.post, self.wait) {
            (Some(text), _) => How::Post(text.clone()),
            (_, Some(seconds)) => How::LongPoll(seconds),
            _ if self.poll => How::Poll,
            _ if self.sse || url.scheme == Scheme::Http => How::Events,
            _ => How::WebSocket,
        };
        if how == How::WebSocket {
            return Ok(how);
        }
        let of_websockets = [
            ("--execute", !self.execute.is_empty()),
            ("--subprotocol", !self.subprotocols.is_empty()),
            ("--compression", self.compression),
            ("--frames", self.frames),
        ];
        match of_websockets.iter().find(|(_, given)| *given) {
            Some((flag, _)) => {
                Err(format!("{flag} is for WebSockets: say ws://{}{}", url.authority, escaped(&url.path)))
            }
            None => Ok(how),
        }
    }

    fn token(&self) -> Result<Option<String>, String> {
        let Some(path) = &self.token_file else { return Ok(self.bearer.clone()) };
        let text = fs::read_to_string(path).map_err(|error| format!("--token-file {}: {error}", path.display()))?;
        match text.lines().next().map(str::trim) {
            None | Some("") => Err(format!("--token-file {}: its first line is empty", path.display())),
            Some(token) => Ok(Some(token.to_owned())),
        }
    }
}

/// Why a URL cannot be used, and what to do.
fn unusable(text: &str, error: &UrlError) -> String {
    let UrlError::Tls(plain) = error else { return escaped(&error.to_string()) };
    let plain = plain.name();
    let rest = escaped(text.split_once("://").map_or(text, |(_, rest)| rest));
    let at = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(at);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (host, port),
        _ => (authority, "443"),
    };
    format!(
        "{plain}s:// takes TLS, which `throng connect` does not speak. Let it end elsewhere, and connect to that:\n  \
         socat TCP-LISTEN:8443,bind=127.0.0.1,reuseaddr,fork OPENSSL:{host}:{port}     where there is socat\n  \
         ssh -L 8443:127.0.0.1:PORT {host}                                    where the server listens behind its proxy\n  \
         throng connect -H 'Host: {authority}' '{plain}://127.0.0.1:8443{path}'"
    )
}

/// Query parameters that hold secrets, by their names.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["token", "access_token", "jwt", "auth", "apikey", "api_key", "key", "secret", "password"].contains(&&*name)
}

/// A token of HTTP (RFC 9110, section 5.6.2).
fn is_token(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(plain)
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    let wrong = |why: &str| Err(format!("-H '{}': {why}", escaped(text)));
    let Some((name, value)) = text.split_once(':') else { return wrong("write 'NAME: VALUE'") };
    let value = value.trim();
    if !is_token(name) {
        return wrong("the name of a header is a token (RFC 9110, section 5.1)");
    }
    if value.chars().any(|c| c.is_control() && c != '\t') {
        return wrong("a header's value has no control characters");
    }
    match &*name.to_ascii_lowercase() {
        "sec-websocket-key" | "sec-websocket-extensions" => wrong("the handshake has its own: see --compression"),
        "sec-websocket-protocol" => wrong("say --subprotocol"),
        "content-length" | "transfer-encoding" => wrong("the request has its own"),
        _ => Ok((name.to_owned(), value.to_owned())),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().map_err(|_| "a number of seconds".to_owned())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(time) if seconds > 0.0 && time < Duration::from_secs(1 << 32) => Ok(time),
        _ => Err("a number of seconds above 0".to_owned()),
    }
}

fn linger(text: &str) -> Result<Linger, String> {
    match text {
        "forever" => Ok(Linger(None)),
        "0" => Ok(Linger(Some(Duration::ZERO))),
        _ => seconds(text).map(|time| Linger(Some(time))).map_err(|error| format!("{error}, or `forever`")),
    }
}

impl Plan {
    /// Whether the WebSocket's messages carry cursors: a topic's, with `frames=json`.
    pub(super) fn has_cursors(&self) -> bool {
        self.how != How::WebSocket || self.url.parameters().any(|pair| pair == ("frames", "json"))
    }

    /// Whether it speaks Centrifugo's protocol, by what is known before anything is said.
    pub(super) fn is_centrifugo(&self) -> bool {
        self.url.path.starts_with("/connection/")
            || self.subprotocols.as_ref().is_some_and(|names| names.contains("centrifuge-"))
    }

    /// Where the next connection starts.
    pub(super) fn start_from(&mut self, cursor: Cursor) {
        self.since = Some(Since::At(cursor));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        options: Options,
    }

    fn plan(line: &str) -> Result<Plan, String> {
        let words = ["connect"].into_iter().chain(line.split_whitespace());
        Cli::try_parse_from(words).map_err(|error| error.to_string())?.options.plan()
    }

    #[test]
    fn the_url_and_the_flags_say_how() {
        for (line, how) in [
            ("ws://a/", How::WebSocket),
            ("http://a/", How::Events),
            ("ws://a/ --sse", How::Events),
            ("http://a/ --poll", How::Poll),
            ("http://a/ --wait 5", How::LongPoll(5)),
            ("http://a/ --post x", How::Post("x".to_owned())),
        ] {
            assert_eq!(plan(line).unwrap().how, how, "{line}");
        }
        for line in [
            "http://a/ --poll --wait 5",
            "http://a/ --sse --post x",
            "ws://a/ --raw --pretty",
            "ws://a/ --timeout 0",
            "ws://a/ --linger x",
        ] {
            plan(line).unwrap_err();
        }
        assert!(plan("http://a/ --compression").unwrap_err().contains("ws://a/"));
    }

    #[test]
    fn a_url_with_tls_is_refused_with_what_to_do() {
        let error = plan("wss://example.com/a?b").unwrap_err();
        for part in ["TLS", "OPENSSL:example.com:443", "ssh -L", "-H 'Host: example.com' 'ws://127.0.0.1:8443/a?b'"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        let error = plan("https://example.com:8443").unwrap_err();
        assert!(error.contains("OPENSSL:example.com:8443") && error.contains("'http://127.0.0.1:8443'"), "{error}");
    }

    #[test]
    fn headers_are_checked_before_they_are_sent() {
        assert_eq!(parse_header("X-A:  b: c "), Ok(("X-A".to_owned(), "b: c".to_owned())));
        for bad in [
            "x",
            ": y",
            "a b: c",
            "a: b\r\nc: d",
            "Sec-WebSocket-Key: x",
            "sec-websocket-protocol: x",
            "Content-Length: 3",
        ] {
            assert!(parse_header(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn tokens_go_into_a_header_and_not_into_the_url() {
        let with = plan("ws://a/ --bearer abc").unwrap();
        assert_eq!(with.headers, [("Authorization".to_owned(), "Bearer abc".to_owned())]);
        assert!(with.warnings.is_empty());
        let warned = plan("ws://a/?x=1&token=abc").unwrap().warnings;
        assert!(warned.len() == 1 && !warned[0].contains("abc"), "{warned:?}");
        assert!(plan("ws://a/ --token-file no/such/file").unwrap_err().contains("no/such/file"));
    }

    #[test]
    fn cursors_are_checked() {
        assert_eq!(plan("ws://a/ --since earliest").unwrap().since, Some(Since::Earliest));
        assert!(plan("ws://a/ --since abcdefgh-7").is_ok());
        assert!(plan("ws://a/ --since 7").unwrap_err().contains("--since 7"));
        assert!(plan("ws://a/?frames=json").unwrap().has_cursors() && !plan("ws://a/?frames=x").unwrap().has_cursors());
    }
}
