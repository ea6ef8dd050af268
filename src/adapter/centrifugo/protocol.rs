//! The messages, with the field numbers and names of `client.proto`.
//!
//! One set of structs for both encodings: Protobuf by `prost` (nothing is sent for an empty field, proto3), JSON by
//! [`Field`]. Where the Go server's JSON sends a field even when it is empty, the struct is written out below.

use super::field::{Field, Schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;

macro_rules! messages {
    ($(
        $(#[$doc:meta])*
        $name:ident { $($(#[$note:meta])* $field:ident: $type:ty = ($($kind:tt)*),)* }
    )*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
        #[serde(default)]
        pub(crate) struct $name {$(
            $(#[$note])*
            #[prost($($kind)*)]
            #[serde(
                skip_serializing_if = "Field::is_absent",
                serialize_with = "Field::write",
                deserialize_with = "Field::read"
            )]
            pub(crate) $field: $type,
        )*}

        impl Schema for $name {}
    )*};
}

// From the client.

/// What a client asks; nothing at all is a pong.
#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[cfg_attr(any(test, fuzzing), derive(Serialize))]
#[serde(from = "Line")]
pub(crate) struct Command {
    /// Given back with the reply; 0 for what has none.
    #[prost(uint32, tag = "1")]
    pub(crate) id: u32,
    #[prost(oneof = "Request", tags = "4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15")]
    #[cfg_attr(any(test, fuzzing), serde(flatten))]
    pub(crate) request: Option<Request>,
}

/// The twelve things to ask for. The schema has separate fields, of which the first counts; on the wire of Protobuf
/// that is the same but for who sends several, where the last does.
#[derive(Clone, PartialEq, prost::Oneof)]
#[cfg_attr(any(test, fuzzing), derive(Serialize), serde(rename_all = "snake_case"))]
pub(crate) enum Request {
    #[prost(message, tag = "4")]
    Connect(ConnectRequest),
    #[prost(message, tag = "5")]
    Subscribe(SubscribeRequest),
    #[prost(message, tag = "6")]
    Unsubscribe(ChannelRequest),
    #[prost(message, tag = "7")]
    Publish(PublishRequest),
    #[prost(message, tag = "8")]
    Presence(ChannelRequest),
    #[prost(message, tag = "9")]
    PresenceStats(ChannelRequest),
    #[prost(message, tag = "10")]
    History(HistoryRequest),
    #[prost(message, tag = "11")]
    Ping(Empty),
    #[prost(message, tag = "12")]
    Send(Message),
    #[prost(message, tag = "13")]
    Rpc(RpcRequest),
    #[prost(message, tag = "14")]
    Refresh(RefreshRequest),
    #[prost(message, tag = "15")]
    SubRefresh(SubRefreshRequest),
}

/// A command as JSON has it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Line {
    #[serde(deserialize_with = "Field::read")]
    id: u32,
    connect: Option<ConnectRequest>,
    subscribe: Option<SubscribeRequest>,
    unsubscribe: Option<ChannelRequest>,
    publish: Option<PublishRequest>,
    presence: Option<ChannelRequest>,
    presence_stats: Option<ChannelRequest>,
    history: Option<HistoryRequest>,
    ping: Option<Empty>,
    send: Option<Message>,
    rpc: Option<RpcRequest>,
    refresh: Option<RefreshRequest>,
    sub_refresh: Option<SubRefreshRequest>,
}

impl From<Line> for Command {
    fn from(line: Line) -> Self {
        let request = (line.connect.map(Request::Connect))
            .or(line.subscribe.map(Request::Subscribe))
            .or(line.unsubscribe.map(Request::Unsubscribe))
            .or(line.publish.map(Request::Publish))
            .or(line.presence.map(Request::Presence))
            .or(line.presence_stats.map(Request::PresenceStats))
            .or(line.history.map(Request::History))
            .or(line.ping.map(Request::Ping))
            .or(line.send.map(Request::Send))
            .or(line.rpc.map(Request::Rpc))
            .or(line.refresh.map(Request::Refresh))
            .or(line.sub_refresh.map(Request::SubRefresh));
        Self { id: line.id, request }
    }
}

messages! {
    /// Begins a session.
    ConnectRequest {
        token: String = (string, tag = "1"),
        data: Vec<u8> = (bytes = "vec", tag = "2"),
        /// Where the client stands in the channels that the server subscribed it to before.
        subs: BTreeMap<String, SubscribeRequest> = (btree_map = "string, message", tag = "3"),
        name: String = (string, tag = "4"),
        version: String = (string, tag = "5"),
        headers: BTreeMap<String, String> = (btree_map = "string, string", tag = "6"),
    }

    /// Subscribes to a channel.
    SubscribeRequest {
        channel: String = (string, tag = "1"),
        token: String = (string, tag = "2"),
        /// From `epoch` and `offset` on, an empty epoch being any.
        recover: bool = (bool, tag = "3"),
        epoch: String = (string, tag = "6"),
        offset: u64 = (uint64, tag = "7"),
        data: Vec<u8> = (bytes = "vec", tag = "8"),
        positioned: bool = (bool, tag = "9"),
        recoverable: bool = (bool, tag = "10"),
        join_leave: bool = (bool, tag = "11"),
        delta: String = (string, tag = "12"),
        /// A filter by tags.
        tf: Option<Filter> = (message, optional, tag = "13"),
        /// [`SubscribeRequest::REJECT_UNRECOVERED`] is looked at.
        flag: i64 = (int64, tag = "14"),
        /// 0, or the kind of a keyed or polled subscription.
        r#type: i32 = (int32, tag = "15"),
    }

    /// Only that there is one matters: its fields are skipped.
    Filter {}

    /// Unsubscribes from a channel, or asks who is there.
    ChannelRequest {
        channel: String = (string, tag = "1"),
    }

    /// Publishes.
    PublishRequest {
        channel: String = (string, tag = "1"),
        data: Vec<u8> = (bytes = "vec", tag = "2"),
        /// 0, or 1 for a keyed publication.
        r#type: i32 = (int32, tag = "3"),
    }

    /// What is kept.
    HistoryRequest {
        channel: String = (string, tag = "1"),
        /// 0: the position only. Negative: as many as may be.
        limit: i32 = (int32, tag = "7"),
        since: Option<StreamPosition> = (message, optional, tag = "8"),
        reverse: bool = (bool, tag = "9"),
    }

    /// A position in a channel's history.
    StreamPosition {
        offset: u64 = (uint64, tag = "1"),
        epoch: String = (string, tag = "2"),
    }

    /// Calls a method.
    RpcRequest {
        data: Vec<u8> = (bytes = "vec", tag = "1"),
        method: String = (string, tag = "2"),
    }

    /// A new connection token.
    RefreshRequest {
        token: String = (string, tag = "1"),
    }

    /// A new subscription token.
    SubRefreshRequest {
        channel: String = (string, tag = "1"),
        token: String = (string, tag = "2"),
        /// 0, or what a polled subscription wants.
        r#type: i32 = (int32, tag = "3"),
    }

    /// Commands beside a one-way transport, by POST.
    EmulationRequest {
        node: String = (string, tag = "1"),
        session: String = (string, tag = "2"),
        data: Vec<u8> = (bytes = "vec", tag = "3"),
    }

    /// Nothing: a ping, its result, that of a publication, that of an unsubscription.
    Empty {}
}

impl SubscribeRequest {
    // 1: pushes may name the channel by a number, which is declined by saying none.
    /// `flag`: rather no subscription than one that is not recovered.
    pub(crate) const REJECT_UNRECOVERED: i64 = 2;
}

// To the client.

/// An answer, or with id 0 a push; nothing at all is a ping.
#[derive(Clone, PartialEq, prost::Message, Serialize)]
pub(crate) struct Reply {
    /// The command's.
    #[prost(uint32, tag = "1")]
    #[serde(skip_serializing_if = "Field::is_absent")]
    pub(crate) id: u32,
    #[prost(oneof = "Outcome", tags = "2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15")]
    #[serde(flatten)]
    pub(crate) outcome: Option<Outcome>,
}

/// What came of a command, or happened without one.
#[derive(Clone, PartialEq, prost::Oneof, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    #[prost(message, tag = "2")]
    Error(Error),
    #[prost(message, tag = "4")]
    Push(Push),
    #[prost(message, tag = "5")]
    Connect(ConnectResult),
    #[prost(message, tag = "6")]
    Subscribe(SubscribeResult),
    #[prost(message, tag = "7")]
    Unsubscribe(Empty),
    #[prost(message, tag = "8")]
    Publish(Empty),
    #[prost(message, tag = "9")]
    Presence(PresenceResult),
    #[prost(message, tag = "10")]
    PresenceStats(PresenceStatsResult),
    #[prost(message, tag = "11")]
    History(HistoryResult),
    #[prost(message, tag = "12")]
    Ping(Empty),
    #[prost(message, tag = "13")]
    Rpc(Message),
    #[prost(message, tag = "14")]
    Refresh(RefreshResult),
    #[prost(message, tag = "15")]
    SubRefresh(Refresh),
}

/// Something that the client did not ask for.
#[derive(Clone, PartialEq, prost::Message, Serialize)]
pub(crate) struct Push {
    /// Empty for what concerns the whole session.
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "Field::is_absent")]
    pub(crate) channel: String,
    #[prost(oneof = "Event", tags = "4, 5, 6, 7, 8, 9, 10, 11, 12")]
    #[serde(flatten)]
    pub(crate) event: Option<Event>,
}

