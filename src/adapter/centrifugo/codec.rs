//! Frames: several commands in, several replies out.
//!
//! ```text
//!   JSON       {"id":1,"connect":{}} LF {"id":2,"subscribe":{"channel":"a"}}     a line feed between, one may end it
//!   Protobuf   length  command  length  command                                  lengths are varints
//! ```
//!
//! An empty message is a ping, and an empty command the pong: `{}`, or the length 0.

use super::protocol::{Command, EmulationRequest, Reply};
use prost::Message;
use prost::encoding::decode_varint;
use serde::Deserialize;
use std::fmt;

/// How a session speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Format {
    Json,
    Protobuf,
}

impl Format {
    /// An empty reply, which the client answers with an empty command.
    pub(crate) const fn ping(self) -> &'static [u8] {
        match self {
            Self::Json => b"{}",
            Self::Protobuf => b"\0",
        }
    }
}

/// Why a frame cannot be read; the client's fault (disconnect 3501). What was read before it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// A command is longer than the caller takes.
    TooLong {
        /// As announced, in Protobuf.
        bytes: u64,
        bytes_max: usize,
    },
    /// A line is not JSON.
    NotJson {
        /// Counted from 1 in the line.
        column: usize,
    },
    /// A line is JSON, but no command: a field has another type.
    NotCommand { column: usize },
    /// The length is cut, or longer than a varint may be.
    Length,
    /// The frame ends inside of a command.
    Cut { missing: u64 },
    /// The bytes are no command.
    NotProtobuf(prost::DecodeError),
    /// There is an id and nothing to do, or nothing that is known here.
    NoRequest { id: u32 },
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { bytes, bytes_max } => {
                write!(f, "a command has {bytes} bytes: at most {bytes_max} are taken")
            }
            Self::NotJson { column } => write!(f, "a line is not JSON: see column {column}"),
            Self::NotCommand { column } => write!(f, "a line is not a command: see column {column}"),
            Self::Length => f.write_str("the length before a command is not a varint"),
            Self::Cut { missing } => write!(f, "the frame ends {missing} bytes before its last command does"),
            Self::NotProtobuf(error) => write!(f, "not a command: {error}"),
            Self::NoRequest { id } => write!(f, "command {id} asks for nothing that is known here"),
        }
    }
}

impl std::error::Error for Malformed {}

/// The commands of one frame, in order. A pong is one without an id and without a request; so is an empty frame. After
/// the first that is malformed there are no more.
pub(crate) fn commands(format: Format, frame: &[u8], bytes_max: usize) -> Commands<'_> {
    let frame = match format {
        Format::Json => frame.strip_suffix(b"\n").unwrap_or(frame),
        Format::Protobuf => frame,
    };
    Commands { format, rest: Some(frame), is_first: true, bytes_max }
}

/// See [`commands`].
#[derive(Debug)]
pub(crate) struct Commands<'a> {
    format: Format,
    /// None at the end.
    rest: Option<&'a [u8]>,
    is_first: bool,
    bytes_max: usize,
}

impl Iterator for Commands<'_> {
    type Item = Result<Command, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest.take()?;
        if std::mem::take(&mut self.is_first) && rest.is_empty() {
            return Some(Ok(Command::default()));
        }
        let command = match self.format {
            Format::Json => self.line(rest),
            Format::Protobuf => self.delimited(rest),
        };
        if command.is_err() {
            self.rest = None;
        }
        Some(command)
    }
}

impl<'a> Commands<'a> {
    fn line(&mut self, rest: &'a [u8]) -> Result<Command, Malformed> {
        let (line, rest) = match rest.iter().position(|&byte| byte == b'\n') {
            Some(end) => (&rest[..end], Some(&rest[end + 1..])),
            None => (rest, None),
        };
        self.rest = rest;
        self.bound(line.len() as u64)?;
        known(object(line)?)
    }

    fn delimited(&mut self, mut rest: &'a [u8]) -> Result<Command, Malformed> {
        let length = decode_varint(&mut rest).map_err(|_| Malformed::Length)?;
        self.bound(length)?;
        let Some((command, rest)) = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length))
        else {
            return Err(Malformed::Cut { missing: length - rest.len() as u64 });
        };
        self.rest = (!rest.is_empty()).then_some(rest);
        known(Command::decode(command).map_err(Malformed::NotProtobuf)?)
    }

    /// Before anything is done with the bytes, or waited for.
    fn bound(&self, bytes: u64) -> Result<(), Malformed> {
        let bytes_max = self.bytes_max;
        if bytes > bytes_max as u64 { Err(Malformed::TooLong { bytes, bytes_max }) } else { Ok(()) }
    }
}

/// Skipping what is not known leaves nothing of a request that is not.
fn known(command: Command) -> Result<Command, Malformed> {
    match command {
        Command { id: 1.., request: None } => Err(Malformed::NoRequest { id: command.id }),
        command => Ok(command),
    }
}

/// A message. `serde` would take an array too, as the fields in their order.
fn object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, Malformed> {
    let message = from_json(json)?;
    if json.trim_ascii_start().starts_with(b"{") { Ok(message) } else { Err(Malformed::NotCommand { column: 1 }) }
}

fn from_json<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, Malformed> {
    serde_json::from_slice(json).map_err(|error| match error.is_data() {
        true => Malformed::NotCommand { column: error.column() },
        false => Malformed::NotJson { column: error.column() },
    })
}

/// The body of a POST beside a one-way transport. Its `data` is a frame of commands; in JSON it comes as a string.
pub(crate) fn emulation(format: Format, body: &[u8]) -> Result<EmulationRequest, Malformed> {
    match format {
        Format::Json => {
            let request: EmulationRequest = object(body)?;
            Ok(EmulationRequest { data: from_json::<String>(&request.data)?.into_bytes(), ..request })
        }
        Format::Protobuf => EmulationRequest::decode(body).map_err(Malformed::NotProtobuf),
    }
}

/// Appends a reply to a frame, of which `out` holds what there is so far.
pub(crate) fn encode(out: &mut Vec<u8>, format: Format, reply: &Reply) {
    match format {
        Format::Json => {
            if !out.is_empty() {
                out.push(b'\n');
            }
            // Keys are strings, `bytes` are made JSON where they are none, and a `Vec` takes everything.
            serde_json::to_writer(out, reply).expect("a reply can be written as JSON");
        }
        Format::Protobuf => reply.encode_length_delimited(out).expect("a Vec has no end"),
    }
}
