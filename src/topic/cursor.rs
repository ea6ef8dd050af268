//! Where a reader stands in a topic, and what it is told when it cannot stand there.

use crate::json;
use std::fmt;
use std::str::FromStr;

const EPOCH_BYTES: usize = 8;
const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// One incarnation of a topic's log: 8 of `A-Za-z0-9`, random (47.6 bits).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Epoch([u8; EPOCH_BYTES]);

impl Epoch {
    /// The epoch of a random number.
    pub(crate) fn from_random(mut random: u64) -> Self {
        // 2^64 is 84,500 times 62^8: no epoch is more than 0.002 % likelier than another.
        Self(std::array::from_fn(|_| {
            let letter = ALPHABET[(random % 62) as usize];
            random /= 62;
            letter
        }))
    }

    /// Its eight letters.
    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("an epoch is of ASCII letters and digits")
    }
}

/// A position in a topic: of the message `offset`, which has been seen. Offsets start at 1; 0 is the position
/// before the first message. Written `<epoch>-<offset>`, to clients one opaque string: [`Display`](fmt::Display) and
/// [`FromStr`] are the way out and back in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// The incarnation of the log.
    pub(crate) epoch: Epoch,
    /// The last message seen.
    pub(crate) offset: u64,
}

/// Where a reader asks to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// Before the oldest message kept.
    Earliest,
    /// Behind the newest message.
    Latest,
    /// Behind the message of this cursor.
    At(Cursor),
}

/// Not a cursor, nor (for a [`Since`]) `earliest` or `latest`; the client's fault (400).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CursorError;

/// Some messages behind the position asked for are not to be had; always said, never skipped over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    /// What was asked for, as it was written: a `Last-Event-ID` may be anything.
    pub(crate) since: Box<str>,
    /// Where the reader stands now.
    pub(crate) resumed: Cursor,
}

impl Gap {
    /// `{"gap":{"since":"...","resumed":"..."}}`, on one line whatever was asked for.
    pub(crate) fn json(&self) -> String {
        let mut out = b"{\"gap\":{\"since\":".to_vec();
        json::push_string(&mut out, self.since.as_bytes());
        out.extend_from_slice(format!(",\"resumed\":\"{}\"}}}}", self.resumed).as_bytes());
        String::from_utf8(out).expect("escaping keeps UTF-8")
    }
}

impl FromStr for Epoch {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let letters: [u8; EPOCH_BYTES] = text.as_bytes().try_into().map_err(|_| CursorError)?;
        if letters.iter().all(u8::is_ascii_alphanumeric) { Ok(Self(letters)) } else { Err(CursorError) }
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    /// Strict, so that a position has one spelling: digits only, no leading zeros, below 2^64.
    fn from_str(text: &str) -> Result<Self, CursorError> {
        let (epoch, digits) = text.split_once('-').ok_or(CursorError)?;
        let is_canonical =
            digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
        if !is_canonical {
            return Err(CursorError);
        }
        let offset = digits.parse().map_err(|_| CursorError)?; // empty, or too large
        Ok(Self { epoch: epoch.parse()?, offset })
    }
}

impl FromStr for Since {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        match text {
            "earliest" => Ok(Self::Earliest),
            "latest" => Ok(Self::Latest),
            _ => text.parse().map(Self::At),
        }
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.offset)
    }
}

impl fmt::Display for CursorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("give `earliest`, `latest`, or a cursor exactly as the server sent it")
    }
}

impl std::error::Error for CursorError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_eight_letters_or_digits_of_the_random_number() {
        assert_eq!(Epoch::from_random(0).as_str(), "AAAAAAAA");
        assert_eq!(Epoch::from_random(61).as_str(), "9AAAAAAA");
        assert_eq!(Epoch::from_random(62).as_str(), "ABAAAAAA");
        assert_eq!(Epoch::from_random(62u64.pow(8) - 1).as_str(), "99999999");
        assert_eq!(Epoch::from_random(62u64.pow(8)), Epoch::from_random(0));
        assert!(Epoch::from_random(u64::MAX).as_str().bytes().all(|byte| byte.is_ascii_alphanumeric()));
    }

    #[test]
    fn cursors_are_read_as_they_are_written() {
        for offset in [0, 1, 9, 10, 1_000_000, u64::MAX - 1, u64::MAX] {
            let cursor = Cursor { epoch: Epoch::from_random(offset ^ 0x1234_5678_9abc_def0), offset };
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
            assert_eq!(cursor.to_string().parse(), Ok(Since::At(cursor)));
        }
        let cursor: Cursor = "aZ09bY18-42".parse().unwrap();
        assert_eq!((cursor.epoch.as_str(), cursor.offset), ("aZ09bY18", 42));
        assert_eq!(cursor.to_string(), "aZ09bY18-42");
        assert_eq!("earliest".parse(), Ok(Since::Earliest));
        assert_eq!("latest".parse(), Ok(Since::Latest));
    }

    #[test]
    fn a_position_has_one_spelling() {
        let bad = "|-|-1|abcdefgh|abcdefgh-|abcdefg-1|abcdefghi-1|abcdefg_-1|abcdef\u{e9}-1|abcdefgh-+1|abcdefgh--1|\
                   abcdefgh-01|abcdefgh-00|abcdefgh-1 | abcdefgh-1|abcdefgh-1a|abcdefgh-0x1|abcdefgh-1-2|\
                   abcdefgh-\u{661}|abcdefgh-18446744073709551616|abcdefgh-99999999999999999999999|\
                   abcdefgh 1|Latest|EARLIEST|latest ";
        for text in bad.split('|') {
            assert_eq!(text.parse::<Cursor>(), Err(CursorError), "{text:?}");
            assert_eq!(text.parse::<Since>(), Err(CursorError), "{text:?}");
        }
    }

    #[test]
    fn a_gap_says_what_was_asked_on_one_line() {
        let resumed = "abcdefgh-7".parse().unwrap();
        let gap = Gap { since: "abcdefgh-3".into(), resumed };
        assert_eq!(gap.json(), r#"{"gap":{"since":"abcdefgh-3","resumed":"abcdefgh-7"}}"#);
        let gap = Gap { since: "\"\\\r\n\u{1f}\u{e9}".into(), resumed };
        assert_eq!(gap.json(), "{\"gap\":{\"since\":\"\\\"\\\\\\r\\n\\u001f\u{e9}\",\"resumed\":\"abcdefgh-7\"}}");
        assert_eq!(json::validate(gap.json().as_bytes()), Ok(()));
    }

    #[test]
    fn cursors_are_small() {
        assert_eq!(size_of::<Cursor>(), 16);
        assert!(size_of::<Since>() <= 24);
    }
}
