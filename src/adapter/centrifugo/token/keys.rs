//! The keys that tokens are checked with. A key comes with the algorithms that it is for: what a token says of itself chooses
//! among these, so that a public key is never taken for a secret, and `none` for a signature.
//!
//! | key | algorithms |
//! |---|---|
//! | secret | HS256, HS384, HS512 |
//! | RSA, 2048 to 4096 bits | RS256, RS384, RS512; PS256 and so on if a JWK says so |
//! | ECDSA on P-256, P-384 | ES256, ES384 |
//! | Ed25519 | EdDSA |
//!
//! A key with a `kid` is for tokens with that `kid` alone; one without is tried with every token of its algorithms.

use super::jwks;
use super::{TokenError, fault};
use base64::engine::{Engine, general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, crypto::rust_crypto};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use spki::der::asn1::UintRef;
use spki::der::{Decode, Document, Reader, SliceReader};
use spki::{ObjectIdentifier, SubjectPublicKeyInfoRef};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::time::Duration;

/// The object identifiers of keys and curves: RFC 3279 (section 2.3.1), RFC 5480 (2.1.1), RFC 8410 (3).
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

pub(super) const HMAC_ALGORITHMS: &[Algorithm] = &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
pub(super) const RSA_ALGORITHMS: &[Algorithm] = &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512];

/// What kind of public key is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublicKey {
    /// RSA, for RS256, RS384 and RS512.
    Rsa,
    /// ECDSA on P-256 or P-384, for ES256 or ES384.
    Ecdsa,
    /// Ed25519, for EdDSA.
    Ed25519,
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rsa => "RSA",
            Self::Ecdsa => "ECDSA",
            Self::Ed25519 => "Ed25519",
        })
    }
}

/// Why a key cannot be taken, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyError(pub(super) String);

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for KeyError {}

/// A key, and which tokens it is for.
#[derive(Clone)]
pub(super) struct Key {
    kid: Option<Box<str>>,
    key: DecodingKey,
    validation: Validation,
    /// The last second in which it counts.
    until: u64,
}

impl Key {
    pub(super) fn new(key: DecodingKey, algorithms: &[Algorithm], kid: Option<&str>) -> Self {
        // The crate picks an implementation by its cargo features, and panics if some other dependency enables another
        // one too. Whoever was first with a choice keeps it.
        let _ = rust_crypto::DEFAULT_PROVIDER.install_default();
        let mut validation = Validation::new(algorithms[0]);
        validation.algorithms = algorithms.to_vec();
        // The rest is checked by `Keys::claims`: time is an argument, and Centrifugo's rules are not the crate's.
        validation.required_spec_claims.clear();
        (validation.validate_exp, validation.validate_nbf, validation.validate_aud) = (false, false, false);
        Self { kid: kid.map(Into::into), key, validation, until: u64::MAX }
    }

    fn secret(secret: &[u8]) -> Self {
        assert!(!secret.is_empty(), "an empty secret is one that everybody knows");
        Self::new(DecodingKey::from_secret(secret), HMAC_ALGORITHMS, None)
    }
}

/// What tokens are checked with, at one moment.
#[derive(Clone, Default)]
struct Set {
    /// Those that were configured.
    fixed: Arc<[Key]>,
    /// Those that were fetched.
    fetched: Arc<[Key]>,
    /// Somebody fetches.
    fetches: bool,
    /// What `aud` has to have, if configured.
    audience: Option<Box<str>>,
    /// What `iss` has to be, if configured.
    issuer: Option<Box<str>>,
    /// The claim that names the user, if it is not `sub`.
    user_claim: Option<Box<str>>,
    /// The cookie in which bare clients may bring their token.
    cookie: Option<Box<str>>,
}

#[derive(Default)]
struct Shared {
    /// Read once for each token: never for a message.
    set: RwLock<Arc<Set>>,
    /// A token named a key that is not here.
    unknown: Mutex<bool>,
    named: Condvar,
}

/// What the tokens of Centrifugo's clients, and of bare ones, are checked against: JSON Web Tokens with the claims that
/// Centrifugo documents. Cloning is cheap, and gives the same keys: what [`replace`](Self::replace) and
/// [`fetched`](Self::fetched) change in one, all have from the next token on.
///
/// ```
/// use throng::TokenKeys;
///
/// let keys = TokenKeys::new(b"secret").audience("throng");
/// let other = keys.clone();
/// keys.replace(&TokenKeys::new(b"another secret")); // `other`, too, from now on
/// # assert!(!other.is_empty());
/// ```
#[derive(Clone, Default)]
pub struct Keys(Arc<Shared>);

