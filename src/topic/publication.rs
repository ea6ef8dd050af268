//! What is published: a payload, and what it is.

use super::message::{Author, Change, Kind, Tags};
use crate::json::{self, JsonError};
use std::fmt;
use std::sync::Arc;

/// A message to be published: text, JSON or bytes.
///
/// WebSockets get text and JSON as text frames and bytes as binary ones; an event stream has base64 for bytes; an
/// element of a poll holds JSON as it is, text as a string.
///
/// ```
/// use throng::Publication;
///
/// let text = Publication::from("hello");
/// let bytes = Publication::from(&b"\x00\xFF"[..]);
/// let json = Publication::json(r#"{"price": 12.5}"#)?;
/// assert!(Publication::json("{price: 12.5}").is_err());
/// let once = text.idempotency_key("order-4711");
/// # Ok::<(), throng::JsonError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    pub(crate) kind: Kind,
    pub(crate) payload: Box<[u8]>,
    pub(crate) key: Option<Box<[u8]>>,
    pub(crate) author: Option<Arc<Author>>,
    pub(crate) change: Option<Change>,
    pub(crate) tags: Option<Box<Tags>>,
    /// When it was published, in milliseconds of Unix time; 0: nobody said.
    pub(crate) unix_ms: u64,
    /// It goes past the log of a topic that keeps one: to those sessions that are there and keep up.
    pub(crate) skips_history: bool,
}

impl Publication {
    pub(crate) fn new(kind: Kind, payload: Box<[u8]>) -> Self {
        Self { kind, payload, key: None, author: None, change: None, tags: None, unix_ms: 0, skips_history: false }
    }

    /// Somebody came, or left.
    pub(crate) fn of_change(change: Change, author: Arc<Author>) -> Self {
        let nothing = Self::new(Kind::Bytes, Box::default());
        Self { author: Some(author), change: Some(change), ..nothing }
    }

    /// The same, published by a client.
    #[cfg(feature = "centrifugo")]
    pub(crate) fn by(mut self, author: Author) -> Self {
        self.author = Some(Arc::new(author));
        self
    }

    /// The same, with what its publisher says about it.
    #[cfg(feature = "centrifugo")]
    pub(crate) fn tagged(mut self, tags: Tags) -> Self {
        self.tags = (!tags.is_empty()).then(|| Box::new(tags));
        self
    }

    /// One JSON value (RFC 8259), kept as it is written.
    ///
    /// # Errors
    ///
    /// [`JsonError`] says where it is none.
    pub fn json(json: impl Into<String>) -> Result<Self, JsonError> {
        let json = json.into();
        json::validate(json.as_bytes())?;
        Ok(Self::new(Kind::Json, json.into_bytes().into()))
    }

    /// A request's body, which is what its `Content-Type` says.
    pub(crate) fn of_body(content_type: Option<&str>, body: &[u8]) -> Result<Self, KindError> {
        Ok(Self::new(kind_of(content_type, body)?, body.into()))
    }

    /// Published again to the same topic with the same key within five minutes, it is not: the answer is the first one's.
    #[must_use]
    pub fn idempotency_key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.key = Some(key.into().into());
        self
    }
}

impl From<&str> for Publication {
    fn from(text: &str) -> Self {
        Self::new(Kind::Text, text.as_bytes().into())
    }
}

impl From<String> for Publication {
    fn from(text: String) -> Self {
        Self::new(Kind::Text, text.into_bytes().into())
    }
}

impl From<&[u8]> for Publication {
    fn from(bytes: &[u8]) -> Self {
        Self::new(Kind::Bytes, bytes.into())
    }
}

impl From<Vec<u8>> for Publication {
    fn from(bytes: Vec<u8>) -> Self {
        Self::new(Kind::Bytes, bytes.into())
    }
}

/// Why a body cannot be published as what it says it is; the client's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KindError {
    /// `application/json` that is not (400).
    NotJson {
        /// The first byte that does not fit.
        at: usize,
        /// What would have fitted.
        expected: &'static str,
    },
    /// Text that is not UTF-8 (400).
    NotUtf8 {
        /// The first byte that is not.
        at: usize,
    },
    /// Text in another charset (415).
    Charset,
    /// A Content-Type that is none (400).
    MediaType,
}

impl fmt::Display for KindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotJson { at, expected } => {
                write!(f, "send JSON, or another Content-Type: {}", JsonError { at, expected })
            }
            Self::NotUtf8 { at } => {
                write!(f, "send text as UTF-8, or as application/octet-stream: byte {at} is not UTF-8")
            }
            Self::Charset => f.write_str("send text as UTF-8: no other charset is supported"),
            Self::MediaType => {
                f.write_str("Content-Type is not ASCII: write it as in application/json, or leave it out")
            }
        }
    }
}

impl std::error::Error for KindError {}

