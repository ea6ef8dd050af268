//! What identifies a message wherever a server puts it: a mark of plain characters at the start of the payload,
//! which survives being wrapped in JSON, joined with others, or sent as text or bytes.
//!
//! ```text
//! ~throng:RRRRRR:TTTTT:SSSSSSSS:NNNNNNNNNNNNNNNN~
//!         run    topic sequence nanoseconds          all hexadecimal
//! ```

use crate::clock::Nanos;
use memchr::memmem::Finder;
use std::io::Write;

/// Length of a mark in bytes.
pub(crate) const MARK_BYTES: usize = 47;
const START: &[u8] = b"~throng:";

/// Who published a message, where, as which one, and when it was due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Tells this run's messages from those of another, which a server may have kept.
    pub(crate) run: u32,
    pub(crate) topic: u32,
    /// From 0, without a hole, in each topic.
    pub(crate) sequence: u32,
    pub(crate) due: Nanos,
}

impl Mark {
    /// Only so many bits of a run's number fit.
    pub(crate) const RUN_MASK: u32 = 0xFF_FFFF;

    /// Appends a payload of `bytes` that begins with the mark, or the mark alone where it is longer.
    pub(crate) fn write_payload(self, out: &mut Vec<u8>, bytes: usize) {
        let end = out.len() + bytes.max(MARK_BYTES);
        let Self { run, topic, sequence, due } = self;
        write!(out, "~throng:{run:06x}:{topic:05x}:{sequence:08x}:{:016x}~", due.0).expect("memory takes all");
        out.resize(end, b'x');
    }

    /// The mark that `bytes` begins with.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(START.len()..MARK_BYTES)?;
        let hex = |from: usize, to: usize| {
            let text = std::str::from_utf8(&bytes[from..to]).ok()?;
            u64::from_str_radix(text, 16).ok()
        };
        let mark = Self {
            run: hex(0, 6)? as u32,
            topic: hex(7, 12)? as u32,
            sequence: hex(13, 21)? as u32,
            due: Nanos(hex(22, 38)?),
        };
        (bytes[6] == b':' && bytes[12] == b':' && bytes[21] == b':' && bytes[38] == b'~').then_some(mark)
    }
}

/// Finds the marks in a message.
#[derive(Debug)]
pub(crate) struct Marks {
    finder: Finder<'static>,
}

impl Default for Marks {
    fn default() -> Self {
        Self { finder: Finder::new(START) }
    }
}

impl Marks {
    /// Calls `found` for each, in order; says how many there were.
    pub(crate) fn each(&self, message: &[u8], mut found: impl FnMut(Mark)) -> usize {
        let (mut count, mut at) = (0, 0);
        while let Some(start) = self.finder.find(&message[at..]) {
            at += start;
            if let Some(mark) = Mark::parse(&message[at..]) {
                found(mark);
                count += 1;
            }
            at += START.len();
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_wherever_they_are() {
        let first = Mark { run: 0xABCDEF, topic: 7, sequence: 42, due: Nanos(1 << 60) };
        let second = Mark { sequence: u32::MAX, topic: 999_999, ..first };
        let mut message = b"{\"data\":[\"".to_vec();
        first.write_payload(&mut message, 100);
        message.extend_from_slice(b"\",\"~throng:broken");
        second.write_payload(&mut message, 0);
        message.push(b'"');
        let mut seen = Vec::new();
        assert_eq!(Marks::default().each(&message, |mark| seen.push(mark)), 2);
        assert_eq!(seen, [first, second]);
        let mut payload = Vec::new();
        first.write_payload(&mut payload, 0);
        assert_eq!(payload.len(), MARK_BYTES);
        for cut in 0..MARK_BYTES {
            assert_eq!(Marks::default().each(&payload[..cut], |_| ()), 0);
        }
    }
}
