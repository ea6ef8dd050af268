//! What of a token is believed, and which key it takes for that.

use super::*;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use spki::der::Document;
use std::time::Duration;

const NOW: u64 = 1_700_000_000;

fn keys() -> Keys {
    Keys::new(b"secret")
}

fn signed_with(key: &EncodingKey, header: &Header, claims: &Value) -> String {
    keys(); // chooses the implementation
    jsonwebtoken::encode(header, claims, key).unwrap()
}

fn signed_by(secret: &str, algorithm: Algorithm, claims: &Value) -> String {
    signed_with(&EncodingKey::from_secret(secret.as_bytes()), &Header::new(algorithm), claims)
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
    let claims = at(1_300_819_379).unwrap();
    assert_eq!((claims.user.as_str(), claims.expire_at, claims.subs.len()), ("", Some(1_300_819_380), 0));
    assert_eq!(at(1_300_819_380).unwrap_err(), TokenError::Expired);
    let changed = token.replacen(".eyJpc3Mi", ".eyJpc3Mj", 1);
    assert_eq!(verify_connection(&changed, &keys, 0).unwrap_err(), TokenError::Signature);
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
    let allow = Allowed::default();
    assert_eq!(token, SubscriptionToken { user, channel, client, expire_at: Some(NOW + 1), options, allow });
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
    assert_eq!(connection(&json!({"exp": NOW, "expire_at": 0})).unwrap_err(), TokenError::Expired);
}

#[test]
fn a_token_counts_in_its_time_only() {
    assert_eq!(connection(&json!({"exp": NOW})).unwrap_err(), TokenError::Expired);
    assert_eq!(connection(&json!({"exp": 0})).unwrap_err(), TokenError::Expired);
    assert_eq!(connection(&json!({"nbf": NOW + 1})).unwrap_err(), TokenError::Expired);
    assert!(connection(&json!({"exp": NOW + 1, "nbf": NOW})).is_ok());
    assert_eq!(subscription(&json!({"channel": "a", "exp": NOW})), Err(TokenError::Expired));
}

/// A private key in PEM, and its public one.
const RSA: [&str; 2] =
    [include_str!("../../../../tests/keys/rsa.pem"), include_str!("../../../../tests/keys/rsa.pub.pem")];
const P256: [&str; 2] =
    [include_str!("../../../../tests/keys/p256.pem"), include_str!("../../../../tests/keys/p256.pub.pem")];
const P384: [&str; 2] =
    [include_str!("../../../../tests/keys/p384.pem"), include_str!("../../../../tests/keys/p384.pub.pem")];
const ED25519: [&str; 2] =
    [include_str!("../../../../tests/keys/ed25519.pem"), include_str!("../../../../tests/keys/ed25519.pub.pem")];

/// Signs with a private key.
fn signed_privately(algorithm: Algorithm, kid: Option<&str>, claims: &Value) -> String {
    use Algorithm::*;
    let der = |pem: &str| Document::from_pem(pem).unwrap().1.into_vec();
    let key = match algorithm {
        ES256 => EncodingKey::from_ec_der(&der(P256[0])),
        ES384 => EncodingKey::from_ec_der(&der(P384[0])),
        EdDSA => EncodingKey::from_ed_der(&der(ED25519[0])),
        HS256 | HS384 | HS512 => EncodingKey::from_secret(b"secret"),
        _ => EncodingKey::from_rsa_der(&der(RSA[0])),
    };
    signed_with(&key, &Header { kid: kid.map(ToOwned::to_owned), ..Header::new(algorithm) }, claims)
}

fn public(kind: PublicKey, pem: &str) -> Keys {
    Keys::none().public_key(kind, pem).unwrap()
}

