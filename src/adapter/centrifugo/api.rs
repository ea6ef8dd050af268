//! The server API: what the application's server asks, in JSON, and what it is answered.
//!
//! ```text
//!   POST /api/publish   {"channel":"a","data":{}}             {"result":{"offset":1,"epoch":"..."}}
//!   POST /api/batch     {"commands":[{"publish":{...}}]}      {"replies":[{"publish":{...}}]}
//! ```
//!
//! As everywhere in this protocol `null` is the same as absent, but for `data`, and what is not known is skipped.

use super::codec::Format;
use super::codes::ErrorCode;
use super::protocol::{HistoryResult, StreamPosition};
use super::push::{self, Published};
use super::session::position;
use crate::error::Refused;
use crate::json;
use crate::limits::API_ANSWER_BYTES_MAX;
use crate::topic::{Census, Cursor, Message, Presence, Publication, Read, Resolved, Since, Tags, TopicName, Wanted};
use base64::engine::{Engine, general_purpose::STANDARD};
use calls::{DisconnectRequest, RefreshRequest, SubscribeRequest, UnsubscribeRequest};
use serde::de::{Deserialize, DeserializeOwned, Deserializer, IgnoredAny};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Publish,
    Broadcast,
    History,
    HistoryRemove,
    Presence,
    PresenceStats,
    Channels,
    Info,
    Batch,
    Disconnect,
    Unsubscribe,
    Subscribe,
    Refresh,
}

impl Method {
    /// By the last segment of the URL.
    pub(crate) fn of(segment: &str) -> Option<Self> {
        Some(match segment {
            "publish" => Self::Publish,
            "broadcast" => Self::Broadcast,
            "history" => Self::History,
            "history_remove" => Self::HistoryRemove,
            "presence" => Self::Presence,
            "presence_stats" => Self::PresenceStats,
            "channels" => Self::Channels,
            "info" => Self::Info,
            "batch" => Self::Batch,
            "disconnect" => Self::Disconnect,
            "unsubscribe" => Self::Unsubscribe,
            "subscribe" => Self::Subscribe,
            "refresh" => Self::Refresh,
            _ => return None,
        })
    }
}

/// Why a command failed, in an answer of status 200.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    code: ErrorCode,
    detail: Cow<'static, str>,
}

impl Failure {
    pub(crate) fn new(code: ErrorCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, detail: detail.into() }
    }

    fn bad(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::BadRequest, detail)
    }

    /// `{"code":107,"message":"bad request: ..."}`
    fn write(&self, out: &mut Vec<u8>) {
        let mut message = self.code.text().to_owned();
        if !self.detail.is_empty() {
            let _ = write!(message, ": {}", self.detail);
        }
        out.extend_from_slice(format!("{{\"code\":{},\"message\":", self.code.code()).as_bytes());
        json::push_string(out, message.as_bytes());
        out.push(b'}');
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::TopicsFull => Self::new(ErrorCode::LimitExceeded, refused.text()),
            Refused::NoPresence => Self::new(ErrorCode::NotAvailable, refused.text()),
            _ => Self::new(ErrorCode::Internal, ""),
        }
    }
}

/// One thing to do.
#[derive(Debug)]
pub(crate) enum Command {
    Publish(PublishRequest),
    Broadcast(PublishRequest),
    History(HistoryRequest),
    HistoryRemove(ChannelRequest),
    Presence(ChannelRequest),
    PresenceStats(ChannelRequest),
    Channels(ChannelsRequest),
    Info,
    Disconnect(DisconnectRequest),
    Unsubscribe(UnsubscribeRequest),
    Subscribe(Box<SubscribeRequest>),
    Refresh(RefreshRequest),
    /// Nothing that is known.
    Unknown,
}

impl Command {
    /// What it is called in a batch's reply.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Publish(_) => "publish",
            Self::Broadcast(_) => "broadcast",
            Self::History(_) => "history",
            Self::HistoryRemove(_) => "history_remove",
            Self::Presence(_) => "presence",
            Self::PresenceStats(_) => "presence_stats",
            Self::Channels(_) => "channels",
            Self::Info => "info",
            Self::Disconnect(_) => "disconnect",
            Self::Unsubscribe(_) => "unsubscribe",
            Self::Subscribe(_) => "subscribe",
            Self::Refresh(_) => "refresh",
            Self::Unknown => "",
        }
    }

    /// The body of a request that is one command.
    pub(crate) fn read(method: Method, body: &[u8]) -> Result<Self, serde_json::Error> {
        Ok(match method {
            Method::Publish => Self::Publish(object(body)?),
            Method::Broadcast => Self::Broadcast(object(body)?),
            Method::History => Self::History(object(body)?),
            Method::HistoryRemove => Self::HistoryRemove(object(body)?),
            Method::Presence => Self::Presence(object(body)?),
            Method::PresenceStats => Self::PresenceStats(object(body)?),
            Method::Channels => Self::Channels(object(body)?),
            Method::Info => object::<ChannelRequest>(body).map(|_| Self::Info)?,
            Method::Disconnect => Self::Disconnect(object(body)?),
            Method::Unsubscribe => Self::Unsubscribe(object(body)?),
            Method::Subscribe => Self::Subscribe(object(body)?),
            Method::Refresh => Self::Refresh(object(body)?),
            Method::Batch => Self::Unknown,
        })
    }
}

