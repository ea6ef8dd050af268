//! Sets of keys (JWKS, RFC 7517), as identity providers publish them: they hold keys for other things, too, which are passed
//! over, and so is what cannot be read.

use super::keys::{self, HMAC_ALGORITHMS, Key, KeyError, RSA_ALGORITHMS};
use crate::limits::TOKEN_KEYS_MAX;
use base64::engine::{Engine, general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

/// The keys for signatures; secrets only where they may be.
pub(super) fn read(json: &[u8], may_be_secret: bool) -> Result<Vec<Key>, KeyError> {
    let set: Set = serde_json::from_slice(json)
        .map_err(|error| KeyError(format!("a JWKS is a JSON object with a list of `keys`: {error}")))?;
    if set.keys.len() > TOKEN_KEYS_MAX {
        return Err(KeyError(format!("a JWKS with more than {TOKEN_KEYS_MAX} keys is not taken")));
    }
    let (mut keys, mut reasons) = (Vec::new(), Vec::new());
    for (number, jwk) in set.keys.into_iter().enumerate() {
        match key(jwk, may_be_secret) {
            Ok(key) => keys.push(key),
            Err(KeyError(reason)) => reasons.push(format!("key {number}: {reason}")),
        }
    }
    if keys.is_empty() {
        let reasons = if reasons.is_empty() { "it is empty".to_owned() } else { reasons.join("; ") };
        return Err(KeyError(format!("the JWKS has no key for signatures: {reasons}")));
    }
    for reason in reasons {
        log::debug!("passed over in a JWKS: {reason}");
    }
    Ok(keys)
}

fn key(jwk: Value, may_be_secret: bool) -> Result<Key, KeyError> {
    let fail = |why: &str| Err(KeyError(why.to_owned()));
    // What serde says of it may quote the key.
    let Ok(jwk) = serde_json::from_value::<Jwk>(jwk) else {
        return fail("it is of a kind that is not known, or malformed");
    };
    let common = &jwk.common;
    let is_for_signatures = common.public_key_use.as_ref().is_none_or(|used| *used == PublicKeyUse::Signature)
        && common.key_operations.as_ref().is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    if !is_for_signatures {
        return fail("it is not for signatures (`use`, `key_ops`)");
    }
    let said = match common.key_algorithm {
        Some(said) => match Algorithm::try_from(said) {
            Ok(algorithm) => Some(algorithm),
            Err(_) => return fail("its `alg` is none that is taken"),
        },
        None => None,
    };
    let kid = common.key_id.as_deref();
    let bytes = |text: &str| {
        URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| KeyError("it is not base64url".to_owned()))
    };
    let algorithms = |family: AlgorithmFamily, all: &[Algorithm]| match said {
        Some(algorithm) if algorithm.family() == family => Ok(vec![algorithm]),
        Some(_) => Err(KeyError("its `alg` is not one of its `kty`".to_owned())),
        None => Ok(all.to_vec()),
    };
    match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) => {
            let key = keys::rsa(&bytes(&rsa.n)?, &bytes(&rsa.e)?)?;
            Ok(Key::new(key, &algorithms(AlgorithmFamily::Rsa, RSA_ALGORITHMS)?, kid))
        }
        AlgorithmParameters::EllipticCurve(ec) => {
            let (algorithm, length) = match ec.curve {
                EllipticCurve::P256 => (Algorithm::ES256, 32),
                EllipticCurve::P384 => (Algorithm::ES384, 48),
                _ => return fail("its curve is not taken, but P-256 and P-384"),
            };
            let (x, y) = (bytes(&ec.x)?, bytes(&ec.y)?);
            if said.is_some_and(|said| said != algorithm) || x.len() != length || y.len() != length {
                return fail("its `alg`, `x` or `y` is not one of its curve");
            }
            keys::ec(&[&[4], &*x, &*y].concat(), algorithm, kid)
        }
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
            algorithms(AlgorithmFamily::Ed, &[Algorithm::EdDSA])?;
            keys::ed25519(&bytes(&pair.x)?, kid)
        }
        AlgorithmParameters::OctetKey(_) if !may_be_secret => fail("a secret that is fetched is none"),
        AlgorithmParameters::OctetKey(secret) => {
            let secret = bytes(&secret.value)?;
            if secret.is_empty() {
                return fail("the secret is empty");
            }
            let algorithms = algorithms(AlgorithmFamily::Hmac, HMAC_ALGORITHMS)?;
            Ok(Key::new(DecodingKey::from_secret(&secret), &algorithms, kid))
        }
        _ => fail("its curve is not taken, but Ed25519"),
    }
}
