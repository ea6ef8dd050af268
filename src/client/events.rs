//! Event streams (HTML, section 9.2.6): bytes in, however they were cut; blocks out.

use memchr::memchr2;

/// What stood between two blank lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block<'a> {
    /// The event's type; empty: a message.
    pub event: &'a [u8],
    /// `None` where there was no `data` line: then it is no event, but its id and its `retry` count.
    pub data: Option<&'a [u8]>,
    /// The id, where it was said in this block.
    pub id: Option<&'a [u8]>,
    /// How long to wait before coming back after the stream's end, where it was said in this block: milliseconds.
    pub retry_ms: Option<u64>,
}

/// What has come of a block.
#[derive(Debug, Default)]
pub struct EventStream {
    /// A line whose end has not come.
    line: Vec<u8>,
    /// Data lines, each with an LF behind it.
    data: Vec<u8>,
    event: Vec<u8>,
    id: Option<Vec<u8>>,
    retry_ms: Option<u64>,
    /// The last byte was a CR: an LF right behind it belongs to the same end of line.
    after_cr: bool,
}

impl EventStream {
    /// Takes the next bytes, and calls `each` for every block that ends in them.
    pub fn push(&mut self, mut bytes: &[u8], mut each: impl FnMut(Block<'_>)) {
        while let Some(&first) = bytes.first() {
            if std::mem::take(&mut self.after_cr) && first == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let Some(end) = memchr2(b'\r', b'\n', bytes) else {
                self.line.extend_from_slice(bytes);
                return;
            };
            self.after_cr = bytes[end] == b'\r';
            if self.line.is_empty() {
                self.line_ended(&bytes[..end], &mut each);
            } else {
                let mut line = std::mem::take(&mut self.line);
                line.extend_from_slice(&bytes[..end]);
                self.line_ended(&line, &mut each);
                line.clear();
                self.line = line;
            }
            bytes = &bytes[end + 1..];
        }
    }

    /// Nothing is under way: a new one would go on in the same way.
    pub fn is_idle(&self) -> bool {
        let Self { line, data, event, id, retry_ms, after_cr } = self;
        line.is_empty() && data.is_empty() && event.is_empty() && id.is_none() && retry_ms.is_none() && !after_cr
    }

    /// Bytes of the block under way.
    pub fn held(&self) -> usize {
        self.line.len() + self.data.len()
    }

    fn line_ended(&mut self, line: &[u8], each: &mut impl FnMut(Block<'_>)) {
        if line.is_empty() {
            if !self.data.is_empty() || self.id.is_some() || self.retry_ms.is_some() {
                let data = self.data.strip_suffix(b"\n");
                each(Block { event: &self.event, data, id: self.id.as_deref(), retry_ms: self.retry_ms });
            }
            self.data.clear();
            self.event.clear();
            self.id = None;
            self.retry_ms = None;
            return;
        }
        let colon = memchr::memchr(b':', line).unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match &line[..colon] {
            b"data" => {
                self.data.extend_from_slice(value);
                self.data.push(b'\n');
            }
            b"event" => value.clone_into(&mut self.event),
            b"id" if !value.contains(&0) => self.id = Some(value.to_vec()),
            b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                // Digits alone are UTF-8; what no u64 holds is for ever.
                self.retry_ms = std::str::from_utf8(value).ok().map(|digits| digits.parse().unwrap_or(u64::MAX));
            }
            _ => {} // comments, and what is yet to be invented
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Seen = (String, Option<String>, Option<String>);

    fn push(stream: &mut EventStream, bytes: &[u8], seen: &mut Vec<Seen>) {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        stream.push(bytes, |block| {
            seen.push((text(block.event), block.data.map(text), block.id.map(text)));
        });
    }

    fn block(event: &str, data: Option<&str>, id: Option<&str>) -> Seen {
        (event.to_owned(), data.map(str::to_owned), id.map(str::to_owned))
    }

    const STREAM: &str = "retry: 1000\nid: e-0\n\n: hello\n\nid: e-1\ndata: one\n\nevent: gap\r\ndata:two\r\ndata:  three\r\n\r\n\
                          data\rid\r\r\nevent: nothing\n\ndata: no\u{e9}l: x\nother: y\nid: a\0b\n\nid: cut\ndata: off\n";

    fn expected() -> Vec<Seen> {
        vec![
            block("", None, Some("e-0")),
            block("", Some("one"), Some("e-1")),
            block("gap", Some("two\n three"), None),
            block("", Some(""), Some("")),
            block("", Some("no\u{e9}l: x"), None),
        ]
    }

    #[test]
    fn blocks_are_the_same_however_they_are_cut() {
        let bytes = STREAM.as_bytes();
        for first in 0..=bytes.len() {
            for second in [first, (first + 1).min(bytes.len()), (first + 7).min(bytes.len()), bytes.len()] {
                let (mut stream, mut seen) = (EventStream::default(), Vec::new());
                for piece in [&bytes[..first], &bytes[first..second], &bytes[second..]] {
                    push(&mut stream, piece, &mut seen);
                }
                assert_eq!(seen, expected(), "cut at {first} and {second}");
                assert!(!stream.is_idle(), "a block is under way");
            }
        }
        let (mut stream, mut seen) = (EventStream::default(), Vec::new());
        bytes.iter().for_each(|byte| push(&mut stream, &[*byte], &mut seen));
        assert_eq!(seen, expected());
    }

    #[test]
    fn each_end_of_line_ends_one_line() {
        for end in ["\n", "\r", "\r\n"] {
            let text = STREAM.replace("\r\n", "\n").replace('\r', "\n").replace('\n', end);
            let (mut stream, mut seen) = (EventStream::default(), Vec::new());
            text.as_bytes().iter().for_each(|byte| push(&mut stream, &[*byte], &mut seen));
            assert_eq!(seen, expected(), "{end:?}");
        }
    }

    #[test]
    fn the_time_to_come_back_is_digits_alone() {
        let mut said = Vec::new();
        EventStream::default()
            .push(b"retry: 2500\n\nretry: 1x\nid: 1\n\nretry:\nid: 2\n\n", |block| said.push(block.retry_ms));
        assert_eq!(said, [Some(2500), None, None]);
    }

    #[test]
    fn nothing_is_kept_between_blocks() {
        let mut stream = EventStream::default();
        push(&mut stream, b"id: 1\ndata: x\n\n: ping\n\n", &mut Vec::new());
        assert!(stream.is_idle());
        push(&mut stream, b"data: y", &mut Vec::new());
        assert!(!stream.is_idle() && stream.held() == 7);
    }
}
