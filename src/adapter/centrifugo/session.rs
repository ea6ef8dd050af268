//! A client's session: commands in, replies and effects out, answers back in. Sans-IO; time is an argument.
//!
//! ```text
//!   Connecting -- connect --> Quiet --ping--> Pinged -- pong --> Answered --> Quiet
//!       | 10 s                                  | 8 s
//!       v 3502                                  v 3012
//! ```
//!
//! Commands on one channel take effect in the order in which they came: while a subscription is asked for, those behind
//! it wait in its channel.

mod called;
mod calls;
mod identity;
mod pace;
mod queries;

use super::codec::{self, Format};
use super::codes::{DisconnectCode, ErrorCode, UnsubscribeCode};
use super::emulation::Emulation;
use super::protocol::{
    Command, ConnectRequest, ConnectResult, Empty, Event, Outcome, Reply, Request, SubscribeRequest, SubscribeResult,
    Subscribed, Unsubscribe,
};
use super::push::{self, Published};
use super::token::Overrides;
use crate::config::{Right, RuleSet};
use crate::error::Refused;
use crate::limits::CENTRIFUGO_RECOVERED_BYTES;
use crate::time::{Millis, Span, Tick};
use crate::topic::{Author, Cursor, Epoch, Message, Publication, Read, Since, Start, TopicName, Wanted};
use std::sync::Arc;
use std::time::Duration;

pub(crate) use calls::ClientCall;
pub(crate) use identity::Tokens;
use identity::{Identity, ttl};
pub(crate) use pace::CommandRate;
use pace::{Bucket, Pace};

/// What holds for all sessions.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) ping_interval: Duration,
    pub(crate) pong_timeout: Duration,
    /// From the first byte to the connect command.
    pub(crate) connect_timeout: Duration,
    pub(crate) command_bytes_max: usize,
    pub(crate) channels_max: usize,
    /// Who may do what with which channels.
    pub(crate) topics: Arc<RuleSet>,
    /// The namespace of the channels of their own that users are subscribed to, if they are.
    pub(crate) personal: Option<Box<str>>,
    pub(crate) tokens: Tokens,
    /// How many commands a client may send; `None`: as many as it likes.
    pub(crate) command_rate: Option<CommandRate>,
    /// Whether there is somebody to answer calls (`rpc`).
    pub(crate) takes_calls: bool,
    /// Whether there is somebody for what clients send without a reply (`send`).
    pub(crate) takes_messages: bool,
    /// Where the commands of the session of this call go, if it has no WebSocket.
    pub(crate) emulation: Option<Emulation>,
    /// The time as of this call, on the clock that does not go back.
    pub(crate) now: Millis,
    /// The same as the time of day, in seconds of Unix time.
    pub(crate) unix_seconds: u64,
}

/// What a session wants done.
#[derive(Debug)]
pub(crate) enum Effect {
    /// As this member, if others are to know.
    Subscribe {
        topic: TopicName,
        wanted: Wanted,
        member: Option<Arc<Author>>,
    },
    Unsubscribe(TopicName),
    /// The answer comes back with the tag.
    Publish {
        topic: TopicName,
        publication: Publication,
        tag: u64,
    },
    Read {
        topic: TopicName,
        read: Read,
        tag: u64,
    },
    /// Who is there: with their names, or only how many.
    Presence {
        topic: TopicName,
        list: bool,
        tag: u64,
    },
    /// Send nothing of the topics meanwhile, or go on with that.
    Hold(bool),
    /// Call [`Session::woken`] after this time.
    Wake(Duration),
    /// The application is to see to it.
    Call(ClientCall),
    Disconnect(DisconnectCode),
    /// The same with a code of the application's.
    Close(u16, Box<str>),
}

/// What came of some input.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// Replies: one frame, unless it is empty.
    pub(crate) replies: Vec<u8>,
    /// In this order, behind the replies.
    pub(crate) effects: Vec<Effect>,
}

