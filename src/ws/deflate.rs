//! permessage-deflate (RFC 7692): what is agreed on, messages compressed and inflated.
//!
//! ```text
//!   message --deflate--> blocks ... 00 00 FF FF          the tail stays here (section 7.2.1)
//!   blocks + 00 00 FF FF --inflate--> message            never more than a message may have
//! ```
//!
//! Without context takeover a message stands for itself, so one compressor and one inflater per thread serve every
//! connection, and a compressed message serves every subscriber. With it each direction of a connection has its own
//! ([`Context`]), whose memory is [`Compression::context_bytes`].

use super::frame::{Opcode, frame_compressed};
use crate::config::{Compression, WINDOW_BITS};
use crate::error::Violation;
use crate::limits::OUTPUT_KEEP_BYTES;
use flate2::{Compress, Decompress, FlushCompress, FlushDecompress, Status};
use std::cell::RefCell;

/// What ends every message and is not sent (section 7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];

const WINDOW_BITS_MIN: u8 = WINDOW_BITS.0;
const WINDOW_BITS_MAX: u8 = WINDOW_BITS.1;

/// The windows of messages that stand for themselves: two, so that what many get is compressed twice at most. What the
/// smaller one makes can be read with any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// The smallest, for clients that want anything less than the full one.
    Small,
    /// 32 KiB.
    Full,
}

impl Window {
    fn bits(self) -> u8 {
        match self {
            Self::Small => WINDOW_BITS_MIN,
            Self::Full => WINDOW_BITS_MAX,
        }
    }
}

/// What both sides agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The window of what the server sends: log2 of its bytes.
    pub server_bits: u8,
    /// Whether the server's messages may refer to earlier ones.
    pub server_takeover: bool,
    /// The window of what the client sends.
    pub client_bits: u8,
    /// Whether the client's messages may refer to earlier ones.
    pub client_takeover: bool,
    /// The client asked for a bounded window, be it the largest: the answer has to say one (section 7.1.2.1).
    names_server_bits: bool,
    /// The client offered to bound its window, so the answer may say so.
    names_client_bits: bool,
}

/// One offer of a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Offer {
    server_no_takeover: bool,
    client_no_takeover: bool,
    server_bits: Option<u8>,
    /// Without a value it only says that the client can.
    client_bits: Option<Option<u8>>,
}

