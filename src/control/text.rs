//! Lists as JSON or as a table for a terminal, from one description of their rows.

use super::params::Params;
use crate::http::Response;
use crate::json::push_string;
use crate::service::Request;

/// A value of a row.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Nothing,
    Number(u64),
    Flag(bool),
    Text(String),
    List(Vec<String>),
    /// Sentences: a table has them below their row.
    Below(String),
}

/// What nobody sees, or what changes how the rest of a line is seen: control characters (a terminal takes those from U+0080 to
/// U+009F for commands, too), line separators, directions. The log escapes the same.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{AD}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}')
}

/// Appends a JSON string that a terminal can show as it is: it means the same text.
fn push_text(out: &mut Vec<u8>, text: &str) {
    if !text.contains(is_hidden) {
        return push_string(out, text.as_bytes());
    }
    let mut written = Vec::new();
    push_string(&mut written, text.as_bytes());
    for c in String::from_utf8_lossy(&written).chars() {
        if is_hidden(c) {
            // All of them are in the basic plane.
            out.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes());
        } else {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
}

impl Value {
    pub(super) fn of(text: Option<&str>) -> Self {
        text.map_or(Self::Nothing, |text| Self::Text(text.to_owned()))
    }

    fn json(&self, out: &mut Vec<u8>) {
        match self {
            Self::Nothing => out.extend_from_slice(b"null"),
            Self::Number(number) => out.extend_from_slice(number.to_string().as_bytes()),
            Self::Flag(flag) => out.extend_from_slice(if *flag { b"true" } else { b"false" }),
            Self::Text(text) | Self::Below(text) => push_text(out, text),
            Self::List(list) => {
                out.push(b'[');
                for (at, text) in list.iter().enumerate() {
                    out.extend_from_slice(if at > 0 { b"," } else { b"" });
                    push_text(out, text);
                }
                out.push(b']');
            }
        }
    }

    /// As a table has it: what a client chose must not move the cursor of who reads.
    fn cell(&self) -> String {
        let text = match self {
            Self::Nothing => "-".to_owned(),
            Self::Number(number) => number.to_string(),
            Self::Flag(flag) => if *flag { "yes" } else { "no" }.to_owned(),
            Self::Text(text) | Self::Below(text) => text.clone(),
            Self::List(list) => list.join(","),
        };
        text.chars().map(|c| if is_hidden(c) { '\u{fffd}' } else { c }).collect()
    }
}

/// A row: names and values, in their order.
pub(super) type Fields = Vec<(&'static str, Value)>;

/// Appends an object.
pub(super) fn object(out: &mut Vec<u8>, fields: &[(&'static str, Value)]) {
    out.push(b'{');
    for (at, (name, value)) in fields.iter().enumerate() {
        out.extend_from_slice(if at > 0 { b"," } else { b"" });
        push_string(out, name.as_bytes());
        out.push(b':');
        value.json(out);
    }
    out.push(b'}');
}

/// Whether a table is wanted.
pub(super) fn wants_table(request: &Request<'_>, params: &Params) -> Result<bool, Response> {
    let said = params.word("format", &[("json", false), ("text", true)])?;
    Ok(said.unwrap_or_else(|| request.header("Accept").is_some_and(|accept| accept.starts_with("text/plain"))))
}

/// A list's answer: what there is of it beside the rows, and those.
pub(super) fn list(table: bool, name: &'static str, head: &[(&'static str, Value)], rows: &[Fields]) -> Response {
    if table {
        return Response::new(200).body("text/plain; charset=utf-8", columns(head, rows));
    }
    let mut out = Vec::new();
    object(&mut out, head);
    out.pop();
    out.extend_from_slice(if head.is_empty() { b"" } else { b"," });
    push_string(&mut out, name.as_bytes());
    out.extend_from_slice(b":[");
    for (at, row) in rows.iter().enumerate() {
        out.extend_from_slice(if at > 0 { b"," } else { b"" });
        object(&mut out, row);
    }
    out.extend_from_slice(b"]}\n");
    Response::new(200).body("application/json", out)
}

/// How wide the lines of sentences are.
const WIDTH: usize = 100;

fn columns(head: &[(&'static str, Value)], rows: &[Fields]) -> String {
    let said = head.iter().filter(|(_, value)| !matches!(value, Value::List(list) if list.is_empty()));
    let mut text: String = said.map(|(name, value)| format!("{name}: {}\n", value.cell())).collect();
    let Some(first) = rows.first() else { return text + "none\n" };
    let is_column = |value: &Value| !matches!(value, Value::Below(_));
    let in_columns =
        |row: &Fields| row.iter().filter(|(_, value)| is_column(value)).map(|(_, value)| value.cell()).collect();
    let names: Vec<String> =
        first.iter().filter(|(_, value)| is_column(value)).map(|(name, _)| name.to_uppercase()).collect();
    let columns = names.len();
    let cells: Vec<Vec<String>> = std::iter::once(names).chain(rows.iter().map(in_columns)).collect();
    let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for (at, row) in cells.iter().enumerate() {
        let padded: Vec<String> = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
        text.push_str(padded.join("  ").trim_end());
        text.push('\n');
        let row = at.checked_sub(1).and_then(|at| rows.get(at));
        row.into_iter()
            .flatten()
            .filter(|(_, value)| !is_column(value))
            .for_each(|(_, value)| wrap(&mut text, &value.cell()));
    }
    text
}

/// Appends sentences in lines of their own, indented.
fn wrap(out: &mut String, text: &str) {
    let mut column = WIDTH;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if column + 1 + length > WIDTH {
            out.push_str(if column < WIDTH { "\n    " } else { "    " });
            column = 4;
        } else {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
        if column >= WIDTH {
            out.push('\n');
        }
    }
    if column < WIDTH {
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::validate;

    #[test]
    fn a_list_is_json_or_a_table_that_no_name_can_break() {
        let row = |user: &str| {
            vec![
                ("id", Value::Text("0-1".into())),
                ("user", Value::of(Some(user))),
                ("topics", Value::List(vec!["a".into()])),
            ]
        };
        let rows = [row("x\x1b[2J\"\n"), row("somebody")];
        let mut json = Vec::new();
        for row in &rows {
            json.clear();
            object(&mut json, row);
            assert!(validate(&json).is_ok(), "{}", String::from_utf8_lossy(&json));
        }
        let table = columns(&[("matched", Value::Number(2))], &rows);
        assert_eq!(table.lines().count(), 4);
        assert!(!table.contains('\x1b') && table.starts_with("matched: 2\nID"), "{table}");
        assert_eq!(columns(&[("silent_workers", Value::List(Vec::new()))], &[]), "none\n");
    }

    #[test]
    fn what_nobody_sees_is_escaped_and_means_the_same() {
        let evil = "\u{9b}2J\u{202e}\u{7f}\u{85}\u{2028}\u{feff}\u{0}\"\\\u{e9}\u{1f600}";
        let mut out = Vec::new();
        Value::of(Some(evil)).json(&mut out);
        Value::List(vec![evil.into()]).json(&mut out);
        let text = String::from_utf8(out).expect("UTF-8");
        assert!(!text.contains(is_hidden) && text.contains("\\u009b2J\\u202e\\u007f"), "{text}");
        assert!(text.contains("\u{e9}\u{1f600}"), "the rest is as it was: {text}");
        let first = serde_json::Deserializer::from_str(&text).into_iter::<serde_json::Value>().next();
        assert_eq!(first.expect("a value").expect("JSON"), evil);
        assert!(!Value::of(Some(evil)).cell().contains(is_hidden));
    }

    #[test]
    fn sentences_stand_below_their_row_in_lines_that_a_terminal_has() {
        let sentences = "word ".repeat(60) + &"x".repeat(150) + " end";
        let rows = [vec![("id", Value::Text("0-1".into())), ("means", Value::Below(sentences.clone()))]];
        let table = columns(&[], &rows);
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines[..2], ["ID", "0-1"], "{table}");
        assert!(
            lines[2..]
                .iter()
                .all(|line| line.starts_with("    ") && (line.len() <= WIDTH || !line.trim().contains(' '))),
            "{table}"
        );
        let words: Vec<_> = lines[2..].iter().flat_map(|line| line.split_whitespace()).collect();
        assert_eq!(words.join(" "), sentences);
    }
}
