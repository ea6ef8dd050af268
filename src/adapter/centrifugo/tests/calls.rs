//! Scripts between a session, the server API, the application, and a client that says too much.

use super::super::api::{Command, Method};
use super::super::call::Call;
use super::super::codes::{DisconnectCode, ErrorCode};
use super::super::session::{ClientCall, CommandRate, Effect, Output};
use super::session::{SECOND, Script, assert_disconnects, at, message, topic};
use super::tokens::{NOW, guarded};
use crate::error::Refused;
use crate::time::Millis;
use crate::topic::{Gap, Kind, Since, Start, Wanted};
use serde_json::json;
use std::sync::Arc;

/// A call as the server API reads it.
fn call(method: &str, body: &str) -> Arc<Call> {
    let call = match Command::read(Method::of(method).unwrap(), body.as_bytes()).unwrap() {
        Command::Disconnect(request) => request.call(),
        Command::Unsubscribe(request) => request.call(),
        Command::Subscribe(request) => request.call(),
        Command::Refresh(request) => request.call(),
        other => panic!("{other:?}"),
    };
    Arc::new(call.unwrap_or_else(|failure| panic!("{failure:?}")))
}

impl Script {
    fn called(&mut self, method: &str, body: &str) -> (String, Vec<Effect>) {
        let mut output = Output::default();
        self.session.called(&call(method, body), &self.rules, &mut output);
        (String::from_utf8(output.replies).expect("JSON"), output.effects)
    }

    fn of_user() -> Self {
        Self::known(&json!({"sub": "u"}))
    }
}

fn is_nothing((replies, effects): &(String, Vec<Effect>)) -> bool {
    replies.is_empty() && effects.is_empty()
}