/// Where the heartbeat stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heart {
    Connecting,
    /// A ping is sent when the session is woken next.
    Quiet,
    /// A ping is out.
    Pinged,
    /// It was answered in time.
    Answered,
}

/// A subscription, or one that is asked for.
#[derive(Debug)]
struct Channel {
    topic: TopicName,
    /// It is told of others' coming and going too.
    joins: bool,
    asked: Option<Box<Asked>>,
}

/// A subscription that the topic's home is asked for, and the commands on its channel that came since.
#[derive(Debug, Default)]
struct Asked {
    id: u32,
    request: SubscribeRequest,
    behind: Vec<Command>,
    /// What is wanted once it is told of others' coming and going: so it is told of its own.
    next: Option<Effect>,
    /// The server ends it as soon as it has begun.
    ends: bool,
}

#[derive(Debug)]
pub(crate) struct Session {
    format: Format,
    heart: Heart,
    /// A version 4 UUID.
    client: [u8; 16],
    channels: Vec<Channel>,
    /// When the heart is due.
    due: Tick,
    /// How many commands it may send yet.
    bucket: Bucket,
    /// What tokens said: most sessions came without.
    identity: Option<Box<Identity>>,
}

impl Session {
    /// A session whose client has yet to connect; `random` is its id.
    pub(crate) fn new(format: Format, random: [u64; 2]) -> Self {
        let mut client = [0; 16];
        client[..8].copy_from_slice(&random[0].to_be_bytes());
        client[8..].copy_from_slice(&random[1].to_be_bytes());
        // RFC 9562, section 5.4.
        client[6] = client[6] & 0x0F | 0x40;
        client[8] = client[8] & 0x3F | 0x80;
        let (channels, due, bucket) = (Vec::new(), Tick::default(), Bucket::default());
        Self { format, heart: Heart::Connecting, client, channels, due, bucket, identity: None }
    }

    /// What is wanted of a session that has just begun.
    pub(crate) fn opened(rules: &Rules) -> Effect {
        Effect::Wake(rules.connect_timeout)
    }

    /// A frame came.
    pub(crate) fn input(&mut self, frame: &[u8], rules: &Rules, output: &mut Output) {
        for command in codec::commands(self.format, frame, rules.command_bytes_max) {
            let done = match command {
                Ok(command) => match self.pace(&command, rules) {
                    Pace::Within => self.command(command, rules, output),
                    Pace::Over => self.hold_back(&command, output),
                    Pace::Flood => Err(DisconnectCode::TooManyRequests),
                },
                Err(malformed) => {
                    log::debug!("session {}: {malformed}", self.client());
                    Err(DisconnectCode::BadRequest)
                }
            };
            if let Err(code) = done {
                return output.effects.push(Effect::Disconnect(code));
            }
        }
    }

    /// The id of the client, as the protocol writes it.
    pub(crate) fn client(&self) -> String {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let [a, b, c, d, e] =
            [&self.client[..4], &self.client[4..6], &self.client[6..8], &self.client[8..10], &self.client[10..]];
        format!("{}-{}-{}-{}-{}", hex(a), hex(b), hex(c), hex(d), hex(e))
    }

