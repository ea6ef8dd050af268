//! The frame's header (RFC 6455, section 5.2), read and written.
//!
//! ```text
//!  byte 0            byte 1            then
//!  F R R R  opcode   M  length         length > 125: 2 or 8 bytes, big-endian, in the shortest form
//!  I S S S  (4 bits)    (7 bits)       M set: 4 bytes of masking key
//!  N V V V                             payload
//! ```

use super::mask;
use crate::error::Violation;
use crate::limits::CONTROL_BYTES_MAX;

/// What a frame is (RFC 6455, section 11.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// The next part of a fragmented message.
    Continuation = 0,
    /// A message of UTF-8 text, or its first part.
    Text = 1,
    /// A message of bytes, or its first part.
    Binary = 2,
    /// The closing handshake.
    Close = 8,
    /// A question whether the peer is there.
    Ping = 9,
    /// Its answer.
    Pong = 10,
}

impl Opcode {
    const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    /// Whether it may stand between the fragments of a message (RFC 6455, section 5.5).
    pub const fn is_control(self) -> bool {
        self as u8 >= 8
    }
}

/// A frame's header, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whether it is the last frame of its message.
    pub fin: bool,
    /// Whether its message is compressed (RSV1; RFC 7692, section 6).
    pub compressed: bool,
    /// What the frame is.
    pub opcode: Opcode,
    /// The masking key, if the payload is masked.
    pub mask: Option<[u8; 4]>,
    /// The payload's length in bytes.
    pub length: u64,
}

impl Header {
    /// Reads a header from the start of `bytes`: with it its own length in bytes, or `None` when it is not
    /// all there. What is wrong is said at the first byte that shows it, and in the order of the bytes, so
    /// that it does not depend on how the input was cut. Whether messages may be compressed was agreed on or not.
    #[inline(always)] // into the decoder's fast path: a call costs as much again
    pub fn parse(bytes: &[u8], compression: bool) -> Result<Option<(Self, usize)>, Violation> {
        let Some(&first) = bytes.first() else {
            return Ok(None);
        };
        let fin = first & 0x80 != 0;
        let compressed = first & RSV1 != 0;
        // Only the first frame of a message says that the message is compressed (RFC 7692, section 6.1).
        if first & 0x70 != 0 && !(compression && first & 0x70 == RSV1 && matches!(first & 0x0F, 1 | 2)) {
            return Err(Violation::ReservedBits);
        }
        let opcode = Opcode::from_bits(first & 0x0F).ok_or(Violation::ReservedOpcode)?;
        if opcode.is_control() && !fin {
            return Err(Violation::FragmentedControl);
        }
        let Some(&second) = bytes.get(1) else {
            return Ok(None);
        };
        let short = second & 0x7F;
        if opcode.is_control() && usize::from(short) > CONTROL_BYTES_MAX {
            return Err(Violation::LongControl);
        }
        let (length, at) = match short {
            126 => {
                let Some(field) = bytes.get(2..4) else {
                    return Ok(None);
                };
                let length = u64::from(u16::from_be_bytes([field[0], field[1]]));
                if length < 126 {
                    return Err(Violation::LengthNotMinimal);
                }
                (length, 4)
            }
            127 => {
                if bytes.get(2).is_some_and(|byte| byte & 0x80 != 0) {
                    return Err(Violation::LengthTopBit);
                }
                let Some(field) = bytes.get(2..10) else {
                    return Ok(None);
                };
                let length = field.iter().fold(0, |length, &byte| length << 8 | u64::from(byte));
                if length <= u64::from(u16::MAX) {
                    return Err(Violation::LengthNotMinimal);
                }
                (length, 10)
            }
            short => (u64::from(short), 2),
        };
        if second & 0x80 == 0 {
            return Ok(Some((Self { fin, compressed, opcode, mask: None, length }, at)));
        }
        let Some(key) = bytes.get(at..at + 4) else {
            return Ok(None);
        };
        let mask = Some([key[0], key[1], key[2], key[3]]);
        Ok(Some((Self { fin, compressed, opcode, mask, length }, at + 4)))
    }
}

const FIN: u8 = 0x80;
/// The bit of a compressed message.
const RSV1: u8 = 0x40;

