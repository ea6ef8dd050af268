//! JSON as RFC 8259 has it: whether a text is JSON, and writing a string.
//!
//! A publication is checked once and then passed on as it came, so nothing is built here: the check is one walk
//! over the bytes, without recursion and without memory. What encloses a value is a bit: object or array.

use crate::limits::JSON_DEPTH_MAX;
use std::fmt;

/// A text is no JSON (RFC 8259).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonError {
    /// The first byte that does not fit; the length of the text if it ends too early.
    pub(crate) at: usize,
    /// What would have fitted.
    pub(crate) expected: &'static str,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {} at byte {}", self.expected, self.at)
    }
}

impl std::error::Error for JsonError {}

/// Whether the whole of `text` is one JSON value, in UTF-8 (section 8.1) without a byte order mark. Names may
/// repeat (section 4) and surrogates may stand alone (section 8.2): the grammar allows both.
pub(crate) fn validate(text: &[u8]) -> Result<(), JsonError> {
    let valid_len = std::str::from_utf8(text).map_or_else(|error| error.valid_up_to(), str::len);
    let walked = Walk { text: &text[..valid_len], at: 0, depth: 0, objects: 0 }.document();
    match walked {
        Err(error) if error.at < valid_len => Err(error), // what is wrong first is said
        _ if valid_len < text.len() => Err(JsonError { at: valid_len, expected: "UTF-8" }),
        walked => walked,
    }
}