    fn command(&mut self, command: Command, rules: &Rules, output: &mut Output) -> Result<(), DisconnectCode> {
        let Command { id, request } = command;
        let Some(request) = request else {
            return self.pong();
        };
        match request {
            Request::Connect(connect) if self.heart == Heart::Connecting && !self.is_admitted() => {
                return self.connect(id, connect, rules, output);
            }
            Request::Connect(_) => return Err(DisconnectCode::BadRequest),
            request if self.heart == Heart::Connecting => {
                return self.wait_for_connect(Command { id, request: Some(request) }, rules);
            }
            _ => {}
        }
        if let Some(asked) = channel_of(&request).and_then(|channel| self.asked(channel)) {
            // A client that floods one channel fills its command rate elsewhere; this bounds its memory here.
            if asked.behind.len() >= rules.channels_max {
                return Err(DisconnectCode::TooManyRequests);
            }
            asked.behind.push(Command { id, request: Some(request) });
            return Ok(());
        }
        match request {
            Request::Connect(_) => unreachable!("handled above"),
            Request::Subscribe(request) => return self.subscribe(id, request, rules, output),
            Request::Unsubscribe(request) => {
                if let Some(topic) = self.channel(&request.channel)? {
                    self.leave(&topic, output);
                }
                self.reply(output, id, Outcome::Unsubscribe(Empty {}));
            }
            Request::Publish(request) => return self.publish(id, request, rules, output),
            Request::History(request) => return self.history(id, &request, rules, output),
            Request::Presence(request) => return self.presence(id, &request.channel, true, rules, output),
            Request::PresenceStats(request) => return self.presence(id, &request.channel, false, rules, output),
            Request::Refresh(request) => return self.refresh(id, &request.token, rules, output),
            Request::SubRefresh(request) => return self.sub_refresh(id, &request, rules, output),
            Request::Rpc(request) => self.rpc(id, request, rules, output),
            Request::Ping(_) => self.reply(output, id, Outcome::Ping(Empty {})),
            Request::Send(message) => return self.send(message, rules, output),
        }
        Ok(())
    }

    fn reply(&self, output: &mut Output, id: u32, outcome: Outcome) {
        codec::encode(&mut output.replies, self.format, &Reply { id, outcome: Some(outcome) });
    }

    fn fail(&self, output: &mut Output, id: u32, code: ErrorCode) {
        self.reply(output, id, Outcome::Error(code.into()));
    }

    fn pong(&mut self) -> Result<(), DisconnectCode> {
        match self.heart {
            Heart::Connecting => return Err(DisconnectCode::BadRequest),
            Heart::Pinged => self.heart = Heart::Answered,
            Heart::Quiet | Heart::Answered => {} // harmless
        }
        Ok(())
    }

    fn connect(
        &mut self,
        id: u32,
        request: ConnectRequest,
        rules: &Rules,
        output: &mut Output,
    ) -> Result<(), DisconnectCode> {
        let subs = match self.admit(&request.token, rules)? {
            Ok(subs) => subs,
            Err(code) => {
                self.fail(output, id, code);
                return Ok(());
            }
        };
        if subs.is_empty() {
            self.connected(id, Vec::new(), rules, output);
            return Ok(());
        }
        self.subscribe_by_server(id, subs, request.subs, rules, output)
    }

    /// The session begins.
    fn connected(&mut self, id: u32, subs: Vec<Subscribed>, rules: &Rules, output: &mut Output) {
        self.heart = Heart::Quiet;
        let (expires, ttl) = ttl(self.identity.as_ref().and_then(|identity| identity.expire_at), rules);
        let emulation = rules.emulation.map(|Emulation { ticket, node }| (ticket.text(), node.to_owned()));
        let (session, node) = emulation.unwrap_or_default();
        let result = ConnectResult {
            client: self.client(),
            session,
            node,
            version: concat!("throng ", env!("CARGO_PKG_VERSION")).to_owned(),
            expires,
            ttl,
            subs,
            ping: u32::try_from(rules.ping_interval.as_secs()).unwrap_or(u32::MAX),
            pong: true,
            ..ConnectResult::default()
        };
        self.reply(output, id, Outcome::Connect(result));
        output.effects.push(self.wake_after(rules.ping_interval - self.head_start(rules.ping_interval), rules));
    }

    /// How much earlier the first ping comes, up to half of the interval: those who came together are not to answer together.
    /// As random as the client's id.
    fn head_start(&self, interval: Duration) -> Duration {
        let [.., a, b, c, d] = self.client;
        let random = u128::from(u32::from_be_bytes([a, b, c, d]));
        // At most half: 32 bits of 33.
        Duration::from_millis(((interval.as_millis() * random) >> 33) as u64)
    }

