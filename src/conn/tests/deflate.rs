//! A connection that compresses, and a client that does.

use super::*;
use crate::config::Compression;
use flate2::{Compress, Decompress, FlushCompress, FlushDecompress, Status};

const TAIL: [u8; 4] = [0, 0, 0xFF, 0xFF];
const OFFER: &str = "permessage-deflate; client_max_window_bits";
const WORDS: &str =
    "again and again and again, {\"price\": 12.5}, {\"price\": 12.6}, again and again and again and again";

impl Pair {
    /// As it opens for a client that offers this, to a server that is set so; what was answered.
    fn offer(offer: &str, compression: Compression) -> (Self, Option<String>) {
        let mut pair = Self::new();
        pair.rules.compression = Some(compression);
        let answer = pair.shake(offer);
        (pair, answer)
    }

    fn shake(&mut self, offer: &str) -> Option<String> {
        let head = HEAD.replace("\r\n\r\n", &format!("\r\nSec-WebSocket-Extensions: {offer}\r\n\r\n"));
        self.feed(head.as_bytes());
        if self.echo.later {
            assert!(self.conn.answer(Ok(opening()), self.now, &self.rules, &mut self.output, &mut self.echo));
            self.flush();
        }
        let head = String::from_utf8(std::mem::take(&mut self.wire)).unwrap();
        assert!(head.starts_with("HTTP/1.1 101 ") && head.ends_with("\r\n\r\n"), "{head}");
        let name = "Sec-WebSocket-Extensions: ";
        head.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned)
    }
}

/// The client's two streams.
struct Client {
    deflate: Compress,
    inflate: Decompress,
    keeps: bool,
}

impl Client {
    fn new(bits: u8, keeps: bool) -> Self {
        let deflate = Compress::new_with_window_bits(flate2::Compression::new(6), false, bits);
        Self { deflate, inflate: Decompress::new_with_window_bits(false, bits), keeps }
    }

    fn frame(&mut self, opcode: Opcode, message: &[u8]) -> Vec<u8> {
        if !self.keeps {
            self.deflate.reset();
        }
        let mut out = Vec::with_capacity(2 * message.len() + 100);
        self.deflate.compress_vec(message, &mut out, FlushCompress::Sync).unwrap();
        out.truncate(out.len() - TAIL.len());
        let mut frame = Vec::new();
        encode_masked(&mut frame, opcode, &out, [9, 8, 7, 6]);
        frame[0] |= 0x40;
        frame
    }

    /// What a server's short frame says, and whether it was compressed.
    fn read(&mut self, frame: &[u8]) -> (Vec<u8>, bool) {
        let (header, at) = crate::ws::Header::parse(frame, true).unwrap().unwrap();
        assert_eq!((header.fin, header.length as usize), (true, frame.len() - at), "one frame");
        if !header.compressed {
            return (frame[at..].to_vec(), false);
        }
        if !self.keeps {
            self.inflate = Decompress::new(false);
        }
        let bytes = [&frame[at..], &TAIL].concat();
        let mut out = Vec::with_capacity(10_000);
        let status = self.inflate.decompress_vec(&bytes, &mut out, FlushDecompress::Sync).unwrap();
        assert!(matches!(status, Status::Ok | Status::BufError));
        (out, true)
    }
}

fn low() -> Compression {
    Compression::default().message_bytes_min(64)
}

#[test]
fn what_was_agreed_on_is_answered_at_once_or_later_and_otherwise_nothing_is() {
    for later in [false, true] {
        let mut pair = Pair::new();
        pair.echo.later = later;
        pair.rules.compression = Some(low());
        let answer = pair.shake("x, permessage-deflate; server_max_window_bits=10");
        let expected =
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=10";
        assert_eq!(answer.as_deref(), Some(expected));
        assert!(pair.conn.rare.is_none(), "it costs nothing");
        assert_eq!(pair.echo.context_bytes, [0]);
        let mut client = Client::new(9, false);
        pair.feed(&client.frame(Opcode::Text, WORDS.as_bytes()));
        assert_eq!(client.read(&pair.wire), (WORDS.as_bytes().to_vec(), true));
        assert!(pair.conn.rare.is_none(), "and leaves nothing");
    }
    let (mut pair, answer) = Pair::offer("permessage-deflate; server_max_window_bits=8", low());
    assert_eq!(answer, None);
    pair.feed(&Client::new(15, false).frame(Opcode::Text, b"x"));
    assert_eq!(pair.echo.violations, [Violation::ReservedBits]);
    let mut off = Pair::new();
    assert_eq!(off.shake(OFFER), None);
    assert!(off.echo.context_bytes.is_empty());
}

#[test]
fn messages_are_compressed_both_ways_and_short_ones_are_not() {
    let (mut pair, _) = Pair::offer(OFFER, low());
    let mut client = Client::new(15, false);
    for (message, is_compressed) in [
        (WORDS.as_bytes(), true),
        (b"short", false),
        (WORDS.as_bytes(), true),
        (b"", false),
        (&[b'a'; 64], true),
        (&[b'a'; 63], false),
    ] {
        for opcode in [Opcode::Text, Opcode::Binary] {
            pair.feed(&client.frame(opcode, message));
            assert_eq!(pair.wire[0] & 0x0F, opcode as u8);
            assert_eq!(client.read(&std::mem::take(&mut pair.wire)), (message.to_vec(), is_compressed));
            // Nobody has to compress.
            pair.say(opcode, message);
            assert_eq!(client.read(&std::mem::take(&mut pair.wire)), (message.to_vec(), is_compressed));
        }
    }
}

