//! The frame decoder: in place, without copies where a message lies whole in the input.
//!
//! ```text
//!  input   | frame | frame | frame | fra      one read of the socket, in the worker's scratch
//!          |---------------------->|          `at` moves over whole frames; each is unmasked where it
//!                                  |-->|      lies and handed out as a borrow
//!                                             only what is cut by the end of the input moves to `Partial`
//! ```
//!
//! Between messages there is no state: `partial` is `None`, and an idle connection costs nothing. A frame that
//! is cut, or a message in several frames, gets a [`Partial`]: its payload is unmasked and, for text, checked
//! as it comes, and appended to one buffer, which grows with the bytes received and never with the bytes
//! announced. However the input is cut, the same events come out, and the same violation ends them.

use super::close::CloseFrame;
use super::frame::{Header, Opcode};
use super::mask::unmask;
use super::utf8::Utf8;
use crate::error::Violation;
use crate::limits::{CONTROL_BYTES_MAX, FRAME_HEADER_BYTES_MAX};
use crate::time::Tick;

/// Which side of the connection reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Frames come from a client and must be masked (RFC 6455, section 5.1).
    Server,
    /// Frames come from a server and must not be.
    Client,
}

/// What the decoder enforces beyond the RFC's rules.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Which side reads.
    pub role: Role,
    /// Longest message, in bytes of payload; also the sum of its fragments.
    pub message_bytes_max: usize,
    /// Whether permessage-deflate was agreed on: then a message may be compressed.
    pub compression: bool,
}

impl Rules {
    /// Longest payload of a message of that kind. What cannot be compressed grows a little when it is all the same: by an
    /// eighth at worst, in the fixed code of DEFLATE (RFC 1951, section 3.2.6). What it says is bounded when it is inflated.
    fn payload_bytes_max(&self, compressed: bool) -> usize {
        let max = self.message_bytes_max;
        if compressed { max.saturating_add(max / 8 + 64) } else { max }
    }
}

