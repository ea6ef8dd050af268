//! What a token lets its client do beyond the rules of channels: `caps` of connection tokens, and `allow` of subscription
//! tokens, as Centrifugo PRO documents them.
//!
//! ```text
//!   "caps": [{"channels": ["news:*"], "match": "wildcard", "allow": ["sub", "hst"]},
//!            {"channels": ["^posts_[0-9]+$"], "match": "regex", "allow": ["sub"]},
//!            {"channels": ["user_42"], "allow": ["sub", "pub"]}]
//! ```
//!
//! The first entry that means a channel decides, also by what it does not list.

use super::TokenError;
use crate::adapter::centrifugo::glob::Glob;
use crate::config::Right;
use crate::limits::{CAPS_BYTES_MAX, CAPS_MAX};
use regex_lite::{Regex, RegexBuilder};
use serde::Deserialize;
use std::sync::Arc;

/// What a compiled expression may take, in bytes.
const REGEX_BYTES_MAX: usize = 16 * 1024;

/// Rights, a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Allowed(u8);

/// The bit of a right. Who may read what is kept may come back to a position, too.
fn bit(right: Right) -> u8 {
    match right {
        Right::Subscribe => 1,
        Right::Publish => 2,
        Right::Presence => 4,
        Right::History | Right::Recovery => 8,
    }
}

impl Allowed {
    /// Reads the words that the documents know.
    pub(super) fn new(words: &[String]) -> Result<Self, TokenError> {
        words.iter().try_fold(Self::default(), |Self(all), word| {
            let right = match word.as_str() {
                "sub" => Right::Subscribe,
                "pub" => Right::Publish,
                "prs" => Right::Presence,
                "hst" => Right::History,
                _ => return Err(TokenError::Malformed("what `allow` lists is sub, pub, prs, hst")),
            };
            Ok(Self(all | bit(right)))
        })
    }

    pub(crate) fn has(self, right: Right) -> bool {
        self.0 & bit(right) != 0
    }
}

/// An entry of `caps`, as a token has it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct CapClaim {
    channels: Vec<String>,
    #[serde(rename = "match")]
    how: String,
    allow: Vec<String>,
}

/// What means one channel or many.
#[derive(Debug)]
enum Pattern {
    Exact(Box<str>),
    Wildcard(Glob),
    Regex(Regex),
}

impl Pattern {
    fn new(text: &str, how: &str) -> Result<Self, TokenError> {
        match how {
            "" => Ok(Self::Exact(text.into())),
            "wildcard" => Glob::new(text)
                .map(Self::Wildcard)
                .map_err(|_| TokenError::Malformed("a wildcard of `caps` is malformed")),
            // Linear in the length of the name, whatever the expression.
            "regex" => RegexBuilder::new(text)
                .size_limit(REGEX_BYTES_MAX)
                .build()
                .map(Self::Regex)
                .map_err(|_| TokenError::Malformed("a regex of `caps` is malformed, or too large")),
            _ => Err(TokenError::Malformed("`match` in `caps` is wildcard, regex, or left out")),
        }
    }

    fn means(&self, channel: &str) -> bool {
        match self {
            Self::Exact(name) => **name == *channel,
            Self::Wildcard(glob) => glob.matches(channel),
            Self::Regex(regex) => regex.is_match(channel),
        }
    }
}

/// What some channels are allowed.
#[derive(Debug)]
struct Cap {
    channels: Vec<Pattern>,
    allow: Allowed,
}

/// What a connection token lets its client do beyond the rules.
#[derive(Clone, Debug, Default)]
pub(crate) struct Caps(Option<Arc<[Cap]>>);

impl Caps {
    pub(super) fn new(claims: &[CapClaim]) -> Result<Self, TokenError> {
        if claims.is_empty() {
            return Ok(Self::default());
        }
        let bytes: usize = claims.iter().flat_map(|claim| &claim.channels).map(String::len).sum();
        if claims.len() > CAPS_MAX || bytes > CAPS_BYTES_MAX {
            return Err(TokenError::Malformed(
                "`caps` has more than 64 entries, or names more than 4096 bytes of channels",
            ));
        }
        let caps = claims.iter().map(|CapClaim { channels, how, allow }| {
            let channels = channels.iter().map(|channel| Pattern::new(channel, how)).collect::<Result<_, _>>()?;
            Ok(Cap { channels, allow: Allowed::new(allow)? })
        });
        Ok(Self(Some(caps.collect::<Result<_, TokenError>>()?)))
    }

    /// Whether it is allowed this with that channel.
    pub(crate) fn allow(&self, right: Right, channel: &str) -> bool {
        let means = |cap: &&Cap| cap.channels.iter().any(|pattern| pattern.means(channel));
        let first = self.0.iter().flat_map(|caps| caps.iter()).find(means);
        first.is_some_and(|cap| cap.allow.has(right))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn caps(caps: Value) -> Result<Caps, TokenError> {
        Caps::new(&serde_json::from_value::<Vec<CapClaim>>(caps).unwrap())
    }

    #[test]
    fn the_first_entry_that_means_a_channel_decides() {
        let caps = caps(json!([
            {"channels": ["news", "user_42"], "allow": ["sub"]},
            {"channels": ["user_42"], "allow": ["pub", "hst", "prs"]},
            {"channels": ["news:*"], "match": "wildcard", "allow": ["sub", "hst"]},
            {"channels": ["^posts_[\\d]+$"], "match": "regex", "allow": ["pub"]}
        ]))
        .unwrap();
        for (channel, rights) in [
            ("news", &[Right::Subscribe][..]),
            ("user_42", &[Right::Subscribe]),
            ("news:", &[Right::Subscribe, Right::History, Right::Recovery]),
            ("news:a:b", &[Right::Subscribe, Right::History, Right::Recovery]),
            ("posts_17", &[Right::Publish]),
            ("posts_17x", &[]),
            ("xposts_17", &[]),
            ("other", &[]),
        ] {
            for right in [Right::Subscribe, Right::Publish, Right::Presence, Right::History, Right::Recovery] {
                assert_eq!(caps.allow(right, channel), rights.contains(&right), "{channel} {right:?}");
            }
        }
        assert!(!Caps::default().allow(Right::Subscribe, "news"));
    }

    #[test]
    fn an_expression_that_explodes_elsewhere_is_linear_here() {
        let caps = caps(json!([{"channels": ["^(a+)+$"], "match": "regex", "allow": ["sub"]}])).unwrap();
        assert!(!caps.allow(Right::Subscribe, &format!("{}!", "a".repeat(254))));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let many = vec![json!({"channels": ["a"], "allow": ["sub"]}); CAPS_MAX + 1];
        for wrong in [
            json!([{"channels": ["a"], "allow": ["write"]}]),
            json!([{"channels": ["a"], "match": "prefix", "allow": ["sub"]}]),
            json!([{"channels": ["[a"], "match": "wildcard", "allow": ["sub"]}]),
            json!([{"channels": ["(a"], "match": "regex", "allow": ["sub"]}]),
            json!([{"channels": ["(?:a{1000}){1000}"], "match": "regex", "allow": ["sub"]}]),
            json!([{"channels": ["a".repeat(CAPS_BYTES_MAX + 1)], "allow": ["sub"]}]),
            Value::Array(many),
        ] {
            assert!(matches!(caps(wrong.clone()), Err(TokenError::Malformed(_))), "{wrong}");
        }
    }
}
