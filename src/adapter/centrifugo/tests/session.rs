//! Scripts between a client and its session, in JSON.

use super::super::codec::Format;
use super::super::codes::DisconnectCode;
use super::super::session::{Effect, Output, Rules, Session, Tokens};
use crate::config::{Allow, RuleSet, TopicRules};
use crate::error::Refused;
use crate::time::Millis;
use crate::topic::{Cursor, Gap, Message, Publication, Resolved, Since, Start, TopicName, Wanted};
use std::sync::Arc;
use std::time::Duration;

pub(super) const SECOND: Duration = Duration::from_secs(1);

pub(super) fn rules() -> Rules {
    Rules {
        ping_interval: 25 * SECOND,
        pong_timeout: 8 * SECOND,
        connect_timeout: 10 * SECOND,
        command_bytes_max: 1000,
        channels_max: 3,
        topics: ruled(|rules| rules.allow_publish = Allow::EVERYBODY),
        personal: None,
        tokens: Tokens::default(),
        command_rate: None,
        takes_calls: false,
        takes_messages: false,
        emulation: None,
        now: Millis(0),
        unix_seconds: 0,
    }
}

/// Rules that allow everything but what is taken back.
pub(super) fn ruled(change: impl FnOnce(&mut TopicRules)) -> Arc<RuleSet> {
    let mut topics = RuleSet::open();
    topics.max_length = 20;
    change(&mut topics.without_namespace);
    Arc::new(topics)
}

pub(super) fn topic(name: &str) -> TopicName {
    TopicName::new(name).expect("a name")
}

pub(super) fn at(offset: u64) -> Cursor {
    Cursor { epoch: "abcdefgh".parse().expect("an epoch"), offset }
}

pub(super) fn message(offset: u64, payload: &str) -> Arc<Message> {
    let publication = Publication::json(payload).expect("JSON");
    Arc::new(Message::new(topic("a"), at(offset), true, publication, 0))
}

pub(super) struct Script {
    pub(super) session: Session,
    pub(super) rules: Rules,
}

impl Script {
    pub(super) fn new() -> Self {
        Self { session: Session::new(Format::Json, [1, 0x6666_6667]), rules: rules() }
    }

