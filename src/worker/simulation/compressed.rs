//! A client's frames, and permessage-deflate (RFC 7692) as a client does it: an inflater and a compressor of its own,
//! written from RFC 1951.

use super::wire;
use crate::mem::Rng;

/// How far back anything refers.
const WINDOW: usize = 32 * 1024;

/// Lengths and distances of DEFLATE's codes (RFC 1951, section 3.2.5): base and extra bits.
const LENGTHS: [(u16, u8); 29] = [
    (3, 0),
    (4, 0),
    (5, 0),
    (6, 0),
    (7, 0),
    (8, 0),
    (9, 0),
    (10, 0),
    (11, 1),
    (13, 1),
    (15, 1),
    (17, 1),
    (19, 2),
    (23, 2),
    (27, 2),
    (31, 2),
    (35, 3),
    (43, 3),
    (51, 3),
    (59, 3),
    (67, 4),
    (83, 4),
    (99, 4),
    (115, 4),
    (131, 5),
    (163, 5),
    (195, 5),
    (227, 5),
    (258, 0),
];
const DISTANCES: [(u16, u8); 30] = [
    (1, 0),
    (2, 0),
    (3, 0),
    (4, 0),
    (5, 1),
    (7, 1),
    (9, 2),
    (13, 2),
    (17, 3),
    (25, 3),
    (33, 4),
    (49, 4),
    (65, 5),
    (97, 5),
    (129, 6),
    (193, 6),
    (257, 7),
    (385, 7),
    (513, 8),
    (769, 8),
    (1025, 9),
    (1537, 9),
    (2049, 10),
    (3073, 10),
    (4097, 11),
    (6145, 11),
    (8193, 12),
    (12289, 12),
    (16385, 13),
    (24577, 13),
];
/// In which order the lengths of the code lengths' codes come.
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// A canonical code: how many symbols have each length, and the symbols in order.
struct Code {
    counts: [u16; 16],
    symbols: Vec<u16>,
}

impl Code {
    fn new(lengths: &[u8]) -> Self {
        let mut counts = [0; 16];
        lengths.iter().for_each(|&length| counts[usize::from(length)] += 1);
        counts[0] = 0;
        let mut symbols: Vec<u16> = (0..lengths.len() as u16).filter(|&at| lengths[usize::from(at)] > 0).collect();
        symbols.sort_by_key(|&symbol| (lengths[usize::from(symbol)], symbol));
        Self { counts, symbols }
    }

    fn fixed() -> (Self, Self) {
        let lengths: Vec<u8> = (0..288)
            .map(|symbol| match symbol {
                0..144 => 8,
                144..256 => 9,
                256..280 => 7,
                _ => 8,
            })
            .collect();
        (Self::new(&lengths), Self::new(&[5; 30]))
    }
}

struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn bit(&mut self) -> u16 {
        let byte = *self.bytes.get(self.at / 8).expect("the message ends in the middle of a block");
        self.at += 1;
        u16::from(byte >> ((self.at - 1) % 8) & 1)
    }

    fn bits(&mut self, count: u8) -> usize {
        (0..count).map(|place| usize::from(self.bit()) << place).sum()
    }

    fn symbol(&mut self, code: &Code) -> usize {
        let (mut value, mut first, mut index) = (0_i32, 0_i32, 0_i32);
        for length in 1..16 {
            value |= i32::from(self.bit());
            let count = i32::from(code.counts[length]);
            if value - count < first {
                return usize::from(code.symbols[(index + value - first) as usize]);
            }
            index += count;
            first = (first + count) << 1;
            value <<= 1;
        }
        panic!("no code has more than 15 bits");
    }

    /// The two codes of a block that brings its own.
    fn codes(&mut self) -> (Code, Code) {
        let (literals, distances, count) = (self.bits(5) + 257, self.bits(5) + 1, self.bits(4) + 4);
        let mut lengths = [0; 19];
        ORDER[..count].iter().for_each(|&at| lengths[at] = self.bits(3) as u8);
        let code = Code::new(&lengths);
        let mut lengths: Vec<u8> = Vec::new();
        while lengths.len() < literals + distances {
            let (value, times) = match self.symbol(&code) {
                16 => (*lengths.last().expect("there is one to repeat"), 3 + self.bits(2)),
                17 => (0, 3 + self.bits(3)),
                18 => (0, 11 + self.bits(7)),
                length => (length as u8, 1),
            };
            lengths.extend(std::iter::repeat_n(value, times));
        }
        assert_eq!(lengths.len(), literals + distances, "a repetition leads behind the end");
        (Code::new(&lengths[..literals]), Code::new(&lengths[literals..]))
    }

    /// A block with codes, behind what was said before.
    fn block(&mut self, (literals, distances): &(Code, Code), out: &mut Vec<u8>, window: usize) {
        loop {
            match self.symbol(literals) {
                literal @ 0..256 => out.push(literal as u8),
                256 => return,
                length => {
                    let (base, extra) = LENGTHS[length - 257];
                    let length = usize::from(base) + self.bits(extra);
                    let (base, extra) = DISTANCES[self.symbol(distances)];
                    let distance = usize::from(base) + self.bits(extra);
                    assert!(distance <= window, "it refers {distance} back, and {window} were agreed on");
                    let start = out.len().checked_sub(distance).expect("it refers to what was never said");
                    (start..start + length).for_each(|at| out.push(out[at]));
                }
            }
        }
    }
}