/// Appends `text`, which is UTF-8, as a JSON string (section 7).
pub(crate) fn push_string(out: &mut Vec<u8>, text: &[u8]) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    let mut rest = text;
    while let Some(plain) = rest.iter().position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
        out.extend_from_slice(&rest[..plain]);
        push_escape(out, rest[plain]);
        rest = &rest[plain + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

fn push_escape(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        _ => {
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
}

/// What may come next.
#[derive(Clone, Copy)]
enum Next {
    /// A value: at the start, after a colon, after a comma in an array.
    Value,
    /// After `[`.
    ValueOrEnd,
    /// After a comma in an object.
    Name,
    /// After `{`.
    NameOrEnd,
    /// After a value: a comma or the end of what encloses it, and at depth 0 nothing.
    Behind,
}

/// The walk: `at <= text.len()`, and the lowest `depth` bits of `objects` say what encloses `at`, innermost
/// lowest: 1 an object, 0 an array.
struct Walk<'a> {
    text: &'a [u8],
    at: usize,
    depth: u32,
    objects: u128,
}

impl Walk<'_> {
    fn document(mut self) -> Result<(), JsonError> {
        let mut next = Next::Value;
        loop {
            self.skip_whitespace();
            next = match (next, self.peek()) {
                (Next::Behind, None) if self.depth == 0 => return Ok(()),
                (Next::Behind, _) if self.depth == 0 => return self.expected("the end"),
                (Next::Behind, Some(b',')) => self.comma(),
                (Next::Behind | Next::ValueOrEnd, Some(b']')) if !self.in_object() => self.close(),
                (Next::Behind | Next::NameOrEnd, Some(b'}')) if self.in_object() => self.close(),
                (Next::Behind, _) if self.in_object() => return self.expected("`,` or `}`"),
                (Next::Behind, _) => return self.expected("`,` or `]`"),
                (Next::Name | Next::NameOrEnd, Some(b'"')) => self.name()?,
                (Next::Name, _) => return self.expected("a name in quotes"),
                (Next::NameOrEnd, _) => return self.expected("a name in quotes or `}`"),
                (Next::Value | Next::ValueOrEnd, _) => self.value()?,
            };
        }
    }

    fn value(&mut self) -> Result<Next, JsonError> {
        match self.peek() {
            Some(b'{') => self.open(true)?,
            Some(b'[') => self.open(false)?,
            Some(b'"') => self.string()?,
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(b't') => self.word("true")?,
            Some(b'f') => self.word("false")?,
            Some(b'n') => self.word("null")?,
            _ => return self.expected("a value"),
        }
        // Only `[` and `{` leave the walk just behind an opening bracket.
        Ok(match self.text[self.at - 1] {
            b'[' => Next::ValueOrEnd,
            b'{' => Next::NameOrEnd,
            _ => Next::Behind,
        })
    }

    fn open(&mut self, is_object: bool) -> Result<(), JsonError> {
        if self.depth == JSON_DEPTH_MAX {
            return self.expected("at most 128 levels of arrays and objects");
        }
        self.depth += 1;
        self.objects = self.objects << 1 | u128::from(is_object);
        self.at += 1;
        Ok(())
    }

    fn close(&mut self) -> Next {
        self.depth -= 1;
        self.objects >>= 1;
        self.at += 1;
        Next::Behind
    }

    fn comma(&mut self) -> Next {
        self.at += 1;
        if self.in_object() { Next::Name } else { Next::Value }
    }

    /// A member's name and its colon.
    fn name(&mut self) -> Result<Next, JsonError> {
        self.string()?;
        self.skip_whitespace();
        if self.peek() != Some(b':') {
            return self.expected("`:`");
        }
        self.at += 1;
        Ok(Next::Value)
    }

    fn string(&mut self) -> Result<(), JsonError> {
        self.at += 1;
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => self.escape()?,
                Some(0x20..) => self.at += 1,
                Some(_) => return self.expected("control characters to be escaped"),
                None => return self.expected("the closing quote"),
            }
        }
        self.at += 1;
        Ok(())
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                self.at += 1;
                for _ in 0..4 {
                    if !self.peek().is_some_and(|byte| byte.is_ascii_hexdigit()) {
                        return self.expected("four hexadecimal digits");
                    }
                    self.at += 1;
                }
            }
            _ => return self.expected("one of \"\\/bfnrtu"),
        }
        Ok(())
    }

    /// Section 6. A digit behind a leading zero is found by who looks behind the value.
    fn number(&mut self) -> Result<(), JsonError> {
        self.at += usize::from(self.peek() == Some(b'-'));
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits()?;
        }
        Ok(())
    }

    /// One digit or more.
    fn digits(&mut self) -> Result<(), JsonError> {
        let from = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == from { self.expected("a digit") } else { Ok(()) }
    }

    fn word(&mut self, word: &'static str) -> Result<(), JsonError> {
        for byte in word.bytes() {
            if self.peek() != Some(byte) {
                return self.expected(word);
            }
            self.at += 1;
        }
        Ok(())
    }

    fn skip_whitespace(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn in_object(&self) -> bool {
        self.depth > 0 && self.objects & 1 == 1
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn expected<T>(&self, expected: &'static str) -> Result<T, JsonError> {
        Err(JsonError { at: self.at, expected })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_at(text: impl AsRef<[u8]>) -> Option<usize> {
        validate(text.as_ref()).err().map(|error| error.at)
    }

    #[test]
    fn json_is_accepted() {
        let good = [
            "null",
            "true",
            "false",
            "0",
            "-0",
            "1",
            "-1",
            "10",
            "1234567890",
            "0.5",
            "-0.0",
            "1.25e10",
            "1E+2",
            "1e-2",
            "0e0",
            "0E+00",
            "1e9999",
            "\"\"",
            "\"a\"",
            "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
            "\"\\u0000\\uABCD\\uabcd\"",
            "\"\\ud800\"",
            "\"\u{7f}\u{e9}\u{2028}\u{1f600}\"",
            "[]",
            "{}",
            "[ ]",
            "{ }",
            " \t\r\n1\t\r\n ",
            "[1]",
            "[1,2 , 3]",
            "[[],[[]],{}]",
            "{\"a\":1}",
            "{\"\":{}}",
            "{\"a\":1,\"a\":2}",
            " { \"a\" : [ true , { \"b\" : null } ] , \"c\" : \"]}\" } ",
            "[\"[\",\"{\"]",
            "\"[\"",
            "\"{\"",
            "[{\"a\":[{\"b\":[]}]},[]]",
        ];
        for text in good {
            assert_eq!(validate(text.as_bytes()), Ok(()), "{text:?}");
        }
    }

    /// What is not JSON, and where it goes wrong.
    const BAD: &[(&str, usize)] = &[
        ("", 0),
        (" ", 1),
        ("\u{feff}1", 0),
        ("nul", 3),
        ("nulL", 3),
        ("True", 0),
        ("truee", 4),
        ("NaN", 0),
        ("Infinity", 0),
        ("+1", 0),
        ("-", 1),
        ("-a", 1),
        ("--1", 1),
        ("01", 1),
        ("-01", 2),
        ("00", 1),
        (".5", 0),
        ("1.", 2),
        ("1.e1", 2),
        ("1e", 2),
        ("1e+", 3),
        ("1e1.5", 3),
        ("0x1", 1),
        ("1_0", 1),
        ("1 2", 2),
        ("1,", 1),
        ("\"", 1),
        ("\"a", 2),
        ("\"\\", 2),
        ("\"\\\"", 3),
        ("\"\\a\"", 2),
        ("\"\\u12\"", 5),
        ("\"\\u12G4\"", 5),
        ("\"\\U0000\"", 2),
        ("\"\n\"", 1),
        ("\"\0\"", 1),
        ("\"\u{1f}\"", 1),
        ("'a'", 0),
        ("[", 1),
        ("]", 0),
        ("[1", 2),
        ("[1,", 3),
        ("[1,]", 3),
        ("[,]", 1),
        ("[1 2]", 3),
        ("[1}", 2),
        ("[}", 1),
        ("[]]", 2),
        ("[:]", 1),
        ("[\"a\":1]", 4),
        ("{", 1),
        ("}", 0),
        ("{]", 1),
        ("{\"a\"", 4),
        ("{\"a\"}", 4),
        ("{\"a\":", 5),
        ("{\"a\":}", 5),
        ("{\"a\":1", 6),
        ("{\"a\":1,", 7),
        ("{\"a\":1,}", 7),
        ("{,}", 1),
        ("{a:1}", 1),
        ("{1:1}", 1),
        ("{\"a\" 1}", 5),
        ("{\"a\",1}", 4),
        ("{\"a\":1]", 6),
        ("{\"a\":1 \"b\":2}", 7),
        ("{}{}", 2),
        ("[1]//", 3),
        ("/**/1", 0),
        ("1\0", 1),
        ("1\u{c}", 1),
        ("\u{a0}1", 0),
        ("[1,\u{b}2]", 3),
        ("{\"a\":[}", 6),
        ("[{]", 2),
        ("{\"a\":{\"b\":1}", 12),
        ("[[1]", 4),
        ("undefined", 0),
    ];

    #[test]
    fn what_is_not_json_is_refused_where_it_goes_wrong() {
        for &(text, at) in BAD {
            assert_eq!(error_at(text), Some(at), "{text:?}: {:?}", validate(text.as_bytes()));
        }
    }

    #[test]
    fn the_first_of_a_wrong_byte_and_wrong_json_is_said() {
        assert_eq!(error_at(b"\"\xff\""), Some(1));
        assert_eq!(validate(b"\"\xff\"").unwrap_err().expected, "UTF-8");
        assert_eq!(error_at(b"\"a\xed\xa0\x80\""), Some(2)); // a surrogate
        assert_eq!(error_at(b"\"a\xc3"), Some(2)); // cut
        assert_eq!(error_at(b"[1 2,\"\xff\"]"), Some(3));
        assert_eq!(error_at(b"1\xff"), Some(1));
        assert_eq!(error_at(b"\xff"), Some(0));
    }

    #[test]
    fn nesting_ends_at_128_levels() {
        for (open, close) in [("[", "]"), ("{\"\":", "}")] {
            let nested = |depth: usize| format!("{}1{}", open.repeat(depth), close.repeat(depth));
            assert_eq!(error_at(nested(128)), None);
            assert_eq!(error_at(nested(129)), Some(128 * open.len()));
            assert_eq!(error_at(nested(100_000)), Some(128 * open.len()));
        }
        let mixed = format!("{}1{}", "[{\"a\":".repeat(64), "}]".repeat(64));
        assert_eq!(error_at(&mixed), None);
        assert_eq!(error_at(mixed.replacen("}]", "]}", 1)), Some(64 * 6 + 1));
        assert_eq!(error_at(format!("[{}]", vec!["[[]]"; 1000].join(","))), None, "depth is given back");
    }

    #[test]
    fn every_proper_prefix_of_an_object_is_refused_at_its_end() {
        let text = "{\"a\\u00e9\":[1.5e-3,true,null,\"x\"],\"b\":{}}";
        for len in 0..text.len() {
            assert_eq!(error_at(&text[..len]), Some(len), "{}", &text[..len]);
        }
    }

    #[test]
    fn strings_are_escaped_and_valid() {
        let mut text: Vec<u8> = (0..0x80).collect();
        text.extend_from_slice("\u{e9}\u{2028}\u{1f600}".as_bytes());
        let mut out = Vec::new();
        push_string(&mut out, &text);
        assert_eq!(validate(&out), Ok(()));
        assert!(out.starts_with(b"\"\\u0000\\u0001") && out.ends_with("\u{7f}\u{e9}\u{2028}\u{1f600}\"".as_bytes()));
        let written = String::from_utf8(out).unwrap();
        for piece in ["\\\"#", "[\\\\]", "\\t\\n\\u000b\\u000c\\r\\u000e", "\\u001f !"] {
            assert!(written.contains(piece), "{piece} in {written}");
        }
        let mut out = Vec::new();
        push_string(&mut out, b"");
        assert_eq!(out, b"\"\"");
    }
}
