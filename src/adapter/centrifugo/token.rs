//! Connection and subscription tokens: JSON Web Tokens (RFC 7519) with Centrifugo's claims, signed with one of [`Keys`].

use super::field::Field;
use base64::engine::{Engine, general_purpose::STANDARD};
use jsonwebtoken::errors::ErrorKind;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;

mod caps;
mod jwks;
mod keys;

pub(crate) use caps::{Allowed, Caps};
pub use keys::{KeyError, Keys, PublicKey};

/// Who connects.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionToken {
    /// Empty for an anonymous one.
    pub(crate) user: String,
    /// When the connection expires, in seconds of Unix time.
    pub(crate) expire_at: Option<u64>,
    /// What other clients see of it: JSON, or the bytes of a `b64info`. Empty if there is none.
    pub(crate) info: Vec<u8>,
    /// What only the server sees of it: JSON. Empty if there is none.
    #[cfg_attr(not(test), expect(dead_code, reason = "for whoever will look at it"))]
    pub(crate) meta: Vec<u8>,
    /// The channels to subscribe it to.
    pub(crate) subs: BTreeMap<String, SubscribeOptions>,
    /// What it may do beyond the rules of channels.
    pub(crate) caps: Caps,
}

/// Who may subscribe to what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SubscriptionToken {
    /// Has to be the connection's.
    pub(crate) user: String,
    /// Has to be the command's.
    pub(crate) channel: String,
    /// Unless it is empty, has to be the connection's id.
    pub(crate) client: String,
    /// When the subscription expires, in seconds of Unix time.
    pub(crate) expire_at: Option<u64>,
    pub(crate) options: SubscribeOptions,
    /// What it may do there beyond the channel's rules.
    pub(crate) allow: Allowed,
}

/// What a token says of one subscription.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SubscribeOptions {
    /// What the channel's other clients see: JSON, or the bytes of a `b64info`.
    pub(crate) info: Vec<u8>,
    /// What the client gets with its subscription: JSON, or the bytes of a `b64data`.
    pub(crate) data: Vec<u8>,
    /// Instead of the channel's own.
    pub(crate) overrides: Overrides,
}

/// Channel options for one subscriber; none leaves the channel's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "OverrideClaims")]
pub(crate) struct Overrides {
    pub(crate) presence: Option<bool>,
    pub(crate) join_leave: Option<bool>,
    pub(crate) force_push_join_leave: Option<bool>,
    pub(crate) force_recovery: Option<bool>,
    pub(crate) force_positioning: Option<bool>,
}

/// Why a token does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TokenError {
    /// Over, or not begun. On connect and subscribe this is error 109, and the client gets itself another token; never in
    /// reply to a refresh, where clients take an error that is not temporary for the end.
    Expired,
    /// Not three parts of base64url, or a claim has another type or lacks.
    Malformed(&'static str),
    /// Signed with another algorithm than those of the keys, or not at all (`none`).
    Algorithm,
    /// Signed with a key that is not here.
    UnknownKey,
    /// Signed with another key.
    Signature,
    /// For somebody else.
    Audience,
    /// From somebody else.
    Issuer,
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired => f.write_str("the token's time is over, or has not come (exp, nbf)"),
            Self::Malformed(what) => write!(f, "not a token: {what}"),
            Self::Algorithm => {
                f.write_str("the token is signed with an algorithm (alg) for which no key is configured, or not at all")
            }
            Self::UnknownKey => f.write_str("the token is signed with a key (kid) that is not known here (yet)"),
            Self::Signature => f.write_str("the token is not signed with a key that is configured"),
            Self::Audience => f.write_str("the token is for another audience (aud)"),
            Self::Issuer => f.write_str("the token is from another issuer (iss)"),
        }
    }
}

impl std::error::Error for TokenError {}

/// Checks a connection token at `now`, in seconds of Unix time.
pub(crate) fn verify_connection(token: &str, keys: &Keys, now: u64) -> Result<ConnectionToken, TokenError> {
    let claims = keys.claims(token, now)?;
    if !claims.channel.is_empty() {
        return Err(TokenError::Malformed("it has a channel, as those for subscriptions do"));
    }
    let expire_at = claims.expire_at();
    let mut subs = BTreeMap::new();
    for (channel, options) in claims.subs.unwrap_or_default() {
        subs.insert(channel, options.try_into()?);
    }
    if subs.is_empty() {
        let channels = claims.channels.unwrap_or_default();
        subs.extend(channels.into_iter().map(|channel| (channel, SubscribeOptions::default())));
    }
    let info = bytes(claims.info, &claims.b64info)?;
    let caps = Caps::new(&claims.caps.unwrap_or_default())?;
    Ok(ConnectionToken { user: claims.sub, expire_at, info, meta: claims.meta, subs, caps })
}

