//! How a session's commands and replies travel: in frames of a WebSocket, or, where there is none, in requests of their own
//! and the body of a response that goes on.

use super::compressed::Codec;
use super::line::{Came, Line, Scene};
use super::wire::{self, Answer};
use serde_json::{Value, json};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    WebSocket,
    /// Lines in chunks.
    HttpStream,
    /// Server-sent events in chunks.
    Events,
}

/// What came of a session's own connection.
#[derive(Debug)]
pub(super) enum Heard {
    /// Replies, a line each.
    Lines(Vec<String>),
    Close(Vec<u8>),
    /// The body is over.
    End,
}

/// The other connection of a session without a WebSocket.
#[derive(Debug, Default)]
pub(super) struct Posts {
    line: Line,
    /// How many are not answered.
    unanswered: usize,
    waiting: Vec<String>,
    /// The session and its node, as the reply to connect named them.
    address: Option<(Value, Value)>,
}

impl Carrier {
    pub(super) const ALL: [Self; 4] = [Self::WebSocket, Self::WebSocket, Self::HttpStream, Self::Events];

    /// The request that begins a session, with these commands if it can carry some.
    pub(super) fn request(self, commands: &str, scene: &mut Scene<'_>) -> String {
        match self {
            Self::WebSocket => {
                let offer = match scene.compression {
                    true => format!("Sec-WebSocket-Extensions: {}\r\n", Codec::offer(scene.rng)),
                    false => String::new(),
                };
                format!(
                    "GET /connection/websocket HTTP/1.1\r\nHost: s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{offer}\
                     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                )
            }
            Self::HttpStream => format!(
                "POST /connection/http_stream HTTP/1.1\r\nHost: s\r\nContent-Length: {}\r\n\r\n{commands}",
                commands.len()
            ),
            Self::Events => format!(
                "POST /connection/sse HTTP/1.1\r\nHost: s\r\nAccept: text/event-stream\r\nContent-Length: {}\r\n\r\n\
                 {commands}",
                commands.len()
            ),
        }
    }

    /// Takes one thing of what was read on the session's own connection.
    pub(super) fn take(self, input: &mut Vec<u8>, codec: &mut Codec) -> Option<Heard> {
        if self == Self::WebSocket {
            return match codec.take(input)? {
                (1, payload) => {
                    let text = String::from_utf8(payload).expect("text is UTF-8");
                    Some(Heard::Lines(text.split('\n').map(str::to_owned).collect()))
                }
                (8, payload) => Some(Heard::Close(payload)),
                (opcode, _) => panic!("a frame with opcode {opcode}"),
            };
        }
        let chunk = take_chunk(input)?;
        if chunk.is_empty() {
            return Some(Heard::End);
        }
        let text = String::from_utf8(chunk).expect("an emulated session in JSON is UTF-8");
        let replies = match self {
            Self::Events => {
                let blocks = text.strip_suffix("\n\n").unwrap_or_else(|| panic!("a chunk cuts an event: {text:?}"));
                let data = |block: &str| block.strip_prefix("data: ").map(str::to_owned);
                blocks.split("\n\n").filter(|block| *block != ":").map(|block| data(block).expect("data")).collect()
            }
            _ => {
                let lines = text.strip_suffix('\n').unwrap_or_else(|| panic!("a chunk cuts a line: {text:?}"));
                lines.split('\n').map(str::to_owned).collect()
            }
        };
        Some(Heard::Lines(replies))
    }
}

/// Takes a whole chunk off the front; the last is empty.
fn take_chunk(input: &mut Vec<u8>) -> Option<Vec<u8>> {
    let line = input.windows(2).position(|window| window == b"\r\n")?;
    let size = std::str::from_utf8(&input[..line]).ok().and_then(|size| usize::from_str_radix(size, 16).ok());
    let (start, size) = (line + 2, size.unwrap_or_else(|| panic!("no chunk's size: {:?}", &input[..line])));
    let chunk = input.get(start..start + size)?.to_vec();
    assert_eq!(input.get(start + size..start + size + 2)?, b"\r\n", "a chunk is not as long as it says");
    input.drain(..start + size + 2);
    Some(chunk)
}

impl Posts {
    /// The reply to connect says where commands go from now on.
    pub(super) fn connected(&mut self, reply: &Value) {
        self.address = Some((reply["session"].clone(), reply["node"].clone()));
    }

    pub(super) fn say(&mut self, commands: &str) {
        let Some((session, node)) = &self.address else { panic!("it is not connected") };
        self.waiting.push(json!({"session": session, "node": node, "data": commands}).to_string());
    }

    pub(super) fn leave(&mut self, scene: &mut Scene<'_>) {
        self.line.leave(scene);
        *self = Self::default();
    }

    /// Whether something happened; `Err`: commands were lost on their way, or the session is gone.
    pub(super) fn step(&mut self, scene: &mut Scene<'_>) -> Result<bool, ()> {
        if self.line.link.is_none() && (self.waiting.is_empty() || !self.line.connect(scene)) {
            return Ok(false);
        }
        for body in self.waiting.drain(..) {
            let head = format!("POST /emulation HTTP/1.1\r\nHost: s\r\nContent-Length: {}\r\n\r\n", body.len());
            self.line.out.extend_from_slice(head.as_bytes());
            self.line.out.extend_from_slice(body.as_bytes());
            self.unanswered += 1;
            scene.truth.tally.posts += 1;
        }
        let came = self.line.step(scene);
        let mut is_last = false;
        while let Some(answer) = Answer::take(&mut self.line.input, false) {
            is_last |= answer.is_last();
            match answer.status {
                204 => self.unanswered = self.unanswered.checked_sub(1).expect("nobody asked"),
                404 | 408 | 503 => return Err(()),
                status => panic!("commands were answered {status}: {}", answer.body),
            }
        }
        if is_last || matches!(came, Came::End | Came::Reset) {
            self.line.leave(scene);
            return if self.unanswered > 0 { Err(()) } else { Ok(true) };
        }
        Ok(came != Came::Nothing)
    }
}

/// A Close for a client's own reasons.
pub(super) fn put_close(out: &mut Vec<u8>) {
    wire::put_frame(out, 0x88, &1000_u16.to_be_bytes());
}