impl fmt::Debug for Keys {
    /// Without the keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Set { fixed, fetched, audience, issuer, .. } = &*self.current();
        let (keys, fetched) = (fixed.len(), fetched.len());
        f.debug_struct("TokenKeys")
            .field("keys", &keys)
            .field("fetched", &fetched)
            .field("audience", audience)
            .field("issuer", issuer)
            .finish_non_exhaustive()
    }
}

impl Keys {
    /// A secret (`client.token.hmac_secret_key`) for HS256, HS384 and HS512; `aud` and `iss` are not looked at.
    ///
    /// # Panics
    ///
    /// If it is empty: with no secret there are no tokens.
    pub fn new(secret: &[u8]) -> Self {
        Self::none().and(Key::secret(secret))
    }

    /// No key, and so no token that counts, unless keys are added.
    pub fn none() -> Self {
        Self::default()
    }

    /// Whether there is no key, and nobody who fetches any.
    pub fn is_empty(&self) -> bool {
        let set = self.current();
        set.fixed.is_empty() && set.fetched.is_empty() && !set.fetches
    }

    /// Also takes what this secret signed.
    ///
    /// # Panics
    ///
    /// If it is empty.
    #[must_use]
    pub fn secret(self, secret: &[u8]) -> Self {
        self.and(Key::secret(secret))
    }

    /// Also takes what the secret before signed, until a moment in seconds of Unix time (0: for ever).
    ///
    /// # Panics
    ///
    /// If it is empty.
    #[must_use]
    pub fn previous(self, secret: &[u8], until: u64) -> Self {
        self.and(Key { until: if until == 0 { u64::MAX } else { until }, ..Key::secret(secret) })
    }

    /// Also takes what the private key of this one signed: PEM, `BEGIN PUBLIC KEY` (RFC 5280), or of RSA `BEGIN RSA PUBLIC KEY`
    /// (RFC 8017).
    ///
    /// # Errors
    ///
    /// It is no such key, of another kind, or too small: RSA needs 2048 to 4096 bits.
    pub fn public_key(self, kind: PublicKey, pem: &str) -> Result<Self, KeyError> {
        let key = of_pem(kind, pem)?;
        Ok(self.and(key))
    }

    /// Also takes the keys of a set (JWKS, RFC 7517), those for signatures: public ones, and secrets (`oct`), since a file may
    /// have them.
    ///
    /// # Errors
    ///
    /// It is no set, or none of its keys can be taken; why is said of each.
    pub fn jwks(self, json: &[u8]) -> Result<Self, KeyError> {
        let keys = jwks::read(json, true)?;
        Ok(self.with(|set| set.fixed = set.fixed.iter().cloned().chain(keys).collect()))
    }

    /// Says that somebody will fetch keys ([`fetched`](Self::fetched)).
    #[must_use]
    pub fn fetching(self) -> Self {
        self.with(|set| set.fetches = true)
    }

    /// Takes only tokens for this audience.
    #[must_use]
    pub fn audience(self, audience: &str) -> Self {
        self.with(|set| set.audience = Some(audience.into()))
    }

    /// Takes only tokens of this issuer.
    #[must_use]
    pub fn issuer(self, issuer: &str) -> Self {
        self.with(|set| set.issuer = Some(issuer.into()))
    }

    /// Takes the user from this claim, not from `sub` (`client.token.user_id_claim`).
    #[must_use]
    pub fn user_claim(self, claim: &str) -> Self {
        self.with(|set| set.user_claim = Some(claim.into()).filter(|_| claim != "sub"))
    }

    /// Takes the tokens of bare clients from a cookie of this name, too ([`bearer_of`](Self::bearer_of)). Default: not.
    #[must_use]
    pub fn cookie(self, name: &str) -> Self {
        self.with(|set| set.cookie = Some(name.into()))
    }

    /// Takes the keys and rules of others instead, for all clones of these. What was fetched stays.
    pub fn replace(&self, others: &Self) {
        let others = others.current();
        self.change(|set| {
            let fetched = Arc::clone(&set.fetched);
            *set = Set { fetched, fetches: set.fetches || others.fetches, ..(*others).clone() };
        });
    }

    /// Takes these public keys (JWKS) in place of those that were fetched before, for all clones. How many there are.
    ///
    /// # Errors
    ///
    /// As [`jwks`](Self::jwks). The keys from before stay.
    pub fn fetched(&self, json: &[u8]) -> Result<usize, KeyError> {
        let keys = jwks::read(json, false)?;
        let count = keys.len();
        self.change(|set| (set.fetched, set.fetches) = (keys.into(), true));
        Ok(count)
    }

