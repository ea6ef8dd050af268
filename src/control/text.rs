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
            Self::Text(text) => push_string(out, text.as_bytes()),
            Self::List(list) => {
                out.push(b'[');
                for (at, text) in list.iter().enumerate() {
                    out.extend_from_slice(if at > 0 { b"," } else { b"" });
                    push_string(out, text.as_bytes());
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
            Self::Text(text) => text.clone(),
            Self::List(list) => list.join(","),
        };
        text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
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

fn columns(head: &[(&'static str, Value)], rows: &[Fields]) -> String {
    let mut text: String = head.iter().map(|(name, value)| format!("{name}: {}\n", value.cell())).collect();
    let Some(first) = rows.first() else { return text + "none\n" };
    let names: Vec<String> = first.iter().map(|(name, _)| name.to_uppercase()).collect();
    let cells: Vec<Vec<String>> = std::iter::once(names)
        .chain(rows.iter().map(|row| row.iter().map(|(_, value)| value.cell()).collect()))
        .collect();
    let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..first.len()).map(width).collect();
    for row in &cells {
        let padded: Vec<String> = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
        text.push_str(padded.join("  ").trim_end());
        text.push('\n');
    }
    text
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
        assert!(columns(&[], &[]).contains("none"));
    }
}