    pub(super) fn connected() -> Self {
        let mut script = Self::new();
        assert!(script.say(r#"{"id":1,"connect":{}}"#).0.contains("\"ping\":25,\"pong\":true"));
        script
    }

    /// What is replied, and what else is wanted.
    pub(super) fn say(&mut self, frame: &str) -> (String, Vec<Effect>) {
        let mut output = Output::default();
        self.session.input(frame.as_bytes(), &self.rules, &mut output);
        (String::from_utf8(output.replies).expect("JSON"), output.effects)
    }

    pub(super) fn wake(&mut self) -> (String, Vec<Effect>) {
        let mut output = Output::default();
        self.session.woken(&self.rules, &mut output);
        (String::from_utf8(output.replies).expect("JSON"), output.effects)
    }

    pub(super) fn start(&mut self, name: &str, start: &Start, missed: &[Arc<Message>]) -> (String, Vec<Effect>, u64) {
        let mut output = Output::default();
        let seen = self.session.started(&topic(name), start, missed, &self.rules, &mut output);
        (String::from_utf8(output.replies).expect("JSON"), output.effects, seen)
    }

    /// As it starts where nothing is missing.
    pub(super) fn start_here(&mut self, name: &str) -> (String, Vec<Effect>) {
        let (replies, effects, _) = self.start(name, &Start { from: at(7), gap: None }, &[]);
        (replies, effects)
    }
}

#[track_caller]
pub(super) fn assert_disconnects(effects: &[Effect], code: DisconnectCode) {
    assert!(matches!(effects, [.., Effect::Disconnect(is)] if *is == code), "{effects:?}");
}

#[test]
fn a_client_connects_first_and_once() {
    for first in [r#"{"id":1,"subscribe":{"channel":"a"}}"#, "{}", r#"{"id":1,"ping":{}}"#] {
        let (replies, effects) = Script::new().say(first);
        assert_disconnects(&effects, DisconnectCode::BadRequest);
        assert_eq!(replies, "");
    }
    let mut script = Script::new();
    let (replies, effects) = script.say(r#"{"id":5,"connect":{}}"#);
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        replies,
        format!(
            r#"{{"id":5,"connect":{{"client":"00000000-0000-4001-8000-000066666667","version":"throng {version}","ping":25,"pong":true}}}}"#
        )
    );
    let first = |effects: &[Effect]| match effects {
        [Effect::Wake(after)] => *after,
        _ => panic!("{effects:?}"),
    };
    assert_eq!(first(&effects), 20 * SECOND, "earlier by as much as its id says");
    for (random, expected) in [(0, 25_000), (u64::from(u32::MAX), 12_501)] {
        let mut script = Script { session: Session::new(Format::Json, [1, random]), rules: rules() };
        assert_eq!(first(&script.say(r#"{"id":5,"connect":{}}"#).1).as_millis(), expected);
    }
    assert_disconnects(&script.say(r#"{"id":6,"connect":{}}"#).1, DisconnectCode::BadRequest);
}

#[test]
fn a_silent_client_is_stale_pinged_and_missed() {
    assert_disconnects(&Script::new().wake().1, DisconnectCode::Stale);
    let mut script = Script::connected();
    let (replies, effects) = script.wake();
    assert_eq!(replies, "{}");
    assert!(matches!(effects[..], [Effect::Wake(after)] if after == 8 * SECOND));
    assert_eq!(script.say("{}").0, "", "a pong");
    let (replies, effects) = script.wake();
    assert_eq!(replies, "");
    assert!(matches!(effects[..], [Effect::Wake(after)] if after == 17 * SECOND), "25 s after the ping");
    assert_eq!(script.wake().0, "{}");
    assert_disconnects(&script.wake().1, DisconnectCode::NoPong);
}

#[test]
fn commands_on_one_channel_wait_for_its_subscription_and_others_do_not() {
    let mut script = Script::connected();
    let frame = concat!(
        r#"{"id":2,"subscribe":{"channel":"a"}}"#,
        "\n",
        r#"{"id":3,"publish":{"channel":"a","data":1}}"#,
        "\n",
        r#"{"id":4,"unsubscribe":{"channel":"a"}}"#,
        "\n",
        r#"{"id":5,"publish":{"channel":"b","data":2}}"#,
        "\n",
        r#"{"id":6,"ping":{}}"#,
    );
    let (replies, effects) = script.say(frame);
    assert_eq!(replies, r#"{"id":6,"ping":{}}"#);
    assert!(matches!(&effects[..], [Effect::Subscribe { .. }, Effect::Publish { tag: 5, .. }]), "{effects:?}");
    let (replies, effects) = script.start_here("a");
    assert_eq!(replies, "{\"id\":2,\"subscribe\":{}}\n{\"id\":4,\"unsubscribe\":{}}");
    assert!(matches!(&effects[..], [Effect::Publish { tag: 3, .. }, Effect::Unsubscribe(_)]), "{effects:?}");
}

#[test]
fn a_subscription_is_refused_with_the_documented_error() {
    let mut script = Script::connected();
    for (request, code) in [
        (r#"{"channel":"has space"}"#, 107),
        (r#"{"channel":"longer-than-twenty-bytes"}"#, 107),
        (r#"{"channel":"a","tf":{}}"#, 107),
        (r#"{"channel":"a","type":2}"#, 103),
    ] {
        let (replies, effects) = script.say(&format!(r#"{{"id":2,"subscribe":{request}}}"#));
        assert!(replies.starts_with(&format!(r#"{{"id":2,"error":{{"code":{code},"#)), "{replies}");
        assert!(effects.is_empty());
    }
    for name in ["a", "b", "c"] {
        script.say(&format!(r#"{{"id":2,"subscribe":{{"channel":"{name}"}}}}"#));
        script.start_here(name);
    }
    assert!(script.say(r#"{"id":3,"subscribe":{"channel":"a"}}"#).0.contains("\"code\":105"));
    assert!(script.say(r#"{"id":3,"subscribe":{"channel":"d"}}"#).0.contains("\"code\":106"));
    script.say(r#"{"id":3,"unsubscribe":{"channel":"a"}}"#);
    script.say(r#"{"id":4,"subscribe":{"channel":"d"}}"#);
    let mut output = Output::default();
    script.session.refused(&topic("d"), Refused::TopicsFull, &script.rules, &mut output);
    assert!(String::from_utf8(output.replies).expect("JSON").starts_with(r#"{"id":4,"error":{"code":106,"#));
    assert!(matches!(script.say(r#"{"id":5,"subscribe":{"channel":"d"}}"#).1[..], [Effect::Subscribe { .. }]));
    assert_disconnects(&script.say(r#"{"id":6,"subscribe":{"channel":""}}"#).1, DisconnectCode::BadRequest);
}

#[test]
fn who_comes_back_is_told_what_it_missed_or_that_it_cannot_be_had() {
    let subscribe = r#"{"id":2,"subscribe":{"channel":"a","recover":true,"epoch":"abcdefgh","offset":7}}"#;
    let mut script = Script::connected();
    let (_, effects) = script.say(subscribe);
    let [Effect::Subscribe { wanted: Wanted::Since(Since::At(from)), .. }] = effects[..] else { panic!("{effects:?}") };
    assert_eq!(from, at(7));
    let missed = [message(8, "1"), message(9, &format!("\"{}\"", "x".repeat(16_384))), message(10, "3")];
    let (replies, _, seen) = script.start("a", &Start { from: at(7), gap: None }, &missed);
    let expected = concat!(
        r#"{"id":2,"subscribe":{"recoverable":true,"epoch":"abcdefgh","publications":[{"data":1,"offset":8}],"#,
        r#""recovered":true,"offset":7,"positioned":true,"was_recovering":true}}"#
    );
    assert_eq!((&*replies, seen), (expected, 8), "the rest follows");

    let gap = Some(Gap { since: "abcdefgh-7".into(), resumed: at(20) });
    let lost = Start { from: at(20), gap };
    let mut script = Script::connected();
    script.say(subscribe);
    let (replies, effects, seen) = script.start("a", &lost, &[]);
    assert!(replies.contains(r#""offset":20,"positioned":true,"was_recovering":true"#), "{replies}");
    assert!(!replies.contains("recovered\":true") && !replies.contains("publications"), "{replies}");
    assert_eq!((effects.len(), seen), (0, 20));

    let mut script = Script::connected();
    script.say(&subscribe.replace("\"recover\"", "\"flag\":2,\"recover\""));
    let (replies, effects, _) = script.start("a", &lost, &[]);
    assert!(replies.starts_with(r#"{"id":2,"error":{"code":112,"#), "{replies}");
    assert!(matches!(&effects[..], [Effect::Unsubscribe(_)]));

    for (epoch, offset, expected) in [("", 7, true), ("_", 7, false)] {
        let mut script = Script::connected();
        let asked =
            format!(r#"{{"id":2,"subscribe":{{"channel":"a","recover":true,"epoch":"{epoch}","offset":{offset}}}}}"#);
        let (_, effects) = script.say(&asked);
        let [Effect::Subscribe { wanted, .. }] = &effects[..] else { panic!("{effects:?}") };
        assert_eq!(matches!(wanted, Wanted::Offset(7)), expected, "{wanted:?}");
        assert_eq!(matches!(wanted, Wanted::Malformed(_)), !expected, "{wanted:?}");
    }
}

#[test]
fn without_history_there_is_no_position() {
    let mut script = Script::connected();
    script.rules.topics = ruled(|rules| rules.history_size = 0);
    let asked =
        r#"{"id":2,"subscribe":{"channel":"a","recover":true,"recoverable":true,"positioned":true,"offset":3}}"#;
    assert!(matches!(script.say(asked).1[..], [Effect::Subscribe { wanted: Wanted::Since(Since::Latest), .. }]));
    assert_eq!(script.start_here("a").0, r#"{"id":2,"subscribe":{"was_recovering":true}}"#);
    assert!(script.say(r#"{"id":3,"history":{"channel":"a"}}"#).0.contains("\"code\":108"));
}

#[test]
fn history_is_answered_with_its_position() {
    let mut script = Script::connected();
    for (limit, expected) in [(0, 0), (2, 2), (-1, 300), (100_000, 300)] {
        let (_, effects) = script.say(&format!(r#"{{"id":3,"history":{{"channel":"a","limit":{limit}}}}}"#));
        let [Effect::Read { read, tag: 3, .. }] = &effects[..] else { panic!("{effects:?}") };
        assert_eq!(read.limit, expected);
    }
    let mut output = Output::default();
    let start = Start { from: at(0), gap: None };
    script.session.read(3, Resolved { start, messages: vec![message(1, "{}")], head: at(9) }, &mut output);
    assert_eq!(
        String::from_utf8(output.replies).expect("JSON"),
        r#"{"id":3,"history":{"publications":[{"data":{},"offset":1}],"epoch":"abcdefgh","offset":9}}"#
    );
}

#[test]
fn what_nobody_handles_is_said() {
    let mut script = Script::connected();
    for command in [r#""rpc":{"method":"x"}"#, r#""presence":{"channel":"a"}"#, r#""refresh":{"token":"x"}"#] {
        let (replies, effects) = script.say(&format!(r#"{{"id":9,{command}}}"#));
        assert!(replies.starts_with(r#"{"id":9,"error":{"code":108,"#) && effects.is_empty(), "{replies}");
    }
    script.rules.topics = ruled(|_| ());
    assert!(script.say(r#"{"id":9,"publish":{"channel":"a","data":1}}"#).0.contains("\"code\":103"));
    assert_disconnects(&script.say(r#"{"send":{"data":1}}"#).1, DisconnectCode::NotAvailable);
    for bad in ["{", "[]", r#"{"id":1,"nothing":{}}"#, r#"{"id":1,"publish":{"channel":"a"}}"#, &"x".repeat(2000)] {
        assert_disconnects(&Script::connected().say(bad).1, DisconnectCode::BadRequest);
    }
}

#[test]
fn a_flood_behind_a_subscription_ends_the_session() {
    let mut script = Script::connected();
    script.say(r#"{"id":2,"subscribe":{"channel":"a"}}"#);
    for _ in 0..3 {
        assert!(script.say(r#"{"id":3,"publish":{"channel":"a","data":1}}"#).1.is_empty());
    }
    let (_, effects) = script.say(r#"{"id":3,"publish":{"channel":"a","data":1}}"#);
    assert_disconnects(&effects, DisconnectCode::TooManyRequests);
}

#[test]
fn who_lags_subscribes_again_or_is_disconnected() {
    for skips in [false, true] {
        let mut script = Script::connected();
        script.say(r#"{"id":2,"subscribe":{"channel":"a"}}"#);
        script.start_here("a");
        let mut output = Output::default();
        script.session.lagged(&topic("a"), skips, &mut output);
        if skips {
            let push = r#"{"push":{"channel":"a","unsubscribe":{"code":2500,"reason":"insufficient state"}}}"#;
            assert_eq!(String::from_utf8(output.replies).expect("JSON"), push);
            assert!(matches!(&output.effects[..], [Effect::Unsubscribe(_)]));
            assert!(matches!(script.say(r#"{"id":3,"subscribe":{"channel":"a"}}"#).1[..], [Effect::Subscribe { .. }]));
        } else {
            assert_disconnects(&output.effects, DisconnectCode::Slow);
        }
    }
}

#[test]
fn who_wants_to_know_who_comes_is_told_of_itself() {
    let mut script = Script::connected();
    script.rules.topics = ruled(|rules| rules.join_leave = true);
    let (_, effects) = script.say(r#"{"id":2,"subscribe":{"channel":"a","join_leave":true}}"#);
    assert!(matches!(&effects[..], [Effect::Subscribe { topic, member: None, .. }] if topic.beside() == Some("a")));
    let beside = topic("a").live();
    let mut output = Output::default();
    script.session.started(&beside, &Start { from: at(0), gap: None }, &[], &script.rules, &mut output);
    assert!(matches!(&output.effects[..], [Effect::Subscribe { topic, member: Some(_), .. }] if topic.as_str() == "a"));
    assert_eq!(script.start_here("a").0, r#"{"id":2,"subscribe":{}}"#);
    let (_, effects) = script.say(r#"{"id":3,"unsubscribe":{"channel":"a"}}"#);
    assert!(matches!(&effects[..], [Effect::Unsubscribe(first), Effect::Unsubscribe(_)] if *first == beside));
}

#[test]
fn recovery_is_given_to_all_where_it_is_forced() {
    for force_recovery in [false, true] {
        let mut script = Script::connected();
        script.rules.topics = ruled(|rules| rules.force_recovery = force_recovery);
        script.say(r#"{"id":2,"subscribe":{"channel":"a"}}"#);
        let reply = script.start_here("a").0;
        assert_eq!(reply.contains(r#""recoverable":true,"epoch":"abcdefgh","offset":7"#), force_recovery, "{reply}");
    }
}
