//! A session of Centrifugo's protocol: whatever a client sends, and whenever answers come, each reply can be read and answers
//! a command, and each command is answered once.

use super::settings;
use crate::adapter::centrifugo::codec::{Format, commands};
use crate::adapter::centrifugo::protocol::{Outcome, Reply, Request};
use crate::adapter::centrifugo::session::{Effect, Output, Rules, Session, Tokens};
use crate::config::{Allow, RuleSet};
use crate::error::Refused;
use crate::json::validate;
use crate::time::Millis;
use crate::topic::{Cursor, Gap, Message as Entry, Presence, Publication, Resolved, Start, TopicName};
use prost::Message;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// Two bytes of settings (format and rules), then steps of a byte for what happens, a length, and as many bytes.
pub(super) fn session(data: &[u8]) {
    let ([format, ruled], mut script) = settings::<2>(data);
    let format = if format % 2 == 0 { Format::Json } else { Format::Protobuf };
    let mut play = Play::new(format, ruled);
    while let Some((&[step, length], rest)) = script.split_first_chunk() {
        let (bytes, rest) = rest.split_at(rest.len().min(length.into()));
        script = rest;
        match step % 8 {
            0..4 => play.say(bytes),
            4 => play.wake(),
            5 => play.answer(true),
            6 => play.answer(false),
            _ => play.lag(step & 8 == 0),
        }
    }
    while !play.pending.is_empty() {
        play.answer(true);
    }
    if !play.is_over {
        assert!(play.asked.values().all(|&count| count == 0), "a command was not answered: {:?}", play.asked);
    }
}