/// Checks a subscription token at `now`, in seconds of Unix time. Whether it is for this user, channel and client is the
/// caller's to say.
pub(crate) fn verify_subscription(token: &str, keys: &Keys, now: u64) -> Result<SubscriptionToken, TokenError> {
    let claims = keys.claims(token, now)?;
    if claims.channel.is_empty() {
        return Err(TokenError::Malformed("it has no channel, which those for subscriptions need"));
    }
    let expire_at = claims.expire_at();
    let Claims { sub: user, channel, client, info, b64info, data, b64data, r#override, allow, .. } = claims;
    let options = OptionClaims { info, b64info, data, b64data, r#override }.try_into()?;
    let allow = Allowed::new(&allow.unwrap_or_default())?;
    Ok(SubscriptionToken { user, channel, client, expire_at, options, allow })
}

fn fault(kind: &ErrorKind) -> TokenError {
    match kind {
        ErrorKind::InvalidSignature => TokenError::Signature,
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => TokenError::Algorithm,
        ErrorKind::Json(error) if error.is_data() => TokenError::Malformed("a claim, or `alg`, is not what it may be"),
        _ => TokenError::Malformed("it must be three parts of base64url, the first two JSON"),
    }
}

/// The claims of both kinds. `iat` and `jti` are not looked at.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Claims {
    #[serde(deserialize_with = "Field::read")]
    sub: String,
    /// RFC 7519, section 2: a NumericDate may have a fraction.
    exp: Option<f64>,
    nbf: Option<f64>,
    aud: Audience,
    #[serde(deserialize_with = "Field::read")]
    iss: String,
    expire_at: Option<i64>,
    #[serde(deserialize_with = "Field::read")]
    meta: Vec<u8>,
    channels: Option<Vec<String>>,
    subs: Option<BTreeMap<String, OptionClaims>>,
    #[serde(deserialize_with = "Field::read")]
    channel: String,
    #[serde(deserialize_with = "Field::read")]
    client: String,
    caps: Option<Vec<caps::CapClaim>>,
    allow: Option<Vec<String>>,
    // Those of `OptionClaims`, for the connection, or for the one subscription. Flattened, they would be parsed.
    #[serde(deserialize_with = "Field::read")]
    info: Vec<u8>,
    #[serde(deserialize_with = "Field::read")]
    b64info: String,
    #[serde(deserialize_with = "Field::read")]
    data: Vec<u8>,
    #[serde(deserialize_with = "Field::read")]
    b64data: String,
    r#override: Option<Overrides>,
}

impl Claims {
    /// `expire_at` parts the end of what the token began from the token's own: 0 is never.
    fn expire_at(&self) -> Option<u64> {
        match self.expire_at {
            Some(at) => u64::try_from(at).ok().filter(|&at| at > 0),
            None => self.exp.map(|exp| exp as u64),
        }
    }

    /// RFC 7519, sections 4.1.4 and 4.1.5: `exp` is the first moment too late, `nbf` the first in time.
    fn is_of_its_time(&self, now: u64) -> bool {
        let now = now as f64;
        self.exp.is_none_or(|exp| exp > now) && self.nbf.is_none_or(|nbf| nbf <= now)
    }
}

/// What `subs` has for each channel.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct OptionClaims {
    #[serde(deserialize_with = "Field::read")]
    info: Vec<u8>,
    #[serde(deserialize_with = "Field::read")]
    b64info: String,
    #[serde(deserialize_with = "Field::read")]
    data: Vec<u8>,
    #[serde(deserialize_with = "Field::read")]
    b64data: String,
    r#override: Option<Overrides>,
}

impl TryFrom<OptionClaims> for SubscribeOptions {
    type Error = TokenError;

    fn try_from(claims: OptionClaims) -> Result<Self, TokenError> {
        let info = bytes(claims.info, &claims.b64info)?;
        let data = bytes(claims.data, &claims.b64data)?;
        Ok(Self { info, data, overrides: claims.r#override.unwrap_or_default() })
    }
}

/// Bytes in base64, if there are any, go before JSON.
fn bytes(json: Vec<u8>, base64: &str) -> Result<Vec<u8>, TokenError> {
    match base64 {
        "" => Ok(json),
        _ => STANDARD.decode(base64).map_err(|_| TokenError::Malformed("b64info or b64data is not base64")),
    }
}

/// `override`: each is an object, `{"value":true}`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct OverrideClaims {
    presence: Option<Flag>,
    join_leave: Option<Flag>,
    force_push_join_leave: Option<Flag>,
    force_recovery: Option<Flag>,
    force_positioning: Option<Flag>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Flag {
    value: bool,
}

impl From<OverrideClaims> for Overrides {
    fn from(claims: OverrideClaims) -> Self {
        let value = |flag: Option<Flag>| flag.map(|flag| flag.value);
        Self {
            presence: value(claims.presence),
            join_leave: value(claims.join_leave),
            force_push_join_leave: value(claims.force_push_join_leave),
            force_recovery: value(claims.force_recovery),
            force_positioning: value(claims.force_positioning),
        }
    }
}

/// One audience, or several (RFC 7519, section 4.1.3).
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
    None(()),
}

impl Default for Audience {
    fn default() -> Self {
        Self::None(())
    }
}

impl Audience {
    fn has(&self, audience: &str) -> bool {
        match self {
            Self::One(one) => one == audience,
            Self::Several(several) => several.iter().any(|one| one == audience),
            Self::None(()) => false,
        }
    }
}

#[cfg(test)]
mod tests;
