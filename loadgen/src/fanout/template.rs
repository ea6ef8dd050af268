//! What is sent, with places to fill in: `{topic}`, `{seq}`, `{time}`, `{payload}`, `{n}`. Other braces, as in
//! JSON, stand for themselves.

/// A piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Topic,
    Sequence,
    Time,
    Payload,
    Number,
}

const NAMES: [(&str, Piece); 5] = [
    ("{topic}", Piece::Topic),
    ("{seq}", Piece::Sequence),
    ("{time}", Piece::Time),
    ("{payload}", Piece::Payload),
    ("{n}", Piece::Number),
];

/// A template taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    pieces: Vec<Piece>,
}

/// What is filled in.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Values<'a> {
    pub(crate) topic: &'a str,
    /// From 1, as people count.
    pub(crate) sequence: u64,
    /// Milliseconds since 1970.
    pub(crate) time_ms: u64,
    pub(crate) payload: &'a [u8],
    /// Number of the topic, or of the connection.
    pub(crate) number: u64,
}

impl Template {
    pub(crate) fn new(mut text: &str) -> Self {
        let mut pieces = Vec::new();
        while !text.is_empty() {
            let found = NAMES
                .iter()
                .filter_map(|(name, piece)| Some((text.find(name)?, name, piece)))
                .min_by_key(|found| found.0);
            let Some((at, name, piece)) = found else {
                pieces.push(Piece::Text(text.to_owned()));
                break;
            };
            if at > 0 {
                pieces.push(Piece::Text(text[..at].to_owned()));
            }
            pieces.push(piece.clone());
            text = &text[at + name.len()..];
        }
        Self { pieces }
    }

    pub(crate) fn has_payload(&self) -> bool {
        self.pieces.contains(&Piece::Payload)
    }

    /// Appends the filled-in text.
    pub(crate) fn write(&self, out: &mut Vec<u8>, values: Values<'_>) {
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Topic => out.extend_from_slice(values.topic.as_bytes()),
                Piece::Sequence => out.extend_from_slice(values.sequence.to_string().as_bytes()),
                Piece::Time => out.extend_from_slice(values.time_ms.to_string().as_bytes()),
                Piece::Payload => out.extend_from_slice(values.payload),
                Piece::Number => out.extend_from_slice(values.number.to_string().as_bytes()),
            }
        }
    }

    /// The filled-in text of one that holds text only.
    pub(crate) fn text(&self, values: Values<'_>) -> String {
        let mut out = Vec::new();
        self.write(&mut out, values);
        String::from_utf8_lossy(&out).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled_and_braces_stay() {
        let template = Template::new(r#"{"publish":{"channel":"{topic}","data":"{payload}","id":{seq},"at":{time}}}"#);
        assert!(template.has_payload());
        let values = Values { topic: "a", sequence: 3, time_ms: 9, payload: b"xyz", number: 0 };
        assert_eq!(template.text(values), r#"{"publish":{"channel":"a","data":"xyz","id":3,"at":9}}"#);
        assert_eq!(Template::new("load-{n}").text(Values { number: 12, ..values }), "load-12");
        assert!(!Template::new("").has_payload());
    }
}