#[test]
fn each_key_takes_its_own_algorithms_and_no_others() {
    use Algorithm::*;
    let all = [
        (keys(), &[HS256, HS384, HS512][..]),
        (public(PublicKey::Rsa, RSA[1]), &[RS256, RS384, RS512]),
        (public(PublicKey::Ecdsa, P256[1]), &[ES256]),
        (public(PublicKey::Ecdsa, P384[1]), &[ES384]),
        (public(PublicKey::Ed25519, ED25519[1]), &[EdDSA]),
    ];
    let claims = json!({"sub": "42"});
    for algorithm in [HS256, HS384, HS512, RS256, RS384, RS512, PS256, ES256, ES384, EdDSA] {
        let token = signed_privately(algorithm, None, &claims);
        for (keys, own) in &all {
            let verified = verify_connection(&token, keys, NOW).map(|token| token.user);
            let expected = if own.contains(&algorithm) { Ok("42".to_owned()) } else { Err(TokenError::Algorithm) };
            assert_eq!(verified, expected, "{algorithm:?} {keys:?}");
        }
    }
    let both = keys().public_key(PublicKey::Rsa, RSA[1]).unwrap().public_key(PublicKey::Ecdsa, P256[1]).unwrap();
    for algorithm in [HS384, RS256, ES256] {
        assert!(verify_connection(&signed_privately(algorithm, None, &claims), &both, NOW).is_ok(), "{algorithm:?}");
    }
}

#[test]
fn another_key_of_the_same_algorithm_does_not_count() {
    let claims = json!({"sub": "42"});
    for algorithm in [Algorithm::HS256, Algorithm::HS512] {
        let error = verify_connection(&signed_by("other", algorithm, &claims), &keys(), NOW).unwrap_err();
        assert_eq!(error, TokenError::Signature);
    }
    let keys =
        [public(PublicKey::Rsa, RSA[1]), public(PublicKey::Ecdsa, P256[1]), public(PublicKey::Ed25519, ED25519[1])];
    for (keys, algorithm) in keys.iter().zip([Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA]) {
        let token = signed_privately(algorithm, None, &claims);
        let (message, signature) = token.rsplit_once('.').unwrap();
        let other = signed_privately(algorithm, None, &json!({"sub": "43"}));
        let others = other.rsplit_once('.').unwrap().1;
        for signature in [others, "", "AAAA", &signature[1..]] {
            let forged = verify_connection(&format!("{message}.{signature}"), keys, NOW);
            assert!(forged.is_err(), "{algorithm:?} {signature}");
        }
    }
}

#[test]
fn a_public_key_is_no_secret_and_none_is_no_algorithm() {
    let claims = json!({"sub": "42"});
    let all = keys()
        .public_key(PublicKey::Rsa, RSA[1])
        .unwrap()
        .public_key(PublicKey::Ecdsa, P256[1])
        .unwrap()
        .public_key(PublicKey::Ed25519, ED25519[1])
        .unwrap();
    for pem in [RSA[1], P256[1], ED25519[1]] {
        let der = Document::from_pem(pem).unwrap().1;
        for secret in [pem.as_bytes(), pem.trim().as_bytes(), der.as_bytes()] {
            for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
                let token = signed_with(&EncodingKey::from_secret(secret), &Header::new(algorithm), &claims);
                assert_eq!(verify_connection(&token, &all, NOW).unwrap_err(), TokenError::Signature);
                let without_secret = public(PublicKey::Rsa, RSA[1]);
                assert_eq!(verify_connection(&token, &without_secret, NOW).unwrap_err(), TokenError::Algorithm);
            }
        }
    }
    let payload = URL_SAFE_NO_PAD.encode(claims.to_string());
    for alg in ["none", "None", "NONE", "", "HS256 ", "hs256", "ES256K", "RS1"] {
        let header = URL_SAFE_NO_PAD.encode(json!({"alg": alg}).to_string());
        for signature in ["", "AAAA"] {
            let token = format!("{header}.{payload}.{signature}");
            assert_eq!(verify_connection(&token, &all, NOW).unwrap_err(), TokenError::Algorithm, "{alg}");
        }
    }
    let header = URL_SAFE_NO_PAD.encode("{}");
    assert!(matches!(verify_connection(&format!("{header}.{payload}."), &all, NOW), Err(TokenError::Malformed(_))));
}