/// The body of a batch: its commands, and whether their order does not matter.
pub(crate) fn batch(body: &[u8]) -> Result<(Vec<Command>, bool), serde_json::Error> {
    let BatchRequest { commands, parallel } = object(body)?;
    let command = |line: Option<Line>| line.map_or(Command::Unknown, Command::from);
    Ok((commands.into_iter().map(command).collect(), parallel))
}

/// A message. `serde` would take an array too, as the fields in their order.
fn object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, serde_json::Error> {
    let message = serde_json::from_slice(json)?;
    if json.trim_ascii_start().starts_with(b"{") {
        return Ok(message);
    }
    Err(serde::de::Error::custom("expected an object"))
}

/// `null` is the same as absent.
fn lenient<'de, D: Deserializer<'de>, T: Default + DeserializeOwned>(deserializer: D) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// JSON as it stands.
fn raw<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<str>>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(|json| Some(json.get().into()))
}

macro_rules! requests {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty = $read:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Default, serde::Deserialize)]
        #[serde(default)]
        pub(crate) struct $name {$(
            #[serde(deserialize_with = $read)]
            pub(crate) $field: $type,
        )*}
    )*};
}

// Below the macro, which it uses.
mod calls;

requests! {
    /// What is published, and where: a broadcast has `channels`.
    PublishRequest {
        channel: String = "lenient",
        channels: Vec<String> = "lenient",
        data: Option<Box<str>> = "raw",
        b64data: String = "lenient",
        skip_history: bool = "lenient",
        tags: BTreeMap<String, String> = "lenient",
        idempotency_key: String = "lenient",
        version: u64 = "lenient",
    }

    /// What is kept of a channel.
    HistoryRequest {
        channel: String = "lenient",
        limit: i32 = "lenient",
        since: Option<StreamPosition> = "lenient",
        reverse: bool = "lenient",
    }

    /// A channel.
    ChannelRequest {
        channel: String = "lenient",
    }

    /// The channels that are listened to.
    ChannelsRequest {
        pattern: String = "lenient",
    }
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct BatchRequest {
    commands: Vec<Option<Line>>,
    #[serde(deserialize_with = "lenient")]
    parallel: bool,
}

/// A command of a batch.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Line {
    publish: Option<PublishRequest>,
    broadcast: Option<PublishRequest>,
    subscribe: Option<Box<SubscribeRequest>>,
    unsubscribe: Option<UnsubscribeRequest>,
    disconnect: Option<DisconnectRequest>,
    history: Option<HistoryRequest>,
    history_remove: Option<ChannelRequest>,
    presence: Option<ChannelRequest>,
    presence_stats: Option<ChannelRequest>,
    info: Option<IgnoredAny>,
    refresh: Option<RefreshRequest>,
    channels: Option<ChannelsRequest>,
}

impl From<Line> for Command {
    /// The first in the order of the schema counts.
    fn from(line: Line) -> Self {
        (line.publish.map(Self::Publish))
            .or(line.broadcast.map(Self::Broadcast))
            .or(line.subscribe.map(Self::Subscribe))
            .or(line.unsubscribe.map(Self::Unsubscribe))
            .or(line.disconnect.map(Self::Disconnect))
            .or(line.history.map(Self::History))
            .or(line.history_remove.map(Self::HistoryRemove))
            .or(line.presence.map(Self::Presence))
            .or(line.presence_stats.map(Self::PresenceStats))
            .or(line.info.map(|_| Self::Info))
            .or(line.refresh.map(Self::Refresh))
            .or(line.channels.map(Self::Channels))
            .unwrap_or(Self::Unknown)
    }
}

/// A channel's topic.
pub(crate) fn topic(channel: &str) -> Result<TopicName, Failure> {
    TopicName::new(channel).map_err(|error| Failure::bad(error.to_string()))
}