/// The kinds of push.
#[derive(Clone, PartialEq, prost::Oneof, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Event {
    #[prost(message, tag = "4")]
    Pub(Publication),
    #[prost(message, tag = "5")]
    Join(Member),
    #[prost(message, tag = "6")]
    Leave(Member),
    #[prost(message, tag = "7")]
    Unsubscribe(Unsubscribe),
    #[prost(message, tag = "8")]
    Message(Message),
    #[prost(message, tag = "9")]
    Subscribe(Subscribe),
    #[prost(message, tag = "10")]
    Connect(Connect),
    #[prost(message, tag = "11")]
    Disconnect(Disconnect),
    #[prost(message, tag = "12")]
    Refresh(Refresh),
}

messages! {
    /// Why a command failed.
    Error {
        code: u32 = (uint32, tag = "1"),
        message: String = (string, tag = "2"),
        /// Whether the client tries again by itself.
        temporary: bool = (bool, tag = "3"),
    }

    /// The session has begun.
    ConnectResult {
        client: String = (string, tag = "1"),
        version: String = (string, tag = "2"),
        /// Whether the client has to refresh its token, within `ttl` seconds.
        expires: bool = (bool, tag = "3"),
        ttl: u32 = (uint32, tag = "4"),
        data: Vec<u8> = (bytes = "vec", tag = "5"),
        /// The channels that the server subscribed the client to.
        subs: Vec<Subscribed> = (message, repeated, tag = "6"),
        /// Seconds between the server's pings.
        ping: u32 = (uint32, tag = "7"),
        /// Whether the client has to answer them.
        pong: bool = (bool, tag = "8"),
        session: String = (string, tag = "9"),
        node: String = (string, tag = "10"),
        /// Unix time in milliseconds.
        time: i64 = (int64, tag = "11"),
    }

    /// The channel is subscribed to.
    SubscribeResult {
        expires: bool = (bool, tag = "1"),
        ttl: u32 = (uint32, tag = "2"),
        recoverable: bool = (bool, tag = "3"),
        epoch: String = (string, tag = "6"),
        publications: Vec<Publication> = (message, repeated, tag = "7"),
        recovered: bool = (bool, tag = "8"),
        offset: u64 = (uint64, tag = "9"),
        positioned: bool = (bool, tag = "10"),
        data: Vec<u8> = (bytes = "vec", tag = "11"),
        was_recovering: bool = (bool, tag = "12"),
    }

    /// The new connection token was taken.
    RefreshResult {
        client: String = (string, tag = "1"),
        version: String = (string, tag = "2"),
        expires: bool = (bool, tag = "3"),
        ttl: u32 = (uint32, tag = "4"),
    }

    /// A publication. `data` is what [`push::payload`](super::push::payload) makes of the message.
    Publication {
        data: Vec<u8> = (bytes = "vec", tag = "4"),
        /// Who published it, if a client did.
        info: Option<ClientInfo> = (message, optional, tag = "5"),
        /// 0 if it is not in the log.
        offset: u64 = (uint64, tag = "6"),
        tags: BTreeMap<String, String> = (btree_map = "string, string", tag = "7"),
        /// Unix time in milliseconds.
        time: i64 = (int64, tag = "9"),
    }

    /// Who came, or left.
    Member {
        info: Option<ClientInfo> = (message, optional, tag = "1"),
    }

    /// The client is subscribed no longer; from code 2500 on it subscribes again.
    Unsubscribe {
        code: u32 = (uint32, tag = "2"),
        reason: String = (string, tag = "3"),
    }

    /// A payload without a channel: to the client, from it, and what a method gives.
    Message {
        data: Vec<u8> = (bytes = "vec", tag = "1"),
    }

    /// The server subscribed the client to a channel.
    Subscribe {
        recoverable: bool = (bool, tag = "1"),
        epoch: String = (string, tag = "4"),
        offset: u64 = (uint64, tag = "5"),
        positioned: bool = (bool, tag = "6"),
        data: Vec<u8> = (bytes = "vec", tag = "7"),
    }

    /// The session has begun, on a transport without commands.
    Connect {
        client: String = (string, tag = "1"),
        version: String = (string, tag = "2"),
        data: Vec<u8> = (bytes = "vec", tag = "3"),
        subs: Vec<Subscribed> = (message, repeated, tag = "4"),
        expires: bool = (bool, tag = "5"),
        ttl: u32 = (uint32, tag = "6"),
        ping: u32 = (uint32, tag = "7"),
        pong: bool = (bool, tag = "8"),
        session: String = (string, tag = "9"),
        node: String = (string, tag = "10"),
        time: i64 = (int64, tag = "11"),
    }

    /// The session ends, on a transport without close codes.
    Disconnect {
        code: u32 = (uint32, tag = "1"),
        reason: String = (string, tag = "2"),
        /// Not sent by the Go server either: clients go by the code.
        reconnect: bool = (bool, tag = "3"),
    }

    /// The token was refreshed: by the server, or for one subscription.
    Refresh {
        expires: bool = (bool, tag = "1"),
        ttl: u32 = (uint32, tag = "2"),
    }
}