#[test]
fn a_header_that_demands_what_is_not_understood_is_refused() {
    let token = signed(&json!({}));
    let (_, payload_and_signature) = token.split_once('.').unwrap();
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","crit":["b64"],"b64":false}"#);
    let refused = verify_connection(&format!("{header}.{payload_and_signature}"), &keys(), NOW).unwrap_err();
    assert!(refused.to_string().contains("crit"), "{refused}");
}

#[test]
fn public_keys_are_read_and_what_is_none_is_said() {
    for (kind, pem, said) in [
        (PublicKey::Rsa, "", "no PEM"),
        (PublicKey::Rsa, "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A", "no PEM"),
        (PublicKey::Rsa, P256[1], "ECDSA key"),
        (PublicKey::Ecdsa, RSA[1], "RSA key"),
        (PublicKey::Ecdsa, ED25519[1], "Ed25519 key"),
        (PublicKey::Ecdsa, P256[0], "private key"),
        (PublicKey::Rsa, RSA[0], "private key"),
        (PublicKey::Rsa, SMALL_RSA, "1024 bits"),
        (PublicKey::Ecdsa, P521, "P-256 and P-384"),
    ] {
        let error = Keys::none().public_key(kind, pem).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
    let pkcs1 = Document::from_pem(RSA[1]).unwrap().1;
    let info = spki::SubjectPublicKeyInfoRef::try_from(pkcs1.as_bytes()).unwrap();
    let pkcs1 = Document::try_from(info.subject_public_key.raw_bytes()).unwrap();
    let pem = pkcs1.to_pem("RSA PUBLIC KEY", spki::der::pem::LineEnding::LF).unwrap();
    let token = signed_privately(Algorithm::RS256, None, &json!({"sub": "42"}));
    assert!(verify_connection(&token, &public(PublicKey::Rsa, &pem), NOW).is_ok());
}

const SMALL_RSA: &str = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDguR6Wma49LdOY4Imlhs+4nanT
eB64rNu00/TaOsMKLC4gwPwSgsEzfkfP9zJoZjEgBYcky86NQftZEWZwWx2b24Jf
Io6kvgY+jf0VFzGIRZHSruFfs/shti/O+mcVuGtq8u8Vhmc3btU7RTbBWE/Cuoey
IOasbowqIOjcnuAKbwIDAQAB
-----END PUBLIC KEY-----";
const P521: &str = "-----BEGIN PUBLIC KEY-----
MIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQB9CwNPoTq/zm9X07D5nLY+0y5Ka7V
+ekPMKFZ8FLI9lrClkmmD0JVg77Lsr2Uucbm3zWeQV2RVbRJtvaB7ObL+fAB/Ap4
lIuu6Ne9iNA0WxmHa2rCzFRu4gMZkCsDgeSkynb8jDGjbxsAsUkMAA+ubqirftpi
J5OjUeaqBe2dWtBqRPA=
-----END PUBLIC KEY-----";

/// A public key as a set has it.
fn jwk(algorithm: Algorithm, kid: Option<&str>) -> Value {
    use jsonwebtoken::jwk::Jwk;
    let der = |pem: &str| Document::from_pem(pem).unwrap().1.into_vec();
    let key = match algorithm {
        Algorithm::ES256 => EncodingKey::from_ec_der(&der(P256[0])),
        Algorithm::ES384 => EncodingKey::from_ec_der(&der(P384[0])),
        Algorithm::EdDSA => EncodingKey::from_ed_der(&der(ED25519[0])),
        Algorithm::HS256 => EncodingKey::from_secret(b"secret"),
        _ => EncodingKey::from_rsa_der(&der(RSA[0])),
    };
    keys(); // chooses the implementation
    let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&key, algorithm).unwrap()).unwrap();
    if let Some(kid) = kid {
        jwk["kid"] = kid.into();
    }
    jwk
}

fn set(keys: &[Value]) -> Vec<u8> {
    json!({"keys": keys}).to_string().into_bytes()
}

