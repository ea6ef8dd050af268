//! Parameters of the admin port's URLs: each known, each once, each what it should be.

use crate::error::Refused;
use crate::http::{Response, pairs};
use crate::limits::INSPECT_ROWS_MAX;
use crate::service::{ConnId, Request};
use crate::topic::TopicName;
use std::net::IpAddr;
use std::str::FromStr;

/// How many are listed unless it is said.
const LIMIT: usize = 20;

pub(super) struct Params(Vec<(String, String)>);

fn bad(detail: &str) -> Response {
    Response::detailed(Refused::BadParameter, detail)
}

impl Params {
    /// Those that are given, of those that there are.
    pub(super) fn read(request: &Request<'_>, known: &[&str]) -> Result<Self, Response> {
        Self::of(request.query().unwrap_or(""), known)
    }

    fn of(query: &str, known: &[&str]) -> Result<Self, Response> {
        let mut params: Vec<(String, String)> = Vec::new();
        for pair in pairs(query) {
            let (name, value) = pair.map_err(|error| bad(&error.to_string()))?;
            if !known.contains(&&*name) {
                let all = known.join(", ");
                return Err(bad(&format!("there is no parameter {:?} here: there are {all}", &*name)));
            }
            if params.iter().any(|(other, _)| *other == name) {
                return Err(bad(&format!("{name} is given more than once: give it once")));
            }
            params.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(params))
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(given, _)| given == name)
    }

    /// The value, unless it is empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(given, _)| given == name)?;
        Some(value.as_str()).filter(|value| !value.is_empty())
    }

    pub(super) fn boxed(&self, name: &str) -> Option<Box<str>> {
        self.text(name).map(Into::into)
    }

    /// A number, or whatever can be read.
    pub(super) fn value<V: FromStr>(&self, name: &str, what: &str) -> Result<Option<V>, Response> {
        let read = |text: &str| text.parse().map_err(|_| bad(&format!("{name} must be {what}, not {text:?}")));
        self.text(name).map(read).transpose()
    }

    pub(super) fn limit(&self) -> Result<usize, Response> {
        let what = format!("a number from 1 to {INSPECT_ROWS_MAX}");
        match self.value("limit", &what)? {
            None => Ok(LIMIT),
            Some(limit) if (1..=INSPECT_ROWS_MAX).contains(&limit) => Ok(limit),
            Some(_) => Err(bad(&format!("limit must be {what}"))),
        }
    }

    pub(super) fn address(&self) -> Result<Option<IpAddr>, Response> {
        self.value("address", "an address without a port, such as 10.0.0.7")
    }

    pub(super) fn topic(&self, name: &str) -> Result<Option<TopicName>, Response> {
        self.text(name).map(|text| TopicName::new(text).map_err(|_| Refused::BadTopic.into())).transpose()
    }

    /// One of several words.
    pub(super) fn word<W: Copy>(&self, name: &str, words: &[(&str, W)]) -> Result<Option<W>, Response> {
        let Some(given) = self.text(name) else { return Ok(None) };
        let found = words.iter().find(|(word, _)| *word == given).map(|(_, value)| *value);
        let all = || words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        found.map(Some).ok_or_else(|| bad(&format!("{name} must be one of {}, not {given:?}", all())))
    }
}

/// The worker and the serial of an id.
pub(super) fn id(text: &str) -> Result<(u16, u64), Response> {
    ConnId::parse(text)
        .ok_or_else(|| bad(&format!("an id looks like 0-123, as /connections and logs show it, not {text:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_known_once_and_what_they_should_be() {
        let known = ["limit", "user", "address"];
        let params = Params::of("limit=7&user=a%20b", &known).unwrap();
        assert_eq!((params.limit().unwrap(), params.text("user")), (7, Some("a b")));
        assert_eq!(Params::of("", &known).unwrap().limit().unwrap(), LIMIT);
        for wrong in ["other=1", "limit=1&limit=2", "user=%zz"] {
            assert_eq!(Params::of(wrong, &known).err().map(|refusal| refusal.status()), Some(400), "{wrong}");
        }
        for wrong in ["limit=0", "limit=1001", "limit=many"] {
            assert!(Params::of(wrong, &known).unwrap().limit().is_err(), "{wrong}");
        }
        assert!(Params::of("address=1.2.3.4:5", &known).unwrap().address().is_err());
        assert!(id("0-1").is_ok() && id("01-1").is_err() && id("0").is_err());
    }
}