/// What a peer said. Payloads are unmasked and borrowed from the input or from [`Partial`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole message of text.
    Text(&'a str),
    /// A whole message of bytes.
    Binary(&'a [u8]),
    /// A whole message as it was compressed, of text or of bytes: to be inflated, and text to be checked then.
    Compressed(Opcode, &'a [u8]),
    /// To be answered with a pong of the same payload (section 5.5.2).
    Ping(&'a [u8]),
    /// An answer, or unsolicited (section 5.5.3).
    Pong(&'a [u8]),
    /// The peer closes; what it sends afterwards is to be ignored (section 5.5.1).
    Close(CloseFrame<'a>),
}

/// Where the input stopped in the middle of a frame or of a fragmented message.
#[derive(Debug)]
pub struct Partial {
    /// A header that is not whole yet.
    header: [u8; FRAME_HEADER_BYTES_MAX],
    header_length: u8,
    /// The frame whose header is known and whose payload is under way.
    frame: Option<Frame>,
    /// The payload of a control frame, which may come between a message's fragments.
    control: [u8; CONTROL_BYTES_MAX],
    /// The message under way: `None` between messages.
    kind: Option<Kind>,
    /// Its payload so far.
    message: Vec<u8>,
    /// The end of its text so far.
    utf8: Utf8,
    /// When it was first left incomplete: for the caller, who knows the time.
    pub begun: Option<Tick>,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    header: Header,
    /// Bytes of the payload that have come. Invariant: received <= header.length.
    received: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Binary,
    CompressedText,
    CompressedBinary,
}

impl Kind {
    /// Of the message that a frame begins.
    fn of(header: &Header) -> Option<Self> {
        Some(match (header.opcode, header.compressed) {
            (Opcode::Text, false) => Self::Text,
            (Opcode::Binary, false) => Self::Binary,
            (Opcode::Text, true) => Self::CompressedText,
            (Opcode::Binary, true) => Self::CompressedBinary,
            _ => return None,
        })
    }

    fn is_compressed(self) -> bool {
        matches!(self, Self::CompressedText | Self::CompressedBinary)
    }
}

impl Default for Partial {
    fn default() -> Self {
        Self {
            header: [0; FRAME_HEADER_BYTES_MAX],
            header_length: 0,
            frame: None,
            control: [0; CONTROL_BYTES_MAX],
            kind: None,
            message: Vec::new(),
            utf8: Utf8::default(),
            begun: None,
        }
    }
}

impl Partial {
    /// Bytes of memory behind it.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.message.capacity()
    }

    /// Nothing is under way.
    fn is_empty(&self) -> bool {
        self.header_length == 0 && self.frame.is_none() && self.kind.is_none()
    }
}

/// Takes the next event out of `input[*at..]` and moves `at` behind it; `None` when all of the input is used up.
/// After an error nothing more may be read: the connection is to be failed (section 7.1.7).
///
/// The caller keeps `partial` for the connection, `None` at first, and brings the next input when it comes.
#[inline]
pub fn decode<'a>(
    partial: &'a mut Option<Box<Partial>>,
    input: &'a mut [u8],
    at: &mut usize,
    rules: Rules,
) -> Result<Option<Event<'a>>, Violation> {
    // A message that was handed out from `partial` by the last call is done with.
    if partial.as_ref().is_some_and(|partial| partial.is_empty()) {
        *partial = None;
    }
    if *at == input.len() {
        return Ok(None);
    }
    if partial.is_none() {
        let rest = &input[*at..];
        if let Some((header, header_length)) = Header::parse(rest, rules.compression)? {
            check(&header, None, 0, rules)?;
            let whole = rest.len() - header_length >= header.length as usize;
            if whole && header.fin {
                let start = *at + header_length;
                let end = start + header.length as usize;
                *at = end;
                let payload = &mut input[start..end];
                if let Some(key) = header.mask {
                    unmask(payload, key, 0);
                }
                if header.compressed {
                    return Ok(Some(Event::Compressed(header.opcode, payload)));
                }
                return event(header.opcode, payload).map(Some);
            }
        }
    }
    resume(partial.get_or_insert_default(), input, at, rules)
}

/// The rules that bind a frame to its place (section 5.4) and to the limits, in one order for all paths.
#[inline]
fn check(header: &Header, under_way: Option<Kind>, so_far: usize, rules: Rules) -> Result<(), Violation> {
    match (header.mask, rules.role) {
        (None, Role::Server) => return Err(Violation::Unmasked),
        (Some(_), Role::Client) => return Err(Violation::Masked),
        _ => {}
    }
    if header.opcode.is_control() {
        return Ok(());
    }
    match (header.opcode, under_way) {
        (Opcode::Continuation, None) => return Err(Violation::ContinuationUnexpected),
        (Opcode::Text | Opcode::Binary, Some(_)) => return Err(Violation::ContinuationExpected),
        _ => {}
    }
    let compressed = under_way.map_or(header.compressed, Kind::is_compressed);
    let room = rules.payload_bytes_max(compressed) - so_far;
    if header.length > room as u64 { Err(Violation::MessageTooBig) } else { Ok(()) }
}

/// The event of a frame that stands for itself.
#[inline]
fn event(opcode: Opcode, payload: &[u8]) -> Result<Event<'_>, Violation> {
    Ok(match opcode {
        Opcode::Text => Event::Text(std::str::from_utf8(payload).map_err(|_| Violation::InvalidUtf8)?),
        Opcode::Binary => Event::Binary(payload),
        Opcode::Ping => Event::Ping(payload),
        Opcode::Pong => Event::Pong(payload),
        Opcode::Close => Event::Close(CloseFrame::parse(payload)?),
        Opcode::Continuation => return Err(Violation::ContinuationUnexpected),
    })
}

/// The path of whatever does not lie whole in one input.
#[cold]
fn resume<'a>(
    partial: &'a mut Partial,
    input: &mut [u8],
    at: &mut usize,
    rules: Rules,
) -> Result<Option<Event<'a>>, Violation> {
    loop {
        if partial.frame.is_none() && !read_header(partial, input, at, rules)? {
            return Ok(None);
        }
        let Some(frame) = &mut partial.frame else { unreachable!("read_header said so") };
        let (header, start) = (frame.header, frame.received);
        let chunk_length = (header.length as usize - start).min(input.len() - *at);
        let chunk = &mut input[*at..*at + chunk_length];
        *at += chunk_length;
        frame.received += chunk_length;
        if let Some(key) = header.mask {
            unmask(chunk, key, start);
        }
        let frame_is_whole = frame.received as u64 == header.length;
        if header.opcode.is_control() {
            partial.control[start..start + chunk_length].copy_from_slice(chunk);
            if !frame_is_whole {
                return Ok(None);
            }
            partial.frame = None;
            return event(header.opcode, &partial.control[..header.length as usize]).map(Some);
        }
        if partial.kind == Some(Kind::Text) {
            partial.utf8.push(chunk).map_err(|_| Violation::InvalidUtf8)?;
        }
        append(&mut partial.message, chunk, header.length as usize - start);
        if !frame_is_whole {
            return Ok(None);
        }
        partial.frame = None;
        if header.fin {
            return finish(partial).map(Some);
        }
    }
}