#[test]
fn a_set_has_keys_of_every_kind_and_a_token_names_its_own() {
    use Algorithm::*;
    let kinds = [(RS256, "a"), (ES256, "b"), (ES384, "c"), (EdDSA, "d"), (HS256, "e")];
    let all: Vec<_> = kinds.iter().map(|&(algorithm, kid)| jwk(algorithm, Some(kid))).collect();
    let keys = Keys::none().jwks(&set(&all)).unwrap();
    let claims = json!({"sub": "42"});
    let verify = |algorithm, kid| verify_connection(&signed_privately(algorithm, kid, &claims), &keys, NOW).map(|_| ());
    for (algorithm, kid) in kinds {
        assert_eq!(verify(algorithm, Some(kid)), Ok(()), "{algorithm:?}");
        assert_eq!(verify(algorithm, Some("z")), Err(TokenError::UnknownKey), "{algorithm:?}");
        assert_eq!(verify(algorithm, None), Err(TokenError::Signature), "a key with a kid is for tokens that name it");
        let other = if kid == "a" { "b" } else { "a" };
        assert!(verify(algorithm, Some(other)).is_err(), "{algorithm:?}");
    }
    assert_eq!(verify(RS512, Some("a")), Err(TokenError::Algorithm), "its alg is RS256");
    let mut any = jwk(RS256, None);
    any.as_object_mut().unwrap().remove("alg");
    let keys = Keys::none().jwks(&set(&[any])).unwrap();
    for (algorithm, kid) in [(RS512, None), (RS256, Some("whatever"))] {
        assert!(verify_connection(&signed_privately(algorithm, kid, &claims), &keys, NOW).is_ok(), "{algorithm:?}");
    }
}

#[test]
fn what_of_a_set_cannot_be_taken_is_passed_over() {
    let with = |algorithm, name: &str, value: Value| {
        let mut jwk = jwk(algorithm, Some("x"));
        jwk[name] = value;
        jwk
    };
    let wrong = [
        with(Algorithm::RS256, "use", "enc".into()),
        with(Algorithm::RS256, "key_ops", json!(["encrypt"])),
        with(Algorithm::RS256, "alg", "RSA-OAEP".into()),
        with(Algorithm::RS256, "alg", "HS256".into()),
        with(Algorithm::RS256, "n", "AQAB".into()),
        with(Algorithm::ES256, "crv", "P-384".into()),
        with(Algorithm::ES256, "alg", "ES384".into()),
        with(Algorithm::ES256, "x", "AQAB".into()),
        with(Algorithm::EdDSA, "x", "AQAB".into()),
        with(Algorithm::HS256, "k", "".into()),
        json!({"kty": "LMS", "pub": "x"}),
        json!(1),
    ];
    for jwk in &wrong {
        let error = Keys::none().jwks(&set(std::slice::from_ref(jwk))).unwrap_err().to_string();
        assert!(error.contains("key 0: "), "{jwk} {error}");
    }
    let keys = Keys::none().jwks(&set(&[&wrong[..], &[jwk(Algorithm::ES256, Some("y"))]].concat())).unwrap();
    assert!(verify_connection(&signed_privately(Algorithm::ES256, Some("y"), &json!({})), &keys, NOW).is_ok());
    for none in [&b""[..], b"{}", b"[]", b"{\"keys\":{}}", b"{\"keys\":[]}"] {
        assert!(Keys::none().jwks(none).is_err());
    }
}

#[test]
fn fetched_keys_rotate_and_bad_news_change_nothing() {
    let keys = Keys::none().fetching().audience("throng");
    let clone = keys.clone();
    let verify = |kid| {
        let token = signed_privately(Algorithm::ES256, Some(kid), &json!({"sub": "42", "aud": "throng"}));
        verify_connection(&token, &clone, NOW).map(|_| ())
    };
    assert!(!keys.is_empty(), "tokens are wanted though no key is there yet");
    assert_eq!((verify("1"), keys.wait_for_unknown(Duration::ZERO)), (Err(TokenError::UnknownKey), true));
    assert!(!keys.wait_for_unknown(Duration::ZERO), "it was said once");
    assert_eq!(keys.fetched(&set(&[jwk(Algorithm::ES256, Some("1"))])), Ok(1));
    assert_eq!((verify("1"), keys.wait_for_unknown(Duration::ZERO)), (Ok(()), false));
    assert!(keys.fetched(b"<html>502</html>").is_err() && keys.fetched(b"{\"keys\":[]}").is_err());
    assert_eq!(verify("1"), Ok(()));
    let secret = set(&[jwk(Algorithm::HS256, Some("1"))]);
    assert!(keys.fetched(&secret).unwrap_err().to_string().contains("a secret that is fetched is none"));
    assert_eq!(keys.fetched(&set(&[jwk(Algorithm::ES256, Some("2"))])), Ok(1));
    assert_eq!((verify("1"), verify("2")), (Err(TokenError::UnknownKey), Ok(())));
    keys.replace(&Keys::new(b"secret").audience("other"));
    assert_eq!(verify("2"), Err(TokenError::Audience), "what was fetched stays");
    let token = signed(&json!({"aud": "other"}));
    assert!(verify_connection(&token, &clone, NOW).is_ok());
}