/// What a client reads compressed messages with.
#[derive(Debug)]
struct Inflater {
    takeover: bool,
    window: usize,
    /// The end of what was said before.
    past: Vec<u8>,
}

impl Inflater {
    fn inflate(&mut self, message: &[u8]) -> Vec<u8> {
        let bytes = [message, &[0, 0, 0xff, 0xff]].concat();
        let (mut bits, mut out) = (Bits { bytes: &bytes, at: 0 }, std::mem::take(&mut self.past));
        let start = out.len();
        while bytes.len() * 8 - bits.at >= 8 {
            assert_eq!(bits.bit(), 0, "no block is the last");
            match bits.bits(2) {
                0 => {
                    bits.at = bits.at.next_multiple_of(8);
                    let (length, check) = (bits.bits(16), bits.bits(16));
                    assert_eq!(length, !check & 0xffff, "a stored block's length");
                    let at = bits.at / 8;
                    out.extend_from_slice(&bytes[at..at + length]);
                    bits.at += length * 8;
                }
                1 => bits.block(&Code::fixed(), &mut out, self.window),
                2 => {
                    let codes = bits.codes();
                    bits.block(&codes, &mut out, self.window);
                }
                _ => panic!("there is no such kind of block"),
            }
        }
        let text = out[start..].to_vec();
        if self.takeover {
            out.drain(..out.len().saturating_sub(WINDOW));
            self.past = out;
        }
        text
    }
}

/// What a client compresses with: codes that are fixed, and matches where they are cheap to find.
#[derive(Debug)]
struct Deflater {
    takeover: bool,
    past: Vec<u8>,
}

/// How far back a client looks for something to refer to, and how long it may be to be looked at.
const LOOK_BACK: usize = 300;
const LOOKS_MAX: usize = 400;

struct BitWriter {
    out: Vec<u8>,
    free: u8,
}

impl BitWriter {
    fn bits(&mut self, value: usize, count: u8) {
        for place in 0..count {
            if self.free == 0 {
                self.out.push(0);
                self.free = 8;
            }
            *self.out.last_mut().expect("pushed before") |= ((value >> place & 1) as u8) << (8 - self.free);
            self.free -= 1;
        }
    }

    /// Codes come with their first bit first.
    fn code(&mut self, code: usize, count: u8) {
        (0..count).rev().for_each(|place| self.bits(code >> place & 1, 1));
    }

    fn symbol(&mut self, symbol: usize) {
        match symbol {
            0..144 => self.code(0x30 + symbol, 8),
            144..256 => self.code(0x190 + symbol - 144, 9),
            256..280 => self.code(symbol - 256, 7),
            _ => self.code(0xc0 + symbol - 280, 8),
        }
    }

    fn reference(&mut self, length: usize, distance: usize) {
        let of = |table: &[(u16, u8)], value: usize| table.iter().rposition(|&(base, _)| usize::from(base) <= value);
        let at = of(&LENGTHS, length).expect("3 at least");
        self.symbol(257 + at);
        self.bits(length - usize::from(LENGTHS[at].0), LENGTHS[at].1);
        let at = of(&DISTANCES, distance).expect("1 at least");
        self.code(at, 5);
        self.bits(distance - usize::from(DISTANCES[at].0), DISTANCES[at].1);
    }
}

/// A message of so many bytes, which are all the same.
pub(super) fn bomb(bytes: usize) -> Vec<u8> {
    let mut writer = BitWriter { out: Vec::new(), free: 0 };
    writer.bits(0b010, 3);
    writer.symbol(0);
    (0..bytes / 250).for_each(|_| writer.reference(250, 1));
    writer.symbol(256);
    writer.bits(0, 3);
    writer.out
}