impl Agreed {
    /// The first of a client's offers that can be accepted (section 5.1), from the values of its
    /// `Sec-WebSocket-Extensions`. A parameter that is unknown, there twice, or has a value that it cannot have declines
    /// its offer (section 7.1), and so does a window of 8 bits.
    pub fn negotiate<'a>(values: impl Iterator<Item = &'a [u8]>, settings: &Compression) -> Option<Self> {
        values
            .flat_map(|value| split(value, b',').filter(|offer| !offer.is_empty()))
            .find_map(|offer| Self::accept(Offer::parse(offer)?, settings))
    }

    fn accept(offer: Offer, settings: &Compression) -> Option<Self> {
        let bits = settings.context.unwrap_or(WINDOW_BITS_MAX);
        let server_bits = offer.server_bits.unwrap_or(WINDOW_BITS_MAX).min(bits);
        if server_bits < WINDOW_BITS_MIN {
            return None;
        }
        let client_bits = offer.client_bits.flatten().unwrap_or(WINDOW_BITS_MAX);
        // A client that cannot be told to keep to our window may not make us keep a larger one.
        let is_bounded = client_bits <= bits || offer.client_bits.is_some();
        Some(Self {
            server_bits,
            server_takeover: settings.context.is_some() && !offer.server_no_takeover,
            client_bits: if settings.context.is_some() { client_bits.min(bits) } else { client_bits },
            client_takeover: settings.context.is_some() && !offer.client_no_takeover && is_bounded,
            names_server_bits: offer.server_bits.is_some(),
            names_client_bits: offer.client_bits.is_some(),
        })
    }

    /// What a client offers that takes any window, either way.
    pub const OFFER: &'static str = "permessage-deflate; client_max_window_bits";

    /// What a server's `Sec-WebSocket-Extensions` answers to [`OFFER`](Self::OFFER); `None`: nothing that it may answer, and
    /// the connection is to be failed (sections 5.1 and 7.1).
    pub fn answered(value: &[u8]) -> Option<Self> {
        let mut answers = split(value, b',').filter(|answer| !answer.is_empty());
        let answer = Offer::parse(answers.next()?)?;
        // Without a value it says something in an offer alone (section 7.1.2.2).
        if answers.next().is_some() || answer.client_bits == Some(None) {
            return None;
        }
        Some(Self {
            server_bits: answer.server_bits.unwrap_or(WINDOW_BITS_MAX),
            server_takeover: !answer.server_no_takeover,
            client_bits: answer.client_bits.flatten().unwrap_or(WINDOW_BITS_MAX),
            client_takeover: !answer.client_no_takeover,
            names_server_bits: answer.server_bits.is_some(),
            names_client_bits: answer.client_bits.is_some(),
        })
    }

    /// The same as the client has it, who sends what the server receives: for [`Context::new`], and for what it compresses.
    pub fn reversed(self) -> Self {
        Self {
            server_bits: self.client_bits.max(WINDOW_BITS_MIN),
            server_takeover: self.client_takeover,
            client_bits: self.server_bits,
            client_takeover: self.server_takeover,
            ..self
        }
    }

    /// Whether a client can keep to its window: of 8 bits nobody makes one.
    pub fn client_may_compress(&self) -> bool {
        self.client_bits >= WINDOW_BITS_MIN
    }

    /// The window of messages that stand for themselves.
    pub fn window(&self) -> Window {
        if self.server_bits == WINDOW_BITS_MAX { Window::Full } else { Window::Small }
    }

    /// The answer's `Sec-WebSocket-Extensions`.
    pub fn answer(&self) -> String {
        let mut answer = "permessage-deflate".to_owned();
        if !self.server_takeover {
            answer.push_str("; server_no_context_takeover");
        }
        if !self.client_takeover {
            answer.push_str("; client_no_context_takeover");
        }
        if self.names_server_bits || self.server_bits < WINDOW_BITS_MAX {
            answer.push_str(&format!("; server_max_window_bits={}", self.server_bits));
        }
        if self.client_takeover && self.names_client_bits && self.client_bits < WINDOW_BITS_MAX {
            answer.push_str(&format!("; client_max_window_bits={}", self.client_bits));
        }
        answer
    }
}

impl Offer {
    /// `permessage-deflate` and its parameters; `None`: another extension, or nothing that can be accepted.
    fn parse(offer: &[u8]) -> Option<Self> {
        let mut parts = split(offer, b';');
        if !parts.next()?.eq_ignore_ascii_case(b"permessage-deflate") {
            return None;
        }
        let mut parsed = Self::default();
        for part in parts {
            let mut halves = part.splitn(2, |&byte| byte == b'=');
            let name = halves.next()?.trim_ascii();
            let value = match halves.next() {
                Some(value) => Some(unquote(value.trim_ascii())?),
                None => None,
            };
            let is_new = match (name, value) {
                (b"server_no_context_takeover", None) => !std::mem::replace(&mut parsed.server_no_takeover, true),
                (b"client_no_context_takeover", None) => !std::mem::replace(&mut parsed.client_no_takeover, true),
                (b"server_max_window_bits", Some(value)) => parsed.server_bits.replace(window_bits(value)?).is_none(),
                (b"client_max_window_bits", value) => {
                    let bits = match value {
                        Some(value) => Some(window_bits(value)?),
                        None => None,
                    };
                    parsed.client_bits.replace(bits).is_none()
                }
                _ => return None,
            };
            if !is_new {
                return None;
            }
        }
        Some(parsed)
    }
}