/// Completes the header under way; false when the input ends before it does.
fn read_header(partial: &mut Partial, input: &[u8], at: &mut usize, rules: Rules) -> Result<bool, Violation> {
    loop {
        let known = usize::from(partial.header_length);
        if let Some((header, length)) = Header::parse(&partial.header[..known], rules.compression)? {
            debug_assert_eq!(length, known, "a header is taken byte by byte");
            check(&header, partial.kind, partial.message.len(), rules)?;
            partial.kind = Kind::of(&header).or(partial.kind);
            partial.header_length = 0;
            partial.frame = Some(Frame { header, received: 0 });
            return Ok(true);
        }
        let Some(&byte) = input.get(*at) else {
            return Ok(false);
        };
        partial.header[known] = byte;
        partial.header_length += 1;
        *at += 1;
    }
}

/// Appends a chunk of a frame of which `announced` bytes, these included, are still to come: room is made for
/// what was received, twice over, but never for more than was announced.
fn append(message: &mut Vec<u8>, chunk: &[u8], announced: usize) {
    let needed = message.len() + chunk.len();
    if needed > message.capacity() {
        let wanted = (2 * needed).min(message.len() + announced).max(needed);
        message.reserve_exact(wanted - message.len());
    }
    message.extend_from_slice(chunk);
}

/// Hands out the message that has become whole, and leaves `partial` to be dropped by the next call.
fn finish(partial: &mut Partial) -> Result<Event<'_>, Violation> {
    match partial.kind.take() {
        Some(Kind::Binary) => return Ok(Event::Binary(&partial.message)),
        Some(Kind::CompressedText) => return Ok(Event::Compressed(Opcode::Text, &partial.message)),
        Some(Kind::CompressedBinary) => return Ok(Event::Compressed(Opcode::Binary, &partial.message)),
        Some(Kind::Text) | None => {}
    }
    if !partial.utf8.is_whole() {
        return Err(Violation::InvalidUtf8);
    }
    // Checked chunk by chunk already; checking again costs little next to the copies, and keeps `unsafe` out.
    std::str::from_utf8(&partial.message).map(Event::Text).map_err(|_| Violation::InvalidUtf8)
}

#[cfg(any(test, fuzzing))]
pub(crate) mod oracle;

#[cfg(test)]
mod tests {
    use super::super::frame::{encode, encode_masked};
    use super::oracle::{Seen, feed, naive};
    use super::*;
    use crate::mem::Rng;

    const RULES: Rules = Rules { role: Role::Server, message_bytes_max: 1000, compression: false };
    const COMPRESSION: Rules = Rules { compression: true, ..RULES };

    /// A stream of frames, mostly well-formed, with a bit flipped now and then; some begin a compressed message, or say so
    /// where they must not.
    fn random_stream(rng: &mut Rng) -> Vec<u8> {
        let mut stream = Vec::new();
        let mut inside = false;
        for _ in 0..rng.below(8) {
            let control = rng.below(4) == 0;
            let opcode = match (control, inside) {
                (true, _) => [Opcode::Ping, Opcode::Pong, Opcode::Ping, Opcode::Close][rng.below(4) as usize],
                (false, true) => Opcode::Continuation,
                (false, false) => [Opcode::Text, Opcode::Binary][rng.below(2) as usize],
            };
            let length = match rng.below(6) {
                0 => 0,
                1 => rng.below(4),
                2 => 120 + rng.below(10),
                3 => rng.below(400),
                _ => 100 * rng.below(14),
            } as usize;
            let payload: Vec<u8> = match opcode {
                Opcode::Close => [&[3, 0xE8][..], b"bye"].concat(),
                _ if rng.below(2) == 0 => "aß€😀".bytes().cycle().take(length.min(125)).collect(),
                _ => (0..if control { length.min(125) } else { length }).map(|i| b'a' + (i % 26) as u8).collect(),
            };
            let start = stream.len();
            if rng.below(40) == 0 {
                encode(&mut stream, opcode, &payload); // not masked
            } else {
                encode_masked(&mut stream, opcode, &payload, (rng.next() as u32).to_ne_bytes());
            }
            if rng.below(if control || opcode == Opcode::Continuation { 60 } else { 3 }) == 0 {
                stream[start] |= 0x40;
            }
            if !control {
                inside = rng.below(3) == 0;
                if inside {
                    stream[start] &= 0x7F;
                }
            }
        }
        if rng.below(4) == 0 && !stream.is_empty() {
            let index = rng.below(stream.len() as u64) as usize;
            stream[index] ^= 1 << rng.below(8);
        }
        stream
    }