/// An entry of a map in the schema, `string` to `SubscribeResult`. Its value stands even when it is empty (a channel
/// without history): `prost` leaves such a one out of its maps, and the JavaScript client takes that for `null`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Subscribed {
    #[prost(string, tag = "1")]
    pub(crate) channel: String,
    #[prost(message, required, tag = "2")]
    pub(crate) result: SubscribeResult,
}

impl Field for Vec<Subscribed> {
    fn is_absent(&self) -> bool {
        self.is_empty()
    }

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter().map(|entry| (&entry.channel, &entry.result)))
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let entries = BTreeMap::deserialize(deserializer)?.into_iter();
        Ok(entries.map(|(channel, result)| Subscribed { channel, result }).collect())
    }
}

/// A client, as others see it. In JSON `user` and `client` are always there.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ClientInfo {
    #[prost(string, tag = "1")]
    pub(crate) user: String,
    #[prost(string, tag = "2")]
    pub(crate) client: String,
    #[prost(bytes = "vec", tag = "3")]
    #[serde(
        skip_serializing_if = "Field::is_absent",
        serialize_with = "Field::write",
        deserialize_with = "Field::read"
    )]
    pub(crate) conn_info: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    #[serde(
        skip_serializing_if = "Field::is_absent",
        serialize_with = "Field::write",
        deserialize_with = "Field::read"
    )]
    pub(crate) chan_info: Vec<u8>,
}

impl Schema for ClientInfo {}

/// Who is there, by client id. In JSON always there.
#[derive(Clone, PartialEq, prost::Message, Serialize)]
pub(crate) struct PresenceResult {
    #[prost(btree_map = "string, message", tag = "1")]
    pub(crate) presence: BTreeMap<String, ClientInfo>,
}

/// How many are there. In JSON both are always there.
#[derive(Clone, PartialEq, prost::Message, Serialize)]
pub(crate) struct PresenceStatsResult {
    #[prost(uint32, tag = "1")]
    pub(crate) num_clients: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) num_users: u32,
}

/// What is kept, and the head. In JSON all are always there.
#[derive(Clone, PartialEq, prost::Message, Serialize)]
pub(crate) struct HistoryResult {
    #[prost(message, repeated, tag = "1")]
    pub(crate) publications: Vec<Publication>,
    #[prost(string, tag = "2")]
    pub(crate) epoch: String,
    #[prost(uint64, tag = "3")]
    pub(crate) offset: u64,
}