impl PublishRequest {
    /// What is to be published.
    pub(crate) fn publication(&mut self) -> Result<Publication, Failure> {
        if self.version != 0 {
            return Err(Failure::new(ErrorCode::NotAvailable, "publications have no `version` here"));
        }
        let (format, data) = match (&*self.b64data, self.data.take()) {
            ("", Some(data)) => (Format::Json, data.into_string().into_bytes()),
            ("", None) => return Err(Failure::bad("give `data`, any JSON, or `b64data`")),
            (base64, _) => match STANDARD.decode(base64) {
                Ok(data) => (Format::Protobuf, data),
                Err(error) => return Err(Failure::bad(format!("`b64data` is not base64: {error}"))),
            },
        };
        let kind = push::kind_of(format, &data).map_err(|error| Failure::bad(format!("`data`: {error}")))?;
        let mut publication =
            Publication::new(kind, data.into()).tagged(Tags::from_iter(std::mem::take(&mut self.tags)));
        publication.skips_history = self.skip_history;
        Ok(match &*self.idempotency_key {
            "" => publication,
            key => publication.idempotency_key(key),
        })
    }
}

impl HistoryRequest {
    /// What its channel's home is asked. Without a limit the position alone, with a negative one everything.
    pub(crate) fn question(&self) -> Read {
        let wanted = match &self.since {
            None if self.reverse => Wanted::Since(Since::Latest),
            None => Wanted::Since(Since::Earliest),
            Some(since) if since.epoch.is_empty() => Wanted::Offset(since.offset),
            Some(since) => position(&since.epoch, since.offset),
        };
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        Read { limit, reverse: self.reverse, ..Read::all(wanted) }
    }
}

/// Who is there: with their names, or only how many.
pub(crate) fn presence(presence: &Presence, list: bool) -> Vec<u8> {
    if !list {
        let Presence { clients, users, .. } = presence;
        return format!("{{\"num_clients\":{clients},\"num_users\":{users}}}").into_bytes();
    }
    let mut out = b"{\"presence\":{".to_vec();
    for (index, member) in presence.members.iter().enumerate() {
        out.extend_from_slice(if index > 0 { b"," } else { b"" });
        json::push_string(&mut out, member.client.as_bytes());
        out.push(b':');
        // What a client is told of others is always JSON.
        out.extend_from_slice(&serde_json::to_vec(&push::client_info(member)).unwrap_or_else(|_| b"{}".to_vec()));
    }
    out.extend_from_slice(b"}}");
    out
}

/// The answers of one request: a single one, or the replies of a batch.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    out: Vec<u8>,
    is_batch: bool,
    /// Bytes of payload so far.
    payload_bytes: usize,
}

impl Answers {
    pub(crate) fn new(is_batch: bool) -> Self {
        Self { out: if is_batch { b"{\"replies\":[".to_vec() } else { Vec::new() }, is_batch, payload_bytes: 0 }
    }

    /// The next command's outcome; a result is JSON.
    pub(crate) fn push(&mut self, name: &str, outcome: Result<Vec<u8>, Failure>) {
        if self.is_batch && !self.out.ends_with(b"[") {
            self.out.push(b',');
        }
        self.write(if self.is_batch { name } else { "result" }, outcome);
    }

    fn write(&mut self, name: &str, outcome: Result<Vec<u8>, Failure>) {
        let name = if outcome.is_ok() { name } else { "error" };
        self.out.extend_from_slice(format!("{{\"{name}\":").as_bytes());
        match outcome {
            Ok(result) => self.out.extend_from_slice(&result),
            Err(failure) => failure.write(&mut self.out),
        }
        self.out.push(b'}');
    }

    /// What is kept of a channel, unless that is too much.
    pub(crate) fn history(&mut self, resolved: &Resolved) -> Result<Vec<u8>, Failure> {
        let Resolved { start, messages, head } = resolved;
        if start.gap.is_some() {
            return Err(Failure::new(ErrorCode::UnrecoverablePosition, ""));
        }
        self.payload_bytes += messages.iter().map(|message| message.payload.len()).sum::<usize>();
        if self.payload_bytes > API_ANSWER_BYTES_MAX && messages.len() > 1 {
            return Err(Failure::new(ErrorCode::LimitExceeded, "ask for less at a time: give a smaller `limit`"));
        }
        let publication = |message: &Arc<Message>| Published::from(&**message).publication(Format::Json);
        let publications = messages.iter().map(publication).collect();
        let result = HistoryResult { publications, epoch: head.epoch.as_str().to_owned(), offset: head.offset };
        serde_json::to_vec(&result).map_err(|_| Failure::new(ErrorCode::Internal, ""))
    }