/// A decimal number from 8 to 15 without leading zeros (section 7.1.2).
fn window_bits(value: &[u8]) -> Option<u8> {
    match value {
        [digit @ b'8'..=b'9'] => Some(digit - b'0'),
        [b'1', digit @ b'0'..=b'5'] => Some(10 + digit - b'0'),
        _ => None,
    }
}

/// A value as it is, or in quotes, within which it has to be a token all the same (RFC 6455, section 9.1).
fn unquote(value: &[u8]) -> Option<&[u8]> {
    match value {
        [b'"', inner @ .., b'"'] => Some(inner),
        [b'"', ..] => None,
        plain => Some(plain),
    }
}

/// The parts of a list, trimmed; what stands in quotes does not end one (RFC 9110, section 5.6.4).
fn split(list: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    list.split(move |&byte| {
        quoted ^= byte == b'"' && !escaped;
        escaped = quoted && byte == b'\\' && !escaped;
        byte == separator && !quoted
    })
    .map(<[u8]>::trim_ascii)
}

/// The streams of a connection that keeps its context.
#[derive(Debug)]
pub struct Context {
    compress: Option<Compress>,
    inflate: Option<Decompress>,
    /// What was compressed last has not reached the client, or not alone: the next message may not refer to it.
    is_interrupted: bool,
    bytes: usize,
}

impl Context {
    /// What a connection keeps that agreed on this; `None`: nothing.
    pub fn new(agreed: Agreed, settings: &Compression) -> Option<Self> {
        let compress = agreed.server_takeover.then(|| compressor(settings.level, agreed.server_bits));
        // What was made with a window of 8 bits can be read with any.
        let client_bits = agreed.client_bits.max(WINDOW_BITS_MIN);
        let inflate = agreed.client_takeover.then(|| Decompress::new_with_window_bits(false, client_bits));
        let bytes = compress.as_ref().map_or(0, |_| Compression::compressor_bytes(agreed.server_bits))
            + inflate.as_ref().map_or(0, |_| Compression::INFLATER_BYTES);
        (bytes > 0).then_some(Self { compress, inflate, is_interrupted: false, bytes })
    }

    /// What its client keeps, as a client written with this would.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn of_client(agreed: Agreed, settings: &Compression) -> Option<Self> {
        Self::new(agreed.reversed(), settings)
    }

    /// A message was sent that others got too: what comes next cannot refer to what was before.
    pub fn interrupt(&mut self) {
        self.is_interrupted = true;
    }

    /// What it takes, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

fn compressor(level: u8, window_bits: u8) -> Compress {
    Compress::new_with_window_bits(flate2::Compression::new(level.clamp(1, 9).into()), false, window_bits)
}

/// What a thread compresses and inflates with.
struct Zlib {
    /// By level and window.
    compressors: Vec<((u8, Window), Compress)>,
    inflate: Option<Decompress>,
    /// For what is inflated.
    buffer: Vec<u8>,
}

thread_local! {
    static ZLIB: RefCell<Zlib> =
        const { RefCell::new(Zlib { compressors: Vec::new(), inflate: None, buffer: Vec::new() }) };
}

/// Appends a message as a server's compressed frame. `false`, and nothing is appended: it is too short for that, or would
/// not get shorter. `context` is the connection's, if it keeps one.
pub fn encode_compressed(
    out: &mut Vec<u8>,
    opcode: Opcode,
    message: &[u8],
    (compression, window): (&Compression, Window),
    mut context: Option<&mut Context>,
) -> bool {
    if message.is_empty() || message.len() < compression.message_bytes_min {
        return false;
    }
    let start = out.len();
    deflate(message, compression.level, window, context.as_deref_mut(), out);
    if out.len() - start < message.len() {
        frame_compressed(out, opcode, start);
        return true;
    }
    out.truncate(start);
    if let Some(context) = context {
        context.interrupt();
    }
    false
}

/// An empty buffer to inflate into, of the thread's.
pub(crate) fn buffer() -> Vec<u8> {
    ZLIB.with_borrow_mut(|zlib| std::mem::take(&mut zlib.buffer))
}

