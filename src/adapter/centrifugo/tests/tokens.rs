//! Scripts between a session and a client with tokens.

use super::super::codes::DisconnectCode;
use super::super::session::{Effect, Output, Session};
use super::super::token::Keys;
use super::session::{SECOND, Script, assert_disconnects, at, message, ruled, topic};
use crate::error::Refused;
use crate::time::Millis;
use crate::topic::{Gap, Since, Start, Wanted};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use std::time::Duration;

pub(super) const NOW: u64 = 1_700_000_000;

fn signed_with(secret: &str, claims: &Value) -> String {
    jsonwebtoken::encode(&Header::default(), claims, &EncodingKey::from_secret(secret.as_bytes())).expect("a token")
}

fn token(claims: &Value) -> String {
    signed_with("secret", claims)
}

/// A server with a secret, at a fixed moment.
pub(super) fn guarded() -> Script {
    let mut script = Script::new();
    script.rules.tokens.connection = Some(Keys::new(b"secret"));
    (script.rules.now, script.rules.unix_seconds) = (Millis(500_000), NOW);
    script
}

impl Script {
    pub(super) fn connect(&mut self, claims: &Value) -> (String, Vec<Effect>) {
        self.say(&json!({"id": 1, "connect": {"token": token(claims)}}).to_string())
    }