fn rules(ruled: u8) -> Rules {
    let mut topics = RuleSet::open();
    let rule = &mut topics.without_namespace;
    rule.allow_publish = if ruled & 1 == 0 { Allow::EVERYBODY } else { rule.allow_publish };
    (rule.presence, rule.join_leave) = (ruled & 2 == 0, ruled & 4 != 0);
    topics.max_length = 20;
    Rules {
        ping_interval: 25 * SECOND,
        pong_timeout: 8 * SECOND,
        connect_timeout: 10 * SECOND,
        command_bytes_max: 200,
        channels_max: 3,
        topics: Arc::new(topics),
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

/// The session, and the worker around it.
struct Play {
    session: Session,
    format: Format,
    rules: Rules,
    /// What it waits for.
    pending: VecDeque<Effect>,
    wake: Option<Duration>,
    subscribed: Vec<TopicName>,
    /// Commands that have not been answered, by their id.
    asked: HashMap<u32, u32>,
    is_over: bool,
}

impl Play {
    fn new(format: Format, ruled: u8) -> Self {
        let session = Session::new(format, [1, 2]);
        let (pending, subscribed, asked) = (VecDeque::new(), Vec::new(), HashMap::new());
        let rules = rules(ruled);
        Self { session, format, rules, pending, wake: Some(10 * SECOND), subscribed, asked, is_over: false }
    }

    fn say(&mut self, frame: &[u8]) {
        if self.is_over {
            return;
        }
        let mut replies_due = 0;
        for command in commands(self.format, frame, self.rules.command_bytes_max).map_while(Result::ok) {
            if command.request.is_some_and(|request| !matches!(request, Request::Send(_))) {
                *self.asked.entry(command.id).or_default() += 1;
                replies_due += 1;
            }
        }
        let mut output = Output::default();
        self.session.input(frame, &self.rules, &mut output);
        let replied = self.done(output);
        assert!(replied <= replies_due + self.rules.channels_max * self.rules.channels_max, "{replied} replies");
    }

    fn wake(&mut self) {
        let Some(after) = self.wake.take().filter(|_| !self.is_over) else { return };
        self.rules.now.0 += after.as_millis() as u64;
        self.rules.unix_seconds += after.as_secs();
        let mut output = Output::default();
        self.session.woken(&self.rules, &mut output);
        self.done(output);
        assert!(self.is_over || self.wake.is_some(), "it would sleep for ever");
    }

    /// What it waits for longest, comes; well or not.
    fn answer(&mut self, well: bool) {
        let Some(effect) = self.pending.pop_front() else { return };
        let mut output = Output::default();
        let from = Cursor { epoch: "abcdefgh".parse().expect("an epoch"), offset: 7 };
        let gap = (!well).then(|| Gap { since: "x".into(), resumed: from });
        match effect {
            Effect::Subscribe { topic, .. } if well || topic.beside().is_some() => {
                let start = Start { from, gap: None };
                let missed = [8, 9].map(|offset| entry(&topic, offset));
                let seen = self.session.started(&topic, &start, &missed, &self.rules, &mut output);
                assert!((7..=9).contains(&seen), "{seen}");
                self.subscribed.push(topic);
            }
            Effect::Subscribe { topic, .. } => {
                self.session.refused(&topic, Refused::TopicsFull, &self.rules, &mut output);
            }
            Effect::Publish { tag, .. } => {
                let outcome = if well { Ok(()) } else { Err(Refused::TopicsFull) };
                self.session.published(tag, outcome, &mut output);
            }
            Effect::Read { topic, tag, .. } => {
                let messages = vec![entry(&topic, 8)];
                let resolved = Resolved { start: Start { from, gap }, messages, head: Cursor { offset: 8, ..from } };
                self.session.read(tag, resolved, &mut output);
            }
            Effect::Presence { tag, .. } => {
                self.session.present(tag, &Presence { clients: 2, users: 1, members: Vec::new() }, &mut output);
            }
            other => unreachable!("{other:?} waits for nothing"),
        }
        self.done(output);
    }

    /// The subscription that began first falls behind.
    fn lag(&mut self, skips: bool) {
        let Some(topic) = self.subscribed.first().cloned().filter(|topic| topic.beside().is_none()) else { return };
        if self.is_over {
            return;
        }
        let mut output = Output::default();
        self.session.lagged(&topic, skips, &mut output);
        self.done(output);
    }

    /// Takes what came of something: how many replies there were.
    fn done(&mut self, output: Output) -> usize {
        let ids = self.ids(&output.replies);
        for id in &ids {
            let asked = self.asked.get_mut(id).filter(|count| **count > 0);
            *asked.unwrap_or_else(|| panic!("nobody asked for the reply to {id}")) -= 1;
        }
        for effect in output.effects {
            match effect {
                Effect::Disconnect(_) | Effect::Close(..) => self.is_over = true,
                Effect::Wake(after) => self.wake = Some(after),
                Effect::Unsubscribe(topic) => self.subscribed.retain(|other| *other != topic),
                Effect::Hold(_) => {}
                Effect::Call(call) => panic!("nobody takes calls: {call:?}"),
                effect => self.pending.push_back(effect),
            }
        }
        if self.is_over {
            self.pending.clear();
        }
        ids.len()
    }

    /// The ids of the commands that a frame of replies answers.
    fn ids(&self, replies: &[u8]) -> Vec<u32> {
        match self.format {
            Format::Json if replies.is_empty() => Vec::new(),
            Format::Json => replies.split(|&byte| byte == b'\n').filter_map(id_of_line).collect(),
            Format::Protobuf => {
                let (mut rest, mut ids) = (replies, Vec::new());
                while !rest.is_empty() {
                    let Reply { id, outcome } = Reply::decode_length_delimited(&mut rest).expect("a reply");
                    ids.extend(outcome.is_some_and(|outcome| !matches!(outcome, Outcome::Push(_))).then_some(id));
                }
                ids
            }
        }
    }
}

/// `None`: a push, or a ping.
fn id_of_line(line: &[u8]) -> Option<u32> {
    validate(line).unwrap_or_else(|error| panic!("{error} of {}", String::from_utf8_lossy(line)));
    let reply: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(line).expect("an object");
    let id = reply.get("id").map_or(0, |id| id.as_u64().and_then(|id| u32::try_from(id).ok()).expect("an id"));
    (!reply.is_empty() && !reply.contains_key("push")).then_some(id)
}

fn entry(topic: &TopicName, offset: u64) -> Arc<Entry> {
    let at = Cursor { epoch: "abcdefgh".parse().expect("an epoch"), offset };
    Arc::new(Entry::new(topic.clone(), at, true, Publication::json("[1,\n2]").expect("JSON"), 0))
}