    /// Waits until a token names a key that is not here, or this time is over; whether one did.
    pub fn wait_for_unknown(&self, most: Duration) -> bool {
        let unknown = self.0.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.named.wait_timeout_while(unknown, most, |unknown| !*unknown);
        let (mut unknown, _) = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *unknown)
    }

    /// The name of the cookie, if there is one.
    pub(crate) fn cookie_name(&self) -> Option<Box<str>> {
        self.current().cookie.clone()
    }

    /// The claims of a token that is signed, meant for us, and of its time: looked at in this order, so that nobody unknown
    /// learns more.
    pub(super) fn claims(&self, token: &str, now: u64) -> Result<super::Claims, TokenError> {
        let set = self.current();
        let mut claims: super::Claims = self.decode(&set, token, now)?;
        if set.audience.as_ref().is_some_and(|audience| !claims.aud.has(audience)) {
            return Err(TokenError::Audience);
        }
        if set.issuer.as_ref().is_some_and(|issuer| claims.iss != **issuer) {
            return Err(TokenError::Issuer);
        }
        if !claims.is_of_its_time(now) {
            return Err(TokenError::Expired);
        }
        if let Some(claim) = &set.user_claim {
            claims.sub =
                text_claim(token, claim).ok_or(TokenError::Malformed("it does not name the user as configured"))?;
        }
        Ok(claims)
    }

    fn decode<C: DeserializeOwned>(&self, set: &Set, token: &str, now: u64) -> Result<C, TokenError> {
        let Header { alg, kid, crit } = header(token)?;
        if crit.is_some() {
            return Err(TokenError::Malformed(
                "its header has `crit`, of which nothing is understood (RFC 7515, section 4.1.11)",
            ));
        }
        let algorithm: Algorithm = alg.parse().map_err(|_| TokenError::Algorithm)?;
        let all = || set.fixed.iter().chain(&*set.fetched).filter(|key| now <= key.until);
        // Before the key is looked for, so that what cannot be is not fetched for.
        if !set.fetches && !all().any(|key| key.validation.algorithms.contains(&algorithm)) {
            return Err(TokenError::Algorithm);
        }
        let is_meant = |key: &&Key| key.kid.is_none() || key.kid.as_deref() == kid.as_deref();
        for key in all().filter(is_meant).filter(|key| key.validation.algorithms.contains(&algorithm)) {
            match jsonwebtoken::decode(token, &key.key, &key.validation) {
                Ok(decoded) => return Ok(decoded.claims),
                Err(error) if matches!(error.kind(), ErrorKind::InvalidSignature) => {}
                Err(error) => return Err(fault(error.kind())),
            }
        }
        if kid.is_none() || all().any(|key| key.kid.as_deref() == kid.as_deref()) {
            return Err(TokenError::Signature);
        }
        if set.fetches {
            *self.0.unknown.lock().unwrap_or_else(PoisonError::into_inner) = true;
            self.0.named.notify_all();
        }
        Err(TokenError::UnknownKey)
    }

    fn current(&self) -> Arc<Set> {
        Arc::clone(&self.0.set.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// These and no others: clones from before are not touched.
    fn with(self, change: impl FnOnce(&mut Set)) -> Self {
        let mut set = (*self.current()).clone();
        change(&mut set);
        Self(Arc::new(Shared { set: RwLock::new(Arc::new(set)), ..Shared::default() }))
    }

    fn and(self, key: Key) -> Self {
        self.with(|set| set.fixed = set.fixed.iter().cloned().chain([key]).collect())
    }

    /// All clones of these.
    fn change(&self, change: impl FnOnce(&mut Set)) {
        let mut current = self.0.set.write().unwrap_or_else(PoisonError::into_inner);
        let mut set = (**current).clone();
        change(&mut set);
        *current = Arc::new(set);
    }
}

/// What is read of a token before anything is known of it.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<serde::de::IgnoredAny>,
}

fn header(token: &str) -> Result<Header, TokenError> {
    const MALFORMED: TokenError = TokenError::Malformed("it must be three parts of base64url, the first two JSON");
    let (header, rest) = token.split_once('.').ok_or(MALFORMED)?;
    if rest.split('.').count() != 2 {
        return Err(MALFORMED);
    }
    let json = URL_SAFE_NO_PAD.decode(header).map_err(|_| MALFORMED)?;
    serde_json::from_slice(&json).map_err(|error| match error.is_data() {
        true => TokenError::Malformed("its header has no `alg` that is text, or a `kid` that is none"),
        false => MALFORMED,
    })
}

