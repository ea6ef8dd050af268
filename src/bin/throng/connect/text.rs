//! A peer's bytes as text that does nothing to a terminal: escaped, dumped, indented.

use std::fmt::Write;

/// How much the lines of a dump show.
const DUMP_ROW: usize = 16;

/// Appends `text` with everything escaped that a terminal would act upon, or that would show it otherwise than it is: control
/// characters (C0, DEL, C1), line ends, marks of direction, invisible characters. Backslashes stay as they come.
pub(super) fn escape_into(out: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..='\x1F' | '\x7F' => {
                let _ = write!(out, "\\x{:02x}", character as u32);
            }
            _ if deceives(character) => {
                let _ = write!(out, "\\u{{{:x}}}", character as u32);
            }
            _ => out.push(character),
        }
    }
}

/// As [`escape_into`], by itself.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    escape_into(&mut out, text);
    out
}

/// Bytes that should be text, of whatever encoding: what is no UTF-8 is shown as U+FFFD.
pub(super) fn escaped_bytes(bytes: &[u8]) -> String {
    escaped(&String::from_utf8_lossy(bytes))
}

/// Beyond ASCII: C1 controls, which some terminals take as escape sequences; marks and overrides of direction (UAX 9); other
/// characters that show nothing. The joiners of scripts and emoji, and variation selectors, are as they are.
fn deceives(character: char) -> bool {
    matches!(character,
        '\u{80}'..='\u{9F}' | '\u{AD}' | '\u{61C}' | '\u{180E}' | '\u{200B}' | '\u{200E}' | '\u{200F}'
        | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFB}'
        | '\u{E0000}'..='\u{E007F}')
}

/// The first `bytes_max` bytes of a text, cut at a character, and how many are left out.
pub(super) fn cut(text: &str, bytes_max: usize) -> (&str, usize) {
    let shown = &text[..text.floor_char_boundary(bytes_max)];
    (shown, text.len() - shown.len())
}

/// Appends lines of `offset  16 bytes in hex  |the same in ASCII|`, each behind `indent`.
pub(super) fn dump_into(out: &mut String, bytes: &[u8], indent: &str) {
    for (row, chunk) in bytes.chunks(DUMP_ROW).enumerate() {
        let _ = write!(out, "\n{indent}{:08x}  ", row * DUMP_ROW);
        for at in 0..DUMP_ROW {
            let _ = match chunk.get(at) {
                Some(byte) => write!(out, "{byte:02x} "),
                None => write!(out, "   "),
            };
            if at == DUMP_ROW / 2 - 1 {
                out.push(' ');
            }
        }
        let ascii = chunk.iter().map(|&byte| if matches!(byte, 0x20..=0x7E) { char::from(byte) } else { '.' });
        let _ = write!(out, " |{}|", ascii.collect::<String>());
    }
}

/// Bytes from hex digits, between which there may be white space, and a `0x` in front.
pub(super) fn unhex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<char> = text.trim().trim_start_matches("0x").chars().filter(|c| !c.is_whitespace()).collect();
    if let Some(other) = digits.iter().find(|digit| !digit.is_ascii_hexdigit()) {
        return Err(format!("`{}` is no hex digit", other.escape_default()));
    }
    if !digits.len().is_multiple_of(2) {
        return Err("a byte is two hex digits, and there is an odd number of them".to_owned());
    }
    let value = |digit: char| digit.to_digit(16).map_or(0, |value| value as u8);
    Ok(digits.chunks(2).map(|pair| value(pair[0]) << 4 | value(pair[1])).collect())
}

/// JSON on lines of its own, indented; `None`: the text is no JSON. Names, numbers and strings stay as they came, and in their
/// order, since nothing is taken apart: white space between tokens is all that changes.
pub(super) fn pretty_json(text: &str, indent: &str) -> Option<String> {
    serde_json::from_str::<serde::de::IgnoredAny>(text).ok()?;
    let mut out = String::with_capacity(2 * text.len());
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    let new_line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.push_str(indent);
        out.extend(std::iter::repeat_n("  ", depth));
    };
    let mut tokens = text.chars().filter({
        // White space that stands in no string goes.
        let (mut inside, mut escaped) = (false, false);
        move |&c| {
            let kept = inside || !c.is_ascii_whitespace();
            if c == '"' && !escaped {
                inside = !inside;
            }
            escaped = inside && c == '\\' && !escaped;
            kept
        }
    });
    let mut peeked = tokens.next();
    while let Some(character) = peeked {
        peeked = tokens.next();
        if in_string {
            in_string = character != '"' || escaped;
            escaped = character == '\\' && !escaped;
            // What a terminal would act upon cannot be a control character here, but may be another one.
            escape_into(&mut out, character.encode_utf8(&mut [0; 4]));
            continue;
        }
        match (character, peeked) {
            ('{', Some('}')) | ('[', Some(']')) => {
                out.push(character);
                out.extend(peeked);
                peeked = tokens.next();
            }
            ('{' | '[', _) => {
                out.push(character);
                depth += 1;
                new_line(&mut out, depth);
            }
            ('}' | ']', _) => {
                depth -= 1;
                new_line(&mut out, depth);
                out.push(character);
            }
            (',', _) => {
                out.push(',');
                new_line(&mut out, depth);
            }
            (':', _) => out.push_str(": "),
            _ => {
                in_string = character == '"';
                out.push(character);
            }
        }
    }
    Some(out)
}