    /// The body of the response.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.out.extend_from_slice(if self.is_batch { b"]}\n" } else { b"\n" });
        self.out
    }
}

/// Where a publication stands; nowhere that one can come back to, without history.
pub(crate) fn published(cursor: Cursor, has_history: bool) -> Vec<u8> {
    match has_history {
        true => format!("{{\"offset\":{},\"epoch\":\"{}\"}}", cursor.offset, cursor.epoch.as_str()).into_bytes(),
        false => b"{}".to_vec(),
    }
}

/// What came of a broadcast, channel by channel.
pub(crate) fn responses(outcomes: impl Iterator<Item = Result<Vec<u8>, Failure>>) -> Vec<u8> {
    let mut answers = Answers { out: b"{\"responses\":[".to_vec(), ..Answers::default() };
    for outcome in outcomes {
        if !answers.out.ends_with(b"[") {
            answers.out.push(b',');
        }
        answers.write("result", outcome);
    }
    answers.out.extend_from_slice(b"]}");
    answers.out
}

/// The channels that are listened to, and by how many.
pub(crate) fn channels(found: Vec<(TopicName, usize)>) -> Vec<u8> {
    let mut channels = BTreeMap::<TopicName, usize>::new();
    for (name, clients) in found {
        *channels.entry(name).or_default() += clients;
    }
    let mut out = b"{\"channels\":{".to_vec();
    for (name, clients) in channels {
        if !out.ends_with(b"{") {
            out.push(b',');
        }
        json::push_string(&mut out, name.as_str().as_bytes());
        out.extend_from_slice(format!(":{{\"num_clients\":{clients}}}").as_bytes());
    }
    out.extend_from_slice(b"}}");
    out
}