/// A claim of a token that was found to be signed, if it is text.
fn text_claim(token: &str, name: &str) -> Option<String> {
    let json = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&json).ok()?;
    claims.get(name)?.as_str().map(ToOwned::to_owned)
}

fn of_pem(kind: PublicKey, pem: &str) -> Result<Key, KeyError> {
    let fail =
        |why: &str| Err(KeyError(format!("{why}: give an {kind} public key in PEM, -----BEGIN PUBLIC KEY-----")));
    let Ok((label, document)) = Document::from_pem(pem.trim()) else { return fail("this is no PEM") };
    let der = document.as_bytes();
    if label == "RSA PUBLIC KEY" && kind == PublicKey::Rsa {
        return rsa_of_der(der).map(|key| Key::new(key, RSA_ALGORITHMS, None));
    }
    if label.contains("PRIVATE") {
        return fail("this is a private key, which only who signs tokens may have");
    }
    let Ok(info) = SubjectPublicKeyInfoRef::try_from(der) else { return fail("this is no public key") };
    let bits = info.subject_public_key.raw_bytes();
    let curve = info.algorithm.parameters_oid().ok();
    let (own, made) = match (info.algorithm.oid, curve) {
        (RSA, _) => (PublicKey::Rsa, rsa_of_der(bits).map(|key| Key::new(key, RSA_ALGORITHMS, None))),
        (EC, Some(P256)) => (PublicKey::Ecdsa, ec(bits, Algorithm::ES256, None)),
        (EC, Some(P384)) => (PublicKey::Ecdsa, ec(bits, Algorithm::ES384, None)),
        (EC, _) => return fail("this curve is not taken, but P-256 and P-384"),
        (ED25519, _) => (PublicKey::Ed25519, ed25519(bits, None)),
        _ => return fail("this is a key of another kind"),
    };
    if own == kind { made } else { fail(&format!("this is an {own} key")) }
}

/// RSAPublicKey (RFC 8017, appendix A.1.1).
fn rsa_of_der(der: &[u8]) -> Result<DecodingKey, KeyError> {
    let malformed = |_| KeyError("the RSA key is malformed".to_owned());
    let mut reader = SliceReader::new(der).map_err(malformed)?;
    let (n, e) =
        reader.sequence(|reader| Ok((UintRef::decode(reader)?, UintRef::decode(reader)?))).map_err(malformed)?;
    rsa(n.as_bytes(), e.as_bytes())
}

/// A key of at least 2048 bits (RFC 7518, section 3.3), and at most 4096, which what verifies takes.
pub(super) fn rsa(n: &[u8], e: &[u8]) -> Result<DecodingKey, KeyError> {
    let n = &n[n.iter().take_while(|&&byte| byte == 0).count()..];
    let bits = n.len() * 8 - n.first().map_or(0, |first| first.leading_zeros() as usize);
    if !(2048..=4096).contains(&bits) {
        return Err(KeyError(format!("an RSA key of {bits} bits is not taken: use 2048 to 4096")));
    }
    Ok(DecodingKey::from_rsa_raw_components(n, e))
}

/// A point as SEC 1 writes it (section 2.3.3), not compressed.
pub(super) fn ec(point: &[u8], algorithm: Algorithm, kid: Option<&str>) -> Result<Key, KeyError> {
    let key = Key::new(DecodingKey::from_ec_der(point), &[algorithm], kid);
    is_usable(&key, algorithm)
        .then_some(key)
        .ok_or_else(|| KeyError("the ECDSA key is no point of its curve".to_owned()))
}

pub(super) fn ed25519(point: &[u8], kid: Option<&str>) -> Result<Key, KeyError> {
    let key = Key::new(DecodingKey::from_ed_der(point), &[Algorithm::EdDSA], kid);
    // What verifies takes the first 32 bytes of them unseen.
    let usable = point.len() == 32 && is_usable(&key, Algorithm::EdDSA);
    usable.then_some(key).ok_or_else(|| KeyError("the Ed25519 key is no point of its curve".to_owned()))
}

/// Whether what verifies would take it: it says so before it looks at a signature.
fn is_usable(key: &Key, algorithm: Algorithm) -> bool {
    (rust_crypto::DEFAULT_PROVIDER.verifier_factory)(&algorithm, &key.key).is_ok()
}