    /// Has the session woken when the heart is due, or something expires before.
    fn wake_after(&mut self, heart: Duration, rules: &Rules) -> Effect {
        self.due = rules.now.tick() + Span::covering(heart);
        self.wake_within(heart, rules)
    }

    /// A channel's topic; `None` for a name that no topic can have.
    #[expect(clippy::unused_self, reason = "what a channel is called will depend on whose it is")]
    fn channel(&self, channel: &str) -> Result<Option<TopicName>, DisconnectCode> {
        if channel.is_empty() { Err(DisconnectCode::BadRequest) } else { Ok(TopicName::new(channel).ok()) }
    }

    /// The subscription to a channel that is asked for and not answered yet.
    fn asked(&mut self, name: &str) -> Option<&mut Asked> {
        self.channels.iter_mut().find(|channel| channel.topic.as_str() == name)?.asked.as_deref_mut()
    }

    fn subscribe(
        &mut self,
        id: u32,
        request: SubscribeRequest,
        rules: &Rules,
        output: &mut Output,
    ) -> Result<(), DisconnectCode> {
        let topic = self.channel(&request.channel)?.filter(|topic| topic.as_str().len() <= rules.topics.max_length);
        let refusal = match &topic {
            None => Some(ErrorCode::BadRequest),
            Some(topic) if self.channels.iter().any(|channel| channel.topic == *topic) => {
                Some(ErrorCode::AlreadySubscribed)
            }
            Some(topic) if rules.topics.of(topic.as_str()).is_none() => Some(ErrorCode::UnknownChannel),
            _ if self.channels.len() >= rules.channels_max => Some(ErrorCode::LimitExceeded),
            _ if request.tf.is_some() => Some(ErrorCode::BadRequest),
            _ if request.r#type != 0 => Some(ErrorCode::PermissionDenied),
            Some(_) => None,
        };
        let granted = match (topic, refusal) {
            (Some(topic), None) => self.may_subscribe(&topic, &request.token, rules)?.map(|()| topic),
            (_, refusal) => Err(refusal.unwrap_or(ErrorCode::BadRequest)),
        };
        let topic = match granted {
            Ok(topic) => topic,
            Err(code) => {
                self.fail(output, id, code);
                return Ok(());
            }
        };
        // Whoever may not come back to a position is not told one.
        let (ruled, insecure) = (rules.topics.at(topic.as_str()), rules.tokens.insecure);
        let may_recover =
            insecure || ruled.may_recover(self.user()) || self.is_allowed(Right::Recovery, topic.as_str());
        // Who comes and goes is who is there.
        let may_see = insecure
            || rules.topics.may(Right::Presence, topic.as_str(), self.user(), true).is_ok()
            || self.is_allowed(Right::Presence, topic.as_str());
        let request = SubscribeRequest {
            recover: request.recover && may_recover,
            recoverable: request.recoverable && may_recover,
            positioned: request.positioned && (may_recover || ruled.allow_positioning),
            join_leave: request.join_leave && may_see,
            ..request
        };
        self.ask(id, topic, request, rules, output);
        Ok(())
    }

    /// Asks the topic's home.
    fn ask(&mut self, id: u32, topic: TopicName, request: SubscribeRequest, rules: &Rules, output: &mut Output) {
        let ruled = rules.topics.at(topic.as_str());
        let wanted = if !(request.recover && ruled.has_history()) {
            Wanted::Since(Since::Latest)
        } else if request.epoch.is_empty() {
            Wanted::Offset(request.offset)
        } else {
            position(&request.epoch, request.offset)
        };
        let overrides = self.overrides(&topic);
        let member = self.member(&topic, ruled, overrides);
        let forced = overrides.force_push_join_leave.unwrap_or(ruled.force_push_join_leave);
        let joins = ruled.join_leave && (request.join_leave || forced);
        let mut next = Some(Effect::Subscribe { topic: topic.clone(), wanted, member });
        let latest = Wanted::Since(Since::Latest);
        let beside = joins.then(|| Effect::Subscribe { topic: topic.live(), wanted: latest, member: None });
        if self.is_by_server(&topic) {
            // At once: when the server API has answered, both have been asked for, and homes see to their mail in order.
            output.effects.extend(beside.into_iter().chain(next.take()));
        } else {
            output.effects.extend(beside.or_else(|| next.take()));
        }
        let asked = Some(Box::new(Asked { id, request, behind: Vec::new(), next, ends: false }));
        self.channels.reserve_exact(1);
        self.channels.push(Channel { topic, joins, asked });
    }

