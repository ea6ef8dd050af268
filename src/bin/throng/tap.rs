//! `throng tap`: frames of a running server, live in the terminal, through its admin port.

use serde_json::Value;
use std::fmt::Write as _;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use throng::ws::{self, Event, Opcode, Role, Rules};

const MORE: &str = "\
A line for each frame: the time (UTC), the connection's id, the way (in: from the client, out: to it), what it is, the size of its
payload. Payloads are hidden, since they are other people's; --payload shows the first 512 bytes, with control characters escaped.
A server shows at most 1,000 frames a second and says how many it left out. The tap ends with --seconds, or with Ctrl-C.

  throng tap --id 0-1234                     one connection, by its id in /connections or the log
  throng tap --user mary --payload           all sessions of a user
  throng tap --topic news                    what is published to a topic, and to whom it goes

Exit status: 0 when the time is up, 1 when the server refuses or goes, 2 for a wrong command line.";

/// How long the server may take for the first notice, which says what is tapped.
const FIRST_NOTICE: Duration = Duration::from_secs(5);

/// How long it may be silent: it pings every ten seconds.
const SILENCE: Duration = Duration::from_secs(60);

/// How much later than the server this side ends it.
const GRACE: Duration = Duration::from_secs(2);

const NO_ADMIN_PORT: &str = "this is not an admin port: --url wants the address of --admin";

/// What is tapped, and where.
#[derive(clap::Args)]
#[command(after_help = MORE, group = clap::ArgGroup::new("target").required(true))]
#[group(skip)]
pub(crate) struct Options {
    /// The admin port of the server (throng serve --admin)
    #[arg(long, visible_alias = "admin", value_name = "URL", default_value = "http://127.0.0.1:8081")]
    url: String,
    /// One connection
    #[arg(long, value_name = "ID", group = "target")]
    id: Option<String>,
    /// All connections of a user
    #[arg(long, value_name = "NAME", group = "target")]
    user: Option<String>,
    /// A topic: publications, and their deliveries
    #[arg(long, value_name = "NAME", group = "target")]
    topic: Option<String>,
    /// Show payloads
    #[arg(long)]
    payload: bool,
    /// How long
    #[arg(long, value_name = "S", default_value_t = 300)]
    seconds: u64,
    /// Print the lines as the server sends them, a JSON object each
    #[arg(long)]
    json: bool,
    /// File with the admin port's key [default: the key in the environment variable THRONG_ADMIN_KEY, if any]
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

impl Options {
    fn key(&self) -> Result<Option<String>, String> {
        let key = match &self.key_file {
            Some(file) => Some(std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?),
            None => std::env::var("THRONG_ADMIN_KEY").ok(),
        };
        Ok(key.map(|key| key.trim().to_owned()).filter(|key| !key.is_empty()))
    }

    /// What stands behind the `?`.
    fn query(&self) -> String {
        let targets = [("id", &self.id), ("user", &self.user), ("topic", &self.topic)];
        let mut query = format!("seconds={}", self.seconds);
        for (name, value) in targets.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
            let _ = write!(query, "&{name}={}", escaped(value));
        }
        query + if self.payload { "&payload" } else { "" }
    }
}

/// Percent-encoded, all but what may stand in a query (RFC 3986, section 3.4).
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// Taps until the time is up.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let authority = match options.url.split_once("://") {
        Some(("http" | "ws", authority)) => authority.trim_end_matches('/'),
        None => options.url.trim_end_matches('/'),
        Some((scheme, _)) => {
            return Err(format!("{scheme}:// is not spoken by the admin port: give --url http://HOST:PORT"));
        }
    };
    let mut stream = TcpStream::connect(authority).map_err(|error| {
        format!(
            "cannot connect to {authority}: {error}; is the server running with --admin {authority}? \
             --url says where its admin port is"
        )
    })?;
    let rest = upgrade(&mut stream, authority, &options.query(), options.key()?)?;
    watch(stream, rest, options)
}

