//! Query strings of the form `name=value&name=value`: the form encoding (URL Standard, section 5.1) over the
//! percent-encoding of RFC 3986, section 2.1.

use std::borrow::Cow;
use std::fmt;

/// Why a query is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueryError {
    /// A `%` without two hex digits behind it (RFC 3986, section 2.1).
    BadEscape,
    /// What is percent-encoded is not UTF-8 (URL Standard, section 5.1; there it would be replaced).
    NotUtf8,
    /// A parameter that may be given once is given twice: parsers differ in which one they take.
    Repeated(&'static str),
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadEscape => f.write_str("a % in the query must be followed by two hex digits: write % as %25"),
            Self::NotUtf8 => f.write_str("what is percent-encoded in the query must be UTF-8"),
            Self::Repeated(name) => write!(f, "the query parameter {name} is given more than once: give it once"),
        }
    }
}

impl std::error::Error for QueryError {}

/// The parameters in their order, decoded: borrowed where nothing was encoded. One without `=` has an empty
/// value.
pub(crate) fn pairs(query: &str) -> impl Iterator<Item = Result<(Cow<'_, str>, Cow<'_, str>), QueryError>> {
    raw_pairs(query).map(|(name, value)| Ok((decode(name)?, decode(value)?)))
}

/// The value of a parameter that may be given once. The values of others are not looked at; their names are,
/// since `%6Eame` is `name`.
pub(crate) fn first<'q>(query: &'q str, name: &'static str) -> Result<Option<Cow<'q, str>>, QueryError> {
    let mut found = None;
    for (raw_name, value) in raw_pairs(query) {
        if decode(raw_name)? == name && found.replace(value).is_some() {
            return Err(QueryError::Repeated(name));
        }
    }
    found.map(decode).transpose()
}

/// Whether any value is a JSON Web Token by its looks, three parts of base64url whose first begins a JSON object (RFC 7515,
/// section 3.1), whatever it is called. What cannot be decoded is none.
pub(crate) fn has_token(query: &str) -> bool {
    raw_pairs(query).any(|(_, value)| {
        decode(value).is_ok_and(|value| {
            let token = value.trim().rsplit(' ').next().unwrap_or_default(); // `Bearer TOKEN`, too
            let is_part =
                |part: &str| part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
            token.starts_with("eyJ") && token.split('.').count() == 3 && token.split('.').all(is_part)
        })
    })
}

/// Split but not decoded; empty ones (`a&&b`) left out.
fn raw_pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

fn decode(text: &str) -> Result<Cow<'_, str>, QueryError> {
    let Some(start) = text.bytes().position(|byte| byte == b'%' || byte == b'+') else {
        return Ok(Cow::Borrowed(text));
    };
    let (plain, mut rest) = text.as_bytes().split_at(start);
    let mut decoded = Vec::with_capacity(text.len());
    decoded.extend_from_slice(plain);
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let (escape, behind) = rest.split_first_chunk::<2>().ok_or(QueryError::BadEscape)?;
                rest = behind;
                hex_digit(escape[0])? << 4 | hex_digit(escape[1])?
            }
            other => other,
        });
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| QueryError::NotUtf8)
}

fn hex_digit(byte: u8) -> Result<u8, QueryError> {
    // A digit in base 16 is below 16.
    char::from(byte).to_digit(16).map(|digit| digit as u8).ok_or(QueryError::BadEscape)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(query: &str) -> Result<Vec<(String, String)>, QueryError> {
        pairs(query).map(|pair| pair.map(|(name, value)| (name.into_owned(), value.into_owned()))).collect()
    }

    #[test]
    fn pairs_are_split_and_decoded() {
        let cases: &[(&str, &[(&str, &str)])] = &[
            ("", &[]),
            ("&&", &[]),
            ("a", &[("a", "")]),
            ("a=", &[("a", "")]),
            ("=a", &[("", "a")]),
            ("=", &[("", "")]),
            ("a=b=c", &[("a", "b=c")]),
            ("&a=1&&b=2&", &[("a", "1"), ("b", "2")]),
            ("a=1&a=2", &[("a", "1"), ("a", "2")]),
            ("a;b=c", &[("a;b", "c")]),
            ("a+b=c+d", &[("a b", "c d")]),
            ("a%2bb=%26%3D%25", &[("a+b", "&=%")]),
            ("a=%2541", &[("a", "%41")]), // decoded once
            ("a=%C3%A4%e2%82%ac", &[("a", "ä€")]),
            ("a=ä", &[("a", "ä")]),
            ("a=%00", &[("a", "\0")]),
        ];
        for (query, expected) in cases {
            let expected = expected.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
            assert_eq!(all(query), Ok(expected), "{query:?}");
        }
    }

    #[test]
    fn what_cannot_be_decoded_is_refused() {
        for query in ["%", "a=%", "a=%4", "a=%4&b", "a=%zz", "a=%4g", "a=%+1", "a=%-1", "a=%ä", "%%41=b"] {
            assert_eq!(all(query), Err(QueryError::BadEscape), "{query:?}");
        }
        for query in ["a=%ff", "a=%C3", "%c3=%a4", "a=%C0%AF", "a=%ED%A0%80", "a=%C3ä"] {
            assert_eq!(all(query), Err(QueryError::NotUtf8), "{query:?}");
        }
    }

    #[test]
    fn what_is_plain_is_borrowed() {
        assert!(pairs("a=b&c").all(|pair| matches!(pair, Ok((Cow::Borrowed(_), Cow::Borrowed(_))))));
        assert!(matches!(first("since=12&x=%41", "since"), Ok(Some(Cow::Borrowed("12")))));
    }

    #[test]
    fn a_parameter_is_given_once() {
        let first = |query| first(query, "since").map(|value| value.map(Cow::into_owned));
        assert_eq!(first(""), Ok(None));
        assert_eq!(first("Since=1&sinc=2&since2=3"), Ok(None));
        assert_eq!(first("limit=2&since=a%2Bb&wait=1"), Ok(Some("a+b".into())));
        assert_eq!(first("since"), Ok(Some(String::new())));
        assert_eq!(first("x=%&since=1&y=%ff"), Ok(Some("1".into())));
        assert_eq!(first("since=%"), Err(QueryError::BadEscape));
        assert_eq!(first("%=1&since=1"), Err(QueryError::BadEscape));
        for query in ["since=1&since=1", "since=1&s%69nce=2", "since&since", "since=%&since=%"] {
            assert_eq!(first(query), Err(QueryError::Repeated("since")), "{query:?}");
        }
        assert!(QueryError::Repeated("since").to_string().contains("since is given more than once"));
    }
}