/// Takes it back, unless it has become large.
pub(crate) fn give_back(mut buffer: Vec<u8>) {
    if buffer.capacity() <= OUTPUT_KEEP_BYTES {
        buffer.clear();
        ZLIB.with_borrow_mut(|zlib| zlib.buffer = buffer);
    }
}

/// Appends a message compressed, without the tail. `context` is the connection's, if it keeps one.
fn deflate(message: &[u8], level: u8, window: Window, context: Option<&mut Context>, out: &mut Vec<u8>) {
    if let Some(context) = context
        && let Some(compress) = &mut context.compress
    {
        if std::mem::take(&mut context.is_interrupted) {
            compress.reset();
        }
        return deflate_with(compress, message, out);
    }
    ZLIB.with_borrow_mut(|zlib| {
        let key = (level, window);
        let at = zlib.compressors.iter().position(|(other, _)| *other == key).unwrap_or_else(|| {
            zlib.compressors.push((key, compressor(level, window.bits())));
            zlib.compressors.len() - 1
        });
        let compress = &mut zlib.compressors[at].1;
        compress.reset();
        deflate_with(compress, message, out);
    });
}

fn deflate_with(compress: &mut Compress, message: &[u8], out: &mut Vec<u8>) {
    let (start, before) = (out.len(), compress.total_in());
    // A sync flush ends with the tail; zlib wants six bytes of room to be sure that it is done (`deflate` in zlib.h).
    out.reserve(message.len() / 2 + 64);
    loop {
        let consumed = (compress.total_in() - before) as usize;
        let status = compress.compress_vec(&message[consumed..], out, FlushCompress::Sync);
        debug_assert!(status.is_ok(), "a stream that is used right");
        let is_done = (compress.total_in() - before) as usize == message.len() && out.capacity() - out.len() >= 6;
        if is_done || status.is_err() {
            break;
        }
        out.reserve(message.len() / 2 + 64);
    }
    debug_assert!(out[start..].ends_with(&TAIL));
    if out[start..].ends_with(&TAIL) {
        out.truncate(out.len() - TAIL.len());
    }
}

/// Appends what a compressed message says to `out`, at most `bytes_max`.
///
/// # Errors
///
/// [`Violation::MessageTooBig`] as soon as it is longer, whatever is still to come; [`Violation::InvalidDeflate`] when it is
/// not what DEFLATE (RFC 1951) makes.
pub fn inflate(
    compressed: &[u8],
    bytes_max: usize,
    context: Option<&mut Context>,
    out: &mut Vec<u8>,
) -> Result<(), Violation> {
    if let Some(inflate) = context.and_then(|context| context.inflate.as_mut()) {
        return inflate_with(inflate, compressed, bytes_max, out);
    }
    ZLIB.with_borrow_mut(|zlib| {
        let inflate = zlib.inflate.get_or_insert_with(|| Decompress::new(false));
        inflate.reset(false);
        inflate_with(inflate, compressed, bytes_max, out)
    })
}

fn inflate_with(
    inflate: &mut Decompress,
    compressed: &[u8],
    bytes_max: usize,
    out: &mut Vec<u8>,
) -> Result<(), Violation> {
    let start = out.len();
    for part in [compressed, &TAIL] {
        let before = inflate.total_in();
        loop {
            let consumed = (inflate.total_in() - before) as usize;
            let so_far = out.len() - start;
            // One byte more than may be, so that a message that is too long is seen to be.
            let room = (bytes_max.saturating_add(1) - so_far).min((2 * so_far).max(compressed.len()).max(1024));
            if out.capacity() - out.len() < room {
                out.reserve_exact(room);
            }
            let limit = out.len() + room;
            let status = inflate_some(inflate, &part[consumed..], out, limit)?;
            let so_far = out.len() - start;
            if so_far > bytes_max {
                return Err(Violation::MessageTooBig);
            }
            if status == Status::StreamEnd {
                // A final block, as some compressors write (section 7.2.3.4); what follows is padding.
                inflate.reset(false);
                return Ok(());
            }
            let is_used_up = (inflate.total_in() - before) as usize == part.len();
            if is_used_up && out.len() < limit {
                break;
            }
        }
    }
    Ok(())
}