/// Opens the WebSocket (RFC 6455, section 4.1). What came behind the answer is returned.
fn upgrade(stream: &mut TcpStream, host: &str, query: &str, key: Option<String>) -> Result<Vec<u8>, String> {
    let failed = |error: io::Error| format!("{host}: {error}");
    let random = throng::sys::random_u64().map_err(failed)?;
    let nonce = format!("throng{:010x}", random & 0xff_ffff_ffff);
    let nonce = base64(nonce.as_bytes());
    let key = key.map_or_else(String::new, |key| format!("X-API-Key: {key}\r\n"));
    let request = format!(
        "GET /tap?{query} HTTP/1.1\r\nHost: {host}\r\n{key}Upgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {nonce}\r\n\r\n"
    );
    stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(failed)?;
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    let end = loop {
        if let Some(at) = answer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        match stream.read(&mut buffer).map_err(failed)? {
            0 => return Err(format!("{host} closed without an answer: is that the admin port?")),
            count => answer.extend_from_slice(&buffer[..count]),
        }
        if answer.len() > 64 * 1024 {
            return Err(format!("{host} answers with something else: is that the admin port?"));
        }
    };
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let accept = ws::accept_value(nonce.as_bytes());
    let accepted = head.lines().filter_map(|line| line.split_once(':')).any(|(name, value)| {
        name.eq_ignore_ascii_case("Sec-WebSocket-Accept") && value.trim().as_bytes() == &accept[..]
    });
    if head.starts_with("HTTP/1.1 101") && accepted {
        return Ok(answer.split_off(end));
    }
    // The rest of a refusal comes with it or right behind it.
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        answer.extend_from_slice(&buffer[..count]);
    }
    let status = head.lines().next().unwrap_or_default();
    let detail = serde_json::from_slice::<Value>(&answer[end..]).ok();
    let detail = detail.as_ref().and_then(|body| body["detail"].as_str()).unwrap_or("is that the admin port?");
    Err(format!("refused ({}): {}", plain(status), plain(detail)))
}

/// RFC 4648, section 4, of a multiple of no particular length.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0_u32, |group, &byte| group << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let value = (group >> (18 - 6 * digit)) & 63;
            text.push(if digit <= chunk.len() { char::from(DIGITS[value as usize]) } else { '=' });
        }
    }
    text
}

/// Prints what comes, until the server closes or the time is up.
fn watch(mut stream: TcpStream, mut input: Vec<u8>, options: &Options) -> Result<(), String> {
    let failed = |error: io::Error| match error.kind() {
        ErrorKind::BrokenPipe => String::new(),
        _ => format!("the tap ended: {error}"),
    };
    let started = Instant::now();
    // The server ends it in time; it may be one that does not.
    let end = started.checked_add(Duration::from_secs(options.seconds).saturating_add(GRACE));
    let rules = Rules { role: Role::Client, message_bytes_max: 1 << 20, compression: false };
    let (mut partial, mut buffer, mut is_tap) = (None, vec![0; 64 * 1024], false);
    loop {
        let mut at = 0;
        let mut answer = Vec::new();
        let decoded = |error| failed(io::Error::other(error));
        while let Some(event) = ws::decode(&mut partial, &mut input, &mut at, rules).map_err(decoded)? {
            match event {
                Event::Text(text) if is_tap || is_notice(text) => {
                    is_tap = true;
                    print(text, options.json).map_err(failed)?;
                }
                Event::Text(_) => return Err(NO_ADMIN_PORT.to_owned()),
                Event::Ping(payload) => masked(&mut answer, Opcode::Pong, payload).map_err(failed)?,
                Event::Close(frame) => {
                    eprintln!("{}", plain(if frame.reason.is_empty() { "closed by the server" } else { frame.reason }));
                    return if frame.code == Some(1000) {
                        Ok(())
                    } else {
                        Err("the tap ended: the server closed the tap".to_owned())
                    };
                }
                Event::Pong(_) | Event::Binary(_) | Event::Compressed(..) => {}
            }
        }
        stream.write_all(&answer).map_err(failed)?;
        let now = Instant::now();
        let (until, is_late) = match end {
            _ if !is_tap => (started + FIRST_NOTICE, Err(NO_ADMIN_PORT.to_owned())),
            Some(end) if end <= now + SILENCE => (end, Ok(())),
            _ => (now + SILENCE, Err("the tap ended: the server is silent".to_owned())),
        };
        let left = until.saturating_duration_since(now);
        if left.is_zero() {
            return is_late;
        }
        stream.set_read_timeout(Some(left)).map_err(failed)?;
        let count = match stream.read(&mut buffer) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return is_late,
            Err(error) if error.kind() == ErrorKind::Interrupted => 0,
            Ok(0) => return Err("the tap ended: the server is gone".to_owned()),
            other => other.map_err(failed)?,
        };
        input.clear();
        input.extend_from_slice(&buffer[..count]);
    }
}

