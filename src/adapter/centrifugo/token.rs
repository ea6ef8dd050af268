//! Connection and subscription tokens: JSON Web Tokens (RFC 7519) with Centrifugo's claims, signed with HMAC SHA-256.

use super::field::Field;
use base64::engine::{Engine, general_purpose::STANDARD};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, crypto::rust_crypto, errors::ErrorKind};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;

/// All that is ever accepted, whatever a token's header says.
const ALGORITHM: Algorithm = Algorithm::HS256;

/// What the tokens of Centrifugo's clients are checked against: JSON Web Tokens with the claims that Centrifugo documents,
/// signed with HMAC SHA-256.
#[derive(Clone, Debug)]
pub struct Keys {
    secret: DecodingKey,
    /// The secret before, and until when it counts (seconds of Unix time).
    previous: Option<(DecodingKey, u64)>,
    /// What `aud` has to have, if configured.
    audience: Option<String>,
    /// What `iss` has to be, if configured.
    issuer: Option<String>,
    validation: Validation,
}

impl Keys {
    /// A secret (`client.token.hmac_secret_key`), with which `aud` and `iss` are not looked at.
    ///
    /// # Panics
    ///
    /// If it is empty: with no secret there are no tokens.
    pub fn new(secret: &[u8]) -> Self {
        assert!(!secret.is_empty(), "an empty secret is one that everybody knows");
        // The crate picks an implementation by its cargo features, and panics if some other dependency enables another
        // one too. Whoever was first with a choice keeps it.
        let _ = rust_crypto::DEFAULT_PROVIDER.install_default();
        let mut validation = Validation::new(ALGORITHM);
        // The rest is checked below: time is an argument, and Centrifugo's rules are not the crate's.
        validation.required_spec_claims.clear();
        (validation.validate_exp, validation.validate_nbf, validation.validate_aud) = (false, false, false);
        Self { secret: DecodingKey::from_secret(secret), previous: None, audience: None, issuer: None, validation }
    }

    /// Also takes what the secret before signed, until a moment in seconds of Unix time (0: for ever).
    ///
    /// # Panics
    ///
    /// If it is empty.
    #[must_use]
    pub fn previous(mut self, secret: &[u8], until: u64) -> Self {
        assert!(!secret.is_empty(), "an empty secret is one that everybody knows");
        self.previous = Some((DecodingKey::from_secret(secret), if until == 0 { u64::MAX } else { until }));
        self
    }

    /// Takes only tokens for this audience.
    #[must_use]
    pub fn audience(mut self, audience: &str) -> Self {
        self.audience = Some(audience.to_owned());
        self
    }

    /// Takes only tokens of this issuer.
    #[must_use]
    pub fn issuer(mut self, issuer: &str) -> Self {
        self.issuer = Some(issuer.to_owned());
        self
    }
}

/// Who connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionToken {
    /// Empty for an anonymous one.
    pub(crate) user: String,
    /// When the connection expires, in seconds of Unix time.
    pub(crate) expire_at: Option<u64>,
    /// What other clients see of it: JSON, or the bytes of a `b64info`. Empty if there is none.
    pub(crate) info: Vec<u8>,
    /// What only the server sees of it: JSON. Empty if there is none.
    pub(crate) meta: Vec<u8>,
    /// The channels to subscribe it to.
    pub(crate) subs: BTreeMap<String, SubscribeOptions>,
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
    /// Signed with another key, another algorithm, or not at all.
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
            Self::Signature => f.write_str("the token is not signed with HS256 and the configured secret"),
            Self::Audience => f.write_str("the token is for another audience (aud)"),
            Self::Issuer => f.write_str("the token is from another issuer (iss)"),
        }
    }
}

impl std::error::Error for TokenError {}