/// Appends a header in its shortest form.
#[inline]
fn encode_header(out: &mut Vec<u8>, first: u8, length: usize, mask_bit: u8) {
    match length {
        0..=125 => out.extend_from_slice(&[first, mask_bit | length as u8]),
        126..=0xFFFF => {
            let [high, low] = (length as u16).to_be_bytes();
            out.extend_from_slice(&[first, mask_bit | 126, high, low]);
        }
        _ => {
            out.extend_from_slice(&[first, mask_bit | 127]);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// Appends a whole frame as a server sends it: not masked.
#[inline]
pub fn encode(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    debug_assert!(!opcode.is_control() || payload.len() <= CONTROL_BYTES_MAX);
    encode_header(out, FIN | opcode as u8, payload.len(), 0);
    out.extend_from_slice(payload);
}

/// Makes a server's frame of a compressed message out of what `out` holds from `start` on.
pub fn frame_compressed(out: &mut Vec<u8>, opcode: Opcode, start: usize) {
    let length = out.len() - start;
    encode_header(out, FIN | RSV1 | opcode as u8, length, 0);
    let header = out.len() - start - length;
    out[start..].rotate_right(header);
}

/// Appends a whole frame as a client sends it: masked with `key`, which should be unpredictable to whoever
/// chooses the payload (RFC 6455, section 10.3).
#[inline]
pub fn encode_masked(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], key: [u8; 4]) {
    debug_assert!(!opcode.is_control() || payload.len() <= CONTROL_BYTES_MAX);
    encode_header(out, FIN | opcode as u8, payload.len(), 0x80);
    out.extend_from_slice(&key);
    let start = out.len();
    out.extend_from_slice(payload);
    mask::unmask(&mut out[start..], key, 0);
}

/// Makes a client's frame of a server's, which is what `out` holds from `start` on: masked with `key`. For what is not
/// encoded masked to begin with: compressed messages, Close.
pub fn mask_frame(out: &mut Vec<u8>, start: usize, key: [u8; 4]) {
    let header = match out[start + 1] {
        126 => 4,
        127 => 10,
        short => {
            debug_assert!(short < 126, "it is masked already");
            2
        }
    };
    out[start + 1] |= 0x80;
    let payload = start + header;
    out.splice(payload..payload, key);
    mask::unmask(&mut out[payload + key.len()..], key, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_masked_afterwards_is_the_one_masked_at_once() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let (payload, key) = (vec![7; length], [1, 2, 3, 4]);
            let (mut at_once, mut afterwards) = (b"before".to_vec(), b"before".to_vec());
            encode_masked(&mut at_once, Opcode::Binary, &payload, key);
            encode(&mut afterwards, Opcode::Binary, &payload);
            mask_frame(&mut afterwards, 6, key);
            assert_eq!(afterwards, at_once, "{length}");
        }
    }

    #[test]
    fn what_is_written_is_read_at_every_edge_of_length() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536, 65_537] {
            for mask in [None, Some([1, 2, 3, 4])] {
                let (mut out, payload) = (Vec::new(), vec![7; length]);
                match mask {
                    None => encode(&mut out, Opcode::Binary, &payload),
                    Some(key) => encode_masked(&mut out, Opcode::Binary, &payload, key),
                }
                let header =
                    Header { fin: true, compressed: false, opcode: Opcode::Binary, mask, length: length as u64 };
                let at = out.len() - length;
                assert_eq!(Header::parse(&out, false), Ok(Some((header, at))));
                for cut in 0..at {
                    assert_eq!(Header::parse(&out[..cut], true), Ok(None), "cut at {cut}");
                }
            }
        }
    }

    #[test]
    fn a_length_that_is_not_minimal_is_refused_as_soon_as_it_shows() {
        assert_eq!(Header::parse(&[0x82, 0xFE, 0, 125], false), Err(Violation::LengthNotMinimal));
        assert_eq!(Header::parse(&[0x82, 0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF], false), Err(Violation::LengthNotMinimal));
        assert_eq!(Header::parse(&[0x82, 0xFF, 0x80], false), Err(Violation::LengthTopBit));
    }

    #[test]
    fn the_first_byte_alone_convicts() {
        for (first, compression) in (0..=u8::MAX).flat_map(|first| [(first, false), (first, true)]) {
            let expected = match (first & 0x70, first & 0x0F, first & 0x80) {
                (0x40, 1 | 2, _) if compression => Ok(None),
                (1.., _, _) => Err(Violation::ReservedBits),
                (_, 3..=7 | 11.., _) => Err(Violation::ReservedOpcode),
                (_, 8.., 0) => Err(Violation::FragmentedControl),
                _ => Ok(None),
            };
            assert_eq!(Header::parse(&[first], compression), expected, "{first:#x}");
        }
    }

    #[test]
    fn a_compressed_frame_has_its_bit_and_its_header_in_front() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let mut out = b"before".to_vec();
            let payload: Vec<u8> = (0..length).map(|n| n as u8).collect();
            out.extend_from_slice(&payload);
            frame_compressed(&mut out, Opcode::Text, 6);
            let (header, at) = Header::parse(&out[6..], true).unwrap().unwrap();
            let expected =
                Header { fin: true, compressed: true, opcode: Opcode::Text, mask: None, length: length as u64 };
            assert_eq!(header, expected);
            assert_eq!(out[6 + at..], payload);
        }
    }
}
