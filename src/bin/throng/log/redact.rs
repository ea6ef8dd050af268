//! What is left out of the log, wherever it came from: nothing in here should say a secret, and if something does all the
//! same, it is not written.

use std::borrow::Cow;

const HIDDEN: &str = "(hidden)";

/// Keys whose values are secrets.
const SECRET_KEYS: [&str; 7] = ["token", "secret", "key", "password", "authorization", "cookie", "query"];

/// What a secret stands behind, in lower case.
const SCHEMES: [&str; 3] = ["bearer ", "bearer.", "apikey "];

/// The value of a pair.
pub(super) fn value(key: &str, text: &str) -> String {
    let is_secret = SECRET_KEYS.iter().any(|secret| key.eq_ignore_ascii_case(secret));
    if is_secret && !text.is_empty() { HIDDEN.to_owned() } else { redact(text).into_owned() }
}

/// A text without tokens, credentials, the queries of URLs and what stands in front of their hosts.
pub(super) fn redact(text: &str) -> Cow<'_, str> {
    // Most have nothing of that.
    let lower = text.to_ascii_lowercase();
    if !SCHEMES.iter().any(|scheme| lower.contains(scheme))
        && !["?", "@", "eyj"].iter().any(|sign| lower.contains(sign))
    {
        return Cow::Borrowed(text);
    }
    let mut out = String::new();
    let mut at = 0;
    while let Some((hidden, kept)) = next_secret(&lower, at) {
        out.push_str(&text[at..kept]);
        out.push_str(HIDDEN);
        at = hidden;
    }
    out.push_str(&text[at..]);
    Cow::Owned(out)
}

/// The next secret from a place on: where it ends, and where it begins.
fn next_secret(lower: &str, from: usize) -> Option<(usize, usize)> {
    let places = lower[from..].char_indices().map(|(at, _)| from + at);
    places.into_iter().find_map(|at| secret_at(lower, at).map(|end| (end, at)))
}

/// Where the secret ends that begins here, if one does.
fn secret_at(lower: &str, at: usize) -> Option<usize> {
    let (before, rest) = lower.split_at(at);
    let until = |is_part: fn(u8) -> bool| at + rest.bytes().position(|byte| !is_part(byte)).unwrap_or(rest.len());
    // Behind `?`, where a name and `=` follow: what a query is until it ends.
    if before.ends_with('?') {
        let name = rest.bytes().position(|byte| !is_name(byte)).unwrap_or(rest.len());
        return (name > 0 && rest[name..].starts_with('=')).then(|| until(|byte| !is_end(byte)));
    }
    if SCHEMES.iter().any(|scheme| before.ends_with(scheme)) {
        return Some(until(is_token)).filter(|&end| end > at);
    }
    // Between `://` and `@`: a user, and a password.
    if before.ends_with("://") {
        let end = until(|byte| !is_end(byte) && byte != b'/' && byte != b'@');
        return lower[end..].starts_with('@').then_some(end);
    }
    // What JWTs begin with, `{"`, in base64.
    let is_start = rest.starts_with("eyj") && !before.bytes().next_back().is_some_and(is_token);
    is_start.then(|| until(is_token)).filter(|&end| lower[at..end].contains('.'))
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_-.~%[]".contains(&byte)
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_-.~+/=".contains(&byte)
}

/// What ends a URL in a text.
fn is_end(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte.is_ascii_control() || b"\"'`<>)".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_secret_is_left_out_and_the_rest_is_not() {
        for (text, left) in [
            ("GET /topics/t?since=abc-1&token=s HTTP/1.1", "GET /topics/t?(hidden) HTTP/1.1"),
            ("\"/connection/sse?cf_connect=%7B%7D\"", "\"/connection/sse?(hidden)\""),
            ("Authorization: Bearer s3cr.et-_~+/= x", "Authorization: Bearer (hidden) x"),
            ("throng, bearer.s3cret, x", "throng, bearer.(hidden), x"),
            ("APIKEY s3cret", "APIKEY (hidden)"),
            ("https://user:s3cret@a.example/x", "https://(hidden)@a.example/x"),
            ("a token eyJhbGciOi.eyJzdWIi.sig is old", "a token (hidden) is old"),
            ("é eyJhbGciOi.eyJzdWIi.sig é", "é (hidden) é"),
            // Nothing of that:
            ("unknown setting `x`: did you mean `y`?", "unknown setting `x`: did you mean `y`?"),
            ("who? a=b", "who? a=b"),
            ("mail a@b.example, https://a.example/@x", "mail a@b.example, https://a.example/@x"),
            ("the bearer of bad news", "the bearer (hidden) bad news"),
            ("eyjafjalla", "eyjafjalla"),
            ("", ""),
        ] {
            assert_eq!(redact(text), left);
        }
    }

    #[test]
    fn values_of_secret_keys_are_left_out() {
        assert_eq!(
            (value("Token", "s"), value("key", ""), value("peer", "s")),
            (HIDDEN.to_owned(), String::new(), "s".to_owned())
        );
    }
}
