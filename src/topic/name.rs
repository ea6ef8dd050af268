//! What a topic is called, and which worker is its home.

use crate::limits::TOPIC_NAME_BYTES_MAX;
use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// What a name has behind it that stands beside another: no name that a client gives has a space.
const LIVE: &str = " live";

/// A topic's name: 1 to 255 bytes of 0x21-0x7E, neither `.` nor `..`, which URL libraries resolve away. Cloning
/// counts a reference.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

/// Why something is not the name of a topic. All are the client's fault (400); positions are bytes of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    /// Nothing at all.
    Empty,
    /// More than 255 bytes.
    TooLong,
    /// `.` or `..`.
    Dots,
    /// A byte outside 0x21-0x7E, be it escaped or not.
    Byte { at: usize },
    /// In a URL: a character that must be percent-encoded and is not.
    Unescaped { at: usize },
    /// In a URL: a `%` without two hexadecimal digits behind it.
    Percent { at: usize },
}

impl TopicName {
    /// The name as it is, nothing decoded.
    pub fn new(name: &str) -> Result<Self, NameError> {
        if let Some(at) = name.bytes().position(|byte| !byte.is_ascii_graphic()) {
            return Err(NameError::Byte { at });
        }
        match name {
            "" => Err(NameError::Empty),
            "." | ".." => Err(NameError::Dots),
            _ if name.len() > TOPIC_NAME_BYTES_MAX => Err(NameError::TooLong),
            _ => Ok(Self(name.into())),
        }
    }

    /// The name in a path segment of a URL, percent-decoded once. Any byte may be escaped; everything outside
    /// `A-Za-z0-9_.:~-` must be.
    pub(crate) fn from_path_segment(segment: &[u8]) -> Result<Self, NameError> {
        let mut name = String::with_capacity(segment.len().min(TOPIC_NAME_BYTES_MAX));
        let mut at = 0;
        while at < segment.len() {
            let (byte, length) = match segment[at] {
                b'%' => (escaped(&segment[at + 1..]).ok_or(NameError::Percent { at })?, 3),
                byte if is_plain(byte) => (byte, 1),
                _ => return Err(NameError::Unescaped { at }),
            };
            if !byte.is_ascii_graphic() {
                return Err(NameError::Byte { at });
            }
            if name.len() == TOPIC_NAME_BYTES_MAX {
                return Err(NameError::TooLong); // no need to read on: a segment may be as long as a head
            }
            name.push(char::from(byte));
            at += length;
        }
        Self::new(&name)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The topic beside this one of what is not kept, such as who comes and goes: no client can name it.
    pub(crate) fn live(&self) -> Self {
        Self(format!("{}{LIVE}", self.0).into())
    }

    /// The name of the topic that this one stands beside, if it does.
    pub(crate) fn beside(&self) -> Option<&str> {
        self.0.strip_suffix(LIVE)
    }

    /// The worker, of `workers`, that appends to this topic. The same for as long as `workers` is: all workers
    /// must agree without asking.
    pub(crate) fn home(&self, workers: usize) -> usize {
        assert!(workers > 0, "a topic needs a worker to live on");
        let hash = mix(fnv1a(self.0.as_bytes()));
        // The high half of hash * workers / 2^64: even, and without a division.
        ((u128::from(hash) * workers as u128) >> 64) as usize
    }
}

/// What may stand unescaped in a path segment.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_.:~-".contains(&byte)
}

/// The byte that the two digits at the start of `rest` stand for.
fn escaped(rest: &[u8]) -> Option<u8> {
    let digit = |at: usize| rest.get(at).and_then(|&byte| char::from(byte).to_digit(16));
    Some((digit(0)? << 4 | digit(1)?) as u8)
}

/// FNV-1a, 64 bits (Fowler, Noll, Vo).
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// The finalizer of MurmurHash3: FNV's last byte hardly reaches the high bits, from which the home is taken.
fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