impl Deflater {
    fn deflate(&mut self, message: &[u8]) -> Vec<u8> {
        let mut all = std::mem::take(&mut self.past);
        let start = all.len();
        all.extend_from_slice(message);
        let mut writer = BitWriter { out: Vec::new(), free: 0 };
        if message.len() > LOOKS_MAX {
            for part in message.chunks(0xffff) {
                writer.bits(0, 3);
                writer.free = 0;
                let length = part.len() as u16;
                writer.out.extend([length.to_le_bytes(), (!length).to_le_bytes()].concat());
                writer.out.extend_from_slice(part);
            }
        } else {
            writer.bits(0b010, 3);
            let mut at = start;
            while at < all.len() {
                let run =
                    |from: usize| (at..all.len()).take_while(|&to| all[to] == all[from + to - at]).count().min(250);
                let earliest = at.saturating_sub(LOOK_BACK);
                let best = (earliest..at).map(|from| (run(from), at - from)).max_by_key(|&(length, _)| length);
                match best.filter(|&(length, _)| length >= 3) {
                    Some((length, distance)) => {
                        writer.reference(length, distance);
                        at += length;
                    }
                    None => {
                        writer.symbol(usize::from(all[at]));
                        at += 1;
                    }
                }
            }
            writer.symbol(256);
        }
        writer.bits(0, 3); // an empty stored block, whose length is not sent
        if self.takeover {
            all.drain(..all.len().saturating_sub(LOOK_BACK));
            self.past = all;
        }
        writer.out
    }
}

/// How a client reads and writes frames.
#[derive(Debug, Default)]
pub(super) struct Codec {
    agreed: Option<(Inflater, Deflater)>,
    /// Messages that came compressed.
    pub(super) inflated: u64,
}

impl Codec {
    /// What a client offers.
    pub(super) fn offer(rng: &mut Rng) -> &'static str {
        [
            "permessage-deflate",
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
            "permessage-deflate; client_no_context_takeover; client_max_window_bits=15",
            "x-unknown, permessage-deflate; server_max_window_bits=9; client_max_window_bits=10",
        ][rng.below(5) as usize]
    }

    /// From the answer's `Sec-WebSocket-Extensions`.
    pub(super) fn agreed(answer: Option<&str>) -> Self {
        let agreed = answer.map(|answer| {
            assert!(answer.starts_with("permessage-deflate"), "{answer:?} was not offered");
            let has = |name: &str| answer.contains(name);
            let bits = answer.split_once("server_max_window_bits=").map_or(15, |(_, bits)| {
                bits.split(';').next().and_then(|bits| bits.trim().parse().ok()).expect("a number of bits")
            });
            let inflater =
                Inflater { takeover: !has("server_no_context_takeover"), window: 1 << bits, past: Vec::new() };
            (inflater, Deflater { takeover: !has("client_no_context_takeover"), past: Vec::new() })
        });
        Self { agreed, inflated: 0 }
    }

    pub(super) fn is_compressed(&self) -> bool {
        self.agreed.is_some()
    }

    pub(super) fn keeps_context(&self) -> bool {
        self.agreed.as_ref().is_some_and(|(inflater, _)| inflater.takeover)
    }

    /// Takes a whole frame of a server off the front: its opcode and message.
    pub(super) fn take(&mut self, input: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
        let (first, payload) = wire::take_frame(input)?;
        let opcode = first & 0xf;
        if first & 0x70 == 0 {
            return Some((opcode, payload));
        }
        let (inflater, _) = self.agreed.as_mut().expect("nothing was agreed on");
        assert!(first & 0x70 == 0x40 && matches!(opcode, 1 | 2), "only messages are compressed: {first:x}");
        self.inflated += 1;
        Some((opcode, inflater.inflate(&payload)))
    }

    /// A client's message, compressed or as it is.
    pub(super) fn put(&mut self, out: &mut Vec<u8>, opcode: u8, message: &[u8], rng: &mut Rng) {
        match &mut self.agreed {
            Some((_, deflater)) if rng.below(4) > 0 => {
                wire::put_frame(out, 0xc0 | opcode, &deflater.deflate(message));
            }
            _ => wire::put_frame(out, 0x80 | opcode, message),
        }
    }
}

#[test]
fn what_a_client_compresses_it_can_read() {
    let mut rng = Rng::new(1);
    for takeover in [false, true] {
        let mut deflater = Deflater { takeover, past: Vec::new() };
        let mut inflater = Inflater { takeover, window: WINDOW, past: Vec::new() };
        let mut shorter = 0;
        for _ in 0..200 {
            let length = rng.below(600) as usize;
            let message: Vec<u8> = (0..length).map(|_| b"abc\xe4"[rng.below(4) as usize]).collect();
            let compressed = deflater.deflate(&message);
            shorter += usize::from(compressed.len() < message.len() * 3 / 4);
            assert_eq!(inflater.inflate(&compressed), message);
        }
        assert!(shorter > 50, "{shorter}");
    }
}
