//! What a topic's polls and JSON frames are made of: `{"id","data"}`, or a gap.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;
use throng::Cursor;

/// One element. Further members may be added to it: they are ignored.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Element<'a> {
    id: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    base64: Option<String>,
    gap: Option<Gap>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Gap {
    since: Option<String>,
    resumed: Option<String>,
}

/// What an element holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Text(String),
    Bytes(Vec<u8>),
    /// Messages between these two positions are no longer kept.
    Gap {
        since: String,
        resumed: String,
    },
}

impl<'a> Element<'a> {
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// `None`: it is no answer to a topic's poll.
    pub(super) fn parse_all(body: &'a [u8]) -> Option<Vec<Self>> {
        serde_json::from_slice(body).ok()
    }

    /// Where a reader stands behind it.
    pub(super) fn cursor(&self) -> Option<Cursor> {
        let resumed = self.gap.as_ref().and_then(|gap| gap.resumed.as_deref());
        self.id.as_deref().or(resumed)?.parse().ok()
    }

    pub(super) fn content(&self) -> Content {
        if let Some(gap) = &self.gap {
            let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "?".to_owned());
            return Content::Gap { since: text(&gap.since), resumed: text(&gap.resumed) };
        }
        match (self.data, &self.base64) {
            // A string is text; anything else is the JSON itself.
            (Some(data), _) => {
                Content::Text(serde_json::from_str::<String>(data.get()).unwrap_or_else(|_| data.get().to_owned()))
            }
            (None, Some(text)) => unbase64(text),
            (None, None) => Content::Text(String::new()),
        }
    }
}

/// What base64 stands for; what is none stands for itself.
pub(super) fn unbase64(text: &str) -> Content {
    STANDARD.decode(text).map_or_else(|_| Content::Text(text.to_owned()), Content::Bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_read_with_what_they_may_hold() {
        let body = br#"[{"gap":{"since":"x","resumed":"abcdefgh-3"}},{"id":"abcdefgh-4","data":{"a":1},"new":[2]},
                        {"id":"abcdefgh-5","base64":"AP8="},{"id":"nonsense","data":"a\nb"}]"#;
        let all = Element::parse_all(body).unwrap();
        let cursors: Vec<_> = all.iter().map(|one| one.cursor().map(|cursor| cursor.to_string())).collect();
        assert_eq!(
            cursors,
            [Some("abcdefgh-3".to_owned()), Some("abcdefgh-4".to_owned()), Some("abcdefgh-5".to_owned()), None]
        );
        let contents: Vec<_> = all.iter().map(Element::content).collect();
        let gap = Content::Gap { since: "x".to_owned(), resumed: "abcdefgh-3".to_owned() };
        let (json, text) = (Content::Text(r#"{"a":1}"#.to_owned()), Content::Text("a\nb".to_owned()));
        assert_eq!(contents, [gap, json, Content::Bytes(vec![0, 255]), text]);
        assert!(Element::parse("hello").is_none() && Element::parse_all(b"<html>").is_none());
    }
}