#[test]
fn a_token_of_no_known_key_has_nothing_fetched_that_nobody_fetches() {
    let keys = Keys::none().jwks(&set(&[jwk(Algorithm::ES256, Some("1"))])).unwrap();
    let token = signed_privately(Algorithm::ES256, Some("2"), &json!({}));
    assert_eq!(verify_connection(&token, &keys, NOW).unwrap_err(), TokenError::UnknownKey);
    assert!(!keys.wait_for_unknown(Duration::ZERO));
}

#[test]
fn what_is_added_to_keys_is_not_added_to_their_clones() {
    let before = keys();
    let after = before.clone().secret(b"other").issuer("joe");
    let token = signed_by("other", Algorithm::HS256, &json!({"iss": "joe"}));
    assert!(verify_connection(&token, &after, NOW).is_ok());
    assert_eq!(verify_connection(&token, &before, NOW).unwrap_err(), TokenError::Signature);
}

#[test]
fn another_claim_may_name_the_user() {
    let keys = keys().user_claim("uid");
    let user = |claims: Value| verify_connection(&signed(&claims), &keys, NOW).map(|token| token.user);
    assert_eq!(user(json!({"sub": "42", "uid": "43"})), Ok("43".to_owned()));
    for without in [json!({"sub": "42"}), json!({"sub": "42", "uid": 43})] {
        assert!(matches!(user(without), Err(TokenError::Malformed(_))));
    }
}

#[test]
fn tokens_say_what_their_clients_may_do_beyond_the_rules() {
    let token = connection(&json!({"caps": [{"channels": ["a*"], "match": "wildcard", "allow": ["sub"]}]})).unwrap();
    assert!(token.caps.allow(crate::config::Right::Subscribe, "ab"));
    assert!(connection(&json!({"caps": null})).is_ok());
    let token = subscription(&json!({"channel": "a", "allow": ["pub", "prs"]})).unwrap();
    assert!(token.allow.has(crate::config::Right::Publish) && !token.allow.has(crate::config::Right::History));
    for wrong in [json!({"caps": 1}), json!({"caps": [{"channels": ["a"], "allow": ["fly"]}]}), json!({"caps": ["a"]})]
    {
        assert!(matches!(connection(&wrong), Err(TokenError::Malformed(_))), "{wrong}");
    }
    assert!(subscription(&json!({"channel": "a", "allow": ["fly"]})).is_err());
}

#[test]
fn the_secret_before_counts_for_a_while() {
    let keys = |until| Keys::new(b"new").previous(b"secret", until);
    let token = signed(&json!({"sub": "42"}));
    assert!(verify_connection(&token, &keys(NOW), NOW).is_ok());
    assert_eq!(verify_connection(&token, &keys(NOW), NOW + 1).unwrap_err(), TokenError::Signature);
    assert!(verify_connection(&token, &keys(0), u64::MAX).is_ok());
    let token = signed_by("new", Algorithm::HS256, &json!({"sub": "42"}));
    assert!(verify_connection(&token, &keys(1), NOW).is_ok());
}

#[test]
fn audience_and_issuer_count_once_they_are_configured() {
    let verify = |keys: &Keys, claims: &Value| verify_connection(&signed(claims), keys, NOW).map(|token| token.user);
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