/// Checks a connection token at `now`, in seconds of Unix time.
pub(crate) fn verify_connection(token: &str, keys: &Keys, now: u64) -> Result<ConnectionToken, TokenError> {
    let claims = verify(token, keys, now)?;
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
    Ok(ConnectionToken { user: claims.sub, expire_at, info, meta: claims.meta, subs })
}

/// Checks a subscription token at `now`, in seconds of Unix time. Whether it is for this user, channel and client is the
/// caller's to say.
pub(crate) fn verify_subscription(token: &str, keys: &Keys, now: u64) -> Result<SubscriptionToken, TokenError> {
    let claims = verify(token, keys, now)?;
    if claims.channel.is_empty() {
        return Err(TokenError::Malformed("it has no channel, which those for subscriptions need"));
    }
    let expire_at = claims.expire_at();
    let Claims { sub: user, channel, client, info, b64info, data, b64data, r#override, .. } = claims;
    let options = OptionClaims { info, b64info, data, b64data, r#override }.try_into()?;
    Ok(SubscriptionToken { user, channel, client, expire_at, options })
}

/// The claims of a token that is signed, meant for us, and of its time: looked at in this order, so that nobody
/// unknown learns more.
fn verify(token: &str, keys: &Keys, now: u64) -> Result<Claims, TokenError> {
    let decode = |key| jsonwebtoken::decode::<Claims>(token, key, &keys.validation);
    let mut decoded = decode(&keys.secret);
    if let (Err(error), Some((previous, until))) = (&decoded, &keys.previous)
        && matches!(error.kind(), ErrorKind::InvalidSignature)
        && now <= *until
    {
        decoded = decode(previous);
    }
    let claims = decoded.map_err(|error| fault(error.kind()))?.claims;
    if keys.audience.as_ref().is_some_and(|audience| !claims.aud.has(audience)) {
        return Err(TokenError::Audience);
    }
    if keys.issuer.as_ref().is_some_and(|issuer| claims.iss != *issuer) {
        return Err(TokenError::Issuer);
    }
    // RFC 7519, sections 4.1.4 and 4.1.5: `exp` is the first moment too late, `nbf` the first in time.
    let now = now as f64;
    if claims.exp.is_some_and(|exp| exp <= now) || claims.nbf.is_some_and(|nbf| nbf > now) {
        return Err(TokenError::Expired);
    }
    Ok(claims)
}

fn fault(kind: &ErrorKind) -> TokenError {
    match kind {
        ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => {
            TokenError::Signature
        }
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
mod tests {
    use super::*;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use jsonwebtoken::{EncodingKey, Header};
    use serde_json::{Value, json};

    const NOW: u64 = 1_700_000_000;

    fn keys() -> Keys {
        Keys::new(b"secret")
    }

    fn signed_by(secret: &str, algorithm: Algorithm, claims: &Value) -> String {
        keys(); // chooses the implementation
        jsonwebtoken::encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
    }

    fn signed(claims: &Value) -> String {
        signed_by("secret", Algorithm::HS256, claims)
    }

    fn connection(claims: &Value) -> Result<ConnectionToken, TokenError> {
        verify_connection(&signed(claims), &keys(), NOW)
    }

    fn subscription(claims: &Value) -> Result<SubscriptionToken, TokenError> {
        verify_subscription(&signed(claims), &keys(), NOW)
    }

    #[test]
    fn the_example_of_rfc_7515_verifies_while_it_lasts() {
        let key = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
        let token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9\
                     leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let keys = Keys::new(&URL_SAFE_NO_PAD.decode(key).unwrap());
        let at = |now| verify_connection(token, &keys, now);
        let (user, info, meta, subs) = Default::default();
        let expected = ConnectionToken { user, expire_at: Some(1_300_819_380), info, meta, subs };
        assert_eq!(at(1_300_819_379), Ok(expected));
        assert_eq!(at(1_300_819_380), Err(TokenError::Expired));
        let changed = token.replacen(".eyJpc3Mi", ".eyJpc3Mj", 1);
        assert_eq!(verify_connection(&changed, &keys, 0), Err(TokenError::Signature));
    }

    #[test]
    fn a_connection_token_says_who_connects() {
        let token = connection(&json!({
            "sub": "42", "exp": NOW + 60, "iat": NOW, "jti": "x", "info": {"name": "A b"}, "meta": {"k": [1]},
            "subs": {
                "news": {"info": 1, "data": {"hi": "x"}, "override": {"presence": {"value": false}, "force_recovery": {"value": true}}},
                "bin": {"b64info": "/w==", "b64data": "AAE="}
            },
            "channels": ["not", "these"], "something": null
        }))
        .unwrap();
        assert_eq!((token.user.as_str(), token.expire_at), ("42", Some(NOW + 60)));
        assert_eq!((&token.info[..], &token.meta[..]), (&br#"{"name":"A b"}"#[..], &br#"{"k":[1]}"#[..]));
        let overrides = Overrides { presence: Some(false), force_recovery: Some(true), ..Default::default() };
        let news = SubscribeOptions { info: b"1".to_vec(), data: br#"{"hi":"x"}"#.to_vec(), overrides };
        let bin = SubscribeOptions { info: vec![0xFF], data: vec![0, 1], overrides: Overrides::default() };
        assert_eq!(token.subs, BTreeMap::from([("news".to_owned(), news), ("bin".to_owned(), bin)]));
    }

    #[test]
    fn channels_are_subscriptions_without_options() {
        let token = connection(&json!({"channels": ["a", "b"]})).unwrap();
        assert_eq!(
            token.subs.into_iter().collect::<Vec<_>>(),
            ["a", "b"].map(|name| (name.to_owned(), Default::default()))
        );
        assert_eq!((token.user, token.expire_at), (String::new(), None));
    }

    #[test]
    fn a_subscription_token_says_to_what() {
        let token = subscription(&json!({
            "sub": "42", "channel": "$gossips", "client": "c", "exp": NOW + 1, "b64info": "AQ==", "data": null,
            "override": {"join_leave": {"value": true}, "force_positioning": {}, "force_push_join_leave": null}
        }))
        .unwrap();
        let overrides = Overrides { join_leave: Some(true), force_positioning: Some(false), ..Default::default() };
        let options = SubscribeOptions { info: vec![1], data: b"null".to_vec(), overrides };
        let (user, channel, client) = ("42".to_owned(), "$gossips".to_owned(), "c".to_owned());
        assert_eq!(token, SubscriptionToken { user, channel, client, expire_at: Some(NOW + 1), options });
    }

    #[test]
    fn one_kind_of_token_is_not_the_other() {
        assert!(matches!(connection(&json!({"sub": "42", "channel": "a"})), Err(TokenError::Malformed(_))));
        assert!(matches!(subscription(&json!({"sub": "42"})), Err(TokenError::Malformed(_))));
    }

    #[test]
    fn expire_at_parts_the_connection_from_its_token() {
        let expire_at = |claims: &Value| connection(claims).unwrap().expire_at;
        assert_eq!(expire_at(&json!({"exp": NOW + 9, "expire_at": NOW + 99})), Some(NOW + 99));
        assert_eq!(expire_at(&json!({"exp": NOW + 9, "expire_at": 0})), None);
        assert_eq!(expire_at(&json!({"exp": NOW as f64 + 9.5})), Some(NOW + 9));
        assert_eq!(expire_at(&json!({"expire_at": NOW - 9})), Some(NOW - 9), "the caller sees that it is over");
        assert_eq!(connection(&json!({"exp": NOW, "expire_at": 0})), Err(TokenError::Expired));
    }

    #[test]
    fn a_token_counts_in_its_time_only() {
        assert_eq!(connection(&json!({"exp": NOW})), Err(TokenError::Expired));
        assert_eq!(connection(&json!({"exp": 0})), Err(TokenError::Expired));
        assert_eq!(connection(&json!({"nbf": NOW + 1})), Err(TokenError::Expired));
        assert!(connection(&json!({"exp": NOW + 1, "nbf": NOW})).is_ok());
        assert_eq!(subscription(&json!({"channel": "a", "exp": NOW})), Err(TokenError::Expired));
    }

    #[test]
    fn only_the_configured_algorithm_and_secret_count() {
        let claims = json!({"sub": "42"});
        for (secret, algorithm) in
            [("other", Algorithm::HS256), ("secret", Algorithm::HS384), ("secret", Algorithm::HS512)]
        {
            let token = signed_by(secret, algorithm, &claims);
            assert_eq!(verify_connection(&token, &keys(), NOW), Err(TokenError::Signature), "{secret} {algorithm:?}");
        }
        let payload = URL_SAFE_NO_PAD.encode(claims.to_string());
        for header in [r#"{"alg":"none"}"#, r#"{"alg":"None","typ":"JWT"}"#, r#"{"alg":"RS256"}"#, "{}"] {
            let header = URL_SAFE_NO_PAD.encode(header);
            assert!(verify_connection(&format!("{header}.{payload}."), &keys(), NOW).is_err(), "{header}");
        }
    }

    #[test]
    fn the_secret_before_counts_for_a_while() {
        let keys = |until| Keys::new(b"new").previous(b"secret", until);
        let token = signed(&json!({"sub": "42"}));
        assert!(verify_connection(&token, &keys(NOW), NOW).is_ok());
        assert_eq!(verify_connection(&token, &keys(NOW), NOW + 1), Err(TokenError::Signature));
        assert!(verify_connection(&token, &keys(0), u64::MAX).is_ok());
        let token = signed_by("new", Algorithm::HS256, &json!({"sub": "42"}));
        assert!(verify_connection(&token, &keys(1), NOW).is_ok());
    }

    #[test]
    fn audience_and_issuer_count_once_they_are_configured() {
        let verify =
            |keys: &Keys, claims: &Value| verify_connection(&signed(claims), keys, NOW).map(|token| token.user);
        assert!(verify(&keys(), &json!({"aud": ["x"], "iss": "y"})).is_ok());
        let for_us = keys().audience("throng");
        assert!(verify(&for_us, &json!({"aud": "throng"})).is_ok());
        assert!(verify(&for_us, &json!({"aud": ["x", "throng"]})).is_ok());
        for other in [json!({}), json!({"aud": "x"}), json!({"aud": []}), json!({"aud": null})] {
            assert_eq!(verify(&for_us, &other), Err(TokenError::Audience));
        }
        let from_him = keys().issuer("joe");
        assert!(verify(&from_him, &json!({"iss": "joe"})).is_ok());
        assert_eq!(verify(&from_him, &json!({"iss": "moe"})), Err(TokenError::Issuer));
        assert_eq!(verify(&from_him, &json!({"exp": 1})), Err(TokenError::Issuer), "said before the time is");
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for token in ["", ".", "..", "...", "a.b.c", "e30.e30.e30", "e30.e30", "\u{e9}.\u{e9}.\u{e9}"] {
            assert!(matches!(verify_connection(token, &keys(), NOW), Err(TokenError::Malformed(_))), "{token}");
        }
        let claims = [
            json!({"sub": 42}),
            json!({"exp": "soon"}),
            json!({"subs": []}),
            json!({"channels": "a"}),
            json!({"b64info": "?"}),
            json!({"b64info": "/w"}),
            json!({"subs": {"a": {"override": {"presence": true}}}}),
            json!([]),
        ];
        for claims in claims {
            assert!(matches!(connection(&claims), Err(TokenError::Malformed(_))), "{claims}");
        }
        let token = signed(&json!({"sub": "42", "exp": NOW + 1}));
        (0..token.len()).for_each(|end| assert!(verify_connection(&token[..end], &keys(), NOW).is_err(), "{end}"));
    }
}