    /// Ends a subscription, if there is one.
    fn leave(&mut self, topic: &TopicName, output: &mut Output) {
        let Some(at) = self.channels.iter().position(|channel| channel.topic == *topic) else { return };
        let Channel { topic, joins, .. } = self.channels.remove(at);
        self.forget_grant(&topic);
        output.effects.extend(joins.then(|| Effect::Unsubscribe(topic.live())));
        output.effects.push(Effect::Unsubscribe(topic));
    }

    /// What stands beside a topic has begun, or was refused: the topic is next.
    fn beside_is_settled(&mut self, name: &str, output: &mut Output) {
        output.effects.extend(self.asked(name).and_then(|asked| asked.next.take()));
    }

    /// A subscription begins. Gives the offset of the last message that the reply holds: the rest follows.
    pub(crate) fn started(
        &mut self,
        topic: &TopicName,
        start: &Start,
        missed: &[Arc<Message>],
        rules: &Rules,
        output: &mut Output,
    ) -> u64 {
        if let Some(name) = topic.beside() {
            self.beside_is_settled(name, output);
            return start.from.offset;
        }
        let at = self.channels.iter().position(|channel| channel.topic == *topic);
        let Some(asked) = at.and_then(|at| self.channels[at].asked.take()) else {
            return start.from.offset;
        };
        let Asked { id, request, behind, ends, .. } = *asked;
        let ruled = rules.topics.at(topic.as_str());
        let recovered = request.recover && ruled.has_history() && start.gap.is_none();
        if request.flag & SubscribeRequest::REJECT_UNRECOVERED != 0 && request.recover && !recovered {
            self.leave(topic, output);
            self.fail(output, id, ErrorCode::UnrecoverablePosition);
            self.go_on(behind, rules, output);
            return start.from.offset;
        }
        let mut result = SubscribeResult { recovered, was_recovering: request.recover, ..SubscribeResult::default() };
        let (mut seen, mut bytes) = (start.from.offset, 0);
        if ruled.has_history() {
            let Overrides { force_recovery, force_positioning, .. } = self.overrides(topic);
            let (recovery, positioning) = (force_recovery, force_positioning);
            result.recoverable = recovery.unwrap_or(ruled.force_recovery) || request.recoverable || request.recover;
            result.positioned =
                positioning.unwrap_or(ruled.force_positioning) || request.positioned || result.recoverable;
        }
        if result.positioned {
            (result.epoch, result.offset) = (start.from.epoch.as_str().to_owned(), start.from.offset);
        }
        // A push has no place for what was missed: it follows.
        let is_pushed = self.is_by_server(topic) && !self.is_admitted();
        for message in missed.iter().filter(|_| recovered && !is_pushed) {
            bytes += message.payload.len();
            if bytes > CENTRIFUGO_RECOVERED_BYTES && !result.publications.is_empty() {
                break;
            }
            result.publications.push(Published::from(&**message).publication(self.format));
            seen = message.cursor.offset;
        }
        self.say_grant(topic, &mut result, rules, output);
        match self.subscribed_by_server(topic, result, rules, output) {
            Some(result) if is_pushed => self.push_subscribed(topic, result, output),
            Some(result) => self.reply(output, id, Outcome::Subscribe(result)),
            None => {}
        }
        if ends {
            self.end_subscription(topic, UnsubscribeCode::Server, output);
        }
        self.go_on(behind, rules, output);
        seen
    }