/// What a published body is, by its `Content-Type` (RFC 9110, section 8.3): `application/json` is JSON, `text/*`
/// and forms are text, without a type text if it can be, anything else bytes.
///
/// A charset is looked for on text only: JSON defines none (RFC 8259, section 11).
fn kind_of(content_type: Option<&str>, body: &[u8]) -> Result<Kind, KindError> {
    let utf8 = || std::str::from_utf8(body).map_err(|error| KindError::NotUtf8 { at: error.valid_up_to() });
    let content_type = content_type.unwrap_or_default();
    let (media_type, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
    match media_type.trim_matches(OWS).to_ascii_lowercase().as_str() {
        "" => Ok(utf8().map_or(Kind::Bytes, |_| Kind::Text)),
        "application/json" => match json::validate(body) {
            Ok(()) => Ok(Kind::Json),
            Err(JsonError { at, expected }) => Err(KindError::NotJson { at, expected }),
        },
        // Its letters are those of tokens (RFC 9110, section 8.3.1): whatever this was meant to be, it is not bytes.
        media_type if !media_type.is_ascii() => Err(KindError::MediaType),
        media_type if media_type.starts_with("text/") || media_type == "application/x-www-form-urlencoded" => {
            if !Parameters(parameters).all(|(name, value)| !name.eq_ignore_ascii_case("charset") || is_utf8(&value)) {
                return Err(KindError::Charset);
            }
            utf8().map(|_| Kind::Text)
        }
        _ => Ok(Kind::Bytes),
    }
}

/// Optional white space (RFC 9110, section 5.6.3).
const OWS: [char; 2] = [' ', '\t'];

/// UTF-8, or a part of it.
fn is_utf8(charset: &str) -> bool {
    charset.eq_ignore_ascii_case("utf-8") || charset.eq_ignore_ascii_case("us-ascii")
}

/// What is behind a media type: names and unquoted values (RFC 9110, section 5.6.6). Lenient: what is no
/// parameter is passed over, and a quote that is not closed ends with the field.
struct Parameters<'a>(&'a str);

impl<'a> Iterator for Parameters<'a> {
    type Item = (&'a str, String);

    fn next(&mut self) -> Option<Self::Item> {
        while !self.0.is_empty() {
            let (name, rest) = self.0.split_at(self.0.find(['=', ';']).unwrap_or(self.0.len()));
            let Some(value) = rest.strip_prefix('=') else {
                self.0 = rest.strip_prefix(';').unwrap_or_default();
                continue;
            };
            let (value, rest) = match value.trim_start_matches(OWS).strip_prefix('"') {
                Some(quoted) => unquoted(quoted),
                None => {
                    let (value, rest) = value.split_at(value.find(';').unwrap_or(value.len()));
                    (value.trim_matches(OWS).to_owned(), rest)
                }
            };
            self.0 = rest.split_once(';').map_or("", |(_, rest)| rest);
            return Some((name.trim_matches(OWS), value));
        }
        None
    }
}

/// The value of a quoted string without its opening quote (section 5.6.4), and what is behind it.
fn unquoted(quoted: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = quoted.chars();
    while let Some(char) = chars.next() {
        match char {
            '"' => break,
            '\\' => value.extend(chars.next()),
            _ => value.push(char),
        }
    }
    (value, chars.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_what_its_type_says() {
        for (content_type, kind) in [
            ("application/json", Kind::Json),
            ("Application/JSON; charset=utf-8", Kind::Json),
            ("application/json;charset=utf-16", Kind::Json),
            ("text/plain", Kind::Text),
            (" TEXT/html ; Charset=UTF-8", Kind::Text),
            ("text/plain;charset=\"utf-8\"", Kind::Text),
            ("text/plain;charset=\"ut\\f-8\"", Kind::Text),
            ("text/plain; charset=us-ascii", Kind::Text),
            ("text/plain; x=\";charset=latin1;\"; charset=utf-8", Kind::Text),
            ("text/plain; x=\"\\\";charset=latin1\"", Kind::Text),
            ("text/plain;;flag; =; charset=utf-8;", Kind::Text),
            ("application/x-www-form-urlencoded", Kind::Text),
            ("application/octet-stream", Kind::Bytes),
            ("application/json5", Kind::Bytes),
            ("application/problem+json", Kind::Bytes),
            ("image/svg+xml; charset=latin1", Kind::Bytes),
            ("text", Kind::Bytes),
            ("", Kind::Text),
        ] {
            assert_eq!(kind_of(Some(content_type), b"12"), Ok(kind), "{content_type}");
        }
        assert_eq!(kind_of(None, "\u{e9}".as_bytes()), Ok(Kind::Text));
        assert_eq!(kind_of(None, b"\xe9"), Ok(Kind::Bytes));
        assert_eq!(kind_of(None, b""), Ok(Kind::Text));
        assert_eq!(kind_of(Some("image/png"), b"\xff"), Ok(Kind::Bytes));
    }

    #[test]
    fn a_body_that_is_not_what_its_type_says_is_refused() {
        for charset in ["latin1", "\"iso-8859-1\"", "\"utf-16", "utf-8x", "", "\"\"", "utf-8; charset=latin1"] {
            for media_type in ["text/plain", "application/x-www-form-urlencoded"] {
                let content_type = format!("{media_type}; a=\"b\"; CHARSET={charset}");
                assert_eq!(kind_of(Some(&content_type), b"x"), Err(KindError::Charset), "{content_type}");
            }
        }
        assert_eq!(kind_of(Some("text/plain"), b"ab\xff"), Err(KindError::NotUtf8 { at: 2 }));
        assert!(matches!(kind_of(Some("application/json"), b"[1,]"), Err(KindError::NotJson { at: 3, .. })));
        assert!(matches!(kind_of(Some("application/json"), b"\"\xff\""), Err(KindError::NotJson { at: 1, .. })));
        assert!(matches!(kind_of(Some("application/json"), b""), Err(KindError::NotJson { at: 0, .. })));
        let said = kind_of(Some("application/json"), b"[1,]").unwrap_err().to_string();
        assert_eq!(said, "send JSON, or another Content-Type: expected a value at byte 3");
    }
}