/// A tap begins with one.
fn is_notice(line: &str) -> bool {
    serde_json::from_str::<Value>(line).is_ok_and(|seen| seen["notice"].is_string())
}

/// Appends a client's frame.
fn masked(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) -> io::Result<()> {
    let key = throng::sys::random_u64()?.to_le_bytes();
    ws::encode_masked(out, opcode, payload, [key[0], key[1], key[2], key[3]]);
    Ok(())
}

fn print(line: &str, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        writeln!(out, "{line}")?;
    } else {
        match serde_json::from_str::<Value>(line) {
            Ok(seen) if seen["notice"].is_string() => {
                drop(out);
                eprintln!("{}", plain(seen["notice"].as_str().unwrap_or_default()));
                return Ok(());
            }
            Ok(seen) => writeln!(out, "{}", readable(&seen))?,
            Err(_) => writeln!(out, "{}", plain(line))?,
        }
    }
    out.flush()
}

/// A line for people.
fn readable(seen: &Value) -> String {
    let text = |name: &str| plain(seen[name].as_str().unwrap_or("-"));
    let ms = seen["unix_ms"].as_u64().unwrap_or(0);
    let (s, ms) = (ms / 1000, ms % 1000);
    let mut line = format!(
        "{:02}:{:02}:{:02}.{ms:03}  {:<10}  {:<5}  {:<12}",
        s / 3600 % 24,
        s / 60 % 60,
        s % 60,
        text("id"),
        text("way"),
        text("what")
    );
    if seen["way"] != "event" {
        let _ = write!(line, "  {:>7} B", seen["bytes"].as_u64().unwrap_or(0));
    }
    for (name, word) in [("compressed", "compressed"), ("goes_on", "to be continued")] {
        if seen[name] == true {
            let _ = write!(line, "  ({word})");
        }
    }
    if seen["topic"].is_string() {
        let _ = write!(line, "  {}", text("topic"));
    }
    if seen["payload"].is_string() {
        let _ = write!(line, "  {}{}", text("payload"), if seen["cut"] == true { " ..." } else { "" });
    }
    line
}

/// What clients chose must not move the cursor of who reads: control characters are escaped, and what turns the direction of text.
fn plain(text: &str) -> String {
    let is_bad = |c: char| {
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if is_bad(c) { c.escape_unicode().to_string() } else { c.to_string() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    /// What a tap says of a server that upgrades to a WebSocket and then sends this.
    fn tapped(sent: &'static [u8], seconds: u64) -> Result<(), String> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        peer.write_all(sent).unwrap();
        let (id, url) = (Some("0-1".to_owned()), String::new());
        let options =
            Options { url, id, user: None, topic: None, payload: false, seconds, json: false, key_file: None };
        watch(stream, Vec::new(), &options)
    }

    #[test]
    fn a_port_that_does_not_begin_with_a_notice_is_none_of_admin() {
        assert_eq!(tapped(b"\x81\x02hi", 300), Err(NO_ADMIN_PORT.to_owned()));
        assert_eq!(tapped(b"", 1), Err(NO_ADMIN_PORT.to_owned()), "one that is silent");
    }

    #[test]
    fn the_time_is_up_here_too() {
        assert_eq!(tapped(b"\x81\x0e{\"notice\":\"a\"}", 0), Ok(()));
    }

    #[test]
    fn what_a_client_sent_cannot_move_the_cursor() {
        let seen = serde_json::json!({"unix_ms": 45_296_789, "id": "0-1", "way": "in", "what": "text", "bytes": 600,
            "payload": "a\u{1b}[2J\n\u{202e}b", "cut": true});
        let line = readable(&seen);
        assert!(line.starts_with("12:34:56.789  0-1"), "{line}");
        assert!(line.ends_with("a\\u{1b}[2J\\u{a}\\u{202e}b ..."), "{line}");
        assert!(line.chars().all(|c| !c.is_control()));
    }
}