    #[test]
    fn whole_is_byte_by_byte_is_random_splits_is_naive() {
        for seed in 0..10_000 {
            let mut rng = Rng::new(seed);
            let stream = random_stream(&mut rng);
            for rules in [RULES, COMPRESSION] {
                let expected = naive(&stream, rules);
                assert_eq!(feed(&stream, rules, |rest| rest), expected, "seed {seed}, whole");
                assert_eq!(feed(&stream, rules, |_| 1), expected, "seed {seed}, byte by byte");
                let random = feed(&stream, rules, |rest| 1 + rng.below(rest as u64) as usize);
                assert_eq!(random, expected, "seed {seed}, random splits");
            }
        }
    }

    #[test]
    fn a_compressed_message_comes_out_as_it_is_and_only_if_that_was_agreed_on() {
        let mut stream = Vec::new();
        encode_masked(&mut stream, Opcode::Text, b"\xFF\xFE", [1, 2, 3, 4]);
        stream[0] |= 0x40;
        let one = Seen::Compressed(Opcode::Text, b"\xFF\xFE".to_vec());
        assert_eq!(feed(&stream, COMPRESSION, |rest| rest), [one]);
        assert_eq!(feed(&stream[..1], RULES, |rest| rest), [Seen::Violation(Violation::ReservedBits)]);
        // A ping may stand between its fragments, and only the first says that it is compressed.
        stream[0] &= 0x7F;
        encode_masked(&mut stream, Opcode::Ping, b"", [1, 2, 3, 4]);
        let before = stream.len();
        encode_masked(&mut stream, Opcode::Continuation, b"\xFD", [1, 2, 3, 4]);
        let whole = Seen::Compressed(Opcode::Text, b"\xFF\xFE\xFD".to_vec());
        assert_eq!(feed(&stream, COMPRESSION, |_| 1), [Seen::Ping(Vec::new()), whole]);
        stream[before] |= 0x40;
        let refused = Seen::Violation(Violation::ReservedBits);
        assert_eq!(feed(&stream, COMPRESSION, |rest| rest), [Seen::Ping(Vec::new()), refused]);
    }

    #[test]
    fn text_is_refused_at_its_first_bad_byte() {
        let (mut partial, mut at) = (None, 0);
        // A header that announces 100 bytes, then one byte that is no UTF-8.
        let mut input = [0x81, 0x80 | 100, 0, 0, 0, 0, 0xFF];
        let result = decode(&mut partial, &mut input, &mut at, RULES);
        assert_eq!(result, Err(Violation::InvalidUtf8));
    }

    #[test]
    fn memory_grows_with_bytes_received_not_announced() {
        let rules = Rules { role: Role::Server, message_bytes_max: usize::MAX / 2, ..RULES };
        let mut partial = None;
        let mut header = vec![0x82, 0xFF, 0x3F, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(decode(&mut partial, &mut header, &mut 0, rules), Ok(None));
        for _ in 0..100 {
            assert_eq!(decode(&mut partial, &mut [0; 10], &mut 0, rules), Ok(None));
        }
        let bytes = partial.as_ref().map_or(0, |partial| partial.bytes());
        assert!(bytes <= size_of::<Partial>() + 2 * 1000, "{bytes}");
    }

    #[test]
    fn nothing_is_kept_between_messages() {
        let (mut partial, mut stream) = (None, Vec::new());
        encode_masked(&mut stream, Opcode::Text, b"hello", [1, 2, 3, 4]);
        let (first, second) = stream.split_at_mut(8);
        assert_eq!(decode(&mut partial, first, &mut 0, RULES), Ok(None));
        assert!(partial.is_some());
        let mut at = 0;
        assert_eq!(decode(&mut partial, second, &mut at, RULES), Ok(Some(Event::Text("hello"))));
        assert_eq!(decode(&mut partial, second, &mut at, RULES), Ok(None));
        assert!(partial.is_none());
    }
}