    /// Connected with a token.
    pub(super) fn known(claims: &Value) -> Self {
        let mut script = guarded();
        assert!(script.connect(claims).0.starts_with(r#"{"id":1,"connect":{"#));
        script
    }

    fn subscribe(&mut self, channel: &str, token: &str) -> (String, Vec<Effect>) {
        self.say(&json!({"id": 2, "subscribe": {"channel": channel, "token": token}}).to_string())
    }

    fn refresh(&mut self, token: &str) -> (String, Vec<Effect>) {
        self.say(&json!({"id": 3, "refresh": {"token": token}}).to_string())
    }

    fn sub_refresh(&mut self, channel: &str, token: &str) -> (String, Vec<Effect>) {
        self.say(&json!({"id": 4, "sub_refresh": {"channel": channel, "token": token}}).to_string())
    }

    fn pass(&mut self, time: Duration) {
        self.rules.now = self.rules.now + time;
        self.rules.unix_seconds += time.as_secs();
    }

    /// Lives on, with pongs, until something ends: what was said then, and after how long.
    pub(super) fn live_on(&mut self, mut wake: Duration) -> (String, Vec<Effect>, Duration) {
        let mut lived = Duration::ZERO;
        loop {
            self.pass(wake);
            lived += wake;
            let (replies, effects) = self.wake();
            match effects[..] {
                [Effect::Wake(after)] => wake = after,
                _ => return (replies, effects, lived),
            }
            if replies == "{}" {
                self.say("{}");
            }
            assert!(lived < 1000 * SECOND, "nothing ended");
        }
    }
}

#[track_caller]
fn assert_fails((replies, effects): &(String, Vec<Effect>), code: u16) {
    assert!(replies.contains(&format!(r#""error":{{"code":{code},"#)), "{replies}");
    assert!(effects.is_empty(), "{effects:?}");
}

#[track_caller]
fn wake_of(effects: &[Effect]) -> Duration {
    let Some(Effect::Wake(after)) = effects.last() else { panic!("{effects:?}") };
    *after
}

#[test]
fn a_session_is_small() {
    assert!(size_of::<Session>() <= 64, "{}", size_of::<Session>());
}

#[test]
fn with_a_secret_a_token_is_needed_unless_anonymous_clients_are_allowed() {
    assert_disconnects(&guarded().say(r#"{"id":1,"connect":{}}"#).1, DisconnectCode::BadRequest);
    let mut script = guarded();
    script.rules.tokens.anonymous = true;
    assert!(script.say(r#"{"id":1,"connect":{}}"#).0.contains("\"client\""));
    let mut script = guarded();
    script.rules.tokens.insecure = true;
    assert!(script.say(r#"{"id":1,"connect":{"token":"nonsense"}}"#).0.contains("\"client\""));
    assert!(matches!(script.subscribe("$a", "nonsense").1[..], [Effect::Subscribe { .. }]));
    assert_fails(&script.refresh("nonsense"), 108);
}

#[test]
fn without_a_secret_no_token_can_be_shown() {
    let (replies, effects) = Script::new().say(r#"{"id":1,"connect":{"token":"a.b.c"}}"#);
    assert_disconnects(&effects, DisconnectCode::InvalidToken);
    assert_eq!(replies, "");
    let mut script = Script::connected();
    assert_fails(&script.subscribe("a", "a.b.c"), 103);
    assert!(matches!(script.subscribe("$a", "").1[..], [Effect::Subscribe { .. }]), "no secret, nothing private");
    script.start_here("$a");
    assert_fails(&script.sub_refresh("$a", "a.b.c"), 108);
}

#[test]
fn what_needs_a_token_is_not_read_without_one() {
    let mut script = Script::known(&json!({"sub": "42"}));
    script.rules.topics = ruled(|rules| rules.presence = true);
    let ask = |script: &mut Script, method: &str, channel: &str| {
        script.say(&json!({"id": 3, method: {"channel": channel}}).to_string())
    };
    for method in ["history", "presence", "presence_stats"] {
        assert_fails(&ask(&mut script, method, "$a"), 103);
        assert_eq!(ask(&mut script, method, "a").1.len(), 1, "{method}");
    }
    script.subscribe("$a", &token(&json!({"sub": "42", "channel": "$a"})));
    script.start_here("$a");
    for method in ["history", "presence", "presence_stats"] {
        assert_eq!(ask(&mut script, method, "$a").1.len(), 1, "{method}");
    }
}

#[test]
fn a_token_says_who_connects_and_until_when() {
    let mut script = guarded();
    let (replies, effects) = script.connect(&json!({"sub": "42", "exp": NOW + 60, "info": {"name": "A"}}));
    assert!(replies.contains(r#""expires":true,"ttl":60,"ping":25"#), "{replies}");
    assert_eq!(wake_of(&effects), 20 * SECOND, "the ping comes first");
    let (_, effects) = script.say(r#"{"id":2,"publish":{"channel":"a","data":1}}"#);
    let [Effect::Publish { publication, .. }] = &effects[..] else { panic!("{effects:?}") };
    let author = publication.author.as_ref().expect("an author");
    assert_eq!((&*author.user, author.info.connection()), ("42", &br#"{"name":"A"}"#[..]));

    let (replies, _) = guarded().connect(&json!({"sub": "42"}));
    assert!(!replies.contains("expires") && !replies.contains("ttl"), "{replies}");
}

#[test]
fn a_token_that_does_not_count_is_said_to_be_expired_or_invalid() {
    let mut script = guarded();
    assert_fails(&script.connect(&json!({"sub": "42", "exp": NOW})), 109);
    assert!(script.connect(&json!({"sub": "42", "exp": NOW + 1})).0.contains("\"ttl\":1"), "with another it may");
    assert_fails(&guarded().connect(&json!({"sub": "42", "expire_at": NOW - 1})), 110);
    for bad in ["nonsense", &signed_with("other", &json!({"sub": "42"})), &token(&json!({"sub": 42}))] {
        let (_, effects) = guarded().say(&json!({"id": 1, "connect": {"token": bad}}).to_string());
        assert_disconnects(&effects, DisconnectCode::InvalidToken);
    }
}

#[test]
fn a_connection_expires_25_seconds_after_its_token_unless_that_is_refreshed() {
    let claims = json!({"sub": "42", "exp": NOW + 60});
    let mut script = guarded();
    let wake = wake_of(&script.connect(&claims).1);
    let (_, effects, lived) = script.live_on(wake);
    assert_disconnects(&effects, DisconnectCode::Expired);
    assert!((85 * SECOND..87 * SECOND).contains(&lived), "{lived:?}");

    let mut script = guarded();
    let wake = wake_of(&script.connect(&claims).1);
    script.pass(10 * SECOND);
    let (replies, effects) = script.refresh(&token(&json!({"sub": "42", "exp": NOW + 110, "info": 7})));
    let expected = r#"{"id":3,"refresh":{"client":"00000000-0000-4001-8000-000066666667","expires":true,"ttl":100}}"#;
    assert_eq!(replies, expected);
    let rest = wake_of(&effects);
    assert!((wake - 10 * SECOND..wake - 9 * SECOND).contains(&rest), "the ping stays where it was: {rest:?}");
    let (_, effects) = script.say(r#"{"id":2,"publish":{"channel":"a","data":1}}"#);
    let [Effect::Publish { publication, .. }] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(publication.author.as_ref().expect("an author").info.connection(), b"7");
    let (_, effects, lived) = script.live_on(rest);
    assert_disconnects(&effects, DisconnectCode::Expired);
    assert!((125 * SECOND..127 * SECOND).contains(&lived), "{lived:?}");
}

#[test]
fn an_expiry_between_two_heartbeats_does_not_move_them() {
    let mut script = guarded();
    let wake = wake_of(&script.connect(&json!({"sub": "42"})).1);
    assert_eq!(wake, 20 * SECOND);
    script.pass(SECOND);
    script.subscribe("a", &token(&json!({"sub": "42", "channel": "a", "exp": NOW + 2})));
    assert!(matches!(script.start_here("a").1[..], [Effect::Wake(after)] if after < 20 * SECOND), "the ping is next");
    script.pass(19 * SECOND);
    let (replies, effects) = script.wake();
    assert_eq!(replies, "{}");
    assert_eq!(wake_of(&effects), 7 * SECOND, "25 s after the token's end, and before the pong's");
    script.say("{}");
    script.pass(7 * SECOND);
    let (replies, effects) = script.wake();
    assert_eq!(replies, r#"{"push":{"channel":"a","unsubscribe":{"code":2501,"reason":"subscription expired"}}}"#);
    assert!(matches!(&effects[..], [Effect::Unsubscribe(_), Effect::Wake(_)]), "{effects:?}");
    let rest = wake_of(&effects);
    assert!((SECOND..2 * SECOND).contains(&rest), "{rest:?}");
    script.pass(rest);
    let (replies, effects) = script.wake();
    assert_eq!((&*replies, wake_of(&effects)), ("", 17 * SECOND), "the pong was seen");
}

#[test]
fn a_refresh_that_does_not_count_ends_the_session() {
    let known = || Script::known(&json!({"sub": "42", "exp": NOW + 60}));
    assert_disconnects(&known().refresh("").1, DisconnectCode::BadRequest);
    assert_disconnects(&known().refresh("nonsense").1, DisconnectCode::InvalidToken);
    assert_disconnects(&known().refresh(&token(&json!({"sub": "43"}))).1, DisconnectCode::InvalidToken);
    assert_disconnects(&known().refresh(&token(&json!({"sub": "42", "exp": NOW}))).1, DisconnectCode::Expired);
    assert_disconnects(&known().refresh(&token(&json!({"sub": "42", "expire_at": NOW}))).1, DisconnectCode::Expired);
    let (replies, effects) = known().refresh(&token(&json!({"sub": "42"})));
    assert!(!replies.contains("expires") && matches!(effects[..], [Effect::Wake(_)]), "for ever now: {replies}");
}

#[test]
fn a_subscription_token_lets_its_client_into_its_channel() {
    let mut script = Script::known(&json!({"sub": "42"}));
    assert_fails(&script.subscribe("$a", ""), 103);
    assert_fails(&script.subscribe("$a", "nonsense"), 103);
    assert_fails(&script.subscribe("$a", &token(&json!({"sub": "42"}))), 103);
    assert_fails(&script.subscribe("$a", &token(&json!({"sub": "42", "channel": "$a", "exp": NOW}))), 109);
    assert_fails(&script.subscribe("$a", &token(&json!({"sub": "42", "channel": "$a", "expire_at": NOW}))), 110);
    for claims in [
        json!({"sub": "42", "channel": "$b"}),
        json!({"sub": "43", "channel": "$a"}),
        json!({"sub": "42", "channel": "$a", "client": "another"}),
    ] {
        let (_, effects) = Script::known(&json!({"sub": "42"})).subscribe("$a", &token(&claims));
        assert_disconnects(&effects, DisconnectCode::InvalidToken);
    }
    let client = script.session.client();
    let claims = json!({"sub": "42", "channel": "$a", "client": client, "exp": NOW + 30, "data": {"hi": 1}});
    assert!(matches!(script.subscribe("$a", &token(&claims)).1[..], [Effect::Subscribe { .. }]));
    let expected = r#"{"id":2,"subscribe":{"expires":true,"ttl":30,"data":{"hi":1}}}"#;
    assert_eq!(script.start_here("$a").0, expected);
    assert!(matches!(script.subscribe("b", "").1[..], [Effect::Subscribe { .. }]), "not private");
}

#[test]
fn subscription_tokens_may_have_a_secret_of_their_own() {
    let mut script = guarded();
    script.rules.tokens.subscription = Some(Keys::new(b"other"));
    script.connect(&json!({"sub": "42"}));
    let claims = json!({"sub": "42", "channel": "$a"});
    assert_fails(&script.subscribe("$a", &token(&claims)), 103);
    assert!(matches!(script.subscribe("$a", &signed_with("other", &claims)).1[..], [Effect::Subscribe { .. }]));
    let mut script = Script::new();
    script.rules.tokens.subscription = Some(Keys::new(b"other"));
    assert!(script.say(r#"{"id":1,"connect":{}}"#).0.contains("\"client\""), "no secret for connections, no need");
    assert_fails(&script.subscribe("$a", ""), 103);
}

#[test]
fn a_subscription_expires_25_seconds_after_its_token_unless_that_is_refreshed() {
    let claims = |left: u64| token(&json!({"sub": "42", "channel": "a", "exp": NOW + left}));
    let subscribed = || {
        let mut script = guarded();
        script.connect(&json!({"sub": "42"}));
        script.subscribe("a", &claims(30));
        let wake = wake_of(&script.start_here("a").1);
        (script, wake)
    };
    let (mut script, wake) = subscribed();
    let (replies, _, lived) = script.live_on(wake);
    assert!(replies.contains(r#""unsubscribe":{"code":2501"#), "{replies}");
    assert!((55 * SECOND..57 * SECOND).contains(&lived), "{lived:?}");
    assert!(matches!(script.subscribe("a", "").1[..], [Effect::Subscribe { .. }]), "it may come back");
    assert!(script.start_here("a").1.is_empty(), "and does not expire now");

    let (mut script, _) = subscribed();
    let (replies, effects) = script.sub_refresh("a", &claims(100));
    assert_eq!(replies, r#"{"id":4,"sub_refresh":{"expires":true,"ttl":100}}"#);
    let (replies, _, lived) = script.live_on(wake_of(&effects));
    assert!(replies.contains(r#""unsubscribe":{"code":2501"#), "{replies}");
    assert!((125 * SECOND..127 * SECOND).contains(&lived), "{lived:?}");
}

#[test]
fn what_was_left_does_not_expire() {
    let mut script = guarded();
    script.connect(&json!({"sub": "42", "exp": NOW + 200}));
    script.subscribe("a", &token(&json!({"sub": "42", "channel": "a", "exp": NOW + 30})));
    let wake = wake_of(&script.start_here("a").1);
    script.say(r#"{"id":5,"unsubscribe":{"channel":"a"}}"#);
    let (_, effects, lived) = script.live_on(wake);
    assert_disconnects(&effects, DisconnectCode::Expired);
    assert!(lived >= 225 * SECOND);
}

#[test]
fn a_subscription_refresh_that_does_not_count_is_said() {
    let subscribed = || {
        let mut script = Script::known(&json!({"sub": "42"}));
        script.subscribe("a", "");
        script.start_here("a");
        script
    };
    let mut script = subscribed();
    assert_fails(&script.sub_refresh("b", &token(&json!({"sub": "42", "channel": "b"}))), 103);
    assert_fails(&script.sub_refresh("a", ""), 107);
    assert_disconnects(&script.sub_refresh("", "x").1, DisconnectCode::BadRequest);
    for bad in [
        "nonsense",
        &token(&json!({"sub": "42", "channel": "b"})),
        &token(&json!({"sub": "43", "channel": "a"})),
        &token(&json!({"sub": "42", "channel": "a", "client": "another"})),
    ] {
        assert_disconnects(&subscribed().sub_refresh("a", bad).1, DisconnectCode::InvalidToken);
    }
    let (replies, effects) = script.sub_refresh("a", &token(&json!({"sub": "42", "channel": "a", "exp": NOW})));
    let lines: Vec<_> = replies.lines().collect();
    assert!(lines[0].contains(r#""unsubscribe":{"code":2501"#), "first, so that the error ends nothing: {replies}");
    assert!(lines[1].starts_with(r#"{"id":4,"error":{"code":110,"#), "{replies}");
    assert!(matches!(&effects[..], [Effect::Unsubscribe(_)]), "{effects:?}");
}

#[test]
fn the_server_subscribes_before_the_connect_is_answered() {
    let mut script = guarded();
    let subs = json!({"a": {"data": {"hi": 1}}, "b": {"override": {"force_recovery": {"value": false}}}});
    let claims = json!({"sub": "42", "subs": subs});
    let connect = json!({"id": 1, "connect": {
        "token": token(&claims), "subs": {"a": {"recover": true, "epoch": "abcdefgh", "offset": 7}, "c": {"recover": true}}
    }});
    let (replies, effects) = script.say(&connect.to_string());
    assert_eq!(replies, "");
    let [
        Effect::Hold(true),
        Effect::Subscribe { wanted: Wanted::Since(Since::At(from)), .. },
        Effect::Subscribe { wanted: Wanted::Since(Since::Latest), .. },
    ] = effects[..]
    else {
        panic!("{effects:?}")
    };
    assert_eq!(from, at(7));
    assert_eq!(script.say(r#"{"id":2,"subscribe":{"channel":"a"}}"#).0, "", "waits");
    assert_eq!(script.start_here("b").0, "", "one of two");
    let (replies, effects, seen) = script.start("a", &Start { from: at(7), gap: None }, &[message(8, "1")]);
    assert_eq!(seen, 8);
    let [connected, error] = replies.lines().collect::<Vec<_>>()[..] else { panic!("{replies}") };
    let connected: Value = serde_json::from_str(connected).expect("JSON");
    let expected = json!({
        "a": {"recoverable": true, "positioned": true, "epoch": "abcdefgh", "offset": 7, "recovered": true,
              "was_recovering": true, "publications": [{"data": 1, "offset": 8}], "data": {"hi": 1}},
        "b": {"positioned": true, "epoch": "abcdefgh", "offset": 7}
    });
    assert_eq!((&connected["id"], &connected["connect"]["subs"]), (&json!(1), &expected));
    assert!(error.starts_with(r#"{"id":2,"error":{"code":105,"#), "{error}");
    assert!(matches!(&effects[..], [Effect::Wake(_), Effect::Hold(false)]), "{effects:?}");
}

#[test]
fn a_position_of_the_servers_that_cannot_be_recovered_is_said() {
    let mut script = guarded();
    let connect = json!({"id": 1, "connect": {
        "token": token(&json!({"sub": "42", "channels": ["a"]})),
        "subs": {"a": {"recover": true, "epoch": "abcdefgh", "offset": 7}}
    }});
    script.say(&connect.to_string());
    let gap = Some(Gap { since: "abcdefgh-7".into(), resumed: at(20) });
    let (replies, _, _) = script.start("a", &Start { from: at(20), gap }, &[]);
    assert!(replies.contains(r#""offset":20,"positioned":true,"was_recovering":true"#), "{replies}");
    assert!(!replies.contains("recovered\":true"), "{replies}");
}

#[test]
fn what_the_server_subscribes_to_ends_with_the_session() {
    let by_server = json!({"sub": "42", "channels": ["a"]});
    let subscribed = || {
        let mut script = guarded();
        script.connect(&by_server);
        assert!(script.start_here("a").0.contains("\"subs\":{\"a\":"));
        script
    };
    let mut output = Output::default();
    subscribed().session.lagged(&topic("a"), true, &mut output);
    assert_disconnects(&output.effects, DisconnectCode::InsufficientState);
    let refreshed = subscribed().sub_refresh("a", &token(&json!({"sub": "42", "channel": "a"})));
    assert_disconnects(&refreshed.1, DisconnectCode::BadRequest);

    for (refused, code) in
        [(Refused::TooManySubscriptions, DisconnectCode::ChannelLimit), (Refused::TopicsFull, DisconnectCode::Internal)]
    {
        let (mut script, mut output) = (guarded(), Output::default());
        script.connect(&by_server);
        script.session.refused(&topic("a"), refused, &script.rules, &mut output);
        assert_disconnects(&output.effects, code);
    }
    let many = json!({"sub": "42", "channels": ["a", "b", "c", "d"]});
    assert_disconnects(&guarded().connect(&many).1, DisconnectCode::ChannelLimit);
    let bad = json!({"sub": "42", "channels": ["has space"]});
    assert_disconnects(&guarded().connect(&bad).1, DisconnectCode::InvalidToken);
    let mut script = guarded();
    script.connect(&by_server);
    assert_disconnects(&script.say(r#"{"id":1,"connect":{}}"#).1, DisconnectCode::BadRequest);
}

#[test]
fn a_token_says_otherwise_than_its_channel() {
    let member = |overrides: Value| {
        let mut script = Script::known(&json!({"sub": "u", "info": {"name": "U"}}));
        script.rules.topics = ruled(|rules| (rules.presence, rules.join_leave) = (true, true));
        let claims = json!({"sub": "u", "channel": "a", "info": {"seat": 1}, "override": overrides});
        let (replies, effects) = script.subscribe("a", &token(&claims));
        let [Effect::Subscribe { member, .. }] = &effects[..] else { panic!("{replies} {effects:?}") };
        member.clone()
    };
    let seen = member(json!({})).expect("a member");
    assert_eq!((seen.info.connection(), seen.info.subscription()), (&br#"{"name":"U"}"#[..], &br#"{"seat":1}"#[..]));
    assert!(!seen.is_quiet);
    assert!(member(json!({"join_leave": {"value": false}})).expect("a member").is_quiet);
    assert!(member(json!({"presence": {"value": false}})).is_none(), "it is hidden");
    let mut script = Script::known(&json!({"sub": "u"}));
    let claims = json!({"sub": "u", "channel": "a", "override": {"force_recovery": {"value": true}}});
    script.subscribe("a", &token(&claims));
    assert!(script.start_here("a").0.contains(r#""recoverable":true"#));
}