#[test]
fn a_call_is_for_a_user_and_perhaps_for_one_client() {
    let mut script = Script::of_user();
    let id = script.session.client();
    let (another, json) = ("00000000-0000-4000-8000-000000000000", |body: &str| body.replace('$', &id));
    for (body, is_meant) in [
        (r#"{"user":"u"}"#, true),
        (r#"{"user":"v"}"#, false),
        (r#"{"user":"u","client":"$"}"#, true),
        (&*format!("{{\"user\":\"u\",\"client\":\"{another}\"}}"), false),
        (r#"{"user":"v","client":"$"}"#, false),
        (r#"{"user":"u","session":"s"}"#, false),
        (r#"{"user":"u","whitelist":["$"]}"#, false),
        (r#"{"user":"u","whitelist":["x"]}"#, true),
    ] {
        let (replies, effects) = script.called("disconnect", &json(body));
        assert_eq!(replies, "");
        match &effects[..] {
            [Effect::Close(3503, reason)] if is_meant => assert_eq!(&**reason, "force disconnect"),
            [] if !is_meant => {}
            _ => panic!("{body}: {effects:?}"),
        }
    }
    let (_, effects) = script.called("disconnect", r#"{"user":"u","disconnect":{"code":4001,"reason":"bye"}}"#);
    assert!(matches!(&effects[..], [Effect::Close(4001, reason)] if &**reason == "bye"), "{effects:?}");
    let mut anonymous = Script::connected();
    assert!(is_nothing(&anonymous.called("disconnect", r#"{"user":"u"}"#)));
}

#[test]
fn the_server_subscribes_and_says_so_before_anything_of_the_channel() {
    let mut script = Script::of_user();
    let (replies, effects) = script.called("subscribe", r#"{"user":"u","channel":"a","data":{"hi": 1}}"#);
    assert_eq!(replies, "");
    assert!(matches!(&effects[..], [Effect::Subscribe { wanted: Wanted::Since(Since::Latest), .. }]), "{effects:?}");
    assert!(is_nothing(&script.called("subscribe", r#"{"user":"u","channel":"a"}"#)), "it is asked for already");
    let (replies, effects) = script.start_here("a");
    let push = r#"{"recoverable":true,"epoch":"abcdefgh","offset":7,"positioned":true,"data":{"hi": 1}}"#;
    assert_eq!(replies, format!(r#"{{"push":{{"channel":"a","subscribe":{push}}}}}"#));
    assert!(effects.is_empty());
    assert!(is_nothing(&script.called("subscribe", r#"{"user":"u","channel":"a"}"#)), "it is subscribed already");
    assert!(script.say(r#"{"id":2,"subscribe":{"channel":"a"}}"#).0.contains("\"code\":105"));

    let since = r#"{"user":"u","channel":"b","recover_since":{"offset":3,"epoch":"abcdefgh"}}"#;
    let (_, effects) = script.called("subscribe", since);
    let [Effect::Subscribe { wanted: Wanted::Since(Since::At(from)), .. }] = effects[..] else { panic!("{effects:?}") };
    assert_eq!(from, at(3));
    let start = Start { from: at(3), gap: None };
    let missed = [message(4, &format!("\"{}\"", "x".repeat(100)))];
    let (replies, _, seen) = script.start("b", &start, &missed);
    assert!(replies.contains(r#""offset":3"#) && !replies.contains("xxx"), "{replies}");
    assert_eq!(seen, 3, "what was missed follows as ordinary pushes");

    let overrides = r#""override":{"force_recovery":{"value":false},"force_positioning":{"value":false}}"#;
    script.called("subscribe", &format!("{{\"user\":\"u\",\"channel\":\"c\",{overrides}}}"));
    assert_eq!(script.start_here("c").0, r#"{"push":{"channel":"c","subscribe":{}}}"#);
    let (_, effects) = script.called("subscribe", r#"{"user":"u","channel":"d"}"#);
    assert_disconnects(&effects, DisconnectCode::ChannelLimit);
}

#[test]
fn what_is_said_of_a_subscription_is_told_with_what_comes_of_it() {
    let claims = json!({"sub": "u", "info": 1, "subs": {"s": {"info": 2}}});
    let mut script = guarded();
    script.connect(&claims);
    script.start_here("s");
    script.called("subscribe", r#"{"user":"u","channel":"a","b64info":"/w=="}"#);
    script.start_here("a");
    for (channel, expected) in [("s", &b"2"[..]), ("a", &[0xFF]), ("elsewhere", &[])] {
        let (_, effects) = script.say(&format!(r#"{{"id":2,"publish":{{"channel":"{channel}","data":1}}}}"#));
        let [Effect::Publish { publication, .. }] = &effects[..] else { panic!("{effects:?}") };
        let info = &publication.author.as_ref().unwrap().info;
        assert_eq!((info.connection(), info.subscription()), (&b"1"[..], expected), "{channel}");
    }
    // It is not said of the next one.
    script.called("unsubscribe", r#"{"user":"u","channel":"a"}"#);
    let (_, effects) = script.say(r#"{"id":3,"publish":{"channel":"a","data":1}}"#);
    let [Effect::Publish { publication, .. }] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(publication.author.as_ref().unwrap().info.subscription(), b"");
}

#[test]
fn a_position_that_is_gone_begins_at_the_head() {
    let mut script = Script::of_user();
    script.called("subscribe", r#"{"user":"u","channel":"a","recover_since":{"offset":3,"epoch":"zzzzzzzz"}}"#);
    let lost = Start { from: at(20), gap: Some(Gap { since: "zzzzzzzz-3".into(), resumed: at(20) }) };
    let (replies, effects, seen) = script.start("a", &lost, &[]);
    assert!(replies.contains(r#""subscribe":{"recoverable":true,"epoch":"abcdefgh","offset":20"#), "{replies}");
    assert_eq!((effects.len(), seen), (0, 20));
}

#[test]
fn a_subscription_of_the_servers_that_cannot_be_ends_the_session() {
    for (refused, code) in
        [(Refused::TooManySubscriptions, DisconnectCode::ChannelLimit), (Refused::TopicsFull, DisconnectCode::Internal)]
    {
        let mut script = Script::of_user();
        script.called("subscribe", r#"{"user":"u","channel":"a"}"#);
        let mut output = Output::default();
        script.session.refused(&topic("a"), refused, &script.rules, &mut output);
        assert_disconnects(&output.effects, code);
        assert!(output.replies.is_empty(), "no command is answered");
    }
}

#[test]
fn a_subscription_of_the_servers_expires() {
    let mut script = Script::of_user();
    let body = format!("{{\"user\":\"u\",\"channel\":\"a\",\"expire_at\":{}}}", NOW + 5);
    script.called("subscribe", &body);
    let (_, effects) = script.start_here("a");
    let [Effect::Wake(wake)] = effects[..] else { panic!("{effects:?}") };
    let (_, effects, lived) = script.live_on(wake);
    assert_disconnects(&effects, DisconnectCode::SubscriptionExpired);
    assert!((30..=31).contains(&lived.as_secs()), "{lived:?}");
}

#[test]
fn the_server_unsubscribes_whoever_subscribed() {
    let pushed = r#"{"push":{"channel":"a","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}}"#;
    let unsubscribe = r#"{"user":"u","channel":"a"}"#;
    let mut script = Script::of_user();
    assert!(is_nothing(&script.called("unsubscribe", unsubscribe)), "nobody is subscribed");
    script.called("subscribe", unsubscribe);
    script.start_here("a");
    let (replies, effects) = script.called("unsubscribe", unsubscribe);
    assert_eq!(replies, pushed);
    assert!(matches!(&effects[..], [Effect::Unsubscribe(_)]), "{effects:?}");
    assert!(is_nothing(&script.called("unsubscribe", unsubscribe)), "again");
    // From here on it is the client's own.
    assert!(matches!(script.say(r#"{"id":2,"subscribe":{"channel":"a"}}"#).1[..], [Effect::Subscribe { .. }]));
    assert!(is_nothing(&script.called("unsubscribe", unsubscribe)), "its answer comes first");
    script.say(r#"{"id":3,"subscribe":{"channel":"a"}}"#);
    let (replies, effects) = script.start_here("a");
    let mut lines = replies.lines();
    assert!(lines.next().is_some_and(|line| line.starts_with(r#"{"id":2,"subscribe":{"#)), "{replies}");
    assert_eq!(lines.next(), Some(pushed), "{replies}");
    // What waited behind it is a new one.
    assert!(matches!(&effects[..], [Effect::Unsubscribe(_), Effect::Subscribe { .. }]), "{effects:?}");
    assert!(is_nothing(&script.called("unsubscribe", unsubscribe)));
    assert!(is_nothing(&script.called("subscribe", unsubscribe)), "and it stays after all");
    assert!(script.start_here("a").0.starts_with(r#"{"id":3,"subscribe":{"#));
}

#[test]
fn the_server_says_until_when_a_session_may_go_on() {
    let mut script = Script::known(&json!({"sub": "u", "exp": NOW + 10}));
    let (replies, effects) = script.called("refresh", &format!("{{\"user\":\"u\",\"expire_at\":{}}}", NOW + 100));
    assert_eq!(replies, r#"{"push":{"refresh":{"expires":true,"ttl":100}}}"#);
    let [Effect::Wake(wake)] = effects[..] else { panic!("{effects:?}") };
    let (_, effects, lived) = script.live_on(wake);
    assert_disconnects(&effects, DisconnectCode::Expired);
    assert!((125..=126).contains(&lived.as_secs()), "{lived:?}");

    let mut script = Script::known(&json!({"sub": "u", "exp": NOW + 10}));
    let (replies, effects) = script.called("refresh", r#"{"user":"u","info":{"n":1}}"#);
    assert_eq!(replies, r#"{"push":{"refresh":{}}}"#);
    let Some(Effect::Wake(mut wake)) = effects.into_iter().next() else { panic!("it is woken for its heart") };
    for _ in 0..10 {
        script.rules.now = script.rules.now + wake;
        script.rules.unix_seconds += wake.as_secs();
        let (replies, effects) = script.wake();
        assert!(replies.is_empty() || script.say("{}").1.is_empty());
        let [Effect::Wake(next)] = effects[..] else { panic!("it goes on for ever: {effects:?}") };
        wake = next;
    }
    let (_, effects) = script.say(r#"{"id":2,"publish":{"channel":"a","data":1}}"#);
    let [Effect::Publish { publication, .. }] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(publication.author.as_ref().unwrap().info.connection(), br#"{"n":1}"#);
    for body in [r#"{"user":"u","expired":true}"#, r#"{"user":"u","expire_at":7}"#] {
        assert_disconnects(&script.called("refresh", body).1, DisconnectCode::Expired);
    }
}

#[test]
fn whoever_is_being_connected_is_ended_at_once_and_told_the_rest_later() {
    let mut script = guarded();
    let (replies, effects) = script.connect(&json!({"sub": "u", "channels": ["s"]}));
    assert!(replies.is_empty() && effects.len() == 2, "held: {effects:?}");
    assert!(matches!(script.called("disconnect", r#"{"user":"u"}"#).1[..], [Effect::Close(3503, _)]));
    for (method, body) in [
        ("subscribe", r#"{"user":"u","channel":"a"}"#.to_owned()),
        ("unsubscribe", r#"{"user":"u","channel":"s"}"#.to_owned()),
        ("refresh", format!("{{\"user\":\"u\",\"expire_at\":{}}}", NOW + 60)),
    ] {
        assert!(is_nothing(&script.called(method, &body)));
    }
    let (replies, effects) = script.start_here("s");
    let expected = [
        r#"{"id":1,"connect":{"#,
        r#"{"push":{"channel":"s","unsubscribe":{"code":2000,"#,
        r#"{"push":{"refresh":{"expires":true,"ttl":60}}}"#,
    ];
    assert_eq!(replies.lines().count(), 3, "{replies}");
    assert!(replies.lines().zip(expected).all(|(line, expected)| line.starts_with(expected)), "{replies}");
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Subscribe { .. })), "{effects:?}");
}

#[test]
fn what_a_client_calls_and_sends_is_the_applications_if_it_wants_it() {
    let mut script = Script::connected();
    let rpc = r#"{"id":2,"rpc":{"method":"m","data":{"x": 1}}}"#;
    assert!(script.say(rpc).0.contains(r#""error":{"code":108,"#));
    assert_disconnects(&script.say(r#"{"send":{"data":1}}"#).1, DisconnectCode::NotAvailable);
    (script.rules.takes_calls, script.rules.takes_messages) = (true, true);
    let (replies, effects) = script.say(rpc);
    let [Effect::Call(ClientCall::Rpc { id: 2, method, data })] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((&*replies, &**method, &data[..]), ("", "m", &br#"{"x": 1}"#[..]));
    let (_, effects) = script.say(r#"{"send":{"data":"s"}}"#);
    assert!(matches!(&effects[..], [Effect::Call(ClientCall::Message(data))] if data == b"\"s\""), "{effects:?}");
    let answer = |answer| {
        let mut output = Output::default();
        script.session.call_answered(2, answer, &mut output);
        String::from_utf8(output.replies).unwrap()
    };
    assert_eq!(answer(Ok((Kind::Json, b"[1,\n2]"))), r#"{"id":2,"rpc":{"data":[1,2]}}"#);
    assert_eq!(answer(Ok((Kind::Text, b"a"))), r#"{"id":2,"rpc":{"data":"a"}}"#);
    assert_eq!(answer(Ok((Kind::Bytes, b"\xff"))), r#"{"id":2,"rpc":{"data":{"base64":"/w=="}}}"#);
    let error = answer(Err(ErrorCode::MethodNotFound.into()));
    assert_eq!(error, r#"{"id":2,"error":{"code":104,"message":"method not found"}}"#);
    let said = |script: &Script| {
        let mut output = Output::default();
        script.session.message(Kind::Json, b"1", &mut output);
        String::from_utf8(output.replies).unwrap()
    };
    assert_eq!(said(&script), r#"{"push":{"message":{"data":1}}}"#);
    assert_eq!(said(&Script::new()), "", "nothing comes before the reply that begins a session");
}

#[test]
fn who_says_too_much_is_refused_and_then_disconnected() {
    let limited = || {
        let mut script = Script::connected();
        script.rules.now = Millis(1_000_000);
        script.rules.command_rate = Some(CommandRate::new(10.try_into().unwrap(), 5.try_into().unwrap()));
        script
    };
    let mut script = limited();
    let frame = [r#"{"id":7,"ping":{}}"#; 8].join("\n");
    let (replies, effects) = script.say(&frame);
    let refused = r#"{"id":7,"error":{"code":111,"message":"too many requests","temporary":true}}"#;
    let expected: Vec<_> = [[r#"{"id":7,"ping":{}}"#; 5].as_slice(), [refused; 3].as_slice()].concat();
    assert_eq!(replies.lines().collect::<Vec<_>>(), expected);
    assert!(effects.is_empty());
    assert!(script.say(r#"{"id":8,"subscribe":{"channel":"a"}}"#).1.is_empty(), "what is refused is not done");
    for _ in 0..20 {
        assert!(script.say("{}").1.is_empty(), "pongs do not count");
    }
    script.rules.now = script.rules.now + 10 * SECOND;
    assert!(matches!(script.say(r#"{"id":8,"subscribe":{"channel":"a"}}"#).1[..], [Effect::Subscribe { .. }]));
    // Waiting behind a subscription it counts once.
    (0..3).for_each(|_| assert!(is_nothing(&script.say(r#"{"id":9,"publish":{"channel":"a","data":1}}"#))));
    assert_eq!(script.start_here("a").1.len(), 3);
    assert_disconnects(&limited().say(&[r#"{"id":7,"ping":{}}"#; 11].join("\n")).1, DisconnectCode::TooManyRequests);
    let mut script = limited();
    script.rules.takes_messages = true;
    let (_, effects) = script.say(&[r#"{"send":{"data":1}}"#; 6].join("\n"));
    assert!(effects[..5].iter().all(|effect| matches!(effect, Effect::Call(_))), "{effects:?}");
    assert_disconnects(&effects, DisconnectCode::TooManyRequests);
}