/// A count of bytes, with the thousands apart.
pub(super) fn size(bytes: usize) -> String {
    let digits = bytes.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out + " B"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_acts_upon_is_left() {
        let hostile = "\x1B[2J\x1B]0;title\x07\u{9B}31m\x7F\0\r\n\tgood";
        assert_eq!(escaped(hostile), "\\x1b[2J\\x1b]0;title\\x07\\u{9b}31m\\x7f\\x00\\r\\n\\tgood");
        for character in (0..=0x10_FFFF).filter_map(char::from_u32) {
            let shown = escaped(character.encode_utf8(&mut [0; 4]));
            assert!(!shown.chars().any(char::is_control), "{:x}", character as u32);
        }
    }

    #[test]
    fn text_that_would_look_like_another_is_escaped() {
        assert_eq!(escaped("a\u{202E}cod.exe\u{2066}\u{200B}\u{FEFF}"), "a\\u{202e}cod.exe\\u{2066}\\u{200b}\\u{feff}");
        let honest = "żółw 🐢 👩‍👩‍👧 日本 \\n {\"a\":\"\\\"\"}";
        assert_eq!(escaped(honest), honest);
        assert_eq!(escaped_bytes(b"a\xFF\x1B"), "a\u{FFFD}\\x1b");
    }

    #[test]
    fn a_cut_is_at_a_character() {
        assert_eq!(cut("a€b", 2), ("a", 4));
        assert_eq!(cut("a€b", 4), ("a€", 1));
        assert_eq!(cut("a€b", 5), ("a€b", 0));
    }

    #[test]
    fn a_dump_has_sixteen_bytes_a_line() {
        let mut out = String::new();
        dump_into(&mut out, b"0123456789abcdef\x00\xFF", "  ");
        let rows: Vec<&str> = out.split('\n').skip(1).collect();
        assert_eq!(rows[0], "  00000000  30 31 32 33 34 35 36 37  38 39 61 62 63 64 65 66  |0123456789abcdef|");
        assert_eq!(rows[1], "  00000010  00 ff                                             |..|");
        assert_eq!(rows.len(), 2);
    }

    #[test]
    fn hex_is_read_as_people_write_it() {
        assert_eq!(unhex("00 ffA0"), Ok(vec![0, 255, 160]));
        assert_eq!(unhex("0xff"), Ok(vec![255]));
        assert_eq!(unhex(""), Ok(vec![]));
        assert!(unhex("f").is_err() && unhex("zz").unwrap_err().contains('z') && unhex("\x1B").unwrap_err().is_ascii());
    }

    #[test]
    fn json_is_indented_and_otherwise_as_it_came() {
        let text = r#"{"b":1.0,"a":[1, 2,{}],"c":"x, y: {\"[","d":[] , "e":{"f":null}}"#;
        let expected = "{\n  \"b\": 1.0,\n  \"a\": [\n    1,\n    2,\n    {}\n  ],\n  \"c\": \"x, y: {\\\"[\",\n  \"d\": [],\n  \"e\": {\n    \"f\": null\n  }\n}";
        assert_eq!(pretty_json(text, "").unwrap(), expected);
        assert_eq!(pretty_json(" 12 ", "").unwrap(), "12");
        assert_eq!(pretty_json("\"\u{202E}\\\\\"", "").unwrap(), "\"\\u{202e}\\\\\"");
        for other in ["", "{", "hello", "{\"a\":1} x", "\"\x1B\""] {
            assert_eq!(pretty_json(other, ""), None, "{other}");
        }
        // Spaces aside, the tokens are the same ones.
        let without = |text: &str| text.split_whitespace().collect::<String>();
        assert_eq!(without(&pretty_json(text, "   ").unwrap()), without(text));
    }

    #[test]
    fn sizes_have_their_thousands_apart() {
        let sizes = [0, 999, 1000, 65_536, 1_234_567].map(size);
        assert_eq!(sizes, ["0 B", "999 B", "1,000 B", "65,536 B", "1,234,567 B"]);
    }
}