/// Inflates until the input is used up or `out` has `limit` bytes.
fn inflate_some(inflate: &mut Decompress, input: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<Status, Violation> {
    let start = out.len();
    out.resize(limit, 0);
    let before = inflate.total_out();
    let status = inflate.decompress(input, &mut out[start..], FlushDecompress::Sync);
    out.truncate(start + (inflate.total_out() - before) as usize);
    status.map_err(|_| Violation::InvalidDeflate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::Rng;

    const PLAIN: Compression = Compression { level: 1, message_bytes_min: 0, context: None };
    const KEPT: Compression = Compression { context: Some(12), ..PLAIN };

    #[test]
    fn a_client_reads_what_a_server_answers() {
        for settings in [PLAIN, KEPT] {
            let agreed = Agreed::negotiate([Agreed::OFFER.as_bytes()].into_iter(), &settings).unwrap();
            let read = Agreed::answered(agreed.answer().as_bytes()).unwrap();
            assert_eq!(read.answer(), agreed.answer());
            assert_eq!((read.server_bits, read.server_takeover), (agreed.server_bits, agreed.server_takeover));
            assert_eq!(read.client_takeover, agreed.client_takeover);
        }
        for bad in [
            "",
            "x-webkit-deflate-frame",
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate; server_max_window_bits=7",
            "permessage-deflate; strange",
            "permessage-deflate, permessage-deflate",
        ] {
            assert_eq!(Agreed::answered(bad.as_bytes()), None, "{bad}");
        }
        let small = Agreed::answered(b"permessage-deflate; client_max_window_bits=8").unwrap();
        assert!(!small.client_may_compress() && small.reversed().server_bits == 9);
    }

    fn agreed(offer: &str, settings: &Compression) -> Option<String> {
        Agreed::negotiate([offer.as_bytes()].into_iter(), settings).map(|agreed| agreed.answer())
    }

    #[test]
    fn offers_are_accepted_by_the_letter() {
        let none = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        for (offer, plain, kept) in [
            ("permessage-deflate", none, "permessage-deflate; client_no_context_takeover; server_max_window_bits=12"),
            (
                "permessage-deflate; client_max_window_bits",
                none,
                "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12",
            ),
            (
                "permessage-deflate;client_max_window_bits=\"10\" ; server_max_window_bits=10",
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=10",
                "permessage-deflate; server_max_window_bits=10; client_max_window_bits=10",
            ),
            (
                "Permessage-Deflate; server_no_context_takeover; client_no_context_takeover",
                none,
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=12",
            ),
            (
                "x-other; a=\"b, c; d\", permessage-deflate; client_no_context_takeover",
                none,
                "permessage-deflate; client_no_context_takeover; server_max_window_bits=12",
            ),
            (
                "permessage-deflate; server_max_window_bits=15",
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=15",
                "permessage-deflate; client_no_context_takeover; server_max_window_bits=12",
            ),
            // The answer may not ask for more than was offered, though 9 bits are kept for it.
            (
                "permessage-deflate; client_max_window_bits=8",
                none,
                "permessage-deflate; server_max_window_bits=12; client_max_window_bits=8",
            ),
            (
                "permessage-deflate; server_max_window_bits=8, permessage-deflate",
                none,
                "permessage-deflate; client_no_context_takeover; server_max_window_bits=12",
            ),
        ] {
            assert_eq!(agreed(offer, &PLAIN).as_deref(), Some(plain), "{offer}");
            assert_eq!(agreed(offer, &KEPT).as_deref(), Some(kept), "{offer}");
        }
    }

    #[test]
    fn what_is_wrong_is_not_negotiated() {
        for parameters in [
            "x",
            "server_no_context_takeover=1",
            "client_no_context_takeover=\"\"",
            "server_no_context_takeover; server_no_context_takeover",
            "client_max_window_bits; client_max_window_bits=10",
            "server_max_window_bits",
            "server_max_window_bits=8",
            "server_max_window_bits=7",
            "server_max_window_bits=16",
            "server_max_window_bits=010",
            "server_max_window_bits=+9",
            "server_max_window_bits=\"10",
            "server_max_window_bits= ",
            "server_max_window_bits=10; server_max_window_bits=10",
            "client_max_window_bits=0",
            "client_max_window_bits=1e1",
            "SERVER_MAX_WINDOW_BITS=10",
            "=",
            "",
            "; client_no_context_takeover",
        ] {
            assert_eq!(agreed(&format!("permessage-deflate; {parameters}"), &PLAIN), None, "{parameters}");
        }
        for offer in ["", ",", ";", "permessage-deflate2", "x-webkit-deflate-frame", "permessage_deflate"] {
            assert_eq!(agreed(offer, &PLAIN), None, "{offer}");
        }
    }

    fn text(rng: &mut Rng, length: usize) -> Vec<u8> {
        let words = ["price", "symbol", "the quick brown fox", "{\"a\":1}", " 12.5,"];
        let mut text = Vec::new();
        while text.len() < length {
            text.extend_from_slice(words[rng.below(5) as usize].as_bytes());
        }
        text.truncate(length);
        text
    }

    fn compressed(message: &[u8], window: Window, context: Option<&mut Context>) -> Vec<u8> {
        let mut out = b"before".to_vec();
        deflate(message, 1, window, context, &mut out);
        out.split_off(6)
    }

    #[test]
    fn what_is_compressed_comes_out_again_whatever_the_window() {
        let mut rng = Rng::new(1);
        for length in [0, 1, 5, 100, 1000, 5000, 70_000] {
            for window in [Window::Small, Window::Full] {
                let message = text(&mut rng, length);
                let (small, mut out) = (compressed(&message, window, None), b"x".to_vec());
                inflate(&small, length, None, &mut out).unwrap();
                assert_eq!(&out[1..], message);
                // Whoever has a window of that size can read it.
                let inflate_small = Decompress::new_with_window_bits(false, window.bits());
                let mut client =
                    Context { compress: None, inflate: Some(inflate_small), is_interrupted: false, bytes: 0 };
                let mut again = Vec::new();
                inflate(&small, length, Some(&mut client), &mut again).unwrap();
                assert_eq!(again, message);
                assert!(length < 100 || small.len() < length);
                if length > 0 {
                    assert_eq!(inflate(&small, length - 1, None, &mut Vec::new()), Err(Violation::MessageTooBig));
                }
            }
        }
        // Section 7.2.3: one block, stored blocks, a final block with its padding, the empty message.
        for (bytes, said) in [
            (&b"\xf2\x48\xcd\xc9\xc9\x07\x00"[..], &b"Hello"[..]),
            (b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00", b"Hello"),
            (b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00", b"Hello"),
            (b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00", b"Hello"),
            (b"\x00", b""),
            (b"", b""),
        ] {
            let mut out = Vec::new();
            assert_eq!(inflate(bytes, 100, None, &mut out), Ok(()), "{bytes:x?}");
            assert_eq!(out, said);
        }
    }

    #[test]
    fn a_context_makes_what_was_said_before_short_and_can_be_interrupted() {
        let offered =
            Agreed::negotiate([&b"permessage-deflate; client_max_window_bits"[..]].into_iter(), &KEPT).unwrap();
        let mut server = Context::new(offered, &KEPT).unwrap();
        // The client's side, which inflates what the server sends.
        let mut client = Context {
            compress: None,
            inflate: Some(Decompress::new_with_window_bits(false, 12)),
            is_interrupted: false,
            bytes: 0,
        };
        let mut read = |bytes: &[u8]| {
            let mut out = Vec::new();
            inflate(bytes, 10_000, Some(&mut client), &mut out).map(|()| out)
        };
        let mut rng = Rng::new(7);
        let message: Vec<u8> = (0..900).map(|_| rng.below(256) as u8).collect();
        let first = compressed(&message, Window::Small, Some(&mut server));
        let second = compressed(&message, Window::Small, Some(&mut server));
        assert!(second.len() * 4 < first.len(), "{} {}", first.len(), second.len());
        assert_eq!((read(&first).unwrap(), read(&second).unwrap()), (message.clone(), message.clone()));
        // One that all get stands for itself; the connection's own begins anew behind it.
        let shared = compressed(b"for everybody", Window::Small, None);
        server.interrupt();
        let third = compressed(&message, Window::Small, Some(&mut server));
        assert_eq!((read(&shared).unwrap(), read(&third).unwrap()), (b"for everybody".to_vec(), message));
        assert!(Context::new(Agreed { server_takeover: false, client_takeover: false, ..offered }, &KEPT).is_none());
    }

    #[test]
    fn what_does_not_get_shorter_is_left_to_be_sent_as_it_is() {
        let mut rng = Rng::new(9);
        let noise: Vec<u8> = (0..600).map(|_| rng.below(256) as u8).collect();
        let words = text(&mut rng, 600);
        let agreed = Agreed::negotiate([&b"permessage-deflate"[..]].into_iter(), &KEPT).unwrap();
        let mut context = Context::new(agreed, &KEPT).unwrap();
        let mut client =
            Context { compress: None, inflate: Some(Decompress::new(false)), is_interrupted: false, bytes: 0 };
        let compression = Compression { message_bytes_min: 100, ..PLAIN };
        for (message, shrinks) in [
            (&words[..], true),
            (&noise[..], false),
            (&words[..99], false),
            (&words[..100], true),
            (&words[..], true),
            (b"", false),
        ] {
            for own in [false, true] {
                let mut out = b"before".to_vec();
                if !own {
                    context.interrupt();
                }
                let kept = own.then_some(&mut context);
                let did = encode_compressed(&mut out, Opcode::Text, message, (&compression, Window::Full), kept);
                assert_eq!(did, shrinks, "{}", message.len());
                if !did {
                    assert_eq!(out, b"before");
                    continue;
                }
                let (header, at) = super::super::Header::parse(&out[6..], true).unwrap().unwrap();
                assert!(header.compressed && header.length < message.len() as u64);
                let mut read = Vec::new();
                inflate(&out[6 + at..], 1000, Some(&mut client), &mut read).unwrap();
                assert_eq!(read, message);
            }
        }
    }

    #[test]
    fn a_bomb_is_refused_when_the_limit_is_passed_and_not_after() {
        let bomb = compressed(&vec![0; 8 << 20], Window::Full, None);
        assert!(bomb.len() < (8 << 20) / 100);
        let mut out = Vec::new();
        assert_eq!(inflate(&bomb, 65_536, None, &mut out), Err(Violation::MessageTooBig));
        assert!(out.capacity() < 2_000_000, "{}", out.capacity());
    }

    #[test]
    fn noise_is_an_error_or_a_message_and_never_more_than_may_be() {
        let mut rng = Rng::new(3);
        for _ in 0..20_000 {
            let noise: Vec<u8> = (0..rng.below(60)).map(|_| rng.below(256) as u8).collect();
            let mut out = Vec::new();
            match inflate(&noise, 1000, None, &mut out) {
                Ok(()) => assert!(out.len() <= 1000),
                Err(violation) => assert!(matches!(violation, Violation::InvalidDeflate | Violation::MessageTooBig)),
            }
        }
        let mut out = Vec::new();
        inflate(b"\xf2\x48\xcd\xc9\xc9\x07\x00", 100, None, &mut out).expect("what was before leaves nothing behind");
    }
}
