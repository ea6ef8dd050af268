//! Centrifugo's client protocol (version 2) from the client's side, sans-IO: the commands that a subscriber needs, and what
//! a server says to it. The names and numbers are those of `client.proto` (centrifugal/protocol).
//!
//! ```text
//!   JSON       {"id":1,"connect":{}} LF {"id":2,"subscribe":{"channel":"a"}}      a line feed between
//!   Protobuf   length  command  length  command                                   lengths are varints
//! ```
//!
//! An empty reply is a ping, and an empty command the pong: `{}`, or the length 0.

mod json;
mod protobuf;

use std::borrow::Cow;
use throng::ws::Opcode;

/// How commands and replies are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Protobuf,
}

impl Format {
    /// What frames are made of.
    pub(crate) fn opcode(self) -> Opcode {
        match self {
            Self::Json => Opcode::Text,
            Self::Protobuf => Opcode::Binary,
        }
    }

    /// The answer to a ping.
    pub(crate) fn pong(self) -> &'static [u8] {
        match self {
            Self::Json => b"{}",
            Self::Protobuf => b"\0",
        }
    }

    /// What is offered in the handshake; JSON needs no offer.
    pub(crate) fn subprotocol(self) -> Option<&'static str> {
        match self {
            Self::Json => None,
            Self::Protobuf => Some("centrifuge-protobuf"),
        }
    }
}

/// Ids of the two commands.
const CONNECT: u64 = 1;
const SUBSCRIBE: u64 = 2;

/// What a client asks for as it comes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Join<'a> {
    /// The connection token; empty: none.
    pub(crate) token: &'a str,
    /// Empty: no subscription.
    pub(crate) channel: &'a str,
    /// It will come back: the server is to say where it stands.
    pub(crate) returns: bool,
    /// It goes on from here, which [`cursor`] has written; empty: from now on.
    pub(crate) cursor: &'a [u8],
}

impl Join<'_> {
    /// Writes the commands over `out`, in one frame.
    pub(crate) fn write(&self, out: &mut Vec<u8>, format: Format) {
        out.clear();
        match format {
            Format::Json => json::write(out, self),
            Format::Protobuf => protobuf::write(out, self),
        }
    }

    /// Epoch and offset, if it goes on from somewhere.
    fn position(&self) -> Option<(&str, u64)> {
        let (epoch, offset) = std::str::from_utf8(self.cursor).ok()?.rsplit_once('-')?;
        Some((epoch, offset.parse().ok()?))
    }
}

/// Writes a position over `out`, as one opaque text: `EPOCH-OFFSET`.
pub(crate) fn cursor(out: &mut Vec<u8>, epoch: &str, offset: u64) {
    out.clear();
    out.extend_from_slice(epoch.as_bytes());
    out.push(b'-');
    out.extend_from_slice(offset.to_string().as_bytes());
}

/// What a server says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reply<'a> {
    Ping,
    /// The session has begun.
    Connected,
    Subscribed(Subscribed<'a>),
    Publication(Publication<'a>),
    /// A command failed.
    Error(Word<'a>),
    /// The subscription has ended.
    Unsubscribed(Word<'a>),
    /// The session ends; on a WebSocket a close code mostly says so.
    Disconnected(Word<'a>),
    /// What a subscriber need not care about: who joins and leaves, and what is yet to be invented.
    Other,
}

/// A code and its reason.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Word<'a> {
    pub(crate) code: u32,
    pub(crate) reason: Cow<'a, str>,
}

/// A subscription has begun.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Subscribed<'a> {
    pub(crate) epoch: Cow<'a, str>,
    pub(crate) offset: u64,
    /// All that was missed is here, or follows.
    pub(crate) recovered: bool,
    pub(crate) publications: Vec<Publication<'a>>,
}

/// A message.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Publication<'a> {
    pub(crate) data: Cow<'a, [u8]>,
    /// 0: not in the log.
    pub(crate) offset: u64,
}

/// A frame is none of this protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// The replies in one frame, in order. After the first that is malformed there are no more.
pub(crate) fn replies(format: Format, frame: &[u8]) -> Replies<'_> {
    Replies { format, rest: frame }
}

/// See [`replies`].
#[derive(Debug)]
pub(crate) struct Replies<'a> {
    format: Format,
    rest: &'a [u8],
}

impl<'a> Iterator for Replies<'a> {
    type Item = Result<Reply<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let reply = match self.format {
            Format::Json => json::next(&mut self.rest),
            Format::Protobuf => protobuf::next(&mut self.rest),
        };
        if reply.is_err() {
            self.rest = &[];
        }
        Some(reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    pub(super) fn all(format: Format, frame: &[u8]) -> Vec<Reply<'_>> {
        replies(format, frame).collect::<Result<_, _>>().unwrap_or_else(|_| panic!("{frame:02x?}"))
    }

    pub(super) fn word(code: u32, reason: &str) -> Word<'_> {
        Word { code, reason: reason.into() }
    }

    pub(super) fn publication(data: &[u8], offset: u64) -> Publication<'_> {
        Publication { data: data.into(), offset }
    }

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        let mut text = Vec::new();
        for (epoch, offset) in [("abcdefgh", 7), ("", 0), ("a-b", u64::MAX)] {
            cursor(&mut text, epoch, offset);
            let join = Join { token: "", channel: "a", returns: true, cursor: &text };
            assert_eq!(join.position(), Some((epoch, offset)));
        }
        for none in ["", "abc", "abc-x"] {
            assert_eq!(Join { token: "", channel: "a", returns: true, cursor: none.as_bytes() }.position(), None);
        }
    }
}