/// The one node that there is.
pub(crate) fn info(node: &str, census: &Census) -> Vec<u8> {
    let Census { clients, subscriptions, topics, uptime_ms } = census;
    let (version, uptime) = (env!("CARGO_PKG_VERSION"), uptime_ms / 1000);
    format!(
        "{{\"nodes\":[{{\"uid\":\"{node}\",\"name\":\"throng\",\"version\":\"throng {version}\",\
         \"num_clients\":{clients},\"num_users\":0,\"num_subs\":{subscriptions},\"num_channels\":{topics},\
         \"uptime\":{uptime}}}]}}"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::{Kind, Start};

    fn publish(body: &str) -> Result<Publication, String> {
        let failed = |failure: Failure| {
            let mut out = Vec::new();
            failure.write(&mut out);
            String::from_utf8(out).unwrap()
        };
        match Command::read(Method::Publish, body.as_bytes()) {
            Ok(Command::Publish(mut request)) => request.publication().map_err(failed),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn data_is_any_json_and_b64data_any_bytes() {
        for (body, kind, payload) in [
            (r#"{"data":{"a": [1]}}"#, Kind::Json, &br#"{"a": [1]}"#[..]),
            (r#"{"data":"text"}"#, Kind::Json, br#""text""#),
            (r#"{"data":null}"#, Kind::Json, b"null"),
            (r#"{"b64data":"/w==","data":1}"#, Kind::Bytes, b"\xff"),
            (r#"{"b64data":"e30="}"#, Kind::Json, b"{}"),
            (r#"{"data":1,"delta":true,"tags":null,"idempotency_key":null,"unknown":{}}"#, Kind::Json, b"1"),
        ] {
            let publication = publish(body).unwrap();
            assert_eq!((publication.kind, &*publication.payload), (kind, payload), "{body}");
            assert_eq!((&publication.tags, &publication.key), (&None, &None), "{body}");
        }
        let publication = publish(r#"{"data":1,"tags":{"a":"b"},"idempotency_key":"k"}"#).unwrap();
        assert_eq!(publication.tags.unwrap()["a"], "b");
        assert_eq!(publication.key.as_deref(), Some(&b"k"[..]));
        assert!(!publication.skips_history && publish(r#"{"data":1,"skip_history":true}"#).unwrap().skips_history);
    }

    #[test]
    fn what_cannot_be_published_is_an_error_that_says_why() {
        for (body, code) in [
            ("{}", 107),
            (r#"{"b64data":"?"}"#, 107),
            (&*format!("{{\"data\":{}1{}}}", "[".repeat(129), "]".repeat(129)), 107),
            (r#"{"data":1,"version":2}"#, 108),
        ] {
            let said = publish(body).unwrap_err();
            assert!(said.starts_with(&format!("{{\"code\":{code},\"message\":\"")), "{body}: {said}");
        }
        for body in ["", "[]", "{", "null", r#"{"channel":1}"#, r#"{"tags":{"a":1}}"#, "{} {}"] {
            assert!(Command::read(Method::Publish, body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn a_batch_is_commands_each_by_its_first_name() {
        let body = br#"{"parallel":true,"commands":[{"publish":{"channel":"a"}},{"info":{}},null,{"rpc":{}},
            {"presence":{"channel":"a"}},{"channels":{},"history":{}},{"history_remove":null,"broadcast":{}}]}"#;
        let (commands, parallel) = batch(body).unwrap();
        let names: Vec<_> = commands.iter().map(Command::name).collect();
        assert_eq!(names, ["publish", "info", "", "", "presence", "history", "broadcast"]);
        assert!(parallel && !batch(b"{}").unwrap().1);
        assert!(batch(b"[]").is_err() && batch(br#"{"commands":{}}"#).is_err());
    }

    #[test]
    fn answers_are_results_and_errors() {
        let mut single = Answers::new(false);
        single.push("publish", Ok(published("abcdefgh-7".parse().unwrap(), true)));
        assert_eq!(single.finish(), b"{\"result\":{\"offset\":7,\"epoch\":\"abcdefgh\"}}\n");
        let mut batch = Answers::new(true);
        batch.push("history_remove", Ok(b"{}".to_vec()));
        batch.push("", Err(Failure::new(ErrorCode::NotAvailable, "a \"b\"")));
        let outcomes = [Ok(published("abcdefgh-7".parse().unwrap(), false)), Err(Failure::bad(""))];
        batch.push("broadcast", Ok(responses(outcomes.into_iter())));
        let expected = r#"{"replies":[{"history_remove":{}},{"error":{"code":108,"message":"not available: a \"b\""}},"#
            .to_owned()
            + r#"{"broadcast":{"responses":[{"result":{}},{"error":{"code":107,"message":"bad request"}}]}}]}"#;
        assert_eq!(String::from_utf8(batch.finish()).unwrap(), expected + "\n");
        assert_eq!(Answers::new(true).finish(), b"{\"replies\":[]}\n");
    }

    #[test]
    fn channels_and_nodes_are_there_even_when_empty() {
        assert_eq!(channels(Vec::new()), b"{\"channels\":{}}");
        let name = |name| TopicName::new(name).unwrap();
        let found = channels(vec![(name("b"), 1), (name("a\""), 2), (name("b"), 3)]);
        assert_eq!(found, br#"{"channels":{"a\"":{"num_clients":2},"b":{"num_clients":4}}}"#);
        let info = info("n", &Census::default());
        assert!(json::validate(&info).is_ok() && info.starts_with(br#"{"nodes":[{"uid":"n","name":"throng","#));
    }

    #[test]
    fn history_is_written_with_tags_and_ends_at_its_bounds() {
        let question = |body: &str| match Command::read(Method::History, body.as_bytes()).unwrap() {
            Command::History(request) => request.question(),
            _ => unreachable!(),
        };
        assert_eq!((question("{}").limit, question(r#"{"limit":-1}"#).limit), (0, usize::MAX));
        assert!(matches!(question(r#"{"since":{"offset":3}}"#).wanted, Wanted::Offset(3)));
        assert!(matches!(question(r#"{"since":{"epoch":"!"}}"#).wanted, Wanted::Malformed(_)));
        assert!(matches!(question(r#"{"reverse":true}"#).wanted, Wanted::Since(Since::Latest)));
        let head: Cursor = "abcdefgh-1".parse().unwrap();
        let message = |payload: &str| {
            let tags = Tags::from([("a".to_owned(), "b".to_owned())]);
            let publication = Publication::new(Kind::Json, payload.as_bytes().into()).tagged(tags);
            Arc::new(Message::new(TopicName::new("t").unwrap(), head, true, publication, 0))
        };
        let resolved = |messages| Resolved { start: Start { from: head, gap: None }, messages, head };
        let written = Answers::new(false).history(&resolved(vec![message("{}")])).unwrap();
        let expected = r#"{"publications":[{"data":{},"offset":1,"tags":{"a":"b"}}],"epoch":"abcdefgh","offset":1}"#;
        assert_eq!(String::from_utf8(written).unwrap(), expected);
        let large = message(&format!("\"{}\"", "x".repeat(API_ANSWER_BYTES_MAX)));
        assert!(Answers::new(false).history(&resolved(vec![large.clone()])).is_ok(), "one always fits");
        let failure = Answers::new(false).history(&resolved(vec![message("1"), large])).unwrap_err();
        assert_eq!(failure.code, ErrorCode::LimitExceeded);
    }
}