impl Borrow<str> for TopicName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "give the topic a name of 1 to {TOPIC_NAME_BYTES_MAX} bytes"),
            Self::TooLong => write!(f, "shorten the topic's name to at most {TOPIC_NAME_BYTES_MAX} bytes"),
            Self::Dots => f.write_str("choose a topic name other than `.` and `..`"),
            Self::Byte { at } => {
                write!(f, "use only printable ASCII without spaces (0x21-0x7E) in a topic's name: see byte {at}")
            }
            Self::Unescaped { at } => {
                write!(f, "percent-encode everything outside A-Za-z0-9_.:~- in a topic's name: see byte {at}")
            }
            Self::Percent { at } => {
                write!(f, "write two hexadecimal digits after %, and % itself as %25: see byte {at}")
            }
        }
    }
}

impl std::error::Error for NameError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn decoded(segment: &str) -> Result<String, NameError> {
        TopicName::from_path_segment(segment.as_bytes()).map(|name| name.to_string())
    }

    #[test]
    fn names_are_printable_ascii_of_1_to_255_bytes() {
        let longest = "x".repeat(255);
        for good in ["a", "!", "~", "...", "a/b", "%41", "chat:1,2", longest.as_str()] {
            assert_eq!(TopicName::new(good).unwrap().as_str(), good);
        }
        assert_eq!(TopicName::new(""), Err(NameError::Empty));
        assert_eq!(TopicName::new("."), Err(NameError::Dots));
        assert_eq!(TopicName::new(".."), Err(NameError::Dots));
        assert_eq!(TopicName::new(&"x".repeat(256)), Err(NameError::TooLong));
        assert_eq!(TopicName::new("a b"), Err(NameError::Byte { at: 1 }));
        assert_eq!(TopicName::new("ab\u{7f}"), Err(NameError::Byte { at: 2 }));
        assert_eq!(TopicName::new("\u{e9}"), Err(NameError::Byte { at: 0 }));
    }

    #[test]
    fn every_byte_is_decoded_or_refused() {
        for byte in 0..=255u8 {
            let printable = (0x21..=0x7e).contains(&byte);
            for segment in [format!("x%{byte:02X}"), format!("x%{byte:02x}")] {
                let expected =
                    if printable { Ok(format!("x{}", byte as char)) } else { Err(NameError::Byte { at: 1 }) };
                assert_eq!(decoded(&segment), expected, "{segment}");
            }
            let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b':' | b'~' | b'-');
            let expected = match byte {
                b'%' => Err(NameError::Percent { at: 1 }),
                _ if plain => Ok(format!("x{}", byte as char)),
                _ => Err(NameError::Unescaped { at: 1 }),
            };
            assert_eq!(TopicName::from_path_segment(&[b'x', byte]).map(|name| name.to_string()), expected, "{byte:#x}");
        }
    }

    #[test]
    fn segments_are_decoded_once_and_strictly() {
        assert_eq!(decoded("a%2Fb%2fc").unwrap(), "a/b/c");
        assert_eq!(decoded("%2541").unwrap(), "%41");
        assert_eq!(decoded("a/b"), Err(NameError::Unescaped { at: 1 }));
        for stray in ["ab%", "ab%4", "ab%4g", "ab%g4", "ab%+4", "ab%%41"] {
            assert_eq!(decoded(stray), Err(NameError::Percent { at: 2 }), "{stray}");
        }
        assert_eq!(decoded("%2e%2E"), Err(NameError::Dots));
        assert_eq!(decoded(""), Err(NameError::Empty));
        assert_eq!(decoded(&"%41".repeat(255)).unwrap(), "A".repeat(255));
        assert_eq!(decoded(&"%41".repeat(256)), Err(NameError::TooLong));
    }

    #[test]
    fn the_hash_is_fnv_1a() {
        // From the test vectors of the FNV reference code.
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn numbered_topics_spread_over_the_workers() {
        for workers in [1, 2, 3, 7, 16] {
            let mut topics = vec![0usize; workers];
            for number in 0..10_000 {
                let name = TopicName::new(&format!("room:{number}")).unwrap();
                assert_eq!(name.home(workers), name.clone().home(workers));
                topics[name.home(workers)] += 1;
            }
            let even = 10_000 / workers;
            assert!(topics.iter().all(|&count| count.abs_diff(even) <= even / 5), "{topics:?}");
        }
    }

    #[test]
    fn maps_are_asked_with_a_str() {
        let map = HashMap::from([(TopicName::new("news").unwrap(), 1)]);
        assert_eq!(map.get("news"), Some(&1));
    }
}