    /// A subscription was refused.
    pub(crate) fn refused(&mut self, topic: &TopicName, refused: Refused, rules: &Rules, output: &mut Output) {
        if let Some(name) = topic.beside() {
            return self.beside_is_settled(name, output);
        }
        let Some(asked) = self.asked(topic.as_str()).map(|asked| Asked { next: None, ..std::mem::take(asked) }) else {
            return;
        };
        let is_by_server = self.is_by_server(topic);
        self.leave(topic, output);
        if is_by_server {
            return output.effects.push(Effect::Disconnect(Self::refused_by_server(refused)));
        }
        self.fail(output, asked.id, error(refused));
        self.go_on(asked.behind, rules, output);
    }

    /// What waited for an answer is seen to.
    fn go_on(&mut self, behind: Vec<Command>, rules: &Rules, output: &mut Output) {
        for command in behind {
            if let Err(code) = self.command(command, rules, output) {
                return output.effects.push(Effect::Disconnect(code));
            }
        }
    }

    /// A subscriber's next message is no longer kept. With `skips` its subscription ends in a way that has the client
    /// subscribe again, which tells it of the gap; else the session does.
    pub(crate) fn lagged(&mut self, topic: &TopicName, skips: bool, output: &mut Output) {
        if !skips {
            return output.effects.push(Effect::Disconnect(DisconnectCode::Slow));
        }
        if self.is_by_server(topic) {
            return output.effects.push(Effect::Disconnect(DisconnectCode::InsufficientState));
        }
        self.end_subscription(topic, UnsubscribeCode::InsufficientState, output);
    }

    /// Ends a subscription, and has the client subscribe again if the code says so.
    fn end_subscription(&mut self, topic: &TopicName, code: UnsubscribeCode, output: &mut Output) {
        self.leave(topic, output);
        let event = Event::Unsubscribe(Unsubscribe::from(code));
        codec::encode(&mut output.replies, self.format, &push::reply(topic.as_str(), event));
    }

    /// The time has come that [`Effect::Wake`] asked for.
    pub(crate) fn woken(&mut self, rules: &Rules, output: &mut Output) {
        if self.woken_for_expiry(rules, output) {
            return;
        }
        let (next, delay) = match self.heart {
            Heart::Connecting => return output.effects.push(Effect::Disconnect(DisconnectCode::Stale)),
            Heart::Pinged => return output.effects.push(Effect::Disconnect(DisconnectCode::NoPong)),
            Heart::Answered => (Heart::Quiet, rules.ping_interval.saturating_sub(rules.pong_timeout)),
            Heart::Quiet => {
                output.replies.extend_from_slice(self.format.ping());
                (Heart::Pinged, rules.pong_timeout)
            }
        };
        self.heart = next;
        output.effects.push(self.wake_after(delay, rules));
    }
}

/// The channel that a command is about, if it has to wait for others on it.
fn channel_of(request: &Request) -> Option<&str> {
    Some(match request {
        Request::Subscribe(request) => &request.channel,
        Request::Unsubscribe(request) | Request::Presence(request) | Request::PresenceStats(request) => {
            &request.channel
        }
        Request::Publish(request) => &request.channel,
        Request::History(request) => &request.channel,
        Request::SubRefresh(request) => &request.channel,
        Request::Connect(_) | Request::Ping(_) | Request::Send(_) | Request::Rpc(_) | Request::Refresh(_) => {
            return None;
        }
    })
}

/// Behind a message; what is no epoch of ours is a position that cannot be recovered.
pub(super) fn position(epoch: &str, offset: u64) -> Wanted {
    match epoch.parse::<Epoch>() {
        Ok(epoch) => Wanted::Since(Since::At(Cursor { epoch, offset })),
        Err(_) => Wanted::Malformed(format!("{epoch}-{offset}").into()),
    }
}

/// How a refusal of ours is said.
fn error(refused: Refused) -> ErrorCode {
    match refused {
        Refused::TopicsFull | Refused::TooManySubscriptions => ErrorCode::LimitExceeded,
        _ => ErrorCode::Internal,
    }
}