#[test]
fn a_context_is_kept_in_both_directions_and_counted() {
    let (mut pair, answer) = Pair::offer(OFFER, low().context(10));
    assert_eq!(answer.as_deref(), Some("permessage-deflate; server_max_window_bits=10; client_max_window_bits=10"));
    assert_eq!(pair.echo.context_bytes, [Compression::context_bytes(10)]);
    assert_eq!(pair.conn.context_bytes(), Compression::context_bytes(10));
    let mut client = Client::new(10, true);
    let mut lengths = Vec::new();
    for _ in 0..3 {
        pair.feed(&client.frame(Opcode::Text, WORDS.as_bytes()));
        lengths.push(pair.wire.len());
        assert_eq!(client.read(&std::mem::take(&mut pair.wire)), (WORDS.as_bytes().to_vec(), true));
    }
    assert!(lengths[1] < lengths[0] / 2 && lengths[2] <= lengths[1], "{lengths:?}");
    // One that others got too comes between; what follows does not refer to what was before it.
    let mut shared = Vec::new();
    let window = (pair.rules.compression.as_ref().unwrap(), pair.conn.window().unwrap());
    assert!(crate::ws::deflate::encode_compressed(&mut shared, Opcode::Text, &[b'x'; 900], window, None));
    pair.conn.interrupt_context();
    assert_eq!(client.read(&shared).0, [b'x'; 900]);
    pair.feed(&client.frame(Opcode::Text, WORDS.as_bytes()));
    assert_eq!((pair.wire.len(), client.read(&std::mem::take(&mut pair.wire)).0), (lengths[0], WORDS.into()));
    // So is what another thread sends.
    let mut frame = Vec::new();
    crate::ws::encode(&mut frame, Opcode::Text, WORDS.as_bytes());
    pair.conn.frame(&frame, pair.rules.compression.as_ref(), &mut pair.output);
    pair.flush();
    assert!(pair.wire.len() < lengths[0] / 2);
    assert_eq!(client.read(&std::mem::take(&mut pair.wire)), (WORDS.into(), true));
    pair.say(Opcode::Text, b"close");
    assert_eq!(pair.conn.context_bytes(), Compression::context_bytes(10), "until it ends");
}

#[test]
fn a_message_in_fragments_with_pings_between_comes_whole_however_it_is_cut() {
    let (mut pair, _) = Pair::offer(OFFER, low());
    let mut client = Client::new(15, false);
    let mut stream = Vec::new();
    let whole = client.frame(Opcode::Text, WORDS.as_bytes());
    let (header, at) = crate::ws::Header::parse(&whole, true).unwrap().unwrap();
    let mut payload = whole[at..].to_vec();
    crate::ws::unmask(&mut payload, header.mask.unwrap(), 0);
    for (index, part) in payload.chunks(7).enumerate() {
        let (start, opcode) = (stream.len(), if index == 0 { Opcode::Text } else { Opcode::Continuation });
        encode_masked(&mut stream, opcode, part, [1, 1, 1, 1]);
        stream[start] ^= if index == 0 { 0xC0 } else { 0x80 };
        encode_masked(&mut stream, Opcode::Ping, b"", [1, 1, 1, 1]);
    }
    let end = stream.len();
    encode_masked(&mut stream, Opcode::Continuation, b"", [1, 1, 1, 1]);
    for cut in [1, 2, 5, stream.len()] {
        for piece in stream.chunks(cut) {
            pair.feed(piece);
        }
        let wire = std::mem::take(&mut pair.wire);
        let pongs = 2 * payload.chunks(7).count();
        assert_eq!(client.read(&wire[pongs..]).0, WORDS.as_bytes());
    }
    stream[end] |= 0x40;
    pair.feed(&stream);
    assert_eq!(pair.echo.violations, [Violation::ReservedBits], "only the first fragment says so");
}

#[test]
fn what_is_too_long_corrupt_or_no_text_is_said_and_ends_the_connection() {
    let max = Config::default().message_bytes_max;
    let mut client = Client::new(15, false);
    let mut garbage = Vec::new();
    encode_masked(&mut garbage, Opcode::Binary, &[0xFF; 50], [1, 2, 3, 4]);
    garbage[0] |= 0x40;
    for (frame, violation) in [
        (client.frame(Opcode::Binary, &vec![0; max + 1]), Some(Violation::MessageTooBig)),
        (client.frame(Opcode::Binary, &vec![0; 8 << 20]), Some(Violation::MessageTooBig)),
        (client.frame(Opcode::Binary, &vec![0; max]), None),
        (garbage, Some(Violation::InvalidDeflate)),
        (client.frame(Opcode::Text, b"\xFF"), Some(Violation::InvalidUtf8)),
        (client.frame(Opcode::Binary, b"\xFF"), None),
    ] {
        let (mut pair, _) = Pair::offer(OFFER, low());
        pair.feed(&frame);
        assert_eq!(pair.echo.violations.first().copied(), violation);
        assert_eq!(pair.echo.messages, usize::from(violation.is_none()));
        if let Some(violation) = violation {
            let heard = pair.heard();
            assert!(heard[0].starts_with(&format!("close Some({})", violation.code())), "{heard:?}");
        }
    }
    // What cannot be compressed may be a little longer on the wire than what it says.
    let mut rng = Rng::new(5);
    let noise: Vec<u8> = (0..max).map(|_| rng.below(256) as u8).collect();
    let (mut pair, _) = Pair::offer(OFFER, low());
    let frame = client.frame(Opcode::Binary, &noise);
    assert!(frame.len() > max);
    pair.feed(&frame);
    assert_eq!(pair.heard(), [format!("{max} bytes")]);
}
